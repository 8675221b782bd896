"""Cleaning of an event log by named rules, with a report of what was dropped and why."""

import html
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import narwhals as nw
import polars as pl

from interestkit.events import EventLog
from interestkit.schema import ITEM, KIND, KINDS, SESSION, TIME, USER, VALUE

_ROW = "row"  # position in the log that came, from 0
_DROP = "drop"
_KEYS = [USER, ITEM, TIME, KIND]
_REPORT_COLUMNS = {
    "rule": pl.String,
    "events_dropped": pl.Int64,
    "users_dropped": pl.Int64,
    "items_dropped": pl.Int64,
    "events_left": pl.Int64,
    "reason": pl.String,
}

# A rule: the reason that the report gives, and what adds a column of booleans, `_DROP`.
_Rule = tuple[str, Callable[[nw.LazyFrame], nw.LazyFrame]]


@dataclass(frozen=True, kw_only=True, eq=False)
class CleaningReport:
    """What each rule of `clean` dropped, and why.

    Args:
        table: One row per rule that was applied, in their order, after a row "read" for the
            log as it came: rule, events_dropped, users_dropped and items_dropped (those whose
            last event went with this rule), events_left and reason.
        examples: Up to three dropped events per rule: the rule, the row in the log that came
            (from 1), and the columns of the event.
    """

    table: pl.DataFrame
    examples: pl.DataFrame

    def __repr__(self) -> str:
        lines = (
            "{:<19}{:>12,} events {:>10,} users {:>10,} items, {:>12,} left: {}".format(*row)
            for row in self.table.rows()
        )
        return "\n".join(["CleaningReport (dropped by each rule)", *lines])

    def _repr_html_(self) -> str:
        rows = [self.table.columns, *self.table.rows()]
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        return f"<table>{body}</table>"


