"""Intervals against statsmodels and scipy, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.regression.linear_model import OLS

from peftlab import stats


def clustered(seed: int, n: int = 400, assets: int = 23, pictures: int = 90) -> pd.DataFrame:
    """Values with a shared part per asset and per picture, so that one-way variances are too small."""
    rng = np.random.default_rng(seed)
    asset, picture = rng.integers(assets, size=n), rng.integers(pictures, size=n)
    value = rng.normal(size=n) + 2 * rng.normal(size=assets)[asset] + rng.normal(size=pictures)[picture]
    return pd.DataFrame({"example_id": [f"e{i}" for i in range(n)], "value": value, "asset": asset, "picture_id": picture})


def standard_error(frame: pd.DataFrame, groups: list[str]) -> float:
    codes = frame[groups].to_numpy()
    fit = OLS(frame["value"].to_numpy(), np.ones(len(frame))).fit(cov_type="cluster", cov_kwds={"groups": codes if len(groups) > 1 else codes[:, 0], "use_correction": True})
    return float(fit.bse[0])


@pytest.mark.parametrize("groups", [["asset"], ["picture_id"], ["asset", "picture_id"]])
@pytest.mark.parametrize("seed", range(3))
def test_against_statsmodels(groups: list[str], seed: int) -> None:
    frame = clustered(seed)
    found = stats.interval(frame["value"], *(frame[g] for g in groups))
    clusters = min(frame[g].nunique() for g in groups)
    half = scipy.stats.t.ppf(0.975, clusters - 1) * standard_error(frame, groups)
    assert found.mean == pytest.approx(frame["value"].mean())
    assert found.high - found.mean == pytest.approx(half, rel=1e-9)
    assert found.mean - found.low == pytest.approx(half, rel=1e-9)
    assert (found.n, found.clusters) == (len(frame), clusters)


def test_unclustered_is_the_t_interval() -> None:
    values = np.random.default_rng(1).normal(size=30)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = stats.interval(values, level=0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_negative_covariance_does_not_shrink_it_below_one_way() -> None:
    values = [1, -1, -1, 1] * 5  # within each row and each column of a table the values cancel
    rows, columns = [0, 0, 1, 1] * 5, [0, 1, 0, 1] * 5
    spread = [v + r * 10 for v, r in zip(values, rows)]
    two_way, one_way = stats.interval(spread, rows, columns), stats.interval(spread, rows)
    assert two_way.high - two_way.low >= one_way.high - one_way.low
    assert stats.interval(values, rows, columns).low is not None


def test_clustering_by_the_same_thing_twice_changes_nothing() -> None:
    frame = clustered(0)
    assert stats.interval(frame["value"], frame["asset"], frame["asset"]).low == pytest.approx(stats.interval(frame["value"], frame["asset"]).low)


def test_one_cluster_gives_no_bounds() -> None:
    assert stats.interval([1.0, 2.0], ["x", "x"]) == stats.Interval(1.5, None, None, 2, 1)
    assert stats.interval([5.0]).low is None and not stats.interval([5.0]).excludes_zero


def test_strata_weigh_the_same() -> None:
    frame = pd.DataFrame({"value": [0.0, 10, 0, 10, 100, 90], "set": list("aaaabb")})
    found = stats.interval(frame["value"], strata=frame["set"])
    assert found.mean == pytest.approx((5 + 95) / 2)
    by_hand = np.sqrt(((np.array([5, 5, 5, 5]) / 8) ** 2).sum() + ((np.array([5, 5]) / 4) ** 2).sum()) * np.sqrt(6 / 5)
    assert found.high - found.mean == pytest.approx(by_hand * scipy.stats.t.ppf(0.975, 5))


def test_coverage_is_near_its_level() -> None:
    hits = sum((i := stats.interval(f["value"], f["asset"], f["picture_id"])).low <= 0 <= i.high for f in (clustered(s, 200, 30, 60) for s in range(300)))
    assert 0.90 <= hits / 300 <= 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "no values"),
        (([1.0, float("nan")],), "not finite"),
        (([1.0, 2.0], ["a"]), "one for each value"),
        (([1.0, 2.0], ["a", None]), "missing"),
    ],
)
def test_refusals(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stats.interval(*arguments)
    with pytest.raises(ValueError, match="level is 95"):
        stats.interval([1.0, 2.0], level=95)


def test_paired_joins_by_id_not_by_position() -> None:
    a = clustered(0)
    b = a.assign(value=a["value"] - 1 + np.random.default_rng(0).normal(0, 0.1, len(a))).sample(frac=1, random_state=0)
    found = stats.paired(a, b)
    assert found.mean == pytest.approx(1, abs=0.05) and found.excludes_zero
    aligned = a.merge(b, on="example_id")
    assert found.low == pytest.approx(stats.interval(aligned["value_x"] - aligned["value_y"], aligned["picture_id_x"], aligned["asset_x"]).low)


def test_names_are_paired_whatever_the_order_of_their_categories() -> None:
    a = clustered(0).assign(example_id=lambda f: f["example_id"].astype("category"))
    b = a.assign(example_id=a["example_id"].cat.reorder_categories(a["example_id"].cat.categories[::-1]))
    found = stats.paired(a, b)
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_paired_names_what_is_wrong() -> None:
    a = clustered(0, n=20)
    with pytest.raises(ValueError, match="'e19' is only in the first frame"):
        stats.paired(a, a.iloc[:-1])
    with pytest.raises(ValueError, match="'e3' occurs twice in the second frame"):
        stats.paired(a, pd.concat([a, a.iloc[[3]]]))


def test_linear_of_a_means_own_shares_is_its_interval() -> None:
    rng = np.random.default_rng(3)
    x, a, b = rng.random(60), rng.integers(0, 12, 60), rng.integers(0, 9, 60)
    assert vars(stats.linear(x.mean(), (x - x.mean()) / 60, stats.Ways(a, b))) == pytest.approx(vars(stats.interval(x, a, b)))
    for share, clusters in (([], []), ([float("nan")], ["p"]), ([1.0], [])):
        with pytest.raises(ValueError, match="one for every value"):
            stats.linear(0.0, share, stats.Ways(clusters))
    for clusters in ((["p", None],), (["p", "q"], ["a"])):
        with pytest.raises(ValueError, match="one of each for every value, none missing"):
            stats.Ways(*clusters)


# ---------------------------------------------------------------- several seeds


def rerun(seed: int, *, seeds: int, spread: float, n: int = 150) -> pd.DataFrame:
    """Answers of `seeds` tuned models to the same questions: each model is better or worse than the others by `spread`; the true mean is 0."""
    rng = np.random.default_rng(seed)
    question, each = rng.normal(0, 10, n), rng.normal(0, spread, seeds)
    alone = {f"{stats.RERUN}{k}": question + each[k] + rng.normal(0, 10, n) for k in range(seeds)}
    frame = pd.DataFrame({"example_id": range(n), "picture_id": range(n), "asset": range(n), **alone})
    return frame.assign(value=frame[list(alone)].mean(axis=1))


def _with_seeds(frame: pd.DataFrame) -> stats.Interval:
    return stats.interval(frame["value"], seeds=[list(one.values()) for one in stats.reruns(frame)])


def test_an_interval_over_seeds_holds_what_other_seeds_give() -> None:
    frames = [rerun(s, seeds=3, spread=5) for s in range(400)]
    found = [(stats.interval(f["value"]), _with_seeds(f)) for f in frames]
    without, held = (np.mean([i.low <= 0 <= i.high for i in intervals]) for intervals in zip(*found, strict=True))
    assert 0.93 <= held <= 0.99 and without < 0.6, "over questions alone it holds one study's seeds, not the next one's"
    still = [_with_seeds(rerun(s, seeds=3, spread=0)) for s in range(200)]
    assert 0.92 <= np.mean([i.low <= 0 <= i.high for i in still]) <= 1


def test_the_spread_between_seeds_by_hand() -> None:
    frame = rerun(1, seeds=3, spread=5)
    means = [frame[f"{stats.RERUN}{k}"].mean() for k in range(3)]
    alone, found = stats.interval(frame["value"]), _with_seeds(frame)
    questions, between = ((alone.high - alone.mean) / scipy.stats.t.ppf(0.975, 149)) ** 2, np.var(means, ddof=1) / 3
    freedom = (questions + between) ** 2 / (questions**2 / 149 + between**2 / 2)
    assert found.mean == alone.mean and found.high - found.mean == pytest.approx(scipy.stats.t.ppf(0.975, freedom) * np.sqrt(questions + between))
    one = frame.drop(columns=[f"{stats.RERUN}{k}" for k in (1, 2)])
    assert _with_seeds(one) == alone and stats.reruns(frame[["value"]]) == [{}], "of one seed nothing is known"


def test_strata_are_tuned_apart_and_one_without_all_seeds_counts_those_it_has() -> None:
    a, b = rerun(1, seeds=3, spread=5).assign(set="a"), rerun(2, seeds=2, spread=5).assign(set="b")
    first, second = stats.reruns(pd.concat([a, b], ignore_index=True), "set")
    assert set(first) == {"0", "1", "2"} and set(second) == {"0", "1"}
    assert first["2"] == pytest.approx(a[f"{stats.RERUN}2"].mean() / 2), "each adds its half to the mean of two sets"


def test_a_difference_is_paired_by_seed_where_the_seeds_are_the_same() -> None:
    a = rerun(1, seeds=3, spread=20)
    columns = [f"{stats.RERUN}{k}" for k in range(3)]
    same = a.assign(**{name: a[name] + 1 for name in ("value", *columns)}).sample(frac=1, random_state=0)
    assert stats.paired(same, a).high == pytest.approx(1), "what a seed gives to both cancels"
    fixed, other = a[["example_id", "picture_id", "asset", "value"]], a.rename(columns=dict(zip(columns, (f"{stats.RERUN}{k}" for k in (7, 8, 9)), strict=True)))
    widths = [stats.paired(a, b).high for b in (fixed, other)]
    means = a[columns].mean()
    assert widths[0] == pytest.approx(scipy.stats.t.ppf(0.975, 2) * means.std() / np.sqrt(3)) and stats.paired(fixed, a).high == pytest.approx(widths[0])
    assert widths[1] == pytest.approx(scipy.stats.t.ppf(0.975, 4) * means.std() * np.sqrt(2 / 3)), "each side varies for itself"


def test_a_difference_is_paired_by_seed_within_each_stratum_whatever_the_order_of_rows() -> None:
    parts = [rerun(s, seeds=3, spread=20).assign(set=name, example_id=lambda f, name=name: name + f["example_id"].astype(str)) for s, name in ((1, "a"), (2, "b"))]
    a = pd.concat(parts, ignore_index=True)
    more = a.assign(**{name: a[name] + 1 for name in ("value", *stats.alone(a))})
    found = stats.paired(more, a.sample(frac=1, random_state=0), strata="set")
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1)), "what a seed gives to a set is another's nothing"


def test_a_deviation_and_its_interval_are_scipys() -> None:
    lists = [[10.0, 12.0, 17.0], [100.0, 101.0, 99.0], [5.0]]
    found = stats.deviation(lists)
    variances = [np.var(one, ddof=1) for one in lists[:2]]
    freedom = sum(variances) ** 2 / sum(v**2 / 2 for v in variances)
    assert found.freedom == pytest.approx(freedom) and found.sd == pytest.approx(np.sqrt(np.mean(variances))), "each list has its own mean; one number says nothing"
    low, high = scipy.stats.chi2.ppf([0.975, 0.025], freedom)
    assert (found.low, found.high) == pytest.approx((np.sqrt(freedom * np.mean(variances) / low), np.sqrt(freedom * np.mean(variances) / high)))
    assert stats.deviation([[1.0, 2.0, 4.0]] * 3).freedom == pytest.approx(6), "alike, all count"
    three = stats.deviation([[0.0, 1.0, 2.0]])
    assert three.sd == 1 and 12 < three.high / three.low < 12.1, "as its docstring says"
    assert stats.deviation([[3.0, 3.0]]) == stats.Deviation(0.0, 0.0, 0.0, 1)


def test_the_interval_of_a_deviation_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for spreads, least in (([3.0] * 4, 0.94), ([1.0, 1.0, 1.0, 9.0], 0.89)):
        found = [stats.deviation([rng.normal(20, spread, 3).tolist() for spread in spreads]) for _ in range(2000)]
        true = np.sqrt(np.mean(np.square(spreads)))
        assert np.mean([one.low <= true <= one.high for one in found]) > least, spreads


def test_what_is_less_steady_is_told_by_f() -> None:
    one, others = stats.deviation([[0.0, 4.0, 8.0]]), stats.deviation([[0.0, 1.0, 2.0]] * 4)
    assert stats.steadier(others, one) == pytest.approx(scipy.stats.f.sf(16, 2, 8)) and stats.steadier(others, others) == pytest.approx(0.5, abs=0.1)
    still = stats.deviation([[1.0, 1.0]])
    assert stats.steadier(still, one) == 0 and stats.steadier(still, still) == 1 and stats.steadier(one, still) == 1


def test_a_control_of_one_seed_varies_as_its_method() -> None:
    """A method with three seeds beside a control with one: the variance between seeds counts for the mean of three and for the one."""
    a = rerun(1, seeds=3, spread=20)
    columns = [f"{stats.RERUN}{k}" for k in range(3)]
    fixed = a[["example_id", "picture_id", "asset", "value"]]
    s, t = a[columns].mean().std(), scipy.stats.t.ppf(0.975, 2)
    assert stats.paired(a, fixed).high == pytest.approx(t * s * np.sqrt(1 / 3)), "an untouched base does not vary"
    for left, right in ((a, fixed), (fixed, a)):
        assert stats.paired(left, right, alike=True).high == pytest.approx(t * s * np.sqrt(1 / 3 + 1))
    assert stats.paired(a, a, alike=True).high == stats.paired(a, a).high == pytest.approx(0), "with the same seeds on both sides it is paired by seed"
    assert stats.contrast({}, {}, alike=True) == []


@pytest.mark.parametrize("lists", [[], [[1.0]], [[1.0, float("nan")]]])
def test_a_deviation_of_nothing_is_refused(lists: list) -> None:
    with pytest.raises(ValueError, match="at least two numbers, all finite"):
        stats.deviation(lists)
    with pytest.raises(ValueError, match="level is 2"):
        stats.deviation([[1.0, 2.0]], level=2)
