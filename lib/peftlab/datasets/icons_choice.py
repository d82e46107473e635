"""Icon reasoning by choice: grids of icons, four choices in the question, the text of the right one as the answer.

Templates: how many icons of a group, which icon does not belong, which thing belongs with those shown, what is above or left of
an icon. Concepts are held out whole: a test icon is in training in neither style. Choices are drawn so that the question alone
says nothing, and the right one is at each place equally often.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from peftlab.icons import STYLES, Grid, Icon, cells, concepts, draw, kinds, some
from peftlab.questions import Candidate, Poser
from peftlab.records import Example

GRIDS = ((2, 2), (2, 3), (3, 2), (3, 3))  # rows, columns
ROWS = {2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
COLUMNS = {2: ("left", "right"), 3: ("left", "centre", "right")}
CHOICES = 4
DIRECTIONS = (("above", (-1, 0)), ("below", (1, 0)), ("left of", (0, -1)), ("right of", (0, 1)))  # and the step there
SHARES = {"count": 0.25, "odd": 0.25, "belongs": 0.25, "beside": 0.25}
GROUPS = {  # kind in the pack -> what a question calls many of them
    "mammal": "mammals",
    "bird": "birds",
    "fruit": "fruits",
    "vegetable": "vegetables",
    "prepared food": "foods",
    "drink": "drinks",
    "land vehicle": "land vehicles",
    "building": "buildings",
    "sports equipment": "sports things",
    "musical instrument": "musical instruments",
    "tool": "tools",
    "clothing": "clothes",
    "electrical device": "electrical devices",
    "stationery": "writing things",
    "plant": "plants",
    "weather": "weather signs",
}

WORDINGS: dict[str, tuple[str, ...]] = {
    "count": (
        "How many {plural} are there? Choices: {choices}.",
        "Count the {plural}. Choices: {choices}.",
        "How many of the icons are {plural}? Choices: {choices}.",
        "What is the number of {plural}? Choices: {choices}.",
    ),
    "count/all": (
        "How many icons are there? Choices: {choices}.",
        "Count the icons. Choices: {choices}.",
        "How many icons does the picture show? Choices: {choices}.",
        "What is the number of icons in all? Choices: {choices}.",
    ),
    "odd": (
        "Which icon is the odd one out? Choices: {choices}.",
        "Which icon does not belong with the others? Choices: {choices}.",
        "One icon is of another kind. Where is it? Choices: {choices}.",
        "Where is the icon that does not fit? Choices: {choices}.",
    ),
    "belongs": (
        "Which of these belongs with the icons shown? Choices: {choices}.",
        "What goes with these icons? Choices: {choices}.",
        "Which is of the same kind as the icons? Choices: {choices}.",
        "Which of these fits the icons? Choices: {choices}.",
    ),
    "beside": (
        "Which icon is {where} the {x}? Choices: {choices}.",
        "What is {where} the {x}? Choices: {choices}.",
        "Find the {x}. What is {where} it? Choices: {choices}.",
        "Name the icon directly {where} the {x}. Choices: {choices}.",
    ),
}


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples: one question a picture, because each template composes its own grid."""
    poser = Poser("icons_choice", split, WORDINGS, SHARES)
    compose = {"count": _count, "odd": _odd, "belongs": _belongs, "beside": _beside}
    made = 0
    while made < wanted:
        template = list(SHARES)[made % len(SHARES)]
        size = GRIDS[poser.rng.integers(len(GRIDS))]
        grid, candidate = compose[template](concepts(split), size, poser.rng)
        style = STYLES[poser.rng.integers(len(STYLES))]
        asked = poser.pose(draw(grid, style, split, poser.rng), [candidate], objects=[icon.name for icon in grid.icons])
        yield from asked
        made += len(asked)


# ---------------------------------------------------------------- the templates: a grid and its question


def _posed(template: str, answer: str, wrong: Sequence[str], asset: str, rng: np.random.Generator, **words: str) -> Candidate:
    """The candidate, its choices in random order."""
    order = [str(c) for c in rng.permutation([answer, *wrong])]
    return Candidate(template, answer, asset, words.pop("wording", template), {**words, "choices": ", ".join(order)}, choices=tuple(order))


