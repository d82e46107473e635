"""How a model comes to be: from the hub or at random, cast, quantised, frozen; and byte tokenizers for the random ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from peftlab.models import RANDOM, Loaded, Towers, card

# The LLM of every tiny model.
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def load(
    run: Any, towers: Towers, *, processor: type, tiny: Callable[[str], tuple[PreTrainedModel, Any]], answer_type: int = 0, attention: str | None = None
) -> Loaded:
    """The model of `run.model` from its card's source, or from the family's `tiny` where the weights are random.

    `processor` is the family's processor class; pictures are always prepared by PIL, so that they are the same everywhere.
    `attention` is what a family needs other than the device's best. Under ``nf4`` the weights are packed in main memory, whole
    models at a time; without it they are spread over the GPUs that are there. Raises ValueError where 4-bit weights are not where
    they should be.
    """
    about = card(run.model)
    if about.source == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, made = tiny(run.model)
        for parameter in model.parameters():  # not the buffers: positions are counted in fp32
            parameter.data = parameter.data.to(DTYPES[run.precision])
    else:
        where = {"revision": about.revision}
        split = "auto" if torch.cuda.is_available() and run.quantisation == "none" else None
        how = {"dtype": DTYPES[run.precision], "attn_implementation": attention or best_attention(), "device_map": split}
        model = AutoModelForImageTextToText.from_pretrained(about.source, **how, **where)
        made = stills(processor).from_pretrained(about.source, backend="pil", **where)
    if run.quantisation == "nf4":
        nf4(model.get_submodule(towers.layer.partition(".{i}")[0]))
        model.is_loaded_in_4bit = True  # peft's question before it uses its own 4-bit layers
    check(model, towers, run.quantisation)
    contiguous(model.lm_head)
    if not hasattr(model, "hf_device_map"):
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Loaded(model.eval().requires_grad_(False), made, towers, answer_type)


def hollow(model_class: type[PreTrainedModel], config: PreTrainedConfig, towers: Towers) -> Loaded:
    """A frozen model on the meta device: every name and shape, no weights; without a processor."""
    with torch.device("meta"):
        return Loaded(model_class(config).requires_grad_(False), None, towers)


def best_attention() -> str:
    """On a CPU the backward pass of PyTorch's fused attention costs a third of a step at these lengths; plain products cost a tenth."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def contiguous(head: nn.Module) -> None:
    """Feed the output head contiguous rows: of a strided view, as `generate` passes the last position, PyTorch copies the vocabulary's matrix once per row."""
    head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


def nf4(blocks: nn.Module) -> None:
    """Replace every Linear under `blocks` by bitsandbytes' 4-bit one (NF4, double quantisation)."""
    import bitsandbytes as bnb

    for parent in list(blocks.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                linear = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=child.bias is not None,
                    compute_dtype=child.weight.dtype, compress_statistics=True, quant_type="nf4", device="meta",
                )  # fmt: skip
                linear.weight = bnb.nn.Params4bit(child.weight.data.contiguous(), requires_grad=False, compress_statistics=True, quant_type="nf4", module=linear)
                linear.bias = child.bias
                # Else the first forward in eval mode on a CPU repacks the weights for good: rounded scales, and no gradient
                # through them ever after.
                linear.support_avx512bf16_for_cpu = False
                setattr(parent, name, linear.to(child.weight.device))


def check(model: nn.Module, towers: Towers, quantisation: str) -> None:
    """Raise ValueError unless the 4-bit linears are all linears of the LLM's blocks under nf4 and none otherwise."""
    blocks = towers.layer.partition("{i}")[0]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            packed = type(module).__name__ == "Linear4bit"
            if packed != (quantisation == "nf4" and name.startswith(blocks)):
                raise ValueError(f"{name} is {'4-bit' if packed else 'not 4-bit'} after loading with quantisation {quantisation}: only the LLM's blocks are quantised")


def published(name: str, values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The configuration that a family's file gives for `name`; raises ValueError where it gives none."""
    if name not in values:
        raise ValueError(f"no full-size configuration of {name} is written down; there are {', '.join(values)} ({card(name).family}.py in lib/peftlab/models)")
    return values[name]


def stills(processor: type) -> type:
    """A processor class without its side for videos, which needs torchvision; pictures and text go through it unchanged."""

    class Stills(processor):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

    Stills.__name__ = processor.__name__
    return Stills


def byte_tokenizer(special: Sequence[str], *, eos: str, pad: str, bos: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    """A tokenizer of `special` tokens and the 256 bytes, made here; `named` ones become attributes, as ``image_token``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    base = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    base.pre_tokenizer, base.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    extra = [token for token in special if token not in (bos, eos, pad)]
    return PreTrainedTokenizerFast(tokenizer_object=base, bos_token=bos, eos_token=eos, pad_token=pad, additional_special_tokens=extra, model_specific_special_tokens=named)
