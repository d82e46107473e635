"""What trains and how much of it there is, per tower and location, from the model alone (weights or meta device)."""

import math

import pandas as pd
from torch import nn

from peftlab import methods
from peftlab.models import Towers

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


def adapter_bytes(model: nn.Module) -> int:
    """Bytes of everything that trains: what a saved adapter holds, without the file's header."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _place(name: str, towers: Towers) -> tuple[str, str]:
    if name.startswith("prompt_encoder."):
        return "llm", "attn"
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
