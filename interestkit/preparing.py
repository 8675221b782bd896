"""From a log larger than memory to clean, coded, sorted events in shards, on Polars or Spark."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import narwhals as nw
import polars as pl

from interestkit.bounded import naming, read_back
from interestkit.engines import ENGINES, Done, Job, OnPolars, OnSpark
from interestkit.events import find_columns
from interestkit.files import check_new, read_checked, sha256_of, write_checked
from interestkit.limits import check_counts, check_one_of
from interestkit.rules import EVENTS, Rules, check_gap, times_at
from interestkit.schema import ITEM, KIND, SESSION, TIME, USER, VALUE, check_has_zone
from interestkit.shards import Shards, checked_counts, checked_digests, part_name
from interestkit.splitting import first_numbers, later_shares
from interestkit.storage import check_not_sealed
from interestkit.times import micros_of

_MANIFEST = "prepared.json"
_FORMAT = 2
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A log on disk that `prepare` has cleaned, coded, sorted and cut in time.

    The folder holds part-00000.parquet and so on: whole users, sorted by user and time, with the
    columns user and item (codes), time, kind, value and session. The row of users.parquet and
    items.parquet is the code: users in the order of their names, items from the most to the
    least frequent, ties in the order of the names.

    Args:
        folder: Where it lies.
        report: What each rule dropped, as `CleaningReport.table`.
        num_events: Events that are left.
        num_users: Users who are left.
        num_items: Items that are left.
        num_sessions: Sessions of all users together.
        cuts: First moment of the parts validation and test.
        counts: Part -> users and events of each file.
        settings: What `prepare` was told.
        fingerprint: Stands for the bytes of all files.
        digests: sha256 of each file.
    """

    folder: Path
    report: pl.DataFrame
    num_events: int
    num_users: int
    num_items: int
    num_sessions: int
    cuts: tuple[datetime, datetime]
    counts: Mapping[str, list[tuple[int, int]]]
    settings: Mapping[str, object]
    fingerprint: str
    digests: Mapping[str, str]

    def __repr__(self) -> str:
        parts = ", ".join(f"{part} {self.num_events_of(part):,}" for part in _PARTS)
        return (
            f"Prepared({str(self.folder)!r}: {self.num_events:,} events ({parts}), "
            f"{self.num_users:,} users, {self.num_items:,} items, {self.num_sessions:,} sessions)"
        )

    def num_events_of(self, part: str) -> int:
        """Events of a part: "train", "validation" or "test"."""
        check_one_of(_PARTS, part=part)
        return sum(events for _, events in self.counts[part])

    def shards(self, part: str = "train") -> Shards:
        """The events of a part in shards, with names for codes, for `fit` to read.

        Raises:
            ValueError: If the part is another one.
        """
        check_one_of(_PARTS, part=part)
        counts, number = self.counts[part], _PARTS.index(part)
        there = [n for n, (_, events) in enumerate(counts) if events > 0]
        return Shards(
            folder=self.folder,
            counts=tuple(counts[n] for n in there),
            fingerprint=f"{self.fingerprint}-{part}",
            files=tuple(part_name(n) for n in there),
            since=(None, *self.cuts)[number],
            until=(*self.cuts, None)[number],
            is_coded=True,
            digests=self.digests,
        )

    @classmethod
    def read(cls, folder: str | Path) -> "Prepared":
        """What `prepare` wrote.

        Raises:
            FileNotFoundError: If there is nothing.
            ValueError: If it is damaged, or a newer or older version wrote it.
        """
        folder = Path(folder)
        path = folder / _MANIFEST
        stored = read_checked(path)
        with read_back(path):
            del stored["sha256"]
            if (form := stored.pop("format")) > _FORMAT:
                raise ValueError(f"format must be at most {_FORMAT}, got {form}")
            stored["report"] = pl.DataFrame(stored["report"])
            stored["cuts"] = tuple(map(datetime.fromisoformat, stored["cuts"]))
            validation, test = stored["cuts"]
            check_has_zone(validation=validation, test=test)
            stored["counts"] = {part: checked_counts(stored["counts"][part]) for part in _PARTS}
            stored["digests"] = checked_digests(stored["digests"])
            return cls(folder=folder, **stored)


