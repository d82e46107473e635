"""Facts to sentences: what the numbers allow to say, and no more. Every number stands in the facts."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

import pandas as pd

from peftlab import estimates, metrics, style, ways
from peftlab.tables import BYTES, PARAMETERS, STAGES, bounds, number, scaled

Facts = dict[str, dict[str, Any]]
Row = dict[str, Any]
SURE = "not distinguishable"
TURNED = {"higher": "lower", "lower": "higher", SURE: SURE}  # what a verdict is of the difference the other way round
# What the base is compared with that needs no sight of the picture.
GUESSES = {"majority": "always giving the most frequent answer of training", "question_only": "a classifier of questions that sees no picture"}
NEED = {"blank": "blank pictures", "shuffled": "shuffled ones", "majority": "the most frequent answer", "question_only": "a classifier of questions", "chance": "chance"}
BLIND = {"blank": "itself under blank pictures", "shuffled": "itself under shuffled pictures", **GUESSES}


def arm(row: Row) -> str:
    """A method with the state of its connector, where that is told, in words: "LoRA (connector tuned)"."""
    state = _state(row)
    return style.label("method", row["method"]) + (f" ({style.label('connector', state)})" if state else "")


def _state(row: Row) -> str | None:
    """The state of the connector that a model's name tells; None where there is but one."""
    return None if ways.method(row["method"]) in ("none", "connector") else row["connector"]


def arms(rows: Iterable[Row]) -> str:
    """Models in a sentence, methods of the same states of the connector together: "Connector only; LoRA and Adapter (connector frozen or tuned)"."""
    states: dict[str, list[str | None]] = {}
    for row in rows:
        states.setdefault(row["method"], []).append(_state(row))
    together: dict[tuple[str, ...], list[str]] = {}
    for method, found in states.items():
        together.setdefault(tuple(sorted({state for state in found if state})), []).append(style.label("method", method))
    named = [listed(names) + (f" (connector {' or '.join(found)})" if found else "") for found, names in together.items()]
    return "; ".join(named) if len(together) < len(states) else listed(named)


def shortened(facts: Any) -> Any:
    """Facts without the state of the connector where all that was tuned had the same: the abstract tells it, and no other sentence need."""

    def rows(part: Any) -> Iterator[Row]:
        if isinstance(part, dict):
            yield from [part] if part.get("method") and "connector" in part else []
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from rows(inner)

    def without(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: None if name == "connector" and part.get("method") else without(value) for name, value in part.items()}
        return [without(inner) for inner in part] if isinstance(part, list) else part

    return without(facts) if len({_state(row) for row in rows(facts)} - {None}) == 1 else facts


