"""Icon reasoning with a filled-in answer: grids of icons, a sentence with a blank, no choices.

It stands in for IconQA's fill-in questions: numbers, places in a grid, kinds, repeating rows. It cannot stand for their lengths, clocks,
fractions or written sums. The grids are longer than those of the questions by choice, and full but for the cell of a question mark;
concepts are held out as there. The answer is a number up to four or five, or one of sixteen kinds, each about as often as the others, so
that the sentence alone says nothing.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw

from peftlab import pictures
from peftlab.icons import STYLES, Grid, Icon, cells, concepts, draw, kinds, some
from peftlab.questions import Candidate, Poser
from peftlab.records import Example

GRIDS = ((1, 4), (4, 1), (2, 4), (4, 2), (3, 4), (4, 3), (4, 4))  # rows, columns; none of two or three of both
PATTERNS = ("abababab", "abcabcab", "aabbaabb", "abbaabba", "aabaabaa", "abacabac")  # of two rows of four, read on; the last is asked for
SHARES = {"number": 0.15, "more": 0.15, "rows": 0.1, "place": 0.15, "next": 0.15, "cell": 0.15, "most": 0.15}
NOUNS = {  # kind in the pack -> what a sentence calls one and many of them
    "mammal": ("mammal", "mammals"),
    "bird": ("bird", "birds"),
    "fruit": ("fruit", "fruits"),
    "vegetable": ("vegetable", "vegetables"),
    "prepared food": ("food", "foods"),
    "drink": ("drink", "drinks"),
    "land vehicle": ("vehicle", "vehicles"),
    "building": ("building", "buildings"),
    "sports equipment": ("sports thing", "sports things"),
    "musical instrument": ("instrument", "instruments"),
    "tool": ("tool", "tools"),
    "clothing": ("garment", "garments"),
    "electrical device": ("device", "devices"),
    "stationery": ("writing thing", "writing things"),
    "plant": ("plant", "plants"),
    "weather": ("weather sign", "weather signs"),
}
MOST_KIND = 0.1  # greatest share of one kind among the answers of a template
WORDINGS: dict[str, tuple[str, ...]] = {
    "number": (
        "Fill in the number: of these icons, _ are {many}.",
        "The grid holds _ {many}. What number is the blank?",
        "Exactly _ icons here are {many}. Complete it.",
        "Complete the sentence: {many} take up _ cells.",
    ),
    "more": (
        "Fill in the number: _ more {many} than {others}.",
        "By how many do the {many} outnumber the {others}? _",
        "Compare: {many} exceed {others} by _.",
        "Complete the sentence: the {others} are _ fewer than the {many}.",
    ),
    "rows": (
        "Fill in the number: the icons form _ {lines}.",
        "The grid has _ {lines}. What number is the blank?",
        "Into _ {lines} the icons are sorted. Complete it.",
        "Complete the sentence: _ {lines} of icons make up the grid.",
    ),
    "place": (
        "Fill in the number: the only {one} is in {line} _ from the {start}.",
        "One {one} is hidden in {line} _ from the {start}. What number is the blank?",
        "Counted from the {start}, the single {one} sits in {line} _. Complete it.",
        "Complete the sentence: look for the lone {one} in {line} _, counting from the {start}.",
    ),
    "next": (
        "Fill in the kind: the pattern repeats, so next comes a _.",
        "The pattern goes on. A _ replaces the question mark.",
        "Continue the rows: the hidden icon is a _.",
        "Complete the sentence: by the pattern, the question mark hides a _.",
    ),
    "cell": (
        "Fill in the kind: row {row}, column {column} holds a _.",
        "In row {row} and column {column} stands a _. Which kind is the blank?",
        "Go to column {column}, row {row}: it is a _.",
        "Complete the sentence: a _ fills the cell at row {row}, column {column}.",
    ),
    "most": (
        "Fill in the kind: most of the icons are of the kind _.",
        "The commonest kind in the grid is _.",
        "No kind occurs more often than _.",
        "Complete the sentence: the kind that leads in number is _.",
    ),
}

Composed = tuple[Grid, Candidate]


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples: one question a picture, because each template composes its own grid."""
    poser = Poser("icons_blank", split, WORDINGS, SHARES)
    known, made = concepts(split), 0
    while made < wanted:
        template = max(SHARES, key=lambda t: SHARES[t] * (made + 1) - poser.asked[t])
        grid, candidate = COMPOSE[template](known, poser.rng)
        style = STYLES[poser.rng.integers(len(STYLES))]
        canvas = draw(grid, style, split, poser.rng)
        if template == "next":
            _mark(canvas, grid.size)
        asked = poser.pose(canvas, [candidate], objects=[icon.name for icon in grid.icons])
        yield from asked
        made += len(asked)


