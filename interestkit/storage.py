"""Folders of tables and arrays that are saved whole, checked when read, and never half there."""

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT_VERSION = 2
_MANIFEST = "manifest.json"
_ARRAYS = "arrays.safetensors"
_ARRAYS_1 = "arrays.npz"  # of format 1
_FORMULA = r"^[\s=+\-@＝＋－＠]"  # how a text starts that a spreadsheet may run
_PLAIN_DTYPES = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a saved folder holds.

    Args:
        tables: Tables by name.
        arrays: NumPy arrays by name.
        meta: Settings and facts as JSON knows them: a tuple comes back as a list.
    """

    tables: Mapping[str, pl.DataFrame]
    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, object]


def save_folder(
    folder: str | Path,
    *,
    kind: str,
    tables: Mapping[str, pl.DataFrame] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    meta: Mapping[str, object] | None = None,
) -> Path:
    """The folder, written so that an interruption leaves what was there before.

    All files are written to a hidden folder beside it, which takes the name of `folder` only
    when it is complete and on the disk. Tables become NAME.parquet, arrays one
    arrays.safetensors, and manifest.json holds kind, format version, meta, the sha256 of each
    file and, as its last line, that of all lines before it.

    Args:
        folder: Where to write. A folder that was saved earlier is replaced.
        kind: What is saved, such as "split"; `load_folder` asks for it again.
        tables: Tables by name; a name has letters, digits, "_" and "-" only.
        arrays: Arrays by name, of bools or real numbers of up to 64 bits.
        meta: Settings and facts that JSON can hold.

    Raises:
        OSError: If the disk is full or fails; `folder` stays as it was.
        ValueError: If a name, an array or `meta` cannot be stored, or if `folder` holds files
            that `save_folder` has not written there (they would be lost).

    Example:
        >>> import tempfile
        >>> folder = save_folder(Path(tempfile.mkdtemp()) / "run", kind="demo", meta={"k": 10})
        >>> load_folder(folder, kind="demo").meta
        {'k': 10}
    """
    folder = Path(folder)
    tables, arrays = tables or {}, {name: np.asarray(a) for name, a in (arrays or {}).items()}
    manifest = {"kind": kind, "format": FORMAT_VERSION, "meta": dict(meta or {})}
    _check_content(tables, arrays, manifest)
    _clear_up(folder)
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.saving-", dir=folder.parent) as aside:
        fresh = Path(aside) / folder.name
        fresh.mkdir()
        _write(fresh, tables, arrays, manifest)
        _swap_in(fresh, folder)
    return folder


def write_csv(table: pl.DataFrame, path: str | Path) -> Path:
    r"""The path of a CSV file of the table, of which a spreadsheet runs nothing.

    A text that a spreadsheet would read as a formula (it starts with =, +, -, @ or their wide
    forms, or with white space) gets an apostrophe before it, column names too. Text is quoted;
    lists become text with "|" between their parts, as `read_log` reads them.

    Args:
        table: Columns of numbers, text, times, or lists of them.
        path: Where to write; a file that is there is replaced.

    Example:
        >>> import tempfile
        >>> table = pl.DataFrame({"title": ["=1+1", "Emma"], "rank": [1, -2]})
        >>> path = write_csv(table, Path(tempfile.mkdtemp()) / "list.csv")
        >>> path.read_text().splitlines()
        ['"title","rank"', '"\'=1+1",1', '"Emma",-2']
    """
    path = Path(path)
    flat = table.with_columns(
        pl.selectors.list().list.eval(pl.element().cast(pl.String)).list.join("|")
    )
    guarded = flat.with_columns(pl.selectors.string().str.replace(_FORMULA, "'$0"))
    names = {name: re.sub(_FORMULA, r"'\g<0>", name) for name in table.columns}
    guarded.rename(names).write_csv(path, quote_style="non_numeric")
    return path


def load_folder(folder: str | Path, *, kind: str) -> Stored:
    """What `save_folder` wrote, after its kind and the sha256 of every file are checked.

    Args:
        folder: A folder that `save_folder` wrote.
        kind: The kind that it must have.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has another kind or a newer format, or if a file is missing or
            damaged; the message names the file.
    """
    folder = Path(folder)
    _restore_previous(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder, so no {kind} can be read")
    manifest = _read_manifest(folder)
    if manifest["kind"] != kind:
        raise ValueError(f"{folder}: must hold kind {kind!r}, got {manifest['kind']!r}")
    for name, expected in manifest["files"].items():
        check_file(folder / name, expected)
    tables = [name for name in manifest["files"] if name.endswith(".parquet")]
    return Stored(
        tables={Path(name).stem: pl.read_parquet(folder / name) for name in tables},
        arrays=_read_arrays(folder, manifest["files"]),
        meta=manifest["meta"],
    )


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a hidden file beside `path`, which takes its name once on the disk.

    Args:
        path: The file to write or replace.
        write: Called with the hidden file's path; if it fails, `path` stays as it was.
    """
    aside = path.with_name(f".{path.name}.saving")
    try:
        write(aside)
        _sync(aside)
        aside.replace(path)
        _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_sealed(path: Path, facts: Mapping[str, object]) -> None:
    """Write facts as JSON, with the sha256 of its lines as the last one; `read_sealed` checks it.

    Args:
        path: The file to write or replace.
        facts: At least one; what JSON does not know becomes text.
    """
    write_atomically(path, lambda aside: aside.write_bytes(_sealed(facts)))


