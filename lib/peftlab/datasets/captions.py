"""Captions: scenes of one to three sorts of things, five references each.

It stands in for Flickr30k: what is there, how many, where to each other, before what. It cannot stand for people, actions or real scenes:
things are pasted on backgrounds, and the references come from a grammar. They vary as people's do: some say where things are, some only
that they are there, some give a colour or the background, some the kind and not the name; all are true. A thing is called by name where
training and test both have pictures of it, else by its kind. `nouns` is every word for a thing that a reference may use, so that what a
caption names can be compared with `Example.objects` without a list of synonyms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from peftlab import pictures
from peftlab.questions import PAIRS, UNNAMED, Candidate, Poser, a
from peftlab.records import Example

REFERENCES = 5
SHARES = {"one": 0.3, "pair": 0.45, "row": 0.25}
NUMBERS = ("no", "a", "two", "three", "four", "five", "six")
KINDS: dict[str, tuple[str, ...]] = {  # kind -> what one of it may be called; the first where no name is said
    "mammal": ("animal", "mammal"),
    "bird": ("bird",),
    "fish": ("fish",),
    "insect": ("insect",),
    "fruit": ("fruit", "piece of fruit"),
    "vegetable": ("vegetable",),
    "prepared food": ("food item", "food"),
    "kitchenware": ("kitchen thing",),
    "plant": ("plant",),
    "land vehicle": ("vehicle",),
    "boat": ("boat",),
    "aircraft": ("aircraft",),
    "spacecraft": ("spacecraft",),
    "building": ("building",),
    "clothing": ("garment", "piece of clothing"),
    "tool": ("tool",),
    "toy": ("toy",),
    "musical instrument": ("instrument", "musical instrument"),
    "electrical device": ("device", "electrical device"),
    "sports equipment": ("sports thing",),
    "chess piece": ("chess piece",),
    "coin": ("coin",),
    "road sign": ("road sign", "sign"),
    "celestial body": ("celestial body",),
}
BROADER = {"animal": ("mammal", "bird", "fish", "insect")}  # a word that is right of more kinds than it is used for
SYNONYMS = {"airplane": "plane", "trousers": "pair of pants", "fire truck": "fire engine", "rabbit": "bunny"}
SYNONYMS |= {"wrench": "spanner", "car": "automobile", "truck": "lorry"}
SINGULARS = {"bread": "loaf of bread"} | {pair: f"pair of {pair}" for pair in PAIRS}
SAME = ("fish", "deer", "sheep", "aircraft", "spacecraft", "guineafowl", "bison", "reindeer", "moose")  # plural like singular
PLURALS = {"mouse": "mice", "goose": "geese", "body": "bodies", "loaf": "loaves", "half": "halves"}
BACKGROUNDS: dict[str, tuple[str, ...]] = {  # pattern -> how it is told, after a comma or before a scene
    "plain": ("against a plain background", "on a plain background"),
    "stripes": ("on stripes", "on a striped background"),
    "checks": ("on checks", "on a checkered background"),
    "dots": ("on dots", "on a dotted background"),
    "photo": ("before a blurred photo", "in front of a blurry photograph"),
}
ONE = ("{a} on {own}", "just {a}", "{a}, nothing else", "one sees {a}", "{a} and nothing more", "the image has {a}")
ACROSS = ("{a} to the left of {b}", "{b} to the right of {a}", "{a} on the left, {b} on the right", "{a} beside {b}", "{b} next to {a}", "{a} and {b} side by side")
DOWN = ("{a} above {b}", "{b} below {a}", "{a} at the top, {b} at the bottom", "{b} under {a}", "{a} over {b}", "at the bottom {b}, at the top {a}")
ROW = (
    "{a}, {b} and {c} in a row",
    "{b} between {a} and {c}",
    "from left to right {a}, {b} and {c}",
    "{a} on the left, {b} in the middle and {c} on the right",
    "three things: {a}, {b}, {c}",
)
WORDINGS: dict[str, tuple[str, ...]] = {
    wording: (
        "Give a short caption for the image.",
        "Summarise the image in one sentence.",
        "Tell briefly what the image shows.",
        "Write one line on what can be seen.",
    )
    for wording in SHARES
}


@dataclass(frozen=True)
class Group:
    """So many of one thing: its pack row's id, file, name, kind and colour ("" where it has none)."""

    id: str
    file: str
    name: str
    kind: str
    colour: str
    number: int


