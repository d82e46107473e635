"""Frames of estimates to tables, and tables to HTML, Typst and Markdown with every text escaped."""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import nlargest
from typing import Any

import pandas as pd

from peftlab import metrics, style

# ---------------------------------------------------------------- words of numbers


def number(value: Any, digits: int = 1) -> str:
    """A number with a true minus sign and thousands apart; a dash where it is missing."""
    return "–" if value is None or pd.isna(value) else f"{value:z,.{digits}f}".replace("-", "−")  # z: nought has no sign


def rate(value: Any) -> str:
    """A learning rate, as short as it is exact; a dash where there is none."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return "–"
    return value if isinstance(value, str) else re.sub(r"e([-+])0*", lambda m: "e" + m[1].replace("-", "−").replace("+", ""), f"{value:.1e}").replace(".0e", "e")


def bounds(low: Any, high: Any) -> str:
    """An interval in brackets that do not break over lines, or a dash where there is none."""
    return "–" if low is None or pd.isna(low) else f"[{number(low)},\u00a0{number(high)}]"


def scaled(value: Any, units: Sequence[tuple[float, str]]) -> str:
    """A number in the largest unit it reaches, with three figures; `units` are (size, name), largest first."""
    if value is None or pd.isna(value):
        return "–"
    size, unit = next(((s, u) for s, u in units if abs(value) >= s), units[-1])
    return f"{value / size:.{max(0, 2 - len(str(int(abs(value) / size))) + 1) if value % size else 0}f}\u00a0{unit}".strip()


PARAMETERS = ((1e9, "B"), (1e6, "M"), (1e3, "k"), (1, ""))
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))

# ---------------------------------------------------------------- frames -> tables


@dataclass(frozen=True)
class Cell:
    """A text, with a smaller one under it."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Table:
    """What a table says, before any form: a head, rows of texts or cells, an l, c, r or p (left, may wrap) per column, and rows a thin rule precedes."""

    head: tuple[str | Cell, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    align: str
    rules: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in (self.head, *self.rows):
            if len(row) != len(self.align):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.align)} columns: {row[:3]}")

    def _repr_html_(self) -> str:
        """For notebooks, which have no style sheet of ours; texts are escaped, so none of these marks is in one."""
        looks = {
            '<span class="small">': '<br><span class="small" style="font-size: smaller; opacity: .7">',
            'class="l"': 'class="l" style="text-align: left"',
            'class="p"': 'class="p" style="text-align: left"',
            '<tr class="rule">': '<tr class="rule" style="border-top: 1px solid">',
        }
        page = as_html(self)
        for mark, look in looks.items():
            page = page.replace(mark, look)
        return page


def _cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def as_html(table: Table) -> str:
    """The table as HTML, every text escaped; classes l, c, r, p, small and rule are for the page's style sheet."""

    def line(row: Sequence[str | Cell], tag: str, place: int | None = None) -> str:
        inner = []
        for index, (value, side) in enumerate(zip(map(_cell, row), table.align)):
            small = f'<span class="small">{html.escape(value.small)}</span>' if value.small else ""
            name, scope = ("th", ' scope="row"') if tag == "td" and index == 0 else (tag, ' scope="col"' if tag == "th" else "")
            inner.append(f'<{name}{scope} class="{side}">{html.escape(value.text)}{small}</{name}>')
        return ('<tr class="rule">' if place in table.rules else "<tr>") + "".join(inner) + "</tr>"

    body = "\n".join(line(row, "td", i) for i, row in enumerate(table.rows))
    return f"<table>\n<thead>{line(table.head, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def literal(text: str) -> str:
    """A Typst string literal of a text: it is shown as it is, whatever markup it holds; letters no font has are named."""
    text = style.printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\n", " ").replace("\r", " ").replace("\t", " ") + '"'


def as_typst(table: Table) -> str:
    """The table as a Typst expression (code mode) of string literals, for the ``booktabs`` function of report/template.typ."""

    def line(row: Sequence[str | Cell]) -> str:
        return f"({', '.join(f'({literal(c.text)}, {literal(c.small)})' for c in map(_cell, row))},)"

    align = ", ".join({"l": "left", "c": "center", "r": "right", "p": '"p"'}[side] for side in table.align)
    rules = ", ".join(map(str, sorted(table.rules)))
    rows = ",\n  ".join(map(line, table.rows))
    widest = ", ".join(map(str, _widest(table)))
    return f"booktabs(\n  align: ({align},),\n  rules: ({rules}{',' if table.rules else ''}),\n  head: {line(table.head)},\n  widest: ({widest},),\n  {rows},\n)"


LIKELY = 4  # of the longest texts in a column, how many are laid out to find the widest


def _long(text: str) -> float:
    """About how wide a text is: capitals and broad letters count more."""
    return len(text) + 0.5 * sum(letter.isupper() or letter in "mw" for letter in text) - 0.5 * sum(letter in "iljtf.,:;'|()[] " for letter in text)


