"""Multiple-choice science: a picture, a line of context, a question, lettered options, the letter as the answer.

It stands in for ScienceQA's questions with a picture: natural science (groups of animals, diets, traits, names of things) and geography
(where a region lies, which touch, what is north of it, which is it). It cannot stand for its lectures, explanations, diagrams, physics or
grades. Context is true; for the names of regions and for diets it is what the answer needs, elsewhere it helps or only says what is shown.
Options are of one group and drawn alike, so that neither question nor options tell which is right. Maps and cut-outs are held out, and of
things that training shows too the (thing, fact) pairs. The letter is trained on; the option's text is accepted as well.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from peftlab import knowledge, maps, pictures
from peftlab.maps import Chart, Region
from peftlab.metrics.rules import LETTERS
from peftlab.questions import UNNAMED, Candidate, Poser, alike
from peftlab.records import Example

SHARES = {"place": 0.12, "region": 0.14, "border": 0.12, "direction": 0.12, "group": 0.1, "diet": 0.08, "trait": 0.18, "thing": 0.14}
COLOURS = {"red": (214, 48, 49), "blue": (45, 105, 210), "green": (46, 160, 67), "yellow": (250, 214, 60), "purple": (142, 68, 173), "orange": (240, 140, 30)}
HEADINGS = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}  # x to the right, y down
FAR = 0.45  # of the way from a country's middle to its edge, before a region counts as being in the north
ASIDE = 0.5  # greatest share of that heading in the other direction
APART = 14  # pixels between the middles of two regions before one is north of the other
SPARE = 0.01  # by which a letter may be commoner than its even share
THE = ("Dominican Republic", "Netherlands")  # countries with an article
MAP = "North is at the top of the map."
ANIMALS = {"mammal": "mammals", "bird": "birds", "fish": "fish", "insect": "insects"}
GROUPS = "Mammals feed milk to their young, birds have feathers, fish have gills and insects have six legs."
DIETS = {"plants": "herbivore", "meat": "carnivore", "both": "omnivore"}
DIET = "A herbivore eats plants, a carnivore eats meat and an omnivore eats both."
PLACES = ("left", "middle", "right")
TRAITS: dict[tuple[str, str], tuple[str, str]] = {  # attribute and value -> a line of context, how the question goes on
    ("lays eggs", "yes"): ("Some animals lay eggs, others bear living young.", "lays eggs"),
    ("lays eggs", "no"): ("Some animals lay eggs, others bear living young.", "bears living young"),
    ("can fly", "yes"): ("Wings do not always let an animal fly.", "is able to fly"),
    ("breathes with", "gills"): ("Gills take oxygen from water, lungs from air.", "takes its oxygen from water"),
    ("breathes with", "lungs"): ("Gills take oxygen from water, lungs from air.", "takes its oxygen from air"),
    ("eats", "plants"): ("Animals are consumers: they eat plants, other animals or both.", "eats nothing but plants"),
    ("eats", "meat"): ("Animals are consumers: they eat plants, other animals or both.", "eats nothing but animals"),
    ("active at", "night"): ("Nocturnal animals sleep by day.", "is nocturnal"),
    ("lives in", "sea"): ("A habitat is where a living thing finds what it needs.", "has the sea for its habitat"),
    ("lives in", "forest"): ("A habitat is where a living thing finds what it needs.", "has the forest for its habitat"),
    ("lives in", "grassland"): ("A habitat is where a living thing finds what it needs.", "has grassland for its habitat"),
    ("native to", "Africa"): ("A native animal lives in a place without being brought there.", "is native to Africa"),
    ("native to", "America"): ("A native animal lives in a place without being brought there.", "is native to America"),
    ("native to", "Asia"): ("A native animal lives in a place without being brought there.", "is native to Asia"),
    ("legs", "4"): ("Legs are counted in pairs.", "walks on two pairs of legs"),
    ("legs", "6"): ("Legs are counted in pairs.", "walks on three pairs of legs"),
    ("legs", "2"): ("Legs are counted in pairs.", "walks on one pair of legs"),
    ("grows on", "tree"): ("Fruit and vegetables grow on trees, bushes and vines or close to the ground.", "grows on a tree"),
    ("grows on", "ground"): ("Fruit and vegetables grow on trees, bushes and vines or close to the ground.", "grows in or on the ground"),
    ("inside", "seeds"): ("A fruit protects the seeds of its plant.", "holds seeds"),
    ("made of", "metal"): ("A material is what a thing is made of.", "is made of metal"),
    ("made of", "cloth"): ("A material is what a thing is made of.", "is made of cloth"),
    ("powered by", "electricity"): ("A machine needs energy to work.", "takes its energy from electricity"),
    ("powered by", "fuel"): ("A machine needs energy to work.", "takes its energy from fuel"),
    ("powered by", "muscles"): ("A machine needs energy to work.", "takes its energy from muscles"),
    ("instrument family", "string"): ("Instruments sound by strings, by breath or by being struck.", "sounds by its strings"),
    ("instrument family", "percussion"): ("Instruments sound by strings, by breath or by being struck.", "sounds by being struck"),
    ("worn on", "head"): ("Clothes protect a part of the body.", "protects the head"),
}
NAMED = {  # kinds whose names are asked for -> what the context calls the things
    "celestial body": "These are bodies of the solar system and the sky.",
    "musical instrument": "These are musical instruments.",
    "tool": "These are tools.",
    "fruit": "These are fruits.",
    "vegetable": "These are vegetables.",
    "plant": "These are plants.",
    "mammal": "These are mammals.",
    "bird": "These are birds.",
    "fish": "These are fish.",
    "insect": "These are insects.",
    "land vehicle": "These are vehicles.",
    "electrical device": "These are machines.",
}


def _asked(*questions: str) -> tuple[str, ...]:
    """The questions between their context and their options."""
    return tuple("{context} " + question + " {options}" for question in questions)


WORDINGS: dict[str, tuple[str, ...]] = {
    "place": _asked(
        "In which part of {country} lies the red region?",
        "The red region belongs to which part of {country}?",
        "Towards which side of {country} is the red region found?",
        "Which part of {country} is painted red?",
    ),
    "region": _asked(
        "What is the name of the red region of {country}?",
        "Which region of {country} is red on the map?",
        "Name the region of {country} that is coloured red.",
        "The map of {country} marks one region in red: which one?",
    ),
    "border": _asked(
        "Which region borders the {colour} one?",
        "With which region does the {colour} one share a border?",
        "Which region is a neighbour of the {colour} region?",
        "The {colour} region touches which other one?",
    ),
    "direction": _asked(
        "Which region lies {heading} of the {colour} one?",
        "Going {heading} from the {colour} region, which one do you reach?",
        "Which of the regions is found to the {heading} of the {colour} one?",
        "To the {heading} of the {colour} region lies which one?",
    ),
    "group": _asked(
        "Which group of animals is shown?",
        "The animal in the picture belongs to which group?",
        "In which group do scientists put this animal?",
        "How is this animal classified?",
    ),
    "diet": _asked(
        "Which word describes the animal in the picture?",
        "By its diet, this animal is which of these?",
        "What is this animal, judged by its food?",
        "How do scientists call an animal with this one's diet?",
    ),
    "trait": _asked(
        "Which of the three {trait}?",
        "Look at the three pictures: which one {trait}?",
        "Only one of the three {trait}. Which?",
        "Among the three, which one {trait}?",
    ),
    "thing": _asked(
        "What does the picture show?",
        "Which of these is it?",
        "The picture shows which of them?",
        "Which name fits the picture?",
    ),
}

Posed = tuple[Image.Image, Candidate, list[str]]


def load(split: str, wanted: int) -> Iterator[Example]:
    """Yield `wanted` of the split's examples: one question a picture, because each template composes its own."""
    poser = Poser("science", split, WORDINGS, SHARES)
    made = 0
    while made < wanted:
        template = max(SHARES, key=lambda t: SHARES[t] * (made + 1) - poser.asked[t])
        if (posed := COMPOSE[template](split, poser.rng)) is not None:
            image, candidate, objects = posed
            asked = poser.pose(image, [candidate], objects=objects)
            yield from asked
            made += len(asked)


