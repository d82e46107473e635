"""Collected studies: the tidy tables of what ran, scored, and the facts found in them."""

import ctypes
import json
import math
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property, partial
from itertools import chain, pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from peftlab import answers, datasets, models, paths, provenance, records, ways
from peftlab.run import Run


class Scorer(Protocol):
    """What turns stored answers into scores: the module `metrics`, given by who calls, since it is above this one."""

    RELATIVE: tuple[str, ...]
    NAMING: tuple[str, ...]
    PREFERRING: tuple[str, ...]

    def judge(self, predictions: pd.DataFrame, name: str, *, whole: pd.DataFrame | None = None, vocabulary: Sequence[str] = ()) -> pd.DataFrame: ...

    def scores(self, judged: pd.DataFrame, each: Sequence[np.ndarray]) -> list[dict[str, Any]]: ...

    def weighed(self, choices: Sequence[str] | None, options: Sequence[str] | None, answers: Sequence[str]) -> Sequence[str]: ...

    def shown(self, name: str, predictions: pd.DataFrame, *, dataset: str = "") -> tuple[str, ...]: ...


Guess = Callable[[Sequence[records.Words], Sequence[records.Words]], list[str]]  # given as `Scorer` is
TOGETHER = 4000  # stages that are read and judged at once
FORKED = 8000  # stages from which on processes of their own do so: a thread waits for the others
FINAL_STEPS = 10  # the final loss is the mean over the last steps: one batch says little


def collect(study: str, runs: Sequence[Run], *, scorer: Scorer, stages: Sequence[str] = ("finetune", "evaluate"), sources: Sequence[str] = (), blind: Mapping[str, Guess] | None = None) -> Path:
    """Gather the finished stages of a study's runs into tidy tables in the folder returned, whole or not at all.

    predictions.parquet: a row per answer; scores.csv: a row per run, stage and metric; costs.csv: a row per tuned model;
    failures.csv: where there are any, a row per stage that did not fit in memory (`records.unfit`), whose answers, and those of what reads it, the others go without;
    texts.parquet: where it was measured, a row per passage of plain text; references.parquet: where a metric needs them, all questions of a test set, asked or not; vocabulary.csv: where
    a metric reads captions by them, the names of all things that the data set's pictures can hold, a line a thing; provenance.json: what made them all.
    Every row carries every axis, resolved. `sources` are kept with what made them: the sets that the study's mean of what is kept is over, where it names any. `scorer` is the module `metrics`: it adds parsed, outcome, value and metric to each answer
    and says what is reported of them.
    blind.parquet: what each way of `blind` (`baselines.BLIND`), taught on a set's own questions for training, answers to those of its test without a picture,
    of every set that has such questions, with two different answers at least for what has to learn to tell them apart.
    Raises ValueError naming what is missing, stale or edited; nothing is written then.
    """
    scores, texts, costs, met = [], [], [], dict[str, None]()
    places = _places(runs, stages)
    unfit = _unfit(places)
    asked = [(stage, place, run) for (stage, place), run in places.items() if place not in unfit]
    work = _Work(scorer, asked, {name: models.digest(name) for name in {run.model for run in places.values()}})
    with _renewed(study) as folder, _workers(work, folder) as ahead, answers.writing(folder / "predictions.parquet") as written:
        found = _finished(asked, ahead("checked", range(len(asked))))
        made = [(number, run, content) for number, ((stage, _, run), content) in enumerate(zip(asked, found, strict=True)) if stage == "finetune"]
        for (_, run, content), own in zip(made, chain.from_iterable(ahead("trained", [number for number, *_ in made])), strict=True):
            costs.append({"run": run.id, "stage": "finetune", **run.resolved(), **_costs(content, own)})
        said = [number for number, (stage, *_) in enumerate(asked) if stage != "finetune"]
        for number, one in zip(said, chain.from_iterable(judged.each() for judged in ahead("judged", said)), strict=True):
            (stage, _, run), content = asked[number], found[number]
            about = {"run": run.id, "stage": stage, **run.resolved(), "tested_on": one.tested_on, **{name: content.get("stamp", {}).get(name) for name in answers.ORIGIN}}
            written.add(one.rows, about, one.asked)
            scores += [{**about, **row} for row in (*one.scores, *_perplexity(content.get("text") or []))]
            texts += [{**about, **passage} for passage in content.get("text") or []]
            met[one.tested_on] = None
            work.note(number, one)
        named = [{"tested_on": dataset, "name": name} for dataset in met for name in work.vocabularies.get(dataset, ())]
        failures = list(dict(unfit.values()).values())
        _write(folder, {"scores": scores, "costs": costs, "texts": texts, "vocabulary": named, "failures": failures}, _origins(zip((run for *_, run in asked), found, strict=True)) | ({"sources": list(sources)} if sources else {}), study)
        if blind and len(guesses := guessed(blind, {run.tested_on: None for stage, _, run in asked if stage == "evaluate"})):
            guesses.to_parquet(folder / "blind.parquet", compression="zstd", index=False)
        if whole := [rows.assign(tested_on=name) for name in met if (rows := work.whole.get(name)) is not None]:
            pd.concat(whole, ignore_index=True).to_parquet(folder / "references.parquet", compression="zstd", index=False)
    return paths.results() / study


