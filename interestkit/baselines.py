"""What every model must beat: popularity, recent popularity, and the user's own habits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from interestkit.counting import SECONDS_PER_DAY
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.metrics import top_k
from interestkit.prediction import BLOCK, check_k
from interestkit.similarity import sums_by_user


class Ranker(Protocol):
    """What evaluation asks of a model; `prediction.Predictor` says what the methods return."""

    def rank(self, histories: Histories, *, k: int = 10, exclude_seen: bool = True):
        """Codes and scores of the k best items of each user."""

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Popular:
    """Items by how many events they have in the whole log, interests by their share of it.

    Args:
        features: The catalogue.
        log: Events that may be counted: those before the moment of prediction.
        days: Count only the newest so many days of the log; None counts all.
    """

    features: Features
    log: Histories
    days: float | None = None

    @cached_property
    def counts(self) -> Float[np.ndarray, " items"]:
        """Events of each item; older events break ties."""
        num_items = self.features.num_items
        counts = np.bincount(self.log.item, minlength=num_items).astype(float)
        if self.days is not None:
            oldest = self.log.seconds.max(initial=0) - self.days * SECONDS_PER_DAY
            newest = self.log.item[self.log.seconds >= oldest]
            counts = np.bincount(newest, minlength=num_items) + counts / (counts.sum() + 1)
        return np.where(self.features.is_candidate, counts, -np.inf)

    @cached_property
    def interest_shares(self) -> Float[np.ndarray, " interests"]:
        """Share of each interest in the counted events, with one event spread evenly."""
        sums = np.maximum(self.counts, 0) @ self.features.item_interests
        smooth = sums + 1 / max(len(sums), 1)
        return smooth / smooth.sum()

    def _scores(self, own: Float[np.ndarray, "users items"]) -> Float[np.ndarray, "users items"]:
        """Scores from each user's own number of events with each item: here the same for all."""
        return np.tile(self.counts, (len(own), 1))

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and scores of the k best items, as `Predictor.rank`; scores are counts."""
        check_k(k, self.features)
        blocks = []
        for own in self._own_counts(histories):
            scores = self._scores(own).astype(np.float32)
            if exclude_seen:
                scores[own > 0] = -np.inf
            blocks.append(top_k(scores, k))
        best, codes = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
        return codes[: len(histories)], best[: len(histories)]

    def _own_counts(self, histories: Histories) -> Iterator[Float[np.ndarray, "users items"]]:
        """Each user's own number of events with each item, in blocks of one shape."""
        for first in range(0, max(len(histories), 1), BLOCK):
            offsets = histories.offsets[first : first + BLOCK + 1]
            events = slice(offsets[0], offsets[-1])
            own = np.zeros((BLOCK, self.features.num_items), np.float32)
            np.add.at(own, (histories.user[events] - first, histories.item[events]), 1.0)
            yield own

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest: here its share of all events."""
        return np.tile(self.interest_shares, (len(histories), 1))


class MostFrequent(Popular):
    """The user's own most frequent items and interests; popularity breaks ties and fills up."""

    def _scores(self, own: Float[np.ndarray, "users items"]) -> Float[np.ndarray, "users items"]:
        return own + (self.counts / (max(self.counts.max(), 1) + 1))[None, :]

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Share of each interest in the user's events, with one event spread as everybody's."""
        own, labels = (histories.user, histories.item), self.features.item_interests
        sums = sums_by_user(*own, labels, num_users=len(histories))
        smooth = sums + self.interest_shares[None, :]
        return smooth / smooth.sum(axis=1, keepdims=True)
