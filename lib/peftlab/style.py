"""Order, label, colour and marker of every level, and the only rcParams."""

import os
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "agg")  # no window is opened; in a notebook Jupyter has set its own

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ft2font import FT2Font

from peftlab import datasets, methods, models, ways

# Okabe and Ito's colours, told apart by every common kind of colour blindness; the base is grey, the rest in card order.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288")
BASE = "#555555"
MARKERS = ("o", "s", "^", "D", "v", "<", ">", "d")  # with room for a face at the size that figures draw: the arms of a plus or a cross are all edge, open as well as filled

RC = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "text.parse_math": False,  # a label may come from a user's card
    "svg.hashsalt": "peftlab",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.facecolor": "white",
}

CONNECTORS = {"frozen": "connector frozen", "tuned": "connector tuned"}
PICTURES = {"true": "true pictures", "shuffled": "shuffled pictures", "blank": "blank pictures"}
BASELINES = {"blank": "Base, blank pictures", "shuffled": "Base, shuffled pictures", "majority": "Most frequent answer", "question_only": "Question only", "chance": "Chance"}
KINDS = {"random": "Random", "popular": "Popular", "adversarial": "Adversarial", "present": "Present"}  # of things a probe asks about
QUANTISATIONS = {"none": "full precision", "nf4": "NF4", "nf4_single": "NF4, quantised once", "int8": "int8"}

PLAIN = {"connector": CONNECTORS, "quantisation": QUANTISATIONS, "pictures": PICTURES, "baseline": BASELINES, "kind": KINDS}


def context() -> AbstractContextManager[None]:
    """The project's rcParams, for the length of a ``with``."""
    return plt.rc_context(RC)


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A drawing function that runs under the project's rcParams, whoever calls it."""

    @wraps(draw)
    def within(*args: Any, **named: Any) -> Any:
        with context():
            return draw(*args, **named)

    return within


def order(axis: str) -> list[str]:
    """The levels of `axis` (model, method, dataset, connector, quantisation, pictures, baseline, kind) in the order of every table and figure."""
    cards = {"model": models.MODELS, "method": methods.METHODS, "dataset": datasets.names()}
    known = cards | PLAIN
    if axis not in known:
        raise ValueError(f"axis is {axis!r}; {', '.join(known)} have an order (lib/peftlab/style.py)")
    return list(known[axis])


def shown(axis: str, levels: Iterable[str]) -> list[str]:
    """The different levels among these, in the order of every table and figure; of methods each way to run one (`ways`)."""
    there = set(levels)
    return sorted(there, key=ways.place) if axis == "method" else [level for level in order(axis) if level in there]


def label(axis: str, level: str) -> str:
    """The pretty name of a level, as its card says it, of a way to run a method with what tells it apart; raises ValueError naming the choices."""
    known = ways.method(level) if axis == "method" else level
    if known not in order(axis):
        raise ValueError(f"{axis} is {level!r}; choose one of {', '.join(order(axis))}")
    cards = {"model": models.card, "dataset": datasets.card}
    return ways.label(level) if axis == "method" else cards[axis](level).label if axis in cards else PLAIN[axis][level]


def _place(method: str) -> int:
    tuned = [m for m in order("method") if m != "none"]
    return tuned.index(label("method", method) and ways.method(method))


def colour(method: str) -> str:
    """The colour of a method and of every way to run it, the same in every figure; the untouched base is grey."""
    return BASE if method == "none" else PALETTE[_place(method) % len(PALETTE)]


def marker(method: str, beside: Iterable[str] = ()) -> str:
    """The marker of a method: with its colour it is unique for 64 methods. Among those drawn `beside` it none has the same as far as there are markers, then none of its colour: who comes first in the order keeps the marker of its own."""
    return "o" if method == "none" else _markers(tuple(shown("method", {method, *(name for name in beside if isinstance(name, str))} - {"none"})))[method]


@lru_cache
def _markers(drawn: tuple[str, ...]) -> dict[str, str]:
    """A marker for each of the methods of a figure, given in their order; further ways to run one come after all that are the first of theirs."""
    found: dict[str, str] = {}
    firsts = {ways.method(name): name for name in reversed(drawn)}
    for name in sorted(drawn, key=lambda name: firsts[ways.method(name)] != name):
        own = _place(name) + _place(name) // len(PALETTE)
        turned = [MARKERS[(own + turn) % len(MARKERS)] for turn in range(len(MARKERS))]
        taken = set(found.values()), {found[other] for other in found if colour(other) == colour(name)}
        found[name] = next((m for used in taken for m in turned if m not in used), turned[0])
    return found


def fill(connector: str, method: str) -> str:
    """Marker face: open where the connector is frozen, filled where it is tuned."""
    return colour(method) if connector == "tuned" else "white"


def ordered(frame: pd.DataFrame, by: Iterable[str] = ("dataset", "method", "connector")) -> pd.DataFrame:
    """Rows in the order of the levels of columns `by`; columns that are not there are passed over."""
    by = [c for c in by if c in frame]
    ranks = {c: {level: i for i, level in enumerate(shown(c, frame[c].dropna()) if c == "method" else order(c))} for c in by}
    return frame.sort_values(by, key=lambda s: s.astype(object).map(ranks[s.name]), kind="stable").reset_index(drop=True) if by else frame


def apart(*frames: pd.DataFrame) -> list[tuple[str, str, list[pd.DataFrame]]]:
    """The frames of each model, and of each precision, apart, where the first frame holds several: (label of the model, precision, frames).

    Both are "" where there is one of it; a frame without the column is given to every one. A column of numbers is a score of that name, no axis.
    """
    axes = [axis for axis in ("model", "precision") if axis in frames[0] and not pd.api.types.is_numeric_dtype(frames[0][axis]) and frames[0][axis].nunique() > 1]
    if not axes:
        return [("", "", list(frames))]
    found = []
    for key in ordered(frames[0][axes].drop_duplicates(), ("model",)).to_dict("records"):
        mine = [frame[np.logical_and.reduce([frame[a] == level for a, level in key.items() if a in frame], initial=True) & np.ones(len(frame), dtype=bool)] for frame in frames]
        found.append((label("model", key["model"]) if "model" in key else "", str(key.get("precision", "")), mine))
    return found


def fonts() -> Path:
    """The folder of the fonts that matplotlib carries: the report falls back on DejaVu Sans for what its text font lacks."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@lru_cache
def _letters() -> frozenset[int]:
    return frozenset(FT2Font(str(fonts() / "DejaVuSans.ttf")).get_charmap())


def printable(text: str) -> str:
    """A text for print: a character that DejaVu Sans lacks (an emoji, say) becomes its name in angle brackets; control characters go."""
    shown = []
    for character in text:
        if character.isspace():
            shown.append(character if character in "\n\u00a0" else " ")
        elif unicodedata.category(character)[0] == "C" or character in "\ufe0e\ufe0f":
            continue
        elif ord(character) in _letters():
            shown.append(character)
        else:
            shown.append(f"⟨{unicodedata.name(character, f'U+{ord(character):04X}').lower()}⟩")
    return "".join(shown)
