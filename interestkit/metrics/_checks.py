"""What every metric asks of its arrays, and the types that their signatures share."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from interestkit.limits import check_up_to

Hits = Bool[Array, "users ranks"]
Codes = Int[Array, "users ranks"]
Counts = Int[Array, " users"]
Shares = Float[Array, "users labels"]
PerUser = Float[Array, " users"]


def checked(name: str, array, kind, axes: str) -> Array:
    """`array` as a JAX array, if it is of that kind, has those axes and its whole numbers fit."""
    if not isinstance(array, jax.Array):
        array = np.asarray(array)
    if isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
        beyond = array[(array < limits.min) | (array > limits.max)]  # JAX would wrap them
        if beyond.size:
            raise ValueError(f"{name} must be in {limits.min}..{limits.max}, got {beyond[0]}")
    array = jnp.asarray(array)
    if not isinstance(array, kind[Array, axes]):
        allowed = f"{kind.__name__} with axes ({axes})"
        raise ValueError(f"{name} must be {allowed}, got {array.dtype} of shape {array.shape}")
    return array


def checked_codes(name: str, codes, num_codes: int) -> Array:
    """The codes, if each is below `num_codes`; a negative one is an empty place."""
    codes = checked(name, codes, Int, "users ranks")
    check_values(name, codes, codes < num_codes, f"codes below {num_codes}")
    return codes


def check_lengths(axis: str, **lengths: int) -> None:
    """Raise unless the axis is as long in all arrays, given as name=length."""
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the number of {axis} must be the same, got {lengths}")


def check_k(k: int, num_ranks: int) -> None:
    """Raise unless k is in 1..num_ranks."""
    check_up_to(num_ranks, "the ranks given", k=k)


def check_values(name: str, values: Array, is_fine: Array, allowed: str) -> None:
    """Raise at the first value that is not fine; inside `jit` values are not known."""
    if not isinstance(is_fine, jax.core.Tracer) and not is_fine.all():
        place = np.argwhere(~np.asarray(is_fine))[0].tolist()
        raise ValueError(f"{name} must be {allowed}, got {values[tuple(place)]} at {place}")


def check_amounts(name: str, values: Array) -> None:
    """Raise unless all values are finite and >= 0."""
    check_values(name, values, (values >= 0) & (values < jnp.inf), "finite and >= 0")


def checked_shares(name: str, shares, *, may_be_empty: bool = False) -> Array:
    """The table of shares, if each row is >= 0 and sums to 1, or to 0 where it may be empty."""
    shares = checked(name, shares, Float, "users labels")
    check_amounts(name, shares)
    sums = shares.sum(axis=1)
    is_fine = (abs(sums - 1) < 1e-3) | ((sums == 0) & may_be_empty)
    check_values(f"sum of {name}", sums, is_fine, "1 or 0" if may_be_empty else "1")
    return shares


def ratio(part: Array, whole: Array) -> Array:
    """part / whole, and NaN where whole is 0."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)


def judged(hits, num_relevant, k: int) -> tuple[Array, Array]:
    """Ranks 1..k of the hits as numbers, and the number of relevant items, both checked."""
    hits = checked("hits", hits, Bool, "users ranks")
    num_relevant = checked("num_relevant", num_relevant, Int, "users")
    check_lengths("users", hits=hits.shape[0], num_relevant=num_relevant.shape[0])
    check_k(k, hits.shape[1])
    check_values("num_relevant", num_relevant, num_relevant >= hits.sum(axis=1), ">= the hits")
    return hits[:, :k].astype(float), num_relevant
