"""Published rules against their own wording, restated here step by step, on awkward and random answers."""

import random
import re

import pandas as pd
import pytest

from peftlab import metrics
from peftlab.metrics import rules

WORDS = "a an the none one two ten yes no not No dont don't wont can't isnt 1,000 3.5 .5 3. o'clock cat, ?dog; it's its (red) \"blue\" [b] A/B x_y 5' & - the. an, Yes. NO".split()
GLUE = (" ", " ", " ", "", ", ", " , ", ". ", "\n", "\t", "; ", "'", " ' ")
AWKWARD = ["", " ", ".", "...", "the", "a", "None", "no.", "No, it is not.", "Yes", "yes and no", "not", "nothing", "1,000", "1, 000", "3.5", "it's 3.", "“quoted”", "two dogs", "the  cat\n\n", "x" * 300, "." * 40]


def texts(count: int) -> list[str]:
    """The awkward ones and random strings of words, marks and blanks."""
    draw = random.Random(0)
    return AWKWARD + ["".join(word + draw.choice(GLUE) for word in draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(count)]


MARKS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]


def official_marks(text: str, stops: str = r"(?!<=\d)(\.)(?!\d)") -> str:
    """The evaluation code of VQA at a013f00, its step for punctuation."""
    out = text
    for mark in MARKS:
        beside = mark + " " in text or " " + mark in text
        out = out.replace(mark, "") if beside or re.search(r"(\d)(,)(\d)", text) is not None else out.replace(mark, " ")
    return re.sub(stops, "", out, count=int(re.UNICODE))


def official_words(text: str, table: dict[str, str]) -> str:
    """Its steps for numbers, articles and contractions; of the latter a few, each as `table` has it."""
    digits = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
    kept = [digits.get(w, w) for w in text.lower().split()]
    return " ".join(table.get(w, w) for w in kept if w not in ["a", "an", "the"])


STRAIGHT = {"dont": "don't", "wont": "won't", "cant": "can't", "isnt": "isn't", "oclock": "o'clock", "hes": "he's", "hed've": "he'd've", "he'dve": "he'd've", "y'alld've": "y'all'd've", "somebody'd": "somebodyd", "couldn'tve": "couldn't've"}
CURLY = {"dont": "don’t", "wont": "won’t", "cant": "can't", "isnt": "isn’t", "oclock": "o’clock", "hes": "he’s", "hed’ve": "he’d’ve", "couldn'tve": "couldn’t’ve"}
MORE = ["Nokia", "nokia.", "cat-dog", "{red}", "hes", "hed've", "he'dve", "y'alld've", "somebody'd", "hed’ve", "couldn'tve", "STOP!", "12:30", "1,000?", "the dog's", "The None", "3. 5", "x" * 9]


def official_accuracy(answer: str, references: list[str]) -> float:
    """Its accuracy of one question, step by step: both sides are made alike where the references differ, and neither is where they agree."""
    given = [{"answer_id": i, "answer": r.replace("\n", " ").replace("\t", " ").strip()} for i, r in enumerate(references)]
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    if len({datum["answer"] for datum in given}) > 1:
        for datum in given:
            datum["answer"] = official_words(official_marks(datum["answer"]), STRAIGHT)
        answer = official_words(official_marks(answer), STRAIGHT)
    each = []
    for left in given:
        others = [datum for datum in given if datum != left]
        each.append(min(1, float(len([datum for datum in others if datum["answer"] == answer])) / 3))
    return 100 * sum(each) / len(each)


def test_vqa_is_the_evaluation_code_of_its_authors() -> None:
    draw, said, earned = random.Random(1), [*texts(400), *MORE, *(f"{a}{g}{b}" for a in MORE for b in MORE[:6] for g in (" ", "-", "! "))], list[float]()
    for text in said:
        made = official_words(official_marks(text.replace("\n", " ").replace("\t", " ").strip()), STRAIGHT)
        assert rules.vqa_answer(text) == made, repr(text)
        pool = [text, made, f" {text}\n", text.upper(), draw.choice(said), "cat"]
        for references in (draw.choices(pool, k=draw.choice((4, 10, 10))), [draw.choice(pool)] * 10, [text, f"{text}\t"] * 5):
            value = rules.vqa_accuracy(rules.line(text), references)
            assert value == pytest.approx(official_accuracy(text, references)), (text, references)
            earned.append(value)
    assert len(earned) > 1500 and len({round(v) for v in earned}) > 5, "hardly any answer earned anything: the comparison would show little"


