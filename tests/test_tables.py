"""Tables say what frames hold, in three forms, with hostile texts shown as texts."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pypandoc
import pytest
import typst

from peftlab import collected, estimates, style, tables
from peftlab.tables import Cell, Table

EVIL = ['<script>alert(1)</script> & "q"', "#eval(\"1+1\") $x$ *b* _i_ `c` \\", "a | b\n| c", "@cite <label> [link](http://x) ![p](file:///etc/passwd)", "= head\n- item"]
TABLE = Table(("Head <b>", "Two"), tuple((e, Cell(e, e)) for e in EVIL), "lr", frozenset({1}))


class Texts(HTMLParser):
    """Collects tags and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_shows_markup_as_text() -> None:
    reader = Texts()
    reader.feed(tables.as_html(TABLE))
    assert reader.tags == {"table", "thead", "tbody", "tr", "th", "td", "span"}
    assert all(e in reader.text for e in EVIL)


def test_markdown_shows_markup_as_text() -> None:
    reader = Texts()
    reader.feed(pypandoc.convert_text(tables.as_markdown(TABLE), "html", format="markdown"))
    assert not reader.tags & {"script", "a", "img", "em", "strong", "code", "b", "figure"}
    assert all(" ".join(e.split()) in " ".join(reader.text.split()) for e in EVIL)


def test_typst_shows_markup_as_text() -> None:
    source = "#let booktabs(align: (), rules: (), head: (), ..rows) = [" + "#metadata(rows.pos()) <rows>]\n#" + tables.as_typst(TABLE)
    import json

    found = json.loads(typst.query(source.encode(), "<rows>", field="value", one=True))
    assert [row[0][0] for row in found] == [e.replace("\n", " ") for e in EVIL]


def test_letters_without_a_glyph_are_named_in_print() -> None:
    assert tables.literal('🦊 "x" \\ é') == '"⟨fox face⟩ \\"x\\" \\\\ é"'


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 cells in a table of 2 columns"):
        Table(("a", "b"), (("1", "2", "3"),), "ll")


def test_numbers() -> None:
    assert [tables.number(v) for v in (-1.25, 1234.5, None, float("nan"), 0)] == ["−1.2", "1,234.5", "–", "–", "0.0"]
    assert [tables.rate(v) for v in (1e-3, 5e-5, 2.5e-4, None, float("nan"), "1e-3 / 1e-4")] == ["1e−3", "5e−5", "2.5e−4", "–", "–", "1e-3 / 1e-4"]
    assert [tables.scaled(v, tables.PARAMETERS) for v in (0, 999, 41_472, 2_949_120, 106_000_000, None)] == ["0", "999", "41.5\u00a0k", "2.95\u00a0M", "106\u00a0M", "–"]
    assert tables.bounds(1.0, 2.0) == "[1.0,\u00a02.0]" and tables.bounds(None, None) == "–"


def test_tables_of_a_study(study: Path) -> None:
    results = collected.read_results("smoke")
    answers = results.predictions
    scores, averages, blind = estimates.scores(answers), estimates.averages(answers), [make(answers, guesses=results.guesses) for make in (estimates.baselines, estimates.baseline_averages)]
    main = tables.main_table(scores, averages, *blind)
    assert len(main.rows) == 12 + 5 and main.rules == {12} and [row[0] for row in main.rows[12:]] == [style.label("baseline", b) for b in style.order("baseline")]
    assert [row[-1] == "–" for row in main.rows[12:]] == [False] * 4 + [True], "chance says nothing that could be read"
    first = scores.query("method == 'none' and dataset == 'scenes'").iloc[0]
    assert main.rows[0][:3] == ("Untouched base", "–", Cell(tables.number(first["mean"]), tables.bounds(first["low"], first["high"])))
    made = [
        tables.differences_table(estimates.to_base(answers)), tables.hallucination_table(estimates.hallucination(answers)),
        tables.cost_table(estimates.bought(estimates.costs(results.costs), answers)), tables.definitions_table(estimates.definitions(answers, results.costs)), tables.data_table(estimates.data(answers)),
    ]  # fmt: skip
    for table in (main, *made):
        assert all(form(table) for form in (tables.as_html, tables.as_typst, tables.as_markdown)) and table._repr_html_().startswith("<table>")
        assert "nan" not in tables.as_markdown(table) and "None" not in tables.as_markdown(table)


