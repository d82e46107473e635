"""What a study will take, from stages like its own that were measured."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from peftlab import datasets, paths, provenance, records
from peftlab.grid import Study
from peftlab.run import Run
from peftlab.tasks import States, Task, plan

# What a pilot must share with a task to speak for it, the most alike first; the stage and the processor always.
ALIKE: tuple[tuple[str, ...], ...] = (
    ("model", "method", "connector", "quantisation", "precision", "checkpointing", "location", "layers"),
    ("model", "method", "quantisation", "precision"),
    ("model", "method"),
    ("model",),
)
UNKNOWN = 1000  # questions of a test set whose card does not say how many it has
SHORT = {"steps": 5, "test_size": 32, "probe_size": 36, "keep_every": None, "probe_step": None}  # of a pilot run


@dataclass(frozen=True)
class Pilot:
    """A finished stage: its axes, resolved; seconds of the notebook around the work, and a unit of work; peak bytes; bytes on disk."""

    stage: str
    axes: dict[str, Any]
    around: float
    each: float
    peak_memory_bytes: float
    disk_bytes: float


def pilots() -> list[Pilot]:
    """The finished stages of this machine's runs that a processor like its own made, with their executed notebooks beside them."""
    return [pilot for record in sorted(paths.runs().glob("*/**/run.json")) if (pilot := _pilot(record)) is not None]


def _pilot(record: Path) -> Pilot | None:
    content = json.loads(record.read_text())
    stamp, copy = content.get("stamp") or {}, record.parent.with_name(f"{record.parent.name}.ipynb")
    if not copy.exists() or stamp.get("processor") != provenance.processor() or "seconds" not in stamp:
        return None
    whole = json.loads(copy.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")
    axes = {**content["axes"], **content["resolved"]}
    if whole is None:
        return None
    files = [f for f in record.parent.iterdir() if f.is_file()]
    memory = max(stamp.get("peak_memory_bytes") or 0, 0)
    return Pilot(content["stage"], axes, max(0.0, whole - stamp["seconds"]), stamp["seconds"] / _work(content["stage"], Run.from_dict(content["axes"])), memory, sum(f.stat().st_size for f in files))


def _work(stage: str, run: Run) -> float:
    """How much a stage does, in examples seen or questions asked."""
    if stage == "finetune":
        return run.steps * run.batch_size
    asked, name = (run.test_size, run.tested_on) if stage == "evaluate" else (run.probe_size, records.probed(run))
    return asked or datasets.card(name).sizes["test"] or UNKNOWN


def table(study: Study) -> pd.DataFrame:
    """A row per kind of stage that is not finished: notebook, model, method, stages, seconds each, peak and disk bytes, pilots, alike.

    ``alike`` says how much the pilots share with the task: 0 is most, as in `ALIKE`; where there are none it and what is estimated are missing.
    """
    measured, states, rows = pilots(), States(), list[dict[str, Any]]()
    for task in plan(study):
        if task.stage != "prepare" and states.of(task) != "finished":
            rows.append(_row(task, measured))
    frame = pd.DataFrame(rows, columns=["stage", "model", "method", "seconds", "memory", "disk", "pilots", "alike"])
    by = frame.groupby(["stage", "model", "method"], sort=False, dropna=False)
    return by.agg(stages=("seconds", "size"), seconds=("seconds", "mean"), memory=("memory", "max"), disk=("disk", "sum"), pilots=("pilots", "min"), alike=("alike", "max")).reset_index()


def _row(task: Task, measured: Sequence[Pilot]) -> dict[str, Any]:
    axes = {**task.run.axes(), **task.run.resolved()}
    names = {"stage": task.stage, "model": task.run.model, "method": task.run.method}
    for level, keys in enumerate(ALIKE):
        mine = [p for p in measured if p.stage == task.stage and all(p.axes.get(key) == axes.get(key) for key in keys)]
        if mine:
            around, each = (pd.Series([getattr(p, name) for p in mine]).median() for name in ("around", "each"))
            most = {name: max(getattr(p, f"{whole}_bytes") for p in mine) for name, whole in (("memory", "peak_memory"), ("disk", "disk"))}
            return {**names, "seconds": around + each * _work(task.stage, task.run), **most, "pilots": len(mine), "alike": level}
    return {**names, "seconds": math.nan, "memory": math.nan, "disk": math.nan, "pilots": 0, "alike": None}


def short(study: Study) -> Study:
    """A study of pilots: each model and method of `study` that no finished stage here is most alike to, a few steps and questions each."""
    measured, chosen = pilots(), dict[tuple[Any, ...], Run]()
    for task in plan(study):
        alike = _row(task, measured)["alike"] if task.stage != "prepare" else 0
        if alike != 0:
            axes = {**task.run.axes(), **task.run.resolved()}
            chosen.setdefault((*(axes.get(key) for key in ALIKE[0]),), replace(task.run, **SHORT))
    return Study(f"{study.name}-pilots", f"What the runs of {study.name} will take.", study.stages, tuple(chosen.values()))


def sentences(study: Study, found: pd.DataFrame, *, workers: int) -> Iterator[str]:
    """What `table` says of the study, in sentences: runs, hours, memory, disk, and what nothing here can tell."""
    known = found.dropna(subset=["seconds"])
    total = float((known["seconds"] * known["stages"]).sum())
    yield f"{study.name}: {len(study.runs)} runs, {int(found['stages'].sum())} stages to do"
    if len(known):
        yield f"about {total / 3600 / workers:.1f} hours with {workers} at a time, by {int(known['pilots'].sum())} finished stages of this machine; {total / 3600:.1f} hours in all"
        yield f"memory: {workers * known['memory'].max() / 1e9:.1f} GB at most; disk: {known['disk'].sum() / 1e9:.2f} GB"
    coarse = sorted(set(known.loc[known["alike"] > 0, "method"]))
    if coarse:
        yield f"from other settings or methods: {', '.join(coarse)}"
    unknown = found[found["seconds"].isna()]
    if len(unknown):
        kinds = [f"{row.stage} of {row.method} on {row.model}" for row in unknown.itertuples()]
        yield f"not known: {', '.join(kinds[:6])}{f' and {len(kinds) - 6} more' if len(kinds) > 6 else ''}; `python -m peftlab estimate {study.name} --measure` runs a few steps of each"
