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

from interestkit.lazy import lazy_names
from interestkit.ranking import top_k

_MODULE_OF = {
    "calibration": "lists",
    "catalogue_coverage": "lists",
    "gini": "lists",
    "interest_coverage": "lists",
    "intra_list_diversity": "lists",
    "novelty": "lists",
    "serendipity": "lists",
    "user_coverage": "lists",
    "Reliability": "probabilities",
    "expected_calibration_error": "probabilities",
    "log_loss": "probabilities",
    "reliability": "probabilities",
    "accuracy": "relevance",
    "alpha_dcg_at_k": "relevance",
    "alpha_ndcg_at_k": "relevance",
    "average_precision_at_k": "relevance",
    "graded_ndcg_at_k": "relevance",
    "hit_rate_at_k": "relevance",
    "ideal_alpha_dcg_at_k": "relevance",
    "ndcg_at_k": "relevance",
    "novel_hits": "relevance",
    "precision_at_k": "relevance",
    "recall_at_k": "relevance",
    "reciprocal_rank_at_k": "relevance",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _MODULE_OF)
__all__ += ["top_k"]
