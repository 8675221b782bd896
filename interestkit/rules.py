"""Rules of cleaning, sessions and cuts in time, written once for Polars and Spark (Narwhals).

Rules that look at neighbouring rows want the events of a user one after the other. `By` says how
they get there: `in_place` where a table is sorted by user and `ORDER`, or `windows` where rows have
no order, as on Spark.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

import narwhals as nw
import polars as pl

from interestkit.limits import check_counts, check_up_to, check_within
from interestkit.schema import ITEM, KIND, SESSION, TIME, USER, VALUE

EVENTS = "events"  # number of events of a user or an item
STAGE = "stage"  # number of the rule that drops the row; the number of rules where none does
KEYS = (USER, ITEM, TIME, KIND)
ORDER = (TIME, ITEM, KIND, VALUE)  # of the events of a user; of duplicates the first one stays
_MARK = "mark"
_REPORT_COLUMNS = {
    "rule": pl.String,
    "events_dropped": pl.Int64,
    "users_dropped": pl.Int64,
    "items_dropped": pl.Int64,
    "events_left": pl.Int64,
    "reason": pl.String,
}

Frame = nw.DataFrame | nw.LazyFrame
Run = Callable[[nw.Expr], nw.Expr]
By = Callable[..., Run]  # names of columns -> what puts an expression over a user's rows so ordered
Keep = Callable[[nw.LazyFrame], nw.LazyFrame]


def in_place(*_: str) -> Run:
    """Expressions stay as they are: the table is sorted by user and order."""
    return lambda expression: expression


def windows(*order: str) -> Run:
    """Expressions over the events of each user in this order."""
    return lambda expression: expression.over(USER, order_by=order)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which events are dropped, in the order in which the rules are applied.

    - missing_user, missing_item, missing_time: the field is null.
    - impossible_time: before `earliest` or after `latest`.
    - value_out_of_range: the value lies outside `value_range`.
    - cancelled: a purchase of zero or fewer pieces.
    - duplicate: user, item, time and kind as in an earlier row. A row with one of them missing
      is no duplicate.
    - bot: all events of a user who has more than `max_moments_per_hour` different moments in
      one clock hour, or events in more than `max_hours_per_day` of the 24 clock hours of one
      UTC day. Moments are counted, not events, because a full shopping basket is many events
      at one moment. The limits are one act every four seconds for a whole hour, and more
      hours awake than a person has: a quick reader of a film list stays below the first.
      Where times are rounded to minutes or days, fewer bots can be seen.
    - rare: the user has fewer than `min_user_events` or the item fewer than `min_item_events`
      of the events that are left, repeated until all that are left have enough (the k-core). The
      minima are 1, which drops nothing: counted over the whole log, events of the test period would
      decide who is judged, and on what. A threshold without that leak is
      `fit_features(min_item_events=5)`; 5 and 5 here is the 5-core of papers.

    Args:
        missing: Apply the three missing rules. Without them a missing user or item counts as
            one user or item in the rule rare.
        impossible_time, cancelled, duplicates, bots, kcore: Apply the rules impossible_time,
            cancelled, duplicate, bot and rare.
        earliest: First possible moment, ISO 8601 or a date; UTC where it names no zone.
        latest: Last possible moment; None is the present.
        value_range: Lowest and highest possible value; None applies no such rule.
        max_moments_per_hour: Different moments of one user in a clock hour, 1 or more.
        max_hours_per_day: Clock hours with events of one user in a UTC day, 1 to 24.
        min_user_events: Events that each user must have, 1 or more.
        min_item_events: Events that each item must have, 1 or more.

    Raises:
        ValueError: If a limit is out of its bounds or a pair of limits is empty.
    """

    missing: bool = True
    impossible_time: bool = True
    earliest: str | date = "1990-01-01"
    latest: str | date | None = None
    value_range: tuple[float, float] | None = None
    cancelled: bool = True
    duplicates: bool = True
    bots: bool = True
    max_moments_per_hour: int = 900
    max_hours_per_day: int = 20
    kcore: bool = True
    min_user_events: int = 1
    min_item_events: int = 1

    def __post_init__(self) -> None:
        counts = ("max_moments_per_hour", "min_user_events", "min_item_events")
        check_counts(1, **{name: getattr(self, name) for name in counts})
        check_up_to(24, "hours of a day", max_hours_per_day=self.max_hours_per_day)
        ends = self.value_range
        if ends is not None and not (len(ends) == 2 and ends[0] <= ends[1]):
            raise ValueError(f"value_range must be (lowest, highest), got {ends}")
        first, last = self.times
        if first > last:
            raise ValueError(f"earliest must not be after latest, got {first} and {last}")

    @cached_property
    def times(self) -> tuple[datetime, datetime]:
        """First and last possible moment, in UTC."""
        latest = datetime.now(UTC) if self.latest is None else self.latest
        return _moment("earliest", self.earliest), _moment("latest", latest)

    @cached_property
    def reasons(self) -> dict[str, str]:
        """The rules that are applied, in their order, and what the report says of each."""
        rules = {name: reason for name, (reason, _) in self._conditions.items()}
        if self.duplicates:
            rules["duplicate"] = f"same {', '.join(KEYS)} as an earlier row"
        if self.bots:
            rules["bot"] = (
                f"user with more than {self.max_moments_per_hour} moments in an hour "
                f"or events in more than {self.max_hours_per_day} hours of a day"
            )
        if self.kcore:
            rules["rare"] = (
                f"user with under {self.min_user_events} or item with under "
                f"{self.min_item_events} events left"
            )
        return rules

    @cached_property
    def _conditions(self) -> dict[str, tuple[str, nw.Expr]]:
        """Rules that look at one row: reason and condition of those who are dropped."""
        rules = {}
        if self.missing:
            for name in (USER, ITEM, TIME):
                rules[f"missing_{name}"] = (f"no {name}", nw.col(name).is_null())
        if self.impossible_time:
            first, last = self.times
            reason = f"before {first:%Y-%m-%d} or after {last:%Y-%m-%d %H:%M} UTC"
            outside = (nw.col(TIME) < first) | (nw.col(TIME) > last)
            rules["impossible_time"] = (reason, outside)
        if self.value_range is not None:
            low, high = self.value_range
            outside = (nw.col(VALUE) < low) | (nw.col(VALUE) > high)
            rules["value_out_of_range"] = (f"value below {low} or above {high}", outside)
        if self.cancelled:
            is_cancelled = (nw.col(KIND) == "purchase") & (nw.col(VALUE) <= 0)
            rules["cancelled"] = ("purchase of zero or fewer pieces", is_cancelled)
        return rules

    def stage(self) -> nw.Expr:
        """Number of the first rule that drops the row for what stands in it (`STAGE`)."""
        stage = _lit(len(self.reasons))
        for number, (_, drops) in reversed(list(enumerate(self._conditions.values()))):
            stage = nw.when(drops.fill_null(False)).then(_lit(number)).otherwise(stage)
        return stage.alias(STAGE)

    def divide(self, rows: Frame, by: By, keep: Keep = lambda rows: rows) -> tuple[Frame, Frame]:
        """The rows (with `STAGE`) that no rule but rare drops, and those dropped, with their stage.

        `keep` is called with a table that is used more than once.
        """
        names = list(self.reasons)
        is_left = nw.col(STAGE) == len(names)
        dropped, left = [rows.filter(~is_left)], rows.filter(is_left)
        if self.duplicates:
            stage = _lit(names.index("duplicate")).alias(STAGE)
            left = keep(left.with_columns(_repeats(KEYS, by(*ORDER)).alias(_MARK)))
            dropped.append(left.filter(nw.col(_MARK)).with_columns(stage).drop(_MARK))
            left = left.filter(~nw.col(_MARK)).drop(_MARK)
        if self.bots:
            stage = _lit(names.index("bot")).alias(STAGE)
            bots = keep(_bots(left, by(TIME), self.max_moments_per_hour, self.max_hours_per_day))
            dropped.append(left.join(bots, on=USER, how="semi").with_columns(stage))
            left = left.join(bots, on=USER, how="anti")
        return left, nw.concat(dropped)

    def core(self, pairs: nw.LazyFrame, keep: Keep) -> tuple[dict[str, nw.LazyFrame], nw.LazyFrame]:
        """Users and items with the number of events that the rule rare leaves, and what it drops.

        Args:
            pairs: User and item of each event, none missing.
            keep: What makes a lazy table real.
        """
        counts = {
            column: keep(pairs.group_by(column).agg(nw.len().alias(EVENTS)))
            for column in (USER, ITEM)
        }
        limits = {USER: self.min_user_events, ITEM: self.min_item_events}
        dropped = list(_shrink(pairs, counts, limits, keep)) if self.kcore else []
        stage = _lit(len(self.reasons) - 1).alias(STAGE)
        return counts, nw.concat([pairs.head(0), *dropped]).with_columns(stage)

    def report(self, dropped: nw.LazyFrame, left: Mapping[str, nw.LazyFrame]) -> pl.DataFrame:
        """One row per rule: what `divide` and `core` dropped, and what `core` left."""
        gone = [_by_stage(dropped)]
        for column in (USER, ITEM):
            last = dropped.select(column, STAGE).drop_nulls().group_by(column)
            last = last.agg(nw.col(STAGE).max()).join(left[column], on=column, how="anti")
            gone.append(_by_stage(last))
        num_left = left[USER].select(nw.col(EVENTS).sum()).collect("polars").item() or 0
        num_read = num_left + sum(gone[0].values())
        rows = [("read", 0, 0, 0, num_read, "the log as it came")]
        for number, (name, reason) in enumerate(self.reasons.items()):
            numbers = [counts.get(number, 0) for counts in gone]
            rows.append((name, *numbers, rows[-1][4] - numbers[0], reason))
        return pl.DataFrame(rows, schema=_REPORT_COLUMNS, orient="row")


