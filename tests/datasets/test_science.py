"""Science: letters that say nothing, answers that can be read off the pixels and the tables, maps, cut-outs and pairs held out."""

import re
from collections import Counter

import numpy as np
import pytest

from peftlab import datasets, knowledge, maps, metrics, pictures, records
from peftlab.datasets import science
from peftlab.records import Example

KIND = dict(zip(pictures.things("stamp")["id"], pictures.things("stamp")["kind"], strict=True))
NAME = dict(zip(pictures.things("stamp")["id"], pictures.things("stamp")["name"], strict=True))
FACTS = {(r.name, r.attribute): r.value for r in pictures.table("facts").itertuples(index=False)}
ON_MAPS = ("place", "region", "border", "direction")
COLOURS = {"red": (214, 48, 49), "blue": (45, 105, 210), "green": (46, 160, 67), "yellow": (250, 214, 60), "purple": (142, 68, 173), "orange": (240, 140, 30)}
STEPS = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}


def right(e: Example) -> str:
    """The text of the option that is the answer."""
    return e.choices["ABCDE".index(e.answers[0])]


def of(some, template: str) -> list[Example]:
    found = [e for split in ("train", "test") for e in some("science", split) if e.template == template]
    assert len(found) >= 50
    return found


def middle(e: Example, colour: str) -> tuple[float, float]:
    """Where a colour is in the picture: x to the right, y down."""
    ys, xs = np.nonzero((np.asarray(e.image) == COLOURS[colour]).all(-1))
    return float(xs.mean()), float(ys.mean())


def gap(e: Example, one: str, other: str) -> int:
    """The least distance between two colours of a picture, in pixels along the farther axis."""
    first, second = (np.argwhere((np.asarray(e.image) == COLOURS[c]).all(-1)) for c in (one, other))
    return int(min(np.abs(second - point).max(1).min() for point in first))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_letter_is_the_place_of_the_answer(some, split: str) -> None:
    for e in some("science", split):
        assert e.answers == (e.answers[0], right(e)) and 3 <= len(e.choices) <= 4
        listed = " ".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", e.choices))
        assert e.question.endswith(" " + listed)
        assert re.match(r"[A-Z].*\. [A-Z]", e.question), "a context comes first"


@pytest.mark.parametrize("split", ["train", "test"])
def test_letters_are_balanced(some, split: str) -> None:
    for template in science.SHARES:
        for number in (3, 4):
            counts = Counter(e.answers[0] for e in some("science", split) if e.template == template and len(e.choices) == number)
            assert not counts or max(counts.values()) <= (1 / number + 0.02) * counts.total() + 1, (template, counts)


def test_letter_and_name_are_accepted(some) -> None:
    asked = some("science", "test")[:40]
    rule = datasets.card("science").metric
    for responses in ([e.answers[0] for e in asked], [f"{e.answers[0]}. {right(e)}" for e in asked], [right(e) for e in asked]):
        assert (metrics.judge(records.predictions(asked, responses), rule)["outcome"] == "right").all()
    wrong = [next(letter for letter in "ABC" if letter != e.answers[0]) for e in asked]
    assert (metrics.judge(records.predictions(asked, wrong), rule)["outcome"] == "wrong").all()


def test_the_red_region_is_where_the_answer_says(some) -> None:
    """From the pixels: between the country's outermost pixels, the region is farther on that side than on any other."""
    for e in of(some, "place"):
        x, y = middle(e, "red")
        ys, xs = np.nonzero((np.asarray(e.image) != maps.SEA).any(-1))
        across, down = (2 * x - xs.max() - xs.min()) / (xs.max() - xs.min()), (2 * y - ys.max() - ys.min()) / (ys.max() - ys.min())
        along = {heading: across * right + down * low for heading, (right, low) in STEPS.items()}
        assert max(along, key=along.get) == right(e) and along[right(e)] > 0.3, (e.question, along)


def test_the_context_tells_which_region_is_red(some) -> None:
    for e in of(some, "region"):
        told = dict(re.findall(r"(?:^|, )([^,]+?) lies in the (\w+)", e.question))
        assert set(told) == set(e.choices) and len(set(told.values())) == len(told)
        x, y = middle(e, "red")
        ys, xs = np.nonzero((np.asarray(e.image) != maps.SEA).any(-1))
        across, down = (2 * x - xs.max() - xs.min()) / (xs.max() - xs.min()), (2 * y - ys.max() - ys.min()) / (ys.max() - ys.min())
        along = {heading: across * STEPS[heading][0] + down * STEPS[heading][1] for heading in told.values()}
        assert max(along, key=along.get) == told[right(e)], (e.question, along)
        assert e.asset.endswith("/" + right(e))


