"""Event logs: reading one from a file in any common form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import polars as pl

from interestkit import reprs, schema, times
from interestkit.reading import read_table
from interestkit.schema import INTERESTS, ITEM, KIND, TEXT, TIME, TITLE, USER, VALUE

_KIND_OF_VALUE = {"rating": "rating", "quantity": "purchase"}
_OUR_DAYS = (631_152_000_000_000, 4_102_444_800_000_000)  # from 1990 to 2100
_TEXT_DTYPES = (pl.String, pl.Categorical, pl.Enum, pl.Null)
_FLOAT_BITS = {pl.Float16: 11, pl.Float32: 24}  # of whole numbers that differ; others have 53
_LONGEST = 65_536  # bytes of a text
_SHORT = f"at most {_LONGEST:,} bytes of text"
_SHOWN = 100  # letters of a wrong value that a message shows
_NESTED = r"(?s)^\s*(\[.*\]|\{.*\})\s*$"  # what may be a list or an object of JSON


@dataclass(frozen=True, kw_only=True, eq=False)
class EventLog:
    """What users did, and what is known of the items they did it to.

    Args:
        events: One row per event in the order of the file, with the columns of
            `schema.EVENT_COLUMNS`: user, item, time (UTC, microseconds), kind (one of
            `schema.KINDS`), value (the rating of a rating, the quantity of a purchase) and
            text (the query of a search). All but kind may be null.
        items: One row per item, with the columns of `schema.ITEM_COLUMNS`: item, title
            (null where unknown) and interests (an empty list where none is known).
        name: Short name of the log.
        note: One honest line on where the events come from.

    Raises:
        ValueError: If a column is missing or of another type, a kind is unknown, or an item
            has two rows.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    name: str
    note: str = ""

    def __post_init__(self) -> None:
        schema.check_columns(self.events, schema.EVENT_COLUMNS, what="events")
        schema.check_items(self.items)
        schema.check_kinds(self.events[KIND].unique(), what="events")

    @property
    def num_events(self) -> int:
        """Number of rows of the events table."""
        return len(self.events)

    @property
    def num_users(self) -> int:
        """Number of different users who have an event; a missing user is none."""
        return self.events[USER].drop_nulls().n_unique()

    @property
    def num_items(self) -> int:
        """Number of different items that have an event; a missing item is none."""
        return self.events[ITEM].drop_nulls().n_unique()

    def __repr__(self) -> str:
        counts = f"{self.num_events:,} events, {self.num_users:,} users, {self.num_items:,} items"
        first, last = self.events[TIME].min(), self.events[TIME].max()
        span = f", {first:%Y-%m-%d} to {last:%Y-%m-%d}" if first else ""
        return f"EventLog({self.name!r}: {counts}{span})"

    def _repr_html_(self) -> str:
        return reprs.of_log(self)