def check_gap(gap_minutes: float) -> None:
    """Raise ValueError if a pause is none, or longer than any log (1,900 years)."""
    check_within("[0, 1000000000]", gap_minutes=gap_minutes)


def with_sessions(rows: Frame, by: By, gap_minutes: float) -> Frame:
    """The rows with a column session: the number of the user's visit, from 0."""
    run = by(*ORDER)
    follows, count = nw.col("follows"), nw.col("count")
    pause = nw.col(TIME) - run(nw.col(TIME).shift(1))
    is_new = follows & (pause > timedelta(minutes=gap_minutes)).fill_null(False)
    start = nw.when(~follows).then(count).otherwise(nw.lit(0))
    return (
        rows.with_columns(follows=_repeats((USER,), run))
        .with_columns(count=is_new.cast(nw.Int32))
        .with_columns(count=run(count.cum_sum()))
        .with_columns(start=start)
        .with_columns((count - run(nw.col("start").cum_max())).cast(nw.Int32).alias(SESSION))
        .drop("follows", "count", "start")
    )


def numbered(counts: Mapping[str, nw.LazyFrame]) -> tuple[nw.LazyFrame, nw.LazyFrame]:
    """Users in their order, items from the most to the least frequent, ties in their order.

    Both have a column "code", from 0.
    """
    items = counts[ITEM].with_columns(rarity=-nw.col(EVENTS).cast(nw.Int64))
    return (
        counts[USER].with_row_index("code", order_by=USER),
        items.with_row_index("code", order_by=["rarity", ITEM]).drop("rarity"),
    )


