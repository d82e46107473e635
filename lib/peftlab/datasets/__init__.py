"""Cards of the data sets: what each asks, how it is scored, whose place it takes, under which licence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from peftlab import paths

PACK = "pack"  # the source of the sets that are drawn here, from data/pack


@dataclass(frozen=True)
class DatasetCard:
    """What a reader must know of a data set before believing a score on it.

    ``metric`` is a name in `metrics.METRICS`; ``place`` the column of Zhou et al. (2024, Table 1) it is an analogue of;
    ``sizes`` the number of examples per split (``base`` is the base model's own training pool, from training assets only; ``simple`` holds scenes to caption, from test assets).
    ``held_out`` says what of the test split no training example holds; ``answer_tokens`` is the most new tokens an answer may have. A size of None is as many as there are. ``source`` says where
    examples come from: `PACK`, hub repositories at a revision each (``main`` where none is pinned yet: the commit that it was is kept with the prepared data), or a user's YAML; ``module`` the
    file that reads them, where it is not the card's own.
    """

    name: str
    label: str
    task: str
    metric: str
    place: str
    licence: str
    sizes: dict[str, int | None]
    held_out: str
    answer_tokens: int = 12
    source: str = PACK
    module: str | None = None


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
            sizes={"base": 12000, "train": 2000, "validation": 200, "test": 1000, "simple": 1000},
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


# ---------------------------------------------------------------- published benchmarks, by hub repository
# Sizes are those of Zhou et al. (2024, Table 8) where it agrees with the published splits, else the splits' own; validation is carved out of
# training, by picture. What the table of the paper calls the unseen set VQAv2 and the seen set VizWiz is the other way round in its text.

CAPTION = 40  # tokens: room for a long caption
AS_PUBLISHED = "the published split"


def _published(
    name: str, label: str, task: str, metric: str, source: str, licence: str, train: int | None, validation: int, test: int, *, place: str = "", held_out: str = AS_PUBLISHED, **more: Any
) -> DatasetCard:
    sizes = {"train": train, "validation": validation, "test": test} if validation else {"test": test}
    return DatasetCard(name, label, task, metric, place or label, licence, sizes, held_out, source=source, module="published", **more)


DATASETS |= {
    card.name: card
    for card in (
        _published(
            "scienceqa", "ScienceQA", "school science by choice, the letter is the answer; only the questions that have a picture (6,218 of 12,726 in training)", "letter_or_name",
            "derek-thomas/ScienceQA@f18b0a70359ebfb41f658fd564208d0355b013f4", "CC-BY-NC-SA-4.0", None, 500, 2017,
        ),
        _published(
            "iconqa_txt", "IconQA-txt", "icon reasoning by choice, the text of the right one is the answer", "exact", "iconqa", "CC-BY-NC-SA-4.0", None, 500, 6316,
            held_out="the published split; the authors' release must be unpacked here, the hub has no training part",
        ),
        _published(
            "iconqa_blank", "IconQA-blank", "icon reasoning, the blank is filled in", "exact", "iconqa", "CC-BY-NC-SA-4.0", None, 500, 3638,
            held_out="the published split; the authors' release must be unpacked here, the hub has no training part",
        ),
        _published(
            "vizwiz", "VizWiz", "questions of blind people on photographs of theirs, some unanswerable; ten answers each", "vqa_vizwiz",
            "lmms-lab/VizWiz-VQA@d428a2dae984f79cf1b9d99467dfa883e0c30686 vizwiz", "CC-BY-4.0", None, 500, 4319,
            held_out="the validation split is the test, as in the paper: the test has no public answers; the authors' training part must be unpacked here",
        ),
        _published(
            "flickr30k", "Flickr30k", "captions, five references each; Karpathy's split, which the paper's 31k and 4k are not", "cider",
            "nlphuji/flickr30k@f5fbeaae027ee156ec0e2c6c5317dccc3e758b83", "Flickr's terms, for research", 29000, 1014, 1000, held_out="Karpathy's test pictures; validation is his too",
            answer_tokens=CAPTION,
        ),
        _published(
            "okvqa", "OK-VQA", "outside knowledge about photographs; ten answers each", "vqa",
            "Multimodal-Fatima/OK-VQA_train@78e937b0afc333cfe8fee21c4d56aa405b4d0682 lmms-lab/OK-VQA@c9f858961f4095a9aeef615057b0822cce967096", "CC-BY-4.0 (COCO pictures: Flickr's terms)", None, 500, 5046,
            held_out="COCO's validation pictures",
        ),
        _published(
            "ocrvqa", "OCR-VQA", "reading book covers: title, author, genre, year", "exact", "howard-hou/OCR-VQA@88234cc092c5f6d199b5cf3b471e3b490a69c07b", "unknown (covers of books)", 20000, 500, 5000,
        ),
        _published(
            "vqav2", "VQAv2", "general questions on photographs; ten answers each", "vqa",
            "Multimodal-Fatima/VQAv2_train@main lmms-lab/VQAv2@32665d35052eb4a6d4414851c3c829a72754915a", "CC-BY-4.0 (COCO pictures: Flickr's terms)", 20000, 500, 5000,
            held_out="COCO's validation pictures: the test has no public answers",
        ),
        _published(
            "gqa", "GQA", "compositional questions on photographs, from scene graphs", "exact", "lmms-lab/GQA@78e9ec37481de666feb0180c7b5a773741cb47ca", "CC-BY-4.0", 10000, 500, 12578, place="GQA (SPIDER)",
            held_out="the pictures of testdev, which stands for the test",
        ),
        _published(
            "textvqa", "TextVQA", "reading in photographs; ten answers each, no OCR tokens in the question", "vqa_m4c", "lmms-lab/textvqa@9c0699cd19768ac5ab97568f6b3cbac4c0062884", "CC-BY-4.0", 10000, 500, 5000, place="TextVQA (SPIDER)",
            held_out="the validation pictures: the test has no public answers",
        ),
        _published(
            "coco_captions", "COCO captions", "captions, five references each; Karpathy's split", "cider", "bitmind/MS-COCO@659c86689f6b24e9287d4e10254f2b84c7a38de6 coco",
            "CC-BY-4.0 (pictures: Flickr's terms)", 10000, 500, 5000, place="COCO captions (SPIDER)", held_out="Karpathy's test pictures",
            answer_tokens=CAPTION,
        ),
        _published(
            "pope", "POPE", "is there such a thing in the picture: random, popular and adversarial absentees, 3,000 questions each", "yes_no",
            "lmms-lab/POPE@4db1276663dfa5eb8ad16a52d24c31a09e470896", "MIT (COCO pictures: Flickr's terms)", None, 0, 9000, place="POPE", held_out="everything: it only tests",
        ),
        _published(
            "repope", "POPE (RePOPE)", "POPE's questions with the labels of RePOPE: mended, and without the ambiguous ones", "yes_no",
            "MM-Hallu/RePOPE@main", "MIT (COCO pictures: Flickr's terms)", None, 0, 8185, place="POPE", held_out="everything: it only tests",
        ),
        _published(
            "mmhal", "MMHal-Bench", "96 open questions on which models like to invent things; an LLM's opinion of the answers is had by `python -m peftlab judge`", "cider",
            "Shengcao1006/MMHal-Bench@8c04a4a8ae40b80763eee9b3eadf115e2267bfa6", "Apache-2.0 (pictures: Open Images)", None, 0, 96, place="MMHal-Bench",
            held_out="everything: it only tests; the CIDEr-D against one reference says little", answer_tokens=256,
        ),
    )
}  # fmt: skip


def card(name: str) -> DatasetCard:
    """The card of data set `name`: built in, or a user's own; raises ValueError naming the choices, or what is wrong with the user's YAML."""
    if name in DATASETS:
        return DATASETS[name]
    if name not in names():
        raise ValueError(f"dataset is {name!r}; choose one of {', '.join(names())} (lib/peftlab/datasets/__init__.py; your own: {paths.own()}/<name>.yaml)")
    return _own_card(name)


def names() -> list[str]:
    """Every data set that has a card, in the order of tables: the built-in ones, then the user's own by name."""
    return [*DATASETS, *sorted(file.stem for file in paths.own().glob("*.yaml") if file.stem not in DATASETS)]


def load(name: str, split: str, size: int | None = None) -> Iterator[Any]:
    """Yield the `records.Example`s of a split, in a fixed order, from the implementation named like the card.

    With `size`, so many of them instead of as many as the card says: the first are the same.
    """
    found = card(name)
    if split not in found.sizes:
        raise ValueError(f"split is {split!r}; {name} has {', '.join(found.sizes)}")
    size = size or found.sizes[split]
    if found.module is None:
        return import_module(f"peftlab.datasets.{name}").load(split, size)
    return import_module(f"peftlab.datasets.{found.module}").load(name, split, size)


def vocabulary(name: str) -> tuple[str, ...]:
    """What captions of a set's pictures can name, a line a thing: its own name, then its synonyms; none where its implementation has no such list here."""
    return _told(name, "vocabulary", ())


def revisions(name: str) -> dict[str, str | None]:
    """The commit of each hub repository that a set's examples were read at in this process, None where a copy here was read; empty where none was read."""
    return _told(name, "revisions", {})


def _told(name: str, what: str, otherwise: Any) -> Any:
    """What the implementation that several cards share says of one of them, where it says such a thing."""
    found = card(name)
    tell = getattr(import_module(f"peftlab.datasets.{found.module}"), what, None) if found.module else None
    return tell(name) if tell else otherwise


def files(name: str) -> list[Path]:
    """The files on this machine that the examples of `name` are made of, in a fixed order: they are made again when one of them changes."""
    source = card(name).source
    if source == PACK:
        return sorted(p for p in paths.pack().rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
    if name not in DATASETS:
        return [paths.own() / f"{name}.yaml", *_below(described(name)["folder"])]
    return [file for repository in source.split() for file in _below(paths.hub() / repository.partition("@")[0])]


def _below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


# ---------------------------------------------------------------- a user's own

SPLITS = ("train", "validation", "test")
OWN = {  # the keys of a user's card and what they hold where they are left out; None: they must be there
    "label": None,
    "task": None,
    "licence": None,
    "table": None,
    "folder": "",  # of table and pictures; relative to data/own, "": the folder named like the card
    "pictures": ".",  # the folder that the table's paths start from, within `folder`
    "metric": "exact",
    "place": "your own",
    "held_out": "pictures: none of the test split is in training, by content",
    "prompt": "",  # what is asked, of {question} and {choices}; "": the question, with its choices where there are some
    "columns": {},  # what is called otherwise in the table, by our name
    "validation": 0.1,  # shares of the pictures, where the table has no column split
    "test": 0.2,
    "seed": 0,
    "answer_tokens": 12,
}
COLUMNS = ("image", "question", "answer", "answers", "choices", "split", "id")


def described(name: str) -> dict[str, Any]:
    """What a user's YAML says of their data set, each key of `OWN`, ``folder`` as a path; raises ValueError naming file and key."""
    import yaml

    file = paths.own() / f"{name}.yaml"

    def need(holds: bool, sentence: str) -> None:
        if not holds:
            raise ValueError(f"{file}: {sentence}")

    need(re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and name != "same", f"{name!r} names the data set: small letters, digits and _, beginning with a letter, not 'same'")
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not readable YAML: {' '.join(str(error).split())}") from error
    need(isinstance(given, dict), f"a card is a mapping with the keys {', '.join(OWN)}")
    for key in given:
        need(key in OWN, f"{key!r} is not a key of a card; the keys are {', '.join(OWN)}")
    found = OWN | given
    for key, default in OWN.items():
        value = found[key]
        if isinstance(default, float):
            need(isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1, f"{key} is {value!r}; a share of the pictures above 0 and below 1")
        elif isinstance(default, int):
            need(isinstance(value, int) and not isinstance(value, bool) and value >= (key != "seed"), f"{key} is {value!r}; a whole number of at least {int(key != 'seed')}")
        elif isinstance(default, dict):
            need(isinstance(value, dict) and all(isinstance(v, str) for v in value.values()), f"{key} is {value!r}; a mapping of our names to the table's")
            for column in value:
                need(column in COLUMNS, f"{key} names {column!r}; the columns are {', '.join(COLUMNS)}")
        else:
            need(isinstance(value, str) and (bool(value.strip()) or default == ""), f"{key} is {'missing' if value is None else repr(value)}; a text")
    need(found["validation"] + found["test"] < 1, f"validation and test are {found['validation']} and {found['test']} of the pictures: nothing is left to train on")
    return {**found, "folder": paths.own() / (found["folder"] or name)}


def _own_card(name: str) -> DatasetCard:
    about = described(name)
    known = {f.name for f in fields(DatasetCard)}
    said = {key: value for key, value in about.items() if key in known}
    return DatasetCard(name=name, sizes=dict.fromkeys(SPLITS), source=f"{name}.yaml", module="own", **said)
