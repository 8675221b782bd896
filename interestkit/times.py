"""What text and numbers are which times: ISO 8601, and units told by their size."""

import narwhals as nw
import polars as pl

ALLOWED = (
    "unix seconds, milliseconds, microseconds or nanoseconds, or ISO 8601 such as "
    "2024-05-31T18:30:00Z"
)
# Microseconds from the second day of the year 1 to the last but one of 9999, so in any zone.
RANGE = (-62_135_510_400_000_000, 253_402_214_400_000_000)
UNITS = [(1e11, "seconds", 1e6), (1e14, "milliseconds", 1e3)]  # below which size, microseconds
UNITS += [(1e17, "microseconds", 1.0), (float("inf"), "nanoseconds", 1e-3)]
UTC_TIME = pl.Datetime("us", "UTC")
_ISO_8601 = (
    r"^(?<date>\d{4}-\d{2}-\d{2})(?:[T ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2}(?:\.\d+)?))?"
    r" ?(?:Z|UTC|(?<hours>[+-]\d{2}):?(?<minutes>\d{2})?)?)?$"
)
_DEFAULTS = {"minute": "00:00", "second": "00", "hours": "+00", "minutes": "00"}


def iso_8601(text: pl.Series) -> pl.Series:
    """ISO 8601 text as UTC times, null where it is none or out of `RANGE`; no zone means UTC.

    Example:
        >>> iso_8601(pl.Series(["2024-05-31", "2024-05-31 18:30+02", "31.5.2024"])).to_list()[1:]
        [datetime.datetime(2024, 5, 31, 16, 30, tzinfo=...), None]
    """
    parts = text.str.extract_groups(_ISO_8601).struct.unnest()
    others = (pl.col(part).fill_null(default) for part, default in _DEFAULTS.items())
    whole = parts.select(pl.format("{}T{}:{}{}:{}", pl.col("date"), *others)).to_series()
    time = whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", strict=False)
    return time.set(~time.to_physical().is_between(*RANGE), None)


def each_time(text: pl.Series) -> pl.Series:
    """Numbers, each in the unit that its size says, or ISO 8601, as UTC times; blank is null.

    Raises:
        ComputeError: If a text is neither, or a number no time in the years 1 to 9999; that of
            Polars, which calls this while it computes.

    Example:
        >>> text = pl.Series(["1717180200", " 1717180200250 ", "2024-05-31T18:30Z", " "])
        >>> each_time(text).dt.epoch("ms").to_list()
        [1717180200000, 1717180200250, 1717180200000, None]
    """
    text = text.str.strip_chars().replace("", None)
    number = text.cast(pl.Float64, strict=False)
    unit = pl.lit(None, pl.Float64)
    for limit, _, factor in reversed(UNITS):
        unit = pl.when(pl.first().abs() < limit).then(factor).otherwise(unit)
    micros = number.to_frame().select((pl.first() * unit).round()).to_series()
    time = micros.set(~micros.is_between(*RANGE), None).cast(pl.Int64).cast(UTC_TIME)
    if (is_left := time.is_null() & text.is_not_null()).any():
        time = time.zip_with(~is_left, iso_8601(text.set(~is_left, None)))
        if (is_lost := time.is_null() & text.is_not_null()).any():
            what = f"must be {ALLOWED}, got {text.filter(is_lost)[0][:100]!r}"
            raise pl.exceptions.ComputeError(f"column {text.name!r} {what}")
    return time


def micros_of(number: nw.Expr) -> nw.Expr:
    """Whole numbers, each in the unit that its size says, as microseconds."""
    number = number.cast(nw.Int64)
    whole = (number - number % 10**9 + 10**9 // 2) // 10**9  # where / is of floats, as on Spark
    micros = whole * 10**6 + number % 10**9 // 1_000
    for limit, _, unit in reversed(UNITS[:-1]):
        is_below = number.is_between(-int(limit), int(limit), closed="none")
        micros = nw.when(is_below).then(number * int(unit)).otherwise(micros)
    return micros
