"""How an answer is read and what it earns, as pure functions of stored predictions.

An answer is right, wrong or unparsed: three outcomes, never two. An unparsed answer earns nothing and is counted in a column
of its own, because fine-tuning changes the style of answers and a scorer that guesses would change the ranking with it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from peftlab.metrics import captions, rules

YES_NO = ("yes", "no")
OUTCOMES = ("right", "wrong", "unparsed")


Parsed = Sequence[str | None]
Answers = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Metric:
    """How a column of answers becomes a number.

    ``parse(response, choices, template)`` reads one answer, None where it cannot be read; ``score`` takes judged predictions
    (columns ``parsed``, ``outcome``, ``value``, ``answers``) to a value in ``unit``, None where it is undefined;
    ``higher_is_better`` is None where neither direction is. ``earns(parsed, answers)`` is what each of the answers is worth (None: unparsed), all
    or nothing, 100 or 0, unless a metric says otherwise; they come together because what a word of a caption is worth depends on the others.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool | None
    parse: Callable[[str, tuple[str, ...], str], str | None]
    score: Callable[[pd.DataFrame], float | None]
    earns: Callable[[Parsed, Answers], list[float]] = lambda parsed, answers: [100.0 * (p in {normalise(a) for a in r}) for p, r in zip(parsed, answers, strict=True)]


def normalise(text: str) -> str:
    """The first line, stripped, lower-cased, without trailing full stops and articles, its blanks single.

    A text that is nothing but an article ("A") is kept as it is: it may be the name of a choice.
    """
    lines = text.strip().splitlines()
    words = (lines[0] if lines else "").lower().rstrip(" .\t").split()
    return " ".join([w for w in words if w not in ("a", "an", "the")] or words)


def named(response: str, choices: Iterable[str]) -> str | None:
    """The one choice that a response names in whole words, normalised; None where it names none or more than one.

    A choice that lies inside a longer one found at the same place ("cat" in "black cat") does not count as named.
    """
    text, found = normalise(response), []
    options = sorted({normalise(c) for c in choices} - {""}, key=len, reverse=True)
    if text in options:
        return text
    rest = text
    for option in options:
        rest, times = re.subn(rf"(?<!\w){re.escape(option)}(?!\w)", "\0", rest)
        found += [option] if times else []
    return found[0] if len(found) == 1 else None


