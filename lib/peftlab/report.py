"""The report: report/template.md with the facts of a study, as study.html and study.pdf from one document."""

import html
import json
import re
import shutil
import string
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pypandoc
import typst

from peftlab import answers, blocks, collected, findings, methods, metrics, paths, provenance, records, style, tables, ways
from peftlab.blocks import Block, Card, Figure, Gallery, Heading, Listing, Paragraph, Span, Tabular, plain
from peftlab.findings import FINDINGS, Facts
from peftlab.run import PROTOCOL
from peftlab.tables import Cell, Table, number, scaled

UNNUMBERED = ("references",)
MAIN = "main"  # the study whose report is report/study.* and whose figures are in figures/
LIMITS = {"results": 6e6, "report and figures": 6e6}  # bytes of what is tracked


@dataclass(frozen=True)
class Report:
    """The files of a built report."""

    html: Path
    pdf: Path
    facts: Path


def build(study: str) -> Report:
    """Write study.html, study.pdf and facts.json of `study` into report/build, from the facts of the aggregate notebooks.

    Raises ValueError or FileNotFoundError with a sentence where facts, a figure or a reference are missing or of another study.
    """
    facts = collected.read_facts(study)
    title, subtitle, content = document(facts)
    line = f"Study “{study}” · {words(facts)['line']}"
    folder = paths.build()
    report = Report(folder / "study.html", folder / "study.pdf", folder / "facts.json")
    page = string.Template((paths.report() / "template.html").read_text(encoding="utf-8"))
    shown = {name: html.escape(text) for name, text in (("title", title), ("subtitle", subtitle), ("line", line))}
    pdf = _pdf(title, subtitle, line, content)
    report.html.write_text(page.substitute(shown, body=blocks.as_html(content)), encoding="utf-8")
    report.pdf.write_bytes(pdf)
    report.facts.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return report


