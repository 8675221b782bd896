"""Lists beyond accuracy: by hand, against slow loops, and what each refuses."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interestkit import metrics

NAN = np.nan


def close(actual, expected, rtol=1e-6, atol=0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol)


def test_coverage_counts_each_code_once_and_no_empty_place():
    items = np.array([[0, 3], [3, -1], [-1, -1]])
    for some in (items, items[::-1, ::-1]):
        close(metrics.catalogue_coverage(some, np.ones(5, bool)), 2 / 5)
        close(metrics.interest_coverage(some, num_interests=4), 2 / 4)
    close(metrics.user_coverage(items), [1, 1, 0])
    close(metrics.catalogue_coverage(items[:0], np.ones(5, bool)), 0)
    close(jax.jit(metrics.catalogue_coverage)(items, np.ones(5, bool)), 2 / 5)


def test_catalogue_coverage_is_of_the_candidates_alone():
    items = np.array([[0, 3], [3, 4]])
    close(metrics.catalogue_coverage(items, np.array([1, 1, 1, 1, 0], bool)), 2 / 4)
    close(metrics.catalogue_coverage(items, np.array([1, 0, 0, 0, 0], bool)), 1)
    close(metrics.catalogue_coverage(items, np.zeros(5, bool)), NAN)


def test_coverage_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"items must be codes below 3, got 3 at \[0, 1\]"):
        metrics.catalogue_coverage(np.array([[0, 3]]), np.ones(3, bool))
    with pytest.raises(ValueError, match=r"is_candidate must be Bool with axes \(items\)"):
        metrics.catalogue_coverage(np.array([[0, 3]]), np.ones(4))
    with pytest.raises(ValueError, match="labels must be codes below 3, got 3"):
        metrics.interest_coverage(np.array([[0, 3]]), num_interests=3)
    with pytest.raises(ValueError, match="items must be Int"):
        metrics.user_coverage(np.array([0, 3]))


def test_diversity_equals_hand_computed_value():
    vectors = np.array([[1, 0], [0, 2], [3, 3], [0, 0], [-1, 0], [5, 0]])
    lists = {
        (0, 1, -1): 1.0,
        (0, 5, -1): 0.0,
        (0, 4, -1): 2.0,
        (0, 2, -1): 1 - np.sqrt(0.5),
        (0, 1, 2): (1 + 2 * (1 - np.sqrt(0.5))) / 3,
        (0, 3, 1): 1.0,  # item 3 has no direction
        (0, 3, -1): NAN,
        (-1, 2, -1): NAN,
        (-1, -1, -1): NAN,
    }
    items = np.array(list(lists))
    close(metrics.intra_list_diversity(items, vectors), list(lists.values()), atol=1e-6)
    close(metrics.intra_list_diversity(items[:, ::-1], vectors[:, ::-1]), list(lists.values()),
          atol=1e-6)  # fmt: skip
    close(jax.jit(metrics.intra_list_diversity)(items, vectors), list(lists.values()), atol=1e-6)


@given(seed=st.integers(0, 10**6))
def test_diversity_equals_mean_over_pairs(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(9, 4))
    items = rng.integers(0, 9, size=(3, 5))
    cosine = [
        [vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
         for i, a in enumerate(row) for b in row[:i]]
        for row in items
    ]  # fmt: skip
    expected = 1 - np.mean(cosine, axis=1)
    close(metrics.intra_list_diversity(items, vectors), expected, rtol=1e-5, atol=1e-6)


def test_diversity_names_what_is_wrong():
    with pytest.raises(ValueError, match="items must be codes below 2, got 2"):
        metrics.intra_list_diversity(np.array([[0, 2]]), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"item_vectors must be finite, got nan at \[1, 0\]"):
        metrics.intra_list_diversity(np.array([[0, 1]]), np.array([[1.0], [np.nan]]))


def test_novelty_equals_hand_computed_value():
    num_events = np.array([4, 2, 0, 1])  # as 4, 2, 1, 1 of 8: 1, 2, 3 and 3 bits
    items = np.array([[0, 1], [2, 3], [-1, 0], [-1, -1]])
    close(metrics.novelty(items, num_events), [1.5, 3, 1, NAN])
    close(jax.jit(metrics.novelty)(items, num_events), [1.5, 3, 1, NAN])
    close(metrics.novelty(np.array([[0]]), np.array([7])), [0])
    many = np.full(3, 2**30, np.int32)  # a third each, and 3 * 2**30 in all
    close(metrics.novelty(np.array([[0, 1]]), many), [np.log2(3)])


def test_novelty_names_what_is_wrong():
    with pytest.raises(ValueError, match="items must be codes below 2, got 5"):
        metrics.novelty(np.array([[5]]), np.array([1, 1]))
    with pytest.raises(ValueError, match=r"num_events must be finite and >= 0, got -1 at \[1\]"):
        metrics.novelty(np.array([[0]]), np.array([1, -1]))
    with pytest.raises(ValueError, match="num_events must be Int"):
        metrics.novelty(np.array([[0]]), np.array([0.5, 0.5]))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param([5, 5, 5], 0.0, id="all-equal"),
        pytest.param([0, 9, 0, 0], 3 / 4, id="one-has-everything"),
        # mean of |difference| over all ordered pairs, halved, over the mean: 2*(1+2+1)/9/2/2
        pytest.param([3, 1, 2], (2 * (1 + 2 + 1) / 9) / 2 / 2, id="pairwise-differences"),
        pytest.param([4], 0.0, id="one-item"),
        pytest.param([0, 0], NAN, id="all-zero-is-undefined"),
        pytest.param([], NAN, id="empty-is-undefined"),
    ],
)
def test_gini_equals_hand_computed_value(counts, expected):
    close(metrics.gini(np.array(counts, float)), expected, atol=1e-7)


def test_gini_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"counts must be finite and >= 0, got -2 at \[1\]"):
        metrics.gini(np.array([1, -2]))


EVENTS = np.array([9, 5, 5, 0, 20])  # places 2, 3, 3, 5 and 1 of 5 candidates


@pytest.mark.parametrize(
    ("items", "hits", "num_relevant", "k", "expected"),
    [
        pytest.param([4, 0, 1], [1, 1, 1], 3, 3, 0.0, id="the-most-popular"),
        pytest.param([3, 2, 0], [1, 1, 1], 3, 3, ((5 - 1) + (3 - 2) + 0) / 5 / 3, id="rare-first"),
        pytest.param([3, 2, 0], [0, 1, 1], 3, 3, (3 - 2) / 5 / 3, id="a-miss-gains-nothing"),
        pytest.param([3, 2, 0], [1, 1, 1], 3, 1, (5 - 1) / 5, id="below-k-does-not-count"),
        pytest.param([1, 2, -1], [1, 1, 0], 9, 3, ((3 - 1) + (3 - 2)) / 5 / 3, id="equal-events"),
        pytest.param([-1, -1, -1], [0, 0, 0], 1, 3, 0.0, id="nothing-recommended"),
        pytest.param([3, 2, 0], [0, 0, 0], 0, 3, NAN, id="nothing-relevant-is-undefined"),
    ],
)
def test_serendipity_equals_hand_computed_value(items, hits, num_relevant, k, expected):
    args = np.array([items]), np.array([hits], bool), np.array([num_relevant]), EVENTS
    close(metrics.serendipity(*args, k=k), [expected])
    close(jax.jit(metrics.serendipity, static_argnames="k")(*args, k=k), [expected])


def test_serendipity_takes_places_among_candidates_alone():
    is_candidate = np.array([1, 1, 1, 1, 0], bool)  # item 3 then has place 4 of 4
    args = np.array([[3, 0]]), np.array([[True, True]]), np.array([2]), EVENTS
    close(metrics.serendipity(*args, k=2, is_candidate=is_candidate), [((4 - 1) + 0) / 4 / 2])


@given(seed=st.integers(0, 10**6), k=st.integers(1, 5))
def test_serendipity_equals_slow_loop(seed, k):
    rng = np.random.default_rng(seed)
    events, is_candidate = rng.integers(0, 6, 12), rng.random(12) < 0.8
    is_candidate[0] = True
    items = rng.permuted(np.tile(np.arange(-3, 12), (20, 1)), axis=1)[:, :5]
    hits = (items >= 0) & (rng.random((20, 5)) < 0.5)
    num_relevant = hits.sum(axis=1) + rng.integers(0, 2, 20)
    expected = []
    for row, hit, wanted in zip(items, hits, num_relevant, strict=True):
        total = 0.0
        for rank in range(1, k + 1):
            if hit[rank - 1]:
                more = [e for e, c in zip(events, is_candidate, strict=True) if c]
                place = 1 + sum(e > events[row[rank - 1]] for e in more)
                total += max(place - rank, 0) / len(more)
        expected.append(total / k if wanted else NAN)
    values = metrics.serendipity(items, hits, num_relevant, events, k=k, is_candidate=is_candidate)
    close(values, expected)


def test_serendipity_names_what_is_wrong():
    items, hits, one = np.array([[0, 1]]), np.ones((1, 2), bool), np.array([2])
    with pytest.raises(ValueError, match=r"k must be in 1\.\.2"):
        metrics.serendipity(items, hits, one, EVENTS, k=3)
    with pytest.raises(ValueError, match="items must be codes below 5, got 5"):
        metrics.serendipity(items + 4, hits, one, EVENTS, k=1)
    with pytest.raises(ValueError, match=r"num_events must be finite and >= 0, got -9 at \[0\]"):
        metrics.serendipity(items, hits, one, -EVENTS, k=1)
    with pytest.raises(ValueError, match="number of items must be the same"):
        metrics.serendipity(items, hits, one, EVENTS, k=1, is_candidate=np.ones(4, bool))
    with pytest.raises(ValueError, match="number of users must be the same"):
        metrics.serendipity(np.tile(items, (2, 1)), hits, one, EVENTS, k=1)
    with pytest.raises(ValueError, match="num_relevant must be >= the hits"):
        metrics.serendipity(items, hits, one - 1, EVENTS, k=1)
    with pytest.raises(ValueError, match="number of ranks must be the same"):
        metrics.serendipity(items[:, :1], hits, one, EVENTS, k=1)


LABELLED = np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 0], [3, 1]])  # item 3 has no label


@pytest.mark.parametrize(
    ("items", "history", "expected"),
    [
        pytest.param([0, 1], [0.5, 0.5], 0.0, id="same-shares"),
        pytest.param([0, 3], [1, 0], 0.0, id="an-item-without-label-is-left-out"),
        pytest.param([0, -1], [0, 1], np.log(1 / 0.01), id="the-label-is-missing"),
        pytest.param([1, 4], [1, 0], np.log(1 / (0.99 * 0.375 + 0.01)), id="3-to-1-adds-1"),
        pytest.param(
            [0, 2],
            [0.25, 0.75],  # list: 0.75, 0.25
            0.25 * np.log(0.25 / (0.99 * 0.75 + 0.0025))
            + 0.75 * np.log(0.75 / (0.99 * 0.25 + 0.0075)),
            id="two-labels",
        ),
        pytest.param([3, -1], [1, 0], NAN, id="a-list-without-label-is-undefined"),
        pytest.param([-1, -1], [1, 0], NAN, id="an-empty-list-is-undefined"),
        pytest.param([0, 1], [0, 0], NAN, id="a-history-without-label-is-undefined"),
    ],
)
def test_calibration_equals_hand_computed_value(items, history, expected):
    items, history = np.array([items]), np.array([history], np.float32)
    close(metrics.calibration(items, LABELLED, history), [expected], atol=1e-6)
    close(metrics.calibration(items, LABELLED[:, ::-1], history[:, ::-1]), [expected], atol=1e-6)
    close(jax.jit(metrics.calibration)(items, LABELLED, history), [expected], atol=1e-6)


def test_calibration_weighs_ranks():
    items, history = np.array([[0, 1]]), np.float32([[1, 0]])
    values = metrics.calibration(items, LABELLED, history, rank_weights=np.array([3, 1]))
    close(values, [np.log(1 / (0.99 * 0.75 + 0.01))])
    values = metrics.calibration(items, LABELLED, history, rank_weights=np.array([0, 1]), alpha=0.1)
    close(values, [np.log(1 / 0.1)])


@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.01, 0.5]))
def test_calibration_equals_slow_loop(seed, alpha):
    rng = np.random.default_rng(seed)
    labels = rng.random((9, 3)) * (rng.random((9, 3)) < 0.6)
    items = rng.permuted(np.tile(np.arange(-3, 9), (20, 1)), axis=1)[:, :5]
    history = rng.dirichlet(np.ones(3), 20) * (rng.random((20, 1)) < 0.9)
    weights = rng.random(5)
    expected = []
    for row, p in zip(items, history, strict=True):
        q, whole = np.zeros(3), 0.0
        for code, weight in zip(row, weights, strict=True):
            if code >= 0 and labels[code].sum() > 0:
                q, whole = q + weight * labels[code] / labels[code].sum(), whole + weight
        if whole == 0 or not p.any():
            expected.append(NAN)
            continue
        mixed = (1 - alpha) * q / whole + alpha * p
        expected.append(sum(a * np.log(a / b) for a, b in zip(p, mixed, strict=True) if a > 0))
    values = metrics.calibration(items, labels, history, alpha=alpha, rank_weights=weights)
    close(values, expected, rtol=1e-5, atol=1e-6)


def test_calibration_names_what_is_wrong():
    items, half = np.array([[0, 1]]), np.full((1, 2), 0.5)
    for alpha in (0, 1):
        with pytest.raises(ValueError, match=rf"alpha must be in \(0, 1\), got {alpha}"):
            metrics.calibration(items, LABELLED, half, alpha=alpha)
    with pytest.raises(ValueError, match=r"sum of history_shares must be 1 or 0, got 2.0 at \[0\]"):
        metrics.calibration(items, LABELLED, half * 4 / 2)
    with pytest.raises(ValueError, match="item_labels must be finite and >= 0"):
        metrics.calibration(items, -LABELLED, half)
    with pytest.raises(ValueError, match="rank_weights must be finite and >= 0"):
        metrics.calibration(items, LABELLED, half, rank_weights=np.array([1, -1]))
    for name, args in {
        "ranks": (items[:, :1], LABELLED, half),
        "labels": (items, LABELLED[:, :1], half),
        "users": (np.tile(items, (2, 1)), LABELLED, half),
    }.items():
        with pytest.raises(ValueError, match=f"number of {name} must be the same"):
            metrics.calibration(*args, rank_weights=np.ones(2))


@given(seed=st.integers(0, 10**6))
def test_coverage_novelty_and_gini_equal_slow_loops(seed):
    rng = np.random.default_rng(seed)
    events, is_candidate = rng.integers(0, 9, 12), rng.random(12) < 0.8
    is_candidate[0], events[0] = True, 3
    items = rng.integers(-6, 12, (8, 5))
    listed = {code for row in items.tolist() for code in row if code >= 0}
    candidates = set(np.flatnonzero(is_candidate).tolist())
    coverage = len(listed & candidates) / len(candidates)
    close(metrics.catalogue_coverage(items, is_candidate), coverage)
    close(metrics.interest_coverage(items, num_interests=12), len(listed) / 12)
    close(metrics.user_coverage(items), [float(any(c >= 0 for c in row)) for row in items])
    counts = [max(int(count), 1) for count in events]
    novelty = []
    for row in items.tolist():
        bits = [-np.log2(counts[code] / sum(counts)) for code in row if code >= 0]
        novelty.append(sum(bits) / len(bits) if bits else NAN)
    close(metrics.novelty(items, events), novelty)
    differences = sum(abs(int(a) - int(b)) for a in events for b in events)
    close(metrics.gini(events), differences / (2 * len(events) * events.sum()))
