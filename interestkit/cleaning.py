"""Cleaning of an event log by named rules, with a report of what was dropped and why."""

from dataclasses import dataclass, replace
from datetime import timedelta

import narwhals as nw
import polars as pl

from interestkit import reprs
from interestkit.events import EventLog
from interestkit.limits import check_above_0, check_at_least, check_counts
from interestkit.rules import STAGE, Rules, check_gap, in_place, with_sessions
from interestkit.schema import ITEM, KIND, KINDS, SESSION, TIME, USER

_ROW = "row"  # position in the log that came, from 0
_NOBODY = 2**32 - 1  # stands for a missing user or item


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
        return reprs.of_cleaning(self)


def clean(log: EventLog, **limits: object) -> tuple[EventLog, CleaningReport]:
    """The log without events that say nothing true about a person, and what was dropped.

    The rules are those of `rules.Rules`, in this order; a row counts under the first that drops it:
    missing_user, missing_item, missing_time; impossible_time; value_out_of_range; cancelled (a
    purchase of zero or fewer pieces); duplicate (the first row stays); bot (all events of a user
    who is too fast or never sleeps); rare (the k-core: users and items with too few events).

    By default nobody is rare: the rule counts the whole log, so that events of the test period
    would decide who is judged. `fit_features(min_item_events=5)` has no such leak;
    `clean(log, min_user_events=5, min_item_events=5)` is the 5-core of papers.

    Args:
        log: The log to clean; it stays as it is.
        **limits: Fields of `rules.Rules` that differ from their defaults. Switches: missing,
            impossible_time, cancelled, duplicates, bots, kcore. Limits: earliest, latest,
            value_range, max_moments_per_hour=900, max_hours_per_day=20, min_user_events=1,
            min_item_events=1.

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
    rules = Rules(**limits)
    left, dropped = rules.divide(_coded(log.events, rules), in_place)
    pairs = left.lazy().with_columns(nw.col(USER, ITEM).fill_null(_NOBODY))
    counts, _ = rules.core(pairs.select(USER, ITEM), lambda rows: rows.collect().lazy())
    for column, kept in counts.items():
        pairs = pairs.join(kept, on=column, how="semi")
    kept = pairs.select(_ROW).collect()
    is_left = pl.repeat(False, log.num_events, eager=True).scatter(kept.to_native()[_ROW], True)
    rare = left.join(kept, on=_ROW, how="anti").select(*dropped.columns[:-1])
    last = nw.lit(len(rules.reasons) - 1, nw.Int8)
    dropped = nw.concat([dropped, rare.with_columns(last.alias(STAGE))])
    events = log.events.filter(is_left)
    items = log.items.join(events.lazy().select(ITEM).unique().collect(), on=ITEM, how="semi")
    report = CleaningReport(
        table=rules.report(dropped.lazy(), counts),
        examples=_examples(log.events, dropped.to_native(), list(rules.reasons)),
    )
    return replace(log, events=events, items=items), report


def _coded(events: pl.DataFrame, rules: Rules) -> nw.DataFrame:
    """The events with numbers for names, sorted so that those of a user come in their order."""
    rows = nw.from_native(events.with_row_index(_ROW)).with_columns(rules.stage()).to_native()
    code = pl.col(USER, ITEM).cast(pl.Categorical(pl.Categories.random())).to_physical()
    kind = pl.col(KIND).cast(pl.Enum(KINDS))
    rows = rows.select(_ROW, code, TIME, kind, STAGE)
    return nw.from_native(rows.sort(USER, TIME, ITEM, KIND, _ROW))


def _examples(events: pl.DataFrame, dropped: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Up to three dropped events of each rule."""
    first = dropped.sort(STAGE, _ROW).group_by(STAGE, maintain_order=True).head(3)
    rule = pl.Series("rule", [names[stage] for stage in first[STAGE]], pl.String)
    return events[first[_ROW]].select(rule, (first[_ROW] + 1).cast(pl.Int32), pl.all())


