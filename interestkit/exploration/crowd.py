"""What the crowd says of labels that a user has not touched: counts, neighbours, rates."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix, diags

from interestkit.content import unit_rows
from interestkit.counting import SECONDS_PER_DAY, evenly
from interestkit.features import Features
from interestkit.heldout import pairs_of
from interestkit.histories import Histories

MOST_USERS = 5_000  # users of a log with whom others are compared, evenly taken
_BLOCK = 512  # users compared at a time
NEVER = np.iinfo(np.int64).max  # when a label was touched that was not
_PRIOR = 10  # users who go with everybody's share of a step
PROFILES = ("once", "root", "log", "rare")  # how often a label was touched -> its weight

Table = Float[np.ndarray, "users labels"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Crowd:
    """Users of a log up to a moment, and which labels they touched."""

    features: Features
    log: Histories

    @cached_property
    def end(self) -> int:
        """The second after the last event."""
        return int(self.log.seconds.max(initial=-1)) + 1

    @cached_property
    def counts(self) -> Table:
        """Events of each user with each label."""
        return label_counts(self.features, self.log)

    @cached_property
    def touched(self) -> Table:
        """1 where a user touched a label, else 0."""
        return (self.counts > 0).astype(np.float32)

    @cached_property
    def popularity(self) -> Float[np.ndarray, " labels"]:
        """Share of the users who touched each label."""
        return self.touched.sum(axis=0) / max(len(self.touched), 1)

    @cached_property
    def items(self) -> csr_matrix:
        """Items of each user, as unit rows of log(1 + events) times inverse user frequency."""
        return self.item_profile(self.log)

    @cached_property
    def _users_of_items(self) -> Int[np.ndarray, " items"]:
        own = pairs_of(self.features, self.log)
        return np.bincount(own.indices, minlength=own.shape[1])

    def item_profile(self, histories: Histories) -> csr_matrix:
        """The same rows of any users."""
        counts = pairs_of(self.features, histories)
        counts.data = np.log1p(counts.data)
        rarity = np.log((1 + len(self.log)) / np.maximum(self._users_of_items, 1))
        return unit_rows(counts @ diags(rarity))

    def profile(self, counts: Table, kind: str) -> Table:
        """Weight of each label in each user's profile, from how often they touched it.

        Args:
            counts: As `counts`, of any users.
            kind: "once" counts a label once, "root" and "log" take root and log(1 + n) of the
                number of events, "rare" counts it once, times log(users / users with it).
        """
        if kind == "root":
            return np.sqrt(counts)
        if kind == "log":
            return np.log1p(counts)
        weight = -np.log(np.maximum(self.popularity, 1e-6)) if kind == "rare" else 1.0
        return (counts > 0) * np.float32(1) * weight

    @cached_property
    def first(self) -> Int[np.ndarray, "users labels"]:
        """When each user touched each label for the first time, as `first_touches`."""
        return first_touches(self.features, self.log)

    def step_chances(self, days: float) -> Float[np.ndarray, "labels labels"]:
        """Share of users with one label (row) who touched another for the first time of late.

        Of those with events in the newest so many days to whom the other was new before; ten
        users go with the share of all rows together.
        """
        begin = self.end - days * SECONDS_PER_DAY
        users = np.unique(self.log.user[self.log.seconds >= begin])
        first = self.first[users]
        had, new = (first < begin).astype(np.float32), (first >= begin).astype(np.float32)
        could, did = had.T @ new, had.T @ ((first >= begin) & (first < NEVER)).astype(np.float32)
        share = did.sum(axis=0) / np.maximum(could.sum(axis=0), 1)
        return (did + _PRIOR * share[None]) / (could + _PRIOR)

    def since(self, days: float) -> Table:
        """Events of each user with each label in the newest so many days."""
        oldest = self.end - days * SECONDS_PER_DAY
        return label_counts(self.features, self.log.only(self.log.seconds >= oldest))

    def first_rates(self, days: float) -> Float[np.ndarray, " labels"]:
        """Share of the users who touched a label for the first time in the newest so many days.

        Of those who had events before and since, and had not touched it before; smoothed by
        one user who goes with the mean of all labels.
        """
        before = self.counts - self.since(days)
        recent = self.log.seconds >= self.end - days * SECONDS_PER_DAY
        since = np.bincount(self.log.user[recent], minlength=len(self.log))
        is_there = (since > 0) & (since < self.log.lengths)
        could = is_there[:, None] & (before < 0.5)
        did = could & (self.counts > 0.5)
        mean = did.sum() / max(could.sum(), 1)
        return (did.sum(axis=0) + mean) / (could.sum(axis=0) + 1)


def first_touches(features: Features, log: Histories) -> Int[np.ndarray, "users labels"]:
    """Second of each user's first event with each label; `NEVER` where there is none."""
    log.check_coded_by(features)
    labels = csr_matrix(features.item_interests > 0)[log.item]
    number = np.diff(labels.indptr)
    key = np.repeat(log.user.astype(np.int64), number) * features.num_interests + labels.indices
    pair, place = np.unique(key, return_index=True)  # events come oldest first
    first = np.full((len(log), features.num_interests), NEVER)
    first.ravel()[pair] = np.repeat(log.seconds, number)[place]
    return first


def label_counts(features: Features, histories: Histories) -> Table:
    """Events of each user with each label; an event with two labels counts for both."""
    labels = csr_matrix((features.item_interests > 0).astype(np.float32))
    return (pairs_of(features, histories) @ labels).toarray()


def labels_touched(features: Features, histories: Histories) -> Bool[np.ndarray, "users labels"]:
    """True where a label is in a history: of items in the catalogue, which is all that is known."""
    return label_counts(features, histories) > 0


def cut(log: Histories, seconds: int) -> Histories:
    """Histories as they were at a moment; a user without events by then has an empty one."""
    before = log.only(log.seconds < seconds)
    return replace(before, moment=np.full(len(log), seconds, log.moment.dtype))


def nearest(
    profiles, crowd, own: Int[np.ndarray, " users"], neighbours: int, power: float = 1.0
) -> Iterator[tuple[slice, Table]]:
    """Weights (similarity ** power) of the users of a crowd for some others, block by block.

    Args:
        profiles: Unit rows of the users, dense or sparse.
        crowd: Unit rows of the crowd.
        own: Row of each user in the crowd, which gets no weight; negative where there is none.
        neighbours: Users of the crowd that keep their weight.
        power: Of the similarity.
    """
    for first in range(0, max(profiles.shape[0], 1), _BLOCK):  # one block for nobody
        rows = slice(first, first + _BLOCK)
        alike = profiles[rows] @ crowd.T
        alike = np.maximum(alike if isinstance(alike, np.ndarray) else alike.toarray(), 0)
        is_in = own[rows] >= 0
        alike[np.flatnonzero(is_in), own[rows][is_in]] = 0
        if neighbours < alike.shape[1]:
            least = np.partition(alike, -neighbours, axis=1)[:, [-neighbours]]
            alike = np.where(alike >= least, alike, 0)
        yield rows, (alike**power).astype(np.float32)


def unit(rows: Table) -> Table:
    """Rows of length one; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def sample(log: Histories, most: int = MOST_USERS) -> Int[np.ndarray, " users"]:
    """Numbers of no more than so many users with events, evenly taken."""
    users = np.flatnonzero(log.lengths > 0)
    return users[evenly(len(users), most)]
