"""The probe of presence: balanced per kind of absentee, absentees absent, popular ones popular, adversarial ones usual companions."""

from collections import Counter
from itertools import islice

import numpy as np
import pandas as pd
import pytest

from peftlab import datasets, probes, records
from peftlab.datasets import scenes
from peftlab.probes import Statistics
from peftlab.questions import alike


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Every question of the probe on 60 test scenes, and the training scenes' things, prepared in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTLAB_WORK", str(tmp_path_factory.mktemp("work")))
        patch.setenv("PEFTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        records.write_examples("scenes", {"base": islice(datasets.load("scenes", "base"), 900), "test": islice(datasets.load("scenes", "test"), 180), "simple": datasets.load("scenes", "simple", 40)})
        yield probes.examples("presence"), records.read_objects("scenes", "base"), probes.examples("presence", size=60, seed=3)


def test_each_kind_has_as_many_yes_as_no(asked) -> None:
    counts = Counter((e.template, e.answers[0]) for e in asked[0])
    assert set(counts) == {(kind, answer) for kind in probes.ABSENTEES for answer in ("yes", "no")} and len(set(counts.values())) == 1
    assert len({e.example_id for e in asked[0]}) == len(asked[0]) == probes.PER_PICTURE * len({e.picture_id for e in asked[0]})


def test_answers_are_true_and_names_are_of_the_training_scenes(asked) -> None:
    known = Statistics.of(asked[1]).names
    for e in asked[0]:
        assert (e.asset in e.objects) == (e.answers[0] == "yes") and e.asset in known
        if e.answers[0] == "no":
            assert not any(alike(e.asset, there) for there in e.objects)


def test_popular_absentees_are_more_frequent_and_adversarial_ones_come_together(asked) -> None:
    known = Statistics.of(asked[1])
    absent = {kind: [e for e in asked[0] if e.template == kind and e.answers == ("no",)] for kind in probes.ABSENTEES}
    often = {kind: np.mean([known.names[e.asset] for e in found]) for kind, found in absent.items()}
    together = {kind: np.mean([sum(known.together[there, e.asset] for there in e.objects) for e in found]) for kind, found in absent.items()}
    assert often["popular"] > 2 * often["random"]
    assert together["adversarial"] > 2 * together["random"] and together["adversarial"] > together["popular"]


def test_adversarial_is_what_was_most_often_together() -> None:
    known = Statistics.of([("cow", "barn")] * 9 + [("cow", "tulip")] * 8 + [("cow", "fork")] * 7 + [("cow", "kite")] * 6 + [("bus", "sock")] * 99)
    drawn = {probes.absent("adversarial", ("cow",), known, np.random.default_rng(seed)) for seed in range(40)}
    assert drawn == {"barn", "tulip", "fork", "kite"}
    assert {probes.absent("popular", ("cow",), known, np.random.default_rng(seed)) for seed in range(40)} == {"bus", "sock", "barn", "tulip"}


def test_wording_does_not_tell_the_answer_and_one_is_new(asked) -> None:
    yes, no = (Counter(e.phrasing for e in asked[0] if e.answers == (answer,)) for answer in ("yes", "no"))
    assert yes == no and len(yes) == len(probes.WORDINGS)
    trained = {w.format(a_word="a cow") for w in scenes.WORDINGS["presence"]}
    assert {w.format(a_name="a cow") for w in probes.WORDINGS} - trained


def test_a_size_is_whole_pictures_and_the_seed_decides_which(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(asked[2]) == 60 and len({e.picture_id for e in asked[2]}) == 10
    assert [e.picture_id for e in asked[2]] != [e.picture_id for e in asked[0]][:60]


def test_an_unknown_probe_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="choose one of presence"):
        probes.examples("absence")


def test_pope_is_asked_on_whole_pictures_as_it_was_published(work, cache) -> None:
    """Three kinds, a yes and a no each, on four pictures; the probe reads the data set of its name."""
    from PIL import Image

    from peftlab.run import Run

    kinds = [(kind, answer) for kind in probes.ABSENTEES for answer in ("yes", "no")]
    rows = [
        records.Example(f"p{i}-{kind}-{answer}", f"p{i}", Image.new("RGB", (4, 4)), f"Is there a {answer} thing in the image?", (answer,), kind, 0, "thing")
        for kind, answer in kinds for i in range(4)
    ]  # fmt: skip
    records.write_examples("pope", {"test": rows})
    two = probes.examples("pope", size=12, seed=1)
    assert Counter((e.template, e.answers[0]) for e in two) == dict.fromkeys(kinds, 2) and len({e.picture_id for e in two}) == 2
    assert {e.picture_id for e in two} != {e.picture_id for e in probes.examples("pope", size=12, seed=2)}
    assert len(probes.examples("pope")) == 24
    with pytest.raises(ValueError, match="probe_size is 8; a multiple of 6, at most 24"):
        probes.examples("pope", size=8)
    assert records.probed(Run(probe="pope")) == "pope" and records.probed(Run()) == "scenes"
    assert records.inputs(Run(probe="pope"), "probe")["data"] == records.digests("pope")["test"]


def test_repope_is_asked_on_whole_pictures_however_many_questions_they_have_left(work, cache) -> None:
    from PIL import Image

    from peftlab import metrics
    from peftlab.run import Run

    rows = [records.Example(f"p{i}-{j}", f"p{i}", Image.new("RGB", (4, 4)), f"Is there a thing {j} in the image?", ("no",), "random", 0, "thing") for i in range(5) for j in range(i + 2)]
    records.write_examples("repope", {"test": rows})
    run = Run(probe="repope", probe_size=11)
    some = probes.examples(run.probe, size=run.probe_size, seed=1)
    counts = Counter(e.picture_id for e in some)
    assert 6 <= len(some) <= 11 and all(n == int(picture[1:]) + 2 for picture, n in counts.items())
    assert counts.keys() != {e.picture_id for e in probes.examples("repope", size=11, seed=2)} and len(probes.examples("repope")) == 20
    assert records.probed(run) == "repope" and probes.ANSWER_TOKENS.keys() == probes.PROBES.keys() and metrics.shown("repope", pd.DataFrame()) == metrics.POPE
    for size in (5, 21):
        with pytest.raises(ValueError, match=f"probe_size is {size}; from 6 .questions a picture, at most. to 20, or None"):
            probes.examples("repope", size=size)


def test_captions_are_asked_of_whole_scenes_once(asked) -> None:
    every, few = probes.examples("scene_captions"), probes.examples("scene_captions", size=20, seed=1)
    assert len({e.picture_id for e in every}) == len(every) and all(e.objects and e.question == "Describe the picture." for e in every)
    assert len(few) == 20 and {e.picture_id for e in few} < {e.picture_id for e in every}
    assert probes.balanced(asked[0]) and not probes.balanced(asked[0][1:]) and probes.balanced(every)
    with pytest.raises(ValueError, match="probe_size is 9999; there are"):
        probes.examples("scene_captions", size=9999)


def test_clean_captions_are_of_simple_scenes_whose_names_are_taught(asked) -> None:
    from peftlab.run import Run

    every, few = probes.examples("clean_captions"), probes.examples("clean_captions", size=8, seed=1)
    taught = {name for objects in asked[1] for name in objects}
    assert every and all(set(e.objects) <= taught and len(e.objects) <= 2 and e.question == "Describe the picture." for e in every)
    left = [e for e in records.read_examples("scenes", "simple") if not set(e.objects) <= taught]
    assert len(every) + len(left) == 40 and len(few) == 8 and {e.example_id for e in few} < {e.example_id for e in every}
    assert records.inputs(Run(probe="clean_captions"), "probe")["data"] == records.digests("scenes")["simple"] != records.inputs(Run(), "probe")["data"]
    with pytest.raises(ValueError, match=f"probe_size is 41; there are {len(every)} scenes of things whose names are taught"):
        probes.examples("clean_captions", size=41)
    held = {name for split in ("base", "test", "simple") for objects in records.read_objects("scenes", split) for name in objects}
    assert set(records.read_vocabulary("scenes")) == held > taught
