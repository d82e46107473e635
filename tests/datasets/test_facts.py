"""Facts: the (thing, attribute) pairs are held out by a stable hash, the things are not."""

import pytest

from peftlab import knowledge, pictures
from peftlab.datasets import facts

PAIRS = {split: {(n, a) for n, values in knowledge.pairs(split).items() for a in values} for split in ("base", "train", "validation", "test")}


def test_pairs_are_of_one_split() -> None:
    assert PAIRS["base"] == PAIRS["train"]
    assert not PAIRS["train"] & PAIRS["test"] and not PAIRS["train"] & PAIRS["validation"] and not PAIRS["validation"] & PAIRS["test"]
    total = sum(len(PAIRS[split]) for split in ("train", "validation", "test"))
    assert 0.12 < len(PAIRS["test"]) / total < 0.3 and len(PAIRS["validation"]) > 20


def test_a_stable_hash_decides_the_split_of_a_pair() -> None:
    owners = {knowledge.owner(name, "legs", kept=False) for name in ("zebra", "hen", "bee", "whale", "owl", "cow", "ant", "fox", "bear", "rat", "goat", "pig")}
    assert {"train", "test"} <= owners and knowledge.owner("zebra", "legs", kept=True) == "train"


@pytest.mark.parametrize("split", ["base", "train", "validation", "test"])
def test_questions_ask_the_splits_own_pairs_and_answer_as_the_table_says(some, split: str) -> None:
    table = {(r.name, r.attribute): r.value for r in pictures.table("facts").itertuples(index=False)}
    for e in some("facts", split):
        if e.template == "name":
            assert split in ("base", "train") and e.answers == (e.asset,) == e.objects
        else:
            assert (e.asset, e.template) in PAIRS[split] and e.answers[0] == table[e.asset, e.template]


def test_everything_asked_about_in_the_test_is_taught(some) -> None:
    assert {name for name, _ in PAIRS["test"]} <= {name for name, _ in PAIRS["train"]}
    values = {(a, v) for facts_ in knowledge.pairs("train").values() for a, v in facts_.items()}
    assert {(e.template, e.answers[0]) for e in some("facts", "test", 1000)} <= values


def test_the_question_does_not_name_the_thing(some) -> None:
    for e in some("facts", "test", 1000):
        assert f" {e.asset.lower()} " not in e.question.lower().replace("?", " ")


@pytest.mark.parametrize("split", ["train", "test"])
def test_names_are_few_questions(some, split: str) -> None:
    share = sum(e.template == "name" for e in some("facts", split)) / len(some("facts", split))
    assert share <= (0.25 if split == "train" else 0)


def test_no_test_cutout_of_the_scenes_is_shown() -> None:
    train = set(pictures.things("stamp", "train")["file"]) | set(pictures.things("photo", "train")["file"]) | set(pictures.things("flag", "train")["file"])
    for style in facts.SHOWN:
        assert {f for files in facts._shown(style, knowledge.pairs("test")).values() for f in files} <= train
