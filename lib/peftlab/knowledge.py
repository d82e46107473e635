"""What the pack says of things that their pictures do not show, and which split may ask it."""

import hashlib
from functools import cache

from peftlab import pictures

STYLES = ("stamp", "photo", "flag")  # a thing is known by these pictures
HELD_OUT = {"test": 0.25, "validation": 0.08}  # shares of the pairs; the rest are for base and train
RARE = 3  # a value of fewer names is not asked about: it cannot be learned from others
TAUGHT = 2  # names of each value that training keeps
ATTRIBUTES = (
    *("legs", "eats", "lives in", "native to", "young is called", "active at", "breathes with", "lays eggs", "can fly", "heavier than a person"),
    *("fits in a pocket", "grows on", "inside", "taste", "eaten", "kept in", "made of", "powered by", "moves on", "used for"),
    *("instrument family", "worn on", "built for", "stands in", "continent", "language", "currency"),
)


def share(*names: str) -> float:
    """A stable number in [0, 1) from names, to hold things out without a random state."""
    return int.from_bytes(hashlib.sha256("/".join(names).encode()).digest()[:8], "big") / 2**64


@cache
def facts() -> dict[str, dict[str, str]]:
    """name -> {attribute: value}: the pack's facts on things that have a training picture, rare values left out."""
    rows = pictures.table("facts")
    rows = rows[rows["name"].isin({name for style in STYLES for name in pictures.things(style, "train")["name"]}) & rows["attribute"].isin(ATTRIBUTES)]
    rows = rows[rows.groupby(["attribute", "value"])["name"].transform("size") >= RARE]
    return {name: dict(zip(facts["attribute"], facts["value"], strict=True)) for name, facts in rows.groupby("name", sort=True)}


def pairs(split: str) -> dict[str, dict[str, str]]:
    """name -> {attribute: value} for the pairs of a split, whatever the data set; base has train's.

    Each name keeps at least one pair for training, and each value of an attribute at least `TAUGHT` names.
    """
    kept, chosen = _kept(), {}
    for name, values in facts().items():
        for attribute, value in values.items():
            if owner(name, attribute, (name, attribute) in kept) == ("train" if split == "base" else split):
                chosen.setdefault(name, {})[attribute] = value
    return chosen


def _kept() -> set[tuple[str, str]]:
    """The pairs that are for training whatever their number: the last of each name, the last two of each value."""
    kept, names = set(), {}
    for name, values in facts().items():
        kept.add((name, max(values, key=lambda attribute: share(name, attribute))))
        for attribute, value in values.items():
            names.setdefault((attribute, value), []).append(name)
    for (attribute, _), known in names.items():
        kept |= {(name, attribute) for name in sorted(known, key=lambda name: share(name, attribute))[-TAUGHT:]}
    return kept


def owner(name: str, attribute: str, kept: bool) -> str:
    """The split that may ask the pair."""
    number = share(name, attribute)
    if kept or number >= sum(HELD_OUT.values()):
        return "train"
    return "test" if number < HELD_OUT["test"] else "validation"
