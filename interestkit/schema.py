"""Column names, event kinds and the table checks that name file, row, column and value."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import NoReturn

import polars as pl

USER = "user"
ITEM = "item"
TIME = "time"
KIND = "kind"
VALUE = "value"
TEXT = "text"
TITLE = "title"
INTERESTS = "interests"
SESSION = "session"

# How much one event of a kind says about interest, relative to a view. The order (looking,
# then reacting, then telling others or paying) is a convention, not a measurement: a log
# with one kind is not affected, and any other log may bring weights of its own.
KIND_WEIGHTS = {
    "view": 1.0,
    "search": 1.5,
    "click": 1.0,
    "like": 2.0,
    "share": 4.0,
    "follow": 3.0,
    "purchase": 4.0,
    "rating": 2.0,
}
KINDS = tuple(KIND_WEIGHTS)

# Names under which columns and kinds are known elsewhere, in lower case, without "_", "-", " ".
COLUMN_ALIASES = {
    USER: "user userid visitorid customerid personid memberid householdid accountid".split(),
    ITEM: "item itemid movieid productid stockcode contentid articleid bookid trackid".split(),
    TIME: "time timestamp datetime date eventtime unixtime invoicedate createdat".split(),
    KIND: "kind event eventtype eventkind action behavior behaviour".split(),
    VALUE: "value rating quantity".split(),
    TEXT: "text query searchquery searchterm".split(),
    TITLE: "title name itemname productname".split(),
    INTERESTS: "interests genres genre category categories topics department".split(),
}
KIND_ALIASES = {
    "view": "view views pageview pv read watch play listen".split(),
    "search": "search query".split(),
    "click": "click tap".split(),
    "like": "like favorite favourite fav bookmark wishlist addtocart cart save upvote".split(),
    "share": "share comment commentcreated reply repost retweet".split(),
    "follow": "follow subscribe".split(),
    "purchase": "purchase transaction buy order sale".split(),
    "rating": "rating rate review".split(),
}

SEARCH_PREFIX = "search:"  # starts the made-up item of a search that names no item

EVENT_COLUMNS = {
    USER: pl.String,
    ITEM: pl.String,
    TIME: pl.Datetime("us", "UTC"),
    KIND: pl.String,
    VALUE: pl.Float64,
    TEXT: pl.String,
}
ITEM_COLUMNS = {ITEM: pl.String, TITLE: pl.String, INTERESTS: pl.List(pl.String)}


def check_columns(table: pl.DataFrame, columns: Mapping[str, pl.DataType], *, what: str) -> None:
    """Raise ValueError unless a table has these columns and types; it may have more.

    `what` is the name of the table in the message.

    Example:
        >>> check_columns(pl.DataFrame({"user": [1]}), {"user": pl.String}, what="events")
        Traceback (most recent call last):
        ValueError: events: column 'user' must be String, got Int64
    """
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{what}: columns {missing} are missing, got {table.columns}")
    for name, dtype in columns.items():
        if table.schema[name] != dtype:
            raise ValueError(f"{what}: column {name!r} must be {dtype}, got {table.schema[name]}")


def check_items(items: pl.DataFrame) -> None:
    """Raise ValueError unless a table has `ITEM_COLUMNS`, and one row for each item."""
    check_columns(items, ITEM_COLUMNS, what="items")
    twice = items[ITEM].filter(items[ITEM].is_duplicated())
    if len(twice) > 0:
        raise ValueError(f"items: each item must have one row, got more for {twice[0]!r}")


def check_kinds(kinds: Iterable[str | None], *, what: str, allowed: Iterable[str] = KINDS) -> None:
    """Raise ValueError if a kind of a table, named as in `check_columns`, is not allowed."""
    kinds = kinds.unique() if isinstance(kinds, pl.Series) else kinds
    if strange := sorted({str(kind) for kind in kinds} - set(allowed)):
        raise ValueError(f"{what}: kind must be one of {', '.join(allowed)}, got {strange}")


def check_has_zone(**times: datetime) -> None:
    """Raise ValueError if one of the times has no time zone, which all times of events have."""
    for name, time in times.items():
        if time.tzinfo is None:
            raise ValueError(f"{name} must have a time zone, got {time}")


def end_after(last: datetime, until: datetime | None) -> datetime:
    """`until`, or the second after the last event; ValueError if it is not after that."""
    until = until or last + timedelta(seconds=1)
    check_has_zone(until=until)
    if until <= last:
        raise ValueError(f"until must be after the last event, at {last}, got {until}")
    return until


def plain_name(name: str) -> str:
    """A name in lower case, with letters and digits only.

    Example:
        >>> plain_name("Event_Type")
        'eventtype'
    """
    return "".join(letter for letter in name.lower() if letter.isalnum())


def alias_of(name: str) -> str | None:
    """Our name for a column of theirs by `COLUMN_ALIASES`, None if it is not known."""
    plain = plain_name(name)
    return next((ours for ours, names in COLUMN_ALIASES.items() if plain in names), None)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The end of a message that points at the most similar known name, or nothing.

    Example:
        >>> did_you_mean("chese", ["bread", "cheese"])
        "; did you mean 'cheese'?"
    """
    near = get_close_matches(str(name), [str(each) for each in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def raise_bad_value(*, source: str, row: int, column: str, value: object, allowed: str) -> NoReturn:
    """Raise ValueError for one value of a file; its first row is 1, a header is not counted.

    Example:
        >>> raise_bad_value(source="a.csv", row=17, column="t", value="x", allowed="a number")
        Traceback (most recent call last):
        ValueError: a.csv, data row 17, column 't': must be a number, got 'x'
    """
    raise ValueError(
        f"{source}, data row {row}, column {column!r}: must be {allowed}, got {value!r}"
    )
