"""Event logs: reading one from a file in any common form."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from interestkit import reprs, schema
from interestkit.schema import INTERESTS, ITEM, KIND, TEXT, TIME, TITLE, USER, VALUE

_KIND_OF_VALUE = {"rating": "rating", "quantity": "purchase"}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".dat")
_ISO_8601 = (
    r"^(?<date>\d{4}-\d{2}-\d{2})(?:[T ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2}(?:\.\d+)?))?"
    r" ?(?:Z|UTC|(?<hours>[+-]\d{2}):?(?<minutes>\d{2})?)?)?$"
)
_LAST_MICROSECOND = 253_402_300_799_000_000  # the last second of the year 9999
_FIRST_MICROSECOND = -62_135_596_800_000_000  # the start of the year 1


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
        schema.check_columns(self.items, schema.ITEM_COLUMNS, what="items")
        schema.check_kinds(self.events[KIND].unique(), what="events")
        twice = self.items[ITEM].filter(self.items[ITEM].is_duplicated())
        if len(twice) > 0:
            raise ValueError(f"items: each item must have one row, got more for {twice[0]!r}")

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

    def _summary(self) -> str:
        counts = f"{self.num_events:,} events, {self.num_users:,} users, {self.num_items:,} items"
        times = self.events[TIME].drop_nulls()
        if len(times) == 0:
            return counts
        return f"{counts}, {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}"

    def __repr__(self) -> str:
        return f"EventLog({self.name!r}: {self._summary()})"

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
    or .dat (fields separated by "::"). Text files are UTF-8.

    Times are ISO 8601 text (no zone means UTC) or a number since 1970: seconds where the
    column's median is below 1e11, milliseconds where it is above. Empty fields are null; rows
    without user, item or time are kept for `cleaning.clean` to count, and so are times outside
    the years 1 to 9999, at the end of that span. A search that names no item gets the item
    "search:" + its query in lower case. An item's title and interests are the first ones that
    the file gives for it.

    Args:
        path: The file.
        columns: Our column name (user, item, time, kind, value, text, title, interests) ->
            the name in the file. Columns that are not named here are found by
            `schema.COLUMN_ALIASES`, exact names first. A .dat without a header takes its columns in
            the order of this mapping. Interests are a list, or text with "|" between labels.
        kinds: A kind as the file writes it -> one of `schema.KINDS`, for kinds that are not in
            `schema.KIND_ALIASES` or should be read in another way.
        default_kind: Kind of the rows that name none. None takes "rating" where the value
            column is called rating, "purchase" where it is called quantity, else "view".
        name: Name of the log; None takes the file's name without its extension.

    Raises:
        ValueError: If the file is missing, empty or of an unknown form; if user, item or time
            is not found, or a column fits twice; if a value has the wrong type or a kind is
            unknown. The message names the file and, where there is one, row (from 1, the
            header not counted), column and value.

    Example:
        >>> read_log("visits.csv", columns={"user": "who"})  # doctest: +SKIP
        EventLog('visits': 3 events, 2 users, 3 items, 2024-05-01 to 2024-05-03)
    """
    path = Path(path)
    table = _read_table(path, columns or {})
    found = find_columns(table.columns, columns or {}, source=path.name)
    default = default_kind or _KIND_OF_VALUE.get(_plain(found.get(VALUE, "")), "view")
    schema.check_kinds([default, *(kinds or {}).values()], what=path.name)
    ours = pl.DataFrame(
        {
            USER: _read_text(table, found.get(USER), source=path.name),
            ITEM: _read_text(table, found.get(ITEM), source=path.name),
            TIME: _read_time(table, found[TIME], source=path.name),
            KIND: _read_kind(table, found.get(KIND), kinds or {}, source=path.name),
            VALUE: _read_value(table, found.get(VALUE), source=path.name),
            TEXT: _read_text(table, found.get(TEXT), source=path.name),
            TITLE: _read_text(table, found.get(TITLE), source=path.name),
            INTERESTS: _read_interests(table, found.get(INTERESTS), source=path.name),
        }
    ).with_columns(pl.col(KIND).fill_null(default))
    ours = _name_searches(ours)
    return EventLog(
        events=ours.select(list(schema.EVENT_COLUMNS)),
        items=_collect_items(ours),
        name=name or path.stem,
        note=f"read from {path.name}{_kinds_note(table, found.get(KIND), ours[KIND])}",
    )


