"""Folders of tables and arrays that are saved whole, checked when read, and never half there."""

import glob
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
import safetensors.numpy as safetensors
from safetensors import SafetensorError

from interestkit.bounded import brief, read_arrays, read_parquet
from interestkit.files import check_file, is_whole, locked, sha256_of, sync, with_digest

FORMAT_VERSION = 2
_MANIFEST = "manifest.json"
_ARRAYS = "arrays.safetensors"
_ARRAYS_1 = "arrays.npz"  # of format 1
_FIELDS = {"kind": str, "format": int, "meta": dict, "files": dict}  # of the manifest
_FORMULA = r"^[\s\x00-\x1f=+\-@＝＋－＠]"  # how a text starts that a spreadsheet may run
_DTYPES = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_LITTER = {".DS_Store", ".directory", ".ipynb_checkpoints"}  # of those who look into folders
_TABLE = r"[A-Za-z0-9_-]{1,200}"  # name of a table, and of a file in any file system


Seal = Callable[[str, bytes], bytes]  # name and content of a file -> the content changed


class Locksmith(Protocol):
    """What encrypts folders, each with a key of its own; `privacy.encryption` has it."""

    def lock(self, kind: str) -> tuple[Seal, Callable[[Mapping], dict]]:
        """What encrypts the files of a new folder, and the meta of its manifest."""

    def unlock(self, folder: Path, manifest: Mapping) -> tuple[Seal, dict]:
        """What decrypts the files of a folder, and its meta."""


LOCKSMITH: ContextVar[Locksmith | None] = ContextVar("locksmith", default=None)


def check_not_sealed(what: str) -> None:
    """Raise ValueError where all should be encrypted that is saved, which `what` cannot be."""
    if LOCKSMITH.get() is not None:
        raise ValueError(f"{what} cannot be encrypted: write them outside `sealed`, or not at all")


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
    when it is complete and on the disk; what other processes save or load beside it waits until
    then. Tables become NAME.parquet, arrays one arrays.safetensors, and manifest.json holds kind,
    format version, meta, the sha256 of each file and, as its last line, that of all lines before
    it. Inside `privacy.encryption.sealed` all but kind and names of files is encrypted before it is
    written.

    Args:
        folder: Where to write. A folder that was saved earlier is replaced; of a link, the one that
            it leads to.
        kind: What is saved, such as "split"; `load_folder` asks for it again.
        tables: Tables by name; a name has letters, digits, "_" and "-" only.
        arrays: Arrays by name, of bools or real numbers of up to 64 bits.
        meta: Settings and facts that JSON can hold.

    Raises:
        OSError: If the disk is full or fails, or another process saves there for ten minutes;
            `folder` stays as it was.
        ValueError: If a name, an array or `meta` cannot be stored, or if `folder` holds files
            that `save_folder` has not written there (they would be lost).

    Example:
        >>> import tempfile
        >>> folder = save_folder(Path(tempfile.mkdtemp()) / "run", kind="demo", meta={"k": 10})
        >>> load_folder(folder, kind="demo").meta
        {'k': 10}
    """
    folder, place = Path(folder), Path(folder).resolve()
    tables, arrays = tables or {}, {name: np.asarray(a) for name, a in (arrays or {}).items()}
    manifest = {"kind": kind, "format": FORMAT_VERSION, "meta": _in_json(meta or {})}
    _check_content(tables, arrays)
    beside = {"prefix": f".{place.name}.saving-", "dir": place.parent}
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.parent):
        _clear_up(place)
        _check_replaceable(folder)
        with tempfile.TemporaryDirectory(**beside) as aside:
            fresh = Path(aside) / place.name
            fresh.mkdir()
            _write(fresh, tables, arrays, manifest)
            _swap_in(fresh, place)
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
    text = pl.selectors.string(include_categorical=True) | pl.selectors.enum()
    guarded = flat.with_columns(text.cast(pl.String).str.replace(_FORMULA, "'$0"))
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
    folder, place = Path(folder), Path(folder).resolve()
    with locked(place.parent, shared=not _previous(place).exists()):
        _restore_previous(place)
        return _loaded(folder, kind)


def _loaded(folder: Path, kind: str) -> Stored:
    """What the files of a folder hold, nobody changing them meanwhile."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder, so no {kind} can be read")
    manifest = _read_manifest(folder)
    if manifest["kind"] != kind:
        raise ValueError(f"{folder}: must hold kind {kind!r}, got {manifest['kind']!r}")
    for name, expected in manifest["files"].items():
        check_file(folder / name, expected)
    read, meta = _opened(folder, manifest)
    tables = [name for name in manifest["files"] if name.endswith(".parquet")]
    return Stored(
        tables={Path(name).stem: read_parquet(read(name)) for name in tables},
        arrays=_read_arrays(read, manifest["files"]),
        meta=meta,
    )


