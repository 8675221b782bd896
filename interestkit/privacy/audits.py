"""Does private training do what its card says? Checks of the parts of a step, from outside.

A probe takes the place of the model: 256 users, each with gradients in directions of their own, so
that what is released shows who took part, how much they added, and what the noise is like.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jax_privacy.auditing import CanaryScoreAuditor
from jaxtyping import Array, Bool, Float
from scipy import stats

from interestkit.privacy.accounting import PrivacyCard, epsilon_of, overflow_delta
from interestkit.privacy.stepping import Parts, Plan, Problem, private_gradient

ALARM = 1e-7  # a check of chance gives alarm below this probability
_USERS, _STEPS, _MOMENTS = 256, 400, 4
_LOUD = 10.0  # gradients of the probe, in clip norms
_ROUNDING = 1e-4


class Check(NamedTuple):
    """What one check saw, and what it should have seen."""

    name: str
    seen: float
    expected: str
    p: float | None  # of what was seen, if all is well; None for a check without chance
    passed: bool


@dataclass(frozen=True, kw_only=True)
class PrivacyAudit:
    """Checks of a private run.

    Args:
        table: Columns check, seen, expected, p (null where no chance is involved), passed.
        epsilon_at_least: Lower bound on epsilon from the canaries of the probe, with confidence
            1 - 1e-4.
    """

    table: pl.DataFrame
    epsilon_at_least: float

    @property
    def alarms(self) -> list[str]:
        """Names of the checks that failed."""
        return self.table.filter(~pl.col("passed"))["check"].to_list()

    def __repr__(self) -> str:
        failed = ", ".join(self.alarms) or "none"
        return f"PrivacyAudit({len(self.table)} checks, alarms: {failed})"


def audit_private(
    card: PrivacyCard,
    *,
    steps: int | None = None,
    parts: Parts = Parts(),  # noqa: B008 a tuple of functions
    plan: Plan | None = None,
    seed: int = 0,
) -> PrivacyAudit:
    """Whether the parts of private training do what the card says, and the card adds up.

    Noise: its variance, its shape, nothing in common between steps, numbers and runs, there also
    where a step has no user. Users: nobody changes a step by more than the clip norm, not even with
    gradients that are no numbers, and each takes part with the rate of the card, independently of
    others and of other steps. Numbers: steps, delta, epsilon from the rest of the card, and a lower
    bound on epsilon from canaries that must not exceed it. What a probe cannot see are mistakes in
    the loss, such as one that mixes users.

    Args:
        card: What is promised.
        steps: Steps that the run took; None takes the card's word.
        parts: The parts that the run was made with.
        plan: The numbers that it ran with; None takes those of the card.
        seed: Seed of the probe.

    Returns:
        A table of checks. An honest run fails one of them with a probability below 1e-4; one
        without noise, whose epsilon is infinite, fails those of noise.

    Example:
        >>> from interestkit.privacy.accounting import make_card
        >>> numbers = {"num_users": 2000, "users_per_step": 200, "steps": 100, "clip_norm": 1.0}
        >>> audit_private(make_card(**numbers, epsilon=3.0)).alarms
        []

    Source:
        One-run lower bound: Steinke, Nasr and Jagielski (2023), arXiv:2305.08846.
    """
    plan = (card.plan if plan is None else plan)._replace(expected_users=card.rate * _USERS)
    probe = partial(_released, parts, jax.tree.map(jnp.float32, plan))
    keys = jax.random.split(jax.random.key(seed), 3)
    everybody, nobody = np.ones(_USERS, bool), np.zeros(_USERS, bool)
    silent = np.zeros(_USERS, np.float32)
    loud = np.full(_USERS, _LOUD * card.clip_norm, np.float32)
    stddev = max(card.noise_multiplier * card.clip_norm, 1e-30)
    runs = zip((nobody, everybody, nobody), keys, strict=True)
    noise = [np.asarray(probe(silent, who, key), float) / stddev for who, key in runs]
    exact = partial(_released, parts, jax.tree.map(jnp.float32, plan._replace(noise_multiplier=0)))
    bound = _lower_bound(card, probe, loud, keys[0], seed)
    checks = [
        *_noise_checks(*noise),
        *_user_checks(card, exact, loud, everybody, keys[1]),
        *_number_checks(card, steps),
        _limit("lower bound on epsilon", bound, card.epsilon),
    ]
    table = pl.DataFrame(checks, schema=("check", *Check._fields[1:]), orient="row")
    return PrivacyAudit(table=table, epsilon_at_least=bound)


@partial(jax.jit, static_argnums=0)
def _released(
    parts: Parts,
    plan: Plan,
    gradients: Float[Array, " users"],
    included: Bool[Array, " users"],
    root: Array,
) -> Float[Array, "steps numbers"]:
    """Noisy sums of many steps of the probe; user n has numbers n and n + users to themselves."""

    def loss(params, user, bits, _):
        one = (params["a"][user] + params["b"][user]) * gradients[user] / math.sqrt(2)
        return (one + 0.0 * bits[:, 0]).mean()

    problem = Problem(_MOMENTS, 1, lambda _: None, loss)
    params = {"a": jnp.zeros(_USERS), "b": jnp.zeros(_USERS)}

    def step(number, _):
        made = (parts, problem, _USERS, plan, params, included, root, number)
        gradient = private_gradient(*made)
        return number + 1, jnp.concatenate([gradient["a"], gradient["b"]]) * plan.expected_users

    return jax.lax.scan(step, jnp.int32(0), length=_STEPS)[1]


def _noise_checks(empty, quiet, other) -> list[Check]:
    """Checks of noise that should be standard normal, from three runs."""
    rows = empty[:100]
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    column = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-30)
    between_runs = (empty * other).sum() / math.sqrt(empty.size)
    return [
        _variance("variance of noise, nobody there", empty),
        _variance("variance of noise, everybody there", quiet),
        _chance("shape of noise", stats.kstest(empty[:40].ravel(), "norm")[:2], "normal"),
        _largest("noise of two steps alike", unit @ unit.T, empty.shape[1]),
        _largest("noise of two numbers alike", column.T @ column / len(rows), len(rows)),
        _chance("noise of two runs alike", (between_runs, _two_sided(between_runs)), "0 ± 1"),
    ]


def _variance(name: str, noise) -> Check:
    total = float((noise**2).sum())
    p = 2 * min(stats.chi2.cdf(total, noise.size), stats.chi2.sf(total, noise.size))
    return _chance(name, (total / noise.size, p), "1")


def _largest(name: str, correlations, size: int) -> Check:
    """The largest correlation of all pairs, by Bonferroni's bound."""
    pairs = correlations[np.triu_indices(len(correlations), 1)]
    largest = min(float(np.abs(pairs).max()), 1 - 1e-12)
    t = largest * math.sqrt((size - 2) / (1 - largest**2))
    p = min(2 * stats.t.sf(t, size - 2) * len(pairs), 1.0)
    return _chance(name, (largest, p), "0, but for chance")


