"""Notebooks executed for Runs through papermill: one, or those of a whole study with resume."""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from peftlab import datasets, kernels, models, paths, records
from peftlab.grid import Study
from peftlab.run import CONTROLS, Run

NOTEBOOKS = {"prepare": "01_prepare_data", "finetune": "02_finetune", "evaluate": "03_evaluate", "probe": "04_probe_hallucination"}
OUTCOMES = ("done", "skipped", "failed", "blocked", "stale")
WAIT = 1.0  # seconds between looks at a stage that another executor is running


class StageFailed(RuntimeError):
    """A notebook that did not finish its stage: `facts` is what failure.json says of it."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(facts["what"])
        self.facts = facts


@dataclass(frozen=True)
class Task:
    """One notebook to execute for one run; `folder` exists when it is finished, `needs` are the folders it reads."""

    run: Run
    stage: str
    folder: Path
    needs: tuple[Path, ...] = ()

    @property
    def copy(self) -> Path:
        """The executed copy of the notebook, beside the stage's folder."""
        return self.folder.with_name(f"{self.folder.name}.ipynb")

    @property
    def failure(self) -> Path:
        """What is known of its failure, beside the stage's folder."""
        return self.folder.with_name(f"{self.folder.name}.failure.json")

    @property
    def lock(self) -> Path:
        """Held, by flock, while the stage is executed; it holds the executor's process id."""
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def name(self) -> str:
        """What people call it: the notebook's number, the run, what is asked of it."""
        inner = {"prepare": "", "finetune": "", "evaluate": self.run.test_id, "probe": self.run.probe_id}[self.stage]
        return " ".join(filter(None, (NOTEBOOKS[self.stage][:2], self.run.dataset if self.stage == "prepare" else self.run.id, inner)))


