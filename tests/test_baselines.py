"""Answers from the question alone."""

import pytest
from PIL import Image

from peftlab import baselines, records
from peftlab.records import Example

POOL = [
    Example(str(i), str(i), Image.new("RGB", (1, 1)), question, (answer,), "t", 0, "a")
    for i, (question, answer) in enumerate([("Is it a cat?", "yes"), ("How many are there?", "two"), ("What colour is it?", "red")] * 10)
]


def test_what_the_words_give_away_is_found() -> None:
    assert baselines.question_only(POOL, POOL[:3]) == ["yes", "two", "red"]
    assert baselines.question_only(POOL, POOL[:3], seed=1) == baselines.question_only(POOL, POOL[:3], seed=1)


def test_only_the_most_frequent_answers_are_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST", 2)
    assert baselines.question_only([*POOL, *POOL[:2] * 5], POOL[2:3]) != ["red"] and baselines.question_only([*POOL, *POOL[2:3]], POOL[2:3]) == ["red"]


def test_the_most_frequent_answer_is_that_of_the_kind_of_question() -> None:
    pool = [records.Words("a", "Q?", answers, template) for template, answers in (("kind", ("dog", "hound")), ("kind", ("hound",)), ("count", ("two",)), ("count", ("two",)), ("count", ("two", "hound")))]
    asked = [records.Words("b", "Q?", ("cow",), template) for template in ("kind", "count", "not taught")]
    assert baselines.most_frequent(pool, asked) == ["hound", "two", "hound"], "all that is accepted counts; of as many the first in the alphabet; of what was not taught that of all"
    assert baselines.most_frequent(pool[::-1], asked) == baselines.most_frequent(pool, asked)
    with pytest.raises(ValueError, match="no question"):
        baselines.most_frequent([], asked)
    assert baselines.most_frequent([*pool, records.Words("a", "Q?", ("Two", "Six", "six"), "count")] * 2, asked[1:2]) == ["two"], "upper and lower case are one"


def test_where_choices_are_offered_one_of_them_is_guessed() -> None:
    taught = {("pet", "dog"): 2, ("tool", "saw"): 3, ("fruit", "fig"): 1}
    pool = [records.Words("a", f"Which {kind}?", (answer,), "which") for (kind, answer), times in taught.items() for _ in range(times)]
    offered = {("saw", "Dog"): ("saw", "Dog"), ("cow", "Fig"): ("Fig", "Fig"), ("cow", "pig"): ("cow", "cow"), (): ("saw", "dog")}  # by count, by question
    asked = [records.Words("b", "Which pet?", ("cow",), "which", choices) for choices in offered]
    assert baselines.most_frequent(pool, asked) == [frequent for frequent, _ in offered.values()]
    assert baselines.question_only(pool, asked) == [likely for _, likely in offered.values()]
    two = [one for one in pool if one.answers != ("fig",)]
    assert baselines.question_only(two, [records.Words("b", f"Which {kind}?", ("x",), "which", ("dog", "saw")) for kind in ("pet", "tool")]) == ["dog", "saw"], "also where there are two classes"


def test_a_pool_of_one_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 different answers"):
        baselines.question_only(POOL[:1] * 3, POOL)
