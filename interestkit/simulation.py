"""Made-up event logs whose users have interests that are known, to learn from and to test on."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit import schema
from interestkit.events import EventLog
from interestkit.limits import check_above_0, check_counts, check_within
from interestkit.schema import INTERESTS, ITEM, KIND, SEARCH_PREFIX, TEXT, TIME, TITLE, USER, VALUE

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
TOPICS = {
    "cooking": "curry sourdough ramen pickles",
    "travel": "islands trains hostels deserts",
    "music": "jazz synths choirs vinyl",
    "science": "comets enzymes fossils quarks",
    "football": "derbies penalties midfielders stadiums",
    "gardening": "roses compost tomatoes bonsai",
    "photography": "portraits lenses darkrooms panoramas",
    "history": "castles empires maps vikings",
    "games": "chess puzzles dungeons arcades",
    "cycling": "climbs gravel brakes criteriums",
    "money": "pensions budgets shares taxes",
    "cinema": "westerns cartoons festivals noir",
    "fashion": "sneakers linen tailoring scarves",
    "health": "sleep stretching vitamins breathing",
    "coding": "compilers databases shaders parsers",
    "parenting": "bedtime lunchboxes naming toddlers",
}
_STYLES = "Simple Modern Forgotten Everyday Famous Hidden Practical Curious".split()
_KIND_SHARES = {
    "view": 0.55,
    "click": 0.12,
    "search": 0.10,
    "like": 0.08,
    "rating": 0.06,
    "purchase": 0.06,
    "share": 0.02,
    "follow": 0.01,
}
# Relative activity per hour of the day (UTC), low at night and high in the evening, and per
# day of the week from Monday on.
_HOURS = [2, 1, 1, 1, 1, 2, 4, 7, 8, 7, 6, 7, 9, 8, 6, 6, 7, 9, 12, 15, 17, 15, 10, 5]
_WEEKDAYS = [10, 9, 9, 10, 12, 16, 15]
_SESSION_EVENTS = 4  # mean number of events in one sitting
_GAP_SECONDS = 80  # mean time between two events of a sitting
_STAY = 0.5  # chance that an event keeps to the interest its sitting began with
_REPEAT = 0.15  # chance that an event returns to an item that the user has had before
_BOT_EVENTS = 1800  # of one bot, all within an hour


def simulate(
    *,
    num_users: int = 1000,
    num_items: int = 500,
    num_interests: int = 12,
    events_per_user: float = 60,
    days: int = 120,
    drift: float = 0.1,
    sharpness: float = 6.0,
    noise: float = 0.1,
    num_bots: int = 3,
    faults: float = 0.01,
    seed: int = 0,
) -> EventLog:
    """A made-up event log of users who follow the interests of `planted_interests`.

    Users come in sittings of about four events, more in the evening and at weekends. An event
    draws an interest from the user's weights on that day (half of the events keep to the one
    that their sitting began with), then an item that carries it, where the item of rank r has
    weight 1 / r. Some events return to an item the user has had. The number of events per user
    has a long tail. One event in ten is a search for a word of the interest, without an item.

    Args:
        num_users: Users, at least 1.
        num_items: Items, at least `num_interests`; each carries one interest.
        num_interests: Interests, at least 1.
        events_per_user: Mean number of events per user, above 0; each user has at least one.
        days: Length of the log in days from 2024-01-01, at least 1.
        drift: Share of each user's interests that a new draw has replaced on the last day,
            in [0, 1]; it grows evenly with time.
        sharpness: How few interests a user has, above 0: at 1 every mixture is about as
            likely, at 6 the first of twelve has about half of the weight, at 1000 nearly all.
        noise: Share of events on an item that is drawn without regard to interests, in [0, 1].
        num_bots: Users "bot-1", ... who view random items every two seconds for an hour.
        faults: Share of rows that are added as faults for cleaning to find, in [0, 1]: in equal
            parts without user, without item, without time, in 1970, repeated, and cancelled.
        seed: Seed of all draws; the same arguments give the same log.

    Raises:
        ValueError: If an argument is outside its limits.

    Example:
        >>> log = simulate(num_users=50, events_per_user=20, num_bots=0, faults=0)
        >>> log.num_users, log.events["kind"].n_unique()
        (50, 8)
    """
    check_counts(1, num_users=num_users, num_interests=num_interests, days=days)
    check_counts(num_interests, num_items=num_items)
    check_counts(0, num_bots=num_bots)
    check_within("[0, 1]", drift=drift, noise=noise, faults=faults)
    check_above_0(events_per_user=events_per_user, sharpness=sharpness)
    rng = np.random.default_rng([seed, 1])
    planted = _plant(num_users, num_interests, drift, sharpness, seed)
    interest_of, popularity = _make_items(num_items, num_interests, rng)
    user, seconds, sitting = _draw_times(num_users, events_per_user, days, rng)
    interest = _draw_interests(planted, user, seconds / (days * 86400), sitting, rng)
    item = _draw_items(interest, interest_of, popularity, noise, rng)
    item = _return_to_items(user, item, rng)
    events = _to_events(user, item, seconds, interest_of, rng)
    bots = _make_bots(num_bots, num_items, days, rng)
    parts = [events, bots, *_make_faults(events, faults, rng)]
    events = pl.concat(parts, how="diagonal").sort("at", maintain_order=True)
    return EventLog(
        events=events.select(list(schema.EVENT_COLUMNS)),
        items=_to_items(interest_of, events),
        name="simulated",
        note=f"simulated with seed {seed}: nobody's behaviour, with faults and bots added",
    )


def planted_interests(
    *,
    num_users: int = 1000,
    num_interests: int = 12,
    drift: float = 0.1,
    sharpness: float = 6.0,
    seed: int = 0,
) -> pl.DataFrame:
    """The interests that `simulate` plants when these arguments have the same values.

    The weights of a user are drawn from a Dirichlet distribution whose parameters are
    (num_interests / sharpness) times the popularity of each interest, which falls with the
    square root of its rank; `end` mixes them with a second draw: (1 - drift) first + drift
    second.

    Returns:
        One row per user and interest: user, interest, start and end (the weight on the first
        and at the end of the last day; each sums to 1 over a user's interests).

    Raises:
        ValueError: If an argument is outside its limits, which are those of `simulate`.

    Example:
        >>> planted = planted_interests(num_users=2, num_interests=3)
        >>> planted.group_by("user").agg(pl.col("start").sum().round(6))["start"].to_list()
        [1.0, 1.0]
    """
    check_counts(1, num_users=num_users, num_interests=num_interests)
    check_within("[0, 1]", drift=drift)
    check_above_0(sharpness=sharpness)
    start, end = _plant(num_users, num_interests, drift, sharpness, seed)
    labels = [_topic(number)[0] for number in range(num_interests)]
    return pl.DataFrame(
        {
            USER: _ids("u", num_users)[np.repeat(np.arange(num_users), num_interests)],
            "interest": labels * num_users,
            "start": start.ravel(),
            "end": end.ravel(),
        }
    )


def _plant(
    num_users: int, num_interests: int, drift: float, sharpness: float, seed: int
) -> Float[np.ndarray, "2 users interests"]:
    """Weights on the first and on the last day."""
    rng = np.random.default_rng([seed, 0])
    popularity = 1 / np.sqrt(np.arange(num_interests) + 1)
    concentration = popularity / popularity.sum() * num_interests / sharpness
    first, second = rng.dirichlet(concentration, size=(2, num_users))
    return np.stack([first, (1 - drift) * first + drift * second])


def _make_items(
    num_items: int, num_interests: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " items"], Float[np.ndarray, " items"]]:
    """The interest of each item and its share of the events on that interest."""
    order = rng.permutation(num_items)
    interest_of = order % num_interests
    weight = 1 / (order // num_interests + 1)
    total = np.bincount(interest_of, weights=weight)
    return interest_of, weight / total[interest_of]


def _draw_times(
    num_users: int, events_per_user: float, days: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, seconds since the start and sitting of each event, by user and time."""
    sigma = 0.8  # of the log-normal activity; the mean of its exponential is 1
    activity = events_per_user * rng.lognormal(-(sigma**2) / 2, sigma, num_users)
    num_events = np.maximum(1, rng.poisson(activity))
    user = np.repeat(np.arange(num_users), num_events)
    is_first = np.diff(user, prepend=-1) > 0
    sitting = np.cumsum(is_first | (rng.random(len(user)) < 1 / _SESSION_EVENTS)) - 1
    num_sittings = sitting[-1] + 1
    weekday = np.array(_WEEKDAYS, dtype=float)[np.arange(days) % 7]
    day = rng.choice(days, num_sittings, p=weekday / weekday.sum())
    hour = rng.choice(24, num_sittings, p=np.array(_HOURS) / sum(_HOURS))
    begin = day * 86400 + hour * 3600 + rng.integers(3600, size=num_sittings)
    passed = np.cumsum(1 + rng.exponential(_GAP_SECONDS, len(user)))
    passed -= passed[np.searchsorted(sitting, sitting)]  # since the sitting began
    seconds = np.minimum(begin[sitting] + passed.astype(np.int64), days * 86400 - 1)
    order = np.lexsort((sitting, seconds, user))
    return user, seconds[order], sitting[order]


def _draw_interests(
    planted: Float[np.ndarray, "2 users interests"],
    user: Int[np.ndarray, " events"],
    elapsed: Float[np.ndarray, " events"],
    sitting: Int[np.ndarray, " events"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " events"]:
    """The interest behind each event; `elapsed` is the share of the log that has passed."""
    elapsed = elapsed[:, None]
    weights = (1 - elapsed) * planted[0, user] + elapsed * planted[1, user]
    bounds = np.cumsum(weights, axis=1)
    own = (rng.random((len(user), 1)) * bounds[:, -1:] > bounds).sum(axis=1)
    first, event_of = np.unique(sitting, return_index=True)
    begun = own[event_of][np.searchsorted(first, sitting)]
    return np.where(rng.random(len(user)) < _STAY, begun, own)


def _draw_items(
    interest: Int[np.ndarray, " events"],
    interest_of: Int[np.ndarray, " items"],
    popularity: Float[np.ndarray, " items"],
    noise: float,
    rng: np.random.Generator,
) -> Int[np.ndarray, " events"]:
    """An item of each event's interest by popularity, or for `noise` of them any item."""
    item = np.empty(len(interest), dtype=np.int64)
    for label in np.unique(interest):
        items, rows = np.flatnonzero(interest_of == label), np.flatnonzero(interest == label)
        item[rows] = rng.choice(items, len(rows), p=popularity[items])
    is_noise = rng.random(len(item)) < noise
    return np.where(is_noise, rng.integers(len(interest_of), size=len(item)), item)


def _return_to_items(
    user: Int[np.ndarray, " events"], item: Int[np.ndarray, " events"], rng: np.random.Generator
) -> Int[np.ndarray, " events"]:
    """Let some events return to the item of an earlier event of their user."""
    row = np.arange(len(user))
    first = np.searchsorted(user, user)
    earlier = first + np.floor(rng.random(len(user)) * (row - first)).astype(np.int64)
    source = np.where(rng.random(len(user)) < _REPEAT, earlier, row)
    while not np.array_equal(source, source[source]):
        source = source[source]
    return item[source]


def _to_events(
    user: Int[np.ndarray, " events"],
    item: Int[np.ndarray, " events"],
    seconds: Int[np.ndarray, " events"],
    interest_of: Int[np.ndarray, " items"],
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Canonical events with the column "at", by which the log is sorted."""
    num_events = len(user)
    shares = np.array(list(_KIND_SHARES.values()))
    kind = pl.Series(list(_KIND_SHARES))[rng.choice(len(shares), num_events, p=shares)]
    topics = [_topic(number)[1] for number in range(interest_of.max() + 1)]
    words = pl.Series([word for topic in topics for word in topic])
    query = words[interest_of[item] * 4 + rng.integers(4, size=num_events)]
    rating = np.minimum(5, 2 + rng.poisson(2.0, num_events)).astype(float)
    is_search = pl.col(KIND) == "search"
    amount = pl.when(pl.col(KIND) == "rating").then(pl.lit(rating))
    amount = amount.when(pl.col(KIND) == "purchase").then(
        pl.lit(1.0 + rng.poisson(0.3, num_events))
    )
    return pl.DataFrame(
        {USER: _ids("u", user.max() + 1)[user], ITEM: _ids("i", len(interest_of))[item], KIND: kind}
    ).select(
        pl.lit(seconds).alias("at"),
        USER,
        pl.when(is_search).then(SEARCH_PREFIX + pl.lit(query)).otherwise(ITEM).alias(ITEM),
        _time_of(pl.lit(seconds)),
        KIND,
        amount.otherwise(None).alias(VALUE),
        pl.when(is_search).then(pl.lit(query)).otherwise(None).alias(TEXT),
    )


def _make_bots(num_bots: int, num_items: int, days: int, rng: np.random.Generator) -> pl.DataFrame:
    num_events = num_bots * _BOT_EVENTS
    hour = np.repeat(rng.integers(days * 24, size=num_bots) * 3600, _BOT_EVENTS)
    seconds = hour + np.tile(np.arange(_BOT_EVENTS) * 2, num_bots)
    names = pl.Series([f"bot-{number + 1}" for number in range(num_bots)], dtype=pl.String)
    return pl.DataFrame(
        {
            "at": seconds,
            USER: names[np.repeat(np.arange(num_bots), _BOT_EVENTS)],
            ITEM: _ids("i", num_items)[rng.integers(num_items, size=num_events)],
        },
        schema_overrides={"at": pl.Int64},
    ).with_columns(_time_of(pl.col("at")), pl.lit("view").alias(KIND))


def _make_faults(
    events: pl.DataFrame, faults: float, rng: np.random.Generator
) -> list[pl.DataFrame]:
    """Copies of some events, each kind of fault on rows of its own."""
    changes = [
        {USER: pl.lit(None, dtype=pl.String)},
        {ITEM: pl.lit(None, dtype=pl.String), TEXT: pl.lit(None, dtype=pl.String)},
        {TIME: pl.lit(None, dtype=events.schema[TIME])},
        {TIME: pl.lit(datetime(1970, 1, 1, tzinfo=UTC)).cast(events.schema[TIME])},
        {},
        {KIND: pl.lit("purchase"), VALUE: pl.lit(-1.0)},
    ]
    num_rows = min(round(len(events) * faults / len(changes)), len(events) // len(changes))
    rows = rng.permutation(len(events))[: num_rows * len(changes)].reshape(len(changes), -1)
    return [events[part].with_columns(**change) for part, change in zip(rows, changes, strict=True)]


def _to_items(interest_of: Int[np.ndarray, " items"], events: pl.DataFrame) -> pl.DataFrame:
    topics = [_topic(number) for number in interest_of]
    titles = [
        f"{_STYLES[number % len(_STYLES)]} {words[number % len(words)]} {number + 1}"
        for number, (_, words) in enumerate(topics)
    ]
    items = pl.DataFrame(
        {
            ITEM: _ids("i", len(topics)),
            TITLE: titles,
            INTERESTS: [[label] for label, _ in topics],
        },
        schema=schema.ITEM_COLUMNS,
    )
    queries = events[TEXT].drop_nulls().unique().sort().to_list()
    searches = {
        ITEM: [SEARCH_PREFIX + query for query in queries],
        TITLE: queries,
        INTERESTS: [[] for _ in queries],
    }
    return pl.concat([items, pl.DataFrame(searches, schema=schema.ITEM_COLUMNS)])


def _topic(number: int) -> tuple[str, list[str]]:
    """Label and words of an interest; those beyond `TOPICS` are numbered."""
    if number < len(TOPICS):
        label = list(TOPICS)[number]
        return label, TOPICS[label].split()
    label = f"topic-{number + 1}"
    return label, [f"{label}{letter}" for letter in "abcd"]  # four words, as above


def _ids(letter: str, count: int) -> pl.Series:
    return pl.Series([f"{letter}{number + 1:05d}" for number in range(count)])


def _time_of(seconds: pl.Expr) -> pl.Expr:
    """Seconds since `START` as UTC times."""
    epoch_seconds = seconds + int(START.timestamp())
    return (epoch_seconds * 1_000_000).cast(schema.EVENT_COLUMNS[TIME]).alias(TIME)
