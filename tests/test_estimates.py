"""Frames of estimates from a made-up study, and what they refuse."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from peftlab import collected, estimates, figures, findings, methods, metrics, stats, tables


@pytest.fixture
def answers(study: Path, plain: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    return plain(collected.read_results("smoke").predictions)


@pytest.fixture
def guesses(study: Path) -> pd.DataFrame:
    return collected.read_results("smoke").guesses


def test_scores_are_the_plain_means_of_the_right_rows(answers: pd.DataFrame) -> None:
    frame = estimates.scores(answers)
    assert len(frame) == 2 * 12 and list(frame["dataset"].unique()) == ["scenes", "icons_choice"]
    plain = answers.query("stage == 'evaluate' and train_pictures == 'true' and test_pictures == 'true'").groupby(["method", "connector", "dataset"])
    for row in frame.to_dict("records"):
        cell = plain.get_group((row["method"], row["connector"], row["dataset"]))
        assert row["mean"] == pytest.approx(cell["value"].mean()) and row["n"] == len(cell)
        assert row["unparsed"] == (cell["outcome"] == "unparsed").sum()
        assert 0 <= row["low"] <= row["mean"] <= row["high"] <= 100
    assert dict(frame[["dataset", "group"]].drop_duplicates().to_numpy()) == {"scenes": "seen", "icons_choice": "unseen"}


def test_row_order_changes_nothing(answers: pd.DataFrame, guesses: pd.DataFrame) -> None:
    shuffled = answers.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(estimates.scores(shuffled), estimates.scores(answers))
    pd.testing.assert_frame_equal(estimates.baselines(shuffled, guesses=guesses.sample(frac=1, random_state=2)), estimates.baselines(answers, guesses=guesses))


def test_seeds_are_averaged_by_question(answers: pd.DataFrame) -> None:
    other = answers.assign(seed=7, value=100.0 - answers["value"])
    frame = estimates.scores(pd.concat([answers, other]))
    assert (frame["mean"] == 50).all() and (frame["seeds"] == 2).all() and (frame["n"] == 60).all()


def test_a_cell_is_the_plain_mean_of_each_question_over_the_seeds(answers: pd.DataFrame) -> None:
    """The averaging restated: a group per cell and question, in the order in which they first occur."""
    rng = np.random.default_rng(0)
    seeds = [answers.assign(seed=s, value=rng.integers(0, 3, len(answers)) * 50.0, outcome=rng.choice(["right", "wrong", "unparsed"], len(answers))) for s in (3, 7, 9)]
    rows = pd.concat(seeds).sample(frac=1, random_state=2)
    chosen = rows.query("stage == 'evaluate' and train_pictures == 'true' and test_pictures == 'true' and quantisation == 'none' and tested_on == dataset")
    found = estimates.cells(rows)
    assert list(found) == list(chosen[["model", "method", "connector", "dataset"]].drop_duplicates().itertuples(index=False, name=None)) and len(found) == 24
    for key, cell in found.items():
        mine = chosen[(chosen[["model", "method", "connector", "dataset"]] == list(key)).all(axis=1)]
        assert cell["example_id"].tolist() == mine["example_id"].drop_duplicates().tolist() and (cell["seeds"] == 3).all()
        by = mine.assign(unparsed=mine["outcome"] == "unparsed").groupby("example_id")[["value", "unparsed"]].mean()
        np.testing.assert_allclose(cell.set_index("example_id")[["value", "unparsed"]], by.loc[cell["example_id"]], rtol=0, atol=1e-12)
        first = mine.drop_duplicates("example_id").set_index("example_id")
        for column in ("picture_id", "asset", "template", "tested_on", "metric", "answers", "choices"):
            assert cell[column].tolist() == first.loc[cell["example_id"], column].tolist()


ESTIMATES = {
    **{name: (lambda rows, results, f=getattr(estimates, name): f(rows)) for name in (
        "scores", "averages", "baselines", "to_base", "to_blind", "averages_to_base", "to_shuffled", "to_frozen", "to_full_precision", "to_best",
        "forgetting", "hallucination", "by_kind", "invented", "unchanged", "data", "samples",
    )},
    **{name: (lambda rows, results, f=getattr(estimates, name): f(rows, results.costs)) for name in ("definitions", "design")},
    "probe": lambda rows, results: estimates.to_base(rows, stage="probe"),
    "bought": lambda rows, results: estimates.bought(estimates.costs(results.costs), rows),
}  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATES)
def test_categories_words_and_answers_averaged_once_give_the_same(name: str, whole: tuple[collected.Results, dict[str, object]]) -> None:
    results, ways = whole
    found = [ESTIMATES[name](rows, results) for rows in ways.values()]
    for other in found[1:]:
        if isinstance(found[0], dict):
            assert other == found[0]
        else:
            pd.testing.assert_frame_equal(other, found[0], rtol=1e-12, check_dtype=False)
    assert len(found[0]), "nothing is compared"


@pytest.fixture
def whole(study: Path, ask: Callable[..., None], plain: Callable[[pd.DataFrame], pd.DataFrame]) -> tuple[collected.Results, dict[str, object]]:
    """A study with forgetting, captions and a quantised base, and its answers as they are read, in words, and averaged once."""
    ask(study)
    rows = pd.read_parquet(study / "predictions.parquet")
    packed = rows.query("method == 'lora' and stage == 'evaluate'").assign(quantisation="nf4")
    captions = rows.query("stage == 'probe' and train_pictures == 'true'")
    captions = captions.assign(tested_on="scene_captions", example_id="caption-" + captions["example_id"], metric="chair_s", objects=[["dog"]] * len(captions))
    pd.concat([rows, packed, captions], ignore_index=True).to_parquet(study / "predictions.parquet")
    results = collected.read_results("smoke")
    return results, {"categories": results.predictions, "words": plain(results.predictions), "once": estimates.Averaged(results.predictions)}


def test_differences_pair_questions(answers: pd.DataFrame) -> None:
    frame = estimates.to_base(answers).set_index(["method", "connector", "dataset"])
    means = estimates.scores(answers).set_index(["method", "connector", "dataset"])["mean"]
    row = frame.loc["lora", "tuned", "scenes"]
    assert row["mean"] == pytest.approx(means["lora", "tuned", "scenes"] - means["none", "frozen", "scenes"])
    assert row["verdict"] == ("higher" if row["low"] > 0 else "lower" if row["high"] < 0 else "not distinguishable")
    assert ("none", "frozen", "scenes") not in frame.index
    assert set(estimates.to_shuffled(answers)["method"]) == {"lora", "adapter"}
    assert set(estimates.to_frozen(answers)["connector"]) == {"tuned"}
    assert estimates.to_full_precision(answers).empty
    lora = answers[(answers["method"] == "lora") & (answers["train_pictures"] == "true")]
    packed = pd.concat([lora.assign(quantisation="nf4", value=0.0), lora.assign(quantisation="int8", value=100.0)])
    frame = estimates.to_full_precision(pd.concat([answers, packed])).set_index(["quantisation", "connector", "dataset"])
    assert frame.loc[("nf4", "tuned", "scenes"), "mean"] == pytest.approx(-means["lora", "tuned", "scenes"])
    assert frame.loc[("int8", "tuned", "scenes"), "mean"] == pytest.approx(100 - means["lora", "tuned", "scenes"])


@pytest.mark.parametrize(
    ("interval", "word"),
    [((5, 1, 9), "higher"), ((-5, -9, -1), "lower"), ((1, -1, 3), "not distinguishable"), ((1, None, None), "not distinguishable"), ((1, 0, 2), "not distinguishable")],
)
def test_verdict(interval: tuple, word: str) -> None:
    assert estimates.verdict(stats.Interval(*interval, 10, 5)) == word


def test_averages_weigh_sets_and_need_them_all(answers: pd.DataFrame) -> None:
    more = pd.concat([answers, answers[answers["dataset"] == "scenes"].assign(dataset="facts", tested_on="facts", value=100.0)])
    frame = estimates.averages(more).set_index(["method", "connector", "group"])
    scenes = estimates.scores(more).set_index(["method", "connector", "dataset"])["mean"]["lora", "frozen", "scenes"]
    assert frame.loc[("lora", "frozen", "seen"), "mean"] == pytest.approx((scenes + 100) / 2)
    lacking = more[~((more["method"] == "ia3") & (more["dataset"] == "facts"))]
    assert "ia3" not in estimates.averages(lacking).query("group == 'seen'")["method"].tolist()


def test_baselines(answers: pd.DataFrame, guesses: pd.DataFrame) -> None:
    frame = estimates.baselines(answers, guesses=guesses).set_index(["baseline", "dataset"])
    assert list(frame.index.get_level_values(0).unique()) == ["blank", "shuffled", "majority", "question_only", "chance"]
    assert set(estimates.baselines(answers)["baseline"]) == {"blank", "shuffled", "chance"}
    chance = frame.loc[("chance", "scenes")]
    assert chance["mean"] == pytest.approx((100 / 3 + 100 / 4) / 2) and pd.isna(chance["low"])
    cell = answers.query("stage == 'evaluate' and dataset == 'scenes' and method == 'none' and test_pictures == 'true'")
    truth = cell["answers"].map(lambda a: a[0])
    assert frame.loc[("majority", "scenes"), "mean"] == pytest.approx(100 * (truth == cell["template"].map({"count": "two", "kind": "bird"})).mean())
    said = guesses.query("tested_on == 'scenes' and baseline == 'question_only'").set_index("example_id")["response"]
    right = truth.to_numpy() == said[cell["example_id"]].to_numpy()
    assert frame.loc[("question_only", "scenes"), "mean"] == pytest.approx(100 * right.mean()) and 0 < right.mean() < 1 and frame.loc[("question_only", "scenes"), "unparsed"] >= 20
    apart = frame.query("baseline == 'question_only'")
    assert apart["low"].lt(apart["mean"]).all() and apart["high"].gt(apart["mean"]).all()


def test_the_averages_of_baselines_are_over_the_sets_that_those_of_models_are_over(answers: pd.DataFrame, guesses: pd.DataFrame) -> None:
    rows = pd.concat([answers, answers[answers["dataset"] == "scenes"].assign(dataset="facts", tested_on="facts")])
    guesses = pd.concat([guesses, guesses[guesses["tested_on"] == "scenes"].assign(tested_on="facts", response="two")])
    one = estimates.baselines(rows, guesses=guesses).set_index(["dataset", "baseline"])["mean"]
    frame = estimates.baseline_averages(rows, guesses=guesses).set_index(["group", "baseline"])
    for name in ("blank", "shuffled", "majority", "question_only", "chance"):
        assert frame.loc[("seen", name), "mean"] == pytest.approx((one["scenes", name] + one["facts", name]) / 2) and frame.loc[("seen", name), "datasets"] == 2
        assert frame.loc[("unseen", name), "mean"] == pytest.approx(one["icons_choice", name])
    assert pd.isna(frame.loc[("seen", "chance"), "low"]) and frame.loc[("seen", "majority"), "low"] < frame.loc[("seen", "majority"), "mean"]
    captioned = rows.assign(metric=rows["metric"].where(rows["tested_on"] != "facts", "cider"))
    assert set(estimates.baseline_averages(captioned, guesses=guesses)["datasets"]) == {1}, "no average holds CIDEr"


def test_what_a_probe_affirms_is_compared_with_its_own_base(two_bases: pd.DataFrame) -> None:
    """By hand, whatever the order of rows: some answers cannot be read, and the second base affirms everything."""
    rows = two_bases[(two_bases["stage"] == "probe") & (two_bases["train_pictures"] == "true")].sample(frac=1, random_state=0).reset_index(drop=True)
    silent = (rows.index % 7 == 0) & (rows["method"] != "none")
    said = rows["parsed"].astype(object).mask((rows["method"] == "none") & (rows["model"] == "pocket-resampler"), "yes").mask(silent, None)
    rows = rows.assign(parsed=said, outcome=rows["outcome"].astype(object).mask(silent, "unparsed"))
    frame = estimates.hallucination(rows).query("method.notna()")
    absent = rows[rows["answers"].str[0] == "no"].assign(yes=lambda f: 100.0 * (f["parsed"] == "yes"))
    bare = absent[absent["method"] == "none"].groupby("model")["yes"].mean()
    assert bare["pocket-resampler"] == 100 > bare["pocket-mlp"] > 0 and len(frame) == 2 * 23
    for row in frame.to_dict("records"):
        tuned = row["method"] != "none"
        mine = absent[(absent["model"] == row["model"]) & (absent["method"] == row["method"]) & (absent["connector"] == row["connector"]) & ((absent["dataset"] == row["dataset"]) | (not tuned))]
        read = mine[mine["outcome"] != "unparsed"]
        assert row["affirmed"] == pytest.approx(mine["yes"].mean()) and row["affirmed_read"] == pytest.approx(read["yes"].mean())
        assert not tuned or (row["absent_read"] == len(read) < len(mine) and row["difference"] == pytest.approx(row["affirmed"] - bare[row["model"]]))


def test_hallucination_has_the_base_once_and_always_yes(answers: pd.DataFrame) -> None:
    frame = estimates.hallucination(answers)
    assert (frame["method"] == "none").sum() == 1
    always = frame[frame["method"].isna()].iloc[0]
    assert always["mean"] == 25 and always["yes_rate"] == 100 and always["recall"] == 100
    assert set(estimates.by_kind(answers)["kind"]) == {"present", "random", "popular", "adversarial"}
    assert estimates.hallucination(answers[answers["stage"] == "evaluate"]).empty


def test_costs(study: Path) -> None:
    frame = estimates.costs(collected.read_results("smoke").costs)
    row = frame.set_index(["method", "connector"]).loc["lora", "tuned"]
    assert row["runs"] == 2 and row["trainable"] == 2_900_000 + 1_070_000
    assert row["share"] == pytest.approx(100 * row["trainable"] / (3_400_000 + 1_070_000 + 134_500_000))
    assert estimates.costs(pd.DataFrame()).empty


def test_what_costs_bought_is_of_their_own_quantisation(study: Path, answers: pd.DataFrame) -> None:
    results = collected.read_results("smoke")
    mine = (results.costs["method"] == "lora") & (results.costs["train_pictures"] == "true")
    costs = estimates.costs(pd.concat([results.costs, results.costs[mine].assign(quantisation="nf4")]))
    lora = answers[(answers["method"] == "lora") & (answers["train_pictures"] == "true")]
    frame = estimates.bought(costs, pd.concat([answers, lora.assign(quantisation="nf4", value=100.0)])).set_index(["quantisation", "method", "connector"])
    assert len(frame) == len(costs) and (frame["group"] == "unseen").all()
    assert frame.loc[("nf4", "lora", "tuned"), "mean"] == 100
    averages = estimates.averages(answers).set_index(["method", "connector", "group"])["mean"]
    assert frame.loc[("none", "ia3", "tuned"), "mean"] == pytest.approx(averages["ia3", "tuned", "unseen"])


def test_a_cell_that_mixes_axes_is_refused(answers: pd.DataFrame) -> None:
    one = answers[(answers["method"] == "lora") & (answers["connector"] == "tuned")]
    with pytest.raises(ValueError, match="lora / tuned / scenes mixes lr 0.001, 0.5"):
        estimates.scores(pd.concat([one, one.assign(lr=0.5, seed=1)]))
    with pytest.raises(ValueError, match="has a question twice"):
        estimates.scores(pd.concat([one, one]))
    with pytest.raises(ValueError, match="some questions of some seeds"):
        estimates.scores(pd.concat([one, one.iloc[:10].assign(seed=1)]))


def test_definitions_and_data_come_from_what_ran(answers: pd.DataFrame, study: Path) -> None:
    methods = estimates.definitions(answers, collected.read_results("smoke").costs).set_index("method")
    assert methods.loc["lora", ["size_name", "size", "lr", "connector_lr", "trainable_llm"]].tolist() == ["rank", 16, 1e-3, 1e-3, 2_900_000]
    assert pd.isna(methods.loc["none", "lr"])
    sets = estimates.data(answers).set_index("dataset")
    assert sets.loc["scenes", ["asked", "pictures", "assets", "group"]].tolist() == [60, 30, 17, "seen"]


def test_models_against_what_needs_no_sight(answers: pd.DataFrame, guesses: pd.DataFrame) -> None:
    frame = estimates.to_blind(answers, guesses=guesses).set_index(["method", "connector", "dataset", "baseline"])
    means = estimates.scores(answers).set_index(["method", "connector", "dataset"])["mean"]
    blind = estimates.baselines(answers, guesses=guesses).set_index(["dataset", "baseline"])["mean"]
    said = {(*arm, b) for arm in means.index for b in ("majority", "question_only")}
    assert set(frame.index) == said | {("none", "frozen", d, b) for d in ("scenes", "icons_choice") for b in ("blank", "shuffled")} and len(frame) == 2 * 12 * 2 + 4
    for key in frame.index:
        row, dataset = frame.loc[key], key[2]
        assert row["mean"] == pytest.approx(means[key[:3]] - blind[dataset, key[3]])
        assert row["low"] < row["mean"] < row["high"] and row["group"] == ("seen" if dataset == "scenes" else "unseen")
        assert row["verdict"] == ("higher" if row["low"] > 0 else "lower" if row["high"] < 0 else "not distinguishable")


def test_a_study_without_controls_has_costs(study: Path) -> None:
    costs = pd.read_csv(study / "costs.csv", dtype=str, keep_default_na=False)
    costs[costs["train_pictures"] == "true"].to_csv(study / "costs.csv", index=False)
    frame = estimates.costs(collected.read_results("smoke").costs)
    assert set(frame["method"]) == {"connector", "full", "lora", "ia3", "adapter", "prefix"} and frame["seconds"].gt(0).all()


# ---------------------------------------------------------------- metrics beside accuracy


@pytest.fixture
def captioned(answers: pd.DataFrame) -> pd.DataFrame:
    """The study with Scenes scored by CIDEr-D, each answer worth more than an accuracy can be."""
    mine = answers["tested_on"] == "scenes"
    other = answers[mine].assign(dataset="facts", tested_on="facts")
    return pd.concat([answers.assign(value=answers["value"].where(~mine, 150 + answers["value"]), metric=answers["metric"].where(~mine, "cider")), other])


def test_an_interval_is_cut_at_what_its_metric_can_be(captioned: pd.DataFrame) -> None:
    frame = estimates.scores(captioned).set_index(["dataset", "method", "connector"])
    row = frame.loc["scenes", "lora", "tuned"]
    assert row["metric"] == "cider" and 150 < row["low"] < row["mean"] < row["high"] < 250
    assert estimates.scores(captioned.assign(value=1000.0 - 9 * (captioned["example_id"] == "evaluate-1"))).query("metric == 'cider'")["high"].max() == 1000
    right = captioned[captioned["metric"] == "exact"].assign(value=lambda f: 100.0 * (f["example_id"] != "evaluate-1"))
    assert estimates.scores(right)["high"].max() == 100


def test_a_mean_over_sets_holds_no_cider(captioned: pd.DataFrame) -> None:
    frame = estimates.averages(captioned).set_index(["group", "method", "connector"])
    facts = estimates.scores(captioned).set_index(["dataset", "method", "connector"]).loc["facts", "lora", "tuned"]
    assert frame.loc[("seen", "lora", "tuned"), ["datasets", "metric"]].tolist() == [1, "exact"]
    assert frame.loc[("seen", "lora", "tuned"), "mean"] == pytest.approx(facts["mean"])
    assert set(estimates.averages_to_base(captioned)["metric"]) == {"exact"}
    assert set(estimates.one_scale(estimates.scores(captioned))["dataset"]) == {"facts", "icons_choice"}
    alone = captioned[captioned["tested_on"] == "scenes"]
    assert estimates.averages(alone)["mean"].min() > 100, "a study of captions alone has its own mean"
    assert "chance" not in set(estimates.baselines(captioned).query("dataset == 'scenes'")["baseline"])


def test_the_best_is_the_lowest_where_less_is_better(answers: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = estimates.scores(answers).query("dataset == 'scenes' and method != 'none'").sort_values("mean")
    key = ["method", "connector"]
    left = estimates.to_best(answers).query("dataset == 'scenes'")[key].apply(tuple, axis=1)
    assert tuple(tuned.iloc[-1][key]) not in set(left)
    monkeypatch.setitem(metrics.METRICS, "exact", replace(metrics.METRICS["exact"], higher_is_better=False))
    left = estimates.to_best(answers).query("dataset == 'scenes'")[key].apply(tuple, axis=1)
    assert tuple(tuned.iloc[0][key]) not in set(left) and tuple(tuned.iloc[-1][key]) in set(left)


def test_always_giving_one_answer_earns_what_the_metric_pays(answers: pd.DataFrame) -> None:
    cell = answers.query("tested_on == 'scenes' and method == 'none' and test_pictures == 'true' and stage == 'evaluate'")
    said = pd.DataFrame({"baseline": "majority", "tested_on": "scenes", "example_id": cell["example_id"], "response": "Grey  Thing."})
    for times, worth in ((8, 100), (2, 60), (0, 0)):  # of ten people: the mean of leaving each out once
        soft = cell.assign(metric="vqa", answers=[["grey thing"] * times + [f"no {i}-{j}" for j in range(10 - times)] for i in range(len(cell))])
        assert estimates.baselines(soft, guesses=said).set_index("baseline").loc["majority", "mean"] == pytest.approx(worth)


def test_the_most_frequent_caption_is_judged_by_the_whole_test_set(answers: pd.DataFrame) -> None:
    """Words that are rare among the questions asked, and frequent in the test set, count for little: as they do for a model's captions."""
    cell = answers.query("tested_on == 'scenes' and method == 'none' and test_pictures == 'true' and stage == 'evaluate'")
    told = [["a thing on grass", f"the {a[0]} number {i}"] for i, a in enumerate(cell["answers"])]
    captioned = cell.assign(metric="cider", answers=told, choices=[[] for _ in told])
    whole = pd.DataFrame({"example_id": [f"w{i}" for i in range(200)], "tested_on": "scenes", "answers": [["a thing on grass"] if i % 2 else ["nothing of it"] for i in range(200)]})
    other = whole.assign(tested_on="facts")
    by_hand = metrics.judge(captioned.assign(response="a thing on grass"), "cider", whole=whole)["value"].mean()

    guesses = pd.DataFrame({"baseline": "majority", "tested_on": "scenes", "example_id": captioned["example_id"], "response": "a thing on grass"})

    def majority(**more: pd.DataFrame) -> tuple[float, float]:
        blind = estimates.to_blind(captioned, guesses=guesses, **more).set_index("baseline").loc["majority", "mean"]
        return estimates.baselines(captioned, guesses=guesses, **more).set_index("baseline").loc["majority", "mean"], captioned["value"].mean() - blind

    assert majority(references=pd.concat([other, whole])) == pytest.approx((by_hand, by_hand))
    assert majority(references=other) == pytest.approx(majority()) and majority(references=pd.DataFrame()) == pytest.approx(majority())
    assert abs(majority()[0] - by_hand) > 1


