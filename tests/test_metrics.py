"""What holds for the metrics as a whole."""

import inspect
from pathlib import Path

import numpy as np

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


def test_every_metric_is_described():
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text("utf-8")
    assert [name for name in PUBLIC if f"`{name}`" not in text] == []
