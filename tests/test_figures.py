"""Figures are tested through what they draw; their files are the same bytes for the same frame."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.ndimage import distance_transform_edt

from peftlab import collected, estimates, figures, methods, style


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def answers(study: Path) -> pd.DataFrame:
    return collected.read_results("smoke").predictions


def points(ax: Axes) -> list[tuple[float, float]]:
    """Centres of all points with an interval."""
    return [tuple(place) for c in ax.containers for place in c.lines[0].get_xydata()]


def lines(ax: Axes) -> list[Line2D]:
    """The lines through blocks."""
    return [line for line in ax.lines if line.get_linestyle() != "None"]


def test_main_results_draws_every_score_but_the_base(answers: pd.DataFrame) -> None:
    scores, baselines = estimates.scores(answers), estimates.baselines(answers, guesses=collected.read_results("smoke").guesses)
    ax = figures.main_results(pd.concat([scores, baselines]))
    tuned = scores[scores["method"] != "none"]
    assert sorted(x for x, _ in points(ax)) == pytest.approx(sorted(tuned["mean"]))
    drawn = [float(line.get_xdata()[0]) for line in lines(ax)]
    expected = [*scores.query("method == 'none'")["mean"], *baselines.query("baseline in ['majority', 'chance']")["mean"]]
    assert sorted(drawn) == pytest.approx(sorted(expected))
    assert [t.get_text() for t in ax.get_yticklabels()][:2] == ["Connector only", "Full fine-tuning"]


def test_intervals_are_drawn_as_they_are(answers: pd.DataFrame) -> None:
    frame = estimates.to_base(answers)
    ax = figures.to_base(frame)
    drawn = [(x, *segment[:, 0]) for c in ax.containers for (x, _), segment in zip(c.lines[0].get_xydata(), c.lines[2][0].get_segments(), strict=True)]
    assert np.array(sorted(drawn)) == pytest.approx(np.array(sorted(frame[["mean", "low", "high"]].itertuples(index=False))))
    assert {c.lines[0].get_color() for c in ax.containers} == {style.colour(method) for method in frame["method"]}


def test_functions_draw_on_given_axes_and_leave_rcparams(answers: pd.DataFrame, study: Path) -> None:
    before = dict(plt.rcParams)
    probe, shuffled = estimates.hallucination(answers), estimates.to_shuffled(answers)
    averages = estimates.averages(answers).query("group == 'unseen'").merge(estimates.costs(collected.read_results("smoke").costs)[["method", "connector", "trainable"]], how="left")
    for draw, frame in ((figures.hallucination, probe), (figures.cost, averages), (figures.to_shuffled, shuffled)):
        _, ax = plt.subplots()
        assert draw(frame, ax=ax) is ax
        assert ax.get_xlabel() and points(ax)
    assert dict(plt.rcParams) == before


def test_a_single_cluster_is_drawn_without_bounds(answers: pd.DataFrame) -> None:
    one = estimates.scores(answers.assign(picture_id="p", asset="a"))
    assert len(points(figures.main_results(one))) == 22


def test_save_is_deterministic(answers: pd.DataFrame, tmp_path: Path) -> None:
    frame = estimates.to_base(answers)
    for folder in ("a", "b"):
        figures.save(figures.to_base(frame), "to_base", frame, folder=tmp_path / folder)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["to_base.csv", "to_base.pdf", "to_base.svg"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert len(pd.read_csv(tmp_path / "a" / "to_base.csv")) == len(frame)


@pytest.mark.parametrize("number, below", [(5, False), (41, True)])
def test_every_method_has_a_legible_entry_inside_the_figure(number: int, below: bool) -> None:
    names = [m for m in style.order("method") if m != "none"][:number]
    frame = pd.DataFrame([{"method": m, "connector": "frozen", "trainable": 10.0 ** (3 + i % 6), "mean": 20.0, "low": 15.0, "high": 25.0} for i, m in enumerate(names)])
    ax = figures.cost(frame)
    ax.figure.canvas.draw()
    (legend,) = [*ax.figure.legends, *filter(None, [ax.get_legend()])]
    assert {style.label("method", m) for m in names} <= {t.get_text() for t in legend.get_texts()}
    box, whole = legend.get_window_extent(), ax.figure.bbox
    assert box.y0 >= -1 and box.y1 <= whole.y1 + 1 and box.x1 <= whole.x1 + 1
    assert (box.y1 <= ax.get_window_extent().y0) == below
    assert all("$" not in t.get_text() for t in ax.get_xticklabels(which="both"))


def face(method: str) -> float:
    """The diameter in points of the largest circle that the open marker of a method leaves free where the filled one has colour, as figures draw them."""
    drawn, dpi = {}, 720
    for state in style.order("connector"):
        figure = plt.figure(figsize=(0.15, 0.15), dpi=dpi)
        ax = figure.add_axes((0, 0, 1, 1), xlim=(-1, 1), ylim=(-1, 1))
        ax.axis("off")
        figures._points(ax, [{"method": method, "connector": state, "x": 0, "y": 0, "mean": 0, "low": None, "high": None}], "x", "y", vertical=True, beside=[method])
        figure.canvas.draw()
        drawn[state] = np.asarray(figure.canvas.buffer_rgba())[..., :3].min(axis=2) < 220
        plt.close(figure)
    return float(2 * distance_transform_edt(drawn["tuned"] & ~drawn["frozen"]).max() * 72 / dpi)


@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "none"])
def test_the_markers_of_the_connectors_two_states_are_told_apart(method: str) -> None:
    assert face(method) > 1.5, "the marker has no face to leave open"


@pytest.mark.parametrize("faceless", ["+", "x", "1", "P", "X", "*"])
def test_the_check_of_faces_can_fail(faceless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "marker", lambda *_: faceless)
    assert face("prefix") < 1.5


def test_figures_tell_models_apart(answers: pd.DataFrame, study: Path) -> None:
    scores = pd.concat([estimates.scores(answers), estimates.baselines(answers)])
    both = pd.concat([scores, scores.assign(model="pocket-resampler", mean=scores["mean"] / 2, low=scores["low"] / 2, high=scores["high"] / 2)])
    one, two = figures.main_results(scores), figures.main_results(both)
    assert len(two.peftlab_blocks) == 2 * len(one.peftlab_blocks) and len(points(two)) == 2 * len(points(one)) == len({y for _, y in points(two)})
    assert len(lines(two)) == 2 * len(lines(one)) > 0, "the base of each model runs through its own blocks alone"
    assert [t.get_text() for t in two.texts][::2] == ["Scenes, seen, Pocket (MLP)", "Scenes, seen, Pocket (resampler)"]
    probe = estimates.hallucination(answers)
    drawn = figures.hallucination(pd.concat([probe, probe.assign(model="pocket-resampler")]))
    assert len(lines(drawn)) == 2 * len(lines(figures.hallucination(probe))) > 0
    bought = scores[scores["method"].notna()].assign(trainable=1e6)
    ax = figures.cost(pd.concat([bought, bought.assign(model="pocket-resampler")]))
    assert [a.get_title(loc="left") for a in ax.figure.axes] == ["Pocket (MLP)", "Pocket (resampler)"] and len(points(ax)) == len(points(figures.cost(bought)))
    with pytest.raises(ValueError, match="2 models or precisions, which one Axes would mix"):
        figures.cost(pd.concat([bought, bought.assign(model="pocket-resampler")]), ax=ax)
