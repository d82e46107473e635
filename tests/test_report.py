"""The report from a made-up study: two forms of one document, hostile texts as texts, every number from facts."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pyarrow.parquet as pq
import pytest
import typst
from PIL import Image

from peftlab import __main__, answers, blocks, collected, execute, findings, grid, kernels, models, paths, report, style, tables
from peftlab.blocks import Figure, Gallery, Heading, Listing, Paragraph, Tabular, plain
from peftlab.run import Run

AGGREGATE = list(__main__.AGGREGATE)
NUMBER = r"\d[\d,]*(?:\.\d+)?"


def perform(notebook: str) -> dict[str, Any]:
    """The cells of an aggregate notebook for the study smoke, in this process; returns their names."""
    names: dict[str, Any] = {}
    for cell in nbformat.read(paths.notebooks() / f"{notebook}.ipynb", as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            names["study"] = "smoke"
        elif cell.cell_type == "code":
            exec(compile(cell.source, f"{notebook}:{cell.id}", "exec"), names)
    plt.close("all")
    return names


@pytest.fixture(scope="module")
def made(written: Path, prepare: Callable[[], None], ask: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which the aggregate notebooks have run; made once, copied by `built`."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTLAB_WORK", str(folder))
        ask(Path(shutil.copytree(written, folder / "results" / "smoke")))
        prepare()
        for notebook in AGGREGATE:
            perform(notebook)
    return folder


@pytest.fixture
def built(made: Path, work: Path, cache: Path) -> Path:
    """A copy of that work folder for one test."""
    return Path(shutil.copytree(made, work, dirs_exist_ok=True))


class Page(HTMLParser):
    """Collects tags, their attributes, and texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.style = tag == "style"

    def handle_data(self, data: str) -> None:
        self.text += "" if self.style else data


def squeezed(text: str) -> str:
    """A text without any blanks: lines of a PDF break anywhere."""
    return re.sub(r"\s+", "", text)


def test_both_forms_are_built_and_self_contained(built: Path, markup: tuple[str, ...]) -> None:
    made = report.build("smoke")
    page = Page(made.html.read_text())
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"script", "iframe", "link", "object", "form"}
    for tag, attributes in page.tags:
        assert all((attributes.get(name) or "data:").startswith("data:") for name in ("src", "srcset")), tag
        assert tag != "img" or attributes["alt"]
        assert not any(name.startswith("on") for name in attributes)
    for text in markup:
        assert squeezed(text) in squeezed(page.text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["href"][1:] in ids for tag, a in page.tags if tag == "a" and a["href"].startswith("#"))
    assert made.pdf.read_bytes().startswith(b"%PDF") and b"pdfuaid:part>1<" in made.pdf.read_bytes()
    assert json.loads(made.facts.read_text()) == collected.read_facts("smoke")


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext reads the PDF back")
def test_the_pdf_shows_markup_as_text_and_numbers_its_pages(built: Path, markup: tuple[str, ...]) -> None:
    made = report.build("smoke")
    text = subprocess.run(["pdftotext", "-layout", made.pdf, "-"], capture_output=True, text=True, check=True).stdout
    words = squeezed(subprocess.run(["pdftotext", "-raw", made.pdf, "-"], capture_output=True, text=True, check=True).stdout)
    assert all(part in words for part in ("<script>alert", '#eval("1")', "$x$*no*", "⟨foxface⟩fox|pipe"))
    for number, page in enumerate(text.rstrip("\f").split("\f"), 1):
        assert page.rstrip().endswith(str(number))
    for heading in ("1 Question", "2.2 Tuning methods", "4.2 Accuracy", "5 Limits", "References"):
        assert squeezed(heading) in words


def test_the_same_facts_give_the_same_bytes(built: Path) -> None:
    first = report.build("smoke")
    before = {file: file.read_bytes() for file in (first.html, first.pdf, first.facts)}
    report.build("smoke")
    assert all(file.read_bytes() == content for file, content in before.items())


def test_everything_is_numbered_once(built: Path) -> None:
    _, _, content = report.document(collected.read_facts("smoke"))
    for kinds in ((Figure, Gallery), (Tabular,)):
        assert [b.number for b in content if isinstance(b, kinds)] == list(range(1, 1 + sum(isinstance(b, kinds) for b in content)))
    numbers = [b.number for b in content if isinstance(b, Heading) and b.number]
    assert numbers[:4] == ["1", "2", "2.1", "2.2"] and len(numbers) == len(set(numbers))
    entries = content[-1]
    assert isinstance(entries, Listing) and entries.labels[:2] == ("[1]", "[2]")
    assert all(len(plain(item)) > 40 for item in entries.items)


# ---------------------------------------------------------------- numbers


def prose(content: list[Any]) -> str:
    """Running text: paragraphs and lists, without the references."""
    spans = [b.spans for b in content if isinstance(b, Paragraph)] + [item for b in content if isinstance(b, Listing) and not b.labels for item in b.items]
    return " ".join("".join(s.text for s in group if s.kind != "link") for group in spans)


def allowed(value: Any) -> set[str]:
    """Every way in which a fact may be written in prose."""
    if isinstance(value, dict):
        return {w for k, v in value.items() for w in allowed(v) | allowed(k)}
    if isinstance(value, list):
        return {w for v in value for w in allowed(v)}
    if isinstance(value, bool) or value is None:
        return set()
    if isinstance(value, str):
        return set(re.findall(NUMBER, value))
    texts = [tables.number(abs(value), digits) for digits in (0, 1)] + [tables.number(abs(value) / 60, 0), tables.number(abs(value) / 3600)]
    texts += [tables.scaled(abs(value), units) for units in (tables.PARAMETERS, tables.BYTES)]
    return {w for text in texts for w in re.findall(NUMBER, text)}


def compared(facts: Any) -> set[str]:
    """How many comparisons there are, how many exclude zero, and how many of them would by accident."""
    made, sure = findings._comparisons(facts)
    return {tables.number(value, 0) for value in (made, sure, made / 20)}


def names() -> str:
    """Names with figures in them ("LLaVA-1.5"), as the template writes them."""
    return (paths.report() / "template.md").read_text()


def test_every_number_in_prose_is_a_fact(built: Path) -> None:
    facts = collected.read_facts("smoke")
    _, _, content = report.document(facts)
    text = prose(content)
    for name in re.findall(r"[A-Za-z][\w.-]*\d[\w.-]*\w", names()):
        text = text.replace(name, "")
    found = re.findall(NUMBER, text)
    assert len(found) > 100
    assert sorted(set(found) - allowed(facts) - compared(facts)) == []


def test_all_comparisons_are_counted() -> None:
    facts = {"main_results": {"to_base": [row(), row()], "likeliest": [{**row(verdict=None), "control_verdict": "higher"}]}, "hallucination": {"scores": [row(verdict=None), row()]}}
    assert findings._comparisons(facts) == (4, 4)
    facts["main_results"]["to_base"].append(row(verdict="not distinguishable"))
    said = findings.limits({**facts, "main_results": {**facts["main_results"], "design": {"seeds": [42], "steps": [60], "level": 95}}})[-1]
    assert said.endswith("The study makes 5 paired comparisons, not corrected for their number: 4 exclude zero, and were there no difference anywhere about 0 would by accident.")


def test_a_number_that_is_no_fact_would_be_found(built: Path) -> None:
    assert not {"12345.6"} & allowed(collected.read_facts("smoke"))


def test_what_is_unreadable_is_counted_by_model_and_data_set() -> None:
    """A base that was asked about several sets is one model."""
    scores = [row(dataset=name, method="none") for name in ("scenes", "facts", "icons_choice")]
    said = findings.failed({"main_results": {"to_blind": [], "to_base": [], "to_shuffled": [], "unreadable": [{**scores[2], "share": 70.0}], "unreadable_above": 5, "scores": scores}})
    assert said == ["In 1 of 3 cases, each a model on a data set, more than 5\xa0% of the answers are unreadable; most of all those of the untouched base on Icons (choice), 70.0\xa0%."]


def test_no_number_is_typed_in_the_template() -> None:
    source = re.sub(r"\{[.#][^}]*\}|\[@[^\]]*\]|print=\"\d+\"", "", names().split("---", 2)[2])
    source = re.sub(r"[A-Za-z][\w.-]*\d[\w.-]*", "", source)
    assert re.findall(r"\d+", source) == []


