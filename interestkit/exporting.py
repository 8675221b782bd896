"""A model for use elsewhere: vectors as Parquet and safetensors, the scorer as programs of JAX."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from flax import nnx
from jax import export as jax_export

from interestkit.histories import Histories
from interestkit.limits import check_one_of
from interestkit.model import PARTS, Catalogue, Log, Moment
from interestkit.packing import by_name
from interestkit.prediction import BLOCK, Chunk, Predictor, by_block, item_side, scorer, user_side
from interestkit.schema import ITEM, USER
from interestkit.serving import FORMAT, KIND, PROGRAMS
from interestkit.storage import save_folder

PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN = (*PLATFORMS, "rocm")  # to jax.export, which takes any name


def export(
    predictor: Predictor,
    folder: str | Path,
    *,
    histories: Histories | None = None,
    platforms: tuple[str, ...] = PLATFORMS,
) -> Path:
    """The folder, with what other systems need of the model; `serving.load_scorer` reads it.

    - `items.parquet`: item, title, interests, events, is_candidate, vector. The product of an
      item's and a user's vector is the score of the item as the next new one, before the
      logarithm of the sum of all is taken away, and without repeats and the linear part: nearest
      neighbours by inner product are the recommendations. A vector holds the model's item vector,
      popularity on each time scale with its trend, and the bias (-1e9 for what is never shown).
    - `users.parquet`: user, vector; of a model with several vectors per user, one row for each.
    - `arrays.safetensors`: `item_vectors` and `user_vectors` (the same numbers), weights,
      catalogue, and the programs `next`, `new` and `interests` (StableHLO for any number of blocks
      of 128 users and of events), as `jax.export` serialises them.
    - `manifest.json`: settings, and the sha256 of each file.

    Popularity is that of the last snapshot: the export is for moments from then on.

    Args:
        predictor: The model.
        folder: Where to write; an export that is there is replaced.
        histories: Whose user vectors to write, made by the features of the model, with moments
            from the last snapshot on; None writes none.
        platforms: What the programs run on, among "cpu", "cuda", "rocm" and "tpu".

    Raises:
        ValueError: If the histories are coded by other features or predicted before the snapshot,
            or there is no such platform.
        ModuleNotFoundError: If the package flatbuffers is missing.
        OSError: As `storage.save_folder`.

    Source:
        The programs are portable StableHLO: jax.export guarantees that they can be read for six
        months after the release that wrote them.
    """
    _check_flatbuffers()
    for platform in platforms:
        check_one_of(_KNOWN, platforms=platform)
    features, given = predictor.features, _given(predictor)
    since = int(features.snapshot_seconds[-1])
    if histories is not None and len(histories) and histories.moment.min() < since:
        came = int(histories.moment.min())
        raise ValueError(f"histories must have moments from {since} s on, got {came} s")
    programs = {f"program.{name}": _program(predictor, given, name, platforms) for name in PROGRAMS}
    model, catalogue, _, parts = _arguments(predictor, given)
    items = np.asarray(item_side(model, catalogue, parts))
    tables = {"items": features.items.with_columns(vector=pl.Series(items))}
    arrays = {"item_vectors": items, **given, **programs}
    if histories is not None:
        users = predictor.by_chunk(_user_vectors, histories)
        rows = np.repeat(histories.users, 1 if users.ndim == 2 else users.shape[1])
        users = users.reshape(len(rows), items.shape[1])
        arrays["user_vectors"] = users
        tables["users"] = pl.DataFrame({USER: pl.Series(rows, dtype=pl.String), "vector": users})
    for name, values in (("items", features.items[ITEM]), ("interests", features.interests)):
        arrays[f"{name}.json"] = np.frombuffer(json.dumps(list(values)).encode(), np.uint8)
    meta = _meta(predictor, since)
    return save_folder(folder, kind=KIND, tables=tables, arrays=arrays, meta=meta)


def _check_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401 jax.export writes with it
    except ModuleNotFoundError:
        what = "export needs the package flatbuffers: pip install 'interestkit[export]'"
        raise ModuleNotFoundError(what) from None


def _meta(predictor: Predictor, since: int) -> dict[str, object]:
    features = predictor.features
    return {
        "format": FORMAT,
        "mode": predictor.mode,
        "since": since,
        "origin": math.floor(features.origin.timestamp()),
        "fitted_until": features.fitted_until.isoformat(),
        "scales_days": list(features.scales_days),
        "kind_weights": dict(features.kind_weights),
        "vector": {
            "model": predictor.model.config.item_dim,
            "popularity": len(features.scales_days),
            "trend": 1,
            "bias": 1,
        },
        "jax": jax.__version__,
    }


def _given(predictor: Predictor) -> dict[str, np.ndarray]:
    """Weights and catalogue by name, popularity of the last snapshot alone."""
    _, state, catalogue = predictor.newest
    weights = {f"weights.{name}": leaf for name, leaf in by_name(state).items()}
    arrays = {f"catalogue.{name}": array for name, array in catalogue._asdict().items()}
    arrays["catalogue.linear"] = predictor.linear_part
    return jax.tree.map(np.asarray, weights | arrays)


def _arguments(predictor: Predictor, given: Mapping):
    """Model, catalogue, linear part and parts, of arrays by name."""
    graph, state, _ = predictor.newest
    names = [f"weights.{name}" for name in by_name(state)]
    state = jax.tree.unflatten(jax.tree.structure(state), [given[name] for name in names])
    catalogue = Catalogue(*(given[f"catalogue.{name}"] for name in Catalogue._fields))
    parts = jnp.array(PARTS[predictor.mode])
    return nnx.merge(graph, state), catalogue, given["catalogue.linear"], parts


def _program(predictor: Predictor, given: Mapping, name: str, platforms) -> np.ndarray:
    """One of the programs, as bytes: of weights and a block of users it makes rows of numbers."""

    def run(given, block):
        log = [block[field] for field in Log._fields]
        moment = Moment(block["start"], block["end"], block["moment"])
        blocks = moment.start.shape[0]
        chunk = Chunk(Log(*log), block["user"], moment, (), jnp.int32(blocks))
        return by_block(_says(name, *_arguments(predictor, given), chunk), chunk)

    events, blocks = jax_export.symbolic_shape("events, blocks")
    scales = len(predictor.features.scales_days)
    shapes = {"item": jnp.int32, "seconds": jnp.int32, "weight": jnp.float32}
    shapes |= {"following": jnp.int32, "user": jnp.int32}
    block = {field: jax.ShapeDtypeStruct((events,), dtype) for field, dtype in shapes.items()}
    block["counts"] = jax.ShapeDtypeStruct((events, scales), jnp.float32)
    for field in ("start", "end", "moment"):
        block[field] = jax.ShapeDtypeStruct((blocks, BLOCK), jnp.int32)
    like = {field: jax.ShapeDtypeStruct(a.shape, a.dtype) for field, a in given.items()}
    made = jax_export.export(jax.jit(run), platforms=platforms)(like, block)
    return np.frombuffer(made.serialize(), np.uint8)


def _says(name: str, model, catalogue, linear, parts, chunk: Chunk) -> Callable:
    """What a program says of a block."""
    if name == "interests":
        return lambda _, moment: jnp.exp(model(chunk.log, catalogue, moment, parts=parts).interests)
    settings = {"block_events": chunk.user.shape[0], "exclude_seen": name == "new"}
    scores_of = scorer(model, catalogue, linear, parts, chunk, **settings)

    def score(number, moment):
        scores, total = scores_of(number, moment)
        return scores - total[:, None]

    return score


@partial(jax.jit, static_argnums=0, static_argnames="block_events")
def _user_vectors(graph, state, catalogue, linear, parts, chunk, *, block_events):
    del linear, block_events  # of scores
    model = nnx.merge(graph, state)

    def vectors(_, moment):
        return user_side(model(chunk.log, catalogue, moment, parts=parts), catalogue, parts)

    return by_block(vectors, chunk)
