"""What training draws from: the log and the catalogue as arrays, moments, candidates."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from interestkit.counting import pad
from interestkit.devices import spread
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.layers import grown, in_shapes, is_kept
from interestkit.limits import (
    check_above_0,
    check_at_least,
    check_counts,
    check_one_of,
    check_within,
)
from interestkit.model import PARTS, Catalogue, Log, Moment


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the model is trained; saved beside its weights.

    An example is a moment in a user's life: the history before it, and the events from it on.

    Args:
        task: "next": the events that follow a moment are predicted from those before it. "hidden":
            the order says nothing, as where a log has no times or its held-out part was drawn at
            random; a random part of a user's events is predicted from the rest.
        draw: "users": each user is as likely, then each of their moments; "moments": each moment
            is as likely, so that users count by how long their histories are.
        epochs: Largest number of epochs; the learning rate falls to zero over them (cosine).
        examples_per_epoch: Moments drawn in one epoch.
        shards_at_once: Shards of a log larger than memory that an epoch draws from. Each epoch
            brings new ones in for the oldest. More of them mix more users and take more memory.
        batch_size: Moments in one step.
        learning_rate: Start of the learning rate.
        weight_decay: Decoupled weight decay; 0 makes AdamW plain Adam.
        num_sampled: Items that the softmax over new items runs over in one step; a smaller
            catalogue is taken whole.
        num_targets: The next so many events of the user are what is to be predicted.
        interest_weight: Weight of the interest loss beside the item losses.
        single_part_share: Share of steps with item vectors of ids only, and again of content
            only, so that collaborative and content-based scores are trained too.
        modality_dropout: Share of steps without a modality, drawn for each of them and for content
            (never for all), so that the model knows what to do where one is missing.
        sequence_weight: Weight of a Transformer's mean loss at the events of its window, or 0.
        patience: Stop after so many epochs without a better validation score.
        validation_users: Largest number of users in the validation score.
    """

    task: str = "next"
    draw: str = "users"
    epochs: int = 12
    examples_per_epoch: int = 6_400
    shards_at_once: int = 4
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    num_sampled: int = 2048
    num_targets: int = 32
    interest_weight: float = 1.0
    single_part_share: float = 0.1
    modality_dropout: float = 0.5
    sequence_weight: float = 1.0
    patience: int = 3
    validation_users: int = 2_000

    def __post_init__(self) -> None:
        check_one_of(("next", "hidden"), task=self.task)
        check_one_of(("users", "moments"), draw=self.draw)
        check_counts(1, **{name: getattr(self, name) for name in _COUNTS})
        check_above_0(learning_rate=self.learning_rate)
        check_at_least(0, weight_decay=self.weight_decay, interest_weight=self.interest_weight)
        check_at_least(0, sequence_weight=self.sequence_weight)
        if not 0 <= self.single_part_share <= 0.5:
            raise ValueError(f"single_part_share must be in 0..0.5, got {self.single_part_share}")
        check_within("[0, 1)", modality_dropout=self.modality_dropout)

    @property
    def steps(self) -> int:
        """Steps in one epoch."""
        return -(-self.examples_per_epoch // self.batch_size)


_COUNTS = (
    *("epochs", "examples_per_epoch", "shards_at_once", "batch_size"),
    *("num_sampled", "num_targets", "patience", "validation_users"),
)


class Examples(NamedTuple):
    """Moments that training draws from; those of several shards have as much room for each."""

    position: Int[Array, " moments"]  # of the first event of each moment in the log
    start: Int[Array, " users"]  # first event of each user
    stop: Int[Array, " users"]  # one past the last event of each user
    first_moment: Int[Array, " users"]
    num_moments: Int[Array, " users"]
    moment: Int[Array, " users"]  # of prediction, for a history in no order
    user: Int[Array, " events"]  # who each event belongs to; empty where the order counts
    num_users: Int[Array, " shards"]  # that are real: what stands behind them is padding
    num_positions: Int[Array, " shards"]


def log_arrays(
    histories: Histories, scales_days: tuple[float, ...], *, can_repeat: bool = True
) -> Log:
    """Histories as the model reads them, in NumPy: `devices.place` brings them to devices.

    A model without repeats (`ModelConfig.can_repeat`) needs less of the log.
    """
    counts = histories.running_counts(scales_days) if can_repeat else (None, None)
    log = Log(histories.item, histories.seconds, histories.weight, *counts)
    return jax.tree.map(_at_least_one, log)


def catalogue_arrays(features: Features) -> Catalogue:
    """What is known of each item, in NumPy: `devices.place` brings it to devices."""
    shares = features.item_interests
    width = max(int((shares > 0).sum(axis=1).max(initial=0)), 1)
    codes = np.argsort(-shares, axis=1, kind="stable")[:, :width].astype(np.int32)
    parts = np.take_along_axis(shares, codes, axis=1)
    codes[parts == 0] = features.num_interests
    content = item_content(features)
    content = content if content.shape[1] else np.zeros((len(shares), 1), np.float32)
    arrays = (content, codes, parts, features.is_candidate)
    popularity = np.ascontiguousarray(np.moveaxis(features.popularity, 2, 0))
    return Catalogue(*arrays, popularity=popularity, snapshot_seconds=features.snapshot_seconds)


def item_content(features: Features) -> Float[np.ndarray, "items content"]:
    """What the model reads of an item besides its id: blocks side by side, modalities last.

    The first one has content vector and labels (a row of length one). Labels are left out where
    they come from behaviour: those say who had the item, not what it is.
    """
    return np.concatenate(_blocks(features), axis=1)


def content_shape(features: Features) -> dict[str, object]:
    """`content_dim` and `content_blocks` of a model of these features."""
    widths = tuple(block.shape[1] for block in _blocks(features) if block.shape[1])
    return {"content_dim": sum(widths), "content_blocks": widths if features.modalities else ()}


def _blocks(features: Features) -> list[Float[np.ndarray, "items columns"]]:
    labels = [np.sqrt(features.item_interests)] if features.interest_source != "behaviour" else []
    own = np.concatenate([features.content, *labels], axis=1)
    return [own, *(modality.vectors for modality in features.modalities)]


def _at_least_one(array: np.ndarray) -> np.ndarray:
    """Room for padding to point at, even where nobody has a history."""
    return array if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)


