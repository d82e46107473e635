"""Objects that a caption names and its picture does not hold: CHAIR (Rohrbach et al. 2018, https://arxiv.org/abs/1809.02156).

What counts as naming an object is said by a vocabulary: a line an object, its own name first, then whatever else names it. Where every thing has one
name the names are the lines; over COCO's annotations they are a list of synonyms, with the pairs of words that the authors' code reads as one.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Nouns = dict[tuple[str, ...], str | None]  # words of a noun, singular or plural, to the object; None: a phrase that names none
PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth", "ox": "oxen"}
PLURALS |= {"sheep": "sheep", "fish": "fish", "deer": "deer", "bison": "bison", "aircraft": "aircraft", "scarf": "scarves", "leaf": "leaves", "wolf": "wolves", "calf": "calves"}
PLURALS |= {"knife": "knives", "loaf": "loaves", "shelf": "shelves", "potato": "potatoes", "tomato": "tomatoes", "pocketknife": "pocketknives", "thief": "thieves"}
PLURALS |= {"policeman": "policemen", "gentleman": "gentlemen", "serviceman": "servicemen", "grandchild": "grandchildren"}


@dataclass(frozen=True)
class Mentions:
    """Of one caption: objects as often as they are named, those of them that are not there, and of what is there how much is named."""

    named: tuple[str, ...]
    invented: tuple[str, ...]
    recalled: int
    present: int
    words: int


@dataclass(frozen=True)
class Chair:
    """Of a set of captions, in per cent: mentions that are invented (None: nothing is named), captions that hold one, objects named
    (None: no picture holds any); the mean length in words; how many captions, and how many mentions."""

    chair_i: float | None
    chair_s: float
    recall: float | None
    words: float
    captions: int
    mentions: int


def words(text: str) -> tuple[str, ...]:
    """Runs of letters and digits, in lower case: "A cat's T-shirt." is a, cat, s, t, shirt."""
    return tuple(re.findall(r"[^\W_]+", text.lower()))


def nouns(vocabulary: Iterable[str]) -> Nouns:
    """What names an object: all names of its line in a vocabulary, parted by commas, and their plurals; a name given beats a plural made.

    The first name of a line is the object's own. Where it is left out (", home plate") the others are phrases that name none.
    """
    exact: Nouns = {}
    for line in vocabulary:
        thing, *others = [name.strip() for name in line.split(",")]
        exact |= {said: thing or None for name in (thing, *others) if (said := words(name))}
    return {plural(said): thing for said, thing in exact.items()} | exact


def plural(noun: tuple[str, ...]) -> tuple[str, ...]:
    """The plural of a noun's words: of the last of them, by the rules of spelling and `PLURALS`."""
    *first, last = noun
    if last in PLURALS:
        return (*first, PLURALS[last])
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return (*first, f"{last}es")
    return (*first, f"{last[:-1]}ies" if last.endswith("y") and last[-2:-1] not in "aeiou" else f"{last}s")


def named(caption: str, known: Nouns) -> tuple[str, ...]:
    """The objects that a caption names, in order and as often as it does; of nouns that begin at one word the longest is read."""
    said, found, place = words(caption), [], 0
    longest = max(map(len, known), default=0)
    while place < len(said):
        length = next((n for n in range(longest, 0, -1) if said[place : place + n] in known), None)
        thing = known[said[place : place + length]] if length else None
        found += [thing] if thing is not None else []
        place += length or 1
    return tuple(found)


def mentions(caption: str, objects: Collection[str], known: Nouns) -> Mentions:
    """What a caption says of a picture that holds `objects`."""
    said, there = named(caption, known), set(objects)
    return Mentions(said, tuple(thing for thing in said if thing not in there), len(there & set(said)), len(there), len(words(caption)))


def chair(captions: Sequence[str], objects: Sequence[Collection[str]], known: Nouns) -> Chair:
    """CHAIR-i and CHAIR-s of captions of pictures that hold `objects`, with what they must be read beside.

    Raises ValueError on no captions, and where the numbers of captions and pictures differ.
    """
    if not captions or len(captions) != len(objects):
        raise ValueError(f"{len(captions)} captions of {len(objects)} pictures: each needs its own, and there must be one")
    each = [mentions(caption, there, known) for caption, there in zip(captions, objects, strict=True)]
    said, present = sum(len(m.named) for m in each), sum(m.present for m in each)
    return Chair(
        chair_i=100 * sum(len(m.invented) for m in each) / said if said else None,
        chair_s=100 * sum(bool(m.invented) for m in each) / len(each),
        recall=100 * sum(m.recalled for m in each) / present if present else None,
        words=sum(m.words for m in each) / len(each),
        captions=len(each),
        mentions=said,
    )


# ---------------------------------------------------------------- COCO

ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub".split()
VEHICLES = ("jet", "train")
# Pairs of words that name another object than their last word does, or none.
PAIRS: dict[str, str | None] = {f"{young} {animal}": animal for young in ("baby", "adult") for animal in ANIMALS} | {f"passenger {vehicle}": vehicle for vehicle in VEHICLES}
PAIRS |= {"bow tie": "tie", "toilet seat": "toilet", "home plate": None, "train track": None}


def coco_vocabulary(synonyms: str) -> tuple[str, ...]:
    """The vocabulary (as `nouns` reads it) of a list of synonyms as CHAIR's authors publish it: a line per object, names parted by commas, its own first.

    With the pairs their code reads as one: "baby" or "adult" before an animal, "passenger" before a vehicle, and the rest of `PAIRS`.
    Raises ValueError naming a noun that stands for two objects, and where there is none at all.
    """
    of: dict[str, str] = {}
    for line in filter(str.strip, synonyms.splitlines()):
        thing, *others = [name.strip() for name in line.split(",") if name.strip()]
        for noun in (thing, *others):
            if of.setdefault(noun, thing) != thing:
                raise ValueError(f"{noun!r} stands for {of[noun]!r} and for {thing!r} in the list of synonyms")
    if not of:
        raise ValueError("the list of synonyms is empty: it has a line per object, its names parted by commas")
    of |= {pair: of[head] for pair, head in PAIRS.items() if head in of}
    lines: dict[str, list[str]] = {}
    for noun, thing in of.items():
        lines.setdefault(thing, []).append(noun)
    return (*map(", ".join, lines.values()), ", ".join(["", *(pair for pair, head in PAIRS.items() if head is None)]))


def coco_objects(instances: Mapping[str, Any], captions: Mapping[str, Any], known: Nouns) -> dict[int, frozenset[str]]:
    """What every picture of COCO holds by its annotations as they are published: objects outlined, or named by a reference caption.

    `instances` and `captions` are the contents of instances_*.json and captions_*.json. Raises ValueError naming a category that no noun stands for.
    """
    categories = {}
    for category in instances["categories"]:
        things = named(category["name"], known)
        if len(things) != 1:
            raise ValueError(f"category {category['name']!r} is named by no line of the list of synonyms")
        categories[category["id"]] = things[0]
    found: dict[int, set[str]] = {}
    for outlined in instances["annotations"]:
        found.setdefault(outlined["image_id"], set()).add(categories[outlined["category_id"]])
    for reference in captions["annotations"]:
        found.setdefault(reference["image_id"], set()).update(named(reference["caption"], known))
    return {image: frozenset(things) for image, things in found.items()}