# ---------------------------------------------------------------- forgetting


@pytest.fixture
def kept(study: Path, ask: Callable[..., None], plain: Callable[[pd.DataFrame], pd.DataFrame]) -> SimpleNamespace:
    """The study with its models, tuned on icons, asked about three seen sets: its predictions and texts."""
    ask(study)
    results = collected.read_results("smoke")
    return SimpleNamespace(predictions=plain(results.predictions), texts=results.texts)


def test_what_is_kept_and_learned_is_as_spider_defines_it(kept: SimpleNamespace) -> None:
    frame = estimates.forgetting(kept.predictions)
    rows = kept.predictions.query("stage == 'evaluate' and train_pictures == 'true' and test_pictures == 'true' and dataset == 'icons_choice'")
    means = rows.groupby(["method", "connector", "tested_on"])["value"].mean()
    assert len(frame) == 12 * 8 and set(frame["dataset"]) == {"icons_choice"}
    by = frame.set_index(["method", "connector", "part"])
    for method, connector in {(m, c) for m, c, _ in by.index}:
        each = means[method, connector]
        source, target = each[["scenes", "facts", "titles"]].mean(), each["icons_choice"]
        expected = {**each, "A_S": source, "A_T": target, "H": 2 * source * target / (source + target), "O": (source + target) / 2}
        mine = by.loc[method, connector]
        assert mine["mean"].to_dict() == pytest.approx(expected)
        assert (mine["low"] < mine["mean"]).all() and (mine["mean"] < mine["high"]).all()
        if method != "none":
            base = by.loc["none", "frozen"]["mean"]
            assert (mine["mean"] - mine["difference"]).to_dict() == pytest.approx(base.to_dict())
            assert (mine["verdict"] == ["higher" if low > 0 else "lower" if high < 0 else "not distinguishable" for low, high in zip(mine["difference_low"], mine["difference_high"])]).all()
    assert dict(frame[["part", "kind"]].drop_duplicates().to_numpy()) == {"icons_choice": "target", **dict.fromkeys(("scenes", "facts", "titles"), "seen"), **dict.fromkeys(estimates.MEANS, "mean")}


