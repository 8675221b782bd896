"""A log that does not fit in memory: Parquet files of whole users, read while the device works."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from interestkit.bounded import read_back, read_parquet
from interestkit.files import (
    check_file,
    check_new,
    read_checked,
    sha256_of,
    write_atomically,
    write_checked,
)
from interestkit.limits import check_counts
from interestkit.schema import EVENT_COLUMNS, ITEM, KIND, TIME, USER, check_columns
from interestkit.storage import check_not_sealed

T = TypeVar("T")
_MANIFEST = "shards.json"


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Parquet files that each hold all events of some users.

    Args:
        folder: Where they lie.
        counts: Users and events of each.
        fingerprint: Stands for the bytes of all files.
        files: Their names; empty stands for part-00000.parquet and so on.
        since: Earlier events are left out, as if they were not there.
        until: So are those from here on.
        is_coded: Users and items are row numbers of users.parquet and items.parquet, as `prepare`
            writes them.
        digests: sha256 of each file by its name: it is checked when the file is first read.
    """

    folder: Path
    counts: tuple[tuple[int, int], ...]
    fingerprint: str = ""
    files: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    is_coded: bool = False
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        return len(self.counts)

    def __repr__(self) -> str:
        users, events = np.sum(self.counts, axis=0)
        return f"Shards({len(self)} files, {users:,} users, {events:,} events)"

    @property
    def largest(self) -> tuple[int, int]:
        """Users of the shard with most users, events of the one with most events."""
        users, events = np.max(self.counts, axis=0)
        return int(users), int(events)

    def events(self, number: int, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Events of one shard, in the order of users and times.

        Args:
            number: Of the shard, from 0 on.
            columns: Those wanted, as fewer are read sooner; None takes all.

        Raises:
            ValueError: If the file is not the one that was written.
        """
        path = self._checked(self.files[number] if self.files else part_name(number))
        table = read_parquet(path, None if columns is None else list({*columns, TIME}))
        with read_back(path):
            if self.since is not None:
                table = table.filter(pl.col(TIME) >= self.since)
            if self.until is not None:
                table = table.filter(pl.col(TIME) < self.until)
            table = table.select(*(columns or [pl.all()]))
        if len(table) != self.counts[number][1]:
            raise ValueError(
                f"{path}: must hold {self.counts[number][1]:,} events, got {len(table):,}"
            )
        if not self.is_coded:
            return table
        there, known = set(table.columns), self._names
        with read_back(path):
            names = (own.gather(table[c]) for c, own in known.items() if c in there)
            return table.with_columns(*names, *(pl.col(c).cast(pl.String) for c in there & {KIND}))

    @cached_property
    def _names(self) -> dict[str, pl.Series]:
        """Name of each code."""
        names = {}
        for column, file in ((USER, "users"), (ITEM, "items")):
            path = self._checked(f"{file}.parquet")
            table = read_parquet(path)
            with read_back(path):
                names[column] = table[column]
        return names

    def _checked(self, name: str) -> Path:
        """The path of a file whose bytes were right when it was first asked for."""
        if name in self.digests and name not in self._right:
            check_file(self.folder / name, self.digests[name])
            self._right.add(name)
        return self.folder / name

    @cached_property
    def _right(self) -> set[str]:
        return set()

    def order(self, seed: int, apart: int = 1) -> Iterator[int]:
        """Numbers of shards without end: each once in random order, then again in another.

        Args:
            seed: Of the order.
            apart: So many numbers in a row are always different, also where one round ends and
                the next begins; at most as many as there are shards.
        """
        random = np.random.default_rng(seed)
        recent = deque(maxlen=apart - 1)
        while True:
            left = random.permutation(len(self)).tolist()
            while left:
                number = next(number for number in left if number not in recent)
                left.remove(number)
                recent.append(number)
                yield number

    @classmethod
    def read(cls, folder: str | Path) -> "Shards":
        """What `write_shards` wrote.

        Raises:
            FileNotFoundError: If there is nothing, or writing did not end.
            ValueError: If the list of files is damaged, or of an older version.
        """
        path = Path(folder) / _MANIFEST
        stored = read_checked(path)
        with read_back(path):
            return cls(
                folder=Path(folder),
                counts=checked_counts(stored["counts"]),
                fingerprint=stored["fingerprint"],
                digests=checked_digests(stored["digests"]),
            )


def write_shards(
    events: pl.DataFrame | pl.LazyFrame, folder: str | Path, *, num_shards: int
) -> Shards:
    """Divide events by user into Parquet files, without holding them all.

    The events are divided in one pass; then each file is sorted by user and time, so that reading
    one needs no sorting.

    Args:
        events: Cleaned events; `pl.scan_parquet("*.parquet")` for a log larger than memory.
        folder: A new or empty folder.
        num_shards: Number of files; users fall on them by a hash, so that there are fewer where
            users are few. One is in memory at a time.

    Raises:
        ValueError: If there is no event, a column or a user is missing, the folder is not empty, or
            `num_shards` is below 1.

    Example:
        >>> from tempfile import mkdtemp
        >>> from interestkit import clean, simulate
        >>> log, _ = clean(simulate(num_users=40, num_items=20, num_bots=0, faults=0))
        >>> shards = write_shards(log.events, mkdtemp(), num_shards=3)
        >>> len(shards), sum(len(shards.events(n)) for n in range(3)) == len(log.events)
        (3, True)
    """
    check_counts(1, num_shards=num_shards)
    check_not_sealed("shards")
    folder = Path(folder)
    check_new(folder)
    events = events.lazy()
    check_columns(pl.DataFrame(schema=events.collect_schema()), EVENT_COLUMNS, what="events")
    if num_missing := events.select(USER).null_count().collect(engine="streaming").item():
        raise ValueError(f"events: user must not be missing, got {num_missing} that are")
    folder.mkdir(parents=True, exist_ok=True)
    keyed = events.select(*EVENT_COLUMNS, shard=pl.col(USER).hash(seed=0) % num_shards)
    keyed.sink_parquet(files_by("shard", folder, part_name))
    counts, digests = [], {}
    for path in sorted(folder.iterdir()):  # numbers that no user falls on are closed up
        path = path.rename(folder / part_name(len(counts)))
        counts.append(_sort_by_user(path))
        digests[path.name] = sha256_of(path)
    if not counts:
        raise ValueError("events must hold at least one event, got none")
    fingerprint = hashlib.blake2b("".join(digests.values()).encode(), digest_size=16).hexdigest()
    facts = {"counts": counts, "fingerprint": fingerprint, "digests": digests}
    write_checked(folder / _MANIFEST, facts)
    return Shards.read(folder)


def files_by(column: str, folder: Path, name: Callable[[int], str]) -> pl.PartitionBy:
    """One file for each number in a column, without it, to be filled in one pass over rows."""
    return pl.PartitionBy(
        folder,
        key=column,
        include_key=False,
        approximate_bytes_per_file=None,
        file_path_provider=lambda part: name(part.partition_keys.item()),
    )


def checked_counts(stored: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Users and events of each file, as a manifest says them; ValueError if it cannot be."""
    counts = tuple((users, events) for users, events in stored)
    if not counts or not all(type(n) is int and 0 <= n < 2**31 for pair in counts for n in pair):
        raise ValueError("counts must be pairs of whole numbers from 0 on, at least one")
    return counts


def checked_digests(stored: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of each file, as a manifest says them; ValueError if it cannot be."""
    if not isinstance(stored, dict) or not all(isinstance(each, str) for each in stored.values()):
        raise ValueError("digests must name files and the sha256 of each")
    return stored


def _sort_by_user(path: Path) -> tuple[int, int]:
    """Sort the events of a file by user and time; returns how many there are of both."""
    table = pl.read_parquet(path, glob=False)
    users = table[USER].unique().sort()
    rank = pl.col(USER).cast(pl.Enum(users)).to_physical()  # numbers are compared sooner than names
    table = table.sort(rank, TIME, maintain_order=True)
    write_atomically(path, table.write_parquet)
    return len(users), len(table)


def prefetched(numbers: Iterator[int], make: Callable[[int], T]) -> Iterator[T]:
    """make(n) for each number; the next one is made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(make, number) for number in islice(numbers, 1))
        while ahead:
            ready = ahead.popleft().result()
            ahead.extend(pool.submit(make, number) for number in islice(numbers, 1))
            yield ready


def timed(parts: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Each with the seconds that it was waited for."""
    began = time.perf_counter()
    for part in parts:
        yield part, time.perf_counter() - began
        began = time.perf_counter()


def part_name(number: int) -> str:
    """Name of the file with this number."""
    return f"part-{number:05d}.parquet"
