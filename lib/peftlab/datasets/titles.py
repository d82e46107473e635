"""Reading: the title card of a real film, in several fonts and layouts, and questions on what is written.

Films are held out, and two fonts. The year is letterspaced, a digit to each of the encoder's 32-pixel cells: set closely, its digits
share cells and are not told apart by a frozen ImageNet encoder, which has not learned to read.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw

from peftlab import pictures
from peftlab.questions import Candidate, Poser, a, generator
from peftlab.records import Example

LATER, EARLIER = (10, 20, 30), (0, 10, 20)  # years from the decade of a film to the one it is compared with
FIRST, LAST = 1940, 2020  # the table's films lie between
SHARES = {"genre": 0.22, "is_genre": 0.13, "decade": 0.20, "before": 0.13, "year": 0.14, "length": 0.18}
WORDINGS: dict[str, tuple[str, ...]] = {
    "genre": ("What genre is printed?", "Which genre does the card give?", "What is the film's genre?", "Read the genre of this film."),
    "is_genre": ("Is {word} printed as the genre?", "Is the film's genre {word}?", "Does the card say {word}?", "Is {word} the genre of this film?"),
    "decade": ("In which decade was it made?", "What decade is the film from?", "Which decade is the year in?", "To which decade does this film belong?"),
    "before": ("Was it made before {year}?", "Is the film from before {year}?", "Is the year before {year}?", "Is this film older than one of {year}?"),
    "year": ("Which year is printed?", "In which year was it made?", "What is the film's year?", "Read the year of this film."),
    "length": ("How many words has the title?", "Count the words of the title.", "How many words are in the title?", "Of how many words is the title made?"),
}
THEMES = (("#141414", "#f6f1e1"), ("#f6f1e1", "#141414"), ("#7a1118", "#ffe9b0"), ("#0f2a4d", "#ffffff"), ("#f2c230", "#20130a"), ("#1d4a34", "#f4f4dc"), ("#ffffff", "#8a0f2a"), ("#dfe8f2", "#12315c"))


@dataclass(frozen=True)
class Film:
    """A film as its card prints it."""

    title: str
    year: int
    genre: str

    @property
    def words(self) -> tuple[str, ...]:
        """The title's words as they are spaced, lower case, without punctuation at their ends."""
        return tuple(re.sub(r"^[^a-z0-9]+|[^a-z0-9]+$", "", w) for w in self.title.lower().split())


@cache
def films(split: str) -> tuple[Film, ...]:
    """The pack's films of a split, in the table's order."""
    rows = pictures.table("films")
    return tuple(Film(r.title, int(r.year), r.genre) for r in rows[rows["split"] == split].itertuples())