def _widest(table: Table) -> list[int]:
    """The rows that hold the longest texts of each column: what of a long table is laid out to see whether it fits."""
    if len(table.rows) <= LIKELY * len(table.head):
        return list(range(len(table.rows)))
    found = set[int]()
    for column in zip(*table.rows, strict=True):
        for texts in zip(*((_long(cell.text), _long(cell.small)) for cell in map(_cell, column)), strict=True):
            found |= set(nlargest(LIKELY, range(len(texts)), key=texts.__getitem__))
    return sorted(found)


def as_markdown(table: Table) -> str:
    """The table as a Markdown pipe table, every punctuation mark of a text escaped."""

    def line(row: Sequence[str | Cell]) -> str:
        texts = (f"{c.text} {c.small}".strip() for c in map(_cell, row))
        return "| " + " | ".join(re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(t.split())) for t in texts) + " |"

    sides = "|".join({"l": ":---", "p": ":---", "c": ":---:", "r": "---:"}[side] for side in table.align)
    return "\n".join([line(table.head), f"|{sides}|", *map(line, table.rows)])


# ---------------------------------------------------------------- the report's tables, from frames


def _who(row: Mapping[str, Any]) -> tuple[str, str]:
    """Label of the method and state of the connector; a dash where the method has only one."""
    return style.label("method", row["method"]), "–" if row["method"] == "none" else row["connector"]


def _on(row: Mapping[str, Any]) -> tuple[Cell, str]:
    """As `_who`, with the base's quantisation below the method where the row names one and it is not full precision."""
    (name, state), level = _who(row), row.get("quantisation", "none")
    return Cell(name, "" if level == "none" else f"{style.label('quantisation', level)} base"), state


def _estimate(row: Mapping[str, Any] | None) -> Cell:
    return Cell("–") if row is None else Cell(number(row["mean"]), bounds(row["low"], row["high"]) if not pd.isna(row["low"]) else "")


