"""Poor photographs: blurred, dark, tilted, cut off or covered, and what a person who cannot see would ask of them.

It stands in for VizWiz: real photographs, spoken questions, pictures that do not hold the answer, soft accuracy. It cannot stand for blind
people's own pictures, for text on packages, or for ten people's opinions: the photographs are good ones that were damaged, and the ten
answers are made by rule (`opinions`): of a kind, five say the kind, three the thing's name and two a broader word, which the metric turns
into 100, 90 and 60; of a flaw, the same with three words for it; everything else has one answer, ten times, which the metric takes to the
letter. A question cannot be answered where the damage is past a measured limit (`visible` below `LOST`), or where it asks which of two kinds
is shown and neither is; no picture lies between the limits `LOST` and `CLEAR`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from peftlab import pictures
from peftlab.metrics import normalise
from peftlab.questions import Candidate, Poser, a
from peftlab.records import Example

UNANSWERABLE = "unanswerable"
PEOPLE = (5, 3, 2)  # of ten, who say the kind, the name, a broader word
KINDS = {  # kind in the pack -> the word for it and a broader one
    "mammal": ("mammal", "animal"),
    "bird": ("bird", "animal"),
    "fish": ("fish", "animal"),
    "insect": ("insect", "animal"),
    "reptile": ("reptile", "animal"),
    "monument": ("monument", "building"),
    "building": ("building", "structure"),
    "tool": ("tool", "object"),
    "kitchenware": ("kitchen thing", "object"),
    "electrical device": ("device", "machine"),
    "musical instrument": ("instrument", "object"),
    "sports equipment": ("ball", "object"),
}
CLOSE = ({"monument", "building"}, {"tool", "kitchenware", "electrical device"})  # never told apart in one question
UPRIGHT = ("monument", "building")  # kinds that a tilt is seen by
FLAWS = {  # strong flaw -> three words for it
    "blur": ("blurred", "blurry", "out of focus"),
    "dark": ("dark", "too dark", "black"),
    "cover": ("covered", "blocked", "finger"),
    "tilt": ("tilted", "crooked", "slanted"),
    "none": ("nothing", "no", "no flaw"),
}
SHARES = {"what": 0.4, "either": 0.25, "check": 0.15, "flaw": 0.2}
STRETCH = 1.4  # greatest ratio of a photograph's sides before it is brought to a square
LOSSES = 0.25  # share of pictures that show nothing
LOST, CLEAR = 0.08, 0.3  # of `visible`: below the first nothing can be made out, above the second a person can tell
WORDINGS: dict[str, tuple[str, ...]] = {
    "what": (
        "Can you tell me what I took a photo of?",
        "Please identify this for me.",
        "I cannot see it: what have I got here?",
        "What did my camera catch?",
    ),
    "either": (
        "Have I got {x} or {y} here?",
        "Help me decide: {x} or {y}?",
        "Please say whether my photo has {x} or {y}.",
        "My camera caught either {x} or {y}; which one?",
    ),
    "check": (
        "Did I catch {x} in my photo?",
        "Please check: have I got {x} here?",
        "Tell me whether my camera caught {x}.",
        "Can you confirm that my photo has {x}?",
    ),
    "flaw": (
        "What went wrong with my photo?",
        "What is the trouble with my photo, if any?",
        "Please tell me what is bad about my photo.",
        "Does anything spoil my photo, and what?",
    ),
}


@dataclass(frozen=True)
class Shot:
    """A damaged photograph: the picture (160, 160) RGB, its pack row, its one strong flaw ("none", "crop" too), how much of it can be made out."""

    image: Image.Image
    row: Any
    flaw: str
    visible: float


# ---------------------------------------------------------------- damage


def visible(image: Image.Image, whole: Image.Image) -> float:
    """How much of the undamaged picture's light and shade is left, 0 to 1: the slope of the differences between neighbours on theirs.

    Both are brought to 40 by 40 grey values first. Darkness by a factor g gives g; a blur what it leaves of edges; noise nothing.
    """
    one, other = (np.asarray(p.convert("L").resize((40, 40), Image.Resampling.BOX), float) for p in (image, whole))
    steps = [np.concatenate([np.diff(p, axis=0).ravel(), np.diff(p, axis=1).ravel()]) for p in (one, other)]
    return float(np.clip(steps[0] @ steps[1] / max(steps[1] @ steps[1], 1e-9), 0, 1))


def square(row: Any, rng: np.random.Generator, *, angle: float = 0.0, share: float = 1.0, corner: bool = False) -> Image.Image:
    """The photograph as (160, 160): turned by `angle` degrees, `share` of what then has no empty corner, from the middle or a corner.

    A side longer than `STRETCH` times the other is cut; the rest is brought to a square, so that nothing at an edge is lost.
    """
    photo = pictures.opaque(row.file)
    turned = photo.rotate(angle, Image.Resampling.BICUBIC)
    cos, sin = abs(np.cos(np.radians(angle))), abs(np.sin(np.radians(angle)))
    cut = np.minimum(photo.size, STRETCH * min(photo.size))
    rim = 3 if angle else 0  # pixels: at its edges a turned picture is half empty
    fit = min(1.0, (photo.width - rim) / (cut[0] * cos + cut[1] * sin), (photo.height - rim) / (cut[0] * sin + cut[1] * cos))
    size = cut * fit * share
    if corner:
        start = rng.integers(2, size=2) * (np.array(photo.size) - size)
    else:
        slack = cut * fit * (1 - share) / 2
        start = (np.array(photo.size) - size) / 2 + rng.uniform(-slack, slack)
    return turned.resize((pictures.SIDE, pictures.SIDE), Image.Resampling.BICUBIC, box=(*start, *(start + size)))


def _blurred(image: Image.Image, rng: np.random.Generator, low: float, high: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(low, high)))


def _darkened(image: Image.Image, rng: np.random.Generator, low: float, high: float) -> Image.Image:
    """Light times a factor, with a sensor's noise."""
    field = np.asarray(image, float) * rng.uniform(low, high) + rng.normal(0, 3, (*image.size[::-1], 1))
    return Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))