def test_intervals_of_parts_are_those_of_means_and_paired_differences(kept: SimpleNamespace) -> None:
    by = estimates.forgetting(kept.predictions).set_index(["method", "connector", "part"])
    rows = kept.predictions.query("stage == 'evaluate' and train_pictures == 'true' and test_pictures == 'true' and dataset == 'icons_choice'")
    rows = rows.assign(question_id=rows["tested_on"] + rows["example_id"])
    mine, base = (rows.query("method == @m and connector == @c") for m, c in (("lora", "tuned"), ("none", "frozen")))
    for part, sets in {"scenes": ["scenes"], "A_T": ["icons_choice"], "A_S": ["scenes", "facts", "titles"]}.items():
        a, b = (f[f["tested_on"].isin(sets)] for f in (mine, base))
        level = stats.interval(a["value"], a["picture_id"], a["asset"], strata=a["tested_on"])
        paired = stats.paired(a, b, "question_id", strata="tested_on")
        row = by.loc["lora", "tuned", part]
        assert row[["low", "high", "n", "clusters"]].tolist() == pytest.approx([max(0, level.low), min(100, level.high), level.n, level.clusters])
        assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([paired.mean, paired.low, paired.high])


def test_the_interval_of_the_harmonic_mean_holds_what_resampling_shows(kept: SimpleNamespace) -> None:
    rows = kept.predictions.query("stage == 'evaluate' and train_pictures == 'true' and test_pictures == 'true' and dataset == 'icons_choice' and method == 'full' and connector == 'tuned'")
    alone = pd.concat([rows.assign(picture_id=rows["tested_on"] + rows["example_id"], asset=rows["tested_on"] + rows["example_id"])])
    row = estimates.forgetting(alone).set_index("part").loc["H"]
    rng, values = np.random.default_rng(0), {name: part["value"].to_numpy() for name, part in rows.groupby("tested_on")}
    drawn = []
    for _ in range(2000):
        mean = {name: rng.choice(v, len(v)).mean() for name, v in values.items()}
        source = np.mean([mean[n] for n in ("scenes", "facts", "titles")])
        drawn.append(2 * source * mean["icons_choice"] / (source + mean["icons_choice"]))
    assert (row["high"] - row["low"]) / (2 * 1.97) == pytest.approx(np.std(drawn), rel=0.08)
    assert pd.isna(row["difference"]), "there is no base to compare with"


def test_a_seen_target_is_not_among_its_sources_and_means_need_all_sets(kept: SimpleNamespace, study: Path, ask: Callable[..., None]) -> None:
    ask(study, "scenes", ("facts", "titles", "icons_choice"))
    both = estimates.forgetting(collected.read_results("smoke").predictions).set_index(["dataset", "method", "connector", "part"])
    mine = both.loc["scenes", "lora", "tuned"]
    assert mine.loc["A_S", "mean"] == pytest.approx(mine.loc[["facts", "titles"], "mean"].mean()) and mine.loc["icons_choice", "kind"] == "unseen"
    less = estimates.forgetting(kept.predictions[kept.predictions["tested_on"] != "facts"])
    assert set(less["part"]) == {"icons_choice", "scenes", "titles", "A_T"}
    cider = kept.predictions.assign(metric=kept.predictions["metric"].where(kept.predictions["tested_on"] != "icons_choice", "cider"))
    assert set(estimates.forgetting(cider)["part"]) == {"icons_choice", "scenes", "facts", "titles", "A_S"}
    assert estimates.forgetting(kept.predictions[kept.predictions["tested_on"] == kept.predictions["dataset"]]).empty