def _pdf(title: str, subtitle: str, line: str, content: list[Block]) -> bytes:
    """PDF/UA-1 with embedded fonts: the standard refuses a document in which a picture has no alternative text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        head = (paths.report() / "template.typ").read_text(encoding="utf-8")
        opening = f"#show: paper.with(title: {tables.literal(title)}, subtitle: {tables.literal(subtitle)}, line: {tables.literal(line)})"
        (folder / "study.typ").write_text(f"{head}\n{opening}\n\n{blocks.as_typst(content, folder)}\n", encoding="utf-8")
        return typst.compile(str(folder / "study.typ"), root=name, format="pdf", pdf_standards=["ua-1"], font_paths=[str(style.fonts())], ignore_system_fonts=True)


# ---------------------------------------------------------------- template -> blocks


def document(facts: Facts) -> tuple[str, str, list[Block]]:
    """Title, subtitle and the numbered blocks of the report."""
    source = (paths.report() / "template.md").read_text(encoding="utf-8")
    tree = json.loads(pypandoc.convert_text(source, "json", format="markdown-raw_html-raw_tex-tex_math_dollars-implicit_figures"))
    writer = _Writer(facts, _numbers(tree["blocks"], facts), _cited(tree["blocks"], facts))
    of = "" if _fact(facts, "main_results.design.runs") else "bases-"
    title, subtitle = (plain(writer.spans(tree["meta"][of + name]["c"])) for name in ("title", "subtitle"))
    return title, subtitle, list(writer.blocks(tree["blocks"]))


def _divs(elements: list[dict[str, Any]], facts: Facts) -> Iterator[tuple[str, str, dict[str, str], list[dict[str, Any]]]]:
    """Every block in order; fenced blocks as (class, key, attributes, content), others under their own name. Opens ``when`` there are rows, and ``without``."""
    for element in elements:
        if element["t"] != "Div":
            yield element["t"], "", {}, [element]
            continue
        (key, (kind, *_), attributes), content = element["c"]
        if kind not in ("when", "without"):
            yield kind, key, dict(attributes), content
        elif bool(_fact(facts, dict(attributes)["rows"])) == (kind == "when"):
            yield from _divs(content, facts)


def _fact(facts: Facts, path: str) -> Any:
    """A fact by its dotted path, None where it is not there."""
    found: Any = facts
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _numbers(elements: list[dict[str, Any]], facts: Facts) -> dict[str, str]:
    """What a reference to each figure and table says: "Figure 1", "Table 2"."""
    found: dict[str, str] = {}
    for kind, key, _, _ in _divs(elements, facts):
        name = {"figure": "Figure", "gallery": "Figure", "table": "Table"}.get(kind)
        if name and (kind != "gallery" or _pictures(facts)):
            found[key] = f"{name} {1 + sum(label.startswith(name) for label in found.values())}"
    return found


def _cited(elements: list[dict[str, Any]], facts: Facts) -> list[str]:
    """The keys of references in the order of their first citation."""
    shown = [content for _, _, _, content in _divs(elements, facts)]
    return list(dict.fromkeys(re.findall(r'"citationId": "([^"]+)"', json.dumps(shown))))


class _Writer:
    """Turns pandoc's tree of the template into blocks: facts put in, references numbered."""

    def __init__(self, facts: Facts, numbers: dict[str, str], cited: list[str]) -> None:
        self.facts, self.numbers, self.cited = facts, numbers, cited
        self.told = findings.shortened(facts)
        self.words = words(facts)
        self.counts = [0, 0]

    def blocks(self, elements: list[dict[str, Any]]) -> Iterator[Block]:
        for kind, key, attributes, content in _divs(elements, self.facts):
            yield from getattr(self, f"_{kind.lower()}")(key, attributes, content)

    def _header(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]]) -> Iterator[Block]:
        level, (name, *_), inlines = content[0]["c"]
        number = ""
        if name not in UNNUMBERED:
            self.counts = [self.counts[0] + 1, 0] if level == 1 else [self.counts[0], self.counts[1] + 1]
            number = ".".join(map(str, self.counts[:level]))
        yield Heading(level, number, tuple(self.spans(inlines)), f"section-{name}")

    def _para(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]], role: str = "") -> Iterator[Block]:
        spans = tuple(self.spans(content[0]["c"]))
        listed = re.fullmatch(r"\{items\.(\w+)\}", plain(spans))
        if listed:
            yield Listing(tuple((Span(sentence),) for sentence in FINDINGS[listed[1]](self.told)))
        elif plain(spans).strip():
            yield Paragraph(spans, role)

    def _bulletlist(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]]) -> Iterator[Block]:
        yield Listing(tuple(tuple(self.spans(item[0]["c"])) for item in content[0]["c"]))

    def _abstract(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]]) -> Iterator[Block]:
        for element in content:
            yield from self._para("", {}, [element], "abstract")

    def _caption(self, content: list[dict[str, Any]]) -> tuple[Span, ...]:
        return tuple(self.spans(content[0]["c"]))

    def _figure(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]]) -> Iterator[Block]:
        file = paths.build() / "figures" / f"{key}.svg"
        if not file.exists():
            raise FileNotFoundError(f"the figure {key} is not drawn: run the aggregate notebooks of {self.facts['main_results']['study']!r}")
        yield Figure(key, self._number(key), self._caption(content), self._fill(attributes.get("alt", "")), file)

    def _table(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]]) -> Iterator[Block]:
        yield Tabular(key, self._number(key), self._caption(content), TABLES[key](self.facts, self._label), stays=key == "provenance_table")

    def _gallery(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]]) -> Iterator[Block]:
        pictures = _pictures(self.facts)
        if pictures:
            yield Gallery(key, self._number(key), self._caption(content), tuple(_cards(self.told, pictures, answers=key == "answers")), int(attributes["print"]))
        else:
            yield Paragraph((Span("The pictures are not shown: the data sets of these answers are not prepared on the machine that made this report."),))

    def _references(self, key: str, attributes: dict[str, str], content: list[dict[str, Any]]) -> Iterator[Block]:
        entries = references(self.cited)
        yield Listing(tuple(entries.values()), tuple(f"[{i}]" for i in range(1, len(entries) + 1)), tuple(f"ref-{k}" for k in entries))

    def _number(self, key: str) -> int:
        return int(self.numbers[key].split()[1])

    def _label(self, key: str) -> str:
        """The numeric label of a reference, empty where the text does not cite it."""
        return f"[{self.cited.index(key) + 1}]" if key in self.cited else ""

    def _fill(self, text: str) -> str:
        """A text with its facts put in: {words.x} and {finding.x}; {items.x} is a list, put in by the paragraph."""

        def put(match: re.Match[str]) -> str:
            kind, name = match[1], match[2]
            if kind == "items":
                return match[0]
            return self.words[name] if kind == "words" else " ".join(FINDINGS[name](self.told))

        return re.sub(r"\{(words|finding|items)\.(\w+)\}", put, text)

    def spans(self, inlines: list[dict[str, Any]], kind: str = "text") -> Iterator[Span]:
        """Pandoc's inlines as spans."""
        text = ""
        for inline in [*inlines, None]:
            name, value = (inline["t"], inline.get("c")) if inline else ("End", None)
            if name in ("Str", "Space", "SoftBreak"):
                text += value if name == "Str" else " "
                continue
            if text:
                yield Span(self._fill(text), kind)
                text = ""
            yield from self._inline(name, value, kind)

    def _inline(self, name: str, value: Any, kind: str) -> Iterator[Span]:
        match name:
            case "End":
                return
            case "Emph" | "Strong":
                yield from self.spans(value, name.lower())
            case "Code":
                yield Span(value[1], "code")
            case "Quoted":
                left, right = "“”" if value[0]["t"] == "DoubleQuote" else "‘’"
                yield from [Span(left, kind), *self.spans(value[1], kind), Span(right, kind)]
            case "Cite":
                for i, citation in enumerate(value[0]):
                    key = citation["citationId"]
                    yield from [Span(", ")] if i else []
                    yield Span(self._label(key), "link", f"#ref-{key}")
            case "Link":
                target = value[2][0]
                text = plain(list(self.spans(value[1]))) or self.numbers[target[1:]]
                yield Span(text, "link", target)
            case "Span":
                yield from self.spans(value[1], kind)
            case _:
                raise ValueError(f"report/template.md holds {name}, which the report cannot show; use text, emphasis, code, links, citations")


