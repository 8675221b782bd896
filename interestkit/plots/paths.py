"""Figures beside the widgets: paths of two metrics, groups of users, points on a map."""

import polars as pl
from matplotlib import ticker
from matplotlib.axes import Axes

from interestkit.plots.compared import draw_dots, with_unit
from interestkit.plots.drawing import (
    BLUE,
    CYCLE,
    GREY,
    VERMILION,
    finish,
    make_axes,
    need,
    nothing,
    put_legend,
    shown,
    styled,
)


@styled
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
        return nothing(ax, with_unit(x), with_unit(y))
    need(rows, x, y)
    rows = rows.sort("strength")
    ax.plot(rows[x].to_numpy(), rows[y].to_numpy(), ".-", color=GREY, linewidth=1.2)
    for wanted, colour, inside in ((0.0, BLUE, "white"), (strength, VERMILION, VERMILION)):
        for point in rows.filter(pl.col("strength") == wanted).iter_rows(named=True):
            ax.plot(point[x], point[y], "o", color=colour, markerfacecolor=inside, markersize=8)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(5))
    return finish(ax, f"{shown(y)} against {shown(x)}", with_unit(x), with_unit(y))


@styled
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


@styled
def interest_points(table: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Items and users as points of a map, coloured by the most frequent interests among them.

    Args:
        table: Columns kind ("item" or "user"), interest (None where there is none), x, y.
        ax: Where to draw; None makes a figure.
    """
    need(table, "kind", "interest", "x", "y")
    ax = make_axes(ax, rows=18)
    if table.is_empty():
        return nothing(ax, "place (no unit)", "place (no unit)")
    names = frequent_interests(table)[: len(POINT_COLOURS)]
    for kind, mark in (("item", "o"), ("user", "s")):
        part = table.filter(pl.col("kind") == kind)
        size = 40 / max(len(table), 1) ** 0.25
        groups = [(name, part.filter(pl.col("interest") == name)) for name in names]
        other = pl.col("interest").is_null() | ~pl.col("interest").is_in(names)
        for number, (name, rows) in enumerate([("other", part.filter(other)), *groups]):
            colour = POINT_COLOURS[number - 1] if number else OTHER_POINTS
            label = shown(name) if kind == "item" else "_"
            fill = {"color": colour} if kind == "item" else {"edgecolors": colour, "c": "none"}
            look = {"s": size, "linewidths": 0.7, "label": label, "marker": mark} | fill
            ax.scatter(rows["x"].to_numpy(), rows["y"].to_numpy(), **look)
    ax.set(xticks=[], yticks=[], aspect="equal")
    put_legend(ax)
    counts = [f"{(table['kind'] == kind).sum():,} {kind}s" for kind in ("item", "user")]
    title = f"{counts[0]} (discs) and {counts[1]} (squares): near is alike"
    return finish(ax, title, "place (no unit)", "place (no unit)")


POINT_COLOURS = CYCLE[:-1]  # of the most frequent interests
OTHER_POINTS = "#B3B3B3"


def frequent_interests(table: pl.DataFrame) -> list[str]:
    """Interests of a map, those of most points first."""
    counts = table["interest"].drop_nulls().value_counts()
    return counts.sort("count", "interest", descending=[True, False])["interest"].to_list()
