"""Captions: five references, each true of its scene and none in the frames of stage 1; things named exactly, cut-outs held out."""

import re
from collections import Counter

import numpy as np
import pytest

from peftlab import datasets, metrics, pictures, questions, records
from peftlab.datasets import captions, titles
from peftlab.datasets.captions import Group, Scene

KIND = dict(zip(pictures.things("stamp")["name"], pictures.things("stamp")["kind"], strict=True))
NOUNS = sorted(captions.nouns(), key=len, reverse=True)
NOUN = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, NOUNS)) + r")(?!\w)")
SEEN_COLOURS = sorted({c for c in pictures.things("stamp")["colour"] if c})
NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3}


def frame(sentence: str) -> str:
    """A sentence with its things, numbers and colours masked."""
    text = NOUN.sub("*", sentence.lower().rstrip("."))
    text = re.sub(rf"\b({'|'.join(SEEN_COLOURS)})\s+(?=\*)", "", text)
    return re.sub(r"\b(an?|two|three)\s+(?=\*)", "", text)


def things(sentence: str) -> list[tuple[int, str]]:
    """(how many, noun) of every thing that a sentence names, in its order."""
    found = re.finditer(rf"\b(an?|two|three) (?:(?:{'|'.join(SEEN_COLOURS)}) )?({'|'.join(map(re.escape, NOUNS))})(?!\w)", sentence.lower())
    return [(NUMBERS[m[1]], m[2]) for m in found]


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, tuple[str, ...]]]:
    found = []
    for seed in range(240):
        rng = np.random.default_rng(seed)
        scene = captions.compose(("one", "pair", "row")[seed % 3], ("train", "test")[seed % 2], rng)
        found.append((scene, captions.references(scene, rng)))
    return found


def test_no_reference_has_a_frame_of_stage_ones_captions(some) -> None:
    first = {frame(e.answers[0]) for e in questions.captions(some("scenes", "base"))}
    cards = {frame(e.answers[0]) for e in titles.captions(40)}
    ours = {frame(text) for split in ("train", "test") for e in some("captions", split) for text in e.answers}
    assert first == {"a picture of *", "a picture of * and *", "a picture of * and * and *", "a picture of * and * and * and *"}
    assert all(re.fullmatch(r"a card of an? [\w -]+ film from \d{4}, with \d+ words? in its title", text) for text in cards), cards
    assert len(ours) > 60 and not ours & (first | cards)
    assert not any(text.startswith("a picture of") for text in ours)


def test_stage_ones_prompt_is_not_asked(some) -> None:
    asked = {e.question for e in questions.captions(some("scenes", "base"))}
    assert not asked & {sentence for sentences in captions.WORDINGS.values() for sentence in sentences}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_five_different_references_and_every_thing_is_said(some, split: str) -> None:
    for e in some("captions", split):
        assert len(set(e.answers)) == len(e.answers) == 5
        counts = Counter(e.objects)
        for text in e.answers:
            said = things(text)
            assert sorted(number for number, _ in said) == sorted(counts.values()), (text, counts)
            for number, noun in said:
                assert captions.nouns()[noun] & {name for name, n in counts.items() if n == number}, (text, counts)


def test_references_say_where_things_are(scenes) -> None:
    """An independent reading of the places in each sentence against the order in which the groups were laid out."""
    read = 0
    for scene, told in scenes:
        if scene.layout in ("across", "down"):
            first, second = scene.groups
            for text in told:
                (_, one), (_, two) = things(text)
                straight = first.name in captions.nouns()[one] and second.name in captions.nouns()[two]
                assert straight or (second.name in captions.nouns()[one] and first.name in captions.nouns()[two])
                low = text.lower()
                if re.search(r"to the left of|\babove\b|\bover\b|on the left,.* on the right|at the top, ", low):
                    assert straight, text
                    read += 1
                if re.search(r"to the right of|\bbelow\b|\bunder\b|at the bottom .*at the top", low):
                    assert not straight, text
                    read += 1
                assert not (scene.layout == "down" and re.search(r"\bleft\b|\bright\b|beside|next to", low)), text
                assert not (scene.layout == "across" and re.search(r"above|below|under|\bover\b|top|bottom", low)), text
        if scene.layout == "row":
            for text in told:
                order = (1, 0, 2) if " between " in text else (0, 1, 2)
                assert all(scene.groups[i].name in captions.nouns()[noun] for i, (_, noun) in zip(order, things(text), strict=True)), text
                read += 1
    assert read > 400


