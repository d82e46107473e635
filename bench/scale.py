"""The end of the line: a made-up study of a given size, in the schema of a collected one, to its tables, figures and report.

``python -m bench.scale notebook NAME STUDY`` and ``… build STUDY`` are the steps that are measured, each in a process of its own.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.pairs import Pair
from peftlab import __main__ as command
from peftlab import answers, methods, metrics, models, paths, provenance, records
from peftlab.run import Run

QUESTIONS, PROBED, PASSAGES = 200, 180, 3
SETS = ("scenes", "facts", "titles", "icons_choice", "icons_blank", "science", "photos", "captions")
CHOICES = 6  # of these, the first so many are scored by the choice that an answer names
ORIGIN = {"commit": "0" * 40, "dirty": False, "processor": "none: made up", "device": "cpu"}


@dataclass(frozen=True)
class Size:
    """A study's size: seeds, and of the methods one in so many."""

    seeds: int
    one_in: int = 1


SIZES = (Size(1, 10), Size(1), Size(10))  # about 100,000, a million and ten million answers
COLLECTED = 500  # stages that are collected, and ten times as many


def measure() -> list[Pair]:
    """Seconds and the peak of memory of a study's end, at each size beside ten times those of the size before it."""
    found, before = [], None
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            now = _ended(size, Path(folder))
        found += _pairs(f"{now['rows']:,} answers and {now['scores']:,} scores: tables, figures, report", now, before)
        before = now
    before = None
    for stages in (COLLECTED, 10 * COLLECTED):
        with tempfile.TemporaryDirectory() as folder:
            now = _collected(stages, Path(folder))
        found += _pairs(f"{stages:,} stages collected and scored", now, before)
        before = now
    return found


def _pairs(what: str, now: dict[str, Any], before: dict[str, Any] | None) -> list[Pair]:
    """Ours beside what growing in proportion would take; the first of several beside itself."""
    times = now["rows"] / before["rows"] if before else 1
    return [
        Pair(what, [now[name]], [(before or now)[name] * times], f"{times:.1f} times the smaller" if before else "itself", unit=unit, note=now["note"])
        for name, unit in (("seconds", "s"), ("memory", "GB"))
    ]


# ---------------------------------------------------------------- the steps, each in a process of its own


def _ended(size: Size, folder: Path) -> dict[str, Any]:
    """Write a study of this size to `folder`, and make its tables, figures and report."""
    with _work(folder):
        rows, scores = write("scale", size)
        steps = {name: _step("notebook", name, "scale") for name in command.AGGREGATE} | {"report": _step("build", "scale")}
    note = ", ".join(f"{name} {one['seconds']:.1f} s ({one['processor']:.1f} of a core) {one['peak_memory_bytes'] / 1e9:.2f} GB" for name, one in steps.items())
    return {"rows": rows, "scores": scores, "seconds": sum(s["seconds"] for s in steps.values()), "memory": max(s["peak_memory_bytes"] for s in steps.values()) / 1e9, "note": note}


def _collected(stages: int, folder: Path) -> dict[str, Any]:
    """Write finished stages of runs to `folder`, and collect them."""
    with _work(folder):
        for dataset in SETS:
            (paths.prepared() / dataset).mkdir(parents=True)
            (paths.prepared() / dataset / "digests.json").write_text(json.dumps({"train": "0", "test": "0", "base": "0"}))
        base = models.digest(Run().model)
        for run in _few(stages):
            _finish(run, base)
        one = _step("collect", str(stages))
    return {"rows": stages * QUESTIONS, "seconds": one["seconds"], "memory": one["peak_memory_bytes"] / 1e9, "note": f"{1000 * one['seconds'] / stages:.2f} ms ({1000 * one['processor'] / stages:.2f} of a core) a stage of {QUESTIONS} answers"}


@contextmanager
def _work(folder: Path) -> Iterator[None]:
    """The environment in which results are written to and read from `folder`, and figures are drawn without a screen."""
    before = dict(os.environ)
    os.environ.update(PEFTLAB_WORK=str(folder), MPLBACKEND="agg")
    yield
    os.environ.clear()
    os.environ.update(before)