def add_sessions(events: pl.DataFrame, *, gap_minutes: float = 30) -> pl.DataFrame:
    """The events with a column "session": the number of the user's visit, from 0.

    A session ends where the next event of the user comes more than `gap_minutes` later.

    Args:
        events: Events in any order, none without user or time.
        gap_minutes: Longest pause within a session, in minutes, from 0 to 1e9.

    Returns:
        The events in their order, with an integer column "session".

    Raises:
        ValueError: If a user or time is missing, or the gap is out of its bounds.

    Example:
        >>> times = pl.Series([0, 29, 60]) * 60_000_000
        >>> events = pl.DataFrame({"user": "u", "time": times.cast(pl.Datetime("us", "UTC"))})
        >>> add_sessions(events)["session"].to_list()
        [0, 0, 1]

    Source:
        The pause of 30 minutes is a convention; Catledge and Pitkow (1995), Computer Networks
        and ISDN Systems 27(6), doi:10.1016/0169-7552(95)00043-7, measured 25.5.
    """
    check_gap(gap_minutes)
    num_missing = events.select(pl.any_horizontal(pl.col(USER, TIME).is_null()).sum()).item()
    if num_missing > 0:
        raise ValueError(f"events: user and time must not be missing, got {num_missing} that are")
    rows = events.select(USER, TIME).with_row_index(_ROW).sort(USER, TIME, _ROW)
    numbers = with_sessions(nw.from_native(rows), in_place, gap_minutes).to_native()
    return events.with_columns(numbers.sort(_ROW)[SESSION])


def without_bursts(
    events: pl.DataFrame, *, cap: float = 1.0, floor: int = 2, days: float | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The events without those by which many new accounts at once push an item, and what went.

    An event of a user's first `days` counts as that of a newcomer, unless the log was as young
    itself: nobody can be told there. Over all items there are r newcomers for each established
    user. An item keeps max(`floor`, `cap` r e) newcomers, where e is the number of its established
    users, those who came to it first; of the others all events with that item go. An item that is
    pushed so gets about the newcomers that its established users lead to expect. Accounts that
    were aged before they are used are not held back, and those that touch many other items raise r.

    Meant for what is learned from (`split.before("test")`), never for what is judged.

    Args:
        events: Cleaned events, canonical columns.
        cap: Times the usual share of newcomers that an item may have, at least 1.
        floor: Newcomers that every item may have, at least 0.
        days: How long a user is new, above 0; None takes a twelfth of the span of the log.

    Returns:
        The events that are left, in their order, and a table of the items that lost some: item,
        established, newcomers and kept (numbers of users), most newcomers first.

    Raises:
        ValueError: If an option is out of its bounds.

    Example:
        >>> from interestkit.simulation import simulate
        >>> log, _ = clean(simulate(num_users=200, num_bots=0, faults=0))
        >>> left, items = without_bursts(log.events)
        >>> len(log.events) - len(left) < 0.01 * len(log.events)
        True
    """
    check_at_least(1, cap=cap)
    check_counts(0, floor=floor)
    check_above_0(**({} if days is None else {"days": days}))
    span = events[TIME].max() - events[TIME].min() if len(events) else timedelta(0)
    youth = span / 12 if days is None else timedelta(days=days)
    time, born = pl.col(TIME), pl.col(TIME).min()
    is_new = (time < born.over(USER) + youth) & (time >= born + youth)
    pairs = (
        events.with_columns(is_new=is_new)
        .group_by(ITEM, USER)
        .agg(pl.col("is_new").all(), since=time.min())
        .sort(ITEM, "since", USER)
    )
    new = pl.col("is_new")
    share = pairs["is_new"].sum() / max((~pairs["is_new"]).sum(), 1)
    of_item = {"established": (~new).sum().over(ITEM), "newcomers": new.sum().over(ITEM)}
    allowed = pl.max_horizontal(pl.lit(floor), (pl.col("established") * cap * share).ceil())
    pairs = pairs.with_columns(**of_item).with_columns(kept=allowed)
    lost = pairs.filter(new & (new.cum_sum().over(ITEM) > pl.col("kept")))
    columns = (ITEM, "established", "newcomers", pl.col("kept").cast(pl.Int64))
    items = lost.select(*columns).unique().sort(["newcomers", ITEM], descending=[True, False])
    left = events.join(lost.select(ITEM, USER), on=[ITEM, USER], how="anti", maintain_order="left")
    return left, items