def _covered(image: Image.Image, rng: np.random.Generator, low: float, high: float) -> Image.Image:
    """A finger before the lens: skin, out of focus, from one side over a share of the picture."""
    share, side = rng.uniform(low, high), int(rng.integers(4))
    y, x = np.mgrid[: pictures.SIDE, : pictures.SIDE] / pictures.SIDE
    away = (x, 1 - x, y, 1 - y)[side] + 0.25 * ((y, y, x, x)[side] - rng.uniform(0.2, 0.8)) ** 2
    soft = Image.fromarray((255 * (away < np.quantile(away, share))).astype(np.uint8)).filter(ImageFilter.GaussianBlur(3))
    skin = np.array([(224, 172, 140), (198, 134, 98), (141, 85, 54)][rng.integers(3)]) + rng.integers(-12, 13, 3)
    return Image.composite(Image.new("RGB", image.size, tuple(int(v) for v in skin)), image, soft)


Damage = Callable[[Image.Image, np.random.Generator, float, float], Image.Image]
DAMAGE: dict[str, tuple[Damage, tuple[float, float], tuple[float, float]]] = {  # how, strong, past all telling
    "blur": (_blurred, (2.5, 4), (14, 22)),
    "dark": (_darkened, (0.32, 0.42), (0.01, 0.05)),
    "cover": (_covered, (0.28, 0.42), (0.93, 1.0)),
}


def take(row: Any, rng: np.random.Generator, *, lost: bool) -> Shot:
    """A photograph with one strong flaw or none, or with one past all telling; drawn again until its measure says the same."""
    while True:
        flaws = [*DAMAGE, "crop"] if lost else [*DAMAGE, "none", "none", *(["tilt"] if row.kind in UPRIGHT else ["crop"])]
        flaw = flaws[rng.integers(len(flaws))]
        angle = rng.uniform(24, 38) * rng.choice((-1, 1)) if flaw == "tilt" else 0.0 if row.kind in UPRIGHT else rng.uniform(-4, 4)
        share = rng.uniform(0.18, 0.24) if flaw == "crop" and lost else rng.uniform(0.6, 0.7) if flaw == "crop" else rng.uniform(0.93, 1.0)
        whole = square(row, rng, angle=angle, share=share, corner=flaw == "crop" and lost)
        image = DAMAGE[flaw][0](whole, rng, *DAMAGE[flaw][2 if lost else 1]) if flaw in DAMAGE else whole
        seen = share**2 if flaw == "crop" else visible(image, whole)
        if seen < LOST if lost else seen > CLEAR:
            return Shot(image, row, flaw, seen)


