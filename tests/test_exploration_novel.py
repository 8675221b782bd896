"""Novel interests: what counts as one, two baselines by hand, and a model that learns a step."""

from dataclasses import replace

import numpy as np
import pytest
from small_world import histories_of

from interestkit.exploration import counting
from interestkit.exploration.counting import LabelCooccurrence, NewToOthers, SimilarUsers
from interestkit.exploration.crowd import Crowd, labels_touched, nearest, sample
from interestkit.exploration.judged import judge_novel, tune_novel
from interestkit.exploration.novel import fit_novel
from interestkit.features import fit_features
from interestkit.heldout import held_out
from interestkit.metrics import ndcg_at_k, novel_hits
from interestkit.simulation import simulate
from interestkit.splitting import temporal_split

LOG2_3 = np.log2(3)


class Three:
    """Five items that carry the interests a, a, b, c and none."""

    num_items, num_interests, fingerprint = 5, 3, ""
    item_interests = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)


def days_of(*users):
    """Histories of users who touch an item a day."""
    return histories_of(*([(item, day) for day, item in enumerate(user)] for user in users))


@pytest.fixture(scope="module")
def world():
    log = simulate(num_users=150, num_items=60, num_interests=8, num_bots=0, faults=0, seed=4)
    split = temporal_split(log, min_judged=0)
    features = fit_features(split.train, split.items)
    known = features.histories(split.train)
    return features, known, held_out(features, split, "validation")


def test_only_an_interest_that_is_new_and_came_is_a_hit():
    before = np.array([[True, False, False, False]] * 2)
    after = np.array([[True, True, False, True], [True, False, False, False]])
    hits, count = novel_hits(np.array([[0, 1, -1], [1, 2, 3]]), before, after)
    assert hits.tolist() == [[False, True, False], [False] * 3]
    assert count.tolist() == [2, 0]
    values = ndcg_at_k(hits, count, k=3)  # found at rank 2 is one of two
    np.testing.assert_allclose(values, [(1 / LOG2_3) / (1 + 1 / LOG2_3), np.nan], rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "before", "message"),
    [
        ([[4]], [[False] * 4], "labels must be codes below 4, got 4"),
        ([[0]], [[False] * 3], "the number of labels must be the same"),
        ([[0], [0]], [[False] * 4], "the number of users must be the same"),
    ],
)
def test_novel_hits_refuses_what_does_not_fit(labels, before, message):
    with pytest.raises(ValueError, match=message):
        novel_hits(np.array(labels), np.array(before), np.array([[False] * 4]))


def test_touched_are_the_labels_of_items_of_the_history():
    assert labels_touched(Three, days_of([0, 4], [], [2, 3])).tolist() == [
        [True, False, False],
        [False] * 3,
        [False, True, True],
    ]


def test_similar_users_share_out_by_cosine():
    # user 0 has a. Of the others, [a, b] has cosine 1 / sqrt(2), [c] has 0.
    log = days_of([0], [1, 2], [3])
    found = SimilarUsers(features=Three, log=log, profile="once", neighbours=2, smoothing=1)
    scores = found.novelty(log)[0]
    likeness = 1 / np.sqrt(2)
    expected = [(likeness + 1 / 3) / (likeness + 1), (1 / 3) / (likeness + 1)]
    assert scores[0] == -np.inf
    np.testing.assert_allclose(scores[1:], expected, rtol=1e-6)


def test_cooccurrence_is_a_share_of_those_with_the_users_interests():
    log = days_of([0], [1, 2], [0, 3], [0, 2])
    found = LabelCooccurrence(features=Three, log=log, profile="once", shrinkage=2, power=0)
    # of the four with a two have b and one has c; two more go with 2 / 4 and 1 / 4 of all
    np.testing.assert_allclose(
        found.novelty(log)[0, 1:], [(2 + 2 * 0.5) / 6, (1 + 2 * 0.25) / 6], rtol=1e-6
    )


def test_rate_of_first_touches_counts_those_who_could():
    # in the newest two days users 0 and 1 touch b for the first time, user 2 had it before;
    # user 3 has no events before, and does not count
    log = histories_of(
        [(0, 0), (2, 9)], [(0, 0), (2, 9)], [(2, 0), (2, 9)], [(3, 9)], [(0, 0), (0, 9)]
    )
    rates = Crowd(features=Three, log=log).first_rates(2)
    # could: a 1 (user 2), b 3 (users 0, 1, 4), c 4; did: b 2; all labels: 2 of 8
    np.testing.assert_allclose(rates, [0.25 / 2, 2.25 / 4, 0.25 / 5], rtol=1e-6)
    model = NewToOthers(features=Three, log=log, days=2)
    assert model.novelty(days_of([4]))[0].argmax() == 1


def test_nobody_is_their_own_neighbour_and_only_the_nearest_count():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    ((_, weight),) = nearest(rows, rows, np.arange(3), 1)
    np.testing.assert_allclose(weight, [[0, 1, 0], [1, 0, 0], [0.6, 0.6, 0]], rtol=1e-6)


def test_a_sample_holds_users_with_events_alone():
    assert sample(days_of([0], [], [1], [2]), 2).tolist() == [0, 3]


