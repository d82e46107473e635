"""Tidy rows and the files they live in."""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from peftlab import paths
from peftlab.run import PROTOCOL, Run

SPLITS = ("base", "train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """One question on one picture, posed in full.

    ``question`` is the whole user turn (choices and answer instruction included); ``answers`` the accepted answers, the first
    one is trained on; ``choices`` the closed options if any; ``template`` the kind of question (chance and majority are taken
    per template), ``phrasing`` its wording; ``asset`` the pack asset or film asked about and ``picture_id`` the picture: the
    two clusters of every interval; ``objects`` the names of all things in the picture, where that is known exactly.
    """

    example_id: str
    picture_id: str
    image: Image.Image
    question: str
    answers: tuple[str, ...]
    template: str
    phrasing: int
    asset: str
    choices: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()


# ---------------------------------------------------------------- prepared examples


def write_examples(dataset: str, splits: dict[str, Iterable[Example]]) -> dict[str, str]:
    """Write splits as Parquet with the pictures inside under data/prepared/<dataset>/; returns the digest of each split.

    The folder appears whole or not at all. The digest is of the decoded content (ids, texts, pixels), not of the file, so it
    does not depend on a writer's version. Raises ValueError where two examples share an id.
    """
    import datasets as hub  # only here and in read_examples: it takes a second to import

    folder = paths.prepared() / dataset
    temporary = folder.with_name(f".{dataset}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    digests: dict[str, str] = {}
    for split, examples in splits.items():
        rows, digest, ids = [], hashlib.sha256(), set()
        for e in examples:
            if e.example_id in ids:
                raise ValueError(f"{dataset}/{split}: example_id {e.example_id!r} occurs twice")
            ids.add(e.example_id)
            rows.append({**vars(e), "answers": list(e.answers), "choices": list(e.choices), "objects": list(e.objects), "image": {"bytes": _png(e.image), "path": None}})
            digest.update(json.dumps([v for k, v in vars(e).items() if k != "image"]).encode() + e.image.convert("RGB").tobytes())
        strings = hub.List(hub.Value("string"))
        features = hub.Features(
            {name: hub.Value("string") for name in ("example_id", "picture_id", "question", "template", "asset")}
            | {"image": hub.Image(), "answers": strings, "phrasing": hub.Value("int32"), "choices": strings, "objects": strings}
        )
        hub.Dataset.from_list(rows, features=features).to_parquet(str(temporary / f"{split}.parquet"))
        digests[split] = digest.hexdigest()
    (temporary / "digests.json").write_text(json.dumps(digests, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return digests


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def digests(dataset: str) -> dict[str, str]:
    """The digest of each prepared split; raises FileNotFoundError saying how to prepare the data set."""
    file = paths.prepared() / dataset / "digests.json"
    if not file.exists():
        raise FileNotFoundError(f"{dataset} is not prepared: run notebooks/01_prepare_data.ipynb with dataset = {dataset!r}")
    return json.loads(file.read_text())


def read_examples(dataset: str, split: str, *, size: int | None = None, seed: int = 0) -> list[Example]:
    """The examples of a prepared split: all in stored order, or the first `size` of a seeded order.

    A picture that does not decode raises ValueError naming its row and example_id.
    """
    import datasets as hub
    import numpy as np

    have = digests(dataset)
    if split not in have:
        raise ValueError(f"split is {split!r}; {dataset} has {', '.join(have)}")
    table = hub.Dataset.from_parquet(str(paths.prepared() / dataset / f"{split}.parquet"), cache_dir=str(paths.cache() / "datasets"))
    table = table.cast_column("image", hub.Image(decode=False))
    order = range(len(table))
    if size is not None:
        if size > len(table):
            raise ValueError(f"{size} examples asked of {dataset}/{split}, which has {len(table)}")
        order = np.random.default_rng(seed).permutation(len(table))[:size].tolist()
    examples = []
    for row_number in order:
        row = table[row_number]
        try:
            image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        except Exception as error:
            raise ValueError(f"{dataset}/{split} row {row_number} ({row['example_id']}): the picture does not decode: {error}") from error
        lists = {name: tuple(row[name]) for name in ("answers", "choices", "objects")}
        examples.append(Example(**{**row, **lists, "image": image}))
    return examples


# ---------------------------------------------------------------- stages of a run


@dataclass
class Stage:
    """A stage of a run being written: files go to `folder`, a temporary name until `finish`."""

    run: Run
    name: str
    final: Path
    folder: Path
    expected: dict[str, Any] = field(default_factory=dict)

    def finish(self, **facts: Any) -> Path:
        """Write run.json (axes, resolved values, protocol, `facts`), seal the files' digests and rename: the stage exists."""
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(self.folder.iterdir())}
        content = {"axes": self.run.axes(), **self.expected, **facts, "files": files}
        (self.folder / "run.json").write_text(json.dumps(content, indent=1, default=str))
        if self.final.exists():
            shutil.rmtree(self.final)
        self.folder.rename(self.final)
        return self.final


