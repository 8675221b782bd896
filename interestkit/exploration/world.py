"""People who are made up: they look at lists, choose by interests that are known, and drift."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit.features import fit_features
from interestkit.histories import Histories
from interestkit.limits import check_at_least, check_counts, check_within
from interestkit.schema import ITEM, SEARCH_PREFIX, USER
from interestkit.simulation import planted_interests, simulate

Codes = Int[np.ndarray, "users k"]
OWN = 0.1  # an interest with this weight or more on the first day is one of the user's own


@dataclass(frozen=True, kw_only=True)
class World:
    """Settings of simulated users who are shown lists.

    In every round a user comes `visits` times, each time with one interest in mind, drawn from
    their weights. They go down the list and look at the item of rank r with probability
    r ** -`position_bias`; an item of that interest which they look at is chosen with the
    probability that is its appeal (drawn evenly from 0.5 to 1 for each item). The first choice
    ends the visit; without one they leave with nothing.

    Args:
        num_users: Users, at least 1.
        num_items: Items, at least `num_interests`; each carries one interest.
        num_interests: Interests, at least 1.
        sharpness: How few interests a user has, as in `simulate`.
        events_per_user: Mean number of events before the first round, as in `simulate`.
        visits: Visits of a user in a round, at least 1.
        position_bias: At least 0; at 0 everything is looked at.
        drift: Share of a user's weights that the interests of what they looked at replace in a
            round, in [0, 1]: exposure shapes interests. At 0 they stay as planted.

    Raises:
        ValueError: If `visits`, `position_bias` or `drift` is out of range.
    """

    num_users: int = 300
    num_items: int = 300
    num_interests: int = 12
    sharpness: float = 6.0
    events_per_user: float = 4.0
    visits: int = 3
    position_bias: float = 0.5
    drift: float = 0.02

    def __post_init__(self) -> None:
        check_counts(1, visits=self.visits)
        check_at_least(0, position_bias=self.position_bias)
        check_within("[0, 1]", drift=self.drift)


class Audience:
    """The users of a `World` with one seed, before the first round.

    Somebody who touched no item before it is not among them.

    Args:
        world: The settings.
        seed: Seed of users, items and of all that they do.

    Attributes:
        features: The catalogue, of the items that were touched before the first round.
        log: What was done so far.
        weights: Each user's weights of the interests of `features` now; rows sum to 1.
        own: True for the interests that a user has from the start, with a weight of 0.1 or more.

    Example:
        >>> audience = Audience(World(num_users=20, num_items=24), seed=1)
        >>> shown = np.tile(np.arange(5), (len(audience.log), 1))
        >>> chosen = audience.choose(shown, moment=audience.end)
        >>> chosen.shape  # a rank from 0 for each visit, -1 for none
        (19, 3)
        >>> bool((chosen >= 0).mean() < 1)
        True
    """

    def __init__(self, world: World, *, seed: int) -> None:
        sizes = {"num_users": world.num_users, "num_interests": world.num_interests}
        sizes |= {"sharpness": world.sharpness, "drift": 0.0, "seed": seed}
        past = {"events_per_user": world.events_per_user, "days": 30, "noise": 0.0}
        log = simulate(num_items=world.num_items, num_bots=0, faults=0.0, **past, **sizes)
        events = log.events.filter(~pl.col(ITEM).str.starts_with(SEARCH_PREFIX))
        self.world, self._rng = world, np.random.default_rng([seed, 2])
        self.features = fit_features(events, log.items, min_item_events=1)
        self.log = self.features.histories(events)
        planted = planted_interests(**sizes).pivot("interest", index=USER, values="start")
        rows = pl.DataFrame({USER: self.log.users}).join(planted, on=USER, maintain_order="left")
        weights = rows.select(self.features.interests).to_numpy()
        self.weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        self.own = self.weights >= OWN
        self.interest_of = self.features.item_interests.argmax(axis=1)
        self._appeal = self._rng.uniform(0.5, 1, self.features.num_items)

    @property
    def end(self) -> int:
        """The second after the last event."""
        return int(self.log.seconds.max()) + 1

    def at(self, moment: int) -> Histories:
        """What is known of all users at a moment, in seconds, at or after `end`.

        Raises:
            ValueError: If the moment is before `end`.
        """
        check_at_least(self.end, moment=moment)
        return replace(self.log, moment=np.full(len(self.log), moment, np.int32))

    def utility(
        self, shown: Codes, weights: Float[np.ndarray, "users interests"] | None = None
    ) -> Float[np.ndarray, " users"]:
        """Chance that a visit ends with a choice, in [0, 1].

        Args:
            shown: The list of each user; -1 where it is empty.
            weights: Weights of the interests; None takes those that users have now.
        """
        chance = np.log1p(-self._taken(shown))
        weights = self.weights if weights is None else weights
        return (weights * -np.expm1(self._sums(shown, chance))).sum(axis=1)

    def shares(self, shown: Codes) -> Float[np.ndarray, "users interests"]:
        """Share of each interest in each list; 0 where it is empty."""
        sums = self._sums(shown, np.ones(shown.shape))
        return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)

    def choose(self, shown: Codes, *, moment: int) -> Int[np.ndarray, "users visits"]:
        """The rank, from 0, of what each visit ends with, -1 for nothing; it goes to the log.

        Args:
            shown: The list of each user; -1 where it is empty.
            moment: When they come, in seconds, at or after `end`; a visit takes one.

        Raises:
            ValueError: If the moment is before `end`.
        """
        check_at_least(self.end, moment=moment)
        users, visits = len(shown), self.world.visits
        bounds = np.cumsum(self.weights, axis=1)[:, None]
        drawn = self._rng.random((users, visits, 1)) * bounds[:, :, -1:]
        wish = np.minimum((drawn > bounds).sum(axis=2), self.features.num_interests - 1)
        fits = self._interest(shown)[:, None] == wish[:, :, None]
        takes = fits & (self._rng.random(fits.shape) < self._taken(shown)[:, None])
        rank = np.where(takes.any(axis=2), takes.argmax(axis=2), -1)
        user, visit = np.nonzero(rank >= 0)
        self._append(user, shown[user, rank[user, visit]], moment + visit)
        return rank

    def expose(self, shown: Codes) -> None:
        """Let what users looked at move their weights, as `World.drift` says."""
        seen = self._sums(shown, np.broadcast_to(self._looks(shown.shape[1]), shown.shape))
        total = seen.sum(axis=1, keepdims=True)
        drift = np.where(total > 0, self.world.drift, 0.0)
        self.weights = (1 - drift) * self.weights + drift * seen / np.maximum(total, 1e-12)

    def found(self) -> Float[np.ndarray, " users"]:
        """Share of each user's own interests that are in the log; NaN without any."""
        touched = np.zeros(self.own.shape, bool)
        touched[self.log.user, self.interest_of[self.log.item]] = True
        number = self.own.sum(axis=1)
        return (touched & self.own).sum(axis=1) / np.where(number > 0, number, np.nan)

    def _looks(self, k: int) -> Float[np.ndarray, " k"]:
        return np.arange(1.0, k + 1) ** -self.world.position_bias

    def _taken(self, shown: Codes) -> Float[np.ndarray, "users k"]:
        """Chance that an item is looked at and chosen, where it is what the user wants."""
        chance = self._looks(shown.shape[1]) * self._appeal[shown]
        return np.where(shown >= 0, np.minimum(chance, 1 - 1e-9), 0.0)

    def _interest(self, shown: Codes) -> Codes:
        """Interest of each item; one too many where a list is empty."""
        return np.where(shown >= 0, self.interest_of[shown], self.features.num_interests)

    def _sums(self, shown: Codes, values) -> Float[np.ndarray, "users interests"]:
        """Sums over the items of a list, by interest."""
        sums = np.zeros((len(shown), self.features.num_interests + 1))
        rows = np.repeat(np.arange(len(shown)), shown.shape[1])
        np.add.at(sums, (rows, self._interest(shown).ravel()), values.ravel())
        return sums[:, :-1]

    def _append(self, user, item, seconds) -> None:
        log = self.log
        users = np.append(log.user, user)
        order = np.argsort(users, kind="stable")  # new events come after old ones
        new = {"item": item, "seconds": seconds, "weight": np.ones(len(item))}
        parts = {
            name: np.append(getattr(log, name), own)[order].astype(getattr(log, name).dtype)
            for name, own in new.items()
        }
        counts = np.bincount(users, minlength=len(log))
        offsets = np.append(0, np.cumsum(counts)).astype(log.offsets.dtype)
        self.log = replace(log, offsets=offsets, **parts)
