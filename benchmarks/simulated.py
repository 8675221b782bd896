"""A large made-up log with planted interests, as arrays: for the benchmarks of training.

Each item has one interest and a popularity that falls with its rank (Zipf). Each user has three
interests with falling weight; most events are items of these, drawn by popularity, the rest are any
item. A user has an item once. Lengths are log-normal with mean
50 before an item comes a second time.
"""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from timing import RUNS

if TYPE_CHECKING:
    from interestkit.features import Features

INTERESTS, OWN, LOYALTY, DAYS = 50, (0.6, 0.3, 0.1), 0.85, 365
START = datetime(2024, 1, 1, tzinfo=UTC)


class Events(NamedTuple):
    """Events in order of user, then time."""

    offsets: np.ndarray  # events of user n are offsets[n]..offsets[n + 1] - 1
    item: np.ndarray  # codes, the most frequent item first
    seconds: np.ndarray  # since the start of the log
    interest: np.ndarray  # of each item


def forget_programs() -> None:
    """Let JAX find no program of an earlier process; to be called before it is imported."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp()


def read(*, users: int, items: int) -> Events:
    """The log from runs/benchmarks/, made there at first, in a process whose memory is its own."""
    path = RUNS / f"simulated-{users}-{items}.npz"
    if not path.exists():
        subprocess.run([sys.executable, __file__, str(users), str(items), str(path)], check=True)
    with np.load(path) as arrays:
        return Events(**arrays)


def simulated(users: int, items: int, *, seed: int = 0) -> Events:
    """The log; the same arguments give the same one."""
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(np.log(50) - 0.32, 0.8, users)
    user = np.repeat(np.arange(users, dtype=np.int32), np.maximum(lengths.astype(int), 3))
    favourites = rng.integers(0, INTERESTS, (users, len(OWN)), dtype=np.int32)
    which = np.searchsorted(np.cumsum(OWN)[:-1], rng.random(len(user), np.float32))
    interest = favourites[user, which]
    strays = rng.random(len(user), np.float32) > LOYALTY
    interest[strays] = rng.integers(0, INTERESTS, strays.sum(), dtype=np.int32)
    per_interest = -(-items // INTERESTS)
    heights = np.cumsum(1 / np.arange(10, per_interest + 10))
    drawn = rng.random(len(user), np.float32)
    rank = np.searchsorted(heights / heights[-1], drawn).clip(max=per_interest - 1)
    item = np.minimum(rank * INTERESTS + interest, items - 1).astype(np.int32)
    user, item = _once_in_random_order(user, item, items, rng)
    by_count = np.argsort(-np.bincount(item, minlength=items), kind="stable")
    code = np.empty(items, np.int32)
    code[by_count] = np.arange(items, dtype=np.int32)
    return Events(
        offsets=np.searchsorted(user, np.arange(users + 1)).astype(np.int32),
        item=code[item],
        seconds=_times(user, rng),
        interest=(np.arange(items, dtype=np.int32) % INTERESTS)[by_count],
    )


def _once_in_random_order(user, item, items: int, rng) -> tuple[np.ndarray, np.ndarray]:
    key = rng.permutation(np.unique(user.astype(np.int64) * items + item))
    key = key[np.argsort(key // items, kind="stable")]
    return (key // items).astype(np.int32), (key % items).astype(np.int32)


def _times(user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random seconds, rising within each user."""
    drawn = np.sort(rng.random(len(user)) + user)  # users stay in order, times are sorted in each
    return ((drawn - user) * (DAYS * 86_400)).astype(np.int32)


def features_of(events: Events) -> tuple["Features", Events]:
    """Features, and the events in their codes.

    They are fitted on every tenth user, as where a log is too large for a table in memory; on one
    event of each item, so that all are in the catalogue; and on the last event, where time ends.
    """
    import polars as pl

    from interestkit.features import fit_features

    names = pl.Series("item", [f"{code:06}" for code in range(len(events.interest))])
    labels = [[f"interest {number:02}"] for number in events.interest.tolist()]
    catalogue = pl.DataFrame({"item": names, "title": None, "interests": labels})
    user = np.repeat(np.arange(len(events.offsets) - 1), np.diff(events.offsets))
    sample = (user % 10 == 0) | (events.seconds == events.seconds.max())
    item = np.append(np.arange(len(names)), events.item[sample])
    seconds = np.append(np.zeros(len(names), np.int32), events.seconds[sample])
    table = pl.DataFrame(
        {
            "user": np.append(np.full(len(names), -1), user[sample]).astype(str),
            "item": names.gather(item),
            "time": pl.Series(seconds, dtype=pl.Int64) * 1_000_000,
        }
    ).with_columns(time=pl.lit(START) + pl.col("time").cast(pl.Duration("us")))
    end = START + timedelta(days=DAYS)
    features = fit_features(
        table, catalogue.cast({"title": pl.String}), until=end, min_item_events=1
    )
    return features, events._replace(item=features.codes(names)[events.item])


def histories_of(events: Events, *, without_last: int = 0):
    """Histories of all users; the last event of the first `without_last` users is left out."""
    from interestkit.histories import Histories

    users = len(events.offsets) - 1
    is_known = np.ones(len(events.item), bool)
    is_known[events.offsets[1 : without_last + 1] - 1] = False
    lengths = np.diff(events.offsets) - (np.arange(users) < without_last)
    return Histories(
        users=np.arange(users),
        offsets=np.append(0, np.cumsum(lengths)).astype(np.int32),
        item=events.item[is_known],
        seconds=events.seconds[is_known],
        weight=np.ones(is_known.sum(), np.float32),
        moment=np.full(users, DAYS * 86_400, np.int32),
    )


if __name__ == "__main__":
    RUNS.mkdir(parents=True, exist_ok=True)
    np.savez(sys.argv[3], **simulated(*map(int, sys.argv[1:3]))._asdict())