def _lookup(frame: pd.DataFrame, *keys: str) -> Callable[..., dict[str, Any] | None]:
    """A row by its values of `keys`, None where there is none; raises ValueError where two rows have the same."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in frame.to_dict("records"):
        key = tuple(row[k] for k in keys)
        if key in found:
            raise ValueError(f"two rows are {' / '.join(map(str, key))} ({', '.join(keys)}): a table would show one of them; give it frames that tell them apart (lib/peftlab/tables.py)")
        found[key] = row
    return lambda *values: found.get(values)


Rows = list[tuple[str | Cell, ...]]


def _stacked(head: Sequence[str | Cell], align: str, build: Callable[..., tuple[Rows, set[int]]], *frames: pd.DataFrame) -> Table:
    """The rows that `build` makes of the frames, with the rules among them; of several models or precisions a block each, named in a first column."""
    blocks = style.apart(*frames)
    if len(blocks) == 1:
        rows, rules = build(*frames)
        return Table(tuple(head), tuple(rows), align, frozenset(rules))
    rows, rules = [], set()
    for model, precision, mine in blocks:
        found, within = build(*mine)
        rules |= {len(rows) + rule for rule in within} | ({len(rows)} if rows else set())
        rows += [((Cell(model or precision, precision if model else "") if i == 0 else ""), *row) for i, row in enumerate(found)]
    return Table(("Model" if blocks[0][0] else "Precision", *head), tuple(rows), f"l{align}", frozenset(rules))


def main_table(scores: pd.DataFrame, averages: pd.DataFrame, baselines: pd.DataFrame, blind: pd.DataFrame) -> Table:
    """Method × connector × data set with intervals, the seen and unseen averages, and below a rule the baselines with theirs, `blind` (`estimates.baseline_averages`).

    A data set of another metric than accuracy in per cent says so in the head, and is in no average unless all are of it.
    """
    firsts = scores.drop_duplicates([axis for axis in ("model", "dataset") if axis in scores]).sort_values("group", kind="stable")
    sets = [{"dataset": d, **{name: _several(mine[name]) for name in ("group", "n", "metric")}} for d, mine in firsts.groupby("dataset", sort=False)]
    tuned = averages[averages["method"] != "none"] if len(averages) else pd.DataFrame(columns=["group", "datasets"])
    held = {g: mine["datasets"] for g, mine in tuned.groupby("group")}
    groups = [g for g in ("seen", "unseen") if g in held and held[g].max() > 1]
    head = ["Method", "Connector", *(Cell(style.label("dataset", s["dataset"]), f"{_unit(s['metric'])}{s['group']}, n = {s['n']}") for s in sets)]
    head += [Cell(f"Mean {g}", f"{_several(held[g])} sets") for g in groups] + [Cell("Unparsed", "%" if len(sets) == 1 else "by data set, %" if len(sets) <= LISTED else "the most, %")]

    def build(scores: pd.DataFrame, averages: pd.DataFrame, baselines: pd.DataFrame, blind: pd.DataFrame) -> tuple[Rows, set[int]]:
        score, average, rows = _lookup(scores, "method", "connector", "dataset"), _lookup(averages, "method", "connector", "group"), []
        for arm in style.ordered(scores[["method", "connector"]].drop_duplicates(), ("method", "connector")).to_dict("records"):
            key, mine = (arm["method"], arm["connector"]), [score(arm["method"], arm["connector"], s["dataset"]) for s in sets]
            rows.append((*_who(arm), *map(_estimate, mine), *(_estimate(average(*key, g)) for g in groups), unparsed(mine)))
        rules, row, mean = {len(rows)}, _lookup(baselines, "baseline", "dataset"), _lookup(blind, "baseline", "group")
        for name in [b for b in style.order("baseline") if b in set(baselines["baseline"])]:
            mine = [row(name, s["dataset"]) for s in sets]
            rows.append((style.label("baseline", name), "–", *map(_estimate, mine), *(_estimate(mean(name, g)) for g in groups), "–" if name == "chance" else unparsed(mine)))
        return rows, rules

    def unparsed(mine: Sequence[Mapping[str, Any] | None]) -> str | Cell:
        if len(sets) <= LISTED:
            return _unparsed(mine)
        most = max((r for r in mine if r is not None), key=lambda r: r["unparsed"] / r["n"], default=None)
        return "–" if most is None else Cell(number(100 * most["unparsed"] / most["n"]), style.label("dataset", most["dataset"]) if most["unparsed"] else "")

    return _stacked(head, "ll" + "r" * (len(head) - 2), build, scores, averages, baselines, blind)


LISTED = 3  # the most data sets whose shares of unparsed answers stand in one cell


def _several(values: pd.Series) -> str:
    """The different values of a column, as a head says them."""
    return "/".join(number(v, 0) if not isinstance(v, str) else v for v in values.dropna().unique())


def _unit(metric: str) -> str:
    how = metrics.metric(metric)
    return "" if how.is_share and how.label == metrics.metric("exact").label else f"{how.label}, "


def _unparsed(rows: Iterable[Mapping[str, Any] | None]) -> str:
    """The share of unparsed answers in each row, in per cent."""
    return " / ".join("–" if r is None else number(100 * r["unparsed"] / r["n"]) for r in rows)


KNOWN = {"true": "Right picture", "blank": "Blank", "shuffled": "Shuffled", "majority": "Most frequent", "question_only": "Question only", "chance": "Chance"}


def bases_table(frame: pd.DataFrame) -> Table:
    """What the untouched bases know: a block per data set with a row per base, and a column per kind of picture and per way to answer without one.

    `frame` is `estimates.bases`'; what is the question's own, and so the same for every base, stands once a block. With one base a data set is one row.
    """
    known = _lookup(frame, "dataset", "model", "baseline")

    def tail(dataset: str, model: str) -> tuple[str, ...]:
        return (f"{_unparsed([known(dataset, model, 'true')])} %",)

    def about(dataset: str, model: str) -> dict[str, Any] | None:
        return known(dataset, model, "true")

    return _by_base(frame, about, lambda *key: _estimate(known(*key)), tail, ("Unparsed",), once=True)


def blind_table(frame: pd.DataFrame) -> Table:
    """By how many points each untouched base is above itself without the picture, and above what is said without one, on the same questions: `estimates.to_blind`'s, in the form of `bases_table`."""
    bare = frame[frame["method"] == "none"]
    found, firsts = _lookup(bare, "dataset", "model", "baseline"), _lookup(bare.drop_duplicates(["dataset", "model"]), "dataset", "model")

    return _by_base(bare, firsts, lambda *key: _difference(found(*key)), lambda *key: (), ())


def _by_base(
    frame: pd.DataFrame, about: Callable[[str, str], dict[str, Any] | None], cell: Callable[[str, str, str], Cell], tail: Callable[[str, str], tuple[str, ...]], last: tuple[str, ...], *, once: bool = False
) -> Table:
    """A block per data set with a row per base and a column per baseline; with `once` what is the question's own stands once a block."""
    kinds, several = [k for k in KNOWN if k in set(frame["baseline"])], frame["model"].nunique() > 1
    head = ["Data set", *(["Model"] if several else []), *(KNOWN[k] for k in kinds), *last]
    rows, rules = Rows(), set()
    for dataset, mine in style.ordered(frame, ("dataset", "model")).groupby("dataset", sort=False):
        rules |= {len(rows)} if rows and several else set()
        own: dict[str, Cell] = {}
        for i, model in enumerate(mine["model"].unique()):
            known = about(dataset, model)
            place = Cell(style.label("dataset", dataset), f"{_unit(known['metric'])}{known['group']}, n = {number(known['n'], 0)}") if i == 0 else ""
            cells = [cell(dataset, model, k) for k in kinds]
            shown = ["" if once and i and k not in PICTURED and own.get(k) == one else one for k, one in zip(kinds, cells, strict=True)]
            own |= dict(zip(kinds, cells, strict=True))
            rows.append((place, *([style.label("model", model)] if several else []), *shown, *tail(dataset, model)))
    return Table(tuple(head), tuple(rows), "l" * (1 + several) + "r" * (len(kinds) + len(last)), frozenset(rules))