def _mark(canvas: Image.Image, size: tuple[int, int]) -> None:
    """A question mark in a box on the last cell of the grid."""
    height, width = (pictures.SIDE / n for n in size)
    side = 0.8 * min(height, width)
    x, y = pictures.SIDE - width / 2, pictures.SIDE - height / 2
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((x - side / 2, y - side / 2, x + side / 2, y + side / 2), fill="white", outline="black", width=2)
    pen.text((x, y), "?", font=pictures.font("fonts/lato.ttf", round(side * 0.8)), fill="black", anchor="mm")


# ---------------------------------------------------------------- the templates: a grid and its question


def _grid(rng: np.random.Generator, least: int = 4) -> tuple[int, int]:
    """A grid of at least so many cells."""
    fitting = [size for size in GRIDS if size[0] * size[1] >= least]
    return fitting[rng.integers(len(fitting))]


def _filled(known: dict[str, tuple[str, ...]], size: tuple[int, int], numbers: dict[str, int], rng: np.random.Generator) -> Grid:
    """A full grid with so many icons of each kind, in random places."""
    chosen = [(name, kind) for kind, number in numbers.items() for name in some(rng, known[kind], number)]
    return Grid(size, tuple(Icon(name, kind, *cell) for (name, kind), cell in zip(chosen, cells(size, rng), strict=True)))


def _parts(rng: np.random.Generator, total: int, number: int, most: int) -> list[int]:
    """`total` as `number` numbers from 1 to `most`, drawn at random; ValueError where there are none."""
    if not number <= total <= number * most:
        raise ValueError(f"{total} is no sum of {number} numbers from 1 to {most}")
    parts = [1] * number
    while sum(parts) < total:
        open_ = [i for i, part in enumerate(parts) if part < most]
        parts[open_[rng.integers(len(open_))]] += 1
    return parts


def _number(known: dict[str, tuple[str, ...]], rng: np.random.Generator) -> Composed:
    """How many of a kind: one to five, alike."""
    answer, size = int(rng.integers(1, 6)), _grid(rng, 8)
    kind, *others = kinds(rng, list(known), 4)
    rest = _parts(rng, size[0] * size[1] - answer, len(others), 6)
    grid = _filled(known, size, {kind: answer, **dict(zip(others, rest, strict=True))}, rng)
    return grid, Candidate("number", str(answer), grid.icons[0].name, "number", {"many": NOUNS[kind][1]}, (("number", 0.21),))


def _more(known: dict[str, tuple[str, ...]], rng: np.random.Generator) -> Composed:
    """How many more of one kind than of another: one to four, alike."""
    answer, size = int(rng.integers(1, 5)), _grid(rng, 8)
    kind, other, *others = kinds(rng, list(known), 4)
    less = int(rng.integers(1, 3))
    rest = size[0] * size[1] - answer - 2 * less
    third = [] if rest == 0 else _parts(rng, rest, min(len(others), rest), 9)
    grid = _filled(known, size, {kind: answer + less, other: less, **dict(zip(others, third))}, rng)
    words = {"many": NOUNS[kind][1], "others": NOUNS[other][1]}
    return grid, Candidate("more", str(answer), grid.icons[0].name, "more", words, (("more", 0.26),))


