"""Figures of an evaluation: how models compare, and how far they can be trusted."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from interestkit.comparison import is_lower_better
from interestkit.plots.drawing import (
    GREY,
    colour_of,
    finish,
    make_axes,
    name_rows,
    names_in,
    need,
    need_one_of,
    nothing,
    nth_marker,
    put_legend,
    put_legend_below,
    rows_of,
    shown,
    styled,
)

LEVEL = 0.05  # of significance, after Holm's correction
_UNITS = {"log loss": "nats", "novelty": "bits", "miscalibration": "nats"}
_SAID = ("confidence", "accuracy")
_MAIN = r"^(NDCG|recall|alpha-NDCG|accuracy)\b"  # what `gains` draws unless asked for others


@styled
def comparison(table: pl.DataFrame, metric: str, target: str, *, ax: Axes | None = None) -> Axes:
    """One metric of every model, the best on top, with its 95 % interval over users.

    Args:
        table: `Evaluation.table()`.
        metric: One of the table's metrics, such as "NDCG@10".
        target: "items", "new items" or "interests".
        ax: Where to draw; None makes a figure.
    """
    need(table, "target", "model", "metric", "value", "low", "high", "seeds", "spread", "users")
    lower = is_lower_better(metric)
    xlabel = with_unit(metric, f", {'lower' if lower else 'higher'} is better")
    rows = rows_of(table, target=target, metric=metric).with_columns(pl.col("value").fill_nan(None))
    rows = rows.sort("value", descending=not lower, nulls_last=True)
    ax = make_axes(ax, rows=len(rows))
    if rows.is_empty():
        return nothing(ax, xlabel, "model")
    labels = []
    for place, row in enumerate(rows.iter_rows(named=True)):
        is_infinite = row["value"] is not None and np.isinf(row["value"])
        _dot(ax, place, row["value"], row, colour_of(row["model"]), "o")
        several = row["spread"] is not None
        seeds = f" ({row['seeds']} seeds ± {row['spread']:.2g})" if several else ""
        seeds += " (infinite)" if is_infinite else ""
        labels.append(shown(row["model"], 20 if seeds else 28) + seeds)
    name_rows(ax, labels)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6))
    interval = " (line: 95 % interval)" if rows["low"].is_not_null().any() else ""
    title = f"{shown(metric)} of {shown(target)}, {rows['users'].max():,} users{interval}"
    return finish(ax, title, xlabel, "model")


def with_unit(metric: str, note: str = "") -> str:
    """A metric of `evaluation` as the label of an axis, with its unit."""
    return f"{shown(metric)} ({_UNITS.get(metric.split('@')[0], '0 to 1')}{note})"


def _dot(ax: Axes, place: float, value: float | None, row: dict, colour: str, marker: str) -> None:
    """A value on a row, with its interval as a line where it has one; nothing if not finite.

    The mark is hollow where the row has a corrected p-value that is not below `LEVEL`.
    """
    if value is None or not np.isfinite(value):
        value, row = np.nan, {}
    if row.get("low") is not None:
        ax.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.8)
    look = {"color": colour, "markersize": 6.5, "label": "_", "linestyle": "none"}
    inside = "white" if _is_hollow(row) else colour
    ax.plot(value, place, marker, markerfacecolor=inside, **look)


def _is_hollow(row: dict) -> bool:
    return row.get("p_holm") is not None and not row["p_holm"] < LEVEL


def draw_dots(ax: Axes, table: pl.DataFrame, rows: str, series: str, scale: float = 1) -> None:
    """Dots in rows, one colour and mark per series; the legend names the series."""
    names, places = names_in(table, series), names_in(table, rows)
    step = 0.7 / max(len(names), 2)
    for row in table.iter_rows(named=True):
        name, number = row[series], names.index(row[series])
        place = places.index(row[rows]) + (number - (len(names) - 1) / 2) * step
        value = None if row["value"] is None else scale * row["value"]
        _dot(ax, place, value, row, colour_of(name), nth_marker(number))
    name_rows(ax, [shown(place, 40) for place in places])
    for edge in range(1, len(places)):
        ax.axhline(edge - 0.5, color="#E4E4E4", linewidth=0.8, zorder=0)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6))
    handles = [
        _mark(shown(name), colour_of(name), nth_marker(number)) for number, name in enumerate(names)
    ]
    if any(map(_is_hollow, table.iter_rows(named=True))):
        handles.append(_mark(f"hollow: p ≥ {LEVEL:g} (Holm)", GREY, "o", "white"))
    put_legend_below(ax, handles)


def _mark(label: str, colour: str, marker: str, inside: str | None = None) -> Line2D:
    """An entry of a legend."""
    look = {"color": colour, "marker": marker, "markerfacecolor": inside or colour}
    return Line2D([], [], linestyle="none", markersize=6.5, label=label, **look)


@styled
def gains(
    table: pl.DataFrame,
    *,
    target: str | Sequence[str] | None = None,
    metric: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How much better a model is than each other one, paired by user: right of 0 is better.

    A mark is filled where the sign-flip test finds a difference at 5 % after Holm's correction
    over the whole table, and hollow where it does not. An infinite gain has no place here.

    Args:
        table: `Evaluation.gains()`.
        target: Targets to draw; None draws all.
        metric: Metrics to draw; None draws NDCG, recall, alpha-NDCG and accuracy. The sign is
            turned where lower is better.
        ax: Where to draw; None makes a figure.
    """
    need(table, "target", "metric", "over", "gain", "low", "high", "users", "p_holm")
    rows = table.rename({"gain": "value"})
    for column, wanted in (("target", target), ("metric", metric)):
        if wanted is not None:
            names = _names(wanted, column, table)
            rows = rows.filter(pl.col(column).is_in(names))
    if metric is None:
        rows = rows.filter(pl.col("metric").str.contains(_MAIN))
    rows = _turn_signs(rows)
    rows = rows.with_columns(row=pl.col("target") + ": " + pl.col("metric"))
    ax = make_axes(ax, rows=round(0.6 * len(rows)) + 3)
    xlabel = "mean difference per user (line: 95 % interval)"
    if rows.is_empty():
        return nothing(ax, xlabel, "target: metric")
    ax.axvline(0, color="black", linewidth=1.2)
    draw_dots(ax, rows, "row", "over")
    return finish(ax, "Right of the line the model is better than …", xlabel, "target: metric")


