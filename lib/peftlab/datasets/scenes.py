"""General questions on scenes of one to four objects: presence, count, kind, colour, left or right.

Objects come with uneven frequencies (a few names are common, most are rare) and in themes (a farm, a street, a kitchen …), so
that what is usually there and what usually goes together can be known without looking: hallucination probes need both.

The split ``simple`` is for captions alone: one or two things of the test's cut-outs, of names that training has too, each drawn as often as any.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from peftlab import pictures
from peftlab.knowledge import share
from peftlab.questions import UNNAMED, Candidate, Poser, a, alike, captions, generator
from peftlab.records import Example

THEMES: dict[str, tuple[str, ...]] = {
    "farm": ("mammal", "bird", "plant", "vegetable"),
    "street": ("land vehicle", "building", "road sign", "plant"),
    "kitchen": ("kitchenware", "prepared food", "fruit", "vegetable"),
    "garden": ("plant", "insect", "bird", "fruit"),
    "sea": ("boat", "fish", "bird", "mammal"),
    "sky": ("celestial body", "spacecraft", "aircraft", "bird"),
    "home": ("clothing", "electrical device", "toy", "musical instrument"),
    "workshop": ("tool", "electrical device", "land vehicle", "clothing"),
    "games": ("chess piece", "sports equipment", "toy", "coin"),
}
THEMED = 0.75  # share of scenes whose things all belong to one theme
SAME_KIND = 0.4  # chance that a further thing is of the first one's kind
SIZES = (0.12, 0.26, 0.31, 0.31)  # shares of scenes with one, two, three, four things
APART = 40  # pixels between centres before one thing is left or right of another
PLURALS = {"fish": "fish", "clothing": "pieces of clothing", "kitchenware": "kitchen things", "sports equipment": "sports things"}
PLURALS |= {"celestial body": "celestial bodies", "prepared food": "prepared foods", "aircraft": "aircraft", "spacecraft": "spacecraft"}
SINGULARS = {"clothing": "a piece of clothing", "kitchenware": "a kitchen thing", "sports equipment": "a sports thing", "fruit": "a fruit"}

# (centres, greatest size) of the places things are put at, per number of things
LAYOUTS: dict[int, tuple[tuple[tuple[tuple[int, int], ...], int], ...]] = {
    1: ((((80, 80),), 110),),
    2: ((((41, 80), (119, 80)), 76), (((41, 50), (119, 110)), 76), (((41, 110), (119, 50)), 76), (((80, 41), (80, 119)), 76)),
    3: ((((41, 41), (119, 41), (80, 119)), 72), (((80, 41), (41, 119), (119, 119)), 72), (((28, 80), (80, 80), (132, 80)), 51)),
    4: ((((41, 41), (119, 41), (41, 119), (119, 119)), 72),),
}

SHARES = {"presence": 0.24, "count": 0.19, "kind": 0.23, "colour": 0.12, "side": 0.09, "beside": 0.13}
WORDINGS: dict[str, tuple[str, ...]] = {
    "presence": ("Is there {a_word}?", "Do you see {a_word} here?", "Is {a_word} shown?", "Does the scene contain {a_word}?"),
    "count/all": ("How many things are there?", "How many objects do you see?", "Count the things.", "What is the number of objects shown?"),
    "count/kind": ("How many {plural} are there?", "How many {plural} do you see?", "Count the {plural}.", "What is the number of {plural} shown?"),
    "kind/one": ("What kind of thing is this?", "What sort of thing is it?", "Name the kind of thing shown.", "Which category does this belong to?"),
    "kind/side": (
        "What kind of thing is on the {side}?",
        "What sort of thing is at the {side}?",
        "On the {side}, what kind of thing is it?",
        "Which category does the thing on the {side} belong to?",
    ),
    "colour/one": ("What colour is it?", "What is its main colour?", "Which colour is this thing?", "Name the colour of the object."),
    "colour/side": (
        "What colour is the thing on the {side}?",
        "Which colour is the thing at the {side}?",
        "On the {side}, what colour is the thing?",
        "Name the colour of the object on the {side}.",
    ),
    "side": (
        "Is the {x} left or right of the {y}?",
        "On which side of the {y} is the {x}, left or right?",
        "Left or right: where is the {x} from the {y}?",
        "Does the {x} lie to the left or right of the {y}?",
    ),
    "beside": (
        "What kind of thing is {side} of the {x}?",
        "What is to the {side} of the {x}?",
        "Which kind of thing is just {side} of the {x}?",
        "Name the kind of thing to the {side} of the {x}.",
    ),
}


@dataclass(frozen=True)
class Thing:
    """A thing in a scene: its pack row's id, name, kind and colour ("" where it has none), and the centre it was drawn at."""

    id: str
    name: str
    kind: str
    colour: str
    x: float
    y: float


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples; base and train are drawn from training cut-outs, validation and test each from their own."""
    if split == "simple":
        yield from captions(simple(wanted))
        return
    poser = Poser("scenes", split, WORDINGS, SHARES)
    source = "train" if split == "base" else split
    vocabulary = Vocabulary.of(source)
    made = 0
    while made < wanted:
        rows, theme = draw(poser.rng, source)
        canvas, found = compose(rows, poser.rng, source)
        asked = poser.pose(canvas, candidates(found, vocabulary, theme, poser.rng), objects=[t.name for t in found])
        yield from asked[: wanted - made]
        made += len(asked)


def compose(rows: Sequence, rng: np.random.Generator, split: str) -> tuple[Image.Image, list[Thing]]:
    """The things of `rows` at the places of a layout, on a background of the split: the (160, 160) picture, and where each thing is."""
    layouts = LAYOUTS[len(rows)]
    centres, size = layouts[rng.integers(len(layouts))]
    canvas, found = pictures.background(rng, split), []
    for row, (x, y) in zip(rows, rng.permutation(np.array(centres)), strict=True):
        x, y = x + rng.integers(-4, 5), y + rng.integers(-4, 5)
        left, top, right, bottom = pictures.paste(canvas, row.file, (x, y), size * rng.uniform(0.86, 1.0))
        found.append(Thing(row.id, row.name, row.kind, row.colour, (left + right) / 2, (top + bottom) / 2))
    return canvas, found


def simple(wanted: int) -> Iterator[Example]:
    """Scenes of one thing, every fourth of two, of test cut-outs whose names training has too and that are not to be mistaken for each other."""
    rng, taught = generator("scenes", "simple"), Vocabulary.of("test").names
    rows = [row for row in _pool("test")[0] if row.name in taught]
    waiting: list = []
    for number in range(wanted):
        chosen: list = []
        while len(chosen) < 1 + (number % 4 == 3):
            waiting = waiting or [rows[i] for i in rng.permutation(len(rows))]
            place = next((i for i, row in enumerate(waiting) if not any(alike(row.name, other.name) for other in chosen)), None)
            if place is None:  # what waits is all alike what is there
                waiting += [rows[i] for i in rng.permutation(len(rows))]
                continue
            chosen.append(waiting.pop(place))
        canvas, found = compose(chosen, rng, "test")
        name = f"scenes-simple-{number:05d}"
        yield Example(name, name, canvas, "", (), "caption", 0, found[0].id, objects=tuple(t.name for t in found))


# ---------------------------------------------------------------- what is in a scene


@cache
def _pool(split: str) -> tuple[tuple, np.ndarray]:
    """The split's cut-outs as named tuples, and how likely each is: like 1 / rank of its name, shared by the name's pictures."""
    rows = pictures.things("stamp", split)
    ranked = sorted(pictures.things("stamp")["name"].unique(), key=lambda name: share("rank of a name", name))
    rank = {name: i for i, name in enumerate(ranked)}
    copies = rows["name"].map(rows["name"].value_counts())
    weights = (1 / (rows["name"].map(rank) + 6) ** 0.8 / copies).to_numpy(float)
    return tuple(_named(rows)), weights / weights.sum()


def _named(rows: pd.DataFrame) -> Iterator[tuple]:
    return rows[["id", "file", "name", "kind", "colour"]].itertuples(index=False, name="Row")


def draw(rng: np.random.Generator, split: str) -> tuple[list, str]:
    """The pack rows of one scene (no name twice) and its theme ("" for none)."""
    rows, weights = _pool(split)
    theme = str(rng.choice(list(THEMES))) if rng.random() < THEMED else ""
    kinds = THEMES.get(theme) or tuple({row.kind: None for row in rows})
    chosen: list = []
    for _ in range(1 + rng.choice(len(SIZES), p=SIZES)):
        kind = chosen[0].kind if chosen and rng.random() < SAME_KIND else kinds[rng.integers(len(kinds))]
        names = {row.name for row in chosen}
        fitting = [i for i, row in enumerate(rows) if row.kind == kind and row.name not in names]
        if fitting:
            p = weights[fitting]
            chosen.append(rows[fitting[rng.choice(len(fitting), p=p / p.sum())]])
    return chosen or draw(rng, split)[0], theme


# ---------------------------------------------------------------- what can be asked of it


@dataclass(frozen=True)
class Vocabulary:
    """The words presence is asked about: kinds of the split's cut-outs, and names (with their kind) that training has too."""

    kinds: tuple[str, ...]
    names: dict[str, str]

    @classmethod
    def of(cls, split: str) -> "Vocabulary":
        rows, taught = pictures.things("stamp", split), set(pictures.things("stamp", "train")["name"])
        kept = rows[rows["name"].isin(taught) & ~rows["name"].isin(UNNAMED)]
        return cls(tuple(sorted(rows["kind"].unique())), dict(sorted(zip(kept["name"], kept["kind"], strict=True))))


