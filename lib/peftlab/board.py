"""The progress of a study as people see it: a live table, a line per stage, or a look from another terminal."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from peftlab import records
from peftlab.grid import Study
from peftlab.tasks import NOTEBOOKS, UNFIT, States, Task, plan

LOOKED_AFTER = 5.0  # seconds
COLUMNS = ("done", "running", "failed", "blocked", "stale", UNFIT, "to do")
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "magenta", "stale": "yellow", UNFIT: "blue", "to do": "default"}


def status(study: Study) -> dict[str, int]:
    """Print how far a study is, by its files, whoever executes it; returns the counts of `COLUMNS`."""
    tasks, states = plan(study), States()
    found = {task.folder: states.seen(task) for task in tasks}
    console = Console()
    console.print(_table(study, tasks, found))
    for task in tasks:
        if found[task.folder] in ("failed", "stale", "running", UNFIT):
            why = states.unfit(task) if found[task.folder] == UNFIT else records.read_failure(task.folder) if found[task.folder] == "failed" else None
            said = f": {why['what']}" if why else ""
            console.print(Text(f"{found[task.folder]:>12}  {task.name}{said}", style=COLOURS[found[task.folder]]))
    counts = Counter(found.values())
    return {column: counts[column] for column in COLUMNS}


def _table(study: Study, tasks: list[Task], found: dict[Path, str], *, eta: str | None = None) -> Table:
    table = Table(title=f"{study.name}: {len(study.runs)} runs", title_justify="left", caption=eta and f"about {eta} to go", caption_justify="left")
    table.add_column("notebook")
    columns = [column for column in COLUMNS if column != UNFIT or UNFIT in found.values()]  # with it, the table is wider than many terminals
    for column in columns:
        table.add_column(column, justify="right", style=COLOURS[column])
    for stage, notebook in NOTEBOOKS.items():
        counts = Counter(found.get(task.folder, "to do") for task in tasks if task.stage == stage)
        if counts:
            table.add_row(notebook, *(str(counts[column] or "–") for column in columns))
    return table


@dataclass
class Board:
    """The progress of a grid: a live table on a terminal, else a line per stage."""

    study: Study
    tasks: list[Task]
    outcomes: dict[Path, str]
    live: bool
    workers: int = 1  # processes that share the grid
    running: dict[Path, tuple[Task, float]] = field(default_factory=dict)  # by folder, with when it began
    note: str = ""
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    _live: Live | None = None
    _looked: tuple[float, set[Path]] = (0.0, set())  # when the files were looked at last, and what others had done

    def __enter__(self) -> "Board":
        if self.live:
            self._live = Live(get_renderable=self._render, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running, self.note = {}, ""
        if self._live:
            self._live.stop()

    def begin(self, task: Task) -> None:
        """A stage starts."""
        self.running[task.folder], self.note = (task, time.perf_counter()), ""
        self._say(task, "…")

    def settle(self, task: Task, outcome: str, what: str = "", *, seconds: float | None = None) -> bool:
        """A stage has its outcome; True, so that the caller can return it. `seconds` are its own, where it did not start when it was begun."""
        if task.folder in self.running:
            begun = self.running.pop(task.folder)[1]
            took = time.perf_counter() - begun if seconds is None else seconds
            if outcome == "done":
                self.seconds.setdefault(task.stage, []).append(took)
                what = f"{took:.1f} s"
        self.outcomes[task.folder] = outcome
        if outcome in ("failed", "stale", UNFIT):
            self.failures.append(f"{outcome}: {task.name}{': ' if what else ''}{what}")
        self._say(task, f"{outcome}{': ' if what else ''}{what}")
        return True

    def show(self, note: str) -> None:
        """Say once why nothing happens."""
        if note != self.note and not self._live:
            print(note, flush=True)
        self.note = note

    def eta(self) -> str | None:
        """Minutes and seconds to go, from the mean of each kind of stage done here, shared by the workers; None while there is none, and at the end."""
        known = {stage: sum(s) / len(s) for stage, s in self.seconds.items()}
        todo = [task for task in self.tasks if task.folder not in self.outcomes and task.folder not in self.elsewhere()]
        if not known or not todo:
            return None
        usual = max(known.values())
        left = sum(known.get(task.stage, usual) for task in todo)
        left -= sum(min(time.perf_counter() - since, known.get(task.stage, usual)) for task, since in self.running.values())
        left /= self.workers
        return f"{int(left // 60)}:{int(left % 60):02d}"

    def elsewhere(self) -> set[Path]:
        """The folders of stages that other processes have finished since this one began, by their files, which are looked at every few seconds."""
        if time.monotonic() - self._looked[0] > LOOKED_AFTER:
            done = set()
            for task in self.tasks:
                with suppress(OSError):
                    if task.folder not in self.outcomes and (task.folder / "run.json").stat().st_mtime > self.began:
                        done.add(task.folder)
            self._looked = (time.monotonic(), done)
        return self._looked[1] - self.outcomes.keys()

    def _say(self, task: Task, what: str) -> None:
        if not self._live:
            eta = self.eta()
            print(f"[{len(self.outcomes.keys() | self.elsewhere())}/{len(self.tasks)}] {task.name} {what}{f' (about {eta} to go)' if eta and what != '…' else ''}", flush=True)

    def _render(self) -> Group:
        found = dict.fromkeys(self.elsewhere(), "done") | {folder: {"skipped": "done"}.get(outcome, outcome) for folder, outcome in self.outcomes.items()}
        lines = [Text(line, style=COLOURS[line.partition(":")[0]]) for line in self.failures[-10:]]
        for task, since in self.running.values():
            found[task.folder] = "running"
            lines.append(Text(f"{task.name}  {time.perf_counter() - since:.0f} s", style=COLOURS["running"]))
        if self.note:
            lines.append(Text(self.note))
        return Group(_table(self.study, self.tasks, found, eta=self.eta()), *lines)
