"""Figures of logs that are given away."""

import numpy as np
import polars as pl
from matplotlib import ticker
from matplotlib.axes import Axes

from interestkit.plots.drawing import (
    BLACK,
    CYCLE,
    MARKERS,
    finish,
    make_axes,
    need,
    nothing,
    percent,
    put_legend_below,
    shown,
    styled,
)

_LIMIT = 0.01  # below it the axis is linear, above it logarithmic
_COLUMNS = ("time", "min_item_users", "rate", "low", "high")


@styled
def reidentification(table: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How many people are found again in a log, by what is left of times and items.

    A mark for each time, a line for each number of users that an item must have had, with 95 %
    intervals. The axis is logarithmic above 1 %, the limit of what may be called anonymised.

    Args:
        table: What `privacy.release.coarseness_curve` returns: time, min_item_users (null: items
            are interests), rate, low, high.
        ax: Where to draw; None makes a figure.
    """
    need(table, *_COLUMNS)
    ax = make_axes(ax, rows=12)
    xlabel, ylabel = "what is left of the time of an event", "people found again (share)"
    if table.is_empty():
        return nothing(ax, xlabel, ylabel)
    times = table["time"].unique(maintain_order=True).to_list()
    groups = table["min_item_users"].unique(maintain_order=True).to_list()
    for number, least in enumerate(groups):
        rows = table.filter(pl.col("min_item_users").eq_missing(least))
        place = np.array([times.index(time) for time in rows["time"]], float)
        place += 0.08 * (number - (len(groups) - 1) / 2)  # so that no interval hides another
        rate, low, high = (rows[name].to_numpy() for name in ("rate", "low", "high"))
        look = {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)]}
        look |= {"label": _items(least), "markersize": 5, "linewidth": 1.4, "capsize": 2}
        ax.errorbar(place, rate, yerr=np.maximum([rate - low, high - rate], 0), **look)
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
