"""Figures of a log: what cleaning dropped, when, by whom and about what the events are."""

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Int
from matplotlib.axes import Axes

from interestkit.limits import check_counts
from interestkit.plots.drawing import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    count_axis,
    day,
    days,
    finish,
    make_axes,
    name_rows,
    need,
    nothing,
    nth_colour,
    nth_marker,
    percent,
    plain_numbers,
    put_legend,
    shown,
    styled,
    time_axis,
)
from interestkit.schema import INTERESTS, ITEM, KIND, KINDS, SESSION, TIME, USER

_BINS = (  # a log of fewer days than the first number is counted per hour, and so on
    (3, "1h", "hour"),
    (120, "1d", "day"),
    (1_100, "1w", "week"),
    (11_000, "1mo", "month"),
    (np.inf, "1y", "year"),
)

_LAST_DAY = 2_932_896  # 9999-12-31 as days since 1970, the last that matplotlib knows
_BEHIND = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}


@styled
def cleaning(report: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Events that each cleaning rule dropped, in the order of the rules, on a logarithmic axis.

    `report` is `CleaningReport.table`: rule, events_dropped, events_left.
    """
    need(report, "rule", "events_dropped", "events_left")
    rules = report.filter(pl.col("rule") != "read")
    ax, labels = make_axes(ax, rows=len(rules)), ("events dropped (number, log scale)", "rule")
    if rules.is_empty():
        return nothing(ax, *labels)
    left, dropped = report["events_left"][-1], rules["events_dropped"].to_list()
    read = max(left + sum(dropped), 1)
    bars = ax.barh(range(len(rules)), dropped, color=VERMILION, height=0.7)
    ax.bar_label(bars, [f"{number:,} ({percent(number / read)})" for number in dropped], padding=4)
    ax.set_xscale("symlog", linthresh=1)
    limit = 1.4 * np.log10(max(*dropped, 10))
    step = 1 if limit < 6 else 2  # long numbers need room
    ax.set_xticks([0, *10.0 ** np.arange(0, limit, step)])
    plain_numbers(ax.xaxis)
    ax.set_xlim(0, 10**limit)
    name_rows(ax, [shown(rule.replace("_", " ")) for rule in rules["rule"]])
    title = f"Cleaning left {left:,} of {read:,} events ({percent(left / read)})"
    return finish(ax, title, *labels)


@styled
def activity(
    events: pl.DataFrame, *, cuts: Mapping[str, datetime] | None = None, ax: Axes | None = None
) -> Axes:
    """Events per hour, day, week, month or year, whichever suits the span of the log.

    Args:
        events: Events with a column time.
        cuts: Name of the part that begins -> its first moment, such as
            `{"validation": ..., "test": ...}`; what comes before the first is "training".
        ax: Where to draw; None makes a figure.
    """
    need(events, TIME)
    ax, times = make_axes(ax), events[TIME].drop_nulls()
    if times.is_empty():
        return nothing(ax, "time (UTC)", "events (number)")
    span = (times.max() - times.min()).days
    every, unit = next((every, unit) for most, every, unit in _BINS if span < most)
    bins = times.dt.truncate(every).rename("bin").value_counts()
    end = pl.col("bin").dt.offset_by(every).max()
    starts = bins.select(pl.datetime_range(pl.col("bin").min(), end, every).alias("bin"))
    counts = starts.join(bins, on="bin", how="left", maintain_order="left")["count"]
    edges = np.minimum(days(starts["bin"]), _LAST_DAY)
    ax.stairs(counts.fill_null(0)[:-1].to_numpy(), edges, fill=True, color=BLUE, alpha=0.8)
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, counts.max() * (1.25 if cuts else 1.05)))
    time_axis(ax)
    count_axis(ax.yaxis)
    _mark_parts(ax, cuts or {}, edges[0], edges[-1])
    title = f"{len(times):,} events, {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}"
    return finish(ax, title, "time (UTC)", f"events per {unit} (number)")


def _mark_parts(ax: Axes, cuts: Mapping[str, datetime], first: float, last: float) -> None:
    """Shade and name the parts that the cuts make; names take turns in height."""
    inside = sorted((min(max(day(time), first), last), name) for name, time in cuts.items())
    parts = [(first, "training"), *inside] if inside else []
    for number, (start, name) in enumerate(parts):
        stop = parts[number + 1][0] if number + 1 < len(parts) else last
        ax.axvspan(start, stop, color=nth_colour(number), alpha=0.12, linewidth=0, zorder=0)
        if number:
            ax.axvline(start, color="black", linewidth=1)
        height, side = 0.97 - 0.09 * (number % 2), (start + stop) / 2
        look = {"ha": "center", "va": "top", "bbox": _BEHIND}
        ax.text(side, height, shown(name), transform=ax.get_xaxis_transform(), **look)


@styled
def long_tail(events: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Cumulative share of events against share of items and of users, the busiest first.

    The Gini coefficient is 0 where all have equally many events, near 1 where one has nearly all.

    `events` has columns user and item.
    """
    need(events, USER, ITEM)
    ax = make_axes(ax)
    labels = ("share of items or of users, busiest first (%)", "share of events (%)")
    if events.is_empty():
        return nothing(ax, *labels)
    for column, colour, line in ((ITEM, BLUE, "-"), (USER, ORANGE, "--")):
        counts = events[column].drop_nulls().value_counts()["count"].sort(descending=True)
        share = np.r_[0, counts.cum_sum().to_numpy() / max(counts.sum(), 1)]
        rank = np.linspace(0, 1, len(share))
        gini = 2 * np.trapezoid(share, rank) - 1
        top = percent(np.interp(0.01, rank, share))
        label = f"{column}s: the top 1 % have {top} (Gini {gini:.2f})"
        ax.plot(100 * rank, 100 * share, line, color=colour, linewidth=2, label=label)
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=1, label="if all were equal")
    ax.legend(loc="lower right")
    return finish(ax, "How few items and users have most of the events", *labels)


