"""Titles: films and two fonts are held out, words are taught, and answers are what the card prints."""

import numpy as np
import pytest
from PIL import ImageDraw

from peftlab import pictures
from peftlab.datasets import titles
from peftlab.datasets.titles import Film

FILM = Film("Night of the Lion King", 1994, "Drama")


@pytest.mark.parametrize("split, source", [("base", "train"), ("train", "train"), ("validation", "validation"), ("test", "test")])
def test_films_are_of_their_split(some, split: str, source: str) -> None:
    assert {e.asset for e in some("titles", split)} <= {film.title for film in titles.films(source)}


def test_no_test_film_is_in_training() -> None:
    names = {split: {film.title for film in titles.films(split)} for split in ("train", "validation", "test")}
    assert not names["train"] & (names["test"] | names["validation"]) and not names["test"] & names["validation"]


def test_two_fonts_are_for_the_test_only() -> None:
    fonts = pictures.table("fonts")
    assert len(fonts[fonts["split"] == "test"]) == 2
    assert set(titles.fonts("base")) == set(titles.fonts("train")) == set(fonts[fonts["split"] == "train"]["file"])
    assert set(fonts["file"]) == set(titles.fonts("test"))


def test_words_asked_about_are_taught() -> None:
    taught = {word for film in titles.films("train") for word in film.words}
    assert set(titles.vocabulary()) <= taught and len(titles.vocabulary()) == titles.WORDS


def test_answers_are_what_the_card_prints() -> None:
    asked = {c.wording: c for c in titles.candidates(FILM, np.random.default_rng(0))}
    assert asked["genre"].answer == "drama" and asked["decade"].answer == "1990s" and asked["length"].answer == "5"
    for candidate in titles.candidates(FILM, np.random.default_rng(1)):
        if candidate.template == "word":
            assert candidate.answer == ("yes" if candidate.words["word"] in FILM.words else "no")
        if candidate.template == "which":
            assert [option for option in candidate.choices if option in FILM.words] == [candidate.answer]


def test_punctuation_is_no_part_of_a_word() -> None:
    assert Film("Mr. Smith's 'Night'!", 1990, "Drama").words == ("mr", "smith's", "night")


def test_everything_asked_about_is_drawn_inside_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Title, genre and year of every test film are written, legibly large, within the card's borders."""
    written: list[tuple[str, tuple[float, float, float, float], int]] = []
    original = ImageDraw.ImageDraw.text

    def text(self, xy, words, *args, font, anchor, **kwargs):
        written.append((words, self.textbbox(xy, words, font=font, anchor=anchor), font.size))
        return original(self, xy, words, *args, font=font, anchor=anchor, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    rng = np.random.default_rng(0)
    for film in titles.films("test")[:150]:
        written.clear()
        titles.draw(film, titles.fonts("test"), rng)
        shown = " ".join(words for words, _, _ in written).lower()
        assert film.genre.lower() in shown and str(film.year) in shown and all(word in shown for word in film.words), film
        for words, (left, top, right, bottom), size in written:
            assert left >= -2 and top >= -2 and right <= 162 and bottom <= 162, (film, words)
            assert size >= 12, (film, words, size)
