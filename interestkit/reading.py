"""Files of any common form as tables of what stands in them, or one error that says where not."""

import codecs
import csv
import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from interestkit import schema
from interestkit.bounded import MOST_COLUMNS, brief, read_parquet

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".dat")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_BLOCK = 1 << 20  # bytes of a text file that are looked at together
_MARK = codecs.BOM_UTF8
# How files begin that are no plain text: the readers would unpack some, to whatever size.
_BEGINS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ": "xz",
    b"x\x01": "zlib",
    b"x^": "zlib",
    b"x\x9c": "zlib",
    b"x\xda": "zlib",
    b"PAR1": "Parquet (name it .parquet)",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_table(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """The file as it is; CSV, TSV and "::" give columns of text.

    Args:
        path: The file, of one of `EXTENSIONS`. Text is UTF-8, not compressed.
        columns: Our column name -> the name in the file, in the order of the file's fields where a
            .dat has no header.

    Raises:
        ValueError: If it is missing, empty, of another form, or a row of it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in EXTENSIONS:
        raise ValueError(
            f"{path}: extension must be one of {', '.join(EXTENSIONS)}, got {suffix!r}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    if _is_blank(path):
        table = pl.DataFrame()
    elif suffix == ".parquet":
        table = read_parquet(path)
    else:
        table = _read_text(path, suffix, columns)
    if table.is_empty():
        raise ValueError(f"{path}: the file has no rows")
    return table


def _is_blank(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(len(_MARK)) != _MARK:
            file.seek(0)
        return not any(block.strip() for block in iter(lambda: file.read(_BLOCK), b""))


def check_csv(path: Path) -> None:
    """Raise ValueError if a CSV file is not UTF-8, a name in it comes twice, or a row is short.

    All of it is gone through, in parts.
    """
    _check_plain(path)
    names = _header(path, ".csv")
    line = pl.col("line").str.strip_chars().str.replace_all('"[^"]*"', "x")  # what is quoted
    too_few = line.str.count_matches(",", literal=True) < len(names) - 1
    is_odd = (line != "") & (too_few | line.str.contains('"', literal=True))
    lines = pl.scan_lines(path, glob=False, name="line").select(is_odd.any())
    if lines.collect(engine="streaming").item():  # or a field of several lines
        _check_no_row_short(path, ".csv")


def _check_plain(path: Path) -> None:
    """Raise ValueError if a text file begins as if it were packed, or is no UTF-8."""
    with path.open("rb") as file:
        start = file.read(16).removeprefix(_MARK)  # behind it, too, the readers would unpack
    for begin, name in _BEGINS.items():
        if start.startswith(begin):
            raise ValueError(f"{path}: must be plain text in UTF-8, got {name}")
    _check_characters(path)


def _read_text(path: Path, suffix: str, columns: Mapping[str, str]) -> pl.DataFrame:
    _check_plain(path)
    try:
        if suffix == ".dat":
            return _read_dat(path, columns)
        if suffix in _SEPARATORS:
            return _read_csv(path, suffix)
        return _read_json(path, columns)
    except pl.exceptions.PolarsError as error:
        where = _find_broken_row(path, suffix)
        message = f"{path}{where}: cannot be read as {suffix}: {brief(error)}"
        raise ValueError(message) from error


def _check_characters(path: Path) -> None:
    """Raise ValueError at the first byte that is no UTF-8, or NUL."""
    decoder, row = codecs.getincrementaldecoder("utf-8")(), 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            at = block.find(b"\0")
            try:
                decoder.decode(block if at < 0 else block[:at])
            except UnicodeDecodeError as error:  # what it has is the block after bytes kept back
                before = error.object[: error.start].count(b"\n")
                byte = error.object[error.start]
                raise ValueError(
                    f"{path}, line {row + before}: must be UTF-8, got byte 0x{byte:02x}"
                ) from error
            if at >= 0:
                line = row + block[:at].count(b"\n")
                raise ValueError(f"{path}, line {line}: must be text, got a NUL byte")
            row += block.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {row}: must be UTF-8, but ends within a letter") from error


def _check_names(path: Path, names: list[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise ValueError(f"{path}: must have at most {MOST_COLUMNS:,} columns, got {len(names):,}")
    twice = [name for n, name in enumerate(names) if name and name in names[:n]]
    if twice:
        raise ValueError(f"{path}: column names must differ, got {twice[0]!r} twice")


def _read_csv(path: Path, suffix: str) -> pl.DataFrame:
    _header(path, suffix)
    table = pl.read_csv(path, separator=_SEPARATORS[suffix], infer_schema=False, glob=False)
    if table.width and table.to_series(-1).null_count():  # as at the end of a row that is too short
        _check_no_row_short(path, suffix)
    return table


def _header(path: Path, suffix: str) -> list[str]:
    """The names of the columns, which differ."""
    names = next(_rows(path, suffix), [])
    _check_names(path, names)
    return names


def _check_no_row_short(path: Path, suffix: str) -> None:
    rows = _rows(path, suffix)
    names = next(rows)
    for number, row in enumerate(rows, start=1):
        if 0 < len(row) < len(names):
            raise ValueError(f"{path}, row {number}: must have {len(names)} fields, got {len(row)}")


def _rows(path: Path, suffix: str) -> Iterator[list[str]]:
    """Rows of a CSV file one by one, as slow as that is."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader, done = csv.reader(file, delimiter=_SEPARATORS[suffix], strict=True), 0
        try:
            for row in reader:
                yield row
                done += 1
        except csv.Error as error:
            where = f"row {done}" if done else "header"
            raise ValueError(f"{path}, {where}: cannot be read as {suffix}: {error}") from error


def _read_json(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    with path.open("rb") as file:
        is_marked = file.read(len(_MARK)) == _MARK
    source = path.read_bytes()[len(_MARK) :] if is_marked else glob.escape(str(path))
    found = pl.scan_ndjson(source, infer_schema_length=None).collect_schema()
    _check_names(path, found.names())
    wanted = {name for name in found if name in columns.values() or schema.alias_of(name)}
    # What no log has is not read: objects of any number and depth could stand there.
    return (
        pl.scan_ndjson(source, schema=found)
        .select(pl.col(name) if name in wanted else pl.lit(None).alias(name) for name in found)
        .collect()
    )


def _find_broken_row(path: Path, suffix: str) -> str:
    """Which row of a text file cannot be read, for the message; empty if that cannot be said."""
    if suffix in _SEPARATORS:
        rows = _rows(path, suffix)
        width = len(next(rows, []))
        wide = (row for row, fields in enumerate(rows, start=1) if len(fields) > width)
        return next((f", row {row} with more than {width} fields" for row in wide), "")
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for row, line in enumerate(file, start=1):
            try:
                is_object = not line.strip() or isinstance(_parsed(line), dict)
            except (ValueError, RecursionError):
                is_object = False
            if not is_object:
                return f", row {row}"
    return ""


def _parsed(line: str) -> object:
    """A line of JSON; ValueError where a number is not one that a table can hold."""
    return json.loads(line, parse_constant=_whole, parse_int=_whole)


def _whole(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**64:
        raise ValueError(text)
    return number


def _read_dat(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Fields separated by "::"; the first line is a header if it holds a known column name."""
    lines = pl.read_lines(path, glob=False).to_series()
    lines = lines.str.strip_suffix("\r").str.strip_prefix("\ufeff")
    lines = lines.filter(lines != "")
    if lines.is_empty():
        return pl.DataFrame()
    fields = lines.str.split("::")
    first = fields[0].to_list()
    known = set(columns.values()) or {name for name in first if schema.alias_of(name)}
    has_header = any(name in known for name in first)
    if not has_header and not columns:
        raise ValueError(
            f"{path.name}: the file has no header that names user, item and time; give the names "
            f'in the order of its {len(first)} fields, as in columns={{"user": "user", ...}}'
        )
    names = first if has_header else [columns[ours] for ours in columns]
    _check_names(path, names)
    fields = fields[1:] if has_header else fields
    wrong = (fields.list.len() != len(names)).arg_true()
    if len(wrong) > 0:
        row = wrong[0]
        raise ValueError(
            f"{path.name}, row {row + 1}: must have {len(names)} fields {names} separated by '::', "
            f"got {len(fields[row])}"
        )
    return pl.DataFrame({name: fields.list.get(i) for i, name in enumerate(names)})
