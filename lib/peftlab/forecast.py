"""What a study will take, and how much of it goes at once, from stages like its own that were measured."""

import itertools
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
    """A finished stage: its axes, resolved; seconds of the notebook around the work, and a unit of work; peak bytes, of GPUs too; bytes on disk."""

    stage: str
    axes: dict[str, Any]
    around: float
    each: float
    peak_memory_bytes: float
    peak_device_bytes: float
    disk_bytes: float


def pilots() -> list[Pilot]:
    """The finished stages of this machine's runs that a processor and a GPU like its own made (where it has one), with their executed notebooks beside them."""
    devices = {gpu.name for gpu in provenance.gpus()} or {"cpu"}
    return [pilot for record in sorted(paths.runs().glob("*/**/run.json")) if (pilot := _pilot(record, devices)) is not None]


def _pilot(record: Path, devices: set[str]) -> Pilot | None:
    content = json.loads(record.read_text())
    stamp, copy = content.get("stamp") or {}, record.parent.with_name(f"{record.parent.name}.ipynb")
    if not copy.exists() or stamp.get("processor") != provenance.processor() or stamp.get("device", "cpu") not in devices or "seconds" not in stamp:
        return None
    whole = json.loads(copy.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")
    axes = {**content["axes"], **content["resolved"]}
    if whole is None:
        return None
    files = [f for f in record.parent.iterdir() if f.is_file()]
    peaks = (max(stamp.get(f"peak_{what}_bytes") or 0, 0) for what in ("memory", "device"))
    return Pilot(content["stage"], axes, max(0.0, whole - stamp["seconds"]), stamp["seconds"] / _work(content["stage"], Run.from_dict(content["axes"])), *peaks, sum(f.stat().st_size for f in files))


def _work(stage: str, run: Run) -> float:
    """How much a stage does, in examples seen or questions asked."""
    if stage == "finetune":
        return run.steps * run.batch_size
    asked, name = (run.test_size, run.tested_on) if stage == "evaluate" else (run.probe_size, records.probed(run))
    return asked or datasets.card(name).sizes["test"] or UNKNOWN


def table(study: Study) -> pd.DataFrame:
    """A row per kind of stage that is to do: notebook, model, method, stages, seconds each, peak bytes of memory and of the GPU, disk bytes, pilots, alike.

    ``alike`` says how much the pilots share with the task: 0 is most, as in `ALIKE`; where there are none it and what is estimated are missing.
    """
    measured, states, rows = pilots(), States(), list[dict[str, Any]]()
    for task in plan(study):
        if task.stage != "prepare" and states.of(task) != "finished" and not states.unfit(task):
            rows.append(_row(task, measured))
    frame = pd.DataFrame(rows, columns=["stage", "model", "method", "seconds", "memory", "device", "disk", "pilots", "alike"])
    by = frame.groupby(["stage", "model", "method"], sort=False, dropna=False)
    most = {name: (name, "max") for name in ("memory", "device")}
    return by.agg(stages=("seconds", "size"), seconds=("seconds", "mean"), **most, disk=("disk", "sum"), pilots=("pilots", "min"), alike=("alike", "max")).reset_index()


def _row(task: Task, measured: Sequence[Pilot]) -> dict[str, Any]:
    axes = {**task.run.axes(), **task.run.resolved()}
    names = {"stage": task.stage, "model": task.run.model, "method": task.run.method}
    for level, keys in enumerate(ALIKE):
        mine = [p for p in measured if p.stage == task.stage and all(p.axes.get(key) == axes.get(key) for key in keys)]
        if mine:
            around, each = (pd.Series([getattr(p, name) for p in mine]).median() for name in ("around", "each"))
            most = {name: max(getattr(p, f"{whole}_bytes") for p in mine) for name, whole in (("memory", "peak_memory"), ("device", "peak_device"), ("disk", "disk"))}
            return {**names, "seconds": around + each * _work(task.stage, task.run), **most, "pilots": len(mine), "alike": level}
    return {**names, **dict.fromkeys(("seconds", "memory", "device", "disk"), math.nan), "pilots": 0, "alike": None}


# ---------------------------------------------------------------- how many at once

SHARE = 0.9  # of free memory: a run's peak is not the same to the byte each time, nor is what else a machine does
ASSUMED = 6e9  # bytes of main memory where a kind of stage was not measured: the peak of full fine-tuning in the pocket tier, rounded up
CONTEXT = 6e8  # bytes of a GPU that each process holds beside what torch counts
MOST = 4  # runs at once on a CPU: each of them keeps a core busy, and memory's bandwidth is one for all


@dataclass(frozen=True)
class Room:
    """How many runs go at once: for each what CUDA_VISIBLE_DEVICES is to be (None: as it is), and why there are so many, in words."""

    gpus: tuple[str | None, ...]
    why: str

    @property
    def workers(self) -> int:
        return len(self.gpus)


def room(study: Study, *, asked: int | None = None, again_stale: bool = False) -> Room:
    """How many runs of a study this machine holds at once, and on which GPUs; `asked` for so many where given.

    On GPUs each of several runs sees one of them. Its memory holds so many as `SHARE` of what is free is a multiple of the highest peak of the
    study's stages, by pilots; one a GPU where a kind of stage was not measured. Cores and main memory limit that, as they do on a CPU. A run alone sees
    every GPU that this process may use, since a model may need several. Raises ValueError where `asked` is less than 1.
    """
    if asked is not None and asked < 1:
        raise ValueError(f"--workers is {asked}; at least one run must be executed at a time")
    gpus = provenance.gpus() if asked != 1 else ()
    if asked is not None:
        places = [gpu.place for gpu in gpus] or [None]
        return Room(tuple(itertools.islice(itertools.cycle(places), asked)) if asked > 1 else (None,), "as asked")
    memory, device = _peaks(study, again_stale=again_stale)
    free, cores = provenance.memory().free, provenance.cores()
    fit = int(SHARE * free // (memory or ASSUMED))
    takes = f"a run takes {memory / 1e9:.1f}" if memory else f"{ASSUMED / 1e9:.1f} are taken for each run, not all being measured"
    why = f"{cores} cores; {free / 1e9:.1f} GB of memory are free, of which {takes}"
    if not gpus:
        return Room((None,) * max(1, min(cores, fit, MOST)), f"{why}; at most {MOST} on a CPU")
    held = [int(SHARE * gpu.free // (device + CONTEXT)) if device else 1 for gpu in gpus]
    places = [gpu.place for turn in range(max(held)) for gpu, most in zip(gpus, held) if turn < most][: max(1, min(cores, fit))]
    each = f"a run takes {(device + CONTEXT) / 1e9:.1f} GB of a GPU" if device else "one a GPU, since not all is measured on such a one"
    told = ", ".join(f"{gpu.name} with {gpu.free / 1e9:.1f} GB free" for gpu in gpus)
    return Room(tuple(places) if len(places) > 1 else (None,), f"{each}: {told}; {why}")


def _peaks(study: Study, *, again_stale: bool) -> tuple[float | None, float | None]:
    """The highest peak bytes, of main memory and of GPUs, of the study's stages that are to do; None where a kind of them was not measured."""
    states, kinds = States(), dict[tuple[Any, ...], Task]()
    for task in plan(study):
        if task.stage != "prepare" and (again_stale or not (task.folder / "run.json").exists()) and not states.unfit(task):
            kinds.setdefault((task.stage, *_kind(task)), task)
    measured = pilots() if kinds else []
    rows = [_row(task, measured) for task in kinds.values()]

    def most(name: str) -> float | None:
        found = max((row[name] for row in rows), default=math.nan, key=lambda peak: math.inf if math.isnan(peak) else peak)
        return None if math.isnan(found) or not found else found

    return most("memory"), most("device")


def _kind(task: Task) -> tuple[Any, ...]:
    """The levels of what a pilot shares with a task that it is most alike to."""
    axes = {**task.run.axes(), **task.run.resolved()}
    return tuple(axes.get(key) for key in ALIKE[0])


def short(study: Study) -> Study:
    """A study of pilots: each model and method of `study` that no finished stage here is most alike to, a few steps and questions each."""
    measured, chosen = pilots(), dict[tuple[Any, ...], Run]()
    for task in plan(study):
        alike = _row(task, measured)["alike"] if task.stage != "prepare" else 0
        if alike != 0:
            chosen.setdefault(_kind(task), replace(task.run, **SHORT))
    return Study(f"{study.name}-pilots", f"What the runs of {study.name} will take.", study.stages, tuple(chosen.values()))


def sentences(study: Study, found: pd.DataFrame, at_once: Room) -> Iterator[str]:
    """What `table` says of the study, in sentences: runs, how many at a time and why, hours, memory, disk, and what nothing here can tell."""
    workers, shared = at_once.workers, len(set(at_once.gpus)) < at_once.workers and at_once.gpus[0] is not None
    known = found.dropna(subset=["seconds"])
    total = float((known["seconds"] * known["stages"]).sum())
    yield f"{study.name}: {len(study.runs)} runs, {int(found['stages'].sum())} stages to do"
    yield f"{workers} at a time: {at_once.why}"
    if len(known):
        best = ", if runs that share a GPU do not slow each other" if shared else ""
        yield f"about {total / 3600 / workers:.1f} hours with {workers} at a time{best}, by {int(known['pilots'].sum())} finished stages of this machine; {total / 3600:.1f} hours in all"
        gpu = f", {workers * known['device'].max() / 1e9:.1f} GB of GPUs" if known["device"].max() else ""
        yield f"memory: {workers * known['memory'].max() / 1e9:.1f} GB at most{gpu}; disk: {known['disk'].sum() / 1e9:.2f} GB"
    coarse = sorted(set(known.loc[known["alike"] > 0, "method"]))
    if coarse:
        yield f"from other settings or methods: {', '.join(coarse)}"
    unknown = found[found["seconds"].isna()]
    if len(unknown):
        kinds = [f"{row.stage} of {row.method} on {row.model}" for row in unknown.itertuples()]
        yield f"not known: {', '.join(kinds[:6])}{f' and {len(kinds) - 6} more' if len(kinds) > 6 else ''}; `python -m peftlab estimate {study.name} --measure` runs a few steps of each"