def candidates(found: Sequence[Thing], vocabulary: Vocabulary, theme: str, rng: np.random.Generator) -> list[Candidate]:
    """Every question that the layout answers; for presence, a few plausible absentees drawn with `rng`."""
    return [*_presence(found, vocabulary, theme, rng), *_count(found), *_kind(found), *_colour(found), *_side(found), *_beside(found)]


def _presence(found: Sequence[Thing], vocabulary: Vocabulary, theme: str, rng: np.random.Generator) -> Iterator[Candidate]:
    kinds, names = {t.kind for t in found}, {t.name for t in found}
    related = set(THEMES.get(theme, vocabulary.kinds)) | kinds
    near_kinds = [k for k in vocabulary.kinds if k not in kinds and k in related]
    near_names = [n for n, kind in vocabulary.names.items() if kind in related and not any(alike(n, there) for there in names)]
    absent = [*near_kinds, *(str(n) for n in rng.choice(near_names, 6))] if near_names else near_kinds
    present = [(t.kind, t) for t in found] + [(t.name, t) for t in found if t.name in vocabulary.names]
    for word, thing in [*present, *((w, found[0]) for w in absent)]:
        answer = "yes" if word in kinds | names else "no"
        words = {"a_word": SINGULARS.get(word) or a(word)}
        yield Candidate("presence", answer, thing.id, "presence", words, (("presence", 0.5), (f"presence/{word}", 0.5)))