def _step(*arguments: str) -> dict[str, Any]:
    """What a step measured of itself, and the seconds of a core that its process took: on a busy machine the steadier measure."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "bench.scale", *arguments], stdout=subprocess.PIPE, text=True, check=True, cwd=paths.root())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(done.stdout.splitlines()[-1]) | {"processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def main(step: str, *arguments: str) -> None:
    """Take one step and print its seconds and peak memory as JSON."""
    with provenance.Clock() as clock:
        if step == "notebook":
            _perform(*arguments)
        elif step == "collect":
            from peftlab import collected

            collected.collect("scale", list(_few(int(arguments[0]))), scorer=metrics, stages=("evaluate",))
        else:
            from peftlab import report

            report.build(*arguments)
    print(json.dumps(clock.facts()))


def _perform(notebook: str, study: str) -> None:
    """The cells of an aggregate notebook, with what they show made as in Jupyter."""
    import nbformat
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    for cell in nbformat.read(paths.notebooks() / f"{notebook}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            source = f"study = {study!r}" if "parameters" in cell.metadata.get("tags", []) else cell.source
            shell.run_cell(source, store_history=False).raise_error()


# ---------------------------------------------------------------- a made-up study


def _runs(size: Size) -> Iterator[Run]:
    """Every method and connector on every data set and seed, with the controls of the main study."""
    chosen = [name for i, name in enumerate(methods.METHODS) if name == "none" or i % size.one_in == 0]
    for seed in range(size.seeds):
        for dataset in SETS:
            for name in chosen:
                yield from (Run(dataset=dataset, method=name, connector=connector, seed=seed) for connector in methods.card(name).connectors)
            yield Run(dataset=dataset, method="lora", train_pictures="shuffled", seed=seed)


def _asked(dataset: str, number: int) -> pd.DataFrame:
    """The questions of a test set, by choice of four; the same for every run."""
    things = [f"thing {i}" for i in range(60)]
    rng = np.random.default_rng(number)
    choices = [[things[i] for i in rng.choice(60, 4, replace=False)] for _ in range(QUESTIONS)]
    return pd.DataFrame(
        {
            "example_id": [f"{dataset}-test-{i:05}" for i in range(QUESTIONS)], "picture_id": [f"{dataset}-picture-{i // 2}" for i in range(QUESTIONS)],
            "asset": [things[i % 47] for i in range(QUESTIONS)], "template": [f"kind {i % 4}" for i in range(QUESTIONS)], "phrasing": [i % 3 for i in range(QUESTIONS)],
            "question": [f"Which is it in picture {i // 2}? Choices: {', '.join(c)}." for i, c in enumerate(choices)],
            "choices": choices, "answers": [[c[i % 4]] for i, c in enumerate(choices)],
        }
    )  # fmt: skip


def _probe() -> pd.DataFrame:
    """The questions of the probe of presence, a third of each kind, half of them to affirm."""
    asked = _asked("scenes", 99).iloc[:PROBED]
    truth = [["yes"] if i % 2 else ["no"] for i in range(PROBED)]
    kinds = [("random", "popular", "adversarial")[i % 3] for i in range(PROBED)]
    return asked.assign(example_id=[f"presence-{i}" for i in range(PROBED)], answers=truth, choices=[[] for _ in truth], template=kinds)


def _answered(asked: pd.DataFrame, level: float, rng: np.random.Generator) -> pd.DataFrame:
    """Answers that are right with probability `level`, else another choice, and now and then a word of their own."""
    truth = [a[0] for a in asked["answers"]]
    other = [c[(c.index(t) + 1) % 4] if (c := list(choices)) else "no" if t == "yes" else "yes" for choices, t in zip(asked["choices"], truth)]
    kind = np.where(rng.random(len(asked)) < level, 0, np.where(rng.random(len(asked)) < 0.1, 2, 1))
    said = [(t, o, f"word {w}")[k] for t, o, w, k in zip(truth, other, rng.integers(0, 500, len(asked)), kind)]
    return asked.assign(response=said)


def _judged(answered: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The same with what `metrics.judge` would say of them, which is measured apart (`_collected`)."""
    right = np.array([r == a[0] for r, a in zip(answered["response"], answered["answers"])])
    unread = answered["response"].str.startswith("word ").to_numpy()
    outcome = np.where(right, "right", np.where(unread, "unparsed", "wrong"))
    return answered.assign(parsed=answered["response"].where(~unread, None), outcome=outcome, value=100.0 * right, metric=metric)


