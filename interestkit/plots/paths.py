"""Paths of two metrics and their Pareto front, rounds of a loop, groups of users, a map."""

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from matplotlib import ticker
from matplotlib.axes import Axes

from interestkit.comparison import is_lower_better
from interestkit.plots.compared import draw_dots, with_unit
from interestkit.plots.drawing import (
    BLACK,
    BLUE,
    CYCLE,
    GREY,
    VERMILION,
    count_axis,
    finish,
    make_axes,
    names_in,
    need,
    need_one_of,
    nothing,
    nth_colour,
    nth_marker,
    put_legend,
    rows_of,
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
def pareto_front(
    table: pl.DataFrame, *, x: str = "diversity", y: str = "NDCG", ax: Axes | None = None
) -> Axes:
    """Two metrics of lists towards each goal with each weight, and the front of all of them.

    A filled mark is on the front: no other has more of one metric and as much of the other. The
    line joins them; a hollow mark loses to some other in both, or in one at a tie.

    Args:
        table: Columns goal, strength, metric, value: `TradeOffs.table`.
        x: Metric of the x axis.
        y: Metric of the y axis; for both a smaller value of "miscalibration" is the better one.
        ax: Where to draw; None makes a figure.
    """
    need(table, "goal", "strength", "metric", "value")
    ax = make_axes(ax)
    notes = [", lower is better" if is_lower_better(name) else "" for name in (x, y)]
    labels = [with_unit(name, note) for name, note in zip((x, y), notes, strict=True)]
    if table.is_empty():
        return nothing(ax, *labels)
    rows = table.pivot("metric", index=["goal", "strength"], values="value", sort_columns=False)
    for name in (x, y):
        need_one_of("metric", name, rows.columns[2:])
    rows = rows.drop_nans([x, y]).drop_nulls([x, y])
    points = rows.select(x, y).to_numpy()
    is_best = _on_front(points * [-1 if note else 1 for note in notes])
    front = points[is_best][np.argsort(points[is_best][:, 0], kind="stable")]
    ax.plot(*front.T, "-", color=BLACK, linewidth=1, label="front", zorder=1)
    for number, goal in enumerate(names_in(rows, "goal")):
        of_goal = (rows["goal"] == goal).to_numpy()
        look = {"s": 30, "marker": nth_marker(number), "zorder": 2}
        colour = nth_colour(number)
        ax.scatter(*points[of_goal & ~is_best].T, facecolors="none", edgecolors=colour, **look)
        ax.scatter(*points[of_goal & is_best].T, color=colour, **look)
        ax.scatter([], [], color=colour, label=shown(goal), **look)
    put_legend(ax)
    return finish(ax, f"{shown(y)} against {shown(x)}: the front of all goals", *labels)


def _on_front(points: Float[np.ndarray, "points metrics"]) -> Bool[np.ndarray, " points"]:
    """True where no other point is as good in all metrics and better in one."""
    as_good = (points[None] >= points[:, None]).all(axis=2)
    better = (points[None] > points[:, None]).any(axis=2)
    return ~(as_good & better).any(axis=1)


@styled
def feedback_rounds(table: pl.DataFrame, metric: str, *, ax: Axes | None = None) -> Axes:
    """How a metric goes over the rounds of a feedback loop: a line for each policy.

    The band is the 95 % interval over seeds, where there is one. `table` is `Rounds.curve()`:
    policy, round, metric, value, low, high.
    """
    need(table, "policy", "round", "metric", "value", "low", "high")
    ax = make_axes(ax)
    if table.is_empty():
        return nothing(ax, "round", shown(metric))
    rows = rows_of(table, metric=metric)
    for number, name in enumerate(names_in(rows, "policy")):
        own = rows.filter(pl.col("policy") == name)
        x, value, low, high = own.select("round", "value", "low", "high").to_numpy().T
        look = {"color": nth_colour(number), "marker": nth_marker(number)}
        look |= {"markevery": max(1, len(x) // 6), "markersize": 5}
        ax.plot(x, value, linewidth=1.4, label=shown(name), **look)
        ax.fill_between(x, low, high, color=nth_colour(number), alpha=0.15, linewidth=0)
    count_axis(ax.xaxis)
    put_legend(ax)
    unit = "bits" if metric.startswith("entropy") else "0 to 1"
    title = f"{shown(metric)} by round (band: 95 % over seeds)"
    return finish(ax, title, "round", f"{shown(metric)} ({unit})")


@styled
def user_groups(table: pl.DataFrame, *, what: str = "value", ax: Axes | None = None) -> Axes:
    """A mean of each model in each group of users, with its 95 % interval as a line.

    `table` has columns group, model, value, low, high, in the order in which they are drawn, and
    `what` is the name of the value.
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

    `table` has columns kind ("item" or "user"), interest (None where there is none), x, y.
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
