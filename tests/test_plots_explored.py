"""The tree of interests: what stands together, where it is joined, and what is written."""

import polars as pl
import pytest

from interestkit import plots

TREE = pl.DataFrame(
    {
        "node": [0, 1, 2, 3, 4],
        "parent": [3, 4, 3, 4, None],
        "height": [0.0, 0.0, 0.0, 1.0, 2.0],
        "name": ["tea", "bags", "$cups_1$", "tea · cups", "all"],
        "events": [60, 30, 10, 70, 100],
        "is_cut": [True, True, True, False, False],
    }
)


def test_tree_puts_together_what_is_joined_first_and_says_the_shares():
    ax = plots.interest_tree(TREE)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "bags, 30.0 %",
        "tea, 60.0 %",
        "$cups_1$, 10.0 %",
    ]
    assert not any(text.get_parse_math() for text in ax.get_yticklabels())
    joins = {tuple(line.get_xdata()): tuple(line.get_ydata()) for line in ax.lines}
    assert joins[1.0, 1.0] == (1, 2)  # tea and cups
    assert joins[2.0, 2.0] == (0, 1.5)  # bags, and the middle of those two
    left, right = ax.get_xlim()
    assert left > 2 > 0 > right  # what is alike is on the right


def test_an_empty_tree_says_so_and_a_missing_column_is_named():
    assert plots.interest_tree(TREE.clear()).texts[0].get_text() == "nothing to show"
    with pytest.raises(ValueError, match=r"\['events'\] are missing"):
        plots.interest_tree(TREE.drop("events"))
