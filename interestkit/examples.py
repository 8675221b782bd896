"""What training draws from: the log and the catalogue as arrays, moments, candidates."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from interestkit.features import Features
from interestkit.histories import Histories
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
    patience: int = 3
    validation_users: int = 2_000

    def __post_init__(self) -> None:
        for name, allowed in (("task", ("next", "hidden")), ("draw", ("users", "moments"))):
            if getattr(self, name) not in allowed:
                came = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {came!r}")
        for name in (
            "epochs",
            "examples_per_epoch",
            "shards_at_once",
            "batch_size",
            "num_sampled",
            "num_targets",
            "patience",
            "validation_users",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        for name in ("weight_decay", "interest_weight"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.single_part_share <= 0.5:
            raise ValueError(f"single_part_share must be in 0..0.5, got {self.single_part_share}")

    @property
    def steps(self) -> int:
        """Steps in one epoch."""
        return -(-self.examples_per_epoch // self.batch_size)


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


def log_arrays(histories: Histories, scales_days: tuple[float, ...]) -> Log:
    """Histories as the model reads them, in NumPy: `devices.place` brings them to devices."""
    following, counts = histories.running_counts(scales_days)
    arrays = (histories.item, histories.seconds, histories.weight, following, counts)
    return Log(*map(_at_least_one, arrays))


def catalogue_arrays(features: Features) -> Catalogue:
    """What is known of each item, in NumPy: `devices.place` brings it to devices."""
    shares = features.item_interests
    width = max(int((shares > 0).sum(axis=1).max(initial=0)), 1)
    codes = np.argsort(-shares, axis=1, kind="stable")[:, :width].astype(np.int32)
    parts = np.take_along_axis(shares, codes, axis=1)
    codes[parts == 0] = features.num_interests
    content = item_content(features)
    content = content if content.shape[1] else np.zeros((len(shares), 1), np.float32)
    events = features.items["events"].to_numpy().astype(np.float32)
    arrays = (content, codes, parts, features.is_candidate, events)
    popularity = np.moveaxis(features.popularity, 1, 2)
    return Catalogue(*arrays, popularity=popularity, snapshot_seconds=features.snapshot_seconds)


def item_content(features: Features) -> Float[np.ndarray, "items content"]:
    """What the model reads of an item besides its id: content vector and labels side by side.

    Labels are a row of length one. They are left out where they come from behaviour: those
    say who had the item, not what it is.
    """
    if features.interest_source == "behaviour":
        return features.content
    return np.concatenate([features.content, np.sqrt(features.item_interests)], axis=1)


def _at_least_one(array: np.ndarray) -> np.ndarray:
    """Room for padding to point at, even where nobody has a history."""
    return array if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)


def find_examples(histories: Histories, task: str = "next") -> Examples:
    """All moments with a history, grouped by user; "hidden" may part a history anywhere."""
    is_hidden = task == "hidden"
    if is_hidden:
        _check_distinct(histories)
    every = np.arange(len(histories.item))
    position = every if is_hidden else np.flatnonzero(histories.starts_moment)
    position = position[position > histories.offsets[histories.user[position]]]
    user = histories.user[position]
    if not len(user):
        what = "two events" if is_hidden else "events at two moments"
        raise ValueError(f"histories must hold a user with {what}, got none")
    count = np.bincount(user)  # events come user by user
    users = np.flatnonzero(count)
    count = count[users]
    first = np.cumsum(count) - count
    starts, stops = histories.offsets[users], histories.offsets[users + 1]
    owner = histories.user if is_hidden else histories.user[:0]
    arrays = (position, starts, stops, first, count, histories.moment[users], owner)
    arrays = (*arrays, [len(users)], [len(position)])
    return Examples(*(np.asarray(array, dtype=np.int32) for array in arrays))


def padded(log: Log, examples: Examples, *, num_users: int, num_events: int):
    """Both with room for so many users and events, so that all shards share one program.

    Users that are padding come after all others in each order that something is looked up in.
    """
    sizes = Examples(num_events, *[num_users] * 5, num_events if len(examples.user) else 0, 1, 1)
    fills = Examples(0, 0, 0, num_events, 0, 0, user=num_users, num_users=0, num_positions=0)

    def longer(array, size, fill):
        width = [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)]
        return np.pad(array, width, constant_values=fill)

    log = Log(*(longer(array, num_events, 0) for array in log))
    return log, Examples(*map(longer, examples, sizes, fills))


def room_for(slots: int, part: tuple[Log, Examples]) -> tuple[Log, Examples]:
    """Zeros in the shape of so many padded shards side by side."""
    return jax.tree.map(lambda a: jnp.zeros((slots * len(a), *a.shape[1:]), a.dtype), part)


def put_in(shards: tuple[Log, Examples], part: tuple[Log, Examples], slot):
    """The shards, the one in a slot (counted from 0) replaced by another that is padded."""
    log, examples = part
    event, user = slot * len(log.item), slot * len(examples.start)
    last = jnp.iinfo(jnp.int32).max  # no event follows
    log = log._replace(following=jnp.where(log.following < last, log.following + event, last))
    examples = examples._replace(
        position=examples.position + event,
        start=examples.start + event,
        stop=examples.stop + event,
        first_moment=examples.first_moment + event,
        user=examples.user + user + slot,  # padding has a number of its own
    )
    return jax.tree.map(
        lambda all_of, own: jax.lax.dynamic_update_slice_in_dim(all_of, own, slot * len(own), 0),
        shards,
        (log, examples),
    )


def _check_distinct(histories: Histories) -> None:
    pairs = histories.user.astype(np.int64) << 32 | histories.item
    extra = len(pairs) - len(np.unique(pairs))
    if extra:
        raise ValueError(
            "with task='hidden' a user must have each item once, as nobody can tell a repeat "
            f"from a first time without order; got {extra:,} events more"
        )


def shuffled(log: Log, examples: Examples, key) -> Log:
    """The log with the events of each user in random order; as it is where the order counts."""
    if not len(examples.user):
        return log
    order = jnp.lexsort((jax.random.uniform(key, examples.user.shape), examples.user))
    return log._replace(
        item=log.item[order],
        seconds=log.seconds[order],
        weight=log.weight[order],
        counts=log.counts[order],
    )


def draw_moments(config: TrainingConfig, examples: Examples, log: Log, key):
    """A batch of moments, and where the events of each user stop."""
    user_key, moment_key = jax.random.split(key)
    if config.draw == "moments":
        nth = _draw_real(moment_key, config.batch_size, examples.num_positions, examples.position)
        user = jnp.searchsorted(examples.first_moment, nth, side="right") - 1
    else:
        user = _draw_real(user_key, config.batch_size, examples.num_users, examples.start)
        share = jax.random.uniform(moment_key, (config.batch_size,))
        nth = examples.first_moment[user]
        nth += jnp.floor(share * examples.num_moments[user]).astype(jnp.int32)
    position = examples.position[nth]
    seconds = examples.moment[user] if config.task == "hidden" else log.seconds[position]
    return Moment(examples.start[user], position, seconds), examples.stop[user]


def _draw_real(key, batch_size: int, num_real, padded) -> Int[Array, " batch"]:
    """Places in an array that are no padding, each as likely as any other."""
    ends = jnp.cumsum(num_real)
    drawn = jax.random.randint(key, (batch_size,), 0, ends[-1])
    shard = jnp.searchsorted(ends, drawn, side="right")
    return drawn - (ends - num_real)[shard] + shard * (len(padded) // len(num_real))


def draw_parts(config: TrainingConfig, key) -> Float[Array, " parts"]:
    """Which parts of the item vectors count in this step: mostly both."""
    choices = jnp.array([PARTS["hybrid"], PARTS["collaborative"], PARTS["content"]])
    share = config.single_part_share
    return jax.random.choice(key, choices, p=jnp.array([1 - 2 * share, share, share]))


def draw_candidates(config: TrainingConfig, catalogue: Catalogue, key):
    """Items that the softmax runs over, and the log-probability that each was drawn.

    None stands for all items, where the catalogue is small. Else `num_sampled` of them without
    replacement, drawn by events^0.75 in an exponential race (Efraimidis and Spirakis 2006): items
    with the smallest times win, and the time of the first loser gives each one's probability.
    """
    num_items = len(catalogue.is_candidate)
    if num_items <= config.num_sampled:
        return None
    rate = (catalogue.events + 1e-3) ** 0.75
    rate = jnp.where(catalogue.is_candidate, rate / rate.mean(), 0.0)
    times = jax.random.exponential(key, (num_items,)) / rate
    first, codes = jax.lax.top_k(-times, config.num_sampled + 1)
    return codes[:-1], jnp.log(-jnp.expm1(first[-1] * rate[codes[:-1]]))
