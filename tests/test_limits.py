import numpy as np
import pytest

from interestkit.limits import (
    check_above_0,
    check_at_least,
    check_counts,
    check_one_of,
    check_up_to,
    check_within,
)

INF = float("inf")


@pytest.mark.parametrize("interval", ["[0, 1]", "[0, 1)", "(0, 1]", "(0, 1)"])
def test_an_interval_has_the_ends_that_its_brackets_say(interval):
    is_inside = {0: interval[0] == "[", 0.5: True, 1: interval[-1] == "]"}
    for value in (0, 0.5, 1, -0.1, 1.1, INF, float("nan")):
        if is_inside.get(value, False):
            check_within(interval, share=value)
            continue
        with pytest.raises(ValueError, match=r"share must be in .0, 1., got "):
            check_within(interval, share=value)


@pytest.mark.parametrize("value", [1, 2.5])
def test_numbers_within_limits_pass(value):
    check_at_least(1, first=1, second=value)
    check_above_0(first=1e-9, second=value)


@pytest.mark.parametrize("value", [0, -1, INF, float("nan")])
def test_numbers_out_of_limits_are_named(value):
    with pytest.raises(ValueError, match=f"second must be at least 1, got {value}"):
        check_at_least(1, first=1, second=value)
    with pytest.raises(ValueError, match=f"second must be above 0, got {value}"):
        check_above_0(first=1, second=value)


@pytest.mark.parametrize("value", [2.5, np.float64(2), INF, float("nan"), "2", None])
def test_a_count_is_a_whole_number(value):
    for check in (check_counts, check_up_to):
        limits = (1,) if check is check_counts else (9, "the items")
        check(*limits, first=2, second=np.int64(2))
        with pytest.raises(ValueError, match=r"second must be a whole number \(int\), got "):
            check(*limits, first=1, second=value)


def test_a_count_is_within_its_limits():
    with pytest.raises(ValueError, match="k must be at least 2, got 1"):
        check_counts(2, k=1)
    check_up_to(3, "the items", first=1, last=3)
    for value in (0, 4):
        with pytest.raises(ValueError, match=rf"k must be in 1\.\.3 \(the items\), got {value}"):
            check_up_to(3, "the items", k=value)


def test_a_word_must_be_one_of_those_allowed():
    check_one_of({"a": 1, "b": 2}, way="b")
    with pytest.raises(ValueError, match="way must be one of a, b, got 'c'"):
        check_one_of(("a", "b"), way="c")