def references(keys: list[str]) -> dict[str, tuple[Span, ...]]:
    """The entries of report/references.bib as they are printed, in the order of `keys`; an unknown key raises ValueError."""
    file = paths.report() / "references.bib"
    known = set(re.findall(r"@\w+\{([^,\s]+),", file.read_text(encoding="utf-8")))
    for key in keys:
        if key not in known:
            raise ValueError(f"{key!r} is cited, but report/references.bib has no such entry; it has {', '.join(sorted(known))}")
    tree = json.loads(pypandoc.convert_text("---\nnocite: '@*'\n---\n", "json", format="markdown", extra_args=["--citeproc", f"--bibliography={file}"]))
    writer = _Writer({}, {}, [])
    entries = {div["c"][0][0].removeprefix("ref-"): div["c"][1][0]["c"] for div in tree["blocks"][0]["c"][1]}
    return {key: tuple(writer.spans(entries[key])) for key in keys}


# ---------------------------------------------------------------- facts -> words, tables, cards


def words(facts: Facts) -> dict[str, str]:
    """What the template's {words.x} stand for."""
    if "main_results" not in facts:
        return {}
    design, origins = facts["main_results"]["design"], facts["provenance"]
    parameters = findings.listed(f"{scaled(n, tables.PARAMETERS)} are in the {PARTS.get(tower, tower)}" for tower, n in design["parameters"].items() if n)
    scored = facts["main_results"]["scores"]
    kinds = {ways.method(r["method"]) for r in scored}
    tuned = {r["method"] for r in scored if ways.method(r["method"]) not in ("none", "full")}
    states = [s for s in ("frozen", "tuned") if any(r["connector"] == s and ways.method(r["method"]) not in ("none", "connector") for r in scored)]
    full = "full fine-tuning and with " if "full" in kinds else ""
    probed = {r["tested_on"] for r in facts.get("hallucination", {}).get("invented", [])}
    seeded = len(design["seeds"]) > 1
    counted = number(design["runs"], 0)
    return {
        "line": f"{f'{counted} fine-tuning runs · ' if design['runs'] else ''}{number(design['answers'], 0)} answers · begun {str(origins['started'])[:10]}",
        "parameters": f"Of its parameters {parameters}." if any(design["parameters"].values()) else "",
        "against": f"{full}the untouched model",
        "states": " or ".join(states) or "frozen",
        "beside": f"each run had {findings.many(max(design['threads']), 'core', 'cores')} of {number(min(design['cores']), 0)}, and others ran beside it: they tell orders of magnitude" if findings.beside_others(design) else "each run had all cores",
        "ways": "one way" if len(tuned) == 1 else f"{_word(len(tuned))} ways",
        "onto": _onto(design),
        "small": "" if design["others"] else "small ",
        "connectors": " ".join(f"{style.label('model', name)}: {CONNECTORS[name]}." for name in design["pocket"] if name in CONNECTORS),
        "others": f"Models of others, as they are published: {findings.listed(m['label'] + ' (' + m['source'] + ')' for m in design['models'] if m['model'] in design['others'])}.",
        "base": _bases(facts["main_results"]["bases"]),
        "steps": " or ".join(number(s, 0) for s in design["steps"]),
        "bases": findings.many(len(design["models"]), "untouched model", "untouched models"),
        "batch_size": " or ".join(number(s, 0) for s in design["batch_size"]),
        "level": number(design["level"], 0),
        "seeded": "Where a model was tuned with several seeds its scores are averaged, the variance between seeds is added, and the quantile is that of Satterthwaite's degrees of freedom." if seeded else "",
        "control": _controlled(facts["main_results"]["to_shuffled"], scored),
        "whole": " ".join(sentence for method, sentence in WHOLE.items() if method in kinds),
        "captioned": CAPTIONED[bool(probed & set(metrics.BESIDE))] + (SIMPLE if "clean_captions" in probed else ""),
        "sources": findings.listed(style.label("dataset", name) for name in origins["sources"]) if origins.get("sources") else "the seen sets",
        "cost_group": facts.get("cost", {}).get("group", ""),
        "scored": " ".join(SCORED[name] for name in dict.fromkeys(r.get("metric") for r in scored) if name in SCORED),
        "provenance": f"The answers of this report come from {number(origins['stages'], 0)} finished stages of runs, which took {_hours(origins['seconds'])} together, on the machine named below.",
    }  # fmt: skip


