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


def test_a_pool_of_one_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 different answers"):
        baselines.question_only(POOL[:1] * 3, POOL)