def test_in_a_notebook_small_print_has_a_line_of_its_own() -> None:
    table = tables.Table(("a", Cell("b", 'class="l" <br>')), (("x", Cell("54.6", "[50.6, 58.6]")),), "lr", frozenset({0}))
    page = table._repr_html_()
    assert '54.6<br><span class="small"' in page and page.count("<br>") == 2, "what a text holds is no mark"
    assert page.count("text-align: left") == 2 and "border-top" in page
    assert "style" not in tables.as_html(table)


def test_what_is_missing_is_a_dash(study: Path) -> None:
    answers = collected.read_results("smoke").predictions
    lacking = answers[~((answers["method"] == "ia3") & (answers["dataset"] == "scenes"))]
    table = tables.main_table(estimates.scores(lacking), estimates.averages(lacking), estimates.baselines(lacking), estimates.baseline_averages(lacking))
    row = next(r for r in table.rows if r[0] == "(IA)³")
    assert row[2] == Cell("–") and row[3] != Cell("–")
    one = estimates.scores(lacking.assign(picture_id="p", asset="a"))
    assert tables.main_table(one, *(pd.DataFrame(columns=names) for names in (["method", "connector", "group"], ["baseline", "dataset"], ["baseline", "group"]))).rows[0][2].small == ""


# ---------------------------------------------------------------- several models

FRAMES: dict[str, tuple[Callable[..., Table], Callable[..., list[pd.DataFrame]]]] = {
    "main": (tables.main_table, lambda rows, texts, costs: [estimates.scores(rows), estimates.averages(rows), estimates.baselines(rows), estimates.baseline_averages(rows)]),
    "differences": (tables.differences_table, lambda rows, texts, costs: [estimates.to_base(rows)]),
    "forgetting": (tables.forgetting_table, lambda rows, texts, costs: [estimates.forgetting(rows)]),
    "lost": (lambda frame: tables.forgetting_table(frame, differences=True), lambda rows, texts, costs: [estimates.forgetting(rows)]),
    "text": (tables.text_table, lambda rows, texts, costs: [estimates.text_forgetting(texts)]),
    "hallucination": (tables.hallucination_table, lambda rows, texts, costs: [estimates.hallucination(rows)]),
    "invented": (tables.invented_table, lambda rows, texts, costs: [estimates.invented(rows)]),
    "broken": (tables.broken_table, lambda rows, texts, costs: [estimates.invented(rows).dropna(subset="clean")]),
    "unchanged": (tables.unchanged_table, lambda rows, texts, costs: [estimates.unchanged(rows)]),
    "cost": (tables.cost_table, lambda rows, texts, costs: [estimates.bought(estimates.costs(costs), rows)]),
}
OTHER = "pocket-resampler"


