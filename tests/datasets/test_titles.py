"""Titles: films and two fonts are held out, a year's digits lie in cells of their own, and answers are what the card prints."""

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


def test_answers_are_what_the_card_prints() -> None:
    for seed in range(20):
        asked = list(titles.candidates(FILM, np.random.default_rng(seed)))
        open_ = {c.template: c.answer for c in asked if not c.words}
        assert open_ == {"genre": "drama", "decade": "1990s", "year": "1994", "length": "5"}
        assert [c.answer for c in asked if c.template == "is_genre"] == ["yes", "no"]
        for c in asked:
            if c.template == "is_genre":
                assert c.answer == ("yes" if c.words["word"] == "drama" else "no")
            if c.template == "before":
                assert c.answer == ("yes" if 1994 < int(c.words["year"]) else "no")


def test_captions_are_of_training_films_and_say_what_the_card_prints() -> None:
    films = {film.title: film for film in titles.films("train")}
    for e in titles.captions(30):
        film = films[e.asset]
        assert all(word in e.answers[0] for word in (film.genre.lower(), str(film.year), f"{len(film.words)} word"))


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
        assert film.genre.lower() in shown and all(word in shown for word in film.words), film
        digits = [((left + right) / 2, (top + bottom) / 2) for words, (left, top, right, bottom), _ in written if len(words) == 1 and words.isdigit()]
        printed = "".join(words for words, _, _ in written if len(words) == 1 and words.isdigit())
        cells = [(x // 32, y // 32) for x, y in digits]
        assert printed == str(film.year) and len(set(cells)) == 4 and len({row for _, row in cells}) == 1, film
        for words, (left, top, right, bottom), size in written:
            assert left >= -2 and top >= -2 and right <= 162 and bottom <= 162, (film, words)
            assert size >= 12, (film, words, size)
