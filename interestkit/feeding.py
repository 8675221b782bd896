"""What each epoch trains on: a log in memory, or some shards of a larger one, changed by and by."""

from collections.abc import Iterator
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from interestkit.counting import power_of_two
from interestkit.devices import on_mesh, place
from interestkit.examples import (
    Examples,
    TrainingConfig,
    find_examples,
    log_arrays,
    padded,
    put_in,
    room_for,
)
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.model import Log
from interestkit.schema import ITEM, KIND, TIME, USER
from interestkit.shards import Shards, prefetched, timed

_SMALL_LOG = 2**19  # events


class Source(NamedTuple):
    """What training learns from, and where it runs."""

    features: Features
    histories: Histories | Shards
    config: TrainingConfig
    mesh: Mesh | None = None  # None takes the first device
    can_repeat: bool = True  # `ModelConfig.can_repeat`

    def arrays(self, own: Histories) -> tuple[Log, Examples]:
        """Some of the histories as training reads them, in NumPy.

        Raises:
            ValueError: If there is no example among them.
        """
        examples = find_examples(own, self.config.task)
        return log_arrays(own, self.features.scales_days, can_repeat=self.can_repeat), examples


class Fed(NamedTuple):
    """What one epoch draws from, on the device."""

    log: Log
    examples: Examples
    waited: float  # seconds for which the epoch waited for it
    shards: tuple[int, ...] = ()  # numbers of those that are side by side in it


def feed(source: Source, *, seed: int, first_epoch: int = 1) -> Iterator[Fed]:
    """What each epoch from `first_epoch` on draws from.

    A log in memory is the same in each epoch. Of shards, `config.shards_at_once` are on the device;
    each epoch brings new ones in for the oldest, which a thread has read and counted during the
    epoch before. What an epoch draws from depends on its number and the seed alone.

    Raises:
        ValueError: If not every shard can be read in `config.epochs`, an event of one is later
            than the features, or one holds no example.
    """
    if isinstance(source.histories, Shards):
        return _from_shards(source, seed, first_epoch)
    arrays = _with_room(*source.arrays(source.histories))
    return repeat(Fed(*place(arrays, source.mesh), 0.0))


def _with_room(log: Log, examples: Examples) -> tuple[Log, Examples]:
    """Both padded to powers of two, so that logs of about one size share one compiled program.

    Large ones are not, where memory counts for more than a program, nor those in no order, of
    which the size says what is drawn.
    """
    if len(log.item) > _SMALL_LOG or len(examples.user):
        return log, examples
    sizes = {"num_users": len(examples.start), "num_events": len(log.item)}
    return padded(log, examples, **{name: power_of_two(size) for name, size in sizes.items()})


def users_at(source: Source, fed: Fed, starts: np.ndarray) -> list[str]:
    """Names of the users whose first events are at these places of `fed.log`."""
    own, names = {None: source.histories}, []
    for start in starts.tolist():
        number = None
        if fed.shards:
            slot, start = divmod(start, source.histories.largest[1])
            number = fed.shards[slot]
            if number not in own:
                own[number] = _read(source.features, source.histories, number)
        row = np.searchsorted(own[number].offsets, start, side="right") - 1
        names.append(str(own[number].users[row]))
    return names


def can_repeat(histories: Histories | Shards, task: str) -> bool:
    """Whether somebody has an item twice, as far as can be told without reading all shards."""
    return task != "hidden" and (isinstance(histories, Shards) or histories.num_repeats > 0)


def check_histories(features: Features, histories: Histories) -> Histories:
    """The same histories; ValueError if one goes on after the features, or weighs no number."""
    histories.check_coded_by(features)
    last = features.second(features.fitted_until)
    if later := int((histories.seconds > last).sum()):
        raise ValueError(
            f"histories must end by {features.fitted_until}, until which the features were "
            f"fitted, got {later:,} of {len(histories.seconds):,} events after it"
        )
    if len(wrong := np.flatnonzero(~np.isfinite(histories.weight))):
        user = histories.users[np.searchsorted(histories.offsets, wrong[0], side="right") - 1]
        raise ValueError(
            f"histories must have finite weights, got {histories.weight[wrong[0]]} for user "
            f"{str(user)!r}, and for {len(wrong):,} of {len(histories.weight):,} events"
        )
    return histories


def sample(features: Features, histories: Histories | Shards) -> Histories:
    """Histories that say how long they are: all of them, or those of a random part of users."""
    return histories if isinstance(histories, Histories) else _read(features, histories, 0)


def schedule(config: TrainingConfig, num_shards: int) -> tuple[int, int]:
    """How many shards are on the device at once, and how many of them each epoch replaces.

    One is replaced, or as many more as it takes to read each shard in `config.epochs`.

    Raises:
        ValueError: If that would be more than there are at once.

    Example:
        >>> schedule(TrainingConfig(epochs=12), 40), schedule(TrainingConfig(epochs=256), 64)
        ((4, 4), (4, 1))
    """
    slots = min(config.shards_at_once, num_shards)
    if slots * config.epochs < num_shards:
        what = f"{config.epochs} x {config.shards_at_once}"
        raise ValueError(
            f"epochs x shards_at_once must be at least {num_shards}, so that each shard is read, "
            f"got {what}; more epochs may be as short (examples_per_epoch)"
        )
    if slots == num_shards:
        return slots, 0
    return slots, -(-(num_shards - slots) // (config.epochs - 1))


def _read(features: Features, shards: Shards, number: int) -> Histories:
    return features.histories(shards.events(number, (USER, ITEM, TIME, KIND)))


def _from_shards(source: Source, seed: int, first_epoch: int):
    shards, config, mesh = source.histories, source.config, source.mesh
    slots, fresh = schedule(config, len(shards))
    begin = (first_epoch - 1) * fresh
    to_read = slots + fresh * (config.epochs - first_epoch)
    num_users, num_events = shards.largest

    def read(number: int) -> tuple[int, tuple[Log, Examples]]:
        own = check_histories(source.features, _read(source.features, shards, number))
        try:
            arrays = source.arrays(own)
        except ValueError as error:
            raise ValueError(f"shard {number} of {shards.folder}: {error}") from error
        return number, padded(*arrays, num_users=num_users, num_events=num_events)

    numbers = islice(shards.order(seed, apart=slots), begin, begin + to_read)
    parts = enumerate(timed(prefetched(numbers, read)), start=begin)
    held, there = None, [0] * slots
    for needed in chain([slots], repeat(fresh)):
        waited = 0.0
        for nth, ((number, part), seconds) in islice(parts, needed):
            waited += seconds
            there[nth % slots] = number
            with on_mesh(mesh):  # not in the thread: several hosts do so in step
                part = place(part, mesh)
                held = room_for(slots, part) if held is None else held
                held = put_in(held, part, np.int32(nth % slots))
        yield Fed(*held, waited, tuple(there))
