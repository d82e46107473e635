"""How an answer is read and what it earns, as pure functions of stored predictions.

An answer is right, wrong or unparsed: three outcomes, never two. An unparsed answer earns nothing and is counted in a column
of its own, because fine-tuning changes the style of answers and a scorer that guesses would change the ranking with it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from peftlab.metrics import captions, chair, rules

YES_NO = ("yes", "no")
OUTCOMES = ("right", "wrong", "unparsed")


Parsed = Sequence[str | None]


def _all_or_nothing(parsed: Parsed, rows: pd.DataFrame, whole: pd.DataFrame) -> list[float]:
    return [100.0 * (said in {normalise(a) for a in answers}) for said, answers in zip(parsed, rows["answers"], strict=True)]


@dataclass(frozen=True)
class Metric:
    """How a column of answers becomes a number.

    ``parse(response, choices, template)`` reads one answer, None where it cannot be read, unless ``reads(rows, vocabulary)`` reads them all;
    ``score`` takes judged predictions
    (columns ``parsed``, ``outcome``, ``value``, ``answers``) to a value in ``unit``, None where it is undefined;
    ``higher_is_better`` is None where neither direction is. ``earns(parsed, rows, whole)`` is what each of the answers is worth (None: unparsed), all
    or nothing, 100 or 0, unless a metric says otherwise. ``most`` is the highest value there is, None where there is none: averages over data
    sets are taken of those of 100 only. ``relative`` says that an answer's worth depends on the other questions of its data set: `whole`
    are those of the whole test set, however few of them were asked. ``needs`` names a column of predictions that not all have: rows without it
    are left out. ``naming`` says that answers are read by the names of all things that the data set's pictures can hold, the vocabulary, which
    `judge` is given: a thing that is in no picture asked about, or in no test picture at all, can be invented too. A line of it may hold several
    names of a thing, its own first (`chair.nouns`).
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool | None
    parse: Callable[[str, tuple[str, ...], str], str | None]
    score: Callable[[pd.DataFrame], float | None]
    earns: Callable[[Parsed, pd.DataFrame, pd.DataFrame], list[float]] = _all_or_nothing
    most: float | None = 100.0
    relative: bool = False
    needs: str | None = None
    naming: bool = False
    reads: Callable[[pd.DataFrame, Sequence[str]], list[str | None]] | None = None

    @property
    def is_share(self) -> bool:
        """Whether its values go from 0 to 100, so that those of several data sets have a mean."""
        return self.most == 100


@lru_cache(maxsize=2**16)  # many models give the same few answers to a question
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
    return _one_named(response, tuple(choices))


# A number inside a longer one, as 5 is in "1.5", "-5" and "3:5", is not named by it; a full stop after it ends a sentence.
BEFORE_NUMBER, AFTER_NUMBER = r"(?<![\w.−])(?<!\d[,:/])(?<!(?<!\w)-)", r"(?!\w|[.,:/]\d)"


@lru_cache(maxsize=2**16)
def _one_named(response: str, choices: tuple[str, ...]) -> str | None:
    text, found = normalise(response), []
    options = sorted({normalise(c) for c in choices} - {""}, key=len, reverse=True)
    if text in options:
        return text
    rest = text
    for option in options:
        before, after = BEFORE_NUMBER if option[0].isdigit() else r"(?<!\w)", AFTER_NUMBER if option[-1].isdigit() else r"(?!\w)"
        rest, times = re.subn(f"{before}{re.escape(option)}{after}", "\0", rest)
        found += [option] if times else []
    return found[0] if len(found) == 1 else None


