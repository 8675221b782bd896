"""Interest probabilities and ranked items for users, known or new, in blocks of fixed size."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from flax import nnx
from jaxtyping import Float, Int

from interestkit import reprs
from interestkit.bounded import check_arrays, read_back
from interestkit.counting import pad, power_of_two
from interestkit.devices import place
from interestkit.examples import catalogue_arrays, log_arrays
from interestkit.features import Features
from interestkit.histories import Histories
from interestkit.limits import check_one_of, check_up_to
from interestkit.mixing import mix_repeats, only_new
from interestkit.model import (
    HIDDEN,
    PARTS,
    Catalogue,
    InterestModel,
    Log,
    ModelConfig,
    Moment,
    Prediction,
    abstract_params,
    graphdef,
    nearest,
)
from interestkit.packing import by_name
from interestkit.ranking import top_k
from interestkit.schema import USER
from interestkit.serving import BLOCK, SMALLEST_LOG
from interestkit.storage import Stored, load_folder, save_folder

_CHUNK = 32  # blocks that one call of a program goes through, at most


class Chunk(NamedTuple):
    """Some users in blocks, with their part of the log."""

    log: Log
    user: Int[jax.Array, " events"]  # number of the user in the chunk
    moment: Moment  # each array (blocks, users)
    given: tuple  # more arrays (blocks, users, ...)
    num_blocks: int  # that hold users; the others are padding


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
        ValueError: If `mode` is another one, `linear` not items x items, the model not as large.
    """

    features: Features
    model: InterestModel
    mode: str = "hybrid"
    linear: Float[np.ndarray, "items items"] | None = None

    def __post_init__(self) -> None:
        check_one_of(PARTS, mode=self.mode)
        self.model.config.check_sizes(self.features.num_items, self.features.num_interests)
        square = (self.features.num_items,) * 2
        if self.linear is not None and self.linear.shape != square:
            raise ValueError(f"linear must have shape {square}, got {self.linear.shape}")

    def __repr__(self) -> str:
        return f"Predictor({self.mode}, {self.features!r})"

    def _repr_html_(self) -> str:
        return reprs.of_predictor(self, by_name(self._split[1]))

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
        run = partial(_rank, exclude_seen=exclude_seen, k=k)
        return self.by_chunk(run, histories)

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
        return self.by_chunk(partial(_score, exclude_seen=exclude_seen), histories, codes)

    def interests(self, histories: Histories) -> Float[np.ndarray, "users interests"]:
        """Probability of each interest in what each user does next; a row sums to 1."""
        return self.by_chunk(_interests, histories)

    def by_chunk(self, run: Callable, histories: Histories, *given: np.ndarray):
        """What a program says of all users; the next chunk is made while one is on the device."""
        arguments = (*self._program(histories), self.linear_part, jnp.array(PARTS[self.mode]))
        found, running = [], None
        for chunk, block_events in self._chunks(histories, *given):
            ahead = run(*arguments, chunk, block_events=block_events)
            found += [] if running is None else [jax.tree.map(np.asarray, running)]
            running = ahead
        found.append(jax.tree.map(np.asarray, running))

        def joined(*parts):
            rows = np.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])
            return rows[: len(histories)]

        return jax.tree.map(joined, *found)

    def save(self, folder: str | Path) -> Path:
        """The folder, to which model and features are written together."""
        packed = self.features.pack()
        weights = {f"weights.{name}": leaf for name, leaf in by_name(self._split[1]).items()}
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
        with read_back(folder):
            return cls._unpack(stored)

    @classmethod
    def _unpack(cls, stored: Stored) -> "Predictor":
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.meta["model"].items()
        }
        config = ModelConfig(**settings)
        features = Features.unpack(
            tables=stored.tables, arrays=stored.arrays, meta=stored.meta["features"]
        )
        if config.num_items != features.num_items or config.num_interests != features.num_interests:
            raise ValueError("model and features must be of one catalogue")
        widths = config.item_dim, config.content_dim, config.num_user_vectors, *config.hidden
        depths = (config.layer_dim, config.num_layers) if config.has_layers else ()
        there = sum(array.size for array in stored.arrays.values())
        if (most := max(*widths, *depths)) > there:  # nothing is made that cannot be
            raise ValueError(f"the model must have at most {there:,} of anything, got {most:,}")
        state = abstract_params(config)
        shapes = {f"weights.{name}": leaf.shape for name, leaf in by_name(state).items()}
        linear = {"linear": (features.num_items,) * 2} if "linear" in stored.arrays else {}
        check_arrays(stored.arrays, "f", **shapes, **linear)
        state = jax.tree.unflatten(
            jax.tree.structure(state), place([stored.arrays[name] for name in shapes])
        )
        return cls(
            features=features,
            model=nnx.merge(graphdef(config), state),
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
    def linear_part(self) -> Float[jax.Array, "items items"]:
        """The linear part on the device; 0 x 0 where there is none."""
        return place(np.zeros((0, 0), np.float32) if self.linear is None else self.linear)

    def _program(self, histories: Histories) -> tuple[nnx.GraphDef, nnx.State, Catalogue]:
        """Model and catalogue; of popularity only the newest snapshot where nobody needs others."""
        histories.check_coded_by(self.features)
        if len(histories) and histories.moment.min() >= self.features.snapshot_seconds[-1]:
            return self.newest
        return (*self._split, self._catalogue)

    @property
    def newest(self) -> tuple[nnx.GraphDef, nnx.State, Catalogue]:
        """The two halves of the model, and the catalogue with its last snapshot alone."""
        catalogue = self._catalogue
        popularity, seconds = catalogue.popularity[:, -1:], catalogue.snapshot_seconds[-1:]
        newest = catalogue._replace(popularity=popularity, snapshot_seconds=seconds)
        return (*self._split, newest)

    def _chunks(self, histories: Histories, *given: np.ndarray) -> Iterator[tuple[Chunk, int]]:
        """Users chunk by chunk, all of one shape, and how many events a block has room for."""
        most = min(_CHUNK, power_of_two(-(-len(histories) // BLOCK)))
        users = most * BLOCK
        chunk_events, block_events = (
            power_of_two(max(SMALLEST_LOG, _most_events(histories, size)))
            for size in (users, BLOCK)
        )
        for first in range(0, max(len(histories), 1), users):
            own = histories.rows(first, first + users)
            log = log_arrays(
                own, self.features.scales_days, can_repeat=self.model.config.can_repeat
            )
            moment = (own.offsets[:-1], own.offsets[1:], own.moment)
            rows = (*moment, *(array[first : first + users] for array in given))
            blocks = [in_blocks(array, most) for array in rows]
            chunk = Chunk(
                log=jax.tree.map(lambda array: pad(array, chunk_events), log),
                user=pad(own.user, chunk_events, users),
                moment=Moment(*blocks[:3]),
                given=tuple(blocks[3:]),
                num_blocks=-(-len(own) // BLOCK),
            )
            yield chunk, block_events


def _most_events(histories: Histories, users: int) -> int:
    """Events of the users of a block, at most, where a block has so many users."""
    edges = np.append(histories.offsets[:-1:users], histories.offsets[-1])
    return int(np.diff(edges).max(initial=0))


def by_block(say: Callable, chunk: Chunk):
    """What `say` says of each block, given its number, moments and the rows given for its users.

    One loop of the device; it ends with the last block that holds users.
    """
    inputs = (chunk.moment, *chunk.given)

    def block(number):
        return say(number, *jax.tree.map(lambda array: array[number], inputs))

    def step(number, found):
        return jax.tree.map(lambda all_, own: all_.at[number].set(own), found, block(number))

    blocks = chunk.moment.start.shape[0]
    shapes = jax.eval_shape(block, jnp.int32(0))
    empty = jax.tree.map(lambda own: jnp.zeros((blocks, *own.shape), own.dtype), shapes)
    return jax.lax.fori_loop(0, chunk.num_blocks, step, empty)


def scorer(model, catalogue, linear, parts, chunk, *, block_events, exclude_seen):
    """A function of a block: scores of all items, what makes them log-probabilities, and rows."""
    table = item_side(model, catalogue, parts)

    def scores(number, moment):
        said = model(chunk.log, catalogue, moment, parts=parts)
        new = nearest(user_side(said, catalogue, parts), table)
        at = moment.start[0] + jnp.arange(block_events)
        at = jnp.minimum(at, chunk.user.shape[0] - 1)
        row = jnp.minimum(chunk.user[at] - number * len(new), len(new))
        seen = (row, chunk.log.item[at])
        if linear.size:
            new += parts[0] * (jnp.zeros_like(new).at[seen].set(1.0, mode="drop") @ linear)
        return only_new(new, seen) if exclude_seen else mix_repeats(new, said)

    return scores


def item_side(model: InterestModel, catalogue: Catalogue, parts) -> Float[jax.Array, "items all"]:
    """All that `InterestModel.score_new` multiplies by something of the user, side by side."""
    known, trend = model.popularity_signals(catalogue.popularity)
    signals = jnp.concatenate([known, trend[..., None]], axis=-1)
    bias = jnp.where(catalogue.is_candidate, parts[0] * model.item_bias[...], HIDDEN)
    sides = (model.vectors(catalogue, parts), signals.reshape(len(bias), -1), bias[:, None])
    return jnp.concatenate(sides, axis=1)


def user_side(said: Prediction, catalogue: Catalogue, parts):
    """What `item_side` is multiplied by; (users, vectors, all) where a user has several."""
    at = jax.nn.one_hot(said.snapshot, catalogue.popularity.shape[1])
    weight = parts[0] * jnp.einsum("bn,bs->bns", at, said.popularity_weight)
    rest = jnp.concatenate([weight.reshape(len(at), -1), jnp.ones((len(at), 1))], axis=1)
    if said.user.ndim == 3:
        rest = jnp.broadcast_to(rest[:, None], (*said.user.shape[:2], rest.shape[1]))
    return jnp.concatenate([said.user, rest], axis=-1)


@partial(jax.jit, static_argnums=0, static_argnames=("block_events", "exclude_seen", "k"))
def _rank(graph, state, catalogue, linear, parts, chunk, *, k, **settings):
    scores_of = scorer(nnx.merge(graph, state), catalogue, linear, parts, chunk, **settings)

    def rank(number, moment):
        scores, total = scores_of(number, moment)
        best, codes = top_k(scores, k)
        return codes, best - total[:, None]

    return by_block(rank, chunk)


@partial(jax.jit, static_argnums=0, static_argnames=("block_events", "exclude_seen"))
def _score(graph, state, catalogue, linear, parts, chunk, **settings):
    scores_of = scorer(nnx.merge(graph, state), catalogue, linear, parts, chunk, **settings)

    def score(number, moment, codes):
        scores, total = scores_of(number, moment)
        return jnp.take_along_axis(scores, codes, axis=1) - total[:, None]

    return by_block(score, chunk)


@partial(jax.jit, static_argnums=0, static_argnames="block_events")
def _interests(graph, state, catalogue, linear, parts, chunk, *, block_events):
    del linear, block_events  # of scores
    model = nnx.merge(graph, state)

    def interests(_, moment):
        return jnp.exp(model(chunk.log, catalogue, moment, parts=parts).interests)

    return by_block(interests, chunk)


def check_k(k: int, features: Features) -> None:
    """Raise ValueError unless `k` is in 1..items."""
    check_up_to(features.num_items, "the catalogue", k=k)


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


def in_blocks(array: np.ndarray, number: int) -> np.ndarray:
    """Rows of users in so many blocks of `BLOCK`, with zeros behind them."""
    return pad(array, number * BLOCK).reshape(number, BLOCK, *array.shape[1:])
