"""Cutting a log into what may be learnt from and what is held out, along time."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from interestkit import reprs, schema
from interestkit.bounded import read_back
from interestkit.events import EventLog
from interestkit.limits import check_one_of, check_within
from interestkit.schema import ITEM, KIND, TEXT, TIME, USER, VALUE
from interestkit.storage import load_folder, save_folder

_SHARE = "new_item_share"
_TABLES = ("train", "validation", "test", "items", "moments_validation", "moments_test")


class SplitWarning(UserWarning):
    """A split leaves so few users to judge that results would be mostly chance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """A log in three parts, and the moment at which each user of a part is predicted.

    Args:
        train: Events to learn from, sorted by user and time; events of a user at one moment are
            sorted by item, kind, value and text, or after leave-last-out keep the order of the log.
            So are `validation` and `test`.
        validation: Events to choose settings on.
        test: Events to report on.
        items: One row per item of the log.
        moments_validation: Each user of `validation`, with the time before which events may be
            known when that user is predicted (columns user and time). After a split in time it
            is the same for all.
        moments_test: The same for `test`.
        method: "temporal", "leave-last-out", or "random": held-out events drawn without regard
            to time, as some published numbers have it. Only the first leaks nothing.
        name: Name of the log.

    Raises:
        ValueError: If a table lacks a column, an item has two rows, or `method` is another one.
    """

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    items: pl.DataFrame
    moments_validation: pl.DataFrame
    moments_test: pl.DataFrame
    method: str
    name: str

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            schema.check_columns(getattr(self, part), schema.EVENT_COLUMNS, what=part)
        schema.check_items(self.items)
        moment = {USER: pl.String, TIME: schema.EVENT_COLUMNS[TIME]}
        for table in ("moments_validation", "moments_test"):
            schema.check_columns(getattr(self, table), moment, what=table)
        check_one_of(("temporal", "leave-last-out", "random"), method=self.method)

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{part} {len(getattr(self, part)):,}" for part in ("train", "validation", "test")
        )
        return f"Split({self.name!r}, {self.method}: {parts} events)"

    def _repr_html_(self) -> str:
        return reprs.of_split(self)

    def before(self, part: str) -> pl.DataFrame:
        """Events that may be known when the users of a part are predicted.

        For "validation" these come from `train`, for "test" from `train` and `validation`. Of
        a user of the part only events strictly before the user's moment are among them. They are
        sorted by user and time.

        Raises:
            ValueError: If `part` is another one.
        """
        moments = self._moments(part).rename({TIME: "moment"})
        return (
            self._parts_before(part)
            .lazy()
            .join(moments.lazy(), on=USER, how="left", maintain_order="left")
            .filter(pl.col("moment").is_null() | (pl.col(TIME) < pl.col("moment")))
            .drop("moment")
            .sort(USER, TIME, maintain_order=True)
            .collect()
        )

    def cut(self, part: str) -> datetime | None:
        """The moment at which "validation" or "test" begins; None where each user has their own.

        Raises:
            ValueError: If `part` is another one.
        """
        moments = self._moments(part)
        return moments[TIME].min() if self.method == "temporal" else None

    def judged_users(self, part: str) -> pl.Series:
        """Names of users of "validation" or "test" with an event before their moment, sorted.

        Raises:
            ValueError: If `part` is another one.
        """
        first = self._parts_before(part).group_by(USER).agg(pl.col(TIME).min().alias("first"))
        users = self._moments(part).join(first, on=USER)
        return users.filter(pl.col("first") < pl.col(TIME))[USER].sort()

    def summary(self) -> pl.DataFrame:
        """Size and time of the parts.

        Returns:
            One row per part: part, start, end (times of its first and last event), events,
            users, items, judged_users, and new_item_share (the share of its events on items
            without an event in the parts before); the last two are null for "train".
        """
        rows = []
        for part in ("train", "validation", "test"):
            events = getattr(self, part)
            row = {"part": part, "start": events[TIME].min(), "end": events[TIME].max()}
            row |= {"events": len(events), "users": events[USER].n_unique()}
            row |= {"items": events[ITEM].n_unique(), "judged_users": None, _SHARE: None}
            if part != "train":
                old = self._parts_before(part)[ITEM].unique().implode()
                row["judged_users"] = len(self.judged_users(part))
                row[_SHARE] = (~events[ITEM].is_in(old)).mean()
            rows.append(row)
        return pl.DataFrame(rows, schema_overrides={"judged_users": pl.Int64, _SHARE: pl.Float64})

    def save(self, folder: str | Path) -> Path:
        """The folder, to which the split is written whole; `Split.load` reads it."""
        tables = {table: getattr(self, table) for table in _TABLES}
        meta = {"method": self.method, "name": self.name}
        return save_folder(folder, kind="split", tables=tables, meta=meta)

    @classmethod
    def load(cls, folder: str | Path) -> "Split":
        """The split that `save` wrote; errors as in `storage.load_folder`."""
        stored = load_folder(folder, kind="split")
        with read_back(folder):
            return cls(**stored.tables, **stored.meta)

    def _moments(self, part: str) -> pl.DataFrame:
        if part not in ("validation", "test"):
            raise ValueError(f"part must be 'validation' or 'test', got {part!r}")
        return getattr(self, f"moments_{part}")

    def _parts_before(self, part: str) -> pl.DataFrame:
        return self.train if part == "validation" else pl.concat([self.train, self.validation])


