"""Lists beyond accuracy: how much of the catalogue, how varied, novel, surprising, calibrated."""

import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Int, Real

from interestkit.limits import check_within
from interestkit.metrics._checks import (
    Codes,
    Counts,
    Hits,
    PerUser,
    Shares,
    check_amounts,
    check_lengths,
    check_values,
    checked,
    checked_codes,
    checked_shares,
    judged,
    ratio,
)


def catalogue_coverage(items: Codes, is_candidate: Bool[Array, " items"]) -> Float[Array, ""]:
    """Share of the candidates that stand in at least one list, in [0, 1].

    Source: Herlocker et al. (2004), ACM TOIS 22(1), doi:10.1145/963770.963772.

    Args:
        items: Codes of each list; an item that is no candidate is not counted.
        is_candidate: True for each item that a model could recommend, such as those that
            training knows; undefined without any.

    Example:
        >>> is_candidate = jnp.array([True, True, False, True, True])
        >>> print(catalogue_coverage(jnp.array([[0, 3], [3, -1]]), is_candidate))
        0.5
    """
    is_candidate = checked("is_candidate", is_candidate, Bool, "items")
    items = checked_codes("items", items, is_candidate.shape[0])
    is_listed = _is_listed(items, is_candidate.shape[0])
    return ratio((is_listed & is_candidate).sum(), is_candidate.sum())


def interest_coverage(labels: Codes, *, num_interests: int) -> Float[Array, ""]:
    """Share of the interests among the top labels of at least one user, in [0, 1].

    Example:
        >>> print(interest_coverage(jnp.array([[0], [0], [2]]), num_interests=4))
        0.5
    """
    return _is_listed(checked_codes("labels", labels, num_interests), num_interests).mean()


def user_coverage(items: Codes) -> PerUser:
    """1 for a user whose list holds at least one item, else 0 (mean: share of users served).

    Example:
        >>> print(user_coverage(jnp.array([[4, -1], [-1, -1]])))
        [1. 0.]
    """
    return (checked("items", items, Int, "users ranks") >= 0).any(axis=1).astype(float)


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
    vectors = checked("item_vectors", item_vectors, Real, "items labels")
    check_values("item_vectors", vectors, jnp.isfinite(vectors), "finite")
    items = checked_codes("items", items, vectors.shape[0])
    lengths = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    listed = _rows_or_zeros(vectors / jnp.where(lengths > 0, lengths, 1.0), items)
    num_listed = listed.any(axis=2).sum(axis=1)
    # |sum of directions|^2 holds each pair twice, and each item with itself once
    similarity = (listed.sum(axis=1) ** 2).sum(axis=1) - num_listed
    return jnp.maximum(1.0 - ratio(similarity, num_listed * (num_listed - 1)), 0.0)  # no -1e-7


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
    num_events = checked("num_events", num_events, Int, "items")
    check_amounts("num_events", num_events)
    items = checked_codes("items", items, num_events.shape[0])
    counts = jnp.maximum(num_events, 1).astype(float)  # whose sum int32 may not hold
    bits = _rows_or_zeros(jnp.log2(counts.sum() / counts), items)
    return ratio(bits.sum(axis=1), (items >= 0).sum(axis=1))


def serendipity(
    items: Codes,
    hits: Hits,
    num_relevant: Counts,
    num_events: Int[Array, " items"],
    *,
    k: int,
    is_candidate: Bool[Array, " items"] | None = None,
) -> PerUser:
    """How far above their places by popularity relevant items stand in ranks 1..k, in [0, 1).

    Popularity would recommend an item at place 1 + (candidates with more events). A relevant
    item at a better rank than that gains (place - rank) / candidates; all else gains 0. The
    sum over ranks is divided by k. The list of the most popular items itself has value 0.
    Source: Murakami, Mori and Orihara (2008), LNCS 4914, doi:10.1007/978-3-540-78197-4_5, with
    popularity as the primitive method; for the idea, Ge, Delgado-Battenfeld and Jannach (2010),
    RecSys, doi:10.1145/1864708.1864761.

    Args:
        items: Codes of each list; an empty place gains 0.
        hits: True where the item at that rank is relevant.
        num_relevant: Relevant items of each user; a user without any is undefined.
        num_events: Training events of each item, >= 0.
        k: Length of the list that is judged, 1 <= k <= ranks.
        is_candidate: True for each item that a model could recommend; all, if not given.

    Example:
        >>> hits = jnp.array([[True, True]])  # places 4 and 1 of 4: ((4 - 1) + 0) / 4 / 2
        >>> events = jnp.array([9, 7, 5, 3])
        >>> print(serendipity(jnp.array([[3, 0]]), hits, jnp.array([2]), events, k=2))
        [0.375]
    """
    num_events = checked("num_events", num_events, Int, "items")
    check_amounts("num_events", num_events)
    if is_candidate is None:
        is_candidate = jnp.ones(num_events.shape, bool)
    is_candidate = checked("is_candidate", is_candidate, Bool, "items")
    check_lengths("items", num_events=num_events.shape[0], is_candidate=is_candidate.shape[0])
    items = checked_codes("items", items, num_events.shape[0])
    check_lengths("ranks", items=items.shape[1], hits=jnp.shape(hits)[-1])
    hits, num_relevant = judged(hits, num_relevant, k)
    check_lengths("users", items=items.shape[0], num_relevant=num_relevant.shape[0])
    rising = jnp.sort(jnp.where(is_candidate, num_events, -1))
    num_more = num_events.shape[0] - jnp.searchsorted(rising, num_events, side="right")
    lead = _rows_or_zeros(1.0 + num_more, items[:, :k]) - jnp.arange(1, k + 1)[None, :]
    gains = (hits * jnp.maximum(lead, 0.0)).sum(axis=1) / jnp.maximum(is_candidate.sum(), 1)
    return jnp.where(num_relevant > 0, gains / k, jnp.nan)