def find_examples(
    histories: Histories, task: str = "next", *, kept: Bool[np.ndarray, " events"] | None = None
) -> Examples:
    """All moments with a history, grouped by user; "hidden" may part a history anywhere.

    With `kept` only those moments that begin with an event that it marks.
    """
    is_hidden = task == "hidden"
    if is_hidden:
        _check_distinct(histories)
    has_history = np.ones(len(histories.item), bool)
    has_history[histories.begins] = False
    parts = has_history if is_hidden else has_history & histories.starts_moment
    parts = parts if kept is None else parts & kept
    position = np.flatnonzero(parts).astype(np.int32)
    if not len(position):
        what = "two events" if is_hidden else "events at two moments"
        raise ValueError(f"histories must hold a user with {what}, got none")
    count = np.diff(np.searchsorted(position, histories.offsets))
    users = np.flatnonzero(count)
    count = count[users]
    first = np.cumsum(count) - count
    starts, stops = histories.offsets[users], histories.offsets[users + 1]
    owner = histories.user if is_hidden else histories.user[:0]
    arrays = (position, starts, stops, first, count, histories.moment[users], owner)
    arrays += ([len(users)], [len(position)])
    return Examples(*(np.asarray(array, dtype=np.int32) for array in arrays))


def padded(log: Log, examples: Examples, *, num_users: int, num_events: int):
    """Both with room for so many users and events, so that all shards share one program.

    Users that are padding come after all others in each order that something is looked up in.
    """
    sizes = Examples(num_events, *[num_users] * 5, num_events if len(examples.user) else 0, 1, 1)
    fills = Examples(0, 0, 0, num_events, 0, 0, user=num_users, num_users=0, num_positions=0)
    log = jax.tree.map(lambda array: pad(array, num_events), log)
    return log, Examples(*map(pad, examples, sizes, fills))


