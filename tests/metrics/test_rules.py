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


def official_marks(text: str) -> str:
    """The evaluation code of VQA v2, its step for punctuation."""
    out = text
    for mark in [";", ":", "/", "'", "[", "]", '"', "(", ")", "=", "+", "\\", "_", ">", "<", "@", "`", ",", "?"]:
        if (mark + " " in text or " " + mark in text) or (re.search(re.compile(r"(\d)(\,)(\d)"), text) is not None):
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    return re.compile(r"(?!<=\d)(\.)(?!\d)").sub("", out, int(re.UNICODE))


def official_answer(text: str) -> str:
    """Its steps for numbers, articles and contractions; of the latter a few, each as its table has it."""
    text = official_marks(text.replace("\n", " ").replace("\t", " ").strip())
    numbers = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
    table = {"dont": "don't", "wont": "won't", "cant": "can't", "isnt": "isn't", "oclock": "o'clock", "hes": "he's", "youre": "you're", "twas": "'twas"}
    kept = [w for w in (numbers.get(w, w) for w in text.lower().split()) if w not in ("a", "an", "the")]
    return " ".join(table.get(w, w) for w in kept)


def official_accuracy(answer: str, references: list[str]) -> float:
    """Its leave-one-out mean, reference by reference."""
    if len(set(references)) > 1:
        references = [official_marks(r) for r in references]
    each = []
    for left in range(len(references)):
        others = [r for i, r in enumerate(references) if i != left]
        each.append(min(1, float(len([r for r in others if r == answer])) / 3))
    return 100 * sum(each) / len(each)


def test_vqa_is_the_evaluation_code_of_vqa_v2() -> None:
    draw, said = random.Random(1), texts(400)
    for text in said:
        assert rules.vqa_marks(text) == official_marks(text), repr(text)
        assert rules.vqa_answer(text) == official_answer(text), repr(text)
    earned = []
    for text in said:
        pool = [text, official_answer(text), draw.choice(said), "cat"]
        references = draw.choices(pool, k=draw.choice((4, 10, 10)))
        value = rules.vqa_accuracy(rules.vqa_answer(text), references)
        assert value == pytest.approx(official_accuracy(official_answer(text), references)), (text, references)
        earned.append(value)
    assert len({round(v) for v in earned}) > 5, "hardly any answer earned anything: the comparison would show little"


@pytest.mark.parametrize(("matching", "earned"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)])
def test_vqa_by_hand(matching: int, earned: float) -> None:
    """Of ten people so many said cat: leaving one of them out costs a third where fewer than three others did."""
    assert rules.vqa_accuracy("cat", ["cat"] * matching + ["dog"] * (10 - matching)) == pytest.approx(earned)


def test_references_keep_their_articles_but_lose_their_marks_where_they_differ() -> None:
    assert rules.vqa_accuracy(rules.vqa_answer("The U.S.A."), ["usa"] * 10) == 100
    assert rules.vqa_accuracy("cat", ["the cat"] * 10) == 0
    assert rules.vqa_accuracy("no smoking", ["no smoking?"] * 10) == 0
    assert rules.vqa_accuracy("no smoking", ["no-smoking", *["no smoking? "] * 9]) == 0
    assert rules.vqa_accuracy("stop go", ["stop", *["stop/go"] * 9]) == 100


def test_few_references_are_refused() -> None:
    with pytest.raises(ValueError, match="soft accuracy of 1 reference answers: .* at least four; use exact"):
        rules.vqa_accuracy("cat", ["cat"])


CHOICES = ("Peru", "Chile", "Brazil")


@pytest.mark.parametrize(
    ("response", "said", "tolerant"),
    [
        ("B", "chile", "chile"), ("B. Chile", "chile", "chile"), ("The answer is C.", "brazil", "brazil"), ("The answer is C", None, None),
        ("The answer is A. The answer is B.", None, None), ("D", None, None), ("b", None, None), ("Chile", None, "chile"), ("It is Chile.", None, "chile"),
        ("Peru or Chile", None, None), ("B.Chile", None, "chile"), ("AB", None, None), ("", None, None),
    ],
)  # fmt: skip
def test_letters(response: str, said: str | None, tolerant: str | None) -> None:
    assert metrics.parse(response, CHOICES, name="letter") == said
    assert metrics.parse(response, CHOICES, name="letter_or_name") == tolerant


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


def test_popes_own_rule_on_many() -> None:
    said = texts(400)
    assert [rules.pope_official(t) for t in said] == [pope_by_its_authors(t) for t in said]
    assert {rules.pope_official(t) for t in said} == {"yes", "no"}


def test_soft_values_are_kept() -> None:
    rows = pd.DataFrame([{"example_id": f"e{i}", "template": "t", "response": r, "choices": [], "answers": ["cat"] * 2 + ["dog"] * 8} for i, r in enumerate(("A cat.", "dog", "bird", " "))])
    judged = metrics.judge(rows, "vqa")
    assert judged["value"].tolist() == pytest.approx([60, 100, 0, 0])
    assert judged["outcome"].tolist() == ["right", "right", "wrong", "unparsed"]
    assert metrics.score(rows, "vqa") == {"value": pytest.approx(40), "n": 4, "unparsed": 1}