@dataclass(frozen=True)
class Scene:
    """Groups in the order left to right or top to bottom, what they stand before, and how they lie: one, across, down or row."""

    groups: tuple[Group, ...]
    layout: str
    background: str


# ---------------------------------------------------------------- words


def many(noun: str) -> str:
    """The plural of a noun: "two loaves of bread", "sports things", "deer"."""
    head, of, rest = noun.partition(" of ")
    words = head.split()
    last = words[-1]
    if last in SAME or last.endswith("fish"):
        return noun
    if last not in PLURALS:
        last = last[:-1] + "ies" if last[-1] == "y" and last[-2] not in "aeiou" else last + ("es" if last.endswith(("s", "x", "ch", "sh")) else "s")
    return " ".join([*words[:-1], PLURALS.get(last, last)]) + of + rest


@cache
def named() -> frozenset[str]:
    """The names that are said: of things with pictures in training and in the test, and that people tell apart."""
    rows = pictures.things("stamp")
    both = set.intersection(*(set(rows[rows["split"] == split]["name"]) for split in ("train", "test")))
    apart = set(rows[rows["kind"].isin(("celestial body", "coin"))]["name"]) | set(UNNAMED)
    return frozenset(both - apart)


@cache
def nouns() -> dict[str, frozenset[str]]:
    """Every way of naming a thing, one or many ("owl", "owls", "bird", "pairs of trousers"), and the names of `objects` it is right of."""
    found: dict[str, set[str]] = {}
    rows = pictures.things("stamp")
    for name, kind in zip(rows["name"], rows["kind"], strict=True):
        said = {SINGULARS.get(name, name), name, *([SYNONYMS[name]] if name in SYNONYMS else []), *KINDS[kind]}
        said |= {word for word, kinds in BROADER.items() if kind in kinds}
        for noun in said:
            for form in (noun, many(noun)):
                found.setdefault(form, set()).add(name)
    return {noun: frozenset(names) for noun, names in found.items()}


def phrase(group: Group, rng: np.random.Generator, *, kind: bool = False, colour: bool = False) -> str:
    """A group in words: "two owls", "a red apple", or by its kind "three birds"; the name's synonym now and then."""
    noun = SINGULARS.get(group.name, group.name)
    if group.name in SYNONYMS and rng.random() < 0.25:
        noun = SYNONYMS[group.name]
    if kind or group.name not in named():
        ways = KINDS[group.kind]
        noun = ways[rng.integers(len(ways))] if rng.random() < 0.3 else ways[0]
    plain = noun if group.number == 1 else many(noun)
    said = f"{group.colour} {plain}" if colour and group.colour and " of " not in plain else plain
    return a(said) if group.number == 1 else f"{NUMBERS[group.number]} {said}"