def calibration(
    items: Codes,
    item_labels: Real[Array, "items labels"],
    history_shares: Shares,
    *,
    alpha: float = 0.01,
    rank_weights: Real[Array, " ranks"] | None = None,
) -> PerUser:
    """Divergence of the labels of a list from those of the history, in nats; 0 is calibrated.

    KL(p || (1 - alpha) q + alpha p), p being the shares of labels in the history and q those in
    the list, to which each item that has a label adds a total of 1. At most ln(1 / alpha).
    Source: Steck (2018), RecSys, doi:10.1145/3240323.3240372.

    Args:
        items: Codes of each list; undefined without an item that has a label.
        item_labels: Weight of each label in each item, >= 0; divided by their sum.
        history_shares: p, >= 0; each row sums to 1, or to 0 for a user without any: undefined.
        alpha: Part of p that is mixed into q, so that a missing label stays finite; in (0, 1).
        rank_weights: Weight of each rank, >= 0, such as 1 / log2(rank + 1); equal, if not given.

    Example:
        >>> labels = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> half = jnp.array([[0.5, 0.5], [0.5, 0.5]])  # (ln(0.5 / 0.995) + ln(0.5 / 0.005)) / 2
        >>> print(calibration(jnp.array([[0, 0], [0, 1]]), labels, half).round(3))
        [1.959 0.   ]
    """
    check_within("(0, 1)", alpha=alpha)
    item_labels = checked("item_labels", item_labels, Real, "items labels").astype(float)
    check_amounts("item_labels", item_labels)
    history = checked_shares("history_shares", history_shares, may_be_empty=True)
    items = checked_codes("items", items, item_labels.shape[0])
    weights = jnp.ones(items.shape[1]) if rank_weights is None else rank_weights
    weights = checked("rank_weights", weights, Real, "ranks")
    check_amounts("rank_weights", weights)
    check_lengths("users", items=items.shape[0], history_shares=history.shape[0])
    check_lengths("labels", item_labels=item_labels.shape[1], history_shares=history.shape[1])
    check_lengths("ranks", items=items.shape[1], rank_weights=weights.shape[0])
    totals = item_labels.sum(axis=1, keepdims=True)
    shares = item_labels / jnp.where(totals > 0, totals, 1.0)
    listed = (_rows_or_zeros(shares, items) * weights[None, :, None]).sum(axis=1)
    mixed = (1.0 - alpha) * ratio(listed, listed.sum(axis=1, keepdims=True)) + alpha * history
    divergence = (xlogy(history, history) - xlogy(history, mixed)).sum(axis=1)
    return jnp.where(history.any(axis=1), jnp.maximum(divergence, 0.0), jnp.nan)  # no -1e-7


def gini(counts: Real[Array, " items"]) -> Float[Array, ""]:
    """Gini coefficient of counts >= 0, such as how often each item is recommended.

    With counts x in rising order it is the sum of (2 i - n - 1) x_i over n times the sum of x:
    0 when all are equal, (n - 1) / n when one has everything, NaN when all are 0.
    Source: Fleder and Hosanagar (2009), Management Science 55(5), doi:10.1287/mnsc.1080.0974.

    Example:
        >>> print(gini(jnp.array([3, 1])))  # (-1 * 1 + 1 * 3) / (2 * 4)
        0.25
    """
    counts = checked("counts", counts, Real, "items")
    check_amounts("counts", counts)
    counts, num_items = jnp.sort(counts).astype(float), counts.shape[0]
    weights = 2.0 * jnp.arange(1, num_items + 1) - num_items - 1
    return ratio((weights * counts).sum(), num_items * counts.sum())


def _rows_or_zeros(table: Array, codes: Array) -> Array:
    return table.at[jnp.where(codes < 0, len(table), codes)].get(mode="fill", fill_value=0.0)


def _is_listed(codes: Codes, num_codes: int) -> Bool[Array, " codes"]:
    places = jnp.where(codes < 0, num_codes, codes)
    return jnp.zeros(num_codes, bool).at[places].set(True, mode="drop")
