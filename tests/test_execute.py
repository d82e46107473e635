"""Execution of notebooks over a study: what fails is recorded, what is finished is left, what is interrupted is resumed."""

import fcntl
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest

from peftlab import __main__, board, execute, forecast, models, paths, provenance, records, tasks
from peftlab.grid import Study
from peftlab.run import Run

BROKEN = Path(__file__).parent / "broken"  # notebooks named for what they break
TINY = {"model": "tiny-mlp", "precision": "fp32", "steps": 3, "test_size": 8, "probe_size": 6}
SHIPPED = dict(tasks.NOTEBOOKS)


def study(*runs: Run, stages: tuple[str, ...] = ("finetune", "evaluate", "probe")) -> Study:
    """A study of these runs."""
    return Study("tiny", "a test", stages, runs)


def run(**axes: object) -> Run:
    """A run of the tiny model."""
    return Run(**{**TINY, **axes})


def times() -> dict[str, int]:
    """When each finished stage was written."""
    return {str(file): file.stat().st_mtime_ns for file in paths.runs().rglob("run.json")}


def answers(of: Run) -> pd.DataFrame:
    """What a run answered."""
    return pd.read_parquet(records.stage_folder(of, "evaluate") / "predictions.parquet")


# ---------------------------------------------------------------- one notebook


