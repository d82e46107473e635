"""The table of answers: what is written comes back, in little memory, whatever its row groups."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peftlab import answers, collected, estimates, metrics
from peftlab.run import Run

ORIGIN = {"commit": "c", "dirty": None, "processor": "p", "device": "cpu"}


def judged(run: Run, *, n: int = 4, likelihoods: bool = False) -> pd.DataFrame:
    """Judged answers to `n` questions of the data set that a run is tested on."""
    rows = pd.DataFrame(
        {
            "example_id": [f"e{i}" for i in range(n)], "picture_id": [f"p{i // 2}" for i in range(n)], "asset": [f"a{i % 3}" for i in range(n)], "template": "which",
            "phrasing": 1, "question": [f"Which, {i}?" for i in range(n)], "choices": [["cat", "dog", f"c{i}"] for i in range(n)], "answers": [["cat"]] * n,
            "response": [("cat", "dog", "", f"c{i}")[(i + run.seed) % 4] for i in range(n)],
        }
    )  # fmt: skip
    return metrics.judge(rows.assign(likelihoods=[[-0.1, -0.2, -0.3]] * n) if likelihoods else rows)


def table(rows: pd.DataFrame) -> pa.Table:
    """Rows as they are added to the table of answers."""
    return pa.Table.from_pandas(rows, preserve_index=False)


def about(run: Run) -> dict[str, object]:
    """What is said of each answer of a run's evaluation."""
    return {"run": run.id, "stage": "evaluate", **run.resolved(), "tested_on": run.tested_on, **ORIGIN}


RUNS = [Run(method="none", seed=0), Run(seed=1), Run(connector="tuned", dataset="scenes", seed=2), Run(seed=3, test_size=None)]


GROUPS = {1: 4, 6: 2, 1000: 1}  # by the answers to a row group, how many of those there are of sixteen answers