def execute(notebook: str | Path, run: Run, output: Path, *, again: bool = False) -> None:
    """Execute a notebook for `run` in a kernel of its own; the executed copy is written to `output` also where it fails.

    `notebook` is a name in notebooks/ or a path. Every axis is passed as a parameter. Raises StageFailed with the failing
    cell and its error, or with the kernel's death; ValueError where there is no such notebook.
    """
    source = Path(notebook) if Path(notebook).suffix else paths.notebooks() / f"{notebook}.ipynb"
    if not source.is_file():
        raise ValueError(f"there is no notebook {source}")
    import papermill  # seconds of imports, which the fork server spends on its own at the same time

    output.parent.mkdir(parents=True, exist_ok=True)
    killed = _killed_for_memory()
    facts = {"where": source.name, "when": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        papermill.execute_notebook(
            source, output, parameters={**run.axes(), "again": again}, progress_bar=False, start_timeout=300, iopub_timeout=60,
            kernel_manager_class=kernels.manager_class(),
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        cell, text = _failing_cell(output), f"{error.ename}: {error.evalue}"
        what = f"cell {cell} of {source.name} raised {text.splitlines()[0][:300]}"
        raise StageFailed(what=what, cell=cell, error=text, out_of_memory=_speaks_of_memory(text), **facts) from error
    except Exception as error:  # a dead kernel, or one that never answered: whatever it is, it is recorded and others go on
        cell, memory, code = _failing_cell(output), _killed_for_memory() > killed, kernels.last_exit()
        ended = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        what = f"the kernel of {source.name} died in cell {cell}{ended}{': the system had no memory left' if memory else ''}"
        raise StageFailed(what=what, cell=cell, error=f"{type(error).__name__}: {error}", out_of_memory=memory, **facts) from error


def _failing_cell(output: Path) -> str | None:
    """The id of the cell that raised, else of the last one that was begun."""
    if not output.exists():
        return None
    begun = None
    for cell in nbformat.read(output, as_version=4).cells:
        if any(o.output_type == "error" for o in cell.get("outputs", [])):
            return cell.id
        begun = cell.id if cell.metadata.get("papermill", {}).get("start_time") else begun
    return begun


def _speaks_of_memory(text: str) -> bool:
    name = text.partition(":")[0]
    return name.endswith(("MemoryError",)) or any(said in text.lower() for said in ("out of memory", "not enough memory", "can't allocate memory"))


def _killed_for_memory() -> int:
    """How many processes the system has killed for want of memory so far; 0 where it does not say."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


# ---------------------------------------------------------------- a study


def plan(study: Study) -> list[Task]:
    """What a study asks for, each once, in an order that respects who reads what: data first, then model by model."""
    prepared = {name: _prepare(name) for name in _datasets(study)}
    tasks: dict[Path, Task] = {task.folder: task for task in prepared.values()}
    by_id: dict[str, list[Run]] = {}
    for run in study.runs:
        by_id.setdefault(run.id, []).append(run)
    for runs in by_id.values():
        for stage in ("finetune", "evaluate", "probe"):
            for run in runs if stage in study.stages else ():
                reads = {"finetune": run.dataset, "evaluate": run.tested_on, "probe": records.PROBED}[stage]
                tuned = () if stage == "finetune" or not _tunes(run) or "finetune" not in study.stages else (records.stage_folder(run, "finetune"),)
                folder = records.stage_folder(run, stage)
                if stage != "finetune" or _tunes(run):
                    tasks.setdefault(folder, Task(run, stage, folder, (prepared[reads].folder, *tuned)))
    return list(tasks.values())


def _tunes(run: Run) -> bool:
    return run.method != "none"


def _datasets(study: Study) -> list[str]:
    tuned = {run.dataset for run in study.runs if _tunes(run)} if "finetune" in study.stages else set()
    tested = {run.tested_on for run in study.runs} if "evaluate" in study.stages else set()
    probed = {records.PROBED} if "probe" in study.stages else set()
    return [name for name in datasets.DATASETS if name in tuned | tested | probed]


def _prepare(dataset: str) -> Task:
    return Task(Run(dataset=dataset), "prepare", paths.prepared() / dataset)


class _States:
    """The state of tasks by their files; the digests of bases are computed once."""

    def __init__(self) -> None:
        self.bases: dict[str, str] = {}

    def of(self, task: Task) -> str:
        """finished | stale | missing; ValueError where a file of a finished stage was edited."""
        if task.stage == "prepare":
            return "finished" if records.is_prepared(task.run.dataset) else "missing"
        if not (task.folder / "run.json").exists() or not (task.needs[0] / "digests.json").exists():
            return "missing"
        model = task.run.model
        self.bases.setdefault(model, models.digest(model))
        return records.state(task.run, task.stage, records.inputs(task.run, task.stage, base=self.bases[model]))

    def seen(self, task: Task) -> str:
        """As `of`, with what people want to know of a stage that is missing: running, failed or to do."""
        found = self.of(task)
        if task.lock.exists() and _alive(task.lock.read_text()):
            return "running"
        return ("failed" if task.failure.exists() else "to do") if found == "missing" else {"finished": "done"}.get(found, found)


def run_grid(study: Study, *, again_stale: bool = False, live: bool = True) -> dict[str, int]:
    """Execute what of a study is not finished; returns how many stages were done, skipped, failed, blocked and stale.

    A failing stage is recorded beside its folder and the others go on, except those that read it (blocked). Stale stages are
    named and left, unless `again_stale`. A stage that another executor holds is waited for at the end. Raises ValueError,
    before anything is executed, where a finished folder was edited. `live` draws a table if this is a terminal.
    """
    tasks, states, outcomes = plan(study), _States(), dict[Path, str]()
    for task in tasks:
        records.sealed(task.folder) if task.stage != "prepare" else None
    if any(states.of(task) != "finished" for task in tasks):
        kernels.warm_up()
    with _Board(study, tasks, outcomes, live=live and sys.stdout.isatty()) as board:
        waiting = tasks
        while waiting:
            before, waiting = len(waiting), [task for task in waiting if not _advance(task, states, outcomes, board, again_stale=again_stale)]
            if len(waiting) == before:
                board.show(f"waiting for another process: {waiting[0].name}")
                time.sleep(WAIT)
    counts = Counter(outcomes.values())
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _advance(task: Task, states: _States, outcomes: dict[Path, str], board: "_Board", *, again_stale: bool) -> bool:
    """Settle a task's outcome; False where that must wait for another process."""
    if any(outcomes.get(need) in ("failed", "blocked", "stale") for need in task.needs):
        return board.settle(task, "blocked")
    if any(need not in outcomes for need in task.needs):
        return False
    if states.of(task) == "finished":
        return board.settle(task, "skipped")
    with _locked(task) as mine:
        if not mine:
            return False
        found = states.of(task)  # another process may have finished it meanwhile
        if found == "finished" or (found == "stale" and not again_stale):
            return board.settle(task, {"finished": "skipped"}.get(found, found))
        board.begin(task)
        try:
            _execute(task, states, again=found == "stale")
        except StageFailed as failed:
            task.failure.write_text(json.dumps({"stage": task.stage, "run": task.run.id, **failed.facts}, indent=1))
            return board.settle(task, "failed", str(failed))
    return board.settle(task, "done")


def _execute(task: Task, states: _States, *, again: bool) -> None:
    _sweep(task)
    task.failure.unlink(missing_ok=True)
    execute(NOTEBOOKS[task.stage], task.run, task.copy, again=again)
    if states.of(task) != "finished":
        name = f"{NOTEBOOKS[task.stage]}.ipynb"
        what = f"{name} ran to its end, but {task.folder} is not a finished stage"
        raise StageFailed(what=what, where=name, cell=None, error=what, out_of_memory=False, when=datetime.now(UTC).isoformat(timespec="seconds"))


def _sweep(task: Task) -> None:
    """Remove what notebooks that were killed left behind of this stage: temporary folders named by a process that is gone."""
    for folder in task.folder.parent.glob(f".{task.folder.name}.*"):
        if folder.is_dir() and not _alive(folder.suffix[1:]):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: str) -> bool:
    return pid.strip().isdigit() and psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def _locked(task: Task) -> Iterator[bool]:
    """Whether this process has the stage to itself. The system frees the lock of a process that dies."""
    task.lock.parent.mkdir(parents=True, exist_ok=True)
    with task.lock.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if not task.lock.exists() or os.fstat(handle.fileno()).st_ino != task.lock.stat().st_ino:
            yield False  # its holder removed it between our two steps
            return
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        try:
            yield True
        finally:
            task.lock.unlink(missing_ok=True)


# ---------------------------------------------------------------- what is shown

COLUMNS = ("done", "running", "failed", "blocked", "stale", "to do")
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "magenta", "stale": "yellow", "to do": "default"}