FEW = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _word(count: int) -> str:
    """A count in a sentence: a word up to ten."""
    return FEW[count] if count < len(FEW) else number(count, 0)


def _onto(design: dict[str, Any]) -> str:
    """What was tuned, in words: models of this project by what they are for, those of others by name."""
    count, others = len(design["pocket"]), findings.listed(m["label"] for m in design["models"] if m["model"] in design["others"])
    small = f"{'a multimodal language model that is' if count == 1 else f'{_word(count)} multimodal language models that are'} small enough for two processor cores" if count else ""
    return " and on ".join(filter(None, (small, others if design["others"] else "")))


WHOLE = {  # of methods that train what others leave as it is
    "full": "Full fine-tuning trains all of the language model.",
    "connector": "Connector only trains what the other methods leave frozen or tune beside themselves, so that its share in their results can be seen.",
}


def _controlled(controls: list[dict[str, Any]], scored: list[dict[str, Any]]) -> str:
    """What of the controls with shuffled pictures a reader must know: the state of the connector they were tuned with, and their seeds."""
    state = findings.controlled_at(controls, scored)
    only = f" The control was tuned with the connector {state} only." if state else ""
    several = {(r["method"], r["connector"]) for r in controls} & {(r["method"], r["connector"]) for r in scored if r["seeds"] > 1}
    return only + (" Where it was run with one seed and its method with several, it is taken to vary between seeds as its method does." if several else "")


