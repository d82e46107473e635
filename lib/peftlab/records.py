"""Tidy rows and the files they live in."""

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from peftlab import datasets, models, paths, provenance
from peftlab.run import PROTOCOL, Run

SPLITS = ("base", "train", "validation", "test")
PICTURES = ("true", "shuffled", "blank")
CHECKPOINT = ".checkpoint.safetensors"
DRAWING = ("pictures", "questions", "icons", "knowledge", "maps")  # modules that the sets drawn from the pack are made by, beside their own
PROBED = "scenes"  # the data set whose test pictures are probed, by all probes but those that bring pictures of their own


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
    """Write splits as Parquet with the pictures inside under data/prepared/<dataset>/, and their ids; returns the digest of each split.

    The folder appears whole or not at all. The digest is of the decoded content (ids, texts, pixels), not of the file, so it
    does not depend on a writer's version. Raises ValueError where two examples share an id.
    """
    import datasets as hub  # only here and in read_examples: it takes a second to import
    from tqdm import tqdm

    hub.disable_progress_bars()  # ours below tells of the drawing, which is what takes long
    folder = paths.prepared() / dataset
    temporary = folder.with_name(f".{dataset}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    digests: dict[str, str] = {}
    drawn: dict[str, list[str]] = {}
    for split, examples in splits.items():
        rows, digest, ids = [], hashlib.sha256(), set()
        for e in tqdm(examples, desc=f"{dataset}/{split}", total=datasets.card(dataset).sizes.get(split), mininterval=1.0):
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
        digests[split], drawn[split] = digest.hexdigest(), [row["example_id"] for row in rows]
    (temporary / "digests.json").write_text(json.dumps(digests, indent=1))
    (temporary / "ids.json").write_text(json.dumps(drawn, indent=1))
    (temporary / "source.json").write_text(json.dumps(_source(dataset), indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return digests


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # no other decoder of PIL is ever given a picture: some start programs
LARGEST = 50_000_000  # pixels; a small file can unpack to more than memory holds


def decoded(data: bytes) -> Image.Image:
    """An RGB picture, upright, of the bytes of a file; raises ValueError in a few words where it is none, cut short or larger than `LARGEST`."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels = image.width * image.height
        upright = ImageOps.exif_transpose(image).convert("RGB") if pixels <= LARGEST else None
    except Image.DecompressionBombError as error:
        raise ValueError(f"it is too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"it is no picture of a kind that is read ({', '.join(FORMATS)})") from error
    except Exception as error:  # whatever a decoder raises, it is of a broken file
        raise ValueError(f"it is cut short or broken: {error}") from error
    if upright is None:
        raise ValueError(f"it is too large: {image.width} x {image.height} pixels, of which at most {LARGEST:,} are read")
    return upright


def is_prepared(dataset: str) -> bool:
    """Whether the data set is prepared, from the files, card and code as they are now and under this protocol."""
    file = paths.prepared() / dataset / "source.json"
    return file.exists() and json.loads(file.read_text()) == _source(dataset)


def _source(dataset: str) -> dict[str, Any]:
    """What prepared examples depend on: the content of the pack or of a user's files, the card, the code that draws or reads them, the protocol."""
    digest, code, card = hashlib.sha256(), Path(datasets.__file__).parent, datasets.card(dataset)
    drawn = [code / f"{card.module or dataset}.py", *(code.parent / f"{name}.py" for name in (("rows",) if card.module else DRAWING))]
    top = paths.pack() if card.source == datasets.PACK else paths.root()
    for file in datasets.files(dataset):
        about = file.stat()
        name = file.relative_to(top).as_posix() if file.is_relative_to(top) else file.as_posix()
        digest.update(name.encode() + _content(file, about.st_size, about.st_mtime_ns))
    text = b"".join(file.read_bytes() for file in drawn if file.exists())
    return {"pack": digest.hexdigest(), "card": repr(card), "code": hashlib.sha256(text).hexdigest(), "protocol": PROTOCOL}


READ_WHOLE = 2**26  # bytes: copies of hub repositories are tens of gigabytes


@cache
def _content(file: Path, size: int, changed: int) -> bytes:
    """The digest of a file of this size and time of change, read once in a process; of one too large to read for that, these two alone."""
    if size > READ_WHOLE:
        return f"{size} {changed}".encode()
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def digests(dataset: str) -> dict[str, str]:
    """The digest of each prepared split; raises FileNotFoundError saying how to prepare the data set."""
    file = paths.prepared() / dataset / "digests.json"
    if not file.exists():
        raise FileNotFoundError(f"{dataset} is not prepared: run notebooks/01_prepare_data.ipynb with dataset = {dataset!r}")
    return json.loads(file.read_text())


def read_examples(dataset: str, split: str, *, size: int | None = None, seed: int = 0, pictures: Collection[str] | None = None) -> list[Example]:
    """The examples of a prepared split: all in stored order, or the first `size` of a seeded order; with `pictures` only those on them.

    A picture that does not decode raises ValueError naming its row and example_id.
    """
    import datasets as hub

    hub.disable_progress_bars()
    have = digests(dataset)
    if split not in have:
        raise ValueError(f"split is {split!r}; {dataset} has {', '.join(have)}")
    table = hub.Dataset.from_parquet(str(paths.prepared() / dataset / f"{split}.parquet"), cache_dir=str(paths.cache() / "datasets"))
    table = table.cast_column("image", hub.Image(decode=False))
    order = range(len(table)) if pictures is None else [number for number, name in enumerate(table["picture_id"]) if name in pictures]
    if size is not None:
        if size > len(order):
            raise ValueError(f"{size} examples asked of {dataset}/{split}, which has {len(order)}")
        order = np.random.default_rng(seed).permutation(order)[:size].tolist()
    examples = []
    for row_number in order:
        row = table[row_number]
        try:
            image = decoded(row["image"]["bytes"])
        except ValueError as error:
            raise ValueError(f"{dataset}/{split} row {row_number} ({row['example_id']}): the picture does not decode: {error}") from error
        lists = {name: tuple(row[name]) for name in ("answers", "choices", "objects")}
        examples.append(Example(**{**row, **lists, "image": image}))
    return examples


def probed(run: Run) -> str:
    """The data set whose test pictures the run's probe is about: the probe's namesake, where there is one."""
    return run.probe if run.probe in datasets.DATASETS else PROBED


def replayed(run: Run) -> list[str]:
    """The data sets that a run mixes examples of into its training: those its model has seen, but for its own; none without replay."""
    return [name for name in models.card(run.model).seen if name != run.dataset] if run.replay else []


def read_replay(run: Run, train: Sequence[Example]) -> list[Example]:
    """Examples of what is replayed, as many as `run.replay` says of `train`, the sets in turn, by a seeded order."""
    seen = replayed(run)
    wanted = round((run.replay or 0) * len(train))
    each = [read_examples(name, "train", size=-(-wanted // len(seen)), seed=run.seed) for name in seen] if wanted else []
    return [e for turn in zip(*each) for e in turn][:wanted]


def read_objects(dataset: str, split: str) -> list[tuple[str, ...]]:
    """The names of the things in each picture of a prepared split, without decoding the pictures."""
    digests(dataset)  # raises where the data set is not prepared
    table = pd.read_parquet(paths.prepared() / dataset / f"{split}.parquet", columns=["picture_id", "objects"])
    return [tuple(objects) for objects in table.drop_duplicates("picture_id")["objects"]]


def picture_ids(dataset: str, split: str) -> list[str]:
    """The picture of each example of a prepared split, in stored order, without decoding any."""
    digests(dataset)  # raises where the data set is not prepared
    return pd.read_parquet(paths.prepared() / dataset / f"{split}.parquet", columns=["picture_id"])["picture_id"].tolist()


def read_references(dataset: str) -> pd.DataFrame:
    """What all questions of a prepared test set accept, and what their pictures hold, without the pictures: example_id, answers, objects."""
    digests(dataset)  # raises where the data set is not prepared
    return pd.read_parquet(paths.prepared() / dataset / "test.parquet", columns=["example_id", "answers", "objects"])


def read_passages() -> dict[str, str]:
    """The fixed passages of plain text by their name, in the public domain (data/texts/passages.json says whose they are)."""
    return {one["passage"]: one["text"] for one in json.loads((paths.texts() / "passages.json").read_text(encoding="utf-8"))["passages"]}


def read_pictures(dataset: str, split: str, ids: Iterable[str]) -> dict[str, Image.Image]:
    """The pictures of some prepared examples, by example_id; an id that is not there raises ValueError naming it."""
    table = pd.read_parquet(paths.prepared() / dataset / f"{split}.parquet", columns=["example_id", "image"], filters=[("example_id", "in", list(ids))])
    found = {row.example_id: decoded(row.image["bytes"]) for row in table.itertuples()}
    for name in ids:
        if name not in found:
            raise ValueError(f"{name!r} is not an example of {dataset}/{split}: the answers are of other data than what is prepared here")
    return found


def repicture(examples: Sequence[Example], how: str, *, seed: int) -> list[Example]:
    """The same questions under other pictures: what is learned or answered without sight.

    `how` is ``true`` (as they are), ``shuffled`` (every picture goes, whole, to the questions of another one, a function of
    `seed`) or ``blank`` (mid-grey, of the same size). Ids, clusters and answers stay the question's own.
    """
    if how not in PICTURES:
        raise ValueError(f"pictures are {how!r}; choose one of {', '.join(PICTURES)}")
    if how == "true":
        return list(examples)
    images = {e.picture_id: e.image for e in examples}
    if how == "blank":
        given = {name: Image.new("RGB", image.size, (128, 128, 128)) for name, image in images.items()}
    else:
        if len(images) < 2:
            raise ValueError(f"pictures cannot be shuffled: {len(examples)} examples have {len(images)} picture between them")
        order = [list(images)[i] for i in np.random.default_rng(seed).permutation(len(images))]
        given = {name: images[other] for name, other in zip(order, order[1:] + order[:1], strict=True)}  # one cycle: none stays
    return [replace(e, image=given[e.picture_id]) for e in examples]


# ---------------------------------------------------------------- stages of a run


@dataclass
class Stage:
    """A stage of a run being written: files go to `folder`, a temporary name until `finish`."""

    run: Run
    name: str
    final: Path
    folder: Path
    expected: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """Where a long stage may keep what it needs to go on after a kill: a file of its own for what the stage is made from."""
        return self.final.with_name(f"{self.final.name}-{_seal(json.loads(json.dumps(self.expected, default=str)))[:16]}{CHECKPOINT}")

    def finish(self, **facts: Any) -> Path:
        """Write run.json (axes, resolved values, protocol, `facts`), seal the files' digests and rename: the stage exists."""
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(self.folder.iterdir())}
        content = json.loads(json.dumps({"axes": self.run.axes(), **self.expected, **facts, "files": files}, default=str))
        (self.folder / "run.json").write_text(json.dumps({**content, "seal": _seal(content)}, indent=1))
        if self.final.exists():
            shutil.rmtree(self.final)
        self.folder.rename(self.final)
        for checkpoint in self.final.parent.glob(f"{self.final.name}-*{CHECKPOINT}"):
            checkpoint.unlink()
        return self.final


def stage_folder(run: Run, stage: str) -> Path:
    """Where the finished stage lies: data/runs/<id>/finetune, /evaluate/<test_id> or /probe/<probe_id>."""
    inner = {"finetune": Path("finetune"), "evaluate": Path("evaluate") / run.test_id, "probe": Path("probe") / run.probe_id}
    return paths.runs() / run.id / inner[stage]


def expectation(run: Run, stage: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a finished stage must say of itself to be used again: protocol, resolved values up to this stage, input digests."""
    order = ("finetune", "evaluate", "probe")
    stages = {"finetune": order[:1], "evaluate": order[:2], "probe": ("finetune", "probe")}[stage]
    mine = {f.name for f in fields(run) if f.metadata["stage"] in stages}
    resolved = {k: v for k, v in run.resolved().items() if k in mine}
    return {"stage": stage, "protocol": PROTOCOL, "resolved": resolved, "inputs": inputs}


def inputs(run: Run, stage: str, *, base: str | None = None) -> dict[str, str | None]:
    """The digests of what a stage reads: its examples, the base (`models.digest` unless given) and the tuned model.

    ``finetune`` is None where nothing is tuned (yet). Raises FileNotFoundError where the data set is not prepared.
    """
    reads = {"finetune": (run.dataset, "train"), "evaluate": (run.tested_on, "test"), "probe": (probed(run), "test")}
    dataset, split = reads[stage]
    found: dict[str, str | None] = {"data": digests(dataset)[split], "base": base or models.digest(run.model)}
    if stage == "finetune" and run.replay:
        found["replay"] = " ".join(digests(name)["train"] for name in replayed(run))
    if stage != "finetune":
        record = stage_folder(run, "finetune") / "run.json"
        files = json.loads(record.read_text())["files"] if record.exists() else {}
        found["finetune"] = files.get("adapter.safetensors")  # not the log: its seconds differ each time
    if stage == "probe":
        found["names"] = digests(dataset).get("base")  # what is popular is counted there
    return found


def state(run: Run, stage: str, inputs: dict[str, Any]) -> str:
    """``missing``, ``finished`` or ``stale`` (finished under another protocol, other resolved values or inputs).

    Raises ValueError where a file of the finished stage was edited since it was sealed.
    """
    content = sealed(stage_folder(run, stage))
    if content is None:
        return "missing"
    return "stale" if _differences(content, expectation(run, stage, inputs)) else "finished"


def sealed(folder: Path) -> dict[str, Any] | None:
    """The run.json of a finished stage, its files checked against it, or None where the stage is not finished.

    Raises ValueError where a file was edited, added or removed since the stage was sealed.
    """
    if not (folder / "run.json").exists():
        return None
    advice = f"delete {folder} to make it again"
    try:
        content = json.loads((folder / "run.json").read_text())
        seal, files = content.pop("seal"), content["files"]
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / 'run.json'} was edited and is no longer a run's record ({error}); {advice}") from error
    if seal != _seal(content):
        raise ValueError(f"{folder / 'run.json'} was edited since the run wrote it; {advice}")
    there = {p.name for p in folder.iterdir() if not p.name.startswith(".")} - {"run.json"}
    for name in sorted(there ^ set(files)):
        raise ValueError(f"{folder / name} was {'added' if name in there else 'removed'} since the run wrote it; {advice}")
    for name, digest in files.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{folder / name} was edited since the run wrote it; {advice}")
    return content


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _differences(content: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What of a finished stage is not as expected, in words."""
    expected = json.loads(json.dumps(expected))
    found = [f"protocol {content.get('protocol')}, now {expected['protocol']}"] if content.get("protocol") != expected["protocol"] else []
    for part, word in (("resolved", ""), ("inputs", "digest of ")):
        was, now = content.get(part) or {}, expected[part]
        if part == "resolved":  # an axis that was not there yet had the level that is its default since
            was = {f.name: f.default for f in fields(Run) if f.name in now} | was
        found += [f"{word}{name} {str(was.get(name))[:12]}, now {str(now.get(name))[:12]}" for name in {**was, **now} if was.get(name) != now.get(name)]
    return found


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


def predictions(examples: Sequence[Example], responses: Iterable[str], *, likelihoods: Sequence[list[float] | None] | None = None) -> pd.DataFrame:
    """A row per example: ids, clusters, question, choices and answers (lists), and the raw response.

    Where any picture's objects are known there is a column ``objects``, and with `likelihoods` (of each choice, None for a question
    without) a column ``likelihoods``: lists too. Answers kept before there were such columns are read as they are.
    """
    rows = [
        {**{c: getattr(e, c) for c in PREDICTION_COLUMNS[:6]}, "choices": list(e.choices), "answers": list(e.answers), "response": r}
        for e, r in zip(examples, responses, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    if any(e.objects for e in examples):
        frame["objects"] = [list(e.objects) for e in examples]
    if likelihoods is not None and any(likelihoods):
        frame["likelihoods"] = pd.Series([found or None for _, found in zip(examples, likelihoods, strict=True)], dtype=object)
    return frame


# ---------------------------------------------------------------- collected studies

class Scorer(Protocol):
    """What turns stored answers into scores: the module `metrics`, given by who calls, since it is above this one."""

    RELATIVE: tuple[str, ...]

    def judge(self, predictions: pd.DataFrame, name: str, *, whole: pd.DataFrame | None = None) -> pd.DataFrame: ...

    def score(self, predictions: pd.DataFrame, name: str, *, whole: pd.DataFrame | None = None) -> dict[str, Any]: ...

    def shown(self, name: str, predictions: pd.DataFrame) -> tuple[str, ...]: ...


FINAL_STEPS = 10  # the final loss is the mean over the last steps: one batch says little
ORIGIN = ("commit", "dirty", "processor", "device")  # of the stamp, beside every row


def collect(study: str, runs: Sequence[Run], *, scorer: Scorer, stages: Sequence[str] = ("finetune", "evaluate")) -> Path:
    """Gather the finished stages of a study's runs into tidy tables in the folder returned, whole or not at all.

    predictions.parquet: a row per answer; scores.csv: a row per run, stage and metric; costs.csv: a row per tuned model;
    texts.csv: where it was measured, a row per passage of plain text; references.parquet: where a metric needs them, all questions of a test set, asked or not; provenance.json: what made them all.
    Every row carries every axis, resolved. `scorer` is the module `metrics`: it adds parsed, outcome, value and metric to each answer
    and says what is reported of them.
    Raises ValueError naming what is missing, stale or edited; nothing is written then.
    """
    answers, scores, costs, texts, whole = [], [], [], [], {}
    found = _finished(runs, stages)
    for (stage, folder), (run, content) in found.items():
        about = {"run": run.id, "stage": stage, **run.resolved()}
        if stage == "finetune":
            costs.append({**about, **_costs(folder, content)})
            continue
        dataset = run.tested_on if stage == "evaluate" else run.probe
        about |= {"tested_on": dataset, **{name: content.get("stamp", {}).get(name) for name in ORIGIN}}
        given = pd.read_parquet(folder / "predictions.parquet")
        if set(_names(scorer, stage, dataset, given)) & set(scorer.RELATIVE) and dataset not in whole:
            whole[dataset] = read_references(run.tested_on if stage == "evaluate" else probed(run))
        judged, rows = _assessed(scorer, given, _names(scorer, stage, dataset, given), whole.get(dataset))
        answers.append(judged.assign(**about))
        scores += [{**about, **row} for row in (*rows, *_perplexity(content.get("text") or []))]
        texts += [{**about, **passage} for passage in content.get("text") or []]
    tables = {"predictions.parquet": answers, "scores.csv": scores, "costs.csv": costs, "texts.csv": texts}
    tables["references.parquet"] = [rows.assign(tested_on=name) for name, rows in whole.items()]
    return _write_tables(study, tables, _origins(found.values()))


def _perplexity(text: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The score of fixed passages of plain text (passage, nats, tokens): e to the mean nats per token."""
    nats, tokens = (sum(passage[name] for passage in text) for name in ("nats", "tokens"))
    return [{"metric": MEASURED[0], "value": math.exp(nats / tokens), "n": tokens, "unparsed": 0}] if text else []


def _names(scorer: Scorer, stage: str, tested_on: str, answers: pd.DataFrame) -> tuple[str, ...]:
    """The metrics of a stage's answers; the first judges them."""
    return scorer.shown(datasets.card(tested_on).metric if stage == "evaluate" else tested_on, answers)


def _assessed(scorer: Scorer, answers: pd.DataFrame, names: Sequence[str], whole: pd.DataFrame | None) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Answers judged by the first metric, and a row of scores for each."""
    judged = scorer.judge(answers, names[0], whole=whole)
    return judged, [{"metric": name, **scorer.score(judged, name, whole=whole)} for name in names]


@dataclass(frozen=True)
class Rescored:
    """What scoring stored answers again changed: the folder written, how many outcomes or values of answers, and the scores that differ.

    ``changes`` has a row per score: run, stage, tested_on, test_pictures, metric, before and after (None: not there).
    ``refused`` says by data set why a metric asked for could not be applied.
    """

    folder: Path
    answers: int
    scores: int
    changes: pd.DataFrame
    refused: dict[str, str]


CELL = ["run", "stage", "tested_on", "test_pictures", "test_size", "probe_size"]  # what tells one stage's answers from another's


def rescore(study: str, *, scorer: Scorer, metric: str | None = None) -> Rescored:
    """Score a study's stored answers with the scorer as it is now, whole or not at all; no model and no data set is needed.

    Answers collected here are scored, else the published ones; the result lies where `collect` writes. With `metric`, its scores are added
    (or renewed) beside the others and no answer is judged anew. Measurements that no answer holds stay as they were.
    Raises FileNotFoundError where the study is not collected, ValueError where `metric` can be applied to none of its answers.
    """
    results = read_results(study)
    answers, rows, refused = [], [], {}
    about = [c for c in results.scores if c not in ("metric", "value", "n", "unparsed")]
    for _, cell in results.predictions.groupby(CELL, sort=False, dropna=False):
        stage, tested_on = cell["stage"].iloc[0], cell["tested_on"].iloc[0]
        whole = results.references[results.references["tested_on"] == tested_on] if len(results.references) else None
        whole = whole if whole is not None and len(whole) else None
        given = cell.drop(columns=[c for c in JUDGED if c in cell])
        names = (metric,) if metric else _names(scorer, stage, tested_on, given)
        try:
            judged, made = _assessed(scorer, given, names, whole)
        except ValueError as error:
            if metric is None:
                raise
            refused[tested_on] = str(error)
            continue
        answers.append(judged)
        rows += [{**cell.iloc[0][about].to_dict(), **row} for row in made]
    if not rows:
        raise ValueError(f"{metric} can be applied to no answer of {study!r}: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
    new, old = pd.DataFrame(rows), results.scores
    stays = old["metric"] != metric if metric else old["metric"].isin(MEASURED)
    scores = pd.concat([part for part in (old[stays] if metric else new, new if metric else old[stays]) if len(part)], ignore_index=True)
    predictions = results.predictions if metric else pd.concat(answers).loc[results.predictions.index, results.predictions.columns]
    moved = (predictions[["outcome", "value"]] != results.predictions[["outcome", "value"]]).any(axis=1)
    tables = {"predictions.parquet": [predictions], "scores.csv": scores.to_dict("records")}
    origins = {**results.provenance, "scored": {"commit": provenance.commit(), "dirty": provenance.dirty()}}
    others = [f for f in results.folder.iterdir() if f.is_file() and f.name not in (*tables, "provenance.json")]
    changes = _changes(old, scores)
    return Rescored(_write_tables(study, tables, origins, others=others), int(moved.sum()), len(scores), changes, refused)


JUDGED = ("parsed", "outcome", "value", "metric")
MEASURED = ("text_perplexity",)  # scores that were measured with the model, not computed from its answers


def _changes(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The scores that are not the same to nine digits, before and after."""
    key = [c for c in (*CELL, "metric") if c in old]
    columns = [*key, "value", "n", "unparsed"]
    sizes = [c for c in ("test_size", "probe_size") if c in key]
    old, new = (frame.astype(dict.fromkeys(sizes, float)) for frame in (old, new))
    both = old[columns].merge(new[columns], on=key, how="outer", suffixes=("_before", "_after"), validate="one_to_one")
    same = pd.Series(True, index=both.index)
    for name in ("value", "n", "unparsed"):
        before, after = (pd.to_numeric(both[f"{name}_{when}"]) for when in ("before", "after"))
        same &= np.isclose(before, after, rtol=1e-9, atol=1e-9, equal_nan=True)
    return both[~same].rename(columns={"value_before": "before", "value_after": "after"})[[c for c in key if c != "test_size"] + ["before", "after"]].reset_index(drop=True)


def _finished(runs: Sequence[Run], stages: Sequence[str]) -> dict[tuple[str, Path], tuple[Run, dict[str, Any]]]:
    """Each stage folder of the runs once, with its record; ValueError where any is missing or stale."""
    missing, stale, found = [], [], {}
    bases = {name: models.digest(name) for name in {r.model for r in runs}}
    for run in runs:
        for stage in stages:
            folder = stage_folder(run, stage)
            if (stage, folder) in found or (stage == "finetune" and run.method == "none"):
                continue
            content = sealed(folder)
            name = str(folder.relative_to(paths.runs()))
            if content is None:
                missing.append(name)
            elif differences := _differences(content, expectation(run, stage, inputs(run, stage, base=bases[run.model]))):
                stale.append(f"{name} ({'; '.join(differences)})")
            else:
                found[stage, folder] = (run, content)
    for kind, names in (("missing", missing), ("stale", stale)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(f"the study is not complete: {len(names)} of {len(missing) + len(stale) + len(found)} stages are {kind}: {', '.join(names[:5])}{more}")
    if not found:
        raise ValueError("the study has no runs to collect")
    return found


def _costs(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What tuning a model cost: the facts of its stamp, its steps, final loss in nats and the bytes of its adapter on disk."""
    stamp = content.get("stamp", {})
    facts = {name: value for name, value in stamp.items() if value is None or isinstance(value, (str, int, float))}
    towers = {f"{kind}_{tower}": count for kind in ("trainable", "total") for tower, count in stamp.get(kind, {}).items()}
    steps = pd.read_parquet(folder / "steps.parquet")
    facts |= {"final_loss": float(steps["loss"].tail(FINAL_STEPS).mean()), "adapter_bytes": (folder / "adapter.safetensors").stat().st_size}
    return {**facts, **towers, "protocol": content["protocol"], **{f"digest_{k}": v for k, v in content["inputs"].items()}}


def _origins(found: Iterable[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    """What made a study: commits, machine, packages (every value that occurs), digests of data and base, stages and their seconds."""
    found = list(found)
    stamps = [content.get("stamp", {}) for _, content in found]
    packages = {name for stamp in stamps for name in stamp.get("packages") or {}}
    data = {(r.tested_on if c["stage"] == "evaluate" else r.dataset if c["stage"] == "finetune" else r.probe, c["stage"]): c["inputs"]["data"] for r, c in found}
    return {
        "protocol": sorted({content["protocol"] for _, content in found}),
        **{plural: _values(stamp.get(name) for stamp in stamps) for plural, name in PLURALS.items()},
        "packages": {name: _values((stamp.get("packages") or {}).get(name) for stamp in stamps) for name in sorted(packages)},
        "bases": {run.model: content["inputs"]["base"] for run, content in found},
        "data": [{"dataset": dataset, "stage": stage, "digest": digest} for (dataset, stage), digest in sorted(data.items())],
        "stages": len(found),
        "seconds": float(sum(stamp.get("seconds") or 0 for stamp in stamps)),
        "started": min((s["started"] for s in stamps if s.get("started")), default=None),
    }


PLURALS = {"commits": "commit", "dirty": "dirty", "python": "python", "systems": "system", "processors": "processor", "cores": "cores", "devices": "device"}


def _values(values: Iterable[Any]) -> list[Any]:
    """The different values, in a fixed order; a value that is missing stays, as None."""
    return sorted(set(values), key=str)


def _write_tables(study: str, tables: dict[str, list[Any]], origins: dict[str, Any], *, others: Iterable[Path] = ()) -> Path:
    """Write a study's tables, and copies of `others`, under a temporary name and put them in the place of what was there."""
    folder = paths.results() / study
    temporary = folder.with_name(f".{study}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, rows in tables.items():
        if rows and name.endswith(".parquet"):
            pd.concat(rows, ignore_index=True).to_parquet(temporary / name, compression="zstd", index=False)
        elif rows:
            pd.DataFrame(rows).to_csv(temporary / name, index=False)
    for file in others:
        shutil.copyfile(file, temporary / file.name)
    (temporary / "provenance.json").write_text(json.dumps({**origins, "study": study}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


@dataclass(frozen=True)
class Results:
    """A collected study as `collect` wrote it: its tables, and what made them."""

    study: str
    folder: Path
    predictions: pd.DataFrame
    scores: pd.DataFrame
    costs: pd.DataFrame
    references: pd.DataFrame
    texts: pd.DataFrame
    provenance: dict[str, Any]


def read_base(model: str) -> dict[str, Any] | None:
    """How a pocket base was made (its tracked delta.json); None for a model that has no delta."""
    file = paths.bases() / model / "delta.json"
    return json.loads(file.read_text()) if file.exists() else None


def read_results(study: str) -> Results:
    """The tables of a study: those collected here, else the published ones; raises FileNotFoundError saying how to make them."""
    for folder in (paths.results() / study, paths.published_results() / study):
        if (folder / "provenance.json").exists():
            words = {f.name: str for f in fields(Run) if f.type is str}  # else a column of "true" is read as a truth value
            scores, costs, texts = (
                pd.read_csv(f, keep_default_na=False, na_values=[""], dtype=words) if (f := folder / name).exists() else pd.DataFrame() for name in ("scores.csv", "costs.csv", "texts.csv")
            )
            origins = json.loads((folder / "provenance.json").read_text())
            references = pd.read_parquet(file) if (file := folder / "references.parquet").exists() else pd.DataFrame()
            return Results(study, folder, pd.read_parquet(folder / "predictions.parquet"), scores, costs, references, texts, origins)
    raise FileNotFoundError(f"study {study!r} is not collected: run `python -m peftlab run {study}` and then `python -m peftlab report {study}`")


# ---------------------------------------------------------------- facts


def write_facts(name: str, study: str, facts: dict[str, Any]) -> Path:
    """Write what an aggregate notebook found to facts/<name>.json: numbers, words and tables (frames become lists of rows).

    Missing values become null. Raises ValueError on a number that is not finite.
    """
    folder = paths.build() / "facts"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    plain = {key: _rows(value) if isinstance(value, pd.DataFrame) else value for key, value in facts.items()}
    text = json.dumps({"study": study, **plain}, indent=1, allow_nan=False, default=lambda value: value.item())
    file.with_suffix(".part").write_text(text + "\n", encoding="utf-8")
    file.with_suffix(".part").replace(file)
    return file


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{k: None if pd.api.types.is_scalar(v) and pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]


def read_facts(study: str) -> dict[str, dict[str, Any]]:
    """The facts of `study` by the name they were written under; raises ValueError where one is of another study."""
    facts = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((paths.build() / "facts").glob("*.json"))}
    if not facts:
        raise FileNotFoundError(f"there are no facts of {study!r}: run `python -m peftlab report {study}`")
    for name, content in facts.items():
        if content["study"] != study:
            raise ValueError(f"{name} holds facts of study {content['study']!r}, not {study!r}: run `python -m peftlab report {study}`")
    return facts