def clean(
    log: EventLog,
    *,
    missing: bool = True,
    impossible_time: bool = True,
    earliest: str | datetime = "1990-01-01",
    latest: str | datetime | None = None,
    value_range: tuple[float, float] | None = None,
    cancelled: bool = True,
    duplicates: bool = True,
    bots: bool = True,
    max_moments_per_hour: int = 900,
    max_hours_per_day: int = 20,
    kcore: bool = True,
    min_user_events: int = 5,
    min_item_events: int = 5,
) -> tuple[EventLog, CleaningReport]:
    """The log without events that say nothing true about a person, and what was dropped.

    The rules, in the order in which they are applied; a row counts under the first that drops it:

    - missing_user, missing_item, missing_time: the field is null.
    - impossible_time: before `earliest` or after `latest`.
    - value_out_of_range: the value lies outside `value_range`.
    - cancelled: a purchase of zero or fewer pieces.
    - duplicate: user, item, time and kind as in an earlier row; the first row stays. A row
      with one of them missing is no duplicate.
    - bot: all events of a user who has more than `max_moments_per_hour` different moments in
      one clock hour, or events in more than `max_hours_per_day` of the 24 clock hours of one
      UTC day. Moments are counted, not events, because a full shopping basket is many events
      at one moment. The limits are one act every four seconds for a whole hour, and more
      hours awake than a person has: a quick reader of a film list stays below the first.
      Where times are rounded to minutes or days, fewer bots can be seen.
    - rare: the user has fewer than `min_user_events` or the item fewer than `min_item_events`
      of the events that are left, repeated until all that are left have enough (the k-core).

    Args:
        log: The log to clean; it stays as it is.
        missing: Apply the three missing rules. Without them a missing user or item counts as
            one user or item in the rule rare.
        impossible_time: Apply the rule of that name.
        earliest: First possible moment, ISO 8601; UTC where it names no zone.
        latest: Last possible moment; None is the present.
        value_range: Lowest and highest possible value; None applies no such rule.
        cancelled: Apply the rule of that name.
        duplicates: Apply the rule duplicate.
        bots: Apply the rule bot.
        max_moments_per_hour: Different moments of one user in a clock hour, 1 or more.
        max_hours_per_day: Clock hours with events of one user in a UTC day, 1 to 24.
        kcore: Apply the rule rare.
        min_user_events: Events that each user must have, 1 or more.
        min_item_events: Events that each item must have, 1 or more.

    Returns:
        A log with the events that are left, in their order, and only the items they name; and
        the report. A log of which nothing is left is empty, with the same columns.

    Raises:
        ValueError: If a limit is out of its bounds or a pair of limits is empty.

    Example:
        >>> from interestkit.schema import EVENT_COLUMNS, ITEM_COLUMNS
        >>> row = {"user": None, "item": "a", "kind": "view"}
        >>> events = pl.DataFrame([row], schema=EVENT_COLUMNS)
        >>> log = EventLog(events=events, items=pl.DataFrame(schema=ITEM_COLUMNS), name="tiny")
        >>> cleaned, report = clean(log)
        >>> print(cleaned.num_events, report.table["events_dropped"].to_list())
        0 [0, 1, 0, 0, 0, 0, 0, 0, 0]
    """
    rules: dict[str, _Rule] = {}
    if missing:
        rules |= {f"missing_{name}": _missing(name) for name in (USER, ITEM, TIME)}
    if impossible_time:
        rules["impossible_time"] = _outside_time(earliest, latest)
    if value_range is not None:
        rules["value_out_of_range"] = _outside_values(*value_range)
    if cancelled:
        is_cancelled = (nw.col(KIND) == "purchase") & (nw.col(VALUE) <= 0)
        rules["cancelled"] = ("purchase of zero or fewer pieces", partial(_where, is_cancelled))
    if duplicates:
        rules["duplicate"] = (f"same {', '.join(_KEYS)} as an earlier row", _mark_duplicates)
    if bots:
        rules["bot"] = _bots(max_moments_per_hour, max_hours_per_day)
    if kcore:
        rules["rare"] = _rare(min_user_events, min_item_events)
    left, dropped = _apply(rules, log.events)
    is_left = pl.repeat(False, log.num_events, eager=True).scatter(left[_ROW], True)
    events = log.events.filter(is_left)
    items = log.items.join(events.lazy().select(ITEM).unique().collect(), on=ITEM, how="semi")
    report = CleaningReport(
        table=_count(rules, log.events, left, dropped), examples=_examples(log.events, dropped)
    )
    return replace(log, events=events, items=items), report