def _count(found: Sequence[Thing]) -> Iterator[Candidate]:
    yield Candidate("count", str(len(found)), found[0].id, "count/all", {}, (("count", 0.35), ("count/all", 0.34)))
    for kind, number in Counter(t.kind for t in found).items():
        of_kind = next(t for t in found if t.kind == kind)
        words = {"plural": PLURALS.get(kind) or kind + "s"}
        yield Candidate("count", str(number), of_kind.id, "count/kind", words, (("count", 0.35), ("count/kind", 0.4), (f"count/{kind}", 0.5)))


def _extremes(found: Sequence[Thing]) -> Iterator[tuple[str, Thing]]:
    """(side, thing) where one thing is clearly the outermost on the left or right."""
    if len(found) > 1:
        ordered = sorted(found, key=lambda t: t.x)
        if ordered[1].x - ordered[0].x >= APART:
            yield "left", ordered[0]
        if ordered[-1].x - ordered[-2].x >= APART:
            yield "right", ordered[-1]


def _kind(found: Sequence[Thing]) -> Iterator[Candidate]:
    if len(found) == 1:
        yield Candidate("kind", found[0].kind, found[0].id, "kind/one", {}, (("kind", 0.12),))
    for side, thing in _extremes(found):
        yield Candidate("kind", thing.kind, thing.id, "kind/side", {"side": side}, (("kind", 0.12),))


def _colour(found: Sequence[Thing]) -> Iterator[Candidate]:
    if len(found) == 1 and found[0].colour:
        yield Candidate("colour", found[0].colour, found[0].id, "colour/one", {}, (("colour", 0.22),))
    for side, thing in _extremes(found):
        if thing.colour:
            yield Candidate("colour", thing.colour, thing.id, "colour/side", {"side": side}, (("colour", 0.22),))


def _once(found: Sequence[Thing]) -> list[Thing]:
    """The things that their kind points out."""
    kinds = Counter(t.kind for t in found)
    return [t for t in found if kinds[t.kind] == 1]


def _side(found: Sequence[Thing]) -> Iterator[Candidate]:
    for x in _once(found):
        for y in _once(found):
            if abs(x.x - y.x) >= APART:
                answer, words = "left" if x.x < y.x else "right", {"x": x.kind, "y": y.kind}
                yield Candidate("side", answer, x.id, "side", words, (("side", 0.5), (f"side/{x.kind}/{y.kind}", 0.5)))


def _beside(found: Sequence[Thing]) -> Iterator[Candidate]:
    for x in _once(found):
        for side, sign in (("left", -1), ("right", 1)):
            near = [t for t in found if (t.x - x.x) * sign >= APART and (len(found) == 2 or abs(t.y - x.y) < APART)]
            if len(near) == 1:
                caps = (("beside", 0.12), (f"beside/{x.kind}", 0.3))
                yield Candidate("beside", near[0].kind, near[0].id, "beside", {"side": side, "x": x.kind}, caps)
