"""Vectors of items from elsewhere: of their texts, pictures or sounds, with who made them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import safetensors.numpy as safetensors
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open

from interestkit.bounded import brief, check_arrays, read_parquet
from interestkit.content import unit_rows
from interestkit.files import check_file, sha256_of, write_atomically, write_text
from interestkit.schema import ITEM

VECTOR = "vector"  # column of a Parquet file with the vectors
_NAME = r"[A-Za-z0-9_-]+"
_FORMATS = (".parquet", ".safetensors")
_MANIFEST = {"encoder": str, "dimension": int, "sha256": str}  # what it must say


@dataclass(frozen=True, kw_only=True, eq=False)
class Modality:
    """One vector for each item of which there is one, all made by one encoder.

    Args:
        name: What it is of, such as "text": letters, digits, "_" and "-".
        items: Name of the item of each row, each once.
        vectors: The vectors.
        encoder: What made them, such as "wordllama l2_supercat".
        centre: Mean that was taken off each vector of length one, where `fitted` made this.

    Raises:
        ValueError: If a name is not as above, an item is missing or comes twice, or a vector
            holds no finite number; the message names the row.

    Example:
        >>> posters = Modality(name="image", items=["a", "b"], vectors=np.eye(2), encoder="by hand")
        >>> posters
        Modality('image', 2 items, 2 dimensions by 'by hand')
    """

    name: str
    items: Sequence[str]
    vectors: Float[np.ndarray, "items dim"]
    encoder: str
    centre: Float[np.ndarray, " dim"] | None = None

    def __post_init__(self) -> None:
        items = pl.Series(ITEM, self.items, dtype=pl.String)
        vectors = np.ascontiguousarray(self.vectors, np.float32)
        object.__setattr__(self, "items", items)
        object.__setattr__(self, "vectors", vectors)
        if not re.fullmatch(_NAME, self.name):
            raise ValueError(f"name must have letters, digits, '_' and '-', got {self.name!r}")
        if vectors.ndim != 2 or len(vectors) != len(items) or not vectors.shape[1]:
            what = f"one vector for each of the {len(items):,} items"
            raise ValueError(f"{self.name}: vectors must be {what}, got shape {vectors.shape}")
        twice = items.is_null() | ~items.is_first_distinct()
        for wrong, allowed in (
            (twice.to_numpy(), "an item, each once"),
            (~np.isfinite(vectors).all(axis=1), "a vector of finite numbers"),
        ):
            if wrong.any():
                row = int(wrong.argmax())
                raise ValueError(
                    f"{self.name}, data row {row + 1}: must have {allowed}, got item {items[row]!r}"
                )

    def __repr__(self) -> str:
        size = f"{self.is_there.sum():,} items, {self.vectors.shape[1]} dimensions"
        return f"Modality({self.name!r}, {size} by {self.encoder!r})"

    @property
    def is_there(self) -> Bool[np.ndarray, " items"]:
        """False where nothing is known of an item: its vector is 0."""
        return (self.vectors != 0).any(axis=1)

    def of(self, items: pl.Series) -> "Modality":
        """The same for other items in their order: 0 for those that are not there."""
        row = pl.DataFrame({ITEM: self.items, "row": np.arange(len(self.items))})
        row = items.to_frame(ITEM).join(row, on=ITEM, how="left", maintain_order="left")["row"]
        known = row.is_not_null().to_numpy()
        vectors = np.zeros((len(items), self.vectors.shape[1]), np.float32)
        vectors[known] = self.vectors[row.drop_nulls().to_numpy()]
        return replace(self, items=items, vectors=vectors)

    def absent(self) -> "Modality":
        """The same with nothing known of any item."""
        return replace(self, vectors=np.zeros_like(self.vectors))

    def centred(self, centre: Float[np.ndarray, " dim"] | None = None) -> "Modality":
        """Vectors of length one without what is common to all; `centre`: without that.

        Encoders give all texts (pictures, sounds) much in common, which says nothing of one of
        them (Mu and Viswanath 2018, All-but-the-Top, ICLR).
        """
        unit = unit_rows(self.vectors)
        if centre is None:
            centre = unit.sum(axis=0) / max(self.is_there.sum(), 1)
        unit = unit_rows((unit - centre) * self.is_there[:, None])
        return replace(self, vectors=unit, centre=centre.astype(np.float32))


def fitted(modalities: Sequence[Modality], items: pl.Series) -> tuple[Modality, ...]:
    """Modalities of the items of a catalogue, vectors centred on their mean and of length one.

    Raises:
        ValueError: If two have one name, or one has no vector of any of these items.
    """
    names = [each.name for each in modalities]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"modalities must have names of their own, got {sorted(twice)} twice")
    found = tuple(each.of(items) for each in modalities)
    for each in found:
        if not each.is_there.any():
            raise ValueError(
                f"modality {each.name!r} must have vectors of items of the catalogue, such as "
                f"{items[0]!r}, got none"
            )
    return tuple(each.centred() for each in found)


def packed(modalities: Sequence[Modality]) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and meta for `storage.save_folder`; nothing where there are none."""
    arrays = {f"modality.{each.name}": each.vectors for each in modalities}
    arrays |= {f"centre.{each.name}": each.centre for each in modalities}
    encoders = {each.name: each.encoder for each in modalities}
    return arrays, {"modalities": encoders} if encoders else {}