@styled
def sessions(events: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How many events a session has, in bins that double.

    `events` is what `cleaning.add_sessions` returns: columns user and session.
    """
    need(events, USER, SESSION)
    sizes = events.group_by(USER, SESSION).len()["len"].to_numpy()
    return _sizes(ax, sizes, "sessions", "events in the session (number, doubling bins)")


@styled
def history_lengths(lengths: Int[np.ndarray, " users"], *, ax: Axes | None = None) -> Axes:
    """How many known events users have, in bins that double.

    Users with none are counted in the title, and are not in the median.

    `lengths` has one number per user (`histories.lengths`).
    """
    xlabel = "known events of the user (number, doubling bins)"
    return _sizes(ax, np.asarray(lengths), "users", xlabel)


def _sizes(ax: Axes | None, sizes: Int[np.ndarray, " things"], things: str, xlabel: str) -> Axes:
    """Bars for 1, 2, 3–4, 5–8, … with one width, and the median of all that are not 0."""
    ax, some = make_axes(ax), sizes[sizes > 0]
    if not len(some):
        return nothing(ax, xlabel, f"{things} (number)")
    powers = 2.0 ** np.arange(int(np.ceil(np.log2(some.max()))) + 1)
    edges = np.r_[0.5, powers + 0.5]
    counts, _ = np.histogram(some, edges)
    ax.bar(range(len(counts)), counts, 0.96, color=BLUE)
    median = np.median(some)
    ax.axvline(np.interp(median, edges, np.arange(len(edges)) - 0.5), color=VERMILION, linewidth=2)
    bounds = zip(np.ceil(edges[:-1]), np.floor(edges[1:]), strict=True)
    names = [f"{low:,.0f}" if low == high else f"{low:,.0f}–{high:,.0f}" for low, high in bounds]
    every = next(step for step in range(1, len(names) + 1) if _fit(names, step))
    ax.set_xticks(range(0, len(names), every), names[::every])
    ax.grid(visible=False, axis="x")
    count_axis(ax.yaxis)
    none = f"; {len(sizes) - len(some):,} have none" if len(some) < len(sizes) else ""
    title = f"{len(sizes):,} {things}, median {median:,.6g} (line){none}"
    return finish(ax, title, xlabel, f"{things} (number)")


def _fit(names: list[str], step: int) -> bool:
    """Whether every step-th name below an axis leaves room for the next."""
    room = 65 * step / len(names) - 1.5  # letters
    return all((len(a) + len(b)) / 2 <= room for a, b in pairwise(names[::step]))


@styled
def user_timeline(
    events: pl.DataFrame,
    items: pl.DataFrame,
    user: str,
    *,
    max_interests: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """One user's events over time: a row per interest, the most frequent on top; marks are kinds.

    An item with several interests is in several rows.

    Args:
        events: Events with columns user, item, time and kind.
        items: Items with their interests; `features.items` also has those that were derived.
        user: Whose events.
        max_interests: Rows, 1 or more; the interests that are left share a row "other".
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If the user has no event in a table that has some.
    """
    need(events, USER, ITEM, TIME, KIND)
    need(items, ITEM, INTERESTS)
    check_counts(1, max_interests=max_interests)
    own = events.filter(pl.col(USER) == user)
    if own.is_empty() and not events.is_empty():
        raise ValueError(f"user must have an event in the table, got {user!r}")
    labelled = (
        own.join(items.select(ITEM, INTERESTS).unique(ITEM), on=ITEM, how="left")
        .with_columns(pl.when(pl.col(INTERESTS).list.len() > 0).then(INTERESTS))
        .explode(INTERESTS)
        .with_columns(pl.col(INTERESTS).fill_null("(interest unknown)"))
    )
    counts = labelled[INTERESTS].value_counts().sort("count", INTERESTS, descending=[True, False])
    rows = counts.rows()[:max_interests]
    ax, axis_labels = make_axes(ax, rows=len(rows) + 2), ("time (UTC)", "interest (events)")
    if not rows:
        return nothing(ax, *axis_labels)
    if len(counts) > max_interests:
        rest = counts["count"][max_interests:]
        rows.append((f"{len(rest)} other", rest.sum()))
    row_of = {name: min(row, max_interests) for row, name in enumerate(counts[INTERESTS])}
    kinds = _scatter_kinds(ax, labelled, row_of)
    name_rows(ax, [f"{shown(name)} ({count:,})" for name, count in rows])
    ax.grid(visible=True, axis="y")
    time_axis(ax)
    what = f"events ({kinds[0]})" if len(kinds) == 1 else "events"
    return finish(ax, f"What user {shown(user, 20)} did: {len(own):,} {what}", *axis_labels)


def _scatter_kinds(ax: Axes, labelled: pl.DataFrame, row_of: Mapping[str, int]) -> list[str]:
    """The kinds that occur; each has a mark and a colour, named where there are several."""
    kinds = [kind for kind in KINDS if kind in set(labelled[KIND])]
    for kind in kinds:
        part = labelled.filter(pl.col(KIND) == kind)
        code = KINDS.index(kind) if len(kinds) > 1 else 0
        look = {"marker": nth_marker(code), "color": nth_colour(code)}
        look |= {"alpha": 0.6, "linewidths": 0}
        height = [row_of[name] for name in part[INTERESTS]]
        ax.scatter(days(part[TIME]), height, s=30, label=kind, **look)
    if len(kinds) > 1:
        put_legend(ax)
    return kinds


@styled
def interest_sizes(items: pl.DataFrame, *, top: int = 20, ax: Axes | None = None) -> Axes:
    """Share of all events per interest; an item's events are divided among its interests.

    `items` is `features.items`, with columns interests and events. So many (`top`) of the largest
    interests are drawn; the title has their sum.
    """
    need(items, INTERESTS, "events")
    check_counts(1, top=top)
    share = 100 * pl.col("events") / items["events"].sum() / pl.col(INTERESTS).list.len()
    sizes = (
        items.filter(pl.col(INTERESTS).list.len() > 0)
        .with_columns(share=share)
        .explode(INTERESTS)
        .group_by(INTERESTS)
        .agg(pl.col("share").sum())
        .sort("share", INTERESTS, descending=[True, False])
    )
    rows = sizes.rows()[:top]
    ax, labels = make_axes(ax, rows=len(rows) + 1), ("share of events (%)", "interest")
    if not rows:
        return nothing(ax, *labels)
    ax.barh(range(len(rows)), [size for _, size in rows], color=BLUE, height=0.7)
    name_rows(ax, [shown(name) for name, _ in rows])
    which = f"Top {top} of {len(sizes):,}" if len(sizes) > top else f"All {len(sizes):,}"
    known = sizes["share"].sum() / 100
    note = f"; {percent(1 - known)} have none" if known < 1 - 1e-6 else ""
    drawn = percent(round(sum(size for _, size in rows) / 100, 9))
    return finish(ax, f"{which} interests: {drawn} of events{note}", *labels)
