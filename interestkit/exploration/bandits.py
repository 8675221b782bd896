"""Rankers that try things out: several fits of one model, or places of a list left to chance.

What a log can say of lists that nobody was shown is little. It holds what users did with what
they were shown: an item that was never shown has no click, whether or not anybody would like it.
So a metric on logged choices, and a replay of the places where two policies agree, favour what
is like the policy that wrote the log. A fair estimate needs the probability with which each item
came to its place (its propensity), above 0 for all that the other policy would show there;
`off_policy_value` takes it. It has to be logged when the list is made: it cannot be found
afterwards, and most logs, all that this package loads among them, do not have it. `RandomPlaces`
logs it, the simulator (`exploration.loop`) keeps it; of an `Ensemble` it is not known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float, Int

from interestkit.baselines import Ranker
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.limits import check_counts, check_one_of, check_within
from interestkit.metrics import top_k
from interestkit.prediction import BLOCK, check_k

Fit = Callable[[Features, Histories], Ranker]
CHOICES = ("Thompson", "upper", "mean")


def bootstrap(
    fit: Fit, features: Features, log: Histories, *, members: int = 5, seed: int = 0
) -> tuple[Ranker, ...]:
    """Fits of one model, each on as many users of the log, drawn with replacement.

    Args:
        fit: Makes a ranker from features and histories, such as
            `lambda features, log: ik.EASE(features=features, log=log)`.
        features: The catalogue.
        log: Histories of training users.
        members: Number of fits, at least 1.
        seed: Seed of the draws.

    Raises:
        ValueError: If `members` is below 1.

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 6.
    """
    check_counts(1, members=members)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(log), size=(members, len(log)))
    return tuple(fit(features, log.take(users)) for users in drawn)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """A ranker of several fits of one model, which differ where the log says little.

    Args:
        members: The fits: of other seeds, or of resampled logs (`bootstrap`). Their scores must
            have one unit.
        features: The catalogue.
        choose: "Thompson" ranks each user by one member, drawn anew for each moment of
            prediction; "upper" by the mean of the scores plus `width` standard deviations over
            members; "mean" by their mean, which explores nothing.
        width: Standard deviations that "upper" adds.
        seed: Seed of the draws.

    Raises:
        ValueError: If there is no member or no such choice, or `seed` is negative.

    Source:
        Chapelle and Li (2011), NeurIPS (Thompson sampling); Osband and Van Roy (2015),
        arXiv:1507.00300 (by bootstrap); Auer (2002), JMLR 3 (upper confidence).
    """

    members: tuple[Ranker, ...]
    features: Features
    choose: str = "Thompson"
    width: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members must be at least one ranker, got none")
        check_one_of(CHOICES, choose=self.choose)
        check_counts(0, seed=self.seed)

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and scores of the k best items, as `Predictor.rank`."""
        check_k(k, self.features)
        settings = {"k": k, "exclude_seen": exclude_seen}
        if self.choose == "Thompson":
            return self._by_draw(histories, settings)
        codes = np.full((len(histories), k), -1)
        scores = np.full((len(histories), k), -np.inf, np.float32)
        for first in range(0, len(histories), BLOCK):
            some = slice(first, first + BLOCK)
            best, place = top_k(self._together(histories.rows(first, first + BLOCK), settings), k)
            codes[some], scores[some] = place, best
        return codes, scores

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Mean probability of each interest over the members."""
        return np.mean([member.interests(histories) for member in self.members], axis=0)

    def _by_draw(self, histories: Histories, settings: dict):
        draw = np.array([rng.integers(len(self.members)) for rng in draws(histories, self.seed)])
        codes = np.full((len(histories), settings["k"]), -1)
        scores = np.full(codes.shape, -np.inf, np.float32)
        for number, member in enumerate(self.members):
            users = np.flatnonzero(draw == number)
            if len(users):
                codes[users], scores[users] = member.rank(histories.take(users), **settings)
        return codes, scores

    def _together(self, histories: Histories, settings: dict):
        """Scores of all items; -inf for one that no member would list."""
        number = self.features.num_items
        given = []
        for member in self.members:
            codes, scores = member.rank(histories, **settings | {"k": number})
            table = np.full((len(histories), number), -np.inf)
            user, rank = np.nonzero(np.asarray(codes) >= 0)
            table[user, np.asarray(codes)[user, rank]] = np.asarray(scores)[user, rank]
            given.append(table)
        given = np.stack(given)
        there = np.isfinite(given).all(axis=0)
        given = np.where(there, given, 0.0)
        width = self.width if self.choose == "upper" else 0.0
        return np.where(there, given.mean(axis=0) + width * given.std(axis=0), -np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomPlaces:
    """A ranker that leaves each place of a list to chance with one probability.

    A place that is left to chance gets an item that is drawn evenly from all candidates that the
    ranker did not list, each at most once.

    Args:
        ranker: Fills the other places.
        features: The catalogue.
        share: Probability of a place, in [0, 1].
        seed: Seed of the draws, which are new at each moment of prediction.

    Raises:
        ValueError: If `share` is outside [0, 1], or `seed` is negative.
    """

    ranker: Ranker
    features: Features
    share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_within("[0, 1]", share=self.share)
        check_counts(0, seed=self.seed)

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and scores as of `ranker`; a random item has the score of the place it takes."""
        return self.draw(histories, k=k, exclude_seen=exclude_seen)[:2]

    def draw(self, histories: Histories, *, k: int = 10, exclude_seen: bool = True):
        """Codes and scores as `rank`, and the propensity of each item: its chance at its place."""
        codes, scores = self.ranker.rank(histories, k=k, exclude_seen=exclude_seen)
        codes, scores = np.array(codes), np.asarray(scores)
        chance = np.where(codes >= 0, 1 - self.share, np.nan)
        for user, rng in enumerate(draws(histories, self.seed)):
            free = self.features.is_candidate.copy()
            free[codes[user][codes[user] >= 0]] = False
            if exclude_seen:
                free[histories.seen(user)] = False
            pool = np.flatnonzero(free)
            left = np.flatnonzero((rng.random(k) < self.share) & (codes[user] >= 0))
            if len(pool) < k:  # too few to fill any place that is left to chance
                chance[user] = np.where(codes[user] >= 0, 1.0, np.nan)
                continue
            codes[user, left] = rng.choice(pool, len(left), replace=False)
            chance[user, left] = self.share / len(pool)
        return codes, scores, chance

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest, as of `ranker`."""
        return self.ranker.interests(histories)


class Estimate(NamedTuple):
    """A value from a log, its 95 % interval, and how many rows of one weight would say as much."""

    value: float
    low: float
    high: float
    effective_rows: float


def off_policy_value(
    rewards: Float[np.ndarray, " rows"],
    propensities: Float[np.ndarray, " rows"],
    agrees: Bool[np.ndarray, " rows"],
) -> Estimate:
    """Mean reward that another policy would have had, from a log of somebody else's.

    The rows in which the other policy would have done the same, weighted by 1 / propensity; the
    sum is divided by that of the weights (self-normalised inverse propensity scoring). With all
    propensities 1 it is the naive replay, which is biased towards the policy that wrote the log.
    It holds for one place of a list at a time, as long as the places before it do not matter, or
    for the first place.

    Args:
        rewards: What came of each row, such as 1 for a choice.
        propensities: Probability with which the log's policy did it, in (0, 1].
        agrees: True where the other policy would do the same.

    Returns:
        Value, interval (delta method) and effective rows; NaN where no row agrees, the
        interval also where one alone does.

    Raises:
        ValueError: If a propensity is unknown (NaN) or outside (0, 1]: then the log cannot say. If
            there are not as many of one as of the others.

    Example:
        >>> rewards, agrees = np.array([1.0, 0.0, 1.0]), np.array([True, True, False])
        >>> found = off_policy_value(rewards, np.array([0.5, 0.25, 0.5]), agrees)
        >>> round(found.value, 3)  # (2 x 1 + 4 x 0) / (2 + 4)
        0.333

    Source:
        Swaminathan and Joachims (2015), NeurIPS; Owen (2013), Monte Carlo theory, ch. 9.
    """
    rewards, propensities = np.asarray(rewards, float), np.asarray(propensities, float)
    if not len(rewards) == len(propensities) == len(agrees):
        sizes = f"{len(rewards)} rewards, {len(propensities)} propensities, {len(agrees)} agrees"
        raise ValueError(f"rewards, propensities and agrees must be one per row, got {sizes}")
    if not ((propensities > 0) & (propensities <= 1)).all():
        wrong = propensities[~((propensities > 0) & (propensities <= 1))][0]
        raise ValueError(f"propensities must be in (0, 1], got {wrong}: such a log cannot say")
    weights = np.where(agrees, 1 / propensities, 0.0)
    total = weights.sum()
    if total == 0:
        return Estimate(np.nan, np.nan, np.nan, 0.0)
    value = float((weights * rewards).sum() / total)
    error = float(np.sqrt((weights**2 * (rewards - value) ** 2).sum()) / total)
    error = error if np.count_nonzero(agrees) > 1 else np.nan  # one row alone has no spread
    effective = float(total**2 / (weights**2).sum())
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, effective)


def draws(histories: Histories, seed: int):
    """A generator for each user, which depends on seed, name and moment of prediction alone."""
    for user, moment in zip(histories.users, histories.moment, strict=True):
        before_origin_too = int(moment) % 2**32
        yield np.random.default_rng([seed, crc32(str(user).encode()), before_origin_too])
