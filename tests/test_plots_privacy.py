"""Figures of privacy show values by epsilon, and what an attack finds."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest

from interestkit import plots

INF = float("inf")
TABLE = pl.DataFrame(
    {
        "target": "items",
        "metric": "NDCG@10",
        "model": ["private"] * 5 + ["popular"],
        "epsilon": [8.0, 8.0, 1.0, INF, 1.0, INF],
        "value": [0.3, 0.5, 0.1, 0.6, 0.3, 0.05],
    }
)


@pytest.fixture(autouse=True)
def styled():
    with mpl.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def test_the_curve_has_the_mean_of_seeds_by_epsilon_and_levels_of_others():
    ax = plots.privacy_curve(TABLE, "items")
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["private"].get_ydata(), [0.2, 0.4, 0.6])
    np.testing.assert_allclose(lines["popular"].get_ydata(), [0.05, 0.05])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "8", "no noise"]
    assert ax.get_ylabel() == "NDCG@10"


def test_a_band_is_drawn_where_there_are_intervals():
    assert not plots.privacy_curve(TABLE, "items").collections
    ends = {"low": pl.col("value") - 0.1, "high": pl.col("value") + 0.1}
    assert len(plots.privacy_curve(TABLE.with_columns(**ends), "items").collections) == 1


def test_the_curve_names_what_it_lacks():
    with pytest.raises(ValueError, match=r"target must be one of \['items'\], got 'interests'"):
        plots.privacy_curve(TABLE, "interests")
    with pytest.raises(ValueError, match=r"\['epsilon'\] are missing"):
        plots.privacy_curve(TABLE.drop("epsilon"), "items")
    assert plots.privacy_curve(TABLE.clear(), "items").texts[0].get_text() == "nothing to show"


def test_membership_has_a_line_for_each_model_and_the_blind_guess():
    curve = pl.DataFrame({"false_positives": [0.001, 0.1, 1.0], "found": [0.0, 0.5, 1.0]})
    ax = plots.membership({"plain": curve, "private": curve})
    assert [line.get_label() for line in ax.lines] == ["plain", "private", "a blind guess"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1e-4, 0.5, 1.0])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert plots.membership({}).texts[0].get_text() == "nothing to show"