def _exact(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return named(response, choices) if choices else normalise(response) or None


def _yes_no(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return named(response, YES_NO)


def _letter(response: str, choices: tuple[str, ...], template: str) -> str | None:
    said = rules.letter(response.strip(), choices)
    return None if said is None else normalise(said)


# A letter of a choice. Not one is the article or pronoun: "a fox", "I think".
LETTER = r"(?![AI]\s+(?!(?:or|and|is|because|since|as)\b)\w)([A-J])(?!\w|['’-]\w)"
BEFORE = r"[\s*\"'“‘`(\[]"  # what may stand before a letter
FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"^{BEFORE}*{LETTER}[\s.:,;!?)\]*\"'”’`]*$",  # alone: "b", "(B)", "B."
        rf"^{BEFORE}*{LETTER}(?:[)\]:]|\.(?!\w\b))",  # marked at the beginning: "B) text", "B: text"; not "a.m."
        rf"(?<!\w)[(\[]{LETTER}[)\]]",  # in brackets: "It is (B)"
        rf"\b(?:answer|options?|choice|letter)(?:\s+is)?[:=\-–{BEFORE[1:-1]}]+{LETTER}",  # "Answer: B", "Option B", "The answer is B"
        rf"(?<!\w){LETTER}\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b",
    )
)
ANY_LETTER = re.compile(rf"(?<!\w)(?<!\w['’-]){LETTER}", re.IGNORECASE)
DENIED = re.compile(rf"(?:\b(?:not|neither|nor|except|cannot)|n['’]t)\s+(?:be\s+)?(?:the\s+)?(?:options?\s+|choice\s+|letter\s+)?{BEFORE}*{LETTER}", re.IGNORECASE)


def _letter_named(response: str, choices: tuple[str, ...]) -> str | None:
    """The choice whose letter the first line of a response names in one of `FORMS`, normalised.

    None where the line names another letter too or denies one, or where there is no such choice.
    """
    response = "".join(response.strip().splitlines()[:1])
    said = {letter.upper() for form in FORMS for letter in form.findall(response)}
    if len(said) != 1 or said != {letter.upper() for letter in ANY_LETTER.findall(response)} or DENIED.search(response):
        return None
    place = ord(said.pop()) - ord("A")
    return normalise(choices[place]) if place < len(choices) else None


def _letter_or_name(response: str, choices: tuple[str, ...], template: str) -> str | None:
    """The letter that a response is or that begins it with ". ", as ScienceQA's rule has it; else the one choice that is named; else the only letter.

    A name and a letter of two choices are unparsed. What that rule finds after "The answer is" is not taken over: it reads a C in "Chile".
    """
    response = response.strip()
    if response[1:3] in ("", ". ") and (strict := _letter(response, choices, template)):
        return strict
    name, letter = named(response, choices), _letter_named(response, choices)
    if name is None:
        return letter
    return name if letter in (None, name) or normalise(response) == name else None