# ---------------------------------------------------------------- what is refused, and what is left out


def test_without_prepared_pictures_the_report_says_so(built: Path) -> None:
    shutil.rmtree(paths.prepared())
    page = Page(report.build("smoke").html.read_text())
    assert "The pictures are not shown" in page.text and 'class="card"' not in str(page.tags)


def test_a_study_without_probe_costs_and_controls_has_no_such_sections(built: Path) -> None:
    last = "[15]"  # of the references: each is counted where it is first cited, and a section that is gone cites nothing
    assert last in Page(report.build("smoke").html.read_text()).text
    for name in ("hallucination", "cost"):
        (paths.build() / "facts" / f"{name}.json").unlink()
    file = paths.build() / "facts" / "main_results.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "to_shuffled": [], "to_frozen": []}))
    text = Page(report.build("smoke").html.read_text()).text
    assert "Sight or format" not in text and "POPE" not in text and last not in text
    assert "Accuracy" in text


def test_a_figure_without_alternative_text_is_refused(built: Path) -> None:
    with pytest.raises(ValueError, match="'x' has no alternative text"):
        Figure("x", 1, (), " ", paths.build() / "figures" / "main_results.svg")


def test_print_refuses_a_picture_without_alternative_text(built: Path, tmp_path: Path) -> None:
    shutil.copy(paths.build() / "figures" / "main_results.svg", tmp_path / "a.svg")
    (tmp_path / "a.typ").write_text('#set document(title: "x")\n#image("a.svg")')
    with pytest.raises(typst.TypstError, match="alt"):
        typst.compile(str(tmp_path / "a.typ"), format="pdf", pdf_standards=["ua-1"], font_paths=[str(style.fonts())])


def test_rows_between_two_rules_stay_on_one_page(tmp_path: Path) -> None:
    shutil.copy(paths.root() / "report" / "template.typ", tmp_path)
    sizes = (9, 8, 9, 11, 9, 9, 30, 9, 7)  # 30 rows are too many to be kept together
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    rows = [f'((context [row #metadata(({block}, here().page()))<row>], "small"), ("1.0", ""))' for block, size in enumerate(sizes) for _ in range(size)]
    table = f'booktabs(align: (left, right), rules: ({", ".join(map(str, ends))},), head: (("a", ""), ("b", "")), {", ".join(rows)})'
    (tmp_path / "a.typ").write_text(f'#import "template.typ": booktabs\n#{table}')
    told = [row["value"] for row in json.loads(typst.query(str(tmp_path / "a.typ"), "<row>", font_paths=[str(style.fonts())]))]
    pages = {block: {page for of, page in told if of == block} for block in range(len(sizes))}
    assert len(told) == sum(sizes) and len(set.union(*pages.values())) >= 3, "the table is to be longer than a page"
    assert {block: len(found) for block, found in pages.items()} == {block: 2 if size == 30 else 1 for block, size in enumerate(sizes)}


@pytest.mark.parametrize(("columns", "rows", "turned"), [(4, 5, False), (18, 5, True), (16, 26, True), (18, 60, True), (40, 5, True)])
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext reads the PDF back")
def test_a_table_too_wide_for_the_page_is_turned_and_nothing_is_cut(columns: int, rows: int, turned: bool, tmp_path: Path) -> None:
    """Eight data sets with their means in one table; of forty columns letters become as small as must be, and no report is lost for them."""
    table = tables.Table(tuple(f"Column {i}" for i in range(columns)), tuple(tuple(tables.Cell("+12.3", "[−10.3, 14.5]") for _ in range(columns)) for _ in range(rows)), "r" * columns)
    wide = blocks.Tabular("wide", 1, (blocks.Span("As wide as it is."),), table)
    content = [blocks.Paragraph((blocks.Span("Before, see "), blocks.Span("Table 1", "link", "#wide"))), wide, blocks.Paragraph((blocks.Span("After."),))]
    (tmp_path / "a.pdf").write_bytes(report._pdf("Title", "Subtitle", "line", content))
    told = subprocess.run(["pdftotext", "-bbox", tmp_path / "a.pdf", "-"], capture_output=True, text=True, check=True).stdout
    pages = [(float(w), float(h), [(float(a), float(b)) for a, b in re.findall(r'<word xMin="([\d.-]+)" yMin="[\d.-]+" xMax="([\d.-]+)"', words)]) for w, h, words in re.findall(r'<page width="([\d.]+)" height="([\d.]+)">(.*?)</page>', told, re.S)]
    heights = [(float(w), float(h), [(float(a), float(b)) for a, b in re.findall(r'<word xMin="[\d.-]+" yMin="([\d.-]+)" xMax="[\d.-]+" yMax="([\d.-]+)"', words)]) for w, h, words in re.findall(r'<page width="([\d.]+)" height="([\d.]+)">(.*?)</page>', told, re.S)]
    assert all(0 <= left and right <= width for width, _, words in pages for left, right in words), "a word is beyond the page"
    assert any(width > height for width, height, _ in pages) == turned and pages[-1][0] < pages[-1][1], "what follows is upright again"
    assert told.count("+12.3") == columns * rows and "After." in told
    assert all(top >= 0 and bottom <= height for _, height, words in heights for top, bottom in words), "a word is below the page"
    assert (len(pages) > 3) == (rows > 5), "a long one goes on over the page"


@pytest.mark.parametrize(("answers", "over"), [(5, 1), (12, 1), (25, 2), (60, 4)])
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext reads the PDF back")
def test_answers_of_many_models_go_on_over_the_page_before_their_caption(answers: int, over: int, tmp_path: Path) -> None:
    """Cards are whole where a page holds them, after a text that leaves them no room; longer ones go on, and nothing is printed over."""
    said = tuple((f"Pocket (MLP): model {i}", f"answer {i} with more words than a line of the card holds", "wrong") for i in range(answers))
    cards = tuple(blocks.Card(Image.new("RGB", (64, 64)), "Scenes", f"Question {i}?", "yes", said) for i in range(4))
    content = [blocks.Paragraph((blocks.Span("Words. " * 1000),)), blocks.Gallery("answers", 1, (blocks.Span("The caption."),), cards, 4)]
    (tmp_path / "a.pdf").write_bytes(report._pdf("Title", "Subtitle", "line", content))
    told = subprocess.run(["pdftotext", "-bbox", tmp_path / "a.pdf", "-"], capture_output=True, text=True, check=True).stdout
    pages = [re.findall(r'yMin="([\d.-]+)" xMax="[\d.-]+" yMax="([\d.-]+)">([^<]*)<', page) for page in told.split("<page ")[1:]]
    lowest = [max(float(bottom) for _, bottom, _ in words[:-1]) for words in pages]  # the last word is the page's number
    assert sum(word == "answer" for words in pages for *_, word in words) == 4 * answers
    assert all(bottom < 842 - 72 for bottom in lowest), "a word is in the lower margin"
    assert sum(any(word == "answer" for *_, word in words) for words in pages) == over
    [caption] = [float(top) for top, _, word in next(words for words in reversed(pages) if any(word == "answer" for *_, word in words)) if word == "caption."]
    assert all(float(bottom) <= caption for _, bottom, word in pages[-1] if word == "holds")


def test_a_table_that_no_page_holds_loses_no_report() -> None:
    table = tables.Table(tuple(f"Column {i}" for i in range(60)), (tuple(tables.Cell("+12.3", "[−10.3, 14.5]") for _ in range(60)),), "r" * 60)
    made = report._pdf("Title", "Subtitle", "line", [blocks.Tabular("wide", 1, (blocks.Span("As wide as it is."),), table)])
    assert re.search(rb"/MediaBox ?\[0 0 841\.", made) and re.search(rb"/MediaBox ?\[0 0 595\.", made), "it has a page of its own, turned"


def test_facts_of_another_study_and_a_missing_figure_are_sentences(built: Path) -> None:
    with pytest.raises(ValueError, match="holds facts of study 'smoke', not 'main'"):
        report.build("main")
    (paths.build() / "figures" / "to_base.svg").unlink()
    with pytest.raises(FileNotFoundError, match="the figure to_base is not drawn"):
        report.build("smoke")


