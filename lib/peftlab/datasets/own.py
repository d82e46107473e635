"""A user's own data: pictures and a table of questions, described by a YAML card in data/own, checked row by row before anything is made of them.

What a table holds (`rows` reads it) is never run and never parsed as markup: texts stay texts, pictures are decoded as pictures or refused.
"""

import hashlib
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftlab import datasets, metrics, paths, rows
from peftlab.records import Example, decoded
from peftlab.rows import Row

PARTED = "|"  # between several answers, or choices, in one cell
SEVERAL = 4  # answers that soft accuracy needs
METRICS = ("exact", "equal", "letter", "letter_or_name", "yes_no", "cider", "bleu_4", "rouge_l", *metrics.PEOPLE)  # that say of a text whether it is right
OF_LETTERS = ("letter", "letter_or_name")
LIKE_A_LIST = re.compile(r"\[\s*(['\"]).*\1\s*\]", re.DOTALL)  # what a list is when it was written into a cell as Python writes it


@dataclass(frozen=True)
class Asked:
    """A row that may be asked: where its picture is (bytes in the table, or a file), and what is asked of it."""

    id: str
    picture: bytes | Path
    picture_id: str
    question: str
    answers: tuple[str, ...]
    choices: tuple[str, ...]
    split: str


@dataclass
class Checked(rows.Remarks):
    """What a table holds: rows that may be asked, by split, a sentence for each thing that is wrong, and how many were passed over."""

    splits: dict[str, list[Asked]] = field(default_factory=dict)


def load(name: str, split: str, size: int | None) -> Iterator[Example]:
    """A split's examples, in the table's order; raises ValueError at once, with a line for every row that is wrong in any split."""
    found = check(name)
    if found.problems:
        raise ValueError(f"{name} cannot be used:\n" + "\n".join(found.problems))
    if found.skipped and split == "train":
        warnings.warn(f"{name}: {found.skipped} rows without a picture were passed over", stacklevel=2)
    return map(_example, found.splits[split][:size])


def _example(asked: Asked) -> Example:
    data = asked.picture if isinstance(asked.picture, bytes) else asked.picture.read_bytes()
    return Example(asked.id, asked.picture_id, decoded(data), asked.question, asked.answers, "question", 0, asked.picture_id, asked.choices)


def check(name: str) -> Checked:
    """Read a user's table and every picture, and say all that is wrong; the splits are empty where anything is.

    Raises ValueError where the card or the table cannot be read at all.
    """
    if name in datasets.DATASETS:
        raise ValueError(f"{name} is built in; what is checked is your own: a card in {paths.own()}")
    datasets.card(name)  # raises where there is none
    return _checked(name, tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in datasets.files(name)))


@lru_cache(maxsize=4)
def _checked(name: str, stamps: tuple[tuple[str, int, int], ...]) -> Checked:
    about = datasets.described(name)
    if about["metric"] not in METRICS:
        raise ValueError(f"{paths.own() / name}.yaml: metric is {about['metric']!r}; choose one of {', '.join(METRICS)}")
    if unknown := set(re.findall(r"\{[^{}]*\}", about["prompt"])) - {"{question}", "{choices}"}:
        raise ValueError(f"{paths.own() / name}.yaml: prompt holds {', '.join(sorted(unknown))}; only {{question}} and {{choices}} are filled in")
    found = Checked()
    rows.refuse_archive(Path(about["pictures"]))
    read = list(rows.read(paths.inside(about["folder"], about["table"]), found))
    there = list(dict.fromkeys(key for _, row in read for key in row))
    lacks = [theirs for ours in ("image", "question") if (theirs := about["columns"].get(ours, ours)) not in there]
    lacks += [theirs for theirs in about["columns"].values() if theirs not in (*there, *lacks)]
    if read and lacks:  # else every row would say that something is empty
        found.problems += [f"the table has no column {theirs!r}; it has {', '.join(map(repr, there))} (columns in the card says what is called otherwise)" for theirs in lacks]
        return found
    names = {theirs: ours for ours, theirs in about["columns"].items()}
    asked = [one for place, row in read if (one := _asked(name, about, place, _ours(row, names), found.problems))]
    _across(asked, found.problems)
    if not found.problems:
        found.splits = _splits(about, asked)
        found.problems += [f"{name}: nothing is in the split {split}: there are {len(asked)} rows on too few pictures" for split, there in found.splits.items() if not there]
    return found


