"""What trains and how much of it there is, per tower and location, from the model alone (weights or meta device)."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd
from torch import nn

from peftlab import methods, models
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
    `run.batch_size` sequences of `tokens` tokens (per block 34 values a token and hidden unit plus 5 a pair of tokens and head, half as
    wide in bf16: Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, table 2, without dropout masks) and the adapter on disk.
    With `run.checkpointing` a block's values are kept for one block at a time, its input for every block. `outline` is the architecture on
    the meta device (`loading.outline` of a loaded model) where it is not to be that of the model's card.

    Raises ValueError where the architecture of `run.model` is not written down.
    """
    loaded = outline or models.skeleton(run.model)
    size = methods.fitted(loaded, run)
    model = methods.attach(loaded, replace(run, size=size, budget=None))
    table, text = count(model, loaded.towers), loaded.model.config.get_text_config()
    trained = int(table["trainable"].sum())
    methods.settle(model, run)
    matrices = (table["tower"] == "llm") & table["location"].isin(["attn", "mlp"])
    packed = int((table["total"] - table["trainable"])[matrices].sum()) if run.quantisation != "none" else 0
    width = {"bf16": 2, "fp32": 4}[run.precision]
    frozen = int(table["total"].sum()) - trained
    block = tokens * run.batch_size * (34 * text.hidden_size + 5 * text.num_attention_heads * tokens) / 2
    inputs = tokens * run.batch_size * text.hidden_size
    values = text.num_hidden_layers * inputs + block if run.checkpointing else text.num_hidden_layers * block
    held = {
        "weights": round((frozen - packed) * width + packed * PACKED_BYTES.get(run.quantisation, width) + trained * 4),
        "gradients": trained * 4,
        "optimiser": trained * 8,
        "activations": round(values * width),
        "adapter": adapter_bytes(model),
    }
    return {"run": run.axes(), "size": size, "trainable": trained, "total": int(table["total"].sum()), "table": table, "bytes": held}


# A packed weight's bytes: four bits and its share of the constants, doubly quantised or an fp32 for every 64 (Dettmers et al. 2023,
# section 3); a byte, without the fp32 of every row.
PACKED_BYTES = {"nf4": 0.5 + 0.127 / 8, "nf4_single": 0.5 + 4 / 64, "int8": 1.0}


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