def _exact(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return named(response, choices) if choices else normalise(response) or None


def _yes_no(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return named(response, YES_NO)


def _letter(response: str, choices: tuple[str, ...], template: str) -> str | None:
    said = rules.letter(response.strip(), choices)
    return None if said is None else normalise(said)


def _letter_or_name(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return _letter(response, choices, template) or named(response, choices)


def _vqa(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return rules.vqa_answer(response) or None


def _soft(parsed: Parsed, answers: Answers) -> list[float]:
    return [0.0 if said is None else rules.vqa_accuracy(said, accepted) for said, accepted in zip(parsed, answers, strict=True)]


def _caption(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return " ".join(captions.tokens(response)) or None


def _cider(parsed: Parsed, answers: Answers) -> list[float]:
    return captions.cider([(said or "").split() for said in parsed], [[captions.tokens(a) for a in accepted] for accepted in answers])


def _accuracy(judged: pd.DataFrame) -> float | None:
    return float(judged["value"].mean())


def _truth(judged: pd.DataFrame) -> pd.Series:
    truth = pd.Series([normalise(answers[0]) for answers in judged["answers"]], index=judged.index)
    strange = sorted(set(truth) - set(YES_NO))
    if strange:
        raise ValueError(f"a yes/no metric on answers {', '.join(strange[:3])}: every answer must be yes or no")
    return truth


def _share(part: pd.Series, whole: pd.Series) -> float | None:
    return float(100 * (part & whole).sum() / whole.sum()) if whole.any() else None


def _precision(judged: pd.DataFrame) -> float | None:
    return _share(_truth(judged) == "yes", judged["parsed"] == "yes")


def _recall(judged: pd.DataFrame) -> float | None:
    return _share(judged["parsed"] == "yes", _truth(judged) == "yes")


def _f1(judged: pd.DataFrame) -> float | None:
    said, true = judged["parsed"] == "yes", _truth(judged) == "yes"
    both = int((said & true).sum())
    return float(200 * both / (said.sum() + true.sum())) if said.any() or true.any() else None


def _yes_rate(judged: pd.DataFrame) -> float | None:
    _truth(judged)
    return float(100 * (judged["parsed"] == "yes").mean())


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("exact", "Accuracy", "%", True, _exact, _accuracy),
        Metric("vqa", "Soft accuracy", "%", True, _vqa, _accuracy, _soft),
        Metric("cider", "CIDEr-D", "points", True, _caption, _accuracy, _cider),
        Metric("letter", "Accuracy (letter)", "%", True, _letter, _accuracy),
        Metric("letter_or_name", "Accuracy", "%", True, _letter_or_name, _accuracy),
        Metric("pope_official", "Accuracy (POPE)", "%", True, lambda response, *_: rules.pope_official(response), _accuracy),
        Metric("pope_lmms_eval", "Accuracy (lmms-eval)", "%", True, lambda response, *_: rules.pope_lmms_eval(response), _accuracy),
        Metric("pope_vlmevalkit", "Accuracy (VLMEvalKit)", "%", True, lambda response, *_: rules.pope_vlmevalkit(response), _accuracy),
        Metric("yes_no", "Accuracy", "%", True, _yes_no, _accuracy),
        Metric("precision", "Precision", "%", True, _yes_no, _precision),
        Metric("recall", "Recall", "%", True, _yes_no, _recall),
        Metric("f1", "F1", "%", True, _yes_no, _f1),
        Metric("yes_rate", "Yes rate", "%", None, _yes_no, _yes_rate),
    )
}

PROBE = ("yes_no", "precision", "recall", "f1", "yes_rate")  # what is reported of a yes/no probe; yes_no is its accuracy


def metric(name: str) -> Metric:
    """The metric `name`; raises ValueError naming the choices."""
    if name not in METRICS:
        raise ValueError(f"metric is {name!r}; choose one of {', '.join(METRICS)} (lib/peftlab/metrics/__init__.py)")
    return METRICS[name]


def parse(response: str, choices: Iterable[str] = (), template: str = "", *, name: str = "exact") -> str | None:
    """What a response says, normalised, under metric `name`; None where it cannot be read."""
    return metric(name).parse(response, tuple(choices), template)


def judge(predictions: pd.DataFrame, name: str = "exact") -> pd.DataFrame:
    """Predictions with `parsed` (str or None), `outcome` (right | wrong | unparsed) and `value` (in the metric's unit) per example.

    Right is what earns anything. Under ``exact`` a question whose accepted answers are yes or no is closed, as if these were its choices. Raises ValueError
    on no examples and on an example_id that occurs twice.
    """
    how = metric(name)
    if predictions.empty:
        raise ValueError(f"{name} of no examples: there is nothing to judge")
    double = predictions["example_id"][predictions["example_id"].duplicated()]
    if len(double):
        raise ValueError(f"example_id {double.iloc[0]!r} occurs twice: judge one run on one data set at a time")
    parsed = []
    for response, choices, answers, template in zip(*(predictions[c] for c in ("response", "choices", "answers", "template"))):
        accepted = {normalise(a) for a in answers}
        closed = tuple(choices) or (YES_NO if accepted <= set(YES_NO) else ())
        parsed.append(how.parse(response, closed, template))
    values = how.earns(parsed, [tuple(answers) for answers in predictions["answers"]])
    outcomes = ["unparsed" if said is None else "right" if value else "wrong" for said, value in zip(parsed, values, strict=True)]
    return predictions.assign(parsed=pd.Series(parsed, index=predictions.index, dtype=object), outcome=outcomes, value=values)


def score(predictions: pd.DataFrame, name: str = "exact") -> dict[str, float | int | None]:
    """The value of metric `name` on predictions (judged here unless they are), with n and the number unparsed."""
    judged = predictions if "outcome" in predictions.columns and len(predictions) else judge(predictions, name)
    return {"value": metric(name).score(judged), "n": len(judged), "unparsed": int((judged["outcome"] == "unparsed").sum())}