def read_log(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    default_kind: str | None = None,
    name: str | None = None,
) -> EventLog:
    """The event log in a file, every row of it, in the order of the file.

    The extension says the form: .csv, .tsv, .jsonl or .ndjson (one object a line), .parquet,
    or .dat (fields separated by "::"). Text files are UTF-8 and not compressed. A table has at most
    1,000 columns, a text at most 65,536 bytes. Of a key that comes twice in a JSON object the first
    counts.

    Times are ISO 8601 text (no zone means UTC) or a number since 1970: seconds where the
    column's median is below 1e11, milliseconds below 1e14, microseconds below 1e17, nanoseconds
    above. One in another unit than most is an error. Empty fields are null; rows without user, item
    or time are kept for `cleaning.clean` to count. A search that names no item gets the item
    "search:" + its query in lower case. An item's title and interests are the first ones that
    the file gives for it.

    Args:
        path: The file.
        columns: Our column name (user, item, time, kind, value, text, title, interests) ->
            the name in the file. Columns that are not named here are found by
            `schema.COLUMN_ALIASES`, exact names first. A .dat without a header takes its columns in
            the order of this mapping. Interests are a list, or text with "|" between labels.
        kinds: A kind as the file writes it -> one of `schema.KINDS`, for kinds that are not in
            `schema.KIND_ALIASES` or should be read in another way; each must be in the file.
        default_kind: Kind of the rows that name none. None takes "rating" where the value
            column is called rating, "purchase" where it is called quantity, else "view".
        name: Name of the log; None takes the file's name without its extension.

    Raises:
        ValueError: If the file is missing, empty or of an unknown form; if user, item or time
            is not found, is empty in all rows, or a column fits twice; if a row is damaged, a value
            has the wrong type, is not finite, or is a rating below 0 (unless `columns` names that
            column), a user or item is a float of 2**53 or more, which numbers share, a time is
            out of the years 1 to 9999, or a kind is unknown. The message names the file and,
            where there is one, row (from 1, without the header), column and value.

    Example:
        >>> read_log("visits.csv", columns={"user": "who"})  # doctest: +SKIP
        EventLog('visits': 3 events, 2 users, 3 items, 2024-05-01 to 2024-05-03)
    """
    path, columns, kinds = Path(path), columns or {}, kinds or {}
    source, table = path.name, read_table(path, columns)
    found = find_columns(table.columns, columns, source=source)
    value_name = schema.plain_name(found.get(VALUE, ""))
    default = default_kind or _KIND_OF_VALUE.get(value_name, "view")
    schema.check_kinds([default, *kinds.values()], what=source)
    lowest = 0.0 if value_name == "rating" and VALUE not in columns else None
    ours = pl.DataFrame(
        {
            USER: _read_name(table, found.get(USER), source=source),
            ITEM: _read_name(table, found.get(ITEM), source=source),
            TIME: _read_time(table, found[TIME], source=source),
            KIND: _read_kind(table, found.get(KIND), kinds, source=source),
            VALUE: _read_value(table, found.get(VALUE), lowest=lowest, source=source),
            TEXT: _read_text(table, found.get(TEXT), source=source),
            TITLE: _read_text(table, found.get(TITLE), source=source),
            INTERESTS: _read_interests(table, found.get(INTERESTS), source=source),
        }
    ).with_columns(pl.col(KIND).fill_null(default))
    ours = _name_searches(ours)
    if empty := [name for name in (USER, ITEM, TIME) if ours[name].null_count() == len(ours)]:
        theirs = found.get(empty[0], empty[0])
        raise ValueError(
            f"{source}, column {theirs!r}: must not be empty in all {len(ours):,} rows"
        )
    return EventLog(
        events=ours.select(list(schema.EVENT_COLUMNS)),
        items=_collect_items(ours),
        name=name or path.stem,
        note=f"read from {source}{_kinds_note(table, found.get(KIND), ours[KIND])}",
    )


def _kinds_note(table: pl.DataFrame, column: str | None, kinds: pl.Series) -> str:
    """Which kinds of the file were read under another name."""
    if column is None:
        return ""
    pairs = pl.DataFrame({"theirs": table[column].cast(pl.String), "ours": kinds}).unique()
    pairs = sorted(pairs.drop_nulls().rows())
    return "".join(f"; {a} read as {b}" for a, b in pairs if a and a.lower() != b)


def find_columns(there: list[str], columns: Mapping[str, str], *, source: str) -> dict[str, str]:
    """Our column names -> theirs, for the columns that the file has."""
    if strange := [ours for ours in columns if ours not in schema.COLUMN_ALIASES]:
        raise ValueError(
            f"columns: names must be among {list(schema.COLUMN_ALIASES)}, got {strange}"
        )
    if len(set(columns.values())) < len(columns):
        raise ValueError(f"columns: each of ours must have one of its own, got {dict(columns)}")
    absent = [theirs for theirs in columns.values() if theirs not in there]
    if absent:
        raise ValueError(f"{source}: columns {absent} are not in the file, which has {there}")
    free = [theirs for theirs in there if theirs not in columns.values()]
    found = dict(columns)
    for ours in schema.COLUMN_ALIASES:
        if ours not in found:
            fitting = [name for name in free if schema.alias_of(name) == ours]
            fitting = [ours] if ours in free else fitting
            if len(fitting) > 1:
                raise ValueError(
                    f"{source}: {ours} could be any of the columns {fitting}; choose one, as in "
                    f'columns={{"{ours}": "{fitting[0]}"}}'
                )
            if fitting:
                found[ours] = fitting[0]
    required = [USER, TIME] if TEXT in found else [USER, ITEM, TIME]
    lost = [ours for ours in required if ours not in found]
    if lost:
        raise ValueError(
            f"{source}: no column found for {', '.join(lost)} among {there}; say which it is, "
            f'as in columns={{"{lost[0]}": "..."}}'
        )
    return found