def _names(wanted: str | Sequence[str], column: str, table: pl.DataFrame) -> list[str]:
    """The names as a list; each must occur in a table that has rows."""
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names if len(table) else []:
        need_one_of(column, name, names_in(table, column))
    return names


def _turn_signs(rows: pl.DataFrame) -> pl.DataFrame:
    """Gains of which more is always better."""
    lower = [name for name in rows["metric"].unique() if is_lower_better(name)]
    is_lower = pl.col("metric").is_in(lower)
    turned = {"value": "value", "low": "high", "high": "low"}
    return rows.with_columns(
        *(
            pl.when(is_lower).then(-pl.col(other)).otherwise(pl.col(name)).alias(name)
            for name, other in turned.items()
        ),
        metric=pl.when(is_lower).then(pl.col("metric") + " (turned)").otherwise("metric"),
    )


@styled
def tradeoff(
    table: pl.DataFrame,
    *,
    target: str | Sequence[str] = "items",
    x: str = "alpha-NDCG@10",
    y: str = "NDCG@10",
    ax: Axes | None = None,
) -> Axes:
    """Every model as a point: one metric against another, with 95 % intervals as a cross.

    Args:
        table: `Evaluation.table()`.
        target: One or more of "items", "new items" and "interests"; each has its own mark.
        x: Metric of the x axis, such as novelty, diversity or coverage; alpha-NDCG judges
            relevance and diversity together.
        y: Metric of the y axis.
        ax: Where to draw; None makes a figure.
    """
    need(table, "target", "model", "metric", "value", "low", "high")
    targets, key = _names(target, "target", table), ["target", "model"]
    ax = make_axes(ax, rows=None if len(targets) == 1 else 12)
    labels = tuple(map(with_unit, (x, y)))
    across, up = (
        pl.concat([rows_of(table, target=name, metric=m) for name in targets]).select(
            *key, "value", "low", "high"
        )
        for m in (x, y)
    )
    points = across.join(up, on=key, suffix="_y", maintain_order="left")
    points = points.filter(pl.col("value").is_finite() & pl.col("value_y").is_finite())
    if points.is_empty():
        return nothing(ax, *labels)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6))
    for name, model, value, low, high, value_y, low_y, high_y in points.iter_rows():
        look = {"color": colour_of(model), "linewidth": 1.2, "alpha": 0.6}
        if low is not None:
            ax.plot([low, high], [value_y, value_y], **look)
        if low_y is not None:
            ax.plot([value, value], [low_y, high_y], **look)
        marker = nth_marker(targets.index(name))
        ax.plot(value, value_y, marker, color=look["color"], markersize=8)
    _label_points(ax, *(points[name].to_list() for name in ("model", "value", "value_y")))
    if len(targets) > 1:
        marks = [_mark(shown(name), GREY, nth_marker(n)) for n, name in enumerate(targets)]
        put_legend_below(ax, marks)
    best = "" if is_lower_better(x) or is_lower_better(y) else " (best: top right)"
    return finish(ax, f"Models by two metrics of {shown(' and '.join(targets))}{best}", *labels)