def prepare(
    events: str | Path | pl.DataFrame | pl.LazyFrame | object,
    folder: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    engine: str = "polars",
    num_shards: int = 16,
    gap_minutes: float = 30,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    **limits: object,
) -> Prepared:
    """A log larger than memory, cleaned, cut into sessions, coded, sorted and split, on disk.

    It does what `clean`, `add_sessions` and `temporal_split` do, in passes over the log that hold
    eight bytes of each event and one shard at a time. Of duplicates the one with the lowest value
    stays, a missing one before all. Events of a user at one moment are sorted by the names of item
    and kind.

    Args:
        events: Path of Parquet or CSV files on this machine (one, a folder, or a pattern such as
            "log/*.parquet"; a name that is there is no pattern), a Polars table, or a Spark table
            for engine="spark". Folders below a folder whose names are such as "kind=view" give a
            column; hidden ones are left out. Columns are user, item, time and optionally kind (one
            of `schema.KINDS`; "view" where there is none) and value. Times are UTC where they name
            no zone. Whole numbers and, except on Spark, text are read as `read_log` does, but each
            number is in the unit that its own size says: seconds since 1970, milliseconds from
            1e11 on, microseconds from 1e14, nanoseconds from 1e17. CSV is not for Spark, all of it
            is text: names keep their zeros. Blank text is missing.
        folder: Where to write, new or empty, neither a mount point nor the working folder; links
            are followed. It gets its name only when it is finished.
        columns: Our column name -> theirs; others are found by `schema.COLUMN_ALIASES`.
        engine: "polars" for one machine, "spark" for the cluster of the active Spark session.
        num_shards: Number of files; a user falls on one by a hash. About 3 times the bytes of
            one are in memory for each core.
        gap_minutes: Longest pause within a session.
        validation_share: Share of the events to choose settings on.
        test_share: Share of the events to report on.
        **limits: Fields of `rules.Rules`, as in `clean`; missing users, items and times always go.
            The 5-core of papers is `min_user_events=5, min_item_events=5`; it looks at the test
            period too.

    Raises:
        ValueError: If there is no file, one cannot be read or is compressed text, a column is
            missing or of another type, a kind is unknown, nothing is left, a part would be empty,
            the folder is not empty, or a setting is out of bounds.

    Example:
        >>> from tempfile import mkdtemp
        >>> from interestkit import simulate
        >>> prepare(simulate(num_users=100).events, mkdtemp(), num_shards=2)
        Prepared('...: ... events (train ..., validation ..., test ...), 100 users, ...)
    """
    settings = {"engine": engine, "num_shards": num_shards, "gap_minutes": gap_minutes}
    settings |= {"validation_share": validation_share, "test_share": test_share, "limits": limits}
    shares = later_shares(validation_share, test_share)
    rules, folder = Rules(**limits), Path(folder).resolve()
    _check_settings(engine, num_shards, gap_minutes, rules)
    check_not_sealed("prepared logs")
    check_new(folder)
    if folder.is_mount():
        raise ValueError(f"{folder}: must not be a mount point, which cannot be replaced")
    if folder == Path.cwd():
        raise ValueError(f"{folder}: must not be the working folder, which would be replaced")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # after an error Polars may still be writing where it was told to, which must not hide the error
    place = {"prefix": f".{folder.name}.", "dir": folder.parent}
    aside = tempfile.TemporaryDirectory(**place, ignore_cleanup_errors=True)
    with naming("events"), aside:
        rows = _canonical(events, columns or {}, ENGINES[engine])
        fresh = Path(aside.name) / "fresh"
        fresh.mkdir()
        done = ENGINES[engine].run(rows, Job(rules, fresh, num_shards, gap_minutes))
        facts = _facts(done, fresh, shares)
        write_checked(fresh / _MANIFEST, {"format": _FORMAT, "settings": settings, **facts})
        fresh.rename(folder)
    return Prepared.read(folder)


def _check_settings(engine: str, num_shards: int, gap_minutes: float, rules: Rules) -> None:
    check_one_of(ENGINES, engine=engine)
    check_counts(1, num_shards=num_shards)
    check_gap(gap_minutes)
    if not rules.missing:
        raise ValueError("missing must be True, got False: an event without a user has no shard")