def _in_json(meta: Mapping[str, object]) -> dict[str, object]:
    """What JSON makes of it; numbers of NumPy are numbers."""

    def number(value: object) -> object:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} is none of it")

    try:
        return json.loads(json.dumps(meta, default=number))
    except TypeError as error:
        raise ValueError(f"meta must hold what JSON can: {error}") from error


def _check_content(tables: Mapping[str, pl.DataFrame], arrays: Mapping[str, np.ndarray]) -> None:
    strange = [name for name in tables if not re.fullmatch(_TABLE, name)]
    if strange:
        raise ValueError(f"table names must have letters, digits, '_' and '-', got {strange}")
    if "__metadata__" in arrays:
        raise ValueError("array name '__metadata__' is one that safetensors keeps for itself")
    for name, array in arrays.items():
        if array.dtype.str[1:] not in _DTYPES:
            what = "bools or real numbers of up to 64 bits"
            raise ValueError(f"array {name!r} must hold {what}, got {array.dtype}")


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder with files of somebody else; litter of desktops does not count."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: must be a folder, got a file")
    there = {path.name for path in folder.iterdir()} - _LITTER
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
    locksmith = LOCKSMITH.get()
    seal, sealed = (None, dict) if locksmith is None else locksmith.lock(manifest["kind"])
    in_order = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        for name, table in tables.items():
            _write_file(folder / f"{name}.parquet", table.write_parquet, seal)
        if arrays:
            _write_file(folder / _ARRAYS, lambda to: _write_arrays(to, in_order), seal)
    except (SafetensorError, pl.exceptions.ComputeError) as error:  # what a full disk makes of both
        raise OSError(f"{folder}: {error}") from error
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_bytes(with_digest(sealed({**manifest, "files": files})))
    for path in (*folder.iterdir(), folder):
        sync(path)


def _write_file(path: Path, write: Callable, seal: Seal | None) -> None:
    """Let `write` fill a file; what is encrypted never touches the disk before it is."""
    if seal is None:
        write(path)
        return
    content = io.BytesIO()
    write(content)
    path.write_bytes(seal(path.name, content.getvalue()))


def _write_arrays(to: Path | io.BytesIO, arrays: Mapping[str, np.ndarray]) -> None:
    if isinstance(to, Path):
        safetensors.save_file(arrays, to)
    else:
        to.write(safetensors.save(arrays))


def _opened(folder: Path, manifest: Mapping) -> tuple[Callable[[str], Path | io.BytesIO], dict]:
    """What gives a file by its name, decrypted where need be, and the meta of the folder."""
    locksmith = LOCKSMITH.get()
    if "sealed" not in manifest:
        if locksmith is not None:  # anybody could have put it there
            raise ValueError(f"{folder}: is not encrypted; read it outside `sealed`")
        return folder.joinpath, manifest["meta"]
    if locksmith is None:
        raise ValueError(
            f"{folder}: is encrypted; read it inside `with privacy.encryption.sealed(keys):`"
        )
    unseal, meta = locksmith.unlock(folder, manifest)
    return lambda name: io.BytesIO(unseal(name, (folder / name).read_bytes())), meta


def _swap_in(fresh: Path, folder: Path) -> None:
    """Give `fresh` the name of `folder`; what was there goes, but not before that has worked."""
    previous = _previous(folder)
    if folder.exists():
        folder.rename(previous)
    try:
        fresh.rename(folder)
        sync(folder.parent)
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
        for name, form in _FIELDS.items():
            if not isinstance(manifest[name], form):
                raise ValueError(f"{name} must be {form.__name__}, got {manifest[name]!r:.100}")
        for name in manifest["files"]:
            if name not in (_ARRAYS, _ARRAYS_1) and not re.fullmatch(rf"{_TABLE}\.parquet", name):
                raise ValueError(f"files must be {_ARRAYS} or NAME.parquet, got {name!r:.100}")
        is_newer = manifest["format"] > FORMAT_VERSION
        is_older = manifest["format"] == 1 and "sha256" not in manifest  # without the last line
        if not (is_newer or is_older or is_whole(text)):
            raise ValueError("its lines are not those that were saved")
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{path}: the file is damaged ({error}); remove the folder, and save it again"
        ) from error
    if is_newer:
        raise ValueError(
            f"{folder}: format must be at most {FORMAT_VERSION}, got {manifest['format']}; "
            "it was saved by a newer version of interestkit"
        )
    return manifest


def _read_arrays(read: Callable, files: Mapping[str, str]) -> dict[str, np.ndarray]:
    if _ARRAYS_1 in files:
        return read_arrays(read(_ARRAYS_1))
    if _ARRAYS not in files:
        return {}
    source = read(_ARRAYS)
    try:
        if isinstance(source, Path):
            return safetensors.load_file(source)
        return safetensors.load(source.getvalue())
    except SafetensorError as error:
        raise ValueError(f"{source}: cannot be read as arrays: {brief(error)}") from error