def write(study: str, size: Size) -> tuple[int, int]:
    """Write a made-up study to the results folder, as `collected.collect` would; returns how many answers and scores it has."""
    folder, rng = paths.results() / study, np.random.default_rng(0)
    folder.mkdir(parents=True)
    asked = {name: _asked(name, i) for i, name in enumerate(SETS)}
    drawn = {name: [_judged(_answered(rows, level, rng), "exact") for level in np.linspace(0.2, 0.7, 30)] for name, rows in (asked | {"presence": _probe()}).items()}
    rows, scores, costs, texts = 0, [], [], []

    def add(written: answers.Writer, run: Run, stage: str, tested_on: str) -> None:
        nonlocal rows
        judged = drawn[tested_on][rng.integers(30)].assign(metric="yes_no" if stage == "probe" else "exact")
        about = {"run": run.id, "stage": stage, **run.resolved(), "tested_on": tested_on, **ORIGIN}
        written.add(judged, about)
        rows += len(judged)
        value = float(judged["value"].mean())
        scores.extend({**about, "metric": name, "value": value, "n": len(judged), "unparsed": 0} for name in (metrics.PROBE if stage == "probe" else ("exact", "likeliest")))

    with answers.writing(folder / "predictions.parquet") as written:
        for run in _runs(size):
            for name in SETS if run.train_pictures == "true" and run.method != "none" else (run.dataset,):
                add(written, replace(run, test_dataset=name), "evaluate", name)
            if run.method == "none":
                for name in SETS:
                    if name != run.dataset:
                        add(written, replace(run, test_dataset=name), "evaluate", name)
                for pictures in ("blank", "shuffled"):
                    add(written, replace(run, test_pictures=pictures), "evaluate", run.dataset)
            if run.seed == 0:
                add(written, run, "probe", "presence")
            about = {"run": run.id, "stage": "finetune", **run.resolved(), **ORIGIN}
            texts.extend({**about, "stage": "evaluate", "passage": f"passage {i}", "tokens": 100 + i, "nats": (100 + i) * (3 + rng.random())} for i in range(PASSAGES))
            if run.method != "none":
                spent = {"seconds": 60 + 20 * rng.random(), "peak_memory_bytes": int(3e9), "adapter_bytes": int(4e6), "final_loss": 0.5, "protocol": 1}
                trained = {"trainable_vision": 0, "trainable_connector": 1_070_000 * (run.connector == "tuned"), "trainable_llm": 1_000_000}
                costs.append({**about, **spent, **trained, "total_vision": 3_400_000, "total_connector": 1_070_000, "total_llm": 134_500_000})
    for name, table in {"scores": scores, "costs": costs, "texts": texts}.items():
        pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
    origins: dict[str, Any] = {name: [None] for name in ("protocol", "commits", "dirty", "python", "systems", "processors", "cores", "devices")}
    origins |= {"study": study, "packages": {}, "bases": {}, "data": [], "stages": len(scores) // 2, "seconds": 0.0, "started": "2026-01-01T00:00:00+00:00"}
    (folder / "provenance.json").write_text(json.dumps(origins))
    return rows, len(scores)


def _few(stages: int) -> Iterator[Run]:
    """So many evaluations of the untouched base, each of a seed and a data set whose questions have choices."""
    yield from (Run(method="none", dataset=SETS[i % CHOICES], seed=i // CHOICES) for i in range(stages))


def _finish(run: Run, base: str) -> None:
    """A finished evaluation of made-up answers, by a base of this digest."""
    rng = np.random.default_rng(run.seed)
    asked = _answered(_asked(run.dataset, SETS.index(run.dataset)), 0.4, rng)
    stage = records.open_stage(run, "evaluate", inputs=records.inputs(run, "evaluate", base=base))
    asked.to_parquet(stage.folder / "predictions.parquet", index=False)
    packages = {name: "1.0" for name in provenance.PACKAGES}
    stage.finish(stamp={**ORIGIN, "packages": packages, "python": "3.11", "system": "Linux", "cores": 2, "seconds": 1.0, "started": "2026-01-01T00:00:00+00:00"})


if __name__ == "__main__":
    main(*sys.argv[1:])
