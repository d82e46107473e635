"""Maps of countries: their regions, where each lies, which touch."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd
from PIL import Image

from peftlab import pictures

LEAST = 110  # pixels of a region that can be seen and pointed out
SEA, LAND, LINE = (214, 226, 236), (236, 232, 220), (122, 122, 122)


@dataclass(frozen=True)
class Region:
    """A region of a map: its number there, name, and middle (x to the right, y down, in pixels)."""

    number: int
    name: str
    x: float
    y: float


@dataclass(frozen=True, eq=False)
class Chart:
    """A country's map: `labels` (160, 160) holds the number of the region at each pixel, 0 for none."""

    id: str
    name: str
    labels: np.ndarray
    names: dict[int, str]

    @cached_property
    def touching(self) -> frozenset[tuple[int, int]]:
        """Pairs of regions, both ways round, that share at least three pixels' length of border."""
        found: dict[tuple[int, int], int] = {}
        for one, other in ((self.labels[:, 1:], self.labels[:, :-1]), (self.labels[1:], self.labels[:-1])):
            for pair, length in zip(*np.unique(np.stack([one, other], -1)[(one != other) & (one > 0) & (other > 0)], axis=0, return_counts=True), strict=True):
                key = (int(min(pair)), int(max(pair)))
                found[key] = found.get(key, 0) + int(length)
        close = {pair for pair, length in found.items() if length >= 3}
        return frozenset(close | {(b, a) for a, b in close})

    @cached_property
    def near(self) -> frozenset[tuple[int, int]]:
        """Pairs of regions, both ways round, that come within three pixels of each other: too close to be called apart."""
        grown = {n: _grown(self.labels == n) for n in self.names}
        return frozenset((a, b) for a in grown for b in grown if a != b and (grown[a] & (self.labels == b)).any())

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The regions that can be asked about: large enough, of a name of their own, and touching another, so no island drawn in a corner."""
        joined, names = {a for a, _ in self.touching}, list(self.names.values())
        found = []
        for number, name in self.names.items():
            ys, xs = np.nonzero(self.labels == number)
            if number in joined and len(xs) >= LEAST and names.count(name) == 1:
                found.append(Region(number, name, float(xs.mean()), float(ys.mean())))
        return tuple(found)

    def offset(self, region: Region, *, islands: bool) -> tuple[float, float]:
        """Where a region lies in its country, from -1 (west, north) to 1 (east, south) between its edges; with or without what `regions` lacks."""
        ys, xs = np.nonzero(self.labels if islands else np.isin(self.labels, [r.number for r in self.regions]))
        across, down = (xs.max() - xs.min()) / 2, (ys.max() - ys.min()) / 2
        return (region.x - (xs.max() + xs.min()) / 2) / across, (region.y - (ys.max() + ys.min()) / 2) / down

    def draw(self, colours: dict[int, tuple[int, int, int]]) -> Image.Image:
        """The (160, 160) RGB map with some regions coloured by number; lines between all regions and along the coast."""
        field = np.empty((*self.labels.shape, 3), np.uint8)
        field[:] = SEA
        field[self.labels > 0] = LAND
        for number, colour in colours.items():
            field[self.labels == number] = colour
        edge = np.zeros(self.labels.shape, bool)
        edge[:, 1:] |= self.labels[:, 1:] != self.labels[:, :-1]
        edge[1:] |= self.labels[1:] != self.labels[:-1]
        field[edge] = LINE
        return Image.fromarray(field)


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask with three pixels more on each side."""
    padded = np.pad(mask, 3)
    return np.any([padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]] for dy in range(7) for dx in range(7)], axis=0)


@cache
def charts(split: str) -> tuple[Chart, ...]:
    """The maps of a split, in the pack's order."""
    regions: pd.DataFrame = pictures.table("regions")
    names = {chart: dict(zip(map(int, rows["number"]), rows["name"], strict=True)) for chart, rows in regions.groupby("map")}
    rows = pictures.things("map", split)[["id", "name", "file"]].itertuples(index=False, name="Row")
    return tuple(Chart(row.id, row.name, _labels(row.file), names[row.id]) for row in rows)


def _labels(file: str) -> np.ndarray:
    """The map's numbers in the middle of a (160, 160) field."""
    numbers = pictures.numbers(file)
    height, width = numbers.shape
    top, left = (pictures.SIDE - height) // 2, (pictures.SIDE - width) // 2
    return np.pad(numbers, ((top, pictures.SIDE - height - top), (left, pictures.SIDE - width - left)))
