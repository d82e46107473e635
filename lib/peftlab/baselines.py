"""Answers without sight: what a question alone gives away to one who learned from the set's own training data."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

from peftlab.records import Example, Words

MOST = 500  # answers that can be guessed: a classifier of each is taught


def most_frequent(pool: Sequence[Example | Words], asked: Sequence[Example | Words]) -> list[str]:
    """Answers to `asked` that are, of all answers accepted in `pool`, the most frequent of the question's template; where it is not in the pool, of all.

    Where a question offers choices, the most frequent of these, the first of several, and so where none was an answer in the pool. Upper and lower
    case are one; of several answers as frequent the first in the alphabet. Raises ValueError where the pool is empty.
    """
    if not pool:
        raise ValueError("the pool has no question: nothing is frequent in it")
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for one in pool:
        for template in (one.template, None):
            counts[template].update(_plain(answer) for answer in one.answers)
    firsts, found = {template: min(counted, key=lambda answer: (-counted[answer], answer)) for template, counted in counts.items()}, []
    for one in asked:
        template = one.template if one.template in counts else None
        found.append(max(one.choices, key=lambda choice: counts[template][_plain(choice)]) if one.choices else firsts[template])
    return found


def _plain(answer: str) -> str:
    return answer.strip().lower()


def question_only(pool: Sequence[Example | Words], asked: Sequence[Example | Words], *, seed: int = 0) -> list[str]:
    """Answers to `asked` by a classifier that saw the questions and answers of `pool`, and no picture.

    Logistic regression on the words and word pairs of a question (tf-idf), a class per first answer, of the `MOST` frequent; as strong as
    templates and closed vocabularies let it be. Where a question offers choices, the likeliest of these, or the first where none is a class. Raises ValueError where the pool has fewer than two answers.
    """
    answers = [_plain(e.answers[0]) for e in pool]
    if len(set(answers)) < 2:
        raise ValueError(f"the pool of {len(pool)} questions has {len(set(answers))} different answers: a classifier needs two")
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True)
    model = make_pipeline(words, SGDClassifier(loss="log_loss", alpha=1e-5, random_state=seed))
    frequent = {answer for answer, _ in Counter(answers).most_common(MOST)}
    model.fit(*zip(*((e.question, answer) for e, answer in zip(pool, answers, strict=True) if answer in frequent)))
    weights = model.decision_function([e.question for e in asked])
    weights = np.stack([-weights, weights], axis=1) if weights.ndim == 1 else weights  # of two classes that of the second is given
    place, found = {answer: i for i, answer in enumerate(model.classes_)}, []
    for one, row in zip(asked, weights, strict=True):
        weighed = {choice: row[place[_plain(choice)]] for choice in one.choices if _plain(choice) in place}
        found.append(max(weighed, key=weighed.__getitem__) if weighed else one.choices[0] if one.choices else str(model.classes_[row.argmax()]))
    return found


BLIND: dict[str, Callable[[Sequence[Words], Sequence[Words]], list[str]]] = {"majority": most_frequent, "question_only": question_only}  # by the name of the baseline