def listed(names: Iterable[str]) -> str:
    """Names in a sentence: "a, b and c"; "none" of none."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


Says = Callable[..., list[str]]


def _levels(facts: Facts, axis: str) -> list[str]:
    """The levels of an axis in the rows of all facts, in the order in which they first occur; a number is a score of that name, no level."""
    rows = (row for part in facts.values() for found in part.values() if isinstance(found, list) for row in found if isinstance(row, dict))
    return list(dict.fromkeys(row[axis] for row in rows if isinstance(row.get(axis), str)))


def _only(facts: Facts, axis: str, level: str) -> Facts:
    """The facts of one level of an axis: its rows, those that do not name the axis, and the tallies of these."""

    def part(found: dict[str, Any]) -> dict[str, Any]:
        mine = {k: [r for r in v if not isinstance(r, dict) or not isinstance(r.get(axis), str) or r[axis] == level] if isinstance(v, list) else v for k, v in found.items()}
        tallies = {k: mine.get(k.removesuffix("_tally")) for k in mine if k.endswith("_tally")}
        return mine | {k: estimates.tally(pd.DataFrame(rows)) if rows else {} for k, rows in tallies.items()}

    return {name: part(found) for name, found in facts.items()}


def _apart(*axes: str) -> Callable[[Says], Says]:
    """A finding said for each level of the axes, with its name before every sentence, where the facts hold several: no sentence mixes them, and what is true of several is said once."""

    def of(facts: Facts, rest: Sequence[str]) -> Iterator[tuple[list[str], Facts]]:
        if not rest:
            yield [], facts
            return
        levels = _levels(facts, rest[0])
        for level in levels if len(levels) > 1 else [None]:
            mine = facts if level is None else _only(facts, rest[0], level)
            for names, found in of(mine, rest[1:]):
                yield ([] if level is None else [style.label("model", level) if rest[0] == "model" else level]) + names, found

    def around(say: Says) -> Says:
        @wraps(say)
        def apart(facts: Facts, **how: Any) -> list[str]:
            said: dict[tuple[str, int], list[str]] = {}  # a sentence, and how often a level said it before: of two data sets the same may be true
            everyone = list[str]()
            for names, mine in of(facts, axes):
                everyone.append(" in ".join(names))
                told = Counter[str]()
                for sentence in say(mine, **how):
                    said.setdefault((sentence, told[sentence]), []).append(everyone[-1])
                    told[sentence] += 1
            all_ = f"On each of the {number(len(everyone), 0)} models" if len(_levels(facts, "model")) == len(everyone) else listed(everyone)
            return [f"{all_ if names == everyone and len(names) > 1 else listed(names)}: {sentence}" if any(names) else sentence for (sentence, _), names in said.items()]

        return apart

    return around


_by_model, _by_precision = _apart("model"), _apart("model", "precision")

NAMED = 8  # the most names that a sentence holds


def _named(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """Models in a sentence, or where they are of many methods all but the `others`; "" where those are of many too: the table has them."""
    if len({r.get("dataset") for r in (*rows, *others)}) > 1:  # the same method is more than one of them
        few = [f"{arm(r)} tuned on {_place(r)}" for r in (rows if len(rows) <= NAMED else others)]
        return "" if len(few) > NAMED else f"{'all but ' if len(rows) > NAMED else ''}{listed(few)}"
    if len({r["method"] for r in rows}) <= NAMED:
        return arms(rows)
    return f"all but {arms(others)}" if len({r["method"] for r in others}) <= NAMED else ""


def _share(row: Row) -> str:
    unit = metrics.metric(row.get("metric") or "exact").unit
    return f"{number(row['mean'])}\u00a0{unit}" + (f" {bounds(row['low'], row['high'])}" if row["low"] is not None else "")


def _points(row: Row) -> str:
    return f"{'+' if row['mean'] > 0 else ''}{number(row['mean'])} points {bounds(row['low'], row['high'])}"


def _place(row: Row) -> str:
    return style.label("dataset", row["dataset"])


def many(count: int, one: str, several: str) -> str:
    """A count with its noun: "1 tuned model", "13 tuned models"."""
    return f"{number(count, 0)} {one if count == 1 else several}"


def _sets(facts: Facts) -> list[str]:
    """The data sets that something was tuned on, the unseen ones first."""
    rows = [r for r in facts["main_results"]["scores"] if r["method"] != "none"]
    rows = sorted(rows, key=lambda r: r["group"] != "unseen")
    return list(dict.fromkeys(r["dataset"] for r in rows))


@_by_model
def best(facts: Facts) -> list[str]:
    """Per data set: the highest mean, the base, the baselines, and how far the order can be trusted."""
    said, main = [], facts["main_results"]
    for dataset in _sets(facts):
        mine = [r for r in main["scores"] if r["dataset"] == dataset]
        less = _less_is_better(mine[0])
        top = (min if less else max)((r for r in mine if r["method"] != "none"), key=lambda r: r["mean"])
        base = [f"the untouched base has {_share(r)}" for r in mine if r["method"] == "none"]
        names = {b["baseline"]: b for b in main["baselines"] if b["dataset"] == dataset}
        others = [f"{word} {_share(names[b])}" for b, word in {**GUESSES, "chance": "chance"}.items() if b in names]
        text = f"On {_place(top)}, {top['group']} by the base, the {'lowest, and best,' if less else 'highest'} mean is that of {arm(top)}: {_share(top)}, n\u00a0=\u00a0{number(top['n'], 0)}"
        said.append("; ".join([text, *base, *others]) + ".")
        counts = main["to_best_tally"].get(dataset)
        if counts:
            others_, sure = many(counts["all"], "tuned model", "tuned models"), counts[SURE]
            some = f"none of the other {others_} is distinguishable" if sure == counts["all"] > 1 else f"{sure} of the other {others_} {_are(sure)} not distinguishable"
            open_ = f"{f'On {_place(top)} the' if len(_sets(facts)) > 1 else 'The'} order is not settled: {some} from {arm(top)}."
            side = "above" if less else "below"
            said.append(open_ if sure else f"The only other tuned model is {side} it." if counts["all"] == 1 else f"Each of the other {others_} is {side} {arm(top)}.")
    return said


def _less_is_better(row: Row) -> bool:
    return metrics.metric(row.get("metric") or "exact").higher_is_better is False


@_by_model
def above_chance(facts: Facts) -> list[str]:
    """Per data set: which tuned models answer right more often than a guess among the choices, and than each answer without a picture, would; and which less often."""
    main, said = facts["main_results"], []
    for dataset in _sets(facts):
        guess = [b for b in main["baselines"] if b["dataset"] == dataset and b["baseline"] == "chance"]
        mine = [r for r in main["scores"] if r["dataset"] == dataset and r["method"] != "none"]
        if guess:
            found = [r for r in mine if r["low"] is not None and r["low"] > guess[0]["mean"]]
            named = _named(found, [r for r in mine if r not in found]) if found else ""
            tuned = f"the {many(len(mine), 'model', 'models')} tuned on {style.label('dataset', dataset)}"
            above = "all" if len(found) == len(mine) > 1 else len(found) or "none"
            above = f"{above} of {tuned} {_are(max(len(found), 1))} above chance ({_share(guess[0])})"
            low = [r for r in mine if r["high"] is not None and r["high"] < guess[0]["mean"]]
            below = f"; below it {_are(len(low))} {arms(low)}" if 0 < len(low) <= NAMED else f"; {len(low)} are below it" if low else ""
            said.append(f"By the interval of the score, {above}{f': {named}' if named and len(found) < len(mine) else ''}{below}.")
        for name, way in GUESSES.items():
            tuned = [r for r in _tuned_to_blind(main) if r["dataset"] == dataset and r["baseline"] == name]
            if tuned:
                of = f"Of {many(len(tuned), 'model', 'models')} tuned on {style.label('dataset', dataset)}"
                said.append(_split(_signed(tuned), _counted(_signed(tuned)), of, way))
    return said


def _tuned_to_blind(main: Row) -> list[Row]:
    """The differences of tuned models to what is said without a picture."""
    return [r for r in main.get("to_blind", ()) if r["method"] != "none"]


def _signed(rows: Sequence[Row]) -> list[Row]:
    """Differences in which higher is what the metric means by better."""
    return [{**r, "verdict": TURNED[r["verdict"]]} if _less_is_better(r) else r for r in rows]


def _split(rows: Sequence[Row], counts: dict[str, int], what: str, than: str) -> str:
    """One sentence: how many are higher, lower, and not distinguishable, and which."""
    if counts[SURE] == counts["all"]:
        return f"{what}, none is distinguishable from {than}."
    parts = []
    for word, compared in (("higher", f"higher than {than}"), ("lower", "lower")):
        if counts[word] == counts["all"] > 1:
            return f"{what}, every one is {word} than {than}."
        named = _named([r for r in rows if r["verdict"] == word], [r for r in rows if r["verdict"] != word]) if counts[word] else ""
        parts.append(f"{counts[word]} {_are(counts[word])} {compared}{f' ({named})' if named else ''}" if counts[word] else f"none is {compared}")
    parts += [f"{counts[SURE]} {_are(counts[SURE])} not distinguishable from it"] if counts[SURE] else []
    return f"{what}, {listed(parts)}."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def known(facts: Facts) -> list[str]:
    """How many of the data sets each untouched base answers better with the right picture than without it, and where it does not."""
    said, main = [], facts["main_results"]
    for model in dict.fromkeys(r["model"] for r in main["to_blind"]):
        rows = [r for r in main["to_blind"] if r["model"] == model and r["method"] == "none"]
        rows += [{**r, "verdict": "higher" if low > r["mean"] else SURE} for r in main.get("baselines", []) if r["model"] == model and r["baseline"] == "chance" and (low := _low(main, model, r["dataset"])) is not None]
        sets = list(dict.fromkeys(r["dataset"] for r in rows))
        blind = [d for d in sets if any(r["verdict"] != "higher" for r in rows if r["dataset"] == d)]
        on = f"{number(len(sets) - len(blind), 0) if len(blind) < len(sets) else 'none'} of {many(len(sets), 'data set', 'data sets')}"
        but = f", and not on {listed(style.label('dataset', d) for d in blind)}" if 0 < len(blind) < len(sets) else ""
        said.append(f"{style.label('model', model)} is above everything that needs no sight of the picture ({listed(NEED[b] for b in NEED if any(r['baseline'] == b for r in rows))}) on {on}{but}.")
        some = {b: [style.label("dataset", r["dataset"]) for r in rows if r["dataset"] in blind and r["baseline"] == b and r["verdict"] == "higher"] for b in NEED}
        parts = [f"{BLIND.get(b, b)} on {listed(names)}" for b, names in some.items() if names]
        said += [f"Of those it is above {'; above '.join(parts)}."] if parts else []
    return said


def _low(main: Row, model: str, dataset: str) -> float | None:
    """The lower end of the interval of what an untouched base scores; None where it was not asked."""
    return next((r["low"] for r in main["scores"] if r["method"] == "none" and r["model"] == model and r["dataset"] == dataset), None)


@_by_model
def to_base(facts: Facts) -> list[str]:
    """Per data set: which tuned models differ from the untouched base, on the same questions."""
    main = facts["main_results"]
    return [
        _split([r for r in main["to_base"] if r["dataset"] == d], counts, f"Of {many(counts['all'], 'tuned model', 'tuned models')} on {style.label('dataset', d)}", "the untouched base")
        for d, counts in main["to_base_tally"].items()
    ]


@_by_model
def to_shuffled(facts: Facts) -> list[str]:
    """Per control: what the right pictures gave, beside what was gained without them; of more than `APART` on a data set together, how many they gave anything."""
    said = []
    for rows in _by_set(facts["main_results"]["to_shuffled"]):
        if len(rows) > APART:
            said.append(_split(rows, _counted(rows), f"On {_place(rows[0])}, of {many(len(rows), 'model', 'models')} tuned with the right pictures", "the same tuned with shuffled ones") + _range(rows))
            continue
        said += [_control(r) for r in rows]
    return said


APART = 2  # the most controls on a data set that have a sentence each; the table has the rest


def _by_set(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows by their data set, in the order in which the sets first occur."""
    found: dict[str, list[Row]] = {}
    for r in rows:
        found.setdefault(r["dataset"], []).append(r)
    return list(found.values())


def _range(rows: Sequence[Row]) -> str:
    """A sentence, after another: the least and the greatest of several differences."""
    least, most = (choose(rows, key=lambda r: r["mean"]) for choose in (min, max))
    return f" The differences go from {_points(least)} ({arm(least)}) to {_points(most)} ({arm(most)})."


