"""The end of the line: finished stages of a made-up study, in the schema of real ones, to its report, by the command that people give."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import yaml
from PIL import Image

from bench.pairs import Pair
from peftlab import grid, methods, models, paths, provenance, records
from peftlab.run import Run

STUDY = "scale"
QUESTIONS, TAUGHT, PROBED, PASSAGES = 300, 2000, 180, 3
SETS = ("scenes", "facts", "titles", "icons_choice", "icons_blank", "science")  # those scored by the choice that an answer names
DRAWN = 60  # models' answers to a set, of which each stage has one's: files of their own are links to these
STAGES = ("finetune", "evaluate", "probe")
ORIGIN = {"commit": "0" * 40, "dirty": False, "processor": "none: made up", "device": "cpu"}
EVERY = 2.0  # seconds between two looks at the memory in use: twice a second they cost a report a seventh of its time


@dataclass(frozen=True)
class Size:
    """A study's size: seeds, and of the methods one in so many."""

    seeds: int
    one_in: int = 1


SIZES = (Size(1, 10), Size(1), Size(11))  # about 100,000, a million and ten million answers
AIMS = {"seconds": ("s", 120.0), "memory": ("GB", 4.0)}  # of the largest, each in its unit


def measure(sizes: Sequence[Size] = SIZES) -> list[Pair]:
    """Seconds and the peak of memory from finished stages to the PDF: at each size beside what growing in proportion would take, at the last beside the aims too."""
    found, before = [], None
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder, _work(Path(folder)):
            now = _reported(write(size, Path(folder)))
        what = f"{now['rows']:,} answers and {now['scores']:,} scores of {now['stages']:,} stages to the report"
        times = now["rows"] / before["rows"] if before else 1
        for name, (unit, _) in AIMS.items():
            found.append(Pair(what, [now[name]], [(before or now)[name] * times], f"{times:.1f} times the smaller" if before else "itself", unit=unit, note=now["note"]))
        before = now
    return found + [Pair(what, [now[name]], [aim], "the aim", unit=unit) for name, (unit, aim) in AIMS.items()]


@contextmanager
def _work(folder: Path) -> Iterator[None]:
    """The environment in which results are written to and read from `folder`, and figures are drawn without a screen."""
    before = dict(os.environ)
    os.environ.update(PEFTLAB_WORK=str(folder), PEFTLAB_CACHE=str(folder / "cache"), MPLBACKEND="agg")
    yield
    os.environ.clear()
    os.environ.update(before)


def _reported(study: Path) -> dict[str, Any]:
    """What `python -m peftlab report` takes of a study whose stages are all there: its parts end where it says so. RuntimeError where it fails."""
    start, said = time.perf_counter(), []
    with subprocess.Popen([sys.executable, "-m", "peftlab", "report", str(study)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=paths.root()) as process, _watched(process.pid) as seen:
        assert process.stdout is not None
        for line in process.stdout:
            said.append((line.strip(), time.perf_counter()))
    if process.returncode:
        raise RuntimeError(f"the report was not made: {' '.join(line for line, _ in said)}")
    parts, last = [], start
    for line, when in said:
        if line.startswith(("collected", "executed", "wrote")) and when - last > EVERY:
            parts.append(f"{line.split()[0]} {Path(line.split()[-1]).stem} {when - last:.1f} s, {max((m for t, m in seen if last < t <= when), default=0):.2f} GB")
            last = when
    rows, scores = pq.read_metadata(paths.results() / STUDY / "predictions.parquet").num_rows, len(pd.read_csv(paths.results() / STUDY / "scores.csv", usecols=["value"]))
    stages = sum(1 for _ in paths.runs().rglob("run.json"))
    return {"rows": rows, "scores": scores, "stages": stages, "seconds": last - start, "memory": max(m for _, m in seen), "note": "; ".join(parts)}


@contextmanager
def _watched(pid: int) -> Iterator[list[tuple[float, float]]]:
    """When, and how many GB, a process and all below it were seen to have in memory, every `EVERY` seconds until the block ends; what several share is counted once."""
    seen, ended = list[tuple[float, float]](), threading.Event()

    def look() -> None:
        while not ended.wait(EVERY):
            total = 0
            with suppress(psutil.Error):
                for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                    with suppress(psutil.Error):  # it has ended meanwhile
                        total += one.memory_full_info().pss
            seen.append((time.perf_counter(), total / 1e9))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


# ---------------------------------------------------------------- a made-up study


def _grid(size: Size) -> dict[str, Any]:
    """Every method and connector on every data set and seed, tested on all, with the controls of the main study."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for i, name in enumerate(methods.METHODS):
        if name == "none" or i % size.one_in == 0:
            alike.setdefault(tuple(methods.card(name).connectors), []).append(name)
    own = {"dataset": list(SETS), "seed": list(range(size.seeds))}
    grids = [{**own, "method": names, "connector": list(connectors), "test_dataset": list(SETS)} for connectors, names in alike.items()]
    grids += [{**own, "method": ["none"], "test_pictures": ["blank", "shuffled"]}, {**own, "method": ["lora"], "train_pictures": ["shuffled"]}]
    tuned = sum(len(connectors) * len(names) for connectors, names in alike.items())
    expect = (len(SETS) * tuned + 3) * len(SETS) * size.seeds
    return {"study": STUDY, "why": "How long the end of the line takes.", "stages": list(STAGES), "expect": expect, "base": {"test_size": QUESTIONS}, "grids": grids}


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


def _prepared(name: str, number: int, rng: np.random.Generator) -> None:
    """The questions of a set as far as a report reads them: those of the test, all with one picture, and some to learn from."""
    folder, picture = paths.prepared() / name, BytesIO()
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), (128, 128, 128)).save(picture, "PNG")
    asked = _asked(name, number)[list(records.Words._fields)].assign(image=[{"bytes": picture.getvalue(), "path": None}] * QUESTIONS)
    asked.to_parquet(folder / "test.parquet", index=False)
    asked.iloc[rng.integers(len(asked), size=TAUGHT)].assign(example_id=[f"{name}-train-{i:05}" for i in range(TAUGHT)]).to_parquet(folder / "train.parquet", index=False)
    (folder / "digests.json").write_text(json.dumps({"train": "0", "test": "0"}))


def write(size: Size, folder: Path) -> Path:
    """Write the finished stages of a study of this size and its grid, whose file is returned. Adapters are of 64 KB: hashing real ones takes longer."""
    (study := folder / f"{STUDY}.yaml").write_text(yaml.safe_dump(_grid(size)))
    rng, base = np.random.default_rng(0), models.digest(Run().model)
    for number, name in enumerate(SETS):
        _prepared(name, number, rng)
    (kept := folder / "files").mkdir()
    files, told = _files(kept, rng), set[Path]()
    packages, towers = {name: "1.0" for name in provenance.PACKAGES}, {"vision": 0, "connector": 0, "llm": 1_000_000}
    stamp = {**ORIGIN, "packages": packages, "python": "3.11", "system": "Linux", "cores": 2, "started": "2026-01-01T00:00:00+00:00", "peak_memory_bytes": int(3e9)}
    for run in grid.read(study).runs:
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
    return study

