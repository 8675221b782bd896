"""What arrays of a history need before a model reads them; it knows NumPy alone."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

SECONDS_PER_DAY = 86_400


def running_counts(
    user: Int[np.ndarray, " events"],
    item: Int[np.ndarray, " events"],
    seconds: Int[np.ndarray, " events"],
    weight: Float[np.ndarray, " events"],
    scales_days: Iterable[float],
) -> tuple[Int[np.ndarray, " events"], Float[np.ndarray, "events scales"]]:
    """How often a user had touched an item at each event, and when they do so next.

    Args:
        user: User of each event; events come by user, then time.
        item: Item of each event.
        seconds: Time of each event.
        weight: Weight of each event.
        scales_days: Time constants in days: an event of age a counts exp(-a / scale).

    Returns:
        The position of the user's next event with the same item (a very large number where there
        is none), and the decayed sum of weights of the user's events with this item up to and
        including each event.

    Example:
        >>> one, item = np.zeros(3, int), np.array([5, 7, 5])
        >>> following, counts = running_counts(one, item, np.array([0, 1, 1]), np.ones(3), [1.0])
        >>> int(following[0]), counts.ravel().round(3).tolist()
        (2, [1.0, 1.0, 2.0])
    """
    scales = np.fromiter(scales_days, float)
    order = np.lexsort((item, user))  # stable: equal pairs stay in order of time
    again = np.zeros(len(order), bool)
    again[1:] = (user[order[1:]] == user[order[:-1]]) & (item[order[1:]] == item[order[:-1]])
    following = np.full(len(order), np.iinfo(np.int32).max, np.int32)
    following[order[:-1][again[1:]]] = order[1:][again[1:]]
    counts = np.repeat(weight[:, None], len(scales), axis=1).astype(np.float32, copy=False)
    for now in _by_repetition(again):
        now, before = order[now], order[now - 1]
        days = (seconds[now] - seconds[before]) / SECONDS_PER_DAY
        decay = np.exp(-days[:, None] / scales)
        counts[now] += counts[before] * decay.astype(np.float32)
    return following, counts


def _by_repetition(again: Bool[np.ndarray, " events"]) -> Iterable[np.ndarray]:
    """Positions of all second, then all third ... elements of the runs that `again` marks."""
    position = np.flatnonzero(again)
    is_second = np.diff(position, prepend=-1) > 1
    repetition = position - np.maximum.accumulate(np.where(is_second, position, 0))
    order = np.argsort(repetition, kind="stable")
    bounds = np.searchsorted(repetition[order], np.arange(repetition.max(initial=-1) + 2))
    return (position[order[a:b]] for a, b in pairwise(bounds))


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`, and at least 1.

    Arrays padded to such lengths have few shapes, so few programs are compiled.

    Example:
        >>> [power_of_two(number) for number in (0, 1, 5, 8)]
        [1, 1, 8, 8]
    """
    return 1 << max(number - 1, 0).bit_length()


def evenly(number: int, most: int) -> Int[np.ndarray, " taken"]:
    """Places of no more than `most` of `number` things, evenly taken.

    Example:
        >>> evenly(9, 3), evenly(2, 3)
        (array([0, 4, 8]), array([0, 1]))
    """
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(int))


def pad(array: np.ndarray, size: int, value: int = 0) -> np.ndarray:
    """The array with rows of a value behind it, `size` rows in all."""
    width = [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, width, constant_values=value)
