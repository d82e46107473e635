"""Cards of the data sets: what each asks, how it is scored, whose place it takes, under which licence."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class DatasetCard:
    """What a reader must know of a data set before believing a score on it.

    ``metric`` is a name in `metrics.METRICS`; ``place`` the column of Zhou et al. (2024, Table 1) it is an analogue of;
    ``sizes`` the number of examples per split (``base`` is the base model's own training pool, from training assets only).
    ``held_out`` says what of the test split no training example holds; ``answer_tokens`` is the most new tokens an answer may have.
    """

    name: str
    label: str
    task: str
    metric: str
    place: str
    licence: str
    sizes: dict[str, int]
    held_out: str
    answer_tokens: int = 12


DATASETS: dict[str, DatasetCard] = {
    card.name: card
    for card in (
        DatasetCard(
            name="scenes",
            label="Scenes",
            task="general questions on scenes of one to four objects: presence, count, kind, colour, left or right",
            metric="exact",
            place="VQAv2",
            licence="GPL-2.0 (Tux Paint stamps), public domain, CC0, CC BY and CC BY-SA (GCompris pictures)",
            sizes={"base": 12000, "train": 2000, "validation": 200, "test": 1000},
            held_out="every cut-out: no picture of a test scene's objects is in a training scene",
        ),
        DatasetCard(
            name="facts",
            label="Facts",
            task="outside knowledge: a flag or a thing in the picture, a fact that is not in it",
            metric="exact",
            place="OK-VQA",
            licence="GPL-2.0 (Tux Paint stamps), public domain, CC0, CC BY and CC BY-SA (GCompris pictures), MIT (flagpy, countryinfo)",
            sizes={"base": 8000, "train": 2000, "validation": 200, "test": 1000},
            held_out="pairs: the things and flags are taught, the (thing, fact) pairs asked in the test are not",
        ),
        DatasetCard(
            name="titles",
            label="Titles",
            task="reading: rendered title cards of real films, several fonts and layouts",
            metric="exact",
            place="OCR-VQA",
            licence="CC0-1.0 (film data), OFL-1.1 (fonts)",
            sizes={"base": 10000, "train": 2000, "validation": 200, "test": 1000},
            held_out="films and two fonts: no test title is in training; its words are taught on other films",
        ),
        DatasetCard(
            name="icons_choice",
            label="Icons (choice)",
            task="icon reasoning by choice on grids of icons: count, odd one out, belongs to the group, above or left of",
            metric="exact",
            place="IconQA-txt",
            licence="CC-BY-SA-4.0 (OpenMoji), MIT (Fluent emoji)",
            sizes={"train": 2000, "validation": 200, "test": 1000},
            held_out="whole concepts: no icon of a test grid, in either style, is in training",
        ),
        DatasetCard(
            name="icons_blank",
            label="Icons (blank)",
            task="icon reasoning with a filled-in number or kind: count, difference, rows, place, cell, commonest kind, repeating pattern",
            metric="exact",
            place="IconQA-blank",
            licence="CC-BY-SA-4.0 (OpenMoji), MIT (Fluent emoji)",
            sizes={"train": 2000, "validation": 200, "test": 1000},
            held_out="whole concepts, the same as those of the icons by choice: no icon of a test grid, in either style, is in training",
        ),
        DatasetCard(
            name="captions",
            label="Captions",
            task="captions with five references each: things by name or kind, how many, where to each other, on what background",
            metric="cider",
            place="Flickr30k",
            licence="GPL-2.0 (Tux Paint stamps), public domain, CC0, CC BY and CC BY-SA (GCompris pictures)",
            sizes={"train": 2000, "validation": 200, "test": 1000},
            held_out="every cut-out and photograph: no picture of a test scene's things is in training; their names or kinds are taught",
            answer_tokens=40,
        ),
        DatasetCard(
            name="science",
            label="Science",
            task="science by letter, with a line of context: regions of maps, groups of animals, diets, traits, names of planets, tools, plants",
            metric="letter_or_name",
            place="ScienceQA",
            licence="GPL-2.0 and later (KGeography maps), GPL-2.0 (Tux Paint stamps), public domain, CC0, CC BY and CC BY-SA (GCompris pictures)",
            sizes={"train": 2000, "validation": 200, "test": 1000},
            held_out="every map, every cut-out, and the (thing, fact) pairs asked, the same pairs as those of the facts",
        ),
        DatasetCard(
            name="photos",
            label="Photos",
            task="poor photographs (blur, darkness, tilt, crop, cover) and what a person would ask of them; a quarter cannot be answered",
            metric="vqa",
            place="VizWiz",
            licence="public domain, CC0, CC BY and CC BY-SA (GCompris photographs)",
            sizes={"train": 2000, "validation": 200, "test": 1000},
            held_out="every photograph: the test's 62 are in no training picture",
        ),
    )
}


def card(name: str) -> DatasetCard:
    """The card of data set `name`; raises ValueError naming the choices."""
    if name not in DATASETS:
        raise ValueError(f"dataset is {name!r}; choose one of {', '.join(DATASETS)} (lib/peftlab/datasets/__init__.py)")
    return DATASETS[name]


def load(name: str, split: str, size: int | None = None) -> Iterator[Any]:
    """Yield the `records.Example`s of a split, in a fixed order, from the implementation named like the card.

    With `size`, so many of them instead of as many as the card says: the first are the same.
    """
    sizes = card(name).sizes
    if split not in sizes:
        raise ValueError(f"split is {split!r}; {name} has {', '.join(sizes)}")
    return import_module(f"peftlab.datasets.{name}").load(split, size or sizes[split])
