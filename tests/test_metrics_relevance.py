"""Lists against what is relevant: by hand, against slow loops, and what each refuses."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interestkit import metrics

LOG2_3 = np.log2(3)  # the discount of rank 2; rank 1 has discount 1, rank 3 has 2
NAN = np.nan
BINARY = {
    "recall": metrics.recall_at_k,
    "truncated recall": lambda *args, k: metrics.recall_at_k(*args, k=k, truncated=True),
    "precision": metrics.precision_at_k,
    "hit rate": metrics.hit_rate_at_k,
    "reciprocal rank": metrics.reciprocal_rank_at_k,
    "average precision": metrics.average_precision_at_k,
    "average precision over all": lambda *args, k: metrics.average_precision_at_k(
        *args, k=k, truncated=False
    ),
    "ndcg": metrics.ndcg_at_k,
}
# hits in three ranks, relevant items, k, then the value of each metric in the order of BINARY
BY_HAND = {
    "all-relevant-on-top": ([1, 1, 0], 2, 3, [1, 1, 2 / 3, 1, 1, 1, 1, 1]),
    "no-hit": ([0, 0, 0], 2, 3, [0, 0, 0, 0, 0, 0, 0, 0]),
    "hit-lost-at-rank-2": (
        [1, 0, 1], 2, 3, [1, 1, 2 / 3, 1, 1, *[(1 + 2 / 3) / 2] * 2, 1.5 / (1 + 1 / LOG2_3)],
    ),
    "first-hit-at-rank-3": (
        [0, 0, 1], 1, 3, [1, 1, 1 / 3, 1, 1 / 3, 1 / 3, 1 / 3, 1 / 2],
    ),
    "more-relevant-than-k": (
        [1, 0, 0], 9, 3, [1 / 9, 1 / 3, 1 / 3, 1, 1, 1 / 3, 1 / 9, 1 / (1.5 + 1 / LOG2_3)],
    ),
    "hit-below-k-does-not-count": (
        [0, 1, 1], 2, 2, [*[1 / 2] * 3, 1, 1 / 2, 1 / 4, 1 / 4, (1 / LOG2_3) / (1 + 1 / LOG2_3)],
    ),
    "k-is-one": ([1, 1, 1], 3, 1, [1 / 3, 1, 1, 1, 1, 1, 1 / 3, 1]),
    "nothing-relevant-is-undefined": ([0, 0, 0], 0, 3, [NAN] * 8),
}  # fmt: skip


def close(actual, expected, rtol=1e-6, atol=0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("case", BY_HAND)
def test_binary_metric_equals_hand_computed_value(name, case):
    hits, num_relevant, k, expected = BY_HAND[case]
    actual = BINARY[name](np.array([hits], bool), np.array([num_relevant]), k=k)
    close(actual, [expected[list(BINARY).index(name)]])


def slow_binary(name, hits, num_relevant, k):
    """One user, plain loops over ranks."""
    if num_relevant == 0:
        return NAN
    gain, hit_ranks, precisions = 0.0, [], []
    for rank in range(1, k + 1):
        if hits[rank - 1]:
            hit_ranks.append(rank)
            gain += 1 / np.log2(rank + 1)
            precisions.append(len(hit_ranks) / rank)
    reachable = min(k, num_relevant)
    return {
        "recall": len(hit_ranks) / num_relevant,
        "truncated recall": len(hit_ranks) / reachable,
        "precision": len(hit_ranks) / k,
        "hit rate": float(bool(hit_ranks)),
        "reciprocal rank": 1 / hit_ranks[0] if hit_ranks else 0.0,
        "average precision": sum(precisions) / reachable,
        "average precision over all": sum(precisions) / num_relevant,
        "ndcg": gain / sum(1 / np.log2(rank + 1) for rank in range(1, reachable + 1)),
    }[name]


@pytest.mark.parametrize("name", BINARY)
def test_binary_metric_follows_shuffled_users_and_jit_and_accepts_no_users(name):
    rng = np.random.default_rng(3)
    hits, order = rng.random((20, 5)) < 0.4, rng.permutation(20)
    num_relevant = hits.sum(axis=1)
    values = np.asarray(BINARY[name](hits, num_relevant, k=4))
    close(BINARY[name](hits[order], num_relevant[order], k=4), values[order])
    close(jax.jit(BINARY[name], static_argnames="k")(hits, num_relevant, k=4), values)
    assert BINARY[name](hits[:0], num_relevant[:0], k=4).shape == (0,)


@pytest.mark.parametrize("name", BINARY)
def test_binary_metric_names_what_is_wrong(name):
    metric, hits, one = BINARY[name], np.zeros((2, 3), bool), np.array([1, 1])
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"k must be in 1\.\.3 \(the ranks given\), got {k}"):
            metric(hits, one, k=k)
    with pytest.raises(ValueError, match=r"users must be the same, got .*2.*3"):
        metric(hits, np.array([1, 1, 1]), k=1)
    with pytest.raises(ValueError, match=r"hits must be Bool with axes \(users ranks\), got float"):
        metric(hits.astype(np.float32), one, k=1)
    with pytest.raises(ValueError, match=r"num_relevant must be Int .* of shape \(2, 1\)"):
        metric(hits, one[:, None], k=1)
    with pytest.raises(ValueError, match=r"num_relevant must be >= the hits, got 1 at \[1\]"):
        metric(np.array([[True, False, False], [True, False, True]]), one, k=1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 3, 7]),
    num_scores=st.sampled_from([1, 3, 1000]),
)
def test_lists_of_tied_scores_are_judged_as_a_slow_ranking_is(seed, k, num_scores):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, num_scores, (40, 9)).astype(np.float32)
    scores[rng.random((40, 9)) < rng.random((40, 1))] = -np.inf  # short and empty lists
    relevant = rng.random((40, 9)) < rng.choice([0, 0.2, 0.8], (40, 1))
    codes = np.asarray(metrics.top_k(scores, 7)[1])
    hits = (codes >= 0) & np.take_along_axis(relevant, np.maximum(codes, 0), axis=1)
    slow = []
    for row, wanted in zip(scores, relevant, strict=True):
        order = sorted(np.flatnonzero(row > -np.inf), key=lambda code: (-row[code], code))[:7]
        slow.append([wanted[code] for code in order] + [False] * (7 - len(order)))
    for name, metric in BINARY.items():
        expected = [
            slow_binary(name, h, n, k) for h, n in zip(slow, relevant.sum(axis=1), strict=True)
        ]
        close(metric(hits, relevant.sum(axis=1), k=k), expected)


@pytest.mark.parametrize("name", BINARY)
def test_a_user_without_recommendations_scores_zero(name):
    close(BINARY[name](np.zeros((1, 3), bool), np.array([2]), k=3), [0])


@pytest.mark.parametrize(
    ("gains", "ideal", "k", "expected"),
    [
        pytest.param([3, 1], [1, 0, 3], 2, 1.0, id="best-order"),
        pytest.param([1, 3], [1, 0, 3], 2, (1 + 3 / LOG2_3) / (3 + 1 / LOG2_3), id="swapped"),
        pytest.param([0, 2], [2, 5, 4], 1, 0.0, id="gain-below-k"),
        pytest.param([4, 2], [2, 5, 4], 2, (4 + 2 / LOG2_3) / (5 + 4 / LOG2_3), id="more-than-k"),
        pytest.param([2, 0], [2], 2, 1.0, id="fewer-gains-than-k"),
        pytest.param([0, 0], [0, 0], 2, NAN, id="nothing-to-gain-is-undefined"),
    ],
)
def test_graded_ndcg_equals_hand_computed_value(gains, ideal, k, expected):
    close(metrics.graded_ndcg_at_k(np.array([gains]), np.array([ideal]), k=k), [expected])


@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 3, 6]))
def test_graded_ndcg_equals_slow_loop_and_ignores_the_order_of_labels(seed, k):
    rng = np.random.default_rng(seed)
    ideal = rng.integers(0, 4, size=(5, 8)) * rng.random((5, 8))
    gains = rng.permuted(ideal, axis=1)[:, :6]
    expected = []
    for row, best in zip(gains, ideal, strict=True):
        total, largest = (
            sum(gain / np.log2(rank + 2) for rank, gain in enumerate(list(some)[:k]))
            for some in (row, sorted(best, reverse=True))
        )
        expected.append(total / largest)
    close(metrics.graded_ndcg_at_k(gains, ideal, k=k), expected)
    close(metrics.graded_ndcg_at_k(gains, ideal[:, ::-1], k=k), expected)


def test_graded_ndcg_with_gains_of_one_is_ndcg():
    hits = np.array([[True, False, True, False]])
    binary = metrics.ndcg_at_k(hits, np.array([3]), k=4)
    close(metrics.graded_ndcg_at_k(hits.astype(int), np.array([[1, 1, 1]]), k=4), binary)


def test_graded_ndcg_names_what_is_wrong():
    gains = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"k must be in 1\.\.3"):
        metrics.graded_ndcg_at_k(gains, gains, k=4)
    with pytest.raises(ValueError, match="number of users"):
        metrics.graded_ndcg_at_k(gains, gains[:1], k=1)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"^gains must be finite and >= 0, got {bad} at"):
            metrics.graded_ndcg_at_k(gains * bad, gains, k=1)
        with pytest.raises(ValueError, match=rf"ideal_gains must be .*got {bad} at \[0, 0\]"):
            metrics.graded_ndcg_at_k(gains, gains * bad, k=1)


A, B, AB, NO = [1, 0], [0, 1], [1, 1], [0, 0]  # an item's topics


@pytest.mark.parametrize(
    ("listed", "ideal", "alpha", "expected"),
    [
        pytest.param([A, B], [A, B], 0.5, 1.0, id="two-topics"),
        pytest.param([A, A], [A, B], 0.5, (1 + 0.5 / LOG2_3) / (1 + 1 / LOG2_3), id="repeat"),
        pytest.param([A, A], [A, B], 0.0, 1.0, id="no-weight-on-variety"),
        pytest.param([A, A], [A, A], 1.0, 1.0, id="a-repeat-is-worth-nothing"),
        pytest.param([NO, A], [A], 0.5, 1 / LOG2_3, id="miss-first"),
        # greedy takes both topics first (2), then any repeat (0.5)
        pytest.param([A, B], [A, B, AB], 0.5, (1 + 1 / LOG2_3) / (2 + 0.5 / LOG2_3), id="greedy"),
        pytest.param([NO, NO], [A, NO], 0.5, 0.0, id="no-hit"),
        pytest.param([NO, NO], [NO, NO], 0.5, NAN, id="no-topic-is-undefined"),
        pytest.param([NO, NO], np.zeros((0, 2)), 0.5, NAN, id="nothing-relevant-is-undefined"),
    ],
)
def test_alpha_ndcg_equals_hand_computed_value(listed, ideal, alpha, expected):
    listed, ideal = np.array([listed], bool), np.array([ideal], bool)
    close(metrics.alpha_ndcg_at_k(listed, ideal, k=2, alpha=alpha), [expected])


def slow_alpha_gain(topics, seen, alpha):
    return sum((1 - alpha) ** seen[t] for t in range(len(topics)) if topics[t])


def slow_alpha_ndcg(listed, ideal, k, alpha):
    """One user, as written by Clarke et al.: loops over ranks, and over what is left."""

    def total(items):
        seen, value = np.zeros(listed.shape[1]), 0.0
        for rank, topics in enumerate(items[:k]):
            value += slow_alpha_gain(topics, seen, alpha) / np.log2(rank + 2)
            seen = seen + topics
        return value

    left, best, seen = list(ideal), [], np.zeros(listed.shape[1])
    while left and len(best) < k:
        gains = [slow_alpha_gain(topics, seen, alpha) for topics in left]
        best.append(left.pop(int(np.argmax(gains))))
        seen = seen + best[-1]
    return total(listed) / total(best) if total(best) else NAN


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 3, 5]),
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_alpha_ndcg_equals_slow_loop_and_ignores_the_order_of_topics(seed, k, alpha):
    rng = np.random.default_rng(seed)
    ideal = rng.random((4, 7, 3)) < rng.choice([0.1, 0.5])
    listed = ideal[:, rng.permutation(7)[:5]] & (rng.random((4, 5, 1)) < 0.7)
    expected = [slow_alpha_ndcg(x, y, k, alpha) for x, y in zip(listed, ideal, strict=True)]
    close(metrics.alpha_ndcg_at_k(listed, ideal, k=k, alpha=alpha), expected, rtol=1e-5)
    turned = metrics.alpha_ndcg_at_k(listed[..., ::-1], ideal[..., ::-1], k=k, alpha=alpha)
    close(turned, expected, rtol=1e-5)


def test_alpha_ndcg_names_what_is_wrong():
    topics = np.ones((2, 3, 4), bool)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.5"):
        metrics.alpha_ndcg_at_k(topics, topics, k=1, alpha=1.5)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.3"):
        metrics.alpha_ndcg_at_k(topics, topics, k=4)
    with pytest.raises(ValueError, match="number of topics must be the same"):
        metrics.alpha_ndcg_at_k(topics, topics[..., :3], k=1)
    with pytest.raises(ValueError, match="number of users must be the same"):
        metrics.alpha_ndcg_at_k(topics, topics[:1], k=1)
    with pytest.raises(ValueError, match="topics must be Bool"):
        metrics.alpha_ndcg_at_k(topics.astype(int), topics, k=1)


def test_accuracy_is_one_for_any_correct_label_and_nan_without_one():
    labels = np.array([[0, 1], [2, 0], [1, 2], [-1, 1], [1, 0], [-1, -1]])
    is_correct = np.array([[1, 0, 1], [1, 0, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]], bool)
    first, two = [1, 1, 0, 0, NAN, 0], [1, 1, 1, 1, NAN, 0]
    close(metrics.accuracy(labels, is_correct), first)
    close(metrics.accuracy(labels, is_correct, k=2), two)
    close(jax.jit(metrics.accuracy, static_argnames="k")(labels, is_correct, k=2), two)
    code = np.array([2, 0, 1, -1])  # old label -> new code; -1 stays
    close(metrics.accuracy(code[labels], is_correct[:, [1, 2, 0]]), first)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_accuracy_equals_slow_loop(seed, k):
    rng = np.random.default_rng(seed)
    labels = rng.permuted(np.tile(np.arange(-2, 4), (20, 1)), axis=1)[:, :4]
    is_correct = rng.random((20, 4)) < 0.3
    expected = [
        float(any(label >= 0 and correct[label] for label in row[:k])) if any(correct) else NAN
        for row, correct in zip(labels.tolist(), is_correct.tolist(), strict=True)
    ]
    close(metrics.accuracy(labels, is_correct, k=k), expected)


def test_accuracy_names_what_is_wrong():
    is_correct = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match=r"labels must be codes below 3, got 3 at \[1, 0\]"):
        metrics.accuracy(np.array([[0], [3]]), is_correct)
    with pytest.raises(ValueError, match="number of users"):
        metrics.accuracy(np.array([[0]]), is_correct)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.1"):
        metrics.accuracy(np.array([[0], [1]]), is_correct, k=2)
