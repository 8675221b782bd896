"""Figures of models: how they learn, what they predict, and how they compare."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib import ticker
from matplotlib.axes import Axes

from interestkit.plots.drawing import (
    BLUE,
    GREY,
    MARKERS,
    ORANGE,
    colour_of,
    count_axis,
    finish,
    make_axes,
    name_rows,
    need,
    need_one_of,
    need_positive,
    nothing,
    nth_colour,
    plain_numbers,
    put_legend,
    put_legend_below,
    shown,
)

_LOWER_IS_BETTER = ("log loss",)
_UNITS = {"log loss": "nats", "novelty": "bits"}
_NO_GAIN = r"coverage|novelty|log loss"  # not a quality from 0 to 1: drawn only when asked for
_BARS = {  # columns of `interest_bars`, in their order
    "probability": ("predicted probability", BLUE),
    "share": ("share of what followed", ORANGE),
    "own": ("share of the history", GREY),
}


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
        initial_weights: The weights before training; None stands for `weights`. Without either
            no dashed curve is drawn.
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If a scale is not above 0, or the sum of the weights is not.
    """
    labels = ("age of the event (days, log scale)", "weight left (% of a new event)")
    ax, after = make_axes(ax), (np.asarray(scales_days, float), weights)
    if not len(after[0]):
        return nothing(ax, *labels)
    before = (
        after[0] if initial_days is None else np.asarray(initial_days, float),
        weights if initial_weights is None else initial_weights,
    )
    scales = np.concatenate([after[0], before[0]])
    if not (scales > 0).all():
        raise ValueError(f"scales_days and initial_days must be above 0, got {scales.tolist()}")
    ages = np.geomspace(scales.min() / 20, scales.max() * 4, 300)
    has_before = initial_days is not None or initial_weights is not None
    for (days, mix), line, label in [(after, "-", "learned"), (before, "--", "at the start")]:
        if line == "-" or has_before:
            for number, (name, curve) in enumerate(_decay_curves(days, mix, ages)):
                name = " ".join([label, name] if has_before else [name]).strip() or "mixture"
                ax.plot(ages, curve, line, color=nth_colour(number), label=name)
    ax.set_xscale("log")
    plain_numbers(ax.xaxis)
    put_legend(ax)
    return finish(ax, "How fast an event fades", *labels)


def _decay_curves(
    days: Float[np.ndarray, " scales"],
    weights: Sequence[float] | None,
    ages: Float[np.ndarray, " ages"],
) -> list[tuple[str, Float[np.ndarray, " ages"]]]:
    """Name and curve, in percent, of each scale, or of the mixture that the weights make."""
    curves = 100 * np.exp(-ages[None, :] / days[:, None])
    if weights is None:
        return [(f"{scale:,.3g} days", curve) for scale, curve in zip(days, curves, strict=True)]
    weights = np.asarray(weights, float)
    if not weights.sum() > 0:
        raise ValueError(f"weights must have a sum above 0, got {weights.tolist()}")
    return [("", weights @ curves / weights.sum())]


