"""Captions against several references each: CIDEr-D (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726), BLEU-4 and ROUGE-L.

The steps are those of the code that the field compares by (coco-caption), so that on equal tokens the numbers are equal; the tokens are our own,
since that code's tokenizer needs Java: lower case, runs of letters, digits and inner apostrophes, everything else dropped.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

Grams = Counter[tuple[str, ...]]
LONGEST = 4  # words of an n-gram, at most
MOST = 1000.0  # of CIDEr-D times 100
BETA = 1.2  # of ROUGE-L: how much more recall weighs than precision
SPREAD = 6.0  # of the penalty on a difference in length, in words


def tokens(text: str) -> list[str]:
    """The words of a caption: "A dog's ball." is a, dog's, ball."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def frequencies(references: Iterable[Sequence[Sequence[str]]]) -> tuple[Grams, int]:
    """In how many pictures' references each n-gram occurs, and how many pictures there are; `references` are tokens, picture by picture."""
    found, pictures = Grams(), 0
    for captions in references:
        found.update({gram for caption in captions for gram in _grams(caption)})
        pictures += 1
    return found, pictures


def cider(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], *, corpus: tuple[Grams, int] | None = None) -> list[float]:
    """CIDEr-D of every candidate, times 100, from 0 to 1,000; tokens in, a list of references for each candidate.

    Words count by how rare they are in `corpus` (`frequencies`), by default these references themselves: where a part of a data set is
    scored give the whole set's, or the part changes what a word is worth. Raises ValueError where a candidate has no reference, or the
    numbers of both differ.
    """
    _comparable(candidates, references)
    known, pictures = corpus or frequencies(references)
    found = []
    for candidate, captions in zip(candidates, references, strict=True):
        said = _weighed(candidate, known, pictures)
        likeness = [_likeness(said, _weighed(caption, known, pictures)) for caption in captions]
        found.append(1000 * sum(likeness) / len(likeness))
    return found


def bleu(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """BLEU-4 of a set of captions (Papineni et al. 2002), 0 to 100, by sacrebleu: unsmoothed, against the reference of the closest length.

    It is no mean over captions: words are counted over all of them. Raises ValueError as `cider` does, and on no captions.
    """
    import sacrebleu

    _comparable(candidates, references)
    if not candidates:
        raise ValueError("BLEU of no captions: there is nothing to count")
    return float(sacrebleu.corpus_bleu(_texts(candidates), _streams(references), smooth_method="none", tokenize="none", force=True).score)


def sentence_bleu(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """BLEU of every caption on its own, 0 to 100, by sacrebleu: orders longer than the caption are left out, what is not met is smoothed."""
    import sacrebleu

    _comparable(candidates, references)
    scorer = sacrebleu.BLEU(tokenize="none", force=True, effective_order=True)
    return [float(scorer.sentence_score(" ".join(said), _texts(captions)).score) for said, captions in zip(candidates, references, strict=True)]


def rouge_l(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """ROUGE-L of every caption (Lin 2004), 0 to 100, as coco-caption takes it: the best precision and the best recall over references, `BETA` to one.

    The longest common subsequence is rapidfuzz's. Raises ValueError as `cider` does.
    """
    from rapidfuzz.distance import LCSseq

    _comparable(candidates, references)
    found = []
    for said, captions in zip(candidates, references, strict=True):
        common = [(LCSseq.similarity(said, caption), len(caption)) for caption in captions]
        precision = max(length for length, _ in common) / len(said) if said else 0.0
        recall = max(length / long if long else 0.0 for length, long in common)
        found.append(100 * (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision and recall else 0.0)
    return found


def _comparable(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} captions and {len(references)} sets of references: each needs its own")
    bare = [place for place, captions in enumerate(references) if not captions]
    if bare:
        raise ValueError(f"caption {bare[0]} has no reference to be compared with")


def _texts(captions: Sequence[Sequence[str]]) -> list[str]:
    return [" ".join(words) for words in captions]


def _streams(references: Sequence[Sequence[Sequence[str]]]) -> list[list[str | None]]:
    """The first reference of every caption, the second of every caption …; None where it has fewer."""
    return [[" ".join(captions[i]) if i < len(captions) else None for captions in references] for i in range(max(map(len, references)))]


def _grams(words: Sequence[str]) -> Grams:
    """All n-grams of up to `LONGEST` words with their counts."""
    return Grams(tuple(words[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(words) - n + 1))


def _weighed(words: Sequence[str], known: Grams, pictures: int) -> tuple[list[dict[tuple[str, ...], float]], int]:
    """By length of n-gram: count times the logarithm of how rare it is; and the number of pairs of words, which stands for the length."""
    weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
    for gram, count in _grams(words).items():
        weights[len(gram) - 1][gram] = count * (math.log(pictures) - math.log(max(1, known[gram])))
    return weights, sum(1 for _ in pairwise(words))


def _likeness(said: tuple[list[dict[tuple[str, ...], float]], int], true: tuple[list[dict[tuple[str, ...], float]], int]) -> float:
    """Mean over lengths of the cosine, each n-gram of the caption counting no more than in the reference; less for another length."""
    (ours, long), (theirs, right) = said, true
    total = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        norm = math.sqrt(sum(w * w for w in mine.values()) * sum(w * w for w in other.values()))
        product = sum(min(w, other[gram]) * other[gram] for gram, w in mine.items() if gram in other)
        total += product / norm if norm else product
    return total / LONGEST * math.exp(-((long - right) ** 2) / (2 * SPREAD**2))