def test_an_unknown_citation_is_named() -> None:
    with pytest.raises(ValueError, match="'nobody2020' is cited, but report/references.bib has no such entry"):
        report.references(["nobody2020"])


def test_every_paper_of_a_method_card_is_in_the_bibliography() -> None:
    from peftlab import methods

    keys = [card.paper for card in methods.METHODS.values() if card.paper]
    entries = report.references(keys)
    assert list(entries) == list(dict.fromkeys(keys))
    assert "LoRA" in plain(entries["hu2022lora"])


# ---------------------------------------------------------------- sentences


def row(**values: Any) -> dict[str, Any]:
    """A comparison as the facts hold it."""
    return {"method": "lora", "connector": "frozen", "dataset": "scenes", "mean": 5.0, "low": 1.0, "high": 9.0, "n": 200, "verdict": "higher", "gain": 17.0, "control_gain": 12.0, **values}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "the right pictures gave LoRA (connector frozen) +5.0 points [1.0,\u00a09.0] over the same tuned with shuffled ones (n\u00a0=\u00a0200), which gained 12.0 of its 17.0 over the untouched base."),
        ({"gain": None, "control_gain": None}, "shuffled ones (n\u00a0=\u00a0200)."),
        ({"mean": 1.0, "low": -2.0, "high": 4.0, "verdict": "not distinguishable"}, "is not shown"),
        ({"mean": -5.0, "low": -9.0, "high": -1.0, "verdict": "lower"}, "did LoRA (connector frozen) harm: −5.0"),
    ],
)
def test_a_control_is_read_by_its_interval(values: dict[str, Any], said: str) -> None:
    (sentence,) = findings.to_shuffled({"main_results": {"to_shuffled": [row(**values)]}})
    assert said in sentence and tables.number(row(**values)["mean"]) in sentence


def controlled(verdicts: dict[str, str], **values: Any) -> list[dict[str, Any]]:
    """Controls of several methods with their verdicts, a point apart."""
    return [row(method=method, verdict=verdict, mean=5.0 + i, **values) for i, (method, verdict) in enumerate(verdicts.items())]


def test_many_controls_of_a_data_set_are_told_together() -> None:
    verdicts = {"lora": "higher", "ia3": "higher", "prefix": "not distinguishable"}
    two = controlled({"lora": "higher", "ia3": "not distinguishable"}, dataset="facts")
    said = findings.to_shuffled({"main_results": {"to_shuffled": [*controlled(verdicts), *two]}})
    assert len(said) == 3 and all(s.startswith("On Facts, the right pictures gave ") for s in said[1:]), "two have a sentence each"
    assert said[0] == (
        "On Scenes, of 3 models tuned with the right pictures, 2 are higher than the same tuned with shuffled ones (LoRA and (IA)³ (connector frozen)), none is lower and 1 is not "
        "distinguishable from it. The differences go from +5.0 points [1.0,\u00a09.0] (LoRA (connector frozen)) to +7.0 points [1.0,\u00a09.0] (Prefix-Tuning (connector frozen))."
    )
    weighed = [row(method=m, control=2.0 + i, control_low=1.0, control_high=9.0, control_verdict="higher", metric="likeliest") for i, m in enumerate(verdicts)]
    (sentence,) = findings.by_choice({"main_results": {"likeliest": weighed}}, only="scenes")
    assert sentence.startswith("By the likeliest choice, of 3 models with such a control, every one is higher than the same tuned with shuffled pictures. The differences go from +2.0")
    plain = {"to_blind": [], "to_base": [], "unreadable": [], "scores": []}
    failed = findings.failed({"main_results": {**plain, "to_shuffled": controlled(dict.fromkeys(verdicts, "not distinguishable")) + two}})
    assert failed[0].startswith("On Scenes, not above their controls with shuffled pictures: LoRA (connector frozen), +5.0 points [1.0,\u00a09.0]; (IA)³ ")
    assert failed[1].startswith("(IA)³ (connector frozen) on Facts is not above its control") and len(failed) == 2
    (below,) = findings.failed({"main_results": {**plain, "to_shuffled": controlled({"lora": "lower"})}})
    assert below.startswith("LoRA (connector frozen) on Scenes is below its control")
    three = findings.failed({"main_results": {**plain, "to_shuffled": controlled(dict.fromkeys(verdicts, "lower"))}})[0]
    assert three.count(", which is below it") == 3


def test_sight_is_told_over_all_data_sets_and_by_choices() -> None:
    controls = [*controlled({"lora": "higher", "ia3": "higher"}), *controlled({"lora": "higher", "ia3": "lower"}, dataset="facts"), *controlled({"lora": "lower"}, dataset="titles")]
    weighed = [row(control=1.0, control_low=-2.0, control_high=4.0, control_verdict="not distinguishable"), row(method="none", control=None)]
    main = {"to_shuffled": controls, "likeliest": weighed, "scores": [row()]}
    said = findings.sight({"main_results": main})
    assert said == [
        "Of the models that have a control with shuffled pictures, all are above it on Scenes; only some are on Facts (1 of 2: LoRA (connector frozen)); none is on Titles.",
        "By the likeliest choice, where form counts for nothing, of these, none is on Scenes.",
    ]
    both = findings.sight({"main_results": {**main, "scores": [row(), row(connector="tuned")]}})[0]
    assert both.startswith("Of the models that have a control with shuffled pictures, all with the connector frozen, all are above it on Scenes;")
    assert findings.sight({"main_results": {"to_shuffled": [], "likeliest": [], "scores": []}}) == []


def test_the_connector_is_told_over_all_data_sets() -> None:
    rows = [row(connector="tuned"), row(method="ia3", connector="tuned"), row(dataset="facts", verdict="lower"), row(method="ia3", dataset="facts", verdict="not distinguishable")]
    assert findings.connector({"main_results": {"to_frozen": rows}}) == ["With the connector tuned as well, methods are higher on Scenes (all 2); lower on Facts (1 of 2, LoRA)."]
    assert findings.connector({"main_results": {"to_frozen": rows[3:]}}) == ["No method is distinguishable, on any data set, from the same with the connector tuned as well."]
    assert findings.connector({"main_results": {"to_frozen": []}}) == []


def test_what_another_seed_moves_is_said() -> None:
    each = [row(metric="exact", seeds=3, sd=2.0, least=20.0, most=24.0), row(method="prefix", metric="exact", seeds=3, sd=9.0, least=50.0, most=69.5), row(metric="cider", dataset="captions", seeds=3, sd=30.0, least=90.0, most=150.0)]
    overall = [row(datasets=2, sd=2.0, low=1.2, high=4.0, mostly=None, unsteady=False), row(method="prefix", datasets=2, sd=9.0, low=5.2, high=20.0, mostly="scenes", unsteady=True)]
    said = findings.stability({"main_results": {"stability": each, "stability_overall": overall}})
    assert said == [
        "Over 2 data sets scored in per cent and 3 seeds, the standard deviation of a score between seeds goes from 2.0 points [1.2,\u00a04.0] of LoRA (connector frozen) to 9.0 points [5.2,\u00a020.0] of Prefix-Tuning (connector frozen), most of it on Scenes.",
        "Less steady than the others together, also where it is reckoned that any of 2 might have been found so, is Prefix-Tuning (connector frozen); that the rest are equally steady is not shown.",
        "The widest range between seeds on one data set scored in per cent is that of Prefix-Tuning (connector frozen) on Scenes, from 50.0 to 69.5.",
    ]
    even = findings.stability({"main_results": {"stability": each, "stability_overall": [overall[0], {**overall[1], "unsteady": False}]}})[1]
    assert even.startswith("None is distinguishably less steady than the others together; ")
    assert findings.stability({"main_results": {"stability": [], "stability_overall": []}}) == [] == findings.stability({"main_results": {}})


def test_not_distinguishable_is_said() -> None:
    rows = [row(method="lora"), row(method="ia3", verdict="not distinguishable"), row(method="prefix", verdict="lower")]
    tally = {"scenes": {"higher": 1, "lower": 1, "not distinguishable": 1, "all": 3}}
    (sentence,) = findings.to_base({"main_results": {"to_base": rows, "to_base_tally": tally}})
    assert sentence == (
        "Of 3 tuned models on Scenes, 1 is higher than the untouched base (LoRA (connector frozen)), 1 is lower (Prefix-Tuning (connector frozen)) and 1 is not distinguishable from it."
    )


