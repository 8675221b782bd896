"""Forgetting a person: only what their part of the users made is made again, as if never there.

Users are dealt to parts by a keyed hash, each part is a model with counts and popularity of its
own (SISA: Bourtoule et al. 2021, arXiv:1912.03817), and the prediction is the mean over parts. To
forget somebody their events go, and the model of their part is trained again from the beginning.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from interestkit.bounded import read_back
from interestkit.examples import TrainingConfig
from interestkit.features import Features, with_popularity
from interestkit.files import check_new, locked
from interestkit.histories import Histories
from interestkit.limits import check_counts
from interestkit.prediction import BLOCK, Predictor, check_k
from interestkit.privacy.training import public_features
from interestkit.progress import progress_bar
from interestkit.ranking import top_k
from interestkit.schema import ITEM, TIME, USER, check_has_zone
from interestkit.splitting import check_whole
from interestkit.storage import load_folder, save_folder
from interestkit.training import fit

_KIND = "parted model"
_SNAPSHOTS = 64  # of popularity


def part_of(user: str, key: bytes, num_parts: int) -> int:
    """The part that a user belongs to: a keyed hash, so that nobody else can tell who is where.

    Example:
        >>> part_of("ann", b"secret", 4) == part_of("ann", b"secret", 4)
        True
    """
    digest = hashlib.blake2b(user.encode(), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_parts


@dataclass(frozen=True, kw_only=True)
class PartedModel:
    """A model of several parts of the users, which can forget each of them.

    It ranks as `Predictor` does, with probabilities that are means over its parts.

    Args:
        folder: Where events and models of the parts lie.
        features: The catalogue that all parts share, made without any user.
        models: The model of each part.
    """

    folder: Path
    features: Features
    models: tuple[Predictor, ...]

    def __repr__(self) -> str:
        return f"PartedModel({len(self.models)} parts, {self.features!r})"

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """As `Predictor.rank`: the k items with the largest mean probability over the parts."""
        check_k(k, self.features)
        everything = np.arange(self.features.num_items, dtype=np.int32)
        blocks = []
        for first in range(0, max(len(histories), 1), BLOCK):
            block = histories.rows(first, first + BLOCK)
            codes = np.tile(everything, (len(block), 1))
            parts = [m.score(block, codes, exclude_seen=exclude_seen) for m in self.models]
            mean = np.mean([np.exp(part) for part in parts], axis=0)
            blocks.append(_best(mean, k))
        codes, best = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
        return codes, best

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest, the mean over the parts."""
        return np.mean([model.interests(histories) for model in self.models], axis=0)

    @classmethod
    def load(cls, folder: str | Path) -> "PartedModel":
        """What `train_parts` wrote; errors as in `storage.load_folder`."""
        settings = _Settings.read(folder)
        models = tuple(
            Predictor.load(_place(folder, number, "model")) for number in range(settings.num_parts)
        )
        return cls(folder=Path(folder), features=settings.features, models=models)

    def forget(self, user: str, *, key: bytes) -> "PartedModel":
        """The model as it would be if the user had never been there, here and in the folder.

        The model of the user's part is trained again without them, from the beginning, and their
        events go. On the same processor and versions its weights are bit for bit those of
        `train_parts` without the user. Copies elsewhere, and the bytes of deleted files on a disk,
        are not its business; `find_traces` looks through a folder.

        Args:
            user: Whom to forget.
            key: The key of `train_parts`.

        Raises:
            ValueError: If the user is not in the part that the key names, or nobody to learn from
                is left in it.
            FileNotFoundError: If the part is not there.
        """
        _check_key(key)
        settings = _Settings.read(self.folder)
        number = part_of(user, key, settings.num_parts)
        place = _place(self.folder, number, "events")
        if not place.parent.is_dir():
            raise FileNotFoundError(f"{place.parent}: there is no such folder")
        (turn := place.with_name(".forgetting")).mkdir(exist_ok=True)
        with locked(turn):  # else another process could bring the user back
            events = load_folder(place, kind="events").tables["events"]
            left = events.filter(pl.col(USER) != user)
            if len(left) == len(events):
                raise ValueError(
                    f"user must be in part {number}, which the key names, got {user!r}"
                )
            settings.train(self.folder, number, left)
        return PartedModel.load(self.folder)  # all of it: others may have been forgotten since


def _best(mean: Float[np.ndarray, "users items"], k: int):
    """Codes and logarithms of the k largest; -1 and -inf where nothing is left."""
    with np.errstate(divide="ignore"):
        scores = np.log(mean).astype(np.float32)
    best, codes = (np.asarray(array) for array in top_k(scores, k))
    return np.where(np.isfinite(best), codes, -1), best


