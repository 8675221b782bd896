"""Figures of privacy: who is found in a log, what a promise costs, what an attack finds."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib import ticker
from matplotlib.axes import Axes

from interestkit.plots.drawing import (
    BLACK,
    BLUE,
    GREY,
    colour_of,
    draw_intervals,
    finish,
    make_axes,
    names_in,
    need,
    nothing,
    nth_colour,
    nth_marker,
    percent,
    plain_numbers,
    put_legend_below,
    rows_of,
    shown,
    styled,
)

_LIMIT = 0.01  # below it the axis is linear, above it logarithmic
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
    """
    need(table, "target", "metric", "model", "epsilon", "value")
    xlabel = "epsilon of the promise (smaller hides more)"
    rows, ax = rows_of(table, target=target), make_axes(ax)
    if rows.is_empty():
        return nothing(ax, xlabel, "value")
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

    `curves` has for each model columns false_positives and found (`MembershipAttack.roc()`).
    """
    xlabel, ylabel = "others taken for members (share)", "members found (share)"
    ax = make_axes(ax)
    if not curves:
        return nothing(ax, xlabel, ylabel)
    for number, (name, curve) in enumerate(curves.items()):
        need(curve, "false_positives", "found")
        x, y = (curve[column].to_numpy() for column in ("false_positives", "found"))
        every = max(len(x) // 8, 1)
        style = {"marker": nth_marker(number), "markevery": every, "markersize": 5}
        ax.plot(x, np.maximum(y, 1e-4), color=nth_colour(number), label=shown(name), **style)
    ax.plot([1e-4, 1], [1e-4, 1], "--", color=GREY, label="a blind guess")
    ax.set(xscale="log", yscale="log", xlim=(3e-4, 1.1), ylim=(3e-4, 1.3))
    for axis in (ax.xaxis, ax.yaxis):
        plain_numbers(axis)
    put_legend_below(ax)
    return finish(ax, "Members found by LiRA, by false alarms", xlabel, ylabel)


@styled
def reidentification(table: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How many people are found again in a log, by what is left of times and items.

    A mark for each time, a line for each number of users that an item must have had, with 95 %
    intervals. The axis is logarithmic above 1 %, the limit of what may be called anonymised.

    `table` is what `privacy.coarseness_curve` returns: time, min_item_users (null: items are
    interests), rate, low, high.
    """
    need(table, "time", "min_item_users", "rate", "low", "high")
    ax = make_axes(ax, rows=12)
    xlabel, ylabel = "what is left of the time of an event", "people found again (share)"
    if table.is_empty():
        return nothing(ax, xlabel, ylabel)
    times, groups = names_in(table, "time"), names_in(table, "min_item_users")
    for number, least in enumerate(groups):
        rows = table.filter(pl.col("min_item_users").eq_missing(least))
        place = np.array([times.index(time) for time in rows["time"]], float)
        place += 0.08 * (number - (len(groups) - 1) / 2)  # so that no interval hides another
        rows = rows.rename({"rate": "value"})
        draw_intervals(ax, place, rows, number, label=_items(least), linewidth=1.4)
    line = {"color": BLACK, "linewidth": 1, "linestyle": "--"}
    ax.axhline(_LIMIT, label="limit of “anonymised”", **line)
    ax.set_yscale("symlog", linthresh=_LIMIT)
    ax.set_ylim(0, 1.15)
    ax.set_yticks([0, 0.005, 0.01, 0.1, 1])
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    ax.yaxis.set_minor_locator(ticker.NullLocator())
    ax.set_xticks(range(len(times)), [shown(time) for time in times])
    put_legend_below(ax)
    ends = percent(table["rate"].min()), percent(table["rate"].max())
    return finish(ax, f"Found again: {ends[1]} at most, {ends[0]} at least", xlabel, ylabel)


def _items(least: int | None) -> str:
    """What a line stands for."""
    if least is None:
        return "interests only"
    return "all items" if least == 1 else f"items of {least:,}+ users"