def fonts(split: str) -> list[str]:
    """The font files of a split: training fonts, and in the test the held-out ones beside them."""
    rows = pictures.table("fonts")
    return list(rows[(rows["split"] == "train") | (rows["split"] == split)]["file"])


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples: films of its own (base has train's), each drawn anew with its font and layout."""
    poser = Poser("titles", split, WORDINGS, SHARES)
    source = "train" if split == "base" else split
    known = films(source)
    weights, faces = _weights(known), fonts(split)
    made = 0
    while made < wanted:
        film = known[poser.rng.choice(len(known), p=weights)]
        asked = poser.pose(draw(film, faces, poser.rng), list(candidates(film, poser.rng)))
        yield from asked[: wanted - made]
        made += len(asked)


def captions(wanted: int) -> Iterator[Example]:
    """Yield `wanted` captions of training films on cards of their own: what a connector is aligned on, beside `questions.captions`."""
    rng, known, faces = generator("titles", "captions"), films("train"), fonts("train")
    weights = _weights(known)
    for number in range(wanted):
        film = known[rng.choice(len(known), p=weights)]
        n = len(film.words)
        text = f"A card of {a(film.genre.lower())} film from {film.year}, with {n} word{'s' * (n > 1)} in its title."
        name = f"titles-captions-{number:05d}"
        yield Example(name, name, draw(film, faces, rng), "Describe the picture.", (text,), "caption", 0, film.title)


def _weights(known: tuple[Film, ...]) -> np.ndarray:
    """How likely each film is: decades and numbers of words come more evenly than in the table."""
    decades, lengths = Counter(f.year // 10 for f in known), Counter(len(f.words) for f in known)
    weights = np.array([decades[f.year // 10] * lengths[len(f.words)] for f in known]) ** -0.6
    return weights / weights.sum()


# ---------------------------------------------------------------- the card


Line = tuple[str, str, int]  # words, font file, size in pixels
ORDERS = (("genre", "title", "year"), ("year", "title", "genre"))  # top, middle, bottom
SLOT, LARGE, GAP = 32, 30, 3  # pixels: height of the slots at the top and bottom, size of what is in them, space between lines
SHIFT = 2  # pixels that a year's digits may lie beside the middles of their cells


def draw(film: Film, faces: list[str], rng: np.random.Generator) -> Image.Image:
    """A (160, 160) RGB card: genre and year large at the top and bottom, the title in large type over one to three lines between."""
    paper, ink = THEMES[rng.integers(len(THEMES))]
    canvas = Image.new("RGB", (pictures.SIDE, pictures.SIDE), paper)
    pen = ImageDraw.Draw(canvas)
    face, plain = (faces[rng.integers(len(faces))] for _ in range(2))
    top, _, bottom = ORDERS[rng.integers(len(ORDERS))]
    band, upper = rng.random() < 0.4, rng.random() < 0.4
    if band:
        pen.rectangle((0, 0, pictures.SIDE, SLOT), fill=ink)
    first = SLOT * (0.5 + rng.integers(2)) + rng.integers(-SHIFT, SHIFT + 1)  # the middle of the year's first digit
    written = {"genre": [(film.genre, pictures.SIDE / 2)], "year": [(digit, first + SLOT * i) for i, digit in enumerate(str(film.year))]}
    for block, middle, fill in ((top, SLOT / 2, paper if band else ink), (bottom, pictures.SIDE - SLOT / 2, ink)):
        for words, x in written[block]:
            font = pictures.font(plain, _fit(words, plain, LARGE))
            _, above, _, below = pen.textbbox((x, middle), words, font=font, anchor="mm")
            y = middle + max(0, -above) - max(0, below - pictures.SIDE)  # some faces hang far below their line
            pen.text((x, y), words, font=font, fill=fill, anchor="mm")
    lines = _title(film.title.upper() if upper else film.title, face)
    y = pictures.SIDE / 2 - sum(_height(line) for line in lines) / 2
    for line in lines:
        pen.text((pictures.SIDE / 2, y + _height(line) / 2), line[0], font=pictures.font(*line[1:]), fill=ink, anchor="mm")
        y += _height(line)
    return canvas


def _title(title: str, face: str) -> list[Line]:
    """The title's lines, as large as lets them lie between the slots."""
    for size in range(34, 11, -1):
        lines = _broken(title, face, size)
        if sum(map(_height, lines)) <= pictures.SIDE - 2 * SLOT:
            return lines
    raise ValueError(f"the title {title!r} does not fit a card of {pictures.SIDE} pixels (data/pack/films.csv)")


def _height(line: Line) -> int:
    return _line_height(line[1], line[2])


@cache
def _line_height(file: str, size: int) -> int:
    top, bottom = pictures.font(file, size).getbbox("Hg")[1::2]
    return int(bottom - top) + GAP


def _fit(words: str, file: str, size: int, width: int = 148) -> int:
    """The greatest size up to `size` at which the words are at most `width` pixels wide."""
    return min(size, max(9, int(width / _width(words, file))))


@lru_cache(maxsize=65536)
def _width(words: str, file: str) -> float:
    """The words' width in units of the font's size."""
    return pictures.font(file, 40).getlength(words) / 40


def _broken(title: str, file: str, size: int) -> list[Line]:
    """The title over as few lines (at most three) as let it be largest, at most `size`."""
    words = title.split()
    splits = [[title]] + [[" ".join(words[:i]), " ".join(words[i:])] for i in range(1, len(words))]
    splits += [[" ".join(words[:i]), " ".join(words[i:j]), " ".join(words[j:])] for i in range(1, len(words)) for j in range(i + 1, len(words))]
    sizes = [min(_fit(line, file, size) for line in lines) for lines in splits]
    best = max(range(len(splits)), key=lambda i: (sizes[i], -len(splits[i])))
    return [(line, file, sizes[best]) for line in splits[best]]


# ---------------------------------------------------------------- what can be asked of it


def candidates(film: Film, rng: np.random.Generator) -> Iterator[Candidate]:
    """Every question the card answers; genres and years that are not printed are drawn with `rng`."""
    genre, genres = film.genre.lower(), sorted({f.genre.lower() for f in films("train")})
    decade = film.year // 10 * 10
    yield Candidate("genre", genre, film.title, "genre", caps=(("genre", 0.16),))
    for word in (genre, str(rng.choice([g for g in genres if g != genre]))):
        yield Candidate("is_genre", "yes" if word == genre else "no", film.title, "is_genre", {"word": word}, (("is_genre", 0.5), (f"is_genre/{word}", 0.5)))
    yield Candidate("decade", f"{decade}s", film.title, "decade", caps=(("decade", 0.2),))
    for year in (int(rng.choice(LATER)) + decade, decade - int(rng.choice(EARLIER))):
        if FIRST < year < LAST:
            yield Candidate("before", "yes" if film.year < year else "no", film.title, "before", {"year": str(year)}, (("before", 0.5), (f"before/{year}", 0.5)))
    yield Candidate("year", str(film.year), film.title, "year", caps=(("year", 0.04),))
    yield Candidate("length", str(len(film.words)), film.title, "length", caps=(("length", 0.3),))
