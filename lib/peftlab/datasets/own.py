"""A user's own data: pictures and a table of questions, described by a YAML card in data/own, checked row by row before anything is made of them.

What a table holds (`rows` reads it) is never run and never parsed as markup: texts stay texts, pictures are decoded as pictures or refused.
"""

import hashlib
import re
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
    metrics.metric(about["metric"])  # raises naming the choices
    found = Checked()
    rows.refuse_archive(Path(about["pictures"]))
    names = {theirs: ours for ours, theirs in about["columns"].items()}
    read = rows.read(paths.inside(about["folder"], about["table"]), found)
    ours = ((place, {names.get(key, key): value for key, value in row.items()}) for place, row in read)
    asked = [one for place, row in ours if (one := _asked(name, about, place, row, found.problems))]
    _across(asked, found.problems)
    if not found.problems:
        found.splits = _splits(about, asked)
        found.problems += [f"{name}: nothing is in the split {split}: there are {len(asked)} rows on too few pictures" for split, there in found.splits.items() if not there]
    return found


# ---------------------------------------------------------------- checking


def _asked(name: str, about: Row, place: str, row: Row, problems: list[str]) -> Asked | None:
    """The row as it will be asked, or None, with what is wrong with it among the problems."""
    wrong: list[str] = []
    picture, data = _picture(about, row.get("image"), wrong)
    question, choices = _one(row.get("question")), _several(row.get("choices"))
    answers = _several(row["answers"]) if row.get("answers") else tuple(filter(None, (_one(row.get("answer")),)))
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
    picture_id = f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
    return Asked(f"{name}-{own_id}", picture, picture_id, posed, answers, choices, split)


def _picture(about: Row, given: Any, wrong: list[str]) -> tuple[bytes | Path | None, bytes]:
    """Where a row's picture is and its bytes, decoded once to see that it can be; None with the reason in `wrong`."""
    if isinstance(given, dict) and given.get("bytes"):
        data = source = given["bytes"]
    else:
        named = _one(given.get("path") if isinstance(given, dict) else given)
        if not named:
            wrong.append("no picture is named")
            return None, b""
        try:
            source = paths.inside(paths.inside(about["folder"], about["pictures"]), named)
        except ValueError as error:
            wrong.append(f"the picture {error}")
            return None, b""
        if not source.is_file():
            wrong.append(f"there is no picture {named!r}")
            return None, b""
        data = source.read_bytes()
    try:
        decoded(data)
    except ValueError as error:
        wrong.append(f"the picture{'' if isinstance(source, bytes) else f' {named!r}'} does not decode: {error}")
        return None, b""
    return source, data


def _one(value: Any) -> str:
    return "" if value is None else str(value).strip()


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
