"""Tidy rows to frames of estimates: scores, differences, baselines, probes and costs, a row per comparison."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from peftlab import answers, datasets, methods, metrics, models, stats, style, ways

# Axes that no table compares: more than one level of them inside a cell is a mistake in the selection.
HELD = ("size", "budget", "location", "layers", "lr", "connector_lr", "precision", "checkpointing", "steps", "batch_size", "train_size", "replay", "keep_every", "quantisation", "train_pictures")
LEVEL = 95  # per cent: of every interval
QUESTION = ("example_id", "tested_on", "picture_id", "asset", "template", "answers", "choices", "options")  # what is the question's own
CELL = ("model", "method", "connector", "dataset")
Cells = dict[tuple[str, str, str, str], pd.DataFrame]
YES_NO = ("presence", "pope", "repope")  # probes by questions of yes or no; a study has one of them


class Averaged:
    """A study's answers, averaged over seeds once for each choice of levels, however many estimates ask for it.

    `rows` are those of `collected.Results.predictions`, or a selection of them, and must not be changed afterwards. Every function here
    takes either; several that are given one of these share the work.
    """

    def __init__(self, rows: pd.DataFrame, *, of: np.ndarray | None = None, questions: tuple[np.ndarray, pd.DataFrame] | None = None) -> None:
        """`of` is a truth value for each row, whether it counts (None: all do); `questions` are those of the same rows, where they are known."""
        self.rows, self._of = rows, of
        self._found: dict[tuple[Hashable, ...], Cells] = {}
        if questions is not None:
            self.questions = questions

    @property
    def counted(self) -> np.ndarray:
        """A truth value for each row, whether it counts."""
        return np.ones(len(self.rows), dtype=bool) if self._of is None else self._of

    @property
    def tested_on(self) -> set[str]:
        """The data sets and probes that the rows are answers to."""
        return set((self.rows["tested_on"] if self._of is None else self.rows["tested_on"][self._of]).unique())

    def cells(self, stage: str = "evaluate", **levels: str) -> Cells:
        """See `cells`."""
        chosen = {"train_pictures": "true", "quantisation": "none"} | ({"test_pictures": "true"} if stage == "evaluate" else {}) | levels
        key = (stage, *sorted(chosen.items()))
        if key not in self._found:
            right = _same(self.rows["tested_on"], self.rows["dataset"]) if stage == "evaluate" else _is(self.rows, tested_on=yes_no(self.rows))
            merged, places = self.average(right & _is(self.rows, stage=stage, **chosen), CELL)
            self._found[key] = {cell: merged.iloc[place] for cell, place in places.items()}
        return self._found[key]

    @cached_property
    def questions(self) -> tuple[np.ndarray, pd.DataFrame]:
        """The number of each row's question, and what is the question's own: a row for each, with its name as ``question_id``."""
        tested_on, example_id = (self.rows[name].astype("category").array for name in ("tested_on", "example_id"))
        numbers, first = answers.questions(tested_on, example_id)
        there = self.rows.columns.intersection(QUESTION, sort=False)  # a study made before there were options has none
        own = self.rows[there].iloc[first].reindex(columns=QUESTION).reset_index(drop=True).astype({"picture_id": "category", "asset": "category"})
        names = [f"{place}:{name}" for place, name in zip(own["tested_on"], own["example_id"])]
        own["question_id"] = pd.Categorical.from_codes(np.arange(len(names)), pd.Index(names, dtype=object))
        return numbers, own

    def average(self, chosen: np.ndarray, by: Sequence[str], *, also: Sequence[str] = ()) -> tuple[pd.DataFrame, dict[tuple[Any, ...], slice]]:
        """The chosen rows (a truth value for each), one for each cell and question, averaged over seeds, and where each cell lies in them.

        Averaged are the value, whether the answer is unparsed, and the columns of numbers in `also`. Where a cell has several seeds, a column for each
        says what it alone earned (`stats.reruns`). A cell has one level of each of `by`; cells, and the questions of one, are in the order in which they first occur. Raises ValueError where the rows of a cell are no one comparison.
        """
        places = np.flatnonzero(chosen if self._of is None else chosen & self._of)
        if not len(places):
            return self.questions[1].iloc[:0], {}
        rows = self.rows  # of a large study: one column of the chosen rows is taken at a time, and none is kept
        cell, first = _grouped(rows, by, places)
        keys = [tuple(key) for key in rows[list(by)].iloc[places[first]].astype(object).itertuples(index=False)]
        named = [" / ".join(map(str, key)) for key in keys]
        _refuse_mixed(rows, cell, first, named, places)
        numbers, own = self.questions
        one, start = answers.numbered(cell.astype(np.int64) * len(own) + numbers[places], len(keys) * len(own))  # a question of a cell
        seed, of_seed = _grouped(rows, ["seed"], places)
        asked, of = np.bincount(one), cell[start]
        met, seeds = _seeds(one, seed), _seeds(cell, seed)
        if (met < asked).any():
            raise ValueError(f"{named[of[met < asked][0]]} has a question twice for one seed: a study asks each once")
        if (asked != seeds[of]).any():
            raise ValueError(f"{named[of[asked != seeds[of]][0]]} asks some questions of some seeds only: use one test_size for the whole study")
        order = np.argsort(of, kind="stable")
        columns = {name: rows[name].to_numpy() for name in ("value", *also)} | {"unparsed": (rows["outcome"] == "unparsed").to_numpy()}
        means = {name: (np.bincount(one, column[places]) / asked)[order] for name, column in columns.items()}
        merged = own.iloc[numbers[places[start[order]]]].reset_index(drop=True)
        merged = merged.assign(metric=rows["metric"].iloc[places[start[order]]].array, **means, seeds=seeds[of[order]])
        if seeds.max() > 1:
            merged = _with_alone(merged, columns["value"][places], one, seed, rows["seed"].iloc[places[of_seed]], order)
        ends = np.cumsum(np.bincount(of))
        return merged, {key: slice(end - size, end) for key, end, size in zip(keys, ends, np.diff(ends, prepend=0), strict=True)}


Predictions = pd.DataFrame | Averaged  # answers, tidy, or averaged once for several estimates


def _once(predictions: Predictions) -> Averaged:
    return predictions if isinstance(predictions, Averaged) else Averaged(predictions)


def _rows(predictions: Predictions) -> pd.DataFrame:
    return predictions.rows if isinstance(predictions, Averaged) else predictions


def cells(predictions: Predictions, *, stage: str = "evaluate", **levels: str) -> Cells:
    """The answers of every (model, method, connector, data set tuned on), one row per question, averaged over seeds.

    `levels` choose train_pictures, test_pictures and quantisation (default: true, true, none). Evaluations count where the
    test is on the data set tuned on, probes where they ask `yes_no` questions. Raises ValueError where a cell mixes levels of another axis.
    """
    return _once(predictions).cells(stage, **levels)


def _is(rows: pd.DataFrame, **levels: Any) -> np.ndarray:
    """Which rows have these levels; None is the level of none."""
    found = np.ones(len(rows), dtype=bool)
    for axis, level in levels.items():
        found &= (rows[axis] == level).to_numpy(dtype=bool) if level is not None else False
    return found


def _same(a: pd.Series, b: pd.Series) -> np.ndarray:
    """Which rows have the same level in two columns of names."""
    if not all(isinstance(c.dtype, pd.CategoricalDtype) for c in (a, b)):
        return (a.astype(object) == b.astype(object)).to_numpy()
    return a.array.codes == np.append(a.cat.categories.get_indexer(b.cat.categories), -2)[b.array.codes]


def _codes(values: pd.Series) -> np.ndarray:
    """A whole number for each different value; -1 where there is none."""
    return values.array.codes if isinstance(values.dtype, pd.CategoricalDtype) else pd.factorize(values)[0]


def _grouped(rows: pd.DataFrame, by: Sequence[str], places: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's group by columns `by`, in the order in which groups first occur, and the first row of each; of the rows at `places` alone, where they are given."""
    found, groups = np.zeros(len(rows) if places is None else len(places), dtype=np.int32), 1
    first = np.zeros(min(len(found), 1), dtype=np.int64)
    for name in by:
        codes = _codes(rows[name])
        levels = int(codes.max(initial=-1)) + 2
        if levels > 2 or (codes < 0).any():
            found, first = answers.numbered(found.astype(np.int64) * levels + (codes if places is None else codes[places]) + 1, groups * levels)
            groups = len(first)
    return found, first


def _refuse_mixed(rows: pd.DataFrame, cell: np.ndarray, first: np.ndarray, named: Sequence[str], places: np.ndarray | None = None) -> None:
    """Raise ValueError where the rows of a cell have several levels of an axis of `HELD`; `cell` and `first` as `_grouped` gives them, `named` the cells."""
    for axis in rows.columns.intersection(HELD, sort=False):  # a study made before an axis was there has one level of it
        codes = _codes(rows[axis])
        if not len(codes) or codes.min() == codes.max():
            continue
        mine = codes if places is None else codes[places]
        other = mine != mine[first][cell]
        if other.any():
            mixed = cell[other].min()
            levels = (rows[axis] if places is None else rows[axis].iloc[places])[cell == mixed].drop_duplicates()
            raise ValueError(f"{named[mixed]} mixes {axis} {', '.join(map(str, levels))}: one table compares one level of it")


