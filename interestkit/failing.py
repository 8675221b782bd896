"""Training that cannot go on says why: what was no finite number, or what took the memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from interestkit.devices import DATA
from interestkit.examples import TrainingConfig
from interestkit.model import ModelConfig


class TrainingDiverged(FloatingPointError):
    """A loss or a weight is no finite number any more.

    Attributes:
        epoch: The epoch, from 1 on.
        step: Its first step with such a number, from 1 on; 0 if it was not found again.
        batch: Names of the users whose moments the step drew, a row each.
        rows: Rows of the batch, from 0 on, whose own loss or gradient is no finite number.
        result: The `FitResult` of the epochs before; None in the first. A checkpoint has it too.
    """

    def __init__(self, text: str, *, epoch: int = 0, step: int = 0, batch=(), rows=()):
        super().__init__(text)
        self.epoch, self.step, self.batch, self.rows = epoch, step, list(batch), list(rows)
        self.result = None

    @property
    def users(self) -> list[str]:
        """Names of the users of `rows`, each once."""
        return list(dict.fromkeys(self.batch[row] for row in self.rows))


class Steps(NamedTuple):
    """One epoch taken apart.

    Args:
        step: (state, what a step drew) -> (state, losses).
        loss: (weights, batch, candidates, parts, bits) -> (loss, losses).
        inputs: What a step drew -> the inputs of `loss` after the weights.
        drawn: What each step drew, side by side.
        next_key: Data of the random key of the next epoch.
    """

    step: Callable
    loss: Callable
    inputs: Callable
    drawn: tuple
    next_key: Array


def all_finite(tree) -> Bool[Array, ""]:
    """Inside a program: whether all numbers are finite.

    Example:
        >>> all_finite([jnp.ones(2), jnp.arange(2)]), all_finite(jnp.array([1, jnp.inf]))
        (Array(True, dtype=bool), Array(False, dtype=bool))
    """
    return jnp.stack([jnp.isfinite(array).all() for array in jax.tree.leaves(tree)]).all()


class Found(NamedTuple):
    """Where an epoch has its first number that is not finite.

    Args:
        is_found: Whether it has one.
        step: Its step, from 0 on.
        is_bad: Rows of the batch whose own loss or gradient is not finite.
        start: Place of the first event of the user of each row.
    """

    is_found: Bool[Array, ""]
    step: Int[Array, ""]
    is_bad: Bool[Array, " batch"]
    start: Int[Array, " batch"]


@partial(jax.jit, static_argnums=(0, 1, 2))
def first_failure(
    take_apart: Callable[..., Steps],
    shape: ModelConfig,
    config: TrainingConfig,
    rates,
    state,
    *data,
) -> Found:
    """Where an epoch fails, found by drawing it again.

    `take_apart` gives the `Steps` of all that comes after it, `state` being that before the epoch,
    and `rates` the settings that are no part of the program.
    """
    steps = take_apart(shape, config, rates, state, *data)

    def watched(carry, drawn):
        last, is_fine = carry
        after, losses = steps.step(last, drawn)
        is_fine &= all_finite((after, losses))
        return (jax.tree.map(partial(jnp.where, is_fine), after, last), is_fine), is_fine

    (last, is_fine), fine = jax.lax.scan(watched, (state, jnp.bool(True)), steps.drawn)
    at = jnp.argmin(fine)
    batch, candidates, parts, bits = steps.inputs(
        jax.tree.map(lambda array: array[at], steps.drawn)
    )
    mesh = jax.sharding.get_abstract_mesh()
    copies = 1 if mesh.empty else mesh.shape[DATA]

    def is_bad(row):
        own, own_bits = jax.tree.map(lambda array: array[jnp.full(copies, row)], (batch, bits))
        gradient = jax.grad(steps.loss, has_aux=True)
        return ~all_finite(gradient(last.params, own, candidates, parts, own_bits))

    rows = jax.lax.map(is_bad, jnp.arange(config.batch_size))
    return Found(~is_fine, at, rows, batch[0].start)


def diverged(
    epoch: int, found: Found, config: TrainingConfig, users_at: Callable[[np.ndarray], list[str]]
) -> TrainingDiverged:
    """The error that says where; `users_at` names the users whose first events are at places."""
    found, lower = jax.tree.map(np.asarray, found), f"lower learning_rate={config.learning_rate}"
    text = f"training diverged in epoch {epoch}"
    if not found.is_found:
        return TrainingDiverged(f"{text}; {lower}", epoch=epoch)
    step, batch = int(found.step) + 1, users_at(found.start)
    rows = np.flatnonzero(found.is_bad).tolist()
    where = _where(rows, batch)
    text += f", step {step} of {config.steps}: {where}{lower}"
    return TrainingDiverged(text, epoch=epoch, step=step, batch=batch, rows=rows)


def _where(rows: list[int], batch: list[str]) -> str:
    what = "loss or gradient is no finite number"
    if not rows:
        return "the loss and gradient of each row are finite, the update is not; "
    if len(rows) == len(batch):
        return f"the {what} in each of the {len(batch)} rows of its batch; "
    users = _some(list(dict.fromkeys(batch[row] for row in rows)))
    of = f"rows {_some(rows)} of the {len(batch)} in its batch, users {users}"
    return f"the {what} in {of}; look at their events, or "


def _some(found: list) -> str:
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(map(repr, found[:5])) + more


@contextmanager
def advice_on_memory(config: TrainingConfig, shape: ModelConfig, *, in_shards: bool) -> Iterator:
    """A context whose errors of memory, of host and device, say which settings take less.

    Raises:
        MemoryError: If memory was not enough.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        batch = {name: getattr(config, name) for name in ("batch_size", "num_sampled")}
        lengths = ("history_length", "repeat_length")
        batch |= {name: getattr(shape, name) for name in lengths}
        items = f"item_dim={shape.item_dim} (of {shape.num_items:,} items, thrice)"
        log = "a log that is too large goes into write_shards"
        if in_shards:
            log = f"more of smaller shards, or shards_at_once={config.shards_at_once}"
        raise MemoryError(
            "training needs more memory than there is; what takes it, to be made smaller: "
            f"{', '.join(f'{name}={value}' for name, value in batch.items())}; {items}, or "
            f"mesh=make_mesh(model=...) to divide them over devices; {log}"
        ) from error
