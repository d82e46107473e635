"""The table of a study's answers: written as its stages come, read back at a few bytes a row."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from peftlab import paths, provenance
from peftlab.run import Run

ORIGIN = {"commit": pa.string(), "dirty": pa.bool_(), "processor": pa.string(), "device": pa.string()}  # of the stamp, beside every row
JUDGED = {"parsed": pa.string(), "outcome": pa.string(), "value": pa.float64(), "metric": pa.string()}  # what a scorer adds to an answer
GIVEN = {
    **dict.fromkeys(("example_id", "picture_id", "asset", "template"), pa.string()), "phrasing": pa.int64(), "question": pa.string(),
    "choices": pa.list_(pa.string()), "answers": pa.list_(pa.string()), "response": pa.string(), "objects": pa.list_(pa.string()), "options": pa.list_(pa.string()), "likelihoods": pa.list_(pa.float64()),
}  # fmt: skip
SAID = ("response", "likelihoods")  # what of an answer is the model's; all else that is given is its question's
PLACE = "place"  # beside answers without their questions: which row of a table of these each is to
TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
SETS = ("dataset", "test_dataset", "tested_on")  # columns of data sets' names, which are compared with each other
ROWS = 100_000  # answers to a row group, about
SHARED = 1_000_000  # answers of a table that several notebooks read as one copy


def _axes() -> dict[str, pa.DataType]:
    """The type of every axis as it is resolved: a rate that may be a word is a number then."""
    kinds = {f.name: get_args(f.type) or (f.type,) for f in fields(Run)}
    return {name: TYPES[float if float in kind else kind[0]] for name, kind in kinds.items()}


ABOUT = {"run": pa.string(), "stage": pa.string(), **_axes(), "tested_on": pa.string(), **ORIGIN}
SCHEMA = pa.schema({**GIVEN, **JUDGED, **ABOUT})
FIELDS = {part.name: part for part in (*SCHEMA, pa.field(PLACE, pa.int32()))}


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """How a table of answers is written: likelihoods, hardly two of which are alike, with each byte of all of them in turn, which zstd makes smaller than a dictionary does; the rest by dictionary."""
    leaves = {field.name: f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema}
    numbers = [leaves.pop("likelihoods")] if "likelihoods" in leaves else []
    return {"compression": "zstd", "use_dictionary": list(leaves.values()), "use_byte_stream_split": numbers}


class Writer:
    """predictions.parquet while it is written: stages are added one after another, and the answers of one lie in one row group."""

    def __init__(self, file: Path) -> None:
        self.file, self.waiting, self.rows = file, list[tuple[pa.Table, pa.Table, dict[str, Any]]](), 0
        self._writer: pq.ParquetWriter | None = None
        self._beside = ThreadPoolExecutor(1)  # a row group is encoded while the next is judged
        self._written: Future[None] | None = None

    def add(self, judged: pa.Table, about: dict[str, Any], asked: pa.Table | None = None) -> None:
        """Add a stage's judged answers and what is said of each of them: run, stage, every axis, data set, origin.

        The questions are in the same rows, or in those of `asked` that the answers' column `PLACE` numbers: a table that many stages have is kept once.
        Raises ValueError on a column that the table does not have.
        """
        names = (*judged.column_names, *about, *(asked.column_names if asked is not None else ()))
        if not FIELDS.keys() >= set(names):
            strange = next(name for name in names if name not in FIELDS)
            raise ValueError(f"answers with a column {strange!r}: the table of answers has {', '.join(SCHEMA.names)} (lib/peftlab/answers.py)")
        if asked is None:
            asked = judged.select([name for name in judged.column_names if name in GIVEN and name not in SAID])
            judged = judged.drop_columns(asked.column_names).append_column(PLACE, pa.array(np.arange(len(judged), dtype=np.int32)))
        self.waiting.append((judged, asked, about))
        self.rows += len(judged)
        if self.rows >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last time as a row group."""
        if not self.waiting:
            return
        said, asked, stages = zip(*self.waiting)
        rows, sizes = together(said), [len(table) for table in said]
        questions, question = _numbered(asked, sizes, rows[PLACE].to_numpy())
        columns, stage = [], pa.array(np.repeat(np.arange(len(said), dtype=np.int32), sizes))
        for part in SCHEMA:
            if part.name in rows.column_names:
                columns.append(rows[part.name])
            elif part.name in ABOUT:
                columns.append(_spread([about.get(part.name) for about in stages], part.type, stage))
            elif part.name in JUDGED or part.name in SAID:
                columns.append(pa.nulls(len(rows), part.type))
            else:
                own = questions[part.name] if part.name in questions.column_names else pa.nulls(len(questions), part.type)
                columns.append((own.dictionary_encode() if _is_text(part.type) else own).take(question))
        gathered = pa.table(columns, names=SCHEMA.names)
        self._writer = self._writer or pq.ParquetWriter(self.file, gathered.schema, store_schema=False, **encoding(SCHEMA))  # read back, texts are plain
        self._settle()
        self._written = self._beside.submit(self._writer.write_table, gathered, row_group_size=len(rows))
        self.waiting, self.rows = [], 0

    def _settle(self) -> None:
        """Wait for the row group that is being written, and raise what went wrong there."""
        if self._written:
            self._written.result()

    def close(self) -> None:
        """Write the rest; where no answer was added there is no file."""
        with self._beside:
            self.flush()
            self._settle()
        if self._writer:
            self._writer.close()