def _seeds(group: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """How many different seeds each group has."""
    met = np.zeros((int(group.max()) + 1, int(seed.max()) + 1), dtype=bool)
    met[group, seed] = True
    return met.sum(axis=1)


def _with_alone(frame: pd.DataFrame, value: np.ndarray, question: np.ndarray, seed: np.ndarray, names: Iterable[Any], order: np.ndarray) -> pd.DataFrame:
    """A frame of questions, beside which stands what each seed's answers earned: a column a seed, a value a question, in `order`; missing where the seed was not asked it.

    These columns are one array, of which those of a cell are a part, and the columns' names are objects, which are read faster than a column of texts.
    """
    earned = np.full((len(order), seed.max() + 1), np.nan)
    earned[question, seed] = value
    alone = pd.DataFrame(earned[order], columns=[f"{stats.RERUN}{name}" for name in names], index=frame.index)
    found = pd.concat([frame, alone], axis=1)
    return found.set_axis(found.columns.astype(object), axis=1)


def _instead(cell: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """A cell with other values, of which no seed is known apart."""
    return cell.drop(columns=stats.alone(cell)).assign(**columns)


def _mean(cell: pd.DataFrame, strata: str | None = None) -> stats.Interval:
    """The mean of a cell's values, with the spread between its seeds where it has several."""
    seeds = [list(one.values()) for one in stats.reruns(cell, strata)]
    return stats.interval(cell["value"], cell["picture_id"], cell["asset"], strata=cell[strata] if strata else None, seeds=seeds)


def _plain(rows: pd.DataFrame, chosen: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Columns of some rows with categories as the values they stand for: for few rows, whose texts are worked on."""
    found = rows[[name for name in names if name in rows]][chosen]
    return found.astype({name: kind.categories.dtype for name, kind in found.dtypes.items() if isinstance(kind, pd.CategoricalDtype)})


def yes_no(predictions: Predictions) -> str | None:
    """The study's probe by questions of yes or no; None where it has none. Raises ValueError where it has two: their accuracies are no comparison."""
    rows = _rows(predictions)
    found = [name for name in YES_NO if _is(rows, stage="probe", tested_on=name).any()]
    if len(found) > 1:
        raise ValueError(f"the study probes by {' and '.join(found)}: a table holds one, so give each a grid of its own")
    return found[0] if found else None


def _row(estimate: stats.Interval, **more: Any) -> dict[str, Any]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n, "clusters": estimate.clusters, **more}


def _within(found: dict[str, Any], most: float | None) -> dict[str, Any]:
    """A row whose interval is cut at zero and at `most`, where there is one."""
    if found["low"] is None:
        return found
    return found | {"low": max(0.0, found["low"]), "high": found["high"] if most is None else min(most, found["high"])}


def _most(names: Iterable[str]) -> float | None:
    """The highest value of any of these metrics; None where one of them has none."""
    most = [metrics.metric(name).most for name in names]
    return None if None in most else max(most)


DIFFERENCE = ("difference", "difference_low", "difference_high", "verdict")
CONTROL = ("control", "control_low", "control_high", "control_verdict")


def _against(d: stats.Interval | None) -> dict[str, Any]:
    """A difference beside a value of its own, with what it says; all None where there is none."""
    return dict(zip(DIFFERENCE, (d.mean, d.low, d.high, verdict(d)), strict=True)) if d else dict.fromkeys(DIFFERENCE)


def _score(cell: pd.DataFrame) -> dict[str, Any]:
    """A mean with its interval, cut at what the metric can be, n, the unparsed answers, the seeds, and the metric where it is one."""
    found, named = _row(_mean(cell, "tested_on")), list(cell["metric"].unique())
    return _within(found, _most(named)) | {"unparsed": float(cell["unparsed"].to_numpy().sum()), "seeds": int(cell["seeds"].iloc[0]), "metric": _only(named)}


def _named(key: tuple[str, str, str, str]) -> dict[str, str]:
    return dict(zip(("model", "method", "connector", "dataset"), key))


def _sorted(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return style.ordered(pd.DataFrame(list(rows)), ("model", "dataset", "method", "connector"))


def group(model: str, dataset: str) -> str:
    """``seen`` where the data set's training pool was in the model's own mix, else ``unseen``."""
    return "seen" if dataset in models.card(model).seen else "unseen"


def one_scale(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that an axis or an average can hold together: those of metrics from 0 to 100, or all where none or one metric is there.

    CIDEr can be above 100: its mean with an accuracy would depend on the scale.
    """
    named = frame["metric"].dropna().unique() if "metric" in frame else []
    shares = [name for name in named if metrics.metric(name).is_share]
    return frame[frame["metric"].isin(shares)] if shares and len(named) > 1 else frame


def scores(predictions: Predictions) -> pd.DataFrame:
    """A row per model, method, connector and data set: mean in the unit of the metric, interval, n, clusters, unparsed, seeds, metric, group."""
    return _sorted({**_named(key), **_score(cell), "group": group(key[0], key[3])} for key, cell in cells(predictions).items())


def _groups(found: Cells, *, like: Cells | None = None) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Every model, method and connector on all data sets of a group together, of `one_scale`; those that lack one are left out. The groups are those of `like`, `found` itself unless given."""
    like = found if like is None else like
    kept = set(one_scale(pd.DataFrame({"metric": {key[3]: cell["metric"].iloc[0] for key, cell in like.items()}})).index)
    found = {key: cell for key, cell in found.items() if key[3] in kept}
    whole: dict[tuple[str, str], dict[str, None]] = {}
    for key in (key for key in like if key[3] in kept):
        whole.setdefault((key[0], group(key[0], key[3])), {})[key[3]] = None
    for model, method, connector in dict.fromkeys(key[:3] for key in found):
        for (of, name), sets in whole.items():
            mine = [found[key] for d in sets if (key := (model, method, connector, d)) in found]
            if of == model and len(mine) == len(sets):
                yield {"model": model, "method": method, "connector": connector, "group": name, "datasets": len(sets)}, pd.concat(mine)


def averages(predictions: Predictions, **levels: str) -> pd.DataFrame:
    """Like `scores`, over the seen and the unseen data sets, each data set weighing the same; `levels` as in `cells`."""
    return _sorted({**names, **_score(cell)} for names, cell in _groups(cells(predictions, **levels)))


STABILITY = (*CELL, "group", "metric", "seeds", "mean", "sd", "least", "most")
OVERALL = ("model", "method", "connector", "datasets", "sd", "low", "high", "freedom", "mostly", "unsteady")
CHANCE = 0.05  # of a finding among all models that none would be


def stability(predictions: Predictions) -> pd.DataFrame:
    """What another seed moves: a row per model, method, connector and data set that was tuned with several, with the standard deviation between the seeds' means, the least and the most of them.

    The questions are the same for all seeds, so that their number adds nothing to it. Empty where no seed was repeated. (Zhou et al. 2024, tables 6 and 14, say as much.)
    """
    rows = []
    for key, cell in cells(predictions).items():
        [means] = stats.reruns(cell)
        if len(means) > 1:
            found = {"seeds": len(means), "mean": float(cell["value"].mean()), "sd": stats.deviation([list(means.values())]).sd, "least": min(means.values()), "most": max(means.values())}
            rows.append({**_named(key), "group": group(key[0], key[3]), "metric": cell["metric"].iloc[0], **found})
    return _sorted(rows) if rows else pd.DataFrame(columns=list(STABILITY))


def stability_overall(predictions: Predictions) -> pd.DataFrame:
    """The standard deviation between seeds of each model, method and connector over all its data sets of `one_scale`, with its interval (`stats.deviation`); empty where no seed was repeated.

    ``mostly`` is the data set that has more than half of the variance, None where none has. ``unsteady`` is whether the variance is higher than that of all others of
    the base model together, by `stats.steadier` and as many times less likely as there are models to choose from.
    """
    cell, rows = cells(predictions), []
    for model, kept in one_scale(stability(predictions)).groupby("model", sort=False):
        means = {names: {d: list(stats.reruns(cell[model, *names, d])[0].values()) for d in mine["dataset"]} for names, mine in kept.groupby(["method", "connector"], sort=False)}
        for names, mine in means.items():
            whole, variances = stats.deviation(mine.values()), {d: float(np.var(one, ddof=1)) for d, one in mine.items()}
            others = [one for other, theirs in means.items() if other != names for one in theirs.values()]
            unsteady = bool(others) and stats.steadier(stats.deviation(others), whole) * len(means) < CHANCE
            mostly = next((d for d, v in variances.items() if len(mine) > 1 and 2 * v > sum(variances.values())), None)
            rows.append(dict(zip(OVERALL, (model, *names, len(mine), whole.sd, whole.low, whole.high, whole.freedom, mostly, unsteady), strict=True)))
    return style.ordered(pd.DataFrame(rows, columns=list(OVERALL)), ("model", "method", "connector"))


def baselines(predictions: Predictions, *, guesses: pd.DataFrame | None = None, references: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row per model, data set and baseline (`style.BASELINES`): what needs no sight of the picture.

    The untouched base under blank and under shuffled pictures; what those who learned from the set's own training data say to a question
    without its picture (`guesses` of `collected.Results`: the most frequent answer of its template, and a classifier of questions); and chance, one over the choices, or over
    the different answers of the template, which is exact and has no interval. `references` are those of `collected.Results`: a metric
    that weighs words by the whole test set judges a guess as it judges a model's answer.
    """
    found = _sightless(predictions, guesses, references)
    return _blind_rows(({"model": key[0], "dataset": key[3]}, key[1], cell) for key, cell in found.items())


def baseline_averages(predictions: Predictions, *, guesses: pd.DataFrame | None = None, references: pd.DataFrame | None = None) -> pd.DataFrame:
    """`averages` of `baselines`: a row per model, group of data sets and baseline."""
    predictions = _once(predictions)
    found = _groups(_sightless(predictions, guesses, references), like=cells(predictions))
    return _blind_rows(({"model": names["model"], "group": names["group"], "datasets": names["datasets"]}, names["method"], cell) for names, cell in found)


def _blind_rows(cells: Iterable[tuple[dict[str, Any], str, pd.DataFrame]]) -> pd.DataFrame:
    rows = [{**names, "baseline": name, **_score(cell), **({"low": None, "high": None} if name == "chance" else {})} for names, name, cell in cells]
    frame = style.ordered(pd.DataFrame(rows, columns=None if rows else ["model", "dataset", "group", "baseline"]), ("model", "dataset"))
    return frame.sort_values("baseline", key=lambda s: s.map(style.order("baseline").index), kind="stable").reset_index(drop=True)


def _sightless(predictions: Predictions, guesses: pd.DataFrame | None, references: pd.DataFrame | None) -> Cells:
    """What needs no sight of the picture, as cells whose method is the baseline: see `baselines`."""
    predictions, found, said = _once(predictions), dict[tuple[str, str, str, str], pd.DataFrame](), dict[tuple[str, str], pd.DataFrame]()
    for pictures in PICTURES:
        found |= {(key[0], pictures, *key[2:]): cell for key, cell in cells(predictions, test_pictures=pictures).items() if key[1] == "none"}
    for (model, dataset), cell in {(key[0], key[3]): cell for key, cell in cells(predictions).items()}.items():
        for name, words in _guessed(dataset, guesses).items():
            asked = cell["example_id"].to_numpy()
            if words.index.has_duplicates or not set(asked) <= set(words.index):
                raise ValueError(f"blind.parquet does not hold one answer of {name} to each question of {dataset} that was asked: collect the study again (python -m peftlab report)")
            if (dataset, name) not in said or not said[dataset, name].index.equals(pd.Index(asked)):  # several models are asked the same questions
                whole = _whole(dataset, references)
                said[dataset, name] = _judged(cell, words.loc[asked].set_axis(cell.index), whole=whole).set_axis(asked)
            judged = said[dataset, name]
            found[model, name, "frozen", dataset] = _instead(cell, value=judged["value"].to_numpy(), unparsed=(judged["outcome"] == "unparsed").to_numpy(dtype=float))
        if metrics.metric(cell["metric"].iloc[0]).is_share:  # a caption cannot be guessed
            found[model, "chance", "frozen", dataset] = _instead(cell, value=_chance(cell), unparsed=0.0)
    return found


def _guessed(dataset: str, guesses: pd.DataFrame | None) -> dict[str, pd.Series]:
    """What is said without a picture to a data set's questions, by baseline and example_id."""
    mine = guesses[guesses["tested_on"] == dataset] if guesses is not None and len(guesses) else pd.DataFrame(columns=["baseline"])
    return {name: rows.set_index("example_id")["response"] for name, rows in mine.groupby("baseline", sort=False)}


def _whole(dataset: str, references: pd.DataFrame | None) -> pd.DataFrame | None:
    """The questions of a whole test set, where they were kept."""
    rows = references[references["tested_on"] == dataset] if references is not None and len(references) else ()
    return rows if len(rows) else None


def bases(predictions: Predictions, *, guesses: pd.DataFrame | None = None, references: pd.DataFrame | None = None) -> pd.DataFrame:
    """What the untouched bases know: a row per model, data set and ``baseline``, which is "true" for the right pictures, else one of `baselines`.

    Empty where no base was asked under the right pictures.
    """
    columns = ["model", "dataset", "baseline", "group", "metric", "mean", "low", "high", "n", "unparsed"]
    predictions = _once(predictions)
    right = scores(predictions)
    right = right[right["method"] == "none"].assign(baseline="true") if len(right) else right
    if right.empty:
        return pd.DataFrame(columns=columns)
    others = right[["model", "dataset", "group"]].merge(baselines(predictions, guesses=guesses, references=references), on=["model", "dataset"])
    return style.ordered(pd.concat([part for part in (right, others) if len(part)])[columns], ("model", "dataset"))


def _judged(cell: pd.DataFrame, said: pd.Series, *, whole: pd.DataFrame | None = None) -> pd.DataFrame:
    """The questions of a cell judged by its metric, as though they had been answered with `said`."""
    return metrics.judge(cell[["choices", "answers", "template"]].assign(example_id=range(len(cell)), response=said), cell["metric"].iloc[0], whole=whole)


def _chance(cell: pd.DataFrame) -> pd.Series:
    """100 over the choices of a question; where it has none, over the different answers of its template."""
    first = cell["answers"].map(lambda answers: metrics.normalise(answers[0]))
    different = first.groupby(cell["template"]).transform("nunique")
    return 100.0 / cell["choices"].map(len).where(lambda n: n > 0, different)


def _differences(pairs: Iterable[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]], *, alike: bool = False) -> pd.DataFrame:
    rows = [{**names, **_row(d := stats.paired(a, b, "question_id", strata="tested_on", alike=alike)), "verdict": verdict(d), "metric": _only(a["metric"].unique())} for names, a, b in pairs]
    return _sorted(rows) if rows else pd.DataFrame(columns=["model", "method", "connector", "dataset", "mean", "low", "high", "n", "clusters", "verdict", "metric"])


def verdict(difference: stats.Interval) -> str:
    """``higher``, ``lower`` or ``not distinguishable`` from zero, by the interval."""
    return "not distinguishable" if not difference.excludes_zero else "higher" if difference.mean > 0 else "lower"


def _bare(found: Cells, key: tuple[str, str, str, str]) -> pd.DataFrame | None:
    """The cell of the untouched base that a model's cell is compared with, where it was asked."""
    return found.get((key[0], "none", "frozen", key[3]))


def to_base(predictions: Predictions, *, stage: str = "evaluate") -> pd.DataFrame:
    """Paired differences in points of every tuned model to the untouched base, on the same questions.

    Of a probe those on a quantised base too, each to the base of its own quantisation; there is a column quantisation where any is.
    """
    parts = _probes(predictions) if stage == "probe" else [({}, cells(predictions, stage=stage))]
    pairs = (({**_named(key), **more}, cell, base) for more, found in parts for key, cell in found.items() if key[1] != "none" and (base := _bare(found, key)) is not None)
    return _differences(pairs).pipe(style.ordered, PROBED)


def to_blind(predictions: Predictions, *, guesses: pd.DataFrame | None = None, references: pd.DataFrame | None = None) -> pd.DataFrame:
    """Paired differences to what needs no sight of the picture: a row per model, data set and ``baseline`` of `baselines` but chance.

    The untouched base is compared with itself under blank and under shuffled pictures; it and every tuned model, on the set it was tuned on, with what is said without a picture.
    """
    predictions = _once(predictions)
    blind, rows = _sightless(predictions, guesses, references), []
    for key, cell in cells(predictions).items():
        for name in style.order("baseline"):
            other = blind.get((key[0], name, "frozen", key[3]))
            if other is not None and name != "chance" and (key[1] == "none" or name not in PICTURES):
                difference = stats.paired(cell, other, "question_id", strata="tested_on")
                rows.append({**_named(key), "baseline": name, "group": group(key[0], key[3]), **_row(difference), "verdict": verdict(difference), "metric": _only(cell["metric"].unique())})
    return _sorted(rows) if rows else pd.DataFrame(columns=["model", "method", "connector", "dataset", "baseline", "group", "mean", "low", "high", "n", "clusters", "verdict", "metric"])


PICTURES = ("blank", "shuffled")  # baselines that are the base's own answers


def averages_to_base(predictions: Predictions) -> pd.DataFrame:
    """Like `to_base`, over the seen and the unseen data sets."""
    found = list(_groups(cells(predictions)))
    base = {(names["model"], names["group"]): cell for names, cell in found if names["method"] == "none"}
    pairs = ((names, cell, base.get((names["model"], names["group"]))) for names, cell in found if names["method"] != "none")
    return _differences(pair for pair in pairs if pair[2] is not None)


def averages_to_best(predictions: Predictions) -> pd.DataFrame:
    """Like `to_best`, over the seen and the unseen data sets, where there are several."""
    return _to_the_best([((n["model"], n["group"]), n, cell) for n, cell in _groups(cells(predictions)) if n["method"] != "none" and n["datasets"] > 1])


def to_shuffled(predictions: Predictions) -> pd.DataFrame:
    """Paired differences to the same method tuned with shuffled pictures: what the right pictures gave.

    A control of one seed is taken to vary between seeds as its method does. ``gain`` and ``control_gain`` are what the method and its control gained over the untouched base, in points; None where that was not asked.
    """
    predictions = _once(predictions)
    true, shuffled = cells(predictions), cells(predictions, train_pictures="shuffled")

    def gain(key: tuple[str, str, str, str], cell: pd.DataFrame) -> float | None:
        base = _bare(true, key)
        return None if base is None else stats.paired(cell, base, "question_id").mean

    pairs = (({**_named(key), "gain": gain(key, true[key]), "control_gain": gain(key, shuffled[key])}, true[key], shuffled[key]) for key in true if key in shuffled)
    return _differences(pairs, alike=True)


def to_frozen(predictions: Predictions) -> pd.DataFrame:
    """Paired differences of the connector tuned to the connector frozen, of the same method."""
    found = cells(predictions)
    frozen = {key: found.get((*key[:2], "frozen", key[3])) for key in found if key[2] == "tuned"}
    return _differences((_named(key), found[key], other) for key, other in frozen.items() if other is not None)


def to_full_precision(predictions: Predictions) -> pd.DataFrame:
    """Paired differences of a quantised base to one in full precision, of the same method and connector; column quantisation."""
    predictions = _once(predictions)
    full, found = cells(predictions), []
    for level in methods.QUANTISED:
        packed = cells(predictions, quantisation=level)
        found.append(_differences(({**_named(key), "quantisation": level}, packed[key], full[key]) for key in packed if key in full))
    return pd.concat(found, ignore_index=True)


def to_best(predictions: Predictions) -> pd.DataFrame:
    """Paired differences, on each data set, of every other tuned model to the one with the best mean, the highest unless its metric is better low."""
    return _to_the_best([((key[0], key[3]), _named(key), cell) for key, cell in cells(predictions).items() if key[1] != "none"])


ARMS = 10  # the most tuned models of a base, on a data set, that are all compared with each other: the best of the first base
GAINED = ("gained", "gained_low", "gained_high", "gained_verdict")


def between_models(predictions: Predictions) -> pd.DataFrame:
    """Paired differences, on each data set, of every base and of what was tuned on it to the same of the study's first base, ``first``, where that was asked the same; empty where it has one base.

    ``gained`` with its interval and verdict is the difference of what tuning added on each to its own untouched base: None of the bases themselves, or where one was not asked.
    """
    found, rows = cells(predictions), []
    first = next(iter(style.shown("model", {key[0] for key in found})), "")
    for key, cell in found.items():
        other = found.get((first, *key[1:]))
        if key[0] == first or other is None or not _asked_alike(cell, other):
            continue
        gains = [_gain(one, _bare(found, k)) for one, k in ((cell, key), (other, (first, *key[1:])))] if key[1] != "none" else [None]
        gained = None if any(gain is None for gain in gains) else stats.paired(*gains, "question_id", strata="tested_on")
        rows.append((_named(key) | {"first": first} | dict(zip(GAINED, _against(gained).values(), strict=True)), cell, other))
    return _differences(rows)


def _gain(cell: pd.DataFrame, bare: pd.DataFrame | None) -> pd.DataFrame | None:
    """What tuning added to each answer of the untouched base, and each seed's alone; None where the base was not asked the same."""
    if bare is None or not _asked_alike(cell, bare):
        return None
    base = bare.set_index("question_id")["value"].reindex(cell["question_id"]).to_numpy()
    return cell.assign(**{name: cell[name] - base for name in ("value", *stats.alone(cell))})


def between_methods(predictions: Predictions) -> pd.DataFrame:
    """Of several bases: paired differences, on each data set, of every two tuned models that all bases have, the ``other`` subtracted, a row for each base.

    Whether methods have the same order on every base is read off these, pair by pair: where a pair is higher on one and lower on another it has turned. Where
    more than `ARMS` were tuned on all bases, those that have the best means on the first one. Empty where the study has one base.
    """
    found = {key: cell for key, cell in cells(predictions).items() if key[1] != "none"}
    pairs = []
    for dataset in dict.fromkeys(key[3] for key in found):
        bases = style.shown("model", {key[0] for key in found if key[3] == dataset})
        arms = [key[1:3] for key in found if key[0] == bases[0] and key[3] == dataset]
        arms = [arm for arm in arms if all((model, *arm, dataset) in found for model in bases)]
        best = sorted(arms, key=lambda arm: -_sign(found[bases[0], *arm, dataset]) * found[bases[0], *arm, dataset]["value"].mean())[:ARMS]
        table = style.ordered(pd.DataFrame(best, columns=["method", "connector"]), ("method", "connector"))
        for one, other in combinations(table.itertuples(index=False, name=None), 2) if len(bases) > 1 else ():
            for model in bases:
                a, b = (found[model, *arm, dataset] for arm in (one, other))
                pairs.append(({**_named((model, *one, dataset)), "other": other[0], "other_connector": other[1]}, a, b))
    return _differences(pairs)


def _asked_alike(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Whether two cells hold answers to the same questions."""
    return len(a) == len(b) and set(a["question_id"]) == set(b["question_id"])


def _to_the_best(found: Sequence[tuple[Hashable, dict[str, Any], pd.DataFrame]]) -> pd.DataFrame:
    """Of cells with the place where they compete and their names: the differences of all others to the best of their place, each data set weighing the same."""
    best: dict[Hashable, tuple[float, pd.DataFrame]] = {}
    for place, _, cell in found:
        mean = _sign(cell) * float(cell.groupby("tested_on", observed=True)["value"].mean().mean())
        if place not in best or mean > best[place][0]:
            best[place] = mean, cell
    return _differences((names, cell, best[place][1]) for place, names, cell in found if cell is not best[place][1])


def _sign(cell: pd.DataFrame) -> int:
    """-1 where less is better."""
    return -1 if metrics.metric(cell["metric"].iloc[0]).higher_is_better is False else 1


def by_likelihood(predictions: Predictions) -> Averaged | None:
    """The answers to closed questions as though each had named the option that its model takes for the likeliest; None where that was not measured.

    What is lost of the form of answers costs nothing here, so that every estimate made of these tells what is known from how it is put.
    """
    given = closed(predictions)
    if given is None:
        return None
    rows, chosen, (numbers, own) = given.rows, given.counted, given.questions
    own = own.assign(choices=[_options(*one) for one in zip(own["choices"], own["options"], own["answers"], strict=True)], options=None)
    sizes = own["choices"].map(len).to_numpy()
    ends = np.cumsum(sizes)
    named = [np.eye(size)[place] for size in sizes for place in range(size)]  # each option of each question, taken for the likeliest
    each = pd.DataFrame(own[["choices", "answers", "template"]].iloc[np.repeat(np.arange(len(own)), sizes)]).assign(example_id=range(len(named)), response="", likelihoods=named)
    earned = metrics.judge(each, "likeliest")["value"].to_numpy()
    value = np.where(chosen, earned[np.where(chosen, (ends - sizes)[numbers] + rows["likeliest"].to_numpy(), 0)], np.nan)
    known = {"metric": "likeliest", "outcome": "right"}  # none is unparsed
    constant = {name: pd.Categorical.from_codes(np.zeros(len(rows), dtype=np.int8), pd.Index([level])) for name, level in known.items()}
    return Averaged(rows.assign(value=value, **constant), of=chosen, questions=given.questions)


def closed(predictions: Predictions) -> Averaged | None:
    """The answers to the closed questions that `by_likelihood` is of, as they were given; None where there are none."""
    rows = _rows(predictions)
    if "likeliest" not in rows or not (rows["likeliest"] >= 0).any():
        return None
    numbers, own = _once(predictions).questions
    taught = np.array([len(_options(*one)) > 0 for one in zip(own["choices"], own["options"], own["answers"], strict=True)])
    chosen = (rows["likeliest"] >= 0).to_numpy() & taught[numbers]
    return Averaged(rows, of=chosen, questions=(numbers, own)) if chosen.any() else None


def _options(choices: tuple[str, ...], options: Any, answers: tuple[str, ...]) -> Sequence[str]:
    """What the likelihoods of a question's answers are of, as `metrics.weighed` says; a study made before there were options has none."""
    return metrics.weighed(choices, options if isinstance(options, tuple) else None, answers)


def likeliest(predictions: Predictions) -> pd.DataFrame:
    """A row per model, method, connector and data set: accuracy of the likeliest option with interval, n, and two paired differences.

    ``difference`` is to the untouched base, ``control`` to the same method tuned with shuffled pictures, each with _low, _high and its verdict.
    """
    columns = [*CELL, "mean", "low", "high", "n", "clusters", *DIFFERENCE, *CONTROL]
    once = by_likelihood(predictions)
    if once is None:
        return pd.DataFrame(columns=columns)
    found, shuffled, rows = once.cells(), once.cells(train_pictures="shuffled"), []
    for key, cell in found.items():
        base = _bare(found, key) if key[1] != "none" else None
        differences = [stats.paired(cell, other, "question_id", alike=other is not base) if other is not None else None for other in (base, shuffled.get(key))]
        rows.append({**_named(key), **_score(cell), **_against(differences[0]), **dict(zip(CONTROL, _against(differences[1]).values(), strict=True))})
    return _sorted(rows)[columns] if rows else pd.DataFrame(columns=columns)


def tally(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """How many differences of each data set are higher, lower and not distinguishable, and how many there are."""
    words = ("higher", "lower", "not distinguishable")
    return {d: {w: int((rows["verdict"] == w).sum()) for w in words} | {"all": len(rows)} for d, rows in frame.groupby("dataset", sort=False)}


# ---------------------------------------------------------------- forgetting

ARM = ["model", "quantisation", "precision", "method", "connector", "dataset"]
MEANS = ("A_S", "A_T", "H", "O")  # source and target mean, their harmonic and arithmetic mean (Huang et al. 2025)


def forgetting(predictions: Predictions, *, sources: Sequence[str] | None = None) -> pd.DataFrame:
    """What tuning on a data set left of the others: a row per tuned model and part, with the bare base's value and the paired difference to it.

    A ``part`` is a data set tested on, or one of `MEANS`: A_S over the seen sets other than the target, A_T on the target, H and O of the
    two; each is given only where all it needs was asked and goes from 0 to 100. ``kind`` is target, seen, unseen or mean. Columns: those
    of `ARM`, mean, low, high, n, clusters, metric, base, difference, difference_low, difference_high, verdict. The base (method none) has
    rows of its own for every target. It is the bare one of the model's own precision and quantisation, whatever run it was asked in.
    Intervals of H are by the delta method. With `sources` A_S is over these sets instead of the seen ones, again without the target, and a column
    ``sources`` names them, parted by blanks. Raises ValueError where one of them is no data set, or was never asked.
    """
    once = _once(predictions)
    for name in sources or ():
        if datasets.card(name).name not in once.tested_on:
            raise ValueError(f"A_S is to be over {name}, on which no model of this study was tested: `sources` in the grid names sets that are a test_dataset of it")
    right, none = _is(once.rows, stage="evaluate", test_pictures="true", train_pictures="true"), _is(once.rows, method="none")
    bare: dict[tuple[str, ...], list[_Asked]] = {}
    for key, one in _each(once, right & none, [*ARM[:3], "tested_on", "dataset", "test_size"]):
        bare.setdefault(key[:4], []).append(one)
    tuned: dict[tuple[str, ...], dict[str, _Asked]] = {}
    for key, one in _each(once, right & ~none, [*ARM, "tested_on"]):
        tuned.setdefault(key[:-1], {})[key[-1]] = one
    found, told = [], set[tuple[str, ...]]()
    for key, asked in tuned.items():
        if set(asked) - {key[-1]}:
            base = {name: _same_questions(one, bare[*key[:3], name]) for name, one in asked.items() if (*key[:3], name) in bare}
            found += _left(dict(zip(ARM, key)), asked, base, told, sources or models.card(key[0]).seen)
    if not found:
        return pd.DataFrame(columns=[*ARM, "part", "kind", "mean", "low", "high", "n", "clusters", "metric", "base", *DIFFERENCE])
    frame = style.ordered(pd.DataFrame(found), ("model", "quantisation", "dataset", "method", "connector"))
    return frame.assign(sources=" ".join(sources)) if sources else frame


@dataclass(frozen=True)
class _Asked:
    """What one model earned on one data set: a whole number for each question, its picture and asset, and the value of its answer."""

    question: np.ndarray
    picture: np.ndarray
    asset: np.ndarray
    value: np.ndarray
    metric: str
    names: pd.Index  # of the questions, by their numbers
    seeds: dict[str, float]  # the mean of each seed's answers alone, where there are several
    known: dict[bytes, stats.Ways]  # of the questions that several models were asked, in their order

    def ways(self, order: np.ndarray | None = None) -> stats.Ways:
        """The questions' clusters, in their own order or in another."""
        question, picture, asset = (column if order is None else column[order] for column in (self.question, self.picture, self.asset))
        if (key := question.tobytes()) not in self.known:
            self.known[key] = stats.Ways(picture, asset)
        return self.known[key]


def _each(once: Averaged, chosen: np.ndarray, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], _Asked]]:
    """The cells of `Averaged.average` as arrays: there are many."""
    merged, places = once.average(chosen, by)
    if places:
        columns = [merged[name].cat.codes.to_numpy() for name in ("question_id", "picture_id", "asset")] + [merged["value"].to_numpy()]
        (seeds, alone), known = stats.by_seed(merged), dict[bytes, stats.Ways]()
        named, metric = merged["question_id"].cat.categories, merged["metric"].astype(object).to_numpy()
        for key, place in places.items():
            yield key, _Asked(*(column[place] for column in columns), metric[place.start], named, dict(*stats.seed_means(seeds, alone[:, place])), known)


def _same_questions(one: _Asked, others: list[_Asked]) -> _Asked:
    """The one of `others` that was asked the same questions; the first where none was, which a comparison then refuses."""
    if len(others) == 1:
        return others[0]
    asked = np.sort(one.question)
    return next((other for other in others if np.array_equal(np.sort(other.question), asked)), others[0])


def _left(names: dict[str, str], asked: dict[str, _Asked], base: dict[str, _Asked], told: set[tuple[str, ...]], sources: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of one tuned model, and those of the base for the same target that are not yet `told`; A_S is over `sources` other than the target."""
    target = names["dataset"]
    shares = [name for name, one in asked.items() if metrics.metric(one.metric).is_share]
    source = [name for name in sources if name != target]
    whole = bool(source) and set(source) <= set(shares)
    parts = {name: ("target" if name == target else group(names["model"], name), [name], "A_T") for name in asked}
    parts |= {"A_S": ("mean", source, "A_S")} if whole else {}
    parts |= {"A_T": ("mean", [target], "A_T")} if target in shares else {}
    parts |= {m: ("mean", [*source, target], m) for m in ("H", "O")} if whole and target in shares else {}
    for part, (kind, sets, how) in parts.items():
        fixed = {"part": part, "kind": kind, "metric": asked[part].metric if part in asked else None}
        mine, other = _mean_of(asked, sets, how), _mean_of(base, sets, how) if set(sets) <= set(base) else None
        more = {"base": other.estimate if other else None, **_against(_difference(mine, other) if other else None)}
        bare = {**names, "method": "none", "connector": "frozen"}
        if other is not None and (*bare.values(), part) not in told:
            told.add((*bare.values(), part))
            yield {**bare, **fixed, **_cut(other), **dict.fromkeys(more)}
        yield {**names, **fixed, **_cut(mine), **more}


@dataclass(frozen=True)
class _Estimate:
    """A function of the means of data sets; `share` is what each of the questions of `asked` adds to its error."""

    estimate: float
    share: np.ndarray
    asked: _Asked
    most: float | None
    seeds: dict[str, float]  # the estimate from each seed's answers alone, where there are several


def _mean_of(asked: dict[str, _Asked], sets: list[str], how: str) -> _Estimate:
    """A_T or A_S: the mean of the sets' means; H and O: the harmonic and arithmetic mean of that of all but the last, and the last's."""
    parts = [asked[name] for name in sets]
    means = [one.value.mean() for one in parts]
    estimate, slopes = _function(means, how)
    common = [seed for seed in parts[0].seeds if all(seed in one.seeds for one in parts)]  # one model a seed, asked about all the sets
    alone = np.array([[one.seeds[seed] for seed in common] for one in parts])  # (sets, seeds)
    seeds = dict(zip(common, _function(alone, how)[0].tolist(), strict=True)) if common else {}
    shares = []
    for i, (one, mean) in enumerate(zip(parts, means, strict=True)):
        slope = 1 / len(sets) if slopes is None else slopes[1] if i == len(sets) - 1 else slopes[0] / (len(sets) - 1)
        shares.append(slope * (one.value - mean) / len(one.value))
    most = _most(one.metric for one in parts)
    if len(parts) == 1:
        return _Estimate(float(estimate), shares[0], parts[0], most, seeds)
    columns = {name: np.concatenate([getattr(one, name) for one in parts]) for name in ("question", "picture", "asset", "value")}
    return _Estimate(float(estimate), np.concatenate(shares), replace(parts[0], **columns), most, seeds)


def _function(means: Sequence[float] | np.ndarray, how: str) -> tuple[Any, tuple[Any, Any] | None]:
    """What `_mean_of` makes of the sets' means, (sets,) or (sets, seeds), and of H and O how it changes with the first part and with the last."""
    if how not in ("H", "O"):
        return np.mean(means, axis=0), None
    first, last = np.mean(means[:-1], axis=0) if len(means) > 1 else means[0], means[-1]
    if how == "O":
        return (first + last) / 2, (0.5, 0.5)
    total = np.asarray(first + last)
    some = np.where(total == 0, 1, total)  # of nothing the harmonic mean is nothing, and both slopes
    return 2 * first * last / some, (2 * (last / some) ** 2, 2 * (first / some) ** 2)


def _cut(one: _Estimate) -> dict[str, Any]:
    return _within(_row(stats.linear(one.estimate, one.share, one.asked.ways(), seeds=[list(one.seeds.values())])), one.most)


def _difference(a: _Estimate, b: _Estimate) -> stats.Interval:
    """Of two estimates over the same questions; ValueError where a question is in one only."""
    left, right = (np.argsort(one.asked.question, kind="stable") for one in (a, b))
    mine, others = a.asked.question[left], b.asked.question[right]
    if not np.array_equal(mine, others):
        lone = np.setxor1d(mine, others)
        raise ValueError(f"question {a.asked.names[lone[0]]!r} was asked of one of the two only ({len(lone)} of {len(np.union1d(mine, others))} were): compare the same questions")
    seeds = stats.contrast(a.seeds, b.seeds)
    return stats.linear(a.estimate - b.estimate, a.share[left] - b.share[right], a.asked.ways(left), seeds=seeds)


def text_forgetting(texts: pd.DataFrame) -> pd.DataFrame:
    """What tuning left of the language alone: a row per model, perplexity of fixed passages with its interval, and the difference to the bare base.

    `texts` has a row per run and passage: nats and tokens. The difference is in nats per token, paired by passage. Raises ValueError where
    the rows of a model mix levels of another axis.
    """
    names = [*ARM, "mean", "low", "high", "n", "clusters", *DIFFERENCE]
    if texts.empty:
        return pd.DataFrame(columns=names)
    rows = texts[texts["train_pictures"] == "true"]
    cell, first = _grouped(rows, ARM)
    _refuse_mixed(rows, cell, first, [" / ".join(map(str, key)) for key in rows[ARM].iloc[first].itertuples(index=False)])
    rows = rows.assign(dataset=rows["dataset"].where(rows["method"] != "none"))  # the base is tuned on none
    each = rows.groupby([*ARM, "passage"], sort=False, dropna=False)[["nats", "tokens"]].mean().reset_index("passage")  # over seeds, and over stages that measured the same model
    parts = [(key, part.sort_values("passage")) for key, part in each.groupby(ARM, sort=False, dropna=False)]
    bare, found = {key[:3]: part for key, part in parts if key[3] == "none"}, []
    for key, mine in parts:
        nats, tokens, ways = mine["nats"].to_numpy(), mine["tokens"].to_numpy(), stats.Ways(mine["passage"])
        rate = nats.sum() / tokens.sum()
        level = stats.linear(rate, (nats - rate * tokens) / tokens.sum(), ways)
        row = {**dict(zip(ARM, key)), **{name: None if x is None else float(np.exp(x)) for name, x in (("mean", level.mean), ("low", level.low), ("high", level.high))}}
        row |= {"n": int(tokens.sum()), "clusters": len(mine), **_against(None)}
        if key[3] != "none" and (base := bare.get(key[:3])) is not None:
            more = nats - base.set_index("passage")["nats"].reindex(mine["passage"]).to_numpy()
            change = more.sum() / tokens.sum()
            row |= _against(stats.linear(change, (more - change * tokens) / tokens.sum(), ways))
        found.append(row)
    return style.ordered(pd.DataFrame(found), ("model", "quantisation", "dataset", "method", "connector"))


# ---------------------------------------------------------------- hallucination

PROBED = ("model", "quantisation", "dataset", "method", "connector")  # the order of the rows of a probe


def _probes(predictions: Predictions) -> list[tuple[dict[str, str], Cells]]:
    """The cells of the probe by quantisation of the base, full precision first; where any is quantised, the level as a column."""
    once = _once(predictions)
    found = {level: mine for level in ("none", *methods.QUANTISED) if (mine := once.cells("probe", quantisation=level))}
    return [({"quantisation": level} if set(found) != {"none"} else {}, mine) for level, mine in found.items()]


def one_quantisation(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that a figure can hold together: those on a base in full precision, or of the first level that there is, and those of no base."""
    if "quantisation" not in frame:
        return frame
    level = next((level for level in style.order("quantisation") if level in set(frame["quantisation"])), None)
    return frame[frame["quantisation"].isna() | (frame["quantisation"] == level)].reset_index(drop=True)


def hallucination(predictions: Predictions) -> pd.DataFrame:
    """A row per model tuned on a data set: accuracy with interval, precision, recall, F1, yes rate, n, unparsed.

    ``affirmed`` is the share of questions about absent things that got a yes, with its interval, and ``difference`` the paired one to the
    untouched base on them: what is hallucinated, where accuracy also falls by denying what is there or by losing the form. An answer that cannot be read
    is no yes: ``affirmed_read`` is the share of the ``absent_read`` answers about absent things that can be (None of none).
    The untouched base is one row (data set None), and always answering yes another (method None). Where bases are quantised there is a column
    quantisation (None where yes is always said); each has its own row, which models on it are compared with. Of several seeds the answers are averaged by question, and
    precision, recall, F1 and yes rate are the means of those of each seed, None where one has none. Raises ValueError where a model's rows mix levels of another axis.
    """
    once, rows, always = _once(predictions), [], {}
    whole = once.rows
    for more, found in _probes(once):  # refuses what is no one comparison
        right = _probed(once, more)
        rows += _models(once, right, found, more)
        places = np.flatnonzero(right)
        bases, runs = (whole[name].iloc[places].to_numpy() for name in ("model", "run"))
        for model in pd.unique(bases):
            mine, chosen = bases == model, np.zeros(len(whole), dtype=bool)
            chosen[places[mine & (runs == runs[mine.argmax()])]] = True
            always.setdefault(model, _always(_plain(whole, chosen, list(whole.columns)), more) | dict.fromkeys(more))
    rows += always.values()
    return pd.DataFrame(rows).pipe(style.ordered, PROBED) if rows else pd.DataFrame()


def _probed(once: Averaged, more: dict[str, str]) -> np.ndarray:
    """Which rows are answers to the study's questions of yes or no, of bases of one quantisation."""
    return once.counted & _is(once.rows, stage="probe", tested_on=yes_no(once), train_pictures="true", quantisation=more.get("quantisation", "none"))


def _models(once: Averaged, right: np.ndarray, found: Cells, more: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each model that was probed on bases of one quantisation: its cell of `found`, and what it affirms, alone and beside its base; `right` are the rows of all."""
    whole, places, (numbers, own) = once.rows, np.flatnonzero(right), once.questions
    asked, there = np.unique(numbers[places]), np.zeros(len(own), dtype=bool)
    there[asked] = metrics.right_to_affirm(own.iloc[asked])
    yes, true = (whole["parsed"] == "yes").to_numpy(), there[numbers]
    absent = Averaged(whole.assign(value=100.0 * yes), of=right & ~true, questions=once.questions).cells("probe", quantisation=more.get("quantisation", "none"))
    bare: dict[str, pd.DataFrame] = {}
    for model, cell in ((key[0], cell) for key, cell in absent.items() if key[1] == "none"):
        bare.setdefault(model, cell)
    rows = []
    for key, each in _by_seed(whole, places):
        read = np.concatenate(each)
        read = read[~true[read] & (whole["outcome"].iloc[read] != "unparsed").to_numpy()]
        names = _named(key) | ({"dataset": None} if key[1] == "none" else {}) | more
        row = {**names, **_score(found[key]), **{name: _of_seeds(values) for name, values in metrics.shares_of_yes(yes, true, each).items()}}
        row |= {"affirmed_read": float((100.0 * yes[read]).mean()) if len(read) else None, "absent_read": len(read)}
        share = _within(_row(_mean(absent[key])), 100.0)
        row |= {"affirmed": share["mean"], "affirmed_low": share["low"], "affirmed_high": share["high"], "absent": share["n"]}
        row |= _against(stats.paired(absent[key], bare[key[0]]) if key[1] != "none" and key[0] in bare else None)
        rows += [] if key[1] == "none" and row in rows else [row]
    return rows


def _by_seed(rows: pd.DataFrame, places: np.ndarray) -> Iterator[tuple[tuple[str, str, str, str], list[np.ndarray]]]:
    """Of the rows at `places` those of each cell, apart by seed."""
    (cell, first), (seed, _) = _grouped(rows, CELL, places), _grouped(rows, ["seed"], places)
    order = np.lexsort((seed, cell))
    ends = np.flatnonzero(np.diff(cell[order])) + 1
    for key, mine in zip(rows[list(CELL)].iloc[places[first]].astype(object).itertuples(index=False, name=None), np.split(order, ends), strict=True):
        yield key, np.split(places[mine], np.flatnonzero(np.diff(seed[mine])) + 1)


def _always(rows: pd.DataFrame, more: dict[str, str]) -> dict[str, Any]:
    """The row of always saying yes to the questions of a run."""
    once = Averaged(metrics.judge(rows.drop(columns=["outcome"]).assign(response="yes"), "yes_no"))
    [row] = _models(once, once.counted, once.cells("probe", quantisation=more.get("quantisation", "none")), more)
    by_design = dict.fromkeys(("low", "high", "affirmed_low", "affirmed_high"))
    return row | dict.fromkeys(("method", "connector", "dataset")) | by_design | _against(None)


def _of_seeds(values: Sequence[float | None]) -> float | None:
    return None if None in values else values[0] if len(values) == 1 else float(np.mean(values))


def by_kind(predictions: Predictions) -> pd.DataFrame:
    """Accuracy of the probe per kind of thing asked about (template), model, method, connector and data set tuned on, and quantisation where any is."""
    rows = []
    for more, (key, cell) in ((more, one) for more, found in _probes(predictions) for one in found.items()):
        for kind, part in cell.groupby("template", sort=False):
            row = {**_named(key), **more, **_score(part), "kind": kind} | ({"dataset": None} if key[1] == "none" else {})
            rows += [] if key[1] == "none" and row in rows else [row]
    return pd.DataFrame(rows).pipe(style.ordered, PROBED) if rows else pd.DataFrame()


CAPTIONS = ("scene_captions", "clean_captions")  # probes by captions of scenes
LEAST_CLEAN = 100  # pictures that the base captions without an error, for a share of them to be said: as in Zhou et al. 2024
MENTIONS = ("named", "invented", "recalled", "present")  # how many things of a caption are so: `metrics.mentions`
DESCRIBED = ("chair_i", "object_recall", "words", "silent")  # what CHAIR-s must be read beside: a caption that names nothing cannot err
INVENTED = [
    "tested_on", *ARM, "steps", "mean", "low", "high", "n", "clusters", "unparsed", *DIFFERENCE,
    *(f"{name}{bound}" for name in DESCRIBED for bound in ("", "_low", "_high")), *(f"silent_{name}" for name in DIFFERENCE),
    "clean", "least_clean", *(f"{name}{bound}" for name in ("broken", "silenced") for bound in ("", "_low", "_high")),
]  # fmt: skip


def invented(predictions: Predictions, *, vocabularies: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """Captions of scenes that name what is not there: a row per probe (`CAPTIONS`, as ``tested_on``), model and number of steps taken when it was probed.

    With `vocabularies`, by data set (`collected.Results.vocabularies`), the captions that models gave as answers are read too where a set has one.

    ``mean`` is CHAIR-s with its interval; ``difference`` the paired one to the bare base of the same precision. Beside it stand CHAIR-i, the share
    of the things there that are named, the length in words and the share of captions that name nothing (``silent``), each with its interval, and
    the paired difference of the last to the base: a model that stops describing invents nothing. ``clean`` counts the pictures whose
    caption by the base names something and nothing that is not there; ``broken`` is the share of these whose caption names what is not there now, by the
    protocol of Zhou et al. (2024, section 5.5), and ``silenced`` that of those whose caption names nothing: None on fewer than ``least_clean``. The
    base has none by choice of the pictures, so that the share holds what any other model would get wrong there: the difference on all pictures does not.
    Several seeds are averaged by picture, CHAIR-i and the share of things named taken over the captions of all; the base is without an error where it is so
    under each. Raises ValueError where a row's captions mix levels of another axis, or where a picture is captioned twice under one seed.
    """
    rows = _read_captions(_rows(predictions), vocabularies or {})
    if rows.empty:
        return pd.DataFrame(columns=INVENTED)
    captions, places = Averaged(rows).average(np.ones(len(rows), dtype=bool), ["tested_on", *ARM, "taken"], also=(*MENTIONS, "words", "silent"))
    made = {key: captions.iloc[place] for key, place in places.items()}
    parts: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    for key, mine in made.items():
        if key[4] == "none":
            parts.setdefault(key[:4], []).append(mine)
    bare = {key: pd.concat(several).drop_duplicates("example_id") for key, several in parts.items()}
    found = []
    for key, mine in made.items():
        level = _within(_row(_mean(mine)), 100.0)
        unparsed = mine["unparsed"].sum() if mine["seeds"].iloc[0] > 1 else int(mine["unparsed"].sum())
        row = {**dict(zip(["tested_on", *ARM, "steps"], key)), **level, "unparsed": unparsed, **_described(mine)}
        base = bare.get(key[:4])
        if base is not None and key[4] != "none":
            quiet = _against(stats.paired(_instead(mine, value=mine["silent"]), _instead(base, value=base["silent"])))
            row |= {**_against(stats.paired(mine, base)), **{f"silent_{name}": value for name, value in quiet.items()}}
            row |= _broken(mine[mine["example_id"].isin(base.loc[(base["value"] == 0) & (base["silent"] == 0), "example_id"])])
        found.append(row)
    frame = pd.DataFrame(found).reindex(columns=INVENTED)
    frame = frame.assign(dataset=frame["dataset"].where(frame["method"] != "none"))
    return style.ordered(frame.drop_duplicates(["tested_on", *ARM, "steps"]), ("model", "quantisation", "dataset", "method", "connector"))


def broken(invented: pd.DataFrame) -> pd.DataFrame:
    """The rows of `invented` that say what became of the captions in which the base made no error; none where the base made too few anywhere."""
    rows = invented[invented["clean"].notna()] if len(invented) else invented
    return rows if len(rows) and (rows["clean"] >= rows["least_clean"]).any() else rows.iloc[:0]


def _read_captions(whole: pd.DataFrame, vocabularies: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The captions among a study's answers: ``taken``, the steps when the model was probed, `MENTIONS`, ``words``, and ``silent``, 100 where nothing is named."""
    right = _is(whole, stage="probe", train_pictures="true") & whole["tested_on"].isin(CAPTIONS).to_numpy(dtype=bool)
    names = list(dict.fromkeys([*QUESTION, *ARM, *HELD, "probe_step", "seed", "metric", "objects", "response", *answers.JUDGED]))
    parts = [_plain(whole, right, names)]
    for name in (name for name in metrics.BESIDE if name in vocabularies):  # judged by another metric: again by what they name, run by run
        right = _is(whole, stage="evaluate", train_pictures="true", test_pictures="true", tested_on=name)
        mine = _plain(whole, right, [*names, "run", "test_size"]).assign(probe_step=np.nan)
        parts += [metrics.judge(one, "chair_s", vocabulary=vocabularies[name]) for _, one in mine.groupby(["run", "test_size"], sort=False, dropna=False)]
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    if rows.empty:
        return rows
    taken = pd.to_numeric(rows["probe_step"]).fillna(rows["steps"]).astype(int) if "probe_step" in rows else rows["steps"]  # of one training, probed after several steps
    words = [float(len((metrics.parse(text, name="caption_words") or "").split())) for text in rows["response"]]
    return rows.assign(**metrics.mentions(rows), taken=taken, words=words, silent=100.0 * rows["parsed"].fillna("").eq(""))


def _described(captions: pd.DataFrame) -> dict[str, Any]:
    """Of captions: CHAIR-i, recall, length and the share that names nothing, each of `DESCRIBED` with its bounds; None where it is undefined."""
    clusters = (captions["picture_id"], captions["asset"])
    found = {
        "chair_i": _of_all(captions["invented"], captions["named"], *clusters),
        "object_recall": _of_all(captions["recalled"], captions["present"], *clusters),
        **{name: stats.interval(captions[name], *clusters) for name in ("words", "silent")},
    }
    return _bounds({name: estimate for name, estimate in found.items() if estimate is not None})


def _of_all(part: pd.Series, whole: pd.Series, *clusters: pd.Series) -> stats.Interval | None:
    """The ratio of two sums in per cent, with its interval by the delta method; None of nothing."""
    total = whole.sum()
    share = 100 * part.sum() / total if total else 0.0
    return stats.linear(float(share), (100 * part - share * whole) / total, stats.Ways(*clusters)) if total else None


def _broken(clean: pd.DataFrame) -> dict[str, Any]:
    """Of pictures that the base captions without an error: how many, and the shares that name what is not there, or nothing, where they are enough."""
    enough = len(clean) >= LEAST_CLEAN
    shares = {"broken": _mean(clean), "silenced": stats.interval(clean["silent"], clean["picture_id"], clean["asset"])} if enough else {}
    return {"clean": len(clean), "least_clean": LEAST_CLEAN, **_bounds(shares)}


def _bounds(estimates: dict[str, stats.Interval]) -> dict[str, Any]:
    """Estimates by name as columns, cut at what they can be: name, name_low, name_high."""
    cut = {name: _within(_row(estimate), None if name == "words" else 100.0) for name, estimate in estimates.items()}
    return {f"{name}{bound}": row[key] for name, row in cut.items() for bound, key in (("", "mean"), ("_low", "low"), ("_high", "high"))}


def unchanged(predictions: Predictions) -> pd.DataFrame:
    """How often an answer stays what it was when the picture is blank or another: a row per model and ``pictures``, in per cent with its interval.

    Answers are compared as they were read, unparsed ones to the letter, and beside that (``likeliest``, of ``likeliest_n`` closed questions) the options
    that the model takes for the likeliest: a model that finds many words for one thought, or none that can be read, changes its answers more easily than its
    mind. What stays need not have come from the picture. ``difference`` and ``likeliest_difference`` are the paired ones to the bare base of the same
    precision, tested on the same questions.
    """
    once = _once(predictions)
    rows = once.rows
    places = np.flatnonzero(_is(rows, stage="evaluate", train_pictures="true") & _same(rows["tested_on"], rows["dataset"]))
    mine = rows[[*ARM, "seed", "test_pictures", "parsed", "response"]].iloc[places]
    arm, first = _grouped(mine, ARM)
    keys = [tuple(key) for key in mine[ARM].iloc[first].astype(object).itertuples(index=False)]
    numbers, own = once.questions
    question, seed, parsed = numbers[places], pd.factorize(_codes(mine["seed"]))[0], _codes(mine["parsed"]).astype(np.int64)
    said = np.where(parsed >= 0, parsed, parsed.max(initial=-1) + 1 + _codes(mine["response"]))
    given = closed(once)
    chosen = np.where(given.counted, rows["likeliest"], -1)[places] if given else np.full(len(places), -1)
    asked = (arm * len(own) + question) * (seed.max(initial=0) + 1) + seed
    true, pairs = np.flatnonzero(_is(mine, test_pictures="true")), {}
    for pictures in ("blank", "shuffled"):
        other = np.flatnonzero(_is(mine, test_pictures=pictures))
        for one in (true, other):
            if len(other) and pd.Series(asked[one]).duplicated().any():
                raise ValueError("a question was asked twice of one model under the same pictures: a study asks each once")
        where = pd.Index(asked[other]).get_indexer(asked[true])
        pairs[pictures] = true[where >= 0], other[where[where >= 0]]

    def shares(said: np.ndarray) -> dict[tuple[str, ...], pd.DataFrame]:
        """For each model and kind of pictures the questions with the share of seeds, in per cent, at which what was said (a number; none below zero) stays."""
        each = {}
        for pictures, (there, then) in pairs.items():
            known = (said[there] >= 0) & (said[then] >= 0)
            there, then = there[known], then[known]
            same = pd.DataFrame({"arm": arm[there], "question": question[there], "value": 100.0 * (said[there] == said[then])})
            for number, part in same.groupby(["arm", "question"], sort=False)["value"].mean().reset_index().groupby("arm", sort=False):
                each[*keys[number], pictures] = own[["question_id", "picture_id", "asset"]].iloc[part["question"]].assign(value=part["value"].to_numpy())
        return each

    def level(each: dict[tuple[str, ...], pd.DataFrame], key: tuple[str, ...], pictures: str) -> dict[str, Any]:
        if (cell := each.get((*key, pictures))) is None:
            return dict.fromkeys(("mean", "low", "high", "n", "clusters", *DIFFERENCE))
        base = each.get((*key[:3], "none", "frozen", key[5], pictures)) if key[3] != "none" else None
        share = _within(_row(stats.interval(cell["value"], cell["picture_id"], cell["asset"])), 100.0)
        return {**share, **_against(None if base is None else stats.paired(cell, base, "question_id"))}

    found, each, likely = [], shares(said), shares(chosen)
    for key, pictures in ((key, pictures) for key in keys for pictures in ("blank", "shuffled") if (*key, pictures) in each):
        beside = level(likely, key, pictures)
        beside = {"likeliest" + ("" if name == "mean" else f"_{name}"): value for name, value in beside.items() if name != "clusters"}
        found.append({**dict(zip(ARM, key)), "pictures": pictures, **level(each, key, pictures), **beside})
    return _sorted(found) if found else pd.DataFrame(columns=[*ARM, "pictures", "mean", "low", "high", "n", "clusters", *DIFFERENCE])


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per machine, model, method, connector and quantisation: runs, seconds, peak memory, what trains, adapter bytes.

    Seconds are the median with the least and the most; memory is the most, that of a GPU in a column of its own where there was one. Trainable parameters are by tower.
    """
    by = ["device", "processor", "model", "method", "connector", "quantisation"]
    if rows.empty:
        return pd.DataFrame(columns=by)
    rows = rows[rows["train_pictures"] == "true"]
    trainable = [c for c in ("trainable_vision", "trainable_connector", "trainable_llm") if c in rows]
    totals = [c for c in rows if c.startswith("total_")]
    rows = rows.assign(trainable=rows[trainable].fillna(0).sum(axis=1), total=rows[totals].fillna(0).sum(axis=1) if totals else rows.get("total"))
    towers = {c: (c, "first") for c in (*trainable, "trainable", "total")}
    seconds = {"seconds": ("seconds", "median"), "least_seconds": ("seconds", "min"), "most_seconds": ("seconds", "max")}
    peaks = {"peak_device_bytes": ("peak_device_bytes", "max")} if rows.get("peak_device_bytes", pd.Series()).notna().any() else {}
    frame = rows.groupby(by, sort=False, dropna=False).agg(
        runs=("run", "nunique"), steps=("steps", "max"), **seconds, **peaks, peak_memory_bytes=("peak_memory_bytes", "max"), adapter_bytes=("adapter_bytes", "max"), **towers
    )
    frame["share"] = 100 * frame["trainable"] / frame["total"]
    return style.ordered(frame.reset_index(), ("model", "method", "connector"))


def unfit(failures: pd.DataFrame) -> pd.DataFrame:
    """What did not fit in memory: a row per kind of stage, with its runs, whether a GPU's memory ran out, bytes of that memory, and of it free where that is known.

    `failures` are those of `collected.Results`; no rows where everything fitted.
    """
    by = ["stage", "model", "method", "connector", "dataset", "quantisation", "precision", "batch_size", "checkpointing", "device", "processor", "of_gpu"]
    columns = [*by, "memory_bytes", "free_bytes", "runs"]
    if failures.empty:
        return pd.DataFrame(columns=columns)
    gpu = failures["of_gpu"].eq(True)
    rows = failures.assign(of_gpu=gpu, memory_bytes=failures["memory_bytes"].mask(gpu, failures["device_memory_bytes"]), free_bytes=failures["free_bytes"].mask(gpu))
    frame = rows.groupby(by, sort=False, dropna=False).agg(memory_bytes=("memory_bytes", "max"), free_bytes=("free_bytes", "max"), runs=("run", "nunique"))
    return style.ordered(frame.reset_index()[columns], ("model", "dataset", "method", "connector"))


def bought(costs: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """`costs` with what was got for them: group, mean, low, high and n over the unseen data sets, or the seen where there are no others."""
    predictions, levels = _once(predictions), costs["quantisation"].unique()
    found = pd.concat([averages(predictions, quantisation=level).assign(quantisation=level) for level in levels])
    group = "unseen" if "unseen" in set(found["group"]) else "seen"
    key = ["model", "method", "connector", "quantisation"]
    return costs.merge(found.loc[found["group"] == group, [*key, "group", "mean", "low", "high", "n"]], on=key, how="left")


def definitions(predictions: Predictions, rows: pd.DataFrame) -> pd.DataFrame:
    """A row per method of the study: size, learning rates, what trains in the LLM, whether it starts as the base."""
    whole, found, spent = _rows(predictions), [], costs(rows)
    about = whole[["method", "connector", "size", "lr", "connector_lr"]]
    about = about.iloc[_grouped(about, list(about))[1]].astype(object)
    for method in style.shown("method", about["method"]):
        card, mine = methods.card(ways.method(method)), about[about["method"] == method]
        one = {axis: _only(mine[axis].unique()) for axis in ("size", "lr")}
        rate = _only(mine.loc[mine["connector"] == "tuned", "connector_lr"].unique())
        llm = spent.loc[spent["method"] == method, "trainable_llm"].max() if "trainable_llm" in spent else None
        found.append({"method": method, "size_name": card.size_name, **one, "connector_lr": rate, "trainable_llm": llm, "identity": card.identity, "paper": card.paper})
    return pd.DataFrame(found)


def rates(costs: pd.DataFrame) -> pd.DataFrame:
    """What a sweep of learning rates tried: a row per method and rate, with the loss of answers on validation data in nats per token.

    `costs` are those of the sweep (none: no rows). The rate of `connector` is that of the connector's own parameters.
    """
    columns = ["method", "dataset", "lr", "validation_loss", "steps", "batch_size", "seed"]
    if costs.empty:
        return pd.DataFrame(columns=columns)
    return costs.assign(lr=costs["lr"].fillna(costs["connector_lr"]))[columns].reset_index(drop=True)


def _only(values: Iterable[Any]) -> Any:
    """The one of the different values of an axis; None where it is missing; several are joined by "/"."""
    found = [v for v in values if not pd.isna(v)]
    return None if not found else found[0] if len(found) == 1 else " / ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in found)


def data(predictions: Predictions) -> pd.DataFrame:
    """A row per data set of the study: its card, and the questions, pictures and assets that were asked about."""
    rows = []
    for (model, dataset), cell in {(key[0], key[3]): cell for key, cell in cells(predictions).items()}.items():
        card = datasets.card(dataset)
        asked = {"asked": len(cell), "pictures": cell["picture_id"].nunique(), "assets": cell["asset"].nunique(), "templates": cell["template"].nunique()}
        fixed = {"place": card.place, "task": card.task, "metric": card.metric, "licence": card.licence, "held_out": card.held_out}
        rows.append({"model": model, "dataset": dataset, "group": group(model, dataset), **fixed, **{f"size_{k}": v for k, v in card.sizes.items()}, **asked})
    return style.ordered(pd.DataFrame(rows), ("model", "dataset"))


def design(predictions: Predictions, rows: pd.DataFrame) -> dict[str, Any]:
    """What the study held fixed and how much it ran: plain facts for the report's method section."""
    whole = _rows(predictions)
    tuned = ~_is(whole, method="none")
    names = list(whole["model"].unique())
    plain = rows[[m in ("connector", "full") or methods.card(ways.method(m)).group == "selective" for m in rows["method"]]] if len(rows) else rows  # the others add parameters
    return {
        "level": LEVEL,
        "models": [{"model": n, "label": models.card(n).label, "source": models.card(n).source, "licence": models.card(n).licence} for n in names],
        "pocket": [n for n in names if models.card(n).family == "pocket"],
        "others": [n for n in names if models.card(n).family != "pocket"],
        "runs": int(whole.loc[tuned, "run"].nunique()),
        "methods": len({ways.method(m) for m in whole["method"].unique()}),
        "quantised": sorted(set(whole["quantisation"].unique()) - {"none"}),
        "seeds": sorted(int(s) for s in whole["seed"].unique()),
        **{axis: sorted(x for x in whole.loc[tuned, axis].unique().tolist() if not pd.isna(x)) for axis in ("steps", "batch_size", "train_size", "precision")},
        "answers": len(whole),
        "parameters": {c.removeprefix("total_"): float(plain[c].min()) for c in rows if c.startswith("total_") and plain[c].notna().any()},
        **{name: sorted(int(x) for x in rows[name].dropna().unique()) if name in rows else [] for name in ("threads", "cores")},
    }


def samples(predictions: Predictions, *, size: int = 4, seed: int = 0) -> pd.DataFrame:
    """Some test questions of each data set, drawn by a seeded order, each with the answers of every model tested on it.

    A row per question: tested_on, example_id, question, answers, and ``responses``, a list of model, method, connector, response, outcome, value and metric.
    """
    whole = _rows(predictions)
    right = _is(whole, stage="evaluate", test_pictures="true", train_pictures="true", quantisation="none")
    first, shown = min(whole.loc[right, "seed"].unique(), default=None), ["model", "method", "connector", "response", "outcome", "value", "metric"]
    right &= _is(whole, seed=first) & _same(whole["tested_on"], whole["dataset"])
    asked = whole.loc[right, ["tested_on", "example_id", "question", "answers", *shown]]
    rows = []
    for dataset in [d for d in style.order("dataset") if d in set(asked["tested_on"].unique())]:
        mine = asked[asked["tested_on"] == dataset]
        ids = sorted(mine["example_id"].unique())
        for i in np.random.default_rng(seed).permutation(len(ids))[:size]:
            one = style.ordered(mine[mine["example_id"] == ids[i]], ("model", "method", "connector"))
            first = one.iloc[0]
            rows.append(
                {"tested_on": dataset, "example_id": ids[i], "question": first["question"], "answers": list(first["answers"]), "responses": one[shown].to_dict("records")}
            )  # fmt: skip
    return pd.DataFrame(rows)