def times_at(times: nw.LazyFrame, numbers: list[int]) -> Iterator[datetime]:
    """Times of the events with these numbers in the order of time, from 0, each below their number.

    Hours are counted first, then only the events of one hour are looked at.
    """
    hours = times.select(hour=nw.col(TIME).dt.truncate("1h")).group_by("hour").agg(nw.len())
    hours = hours.collect("polars").to_native().sort("hour")
    ends = hours["len"].cum_sum()
    for number in numbers:
        row = (ends > number).arg_max()
        first = hours["hour"][row]
        inside = (nw.col(TIME) >= first) & (nw.col(TIME) < first + timedelta(hours=1))
        found = times.select(TIME).filter(inside).collect("polars").to_native()
        yield found[TIME].sort()[number - ends[row] + hours["len"][row]]


def _repeats(columns: tuple[str, ...], run: Run, lag: int = 1) -> nw.Expr:
    """True where these columns are as they were `lag` rows before."""
    same = [nw.col(column) == run(nw.col(column).shift(lag)) for column in columns]
    return nw.all_horizontal(*same, ignore_nulls=False).fill_null(False)


def _bots(rows: Frame, run: Run, max_moments_per_hour: int, max_hours_per_day: int) -> Frame:
    """The users who pass one of the limits.

    Of different moments, the one that comes `max_moments_per_hour` rows after another in the same
    hour is one too many, and so it is with different hours in a day.
    """

    def first_of(rows: Frame, column: str) -> Frame:
        marked = rows.with_columns(_repeats((USER, column), run).alias(_MARK))
        return marked.filter(~nw.col(_MARK)).drop(_MARK)

    def too_many(rows: Frame, column: str, limit: int) -> Frame:
        marked = rows.with_columns(_repeats((USER, column), run, limit).alias(_MARK))
        return marked.filter(nw.col(_MARK)).select(USER)

    parts = [nw.col(TIME).dt.truncate(f"1{unit}").alias(unit) for unit in "hd"]
    moments = first_of(rows.select(USER, TIME, *parts), TIME)
    fast = too_many(moments, "h", max_moments_per_hour)
    sleepless = too_many(first_of(moments, "h"), "d", max_hours_per_day)
    return nw.concat([fast, sleepless]).drop_nulls().unique()


