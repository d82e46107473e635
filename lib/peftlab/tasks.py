"""What a study asks to be executed, and how far that is on disk."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from peftlab import datasets, models, paths, records
from peftlab.grid import Study
from peftlab.run import Run

UNFIT = "does not fit"  # in memory: a result, and no failure
NOTEBOOKS = {"prepare": "01_prepare_data", "finetune": "02_finetune", "evaluate": "03_evaluate", "probe": "04_probe_hallucination"}


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
        return records.failure_file(self.folder)

    @property
    def lock(self) -> Path:
        """Held, by flock, while the stage is executed; it holds the executor's process id."""
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def name(self) -> str:
        """What people call it: the notebook's number, the run, what is asked of it."""
        inner = {"prepare": "", "finetune": "", "evaluate": self.run.test_id, "probe": self.run.probe_id}[self.stage]
        return " ".join(filter(None, (NOTEBOOKS[self.stage][:2], self.run.dataset if self.stage == "prepare" else self.run.id, inner)))


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
                reads = {"finetune": run.dataset, "evaluate": run.tested_on, "probe": records.probed(run)}[stage]
                beside = tuple(prepared[name].folder for name in records.replayed(run)) if stage == "finetune" else ()
                own = records.stage_folder(run, "finetune")
                tuned = (own,) if stage != "finetune" and _tunes(run) and ("finetune" in study.stages or own.exists()) else ()
                folder = records.stage_folder(run, stage)
                if stage != "finetune" or _tunes(run):
                    tasks.setdefault(folder, Task(run, stage, folder, (prepared[reads].folder, *beside, *tuned)))
    return list(tasks.values())


def _tunes(run: Run) -> bool:
    return run.method != "none"


def _datasets(study: Study) -> list[str]:
    tuned = {run.dataset for run in study.runs if _tunes(run)} if "finetune" in study.stages else set()
    tested = {run.tested_on for run in study.runs} if "evaluate" in study.stages else set()
    probed = {records.probed(run) for run in study.runs} if "probe" in study.stages else set()
    replayed = {name for run in study.runs for name in records.replayed(run)} if "finetune" in study.stages else set()
    return [name for name in datasets.names() if name in tuned | tested | probed | replayed]


def _prepare(dataset: str) -> Task:
    return Task(Run(dataset=dataset, method="none"), "prepare", paths.prepared() / dataset)


class States:
    """The state of tasks by their files; the digests of bases are computed once."""

    def __init__(self) -> None:
        self.bases: dict[str, str] = {}

    def of(self, task: Task) -> str:
        """finished | stale | missing; ValueError where a file of a finished stage was edited."""
        if task.stage == "prepare":
            return "finished" if records.is_prepared(task.run.dataset) else "missing"
        if not (task.folder / "run.json").exists() or not (task.needs[0] / "digests.json").exists():
            return "missing"
        return records.state(task.run, task.stage, records.inputs(task.run, task.stage, base=self._base(task.run.model)))

    def seen(self, task: Task) -> str:
        """As `of`, with what people want to know of a stage that is missing: running, failed, unfit or to do."""
        found = self.of(task)
        if task.lock.exists() and _alive(task.lock.read_text()):
            return "running"
        missing = UNFIT if found == "missing" and self.unfit(task) else "failed" if task.failure.exists() else "to do"
        return {"missing": missing, "finished": "done"}.get(found, found)

    def unfit(self, task: Task) -> dict[str, Any] | None:
        """As `records.unfit`; never of a data set that is prepared."""
        return None if task.stage == "prepare" else records.unfit(task.run, task.stage, digest=self._base)

    def fail(self, task: Task, facts: dict[str, Any]) -> None:
        """Write beside its folder why a task failed and what it was made from, whole or not at all: where nothing can be written, who executes it says so anyway."""
        made_from = None if task.stage == "prepare" else records.made_from(task.run, task.stage, digest=self._base)
        part = task.failure.with_suffix(".part")
        with contextlib.suppress(OSError):
            try:
                part.write_text(json.dumps({"stage": task.stage, "run": task.run.id, **facts, "made_from": made_from}, indent=1))
                part.replace(task.failure)
            finally:
                part.unlink(missing_ok=True)

    def _base(self, model: str) -> str:
        if model not in self.bases:
            self.bases[model] = models.digest(model)
        return self.bases[model]


def sweep(task: Task) -> None:
    """Remove what notebooks that were killed left behind of this stage: temporary folders named by a process that is gone."""
    for folder in task.folder.parent.glob(f".{task.folder.name}.*"):
        if folder.is_dir() and not _alive(folder.suffix[1:]):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: str) -> bool:
    return pid.strip().isdigit() and psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def locked(task: Task) -> Iterator[bool]:
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


def unlocked(task: Task) -> None:
    """Remove the lock that a process left which died between a finished stage and its lock; one that is held stays."""
    with contextlib.suppress(OSError):  # on a disk that takes nothing it stays too
        if task.lock.exists():
            with locked(task):
                pass
