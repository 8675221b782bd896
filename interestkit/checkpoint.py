"""Training that was stopped goes on: its last two states in a folder, whole, checked, its own."""

import hashlib
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from interestkit import __version__
from interestkit.bounded import read_back
from interestkit.devices import padded_items, place, whole
from interestkit.examples import TrainingConfig
from interestkit.features import Features
from interestkit.files import locked
from interestkit.heldout import HeldOut
from interestkit.histories import Histories
from interestkit.limits import check_counts
from interestkit.model import ModelConfig
from interestkit.shards import Shards
from interestkit.storage import Stored, load_folder, save_folder

_KIND = "training state"
_NAME = re.compile(r"epoch-(\d{5,})")
_MADE_BY = ("jax", "flax", "optax", "numpy")  # in another version they may compute other digits


class Progress(NamedTuple):
    """How far training has come.

    Args:
        state: Weights, optimiser state and random key after the last epoch: a tree of arrays.
        best_params: Weights of the best epoch.
        rows: The curve, a row for each epoch.
        best_epoch: The first with the best score; 0 before the first.
    """

    state: Any
    best_params: Any
    rows: tuple[dict, ...] = ()
    best_epoch: int = 0

    @property
    def epochs_since_best(self) -> int:
        """Epochs since then."""
        return len(self.rows) - self.best_epoch

    @property
    def seconds(self) -> float:
        """Seconds that it took so far."""
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def after(self, state, row: dict) -> "Progress":
        """The progress after one more epoch, its row of the curve given."""
        rows = (*self.rows, row)
        best = self.rows[self.best_epoch - 1]["score"] if self.best_epoch else -np.inf
        if row["score"] > best:
            return Progress(state, state.params, rows, len(rows))
        return Progress(state, self.best_params, rows, self.best_epoch)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a run is saved after each epoch, and where it goes on from.

    Args:
        folder: None saves nothing.
        identity: What `identity_of` says of the run.
        mesh: Devices that it runs on: the folder has whole arrays, so that any others may go on.
        shape: The model's shape.
    """

    folder: str | Path | None
    identity: Mapping[str, object]
    mesh: Mesh | None
    shape: ModelConfig

    def resumed(self, state) -> Progress:
        """Where the run stands: what the folder has of it, or else `state`, before an epoch.

        Raises:
            ValueError: As `load_progress`.
            OSError: If there is no such folder and none can be made.
        """
        begin = Progress(state, state.params)
        found = None if self.folder is None else load_progress(self.folder, state, self.identity)
        if found is None:
            if self.folder is not None and not jax.process_index():  # sooner than after an epoch
                Path(self.folder).mkdir(parents=True, exist_ok=True)
            return begin
        rows = padded_items(self.shape.num_items, self.mesh)
        placed = place((found.state, found.best_params), self.mesh, rows)
        return Progress(*placed, found.rows, found.best_epoch)

    def save(self, run: Progress) -> None:
        """Save it; of several processes the first one does."""
        if self.folder is None:
            return
        arrays = whole((run.state, run.best_params), self.mesh, self.shape.num_items)
        if jax.process_index():
            return
        try:
            save_progress(self.folder, Progress(*arrays, *run[2:]), self.identity)
        except OSError as error:
            what = f"the state after epoch {len(run.rows)} was not saved to {self.folder}"
            error.add_note(f"{what}; the one before is whole, and the same call goes on from it")
            raise


def digest_of(features: Features) -> str:
    """Stands for all that a model is given of its features, counts and popularity included."""
    weights = str(sorted(features.kind_weights.items()))
    parts = (
        *(features.fingerprint.encode(), weights.encode(), features.items["events"].to_numpy()),
        *(features.item_interests, features.content, features.popularity),
        *(features.snapshot_seconds, features.is_candidate),
        *(modality.vectors for modality in features.modalities),
    )
    return _digest(parts)


def identity_of(
    features: Features,
    histories: Histories | Shards,
    validation: HeldOut | None,
    *,
    config: TrainingConfig,
    shape: ModelConfig,
    seed: int,
) -> dict[str, object]:
    """What makes a run the same run: settings, seed, and fingerprints of its data."""
    is_shards = isinstance(histories, Shards)
    return {
        "versions": {"interestkit": __version__} | {name: version(name) for name in _MADE_BY},
        "seed": seed,
        "config": _plain(asdict(config)),
        "shape": _plain(asdict(shape)),
        "features": digest_of(features),
        "histories": histories.fingerprint if is_shards else _digest(_parts(histories)),
        "validation": "" if validation is None else _digest(_truth(validation)),
    }


def save_progress(folder: str | Path, progress: Progress, identity: Mapping[str, object]) -> None:
    """Write how far training has come to `folder`/epoch-NNNNN, and keep the state before it.

    Arrays are NumPy's. Killed while writing, the folder still has the states that it had.
    """
    epoch = len(progress.rows)
    earlier = [number for number in _saved_epochs(folder) if number < epoch]
    kept = {epoch, *earlier[-1:]}
    parts = {"state": progress.state}
    if progress.epochs_since_best:  # else the weights of the state are the best
        parts["best"] = progress.best_params
    meta = {"identity": identity, "rows": progress.rows, "best_epoch": progress.best_epoch}
    meta["before"] = max(earlier, default=0)
    # one that is there was damaged, or training would not be here
    shutil.rmtree(_of_epoch(folder, epoch), ignore_errors=True)
    save_folder(_of_epoch(folder, epoch), kind=_KIND, arrays=_named(parts), meta=meta)
    for number in set(_saved_epochs(folder)) - kept:
        shutil.rmtree(_of_epoch(folder, number), ignore_errors=True)


def load_progress(
    folder: str | Path, like: object, identity: Mapping[str, object]
) -> Progress | None:
    """What `save_progress` wrote last; None where there is nothing yet.

    Where the last state is damaged or missing, the one before it is taken, with a warning. `like`
    is a state of the same structure, whose arrays may be abstract.

    Raises:
        ValueError: If the folder holds something else, no whole state, or the state of another
            run; the message names what differs.
    """
    if not (epochs := _saved_epochs(folder)):
        return None
    stored = _last_whole(folder, epochs)
    with read_back(folder):
        differing = list(_differing(stored.meta["identity"], identity))
    if differing:
        raise ValueError(
            f"{folder}: must hold the state of this very run, got another "
            f"{', '.join(differing)}; take a new folder to begin anew"
        )
    with read_back(folder):
        state = _unnamed(stored.arrays, "state", like)
        found = Progress(state, state.params, tuple(stored.meta["rows"]), stored.meta["best_epoch"])
        if not found.epochs_since_best:
            return found
        return found._replace(best_params=_unnamed(stored.arrays, "best", like.params))


def _of_epoch(folder: str | Path, epoch: int) -> Path:
    return Path(folder) / f"epoch-{epoch:05d}"


def _saved_epochs(folder: str | Path) -> list[int]:
    """Epochs whose state is there, in order; what a killed process left is cleared up.

    Raises:
        ValueError: If there is anything else.
    """
    folder = Path(folder)
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise ValueError(f"{folder}: must be a folder, got a file")
    with locked(folder):  # nobody is saving, so that nobody's unfinished state goes
        for path in folder.glob(".epoch-*"):
            shutil.rmtree(path, ignore_errors=True)
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    found = [_NAME.fullmatch(name) for name in names]
    if strange := [name for name, match in zip(names, found, strict=True) if not match]:
        raise ValueError(
            f"{folder}: must be new, empty or hold epochs of training, got a folder with {strange}"
        )
    return sorted(int(match[1]) for match in found)


def _last_whole(folder: str | Path, epochs: list[int]) -> Stored:
    """The newest state that can be read; a warning says what was passed over."""
    wrong = []
    for epoch in reversed(epochs):
        place = _of_epoch(folder, epoch)
        try:
            stored = load_folder(place, kind=_KIND)
            with read_back(place):
                check_counts(0, before=(before := stored.meta["before"]))
        except (ValueError, OSError) as error:
            wrong.append(str(error))
            continue
        if before and before not in epochs:
            wrong.append(f"{_of_epoch(folder, before)}: missing, as a later one may be")
        if wrong:
            what = f"training goes on after epoch {epoch}, the last whole state"
            warnings.warn(f"{what}: {'; '.join(wrong)}", RuntimeWarning, stacklevel=6)
        return stored
    what = f"must hold a whole state, got {'; '.join(wrong)}"
    raise ValueError(f"{folder}: {what}; take a new folder to begin anew")


def _differing(stored: Mapping, wanted: Mapping) -> Iterable[str]:
    """Names of what differs, settings with both values."""
    for name in stored.keys() | wanted.keys():
        one, other = stored.get(name), wanted.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            for part in sorted(one.keys() | other.keys()):
                if one.get(part) != other.get(part):
                    yield f"{part} ({one.get(part)}, not {other.get(part)})"
        elif one != other:
            yield f"{name} ({one}, not {other})"


def _named(tree) -> dict[str, np.ndarray]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def _unnamed(arrays: Mapping[str, np.ndarray], name: str, like):
    paths, structure = jax.tree_util.tree_flatten_with_path({name: like})
    leaves = [arrays[jax.tree_util.keystr(path)] for path, _ in paths]
    return jax.tree.unflatten(structure, leaves)[name]


def _plain(settings: dict) -> dict:
    """Settings as JSON gives them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def _parts(own: Histories) -> Iterable[np.ndarray]:
    return (own.offsets, own.item, own.seconds, own.weight, own.moment)


def _truth(validation: HeldOut) -> Iterable[np.ndarray]:
    pairs = validation.relevant
    columns = (pairs[name].to_numpy() for name in ("user_code", "code", "is_seen"))
    return (*_parts(validation.histories), *columns, validation.interest_shares)


def _digest(parts: Iterable[bytes | np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if not isinstance(part, bytes):
            digest.update(str((part.shape, part.dtype.str)).encode())
            part = np.ascontiguousarray(part).tobytes()
        digest.update(part)
    return digest.hexdigest()