def _equal(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return response.strip().lower() or None


def _identical(parsed: Parsed, rows: pd.DataFrame, whole: pd.DataFrame) -> list[float]:
    return [100.0 * (said in {a.strip().lower() for a in answers}) for said, answers in zip(parsed, rows["answers"], strict=True)]


def _people(name: str, label: str, answer: Callable[[str], str], accuracy: Callable[[str, Sequence[str]], float]) -> Metric:
    """The soft accuracy of several people's answers, by a rule of `rules`."""

    def earns(parsed: Parsed, rows: pd.DataFrame, whole: pd.DataFrame) -> list[float]:
        return [0.0 if said is None else accuracy(said, accepted) for said, accepted in zip(parsed, rows["answers"], strict=True)]

    return Metric(name, label, "%", True, lambda response, *_: answer(response) or None, _accuracy, earns)


def _caption(response: str, choices: tuple[str, ...], template: str) -> str | None:
    return " ".join(captions.tokens(response)) or None


def _words(parsed: Parsed, rows: pd.DataFrame) -> tuple[list[list[str]], list[list[list[str]]]]:
    return [(said or "").split() for said in parsed], [[captions.tokens(a) for a in accepted] for accepted in rows["answers"]]


def _cider(parsed: Parsed, rows: pd.DataFrame, whole: pd.DataFrame) -> list[float]:
    said, references = _words(parsed, rows)
    corpus = None if whole is rows else captions.frequencies([[captions.tokens(a) for a in accepted] for accepted in whole["answers"]])
    return captions.cider(said, references, corpus=corpus)


def _rouge(parsed: Parsed, rows: pd.DataFrame, whole: pd.DataFrame) -> list[float]:
    return captions.rouge_l(*_words(parsed, rows))


def _bleu(parsed: Parsed, rows: pd.DataFrame, whole: pd.DataFrame) -> list[float]:
    return captions.sentence_bleu(*_words(parsed, rows))


def _corpus_bleu(judged: pd.DataFrame) -> float | None:
    return captions.bleu(*_words(judged["parsed"], judged))


def _named(rows: pd.DataFrame, vocabulary: Sequence[str]) -> list[str | None]:
    """The objects a caption names, of all in the vocabulary; "" where it names none, None where it says nothing."""
    known = chair.nouns(vocabulary)
    return [SEVERAL.join(chair.named(response, known)) if captions.tokens(response) else None for response in rows["response"]]


SEVERAL = "; "  # between the objects that a caption names


def mentions(judged: pd.DataFrame) -> pd.DataFrame:
    """Of captions judged by a metric of objects: how many objects each names (`named`), invents, recalls, and how many are there (`present`)."""
    rows = []
    for said, objects in zip(judged["parsed"], judged["objects"], strict=True):
        things, there = said.split(SEVERAL) if isinstance(said, str) and said else [], set(objects)
        rows.append((len(things), sum(t not in there for t in things), len(there & set(things)), len(there)))
    return pd.DataFrame(rows, index=judged.index, columns=["named", "invented", "recalled", "present"])


def _of(part: str, whole: str | None) -> Callable[[Parsed, pd.DataFrame, pd.DataFrame], list[float]]:
    """What a caption earns: 100 where `part` of its mentions is not zero, or its share of `whole`, 0 of nothing."""

    def earns(parsed: Parsed, rows: pd.DataFrame, _: pd.DataFrame) -> list[float]:
        found = mentions(rows.assign(parsed=parsed))
        return [100.0 * (p / w if w else 0) for p, w in zip(found[part], found[whole])] if whole else [100.0 * bool(p) for p in found[part]]

    return earns


def _ratio(part: str, whole: str) -> Callable[[pd.DataFrame], float | None]:
    def score(judged: pd.DataFrame) -> float | None:
        found = mentions(judged)[[part, whole]].sum()
        return float(100 * found[part] / found[whole]) if found[whole] else None

    return score


def _likeliest(rows: pd.DataFrame, vocabulary: Sequence[str]) -> list[str | None]:
    """The option that the model takes for the most likely, by the stored mean log-probabilities; the first of several as likely."""
    return [normalise(options[int(np.argmax(found))]) for options, found in zip(_weighed(rows), rows["likelihoods"], strict=True)]


def _weighed(rows: pd.DataFrame) -> list[Sequence[str]]:
    """What the likelihoods of each answer are of."""
    return [weighed(*one) for one in zip(rows["choices"], rows.get("options", rows["choices"]), rows["answers"], strict=True)]


def weighed(choices: Sequence[str] | None, options: Sequence[str] | None, answers: Sequence[str]) -> Sequence[str]:
    """Of an answer as it is stored: what the likelihoods beside it are of; nothing where the answer that is taught, the first, is not among it.

    A model that learned to say "B" finds the text of B unlikely: by the texts it would be punished for its form, which likelihoods are to leave out.
    """
    found = choices if options is None or not isinstance(options, Sequence | np.ndarray) or not len(options) else options
    return found if found is not None and normalise(answers[0]) in map(normalise, found) else ()


def _length(parsed: Parsed, rows: pd.DataFrame, whole: pd.DataFrame) -> list[float]:
    return [float(len((said or "").split())) for said in parsed]


def _unread(response: str, choices: tuple[str, ...], template: str) -> str | None:
    raise TypeError("this metric reads all answers together")


def _accuracy(judged: pd.DataFrame) -> float | None:
    return float(judged["value"].mean())


def right_to_affirm(judged: pd.DataFrame) -> np.ndarray:
    """Of questions of yes or no, to which yes is right; ValueError where an answer is neither."""
    numbers, accepted = pd.factorize(np.array([answers[0] for answers in judged["answers"]], dtype=object))  # few words, many times
    truth = np.array([normalise(answer) for answer in accepted], dtype=object)
    strange = sorted(set(truth) - set(YES_NO))
    if strange:
        raise ValueError(f"a yes/no metric on answers {', '.join(strange[:3])}: every answer must be yes or no")
    return (truth == "yes")[numbers]


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(100 * (part & whole).sum() / whole.sum()) if whole.any() else None


Shares = Callable[[np.ndarray, np.ndarray], float | None]
OF_YES: dict[str, Shares] = {  # of which answers say yes, and to which questions yes is right
    "precision": lambda said, true: _share(true, said),
    "recall": lambda said, true: _share(said, true),
    "f1": lambda said, true: float(200 * (said & true).sum() / (said.sum() + true.sum())) if said.any() or true.any() else None,
    "yes_rate": lambda said, true: float(100 * said.mean()),
}


def shares_of_yes(said: np.ndarray, true: np.ndarray, each: Sequence[np.ndarray], names: Iterable[str] = tuple(OF_YES)) -> dict[str, list[float | None]]:
    """Precision, recall, F1 and yes rate, or those of `names`, of each of several groups of answers, by their places: which answers say yes, and to which of the questions it is right."""
    return {name: [OF_YES[name](said[rows], true[rows]) for rows in each] for name in names}


def _said_and_true(judged: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return (judged["parsed"] == "yes").to_numpy(), right_to_affirm(judged)


def _of_yes(name: str) -> Callable[[pd.DataFrame], float | None]:
    return lambda judged: shares_of_yes(*_said_and_true(judged), [np.arange(len(judged))], [name])[name][0]


OBJECTS: dict[str, Any] = {"naming": True, "needs": "objects", "reads": _named}

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("exact", "Accuracy", "%", True, _exact, _accuracy),
        Metric("equal", "Accuracy (equal text)", "%", True, _equal, _accuracy, _identical),
        _people("vqa", "Soft accuracy", rules.line, rules.vqa_accuracy),
        _people("vqa_m4c", "Soft accuracy (TextVQA)", rules.m4c_answer, rules.m4c_accuracy),
        _people("vqa_vizwiz", "Soft accuracy (VizWiz)", rules.vizwiz_answer, rules.vizwiz_accuracy),
        Metric("cider", "CIDEr-D", "points", True, _caption, _accuracy, _cider, most=captions.MOST, relative=True),
        Metric("bleu_4", "BLEU-4", "%", True, _caption, _corpus_bleu, _bleu),
        Metric("rouge_l", "ROUGE-L", "%", True, _caption, _accuracy, _rouge),
        Metric("chair_s", "CHAIR-s", "%", False, _unread, _accuracy, _of("invented", None), **OBJECTS),
        Metric("chair_i", "CHAIR-i", "%", False, _unread, _ratio("invented", "named"), _of("invented", "named"), **OBJECTS),
        Metric("object_recall", "Objects named", "%", True, _unread, _ratio("recalled", "present"), _of("recalled", "present"), **OBJECTS),
        Metric("caption_words", "Words", "words", None, _caption, _accuracy, _length, most=None),
        Metric("likeliest", "Accuracy (likeliest choice)", "%", True, _unread, _accuracy, needs="likelihoods", reads=_likeliest),
        Metric("letter", "Accuracy (letter)", "%", True, _letter, _accuracy),
        Metric("letter_or_name", "Accuracy", "%", True, _letter_or_name, _accuracy),
        Metric("pope_official", "Accuracy (POPE)", "%", True, lambda response, *_: rules.pope_official(response), _accuracy),
        Metric("pope_lmms_eval", "Accuracy (lmms-eval)", "%", True, lambda response, *_: rules.pope_lmms_eval(response), _accuracy),
        Metric("pope_vlmevalkit", "Accuracy (VLMEvalKit)", "%", True, lambda response, *_: rules.pope_vlmevalkit(response), _accuracy),
        Metric("yes_no", "Accuracy", "%", True, _yes_no, _accuracy),
        Metric("precision", "Precision", "%", True, _yes_no, _of_yes("precision")),
        Metric("recall", "Recall", "%", True, _yes_no, _of_yes("recall")),
        Metric("f1", "F1", "%", True, _yes_no, _of_yes("f1")),
        Metric("yes_rate", "Yes rate", "%", None, _yes_no, _of_yes("yes_rate")),
    )
}

