"""The first examples of every data set, made once for all tests here."""

from functools import cache
from itertools import islice

import pytest

from peftlab import datasets
from peftlab.records import Example

SEEN = ("scenes", "facts", "titles")
SPLITS = [(name, split) for name, card in datasets.DATASETS.items() if card.source == datasets.PACK for split in card.sizes]


@cache
def first(name: str, split: str, number: int = 400) -> list[Example]:
    """The first examples of a split, at most `number`."""
    return list(islice(datasets.load(name, split), number))


@pytest.fixture
def some():
    """`some(name, split)`: the first examples of a split; the list is shared, do not change it."""
    return first
