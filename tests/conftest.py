"""Tests run offline, on the CPU (tests/models also on a GPU: PEFTLAB_TEST_GPU=1), with one thread, and write only below a temporary folder."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(  # before torch, transformers or pandas are imported by any test, and for every process a test starts
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MPLBACKEND="agg",
    JUPYTER_PLATFORM_DIRS="1",
    PEFTLAB_BF16="1",  # tests of bf16 say the same on a processor without instructions for it
)
if os.environ.get("PEFTLAB_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import pandas as pd
import pytest


LONGEST = ("test_execute", "test_notebooks", "test_cluster", "test_methods", "test_matrix", "test_report")  # files of minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first: a worker that comes to one last works on while the others are done."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def sizes() -> dict[str, int]:
    """By method, a size that fits the tiny models' width where the card's does not."""
    return {"vera": 8, "oft": 4, "miss": 4, "randlora": 4, "fourierft": 12}


@pytest.fixture(scope="session")
def eventually() -> Callable[..., bool]:
    """A function that says whether something comes true within some seconds."""

    def wait(holds: Callable[[], object], *, seconds: float = 20) -> bool:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    return wait


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of data/: what the test prepares, runs and collects goes there."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("PEFTLAB_WORK", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache: no asset, no converted model, no picture features."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PEFTLAB_CACHE", str(folder))
    return folder


# ---------------------------------------------------------------- a made-up study, as collected.collect would write it

STUDY_SETS = ("scenes", "icons_choice")
STUDY_GAIN = {"none": 0, "connector": 4, "full": 15, "lora": 18, "ia3": 2, "adapter": 14, "prefix": -6}  # points over the base
MARKUP = ('<script>alert("x")</script> #eval("1") $x$ *no* _no_ [a](b) `c` & "quoted" \\end', "🦊 fox | pipe\nsecond line @cite")


def study_answers(run: Any, stage: str, level: float, n: int = 60) -> pd.DataFrame:
    """Judged answers of one run: right with probability `level`, questions and clusters the same in every run."""
    rng = np.random.default_rng(int(hashlib.sha256(f"{'base' if run.method == 'none' and stage == 'probe' else run.id}{stage}{run.test_pictures}".encode()).hexdigest()[:8], 16))
    rows = []
    for i in range(n):
        probe = stage == "probe"
        template = ("present", "random", "popular", "adversarial")[i % 4] if probe else ("count", "kind")[i % 2]
        truth = ("yes" if template == "present" else "no") if probe else ("two", "three", "four")[i % 3] if template == "count" else ("bird", "fruit")[i % 5 == 0]
        choices = [] if probe or template == "count" else ["bird", "fruit", "tool", "plant"]
        wrong = ("no" if truth == "yes" else "yes") if probe else "plant" if choices else MARKUP[i % 2]
        said = truth if rng.random() < level / 100 else "" if rng.random() < 0.1 else wrong
        question = f"Is there a thing {i}?" if probe else f"Which {template} is it, number {i}? {MARKUP[i % 2]}"
        rows.append(
            {"example_id": f"{stage}-{i}", "picture_id": f"p{i // 2}", "asset": f"a{i % 17}", "template": template, "phrasing": i % 3, "question": question,
             "choices": choices, "answers": [truth], "response": said}
        )  # fmt: skip
    return pd.DataFrame(rows)


def write_study(name: str = "smoke", sets: tuple[str, ...] = STUDY_SETS) -> Path:
    """Write a made-up study to the results folder, in the schema of `collected.collect`; returns the folder."""
    from dataclasses import replace

    from peftlab import datasets, methods, metrics, paths
    from peftlab.run import PROTOCOL, Run

    base = {"scenes": 45, "facts": 30, "titles": 40, "icons_choice": 26}
    runs = []
    for dataset in sets:
        for method, card in ((m, c) for m, c in methods.METHODS.items() if c.group == "core"):
            runs += [Run(dataset=dataset, method=method, connector=c) for c in card.connectors]
        runs += [Run(dataset=dataset, method="none", test_pictures=p) for p in ("blank", "shuffled")]
        runs += [Run(dataset=dataset, method=m, train_pictures="shuffled") for m in ("lora", "adapter")]
    answers, scores, costs, probed = [], [], [], set()
    for run in runs:
        level = base[run.dataset] + (STUDY_GAIN[run.method] + 5 * (run.connector == "tuned")) * (1 if run.train_pictures == "true" else 0.2)
        level -= 15 * (run.test_pictures != "true")
        about = {"run": run.id, **run.resolved()}
        origin = {"commit": "0" * 40, "dirty": False, "processor": "A made-up CPU <2 cores>", "device": "cpu"}
        for stage in ("evaluate", "probe"):
            if stage == "probe" and run.id in probed:
                continue
            probed |= {run.id} if stage == "probe" else set()
            metric = "yes_no" if stage == "probe" else datasets.card(run.tested_on).metric
            judged = metrics.judge(study_answers(run, stage, level if stage == "evaluate" else 60 + STUDY_GAIN[run.method]), metric)
            mine = {**about, "stage": stage, "tested_on": "presence" if stage == "probe" else run.tested_on, **origin}
            answers.append(judged.assign(**mine, metric=metric))
            shown = metrics.shown("presence" if stage == "probe" else metric, judged)
            scores += [{**mine, "metric": m, **metrics.score(judged, m)} for m in shown]
        if run.method != "none":
            llm = {"connector": 0, "full": 106_000_000, "lora": 2_900_000, "ia3": 40_000, "adapter": 3_700_000, "prefix": 345_600}[run.method]
            trained = {"trainable_vision": 0, "trainable_connector": 1_070_000 * (run.connector == "tuned"), "trainable_llm": llm}
            spent = {"seconds": 30.0 + llm / 4e6, "peak_memory_bytes": 900_000_000 + 4 * llm, "adapter_bytes": 4 * llm + 800, "final_loss": 0.5, "validation_loss": 0.6}
            costs.append({**about, "stage": "finetune", **trained, "total_vision": 3_400_000, "total_connector": 1_070_000, "total_llm": 134_500_000, **spent, **origin})
    folder = paths.results() / name
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(answers, ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    pd.DataFrame(scores).to_csv(folder / "scores.csv", index=False)
    pd.DataFrame(costs).to_csv(folder / "costs.csv", index=False)
    origins = {
        "study": name, "protocol": [f"{stage} {number}" for stage, number in PROTOCOL.items() if stage != "prepare"], "commits": ["0" * 40], "dirty": [False], "python": ["3.11.7"], "systems": ["Linux x86_64"],
        "processors": ["A made-up CPU <2 cores>"], "cores": [2], "devices": ["cpu"], "packages": {"peft": ["0.21.2"], "torch": ["2.13.0"]},
        "bases": {"pocket-mlp": "ab" * 32}, "data": [{"dataset": d, "stage": s, "digest": "cd" * 32} for d in sets for s in ("evaluate", "finetune")],
        "stages": len(runs) * 3, "seconds": 4321.0, "started": "2026-11-22T05:00:00+00:00",
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(origins))
    asked = pd.concat(answers).query("stage == 'evaluate'").drop_duplicates(["tested_on", "example_id"])
    ways = {"majority": asked["template"].map({"count": "two", "kind": "bird"}), "question_only": ["three" if i % 3 else "no such thing" for i in range(len(asked))]}
    guesses = [asked[["tested_on", "example_id"]].assign(baseline=name, response=said) for name, said in ways.items()]
    pd.concat(guesses).to_parquet(folder / "blind.parquet", index=False)
    return folder


def ask_others(folder: Path, target: str = "icons_choice", others: tuple[str, ...] = ("scenes", "facts", "titles")) -> None:
    """Add to a made-up study what its models, tuned on `target`, answer of other sets, and what they make of three passages of text."""
    rows = pd.read_parquet(folder / "predictions.parquet")
    mine = rows.query("stage == 'evaluate' and dataset == @target and train_pictures == 'true' and test_pictures == 'true'")
    rng, more = np.random.default_rng(0), []
    for name in others:
        value = np.where(rng.random(len(mine)) < np.where(mine["method"] == "none", 0.7, 0.5), 100.0, 0.0)
        outcome = np.where(value > 0, "right", "wrong")
        ids = {column: name + mine[column] for column in ("example_id", "picture_id")}
        more.append(mine.assign(**ids, tested_on=name, test_dataset=name, value=value, outcome=outcome))
    pd.concat([rows, *more], ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    about = mine.drop_duplicates("run")[["run", "stage", "model", "method", "connector", "dataset", "quantisation", "precision", "train_pictures", "seed"]]
    texts = [about.assign(passage=name, tokens=tokens, nats=tokens * (3 + 0.1 * i + 0.2 * (about["method"] != "none"))) for i, (name, tokens) in enumerate({"a": 100, "b": 150, "c": 90}.items())]
    pd.concat(texts).to_parquet(folder / "texts.parquet", index=False)


@pytest.fixture(scope="session")
def ask() -> Callable[..., None]:
    """Adds the answers on other data sets to a made-up study."""
    return ask_others


def in_words(rows: pd.DataFrame) -> pd.DataFrame:
    """Answers with every category as the value it stands for: what a test may add up, replace and extend."""
    held = {name: kind.categories.dtype for name, kind in rows.dtypes.items() if isinstance(kind, pd.CategoricalDtype)}
    return rows.astype({name: object if kind.kind in "biu" and rows[name].isna().any() else kind for name, kind in held.items()})


@pytest.fixture(scope="session")
def plain() -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Turns the categories of answers that were read into the values they stand for."""
    return in_words


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a made-up study, written once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTLAB_WORK", str(tmp_path_factory.mktemp("study")))
        return write_study()