def test_colours_and_backgrounds_are_the_scenes(scenes) -> None:
    told_of = Counter()
    for scene, told in scenes:
        others = [way for name, ways in captions.BACKGROUNDS.items() if name != scene.background for way in ways]
        for text in told:
            assert not any(way in text.lower() for way in others), text
            told_of["background"] += any(way in text.lower() for way in captions.BACKGROUNDS[scene.background])
            for colour, noun in re.findall(rf"\b({'|'.join(SEEN_COLOURS)}) ({'|'.join(map(re.escape, NOUNS))})(?!\w)", text.lower()):
                assert any(g.colour == colour and g.name in captions.nouns()[noun] for g in scene.groups), text
                told_of["colour"] += 1
    assert told_of["background"] > 400 and told_of["colour"] > 50


def test_objects_are_exactly_what_is_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    pasted: list[str] = []
    boxes: list[tuple[int, int, int, int]] = []
    paste = pictures.paste
    monkeypatch.setattr(pictures, "paste", lambda canvas, file, *given: (pasted.append(file), boxes.append(paste(canvas, file, *given)))[1])
    name = dict(zip(pictures.things("stamp")["file"], pictures.things("stamp")["name"], strict=True))
    loaded = captions.load("test", 60)
    for _ in range(60):
        pasted.clear(), boxes.clear()
        e = next(loaded)
        assert sorted(name[file] for file in pasted) == sorted(e.objects)
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:i]:
                across, down = min(right, other[2]) - max(left, other[0]), min(bottom, other[3]) - max(top, other[1])
                assert min(across, down) <= 4, e.objects


def test_things_are_named_where_training_and_test_show_them() -> None:
    rng = np.random.default_rng(0)
    cup, hen = Group("x", "x", "cup", "kitchenware", "blue", 2), Group("x", "x", "hen", "bird", "", 1)
    assert "cup" in captions.named() and "hen" not in captions.named()
    assert captions.phrase(cup, rng) == "two cups" and captions.phrase(cup, rng, colour=True) == "two blue cups"
    assert captions.phrase(hen, rng) == "a bird" and captions.phrase(cup, rng, kind=True) == "two kitchen things"
    rows = pictures.things("stamp")
    for split in ("train", "test"):
        assert captions.named() <= set(rows[rows["split"] == split]["name"])


@pytest.mark.parametrize("one, several", [("loaf of bread", "loaves of bread"), ("pair of trousers", "pairs of trousers"), ("strawberry", "strawberries"), ("bus", "buses"), ("toy", "toys"), ("deer", "deer"), ("angelfish", "angelfish"), ("sports thing", "sports things"), ("celestial body", "celestial bodies"), ("torch", "torches")])  # fmt: skip
def test_plurals(one: str, several: str) -> None:
    assert captions.many(one) == several


def test_nouns_are_right_of_their_things() -> None:
    nouns = captions.nouns()
    assert nouns["bunny"] == nouns["rabbits"] == {"rabbit"} and "hen" in nouns["bird"] & nouns["animals"] and "cup" not in nouns["animal"]
    for name, kind in KIND.items():
        assert name in nouns[name] and any(name in nouns[word] for word in captions.KINDS[kind])
    assert set().union(*nouns.values()) == set(KIND)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_cutouts_are_of_their_split(some, split: str) -> None:
    rows = pictures.things("stamp", split)
    assert {e.asset for e in some("captions", split)} <= set(rows["id"])
    assert {name for e in some("captions", split) for name in e.objects} <= set(rows["name"])


def test_a_reference_earns_more_than_another_pictures(some) -> None:
    asked = some("captions", "test")[:120]
    own = metrics.judge(records.predictions(asked, [e.answers[0] for e in asked]), datasets.card("captions").metric)["value"]
    other = metrics.judge(records.predictions(asked, [e.answers[0] for e in asked[1:] + asked[:1]]), datasets.card("captions").metric)["value"]
    assert own.mean() > 5 * other.mean() and (own > 150).all()


def test_a_captions_tokens_have_room(some) -> None:
    """At one and a half tokens a word the longest reference fits; other data sets keep to the twelve of before."""
    assert max(len(text.split()) for e in some("captions", "train") for text in e.answers) * 1.5 <= datasets.card("captions").answer_tokens
    assert datasets.card("captions").answer_tokens == 40 and all(card.answer_tokens == 12 for name, card in datasets.DATASETS.items() if card.source == datasets.PACK and name != "captions")
