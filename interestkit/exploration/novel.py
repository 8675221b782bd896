"""Which interests somebody has not touched yet but will: a model that learns it from earlier."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from interestkit.counting import SECONDS_PER_DAY, evenly
from interestkit.exploration.counting import LabelCooccurrence, OfCrowd, Scores
from interestkit.exploration.crowd import (
    Crowd,
    cut,
    label_counts,
    labels_touched,
    nearest,
    sample,
    unit,
)
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.limits import check_above_0, check_at_least, check_counts
from interestkit.progress import progress_bar
from interestkit.similarity import ease_weights

_WINDOWS = (0.5, 1.0, 2.0, 4.0)  # of rates and trends, in units of the days ahead
_STEPS = (1.0, 3.0)  # windows of steps from one interest to another, in the same units
_LEAST = 1e-4  # share that stands for none in logarithms
_FAR = 6.0  # standard deviations at which a signal is cut off
_NEIGHBOURS = (("once", 50), ("log", 100), ("root", 400))


@dataclass(frozen=True, kw_only=True, eq=False)
class NovelInterests(OfCrowd):
    """The model: a conditional logit over the interests that a user has not touched.

    The chance that the next new interest is this one is a softmax of a weighted sum of signals
    (`signals`), over all that are untouched.

    Args:
        days: How far ahead it looks.
        weights: Weight of each signal, in standard deviations.
        centre: Mean of each signal in training.
        scale: Standard deviation of each signal in training.
    """

    days: float
    weights: Float[np.ndarray, " signals"]
    centre: Float[np.ndarray, " signals"]
    scale: Float[np.ndarray, " signals"]

    def scores_of(self, histories: Histories) -> Scores:
        """Score of each interest, touched or not."""
        given = signals(self.crowd, histories, self.own_rows(histories), self.days)
        return _standard(given, self.centre, self.scale) @ self.weights


def signals(
    crowd: Crowd, histories: Histories, own: Int[np.ndarray, " users"], days: float
) -> Float[np.ndarray, "users interests signals"]:
    """What speaks for each interest of each user, as logarithms of shares.

    Of the interest: the share of users who touched it for the first time of late, of events and
    of users with it of late (in four windows), and ever. Of the pair: the share of those most
    like the user who ever touched it, by three kinds of likeness; of those who did so of late; of
    those who have the same items; of those who touched the user's other interests; of those who
    did and went on to this one of late; and what a linear model says (EASE between labels).

    Args:
        crowd: Who is counted, up to the moment.
        histories: The users.
        own: Row of each user in the crowd, -1 if there is none.
        days: How far ahead one wants to know.
    """
    features, counts = crowd.features, label_counts(crowd.features, histories)
    of_label, of_pair = [], []
    for days_back in [window * days for window in _WINDOWS]:
        since = crowd.since(days_back)
        active = max(int((since > 0).any(axis=1).sum()), 1)
        of_label.append(crowd.first_rates(days_back))
        of_label += [since.sum(axis=0) / max(since.sum(), 1), (since > 0).sum(axis=0) / active]
    of_label += [crowd.counts.sum(axis=0) / max(crowd.counts.sum(), 1), crowd.popularity]
    of_late = (crowd.since(days) > 0).astype(np.float32)
    rows = sample(crowd.log)
    place = np.full(len(crowd.log) + 1, -1)
    place[rows] = np.arange(len(rows))
    own = place[own]
    for profile, count in _NEIGHBOURS:
        users = [unit(crowd.profile(part, profile)) for part in (counts, crowd.counts[rows])]
        tables = [crowd.touched[rows], of_late[rows]] if profile == "log" else [crowd.touched[rows]]
        of_pair += _shares(*users, own, count, tables)
    items = (crowd.item_profile(histories), crowd.items[rows])
    for power in (1.0, 3.0):
        of_pair += _shares(*items, own, len(rows), [crowd.touched[rows]], power)
    cooccurrence = LabelCooccurrence(features=features, log=crowd.log)
    of_pair += [cooccurrence.scores_of(histories)]
    own_labels = (counts > 0) / np.maximum((counts > 0).sum(axis=1, keepdims=True), 1)
    of_pair += [own_labels @ crowd.step_chances(window * days) for window in _STEPS]
    stacked = [np.broadcast_to(part[None], counts.shape) for part in of_label] + of_pair
    found = np.log(np.stack(stacked, axis=2) + _LEAST)
    return np.concatenate([found, _linear(crowd, counts)[..., None]], axis=2).astype(np.float32)


def _shares(users, crowd, own, count: int, tables: Sequence[Scores], power: float = 1.0):
    """Share of the nearest in a crowd who are in each table, with one user as everybody."""
    blocks = [[] for _ in tables]
    prior = 1.0 if power == 1.0 else 1e-3
    for _, weight in nearest(users, crowd, own, count, power):
        total = weight.sum(axis=1, keepdims=True) + prior
        for block, table in zip(blocks, tables, strict=True):
            block.append((weight @ table + prior * table.mean(axis=0)[None]) / total)
    return [np.concatenate(block) for block in blocks]


def _linear(crowd: Crowd, counts: Scores) -> Scores:
    users, labels = np.nonzero(crowd.touched)
    size = dict(zip(("num_users", "num_items"), crowd.touched.shape, strict=True))
    return (counts > 0) @ ease_weights(users, labels, **size)


def _standard(given, centre, scale):
    return np.clip((given - centre) / scale, -_FAR, _FAR)


def fit_novel(
    features: Features,
    log: Histories,
    *,
    days: float,
    moments: int = 4,
    penalty: float = 0.01,
    max_users: int = 2_000,
    progress: bool = True,
) -> NovelInterests:
    """The model of novel interests, learned from what was new to users at earlier moments.

    At `moments` times, half of `days` apart and the last of them `days` before the end of the
    log, everything is counted as it was then; the targets are the interests that a user touched
    for the first time within `days`. The loss is the mean over users of the mean -log softmax of
    those. It is convex, and there is no chance in it: the same data give the same weights.

    Args:
        features: The catalogue, fitted on events before the moment of prediction.
        log: Histories of all training users.
        days: How far ahead, above 0.
        moments: Earlier moments to learn from, at least 1; those before the middle of the log
            are left out.
        penalty: Weight of the squared weights, at least 0.
        max_users: Users to learn from at each moment, evenly taken; at least 1.
        progress: Show a progress bar.

    Raises:
        ValueError: If an argument is outside its limits, or nobody touched anything new.

    Example:
        >>> from interestkit.features import fit_features
        >>> from interestkit.simulation import simulate
        >>> log = simulate(num_users=80, num_items=40, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> model = fit_novel(features, features.histories(log.events), days=20, progress=False)
        >>> model.novelty(features.histories(log.events)).shape
        (80, 12)

    Source:
        McFadden (1974), Conditional logit analysis of qualitative choice behavior.
    """
    log.check_coded_by(features)
    check_above_0(days=days)
    check_counts(1, moments=moments, max_users=max_users)
    check_at_least(0, penalty=penalty)
    end = int(log.seconds.max(initial=0)) + 1
    begins = [int(end - (1 + n / 2) * days * SECONDS_PER_DAY) for n in range(moments)]
    kept = [begin for begin in begins if begin > end / 2] or begins[:1]
    bar = progress_bar(kept, label="novel interests", unit="moment", enabled=progress)
    parts = [_examples(features, log, begin, days, max_users) for begin in bar]
    if not any(parts):
        raise ValueError(f"log must hold users who touch new interests in {days} days, got none")
    given, is_open, came = (np.concatenate(part) for part in zip(*filter(None, parts), strict=True))
    centre, scale = given[is_open].mean(axis=0), given[is_open].std(axis=0) + 1e-6
    arrays = map(jnp.asarray, (_standard(given, centre, scale), is_open, came))
    weights = _fitted(*arrays, penalty=penalty)
    return NovelInterests(
        features=features, log=log, days=days, weights=weights, centre=centre, scale=scale
    )


def _examples(features: Features, log: Histories, begin: int, days: float, max_users: int):
    """Signals at a moment, what was untouched then, and what of that came; nothing if none did."""
    known = cut(log, begin)
    end = begin + days * SECONDS_PER_DAY
    came = labels_touched(features, log.only((log.seconds >= begin) & (log.seconds < end)))
    is_open = ~labels_touched(features, known)
    came &= is_open
    has = np.flatnonzero((known.lengths > 0) & came.any(axis=1))
    has = has[evenly(len(has), max_users)]
    if not len(has):
        return ()
    crowd = Crowd(features=features, log=known)
    users = known.only(np.isin(known.user, has))
    given = signals(crowd, users, np.arange(len(log)), days)
    return given[has], is_open[has], came[has]


def _fitted(given, is_open, came, *, penalty: float) -> Float[np.ndarray, " signals"]:
    from scipy.optimize import minimize

    value = partial(_loss_and_slope, given=given, is_open=is_open, came=came, penalty=penalty)

    def in_double(weights):
        loss, slope = value(jnp.asarray(weights, jnp.float32))
        return float(loss), np.asarray(slope, float)

    start = np.zeros(given.shape[2])
    return minimize(in_double, start, jac=True, method="L-BFGS-B").x.astype(np.float32)


@partial(jax.jit, static_argnames="penalty")
def _loss_and_slope(weights, *, given, is_open, came, penalty):
    def loss(weights):
        said = jax.nn.log_softmax(jnp.where(is_open, given @ weights, -1e9), axis=1)
        return penalty * (weights @ weights) - ((said * came).sum(axis=1) / came.sum(axis=1)).mean()

    return jax.value_and_grad(loss)(weights)
