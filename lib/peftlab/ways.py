"""The ways in which a study runs a method where there are several, such as LoRA on the attention alone and in the whole block.

Tables, figures and sentences tell models apart by method and state of the connector. Where a study runs a method at several levels of
another axis (`AXES`), each level is a method of its own to them, whose name holds the level: ``lora@location=attn``.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from peftlab import methods

PLACES = {"attn": "attention", "mlp": "MLP", "both": "attention and MLP", "gate_up": "gate and up"}
AXES: dict[str, tuple[Callable[[str], str], str]] = {  # axes by which ways are told apart: how a level is said, and how it is said that none is given
    "location": (lambda level: PLACES.get(level, level), ""),
    "size": ("{}".format, "no size"),
    "budget": ("{} % of the base".format, "no budget"),
    "layers": ("last {} blocks".format, "all blocks"),
    "lr": ("rate {}".format, "no rate"),
    "connector_lr": ("connector at {}".format, "no rate of the connector's"),
    "steps": ("{} steps".format, ""),
    "batch_size": ("{} a step".format, ""),
    "train_size": (lambda level: f"{float(level):,.0f} examples", "all examples"),
    "replay": (lambda level: f"{100 * float(level):g} % replay", "no replay"),
}
CELL = ("model", "connector", "dataset", "train_pictures", "quantisation", "precision", "checkpointing")  # runs that differ in these are told apart by them
Told = Mapping[str, tuple[str, ...]]  # by method, the axes by which its ways are told apart


def varied(runs: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """By method, the axes of which a study has several levels in what is otherwise one comparison; `runs` has a row per tuned model (``costs``)."""
    found = {}
    for name, mine in runs[runs["method"] != "none"].groupby("method", sort=False) if len(runs) else ():
        mine = _placed(mine, name)
        cells = mine.groupby([c for c in CELL if c in mine], dropna=False, sort=False)
        axes = tuple(axis for axis in AXES if axis in mine and (cells[axis].nunique(dropna=False) > 1).any())
        found |= {name: axes} if axes else {}
    return found


def apart(frame: pd.DataFrame, told: Told) -> pd.DataFrame:
    """A frame with the names of ways for the methods in `told`: it has a column ``method`` and one for each axis. Its method stays a category where it is one."""
    if frame.empty or not told:
        return frame
    column = frame["method"]
    category = isinstance(column.dtype, pd.CategoricalDtype)
    codes, names = (column.cat.codes.to_numpy().astype(np.int64), column.cat.categories) if category else pd.factorize(column)
    levels: list[Any] = list(names)
    for method, axes in told.items():
        rows = np.flatnonzero(column == method)
        if len(rows):
            keys = _placed(frame[list(axes)].iloc[rows], method)
            number = keys.groupby(list(axes), dropna=False, observed=True, sort=False).ngroup().to_numpy()
            first = np.unique(number, return_index=True)[1]
            codes[rows] = number + len(levels)
            levels += [_name(method, dict(zip(axes, key, strict=True))) for key in keys.iloc[first].itertuples(index=False)]
    made = pd.Categorical.from_codes(codes, pd.Index(levels, dtype=names.dtype))
    return frame.assign(method=made if category else np.asarray(made, dtype=object))


def _placed(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows of one method with the location that is meant where none is given: the first on its card."""
    usual = methods.card(method).locations[:1]
    return rows.assign(location=rows["location"].astype(object).where(rows["location"].notna(), usual[0])) if usual and "location" in rows else rows


def _name(method: str, levels: Mapping[str, Any]) -> str:
    return f"{method}@{','.join(f'{axis}={_level(value)}' for axis, value in levels.items())}"


def _level(value: Any) -> str:
    """A level as a name holds it: the same whether a table read it as a whole number or not; nothing where there is none."""
    return "" if value is None or pd.isna(value) else value if isinstance(value, str) else f"{value:.15g}"


def method(name: str) -> str:
    """The method of a way: the key of its card."""
    return name.partition("@")[0]


def levels(name: str) -> dict[str, str]:
    """By axis, the levels that the name of a way holds; none of a method that the study runs in one way."""
    return dict(part.split("=", 1) for part in name.partition("@")[2].split(",") if part)


def label(name: str) -> str:
    """What a way is called: the label of its method's card, and its levels in brackets."""
    card, said = methods.card(method(name)), []
    for axis, level in levels(name).items():
        how, none = AXES[axis]
        said.append(none if not level else f"{card.size_name} {level}" if axis == "size" else how(level))
    return card.label + (f" [{', '.join(said)}]" if said else "")


def place(name: str) -> tuple[Any, ...]:
    """What ways are ordered by: the order of methods, then of locations on the card, then of numbers; where there is no level, last."""
    card, key = methods.card(method(name)), [list(methods.METHODS).index(method(name))]
    for axis, level in levels(name).items():
        key.append(card.locations.index(level) if axis == "location" and level in card.locations else float(level) if level else math.inf)
    return tuple(key)