def test_a_study_may_name_the_sets_that_what_is_kept_is_meant_over(kept: SimpleNamespace) -> None:
    frame = estimates.forgetting(kept.predictions, sources=["titles", "icons_choice", "facts"])
    plain = estimates.forgetting(kept.predictions)
    assert (frame.pop("sources") == "titles icons_choice facts").all() and "sources" not in plain
    mine, usual = (f.set_index(["method", "connector", "part"]) for f in (frame, plain))
    for key in {(m, c) for m, c, _ in mine.index}:
        source, target = mine.loc[key].loc[["titles", "facts"], "mean"].mean(), mine.loc[key].loc["A_T", "mean"]
        assert mine.loc[key].loc[["A_S", "H"], "mean"].tolist() == pytest.approx([source, 2 * source * target / (source + target)]), "the target is none of its sources"
        assert usual.loc[key].loc["A_S", "mean"] != pytest.approx(source)
    same = [part for part in mine.index.unique("part") if part not in ("A_S", "H", "O")]
    pd.testing.assert_frame_equal(mine[mine.index.isin(same, level="part")], usual[usual.index.isin(same, level="part")])
    with pytest.raises(ValueError, match="A_S is to be over science, on which no model of this study was tested: `sources` in the grid"):
        estimates.forgetting(kept.predictions, sources=["science"])
    with pytest.raises(ValueError, match="dataset is 'sciense'; choose one of"):
        estimates.forgetting(kept.predictions, sources=["sciense"])
    named = frame.assign(sources="titles icons_choice facts")
    head = tables.forgetting_table(named).head
    assert tables.Cell("A_S", "mean of Titles, Icons (choice), Facts") in head and tables.Cell("Facts", "source, n = 60") in head and tables.Cell("Scenes", "seen, n = 60") in head
    assert tables.Cell("A_S", "mean of the seen") in tables.forgetting_table(plain).head
    facts = {"forgetting": {"parts": named.astype(object).where(named.notna(), None).to_dict("records"), "likeliest": []}}
    assert "in the mean of Facts and Titles." in findings.forgetting(facts)[0]
    drawn = figures.forgetting(named[named["part"].isin(["A_S", "A_T"])])
    assert "on the source sets" in drawn.get_ylabel() and "on the seen sets" in figures.forgetting(plain[plain["part"].isin(["A_S", "A_T"])]).get_ylabel()


def test_the_base_is_that_of_the_same_quantisation_and_the_same_questions(kept: SimpleNamespace) -> None:
    rows = kept.predictions.query("dataset == 'icons_choice' and stage == 'evaluate'")
    packed = rows[rows["method"].isin(["none", "lora"])].assign(quantisation="nf4")
    packed = packed.assign(value=packed["value"].where(packed["method"] != "none", 0.0))
    frame = estimates.forgetting(pd.concat([rows, packed])).set_index(["quantisation", "method", "connector", "part"])
    assert frame.loc[("nf4", "lora", "frozen", "A_S"), "base"] == 0 and frame.loc[("none", "lora", "frozen", "A_S"), "base"] > 50
    without = pd.concat([rows, packed[packed["method"] != "none"]])
    assert pd.isna(estimates.forgetting(without).set_index(["quantisation", "method", "connector", "part"]).loc[("nf4", "lora", "frozen", "A_S"), "difference"])
    other = rows.assign(example_id=rows["example_id"].where(rows["method"] != "none", "x" + rows["example_id"]))
    with pytest.raises(ValueError, match="was asked of one of the two only"):
        estimates.forgetting(other)


