"""Every metric against values worked out by hand and against slow loops."""

import jax
import jax.numpy as jnp
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
    "ndcg": metrics.ndcg_at_k,
}
# hits in three ranks, relevant items, k, then the value of each metric in the order of BINARY
BY_HAND = {
    "all-relevant-on-top": ([1, 1, 0], 2, 3, [1, 1, 2 / 3, 1, 1, 1, 1]),
    "no-hit": ([0, 0, 0], 2, 3, [0, 0, 0, 0, 0, 0, 0]),
    "hit-lost-at-rank-2": (
        [1, 0, 1], 2, 3, [1, 1, 2 / 3, 1, 1, (1 + 2 / 3) / 2, 1.5 / (1 + 1 / LOG2_3)],
    ),
    "first-hit-at-rank-3": (
        [0, 0, 1], 1, 3, [1, 1, 1 / 3, 1, 1 / 3, 1 / 3, 1 / 2],
    ),
    "more-relevant-than-k": (
        [1, 0, 0], 9, 3, [1 / 9, 1 / 3, 1 / 3, 1, 1, 1 / 3, 1 / (1.5 + 1 / LOG2_3)],
    ),
    "hit-below-k-does-not-count": (
        [0, 1, 1], 2, 2, [1 / 2, 1 / 2, 1 / 2, 1, 1 / 2, 1 / 4, (1 / LOG2_3) / (1 + 1 / LOG2_3)],
    ),
    "k-is-one": ([1, 1, 1], 3, 1, [1 / 3, 1, 1, 1, 1, 1, 1]),
    "nothing-relevant-is-undefined": ([0, 0, 0], 0, 3, [NAN] * 7),
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
        "ndcg": gain / sum(1 / np.log2(rank + 1) for rank in range(1, reachable + 1)),
    }[name]


@pytest.mark.parametrize("name", BINARY)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 3, 6]))
def test_binary_metric_equals_slow_loop(name, seed, k):
    rng = np.random.default_rng(seed)
    hits = rng.random((8, 6)) < rng.choice([0.1, 0.5, 0.9])
    num_relevant = hits.sum(axis=1) + rng.integers(0, 4, size=8)
    expected = [slow_binary(name, h, n, k) for h, n in zip(hits, num_relevant, strict=True)]
    close(BINARY[name](hits, num_relevant, k=k), expected)


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


def test_accuracy_is_one_for_any_label_of_the_moment_and_nan_without_one():
    top = np.array([0, 2, 1, -1, 1])
    is_correct = np.array([[1, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    expected = [1, 1, 0, 0, NAN]
    close(metrics.accuracy(top, is_correct), expected)
    close(jax.jit(metrics.accuracy)(top, is_correct), expected)
    labels = np.array([2, 0, 1])  # old label at each new place
    new_top = np.array([1, 0, 2, -1, 2])  # 0 -> 1, 2 -> 0, 1 -> 2
    close(metrics.accuracy(new_top, is_correct[:, labels]), expected)


def test_accuracy_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"top must be codes below 3, got 3 at \[1\]"):
        metrics.accuracy(np.array([0, 3]), np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="number of users"):
        metrics.accuracy(np.array([0]), np.ones((2, 3), bool))


def test_log_loss_equals_hand_computed_value():
    probabilities = np.float32([[0.25, 0.75], [0.5, 0.5], [1, 0], [1, 0], [0.5, 0.5]])
    shares = np.float32([[1, 0], [0.25, 0.75], [1, 0], [0.5, 0.5], [0, 0]])
    expected = [np.log(4), np.log(2), 0.0, np.inf, NAN]
    close(metrics.log_loss(probabilities, shares), expected)
    close(metrics.log_loss(probabilities[::-1, ::-1], shares[::-1, ::-1]), expected[::-1])
    close(jax.jit(metrics.log_loss)(probabilities, shares), expected)


def test_log_loss_is_least_for_the_true_shares():
    shares = np.float32([[0.2, 0.3, 0.5]])
    entropy = -(0.2 * np.log(0.2) + 0.3 * np.log(0.3) + 0.5 * np.log(0.5))
    close(metrics.log_loss(shares, shares), [entropy])
    assert metrics.log_loss(np.float32([[0.25, 0.3, 0.45]]), shares)[0] > entropy


def test_log_loss_names_what_is_wrong():
    half, zero = np.full((1, 2), 0.5), np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"sum of probabilities must be 1, got 0.0 at \[0\]"):
        metrics.log_loss(zero, half)
    with pytest.raises(ValueError, match=r"sum of shares must be 1, got 2\.0"):
        metrics.log_loss(half, 2 * half)
    with pytest.raises(ValueError, match=r"probabilities must be finite and >= 0, got -1.0 at"):
        metrics.log_loss(np.array([[2.0, -1.0]]), half)
    with pytest.raises(ValueError, match=r"shares must be finite and >= 0, got nan"):
        metrics.log_loss(half, half * np.nan)
    with pytest.raises(ValueError, match="number of labels"):
        metrics.log_loss(half, np.ones((1, 1)))
    with pytest.raises(ValueError, match="number of users"):
        metrics.log_loss(half, np.full((2, 2), 0.5))


def test_coverage_counts_each_code_once_and_no_empty_place():
    items = np.array([[0, 3], [3, -1], [-1, -1]])
    close(metrics.catalogue_coverage(items, num_items=5), 2 / 5)
    close(metrics.interest_coverage(items, num_interests=4), 2 / 4)
    close(metrics.user_coverage(items), [1, 1, 0])
    close(metrics.catalogue_coverage(items[::-1, ::-1], num_items=5), 2 / 5)
    close(metrics.catalogue_coverage(items[:0], num_items=5), 0)
    covered = jax.jit(metrics.catalogue_coverage, static_argnames="num_items")
    close(covered(items, num_items=5), 2 / 5)


def test_coverage_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"items must be codes below 3, got 3 at \[0, 1\]"):
        metrics.catalogue_coverage(np.array([[0, 3]]), num_items=3)
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


def test_top_k_is_at_hand_among_the_metrics():
    np.testing.assert_array_equal(metrics.top_k(jnp.array([[1.0, 2.0]]), 1)[1], [[1]])