def test_only_the_answer_borders_the_region(some) -> None:
    for e in of(some, "border")[::3]:
        (colour,) = re.findall(r"\b(" + "|".join(COLOURS) + r")\b", e.question.partition(" A. ")[0])
        gaps = {choice: gap(e, colour, choice) for choice in e.choices}
        assert gaps.pop(right(e)) <= 2 and min(gaps.values()) > 3, (e.question, gaps)


def test_only_the_answer_lies_in_the_direction(some) -> None:
    for e in of(some, "direction"):
        question = e.question.partition(" A. ")[0].partition("map. ")[2]
        (colour,), (heading,) = (re.findall(r"\b(" + "|".join(words) + r")\b", question) for words in (COLOURS, STEPS))
        x, y = middle(e, colour)
        for choice in e.choices:
            there = middle(e, choice)
            along = (there[0] - x) * STEPS[heading][0] + (there[1] - y) * STEPS[heading][1]
            aside = abs((there[0] - x) * STEPS[heading][1]) + abs((there[1] - y) * STEPS[heading][0])
            assert (along > 10 and along > 1.5 * aside) == (choice == right(e)), (e.question, choice)


def test_groups_diets_traits_and_names_are_the_packs(some) -> None:
    plural = {"mammals": "mammal", "birds": "bird", "fish": "fish", "insects": "insect"}
    for e in of(some, "group"):
        assert KIND[e.asset] == plural[right(e)]
    meals = {"herbivore": "plants", "carnivore": "meat", "omnivore": "both"}
    for e in of(some, "diet"):
        assert FACTS[NAME[e.asset], "eats"] == meals[right(e)] and e.objects == (NAME[e.asset],)
    for e in of(some, "thing"):
        assert right(e) == NAME[e.asset] == e.objects[0]
        kinds = {kind for id, kind in KIND.items() if NAME[id] in e.choices}
        assert len(kinds) == 1, (e.choices, kinds)
    ends = {trait: key for key, (_, trait) in science.TRAITS.items()}
    for e in of(some, "trait"):
        attribute, value = next(key for trait, key in ends.items() if trait in e.question)
        place = ("left", "middle", "right").index(right(e))
        assert e.objects[place] == NAME[e.asset]
        assert [FACTS[name, attribute] == value for name in e.objects] == [i == place for i in range(3)], (e.question, e.objects)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_maps_and_cutouts_are_of_their_split(some, split: str) -> None:
    own, charts = set(pictures.things("stamp", split)["id"]), set(pictures.things("map", split)["id"])
    for e in some("science", split):
        assert (e.asset.partition("/")[0] in charts) if e.template in ON_MAPS else (e.asset in own), e.asset


def test_no_map_is_of_two_splits() -> None:
    names = {split: {chart.name for chart in maps.charts(split)} for split in ("train", "validation", "test")}
    assert len(names["test"]) >= 12 and not names["train"] & (names["test"] | names["validation"]) and not names["test"] & names["validation"]


def test_a_pair_of_the_test_is_taught_by_no_training_question() -> None:
    """Neither here nor in the facts that the base has seen."""
    taught = {(n, a) for n, values in knowledge.pairs("train").items() for a in values}
    mine = {split: {(n, a) for n, values in science.known(split).items() for a in values} for split in ("train", "validation", "test")}
    assert mine["train"] <= taught and len(mine["test"]) > 80
    assert not mine["test"] & taught and not mine["validation"] & taught


def test_names_asked_for_in_the_test_are_taught() -> None:
    taught = {name for names in science._names("train").values() for name in names}
    assert {name for names in science._names("test").values() for name in names} <= taught and len(taught) > 80


def test_touching_is_mutual_and_near_is_wider() -> None:
    for chart in maps.charts("test"):
        assert all((b, a) in chart.touching for a, b in chart.touching)
        assert chart.touching <= chart.near
        assert all(region.number in chart.names and chart.names[region.number] == region.name for region in chart.regions)


def test_a_chart_draws_what_it_is_told() -> None:
    labels = np.zeros((160, 160), int)
    labels[40:80, 40:120], labels[80:120, 40:120], labels[10:12, 10:12] = 1, 2, 3
    chart = maps.Chart("x", "X", labels, {1: "Upper", 2: "Lower", 3: "Islet"})
    assert chart.touching == {(1, 2), (2, 1)} and [r.name for r in chart.regions] == ["Upper", "Lower"]
    assert [round(v, 1) for v in chart.offset(chart.regions[0], islands=False)] == [0.0, -0.5]
    assert chart.offset(chart.regions[0], islands=True)[0] > 0.2
    field = np.asarray(chart.draw({2: (1, 2, 3)}))
    assert tuple(field[100, 80]) == (1, 2, 3) and tuple(field[60, 80]) == maps.LAND and tuple(field[80, 80]) == maps.LINE and tuple(field[150, 150]) == maps.SEA
