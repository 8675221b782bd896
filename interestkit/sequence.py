"""A causal Transformer that reads the newest events of a history in their order.

Its layers are those that eSASRec found best (Tikhonovich et al. 2025, arXiv:2508.06450): norms come
first, what a layer adds passes a learned gate (LiGR: Borisyuk et al. 2025, arXiv:2502.03417), and
in training every event of the window predicts the next one. Where an event stands is told by
rotation (Su et al. 2021, arXiv:2104.09864). When it was is told by attention that fades as a power
of the days between, with a learned exponent for each head.

The weights of all layers are stacked and one scan goes through them: what is compiled does not
grow with their number.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from interestkit.devices import DATA, spread
from interestkit.layers import Bits, drop, grown, linear
from interestkit.shapes import ModelConfig

_ROTATION = 10_000.0  # ratio of the slowest rotation to the fastest
_FADING = 0.1  # exponents of the heads to begin with
_FEED = 2  # width of what is between the two products of a layer's second half, of its own


class Window(NamedTuple):
    """The newest events of each history, the newest first."""

    vectors: Float[Array, "batch events dim"]  # of their items
    is_real: Bool[Array, "batch events"]  # False on padding
    is_seen: Bool[Array, "batch events"]  # False too where training hides an event
    weight: Float[Array, "batch events"]
    days: Float[Array, "batch events"]  # from each event to the moment of prediction
    days_of_next: Float[Array, "batch events"]  # from the event after it; 0 for the newest

    @property
    def age(self) -> Float[Array, "batch events events"]:
        """Days from each event (column) to when the one after each event (row) happens."""
        return jnp.maximum(self.days[:, None, :] - self.days_of_next[:, :, None], 0)

    @property
    def may_see(self) -> Bool[Array, "batch events events"]:
        """Which events (column) each one (row) may know of: itself and those before it."""
        place = jnp.arange(self.days.shape[1])
        return self.is_seen[:, None, :] & (place[None, :] >= place[:, None])[None]


class SequenceEncoder(nnx.Module):
    """What the events up to each one of a window say of the next one.

    Weights are 0 until `draw_layers`.

    Args:
        config: The shape.
    """

    def __init__(self, config: ModelConfig):
        self.config = config
        width, layers = config.layer_dim, config.num_layers
        self.begin = linear(config.item_dim, width, use_bias=False)
        self.gap = nnx.Param(jnp.zeros(width))
        for name, shape in layer_shapes(config).items():
            setattr(self, name, nnx.Param(jnp.zeros(shape)))
        self.norms = nnx.Param(jnp.ones((layers, 2, width)))
        self.fading = nnx.Param(jnp.full((layers, config.num_heads), math.log(_FADING)))
        self.end_norm = nnx.Param(jnp.ones(width))
        self.end = linear(width, config.item_dim, use_bias=False)

    def __call__(
        self, window: Window, bits: Bits | None = None
    ) -> Float[Array, "batch events width"]:
        """A state for each event, of what is known when the next one happens; 0 on padding.

        Args:
            window: The events.
            bits: Random bits (batch, `ModelConfig.num_layer_bits`) for dropout; None drops none.
        """
        config = self.config
        x = normed(self.begin(window.vectors), 1.0) * window.is_seen[..., None]
        gap = jnp.log1p(jnp.maximum(window.days - window.days_of_next, 0))
        x = self._dropped(x + gap[..., None] * self.gap[None, None, :], bits, 0)
        may_see, ages = window.may_see[:, None], jnp.log1p(window.age)[:, None]
        names = (*layer_shapes(config), "norms", "fading")
        weights = {name: getattr(self, name)[...] for name in names}

        def layer(x, given):
            weights, number = given
            bias = -jnp.exp(weights["fading"])[None, :, None, None] * ages
            added = self._attend(weights, normed(x, weights["norms"][None, :1]), bias, may_see)
            x = spread(x + self._dropped(added, bits, 2 * number + 1), DATA)
            added = self._feed(weights, normed(x, weights["norms"][None, 1:]))
            return spread(x + self._dropped(added, bits, 2 * number + 2), DATA), None

        body = jax.checkpoint(layer) if config.remat else layer
        x, _ = jax.lax.scan(body, x, (weights, jnp.arange(config.num_layers)))
        return normed(x, self.end_norm[None, None, :]) * window.is_real[..., None]

    def say(self, states: Float[Array, "*places width"]) -> Float[Array, "*places dim"]:
        """What states add to the vectors of users."""
        return self.end(states)

    def _attend(self, weights, x, bias, may_see):
        """Attention that each head lets fade with time, through its gate."""
        config = self.config
        x, product = x.astype(config.dtype), self._product
        heads = (config.num_heads, 3, config.layer_dim // config.num_heads)
        query, key, value = jnp.moveaxis(
            product(x, weights["attend_in"]).reshape(*x.shape[:2], *heads), 3, 0
        )
        angles = _angles(x.shape[1], heads[2])
        query, key = (_rotated(part, angles) for part in (query, key))
        mixed = jax.nn.dot_product_attention(
            query, key, value, bias=bias.astype(config.dtype), mask=may_see
        )
        sees_any = may_see.any(axis=3)[:, 0, :, None, None]
        mixed = jnp.where(sees_any, mixed, 0)  # else it would be a mean of all, the newer ones too
        found = product(mixed.reshape(x.shape), weights["attend_out"])
        return _gated(found, product(x, weights["attend_gate"]))

    def _feed(self, weights, x):
        """The second half of a layer, each event for itself (SwiGLU), through its gate."""
        x, product = x.astype(self.config.dtype), self._product
        both = product(x, weights["feed_in"]).reshape(*x.shape[:2], -1, 2)
        inner = jax.nn.silu(both[..., 0]) * both[..., 1]
        found = product(inner, weights["feed_out"])
        return _gated(found, product(x, weights["feed_gate"]))

    def _product(self, x, weights):
        return x @ weights.astype(x.dtype)

    def _dropped(self, x, bits, number):
        if bits is None:
            return x
        return drop(x, self.config.layer_dropout, grown(bits[:, number], x.shape[1:]))


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, int, int]]:
    """Shapes of the stacked weights of all layers, by name; all but a few of the numbers.

    Example:
        >>> config = ModelConfig(num_items=3, num_interests=2, content_dim=0, scales_days=(1.0,))
        >>> sum(math.prod(shape) for shape in layer_shapes(config).values()) == 2 * 12 * 64**2
        True
    """
    layers, width, inner = config.num_layers, config.layer_dim, _FEED * config.layer_dim
    shapes = {
        "attend_in": (width, 3 * width),  # of each head: query, key, value
        "attend_out": (width, width),
        "attend_gate": (width, width),
        "feed_in": (width, 2 * inner),
        "feed_out": (inner, width),
        "feed_gate": (width, width),
    }
    return {name: (layers, *shape) for name, shape in shapes.items()}


def draw_layers(encoder: SequenceEncoder, key) -> None:
    """Give the layers normal weights; what they add to the user vector begins at 0.

    The variance is 1 / inputs, and of what goes back into the sum over layers less by their number.
    """
    config, keys = encoder.config, jax.random.split(key, len(layer_shapes(encoder.config)) + 1)
    for own, (name, shape) in zip(keys[1:], layer_shapes(config).items(), strict=True):
        added = 2 * config.num_layers if name.endswith("_out") else 1
        scale = (shape[1] * added) ** -0.5
        getattr(encoder, name)[...] = jax.random.normal(own, shape) * scale
    shape = encoder.begin.kernel.shape
    encoder.begin.kernel[...] = jax.random.normal(keys[0], shape) * shape[0] ** -0.5


def tastes(
    window: Window,
    decay_days: Float[Array, " scales"],
    mix: Float[Array, " scales_and_last"],
    *,
    power: float,
    least: float,
) -> Float[Array, "batch events dim"]:
    """The weighted sum of pooled vectors, as it is when the event after each one happens.

    Args:
        window: The events.
        decay_days: Time scales.
        mix: Weight of the sum of each scale, and of the last event's vector.
        power: `ModelConfig.pool_power`.
        least: In place of a total weight of 0.
    """
    known = window.may_see * window.weight[:, None, :]
    share = jnp.zeros(known.shape)
    for days, part in zip(decay_days, mix[:-1], strict=True):
        weight = jnp.exp(-window.age / days) * known
        share += part * weight / (weight.sum(axis=2, keepdims=True) + least) ** power
    share += mix[-1] * jnp.eye(known.shape[1])[None] * window.is_real[:, None, :]
    return jnp.einsum("bqk,bkd->bqd", share, window.vectors)


def normed(x: Float[Array, "*places width"], scale) -> Float[Array, "*places width"]:
    """x with a mean square of one, scaled (RMSNorm: Zhang and Sennrich 2019, arXiv:1910.07467)."""
    size = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(size + 1e-6) * scale


def _gated(added, gate):
    return added.astype(jnp.float32) * jax.nn.sigmoid(gate.astype(jnp.float32))


def _angles(events: int, width: int) -> Float[np.ndarray, "events half"]:
    speed = _ROTATION ** -(np.arange(width // 2) / (width // 2))
    return np.arange(events)[:, None] * speed[None, :]


def _rotated(x: Float[Array, "batch events heads width"], angles):
    """Pairs of numbers turned by angles, so that products depend on distances alone."""
    cos, sin = (jnp.asarray(f(angles), x.dtype)[None, :, None, :] for f in (np.cos, np.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