RELATIVE = tuple(m.name for m in METRICS.values() if m.relative)
NAMING = tuple(m.name for m in METRICS.values() if m.naming)
PREFERRING = tuple(m.name for m in METRICS.values() if m.needs == "likelihoods")  # they read which choice is the likeliest, all others what was said
CAPTIONED = ("chair_s", "chair_i", "object_recall", "caption_words")  # what is reported of captions of pictures whose things are known
PEOPLE = ("vqa", "vqa_m4c", "vqa_vizwiz")  # of several people's answers to each question
PROBE = ("yes_no", "precision", "recall", "f1", "yes_rate")  # what is reported of a yes/no probe; yes_no is its accuracy
POPE = (*PROBE, "pope_official", "pope_lmms_eval", "pope_vlmevalkit")  # with the three public rules
# By the metric of a data set, or by a probe: what is reported of its answers. They are judged by the first.
SHOWN: dict[str, tuple[str, ...]] = {name: (name, "likeliest") for name in ("exact", "letter", "letter_or_name")}
SHOWN |= {"exact": ("exact", "equal", "likeliest"), "yes_no": POPE, "presence": PROBE, "pope": POPE, "repope": POPE}
SHOWN |= {"cider": ("cider", "bleu_4", "rouge_l"), "scene_captions": CAPTIONED, "clean_captions": CAPTIONED}
BESIDE: dict[str, tuple[str, ...]] = {"coco_captions": CAPTIONED}  # by the data set: what is reported beside that, where its pictures' things are known


