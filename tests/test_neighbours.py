"""Item-based baselines score what they say they score, for any history."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_world import FEATURES, histories_of

from interestkit import baselines
from interestkit.histories import Histories
from interestkit.neighbours import ALS, EASE, PRIOR_EVENTS, ItemBased, ItemKNN

# Columns, users 0..2: item 0 (1, 1, 0), item 1 (1, 0, 0), item 2 (0, 1, 1), the search (0, 0, 1).
# Events of items 0..3: 3, 1, 2, 0.
LOG = histories_of([(0, 0), (0, 1), (1, 1)], [(0, 2), (2, 3)], [(2, 4), (4, 5)])
KNN = ItemKNN(features=FEATURES, log=LOG, shrinkage=0.0)
S01, S02, S24 = 1 / 2**0.5, 1 / 2, 1 / 2**0.5  # the cosines that are not 0
P0, P1, P2, P3 = 3 / 4 - 1, 1 / 4 - 1, 2 / 4 - 1, -1  # counts over (their largest + 1), less 1
MAKERS = {"knn": ItemKNN, "ease": EASE, "als": ALS}
EACH = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def test_knn_scores_are_sums_of_similarities_and_popularity_fills_up():
    user = histories_of([(1, 0), (4, 1)])
    codes, scores = KNN.rank(user, k=5, exclude_seen=False)
    # item 0 goes with item 1, item 2 with the search; the others score nothing
    np.testing.assert_array_equal(codes, [[0, 2, 1, 3, -1]])
    np.testing.assert_allclose(scores, [[S01, S24, P1, P3, -np.inf]], rtol=1e-6)


def test_two_items_that_point_at_one_add_up():
    codes, scores = KNN.rank(histories_of([(1, 0), (2, 0)]), k=2, exclude_seen=True)
    np.testing.assert_array_equal(codes, [[0, 3]])
    np.testing.assert_allclose(scores, [[S01 + S02, P3]], rtol=1e-6)


def test_an_old_item_counts_less_with_days():
    user = histories_of([(1, 0), (4, 7)])
    knn = replace(KNN, days=7 / np.log(4))  # after seven days a quarter is left
    codes, scores = knn.rank(user, k=2)
    np.testing.assert_array_equal(codes, [[2, 0]])
    np.testing.assert_allclose(scores, [[S24, S01 / 4]], rtol=1e-6)


def test_age_counts_from_the_last_event_with_an_item_to_the_newest_of_the_user():
    users = histories_of([(3, 0), (1, 1), (3, 3), (3, 5)], [], [(2, 9)])
    profiles = ItemBased(features=FEATURES, log=LOG, power=1.0, days=2.0).profiles(users)
    expected = np.zeros((3, 5))
    expected[0, [1, 3]] = np.exp(-4 / 2), 3
    expected[2, 2] = 1
    np.testing.assert_allclose(profiles.toarray(), expected, rtol=1e-6)


def test_power_says_how_much_repeats_count():
    user = histories_of([(1, 0), (1, 1), (1, 2), (2, 3)])
    shape = {"features": FEATURES, "log": LOG}
    for power, expected in ((0.0, 1), (0.5, 3**0.5), (1.0, 3)):
        profile = ItemBased(power=power, **shape).profiles(user).toarray()
        np.testing.assert_allclose(profile, [[0, expected, 1, 0, 0]], rtol=1e-6)


def test_own_weight_lifts_the_users_own_items():
    user = histories_of([(1, 0), (3, 0)])
    knn = replace(KNN, own_weight=0.5)
    codes, scores = knn.rank(user, k=4, exclude_seen=False)
    np.testing.assert_array_equal(codes, [[0, 1, 3, 2]])
    np.testing.assert_allclose(scores, [[S01, 0.5, 0.5, P2]], rtol=1e-6)
    for left, right in zip(knn.rank(user, k=4), KNN.rank(user, k=4), strict=True):
        np.testing.assert_array_equal(left, right)  # new items are not touched


@EACH
def test_items_of_the_history_are_left_out_however_old(make):
    user = histories_of([(0, 0), (1, 0), (2, 20_000)])
    codes, scores = make(features=FEATURES, log=LOG, days=0.5).rank(user, k=4)
    np.testing.assert_array_equal(codes, [[3, -1, -1, -1]])
    assert np.isfinite(scores[0, 0])


@EACH
def test_users_without_events_get_what_is_popular(make):
    ranker = make(features=FEATURES, log=LOG)
    nobody = histories_of([], [(2, 0)], [])
    codes, scores = ranker.rank(nobody, k=4)
    np.testing.assert_array_equal(codes[[0, 2]], [[0, 2, 1, 3]] * 2)
    np.testing.assert_allclose(scores[0], [P0, P2, P1, P3])
    # x has 4 events of everybody, y has 2, and one is half and half
    np.testing.assert_allclose(ranker.interests(nobody)[0], np.array([4.5, 2.5]) / 7)


@EACH
def test_no_users_get_no_lists(make):
    ranker = make(features=FEATURES, log=LOG)
    codes, scores = ranker.rank(histories_of(), k=2)
    assert (codes.shape, scores.shape) == ((0, 2), (0, 2))
    assert ranker.interests(histories_of()).shape == (0, 2)


def test_interests_are_those_of_own_events_of_the_scores_and_of_everybody():
    # own events: x twice; scores: item 0 (x) S01, item 2 (y) S24; everybody's: 4.5 and 2.5 of 7
    user = histories_of([(1, 0), (1, 1), (4, 1)])
    x = 2 + PRIOR_EVENTS * S01 / (S01 + S24) + 4.5 / 7
    y = PRIOR_EVENTS * S24 / (S01 + S24) + 2.5 / 7
    expected = np.array([x, y]) / (2 + PRIOR_EVENTS + 1)
    np.testing.assert_allclose(KNN.interests(user), [expected], rtol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 128])
@EACH
def test_lists_do_not_depend_on_the_size_of_blocks(study, monkeypatch, make, block):
    users = study.test.histories
    ranker = make(features=study.features, log=study.histories, days=10.0, own_weight=0.1)
    expected, interests = ranker.rank(users, k=6, exclude_seen=False), ranker.interests(users)
    monkeypatch.setattr(baselines, "BLOCK", block)
    codes, scores = ranker.rank(users, k=6, exclude_seen=False)
    np.testing.assert_array_equal(codes, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-4)
    np.testing.assert_allclose(ranker.interests(users), interests, rtol=1e-5)


def reachable(make):
    """A log of two groups of items, and who had one item of the first: what follows?"""
    groups = [[(a, 0), (b, 1)] for a, b in ((0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5))] * 3
    features = SimpleNamespace(
        num_items=6, is_candidate=np.ones(6, bool), item_interests=np.eye(6, dtype=np.float32)
    )
    few = {"factors": 2} if make is ALS else {}  # as many as there are groups
    ranker = make(features=features, log=histories_of(*groups, *[[(5, 0)]] * 9), **few)
    return ranker.rank(histories_of([(0, 0)], [(3, 0)]), k=2)[0]


@EACH
def test_items_that_were_had_together_come_first(make):
    codes = reachable(make)
    assert sorted(codes[0]) == [1, 2]  # though item 5 is the most popular
    assert sorted(codes[1]) == [4, 5]


def test_ease_from_users_scores_as_ease_from_items(study):
    few = study.features.num_items // 2
    log = study.histories
    offsets = log.offsets[: few + 1]
    part = slice(0, offsets[-1])
    small = Histories(
        users=log.users[:few],
        offsets=offsets,
        item=log.item[part],
        seconds=log.seconds[part],
        weight=log.weight[part],
        moment=log.moment[:few],
    )
    ease = EASE(features=study.features, log=small, regularisation=20.0, power=1.0)
    own = ease.profiles(study.test.histories)
    np.testing.assert_allclose(ease._scores(own), own @ ease.weights, rtol=1e-3, atol=1e-3)
    assert ease.features.num_items > len(ease.log)


def test_ease_takes_as_many_items_or_users_as_allowed():
    EASE(features=FEATURES, log=LOG, max_items=3)  # five items, but three users
    with pytest.raises(ValueError, match="at most max_items=2 items, got 3: drop rare ones"):
        EASE(features=FEATURES, log=LOG, max_items=2)


def test_als_vector_of_a_history_is_the_exact_solution(study):
    als = ALS(features=study.features, log=study.histories, factors=5, alpha=3.0, iterations=4)
    users = study.test.histories
    factors = als._model.item_factors.astype(float)
    for row in (0, 1, 5):
        items, counts = np.unique(
            users.item[slice(*users.offsets[[row, row + 1]])], return_counts=True
        )
        confidence = np.ones(len(factors))
        confidence[items] += 3.0 * counts
        liked = np.zeros(len(factors))
        liked[items] = 1
        weighted = factors.T * confidence
        left = weighted @ factors + als.regularisation * np.eye(5)
        expected = np.linalg.solve(left, weighted @ liked)
        actual = als.user_vectors(als.profiles(users))[row]
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_als_lowers_its_own_loss_and_one_seed_gives_one_result(study):
    def fitted(**settings):
        return ALS(features=study.features, log=study.histories, factors=6, **settings)

    def loss(als):
        pairs = als.pairs.toarray()
        vectors, factors = als.user_vectors(als.pairs), als._model.item_factors
        errors = (1 + als.alpha * pairs) * ((pairs > 0) - vectors @ factors.T) ** 2
        return errors.sum() + als.regularisation * ((vectors**2).sum() + (factors**2).sum())

    assert loss(fitted(iterations=8)) < 0.99 * loss(fitted(iterations=1))
    first = fitted()._model.item_factors
    np.testing.assert_array_equal(first, fitted()._model.item_factors)
    assert not np.array_equal(first, fitted(seed=1)._model.item_factors)


def test_als_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    als = ALS(features=FEATURES, log=LOG)
    with pytest.raises(ImportError, match=r"needs the package implicit: pip install .*\[als\]"):
        als.rank(LOG, k=2)


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (ItemKNN, {"days": 0}, "days must be above 0 or None, got 0"),
        (ALS, {"factors": 0}, "factors must be at least 1, got 0"),
        (ALS, {"iterations": 0}, "iterations must be at least 1, got 0"),
        (ALS, {"regularisation": -1}, "regularisation must be at least 0, got -1"),
        (ALS, {"alpha": 0}, "alpha must be above 0, got 0"),
    ],
)
def test_settings_out_of_range_are_errors(make, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(features=FEATURES, log=LOG, **wrong)


@EACH
def test_k_outside_the_catalogue_is_an_error(make):
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5 \(the catalogue\), got 6"):
        make(features=FEATURES, log=LOG).rank(LOG, k=6)