# ---------------------------------------------------------------- checking


def _ours(row: Row, names: dict[str, str]) -> Row:
    """A row by our names of its columns; a column that has our name already gives way to one that the card gives it to."""
    return {names.get(key, key): value for key, value in row.items() if key in names or key not in names.values()}


def _asked(name: str, about: Row, place: str, row: Row, problems: list[str]) -> Asked | None:
    """The row as it will be asked, or None, with what is wrong with it among the problems."""
    wrong: list[str] = []
    picture, content = _picture(about, row.get("image"), wrong)
    question, choices = _one(row.get("question")), _several(row.get("choices"))
    one = row.get("answer")  # a list of them is several, a text is one, whatever it holds
    answers = _several(row.get("answers")) or (_several(one) if isinstance(one, (list, tuple)) else tuple(filter(None, (_one(one),))))
    for column in ("question", "answer", "answers", "choices", "split", "id"):
        wrong += [sentence] if (sentence := _odd(column, row.get(column))) else []
    split = _one(row.get("split"))
    if not question:
        wrong.append("the question is empty")
    if not answers:
        wrong.append("the answer is empty")
    elif choices and answers[0] not in choices:
        wrong.append(f"the answer {answers[0]!r} is not among the choices {', '.join(map(repr, choices))}")
    if len(set(choices)) != len(choices) or len(choices) == 1:
        wrong.append(f"the choices {', '.join(map(repr, choices))} are not two or more different ones")
    if about["metric"] in metrics.PEOPLE and 0 < len(answers) < SEVERAL:
        wrong.append(f"{len(answers)} answers: the metric {about['metric']} needs those of at least {SEVERAL} people")
    if about["metric"] == "yes_no" and answers and metrics.normalise(answers[0]) not in metrics.YES_NO:
        wrong.append(f"the answer is {answers[0]!r}: the metric yes_no needs yes or no")
    if about["metric"] in OF_LETTERS and not choices:
        wrong.append(f"there are no choices: the metric {about['metric']} needs them")
    if about["metric"] == "exact" and any(not metrics.normalise(text) for text in (*answers, *choices)):
        wrong.append("an answer or a choice is nothing but stops and blanks, which no answer can be found to equal")
    elif about["metric"] == "exact" and len({metrics.normalise(c) for c in choices}) < len(set(choices)):
        wrong.append(f"of the choices {', '.join(map(repr, choices))} two are the same but for case, articles or stops")
    if split and split not in datasets.SPLITS:
        wrong.append(f"the split is {split!r}; {', '.join(datasets.SPLITS)}, or empty in every row")
    if any("\ud800" <= letter <= "\udfff" for letter in "".join((question, *answers, *choices))):
        wrong.append("a text holds half a character (a lone surrogate), which no file can keep")
    problems += [f"{place}: {sentence}" for sentence in wrong]
    if wrong or picture is None:
        return None
    own_id = _one(row.get("id")) or place.rpartition(" ")[2]
    prompt = about["prompt"] or ("{question} Choices: {choices}." if choices else "{question}")
    texts = {"question": question, "choices": ", ".join(choices)}
    posed = re.sub(r"\{(question|choices)\}", lambda place: texts[place[1]], prompt)  # once: what is put in is never looked at again
    return Asked(f"{name}-{own_id}", picture, f"{name}-{content}", posed, answers, choices, split)


