"""The rows of a table of questions: CSV, JSON Lines, Parquet, a folder that `datasets` saved, LLaVA's conversations.

Nothing in a table is run, and archives are not opened.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftlab import paths

Row = dict[str, Any]
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass
class Remarks:
    """What was noticed while rows were read: a sentence for each that is wrong, and how many of LLaVA's have no picture."""

    problems: list[str] = field(default_factory=list)
    skipped: int = 0


def refuse_archive(file: Path) -> None:
    """Raise ValueError where `file` is named like an archive."""
    if file.suffix.lower() in ARCHIVES:
        raise ValueError(f"{file.name} is an archive, and archives are not opened: unpack it and name the folder or the table in it")


def read(file: Path, remarks: Remarks) -> Iterator[tuple[str, Row]]:
    """Each row of a table, with the words for where it is; what is wrong with single rows goes to `remarks`.

    Values are as the table has them: texts, lists, ``{"bytes", "path"}`` of a picture inside. Raises ValueError where it cannot be read.
    """
    refuse_archive(file)
    if not file.exists():
        raise ValueError(f"there is no table {file} (folder and table in the card)")
    reader = _saved if file.is_dir() else READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file.name} is no table: {', '.join(READERS)}, or a folder saved by datasets")
    for number, row in enumerate(reader(file, remarks), 1):
        if row is not None:  # else it is among the remarks, and counts
            yield f"{file.name} row {number}", row


def _csv(file: Path, remarks: Remarks) -> Iterator[Row | None]:
    csv.field_size_limit(2**24)
    with file.open(encoding="utf-8-sig", newline="") as handle:
        try:
            for number, row in enumerate(csv.DictReader(handle, strict=True), 1):
                if None in row or None in row.values():
                    remarks.problems.append(f"{file.name} row {number}: it has not as many cells as the header")
                    yield None
                else:
                    yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file.name} is not a readable CSV in UTF-8: {error}") from error


def _jsonl(file: Path, remarks: Remarks) -> Iterator[Row | None]:
    for number, line in enumerate(filter(str.strip, _text(file).split("\n")), 1):
        where, row = f"{file.name} row {number}", None
        try:
            row = _parsed(line, where)
        except ValueError as error:
            remarks.problems.append(str(error))
        else:
            if not isinstance(row, dict):
                remarks.problems.append(f"{where} is no mapping of columns to values")
                row = None
        yield row


def _parquet(file: Path, remarks: Remarks) -> Iterator[Row]:
    import datasets as hub

    hub.disable_progress_bars()
    try:
        table = hub.Dataset.from_parquet(str(file), cache_dir=str(paths.cache() / "datasets"))
    except Exception as error:  # whatever a reader raises, it is of a broken file
        raise ValueError(f"{file} is no readable Parquet: {_cause(error)}") from error
    yield from _undecoded(table)


def _saved(folder: Path, remarks: Remarks) -> Iterator[Row]:
    """A folder written by ``save_to_disk``: one table, or several that are named like splits."""
    import datasets as hub

    try:
        saved = hub.load_from_disk(str(folder))
    except Exception as error:  # as above; a folder of another kind too
        raise ValueError(f"{folder} was not saved by datasets, or is broken: {_cause(error)}") from error
    for split, table in saved.items() if isinstance(saved, dict) else (("", saved),):
        for row in _undecoded(table):
            yield {**row, "split": row.get("split") or split} if split else row


def _cause(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of errors, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _undecoded(table: Any) -> Any:
    import datasets as hub

    for name, kind in table.features.items():
        table = table.cast_column(name, hub.Image(decode=False)) if isinstance(kind, hub.Image) else table
    return table


def _llava(file: Path, remarks: Remarks) -> Iterator[Row]:
    """LLaVA's conversations: each question of a person and the answer that follows is a row of its own on the same picture."""
    listed = _parsed(_text(file), file.name)
    if not isinstance(listed, list):
        raise ValueError(f"{file.name} is no list of conversations, which LLaVA's JSON is")
    for number, one in enumerate(listed, 1):
        turns = one.get("conversations") if isinstance(one, dict) else None
        if not isinstance(turns, list) or [t.get("from") if isinstance(t, dict) else None for t in turns] != ["human", "gpt"] * (len(turns) // 2) or not turns:
            remarks.problems.append(f"{file.name} conversation {number}: human and gpt do not take turns")
        elif not one.get("image"):
            remarks.skipped += 1
        else:
            for turn, (human, gpt) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
                question = str(human.get("value") or "").replace("<image>", "").strip()
                yield {"id": f"{one.get('id', number)}-{turn}", "image": one["image"], "question": question, "answer": gpt.get("value")}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not UTF-8 text: {error}") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not readable JSON: {error}") from error


READERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet, ".json": _llava}