def _spread(levels: Sequence[Any], kind: pa.DataType, places: pa.Array) -> pa.Array:
    """The level at each of the places, texts by a dictionary."""
    if levels[0] is not None and all(level == levels[0] for level in levels):  # as of most axes: nothing is to be looked up
        one = pa.array(levels[:1], kind)
        return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(places)), one) if _is_text(kind) else pa.repeat(one[0], len(places))
    known = pa.array(levels, kind)
    return (known.dictionary_encode() if _is_text(kind) else known).take(places)


def _numbered(asked: Sequence[pa.Table], sizes: Sequence[int], places: np.ndarray) -> tuple[pa.Table, pa.Array]:
    """The questions of many stages, those of a table that several have once and none that has no answer, and the row there of each answer; `places` are the rows in each stage's own table."""
    questions, starts = laid_out(asked)
    number = places + np.repeat([starts[id(table)] for table in asked], sizes)
    used = np.flatnonzero(np.bincount(number, minlength=len(questions)))
    if len(used) < len(questions):
        questions, number = questions.take(pa.array(used)), np.searchsorted(used, number)
    return questions, pa.array(number)


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """Answers or questions one after another, with the types that their columns have in the table of answers; a column that not all have is empty elsewhere."""
    rows = pa.concat_tables(tables, promote_options="permissive")
    return rows.cast(pa.schema([FIELDS[name] for name in rows.column_names])).combine_chunks()


def laid_out(tables: Sequence[pa.Table]) -> tuple[pa.Table, dict[int, int]]:
    """The different ones of these tables `together`, and the first row of each there, by its id."""
    different = {id(table): table for table in tables}
    starts = np.cumsum([0, *map(len, different.values())]).tolist()
    return together(list(different.values())), dict(zip(different, starts[:-1], strict=True))


@contextmanager
def writing(file: Path) -> Iterator[Writer]:
    """A `Writer` that writes its rest at the end of its block; where that fails the file is not whole, and its folder is the caller's to remove."""
    writer = Writer(file)
    yield writer
    writer.close()


@contextmanager
def shared(file: Path) -> Iterator[None]:
    """Within, whoever `read`s this table, in this process or another, maps one copy of it that is made now, if it has `SHARED` rows: reading eleven million takes 14 s of a core.

    Where there is no room for the copy everyone reads the table.
    """
    place = _shared(file) if file.exists() and pq.read_metadata(file).num_rows >= SHARED else None
    if place is None:
        yield
        return
    shutil.rmtree(place.parent, ignore_errors=True)  # what a process that was killed left
    try:
        with suppress(OSError):
            (part := place.with_suffix(".part")).mkdir(parents=True)
            _lay_open(file, part)
            part.rename(place)
        yield
    finally:
        shutil.rmtree(place.parent, ignore_errors=True)


def read(file: Path) -> pd.DataFrame:
    """Every answer of a study with its question, what was judged, and every axis: some 80 bytes a row in memory.

    Names, texts and numbers of axes are categories, ordered where they are numbers; ``value`` is a number. The lists of a question
    (choices, answers, objects, options) are tuples, one for all rows of the question, which is told by tested_on and example_id, from the first that has
    it. Of the likelihoods of options, which only a scorer needs, the place of the greatest is read: ``likeliest``, the first of several as great, -1 where there are none.
    Within `shared` the columns lie in a file that others have mapped too, and cannot be written to.
    """
    columns = _opened(place) if (place := _shared(file)).exists() else _read(file)
    told = {name: pd.Series(column[0][column[1]], dtype=object, copy=False) if isinstance(column, tuple) else column for name, column in columns.items()}  # told so, they are not searched for dates
    return pd.DataFrame(told, copy=False)


