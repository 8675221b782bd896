"""Figures of one model: how it learns and what it predicts."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float
from matplotlib.axes import Axes

from interestkit.limits import check_counts
from interestkit.plots.drawing import (
    BLUE,
    GREY,
    ORANGE,
    count_axis,
    finish,
    make_axes,
    name_rows,
    need,
    nothing,
    nth_colour,
    plain_numbers,
    put_legend,
    put_legend_below,
    shown,
    styled,
)

_BARS = {  # columns of `interest_bars`, in their order
    "probability": ("predicted probability", BLUE),
    "share": ("share of what followed", ORANGE),
    "own": ("share of the history", GREY),
}
_LINES = ("-", "--", "-.", ":")  # of several columns, so that equal ones can both be seen


@styled
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
    drawn = [(*after, "-", "learned"), (*before, "--", "at the start")]
    for days, mix, line, label in drawn if has_before else [(*after, "-", "")]:
        for number, (name, curve) in enumerate(_decay_curves(days, mix, ages)):
            name = f"{label} {name}".strip() or "mixture"
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


@styled
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
    are_losses = all(map(_is_loss, columns))
    ylabel = "loss (nats)" if are_losses else f"{what} (0 to 1)"
    if curves.is_empty():
        return nothing(ax, "epoch (number)", ylabel)
    curves = curves if "seed" in curves.columns else curves.with_columns(seed=0)
    seeds = curves.sort("seed", "epoch").partition_by("seed", maintain_order=True)
    for code, column in enumerate(columns):
        for number, part in enumerate(seeds):
            colour = nth_colour(number if only else code)
            label = f"seed {part['seed'][0]}" if only else shown(column)
            line = {"color": colour, "label": label if only or number == 0 else "_"}
            line["linestyle"] = "-" if only else _LINES[code % len(_LINES)]
            best = _best_row(part, column)
            ax.plot(part["epoch"].to_numpy(), part[column].to_numpy(), **line)
            ax.plot(part["epoch"][best], part[column][best], "o", color=colour)
    count_axis(ax.xaxis)
    if len(seeds) > 1 or not only:
        put_legend(ax)
    number = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    several = "Losses" if are_losses else f"{len(columns)} scores"
    dot = "best epoch" if "score" in curves.columns else "lowest" if are_losses else "best of each"
    title = f"{shown(what) if only else several} by epoch, {number}; dot: {dot}"
    return finish(ax, title, "epoch (number)", ylabel)


def _is_loss(column: str) -> bool:
    return column.startswith("loss")


def _best_row(curve: pl.DataFrame, column: str) -> int:
    """Row of the best epoch of one seed."""
    judge = "score" if "score" in curve.columns else column
    values = curve[judge].fill_null(np.nan)
    return (values.arg_min() if _is_loss(judge) else values.arg_max()) or 0


@styled
def interest_bars(table: pl.DataFrame, *, top: int = 12, ax: Axes | None = None) -> Axes:
    """Probability of each interest of one user, beside what followed and what came before.

    Args:
        table: Columns interest, probability, and where known share (of the user's later events)
            and own (of the history), all from 0 to 1.
        top: Most probable interests to draw.
        ax: Where to draw; None makes a figure.
    """
    need(table, "interest", "probability")
    check_counts(1, top=top)
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
    which = f"The {top} most probable of {len(table):,}" if len(table) > top else f"All {len(best)}"
    return finish(ax, f"{which} interests of one user", xlabel, "interest")