def lettered(template: str, answer: str, wrong: Sequence[str], asset: str, rng: np.random.Generator, *, context: str, **words: str) -> Candidate:
    """The candidate: options in random order under letters, the letter its answer, the option's text accepted too."""
    order = [str(option) for option in rng.permutation([answer, *wrong])]
    options = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, order))
    caps = ((f"{template}/{len(order)}", 1 / len(order) + SPARE),)
    return Candidate(template, LETTERS[order.index(answer)], asset, template, {**words, "context": context, "options": options}, caps, tuple(order), (answer,))


# ---------------------------------------------------------------- maps


def _chart(split: str, rng: np.random.Generator) -> Chart:
    found = maps.charts(split)
    return found[rng.integers(len(found))]


def _country(chart: Chart) -> str:
    return f"the {chart.name}" if chart.name in THE else chart.name


@cache
def _sides(chart: Chart) -> dict[str, tuple[Region, ...]]:
    """heading -> the regions that clearly lie on that side of their country, whether or not islands drawn in a corner are counted in."""
    found: dict[str, list[Region]] = {heading: [] for heading in HEADINGS}
    for region in chart.regions:
        places = [chart.offset(region, islands=islands) for islands in (True, False)]
        for heading, (right, down) in HEADINGS.items():
            if all(x * right + y * down >= max(FAR, (abs(x * down) + abs(y * right)) / ASIDE) for x, y in places):
                found[heading].append(region)
    return {heading: tuple(regions) for heading, regions in found.items()}


