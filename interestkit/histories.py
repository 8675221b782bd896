"""Histories: each user's events before a moment of prediction, as flat arrays."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Float, Int

from interestkit import reprs
from interestkit.counting import running_counts
from interestkit.schema import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Events of each user before the moment of prediction, oldest first, as flat arrays.

    Args:
        users: Names of the users.
        offsets: Events of user n are offsets[n]..offsets[n + 1] - 1.
        item: Catalogue code of each event.
        seconds: Time of each event, in seconds since `Features.origin`.
        weight: Weight of each event, from its kind.
        moment: Moment of prediction of each user, in the same seconds.
        coded_by: `Features.fingerprint` of the catalogue; "" where the codes were made by hand.
    """

    users: np.ndarray
    offsets: Int[np.ndarray, " users_and_one"]
    item: Int[np.ndarray, " events"]
    seconds: Int[np.ndarray, " events"]
    weight: Float[np.ndarray, " events"]
    moment: Int[np.ndarray, " users"]
    coded_by: str = ""

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"Histories({len(self):,} users, {len(self.item):,} events)"

    def _repr_html_(self) -> str:
        return reprs.of_histories(self)

    def check_coded_by(self, features) -> None:
        """Raise ValueError if item codes are of other features, or, made by hand, of no item."""
        if self.coded_by and self.coded_by != features.fingerprint:
            raise ValueError(
                "histories must be made by these features, features.histories(events), got item "
                "codes of other features"
            )
        if not self.coded_by and len(self.item):
            low, high, last = self.item.min(), self.item.max(), features.num_items - 1
            if low < 0 or high > last:
                raise ValueError(f"item codes must be in 0..{last}, got {low}..{high}")

    @property
    def lengths(self) -> Int[np.ndarray, " users"]:
        """Number of events of each user."""
        return np.diff(self.offsets)

    @cached_property
    def user(self) -> Int[np.ndarray, " events"]:
        """User code of each event."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    @cached_property
    def num_repeats(self) -> int:
        """Number of events with an item that their user has had already."""
        pairs = np.repeat(np.arange(len(self)) << 32, self.lengths)
        pairs |= self.item
        pairs.sort()
        return int((pairs[1:] == pairs[:-1]).sum())

    @cached_property
    def starts_moment(self) -> Bool[np.ndarray, " events"]:
        """True where an event is the first of its user at that instant."""
        starts = np.ones(len(self.item), bool)
        starts[1:] = self.seconds[1:] != self.seconds[:-1]
        starts[self.begins] = True
        return starts

    @property
    def begins(self) -> Int[np.ndarray, " users_with_events"]:
        """Position of the first event of each user who has one."""
        return self.offsets[:-1][self.lengths > 0]

    def rows(self, first: int, stop: int) -> "Histories":
        """The same of users first..stop - 1 alone, or of those of them who are there."""
        users, offsets = slice(first, stop), self.offsets[first : stop + 1]
        events = slice(offsets[0], offsets[-1])
        return replace(
            self,
            users=self.users[users],
            offsets=offsets - offsets[0],
            item=self.item[events],
            seconds=self.seconds[events],
            weight=self.weight[events],
            moment=self.moment[users],
        )

    def take(self, users: Int[np.ndarray, " some"]) -> "Histories":
        """The same of the users with these numbers, in this order; one may be taken twice."""
        lengths = self.lengths[users]
        offsets = np.append(0, np.cumsum(lengths)).astype(self.offsets.dtype)
        event = np.repeat(self.offsets[users] - offsets[:-1], lengths) + np.arange(offsets[-1])
        parts = {name: getattr(self, name)[event] for name in ("item", "seconds", "weight")}
        own = {name: getattr(self, name)[users] for name in ("users", "moment")}
        return replace(self, offsets=offsets, **parts, **own)

    def newest(self, count: int) -> "Histories":
        """The same with no more than the newest `count` events of each user."""
        starts = self.offsets[1:] - np.minimum(self.lengths, count)
        return self.only(np.arange(len(self.item)) >= starts[self.user])

    def only(self, kept: Bool[np.ndarray, " events"]) -> "Histories":
        """The same with the events that are kept.

        Example:
            >>> two = Histories(
            ...     users=np.array(["ann"]),
            ...     offsets=np.array([0, 2]),
            ...     item=np.array([3, 1]),
            ...     seconds=np.array([10, 20]),
            ...     weight=np.ones(2),
            ...     moment=np.array([30]),
            ... )
            >>> two.only(np.array([False, True])).item
            array([1])
        """
        counts = np.bincount(self.user[kept], minlength=len(self))
        return replace(
            self,
            offsets=np.append(0, np.cumsum(counts)).astype(self.offsets.dtype),
            item=self.item[kept],
            seconds=self.seconds[kept],
            weight=self.weight[kept],
        )

    def number_of(self, user: str) -> int:
        """Number of the user with this name.

        Raises:
            ValueError: If there is no such user; the message names a similar one.
        """
        found = np.flatnonzero(self.users == user)
        if not len(found):
            hint = did_you_mean(user, self.users)
            raise ValueError(
                f"user must be one of the {len(self):,} users here, got {user!r}{hint}"
            )
        return int(found[0])

    def chances(self, seed: int) -> Float[np.ndarray, " users"]:
        """A number in [0, 1) for each user, which depends on seed, name and moment alone."""
        drawn = [
            blake2b(f"{seed} {moment} {user}".encode(), digest_size=8).digest()
            for user, moment in zip(self.users, self.moment.tolist(), strict=True)
        ]
        return (np.frombuffer(b"".join(drawn), "<u8") >> 11) * 2.0**-53

    def seen(self, user: int) -> Int[np.ndarray, " seen"]:
        """Codes of the items in the history of user number `user`, each once, ascending."""
        return np.unique(self.item[self.offsets[user] : self.offsets[user + 1]])

    def running_counts(
        self, scales_days: Iterable[float]
    ) -> tuple[Int[np.ndarray, " events"], Float[np.ndarray, "events scales"]]:
        """How often a user had touched an item at each event: `counting.running_counts`."""
        return running_counts(self.user, self.item, self.seconds, self.weight, scales_days)
