"""The figure of a search shows what was tried, what was best, and where the defaults stand."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from contrast import READABLE, texts_of

from interestkit import plots

NAN = float("nan")
TABLE = pl.DataFrame(
    {
        "trial": range(1, 9),
        "score": [0.2, 0.1, NAN, 0.5, 0.3, 0.5, 0.4, 0.2],
        "items": 0.1,
        "seconds": 1.0,
        "rate": [10.0**-n for n in range(8)],
        "share": [n / 8 for n in range(8)],
        "days": [None, 3.0, 10.0, 3.0, None, 10.0, 3.0, 3.0],
        "$odd": ["a", "b", "a", "b", "a", "b", "a", "b"],
    }
)


@pytest.fixture(autouse=True)
def styled():
    """The house style for one test, and no figure left open after it."""
    with mpl.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def line(ax, label):
    """Points of the line with a label."""
    (found,) = (line for line in ax.lines if line.get_label() == label)
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def test_trials_stand_in_order_below_the_best_so_far():
    ax = plots.search_trials(TABLE, metric="NDCG@10", title="ALS")[0]
    assert ax.get_title(loc="left") == "ALS: 8 trials, the best in a ring"
    assert ax.get_xlabel() == "trial (number)"
    assert ax.get_ylabel() == "NDCG@10, validation"
    np.testing.assert_array_equal(line(ax, "best so far")[1], [0.2] * 3 + [0.5] * 5)
    np.testing.assert_array_equal(line(ax, "trial")[0], range(2, 9))
    np.testing.assert_array_equal(line(ax, "defaults"), [[1], [0.2]])
    np.testing.assert_array_equal(line(ax, "best"), [[4], [0.5]])  # of equals the earlier
    np.testing.assert_array_equal(line(ax, "no score")[0], [3])


def test_text_stands_out():
    found = dict(texts_of(plots.search_trials(TABLE)[0].figure))
    assert len(found) > 10
    assert min(found.values()) >= READABLE, found


def test_every_setting_has_axes_of_its_own_with_all_trials():
    axes = plots.search_trials(TABLE)
    assert [ax.get_xlabel() for ax in axes[1:]] == ["rate", "share", "days", "$odd"]
    np.testing.assert_allclose(line(axes[1], "trial")[0], TABLE["rate"][1:])
    np.testing.assert_allclose(line(axes[2], "defaults")[0], [0.0])
    assert [ax.get_xscale() for ax in axes[1:3]] == ["log", "linear"]
    axes[1].set_ylim(0, 9)
    assert {ax.get_ylim() for ax in axes} == {(0, 9)}  # one scale for all


def test_few_values_and_text_stand_side_by_side_and_none_comes_last():
    days, odd = plots.search_trials(TABLE)[3:]
    assert [tick.get_text() for tick in days.get_xticklabels()] == ["3", "10", "none"]
    np.testing.assert_array_equal(line(days, "defaults")[0], [2])
    np.testing.assert_array_equal(line(days, "trial")[0], [0, 1, 0, 2, 1, 0, 0])
    assert [tick.get_text() for tick in odd.get_xticklabels()] == ["a", "b"]


def test_a_search_without_settings_or_scores_still_has_a_figure():
    only = plots.search_trials(TABLE.select("trial", "score"))
    assert len(only) == 1
    lost = plots.search_trials(TABLE.with_columns(score=pl.lit(NAN)).head(2))
    assert [each.get_label() for each in lost[0].lines].count("best") == 0
    lost[0].figure.canvas.draw()


def test_an_empty_table_says_so_and_a_missing_column_is_an_error():
    (ax,) = plots.search_trials(TABLE.clear())
    assert ax.texts[0].get_text() == "nothing to show"
    with pytest.raises(ValueError, match=r"\['score'\] are missing"):
        plots.search_trials(TABLE.drop("score"))
