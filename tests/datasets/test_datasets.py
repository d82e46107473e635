"""What holds for every data set that is drawn from the pack: sizes, ids, balance, wordings, and that the question alone does not give the answer."""

import hashlib
import re
from collections import Counter
from itertools import islice

import pytest

from peftlab import datasets
from peftlab.datasets import captions, facts, icons_blank, icons_choice, photos, science, scenes, titles

SETS = {"scenes": scenes, "facts": facts, "titles": titles, "icons_choice": icons_choice, "icons_blank": icons_blank, "captions": captions, "science": science, "photos": photos}
WORDINGS = {name: module.WORDINGS for name, module in SETS.items()}
NEW = ("icons_blank", "captions", "science", "photos")
SEEN = ("scenes", "facts", "titles")
POCKET = [name for name, card in datasets.DATASETS.items() if card.source == datasets.PACK]
SPLITS = [(name, split) for name in POCKET for split in datasets.card(name).sizes if split != "simple"]  # which asks for captions alone
MAJORITY = {"scenes": 0.52, "facts": 0.45, "titles": 0.52, "icons_choice": 0.3, "icons_blank": 0.27, "captions": 0.1, "science": 0.36, "photos": 0.4}  # of any template of 60 questions and more
YES_NO_SHARE = 0.3
LONG = {"icons_choice": 26, "icons_blank": 18, "science": 60}  # words of a question, at most; else 16
ANSWERS = {"captions": 5, "science": 2, "photos": 10}  # accepted answers of a question; else one
WORDY = {"captions": 26, "photos": 3, "science": 1}  # words of an answer, at most; else 3, of a name 5


def digest(examples) -> str:
    """Of all texts and pixels."""
    found = hashlib.sha256()
    for e in examples:
        found.update(repr([v for k, v in vars(e).items() if k != "image"]).encode() + e.image.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", POCKET)
def test_the_same_examples_every_time(some, name: str) -> None:
    once = digest(some(name, "test")[:120])
    assert once == digest(islice(datasets.load(name, "test"), 120))
    assert once != digest(some(name, "train")[:120])


@pytest.mark.parametrize("name, split", [(n, s) for n, s in SPLITS if s in ("validation", "test")])
def test_sizes_are_the_cards(name: str, split: str) -> None:
    assert sum(1 for _ in datasets.load(name, split)) == datasets.card(name).sizes[split]


@pytest.mark.parametrize("name, split", SPLITS)
def test_ids_are_unique_and_a_picture_id_means_one_picture(some, name: str, split: str) -> None:
    examples = some(name, split)
    assert len({e.example_id for e in examples}) == len(examples)
    assert all(e.example_id.startswith(f"{e.picture_id}-") and e.picture_id.startswith(f"{name}-{split}-") for e in examples)
    pictures = {(e.picture_id, hashlib.sha256(e.image.tobytes()).hexdigest()) for e in examples}
    assert len(pictures) == len({p for p, _ in pictures})


@pytest.mark.parametrize("name, split", SPLITS)
def test_pictures_are_160_pixels_square_and_questions_short(some, name: str, split: str) -> None:
    for e in some(name, split):
        assert (e.image.size, e.image.mode) == ((160, 160), "RGB")
        assert len(e.question.split()) <= LONG.get(name, 16), e.question
        assert "{" not in e.question
        assert len(e.answers) == ANSWERS.get(name, 1) and 1 <= len(e.answers[0].split()) <= (5 if e.template == "name" else WORDY.get(name, 3)), e.answers
        assert e.answers[0] == e.answers[0].strip().lower() or name in ("facts", "captions", "science")


@pytest.mark.parametrize("name", WORDINGS)
def test_every_template_has_at_least_three_wordings(name: str) -> None:
    for wording, sentences in WORDINGS[name].items():
        assert len(sentences) >= 4 and len(set(sentences)) == len(sentences), wording


@pytest.mark.parametrize("name, split", SPLITS)
def test_the_last_wording_is_asked_in_the_test_only(some, name: str, split: str) -> None:
    last = {len(sentences) - 1 for sentences in WORDINGS[name].values()}
    assert len(last) == 1
    asked = Counter(e.phrasing for e in some(name, split))
    assert (asked[last.pop()] > 0) == (split == "test")


@pytest.mark.parametrize("name, split", SPLITS)
def test_no_answer_is_a_good_guess(some, name: str, split: str) -> None:
    """The commonest answer of a template stays below its bound, and yes/no questions are few."""
    answers: dict[str, Counter[str]] = {}
    for e in some(name, split):
        answers.setdefault(e.template, Counter())[e.answers[0]] += 1
    for template, counts in answers.items():
        if counts.total() >= 60:
            assert max(counts.values()) / counts.total() <= MAJORITY[name] + 0.02, (template, counts.most_common(3))
    yes_no = sum(counts["yes"] + counts["no"] for counts in answers.values())
    assert yes_no <= YES_NO_SHARE * len(some(name, split))


@pytest.mark.parametrize("name, split", SPLITS)
def test_yes_is_as_frequent_as_no(some, name: str, split: str) -> None:
    for template in {e.template for e in some(name, split)}:
        counts = Counter(e.answers[0] for e in some(name, split) if e.template == template)
        if set(counts) <= {"yes", "no"}:
            assert abs(counts["yes"] - counts["no"]) <= max(2, 0.25 * counts.total()), (template, counts)


@pytest.mark.parametrize("name, split", SPLITS)
def test_the_answer_is_one_of_the_choices(some, name: str, split: str) -> None:
    for e in some(name, split):
        if e.choices:
            assert e.answers[-1] in e.choices and len(set(e.choices)) == len(e.choices)
            assert all(choice in e.question for choice in e.choices)


@pytest.mark.parametrize("name, template", [*(("icons_choice", t) for t in icons_choice.SHARES), *(("science", t) for t in science.SHARES)])
def test_the_right_choice_is_at_each_place_equally_often(some, name: str, template: str) -> None:
    """Chi-square against uniform, below the 99.9 % quantile."""
    pools = [e for split in ("train", "test") for e in some(name, split) if e.template == template]
    for number, bound in ((3, 13.8), (4, 16.3)):
        asked = [e for e in pools if len(e.choices) == number]
        places = Counter(e.choices.index(e.answers[-1]) for e in asked)
        expected = len(asked) / number
        if expected >= 5:
            assert sum((places[p] - expected) ** 2 / expected for p in range(number)) < bound, places


def frames(name: str) -> set[str]:
    """The sentences of a data set with what fills them masked, in lower case, without marks."""
    said = {re.sub(r"\{\w+\}", "*", sentence).lower() for sentences in WORDINGS[name].values() for sentence in sentences}
    return {" ".join(re.findall(r"[\w*]+", sentence.removeprefix("{context}"))) for sentence in said}


@pytest.mark.parametrize("name", NEW)
def test_no_sentence_template_or_picture_is_of_the_seen_sets(some, name: str) -> None:
    seen = {sentence for other in SEEN for sentence in frames(other)}
    assert len(frames(name)) >= 4 and not {s.removeprefix("* ").removesuffix(" *") for s in frames(name)} & {s.removeprefix("* ").removesuffix(" *") for s in seen}
    assert not {e.template for e in some(name, "test")} & {e.template for other in SEEN for e in some(other, "base")}
    shown = {hashlib.sha256(e.image.tobytes()).hexdigest() for other in SEEN for e in some(other, "base")}
    assert not {hashlib.sha256(e.image.tobytes()).hexdigest() for split in ("train", "test") for e in some(name, split)} & shown
    assert "base" not in datasets.card(name).sizes