SCORED = {  # of the metrics beside exact match, by name
    "letter_or_name": "Where choices have letters, the letter and the name count alike.",
    "vqa": "Where a question has several accepted answers of its own weight, the score is the soft accuracy of VQA: an answer earns by how many of them it equals, in full from three on, in the mean over each of them left out.",
    "cider": "Captions are scored by CIDEr-D, which weighs the words shared with the references by how telling they are in the test set, here from nought to a hundred and more; what the baselines earn by it stands beside.",
}


CAPTIONED = {  # what is described, and when a caption errs, by whether published pictures are among it
    False: "Models describe test scenes whose things are known exactly; a caption errs that names one of the data set's things which is not there, by its own name",
    True: "Models describe pictures whose things are known; a caption errs that names one which is not there, by its own name or, of a published set's things, by one of a list of synonyms",
}


SIMPLE = ". Simple scenes hold one or two things, all of names that the base was taught"


CONNECTORS = {  # of the pocket models
    "pocket-mlp": "two linear layers turn the encoder's 25 cells into a token each",
    "pocket-resampler": "16 learned queries look at all cells, a token each",
    "pocket-merger": "neighbouring cells are merged two by two before two linear layers, which leaves a quarter as many tokens",
}


def _bases(bases: dict[str, dict[str, Any] | None]) -> str:
    """How each base was made, by its name where there are several."""
    several = f"The models of this study are {findings.listed(style.label('model', name) for name in bases)}. " if len(bases) > 1 else ""
    return several + " ".join((f"{style.label('model', name)}: " if several else "") + _made(made) for name, made in bases.items() if made)


def _made(base: dict[str, Any]) -> str:
    """How a base was trained, and what its validation says of it."""
    if "other_build" in base:
        return "It is not the build of that base which the project holds now, whose making is tracked, but an earlier one."
    steps, now, before, guessed = base["settings"], base["validation"], base["validation_a_fifth_before"], base["question_only"]
    each = findings.listed(f"{number(now[d])}\u00a0% on {style.label('dataset', d)} ({number(guessed[d])}\u00a0%)" for d in now)
    earlier = findings.listed(f"{number(before[d])}\u00a0%" for d in now)
    return (
        f"The first stage took {number(steps['align_steps'], 0)} steps of {steps['batch_size']} captions, the second {number(steps['tune_steps'], 0)} steps of {steps['talks']} conversations "
        f"(of up to three questions each), then {number(steps['more_steps'], 0)} more steps from half the rate. Of {number(steps['checks'], 0)} validation questions each the base answers right {each}; in brackets, "
        f"a classifier that was taught the same pool and sees no picture. Before those last {number(steps['more_steps'], 0)} steps these were {earlier}."
    )


PARTS = {"vision": "vision encoder", "connector": "connector", "llm": "language model"}


def _hours(seconds: float) -> str:
    return f"{number(seconds / 3600)} hours" if seconds >= 5400 else f"{number(seconds / 60, 0)} minutes"


Label = Callable[[str], str]


def _frame(facts: Facts, name: str, part: str) -> pd.DataFrame:
    return pd.DataFrame(facts[name][part])


def _provenance_table(facts: Facts, label: Label) -> Table:
    """Where the numbers come from: every value that occurs."""

    def listed(values: list[Any]) -> str:
        return ", ".join("unknown" if v is None else str(v) for v in values)

    origins = facts["provenance"]
    made = f", products in {listed(told)}" if (told := [x for x in origins.get("products", []) if x]) else ""  # a study made before they were told has none
    state = {(False,): "committed", (True,): "uncommitted changes"}.get(tuple(origins["dirty"]), "partly unknown or with uncommitted changes")
    rows: list[tuple[str | Cell, ...]] = [
        ("Commit", Cell(listed([c and c[:12] for c in origins["commits"]]), f"library, notebooks and lock file: {state}")),
        ("Machine", Cell(listed(origins["processors"]), f"{listed(origins['cores'])} cores, {listed(origins['systems'])}; computed on {listed(origins['devices'])}{made}")),
        ("Begun", str(origins["started"])),
        ("Protocol", listed(origins["protocol"])),
        ("Packages", f"Python {listed(origins['python'])}; " + ", ".join(f"{n} {listed([x for x in v if x])}" for n, v in origins["packages"].items())),
    ]
    rows += [(f"Base {name}", digest[:24]) for name, digest in origins["bases"].items()]
    rows += [(f"Data {d['dataset']}", Cell(d["digest"][:24], f"as read to {d['stage']}")) for d in origins["data"]]
    return Table(("What", "Value"), tuple(rows), "lp")


