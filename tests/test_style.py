"""Every level has a place, a label and a look, and nobody else touches rcParams."""

import re
from itertools import combinations

import pytest
from matplotlib.colors import to_rgb

from peftlab import methods, paths, style


def test_every_method_has_its_own_look() -> None:
    looks = {(style.colour(m), style.marker(m)) for m in methods.METHODS}
    assert len(looks) == len(methods.METHODS)
    assert style.colour("none") == style.BASE


def test_many_methods_would_still_differ() -> None:
    n = len(style.PALETTE) * len(style.MARKERS)
    looks = {(i % len(style.PALETTE), (i + i // len(style.PALETTE)) % len(style.MARKERS)) for i in range(n)}
    assert len(looks) == n


def test_no_two_methods_of_a_figure_are_alike_as_far_as_there_are_markers() -> None:
    tuned = [m for m in methods.METHODS if m != "none"]
    for drawn in combinations([*tuned[:4], *tuned[8:12], tuned[16]], len(style.MARKERS)):  # of one colour and, by themselves, of one marker are among them
        assert len({style.marker(m, drawn) for m in drawn}) == len(drawn), drawn
    core = [m for m, card in methods.METHODS.items() if card.group == "core" and m != "none"]
    assert [style.marker(m, tuned) for m in core] == [style.marker(m, core) for m in core] == [style.marker(m) for m in core], "a method keeps the marker of its own where it can"
    of, other = tuned[0], tuned[len(style.PALETTE)]
    ways = [f"{of}@steps={n}" for n in (10, 20, 30)]
    for drawn in (tuned, [*ways, other], [*tuned[1:], *ways]):
        assert len({(style.colour(m), style.marker(m, drawn)) for m in drawn}) == len(drawn)
    assert style.colour(of) == style.colour(other) and style.marker("none", tuned) == style.marker("none") == "o"
    assert style.marker(of, [of, None, float("nan"), "none"]) == style.marker(of)


def simulate(colour: str, kind: str) -> tuple[float, float, float]:
    """A colour as a dichromat sees it (Vienot, Brettel and Mollon 1999), in linear RGB."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    l, m, s = 17.8824 * r + 43.5161 * g + 4.11935 * b, 3.45565 * r + 27.1554 * g + 3.86714 * b, 0.0299566 * r + 0.184309 * g + 1.46709 * b
    l, m = (2.02344 * m - 2.52581 * s, m) if kind == "protan" else (l, 0.494207 * l + 1.24827 * s)
    return (
        0.0809444479 * l - 0.130504409 * m + 0.116721066 * s,
        -0.0102485335 * l + 0.0540193266 * m - 0.113614708 * s,
        -0.000365296938 * l - 0.00412161469 * m + 0.693511405 * s,
    )


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_colours_of_the_methods_stay_apart_for_the_colour_blind(kind: str) -> None:
    seen = {m: simulate(style.colour(m), kind) for m, card in methods.METHODS.items() if card.group == "core"}
    for a, b in combinations(seen, 2):
        distance = sum((x - y) ** 2 for x, y in zip(seen[a], seen[b])) ** 0.5
        assert distance > 0.02, (a, b)


def test_labels_come_from_the_cards() -> None:
    assert style.label("method", "ia3") == methods.METHODS["ia3"].label
    for axis in ("model", "method", "dataset", "connector", "pictures", "kind"):
        assert all(style.label(axis, level) for level in style.order(axis))
    with pytest.raises(ValueError, match="choose one of none"):
        style.label("method", "lroa")
    with pytest.raises(ValueError, match="have an order"):
        style.order("colour")


def test_only_style_touches_rcparams() -> None:
    for file in (paths.root() / "lib").rglob("*.py"):
        if file.name != "style.py":
            assert not re.search(r"rcParams|rc_context|set_theme|set_style", file.read_text()), file
