"""Icons: concepts are held out whole, and each template's answer can be read off the composed grid."""

import numpy as np
import pytest

from peftlab import icons, pictures
from peftlab.datasets import icons_choice

KNOWN = icons.concepts("train")


def test_no_concept_of_the_test_is_in_training_in_either_style() -> None:
    names = {split: {n for names in icons.concepts(split).values() for n in names} for split in ("train", "validation", "test")}
    assert not names["train"] & names["test"] and not names["train"] & names["validation"] and not names["validation"] & names["test"]
    for style in icons.STYLES:
        assert not set(pictures.things(style, "train")["name"]) & names["test"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_grids_hold_the_splits_own_concepts(some, split: str) -> None:
    own = {n for names in icons.concepts(split).values() for n in names}
    assert {n for e in some("icons_choice", split) for n in e.objects} <= own
    assert all(4 <= len(e.objects) <= 9 for e in some("icons_choice", split))


def grids(compose):
    for seed in range(150):
        rng = np.random.default_rng(seed)
        size = icons_choice.GRIDS[seed % len(icons_choice.GRIDS)]
        grid, candidate = compose(KNOWN, size, rng)
        yield grid.size, grid.icons, candidate


@pytest.mark.parametrize("compose", [icons_choice._count, icons_choice._odd, icons_choice._belongs, icons_choice._beside])
def test_every_icon_is_in_the_grid_and_none_covers_another(monkeypatch: pytest.MonkeyPatch, compose) -> None:
    boxes: list[tuple[int, int, int, int]] = []
    paste = pictures.paste
    monkeypatch.setattr(pictures, "paste", lambda *given: boxes.append(paste(*given)))
    for size, grid, _ in grids(compose):
        assert all(icon.row < size[0] and icon.column < size[1] for icon in grid) and len({(icon.row, icon.column) for icon in grid}) == len(grid)
        boxes.clear()
        icons.draw(icons.Grid(size, grid), "fluent", "train", np.random.default_rng(0))
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:i]:
                across, down = min(right, other[2]) - max(left, other[0]), min(bottom, other[3]) - max(top, other[1])
                assert min(across, down) <= 4, (size, across, down)  # jitter may let two borders touch


def test_count_is_the_number_of_icons() -> None:
    plural = {v: k for k, v in icons_choice.GROUPS.items()}
    for _, grid, candidate in grids(icons_choice._count):
        kind = plural.get(candidate.words.get("plural", ""))
        assert int(candidate.answer) == sum(kind in (None, icon.kind) for icon in grid)


def test_the_odd_one_is_alone_of_its_kind_and_where_the_answer_says() -> None:
    for size, grid, candidate in grids(icons_choice._odd):
        there = [icon for icon in grid if icons_choice.place(icon, size) == candidate.answer]
        assert len(there) == 1 and sum(icon.kind == there[0].kind for icon in grid) == 1
        assert len({icon.kind for icon in grid}) == 2


def test_what_belongs_is_of_the_kind_shown_and_not_in_the_picture() -> None:
    kinds = {name: kind for kind, names in KNOWN.items() for name in names}
    for _, grid, candidate in grids(icons_choice._belongs):
        assert {icon.kind for icon in grid} == {kinds[candidate.answer]}
        assert [c for c in candidate.choices if kinds[c] == grid[0].kind] == [candidate.answer]
        assert candidate.answer not in {icon.name for icon in grid}


def test_what_is_beside_is_beside_and_all_choices_are_in_the_picture() -> None:
    steps = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}
    for _, grid, candidate in grids(icons_choice._beside):
        at = {icon.name: (icon.row, icon.column) for icon in grid}
        assert len(at) == len(grid) and set(candidate.choices) <= set(at)
        x, answer, step = at[candidate.words["x"]], at[candidate.answer], steps[candidate.words["where"]]
        assert (answer[0] - x[0], answer[1] - x[1]) == step


def test_choices_alone_say_nothing() -> None:
    """Over many grids, always taking the first choice, or the commonest kind of number, is right about as often as chance."""
    for compose in (icons_choice._count, icons_choice._belongs):
        right = [candidate.choices.index(candidate.answer) == 0 for _, _, candidate in grids(compose)]
        assert 0.15 < np.mean(right) < 0.36