def test_every_table_names_the_model_where_there_are_several(study: Path, ask: Callable[..., None], plain: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    ask(study)
    results = collected.read_results("smoke")
    rows = plain(results.predictions)
    captions = rows[rows["stage"] == "probe"]
    captions = captions.assign(tested_on="scene_captions", metric="chair_s", objects=[["dog"]] * len(captions))
    given = [pd.concat([rows, captions], ignore_index=True), results.texts, results.costs]
    twice = [pd.concat([frame, frame.assign(model=OTHER)], ignore_index=True) for frame in given]
    for name, (table, frames) in FRAMES.items():
        one, both = table(*frames(*given)), table(*frames(*twice))
        size = len(one.rows)
        assert size > 1 and both.head == ("Model", *one.head) and len(both.rows) == 2 * size, name
        for start, label in ((0, "Pocket (MLP)"), (size, "Pocket (resampler)")):
            block = both.rows[start : start + size]
            assert block[0][0] == Cell(label) and {row[0] for row in block[1:]} <= {""}, name
            assert tuple(row[1:] for row in block) == one.rows, name
        assert both.rules == one.rules | {size} | {size + rule for rule in one.rules}, name
    data = [estimates.data(frames) for frames in (given[0], twice[0])]
    assert tables.data_table(data[1]) == tables.data_table(data[0]), "the same questions are asked of both: one row says so"


def test_every_table_names_the_precision_where_there_are_several(study: Path, ask: Callable[..., None]) -> None:
    ask(study)
    texts = collected.read_results("smoke").texts
    frame = estimates.text_forgetting(pd.concat([texts, texts.assign(precision="fp32")]))
    table = tables.text_table(frame)
    assert table.head[0] == "Precision" and {row[0].text for row in table.rows if row[0]} == {"fp32", texts["precision"].iloc[0]}


def test_differences_between_bases_have_a_column_each(study: Path, plain: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    rows = plain(collected.read_results("smoke").predictions)
    rows = pd.concat([rows, rows.assign(model=OTHER, value=np.where(rows["method"] == "none", 100.0 - rows["value"], rows["value"]))], ignore_index=True)
    frame = estimates.between_models(rows)
    table = tables.models_table(frame)
    assert table.head == ("Data set", "Method", "Connector", Cell("Pocket (resampler)", "to Pocket (MLP)"), Cell("Gained", "to the same")) and len(table.rows) == len(frame) == 24
    assert table.rules == {12} and [row[0] for row in table.rows if row[0]] == ["Scenes", "Icons (choice)"]
    (bare,) = (r for r in frame.to_dict("records") if r["method"] == "none" and r["dataset"] == "scenes")
    assert table.rows[0][1:3] == ("Untouched base", "–") and table.rows[0][3] == Cell(("+" if bare["mean"] > 0 else "") + tables.number(bare["mean"]), tables.bounds(bare["low"], bare["high"]))
    tuned = frame[frame["method"] != "none"].to_dict("records")[0]
    assert table.rows[0][4] == Cell("–") and table.rows[1][4] == tables._change({f"difference{end}": tuned[f"gained{end}"] for end in ("", "_low", "_high")}) != table.rows[1][3]
    bare = tables.models_table(frame[frame["method"] == "none"])
    assert bare.head == (*table.head[:4],) and [len(row) for row in bare.rows] == [4, 4] and len(bare.align) == 4, "untouched bases have gained nothing"
    pairs = estimates.between_methods(rows)
    table = tables.order_table(pairs)
    assert table.head == ("Data set", "Method", "Against", "Pocket (MLP)", "Pocket (resampler)") and 2 * len(table.rows) == len(pairs)
    first = pairs.query("model == 'pocket-mlp'").to_dict("records")[0]
    assert table.rows[0][1:3] == (Cell(tables.style.label("method", first["method"]), first["connector"]), Cell(tables.style.label("method", first["other"]), first["other_connector"]))
    assert table.rows[0][3] == table.rows[0][4] and table.rows[0][3].text.lstrip("+") == tables.number(first["mean"])
    one = tables.order_table(pairs.query("connector == 'frozen' and other_connector == 'frozen'"))
    assert {row[1].small for row in one.rows} == {""}, "one state of the connector is told nowhere"


def test_a_double_key_is_refused(study: Path) -> None:
    answers = collected.read_results("smoke").predictions
    scores, averages, blind = estimates.scores(answers), estimates.averages(answers), (estimates.baselines(answers), estimates.baseline_averages(answers))
    with pytest.raises(ValueError, match="two rows are none / frozen / scenes .* tell them apart"):
        tables.main_table(pd.concat([scores, scores]), averages, *blind)


def test_what_the_bases_know_has_a_row_per_data_set_and_base(study: Path, plain: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    rows = plain(collected.read_results("smoke").predictions)
    asked = rows.query("stage == 'evaluate' and method == 'none' and dataset == 'scenes' and test_pictures == 'true'")
    guesses = pd.DataFrame({"baseline": "question_only", "tested_on": "scenes", "example_id": asked["example_id"], "response": [a[0] if i % 4 == 0 else "never" for i, a in enumerate(asked["answers"])]})
    made = collected.read_results("smoke").guesses.query("baseline == 'majority'")
    frame = estimates.bases(rows, guesses=pd.concat([made, guesses, guesses.assign(example_id="not asked").head(1)]))
    share = 100 * np.mean([i % 4 == 0 for i in range(len(asked))])
    one = tables.bases_table(frame)
    assert [row[0].text for row in one.rows] == ["Scenes", "Icons (choice)"] and [cell if isinstance(cell, str) else cell.text for cell in one.head][1:] == [*tables.KNOWN.values(), "Unparsed"]
    base = rows.query("stage == 'evaluate' and method == 'none' and dataset == 'scenes'").groupby("test_pictures")["value"].mean()
    assert [one.rows[0][i].text for i in (1, 2, 3, 5)] == [*(tables.number(base[k]) for k in ("true", "blank", "shuffled")), tables.number(share)] and one.rows[1][5] == Cell("–") and one.rows[1][4] != Cell("–")
    other = rows.assign(model=OTHER, value=np.where(rows["method"] == "none", 100.0 - rows["value"], rows["value"]))
    both = tables.bases_table(estimates.bases(pd.concat([rows, other], ignore_index=True)))
    assert [row[:2] for row in both.rows] == [(one.rows[0][0], "Pocket (MLP)"), ("", "Pocket (resampler)"), (one.rows[1][0], "Pocket (MLP)"), ("", "Pocket (resampler)")]
    assert both.rules == {2} and both.rows[1][2].text == tables.number(100 - base["true"]) and both.rows[1][5] == "", "what is the question's own stands once"
    assert estimates.bases(rows[rows["method"] != "none"]).empty


def test_how_far_the_bases_are_above_what_needs_no_sight_has_a_row_per_data_set_and_base(study: Path, plain: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    results = collected.read_results("smoke")
    rows = plain(results.predictions)
    frame = estimates.to_blind(rows, guesses=results.guesses)
    one = tables.blind_table(frame)
    assert [cell if isinstance(cell, str) else cell.text for cell in one.head] == ["Data set", "Blank", "Shuffled", "Most frequent", "Question only"] and len(one.rows) == 2
    row = frame.query("method == 'none' and dataset == 'icons_choice' and baseline == 'question_only'").iloc[0]
    assert one.rows[1][0] == Cell("Icons (choice)", "unseen, n = 60") and one.rows[1][4] == Cell(f"{'+' if row['mean'] > 0 else ''}{tables.number(row['mean'])}", tables.bounds(row["low"], row["high"]))
    both = tables.blind_table(pd.concat([frame, frame.assign(model=OTHER)]))
    assert [cells[1] for cells in both.rows] == ["Pocket (MLP)", "Pocket (resampler)"] * 2 and both.rows[1][2:] == both.rows[0][2:], "every base has differences of its own, also where they are the same"


def test_a_control_stands_with_what_was_gained_without_sight() -> None:
    rows = [{"dataset": "scenes", "method": m, "connector": "frozen", "mean": 5.0, "low": 1.0, "high": 9.0, "n": 200, "verdict": "higher", "gain": 17.0, "control_gain": 12.0} for m in ("lora", "ia3")]
    rows.append({**rows[0], "dataset": "facts", "gain": None, "control_gain": None})
    table = tables.control_table(pd.DataFrame(rows))
    assert table.head[-2:] == (Cell("Gain", "over the base"), "Verdict") and table.rules == frozenset({2})
    assert [row[-2] for row in table.rows] == [Cell("17.0", "12.0 without sight")] * 2 + [Cell("–")] and table.rows[0][3:5] == ("+5.0", "[1.0,\u00a09.0]")


def test_of_many_data_sets_the_highest_share_of_unparsed_answers_stands(study: Path) -> None:
    scores = estimates.scores(collected.read_results("smoke").predictions)
    first = scores[scores["dataset"] == "scenes"]
    sets = ("scenes", "facts", "titles", "photos")
    many = pd.concat([first.assign(dataset=name, n=100, unparsed=float(10 * i)) for i, name in enumerate(sets)], ignore_index=True)
    none = pd.DataFrame(columns=["method", "connector", "group", "datasets", "baseline", "dataset"])
    table = tables.main_table(many, none, none, none)
    assert table.head[-1] == Cell("Unparsed", "the most, %") and {row[-1] for row in table.rows} == {Cell("30.0", "Photos")}
    few = tables.main_table(many[many["dataset"] != "photos"], none, none, none)
    assert few.head[-1] == Cell("Unparsed", "by data set, %") and few.rows[0][-1] == "0.0 / 10.0 / 20.0"
