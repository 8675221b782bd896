"""How popular items are at moments of the past, on several time scales."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit.counting import SECONDS_PER_DAY
from interestkit.limits import check_at_least

# Decay of interest and popularity is looked at on three time scales, as shares of the
# training span: a year gives 7, 30 and 365 days.
TIME_SCALES = (1 / 50, 1 / 12, 1.0)


def time_scales(scales_days: Sequence[float] | None, span_days: float) -> tuple[float, ...]:
    """The scales in days, or `TIME_SCALES` of the span where none are given.

    Raises:
        ValueError: If there is none, or one is not above 0.

    Example:
        >>> time_scales(None, 600)
        (12.0, 50.0, 600.0)
    """
    default = (max(span_days, 1e-3) * share for share in TIME_SCALES)
    scales_days = tuple(map(float, default if scales_days is None else scales_days))
    if not scales_days or not min(scales_days) > 0:
        raise ValueError(f"scales_days must hold numbers above 0, got {scales_days}")
    return scales_days


def relative_weights(kind_weights: Mapping[str, float], kinds: pl.Series) -> dict[str, float]:
    """Weights of which these events have mean 1, so that a log of one kind counts events.

    Raises:
        ValueError: If one is below 0 or no finite number, or 0 for all of these events.

    Example:
        >>> relative_weights({"view": 3.0}, pl.Series(["view"]))
        {'view': 1.0}
    """
    check_at_least(0, **{f"kind_weights[{kind!r}]": w for kind, w in kind_weights.items()})
    mean = kinds.replace_strict(dict(kind_weights), return_dtype=pl.Float64).mean()
    if mean == 0:
        raise ValueError("kind_weights must be above 0 for a kind of these events, got 0 for all")
    return {kind: weight / mean for kind, weight in kind_weights.items()}


def popularity_at(
    edges: Int[np.ndarray, " snapshots"],
    code: Int[np.ndarray, " events"],
    seconds: Int[np.ndarray, " events"],
    weight: Float[np.ndarray, " events"],
    *,
    scales_days: Sequence[float],
    num_items: int,
    before: Float[np.ndarray, "scales items"] | float = 0.0,
) -> Float[np.ndarray, "snapshots scales items"]:
    """log(1 + decayed weight of an item's events) before each moment, on each time scale.

    Args:
        edges: The moments, in seconds; the first stands before all events.
        code: Item of each event.
        seconds: Time of each event, before the last moment.
        weight: Weight of each event.
        scales_days: An event of age a days counts exp(-a / scale).
        num_items: Size of the catalogue.
        before: Decayed weight of earlier events at the first moment.

    Example:
        >>> day = np.array([0, 86_400])
        >>> code, seconds, weight = np.array([1]), np.array([0]), np.array([1.0])
        >>> popularity_at(day, code, seconds, weight, scales_days=[1.0], num_items=2)[1].round(2)
        array([[0.  , 0.31]], dtype=float32)
    """
    steps = len(edges) - 1
    step = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, steps - 1)
    cell = step * num_items + code
    popularity = np.zeros((steps + 1, len(scales_days), num_items))
    popularity[0] = before
    for scale, days in enumerate(scales_days):
        decayed = np.exp((seconds - edges[step + 1]) / SECONDS_PER_DAY / days)
        added = np.bincount(cell, weight * decayed, minlength=steps * num_items)
        kept = np.exp(-np.diff(edges) / SECONDS_PER_DAY / days)
        for snapshot, row in enumerate(added.reshape(steps, num_items)):
            popularity[snapshot + 1, scale] = popularity[snapshot, scale] * kept[snapshot] + row
    return np.log1p(popularity).astype(np.float32)
