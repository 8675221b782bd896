"""Baselines that know which items go together: item neighbours, EASE, factors by ALS.

All three score items from a user's profile: for each item of the history
(number of events) ** `power`, times exp(-age / `days`) where `days` is given. They are fitted on
a log of training users and rank any histories, of users that they have never met too.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from interestkit.baselines import Popular, best_items, check_days, user_blocks
from interestkit.counting import SECONDS_PER_DAY
from interestkit.features import Features
from interestkit.heldout import label_sums, pairs_of
from interestkit.histories import Histories
from interestkit.limits import check_above_0, check_at_least, check_counts
from interestkit.prediction import check_k
from interestkit.similarity import (
    MAX_ITEMS,
    check_ease_size,
    cosine_neighbours,
    ease_weights,
    regularised_inverse,
    row_shares,
)

PRIOR_EVENTS = 30  # best or close to it of 0, 1, 3, 10 and 30 for interests in three logs
_SMALLEST = 1e-30  # weight of the oldest events: 0 would mean that the user never had the item
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemBased:
    """What the baselines here share; `_scores` is what makes one of them.

    Items without any score follow by popularity, so a user without events gets what is popular.

    Args:
        features: The catalogue.
        log: Events that may be learned from: those before the moment of prediction.
        power: An item of the history counts (number of events) ** power: 0 counts it once.
        days: An item of the history counts exp(-age / days), where age is the time from its
            last event to the user's newest event; None: age does not matter.
        own_weight: This much of the profile is added to the scores of the user's own items. 0 is
            the published method, which is made for new items; repeats need more.

    Raises:
        ValueError: If `days` is not above 0, or the log, or what is ranked later, is coded by other
            features.
    """

    features: Features
    log: Histories
    power: float = 0.0
    days: float | None = None
    own_weight: float = 0.0

    def __post_init__(self) -> None:
        self.log.check_coded_by(self.features)
        check_days(self.days)

    @cached_property
    def popular(self) -> Popular:
        """Popularity over the whole log, for items and users of whom nothing else is known."""
        return Popular(features=self.features, log=self.log)

    @cached_property
    def pairs(self) -> csr_matrix:
        """Who had what in the log: users x items, (number of events) ** power."""
        return pairs_of(self.features, self.log, self.power)

    def profiles(self, histories: Histories) -> csr_matrix:
        """Weight of each item in each user's history: users x items, above 0 where there is one."""
        profiles = pairs_of(self.features, histories, self.power)
        if self.days is None:
            return profiles
        newest = np.zeros(len(histories), np.int64)
        newest[histories.user] = histories.seconds  # events come oldest first: the last one stays
        pair = histories.user.astype(np.int64) * self.features.num_items + histories.item
        pairs, place = np.unique(pair, return_inverse=True)  # in the order of `profiles`
        last = np.zeros(len(pairs), np.int64)
        last[place] = histories.seconds
        age_days = (newest[pairs // self.features.num_items] - last) / SECONDS_PER_DAY
        profiles.sort_indices()
        profiles.data *= np.maximum(np.exp(-age_days / self.days), _SMALLEST).astype(np.float32)
        return profiles

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and scores of the k best items, as `Predictor.rank`; scores have no unit."""
        check_k(k, self.features)
        profiles = self.profiles(histories)
        return best_items(self._filled_scores, profiles, k=k, exclude_seen=exclude_seen)

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest: its share of the user's own events and of the scores.

        To the interests of the user's events come `PRIOR_EVENTS` more, spread like the scores
        above 0 of all candidates, and one spread like everybody's events.
        """
        labels, blocks = self.features.item_interests, []
        for own in user_blocks(self.profiles(histories)):
            liked = np.maximum(self._scores(own), 0) * self.features.is_candidate[None, :]
            blocks.append(row_shares(liked @ labels))
        expected = np.concatenate(blocks)[: len(histories)]
        own, everybody = label_sums(self.features, histories), self.popular.interest_shares[None, :]
        return row_shares(own + PRIOR_EVENTS * expected + everybody)

    def _filled_scores(self, own: csr_matrix) -> Float[np.ndarray, "users items"]:
        """Scores, own items included; -1..0 by popularity for none, -inf for no candidate."""
        scores = self._scores(own) + np.float32(self.own_weight) * own.toarray()
        counts = np.maximum(self.popular.counts, 0)
        popular = counts / (counts.max(initial=0) + 1) - 1
        scores = np.where(scores == 0, popular.astype(np.float32)[None, :], scores)
        return np.where(self.features.is_candidate[None, :], scores, np.float32(-np.inf))

    def _scores(self, own: csr_matrix) -> Float[np.ndarray, "users items"]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemKNN(ItemBased):
    """Items that go with those of the history: the sum of their cosine similarities.

    Formulas and sources: `similarity.cosine_neighbours`. The other arguments: `ItemBased`.

    Args:
        neighbours: Neighbours kept of each item, at least 1.
        shrinkage: Lowers the similarity of items with few events, at least 0.

    Example:
        >>> from interestkit import fit_features, simulate
        >>> log = simulate(num_users=40, num_items=30, num_bots=0, faults=0)
        >>> features = fit_features(log.events, log.items)
        >>> known = features.histories(log.events)
        >>> codes, _ = ItemKNN(features=features, log=known, days=10).rank(known, k=3)
        >>> codes.shape
        (40, 3)
    """

    neighbours: int = 100
    shrinkage: float = 10.0

    @cached_property
    def weights(self) -> csr_matrix:
        """Similarity of each item (row) to its neighbours."""
        sizes = {"neighbours": self.neighbours, "shrinkage": self.shrinkage}
        return cosine_neighbours(self.pairs, **sizes)

    def _scores(self, own: csr_matrix) -> Float[np.ndarray, "users items"]:
        return (own @ self.weights).toarray()


@dataclass(frozen=True, kw_only=True, eq=False)
class EASE(ItemBased):
    """A linear model from all items of the history to each other item, in closed form.

    Formula and source: `similarity.ease_weights`. Where the log has fewer users than items, the
    same scores come cheaper from K = (X X' + regularisation I)^-1 by Woodbury's identity:
    regularisation P = I - X' K X. The other arguments: `ItemBased`.

    Args:
        regularisation: Above 0; more keeps the weights smaller.
        max_items: Largest number allowed of items or of users, whichever are fewer: memory grows
            with its square, time with its cube.

    Raises:
        ValueError: If both are more than `max_items`.
    """

    regularisation: float = 200.0
    max_items: int = MAX_ITEMS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ease_size(min(self.features.num_items, len(self.log)), self.max_items)

    @cached_property
    def weights(self) -> Float[np.ndarray, "items items"]:
        """Weight of each item of a history (row) in the score of each item (column)."""
        return ease_weights(
            self.log.user,
            self.log.item,
            num_users=len(self.log),
            num_items=self.features.num_items,
            regularisation=self.regularisation,
            power=self.power,
            max_items=self.max_items,
        )

    @cached_property
    def _inverse(self) -> tuple[Float[np.ndarray, "users users"], Float[np.ndarray, " items"]]:
        """K = (X X' + regularisation I)^-1, and 1 - diag(X' K X)."""
        inverse = regularised_inverse((self.pairs @ self.pairs.T).toarray(), self.regularisation)
        explained = self.pairs.multiply(inverse @ self.pairs).sum(axis=0)
        return inverse, 1 - np.asarray(explained, np.float32).ravel()

    def _scores(self, own: csr_matrix) -> Float[np.ndarray, "users items"]:
        if self.features.num_items <= len(self.log):
            return own @ self.weights
        inverse, left = self._inverse
        had, told = own.toarray(), (own @ self.pairs.T).toarray() @ inverse @ self.pairs
        return had - (had - told) / left[None, :]


@dataclass(frozen=True, kw_only=True, eq=False)
class ALS(ItemBased):
    """Factors of users and items by alternating least squares on implicit feedback.

    All pairs of user and item count: with confidence 1 + alpha (number of events) ** power as 1
    where there are events, with confidence 1 as 0 elsewhere. Source: Hu, Koren and Volinsky
    (2008), doi:10.1109/ICDM.2008.22; fitted by the package implicit (the extra `als`) in one
    thread, so that one seed gives one result on one machine. The vector of any history is the
    exact solution for the item factors. The other arguments: `ItemBased`.

    Args:
        factors: Length of the vectors, at least 1.
        regularisation: At least 0; more keeps the vectors shorter.
        alpha: How much more an event says than no event, above 0.
        iterations: Rounds of users, then items.
        seed: Seed of the first factors.

    Raises:
        ImportError: If the package implicit is missing, when it is first used.
        ValueError: If a setting is out of range.
    """

    power: float = 1.0
    factors: int = 64
    regularisation: float = 0.1
    alpha: float = 10.0
    iterations: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(1, factors=self.factors, iterations=self.iterations)
        check_at_least(0, regularisation=self.regularisation)
        check_above_0(alpha=self.alpha)

    @cached_property
    def _model(self):
        try:
            from implicit.cpu.als import AlternatingLeastSquares
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise ImportError(
                "ALS needs the package implicit: pip install 'interestkit[als]'"
            ) from error
        with _LOCK, threadpool_limits(1, "blas"):  # one thread for the whole process: one at a time
            model = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularisation,
                alpha=1.0,  # confidence comes ready made
                iterations=self.iterations,
                num_threads=1,
                random_state=self.seed,
            )
            model.fit(self._confidence(self.pairs), show_progress=False)
        return model

    def _confidence(self, pairs: csr_matrix) -> csr_matrix:
        confidence = pairs.copy()
        confidence.data = 1 + np.float32(self.alpha) * confidence.data
        return confidence

    def user_vectors(self, own: csr_matrix) -> Float[np.ndarray, "users factors"]:
        """Vector x of each profile: the x with (Y'CY + regularisation I) x = Y'Cp, 0 for none."""
        return self._model.recalculate_user(np.arange(own.shape[0]), self._confidence(own))

    def _scores(self, own: csr_matrix) -> Float[np.ndarray, "users items"]:
        return self.user_vectors(own) @ self._model.item_factors.T
