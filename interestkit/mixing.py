"""One score for each item: those hidden that cannot be next, and new items beside repeats."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from interestkit.model import HIDDEN, Prediction


def hide(scores: Float[Array, "batch items"], codes: Int[Array, "batch codes"]):
    """Scores with those of some items set to `HIDDEN`; codes past the last item hide nothing."""
    return scores.at[jnp.arange(len(scores))[:, None], codes].set(HIDDEN, mode="drop")


def only_new(new: Float[Array, "batch items"], seen: tuple[Array, Array]):
    """As `mix_repeats`, of new items alone: `seen` are rows and codes that are left out."""
    new = new.at[seen].set(HIDDEN, mode="drop")
    new = jnp.where(new > HIDDEN / 2, new, -jnp.inf)
    total = jax.nn.logsumexp(new, axis=1)
    return new, jnp.where(total > -jnp.inf, total, 0.0)


def mix_repeats(
    new: Float[Array, "batch items"], said: Prediction
) -> tuple[Float[Array, "batch items"], Float[Array, " batch"]]:
    """Score of each item to be next, new or again; less the second array, its log-probability.

    The mixture of new and repeated items: log P(new) + log P(item | new) for items that the
    user has not had, log P(repeat) + log P(item | repeat) for those that they have.

    Args:
        new: What `InterestModel.score_new` says of all items; those `HIDDEN` come out as -inf.
        said: The prediction for the same moments.
    """
    rows = jnp.arange(len(new))[:, None]
    new = hide(new, said.repeat_items)
    new = jnp.where(new > HIDDEN / 2, new, -jnp.inf)
    total = jax.nn.logsumexp(new, axis=1)
    is_new = total > -jnp.inf
    odds, total = (jnp.where(is_new, part, 0.0) for part in (said.repeat_logit, total))
    new = new.at[rows, said.repeat_items].set(said.repeat + (odds + total)[:, None], mode="drop")
    return new, total + jnp.where(is_new, jax.nn.softplus(odds), 0.0)  # none new: a repeat
