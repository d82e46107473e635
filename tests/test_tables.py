"""Tables say what frames hold, in three forms, with hostile texts shown as texts."""

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pypandoc
import pytest
import typst

from peftlab import collected, estimates, tables
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
    scores, averages, baselines = estimates.scores(answers), estimates.averages(answers), estimates.baselines(answers)
    main = tables.main_table(scores, averages, baselines)
    assert len(main.rows) == 12 + 4 and main.rules == {12}
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
    table = tables.main_table(estimates.scores(lacking), estimates.averages(lacking), estimates.baselines(lacking))
    row = next(r for r in table.rows if r[0] == "(IA)³")
    assert row[2] == Cell("–") and row[3] != Cell("–")
    one = estimates.scores(lacking.assign(picture_id="p", asset="a"))
    assert tables.main_table(one, pd.DataFrame(columns=["method", "connector", "group"]), pd.DataFrame(columns=["baseline", "dataset"])).rows[0][2].small == ""
