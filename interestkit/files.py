"""Files that are whole or an error: written aside, waited for, and sealed with their SHA-256."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # pragma: no cover
    fcntl = None  # Windows has no such locks

_PATIENCE = 600.0  # seconds for which another process may save
_PAUSE = 0.01  # seconds


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a hidden file beside `path`, which takes its name once on the disk.

    If it fails, `path` stays as it was. Other processes wait with what they write beside it.
    """
    aside = path.with_name(f".{path.name}.saving")
    with locked(path.parent):
        try:
            write(aside)
            sync(aside)
            aside.replace(path)
            sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder, so that nobody saves in it meanwhile; with `shared` others may read too.

    Whoever does not ask is not kept out, and where the system has no such locks nobody is. A
    process that ends lets go.

    Raises:
        TimeoutError: If another process holds it for ten minutes.
    """
    number = None
    with suppress(OSError):  # it is not there, or may not be read
        number = os.open(folder, os.O_RDONLY)
    try:
        if number is not None and fcntl is not None:
            _hold(folder, number, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        if number is not None:
            os.close(number)


def _hold(folder: Path, number: int, how: int) -> None:
    """Wait until an open folder is ours."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(number, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                what = f"another process has been saving there for {_PATIENCE:g} s"
                raise TimeoutError(f"{folder}: {what}") from None
            time.sleep(_PAUSE)
        except OSError:  # a file system without locks
            return
        else:
            return


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 as `write_atomically` does."""
    write_atomically(path, lambda aside: aside.write_bytes(text.encode()))


def write_checked(path: Path, facts: Mapping[str, object]) -> None:
    """Write facts as JSON, with the sha256 of its lines as the last one; `read_checked` checks it.

    There must be at least one; what JSON does not know becomes text.
    """
    write_atomically(path, lambda aside: aside.write_bytes(with_digest(facts)))


def read_checked(path: Path) -> dict[str, object]:
    """What `write_checked` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a byte of it is another.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "facts.json"
        >>> write_checked(path, {"k": 10})
        >>> read_checked(path)["k"]
        10
    """
    text = path.read_bytes()
    if not is_whole(text):
        raise ValueError(f"{path}: the file is damaged, or of an older version; write it anew")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # somebody else gave it a digest
        raise ValueError(f"{path}: the file is damaged ({error}); write it anew") from error


def check_new(folder: Path) -> None:
    """Raise ValueError unless a folder is new or empty: nothing that is there is mixed with."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: must be a folder, got a file")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if there:
        first, rest = there[:3], len(there) - 3
        more = f" and {rest} more" if rest > 0 else ""
        raise ValueError(f"{folder}: must be new or empty, got a folder with {first}{more}")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, expected: str) -> None:
    """Raise ValueError unless a file is there, no link, and has this sha256."""
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path}: the file is missing or a link; save the folder again")
    actual = sha256_of(path)
    if actual != expected:
        raise ValueError(
            f"{path}: the file is damaged; its sha256 must be {expected}, got {actual}"
        )


def with_digest(facts: Mapping[str, object]) -> bytes:
    """Facts as JSON, with the sha256 of its lines as the last one."""
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=str)
    lines = text.removesuffix("\n}").encode()
    return lines + last_line(lines)


def is_whole(text: bytes) -> bool:
    """Whether `with_digest` made it, and no byte of it is another."""
    lines = text[: -len(last_line(b""))]
    return text == lines + last_line(lines)


def last_line(lines: bytes) -> bytes:
    """What ends a file of `with_digest` whose other lines are these."""
    return f',\n "sha256": "{hashlib.sha256(lines).hexdigest()}"\n}}\n'.encode()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
