"""What a study will take is told by stages like its own, and by no others."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab import execute, forecast, grid, provenance, records
from peftlab.__main__ import main
from peftlab.run import Run

GRID = """
study: two
why: Two methods on the tiny model.
stages: [finetune, evaluate]
expect: 3
base: {model: tiny-mlp, steps: 100, batch_size: 10, test_size: 24}
grids:
  - {method: [none, lora, ia3]}
"""


@pytest.fixture
def study(tiny_data: Path, tmp_path: Path) -> grid.Study:
    (tmp_path / "two.yaml").write_text(GRID)
    return grid.read(tmp_path / "two.yaml")


def finished(run: Run, stage: str, *, seconds: float, whole: float, memory: float = 1e9, processor: str | None = None, device: str = "cpu", device_memory: float | None = None) -> None:
    """A finished stage that took `seconds` of work in a notebook of `whole` seconds."""
    written = records.open_stage(run, stage, inputs=records.inputs(run, stage))
    (written.folder / "predictions.parquet").write_bytes(b"x" * 1000)
    folder = written.finish(stamp={"seconds": seconds, "peak_memory_bytes": memory, "processor": processor or provenance.processor(), "device": device, "peak_device_bytes": device_memory})
    folder.with_name(f"{folder.name}.ipynb").write_text(json.dumps({"metadata": {"papermill": {"duration": whole}}}))


def lora(steps: int, **more: object) -> Run:
    return Run(model="tiny-mlp", method="lora", steps=steps, batch_size=10, **more)


def test_seconds_grow_with_the_work_and_not_with_the_notebook(study: grid.Study) -> None:
    finished(lora(50), "finetune", seconds=20.0, whole=26.0, memory=3e9)
    found = forecast.table(study).set_index(["stage", "method"])
    assert found.loc[("finetune", "lora"), "seconds"] == pytest.approx(6 + 2 * 20)
    assert found.loc[("finetune", "lora"), ["pilots", "alike", "memory"]].tolist() == [1, 0, 3e9]
    assert found.loc[("finetune", "ia3"), ["pilots", "alike"]].tolist() == [1, 3], "another method of the same model is better than nothing, and said to be"
    assert found["seconds"].isna().sum() == 3 and (found.loc["evaluate", "pilots"] == 0).all()


def test_the_most_alike_speak(study: grid.Study) -> None:
    for number, seconds in enumerate((10.0, 20.0, 60.0)):
        finished(lora(50, seed=number), "finetune", seconds=seconds, whole=seconds)
    finished(lora(50, connector="tuned"), "finetune", seconds=500.0, whole=500.0)
    found = forecast.table(study).set_index(["stage", "method"])
    assert found.loc[("finetune", "lora"), "seconds"] == pytest.approx(2 * 20), "the median of those with a frozen connector"


def test_another_machine_does_not_speak_for_this_one(study: grid.Study) -> None:
    finished(lora(50), "finetune", seconds=20.0, whole=26.0, processor="another")
    assert forecast.pilots() == [] and forecast.table(study)["seconds"].isna().all()


def test_work_is_in_questions_of_the_set_that_is_asked() -> None:
    assert forecast._work("evaluate", Run(test_size=None)) == 1000 and forecast._work("evaluate", Run(test_size=24)) == 24
    assert forecast._work("probe", Run(probe="pope", probe_size=None)) == 9000 and forecast._work("finetune", lora(7)) == 70


def test_what_is_finished_is_not_counted(study: grid.Study) -> None:
    run = next(r for r in study.runs if r.method == "none")
    finished(run, "evaluate", seconds=2.4, whole=3.0)
    found = forecast.table(study)
    assert found["stages"].sum() == 4 and not ((found["stage"] == "evaluate") & (found["method"] == "none")).any()


def test_a_pilot_is_run_of_what_is_not_known(study: grid.Study) -> None:
    finished(lora(50), "finetune", seconds=20.0, whole=26.0)
    short = forecast.short(study)
    assert {run.method for run in short.runs} == {"none", "lora", "ia3"} and {run.steps for run in short.runs} == {forecast.SHORT["steps"]}
    for run in short.runs:
        for stage in ("finetune", "evaluate") if run.method != "none" else ("evaluate",):
            finished(run, stage, seconds=1.0, whole=2.0)
    assert forecast.short(study).runs == () and forecast.table(study)["seconds"].notna().all()


def test_the_command_says_what_it_does_not_know(study: grid.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(lora(50), "finetune", seconds=20.0, whole=26.0)
    assert main(["estimate", str(tmp_path / "two.yaml"), "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "two: 3 runs, 5 stages to do" in said and "not known: evaluate of none on tiny-mlp" in said and "from other settings or methods: ia3" in said


# ---------------------------------------------------------------- how many at once


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that says what machine this is: cores, GB of free memory, and its GPUs (name, GB of free memory), which there are none of where these tests are written."""

    def is_(cores: int, free: float, *gpus: tuple[str, float]) -> None:
        monkeypatch.setattr(provenance, "cores", lambda: cores)
        monkeypatch.setattr(provenance, "memory", lambda: provenance.Memory(int(2 * free * 1e9), int(free * 1e9)))
        monkeypatch.setattr(provenance, "gpus", lambda: tuple(provenance.Gpu(str(i), name, int(gb * 1e9), int(gb * 1e9)) for i, (name, gb) in enumerate(gpus)))

    return is_