def read_sealed(path: Path) -> dict[str, object]:
    """What `write_sealed` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a byte of it is another.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "facts.json"
        >>> write_sealed(path, {"k": 10})
        >>> read_sealed(path)["k"]
        10
    """
    text = path.read_bytes()
    if not _is_sealed(text):
        raise ValueError(f"{path}: the file is damaged, or of an older version; write it anew")
    return json.loads(text)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_content(
    tables: Mapping[str, pl.DataFrame], arrays: Mapping[str, np.ndarray], manifest: Mapping
) -> None:
    strange = [name for name in tables if not re.fullmatch(r"[A-Za-z0-9_-]+", name)]
    if strange:
        raise ValueError(f"table names must have letters, digits, '_' and '-', got {strange}")
    for name, array in arrays.items():
        if array.dtype.str[1:] not in _PLAIN_DTYPES:
            what = "bools or real numbers of up to 64 bits"
            raise ValueError(f"array {name!r} must hold {what}, got {array.dtype}")
    try:
        json.dumps(manifest)
    except TypeError as error:
        raise ValueError(f"meta must hold what JSON can: {error}") from error


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder with files of somebody else; hidden ones do not count."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: must be a folder, got a file")
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    ours = {_MANIFEST, *_read_manifest(folder)["files"]} if _MANIFEST in there else set()
    if there - ours:
        raise ValueError(
            f"{folder}: must be new, empty or written by save_folder, got a folder with "
            f"{sorted(there - ours)}, which would be lost"
        )


def _write(
    folder: Path,
    tables: Mapping[str, pl.DataFrame],
    arrays: Mapping[str, np.ndarray],
    manifest: dict,
) -> None:
    in_order = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        for name, table in tables.items():
            table.write_parquet(folder / f"{name}.parquet")
        if arrays:
            save_file(in_order, folder / _ARRAYS)
    except (SafetensorError, pl.exceptions.ComputeError) as error:  # what a full disk makes of both
        raise OSError(f"{folder}: {error}") from error
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_bytes(_sealed({**manifest, "files": files}))
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sealed(facts: Mapping[str, object]) -> bytes:
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=str)
    lines = text.removesuffix("\n}").encode()
    return lines + _seal(lines)


def _is_sealed(text: bytes) -> bool:
    lines = text[: -len(_seal(b""))]
    return text == lines + _seal(lines)


def _seal(lines: bytes) -> bytes:
    """The end of a JSON file, with the sha256 of all that stands before it."""
    return f',\n "sha256": "{hashlib.sha256(lines).hexdigest()}"\n}}\n'.encode()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _swap_in(fresh: Path, folder: Path) -> None:
    """Give `fresh` the name of `folder`; what was there goes, but not before that has worked."""
    previous = _previous(folder)
    if folder.exists():
        folder.rename(previous)
    try:
        fresh.rename(folder)
        _sync(folder.parent)
    except BaseException:
        _restore_previous(folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _restore_previous(folder: Path) -> None:
    """Undo a swap that stopped between its two steps, or clear up after one that did not."""
    previous = _previous(folder)
    if previous.is_dir() and not folder.exists():
        previous.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _clear_up(folder: Path) -> None:
    """Undo or end what a process that was killed while it saved has left beside the folder."""
    _restore_previous(folder)
    for aside in folder.parent.glob(f".{glob.escape(folder.name)}.saving-*"):
        shutil.rmtree(aside, ignore_errors=True)


def _read_manifest(folder: Path) -> dict:
    path = folder / _MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder}: {_MANIFEST} is missing, so save_folder did not write this")
    text = path.read_bytes()
    try:
        manifest = json.loads(text)
        if not {"kind", "format", "meta", "files"} <= manifest.keys():
            raise ValueError("a field is missing")
        number = manifest["format"]
        is_newer = isinstance(number, int) and number > FORMAT_VERSION
        is_older = number == 1 and "sha256" not in manifest  # format 1 had no seal
        if not (is_newer or is_older or _is_sealed(text)):
            raise ValueError("its lines are not those that were saved")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: the file is damaged ({error}); save it again") from error
    if is_newer:
        raise ValueError(
            f"{folder}: format must be at most {FORMAT_VERSION}, got {number}; "
            "it was saved by a newer version of interestkit"
        )
    return manifest


def check_file(path: Path, expected: str) -> None:
    """Raise ValueError unless a file is there and has this sha256."""
    if not path.is_file():
        raise ValueError(f"{path}: the file is missing; save the folder again")
    actual = sha256_of(path)
    if actual != expected:
        raise ValueError(
            f"{path}: the file is damaged; its sha256 must be {expected}, got {actual}"
        )


def _read_arrays(folder: Path, files: Mapping[str, str]) -> dict[str, np.ndarray]:
    if _ARRAYS_1 in files:
        with np.load(folder / _ARRAYS_1, allow_pickle=False) as stored:
            return dict(stored)
    return load_file(folder / _ARRAYS) if _ARRAYS in files else {}