def test_where_every_one_differs_none_is_named() -> None:
    rows = [row(method="lora"), row(method="ia3")]
    (sentence,) = findings.to_base({"main_results": {"to_base": rows, "to_base_tally": {"scenes": {"higher": 2, "lower": 0, "not distinguishable": 0, "all": 2}}}})
    assert sentence == "Of 2 tuned models on Scenes, every one is higher than the untouched base."


def test_a_sentence_names_few() -> None:
    from peftlab import methods

    rows = [row(method=name, connector=None) for name in methods.METHODS if name != "none"][:20]
    labels = [findings.arm(r) for r in rows]
    assert len(rows) == 20 and findings._named(rows[:3], rows[3:]) == findings.listed(labels[:3])
    assert findings._named(rows[:18], rows[18:]) == f"all but {labels[18]} and {labels[19]}"
    assert findings._named(rows[:10], rows[10:]) == ""


def test_methods_of_the_same_states_are_named_together() -> None:
    both = [row(method=m, connector=c) for m in ("lora", "prefix") for c in ("frozen", "tuned")]
    alone = row(method="connector", connector="tuned")
    assert findings.arms(both) == "LoRA and Prefix-Tuning (connector frozen or tuned)"
    assert findings.arms([alone, *both]) == "Connector only; LoRA and Prefix-Tuning (connector frozen or tuned)"
    assert findings.arms([both[0], both[3]]) == "LoRA (connector frozen) and Prefix-Tuning (connector tuned)"
    elsewhere = row(dataset="facts")
    assert findings._named([row()], [elsewhere]) == "LoRA (connector frozen) tuned on Scenes", "of two sets a method alone would be both"


def test_one_state_of_the_connector_is_not_repeated() -> None:
    facts = {"main_results": {"to_shuffled": [row()], "samples": [{"responses": [row()]}], "design": {"connector": "kept"}}}
    told = findings.shortened(facts)
    assert "gave LoRA +5.0" in findings.to_shuffled(told)[0] and findings.arm(told["main_results"]["samples"][0]["responses"][0]) == "LoRA"
    assert told["main_results"]["design"] == {"connector": "kept"} and facts["main_results"]["to_shuffled"][0]["connector"] == "frozen"
    two = {"main_results": {"to_shuffled": [row(), row(connector="tuned"), row(method="connector", connector="tuned")]}}
    assert findings.shortened(two) == two


def test_above_chance_is_by_the_interval() -> None:
    scores = [row(method="none", group="seen"), row(method="lora", group="seen", mean=30.0, low=26.0, high=34.0), row(method="ia3", group="seen", mean=30.0, low=25.0, high=35.0)]
    chance = [row(baseline="chance", mean=25.5, low=None, high=None)]
    (sentence,) = findings.above_chance({"main_results": {"scores": scores, "baselines": chance}})
    assert sentence == "By the interval of the score, 1 of the 2 models tuned on Scenes is above chance (25.5\u00a0%): LoRA (connector frozen)."
    assert "none of the 1 model tuned on Scenes is above chance (25.5\u00a0%)." in findings.above_chance({"main_results": {"scores": scores[::2], "baselines": chance}})[0]


def test_sets_on_which_no_model_is_above_chance_are_named_by_the_interval() -> None:
    scores = [row(method=m, dataset=d, mean=30.0, low=low, high=35.0, group="unseen") for d, low in (("scenes", 24.0), ("facts", 26.0)) for m in ("lora", "ia3")]
    chance = [row(baseline="chance", dataset=d, mean=25.5, low=None, high=None) for d in ("scenes", "facts")]
    weighed = [row(dataset=d, difference=0.1, verdict=v) for d, v in (("scenes", "not distinguishable"), ("facts", "higher"))]
    facts = {"main_results": {"scores": scores, "baselines": chance, "likeliest": weighed, "averages": []}}
    said = findings.across(facts)
    assert said[0].startswith("On one of 2 unseen data sets there is something learned, the most by LoRA (connector frozen): 30.0") and "Scenes" not in said[0]
    assert said[1] == "On Scenes (25.5\u00a0%) no tuned model is above chance."
    assert said[2] == "By the likeliest choice, where form counts for nothing, no tuned model differs from the base on Scenes." and len(said) == 3


def test_models_are_told_beside_what_is_said_without_a_picture() -> None:
    scores = [row(method=m, dataset=d, mean=mean, low=mean - 4, high=mean + 4, group="unseen") for d, mean in (("scenes", 30.0), ("facts", 60.0)) for m in ("lora", "ia3")]
    levels = {"chance": 20.0, "majority": 25.0, "question_only": 29.0}
    blind = [row(baseline=b, dataset=d, mean=mean, low=mean - 2, high=mean + 2) for d in ("scenes", "facts") for b, mean in levels.items()]
    verdicts = {("scenes", "majority"): ("higher", "not distinguishable"), ("scenes", "question_only"): ("not distinguishable", "lower"), ("facts", "majority"): ("higher", "higher"), ("facts", "question_only"): ("higher", "higher")}
    against = [row(method=m, dataset=d, baseline=b, verdict=v) for (d, b), both in verdicts.items() for m, v in zip(("lora", "ia3"), both)]
    against.append(row(method="none", baseline="question_only", dataset="facts", verdict="lower"))
    main = {"scores": scores, "baselines": blind, "to_blind": against, "to_best_tally": {}}
    assert "always giving the most frequent answer of training 25.0 % [23.0, 27.0]; a classifier of questions that sees no picture 29.0 % [27.0, 31.0]; chance 20.0" in findings.best({"main_results": main})[0]
    said = findings.above_chance({"main_results": main})
    assert said[1:3] == [
        "Of 2 models tuned on Scenes, 1 is higher than always giving the most frequent answer of training (LoRA (connector frozen)), none is lower and 1 is not distinguishable from it.",
        "Of 2 models tuned on Scenes, none is higher than a classifier of questions that sees no picture, 1 is lower ((IA)³ (connector frozen)) and 1 is not distinguishable from it.",
    ]
    assert said[4] == "Of 2 models tuned on Facts, every one is higher than always giving the most frequent answer of training."
    facts = {"main_results": main | {"likeliest": [], "averages": []}}
    assert findings.across(facts)[-1] == "On Scenes no tuned model is above a classifier of questions that sees no picture."
    lower = [{**r, "verdict": "lower"} if r["dataset"] == "scenes" else r for r in against]
    assert findings.across({"main_results": facts["main_results"] | {"to_blind": lower}})[-1] == (
        "On Scenes no tuned model is above always giving the most frequent answer of training or a classifier of questions that sees no picture."
    )
    below = [{**r, "mean": 10.0} if r["baseline"] == "majority" else r for r in blind]
    assert any("most frequent" in line for line in findings.above_chance({"main_results": main | {"baselines": below}}))


def test_of_an_untouched_base_it_is_said_what_it_is_above() -> None:
    def known(**verdicts: str) -> list[str]:
        rows = [row(model="pocket-mlp", method="none", dataset=d, baseline=b, verdict=v if d == "facts" else "higher") for d in ("scenes", "facts") for b, v in verdicts.items()]
        return findings.known({"main_results": {"to_blind": [*rows, row(model="pocket-mlp", baseline="majority", dataset="titles", verdict="lower")]}})

    assert known(blank="higher", majority="higher") == ["Pocket (MLP) is above everything that needs no sight of the picture (blank pictures and the most frequent answer) on 2 of 2 data sets."]
    assert known(blank="higher", question_only="lower") == [
        "Pocket (MLP) is above everything that needs no sight of the picture (blank pictures and a classifier of questions) on 1 of 2 data sets, and not on Facts.",
        "Of those it is above itself under blank pictures on Facts.",
    ]
    higher = [row(model="pocket-mlp", method="none", dataset="facts", baseline="blank", verdict="higher")]
    scored, chance = row(model="pocket-mlp", method="none", dataset="facts", low=24.0), row(model="pocket-mlp", dataset="facts", baseline="chance", mean=25.0, low=None, high=None)
    said = findings.known({"main_results": {"to_blind": higher, "scores": [scored], "baselines": [chance]}})
    assert said == ["Pocket (MLP) is above everything that needs no sight of the picture (blank pictures and chance) on none of 1 data set.", "Of those it is above itself under blank pictures on Facts."]
    none = [row(model="pocket-mlp", method="none", dataset="facts", baseline="blank", verdict="lower")]
    assert findings.known({"main_results": {"to_blind": none}})[0].endswith("on none of 1 data set.")


