"""What people see of a study's progress, from its outcomes."""

import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from peftlab.board import COLUMNS, Board
from peftlab.grid import Study
from peftlab.run import Run
from peftlab.tasks import Task

STUDY = Study("tiny", "a test", ("finetune", "evaluate"), (Run(),))


def tasks(**stages: int) -> list[Task]:
    """Some tasks of each stage."""
    return [Task(Run(), stage, Path(f"/x/{stage}{i}")) for stage, number in stages.items() for i in range(number)]


def board(of: list[Task], *, live: bool = False) -> Board:
    """A board on which nothing has happened."""
    return Board(STUDY, of, {}, live=live)


def shown(of: Board) -> list[str]:
    """What the live table would draw, line by line."""
    console = Console(file=io.StringIO(), width=120)
    console.print(of._render())
    return console.file.getvalue().splitlines()


def row(lines: list[str], notebook: str) -> dict[str, str]:
    """A row of the table, by its columns."""
    (line,) = [line for line in lines if notebook in line]
    columns = [column for column in COLUMNS if column in " ".join(lines) or column != "does not fit"]
    return dict(zip(columns, [cell.strip() for cell in line.split("│")[2:-1]], strict=True))


def test_the_table_counts_what_is_done_running_and_to_do() -> None:
    of = tasks(finetune=4, evaluate=2)
    seen = board(of)
    assert seen.settle(of[0], "skipped") and seen.settle(of[1], "failed", "no memory") and seen.settle(of[4], "blocked")
    seen.begin(of[2])
    lines = shown(seen)
    assert row(lines, "02_finetune") == {"done": "1", "running": "1", "failed": "1", "blocked": "–", "stale": "–", "to do": "1"}
    assert row(lines, "03_evaluate")["blocked"] == row(lines, "03_evaluate")["to do"] == "1"
    assert any("failed: 02" in line and "no memory" in line for line in lines)
    assert seen.settle(of[3], "does not fit", "24 GB") and row(shown(seen), "02_finetune")["does not fit"] == "1" and any("does not fit: 02" in line for line in shown(seen))


def test_the_time_to_go_is_the_mean_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    of = tasks(finetune=3, evaluate=3)
    seen = board(of)
    assert seen.eta() is None
    for task, took in zip(of, (60, 80, 0, 10), strict=False):
        if took:
            seen.begin(task)
            clock[0] += took
            seen.settle(task, "done")
    assert seen.eta() == "1:30"  # a mean of 70 s for the one finetune, 10 s for each of two evaluations
    seen.begin(of[2])
    clock[0] += 30
    assert seen.eta() == "1:00"
    seen.workers = 2
    assert seen.eta() == "0:30"


def test_without_a_terminal_it_is_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    of = tasks(finetune=2)
    with board(of) as seen:
        seen.begin(of[0])
        seen.settle(of[0], "done")
        seen.show("waiting")
        seen.show("waiting")
        seen.settle(of[1], "stale")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["[0/2]", "[1/2]", "waiting", "[2/2]"]
    assert "done: 0.0 s" in lines[1] and "stale" in lines[3]


def test_what_other_processes_finish_meanwhile_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("peftlab.board.LOOKED_AFTER", -1.0)
    of = [Task(Run(), "finetune", tmp_path / f"finetune{i}") for i in range(4)]
    for task, age in zip(of[1:3], (0, 3600), strict=True):  # the latter lay there before: it is skipped, or stale, when its turn comes
        task.folder.mkdir()
        (task.folder / "run.json").write_text("{}")
        os.utime(task.folder / "run.json", (written := time.time() + 1 - age, written))
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    seen = board(of)
    seen.begin(of[0])
    clock[0] += 60
    seen.settle(of[0], "done")
    assert "[2/4]" in capsys.readouterr().out and seen.eta() == "2:00", "two of four are left"
    assert row(shown(seen), "02_finetune")["done"] == "2" and row(shown(seen), "02_finetune")["to do"] == "2"
    seen.settle(of[1], "done")
    assert "[2/4]" in capsys.readouterr().out, "not counted twice"
