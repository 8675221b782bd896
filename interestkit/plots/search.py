"""Figures of a search for settings."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from interestkit.plots.drawing import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    count_axis,
    finish,
    need,
    nothing,
    plain_numbers,
    shown,
    styled,
)

_RESULTS = ("trial", "score", "items", "new items", "seconds")
_COLUMNS = 3  # at most so many settings side by side
_FEW = 6  # so many different values stand side by side instead of on an axis of numbers
_LETTERS = 24  # of all names side by side
_WIDE = 20  # a setting whose largest value is so many times its smallest has a log axis


@styled
def search_trials(
    table: pl.DataFrame, *, metric: str = "score", title: str = "Search for settings"
) -> list[Axes]:
    """Score of each trial of a search, then score against each setting.

    A line shows the best score so far, a diamond the defaults, a ring the best trial; crosses on
    the bottom line are trials without a score (diverged). A setting with at most six values, or
    with text or "none" among them, has its values side by side; a wide one a log axis.

    Args:
        table: `SearchResult.table`: trial, score, and a column per setting.
        metric: Name of the score, such as `SearchResult.metric`.
        title: What was searched.

    Returns:
        The Axes of a new figure: that of the trials, then one per setting.
    """
    need(table, "trial", "score")
    settings = [name for name in table.columns if name not in _RESULTS]
    columns = min(_COLUMNS, max(len(settings), 1))
    rows = -(-len(settings) // columns)
    figure = plt.figure(figsize=(7, 2.4 + 2.0 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2] + [1.0] * rows)
    first = figure.add_subplot(grid[0, :])
    ylabel = f"{shown(metric)}, validation"
    if table.is_empty():
        return [nothing(first, "trial (number)", ylabel)]
    axes = [_trials(first, table, title, ylabel)]
    for number, name in enumerate(settings):
        ax = figure.add_subplot(grid[1 + number // columns, number % columns], sharey=first)
        places = _places(ax, table[name])
        _points(ax, places, table["score"].to_numpy())
        ax.tick_params(axis="y", labelleft=number % columns == 0)
        axes.append(finish(ax, "", shown(name, 20), "" if number % columns else shown(metric)))
    return axes


def _trials(ax: Axes, table: pl.DataFrame, title: str, ylabel: str) -> Axes:
    """Scores in the order of trials, and the best so far."""
    trials, scores = table["trial"].to_numpy(), table["score"].to_numpy()
    so_far = np.fmax.accumulate(scores)
    ax.step(trials, so_far, where="post", color=GREY, label="best so far")
    _points(ax, trials, scores)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    count_axis(ax.xaxis)
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    title = f"{shown(title, 40)}: {len(scores)} trials, the best in a ring"
    return finish(ax, title, "trial (number)", ylabel)


def _points(ax: Axes, places: Sequence[float], scores: Sequence[float]) -> None:
    """All trials, the first as the defaults, the best with a ring."""
    places, scores = np.asarray(places, float), np.asarray(scores, float)
    ax.plot(places[1:], scores[1:], "o", color=BLUE, markersize=5, label="trial")
    ax.plot(places[:1], scores[:1], "D", color=ORANGE, markersize=7, label="defaults")
    ax.margins(y=0.12)
    lost = np.isnan(scores)
    if lost.any():
        style = {"transform": ax.get_xaxis_transform(), "color": BLACK, "clip_on": False}
        ax.plot(places[lost], np.zeros(lost.sum()), "x", label="no score", **style)
    if not lost.all():
        best = np.nanargmax(scores)
        ring = {"mfc": "none", "mec": BLACK, "markersize": 11, "label": "best"}
        ax.plot(places[best], scores[best], "o", **ring)


def _places(ax: Axes, values: pl.Series) -> list[float]:
    """Place of each trial on the x axis, whose scale and labels are set to suit the values."""
    distinct = values.unique().sort(nulls_last=True).to_list()
    if values.dtype.is_numeric() and not values.null_count() and len(distinct) > _FEW:
        if distinct[0] > 0 and distinct[-1] >= _WIDE * distinct[0]:
            ax.set_xscale("log")
        else:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=values.dtype.is_integer()))
        ax.margins(x=0.1)
        plain_numbers(ax.xaxis)
        return values.to_list()
    room = _LETTERS // max(len(distinct), 1)
    names = ["none" if value is None else _name(value, room) for value in distinct]
    ax.set_xticks(range(len(distinct)), names, fontsize="small")
    ax.set_xlim(-0.5, len(distinct) - 0.5)
    return [distinct.index(value) for value in values]


def _name(value: object, room: int) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value, room)
