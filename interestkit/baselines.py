"""What every model must beat: popularity, recent popularity, and the user's own habits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from interestkit.counting import SECONDS_PER_DAY
from interestkit.features import Features
from interestkit.heldout import HeldOut, label_sums, pairs_of
from interestkit.histories import Histories
from interestkit.metrics import top_k
from interestkit.prediction import BLOCK, check_k


class Ranker(Protocol):
    """What evaluation asks of a model; `prediction.Predictor` says what the methods return."""

    def rank(self, histories: Histories, *, k: int = 10, exclude_seen: bool = True):
        """Codes and scores of the k best items of each user."""

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest."""


def found_by(
    ranker: Ranker, truth: HeldOut, *, k: int, new_only: bool = False
) -> tuple[Bool[np.ndarray, "users ranks"], Int[np.ndarray, " users"]]:
    """Where a ranker's lists hit, and how much there was to find: what metrics of lists take."""
    codes, _ = ranker.rank(truth.histories, k=k, exclude_seen=new_only)
    hits = truth.hits(0, np.asarray(codes), new_only=new_only)
    return hits, truth.num_relevant(new_only=new_only)


def check_days(days: float | None) -> None:
    """Raise ValueError unless so many days of a log, the newest, are some or all."""
    if days is not None and not days > 0:
        raise ValueError(f"days must be above 0 or None, got {days}")


def user_blocks(pairs: csr_matrix) -> Iterator[csr_matrix]:
    """Rows of users x items, some at a time, in one block or more of one shape."""
    for first in range(0, max(pairs.shape[0], 1), BLOCK):
        own = pairs[first : first + BLOCK]
        own.resize(BLOCK, pairs.shape[1])
        yield own


def best_items(
    scores_of: Callable[[csr_matrix], np.ndarray], pairs: csr_matrix, *, k: int, exclude_seen: bool
) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
    """Codes and scores of each user's best items, by the scores of a block of rows of `pairs`."""
    found = []
    for own in user_blocks(pairs):
        scores = scores_of(own)
        if exclude_seen:
            scores[own.nonzero()] = -np.inf
        found.append(top_k(scores, k))
    best, codes = (np.concatenate(parts)[: pairs.shape[0]] for parts in zip(*found, strict=True))
    return codes, best


@dataclass(frozen=True, kw_only=True, eq=False)
class Popular:
    """Items by how many events they have in the whole log, interests by their share of it.

    Args:
        features: The catalogue.
        log: Events that may be counted: those before the moment of prediction.
        days: Count only the newest so many days of the log; None counts all.

    Raises:
        ValueError: If `days` is not above 0, or the log, or what is ranked later, is coded by other
            features.
    """

    features: Features
    log: Histories
    days: float | None = None

    def __post_init__(self) -> None:
        self.log.check_coded_by(self.features)
        check_days(self.days)

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

    def _scores(self, own: csr_matrix) -> Float[np.ndarray, "users items"]:
        """Scores from each user's own number of events with each item: here the same for all."""
        return np.tile(self.counts.astype(np.float32), (own.shape[0], 1))

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and scores of the k best items, as `Predictor.rank`; scores are counts."""
        check_k(k, self.features)
        counts = pairs_of(self.features, histories)
        return best_items(self._scores, counts, k=k, exclude_seen=exclude_seen)

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest: here its share of all events."""
        histories.check_coded_by(self.features)
        return np.tile(self.interest_shares, (len(histories), 1))


class MostFrequent(Popular):
    """The user's own most frequent items and interests; popularity breaks ties and fills up."""

    def _scores(self, own: csr_matrix) -> Float[np.ndarray, "users items"]:
        popular = self.counts / (max(self.counts.max(), 1) + 1)
        return (own.toarray() + popular[None, :]).astype(np.float32)

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Share of each interest in the user's events, with one event spread as everybody's."""
        smooth = label_sums(self.features, histories) + self.interest_shares[None, :]
        return smooth / smooth.sum(axis=1, keepdims=True)
