"""What a study will take is told by stages like its own, and by no others."""

import json
from pathlib import Path

import pytest

from peftlab import forecast, grid, provenance, records
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


def finished(run: Run, stage: str, *, seconds: float, whole: float, memory: float = 1e9, processor: str | None = None) -> None:
    """A finished stage that took `seconds` of work in a notebook of `whole` seconds."""
    written = records.open_stage(run, stage, inputs=records.inputs(run, stage))
    (written.folder / "predictions.parquet").write_bytes(b"x" * 1000)
    folder = written.finish(stamp={"seconds": seconds, "peak_memory_bytes": memory, "processor": processor or provenance.processor()})
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