def _place(split: str, rng: np.random.Generator) -> Posed | None:
    """On which side of its country a region lies; sides are drawn alike."""
    heading = list(HEADINGS)[rng.integers(4)]
    fitting = [(chart, region) for chart in maps.charts(split) for region in _sides(chart)[heading]]
    chart, region = fitting[rng.integers(len(fitting))]
    others = [h for h in HEADINGS if h != heading]
    candidate = lettered("place", heading, others, f"{chart.id}/{region.name}", rng, context=MAP, country=_country(chart))
    return chart.draw({region.number: COLOURS["red"]}), candidate, []


def _region(split: str, rng: np.random.Generator) -> Posed | None:
    """Which region is red: the context says where each of the options lies."""
    chart = _chart(split, rng)
    sides = [heading for heading, regions in _sides(chart).items() if regions]
    if len(sides) < 3:
        return None
    shown = [sides[i] for i in rng.permutation(len(sides))]
    picked = {heading: _sides(chart)[heading][rng.integers(len(_sides(chart)[heading]))] for heading in shown}
    region, *rest = picked.values()
    told = [f"{r.name} lies in the {heading}" for heading, r in picked.items()]
    context = ", ".join(told[i] for i in rng.permutation(len(told))) + "."
    candidate = lettered("region", region.name, [r.name for r in rest], f"{chart.id}/{region.name}", rng, context=context, country=_country(chart))
    return chart.draw({region.number: COLOURS["red"]}), candidate, []


def _coloured(chart: Chart, shown: Sequence[Region], rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """The map with the regions in colours drawn at random, and the colours' names in their order."""
    names = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[: len(shown)]]
    return chart.draw({r.number: COLOURS[name] for r, name in zip(shown, names, strict=True)}), names


def _border(split: str, rng: np.random.Generator) -> Posed | None:
    """Which of three coloured regions touches a fourth; the two others do not even come near."""
    chart = _chart(split, rng)
    region = chart.regions[rng.integers(len(chart.regions))]
    beside = [r for r in chart.regions if (region.number, r.number) in chart.touching]
    away = [r for r in chart.regions if r is not region and (region.number, r.number) not in chart.near]
    if not beside or len(away) < 2:
        return None
    answer, rest = beside[rng.integers(len(beside))], [away[i] for i in rng.permutation(len(away))[:2]]
    image, names = _coloured(chart, [region, answer, *rest], rng)
    context = "Regions that share a border are neighbours."
    return image, lettered("border", names[1], names[2:], f"{chart.id}/{region.name}", rng, context=context, colour=names[0]), []


def _direction(split: str, rng: np.random.Generator) -> Posed | None:
    """Which of three coloured regions lies on one side of a fourth; the two others lie on other sides."""
    chart = _chart(split, rng)
    heading = list(HEADINGS)[rng.integers(4)]
    region = chart.regions[rng.integers(len(chart.regions))]
    beside, away = [], []
    for r in chart.regions:
        along = (r.x - region.x) * HEADINGS[heading][0] + (r.y - region.y) * HEADINGS[heading][1]
        across = abs((r.x - region.x) * HEADINGS[heading][1]) + abs((r.y - region.y) * HEADINGS[heading][0])
        if along >= APART and across <= ASIDE * along:
            beside.append(r)
        elif r is not region and along <= 0.3 * across:
            away.append(r)
    if not beside or len(away) < 2:
        return None
    answer, rest = beside[rng.integers(len(beside))], [away[i] for i in rng.permutation(len(away))[:2]]
    image, names = _coloured(chart, [region, answer, *rest], rng)
    return image, lettered("direction", names[1], names[2:], f"{chart.id}/{region.name}", rng, context=MAP, colour=names[0], heading=heading), []


# ---------------------------------------------------------------- things


@cache
def known(split: str) -> dict[str, dict[str, str]]:
    """name -> {attribute: value} that the split may ask of its cut-outs: its own pairs of things that training shows too, all of others'."""
    taught, shared = knowledge.facts(), knowledge.pairs(split)
    rows = pictures.table("facts")
    values = {(attribute, value) for facts in taught.values() for attribute, value in facts.items()}
    found: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys(pictures.things("stamp", split)["name"]):
        own = rows[rows["name"] == name]
        facts = {a: v for a, v in zip(own["attribute"], own["value"], strict=True) if (a, v) in values}
        found[name] = shared.get(name, {}) if name in taught else facts
    return found


@cache
def _facts() -> dict[str, dict[str, str]]:
    """name -> {attribute: value}, all that the pack says."""
    return {name: dict(zip(rows["attribute"], rows["value"], strict=True)) for name, rows in pictures.table("facts").groupby("name")}