def _apply(
    rules: dict[str, _Rule], events: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """The rows that are left, and the rows that each rule dropped."""
    code = pl.col(USER, ITEM).cast(pl.Categorical(pl.Categories.random())).to_physical()
    kind = pl.col(KIND).cast(pl.Enum(KINDS))
    left = events.select(code, TIME, kind, VALUE).with_row_index(_ROW)
    dropped = {}
    for name, (_, mark) in rules.items():
        marked = mark(nw.from_native(left.lazy())).collect().to_native()
        dropped[name] = marked.filter(_DROP).select(_ROW, USER, ITEM)
        left = marked.filter(~pl.col(_DROP)).drop(_DROP) if len(dropped[name]) > 0 else left
    return left, dropped


def _where(condition: nw.Expr, rows: nw.LazyFrame) -> nw.LazyFrame:
    """Mark the rows of which the condition is true; it is not where a field is missing."""
    return rows.with_columns(condition.fill_null(False).alias(_DROP))


def _missing(column: str) -> _Rule:
    return f"no {column}", partial(_where, nw.col(column).is_null())


def _outside_time(earliest: str | datetime, latest: str | datetime | None) -> _Rule:
    first = _moment("earliest", earliest)
    last = _moment("latest", datetime.now(UTC) if latest is None else latest)
    if first > last:
        raise ValueError(f"earliest must not be after latest, got {first} and {last}")
    is_outside = (nw.col(TIME) < first) | (nw.col(TIME) > last)
    return f"before {first:%Y-%m-%d} or after {last:%Y-%m-%d %H:%M} UTC", partial(
        _where, is_outside
    )


def _moment(name: str, when: str | datetime) -> datetime:
    """A moment in UTC, which is also the zone of a moment without one."""
    try:
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
    except ValueError as error:
        raise ValueError(f"{name} must be ISO 8601, got {when!r}") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _outside_values(low: float, high: float) -> _Rule:
    if low > high:
        raise ValueError(f"value_range must be (lowest, highest), got {(low, high)}")
    is_outside = (nw.col(VALUE) < low) | (nw.col(VALUE) > high)
    return f"value below {low} or above {high}", partial(_where, is_outside)


def _mark_duplicates(rows: nw.LazyFrame) -> nw.LazyFrame:
    """Mark each row that has the keys of an earlier one."""
    first = nw.col(_ROW).min().alias("first")
    repeated = rows.group_by(_KEYS).agg(first, nw.len().alias("num_rows"))
    repeated = repeated.filter(nw.col("num_rows") > 1).drop("num_rows")
    joined = rows.join(repeated, on=_KEYS, how="left")
    return _where(nw.col(_ROW) > nw.col("first"), joined).drop("first")


def _bots(max_moments_per_hour: int, max_hours_per_day: int) -> _Rule:
    _check_bounds("max_moments_per_hour", max_moments_per_hour, 1)
    _check_bounds("max_hours_per_day", max_hours_per_day, 1, 24)
    reason = (
        f"user with more than {max_moments_per_hour} moments in an hour "
        f"or events in more than {max_hours_per_day} hours of a day"
    )
    return reason, partial(_mark_bots, max_moments_per_hour, max_hours_per_day)


def _mark_bots(
    max_moments_per_hour: int, max_hours_per_day: int, rows: nw.LazyFrame
) -> nw.LazyFrame:
    """Mark all rows of the users who pass one of the limits."""
    timed = rows.select(USER, TIME, hour=nw.col(TIME).dt.truncate("1h")).drop_nulls()
    hours = timed.group_by(USER, "hour").agg(nw.len().alias("num_rows"))
    busy = hours.filter(nw.col("num_rows") > max_moments_per_hour)  # moments are never more
    moments = timed.join(busy, on=[USER, "hour"], how="semi").group_by(USER, "hour")
    fast = moments.agg(nw.col(TIME).n_unique()).filter(nw.col(TIME) > max_moments_per_hour)
    days = hours.with_columns(nw.col("hour").dt.truncate("1d")).group_by(USER, "hour")
    sleepless = days.agg(nw.len().alias("num_hours")).filter(
        nw.col("num_hours") > max_hours_per_day
    )
    bots = nw.concat([fast.select(USER), sleepless.select(USER)]).unique()
    joined = rows.join(bots.with_columns(is_bot=nw.lit(True)), on=USER, how="left")
    return _where(nw.col("is_bot"), joined).drop("is_bot")


def _rare(min_user_events: int, min_item_events: int) -> _Rule:
    _check_bounds("min_user_events", min_user_events, 1)
    _check_bounds("min_item_events", min_item_events, 1)
    reason = f"user with under {min_user_events} or item with under {min_item_events} events left"
    return reason, partial(_mark_rare, min_user_events, min_item_events)


def _mark_rare(min_user_events: int, min_item_events: int, rows: nw.LazyFrame) -> nw.LazyFrame:
    """Mark the rows outside the k-core."""
    is_common = (nw.len().over(USER) >= min_user_events) & (nw.len().over(ITEM) >= min_item_events)
    core = rows.select(_ROW, USER, ITEM).collect()
    num_before = len(core) + 1
    while len(core) < num_before:
        num_before = len(core)
        core = core.lazy().filter(is_common).collect()
    in_core = core.lazy().select(_ROW, in_core=nw.lit(True))
    return _where(nw.col("in_core").is_null(), rows.join(in_core, on=_ROW, how="left")).drop(
        "in_core"
    )


def _check_bounds(name: str, value: int, low: int, high: float = float("inf")) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, got {value}")


def _count(
    rules: dict[str, _Rule],
    events: pl.DataFrame,
    left: pl.DataFrame,
    dropped: dict[str, pl.DataFrame],
) -> pl.DataFrame:
    """The table of the report."""
    users, items = (_count_last(column, left, dropped) for column in (USER, ITEM))
    rows = [("read", 0, 0, 0, len(events), "the log as it came")]
    for name, (reason, _) in rules.items():
        num_left = rows[-1][4] - len(dropped[name])
        rows.append((name, len(dropped[name]), users[name], items[name], num_left, reason))
    return pl.DataFrame(rows, schema=_REPORT_COLUMNS, orient="row")


def _count_last(
    column: str, left: pl.DataFrame, dropped: dict[str, pl.DataFrame]
) -> dict[str, int]:
    """Rule -> number of different values of the column whose last row went with that rule."""
    gone = {}
    seen = left.lazy().select(column).unique().collect()
    for name, rows in reversed(dropped.items()):
        new = rows.select(column).drop_nulls().unique().join(seen, on=column, how="anti")
        gone[name] = len(new)
        seen = pl.concat([seen, new])
    return gone


def _examples(events: pl.DataFrame, dropped: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Up to three dropped events of each rule."""
    parts = [events.clear().select(pl.lit("").alias("rule"), pl.lit(0).alias(_ROW), pl.all())]
    for name, rows in dropped.items():
        first = rows[_ROW].sort().head(3)
        part = events[first].select(pl.lit(name).alias("rule"), pl.all())
        parts.append(part.insert_column(1, (first + 1).cast(pl.Int32)))
    return pl.concat(parts)


def add_sessions(events: pl.DataFrame, *, gap_minutes: float = 30) -> pl.DataFrame:
    """The events with a column "session": the number of the user's visit, from 0.

    A session ends where the next event of the user comes more than `gap_minutes` later.

    Args:
        events: Events in any order, none without user or time.
        gap_minutes: Longest pause within a session, in minutes, 0 or more.

    Returns:
        The events in their order, with an integer column "session".

    Raises:
        ValueError: If a user or time is missing, or the gap is negative.

    Example:
        >>> times = pl.Series([0, 29, 60]) * 60_000_000
        >>> events = pl.DataFrame({"user": "u", "time": times.cast(pl.Datetime("us", "UTC"))})
        >>> add_sessions(events)["session"].to_list()
        [0, 0, 1]

    Source:
        The pause of 30 minutes is a convention; Catledge and Pitkow (1995), Computer Networks
        and ISDN Systems 27(6), doi:10.1016/0169-7552(95)00043-7, measured 25.5.
    """
    if gap_minutes < 0:
        raise ValueError(f"gap_minutes must be 0 or more, got {gap_minutes}")
    num_missing = events.select(pl.any_horizontal(pl.col(USER, TIME).is_null()).sum()).item()
    if num_missing > 0:
        raise ValueError(f"events: user and time must not be missing, got {num_missing} that are")
    order = [TIME, _ROW]
    gap = nw.col(TIME) - nw.col(TIME).shift(1).over(USER, order_by=order)
    is_new = (gap > timedelta(minutes=gap_minutes)).fill_null(False).cast(nw.Int64)
    return (
        nw.from_native(events.lazy().with_row_index(_ROW))
        .with_columns(is_new.alias(SESSION))
        .with_columns(nw.col(SESSION).cum_sum().over(USER, order_by=order))
        .sort(_ROW)
        .drop(_ROW)
        .collect()
        .to_native()
    )
