"""Two tiny models to attach to: the project's own, and a LLaVA whose vision tower has linears of the same names as the LLM's."""

from collections.abc import Callable

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from peftlab import methods, models
from peftlab.models import Loaded
from peftlab.models.pocket import TOWERS
from peftlab.run import Run

Load = Callable[[Run], Loaded]


def clip_llava(run: Run) -> Loaded:
    """A frozen LLaVA: CLIP on 8 x 8 pixels in 4 patches, MLP connector, LLaMA of 2 layers, width 32, 4 heads, 2 for k and v."""
    text = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=90, image_seq_length=4, tie_word_embeddings=True, vision_feature_layer=-1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[run.precision]
    return Loaded(model.to(dtype).eval().requires_grad_(False), None, TOWERS)


BASES: dict[str, Load] = {"tiny-mlp": models.load, "clip-llava": clip_llava}


@pytest.fixture(params=BASES)
def load(request: pytest.FixtureRequest) -> Load:
    """Loads one of the two tiny models, with weights large enough that every part of it matters to the logits."""

    def loud(run: Run) -> Loaded:
        loaded = BASES[request.param](run)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            for name, parameter in loaded.model.named_parameters():
                if name.endswith("weight") and parameter.ndim == 2 and parameter.is_floating_point():
                    parameter.copy_(torch.randn(parameter.shape) * 0.15)
        return loaded

    return loud


STATES = [(m, c) for m, card in methods.METHODS.items() for c in (card.connectors if card.group == "core" else card.connectors[:1])]


@pytest.fixture(params=[s for s in STATES if s[0] != "none"], ids="-".join)
def tuned_run(request: pytest.FixtureRequest, sizes: dict[str, int]) -> Run:
    """As `run`, without the untouched base, which has nothing to train."""
    method, connector = request.param
    return Run(model="tiny-mlp", method=method, connector=connector, precision="fp32", size=sizes.get(method))


@pytest.fixture(params=STATES, ids="-".join)
def run(request: pytest.FixtureRequest, sizes: dict[str, int]) -> Run:
    """A run of every method in every connector state its card allows, in fp32."""
    method, connector = request.param
    return Run(model="tiny-mlp", method=method, connector=connector, precision="fp32", size=sizes.get(method))
