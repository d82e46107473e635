"""Intervals of means and of paired differences, robust to answers that share a picture or an asset, with the spread between seeds where there are several."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, zip_longest
from math import isfinite, sqrt

import numpy as np
import pandas as pd
from scipy.special import chdtri, fdtrc, stdtrit


@dataclass(frozen=True)
class Interval:
    """A mean with its bounds, in the unit of the values; bounds are None where one cluster leaves no spread to see.

    ``n`` counts values, ``clusters`` the clusters of the coarsest way, on which the t quantile rests (minus one), unless there is a spread between reruns.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    clusters: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero; False where there is no interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


RERUN = "value of seed "  # before a seed's name: a column of what its answers alone earned, beside ``value``, the mean over seeds
Reruns = Mapping[str, float]  # an estimate made of each seed's answers alone, by the seed's name


def alone(frame: pd.DataFrame) -> list[str]:
    """The columns `RERUN` of a frame; none where it holds one seed."""
    return [name for name in frame.columns if name.startswith(RERUN)]


def by_seed(frame: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """The seeds of a frame's columns `RERUN`, and what each earned alone, an array (seeds, rows)."""
    columns = alone(frame)
    if not columns:
        return [], np.empty((0, len(frame)))
    first, last = (frame.columns.get_loc(columns[end]) for end in (0, -1))
    side_by_side = last - first == len(columns) - 1  # as they are made: taken as one, which is quicker
    values = frame.iloc[:, first : last + 1] if side_by_side else frame[columns]
    return [name.removeprefix(RERUN) for name in columns], values.to_numpy(dtype=float).T


def reruns(frame: pd.DataFrame, strata: str | None = None) -> list[Reruns]:
    """What each seed's answers alone add to the mean of ``value``, in each of the `strata` (a column; None: one stratum), whose models were tuned apart.

    Only seeds that were run on all of a stratum are there; none where the frame has no columns `RERUN`.
    """
    return seed_means(*by_seed(frame), strata=_codes(frame[strata]) if strata else None)


def seed_means(seeds: Sequence[str], values: np.ndarray, *, strata: np.ndarray | None = None) -> list[Reruns]:
    """`reruns` of the arrays that `by_seed` gives; `strata` are whole numbers from zero, one a row."""
    if not seeds:
        return [{}]
    parts = [values] if strata is None or not strata.max(initial=0) else [values[:, strata == one] for one in range(int(strata.max()) + 1)]
    means = [np.ascontiguousarray(part).mean(axis=1).tolist() for part in parts]
    return [{name: mean / len(parts) for name, mean in zip(seeds, found, strict=True) if isfinite(mean)} for found in means]


def contrast(a: Reruns, b: Reruns, *, alike: bool = False) -> list[list[float]]:
    """By what a difference varies over seeds: lists of numbers, each of reruns of its own.

    With the same seeds on both sides there is one, paired by seed. With other seeds on either side each varies for itself; a side with one
    seed is taken as fixed, as an untouched base is, or where both are tuned `alike` to vary as the other does: what varies is then one list
    whose spread stands for the mean of the several and for the one.
    """
    if alike and not (a and b):
        return [[value * sqrt(1 + len(several)) for value in several.values()] for several in (a, b) if several]
    return [[a[seed] - b[seed] for seed in a]] if a.keys() == b.keys() else [list(a.values()), list(b.values())]


def _spread(lists: Iterable[Sequence[float]]) -> list[tuple[float, int]]:
    """Of each list of estimates by several reruns: the variance of their mean, and its degrees of freedom."""
    return [(float(np.var(estimates, ddof=1)) / len(estimates), len(estimates) - 1) for estimates in lists if len(estimates) > 1]


@dataclass(frozen=True)
class Deviation:
    """A standard deviation with its bounds, in the unit of the values, and the degrees of freedom that it rests on."""

    sd: float
    low: float
    high: float
    freedom: float


def deviation(lists: Iterable[Sequence[float]], level: float = 0.95) -> Deviation:
    """The standard deviation within lists of numbers, each around its own mean: the root of the mean of their variances, with the interval of chi squared.

    Lists need not vary alike: the degrees of freedom are Satterthwaite's (1946), few where one list has most of the variance (of three numbers a list, the
    interval of 95 % then holds it nine times in ten). Numbers are taken
    to be normal: of three alone the upper bound is twelve times the lower. Raises ValueError where no list has two numbers and on a level not within 0 and 1.
    """
    several = [np.asarray(one, dtype=float) for one in lists if len(one) > 1]
    if not several or not all(np.isfinite(one).all() for one in several):
        raise ValueError("a standard deviation needs a list of at least two numbers, all finite")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a number between 0 and 1, such as 0.95")
    variances = [float(one.var(ddof=1)) for one in several]
    free = [len(one) - 1 for one in several]
    freedom = sum(variances) ** 2 / sum(v * v / f for v, f in zip(variances, free, strict=True)) if any(variances) else float(sum(free))
    variance = sum(variances) / len(several)
    low, high = (sqrt(freedom * variance / float(chdtri(freedom, tail))) for tail in ((1 - level) / 2, (1 + level) / 2))
    return Deviation(sqrt(variance), low, high, freedom)


def steadier(others: Deviation, one: Deviation) -> float:
    """How likely a variance as many times that of the `others` as `one`'s would be, were they the same: the upper tail of F."""
    if not others.sd:
        return 0.0 if one.sd else 1.0
    return float(fdtrc(one.freedom, others.freedom, (one.sd / others.sd) ** 2))


class Ways:
    """The clusters of each value in one or several ways, and those of the ways' intersections, numbered once for all that is estimated from these values."""

    def __init__(self, clusters: Iterable[Hashable], *more: Iterable[Hashable]) -> None:
        """`clusters`, and each of `more`, name a cluster per value; ValueError where lengths differ or a value has none."""
        codes = [_codes(c) for c in (clusters, *more)]
        if len({len(w) for w in codes}) > 1 or any((w < 0).any() for w in codes):
            raise ValueError(f"clusters of length {', '.join(str(len(w)) for w in codes)}: one of each for every value, none missing")
        self.values, self.fewest = len(codes[0]), min(int(w.max(initial=-1)) + 1 for w in codes)
        self.each = codes
        self.several = [((-1) ** (size + 1), _intersected(subset)) for size in range(2, len(codes) + 1) for subset in combinations(codes, size)]


def interval(values: Iterable[float], *clusters: Iterable[Hashable], level: float = 0.95, strata: Iterable[Hashable] | None = None, seeds: Iterable[Sequence[float]] = ()) -> Interval:
    """The mean of `values` with a multi-way cluster-robust interval.

    Each of `clusters` names a cluster per value (none: every value its own). Variances add over the ways, minus those of the
    intersections (Cameron, Gelbach and Miller 2011), each with G / (G - 1); where a negative covariance makes the sum smaller
    than one of its ways, the largest way is taken. Bounds use the t quantile with the fewest clusters less one. With
    `strata` (a data set per value) the mean is that of the strata's means, each weighing the same.

    Where values are means over several seeds, `seeds` are lists of what each seed alone adds to the mean, each list of models that were tuned apart
    (the values of `reruns`). The variance of a list's mean is added, and the quantile is that of Satterthwaite's degrees of freedom (1946, "An
    Approximate Distribution of Estimates of Variance Components"), so that the interval holds what as many other seeds would have given.
    Raises ValueError on no values, on a value that is not finite, on lengths that differ and on a level not within 0 and 1.
    """
    x = _numbers(values)
    if not len(x):
        raise ValueError("the mean of no values: there is nothing to estimate")
    if not np.isfinite(x).all():
        raise ValueError(f"value {x[~np.isfinite(x)][0]} is not finite: leave missing values out before, and say so")
    ways = Ways(*clusters or [np.arange(len(x))])
    groups = _codes(strata) if strata is not None else np.zeros(len(x), dtype=int)
    if not ways.values == len(groups) == len(x):
        raise ValueError(f"{len(x)} values with clusters or strata of length {ways.values}, {len(groups)}: one for each value")
    if (groups < 0).any():
        raise ValueError("a stratum is missing: every value needs its own")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a number between 0 and 1, such as 0.95")
    sizes = np.bincount(groups)
    means = np.bincount(groups, x) / sizes
    mean = float(means.mean())
    share = (x - means[groups]) / (sizes[groups] * len(sizes))  # what each value adds to the mean, centred
    return _bounded(mean, share, ways, level, _spread(seeds))


def linear(estimate: float, share: Iterable[float], ways: Ways, *, level: float = 0.95, seeds: Iterable[Sequence[float]] = ()) -> Interval:
    """An estimate of several means with the multi-way cluster-robust interval of `interval`, by the delta method.

    `share` is what each value adds to the estimate's error: of a smooth function of means, its derivative by the value's mean, times the
    value less that mean, over their number. A mean's own shares give `interval`. Raises ValueError where there is none or one is not finite.
    """
    x = _numbers(share)
    if not len(x) or not np.isfinite(x).all() or ways.values != len(x):
        raise ValueError(f"{len(x)} shares, of which {int(np.isfinite(x).sum())} are finite, with clusters of {ways.values}: one for every value")
    return _bounded(estimate, x, ways, level, _spread(seeds))


def _numbers(values: Iterable[float]) -> np.ndarray:
    return np.asarray(values if isinstance(values, np.ndarray | pd.Series) else list(values), dtype=float)


def _codes(names: Iterable[Hashable]) -> np.ndarray:
    """A whole number from zero for each different name, without gaps; -1 for all where one is missing. No name of a category is read."""
    if isinstance(names, pd.Series) and isinstance(names.dtype, pd.CategoricalDtype):
        codes = names.array.codes
        return _without_gaps(codes) if not len(codes) or codes.min() >= 0 else np.full(len(codes), -1)
    if isinstance(names, np.ndarray) and names.dtype.kind in "iu":
        return _without_gaps(names)
    return pd.factorize(names if isinstance(names, np.ndarray | pd.Series) else pd.Series(list(names), dtype=object))[0]


def _without_gaps(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers, renumbered from zero in their own order."""
    if not len(numbers) or numbers.min() < 0 or (most := int(numbers.max())) > 100 * len(numbers):
        return np.unique(numbers, return_inverse=True)[1]
    there = np.zeros(most + 1, dtype=np.int64)
    there[numbers] = 1
    return (np.cumsum(there) - 1)[numbers]


def _bounded(mean: float, share: np.ndarray, ways: Ways, level: float, spread: Sequence[tuple[float, int]] = ()) -> Interval:
    """The interval around `mean` of the sum of `share`, clustered in `ways`, with the variances of `spread` and their degrees of freedom added."""
    fewest = ways.fewest
    if fewest < 2:
        return Interval(mean, None, None, len(share), fewest)
    each = [_variance(share, way) for way in ways.each]
    total = sum([*each, *(sign * _variance(share, way) for sign, way in ways.several)])
    parts = [(max(total, *each), fewest - 1), *((variance, freedom) for variance, freedom in spread if variance > 0)]
    whole = sum(variance for variance, _ in parts)
    freedom = fewest - 1 if len(parts) == 1 else whole**2 / sum(variance**2 / freedom for variance, freedom in parts)
    half = _quantile(level, freedom) * sqrt(whole)
    return Interval(mean, mean - half, mean + half, len(share), fewest)


def _quantile(level: float, freedom: float) -> float:
    """Of Student's t, such that an interval of so many of it on either side has the level."""
    return float(stdtrit(freedom, (1 + level) / 2))


def _intersected(ways: Sequence[np.ndarray]) -> np.ndarray:
    """The clusters that values share in all of these ways (codes from zero), without gaps."""
    cluster = ways[0]
    for way in ways[1:]:  # renumbered after each way, so that the product stays below the square of the number of values
        cluster = _without_gaps(cluster.astype(np.int64) * (int(way.max(initial=0)) + 1) + way)
    return cluster


def _variance(share: np.ndarray, cluster: np.ndarray) -> float:
    """Of the sum of `share`, one-way clustered (codes from zero, without gaps), with the factor G / (G - 1)."""
    sums = np.bincount(cluster, share)
    return float((sums**2).sum() * len(sums) / (len(sums) - 1)) if len(sums) > 1 else 0.0


def paired(
    a: pd.DataFrame, b: pd.DataFrame, on: str = "example_id", *, clusters: Sequence[str] = ("picture_id", "asset"), level: float = 0.95, strata: str | None = None, alike: bool = False
) -> Interval:
    """The mean of ``a.value - b.value`` over the same examples, with its cluster-robust interval.

    Rows are joined by the column `on`, one to one. Where either holds what several seeds had (`reruns`), their spread is in the interval (`contrast`, which says what `alike` means). Raises ValueError naming the frame and an example where one occurs twice or is only
    in one of the two: a comparison on different questions is none.
    """
    left, right = _common(a[on], b[on])
    places = np.argsort(right, kind="stable")
    ordered = right[places]
    if (ordered[1:] == ordered[:-1]).any() or not np.array_equal(np.sort(left), ordered):
        _refuse(a[on], b[on], left, right)
    there, groups = places[np.searchsorted(ordered, left)], _codes(a[strata]) if strata else None
    names, values = by_seed(b)
    sides = zip_longest(seed_means(*by_seed(a), strata=groups), seed_means(names, values[:, there], strata=groups), fillvalue={})  # a side without several seeds has one, empty
    seeds = chain.from_iterable(contrast(mine, other, alike=alike) for mine, other in sides)
    return interval(a["value"].to_numpy() - b["value"].to_numpy()[there], *(a[c] for c in clusters), level=level, strata=a[strata] if strata else None, seeds=seeds)


def _refuse(a: pd.Series, b: pd.Series, left: np.ndarray, right: np.ndarray) -> None:
    """Raise ValueError with what keeps two columns of names, whose codes are `left` and `right`, from being paired."""
    for name, column, codes in (("first", a, left), ("second", b, right)):
        double = pd.Series(codes).duplicated().to_numpy()
        if double.any():
            raise ValueError(f"{a.name} {column.iloc[int(double.argmax())]!r} occurs twice in the {name} frame: compare one run with one run")
    for name, column, mine, other in (("first", a, left, right), ("second", b, right, left)):
        lone = ~np.isin(mine, other)
        if lone.any():
            raise ValueError(f"{a.name} {column.iloc[int(lone.argmax())]!r} is only in the {name} frame ({lone.sum()} of {len(mine)} are): compare the same questions")


def _common(a: pd.Series, b: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the names in two columns, the same name the same code."""
    if isinstance(a.dtype, pd.CategoricalDtype) and isinstance(b.dtype, pd.CategoricalDtype) and a.cat.categories.equals(b.cat.categories):
        return a.array.codes, b.array.codes
    codes = pd.factorize(pd.concat([a.astype(object), b.astype(object)]))[0]
    return codes[: len(a)], codes[len(a) :]