@pytest.mark.parametrize(
    ("response", "references", "earned"),
    [
        ("two", ["two"] * 10, 100), ("don't know", ["don't know"] * 10, 100), ("on the table", [*["on the table"] * 9, "table"], 100), ("2", [*["two"] * 9, "2"], 100),
        ("t shirt", [*["t-shirt"] * 9, "shirt"], 100), ("stop!", [*["stop"] * 9, "stop sign"], 100), ("Yes", ["yes"] * 10, 0), ("yes.", ["yes"] * 10, 0), ("2", ["two"] * 10, 0),
        ("a", ["a"] * 10, 100), ("the", [*["a"] * 9, "cat"], 100), ("don’t", [*["don't"] * 9, "no"], 0), ("cat\n", [*["cat"] * 9, " cat"], 100), ("Cat", [*["cat"] * 9, " cat"], 0), ("1,000-ton", [*["1000ton"] * 9, "ton"], 100),
    ],
)  # fmt: skip
def test_vqa_by_definition(response: str, references: list[str], earned: float) -> None:
    """The two cases of ten alike and of ten that differ; the last answer loses its hyphen because it has a comma between digits."""
    rows = pd.DataFrame([{"example_id": "e", "template": "t", "response": response, "choices": [], "answers": references}])
    judged = metrics.judge(rows, "vqa").iloc[0]
    assert official_accuracy(response, references) == judged["value"] == pytest.approx(earned)
    assert (judged["parsed"], judged["outcome"]) == (response.strip(), "right" if earned else "wrong")


@pytest.mark.parametrize(("matching", "earned"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)])
def test_vqa_by_hand(matching: int, earned: float) -> None:
    """Of ten people so many said cat: leaving one of them out costs a third where fewer than three others did."""
    assert rules.vqa_accuracy("cat", ["cat"] * matching + ["dog"] * (10 - matching)) == pytest.approx(earned)


def test_few_references_are_refused() -> None:
    with pytest.raises(ValueError, match="soft accuracy of 1 reference answers: .* at least four; use exact"):
        rules.vqa_accuracy("cat", ["cat"])


def m4c(text: str) -> str:
    """The answer processor of TextVQA's evaluator, its four steps."""
    text = text.lower()
    text = text.replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return official_words(official_marks(text.replace("\n", " ").replace("\t", " ").strip()), STRAIGHT)


def left_out(answer: str, references: list[str]) -> float:
    each = [min(1, sum(other == answer for place, other in enumerate(references) if place != left) / 3) for left in range(len(references))]
    return 100 * sum(each) / len(each)


def test_textvqa_and_vizwiz_are_scored_as_their_own_evaluators_score() -> None:
    draw, earned = random.Random(2), dict[str, list[float]](m4c=[], vizwiz=[])
    said = [*texts(300), *MORE, *(f"{a}{g}{b}" for a in MORE for b in MORE[:6] for g in (" ", "-", "! "))]
    assert len(said) > 500
    for text in said:
        vizwiz = official_words(official_marks(text.replace("\n", " ").replace("\t", " ").strip()), CURLY)
        assert rules.m4c_answer(text) == m4c(text), repr(text)
        assert rules.vizwiz_answer(text) == vizwiz, repr(text)
        references = draw.choices([text, m4c(text), vizwiz, *draw.choices(said, k=9), "cat"], k=10)
        earned["m4c"].append(rules.m4c_accuracy(rules.m4c_answer(text), references))
        earned["vizwiz"].append(rules.vizwiz_accuracy(rules.vizwiz_answer(text), references))
        assert earned["m4c"][-1] == pytest.approx(left_out(m4c(text), [m4c(r) for r in references])), (text, references)
        assert earned["vizwiz"][-1] == pytest.approx(left_out(vizwiz, references)), (text, references)
    assert all({round(v) for v in values} == {0, 30, 60, 90, 100} for values in earned.values()), "hardly any answer earned anything"


