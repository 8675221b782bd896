"""Weights in few arrays: the tables of items, those of layers, and all the others in one.

A step of the optimiser is then a few long loops instead of some for each layer, which is quicker,
and the program that holds it compiles in half the time.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interestkit.devices import ITEM_TABLES, LAYERS
from interestkit.layers import in_shapes
from interestkit.model import ModelConfig, abstract_params


class Packed(NamedTuple):
    """Weights of a model, or what an optimiser keeps of each."""

    tables: dict[str, Array]  # with a row per item or with weights of all layers, by name
    others: Float[Array, " weights"]  # one after the other, in the order of their names


def pack(params: nnx.State) -> Packed:
    """The weights in few arrays."""
    leaves = leaves_of(params)
    others = [leaf.ravel() for name, leaf in leaves.items() if not _is_table(name)]
    tables = {name: leaf for name, leaf in leaves.items() if _is_table(name)}
    return Packed(tables, jnp.concatenate(others))


def unpack(shape: ModelConfig, packed: Packed) -> nnx.State:
    """The weights as the model has them, of NumPy arrays in NumPy.

    Example:
        >>> shape = ModelConfig(
        ...     num_items=3, num_interests=2, content_dim=0, scales_days=(1.0,), item_dim=4
        ... )
        >>> params = jax.tree.map(lambda a: jnp.ones(a.shape), abstract_params(shape))
        >>> packed = pack(params)
        >>> packed.tables["item_vectors"].shape, packed.others.ndim
        ((3, 4), 1)
        >>> jax.tree.all(jax.tree.map(jnp.array_equal, unpack(shape, packed), params))
        True
    """
    leaves = leaves_of(abstract_params(shape))
    shapes = {name: leaf.shape for name, leaf in leaves.items() if not _is_table(name)}
    others = zip(shapes, in_shapes(packed.others, shapes.values()), strict=True)
    found = packed.tables | dict(others)
    return from_leaves(shape, found)


def from_leaves(shape: ModelConfig, weights: Mapping[str, Array]) -> nnx.State:
    """The weights as the model has them, of arrays by name."""
    params = abstract_params(shape)
    leaves = [weights[name] for name in leaves_of(params)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _is_table(name: str) -> bool:
    return name in ITEM_TABLES or name.rpartition(".")[2] in LAYERS


def leaves_of(params: nnx.State) -> dict[str, Array]:
    """Arrays by name, such as "item_vectors" and "tower.layers.0.kernel"."""
    return {name.removesuffix(".value"): leaf for name, leaf in by_name(params).items()}


def by_name(tree) -> dict[str, Array]:
    """Leaves of a tree by the path to each, its parts joined by points."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}
