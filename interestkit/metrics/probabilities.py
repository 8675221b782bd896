"""Predicted probabilities against the shares of what users then did."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, Int

from interestkit.limits import check_counts
from interestkit.metrics._checks import PerUser, Shares, check_lengths, checked_shares, ratio


class Reliability(NamedTuple):
    """A reliability diagram: what stands in each bin of confidence.

    Args:
        count: Users in each bin.
        confidence: Mean confidence of the bin; NaN where it is empty.
        accuracy: Mean accuracy of the bin; NaN where it is empty.
    """

    count: Int[Array, " bins"]
    confidence: Float[Array, " bins"]
    accuracy: Float[Array, " bins"]


def log_loss(probabilities: Shares, shares: Shares) -> PerUser:
    """Cross-entropy of predicted interests against the shares of a user's events, in nats.

    The value is -sum over labels of share * ln(probability), with 0 * ln(0) = 0. It is infinite
    where a label occurs that was given probability 0: a baseline needs smoothing.
    Source: Good (1952), J. R. Stat. Soc. B 14(1), doi:10.1111/j.2517-6161.1952.tb00104.x.

    Args:
        probabilities: Predicted, >= 0; each row sums to 1 (within 0.001).
        shares: Observed, >= 0; each row sums to 1, or to 0 for a user without any: undefined.

    Example:
        >>> print(f"{log_loss(jnp.array([[0.25, 0.75]]), jnp.array([[1.0, 0.0]]))[0]:.3f}")
        1.386
    """
    probabilities, shares = _checked_pair(probabilities, shares)
    return jnp.where(shares.any(axis=1), -xlogy(shares, probabilities).sum(axis=1), jnp.nan)


def reliability(probabilities: Shares, shares: Shares, *, num_bins: int = 15) -> Reliability:
    """Users by their confidence, with the mean confidence and accuracy of each bin.

    A user's confidence is the probability of the label predicted first (of equals the lowest
    code). The accuracy is that label's share of the user's events: 1 or 0 for a user with one
    correct label, and between them for several, since probabilities predict shares. Bin m of
    num_bins holds confidences in ((m - 1) / num_bins, m / num_bins].
    Source: Guo et al. (2017), ICML, PMLR 70, pages 1321-1330.

    Args:
        probabilities: As for `log_loss`.
        shares: As for `log_loss`; a user without any is left out.
        num_bins: Bins of equal width, >= 1.

    Example:
        >>> probabilities = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
        >>> shares = jnp.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
        >>> print(*reliability(probabilities, shares, num_bins=2))
        [0 2] [ nan 0.85] [ nan 0.75]
    """
    probabilities, shares = _checked_pair(probabilities, shares)
    check_counts(1, num_bins=num_bins)
    first = probabilities.argmax(axis=1)[:, None]
    confidence = jnp.take_along_axis(probabilities, first, axis=1)
    accuracy = jnp.take_along_axis(shares, first, axis=1)
    inner_edges = jnp.asarray(np.arange(1, num_bins) / num_bins, confidence.dtype)
    place = jnp.searchsorted(inner_edges, confidence)
    is_inside = (place == jnp.arange(num_bins)[None, :]) & shares.any(axis=1)[:, None]
    count = is_inside.sum(axis=0)
    sums = [jnp.where(is_inside, values, 0.0).sum(axis=0) for values in (confidence, accuracy)]
    return Reliability(count, ratio(sums[0], count), ratio(sums[1], count))


def expected_calibration_error(
    probabilities: Shares, shares: Shares, *, num_bins: int = 15
) -> Float[Array, ""]:
    """Mean over users of |accuracy - confidence| of their bin of `reliability`, in [0, 1].

    0 where the confidence of each bin comes true; NaN where no user has shares. It grows with
    num_bins, so compare values of equal bins only. Arguments: as `reliability`.
    Source: Naeini, Cooper and Hauskrecht (2015), AAAI, doi:10.1609/aaai.v29i1.9602.

    Example:
        >>> probabilities = jnp.array([[0.9, 0.1], [0.2, 0.8]])  # |1 - 0.9|, |0 - 0.8|
        >>> print(expected_calibration_error(probabilities, jnp.array([[1.0, 0.0], [1.0, 0.0]])))
        0.45
    """
    count, confidence, accuracy = reliability(probabilities, shares, num_bins=num_bins)
    gaps = jnp.where(count > 0, abs(accuracy - confidence), 0.0)
    return ratio((count * gaps).sum(), count.sum())


def _checked_pair(probabilities, shares) -> tuple[Array, Array]:
    probabilities = checked_shares("probabilities", probabilities)
    shares = checked_shares("shares", shares, may_be_empty=True)
    for axis, name in enumerate(("users", "labels")):
        check_lengths(name, probabilities=probabilities.shape[axis], shares=shares.shape[axis])
    return probabilities, shares
