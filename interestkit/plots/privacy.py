"""Figures of privacy: what a promise costs, and what an attack finds."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from interestkit.plots.drawing import (
    BLUE,
    GREY,
    MARKERS,
    colour_of,
    finish,
    make_axes,
    need,
    need_one_of,
    nothing,
    nth_colour,
    plain_numbers,
    put_legend_below,
    shown,
    styled,
)

_DASHES = ("--", ":", "-.")


@styled
def privacy_curve(
    table: pl.DataFrame, target: str, *, model: str = "private", ax: Axes | None = None
) -> Axes:
    """Accuracy of private models by epsilon, with levels of models that promise nothing.

    Args:
        table: Columns target, metric, model, epsilon (infinite without noise) and value, in any
            number of seeds; where there are low and high, they are the ends of a 95 % interval.
        target: One of the table's targets, which must have one metric.
        model: Name of the private models; each other model is a level across the figure.
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If a column is missing, or no row has the target.
    """
    need(table, "target", "metric", "model", "epsilon", "value")
    xlabel = "epsilon of the promise (smaller hides more)"
    if table.is_empty():
        return nothing(make_axes(ax), xlabel, "value")
    need_one_of("target", target, table["target"].unique(maintain_order=True).to_list())
    rows = table.filter(pl.col("target") == target)
    ax = make_axes(ax)
    ends = [name for name in ("low", "high") if name in rows.columns]
    means = rows.group_by("model", "epsilon", maintain_order=True).agg(pl.mean("value", *ends))
    own = means.filter(pl.col("model") == model).sort("epsilon")
    places = np.arange(len(own))
    if len(ends) == 2 and len(own):
        ax.fill_between(places, own["low"], own["high"], color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(places, own["value"], "o-", color=BLUE, label=shown(model))
    others = means.filter(pl.col("model") != model).unique("model", maintain_order=True)
    for number, row in enumerate(others.iter_rows(named=True)):
        style = {"color": colour_of(row["model"]), "linestyle": _DASHES[number % len(_DASHES)]}
        ax.axhline(row["value"], label=shown(row["model"]), **style)
    names = ["no noise" if np.isinf(e) else f"{e:g}" for e in own["epsilon"]]
    ax.set_xticks(places, names)
    ax.margins(x=0.08, y=0.12)
    put_legend_below(ax)
    metric = shown(rows["metric"][0])
    return finish(ax, f"{metric} of {shown(target)} by what is promised", xlabel, metric)


@styled
def membership(curves: Mapping[str, pl.DataFrame], *, ax: Axes | None = None) -> Axes:
    """How many members an attack finds, by how many others it takes for members.

    Args:
        curves: By model, columns false_positives and found (`MembershipAttack.roc()`).
        ax: Where to draw; None makes a figure.
    """
    xlabel, ylabel = "others taken for members (share)", "members found (share)"
    ax = make_axes(ax)
    if not curves:
        return nothing(ax, xlabel, ylabel)
    for number, (name, curve) in enumerate(curves.items()):
        need(curve, "false_positives", "found")
        x, y = (curve[column].to_numpy() for column in ("false_positives", "found"))
        every = max(len(x) // 8, 1)
        style = {"marker": MARKERS[number % len(MARKERS)], "markevery": every, "markersize": 5}
        ax.plot(x, np.maximum(y, 1e-4), color=nth_colour(number), label=shown(name), **style)
    ax.plot([1e-4, 1], [1e-4, 1], "--", color=GREY, label="a blind guess")
    ax.set(xscale="log", yscale="log", xlim=(3e-4, 1.1), ylim=(3e-4, 1.3))
    for axis in (ax.xaxis, ax.yaxis):
        plain_numbers(axis)
    put_legend_below(ax)
    return finish(ax, "Members found by LiRA, by false alarms", xlabel, ylabel)
