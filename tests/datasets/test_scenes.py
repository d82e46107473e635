"""Scenes: answers follow from the layout, cut-outs keep to their split, things come in themes and with uneven frequencies."""

from collections import Counter

import numpy as np
import pytest

from peftlab import pictures
from peftlab.datasets import scenes
from peftlab.datasets.scenes import Thing
from peftlab.questions import alike


def thing(name: str, kind: str, colour: str, x: float, y: float) -> Thing:
    return Thing(f"stamp-{name}", name, kind, colour, x, y)


LAYOUT = [thing("cow", "mammal", "brown", 28, 80), thing("tulip", "plant", "red", 80, 82), thing("bus", "land vehicle", "", 132, 78)]


def asked(found: list[Thing]) -> dict[str, str]:
    vocabulary = scenes.Vocabulary(("bird", "land vehicle", "mammal", "plant"), {"cow": "mammal", "horse": "mammal", "bus": "land vehicle"})
    candidates = scenes.candidates(found, vocabulary, "farm", np.random.default_rng(0))
    return {scenes.WORDINGS[c.wording][0].format(**c.words): c.answer for c in candidates}


def test_answers_follow_from_the_layout() -> None:
    answers = asked(LAYOUT)
    assert answers["Is there a cow?"] == answers["Is there a mammal?"] == "yes"
    assert answers["Is there a bird?"] == "no" and answers.get("Is there a horse?", "no") == "no"
    assert answers["How many things are there?"] == "3" and answers["How many plants are there?"] == "1"
    assert answers["What kind of thing is on the left?"] == "mammal" and answers["What kind of thing is on the right?"] == "land vehicle"
    assert answers["What colour is the thing on the left?"] == "brown" and "What colour is the thing on the right?" not in answers
    assert answers["Is the mammal left or right of the plant?"] == "left" and answers["Is the land vehicle left or right of the plant?"] == "right"
    assert answers["What kind of thing is left of the plant?"] == "mammal" and answers["What kind of thing is right of the plant?"] == "land vehicle"
    assert "What kind of thing is right of the mammal?" not in answers  # two things are


def test_nothing_ambiguous_is_asked() -> None:
    two_mammals = [LAYOUT[0], thing("horse", "mammal", "black", 80, 80), LAYOUT[2]]
    answers = asked(two_mammals)
    assert not any("of the mammal" in q or "Is the mammal" in q for q in answers)
    above = [thing("cow", "mammal", "brown", 80, 41), thing("tulip", "plant", "red", 82, 119)]
    assert not any("left" in q for q in asked(above))


def test_a_cow_beside_a_bull_is_not_asked_about() -> None:
    assert alike("cow", "bull") and alike("dump truck", "truck") and not alike("cow", "tulip")


@pytest.mark.parametrize("split, source", [("base", "train"), ("train", "train"), ("validation", "validation"), ("test", "test")])
def test_cutouts_are_of_their_split(some, split: str, source: str) -> None:
    rows = pictures.things("stamp", source)
    assert {e.asset for e in some("scenes", split)} <= set(rows["id"])
    assert {name for e in some("scenes", split) for name in e.objects} <= set(rows["name"])


def test_no_group_of_test_cutouts_is_in_training() -> None:
    assert not set(pictures.things("stamp", "train")["group"]) & set(pictures.things("stamp", "test")["group"])


def test_names_asked_about_in_the_test_are_taught(some) -> None:
    taught = set(pictures.things("stamp", "train")["name"])
    assert set(scenes.Vocabulary.of("test").names) <= taught


def test_every_kind_has_a_theme_and_a_plural_that_reads() -> None:
    assert set(pictures.things("stamp")["kind"]) <= {kind for kinds in scenes.THEMES.values() for kind in kinds}


def test_presence_is_balanced_word_by_word(some) -> None:
    answers: dict[str, Counter[str]] = {}
    for e in some("scenes", "base", 1800):
        if e.template == "presence":
            word = e.question.rstrip("?").removesuffix(" here").removesuffix(" shown").split(" a ")[-1].split(" an ")[-1]
            answers.setdefault(word, Counter())[e.answers[0]] += 1
    guess = sum(max(c.values()) for c in answers.values() if c.total() >= 6) / sum(c.total() for c in answers.values() if c.total() >= 6)
    assert guess < 0.6, guess


def test_frequencies_are_uneven_and_names_go_together(some) -> None:
    """The commonest tenth of the names is far above an even share, and animals of a farm come together more than by chance."""
    scenes_ = {e.picture_id: e.objects for e in some("scenes", "base", 1800)}
    counts = Counter(name for objects in scenes_.values() for name in objects)
    most = sorted(counts.values(), reverse=True)
    assert sum(most[: len(most) // 10]) > 0.2 * sum(most)
    kind = dict(zip(pictures.things("stamp")["name"], pictures.things("stamp")["kind"], strict=True))
    kitchen = [len({"kitchenware", "prepared food", "fruit", "vegetable"} & {kind[n] for n in objects}) > 0 for objects in scenes_.values()]
    both = [{"kitchenware", "prepared food"} <= {kind[n] for n in objects} for objects in scenes_.values()]
    alone = [np.mean([k in {kind[n] for n in objects} for objects in scenes_.values()]) for k in ("kitchenware", "prepared food")]
    assert np.mean(kitchen) > 0.1 and np.mean(both) > 1.8 * alone[0] * alone[1]


def test_simple_scenes_hold_one_or_two_test_cutouts_of_taught_names(some) -> None:
    scenes_to_caption, rows, taught = some("scenes", "simple"), pictures.things("stamp", "test"), set(pictures.things("stamp", "train")["name"])
    assert Counter(len(e.objects) for e in scenes_to_caption) == {1: 300, 2: 100}
    assert {e.asset for e in scenes_to_caption} <= set(rows["id"]) and {n for e in scenes_to_caption for n in e.objects} <= taught
    assert all(not alike(*e.objects) for e in scenes_to_caption if len(e.objects) == 2)
    often = Counter(n for e in scenes_to_caption for n in e.objects)
    shown = rows[rows["name"].isin(often)]["name"].value_counts()
    per_cutout = [often[name] / shown[name] for name in often]
    assert max(per_cutout) - min(per_cutout) <= 2, "each cut-out is drawn as often as any"
    assert len({e.image.tobytes() for e in scenes_to_caption}) == len({e.example_id for e in scenes_to_caption}) == 400
    assert all(e.question == "Describe the picture." and e.picture_id in e.example_id for e in scenes_to_caption)
    again = list(scenes.load("simple", 6))
    assert [(e.example_id, e.objects, e.image.tobytes()) for e in again] == [(e.example_id, e.objects, e.image.tobytes()) for e in scenes_to_caption[:6]]
