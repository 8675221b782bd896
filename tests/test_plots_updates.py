"""Figures of models through time and of drift show the numbers of their tables."""

from datetime import UTC, datetime, timedelta

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from contrast import READABLE, texts_of

from interestkit import plots

WEEKS = [datetime(2024, 3, 4, tzinfo=UTC) + timedelta(days=7 * n) for n in range(3)]
CURVE = pl.DataFrame(
    {
        "period": WEEKS * 2,
        "model": ["updated"] * 3 + ["never updated"] * 3,
        "target": ["items"] * 6,
        "value": [0.3, 0.3, 0.3, 0.3, 0.2, 0.1],
        "low": [0.2, 0.2, 0.2, 0.2, 0.1, 0.0],
        "high": [0.4, 0.4, 0.4, 0.4, 0.3, 0.2],
    }
)
DRIFT = pl.DataFrame(
    {
        "aspect": ["items", "interest", "interest"],
        "name": ["", "jazz", "$opera"],
        "before": [None, 0.2, 0.1],
        "after": [None, 0.21, 0.3],
        "low": [0.0, -0.02, -0.03],
        "high": [0.0, 0.02, 0.03],
        "is_drift": [False, False, True],
    }
)


@pytest.fixture(autouse=True)
def styled():
    """The house style for one test, and no figure left open after it."""
    with mpl.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def test_each_model_has_a_line_with_its_values_and_intervals():
    ax = plots.prequential_curve(CURVE)
    lines = {bars.get_label(): bars for bars in ax.containers}
    assert set(lines) == {"updated", "never updated"}
    for name, bars in lines.items():
        own = CURVE.filter(model=name)
        np.testing.assert_allclose(bars.lines[0].get_ydata(), own["value"])
        ends = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
        np.testing.assert_allclose(ends, own.select("low", "high").to_numpy(), atol=1e-12)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(lines)


def test_interests_stand_by_the_size_of_their_change_and_drift_has_another_colour():
    ax = plots.interest_drift(DRIFT)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["$opera", "jazz"]
    assert ax.get_title(loc="left").endswith("1 of 2 drifted (filled)")
    bands = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 7]
    np.testing.assert_allclose(bands, [[7, 13], [18, 22]])
    arrows = [line for line in ax.lines if line.get_marker() in "<>"]
    np.testing.assert_allclose([line.get_xdata()[0] for line in arrows], [30, 21])
    assert arrows[0].get_color() != arrows[1].get_color()
    assert [line.get_markerfacecolor() == "white" for line in arrows] == [False, True]


def test_text_stands_out():
    for ax in (plots.prequential_curve(CURVE), plots.interest_drift(DRIFT)):
        found = dict(texts_of(ax.figure))
        assert min(found.values()) >= READABLE, found


@pytest.mark.parametrize("draw", [plots.prequential_curve, plots.interest_drift])
def test_nothing_to_show_and_missing_columns_are_said(draw):
    table = CURVE if draw is plots.prequential_curve else DRIFT
    ax = draw(table.clear())
    assert ax.texts[0].get_text() == "nothing to show"
    with pytest.raises(ValueError, match="are missing"):
        draw(table.drop("low"))


def test_unknown_target_is_named():
    with pytest.raises(ValueError, match="target must be one of"):
        plots.prequential_curve(CURVE, "songs")