def _read_text(table: pl.DataFrame, column: str | None, *, source: str) -> pl.Series:
    """A column as text; blank text and NaN are null, whole floats lose their '.0'."""
    if column is None:
        return pl.repeat(None, len(table), dtype=pl.String, eager=True)
    series = table[column]
    if not (series.dtype.is_numeric() or series.dtype in _TEXT_DTYPES):
        row = series.is_not_null().arg_max()
        _raise_at(series, row, allowed=f"text or numbers, not {series.dtype}", source=source)
    text = _whole_if_all_are(series).cast(pl.String)
    _check_read(
        text, text.set(text.str.len_bytes() > _LONGEST, None), allowed=_SHORT, source=source
    )
    return text.set(text.str.strip_chars() == "", None)


def _whole_if_all_are(series: pl.Series) -> pl.Series:
    """Floats as whole numbers where all are; NaN is null."""
    if not series.dtype.is_float():
        return series
    series = series.fill_nan(None)
    whole = series.cast(pl.Int64, strict=False)  # null, too, for what is too large
    return whole if whole.cast(series.dtype).equals(series) else series


def _raise_at(series: pl.Series, row: int, *, allowed: str, source: str) -> NoReturn:
    one = series.slice(row, 1)
    try:
        (value,) = one.to_list()
    except (OverflowError, ValueError, pl.exceptions.PanicException):  # no such time in Python
        (value,) = one.to_physical().to_list()
    value = value if len(repr(value)) <= _SHOWN else str(value)[:_SHOWN] + "..."
    place = {"source": source, "row": row + 1, "column": series.name}
    schema.raise_bad_value(**place, value=value, allowed=allowed)


def _check_read(before: pl.Series, after: pl.Series, *, allowed: str, source: str) -> pl.Series:
    """`after`, unless a value that was there before is lost."""
    lost = (after.is_null() & before.is_not_null()).arg_true()
    if len(lost) > 0:
        _raise_at(before, lost[0], allowed=allowed, source=source)
    return after


def _read_name(table: pl.DataFrame, column: str | None, *, source: str) -> pl.Series:
    """A column as names of users or items: no list or object that JSON had in some rows."""
    text = _read_text(table, column, source=source)
    if column is not None and table.schema[column].is_float():
        bits = _FLOAT_BITS.get(table.schema[column], 53)
        alike = (table[column].fill_nan(None).abs() >= 2**bits).arg_true()
        if len(alike) > 0:  # the next whole number is the same float
            allowed = f"below 2**{bits} where floats are names (give integers or text)"
            _raise_at(table[column], alike[0], allowed=allowed, source=source)
    if source.lower().endswith(("jsonl", "ndjson")):
        for row in text.str.contains(_NESTED).arg_true():
            if _is_json(text[row]):
                _raise_at(text, row, allowed="text or a number", source=source)
    return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _read_value(
    table: pl.DataFrame, column: str | None, *, lowest: float | None, source: str
) -> pl.Series:
    """A column as finite numbers."""
    if column is None:
        return pl.repeat(None, len(table), dtype=pl.Float64, eager=True)
    text = _read_text(table, column, source=source)
    numbers = text.str.strip_chars().cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite(), None)
    numbers = _check_read(text, numbers, allowed="a number", source=source)
    if lowest is not None:
        enough = numbers.set(numbers < lowest, None)
        allowed = f"at least {lowest:g}, or the column be named in columns= if it may be below"
        _check_read(text, enough, allowed=allowed, source=source)
    return numbers


def _read_time(table: pl.DataFrame, column: str, *, source: str) -> pl.Series:
    """A column as UTC times."""
    series = table[column]
    if isinstance(series.dtype, pl.Date | pl.Datetime):
        return _in_utc(series, source=source)
    text = _read_text(table, column, source=source).str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    numbers = numbers.set(numbers.is_nan(), None)
    median = numbers.filter(numbers.is_finite()).abs().median() or 0
    name, unit = next((name, unit) for limit, name, unit in times.UNITS if median < limit)
    micros = (numbers * unit).round()
    is_wrong = ~micros.is_between(*times.RANGE)
    # what is of our days in a larger unit, and long ago in this one
    for _, _, other in times.UNITS:
        if other > unit:
            is_wrong |= (numbers * other).is_between(*_OUR_DAYS) & (micros < _OUR_DAYS[0])
    allowed = f"a time in the years 1 to 9999 in unix {name}, as most of the column is"
    _check_read(text, text.set(is_wrong, None), allowed=allowed, source=source)
    time = micros.cast(pl.Int64, strict=False).cast(times.UTC_TIME)
    if time.null_count() > text.null_count():
        time = time.zip_with(time.is_not_null(), times.iso_8601(text))
    return _check_read(text, time, allowed=times.ALLOWED, source=source)


