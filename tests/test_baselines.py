"""Baselines count what they say they count."""

from dataclasses import replace

import numpy as np
import pytest
from small_world import FEATURES, histories_of

from interestkit import baselines
from interestkit.baselines import MostFrequent, Popular
from interestkit.exploration import transitions
from interestkit.features import fit_features
from interestkit.linear import add_linear_part
from interestkit.neighbours import EASE, ItemKNN
from interestkit.recommendation import recommend
from interestkit.reranking import Reranked, trade_offs
from interestkit.widgets.map import interest_map

# Counts: item 0 three, item 1 one, item 2 two, item 3 none, the search four.
LOG = histories_of(
    [(0, 0), (0, 1), (4, 1), (2, 9)],
    [(2, 2), (4, 3), (4, 3), (4, 9)],
    [(0, 4), (1, 10)],
)
POPULAR = Popular(features=FEATURES, log=LOG)


def test_popularity_counts_events_of_candidates():
    np.testing.assert_array_equal(POPULAR.counts, [3, 1, 2, 0, -np.inf])


def test_popular_lists_the_most_frequent_items_first():
    codes, scores = POPULAR.rank(LOG, k=5, exclude_seen=False)
    np.testing.assert_array_equal(codes, [[0, 2, 1, 3, -1]] * 3)
    np.testing.assert_array_equal(scores, [[3, 2, 1, 0, -np.inf]] * 3)


def test_popular_leaves_out_items_of_the_history():
    codes, scores = POPULAR.rank(LOG, k=3)
    np.testing.assert_array_equal(codes, [[1, 3, -1], [0, 1, 3], [2, 3, -1]])
    np.testing.assert_array_equal(scores[0], [1, 0, -np.inf])


def test_recently_popular_counts_the_newest_days_and_breaks_ties_by_all():
    # the last event is on day 10: from day 9 on items 2 and 1 have one each, and the search;
    # of all ten events items 0..3 have 3, 1, 2, 0
    recent = Popular(features=FEATURES, log=LOG, days=1)
    np.testing.assert_allclose(recent.counts[:4], np.array([3, 1 + 11, 2 + 11, 0]) / 11)
    codes, _ = recent.rank(LOG, k=4, exclude_seen=False)
    assert codes[0].tolist() == [2, 1, 0, 3]


def test_popular_interests_are_shares_of_all_events_and_one_spread_evenly():
    # x has 3 + 1 events, y has 2; one more is half x, half y
    expected = np.array([4.5, 2.5]) / 7
    np.testing.assert_allclose(POPULAR.interests(LOG), [expected] * 3)


def test_most_frequent_lists_the_users_own_habits_then_what_is_popular():
    own = MostFrequent(features=FEATURES, log=LOG)
    codes, scores = own.rank(LOG, k=4, exclude_seen=False)
    # user 0 has item 0 twice, item 2 once; user 2 items 0 and 1 once each: 0 is more popular
    np.testing.assert_array_equal(codes, [[0, 2, 1, 3], [2, 0, 1, 3], [0, 1, 2, 3]])
    np.testing.assert_allclose(scores[0], [2 + 3 / 4, 1 + 2 / 4, 1 / 4, 0])


def test_one_own_event_counts_more_than_any_popularity():
    log = histories_of([(0, 0)] * 50, [(1, 0)])
    codes, _ = MostFrequent(features=FEATURES, log=log).rank(log, k=2, exclude_seen=False)
    assert codes[1].tolist() == [1, 0]


def test_most_frequent_interests_are_own_shares_and_one_event_as_everybodys():
    # user 0: x twice, y once; user 1: y once; user 2: x twice. Everybody's: 4.5 and 2.5 of 7
    x, y = 4.5 / 7, 2.5 / 7
    expected = [[(2 + x) / 4, (1 + y) / 4], [x / 2, (1 + y) / 2], [(2 + x) / 3, y / 3]]
    actual = MostFrequent(features=FEATURES, log=LOG).interests(LOG)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("make", [Popular, MostFrequent])
def test_users_without_events_get_what_is_popular(make):
    nobody = histories_of([], [])
    codes, _ = make(features=FEATURES, log=LOG).rank(nobody, k=3)
    np.testing.assert_array_equal(codes, [[0, 2, 1]] * 2)
    shares = make(features=FEATURES, log=LOG).interests(nobody)
    np.testing.assert_allclose(shares, [np.array([4.5, 2.5]) / 7] * 2)


def test_an_empty_log_gives_equal_interests_and_no_order():
    empty = Popular(features=FEATURES, log=histories_of([]), days=3)
    np.testing.assert_allclose(empty.interests(LOG)[0], [0.5, 0.5])
    assert empty.rank(LOG, k=2, exclude_seen=False)[0][0].tolist() == [0, 1]


def test_no_users_get_no_lists():
    codes, scores = POPULAR.rank(histories_of(), k=2)
    assert (codes.shape, scores.shape) == ((0, 2), (0, 2))
    assert POPULAR.interests(histories_of()).shape == (0, 2)


@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("make", [Popular, MostFrequent])
def test_lists_do_not_depend_on_the_size_of_blocks(study, monkeypatch, make, block):
    histories = study.test.histories
    ranker = make(features=study.features, log=study.histories)
    expected = ranker.rank(histories, k=6)
    monkeypatch.setattr(baselines, "BLOCK", block)
    for left, right in zip(ranker.rank(histories, k=6), expected, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("days", [-5, 0, float("nan")])
@pytest.mark.parametrize("make", [Popular, MostFrequent])
def test_days_that_are_none_are_refused(make, days):
    with pytest.raises(ValueError, match=f"days must be above 0 or None, got {days}"):
        make(features=FEATURES, log=LOG, days=days)


def test_k_outside_the_catalogue_is_an_error():
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5 \(the catalogue\), got 6"):
        POPULAR.rank(LOG, k=6)


def test_events_after_the_log_do_not_count(study):
    later = replace(study.histories, item=study.histories.item[::-1].copy())
    ranker = Popular(features=study.features, log=study.histories)
    np.testing.assert_array_equal(
        ranker.rank(later, k=5, exclude_seen=False)[0],
        ranker.rank(study.histories, k=5, exclude_seen=False)[0],
    )


ASKS = {  # of a baseline's class, the study, other features and the histories coded by them
    "to learn from": lambda make, study, _, known: make(features=study.features, log=known),
    "to rank for": lambda make, study, _, known: own(make, study).rank(known, k=3),
    "interests": lambda make, study, _, known: own(make, study).interests(known),
    "recommend": lambda make, study, *others: recommend(own(make, study), *others),
    "reranked": lambda make, study, other, _: Reranked(
        ranker=own(make, study), features=other
    ).rank(study.histories),
    "trade-offs": lambda make, study, other, _: trade_offs(own(make, study), study.test, other),
    "transitions": lambda _, study, __, known: transitions(study.features, known),
    "interest map": lambda _, study, __, known: interest_map(study.predictor, known),
    "linear part": lambda _, study, __, known: add_linear_part(study.predictor, known, weight=1),
}


def own(make, study):
    return make(features=study.features, log=study.histories)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("make", [Popular, MostFrequent, ItemKNN, EASE])
def test_histories_coded_by_other_features_are_refused(study, make, ask):
    other = fit_features(study.split.train, study.split.items, min_item_events=20)
    with pytest.raises(ValueError, match="histories must be made by these features"):
        ask(make, study, other, other.histories(study.split.train))
