"""What holds for the metrics as a whole."""

import inspect
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from interestkit import metrics

PUBLIC = [name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))]


def test_everything_public_is_at_hand():
    for module in (metrics.relevance, metrics.lists, metrics.probabilities):
        own = {
            name
            for name, what in vars(module).items()
            if getattr(what, "__module__", None) == module.__name__ and not name.startswith("_")
        }
        assert own <= set(metrics.__all__)
    np.testing.assert_array_equal(metrics.top_k(np.float32([[1, 2]]), 1)[1], [[1]])


HIT, FAR = np.array([[True, False]]), 2**32 + 1  # as 32 bits this would be 1


@pytest.mark.parametrize(
    ("judge", "name"),
    [
        (lambda: metrics.recall_at_k(HIT, np.array([FAR]), k=2), "num_relevant"),
        (lambda: metrics.recall_at_k(HIT, pl.Series([FAR]), k=2), "num_relevant"),
        (lambda: metrics.recall_at_k(HIT, [FAR], k=2), "num_relevant"),
        (lambda: metrics.catalogue_coverage(np.array([[FAR]]), np.ones(3, bool)), "items"),
        (lambda: metrics.gini(np.array([FAR, 1])), "counts"),
        (lambda: metrics.novelty(np.array([[0]]), np.array([FAR, 1])), "num_events"),
    ],
    ids=[
        "counts-of-users",
        "as-a-column",
        "as-a-list",
        "codes",
        "counts-of-any-kind",
        "counts-of-items",
    ],
)
def test_whole_numbers_beyond_32_bits_are_refused_not_wrapped(judge, name):
    limits = r"-2147483648\.\.2147483647"
    with pytest.raises(ValueError, match=rf"{name} must be in {limits}, got 4294967297"):
        judge()


def test_every_metric_is_described():
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text("utf-8")
    assert [name for name in PUBLIC if f"`{name}`" not in text] == []
