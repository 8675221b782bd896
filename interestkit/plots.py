"""Figures from tidy tables: each function takes a table and an optional `ax`, and returns the Axes.

A table without rows gives an Axes that says "nothing to show"; a missing column or an unknown
name is a `ValueError`. Text from data is cut to 28 characters, never read as mathematics, and has a
box in place of a letter that no installed font knows. A model has one colour in all figures.
"""

import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from jaxtyping import Int
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes

from interestkit.schema import INTERESTS, ITEM, KIND, KINDS, SESSION, TIME, USER

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#E69F00", "#009E73", "#56B4E9"
VERMILION, PINK, BLACK, GREY = "#D55E00", "#CC79A7", "#000000", "#8C8C8C"
STYLE = {
    "figure.figsize": (7, 3.2),
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, SKY, VERMILION, PINK, BLACK, GREY]),
}
_MODEL_COLOURS = {
    **dict.fromkeys(("model", "hybrid", "interestkit"), BLUE),
    "popular": GREY,
    "recent": ORANGE,
    "own": GREEN,
    "collaborative": SKY,
    "content": PINK,
}
_MARKERS = "osD^vPX*"
_OTHER_SCRIPTS = (  # taken where they are installed, after the font of the rest
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Hebrew",
    "Noto Sans Thai",
    "Noto Emoji",
)
_BINS = ((3, "1h", "hour"), (120, "1d", "day"), (1_100, "1w", "week"), (np.inf, "1mo", "month"))
_LOWER_IS_BETTER = ("log loss",)
_NO_GAIN = r"coverage|novelty|log loss"  # not a quality from 0 to 1: shown only when asked for


def use_style() -> None:
    """Apply the house style to every later figure of this process: call it once, after importing.

    `STYLE` has the settings; fonts of other scripts are added where they are installed.
    """
    installed = set(font_manager.get_font_names())
    families = ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]
    plt.rcParams.update(STYLE | {"font.family": families})


def colour_of(name: str) -> str:
    """The colour of a model, the same in every figure; a name that is not known takes one by hash.

    Example:
        >>> colour_of("model")
        '#0072B2'
    """
    others = (VERMILION, PINK, SKY, BLACK)
    return _MODEL_COLOURS.get(name.lower(), others[zlib.crc32(name.encode()) % len(others)])


def cleaning(report: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Events that each cleaning rule dropped, in the order of the rules, on a logarithmic axis.

    Args:
        report: `CleaningReport.table`: rule, events_dropped, events_left.
        ax: Where to draw; None makes a figure.
    """
    _need(report, "rule", "events_dropped", "events_left")
    rules = report.filter(pl.col("rule") != "read")
    ax, labels = _axes(ax, rows=len(rules)), ("events dropped (number, log scale)", "rule")
    if rules.is_empty():
        return _nothing(ax, *labels)
    read, left = report["events_left"][0], report["events_left"][-1]
    dropped = rules["events_dropped"].to_list()
    bars = ax.barh(range(len(rules)), dropped, color=VERMILION, height=0.7)
    ax.bar_label(bars, [f"{n:,} ({_percent(n / max(read, 1))})" for n in dropped], padding=4)
    ax.set_xscale("symlog", linthresh=1)
    _plain_numbers(ax)
    ax.set_xlim(0, max(*dropped, 10) ** 1.35)
    _rows(ax, [rule.replace("_", " ") for rule in rules["rule"]])
    kept = f"{left:,} of {read:,} events left ({_percent(left / max(read, 1))})"
    return _finish(ax, f"What cleaning dropped: {kept}", *labels)


def activity(
    events: pl.DataFrame, *, cuts: Mapping[str, datetime] | None = None, ax: Axes | None = None
) -> Axes:
    """Events per hour, day, week or month, whichever suits the span of the log.

    Args:
        events: Events with a column time.
        cuts: Name of the part that begins -> its first moment, such as
            `{"validation": ..., "test": ...}`; what comes before the first is "training".
        ax: Where to draw; None makes a figure.
    """
    _need(events, TIME)
    ax, times = _axes(ax), events[TIME].drop_nulls()
    if times.is_empty():
        return _nothing(ax, "time (UTC)", "events per day")
    span = (times.max() - times.min()).days
    every, unit = next((every, unit) for most, every, unit in _BINS if span < most)
    counts = times.dt.truncate(every).value_counts()
    first, last = counts[TIME].min(), counts[TIME].dt.offset_by(every).max()
    bins = pl.datetime_range(first, last, every, eager=True, time_zone="UTC").alias(TIME)
    found = bins.to_frame().join(counts, on=TIME, how="left", maintain_order="left")
    edges = _days(bins)
    ax.stairs(found["count"].fill_null(0)[:-1], edges, fill=True, color=BLUE, alpha=0.8)
    _time_axis(ax, edges[0], edges[-1])
    ax.set_ylim(0, found["count"].max() * 1.25)
    ax.yaxis.set_major_formatter(_NUMBER)
    _mark_parts(ax, cuts or {}, edges[0], edges[-1])
    return _finish(ax, f"{len(times):,} events over time", "time (UTC)", f"events per {unit}")


def long_tail(events: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Cumulative share of events against share of items and of users, the busiest first.

    The Gini coefficient is 0 where all have equally many events, near 1 where one has nearly all.

    Args:
        events: Events with columns user and item.
        ax: Where to draw; None makes a figure.
    """
    _need(events, USER, ITEM)
    ax, labels = _axes(ax), ("share of items or users, busiest first (%)", "share of events (%)")
    if events.is_empty():
        return _nothing(ax, *labels)
    for column, colour, line in ((ITEM, BLUE, "-"), (USER, ORANGE, "--")):
        counts = events[column].drop_nulls().value_counts()["count"].sort(descending=True)
        share = np.r_[0, np.cumsum(counts.to_numpy()) / max(counts.sum(), 1)]
        rank = np.linspace(0, 1, len(share))
        gini = 2 * np.trapezoid(share, rank) - 1
        top = _percent(np.interp(0.01, rank, share))
        label = f"{column}s: the top 1 % have {top} (Gini {gini:.2f})"
        ax.plot(100 * rank, 100 * share, line, color=colour, linewidth=2, label=label)
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=1, label="if all were equal")
    ax.legend(loc="lower right")
    return _finish(ax, "How concentrated the events are", *labels)


