"""Photos: damage is measured, what cannot be answered is past a limit or not shown, and soft accuracy is what the file says."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFilter

from peftlab import datasets, metrics, pictures, questions, records
from peftlab.datasets import photos

ROWS = {split: tuple(pictures.things("photo", split)[["id", "file", "name", "kind"]].itertuples(index=False, name="Row")) for split in ("train", "test")}
KIND = dict(zip(pictures.things("photo")["id"], pictures.things("photo")["kind"], strict=True))
USUAL = dict.fromkeys(photos.KINDS, 1.0)
NAME = dict(zip(pictures.things("photo")["id"], pictures.things("photo")["name"], strict=True))


def shots(lost: bool, number: int = 60):
    rng = np.random.default_rng(lost)
    for i in range(number):
        yield photos.take(ROWS["test"][i % len(ROWS["test"])], rng, lost=lost)


def test_photographs_are_of_their_split(some) -> None:
    shown = {split: {e.asset for e in some("photos", split)} for split in ("train", "validation", "test")}
    for split, assets in shown.items():
        assert assets <= set(pictures.things("photo", split)["id"])
    assert not shown["train"] & shown["test"] and len(shown["test"]) > 50
    groups = {split: set(pictures.things("photo", split)["group"]) for split in ("train", "test")}
    assert not groups["train"] & groups["test"]


def test_how_much_is_visible_is_measured() -> None:
    whole = photos.square(ROWS["test"][0], np.random.default_rng(0))
    dark = Image.fromarray((np.asarray(whole) * 0.2).astype(np.uint8))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 160, 3)).astype(np.uint8))
    assert photos.visible(whole, whole) == pytest.approx(1) and photos.visible(dark, whole) == pytest.approx(0.2, abs=0.02)
    assert photos.visible(noise, whole) < 0.1 and photos.visible(Image.new("RGB", (160, 160)), whole) == 0
    blurs = [photos.visible(whole.filter(ImageFilter.GaussianBlur(r)), whole) for r in (1, 3, 6, 12, 24)]
    assert blurs == sorted(blurs, reverse=True) and blurs[0] > 0.8 > photos.LOST > blurs[-1]


def test_no_picture_is_between_the_limits() -> None:
    for shot in shots(lost=False):
        assert shot.visible > photos.CLEAR > 3 * photos.LOST
    flaws = Counter(shot.flaw for shot in shots(lost=True) if shot.visible < photos.LOST)
    assert flaws.total() == 60 and set(flaws) == {"blur", "dark", "cover", "crop"}


def test_a_tilt_is_turned() -> None:
    row = next(row for row in ROWS["train"] if row.kind == "monument")
    level, turned = photos.square(row, np.random.default_rng(0)), photos.square(row, np.random.default_rng(0), angle=30)
    assert level.tobytes() != turned.tobytes()


@pytest.mark.parametrize("size", [(160, 120), (120, 160), (160, 90), (160, 160)])
@pytest.mark.parametrize("angle", [0, -4, 24, 38])
def test_no_empty_corner_and_nothing_cut_off(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], angle: float) -> None:
    """On a white photograph no corner of a turned one shows; a level one keeps its edges, unless it is very long."""
    monkeypatch.setattr(pictures, "opaque", lambda file: Image.new("RGB", size, "white"))
    assert np.asarray(photos.square(ROWS["train"][0], np.random.default_rng(0), angle=angle)).min() > 250
    edged = Image.new("RGB", size, "white")
    edged.paste((255, 0, 0), (0, 0, 8, 8))
    monkeypatch.setattr(pictures, "opaque", lambda file: edged)
    corner = np.asarray(photos.square(ROWS["train"][0], np.random.default_rng(0)))[0, 0]
    assert (corner[1] < 60) == (max(size) <= photos.STRETCH * min(size))


def test_nothing_lost_has_an_answer_and_nothing_clear_has_none() -> None:
    rng = np.random.default_rng(5)
    for lost in (True, False):
        for shot in shots(lost):
            for c in photos.candidates(shot, USUAL, rng):
                if c.template in ("what", "check"):
                    assert (c.answer == "unanswerable") == lost
                if c.template == "either":
                    word = questions.a(photos.KINDS[shot.row.kind][0])
                    assert (c.answer == "unanswerable") == (lost or word not in c.words.values()), c
                if c.template == "check" and not lost:
                    assert c.answer == ("yes" if c.words["x"] == questions.a(photos.KINDS[shot.row.kind][0]) else "no")
                if c.template == "flaw":
                    assert c.answer == {"blur": "blurred", "dark": "dark", "cover": "covered", "tilt": "tilted", "none": "nothing"}[shot.flaw]


def test_kinds_that_are_close_are_not_told_apart() -> None:
    rng = np.random.default_rng(6)
    words = {questions.a(word): kind for kind, (word, _) in photos.KINDS.items()}
    for shot in shots(lost=False):
        for c in photos.candidates(shot, USUAL, rng):
            if c.template == "either":
                assert not any({words[c.words["x"]], words[c.words["y"]]} <= close for close in photos.CLOSE)
            if c.template == "check" and c.answer == "no":
                assert not any({words[c.words["x"]], shot.row.kind} <= close for close in photos.CLOSE)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_ten_people_answer(some, split: str) -> None:
    for e in some("photos", split):
        counts = Counter(e.answers)
        assert len(e.answers) == 10
        if e.template in ("what", "either") and e.answers[0] != "unanswerable":
            word, broader = photos.KINDS[KIND[e.asset]]
            expected = Counter({word: 5})
            expected.update({" ".join(w for w in NAME[e.asset].split() if w not in ("a", "an", "the")): 3})
            expected.update({broader: 2})
            assert counts == expected and e.answers[0] == word
        if e.template == "check" or e.answers[0] == "unanswerable":
            assert list(counts.values()) == [10]


def test_every_answer_can_be_given(some) -> None:
    """The metric changes words where they differ (articles, number words, marks) and must leave each accepted answer another than the rest."""
    for split in ("train", "test"):
        said = {answer for e in some("photos", split) for answer in e.answers}
        assert len(said) > 40 and len({metrics.rules.vqa_answer(answer) for answer in said}) == len(said)


def test_soft_accuracy_is_100_90_and_60(some) -> None:
    """Of each word that the ten say, by the metric of the card; and of none that they do not say."""
    asked = [e for e in some("photos", "test") if e.template == "what" and sorted(Counter(e.answers).values()) == [2, 3, 5]][:20]
    assert len(asked) == 20
    for place, worth in ((0, 100), (5, 90), (8, 60)):
        judged = metrics.judge(records.predictions(asked, [e.answers[place].capitalize() + "." for e in asked]), datasets.card("photos").metric)
        assert judged["value"].tolist() == pytest.approx([worth] * 20)
    assert not metrics.judge(records.predictions(asked, ["unanswerable"] * 20), datasets.card("photos").metric)["value"].any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_good_part_cannot_be_answered_but_no_template_gives_it_away(some, split: str) -> None:
    answers: dict[str, Counter[str]] = {}
    for e in some("photos", split):
        answers.setdefault(e.template, Counter())[e.answers[0]] += 1
    unanswerable = sum(counts["unanswerable"] for counts in answers.values())
    assert 0.15 < unanswerable / len(some("photos", split)) < 0.35
    for template in ("what", "either", "check"):
        assert 0.15 < answers[template]["unanswerable"] / answers[template].total() < 0.4, (template, answers[template])


def test_a_question_between_two_kinds_is_open(some) -> None:
    """Of the two kinds named, the one that is commoner among training's answers is not the one shown much oftener than the other."""
    usual = Counter(e.answers[0] for e in some("photos", "train") if e.template == "either")
    guesses = []
    for e in some("photos", "test", 1000):
        if e.template == "either" and e.answers[0] != "unanswerable":
            named = [word for word, _ in photos.KINDS.values() if f" {questions.a(word)} " in f" {e.question} ".replace("?", " ").replace(".", " ").replace(";", " ")]
            assert len(named) == 2 and e.answers[0] in named, (e.question, named)
            guesses.append(max(named, key=lambda word: usual[word]) == e.answers[0])
    assert len(guesses) > 100 and sum(guesses) / len(guesses) < 0.62
