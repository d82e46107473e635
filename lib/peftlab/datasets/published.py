"""The published benchmarks of Zhou et al. (2024) and Huang et al. (2025), and POPE: hub repositories and authors' releases, read as they are.

A set is a row of `SETS`: which files hold its parts, under which columns, and how it is asked, in the words of Zhou et al. (2024, Table 10).
What is in the folder data/hub (`paths.hub`) is read from there, the rest is fetched at the revision that the card names. Validation is
carved out of training by picture; every order and subsample is by the digest of an id, so it does not depend on the order of the files.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from peftlab import datasets, paths
from peftlab.metrics import chair
from peftlab.records import Example, decoded

SEED = 0  # of validation parts and subsamples
PHRASE = "{} Answer the question using a single word or phrase."
UNSURE = 'Question: {} When the information is insufficient, respond with "Unanswerable". Answer the question using a single word or phrase.'
BLANK = "{} Fill in the blanks in (_) or answer this question."
CHOOSE = "{} Choices: {}. Choose an option from the choices to answer the question."
DESCRIBE = (
    "Share a concise interpretation of the image provided.",
    "Render a clear and concise summary of the photo.",
    "Write a terse but informative summary of the picture.",
    "Offer a succinct explanation of the picture presented.",
    "Describe the image concisely.",
    "Provide a brief description of the given image.",
    "Create a compact narrative representing the image presented.",
    "Relay a brief, clear account of the picture shown.",
    "Summarize the visual content of the image.",
    "Give a short and clear explanation of the subsequent image.",
)
LETTERS = "ABCDEFGHIJ"

Row = dict[str, Any]


class Asked(NamedTuple):
    """A question on a picture; `key` tells it from the others on the same picture."""

    key: str
    question: str
    answers: tuple[str, ...]
    template: str
    choices: tuple[str, ...] = ()
    phrasing: int = 0
    asset: str = ""
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Where the rows of a part lie: files below the card's source of that number, and the columns that tell and hold a row's picture.

    Without ``picture``, pictures are told by their content. Rows with one picture are posed together where ``together``. ``only`` is a column
    and the values of it that belong to the part; ``images`` another table (columns id, image), or a folder, where the questions' own holds no pictures.
    """

    files: str
    picture: str | None = None
    image: str = "image"
    source: int = 0
    together: bool = False
    only: tuple[str, tuple[str, ...]] | None = None
    images: str | None = None


@dataclass(frozen=True)
class Published:
    """How a set is read: its parts (no ``train`` where it only tests; validation is carved from it unless it has a part), and how rows are posed."""

    pose: Callable[[Sequence[Row]], Iterable[Asked]]
    test: Part
    train: Part | None = None
    validation: Part | None = None
    annotated: bool = False  # whether COCO's annotations say what its test pictures hold, where they are there (`ANNOTATIONS`)


# ---------------------------------------------------------------- how rows are asked


def _most_first(answers: Sequence[Any]) -> tuple[str, ...]:
    """All answers of several people, the most frequent first: it is trained on."""
    said = [a["answer"] if isinstance(a, dict) else a for a in answers]
    most = Counter(said).most_common(1)[0][0]
    said.remove(most)
    return (most, *said)


def _open(wording: str, key: str, template: str | None = None, answers: str = "answers") -> Callable[[Sequence[Row]], Iterator[Asked]]:
    """One open question a row, with one answer or several people's."""

    def pose(rows: Sequence[Row]) -> Iterator[Asked]:
        for row in rows:
            said = row[answers]
            found = (said,) if isinstance(said, str) else _most_first(said)
            yield Asked(str(row[key]), wording.format(row["question"]), found, str(row[template]) if template else "question")

    return pose