@pytest.fixture
def study(work: Path, written: Path) -> Path:
    """A made-up study called smoke, collected: two data sets, every method, both controls, the probe."""
    return Path(shutil.copytree(written, work / "results" / "smoke"))


@pytest.fixture
def placed(study: Path) -> Path:
    """The made-up study with LoRA on the attention, where it answers worse, beside LoRA in the whole block; with their controls."""
    rows = pd.read_parquet(study / "predictions.parquet")
    mine = rows[rows["method"] == "lora"]
    worse = mine.assign(run="a" + mine["run"], location="attn", value=np.where(mine["example_id"].str.endswith("7"), 0.0, mine["value"]))
    worse["outcome"] = np.where((worse["value"] == 0) & (worse["outcome"] == "right"), "wrong", worse["outcome"])
    pd.concat([rows, worse], ignore_index=True).to_parquet(study / "predictions.parquet", index=False)
    costs = pd.read_csv(study / "costs.csv", keep_default_na=False, na_values=[""])
    tuned = costs[costs["method"] == "lora"]
    pd.concat([costs, tuned.assign(run="a" + tuned["run"], location="attn", trainable_llm=1_000_000)]).to_csv(study / "costs.csv", index=False)
    return study


NAMES = ("cat", "dog", "cow", "pig", "car", "tree", "lamp", "sofa", "spoon", "boat")