def train_parts(
    events: pl.DataFrame,
    items: pl.DataFrame,
    folder: str | Path,
    *,
    key: bytes,
    since: datetime,
    until: datetime,
    num_parts: int = 4,
    config: TrainingConfig | None = None,
    seed: int = 0,
    progress: bool = True,
    **shape: object,
) -> PartedModel:
    """A model of each part of the users, in a folder that `forget` can take one of them out of.

    The catalogue, its labels, content and time scales come from the table of items and the period
    alone; counts, popularity and weights of a part from its own users. So nothing that belongs to
    other parts depends on a user.

    Args:
        events: Training events within the period.
        items: The table of items; it must not have been made from the events.
        folder: A new or empty folder: one for each part, with its events, and one for settings.
        key: Secret key of the dealing, 1 to 64 bytes. It is not written down: `forget` needs it.
        since: First instant of the period.
        until: The first instant after it.
        num_parts: Parts. More of them forget faster and predict worse.
        config: Settings of training.
        seed: Seed of all parts.
        progress: Show a progress bar over parts.
        **shape: Fields of `ModelConfig`.

    Raises:
        ValueError: If a part has nobody to learn from, an event is outside the period or lacks
            user, item or time, the folder is not empty, or a setting is out of range.

    Source:
        Bourtoule et al. (2021), Machine unlearning, arXiv:1912.03817.
    """
    folder = Path(folder)
    _check_key(key)
    check_counts(1, num_parts=num_parts)
    check_whole(events, before="users are dealt to parts")
    _check_period(events, since, until)
    check_new(folder)  # parts of another model would stay, users and all
    config = config or TrainingConfig()
    settings = _Settings(items, since, until, num_parts, config, seed, shape)
    settings.write(folder)
    names = events[USER].unique().sort()
    numbers = [part_of(user, key, num_parts) for user in names]
    dealt = pl.DataFrame({USER: names, "part": numbers}, schema_overrides={"part": pl.Int32})
    dealt = events.join(dealt, on=USER, maintain_order="left")
    models = tuple(
        settings.train(folder, number, dealt.filter(pl.col("part") == number).drop("part"))
        for number in progress_bar(range(num_parts), label="parts", unit="part", enabled=progress)
    )
    return PartedModel(folder=folder, features=settings.features, models=models)


@dataclass(frozen=True)
class _Settings:
    """What all parts have in common, none of it from a user."""

    items: pl.DataFrame
    since: datetime
    until: datetime
    num_parts: int
    config: TrainingConfig
    seed: int
    shape: dict[str, object]

    @cached_property
    def features(self) -> Features:
        """Made once: all parts share it."""
        return public_features(self.items, since=self.since, until=self.until)

    def write(self, folder: Path) -> None:
        meta = {
            "num_parts": self.num_parts,
            "seed": self.seed,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "config": asdict(self.config),
            "shape": self.shape,
        }
        save_folder(folder / "settings", kind=_KIND, tables={"items": self.items}, meta=meta)

    @classmethod
    def read(cls, folder: str | Path) -> "_Settings":
        stored = load_folder(place := Path(folder) / "settings", kind=_KIND)
        meta = stored.meta
        with read_back(place):
            since, until = (datetime.fromisoformat(meta[name]) for name in ("since", "until"))
            shape = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["shape"].items()}
            check_counts(1, num_parts=meta["num_parts"])
            numbers = meta["num_parts"], TrainingConfig(**meta["config"]), meta["seed"], shape
            return cls(stored.tables["items"], since, until, *numbers)

    def train(self, folder: Path, number: int, events: pl.DataFrame) -> Predictor:
        """The model of one part, written to the folder, and then its events."""
        features = _with_counts(self.features, events, self.until)
        settings = {"config": self.config, "seed": self.seed + number, **self.shape}
        try:
            made = fit(features, features.histories(events), progress=False, **settings)
        except ValueError as error:
            raise ValueError(f"part {number}: {error}") from error
        model = Predictor(features=features, model=made.model)
        model.save(_place(folder, number, "model"))
        save_folder(_place(folder, number, "events"), kind="events", tables={"events": events})
        return model


def _with_counts(features: Features, events: pl.DataFrame, until: datetime) -> Features:
    """The features with counts and popularity of some events."""
    codes = features.codes(events[ITEM])
    counts = np.bincount(codes[codes >= 0], minlength=features.num_items)
    items = features.items.with_columns(pl.Series("events", counts, dtype=pl.Int32))
    return with_popularity(replace(features, items=items), events, until, _SNAPSHOTS)


def _place(folder: str | Path, number: int, what: str) -> Path:
    return Path(folder) / f"part-{number:03d}" / what


def _check_key(key: bytes) -> None:
    if not isinstance(key, bytes) or not 1 <= len(key) <= 64:
        came = len(key) if isinstance(key, bytes) else type(key).__name__
        raise ValueError(f"key must have 1 to 64 bytes, got {came}")


def _check_period(events: pl.DataFrame, since: datetime, until: datetime) -> None:
    check_has_zone(since=since, until=until)
    first, last = events[TIME].min(), events[TIME].max()
    if events.is_empty() or first < since or last >= until:
        raise ValueError(f"events must be from {since} to before {until}, got {first} to {last}")