def _label_points(ax: Axes, names: list[str], x: Sequence[float], y: Sequence[float]) -> None:
    """Names in a column beside the Axes, in the order of the points, with a thin line to each."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    order = np.argsort(np.asarray(y), kind="stable")
    gap = min(0.085, 1 / max(len(names), 1))
    heights = (np.asarray(y)[order] - low) / (high - low)
    for number in range(1, len(names)):
        heights[number] = max(heights[number], heights[number - 1] + gap)
    heights[-1] = min(heights[-1], 1)
    for number in range(len(names) - 2, -1, -1):
        heights[number] = min(heights[number], heights[number + 1] - gap)
    for row, height in zip(order, heights, strict=True):
        ax.annotate(
            shown(names[row]),
            (x[row], y[row]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "linestyle": ":"},
        )


@styled
def coverage(table: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How much of the catalogue, the interests and the users each model's lists reach.

    `table` is `Evaluation.table()`; its coverage metrics are drawn.
    """
    need(table, "target", "model", "metric", "value")
    rows = table.filter(pl.col("metric").str.contains("coverage", literal=True))
    rows = rows.sort(pl.col("metric").rank("dense"), maintain_order=True)
    rows = rows.select("model", "value", row=pl.col("target") + ": " + pl.col("metric"))
    ax, labels = make_axes(ax, rows=round(0.6 * len(rows)) + 3), ("covered (%)", "target: metric")
    if rows.is_empty():
        return nothing(ax, *labels)
    draw_dots(ax, rows, "row", "model", scale=100)
    ax.set_xlim(-3, 103)
    return finish(ax, "What the lists of each model reach", *labels)


@styled
def reliability(
    table: pl.DataFrame, *, model: str | Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Which share the most probable interest then had, against its predicted probability.

    A mark stands for the users of one bin of probability, larger for more of them, with the
    Wilson interval of their mean as a line; on the diagonal, what a model says comes true. The
    legend has the expected calibration error (ECE), the mean distance from it over users. The
    bins of a single model have their numbers of users below. Several seeds are drawn as one:
    their bins are joined, and the interval counts users once.

    Args:
        table: `Evaluation.reliability`.
        model: Models to draw; None draws all.
        ax: Where to draw; None makes a figure.

    Source:
        Guo et al. (2017), ICML, PMLR 70; Wilson (1927), JASA 22(158),
        doi:10.1080/01621459.1927.10502953.
    """
    need(table, "model", "seed", "low", "high", "count", "confidence", "accuracy")
    labels = ("probability of the most probable interest (%)", "its share of what followed (%)")
    ax = make_axes(ax, rows=14)
    names = names_in(table, "model") if model is None else _names(model, "model", table)
    rows = table.filter(pl.col("model").is_in(names), pl.col("count") > 0)
    if rows.is_empty():
        return nothing(ax, *labels)
    ax.plot([0, 100], [0, 100], "--", color=GREY, linewidth=1, label="said = came true")
    for number, name in enumerate(names):
        _reliability_of(ax, rows.filter(model=name), nth_marker(number), has_counts=len(names) == 1)
    ax.set(xlim=(-2, 102), ylim=(-7 if len(names) == 1 else -2, 102))  # room for the numbers
    put_legend(ax)
    return finish(ax, "Does it come true? (size: users; line: 95 % interval)", *labels)


def _reliability_of(ax: Axes, rows: pl.DataFrame, marker: str, *, has_counts: bool) -> None:
    """The bins of one model, its seeds joined."""
    if rows.is_empty():
        return
    seeds, name = rows["seed"].n_unique(), rows["model"][0]
    gap = (pl.col("accuracy") - pl.col("confidence")).abs()
    error = rows.select((gap * pl.col("count")).sum() / pl.col("count").sum()).item()
    means = ((pl.col(c) * pl.col("count")).sum() / pl.col("count").sum() for c in _SAID)
    bins = rows.group_by("low", "high").agg(*means, pl.col("count").sum() / seeds).sort("low")
    users, said, right = (bins[c].to_numpy() for c in ("count", *_SAID))
    centres = (right + 1.92 / users) / (1 + 3.84 / users)  # 1.96 squared is 3.84
    half = 1.96 * np.sqrt(right * (1 - right) / users + 0.96 / users**2) / (1 + 3.84 / users)
    for x, centre, reach in zip(100 * said, 100 * centres, 100 * half, strict=True):
        ax.plot([x, x], [centre - reach, centre + reach], color=colour_of(name), alpha=0.5)
    if has_counts:
        text = {"fontsize": 7.5, "ha": "center", "transform": ax.get_xaxis_transform()}
        for middle, count in zip(50 * (bins["low"] + bins["high"]), users, strict=True):
            ax.text(middle, 0.01, _short(count), **text)
    label = f"{shown(name)}\nECE {100 * error:.1f} %, {users.sum():,.0f} users"
    size = 20 + 160 * users / users.sum()
    look = {"marker": marker, "color": colour_of(name), "edgecolor": "white", "linewidth": 0.6}
    ax.scatter(100 * said, 100 * right, s=size, zorder=3, **look)
    ax.plot([], [], marker, color=look["color"], label=label)


def _short(count: float) -> str:
    """A number of users in at most four letters, up to a million: 999, 1.1k, 12k."""
    if count < 999.5:
        return f"{np.ceil(count):.0f}"
    return f"{count / 1e3:.1f}k" if count < 9_950 else f"{count / 1e3:,.0f}k"