PICTURED = ("true", "blank", "shuffled")  # what a base was shown


def differences_table(frame: pd.DataFrame) -> Table:
    """Paired differences in points, with their intervals and what they allow to say; a row per comparison."""

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        rows, rules, last = [], set(), None
        for i, row in enumerate(frame.to_dict("records")):
            place = style.label("dataset", row["dataset"])
            rules |= {i} if last not in (None, place) else set()
            sign = "+" if row["mean"] > 0 else ""
            rows.append((place if place != last else "", *_on(row), sign + number(row["mean"]), bounds(row["low"], row["high"]), number(row["n"], 0), row["verdict"]))
            last = place
        return rows, rules

    head = ("Data set", "Method", "Connector", "Difference", "Interval", "n", "Verdict")
    return _stacked(head, "lllrrrl", build, frame)


def models_table(frame: pd.DataFrame) -> Table:
    """Paired differences in points of each base, untouched and tuned alike, to the first one, and of what tuning gained on each; a row per data set and method, two columns per base."""
    others = style.shown("model", frame["model"])
    first = _several(frame["first"].map(partial(style.label, "model")))
    gained = frame["gained"].notna().any()
    rows, rules = _beside(frame, ("method", "connector"), others, _who, also=partial(_change, name="gained") if gained else None)
    columns = [head for m in others for head in (Cell(style.label("model", m), f"to {first}"), *([Cell("Gained", "to the same")] if gained else []))]
    return Table(("Data set", "Method", "Connector", *columns), tuple(rows), "lll" + "r" * len(columns), frozenset(rules))


def order_table(frame: pd.DataFrame) -> Table:
    """Paired differences in points of two tuned models, the second subtracted; a row per data set and pair, a column per base."""
    bases, states = style.shown("model", frame["model"]), {*frame["connector"], *frame["other_connector"]}

    def pair(row: Mapping[str, Any]) -> tuple[Cell, Cell]:
        both = (_who({"method": row[name], "connector": row[state]}) for name, state in (("method", "connector"), ("other", "other_connector")))
        one, other = (Cell(name, state if len(states) > 1 else "") for name, state in both)
        return one, other

    rows, rules = _beside(frame, ("method", "connector", "other", "other_connector"), bases, pair)
    return Table(("Data set", "Method", "Against", *(style.label("model", m) for m in bases)), tuple(rows), "lll" + "r" * len(bases), frozenset(rules))


def _beside(frame: pd.DataFrame, keys: Sequence[str], bases: Sequence[str], named: Callable[[Mapping[str, Any]], tuple[str | Cell, ...]], *, also: Callable[[Mapping[str, Any] | None], Cell] | None = None) -> tuple[Rows, set[int]]:
    """A row for each data set and different value of `keys`, called as `named` says, with the difference on each base, and what is `also` said of it; and the rules between data sets."""
    find, rows, rules, last = _lookup(frame, "dataset", *keys, "model"), list[tuple[str | Cell, ...]](), set[int](), None
    for row in style.ordered(frame[["dataset", *keys]].drop_duplicates(), ("dataset",)).to_dict("records"):
        place = style.label("dataset", row["dataset"])
        rules |= {len(rows)} if last not in (None, place) else set()
        found = [find(*row.values(), model) for model in bases]
        rows.append((place if place != last else "", *named(row), *(cell for one in found for cell in (_difference(one), *([also(one)] if also else ())))))
        last = place
    return rows, rules


def _difference(row: Mapping[str, Any] | None) -> Cell:
    """The mean of a row that is itself a difference, as `_change` shows one."""
    return _change(row and {"difference": row["mean"], "difference_low": row["low"], "difference_high": row["high"]})


def control_table(frame: pd.DataFrame) -> Table:
    """What the right pictures gave over shuffled ones: paired differences, beside what was gained over the untouched base, in points, and how much of it by the control."""

    def gain(row: Mapping[str, Any]) -> Cell:
        return Cell(number(row["gain"]), f"{number(row['control_gain'])} without sight" if not pd.isna(row["control_gain"]) else "")

    plain = differences_table(frame)
    own = style.apart(frame)
    gains = [gain(row) for _, _, (mine,) in own for row in mine.to_dict("records")]
    rows = tuple((*row[:-1], told, row[-1]) for row, told in zip(plain.rows, gains, strict=True))
    return Table((*plain.head[:-1], Cell("Gain", "over the base"), plain.head[-1]), rows, f"{plain.align[:-1]}rl", plain.rules)


