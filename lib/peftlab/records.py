"""Examples, stages of runs and answers, as tidy rows, and the files they live in."""

import hashlib
import io
import json
import os
import shutil
import string
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from peftlab import datasets, models, paths
from peftlab.run import PROTOCOL, Run, adapter_file

SPLITS = ("base", "train", "validation", "test")
PICTURES = ("true", "shuffled", "blank")
CHECKPOINT = ".checkpoint.safetensors"
DRAWING = ("pictures", "questions", "icons", "knowledge", "maps")  # modules that the sets drawn from the pack are made by, beside their own
READING = ("rows", "metrics/chair")  # and those that published sets and a user's own are read by
VOCABULARY = "vocabulary.json"  # of a prepared data set whose pictures' things have more names than their own
REVISIONS = "revisions.json"  # of one that was read from hub repositories: the commit of each
PROBED = "scenes"  # the data set whose test pictures are probed, by all probes but those that bring pictures of their own
PROBED_SPLIT = {"clean_captions": "simple"}  # by probe: the split whose pictures are probed, where that is not the test


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
    for file, content in ((VOCABULARY, datasets.vocabulary(dataset)), (REVISIONS, datasets.revisions(dataset))):
        if content:
            (temporary / file).write_text(json.dumps(content, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return digests


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _coloured(image: Image.Image) -> Image.Image:
    """As RGB, of which PIL's own conversion makes a white sheet of sixteen bits and a black one of what is transparent."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels are {'whole' if image.mode == 'I' else 'fractional'} numbers of 32 bits: save it with 8 or 16 bits a channel")
    elif image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.new("RGB", above.size, "white")
        image.paste(above, mask=above.getchannel("A"))
    return image.convert("RGB")


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # no other decoder of PIL is ever given a picture: some start programs
LARGEST = 50_000_000  # pixels; a small file can unpack to more than memory holds


def decoded(data: bytes) -> Image.Image:
    """An RGB picture of eight bits a channel, upright, of the bytes of a file: of sixteen the upper eight, and what is transparent on white.

    Raises ValueError in a few words where it is none, cut short, larger than `LARGEST` or of numbers that say nothing of how bright they are.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels = image.width * image.height
        upright = ImageOps.exif_transpose(image) if pixels <= LARGEST else None
    except Image.DecompressionBombError as error:
        raise ValueError(f"it is too large: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"it is no picture of a kind that is read ({', '.join(FORMATS)})") from error
    except Exception as error:  # whatever a decoder raises, it is of a broken file
        raise ValueError(f"it is cut short or broken: {error}") from error
    if upright is None:
        raise ValueError(f"it is too large: {image.width} x {image.height} pixels, of which at most {LARGEST:,} are read")
    return _coloured(upright)


def is_prepared(dataset: str) -> bool:
    """Whether the data set is prepared, from the files, card and code as they are now and under this protocol."""
    file = paths.prepared() / dataset / "source.json"
    return file.exists() and json.loads(file.read_text()) == _source(dataset)


def _source(dataset: str) -> dict[str, Any]:
    """What prepared examples depend on: the content of the pack or of a user's files, the card, the code that draws or reads them, the protocol."""
    digest, code, card = hashlib.sha256(), Path(datasets.__file__).parent, datasets.card(dataset)
    drawn = [code / f"{card.module or dataset}.py", *(code.parent / f"{name}.py" for name in (READING if card.module else DRAWING))]
    top = paths.pack() if card.source == datasets.PACK else paths.root()
    for file in datasets.files(dataset):
        about = file.stat()
        name = file.relative_to(top).as_posix() if file.is_relative_to(top) else file.as_posix()
        digest.update(name.encode() + _content(file, about.st_size, about.st_mtime_ns))
    text = b"".join(file.read_bytes() for file in drawn if file.exists())
    return {"pack": digest.hexdigest(), "card": repr(card), "code": hashlib.sha256(text).hexdigest(), "protocol": PROTOCOL["prepare"]}


READ_WHOLE = 2**26  # bytes: copies of hub repositories are tens of gigabytes


@cache
def _content(file: Path, size: int, changed: int) -> bytes:
    """The digest of a file of this size and time of change, read once in a process; of one too large to read for that, these two alone."""
    if size > READ_WHOLE:
        return f"{size} {changed}".encode()
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def read_json(file: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(file.read_bytes())


def digests(dataset: str) -> dict[str, str]:
    """The digest of each prepared split; raises FileNotFoundError saying how to prepare the data set."""
    file = paths.prepared() / dataset / "digests.json"
    if not file.exists():
        raise FileNotFoundError(f"{dataset} is not prepared: run notebooks/01_prepare_data.ipynb with dataset = {dataset!r}")
    return read_json(file)


def read_revisions(dataset: str) -> dict[str, str | None]:
    """The commit of each hub repository that a prepared data set was read at (`datasets.revisions`); empty where it came from none, or is not prepared."""
    file = paths.prepared() / dataset / REVISIONS
    return json.loads(file.read_text()) if file.exists() else {}


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


def probed_split(run: Run) -> str:
    """The split of `probed` whose pictures the run's probe is about."""
    return PROBED_SPLIT.get(run.probe, "test")


def replayed(run: Run) -> list[str]:
    """The data sets that a run mixes examples of into its training: those its model has seen, but for its own; none without replay."""
    return [name for name in models.card(run.model).seen if name != run.dataset] if run.replay else []


def read_replay(run: Run, train: Sequence[Example]) -> list[Example]:
    """Examples of what is replayed, as many as `Run.replayed` says, the sets in turn, by a seeded order."""
    seen, wanted = replayed(run), run.replayed(len(train))
    each = [read_examples(name, "train", size=-(-wanted // len(seen)), seed=run.seed) for name in seen] if wanted else []
    return [e for turn in zip(*each) for e in turn][:wanted]


def _read_columns(dataset: str, split: str, *names: str) -> pd.DataFrame:
    """Columns of a prepared split, in stored order, without the pictures; raises FileNotFoundError where the data set is not prepared."""
    digests(dataset)
    return pd.read_parquet(paths.prepared() / dataset / f"{split}.parquet", columns=list(names))


def read_objects(dataset: str, split: str) -> list[tuple[str, ...]]:
    """The names of the things in each picture of a prepared split, without decoding the pictures."""
    return [tuple(objects) for objects in _read_columns(dataset, split, "picture_id", "objects").drop_duplicates("picture_id")["objects"]]


def read_vocabulary(dataset: str) -> tuple[str, ...]:
    """What captions of a prepared data set's pictures can name, a line a thing, as `metrics.judge` reads it; none where no picture's things are known.

    The list of synonyms that the set came with, else the names of all things that its pictures hold, in any of its splits, sorted.
    """
    if (file := paths.prepared() / dataset / VOCABULARY).exists():
        return tuple(json.loads(file.read_text(encoding="utf-8")))
    return tuple(sorted({name for split in digests(dataset) for objects in read_objects(dataset, split) for name in objects}))


def picture_ids(dataset: str, split: str) -> list[str]:
    """The picture of each example of a prepared split, in stored order, without decoding any."""
    return _read_columns(dataset, split, "picture_id")["picture_id"].tolist()


def read_references(dataset: str) -> pd.DataFrame:
    """What all questions of a prepared test set accept, and what their pictures hold, without the pictures: example_id, answers, objects."""
    return _read_columns(dataset, "test", "example_id", "answers", "objects")


CLOSED = 24  # answers at most of a kind of question whose vocabulary is taken for closed


def options(examples: Sequence[Example], dataset: str) -> list[tuple[str, ...]]:
    """What each example of a prepared data set may be answered with: its choices, or their letters where these are what is taught, else the answers that
    the whole test set has to its kind of question.

    None (an empty tuple) where these are fewer than two, more than `CLOSED`, or more than half as many as the questions of the kind: an open vocabulary.
    """
    asked = _read_columns(dataset, "test", "template", "answers")
    first = asked["answers"].str[0]
    closed = {str(kind): tuple(sorted(set(said))) for kind, said in first.groupby(asked["template"]) if 2 <= said.nunique() <= min(CLOSED, len(said) // 2)}
    return [_taught(e) if e.choices else closed.get(e.template, ()) for e in examples]


def _taught(example: Example) -> tuple[str, ...]:
    """The choices as a tuned model has learned to give them: their letters where the answer taught is one, else themselves."""
    letters = tuple(string.ascii_uppercase[: len(example.choices)])
    return letters if example.answers[0] in set(letters) - set(example.choices) else example.choices


class Words(NamedTuple):
    """A question without its picture."""

    example_id: str
    question: str
    answers: tuple[str, ...]
    template: str
    choices: tuple[str, ...] = ()


def read_words(dataset: str, *splits: str) -> list[Words]:
    """The questions of prepared splits without their pictures, those splits that the set has, one after the other."""
    have = digests(dataset)
    tables = [_read_columns(dataset, split, *Words._fields) for split in splits if split in have]
    return [Words(row.example_id, row.question, tuple(row.answers), row.template, tuple(row.choices)) for table in tables for row in table.itertuples()]


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
        for checkpoint in self.final.parent.glob(f"{self.final.name}-*{CHECKPOINT}*"):
            checkpoint.unlink()
        return self.final


def stage_folder(run: Run, stage: str) -> Path:
    """Where the finished stage lies: data/runs/<id>/finetune, /evaluate/<test_id> or /probe/<probe_id>."""
    inner = "" if stage == "finetune" else run.test_id if stage == "evaluate" else run.probe_id
    return Path(os.path.join(paths.runs(), run.id, stage, inner))  # joined as text: of a large study there are tens of thousands


def expectation(run: Run, stage: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a finished stage must say of itself to be used again: protocol, resolved values up to this stage, input digests."""
    mine = _axes_of(stage)
    resolved = {k: v for k, v in run.resolved().items() if k in mine}
    return {"stage": stage, "protocol": PROTOCOL[stage], "resolved": resolved, "inputs": inputs}


@cache
def _axes_of(stage: str) -> frozenset[str]:
    """The axes that a stage hangs on: its own, and those of the training that it reads."""
    return frozenset(f.name for f in fields(Run) if f.metadata["stage"] in {"finetune", stage})


def tuned_files(run: str) -> dict[str, str]:
    """The digest of each file of a tuned model, by the run's id; none where nothing is tuned (yet)."""
    record = paths.runs() / run / "finetune" / "run.json"
    return read_json(record)["files"] if record.exists() else {}


def inputs(run: Run, stage: str, *, base: str | None = None, prepared: Callable[[str], dict[str, str]] = digests, tuned: Callable[[str], dict[str, str]] = tuned_files) -> dict[str, str | None]:
    """The digests of what a stage reads: its examples, the base (`models.digest` unless given) and the tuned model.

    ``finetune`` is None where nothing is tuned (yet). Who asks for many stages at once gives a `prepared` and a `tuned` that remember.
    Raises FileNotFoundError where the data set is not prepared.
    """
    reads = {"finetune": (run.dataset, "train"), "evaluate": (run.tested_on, "test"), "probe": (probed(run), probed_split(run))}
    dataset, split = reads[stage]
    found: dict[str, str | None] = {"data": prepared(dataset).get(split), "base": base or models.digest(run.model)}
    if stage == "finetune" and run.replay:
        found["replay"] = " ".join(prepared(name)["train"] for name in replayed(run))
    if stage != "finetune":
        found["finetune"] = tuned(run.id).get(run.probed if stage == "probe" else adapter_file())  # not the log: its seconds differ each time
    if stage == "probe":
        found["names"] = prepared(dataset).get("base")  # what is popular is counted there
    return found


def state(run: Run, stage: str, inputs: dict[str, Any]) -> str:
    """``missing``, ``finished`` or ``stale`` (finished under another protocol, other resolved values or inputs).

    Raises ValueError where a file of the finished stage was edited since it was sealed.
    """
    content = sealed(stage_folder(run, stage))
    if content is None:
        return "missing"
    return "stale" if differences(content, expectation(run, stage, inputs)) else "finished"


def failure_file(folder: Path) -> Path:
    """Where it is written why a stage failed: beside its folder."""
    return folder.with_name(f"{folder.name}.failure.json")


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Why the stage failed that would lie in `folder`; None where no failure is recorded."""
    try:
        return json.loads(failure_file(folder).read_text())
    except FileNotFoundError:
        return None


def unfit(run: Run, stage: str, *, digest: Callable[[str], str] = models.digest) -> dict[str, Any] | None:
    """What is recorded of a stage that cannot be had because it, or the tuning of the model that it asks, ran out of memory; else None.

    It counts where no other run shared the machine, and where the stage would be made from the same now: protocol, resolved values, inputs.
    `digest` gives that of a base model by its name.
    """
    for name in dict.fromkeys((stage, "finetune") if run.method != "none" else (stage,)):
        folder = stage_folder(run, name)
        facts = None if (folder / "run.json").exists() else read_failure(folder)
        if facts is not None and facts["out_of_memory"] and facts.get("beside") == 0 and facts.get("made_from"):
            now = made_from(run, name, digest=digest)
            if now is not None and not differences(facts["made_from"], now):
                return facts
    return None


def made_from(run: Run, stage: str, *, digest: Callable[[str], str] = models.digest) -> dict[str, Any] | None:
    """What a stage would be made from now, as `expectation` says it; None where the data that it reads are not prepared here."""
    try:
        return expectation(run, stage, inputs(run, stage, base=digest(run.model)))
    except FileNotFoundError:
        return None


def sealed(folder: Path) -> dict[str, Any] | None:
    """The run.json of a finished stage, its files checked against it, or None where the stage is not finished.

    Raises ValueError where a file was edited, added or removed since the stage was sealed.
    """
    record = folder / "run.json"
    if not record.exists():
        return None
    advice = f"delete {folder} to make it again"
    try:
        content = json.loads(record.read_bytes())
        seal, files = content.pop("seal"), content["files"]
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{record} was edited and is no longer a run's record ({error}); {advice}") from error
    if seal != _seal(content):
        raise ValueError(f"{record} was edited since the run wrote it; {advice}")
    place = os.fspath(folder)  # a Path for each file takes as long as hashing it
    there = {name for name in os.listdir(place) if not name.startswith(".")} - {"run.json"}
    for name in sorted(there ^ set(files)):
        raise ValueError(f"{folder / name} was {'added' if name in there else 'removed'} since the run wrote it; {advice}")
    for name, digest in files.items():
        with open(os.path.join(place, name), "rb", buffering=0) as file:
            found = hashlib.sha256(file.read()).hexdigest()
        if found != digest:
            raise ValueError(f"{folder / name} was edited since the run wrote it; {advice}")
    return content


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(content: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What of a finished stage is not as expected, in words."""
    if all(content.get(part) == expected[part] for part in ("protocol", "resolved", "inputs")):
        return []
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


def predictions(
    examples: Sequence[Example], responses: Iterable[str], *, options: Sequence[tuple[str, ...]] = (), likelihoods: Sequence[list[float] | None] = ()
) -> pd.DataFrame:
    """A row per example: ids, clusters, question, choices and answers (lists), and the raw response.

    Where any picture's objects are known there is a column ``objects``, where `options` were weighed a column ``likelihoods`` (of each, None for
    a question without), and where they are not the choices of a question a column ``options``: lists too. Answers kept before are read as they are.
    """
    rows = [
        {**{c: getattr(e, c) for c in PREDICTION_COLUMNS[:6]}, "choices": list(e.choices), "answers": list(e.answers), "response": r}
        for e, r in zip(examples, responses, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    if any(e.objects for e in examples):
        frame["objects"] = [list(e.objects) for e in examples]
    if any(likelihoods):
        closed = [() if e.choices == found else found for e, found in zip(examples, options, strict=True)]
        for name, lists in (("options", closed), ("likelihoods", likelihoods)):
            if any(lists):
                frame[name] = pd.Series([list(found) if found else None for _, found in zip(examples, lists, strict=True)], dtype=object)
    return frame