def _count(known: dict[str, tuple[str, ...]], size: tuple[int, int], rng: np.random.Generator) -> tuple[Grid, Candidate]:
    """How many of a kind, or how many icons: the answer is one of four numbers drawn alike, so none is likelier unseen."""
    places = cells(size, rng)
    if rng.random() < 0.4:
        numbers = rng.permutation(np.arange(4, 10))[:CHOICES]
        size = size if numbers[0] <= len(places) else GRIDS[-1]
        places = cells(size, rng)[: numbers[0]]
        kind, others = "", kinds(rng, list(known), 3)
        counted, words = 0, {"wording": "count/all"}
    else:
        numbers = 1 + rng.permutation(min(len(places), 6))[:CHOICES]
        kind, *others = kinds(rng, list(known), 4)
        counted, words = int(numbers[0]), {"wording": "count", "plural": GROUPS[kind]}
    rest = [(name, k) for k in others for name in known[k]]
    chosen = [(name, kind) for name in some(rng, known[kind], counted)] if counted else []
    chosen += [rest[i] for i in rng.integers(len(rest), size=len(places) - len(chosen))]
    icons = [Icon(name, k, *cell) for (name, k), cell in zip(chosen, places, strict=True)]
    return Grid(size, tuple(icons)), _posed("count", str(numbers[0]), [str(n) for n in numbers[1:]], icons[0].name, rng, **words)


def place(icon: Icon, size: tuple[int, int]) -> str:
    """Where an icon is, in words: "top left", "middle right", "centre"."""
    row, column = ROWS[size[0]][icon.row], COLUMNS[size[1]][icon.column]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"


def _odd(known: dict[str, tuple[str, ...]], size: tuple[int, int], rng: np.random.Generator) -> tuple[Grid, Candidate]:
    """Where is the one icon of another kind."""
    places = cells(size, rng)
    kind, other = kinds(rng, [k for k in known if len(known[k]) > 1], 2)
    names = some(rng, known[kind], len(places) - 1)
    icons = [Icon(some(rng, known[other], 1)[0], other, *places[0])] + [Icon(n, kind, *c) for n, c in zip(names, places[1:], strict=True)]
    where = [place(icon, size) for icon in icons]
    return Grid(size, tuple(icons)), _posed("odd", where[0], where[1:CHOICES], icons[0].name, rng)


def _belongs(known: dict[str, tuple[str, ...]], size: tuple[int, int], rng: np.random.Generator) -> tuple[Grid, Candidate]:
    """Which thing, not in the picture, is of the kind shown: four kinds are drawn alike, one of them is shown."""
    places = cells(size, rng)
    kind, *others = kinds(rng, [k for k in known if len(known[k]) > 1], CHOICES)
    answer, *rest = some(rng, known[kind], len(known[kind]))
    icons = [Icon(name, kind, *cell) for name, cell in zip(some(rng, rest, len(places)), places, strict=True)]
    return Grid(size, tuple(icons)), _posed("belongs", answer, [some(rng, known[k], 1)[0] for k in others], answer, rng)


def _beside(known: dict[str, tuple[str, ...]], size: tuple[int, int], rng: np.random.Generator) -> tuple[Grid, Candidate]:
    """What is next to an icon that the question names; all choices are in the picture."""
    where, (down, right) = DIRECTIONS[rng.integers(len(DIRECTIONS))]
    places = cells(size, rng)
    shown = some(rng, list(known), len(places))
    icons = [Icon(some(rng, known[kind], 1)[0], kind, *cell) for kind, cell in zip(shown, places, strict=True)]
    at = {(icon.row, icon.column): icon for icon in icons}
    x = next(icon for icon in icons if (icon.row + down, icon.column + right) in at)
    answer = at[x.row + down, x.column + right]
    wrong = [icon.name for icon in icons if icon not in (x, answer)][: CHOICES - 1]
    return Grid(size, tuple(icons)), _posed("beside", answer.name, wrong, answer.name, rng, where=where, x=x.name)