def status(study: Study) -> dict[str, int]:
    """Print how far a study is, by its files, whoever executes it; returns the counts of `COLUMNS`."""
    tasks, states = plan(study), _States()
    found = {task.folder: states.seen(task) for task in tasks}
    console = Console()
    console.print(_table(study, tasks, found))
    for task in tasks:
        if found[task.folder] in ("failed", "stale", "running"):
            said = f": {json.loads(task.failure.read_text())['what']}" if found[task.folder] == "failed" else ""
            console.print(Text(f"{found[task.folder]:>8}  {task.name}{said}", style=COLOURS[found[task.folder]]))
    counts = Counter(found.values())
    return {column: counts[column] for column in COLUMNS}


def _table(study: Study, tasks: list[Task], found: dict[Path, str], *, eta: str | None = None) -> Table:
    table = Table(title=f"{study.name}: {len(study.runs)} runs", title_justify="left", caption=eta and f"about {eta} to go", caption_justify="left")
    table.add_column("notebook")
    for column in COLUMNS:
        table.add_column(column, justify="right", style=COLOURS[column])
    for stage, notebook in NOTEBOOKS.items():
        counts = Counter(found.get(task.folder, "to do") for task in tasks if task.stage == stage)
        if counts:
            table.add_row(notebook, *(str(counts[column] or "–") for column in COLUMNS))
    return table