def stage_folder(run: Run, stage: str) -> Path:
    """Where the finished stage lies: data/runs/<id>/finetune, /evaluate/<test_id> or /probe/<probe_id>."""
    inner = {"finetune": Path("finetune"), "evaluate": Path("evaluate") / run.test_id, "probe": Path("probe") / run.probe_id}
    return paths.runs() / run.id / inner[stage]


def expectation(run: Run, stage: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a finished stage must say of itself to be used again: protocol, resolved values up to this stage, input digests."""
    order = ("finetune", "evaluate", "probe")
    stages = {"finetune": order[:1], "evaluate": order[:2], "probe": ("finetune", "probe")}[stage]
    from dataclasses import fields

    mine = {f.name for f in fields(run) if f.metadata["stage"] in stages}
    resolved = {k: v for k, v in run.resolved().items() if k in mine}
    return {"stage": stage, "protocol": PROTOCOL, "resolved": resolved, "inputs": inputs}


def state(run: Run, stage: str, inputs: dict[str, Any]) -> str:
    """``missing``, ``finished`` or ``stale`` (finished under another protocol, other resolved values or inputs).

    Raises ValueError where a file of the finished stage was edited since it was sealed.
    """
    folder = stage_folder(run, stage)
    if not (folder / "run.json").exists():
        return "missing"
    content = json.loads((folder / "run.json").read_text())
    for name, digest in content["files"].items():
        if not (folder / name).exists() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{folder / name} was edited or removed since the run wrote it; delete {folder} to make it again")
    expected = json.loads(json.dumps(expectation(run, stage, inputs)))
    return "finished" if all(content.get(k) == v for k, v in expected.items()) else "stale"


def open_stage(run: Run, stage: str, *, inputs: dict[str, Any], again: bool = False) -> Stage:
    """Begin a stage. If it is finished already, say so and end the notebook quietly (SystemExit 0), unless `again`.

    `inputs` are the digests of what it reads (prepared data, base model); a later reader compares them.
    """
    final = stage_folder(run, stage)
    found = "missing" if again else state(run, stage, inputs)
    if found != "missing":
        print(f"{run.id}: {stage} is {found} in {final}; nothing done. Set again = True to make it again.")
        raise SystemExit(0)
    folder = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return Stage(run, stage, final, folder, expectation(run, stage, inputs))


# ---------------------------------------------------------------- predictions

PREDICTION_COLUMNS = ("example_id", "picture_id", "asset", "template", "phrasing", "question", "choices", "answers", "response")


def predictions(examples: Iterable[Example], responses: Iterable[str]) -> pd.DataFrame:
    """A row per example: ids, clusters, question, choices and answers (lists), and the raw response."""
    rows = [
        {**{c: getattr(e, c) for c in PREDICTION_COLUMNS[:6]}, "choices": list(e.choices), "answers": list(e.answers), "response": r}
        for e, r in zip(examples, responses, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