def _picture(about: Row, given: Any, wrong: list[str]) -> tuple[bytes | Path | None, str]:
    """Where a row's picture is, and a digest of what it shows, whatever its file's format; None with the reason in `wrong`."""
    given = {"bytes": given} if isinstance(given, bytes) else given
    if isinstance(given, dict) and given.get("bytes"):
        data = source = given["bytes"]
    else:
        named = _one(given.get("path") if isinstance(given, dict) else given)
        if not named:
            wrong.append("no picture is named")
            return None, ""
        try:
            source = _file(paths.inside(about["folder"], about["pictures"]), named)
        except ValueError as error:
            wrong.append(f"the picture {error}")
            return None, ""
        if source is None:
            wrong.append(f"there is no picture {named!r}")
            return None, ""
        data = source.read_bytes()
    try:
        shown = decoded(data)
    except ValueError as error:
        wrong.append(f"the picture{'' if isinstance(source, bytes) else f' {named!r}'} does not decode: {error}")
        return None, ""
    return source, hashlib.sha256(f"{shown.size}".encode() + shown.tobytes()).hexdigest()[:16]


def _file(folder: Path, named: str) -> Path | None:
    """The picture of that name below `folder`, its accents composed or not, as the systems that write them differ; None where there is none."""
    for name in dict.fromkeys((named, *(unicodedata.normalize(form, named) for form in ("NFC", "NFD")))):
        try:
            if (file := paths.inside(folder, name)).is_file():
                return file
        except OSError:  # no name that a file can have
            return None
    return None


def _one(value: Any) -> str:
    """A cell as a text; of an answer with more said of it, as VQA's are, the answer."""
    value = value["answer"] if isinstance(value, dict) and "answer" in value else value
    return "" if value is None else str(value).strip()


def _odd(column: str, value: Any) -> str | None:
    """What is wrong with a cell that a text would be made of which nobody meant; None where nothing is."""
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, (bytes, list, tuple)) or (isinstance(one, dict) and "answer" not in one):
            return f"the column {column} holds {type(one).__name__} where a text or a number is needed"
        if isinstance(one, str) and column in ("answer", "answers", "choices") and LIKE_A_LIST.fullmatch(one.strip()):
            return f"the column {column} holds {one.strip()!r}, which is a list written as a text: part what it holds by {PARTED}"
    return None


def _several(value: Any) -> tuple[str, ...]:
    """A list, or a cell in which several are parted by |."""
    listed = value if isinstance(value, (list, tuple)) else _one(value).split(PARTED)
    return tuple(text for text in map(_one, listed) if text)


def _across(asked: Sequence[Asked], problems: list[str]) -> None:
    """What is wrong between rows: one id twice, one picture in two splits, some rows with a split and some without."""
    for found, times in Counter(one.id for one in asked).items():
        if times > 1:
            problems.append(f"id {found.partition('-')[2]!r} is given to {times} rows")
    homes = defaultdict(set)
    for one in asked:
        homes[one.picture_id].add(one.split)
    given = {split for splits in homes.values() for split in splits}
    if "" in given and len(given) > 1:
        problems.append("some rows have a split and some have none: fill the column or leave it empty")
    else:
        names = {one.picture_id: one.picture.name if isinstance(one.picture, Path) else "in the table" for one in asked}
        problems += [f"the picture {names[picture]} is in {' and '.join(sorted(splits))}" for picture, splits in homes.items() if len(splits) > 1]


def _splits(about: Row, asked: Sequence[Asked]) -> dict[str, list[Asked]]:
    """The three splits: as given, and what is not given carved out, whole pictures by the digest of seed and picture."""
    home = {one.picture_id: one.split for one in asked}
    given = {split for split in home.values() if split}
    free = [picture for picture in home if home[picture] in ("", "train")]
    free.sort(key=lambda picture: hashlib.sha256(f"{about['seed']}-{picture}".encode()).hexdigest())
    total = len(free)
    for split in ("test", "validation"):
        if split not in given:
            number = max(1, round(about[split] * total))
            home |= dict.fromkeys(free[:number], split)
            free = free[number:]
    home |= dict.fromkeys(free, "train")
    return {split: [one for one in asked if home[one.picture_id] == split] for split in datasets.SPLITS}


def sentences(name: str, found: Checked) -> Iterable[str]:
    """What `check` found, a line each: the problems, or how many questions and pictures each split has."""
    if found.problems:
        yield from found.problems
        return
    for split, asked in found.splits.items():
        yield f"{name}/{split}: {len(asked)} questions on {len({one.picture_id for one in asked})} pictures"
    if found.skipped:
        yield f"{found.skipped} rows without a picture are passed over"
