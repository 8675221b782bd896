"""The plain MLP classifier."""

from itertools import pairwise

import jax
import numpy as np
import pytest

from interestkit import classifier
from interestkit.classifier import fit_classifier


@pytest.fixture(scope="module")
def table():
    features = np.random.default_rng(0).random((70, 4))  # 70 rows: the last batch of 32 is ragged
    return features, (features[:, :2].sum(axis=1) > features[:, 2:].sum(axis=1))[:, None]


def test_classifier_learns_a_planted_rule_and_not_a_coin(table):
    features, labels = table
    options = {"epochs": 150, "learning_rate": 0.01}
    new = np.random.default_rng(1).random((500, 4))
    truth = new[:, :2].sum(axis=1) > new[:, 2:].sum(axis=1)

    def accuracy(labels):
        fitted = fit_classifier(features, labels, **options)
        return ((np.asarray(fitted.probabilities(new))[:, 0] > 0.5) == truth).mean()

    assert accuracy(labels) > 0.85
    coins = [np.random.default_rng(seed).permutation(labels) for seed in range(5)]
    assert abs(np.mean([accuracy(coin) for coin in coins]) - 0.5) < 0.15


def test_same_seed_gives_the_same_weights_and_another_seed_others(table):
    fits = [fit_classifier(*table, epochs=3, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (np.asarray(fit.probabilities(table[0])) for fit in fits)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_rows_of_padding_change_nothing(table):
    """With one batch for all rows, a larger batch is the same rows and padding."""
    exact = fit_classifier(*table, epochs=5, batch_size=70)
    padded = fit_classifier(*table, epochs=5, batch_size=100)
    np.testing.assert_allclose(exact.losses, padded.losses, rtol=1e-5)


def test_loss_starts_at_that_of_a_guess_and_falls(table):
    losses = fit_classifier(*table, epochs=60, learning_rate=0.01).losses
    assert losses[0] == pytest.approx(np.log(2), abs=0.15)
    assert losses[-1] < 0.5 * losses[0]


def test_a_second_fit_of_the_same_shapes_compiles_nothing(table, caplog):
    features, labels = table
    fit_classifier(features, labels, epochs=2).probabilities(features)
    other = {"seed": 5, "learning_rate": 0.5}
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        fitted = fit_classifier(features + 1, 1 - labels, epochs=2, **other)
        fitted.probabilities(features + 1)
    assert [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()] == []


def test_a_fit_keeps_its_programs_on_disk(table, monkeypatch):
    asked = []
    monkeypatch.setattr(classifier, "use_compilation_cache", lambda: asked.append(True))
    fit_classifier(*table, epochs=1)
    assert asked


def test_one_step_of_adam_equals_hand_computed_value():
    """At zero a gradient of any size moves a parameter by the learning rate, but for epsilon."""
    x, y = np.zeros((4, 1)), np.array([[1.0], [1.0], [1.0], [0.0]])
    fitted = fit_classifier(x, y, hidden=(), epochs=1, batch_size=4, learning_rate=0.25)
    ((_, bias),) = fitted.layers
    # the gradient is 1/2 - 3/4 = -1/4; 1 - 0.999 is known to 6e-5 of itself in float32
    np.testing.assert_allclose(bias, [0.25], rtol=3e-5)
    np.testing.assert_allclose(fitted.losses, [np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("hidden", [(), (3,), (8, 6)])
def test_fit_equals_a_slow_independent_one(table, hidden):
    """The same steps by NumPy, with gradients from finite differences, in double precision.

    Widths leave no row without an active unit: the next layer would stand at ReLU's kink.
    """
    features, labels = table[0][:5], np.hstack([table[1][:5], ~table[1][:5]]).astype(float)
    options = {"hidden": hidden, "epochs": 4, "batch_size": 2, "learning_rate": 0.05, "seed": 2}
    fitted = fit_classifier(features, labels, **options)
    start = fit_classifier(features, labels, **(options | {"learning_rate": 0.0}))
    params = [np.array(part, np.float64) for layer in start.layers for part in layer]
    rng = np.random.default_rng(2)
    rng.normal(size=sum(a * b for a, b in pairwise((4, *hidden, 2))))  # what the weights took
    orders = rng.permuted(np.tile(np.arange(5), (4, 1)), axis=1)
    losses = slow_adam(params, features, labels, orders, size=2, rate=0.05)
    np.testing.assert_allclose(fitted.losses, losses, rtol=1e-4)
    for actual, expected in zip((p for layer in fitted.layers for p in layer), params, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


def slow_loss(params, x, y):
    *hidden, last, bias = params
    for weights, biases in zip(hidden[::2], hidden[1::2], strict=True):
        x = np.maximum(x @ weights + biases[None], 0)
    p = 1 / (1 + np.exp(-(x @ last + bias[None])))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


def slow_adam(params, features, labels, orders, *, size, rate):
    """Train `params` in place; the mean loss of each epoch, before each step."""
    first, second = ([np.zeros_like(p) for p in params] for _ in range(2))
    count, means = 0, []
    for order in orders:
        losses = []
        for start in range(0, len(order), size):
            x, y = (table[order[start : start + size]] for table in (features, labels))
            losses += [slow_loss(params, x, y)] * len(x)
            gradients = [difference(params, p, x, y) for p in params]
            count += 1
            for p, m, v, g in zip(params, first, second, gradients, strict=True):
                m[:], v[:] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                p -= rate * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
        means.append(np.mean(losses))
    return means


def difference(params, p, x, y, step=1e-6):
    gradient = np.zeros_like(p)
    for index in np.ndindex(p.shape):
        kept = p[index]
        sides = []
        for p[index] in (kept - step, kept + step):
            sides.append(slow_loss(params, x, y))
        p[index] = kept
        gradient[index] = (sides[1] - sides[0]) / (2 * step)
    return gradient


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 1)), {}, r"same number of rows.*\(2, 3\) and \(3, 1\)"),
        (np.zeros((0, 3)), np.zeros((0, 1)), {}, "at least one"),
        (np.zeros(3), np.zeros((3, 1)), {}, "must be tables"),
        (np.zeros((2, 3)), np.zeros((2, 1)), {"epochs": 0}, "epochs must be at least 1, got 0"),
        (np.zeros((2, 3)), np.zeros((2, 1)), {"hidden": (4, 0)}, r"hidden\[1\] must be at least 1"),
        (np.zeros((2, 3)), np.zeros((2, 1)), {"learning_rate": -1}, "learning_rate must be at"),
        (np.full((2, 3), np.nan), np.zeros((2, 1)), {}, "features must be finite"),
        (np.zeros((2, 3)), np.full((2, 1), 7), {}, r"labels in 0\.\.1"),
    ],
)
def test_classifier_names_what_is_wrong(features, labels, options, message):
    with pytest.raises(ValueError, match=message):
        fit_classifier(features, labels, **options)


def test_probabilities_are_between_zero_and_one(table):
    probabilities = fit_classifier(*table, epochs=1).probabilities(table[0])
    assert probabilities.shape == (70, 1)
    assert bool(((probabilities > 0) & (probabilities < 1)).all())
    assert isinstance(probabilities, jax.Array)
