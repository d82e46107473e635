"""Examples and stages survive a round trip; what was edited, is stale or missing is named and nothing is written over it."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from peftlab import collected, datasets, metrics, paths, records
from peftlab.metrics import captions
from peftlab.records import Example
from peftlab.run import Run

RUN = Run(model="tiny-mlp", steps=3, test_size=None)


def example(number: int, **changes: object) -> Example:
    """A question on a small picture of its own."""
    values = {
        "example_id": f"e{number}", "picture_id": f"p{number}", "image": Image.new("RGB", (8, 6), (number, 2 * number, 3)), "question": "Which?",
        "answers": ("cat", "a cat"), "template": "choice", "phrasing": number % 3, "asset": f"a{number % 2}", "choices": ("cat", "dog"), "objects": ("cat",),
    }  # fmt: skip
    return Example(**{**values, **changes})


@pytest.fixture
def prepared(work: Path) -> dict[str, str]:
    """Two splits of four examples in the place of the default data set."""
    return records.write_examples("icons_choice", {"train": [example(i) for i in range(4)], "test": [example(10 + i) for i in range(4)]})


def tuned(run: Run = RUN, *, loss: float = 0.5, adapter: bytes = b"12345") -> Path:
    """A finished fine-tuning stage with made-up content."""
    stage = records.open_stage(run, "finetune", inputs=records.inputs(run, "finetune"))
    (stage.folder / "adapter.safetensors").write_bytes(adapter)
    pd.DataFrame({"step": [0, 1, 2], "loss": [3.0, 2.0, loss]}).to_parquet(stage.folder / "steps.parquet")
    return stage.finish(stamp={"seconds": 2.5, "trainable": {"llm": 7}, "packages": {"torch": "x"}, "dirty": False, "device": "cpu"})


def evaluated(run: Run = RUN, *, responses: tuple[str, ...] = ("cat", "Dog.", "bird", "")) -> Path:
    """A finished evaluation stage of four answers."""
    stage = records.open_stage(run, "evaluate", inputs=records.inputs(run, "evaluate"))
    examples = records.read_examples(run.tested_on, "test")
    records.predictions(examples, responses).to_parquet(stage.folder / "predictions.parquet")
    return stage.finish(stamp={"device": "cpu"})


def collect(runs: list[Run], **changes: object) -> Path:
    """Collect with the real metrics."""
    return collected.collect("study", runs, **{"scorer": metrics, **changes})


def test_a_checkpoint_is_of_what_the_stage_is_made_from_and_goes_with_it(prepared: dict[str, str]) -> None:
    def begun(**changes: str) -> records.Stage:
        return records.open_stage(RUN, "finetune", inputs=records.inputs(RUN, "finetune") | changes)

    stage, other = begun(), begun(base="another")
    assert stage.checkpoint == begun().checkpoint != other.checkpoint
    assert stage.checkpoint.parent == stage.final.parent
    left = [stage.checkpoint, other.checkpoint, stage.checkpoint.with_name(f"{stage.checkpoint.name}.4711")]  # the last by a kill while it was written
    for file in left:
        file.write_bytes(b"x")
    tuned()
    assert not any(file.exists() for file in left)


# ---------------------------------------------------------------- examples


def test_examples_come_back_as_they_were(prepared: dict[str, str], cache: Path) -> None:
    back = records.read_examples("icons_choice", "train")
    assert [e.example_id for e in back] == ["e0", "e1", "e2", "e3"]
    for number, e in enumerate(back):
        assert e.image.tobytes() == example(number).image.tobytes()
        assert replace(e, image=None) == replace(example(number), image=None)


def test_the_digest_is_of_the_content(prepared: dict[str, str]) -> None:
    again = records.write_examples("icons_choice", {"train": [example(i) for i in range(4)], "test": [example(10 + i) for i in range(4)]})
    other = records.write_examples("icons_choice", {"train": [example(0, image=Image.new("RGB", (8, 6), (0, 0, 4)))]})
    assert again == prepared
    assert other["train"] != prepared["train"]


def test_a_size_takes_the_first_of_a_seeded_order(prepared: dict[str, str], cache: Path) -> None:
    two, three = (records.read_examples("icons_choice", "train", size=n, seed=5) for n in (2, 3))
    assert [e.example_id for e in two] == [e.example_id for e in three][:2]
    with pytest.raises(ValueError, match="5 examples asked of icons_choice/train, which has 4"):
        records.read_examples("icons_choice", "train", size=5)


def test_what_is_replayed_is_as_many_as_the_share_says_or_refused(work: Path, cache: Path, prepare_tiny: Callable[..., None]) -> None:
    prepare_tiny("icons_choice", "scenes", "facts", "titles")
    run = Run(train_size=48, replay=0.1)
    train = records.read_examples(run.dataset, "train", size=run.train_size, seed=run.seed)
    assert len(records.read_replay(run, train)) == 5 and len(records.read_replay(replace(run, replay=1), train)) == 48
    assert len(records.read_replay(replace(run, train_size=1, replay=0.6), train[:1])) == 1, "more than half of one is one"
    assert records.read_replay(replace(run, replay=None), train) == []
    assert Run(method="none", replay=0.0001).replay, "what is not tuned replays nothing"
    with pytest.raises(ValueError, match="replay is 0.01, which of 48 training examples is not one: a share of at least 0.021"):  # of a set whose card leaves its size open
        records.read_replay(replace(run, train_size=None, replay=0.01), train)


def test_two_examples_with_one_id_are_refused(work: Path) -> None:
    with pytest.raises(ValueError, match="icons_choice/train: example_id 'e1' occurs twice"):
        records.write_examples("icons_choice", {"train": [example(1), example(1)]})
    assert not (paths.prepared() / "icons_choice").exists()


def test_unprepared_data_and_unknown_splits_say_what_to_do(work: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="icons_choice is not prepared: run notebooks/01_prepare_data.ipynb"):
        records.read_examples("icons_choice", "train")
    records.write_examples("icons_choice", {"train": [example(1)]})
    with pytest.raises(ValueError, match="split is 'tset'; icons_choice has train"):
        records.read_examples("icons_choice", "tset")


def test_a_picture_that_does_not_decode_names_its_row(prepared: dict[str, str], cache: Path) -> None:
    import datasets as hub

    file = paths.prepared() / "icons_choice" / "train.parquet"
    table = hub.Dataset.from_parquet(str(file), cache_dir=str(cache)).cast_column("image", hub.Image(decode=False))
    rows = [dict(row) for row in table]
    rows[2]["image"] = {"bytes": rows[2]["image"]["bytes"][:40], "path": None}
    hub.Dataset.from_list(rows, features=table.features).to_parquet(str(file))
    with pytest.raises(ValueError, match=r"icons_choice/train row 2 \(e2\): the picture does not decode"):
        records.read_examples("icons_choice", "train")


def written(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of a file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_sixteen_bits_become_their_upper_eight() -> None:
    grey = np.linspace(2000, 60000, 64).reshape(8, 8).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = np.asarray(records.decoded(written(Image.fromarray(grey), kind)))
        assert (found == (grey >> 8)[..., None]).all(), kind


def test_what_is_transparent_lies_on_white() -> None:
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[3, :, 3] = 255  # a black line; all else is transparent black
    line = np.full((8, 8, 3), 255, dtype=np.uint8)
    line[3] = 0
    picture = Image.fromarray(rgba)
    for one in (picture, picture.convert("LA"), picture.quantize(4)):
        assert (np.asarray(records.decoded(written(one))) == line).all(), one.mode


@pytest.mark.parametrize(("mode", "kind"), [("I", "whole"), ("F", "fractional")])
def test_numbers_that_are_no_brightness_are_refused(mode: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"its pixels are {kind} numbers of 32 bits: save it with 8 or 16 bits a channel"):
        records.decoded(written(Image.new(mode, (4, 4)), "TIFF"))


# ---------------------------------------------------------------- stages


def test_a_stage_exists_only_when_it_is_finished(prepared: dict[str, str]) -> None:
    inputs = records.inputs(RUN, "finetune")
    stage = records.open_stage(RUN, "finetune", inputs=inputs)
    (stage.folder / "adapter.safetensors").write_bytes(b"")
    assert records.state(RUN, "finetune", inputs) == "missing"
    folder = stage.finish(note="kept")
    assert folder == records.stage_folder(RUN, "finetune")
    assert records.state(RUN, "finetune", inputs) == "finished"
    assert json.loads((folder / "run.json").read_text())["note"] == "kept"
    assert [p.name for p in folder.parent.iterdir()] == ["finetune"]


def test_a_finished_stage_is_not_made_again_unless_asked(prepared: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, inputs = tuned(), records.inputs(RUN, "finetune")
    before = (folder / "run.json").read_bytes()
    with pytest.raises(SystemExit) as end:
        records.open_stage(RUN, "finetune", inputs=inputs)
    assert end.value.code == 0
    assert "is finished" in capsys.readouterr().out
    assert (folder / "run.json").read_bytes() == before
    stage = records.open_stage(RUN, "finetune", inputs=inputs, again=True)
    stage.finish()
    assert [p.name for p in folder.iterdir()] == ["run.json"]


@pytest.mark.parametrize("file", ["adapter.safetensors", "steps.parquet", "run.json"])
def test_an_edited_file_is_named(prepared: dict[str, str], file: str) -> None:
    folder, inputs = tuned(), records.inputs(RUN, "finetune")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content.replace(b"2.5", b"1.5") if file == "run.json" else content + b"!")
    with pytest.raises(ValueError, match=f"{file} was edited since the run wrote it; delete .* to make it again"):
        records.state(RUN, "finetune", inputs)


def test_a_removed_an_added_and_a_broken_file_are_named(prepared: dict[str, str]) -> None:
    folder, inputs = tuned(), records.inputs(RUN, "finetune")
    (folder / "extra.txt").write_text("")
    with pytest.raises(ValueError, match="extra.txt was added since"):
        records.state(RUN, "finetune", inputs)
    (folder / "extra.txt").unlink()
    (folder / "steps.parquet").unlink()
    with pytest.raises(ValueError, match="steps.parquet was removed since"):
        records.state(RUN, "finetune", inputs)
    (folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json was edited and is no longer a run's record"):
        records.state(RUN, "finetune", inputs)


def test_other_data_base_protocol_or_card_make_a_stage_stale(prepared: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    tuned()
    inputs = records.inputs(RUN, "finetune")
    assert records.state(RUN, "finetune", {**inputs, "data": "other"}) == "stale"
    assert records.state(RUN, "finetune", {**inputs, "base": "other"}) == "stale"
    with monkeypatch.context() as patch:
        patch.setattr(records, "PROTOCOL", {**records.PROTOCOL, "finetune": 9})
        assert records.state(RUN, "finetune", inputs) == "stale"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "resolved", lambda run: {**run.axes(), "lr": 0.5})
        assert records.state(RUN, "finetune", inputs) == "stale"
    assert records.state(RUN, "finetune", inputs) == "finished"


def test_an_axis_that_was_not_there_yet_had_its_default(prepared: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = Run.resolved
    with monkeypatch.context() as patch:
        patch.setattr(Run, "resolved", lambda run: {k: v for k, v in resolved(run).items() if k != "checkpointing"})
        folder = tuned()
    inputs = records.inputs(RUN, "finetune")
    assert "checkpointing" not in json.loads((folder / "run.json").read_text())["resolved"]
    assert records.state(RUN, "finetune", inputs) == "finished"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "resolved", lambda run: {**resolved(run), "checkpointing": True})
        assert records.state(RUN, "finetune", inputs) == "stale"


def test_an_evaluation_is_stale_once_its_model_is_another(prepared: dict[str, str], cache: Path) -> None:
    folder = tuned()
    evaluated()
    assert records.state(RUN, "evaluate", records.inputs(RUN, "evaluate")) == "finished"
    for adapter, state in ((b"12345", "finished"), (b"12346", "stale")):
        shutil.rmtree(folder)
        tuned(loss=0.25, adapter=adapter)
        assert records.state(RUN, "evaluate", records.inputs(RUN, "evaluate")) == state


# ---------------------------------------------------------------- collect


def test_collect_writes_tidy_tables(prepared: dict[str, str], cache: Path) -> None:
    base, tuned_connector = replace(RUN, method="none"), replace(RUN, connector="tuned")
    for run in (RUN, tuned_connector):
        tuned(run)
    for run in (base, RUN, tuned_connector):
        evaluated(run)
    folder = collect([base, RUN, tuned_connector])
    answers, scores, costs = pd.read_parquet(folder / "predictions.parquet"), pd.read_csv(folder / "scores.csv"), pd.read_csv(folder / "costs.csv")
    assert folder == paths.results() / "study"
    assert len(answers) == 12 and len(scores) == 6 and len(costs) == 2  # exact and equal of each run
    assert set(RUN.axes()) <= set(answers) & set(scores) & set(costs)
    assert answers["outcome"].tolist()[:4] == ["right", "wrong", "unparsed", "unparsed"]
    assert scores.loc[0, ["run", "stage", "metric", "tested_on", "value", "n", "unparsed"]].tolist() == [base.id, "evaluate", "exact", "icons_choice", 25.0, 4, 2]
    assert costs.loc[0, "lr"] == RUN.resolved()["lr"]
    assert costs.loc[0, ["seconds", "trainable_llm", "adapter_bytes", "device"]].tolist() == [2.5, 7, 5, "cpu"]
    assert costs.loc[0, "final_loss"] == pytest.approx((3 + 2 + 0.5) / 3)


def test_collect_twice_gives_the_same_bytes_and_takes_a_shared_model_once(prepared: dict[str, str], cache: Path) -> None:
    tuned()
    evaluated()
    blank = replace(RUN, test_pictures="blank")
    evaluated(blank)
    assert blank.id == RUN.id
    first = {p.name: p.read_bytes() for p in collect([RUN, blank]).iterdir()}
    second = {p.name: p.read_bytes() for p in collect([RUN, blank]).iterdir()}
    assert first == second and set(first) == {"predictions.parquet", "scores.csv", "costs.csv", "provenance.json"}
    assert len(pd.read_csv(paths.results() / "study" / "costs.csv")) == 1


FORKS = pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only"), id="forked")


@pytest.mark.parametrize("forked", [pytest.param(False, id="threads"), FORKS])
@pytest.mark.parametrize("together", [1, 2, 500])
def test_stages_collected_together_are_judged_as_each_alone(prepared: dict[str, str], cache: Path, together: int, forked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collected, "TOGETHER", together)
    monkeypatch.setattr(collected, "FORKED", 1 if forked else 10**9)
    said = [("cat", "dog", "cat", ""), ("dog", "dog", "bird", "cat"), ("cat", "dog", "cat", ""), ("Dog.", "cat", "cat", "cat"), ("cat", "cat", "dog", "dog")]
    examples, runs, given = records.read_examples("icons_choice", "test"), [replace(RUN, method="none", seed=seed) for seed in range(5)], []
    for number, (run, responses) in enumerate(zip(runs, said, strict=True)):
        likelihoods = [[-float(number == i), -0.5] if i else None for i in range(4)] if number in (1, 3) else []
        rows = records.predictions(examples, responses, options=[e.choices for e in examples] if likelihoods else (), likelihoods=likelihoods)
        if number == 2:
            rows["objects"] = None
        if number == 4:
            rows = rows.iloc[::-1].reset_index(drop=True)
        stage = records.open_stage(run, "evaluate", inputs=records.inputs(run, "evaluate"))
        rows.to_parquet(stage.folder / "predictions.parquet")
        stage.finish(stamp={"device": "cpu"})
        given.append(rows)
    folder = collect(runs, stages=("evaluate",))
    answers, scores = pd.read_parquet(folder / "predictions.parquet"), pd.read_csv(folder / "scores.csv")
    name = datasets.card("icons_choice").metric
    for run, rows in zip(runs, given, strict=True):
        judged, mine = metrics.judge(rows, name), answers[answers["run"] == run.id]
        for column in (*rows, "parsed", "outcome", "value", "metric"):
            found, wanted = ([None if v is None or v is np.nan else list(v) if isinstance(v, list | np.ndarray) else v for v in frame[column].tolist()] for frame in (mine, judged))
            assert found == wanted, (run.id, column)
        expected = [{"metric": metric, **metrics.score(judged, metric)} for metric in metrics.shown(name, rows)]
        assert scores.loc[scores["run"] == run.id, list(expected[0])].to_dict("records") == expected
    assert scores["metric"].value_counts()["likeliest"] == 2


def test_questions_are_decoded_once_and_taken_for_no_others(tmp_path: Path) -> None:
    """Files with the same questions share them whatever was said; one letter more, another order, another column make others."""
    rows = pd.DataFrame({"example_id": ["a", "b"], "question": ["Which?", "Who?"], "choices": [["x", "y"], []], "answers": [["x"], ["z"]], "response": ["x", "y"]})
    kinds = {
        "one": rows, "same": rows.assign(response=["else", None]), "weighed": rows.assign(likelihoods=[[-0.1, -0.2], None]),
        "letter": rows.assign(question=["Which?", "Who!"]), "order": rows.iloc[::-1].reset_index(drop=True), "list": rows.assign(choices=[["x"], ["y"]]), "more": rows.assign(template="t"),
    }  # fmt: skip
    known: dict[object, collected._Questions] = {}
    found = {}
    for name, frame in kinds.items():
        frame.to_parquet(tmp_path / name)
        asked, said = found[name] = collected._read(tmp_path / name, known)
        assert asked.rows.to_pydict() | said.to_pydict() == pq.read_table(tmp_path / name).to_pydict()
        assert set(said.column_names) == set(frame) & {"response", "likelihoods"}
    assert found["one"][0] is found["same"][0] is found["weighed"][0] and len(known) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_forked_processes_collect_the_same_bytes_and_leave_nothing(prepared: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned()
    evaluated()
    evaluated(replace(RUN, test_pictures="blank"))
    runs = [RUN, replace(RUN, test_pictures="blank")]
    first = {p.name: p.read_bytes() for p in collect(runs).iterdir()}
    monkeypatch.setattr(collected, "FORKED", 1)
    monkeypatch.setattr(collected, "TOGETHER", 1)
    assert {p.name: p.read_bytes() for p in collect(runs).iterdir()} == first and len(first) == 4
    assert not multiprocessing.active_children()
    shutil.rmtree(records.stage_folder(RUN, "evaluate"))
    with pytest.raises(ValueError, match="the study is not complete: 1 of 3 stages are missing"):
        collect(runs)
    assert {p.name: p.read_bytes() for p in (paths.results() / "study").iterdir()} == first and [p.name for p in paths.results().iterdir()] == ["study"]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_a_collecting_process_that_is_killed_costs_no_table(prepared: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned()
    evaluated()
    first = {p.name: p.read_bytes() for p in collect([RUN]).iterdir()}
    parent = os.getpid()
    monkeypatch.setattr(collected, "FORKED", 1)
    monkeypatch.setattr(collected, "_assessed", lambda *_: os.kill(os.getpid(), signal.SIGKILL) if os.getpid() != parent else None)
    with pytest.raises(ChildProcessError, match="was ended from outside, most likely by the system for lack of memory: the tables of the study are as they were"):
        collect([RUN])
    assert {p.name: p.read_bytes() for p in (paths.results() / "study").iterdir()} == first and [p.name for p in paths.results().iterdir()] == ["study"]


class Odd(Exception):
    """An error that cannot be brought from one process to another."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
