"""CIDEr-D against the steps of the code that the field compares by, restated here, and against cases worked out by hand."""

import math
import random
from collections import defaultdict

import pandas as pd
import pytest

from peftlab import metrics
from peftlab.metrics import captions

WORDS = "a the dog cat red ball on in with grass two children play small house".split()


def by_the_book(candidates: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """coco-caption's CiderScorer, step by step: its counts, weights, clipping, length penalty, and the factor of ten."""

    def cook(words: list[str]) -> dict[tuple[str, ...], int]:
        counts: dict[tuple[str, ...], int] = defaultdict(int)
        for k in range(1, 5):
            for i in range(len(words) - k + 1):
                counts[tuple(words[i : i + k])] += 1
        return counts

    tests, refs = [cook(c) for c in candidates], [[cook(r) for r in group] for group in references]
    frequency: dict[tuple[str, ...], float] = defaultdict(float)
    for group in refs:
        for gram in {g for ref in group for g in ref}:
            frequency[gram] += 1
    log = math.log(float(len(refs)))

    def vector(counts: dict[tuple[str, ...], int]) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        made: list[dict[tuple[str, ...], float]] = [defaultdict(float) for _ in range(4)]
        norm, length = [0.0] * 4, 0
        for gram, count in counts.items():
            n = len(gram) - 1
            made[n][gram] = float(count) * (log - math.log(max(1.0, frequency[gram])))
            norm[n] += made[n][gram] ** 2
            if n == 1:
                length += count
        return made, [math.sqrt(x) for x in norm], length

    scores = []
    for test, group in zip(tests, refs, strict=True):
        ours, norm, length = vector(test)
        summed = [0.0] * 4
        for ref in group:
            theirs, other, right = vector(ref)
            for n in range(4):
                value = sum(min(ours[n][g], theirs[n][g]) * theirs[n][g] for g in ours[n])
                if norm[n] and other[n]:
                    value /= norm[n] * other[n]
                summed[n] += value * math.e ** (-((length - right) ** 2) / (2 * 6.0**2))
        scores.append(sum(summed) / 4 / len(group) * 10.0)
    return scores


def drawn(count: int) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Captions near and far from one to five references each, some of a word, some of none."""
    draw, candidates, references = random.Random(0), [], []
    for _ in range(count):
        group = [draw.choices(WORDS, k=draw.randint(1, 9)) for _ in range(draw.randint(1, 5))]
        near = [w for w in draw.choice(group) if draw.random() < 0.8]
        candidates.append(draw.choice((near, near, draw.choices(WORDS, k=draw.randint(0, 12)))))
        references.append(group)
    return candidates, references


def test_cider_is_by_the_book() -> None:
    candidates, references = drawn(300)
    found = captions.cider(candidates, references)
    assert found == pytest.approx([100 * s for s in by_the_book(candidates, references)], abs=1e-6)
    assert min(found) == 0 and max(found) > 300


def test_the_same_caption_has_the_most_and_another_nothing() -> None:
    references = [[["red", "ball", "on", "grass"]], [["two", "children", "play", "house"]]]
    assert captions.cider([r[0] for r in references], references) == pytest.approx([1000, 1000])
    assert captions.cider([["small", "cat"], []], references) == [0, 0]


def test_what_is_said_of_every_picture_is_worth_nothing() -> None:
    assert captions.cider([["a"], ["a"]], [[["a", "dog"]], [["a", "cat"]]]) == [0, 0]


def test_repeating_a_word_does_not_help() -> None:
    references = [[["red", "ball"]], [["dog"]]]
    once, often = (captions.cider([said, ["dog"]], references)[0] for said in (["red", "ball"], ["red", "red", "red", "ball", "ball"]))
    assert often < once


def test_a_part_keeps_its_worth_with_the_frequencies_of_the_whole() -> None:
    candidates, references = drawn(60)
    whole, corpus = captions.cider(candidates, references), captions.frequencies(references)
    assert captions.cider(candidates[:20], references[:20], corpus=corpus) == pytest.approx(whole[:20])
    assert captions.cider(candidates[:20], references[:20]) != pytest.approx(whole[:20])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="caption 1 has no reference"):
        captions.cider([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(ValueError, match="1 captions and 2 sets of references"):
        captions.cider([["a"]], [[["a"]], [["b"]]])


@pytest.mark.parametrize(
    ("text", "words"),
    [("A dog's ball.", ["a", "dog's", "ball"]), ("Two\nchildren -- playing!", ["two", "children", "playing"]), ("it’s 3.5 m", ["it's", "3", "5", "m"]), ("'quoted'", ["quoted"]), ("…", []), ("x_y", ["x", "y"]), ("Ünder", ["ünder"])],
)
def test_tokens(text: str, words: list[str]) -> None:
    assert captions.tokens(text) == words


def test_captions_are_judged_together() -> None:
    said = (("A red ball on the grass.", ["a red ball on grass", "red ball in the grass"]), ("", ["two children play"]), ("House", ["a small cat"]))
    rows = pd.DataFrame([{"example_id": f"e{i}", "template": "t", "response": r, "choices": [], "answers": a} for i, (r, a) in enumerate(said)])
    judged = metrics.judge(rows, "cider")
    assert judged["value"].tolist() == pytest.approx(captions.cider([captions.tokens(r) for r, _ in said], [[captions.tokens(a) for a in refs] for _, refs in said]))
    assert judged["outcome"].tolist() == ["right", "unparsed", "wrong"]
