"""Metrics on arrays: one value per user where a user has one, averaged only by `evaluation`.

What holds for all of them, and is not said again below:

- NumPy and JAX arrays are both welcome; results are JAX arrays. Ranks run from best to worst.
- A negative code is an empty place. NaN means undefined: leave that user out of the mean.
- `num_relevant` counts a user's held-out relevant items, recommended or not; a user without
  any is undefined.
- ValueError names the argument, what is allowed and what came: for a wrong type or axis, for
  axes of one name and different lengths, and for a value outside the limits stated in `Args`.
  Inside `jit` values are not known yet, so only types and shapes are checked there.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Int, Real

from interestkit.ranking import top_k as top_k

Hits = Bool[Array, "users ranks"]
Codes = Int[Array, "users ranks"]
Counts = Int[Array, " users"]
Shares = Float[Array, "users labels"]
PerUser = Float[Array, " users"]


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
    hits, num_relevant = _judged(hits, num_relevant, k)
    return _ratio(hits.sum(axis=1), jnp.minimum(num_relevant, k) if truncated else num_relevant)


def precision_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """Share of ranks 1..k that hold a relevant item, an empty place being a miss, in [0, 1].

    Arguments and source: as `recall_at_k`.

    Example:
        >>> print(precision_at_k(jnp.array([[True, False]]), jnp.array([3]), k=2))
        [0.5]
    """
    hits, num_relevant = _judged(hits, num_relevant, k)
    return jnp.where(num_relevant > 0, hits.mean(axis=1), jnp.nan)


def hit_rate_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """1 for a user with at least one relevant item in ranks 1..k, else 0.

    Arguments: as `recall_at_k`. Source: Deshpande and Karypis (2004), ACM TOIS 22(1).

    Example:
        >>> print(hit_rate_at_k(jnp.array([[False, True]]), jnp.array([3]), k=2))
        [1.]
    """
    hits, num_relevant = _judged(hits, num_relevant, k)
    return jnp.where(num_relevant > 0, hits.max(axis=1), jnp.nan)


def reciprocal_rank_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """1 / rank of the first relevant item, and 0 when ranks 1..k hold none (mean: MRR).

    Arguments: as `recall_at_k`. Source: Voorhees (1999), TREC-8 Question Answering Track.

    Example:
        >>> print(reciprocal_rank_at_k(jnp.array([[False, True]]), jnp.array([3]), k=2))
        [0.5]
    """
    hits, num_relevant = _judged(hits, num_relevant, k)
    return jnp.where(num_relevant > 0, hits.max(axis=1) / (hits.argmax(axis=1) + 1), jnp.nan)


def average_precision_at_k(hits: Hits, num_relevant: Counts, *, k: int) -> PerUser:
    """Precision at each hit in ranks 1..k, summed, over min(k, num_relevant) (mean: MAP).

    trec_eval divides by num_relevant instead. Arguments and source: as `recall_at_k`.

    Example:
        >>> hits = jnp.array([[True, False, True]])  # (1/1 + 2/3) / 2
        >>> print(f"{average_precision_at_k(hits, jnp.array([2]), k=3)[0]:.3f}")
        0.833
    """
    hits, num_relevant = _judged(hits, num_relevant, k)
    precision = hits.cumsum(axis=1) / jnp.arange(1, k + 1)[None, :]
    return _ratio((hits * precision).sum(axis=1), jnp.minimum(num_relevant, k))


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
    hits, num_relevant = _judged(hits, num_relevant, k)
    best_hits = jnp.arange(k)[None, :] < num_relevant[:, None]
    return _ratio(_discounted(hits), _discounted(best_hits.astype(float)))


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
    gains = _checked("gains", gains, Real, "users ranks")
    ideal_gains = _checked("ideal_gains", ideal_gains, Real, "users labels")
    _check_lengths("users", gains=gains.shape[0], ideal_gains=ideal_gains.shape[0])
    _check_k(k, gains.shape[1])
    _check_amounts("gains", gains)
    _check_amounts("ideal_gains", ideal_gains)
    best = jnp.sort(ideal_gains, axis=1, descending=True)[:, :k]
    return _ratio(_discounted(gains[:, :k]), _discounted(best))


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
    topics = _checked("topics", topics, Bool, "users ranks topics")
    ideal_topics = _checked("ideal_topics", ideal_topics, Bool, "users relevant topics")
    for axis, name in ((0, "users"), (2, "topics")):
        _check_lengths(name, topics=topics.shape[axis], ideal_topics=ideal_topics.shape[axis])
    _check_k(k, topics.shape[1])
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    listed = topics[:, :k].astype(float)
    gains = (listed * (1.0 - alpha) ** (listed.cumsum(axis=1) - listed)).sum(axis=2)
    return _ratio(_discounted(gains), _discounted(_greedy_gains(ideal_topics, k, alpha)))


def accuracy(top: Int[Array, " users"], is_correct: Bool[Array, "users labels"]) -> PerUser:
    """1 where the label predicted first is among the labels of the user's next moment, else 0.

    Args:
        top: Code of the predicted label, below `labels`; -1 for none, which scores 0.
        is_correct: True for each label of the user's next moment; undefined without any.

    Example:
        >>> print(accuracy(jnp.array([1, 0]), jnp.array([[True, True], [False, True]])))
        [1. 0.]
    """
    is_correct = _checked("is_correct", is_correct, Bool, "users labels")
    top = _checked_codes("top", top, is_correct.shape[1], "users")
    _check_lengths("users", top=top.shape[0], is_correct=is_correct.shape[0])
    is_hit = is_correct & (jnp.arange(is_correct.shape[1])[None, :] == top[:, None])
    return jnp.where(is_correct.any(axis=1), is_hit.any(axis=1), jnp.nan)


def log_loss(probabilities: Shares, shares: Shares) -> PerUser:
    """Cross-entropy of predicted interests against the shares of a user's events, in nats.

    The value is -sum over labels of share * ln(probability), with 0 * ln(0) = 0. It is infinite
    where a label occurs that was given probability 0: a baseline needs smoothing.
    Source: Good (1952), J. R. Stat. Soc. B 14(1), doi:10.1111/j.2517-6161.1952.tb00104.x.

    Args:
        probabilities: Predicted, >= 0; each row sums to 1 (within 0.001).
        shares: Observed, >= 0; each row sums to 1, or to 0 for a user without any: undefined.

    Example:
        >>> print(f"{log_loss(jnp.array([[0.25, 0.75]]), jnp.array([[1.0, 0.0]]))[0]:.3f}")
        1.386
    """
    probabilities = _checked("probabilities", probabilities, Float, "users labels")
    shares = _checked("shares", shares, Float, "users labels")
    for axis, name in enumerate(("users", "labels")):
        _check_lengths(name, probabilities=probabilities.shape[axis], shares=shares.shape[axis])
    for name, values in (("probabilities", probabilities), ("shares", shares)):
        _check_amounts(name, values)
        sums = values.sum(axis=1)
        is_fine = (abs(sums - 1) < 1e-3) | ((sums == 0) & (name == "shares"))
        _check_values(f"sum of {name}", sums, is_fine, "1")
    return jnp.where(shares.any(axis=1), -xlogy(shares, probabilities).sum(axis=1), jnp.nan)


def catalogue_coverage(items: Codes, *, num_items: int) -> Float[Array, ""]:
    """Share of the `num_items` items that stand in at least one list, in [0, 1].

    Source: Herlocker et al. (2004), ACM TOIS 22(1), doi:10.1145/963770.963772.

    Example:
        >>> print(catalogue_coverage(jnp.array([[0, 3], [3, -1]]), num_items=4))
        0.5
    """
    return _share_listed(_checked_codes("items", items, num_items), num_items)


def interest_coverage(labels: Codes, *, num_interests: int) -> Float[Array, ""]:
    """Share of the interests among the top labels of at least one user, in [0, 1].

    Example:
        >>> print(interest_coverage(jnp.array([[0], [0], [2]]), num_interests=4))
        0.5
    """
    return _share_listed(_checked_codes("labels", labels, num_interests), num_interests)


def user_coverage(items: Codes) -> PerUser:
    """1 for a user whose list holds at least one item, else 0 (mean: share of users served).

    Example:
        >>> print(user_coverage(jnp.array([[4, -1], [-1, -1]])))
        [1. 0.]
    """
    return (_checked("items", items, Int, "users ranks") >= 0).any(axis=1).astype(float)


def intra_list_diversity(items: Codes, item_vectors: Real[Array, "items labels"]) -> PerUser:
    """Mean of 1 - cosine over all pairs of items in a list, in [0, 2].

    Source: Ziegler et al. (2005), WWW, doi:10.1145/1060745.1060754.

    Args:
        items: Codes of each list; undefined with fewer than two items that have a vector.
        item_vectors: One finite vector per item, such as its labels as 0 and 1 (then the value
            stays in [0, 1]). An item whose vector is all 0 has no direction and is left out.

    Example:
        >>> vectors = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # pairs: 1, 1, 0
        >>> print(f"{intra_list_diversity(jnp.array([[0, 1, 2]]), vectors)[0]:.3f}")
        0.667
    """
    vectors = _checked("item_vectors", item_vectors, Real, "items labels")
    _check_values("item_vectors", vectors, jnp.isfinite(vectors), "finite")
    items = _checked_codes("items", items, vectors.shape[0])
    lengths = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    listed = _rows_or_zeros(vectors / jnp.where(lengths > 0, lengths, 1.0), items)
    num_listed = listed.any(axis=2).sum(axis=1)
    # |sum of directions|^2 holds each pair twice, and each item with itself once
    similarity = (listed.sum(axis=1) ** 2).sum(axis=1) - num_listed
    return jnp.maximum(1.0 - _ratio(similarity, num_listed * (num_listed - 1)), 0.0)  # no -1e-7


def novelty(items: Codes, num_events: Int[Array, " items"]) -> PerUser:
    """Mean self-information of a list, -log2 of each item's share of all events, in bits.

    Source: Zhou et al. (2010), PNAS 107(10), doi:10.1073/pnas.1000488107 (share of users there).

    Args:
        items: Codes of each list; an empty list is undefined.
        num_events: Training events of each item, >= 0; an item without any counts as one.

    Example:
        >>> print(novelty(jnp.array([[0, 1], [0, -1]]), jnp.array([4, 2, 2])))  # 1 and 2 bits
        [1.5 1. ]
    """
    num_events = _checked("num_events", num_events, Int, "items")
    _check_amounts("num_events", num_events)
    items = _checked_codes("items", items, num_events.shape[0])
    counts = jnp.maximum(num_events, 1)
    bits = _rows_or_zeros(jnp.log2(counts.sum() / counts), items)
    return _ratio(bits.sum(axis=1), (items >= 0).sum(axis=1))


def gini(counts: Real[Array, " items"]) -> Float[Array, ""]:
    """Gini coefficient of counts >= 0, such as how often each item is recommended.

    With counts x in rising order it is the sum of (2 i - n - 1) x_i over n times the sum of x:
    0 when all are equal, (n - 1) / n when one has everything, NaN when all are 0.
    Source: Fleder and Hosanagar (2009), Management Science 55(5), doi:10.1287/mnsc.1080.0974.

    Example:
        >>> print(gini(jnp.array([3, 1])))  # (-1 * 1 + 1 * 3) / (2 * 4)
        0.25
    """
    counts = _checked("counts", counts, Real, "items")
    _check_amounts("counts", counts)
    counts, num_items = jnp.sort(counts).astype(float), counts.shape[0]
    weights = 2.0 * jnp.arange(1, num_items + 1) - num_items - 1
    return _ratio((weights * counts).sum(), num_items * counts.sum())


def _checked(name: str, array, kind, axes: str) -> Array:
    array = jnp.asarray(array)
    if not isinstance(array, kind[Array, axes]):
        allowed = f"{kind.__name__} with axes ({axes})"
        raise ValueError(f"{name} must be {allowed}, got {array.dtype} of shape {array.shape}")
    return array


def _checked_codes(name: str, codes, num_codes: int, axes: str = "users ranks") -> Array:
    codes = _checked(name, codes, Int, axes)
    _check_values(name, codes, codes < num_codes, f"codes below {num_codes}")
    return codes


def _check_lengths(axis: str, **lengths: int) -> None:
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the number of {axis} must be the same, got {lengths}")


def _check_k(k: int, num_ranks: int) -> None:
    if not 1 <= k <= num_ranks:
        raise ValueError(f"k must be in 1..{num_ranks} (the ranks given), got {k}")


def _check_values(name: str, values: Array, is_fine: Array, allowed: str) -> None:
    if not isinstance(is_fine, jax.core.Tracer) and not is_fine.all():
        place = np.argwhere(~np.asarray(is_fine))[0].tolist()
        raise ValueError(f"{name} must be {allowed}, got {values[tuple(place)]} at {place}")


def _check_amounts(name: str, values: Array) -> None:
    _check_values(name, values, (values >= 0) & (values < jnp.inf), "finite and >= 0")


def _judged(hits, num_relevant, k: int) -> tuple[Array, Array]:
    hits = _checked("hits", hits, Bool, "users ranks")
    num_relevant = _checked("num_relevant", num_relevant, Int, "users")
    _check_lengths("users", hits=hits.shape[0], num_relevant=num_relevant.shape[0])
    _check_k(k, hits.shape[1])
    _check_values("num_relevant", num_relevant, num_relevant >= hits.sum(axis=1), ">= the hits")
    return hits[:, :k].astype(float), num_relevant


def _ratio(part: Array, whole: Array) -> Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)


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


def _rows_or_zeros(table: Array, codes: Array) -> Array:
    return table.at[jnp.where(codes < 0, len(table), codes)].get(mode="fill", fill_value=0.0)


def _share_listed(codes: Codes, num_codes: int) -> Float[Array, ""]:
    places = jnp.where(codes < 0, num_codes, codes)
    return jnp.zeros(num_codes).at[places].set(1.0, mode="drop").mean()