def references(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """Five different sentences on a scene. The first, which is trained on, names all things and says where they are or on what."""
    frames = {"one": ONE, "across": ACROSS, "down": DOWN, "row": ROW}[scene.layout]
    told = BACKGROUNDS[scene.background]
    found: list[str] = []
    while len(found) < REFERENCES:
        first = not found
        frame = frames[0] if first else frames[rng.integers(len(frames))]
        kinds = [not first and rng.random() < 0.2 for _ in scene.groups]
        words = {letter: phrase(g, rng, kind=k, colour=not k and rng.random() < 0.4) for letter, g, k in zip("abc", scene.groups, kinds)}
        text = frame.format(**words, own="its own" if scene.groups[0].number == 1 else "their own")
        if first or rng.random() < 0.5:
            behind = told[rng.integers(len(told))]
            text = f"{behind}, {text}" if not first and rng.random() < 0.3 else f"{text} {behind}"
        sentence = text[0].upper() + text[1:] + "."
        if sentence not in found:
            found.append(sentence)
    return tuple(found)


# ---------------------------------------------------------------- pictures


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples: one picture each, with its references as answers."""
    poser = Poser("captions", split, WORDINGS, SHARES)
    made = 0
    while made < wanted:
        template = max(SHARES, key=lambda t: SHARES[t] * (made + 1) - poser.asked[t])
        scene = compose(template, split, poser.rng)
        told = references(scene, poser.rng)
        objects = [g.name for g in scene.groups for _ in range(g.number)]
        asked = poser.pose(draw(scene, split, poser.rng), [Candidate(template, told[0], scene.groups[0].id, template, also=told[1:])], objects=objects)
        yield from asked
        made += len(asked)


@cache
def _rows(split: str) -> dict[bool, tuple[Any, ...]]:
    """The split's cut-outs that are called by name, and those that are called by kind."""
    rows = pictures.things("stamp", split)[["id", "file", "name", "kind", "colour"]]
    return {said: tuple(rows[rows["name"].isin(named()) == said].itertuples(index=False, name="Row")) for said in (True, False)}


def compose(template: str, split: str, rng: np.random.Generator) -> Scene:
    """A scene of one, two or three groups, no two of one kind; two in three are called by name."""
    groups: list[Group] = []
    wanted = {"one": 1, "pair": 2, "row": 3}[template]
    while len(groups) < wanted:
        rows = _rows(split)[bool(rng.random() < 0.67)] or _rows(split)[False]
        row = rows[rng.integers(len(rows))]
        number = 1 if template == "row" else 1 + int(rng.choice(3, p=(0.5, 0.3, 0.2)))
        if row.kind not in {g.kind for g in groups}:
            groups.append(Group(row.id, row.file, row.name, row.kind, row.colour, number))
    layout = template if template != "pair" else ("across", "down")[rng.integers(2)]
    return Scene(tuple(groups), layout, list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))])


def draw(scene: Scene, split: str, rng: np.random.Generator) -> Image.Image:
    """A (160, 160) RGB picture of the scene; the things of a group lie together and cover no other."""
    canvas = pictures.photograph(rng, split) if scene.background == "photo" else pictures.PATTERNS[scene.background](rng)
    for group, (left, top, right, bottom) in zip(scene.groups, BOXES[scene.layout], strict=True):
        for x, y, size in _spread(group.number, (left, top, right, bottom)):
            pictures.paste(canvas, group.file, (x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)), size * rng.uniform(0.84, 0.94))
    return canvas


Box = tuple[int, int, int, int]
BOXES: dict[str, Sequence[Box]] = {  # layout -> where its groups lie: left, top, right, bottom
    "one": ((10, 10, 150, 150),),
    "across": ((2, 12, 79, 148), (81, 12, 158, 148)),
    "down": ((12, 2, 148, 79), (12, 81, 148, 158)),
    "row": ((2, 30, 54, 130), (54, 30, 106, 130), (106, 30, 158, 130)),
}


def _spread(number: int, box: Box) -> list[tuple[float, float, float]]:
    """The middle and the greatest size of so many things in a box, in a line along its longer side; three in a square form a triangle."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if number == 3 and width == height:
        half = width / 2
        return [(left + half / 2, top + half / 2, half), (left + 3 * half / 2, top + half / 2, half), (left + half, top + 3 * half / 2, half)]
    step = max(width, height) / number
    size = min(step, width, height)
    if width >= height:
        return [(left + step * (i + 0.5), (top + bottom) / 2, size) for i in range(number)]
    return [((left + right) / 2, top + step * (i + 0.5), size) for i in range(number)]
