"""Lists that give up some relevance for diversity, novelty or coverage, and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit import metrics
from interestkit.baselines import Ranker
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.prediction import BLOCK, in_blocks

GOALS = ("diversity", "novelty", "coverage")
STRENGTHS = tuple(n / 10 for n in range(11))


@dataclass(frozen=True, kw_only=True, eq=False)
class TradeOffs:
    """What lists become as a goal is given more and more weight.

    Args:
        histories: Whose lists they are.
        strengths: Weights of the goal, rising from 0, which is the model's own list.
        codes: Lists for each of `GOALS` and each strength; -1 where a list is empty.
        table: Columns goal, strength, metric, value: means over users of "NDCG", "recall",
            "diversity" and "novelty", and "coverage" of the catalogue, all of the lists' length.
        k: Length of the lists.
    """

    histories: Histories
    strengths: tuple[float, ...]
    codes: Int[np.ndarray, "goals strengths users k"]
    table: pl.DataFrame
    k: int


def trade_offs(
    ranker: Ranker,
    truth: HeldOut,
    features: Features,
    *,
    k: int = 10,
    candidates: int = 100,
    strengths: Sequence[float] = STRENGTHS,
    max_users: int = 5_000,
) -> TradeOffs:
    """Lists of new items re-ranked towards each of `GOALS`, and their metrics, in one program.

    The k items of a list are taken one by one from the user's best candidates. Each time it is
    the one with the largest (1 - strength) relevance + strength bonus. Relevance is the model's
    score, brought to 0..1 among the user's candidates. The bonus is for *diversity* 1 - the
    largest cosine of labels to an item that is already in the list (maximal marginal relevance),
    for *novelty* the self-information of the item and for *coverage* how few users have the item
    in their own list of k, on a logarithmic scale; the last two are brought to 0..1 as well.

    Args:
        ranker: The model.
        truth: Held-out users, for NDCG and recall.
        features: The catalogue.
        k: Length of the lists, 1 <= k <= candidates.
        candidates: Best new items of each user that may be listed.
        strengths: Weights of the goal, in [0, 1].
        max_users: No more users than these, evenly taken, are re-ranked.

    Raises:
        ValueError: If `k` is larger than `candidates`, or a strength is outside [0, 1].

    Example:
        >>> from interestkit import clean, fit_features, held_out, Popular, simulate, temporal_split
        >>> log, _ = clean(simulate(num_users=50, num_items=20, num_interests=4, seed=1))
        >>> split = temporal_split(log, min_judged=0)
        >>> features = fit_features(split.before("test"), split.items)
        >>> popular = Popular(features=features, log=features.histories(split.before("test")))
        >>> found = trade_offs(popular, held_out(features, split), features, k=3, candidates=9)
        >>> found.table.filter(goal="diversity", metric="diversity")["value"].is_sorted()
        True

    Source:
        Carbonell and Goldstein (1998), SIGIR, doi:10.1145/290941.291025 (diversity).
    """
    candidates = min(candidates, features.num_items)
    if not 1 <= k <= candidates:
        raise ValueError(f"k must be in 1..{candidates} (the candidates), got {k}")
    if not strengths or not 0 <= min(strengths) <= max(strengths) <= 1:
        raise ValueError(f"strengths must be numbers in [0, 1], got {strengths}")
    codes, scores = ranker.rank(truth.histories, k=candidates, exclude_seen=True)
    codes, scores = np.asarray(codes), np.asarray(scores)
    hits, relevant = truth.hits(0, codes, new_only=True), truth.num_relevant(new_only=True)
    users = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), max_users)).astype(int))
    codes, scores, hits, relevant = (part[users] for part in (codes, scores, hits, relevant))
    bonuses = np.stack([_unit(bonus, codes) for bonus in _bonuses(codes, features, k)])
    number = -(-len(users) // BLOCK)
    blocks = [in_blocks(part, number) for part in (codes, _unit(scores, codes), hits, relevant)]
    bonuses = np.stack([in_blocks(bonus, number) for bonus in bonuses], axis=1)
    items = (features.item_interests, features.items["events"].to_numpy(), features.is_candidate)
    lists, values = _listed(
        *map(jnp.asarray, (*items, np.asarray(strengths, np.float32), bonuses)),
        *map(jnp.asarray, blocks),
        num_users=len(users),
        k=k,
    )
    return TradeOffs(
        histories=_of(truth.histories, users),
        strengths=tuple(map(float, strengths)),
        codes=np.asarray(lists),
        table=_tidy({name: np.asarray(value) for name, value in values.items()}, strengths),
        k=k,
    )


def _of(histories: Histories, users: Int[np.ndarray, " users"]) -> Histories:
    """Some of the users, without a loop over them."""
    lengths = histories.lengths[users]
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    event = np.repeat(histories.offsets[users] - offsets[:-1], lengths) + np.arange(offsets[-1])
    parts = {name: getattr(histories, name)[event] for name in ("item", "seconds", "weight")}
    own = {name: getattr(histories, name)[users] for name in ("users", "moment")}
    return replace(histories, offsets=offsets, **parts, **own)


def _bonuses(codes: Int[np.ndarray, "users ranks"], features: Features, k: int):
    """Novelty and coverage of each candidate, in units of their own."""
    events = np.maximum(features.items["events"].to_numpy(), 1)
    listed = np.bincount(codes[:, :k][codes[:, :k] >= 0], minlength=features.num_items)
    for bits in (-np.log2(events / events.sum()), -np.log1p(listed)):
        yield bits[codes]


def _unit(values: Float[np.ndarray, "users ranks"], codes) -> Float[np.ndarray, "users ranks"]:
    """Values of each user brought to 0..1 among the candidates that there are."""
    is_there = codes >= 0
    low = np.where(is_there, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(is_there, values, -np.inf).max(axis=1, keepdims=True)
    width = np.where(high > low, high - low, 1)
    with np.errstate(invalid="ignore"):  # users without candidates
        return np.where(is_there, (values - low) / width, 0).astype(np.float32)


@partial(jax.jit, static_argnames=("num_users", "k"))
def _listed(
    labels,
    events,
    is_candidate,
    strengths,
    bonuses,
    codes,
    relevance,
    hits,
    relevant,
    *,
    num_users,
    k,
):
    """Lists of all goals and strengths, and the means of their metrics."""
    length = jnp.linalg.norm(labels, axis=1, keepdims=True)
    directions = labels / jnp.where(length > 0, length, 1.0)

    def of_block(block):
        codes, relevance, bonus = block
        vectors = directions[codes]
        alike = jnp.einsum("ucl,udl->ucd", vectors, vectors)
        diverse = partial(_greedy, relevance, codes >= 0, alike, jnp.zeros_like(relevance), 1.0, k)
        lists = [jax.vmap(diverse)(strengths)]
        for own in bonus:
            plain = partial(_greedy, relevance, codes >= 0, alike, own, 0.0, k)
            lists.append(jax.vmap(plain)(strengths))
        return jnp.stack(lists)

    places = jax.lax.map(of_block, (codes, relevance, bonuses))  # blocks goals strengths users k
    places = jnp.moveaxis(places, 0, 2).reshape(len(GOALS), len(strengths), -1, k)[:, :, :num_users]
    codes, hits = (part.reshape(-1, part.shape[-1])[:num_users] for part in (codes, hits))
    relevant = relevant.reshape(-1)[:num_users]

    def judged(places):
        chosen = jnp.maximum(places, 0)
        lists = jnp.where(places < 0, -1, jnp.take_along_axis(codes, chosen, axis=1))
        is_hit = jnp.take_along_axis(hits, chosen, axis=1) & (places >= 0)
        by_user = {
            "NDCG": metrics.ndcg_at_k(is_hit, relevant, k=k),
            "recall": metrics.recall_at_k(is_hit, relevant, k=k),
            "diversity": metrics.intra_list_diversity(lists, labels),
            "novelty": metrics.novelty(lists, events),
        }
        means = {name: jnp.nanmean(value) for name, value in by_user.items()}
        return lists, means | {"coverage": metrics.catalogue_coverage(lists, is_candidate)}

    lists, values = jax.lax.map(judged, places.reshape(-1, num_users, k))
    shape = places.shape[:2]
    return lists.reshape(places.shape), {n: v.reshape(shape) for n, v in values.items()}


def _greedy(relevance, is_there, alike, bonus, by_likeness, k, strength):
    """Places of the chosen candidates; what they are like counts where `by_likeness` is 1."""
    rows = jnp.arange(len(relevance))

    def step(state, _):
        is_free, nearest = state
        gain = bonus + by_likeness * (1.0 - nearest)
        value = jnp.where(is_free, (1.0 - strength) * relevance + strength * gain, -jnp.inf)
        best = value.argmax(axis=1)
        place = jnp.where(is_free.any(axis=1), best, -1)
        nearest = jnp.maximum(nearest, alike[rows, best])
        return (is_free.at[rows, best].set(False), nearest), place

    start = (is_there, jnp.zeros_like(relevance))
    return jax.lax.scan(step, start, length=k)[1].T


def _tidy(values: dict[str, np.ndarray], strengths: Sequence[float]) -> pl.DataFrame:
    size = (len(GOALS), len(strengths))
    parts = [
        pl.DataFrame(
            {
                "goal": np.repeat(GOALS, size[1]),
                "strength": np.tile(np.asarray(strengths, float), size[0]),
                "metric": [name] * value.size,
                "value": value.ravel().astype(float),
            }
        )
        for name, value in values.items()
    ]
    return pl.concat(parts)