@cache
def _shown(split: str) -> dict[str, tuple]:
    """name -> the rows of the split's cut-outs that show it."""
    rows = pictures.things("stamp", split)
    return {name: tuple(own.itertuples(index=False, name="Row")) for name, own in rows[["id", "file", "name", "kind"]].groupby("name", sort=True)}


def _row(split: str, name: str, rng: np.random.Generator) -> Any:
    """One of the split's cut-outs of a thing: a row with id, file, name and kind."""
    rows = _shown(split)[name]
    return rows[rng.integers(len(rows))]


def _alone(split: str, file: str, rng: np.random.Generator) -> Image.Image:
    """One cut-out in the middle of a light background."""
    canvas = pictures.background(rng, split)
    pictures.paste(canvas, file, tuple(80 + rng.integers(-10, 11, 2)), rng.uniform(100, 140))
    return canvas


def _group(split: str, rng: np.random.Generator) -> Posed | None:
    """To which group an animal belongs; groups are drawn alike."""
    kind = list(ANIMALS)[rng.integers(len(ANIMALS))]
    rows = [row for rows in _shown(split).values() for row in rows if row.kind == kind]
    row = rows[rng.integers(len(rows))]
    candidate = lettered("group", ANIMALS[kind], [ANIMALS[k] for k in ANIMALS if k != kind], row.id, rng, context=GROUPS)
    return _alone(split, row.file, rng), candidate, [row.name]


def _diet(split: str, rng: np.random.Generator) -> Posed | None:
    """Herbivore, carnivore or omnivore; diets are drawn alike."""
    value = list(DIETS)[rng.integers(len(DIETS))]
    names = [name for name, facts in known(split).items() if facts.get("eats") == value]
    if not names:
        return None
    row = _row(split, names[rng.integers(len(names))], rng)
    candidate = lettered("diet", DIETS[value], [d for v, d in DIETS.items() if v != value], row.id, rng, context=DIET)
    return _alone(split, row.file, rng), candidate, [row.name]


def _trait(split: str, rng: np.random.Generator) -> Posed | None:
    """Which of three things has a trait that the two others lack."""
    (attribute, value), (context, trait) = list(TRAITS.items())[rng.integers(len(TRAITS))]
    mine = [name for name, facts in known(split).items() if facts.get(attribute) == value]
    others = [name for name in _shown(split) if _facts().get(name, {}).get(attribute, value) != value]
    if not mine or len(others) < 2:
        return None
    name = mine[rng.integers(len(mine))]
    rest = [others[i] for i in rng.permutation(len(others))]
    near = sorted(rest, key=lambda other: _shown(split)[other][0].kind != _shown(split)[name][0].kind)
    names = [name, near[0], next((other for other in rest if other != near[0] and not alike(other, near[0])), near[1])]
    order = rng.permutation(3)
    canvas, rows = pictures.background(rng, split), [_row(split, names[i], rng) for i in order]
    for x, row in zip((28, 80, 132), rows, strict=True):
        pictures.paste(canvas, row.file, (x, 80 + rng.integers(-20, 21)), rng.uniform(44, 51))
    at = order.tolist().index(0)
    candidate = lettered("trait", PLACES[at], [p for p in PLACES if p != PLACES[at]], rows[at].id, rng, context=context, trait=trait)
    return canvas, candidate, [row.name for row in rows]


@cache
def _names(split: str) -> dict[str, tuple[str, ...]]:
    """kind -> the names that training teaches and the split shows."""
    train = _shown("train")
    taught = [n for n, rows in _shown(split).items() if n in train and n not in UNNAMED and rows[0].kind == train[n][0].kind]
    found = {kind: tuple(n for n in taught if train[n][0].kind == kind) for kind in NAMED}
    return {kind: names for kind, names in found.items() if names}


def _thing(split: str, rng: np.random.Generator) -> Posed | None:
    """What the thing is called, among others of its kind that nobody would take for it."""
    kind = list(_names(split))[rng.integers(len(_names(split)))]
    name = _names(split)[kind][rng.integers(len(_names(split)[kind]))]
    taught = _names("train")[kind]
    others: list[str] = []
    for other in (taught[i] for i in rng.permutation(len(taught))):
        if len(others) < 3 and not any(alike(other, there) for there in [name, *others]):
            others.append(other)
    if len(others) < 2:
        return None
    row = _row(split, name, rng)
    candidate = lettered("thing", name, others, row.id, rng, context=NAMED[kind])
    return _alone(split, row.file, rng), candidate, [name]


COMPOSE: dict[str, Callable[[str, np.random.Generator], Posed | None]] = {
    "place": _place, "region": _region, "border": _border, "direction": _direction, "group": _group, "diet": _diet, "trait": _trait, "thing": _thing,
}  # fmt: skip
