"""Icons with a filled-in answer: concepts held out as in the questions by choice, grids of their own, answers that can be read off the grid."""

from collections import Counter

import numpy as np
import pytest

from peftlab import icons, pictures
from peftlab.datasets import icons_blank, icons_choice

KNOWN = icons.concepts("train")
KIND = {noun: kind for kind, nouns in icons_blank.NOUNS.items() for noun in nouns}


def grids(template: str):
    for seed in range(120):
        yield icons_blank.COMPOSE[template](KNOWN, np.random.default_rng(seed))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_grids_hold_the_splits_own_concepts(some, split: str) -> None:
    own = {n for names in icons.concepts(split).values() for n in names}
    assert {n for e in some("icons_blank", split) for n in e.objects} <= own
    others = {n for other in ("train", "validation", "test") if other != split for names in icons.concepts(other).values() for n in names}
    assert not own & others


def test_a_concept_held_out_by_choice_is_held_out_here(some) -> None:
    shown = {split: {n for name in ("icons_choice", "icons_blank") for e in some(name, split) for n in e.objects} for split in ("train", "test")}
    assert shown["train"] and not shown["train"] & shown["test"]
    for style in icons.STYLES:
        assert not set(pictures.things(style, "train")["name"]) & shown["test"]


def test_the_grids_are_none_of_those_by_choice() -> None:
    assert not set(icons_blank.GRIDS) & set(icons_choice.GRIDS)
    for template in icons_blank.SHARES:
        assert {grid.size for grid, _ in grids(template)} <= set(icons_blank.GRIDS)


@pytest.mark.parametrize("template", icons_blank.SHARES)
def test_every_cell_holds_one_icon(template: str) -> None:
    for grid, _ in grids(template):
        rows, columns = grid.size
        cells = Counter((icon.row, icon.column) for icon in grid.icons)
        empty = {(rows - 1, columns - 1)} if template == "next" else set()
        assert cells == Counter({(r, c): 1 for r in range(rows) for c in range(columns) if (r, c) not in empty})


@pytest.mark.parametrize("template", [t for t in icons_blank.SHARES if t != "rows"])
def test_no_two_kinds_of_a_grid_could_be_put_together(template: str) -> None:
    for grid, _ in grids(template):
        there = {icon.kind for icon in grid.icons}
        assert all(len(there & close) <= 1 for close in icons.CLOSE)


def test_numbers_are_counted() -> None:
    for grid, candidate in grids("number"):
        assert int(candidate.answer) == sum(icon.kind == KIND[candidate.words["many"]] for icon in grid.icons)
    for grid, candidate in grids("more"):
        counts = Counter(icon.kind for icon in grid.icons)
        assert int(candidate.answer) == counts[KIND[candidate.words["many"]]] - counts[KIND[candidate.words["others"]]] > 0
        assert counts[KIND[candidate.words["others"]]] > 0


def test_rows_and_columns_are_counted() -> None:
    for grid, candidate in grids("rows"):
        lines = {icon.row if candidate.words["lines"] == "rows" else icon.column for icon in grid.icons}
        assert int(candidate.answer) == len(lines)


def test_the_only_one_is_where_the_answer_says() -> None:
    for grid, candidate in grids("place"):
        (icon,) = [icon for icon in grid.icons if icon.kind == KIND[candidate.words["one"]]]
        rows, columns = grid.size
        place = {"top": icon.row + 1, "bottom": rows - icon.row, "left": icon.column + 1, "right": columns - icon.column}[candidate.words["start"]]
        assert int(candidate.answer) == place and candidate.words["line"] == ("row" if candidate.words["start"] in ("top", "bottom") else "column")


def test_the_pattern_goes_on() -> None:
    """What is hidden has the shortest period that the seven icons before it have."""
    for grid, candidate in grids("next"):
        names = [icon.name for icon in sorted(grid.icons, key=lambda icon: (icon.row, icon.column))]
        period = next(p for p in range(1, 7) if all(names[i] == names[i - p] for i in range(p, 7)))
        assert period <= 4 and candidate.asset == names[7 - period]
        (kind,) = {icon.kind for icon in grid.icons if icon.name == names[7 - period]}
        assert KIND[candidate.answer] == kind


def test_the_cell_and_the_commonest_kind() -> None:
    for grid, candidate in grids("cell"):
        (icon,) = [i for i in grid.icons if (str(i.row + 1), str(i.column + 1)) == (candidate.words["row"], candidate.words["column"])]
        assert KIND[candidate.answer] == icon.kind
    for grid, candidate in grids("most"):
        (first, most), (_, second) = Counter(icon.kind for icon in grid.icons).most_common(2)
        assert KIND[candidate.answer] == first and most - second >= 2


def test_the_question_mark_is_drawn_on_the_hidden_cell(some) -> None:
    shown = [e for e in some("icons_blank", "train") if e.template == "next"]
    assert len(shown) > 20
    for e in shown:
        corner = np.asarray(e.image.convert("L"))[104:136, 124:156]  # of two rows and four columns
        assert (corner == 255).mean() > 0.4 and (corner == 0).mean() > 0.05


def test_words_and_kinds_of_the_pack_agree() -> None:
    assert set(icons_blank.NOUNS) == set(icons.KINDS) == set(icons_choice.GROUPS) == set(KNOWN)
    assert len({noun for nouns in icons_blank.NOUNS.values() for noun in nouns}) == 2 * len(icons.KINDS)


@pytest.mark.parametrize("split", ["train", "test"])
def test_numbers_and_kinds_are_all_about_as_frequent(some, split: str) -> None:
    answers: dict[str, Counter[str]] = {}
    for e in some("icons_blank", split):
        answers.setdefault(e.template, Counter())[e.answers[0]] += 1
        assert not e.choices
    for template, counts in answers.items():
        assert max(counts.values()) <= (0.27 if template in ("number", "more", "rows", "place") else 0.12) * counts.total() + 2, (template, counts)