def unpacked(items: pl.Series, arrays: Mapping, encoders: Mapping[str, str]) -> tuple:
    """Modalities of a catalogue from what `packed` made."""
    found = []
    for name, encoder in encoders.items():
        own = {key: arrays[f"{key}.{name}"] for key in ("modality", "centre")}
        check_arrays(own, "f", modality=(len(items), None))
        check_arrays(own, "f", centre=(own["modality"].shape[1],))
        given = {"name": name, "items": items, "encoder": encoder}
        found.append(Modality(vectors=own["modality"], centre=own["centre"], **given))
    return tuple(found)


def write_vectors(modality: Modality, path: str | Path) -> Path:
    """The path of a file with the vectors; NAME.manifest.json beside it says what made them.

    Args:
        modality: The vectors.
        path: NAME.parquet (columns item and vector) or NAME.safetensors (a tensor "vectors", and
            the items as a JSON list in its metadata); what is there is replaced.

    Raises:
        ValueError: If the path ends otherwise, or the manifest there is that of NAME with the other
            ending.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "posters.parquet"
        >>> given = {"name": "image", "items": ["a"], "encoder": "by hand"}
        >>> _ = write_vectors(Modality(vectors=np.ones((1, 3)), **given), path)
        >>> read_vectors(path)
        Modality('image', 1 items, 3 dimensions by 'by hand')
    """
    path = _checked_path(path)
    (other,) = (path.with_suffix(ending) for ending in _FORMATS if ending != path.suffix)
    if other.exists() and _manifest_of(path).exists():
        raise ValueError(f"{path}: shares its manifest with {other.name}, got both of one name")
    if path.suffix == ".parquet":
        table = pl.DataFrame({ITEM: modality.items, VECTOR: modality.vectors})
        write_atomically(path, table.write_parquet)
    else:
        items = {"items": json.dumps(modality.items.to_list())}
        tensors = {"vectors": modality.vectors}
        write_atomically(path, lambda to: safetensors.save_file(tensors, to, items))
    says = {"name": modality.name, "encoder": modality.encoder}
    says |= {"dimension": modality.vectors.shape[1], "sha256": sha256_of(path)}
    text = json.dumps(says, indent=1, ensure_ascii=False)
    write_text(_manifest_of(path), text + "\n")
    return path