def guessed(blind: Mapping[str, Guess], names: Iterable[str]) -> pd.DataFrame:
    """What each way to answer without a picture says to the test questions of prepared data sets: baseline, tested_on, example_id, response; no rows of a set with nothing to learn from."""
    rows = []
    for name in names:
        pool, asked = records.read_words(name, "base", "train"), records.read_words(name, "test")
        for way, guess in blind.items():
            try:
                given = guess(pool, asked)
            except ValueError:  # nothing can be learned there
                continue
            rows += [(way, name, one.example_id, said) for one, said in zip(asked, given, strict=True)]
    return pd.DataFrame(rows, columns=["baseline", "tested_on", "example_id", "response"])


def _perplexity(text: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The score of fixed passages of plain text (passage, nats, tokens): e to the mean nats per token."""
    nats, tokens = (sum(passage[name] for passage in text) for name in ("nats", "tokens"))
    return [{"metric": MEASURED[0], "value": math.exp(nats / tokens), "n": tokens, "unparsed": 0}] if text else []


# ---------------------------------------------------------------- many stages at once

Asked = tuple[str, Path, Run]  # a stage with its folder and its run
Ahead = Callable[[str, Sequence[int]], Iterator[Any]]


@dataclass(frozen=True, eq=False)
class _Questions:
    """What a stage asked: one for all stages that asked the same."""

    rows: pa.Table

    @cached_property
    def frame(self) -> pd.DataFrame:
        return self.rows.to_pandas()

    @cached_property
    def filled(self) -> tuple[str, ...]:
        return _filled(self.rows)


@dataclass(frozen=True)
class _Given:
    """The stored answers of a stage: what was said to which questions, of which data set or probe, and the metrics reported of it; the first judges it."""

    asked: _Questions
    said: pa.Table
    tested_on: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Judged:
    """Stages that were judged together: what was said, and what it is taken for, in one table, or the file where this is, without the questions; and these.

    Of each stage: its first row and how many it has, the number of its questions, what it is of, by which metrics, and a row of scores a metric.
    """

    rows: pa.Table | Path
    asked: list[pa.Table]
    stages: list[tuple[int, int, int, str, tuple[str, ...], list[dict[str, Any]]]]

    def each(self) -> Iterator["_One"]:
        """The stages, one by one; a file of answers is gone then, and stays in memory as long as something of it is in use."""
        if isinstance(self.rows, Path):
            rows = pa.ipc.open_file(pa.memory_map(os.fspath(self.rows))).read_all()
            self.rows.unlink()
        else:
            rows = self.rows
        for start, size, asked, *about in self.stages:
            yield _One(rows.slice(start, size), self.asked[asked], *about)

    def laid_down(self, file: Path) -> "_Judged":
        """The same with its answers in a file, for another process."""
        assert isinstance(self.rows, pa.Table)
        with pa.ipc.new_file(file, self.rows.schema) as written:
            written.write_table(self.rows)
        return replace(self, rows=file)


class _One(NamedTuple):
    """A stage that was judged; its rows say by `answers.PLACE` which of the questions each is to."""

    rows: pa.Table
    asked: pa.Table
    tested_on: str
    names: tuple[str, ...]
    scores: list[dict[str, Any]]


@dataclass(frozen=True)
class _Work:
    """All stages of a study, and what is done with many of them at once, by their numbers: `Ahead` names a method, which a forked process has from its parent."""

    scorer: Scorer
    stages: Sequence[Asked]
    bases: Mapping[str, str]
    whole: dict[str, pd.DataFrame | None] = field(default_factory=dict)  # of the data sets whose metrics need all questions, as they are met
    vocabularies: dict[str, Sequence[str]] = field(default_factory=dict)

    def checked(self, numbers: Sequence[int]) -> list[tuple[dict[str, Any] | None, list[str]]]:
        """Each stage's record, None where it is not finished, and what of it is not as expected now."""
        prepared, tuned, found = cache(records.digests), cache(records.tuned_files), list[tuple[dict[str, Any] | None, list[str]]]()
        for stage, folder, run in (self.stages[number] for number in numbers):
            content = records.sealed(folder)
            now = partial(records.inputs, run, stage, base=self.bases[run.model], prepared=prepared, tuned=tuned)
            found.append((content, records.differences(content, records.expectation(run, stage, now())) if content else []))
        return found

    def trained(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Of each tuned model the final loss in nats and the bytes of its adapter on disk."""
        found = []
        for _, folder, _ in (self.stages[number] for number in numbers):
            losses = pq.ParquetFile(folder / "steps.parquet").read(columns=["loss"], use_threads=False)["loss"].to_pandas()
            found.append({"final_loss": float(losses.tail(FINAL_STEPS).mean()), "adapter_bytes": (folder / "adapter.safetensors").stat().st_size})
        return found

    def judged(self, numbers: Sequence[int]) -> _Judged:
        """Their answers, read, judged and scored."""
        names, given, known = cache(partial(_names, self.scorer)), list[_Given](), dict[Any, _Questions]()
        for number in numbers:
            stage, place, run = self.stages[number]
            asked, said = _read(place / "predictions.parquet", known)
            dataset = run.tested_on if stage == "evaluate" else run.probe
            given.append(one := _Given(asked, said, dataset, names(stage, dataset, (*asked.filled, *_said(self.scorer, asked, said)))))
            self.note(number, one)
        found = _assessed(self.scorer, given, self.whole, self.vocabularies)
        rows, starts = answers.laid_out([one.rows for one in found])
        numbered = {asked: number for number, asked in enumerate(known.values())}
        stages = [(starts[id(one.rows)] + one.start, one.end - one.start, numbered[of.asked], of.tested_on, of.names, one.scores) for of, one in zip(given, found, strict=True)]
        return _Judged(rows, [asked.rows for asked in known.values()], stages)

    def note(self, number: int, one: _Given | _One) -> None:
        """Keep what the metrics of a stage need beside its answers: all questions of its data set, the names of all that its pictures can hold."""
        stage, _, run = self.stages[number]
        name = run.tested_on if stage == "evaluate" else records.probed(run)
        if one.tested_on not in self.whole and set(one.names) & set(self.scorer.RELATIVE):
            self.whole[one.tested_on] = records.read_references(name)
        if one.tested_on not in self.vocabularies and set(one.names) & set(self.scorer.NAMING):
            self.vocabularies[one.tested_on] = records.read_vocabulary(name)


@contextmanager
def _workers(work: _Work, folder: Path) -> Iterator[Ahead]:
    """What does a method of `work` for numbers of stages, at most `TOGETHER` at a time, in order, as many at once as there are cores: threads, or of a large study forked processes, which leave answers in `folder`."""
    forked, cores = len(work.stages) >= FORKED and sys.platform == "linux", provenance.cores()
    if forked:
        pool: Executor = ProcessPoolExecutor(cores, mp_context=get_context("fork"), initializer=_fork, initargs=(work, folder, os.getpid()))
    else:
        pool = ThreadPoolExecutor(cores)

    def ahead(method: str, numbers: Sequence[int]) -> Iterator[Any]:
        waiting, parts = deque[Future[Any]](), -(-len(numbers) // TOGETHER)
        size = -(-len(numbers) // max(1, parts + -parts % cores))  # as many parts for each core
        for start in range(0, len(numbers), max(1, size)):
            batch = numbers[start : start + size]
            waiting.append(pool.submit(_in_fork, method, batch) if forked else pool.submit(getattr(work, method), batch))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield ahead
    except BrokenExecutor as error:
        raise ChildProcessError("a process that read answers was ended from outside, most likely by the system for lack of memory: the tables of the study are as they were") from error
    finally:
        pool.shutdown(cancel_futures=True)


_mine: tuple[_Work, Path] | None = None  # of a forked process


def _fork(work: _Work, folder: Path, parent: int) -> None:
    """Begin a forked process: it ends with its parent, and leaves an interrupt to it."""
    global _mine
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _mine = work, folder


def _in_fork(method: str, numbers: Sequence[int]) -> Any:
    assert _mine is not None
    work, folder = _mine
    try:
        found = getattr(work, method)(numbers)
        return found.laid_down(folder / f".{numbers[0]}.arrow") if isinstance(found, _Judged) else found
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        kind = next(kind for kind in (ValueError, OSError, RuntimeError) if kind is RuntimeError or isinstance(error, kind))
        raise kind(f"{type(error).__name__}: {error}") from error  # one that is not Python's own the other process may not be able to read


def _names(scorer: Scorer, stage: str, tested_on: str, filled: tuple[str, ...]) -> tuple[str, ...]:
    """The metrics of a stage's answers, which have something in the columns `filled`; the first judges them."""
    there = pd.DataFrame({name: [True] for name in filled})
    return scorer.shown(datasets.card(tested_on).metric, there, dataset=tested_on) if stage == "evaluate" else scorer.shown(tested_on, there)


def _read(file: Path, known: dict[Any, _Questions]) -> tuple[_Questions, pa.Table]:
    """The questions of a stage and what was said to them. Questions are decoded once: those of another stage that lie in the file as the same bytes are taken from `known`."""
    content = file.read_bytes()
    source = pq.ParquetFile(pa.BufferReader(content))
    parts = []
    for group in map(source.metadata.row_group, range(source.num_row_groups)):
        for part in map(group.column, range(group.num_columns)):
            if (path := part.path_in_schema).partition(".")[0] not in answers.SAID:
                start = part.dictionary_page_offset or part.data_page_offset
                parts.append((path, part.physical_type, content[start : start + part.total_compressed_size]))
    if (key := tuple(parts)) not in known:
        known[key] = _Questions(source.read(columns=[name for name in source.schema_arrow.names if name not in answers.SAID], use_threads=False))
    return known[key], source.read(columns=list(answers.SAID), use_threads=False)  # those that it has


def _filled(rows: pa.Table) -> tuple[str, ...]:
    """The columns that hold something."""
    return tuple(name for name, column in zip(rows.column_names, rows.columns, strict=True) if column.null_count < len(rows))


def _said(scorer: Scorer, asked: _Questions, said: pa.Table) -> tuple[str, ...]:
    """The columns of what was said that hold something; likelihoods count only where they are of what is taught."""
    names = _filled(said)
    if "likelihoods" not in names:
        return names
    first = said["likelihoods"].is_valid().index(True).as_py() if said["likelihoods"].null_count else 0
    choices, options, right = (asked.rows[name][first].as_py() if name in asked.rows.column_names else None for name in ("choices", "options", "answers"))
    return names if scorer.weighed(choices, options, right) else tuple(name for name in names if name != "likelihoods")


class _Assessed(NamedTuple):
    """A stage as it was judged: the rows from `start` to before `end` of a table that holds all that were judged with it, and a row of scores for each metric."""

    rows: pa.Table
    start: int
    end: int
    scores: list[dict[str, Any]]


def _assessed(scorer: Scorer, given: Sequence[_Given], whole: Mapping[str, pd.DataFrame | None], vocabularies: Mapping[str, Sequence[str]]) -> list[_Assessed]:
    """Every stage judged and scored, those that asked the same questions together."""
    groups, found = dict[Any, list[int]](), dict[int, _Assessed]()
    for number, one in enumerate(given):
        groups.setdefault((one.asked, one.tested_on, one.names), []).append(number)
    for (asked, tested_on, names), group in groups.items():
        found |= zip(group, _alike(scorer, asked, [given[i].said for i in group], names, whole.get(tested_on), vocabularies.get(tested_on, ())), strict=True)
    return [found[number] for number in range(len(given))]


def _alike(scorer: Scorer, asked: _Questions, stages: Sequence[pa.Table], names: Sequence[str], whole: pd.DataFrame | None, vocabulary: Sequence[str]) -> list[_Assessed]:
    """Stages with the same questions, judged and scored. What several models said to a question is judged once, and there are few things to say."""
    rows, questions = answers.together(stages), asked.frame
    double = questions["example_id"][questions["example_id"].duplicated()]
    if len(double):
        raise ValueError(f"example_id {double.iloc[0]!r} occurs twice in a stage of {len(questions)} answers: each question is asked once")
    stage, question = (numbers.ravel() for numbers in np.indices((len(stages), len(questions))))
    said = [rows["response"].combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()]
    said.append(answers.greatest(rows["likelihoods"]) if "likelihoods" in rows.column_names else np.zeros_like(stage))
    counted, scores = np.arange(len(rows)), [list[dict[str, Any]]() for _ in stages]
    judged = rows.append_column(answers.PLACE, pa.array(question.astype(np.int32)))
    for name in names:
        _, first, which = np.unique(question[counted] * (len(rows) + 2) + said[name in scorer.PREFERRING][counted] + 1, return_index=True, return_inverse=True)
        first = counted[first]
        words = {column: rows[column].take(pa.array(first)).to_pandas().array for column in answers.SAID if column in rows.column_names}
        one = scorer.judge(questions.iloc[question[first]].reset_index(drop=True).assign(example_id=range(len(first)), **words), name, whole=questions if whole is None else whole, vocabulary=vocabulary)
        place = np.full(len(first), -1)  # in what was judged: a metric may leave out what it cannot judge
        place[one.index] = np.arange(len(one))
        counted, which = counted[place[which] >= 0], place[which][place[which] >= 0]
        ends = np.searchsorted(stage[counted], range(1, len(stages)))
        for found, row in zip(scores, scorer.scores(one, np.split(which, ends)), strict=True):
            found.append({"metric": name, **row})
        if name == names[0]:
            left, places = counted, [0, *ends.tolist(), len(counted)]
            judged = judged if len(counted) == len(rows) else judged.take(pa.array(counted))
            for part, kind in answers.JUDGED.items():
                judged = judged.append_column(part, pa.array(one[part], kind, from_pandas=True).take(pa.array(which)))
        counted = left
    return [_Assessed(judged, start, end, found) for (start, end), found in zip(pairwise(places), scores, strict=True)]


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


CELL = ["run", "stage", "tested_on", "test_pictures", "test_size", "probe_size", "probe_step"]  # what tells one stage's answers from another's


def rescore(study: str, *, scorer: Scorer, metric: str | None = None) -> Rescored:
    """Score a study's stored answers with the scorer as it is now, whole or not at all; no model and no data set is needed.

    Answers collected here are scored, else the published ones; the result lies where `collect` writes. With `metric`, its scores are added
    (or renewed) beside the others and no answer is judged anew. Measurements that no answer holds stay as they were.
    Raises FileNotFoundError where the study is not collected, ValueError where `metric` can be applied to none of its answers, or where it holds
    captions that are read by a vocabulary and was collected before that was kept.
    """
    results = read_results(study)
    file, rows, refused, moved = results.folder / "predictions.parquet", [], {}, 0
    about, told = [c for c in results.scores if c not in ("metric", "value", "n", "unparsed")], set[str]()
    with _renewed(study) as folder, pq.ParquetWriter(folder / file.name, (schema := pq.read_schema(file)), **answers.encoding(schema)) as written:
        for group in answers.row_groups(file):
            given, judged = group.to_pandas(), []
            for cell in _stages(given, told):
                stage, tested_on = cell["stage"].iloc[0], cell["tested_on"].iloc[0]
                bare = group.select([c for c in answers.GIVEN if c in group.column_names]).take(pa.array(cell.index))
                said = bare.select([c for c in answers.SAID if c in bare.column_names])
                asked = _Questions(bare.drop_columns(said.column_names))
                names = (metric,) if metric else _names(scorer, stage, tested_on, (*asked.filled, *_said(scorer, asked, said)))
                try:
                    [(one, *_, made)] = _assessed(scorer, [_Given(asked, said, tested_on, names)], {tested_on: _whole(results.references, tested_on)}, {tested_on: results.vocabulary(tested_on)})
                except ValueError as error:
                    if metric is None:
                        raise
                    refused[tested_on] = str(error)
                    continue
                judged.append(one.select(list(answers.JUDGED)).to_pandas().set_index(cell.index))
                rows += [{**cell.iloc[0][about].to_dict(), **row} for row in made]
            new = given if metric else pd.concat(judged).loc[given.index]
            same = (new["outcome"] == given["outcome"]).to_numpy() & np.isclose(new["value"], given["value"], rtol=1e-9, atol=1e-9, equal_nan=True)
            moved += int((~same).sum())
            written.write_table(_judged(group, new), row_group_size=group.num_rows)
        if not rows:
            raise ValueError(f"{metric} can be applied to no answer of {study!r}: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
        made, old = pd.DataFrame(rows), results.scores
        stays = old["metric"] != metric if metric else old["metric"].isin(MEASURED)
        scores = pd.concat([part for part in (old[stays] if metric else made, made if metric else old[stays]) if len(part)], ignore_index=True)
        for other in results.folder.iterdir():
            if other.is_file() and other.name not in (file.name, "scores.csv", "provenance.json"):
                shutil.copyfile(other, folder / other.name)
        origins = {**results.provenance, "scored": {"commit": provenance.commit(), "dirty": provenance.dirty()}}
        _write(folder, {"scores": scores.to_dict("records")}, origins, study)
    return Rescored(paths.results() / study, moved, len(scores), _changes(old, scores), refused)


def _stages(given: pd.DataFrame, told: set[str]) -> Iterator[pd.DataFrame]:
    """The answers of each stage in a row group; ValueError where those of one of `told` come again: some metrics need them all."""
    keys = given[[name for name in CELL if name in given]]  # a study made before an axis was there has one level of it
    keys = keys.astype({name: float for name in keys if name.endswith(("_size", "_step"))})  # where one is missing in a row group all are floats there
    for key, cell in given.groupby([keys[name] for name in keys], sort=False, dropna=False):
        if str(key) in told:
            raise ValueError(f"the answers of {key[0]} on {key[2]} lie in two row groups of predictions.parquet: collect the study again, which keeps a stage's together")
        told.add(str(key))
        yield cell


def _whole(references: pd.DataFrame, tested_on: str) -> pd.DataFrame | None:
    """The questions of a whole test set, where they were kept."""
    rows = references[references["tested_on"] == tested_on] if len(references) else references
    return rows if len(rows) else None


def _judged(group: pa.Table, rows: pd.DataFrame) -> pa.Table:
    """A row group with what was judged anew; all else as it lies in the file."""
    for i, part in enumerate(group.schema):
        if part.name in answers.JUDGED:
            group = group.set_column(i, part, pa.array(rows[part.name], part.type, from_pandas=True))
    return group


MEASURED = ("text_perplexity",)  # scores that were measured with the model, not computed from its answers


def _changes(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The scores that are not the same to nine digits, before and after."""
    key = [c for c in (*CELL, "metric") if c in old]
    columns = [*key, "value", "n", "unparsed"]
    sizes = [c for c in ("test_size", "probe_size", "probe_step") if c in key]
    old, new = (frame.astype(dict.fromkeys(sizes, float)) for frame in (old, new))
    both = old[columns].merge(new[columns], on=key, how="outer", suffixes=("_before", "_after"), validate="one_to_one")
    same = pd.Series(True, index=both.index)
    for name in ("value", "n", "unparsed"):
        before, after = (pd.to_numeric(both[f"{name}_{when}"]) for when in ("before", "after"))
        same &= np.isclose(before, after, rtol=1e-9, atol=1e-9, equal_nan=True)
    return both[~same].rename(columns={"value_before": "before", "value_after": "after"})[[c for c in key if c != "test_size"] + ["before", "after"]].reset_index(drop=True)


FAILURE = ("what", "when", "of_gpu", "memory_bytes", "free_bytes", "device", "device_memory_bytes", "processor")  # what failures.csv tells beside the axes


Places = dict[tuple[str, Path], Run]  # a stage and its folder, with the first run that has it


def _places(runs: Sequence[Run], stages: Sequence[str]) -> Places:
    """Each stage folder of the runs once: that of a tuned model has as many runs as it is tested in ways; where nothing is tuned there is none."""
    found: dict[tuple[str, ...], tuple[str, Run]] = {}
    for run in runs:
        for stage in stages:
            if stage != "finetune" or run.method != "none":
                found.setdefault((stage, run.id, *([run.test_id] if stage == "evaluate" else [run.probe_id] if stage == "probe" else [])), (stage, run))
    return {(stage, records.stage_folder(run, stage)): run for stage, run in found.values()}


def _unfit(places: Places) -> dict[Path, tuple[Path, dict[str, Any]]]:
    """The folders of stages that cannot be had because they, or the tuning that they read, did not fit in memory: for each the folder of what ran out of it, and its row."""
    found = {}
    for (stage, folder), run in places.items():
        if not (folder / "run.json").exists() and (facts := records.unfit(run, stage)):
            row = {"run": run.id, "stage": facts["stage"], **run.resolved(), **{name: facts.get(name) for name in FAILURE}}
            found[folder] = records.stage_folder(run, facts["stage"]), row
    return found


def _finished(stages: Sequence[Asked], checked: Iterable[list[tuple[dict[str, Any] | None, list[str]]]]) -> list[dict[str, Any]]:
    """Each stage's record, of what `_Work.checked` says of them; ValueError where any is missing or stale."""
    missing, stale, found = [], [], []
    for (_, folder, _), (content, differences) in zip(stages, chain.from_iterable(checked), strict=True):
        if content is None:
            missing.append(str(folder.relative_to(paths.runs())))
        elif differences:
            stale.append(f"{folder.relative_to(paths.runs())} ({'; '.join(differences)})")
        else:
            found.append(content)
    for kind, names in (("missing", missing), ("stale", stale)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(f"the study is not complete: {len(names)} of {len(missing) + len(stale) + len(found)} stages are {kind}: {', '.join(names[:5])}{more}")
    if not found:
        raise ValueError("the study has no runs to collect")
    return found


def _costs(content: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What tuning a model cost: the facts of its stamp, what of it `_Work.trained` says, protocol and inputs."""
    stamp = content.get("stamp", {})
    facts = {name: value for name, value in stamp.items() if value is None or isinstance(value, (str, int, float))}
    towers = {f"{kind}_{tower}": count for kind in ("trainable", "total") for tower, count in stamp.get(kind, {}).items()}
    return {**facts, **own, **towers, "protocol": content["protocol"], **{f"digest_{k}": v for k, v in content["inputs"].items()}}


def _origins(found: Iterable[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    """What made a study: commits, machine, packages (every value that occurs), digests of data and base, stages and their seconds."""
    found = list(found)
    stamps = [content.get("stamp", {}) for _, content in found]
    packages = {name for stamp in stamps for name in stamp.get("packages") or {}}
    data = {(r.tested_on if c["stage"] == "evaluate" else r.dataset if c["stage"] == "finetune" else r.probe, c["stage"]): c["inputs"]["data"] for r, c in found}
    return {
        "protocol": sorted({f"{content['stage']} {content['protocol']}" for _, content in found}),
        **{plural: _values(stamp.get(name) for stamp in stamps) for plural, name in PLURALS.items()},
        "packages": {name: _values((stamp.get("packages") or {}).get(name) for stamp in stamps) for name in sorted(packages)},
        "bases": {run.model: content["inputs"]["base"] for run, content in found},
        "data": [{"dataset": dataset, "stage": stage, "digest": digest, **_revisions(dataset)} for (dataset, stage), digest in sorted(data.items())],
        "stages": len(found),
        "seconds": float(sum(stamp.get("seconds") or 0 for stamp in stamps)),
        "started": min((s["started"] for s in stamps if s.get("started")), default=None),
    }


def _revisions(dataset: str) -> dict[str, Any]:
    """The commits of the hub repositories that a data set was read at, where it was."""
    found = records.read_revisions(dataset)
    return {"revisions": found} if found else {}


PLURALS = {"commits": "commit", "dirty": "dirty", "python": "python", "systems": "system", "processors": "processor", "cores": "cores", "devices": "device", "products": "products"}


def _values(values: Iterable[Any]) -> list[Any]:
    """The different values, in a fixed order; a value that is missing stays, as None."""
    return sorted(set(values), key=str)


@contextmanager
def _renewed(study: str) -> Iterator[Path]:
    """A temporary folder that takes the place of a study's tables once its block has ended, and goes where that failed."""
    folder = paths.results() / study
    temporary = folder.with_name(f".{study}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _write(folder: Path, tables: dict[str, list[dict[str, Any]]], origins: dict[str, Any], study: str) -> None:
    """Write tables that have rows as CSV, texts, which have many rows, as Parquet, and what made them."""
    for name, rows in tables.items():
        if rows and name == "texts":
            pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet", compression="zstd", index=False)
        elif rows:
            pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    (folder / "provenance.json").write_text(json.dumps({**origins, "study": study}, indent=1))


@dataclass(frozen=True)
class Results:
    """A collected study as `collect` wrote it: its tables, and what made them; ``predictions`` (`answers.read`) are read when they are asked for; ``told`` is `ways.varied`'s."""

    study: str
    folder: Path
    scores: pd.DataFrame
    costs: pd.DataFrame
    references: pd.DataFrame
    guesses: pd.DataFrame
    names: pd.DataFrame
    texts: pd.DataFrame
    failures: pd.DataFrame
    provenance: dict[str, Any]
    told: ways.Told = field(default_factory=dict)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row per answer with every axis: `answers.read`."""
        return ways.apart(answers.read(self.folder / "predictions.parquet"), self.told)

    def by_ways(self) -> "Results":
        """The same study with each of several ways to run a method as a method of its own (`ways`): what tables compare."""
        told = ways.varied(pd.concat([self.costs, self.failures, self.scores], ignore_index=True))
        frames = {name: ways.apart(getattr(self, name), told) for name in ("scores", "costs", "texts", "failures")}
        return replace(self, told=told, **frames)

    def vocabulary(self, tested_on: str) -> tuple[str, ...]:
        """The names of all things that the pictures of a data set or probe can hold; none where that was not kept."""
        return tuple(self.names.loc[self.names["tested_on"] == tested_on, "name"]) if len(self.names) else ()

    @property
    def vocabularies(self) -> dict[str, tuple[str, ...]]:
        """`vocabulary` of each data set and probe for which it was kept."""
        return {name: self.vocabulary(name) for name in dict.fromkeys(self.names.get("tested_on", ()))}


def read_base(model: str, origins: dict[str, Any]) -> dict[str, Any] | None:
    """How the pocket base of a study was made (its tracked delta.json); None for a model that has no delta.

    `origins` is the study's provenance: where its base is another build than the tracked one, there is only ``other_build``.
    """
    file = paths.bases() / model / "delta.json"
    if not file.exists():
        return None
    return json.loads(file.read_text()) if origins["bases"].get(model) == models.digest(model) else {"other_build": origins["bases"].get(model)}


def read_costs(study: str) -> pd.DataFrame:
    """What tuning the models of a study cost, with their losses, a row per model; no rows where the study is neither collected nor published."""
    return read_results(study).costs if _kept(study) else pd.DataFrame()


def _kept(study: str) -> Path | None:
    """Where the tables of a study lie: those collected here, else the published ones; None where there are none."""
    return next((folder for place in (paths.results(), paths.published_results()) if ((folder := place / study) / "provenance.json").exists()), None)


def _folder(study: str) -> Path:
    """Where the tables of a study lie; FileNotFoundError saying how to make them."""
    folder = _kept(study)
    if folder is None:
        raise FileNotFoundError(f"study {study!r} is not collected: run `python -m peftlab run {study}` and then `python -m peftlab report {study}`")
    return folder


def memory(study: str) -> int:
    """How many bytes a notebook takes that reads a collected study, at most (`answers.memory`)."""
    return answers.memory(_folder(study) / "predictions.parquet")


def shared(study: str) -> AbstractContextManager[None]:
    """Within, all that read a collected study's answers share one copy of them (`answers.shared`)."""
    return answers.shared(_folder(study) / "predictions.parquet")


def read_results(study: str) -> Results:
    """The tables of a study: those collected here, else the published ones; raises FileNotFoundError saying how to make them."""
    folder = _folder(study)
    words = {f.name: str for f in fields(Run) if f.type is str}  # else a column of "true" is read as a truth value
    tables = ("scores", "costs", "failures", "vocabulary")
    scores, costs, failures, named = (
        pd.read_csv(f, keep_default_na=False, na_values=[""], dtype=words) if (f := folder / f"{name}.csv").exists() else pd.DataFrame() for name in tables
    )
    origins = json.loads((folder / "provenance.json").read_text())
    held = ("references", "blind", "texts")
    references, guesses, texts = (pd.read_parquet(file) if (file := folder / f"{name}.parquet").exists() else pd.DataFrame() for name in held)
    return Results(study, folder, scores, costs, references, guesses, named, texts, failures, origins)


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
