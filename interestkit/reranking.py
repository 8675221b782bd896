"""Lists that give up some relevance for diversity, novelty, coverage or calibration: the price."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax.scipy.special import xlogy
from jaxtyping import Float, Int

from interestkit import metrics
from interestkit.baselines import Ranker
from interestkit.counting import evenly
from interestkit.features import Features
from interestkit.heldout import HeldOut, history_shares
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_one_of, check_up_to, check_within
from interestkit.prediction import BLOCK, in_blocks

MEASURED_BY = {  # goal -> the metric that says how far it is reached
    "diversity": "diversity",
    "novelty": "novelty",
    "coverage": "coverage",
    "DPP": "diversity",
    "calibration": "miscalibration",
}
GOALS = tuple(MEASURED_BY)
STRENGTHS = tuple(n / 10 for n in range(11))
ALIKE = 0.9  # times the cosine is the likeness of two items for a DPP: twins may both be listed
ALPHA = 0.01  # part of the history's shares mixed into a list's, as in `metrics.calibration`


@dataclass(frozen=True, kw_only=True, eq=False)
class TradeOffs:
    """What lists become as a goal is given more and more weight.

    Args:
        histories: Whose lists they are.
        strengths: Weights of the goal, rising from 0, which is the model's own list.
        codes: Lists for each of `GOALS` and each strength; -1 where a list is empty.
        table: Columns goal, strength, metric, value: means over users of "NDCG", "recall",
            "diversity", "novelty" and "miscalibration" (lower is better), and "coverage" of the
            catalogue, all of the lists' length.
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
    strengths: Iterable[float] = STRENGTHS,
    max_users: int = 5_000,
) -> TradeOffs:
    """Lists of new items re-ranked towards each of `GOALS`, and their metrics, in one program.

    The k items of a list are taken one by one from the user's best candidates. Each time it is
    the one with the largest (1 - strength) relevance + strength bonus. Relevance is the model's
    score, brought to 0..1 among the user's candidates. The bonus is

    - for *diversity* 1 - the largest cosine of labels to an item that is already in the list
      (maximal marginal relevance);
    - for *novelty* the self-information of the item, brought to 0..1;
    - for *coverage* how few users have the item in their own list of k, on a logarithmic scale,
      brought to 0..1;
    - for *DPP* what the item adds to the log-determinant of the likeness of all items in the list,
      which is `ALIKE` times their cosine, and 1 of an item to itself: a determinantal point
      process. It sees all items of the list, not only the most alike. At most 0;
    - for *calibration* minus the divergence of the list's labels, with the item, from those of
      the user's history (`metrics.calibration`), in nats. Where all items have labels this is
      the greedy search of Steck's submodular function.

    Args:
        ranker: The model.
        truth: Held-out users, for NDCG and recall.
        features: The catalogue.
        k: Length of the lists, 1 <= k <= candidates.
        candidates: Best new items of each user that may be listed.
        strengths: Weights of the goal, rising from 0 to 1 at most.
        max_users: No more users than these, evenly taken, are re-ranked; at least 1.

    Raises:
        ValueError: If `k` is larger than `candidates`, `strengths` do not rise from 0, `max_users`
            is below 1, or the held-out users are coded by other features.

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
        Carbonell and Goldstein (1998), SIGIR, doi:10.1145/290941.291025 (diversity); Chen, Zhang
        and Zhou (2018), NeurIPS, arXiv:1709.05135 (DPP: their eqs. 11 and 17); Steck (2018),
        RecSys, doi:10.1145/3240323.3240372 (calibration).
    """
    truth.histories.check_coded_by(features)
    check_counts(1, max_users=max_users)
    candidates, strengths = _check_k(k, candidates, features), _checked(strengths)
    codes, scores = ranker.rank(truth.histories, k=candidates, exclude_seen=True)
    codes, scores = np.asarray(codes), np.asarray(scores)
    hits, relevant = truth.hits(0, codes, new_only=True), truth.num_relevant(new_only=True)
    users = evenly(len(truth), max_users)
    own = truth.histories.take(users)
    codes, scores, hits, relevant = (part[users] for part in (codes, scores, hits, relevant))
    blocks = _blocks(codes, scores, own, features, k)
    judged = [in_blocks(part, len(blocks[0])) for part in (hits, relevant)]
    items = (features.item_interests, features.items["events"].to_numpy(), features.is_candidate)
    weights = np.asarray(strengths, np.float32)
    lists, values = _listed(items, weights, blocks, judged, num_users=len(users), k=k)
    return TradeOffs(
        histories=own,
        strengths=strengths,
        codes=np.asarray(lists),
        table=_tidy({name: np.asarray(value) for name, value in values.items()}, strengths),
        k=k,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reranked:
    """A ranker with the lists of another one, re-ranked towards a goal as `trade_offs` does.

    Args:
        ranker: The model.
        features: The catalogue.
        goal: One of `GOALS`.
        strength: Weight of the goal, in [0, 1].
        candidates: Best items of each user that may be listed; a longer list is the model's own.

    Raises:
        ValueError: If there is no such goal, `strength` is outside [0, 1], or `candidates` below 1.
    """

    ranker: Ranker
    features: Features
    goal: str = "calibration"
    strength: float = 0.5
    candidates: int = 100

    def __post_init__(self) -> None:
        check_one_of(GOALS, goal=self.goal)
        check_within("[0, 1]", strength=self.strength)
        check_counts(1, candidates=self.candidates)

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes of each user's list and the model's scores of these items, which need not fall."""
        histories.check_coded_by(self.features)
        if k > self.candidates:
            return self.ranker.rank(histories, k=k, exclude_seen=exclude_seen)
        candidates = _check_k(k, self.candidates, self.features)
        found = self.ranker.rank(histories, k=candidates, exclude_seen=exclude_seen)
        codes, scores = map(np.asarray, found)
        blocks = _blocks(codes, scores, histories, self.features, k)
        labels, strength = self.features.item_interests, np.float32(self.strength)
        places = _places(labels, strength, blocks, goal=self.goal, k=k)
        places = np.asarray(places).reshape(-1, k)[: len(codes)]
        lists, values = (np.take_along_axis(part, places, axis=1) for part in (codes, scores))
        return np.where(places < 0, -1, lists), np.where(places < 0, -np.inf, values)

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest, as of `ranker`."""
        return self.ranker.interests(histories)


def _check_k(k: int, candidates: int, features: Features) -> int:
    """The number of candidates that there can be."""
    candidates = min(candidates, features.num_items)
    check_up_to(candidates, "the candidates", k=k)
    return candidates


def _checked(strengths: Iterable[float]) -> tuple[float, ...]:
    strengths = tuple(map(float, strengths))
    does_rise = all(low < high for low, high in pairwise(strengths))
    if strengths[:1] != (0,) or not does_rise or strengths[-1] > 1:
        raise ValueError(f"strengths must rise from 0 to 1 at most, got {strengths}")
    return strengths


def _blocks(codes, scores, histories: Histories, features: Features, k: int):
    """Codes, relevance, both bonuses and the labels wanted, in blocks of users."""
    number = -(-len(codes) // BLOCK)
    bonuses = [in_blocks(_unit(own, codes), number) for own in _bonuses(codes, features, k)]
    parts = (codes, _unit(scores, codes), history_shares(features, histories))
    codes, relevance, wanted = (in_blocks(part, number) for part in parts)
    return codes, relevance, np.stack(bonuses, axis=1), wanted


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
def _listed(items, strengths, blocks, judged, *, num_users, k):
    """Lists of all goals and strengths, and the means of their metrics."""
    labels, events, is_candidate = items

    def of_block(block):
        greedy = partial(_greedy, block[1], block[0] >= 0, k)
        aims = _aims(labels, block, k)
        return jnp.stack([jax.vmap(partial(greedy, *aims[goal]))(strengths) for goal in GOALS])

    places = jax.lax.map(of_block, blocks)  # blocks goals strengths users k
    places = jnp.moveaxis(places, 0, 2).reshape(len(GOALS), len(strengths), -1, k)[:, :, :num_users]
    rows = (blocks[0], blocks[3], *judged)
    rows = (part.reshape(-1, *part.shape[2:])[:num_users] for part in rows)
    codes, wanted, hits, relevant = rows

    def measured(places):
        chosen = jnp.maximum(places, 0)
        lists = jnp.where(places < 0, -1, jnp.take_along_axis(codes, chosen, axis=1))
        is_hit = jnp.take_along_axis(hits, chosen, axis=1) & (places >= 0)
        by_user = {
            "NDCG": metrics.ndcg_at_k(is_hit, relevant, k=k),
            "recall": metrics.recall_at_k(is_hit, relevant, k=k),
            "diversity": metrics.intra_list_diversity(lists, labels),
            "novelty": metrics.novelty(lists, events),
            "miscalibration": metrics.calibration(lists, labels, wanted, alpha=ALPHA),
        }
        means = {name: jnp.nanmean(value) for name, value in by_user.items()}
        return lists, means | {"coverage": metrics.catalogue_coverage(lists, is_candidate)}

    lists, values = jax.lax.map(measured, places.reshape(-1, num_users, k))
    shape = places.shape[:2]
    return lists.reshape(places.shape), {n: v.reshape(shape) for n, v in values.items()}


@partial(jax.jit, static_argnames=("goal", "k"))
def _places(labels, strength, blocks, *, goal, k):
    """Places of the candidates that are listed, for one goal: blocks, users, k."""

    def of_block(block):
        aim = _aims(labels, block, k)[goal]  # what the others need is never computed
        return _greedy(block[1], block[0] >= 0, k, *aim, strength)

    return jax.lax.map(of_block, blocks)


def _aims(labels, block, k):
    """For each goal the start, the gain and the step of `_greedy`, for a block of users."""
    codes, _, bonus, wanted = block
    directions = labels / _or_one(jnp.linalg.norm(labels, axis=1, keepdims=True))
    shares = labels / _or_one(labels.sum(axis=1, keepdims=True))
    vectors = directions[codes]
    alike = jnp.einsum("ucl,udl->ucd", vectors, vectors)
    aims = {name: _fixed(bonus[n]) for n, name in enumerate(("novelty", "coverage"))}
    aims["diversity"], aims["DPP"] = _unlike(alike), _determinant(alike, k)
    return aims | {"calibration": _calibrated(shares[codes], wanted)}


def _greedy(relevance, is_there, k, start, gain, take, strength):
    """Places of the chosen candidates; `gain` of a state is the bonus, `take` the state after."""
    rows = jnp.arange(len(relevance))

    def step(carry, _):
        is_free, state = carry
        value = (1.0 - strength) * relevance + strength * gain(state)
        best = jnp.where(is_free, value, -jnp.inf).argmax(axis=1)
        place = jnp.where(is_free.any(axis=1), best, -1)
        return (is_free.at[rows, best].set(False), take(state, rows, best)), place

    return jax.lax.scan(step, (is_there, start), length=k)[1].T


def _fixed(bonus):
    """A bonus that does not depend on the list."""
    return (), lambda _: bonus, lambda state, *_: state


def _unlike(alike):
    """1 - the largest likeness to an item of the list."""
    start = jnp.zeros(alike.shape[:2], alike.dtype)
    return (
        start,
        lambda nearest: 1.0 - nearest,
        lambda nearest, rows, best: jnp.maximum(nearest, alike[rows, best]),
    )


def _determinant(alike, k):
    """What an item adds to the log-determinant of the list's kernel.

    The state holds for each candidate its row of the Cholesky factor so far (a column per item of
    the list) and what is left of its own diagonal, whose logarithm is the gain.
    """
    start = (jnp.zeros((*alike.shape[:2], k)), jnp.ones(alike.shape[:2]), 0)

    def take(state, rows, best):
        factor, left, taken = state
        inner = jnp.einsum("uck,uk->uc", factor, factor[rows, best])
        column = (ALIKE * alike[rows, best] - inner) / jnp.sqrt(left[rows, best])[:, None]
        left = jnp.maximum(left - column**2, 1e-6)  # of the chosen, which is not free, too little
        return factor.at[:, :, taken].set(column), left, taken + 1

    return start, lambda state: jnp.log(state[1]), take


def _calibrated(shares, wanted):
    """Minus the divergence of the list's labels, with one more item, from those wanted."""
    counts = shares.any(axis=2).astype(float)
    start = (jnp.zeros_like(wanted), jnp.zeros(len(wanted)))
    most = xlogy(wanted, wanted).sum(axis=1)[:, None]

    def gain(state):
        sums, listed = state
        listed = _or_one(listed[:, None] + counts)[:, :, None]
        mixed = (1.0 - ALPHA) * (sums[:, None] + shares) / listed + ALPHA * wanted[:, None]
        return xlogy(wanted[:, None], mixed).sum(axis=2) - most

    def take(state, rows, best):
        return state[0] + shares[rows, best], state[1] + counts[rows, best]

    return start, gain, take


def _or_one(values):
    return jnp.where(values > 0, values, 1.0)


def _tidy(values: dict[str, np.ndarray], strengths: Sequence[float]) -> pl.DataFrame:
    keys = {"goal": np.repeat(GOALS, len(strengths))}
    keys |= {"strength": np.tile(np.asarray(strengths, float), len(GOALS))}
    metrics = {name: value.ravel().astype(float) for name, value in values.items()}
    named = {"variable_name": "metric", "value_name": "value"}
    return pl.DataFrame(keys | metrics).unpivot(index=list(keys), **named)