@pytest.fixture(params=GROUPS, ids=lambda n: f"groups_of_{n}")
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four stages of four answers, in row groups of at least so many."""
    monkeypatch.setattr(answers, "ROWS", request.param)
    with answers.writing(tmp_path / "predictions.parquet") as written:
        for i, run in enumerate(RUNS):
            written.add(table(judged(run, likelihoods=i == 1)), about(run))
    return tmp_path / "predictions.parquet"


def test_what_is_written_comes_back(file: Path) -> None:
    rows = answers.read(file)
    assert rows["run"].tolist() == [run.id for run in RUNS for _ in range(4)]
    expected = pd.concat([judged(run).assign(**about(run)) for run in RUNS], ignore_index=True)
    for name in expected:
        found, wanted = ([None if isinstance(v, float) and np.isnan(v) else tuple(v) if isinstance(v, list) else v for v in frame[name].tolist()] for frame in (rows, expected))
        assert found == wanted, name
    assert "likelihoods" not in rows and rows["objects"].isna().all()
    assert rows["likeliest"].value_counts().to_dict() == {-1: len(rows) - 4, 0: 4}
    stored = pd.read_parquet(file)
    assert list(stored) == answers.SCHEMA.names and stored["likelihoods"].notna().sum() == 4


def test_answers_beside_their_questions_are_the_same_table(file: Path, tmp_path: Path) -> None:
    """Questions that several stages have are given once, in their own order; answers to some of them, and with a column that others lack."""
    asked = table(judged(RUNS[0])).select([name for name in answers.GIVEN if name in judged(RUNS[0]) and name not in answers.SAID])
    order = pa.array([2, 0, 3, 1])
    with answers.writing(tmp_path / "beside.parquet") as written:
        for i, run in enumerate(RUNS):
            rows = table(judged(run, likelihoods=i == 1))
            said, own = rows.drop_columns(asked.column_names), asked.take(order) if i == 2 else asked
            places = pa.array([order.to_pylist().index(place) if i == 2 else place for place in range(4)], pa.int32())
            written.add(said.append_column(answers.PLACE, places), about(run), own)
    assert pq.read_table(tmp_path / "beside.parquet").equals(pq.read_table(file))
    with answers.writing(tmp_path / "some.parquet") as written:
        written.add(said.append_column(answers.PLACE, places).slice(1, 2), about(RUNS[3]), asked)
    some = answers.read(tmp_path / "some.parquet")
    assert some["example_id"].tolist() == ["e1", "e2"] == some["example_id"].cat.categories.tolist() and some["answers"].tolist() == [("cat",)] * 2, "a question without an answer is none of the table"


def test_what_is_shared_is_what_is_read(file: Path, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    """To the type and the order of every level, with the lists of a question still one for all its rows; gone afterwards, also what a process that was killed left."""
    alone, parquet = answers.read(file), pq.ParquetFile

    def full(file: Path, place: Path) -> None:
        (place / "rows.arrow").write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    with answers.shared(file):
        assert not answers._shared(file).exists(), "a small table is read faster than it is shared"
    monkeypatch.setattr(answers, "SHARED", len(alone))
    left = answers._shared(file).with_name("left")
    left.mkdir(parents=True)
    with answers.shared(file):
        assert [f.name for f in left.parent.iterdir()] == [answers._shared(file).name]
        monkeypatch.setattr(pq, "ParquetFile", None)
        rows = answers.read(file)
        monkeypatch.setattr(pq, "ParquetFile", parquet)
        pd.testing.assert_frame_equal(rows, alone, check_categorical=True)
        assert rows["choices"].iloc[1] is rows["choices"].iloc[5]
        assert estimates.scores(rows).equals(estimates.scores(alone))
        os.utime(file, ns=(0, 0))
        assert not answers._shared(file).exists(), "a table that was changed is read anew"
        monkeypatch.setattr(answers, "_lay_open", full)
        with answers.shared(file):
            assert not answers._shared(file).exists() and len(answers.read(file)) == len(alone), "a disk that is full costs time, not the report"
    assert not left.parent.exists()
    pd.testing.assert_frame_equal(rows, alone)


def test_likelihoods_take_less_than_by_dictionary(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(-3, 2, (2000, 4)).round(6).tolist()
    with answers.writing(tmp_path / "p.parquet") as written:
        written.add(table(judged(RUNS[1], n=2000).assign(likelihoods=drawn)), about(RUNS[1]))
    stored = pq.read_table(tmp_path / "p.parquet")
    pq.write_table(stored, tmp_path / "plain.parquet", compression="zstd")
    answers.packed(tmp_path / "plain.parquet", tmp_path / "packed.parquet")
    assert stored["likelihoods"].to_pylist() == drawn and pq.read_table(tmp_path / "packed.parquet").equals(stored)
    taken = {name: _taken(tmp_path / f"{name}.parquet", "likelihoods.list.element") for name in ("p", "plain", "packed")}
    assert max(taken["p"], taken["packed"]) < 0.85 * taken["plain"]


def _taken(file: Path, path: str) -> int:
    """The bytes of a column of the first row group."""
    group = pq.read_metadata(file).row_group(0)
    return next(c.total_compressed_size for c in map(group.column, range(group.num_columns)) if c.path_in_schema == path)


def test_options_come_from_the_answers_that_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers kept before options were weighed stand first; another stage has them for the same questions."""
    monkeypatch.setattr(answers, "ROWS", 4)
    weighed = judged(RUNS[1]).assign(choices=[[]] * 4, options=[["cat", "dog"], ["dog", "cat"], None, ["cat", "ox"]], likelihoods=[[-1.0, -2.0], [-2.0, -1.0], None, [-9.0, -8.0]])
    with answers.writing(tmp_path / "p.parquet") as written:
        written.add(table(judged(RUNS[0]).assign(choices=[[]] * 4)), about(RUNS[0]))
        written.add(table(weighed), about(RUNS[1]))
    rows = answers.read(tmp_path / "p.parquet")
    assert rows["options"].tolist() == [("cat", "dog"), ("dog", "cat"), None, ("cat", "ox")] * 2
    assert rows["likeliest"].tolist() == [-1, -1, -1, -1, 0, 1, -1, 1]
    assert rows["choices"].tolist() == [()] * 8


