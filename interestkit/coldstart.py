"""Users of whom little is known: whose lists they get, chosen on a part that is held out."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from interestkit.baselines import Ranker, found_by
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.limits import check_counts
from interestkit.metrics import ndcg_at_k


@dataclass(frozen=True, kw_only=True, eq=False)
class ColdStart:
    """A model for those who are known, and another ranker for those who are not.

    Args:
        model: Ranks for users with at least `min_events`.
        fallback: Ranks for the others, such as `baselines.Popular`.
        min_events: Events of a history from which on the model is asked; 0 asks it always.
    """

    model: Ranker
    fallback: Ranker
    min_events: int

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes and scores of the k best items of each user, as the ranker that is asked says."""
        rankers = (self.model, self.fallback)
        return self._either(
            histories, *(each.rank(histories, k=k, exclude_seen=exclude_seen) for each in rankers)
        )

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest."""
        rankers = (self.model, self.fallback)
        return self._either(histories, *((each.interests(histories),) for each in rankers))[0]

    def _either(self, histories: Histories, known: tuple, cold: tuple) -> tuple:
        is_cold = (histories.lengths < self.min_events)[:, None]
        pairs = zip(known, cold, strict=True)
        return tuple(np.where(is_cold, other, own) for own, other in pairs)


def cold_start(
    model: Ranker, fallback: Ranker, truth: HeldOut, *, most_events: int = 6, k: int = 10
) -> ColdStart:
    """The model with a fallback for histories that are too short for it, as held-out users tell.

    The histories of these users are cut to their newest 0, 1, ... `most_events` - 1 events, and
    model and fallback are judged by the mean of NDCG at k, items that the user had included. The
    fallback takes all histories up to the longest for which it is ahead.

    Args:
        model: The model.
        fallback: What to ask instead.
        truth: The validation part, and a model that was fitted before it. For the final model keep
            `min_events` alone: `ColdStart(model=final, fallback=..., min_events=...)`.
        most_events: Longest history, plus one, that may be left to the fallback; at least 1.
        k: Length of lists.

    Raises:
        ValueError: If `most_events` is below 1, or `truth` is the test part or has no later items.

    Example:
        >>> import interestkit as ik
        >>> split = ik.temporal_split(ik.clean(ik.simulate(num_users=300, seed=1))[0], min_judged=0)
        >>> features = ik.fit_features(split.train, split.items)
        >>> data = {"features": features, "log": features.histories(split.train)}
        >>> own, popular = ik.MostFrequent(**data), ik.Popular(**data)
        >>> cold_start(own, popular, ik.held_out(features, split, "validation")).min_events
        0
    """
    check_counts(1, most_events=most_events)
    truth.check_may_choose(what="truth")
    if not truth.num_relevant().any():
        raise ValueError("truth must hold a user with later items, got none")
    found = ColdStart(model=model, fallback=fallback, min_events=0)
    for count in range(most_events):
        known = replace(truth, histories=truth.histories.newest(count))
        if _mean_ndcg(fallback, known, k) > _mean_ndcg(model, known, k):
            found = replace(found, min_events=count + 1)
    return found


def _mean_ndcg(ranker: Ranker, truth: HeldOut, k: int) -> float:
    return float(np.nanmean(ndcg_at_k(*found_by(ranker, truth, k=k), k=k)))