def _control(r: Row) -> str:
    """A sentence on what the right pictures gave a model over its control."""
    gained = f", which gained {number(r['control_gain'])} of its {number(r['gain'])} over the untouched base" if r["control_gain"] is not None and r["gain"] > 0 else ""
    control = f"the same tuned with shuffled ones (n\u00a0=\u00a0{number(r['n'], 0)}){gained}"
    means = {
        "higher": f"the right pictures gave {arm(r)} {_points(r)} over {control}.",
        "lower": f"the right pictures did {arm(r)} harm: {_points(r)} to {control}.",
        SURE: f"the right pictures gave {arm(r)} nothing distinguishable, {_points(r)} over {control}: that it learned to see, and not only how answers look, is not shown.",
    }
    return f"On {_place(r)}, {means[r['verdict']]}"


def sight(facts: Facts) -> list[str]:
    """Over several data sets: on which the right pictures gave every method with a control more than shuffled ones, some, or none; and so by the likeliest choice."""
    main = facts["main_results"]
    chosen = [_to_control(r) for r in main["likeliest"] if r["control"] is not None]
    state = controlled_at(main["to_shuffled"], main["scores"])
    which = f", all with the connector {state}" if state else ""
    told = ((main["to_shuffled"], f"Of the models that have a control with shuffled pictures{which}"), (chosen, "By the likeliest choice, where form counts for nothing, of these"))
    return [f"{start}, {where}." for rows, start in told if (where := _above_controls(rows))]


def controlled_at(controls: Iterable[Row], scored: Iterable[Row]) -> str | None:
    """The one state of the connector that all controls were tuned with, where the study has several."""
    had, all_ = ({_state(r) for r in rows} - {None} for rows in (controls, scored))
    return had.pop() if len(had) == 1 and len(all_) > 1 else None


def _to_control(row: Row) -> Row:
    """A row of `estimates.likeliest` as the difference to its control."""
    return {**row, **_changed(row, "control"), "verdict": row["control_verdict"]}


def _above_controls(rows: Iterable[Row]) -> str:
    """On which data sets all, some or none of the models are above their controls, in words; "" where there is no control."""
    kinds: dict[str, list[str]] = {"all are above it": [], "only some are": [], "none is": []}
    for mine in _by_set(rows):
        won, name = [r for r in mine if r["verdict"] == "higher"], _place(mine[0])
        kinds["all are above it" if len(won) == len(mine) else "only some are" if won else "none is"].append(f"{name} ({number(len(won), 0)} of {number(len(mine), 0)}: {arms(won)})" if 0 < len(won) < len(mine) else name)
    return "; ".join(f"{word} on {listed(names)}" for word, names in kinds.items() if names)


@_by_model
def likeliest(facts: Facts, *, only: str | None = None) -> list[str]:
    """Per data set (of one, with `only`) with closed questions: whether tuning changed which choice a model takes for the likeliest, where the form of answers counts for nothing."""
    said, rows = [], [r for r in facts["main_results"]["likeliest"] if only in (None, r["dataset"])]
    if rows and all(r["method"] == "none" for r in rows):
        each = listed(f"{_share(r)} on {style.label('dataset', r['dataset'])} (n\u00a0=\u00a0{number(r['n'], 0)})" for r in rows)
        return [f"By the likeliest choice, where form counts for nothing, the untouched base has {each}."]
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        mine = [r for r in rows if r["dataset"] == dataset]
        said += [f"By the likeliest choice on {_place(r)}, where form counts for nothing, the untouched base has {_share(r)}, n\u00a0=\u00a0{number(r['n'], 0)}." for r in mine if r["method"] == "none"]
        tuned = [r for r in mine if r["method"] != "none" and r["difference"] is not None]
        if tuned:
            said.append(_split(tuned, _counted(tuned), f"Of {many(len(tuned), 'tuned model', 'tuned models')} on {style.label('dataset', dataset)}, by that measure", "the untouched base"))
        said += by_choice(facts, only=dataset)
    return said


def by_choice(facts: Facts, *, only: str, of: Container[tuple[str, str]] | None = None) -> list[str]:
    """Per control on a data set (`of` some models): what the right pictures gave by the likeliest choice."""
    verdicts = {"higher": "above its control with shuffled pictures", "lower": "below its control with shuffled pictures", SURE: "not distinguishable from its control with shuffled pictures"}
    rows = [r for r in facts["main_results"]["likeliest"] if r["dataset"] == only and r["control"] is not None and (of is None or (r["method"], r["connector"]) in of)]
    if len(rows) > APART:
        rows = [_to_control(r) for r in rows]
        return [_split(rows, _counted(rows), f"By the likeliest choice, of {many(len(rows), 'model', 'models')} with such a control", "the same tuned with shuffled pictures") + _range(rows)]
    return [f"By the likeliest choice {arm(r)} is {verdicts[r['control_verdict']]}, {_points(_changed(r, 'control'))}." for r in rows]


def _counted(rows: Sequence[Row]) -> dict[str, int]:
    """How many differences are higher, lower and not distinguishable, and how many there are."""
    return {word: sum(r["verdict"] == word for r in rows) for word in ("higher", "lower", SURE)} | {"all": len(rows)}


def rates(facts: Facts) -> list[str]:
    """Where the learning rates of the study's methods come from: the sweep, the study itself, or their authors."""
    main, tried, parts = facts["main_results"], {}, {"swept": [], "alike": [], "given": [], "other": []}
    for r in main["rates"]:
        tried.setdefault(r["method"], []).append((r["validation_loss"], r["lr"]))
    for r in main["definitions"]:
        own = r["lr"] if r["lr"] is not None else r["connector_lr"]
        if own is not None:
            best = min(tried[name])[1] if (name := ways.method(r["method"])) in tried else None
            swept = "swept" if set(ways.levels(r["method"])) <= {"lr", "connector_lr"} else "alike"
            parts["other" if best is None else swept if own == best else "given"].append(style.label("method", r["method"]))
    said = []
    if parts["swept"]:
        counts = sorted({len(rates) for rates in tried.values()})
        each = " to ".join(number(n, 0) for n in dict.fromkeys((counts[0], counts[-1])))
        on = f" on {style.label('dataset', main['rates'][0]['dataset'])}" if main["rates"][0].get("dataset") else ""
        how = f"the grid lr: {each} rates a method{on}, {number(main['rates'][0]['steps'], 0)} steps, another seed; test data were not asked"
        said.append(f"Rates with the lowest loss of answers on validation data, in a sweep at equal budget ({how}): {listed(parts['swept'])}.")
    said += [f"Not swept by themselves, but at the rate that the sweep chose for the method as its card has it: {listed(parts['alike'])}."] if parts["alike"] else []
    said += [f"Rates that this study was made to try, which were not the sweep's choice: {listed(parts['given'])}."] if parts["given"] else []
    said += [f"Not swept, but what its authors recommend or a near relative has: the rate of {listed(parts['other']) if len(parts['other']) <= NAMED else many(len(parts['other']), 'method', 'other methods')}."] if parts["other"] else []
    return said


@_by_model
def to_frozen(facts: Facts) -> list[str]:
    """Per data set: what tuning the connector as well changes."""
    said, main = [], facts["main_results"]
    for dataset, counts in main["to_frozen_tally"].items():
        rows = [r for r in main["to_frozen"] if r["dataset"] == dataset]
        words = {word: "; ".join(f"{style.label('method', r['method'])}, {_points(r)}" for r in rows if r["verdict"] == word) for word in ("higher", "lower")}
        parts = [f"{counts[word]} {_are(counts[word])} {word} ({words[word]})" if counts[word] else f"none is {word}" for word in words]
        parts += [f"{counts[SURE]} {_are(counts[SURE])} not distinguishable from the same with it frozen"] if counts[SURE] else []
        if (one := next((word for word in words if counts[word] == counts["all"] > 1), None)) is not None:
            parts = [f"every one is {one} ({words[one]})"]
        of = many(counts["all"], "method", "methods")
        found = f"none of {of} is distinguishable from the same with it frozen" if counts[SURE] == counts["all"] else f"of {of} {listed(parts)}"
        said.append(f"On {style.label('dataset', dataset)}, with the connector tuned as well, {found}.")
    return said