def _rows(known: dict[str, tuple[str, ...]], rng: np.random.Generator) -> Composed:
    """How many rows or columns the grid has."""
    lines, answer = ("rows", "columns")[rng.integers(2)], int(rng.integers(1, 5))
    fitting = [size for size in GRIDS if size[lines == "columns"] == answer]
    size = fitting[rng.integers(len(fitting))]
    names = [(name, kind) for kind in known for name in known[kind]]
    picked = [names[i] for i in rng.permutation(len(names))[: size[0] * size[1]]]
    grid = Grid(size, tuple(Icon(name, kind, *cell) for (name, kind), cell in zip(picked * 2, cells(size, rng))))
    return grid, Candidate("rows", str(answer), grid.icons[0].name, "rows", {"lines": lines}, (("rows", 0.26), (f"rows/{lines}", 0.26)))


def _place(known: dict[str, tuple[str, ...]], rng: np.random.Generator) -> Composed:
    """In which row or column the only icon of a kind is: one to four, alike."""
    line, answer = ("row", "column")[rng.integers(2)], int(rng.integers(1, 5))
    start = ("top", "bottom")[rng.integers(2)] if line == "row" else ("left", "right")[rng.integers(2)]
    fitting = [size for size in GRIDS if size[line == "column"] == 4]
    size = fitting[rng.integers(len(fitting))]
    kind, *others = kinds(rng, list(known), 4)
    at = answer - 1 if start in ("top", "left") else 4 - answer
    across = int(rng.integers(size[line == "row"]))
    mine = (at, across) if line == "row" else (across, at)
    rest = [(name, k) for k in others for name in known[k]]
    icons = [Icon(some(rng, known[kind], 1)[0], kind, *mine)]
    icons += [Icon(*rest[rng.integers(len(rest))], *cell) for cell in cells(size, rng) if cell != mine]
    words = {"one": NOUNS[kind][0], "line": line, "start": start}
    return Grid(size, tuple(icons)), Candidate("place", str(answer), icons[0].name, "place", words, (("place", 0.26), (f"place/{start}", 0.26)))


def _next(known: dict[str, tuple[str, ...]], rng: np.random.Generator) -> Composed:
    """What comes next in a row that repeats: each letter of the pattern is one icon, of a kind of its own."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    chosen = dict(zip("abc", kinds(rng, list(known), 3), strict=True))
    names = {letter: some(rng, known[kind], 1)[0] for letter, kind in chosen.items()}
    icons = tuple(Icon(names[letter], chosen[letter], i // 4, i % 4) for i, letter in enumerate(pattern[:-1]))
    answer = NOUNS[chosen[pattern[-1]]][0]
    return Grid((2, 4), icons), Candidate("next", answer, names[pattern[-1]], "next", caps=(("next", MOST_KIND),))


def _cell(known: dict[str, tuple[str, ...]], rng: np.random.Generator) -> Composed:
    """Which kind of icon is in a cell."""
    size = _grid(rng, 8)
    chosen = kinds(rng, list(known), 6)
    icons = []
    for cell in cells(size, rng):
        kind = chosen[rng.integers(len(chosen))]
        icons.append(Icon(some(rng, known[kind], 1)[0], kind, *cell))
    words = {"row": str(icons[0].row + 1), "column": str(icons[0].column + 1)}
    return Grid(size, tuple(icons)), Candidate("cell", NOUNS[icons[0].kind][0], icons[0].name, "cell", words, (("cell", MOST_KIND),))


def _most(known: dict[str, tuple[str, ...]], rng: np.random.Generator) -> Composed:
    """Which kind leads, by two icons and more."""
    size = _grid(rng, 8)
    kind, *others = kinds(rng, list(known), 4)
    total = size[0] * size[1]
    lead = total // 2
    numbers = {kind: lead, **dict(zip(others, _parts(rng, total - lead, 3, lead - 2), strict=True))}
    grid = _filled(known, size, numbers, rng)
    return grid, Candidate("most", NOUNS[kind][0], grid.icons[0].name, "most", caps=(("most", MOST_KIND),))


COMPOSE: dict[str, Callable[[dict[str, tuple[str, ...]], np.random.Generator], Composed]] = {
    "number": _number, "more": _more, "rows": _rows, "place": _place, "next": _next, "cell": _cell, "most": _most,
}  # fmt: skip
