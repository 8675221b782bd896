"""Weights that grow with the catalogue: rows for new items, for new interests, and for room.

Room keeps the shapes of most updates the same, so that they share one compiled program.
"""

from dataclasses import replace

import jax
import numpy as np
from flax import nnx

from interestkit.counting import pad, power_of_two
from interestkit.devices import ITEM_TABLES
from interestkit.examples import item_content
from interestkit.features import Features
from interestkit.model import ModelConfig
from interestkit.packing import Packed, from_leaves, leaves_of, pack, unpack
from interestkit.prediction import Predictor
from interestkit.training import interest_prior_of

Weights = dict[str, np.ndarray]  # by name, such as "tower.layers.0.kernel"
_NEVER = -1e4  # a logit of probability 0
_RIDGE = 10.0  # items that the mean counts for, where weights of new items are guessed


def resized(params: Packed, rows: int) -> Packed:
    """The weights with so many rows in the tables of items; rows of zeros stand behind."""
    sized = {n: pad(t[:rows], rows) if n in ITEM_TABLES else t for n, t in params.tables.items()}
    return Packed({n: np.asarray(table) for n, table in sized.items()}, np.asarray(params.others))


def grown_weights(predictor: Predictor, features: Features) -> Weights:
    """The weights by name, with rows for what is new."""
    shape, old = predictor.model.config, predictor.features
    weights = jax.tree.map(np.asarray, leaves_of(nnx.split(predictor.model)[1]))
    found = weights | _of_items(weights, old, features)
    more = features.num_interests - old.num_interests
    found |= _with_interests(weights, shape, old, more, lambda _, known: known.mean(axis=0))
    share, prior = interest_prior_of(features), weights["interest_prior"]
    off = np.median(prior - share[: len(prior)])
    new = share[len(prior) :] + off
    return found | {"interest_prior": np.append(prior, new).astype(np.float32)}


def _of_items(weights: dict, old: Features, features: Features) -> dict[str, np.ndarray]:
    """Tables of items, with what content and frequency say of the new ones (ridge regression)."""
    events = np.log1p(features.items["events"].to_numpy()).astype(np.float32)
    given = np.column_stack([item_content(features), events, np.ones_like(events)])
    known = given[: old.num_items]
    square = known.T @ known + _RIDGE * np.eye(known.shape[1])
    tables = np.concatenate([weights[n].reshape(len(known), -1) for n in ITEM_TABLES], axis=1)
    said = given[old.num_items :] @ np.linalg.solve(square, known.T @ tables)
    ends = np.cumsum([weights[name][0].size for name in ITEM_TABLES])[:-1]
    rows = zip(ITEM_TABLES, np.split(said.astype(np.float32), ends, axis=1), strict=True)
    return {
        name: np.concatenate([weights[name], new.reshape(-1, *weights[name].shape[1:])])
        for name, new in rows
    }


def _has_labels(features: Features) -> bool:
    """Whether content tells labels; those that come from behaviour stay out of it."""
    return features.interest_source != "behaviour"


def end_of_labels(features: Features) -> int:
    """Column of the content behind its labels, where modalities begin."""
    return features.content.shape[1] + _has_labels(features) * features.num_interests


def _interest_blocks(shape: ModelConfig, features: Features) -> dict[str, tuple[int, list[int]]]:
    """For each weight with a row or column per interest: its axis, and where blocks of them end."""
    number = shape.num_interests
    first, scales = shape.item_dim * (shape.num_sums + 1), len(shape.scales_days)
    found = {
        "interest_correction.kernel": (1, [number]),
        "interest_correction.bias": (0, [number]),
        "interest_prior": (0, [number]),
        "tower.layers.0.kernel": (0, [first + number * n for n in range(1, scales + 1)]),
    }
    labels = {"content.kernel": (0, [features.content.shape[1] + number])}
    return found | (labels if _has_labels(features) else {})


def _with_interests(weights: Weights, shape: ModelConfig, features, more: int, new) -> Weights:
    """What has a row per interest, with more of them; `new` makes one of its name and the known."""
    found = {}
    for name, (axis, ends) in _interest_blocks(shape, features).items():
        rows = np.moveaxis(weights[name], axis, 0)
        for end in reversed(ends):
            row = new(name, rows[end - shape.num_interests : end])
            rows = np.insert(rows, [end] * more, row, axis=0)
        found[name] = np.ascontiguousarray(np.moveaxis(rows, 0, axis))
    return found


def _never(name: str, known: np.ndarray) -> np.ndarray:
    """The row of an interest that is room alone: nobody has it, and nobody ever will."""
    is_logit = name in ("interest_correction.bias", "interest_prior")
    return np.full(known.shape[1:], _NEVER if is_logit else 0.0, known.dtype)


def widened(weights: Weights, shape: ModelConfig, wide: ModelConfig, features: Features) -> Packed:
    """The weights of a model of this shape in one that has room for more items and interests."""
    more = wide.num_interests - shape.num_interests
    weights = weights | _with_interests(weights, shape, features, more, _never)
    packed = pack(from_leaves(replace(wide, num_items=shape.num_items), weights))
    return resized(packed, wide.num_items)


def narrowed(packed: Packed, shape: ModelConfig, wide: ModelConfig, features: Features) -> Weights:
    """The weights without the room that `widened` has given them."""
    weights = leaves_of(unpack(wide, packed))
    weights |= {name: weights[name][: shape.num_items] for name in ITEM_TABLES}
    fewer = wide.num_interests - shape.num_interests
    for name, (axis, ends) in _interest_blocks(wide, features).items():
        gone = np.concatenate([np.arange(end - fewer, end) for end in ends])
        weights[name] = np.delete(weights[name], gone, axis=axis)
    return weights


def with_room(shape: ModelConfig, features: Features) -> ModelConfig:
    """The shape with room for more items and interests."""
    interests = _room(shape.num_interests, 8)
    more = interests - shape.num_interests if _has_labels(features) else 0
    first, *rest = shape.content_blocks or (0,)
    blocks = (first + more, *rest) if shape.content_blocks else ()
    found = replace(shape, content_dim=shape.content_dim + more, content_blocks=blocks)
    return replace(found, num_items=_room(shape.num_items, 2_048), num_interests=interests)


def _room(number: int, least: int) -> int:
    """A little more than so many rows, the same for as many as come in some updates."""
    step = max(power_of_two(number) // 4, least)
    return -(-number // step) * step