@_by_model
def stability(facts: Facts) -> list[str]:
    """How far another seed moves a score: the steadiest and the least steady model over all sets, and the widest range on one; none where no seed was repeated."""
    main = facts["main_results"]
    each, rows = main.get("stability", []), main.get("stability_overall", [])
    if not each:
        return []
    said = []
    if len(rows) > 1:
        steady, loose = (choose(rows, key=lambda r: r["sd"]) for choose in (min, max))
        over = f"Over {many(steady['datasets'], 'data set', 'data sets')} scored in per cent and {number(max(r['seeds'] for r in each), 0)} seeds"
        mostly = f", most of it on {style.label('dataset', loose['mostly'])}" if loose["mostly"] else ""
        said.append(f"{over}, the standard deviation of a score between seeds goes from {_moved(steady)} of {arm(steady)} to {_moved(loose)} of {arm(loose)}{mostly}.")
        wide = [r for r in rows if r["unsteady"]]
        named = f"Less steady than the others together, also where it is reckoned that any of {number(len(rows), 0)} might have been found so, {_are(len(wide))} {arms(wide)}" if wide else "None is distinguishably less steady than the others together"
        said.append(f"{named}; that the rest are equally steady is not shown.")
    far = max((r for r in each if metrics.metric(r["metric"]).is_share), key=lambda r: r["most"] - r["least"], default=None)
    if far:
        said.append(f"The widest range between seeds on one data set scored in per cent is that of {arm(far)} on {_place(far)}, from {number(far['least'])} to {number(far['most'])}.")
    return said


def _moved(row: Row) -> str:
    return f"{number(row['sd'])} points {bounds(row['low'], row['high'])}"


def connector(facts: Facts) -> list[str]:
    """Over several data sets: on which tuning the connector as well made methods better, and on which worse."""
    main, parts = facts["main_results"], []
    if not main["to_frozen"]:
        return []
    for word in ("higher", "lower"):
        found = [(rows, won) for rows in _by_set(main["to_frozen"]) if (won := [r for r in rows if r["verdict"] == word])]
        each = []
        for rows, won in found:
            some = f"{number(len(won), 0)} of {number(len(rows), 0)}, {listed(style.label('method', r['method']) for r in won)}"
            each.append(f"{_place(rows[0])} ({f'all {number(len(rows), 0)}' if len(won) == len(rows) else some})")
        parts += [f"{word} on {listed(each)}"] if each else []
    return [f"With the connector tuned as well, methods are {'; '.join(parts)}." if parts else "No method is distinguishable, on any data set, from the same with the connector tuned as well."]


def on_models(facts: Facts) -> list[str]:
    """Of several bases: on which data sets each is above or below the first, untouched, and what was tuned alike on both, by its scores and by what they gained, a data set at a time."""
    rows, said = facts["main_results"].get("between_models") or [], []
    for model in dict.fromkeys(r["model"] for r in rows):
        mine = [_raised(r) for r in rows if r["model"] == model]
        name, first = (style.label("model", mine[0][key]) for key in ("model", "first"))
        bare = {word: [_place(r) for r in mine if r["method"] == "none" and r["verdict"] == word] for word in ("higher", "lower", SURE)}
        parts = [f"{word} {first if i == 0 else 'it'} on {listed(bare[verdict])}" for i, (verdict, word) in enumerate((v, w) for v, w in (("higher", "above"), ("lower", "below"), (SURE, "not distinguishable from")) if bare[v])]
        said += [f"Untouched, {name} is {listed(parts)}."] if parts else []
        for tuned in _by_set(r for r in mine if r["method"] != "none"):
            gained = [{**r, **_changed(r, "gained"), "verdict": r["gained_verdict"]} for r in tuned if r.get("gained") is not None]
            told = ((tuned, f"On {_place(tuned[0])}, of {many(len(tuned), 'model', 'models')} tuned on {name}", f"the same on {first}"), (gained, f"By what was gained over each one's own base, of these {number(len(gained), 0)}", "that on the other"))
            for found, of, than in told:
                if found:
                    said.append(_split(found, _counted(found), of, than) + (_range(found) if len(found) > 1 else f" The difference is {_points(found[0])}."))
    return said


def _raised(row: Row) -> Row:
    """A difference, and that of gains, with its sign turned where less is better."""
    if not _less_is_better(row):
        return row
    for name, low, high, verdict in (("mean", "low", "high", "verdict"), estimates.GAINED):
        if row.get(name) is not None:
            row = row | {name: -row[name], low: -row[high], high: -row[low], verdict: TURNED[row[verdict]]}
    return row


def order(facts: Facts) -> list[str]:
    """Of several bases: the methods by their means on each data set, and of how many pairs of them the order is the same on all bases, or turns."""
    main = facts["main_results"]
    rows, said = main.get("between_methods") or [], []
    for mine in _by_set(rows):
        models = list(dict.fromkeys(r["model"] for r in mine))
        compared = {(one["method"], one["connector"]) for r in mine for one in (r, _other(r))}
        scored = [r for r in main["scores"] if r["dataset"] == mine[0]["dataset"] and r["model"] in models and r["method"] != "none"]
        rest = list(dict.fromkeys(arm(r) for r in scored if (r["method"], r["connector"]) not in compared))
        if rest:
            why = "not tuned on all of them" if len(compared) < estimates.ARMS else f"not among the {number(estimates.ARMS, 0)} that were tuned on all of them and have the best means on {style.label('model', models[0])}"
            said.append(f"On {_place(mine[0])} {listed(rest) if len(rest) <= NAMED else many(len(rest), 'other', 'others')} {_are(len(rest))} not compared: {why}.")
        if len(compared) > NAMED:
            continue
        by_mean: dict[tuple[str, ...], list[str]] = {}
        for model in models:
            ranked = sorted((r for r in scored if r["model"] == model and (r["method"], r["connector"]) in compared), key=lambda r: r["mean"], reverse=not _less_is_better(mine[0]))
            by_mean.setdefault(tuple(arm(r) for r in ranked), []).append(style.label("model", model))
        orders = "; ".join(f"{listed(names)} on {f'all {number(len(models), 0)} models' if len(by_mean) == 1 else listed(those)}" for names, those in by_mean.items())
        said.append(f"On {_place(mine[0])} the means are, from the best down, in the order {orders}.")
    if rows:
        pairs: dict[tuple[Any, ...], list[Row]] = {}
        for r in rows:
            pairs.setdefault((r["dataset"], r["method"], r["connector"], r["other"], r["other_connector"]), []).append(r)
        same = [found for found in pairs.values() if len({(r["mean"] > 0) - (r["mean"] < 0) for r in found}) == 1]
        sure = [found for found in same if all(r["verdict"] != SURE for r in found)]
        turned = [found for found in pairs.values() if {"higher", "lower"} <= {r["verdict"] for r in found}]
        what = f"Of {many(len(pairs), 'comparison', 'comparisons')} of two methods on a data set, {number(len(same), 0)} {'has' if len(same) == 1 else 'have'} the same sign on all models, {number(len(sure), 0)} of them distinguishably on each"
        if not turned:
            said.append(f"{what}; none turns, distinguishably one way on one model and the other way on another.")
        else:
            each = [f"{arm(found[0])} against {arm(_other(found[0]))} on {_place(found[0])}" for found in turned]
            said.append(f"{what}; {number(len(turned), 0)} {'turns' if len(turned) == 1 else 'turn'}, distinguishably one way on one model and the other way on another{f': {listed(each)}' if len(each) <= NAMED else ''}.")
    return said


