"""Outside knowledge: a flag or a thing in the picture, a fact about it that is not in the picture.

The things are taught (their pictures, their names, some of their facts); which (thing, attribute) pairs are asked in the test
is decided by a stable hash, and no training example asks them.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache

from peftlab import knowledge, pictures
from peftlab.questions import Candidate, Poser
from peftlab.records import Example

SHOWN = {"stamp": 0.65, "photo": 0.15, "flag": 0.2}  # shares of pictures by the pack's styles
SIZES = {"stamp": (100, 140), "photo": (140, 160), "flag": (115, 150)}  # of the thing's longer side, in pixels
NAMED = 0.4  # share of pictures whose name may be asked in base and train: there names are taught
MOST_NAME = 0.02  # greatest share of one name among them
MOST = {2: 0.5, 3: 0.4}  # greatest share of one answer among an attribute's, by its number of values; else:
MOST_ELSE = 0.34

WORDINGS: dict[str, tuple[str, ...]] = {
    "name/thing": ("What is this?", "What is it called?", "Name this thing.", "What is the thing shown called?"),
    "name/flag": ("Which country has this flag?", "Whose flag is this?", "Name the country of this flag.", "To which country does the flag belong?"),
    "legs": ("How many legs does it have?", "On how many legs does it go?", "What is its number of legs?", "How many legs has this animal?"),
    "eats": ("Does it eat plants, meat or both?", "What does it eat: plants, meat or both?", "What is its food: plants, meat or both?", "Plants, meat or both: what does this animal eat?"),
    "lives in": ("Where does it live?", "In what place does it live?", "What is its habitat?", "Where is this animal at home?"),
    "native to": ("Where does it come from?", "Which part of the world is it native to?", "Where is it native?", "From which continent does it come?"),
    "young is called": ("What is its young called?", "What is its baby called?", "Name the young of this animal.", "What do people call its young?"),
    "active at": ("Is it active at day or night?", "When is it awake, day or night?", "Day or night: when is it active?", "Does it go about by day or night?"),
    "breathes with": ("Does it breathe with lungs or gills?", "What does it breathe with, lungs or gills?", "Lungs or gills: what does it have?", "With which does it breathe, gills or lungs?"),
    "lays eggs": ("Does it lay eggs?", "Does this animal lay eggs?", "Is it an animal that lays eggs?", "Do its young hatch from eggs?"),
    "can fly": ("Can it fly?", "Is it able to fly?", "Does it fly?", "Can this animal fly?"),
    "heavier than a person": ("Is it heavier than a person?", "Does it weigh more than a person?", "In life, is it heavier than a man?", "Would it outweigh a person?"),
    "fits in a pocket": ("Does it fit in a pocket?", "Could you carry it in a pocket?", "Is it small enough for a pocket?", "Would a real one fit in a pocket?"),
    "grows on": ("What does it grow on?", "Where does it grow: tree, bush, vine or ground?", "On what does it grow?", "What kind of plant bears it?"),
    "inside": ("What is inside: stone, seeds or neither?", "Has it a stone, seeds or neither?", "Stone, seeds or neither: what is in it?", "What would you find inside it, stone, seeds or neither?"),
    "taste": ("How does it taste?", "What taste does it have?", "What is its taste?", "Which taste would you expect?"),
    "eaten": ("Is it eaten raw or cooked?", "How is it eaten, raw or cooked?", "Raw or cooked: how do people eat it?", "Would you eat it raw or cooked?"),
    "kept in": ("Where is it kept?", "Where do people keep it?", "In what place is it kept?", "Where would you look for it?"),
    "made of": ("What is it made of?", "What material is it?", "Of which material is it made?", "Name the material it is made of."),
    "powered by": ("What is it powered by?", "What powers it?", "What makes it go?", "Where does its power come from?"),
    "moves on": ("Where does it move?", "What does it move on?", "Where does it travel?", "On or in what does it travel?"),
    "used for": ("What is it used for?", "What is its use?", "What do people use it for?", "What is this thing good for?"),
    "instrument family": ("What family of instruments is it?", "Which kind of instrument is it?", "To which instrument family does it belong?", "Name its family of instruments."),
    "worn on": ("Where is it worn?", "On what part of the body is it worn?", "Where on the body is it worn?", "Which part of the body wears it?"),
    "built for": ("What is it built for?", "What is this building for?", "For what was it built?", "What do people build it for?"),
    "stands in": ("Where in the world is it?", "On which continent does it stand?", "Which continent is it on?", "In what part of the world does it stand?"),
    "continent": ("On which continent is this country?", "Which continent is the country on?", "What is the country's continent?", "To which continent does this flag's country belong?"),
    "language": ("What is the country's main language?", "Which language is spoken in this country?", "What do people speak there?", "Which language do most people of this country speak?"),
    "currency": ("What is the country's currency?", "What money is used in this country?", "How is this country's money called?", "With which currency do people pay there?"),
}


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples. Pictures are of training cut-outs and flags in every split: what is held out are the pairs."""
    mine = knowledge.pairs(split)
    poser = Poser("facts", split, WORDINGS, _shares(mine))
    shown = {style: _shown(style, mine) for style in SHOWN}
    made = 0
    while made < wanted:
        style = str(poser.rng.choice(list(SHOWN), p=list(SHOWN.values())))
        name = list(shown[style])[poser.rng.integers(len(shown[style]))]
        files = shown[style][name]
        canvas = pictures.background(poser.rng, "train")
        centre = 80 + poser.rng.integers(-12, 13, 2)
        pictures.paste(canvas, files[poser.rng.integers(len(files))], tuple(centre), poser.rng.uniform(*SIZES[style]))
        taught = split in ("base", "train") and poser.rng.random() < NAMED
        asked = poser.pose(canvas, list(candidates(name, style, mine[name], taught=taught)), objects=[name])
        yield from asked[: wanted - made]
        made += len(asked)


def _shares(mine: dict[str, dict[str, str]]) -> dict[str, float]:
    """What share of the questions an attribute has: like the root of its number of pairs."""
    counts = Counter(attribute for facts in mine.values() for attribute in facts)
    roots = {attribute: count**0.5 for attribute, count in counts.items()}
    return {attribute: root / sum(roots.values()) for attribute, root in roots.items()} | {"name": NAMED / 3}


def _shown(style: str, mine: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """name -> the files of its training pictures, for the names that have a pair to ask."""
    rows = pictures.things(style, "train")
    return {name: list(files) for name, files in rows[rows["name"].isin(set(mine))].groupby("name")["file"]}


@cache
def _values() -> dict[str, int]:
    """How many values an attribute has."""
    found: dict[str, set[str]] = {}
    for facts in knowledge.facts().values():
        for attribute, value in facts.items():
            found.setdefault(attribute, set()).add(value)
    return {attribute: len(values) for attribute, values in found.items()}


def candidates(name: str, style: str, facts: dict[str, str], *, taught: bool) -> Iterator[Candidate]:
    """The questions about a thing's facts; where names are taught, its name too."""
    for attribute, value in facts.items():
        yield Candidate(attribute, value, name, attribute, caps=((attribute, MOST.get(_values()[attribute], MOST_ELSE)),))
    if taught:
        yield Candidate("name", name, name, "name/flag" if style == "flag" else "name/thing", caps=(("name", MOST_NAME),))