def test_a_stage_lies_in_one_row_group(file: Path) -> None:
    groups = [set(group["run"].to_pylist()) for group in answers.row_groups(file)]
    assert sum(len(runs) for runs in groups) == len(RUNS), "a run's answers lie in two"
    assert len(groups) == GROUPS[answers.ROWS]


def test_names_are_categories_numbers_are_ordered_and_lists_are_shared(file: Path) -> None:
    rows = answers.read(file)
    plain = {"value", "choices", "answers", "objects", "options", "likeliest"}
    assert {name for name, kind in rows.dtypes.items() if not isinstance(kind, pd.CategoricalDtype)} == plain
    assert rows["seed"].max() == 3 and (rows["seed"] > 1).sum() == 8 and rows["lr"].isna().sum() == 4
    assert (rows["tested_on"] == rows["dataset"]).all(), "columns of data sets are compared with each other"
    assert rows["choices"].iloc[1] is rows["choices"].iloc[5] and rows["choices"].iloc[1] == ("cat", "dog", "c1")


def test_a_column_of_one_level_is_told_from_the_statistics_of_the_file(file: Path) -> None:
    """A column that misses a value, has another level in one row group, or is of fractions, is read."""
    about, kinds = pq.read_metadata(file), pq.read_schema(file)
    told = {name: answers._constant(about, kinds.field(name)) for name in ("stage", "quantisation", "batch_size", "checkpointing", "seed", "connector", "dirty", "test_dataset", "value")}
    assert {name: None if found is None else (found.categories.tolist(), len(found), bool(found.ordered)) for name, found in told.items()} == {
        "stage": (["evaluate"], 16, False), "quantisation": (["none"], 16, False), "batch_size": ([16], 16, True), "checkpointing": ([False], 16, True),
        "seed": None, "connector": None, "dirty": None, "test_dataset": None, "value": None,
    }  # fmt: skip


@pytest.mark.parametrize("most", [60, 10**7])
def test_codes_are_numbered_in_the_order_in_which_they_come(most: int) -> None:
    codes = np.random.default_rng(0).integers(0, 60, 500)
    numbers, first = answers.numbered(codes, most)
    assert numbers.tolist() == pd.factorize(codes)[0].tolist() and first.tolist() == [codes.tolist().index(code) for code in dict.fromkeys(codes.tolist())]
    assert [part.tolist() for part in answers.numbered(codes[:0], most)] == [[], []]


