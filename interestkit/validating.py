"""How good weights are while they are trained: scores on validation users, on the device."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from interestkit.counting import power_of_two
from interestkit.devices import DATA, place, spread
from interestkit.examples import TrainingConfig, log_arrays
from interestkit.features import Features
from interestkit.heldout import HeldOut
from interestkit.metrics import graded_ndcg_at_k, ndcg_at_k
from interestkit.mixing import mix_repeats, only_new
from interestkit.model import HIDDEN, PARTS, Catalogue, ModelConfig, Moment, graphdef
from interestkit.packing import Packed, unpack
from interestkit.ranking import top_k

VALIDATION_BLOCK = 128  # users scored at a time
SCORES = ("ndcg@10", "ndcg@10_new", "interest_ndcg@3")


def validator(
    shape: ModelConfig,
    features: Features,
    catalogue: Catalogue,
    validation: HeldOut,
    config: TrainingConfig,
    mesh: Mesh | None = None,
) -> Callable[[Packed], Float[Array, " scores"]]:
    """A function from weights to the mean validation scores, named in `SCORES`.

    Scores are of `config.validation_users` users, drawn where there are more. `catalogue` is on the
    device.

    Raises:
        ValueError: If nobody has a later item.
    """
    log = log_arrays(validation.histories, features.scales_days, can_repeat=shape.can_repeat)
    log = place(log, mesh)
    users = np.arange(len(validation))
    if len(users) > config.validation_users:
        users = np.sort(np.random.default_rng(0).choice(users, config.validation_users, False))
    if not validation.num_relevant()[users].any():
        raise ValueError("validation must hold a user with a later item, got none")
    blocks = -(-len(users) // VALIDATION_BLOCK)
    is_real = np.arange(blocks * VALIDATION_BLOCK) < len(users)
    users = np.resize(users, blocks * VALIDATION_BLOCK)
    histories, pairs = validation.histories, validation.relevant.filter(pl.col("code") >= 0)
    moment = Moment(histories.offsets[users], histories.offsets[users + 1], histories.moment[users])
    truth = {
        "codes": _padded(pairs["user_code"], pairs["code"], len(validation))[users],
        "num": validation.num_relevant()[users],
        "num_new": validation.num_relevant(new_only=True)[users],
        "shares": validation.interest_shares[users],
    }
    in_blocks = jax.tree.map(
        lambda array: array.reshape(blocks, VALIDATION_BLOCK, *array.shape[1:]),
        (moment, truth, is_real),
    )
    longest, in_blocks = power_of_two(int(histories.lengths.max())), place(in_blocks, mesh)
    return lambda params: _validate(shape, longest, params, log, catalogue, in_blocks)


def _padded(row: pl.Series, code: pl.Series, num_rows: int) -> Int[np.ndarray, "rows codes"]:
    """Codes of each row side by side, padded with -2."""
    row, code = row.to_numpy(), code.to_numpy()
    order = np.argsort(row, kind="stable")
    row, code = row[order], code[order]
    count = np.bincount(row, minlength=num_rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    table = np.full((num_rows, max(count.max(initial=0), 1)), -2, np.int32)
    table[row, place] = code
    return table


@partial(jax.jit, static_argnums=(0, 1))
def _validate(
    shape: ModelConfig, seen_length: int, params, log, catalogue, in_blocks
) -> Float[Array, " scores"]:
    model = nnx.merge(graphdef(shape), unpack(shape, params))

    def block(inputs):
        moment, truth, is_real = spread(inputs, DATA)
        parts = jnp.array(PARTS["hybrid"])
        said = model(log, catalogue, moment, parts=parts)
        new = model.score_new(said, catalogue, None, parts=parts)
        new = jnp.where(catalogue.is_candidate[None, :], new, HIDDEN)
        at, is_past = moment.newest(seen_length)
        seen = (jnp.arange(len(new))[:, None], jnp.where(is_past, log.item[at], new.shape[1]))
        both = jnp.concatenate([mix_repeats(new, said)[0], only_new(new, seen)[0]])
        codes = top_k(both, min(10, shape.num_items))[1].reshape(2, len(new), -1)
        hits = (codes[..., None] == truth["codes"][None, :, None, :]).any(axis=3)
        num = jnp.concatenate([truth["num"], truth["num_new"]])
        ndcg = ndcg_at_k(hits.reshape(len(both), -1), num, k=hits.shape[2])
        _, labels = top_k(said.interests, min(3, shape.num_interests))
        gains = jnp.take_along_axis(truth["shares"], labels, axis=1)
        of_labels = graded_ndcg_at_k(gains, truth["shares"], k=labels.shape[1])
        values = jnp.concatenate([ndcg, of_labels]).reshape(len(SCORES), -1)
        return jnp.where(is_real[None, :], values, jnp.nan)

    values = jax.lax.map(block, in_blocks)
    return jnp.nanmean(values, axis=(0, 2))