def _read(file: Path) -> dict[str, Any]:
    """The columns that `read` gives; of a column of lists the tuples, one a question, and the number of each row's question."""
    kinds = pq.read_schema(file)
    with pq.ParquetFile(file) as source:
        scalars = [part for part in kinds if not pa.types.is_list(part.type)]
        columns: dict[str, Any] = {part.name: _constant(source.metadata, part) if part.name != "value" else None for part in scalars}
        several = [part for part in scalars if columns[part.name] is None]
        with ThreadPoolExecutor(provenance.cores()) as pool:  # no more at once: a column takes ten times as much while it is read
            columns |= zip((part.name for part in several), pool.map(partial(_column, file, source.metadata), several), strict=True)
        sets = [name for name in SETS if name in columns]
        known = pd.Index(dict.fromkeys(level for name in sets for level in columns[name].categories))
        columns |= {name: columns[name].set_categories(known) for name in sets}
        lists = [part.name for part in kinds if pa.types.is_list(part.type) and part.name != "likelihoods"]
        places, first = questions(columns["tested_on"], columns["example_id"])
        if "likelihoods" in kinds.names:
            columns["likeliest"] = np.concatenate([greatest(source.read_row_group(i, columns=["likelihoods"])["likelihoods"]) for i in range(source.num_row_groups)])
        columns |= _lists(source, [name for name in lists if name != "options"], places, first)
        if "options" in lists:  # answers kept before there were options stand beside others to the same question
            weighed = np.flatnonzero(columns["likeliest"] >= 0)[::-1]
            first[places[weighed]] = weighed
            columns |= _lists(source, ["options"], places, first)
    return {name: columns[name] for name in (*kinds.names, "likeliest") if name in columns}


def _shared(file: Path) -> Path:
    """Where the copy of a table lies that `shared` makes: another place for a table that was changed."""
    now = file.stat()
    told = f"{file.resolve()} {now.st_size} {now.st_mtime_ns}"
    return paths.build() / "shared" / hashlib.sha256(told.encode()).hexdigest()[:16]


def _lay_open(file: Path, place: Path) -> None:
    """Write what `_opened` reads: the numbers of the columns, the levels they stand for, and the lists of each question."""
    rows, levels, lists = dict[str, np.ndarray](), dict[str, pa.Array](), dict[str, pa.Array]()
    columns = _read(file)
    kinds: dict[str, str] = {}
    for name, column in columns.items():
        if isinstance(column, tuple):
            lists[name] = pa.array([[None if one is None else list(one) for one in column[0]]], pa.list_(pa.list_(pa.string())))
            rows["question of a row"] = column[1]
        elif isinstance(column, np.ndarray):
            rows[name] = column
        else:
            known = column.categories
            kinds[name] = str(known.dtype)
            levels[name] = pa.array([known.tolist()], pa.list_(pa.string()) if kinds[name] in ("str", "object") else None)
            if len(known) != 1 or column.codes.any():  # else all zeros, which take no memory where they are made
                rows[name] = column.codes
    about = {"order": list(columns), "kinds": kinds, "ordered": [name for name in kinds if columns[name].ordered]}
    for part, held in (("rows", rows), ("levels", levels), ("lists", lists)):
        table = pa.table(held).replace_schema_metadata({"about": json.dumps(about)})
        with pa.OSFile(str(place / f"{part}.arrow"), "wb") as target, pa.ipc.new_file(target, table.schema) as writer:
            writer.write_table(table)


def _opened(place: Path) -> dict[str, Any]:
    """The columns that `_read` gives, from the files of `_lay_open`: their numbers are mapped, not read."""
    rows, levels, lists = (pa.ipc.open_file(pa.memory_map(str(place / f"{part}.arrow"))).read_all() for part in ("rows", "levels", "lists"))
    about = json.loads(rows.schema.metadata[b"about"])
    numbers = {name: rows[name].chunk(0).to_numpy() for name in rows.column_names}
    columns: dict[str, Any] = {}
    for name in about["order"]:
        if name in levels.column_names:
            known = pd.Index(levels[name][0].as_py(), dtype=about["kinds"][name])
            codes = numbers[name] if name in numbers else np.zeros(rows.num_rows, dtype=np.int8)
            columns[name] = pd.Categorical.from_codes(codes, known, ordered=name in about["ordered"])
        elif name in lists.column_names:
            columns[name] = (_tuples(lists[name][0].as_py()), numbers["question of a row"])
        else:
            columns[name] = numbers[name]
    return columns


def _tuples(lists: Sequence[Sequence[str] | None]) -> np.ndarray:
    """Lists as tuples, in an array of objects."""
    made = np.empty(len(lists), dtype=object)
    for place, values in enumerate(lists):
        made[place] = None if values is None else tuple(values)
    return made


def memory(file: Path) -> int:
    """How many bytes a notebook takes that reads a study's answers and works on them, at most: measured with eleven million of them."""
    return 500_000_000 + 150 * pq.read_metadata(file).num_rows