def temporal_split(
    log: EventLog,
    *,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    min_judged: int = 200,
) -> Split:
    """The log cut at two moments that are the same for all users.

    With n events in the order of time, the test part begins at the time of event number
    n - round(n test_share) (the first has number 0), the validation part at that of event
    number n - round(n (validation_share + test_share)). All events at one moment go to the
    same part, the later one where the cut meets them; so no event in `train` is at or after
    any event that is held out.

    Args:
        log: A cleaned log: every event has user, item and time.
        validation_share: Share of the events to choose settings on, in (0, 1).
        test_share: Share of the events to report on, in (0, 1); with `validation_share` it
            makes less than 1. Ties can make both parts larger.
        min_judged: Warn if fewer users than this can be judged in a part.

    Raises:
        ValueError: If a share is outside its limits, the log is not clean, or a part would be
            empty.

    Warns:
        SplitWarning: If fewer than `min_judged` users of a part have an event before it.

    Example:
        >>> from interestkit.simulation import simulate
        >>> log = simulate(num_users=100, num_bots=0, faults=0)
        >>> temporal_split(log, min_judged=50)
        Split('simulated', temporal: train ..., validation ..., test ... events)

    Source:
        Meng et al. (2020), Exploring data splitting strategies for the evaluation of
        recommendation models, RecSys, doi:10.1145/3383313.3418479 (global temporal split).
    """
    shares = later_shares(validation_share, test_share)
    check_clean(log)
    times = log.events[TIME].sort()
    first_validation, first_test = (times[n] for n in first_numbers(len(times), shares))
    time = pl.col(TIME)
    split = _make_split(
        log,
        {
            "train": time < first_validation,
            "validation": (time >= first_validation) & (time < first_test),
            "test": time >= first_test,
        },
        moments={"validation": pl.lit(first_validation), "test": pl.lit(first_test)},
        method="temporal",
    )
    empty = [part for part in ("train", "validation") if len(getattr(split, part)) == 0]
    if empty:
        raise ValueError(
            f"{' and '.join(empty)} would be empty: the {len(times)} events are at too few "
            f"different moments ({times.n_unique()}) for these shares"
        )
    _warn_if_few(split, min_judged)
    return split


def later_shares(validation_share: float, test_share: float) -> tuple[float, float]:
    """Shares of the events after the two cuts of `temporal_split`.

    Raises:
        ValueError: If a share is outside its limits.
    """
    check_within("(0, 1)", validation_share=validation_share, test_share=test_share)
    if validation_share + test_share >= 1:
        both = f"{validation_share} + {test_share}"
        raise ValueError(f"validation_share + test_share must be below 1, got {both}")
    return validation_share + test_share, test_share


