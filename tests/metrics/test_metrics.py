"""Scorers on awkward strings: three outcomes, order-free, loud on nothing and on doubles."""

import numpy as np
import pandas as pd
import pytest

from peftlab import metrics


def frame(*rows: tuple[str, list[str], list[str]]) -> pd.DataFrame:
    """Predictions of (response, choices, answers)."""
    return pd.DataFrame(
        [{"example_id": f"e{i}", "template": "t", "response": r, "choices": c, "answers": a} for i, (r, c, a) in enumerate(rows)]
    )


@pytest.mark.parametrize(
    ("response", "choices", "expected"),
    [
        ("Yes.", ("yes", "no"), "yes"),
        ("no, there isn't", ("yes", "no"), "no"),
        ("NO", ("yes", "no"), "no"),
        ("yes and no", ("yes", "no"), None),
        ("nothing", ("yes", "no"), None),
        ("", ("yes", "no"), None),
        ("  \n ", (), None),
        ("...", (), None),
        ("🦊", (), "🦊"),
        ("🦊!", ("🦊", "🐈"), "🦊"),
        ("🦊 or 🐈", ("🦊", "🐈"), None),
        ("A) cat", ("cat", "dog"), "cat"),
        ("a) cat b) dog", ("cat", "dog"), None),
        ("The cat.", (), "cat"),
        ("The cat.\nBecause it has ears.", (), "cat"),
        ("black cat", ("cat", "black cat"), "black cat"),
        ("it is a black cat", ("cat", "black cat"), "black cat"),
        ("cat, not the black cat", ("cat", "black cat"), None),
        ("concatenate", ("cat", "dog"), None),
        ("1.5", ("1", "2"), None), ("12.5", ("5", "3"), None), ("-5", ("5", "3"), None), ("−5", ("5", "3"), None), ("1,000", ("1", "2"), None), ("3:05", ("3", "5"), None), ("1/2", ("2", "3"), None),
        ("The answer is 5.", ("5", "3"), "5"), ("answer:5", ("5", "3"), "5"), ("5, I think", ("5", "3"), "5"), ("it is 1.5.", ("1.5", "5"), "1.5"), ("row 2, place 3", ("2", "3"), None), ("- 5", ("5", "3"), "5"),
        ("A", ("A", "B"), "a"),
        ("[b]", ("a", "[b]"), "[b]"),
        ("3", ("13", "3"), "3"),
        ("13", ("1", "3"), None),
        ("cat cat", ("cat", "dog"), "cat"),
    ],
)
def test_parse(response: str, choices: tuple[str, ...], expected: str | None) -> None:
    assert metrics.parse(response, choices) == expected


def test_three_outcomes() -> None:
    judged = metrics.judge(frame(("The cat.", [], ["cat", "feline"]), ("dog", [], ["cat"]), ("", [], ["cat"]), ("both cat and dog", ["cat", "dog"], ["cat"])))
    assert judged["outcome"].tolist() == ["right", "wrong", "unparsed", "unparsed"]
    assert judged["value"].tolist() == [100.0, 0.0, 0.0, 0.0]
    assert judged["parsed"].tolist()[:3] == ["cat", "dog", None]


@pytest.mark.parametrize(
    ("response", "exact", "equal"),
    [
        ("The cat.", "right", "wrong"), ("cat", "right", "right"), (" Cat\n", "right", "right"), ("CAT", "right", "right"), ("cat.", "right", "wrong"), ("a cat", "right", "wrong"),
        ("cat\nbecause", "right", "wrong"), ("black  cat", "wrong", "wrong"), ("feline", "right", "right"), ("", "unparsed", "unparsed"), (" \n", "unparsed", "unparsed"), ("...", "unparsed", "wrong"),
    ],
)  # fmt: skip
def test_equal_forgives_nothing_but_case_and_blanks_around(response: str, exact: str, equal: str) -> None:
    rows = frame((response, [], ["Cat", "feline"]))
    assert [metrics.judge(rows, name)["outcome"].item() for name in ("exact", "equal")] == [exact, equal]


def test_equal_reads_no_choice_out_of_an_answer() -> None:
    rows = frame(("It is the cat", ["cat", "dog"], ["cat"]), ("cat", ["cat", "dog"], ["cat"]), ("Yes.", [], ["yes"]))
    assert metrics.judge(rows, "exact")["outcome"].tolist() == ["right"] * 3
    assert metrics.judge(rows, "equal")["outcome"].tolist() == ["wrong", "right", "wrong"]


def test_yes_no_questions_are_closed_under_exact() -> None:
    judged = metrics.judge(frame(("No, there isn't.", [], ["no"]), ("Yes.", [], ["no"]), ("maybe", [], ["no"])))
    assert judged["outcome"].tolist() == ["right", "wrong", "unparsed"]


def test_yes_no_metrics() -> None:
    rows = frame(("yes", [], ["yes"]), ("yes", [], ["no"]), ("no", [], ["no"]), ("", [], ["yes"]))
    expected = {"yes_no": 50.0, "precision": 50.0, "recall": 50.0, "f1": 50.0, "yes_rate": 50.0}
    assert {name: metrics.score(rows, name)["value"] for name in metrics.PROBE} == expected
    assert metrics.score(rows, "yes_no") == {"value": 50.0, "n": 4, "unparsed": 1}