TABLES: dict[str, Callable[[Facts, Label], Table]] = {
    "definitions": lambda f, label: tables.definitions_table(_frame(f, "main_results", "definitions"), cite=label),
    "data": lambda f, label: tables.data_table(_frame(f, "main_results", "data")),
    "bases": lambda f, label: tables.bases_table(_frame(f, "main_results", "known")),
    "blind": lambda f, label: tables.blind_table(_frame(f, "main_results", "to_blind")),
    "main": lambda f, label: tables.main_table(*(_frame(f, "main_results", part) for part in ("scores", "averages", "baselines", "baseline_averages"))),
    "likeliest_table": lambda f, label: tables.likeliest_table(_frame(f, "main_results", "likeliest")),
    "to_base_table": lambda f, label: tables.differences_table(_frame(f, "main_results", "to_base")),
    "control_table": lambda f, label: tables.control_table(_frame(f, "main_results", "to_shuffled")),
    "stability_table": lambda f, label: tables.stability_table(*(_frame(f, "main_results", part) for part in ("stability", "stability_overall"))),
    "models_table": lambda f, label: tables.models_table(_frame(f, "main_results", "between_models")),
    "order_table": lambda f, label: tables.order_table(_frame(f, "main_results", "between_methods")),
    "to_frozen_table": lambda f, label: tables.differences_table(_frame(f, "main_results", "to_frozen")),
    "forgetting_table": lambda f, label: tables.forgetting_table(_frame(f, "forgetting", "parts")),
    "forgetting_differences": lambda f, label: tables.forgetting_table(_frame(f, "forgetting", "parts"), differences=True),
    "forgetting_likeliest": lambda f, label: tables.forgetting_table(_frame(f, "forgetting", "likeliest"), differences=True, beside=_frame(f, "forgetting", "answered")),
    "text_table": lambda f, label: tables.text_table(_frame(f, "forgetting", "text")),
    "hallucination_table": lambda f, label: tables.hallucination_table(_frame(f, "hallucination", "scores")),
    "invented_table": lambda f, label: tables.invented_table(_frame(f, "hallucination", "invented")),
    "broken_table": lambda f, label: tables.broken_table(_frame(f, "hallucination", "broken")),
    "unchanged_table": lambda f, label: tables.unchanged_table(_frame(f, "hallucination", "unchanged")),
    "unfit_table": lambda f, label: tables.unfit_table(_frame(f, "main_results", "unfit")),
    "cost_table": lambda f, label: tables.cost_table(_frame(f, "cost", "costs"), _frame(f, "cost", "unfit")),
    "provenance_table": _provenance_table,
}


def _pictures(facts: Facts) -> dict[tuple[str, str], Any]:
    """The pictures of the sampled questions by (data set, example_id); empty where the data are not prepared here."""
    wanted: dict[str, list[str]] = {}
    for row in facts["main_results"]["samples"]:
        wanted.setdefault(row["tested_on"], []).append(row["example_id"])
    if not all((paths.prepared() / dataset / "test.parquet").exists() for dataset in wanted):
        return {}
    return {(dataset, name): image for dataset, ids in wanted.items() for name, image in records.read_pictures(dataset, "test", ids).items()}


def _earned(answer: dict[str, Any]) -> str:
    """What an answer is marked with: right, wrong or unparsed, or what it earned where that is neither nothing nor all."""
    graded = answer["outcome"] == "right" and (metrics.metric(answer["metric"]).relative or answer["value"] < 100)
    return number(answer["value"]) if graded else answer["outcome"]