def _vizwiz(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        yield Asked("0", UNSURE.format(row["question"]), _most_first(row["answers"]), row.get("category") or row.get("answer_type") or "question")


def _vqa(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        yield Asked(str(row["question_id"]), PHRASE.format(row["question"]), _most_first(row.get("answers_original") or row["answers"]), row["answer_type"])


def _okvqa(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        yield Asked(str(row["question_id"]), PHRASE.format(row["question"]), _most_first(row.get("answers_original") or row["answers"]), row["question_type"])


def _ocrvqa(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        for number, (question, answer) in enumerate(zip(row["questions"], row["answers"], strict=True)):
            yield Asked(str(number), PHRASE.format(question), (answer,), "cover")


def _scienceqa(rows: Sequence[Row]) -> Iterator[Asked]:
    """The letter is trained on; the text of the choice is accepted too, and alone where the letter is the name of another choice.

    A question's context (``hint``), without which some say nothing, stands before it, as in LLaVA's data (Liu et al. 2023, section 5.2).
    """
    for row in rows:
        choices = tuple(row["choices"])
        letter, text = LETTERS[row["answer"]], choices[row["answer"]]
        taken = any(c.strip().lower() == letter.lower() for c in choices if c != text)
        listed = ", ".join(f"{name}.{choice}" for name, choice in zip(LETTERS, choices, strict=False))
        context = (row.get("hint") or "").strip()
        asked = f"{context} {row['question']} {listed}".lstrip()
        yield Asked(_digest(row["question"] + listed + context)[:8], asked, (text,) if taken else (letter, text), row["subject"], choices)


def _iconqa_txt(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        choices = tuple(row["choices"])
        yield Asked("0", CHOOSE.format(row["question"], ", ".join(choices)), (choices[row["answer"]],), "choose", choices)


def _iconqa_blank(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        yield Asked("0", BLANK.format(row["question"]), (str(row["answer"]),), "fill")


def _caption(captions: Sequence[str], key: str) -> Asked:
    phrasing = int(_digest(key)[:8], 16) % len(DESCRIBE)
    return Asked("0", DESCRIBE[phrasing], tuple(captions), "caption", phrasing=phrasing)


def _flickr30k(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        yield _caption(row["caption"], row["img_id"])


def _coco(rows: Sequence[Row]) -> Iterator[Asked]:
    """One row a caption: those of a picture become the references of one question."""
    ordered = sorted(rows, key=lambda row: row["sentences"]["sentid"])
    yield _caption([row["sentences"]["raw"].strip() for row in ordered], str(ordered[0]["cocoid"]))


def _pope(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        named = re.search(r"there an? (.+?) in the", row["question"])
        yield Asked(f"{row['category']}-{_digest(row['question'])[:6]}", row["question"], (row["answer"].strip().lower(),), row["category"], asset=named[1] if named else "")


def _mmhal(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        yield Asked(_digest(row["question"])[:6], row["question"], (row["gt_answer"],), row["question_type"], asset=row["question_topic"], objects=tuple(row["image_content"]))


SETS: dict[str, Published] = {
    "scienceqa": Published(_scienceqa, Part("data/test-*.parquet"), Part("data/train-*.parquet")),
    "iconqa_txt": Published(_iconqa_txt, Part("iconqa_data/iconqa/test/choose_txt/*/data.json", "folder"), Part("iconqa_data/iconqa/train/choose_txt/*/data.json", "folder")),
    "iconqa_blank": Published(_iconqa_blank, Part("iconqa_data/iconqa/test/fill_in_blank/*/data.json", "folder"), Part("iconqa_data/iconqa/train/fill_in_blank/*/data.json", "folder")),
    "vizwiz": Published(_vizwiz, Part("data/val-*.parquet", "question_id"), Part("Annotations/train.json", "name", source=1)),
    "flickr30k": Published(
        _flickr30k,
        *(Part("TEST/test/*.parquet", "img_id", only=("split", (split,))) for split in ("test", "train", "val")),
    ),
    "okvqa": Published(_okvqa, Part("data/val2014-*.parquet", source=1), Part("data/train-*.parquet", "id_image")),
    "ocrvqa": Published(_ocrvqa, Part("data/test-*.parquet", "image_id"), Part("data/train-*.parquet", "image_id")),
    "vqav2": Published(_vqa, Part("data/validation-*.parquet", "image_id", source=1), Part("data/train-*.parquet", "id_image")),
    "gqa": Published(
        _open(PHRASE, "id", answers="answer"),
        Part("testdev_balanced_instructions/testdev-*.parquet", "imageId", images="testdev_balanced_images/testdev-*.parquet"),
        Part("train_balanced_instructions/train-*.parquet", "imageId", images="train_balanced_images/train-*.parquet"),
    ),
    "textvqa": Published(_open(PHRASE, "question_id"), Part("data/validation-*.parquet", "image_id"), Part("data/train-*.parquet", "image_id")),
    "coco_captions": Published(
        _coco, Part("data/test-*.parquet", "cocoid", together=True), Part("data/train-*.parquet", "cocoid", together=True),
        annotated=True,
    ),
    "pope": Published(_pope, Part("data/test-*.parquet", "image_source")),
    "repope": Published(_pope, Part("repope-*.parquet", "image_id")),
    "mmhal": Published(_mmhal, Part("response_template.json", "name", images="images")),
}  # fmt: skip


# ---------------------------------------------------------------- where rows come from


class Table(NamedTuple):
    """The rows of a part without their pictures, and the bytes of a row's picture by its number (None where it has none)."""

    rows: Iterable[Row]
    picture: Callable[[int], bytes | None]


def _table(source: str, part: Part) -> Table:
    """A part, from the folder data/hub where it is there, else from the hub; raises FileNotFoundError saying what to put where."""
    repository, _, revision = source.partition("@")
    folder = paths.hub() / repository
    if part.files.endswith(".json"):
        return _released(folder, part)
    asked, pictures = _parquet(folder, repository, revision, part.files), None
    if part.images is None:
        return Table(asked.remove_columns(part.image), lambda number: _bytes(asked[number][part.image]))
    pictures = _parquet(folder, repository, revision, part.images)
    places = {name: place for place, name in enumerate(pictures["id"])}
    names = asked[part.picture]
    return Table(asked, lambda number: _bytes(pictures[places[names[number]]]["image"]) if names[number] in places else None)


def _bytes(image: Row | None) -> bytes | None:
    return None if image is None else image["bytes"]


def _parquet(folder: Path, repository: str, revision: str, pattern: str) -> Any:
    import datasets as hub
    import httpx2  # the client of huggingface_hub
    import pyarrow as pa

    hub.disable_progress_bars()
    here = sorted(str(file) for file in folder.glob(pattern))
    try:
        commit = None if here else _commit(repository, revision)
        table = hub.load_dataset("parquet", data_files=here or f"hf://datasets/{repository}@{commit}/{pattern}", split="train", cache_dir=str(paths.cache() / "datasets"))
        READ[repository] = commit or READ.get(repository)
    except (pa.ArrowInvalid, hub.exceptions.DatasetGenerationError) as error:
        raise ValueError(f"a file of {', '.join(here) or repository} is no readable Parquet, as one is that was cut or stands for a large file: copy it again ({error})") from error
    except (OSError, httpx2.HTTPError) as error:  # without a network it raises its own
        where = f"{repository} at revision {revision}"
        raise FileNotFoundError(f"{pattern} of {where} is neither in {folder} nor to be had from the hub ({error}): put a copy of the repository there") from error
    return table.cast_column("image", hub.Image(decode=False)) if "image" in table.features else table


READ: dict[str, str | None] = {}  # by hub repository: the commit that this process read it at, None where only a copy in data/hub was read


@cache
def _commit(repository: str, revision: str) -> str:
    """The commit of a hub repository that a revision is: itself where it is one, else what the hub says, asked once in a process."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    return HfApi().dataset_info(repository, revision=revision).sha


def revisions(name: str) -> dict[str, str | None]:
    """The commit at which this process read each hub repository of a set, None where it read a copy in data/hub; nothing of what it did not read."""
    repositories = [source.partition("@")[0] for source in datasets.card(name).source.split()]
    return {repository: READ[repository] for repository in repositories if repository in READ}


def _released(folder: Path, part: Part) -> Table:
    """Authors' releases: a data.json beside each image.png (IconQA), or one list whose rows name a picture in a folder, that of their part
    (VizWiz) or one for all, by the end of its address (MMHal-Bench)."""
    found = sorted(folder.glob(part.files))
    if not found:
        raise FileNotFoundError(f"there is no {folder / part.files}: unpack the authors' release so that it is there, the hub does not hold this part")
    if found[0].name == "data.json":
        rows = [{**_json(file), "folder": file.parent.name} for file in found]
        return Table(rows, lambda number: (found[number].parent / "image.png").read_bytes())
    listed = _json(found[0])
    pictures = folder / (part.images or found[0].stem)
    rows = [row | {"name": row["image"] if "image" in row else row["image_src"].rpartition("/")[2]} for row in listed]
    return Table(rows, lambda number: paths.inside(pictures, rows[number]["name"]).read_bytes())


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no readable JSON, so that it is cut or broken: copy it again ({error})") from error


# ---------------------------------------------------------------- what COCO's pictures hold

INSTANCES, REFERENCES, SYNONYMS = "annotations/instances_val2014.json", "annotations/captions_val2014.json", "synonyms.txt"
ANNOTATIONS = {  # what CHAIR needs below the last of a card's sources; Karpathy's test pictures are all of COCO's validation part of 2014
    INSTANCES: "COCO's annotations of 2014 (annotations_trainval2014.zip, unpacked)",
    SYNONYMS: "the list of synonyms of CHAIR's authors (data/synonyms.txt of github.com/LisaAnne/Hallucination)",
}


def vocabulary(name: str) -> tuple[str, ...]:
    """What captions of a set's test pictures can name (`chair.nouns`), where its annotations and the list of synonyms are here; none where neither is.

    Raises FileNotFoundError naming the one that is missing, and what to put where; ValueError where the list cannot be read.
    """
    folder = _annotations(name)
    missing = [file for file in ANNOTATIONS if SETS[name].annotated and not (folder / file).exists()]
    if missing and len(missing) < len(ANNOTATIONS):
        raise FileNotFoundError(f"what captions of {name} invent cannot be told: {_lacking(folder, missing)}")
    return chair.coco_vocabulary((folder / SYNONYMS).read_text(encoding="utf-8")) if SETS[name].annotated and not missing else ()


def _annotations(name: str) -> Path:
    return paths.hub() / datasets.card(name).source.split()[-1].partition("@")[0]


def _lacking(folder: Path, missing: Iterable[str]) -> str:
    return "; ".join(f"there is no {folder / file}, which is {ANNOTATIONS[file]}" for file in missing)


def _objects(name: str, asked: Iterable[tuple[str, int, Asked]]) -> dict[str, tuple[str, ...]]:
    """What the test pictures hold, by their numbers: objects that are outlined or named by a reference caption, as Rohrbach et al. (2018) take it.

    The references are those of the set and, where they are here, those of COCO's own file, which are the same unless the set has fewer. Without annotations
    there are none, and it is said why. Raises ValueError on a picture that the annotations do not know, and where they cannot be read.
    """
    folder, lines = _annotations(name), vocabulary(name)
    if not lines:
        print(f"{name}: without annotations what captions invent (CHAIR) is not counted: {_lacking(folder, ANNOTATIONS)}; put them there and prepare {name} again")
        return {}
    instances = _annotated(folder / INSTANCES, "images", "annotations", "categories")
    told = [{"image_id": int(picture), "caption": text} for picture, _, found in asked for text in found.answers]
    if strange := {one["image_id"] for one in told} - {image["id"] for image in instances["images"]}:
        raise ValueError(f"picture {min(strange)} of {name} is not in {folder / INSTANCES}: that file is not of COCO's validation part of 2014")
    more = _annotated(folder / REFERENCES, "annotations")["annotations"] if (folder / REFERENCES).exists() else []
    found = chair.coco_objects(instances, {"annotations": [*told, *more]}, chair.nouns(lines))
    return {str(picture): tuple(sorted(things)) for picture, things in found.items()}


def _annotated(file: Path, *parts: str) -> Row:
    """The content of one of COCO's files of annotations; raises ValueError where it is not whole or lacks one of `parts`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not whole ({error}): put it there again") from error
    if not isinstance(content, dict) or (lacks := [part for part in parts if part not in content]):
        raise ValueError(f"{file} holds no {' and no '.join(lacks if isinstance(content, dict) else parts)}: it is not one of COCO's annotation files")
    return content


# ---------------------------------------------------------------- examples


def load(name: str, split: str, size: int | None) -> Iterator[Example]:
    """The first `size` examples of a split in the order of the digests of their ids; all without.

    Raises ValueError where there are fewer, or a picture does not decode, naming it.
    """
    about, card = SETS[name], datasets.card(name)
    part = {"test": about.test, "train": about.train, "validation": about.validation or about.train}[split]
    table = _table(card.source.split()[part.source], part)
    asked = sorted(_posed(about, part, table), key=lambda found: _digest(f"{SEED}-{found[0]}-{found[2].key}"))
    if split != "test" and about.validation is None:
        held = _held_out([picture for picture, _, _ in asked], card.sizes["validation"])
        asked = [found for found in asked if (found[0] in held) == (split == "validation")]
    if size is not None and len(asked) < size:
        raise ValueError(f"{size} examples asked of {name}/{split}, which has {len(asked)}: its files are not those that its card speaks of")
    known = _objects(name, asked) if split == "test" and about.annotated else {}
    origin = "train" if part is about.train else split
    for picture, number, found in asked[:size]:
        picture_id = f"{name}-{origin}-{picture}"
        try:
            image = decoded(table.picture(number) or b"")
        except ValueError as error:
            raise ValueError(f"{name}/{split}: the picture of {picture_id}-{found.key} does not decode: {error}") from error
        yield Example(
            f"{picture_id}-{found.key}", picture_id, image, found.question, found.answers, found.template, found.phrasing, found.asset or picture_id, found.choices,
            found.objects or known.get(picture, ()),
        )  # fmt: skip


def _posed(about: Published, part: Part, table: Table) -> Iterator[tuple[str, int, Asked]]:
    """Every question of a part that has a picture: the picture's name, the number of a row that holds it, the question."""
    grouped: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(table.rows):
        if part.only is None or row[part.only[0]] in part.only[1]:
            name = str(row[part.picture]) if part.picture else _content(table.picture(number))
            if name:
                grouped.setdefault(name, []).append((number, row))
    for name, found in grouped.items():
        for some in [found] if part.together else [[one] for one in found]:
            yield from ((name, some[0][0], asked) for asked in about.pose([row for _, row in some]))


def _held_out(pictures: Iterable[str], size: int) -> set[str]:
    """Whole pictures, in the order of their digests, until they hold at least `size` examples."""
    counted, held, found = Counter(pictures), set[str](), 0
    for picture in sorted(counted, key=lambda name: _digest(f"{SEED}-{name}")):
        if found >= size:
            break
        held.add(picture)
        found += counted[picture]
    return held


def _content(picture: bytes | None) -> str:
    return hashlib.sha256(picture).hexdigest()[:16] if picture else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
