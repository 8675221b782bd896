"""What training minimises: cross-entropies of new items, repeats, which of them, and interests."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from interestkit.devices import DATA, MODEL, spread
from interestkit.devices import rows as rows_of
from interestkit.mixing import hide
from interestkit.model import HIDDEN, Catalogue, Log, graphdef

LOSSES = ("loss_new", "loss_repeat", "loss_gate", "loss_interests")


def total_loss(
    params, shape, config, log: Log, catalogue: Catalogue, batch, candidates, parts, bits=None
):
    """Mean cross-entropy per target, in nats: new item, repeated item, which of them, interests."""
    moment, stop = batch
    model = nnx.merge(graphdef(shape), params)
    steps = shape.has_layers and config.sequence_weight > 0
    said = model(log, catalogue, moment, parts=parts, bits=bits, steps=steps)
    at = moment.end[:, None] + jnp.arange(config.num_targets)[None, :]
    is_real = at < stop[:, None]
    target = log.item[jnp.minimum(at, len(log.item) - 1)]
    is_real &= rows_of(catalogue.is_candidate, target)
    same = target[:, :, None] == said.repeat_items[:, None, :]
    is_repeat = same.any(axis=2) & is_real
    is_new = is_real & ~is_repeat
    repeat = gate = jnp.zeros(target.shape)
    if shape.can_repeat:
        repeat = -jnp.where(same, said.repeat[:, None, :], 0.0).sum(axis=2)
        odds = said.repeat_logit[:, None]
        gate = -jax.nn.log_sigmoid(jnp.where(is_repeat, odds, -odds))
    new = _new_item_loss(model, said, catalogue, target, is_new, candidates, parts)
    shares = _target_shares(shape, catalogue, target, is_real)
    has_target = jnp.maximum(is_real.sum(axis=1), 1)
    losses = jnp.stack(
        [
            ((new * is_new).sum(axis=1) / has_target).mean(),
            ((repeat * is_repeat).sum(axis=1) / has_target).mean(),
            ((gate * is_real).sum(axis=1) / has_target).mean(),
            -(shares * said.interests).sum(axis=1).mean(),
        ]
    )
    total = losses @ jnp.array([1.0, 1.0, 1.0, config.interest_weight])
    if steps:
        of_steps = _loss_of_steps(model, said.steps, catalogue, candidates, parts)
        total += config.sequence_weight * of_steps
    return total, losses


def _new_item_loss(model, said, catalogue, target, is_new, candidates, parts):
    """Cross-entropy of each new target among candidates and the other targets, in nats."""
    num_items, is_candidate = len(catalogue.is_candidate), catalogue.is_candidate
    if candidates is None:
        slot = jnp.arange(num_items + 1)
        others = model.score_new(said, catalogue, None, parts=parts)
    else:
        codes, log_drawn = candidates
        slot = jnp.full(num_items + 1, len(codes), jnp.int32).at[codes].set(jnp.arange(len(codes)))
        others = model.score_new(said, catalogue, codes, parts=parts) - log_drawn[None, :]
        is_candidate = rows_of(is_candidate, codes)
    others = jnp.where(is_candidate[None, :], others, HIDDEN)
    known = jnp.concatenate([said.repeat_items, jnp.where(is_new, target, num_items)], axis=1)
    others = hide(others, slot[known])
    own = model.score_targets(said, catalogue, target, parts=parts)
    earlier = jnp.tril(target[:, :, None] == target[:, None, :], k=-1) & is_new[:, None, :]
    distinct = jnp.where(is_new & ~earlier.any(axis=2), own, HIDDEN)
    others = spread(others, DATA, MODEL)
    total = jnp.logaddexp(jax.nn.logsumexp(others, axis=1), jax.nn.logsumexp(distinct, axis=1))
    return jnp.where(is_new, total[:, None] - own, 0.0)


def _target_shares(shape, catalogue: Catalogue, target, is_real) -> Float[Array, "batch interests"]:
    """Share of each interest in the target events; zeros where none has a label."""
    codes = rows_of(catalogue.interest_codes, target).reshape(len(target), -1)
    parts = (rows_of(catalogue.interest_shares, target) * is_real[..., None]).reshape(codes.shape)
    rows = jnp.arange(len(target))[:, None]
    sums = jnp.zeros((len(target), shape.num_interests)).at[rows, codes].add(parts, mode="drop")
    return sums / jnp.maximum(sums.sum(axis=1, keepdims=True), 1e-6)


def _loss_of_steps(model, steps, catalogue: Catalogue, candidates, parts) -> Float[Array, ""]:
    """Mean cross-entropy of what came after each event of the windows, in nats.

    As at the moment itself, it is that of an item that is new to the window, among the same
    candidates. An event at the time of the one before it is left out: it was not the next moment.
    """
    num_items, user = len(catalogue.is_candidate), steps.user[:, 1:]
    snapshot = catalogue.snapshot_at(steps.seconds[:, :-1])
    tables = (catalogue.is_candidate, catalogue.popularity, model.item_bias[...])
    codes, log_drawn = (None, jnp.zeros(num_items)) if candidates is None else candidates
    if codes is not None:
        tables = (spread(rows_of(table, codes), MODEL) for table in tables)
    is_candidate, popularity, bias = tables
    prior = _common_prior(model, popularity).T[snapshot] + bias[None, None, :]
    others = _products(model, "bld,cd->blc", user, model.vectors(catalogue, parts, codes))
    others += parts[0] * prior - log_drawn[None, None, :]
    others = jnp.where(is_candidate[None, None] & ~_had(steps, codes, num_items), others, HIDDEN)
    others = spread(others, DATA, None, MODEL)
    target = jnp.minimum(steps.item[:, :-1], num_items - 1)
    prior = _common_prior(model, rows_of(catalogue.popularity, target, snapshot))
    own = _products(model, "bld,bld->bl", user, model.vectors(catalogue, parts, target))
    own += parts[0] * (prior + rows_of(model.item_bias[...], target))
    loss = jnp.logaddexp(jax.nn.logsumexp(others, axis=2), own) - own
    is_target = _first_times(steps, num_items) & rows_of(catalogue.is_candidate, target)
    return jnp.where(is_target, loss, 0.0).sum() / jnp.maximum(is_target.sum(), 1)


def _had(steps, codes, num_items: int) -> Bool[Array, "batch steps candidates"]:
    """Whether a candidate is what came next, or among the events of the window before it."""
    length = steps.item.shape[1]
    codes = jnp.arange(num_items) if codes is None else codes
    place = jnp.full(num_items + 1, len(codes), jnp.int32).at[codes].set(jnp.arange(len(codes)))
    rows, age = jnp.arange(len(steps.item))[:, None], jnp.arange(length)[None, :]
    oldest = jnp.full((len(steps.item), len(codes)), -1)  # event with it, from the newest on
    oldest = oldest.at[rows, place[steps.item]].max(age, mode="drop")
    return oldest[:, None, :] >= age[..., :-1, None]


def _first_times(steps, num_items: int) -> Bool[Array, "batch events"]:
    """Whether each event but the oldest has an item new to the window, later than all before."""
    item, seconds = steps.item, steps.seconds
    older = jnp.triu(jnp.ones((item.shape[1] - 1, item.shape[1]), bool), k=1)
    is_again = ((item[:, :-1, None] == item[:, None, :]) & older[None]).any(axis=2)
    is_later = seconds[:, 1:] < seconds[:, :-1]
    return (item[:, 1:] < num_items) & is_later & ~is_again


def _common_prior(model, popularity):
    """What popularity says of items with the weights that it has for everybody."""
    known, trend = model.popularity_signals(popularity)
    weight = model.popularity_weight.bias[...]
    return known @ weight[:-1] + trend * weight[-1]


def _products(model, how: str, user, vectors):
    """Products of vectors, in the numbers that the layers compute with."""
    dtype = model.config.dtype
    user, vectors = user.astype(dtype), vectors.astype(dtype)
    return jnp.einsum(how, user, vectors, preferred_element_type=jnp.float32)
