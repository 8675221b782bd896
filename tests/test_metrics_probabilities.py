"""Predicted probabilities: by hand, against slow loops, and what each refuses."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interestkit import metrics

NAN = np.nan


def close(actual, expected, rtol=1e-6, atol=0):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol)


def test_log_loss_equals_hand_computed_value():
    probabilities = np.float32([[0.25, 0.75], [0.5, 0.5], [1, 0], [1, 0], [0.5, 0.5]])
    shares = np.float32([[1, 0], [0.25, 0.75], [1, 0], [0.5, 0.5], [0, 0]])
    expected = [np.log(4), np.log(2), 0.0, np.inf, NAN]
    close(metrics.log_loss(probabilities, shares), expected)
    close(metrics.log_loss(probabilities[::-1, ::-1], shares[::-1, ::-1]), expected[::-1])
    close(jax.jit(metrics.log_loss)(probabilities, shares), expected)


def test_log_loss_is_least_for_the_true_shares():
    shares = np.float32([[0.2, 0.3, 0.5]])
    entropy = -(0.2 * np.log(0.2) + 0.3 * np.log(0.3) + 0.5 * np.log(0.5))
    close(metrics.log_loss(shares, shares), [entropy])
    assert metrics.log_loss(np.float32([[0.25, 0.3, 0.45]]), shares)[0] > entropy


def test_log_loss_names_what_is_wrong():
    half, zero = np.full((1, 2), 0.5), np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"sum of probabilities must be 1, got 0.0 at \[0\]"):
        metrics.log_loss(zero, half)
    with pytest.raises(ValueError, match=r"sum of shares must be 1 or 0, got 2\.0"):
        metrics.log_loss(half, 2 * half)
    with pytest.raises(ValueError, match=r"probabilities must be finite and >= 0, got -1.0 at"):
        metrics.log_loss(np.array([[2.0, -1.0]]), half)
    with pytest.raises(ValueError, match=r"shares must be finite and >= 0, got nan"):
        metrics.log_loss(half, half * np.nan)
    with pytest.raises(ValueError, match="number of labels"):
        metrics.log_loss(half, np.ones((1, 1)))
    with pytest.raises(ValueError, match="number of users"):
        metrics.log_loss(half, np.full((2, 2), 0.5))


@given(seed=st.integers(0, 10**6))
def test_log_loss_equals_slow_loop(seed):
    rng = np.random.default_rng(seed)
    probabilities, shares = rng.dirichlet(np.ones(4), (2, 20))
    shares[rng.random(20) < 0.2] = 0
    expected = [
        -sum(s * np.log(p) for p, s in zip(row, own, strict=True)) if own.any() else NAN
        for row, own in zip(probabilities, shares, strict=True)
    ]
    close(metrics.log_loss(probabilities, shares), expected, rtol=2e-6)


def test_reliability_equals_hand_computed_value():
    probabilities = np.float32([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5], [0.3, 0.7]])
    shares = np.float32([[1, 0], [0.5, 0.5], [0, 1], [1, 0], [0, 0]])  # the last is left out
    found = metrics.reliability(probabilities, shares, num_bins=4)
    np.testing.assert_array_equal(found.count, [0, 1, 1, 2])
    close(found.confidence, [NAN, 0.5, 0.6, (0.9 + 0.8) / 2])
    close(found.accuracy, [NAN, 1, 0, (1 + 0.5) / 2])
    error = (1 * 0.5 + 1 * 0.6 + 2 * (0.85 - 0.75)) / 4
    calibration_error = metrics.expected_calibration_error
    close(calibration_error(probabilities, shares, num_bins=4), error)
    close(calibration_error(probabilities[::-1], shares[::-1], num_bins=4), error)
    jitted = jax.jit(calibration_error, static_argnames="num_bins")
    close(jitted(probabilities, shares, num_bins=4), error)
    gap = (1 + 0.5 + 0 + 1) / 4 - (0.9 + 0.8 + 0.6 + 0.5) / 4
    close(calibration_error(probabilities, shares, num_bins=1), abs(gap))


def test_reliability_counts_a_confidence_on_an_edge_in_the_lower_bin():
    top = np.float32([1, 0.6, 0.8])
    probabilities = np.stack([top, 1 - top], axis=1)
    counts = metrics.reliability(probabilities, np.eye(2)[[0, 0, 0]], num_bins=5).count
    np.testing.assert_array_equal(counts, [0, 0, 1, 1, 1])


def test_of_equal_probabilities_the_lowest_code_is_the_top_label():
    half = np.full((1, 2), 0.5)
    close(metrics.reliability(half, np.array([[0.9, 0.1]]), num_bins=1).accuracy, [0.9])


def test_calibration_error_without_users_is_undefined():
    half = np.full((1, 2), 0.5)
    close(metrics.expected_calibration_error(half, half * 0), NAN)
    close(metrics.expected_calibration_error(half[:0], half[:0]), NAN)


def test_probabilities_that_come_true_have_no_calibration_error():
    top = np.float32([0.55, 0.65, 0.75, 0.95])
    probabilities = np.stack([top, 1 - top], axis=1)
    close(metrics.expected_calibration_error(probabilities, probabilities), 0, atol=1e-7)


@given(seed=st.integers(0, 10**6), num_bins=st.sampled_from([1, 5, 15]))
def test_reliability_equals_slow_loop(seed, num_bins):
    rng = np.random.default_rng(seed)
    probabilities, shares = rng.dirichlet(np.ones(3), (2, 60)).astype(np.float32)
    shares[:20] = np.eye(3)[rng.integers(0, 3, 20)]
    shares[50:] = 0
    bins = [[] for _ in range(num_bins)]
    for row, own in zip(probabilities.tolist(), shares.tolist(), strict=True):
        first = row.index(max(row))
        place = next(m for m in range(num_bins) if row[first] <= (m + 1) / num_bins + 1e-9)
        if sum(own):
            bins[place].append((row[first], own[first]))
    means = [np.mean(pairs, axis=0) if pairs else (NAN, NAN) for pairs in bins]
    found = metrics.reliability(probabilities, shares, num_bins=num_bins)
    np.testing.assert_array_equal(found.count, [len(pairs) for pairs in bins])
    close(np.stack(found[1:], axis=1), means, rtol=2e-6)
    gaps = [len(b) * abs(m[0] - m[1]) for b, m in zip(bins, means, strict=True) if b]
    error = metrics.expected_calibration_error(probabilities, shares, num_bins=num_bins)
    close(error, sum(gaps) / 50, atol=1e-6)


def test_reliability_names_what_is_wrong():
    half = np.full((1, 2), 0.5)
    for metric in (metrics.reliability, metrics.expected_calibration_error):
        with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
            metric(half, half, num_bins=0)
        with pytest.raises(ValueError, match=r"sum of probabilities must be 1, got 0.0 at \[0\]"):
            metric(half * 0, half)
        with pytest.raises(ValueError, match="number of users"):
            metric(half, np.full((2, 2), 0.5))
