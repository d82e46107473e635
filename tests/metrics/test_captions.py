"""CIDEr-D against the steps of the code that the field compares by, restated here, and against cases worked out by hand."""

import math
import random
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec

import pandas as pd
import pytest

from peftlab import metrics
from peftlab.metrics import captions

needs_packages = pytest.mark.skipif(not all(map(find_spec, ("sacrebleu", "rapidfuzz"))), reason="sacrebleu and rapidfuzz are not installed")
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


def bleu_by_the_book(candidates: list[list[str]], references: list[list[list[str]]], *, orders: int = 4) -> float:
    """Papineni et al. 2002: clipped counts over the set, geometric mean of four precisions, brevity penalty to the closest length."""
    right, said, ours, theirs = [0] * 4, [0] * 4, 0, 0
    for candidate, group in zip(candidates, references, strict=True):
        ours += len(candidate)
        theirs += min((abs(len(r) - len(candidate)), len(r)) for r in group)[1]
        for n in range(4):
            grams = [tuple(candidate[i : i + n + 1]) for i in range(len(candidate) - n)]
            said[n] += len(grams)
            right[n] += sum(min(grams.count(g), max(sum(tuple(r[i : i + n + 1]) == g for i in range(len(r) - n)) for r in group)) for g in set(grams))
    if 0 in right[:orders] or not ours:
        return 0.0
    return 100 * math.exp(min(0.0, 1 - theirs / ours)) * math.exp(sum(math.log(r / s) for r, s in zip(right[:orders], said[:orders], strict=True)) / orders)


def rouge_by_the_book(candidate: list[str], group: list[list[str]]) -> float:
    """coco-caption's Rouge: the table of common subsequences, the best precision, the best recall, beta 1.2."""

    def common(a: list[str], b: list[str]) -> int:
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        return table[-1][-1]

    lengths = [common(r, candidate) for r in group]
    precision = max(lengths) / len(candidate) if candidate else 0
    recall = max(c / len(r) if r else 0 for c, r in zip(lengths, group, strict=True))
    return 100 * ((1 + 1.2**2) * precision * recall) / (recall + 1.2**2 * precision) if precision and recall else 0.0


AWKWARD = [
    ([], [["a", "dog"]]), (["dog"], [["dog"]]), (["dog"], [["cat"]]), (["the"] * 7, [["the", "cat", "is", "on", "the", "mat"]]), (["ünder", "🦊"], [["ünder", "🦊", "x"]]),
    (["a", "b", "a", "b"] * 100, [["a", "b"] * 150, ["b"]]), (["d", "c", "b", "a"], [["a", "b", "c", "d"]]), (["a", "dog"], [[], ["a", "dog"]]), (["x"] * 600, [["y"]]),
]  # fmt: skip


@needs_packages
def test_bleu_is_by_the_book() -> None:
    candidates, references = drawn(300)
    for start in range(0, 300, 20):
        part = slice(start, start + 20)
        assert captions.bleu(candidates[part], references[part]) == pytest.approx(bleu_by_the_book(candidates[part], references[part]), abs=1e-6)
    assert captions.bleu(candidates, references) == pytest.approx(bleu_by_the_book(candidates, references), abs=1e-6)
    for said, group in [*AWKWARD, *zip(candidates, references, strict=True)]:
        assert captions.bleu([said], [group]) == pytest.approx(bleu_by_the_book([said], [group]), abs=1e-6), said
        if len(said) and all(bleu_by_the_book([said], [group], orders=n) for n in range(1, min(4, len(said)) + 1)):
            expected = bleu_by_the_book([said], [group], orders=min(4, len(said)))
            assert captions.sentence_bleu([said], [group]) == pytest.approx([expected], abs=1e-6), said
    assert captions.sentence_bleu([[], ["dog"]], [[["dog"]], [["cat"]]]) == [0, 0]
    with pytest.raises(ValueError, match="no captions"):
        captions.bleu([], [])


@needs_packages
def test_rouge_l_is_by_the_book() -> None:
    candidates, references = drawn(300)
    cases = [*AWKWARD, *zip(candidates, references, strict=True)]
    found = captions.rouge_l([c for c, _ in cases], [r for _, r in cases])
    assert found == pytest.approx([rouge_by_the_book(c, r) for c, r in cases], abs=1e-9)
    assert captions.rouge_l([["police", "kill", "the", "gunman"]], [[["police", "killed", "the", "gunman"]]]) == pytest.approx([75.0]), "Lin 2004, section 3.1"
    with pytest.raises(ValueError, match="caption 0 has no reference"):
        captions.rouge_l([["a"]], [[]])


@needs_packages
def test_captions_are_reported_by_three_metrics() -> None:
    said = (("A red ball on the grass.", ["a red ball on grass", "red ball in the grass"]), ("", ["two children play"]), ("Two children play outside", ["two children play outside"]))
    rows = pd.DataFrame([{"example_id": f"e{i}", "template": "t", "response": r, "choices": [], "answers": a} for i, (r, a) in enumerate(said)])
    assert metrics.shown("cider", rows) == ("cider", "bleu_4", "rouge_l") and metrics.shown("exact", rows) == ("exact", "equal")
    judged = metrics.judge(rows, "cider")
    bleu, rouge = (metrics.score(judged, name) for name in ("bleu_4", "rouge_l"))
    tokens = [captions.tokens(r) for r, _ in said], [[captions.tokens(a) for a in group] for _, group in said]
    assert bleu == {"value": pytest.approx(bleu_by_the_book(*tokens)), "n": 3, "unparsed": 1}
    assert rouge["value"] == pytest.approx(sum(rouge_by_the_book(c, r) for c, r in zip(*tokens, strict=True)) / 3)


def test_the_metrics_are_imported_without_their_packages() -> None:
    code = "import sys\nimport peftlab.metrics\nprint({'sacrebleu', 'rapidfuzz', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


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