def greatest(lists: pa.ChunkedArray) -> np.ndarray:
    """The place of the greatest number in each list, the first of several; -1 where there is none."""
    whole = lists.combine_chunks()
    sizes = whole.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    flat, found, filled = whole.flatten().to_numpy(), np.full(len(sizes), -1, dtype=np.int8), np.flatnonzero(sizes)
    if len(filled):
        starts = (np.cumsum(sizes) - sizes)[filled]
        owner = np.repeat(np.arange(len(filled)), sizes[filled])
        places = np.flatnonzero(flat == np.maximum.reduceat(flat, starts)[owner])
        found[filled] = places[np.unique(owner[places], return_index=True)[1]] - starts
    return found


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _constant(about: pq.FileMetaData, part: pa.Field) -> pd.Categorical | None:
    """A column of scalars that has one level in every row, as the file's own statistics say without its being read; None where it has not, or they do not say."""
    if pa.types.is_floating(part.type):  # the least and the greatest of zeros are kept as -0 and 0
        return None
    place = next(i for i in range(about.num_columns) if about.schema.column(i).path == part.name)
    levels = set()
    for i in range(about.num_row_groups):
        said = about.row_group(i).column(place).statistics
        if said is None or not said.has_min_max or not said.has_null_count or said.null_count:
            return None
        levels |= {said.min, said.max}
        if len(levels) > 1:
            return None
    text = _is_text(part.type)
    return pd.Categorical.from_codes(np.zeros(about.num_rows, dtype=np.int8), pd.Index(list(levels), dtype="str" if text else None), ordered=not text) if levels else None


def _column(file: Path, about: pq.FileMetaData, part: pa.Field) -> Any:
    """A column of scalars: a category, but for ``value``."""
    with pq.ParquetFile(file, metadata=about, read_dictionary=[part.name] if _is_text(part.type) else None) as source:
        values = source.read(columns=[part.name], use_threads=False)[part.name]
    if part.name == "value":
        return values.to_numpy()
    if pa.types.is_null(part.type):
        return pd.Categorical.from_codes(np.full(len(values), -1, "int8"), pd.Index([], dtype=object))
    if _is_text(part.type):
        return values.to_pandas().array
    codes, levels = pd.factorize(values.to_numpy(), sort=True)
    return pd.Categorical.from_codes(codes, pd.Index(levels), ordered=True)


def _lists(source: pq.ParquetFile, names: list[str], places: np.ndarray, first: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of columns of lists the tuples of each question, read from row `first`, beside `places`, the number of each row's question."""
    sizes = [source.metadata.row_group(i).num_rows for i in range(source.num_row_groups)]
    ends = np.cumsum(sizes)
    group = np.searchsorted(ends, first, side="right")
    found = {name: np.empty(len(first), dtype=object) for name in names}
    for i in np.unique(group) if names else ():
        mine = np.flatnonzero(group == i)
        table = source.read_row_group(int(i), columns=names).take(pa.array(first[mine] - (ends[i] - sizes[i])))
        for name in names:
            found[name][mine] = _tuples(table[name].to_pylist())
    return {name: (found[name], places) for name in names}


def questions(tested_on: pd.Categorical, example_id: pd.Categorical) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's question, in the order in which questions first occur, and the first row of each."""
    both = tested_on.codes.astype(np.int64) * len(example_id.categories) + example_id.codes
    return numbered(both, len(tested_on.categories) * len(example_id.categories))


def numbered(codes: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A number for each different code, from zero in the order in which they first occur, at each row, and the first row of each; codes are from 0 to below `most`."""
    if most > len(codes) + 1000:  # a table of all that a code could be would be longer than the rows
        numbers = pd.factorize(codes)[0].astype(np.int32)
        return numbers, first_rows(numbers)
    row = np.full(most, -1, dtype=np.int64)
    row[codes[::-1]] = np.arange(len(codes))[::-1]
    there = np.flatnonzero(row >= 0)
    there = there[np.argsort(row[there])]
    number = np.empty(most, dtype=np.int32)
    number[there] = np.arange(len(there))
    return number[codes], row[there]


def first_rows(places: np.ndarray) -> np.ndarray:
    """The first row at which each whole number from zero stands."""
    first = np.empty(int(places.max(initial=-1)) + 1, dtype=np.int64)
    first[places[::-1]] = np.arange(len(places))[::-1]
    return first


def row_groups(file: Path) -> Iterator[pa.Table]:
    """The table in its row groups, each with whole stages of it and all columns as they lie in the file."""
    with pq.ParquetFile(file) as source:
        for i in range(source.num_row_groups):
            yield source.read_row_group(i)


def packed(file: Path, target: Path) -> None:
    """Copy a table in Parquet, row group by row group, as small as zstd makes it: what is tracked stays for ever. It takes ten times as long as `Writer`'s."""
    with pq.ParquetFile(file) as source, pq.ParquetWriter(target, source.schema_arrow, compression_level=19, **encoding(source.schema_arrow)) as written:
        for i in range(source.num_row_groups):
            written.write_table(group := source.read_row_group(i), row_group_size=max(1, len(group)))
