"""Figures of models through time, and of what changed for whom."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from interestkit.plots.drawing import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    days,
    draw_intervals,
    finish,
    make_axes,
    name_rows,
    names_in,
    need,
    nothing,
    nth_colour,
    put_legend_below,
    rows_of,
    shown,
    styled,
    time_axis,
)

_WAYS = {"updated": BLUE, "retrained": BLACK, "never updated": ORANGE}
_MOST_ROWS = 25


@styled
def prequential_curve(
    table: pl.DataFrame, target: str = "items", *, ax: Axes | None = None
) -> Axes:
    """Score of each model in each period, before it was shown the period, with 95 % intervals.

    `table` is `Prequential.curve()`, `target` one of "items", "new items" and "interests".
    """
    need(table, "period", "model", "target", "value", "low", "high")
    xlabel, ylabel = "beginning of the period", "NDCG (0 to 1)"
    ax = make_axes(ax)
    if table.is_empty():
        return nothing(ax, xlabel, ylabel)
    rows = rows_of(table, target=target).sort("period")
    models = names_in(rows, "model")
    times = days(rows["period"])
    gap = 0.02 * max(np.ptp(times), 1)  # so that no interval hides another
    for number, model in enumerate(models):
        own = rows.filter(pl.col("model") == model)
        place = days(own["period"]) + gap * (number - (len(models) - 1) / 2)
        look = {"color": _WAYS.get(model, nth_colour(number)), "label": shown(model)}
        draw_intervals(ax, place, own, number, linewidth=1.5, **look)
    time_axis(ax)
    ax.margins(x=0.05, y=0.1)
    put_legend_below(ax)
    title = f"Coming period, {shown(target)}: higher is better (line: 95 % interval)"
    return finish(ax, title, xlabel, ylabel)


@styled
def interest_drift(table: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Share of each interest before and after, the most changed on top.

    An arrow goes from before to after; the grey band is where 95 % of the later shares would be if
    nothing had changed. What drifted, corrected for the number of interests, is red and filled: one
    that is not may still end beyond the band, as one in twenty does by chance.

    `table` is `Drift.table`; rows that are no single interest are left out.
    """
    need(table, "aspect", "name", "before", "after", "low", "high", "is_drift")
    rows = table.filter(pl.col("aspect") == "interest")
    rows = rows.sort((pl.col("after") - pl.col("before")).abs(), descending=True)[:_MOST_ROWS]
    xlabel, ylabel = "share of events (%; grey: 95 % if nothing had changed)", "interest"
    ax = make_axes(ax, rows=len(rows))
    if rows.is_empty():
        return nothing(ax, xlabel, ylabel)
    for place, row in enumerate(rows.iter_rows(named=True)):
        before, after = 100 * row["before"], 100 * row["after"]
        band = [before + 100 * row["low"], before + 100 * row["high"]]
        ax.plot(band, [place, place], color=GREY, alpha=0.35, linewidth=7, solid_capstyle="butt")
        colour = VERMILION if row["is_drift"] else BLUE
        ax.plot([before, after], [place, place], color=colour, linewidth=1.5)
        ax.plot(before, place, "|", color=colour, markersize=9)
        marker = ">" if after >= before else "<"
        fill = colour if row["is_drift"] else "white"
        ax.plot(after, place, marker, color=colour, markersize=6, markerfacecolor=fill)
    name_rows(ax, [shown(name) for name in rows["name"]])
    found = int(rows["is_drift"].sum())
    title = f"Before (line) and after (arrow): {found} of {len(rows)} drifted (filled)"
    return finish(ax, title, xlabel, ylabel)