@partial(jax.jit, static_argnums=0)
def room_for(slots: int, part: tuple[Log, Examples]) -> tuple[Log, Examples]:
    """Zeros in the shape of so many padded shards side by side."""
    return spread(jax.tree.map(lambda a: jnp.zeros((slots * len(a), *a.shape[1:]), a.dtype), part))


@partial(jax.jit, donate_argnums=0)
def put_in(shards: tuple[Log, Examples], part: tuple[Log, Examples], slot):
    """The shards, the one in a slot (counted from 0) replaced by another that is padded."""
    log, examples = part
    event, user = slot * len(log.item), slot * len(examples.start)
    last = jnp.iinfo(jnp.int32).max  # no event follows
    if log.following is not None:
        log = log._replace(following=jnp.where(log.following < last, log.following + event, last))
    examples = examples._replace(
        position=examples.position + event,
        start=examples.start + event,
        stop=examples.stop + event,
        first_moment=examples.first_moment + event,
        user=examples.user + user + slot,  # padding has a number of its own
    )

    def placed(all_of, own):
        return jax.lax.dynamic_update_slice_in_dim(all_of, own, slot * len(own), 0)

    return spread(jax.tree.map(placed, shards, (log, examples)))


def _check_distinct(histories: Histories) -> None:
    if histories.num_repeats:
        raise ValueError(
            "with task='hidden' a user must have each item once, as nobody can tell a repeat "
            f"from a first time without order; got {histories.num_repeats:,} events more"
        )


class Draws(NamedTuple):
    """All that an epoch draws but the bits of dropout, at once: that compiles faster."""

    key: UInt32[Array, " words"]  # of the next epoch
    steps: UInt32[Array, "steps words"]  # a key for each step
    parts: UInt32[Array, " steps"]
    first: UInt32[Array, " steps"]
    users: UInt32[Array, "steps batch"]
    moments: UInt32[Array, "steps batch"]
    events: UInt32[Array, " events"]
    items: UInt32[Array, " items"]


def draw(config: TrainingConfig, key, *, num_events: int, num_items: int) -> Draws:
    """Random bits for one epoch: so many numbers for events to be shuffled, and for items."""
    words, steps = jax.random.key_data(key).shape, (config.steps,)
    batches = (*steps, config.batch_size)
    shapes = (words, steps + words, steps, steps, batches, batches, (num_events,), (num_items,))
    return Draws(*in_shapes(jax.random.bits(key, (sum(map(math.prod, shapes)),)), shapes))


def _below(bits: UInt32[Array, "*places"], limit) -> Int[Array, "*places"]:
    """Random bits as whole numbers in 0..limit - 1, each as likely to within limit / 2^32.

    They are the upper half of the product of both, which has 64 bits.
    """
    limit = limit.astype(jnp.uint32)
    middle = (bits >> 16) * (limit & 0xFFFF) + ((bits & 0xFFFF) * (limit & 0xFFFF) >> 16)
    lower = (bits & 0xFFFF) * (limit >> 16) + (middle & 0xFFFF)
    return ((bits >> 16) * (limit >> 16) + (middle >> 16) + (lower >> 16)).astype(jnp.int32)


def shuffled(log: Log, examples: Examples, bits: UInt32[Array, " events"]) -> Log:
    """The log with the events of each user in random order; as it is where the order counts."""
    if not len(examples.user):
        return log
    order = jnp.lexsort((bits, examples.user))
    kept = log._replace(following=None)  # nobody has an item twice
    return jax.tree.map(lambda array: array[order], kept)._replace(following=log.following)


def draw_moments(config: TrainingConfig, examples: Examples, log: Log, draws: Draws):
    """Moments of each step, and where the events of each user stop."""
    if config.draw == "moments":
        nth = _draw_real(draws.users, examples.num_positions, examples.position)
        user = jnp.searchsorted(examples.first_moment, nth, side="right") - 1
    else:
        user = _draw_real(draws.users, examples.num_users, examples.start)
        nth = examples.first_moment[user] + _below(draws.moments, examples.num_moments[user])
    position = examples.position[nth]
    seconds = examples.moment[user] if config.task == "hidden" else log.seconds[position]
    return Moment(examples.start[user], position, seconds), examples.stop[user]