def _other(row: Row) -> Row:
    """The model that a row of `estimates.between_methods` is compared with; without the state of its connector where none is told."""
    return {"method": row["other"], "connector": row["connector"] and row["other_connector"]}


@_by_model
def to_full_precision(facts: Facts) -> list[str]:
    """Per method and quantisation: what a quantised base changes."""
    return [
        f"On a base in {style.label('quantisation', r['quantisation'])}, {arm(r)} on {_place(r)} against the same in full precision: {_points(r)}; {r['verdict']}." for r in facts["main_results"]["to_full_precision"]
    ]


def _kept(rows: Sequence[Row], target: str) -> list[Row]:
    """What models tuned on a target, on a base in full precision, kept of the sources by their mean, where it is compared with the base's."""
    mine = (r for r in rows if r["dataset"] == target and r["quantisation"] == "none" and r["method"] != "none")
    return [r for r in mine if r["part"] == "A_S" and r["difference"] is not None]


@_by_precision
def forgetting(facts: Facts, *, only: str | None = None) -> list[str]:
    """Per target (of one, with `only`): what tuning left of the seen sets (or of those that the study names), by their mean, which model keeps and which loses most, and the best harmonic mean."""
    said, rows = [], facts["forgetting"]["parts"]
    for target in dict.fromkeys(r["dataset"] for r in rows if only in (None, r["dataset"])):
        mine = [r for r in rows if r["dataset"] == target and r["quantisation"] == "none"]
        kept, known = (_kept(facts["forgetting"][name], target) for name in ("parts", "likeliest"))
        base = {r["part"]: r for r in mine if r["method"] == "none"}
        if kept:
            over = [name for name in kept[0]["sources"].split() if name != target] if "sources" in kept[0] else [r["part"] for r in base.values() if r["kind"] == "seen"]
            said.append(f"The bare base has {_share(base['A_S'])} in the mean of {listed(sorted(style.label('dataset', name) for name in over))}.")
            said.append(_split(kept, _counted(kept), f"Of {many(len(kept), 'model', 'models')} tuned on {style.label('dataset', target)}, by that mean", "the bare base"))
            most, least = min(kept, key=lambda r: r["difference"]), max(kept, key=lambda r: r["difference"])
            said.append(f"Most was lost by {arm(most)}, {_points(_changed(most))}, least by {arm(least)}, {_points(_changed(least))}.")
        if known:
            said.append(_split(known, _counted(known), f"Of {many(len(known), 'model', 'models')}, by the same mean of likeliest choices, where form counts for nothing", "the bare base"))
            most = min(known, key=lambda r: r["difference"])
            told = {(r["method"], r["connector"]): r for r in _kept(facts["forgetting"].get("answered", []), target)}
            given = told.get((most["method"], most["connector"]))
            answers = f" (by its answers to the same questions {_points(_changed(given))})" if given else ""
            said.append(f"By that measure most was lost by {arm(most)}, {_points(_changed(most))}{answers}.")
        both = [r for r in mine if r["part"] == "H" and r["method"] != "none"]
        if both and "H" in base:
            top = max(both, key=lambda r: r["mean"])
            verdicts = {"higher": "above", "lower": "below", SURE: "not distinguishable from"}
            said.append(f"The highest harmonic mean of what is kept and what is learned is that of {arm(top)}, {_share(top)}; it is {verdicts[top['verdict']]} that of the bare base, {_share(base['H'])}.")
            alike = [r for r in facts["forgetting"]["likeliest"] if r["part"] == "H" and all(r[name] == top[name] for name in ("dataset", "quantisation", "method", "connector"))]
            said += [f"By likeliest choices its harmonic mean is {verdicts[r['verdict']]} that of the bare base, {_points(_changed(r))}." for r in alike if r["difference"] is not None]
    return said