def _kinds_note(table: pl.DataFrame, column: str | None, kinds: pl.Series) -> str:
    """Which kinds of the file were read under another name."""
    theirs = table[column].cast(pl.String).fill_null("") if column else kinds
    pairs = sorted(set(zip(theirs, kinds, strict=True)))
    return "".join(f"; {a} read as {b}" for a, b in pairs if a and a.lower() != b)


def _read_table(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """The file as it is: text files give text columns."""
    suffix = path.suffix.lower()
    if suffix not in _EXTENSIONS:
        raise ValueError(
            f"{path}: extension must be one of {', '.join(_EXTENSIONS)}, got {suffix!r}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    with path.open("rb") as file:
        is_blank = file.read(4096).strip() == b""
    try:
        if is_blank:
            table = pl.DataFrame()
        elif suffix == ".parquet":
            table = pl.read_parquet(path)
        elif suffix == ".dat":
            table = _read_dat(path, columns)
        elif suffix in _SEPARATORS:
            table = pl.read_csv(path, separator=_SEPARATORS[suffix], infer_schema=False)
        else:
            table = pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        where = _find_broken_row(path, suffix)
        raise ValueError(f"{path}{where}: cannot be read as {suffix}: {error}") from error
    if table.is_empty():
        raise ValueError(f"{path}: the file has no rows")
    return table


def _find_broken_row(path: Path, suffix: str) -> str:
    """Which row of a text file cannot be read, for the message; empty if that cannot be said."""
    if suffix not in (*_SEPARATORS, ".jsonl", ".ndjson"):
        return ""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if suffix in _SEPARATORS:
            rows = csv.reader(file, delimiter=_SEPARATORS[suffix])
            width = len(next(rows))
            wide = (row for row, fields in enumerate(rows, start=1) if len(fields) > width)
            return next((f", row {row} with more than {width} fields" for row in wide), "")
        for row, line in enumerate(file, start=1):
            try:
                json.loads(line)
            except ValueError:
                return f", row {row}"
    return ""


def _read_dat(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Fields separated by "::"; the first line is a header if it holds a known column name."""
    lines = pl.read_csv(
        path, has_header=False, separator="\x1f", quote_char=None, infer_schema=False
    ).to_series()
    fields = lines.str.split("::")
    first = fields[0].to_list()
    known = set(columns.values()) or {name for name in first if _alias_of(name)}
    has_header = any(name in known for name in first)
    if not has_header and not columns:
        raise ValueError(
            f"{path.name}: the file has no header that names user, item and time; give the names "
            f'in the order of its {len(first)} fields, as in columns={{"user": "user", ...}}'
        )
    names = first if has_header else [columns[ours] for ours in columns]
    fields = fields[1:] if has_header else fields
    wrong = (fields.list.len() != len(names)).arg_true()
    if len(wrong) > 0:
        row = wrong[0]
        raise ValueError(
            f"{path.name}, row {row + 1}: must have {len(names)} fields {names} separated by '::', "
            f"got {len(fields[row])}"
        )
    return pl.DataFrame({name: fields.list.get(i) for i, name in enumerate(names)})


def _plain(name: str) -> str:
    """A name in lower case, with letters and digits only."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _alias_of(name: str) -> str | None:
    """Our name for a column of theirs, None if it is not known."""
    plain = _plain(name)
    return next((ours for ours, names in schema.COLUMN_ALIASES.items() if plain in names), None)


def find_columns(there: list[str], columns: Mapping[str, str], *, source: str) -> dict[str, str]:
    """Our column names -> theirs, for the columns that the file has."""
    if strange := [ours for ours in columns if ours not in schema.COLUMN_ALIASES]:
        raise ValueError(
            f"columns: names must be among {list(schema.COLUMN_ALIASES)}, got {strange}"
        )
    absent = [theirs for theirs in columns.values() if theirs not in there]
    if absent:
        raise ValueError(f"{source}: columns {absent} are not in the file, which has {there}")
    free = [theirs for theirs in there if theirs not in columns.values()]
    found = dict(columns)
    for ours in schema.COLUMN_ALIASES:
        if ours not in found:
            fitting = [ours] if ours in free else [name for name in free if _alias_of(name) == ours]
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
    if series.dtype.is_nested():
        raise ValueError(
            f"{source}, column {column!r}: must be text or numbers, got {series.dtype}"
        )
    if series.dtype.is_float():
        series = series.fill_nan(None)
        whole = series.cast(pl.Int64, strict=False)
        series = whole if (whole == series).all() else series
    text = series.cast(pl.String)
    return text.set(text.str.strip_chars() == "", None)


def _check_read(before: pl.Series, after: pl.Series, *, allowed: str, source: str) -> pl.Series:
    """`after`, unless a value that was there before is lost."""
    lost = (after.is_null() & before.is_not_null()).arg_true()
    if len(lost) > 0:
        row = lost[0]
        schema.raise_bad_value(
            source=source, row=row + 1, column=before.name, value=before[row], allowed=allowed
        )
    return after


def _read_value(table: pl.DataFrame, column: str | None, *, source: str) -> pl.Series:
    """A column as numbers."""
    if column is None:
        return pl.repeat(None, len(table), dtype=pl.Float64, eager=True)
    text = _read_text(table, column, source=source)
    numbers = text.str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)
    return _check_read(text, numbers, allowed="a number", source=source)


def _read_time(table: pl.DataFrame, column: str, *, source: str) -> pl.Series:
    """A column as UTC times."""
    dtype = table.schema[column]
    if isinstance(dtype, pl.Date | pl.Datetime):
        time = table[column].cast(pl.Datetime("us", getattr(dtype, "time_zone", None)))
        is_naive = time.dtype.time_zone is None
        return time.dt.replace_time_zone("UTC") if is_naive else time.dt.convert_time_zone("UTC")
    text = _read_text(table, column, source=source).str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    unit = 1e6 if (numbers.abs().median() or 0) < 1e11 else 1e3  # microseconds
    micros = (numbers * unit).round().clip(_FIRST_MICROSECOND, _LAST_MICROSECOND)
    time = micros.cast(pl.Int64, strict=False).cast(pl.Datetime("us", "UTC"))
    if time.null_count() > text.null_count():
        time = time.zip_with(time.is_not_null(), _parse_iso_8601(text))
    allowed = "unix seconds, unix milliseconds or ISO 8601 such as 2024-05-31T18:30:00Z"
    return _check_read(text, time, allowed=allowed, source=source)


def _parse_iso_8601(text: pl.Series) -> pl.Series:
    """ISO 8601 text as UTC times, null where it is something else."""
    defaults = {"minute": "00:00", "second": "00", "hours": "+00", "minutes": "00"}
    parts = text.str.extract_groups(_ISO_8601).struct.unnest()
    whole = parts.select(
        pl.format(
            "{}T{}:{}{}:{}",
            pl.col("date"),
            *(pl.col(part).fill_null(default) for part, default in defaults.items()),
        )
    ).to_series()
    return whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", strict=False)


def _read_kind(
    table: pl.DataFrame, column: str | None, kinds: Mapping[str, str], *, source: str
) -> pl.Series:
    """A column as kinds of `schema.KINDS`, null where the file names none."""
    text = _read_text(table, column, source=source)
    aliases = {alias: kind for kind, names in schema.KIND_ALIASES.items() for alias in names}
    found = text.drop_nulls().unique(maintain_order=True).to_list()
    known = {theirs: kinds.get(theirs, aliases.get(_plain(theirs))) for theirs in found}
    if unknown := [theirs for theirs, kind in known.items() if kind is None]:
        row = (text == unknown[0]).arg_true()[0]
        raise ValueError(
            f"{source}, row {row + 1}, column {column!r}: unknown kinds {unknown} among the found "
            f"{found}; map each to one of {', '.join(schema.KINDS)}, as in "
            f'kinds={{"{unknown[0]}": "view"}}'
        )
    return text.replace_strict(known, return_dtype=pl.String, default=None)


def _read_interests(table: pl.DataFrame, column: str | None, *, source: str) -> pl.Series:
    """A column as lists of labels, each once; text is split at "|"."""
    if column is None:
        return pl.repeat([], len(table), dtype=pl.List(pl.String), eager=True)
    if isinstance(table.schema[column], pl.List):
        labels = table[column].cast(pl.List(pl.String))
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