def shown(name: str, predictions: pd.DataFrame, *, dataset: str = "") -> tuple[str, ...]:
    """The metrics reported of answers whose data set has metric `name`, or which probe `name` got: those that `predictions` have the columns for.

    With `dataset`, those also that it has `BESIDE` them.
    """

    def there(column: str | None) -> bool:
        return column is None or (column in predictions and bool(predictions[column].notna().any()))

    return tuple(m for m in (*SHOWN.get(name, (name,)), *(BESIDE.get(dataset, ()) if there("objects") else ())) if there(metric(m).needs))


def metric(name: str) -> Metric:
    """The metric `name`; raises ValueError naming the choices."""
    if name not in METRICS:
        raise ValueError(f"metric is {name!r}; choose one of {', '.join(METRICS)} (lib/peftlab/metrics/__init__.py)")
    return METRICS[name]


def parse(response: str, choices: Iterable[str] = (), template: str = "", *, name: str = "exact") -> str | None:
    """What a response says, normalised, under metric `name`; None where it cannot be read."""
    return metric(name).parse(response, tuple(choices), template)


LACKING = " (of published captions COCO's have objects, where its annotations and CHAIR's list of synonyms were in data/hub when it was prepared: CONTRIBUTING.md)"


def judge(predictions: pd.DataFrame, name: str = "exact", *, whole: pd.DataFrame | None = None, vocabulary: Sequence[str] = ()) -> pd.DataFrame:
    """Predictions with `parsed` (str or None), `outcome` (right | wrong | unparsed) and `value` (in the metric's unit) per example.

    `whole` are the questions of the whole test set (`records.read_references`), for a metric of `RELATIVE` that is asked about a part of it;
    by default the predictions themselves; `vocabulary` the names of all things that its pictures can hold (`records.read_vocabulary`), for a metric
    that reads captions by them. Right is what earns anything, or nothing where less is better. Under ``exact`` a question whose accepted answers are yes or no is closed, as if these were its choices. Raises ValueError
    on no examples, on an example_id that occurs twice, and where a vocabulary is needed and none is given.
    """
    how = metric(name)
    if how.needs is not None:
        there = predictions[how.needs].notna() if how.needs in predictions else pd.Series(False, index=predictions.index)
        if how.name in PREFERRING:
            there &= np.array([len(options) > 0 for options in _weighed(predictions)], dtype=bool)
        whole, predictions = predictions if whole is None else whole, predictions[there]
    if predictions.empty:
        raise ValueError(f"{name} of no examples{f' with {how.needs}' if how.needs else ''}: there is nothing to judge{LACKING if how.naming else ''}")
    double = predictions["example_id"][predictions["example_id"].duplicated()]
    if len(double):
        raise ValueError(f"example_id {double.iloc[0]!r} occurs twice: judge one run on one data set at a time")
    whole = predictions if whole is None else whole
    if how.naming and not len(vocabulary):
        raise ValueError(
            f"{name} reads captions by the names of all things that the data set's pictures can hold, and there is no such vocabulary here: "
            "give records.read_vocabulary; a study collected before it was kept must be collected again"
        )
    parsed = how.reads(predictions, vocabulary) if how.reads else _read(predictions, how)
    values = how.earns(parsed, predictions, whole)
    good = how.higher_is_better is not False
    outcomes = ["unparsed" if said is None else "right" if bool(value) == good else "wrong" for said, value in zip(parsed, values, strict=True)]
    return predictions.assign(parsed=pd.Series(parsed, index=predictions.index, dtype=object), outcome=outcomes, value=values, metric=name)


