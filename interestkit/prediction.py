"""Interest probabilities and ranked items for users, known or new, in blocks of fixed size."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from flax import nnx
from jaxtyping import Float, Int

from interestkit.devices import place
from interestkit.examples import catalogue_arrays
from interestkit.features import Features
from interestkit.histories import Histories, power_of_two
from interestkit.model import (
    HIDDEN,
    PARTS,
    Catalogue,
    InterestModel,
    Log,
    ModelConfig,
    Moment,
    hide_seen,
    item_log_probabilities,
    seen_items,
)
from interestkit.ranking import top_k
from interestkit.schema import USER
from interestkit.storage import load_folder, save_folder

BLOCK = 128  # users scored at a time
_SMALLEST_LOG = 4096  # events of a block are padded to a power of two, at least this


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A trained model with the features that it was trained on.

    Args:
        features: The features.
        model: The model.
        mode: "hybrid", "collaborative" (learned item vectors and popularity alone) or
            "content" (item vectors from content alone).
        linear: What each item of a history (row) adds to the score of each other item (column);
            `linear.add_linear_part` makes it. None adds nothing; nor is it added to content.

    Raises:
        ValueError: If `mode` is another one, or `linear` is not items x items.
    """

    features: Features
    model: InterestModel
    mode: str = "hybrid"
    linear: Float[np.ndarray, "items items"] | None = None

    def __post_init__(self) -> None:
        if self.mode not in PARTS:
            raise ValueError(f"mode must be one of {', '.join(PARTS)}, got {self.mode!r}")
        square = (self.features.num_items,) * 2
        if self.linear is not None and self.linear.shape != square:
            raise ValueError(f"linear must have shape {square}, got {self.linear.shape}")

    def __repr__(self) -> str:
        return f"Predictor({self.mode}, {self.features!r})"

    def in_mode(self, mode: str) -> "Predictor":
        """The same model, scoring with other parts of the item vectors."""
        return replace(self, mode=mode)

    def rank(
        self, histories: Histories, *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]:
        """Codes of the k most probable next items of each user, and their log-probabilities.

        Args:
            histories: Whom to rank for.
            k: Length of the list, 1 <= k <= items.
            exclude_seen: Rank only items that are not in the user's history; probabilities
                are then given that the next item is a new one.

        Returns:
            Codes and natural logarithms of probabilities, best first; code -1 and -inf where
            no item is left. Of equal probabilities the lower code comes first.

        Raises:
            ValueError: If `k` is outside 1..items, or the histories are coded by other features.
        """
        check_k(k, self.features)
        programs = self._scoring(histories, exclude_seen)
        blocks = [_rank_block(*program, k) for program in programs]
        codes, scores = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
        return codes[: len(histories)], scores[: len(histories)]

    def score(
        self,
        histories: Histories,
        codes: Int[np.ndarray, "users candidates"],
        *,
        exclude_seen: bool = True,
    ) -> Float[np.ndarray, "users candidates"]:
        """Log-probabilities of given items, as in `rank`; -inf for what cannot be recommended.

        Args:
            histories: Whom to score for.
            codes: Catalogue codes of each user's candidates, in 0..items - 1.
            exclude_seen: As in `rank`.

        Raises:
            ValueError: If there are not as many rows as users, or a code is no item.
        """
        if len(codes) != len(histories):
            raise ValueError(f"codes must have {len(histories)} rows, got {len(codes)}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.features.num_items:
            allowed = f"0..{self.features.num_items - 1} (the catalogue)"
            raise ValueError(f"codes must be in {allowed}, got {codes.min()}..{codes.max()}")
        blocks = []
        for number, program in enumerate(self._scoring(histories, exclude_seen)):
            own = codes[number * BLOCK : (number + 1) * BLOCK]
            blocks.append(_score_block(*program, _pad(own, BLOCK))[: len(own)])
        return np.concatenate(blocks)

    def _scoring(self, histories: Histories, exclude_seen: bool) -> Iterator[tuple]:
        """Arguments of `_item_scores` for each block of users."""
        seen_length = power_of_two(int(histories.lengths.max(initial=1)))
        program, linear = self._program(histories), self._linear
        for block in self._blocks(histories):
            yield (*program, linear, block, self._parts, seen_length, exclude_seen)

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest in what each user does next; a row sums to 1."""
        program = self._program(histories)
        blocks = [
            _interests_block(*program, block, self._parts) for block in self._blocks(histories)
        ]
        return np.concatenate(blocks)[: len(histories)]

    def save(self, folder: str | Path) -> Path:
        """The folder, to which model and features are written together."""
        packed = self.features.pack()
        weights = {f"weights.{name}": array for name, array in _flat(self._split[1]).items()}
        linear = {} if self.linear is None else {"linear": self.linear}
        return save_folder(
            folder,
            kind="model",
            tables=packed["tables"],
            arrays=packed["arrays"] | weights | linear,
            meta={
                "features": packed["meta"],
                "model": asdict(self.model.config),
                "mode": self.mode,
            },
        )

    @classmethod
    def load(cls, folder: str | Path) -> "Predictor":
        """What `save` wrote; errors as in `storage.load_folder`."""
        stored = load_folder(folder, kind="model")
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.meta["model"].items()
        }
        config = ModelConfig(**settings)
        model = nnx.eval_shape(lambda: InterestModel(config, rngs=nnx.Rngs(0)))
        graph, state = nnx.split(model)
        paths, structure = jax.tree_util.tree_flatten_with_path(state)
        leaves = [jnp.asarray(stored.arrays[f"weights.{_name(path)}"]) for path, _ in paths]
        state = jax.tree.unflatten(structure, leaves)
        return cls(
            features=Features.unpack(
                tables=stored.tables, arrays=stored.arrays, meta=stored.meta["features"]
            ),
            model=nnx.merge(graph, state),
            mode=stored.meta["mode"],
            linear=stored.arrays.get("linear"),
        )

    @cached_property
    def _split(self) -> tuple[nnx.GraphDef, nnx.State]:
        graph, state = nnx.split(self.model)
        return graph, place(state)  # weights that come from many devices are on none

    @cached_property
    def _catalogue(self) -> Catalogue:
        return place(catalogue_arrays(self.features))

    @cached_property
    def _linear(self) -> Float[jax.Array, "items items"]:
        return jnp.asarray(np.zeros((0, 0), np.float32) if self.linear is None else self.linear)

    def _program(self, histories: Histories) -> tuple[nnx.GraphDef, nnx.State, Catalogue]:
        """Model and catalogue; of popularity only the newest snapshot where nobody needs others."""
        histories.check_coded_by(self.features.fingerprint)
        catalogue = self._catalogue
        if len(histories) and histories.moment.min() >= self.features.snapshot_seconds[-1]:
            catalogue = catalogue._replace(
                popularity=catalogue.popularity[-1:],
                snapshot_seconds=catalogue.snapshot_seconds[-1:],
            )
        return (*self._split, catalogue)

    @property
    def _parts(self) -> Float[jax.Array, " parts"]:
        return jnp.array(PARTS[self.mode])

    def _blocks(self, histories: Histories) -> Iterator[tuple[Log, Moment]]:
        """Blocks of users with their part of the log; all have one shape."""
        following, counts = histories.running_counts(self.features.scales_days)
        starts = range(0, max(len(histories), 1), BLOCK)
        bounds = [histories.offsets[[a, min(a + BLOCK, len(histories))]] for a in starts]
        size = max([_SMALLEST_LOG, *(int(b - a) for a, b in bounds)])
        size = power_of_two(size)
        for row, (first, last) in zip(starts, bounds, strict=True):
            events = slice(first, last)
            arrays = (
                histories.item[events],
                histories.seconds[events],
                histories.weight[events],
                np.maximum(following[events] - first, 0),
                counts[events],
            )
            log = Log(*(_pad(array, size) for array in arrays))
            users = slice(row, row + BLOCK)
            offsets = histories.offsets[row : row + BLOCK + 1] - first
            moment = (offsets[:-1], offsets[1:], histories.moment[users])
            yield log, Moment(*(_pad(array, BLOCK) for array in moment))


def _item_scores(graph, state, catalogue, linear, block, parts, seen_length, exclude_seen):
    """Log-probability of every item to be next, or the next new one."""
    log, moment = block
    model = nnx.merge(graph, state)
    said = model(log, catalogue, moment, parts=parts)
    new = model.score_new(said, catalogue, None, parts=parts)
    if linear.size:
        rows, seen = jnp.arange(len(new))[:, None], seen_items(log, moment, seen_length)
        seen = jnp.where(seen < 0, len(linear), seen)
        had = jnp.zeros_like(new).at[rows, seen].set(1.0, mode="drop")
        new += parts[0] * (had @ linear)
    if not exclude_seen:
        return item_log_probabilities(new, said, catalogue)
    left = hide_seen(new, log, moment, catalogue, length=seen_length)
    return jnp.where(left > HIDDEN / 2, jax.nn.log_softmax(left, axis=1), -jnp.inf)


@partial(jax.jit, static_argnums=(0, 6, 7, 8))
def _rank_block(graph, state, catalogue, linear, block, parts, seen_length, exclude_seen, k):
    scores = _item_scores(graph, state, catalogue, linear, block, parts, seen_length, exclude_seen)
    best, codes = top_k(scores, k)
    return codes, best


@partial(jax.jit, static_argnums=(0, 6, 7))
def _score_block(graph, state, catalogue, linear, block, parts, seen_length, exclude_seen, codes):
    scores = _item_scores(graph, state, catalogue, linear, block, parts, seen_length, exclude_seen)
    return jnp.take_along_axis(scores, codes, axis=1)


@partial(jax.jit, static_argnums=0)
def _interests_block(graph, state, catalogue, block, parts):
    return jnp.exp(nnx.merge(graph, state)(*block[:1], catalogue, block[1], parts=parts).interests)


def check_k(k: int, features: Features) -> None:
    """Raise ValueError unless `k` is in 1..items."""
    if not 1 <= k <= features.num_items:
        raise ValueError(f"k must be in 1..{features.num_items} (the catalogue), got {k}")


def predict_interests(predictor: Predictor, histories: Histories) -> pl.DataFrame:
    """Interest probabilities as a tidy table.

    Args:
        predictor: The model.
        histories: Whom to predict.

    Returns:
        Columns user, interest, probability; for each user from the most to the least probable.
    """
    probabilities = predictor.interests(histories)
    names = np.array(predictor.features.interests)
    table = pl.DataFrame(
        {
            USER: pl.Series(np.repeat(histories.users, len(names)), dtype=pl.String),
            "interest": np.tile(names, len(histories)),
            "probability": probabilities.ravel(),
            "row": np.repeat(np.arange(len(histories)), len(names)),
        }
    )
    order = ["row", "probability", "interest"]
    return table.sort(order, descending=[False, True, False]).drop("row")


def _pad(array: np.ndarray, size: int) -> np.ndarray:
    return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)])


def _flat(state: nnx.State) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
