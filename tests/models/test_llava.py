"""LLaVA-1.5 at full size without weights, and checkpoints in LLaVA's own layout."""

import pytest
import torch

from peftlab import features, models
from peftlab.models import Loaded, llava
from peftlab.records import Example
from peftlab.run import Run

RUN = Run(model="tiny-llava", precision="fp32")
TOTALS = {"llava-1.5-7b": (6_738_415_616, 20_979_712), "llava-1.5-13b": (13_015_864_320, 31_467_520)}


@pytest.mark.parametrize("name", TOTALS)
def test_the_skeleton_has_the_published_size(name: str) -> None:
    loaded = models.skeleton(name)
    counted = dict.fromkeys(("llm", "connector", "vision"), 0)
    for parameter, tensor in loaded.model.named_parameters():
        assert tensor.is_meta
        counted[loaded.towers.part(parameter)] += tensor.numel()
    assert tuple(counted.values()) == (*TOTALS[name], 303_507_456)


def original(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's weights as LLaVA's own code would have stored them; written apart from the converter."""
    stored = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            name = name.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        elif "multi_modal_projector" in name:
            name = name.replace("multi_modal_projector.linear_1", "mm_projector.0").replace("multi_modal_projector.linear_2", "mm_projector.2")
        stored[name.replace("model.language_model.", "model.")] = tensor.clone()
    return stored


def other(seed: int) -> Loaded:
    """A tiny LLaVA with other weights."""
    loaded = models.load(RUN)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return loaded


def test_a_checkpoint_in_llavas_layout_is_the_same_model(examples: list[Example]) -> None:
    first, second = other(1), other(2)
    pictures = features.encode(first, [examples[0].image])
    asked = pictures.batch([pictures.tokens(examples[0].image, "What is it?")], [examples[0].image])
    stored = original(first.model)
    assert {"model.layers.0.self_attn.q_proj.weight", "model.mm_projector.2.bias", "model.norm.weight", "model.embed_tokens.weight"} <= stored.keys()
    with torch.no_grad():
        assert not torch.allclose(first.model(**asked).logits, second.model(**asked).logits, atol=1e-2)
        llava.convert(stored | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, second.model)
        assert torch.equal(first.model(**asked).logits, second.model(**asked).logits)


def test_a_checkpoint_without_its_vision_tower_keeps_the_models() -> None:
    first, second = other(1), other(2)
    before = {n: t.clone() for n, t in second.model.model.vision_tower.state_dict().items()}
    llava.convert({n: t for n, t in original(first.model).items() if "vision_tower" not in n}, second.model)
    assert all(torch.equal(t, before[n]) for n, t in second.model.model.vision_tower.state_dict().items())
    assert torch.equal(second.model.model.language_model.norm.weight, first.model.model.language_model.norm.weight)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(1)}), "model.layers.9.mlp.up_proj.weight has no place in this model"),
        (lambda s: s.update({"transformer.h.0": torch.zeros(1)}), "transformer.h.0 has no place in this model"),
        (lambda s: s.pop("model.mm_projector.0.bias"), "holds nothing for model.multi_modal_projector.linear_1.bias"),
        (lambda s: s.update({"model.norm.weight": torch.zeros(3)}), r"model.language_model.norm.weight is \(3,\) in the checkpoint, the model has \(32,\)"),
    ],
)
def test_another_checkpoint_is_refused(change: object, sentence: str) -> None:
    stored = original(other(1).model)
    change(stored)
    with pytest.raises(ValueError, match=sentence):
        llava.convert(stored, other(2).model)
