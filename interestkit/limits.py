"""Limits of arguments, checked at the public door: a ValueError names the argument and what came.

Example:
    >>> check_within("[0, 1)", dropout=1.0)
    Traceback (most recent call last):
    ValueError: dropout must be in [0, 1), got 1.0
"""

import math
from collections.abc import Collection
from operator import index


def check_at_least(least: float, **values: float) -> None:
    """Numbers of `least` or more, none infinite."""
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_counts(least: int, **values: int) -> None:
    """Whole numbers of `least` or more."""
    _check_whole(values)
    check_at_least(least, **values)


def check_up_to(most: int, what: str, **values: int) -> None:
    """Whole numbers from 1 to `most`, as there are so many of what is named."""
    _check_whole(values)
    for name, value in values.items():
        if not 1 <= value <= most:
            raise ValueError(f"{name} must be in 1..{most} ({what}), got {value}")


def check_above_0(**values: float) -> None:
    """Numbers above 0, none infinite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}")


def check_within(interval: str, **values: float) -> None:
    """Numbers in an interval as mathematics writes it: (0, 1] has 1, but not 0."""
    low, high = map(float, interval[1:-1].split(","))
    for name, value in values.items():
        is_edge = (value == low and interval[0] == "(") or (value == high and interval[-1] == ")")
        if is_edge or not low <= value <= high:
            raise ValueError(f"{name} must be in {interval}, got {value}")


def check_one_of(allowed: Collection[str], **values: object) -> None:
    """Values that are each one of those allowed."""
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _check_whole(values: dict[str, int]) -> None:
    for name, value in values.items():
        try:
            index(value)
        except TypeError:
            raise ValueError(f"{name} must be a whole number (int), got {value!r}") from None
