"""Reading: the title card of a real film, in several fonts and layouts, and questions on what is written.

Films are held out, and two fonts; the words asked about occur in titles of training films too.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from peftlab import pictures
from peftlab.datasets import card
from peftlab.questions import Candidate, Poser
from peftlab.records import Example

WORDS = 60  # how many of the most frequent title words are asked about
SMALL = {"the", "of", "and", "in", "to", "a", "an", "for", "on", "at", "with", "is", "from", "by", "or", "it", "as"}
SHARES = {"genre": 0.24, "decade": 0.18, "length": 0.18, "word": 0.14, "which": 0.16, "first": 0.10}
WORDINGS: dict[str, tuple[str, ...]] = {
    "genre": ("What genre is printed?", "Which genre does the card give?", "What is the film's genre?", "Read the genre of this film."),
    "decade": ("In which decade was it made?", "What decade is the film from?", "Which decade is the year in?", "To which decade does this film belong?"),
    "length": ("How many words has the title?", "Count the words of the title.", "How many words are in the title?", "Of how many words is the title made?"),
    "word": ("Is the word '{word}' in the title?", "Does the title have the word '{word}'?", "Is '{word}' a word of the title?", "Can the word '{word}' be read in the title?"),
    "which": (
        "Which of these words is in the title: {options}?",
        "Which word does the title have: {options}?",
        "One of these is in the title, which: {options}?",
        "Read the title. Which word is in it: {options}?",
    ),
    "first": ("What is the first word of the title?", "Which word does the title begin with?", "Read the title's first word.", "With which word does the title start?"),
}
THEMES = (("#141414", "#f6f1e1"), ("#f6f1e1", "#141414"), ("#7a1118", "#ffe9b0"), ("#0f2a4d", "#ffffff"), ("#f2c230", "#20130a"), ("#1d4a34", "#f4f4dc"), ("#ffffff", "#8a0f2a"), ("#dfe8f2", "#12315c"))


@dataclass(frozen=True)
class Film:
    """A film as its card prints it."""

    title: str
    year: int
    genre: str
    director: str

    @property
    def words(self) -> tuple[str, ...]:
        """The title's words as they are spaced, lower case, without punctuation at their ends."""
        return tuple(re.sub(r"^[^a-z0-9]+|[^a-z0-9]+$", "", w) for w in self.title.lower().split())


@cache
def films(split: str) -> tuple[Film, ...]:
    """The pack's films of a split, in the table's order."""
    rows = pictures.table("films")
    return tuple(Film(r.title, int(r.year), r.genre, r.director) for r in rows[rows["split"] == split].itertuples())


@cache
def vocabulary() -> tuple[str, ...]:
    """The most frequent words of training titles of three letters and more, small words left out."""
    counts = Counter(w for f in films("train") for w in set(f.words) if w not in SMALL and len(w) > 2)
    return tuple(sorted(counts, key=lambda w: (-counts[w], w))[:WORDS])


def load(split: str) -> Iterator[Example]:
    """Yield the split's examples: films of its own (base has train's), each drawn anew with its font and layout."""
    poser, wanted = Poser("titles", split, WORDINGS, SHARES), card("titles").sizes[split]
    source = "train" if split == "base" else split
    known = films(source)
    weights = _weights(known)
    fonts = pictures.table("fonts")
    fonts = list(fonts[(fonts["split"] == "train") | (fonts["split"] == split)]["file"])
    made = 0
    while made < wanted:
        film = known[poser.rng.choice(len(known), p=weights)]
        asked = poser.pose(draw(film, fonts, poser.rng), list(candidates(film, poser.rng)))
        yield from asked[: wanted - made]
        made += len(asked)