def read_vectors(path: str | Path, *, name: str | None = None) -> Modality:
    """Vectors of items that an encoder of your own has made, checked against their manifest.

    Args:
        path: A file as `write_vectors` writes it. Beside NAME.parquet (or .safetensors) lies
            NAME.manifest.json, an object with encoder (text), dimension (a whole number), sha256
            (of the file) and perhaps name.
        name: Name of the modality; None takes that of the manifest, or else of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the manifest is missing or says something else than is there, or a vector is
            not `dimension` finite numbers; the message names the file and the row.
    """
    path = _checked_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    says = _read_manifest(_manifest_of(path))
    check_file(path, says["sha256"])
    read = _read_parquet if path.suffix == ".parquet" else _read_safetensors
    items, vectors = read(path, says["dimension"])
    name = name or says.get("name") or re.sub(r"[^A-Za-z0-9_-]", "-", path.stem)
    try:
        return Modality(name=str(name), items=items, vectors=vectors, encoder=says["encoder"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def larger(
    known: tuple[Modality, ...], given: Sequence[Modality], items: pl.Series
) -> tuple[Modality, ...]:
    """The modalities with rows for new items."""
    check_names([each.name for each in given], known)
    by_name, found = {each.name: each for each in given}, []
    for own in known:
        new = np.zeros((len(items), own.vectors.shape[1]), np.float32)
        if other := by_name.get(own.name):
            came = (other.encoder, other.vectors.shape[1])
            if came != (wanted := (own.encoder, own.vectors.shape[1])):
                raise ValueError(
                    f"modality {own.name!r} must have encoder and dimension {wanted}, got {came}"
                )
            new = other.of(items).centred(own.centre).vectors
        both = np.concatenate([own.vectors, new])
        found.append(replace(own, items=pl.concat([own.items, items]), vectors=both))
    return tuple(found)


def check_names(names: Sequence[str], known: tuple[Modality, ...]) -> None:
    """Raise ValueError if one is none of the modalities that are known."""
    allowed = [each.name for each in known]
    if strange := [name for name in names if name not in allowed]:
        raise ValueError(f"modality must be one of {', '.join(allowed) or 'none'}, got {strange}")


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise ValueError(f"{path}: must end in {' or '.join(_FORMATS)}, got {path.suffix!r}")
    return path


def _manifest_of(path: Path) -> Path:
    return path.with_suffix(".manifest.json")


def _read_manifest(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(
            f"{path}: is missing; it must be a JSON object with {', '.join(_MANIFEST)}"
        )
    try:
        says = json.loads(path.read_bytes())
        if not isinstance(says, dict):
            raise ValueError(f"must be an object, got {type(says).__name__}")
        for field, form in _MANIFEST.items():
            if type(says.get(field)) is not form:
                raise ValueError(f"{field} must be {form.__name__}, got {says.get(field)!r:.100}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read: {brief(error)}") from error
    return says


def _read_parquet(path: Path, dimension: int) -> tuple[pl.Series, np.ndarray]:
    table = read_parquet(path)
    if missing := {ITEM, VECTOR} - set(table.columns):
        raise ValueError(f"{path}: columns {sorted(missing)} are missing, got {table.columns}")
    vectors = table[VECTOR]
    inner = getattr(vectors.dtype, "inner", pl.Null())
    if table[ITEM].dtype != pl.String or not inner.is_numeric():
        came = f"{table[ITEM].dtype} and {vectors.dtype}"
        raise ValueError(f"{path}: must have text items and vectors of numbers, got {came}")
    vectors = vectors.cast(pl.List(pl.Float32))
    lengths = vectors.list.drop_nulls().list.len().fill_null(0).to_numpy()
    if (wrong := lengths != dimension).any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{path}, data row {row + 1}, column {VECTOR!r}: must be {dimension} numbers (the "
            f"manifest's dimension), got {lengths[row]}"
        )
    return table[ITEM], vectors.explode().to_numpy().reshape(len(table), dimension)


def _read_safetensors(path: Path, dimension: int) -> tuple[pl.Series, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            items = json.loads((file.metadata() or {})["items"])
            vectors = file.get_tensor("vectors")
        items = pl.Series(ITEM, items, dtype=pl.String)
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        what = "a tensor 'vectors' and a JSON list 'items' in the metadata"
        raise ValueError(f"{path}: must hold {what}: {brief(error)}") from error
    if vectors.dtype.kind != "f" or vectors.shape != (len(items), dimension):
        allowed = f"{len(items)} x {dimension} floating-point numbers (items x dimension)"
        raise ValueError(f"{path}: must hold {allowed}, got {vectors.shape} of {vectors.dtype}")
    return items, vectors
