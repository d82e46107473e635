"""CHAIR against the counts of its authors' code, restated here, and against captions counted by hand."""

import random

import pandas as pd
import pytest

from peftlab import metrics
from peftlab.metrics import chair

NAMES = ("cat", "dog", "rubber duck", "duck", "cherry", "mouse", "t-shirt", "bus", "knife", "sheep", "dump truck", "truck", "half dollar")
PLURALS = {"cat": "cats", "dog": "dogs", "rubber duck": "rubber ducks", "duck": "ducks", "cherry": "cherries", "mouse": "mice", "t-shirt": "t-shirts", "bus": "buses"}
PLURALS |= {"knife": "knives", "sheep": "sheep", "dump truck": "dump trucks", "truck": "trucks", "half dollar": "half dollars"}
SYNONYMS = """person, girl, boy, man, woman, people, child, baby
dog, puppy, hound
elephant
train, locomotive
tie, necktie
toilet, urinal
hot dog, sausage
wine glass
glass
"""


def by_the_book(said: list[list[str]], held: list[set[str]]) -> tuple[float | None, float, float | None]:
    """The authors' counts: a caption's words that name objects, those not in the picture, captions with one, objects met."""
    words = invented = sentences = met = there = 0
    for mentioned, truth in zip(said, held, strict=True):
        wrong = [m for m in mentioned if m not in truth]
        words, invented, sentences = words + len(mentioned), invented + len(wrong), sentences + (len(wrong) > 0)
        met, there = met + len(truth.intersection(mentioned)), there + len(truth)
    return invented / words if words else None, sentences / len(said), met / there if there else None


def drawn(count: int) -> tuple[list[str], list[list[str]], list[set[str]]]:
    """Captions made of known mentions, what they mention, and pictures that hold some of it."""
    draw, texts, said, held = random.Random(0), [], [], []
    for _ in range(count):
        mentioned = draw.choices(NAMES, k=draw.randint(0, 5))
        forms = [draw.choice((name, PLURALS[name], name.upper())) for name in mentioned]
        texts.append(draw.choice(("A picture of ", "", "Seen: ")) + draw.choice((" and a ", ", ", " beside the ", " on top of\n")).join(forms) + draw.choice((".", "!", " 🦊", "")))
        said.append(mentioned)
        held.append({m for m in mentioned if draw.random() < 0.7} | set(draw.sample(NAMES, draw.randint(0, 2))))
    return texts, said, held


def test_chair_counts_as_its_authors_do() -> None:
    texts, said, held = drawn(400)
    known = chair.nouns(NAMES)
    assert [list(chair.named(text, known)) for text in texts] == said
    for start in range(0, 400, 40):
        part = slice(start, start + 40)
        found, expected = chair.chair(texts[part], held[part], known), by_the_book(said[part], held[part])
        assert (found.chair_i, found.chair_s, found.recall) == pytest.approx([100 * x for x in expected])
        assert (found.captions, found.mentions) == (40, sum(map(len, said[part])))


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("", ()), ("🦊 …", ()), ("cat", ("cat",)), ("Cats, CATS and a cat's cat", ("cat",) * 4), ("concatenate the category", ()), ("a rubber duck", ("rubber duck",)),
        ("a rubber glove and a duck", ("duck",)), ("rubber ducks duck", ("rubber duck", "duck")), ("a dump truck", ("dump truck",)), ("cherries on buses", ("cherry", "bus")), ("T-shirt; t shirts", ("t-shirt", "t-shirt")),
        ("half", ()), ("dollar half dollar", ("half dollar",)), ("cat " * 500, ("cat",) * 500), ("<b>dog</b>", ("dog",)), ("two knives, three mice", ("knife", "mouse")),
    ],
)  # fmt: skip
def test_what_a_caption_names(caption: str, named: tuple[str, ...]) -> None:
    assert chair.named(caption, chair.nouns(NAMES)) == named


def test_what_is_counted_by_hand() -> None:
    found = chair.chair(["A cat and a dog.", "", "a dog, a dog and a bus"], [["cat"], ["dog"], ["dog", "mouse"]], chair.nouns(NAMES))
    assert (found.chair_i, found.chair_s, found.recall) == pytest.approx((40, 200 / 3, 50))
    assert (found.captions, found.mentions, found.words) == (3, 5, pytest.approx((5 + 0 + 7) / 3))
    assert chair.chair([""], [[]], chair.nouns(NAMES)) == chair.Chair(None, 0.0, None, 0.0, 1, 0)
    for captions, objects in (([], []), (["cat"], [])):
        with pytest.raises(ValueError, match="captions of 0 pictures"):
            chair.chair(captions, objects, chair.nouns(NAMES))


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("A puppy and a girl", ("dog", "person")), ("a baby elephant", ("elephant",)), ("a baby and an elephant", ("person", "elephant")), ("adult dogs", ("dog",)), ("on the toilet seat", ("toilet",)), ("a bow tie", ("tie",)),
        ("a hot dog", ("hot dog",)), ("hot dogs", ("hot dog",)), ("a dog on train tracks", ("dog",)), ("passenger train", ("train",)), ("at home plate", ()), ("glasses of wine, wine glasses", ("glass", "wine glass")),
    ],
)  # fmt: skip
def test_nouns_of_a_list_of_synonyms(caption: str, named: tuple[str, ...]) -> None:
    assert chair.named(caption, chair.nouns(chair.coco_vocabulary(SYNONYMS))) == named


