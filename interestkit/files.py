"""Files that are whole or an error: written aside, waited for, and sealed with their SHA-256."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a hidden file beside `path`, which takes its name once on the disk.

    If it fails, `path` stays as it was.
    """
    aside = path.with_name(f".{path.name}.saving")
    try:
        write(aside)
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


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
    return json.loads(text)


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
    return lines + _last_line(lines)


def is_whole(text: bytes) -> bool:
    """Whether `with_digest` made it, and no byte of it is another."""
    lines = text[: -len(_last_line(b""))]
    return text == lines + _last_line(lines)


def _last_line(lines: bytes) -> bytes:
    return f',\n "sha256": "{hashlib.sha256(lines).hexdigest()}"\n}}\n'.encode()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