def test_what_is_likeliest_is_said_with_its_control() -> None:
    base = row(method="none", mean=27.1, low=23.7, high=30.5, n=1000, metric="likeliest", difference=None, control=None)
    tuned = row(mean=26.9, metric="likeliest", difference=-0.2, verdict="not distinguishable", control=2.5, control_low=0.2, control_high=4.8, control_verdict="higher")
    said = findings.likeliest({"main_results": {"likeliest": [base, tuned]}})
    assert said[0].endswith("the untouched base has 27.1\u00a0% [23.7,\u00a030.5], n\u00a0=\u00a01,000.")
    assert said[1] == "Of 1 tuned model on Scenes, by that measure, none is distinguishable from the untouched base." and said[2] == "By the likeliest choice LoRA (connector frozen) is above its control with shuffled pictures, +2.5 points [0.2,\u00a04.8]."
    assert findings.likeliest({"main_results": {"likeliest": []}}) == []


def test_the_making_of_another_build_of_the_base_is_not_told(built: Path) -> None:
    now = collected.read_base("pocket-mlp", {"bases": {"pocket-mlp": models.digest("pocket-mlp")}})
    assert report._made(now).startswith("The first stage took 300 steps") and collected.read_base("tiny-mlp", {"bases": {}}) is None
    other = collected.read_base("pocket-mlp", {"bases": {"pocket-mlp": "0"}})
    assert other == {"other_build": "0"} and "an earlier one" in report._made(other) and "%" not in report._made(other)


def test_rates_are_told_by_where_they_come_from() -> None:
    tried = [{"method": "lora", "lr": lr, "validation_loss": loss, "steps": 60} for lr, loss in ((1e-4, 1.0), (1e-3, 0.9), (1e-2, 1.2))]
    tried += [{"method": m, "lr": lr, "validation_loss": loss, "steps": 60} for m in ("adapter", "connector") for lr, loss in ((1e-3, 0.9), (3e-4, 1.0))]
    own = [{"method": "lora", "lr": 1e-3, "connector_lr": None}, {"method": "adapter", "lr": 3e-4, "connector_lr": None}, {"method": "connector", "lr": None, "connector_lr": 1e-3}]
    said = findings.rates({"main_results": {"rates": tried, "definitions": [*own, {"method": "vera", "lr": 1e-2, "connector_lr": None}, {"method": "none", "lr": None, "connector_lr": None}]}})
    assert "2 to 3 rates a method, 60 steps" in said[0] and said[0].endswith(": LoRA and Connector only.")
    assert said[1].endswith("not the sweep's choice: Adapter.") and said[2].endswith("the rate of VeRA.")


def test_the_abstract_is_about_one_data_set(built: Path) -> None:
    """The probe's tally is of the data set that the rest of the abstract speaks of, the unseen one."""
    said = " ".join(findings.abstract(collected.read_facts("smoke")))
    assert "tuned on Icons (choice), " in said and "tuned on Scenes" not in said
    assert "by that mean, " in said and "Most was lost by " in said and "likeliest choices" not in said, "what was kept is told; nothing was weighed here"


def test_the_abstract_of_a_study_on_several_unseen_sets_is_about_all_of_them(built: Path) -> None:
    facts = collected.read_facts("smoke")
    common = {"group": "unseen", "connector": "frozen", "model": "pocket-mlp"}
    earned = {("none", "science"): 22.0, ("none", "photos"): 16.0, ("lora", "science"): 31.0, ("lora", "photos"): 70.0, ("ia3", "science"): 30.0, ("ia3", "photos"): 78.0}
    scores = [row(**common, method=method, dataset=name, mean=mean, metric="exact") for (method, name), mean in earned.items()]
    means = [row(**common, method=method, mean=mean, datasets=2, metric="letter_or_name / vqa") for method, mean in (("none", 19.0), ("lora", 50.5), ("ia3", 54.0))]

    def told(given: list[dict[str, Any]], **parts: Any) -> list[str]:
        return findings.abstract({"main_results": {**facts["main_results"], "scores": given, "averages": means, "to_shuffled": [], "to_frozen": [], **parts}})

    said = told(scores)
    assert said[0].startswith("On each of 2 unseen data sets the best mean is that of LoRA (connector frozen) with 31.0\u00a0%") and "(IA)³ (connector frozen) with 78.0\u00a0%" in said[0]
    assert said[0].count("the untouched base: ") == 2 and len(said) == 2
    assert [said[1].index(name) for name in ("(IA)³", "LoRA", "the untouched base")] == sorted(said[1].index(name) for name in ("(IA)³", "LoRA", "the untouched base"))
    assert "54.0\u00a0%" in said[1] and said[1].startswith("Over all 2, each")
    same = told([r for r in scores if r["method"] != "ia3"])[0]
    assert same.count("LoRA") == 1 and "that of LoRA (connector frozen): 31.0" in same
    assert findings.across({"main_results": {**facts["main_results"], "scores": [r for r in scores if r["dataset"] == "science"]}}) == []
    more = {"to_shuffled": [row(dataset="photos")], "to_frozen": [row(dataset="science", connector="tuned")], "stability": [row(metric="exact", seeds=2, sd=1.0, least=1.0, most=2.0)], "stability_overall": []}
    assert told(scores, **more)[2:] == [*findings.sight({"main_results": {**more, "likeliest": [], "scores": scores}}), *findings.connector({"main_results": more}), *findings.stability({"main_results": more})[:1]]
    assert len(told(scores, **more)) == 5
    many = [row(**common, method=method, mean=mean, datasets=2, metric="vqa") for mean, method in enumerate(("none", "lora", "ia3", "adapter", "prefix", "dora", "vera", "oft", "hra"))]
    (of_many,) = [s for s in told(scores, averages=many) if s.startswith("Over all 2, each")]
    assert "those of HRA (connector frozen) with 8.0" in of_many and of_many.count(" with ") == 4 and "the untouched base with 0.0" in of_many, "three, and the base"
    whole = findings.abstract({**facts, "main_results": {**facts["main_results"], "scores": scores, "averages": means, "to_shuffled": [], "to_frozen": []}})
    assert whole[:2] == said and findings.hallucination(facts)[0] in whole and findings.cost(facts)[0] in whole, "the probe and the cost are told all the same"


def test_the_abstract_tells_the_likeliest_choice_of_that_data_set_alone(built: Path) -> None:
    facts = collected.read_facts("smoke")
    weighed = [row(dataset=name, method="none", mean=mean, metric="likeliest", difference=None, control=None) for name, mean in (("scenes", 55.5), ("facts", 62.7), ("icons_choice", 27.2))]
    weighed.append(row(dataset="icons_choice", metric="likeliest", difference=0.3, verdict="not distinguishable", control=None))
    said = " ".join(findings.abstract({**facts, "main_results": {**facts["main_results"], "likeliest": weighed}}))
    assert "By the likeliest choice on Icons (choice), where form counts for nothing, the untouched base has 27.2" in said
    assert "by that measure, " in said and "likeliest choice on Scenes" not in said and "likeliest choice on Facts" not in said


def probed(**values: Any) -> dict[str, Any]:
    """A row of the probe, with what it says of absent things."""
    return row(**{"n": 900, "unparsed": 0, "yes_rate": 38.0, "affirmed": 11.0, "affirmed_low": 6.0, "affirmed_high": 16.0, "absent": 450, "absent_read": 450, "affirmed_read": 11.0, "seeds": 1, "difference": 4.0, **values})


def test_lost_form_is_told_from_a_changed_mind() -> None:
    scores = [probed(method="none", difference=None), probed(method="ia3", unparsed=560, yes_rate=12.0), probed(method="lora", unparsed=450, yes_rate=30.0)]
    said = findings.hallucination({"hallucination": {"scores": scores, "to_base": []}})
    assert "the base gives one to 11.0\u00a0% [6.0,\u00a016.0] of 450 such questions." in " ".join(said)
    assert "By that share, of 2 models tuned on Scenes, every one is higher than the base." in said
    assert "More than half of the answers of (IA)³ (connector frozen) name neither yes nor no, or both: what was lost there is at least the form." in said


