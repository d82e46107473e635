"""Icons of the pack and the grids they are drawn in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from peftlab import pictures

STYLES = ("openmoji", "fluent")
KINDS = (
    *("mammal", "bird", "fruit", "vegetable", "prepared food", "drink", "land vehicle", "building", "sports equipment"),
    *("musical instrument", "tool", "clothing", "electrical device", "stationery", "plant", "weather"),
)
# kinds that a person might put together: never two of them in one question
CLOSE = ({"fruit", "vegetable", "prepared food", "drink"}, {"fruit", "plant", "vegetable"}, {"tool", "stationery", "electrical device"})


@dataclass(frozen=True)
class Icon:
    """An icon of a grid: its concept's name and kind, its row and column from the top left."""

    name: str
    kind: str
    row: int
    column: int


@dataclass(frozen=True)
class Grid:
    """Icons with the rows and columns of the grid they lie in; places may stay empty."""

    size: tuple[int, int]
    icons: tuple[Icon, ...]


@cache
def concepts(split: str) -> dict[str, tuple[str, ...]]:
    """kind -> names of the split's concepts that the pack has in every style."""
    both = set.intersection(*(set(pictures.things(style, split)["name"]) for style in STYLES))
    rows = pictures.things(STYLES[0], split)
    rows = rows[rows["name"].isin(both) & rows["kind"].isin(KINDS)]
    return {kind: tuple(names) for kind, names in rows.groupby("kind", sort=True)["name"]}


def draw(grid: Grid, style: str, split: str, rng: np.random.Generator) -> Image.Image:
    """A (160, 160) RGB grid of icons of one style, each a little off its place, on a light background."""
    files = _files(style, split)
    canvas = pictures.background(rng, split, photos=0.0)
    height, width = (pictures.SIDE / n for n in grid.size)
    for icon in grid.icons:
        centre = (width * (icon.column + 0.5) + rng.uniform(-3, 3), height * (icon.row + 0.5) + rng.uniform(-3, 3))
        pictures.paste(canvas, files[icon.name], centre, min(height, width) * rng.uniform(0.82, 0.94))
    return canvas


@cache
def _files(style: str, split: str) -> dict[str, str]:
    rows: pd.DataFrame = pictures.things(style, split)
    return dict(zip(rows["name"], rows["file"], strict=True))


def cells(size: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """The grid's (row, column) places in random order."""
    found = [(row, column) for row in range(size[0]) for column in range(size[1])]
    return [found[i] for i in rng.permutation(len(found))]


def some(rng: np.random.Generator, names: Sequence[str], number: int) -> list[str]:
    """`number` names in random order; each once before any comes twice."""
    return [names[i] for _ in range(-(-number // len(names))) for i in rng.permutation(len(names))][:number]


def kinds(rng: np.random.Generator, known: Sequence[str], number: int) -> list[str]:
    """Up to `number` kinds in random order, no two of which a person might put together."""
    chosen: list[str] = []
    for kind in some(rng, known, len(known)):
        if len(chosen) < number and not any(kind in row and row & set(chosen) for row in CLOSE):
            chosen.append(kind)
    return chosen