@pytest.mark.parametrize(
    ("response", "reference", "vqa", "m4c", "vizwiz"),
    [
        ("Nokia", "Nokia", 100, 100, 0), ("nokia", "nokia", 100, 100, 100), ("the cat", "The cat", 0, 100, 0), ("stop!", "stop!", 100, 100, 0), ("on/off", "on/off", 100, 100, 0),
        ("dont", "don't", 0, 100, 0), ("dont", "don’t", 0, 0, 100), ("cant", "can't", 0, 100, 100), ("two", "2", 0, 100, 100), ("two", "two", 100, 100, 0), ("12:30", "12:30", 100, 100, 100),
    ],
)  # fmt: skip
def test_three_rules_of_soft_accuracy_by_hand(response: str, reference: str, vqa: int, m4c: int, vizwiz: int) -> None:
    rows = pd.DataFrame([{"example_id": "e", "template": "t", "response": response, "choices": [], "answers": [reference] * 10}])
    assert [metrics.score(rows, name)["value"] for name in metrics.PEOPLE] == [vqa, m4c, vizwiz]
    with pytest.raises(ValueError, match="at least four; use exact"):
        metrics.score(rows.assign(answers=[[reference]]), "vqa_m4c")


CHOICES = ("Peru", "Chile", "Brazil")


@pytest.mark.parametrize(
    ("response", "said", "tolerant"),
    [
        ("B", "chile", "chile"), ("B. Chile", "chile", "chile"), ("The answer is C.", "brazil", "brazil"), ("The answer is C", None, "brazil"),
        ("The answer is A. The answer is B.", None, None), ("D", None, None), ("b", None, "chile"), ("Chile", None, "chile"), ("It is Chile.", None, "chile"),
        ("Peru or Chile", None, None), ("B.Chile", None, "chile"), ("AB", None, None), ("", None, None),
    ],
)  # fmt: skip
def test_letters(response: str, said: str | None, tolerant: str | None) -> None:
    assert metrics.parse(response, CHOICES, name="letter") == said
    assert metrics.parse(response, CHOICES, name="letter_or_name") == tolerant


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("B.", "chile"), ("(B)", "chile"), ("B)", "chile"), ("b", "chile"), ("b.", "chile"), ("(b)", "chile"), ("[B]", "chile"), ("B: Chile", "chile"), ("B: it is long", "chile"),
        ("Answer: B", "chile"), ("answer:b", "chile"), ("Option B", "chile"), ("option b.", "chile"), ("The answer is B", "chile"), ("THE ANSWER IS B!", "chile"), ("The correct answer is: (B)", "chile"),
        ("The answer is B because it is long", "chile"), ("**B**", "chile"), ("'B'", "chile"), ('"B"', "chile"), (" B \n", "chile"), ("B\nNot A: it is long", "chile"), ("It is (B).", "chile"),
        ("B is correct", "chile"), ("A", "peru"), ("a", "peru"), ("a)", "peru"), ("Answer: A", "peru"), ("A is the answer", "peru"), ("My choice is C", "brazil"), ("Letter C", "brazil"),
        ("Chile", "chile"), ("The answer is Chile", "chile"), ("Answer: a Chile", "chile"), ("B) Chile, not Peru", "chile"), ("B: Chile", "chile"),
        ("A or B", None), ("A, B", None), ("A/B", None), ("The answer is A or B", None), ("Options A and C", None), ("(A) (B)", None), ("B: Peru", None), ("Answer: D", None), ("(D)", None), ("E", None),
        ("The answer is not B", None), ("not (B)", None), ("It isn't B", None), ("Answer: a long one", None), ("a fox", None), ("I think so", None), ("B-side", None), ("a.m.", None), ("plural(s)", None), ("answer(s)", None),
        ("vitamin B", None), ("The answer", None), ("Answer:", None), ("b or not b", None), ("Bb", None), ("()", None), ("Answer: B, not A", None), ("🦊 B", None),
    ],
)  # fmt: skip
def test_the_only_letter_named_is_read(response: str, said: str | None) -> None:
    assert metrics.parse(response, CHOICES, name="letter_or_name") == said