@pytest.fixture
def tiny_data(work: Path) -> Path:
    """The folder `work` with icons_choice and scenes prepared as a few noisy pictures each, made from no pack."""
    _prepare_tiny("icons_choice", "scenes")
    return work


@pytest.fixture
def prepare_tiny() -> Callable[..., None]:
    """A function that prepares the data sets named as a few noisy pictures each."""
    return _prepare_tiny


def _prepare_tiny(*names: str, seed: int = 0) -> None:
    """Prepare data sets as a few questions on pictures of noise, a function of `seed`."""
    from PIL import Image

    from peftlab import records

    rng = np.random.default_rng(seed)
    for dataset in names:
        splits = {}
        for split, size in {"base": 40, "train": 48, "validation": 8, "test": 24}.items():
            splits[split] = [
                records.Example(
                    f"{split}{i}", f"{split}-p{i}", Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype="uint8")), "Which is it, cat or dog?",
                    (("cat", "dog")[i % 2],), "choice", i % 3, f"a{i % 7}", ("cat", "dog"), (NAMES[i % len(NAMES)],),
                )
                for i in range(size)
            ]  # fmt: skip
        records.write_examples(dataset, splits)


def write_pictures(name: str = "smoke") -> None:
    """Prepared test examples, with a coloured picture each, for every question of a made-up study."""
    from PIL import Image

    from peftlab import paths, records

    asked = pd.read_parquet(paths.results() / name / "predictions.parquet").query("stage == 'evaluate'").drop_duplicates(["tested_on", "example_id"])
    for dataset, rows in asked.groupby("tested_on"):
        examples = [
            records.Example(
                r.example_id, r.picture_id, Image.new("RGB", (96, 96), ((37 * i) % 256, (91 * i) % 256, 160)), r.question, tuple(r.answers), r.template, int(r.phrasing), r.asset, tuple(r.choices)
            )
            for i, r in enumerate(rows.itertuples())
        ]  # fmt: skip
        records.write_examples(dataset, {"test": examples})


@pytest.fixture(scope="session")
def prepare() -> Callable[[], None]:
    """Prepares the data sets of the made-up study in the work folder of the moment."""
    return write_pictures


@pytest.fixture
def markup() -> tuple[str, ...]:
    """Hostile texts that every question of the made-up study holds, and every wrong answer without choices."""
    return MARKUP
