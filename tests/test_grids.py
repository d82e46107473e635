"""The studies in notebooks/grids: each is as large as it says, and holds what it is for."""

from pathlib import Path

import pytest

from peftlab import datasets, grid, methods, models, paths, tasks
from peftlab.run import Run

FILES = sorted(paths.grids().glob("*.yaml"))
PAIRS = {(m.name, connector) for m in methods.METHODS.values() if m.group == "core" for connector in m.connectors}


def tuned(study: grid.Study) -> list[Run]:
    """The runs that tune a model, each once."""
    return list({run.id: run for run in study.runs if run.method != "none"}.values())


def test_there_are_grids() -> None:
    assert {"smoke", "main"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_grid_is_as_large_as_it_says_and_named_like_its_file(file: Path) -> None:
    study = grid.read(file)
    assert study.name == file.stem
    assert len(set(study.runs)) == len(study.runs) > 0
    assert len({task.folder for task in tasks.plan(study)}) == len(tasks.plan(study))


def test_the_smoke_grid_has_every_method_connector_and_notebook() -> None:
    study = grid.read("smoke")
    assert study.stages == grid.STAGES
    assert {(r.method, r.connector) for r in study.runs if r.dataset == "icons_choice"} == PAIRS
    assert len(tuned(study)) >= 12
    assert all(run.steps >= 60 and run.test_size >= 200 for run in study.runs)
    seen = models.card("pocket-mlp").seen
    assert {run.dataset in seen for run in tuned(study)} == {True, False}


def test_the_main_grid_compares_like_with_like() -> None:
    study = grid.read("main")
    assert all((run.steps, run.batch_size, run.seed, run.test_size, run.probe_size) == (250, 16, 42, None, 900) for run in study.runs)
    on_unseen = [run for run in study.runs if run.dataset == "icons_choice" and run.train_pictures == run.test_pictures == "true"]
    assert sorted((run.method, run.connector) for run in on_unseen) == sorted(PAIRS)
    shuffled = {(run.method, run.connector) for run in study.runs if run.train_pictures == "shuffled"}
    assert shuffled == {("lora", "frozen"), ("adapter", "frozen")}
    base = {(run.dataset, run.test_pictures) for run in study.runs if run.method == "none"}
    assert len(base) == 12


def test_the_methods_grid_has_every_method_once_and_every_quantisation() -> None:
    runs = [run for run in grid.read("methods").runs if run.quantisation == "none"]
    assert sorted(run.method for run in runs) == sorted(methods.METHODS)
    packed = {(run.method, run.quantisation) for run in grid.read("methods").runs} - {(run.method, "none") for run in runs}
    assert packed == {(method, level) for method in ("none", "lora") for level in methods.QUANTISED}


def test_places_are_compared_at_the_same_budget_and_models_by_the_same_methods() -> None:
    places, bases = tuned(grid.read("places")), tuned(grid.read("models"))
    assert {(run.method, run.location) for run in places} == {(method, place) for method in ("lora", "adapter", "ia3") for place in ("attn", "mlp", "both")}
    assert all(run.budget == (1.0 if methods.card(run.method).size_name else None) for run in places)
    pocket = {name for name, card in models.MODELS.items() if card.family == "pocket" and not name.startswith("tiny")}
    assert {run.model for run in bases} == pocket and len(bases) == 3 * 4 * 2 * 3
    assert all({run.seed for run in of} == {42, 43, 44} and {(run.steps, run.batch_size, run.test_size) for run in of} == {(188, 32, 500)} for of in (places, bases))


def test_the_forgetting_grid_asks_the_models_of_main_about_what_the_base_has_seen() -> None:
    main, study = grid.read("main"), grid.read("forgetting")
    whole = {run.id for run in main.runs if run.dataset == "icons_choice" and run.train_pictures == "true"}
    assert {run.id for run in study.runs} == whole, "nothing is tuned again"
    asked = {run.id: sorted(r.tested_on for r in study.runs if r.id == run.id) for run in study.runs}
    assert all(sets == sorted(["icons_choice", *models.card("pocket-mlp").seen]) for sets in asked.values())
    folders = {task.folder for task in tasks.plan(main)}
    assert all(task.folder in folders for task in tasks.plan(study) if task.stage == "finetune" or task.run.tested_on == "icons_choice")


def test_the_spider_grid_is_of_the_settings_that_are_known_and_is_planned_without_data() -> None:
    study = grid.read("spider")
    runs, asked = tuned(study), {(run.method, run.dataset, run.tested_on, run.test_size) for run in study.runs}
    assert study.sources == ("okvqa", "textvqa", "ocrvqa", "gqa") and {run.dataset for run in runs} == {"flickr30k", "coco_captions"}
    settings = {(r.model, r.connector, r.layers, r.batch_size, r.train_size, r.steps, r.resolved()["lr"], r.resolved()["connector_lr"]) for r in runs}
    assert settings == {("llava-1.5-7b", "tuned", 2, 16, 10000, 5 * 10000 // 16, 2e-4, 2e-5)}
    for method, target in {(run.method, run.dataset) for run in runs}:
        assert {(name, 2000 if name == "ocrvqa" else None) for name in (target, *study.sources)} == {(name, size) for m, d, name, size in asked if (m, d) == (method, target)}
    base = {(name, size) for method, _, name, size in asked if method == "none"}
    assert {(name, size) for method, _, name, size in asked if method != "none"} == base, "each is asked of the base, and once"
    assert [task.stage for task in tasks.plan(study)].count("finetune") == 10


def test_the_hallucination_grid_asks_more_of_the_models_of_main() -> None:
    main, study = grid.read("main"), grid.read("hallucination")
    assert {run.id for run in study.runs} <= {run.id for run in main.runs}, "nothing is tuned again"
    arms = {(run.method, run.connector) for run in study.runs}
    assert arms == PAIRS
    for arm in arms:
        mine = [run for run in study.runs if (run.method, run.connector) == arm]
        assert {run.test_pictures for run in mine} == {"true", "blank", "shuffled"} and {run.probe for run in mine} == {"presence", "scene_captions"}
        assert {run.probe_size for run in mine if run.probe == "scene_captions"} == {300}


def test_the_protocol_grid_probes_one_training_of_each_method_after_three_six_nine_and_twelve_epochs() -> None:
    study = grid.read("protocol")
    epoch = study.runs[0].train_size // study.runs[0].batch_size
    planned = tasks.plan(study)
    for method in ("lora", "ia3", "adapter", "prefix"):
        mine = [task for task in planned if task.run.method == method]
        assert [task.stage for task in mine].count("finetune") == 1 and [task.stage for task in mine].count("evaluate") == 1
        captions = [task.run.probe_step for task in mine if task.stage == "probe" and task.run.probe == "clean_captions"]
        assert captions == [n * epoch for n in (3, 6, 9, 12)] and max(captions) == mine[0].run.steps


def test_the_base_grid_asks_every_pocket_base_about_every_set_with_and_without_the_picture() -> None:
    study = grid.read("base")
    assert study.stages == ("evaluate",) and {run.method for run in study.runs} == {"none"}
    asked = {(run.model, run.dataset, run.test_pictures) for run in study.runs}
    pocket = {name for name, card in models.MODELS.items() if card.family == "pocket" and not name.startswith("tiny")}
    assert len(asked) == 3 * 8 * 3 == len(study.runs) and {model for model, _, _ in asked} == pocket