def _changed(row: Row, name: str = "difference") -> Row:
    return {"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


@_by_precision
def text_forgetting(facts: Facts) -> list[str]:
    """Which tuned models find plain text harder than the bare base, and the hardest."""
    rows = [r for r in facts["forgetting"]["text"] if r["quantisation"] == "none"]
    base, tuned = [r for r in rows if r["method"] == "none"], [r for r in rows if r["method"] != "none" and r["difference"] is not None]
    said = [f"The bare base has a perplexity of {number(base[0]['mean'])} on the fixed passages."] if base else []
    if tuned:
        said.append(_split(tuned, _counted(tuned), f"Of {many(len(tuned), 'tuned model', 'tuned models')}, by the loss on plain text", "the bare base"))
        worst = max(tuned, key=lambda r: r["mean"])
        on = f" tuned on {_place(worst)}" if len({r["dataset"] for r in tuned}) > 1 else ""
        said.append(f"The highest perplexity is that of {arm(worst)}{on}, {_perplexity(worst)}.")
    return said


def _perplexities(facts: Facts) -> list[str]:
    """What the base's perplexity of plain text becomes, at the least and at the most; none where no tuned model was measured beside it."""
    rows = [r for r in facts["forgetting"]["text"] if r["quantisation"] == "none"]
    base, tuned = ([r for r in rows if (r["method"] == "none") == bare] for bare in (True, False))
    if not base or not tuned:
        return []
    ends = [f"{_perplexity(r)} ({arm(r)} tuned on {_place(r)})" for r in (min(tuned, key=lambda r: r["mean"]), max(tuned, key=lambda r: r["mean"]))]
    return [f"The base's perplexity of {_perplexity(base[0])} on plain text becomes {' to '.join(ends)}."]


def _perplexity(row: Row) -> str:
    """A perplexity in words: of what is beyond a thousand three figures."""
    many_, mean = row["mean"] >= 1000, row["mean"]
    return number(float(f"{mean:.2e}") if many_ else mean, 0 if many_ else 1)


@_by_model
def hallucination(facts: Facts) -> list[str]:
    """The base's probe, who differs from it, and the widest change of the inclination to say yes."""
    probe = facts["hallucination"]
    base = [r for r in probe["scores"] if r["method"] == "none" and _whole(r)]
    tuned = [r for r in probe["scores"] if r["method"] not in ("none", None) and _whole(r)]
    always = [r for r in probe["scores"] if r["method"] is None]
    said = [f"The untouched base answers {_share(r)} of the probe right (n\u00a0=\u00a0{number(r['n'], 0)}) and says yes to {number(r['yes_rate'])} %." for r in base[:1]]
    said += [f"Always saying yes would get {number(r['mean'])} %." for r in always[:1]]
    said += probe_to_base(facts)
    said += affirmed(facts)
    lost = [r for r in tuned if r["unparsed"] > r["n"] / 2]
    if lost:
        said.append(f"More than half of the answers of {arms(lost)} name neither yes nor no, or both: what was lost there is at least the form.")
    if base and tuned:
        far = max(tuned, key=lambda r: abs(r["yes_rate"] - base[0]["yes_rate"]))
        said.append(f"Farthest from the base's inclination to say yes is {arm(far)}, tuned on {_place(far)}: {number(far['yes_rate'])}\u00a0% of its answers.")
    return said + _packed(probe)


def _whole(row: Row) -> bool:
    """Whether a row of the probe is on a base in full precision, or on none."""
    return row.get("quantisation", "none") in ("none", None)


def _packed(probe: dict[str, Any]) -> list[str]:
    """Per quantisation of the base: what the probe found of it, and who differs from it, by accuracy and by what is affirmed of absent things."""
    said = []
    for level in dict.fromkeys(r["quantisation"] for r in probe["scores"] if not _whole(r)):
        mine, compared = ([r for r in rows if r["quantisation"] == level] for rows in (probe["scores"], probe["to_base"]))
        on = f"On a base in {style.label('quantisation', level)}"
        said += [f"{on}: untouched it answers {_share(r)} of the probe right." for r in mine if r["method"] == "none"]
        for rows, how in ((compared, "accuracy"), ([r for r in mine if r["difference"] is not None], "yeses about absent things")):
            said += [_split(rows, _counted(rows), f"{on}, of {many(len(rows), 'tuned model', 'tuned models')}, by {how}", "that base")] if rows else []
    return said


MUCH = 10  # points by which the share of captions that name nothing must differ from the base's to be said


@_by_precision
def invented(facts: Facts) -> list[str]:
    """Captions of the base that name what is not there, who differs from it, who stopped naming things, and the shares where the base made no error."""
    rows = [r for r in facts["hallucination"]["invented"] if r["quantisation"] == "none"]
    simple, whole, published = ([r for r in rows if r["tested_on"] in names] for names in (("clean_captions",), ("scene_captions",), tuple(metrics.BESIDE)))
    said, asked = [], whole or simple or published
    base, every = [r for r in asked if r["method"] == "none"], [r for r in asked if r["method"] != "none" and r["difference"] is not None]
    tuned = _last(every)
    said += [f"Models were probed after {listed(_taken(every))} steps; what is said of one is of the last, where nothing else is." for _ in tuned[:1] if len(tuned) < len(every)]
    said += [f"Of the captions of the bare base {_share(r)} name a thing that is not in the scene, n\u00a0=\u00a0{number(r['n'], 0)}." for r in base[:1]]
    if tuned:
        said.append(_split(tuned, _counted(tuned), f"Of {many(len(tuned), 'tuned model', 'tuned models')}, by that share", "the bare base"))
    silent = [r for r in tuned if r["silent_verdict"] != SURE and abs(r["silent_difference"]) >= MUCH]
    if silent and base:
        each = "; ".join(f"{arm(r)}, {number(r['silent'])}\u00a0%" for r in silent)
        said.append(
            "A caption is held against the list of all things that pictures of the set can show. One that names none of them cannot err by that count, whatever else it invents, so that these shares "
            f"are lower bounds and no merit by themselves: the base names none in {number(base[0]['silent'])}\u00a0% of its captions; {each}."
        )
    return said + _clean([r for r in simple or whole or published if r["clean"] is not None])


def _taken(rows: Sequence[Row]) -> list[str]:
    """The numbers of steps after which models were probed."""
    return [number(steps, 0) for steps in sorted({r["steps"] for r in rows})]


def _courses(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each model, by the steps after which it was probed."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda r: r["steps"]):
        found.setdefault(tuple(row[name] for name in ("tested_on", "model", "dataset", "method", "connector")), []).append(row)
    return sorted(found.values(), key=lambda course: rows.index(course[0]))


def _last(rows: Sequence[Row]) -> list[Row]:
    """Of each model the row after the most steps."""
    return [course[-1] for course in _courses(rows)]


def _clean(rows: Sequence[Row]) -> list[str]:
    """What became of the captions in which the base made no error; that they are too few, where they are."""
    every, few = [r for r in rows if r["broken"] is not None], [r for r in rows if r["broken"] is None]
    broken, said = _last(every), []
    if few:
        said.append(
            f"Too few for more: of only {number(few[0]['clean'], 0)} of {many(few[0]['n'], 'picture', 'pictures')} the base names things, and only such as are there; the protocol of Zhou et al. needs at least "
            f"{number(few[0]['least_clean'], 0)}, so that nothing is said of how many such captions break. A study of simpler scenes can ask for more."
        )
    if broken:
        least, most = (choose(broken, key=lambda r: r["broken"]) for choose in (min, max))
        shares = [f"{arm(r)}, {_share({'mean': r['broken'], 'low': r['broken_low'], 'high': r['broken_high']})}" for r in (least, most)]
        shares[0] += f", which names none of the things looked for in {number(least['silenced'])}\u00a0%" if least["silenced"] >= MUCH else ""
        said.append(f"On the {many(most['clean'], 'picture', 'pictures')} in whose captions the base names only what is there, the fewest captions with something invented are those of {shares[0]}, the most those of {shares[1]}; the base has none there by choice of the pictures.")
        if len(broken) < len(every):
            courses = "; ".join(f"{arm(course[-1])} {listed(number(r['broken']) for r in course)}" for course in _courses(every))
            said.append(f"After {listed(_taken(every))} steps these shares were, in per cent: {courses}.")
        quiet = max(broken, key=lambda r: r["silenced"])
        if quiet["silenced"] > 0:
            said.append(f"Captions there that name none of the things looked for are counted apart: up to {number(quiet['silenced'])}\u00a0% ({arm(quiet)}).")
    return said


@_by_precision
def unchanged(facts: Facts) -> list[str]:
    """Per data set: how often the base's answer stays what it was under each kind of picture, and whose stays more or less often: by the likeliest choice where that is known."""
    said, rows = [], [r for r in facts["hallucination"]["unchanged"] if r["quantisation"] == "none"]
    for dataset in dict.fromkeys(r["dataset"] for r in rows):
        mine = [r for r in rows if r["dataset"] == dataset]
        base = [f"{_share(r)} ({style.label('pictures', r['pictures'])})" for r in mine if r["method"] == "none"]
        if base:
            said.append(f"On {style.label('dataset', dataset)} the untouched base gives the same answer in {listed(base)} of the questions.")
            likely = [f"{_share(_likely(r))} ({style.label('pictures', r['pictures'])})" for r in mine if r["method"] == "none" and r["likeliest"] is not None]
            said += [f"By its likeliest choice, where form counts for nothing, it stays with {listed(likely)}." for _ in likely[:1]]
        for pictures in dict.fromkeys(r["pictures"] for r in mine):
            tuned = [r for r in mine if r["pictures"] == pictures and r["method"] != "none"]
            compared = [_likely(r) for r in tuned if r["likeliest_difference"] is not None] or [r for r in tuned if r["difference"] is not None]
            if compared:
                named = f"Of {many(len(compared), 'tuned model', 'tuned models')} on {style.label('dataset', dataset)} under {style.label('pictures', pictures)}, by that share"
                said.append(_split(compared, _counted(compared), named, "the base"))
    return said


def _likely(row: Row) -> Row:
    """A row of `estimates.unchanged` with what is said of the likeliest choice in the place of what is said of the answer."""
    own = {name: row["likeliest" if name == "mean" else f"likeliest_{name}"] for name in ("mean", "low", "high", "n", "difference", "verdict")}
    return {**row, **own}


def probe_to_base(facts: Facts, *, only: str | None = None) -> list[str]:
    """Per data set (of one, with `only`): which models tuned on it differ from the untouched base in the probe."""
    found, said = [r for r in facts["hallucination"]["to_base"] if _whole(r)], []
    for d in dict.fromkeys(r["dataset"] for r in found if only in (None, r["dataset"])):
        rows = [r for r in found if r["dataset"] == d]
        said.append(_split(rows, _counted(rows), f"Of {many(len(rows), 'model', 'models')} tuned on {style.label('dataset', d)}", "the base"))
    return said


def affirmed(facts: Facts, *, only: str | None = None) -> list[str]:
    """Which models (tuned on one data set, with `only`) say yes more often than the base to things that are not there: hallucination in the strict sense."""
    rows = [r for r in facts["hallucination"]["scores"] if _whole(r)]
    said = [
        f"A yes about an absent thing is a hallucination in the strict sense: the base gives one to {_share({'mean': r['affirmed'], 'low': r['affirmed_low'], 'high': r['affirmed_high']})} of {number(r['absent'], 0)} such questions."
        for r in rows if r["method"] == "none"
    ][:1]  # fmt: skip
    for dataset in dict.fromkeys(r["dataset"] for r in rows if r["dataset"] and only in (None, r["dataset"])):
        every = [r for r in rows if r["dataset"] == dataset and r["difference"] is not None]
        mine = [r for r in every if r["absent_read"] >= r["absent"] * r["seeds"] / 2]
        if mine:
            legible = " whose answers can be read in at least half of the cases" if len(mine) < len(every) else ""
            said.append(_split(mine, _counted(mine), f"By that share, of {many(len(mine), 'model', 'models')} tuned on {style.label('dataset', dataset)}{legible}", "the base"))
        rest = [r for r in every if r not in mine]
        if rest:
            each = [f"{arm(r)} {number(r['affirmed_read'])}\u00a0% of {number(r['absent_read'], 0)}" for r in rest if r["absent_read"]]
            mute = [r for r in rest if not r["absent_read"]]
            read = f"; of those that can, yes was said by {'; '.join(each)}" if each else ""
            said.append(f"Most answers about absent things of {'the other' if len(rest) == 1 else f'the other {len(rest)}'} cannot be read, which is no restraint{read}.")
            said += [f"{arms(mute)} gave none that can be read."] if mute else []
    return said


@_by_model
def unfit(facts: Facts) -> list[str]:
    """What did not fit in memory, each with what was done of it and whose memory ran out."""
    said = []
    for r in facts["main_results"].get("unfit", []):
        packed = "" if r["quantisation"] == "none" else f" on a base in {style.label('quantisation', r['quantisation'])}"
        size = "" if r["memory_bytes"] is None else f" ({scaled(r['memory_bytes'], BYTES)})"
        whose = f"the GPU, {r['device']}" if r["of_gpu"] else "this machine"
        said.append(f"{STAGES[r['stage']].capitalize()} of {arm(r)}{packed} on {_place(r)} with {r['precision']} and batches of {number(r['batch_size'], 0)} did not fit in the memory of {whose}{size}.")
    return said


def beside_others(design: dict[str, Any]) -> bool:
    """Whether each run had a part of the machine's cores, so that others ran beside it."""
    return bool(design.get("threads")) and max(design["threads"]) < min(design["cores"])


@_by_model
def cost(facts: Facts) -> list[str]:
    """The least and the most: parameters, disk, memory, seconds; per machine."""
    said = []
    rows = [r for r in facts["cost"]["costs"] if r["quantisation"] == "none"]
    shared = beside_others(facts.get("main_results", {}).get("design", {}))  # then whose is shorter is told by what ran beside it
    for machine in dict.fromkeys((r["device"], r["processor"]) for r in rows):
        mine = [r for r in rows if (r["device"], r["processor"]) == machine]
        least, most = (choose(mine, key=lambda r: r["trainable"]) for choose in (min, max))
        fast, slow = (choose(mine, key=lambda r: r["seconds"]) for choose in (min, max))
        said.append(f"What trains goes from {scaled(least['trainable'], PARAMETERS)} parameters ({arm(least)}) to {scaled(most['trainable'], PARAMETERS)} ({arm(most)}), and takes from {scaled(least['adapter_bytes'], BYTES)} to {scaled(most['adapter_bytes'], BYTES)} on disk.")
        own = all(r.get("peak_device_bytes") for r in mine)
        whose = "the GPU's " if own else ""
        peaks = [r["peak_device_bytes" if own else "peak_memory_bytes"] for r in mine]
        medians = ", medians over runs," if any(r["runs"] > 1 for r in mine) else ""
        ends = [f"{number(r['seconds'], 0)}\u00a0s{'' if shared else f' ({arm(r)})'}" for r in (fast, slow)]
        said.append(f"Tuning takes from {ends[0]} to {ends[1]}{medians} by the clock, whatever else the machine did, at a peak of {scaled(min(peaks), BYTES)} to {scaled(max(peaks), BYTES)} of {whose}memory.")
    return said


def limits(facts: Facts) -> list[str]:
    """What of the numbers a reader must not take for more: seeds, steps, the number of comparisons, base and machine."""
    main = facts["main_results"]
    seeds, steps = main["design"]["seeds"], " or ".join(number(s, 0) for s in main["design"]["steps"])
    made, sure = _comparisons(facts)
    by_accident = f"{number(sure, 0)} exclude zero, and were there no difference anywhere about {number(made * (1 - main['design']['level'] / 100), 0)} would by accident"
    compared = f" The study makes {many(made, 'paired comparison', 'paired comparisons')}, not corrected for their number: {by_accident}." if made else ""
    tuned = [f"Every model was tuned for {steps} steps, whatever its method would have reached with more."] if steps else []
    several = (
        f"{number(len(seeds), 0)} seeds were run and the scores of their answers averaged. The spread between seeds is in the intervals of what is scored and of its differences; "
        "it is not in those of perplexity, of answers that stay the same, and of captions' length, recall and silence; a control that was run under one of them alone is taken to vary as its method does"
    )
    said = [
        f"One seed ({seeds[0]}) was run. The intervals are over questions, clustered by picture and asset; how much another seed would move a score is not in them." if len(seeds) == 1 else several + ".",
        *tuned,
        f"The intervals are those of {main['design']['level']}\u00a0% each.{compared}",
    ]
    return said


def _comparisons(facts: Facts) -> tuple[int, int]:
    """How many differences of the facts have an interval and a verdict, and how many of them exclude zero; one that two tables hold counts once."""
    pairs = facts.get("main_results", {}).get("between_methods") or []
    twice = {(r["model"], r["dataset"], one["method"], one["connector"]) for r in pairs for one in (r, _other(r))}
    rows = [row for found in facts.values() for name, value in found.items() if isinstance(value, list) for row in value if isinstance(row, dict) and (name != "to_best" or (row["model"], row["dataset"], row["method"], row["connector"]) not in twice)]
    told = [row[name] for row in rows for name in ("verdict", "control_verdict", "silent_verdict", "gained_verdict") if row.get(name) is not None]
    return len(told), sum(verdict != SURE for verdict in told)


@_by_model
def failed(facts: Facts) -> list[str]:
    """What did not work, by the numbers: below the base, unlearned sight, answers that cannot be read."""
    main, said = facts["main_results"], []
    for r in main["to_blind"]:
        if r["method"] == "none" and r["group"] == "seen" and r["verdict"] != "higher":
            said.append(f"The untouched base is not above {BLIND[r['baseline']]} on {_place(r)}, which it has seen: {_points(r)}.")
    for r in main["to_base"]:
        if r["verdict"] == ("higher" if _less_is_better(r) else "lower"):
            said.append(f"{arm(r)} made the model worse on {_place(r)}: {_points(r)} against the untouched base.")
    said += _level_with_chance(facts) + _not_above(_tuned_to_blind(main))
    for rows in _by_set(r for r in main["to_shuffled"] if r["verdict"] != "higher"):
        if len(rows) > APART:
            said.append(f"On {_place(rows[0])}, not above their controls with shuffled pictures: {'; '.join(f'{arm(r)}, {_points(r)}' + (', which is below it' if r['verdict'] == 'lower' else '') for r in rows)}.")
            continue
        said += [f"{arm(r)} on {_place(r)} is {'below' if r['verdict'] == 'lower' else 'not above'} its control with shuffled pictures: {_points(r)}." for r in rows]
    bad = main["unreadable"]
    if bad:
        worst = max(bad, key=lambda r: r["share"])
        whose = "those of the untouched base" if worst["method"] == "none" else f"those of {arm(worst)}"
        cases = many(len(main["scores"]), "case, a model on a data set,", "cases, each a model on a data set,")
        said.append(f"In {number(len(bad), 0)} of {cases} more than {main['unreadable_above']}\u00a0% of the answers are unreadable; most of all {whose} on {_place(worst)}, {number(worst['share'])}\u00a0%.")
    said += unfit(facts)
    if not said:
        why = "no tuned model is below the base, and no control stayed level" if _sets(facts) else "every base is above what needs no sight of the picture on what it has seen"
        said.append(f"By these numbers nothing failed outright: {why}.")
    return said


def across(facts: Facts) -> list[str]:
    """Of several data sets of the first one's group: the highest mean on each beside the base's, and the means over those that one average can hold; none of one set."""
    main, sets = facts["main_results"], _sets(facts)
    group = next((r["group"] for r in main["scores"] if sets and r["dataset"] == sets[0]), None)
    names, values, level = list[str](), list[str](), _level(facts)
    same = [d for d in sets if any(r["dataset"] == d and r["group"] == group and r["method"] != "none" for r in main["scores"])]
    for dataset in sets if set(same) <= set(level) else [d for d in sets if d not in level]:  # what is best of guesses is told where there is nothing else
        mine = [r for r in main["scores"] if r["dataset"] == dataset and r["group"] == group]
        tuned, base = ([r for r in mine if (r["method"] == "none") == bare] for bare in (False, True))
        if tuned:
            top = (min if _less_is_better(tuned[0]) else max)(tuned, key=lambda r: r["mean"])
            names.append(arm(top))
            values.append(f"{_share(top)} on {_place(top)}{f' (the untouched base: {_share(base[0])})' if base else ''}")
    if len(same) < 2:
        return []
    best_of = f"{names[0]}: {listed(values)}" if len(set(names)) == 1 else listed(f"{name} with {value}" for name, value in zip(names, values, strict=True))
    some = f"{number(len(names), 0)} of " if len(names) < len(same) else ""
    said = [f"On each of {some}{many(len(same), f'{group} data set', f'{group} data sets')} the best mean is that of {best_of}." if len(names) > 1 or not some else f"On one of {many(len(same), f'{group} data set', f'{group} data sets')} there is something learned, the most by {best_of}."]
    said += _level_with_chance(facts) + _no_choice_moved(facts)
    said += _not_above([r for r in _tuned_to_blind(main) if r["dataset"] in sets and r["dataset"] not in level])
    means = sorted((r for r in main["averages"] if r["group"] == group and r["datasets"] > 1), key=lambda r: -r["mean"])
    if means:
        shown = means if len(means) <= NAMED else means[:3] + [r for r in means[3:] if r["method"] == "none"]
        word = "means" if shown is means else "highest means, and the base's,"
        over = f"the {number(means[0]['datasets'], 0)} scored in per cent" if means[0]["datasets"] < len(same) else f"all {number(means[0]['datasets'], 0)}"
        others = [r for r in main.get("averages_to_best", []) if r["group"] == group]
        level = [r for r in others if r["verdict"] == SURE]
        first = f"; {number(len(level), 0)} of the other {many(len(others), 'tuned model', 'tuned models')} {_are(len(level))} not distinguishable from the first" if others else ""
        said.append(f"Over {over}, each weighing the same, the {word} are those of {listed([f'{_the(r)} with {_share(_scaled(r))}' for r in shown])}{first}.")
    return said


def _the(row: Row) -> str:
    return "the untouched base" if row["method"] == "none" else arm(row)


def _level_with_chance(facts: Facts) -> list[str]:
    """On which data sets no tuned model is above chance by its interval; none where there is no such set."""
    level = [f"{style.label('dataset', d)} ({number(guess)}\u00a0%)" for d, guess in _level(facts).items()]
    return [f"On {listed(level)} no tuned model is above chance."] if level else []


def _level(facts: Facts) -> dict[str, float]:
    """What chance would earn on those data sets on which no tuned model is above it by its interval."""
    main = facts["main_results"]
    guess = {b["dataset"]: b["mean"] for b in main.get("baselines", []) if b["baseline"] == "chance"}
    above = {r["dataset"] for r in main.get("scores", []) if r["method"] != "none" and r["dataset"] in guess and r["low"] is not None and r["low"] > guess[r["dataset"]]}
    return {d: guess[d] for d in guess and _sets(facts) if d in guess and d not in above}


def _no_choice_moved(facts: Facts) -> list[str]:
    """On which data sets no tuned model differs from the base by its likeliest choice; none where there is no such set."""
    tuned = [r for r in facts["main_results"]["likeliest"] if r["method"] != "none" and r["difference"] is not None]
    level = [_place(rows[0]) for rows in _by_set(tuned) if all(r["verdict"] == SURE for r in rows)]
    return [f"By the likeliest choice, where form counts for nothing, no tuned model differs from the base on {listed(level)}."] if level else []


def _not_above(rows: Sequence[Row]) -> list[str]:
    """On which data sets no tuned model is better than what is said without a picture; none where there is no such set."""
    level: dict[str, list[str]] = {}
    for name, way in GUESSES.items():
        mine = [r for r in rows if r["baseline"] == name]
        better = {r["dataset"] for r in _signed(mine) if r["verdict"] == "higher"}
        for dataset in dict.fromkeys(r["dataset"] for r in mine if r["dataset"] not in better):
            level.setdefault(dataset, []).append(way)
    ways: dict[str, list[str]] = {}
    for dataset, theirs in level.items():
        ways.setdefault(" or ".join(theirs), []).append(style.label("dataset", dataset))
    return [f"On {listed(names)} no tuned model is above {way}." for way, names in ways.items()]


def _scaled(row: Row) -> Row:
    """A mean over data sets of several metrics, which all go from 0 to 100, as one in per cent."""
    return {**row, "metric": "exact"} if " / " in row["metric"] else row


def abstract(facts: Facts) -> list[str]:
    """What was found of the first data set, or of several like it, whether it was sight, and the probe's and the costs' first sentences; of several models what each learned, whether that was sight, and whether methods keep their order. None where nothing was tuned."""
    if not _sets(facts):
        return []
    if not facts["main_results"].get("between_methods"):
        return _abstract(facts)

    @_by_model
    def learned(mine: Facts) -> list[str]:
        several = across(mine)
        return several[:1] + sight(mine) + _level_with_chance(mine) if several else best(mine)[:1] + to_shuffled(_only(mine, "dataset", _sets(mine)[0]))

    return [*learned(facts), *order(facts)[-1:], *(_by_model(lambda mine: cost(mine)[:1])(facts) if "cost" in facts else [])]


@_by_model
def _abstract(facts: Facts) -> list[str]:
    """The abstract of each model by itself."""
    if not _sets(facts):
        return []
    first = _sets(facts)[0]
    several = across(facts)
    found = several or best(facts)[:1] + above_chance(facts)[:1] + likeliest(facts, only=first)[:2]
    if several:
        found += sight(facts) + connector(facts)
    else:
        found += to_shuffled(_only(facts, "dataset", first))
        won = {(r["method"], r["connector"]) for r in facts["main_results"]["to_shuffled"] if r["dataset"] == first and r["verdict"] == "higher"}
        found += by_choice(facts, only=first, of=won)  # a gain that is not there by choices is not told alone
    found += stability(facts)[:1]
    kept = facts.get("forgetting", {})
    if kept.get("parts"):
        found += forgetting(facts, only=first)[:4]
    elif several and kept.get("text"):
        found += _perplexities(facts)
    if "hallucination" in facts:
        found += hallucination(facts)[:1] + probe_to_base(facts, only=first) + affirmed(facts, only=first)[:2]
        found += _clean([r for r in facts["hallucination"].get("broken") or () if r["broken"] is not None and r["quantisation"] == "none"])[:1]
    return found + (cost(facts)[:1] if "cost" in facts else [])


FINDINGS = {f.__name__: f for f in (abstract, rates, known, best, above_chance, to_base, likeliest, to_shuffled, to_frozen, stability, on_models, order, to_full_precision, forgetting, text_forgetting, hallucination, invented, unchanged, unfit, cost, limits, failed)}