def _user_checks(card: PrivacyCard, exact: Callable, loud, everybody, key) -> list[Check]:
    """Checks of who takes part and how much they add, from runs without noise."""
    whole = np.asarray(exact(loud, everybody, key), float)
    most = 0.0
    for user in (0, 1, _USERS // 2, _USERS - 1):
        louder = np.where(np.arange(_USERS) == user, 100 * loud, loud).astype(np.float32)
        without = np.asarray(exact(loud, np.arange(_USERS) != user, key), float)
        change = np.asarray(exact(louder, everybody, key), float) - without
        most = max(most, float(np.linalg.norm(change, axis=1).max()))
    broken = np.asarray(exact(np.where(np.arange(_USERS) == 7, np.nan, loud), everybody, key))
    takes_part = whole[:, :_USERS] > 1e-3 * card.clip_norm
    return [
        _limit("largest change by a user", most, card.clip_norm, 1 + _ROUNDING),
        _limit("not a number", float((~np.isfinite(broken)).sum()), 0.0),
        *_sampling_checks(takes_part, card.rate),
    ]


def _sampling_checks(takes_part: Bool[np.ndarray, "steps users"], rate: float) -> list[Check]:
    """Checks of independent draws with one rate."""
    steps, users = takes_part.shape
    total = int(takes_part.sum())
    if rate == 1:  # everybody, and nothing is drawn
        return [Check("rate", total / takes_part.size, "1", None, total == takes_part.size)]
    p_total = stats.binomtest(total, takes_part.size, rate).pvalue
    return [
        _chance("rate", (total / takes_part.size, p_total), f"{rate:.4g}"),
        _spread("users in a step", takes_part.sum(axis=1), users, rate),
        _spread("steps of a user", takes_part.sum(axis=0), steps, rate),
        _pairs("users in two steps after each other", takes_part[1:] & takes_part[:-1], rate),
        _pairs("neighbours in one step", takes_part[:, 1:] & takes_part[:, :-1], rate),
    ]


def _spread(name: str, counts, size: int, rate: float) -> Check:
    """Sum of squares of centred binomial counts, its distribution taken as a gamma one."""
    squares = float(((counts - size * rate) ** 2).sum())
    variance = size * rate * (1 - rate)
    fourth = variance * (1 + (3 * size - 6) * rate * (1 - rate))
    mean, spread = len(counts) * variance, len(counts) * (fourth - variance**2)
    law = stats.gamma(mean**2 / spread, scale=spread / mean)
    p = 2 * min(law.cdf(squares), law.sf(squares))
    return _chance(f"spread of {name}", (squares / mean, p), "1")


def _pairs(name: str, both, rate: float) -> Check:
    """Number of pairs that take part together; pairs that share one of two are a little alike."""
    seen, mean = int(both.sum()), both.size * rate**2
    variance = mean * (1 - rate**2) + 2 * both.size * (rate**3 - rate**4)
    p = _two_sided((seen - mean) / math.sqrt(variance))
    if mean < 1000:  # a count of rare things
        p = min(1.0, 2 * min(stats.poisson.cdf(seen, mean), stats.poisson.sf(seen - 1, mean)))
    return _chance(name, (seen / mean, p), "1")


def _number_checks(card: PrivacyCard, steps: int | None) -> list[Check]:
    """Checks of the numbers of the card against each other."""
    steps = card.steps if steps is None else steps
    epsilon, below = epsilon_of(card), card.delta * card.num_users < 1
    overflow = overflow_delta(card, card.epsilon) if math.isfinite(card.epsilon) else 0.0
    return [
        _limit("steps taken", steps, card.steps),
        Check("delta", card.delta, f"< {1 / card.num_users:.2g}", None, card.delta > 0 and below),
        _limit("delta for steps without room", overflow, card.overflow_delta, 1.1),
        _limit("epsilon from the rest of the card", epsilon, card.epsilon, 1 + 1e-3),
    ]


def _limit(name: str, seen: float, limit: float, slack: float = 1.0) -> Check:
    return Check(name, float(seen), f"<= {limit:.4g}", None, bool(seen <= limit * slack))


def _lower_bound(card: PrivacyCard, probe: Callable, loud, key, seed: int) -> float:
    """Epsilon at the least, from canaries of whom a fair coin decides who is there."""
    is_in = np.random.default_rng(seed).random(_USERS) < 0.5
    released = np.asarray(probe(loud, is_in, key), float)[: card.steps]
    scores = released.sum(axis=0)
    scores = scores[:_USERS] + scores[_USERS:]
    return lower_bound(scores[is_in], scores[~is_in], delta=card.delta, confidence=1 - 1e-4)


def lower_bound(
    scores_in: Float[np.ndarray, " canaries"],
    scores_out: Float[np.ndarray, " canaries"],
    *,
    delta: float,
    confidence: float = 0.95,
) -> float:
    """Epsilon at the least, from scores of canaries of whom a fair coin decided who was there.

    Args:
        scores_in: Scores of canaries that were there; higher ones are to say so.
        scores_out: Scores of those that were not.
        delta: Delta of the promise that is tested.
        confidence: With which the bound holds, over coins and training.

    Returns:
        A bound of at least 0: at 0 the scores tell nothing that could not be chance.

    Example:
        >>> round(lower_bound(np.arange(100) + 200.0, np.arange(100.0), delta=1e-5), 2)
        3.17

    Source:
        Steinke, Nasr and Jagielski (2023), arXiv:2305.08846, as computed by jax_privacy.
    """
    scores = [np.nan_to_num(np.asarray(s, float)) for s in (scores_in, scores_out)]
    auditor = CanaryScoreAuditor(*scores)
    return float(auditor.epsilon_one_run(1 - confidence, delta))


def _two_sided(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))


def _chance(name: str, seen: tuple[float, float], expected: str) -> Check:
    value, p = (float(number) for number in seen)
    passed = math.isfinite(value) and p >= ALARM
    return Check(name, value, expected, p, passed)
