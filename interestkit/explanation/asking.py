"""A model asked about changed histories of many users at once: events left out, events scaled.

What is asked for is a row of log-probabilities: of all interests, or of some new items of each
user. One program goes through a block of users; histories are padded to one of two lengths.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from interestkit.counting import pad
from interestkit.histories import Histories
from interestkit.model import HIDDEN, LEAST_SUM, LEAST_WEIGHT, PARTS, InterestModel
from interestkit.prediction import Predictor
from interestkit.records import Catalogue, Log, Moment, Prediction, Summary
from interestkit.trying import light

BLOCK = 32  # users that one call of a program goes through
ROOMS = (64, 512)  # events that there is room for; all but the newest 512 are left out
_POINTS, _WEIGHTS = (np.polynomial.legendre.leggauss(3)[n].astype(np.float32) for n in (0, 1))
# Pieces of a path at least, cells in which units that switch are looked for, and room for those
# that do: at first, and where attributions then do not add up.
FINENESS = (
    {"panels": 32, "cells": 128, "switches": 256},
    {"panels": 128, "cells": 1024, "switches": 512},
)
_BEND = 4  # points of a path lie closer where it begins: the model bends most there
_PIECE = 32  # rows that are computed at once; pieces that are all padding are not


class Users(NamedTuple):
    """Some users, their newest events from the oldest on, and what is asked about each."""

    item: Int[Array, "users events"]
    seconds: Int[Array, "users events"]
    weight: Float[Array, "users events"]
    number: Int[Array, " users"]  # of the events that are no padding
    moment: Int[Array, " users"]
    codes: Int[Array, "users candidates"]  # items asked about, -1 none; (users, 0): interests
    target: Int[Array, " users"]  # place in the row of log-probabilities


class Asked:
    """A model made ready to be asked about many changed histories.

    Args:
        predictor: The model.
    """

    def __init__(self, predictor: Predictor) -> None:
        ready = light(predictor)
        config = ready.model.config
        self.most_events = min(config.repeat_length, ROOMS[-1])
        self._catalogue, self._parts = ready.catalogue, []
        self.linear = predictor.linear if PARTS[predictor.mode][0] else None
        for room in ROOMS:
            ready.model.config = replace(config, can_repeat=False, repeat_length=room)
            self._parts.append(nnx.split(ready.model))

    def blocks(
        self,
        histories: Histories,
        codes: Int[np.ndarray, "users candidates"],
        target: Int[np.ndarray, " users"],
        size: int = BLOCK,
    ) -> Iterator[tuple[Int[np.ndarray, " users"], int, Users]]:
        """Users block by block: their numbers, which of `ROOMS` they have, and the padded block."""
        lengths = np.minimum(histories.lengths, self.most_events)
        place = int(np.searchsorted(ROOMS, lengths.max(initial=0)))
        for first in range(0, len(histories), size):
            rows = np.arange(first, min(first + size, len(histories)))
            at = (histories.offsets[rows + 1] - lengths[rows])[:, None]
            at = np.minimum(at + np.arange(ROOMS[place])[None, :], len(histories.item) - 1)
            events = (histories.item, histories.seconds, histories.weight)
            parts = [a[at] if len(a) else np.zeros(at.shape, a.dtype) for a in events]
            parts += [lengths[rows], histories.moment[rows], codes[rows], target[rows]]
            yield rows, place, Users(*(pad(np.asarray(part), size) for part in parts))

    def ask(self, program: Callable, place: int, users: Users, *given, **settings):
        """What a program of this module says of a block of users."""
        graph, state = self._parts[place]
        return program(graph, state, self._catalogue, users, *given, **settings)


def places(histories: Histories, rows, users: Users):
    """Events of a block that are no padding, and where they stand in the histories.

    Returns:
        True for them, by user and event, and the place of each, user by user.
    """
    numbers = users.number[: len(rows), None]
    event = np.arange(users.item.shape[1])[None, :]
    real = event < numbers
    return real, (histories.offsets[rows + 1][:, None] - numbers + event)[real]


def _compact(user: Users, kept) -> tuple[Log, Moment]:
    """The history of the events that are kept."""
    place = jnp.where(kept, jnp.cumsum(kept) - 1, len(kept))
    order = jnp.zeros(len(kept), int).at[place].set(jnp.arange(len(kept)), mode="drop")
    log = Log(user.item[order], user.seconds[order], user.weight[order], None, None)
    return log, Moment(jnp.zeros(1, int), kept.sum()[None], user.moment[None])


def _said(model: InterestModel, catalogue: Catalogue, user: Users, kept) -> Prediction:
    """What the model says of one user whose history is the events that are kept."""
    log, moment = _compact(user, kept)
    return model(log, catalogue, moment, parts=jnp.ones(2))


def _summary_of(model: InterestModel, catalogue: Catalogue, user: Users, kept) -> Summary:
    log, moment = _compact(user, kept)
    return model.summarise(log, catalogue, moment, parts=jnp.ones(2))


def _shaped(model: InterestModel, events: int) -> InterestModel:
    """The same model, reading no more than so many events."""
    twin = nnx.merge(*nnx.split(model))
    length = min(events, model.config.history_length)
    twin.config = replace(model.config, history_length=length, repeat_length=events)
    return twin


def _summaries(model, catalogue, user: Users) -> tuple[Prediction, Summary, Summary]:
    """What is said of one user; the summary of the history, and that of each event alone."""
    real = is_event(user)
    log, place = _compact(user, real)[0], jnp.arange(len(real))
    each = Moment(place, place + real, jnp.full(len(real), user.moment))
    alone = _shaped(model, 1).summarise(log, catalogue, each, parts=jnp.ones(2))
    total = _summary_of(model, catalogue, user, real)
    return _said(model, catalogue, user, real), total, alone


def _row(model, catalogue, user: Users, said) -> Float[Array, " candidates"]:
    """Log-probabilities of what is asked about."""
    if not user.codes.size:
        return said.interests[0]
    codes = jnp.maximum(user.codes, 0)[None]
    scores = model.score_targets(said, catalogue, codes, parts=jnp.ones(2))[0]
    return jax.nn.log_softmax(jnp.where(user.codes < 0, HIDDEN, scores))


def _row_of(model, catalogue, user: Users, said: Prediction, summary: Summary):
    """The same where the history has this summary."""
    found = model.say(summary)._asdict()
    kept = {name: found[name] for name in ("user", "popularity_weight", "interests")}
    return _row(model, catalogue, user, said._replace(**kept))


def kept_scores(model, catalogue, user, kept: Bool[Array, "variants events"]):
    """Log-probabilities for each choice of the events of one user that are kept."""
    return jax.vmap(lambda own: _row(model, catalogue, user, _said(model, catalogue, user, own)))(
        kept
    )


def is_event(user: Users) -> Bool[Array, " events"]:
    """False on padding."""
    return jnp.arange(len(user.item)) < user.number


def by_user(program: Callable) -> Callable:
    """A program for one user as one for a block of them."""

    @partial(jax.jit, static_argnums=0, static_argnames=("panels", "cells", "switches"))
    def run(graph, state, catalogue, users, *given, **settings):
        model = nnx.merge(graph, state)

        def one(inputs):
            return program(model, catalogue, *inputs, **settings)

        return jax.lax.map(one, (users, *given))

    return run


@by_user
def left_out(model, catalogue, user: Users):
    """Log-probabilities of the whole history, and of it without each of its events.

    Sums without an event are those before it and those after it. Only the newest events are
    pooled: where an older one is left out, the pooled vectors stay.
    """
    real = is_event(user)
    whole, total, alone = _summaries(model, catalogue, user)
    at, pooled = _without_newest(model, catalogue, user)

    def without(part, own):
        every = jnp.broadcast_to(part, (len(real), *part.shape[1:]))
        return every.at[at].set(own[:, 0])

    sums, totals = (_all_but(part) for part in (alone.sums, alone.totals))
    changed = Summary(
        pooled=without(total.pooled, pooled.pooled),
        weight=without(total.weight, pooled.weight),
        sums=sums,
        shares=sums / jnp.maximum(sums.sum(axis=2, keepdims=True), LEAST_SUM),
        totals=totals,
        encoded=None if total.encoded is None else without(total.encoded, pooled.encoded),
    )

    def row(summary):
        return _row_of(model, catalogue, user, whole, jax.tree.map(lambda a: a[None], summary))

    said = _row(model, catalogue, user, whole)
    every = jnp.broadcast_to(said, (len(real), *said.shape))
    return said, _by_pieces(jax.vmap(row), changed, user.number, every)


def _by_pieces(work: Callable, given, number, found):
    """What `work` gives for the first rows of arrays; the other rows are those of `found`."""

    def piece(place, found):
        rows = partial(jax.lax.dynamic_slice_in_dim, start_index=place * _PIECE, slice_size=_PIECE)
        said = work(jax.tree.map(rows, given))
        return jax.lax.dynamic_update_slice_in_dim(found, said, place * _PIECE, 0)

    return jax.lax.fori_loop(0, _pieces(number), piece, found)


def _pieces(number):
    return (number + _PIECE - 1) // _PIECE


def _without_newest(model, catalogue, user: Users) -> tuple[Int[Array, " newest"], Summary]:
    """Places of the newest events, and the summary of the newest without each of them."""
    real = is_event(user)
    near, back = min(model.config.history_length + 1, len(real)), jnp.arange(len(real))
    at = jnp.maximum(user.number - 1 - jnp.arange(near), 0)
    kept = real[None, :] & (back[None, :] != at[:, None])
    kept &= (back > user.number - 1 - near)[None, :]
    return at, jax.vmap(lambda own: _summary_of(_shaped(model, near), catalogue, user, own))(kept)


def _all_but(parts):
    """For each row the sum of all others, without differences of large numbers."""
    blocks = parts.reshape(-1, _PIECE, *parts.shape[1:])
    near, far = (1 - jnp.eye(number) for number in (_PIECE, len(blocks)))
    beside = jnp.einsum("ij,bj...->bi...", near, blocks)
    others = jnp.einsum("ab,b...->a...", far, blocks.sum(axis=1))
    return (beside + others[:, None]).reshape(parts.shape)


@by_user
def user_vectors(model, catalogue, user: Users):
    """The vector of each user, whose product with an item's vector is part of a score.

    Where a user has several they stand side by side.
    """
    return _said(model, catalogue, user, is_event(user)).user[0].ravel()


scores = by_user(kept_scores)


@by_user
def gradients(model, catalogue, user: Users, *, panels: int, **fineness: int):
    """Integrated gradients of the target by event, and its value with all events and with none.

    The path scales what the events add to the summary from nothing to all of it. The slope along
    it jumps where a hidden unit switches on or off: there the path is cut, and between cuts it is
    smooth.
    """
    whole, total, alone = _summaries(model, catalogue, user)
    age = user.number - 1 - jnp.arange(len(user.item))
    parts = _contributions(model.config, alone, total, age)
    if total.encoded is not None:
        encoded = _shares_of_state(model, catalogue, user, total.encoded, age)
        parts = parts._replace(encoded=encoded)

    def scaled(at):
        return jax.tree.map(lambda part: at**_BEND * part, total)

    def value(summary):
        return _row_of(model, catalogue, user, whole, summary)[user.target]

    cuts = _switches(lambda at: model.tower.units(model.tower_input(scaled(at)))[0], **fineness)
    edges = jnp.sort(jnp.concatenate([jnp.linspace(0, 1, panels + 1), cuts]))  # padding is last
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    at = middle[:, None] + half[:, None] * jnp.asarray(_POINTS)[None, :]
    width = half[:, None] * jnp.asarray(_WEIGHTS)[None, :] * _BEND * at ** (_BEND - 1)

    def add(place, mean):
        own, wide = (
            jax.lax.dynamic_slice_in_dim(part, place * _PIECE, _PIECE).ravel()
            for part in (at, width)
        )
        slopes = jax.vmap(lambda at: jax.grad(value)(scaled(at)))(own)
        return jax.tree.map(lambda a, b: a + jnp.tensordot(wide, b, 1), mean, slopes)

    pieces, none = _pieces(panels + (cuts < 1).sum()), jax.tree.map(jnp.zeros_like, total)
    mean = jax.lax.fori_loop(0, pieces, add, none)
    by_part = jax.tree.map(lambda a, b: (a * b).reshape(len(a), -1).sum(axis=1), parts, mean)
    return sum(jax.tree.leaves(by_part)), value(total), value(scaled(0.0))


def _switches(units: Callable, *, cells: int, switches: int) -> Float[Array, " switches"]:
    """Where on [0, 1] hidden units switch, by search in cells of equal width; 1 for none."""
    grid = jnp.linspace(0, 1, cells + 1)
    found = jax.vmap(units)(grid)
    switch = (found[1:] > 0) != (found[:-1] > 0)
    cell, unit = jnp.nonzero(switch, size=switches, fill_value=-1)

    def search(at):
        cell, unit = at

        def nearer(_, ends):  # false position: the units are all but straight within a cell
            low, high, at_low, at_high, _ = ends
            at = low - at_low * (high - low) / (at_high - at_low)
            value = jnp.take_along_axis(jax.vmap(units)(at), unit[:, None], axis=1)[:, 0]
            left = (value > 0) == (at_low > 0)
            low, at_low = jnp.where(left, at, low), jnp.where(left, value, at_low)
            high, at_high = jnp.where(left, high, at), jnp.where(left, at_high, value)
            return low, high, at_low, at_high, at

        ends = (grid[cell], grid[cell + 1], found[cell, unit], found[cell + 1, unit], grid[cell])
        return jnp.where(cell < 0, 1.0, jax.lax.fori_loop(0, 3, nearer, ends)[-1])

    number = jnp.minimum(switch.sum(), switches)
    return _by_pieces(search, (cell, unit), number, jnp.ones(switches))


def _shares_of_state(model, catalogue, user: Users, state, age) -> Float[Array, "events width"]:
    """What each event adds to the last state of a Transformer, so that it all adds up.

    A state is no sum over events. Each event has what is lost without it, and all have as much of
    what is left then (the egalitarian non-separable contribution: Moulin 1985, Journal of Economic
    Theory 36).
    """
    at, without = _without_newest(model, catalogue, user)
    is_read = ((age >= 0) & (age < model.config.num_window))[:, None]
    lost = jnp.zeros((len(age), state.shape[1])).at[at].set(state - without.encoded[:, 0])
    lost = jnp.where(is_read, lost, 0.0)
    rest = (state - lost.sum(axis=0, keepdims=True)) / jnp.maximum(is_read.sum(), 1)
    return jnp.where(is_read, lost + rest, 0.0)


def _contributions(config, alone: Summary, total: Summary, age) -> Summary:
    """What each event adds to a summary; the sum over events is the summary.

    Args:
        config: The shape of the model.
        alone: Summaries of histories of one event each.
        total: The summary of all of them.
        age: 0 for the newest event, 1 for the one before it; negative for padding.
    """
    is_pooled = ((age >= 0) & (age < config.history_length))[:, None]
    ratio = ((alone.weight + LEAST_WEIGHT) / (total.weight + LEAST_WEIGHT)) ** config.pool_power
    ratio = jnp.concatenate([ratio * is_pooled, (age == 0)[:, None]], axis=1)
    return Summary(
        pooled=alone.pooled * ratio[..., None],
        weight=alone.weight * is_pooled,
        sums=alone.sums,
        shares=alone.sums / jnp.maximum(total.sums.sum(axis=2, keepdims=True), LEAST_SUM),
        totals=alone.totals,
    )
