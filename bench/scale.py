"""The end of the line: finished stages of a made-up study, in the schema of real ones, to collected tables, statistics, figures and report.

``python -m bench.scale collect SEEDS ONE_IN``, ``… notebook NAME`` and ``… build`` are the steps that are measured, each in a process of its own.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bench.pairs import Pair
from peftlab import __main__ as command
from peftlab import methods, metrics, models, paths, provenance, records
from peftlab.run import Run

STUDY = "scale"
QUESTIONS, PROBED, PASSAGES = 300, 180, 3
SETS = ("scenes", "facts", "titles", "icons_choice", "icons_blank", "science")  # those scored by the choice that an answer names
DRAWN = 60  # models' answers to a set, of which each stage has one's: files of their own are links to these
STAGES = ("finetune", "evaluate", "probe")
ORIGIN = {"commit": "0" * 40, "dirty": False, "processor": "none: made up", "device": "cpu"}


@dataclass(frozen=True)
class Size:
    """A study's size: seeds, and of the methods one in so many."""

    seeds: int
    one_in: int = 1


SIZES = (Size(1, 10), Size(1), Size(11))  # about 100,000, a million and ten million answers


def measure(sizes: Sequence[Size] = SIZES) -> list[Pair]:
    """Seconds and the peak of memory of collecting, and of all after it, at each size beside what growing in proportion would take."""
    found, before = [], None
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            now = _ended(size, Path(folder))
        for part in now["parts"]:
            what = f"{now['rows']:,} answers and {now['scores']:,} scores of {now['stages']:,} stages: {part}"
            times = now["rows"] / before["rows"] if before else 1
            against = f"{times:.1f} times the smaller" if before else "itself"
            for name, unit in (("seconds", "s"), ("memory", "GB")):
                found.append(Pair(what, [now["parts"][part][name]], [(before or now)["parts"][part][name] * times], against, unit=unit, note=now["note"]))
        before = now
    return found


# ---------------------------------------------------------------- the steps, each in a process of its own


def _ended(size: Size, folder: Path) -> dict[str, Any]:
    """Write the stages of a study of this size to `folder`, collect them, and make their tables, figures and report."""
    with _work(folder):
        stages = write(size)
        each = {"collecting": _step("collect", str(size.seeds), str(size.one_in))}
        each |= {name: _step("notebook", name) for name in command.AGGREGATE} | {"report": _step("build")}
        rows, scores = pq.read_metadata(paths.results() / STUDY / "predictions.parquet").num_rows, len(pd.read_csv(paths.results() / STUDY / "scores.csv", usecols=["value"]))
    note = ", ".join(f"{name} {one['seconds']:.1f} s ({one['processor']:.1f} of a core) {one['memory']:.2f} GB" for name, one in each.items())
    parts = {"collecting": each.pop("collecting"), "statistics, figures, report": {"seconds": sum(one["seconds"] for one in each.values()), "memory": max(one["memory"] for one in each.values())}}
    return {"rows": rows, "scores": scores, "stages": stages, "parts": parts, "note": note}


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
    facts = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": facts["seconds"], "memory": facts["peak_memory_bytes"] / 1e9, "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def main(step: str, *arguments: str) -> None:
    """Take one step and print its seconds and peak memory as JSON."""
    with provenance.Clock() as clock:
        if step == "collect":
            from peftlab import collected

            collected.collect(STUDY, list(_runs(Size(*map(int, arguments)))), scorer=metrics, stages=STAGES)
        elif step == "notebook":
            _perform(*arguments)
        else:
            from peftlab import report

            report.build(STUDY)
    print(json.dumps(clock.facts()))


