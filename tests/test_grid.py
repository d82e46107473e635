"""A grid is what its YAML says, and a mistake in it is one sentence."""

from pathlib import Path

import pytest

from peftlab import grid, paths
from peftlab.run import Run

GRID = """
study: mine
why: one sentence
stages: [evaluate, finetune]
expect: 5
base: {steps: 30, lr: 1e-3}
grids:
  - {method: [lora, ia3], connector: [frozen, tuned]}
  - {method: [none, lora], connector: [frozen, tuned]}
exclude:
  - {method: none, connector: tuned, why: "the untouched base has no tuned connector"}
"""


def read(tmp_path: Path, text: str) -> grid.Study:
    """The study of a file that holds `text`."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return grid.read(file)


def test_a_grid_is_the_union_of_its_products_less_the_exclusions(tmp_path: Path) -> None:
    study = read(tmp_path, GRID)
    assert (study.name, study.why, study.stages) == ("mine", "one sentence", ("finetune", "evaluate"))
    assert [(r.method, r.connector) for r in study.runs] == [("lora", "frozen"), ("lora", "tuned"), ("ia3", "frozen"), ("ia3", "tuned"), ("none", "frozen")]
    assert all(r.steps == 30 and r.lr == 0.001 for r in study.runs)
    assert study.runs[0] == Run(steps=30, lr=0.001)


def test_a_null_level_and_a_single_level_are_levels(tmp_path: Path) -> None:
    study = read(tmp_path, "{study: s, why: w, stages: [finetune], expect: 2, grids: [{size: [null, 8], method: lora}]}")
    assert [r.size for r in study.runs] == [None, 8]


WRONG = [
    ("expect: 5", "expect: 6", "the grid has 5 runs, but expect says 6"),
    ("expect: 5", "expect: many", "expect is 'many'; the number of runs"),
    ("steps: 30", "stpes: 30", "'stpes' is not an axis; the axes are model, dataset, method"),
    ("[lora, ia3]", "[lora, ia4]", "method is 'ia4'; choose one of none, connector, full, lora"),
    ("[lora, ia3]", "[lora, lora]", "axis method has level 'lora' twice in grid 1"),
    ("[lora, ia3]", "[]", "axis method has no level in grid 1"),
    ("[lora, ia3]", "[[lora]]", "a level is a number, a word or null"),
    ("lr: 1e-3", "lr: -1", "lr is -1; card, paper, or a number above 0 (in the combination steps: 30"),
    ("lr: 1e-3", "steps: 60", "the key 'steps' is given twice (line 6)"),
    ("lr: 1e-3", "method: lora", "axis method is in base and in grid 1: keep one"),
    ("stages: [evaluate, finetune]", "stages: [tune]", "stage is 'tune'; choose from finetune, evaluate, probe"),
    ("stages: [evaluate, finetune]", "stages: []", "stages is []; a list of finetune, evaluate, probe"),
    ("study: mine", "study: ../mine", "study is '../mine'; small letters, digits"),
    ("study: mine\n", "", "'study' is missing"),
    ("why: one sentence", "why: ", "why is None; one sentence"),
    ("expect: 5", "expects: 5", "'expects' is not a key of a grid; the keys are study, why"),
    (', why: "the untouched base has no tuned connector"', "", "exclusion 1 has no why"),
    ("exclude:\n  - {method: none,", "exclude:\n  - {mehtod: none,", "'mehtod' is not an axis"),
    ("exclude:\n  - {method: none,", "exclude:\n  - {method: full,", "exclusion 1: method is 'full'; this grid has lora, ia3, none"),
    ("exclude:\n", "exclude:\n  - {method: ia3, steps: 30, connector: [frozen], seed: 42, why: w}\n  - {why: w}\n", "exclusion 2 names no axis"),
    ("exclude:\n  - {", "exclude:\n  - {lr: 0.001, steps: 30, train_size: null, test_size: 100, ", "exclusion 1: test_size is 100; this grid has 200"),
    (GRID.strip(), "- a\n- b", "a grid is a mapping with the keys study"),
    (GRID.strip(), "study: [", "is not readable YAML"),
    (GRID.strip(), "!!python/object/apply:os.system [echo]", "is not readable YAML"),
    (GRID.strip(), "? [a, b]\n: c", "the key ['a', 'b'] is not a word (line 2)"),
]


def test_the_sets_that_what_is_kept_is_meant_over_are_among_those_tested(tmp_path: Path) -> None:
    assert read(tmp_path, GRID).sources == ()
    grids = GRID.replace("connector: [frozen, tuned]}\n  - {", "connector: [frozen, tuned], test_dataset: [same, titles]}\n  - {", 1).replace("expect: 5", "expect: 9")
    assert read(tmp_path, f"{grids}sources: [titles, icons_choice]\n").sources == ("titles", "icons_choice")
    for given, sentence in (
        ("[tiltes]", "sources names 'tiltes', which is no data set; choose from icons_choice, titles"),
        ("[titles, facts]", "sources names facts, on which no run of this grid is tested; tested are icons_choice, titles"),
        ("[titles, titles]", "sources names titles twice"),
        ("titles", "sources is 'titles'; a list of the data sets"),
        ("[]", "sources is []; a list of the data sets"),
    ):
        with pytest.raises(ValueError) as error:
            read(tmp_path, f"{grids}sources: {given}\n")
        assert str(error.value).startswith("mine.yaml: ") and sentence in str(error.value)
    with pytest.raises(ValueError, match="tested are none: there is no evaluate stage"):
        read(tmp_path, f"{grids}sources: [titles]\n".replace("[evaluate, finetune]", "[finetune]"))


@pytest.mark.parametrize(("old", "new", "sentence"), WRONG)
def test_a_mistake_is_one_sentence_that_names_the_file(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in GRID
    with pytest.raises(ValueError) as error:
        read(tmp_path, GRID.replace(old, new, 1))
    assert str(error.value).startswith("mine.yaml")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_an_exclusion_that_matches_no_combination_is_refused(tmp_path: Path) -> None:
    text = "{study: s, why: w, stages: [finetune], expect: 2, grids: [{method: lora, seed: 1}, {method: ia3, seed: 2}], exclude: [{method: lora, seed: 2, why: w}]}"
    with pytest.raises(ValueError, match="exclusion 1 excludes nothing: remove it"):
        read(tmp_path, text)


def test_an_invalid_combination_must_be_excluded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"method none with connector tuned: none has only connector frozen \(in the combination"):
        read(tmp_path, GRID[: GRID.index("exclude")])


def test_an_unknown_grid_names_the_choices() -> None:
    with pytest.raises(ValueError, match="there is no grid 'smoek'; choose one of "):
        grid.read("smoek")


@pytest.mark.parametrize("file", sorted(paths.grids().glob("*.yaml")), ids=lambda p: p.stem)
def test_every_grid_in_notebooks_grids_is_valid(file: Path) -> None:
    study = grid.read(file.stem)
    assert study.name == file.stem
    assert len({(r.id, r.test_id, r.probe_id) for r in study.runs}) == len(study.runs)