def test_on_a_cpu_as_many_as_fit_by_what_was_measured(study: grid.Study, host: Callable[..., None]) -> None:
    for free, workers in ((3, 1), (14, 2), (900, 4)):  # nothing is measured: 6 GB are taken for each
        host(16, free)
        assert forecast.room(study).gpus == (None,) * workers
    for run in study.runs:
        for stage in ("finetune", "evaluate") if run.method != "none" else ("evaluate",):
            finished(replace(run, seed=7), stage, seconds=1.0, whole=2.0, memory=2e9 if run.method == "lora" else 1e9)
    host(16, 7)
    room = forecast.room(study)
    assert room.workers == 3 and "7.0 GB of memory are free, of which a run takes 2.0" in room.why
    host(2, 900)
    assert forecast.room(study).workers == 2
    for stage in ("finetune", "evaluate"):
        finished(next(r for r in study.runs if r.method == "lora"), stage, seconds=1.0, whole=2.0, memory=2e9)
    host(16, 3.5)
    assert forecast.room(study).workers == 3 and forecast.room(study, again_stale=True).workers == 1, "what is done needs no room"


def measured_on_gpu(study: grid.Study, name: str, gigabytes: float) -> None:
    """Pilots of all that the study asks for, made on such a GPU."""
    for run in study.runs:
        for stage in ("finetune", "evaluate") if run.method != "none" else ("evaluate",):
            finished(replace(run, seed=7), stage, seconds=1.0, whole=2.0, memory=2e9, device=name, device_memory=gigabytes * 1e9)


def test_on_gpus_as_many_as_their_memory_holds_in_turns(study: grid.Study, host: Callable[..., None]) -> None:
    measured_on_gpu(study, "H100", 16)  # and 0.6 GB of each process
    host(32, 500, ("H100", 80), ("H100", 40))
    room = forecast.room(study)
    assert room.gpus == ("0", "1", "0", "1", "0", "0"), "0.9 of 80 holds four of 16.6, 0.9 of 40 two"
    assert "a run takes 16.6 GB of a GPU: H100 with 80.0 GB free, H100 with 40.0 GB free" in room.why
    host(3, 500, ("H100", 80), ("H100", 40))
    assert forecast.room(study).gpus == ("0", "1", "0"), "a core for each"
    host(32, 7, ("H100", 80), ("H100", 40))
    assert forecast.room(study).gpus == ("0", "1", "0"), "0.9 of 7 GB of main memory hold three of 2"
    host(32, 500, ("H100", 18), ("H100", 10))
    assert forecast.room(study).gpus == (None,), "what holds none is left alone, and one run sees every GPU"


def test_one_a_gpu_where_such_a_one_was_not_measured(study: grid.Study, host: Callable[..., None]) -> None:
    host(32, 500, ("H100", 80))
    assert forecast.room(study).gpus == (None,)
    measured_on_gpu(study, "A100", 1)
    host(32, 500, ("H100", 80), ("H100", 80))
    room = forecast.room(study)
    assert room.gpus == ("0", "1") and room.why.startswith("one a GPU, since not all is measured on such a one"), "another kind of GPU tells nothing"
    assert forecast.room(study, asked=5).gpus == ("0", "1", "0", "1", "0") and forecast.room(study, asked=1).gpus == (None,)
    with pytest.raises(ValueError, match="--workers is 0"):
        forecast.room(study, asked=0)


def test_the_estimate_says_how_many_at_a_time_and_why(study: grid.Study, tmp_path: Path, host: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    measured_on_gpu(study, "H100", 16)
    host(32, 500, ("H100", 80))
    assert main(["estimate", str(tmp_path / "two.yaml")]) == 0
    said = capsys.readouterr().out
    assert "4 at a time: a run takes 16.6 GB of a GPU: H100 with 80.0 GB free; 32 cores" in said and "64.0 GB of GPUs" in said and "if runs that share a GPU do not slow each other" in said


def test_workers_are_bound_to_their_gpus(study: grid.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each process of a call is started with, and what the first one's kernels see: a GPU of its own, and all once the others have ended."""
    seen, started = [], []

    class Other:
        def __init__(self, command: list[str], *, env: dict[str, str], **_: object) -> None:
            started.append((env["CUDA_VISIBLE_DEVICES"], env["PEFTLAB_CALL"].split()[1], command[command.index("--plain") + 1 :]))

        def wait(self) -> None:
            seen.append("waited")

    def run_grid(of: grid.Study, *, alone: Callable[[], None], **how: Any) -> Counter[str]:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        alone()
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        assert how["workers"] == 3 and len(how["name"]) == 16
        return Counter(done=1)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(forecast, "room", lambda *_, **__: forecast.Room(("5", "3", "5"), ""))
    monkeypatch.setattr(execute, "run_grid", run_grid)
    monkeypatch.setattr(subprocess, "Popen", Other)
    assert main(["run", str(tmp_path / "two.yaml"), "--plain", "--again-unfit"]) == 0
    assert started == [("3", "3", ["--again-unfit"]), ("5", "3", ["--again-unfit"])] and seen == ["5", "waited", "waited", "5,3"]