def _draw_real(bits, num_real, padded) -> Int[Array, "steps batch"]:
    """Places in an array that are no padding, each as likely as any other."""
    ends = jnp.cumsum(num_real)
    drawn = _below(bits, ends[-1])
    shard = jnp.searchsorted(ends, drawn, side="right")
    return drawn - (ends - num_real)[shard] + shard * (len(padded) // len(num_real))


def draw_parts(config: TrainingConfig, draws: Draws, num_blocks: int = 0):
    """Which parts of item vectors count in each step, mostly both, and which blocks of content."""
    choices = jnp.array([PARTS["content"], PARTS["collaborative"], PARTS["hybrid"]])
    share = (draws.parts >> 8).astype(jnp.float32) / 2**24  # in [0, 1)
    share /= max(config.single_part_share, 1e-9)
    parts = choices[jnp.minimum(share, 2.0).astype(int)]
    if not num_blocks:
        return parts
    counts = is_kept(config.modality_dropout, grown(draws.parts, (num_blocks,)))
    counts |= ~counts.any(axis=1, keepdims=True)
    return jnp.concatenate([parts, counts.astype(parts.dtype)], axis=1)


def candidate_widths(features: Features, num_sampled: int) -> Int[np.ndarray, " items"] | None:
    """How likely each item is to be a candidate of a step: its part of a line, in whole numbers.

    `draw_candidates` takes the items at `num_sampled` points of the line, `stratum(num_sampled)`
    apart: no item is wider, so none is taken twice, and an item is taken with probability
    width / stratum. Widths are proportional to events^0.75, but for items that are always taken.

    Args:
        features: The catalogue, with the number of training events of each item.
        num_sampled: Candidates of a step.

    Returns:
        Whole numbers that add up to `num_sampled` strata; None where the catalogue is no larger
        and all items are candidates.

    Source:
        Systematic sampling with unequal probabilities: Madow (1949), Ann. Math. Statist. 20(3),
        doi:10.1214/aoms/1177729988.
    """
    if features.num_items <= num_sampled:
        return None
    rate = (features.items["events"].to_numpy() + 1e-3) ** 0.75
    rate = np.where(features.is_candidate, rate, 0.0)
    if features.is_candidate.sum() <= num_sampled:  # others fill the places that are left
        rate = np.where(features.is_candidate, np.inf, 1.0)
    size, always = stratum(num_sampled), np.isinf(rate)
    while True:
        rate = np.where(always, 0.0, rate)
        left = num_sampled - always.sum()
        share = rate * (left / max(rate.sum(), 1e-30))
        if not (found := share > 1 - 2 / size).any():
            break
        always |= found
    line = np.cumsum(share)
    line = np.round(line * (left * size / max(line[-1], 1e-30)))
    return np.where(always, size, np.diff(line, prepend=0)).astype(np.int32)


def stratum(num_sampled: int) -> int:
    """Distance of the points at which candidates are taken: the largest that int32 has room for."""
    return (2**31 - 1) // num_sampled


class Sampler(NamedTuple):
    """The line of `candidate_widths`, its items in the random order of one epoch."""

    width: Int[Array, " items"]
    order: Int[Array, " items"]
    ends: Int[Array, " items"]


def sampler(width: Int[Array, " items"] | None, draws: Draws) -> Sampler | None:
    """Items in random order, so that any two can be candidates together in some epoch."""
    if width is None:
        return None
    width, order = jnp.asarray(width), jnp.argsort(draws.items)
    return Sampler(width, order, jnp.cumsum(width[order]))


def draw_candidates(config: TrainingConfig, line: Sampler | None, bits: UInt32[Array, ""]):
    """Items that the softmax runs over, and the log-probability that each was drawn.

    Args:
        config: `num_sampled` says how many.
        line: What `sampler` says; None stands for all items, and so does the answer.
        bits: Random bits for the first point.
    """
    if line is None:
        return None
    size = stratum(config.num_sampled)
    points = _below(bits, jnp.int32(size)) + size * jnp.arange(config.num_sampled)
    codes = line.order[jnp.searchsorted(line.ends, points, side="right")]
    return codes, jnp.log(line.width[codes] / size)
