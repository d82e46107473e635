"""Frames of estimates to Axes, and the files of a figure: svg, pdf and the csv of what is drawn."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, NullFormatter

from peftlab import metrics, paths, style

WIDTH = 6.3  # inches: the text width of the report
BESIDE, COLUMNS = 14, 4  # the most methods of a legend beside the axes; of more, the columns of one below them
APART = 0.17  # rows between the two states of the connector of one method


@style.styled
def main_results(scores: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A block per data set, a row per method: accuracy with its interval, the connector's states apart.

    `scores` has the columns of `estimates.scores` and may hold baselines (`estimates.baselines`, column ``baseline``), which are
    vertical lines through their block: dashed for the untouched base, dotted for the rest.
    """
    ax = _blocks(scores[scores["method"].notna() & (scores["method"] != "none")], ax)
    for block in ax.peftlab_blocks:
        lines = _of(scores, block)
        for row in lines[(lines["method"] == "none") | lines["method"].isna()].to_dict("records"):
            _line(ax, row, block)
    ax.set_xlabel(f"{_quantity(scores)}, 95 % interval")
    ax.set_xlim(left=0)
    base = Line2D([], [], color=style.BASE, linestyle="--", label="Untouched base")
    dots = [Line2D([], [], color=style.BASE, linestyle=dash, label=style.label("baseline", b)) for b, dash in DASHES.items() if "baseline" in scores and b in set(scores["baseline"])]
    _legend(ax, scores, [base, *dots])
    return ax


def _quantity(frame: pd.DataFrame) -> str:
    """What the axis of a frame's means shows: the one metric with its unit, or accuracy."""
    named = frame["metric"].dropna().unique() if "metric" in frame else []
    how = metrics.metric(named[0]) if len(named) == 1 else metrics.metric("exact")
    return f"{how.label} ({how.unit})"


DASHES: dict[str, Any] = {"majority": (0, (4, 1.5, 1, 1.5)), "chance": ":"}


def _line(ax: Axes, row: dict[str, Any], block: dict[str, Any]) -> None:
    dash = "--" if row["method"] == "none" else DASHES.get(row.get("baseline"))
    if dash is not None:
        ax.plot([row["mean"]] * 2, [block["top"], block["bottom"]], linestyle=dash, color=style.BASE, linewidth=1, zorder=1)