# ---------------------------------------------------------------- what can be asked of it


def opinions(*words: str) -> tuple[str, ...]:
    """Ten people's answers: three words are said by five, three and two of them, a word that comes twice by both; one word by all.

    The metric takes articles off where words differ: these come without them ("christ redeemer").
    """
    return tuple(word for word, people in zip(words, PEOPLE, strict=True) for _ in range(people)) if len(words) == 3 else words * 10


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples: up to two questions on a picture."""
    poser = Poser("photos", split, WORDINGS, SHARES)
    rows = tuple(pictures.things("photo", split)[["id", "file", "name", "kind"]].itertuples(index=False, name="Row"))
    by_kind = {kind: own for kind in KINDS if (own := [row for row in rows if row.kind == kind])}
    usual = {kind: len(own) ** 0.5 for kind, own in by_kind.items()}
    made = 0
    while made < wanted:
        own = by_kind[_drawn(usual, poser.rng)]
        shot = take(own[poser.rng.integers(len(own))], poser.rng, lost=bool(poser.rng.random() < LOSSES))
        asked = poser.pose(shot.image, candidates(shot, usual, poser.rng), objects=[shot.row.name], most=2)
        yield from asked[: wanted - made]
        made += len(asked)


def _drawn(usual: dict[str, float], rng: np.random.Generator) -> str:
    """A kind, each as likely as it is usual."""
    weights = np.array(list(usual.values()))
    return list(usual)[rng.choice(len(usual), p=weights / weights.sum())]


def _candidate(template: str, said: tuple[str, ...], shot: Shot, caps: tuple[tuple[str, float], ...], **words: str) -> Candidate:
    return Candidate(template, said[0], shot.row.id, template, words, caps, also=said[1:])


def _far(kind: str, other: str) -> bool:
    """Whether nobody would take one kind for the other."""
    return kind != other and not any({kind, other} <= row for row in CLOSE)


def candidates(shot: Shot, usual: dict[str, float], rng: np.random.Generator) -> list[Candidate]:
    """The questions on a picture. Kinds that it does not show are drawn as those shown are, or a rare one would be the wrong one."""
    kind, name, lost = shot.row.kind, shot.row.name, shot.visible < LOST
    word, broader = KINDS[kind]
    told = opinions(word, normalise(name), broader)
    nothing = opinions(UNANSWERABLE)
    others = {k: weight for k, weight in usual.items() if _far(kind, k)}
    one = _drawn(others, rng)
    two = _drawn({k: weight for k, weight in others.items() if k != one}, rng)
    found = [_candidate("what", nothing if lost else told, shot, (("what", 0.3),))]
    neither = lost or rng.random() < 0.15
    pair = [(one, two), (two, one)][rng.integers(2)] if neither else [(kind, one), (one, kind)][rng.integers(2)]
    if _far(*pair):
        x, y = (a(KINDS[k][0]) for k in pair)
        found.append(_candidate("either", nothing if neither else told, shot, (("either", 0.34), (f"either/{kind}", 0.75)), x=x, y=y))
    asked = kind if rng.random() < 0.5 else one
    said = nothing if lost else opinions("yes" if asked == kind else "no")
    found.append(_candidate("check", said, shot, (("check", 0.4), (f"check/{asked}", 0.5)), x=a(KINDS[asked][0])))
    if shot.flaw in FLAWS:
        found.append(_candidate("flaw", opinions(*FLAWS[shot.flaw]), shot, (("flaw", 0.24),)))
    return found