def stability_table(frame: pd.DataFrame, overall: pd.DataFrame) -> Table:
    """The standard deviation between seeds, with the least and the most of their means, a column per data set, and that over all sets on one scale with its interval."""
    sets = frame.drop_duplicates("dataset")[["dataset", "metric"]].to_dict("records")
    counted = _several(frame["seeds"])

    def build(frame: pd.DataFrame, overall: pd.DataFrame) -> tuple[Rows, set[int]]:
        one, whole = _lookup(frame, "method", "connector", "dataset"), _lookup(overall, "method", "connector")
        rows = []
        for arm in style.ordered(frame[["method", "connector"]].drop_duplicates(), ("method", "connector")).to_dict("records"):
            mine = [one(arm["method"], arm["connector"], s["dataset"]) for s in sets]
            each = [Cell("–") if r is None else Cell(number(r["sd"]), f"{number(r['least'])}–{number(r['most'])}") for r in mine]
            total = whole(arm["method"], arm["connector"])
            rows.append((*_who(arm), *each, Cell("–") if total is None else Cell(number(total["sd"]), bounds(total["low"], total["high"]))))
        return rows, set()

    head = ("Method", "Connector", *(Cell(style.label("dataset", s["dataset"]), f"{_unit(s['metric'])}{counted} seeds") for s in sets), Cell("Together", f"{_several(overall['datasets'])} sets"))
    return _stacked(head, "ll" + "r" * (len(sets) + 1), build, frame, overall)


def likeliest_table(frame: pd.DataFrame) -> Table:
    """Accuracy of the choice taken for the likeliest, the paired difference to the untouched base, and that to the control where there is one."""
    controls, compared = bool(frame["control"].notna().any()), bool(frame["difference"].notna().any())

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        rows, rules, last = [], set(), None
        for row in pd.concat([frame[frame["method"] == "none"], frame[frame["method"] != "none"]]).pipe(style.ordered, ("dataset",)).to_dict("records"):
            place = style.label("dataset", row["dataset"])
            rules |= {len(rows)} if last not in (None, place) else set()
            verdict = "–" if row["verdict"] is None or pd.isna(row["verdict"]) else row["verdict"]
            changes = (*((_change(row), verdict) if compared else ()), *((_change(row, "control"),) if controls else ()))
            rows.append((place if place != last else "", *_who(row), _estimate(row), number(row["n"], 0), *changes))
            last = place
        return rows, rules

    head = ["Data set", "Method", "Connector", Cell("Accuracy", "likeliest choice"), "n"]
    head += ([Cell("Difference", "to the base"), "Verdict"] if compared else []) + ([Cell("Difference", "to its control")] if controls else [])
    return _stacked(head, "lllrr" + "rl" * compared + "r" * controls, build, frame)


def forgetting_table(frame: pd.DataFrame, *, differences: bool = False, beside: pd.DataFrame | None = None) -> Table:
    """A row per model and target, a column per data set tested on and per mean of them: value with interval, or difference to the bare base.

    `frame` is `estimates.forgetting`'s. Rows of a target stand together, the base's first among the values. Where the study names the sets that A_S is
    over, so does the head. A target's own column is A_T where there is but one. `beside` are the estimates of the same questions as they were
    answered: a last column has their A_S.
    """
    parts = frame.drop_duplicates("part").assign(place=lambda f: f["kind"].map({"target": 0, "unseen": 1, "seen": 2, "mean": 3})).sort_values("place", kind="stable")
    kinds = frame.groupby("part")["kind"].agg(lambda k: "/".join(dict.fromkeys(k)))
    single = frame["dataset"].nunique() == 1
    columns = [p for p in parts["part"] if p not in PART_LABELS] + [p for p in PART_LABELS if p in set(parts["part"]) and not (single and p == "A_T")]
    asked = frame.groupby("part")["n"].max()
    over = frame["sources"].iloc[0].split() if "sources" in frame and len(frame) else []
    labels = PART_LABELS | ({"A_S": ("A_S", f"mean of {', '.join(style.label('dataset', name) for name in over)}")} if over else {})
    head = ["Tuned on", "Method", "Connector"]
    named = {p: "target, A_T" if single and kinds[p] == "target" else "source" if p in over else kinds[p] for p in columns if p not in labels}
    head += [Cell(*labels[p]) if p in labels else Cell(style.label("dataset", p), f"{named[p]}, n = {number(asked[p], 0)}") for p in columns]
    more = [beside] if beside is not None and len(beside) else []
    head += [Cell("A_S", "as answered") for _ in more]

    def build(frame: pd.DataFrame, *answered: pd.DataFrame) -> tuple[Rows, set[int]]:
        rows, rules, last, (part, *own) = [], set(), None, [_lookup(one, *TUNED, "part") for one in (frame, *answered)]
        for target, level, method, connector in _tuned(frame):
            rules |= {len(rows)} if last not in (None, target) else set()
            who = _on({"method": method, "connector": connector, "quantisation": level})
            found = (part(target, level, method, connector, p) for p in columns)
            values = [_change(one) if differences else _estimate(one) for one in found]
            values += [_change(one(target, level, method, connector, "A_S")) for one in own]
            rows.append((style.label("dataset", target) if target != last else "", *who, *values))
            last = target
        return rows, rules

    return _stacked(head, "lll" + "r" * (len(head) - 3), build, frame[frame["method"] != "none"] if differences else frame, *more)


