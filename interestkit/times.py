"""What text and numbers are which times: ISO 8601, and units told by their size."""

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
FORM = "%Y-%m-%dT%H:%M:%S%.f%z"  # of `in_one_form`


def in_one_form(text: pl.Expr) -> pl.Expr:
    """ISO 8601 text in the form `FORM`, null where it is something else; no zone means UTC.

    Example:
        >>> text = pl.Series(["2024-05-31", "2024-05-31 18:30+02", "31.5.2024"])
        >>> text.to_frame().select(in_one_form(pl.first())).to_series().to_list()
        ['2024-05-31T00:00:00+00:00', '2024-05-31T18:30:00+02:00', None]
    """
    parts = text.str.extract_groups(_ISO_8601).struct
    others = (parts.field(part).fill_null(default) for part, default in _DEFAULTS.items())
    return pl.format("{}T{}:{}{}:{}", parts.field("date"), *others)
