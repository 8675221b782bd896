"""Encryption at rest: logs as encrypted Parquet, models and checkpoints as sealed folders.

All of it is envelope encryption by the libraries PyArrow and cryptography: data are encrypted with
fresh keys, these with a master key that stays in a key management service (any `KmsClient` of
PyArrow), or in a key file (`FileKeys`). The extra `privacy` brings cryptography.
"""

import base64
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.parquet import encryption as pe

from interestkit.events import EventLog
from interestkit.files import write_atomically
from interestkit.privacy.pseudonyms import read_key
from interestkit.storage import LOCKSMITH, Seal

MASTER_KEY = "interestkit"
_ENCRYPTED = b"PARE"  # how a Parquet file with an encrypted footer starts
_NONCE_BYTES = 12  # of AES-GCM, NIST SP 800-38D
_FORMAT = "interestkit 1"


class FileKeys(pe.KmsClient):
    """A key management service of one master key, in a file of `pseudonyms.new_key`.

    It wraps keys by AES-256-GCM, bound to the name of the master key.

    Args:
        path: The file, mode 0600, apart from all data.

    Raises:
        ValueError: As `pseudonyms.read_key`.

    Example:
        >>> import tempfile
        >>> from interestkit.privacy.pseudonyms import new_key
        >>> keys = FileKeys(new_key(Path(tempfile.mkdtemp()) / "key"))
        >>> keys.unwrap_key(keys.wrap_key(b"secret", "mine"), "mine")
        b'secret'
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._key = read_key(path)

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        """A key, encrypted with the master key."""
        return _text(_encrypt(self._key, bytes(key_bytes), _about("key", master_key_identifier)))

    def unwrap_key(self, wrapped_key: str | bytes, master_key_identifier: str) -> bytes:
        """A key that `wrap_key` wrapped."""
        about = _about("key", master_key_identifier)
        return _decrypt(self._key, base64.b64decode(wrapped_key), about)


def write_log(
    log: EventLog, folder: str | Path, keys: pe.KmsClient, *, master_key: str = MASTER_KEY
) -> Path:
    """The folder, with events.parquet and items.parquet, encrypted, footers and names too.

    The files are of Parquet's modular encryption (AES-GCM, 256 bits), which other tools read.

    Args:
        log: The log.
        folder: Where to write; files of these names are replaced.
        keys: `FileKeys(path)`, or the client of a key management service.
        master_key: Name of the master key there.

    Raises:
        ValueError: If `keys` is no `KmsClient`.

    Example:
        >>> import tempfile
        >>> from interestkit.privacy.pseudonyms import new_key
        >>> from interestkit.simulation import simulate
        >>> keys = FileKeys(new_key(Path(tempfile.mkdtemp()) / "key"))
        >>> folder = write_log(simulate(num_users=3, num_bots=0), Path(tempfile.mkdtemp()), keys)
        >>> read_log(folder, keys).num_users
        3

    Source:
        Apache Parquet, Parquet Modular Encryption, in the specification of the format.
    """
    _check_keys(keys)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    factory, service = pe.CryptoFactory(lambda _: keys), pe.KmsConnectionConfig()
    how = pe.EncryptionConfiguration(
        footer_key=master_key, uniform_encryption=True, data_key_length_bits=256
    )
    own = {"name": log.name, "note": log.note, "log": secrets.token_hex(16)}
    about = {b"interestkit": json.dumps(own).encode()}
    for part in ("events", "items"):
        table = getattr(log, part).to_arrow(compat_level=pl.CompatLevel.oldest())
        table = table.replace_schema_metadata(about)
        properties = factory.file_encryption_properties(service, how)
        write_atomically(
            folder / f"{part}.parquet",
            lambda path, t=table, p=properties: pq.write_table(t, path, encryption_properties=p),
        )
    return folder


def read_log(folder: str | Path, keys: pe.KmsClient) -> EventLog:
    """The log that `write_log` wrote.

    Args:
        folder: Where it lies.
        keys: As in `write_log`, with the same master key.

    Raises:
        ValueError: If the key is another one, a file is damaged or not encrypted, or events and
            items are of two logs, as where writing was interrupted.
        FileNotFoundError: If a file is missing.
    """
    _check_keys(keys)
    folder = Path(folder)
    tables, about = {}, []
    for part in ("events", "items"):
        path = folder / f"{part}.parquet"
        with path.open("rb") as file:
            if (start := file.read(4)) != _ENCRYPTED:
                raise ValueError(f"{path}: must be an encrypted Parquet file, got {start!r} first")
        factory = pe.CryptoFactory(lambda _: keys)
        how = pe.DecryptionConfiguration(cache_lifetime=timedelta(0))
        with _as_value_error(path):
            properties = factory.file_decryption_properties(pe.KmsConnectionConfig(), how)
            table = pq.read_table(path, decryption_properties=properties)
            about.append(json.loads(table.schema.metadata[b"interestkit"]))
        tables[part] = pl.from_arrow(table)
    if about[0] != about[1]:
        raise ValueError(f"{folder}: events and items must be of one log, got two; write it again")
    about[0].pop("log", None)
    return EventLog(**tables, **about[0])


def _check_keys(keys: object) -> None:
    if not isinstance(keys, pe.KmsClient):
        came = type(keys).__name__
        raise ValueError(f"keys must be FileKeys(path) or another KmsClient of PyArrow, got {came}")


@contextmanager
def sealed(keys: pe.KmsClient, *, master_key: str = MASTER_KEY) -> Iterator[None]:
    """Inside it, all that the kit saves as a folder is encrypted, and what was can be loaded.

    This goes for models, features, splits, releases and the checkpoints of `fit`, in the process's
    present thread; shards, prepared logs and evaluations are refused, and so is what is not
    encrypted, which anybody could have put there. A folder has a key of its own, each file a
    nonce of its own (AES-256-GCM), bound to its name and to the kind of the folder; its settings
    are bound to the checksums of all its files. Files are encrypted in memory: what is not
    encrypted never reaches the disk. A file may have up to 2 GiB. Kind, names and sizes of the
    files stay readable.

    Args:
        keys: As in `write_log`.
        master_key: As in `write_log`; loading takes the name from the folder.

    Raises:
        ModuleNotFoundError: If the package cryptography is missing.
        ValueError: If `keys` is no `KmsClient`; from loading, if the key is another one or a file
            was changed.

    Example:
        >>> import tempfile
        >>> from interestkit.privacy.pseudonyms import new_key
        >>> from interestkit.storage import load_folder, save_folder
        >>> keys = FileKeys(new_key(Path(tempfile.mkdtemp()) / "key"))
        >>> with sealed(keys):
        ...     folder = save_folder(Path(tempfile.mkdtemp()) / "a", kind="demo", meta={"k": 10})
        ...     load_folder(folder, kind="demo").meta
        {'k': 10}

    Source:
        NIST SP 800-38D, Recommendation for Block Cipher Modes of Operation: GCM.
    """
    _check_keys(keys)
    _cipher(bytes(32))
    token = LOCKSMITH.set(_Locksmith(keys=keys, master_key=master_key))
    try:
        yield
    finally:
        LOCKSMITH.reset(token)


@dataclass(frozen=True, kw_only=True)
class _Locksmith:
    """As `storage.Locksmith`."""

    keys: pe.KmsClient
    master_key: str

    def lock(self, kind: str) -> tuple[Seal, Callable[[Mapping], dict]]:
        key = os.urandom(32)
        wrapped = self.keys.wrap_key(key, self.master_key)
        wrapped = wrapped.decode() if isinstance(wrapped, bytes) else wrapped

        def seal(name: str, content: bytes) -> bytes:
            return _encrypt(key, content, _about(kind, name))

        def sealed_manifest(manifest: Mapping) -> dict:
            meta = _encrypt(key, json.dumps(manifest["meta"]).encode(), _about_files(manifest))
            note = {"master_key": self.master_key, "key": wrapped, "meta": _text(meta)}
            return {**manifest, "meta": {}, "sealed": note}

        return seal, sealed_manifest

    def unlock(self, folder: Path, manifest: Mapping) -> tuple[Seal, dict]:
        note, kind = manifest["sealed"], manifest["kind"]
        with _as_value_error(folder):
            key = self.keys.unwrap_key(note["key"], note["master_key"])
            meta = _decrypt(key, base64.b64decode(note["meta"]), _about_files(manifest))

        def unseal(name: str, content: bytes) -> bytes:
            with _as_value_error(folder / name):
                return _decrypt(key, content, _about(kind, name))

        return unseal, json.loads(meta)


def _about_files(manifest: Mapping) -> bytes:
    return _about(manifest["kind"], json.dumps(manifest["files"], sort_keys=True))


def _about(kind: str, name: str) -> bytes:
    """What a piece of encrypted data is bound to."""
    return json.dumps([_FORMAT, kind, name]).encode()


def _encrypt(key: bytes, content: bytes, about: bytes) -> bytes:
    """A fresh nonce and the encrypted content."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, content, about)


def _decrypt(key: bytes, content: bytes, about: bytes) -> bytes:
    return _cipher(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], about)


def _cipher(key: bytes):
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "encryption needs the package cryptography: pip install 'interestkit[privacy]'"
        ) from error
    return AESGCM(key)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@contextmanager
def _as_value_error(path: Path) -> Iterator[None]:
    """Whatever goes wrong while decrypting is one clear error, which tells nothing else."""
    from cryptography.exceptions import InvalidTag

    try:
        yield
    except (InvalidTag, pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be decrypted: the key is not the one it was encrypted with, or the "
            "file was changed"
        ) from error