@dataclass
class _Board:
    """The progress of a grid: a live table on a terminal, else a line per stage."""

    study: Study
    tasks: list[Task]
    outcomes: dict[Path, str]
    live: bool
    running: Task | None = None
    since: float = 0.0
    note: str = ""
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    _live: Live | None = None

    def __enter__(self) -> "_Board":
        if self.live:
            self._live = Live(get_renderable=self._render, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running, self.note = None, ""
        if self._live:
            self._live.stop()

    def begin(self, task: Task) -> None:
        """A stage starts."""
        self.running, self.since, self.note = task, time.perf_counter(), ""
        self._say(task, "…")

    def settle(self, task: Task, outcome: str, what: str = "") -> bool:
        """A stage has its outcome; True, so that the caller can return it."""
        if task is self.running:
            took = time.perf_counter() - self.since
            self.running = None
            if outcome == "done":
                self.seconds.setdefault(task.stage, []).append(took)
                what = f"{took:.1f} s"
        self.outcomes[task.folder] = outcome
        if outcome in ("failed", "stale"):
            self.failures.append(f"{outcome}: {task.name}{': ' if what else ''}{what}")
        self._say(task, f"{outcome}{': ' if what else ''}{what}")
        return True

    def show(self, note: str) -> None:
        """Say once why nothing happens."""
        if note != self.note and not self._live:
            print(note, flush=True)
        self.note = note

    def eta(self) -> str | None:
        """Minutes and seconds to go, from the mean of each kind of stage done so far; None while there is none."""
        known = {stage: sum(s) / len(s) for stage, s in self.seconds.items()}
        if not known:
            return None
        usual = max(known.values())
        left = sum(known.get(task.stage, usual) for task in self.tasks if task.folder not in self.outcomes)
        left -= min(time.perf_counter() - self.since, known.get(self.running.stage, usual)) if self.running else 0
        return f"{int(left // 60)}:{int(left % 60):02d}"

    def _say(self, task: Task, what: str) -> None:
        if not self._live:
            eta = self.eta()
            print(f"[{len(self.outcomes)}/{len(self.tasks)}] {task.name} {what}{f' (about {eta} to go)' if eta and what != '…' else ''}", flush=True)

    def _render(self) -> Group:
        found = {folder: {"skipped": "done"}.get(outcome, outcome) for folder, outcome in self.outcomes.items()}
        lines = [Text(line, style=COLOURS[line.partition(":")[0]]) for line in self.failures[-10:]]
        if self.running:
            found[self.running.folder] = "running"
            lines.append(Text(f"{self.running.name}  {time.perf_counter() - self.since:.0f} s", style=COLOURS["running"]))
        if self.note:
            lines.append(Text(self.note))
        return Group(_table(self.study, self.tasks, found, eta=self.eta()), *lines)


# ---------------------------------------------------------------- the parameters cells


def parameters_cell() -> str:
    """The source of every pipeline notebook's parameters cell: one axis a line with its default and meaning, then the controls."""
    lines = [f"{f.name} = {_literal(f.default)}  # {f.metadata['says']}" for f in fields(Run)]
    return "\n".join([*lines, *(f"{name} = False  # make a finished stage again" for name in CONTROLS)])


def renew_parameters() -> list[Path]:
    """Rewrite the parameters cells of the pipeline notebooks from `Run`; returns those that changed."""
    changed = []
    for name in NOTEBOOKS.values():
        file = paths.notebooks() / f"{name}.ipynb"
        notebook = nbformat.read(file, as_version=4)
        (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        if cell.source != parameters_cell():
            cell.source = parameters_cell()
            nbformat.write(notebook, file)
            changed.append(file)
    return changed


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