@pytest.mark.parametrize(("count", "said"), [(1, "The only other tuned model is below it."), (2, "Each of the other 2 tuned models is below LoRA (connector frozen).")])
def test_one_is_not_many(count: int, said: str) -> None:
    tally = {"higher": 0, "lower": count, "not distinguishable": 0, "all": count}
    main = {"scores": [row(group="seen")], "baselines": [], "to_best_tally": {"scenes": tally}}
    assert findings.best({"main_results": main})[1] == said
    tally = {"higher": 0, "lower": 0, "not distinguishable": 1, "all": 1}
    assert "1 of the other 1 tuned model is not" in findings.best({"main_results": main | {"to_best_tally": {"scenes": tally}}})[1]


def test_a_base_that_does_not_look_is_told_as_a_failure() -> None:
    blind = [row(method="none", baseline="shuffled", group="seen", verdict="not distinguishable", low=-1.0), row(method="none", baseline="blank", group="seen")]
    said = findings.failed({"main_results": {"to_blind": blind, "to_base": [], "to_shuffled": [], "unreadable": []}})
    assert len(said) == 1 and "not above itself under shuffled pictures on Scenes" in said[0]


def test_what_is_kept_has_its_section_and_a_study_without_has_none(built: Path) -> None:
    text = Page(report.build("smoke").html.read_text()).text
    assert "Forgetting of plain text" in text and "harmonic mean of what is kept" in text and "tuned on Icons (choice), by that mean" in text
    facts = collected.read_facts("smoke")["forgetting"]
    assert {r["part"] for r in facts["parts"]} >= {"A_S", "A_T", "H", "O", "scenes", "facts", "titles"} and facts["text"] and facts["drawn"]
    file = paths.build() / "facts" / "forgetting.json"
    file.write_text(json.dumps({**facts, "parts": [], "text": [], "drawn": []}))
    assert "Forgetting" not in Page(report.build("smoke").html.read_text()).text


def facts_of(study: str, *, captioned: bool = False) -> dict[str, Any]:
    """The facts of a study, as though it had captions of a published set."""
    facts = collected.read_facts(study)
    return facts | {"hallucination": facts["hallucination"] | {"invented": [{"tested_on": "coco_captions"}]}} if captioned else facts


def test_the_report_says_which_sets_are_its_sources_and_what_is_captioned(built: Path) -> None:
    assert "The source mean is over the seen sets, without the target" in Page(report.build("smoke").html.read_text()).text
    for name, more in (("provenance", {"sources": ["scenes", "facts"]}), ("forgetting", {})):
        file = paths.build() / "facts" / f"{name}.json"
        facts = json.loads(file.read_text()) | more
        file.write_text(json.dumps(facts | ({"parts": [row | {"sources": "scenes facts"} for row in facts["parts"]]} if name == "forgetting" else {})))
    assert report.words(facts_of("smoke"))["captioned"].startswith("Models describe test scenes") and "list of synonyms" in report.words(facts_of("smoke", captioned=True))["captioned"]
    text = Page(report.build("smoke").html.read_text()).text
    assert "The source mean is over Scenes and Facts, without the target" in text and "mean of Scenes, Facts" in text and "mean of the seen" not in text


def test_probes_on_a_quantised_base_and_named_sources_reach_the_report(built: Path) -> None:
    folder = paths.results() / "smoke"
    rows = pd.read_parquet(folder / "predictions.parquet")
    packed = rows.query("method in ['none', 'lora'] and train_pictures == 'true' and stage == 'probe'").assign(quantisation="nf4")
    pd.concat([rows, packed], ignore_index=True).to_parquet(folder / "predictions.parquet", index=False)
    origins = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**origins, "sources": ["titles", "facts"]}))
    before = (paths.build() / "figures" / "hallucination.svg").read_bytes()
    for notebook in ("10_main_results", "11_hallucination", "13_forgetting"):
        perform(notebook)
    assert (paths.build() / "figures" / "hallucination.svg").read_bytes() == before, "the figure is of full precision"
    text = Page(report.build("smoke").html.read_text()).text
    assert text.count("LoRANF4 base") == 4 and text.count("Untouched baseNF4 base") == 1, "a row for each of two states of the connector on two sets"
    assert "On a base in NF4, of 4 tuned models, by accuracy" in text and "A_Smean of Titles, Facts" in text and "over Titles and Facts, without the target" in text


def test_forgetting_is_told_by_intervals() -> None:
    base = [row(method="none", part=p, kind=k, quantisation="none", mean=m, difference=None, verdict=None) for p, k, m in (("titles", "seen", 60.0), ("A_S", "mean", 60.0), ("H", "mean", 40.0))]
    change = {"quantisation": "none", "difference": -6.0, "difference_low": -9.0, "difference_high": -3.0, "verdict": "lower"}
    tuned = [row(method=m, part=p, kind="mean", **{**change, **more}) for m, p, more in (("lora", "A_S", {}), ("ia3", "A_S", {"difference": -1.0, "verdict": "not distinguishable"}), ("lora", "H", {"mean": 50.0, "verdict": "higher"}))]
    known = [one | {"verdict": "not distinguishable", "difference": d} for one, d in zip(tuned[:2], (-0.5, -0.7))]
    said = findings.forgetting({"forgetting": {"parts": [*base, *tuned], "likeliest": known}})
    assert said[0] == "The bare base has 60.0\u00a0% [1.0,\u00a09.0] in the mean of Titles."
    assert said[1].startswith("Of 2 models tuned on Scenes, by that mean, none is higher than the bare base, 1 is lower (LoRA (connector frozen)) and 1 is not")
    assert said[2].startswith("Most was lost by LoRA (connector frozen), −6.0 points [−9.0,\u00a0−3.0], least by (IA)³ (connector frozen), −1.0 points")
    assert "is that of LoRA (connector frozen), 50.0\u00a0% [1.0,\u00a09.0]; it is above that of the bare base" in said[5]
    assert said[3] == "Of 2 models, by the same mean of likeliest choices, where form counts for nothing, none is distinguishable from the bare base."
    assert said[4].startswith("By that measure most was lost by (IA)³ (connector frozen), −0.7 points")


def test_a_sentence_speaks_of_one_model() -> None:
    """Two models on one data set: the tuned model of each is compared with its own base, and is named with it."""
    scores = [row(model=m, method=method, group="seen", mean=mean) for m, top in (("pocket-mlp", 40.0), ("pocket-merger", 20.0)) for method, mean in (("none", top - 15), ("lora", top))]
    tally = {"scenes": {"higher": 1, "lower": 1, "not distinguishable": 0, "all": 2}}
    to_base = [row(model="pocket-mlp"), row(model="pocket-merger", verdict="lower")]
    facts = {"main_results": {"scores": scores, "baselines": [], "to_best_tally": {}, "to_base": to_base, "to_base_tally": tally, "to_shuffled": [], "likeliest": []}}
    said = findings.best(facts)
    assert [s.partition(":")[0] for s in said] == ["Pocket (MLP)", "Pocket (merger)"]
    assert "40.0" in said[0] and "the untouched base has 25.0" in said[0] and "20.0" in said[1] and "the untouched base has 5.0" in said[1]
    assert findings.to_base(facts)[1] == "Pocket (merger): Of 1 tuned model on Scenes, none is higher than the untouched base and 1 is lower (LoRA (connector frozen))."
    assert [s.partition(":")[0] for s in findings.abstract(facts)] == ["Pocket (MLP)", "Pocket (merger)"]
    parts = [row(precision=p, quantisation="none", part="A_S", kind="mean", difference=d, difference_low=d, difference_high=d) for p, d in (("bf16", -1.0), ("fp32", -2.0))]
    parts += [row(precision=p, quantisation="none", part="A_S", kind="mean", method="none", difference=None) for p in ("bf16", "fp32")]
    told = findings.forgetting({"forgetting": {"parts": parts, "likeliest": []}})
    assert [s.partition(":")[0] for s in told] == ["bf16 and fp32", "bf16 and fp32", "bf16", "fp32"], "what is true of both is said once"
    assert told[0].endswith("The bare base has 5.0\u00a0% [1.0,\u00a09.0] in the mean of none.") and told[3].startswith("fp32: Most was lost by LoRA (connector frozen), −2.0")