ANSWERS = 16  # the most that are shown of a question; of more, those of the core methods


def _cards(facts: Facts, pictures: dict[tuple[str, str], Any], *, answers: bool) -> Iterator[Card]:
    """A card per sampled question; with what each model answered, or without."""
    for row in facts["main_results"]["samples"]:
        core = [r for r in row["responses"] if methods.card(ways.method(r["method"])).group == "core"]
        shown = row["responses"] if len(row["responses"]) <= ANSWERS else core
        several = len({r["model"] for r in shown}) > 1
        said = ((f"{style.label('model', r['model'])}: {findings.arm(r)}" if several else findings.arm(r), r["response"], _earned(r)) for r in shown) if answers else ()
        image = pictures[row["tested_on"], row["example_id"]]
        yield Card(image, style.label("dataset", row["tested_on"]), row["question"], " / ".join(row["answers"]), tuple(said))


# ---------------------------------------------------------------- publishing


def publish(study: str) -> list[Path]:
    """Copy what `build` made of `study`, its results and its figures to their tracked places; returns the folders written.

    The report of `MAIN` is report/study.html and .pdf with its facts, that of another study is named after it; figures/ holds the main study's.
    A study without answers has no report: its results are all there is. Of a report made from tracked results the report alone is renewed.

    Refused, with nothing written, unless library, notebooks and lock file are committed, and the results come from committed
    code of the present protocol; and where the files are larger than what the repository is to hold. Raises FileNotFoundError where the study is not collected.
    """
    if provenance.dirty() is not False:
        raise ValueError("library, notebooks or requirements.lock differ from the commit (or git is missing): commit them, run again, then publish")
    read = collected.read_results(study)
    results, origins = read.folder, read.provenance
    if origins["dirty"] != [False] or None in origins["commits"]:
        raise ValueError(f"results of {study!r} come from uncommitted code: run them again from a clean commit")
    if origins.get("scored", {"dirty": False})["dirty"] is not False:
        raise ValueError(f"results of {study!r} were scored again by uncommitted code: rescore them from a clean commit")
    now = [f"{stage} {number}" for stage, number in PROTOCOL.items()]
    if not set(origins["protocol"]) <= set(now):
        raise ValueError(f"results of {study!r} are of protocol {', '.join(map(str, origins['protocol']))}, the code's is {', '.join(now)}: run them again")
    made, drawn = {}, []
    if (results / "predictions.parquet").exists():
        facts = collected.read_facts(study)
        if facts["provenance"] != {"study": study, **origins} or records.read_json(paths.build() / "facts.json") != facts:  # written last: where a report failed it is of what was made before
            raise ValueError(f"the report in {paths.build()} is of other results of {study!r}: run `python -m peftlab report {study}`")
        made = {paths.build() / name: name if study == MAIN else f"{study}{Path(name).suffix}" for name in ("study.html", "study.pdf", "facts.json")}
        drawn = sorted((paths.build() / "figures").glob("*"))  # a study of bases alone draws none
    tidy = sorted(p for p in results.iterdir() if p.is_file())
    for what, files in (("results", tidy), ("report and figures", [*made, *drawn])):
        size = sum(f.stat().st_size for f in files)
        if size > LIMITS[what]:
            raise ValueError(f"{what} of {study!r} are {size / 1e6:.1f} MB; at most {LIMITS[what] / 1e6:.0f} MB are tracked (lib/peftlab/report.py)")
    places = [({f: f.name for f in tidy}, paths.published_results() / study, True)] if results != paths.published_results() / study else []
    if made:
        places.append((made, paths.report(), False))
    if made and study == MAIN:
        places.append(({f: f.name for f in drawn}, paths.figures(), True))
    for files, folder, fresh in places:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file, name in files.items():
            (answers.packed if file.suffix == ".parquet" else shutil.copyfile)(file, folder / name)
    return [folder for _, folder, _ in places]