def _read(predictions: pd.DataFrame, how: Metric) -> list[str | None]:
    """What every response says, by the metric; a question whose accepted answers are yes or no has these choices."""
    parsed = []
    for response, choices, answers, template in zip(*(predictions[c] for c in ("response", "choices", "answers", "template"))):
        closed = tuple(choices) or (YES_NO if {normalise(a) for a in answers} <= set(YES_NO) else ())
        parsed.append(how.parse(response, closed, template))
    return parsed


def score(predictions: pd.DataFrame, name: str = "exact", *, whole: pd.DataFrame | None = None, vocabulary: Sequence[str] = ()) -> dict[str, float | int | None]:
    """The value of metric `name` on predictions, with n and the number unparsed; judged here unless they are, by a metric that reads alike."""
    how, by = metric(name), METRICS.get(predictions["metric"].iloc[0]) if "metric" in predictions and len(predictions) else None
    same = by is not None and (by.parse, by.reads, by.earns, by.needs) == (how.parse, how.reads, how.earns, how.needs)
    judged = predictions if same else judge(predictions, name, whole=whole, vocabulary=vocabulary)
    return {"value": how.score(judged), "n": len(judged), "unparsed": int((judged["outcome"] == "unparsed").sum())}


def scores(judged: pd.DataFrame, each: Sequence[np.ndarray]) -> list[dict[str, float | int | None]]:
    """What `score` gives for each of several stages, whose answers are these rows of what one metric judged."""
    how, values, unparsed = metric(judged["metric"].iloc[0]), judged["value"].to_numpy(), (judged["outcome"] == "unparsed").to_numpy()
    kept = judged[[name for name in ("parsed", "outcome", "value", "answers", "objects") if name in judged]].astype({"outcome": object})
    if how.name in OF_YES:
        value: Iterable[float | None] = shares_of_yes(*_said_and_true(judged), each, [how.name])[how.name]
    else:
        value = (float(values[rows].mean()) if how.score is _accuracy else how.score(kept.iloc[rows].reset_index(drop=True)) for rows in each)  # a frame for each takes longer
    return [{"value": one, "n": len(rows), "unparsed": int(unparsed[rows].sum())} for one, rows in zip(value, each, strict=True)]