def _weights(known: tuple[Film, ...]) -> np.ndarray:
    """How likely each film is: films with frequent words more, decades more evenly than in the table."""
    decades = Counter(f.year // 10 for f in known)
    weights = np.array([(1 + 4 * any(w in vocabulary() for w in f.words)) / decades[f.year // 10] ** 0.7 for f in known])
    return weights / weights.sum()


# ---------------------------------------------------------------- the card


def draw(film: Film, fonts: list[str], rng: np.random.Generator) -> Image.Image:
    """A (160, 160) RGB card: title in large type over one to three lines, genre and year large, the director's surname small."""
    paper, ink = THEMES[rng.integers(len(THEMES))]
    accent = ink if rng.random() < 0.6 else paper
    canvas = Image.new("RGB", (pictures.SIDE, pictures.SIDE), paper)
    face, plain = (fonts[rng.integers(len(fonts))] for _ in range(2))
    title = film.title.upper() if rng.random() < 0.4 else film.title
    lines = {
        "title": _broken(title, face),
        "genre": [(film.genre, plain, _fit(film.genre, plain, 24))],
        "year": [(str(film.year), plain, 26)],
        "director": [(film.director.split()[-1], plain, _fit(film.director.split()[-1], plain, 17))],
    }
    orders = (("title", "genre", "year", "director"), ("genre", "title", "year", "director"), ("director", "year", "title", "genre"), ("year", "genre", "director", "title"), ("director", "title", "year", "genre"))
    order = orders[rng.integers(len(orders))]
    heights = {block: [_height(file, size) for _, file, size in lines[block]] for block in order}
    if sum(map(sum, heights.values())) > pictures.SIDE - 6:
        order = tuple(block for block in order if block != "director")
    free = pictures.SIDE - 6 - sum(sum(heights[block]) for block in order)
    left = rng.random() < 0.3
    banner = order[0] if accent == paper else ""  # the first block on a band of the other colour
    y = 3.0
    for block in order:
        gap = free / (len(order) + 1)
        top, y = y, y + gap
        bottom = y + sum(heights[block])
        if block == banner:
            ImageDraw.Draw(canvas).rectangle((0, 0, pictures.SIDE, bottom + gap / 2), fill=ink)
        for (words, file, size), height in zip(lines[block], heights[block], strict=True):
            at = (7.0, y + height / 2) if left else (pictures.SIDE / 2, y + height / 2)
            pictures.text(canvas, words, file, size, at, paper if block == banner else ink, "lm" if left else "mm")
            y += height
    if rng.random() < 0.3:
        ImageDraw.Draw(canvas).rectangle((0, 0, pictures.SIDE - 1, pictures.SIDE - 1), outline=ink, width=2)
    return canvas


def _height(file: str, size: int) -> int:
    top, bottom = pictures.font(file, size).getbbox("Hg")[1::2]
    return int(bottom - top) + 3


def _fit(words: str, file: str, size: int, width: int = 148) -> int:
    """The greatest size up to `size` at which the words are at most `width` pixels wide."""
    while size > 9 and pictures.font(file, size).getlength(words) > width:
        size -= 1
    return size


def _broken(title: str, file: str) -> list[tuple[str, str, int]]:
    """The title over as many lines (at most three) as let it be largest: (words, font, size) a line."""
    words = title.split()
    splits = [[title]] + [[" ".join(words[:i]), " ".join(words[i:])] for i in range(1, len(words))]
    splits += [[" ".join(words[:i]), " ".join(words[i:j]), " ".join(words[j:])] for i in range(1, len(words)) for j in range(i + 1, len(words))]
    sizes = [min(_fit(line, file, 36 if len(lines) < 3 else 28) for line in lines) for lines in splits]
    best = max(range(len(splits)), key=lambda i: (sizes[i], -len(splits[i])))
    return [(line, file, sizes[best]) for line in splits[best]]


# ---------------------------------------------------------------- what can be asked of it


def candidates(film: Film, rng: np.random.Generator) -> Iterator[Candidate]:
    """Every question the card answers; words that are not in the title are drawn with `rng` among the frequent ones."""
    inside = [w for w in vocabulary() if w in film.words]
    outside = [str(w) for w in rng.choice(vocabulary(), 12, replace=False) if w not in film.words]
    yield Candidate("genre", film.genre.lower(), film.title, "genre", caps=(("genre", 0.16),))
    yield Candidate("decade", f"{film.year // 10 * 10}s", film.title, "decade", caps=(("decade", 0.2),))
    yield Candidate("length", str(len(film.words)), film.title, "length", caps=(("length", 0.27),))
    for word in inside + outside[:6]:
        caps = (("word", 0.5), (f"word/{word}", 0.5))
        yield Candidate("word", "yes" if word in inside else "no", film.title, "word", {"word": word}, caps)
    for word in inside:
        options = [str(w) for w in rng.permutation([word, *outside[-2:]])]
        yield Candidate("which", word, film.title, "which", {"options": f"{options[0]}, {options[1]} or {options[2]}"}, (("which", 0.1),), tuple(options))
    if film.words[0] in vocabulary():
        yield Candidate("first", film.words[0], film.title, "first", caps=(("first", 0.1),))