def _canonical(events: object, columns: Mapping[str, str], engine: OnPolars | OnSpark):
    """The columns user, item, time, kind and value, in their types, of a table that is not read."""
    rows = engine.scan(events)
    schema = rows.collect_schema()
    found = find_columns(schema.names(), columns, source="events")
    if ITEM not in found:
        raise ValueError(f"events: no column found for item among {schema.names()}")
    for name in (USER, ITEM):
        dtype = schema[found[name]]
        if dtype.is_float() or dtype.is_nested() or dtype.is_temporal():
            raise ValueError(f"events: column {found[name]!r} must be text or integer, got {dtype}")
    rows = _with_times(rows, found[TIME], engine)
    kind = _named(found[KIND]) if KIND in found else nw.lit(None, nw.String)
    value = nw.col(found[VALUE]) if VALUE in found else nw.lit(None)
    if VALUE in found and schema[found[VALUE]] == nw.String:
        value = _named(found[VALUE]).str.strip_chars()
    return rows.select(
        *(_named(found[name]).alias(name) for name in (USER, ITEM)),
        nw.col(found[TIME]).alias(TIME),
        kind.fill_null("view").alias(KIND),
        value.cast(nw.Float64).alias(VALUE),
    )


def _named(column: str) -> nw.Expr:
    """A column as text, null where it is blank."""
    text = nw.col(column).cast(nw.String)
    return nw.when(text.str.strip_chars() != "").then(text)


def _with_times(rows: nw.LazyFrame, column: str, engine: OnPolars | OnSpark) -> nw.LazyFrame:
    """The rows with this column as UTC times in microseconds."""
    time, utc, dtype = nw.col(column), nw.Datetime("us", "UTC"), rows.collect_schema()[column]
    if dtype == utc:
        return rows
    if isinstance(dtype, nw.Datetime) and dtype.time_zone:
        return rows.with_columns(time.dt.convert_time_zone("UTC").cast(utc))
    if isinstance(dtype, nw.Datetime | nw.Date):
        return rows.with_columns(time.cast(nw.Datetime("us")).dt.replace_time_zone("UTC"))
    if dtype.is_integer():
        return engine.with_times(rows.with_columns(micros_of(time)), column)
    if dtype == nw.String:
        return engine.with_times(rows, column)
    raise ValueError(
        f"events: column {column!r} must be times, text or whole numbers since 1970, got {dtype}"
    )


def _facts(done: Done, folder: Path, shares: tuple[float, float]) -> dict[str, object]:
    """What the manifest says; the names of users and items are written beside it."""
    if done.users.is_empty():
        raise ValueError(f"events must leave at least one event, got none:\n{done.report}")
    num_events = done.users[EVENTS].sum()
    cuts = tuple(times_at(done.times, first_numbers(num_events, shares)))
    done.users.select(USER, EVENTS).write_parquet(folder / "users.parquet")
    done.items.select(ITEM, EVENTS).write_parquet(folder / "items.parquet")
    counts = [_count(path, cuts) for path in sorted(folder.glob("part-*.parquet"))]
    digests = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    facts = {
        "report": done.report.to_dicts(),
        "num_events": num_events,
        "num_users": len(done.users),
        "num_items": len(done.items),
        "num_sessions": sum(sessions for *_, sessions in counts),
        "cuts": [cut.isoformat() for cut in cuts],
        "fingerprint": hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
        "digests": digests,
        "counts": {part: [row[n] for row in counts] for n, part in enumerate(_PARTS)},
    }
    empty = [part for part, own in facts["counts"].items() if not sum(events for _, events in own)]
    if empty:
        raise ValueError(
            f"{' and '.join(empty)} would be empty: the {num_events:,} events are at too few "
            "different moments for these shares"
        )
    return facts


def _count(path: Path, cuts: tuple[datetime, datetime]) -> tuple:
    """Users and events of each part in a file, and its number of sessions."""
    rows = pl.read_parquet(path, columns=[USER, TIME, SESSION], glob=False)
    later = [rows[TIME] >= cut for cut in cuts]
    inside = [~later[0], later[0] & ~later[1], later[1]]
    parts = [rows[USER].filter(own) for own in inside]  # users are sorted
    last = rows.select(is_last=pl.col(USER).shift(-1).ne_missing(pl.col(USER)))["is_last"]
    sessions = rows[SESSION].filter(last).sum() + last.sum()
    return (*((own.rle_id().n_unique(), len(own)) for own in parts), sessions)
