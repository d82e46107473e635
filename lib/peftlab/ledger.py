"""What trains and how much of it there is, per tower and location, from the model alone (weights or meta device)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch import nn

from peftlab import loading, methods, models
from peftlab.models import Loaded, Towers
from peftlab.run import Run

TOWERS = ("vision", "connector", "llm")
LOCATIONS = ("attn", "mlp", "embedding", "norm", "other", "-")


def count(model: nn.Module, towers: Towers) -> pd.DataFrame:
    """Parameters of a bare or attached model: columns tower, location, trainable, total; a row per pair that occurs.

    ``tower`` is vision, connector or llm; ``location`` is attn, mlp, embedding, norm or other inside the LLM and "-" elsewhere.
    What a method adds counts where it acts (a prefix: in attention) and in ``total``. Tied weights count once, 4-bit ones by
    the size they stand for.
    """
    rows = [
        {"tower": tower, "location": location, "trainable": size if p.requires_grad else 0, "total": size}
        for name, p in methods.named_parameters(model)
        for (tower, location), size in [(_place(name, towers), _size(p))]
    ]
    table = pd.DataFrame(rows, columns=["tower", "location", "trainable", "total"])
    order = {"tower": pd.CategoricalDtype(TOWERS, ordered=True), "location": pd.CategoricalDtype(LOCATIONS, ordered=True)}
    table = table.astype(order).groupby(["tower", "location"], observed=True, as_index=False)[["trainable", "total"]].sum()
    return table.astype({"tower": str, "location": str, "trainable": "int64", "total": "int64"})


def expected(run: Run, *, tokens: int = 64, outline: Loaded | None = None) -> dict[str, Any]:
    """What a run would train and hold in memory, from its architecture alone: no weights are read.

    ``table`` is `count`'s; ``bytes`` are of the frozen and training weights, gradients, AdamW's two moments, what the backward pass keeps of
    `run.batch_size` sequences of `tokens` tokens (`kept`) and the adapter on disk. The first five together are more than is ever held at once: gradients
    come as what the backward pass keeps goes. `outline` is the architecture on the meta device (`loading.outline` of a loaded model) where it is not to be
    that of the model's card.

    Raises ValueError where the architecture of `run.model` is not written down.
    """
    loaded = outline or models.skeleton(run.model)
    size = methods.fitted(loaded, run)
    model = attached(loaded, replace(run, size=size, budget=None))
    table = count(model, loaded.towers)
    trained = int(table["trainable"].sum())
    activations = kept(loaded, model, run, tokens=tokens, size=size)
    methods.settle(model, run)
    matrices = (table["tower"] == "llm") & table["location"].isin(["attn", "mlp"])
    packed = int((table["total"] - table["trainable"])[matrices].sum()) if run.quantisation != "none" else 0
    width = {"bf16": 2, "fp32": 4}[run.precision]
    frozen = int(table["total"].sum()) - trained
    held = {
        "weights": round((frozen - packed) * width + packed * PACKED_BYTES.get(run.quantisation, width) + trained * 4),
        "gradients": trained * 4,
        "optimiser": trained * 8,
        "activations": activations + (2 * trained if run.precision == "bf16" else 0),  # autocast keeps a copy in bf16 of what trains
        "adapter": adapter_bytes(model),
    }
    return {"run": run.axes(), "size": size, "trainable": trained, "total": int(table["total"].sum()), "table": table, "bytes": held}


def attached(outline: Loaded, run: Run) -> nn.Module:
    """`methods.attach` to an outline on the meta device: what the method adds holds no numbers either, and none are drawn."""
    with torch.device("meta"):
        return methods.attach(outline, run)


# A packed weight's bytes: four bits and its share of the constants, doubly quantised or an fp32 for every 64 (Dettmers et al. 2023,
# section 3); a byte, without the fp32 of every row.
PACKED_BYTES = {"nf4": 0.5 + 0.127 / 8, "nf4_single": 0.5 + 4 / 64, "int8": 1.0}


def kept(loaded: Loaded, model: nn.Module, run: Run, *, tokens: int, size: int | None) -> int:
    """Bytes that the LLM's forward pass over `run.batch_size` sequences of `tokens` tokens keeps for the backward pass, logits apart.

    The attached model is run on the meta device, where nothing is computed, and what autograd saves is counted, each storage once and weights
    not. Attention is fused where there is a GPU, as in training (`loading.best_attention`). With `run.checkpointing` a block's share is kept for one block at a time, its
    input for every block. `size` is that of the method: of a prefix, its tokens. Left out is what bitsandbytes' int8 products set aside for outliers.
    """
    llm, layers = loaded.model.get_submodule(loaded.towers.llm), loaded.model.config.get_text_config().num_hidden_layers
    dtype, prompt = loading.DTYPES[run.precision], getattr(getattr(model, "active_peft_config", None), "peft_type", None)
    before = [(p, p.dtype, p.device) for p in llm.parameters()]
    training = llm.training
    before_them, prefix = (size or 0 if prompt == kind else 0 for kind in ("PROMPT_TUNING", "PREFIX_TUNING"))
    in_front = any(p.requires_grad and _place(name, loaded.towers)[1] in ("-", "embedding") for name, p in methods.named_parameters(model))
    llm.to("meta", dtype).train()
    try:
        x = torch.empty(run.batch_size, before_them + tokens, llm.config.hidden_size, device="meta", dtype=dtype, requires_grad=in_front)
        mask = torch.empty(run.batch_size, prefix + before_them + tokens, device="meta", dtype=torch.long)
        past = _prefix(llm.config, run.batch_size, prefix, dtype) if prefix else None
        own = {t.untyped_storage()._cdata for t in (*llm.parameters(), *llm.buffers())}
        with _counted(llm, own, packed=run.quantisation == "int8") as found:
            llm(inputs_embeds=x, attention_mask=mask, past_key_values=past, use_cache=past is not None)
    finally:
        llm.train(training)
        for p, kind, device in before:
            p.data = p.data.to(device, kind)
    whole = sum(storage.nbytes() for storage in found.values())
    return round(layers * x.numel() * x.element_size() + whole / layers) if run.checkpointing else whole


def _prefix(config: Any, batch: int, size: int, dtype: torch.dtype) -> Any:
    """The keys and values of a prefix of `size` tokens, which train, as a cache."""
    from transformers import DynamicCache

    cache, width = DynamicCache(), getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        keys, values = (torch.empty(batch, config.num_key_value_heads, size, width, device="meta", dtype=dtype, requires_grad=True) for _ in range(2))
        cache.update(keys, values, layer)
    return cache


@contextmanager
def _counted(llm: nn.Module, own: set[int], *, packed: bool) -> Iterator[dict[int, Any]]:
    """The storages that autograd saves within the block, by their number, but for the `own`; with `packed` also the inputs of frozen linears, which int8 products keep."""
    from transformers import AttentionInterface, AttentionMaskInterface

    found: dict[int, Any] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if (storage := tensor.untyped_storage())._cdata not in own:
            found.setdefault(storage._cdata, storage)
        return tensor

    AttentionInterface.register("counted", lambda module, q, k, v, mask, **_: (_Attention.apply(q, k, v).transpose(1, 2), None))
    AttentionMaskInterface.register("counted", lambda *_, **__: None)
    usual, enabled = llm.config._attn_implementation, torch.is_autocast_enabled
    linears = [m for m in llm.modules() if packed and isinstance(m, nn.Linear) and not m.weight.requires_grad]
    hooks = [m.register_forward_pre_hook(lambda _, given: (_Kept.apply(given[0]), *given[1:])) for m in linears]
    llm.config._attn_implementation = "counted"
    try:
        with (
            torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
            mock.patch("torch.is_autocast_enabled", lambda *on: on != ("meta",) and enabled(*on)),  # it knows no meta device
            mock.patch("torch.nn.functional.dropout", lambda x, p=0.5, training=True, inplace=False: torch.native_dropout(x, p, training)[0] if training and p else x),
        ):
            yield found
    finally:
        llm.config._attn_implementation = usual
        for hook in hooks:
            hook.remove()


class _Attention(torch.autograd.Function):
    """What attention keeps, of (batch, heads, tokens, width) each: fused, its inputs, its output and a number a row; else its inputs and the weights in fp32, and in their own width."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        batch, heads, tokens, _ = q.shape
        out = q.new_empty(batch, tokens, heads, v.shape[-1]).transpose(1, 2)  # as fused attention lays it out: what follows needs no copy
        if loading.best_attention() == "sdpa":
            ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
            return out
        weights = q.new_empty(batch, heads, tokens, k.shape[-2], dtype=torch.float32)
        to_q, to_k, to_v = ctx.needs_input_grad
        kept = ((k, to_q), (q, to_k), (v, to_q or to_k), (weights, to_q or to_k), (weights.to(q.dtype), to_v))
        ctx.save_for_backward(*(tensor for tensor, needed in kept if needed))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise NotImplementedError("what is counted is not trained")


class _Kept(torch.autograd.Function):
    """Keeps what goes through it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


def adapter_bytes(model: nn.Module) -> int:
    """Bytes of everything that trains: what a saved adapter holds, without the file's header."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _place(name: str, towers: Towers) -> tuple[str, str]:
    if name.startswith(("prompt_encoder.", "soft_prompt.")):
        return "llm", "attn" if name.startswith("prompt_encoder.") else "embedding"
    if (tower := towers.part(name)) != "llm":
        return tower, "-"
    parts = name.split(".")
    for location, linears in (("attn", towers.attn), ("mlp", towers.mlp)):
        if name.startswith(towers.layer.split("{i}")[0]) and any(f".{linear}." in name for linear in linears):
            return "llm", location
    if any("norm" in part for part in parts):
        return "llm", "norm"
    return "llm", "embedding" if "embed_tokens" in parts or parts[0] == "lm_head" else "other"


def _size(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)  # bitsandbytes packs two 4-bit weights in a byte and keeps the shape here
    return math.prod(state.shape) if state is not None else parameter.numel()