@pytest.mark.parametrize(
    ("response", "choices", "said"),
    [("b", ("b", "a"), "b"), ("A", ("B", "A"), "b"), ("Vitamin C", ("Vitamin B", "Vitamin C"), "vitamin c"), ("B) Vitamin C", ("Vitamin B", "Vitamin C"), "vitamin c"), ("a.m.", ("p.m", "a.m"), "a.m"), ("J", tuple("klmnopqrst"), "t")],
)
def test_names_that_look_like_letters(response: str, choices: tuple[str, ...], said: str) -> None:
    assert metrics.parse(response, choices, name="letter_or_name") == said


POPE = {  # response: the authors' code, lmms-eval, VLMEvalKit, ours
    "Yes": ("yes", "yes", "yes", "yes"),
    "Yes.": ("yes", None, "yes", "yes"),
    "no": ("no", "no", "no", "no"),
    "No, there is not.": ("no", None, "no", "no"),
    "": ("yes", None, None, None),
    "There is a dog.": ("yes", None, None, None),
    "There is not a dog.": ("no", None, None, None),
    "NO": ("yes", "no", "no", "no"),
    "Yes. There is no dog.": ("yes", None, None, None),
    "yes, not no": ("no", None, None, None),
    "No!": ("yes", None, "no", "no"),
    "Yes!": ("yes", None, "yes", "yes"),
    "{no}": ("yes", None, "no", "no"),
    "yes:": ("yes", None, None, "yes"),
    "I see nothing": ("yes", None, None, None),
    "There isn't": ("yes", None, None, None),
}


@pytest.mark.parametrize("response", POPE)
def test_three_rules_of_pope_and_ours_disagree_as_they_do(response: str) -> None:
    names = ("pope_official", "pope_lmms_eval", "pope_vlmevalkit", "yes_no")
    assert tuple(metrics.parse(response, name=name) for name in names) == POPE[response]


def pope_by_its_authors(text: str) -> str:
    """The steps of POPE's evaluate.py."""
    if text.find(".") != -1:
        text = text.split(".")[0]
    words = text.replace(",", "").split(" ")
    return "no" if "No" in words or "not" in words or "no" in words else "yes"


def pope_by_vlmevalkit(text: str) -> str | None:
    """The steps of its extraction of yes or no."""
    words = official_marks(text.lower(), r"(?<!\d)\.(?!\d)").split()
    if "yes" in words and "no" not in words:
        return "yes"
    return "no" if "yes" not in words and "no" in words else None


def test_popes_own_rule_on_many() -> None:
    draw = random.Random(3)
    said = texts(400) + [t + draw.choice(("No!", "Yes!", "{no}", "yes:", "no.1", " -yes-", "no", "YES")) for t in texts(200)]
    assert [rules.pope_vlmevalkit(t) for t in said] == [pope_by_vlmevalkit(t) for t in said]
    assert {rules.pope_vlmevalkit(t) for t in said} == {"yes", "no", None}
    whole = {"yes": "yes", "no": "no"}
    assert [rules.pope_lmms_eval(t) for t in [*said, " YES\n", "No"]] == [whole.get(t.lower().strip()) for t in [*said, " YES\n", "No"]]
    assert [rules.pope_official(t) for t in said] == [pope_by_its_authors(t) for t in said]
    assert {rules.pope_official(t) for t in said} == {"yes", "no"}


def test_soft_values_are_kept() -> None:
    rows = pd.DataFrame([{"example_id": f"e{i}", "template": "t", "response": r, "choices": [], "answers": ["cat"] * 2 + ["dog"] * 8} for i, r in enumerate(("A cat.", "dog", "bird", " "))])
    judged = metrics.judge(rows, "vqa")
    assert judged["value"].tolist() == pytest.approx([60, 100, 0, 0])
    assert judged["outcome"].tolist() == ["right", "right", "wrong", "unparsed"]
    assert metrics.score(rows, "vqa") == {"value": pytest.approx(40), "n": 4, "unparsed": 1}