TUNED = ("dataset", "quantisation", "method", "connector")  # what tells the models of a block apart


def _tuned(frame: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """The models of a frame's rows, as they first occur."""
    return list(frame[list(TUNED)].dropna().drop_duplicates().itertuples(index=False, name=None))


PART_LABELS = {"A_S": ("A_S", "mean of the seen"), "A_T": ("A_T", "the target"), "H": ("H", "harmonic mean"), "O": ("O", "arithmetic mean")}


def _change(row: Mapping[str, Any] | None, name: str = "difference") -> Cell:
    """A difference, which a row holds under `name`, with its sign and interval."""
    if row is None or pd.isna(row[name]):
        return Cell("–")
    sign = "+" if row[name] > 0 else ""
    return Cell(sign + number(row[name]), bounds(row[f"{name}_low"], row[f"{name}_high"]))


def text_table(frame: pd.DataFrame) -> Table:
    """Perplexity of fixed passages by model, and the paired difference to the bare base in nats per token."""

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        rows = []
        for row in pd.concat([frame[frame["method"] == "none"], frame[frame["method"] != "none"]]).to_dict("records"):
            tuned = "–" if pd.isna(row["dataset"]) else style.label("dataset", row["dataset"])
            level = Cell(number(row["mean"], 2), "" if pd.isna(row["low"]) else f"[{number(row['low'], 2)},\u00a0{number(row['high'], 2)}]")
            known = row["difference"] is not None and not pd.isna(row["difference"])
            change = ("–", "–", "–") if not known else (number(row["difference"], 3), f"[{number(row['difference_low'], 3)},\u00a0{number(row['difference_high'], 3)}]", row["verdict"])
            rows.append((tuned, *_on(row), level, *change))
        return rows, set()

    head = ("Tuned on", "Method", "Connector", "Perplexity", Cell("Difference", "nats per token"), "Interval", "Verdict")
    return _stacked(head, "lllrrrl", build, frame)


def hallucination_table(frame: pd.DataFrame) -> Table:
    """The probe: accuracy and the share of absent things affirmed with intervals, the latter's difference to the base, precision, recall, F1, yes rate and unparsed; always-yes last."""

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        frame = pd.concat([frame[frame["method"].notna()], frame[frame["method"].isna()]])
        rows, rules, last = [], set(), None
        for i, row in enumerate(frame.to_dict("records")):
            always = pd.isna(row["method"])
            tuned = "–" if pd.isna(row["dataset"]) else style.label("dataset", row["dataset"])
            rules |= {i} if last not in (None, tuned) else set()
            who = ("Always yes", "–") if always else _on(row)
            rest = [number(row[name]) for name in metrics.PROBE[1:]]
            affirmed = _estimate({"mean": row["affirmed"], "low": row["affirmed_low"], "high": row["affirmed_high"]})
            rows.append((tuned if tuned != last else "", *who, _estimate(row), affirmed, _change(row), *rest, "–" if always else f"{_unparsed([row])} %"))
            last = tuned
        return rows, rules

    counts = [f"n = {number(frame[name].max(), 0)}" if len(frame) else "" for name in ("n", "absent")]
    shown = [metrics.METRICS[name].label for name in metrics.PROBE]
    head = ("Tuned on", "Method", "Connector", Cell(shown[0], counts[0]), Cell("Affirmed", f"of absent, {counts[1]}"), Cell("Difference", "to the base"), *shown[1:], "Unparsed")
    return _stacked(head, "lll" + "r" * (len(head) - 3), build, frame)


def invented_table(frame: pd.DataFrame) -> Table:
    """Captions that name what is not there (CHAIR-s), the difference to the bare base, and what it must be read beside: CHAIR-i, recall, length, silence."""

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        return [tell(row) for row in _base_first(frame)], set()

    def tell(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
        verdict = "–" if pd.isna(row["verdict"]) else row["verdict"]
        beside = [_part(row, name) for name in ("chair_i", "object_recall", "words", "silent")]
        return *_captioned(row), _estimate(row), number(row["n"], 0), _change(row), verdict, *beside

    head = ("Tuned on", "Method", "Connector", "Steps", Cell("CHAIR-s", "per cent"), "n", Cell("Difference", "to the base"), "Verdict", Cell("CHAIR-i", "per cent"))
    return _stacked((*head, Cell("Things named", "per cent"), "Words", Cell("Naming none", "of the things")), "lllrrrrlrrrr", build, frame)


def broken_table(frame: pd.DataFrame) -> Table:
    """Pictures that the base captions without an error: the shares that a tuned model captions with something invented, or with nothing named (rows of `estimates.broken`)."""

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        return [tell(row) for row in _base_first(frame)], set()

    def tell(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
        few = row["clean"] < row["least_clean"]
        shares = [Cell("–", f"fewer than {number(row['least_clean'], 0)}") if few else _part(row, name) for name in ("broken", "silenced")]
        return *_captioned(row), number(row["clean"], 0), *shares

    head = ("Tuned on", "Method", "Connector", "Steps", Cell("Pictures", "clean by the base"), Cell("Invented", "per cent"), Cell("Naming none", "of the things"))
    return _stacked(head, "lllrrrr", build, frame)


def _base_first(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of captions, probe by probe, the base before what was tuned."""
    order = frame.assign(tuned=frame["method"] != "none").sort_values(["tested_on", "tuned"], ascending=[False, True], kind="stable")
    return order.to_dict("records")


def _captioned(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
    """What was tuned, how long, and what it captions where that are simple scenes or a data set's pictures."""
    tuned, steps = ("–", "–") if row["method"] == "none" else (style.label("dataset", row["dataset"]), number(row["steps"], 0))
    of = {"scene_captions": "", "clean_captions": "simple scenes"}
    return Cell(tuned, of[row["tested_on"]] if row["tested_on"] in of else style.label("dataset", row["tested_on"])), *_on(row), steps


def _part(row: Mapping[str, Any], name: str) -> Cell:
    """A column with its bounds below it."""
    return Cell("–") if pd.isna(row[name]) else Cell(number(row[name]), "" if pd.isna(row[f"{name}_low"]) else bounds(row[f"{name}_low"], row[f"{name}_high"]))


def unchanged_table(frame: pd.DataFrame) -> Table:
    """Answers that stay the same under other pictures, in per cent, with the difference to the bare base; a row per model, two columns a kind of picture.

    Where the likeliest choices are known, the difference is theirs: they stand beside, and form counts for nothing in them.
    """
    kinds = [k for k in style.order("pictures") if k in set(frame["pictures"])]
    chosen = bool(frame["likeliest"].notna().any())

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        rows, of = [], _lookup(frame, *TUNED, "pictures")
        for dataset, level, method, connector in _tuned(frame):
            who, found = _on({"method": method, "connector": connector, "quantisation": level}), (of(dataset, level, method, connector, k) for k in kinds)
            rows.append((style.label("dataset", dataset), *who, *(cell for one in found for cell in tell(one))))
        return rows, set()

    def tell(row: Mapping[str, Any] | None) -> tuple[Cell, ...]:
        if not chosen:
            return _estimate(row), _change(row)
        if row is None or pd.isna(row["likeliest"]):
            return _estimate(row), Cell("–"), Cell("–")
        likely = {name: row["likeliest" + end] for name, end in (("mean", ""), ("low", "_low"), ("high", "_high"))}
        return _estimate(row), _estimate(likely), _change(row, "likeliest_difference")

    def named(kind: str) -> list[Cell]:
        pictures = style.label("pictures", kind)
        return [Cell("Same answer", pictures), *([Cell("Same choice", "the likeliest")] if chosen else []), Cell("Difference", "of these, to the base" if chosen else "to the base")]

    head = ["Data set", "Method", "Connector", *(cell for k in kinds for cell in named(k))]
    return _stacked(head, "lll" + "r" * (len(head) - 3), build, frame)


def cost_table(frame: pd.DataFrame, unfit: pd.DataFrame | None = None) -> Table:
    """What tuning costs and buys: parameters by tower, share of the model, adapter on disk, peak memory, seconds with their range, accuracy.

    What could not be tuned for want of memory (`estimates.unfit`) stands below a rule.
    """
    both = frame.assign(fits=True)
    if unfit is not None and len(unfit):
        stopped = unfit[unfit["stage"] == "finetune"].rename(columns={"precision": "tried"})
        alike = ["model", "method", "connector", "quantisation", "tried", "batch_size"]  # on whatever data set
        stopped = stopped.assign(runs=stopped.groupby(alike, dropna=False)["runs"].transform("sum")).drop_duplicates(alike)
        both = pd.concat([both, stopped.assign(fits=False)], ignore_index=True) if len(stopped) else both

    def build(both: pd.DataFrame) -> tuple[Rows, set[int]]:
        rows = [tell(row) if row["fits"] else stop(row) for row in both.to_dict("records")]
        return rows, {int(both["fits"].sum())} if not both["fits"].all() else set()

    def stop(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
        return *_on(row), *("–" for _ in range(4)), Cell("does not fit", f"{row['tried']}, batch {number(row['batch_size'], 0)}{_room(row)}"), "–", number(row["runs"], 0), "–"

    def tell(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
        spread = f"{number(row['least_seconds'], 0)}–{number(row['most_seconds'], 0)}" if row["runs"] > 1 else ""
        towers = [scaled(row.get(f"trainable_{tower}"), PARAMETERS) for tower in ("connector", "llm")]
        share = f"{row['share']:.3g} %"
        memory, disk = scaled(row["peak_memory_bytes"], BYTES), scaled(row["adapter_bytes"], BYTES)
        if not pd.isna(row.get("peak_device_bytes")):
            memory = Cell(scaled(row["peak_device_bytes"], BYTES), f"{memory} beside it")
        return *_on(row), *towers, share, disk, memory, Cell(number(row["seconds"], 0), spread), number(row["runs"], 0), _estimate(None if pd.isna(row["mean"]) else row)

    head = ("Method", "Connector", Cell("Connector", "parameters"), Cell("LLM", "parameters"), Cell("Share", "of the model"), Cell("Adapter", "on disk"))
    return _stacked((*head, Cell("Memory", "peak, of the GPU" if "peak_device_bytes" in both else "peak"), Cell("Seconds", "a run"), "Runs", "Accuracy"), "llrrrrrrrr", build, both)


def _room(row: Mapping[str, Any]) -> str:
    """The memory that something did not fit in, and what of it was free where that is known; "" where neither is."""
    free = "" if pd.isna(row["free_bytes"]) else f", {scaled(row['free_bytes'], BYTES)} free"
    return "" if pd.isna(row["memory_bytes"]) else f" in {scaled(row['memory_bytes'], BYTES)}{free}"


STAGES = {"finetune": "tuning", "evaluate": "answering", "probe": "the probe"}  # what a stage does, in words


def unfit_table(frame: pd.DataFrame) -> Table:
    """What did not fit in memory (`estimates.unfit`): what was done of which model, and whose memory it was."""

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        return [tell(row) for row in frame.to_dict("records")], set()

    def tell(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
        how = f"{row['precision']}{', checkpointing' if row['checkpointing'] else ''}"
        whose = row["device"] if row["of_gpu"] else row["processor"]
        place = Cell(style.label("dataset", row["dataset"]), STAGES[row["stage"]])
        return place, *_on(row), how, number(row["batch_size"], 0), Cell(_room(row).strip() or "–", "" if pd.isna(whose) else whose), number(row["runs"], 0)

    return _stacked(("Data set", "Method", "Connector", "Precision", Cell("Batch", "examples"), "Does not fit", "Runs"), "llllrlr", build, frame)


def definitions_table(frame: pd.DataFrame, *, cite: Callable[[str], str] = lambda key: "") -> Table:
    """Methods as they were run: source, size, learning rates, whether the untrained method leaves the base as it is."""
    rows = []
    for row in frame.to_dict("records"):
        size = "–" if pd.isna(row["size_name"]) else f"{row['size_name']} {number(row['size'], 0) if not isinstance(row['size'], str) else row['size']}"
        source = "–" if pd.isna(row["paper"]) else cite(row["paper"])
        identity = "yes" if row["identity"] else "no"
        rates = (rate(row["lr"]), rate(row["connector_lr"]))
        rows.append((style.label("method", row["method"]), source, size, *rates, scaled(row["trainable_llm"], PARAMETERS), identity))
    head = ("Method", "Source", "Size", Cell("Rate", "method"), Cell("Rate", "connector"), Cell("LLM", "parameters"), Cell("Starts as", "the base"))
    return Table(head, tuple(rows), "lllrrrl")


def data_table(frame: pd.DataFrame) -> Table:
    """Data sets: what is asked, in whose place, seen or unseen, sizes, and what the test holds out."""
    alike = frame.drop_duplicates([name for name in frame if name != "model"])

    def build(frame: pd.DataFrame) -> tuple[Rows, set[int]]:
        return [tell(row) for row in frame.to_dict("records")], set()

    def tell(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
        sizes = f"{number(row.get('size_train'), 0)} / {number(row.get('size_validation'), 0)} / {number(row.get('size_test'), 0)}"
        pool = row.get("size_base")
        sizes = Cell(sizes, "" if pool is None or pd.isna(pool) else f"the base's pool: {number(pool, 0)}")
        asked = Cell(number(row["asked"], 0), f"{number(row['pictures'], 0)} pictures, {number(row['assets'], 0)} assets")
        return Cell(style.label("dataset", row["dataset"]), f"{row['group']}; place of {row['place']}"), Cell(row["task"], f"held out: {row['held_out']}"), sizes, asked

    head = (Cell("Data set"), Cell("Task"), Cell("Examples", "training / validation / test"), Cell("Asked", "in this study"))
    return _stacked(head, "lprr", build, alike.drop(columns="model", errors="ignore") if alike["dataset"].is_unique else frame)