@style.styled
def differences(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A block per data set, a row per method: the paired difference in points with its interval, against a line at zero."""
    ax = _blocks(frame, ax)
    ax.axvline(0, color=style.BASE, linewidth=0.8, zorder=1)
    ax.set_xlabel("Paired difference (points), 95 % interval")
    _legend(ax, frame, [])
    return ax


@style.styled
def to_base(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """`differences` to the untouched base."""
    ax = differences(frame, ax=ax)
    ax.set_xlabel("Difference to the untouched base (points), 95 % interval")
    return ax


@style.styled
def to_shuffled(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """`differences` to the same method tuned with shuffled pictures."""
    ax = differences(frame, ax=ax)
    ax.set_xlabel("Difference to tuning with shuffled pictures (points), 95 % interval")
    return ax


@style.styled
def hallucination(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """A block per data set tuned on, a row per method: accuracy of the probe with its interval.

    `frame` is `estimates.hallucination`'s, of one quantisation: the untouched base and always saying yes are vertical lines through every block.
    """
    ax = _blocks(frame[frame["dataset"].notna()], ax)
    lines = [(frame["method"] == "none", "--", "Untouched base"), (frame["method"].isna(), ":", "Always yes")]
    for chosen, dash, _ in lines:
        for row, block in product(frame[chosen].to_dict("records"), ax.peftlab_blocks):
            if row.get("model") == block["model"]:
                ax.plot([row["mean"]] * 2, [block["top"], block["bottom"]], linestyle=dash, color=style.BASE, linewidth=1, zorder=1)
    ax.set_xlabel("Accuracy of the probe (%), 95 % interval")
    ax.set_xlim(left=0)
    _legend(ax, frame, [Line2D([], [], color=style.BASE, linestyle=dash, label=name) for _, dash, name in lines])
    return ax


@style.styled
def cost(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Mean accuracy against the parameters that train (log), a point per method and state of the connector.

    `frame` joins `estimates.averages` with the column ``trainable`` of `estimates.costs`; the untouched base, which trains
    nothing, is a dashed line. Of several models each has axes of its own, of which the first are returned.
    """
    return _facets(partial(_cost, beside=frame["method"]), frame, ax, 3.1)


def _cost(frame: pd.DataFrame, ax: Axes, *, beside: Iterable[str]) -> None:
    base = frame[frame["method"] == "none"]
    for row in base.to_dict("records"):
        ax.axhline(row["mean"], color=style.BASE, linestyle="--", linewidth=1, zorder=1)
    if len(base):
        ax.annotate("Untouched base", (1, float(base["mean"].iloc[0])), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points", ha="right", fontsize="small", color=style.BASE)
    _points(ax, frame[frame["method"] != "none"].to_dict("records"), "trainable", "mean", vertical=True, beside=beside)
    ax.set(xscale="log", xlabel="Parameters that train", ylabel="Mean accuracy (%), 95 % interval")
    ax.xaxis.set_major_formatter(EngFormatter(sep="\N{NO-BREAK SPACE}"))  # a power of ten would need mathtext, which labels from a user's card must not reach
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True)


@style.styled
def forgetting(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """What is kept against what is learned: the mean of the seen sets, or of the study's own sources (A_S), over the score on the target (A_T), a point per tuned model.

    `frame` is `estimates.forgetting`'s, of one target. Dashed lines are the bare base: above and right of both, nothing was lost and something won.
    Of several models or precisions each has axes of its own, of which the first are returned.
    """
    return _facets(partial(_forgetting, beside=frame["method"]), frame, ax, 3.4)


def _forgetting(frame: pd.DataFrame, ax: Axes, *, beside: Iterable[str]) -> None:
    rows = frame[frame["part"].isin(("A_S", "A_T"))].pivot_table(index=["method", "connector"], columns="part", values=["mean", "low", "high"], sort=False)
    up, across = list[dict[str, Any]](), list[dict[str, Any]]()
    for (method, connector), row in rows.iterrows():
        kept, won = (row[[("mean", part), ("low", part), ("high", part)]].to_numpy() for part in ("A_S", "A_T"))
        if method == "none":
            ax.axhline(kept[0], color=style.BASE, linestyle="--", linewidth=1, zorder=1)
            ax.axvline(won[0], color=style.BASE, linestyle="--", linewidth=1, zorder=1)
            continue
        one = {"method": method, "connector": connector}
        up.append(one | {"other": won[0], "mean": kept[0], "low": kept[1], "high": kept[2]})
        across.append(one | {"other": kept[0], "mean": won[0], "low": won[1], "high": won[2]})
    _points(ax, up, "other", "mean", vertical=True, beside=beside)
    _points(ax, across, "mean", "other", vertical=False, beside=beside)
    ax.set(xlabel=f"Score on {style.label('dataset', frame['dataset'].iloc[0])}, the target (%), 95 % interval", ylabel=f"Mean score on the {'source' if 'sources' in frame else 'seen'} sets (%), 95 % interval")
    ax.grid(True)


# ---------------------------------------------------------------- drawing


def _axes(ax: Axes | None, height: float) -> Axes:
    return ax if ax is not None else plt.subplots(figsize=(WIDTH, height))[1]


def _facets(draw: Callable[[pd.DataFrame, Axes], None], frame: pd.DataFrame, ax: Axes | None, height: float) -> Axes:
    """Axes for each model and precision of the frame, one below the other, with one legend; the first are returned."""
    parts = style.apart(frame)
    if len(parts) > 1 and ax is not None:
        raise ValueError(f"the frame holds {len(parts)} models or precisions, which one Axes would mix: give it one of them, or no Axes")
    found = [_axes(ax, height)] if len(parts) == 1 else plt.subplots(len(parts), 1, figsize=(WIDTH, height * len(parts)), sharex=True)[1]
    for one, (model, precision, (mine,)) in zip(found, parts, strict=True):
        draw(mine, one)
        if model or precision:
            one.set_title(", ".join(filter(None, (model, precision))))
    _methods_legend(found[0], frame)
    return found[0]


def _of(frame: pd.DataFrame, block: dict[str, Any]) -> pd.DataFrame:
    """The rows of a block: of its data set and its model, None where the frame names no model."""
    mine = frame[frame["dataset"] == block["dataset"]]
    return mine if block["model"] is None else mine[mine["model"] == block["model"]]


def _blocks(frame: pd.DataFrame, ax: Axes | None) -> Axes:
    """Points with intervals, a block of rows per data set, and per model where there are several; the blocks' extents are left on the Axes as `peftlab_blocks`."""
    of = [m for m in style.order("model") if m in set(frame["model"])] if "model" in frame else [None]
    chosen, several = [{"dataset": d, "model": m} for m in of for d in style.order("dataset")], len(of) > 1
    found = [(names, block) for names in chosen if len(block := _of(frame, names))]
    shares = [style.shown("method", block["method"]) for _, block in found]
    ax = _axes(ax, 0.75 + 0.19 * max(3, sum(len(shown) + 1 for shown in shares)))
    ax.peftlab_blocks = []
    places, labels, rows, end = [], [], [], -1.2
    for (names, block), shown in zip(found, shares, strict=True):
        top = end + 1.2
        end = top + len(shown)
        ax.peftlab_blocks.append({**names, "top": top - 0.4, "bottom": top + len(shown) - 0.6})
        title = style.label("dataset", names["dataset"]) + (f", {block['group'].iloc[0]}" if "group" in block else "") + (f", {style.label('model', names['model'])}" if several else "")
        ax.annotate(title, (0, top - 0.7), xycoords=("axes fraction", "data"), fontweight="bold", va="center", xytext=(2, 0), textcoords="offset points", zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        places += [top + j for j in range(len(shown))]
        labels += [style.label("method", method) for method in shown]
        states = block["method"].value_counts()
        for row in block.to_dict("records"):
            shift = 0 if states[row["method"]] == 1 else APART * (1 if row["connector"] == "tuned" else -1)
            rows.append(row | {"place": top + shown.index(row["method"]) + shift})
    _points(ax, rows, "mean", "place", vertical=False, beside=frame["method"])
    ax.set_yticks(places, labels)
    ax.set_ylim(end - 0.4, -1.1)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(True, axis="x")
    return ax


def _points(ax: Axes, rows: Iterable[dict[str, Any]], x: str, y: str, *, vertical: bool, beside: Iterable[str]) -> None:
    """Rows and their intervals, those of one look at once: a study has hundreds of points, which one by one take seconds, and few looks."""
    looks: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for row in rows:
        looks.setdefault((row["method"], row["connector"], pd.isna(row["low"])), []).append(row)
    for (method, connector, alone), mine in looks.items():
        bounds = None if alone else [[row["mean"] - row["low"] for row in mine], [row["high"] - row["mean"] for row in mine]]
        ax.errorbar(
            [row[x] for row in mine], [row[y] for row in mine], **{"yerr" if vertical else "xerr": bounds}, color=style.colour(method), marker=style.marker(method, beside), markersize=4.5,
            markerfacecolor=style.fill(connector, method), markeredgewidth=1, elinewidth=1, capsize=0, linestyle="none", zorder=3, clip_on=False,  # a marker at zero is whole
        )  # fmt: skip


def _states(frame: pd.DataFrame) -> list[Line2D]:
    """The states of the connector that are drawn."""
    drawn = set(frame["connector"][frame["method"].notna() & (frame["method"] != "none")])
    return [
        Line2D([], [], marker="o", linestyle="none", color=style.BASE, markersize=4.5, markerfacecolor=face, label=style.label("connector", state))
        for state, face in (("frozen", "white"), ("tuned", style.BASE)) if state in drawn
    ]


def _legend(ax: Axes, frame: pd.DataFrame, more: list[Line2D]) -> None:
    ax.legend(handles=[*_states(frame), *more], loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handletextpad=0.4, columnspacing=1.2)


def _methods_legend(ax: Axes, frame: pd.DataFrame) -> None:
    shown = style.shown("method", set(frame["method"].dropna()) - {"none"})
    looks = [Line2D([], [], marker=style.marker(m, shown), linestyle="none", color=style.colour(m), markersize=4.5, label=style.label("method", m)) for m in shown]
    if len(looks) <= BESIDE:
        ax.legend(handles=[*looks, *_states(frame)], loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0, handletextpad=0.3)
        return
    size = ax.figure.get_size_inches()
    ax.figure.set_size_inches(size[0], size[1] + 0.16 * (len(looks) + 2) / COLUMNS)  # room for what is below the axes
    ax.figure.legend(handles=[*_states(frame), *looks], loc="outside lower center", ncols=COLUMNS, handletextpad=0.3, columnspacing=1.2)


# ---------------------------------------------------------------- files


@style.styled
def save(ax: Axes, name: str, frame: pd.DataFrame, *, folder: Path | None = None) -> Path:
    """Write <name>.svg, .pdf and .csv (the frame drawn) into `folder` (report/build/figures): the same frame, the same bytes.

    Returns the path of the svg. The name is the function's, the file's and the caption's.
    """
    folder = folder or paths.build() / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    ax.figure.set_layout_engine("none")  # laid out once: both files have 72 points to the inch
    ax.figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return folder / f"{name}.svg"