def _in_utc(series: pl.Series, *, source: str) -> pl.Series:
    """Dates and times as UTC times."""
    is_date = series.dtype == pl.Date
    unit = 86_400_000_000 if is_date else {"ms": 1e3, "us": 1, "ns": 1e-3}[series.dtype.time_unit]
    micros = series.to_physical().cast(pl.Float64) * unit
    kept = micros.set(~micros.is_between(*times.RANGE), None)
    allowed = "a time in the years 1 to 9999"
    _check_read(series.to_physical(), kept, allowed=allowed, source=source)
    time = series.cast(pl.Datetime("us", getattr(series.dtype, "time_zone", None)))
    is_naive = time.dtype.time_zone is None
    return time.dt.replace_time_zone("UTC") if is_naive else time.dt.convert_time_zone("UTC")


def _read_kind(
    table: pl.DataFrame, column: str | None, kinds: Mapping[str, str], *, source: str
) -> pl.Series:
    """A column as kinds of `schema.KINDS`, null where the file names none."""
    text = _read_text(table, column, source=source)
    aliases = {alias: kind for kind, names in schema.KIND_ALIASES.items() for alias in names}
    found = text.drop_nulls().unique(maintain_order=True).to_list()
    if strange := [theirs for theirs in kinds if theirs not in found]:
        raise ValueError(
            f"kinds: names must be among those of {source}, {found[:10]}, got {strange[:10]}"
        )
    known = {theirs: kinds.get(theirs, aliases.get(schema.plain_name(theirs))) for theirs in found}
    if unknown := [theirs for theirs, kind in known.items() if kind is None]:
        row = (text == unknown[0]).arg_true()[0]
        raise ValueError(
            f"{source}, row {row + 1}, column {column!r}: unknown kinds {unknown[:10]} among the "
            f"found {found[:10]}; map each to one of {', '.join(schema.KINDS)}, as in "
            f'kinds={{"{unknown[0]}": "view"}}'
        )
    return text.replace_strict(known, return_dtype=pl.String, default=None)


def _read_interests(table: pl.DataFrame, column: str | None, *, source: str) -> pl.Series:
    """A column as lists of labels, each once; text is split at "|"."""
    if column is None:
        return pl.repeat([], len(table), dtype=pl.List(pl.String), eager=True)
    if isinstance(table.schema[column], pl.List):
        labels = table[column]
        inner = labels.dtype.inner
        if not (inner.is_numeric() or inner in _TEXT_DTYPES):
            row = (labels.list.len() > 0).arg_max()
            _raise_at(labels, row, allowed=f"text or numbers in a list, not {inner}", source=source)
        plain = _whole_if_all_are(labels.explode()).dtype
        labels = labels.list.eval(pl.element().fill_nan(None)) if inner.is_float() else labels
        labels = labels.cast(pl.List(plain)).cast(pl.List(pl.String))
        long = (labels.list.eval(pl.element().str.len_bytes()).list.max() > _LONGEST).arg_true()
        if len(long) > 0:
            _raise_at(labels, long[0], allowed=f"{_SHORT} in each label", source=source)
    else:
        labels = _read_text(table, column, source=source).str.split("|")
    stripped = pl.element().str.strip_chars()
    cleaned = stripped.filter(stripped != "").unique(maintain_order=True)
    return labels.list.eval(cleaned).fill_null([])


def _name_searches(events: pl.DataFrame) -> pl.DataFrame:
    """Give a search without an item the item of its query, titled with the query."""
    query = pl.col(TEXT).str.strip_chars()
    is_named = (pl.col(KIND) == "search") & pl.col(ITEM).is_null() & query.is_not_null()
    item = pl.lit(schema.SEARCH_PREFIX) + query.str.to_lowercase()
    return events.with_columns(
        pl.when(is_named).then(item).otherwise(ITEM).alias(ITEM),
        pl.when(is_named).then(query).otherwise(TITLE).alias(TITLE),
    )


def _collect_items(events: pl.DataFrame) -> pl.DataFrame:
    """One row per item, with the first title and the first interests given for it."""
    labels = pl.col(INTERESTS)
    return (
        events.lazy()
        .filter(pl.col(ITEM).is_not_null())
        .group_by(ITEM, maintain_order=True)
        .agg(pl.col(TITLE).drop_nulls().first(), labels.filter(labels.list.len() > 0).first())
        .with_columns(labels.fill_null([]))
        .collect()
    )