def sessions(events: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How many events a session has, in bins that double.

    Args:
        events: What `cleaning.add_sessions` returns: columns user and session.
        ax: Where to draw; None makes a figure.
    """
    _need(events, USER, SESSION)
    sizes = events.group_by(USER, SESSION).len()["len"].to_numpy()
    return _sizes(ax, sizes, "sessions", "events in the session (number, log scale)")


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
        ValueError: If the user has no event in a table that has some, or a column is missing.
    """
    _need(events, USER, ITEM, TIME, KIND)
    _need(items, ITEM, INTERESTS)
    own = events.filter(pl.col(USER) == user)
    if own.is_empty() and not events.is_empty():
        raise ValueError(f"user must have an event in the table, got {user!r}")
    labelled = (
        own.join(items.select(ITEM, INTERESTS).unique(ITEM), on=ITEM, how="left")
        .explode(INTERESTS)
        .with_columns(pl.col(INTERESTS).fill_null("(no interest known)"))
    )
    counts = labelled[INTERESTS].value_counts().sort("count", INTERESTS, descending=[True, False])
    names = counts[INTERESTS].to_list()
    shown, num_other = names[:max_interests], max(len(names) - max_interests, 0)
    ax, axis_labels = _axes(ax, rows=len(shown) + 2), ("time (UTC)", "interest (events)")
    if not names:
        return _nothing(ax, *axis_labels)
    row_of = {name: min(row, len(shown)) for row, name in enumerate(names)}
    present = [kind for kind in KINDS if kind in set(labelled[KIND])]
    for kind in present:
        code, part = KINDS.index(kind), labelled.filter(pl.col(KIND) == kind)
        look = {"marker": _MARKERS[code], "color": _cycle(code), "alpha": 0.55, "linewidths": 0}
        rows = [row_of[name] for name in part[INTERESTS]]
        ax.scatter(_days(part[TIME]), rows, s=30, label=kind, **look)
    rest = [("other", counts["count"][max_interests:].sum())] if num_other else []
    sizes = [*counts.rows()[:max_interests], *rest]
    _rows(ax, [f"{_shown(name)} ({count:,})" for name, count in sizes])
    _time_axis(ax)
    if len(present) > 1:
        _legend(ax)
    what = present[0] if len(present) == 1 else "event"
    return _finish(ax, f"User {_shown(user)}: {len(own):,} {what}s by interest", *axis_labels)


def history_lengths(lengths: Int[np.ndarray, " users"], *, ax: Axes | None = None) -> Axes:
    """How many known events users have; those with none are counted in the title.

    Args:
        lengths: One number per user (`histories.lengths`).
        ax: Where to draw; None makes a figure.
    """
    return _sizes(ax, np.asarray(lengths), "users", "known events of the user (number, log scale)")


def interest_sizes(items: pl.DataFrame, *, top: int = 20, ax: Axes | None = None) -> Axes:
    """Share of all events per interest; an item's events are divided among its interests.

    Args:
        items: `features.items`: columns interests and events.
        top: Interests with a bar of their own; a grey bar has the sum of all others.
        ax: Where to draw; None makes a figure.
    """
    _need(items, INTERESTS, "events")
    part = pl.col("events") / pl.col(INTERESTS).list.len()
    sizes = (
        items.filter(pl.col(INTERESTS).list.len() > 0)
        .with_columns(share=part / items["events"].sum())
        .explode(INTERESTS)
        .group_by(INTERESTS)
        .agg(pl.col("share").sum() * 100)
        .sort("share", INTERESTS, descending=[True, False])
    )
    rows = sizes.rows()[:top]
    ax, labels = _axes(ax, rows=len(rows) + 1), ("share of events (%)", "interest")
    if not rows:
        return _nothing(ax, *labels)
    if len(sizes) > top:
        rows.append((f"{len(sizes) - top} others", sizes["share"][top:].sum()))
    colours = [BLUE] * min(len(sizes), top) + [GREY]
    ax.barh(range(len(rows)), [share for _, share in rows], color=colours[: len(rows)], height=0.7)
    _rows(ax, [name for name, _ in rows])
    unknown = max(1 - sizes["share"].sum() / 100, 0)
    note = f"; {_percent(unknown)} of events have none" if unknown > 1e-6 else ""
    return _finish(ax, f"Events by interest, {len(sizes):,} interests{note}", *labels)


def decay(
    scales_days: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    initial_days: Sequence[float] | None = None,
    initial_weights: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How fast an event loses weight with age; dashed: before training.

    Args:
        scales_days: Time scales: after so many days exp(-1) = 37 % of the weight is left.
        weights: Weight of each scale, with a sum above 0: one curve, their mixture. None draws a
            curve for each scale.
        initial_days: The scales before training; None stands for `scales_days`.
        initial_weights: The weights before training. Without it and `initial_days` no dashed
            curve is drawn.
        ax: Where to draw; None makes a figure.
    """
    ax, labels = _axes(ax), ("age of the event (days, log scale)", "weight left (% of a new event)")
    if not len(scales_days):
        return _nothing(ax, *labels)
    has_initial = initial_days is not None or initial_weights is not None
    before = scales_days if initial_days is None else initial_days
    ages = np.geomspace(min(*scales_days, *before) / 20, max(*scales_days, *before) * 4, 300)
    after_label = "learned" if has_initial else "weight"
    sets = [(scales_days, weights, "-", after_label)]
    if has_initial:
        sets.append((before, initial_weights or weights, "--", "before training"))
    for days, mixture, line, label in sets:
        curves = 100 * np.exp(-ages[:, None] / np.asarray(days)[None, :])
        names = [f"{label}: {day:,.3g} days" for day in days]
        if mixture is not None:
            curves, names = curves @ (np.asarray(mixture) / np.sum(mixture)), [label]
        for number, (curve, name) in enumerate(zip(np.atleast_2d(curves.T), names, strict=True)):
            ax.plot(ages, curve, line, color=_cycle(number), label=name)
    ax.set_xscale("log")
    _plain_numbers(ax)
    _legend(ax)
    return _finish(ax, "How fast an event fades", *labels)


def training_curves(
    curves: pl.DataFrame, *, columns: Sequence[str] = ("score",), ax: Axes | None = None
) -> Axes:
    """Columns of the training curve by epoch, a line per seed; a dot marks the best epoch.

    The best epoch is that of the highest "score"; in a table without one, of each column itself:
    the lowest of a loss, the highest of anything else.

    Args:
        curves: `FitResult.curve` of one or more fits: epoch, the columns, and seed if several.
        columns: What to draw, such as `("loss_new", "loss_repeat")`.
        ax: Where to draw; None makes a figure.
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    _need(curves, "epoch", *columns)
    is_loss = all(name.startswith("loss") for name in columns)
    ylabel = "loss (nats)" if is_loss else f"{columns[0] if len(columns) == 1 else 'value'} (0–1)"
    ax = _axes(ax)
    if curves.is_empty():
        return _nothing(ax, "epoch (number)", ylabel)
    curves = curves if "seed" in curves.columns else curves.with_columns(seed=0)
    seeds = curves.sort("seed", "epoch").partition_by("seed", maintain_order=True)
    for code, column in enumerate(columns):
        for number, part in enumerate(seeds):
            judge = part["score" if "score" in part.columns else column].fill_null(np.nan)
            is_lowest = judge.name.startswith("loss")
            best = int((np.nanargmin if is_lowest else np.nanargmax)(judge.to_numpy()))
            seed_label = f"seed {part['seed'][0]}" if len(columns) == 1 else column
            label = seed_label if len(columns) == 1 or number == 0 else "_"
            colour = _cycle(number if len(columns) == 1 else code)
            ax.plot(part["epoch"], part[column], color=colour, linewidth=1.6, label=label)
            ax.plot(part["epoch"][best], part[column][best], "o", color=colour)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if len(seeds) > 1 or len(columns) > 1:
        _legend(ax)
    what = ", ".join(columns) if len(columns) < 3 else f"{len(columns)} curves"
    return _finish(ax, f"{what} by epoch (dot: best epoch)", "epoch (number)", ylabel)