def test_the_abstract_of_several_models_tells_what_each_learned_and_whether_methods_keep_their_order() -> None:
    models = ("pocket-mlp", "pocket-merger")
    scores = [row(model=m, method=method, dataset=d, group="unseen", metric="exact", mean=mean) for m in models for d in ("scenes", "facts") for method, mean in (("none", 10.0), ("lora", 40.0), ("ia3", 30.0))]
    pairs = [row(model=m, dataset=d, other="ia3", other_connector="frozen", mean=10.0) for m in models for d in ("scenes", "facts")]
    main = {"scores": scores, "baselines": [], "averages": [], "to_best_tally": {}, "to_shuffled": [], "likeliest": [], "between_methods": pairs}
    assert findings.abstract({"main_results": main}) == [
        "On each of the 2 models: On each of 2 unseen data sets the best mean is that of LoRA (connector frozen): 40.0\u00a0% [1.0,\u00a09.0] on Scenes (the untouched base: 10.0\u00a0% [1.0,\u00a09.0]) and 40.0\u00a0% [1.0,\u00a09.0] on Facts (the untouched base: 10.0\u00a0% [1.0,\u00a09.0]).",
        "Of 2 comparisons of two methods on a data set, 2 have the same sign on all models, 2 of them distinguishably on each; none turns, distinguishably one way on one model and the other way on another.",
    ]


@pytest.mark.parametrize(
    ("pocket", "others", "said"),
    [
        (["pocket-mlp"], [], "a multimodal language model that is small enough for two processor cores"),
        (["pocket-mlp", "pocket-merger"], [], "two multimodal language models that are small enough for two processor cores"),
        ([], ["llava-1.5-7b"], "LLaVA-1.5-7B"),
        (["pocket-mlp"], ["llava-1.5-7b"], "a multimodal language model that is small enough for two processor cores and on LLaVA-1.5-7B"),
    ],
)
def test_what_was_tuned_is_not_called_small_where_it_is_not(pocket: list[str], others: list[str], said: str) -> None:
    design = {"pocket": pocket, "others": others, "models": [{"model": "llava-1.5-7b", "label": "LLaVA-1.5-7B"}] if others else []}
    assert report._onto(design) == said


def test_a_study_of_bases_alone_has_its_report(study: Path, work: Path, cache: Path) -> None:
    """Two untouched models and nothing tuned: what they know, and no section of what tuning does."""
    import pandas as pd

    rows = pd.read_parquet(study / "predictions.parquet").query("stage == 'evaluate' and method == 'none'")
    pd.concat([rows, rows.assign(model="pocket-merger", run="m" + rows["run"])], ignore_index=True).to_parquet(study / "predictions.parquet", index=False)
    (study / "costs.csv").unlink()
    for notebook in (name for name, stage in __main__.AGGREGATE.items() if stage == "evaluate"):
        perform(notebook)
    facts = collected.read_facts("smoke")
    title, _, content = report.document(facts)
    assert "untouched models know" in title and {b.key for b in content if isinstance(b, Tabular)} == {"data", "bases", "blind", "models_table", "provenance_table"}
    assert not [b for b in content if isinstance(b, Figure)]
    headings = [plain(b.spans) for b in content if isinstance(b, Heading)]
    assert headings == ["Question", "Method", "Model", "Scores and intervals", "Data", "Results", "What the base answers", "Other models", "Limits", "What did not work", "Answers", "Provenance", "References"]
    made = report.build("smoke")
    text = Page(made.html.read_text()).text
    assert made.pdf.read_bytes().startswith(b"%PDF") and "fine-tuning runs" not in text and "was tuned for" not in text
    assert all(f"{name} is above everything that needs no sight of the picture" in text for name in ("Pocket (MLP)", "Pocket (merger)")) and "We ask 2 untouched models" in text


def test_the_ways_to_run_a_method_are_told_apart(placed: Path, cache: Path, prepare: Callable[[], None]) -> None:
    prepare()
    for notebook in ("10_main_results", "11_hallucination", "12_cost"):
        perform(notebook)
    made = report.build("smoke")
    text = made.html.read_text()
    assert text.count("LoRA [attention]") > 10 and text.count("LoRA [attention and MLP]") > 10 and "@location" not in text
    assert made.pdf.read_bytes().startswith(b"%PDF")


def without(study: Path) -> None:
    """Take from a made-up study what would be missing had full fine-tuning not fitted at all, nor the answers of LoRA with the connector tuned on scenes."""
    import pandas as pd

    def gone(rows: pd.DataFrame) -> pd.Series:
        answers = (rows["method"] == "lora") & (rows["connector"] == "tuned") & (rows["dataset"] == "scenes") & (rows["stage"] == "evaluate")
        return (rows["method"] == "full") | answers

    rows, costs = pd.read_parquet(study / "predictions.parquet"), pd.read_csv(study / "costs.csv")
    host = {"of_gpu": False, "memory_bytes": 24e9, "free_bytes": 20e9, "device": "cpu", "device_memory_bytes": None, "processor": "A made-up CPU"}
    gpu = {"of_gpu": True, "memory_bytes": 64e9, "free_bytes": 60e9, "device": "A made-up GPU", "device_memory_bytes": 8e9, "processor": "A made-up CPU"}
    full = costs[costs["method"] == "full"].assign(**host, stage="finetune")
    silent = rows[gone(rows) & (rows["method"] == "lora")].drop_duplicates("run").assign(**gpu)
    pd.concat([full, silent])[[*Run().axes(), "run", "stage", *host]].assign(what="it ran out").to_csv(study / "failures.csv", index=False)
    rows[~gone(rows)].to_parquet(study / "predictions.parquet", index=False)
    costs[costs["method"] != "full"].to_csv(study / "costs.csv", index=False)


def test_what_does_not_fit_is_told_and_the_rest_compared(study: Path, work: Path, cache: Path, ask: Callable[..., None]) -> None:
    ask(study)
    without(study)
    for notebook in AGGREGATE:
        perform(notebook)
    facts = collected.read_facts("smoke")
    main = facts["main_results"]
    assert {(r["method"], r["stage"], r["of_gpu"], r["memory_bytes"], r["runs"]) for r in main["unfit"]} == {("full", "finetune", False, 24e9, 1), ("lora", "evaluate", True, 8e9, 1)}
    arms = {(r["method"], r["connector"], r["dataset"]) for r in main["scores"]}
    assert ("lora", "tuned", "icons_choice") in arms and ("lora", "tuned", "scenes") not in arms and "full" not in {a[0] for a in arms}
    averaged = {(r["method"], r["connector"], r["group"]) for r in main["averages"]}
    assert ("lora", "tuned", "unseen") in averaged and ("lora", "tuned", "seen") not in averaged, "an average lacks a data set"
    assert not {r["method"] for rows in (main["to_base"], main["to_best"], facts["cost"]["costs"], facts["hallucination"]["scores"], facts["forgetting"]["parts"]) for r in rows} & {"full"}

    made = report.build("smoke")
    text = Page(made.html.read_text()).text
    assert made.pdf.read_bytes().startswith(b"%PDF") and "What does not fit" in text
    said = "Answering of LoRA (connector tuned) on Scenes with bf16 and batches of 16 did not fit in the memory of the GPU, A made-up GPU (8\u00a0GB)."
    assert said in text and "Tuning of Full fine-tuning (connector frozen) on Icons (choice) with bf16 and batches of 16 did not fit in the memory of this machine (24\u00a0GB)." in text
    table = report.TABLES["cost_table"](facts, str)
    assert [tables._cell(row[6]).text for row in table.rows].count("does not fit") == 2 and {row[8] for row in table.rows[-2:]} == {"2"}, "connector frozen and tuned, each on two data sets"
    assert tables._cell(table.rows[-1][6]).small == "bf16, batch 16 in 24\u00a0GB, 20\u00a0GB free" and min(table.rules) == len(table.rows) - 2
    shown = report.TABLES["unfit_table"](facts, str)
    assert {tables._cell(row[5]).small for row in shown.rows} == {"A made-up CPU", "A made-up GPU"} and {tables._cell(row[0]).small for row in shown.rows} == {"tuning", "answering"}
    text = prose(report.document(facts)[2])
    for name in re.findall(r"[A-Za-z][\w.-]*\d[\w.-]*\w", names()):
        text = text.replace(name, "")
    assert sorted(set(re.findall(NUMBER, text)) - allowed(facts) - compared(facts)) == []


