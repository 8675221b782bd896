"""Layers of the model, their first weights from one draw, and dropout from given random bits.

A program that draws random numbers in many places takes long to compile: each place is some
twenty kernels of the generator. So all weights come from one draw, and so do all the bits that a
step of training drops units by.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt32

Bits = UInt32[Array, "batch units"]


def linear(num_inputs: int, num_outputs: int, **settings: object) -> nnx.Linear:
    """A linear layer whose weights are 0 until `draw_weights`; settings are those of Flax."""
    zeros = nnx.initializers.zeros
    return nnx.Linear(num_inputs, num_outputs, kernel_init=zeros, rngs=nnx.Rngs(0), **settings)


def draw_weights(layers: Iterable[nnx.Linear], key) -> None:
    """Give layers normal weights of variance 1 / inputs (LeCun), all from one draw.

    Example:
        >>> layer = linear(400, 100)
        >>> draw_weights([layer], jax.random.key(0))
        >>> print(f"{float(layer.kernel.std()):.2f}")
        0.05
    """
    layers = list(layers)
    shapes = [layer.kernel.shape for layer in layers]
    drawn = in_shapes(jax.random.normal(key, (sum(map(math.prod, shapes)),)), shapes)
    for layer, part in zip(layers, drawn, strict=True):
        layer.kernel[...] = part * len(part) ** -0.5


def in_shapes(flat: Array, shapes: Iterable[Sequence[int]]) -> list[Array]:
    """Parts of a flat array, one after the other, in these shapes; of a NumPy array in NumPy."""
    shapes = list(shapes)
    split = np.split if isinstance(flat, np.ndarray) else jnp.split
    parts = split(flat, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def drop(x: Float[Array, "batch units"], share: float, bits: Bits | None):
    """x with a share of its units at 0 and the rest scaled up; x as it is without bits.

    Example:
        >>> print(drop(jnp.ones((1, 3)), 0.5, jnp.array([[0, 2**31, 2**32 - 1]], jnp.uint32)))
        [[0. 2. 2.]]
    """
    if bits is None or not share:
        return x
    return jnp.where(is_kept(share, bits), x / (1 - share), 0.0)


def is_kept(share: float, bits: Bits):
    """False for a share of all bits."""
    return bits >= jnp.uint32(round(share * 2**32))


def grown(seeds: UInt32[Array, " batch"], shape: Sequence[int]) -> UInt32[Array, "batch ..."]:
    """Many random bits from few: each is a hash of its row's seed and of its place in the row.

    Example:
        >>> bits = grown(jnp.array([1, 2], jnp.uint32), (1000, 100))
        >>> print(bits.shape, f"{float(is_kept(0.25, bits).mean()):.2f}")
        (2, 1000, 100) 0.75

    Source:
        The finaliser of MurmurHash3 (Appleby 2011) on a Weyl sequence.
    """
    place = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    x = seeds[:, None] ^ place[None, :]
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return (x ^ (x >> 16)).reshape(len(seeds), *shape)


def fused(
    content: Float[Array, "*places content"],
    widths: Sequence[int],
    counts: Float[Array, " blocks"],
) -> Float[Array, "*places content"]:
    """Blocks side by side, of which those that are there stand for all (late fusion).

    What is projected from them is then the mean of what is projected from each block that is
    there, times the number of blocks.

    Args:
        content: Rows of blocks; a block of zeros is missing.
        widths: Columns of each block.
        counts: 0 for blocks that are missing for all, else 1; empty: all count.

    Example:
        >>> rows = jnp.array([[1.0, 2.0, 3.0], [1.0, 0.0, 0.0]])
        >>> print(fused(rows, (1, 2), jnp.array([])))
        [[1. 2. 3.]
         [2. 0. 0.]]
    """
    blocks = jnp.split(content, np.cumsum(widths)[:-1], axis=-1)
    is_there = jnp.stack([(block != 0).any(axis=-1) for block in blocks], axis=-1)
    counts = counts if counts.size else jnp.ones(len(blocks))
    weight = is_there * jnp.broadcast_to(counts, is_there.shape)
    weight *= len(blocks) / jnp.maximum(weight.sum(axis=-1, keepdims=True), 1)
    return content * jnp.repeat(weight, np.array(widths), axis=-1, total_repeat_length=sum(widths))


class MLP(nnx.Module):
    """Fully connected layers with ReLU between them, and dropout after each ReLU.

    Args:
        num_inputs: Width of the input.
        hidden: Widths of the hidden layers.
        num_outputs: Width of a last linear layer; None ends with the last hidden layer.
        dropout: Share of hidden units dropped in training.
    """

    def __init__(self, num_inputs, hidden, num_outputs=None, *, dropout=0.0):
        widths = (num_inputs, *hidden)
        self.layers = nnx.List(linear(a, b) for a, b in pairwise(widths))
        self.last = linear(widths[-1], num_outputs) if num_outputs else None
        self.dropout = dropout

    @property
    def all_layers(self) -> list[nnx.Linear]:
        """Its layers, the last one included."""
        return [*self.layers, *([self.last] if self.last else [])]

    def __call__(self, x: Float[Array, "batch inputs"], bits: Sequence[Bits] | None = None):
        """Outputs for inputs; dropout only where random bits are given, some for each layer."""
        for number, layer in enumerate(self.layers):
            x = drop(nnx.relu(layer(x)), self.dropout, bits and bits[number])
        return x if self.last is None else self.last(x)

    def units(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch units"]:
        """What goes into the ReLU of each hidden unit: where it is 0, outputs have a kink."""
        found = []
        for layer in self.layers:
            found.append(layer(x))
            x = nnx.relu(found[-1])
        return jnp.concatenate(found, axis=1)
