"""A Run is validated where it is made, and its id does not move."""

import dataclasses
from dataclasses import dataclass

import pytest

from peftlab.run import CONTROLS, Run, axis


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "lorra"}, "method is 'lorra'; choose one of none, connector, full, lora, ia3, adapter, prefix"),
        ({"model": "llava"}, "model is 'llava'; choose one of pocket-mlp, pocket-resampler, pocket-merger, tiny-mlp"),
        ({"dataset": "vqa"}, "dataset is 'vqa'; choose one of scenes, facts, titles, icons_choice"),
        ({"test_dataset": "vqa"}, "dataset is 'vqa'; choose one of"),
        ({"dataset": "pope"}, "dataset pope only tests: name it as test_dataset, or as a probe"),
        ({"connector": "on"}, "connector is 'on'; choose one of frozen, tuned"),
        ({"method": "none", "connector": "tuned"}, "none has only connector frozen"),
        ({"method": "connector"}, "connector has only connector tuned"),
        ({"method": "full", "quantisation": "nf4"}, "full on a base with quantisation nf4: full allows only none"),
        ({"method": "prefix", "model": "gemma3-4b"}, "method prefix on model gemma3-4b: when it answers, peft drops the marks of a picture's tokens"),
        ({"precision": "fp16"}, "precision is 'fp16'; choose one of bf16, fp32"),
        ({"method": "loftq"}, "it quantises a base that is still in full precision"),
        ({"method": "pissa", "quantisation": "nf4"}, "It moves the base's leading directions into the update"),
        ({"quantisation": "int4"}, "quantisation is 'int4'; choose one of none, nf4, nf4_single, int8"),
        ({"method": "spider", "quantisation": "nf4"}, "It compares gradients with the weights at the start"),
        ({"checkpointing": 1}, "checkpointing is 1; True or False"),
        ({"method": "prefix", "checkpointing": True}, "checkpointing with prefix: transformers drops the cache"),
        ({"train_pictures": "blank"}, "train_pictures is 'blank'; choose one of true, shuffled"),
        ({"probe": "chair"}, "probe is 'chair'; choose one of presence, pope"),
        ({"steps": 0}, "steps is 0; a whole number of at least 1"),
        ({"steps": True}, "steps is True; a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; a whole number of at least 1"),
        ({"keep_every": 0}, "keep_every is 0; a whole number of at least 1, or None"),
        ({"keep_every": 60}, "keep_every is 60, which keeps nothing of 60 steps"),
        ({"method": "connector", "connector": "tuned", "lr": 0.5}, "connector trains the connector alone: its rate is connector_lr"),
        ({"method": "dare_90", "keep_every": 5}, "what dare_90 stores is made at the end of its training"),
        ({"probe_step": 30}, "probe_step is 30; the last step, 60, or one before it that keep_every (None) keeps"),
        ({"probe_step": 25, "keep_every": 20}, "probe_step is 25; the last step, 60, or one before it that keep_every (20) keeps"),
        ({"method": "none", "probe_step": 60}, "of a method that trains, or None"),
        ({"seed": -1}, "seed is -1; a whole number from 0"),
        ({"test_size": 0}, "test_size is 0; a whole number of at least 1, or None"),
        ({"method": "ia3", "size": 4}, "size is 4, but ia3 has no size"),
        ({"lr": 0}, "lr is 0; card, paper, or a number above 0"),
        ({"lr": float("nan")}, "lr is nan; card, paper, or a number above 0"),
        ({"replay": 0.05, "model": "tiny-mlp"}, "replay is 0.05, but no data set is known to have been seen by tiny-mlp"),
        ({"replay": 0.001, "train_size": 100}, "replay is 0.001, which of 100 training examples is not one: a share of at least 0.01, more of them (train_size), or None"),
        ({"replay": 0.0002}, "replay is 0.0002, which of 2000 training examples is not one"),
        ({"connector_lr": "fast"}, "connector_lr is 'fast'; card, paper, or a number above 0"),
    ],
)
def test_a_wrong_level_is_a_sentence_with_the_choices(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        Run(**changes)
    assert sentence in str(error.value)


def test_the_ids_are_pinned() -> None:
    """If this fails, every finished run of every user is lost: give the new axis a default that is what happened before."""
    assert Run().id == "pocket-mlp-icons_choice-lora-frozen-s42-44136fa3"
    assert Run(method="ia3", connector="tuned", steps=250).id == "pocket-mlp-icons_choice-ia3-tuned-s42-3deb6197"


def test_a_new_axis_at_its_default_leaves_the_id_alone() -> None:
    @dataclass(frozen=True)
    class Wider(Run):
        merged: bool = axis(False, "a later axis")

    assert Wider().id == Run().id
    assert Wider(method="ia3").id == Run(method="ia3").id
    assert Wider(merged=True).id != Run().id


def test_questions_asked_do_not_change_the_model_but_training_does() -> None:
    assert len({Run(test_size=n, test_pictures=p, probe_size=m).id for n, p, m in ((None, "true", None), (7, "blank", 9))}) == 1
    values = {"steps": 61, "batch_size": 8, "train_size": 9, "seed": 1, "lr": 0.1, "size": 3, "precision": "fp32", "train_pictures": "shuffled"}
    assert len({Run(**{k: v}).id for k, v in values.items()} | {Run().id}) == len(values) + 1


def test_test_and_probe_folders_are_named_by_what_is_asked() -> None:
    assert Run().test_id == "icons_choice-n200"
    assert Run(test_dataset="scenes", test_pictures="blank", test_size=None).test_id == "scenes-blank"
    assert (Run().probe_id, Run(probe_size=None).probe_id) == ("presence-n180", "presence")
    early, last = Run(keep_every=20, probe_step=40), Run(keep_every=20, probe_step=60)
    assert (early.probe_id, last.probe_id) == ("presence-n180-at40", "presence-n180-at60") and early.test_id == Run().test_id
    assert early.id == last.id == Run(keep_every=20).id != Run().id and early.kept == (20, 40)
    assert (early.probed, last.probed, Run().probed) == ("adapter-40.safetensors", "adapter.safetensors", "adapter.safetensors")


def test_a_cell_becomes_a_run_and_a_misspelt_axis_stops_it() -> None:
    cell = {"method": "ia3", "connector": "frozen", "lr": "paper", "again": False, "_private": 1, "In": 3, "Run": Run, "PAPERMILL_INPUT_PATH": "x"}
    assert Run.from_cell(cell) == Run(method="ia3", lr="paper")
    with pytest.raises(ValueError, match="'conector' is not an axis; the axes are model, dataset, method, connector"):
        Run.from_cell({**cell, "conector": "tuned"})
    assert CONTROLS == ("again",)


def test_resolved_puts_the_cards_numbers_in_place() -> None:
    run = Run(method="lora", connector="tuned", lr="paper")
    resolved = run.resolved()
    assert (resolved["size"], resolved["lr"], resolved["connector_lr"], resolved["test_dataset"]) == (16, 2e-4, 1e-3, "icons_choice")
    assert Run(method="none").resolved()["steps"] == 0
    assert Run().resolved()["connector_lr"] is None
    assert set(resolved) == {f.name for f in dataclasses.fields(Run)}


def test_a_run_is_frozen_and_flat() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Run().method = "ia3"
    assert all(v is None or isinstance(v, (str, int, float, bool)) for v in Run().axes().values())
    assert all(f.metadata["says"] and f.metadata["stage"] in ("finetune", "evaluate", "probe") for f in dataclasses.fields(Run))
