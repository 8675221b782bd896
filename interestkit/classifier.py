"""The plain MLP classifier: a table of features in, sigmoid outputs, one program per fit."""

import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from interestkit.model import MLP


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A trained MLP.

    Args:
        model: The network; its outputs are log-odds.
        losses: Mean loss of each epoch, in nats per example and label.
        seconds: Wall time of the fit, compilation included.
    """

    model: MLP
    losses: Float[np.ndarray, " epochs"]
    seconds: float

    def probabilities(self, features: Float[Array, "users features"]) -> Array:
        """Probability of each label for each row of features, shape (users, labels)."""
        return jax.nn.sigmoid(self.model(jnp.asarray(features, jnp.float32)))


def fit_classifier(
    features: Float[Array, "users features"],
    labels: Float[Array, "users labels"],
    *,
    hidden: tuple[int, ...] = (100, 100),
    epochs: int = 200,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Classifier:
    """An MLP with sigmoid outputs, trained with Adam on binary cross-entropy.

    Initialisation and all epochs are one compiled program. Each epoch visits the rows once in a
    new order; the last batch is padded with rows of weight 0, so that every batch has one shape.

    Args:
        features: One row per user.
        labels: 0 or 1 for each label.
        hidden: Widths of the hidden layers, with ReLU.
        epochs: Passes over the rows.
        batch_size: Rows in one step.
        learning_rate: Adam's constant learning rate.
        seed: Seed of weights and order: same seed, same result bit for bit.

    Raises:
        ValueError: If the rows of features and labels differ in number or are none.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> fitted = fit_classifier(x, x > 1.5, hidden=(8,), epochs=100, learning_rate=0.05)
        >>> (fitted.probabilities(x) > 0.5).ravel().tolist()
        [False, False, True, True]
    """
    began = time.perf_counter()
    x, y = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.float32)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(
            "features and labels must be tables with the same number of rows, at least one, "
            f"got shapes {x.shape} and {y.shape}"
        )
    if min(epochs, batch_size) < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, got {epochs}, {batch_size}")
    shape = (x.shape[1], tuple(hidden), y.shape[1])
    params, losses = _fit(shape, epochs, batch_size, jax.random.key(seed), learning_rate, x, y)
    model = nnx.merge(_graphdef(shape), params)
    losses = np.asarray(losses)  # waits for the device
    return Classifier(model=model, losses=losses, seconds=time.perf_counter() - began)


def _new_model(shape, rngs: nnx.Rngs) -> MLP:
    num_inputs, hidden, num_outputs = shape
    return MLP(num_inputs, hidden, num_outputs, rngs=rngs)


def _graphdef(shape) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: _new_model(shape, nnx.Rngs(0))))[0]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fit(shape, epochs: int, batch_size: int, key, learning_rate, x, y):
    init_key, key = jax.random.split(key)
    graph, params = nnx.split(_new_model(shape, nnx.Rngs(init_key)))
    optimizer = optax.adam(learning_rate)
    steps = -(-len(x) // batch_size)

    def loss_of(params, rows):
        is_real = rows < len(x)
        rows = jnp.minimum(rows, len(x) - 1)
        losses = optax.sigmoid_binary_cross_entropy(nnx.merge(graph, params)(x[rows]), y[rows])
        return losses.mean(axis=1).mean(where=is_real)

    def step(state, rows):
        params, optimizer_state = state
        loss, gradients = jax.value_and_grad(loss_of)(params, rows)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), loss

    def epoch(state, key):
        order = jax.random.permutation(key, len(x))
        padded = jnp.pad(order, (0, steps * batch_size - len(x)), constant_values=len(x))
        state, losses = jax.lax.scan(step, state, padded.reshape(steps, batch_size))
        return state, losses.mean()

    state = (params, optimizer.init(params))
    (params, _), losses = jax.lax.scan(epoch, state, jax.random.split(key, epochs))
    return params, losses
