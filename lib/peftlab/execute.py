"""Notebooks executed for Runs through papermill: one, or those of a whole study with resume."""

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

from peftlab import kernels, paths, provenance, records
from peftlab.board import Board
from peftlab.grid import Study
from peftlab.run import CONTROLS, Run
from peftlab.tasks import NOTEBOOKS, UNFIT, States, Task, locked, plan, sweep, unlocked

OUTCOMES = ("done", "skipped", "failed", "blocked", "stale", UNFIT)
WAIT = 1.0  # seconds between looks at a stage that another executor is running


class StageFailed(RuntimeError):
    """A notebook that did not finish its stage: `facts` is what failure.json says of it.

    `where` is the notebook, or what else failed, `error` what was raised (`what` itself unless given) and `when` in UTC (now unless given).
    Where memory ran out, `machine` is `provenance.machine`'s, free bytes being those before the notebook began, and ``of_gpu`` says whose it was.
    """

    def __init__(
        self, what: str, *, where: str, cell: str | None = None, error: str | None = None, out_of_memory: bool = False, when: str | None = None, machine: dict[str, Any] | None = None
    ) -> None:
        super().__init__(what)
        self.facts = {"what": what, "where": where, "cell": cell, "error": error or what, "out_of_memory": out_of_memory, "when": when or _now()}
        if out_of_memory:
            self.facts |= {"of_gpu": "cuda" in self.facts["error"].lower(), **(machine or {})}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def execute(notebook: str | Path, run: Run, output: Path, *, again: bool = False) -> None:
    """Execute a notebook for `run` in a kernel of its own; the executed copy is written to `output` also where it fails.

    `notebook` is a name in notebooks/ or a path. Every axis is passed as a parameter. Raises StageFailed with the failing
    cell and its error, or with the kernel's death; ValueError where there is no such notebook.
    """
    _perform(notebook, output, {**run.axes(), "again": again})


def aggregate(notebooks: Sequence[str | Path], study: str, *, each: int = 0) -> Iterator[Path]:
    """Execute aggregate notebooks for a collected study; gives their executed copies in report/build/notebooks, in the order of the notebooks.

    A notebook is a name in notebooks/ or a path. As many run at once as there are cores and, where each takes `each` bytes, as fit in memory.
    Raises like `execute` for the first that failed: the kernels of those that still run are ended, and no other is begun.
    """
    failed = Event()

    def perform(notebook: str | Path, copy: Path) -> None:
        if not failed.is_set():
            try:
                _perform(notebook, copy, {"study": study})
            except BaseException:
                failed.set()
                raise

    _papermill()  # imported by one thread
    copies = [paths.build() / "notebooks" / f"{Path(notebook).stem}.ipynb" for notebook in notebooks]
    fit = provenance.memory().free // each if each else len(copies)
    with ThreadPoolExecutor(max(1, min(provenance.cores(), fit))) as pool:
        begun = [pool.submit(perform, notebook, copy) for notebook, copy in zip(notebooks, copies, strict=True)]
        waiting = deque(zip(begun, copies, strict=True))
        try:
            for ended in as_completed(begun):
                ended.result()  # raises what it failed with, though one before it still runs
                while waiting and waiting[0][0].done():
                    one, copy = waiting.popleft()
                    one.result()
                    yield copy
        except BaseException:
            failed.set()
            kernels.shut_down()
            raise


@cache
def _papermill() -> ModuleType:
    with _without("rfc3987_syntax"):  # jsonschema would read its grammar of addresses for four seconds, and no notebook needs it
        import papermill  # seconds of imports, which the fork server spends on its own at the same time
    return papermill


