"""How a model comes to be: from the hub or at random, cast, quantised, frozen; and byte tokenizers for the random ones."""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from peftlab import lean, paths
from peftlab.models import CONVERTED, RANDOM, Loaded, Towers, card

# Said at every run, and no news: that a faster kernel could be downloaded, that int8 products are cast, that checkpointing, as peft and we
# ask for it, has an older name.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`.*gradient_checkpointing.*` is deprecated", category=FutureWarning)

# The LLM of every tiny model.
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def load(
    run: Any, towers: Towers, *, processor: type, tiny: Callable[[str], tuple[PreTrainedModel, Any]], answer_type: int = 0, attention: str | None = None
) -> Loaded:
    """The model of `run.model` from its card's source, or from the family's `tiny` where the weights are random.

    `processor` is the family's processor class; pictures are always prepared by PIL, so that they are the same everywhere.
    `attention` is what a family needs other than the device's best. A quantised model is packed in main memory, whole; one in
    full precision is spread over the GPUs that are there. Raises ValueError where packed weights are not where they should be.
    """
    about = card(run.model)
    if about.source == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, made = tiny(run.model)
        cast(model, run.precision)
    else:
        where = {"revision": about.revision}
        split = "auto" if torch.cuda.is_available() and run.quantisation == "none" else None
        how = {"dtype": DTYPES[run.precision], "attn_implementation": attention or best_attention(), "device_map": split}
        source = converted(run.model) if about.source == CONVERTED else about.source
        model = AutoModelForImageTextToText.from_pretrained(source, **how, **where)
        made = stills(processor).from_pretrained(source, backend="pil", **where)
        if DTYPES[products(run.precision)] != DTYPES[run.precision]:
            cast(model, run.precision)
    quantise(model, towers, run.quantisation)
    contiguous(model.lm_head)
    if not hasattr(model, "hf_device_map"):
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Loaded(settle(model), made, towers, answer_type)


def conversion(name: str) -> Path:
    """Where `python -m peftlab convert` puts the model `name`."""
    return paths.cache() / "converted" / name


def converted(name: str) -> Path:
    """Where the converted model `name` is; raises FileNotFoundError where it was not converted."""
    folder = conversion(name)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{name} was not converted: download its checkpoint and call `python -m peftlab convert {name} FOLDER`")
    return folder


def hollow(model_class: type[PreTrainedModel], config: PreTrainedConfig, towers: Towers) -> Loaded:
    """A frozen model on the meta device: every name and shape, no weights; without a processor."""
    with torch.device("meta"):
        return Loaded(settle(model_class(config)), None, towers)


def outline(loaded: Loaded) -> Loaded:
    """The architecture of a bare model on the meta device, as its configuration says: what `loaded` should be, without its weights."""
    return hollow(type(loaded.model), loaded.model.config, loaded.towers)


def best_attention() -> str:
    """On a CPU the backward pass of PyTorch's fused attention costs a third of a step at these lengths; plain products cost a tenth."""
    return "sdpa" if torch.cuda.is_available() else lean.GROUPED


def settle(model: nn.Module) -> nn.Module:
    """The model in eval mode and frozen, what trains on a CPU at less cost put in its place there (`lean`)."""
    if best_attention() == lean.GROUPED:
        lean.lean(model)
    return model.eval().requires_grad_(False)


def products(precision: str) -> str:
    """What products are computed in under `precision`: ``fp32`` also under bf16 on a CPU without instructions for it, unless ``PEFTLAB_BF16`` says 1 (or 0).

    Without them a product in bf16 takes five times as long as one in fp32, and a step of LoRA twice. Frozen weights are rounded to bf16 all the same.
    """
    said = os.environ.get("PEFTLAB_BF16")
    return "bf16" if precision == "bf16" and (said == "1" or (said != "0" and _bf16_here())) else "fp32"


def _bf16_here() -> bool:
    if torch.cuda.is_available():
        return True
    here = torch.cpu.get_capabilities()
    return here.get("architecture") != "x86_64" or any(here.get(name) for name in ("avx512_bf16", "amx_bf16"))


def cast(model: nn.Module, precision: str) -> torch.dtype:
    """Round every parameter to `precision` and hold it in what `products` are computed in, which is returned; buffers stay: positions are counted in fp32."""
    held = DTYPES[products(precision)]
    for parameter in model.parameters():
        parameter.data = parameter.data.to(DTYPES[precision]).to(held)
    return held


def autocast(run: Any, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Products in bf16 where `products` says so, where what trains is fp32; nothing under fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if products(run.precision) == "bf16" else contextlib.nullcontext()


def contiguous(head: nn.Module) -> None:
    """Feed the output head contiguous rows: of a strided view, as `generate` passes the last position, PyTorch copies the vocabulary's matrix once per row."""
    head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


PACKED = {"nf4": "Linear4bit", "nf4_single": "Linear4bit", "int8": "Linear8bitLt"}  # bitsandbytes' linears, by level of quantisation
OUTLIERS = 6.0  # inputs of int8 above this are multiplied in full precision (Dettmers et al. 2022, LLM.int8(), section 3.2)


def quantise(model: nn.Module, towers: Towers, quantisation: str) -> None:
    """Pack every linear of the LLM's blocks as `quantisation` says, nothing under ``none``; raises ValueError unless just these are packed.

    ``nf4`` is QLoRA's 4-bit NormalFloat with doubly quantised constants (Dettmers et al. 2023, section 3), ``nf4_single`` keeps the
    constants in fp32, ``int8`` is LLM.int8().
    """
    if quantisation != "none":
        pack(model.get_submodule(towers.layer.partition(".{i}")[0]), quantisation)
        setattr(model, "is_loaded_in_8bit" if quantisation == "int8" else "is_loaded_in_4bit", True)  # peft's question before it uses its own layers
    check(model, towers, quantisation)


def pack(blocks: nn.Module, quantisation: str) -> None:
    """Replace every Linear under `blocks` by bitsandbytes' own."""
    for parent in list(blocks.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, _packed(child, quantisation).to(child.weight.device))


def _packed(linear: nn.Linear, quantisation: str) -> nn.Module:
    import bitsandbytes as bnb

    shape, how = (linear.in_features, linear.out_features), {"bias": linear.bias is not None, "device": "meta"}
    if quantisation == "int8":
        packed = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False, threshold=OUTLIERS, **how)
        packed.weight = bnb.nn.Int8Params(linear.weight.data.contiguous(), requires_grad=False, has_fp16_weights=False)
    else:
        twice = quantisation == "nf4"
        packed = bnb.nn.Linear4bit(*shape, compute_dtype=linear.weight.dtype, compress_statistics=twice, quant_type="nf4", **how)
        packed.weight = bnb.nn.Params4bit(linear.weight.data.contiguous(), requires_grad=False, compress_statistics=twice, quant_type="nf4", module=packed)
        # Else the first forward in eval mode on a CPU repacks the weights for good: rounded scales, and no gradient through them
        # ever after.
        packed.support_avx512bf16_for_cpu = False
    packed.bias = linear.bias
    return packed


def check(model: nn.Module, towers: Towers, quantisation: str) -> None:
    """Raise ValueError unless the packed linears are all linears of the LLM's blocks under a quantisation, of its kind, and none otherwise."""
    blocks = towers.layer.partition("{i}")[0]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found = type(module).__name__ if type(module).__name__ in PACKED.values() else None
            if found != (PACKED.get(quantisation) if name.startswith(blocks) else None):
                raise ValueError(f"{name} is {f'a {found}' if found else 'not quantised'} after loading with quantisation {quantisation}: the LLM's blocks are quantised, all of them, and nothing else")


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