def test_the_model_learns_a_step_that_counting_misses():
    """Whoever begins with a goes on to b, whoever begins with b to c: all have a, b or c alike."""
    rng = np.random.default_rng(0)
    users, events, step = 300, [], {0: 2, 2: 3, 3: 0}
    for user in range(users):
        start, begin = int(rng.choice([0, 2, 3])), int(rng.integers(100))
        for n, item in enumerate((start, step[start])):
            events.append((user, item, begin + 10 * n))
    rows = [[(item, day) for u, item, day in events if u == user] for user in range(users)]
    log = histories_of(*rows)
    model = fit_novel(Three, log, days=10, moments=4, progress=False)
    tests = days_of([0], [2], [3])
    assert model.novelty(tests).argmax(axis=1).tolist() == [1, 2, 0]
    counted = LabelCooccurrence(features=Three, log=log).novelty(tests)
    assert counted.argmax(axis=1).tolist() != [1, 2, 0]


def test_same_data_give_the_same_model_and_touched_interests_never_come(world):
    features, known, truth = world
    models = [fit_novel(features, known, days=12, progress=False) for _ in range(2)]
    assert np.array_equal(models[0].weights, models[1].weights)
    scores = models[0].novelty(truth.histories)
    assert np.array_equal(scores == -np.inf, labels_touched(features, truth.histories))


def test_a_user_is_scored_the_same_alone_and_among_others(world):
    features, known, truth = world
    model = fit_novel(features, known, days=12, progress=False)
    together = model.novelty(truth.histories)[:3]
    alone = np.concatenate([model.novelty(truth.histories.rows(n, n + 1)) for n in range(3)])
    np.testing.assert_allclose(alone, together, rtol=1e-4)


def test_a_moment_at_which_nothing_new_came_is_left_out():
    # of the last four moments only the last is before something new, on the last day
    users = [[(0, 0), (2, 1)], [(0, 0), (2, 40), (3, 41)], [(0, 0), (3, 101)]]
    log = histories_of(*users)
    both = [fit_novel(Three(), log, days=2, moments=n, progress=False) for n in (1, 4)]
    np.testing.assert_array_equal(both[0].weights, both[1].weights)


def test_nobody_has_no_scores(world):
    features, known, truth = world
    nobody = truth.histories.rows(0, 0)
    for ranker in (
        SimilarUsers(features=features, log=known),
        fit_novel(features, known, days=12, progress=False),
    ):
        assert ranker.novelty(nobody).shape == (0, features.num_interests)


def test_judged_against_what_came_and_undefined_where_nothing_did(world):
    features, _, truth = world
    came = (truth.interest_shares > 0) & ~labels_touched(features, truth.histories)

    class Oracle:
        def novelty(self, _):
            return np.where(labels_touched(features, truth.histories), -np.inf, came * 1.0)

    found = judge_novel({"oracle": Oracle()}, truth, features)
    values = found.per_user.filter(metric="NDCG@3")["value"].to_numpy()
    assert np.array_equal(np.isnan(values), ~came.any(axis=1))
    assert np.nanmin(values) == pytest.approx(1, rel=1e-6)
    metrics = found.table()["metric"].to_list()
    assert metrics == ["NDCG@3", "recall@3", "hit rate@3", "interest coverage@3"]


def test_tuning_takes_the_best_of_the_grid(world, monkeypatch):
    features, known, truth = world
    grid = {"days": (1e-6, 28.0)}  # within a millionth of a day nothing is new to anybody
    monkeypatch.setitem(counting.BASELINES, "new to others", (NewToOthers, grid))
    for name in ("similar users", "co-occurrence"):
        kind, rest = counting.BASELINES[name]
        one = {key: values[:1] for key, values in rest.items()}
        monkeypatch.setitem(counting.BASELINES, name, (kind, one))
    best = tune_novel(features, known, truth, progress=False)
    assert best["new to others"] == {"days": 28.0}
    assert best["similar users"] == {"profile": "once", "neighbours": 20, "smoothing": 0.0}


def test_what_is_out_of_range_is_refused(world):
    features, known, truth = world
    with pytest.raises(ValueError, match="days must be above 0, got 0"):
        fit_novel(features, known, days=0)
    with pytest.raises(ValueError, match="max_users must be at least 1, got 0"):
        fit_novel(features, known, days=1, max_users=0)
    with pytest.raises(ValueError, match="num_trials must be at least 1, got 0"):
        tune_novel(features, known, truth, num_trials=0)
    with pytest.raises(ValueError, match="validation must be the validation part"):
        tune_novel(features, known, replace(truth, part="test"))
    before = labels_touched(features, truth.histories).astype(np.float32)
    with pytest.raises(ValueError, match="hold a user to whom something new came, got none"):
        tune_novel(features, known, replace(truth, interest_shares=before))
    with pytest.raises(ValueError, match=r"k must be in 1\.\.8 \(the interests\), got 9"):
        judge_novel({}, truth, features, k=9)
    with pytest.raises(ValueError, match="rankers must name at least one model, got none"):
        judge_novel({}, truth, features)
    with pytest.raises(ValueError, match=r"must have a model for each name, got none for .'lost'"):
        judge_novel({"lost": []}, truth, features)