def _perform(notebook: str) -> None:
    """The cells of an aggregate notebook, with what they show made as in Jupyter."""
    import nbformat
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    for cell in nbformat.read(paths.notebooks() / f"{notebook}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            source = f"study = {STUDY!r}" if "parameters" in cell.metadata.get("tags", []) else cell.source
            shell.run_cell(source, store_history=False).raise_error()


# ---------------------------------------------------------------- a made-up study


def _runs(size: Size) -> Iterator[Run]:
    """Every method and connector on every data set and seed, tested on all, with the controls of the main study."""
    chosen = [name for i, name in enumerate(methods.METHODS) if name == "none" or i % size.one_in == 0]
    for seed in range(size.seeds):
        for dataset in SETS:
            arms = [Run(dataset=dataset, method=name, connector=connector, seed=seed, test_size=QUESTIONS) for name in chosen for connector in methods.card(name).connectors]
            yield from (replace(run, test_dataset=name) for run in arms for name in SETS)
            yield from (replace(run, test_pictures=pictures) for run in arms if run.method == "none" for pictures in ("blank", "shuffled"))
            yield Run(dataset=dataset, method="lora", train_pictures="shuffled", seed=seed, test_size=QUESTIONS)


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


def _files(folder: Path, rng: np.random.Generator) -> dict[tuple[str, str], list[dict[str, Path]]]:
    """By stage and data set: the files that some models' stages hold, written once."""
    found: dict[tuple[str, str], list[dict[str, Path]]] = {}
    for number, name in enumerate((*SETS, "presence")):
        stage, asked = ("probe", _probe()) if name == "presence" else ("evaluate", _asked(name, number))
        for draw in range(DRAWN):
            answered = _answered(asked, rng.uniform(0.2, 0.7), rng)
            if stage == "evaluate":
                answered = answered.assign(likelihoods=list(np.log(rng.dirichlet(np.ones(4), len(asked)))))
            answered.to_parquet(file := folder / f"{name}-{draw}.parquet", index=False)
            found.setdefault((stage, name), []).append({"predictions.parquet": file})
    (adapter := folder / "adapter").write_bytes(bytes(2**16))
    pd.DataFrame({"step": range(60), "loss": rng.random(60), "seconds": rng.random(60)}).to_parquet(steps := folder / "steps")
    return found | {("finetune", name): [{"adapter.safetensors": adapter, "steps.parquet": steps}] for name in SETS}


def write(size: Size) -> int:
    """Write the finished stages of a study of this size; returns how many there are. Adapters are of 64 KB: hashing real ones takes longer."""
    rng, base = np.random.default_rng(0), models.digest(Run().model)
    for name in SETS:
        (paths.prepared() / name).mkdir(parents=True)
        (paths.prepared() / name / "digests.json").write_text(json.dumps({"train": "0", "test": "0", "base": "0"}))
    (kept := paths.runs().parent / "files").mkdir()
    files, told = _files(kept, rng), set[Path]()
    packages, towers = {name: "1.0" for name in provenance.PACKAGES}, {"vision": 0, "connector": 0, "llm": 1_000_000}
    stamp = {**ORIGIN, "packages": packages, "python": "3.11", "system": "Linux", "cores": 2, "started": "2026-01-01T00:00:00+00:00", "peak_memory_bytes": int(3e9)}
    for run in _runs(size):
        for stage in STAGES:
            final = records.stage_folder(run, stage)
            if final in told or (stage == "finetune" and run.method == "none"):
                continue
            told.add(final)
            draws = files[stage, {"finetune": run.dataset, "evaluate": run.tested_on, "probe": "presence"}[stage]]
            begun = records.open_stage(run, stage, inputs=records.inputs(run, stage, base=base))
            for name, file in draws[rng.integers(len(draws))].items():
                os.link(file, begun.folder / name)
            text = [{"passage": f"passage {i}", "tokens": 100 + i, "nats": (100 + i) * (3 + rng.random())} for i in range(PASSAGES)] if stage == "evaluate" and run.tested_on == run.dataset else None
            counts = {"trainable": towers, "total": {"vision": 3_400_000, "connector": 1_070_000, "llm": 134_500_000}} if stage == "finetune" else {}
            begun.finish(stamp={**stamp, "seconds": 60 + 20 * rng.random(), **counts}, **({"text": text} if text else {}))
    return len(told)


if __name__ == "__main__":
    main(*sys.argv[1:])
