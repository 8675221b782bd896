"""Figures of explanations: what speaks for an interest, curves of removal, what sets hold."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from interestkit.limits import check_counts
from interestkit.plots.drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    finish,
    make_axes,
    name_rows,
    need,
    need_one_of,
    nothing,
    percent,
    put_legend,
    put_legend_below,
    shown,
    styled,
)
from interestkit.schema import TIME, TITLE

_ORDERS = {  # orders of `removal_curves`: name, colour, line
    "without": ("left out one by one", BLUE, "-"),
    "gradient": ("integrated gradients", GREEN, "--"),
    "newest": ("newest first", ORANGE, "-."),
    "random": ("random", GREY, ":"),
}
_WAYS = {"without": "left out", "gradient": "integrated gradient"}


@styled
def event_reasons(
    events: pl.DataFrame,
    *,
    target: str = "",
    way: str = "without",
    changing: pl.DataFrame | None = None,
    top: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Which past events of one user speak for an interest or an item, and which against it.

    Args:
        events: `Explanation.of` a user: place, item, title, time, and the column of `way`.
        target: Name of what is explained.
        way: "without": how many times as probable the target is for the event; "gradient": the
            event's part of that. Events of which it is NaN are left out.
        changing: Rows of `Counterfactuals.table` of the user: events without which something else
            comes first, which are drawn first and hatched. None or no rows leave them out.
        top: Events to draw: those that change something, then those that count most.
        ax: Where to draw; None makes a figure.
    """
    need(events, "place", "item", TITLE, TIME)
    need_one_of("way", way, list(_WAYS))
    need(events, way)
    check_counts(1, top=top)
    best = _chosen(events.drop_nans(way), way, changing, top)
    ax = make_axes(ax, rows=len(best) + 3)
    labels = ("times as probable for the event (log scale)", "event, time (UTC)")
    if best.is_empty():
        return nothing(ax, *labels)
    values = best[way].to_numpy().astype(float)
    hatches = ["////" if changes else "" for changes in best["is_changing"]]
    look = {"hatch": hatches, "edgecolor": "white", "height": 0.75}
    colours = np.where(values > 0, BLUE, VERMILION)
    ax.barh(np.arange(len(best)), np.exp(values) - 1, left=1, color=colours, **look)
    ax.axvline(1, color=BLACK, linewidth=1)
    _times_axis(ax, max(np.abs(values).max() * 1.1, 0.01))
    said = best.select(pl.coalesce(TITLE, "item")).to_series()
    times = best[TIME].dt.strftime("%Y-%m-%d")
    name_rows(ax, [f"{shown(n, 20)}, {t}" for n, t in zip(said, times, strict=True)])
    if any(hatches):
        hatched = Patch(facecolor=GREY, hatch="////", edgecolor="white")
        hatched.set_label("without these something else comes first")
        put_legend_below(ax, [hatched])
    what = f"{shown(target, 22)}: what" if target else "What"
    return finish(ax, f"{what} speaks for it and against it", *labels)


def _chosen(events: pl.DataFrame, way: str, changing: pl.DataFrame | None, top: int):
    """Events to draw, from the one that speaks most for the target."""
    places = [] if changing is None else changing["place"].to_list()
    rows = events.with_columns(is_changing=pl.col("place").is_in(places), size=pl.col(way).abs())
    best = rows.sort("is_changing", "size", "place", descending=[True, True, False]).head(top)
    return best.sort(way, "place", descending=[True, False])


def _times_axis(ax: Axes, reach: float) -> None:
    """A logarithmic axis around 1, the same distance up and down, with a few round numbers."""
    ax.set_xscale("log")
    ax.set_xlim(np.exp(-reach), np.exp(reach))
    steps = [1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 30, 100, 1_000, 1e6]
    step = next((s for s in reversed(steps) if np.log(s) <= reach * 0.9), steps[0])
    half = next((s for s in reversed(steps) if np.log(s) <= np.log(step) * 0.6), None)
    up = [s for s in (half, step) if s]
    ticks = sorted([*(1 / s for s in up), 1, *up])
    ax.set_xticks(ticks, [f"× {t:.3g}" if t >= 1 else f"÷ {1 / t:.3g}" for t in ticks])
    ax.minorticks_off()


@styled
def removal_curves(table: pl.DataFrame, *, kind: str = "deletion", ax: Axes | None = None) -> Axes:
    """How probable the target stays as events are left out, or becomes as they are put in.

    `table` is `Faithfulness.curves`: kind, order, share, value, low, high. `kind` is "deletion",
    where a line should fall early, or "insertion", where it should rise.
    """
    need(table, "kind", "order", "share", "value", "low", "high")
    need_one_of("kind", kind, ["deletion", "insertion"])
    done, wish = ("left out", "falls") if kind == "deletion" else ("put in", "rises")
    labels = (f"events {done} (% of a user's)", "mean probability of the target (%)")
    ax, rows = make_axes(ax), table.filter(pl.col("kind") == kind)
    if rows.is_empty():
        return nothing(ax, *labels)
    for order, own in rows.group_by("order", maintain_order=True):
        name, colour, line = _ORDERS.get(order[0], (shown(order[0]), BLACK, "-"))
        share, value, low, high = (
            100 * own[c].to_numpy() for c in ("share", "value", "low", "high")
        )
        ax.fill_between(share, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(share, value, line, color=colour, label=name)
    ax.set_xlim(0, 100)
    put_legend(ax)
    title = f"{kind.capitalize()}: a good order {wish} early (band: 95 %)"
    return finish(ax, title, *labels)


@styled
def set_coverage(table: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """What sets of interests hold of what users did next, of all and by activity.

    `table` is `InterestSets.check`: group, users, events, covered, low, high, size, nominal.
    """
    need(table, "group", "users", "events", "covered", "low", "high", "size", "nominal")
    ax = make_axes(ax, rows=len(table) + 3)
    labels = ("held of what users did next (%, line: 95 % interval)", "users (median events)")
    if table.is_empty():
        return nothing(ax, *labels)
    nominal, place = table["nominal"][0], np.arange(len(table))
    ax.axvline(100 * nominal, color=BLACK, linewidth=1, linestyle="--", label="promised")
    within = ax.axvspan(100 * nominal - 3, 100 * nominal + 3, color=GREY, alpha=0.15, linewidth=0)
    within.set_label("within 3 points")
    covered, low, high = (100 * table[c].to_numpy() for c in ("covered", "low", "high"))
    ax.hlines(place, low, high, color=BLUE, linewidth=1.4)
    ax.plot(covered, place, "o", color=BLUE, label="held")
    for row, (edge, size) in enumerate(zip(high, table["size"], strict=True)):
        ax.annotate(
            *(f"{size:.1f}", (edge, row)),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 1},  # over the line
        )
    left, right = min(low.min(), 100 * nominal - 3), max(high.max(), 100 * nominal + 3)
    ax.set_xlim(left - 1, right + 0.12 * (right - left) + 1)
    name_rows(
        ax,
        [
            f"all ({events:,.0f})" if group == "all" else f"group {shown(group, 6)} ({events:,.0f})"
            for group, events in table.select("group", "events").iter_rows()
        ],
    )
    put_legend_below(ax)
    title = f"Sets that promise {percent(nominal)}: what they hold, and their mean size"
    return finish(ax, title, *labels)
