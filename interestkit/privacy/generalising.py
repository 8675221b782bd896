"""A log made coarser, so that more people look alike, and how many of them then do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from interestkit import reprs
from interestkit.events import EventLog
from interestkit.features import Features, fit_features
from interestkit.limits import check_counts, check_one_of
from interestkit.schema import (
    EVENT_COLUMNS,
    INTERESTS,
    ITEM,
    ITEM_COLUMNS,
    KIND,
    SEARCH_PREFIX,
    TEXT,
    TIME,
    TITLE,
    USER,
    VALUE,
)
from interestkit.splitting import check_clean

BINS = {"exact": None, "hour": "1h", "day": "1d", "week": "1w", "month": "1mo", "none": None}
RARE = "rare"  # the item of what is rare and has no interest, or one that is rare too
RELEASED = "released"


@dataclass(frozen=True, kw_only=True)
class Coarseness:
    """How coarse a log is made.

    Args:
        time: What is left of times: "exact", the start (UTC) of their "hour", "day", "week" or
            "month", or "none": all events get the first moment of the log's first month.
        min_item_users: An item that fewer users had becomes "rare: " and its interest, the most
            frequent one in the log if it has several; at least 1. None: every item does.

    Raises:
        ValueError: If an argument is outside its limits.
    """

    time: str = "day"
    min_item_users: int | None = 5

    def __post_init__(self) -> None:
        check_one_of(BINS, time=self.time)
        if self.min_item_users is not None:
            check_counts(1, min_item_users=self.min_item_users)

    def __str__(self) -> str:
        least = self.min_item_users
        items = "interests only" if least is None else f"items of {least}+ users"
        return f"time {self.time}, {'all items' if least == 1 else items}"


@dataclass(frozen=True, kw_only=True)
class KAnonymity:
    """How many people share all that a log says of them with others; made by `k_anonymity`.

    Args:
        users: People in the log.
        classes: Groups of people who cannot be told apart.
        smallest: People in the smallest group.
        alone: Share of people who are in a group of one.
        below_k: Share of people in groups of fewer than `k`.
        k: Size of a group that is large enough.
        by: The columns that were compared.
    """

    users: int
    classes: int
    smallest: int
    alone: float
    below_k: float
    k: int
    by: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"KAnonymity({self.users:,} users in {self.classes:,} classes by "
            f"{' and '.join(self.by)}: smallest {self.smallest:,}, {self.alone:.1%} alone, "
            f"{self.below_k:.1%} in classes below {self.k})"
        )

    def _repr_html_(self) -> str:
        return reprs.of_k_anonymity(self)


def generalise(log: EventLog, coarseness: Coarseness | None = None) -> EventLog:
    """The log with coarser times, rare items folded into interests, and no free text.

    Interests are labels of items; where no item has one they are derived as by `fit_features`.
    Values (ratings, quantities) and texts of searches are taken away: both tell people apart, and
    no model of the kit reads them; so are columns that a log need not have, such as sessions, whose
    numbers tell the order of events. Events are sorted, so that their order says no more than
    their times, and equal rows are one: how often somebody had an item within a day or a
    year tells people apart as well as when.

    Args:
        log: A log that `clean` has cleaned.
        coarseness: How coarse; None takes the defaults: days, items that five users had.

    Returns:
        A new log. Each of its items was had by at least `min_item_users` users: an event whose
        item and whose interest are rarer than that is dropped.

    Raises:
        ValueError: If an event lacks user, item or time.

    Example:
        >>> from interestkit.simulation import simulate
        >>> log = simulate(num_users=50, num_bots=0, faults=0, seed=1)
        >>> coarse = generalise(log, Coarseness(time="month", min_item_users=10))
        >>> log.num_items > coarse.num_items, coarse.events["time"].n_unique()
        (True, 4)
    """
    return generalised(log, coarseness or Coarseness())[0]


def generalised(log: EventLog, coarseness: Coarseness) -> tuple[EventLog, pl.DataFrame]:
    """What `generalise` returns, and the item that stands for each item.

    Returns:
        The log, and a table item, released (null where the events of the item are dropped).
    """
    check_clean(log, before="it is made coarser")
    log = with_interests(log)
    names = folded_items(log, coarseness.min_item_users)
    events = coarse_events(log.events, names, coarseness.time)
    return replace(log, events=in_order(events), items=_items(log.items, events, names)), names


def with_interests(log: EventLog, features: Features | None = None) -> EventLog:
    """The log, whose items have the interests that `fit_features` derives if none has a label.

    Features that have derived them already save fitting new ones on the log.
    """
    if log.items[INTERESTS].list.len().sum():
        return log
    if features is None:
        limits = {"min_item_events": 1, "num_snapshots": 0, "content_dim": 1}
        features = fit_features(log.events, log.items, **limits)
    labels = features.items.select(ITEM, INTERESTS)
    items = log.items.drop(INTERESTS).join(labels, on=ITEM, how="left", maintain_order="left")
    return replace(log, items=items.with_columns(pl.col(INTERESTS).fill_null([])))


def coarse_events(events: pl.DataFrame, names: pl.DataFrame, time: str) -> pl.DataFrame:
    """The events with the items of `folded_items` and coarser times; what tells more is gone."""
    return (
        events.select(list(EVENT_COLUMNS))
        .join(names, on=ITEM, maintain_order="left")
        .drop_nulls(RELEASED)
        .with_columns(
            pl.col(RELEASED).alias(ITEM),
            floor_time(pl.col(TIME), time).alias(TIME),
            pl.lit(None, dtype=pl.Float64).alias(VALUE),
            pl.lit(None, dtype=pl.String).alias(TEXT),
        )
        .drop(RELEASED)
        .unique(maintain_order=True)
    )


def floor_time(time: pl.Expr, coarseness: str) -> pl.Expr:
    """The times of all events as `generalise` leaves them."""
    if coarseness == "none":
        return time.min().dt.truncate("1mo")
    every = BINS[coarseness]
    return time if every is None else time.dt.truncate(every)


def in_order(events: pl.DataFrame) -> pl.DataFrame:
    """The events in an order that follows from their content alone."""
    keys = [pl.col(name).cast(pl.Enum(events[name].unique().sort())) for name in (USER, ITEM, KIND)]
    return events.sort(keys[0], TIME, *keys[1:])


def folded_items(log: EventLog, min_users: int | None) -> pl.DataFrame:
    """The item that stands for each item of the events: columns item and released."""
    pairs = log.events.select(USER, ITEM).unique()
    kept = pl.lit(False) if min_users is None else pl.len() >= min_users
    is_search = pl.col(ITEM).str.starts_with(SEARCH_PREFIX)
    names = pairs.group_by(ITEM).agg(is_kept=kept.first())
    names = names.join(_main_interest(log), on=ITEM, how="left").select(
        ITEM,
        pl.when("is_kept")
        .then(ITEM)
        .when(is_search)
        .then(pl.lit(SEARCH_PREFIX + RARE))
        .otherwise(pl.concat_str(pl.lit(f"{RARE}: "), "interest").fill_null(RARE))
        .alias(RELEASED),
    )
    for instead in (RARE, None):  # an interest that is rare too, then what is left of them
        users = pairs.join(names, on=ITEM).group_by(RELEASED).agg(n=pl.col(USER).n_unique())
        few = users.filter(pl.col("n") < (min_users or 1))[RELEASED]
        is_few = pl.col(RELEASED).is_in(few.implode())
        other = pl.when(is_search).then(None).otherwise(pl.lit(instead))
        names = names.with_columns(pl.when(~is_few).then(RELEASED).otherwise(other))
    return names.sort(ITEM)


def _main_interest(log: EventLog) -> pl.DataFrame:
    """The interest of each item that has most events in the log: columns item and interest."""
    counts = log.events.group_by(ITEM).len()
    labels = log.items.select(ITEM, interest=INTERESTS).explode("interest").drop_nulls()
    sizes = labels.join(counts, on=ITEM).group_by("interest").agg(size=pl.col("len").sum())
    return (
        labels.join(sizes, on="interest")
        .sort("size", "interest", descending=[True, False])
        .unique(ITEM, keep="first")
        .select(ITEM, "interest")
    )


def _items(items: pl.DataFrame, events: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """Rows of the items that the events have; those that stand for others are named so."""
    kept = items.join(names.filter(pl.col(ITEM) == pl.col(RELEASED)), on=ITEM, how="semi")
    there = events.select(pl.col(ITEM).unique()).join(kept, on=ITEM, how="left").sort(ITEM)
    interest = pl.col(ITEM).str.strip_prefix(f"{RARE}: ")
    is_folded = pl.col(ITEM).str.starts_with(f"{RARE}: ") & pl.col(INTERESTS).is_null()
    return there.with_columns(
        pl.when(is_folded).then(ITEM).otherwise(TITLE).alias(TITLE),
        pl.when(is_folded)
        .then(pl.concat_list(interest))
        .otherwise(pl.col(INTERESTS).fill_null([]))
        .alias(INTERESTS),
    ).select(list(ITEM_COLUMNS))


def k_anonymity(
    events: pl.DataFrame, *, k: int = 5, by: Sequence[str] = (ITEM, TIME, KIND)
) -> KAnonymity:
    """How many people share their whole history with how many others.

    Two people are in one class if the same rows of the columns `by` occur as often with both: this
    is what somebody who knows a whole history could look for.

    Args:
        events: Events of a log, as released.
        k: Size of a class that is large enough, at least 2.
        by: The columns that are compared.

    Raises:
        ValueError: If `k` is below 2, a column is missing, none is named, or there is no user.

    Example:
        >>> events = pl.DataFrame({"user": ["a", "b", "c", "c"], "item": ["x", "x", "x", "x"]})
        >>> k_anonymity(events, k=2, by=["item"])
        KAnonymity(3 users in 2 classes by item: smallest 1, 33.3% alone, 33.3% in classes below 2)

    Source:
        Sweeney (2002), k-anonymity, IJUFKS 10(5), doi:10.1142/S0218488502001648.
    """
    check_counts(2, k=k)
    if not by:
        raise ValueError("by must name at least one column, got none")
    if missing := {USER, *by} - set(events.columns):
        raise ValueError(f"events: columns {sorted(missing)} are missing, got {events.columns}")
    users = events.drop_nulls(USER)
    if users.is_empty():
        raise ValueError("events must hold at least one user, got none")
    rows = users.group_by(USER, row=pl.struct(*by).hash()).len().sort("row")
    histories = rows.group_by(USER, maintain_order=True).agg("row", times="len")
    sizes = histories.group_by("row", "times").len()["len"].to_numpy()
    return KAnonymity(
        users=int(sizes.sum()),
        classes=len(sizes),
        smallest=int(sizes.min()),
        alone=float(sizes[sizes == 1].sum() / sizes.sum()),
        below_k=float(sizes[sizes < k].sum() / sizes.sum()),
        k=k,
        by=tuple(by),
    )