def test_a_probe_with_public_rules_shows_all_three_beside_ours() -> None:
    rules = ("pope_official", "pope_lmms_eval", "pope_vlmevalkit")
    rows = frame(("Yes.", [], ["yes"]), ("NO!", [], ["no"]), ("", [], ["yes"]), ("no", [], ["yes"]))
    for name in ("pope", "repope", "yes_no"):
        assert metrics.shown(name, rows) == (*metrics.PROBE, *rules)
    assert metrics.shown("presence", rows) == metrics.PROBE
    found = {name: metrics.score(rows, name) for name in metrics.shown("repope", rows)}
    assert {name: one["value"] for name, one in found.items()} == {
        "yes_no": 50, "precision": 100, "recall": pytest.approx(100 / 3), "f1": 50, "yes_rate": 25, "pope_official": 50, "pope_lmms_eval": 0, "pope_vlmevalkit": 50
    }  # fmt: skip
    assert [found[name]["unparsed"] for name in ("yes_no", *rules)] == [1, 0, 3, 1]


def test_precision_of_no_yes_is_undefined_not_zero() -> None:
    assert metrics.score(frame(("no", [], ["yes"])), "precision")["value"] is None
    with pytest.raises(ValueError, match="yes or no"):
        metrics.score(frame(("no", [], ["cat"])), "recall")


def test_shuffled_rows_score_the_same() -> None:
    rows = frame(("yes", [], ["yes"]), ("yes", [], ["no"]), ("no", [], ["no"]), ("", [], ["yes"]), ("no", [], ["no"]))
    shuffled = rows.sample(frac=1, random_state=3)
    for name in metrics.PROBE:
        assert metrics.score(rows, name) == metrics.score(shuffled, name)
    back = metrics.judge(shuffled).sort_values("example_id").reset_index(drop=True)
    pd.testing.assert_frame_equal(back, metrics.judge(rows))


def test_nothing_and_doubles_raise() -> None:
    with pytest.raises(ValueError, match="no examples"):
        metrics.score(frame().reindex(columns=["example_id", "response", "choices", "answers", "template"]))
    with pytest.raises(ValueError, match="'e0' occurs twice"):
        metrics.judge(pd.concat([frame(("yes", [], ["yes"]))] * 2))
    with pytest.raises(ValueError, match="choose one of exact"):
        metrics.score(frame(("yes", [], ["yes"])), "bleu")


def test_every_metric_says_its_unit_and_direction() -> None:
    units = {"cider": "points", "caption_words": "words"}
    assert all(name == m.name and m.unit == units.get(name, "%") and m.label for name, m in metrics.METRICS.items())
    assert all(m.is_share == (m.unit == "%") for m in metrics.METRICS.values())
    assert metrics.METRICS["yes_rate"].higher_is_better is None


def test_the_likeliest_choice_is_another_metric_beside_what_was_said() -> None:
    rows = frame(("hard to say", ["cat", "The dog."], ["dog"]), ("dog", ["cat", "dog"], ["dog"]), ("cat", [], ["cat"]))
    assert metrics.shown("exact", rows) == ("exact", "equal")
    rows["likelihoods"] = pd.Series([[-2.0, -1.0], [-0.5, -0.7], None], dtype=object)
    assert metrics.shown("exact", rows) == ("exact", "equal", "likeliest") and metrics.shown("vqa", rows) == ("vqa",)
    judged = metrics.judge(rows, "likeliest")
    assert judged["parsed"].tolist() == ["dog", "cat"] and judged["outcome"].tolist() == ["right", "wrong"]
    assert metrics.score(metrics.judge(rows), "likeliest") == {"value": 50.0, "n": 2, "unparsed": 0}
    assert metrics.score(rows, "exact")["value"] == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match="no examples with likelihoods"):
        metrics.judge(rows[2:], "likeliest")
    rows["options"] = pd.Series([None, None, ["bat", "a cat"]], dtype=object)
    rows["likelihoods"] = pd.Series([[-2.0, -1.0], None, [-0.9, -0.3]], dtype=object)
    judged = metrics.judge(rows, "likeliest")
    assert judged["parsed"].tolist() == ["dog", "cat"] and judged["outcome"].tolist() == ["right", "right"]


def test_likelihoods_count_only_where_the_answer_that_is_taught_was_weighed() -> None:
    """A model that says letters finds the texts unlikely, whichever it means."""
    rows = frame(("A", ["cat", "dog"], ["A", "cat"]), ("dog", ["cat", "dog"], ["dog"]), ("B", ["cat", "dog"], ["B", "dog"]))
    rows["likelihoods"] = pd.Series([[-9.0, -8.0], [-2.0, -1.0], [-9.0, -0.1]], dtype=object)
    rows["options"] = pd.Series([None, None, ["A", "B"]], dtype=object)
    judged = metrics.judge(rows, "likeliest")
    assert judged.index.tolist() == [1, 2] and judged["parsed"].tolist() == ["dog", "b"] and judged["outcome"].tolist() == ["right", "right"]
    with pytest.raises(ValueError, match="no examples with likelihoods"):
        metrics.judge(rows[:1], "likeliest")


@pytest.mark.parametrize("name", metrics.METRICS)
def test_scores_of_several_stages_are_those_of_each(name: str) -> None:
    said = ["yes", "no", "Yes, a cat.", "a dog and a cat", "", "B", "no", "yes"]
    rows = pd.DataFrame({"example_id": range(8), "response": said, "choices": [["yes", "no"]] * 8, "answers": [["yes"] * 4, ["no"] * 4] * 4, "template": "t"})
    rows = rows.assign(objects=[["cat"]] * 8, likelihoods=[[-0.1, -0.3], [-0.2, -0.1]] * 4)
    stages = [np.array([0, 3, 1]), np.array([4]), np.array([2, 7, 6, 5, 1])]
    whole = {"whole": rows, "vocabulary": ("cat", "dog")}
    assert metrics.scores(metrics.judge(rows, name, **whole), stages) == [metrics.score(rows.iloc[stage], name, **whole) for stage in stages]