def test_forgetting_of_text_is_paired_by_passage(kept: SimpleNamespace) -> None:
    frame = estimates.text_forgetting(kept.texts).set_index(["method", "connector"])
    assert len(frame) == 12
    nats = (100 * 3 + 150 * 3.1 + 90 * 3.2) / 340
    base, lora = frame.loc["none", "frozen"], frame.loc["lora", "tuned"]
    assert base["mean"] == pytest.approx(np.exp(nats)) and base["low"] < base["mean"] < base["high"] and pd.isna(base["difference"]) and pd.isna(base["dataset"])
    assert lora[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([0.2, 0.2, 0.2]) and lora["verdict"] == "higher" and lora["n"] == 340
    assert estimates.text_forgetting(pd.DataFrame()).empty


# ---------------------------------------------------------------- inventions and answers without sight


@pytest.fixture
def captioning(answers: pd.DataFrame) -> pd.DataFrame:
    """Captions of 200 scenes: the base invents in every tenth and names nothing in every twentieth, LoRA in every fifth, at three numbers of steps: at the last it names nothing at all."""
    rows = answers.query("stage == 'probe' and dataset == 'icons_choice' and train_pictures == 'true' and method in ['none', 'lora'] and connector == 'frozen'")
    made = []
    for (_, method), one in rows.drop_duplicates("run").groupby(["run", "method"]):
        for steps in (0,) if method == "none" else (60, 120, 180):
            bad = [i % (10 if method == "none" else 5) == 0 and steps in (0, 60) for i in range(200)]
            named = ["cat; dog" if b else "" if i % 20 == 3 or steps == 180 else "dog" for i, b in enumerate(bad)]
            more = {"example_id": [f"c{i}" for i in range(200)], "picture_id": [f"p{i}" for i in range(200)], "asset": [f"a{i % 50}" for i in range(200)]}
            made.append(pd.concat([one] * 200).assign(**more, tested_on="scene_captions", steps=steps, value=[100.0 * b for b in bad], parsed=named, response=[f"a {n} here" for n in named], objects=[("dog", "cow")] * 200, metric="chair_s"))
    return pd.concat([answers, *made], ignore_index=True)


def test_inventions_on_all_pictures_and_on_those_the_base_captions_without_error(captioning: pd.DataFrame) -> None:
    frame = estimates.invented(captioning).set_index(["method", "steps"])
    assert set(frame["tested_on"]) == {"scene_captions"}
    assert frame.loc[("none", 0), "mean"] == 10 and frame.loc[("lora", 60), "mean"] == 20 and frame.loc[("lora", 120), "mean"] == 0
    lora = frame.loc[("lora", 60)]
    assert lora["difference"] == pytest.approx(10) and lora["verdict"] == "higher"
    assert lora["clean"] == 200 - 20 - 10, "neither wrong nor silent"
    assert frame.loc[("none", 0), "chair_i"] == pytest.approx(100 * 20 / (200 - 10 + 20)) and frame.loc[("none", 0), "object_recall"] == pytest.approx(100 * 190 / 400)
    assert frame.loc[("none", 0), "silent"] == 5 and frame.loc[("none", 0), "words"] == pytest.approx((20 * 4 + 10 * 2 + 170 * 3) / 200)
    assert all(frame.loc[("none", 0), f"{name}_low"] < frame.loc[("none", 0), name] < frame.loc[("none", 0), f"{name}_high"] for name in estimates.DESCRIBED)
    assert lora["broken"] == pytest.approx(100 * 20 / 170) and lora["broken_low"] < lora["broken"] < lora["broken_high"]
    mute = frame.loc[("lora", 180)]
    assert mute["mean"] == 0 and mute["silent"] == 100 and pd.isna(mute["chair_i"]) and mute["object_recall"] == 0, "it looks free of inventions because it names nothing"
    assert mute["silent_difference"] == pytest.approx(95) and mute["silent_verdict"] == "higher" and lora["silent_verdict"] == "not distinguishable"
    assert (mute["broken"], mute["silenced"]) == (0, 100) and lora["silenced"] == 0
    few = estimates.invented(captioning[~captioning["example_id"].isin([f"c{i}" for i in range(90)])]).set_index(["method", "steps"]).loc["lora", 60]
    assert few["clean"] == 94 and pd.isna(few["broken"]) and few["least_clean"] == 100
    assert estimates.invented(captioning[captioning["tested_on"] != "scene_captions"]).empty


def test_captions_do_not_mix_with_the_probe_of_presence(answers: pd.DataFrame, captioning: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(estimates.hallucination(captioning), estimates.hallucination(answers))
    pd.testing.assert_frame_equal(estimates.to_base(captioning, stage="probe"), estimates.to_base(answers, stage="probe"))


def test_a_study_probes_by_yes_or_no_in_one_way(answers: pd.DataFrame) -> None:
    asked = answers.assign(tested_on=answers["tested_on"].where(answers["stage"] != "probe", "pope"))
    pd.testing.assert_frame_equal(estimates.hallucination(asked), estimates.hallucination(answers))
    assert estimates.yes_no(asked) == "pope" and estimates.yes_no(answers[answers["stage"] != "probe"]) is None
    with pytest.raises(ValueError, match="probes by presence and pope: a table holds one"):
        estimates.hallucination(pd.concat([answers, asked]))


def test_answers_that_stay_without_the_picture_are_counted(answers: pd.DataFrame) -> None:
    base = answers.query("stage == 'evaluate' and dataset == 'scenes' and method == 'none'")
    frame = estimates.unchanged(base).set_index("pictures")
    wide = base.assign(said=base["parsed"].fillna("unparsed: " + base["response"])).pivot(index="example_id", columns="test_pictures", values="said")
    for pictures in ("blank", "shuffled"):
        assert frame.loc[pictures, "mean"] == pytest.approx(100 * (wide["true"] == wide[pictures]).mean()) and frame.loc[pictures, "n"] == 60
    deaf = base.assign(method="lora", parsed="plant")
    both = estimates.unchanged(pd.concat([base, deaf])).set_index(["method", "pictures"])
    row = both.loc["lora", "blank"]
    assert row["mean"] == 100 and row["difference"] == pytest.approx(100 - both.loc[("none", "blank"), "mean"]) and row["verdict"] == "higher"
    assert estimates.unchanged(base.query("test_pictures == 'true'")).empty


def test_choices_that_stay_are_told_from_words_that_stay(answers: pd.DataFrame) -> None:
    base = answers.query("stage == 'evaluate' and dataset == 'scenes' and method == 'none'").assign(likeliest=0)
    base = base.assign(choices=[(*said, "another") for said in base["answers"]])
    names = base["example_id"].unique()
    moved = base.assign(likeliest=(base["test_pictures"].eq("blank") & base["example_id"].isin(names[:15])).astype(int))
    lora = base.assign(method="lora", likeliest=0, response=[f"never twice {i}" for i in range(len(base))], parsed=None)
    moved, lora = (rows.assign(likeliest=rows["likeliest"].where(rows["example_id"] != names[-1], -1)) for rows in (moved, lora))
    frame = estimates.unchanged(pd.concat([moved, lora])).set_index(["method", "pictures"])
    assert frame.loc[("none", "blank"), "likeliest"] == pytest.approx(100 * 44 / 59) and frame.loc[("none", "blank"), "likeliest_n"] == 59
    assert frame.loc[("none", "shuffled"), "likeliest"] == 100
    row = frame.loc[("lora", "shuffled")]
    assert row["mean"] == 0 and row["verdict"] == "lower", "by its words it answers otherwise every time"
    assert frame.loc[("lora", "blank"), "likeliest_difference"] == pytest.approx(100 * 15 / 59) and frame.loc[("lora", "blank"), "likeliest_verdict"] == "higher"
    few = frame.reset_index()
    shown = tables.unchanged_table(few)
    assert len(shown.head) == 9 and shown.rows[1][4].text == "100.0"
    facts = {"hallucination": {"unchanged": few.astype(object).where(few.notna(), None).to_dict("records")}}
    said = findings.unchanged(facts)
    assert said[1].startswith("By its likeliest choice, where form counts for nothing, it stays with 74.6") and "under blank pictures, by that share, 1 is higher than the base" in said[2]


def test_what_cannot_be_read_is_no_restraint(answers: pd.DataFrame) -> None:
    probed = answers.query("stage == 'probe'")
    absent = probed["answers"].str[0].eq("no") & probed["method"].eq("lora")
    mute = probed.assign(
        parsed=probed["parsed"].mask(absent, None), outcome=probed["outcome"].mask(absent, "unparsed"), value=probed["value"].mask(absent, 0.0)
    )
    one = absent & probed["example_id"].eq(probed["example_id"][absent].iloc[0])
    mute = mute.assign(parsed=mute["parsed"].mask(one, "yes"), outcome=mute["outcome"].mask(one, "wrong"))
    frame = estimates.hallucination(pd.concat([answers.query("stage != 'probe'"), mute]))
    row = frame[frame["method"] == "lora"].iloc[0]
    assert row["affirmed_read"] == 100 and 0 < row["absent_read"] < row["absent"] / 2 and row["affirmed"] < 50
    said = findings.affirmed({"hallucination": {"scores": frame.astype(object).where(frame.notna(), None).to_dict("records")}})
    assert any("whose answers can be read in at least half of the cases" in line and "LoRA" not in line for line in said)
    assert any(line.startswith("Most answers about absent things of the other ") and "LoRA (connector frozen) 100.0" in line for line in said)


def test_a_published_study_says_what_is_said_without_a_picture(published: collected.Results) -> None:
    rows, words = published.predictions, published.guesses
    frame = estimates.baselines(rows, guesses=words, references=published.references).set_index(["dataset", "baseline"])["mean"]
    asked = rows.query("stage == 'evaluate' and method == 'none' and test_pictures == 'true' and tested_on == 'icons_choice'")
    for name in ("majority", "question_only"):
        said = words.query("tested_on == 'icons_choice' and baseline == @name").set_index("example_id")["response"][asked["example_id"]]
        judged = metrics.judge(asked[["example_id", "choices", "answers", "template"]].assign(response=said.to_numpy()).reset_index(drop=True), "exact")
        assert frame["icons_choice", name] == pytest.approx(judged["value"].mean()) and 20 < judged["value"].mean() < 30
    assert estimates.to_blind(rows, guesses=words, references=published.references).query("method != 'none'")["baseline"].value_counts().to_dict() == {"majority": 11, "question_only": 11}


def test_the_same_questions_are_compared_by_answers_and_by_choices(published: collected.Results) -> None:
    """Titles has open questions: what is lost by answers of all its questions is no measure beside what is lost by the choices of the closed."""
    rows = published.predictions
    given, known = estimates.closed(rows), estimates.by_likelihood(rows)
    assert (given.counted == known.counted).all() and 0 < given.counted.sum() < len(rows)
    asked = rows[given.counted & (rows["method"] == "none") & (rows["dataset"] == "titles") & (rows["test_pictures"] == "true")]
    assert len(asked) == len(given.average(given.counted & rows.index.isin(asked.index), ["tested_on"])[0]) < 1000


def test_inventions_and_stays_are_shown_and_told(captioning: pd.DataFrame) -> None:
    invented, unchanged = estimates.invented(captioning), estimates.unchanged(captioning)
    shown = tables.invented_table(invented)
    assert shown.rows[0][1].text == "Untouched base" and shown.rows[1][5] == "200" and shown.rows[1][7] == "higher"
    assert [cell.text for cell in shown.rows[3][8:]] == ["–", "0.0", "2.0", "100.0"]
    broken = tables.broken_table(estimates.broken(invented))
    assert [(row[3], row[4], row[5].text, row[6].text) for row in broken.rows] == [("60", "170", "11.8", "0.0"), ("120", "170", "0.0", "0.0"), ("180", "170", "0.0", "100.0")]
    assert len(tables.unchanged_table(unchanged).head) == 7
    facts = {"hallucination": {name: frame.astype(object).where(frame.notna(), None).to_dict("records") for name, frame in (("invented", invented), ("unchanged", unchanged))}}
    said = findings.invented(facts)
    assert said[0].startswith("Models were probed after 60, 120 and 180 steps") and said[1].startswith("Of the captions of the bare base 10.0") and "Of 1 tuned model" in said[2] and "1 is lower (LoRA (connector frozen))" in said[2]
    assert "the base names none in 5.0" in said[3] and "LoRA (connector frozen), 100.0" in said[3] and "60" not in said[3]
    assert "On the 170 pictures" in said[4] and "those of LoRA (connector frozen), 0.0" in said[4] and "which names none of the things looked for in 100.0" in said[4] and "up to 100.0" in said[6]
    assert said[5] == "After 60, 120 and 180 steps these shares were, in per cent: LoRA (connector frozen) 11.8, 0.0 and 0.0."
    one = {"hallucination": {"invented": [r for r in facts["hallucination"]["invented"] if r["steps"] in (0, 60)]}}
    assert not any(line.startswith(("Models were probed", "After")) for line in findings.invented(one)) and "1 is higher than the bare base (LoRA (connector frozen))" in findings.invented(one)[1]
    assert findings.unchanged(facts) == [
        "On Scenes the untouched base gives the same answer in 48.3\xa0% [34.2,\xa062.5] (blank pictures) and 48.3\xa0% [34.2,\xa062.5] (shuffled pictures) of the questions.",
        "On Icons (choice) the untouched base gives the same answer in 43.3\xa0% [31.2,\xa055.5] (blank pictures) and 58.3\xa0% [43.7,\xa073.0] (shuffled pictures) of the questions.",
    ]


def test_simple_scenes_are_what_the_protocol_is_said_of_and_too_few_clean_ones_are_said(captioning: pd.DataFrame) -> None:
    captions = captioning[captioning["tested_on"] == "scene_captions"]
    simple = captions.assign(tested_on="clean_captions", value=captions["value"].where(captions["method"] != "none", 0.0))
    both = estimates.invented(pd.concat([captioning, simple]))
    assert both.groupby("tested_on")["clean"].max().to_dict() == {"scene_captions": 170, "clean_captions": 190}
    rows = tables.broken_table(estimates.broken(both)).rows
    assert [row[0].small for row in rows] == [""] * 3 + ["simple scenes"] * 3 and {row[4] for row in rows[3:]} == {"190"}

    def said(frame: pd.DataFrame) -> list[str]:
        return findings.invented({"hallucination": {"invented": frame.astype(object).where(frame.notna(), None).to_dict("records")}})

    assert any("On the 190 pictures" in line for line in said(both)) and not any("170 pictures" in line or line.startswith("Too few") for line in said(both))
    few = estimates.invented(captions[captions["example_id"].isin([f"c{i}" for i in range(100)])])
    assert [line for line in said(few) if line.startswith("Too few for more: of only 85 of 100 pictures the base names things, and only such as are there")] and not any("On the " in line for line in said(few))
    assert estimates.broken(few).empty and estimates.broken(few.iloc[:0]).empty, "a table of nothing but dashes"
    mixed = pd.concat([both, few.assign(dataset="facts")[few["clean"].notna()]])
    assert {row[5].small for row in tables.broken_table(estimates.broken(mixed)).rows if row[4] == "85"} == {"fewer than 100"}


def test_one_training_probed_after_several_steps_has_a_row_for_each(captioning: pd.DataFrame) -> None:
    captions = captioning[captioning["tested_on"] == "scene_captions"]
    tuned = captions["method"] != "none"
    one = captions.assign(probe_step=captions["steps"].where(tuned).astype(float), steps=captions["steps"].where(~tuned, 180))
    columns = ["tested_on", "method", "steps", "mean", "clean", "broken", "silenced"]
    pd.testing.assert_frame_equal(estimates.invented(one)[columns], estimates.invented(captions)[columns])


# ---------------------------------------------------------------- several seeds, mixed levels


def reseeded(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same models under another seed, which answer some questions otherwise."""
    return rows.assign(seed=seed, run=rows["run"] + f"-{seed}")


@pytest.fixture
def packed(answers: pd.DataFrame) -> pd.DataFrame:
    """The study, and LoRA on a base in NF4 that says yes to everything; there LoRA answers as it does in full precision."""
    mine = answers.query("method in ['none', 'lora'] and train_pictures == 'true' and test_pictures == 'true'").assign(quantisation="nf4")
    yes = mine["method"].eq("none") & mine["stage"].eq("probe")
    right = mine["answers"].str[0].eq("yes")
    told = {"response": "yes", "parsed": "yes", "outcome": np.where(right, "right", "wrong"), "value": np.where(right, 100.0, 0.0)}
    return pd.concat([answers, mine.assign(run="packed-" + mine["run"], **{name: mine[name].where(~yes, said) for name, said in told.items()})], ignore_index=True)


def test_a_probe_on_a_quantised_base_is_compared_with_that_base(answers: pd.DataFrame, packed: pd.DataFrame) -> None:
    frame, plain = estimates.hallucination(packed), estimates.hallucination(answers)
    assert frame["method"].isna().sum() == 1 and "quantisation" not in plain, "always saying yes needs no base"
    whole = frame[frame["quantisation"].ne("nf4")].drop(columns="quantisation").reset_index(drop=True)
    pd.testing.assert_frame_equal(whole[plain.columns], plain)
    by = frame.set_index(["quantisation", "method", "connector", "dataset"])
    base, lora = by.loc["nf4"].loc["none"].iloc[0], by.loc["nf4", "lora", "tuned", "scenes"]
    assert (base["affirmed"], base["yes_rate"], base["mean"]) == (100, 100, 25) and pd.isna(base["difference"])
    assert lora["affirmed"] == by.loc["none", "lora", "tuned", "scenes"]["affirmed"] and lora["difference"] == pytest.approx(lora["affirmed"] - 100)
    differences = estimates.to_base(packed, stage="probe").set_index(["quantisation", "method", "connector", "dataset"])
    assert differences.loc[("nf4", "lora", "tuned", "scenes"), "mean"] == pytest.approx(lora["mean"] - 25) and len(differences) == 22 + 4
    assert differences.loc["none"]["mean"].tolist() == estimates.to_base(answers, stage="probe")["mean"].tolist()
    kinds = estimates.by_kind(packed)
    assert set(kinds["quantisation"]) == {"none", "nf4"} and kinds.query("quantisation == 'nf4' and method == 'none' and kind == 'random'")["mean"].tolist() == [0]
    assert "quantisation" not in estimates.to_base(packed), "questions on a quantised base are compared by to_full_precision"
    alone = estimates.hallucination(packed[packed["quantisation"] == "nf4"])
    assert set(alone["quantisation"].dropna()) == {"nf4"} and len(alone) == 2 * 2 + 1 + 1


def test_a_probe_on_a_quantised_base_is_shown_and_told_apart(answers: pd.DataFrame, packed: pd.DataFrame) -> None:
    frame, plain = estimates.hallucination(packed), estimates.hallucination(answers)
    table, usual = tables.hallucination_table(frame), tables.hallucination_table(plain)
    assert [row[1] for row in table.rows if isinstance(row[1], tables.Cell) and row[1].small] == [tables.Cell("LoRA", "NF4 base")] * 4 + [tables.Cell("Untouched base", "NF4 base")]
    assert len(table.rows) == len(usual.rows) + 5 and table.rows[-1] == usual.rows[-1]
    assert [row[1].small for row in tables.differences_table(estimates.to_base(packed, stage="probe")).rows].count("NF4 base") == 4
    drawn = estimates.one_quantisation(frame)
    pd.testing.assert_frame_equal(drawn.drop(columns="quantisation")[plain.columns], plain)
    assert estimates.one_quantisation(plain) is plain and set(estimates.one_quantisation(frame[frame["quantisation"].ne("none")])["quantisation"].dropna()) == {"nf4"}

    def facts(rows: pd.DataFrame) -> dict:
        both = {"scores": estimates.hallucination(rows), "to_base": estimates.to_base(rows, stage="probe")}
        return {"hallucination": {name: found.astype(object).where(found.notna(), None).to_dict("records") for name, found in both.items()}}

    said, before = findings.hallucination(facts(packed)), findings.hallucination(facts(answers))
    assert said[: len(before)] == before, "what is said of full precision does not mix with it"
    assert said[len(before)].startswith("On a base in NF4: untouched it answers 25.0\u00a0% [") and len(said) == len(before) + 3
    assert said[-1].startswith("On a base in NF4, of 4 tuned models, by yeses about absent things, every one is lower than that base.")


def test_the_probe_of_two_seeds_is_averaged(answers: pd.DataFrame) -> None:
    rows = answers[answers["stage"] == "probe"]
    said = rows["response"].where(np.arange(len(rows)) % 3 > 0, "yes")
    bare = rows.drop(columns=[name for name in ("parsed", "outcome", "value") if name in rows])
    other = reseeded(pd.concat([metrics.judge(run, "yes_no") for _, run in bare.assign(response=said).groupby("run", sort=False)]), 7)
    one, two = (estimates.hallucination(part) for part in (rows, other))
    both = estimates.hallucination(pd.concat([rows, other], ignore_index=True))
    for name in ("mean", "unparsed", "precision", "recall", "f1", "yes_rate"):
        assert both[name].tolist() == pytest.approx(((one[name] + two[name]) / 2).tolist()), name
        assert name == "recall" or (one[name] != two[name]).any(), name
    assert both["n"].eq(60).all() and both.loc[both["method"].notna(), "seeds"].eq(2).all() and len(both) == len(one)
    unread = other.assign(parsed=None, outcome="unparsed", value=0.0)
    assert estimates.hallucination(pd.concat([rows, unread], ignore_index=True)).loc[lambda f: f["method"] == "lora", "precision"].isna().all(), "one seed has none"


@pytest.fixture
def two_bases(answers: pd.DataFrame) -> pd.DataFrame:
    """The made-up study on two bases: on the second everything LoRA says is wrong, what (IA)³ says right, and the rest as on the first."""
    other = answers.assign(model="pocket-resampler")
    value = other["value"].mask(other["method"] == "lora", 0.0).mask(other["method"] == "ia3", 100.0)
    return pd.concat([answers, other.assign(value=value)], ignore_index=True)


def test_bases_are_compared_on_what_was_tuned_alike(answers: pd.DataFrame, two_bases: pd.DataFrame) -> None:
    frame = estimates.between_models(two_bases)
    mean = estimates.scores(answers).set_index(["method", "connector", "dataset"])["mean"]
    assert len(frame) == len(mean) and set(frame["model"]) == {"pocket-resampler"} and set(frame["first"]) == {"pocket-mlp"}
    for row in frame.to_dict("records"):
        there = {"lora": 0.0, "ia3": 100.0}.get(row["method"], first := mean[row["method"], row["connector"], row["dataset"]])
        assert row["mean"] == pytest.approx(there - first)
        assert row["verdict"] == ("higher" if row["low"] > 0 else "lower" if row["high"] < 0 else "not distinguishable")
    assert {row["verdict"] for row in frame[frame["method"] == "lora"].to_dict("records")} == {"lower"}
    assert set(frame[frame["method"] == "none"]["verdict"]) == {"not distinguishable"}
    base = {(m, d): mean for m, method, d, mean in estimates.scores(two_bases)[["model", "method", "dataset", "mean"]].itertuples(index=False) if method == "none"}
    for row in frame.to_dict("records"):
        if row["method"] == "none":
            assert row["gained"] is None or np.isnan(row["gained"])
        else:
            assert row["gained"] == pytest.approx(row["mean"] - (base["pocket-resampler", row["dataset"]] - base["pocket-mlp", row["dataset"]])) and row["gained_low"] <= row["gained"] <= row["gained_high"]
    higher = two_bases.assign(value=two_bases["value"] + 7.0 * (two_bases["model"] == "pocket-resampler"))
    again = estimates.between_models(higher)
    np.testing.assert_allclose(again["gained"].to_numpy(dtype=float), frame["gained"].to_numpy(dtype=float), atol=1e-9)
    np.testing.assert_allclose(again["mean"], frame["mean"] + 7.0)
    assert estimates.between_models(answers).empty and estimates.between_methods(answers).empty, "one base: nothing is compared"
    fewer = two_bases[(two_bases["model"] == "pocket-mlp") | (two_bases["tested_on"] != "scenes") | (two_bases["example_id"] != "evaluate-0")]
    assert set(estimates.between_models(fewer)["dataset"]) == {"icons_choice"}, "other questions are no comparison"


def test_every_two_methods_are_compared_on_each_base(two_bases: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = estimates.between_methods(two_bases)
    scored = estimates.scores(two_bases)
    arms = scored[(scored["model"] == "pocket-mlp") & (scored["dataset"] == "scenes") & (scored["method"] != "none")]
    assert len(arms) == 11 > estimates.ARMS, "of more than so many the best of the first base"
    per = estimates.ARMS * (estimates.ARMS - 1) // 2
    assert frame.groupby(["model", "dataset"]).size().to_dict() == {(m, d): per for m in ("pocket-mlp", "pocket-resampler") for d in ("scenes", "icons_choice")}
    left = {(row.method, row.connector) for row in arms.itertuples()} - {(a, b) for row in frame.query("dataset == 'scenes'").itertuples() for a, b in ((row.method, row.connector), (row.other, row.other_connector))}
    assert [tuple(arms.loc[arms["mean"].idxmin(), ["method", "connector"]])] == list(left)
    mean = scored.set_index(["model", "method", "connector", "dataset"])["mean"]
    for row in frame.to_dict("records"):
        assert row["mean"] == pytest.approx(mean[row["model"], row["method"], row["connector"], row["dataset"]] - mean[row["model"], row["other"], row["other_connector"], row["dataset"]])
    monkeypatch.setattr(estimates, "ARMS", 99)
    assert (estimates.between_methods(two_bases).groupby(["model", "dataset"]).size() == 55).all()
    alone = two_bases[(two_bases["model"] == "pocket-mlp") | (two_bases["method"] != "prefix")]
    assert "prefix" not in set(estimates.between_methods(alone)[["method", "other"]].to_numpy().ravel()), "what one base lacks is compared on none"


def test_the_order_of_methods_on_several_bases_is_told(two_bases: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = two_bases[two_bases["method"].isin(["none", "lora", "ia3"]) & (two_bases["connector"] == "frozen") & (two_bases["dataset"] == "scenes")]
    first = rows["model"] == "pocket-mlp"
    value = rows["value"].mask(first & (rows["method"] == "lora"), 100.0).mask(first & (rows["method"] == "ia3"), 0.0).mask(rows["method"] == "none", 50.0)
    rows = rows.assign(value=value + np.where(rows["example_id"].str.endswith("1"), 0.0, 1.0))
    facts = {"main_results": {name: getattr(estimates, name)(rows).to_dict("records") for name in ("scores", "between_models", "between_methods")}}
    assert findings.order(facts) == [
        "On Scenes the means are, from the best down, in the order LoRA (connector frozen) and (IA)³ (connector frozen) on Pocket (MLP); (IA)³ (connector frozen) and LoRA (connector frozen) on Pocket (resampler).",
        "Of 1 comparison of two methods on a data set, 0 have the same sign on all models, 0 of them distinguishably on each; 1 turns, distinguishably one way on one model and the other way on another: LoRA (connector frozen) against (IA)³ (connector frozen) on Scenes.",
    ]
    assert findings.order(findings.shortened(facts))[0] == "On Scenes the means are, from the best down, in the order LoRA and (IA)³ on Pocket (MLP); (IA)³ and LoRA on Pocket (resampler)."
    said = findings.on_models(findings.shortened(facts))
    assert said[0] == "Untouched, Pocket (resampler) is not distinguishable from Pocket (MLP) on Scenes."
    assert said[1].startswith("On Scenes, of 2 models tuned on Pocket (resampler), 1 is higher than the same on Pocket (MLP) ((IA)³) and 1 is lower (LoRA). The differences go from −100.0 points")
    assert said[2].startswith("By what was gained over each one's own base, of these 2, 1 is higher than that on the other ((IA)³) and 1 is lower (LoRA). The differences go from −100.0 points")
    same = {"main_results": {name: [r for r in found if r["model"] == "pocket-mlp"] + [{**r, "model": "pocket-resampler"} for r in found if r["model"] == "pocket-mlp"] for name, found in facts["main_results"].items()}}
    assert findings.order(same) == [
        "On Scenes the means are, from the best down, in the order LoRA (connector frozen) and (IA)³ (connector frozen) on all 2 models.",
        "Of 1 comparison of two methods on a data set, 1 has the same sign on all models, 1 of them distinguishably on each; none turns, distinguishably one way on one model and the other way on another.",
    ]
    assert findings.order({"main_results": {"scores": []}}) == findings.on_models({"main_results": {}}) == []
    monkeypatch.setattr(estimates, "ARMS", 2)
    more = two_bases[two_bases["connector"] == "frozen"]
    cut = {"main_results": {name: getattr(estimates, name)(more).to_dict("records") for name in ("scores", "between_methods")}}
    assert findings.order(cut)[0].startswith("On Scenes ") and findings.order(cut)[0].endswith(" are not compared: not among the 2 that were tuned on all of them and have the best means on Pocket (MLP).")


def test_what_is_true_of_several_bases_is_said_once(answers: pd.DataFrame) -> None:
    three = pd.concat([answers.assign(model=name, value=np.minimum(100.0, answers["value"] + more)) for name, more in (("pocket-mlp", 0.0), ("pocket-resampler", 0.0), ("pocket-merger", 0.5))])
    frame = estimates.to_base(three)
    main = {"to_base": frame.to_dict("records"), "to_base_tally": estimates.tally(frame)}
    said = findings.to_base({"main_results": main})
    one = findings.to_base({"main_results": {"to_base": (alone := estimates.to_base(answers)).to_dict("records"), "to_base_tally": estimates.tally(alone)}})
    assert {sentence.partition(": ")[2] for sentence in said} >= set(one) and len(said) < 3 * len(one)
    assert all(s.startswith(("On each of the 3 models: ", "Pocket (MLP) and Pocket (resampler): ", "Pocket (merger): ")) for s in said)


def test_the_same_may_be_true_of_two_data_sets() -> None:
    base = {"connector": "frozen", "metric": "exact", "mean": 20.0, "low": 10.0, "high": 30.0, "n": 100, "control": None}
    rows = [{**base, "dataset": d, "method": "none", "difference": None, "verdict": None} for d in ("icons_choice", "science")]
    rows += [{**base, "dataset": d, "method": "lora", "difference": 1.0, "verdict": "not distinguishable"} for d in ("icons_choice", "science")]
    for models in (("pocket-mlp",), ("pocket-mlp", "pocket-merger")):
        said = findings.likeliest({"main_results": {"likeliest": [{**row, "model": m} for m in models for row in rows]}})
        assert len(said) == 4 and sum("by that measure" in sentence for sentence in said) == 2, "each follows the sentence that it refers to"
        assert all(sentence.startswith("On each of the 2 models: ") == (len(models) > 1) for sentence in said)


def test_the_spread_between_seeds_is_in_every_score_and_difference(answers: pd.DataFrame) -> None:
    """Under the second seed LoRA has learned nothing: its mean is half way, and its interval is wider."""
    rows = answers[answers["train_pictures"] == "true"]
    failed = reseeded(rows[rows["method"] == "lora"].assign(value=0.0, outcome="wrong"), 7)
    found = pd.concat([rows, failed], ignore_index=True)
    for estimate in (estimates.scores, estimates.to_base, estimates.averages, estimates.averages_to_base, estimates.hallucination, lambda r: estimates.to_base(r, stage="probe")):
        one, both = (frame[frame["method"] == "lora"] for frame in (estimate(rows), estimate(found)))
        assert len(one) == len(both) > 0
        assert ((both["high"] - both["low"]) > (one["high"] - one["low"])).all()
        rest = [frame[frame["method"] == "adapter"].drop(columns=["seeds"], errors="ignore") for frame in (estimate(rows), estimate(found))]
        pd.testing.assert_frame_equal(*(frame.reset_index(drop=True) for frame in rest))


def test_what_another_seed_moves_is_told(answers: pd.DataFrame) -> None:
    """LoRA has three seeds, of which one learned nothing; the others have one."""
    rows = answers[answers["train_pictures"] == "true"]
    assert estimates.stability(rows).empty and estimates.stability_overall(rows).empty and list(estimates.stability(rows)) == list(estimates.STABILITY)
    lora = rows[rows["method"] == "lora"]
    found = pd.concat([rows, reseeded(lora.assign(value=0.0, outcome="wrong"), 7), reseeded(lora, 8)], ignore_index=True)
    frame = estimates.stability(found)
    once = estimates.scores(rows).set_index(["method", "connector", "dataset"])["mean"]
    assert set(frame["method"]) == {"lora"} and len(frame) == 4 and frame["seeds"].eq(3).all()
    for r in frame.to_dict("records"):
        mean = once[r["method"], r["connector"], r["dataset"]]
        assert (r["least"], r["most"], r["mean"]) == pytest.approx((0, mean, 2 * mean / 3)) and r["sd"] == pytest.approx(np.std([mean, mean, 0], ddof=1))
    overall = estimates.stability_overall(found).set_index("connector")
    for connector, mine in frame.groupby("connector"):
        row = overall.loc[connector]
        variances = mine["sd"] ** 2
        assert row["sd"] == pytest.approx(np.sqrt(variances.mean())) and row["datasets"] == 2 and row["low"] < row["sd"] < row["high"]
        assert row["freedom"] == pytest.approx(variances.sum() ** 2 / (variances**2 / 2).sum())
        assert row["mostly"] == mine.loc[variances.idxmax(), "dataset"] and not row["unsteady"], "of two models alike none is the unsteady one"
    table = tables.stability_table(frame, overall.reset_index())
    assert len(table.rows) == 2 and table.head[-1] == tables.Cell("Together", "2 sets")
    first = frame.iloc[0]
    assert table.rows[0][2] == tables.Cell(tables.number(first["sd"]), f"0.0–{tables.number(first['most'])}")


def test_the_one_model_that_seeds_move_is_unsteady(answers: pd.DataFrame) -> None:
    """All methods have three seeds, which move a few answers; those of Prefix-Tuning with the connector frozen move all of them."""
    rows = answers.query("train_pictures == 'true' and test_pictures == 'true' and stage == 'evaluate' and dataset == 'icons_choice' and method != 'none'")
    rng = np.random.default_rng(0)
    loose = (rows["method"] == "prefix") & (rows["connector"] == "frozen")
    others = [reseeded(rows.assign(value=np.where(loose, 100.0 * place, rows["value"].where(rng.random(len(rows)) < 0.98, 0.0))), 7 + place) for place in (0, 1)]
    overall = estimates.stability_overall(pd.concat([rows, *others], ignore_index=True))
    assert overall.loc[overall["unsteady"], ["method", "connector"]].to_numpy().tolist() == [["prefix", "frozen"]] and len(overall) == 11 and overall["mostly"].isna().all()


def test_the_mean_over_sets_that_is_highest_is_compared_with_the_others(answers: pd.DataFrame) -> None:
    frame, means = estimates.averages_to_best(answers), estimates.averages(answers)
    assert frame.empty, "each group of this study has one set"
    two = answers.assign(dataset=answers["dataset"].replace("scenes", "photos"), test_dataset="same", tested_on=answers["tested_on"].replace("scenes", "photos"))
    frame, means = estimates.averages_to_best(two), estimates.averages(two).query("method != 'none'")
    best = means.loc[means["mean"].idxmax()]
    assert len(frame) == len(means) - 1 and (frame["mean"] <= 0).all()
    for r in frame.to_dict("records"):
        mean = means.set_index(["method", "connector"])["mean"]
        assert r["mean"] == pytest.approx(mean[r["method"], r["connector"]] - best["mean"]) and r["group"] == "unseen"


def test_of_captions_seeds_are_told_apart_from_those_in_per_cent(captioned: pd.DataFrame) -> None:
    lora = captioned[captioned["method"] == "lora"]
    found = pd.concat([captioned, reseeded(lora.assign(value=lora["value"] / 2), 7)], ignore_index=True)
    frame, overall = estimates.stability(found), estimates.stability_overall(found)
    assert frame["metric"].nunique() == 2 and overall["datasets"].eq(frame["dataset"].nunique() - 1).all()
    kept = frame[frame["metric"] != "cider"]
    assert overall.loc[0, "sd"] == pytest.approx(np.sqrt((kept.loc[kept["connector"] == overall.loc[0, "connector"], "sd"] ** 2).mean()))


def test_the_spread_between_seeds_is_in_what_was_kept(kept: SimpleNamespace) -> None:
    rows = kept.predictions
    failed = reseeded(rows[rows["method"] != "none"].assign(value=0.0), 7)
    one, both = (estimates.forgetting(found) for found in (rows, pd.concat([rows, failed], ignore_index=True)))
    assert set(one["part"]) >= {"A_S", "H", "O"}
    for low, high in (("low", "high"), ("difference_low", "difference_high")):
        narrow, wide = (frame.loc[frame["method"] != "none", high] - frame.loc[frame["method"] != "none", low] for frame in (one, both))
        assert len(narrow) == len(wide) and (wide.to_numpy() > narrow.to_numpy()).all(), (low, high)


def test_captions_of_two_seeds_are_averaged(captioning: pd.DataFrame) -> None:
    rows = captioning[captioning["tested_on"] == "scene_captions"]
    spared = rows["example_id"].isin([f"c{i}" for i in range(100)])
    other = reseeded(rows.assign(value=rows["value"].where(spared, 100.0 * (rows["method"] == "none"))), 7)
    one = estimates.invented(rows).set_index(["method", "steps"])
    both = estimates.invented(pd.concat([rows, other], ignore_index=True)).set_index(["method", "steps"])
    assert both.loc[("none", 0), "mean"] == (10 + 55) / 2 and both.loc[("lora", 60), "mean"] == (20 + 10) / 2 and both.loc[("lora", 60), "n"] == 200
    assert both.loc[("lora", 60), "difference"] == pytest.approx(15 - 32.5)
    assert both.loc[("lora", 60), "clean"] == one.loc[("lora", 60), "clean"] / 2, "clean is what is so under each seed"
    assert pd.isna(both.loc[("lora", 60), "broken"]) and both.loc[("lora", 60), "least_clean"] == 100, "85 are too few"


def test_what_stands_beside_inventions_is_averaged_by_picture_over_seeds(captioning: pd.DataFrame) -> None:
    rows = captioning[captioning["tested_on"] == "scene_captions"]
    tuned = (rows["method"] != "none").to_numpy()
    named = rows["parsed"].where(~tuned, "cat; cow; dog")
    other = reseeded(rows.assign(parsed=named, response=rows["response"].where(~tuned, "a cat a cow and a dog"), value=rows["value"].where(~tuned, 100.0)), 7)
    frame = estimates.invented(pd.concat([rows, other], ignore_index=True)).set_index(["method", "steps"])
    lora, mute = frame.loc[("lora", 60)], frame.loc[("lora", 180)]
    said = 40 * 2 + 150  # of 200 captions under the first seed 40 name two things and 10 none
    assert lora["chair_i"] == pytest.approx(100 * (40 + 200) / (said + 600)) and lora["chair_i"] != pytest.approx((100 * 40 / said + 100 / 3) / 2), "of the things named in all captions, no mean of ratios"
    assert lora["object_recall"] == pytest.approx(100 * (190 + 400) / 800) and lora["n"] == 200
    assert lora["words"] == pytest.approx((40 * 4 + 10 * 2 + 150 * 3 + 200 * 7) / 400) and lora["silent"] == 2.5 and lora["silent_difference"] == pytest.approx(-2.5)
    assert (lora["clean"], lora["broken"], lora["silenced"]) == (170, pytest.approx((100 * 20 / 170 + 100) / 2), 0)
    assert (mute["mean"], mute["silent"], mute["broken"], mute["silenced"]) == (50, 50, 50, 50) and frame.loc[("none", 0), "silent"] == 5


def test_captions_that_are_no_one_comparison_are_refused(captioning: pd.DataFrame) -> None:
    rows = captioning[captioning["tested_on"] == "scene_captions"]
    tuned = rows[rows["steps"] == 60]
    with pytest.raises(ValueError, match="scene_captions / .* / lora / frozen / icons_choice / 60 mixes batch_size "):
        estimates.invented(pd.concat([rows, reseeded(tuned.assign(batch_size=999), 7)], ignore_index=True))
    with pytest.raises(ValueError, match="/ 60 mixes steps 60, 180: "):
        estimates.invented(pd.concat([rows, reseeded(tuned.assign(steps=180, probe_step=60), 7)], ignore_index=True))
    with pytest.raises(ValueError, match="/ 60 has a question twice for one seed"):
        estimates.invented(pd.concat([rows, tuned], ignore_index=True))


def test_a_row_that_mixes_levels_is_refused_by_every_estimate(answers: pd.DataFrame, kept: SimpleNamespace) -> None:
    tuned = answers[answers["method"] == "lora"]
    mixed = pd.concat([answers, tuned.assign(steps=999, seed=7, run=tuned["run"] + "-999")], ignore_index=True)
    with pytest.raises(ValueError, match="lora / frozen / scenes mixes steps 60, 999"):
        estimates.hallucination(mixed)
    texts = kept.texts.assign(steps=60)
    with pytest.raises(ValueError, match="none / bf16 / none / frozen / icons_choice mixes steps 60, 999: one table"):
        estimates.text_forgetting(pd.concat([texts, texts.assign(steps=999)]))


# ---------------------------------------------------------------- form and knowledge


@pytest.fixture(scope="module")
def published() -> collected.Results:
    """The main study as it is tracked, whose models were asked for the likelihood of every choice."""
    return collected.read_results("main")


def test_the_likeliest_choice_is_scored_as_the_metric_scores_it(published: collected.Results) -> None:
    scored = published.scores.query("metric == 'likeliest' and test_pictures == 'true' and tested_on == dataset").set_index(["dataset", "method", "connector", "train_pictures"])
    known, frame = scored["value"], estimates.likeliest(published.predictions)
    assert frame["dataset"].value_counts().to_dict() == {"icons_choice": 12, "scenes": 1, "facts": 1, "titles": 1}
    for row in frame.to_dict("records"):
        key = row["dataset"], row["method"], row["connector"]
        assert row["mean"] == pytest.approx(known[*key, "true"]) and row["low"] < row["mean"] < row["high"] and row["n"] == scored["n"][*key, "true"]
        if row["method"] != "none":
            assert row["difference"] == pytest.approx(known[*key, "true"] - known[row["dataset"], "none", "frozen", "true"])
        has = (*key, "shuffled") in known.index
        assert (row["control"] == pytest.approx(known[*key, "true"] - known[*key, "shuffled"])) if has else pd.isna(row["control"])


def test_what_is_kept_by_the_likeliest_option_is_what_is_known(kept: SimpleNamespace) -> None:
    """Every tuned model names nothing on scenes but weighs the right answer highest; on the other sets it weighs the wrong one highest."""
    rows = kept.predictions.query("stage == 'evaluate' and train_pictures == 'true' and test_pictures == 'true' and dataset == 'icons_choice'").reset_index(drop=True)
    options = [("never", said[0]) for said in rows["answers"]]
    right = rows["tested_on"].eq("scenes") | rows["method"].eq("none")
    rows = rows.assign(choices=[()] * len(rows), options=pd.Series(options, dtype=object), likeliest=right.astype(int), value=np.where(rows["method"].eq("none"), rows["value"], 0.0))
    by = estimates.forgetting(estimates.by_likelihood(rows)).set_index(["method", "connector", "part"])
    assert by.loc[("lora", "tuned", "scenes"), ["mean", "base", "difference"]].tolist() == [100.0, 100.0, 0.0]
    assert by.loc[("lora", "tuned", "facts"), ["mean", "base", "difference", "verdict"]].tolist() == [0.0, 100.0, -100.0, "lower"]
    assert estimates.forgetting(rows).set_index(["method", "connector", "part"]).loc[("lora", "tuned", "scenes"), "mean"] == 0


def test_answers_that_were_not_weighed_are_none_of_the_likeliest(published: collected.Results) -> None:
    """Beside others they are as though they were not there, and they are not copied."""
    rows = published.predictions
    there = (rows["likeliest"] >= 0).to_numpy()
    both, alone = estimates.by_likelihood(rows), estimates.by_likelihood(rows[there])
    assert 0 < there.sum() < len(rows) == len(both.rows) and both.tested_on == alone.tested_on == set(rows["tested_on"][there])
    pd.testing.assert_frame_equal(estimates.scores(both), estimates.scores(alone))
    assert "presence" not in both.tested_on and np.shares_memory(both.rows["run"].array.codes, rows["run"].array.codes)


def test_without_likelihoods_there_is_no_likeliest_choice(answers: pd.DataFrame) -> None:
    assert estimates.by_likelihood(answers) is None and estimates.likeliest(answers).empty


def test_what_the_control_gained_is_between_it_and_the_base(answers: pd.DataFrame) -> None:
    frame = estimates.to_shuffled(answers)
    means = estimates.scores(answers).set_index(["method", "connector", "dataset"])["mean"]
    for row in frame.to_dict("records"):
        base = means["none", "frozen", row["dataset"]]
        assert row["gain"] == pytest.approx(means[row["method"], row["connector"], row["dataset"]] - base)
        assert row["gain"] - row["control_gain"] == pytest.approx(row["mean"])


def test_absent_things_affirmed_are_counted_apart(published: collected.Results) -> None:
    rows = published.predictions
    frame = estimates.hallucination(rows)
    probe = rows[(rows["stage"] == "probe") & (rows["train_pictures"] == "true")]
    absent = probe[[a[0] == "no" for a in probe["answers"]]]
    known = absent.groupby(["method", "connector"], observed=True)["parsed"].apply(lambda said: 100 * (said == "yes").mean())
    base = known["none", "frozen"]
    for row in frame[frame["method"].notna()].to_dict("records"):
        assert row["affirmed"] == pytest.approx(known[row["method"], row["connector"]]) and row["absent"] == 450
        assert pd.isna(row["difference"]) if row["method"] == "none" else row["difference"] == pytest.approx(row["affirmed"] - base)
    (always,) = frame[frame["method"].isna()].to_dict("records")
    assert (always["mean"], always["affirmed"]) == (50, 100) and pd.isna(always["low"]) and pd.isna(always["affirmed_low"])


def test_rates_tried_are_those_of_the_sweep() -> None:
    frame = estimates.rates(collected.read_costs("lr"))
    assert len(frame) == 23 and frame["lr"].notna().all() and set(frame["method"]) == {"lora", "adapter", "ia3", "prefix", "full", "connector"}
    for method, mine in frame.groupby("method"):
        best = mine.loc[mine["validation_loss"].idxmin(), "lr"]
        assert mine["lr"].min() < best < mine["lr"].max(), f"{method} has no worse rate on either side"
        assert best == (methods.CONNECTOR_LR if method == "connector" else methods.card(method).lr), f"the card of {method} is not the sweep's choice"
    assert estimates.rates(collected.read_costs("nothing")).empty
