"""Figures of what changes as a setting does: paths of two metrics, and groups of users."""

import polars as pl
from matplotlib import ticker
from matplotlib.axes import Axes

from interestkit.plots.compared import draw_dots
from interestkit.plots.drawing import (
    BLUE,
    GREY,
    VERMILION,
    finish,
    make_axes,
    need,
    nothing,
    shown,
)


def tradeoff_path(
    table: pl.DataFrame,
    *,
    x: str,
    y: str = "NDCG",
    strength: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How one metric pays for another as a goal gets more weight: a mark for each strength.

    Args:
        table: Columns strength, metric, value, of one goal: rows of `TradeOffs.table`.
        x: Metric of the x axis.
        y: Metric of the y axis.
        strength: The strength that is marked, beside 0, which has a hollow mark.
        ax: Where to draw; None makes a figure.
    """
    need(table, "strength", "metric", "value")
    ax = make_axes(ax)
    rows = table.pivot("metric", index="strength", values="value", sort_columns=False)
    if rows.is_empty():
        return nothing(ax, shown(x), shown(y))
    need(rows, x, y)
    rows = rows.sort("strength")
    ax.plot(rows[x].to_numpy(), rows[y].to_numpy(), ".-", color=GREY, linewidth=1.2)
    for wanted, colour, inside in ((0.0, BLUE, "white"), (strength, VERMILION, VERMILION)):
        for point in rows.filter(pl.col("strength") == wanted).iter_rows(named=True):
            ax.plot(point[x], point[y], "o", color=colour, markerfacecolor=inside, markersize=8)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(5))
    return finish(ax, f"{shown(y)} against {shown(x)}", shown(x), shown(y))


def user_groups(table: pl.DataFrame, *, what: str = "value", ax: Axes | None = None) -> Axes:
    """A mean of each model in each group of users, with its 95 % interval as a line.

    Args:
        table: Columns group, model, value, low, high, in the order in which they are drawn.
        what: Name of the value.
        ax: Where to draw; None makes a figure.
    """
    need(table, "group", "model", "value", "low", "high")
    groups, models = table["group"].n_unique(), table["model"].n_unique()
    ax = make_axes(ax, rows=round(groups * (0.6 + 0.4 * models)) + 3)
    xlabel = f"{shown(what)} (line: 95 % interval)"
    if table.is_empty():
        return nothing(ax, xlabel, "users")
    draw_dots(ax, table, "group", "model")
    return finish(ax, f"{shown(what)} by group of users", xlabel, "users")
