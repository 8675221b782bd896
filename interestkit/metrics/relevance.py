"""Ranked lists against what each user was found to want: one value per user."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Real

from interestkit.limits import check_counts, check_within
from interestkit.metrics._checks import (
    Codes,
    Counts,
    Hits,
    PerUser,
    check_amounts,
    check_k,
    check_lengths,
    checked,
    checked_codes,
    judged,
    ratio,
)


def recall_at_k(hits: Hits, num_relevant: Counts, *, k: int, truncated: bool = False) -> PerUser:
    """Share of a user's relevant items that stand in ranks 1..k, in [0, 1].

    Source: Manning, Raghavan and Schütze (2008), Introduction to Information Retrieval, ch. 8.

    Args:
        hits: True where the item at that rank is relevant; a short list is padded with False.
        num_relevant: Relevant items of each user, no fewer than the hits in the list.
        k: Length of the list that is judged, 1 <= k <= ranks.
        truncated: Divide by min(k, num_relevant), so that everybody can reach 1.

    Example:
        >>> hits = jnp.array([[True, False, True], [False, False, False]])
        >>> print(recall_at_k(hits, jnp.array([4, 0]), k=3))
        [0.5 nan]
    """
    hits, num_relevant = judged(hits, num_relevant, k)
    return ratio(hits.sum(axis=1), jnp.minimum(num_relevant, k) if truncated else num_relevant)


def precision_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """Share of ranks 1..k that hold a relevant item, an empty place being a miss, in [0, 1].

    Arguments and source: as `recall_at_k`.

    Example:
        >>> print(precision_at_k(jnp.array([[True, False]]), jnp.array([3]), k=2))
        [0.5]
    """
    hits, num_relevant = judged(hits, num_relevant, k)
    return jnp.where(num_relevant > 0, hits.mean(axis=1), jnp.nan)


def hit_rate_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """1 for a user with at least one relevant item in ranks 1..k, else 0.

    Arguments: as `recall_at_k`. Source: Deshpande and Karypis (2004), ACM TOIS 22(1).

    Example:
        >>> print(hit_rate_at_k(jnp.array([[False, True]]), jnp.array([3]), k=2))
        [1.]
    """
    hits, num_relevant = judged(hits, num_relevant, k)
    return jnp.where(num_relevant > 0, hits.max(axis=1), jnp.nan)


def reciprocal_rank_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """1 / rank of the first relevant item, and 0 when ranks 1..k hold none (mean: MRR).

    Arguments: as `recall_at_k`. Source: Voorhees (1999), TREC-8 Question Answering Track.

    Example:
        >>> print(reciprocal_rank_at_k(jnp.array([[False, True]]), jnp.array([3]), k=2))
        [0.5]
    """
    hits, num_relevant = judged(hits, num_relevant, k)
    return jnp.where(num_relevant > 0, hits.max(axis=1) / (hits.argmax(axis=1) + 1), jnp.nan)


def average_precision_at_k(
    hits: Hits, num_relevant: Counts, *, k: int, truncated: bool = True
) -> PerUser:
    """Precision at each hit in ranks 1..k, summed, over min(k, num_relevant) (mean: MAP).

    Arguments and source: as `recall_at_k`; `truncated` False divides by num_relevant instead,
    as trec_eval does, so that a user with more relevant items than k cannot reach 1.

    Example:
        >>> hits = jnp.array([[True, False, True]])  # (1/1 + 2/3) / 2
        >>> print(f"{average_precision_at_k(hits, jnp.array([2]), k=3)[0]:.3f}")
        0.833
    """
    hits, num_relevant = judged(hits, num_relevant, k)
    precision = hits.cumsum(axis=1) / jnp.arange(1, k + 1)[None, :]
    reachable = jnp.minimum(num_relevant, k) if truncated else num_relevant
    return ratio((hits * precision).sum(axis=1), reachable)


def ndcg_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """Normalised discounted cumulative gain of ranks 1..k, with binary relevance, in [0, 1].

    A hit at rank r gains 1 / log2(r + 1). The sum is divided by that of the best list, which
    has min(k, num_relevant) hits on top. Arguments: as `recall_at_k`.
    Source: Järvelin and Kekäläinen (2002), ACM TOIS 20(4), doi:10.1145/582415.582418,
    with the discount log(r + 1) of Burges et al. (2005), ICML.

    Example:
        >>> hits = jnp.array([[True, False, True]])  # 1.5 / (1 + 1 / log2(3))
        >>> print(f"{ndcg_at_k(hits, jnp.array([2]), k=3)[0]:.3f}")
        0.920
    """
    hits, num_relevant = judged(hits, num_relevant, k)
    best_hits = jnp.arange(k)[None, :] < num_relevant[:, None]
    return ratio(_discounted(hits), _discounted(best_hits.astype(float)))


def novel_hits(
    labels: Codes, before: Bool[Array, "users labels"], after: Bool[Array, "users labels"]
) -> tuple[Hits, Counts]:
    """Where a list of interests names one that is new to the user and came, and how many came.

    New is an interest that the user had not touched before the moment of prediction; it came if
    the user touched it afterwards. The two are what `recall_at_k`, `ndcg_at_k` and their like
    take; a user to whom nothing new came is undefined in all of them. An interest that the user
    had already is a miss, wherever it stands.

    Args:
        labels: Codes of each list of interests.
        before: True for interests touched before the moment.
        after: True for interests touched after it.

    Example:
        >>> before, after = jnp.array([[True, False, False]]), jnp.array([[True, True, False]])
        >>> hits, count = novel_hits(jnp.array([[0, 1, 2]]), before, after)
        >>> print(hits, count)
        [[False  True False]] [1]

    Source: Chen et al. (2021), Values of user exploration in recommender systems, RecSys,
    doi:10.1145/3460231.3474236 (relevance of what is new to a user's history).
    """
    before = checked("before", before, Bool, "users labels")
    after = checked("after", after, Bool, "users labels")
    labels = checked_codes("labels", labels, after.shape[1])
    check_lengths("users", labels=labels.shape[0], before=before.shape[0], after=after.shape[0])
    check_lengths("labels", before=before.shape[1], after=after.shape[1])
    is_novel = after & ~before
    hits = jnp.take_along_axis(is_novel, jnp.maximum(labels, 0), axis=1) & (labels >= 0)
    return hits, is_novel.sum(axis=1)


def graded_ndcg_at_k(
    gains: Real[Array, "users ranks"], ideal_gains: Real[Array, "users labels"], *, k: int
) -> PerUser:
    """NDCG of ranks 1..k with a gain of any size per item (linear gain, discount log2(r + 1)).

    Args:
        gains: Gain of the item at each rank, >= 0; 0 for a miss and for an empty place.
        ideal_gains: All gains to collect, in any order, padded with 0; undefined without any.
        k: Length of the list that is judged, 1 <= k <= ranks. Source: as `ndcg_at_k`.

    Example:
        >>> gains = jnp.array([[1.0, 3.0]])  # (1 + 3 / log2(3)) / (3 + 1 / log2(3))
        >>> print(f"{graded_ndcg_at_k(gains, jnp.array([[1.0, 0.0, 3.0]]), k=2)[0]:.3f}")
        0.797
    """
    gains = checked("gains", gains, Real, "users ranks")
    ideal_gains = checked("ideal_gains", ideal_gains, Real, "users labels")
    check_lengths("users", gains=gains.shape[0], ideal_gains=ideal_gains.shape[0])
    check_k(k, gains.shape[1])
    check_amounts("gains", gains)
    check_amounts("ideal_gains", ideal_gains)
    best = jnp.sort(ideal_gains, axis=1, descending=True)[:, :k]
    return ratio(_discounted(gains[:, :k]), _discounted(best))


def alpha_ndcg_at_k(
    topics: Bool[Array, "users ranks topics"],
    ideal_topics: Bool[Array, "users relevant topics"],
    *,
    k: int,
    alpha: float = 0.5,
) -> PerUser:
    """NDCG that pays a topic less each time it returns, so that variety counts; >= 0.

    An item gains (1 - alpha) ** (times seen at better ranks) for each of its topics, over
    log2(r + 1). The best list is greedy, as is usual: next comes the relevant item that then
    gains most (the first of equals). It is not always the very best, so a list may pass 1.
    Source: Clarke et al. (2008), SIGIR, doi:10.1145/1390334.1390446.

    Args:
        topics: Topics of the item at each rank; all False for a miss and an empty place.
        ideal_topics: Topics of each relevant item, padded with False; undefined without any.
        k: Length of the list that is judged, 1 <= k <= ranks.
        alpha: Weight of variety in [0, 1]; 0 pays a topic in full each time.

    Example:
        >>> same = jnp.array([[[True, False], [True, False]]])  # 1 + 0.5 / log2(3)
        >>> both = jnp.array([[[True, False], [False, True]]])  # 1 + 1.0 / log2(3)
        >>> print(f"{alpha_ndcg_at_k(same, both, k=2)[0]:.3f}")
        0.807
    """
    topics = checked("topics", topics, Bool, "users ranks topics")
    ideal_topics = checked("ideal_topics", ideal_topics, Bool, "users relevant topics")
    for axis, name in ((0, "users"), (2, "topics")):
        check_lengths(name, topics=topics.shape[axis], ideal_topics=ideal_topics.shape[axis])
    best = ideal_alpha_dcg_at_k(ideal_topics, k=k, alpha=alpha)
    return ratio(alpha_dcg_at_k(topics, k=k, alpha=alpha), best)


def alpha_dcg_at_k(
    topics: Bool[Array, "users ranks topics"], *, k: int, alpha: float = 0.5
) -> PerUser:
    """The numerator of `alpha_ndcg_at_k`, whose arguments it takes: discounted gain, >= 0.

    Example:
        >>> same = jnp.array([[[True, False], [True, False]]])  # 1 + 0.5 / log2(3)
        >>> print(f"{alpha_dcg_at_k(same, k=2)[0]:.3f}")
        1.315
    """
    topics = checked("topics", topics, Bool, "users ranks topics")
    check_k(k, topics.shape[1])
    check_within("[0, 1]", alpha=alpha)
    listed = topics[:, :k].astype(float)
    gains = (listed * (1.0 - alpha) ** (listed.cumsum(axis=1) - listed)).sum(axis=2)
    return _discounted(gains)


def ideal_alpha_dcg_at_k(
    ideal_topics: Bool[Array, "users relevant topics"], *, k: int, alpha: float = 0.5
) -> PerUser:
    """The denominator of `alpha_ndcg_at_k`: 0 for a user without a topic to find.

    It depends on no list, so whoever compares models computes it once, and k may be any from 1 on.
    Arguments: as there.

    Example:
        >>> both = jnp.array([[[True, False], [False, True]]])  # 1 + 1.0 / log2(3)
        >>> print(f"{ideal_alpha_dcg_at_k(both, k=2)[0]:.3f}")
        1.631
    """
    ideal_topics = checked("ideal_topics", ideal_topics, Bool, "users relevant topics")
    check_counts(1, k=k)
    check_within("[0, 1]", alpha=alpha)
    return _discounted(_greedy_gains(ideal_topics, k, alpha))


def accuracy(labels: Codes, is_correct: Bool[Array, "users labels"], *, k: int = 1) -> PerUser:
    """Top-k accuracy: 1 where one of the first k predicted labels is correct, else 0.

    A user may have several correct labels, such as all interests of the next moment; each of
    them counts as right, and finding more than one counts no more than finding one.

    Args:
        labels: Codes of each user's predicted labels, best first; an empty place is a miss.
        is_correct: True for each correct label of a user; a user without any is undefined.
        k: Labels that are looked at, 1 <= k <= ranks.

    Example:
        >>> is_correct = jnp.array([[True, True], [False, True]])
        >>> print(accuracy(jnp.array([[1, 0], [0, 1]]), is_correct))
        [1. 0.]
    """
    is_correct = checked("is_correct", is_correct, Bool, "users labels")
    labels = checked_codes("labels", labels, is_correct.shape[1])
    check_lengths("users", labels=labels.shape[0], is_correct=is_correct.shape[0])
    check_k(k, labels.shape[1])
    places = jnp.where(labels < 0, is_correct.shape[1], labels)[:, :k]
    is_right = jnp.take_along_axis(is_correct, places, axis=1, mode="fill", fill_value=False)
    return jnp.where(is_correct.any(axis=1), is_right.any(axis=1), jnp.nan)


def _discounted(gains: Real[Array, "users ranks"]) -> PerUser:
    return (gains / jnp.log2(jnp.arange(2, gains.shape[1] + 2))[None, :]).sum(axis=1)


@jax.jit(static_argnames="k")  # or the scan would be compiled anew at each call
def _greedy_gains(topics: Bool[Array, "users relevant topics"], k: int, alpha: float) -> Array:
    """Gain at each rank of the list that always takes the item that gains most by then."""
    topics = jnp.pad(topics.astype(float), ((0, 0), (0, 1), (0, 0)))  # never without an item
    users = jnp.arange(topics.shape[0])

    def step(state, _):
        seen, is_left = state
        gains = (topics * (1.0 - alpha) ** seen[:, None, :]).sum(axis=2)
        best = jnp.where(is_left, gains, -1.0).argmax(axis=1)
        return (seen + topics[users, best], is_left.at[users, best].set(False)), gains[users, best]

    start = jnp.zeros_like(topics[:, 0]), jnp.ones(topics.shape[:2], bool)
    return jax.lax.scan(step, start, length=min(k, topics.shape[1]))[1].T
