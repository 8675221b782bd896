"""Whether a name still stands in the files of a folder, whatever they are packed in."""

import bz2
import gzip
import html
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from interestkit.bounded import read_ipc, read_parquet, room_of
from interestkit.markup import escaped

_LONG_NAME = 6  # bytes
_DAMAGED = (ValueError, EOFError, OSError, RuntimeError, MemoryError, LookupError, TypeError)
_DAMAGED += (zlib.error, lzma.LZMAError, zipfile.BadZipFile)  # also what is encrypted
_DAMAGED += (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def find_traces(folder: str | Path, user: str) -> pl.DataFrame:
    """Where a name still stands in the files of a folder, hidden ones and subfolders included.

    Parquet, NumPy, zip, gzip, bzip2 and xz files are unpacked, Arrow tables decoded to values.
    The name is looked for as it is and as HTML, JSON and CSV write it, in UTF-8 and UTF-16. It is
    found where no letter, digit, "_" or "-" stands next to it; in bytes that are no text (UTF-16
    among them) only names of at least six bytes are looked for, as shorter ones stand everywhere by
    chance. What is encrypted is not looked into.

    Args:
        folder: Where to look.
        user: The name.

    Returns:
        Columns file and where: "bytes", "text", or the name of a column or member.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a file cannot be unpacked, or only to more than 64 MiB and 1,000 times its
            size, as a name may stand in it; the message names it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "note.txt").write_text("ann likes tea, anna does not")
        >>> find_traces(folder, "ann")["where"].to_list(), len(find_traces(folder, "an"))
        (['text'], 0)
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder, so no name can be looked for")
    rows = [
        (str(path.relative_to(folder)), where)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for where in _in_file(path, user)
    ]
    schema = {"file": pl.String, "where": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").unique(maintain_order=True)


@dataclass
class _Room:
    """Bytes that a file may still unpack to, members of members included."""

    left: int

    def read(self, file: io.BufferedIOBase) -> bytes:
        """All of a file, if there is room for it."""
        content = file.read(self.left + 1)
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("it unpacks to more than 64 MiB and 1,000 times its size")
        return content


def _in_file(path: Path, user: str) -> list[str]:
    """Where the name stands in a file; one clear error where that cannot be told."""
    content = path.read_bytes()
    try:
        return list(_in_bytes(path.name, content, user, _Room(room_of(len(content)))))
    except _DAMAGED as error:
        raise ValueError(f"{path}: cannot be unpacked to look for a name: {error}") from error


def _in_bytes(name: str, content: bytes, user: str, room: _Room) -> Iterator[str]:
    """Where the name stands in one file or member."""
    is_text = b"\0" not in content[:8192]
    if (is_text or len(user.encode()) >= _LONG_NAME) and _spelled(user).search(content):
        yield "text" if is_text else "bytes"
    if content[:4] == b"PAR1":
        yield from _in_columns(read_parquet(io.BytesIO(content)), user)
    elif content[:6] == b"ARROW1":
        yield from _in_columns(read_ipc(content), user)
    elif opened := [unpack for magic, unpack in _PACKED.items() if re.match(magic, content)]:
        with opened[0](io.BytesIO(content)) as file:
            inner = room.read(file)
        yield from (f"{name}: {part}" for part in _in_bytes(name, inner, user, room))
    elif zipfile.is_zipfile(io.BytesIO(content)):
        yield from _in_archive(content, user, room)
    elif content[:6] == b"\x93NUMPY":
        values = np.load(io.BytesIO(content), allow_pickle=False)
        parts = [values[name] for name in values.dtype.names or ()] or [values]
        texts = [part.astype(str).ravel().tolist() for part in parts if part.dtype.kind in "US"]
        if any(_says(user, text) for text in texts):
            yield "values"


def _in_archive(content: bytes, user: str, room: _Room) -> Iterator[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                inner = room.read(file)
            for where in _in_bytes(member, inner, user, room):
                yield f"{member}: {where}"


@cache
def _spelled(user: str) -> re.Pattern[bytes]:
    """The name by itself, in each way in which a file may write it."""
    in_html = {html.escape(user), html.escape(user, quote=False), str(escaped(user, None))}
    ways = {user, *in_html}
    for _ in range(2):  # JSON, in which HTML or JSON may stand
        ways |= {json.dumps(way, ensure_ascii=plain)[1:-1] for way in ways for plain in (0, 1)}
    ways = sorted(way.encode() for way in ways | {user.replace('"', '""')})
    name = rb"(?:" + b"|".join(map(re.escape, ways)) + rb")"
    little, big = (re.escape(user.encode(code)) for code in ("utf-16-le", "utf-16-be"))
    alone = (
        rb"(?<![\w-])" + name + rb"(?![\w-])",
        rb"(?<![\w-]\0)" + little + rb"(?![\w-](?:\0|\Z))",
        rb"(?<!\0[\w-])(?<!\A[\w-])" + big + rb"(?!\0[\w-])",
    )
    return re.compile(b"|".join(alone))


def _no_zstd(_) -> None:
    raise ValueError("it is packed with zstd")


# by their first bytes; those of bzip2 alone could be text
_PACKED = {rb"\x1f\x8b": gzip.open, rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)": bz2.open}
_PACKED |= {rb"\xfd7zXZ\0": lzma.open, rb"\x28\xb5\x2f\xfd": _no_zstd}


def _in_columns(table: pl.DataFrame, user: str) -> Iterator[str]:
    if _says(user, table.columns):
        yield "names of columns"
    for column in table.get_columns():
        while isinstance(column.dtype, pl.List | pl.Array):
            column = column.explode()
        if _says(user, column.cast(pl.String, strict=False).unique().to_list()):
            yield column.name


def _says(user: str, values: Iterable[str | None]) -> bool:
    pattern = re.compile(rf"(?<![\w-]){re.escape(user)}(?![\w-])")
    return any(value is not None and pattern.search(value) for value in values)
