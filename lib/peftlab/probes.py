"""Hallucination probes: the questions asked; how an answer is judged is in `metrics`.

Probe ``presence`` follows POPE (Li et al. 2023, arXiv 2305.10355) on the prepared test scenes: each picture gets, for each kind
of absentee, one question about a thing that is there and one about a thing that is not: *random*, *popular* (frequent in the
training scenes) or *adversarial* (often together in the training scenes with what is there). Probe ``pope`` is POPE itself: its three
sets of questions on COCO's pictures, as published; ``repope`` the same with the labels of RePOPE (github.com/YanNeu/RePOPE).

Probe ``scene_captions`` asks for a description of whole test scenes, whose things are known exactly: which of those it names are not there (CHAIR)?
Most of those hold a thing whose name was never taught, so that the base captions few of them without an error. Probe ``clean_captions`` asks
the same of scenes of one or two things from test cut-outs whose names the base's own scenes hold (the split ``simple``): the pictures that
the protocol of Zhou et al. (2024, section 5.5) takes those from which the base captions without an error.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from peftlab import records
from peftlab.questions import UNNAMED, a, alike, captions
from peftlab.records import Example

ABSENTEES = ("random", "popular", "adversarial")
TOP = 4  # a popular or adversarial absentee is one of the first so many of its ranking
PER_PICTURE = 2 * len(ABSENTEES)
WORDINGS = ("Is there {a_name} in the picture?", "Can {a_name} be seen in this picture?", "Does this picture show {a_name}?")


@dataclass(frozen=True)
class Statistics:
    """What the training scenes hold: how often each name, and how often each pair of names in one picture."""

    names: Counter[str]
    together: Counter[tuple[str, str]]

    @classmethod
    def of(cls, pictures: Sequence[Sequence[str]]) -> "Statistics":
        """Counted over the names of the things in each picture."""
        names = Counter(name for picture in pictures for name in set(picture))
        return cls(names, Counter(pair for picture in pictures for pair in permutations(sorted(set(picture)), 2)))


def absent(kind: str, present: Sequence[str], known: Statistics, rng: np.random.Generator) -> str:
    """A name of the training scenes that is not `present`, nor to be mistaken for one that is, of a kind of `ABSENTEES`."""
    names = [n for n in sorted(known.names) if n not in UNNAMED and not any(alike(n, there) for there in present)]
    if kind == "random":
        return names[rng.integers(len(names))]
    seen = {n: sum(known.together[there, n] for there in present) if kind == "adversarial" else 0 for n in names}
    return sorted(names, key=lambda n: (-seen[n], -known.names[n], n))[rng.integers(TOP)]


def _presence(size: int | None, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    known = Statistics.of(records.read_objects("scenes", "base"))
    scenes = list({e.picture_id: e for e in records.read_examples("scenes", "test")}.values())
    scenes = [e for e in scenes if _askable(e, known)]
    wanted = len(scenes) if size is None else size // PER_PICTURE
    if size is not None and (size % PER_PICTURE or wanted > len(scenes)):
        raise ValueError(f"probe_size is {size}; a multiple of {PER_PICTURE}, at most {PER_PICTURE * len(scenes)} (questions a picture x pictures), or None")
    return [q for i in rng.permutation(len(scenes))[:wanted] for q in _questions(scenes[i], known, rng)]


def _askable(scene: Example, known: Statistics) -> list[str]:
    return [n for n in scene.objects if n in known.names and n not in UNNAMED]


def _questions(scene: Example, known: Statistics, rng: np.random.Generator) -> list[Example]:
    """A yes and a no for each kind of absentee; the things that are there take turns."""
    there, asked = _askable(scene, known), []
    order, first = rng.permutation(len(there)), rng.integers(len(WORDINGS))
    for i, kind in enumerate(ABSENTEES):
        names = {"yes": there[order[i % len(there)]], "no": absent(kind, scene.objects, known, rng)}
        phrasing = int((first + i) % len(WORDINGS))
        for answer, name in names.items():
            asked.append(
                Example(
                    example_id=f"{scene.picture_id}-{kind}-{answer}",
                    picture_id=scene.picture_id,
                    image=scene.image,
                    question=WORDINGS[phrasing].format(a_name=a(name)),
                    answers=(answer,),
                    template=kind,
                    phrasing=phrasing,
                    asset=name,
                    objects=scene.objects,
                )
            )
    return asked


def _pope(size: int | None, seed: int) -> list[Example]:
    """POPE's questions on `size` / (questions a picture) pictures: each kind of absentee stays balanced within a picture."""
    names = records.picture_ids("pope", "test")
    pictures = list(dict.fromkeys(names))
    each, rest = divmod(len(names), len(pictures))
    if rest or (size is not None and (size % each or size > len(names))):
        raise ValueError(f"probe_size is {size}; a multiple of {each}, at most {len(names)} (questions a picture x pictures), or None")
    wanted = {pictures[i] for i in np.random.default_rng(seed).permutation(len(pictures))[: None if size is None else size // each]}
    return records.read_examples("pope", "test", pictures=wanted)


def _repope(size: int | None, seed: int) -> list[Example]:
    """RePOPE's questions on whole pictures, as many as have at most `size`: without the ambiguous ones no two need have the same number."""
    asked = Counter(records.picture_ids("repope", "test"))
    if size is not None and not max(asked.values()) <= size <= asked.total():
        raise ValueError(f"probe_size is {size}; from {max(asked.values())} (questions a picture, at most) to {asked.total()}, or None")
    pictures = [list(asked)[i] for i in np.random.default_rng(seed).permutation(len(asked))]
    total = np.cumsum([asked[picture] for picture in pictures])
    wanted = pictures if size is None else pictures[: int((total <= size).sum())]
    return records.read_examples("repope", "test", pictures=set(wanted))


def _captions(size: int | None, seed: int) -> list[Example]:
    return _drawn(captions(records.read_examples("scenes", "test")), size, seed, "test scenes to caption")


def _clean_captions(size: int | None, seed: int) -> list[Example]:
    taught = {name for objects in records.read_objects("scenes", "base") for name in objects}
    asked = [e for e in records.read_examples("scenes", "simple") if taught.issuperset(e.objects)]
    return _drawn(asked, size, seed, "scenes of things whose names are taught")


def _drawn(asked: list[Example], size: int | None, seed: int, what: str) -> list[Example]:
    """The first `size` of a seeded order, all with None; ValueError where there are fewer."""
    if size is not None and size > len(asked):
        raise ValueError(f"probe_size is {size}; there are {len(asked)} {what}, or None for all")
    return [asked[i] for i in np.random.default_rng(seed).permutation(len(asked))[:size]]


PROBES: dict[str, Callable[[int | None, int], list[Example]]] = {
    "presence": _presence,
    "pope": _pope,
    "repope": _repope,
    "scene_captions": _captions,
    "clean_captions": _clean_captions,
}
# The longest caption of a scene of four things has about 30.
ANSWER_TOKENS = {"presence": 12, "pope": 12, "repope": 12, "scene_captions": 40, "clean_captions": 40}


def balanced(asked: Sequence[Example]) -> bool:
    """Whether, of the yes/no questions among these, each kind has as many to affirm as to deny; RePOPE's do not."""
    counts = Counter((e.template, e.answers[0]) for e in asked)
    return all(counts[template, "yes"] == counts[template, "no"] for template in {e.template for e in asked})


def examples(probe: str, *, size: int | None = None, seed: int = 0) -> list[Example]:
    """The questions of a probe on the prepared test pictures: `size` of them (whole pictures), or all.

    Of presence ``template`` is the kind of absentee, ``asset`` the name asked about; each kind has as many yes as no.
    """
    if probe not in PROBES:
        raise ValueError(f"probe is {probe!r}; choose one of {', '.join(PROBES)} (lib/peftlab/probes.py)")
    return PROBES[probe](size, seed)
