"""Metrics on arrays: one value per user where a user has one, averaged only by `evaluation`.

What holds for all of them, and is not said again in each:

- NumPy and JAX arrays are both welcome; results are JAX arrays. Ranks run from best to worst.
- A negative code is an empty place. NaN means undefined: leave that user out of the mean.
- `num_relevant` counts a user's held-out relevant items, recommended or not; a user without
  any is undefined, and a user who was recommended nothing scores 0.
- ValueError names the argument, what is allowed and what came: for a wrong type or axis, for
  axes of one name and different lengths, and for a value outside the limits stated in `Args`.
  Inside `jit` values are not known yet, so only types and shapes are checked there.

`docs/metrics.md` says what other packages define otherwise.
"""

from interestkit.metrics.lists import (
    calibration,
    catalogue_coverage,
    gini,
    interest_coverage,
    intra_list_diversity,
    novelty,
    serendipity,
    user_coverage,
)
from interestkit.metrics.probabilities import (
    Reliability,
    expected_calibration_error,
    log_loss,
    reliability,
)
from interestkit.metrics.relevance import (
    accuracy,
    alpha_dcg_at_k,
    alpha_ndcg_at_k,
    average_precision_at_k,
    graded_ndcg_at_k,
    hit_rate_at_k,
    ideal_alpha_dcg_at_k,
    ndcg_at_k,
    novel_hits,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
)
from interestkit.ranking import top_k

__all__ = [
    "Reliability",
    "accuracy",
    "alpha_dcg_at_k",
    "alpha_ndcg_at_k",
    "average_precision_at_k",
    "calibration",
    "catalogue_coverage",
    "expected_calibration_error",
    "gini",
    "graded_ndcg_at_k",
    "hit_rate_at_k",
    "ideal_alpha_dcg_at_k",
    "interest_coverage",
    "intra_list_diversity",
    "log_loss",
    "ndcg_at_k",
    "novel_hits",
    "novelty",
    "precision_at_k",
    "recall_at_k",
    "reciprocal_rank_at_k",
    "reliability",
    "serendipity",
    "top_k",
    "user_coverage",
]