def training_curves(
    curves: pl.DataFrame, *, columns: str | Sequence[str] = ("score",), ax: Axes | None = None
) -> Axes:
    """Columns of the training curve by epoch, a line per seed; a dot marks the best epoch.

    The best epoch is that of the highest "score"; in a table without one, of each column itself:
    the lowest of a loss, the highest of anything else.

    Args:
        curves: `FitResult.curve` of one or more fits: epoch, the columns, and seed if several.
        columns: What to draw, such as `["loss_new", "loss_repeat"]`.
        ax: Where to draw; None makes a figure.
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    need(curves, "epoch", *columns)
    ax, only = make_axes(ax), len(columns) == 1
    what = columns[0] if only else "value"
    ylabel = "loss (nats)" if all(map(_is_loss, columns)) else f"{what} (0 to 1)"
    if curves.is_empty():
        return nothing(ax, "epoch (number)", ylabel)
    curves = curves if "seed" in curves.columns else curves.with_columns(seed=0)
    seeds = curves.sort("seed", "epoch").partition_by("seed", maintain_order=True)
    for code, column in enumerate(columns):
        for number, part in enumerate(seeds):
            colour = nth_colour(number if only else code)
            label = f"seed {part['seed'][0]}" if only else shown(column)
            line = {"color": colour, "label": label if only or number == 0 else "_"}
            best = _best_row(part, column)
            ax.plot(part["epoch"].to_numpy(), part[column].to_numpy(), **line)
            ax.plot(part["epoch"][best], part[column][best], "o", color=colour)
    count_axis(ax.xaxis)
    if len(seeds) > 1 or not only:
        put_legend(ax)
    number = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    title = f"{shown(', '.join(columns))} by epoch, {number}; dot: best epoch"
    return finish(ax, title, "epoch (number)", ylabel)


def _is_loss(column: str) -> bool:
    return column.startswith("loss")


def _best_row(curve: pl.DataFrame, column: str) -> int:
    """Row of the best epoch of one seed."""
    judge = "score" if "score" in curve.columns else column
    values = curve[judge].fill_null(np.nan)
    return (values.arg_min() if _is_loss(judge) else values.arg_max()) or 0


def interest_bars(table: pl.DataFrame, *, top: int = 12, ax: Axes | None = None) -> Axes:
    """Probability of each interest of one user, beside what followed and what came before.

    Args:
        table: Columns interest, probability, and where known share (of the user's later events)
            and own (of the history), all from 0 to 1.
        top: Most probable interests to draw.
        ax: Where to draw; None makes a figure.
    """
    need(table, "interest", "probability")
    need_positive(top=top)
    if table["interest"].is_duplicated().any():
        raise ValueError("table must have one row per interest, those of one user; got more")
    best = table.sort("probability", descending=True, maintain_order=True).head(top)
    parts = [name for name in _BARS if name in table.columns]
    xlabel = "probability (%)" if len(parts) == 1 else "probability or share of events (%)"
    ax = make_axes(ax, rows=round(len(best) * (0.6 + 0.3 * len(parts))))
    if best.is_empty():
        return nothing(ax, xlabel, "interest")
    height = 0.84 / len(parts)
    for number, name in enumerate(parts):
        label, colour = _BARS[name]
        place = np.arange(len(best)) + (number - (len(parts) - 1) / 2) * height
        values = 100 * best[name].cast(pl.Float64).fill_null(0).to_numpy()
        ax.barh(place, values, height=height, color=colour, label=label)
    name_rows(ax, [shown(name) for name in best["interest"]])
    if len(parts) > 1:
        put_legend_below(ax)
    which = f"{len(best)} most probable of {len(table):,}" if len(table) > top else "All"
    return finish(ax, f"{which} interests", xlabel, "interest")


def comparison(table: pl.DataFrame, metric: str, target: str, *, ax: Axes | None = None) -> Axes:
    """One metric of every model, the best on top, with its 95 % interval over users.

    Args:
        table: `Evaluation.table()`.
        metric: One of the table's metrics, such as "NDCG@10".
        target: "items", "new items" or "interests".
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If the table has rows, but none of this target or metric.
    """
    need(table, "target", "model", "metric", "value", "low", "high", "seeds", "spread", "users")
    lower = metric in _LOWER_IS_BETTER
    xlabel = f"{shown(metric)} ({_unit(metric)}, {'lower' if lower else 'higher'} is better)"
    rows = _rows_of(table, target, metric).sort("value", descending=not lower, nulls_last=True)
    ax = make_axes(ax, rows=len(rows))
    if rows.is_empty():
        return nothing(ax, xlabel, "model")
    labels = []
    for place, row in enumerate(rows.iter_rows(named=True)):
        _dot(ax, place, row["value"], row, colour_of(row["model"]), "o")
        several = row["spread"] is not None
        seeds = f" ({row['seeds']} seeds ± {row['spread']:.2g})" if several else ""
        labels.append(shown(row["model"], 20 if several else 28) + seeds)
    name_rows(ax, labels)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6))
    interval = " (line: 95 % interval)" if rows["low"].is_not_null().any() else ""
    title = f"{shown(metric)} of {shown(target)}, {rows['users'].max():,} users{interval}"
    return finish(ax, title, xlabel, "model")


def _unit(metric: str) -> str:
    """Unit of a metric of `evaluation`."""
    return _UNITS.get(metric.split("@")[0], "0 to 1")


def _rows_of(table: pl.DataFrame, target: str, metric: str) -> pl.DataFrame:
    """Rows of one target and metric; both must occur in a table that has rows."""
    if not table.is_empty():
        need_one_of("target", target, table["target"].unique(maintain_order=True).to_list())
        table = table.filter(pl.col("target") == target)
        need_one_of("metric", metric, table["metric"].unique(maintain_order=True).to_list())
    return table.filter(pl.col("target") == target, pl.col("metric") == metric)


def _dot(
    ax: Axes, place: float, value: float, interval: dict, colour: str, marker: str, label: str = "_"
) -> None:
    """A value on a row, with its interval as a line where it has one."""
    if interval.get("low") is not None:
        ax.plot([interval["low"], interval["high"]], [place, place], color=colour, linewidth=1.8)
    ax.plot(value, place, marker, color=colour, markersize=6.5, label=label, linestyle="none")


def _dots(ax: Axes, table: pl.DataFrame, rows: str, series: str, scale: float = 1) -> None:
    """Dots in rows, one colour and mark per series; the legend names the series."""
    names = table[series].unique(maintain_order=True).to_list()
    places = table[rows].unique(maintain_order=True).to_list()
    step = 0.7 / max(len(names), 2)
    seen = set()
    for row in table.iter_rows(named=True):
        name, number = row[series], names.index(row[series])
        place = places.index(row[rows]) + (number - (len(names) - 1) / 2) * step
        look = (colour_of(name), MARKERS[number % len(MARKERS)])
        _dot(ax, place, scale * row["value"], row, *look, "_" if name in seen else shown(name))
        seen.add(name)
    name_rows(ax, [shown(place, 40) for place in places])
    for edge in range(1, len(places)):
        ax.axhline(edge - 0.5, color="#E4E4E4", linewidth=0.8, zorder=0)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6))
    put_legend_below(ax)


def gains(
    table: pl.DataFrame,
    *,
    target: str | Sequence[str] | None = None,
    metric: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How much better a model is than each other one, paired by user: right of 0 is better.

    Args:
        table: `Evaluation.gains()`.
        target: Targets to draw; None draws all.
        metric: Metrics to draw; None draws those that are a quality from 0 to 1 (not coverage,
            novelty or log loss). The sign of log loss, where lower is better, is turned.
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If the table has rows, but none of such a target or metric.
    """
    need(table, "target", "metric", "over", "gain", "low", "high", "users")
    rows = table.rename({"gain": "value"})
    for column, wanted in (("target", target), ("metric", metric)):
        names = [wanted] if isinstance(wanted, str) else wanted
        for name in names if names is not None and len(table) else []:
            need_one_of(column, name, table[column].unique(maintain_order=True).to_list())
        if names is not None:
            rows = rows.filter(pl.col(column).is_in(list(names)))
    if metric is None:
        rows = rows.filter(~pl.col("metric").str.contains(_NO_GAIN))
    rows = _turn_signs(rows)
    rows = rows.with_columns(row=pl.col("target") + ": " + pl.col("metric"))
    ax = make_axes(ax, rows=round(0.6 * len(rows)) + 3)
    xlabel = "mean difference per user (model minus other, 95 % interval)"
    if rows.is_empty():
        return nothing(ax, xlabel, "target: metric")
    ax.axvline(0, color="black", linewidth=1.2)
    _dots(ax, rows, "row", "over")
    return finish(ax, "Right of the line the model is better than …", xlabel, "target: metric")


def _turn_signs(rows: pl.DataFrame) -> pl.DataFrame:
    """Gains of which more is always better."""
    is_lower = pl.col("metric").is_in(_LOWER_IS_BETTER)
    turned = {"value": "value", "low": "high", "high": "low"}
    return rows.with_columns(
        *(
            pl.when(is_lower).then(-pl.col(other)).otherwise(pl.col(name)).alias(name)
            for name, other in turned.items()
        ),
        metric=pl.when(is_lower).then(pl.col("metric") + " (turned)").otherwise("metric"),
    )


def relevance_diversity(
    table: pl.DataFrame,
    *,
    target: str = "items",
    x: str = "alpha-NDCG@10",
    y: str = "NDCG@10",
    ax: Axes | None = None,
) -> Axes:
    """Every model as a point: one metric against another, with 95 % intervals as a cross.

    Args:
        table: `Evaluation.table()`.
        target: "items", "new items" or "interests".
        x: Metric of the x axis; alpha-NDCG judges relevance and diversity together.
        y: Metric of the y axis.
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If the table has rows, but none of this target or one of the metrics.
    """
    need(table, "target", "model", "metric", "value", "low", "high")
    ax, labels = make_axes(ax), tuple(f"{shown(name)} ({_unit(name)})" for name in (x, y))
    columns = ["model", "value", "low", "high"]
    across = _rows_of(table, target, x).select(columns)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(6))
    points = across.join(
        _rows_of(table, target, y).select(columns), on="model", suffix="_y", maintain_order="left"
    )
    if points.is_empty():
        return nothing(ax, *labels)
    for name, value, low, high, value_y, low_y, high_y in points.iter_rows():
        look = {"color": colour_of(name), "linewidth": 1.2, "alpha": 0.6}
        if low is not None:
            ax.plot([low, high], [value_y, value_y], **look)
        if low_y is not None:
            ax.plot([value, value], [low_y, high_y], **look)
        ax.plot(value, value_y, "o", color=look["color"], markersize=8)
    _label_points(ax, *(points[name].to_list() for name in ("model", "value", "value_y")))
    best = "" if {x, y} & set(_LOWER_IS_BETTER) else " (best: top right)"
    return finish(ax, f"Models by two metrics of {shown(target)}{best}", *labels)


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


def coverage(table: pl.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How much of the catalogue, the interests and the users each model's lists reach.

    Args:
        table: `Evaluation.table()`; its coverage metrics are drawn.
        ax: Where to draw; None makes a figure.
    """
    need(table, "target", "model", "metric", "value")
    rows = table.filter(pl.col("metric").str.contains("coverage", literal=True))
    rows = rows.sort(pl.col("metric").rank("dense"), maintain_order=True)
    rows = rows.select("model", "value", row=pl.col("target") + ": " + pl.col("metric"))
    ax, labels = make_axes(ax, rows=round(0.6 * len(rows)) + 3), ("covered (%)", "target: metric")
    if rows.is_empty():
        return nothing(ax, *labels)
    _dots(ax, rows, "row", "model", scale=100)
    ax.set_xlim(-3, 103)
    return finish(ax, "What the lists of each model reach", *labels)
