"""A study that runs a method in several ways tells them apart, in every table and in the report."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from peftlab import collected, estimates, figures, style, tables, ways


def test_only_what_makes_two_of_one_comparison_is_told_apart() -> None:
    cell = {"model": "m", "connector": "frozen", "dataset": "scenes", "train_pictures": "true", "quantisation": "none", "seed": 1}
    rows = [
        {**cell, "method": "lora", "location": "attn", "size": 8, "train_size": None}, {**cell, "method": "lora", "location": "mlp", "size": 8, "train_size": None},
        {**cell, "method": "ia3", "location": "both", "size": None, "train_size": 500}, {**cell, "method": "ia3", "location": "both", "size": None, "train_size": None},
        {**cell, "method": "adapter", "location": "mlp", "size": 8, "train_size": None}, {**cell, "method": "adapter", "location": "mlp", "size": 16, "train_size": None, "dataset": "facts"},
        {**cell, "method": "prefix", "location": None, "size": 20, "train_size": None}, {**cell, "method": "prefix", "location": None, "size": 20, "train_size": None, "seed": 2},
    ]  # fmt: skip
    told = ways.varied(pd.DataFrame(rows))
    assert told == {"lora": ("location",), "ia3": ("train_size",)}, "sizes that differ by data set, and seeds, are no ways of their own"
    assert ways.varied(pd.DataFrame()) == {}
    same = [{**cell, "method": "lora", "location": place} for place in (None, "both")]
    assert ways.varied(pd.DataFrame(same)) == {} and ways.varied(pd.DataFrame([{**row, "method": "none", "steps": i} for i, row in enumerate(same)])) == {}
    assert ways.varied(pd.DataFrame([*same, {**same[0], "location": "attn"}])) == {"lora": ("location",)}


@pytest.mark.parametrize("category", [False, True])
def test_names_hold_the_levels_whatever_the_table_was_read_from(category: bool) -> None:
    frame = pd.DataFrame({"method": ["lora", "none", "lora", "ia3", "lora"], "location": ["attn", None, "mlp", "both", "attn"], "size": [8.0, np.nan, 8.0, np.nan, np.nan], "value": range(5)})
    frame.loc[3, "location"] = None
    frame = frame.astype({"method": "category", "location": "category", "size": pd.CategoricalDtype([8.0], ordered=True)}) if category else frame
    found = ways.apart(frame, {"lora": ("location", "size"), "dora": ("size",)})
    assert found["method"].tolist() == ["lora@location=attn,size=8", "none", "lora@location=mlp,size=8", "ia3", "lora@location=attn,size="]
    assert isinstance(found["method"].dtype, pd.CategoricalDtype) == category and found["value"].tolist() == list(range(5))
    assert frame["method"].tolist()[0] == "lora", "the frame that was given is as it was"
    assert ways.apart(frame, {}) is frame


def test_ways_are_called_and_ordered_by_their_levels() -> None:
    given = ["none", "lora@location=mlp", "adapter@train_size=", "lora@location=both", "adapter@train_size=1000", "lora@location=attn", "adapter@train_size=200", "full"]
    assert style.shown("method", given) == [
        "none", "full", "lora@location=both", "lora@location=attn", "lora@location=mlp", "adapter@train_size=200", "adapter@train_size=1000", "adapter@train_size=",
    ]  # fmt: skip
    names = {
        "lora@location=attn,size=8": "LoRA [attention, rank 8]", "adapter@train_size=": "Adapter [all examples]",
        "ia3@lr=0.001": "(IA)³ [rate 0.001]", "lora@replay=0.05": "LoRA [5 % replay]", "lora": "LoRA",
        "lora@location=both": "LoRA [attention and MLP]", "adapter@train_size=1000000": "Adapter [1,000,000 examples]", "prefix@replay=": "Prefix-Tuning [no replay]",
    }  # fmt: skip
    assert {name: style.label("method", name) for name in names} == names
    beside = [*(f"lora@location={place}" for place in ("attn", "mlp", "both")), "ia3", "adapter@size=2", "adapter@size=4"]
    assert len({(style.colour(name), style.marker(name, beside)) for name in beside}) == len(beside) and style.colour(beside[0]) == style.colour("lora")
    with pytest.raises(ValueError, match="method is 'lorra@size=8'; choose one of none, "):
        style.label("method", "lorra@size=8")
    ordered = style.ordered(pd.DataFrame({"method": given[::-1]}), ("method",))["method"].tolist()
    assert ordered == style.shown("method", given)


def test_ways_are_compared_like_methods(placed: Path) -> None:
    whole = collected.read_results("smoke")
    with pytest.raises(ValueError, match="lora .* mixes location"):
        estimates.scores(whole.predictions)
    results = whole.by_ways()
    names = {"lora@location=both", "lora@location=attn"}
    scores = estimates.scores(results.predictions)
    assert names < set(scores["method"]) and "lora" not in set(scores["method"]) and len(scores) == 2 * 14
    raw = whole.predictions
    for name in names:
        mine = raw["location"].isna() if name.endswith("both") else raw["location"] == "attn"
        cell = raw[mine].query("method == 'lora' and stage == 'evaluate' and dataset == 'scenes' and train_pictures == 'true' and connector == 'tuned'")
        assert scores.set_index(["method", "connector", "dataset"]).loc[(name, "tuned", "scenes"), "mean"] == pytest.approx(cell["value"].mean())
    assert set(estimates.to_shuffled(results.predictions)["method"]) == names | {"adapter"}
    defined = estimates.definitions(results.predictions, results.costs).set_index("method")
    assert defined.loc["lora@location=attn", "trainable_llm"] == 1_000_000 and defined.loc["lora@location=both", "size_name"] == "rank"
    blind = (make(results.predictions, guesses=results.guesses) for make in (estimates.baselines, estimates.baseline_averages))
    shown = [row[0] for row in tables.main_table(scores, estimates.averages(results.predictions), *blind).rows]
    assert shown.index("LoRA [attention and MLP]") < shown.index("LoRA [attention]") < shown.index("(IA)³")
    ax = figures.main_results(scores)
    assert "LoRA [attention]" in [t.get_text() for t in ax.get_yticklabels()]
    again = collected.read_results("smoke")
    assert not ways.varied(again.costs[again.costs["location"].isna()]) and set(again.predictions["method"].unique()) == set(raw["method"].unique()), "what was stored is as it was"


def test_ways_of_a_study_without_costs_are_told_apart(placed: Path) -> None:
    rows = pd.read_parquet(placed / "predictions.parquet")
    about = [name for name in pd.read_csv(placed / "scores.csv", nrows=1) if name in rows]
    rows[about].drop_duplicates().assign(metric="exact", value=0.0, n=1, unparsed=0).to_csv(placed / "scores.csv", index=False)
    (placed / "costs.csv").unlink()
    results = collected.read_results("smoke").by_ways()
    assert results.told == {"lora": ("location",)} and len(estimates.scores(results.predictions)) == 2 * 14


def test_a_study_of_one_way_each_is_as_it_was(study: Path) -> None:
    whole = collected.read_results("smoke")
    assert whole.by_ways().told == {}
    pd.testing.assert_frame_equal(whole.by_ways().predictions, whole.predictions)