def _shrink(
    pairs: nw.LazyFrame, counts: dict[str, nw.LazyFrame], limits: Mapping[str, int], keep: Keep
) -> Iterator[nw.LazyFrame]:
    """Bring counts down to the k-core: rare users go, then items that are now rare, and so on."""
    quiet, columns, gone = 0, (USER, ITEM), {USER: [], ITEM: []}
    while quiet < 2:
        column, other = columns
        columns = (other, column)
        rare = keep(counts[column].filter(nw.col(EVENTS) < limits[column]).select(column))
        if rare.select(nw.len()).collect("polars").item() == 0:
            quiet += 1
            continue
        quiet = 0
        lost = pairs.join(rare, on=column, how="semi")
        if gone[other]:  # what was lost with these is not lost again
            lost = lost.join(nw.concat(gone[other]), on=other, how="anti")
        lost = keep(lost)
        gone[column].append(rare)
        number = lost.group_by(other).agg(lost=nw.len())
        left = nw.col(EVENTS) - nw.col("lost").fill_null(0)
        counts[column] = keep(counts[column].join(rare, on=column, how="anti"))
        counts[other] = keep(
            counts[other].join(number, on=other, how="left").select(other, left.alias(EVENTS))
        )
        yield lost


def _by_stage(rows: nw.LazyFrame) -> dict[int, int]:
    return dict(rows.group_by(STAGE).agg(nw.len()).collect("polars").rows())


def _lit(number: int) -> nw.Expr:
    return nw.lit(number, nw.Int8)


def _moment(name: str, when: str | date) -> datetime:
    """A moment in UTC, which is also the zone of a moment without one."""
    try:
        moment = datetime.fromisoformat(str(when))
    except ValueError as error:
        raise ValueError(f"{name} must be ISO 8601, got {when!r}") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