def first_numbers(num_events: int, shares: Iterable[float]) -> list[int]:
    """Number, in the order of time from 0, of the first event after each cut."""
    return [min(num_events - 1, num_events - round(num_events * share)) for share in shares]


def leave_last_out(log: EventLog) -> Split:
    """The log without each user's last event (test) and the one before it (validation).

    This leaks across users: when a user is predicted, `train` holds what others did later,
    such as how popular an item became. Numbers from it can be set beside published ones of the
    same protocol, and never beside those of a split in time.

    The last of several events at one moment is the one that comes last in the log. `before`
    leaves out the others at that moment, as in a basket, though they are in `train`. Users
    with fewer than three events stay in `train` with all of them.

    Args:
        log: A cleaned log: every event has user, item and time.

    Raises:
        ValueError: If the log is not clean, or no user has three events.

    Example:
        >>> from interestkit.simulation import simulate
        >>> split = leave_last_out(simulate(num_users=9, num_bots=0, faults=0))
        >>> len(split.test), split.test["user"].n_unique()
        (9, 9)

    Source:
        Kang and McAuley (2018), Self-attentive sequential recommendation, ICDM,
        doi:10.1109/ICDM.2018.00035.
    """
    check_clean(log)
    from_end = pl.int_range(pl.len(), 0, -1).over(USER)  # 1 for the last event in time
    is_long = pl.len().over(USER) >= 3
    split = _make_split(
        log,
        {
            "train": ~is_long | (from_end > 2),
            "validation": is_long & (from_end == 2),
            "test": is_long & (from_end == 1),
        },
        moments={"validation": pl.col(TIME), "test": pl.col(TIME)},
        method="leave-last-out",
    )
    if len(split.test) == 0:
        raise ValueError("no user of the log has three events, so none can be held out")
    return split


def check_clean(log: EventLog, *, before: str = "it is split") -> None:
    """Raise ValueError if there is no event, or one lacks user, item or time."""
    if log.num_events == 0:
        raise ValueError("the log has no events")
    check_whole(log.events, before=before)


def check_whole(events: pl.DataFrame, *, before: str) -> None:
    """Raise ValueError if an event lacks user, item or time."""
    missing = events.select(pl.col(USER, ITEM, TIME).null_count()).row(0, named=True)
    lost = [f"{count:,} without {column}" for column, count in missing.items() if count]
    if lost:
        raise ValueError(
            f"every event must have user, item and time, got {', '.join(lost)}; "
            f"clean the log before {before}"
        )


def _make_split(
    log: EventLog, conditions: dict[str, pl.Expr], *, moments: dict[str, pl.Expr], method: str
) -> Split:
    """The split whose parts are the events, sorted by user and time, that meet a condition.

    After a split in time, events of a user at one moment are in the order of their fields, so that
    the order of the log's rows changes nothing; otherwise the log's order says which is the last.
    """
    ties = (ITEM, KIND, VALUE, TEXT) if method == "temporal" else ()
    events = log.events.select(list(schema.EVENT_COLUMNS))
    events = events.sort(USER, TIME, *ties, maintain_order=True)
    parts = {part: events.filter(condition) for part, condition in conditions.items()}
    when = {
        f"moments_{part}": parts[part]
        .select(USER, moment.cast(schema.EVENT_COLUMNS[TIME]).alias(TIME))
        .unique(USER, keep="first", maintain_order=True)
        for part, moment in moments.items()
    }
    return Split(**parts, **when, items=log.items, method=method, name=log.name)


def _warn_if_few(split: Split, min_judged: int) -> None:
    few = []
    for part in ("validation", "test"):
        num_judged = len(split.judged_users(part))
        if num_judged < min_judged:
            num_users = getattr(split, part)[USER].n_unique()
            few.append(f"{num_judged:,} of {num_users:,} {part} users")
    if few:
        warnings.warn(
            f"only {' and '.join(few)} of {split.name!r} can be judged, fewer than {min_judged}: "
            "a user without an event before the cut cannot be, because the whole life of that "
            "user in the log is on one side of it. Intervals will be wide; consider "
            "leave_last_out(log), which judges most users but leaks across them",
            SplitWarning,
            stacklevel=3,
        )
