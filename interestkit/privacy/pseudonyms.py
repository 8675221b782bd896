"""Names that cannot be undone without a key, and key files that nobody else can read."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import polars as pl

from interestkit.events import EventLog
from interestkit.privacy.generalising import RELEASED, in_order
from interestkit.reading import EXTENSIONS
from interestkit.schema import ITEM, SEARCH_PREFIX, SESSION, TEXT, TITLE, USER
from interestkit.splitting import check_clean

_DATA = (*EXTENSIONS, ".gz")  # how the names of its files end
KEY_BYTES = 32
COLUMNS = (USER, ITEM, SESSION)


def new_key(path: str | Path) -> Path:
    """The path of a new key file of 32 random bytes, which its owner alone can read (mode 0600).

    Whoever has the key can undo what was done with it; without it nobody can, you neither.

    Args:
        path: Where to write, in a folder without data.

    Raises:
        FileExistsError: If there is a file: a key that is lost cannot be made again.
        ValueError: If the folder holds data.

    Example:
        >>> import tempfile
        >>> path = new_key(Path(tempfile.mkdtemp()) / "key")
        >>> len(read_key(path)), oct(path.stat().st_mode & 0o777)
        (32, '0o600')
    """
    path = Path(path)
    _check_apart(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
    return path


def read_key(path: str | Path) -> bytes:
    """The key in a file that `new_key` wrote.

    Args:
        path: The file.

    Raises:
        ValueError: If others than its owner may read or write it, it lies beside data, or it
            does not hold 64 hexadecimal digits.
        FileNotFoundError: If it is not there.
    """
    path = Path(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ValueError(f"{path}: mode of a key file must be 0600, got {mode:04o}; chmod 600 it")
    _check_apart(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: must hold {2 * KEY_BYTES} hexadecimal digits, got other text")
    return key


def _check_apart(path: Path) -> None:
    """Raise ValueError if data lies in the folder of a key: who takes one would have both."""
    folder = path.resolve().parent
    for name in sorted(other.name for other in folder.iterdir()):
        if name == "manifest.json" or name.lower().endswith(_DATA):
            raise ValueError(f"{path}: must lie apart from data, got {name} in its folder")


def pseudonymise(
    log: EventLog, key: str | Path | bytes, *, release: str, columns: Sequence[str] = (USER,)
) -> EventLog:
    """The log with a pseudonym of 32 hexadecimal digits in place of each name.

    A pseudonym is a keyed hash of the name, with a key of its own for each column and release:
    by names, two releases can neither be joined with each other nor with anything else, but by
    who has the key. By what people *did* they often can: `release` tries it. Events are sorted,
    so that their order tells no more than their times.

    Args:
        log: A log that `clean` has cleaned.
        key: A file of `new_key`, or 32 bytes.
        release: Name of this release. It is no secret; another one gives other pseudonyms.
        columns: Of "user", "item" and "session" (numbers of `add_sessions`, hashed with the
            user). With "item", titles and texts go too; interests and the mark of a search stay,
            and so do columns that are not named here.

    Raises:
        ValueError: If the key or a column is not as above, or an event lacks user, item or time.

    Example:
        >>> from interestkit.simulation import simulate
        >>> log = simulate(num_users=3, num_bots=0, faults=0)
        >>> a, b = (pseudonymise(log, bytes(32), release=name) for name in ("May", "June"))
        >>> set(a.events["user"]) & set(b.events["user"])
        set()

    Source:
        Aumasson et al. (2013), BLAKE2, ACNS, doi:10.1007/978-3-642-38980-1_8; RFC 7693.
    """
    check_clean(log, before="it gets pseudonyms")
    key = key if isinstance(key, bytes) else read_key(key)
    there = [name for name in COLUMNS if name in log.events.columns]
    if len(key) != KEY_BYTES or not columns or set(columns) - set(there):
        came = f"{len(key)} bytes and columns {list(columns)}"
        raise ValueError(f"key must have {KEY_BYTES} bytes, columns be among {there}, got {came}")
    events, items = log.events, log.items
    if SESSION in columns:
        sessions = pl.concat_str(USER, pl.lit("\0"), pl.col(SESSION).cast(pl.String))
        events = _renamed(events.with_columns(sessions.alias(SESSION)), SESSION, key, release)
    if USER in columns:
        events = _renamed(events, USER, key, release)
    if ITEM in columns:
        events, items = (_renamed(table, ITEM, key, release) for table in (events, items))
        events = events.with_columns(pl.lit(None, pl.String).alias(TEXT))
        items = items.with_columns(pl.lit(None, pl.String).alias(TITLE)).sort(ITEM)
    return replace(log, events=in_order(events), items=items)


def pseudonyms(names: pl.Series, key: bytes, *, release: str) -> pl.DataFrame:
    """The pseudonym of each different name: a column called as the series, and "released".

    What the series is called is part of the hash.
    """
    what = f"{names.name}\0{release}".encode()
    own = blake2b(what, key=key, digest_size=KEY_BYTES).digest()
    names = names.unique()
    hashed = [blake2b(name.encode(), key=own, digest_size=16).hexdigest() for name in names]
    released = pl.Series(RELEASED, hashed, pl.String)
    is_search = names.str.starts_with(SEARCH_PREFIX) & (names.name == ITEM)
    marked = pl.when(is_search).then(SEARCH_PREFIX + released).otherwise(released)
    return pl.DataFrame([names]).with_columns(marked.alias(RELEASED))


def _renamed(table: pl.DataFrame, column: str, key: bytes, release: str) -> pl.DataFrame:
    """The table with pseudonyms in one column."""
    new = pseudonyms(table[column], key, release=release)
    joined = table.select(column).join(new, on=column, how="left", maintain_order="left")
    return table.with_columns(joined[RELEASED].alias(column))