def test_coco_holds_what_is_outlined_and_what_references_name() -> None:
    known = chair.nouns(chair.coco_vocabulary(SYNONYMS))
    instances = {"categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}], "annotations": [{"image_id": 5, "category_id": 18}, {"image_id": 5, "category_id": 18}]}
    captions = {"annotations": [{"image_id": 5, "caption": "A woman with her necktie."}, {"image_id": 7, "caption": "Nothing here."}]}
    assert chair.coco_objects(instances, captions, known) == {5: frozenset({"dog", "person", "tie"}), 7: frozenset()}
    with pytest.raises(ValueError, match="category 'zebra' is named by no line"):
        chair.coco_objects({"categories": [{"id": 1, "name": "zebra"}], "annotations": []}, captions, known)
    with pytest.raises(ValueError, match="'puppy' stands for 'dog' and for 'cat'"):
        chair.coco_vocabulary("dog, puppy\ncat, puppy")
    with pytest.raises(ValueError, match="the list of synonyms is empty"):
        chair.coco_vocabulary("\n \n")


def test_a_vocabulary_is_a_line_an_object_and_holds_the_authors_pairs() -> None:
    lines = chair.coco_vocabulary("dog, puppy,  hound \n\ndog, puppy\ntie,bow\nperson, policeman, baby, iPhone\n")
    assert lines == ("dog, puppy, hound, baby dog, adult dog", "tie, bow, bow tie", "person, policeman, baby, iPhone", ", home plate, train track")
    known = chair.nouns(lines)
    assert chair.named("Two policemen, a baby dog with a bow tie on the train tracks, an iphone", known) == ("person", "dog", "tie", "person")
    assert chair.nouns(("rubber duck", "duck")) == chair.nouns(["rubber duck,", " duck"]), "a bare name is a line of one"


# ---------------------------------------------------------------- as metrics of stored answers


def frame(texts: list[str], held: list[set[str]]) -> pd.DataFrame:
    """Captions as a probe stores them."""
    rows = [{"example_id": f"e{i}", "template": "caption", "response": t, "choices": [], "answers": ["x"], "objects": sorted(h)} for i, (t, h) in enumerate(zip(texts, held, strict=True))]
    return pd.DataFrame(rows)


def test_metrics_of_objects_are_chair() -> None:
    texts, _, held = drawn(200)
    rows = frame(texts, held)
    expected = chair.chair(texts, held, chair.nouns(NAMES))
    judged = metrics.judge(rows, "chair_s", vocabulary=NAMES)
    found = {name: metrics.score(judged, name, vocabulary=NAMES)["value"] for name in metrics.shown("scene_captions", rows)}
    assert found == pytest.approx({"chair_s": expected.chair_s, "chair_i": expected.chair_i, "object_recall": expected.recall, "caption_words": expected.words})
    assert (judged["outcome"] == "right").sum() == 200 - round(2 * expected.chair_s) - (judged["outcome"] == "unparsed").sum()
    assert not metrics.METRICS["chair_s"].higher_is_better and not metrics.METRICS["chair_i"].higher_is_better


@pytest.mark.parametrize("name", ["chair_s", "chair_i", "object_recall"])
def test_what_may_be_invented_is_the_vocabulary_and_not_what_pictures_asked_about_hold(name: str) -> None:
    rows = frame(["a dog", "a cat"], [{"dog"}, {"dog"}])
    expected = {"chair_s": 50, "chair_i": 50, "object_recall": 50}
    assert metrics.score(rows, name, vocabulary=("cat", "dog"))["value"] == expected[name], "no picture asked about holds a cat, and it is invented"
    assert metrics.score(rows, name, whole=rows, vocabulary=("cat", "dog", "bus"))["value"] == expected[name]
    with pytest.raises(ValueError, match=f"{name} reads captions by the names .* must be collected again"):
        metrics.judge(rows, name, whole=rows)


def test_synonyms_are_read_by_the_lines_of_a_vocabulary() -> None:
    rows = frame(["a puppy and a woman", "a hound", "on the train track"], [{"dog"}, {"person"}, set()])
    judged = metrics.judge(rows, "chair_s", vocabulary=chair.coco_vocabulary(SYNONYMS))
    assert judged["parsed"].tolist() == ["dog; person", "dog", ""] and judged["value"].tolist() == [100, 100, 0]
    found = {name: metrics.score(rows, name, vocabulary=chair.coco_vocabulary(SYNONYMS))["value"] for name in ("chair_i", "object_recall")}
    assert found == pytest.approx({"chair_i": 200 / 3, "object_recall": 50})


def test_what_captions_invent_stands_beside_cider_where_a_set_has_it() -> None:
    rows = frame(["a dog"], [{"dog"}])
    shown = ("cider", "bleu_4", "rouge_l")
    assert metrics.shown("cider", rows, dataset="coco_captions") == (*shown, *metrics.CAPTIONED)
    assert metrics.shown("cider", rows, dataset="flickr30k") == metrics.shown("cider", rows.drop(columns="objects"), dataset="coco_captions") == shown


def test_answers_without_objects_are_left_out_and_none_is_refused() -> None:
    rows = frame(["a dog", "a cat"], [{"dog"}, {"dog"}])
    rows["objects"] = pd.Series([["dog"], None], dtype=object)
    assert metrics.score(rows, "chair_s", vocabulary=NAMES)["n"] == 1
    assert metrics.shown("scene_captions", rows.drop(columns="objects")) == ("caption_words",)
    with pytest.raises(ValueError, match="no examples with objects: there is nothing to judge .of published captions COCO's have objects, where"):
        metrics.judge(rows.drop(columns="objects"), "chair_s", vocabulary=NAMES)