@pytest.mark.parametrize(("error", "kind", "said"), [(Odd("this", "that"), RuntimeError, "Odd: this and that"), (ValueError("row 3 is odd"), ValueError, "row 3 is odd"), (pa.ArrowInvalid("no file"), ValueError, "ArrowInvalid: no file")])
def test_what_goes_wrong_in_a_collecting_process_is_told(error: Exception, kind: type[Exception], said: str, prepared: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error

    tuned()
    evaluated()
    monkeypatch.setattr(collected, "FORKED", 1)
    monkeypatch.setattr(collected, "_assessed", fails)
    with pytest.raises(kind, match=said):
        collect([RUN])
    assert not (paths.results() / "study").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_collecting_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
from peftlab import collected
class Work(collected._Work):
    def checked(self, numbers):
        (Path({str(tmp_path)!r}) / str(os.getpid())).touch()
        time.sleep(600)
collected.FORKED, collected.TOGETHER = 1, 1
with collected._workers(Work(None, [None] * 4, {{}}), Path({str(tmp_path)!r})) as ahead:
    list(ahead("checked", range(4)))
"""
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.1)
        begun = [int(file.name) for file in tmp_path.iterdir()]
        assert begun and process.pid not in begun
        process.kill()
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in begun) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in begun if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_what_the_questions_alone_give_away_is_collected(prepared: dict[str, str], cache: Path) -> None:
    taught = []

    def guess(pool: Sequence[records.Words], asked: Sequence[records.Words]) -> list[str]:
        taught.append(([one.example_id for one in pool], [one.example_id for one in asked]))
        return [one.answers[0] for one in pool[: len(asked)]]

    base = replace(RUN, method="none")
    records.write_examples("icons_choice", {split: [example(i + 4 * part, answers=(f"say {i}",)) for i in range(4)] for part, split in enumerate(("base", "train", "test"))})
    evaluated(base)
    tuned()
    evaluated()
    results = collected.read_results(collect([base, RUN], blind={"majority": guess}).name)
    assert taught == [([f"e{i}" for i in range(8)], [f"e{i}" for i in range(8, 12)])], "once, on what is not the test"
    said = {"tested_on": ["icons_choice"] * 4, "example_id": [f"e{i}" for i in range(8, 12)], "response": [f"say {i}" for i in range(4)]}
    assert results.guesses.to_dict("list") == {"baseline": ["majority"] * 4, **said}
    both = collected.read_results(collect([RUN], blind={"majority": guess, "question_only": guess}).name).guesses
    assert both.query("baseline == 'question_only'").drop(columns="baseline").to_dict("list") == said and len(both) == 8
    assert collected.read_results(collect([base]).name).guesses.empty


def test_a_question_asked_twice_in_a_stage_is_not_collected(prepared: dict[str, str], cache: Path) -> None:
    run = replace(RUN, method="none")
    stage = records.open_stage(run, "evaluate", inputs=records.inputs(run, "evaluate"))
    records.predictions([example(1), example(1)], ["cat", "dog"]).to_parquet(stage.folder / "predictions.parquet")
    stage.finish()
    with pytest.raises(ValueError, match="example_id 'e1' occurs twice in a stage of 2 answers"):
        collect([run], stages=("evaluate",))
    assert not (paths.results() / "study").exists()


def test_collect_names_at_most_five_missing_stages_and_leaves_the_old_tables(prepared: dict[str, str], cache: Path) -> None:
    tuned()
    evaluated()
    old = {p.name: p.read_bytes() for p in collect([RUN]).iterdir()}
    runs = [RUN] + [replace(RUN, seed=s) for s in range(4)]
    with pytest.raises(ValueError, match="not complete: 8 of 10 stages are missing: .*/finetune, .* and 3 more$") as error:
        collect(runs)
    assert str(error.value).count("tiny-mlp-") == 5
    assert {p.name: p.read_bytes() for p in (paths.results() / "study").iterdir()} == old


def out_of_memory(run: Run, stage: str, **facts: object) -> Path:
    """A stage that ran out of memory, as an executor records it."""
    folder = records.stage_folder(run, stage)
    folder.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": "A CPU", "memory_bytes": 24e9, "free_bytes": 20e9, "device": "cpu", "device_memory_bytes": None}
    recorded = {"stage": stage, "run": run.id, "what": "it ran out", "when": "now", "out_of_memory": True, "of_gpu": False, **machine, "beside": 0, "made_from": records.made_from(run, stage)}
    records.failure_file(folder).write_text(json.dumps({**recorded, **facts}))
    return folder


def test_a_study_is_collected_without_what_does_not_fit_and_says_so(prepared: dict[str, str], cache: Path) -> None:
    base, large, silent = replace(RUN, method="none"), replace(RUN, method="full"), replace(RUN, connector="tuned")
    for run in (RUN, silent):
        tuned(run)
    for run in (base, RUN):
        evaluated(run)
    out_of_memory(large, "finetune")
    out_of_memory(silent, "evaluate")
    blank = replace(large, test_pictures="blank")
    results = collected.read_results(collect([base, RUN, large, blank, silent]).name)
    assert results.failures[["run", "stage", "method", "connector", "batch_size", "memory_bytes", "device", "what"]].values.tolist() == [
        [large.id, "finetune", "full", "frozen", RUN.batch_size, 24e9, "cpu", "it ran out"], [silent.id, "evaluate", "lora", "tuned", RUN.batch_size, 24e9, "cpu", "it ran out"],
    ]  # fmt: skip
    assert set(RUN.axes()) <= set(results.failures) and set(results.predictions["run"].unique()) == {base.id, RUN.id} and set(results.costs["run"]) == {RUN.id, silent.id}
    assert results.provenance["stages"] == 4
    collected.rescore("study", scorer=metrics)
    assert len(collected.read_results("study").failures) == 2
    only = collected.read_results(collect([base, RUN, large], stages=("evaluate",)).name)
    assert only.failures["stage"].tolist() == ["finetune"], "a study that only asks says why it has no model to ask"


@pytest.mark.parametrize("facts", [{"out_of_memory": False}, {"beside": 1}, {"made_from": None}, {"made_from": {"protocol": 0}}])
def test_another_failure_is_no_measurement(prepared: dict[str, str], cache: Path, facts: dict[str, object]) -> None:
    """An exception, one beside other runs, one that does not say what it was made from, one of another protocol."""
    tuned()
    folder = out_of_memory(RUN, "evaluate", **facts)
    with pytest.raises(ValueError, match=f"not complete: 1 of 2 stages are missing: .*{folder.name}"):
        collect([RUN])


def test_collect_refuses_stale_and_mixed_stages(prepared: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned()
    with monkeypatch.context() as patch:
        patch.setattr(records, "PROTOCOL", {**records.PROTOCOL, "finetune": 9})
        other = replace(RUN, seed=1)
        tuned(other)
    with pytest.raises(ValueError, match=rf"1 of 2 stages are stale: {other.id}/finetune \(protocol 9, now {records.PROTOCOL['finetune']}\)"):
        collect([RUN, other], stages=("finetune",))
    records.write_examples("icons_choice", {"train": [example(9)], "test": [example(10)]})
    with pytest.raises(ValueError, match="stale: .*digest of data"):
        collect([RUN], stages=("finetune",))
    assert not (paths.results() / "study").exists()


def test_collect_refuses_an_edited_folder_and_an_empty_study(prepared: dict[str, str], cache: Path) -> None:
    (tuned() / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="adapter.safetensors was edited"):
        collect([RUN], stages=("finetune",))
    with pytest.raises(ValueError, match="no runs to collect"):
        collect([])


def test_a_study_is_read_back_with_what_made_it(prepared: dict[str, str], cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'study' is not collected: run"):
        collected.read_results("study")
    tuned()
    evaluated()
    collect([RUN])
    results = collected.read_results("study")
    assert (len(results.predictions), len(results.scores), len(results.costs)) == (4, 2, 1)
    origins = results.provenance
    assert (origins["study"], origins["stages"], origins["seconds"], origins["packages"]) == ("study", 2, 2.5, {"torch": [None, "x"]})
    assert {(d["dataset"], d["stage"]): d["digest"] for d in origins["data"]}["icons_choice", "evaluate"] == prepared["test"]


def test_facts_come_back_and_keep_to_one_study(work: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no facts"):
        collected.read_facts("study")
    collected.write_facts("a", "study", {"rows": pd.DataFrame({"x": [1.5, None], "y": ["p", "q"]}), "n": np.int64(3)})
    assert collected.read_facts("study") == {"a": {"study": "study", "rows": [{"x": 1.5, "y": "p"}, {"x": None, "y": "q"}], "n": 3}}
    with pytest.raises(ValueError):
        collected.write_facts("a", "study", {"n": float("nan")})
    collected.write_facts("b", "other", {})
    with pytest.raises(ValueError, match="b holds facts of study 'other', not 'study'"):
        collected.read_facts("study")


def test_options_are_the_choices_or_the_answers_of_a_closed_kind(work: Path) -> None:
    kinds = {"closed": ("red", "blue"), "open": ("one", "two", "three"), "one": ("yes",)}
    asked = [example(100 * i + n, template=kind, answers=(said[n % len(said)], "also"), choices=()) for i, (kind, said) in enumerate(kinds.items()) for n in range(5)]
    many = [example(900 + n, template="many", answers=(f"w{n % 25}",), choices=()) for n in range(75)]
    records.write_examples("icons_choice", {"test": [*asked, *many, example(999, template="closed")]})
    given = records.options([*asked[:1], example(1, template="closed"), *asked[5:6], *asked[10:11], many[0], example(2, template="never met", choices=())], "icons_choice")
    assert given == [("blue", "cat", "red"), ("cat", "dog"), (), (), (), ()]


def test_what_is_weighed_of_letters_is_the_letters(work: Path) -> None:
    lettered = example(1, choices=("cat", "dog", "ox"), answers=("B", "dog"))
    named = example(2, choices=("A", "B"), answers=("B",))
    records.write_examples("science", {"test": [lettered, named]})
    assert records.options([lettered, named], "science") == [("A", "B", "C"), ("A", "B")]
    rows = records.predictions([lettered, named], ["B"] * 2, options=[("A", "B", "C"), ("A", "B")], likelihoods=[[-1.0, -2.0, -3.0], [-1.0, -2.0]])
    assert rows["options"].tolist() == [["A", "B", "C"], None]


def test_what_was_weighed_is_kept_with_its_likelihoods(work: Path) -> None:
    examples = [example(1), example(2, choices=()), example(3, choices=())]
    rows = records.predictions(examples, ["cat"] * 3, options=[("cat", "dog"), ("ox", "cat"), ()], likelihoods=[[-1.0, -2.0], [-3.0, -4.0], None])
    assert rows["options"].tolist() == [None, ["ox", "cat"], None] and rows["likelihoods"].tolist() == [[-1.0, -2.0], [-3.0, -4.0], None]
    rows = records.predictions(examples[:1], ["cat"], options=[("cat", "dog")], likelihoods=[[-1.0, -2.0]])
    assert "options" not in rows and "likelihoods" in rows
    assert not {"options", "likelihoods"} & set(records.predictions(examples, ["cat"] * 3))


def test_predictions_refuse_a_missing_answer() -> None:
    with pytest.raises(ValueError):
        records.predictions([example(1), example(2)], ["cat"])


# ---------------------------------------------------------------- control pictures


def test_shuffled_pictures_all_go_to_other_questions_and_blank_ones_show_nothing() -> None:
    asked = [example(i) for i in range(6)] + [example(9, picture_id="p0", image=example(0).image)]
    first, again, other = (records.repicture(asked, "shuffled", seed=s) for s in (1, 1, 2))
    pixels = lambda found: [e.image.tobytes() for e in found]  # noqa: E731
    assert pixels(first) == pixels(again) != pixels(other)
    assert all(a != b for a, b in zip(pixels(first), pixels(asked), strict=True))
    assert pixels(first)[0] == pixels(first)[6], "questions on one picture keep one picture"
    assert len(set(pixels(first))) == 6
    assert [replace(e, image=None) for e in first] == [replace(e, image=None) for e in asked]
    assert records.repicture(asked, "blank", seed=0)[0].image.getcolors() == [(48, (128, 128, 128))]
    assert records.repicture(asked, "true", seed=0) == asked


def test_pictures_that_cannot_be_shuffled_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures are 'grey'; choose one of true, shuffled, blank"):
        records.repicture([example(0)], "grey", seed=0)
    with pytest.raises(ValueError, match="1 examples have 1 picture between them"):
        records.repicture([example(0)], "shuffled", seed=0)


def test_a_data_set_is_prepared_again_once_the_pack_is_another(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "pack", lambda: tmp_path / "pack")
    (tmp_path / "pack").mkdir()
    assert not records.is_prepared("scenes")
    records.write_examples("scenes", {"test": [example(0)]})
    assert records.is_prepared("scenes") and not records.is_prepared("facts")
    (tmp_path / "pack" / "pack.csv").write_text("id")
    assert not records.is_prepared("scenes")


# ---------------------------------------------------------------- scoring again


def test_a_changed_scorer_is_applied_to_stored_answers_and_back(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in study.iterdir()}
    found = collected.rescore("smoke", scorer=metrics)
    assert (found.answers, len(found.changes), found.folder) == (0, 0, study)
    assert (study / "costs.csv").read_bytes() == before["costs.csv"]
    with monkeypatch.context() as patch:
        patch.setitem(metrics.METRICS, "exact", replace(metrics.METRICS["exact"], parse=lambda *_: "plant"))
        found = collected.rescore("smoke", scorer=metrics)
        assert found.answers > 500 and set(found.changes["metric"]) == {"exact"}
        results = collected.read_results("smoke")
        evaluated = results.predictions.query("stage == 'evaluate'")
        assert set(evaluated["parsed"]) == {"plant"} and set(evaluated["outcome"]) == {"wrong"}
        assert (results.scores.query("metric == 'exact'")["value"] == 0).all() and results.scores.query("metric == 'yes_no'")["value"].min() > 20
        assert results.provenance["scored"]["commit"] and set(found.changes["after"]) == {0.0}
    collected.rescore("smoke", scorer=metrics)
    assert sorted(pd.read_csv(study / "scores.csv")["value"].dropna()) == pytest.approx(sorted(pd.read_csv(io.BytesIO(before["scores.csv"]))["value"].dropna()))


def test_another_metric_is_added_beside_and_what_it_cannot_score_is_said(study: Path) -> None:
    old = collected.read_results("smoke")
    before = old.predictions  # read now: they are read when they are asked for
    found = collected.rescore("smoke", scorer=metrics, metric="letter_or_name")
    new = collected.read_results("smoke")
    pd.testing.assert_frame_equal(new.predictions, before)
    stages = len(old.scores.query("metric in ['exact', 'yes_no']"))
    assert len(new.scores) == len(old.scores) + stages and found.answers == 0 and found.refused == {}
    kept = new.scores["metric"] != "letter_or_name"
    assert new.scores[kept]["value"].reset_index(drop=True).equals(old.scores["value"])
    with pytest.raises(ValueError, match="vqa can be applied to no answer of 'smoke': .*at least four"):
        collected.rescore("smoke", scorer=metrics, metric="vqa")
    pd.testing.assert_frame_equal(collected.read_results("smoke").scores, new.scores)


def test_a_published_study_is_scored_where_it_may_be_written(written: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "published_results", lambda: tmp_path / "published")
    tracked = shutil.copytree(written, tmp_path / "published" / "smoke")
    before = {p.name: p.read_bytes() for p in tracked.iterdir()}
    assert collected.rescore("smoke", scorer=metrics).folder == paths.results() / "smoke"
    assert {p.name: p.read_bytes() for p in tracked.iterdir()} == before


def test_a_scorer_that_fails_leaves_everything_as_it_was(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in study.iterdir()}
    monkeypatch.setitem(metrics.METRICS, "exact", replace(metrics.METRICS["exact"], earns=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        collected.rescore("smoke", scorer=metrics)
    assert {p.name: p.read_bytes() for p in study.iterdir()} == before
    with pytest.raises(FileNotFoundError, match="'other' is not collected"):
        collected.rescore("other", scorer=metrics)


def test_a_part_of_a_test_set_of_captions_is_scored_by_the_whole(prepared: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a red ball on grass", "a small cat", "two children play", "a red house", "a dog on grass", "one more thing"]
    records.write_examples("icons_choice", {"train": [example(0)], "test": [example(i, answers=(text,), choices=()) for i, text in enumerate(texts)]})
    monkeypatch.setitem(datasets.DATASETS, "icons_choice", replace(datasets.card("icons_choice"), metric="cider"))
    run = replace(RUN, method="none", test_size=3)
    stage = records.open_stage(run, "evaluate", inputs=records.inputs(run, "evaluate"))
    records.predictions(records.read_examples("icons_choice", "test")[:3], ["a red ball", "a cat", "grass"]).to_parquet(stage.folder / "predictions.parquet")
    stage.finish(stamp={})
    collect([run], stages=("evaluate",))
    results = collected.read_results("study")
    words = [[captions.tokens(t)] for t in texts]
    expected = captions.cider([captions.tokens(t) for t in ("a red ball", "a cat", "grass")], words[:3], corpus=captions.frequencies(words))
    assert results.predictions["value"].tolist() == pytest.approx(expected)
    assert results.references["answers"].str[0].tolist() == texts and results.scores.set_index("metric").loc["cider", "value"] == pytest.approx(sum(expected) / 3)
    shutil.rmtree(paths.prepared())
    assert len(collected.rescore("study", scorer=metrics).changes) == 0
    assert collected.read_results("study").predictions["value"].tolist() == pytest.approx(expected)


def test_captions_are_read_by_all_names_of_the_scenes_which_the_study_keeps(work: Path, cache: Path) -> None:
    scenes = {"base": ["cow"], "test": ["dog", "cat"], "simple": ["pig"]}
    records.write_examples("scenes", {split: [example(i, example_id=f"{split}{i}", picture_id=f"{split}-p{i}", objects=(name,), choices=()) for i, name in enumerate(names)] for split, names in scenes.items()})
    run = replace(RUN, method="none", probe="scene_captions", probe_size=None)
    stage = records.open_stage(run, "probe", inputs=records.inputs(run, "probe"))
    records.predictions(records.read_examples("scenes", "test"), ["a dog", "a cat and a cow"]).to_parquet(stage.folder / "predictions.parquet")
    stage.finish(stamp={})
    collect([run], stages=("probe",))
    results = collected.read_results("study")
    assert results.vocabulary("scene_captions") == ("cat", "cow", "dog", "pig") and results.vocabulary("scenes") == ()
    assert results.scores.set_index("metric").loc["chair_s", "value"] == 50, "a cow is in no test scene"
    shutil.rmtree(paths.prepared())
    assert len(collected.rescore("study", scorer=metrics).changes) == 0
    (results.folder / "vocabulary.csv").unlink()
    with pytest.raises(ValueError, match="chair_s reads captions by the names .* must be collected again"):
        collected.rescore("study", scorer=metrics)


def test_a_study_keeps_the_sets_that_it_names_as_sources_and_where_its_data_came_from(prepared: dict[str, str], cache: Path) -> None:
    run = replace(RUN, method="none")
    evaluated(run)
    plain = json.loads((collect([run], stages=("evaluate",)) / "provenance.json").read_text())
    assert "sources" not in plain and "revisions" not in plain["data"][0]
    (paths.prepared() / "icons_choice" / "revisions.json").write_text(json.dumps({"some/where": "a" * 40}))
    assert records.read_revisions("icons_choice") == {"some/where": "a" * 40} and records.read_revisions("titles") == {}
    kept = json.loads((collect([run], stages=("evaluate",), sources=("icons_choice",)) / "provenance.json").read_text())
    assert kept == plain | {"sources": ["icons_choice"], "data": [plain["data"][0] | {"revisions": {"some/where": "a" * 40}}]}
    collected.rescore("study", scorer=metrics)
    assert collected.read_results("study").provenance["sources"] == ["icons_choice"]


def test_a_probe_reads_what_was_trained_up_to_its_step(prepared: dict[str, str], cache: Path) -> None:
    run = replace(RUN, steps=4, keep_every=2)
    records.write_examples("scenes", {"test": [example(0)]})
    stage = records.open_stage(run, "finetune", inputs=records.inputs(run, "finetune"))
    for name in ("adapter.safetensors", "adapter-2.safetensors"):
        (stage.folder / name).write_text(name)
    stage.finish(stamp={})
    read = {step: records.inputs(replace(run, probe_step=step), "probe")["finetune"] for step in (None, 2, 4)}
    assert read[None] == read[4] != read[2] and None not in read.values()
    assert records.inputs(replace(run, probe_step=2), "evaluate")["finetune"] == read[4], "questions are asked of the end"
    old = json.loads(json.dumps(records.expectation(RUN, "finetune", {})))
    del old["resolved"]["keep_every"]
    assert records.differences(old, records.expectation(RUN, "finetune", {})) == [], "a run made before there was the axis is as good as it was"