def test_where_everything_fits_no_section_says_so(built: Path) -> None:
    assert collected.read_facts("smoke")["main_results"]["unfit"] == [] and "does not fit" not in Page(report.build("smoke").html.read_text()).text


def test_publishing_carries_what_did_not_fit(project: Path) -> None:
    (paths.results() / "smoke" / "failures.csv").write_text("run,stage\nx,finetune\n")
    report.publish("smoke")
    assert collected.read_results("smoke").failures["run"].tolist() == ["x"] and (project / "data" / "results" / "smoke" / "failures.csv").exists()


# ---------------------------------------------------------------- without torch

BLOCK = """
import os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {kin}:
            with open({log!r}, "a") as log:
                print(os.getpid(), name, file=log)
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_a_report_is_rebuilt_from_tracked_results_without_torch(work: Path, cache: Path, tmp_path: Path) -> None:
    """The command and the kernels of the notebooks, on a machine where torch and its kin are not installed."""
    kin = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers", "efficientnet_lite_pytorch", "gguf", "datasets", "ray")
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(kin=kin, log=str(tmp_path / "asked.log")))
    path = os.pathsep.join([str(tmp_path), *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)])
    tracked = {p.name: p.read_bytes() for p in (paths.published_results() / "main").iterdir()}
    done = subprocess.run([sys.executable, "-m", "peftlab", "report", "main"], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the report is made from" in done.stdout and (work / "build" / "study.pdf").read_bytes().startswith(b"%PDF")
    facts = json.loads((work / "build" / "facts.json").read_text())
    assert set(facts) == {"main_results", "hallucination", "cost", "forgetting", "provenance"} and facts["main_results"]["design"]["runs"] == 13
    if sys.platform == "linux":
        assert "torch" in {line.split()[1] for line in (tmp_path / "asked.log").read_text().splitlines()}, "the process that kernels are forked from was not barred"
    assert {p.name: p.read_bytes() for p in (paths.published_results() / "main").iterdir()} == tracked


def test_a_part_of_a_study_that_ran_here_does_not_hide_the_tracked_results(work: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(kernels, "warm_up", lambda: None)
    monkeypatch.setattr(answers, "SHARED", 1)
    shared = []

    def aggregate(notebooks: list[str], study: str, each: int) -> list[str]:
        shared.append(answers._shared((folder := collected.read_results(study).folder) / "predictions.parquet").exists())
        return [f"{name} of {folder}" for name in notebooks]

    monkeypatch.setattr(execute, "aggregate", aggregate)
    monkeypatch.setattr(report, "build", lambda study: report.Report(work / "x.html", work / "x.pdf", work / "x.json"))
    tracked = str(paths.published_results() / "main")
    assert __main__.main(["report", "main"]) == 0 and "nothing of main ran here" in (said := capsys.readouterr().out) and f"10_main_results of {tracked}" in said
    (paths.runs() / grid.read("main").runs[0].id).mkdir(parents=True)
    assert __main__.main(["report", "main"]) == 2 and "the study is not complete" in capsys.readouterr().err
    (paths.results() / "main").mkdir(parents=True)
    assert __main__.main(["report", "main", "--published"]) == 0 and f"10_main_results of {tracked}" in capsys.readouterr().out
    assert __main__.main(["report", "smoke", "--published"]) == 2 and "study 'smoke' is not published" in capsys.readouterr().err
    assert shared == [True, True] and not (paths.build() / "shared").exists(), "the notebooks of a large study read one copy of its answers"


# ---------------------------------------------------------------- publishing


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder to publish into, with the real template, whose code counts as committed."""
    root = tmp_path / "project"
    (root / "report").mkdir(parents=True)
    for file in [*paths.report().glob("template.*"), *paths.report().glob("*.bib")]:
        shutil.copy(file, root / "report")
    monkeypatch.setenv("PEFTLAB_ROOT", str(root))
    monkeypatch.setattr(report.provenance, "dirty", lambda: False)
    report.build("smoke")
    return root


def test_publish_copies_results_figures_and_report(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name for p in (project / "report").iterdir()}
    report.publish("smoke")
    assert {p.name for p in (project / "data" / "results" / "smoke").iterdir()} == {"predictions.parquet", "scores.csv", "costs.csv", "texts.parquet", "blind.parquet", "provenance.json"}
    assert {p.name for p in (project / "report").iterdir()} == before | {"smoke.html", "smoke.pdf", "smoke.json"}
    made, kept = (folder / "smoke" / "predictions.parquet" for folder in (paths.results(), paths.published_results()))
    assert pq.read_table(kept).equals(pq.read_table(made), check_metadata=True) and kept.stat().st_size < made.stat().st_size
    assert not (project / "figures").exists(), "the figures are the main study's"
    monkeypatch.setattr(report, "MAIN", "smoke")
    report.publish("smoke")
    assert (project / "figures" / "main_results.svg").exists() and (project / "report" / "study.pdf").exists() and (project / "report" / "facts.json").exists()
    assert (project / "report" / "template.md").exists()


def test_a_report_without_figures_is_published(project: Path) -> None:
    shutil.rmtree(paths.build() / "figures")
    report.publish("smoke")
    assert (project / "report" / "smoke.pdf").exists() and not (project / "figures").exists()


def test_a_study_without_answers_publishes_its_results_alone(project: Path) -> None:
    before = {p.name for p in (project / "report").iterdir()}
    for name in ("predictions.parquet", "scores.csv", "texts.parquet", "blind.parquet"):
        (paths.results() / "smoke" / name).unlink()
    assert report.publish("smoke") == [paths.published_results() / "smoke"]
    assert {p.name for p in (project / "data" / "results" / "smoke").iterdir()} == {"costs.csv", "provenance.json"}
    assert {p.name for p in (project / "report").iterdir()} == before


def test_a_report_of_tracked_results_is_published_alone(project: Path) -> None:
    report.publish("smoke")
    (project / "report" / "smoke.html").unlink()
    shutil.rmtree(paths.results() / "smoke")
    tracked = {p.name: p.read_bytes() for p in (paths.published_results() / "smoke").iterdir()}
    assert report.publish("smoke") == [paths.report()]
    assert (project / "report" / "smoke.html").exists() and {p.name: p.read_bytes() for p in (paths.published_results() / "smoke").iterdir()} == tracked
    with pytest.raises(FileNotFoundError, match="'nothing' is not collected"):
        report.publish("nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"dirty": [True]}, "come from uncommitted code"), ({"dirty": [False, None]}, "come from uncommitted code"), ({"protocol": ["evaluate 1"]}, "are of protocol evaluate 1, the code's is .*evaluate 2"), ({"scored": {"commit": "0", "dirty": True}}, "scored again by uncommitted code"), ({"stages": 1}, "is of other results")],
)
def test_publish_refuses_what_cannot_be_traced(project: Path, change: dict[str, Any], message: str) -> None:
    file = paths.results() / "smoke" / "provenance.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        report.publish("smoke")
    assert not (project / "figures").exists() and not list((project / "report").glob("*.pdf"))


def test_publish_refuses_a_report_that_failed_to_be_made(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies there then is the one made before."""
    facts = paths.build() / "facts" / "hallucination.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "unchanged": []}))
    before = (paths.build() / "study.html").read_bytes()
    monkeypatch.setattr(report, "_pdf", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.build("smoke")
    assert (paths.build() / "study.html").read_bytes() == before, "one half of a report is new"
    with pytest.raises(ValueError, match="is of other results"):
        report.publish("smoke")


def test_publish_refuses_uncommitted_code_and_large_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(report.LIMITS, "results", 10)
    with pytest.raises(ValueError, match="results of 'smoke' are"):
        report.publish("smoke")
    monkeypatch.setattr(report.provenance, "dirty", lambda: True)
    with pytest.raises(ValueError, match="differ from the commit"):
        report.publish("smoke")
    assert not (project / "figures").exists()


def test_blocks_of_both_forms_hold_the_same_texts(built: Path) -> None:
    _, _, content = report.document(collected.read_facts("smoke"))
    page = squeezed(Page(blocks.as_html(content)).text)
    assert all(squeezed(plain(b.spans)) in page for b in content if isinstance(b, Paragraph))
