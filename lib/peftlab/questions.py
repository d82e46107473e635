"""How questions are put: wordings, of which the last is kept for the test, and answers kept in balance."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from peftlab.records import Example


def generator(dataset: str, split: str) -> np.random.Generator:
    """The random generator of one split: it depends on the two names only."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{dataset}/{split}".encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class Candidate:
    """A question that could be asked of a picture.

    ``wording`` names a row of the wordings, ``words`` fills it. ``caps`` holds (key, share): among the questions counted under
    the key this answer may take at most that share, so that neither the template nor the words asked about give it away.
    ``also`` are further accepted answers, or further people's; the answer itself is the first and is trained on.
    """

    template: str
    answer: str
    asset: str
    wording: str
    words: Mapping[str, str] = field(default_factory=dict)
    caps: tuple[tuple[str, float], ...] = ()
    choices: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


class Poser:
    """Chooses and words the questions of one split.

    Templates are kept at their ``shares`` and answers below their caps. ``wordings`` has at least three sentences per row;
    the last is used in the split ``test`` only.
    """

    def __init__(self, dataset: str, split: str, wordings: Mapping[str, Sequence[str]], shares: Mapping[str, float]) -> None:
        self.dataset, self.split, self.wordings, self.shares = dataset, split, wordings, shares
        self.rng = generator(dataset, split)
        self.asked: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.answers: Counter[tuple[str, str]] = Counter()
        self.pictures = 0

    def pose(self, image: Image.Image, candidates: Sequence[Candidate], *, objects: Sequence[str] = (), most: int = 3) -> list[Example]:
        """At most `most` questions on a picture, each of another template; none where no answer has room."""
        picture_id = f"{self.dataset}-{self.split}-{self.pictures:05d}"
        chosen: list[Candidate] = []
        while len(chosen) < most:
            taken = {c.template for c in chosen}
            open_ = [c for c in candidates if c.template not in taken and self._has_room(c)]
            if not open_:
                break
            template = max({c.template: None for c in open_}, key=self._behind)
            pick = [c for c in open_ if c.template == template]
            chosen.append(pick[self.rng.integers(len(pick))])
            self._count(chosen[-1])
        self.pictures += bool(chosen)
        return [self._example(f"{picture_id}-{i}", picture_id, image, c, tuple(objects)) for i, c in enumerate(chosen)]

    def _behind(self, template: str) -> float:
        return self.shares[template] * (1 + self.asked.total()) - self.asked[template]

    def _has_room(self, candidate: Candidate) -> bool:
        return all(
            self.answers[key, candidate.answer] + 1 <= math.ceil(cap * (self.totals[key] + 1)) for key, cap in candidate.caps
        )

    def _count(self, candidate: Candidate) -> None:
        self.asked[candidate.template] += 1
        for key, _ in candidate.caps:
            self.totals[key] += 1
            self.answers[key, candidate.answer] += 1

    def _example(self, example_id: str, picture_id: str, image: Image.Image, c: Candidate, objects: tuple[str, ...]) -> Example:
        wordings = self.wordings[c.wording]
        phrasing = int(self.rng.integers(len(wordings) if self.split == "test" else len(wordings) - 1))
        return Example(
            example_id=example_id,
            picture_id=picture_id,
            image=image,
            question=wordings[phrasing].format(**c.words),
            answers=(c.answer, *c.also),
            template=c.template,
            phrasing=phrasing,
            asset=c.asset,
            choices=c.choices,
            objects=objects,
        )


PAIRS = ("briefs", "jeans", "pliers", "scissors", "shorts", "trousers", "tweezers", "headphones")


def a(noun: str) -> str:
    """The noun with its indefinite article: "an owl", "a unicycle", "a pair of pliers"."""
    if noun in PAIRS:
        return f"a pair of {noun}"
    return f"{'an' if noun[0] in 'aeio' or noun[:2] in ('um', 'un') and noun[:3] != 'uni' else 'a'} {noun}"


# Presence is not asked by these names: they are kinds of their own, or things that few people tell apart.
UNNAMED = ("fish", "flower", "tree", "hat", "candy cane", "nickel", "quarter", "penny", "dime", "half dollar", "cent coin")
UNNAMED += ("dollar coin", "euro coin", "yen coin", "mercury", "venus", "mars", "uranus", "neptune")
# Names that a person could take for one another.
ALIKE = (
    ("cow", "bull", "zebu", "bison", "yak", "gnu"),
    ("hen", "rooster", "chick", "guineafowl", "turkey", "roast turkey"),
    ("sheep", "ram", "lamb", "goat"),
    ("mouse", "rat"),
    ("dog", "dingo", "fox"),
    ("otter", "beaver", "ferret", "marmot", "badger", "capybara", "squirrel"),
    ("horse", "donkey", "zebra"),
    ("deer", "reindeer", "antelope", "goat"),
    ("duck", "goose", "rubber duck"),
    ("crow", "blackbird", "magpie", "lark", "swallow", "cuckoo"),
    ("crane", "heron", "flamingo", "ostrich", "rhea"),
    ("bee", "hornet", "hoverfly", "fly"),
    ("butterfly", "moth"),
    ("orange", "mandarin", "apricot", "peach"),
    ("lemon", "lime"),
    ("apple", "plum", "cherry", "pomegranate"),
    ("pumpkin", "squash"),
    ("potato", "yam"),
    ("pepper", "chili"),
    ("truck", "dumper", "bulldozer", "forklift", "tractor", "car"),
    ("train", "locomotive", "railway car"),
    ("cup", "mug", "glass", "pitcher"),
    ("pot", "teapot", "kettle", "pressure cooker"),
    ("hut", "cabin", "house", "farm", "inn", "stable", "warehouse", "jail"),
    ("castle", "fort", "monastery", "cathedral", "university", "town hall", "tower"),
    ("jeans", "trousers"),
    ("shirt", "t-shirt", "jacket"),
    ("telephone", "mobile phone"),
    ("monitor", "laptop"),
    ("airplane", "jet", "rocket"),
    ("violin", "cello", "guitar"),
    ("drum", "drum kit"),
    ("oak", "birch", "christmas tree"),
    ("hammer", "mallet"),
)


def alike(name: str, other: str) -> bool:
    """Whether a person could take one name for the other: equal, ending alike ("dump truck", "truck") or in a row of `ALIKE`."""
    return name.split()[-1] == other.split()[-1] or any(name in row and other in row for row in ALIKE)


def captions(examples: Iterable[Example]) -> list[Example]:
    """One caption per picture that names all its `objects`, in their order: what a connector is aligned on."""
    found: dict[str, Example] = {}
    for e in examples:
        if e.objects and e.picture_id not in found:
            text = "A picture of " + " and ".join(a(name) for name in e.objects) + "."
            found[e.picture_id] = replace(e, example_id=f"caption-{e.picture_id}", question="Describe the picture.", answers=(text,), template="caption", phrasing=0)
    return list(found.values())
