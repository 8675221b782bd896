"""The plain MLP classifier: a table of features in, sigmoid outputs, one program per fit."""

import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from interestkit.devices import use_compilation_cache
from interestkit.layers import in_shapes
from interestkit.limits import check_at_least, check_counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A trained MLP.

    Args:
        layers: Weights (inputs, outputs) and biases (outputs) of each layer; ReLU stands between
            them, and the outputs of the last one are log-odds.
        losses: Mean loss of each epoch, in nats per example and label.
        seconds: Wall time of the fit, compilation included.
    """

    layers: list[tuple[Array, Array]]
    losses: Float[np.ndarray, " epochs"]
    seconds: float

    def probabilities(self, features: Float[Array, "users features"]) -> Array:
        """Probability of each label for each row of features, shape (users, labels)."""
        return _probabilities(self.layers, np.asarray(features, np.float32))


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

    All epochs are one compiled program, kept on disk for later processes. Each epoch visits the
    rows once in a new order; the last batch is padded with rows of weight 0, so that every batch
    has one shape. Orders are drawn beforehand: 4 bytes for each row and epoch.

    Args:
        features: One row per user.
        labels: 0 or 1 for each label.
        hidden: Widths of the hidden layers, with ReLU.
        epochs: Passes over the rows.
        batch_size: Rows in one step.
        learning_rate: Adam's constant learning rate.
        seed: Seed of weights and order: same seed, same result bit for bit.

    Raises:
        ValueError: If the rows of features and labels differ in number or are none, a feature is
            not finite, a label is outside 0..1, or a setting is out of range.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> fitted = fit_classifier(x, x > 1.5, hidden=(8,), epochs=100, learning_rate=0.05)
        >>> (fitted.probabilities(x) > 0.5).ravel().tolist()
        [False, False, True, True]
    """
    began = time.perf_counter()
    x, y = np.asarray(features, np.float32), np.asarray(labels, np.float32)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(
            "features and labels must be tables with the same number of rows, at least one, "
            f"got shapes {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and ((y >= 0) & (y <= 1)).all()):
        raise ValueError("features must be finite and labels in 0..1, got others")
    check_counts(1, epochs=epochs, batch_size=batch_size)
    check_counts(1, **{f"hidden[{place}]": width for place, width in enumerate(hidden)})
    check_at_least(0, learning_rate=learning_rate)
    use_compilation_cache()
    widths, rng = (x.shape[1], *hidden, y.shape[1]), np.random.default_rng(seed)
    params = _new_params(widths, rng)
    batches = _batches(len(x), batch_size, epochs, rng)
    layers, losses = _train(widths, params, x, y, *batches, np.float32(learning_rate))
    losses = np.asarray(losses)  # waits for the device
    return Classifier(layers=layers, losses=losses, seconds=time.perf_counter() - began)


def _new_params(widths: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """All parameters in one array: weights of variance 1 / inputs, layer after layer, biases 0."""
    weights = [rng.normal(0, a**-0.5, (a, b)) for a, b in pairwise(widths)]
    return np.concatenate(_flat([(part, np.zeros(part.shape[1])) for part in weights]), dtype="f4")


def _flat(layers: list[tuple[Array, Array]]) -> list[Array]:
    """The parts of the one array: weights of each layer, then biases of each.

    The last weights lie (labels, inputs) in it: a product is faster where rows are long.
    """
    *weights, last = [weights for weights, _ in layers]
    return [part.ravel() for part in (*weights, last.T, *(biases for _, biases in layers))]


def _layers(widths: tuple[int, ...], params: Array) -> list[tuple[Array, Array]]:
    """The layers that `_flat` took apart."""
    *shapes, (inputs, labels) = pairwise(widths)
    shapes = [*shapes, (labels, inputs)]
    parts = in_shapes(params, [*shapes, *((width,) for width in widths[1:])])
    *weights, last = parts[: len(shapes)]
    return list(zip([*weights, last.T], parts[len(shapes) :], strict=True))


def _batches(rows: int, size: int, epochs: int, rng: np.random.Generator):
    """Rows (epochs, steps, size) of each batch, and their weights (steps, size), which sum to 1."""
    steps = -(-rows // size)
    order = np.zeros((epochs, steps * size), np.int32)
    order[:, :rows] = rng.permuted(np.tile(np.arange(rows), (epochs, 1)), axis=1)
    weights = (np.arange(steps * size) < rows).astype(np.float32).reshape(steps, size)
    return order.reshape(epochs, steps, size), weights / weights.sum(axis=1, keepdims=True)


def _log_odds(layers: list[tuple[Array, Array]], x: Array) -> Array:
    *hidden, (last, bias) = layers
    for weights, biases in hidden:
        x = jax.nn.relu(x @ weights + biases[None])
    return x @ last + bias[None]


@jax.jit
def _probabilities(layers: list[tuple[Array, Array]], x: Array) -> Array:
    return jax.nn.sigmoid(_log_odds(layers, x))


@partial(jax.jit, static_argnums=0)
def _train(widths: tuple[int, ...], params, x, y, order, weights, learning_rate):
    """Layers after all epochs, and the mean loss of each."""

    def step(state, batch):
        params, moments, count = state
        gradient, log_odds = _gradient(_layers(widths, params), *batch)
        change, moments = _adam(jnp.concatenate(_flat(gradient)), moments, count, learning_rate)
        return (params - change, moments, count + 1), log_odds

    def epoch(state, rows):
        labels = y[rows]
        state, log_odds = jax.lax.scan(step, state, (x[rows], labels, weights))
        losses = jax.nn.softplus(log_odds) - labels * log_odds
        is_real = weights > 0
        return state, jnp.where(is_real, losses.mean(axis=2), 0).sum() / is_real.sum()

    none = jnp.zeros_like(params)
    (params, *_), losses = jax.lax.scan(epoch, (params, (none, none), jnp.float32(1)), order)
    return _layers(widths, params), losses


def _gradient(layers, x: Array, y: Array, weights: Array):
    """Gradients of the layers for a batch's cross-entropy, and log-odds (rows, labels).

    The cross-entropy itself is found after the epoch, for all batches at once. Backpropagation is
    written out for the sake of `_turned`: what JAX derives reads columns where rows are faster.
    """
    inputs = [x]  # of each layer
    for above, biases in layers[:-1]:
        inputs.append(jax.nn.relu(inputs[-1] @ above + biases[None]))
    last, bias = layers[-1]
    log_odds = inputs[-1] @ last + bias[None]
    slope = (jax.nn.sigmoid(log_odds) - y) * weights[:, None] / y.shape[1]
    gradients = [((_turned(slope) @ inputs[-1]).T, slope.sum(axis=0))]
    for number in range(len(layers) - 1, 0, -1):
        slope = jnp.where(inputs[number] > 0, slope @ layers[number][0].T, 0)
        gradients.append((_turned(inputs[number - 1]) @ slope, slope.sum(axis=0)))
    return gradients[::-1], log_odds


def _turned(table: Array) -> Array:
    """The transpose, written to memory: XLA would fold a plain one into the product after it."""
    return jax.lax.optimization_barrier(table.T)


def _adam(gradient: Array, moments: tuple[Array, Array], count: Array, learning_rate: Array):
    """What is taken off the parameters (Kingma and Ba 2015, arXiv:1412.6980), and new moments.

    All parameters are one array: three loops for a step, instead of three for each layer.
    """
    first = 0.9 * moments[0] + 0.1 * gradient
    second = 0.999 * moments[1] + 0.001 * gradient**2
    rate, scale = learning_rate / (1 - 0.9**count), 1 / (1 - 0.999**count)
    return rate * first / (jnp.sqrt(scale * second) + 1e-8), (first, second)