@pytest.mark.parametrize(
    ("notebook", "cell", "error", "memory"),
    [
        ("raises", "breaks", "ValueError: the cat is out", False),
        ("runs_out_of_memory", "breaks", "MemoryError: Unable to allocate 1 TiB", True),
        ("kills_its_kernel", "breaks", "DeadKernelError: Kernel died", False),
    ],
)
def test_a_failing_notebook_names_its_cell_and_leaves_its_copy(tmp_path: Path, notebook: str, cell: str, error: str, memory: bool) -> None:
    copy = tmp_path / "made" / "copy.ipynb"
    with pytest.raises(execute.StageFailed, match=cell) as failed:
        execute.execute(BROKEN / f"{notebook}.ipynb", run(), copy)
    assert {k: failed.value.facts[k] for k in ("where", "cell", "error", "out_of_memory")} == {
        "where": f"{notebook}.ipynb", "cell": cell, "error": error, "out_of_memory": memory,
    }  # fmt: skip
    executed = nbformat.read(copy, as_version=4)
    assert executed.metadata.kernelspec.name == "python3"
    (injected,) = [c.source for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert 'model = "tiny-mlp"' in injected and "size = None" in injected


def test_a_kernel_that_is_killed_says_by_which_signal(tmp_path: Path) -> None:
    with pytest.raises(execute.StageFailed, match=r"the kernel of kills_its_kernel.ipynb died in cell breaks \(signal 9\)$"):
        execute.execute(BROKEN / "kills_its_kernel.ipynb", run(), tmp_path / "copy.ipynb")


def test_a_kernel_killed_for_memory_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter((3, 4))
    monkeypatch.setattr(execute, "_killed_for_memory", lambda: next(counter))
    with pytest.raises(execute.StageFailed, match="no memory left") as failed:
        execute.execute(BROKEN / "kills_its_kernel.ipynb", run(), tmp_path / "copy.ipynb")
    assert failed.value.facts["out_of_memory"] is True


def test_a_notebook_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no notebook .*99_nothing.ipynb"):
        execute.execute("99_nothing", run(), tmp_path / "copy.ipynb")


def aggregates(folder: Path, *sources: str) -> list[Path]:
    """Aggregate notebooks of one cell each, beside a cell of parameters."""
    files, kernel = [], {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    for number, source in enumerate(sources):
        cells = [nbformat.v4.new_code_cell("study = 'none'", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), file := folder / f"{number}_study.ipynb")
        files.append(file)
    return files


MET = """
import time
from pathlib import Path
Path(r"{mine}").touch()
for _ in range(600):
    if Path(r"{other}").exists():
        break
    time.sleep(0.1)
else:
    raise RuntimeError("the other one never ran")
"""
ALONE = """
import time
from pathlib import Path
place = Path(r"{place}")
place.mkdir()
time.sleep(4)
place.rmdir()
"""


def test_notebooks_of_a_report_run_side_by_side_and_come_in_their_order(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    a, b = tmp_path / "a", tmp_path / "b"
    made = list(execute.aggregate(aggregates(tmp_path, MET.format(mine=a, other=b), MET.format(mine=b, other=a)), "mine"))
    assert [file.name for file in made] == ["0_study.ipynb", "1_study.ipynb"]
    assert all('study = "mine"' in "".join(cell.source for cell in nbformat.read(file, as_version=4).cells) for file in made)


def test_notebooks_of_a_report_that_do_not_fit_in_memory_together_run_in_turn(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    files = aggregates(tmp_path, *[ALONE.format(place=tmp_path / "alone")] * 2)
    assert len(list(execute.aggregate(files, "mine", each=provenance.memory().free * 2 // 3))) == 2, "one does not fit twice; one that fits not once is tried all the same"
    with pytest.raises(execute.StageFailed, match="FileExistsError"):
        list(execute.aggregate(files, "mine", each=1))


@pytest.mark.parametrize("place", [0, 1])
def test_a_notebook_of_a_report_that_fails_ends_the_others(place: int, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is: what comes before it is not waited for."""
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    begun, started = tmp_path / "begun", time.monotonic()
    two = [MET.format(mine=tmp_path / "here", other=begun) + "raise ValueError('no table')", f"open(r'{begun}', 'w').close()\nimport time\ntime.sleep(400)"]
    files = aggregates(tmp_path, *(two if place == 0 else two[::-1]), "1 / 1")
    with pytest.raises(execute.StageFailed, match="ValueError: no table") as failed:
        list(execute.aggregate(files, "mine"))
    assert failed.value.facts["where"] == f"{place}_study.ipynb" and time.monotonic() - started < 300
    assert not (paths.build() / "notebooks" / "2_study.ipynb").exists()


def test_a_module_that_only_costs_time_is_hidden_while_another_is_imported() -> None:
    with execute._without("this_module_is_not_there"), execute._without("json"):
        with pytest.raises(ImportError, match="halted"):
            importlib.import_module("this_module_is_not_there")
        assert sys.modules["json"] is json
    assert "this_module_is_not_there" not in sys.modules and sys.modules["json"] is json
    code = "import sys; from pathlib import Path; from peftlab import execute; from peftlab.run import Run\ntry: execute.execute(Path('none.ipynb'), Run(), Path('a'))\nexcept ValueError: print('nbformat' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n", "a command that executes nothing waits for what executes"


# ---------------------------------------------------------------- plans


def test_a_plan_prepares_first_tunes_once_and_never_tunes_the_base(work: Path) -> None:
    runs = [run(method=m, test_pictures=p, dataset=d) for d in ("scenes", "icons_choice") for m in ("none", "lora") for p in ("true", "blank")]
    planned = tasks.plan(study(*runs))
    done = set()
    for task in planned:
        assert set(task.needs) <= done, f"{task.name} comes before what it reads"
        done.add(task.folder)
    stages = [task.stage for task in planned]
    assert {s: stages.count(s) for s in tasks.NOTEBOOKS} == {"prepare": 2, "finetune": 2, "evaluate": 8, "probe": 4}
    assert "prepare" not in stages[2:]
    alone = study(run(), stages=("evaluate",))
    assert len(tasks.plan(alone)) == 2 and len(tasks.plan(alone)[-1].needs) == 1
    folder = records.stage_folder(run(), "finetune")
    folder.mkdir(parents=True)
    assert tasks.plan(alone)[-1].needs[-1] == folder, "what was tuned before goes along to where its answers are asked"


def test_a_task_that_reads_what_failed_is_blocked_and_the_others_go_on(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.NOTEBOOKS, "finetune", str(BROKEN / "raises.ipynb"))
    monkeypatch.setitem(tasks.NOTEBOOKS, "evaluate", str(BROKEN / "ends_early.ipynb"))
    of = study(run(), run(method="none"), stages=("finetune", "evaluate"))
    assert execute.run_grid(of, live=False) == {"done": 0, "skipped": 1, "failed": 2, "blocked": 1, "stale": 0, "does not fit": 0}
    failure = json.loads((paths.runs() / run().id / "finetune.failure.json").read_text())
    assert failure["what"] == "cell breaks of raises.ipynb raised ValueError: the cat is out"
    assert {"where", "cell", "error", "out_of_memory", "when", "run", "stage"} <= set(failure)
    assert (paths.runs() / run().id / "finetune.ipynb").exists()
    early = json.loads((paths.runs() / run(method="none").id / "evaluate" / "icons_choice-n8.failure.json").read_text())
    assert "is not a finished stage" in early["what"]


# ---------------------------------------------------------------- the real notebooks


def test_a_study_is_executed_once_survives_failures_and_names_what_is_stale(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good, base = run(train_size=1000), run(), run(method="none")
    assert execute.run_grid(study(bad, good, base), live=False) == {"done": 5, "skipped": 2, "failed": 1, "blocked": 2, "stale": 0, "does not fit": 0}
    failure = records.stage_folder(bad, "finetune").with_name("finetune.failure.json")
    assert "1000 examples asked of icons_choice/train, which has 48" in json.loads(failure.read_text())["error"]
    assert "[8/10]" in capsys.readouterr().out
    assert {p.name for p in records.stage_folder(good, "finetune").parent.iterdir()} == {"finetune", "finetune.ipynb", "evaluate", "probe"}
    assert board.status(study(bad, good, base)) == {"done": 7, "running": 0, "failed": 1, "blocked": 0, "stale": 0, "does not fit": 0, "to do": 2}

    before, failed = times(), failure.stat().st_mtime_ns
    assert execute.run_grid(study(bad, good, base), live=False) == {"done": 0, "skipped": 7, "failed": 1, "blocked": 2, "stale": 0, "does not fit": 0}
    assert times() == before, "a finished stage was made again"
    assert failure.stat().st_mtime_ns > failed, "the failed stage was not tried again"

    stamp = json.loads((records.stage_folder(good, "finetune") / "run.json").read_text())["stamp"]
    assert stamp["trainable"]["llm"] > 0 == stamp["trainable"]["vision"] and stamp["threads"] == 1 and stamp["seconds"] > 0

    kept = records.stage_folder(good, "finetune") / "run.json"
    content = json.loads(kept.read_text())
    content.pop("seal")
    content["protocol"] = 0
    kept.write_text(json.dumps({**content, "seal": records._seal(content)}))
    assert execute.run_grid(study(good), live=False) == {"done": 0, "skipped": 2, "failed": 0, "blocked": 2, "stale": 1, "does not fit": 0}
    assert f"02 {good.id} stale" in capsys.readouterr().out
    assert execute.run_grid(study(good), live=False, again_stale=True) == {"done": 1, "skipped": 4, "failed": 0, "blocked": 0, "stale": 0, "does not fit": 0}

    (kept.parent / "steps.parquet").write_bytes(b"edited")
    with pytest.raises(ValueError, match="steps.parquet was edited"):
        execute.run_grid(study(good), live=False)


EXECUTOR = "import sys; from peftlab import __main__; sys.exit(__main__.main(['run', *sys.argv[1:], '--plain']))"
GRID = """
study: interrupted
why: A test.
stages: [finetune, evaluate]
expect: 2
base: {model: tiny-mlp, precision: fp32, steps: 240, test_size: 8}
grids: [{method: [lora, ia3]}]
"""


def test_a_killed_executor_is_resumed_without_repeating_and_with_the_same_scores(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., bool]) -> None:
    first, second = (run(method=m, steps=240) for m in ("lora", "ia3"))
    grid = tmp_path / "interrupted.yaml"
    grid.write_text(GRID)
    slow = records.stage_folder(second, "finetune")
    monkeypatch.setenv("PEFTLAB_CHECKPOINT_SECONDS", "0")
    with subprocess.Popen([sys.executable, "-c", EXECUTOR, str(grid), "--workers", "1"], stdout=subprocess.DEVNULL) as executor:
        assert eventually(lambda: list(slow.parent.glob(".finetune.[0-9]*")), seconds=300), "the second run never began"
        kernel = int(next(slow.parent.glob(".finetune.[0-9]*")).suffix[1:])
        assert psutil.pid_exists(kernel)
        assert eventually(lambda: list(slow.parent.glob(f"finetune-*{records.CHECKPOINT}"))), "no checkpoint was kept"
        executor.kill()
    assert eventually(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE), "a kernel is left behind"
    assert records.stage_folder(first, "evaluate").exists() and not slow.exists()
    before = times()

    assert __main__.main(["run", str(grid), "--plain", "--workers", "1"]) == 0
    assert {name: when for name, when in times().items() if name in before} == before, "a finished stage was repeated"
    assert not list(paths.runs().rglob(".*")) and not list(paths.runs().rglob(f"*{records.CHECKPOINT}*")), "something of the killed run is left"
    assert json.loads((slow / "run.json").read_text())["stamp"]["resumed_at_step"] >= 1, "the run began from the start again"
    scores = [answers(of) for of in (first, second)]

    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(tiny_data / "prepared", undisturbed / "prepared")
    monkeypatch.setenv("PEFTLAB_WORK", str(undisturbed))
    assert execute.run_grid(study(first, second, stages=("finetune", "evaluate")), live=False)["done"] == 4
    for of, score in zip((first, second), scores, strict=True):
        pd.testing.assert_frame_equal(answers(of), score)


def test_a_cold_kernel_and_an_empty_cache_give_the_same_numbers(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, both = run(method="lora", connector="tuned"), {}
    for kind in ("warm", "cold"):
        shutil.copytree(tiny_data / "prepared", tmp_path / kind / "prepared")
        monkeypatch.setenv("PEFTLAB_WORK", str(tmp_path / kind))
        if kind == "cold":
            monkeypatch.setenv("PEFTLAB_COLD_KERNELS", "1")
            monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "cache"))
        assert execute.run_grid(study(of, stages=("finetune", "evaluate")), live=False)["done"] == 2
        both[kind] = answers(of), pd.read_parquet(records.stage_folder(of, "finetune") / "steps.parquet").drop(columns="seconds")
    for warm, cold in zip(both["warm"], both["cold"], strict=True):
        pd.testing.assert_frame_equal(warm, cold, check_exact=True)


def test_two_workers_share_a_grid_and_die_with_their_executor(tiny_data: Path, tmp_path: Path, eventually: Callable[..., bool]) -> None:
    """Each is killed in its first run; a second call, of two workers again, completes the grid."""
    grid = tmp_path / "interrupted.yaml"
    grid.write_text(GRID)
    begun = [records.stage_folder(run(method=m, steps=240), "finetune") for m in ("lora", "ia3")]
    with subprocess.Popen([sys.executable, "-c", EXECUTOR, str(grid), "--workers", "2"], stdout=subprocess.DEVNULL) as executor:
        assert eventually(lambda: all(list(folder.parent.glob(".finetune.[0-9]*")) for folder in begun), seconds=300), "the runs were not executed side by side"
        tree = psutil.Process(executor.pid).children(recursive=True)
        executor.kill()
    assert eventually(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in tree)), "a process outlives its executor"

    done = subprocess.run([sys.executable, "-c", EXECUTOR, str(grid), "--workers", "2"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("4 done, 1 skipped, 0 failed")
    assert not list(paths.runs().rglob(".*")), "something of the killed runs is left"


def test_what_another_worker_failed_is_not_tried_again(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the call's name, whatever the clock says: the failure seems to be of tomorrow."""
    of = study(run(method="none"), stages=("evaluate",))
    task = tasks.plan(of)[-1]
    task.failure.parent.mkdir(parents=True)
    task.failure.write_text(json.dumps({"what": "the other's sentence", "out_of_memory": False, "call": "one"}))
    os.utime(task.failure, (time.time() + 86_400,) * 2)
    assert execute.run_grid(of, live=False, name="one", workers=2)["failed"] == 1
    assert execute.run_grid(of, live=False, name="two", workers=2) == {"done": 1, "skipped": 1, "failed": 0, "blocked": 0, "stale": 0, "does not fit": 0}


# ---------------------------------------------------------------- out of memory: a result


@pytest.fixture
def out_of_memory(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that lets a notebook run out of memory."""
    return lambda stage: monkeypatch.setitem(tasks.NOTEBOOKS, stage, str(BROKEN / "runs_out_of_memory.ipynb"))


def test_what_runs_out_of_memory_does_not_fit_and_is_tried_again_on_request_alone(out_of_memory: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out_of_memory("finetune")
    of, base = run(), run(method="none")
    counts = {"done": 2, "skipped": 2, "failed": 0, "blocked": 0, "stale": 0, "does not fit": 3}
    assert execute.run_grid(study(of, base), live=False) == counts
    assert __main__._told(counts) == 0 and "--again-unfit" in capsys.readouterr().out
    failure = records.read_failure(records.stage_folder(of, "finetune"))
    assert (failure["beside"], failure["of_gpu"], failure["device"]) == (0, False, "cpu") and 0 < failure["free_bytes"] < failure["memory_bytes"] == provenance.memory().total
    assert failure["made_from"] == json.loads(json.dumps(records.made_from(of, "finetune")))

    assert board.status(study(of, base)) == {"done": 4, "running": 0, "failed": 0, "blocked": 0, "stale": 0, "does not fit": 3, "to do": 0}
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"{of.id}") == 3 and said.count("does not fit 0") == 2 and said.count("MemoryError: Unable to allocate 1 TiB") == 3
    assert not len(forecast.table(study(of, base))), "what does not fit is not to do"

    when = times_of_failures()
    assert execute.run_grid(study(of, base), live=False)["does not fit"] == 3 and times_of_failures() == when, "it was tried again"
    assert execute.run_grid(study(of), live=False, again_unfit=True)["does not fit"] == 3 and times_of_failures() != when, "it was not tried again"
    assert execute.run_grid(study(of, stages=("evaluate",)), live=False, again_unfit=True)["does not fit"] == 1, "there is no model to ask"

    monkeypatch.setitem(tasks.NOTEBOOKS, "finetune", SHIPPED["finetune"])
    assert execute.run_grid(study(of), live=False, again_unfit=True)["done"] == 3 and not times_of_failures()


def times_of_failures() -> list[int]:
    """When each failure was written."""
    return [file.stat().st_mtime_ns for file in paths.runs().rglob("*.failure.json")]


def test_it_fits_no_more_only_as_long_as_it_would_be_made_from_the_same(out_of_memory: Callable[[str], None], prepare_tiny: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory("finetune")
    of = study(run(), stages=("finetune",))
    execute.run_grid(of, live=False)
    assert records.unfit(run(), "finetune")
    with monkeypatch.context() as patch:
        patch.setattr(records, "PROTOCOL", {**records.PROTOCOL, "finetune": 9})
        assert records.unfit(run(), "finetune") is None
    prepare_tiny("icons_choice", seed=1)
    assert records.unfit(run(), "finetune") is None and board.status(of)["failed"] == 1
    monkeypatch.setitem(tasks.NOTEBOOKS, "finetune", str(BROKEN / "raises.ipynb"))
    assert execute.run_grid(of, live=False)["failed"] == 1, "it was not tried again"
    shutil.rmtree(paths.prepared() / "icons_choice")
    assert records.unfit(run(), "finetune") is None


def test_what_ran_out_of_memory_in_company_is_tried_again_alone(out_of_memory: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory("evaluate")
    of, seen = study(run(method="none"), stages=("evaluate",)), []
    assert execute.run_grid(of, live=False, name="call", workers=2)["failed"] == 1
    failure = records.read_failure(tasks.plan(of)[-1].folder)
    assert failure["beside"] == 1 and records.unfit(run(method="none"), "evaluate") is None, "beside another run it may have been the other's memory"
    assert execute.run_grid(of, live=False, name="call", workers=2)["failed"] == 1, "another worker of the same call tried it in company again"
    fits = lambda: seen.append(monkeypatch.setitem(tasks.NOTEBOOKS, "evaluate", SHIPPED["evaluate"]))  # noqa: E731
    assert execute.run_grid(of, live=False, name="call", workers=2, alone=fits)["done"] == 1 and len(seen) == 1, "once the others have ended it was not tried"


def test_alone_it_does_not_fit_either(out_of_memory: Callable[[str], None]) -> None:
    out_of_memory("finetune")
    assert execute.run_grid(study(run(), stages=("finetune", "evaluate")), live=False, name="call", workers=2, alone=lambda: None)["does not fit"] == 2
    assert records.unfit(run(), "evaluate")["stage"] == "finetune" and records.unfit(run(method="none"), "evaluate") is None


def test_a_gpus_memory_is_told_from_the_machines() -> None:
    machine = {"device": "H100", "memory_bytes": 1}
    facts = execute.StageFailed("x", where="y", error="OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", out_of_memory=True, machine=machine).facts
    assert facts["of_gpu"] is True and facts["device"] == "H100" and "of_gpu" not in execute.StageFailed("x", where="y").facts


# ---------------------------------------------------------------- disasters


@pytest.fixture
def small_disk(tiny_data: Path, tmp_path: Path) -> list[str]:
    """The command that gives a shell script, added to its last word, a disk of its own in the place of data/, of 24 MB, with a data set on it."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this system lets no one mount a disk of their own")
    shutil.copytree(tiny_data / "prepared" / "icons_choice", tmp_path / "kept" / "prepared" / "icons_choice")
    return ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=24m none {tiny_data} && cp -r {tmp_path}/kept/. {tiny_data} && "]


def on(disk: list[str], script: str) -> subprocess.CompletedProcess[str]:
    """A shell script executed with that disk."""
    return subprocess.run([*disk[:-1], disk[-1] + script], capture_output=True, text=True, env={**os.environ, "PEFTLAB": f"{sys.executable} -m peftlab"})


def test_a_full_disk_costs_nothing_that_was_finished(small_disk: list[str], tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.replace("steps: 240", "steps: 3"))
    fill = "dd if=/dev/zero of=$PEFTLAB_WORK/filled bs=64k 2>/dev/null; rm -f $PEFTLAB_WORK/gap"
    one = run(method="lora", steps=3)
    script = f"""
        head -c 100000 /dev/zero > $PEFTLAB_WORK/gap; {fill}
        $PEFTLAB run {grid} --plain --workers 1; echo "full: $?"
        find $PEFTLAB_WORK/runs -name run.json | sort
        rm $PEFTLAB_WORK/filled
        $PEFTLAB run {grid} --plain --workers 1; echo "again: $?"
        find $PEFTLAB_WORK/runs -name '.*'; cp -r $PEFTLAB_WORK/runs {tmp_path}/came
    """
    done = on(small_disk, script)
    said = done.stdout + done.stderr
    assert "full: 1" in said and "No space left on device" in said and "Traceback" not in done.stderr, said
    assert "again: 0" in said and "0 failed, 0 blocked" in said, said
    assert (tmp_path / "came" / one.id / "evaluate" / one.test_id / "run.json").exists() and not list((tmp_path / "came").rglob("*.failure.json"))
    assert not list((tmp_path / "came").rglob(".*")), "something of the failed runs is left"


def test_a_folder_that_cannot_be_written_is_a_sentence(small_disk: list[str], tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID)
    done = on(small_disk, f"mount -o remount,ro $PEFTLAB_WORK && $PEFTLAB run {grid} --plain --workers 2; echo \"ended: $?\"; $PEFTLAB status {grid}")
    assert "ended: 1" in done.stdout and "interrupted: 2 runs" in done.stdout, done.stdout + done.stderr
    said = done.stderr.count("peftlab run: [Errno 30] Read-only file system")
    assert said in (1, 2), f"the first of the two processes says so, and the second where the first's end does not end it before: {done.stderr}"
    assert "what was finished stays" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_loss_that_is_no_number_is_recorded_and_the_others_go_on(tiny_data: Path) -> None:
    bad, good = run(method="full", lr=1e30), run(method="none")
    assert execute.run_grid(study(bad, good, stages=("finetune", "evaluate")), live=False) == {"done": 1, "skipped": 1, "failed": 1, "blocked": 1, "stale": 0, "does not fit": 0}
    failure = json.loads((paths.runs() / bad.id / "finetune.failure.json").read_text())
    assert "FloatingPointError: the loss is nan at step" in failure["error"] and "lower its lr (1e+30)" in failure["error"]
    assert not list(paths.runs().rglob(".finetune.*")), "what the failed run had written is left"


# ---------------------------------------------------------------- locks


def test_a_stage_that_another_executor_holds_is_waited_for(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.NOTEBOOKS, "evaluate", str(BROKEN / "raises.ipynb"))
    of = study(run(method="none"), stages=("evaluate",))
    task = tasks.plan(of)[-1]
    task.lock.parent.mkdir(parents=True)
    with task.lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(str(os.getpid()))
        other.flush()
        assert board.status(of)["running"] == 1
        monkeypatch.setattr(time, "sleep", lambda _: finish(task))
        assert execute.run_grid(of, live=False)["skipped"] == 2
    assert not task.failure.exists()


def finish(task: tasks.Task) -> None:
    """The other executor finishes the stage."""
    stage = records.open_stage(task.run, task.stage, inputs=records.inputs(task.run, task.stage, base=models.digest("tiny-mlp")))
    stage.finish()


def test_a_lock_that_was_left_beside_a_finished_stage_is_removed_unless_it_is_held(tiny_data: Path) -> None:
    """Its process died between the stage's last step and the lock's."""
    of = study(run(method="none"), stages=("evaluate",))
    task = tasks.plan(of)[-1]
    task.lock.parent.mkdir(parents=True)
    finish(task)
    with task.lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert execute.run_grid(of, live=False)["skipped"] == 2 and task.lock.exists()
    assert execute.run_grid(of, live=False)["skipped"] == 2 and not task.lock.exists()


def test_the_lock_of_a_dead_process_is_taken_over(work: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    task = tasks.Task(run(), "finetune", work / "runs" / "x" / "finetune")
    task.lock.parent.mkdir(parents=True)
    task.lock.write_text(str(dead.pid))
    left = [task.folder.with_name(f".finetune.{pid}") for pid in (dead.pid, os.getpid())]
    [folder.mkdir() for folder in left]
    with tasks.locked(task) as mine, tasks.locked(task) as other:
        assert mine and not other
        assert task.lock.read_text() == str(os.getpid())
    tasks.sweep(task)
    assert not task.lock.exists()
    assert [folder.exists() for folder in left] == [False, True], "only what a dead process left is removed"


# ---------------------------------------------------------------- the command line


def test_bad_input_is_a_sentence_and_two(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "bad.yaml"
    grid.write_text(GRID.replace("method: [lora, ia3]", "methud: [lora]"))
    for command in ("run", "status"):
        assert __main__.main([command, str(grid)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "'methud' is not an axis; the axes are model, dataset" in said
    assert not list(work.iterdir())


def test_parameters_are_renewed_from_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "notebooks", lambda: tmp_path)
    for name in SHIPPED.values():
        shutil.copy(paths.root() / "notebooks" / f"{name}.ipynb", tmp_path)
    assert execute.renew_parameters() == []
    file = tmp_path / f"{SHIPPED['finetune']}.ipynb"
    whole = file.read_bytes()
    file.write_text(file.read_text().replace("steps = 60", "steps = 61"))
    assert execute.renew_parameters() == [file]
    assert file.read_bytes() == whole
