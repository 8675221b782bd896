"""One step of private training, in parts: who takes part, clipped gradients, noise, the mean.

A released gradient is the sum of the gradients of some users, each clipped as a whole, plus
Gaussian noise, over the *expected* number of users (DP-SGD: Abadi et al. 2016,
doi:10.1145/2976749.2978318, with the user as the unit: McMahan et al. 2018, arXiv:1710.06963).
The arithmetic of clipping and noise is that of jax_privacy. Each part is a function of its own, so
that `audits.audit_private` can check them, and so that its tests can put wrong ones in their place.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

try:
    from jax_privacy import clipped_grad
    from jax_privacy.noise_addition import gaussian_privatizer
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "private training needs the package jax_privacy: pip install 'interestkit[privacy]'"
    ) from error


class Plan(NamedTuple):
    """The numbers of a run on which its privacy rests.

    Args:
        rate: Probability with which each user takes part in a step.
        clip_norm: Largest Euclidean norm of what one user adds to a step.
        noise_multiplier: Standard deviation of the noise, in clip norms.
        expected_users: What a noisy sum is divided by, whoever took part.
    """

    rate: float
    clip_norm: float
    noise_multiplier: float
    expected_users: float


class Problem(NamedTuple):
    """What is learnt, seen from one user at a time.

    Args:
        moments: Moments of a user's life that a step looks at.
        num_bits: Random numbers that each of them takes.
        shared: What all users of a step see alike, from a random key.
        loss: Of the parameters, the number of a user, the random bits (moments, num_bits) and what
            is shared: the user's mean loss over the moments.
    """

    moments: int
    num_bits: int
    shared: Callable
    loss: Callable


class StepKeys(NamedTuple):
    """Random keys of one step, none of which is used for anything else."""

    select: Array
    bits: Array
    shared: Array
    noise: Array


def step_keys(root: Array, number: Int[Array, ""]) -> StepKeys:
    """Keys of step `number`, different for each number and each root."""
    return StepKeys(*jax.random.split(jax.random.fold_in(root, number), len(StepKeys._fields)))


def select_users(
    key: Array, included: Bool[Array, " users"], room: int, rate: float
) -> tuple[Int[Array, " room"], Bool[Array, " room"]]:
    """Poisson sampling: each user takes part with probability `rate`, whoever else does.

    Of more users than there is room for the last ones are left out, which the accountant covers
    (`accounting.overflow_delta`).

    Returns:
        Numbers of users, and True where a place is empty.
    """
    takes_part = (jax.random.uniform(key, included.shape) < rate) & included
    places = jnp.nonzero(takes_part, size=room, fill_value=len(included))[0]
    return jnp.minimum(places, len(included) - 1), places == len(included)


def clipped_sum(loss: Callable, clip_norm: float) -> Callable:
    """The sum over users of their gradients, each scaled down to `clip_norm` where it is longer.

    Empty places add nothing, and neither does what is not a number.
    """
    summed = clipped_grad(
        loss, batch_argnums=(1, 2), l2_clip_norm=clip_norm, keep_batch_dim=False, nan_safe=True
    )

    def of(params, users, bits, shared, is_padding):
        with warnings.catch_warnings():  # jax_privacy 2.0 calls what Optax has renamed
            warnings.filterwarnings("ignore", "optax.global_norm", DeprecationWarning)
            return summed(params, users, bits, shared, is_padding_example=is_padding)

    return of


def add_noise(key: Array, total, stddev: Float[Array, ""]):
    """The sum with independent Gaussian noise on each number of it."""
    privatizer = gaussian_privatizer(stddev=stddev, prng_key=key)
    return privatizer.update(total, privatizer.init(total))[0]


def mean_of(noisy, expected_users: Float[Array, ""]):
    """The noisy sum over the expected number of users, which tells nothing of who took part."""
    return jax.tree.map(lambda array: array / expected_users, noisy)


class Parts(NamedTuple):
    """The parts of a step; these are the right ones."""

    keys: Callable = step_keys
    select: Callable = select_users
    clipped_sum: Callable = clipped_sum
    noise: Callable = add_noise
    mean: Callable = mean_of


def private_gradient(
    parts: Parts,
    problem: Problem,
    room: int,
    plan: Plan,
    params,
    included: Bool[Array, " users"],
    root: Array,
    number: Int[Array, ""],
):
    """The released gradient of step `number`: all that later steps know of the users.

    Of the users those `included` are there at all; `root`, the key of the run, must stay secret.
    """
    keys = parts.keys(root, number)
    users, is_padding = parts.select(keys.select, included, room, plan.rate)
    bits = jax.random.bits(keys.bits, (room, problem.moments, problem.num_bits))
    total = parts.clipped_sum(problem.loss, plan.clip_norm)(
        params, users, bits, problem.shared(keys.shared), is_padding
    )
    noisy = parts.noise(keys.noise, total, plan.noise_multiplier * plan.clip_norm)
    return parts.mean(noisy, plan.expected_users)