def _perform(notebook: str | Path, output: Path, parameters: dict[str, Any]) -> None:
    """Execute a notebook with `parameters` in a kernel of its own; see `execute`."""
    source = Path(notebook) if Path(notebook).suffix else paths.notebooks() / f"{notebook}.ipynb"
    if not source.is_file():
        raise ValueError(f"there is no notebook {source}")
    papermill = _papermill()
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    killed, free = _killed_for_memory(), provenance.memory().free
    began = _now()
    try:
        papermill.execute_notebook(
            source, output, parameters=parameters, progress_bar=False, start_timeout=300, iopub_timeout=60,
            kernel_manager_class=kernels.manager_class(),
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        cell, text = _failing_cell(output), f"{error.ename}: {error.evalue}"
        what, memory = f"cell {cell} of {source.name} raised {text.splitlines()[0][:300]}", _speaks_of_memory(text)
        raise StageFailed(what, where=source.name, cell=cell, error=text, out_of_memory=memory, when=began, machine=_machine(free) if memory else None) from error
    except Exception as error:  # a dead kernel, one that never answered: whatever it is, it is recorded and others go on
        cell, memory, code = _failing_cell(output), _killed_for_memory() > killed, kernels.last_exit()
        ended = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        dead = f"the kernel of {source.name} died in cell {cell}{ended}{': the system had no memory left' if memory else ''}"
        what = dead if isinstance(error, DeadKernelError) else f"{source.name} stopped in cell {cell}: {error}"
        raise StageFailed(what, where=source.name, cell=cell, error=f"{type(error).__name__}: {error}", out_of_memory=memory, when=began, machine=_machine(free) if memory else None) from error


@contextmanager
def _without(name: str) -> Iterator[None]:
    """What is imported in this block finds no module of this name, unless it has been imported before."""
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(name, None)


def _machine(free: int) -> dict[str, Any]:
    """This machine, with the bytes that were free when the notebook began."""
    return {**provenance.machine(), "free_bytes": free}


def _failing_cell(output: Path) -> str | None:
    """The id of the cell that raised, else of the last one that was begun; None where the copy does not say."""
    import nbformat

    try:
        cells = nbformat.read(output, as_version=4).cells
    except (OSError, ValueError):  # not there, or cut off where the disk was full
        return None
    begun = None
    for cell in cells:
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


@dataclass(frozen=True)
class Call:
    """How a grid is executed: what is made again, which stages were finished before, and the processes that share the call: its name, and how many they are."""

    again_stale: bool = False
    again_unfit: bool = False
    finished: frozenset[Path] = frozenset()
    name: str | None = None
    workers: int = 1


def run_grid(
    study: Study, *, again_stale: bool = False, again_unfit: bool = False, live: bool = True, name: str | None = None, workers: int = 1, alone: Callable[[], None] | None = None
) -> dict[str, int]:
    """Execute what of a study is not finished; returns how many stages have each of `OUTCOMES`.

    Several processes, `workers` of them, may do this for one study, as one call with a `name` that no other has. What another of them finished or
    failed is done or failed here too, and not tried again; without it, a stage that is finished is skipped and one that failed is tried again.

    A failing stage is recorded beside its folder and the others go on, except those that read it (blocked). One that ran out of memory with no
    other worker beside it does not fit, nor do those that read it: it is not tried again, unless `again_unfit`. One that ran out of memory in
    company is tried again once `alone` has returned, which ends when the other workers have. Stale stages are named and left, unless `again_stale`.
    A stage that another executor holds is waited for at the end. Raises ValueError, before anything is executed, where a finished folder was edited.
    `live` draws a table if this is a terminal.
    """
    tasks, states, outcomes = plan(study), States(), dict[Path, str]()
    call = Call(again_stale, again_unfit, frozenset(_finished(tasks, states)), name, workers)
    if len(call.finished) < len(tasks):
        kernels.warm_up()
    with Board(study, tasks, outcomes, live=live and sys.stdout.isatty(), workers=workers) as board:
        advance(tasks, states, outcomes, board, call)
        if alone:
            alone()
            board.workers = 1
            again = [task for task in tasks if outcomes[task.folder] == "blocked" or (outcomes[task.folder] == "failed" and _in_company(records.read_failure(task.folder)))]
            for task in again:
                del outcomes[task.folder]
            advance(again, states, outcomes, board, replace(call, workers=1))
    counts = Counter(outcomes.values())
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _finished(tasks: Iterable[Task], states: States) -> Iterator[Path]:
    """The folders of the tasks that are finished; ValueError where a file of one was edited."""
    for task in tasks:
        if states.of(task) == "finished":
            yield task.folder
        elif task.stage != "prepare":
            records.sealed(task.folder)


def _in_company(failure: dict[str, Any] | None) -> bool:
    """Whether a stage ran out of memory while others ran beside it, so that it may fit alone."""
    return failure is not None and failure["out_of_memory"] and bool(failure.get("beside"))


def advance(tasks: list[Task], states: States, outcomes: dict[Path, str], board: Board, call: Call) -> None:
    """Settle tasks in their order, on this machine; what another executor holds is waited for at the end."""
    waiting = tasks
    while waiting:
        before, waiting = len(waiting), [task for task in waiting if not _advance(task, states, outcomes, board, call)]
        if len(waiting) == before:
            board.show(f"waiting for another process: {waiting[0].name}")
            time.sleep(WAIT)


def _advance(task: Task, states: States, outcomes: dict[Path, str], board: Board, call: Call) -> bool:
    """Settle a task's outcome; False where that must wait for another process."""
    if any(outcomes.get(need) in ("failed", "blocked", "stale") for need in task.needs):
        return board.settle(task, "blocked")
    if any(need not in outcomes for need in task.needs):
        return False
    done = "done" if call.name and task.folder not in call.finished else "skipped"
    if states.of(task) == "finished":
        unlocked(task)
        return board.settle(task, done)
    with locked(task) as mine:
        if not mine:
            return False
        found = states.of(task)  # another process may have finished it meanwhile
        if found == "finished" or (found == "stale" and not call.again_stale):
            return board.settle(task, done if found == "finished" else found)
        known = _known(task, states, call)
        if known:
            return board.settle(task, *known)
        board.begin(task)
        try:
            _execute(task, states, again=found == "stale")
        except StageFailed as failed:
            states.fail(task, {**failed.facts, "call": call.name, "beside": call.workers - 1})
            sweep(task)  # what it had written so far: where the disk is full, that is the room others need
            return board.settle(task, UNFIT if states.unfit(task) else "failed", str(failed))
    return board.settle(task, "done")


def _known(task: Task, states: States, call: Call) -> tuple[str, str] | None:
    """The outcome, and why, of a task that is not to be tried: it does not fit, or a process of the same call has failed it."""
    unfit, failure = states.unfit(task), records.read_failure(task.folder)
    ours = failure is not None and call.name is not None and failure.get("call") == call.name
    if unfit and (ours or not call.again_unfit or unfit["stage"] != task.stage):
        return UNFIT, unfit["what"]
    return ("failed", failure["what"]) if ours and not (call.workers == 1 and _in_company(failure)) else None


def _execute(task: Task, states: States, *, again: bool) -> None:
    sweep(task)
    task.failure.unlink(missing_ok=True)
    execute(NOTEBOOKS[task.stage], task.run, task.copy, again=again)
    if states.of(task) != "finished":
        name = f"{NOTEBOOKS[task.stage]}.ipynb"
        raise StageFailed(f"{name} ran to its end, but {task.folder} is not a finished stage", where=name)


# ---------------------------------------------------------------- the parameters cells


def parameters_cell() -> str:
    """The source of every pipeline notebook's parameters cell: one axis a line with its default and meaning, then the controls."""
    lines = [f"{f.name} = {_literal(f.default)}  # {f.metadata['says']}" for f in fields(Run)]
    return "\n".join([*lines, *(f"{name} = False  # make a finished stage again" for name in CONTROLS)])


def renew_parameters() -> list[Path]:
    """Rewrite the parameters cells of the pipeline notebooks from `Run`; returns those that changed."""
    import nbformat

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
