"""The plain MLP classifier."""

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


def test_a_second_fit_compiles_nothing(table):
    fit_classifier(*table, epochs=2)
    before = classifier._fit._cache_size()
    fit_classifier(*table, epochs=2, seed=5, learning_rate=0.5)
    assert classifier._fit._cache_size() == before


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 1)), {}, r"same number of rows.*\(2, 3\) and \(3, 1\)"),
        (np.zeros((0, 3)), np.zeros((0, 1)), {}, "at least one"),
        (np.zeros(3), np.zeros((3, 1)), {}, "must be tables"),
        (np.zeros((2, 3)), np.zeros((2, 1)), {"epochs": 0}, "epochs and batch_size"),
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
