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


def test_paired_names_what_is_wrong() -> None:
    a = clustered(0, n=20)
    with pytest.raises(ValueError, match="'e19' is only in the first frame"):
        stats.paired(a, a.iloc[:-1])
    with pytest.raises(ValueError, match="'e3' occurs twice in the second frame"):
        stats.paired(a, pd.concat([a, a.iloc[[3]]]))


def test_linear_of_a_means_own_shares_is_its_interval() -> None:
    rng = np.random.default_rng(3)
    x, a, b = rng.random(60), rng.integers(0, 12, 60), rng.integers(0, 9, 60)
    assert vars(stats.linear(x.mean(), (x - x.mean()) / 60, a, b)) == pytest.approx(vars(stats.interval(x, a, b)))
    for share, clusters in (([], []), ([float("nan")], ["p"]), ([1.0], [])):
        with pytest.raises(ValueError, match="one of each for every value"):
            stats.linear(0.0, share, clusters)
