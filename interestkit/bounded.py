"""Parquet files, NumPy archives, notebooks: one that lies of its size or form is one error."""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

MOST_COLUMNS = 1_000  # of a table that is read
_BATCH = 4_096  # rows of a Parquet file at a time
_ROOM = 1 << 26  # bytes that a Parquet file may unpack to, whatever its own size, ...
_EXPANSION = 1_000  # ... and as a multiple of its size
_PLAIN_DTYPES = "biufcUSmM"  # bool, integers, floats, complex, text, bytes, time spans, times
_LONGEST_HEADER = 10_000  # bytes of the header of an array
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What reading a damaged archive raises; a password is a RuntimeError, a strange header may be any.
_NO_ARCHIVE = (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, TypeError)
_NO_ARCHIVE += (LookupError, MemoryError, SyntaxError)


def read_parquet(path: Path | BytesIO, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A Parquet file, every value checked, so that a damaged or lying one is an error like others.

    Arrow reads it: it holds out against files that claim more than they have, where the reader of
    Polars may end the process.

    Args:
        path: The file, or its content.
        columns: Those wanted; None takes all.

    Raises:
        ValueError: If it cannot be read, has more than 1,000 columns, or unpacks to more than
            64 MiB and 1,000 times its size.
    """
    import pyarrow as pa

    with _parquet(path) as (file, room):
        empty = file.schema_arrow.empty_table()
        batches, claimed = [], file.metadata.num_rows
        for batch in file.iter_batches(_BATCH, columns=columns):
            batch.validate(full=True)
            batches.append(batch)
            room -= batch.nbytes
            if room < 0:
                raise ValueError(f"unpacks to more than {_EXPANSION:,} times its size")
        if (num_rows := sum(batch.num_rows for batch in batches)) != claimed:
            raise ValueError(f"claims {claimed:,} rows, but has {num_rows:,}")
        names = columns or empty.schema.names
        table = pa.Table.from_batches(batches) if batches else empty.select(names)
        for place, name, unit in _with_offset(table.schema):
            table = table.set_column(place, name, table[place].cast(pa.timestamp(unit, "UTC")))
        return pl.from_arrow(table)


def check_parquet(path: Path) -> None:
    """Raise ValueError if what a Parquet file says of itself cannot be, or Polars cannot read it.

    Its values are not read.
    """
    with _parquet(path) as (file, _):
        for _, name, _ in _with_offset(file.schema_arrow):
            raise ValueError(f"column {name!r} must have times in UTC, got another fixed offset")


def _with_offset(schema) -> list[tuple[int, str, str]]:
    """Columns of times in a zone such as +05:30, which Polars does not know, and their units."""
    return [
        (place, field.name, field.type.unit)
        for place, field in enumerate(schema)
        if re.match(r"[+-](?!00:00$)", str(getattr(field.type, "tz", None)))
    ]


@contextmanager
def _parquet(path: Path | BytesIO) -> Iterator[tuple]:
    """A Parquet file whose claims can be true, and the bytes that it may unpack to."""
    from pyarrow import parquet

    try:
        room, size = room_of(_size(path)), max(_size(path), 1)
        most = {"container": min(size, 1_000_000), "string": min(size, 100_000_000)}
        limits = {f"thrift_{what}_size_limit": number for what, number in most.items()}
        with parquet.ParquetFile(path, **limits) as file:  # a part takes a byte or more
            _check_claims(file.metadata, room)
            yield file, room
    except _arrow_errors() as error:
        what = "" if isinstance(path, BytesIO) else f"{path}: "
        raise ValueError(f"{what}cannot be read as .parquet: {brief(error)}") from error


def _arrow_errors() -> tuple[type[BaseException], ...]:
    """What reading a damaged file with Arrow and Polars raises."""
    import pyarrow as pa

    errors = (pa.ArrowException, OSError, LookupError, ValueError, TypeError, MemoryError)
    return (*errors, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def room_of(size: int) -> int:
    """Bytes that a file of this size may unpack to."""
    return max(_ROOM, _EXPANSION * size)


def read_ipc(content: bytes) -> pl.DataFrame:
    """An Arrow file, every value checked.

    Raises:
        ValueError: If it cannot be read.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(content).read_all()
        table.validate(full=True)
        return pl.from_arrow(table)
    except _arrow_errors() as error:
        raise ValueError(f"cannot be read as an Arrow file: {brief(error)}") from error


def _size(path: Path | BytesIO) -> int:
    return path.getbuffer().nbytes if isinstance(path, BytesIO) else path.stat().st_size


def _check_claims(metadata, room: int) -> None:
    """Raise ValueError if a Parquet file says of itself that it is too large to be true."""
    if metadata.num_columns > MOST_COLUMNS:
        raise ValueError(
            f"must have at most {MOST_COLUMNS:,} columns, got {metadata.num_columns:,}"
        )
    if not 0 <= metadata.num_rows <= room:
        raise ValueError(f"claims {metadata.num_rows:,} rows, which is more than it can hold")
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        if row_group.num_columns != metadata.num_columns:  # Arrow ends the process at the first
            raise ValueError(
                f"claims {metadata.num_columns:,} columns, but has {row_group.num_columns:,}"
            )
        # what it says of a column is not asked: that ends the process if its type is another
        if not 0 <= (size := row_group.total_byte_size) <= room:
            raise ValueError(f"claims {size:,} bytes of rows, more than it can hold")


def read_arrays(path: Path | BytesIO) -> dict[str, np.ndarray]:
    """The arrays of an archive of `storage`'s format 1: as they are, never unpickled.

    Args:
        path: A zip file of NAME.npy, or its content, none of them compressed.

    Raises:
        ValueError: If a member is compressed, says another size than it has, or holds objects.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _size(path):
                raise ValueError("its members claim more bytes than the file has")
            for member in members:
                found[member.filename.removesuffix(".npy")] = _read_array(archive, member)
    except _NO_ARCHIVE as error:
        raise ValueError(f"{path}: cannot be read as arrays: {brief(error)}") from error
    return found


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename!r} must be stored as it is, got it compressed")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename!r}: version must be 1.0 or 2.0, got {version}")
        shape, is_fortran, dtype = _HEADERS[version](file, max_header_size=_LONGEST_HEADER)
        left = member.file_size - file.tell()
        if dtype.kind not in _PLAIN_DTYPES:
            raise ValueError(f"{member.filename!r} must hold numbers, text or times, got {dtype}")
        size = dtype.itemsize
        for length in shape:  # whole numbers of any size, so that nothing wraps round
            size *= length
        if size != left or min(shape, default=0) < 0:
            raise ValueError(f"{member.filename!r}: shape {shape} needs {size} bytes, got {left}")
        flat, done = np.empty(size, np.uint8), 0
        while read := file.readinto(flat[done:]):
            done += read
    if not size:
        return np.zeros(shape, dtype)
    return flat.view(dtype).reshape(shape, order="F" if is_fortran else "C")


def brief(error: BaseException) -> str:
    r"""What an error of a library says, on one line and without advice on its own arguments.

    Example:
        >>> brief(ValueError("no such thing\n\nYou might want to try ..."))
        'no such thing'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Makes a ValueError of what Polars says where the table `source` cannot be read or computed.

    Example:
        >>> with naming("events"):
        ...     pl.DataFrame({"x": ["a"]}).cast(pl.Int64)
        Traceback (most recent call last):
        ValueError: events: conversion from `str` to `i64` failed in column 'x' for 1 out of 1 ...
    """
    from narwhals.exceptions import NarwhalsError

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, NarwhalsError) as error:
        raise ValueError(f"{source}: {brief(error)}") from error


@contextmanager
def read_back(source: object) -> Iterator[None]:
    """Makes one ValueError of whatever goes wrong while an object is made of what `source` says.

    Raises:
        ValueError: If the block raises one, or finds a part missing or of another kind.

    Example:
        >>> with read_back("run/model"):
        ...     {}["mode"]
        Traceback (most recent call last):
        ValueError: run/model: damaged, or saved by another version ('mode'); save it again
    """
    errors = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)
    try:
        yield
    except (*errors, pl.exceptions.PolarsError) as error:
        raise ValueError(
            f"{source}: damaged, or saved by another version ({brief(error)}); save it again"
        ) from error


def load_notebook(path: Path):
    """A notebook of format 4 as nbformat has it; its cells may still be of another form.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no notebook, or one of an older format.
    """
    import nbformat

    with read_back(path):
        said = json.loads(text := path.read_text(encoding="utf-8"))
        form = said["nbformat"], said["nbformat_minor"]
        if form[0] != 4 or [*map(type, form)] != [int, int]:
            raise ValueError(f"its format must be 4, got {form[0]!r:.20}")
        try:
            return nbformat.reads(text, as_version=4)
        except nbformat.ValidationError as error:
            raise ValueError(error.message) from error


def check_arrays(
    arrays: Mapping[str, np.ndarray], kinds: str, **shapes: tuple[int | None, ...]
) -> None:
    """Raise ValueError unless arrays have the kinds and shapes that belong to one another.

    Args:
        arrays: Arrays by name.
        kinds: Kinds of NumPy types that are allowed, such as "iu"; those of "f" must be finite.
        **shapes: Shape that the array of this name must have; None stands for any length.

    Example:
        >>> check_arrays({"x": np.ones(3)}, "f", x=(2,))
        Traceback (most recent call last):
        ValueError: x must have shape (2,) and a type of kind 'f', got (3,) and float64
    """
    for name, shape in shapes.items():
        array = arrays[name]
        fits = len(shape) == array.ndim and all(
            wanted in (None, came) for wanted, came in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype.kind not in kinds:
            raise ValueError(
                f"{name} must have shape {shape} and a type of kind {kinds!r}, got {array.shape} "
                f"and {array.dtype}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite")