def test_what_fails_in_writing_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is written beside what comes next: its error must not be lost there."""
    monkeypatch.setattr(answers, "ROWS", 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"), answers.writing(tmp_path / "x.parquet") as written:
        written.add(table(judged(RUNS[0])), about(RUNS[0]))


def test_a_column_that_the_table_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answers with a column 'mood': the table of answers has example_id"), answers.writing(tmp_path / "x.parquet") as written:
        written.add(table(judged(RUNS[0]).assign(mood="good")), about(RUNS[0]))
    with answers.writing(tmp_path / "none.parquet"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_study_in_several_row_groups_is_scored_again_like_one(study: Path) -> None:
    whole = pq.read_table(study / "predictions.parquet")
    order = np.argsort(pd.factorize(pd.Series(zip(*(whole[c].to_pylist() for c in ("run", "stage", "tested_on", "test_pictures")))))[0], kind="stable")
    with pq.ParquetWriter(study / "predictions.parquet", whole.schema) as written:
        for start in range(0, len(order), 60 * 9):
            written.write_table(whole.take(order[start : start + 60 * 9]))
    found = collected.rescore("smoke", scorer=metrics)
    assert found.answers == 0 and found.changes.empty and pq.read_metadata(study / "predictions.parquet").num_row_groups > 5
    assert pq.read_table(study / "predictions.parquet").equals(whole.take(order))
    pq.write_table(whole, study / "predictions.parquet", row_group_size=100)
    with pytest.raises(ValueError, match="lie in two row groups of predictions.parquet: collect the study again"):
        collected.rescore("smoke", scorer=metrics)
    assert pq.read_table(study / "predictions.parquet").equals(whole)


MEASURED = """
import json, sys, tracemalloc
from pathlib import Path
from peftlab import answers, estimates, provenance
warm = answers.read(Path(sys.argv[2]))
estimates.scores(warm), estimates.forgetting(warm)
del warm
start = provenance._peak() if not provenance._reset_peak() else int(Path("/proc/self/statm").read_text().split()[1]) * 4096
with provenance.Clock() as clock:
    rows = answers.read(Path(sys.argv[1]))
    held = int(rows.memory_usage().sum())
    once = estimates.Averaged(rows)
    found = len(estimates.scores(once)), len(estimates.forgetting(once)), len(estimates.forgetting(estimates.by_likelihood(once)))
del once
tracemalloc.start()  # of arrays alone, to the byte: what was freed before is not taken for free
once = estimates.Averaged(rows)
estimates.forgetting(once), estimates.forgetting(estimates.by_likelihood(once))
averaged = tracemalloc.get_traced_memory()[1]
print(json.dumps({"rows": len(rows), "held": held, "taken": clock.peak_memory_bytes - start, "averaged": averaged, "found": found}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a block is read from /proc")
def test_memory_of_a_study_is_bounded_by_its_rows(tmp_path: Path) -> None:
    """Ten million answers must fit in 4 GB: 400 bytes each, whatever else is in memory: reading, averaging and what is kept together."""
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    for file, seeds in ((small, 1), (large, 25)):
        with answers.writing(file) as written:
            for dataset in ("scenes", "facts", "titles", "icons_choice"):
                for run in (Run(dataset=dataset, method=m, seed=s, test_dataset=t) for m in ("none", "lora") for s in range(seeds) for t in ("scenes", "facts", "titles", "icons_choice", "science")):
                    written.add(table(judged(run, n=200, likelihoods=True)), about(run))
    measured = []
    while not measured or (measured[-1]["taken"] / measured[-1]["rows"] >= 400 and len(measured) < 3):  # threads that are kept waiting hold more for a while: the least of three counts
        done = subprocess.run([sys.executable, "-c", MEASURED, str(large), str(small)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        measured.append(json.loads(done.stdout))
    found = min(measured, key=lambda one: one["taken"])
    assert found["rows"] == 200_000 and found["found"] == [8, 4 * 2 * 9, 4 * 2 * 9]
    assert found["held"] / found["rows"] < 130
    assert found["taken"] / found["rows"] < 400, f"{found['taken'] / found['rows']:.0f} bytes a row"
    assert found["averaged"] / found["rows"] < 55, f"{found['averaged'] / found['rows']:.0f} bytes a row: averaging copies columns"


def test_the_place_of_the_greatest_is_the_first_of_several() -> None:
    rng = np.random.default_rng(0)
    lists = [None, [], *([float(x) for x in rng.integers(-3, 0, rng.integers(1, 6))] for _ in range(200)), None]
    chunked = pa.chunked_array([pa.array(lists[:90], pa.list_(pa.float64())), pa.array(lists[90:], pa.list_(pa.float64()))])
    assert answers.greatest(chunked).tolist() == [max(range(len(found)), key=found.__getitem__) if found else -1 for found in lists]
    assert answers.greatest(pa.chunked_array([pa.nulls(3, pa.list_(pa.float64()))])).tolist() == [-1, -1, -1]
