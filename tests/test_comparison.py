"""Paired statistics equal hand calculations and slow independent versions."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from interestkit import comparison
from interestkit.comparison import (
    bootstrap_interval,
    bootstrap_intervals,
    effect_size,
    holm,
    is_lower_better,
    paired_statistics,
    rate_interval,
    sign_flip_p,
)

NAN, INF = np.nan, np.inf


def column(*values):
    return np.array(values, float)[:, None]


def test_bootstrap_interval_is_that_of_the_normal_approximation_for_many_users():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    # an end of 1,000 resamples has a standard error of about 0.09 half-widths
    np.testing.assert_allclose(
        [low, high], values.mean() + np.array([-half, half]), atol=0.4 * half
    )
    narrow = bootstrap_interval(values, share=0.5)
    assert narrow[1] - narrow[0] == pytest.approx((high - low) * 0.6745 / 1.96, rel=0.15)


def test_bootstrap_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    low, high = bootstrap_intervals(rng.exponential(1.0, (60, 400)))
    covered = ((low <= 1) & (high >= 1)).mean()
    # 95 % minus what skewness costs at 60 users (about 2 points), four standard errors around
    assert 0.93 - 4 * 0.0128 < covered < 0.95 + 4 * 0.0109


def test_bootstrap_leaves_out_nan_and_has_no_interval_of_nothing():
    assert bootstrap_interval(np.array([2.0, NAN, 2.0])) == (2.0, 2.0)
    assert np.isnan(bootstrap_interval(np.array([NAN]))).all()
    assert bootstrap_interval(np.arange(9.0)) == bootstrap_interval(np.arange(9.0))
    assert bootstrap_interval(np.arange(9.0)) != bootstrap_interval(np.arange(9.0), seed=1)


def test_many_intervals_at_once_are_those_of_each_alone():
    values = np.random.default_rng(2).normal(5, 1, (40, 6))
    values[3, 1] = values[:9, 2] = values[:, 4] = NAN
    low, high = bootstrap_intervals(values)
    alone = np.array([bootstrap_interval(column) for column in values.T])
    np.testing.assert_allclose(np.stack([low, high], axis=1), alone, rtol=1e-6)
    assert np.isnan(low).tolist() == [False, False, False, False, True, False]


def test_an_infinite_value_makes_an_end_infinite_not_undefined():
    # of two users, a quarter of the resamples lacks the infinite one
    assert bootstrap_interval(np.array([1.0, INF])) == (1.0, INF)
    assert bootstrap_interval(np.array([-INF, 1.0])) == (-INF, 1.0)
    assert bootstrap_interval(np.full(9, INF)) == (INF, INF)
    low, high = bootstrap_intervals(np.array([[1.0, INF], [3.0, 0.0]]))
    assert (low[0], high[0]) == (1.0, 3.0)


@pytest.mark.parametrize("share", [0, 1])
def test_bootstrap_rejects_impossible_shares(share):
    with pytest.raises(ValueError, match=rf"share must be in \(0, 1\), got {share}"):
        bootstrap_interval(np.ones(3), share=share)


def enumerated_p(differences):
    """Share of all patterns of signs with a mean as far from 0, one pattern at a time."""
    observed = abs(math.fsum(differences))
    patterns = list(itertools.product([1, -1], repeat=len(differences)))
    sums = [math.fsum(s * d for s, d in zip(signs, differences, strict=True)) for signs in patterns]
    return sum(abs(total) >= observed - 1e-9 for total in sums) / len(patterns)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        pytest.param([1, 1, 1, 1, 1], 2 / 32, id="all-better"),
        pytest.param([3, 1, 1], 2 / 8, id="only-all-alike-reach-5"),
        # 3 + 1 - 1 = 3 is reached by +++, ++-, +-+ and their mirror images
        pytest.param([3, 1, -1], 6 / 8, id="two-cancel"),
        pytest.param([1, -1], 1.0, id="nothing-is-nearer"),
        pytest.param([0, 0, 2], 1.0, id="one-user-differs"),
        pytest.param([0, 0], 1.0, id="nobody-differs"),
        pytest.param([NAN, 1, 1], 2 / 4, id="undefined-is-left-out"),
        pytest.param([NAN, NAN], NAN, id="nobody-is-defined"),
        pytest.param([INF, 1], NAN, id="infinite"),
        pytest.param([0.1, 0.2, -0.3, 0.3], 12 / 16, id="ties-of-unlike-sums"),
    ],
)
def test_p_of_few_users_is_exact(differences, expected):
    assert sign_flip_p(column(*differences))[0] == pytest.approx(expected, nan_ok=True)
    if np.isfinite(differences).all():
        assert expected == enumerated_p(differences)


def test_p_is_exact_as_long_as_all_patterns_are_not_more_than_the_flips():
    values = np.random.default_rng(3).normal(0.4, 1, 13)
    assert sign_flip_p(values[:, None])[0] == pytest.approx(enumerated_p(values))
    assert sign_flip_p(values[:3, None], flips=7)[0] == enumerated_p(values[:3])
    drawn = sign_flip_p(values[:3, None], flips=6)[0]  # one pattern more than that: drawn
    assert drawn in {(1 + count) / 7 for count in range(7)}


def test_drawn_p_is_near_the_exact_one():
    values = np.random.default_rng(4).normal(0.35, 1, 18)
    exact = enumerated_p(values)
    error = np.sqrt(exact * (1 - exact) / 9_999)
    assert 0.01 < exact < 0.5
    assert sign_flip_p(values[:, None])[0] == pytest.approx(exact, abs=4 * error)


def test_drawn_p_is_near_the_t_test_for_many_users():
    values = np.random.default_rng(5).normal(0.03, 1, 1_500)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert 0.01 < expected < 0.5
    assert sign_flip_p(values[:, None])[0] == pytest.approx(expected, abs=0.02)


def test_p_is_two_sided_and_never_below_one_over_flips_plus_one():
    values = np.abs(np.random.default_rng(6).normal(1, 0.1, 60))
    p = sign_flip_p(np.stack([values, -values], axis=1), flips=99)
    assert p.tolist() == [0.01, 0.01]


def test_p_is_uniform_where_models_are_equal():
    values = np.random.default_rng(7).standard_t(3, (60, 500))
    p = np.concatenate([sign_flip_p(values[:, [n]], flips=199, seed=n) for n in range(500)])
    share = np.array([(p <= level).mean() for level in (0.05, 0.25, 0.5)])
    levels = np.array([0.05, 0.25, 0.5])
    assert (np.abs(share - levels) < 4 * np.sqrt(levels * (1 - levels) / 500)).all()


def test_results_do_not_depend_on_blocks_and_follow_the_seed(monkeypatch):
    values = np.random.default_rng(8).normal(0.1, 1, (70, 3))
    values[5:9, 1] = NAN
    whole = paired_statistics(values)
    assert not whole.equals(paired_statistics(values, seed=1))
    monkeypatch.setattr(comparison, "_BLOCK_NUMBERS", 7 * 70)
    cut = paired_statistics(values)
    assert cut["p"].equals(whole["p"])
    np.testing.assert_allclose(cut.to_numpy(), whole.to_numpy(), rtol=1e-6)


def test_flips_must_be_positive():
    with pytest.raises(ValueError, match="flips must be at least 1, got 0"):
        sign_flip_p(column(1, 2), flips=0)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([0.2], [0.2], id="one"),
        # 4 x 0.01, 3 x 0.015, then 2 x 0.02 and 1 x 0.04, which may not fall below 0.045
        pytest.param([0.04, 0.01, 0.02, 0.015], [0.045, 0.04, 0.045, 0.045], id="never-falls"),
        pytest.param([0.6, 0.7], [1, 1], id="at-most-one"),
        pytest.param([NAN, 0.01, NAN, 0.5], [NAN, 0.02, NAN, 0.5], id="undefined-is-no-member"),
    ],
)
def test_holm_equals_hand_computed_values(p, expected):
    np.testing.assert_allclose(holm(np.array(p, float)), expected)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        # mean 1, deviations -1, 0, 0, 1 around it: variance 2 / 3
        pytest.param([0, 1, 1, 2], 1 / np.sqrt(2 / 3), id="plain"),
        pytest.param([0, -1, NAN, -1, -2], -1 / np.sqrt(2 / 3), id="undefined-is-left-out"),
        pytest.param([0.1, 0.1, 0.1], NAN, id="all-alike"),
        pytest.param([0, 0], NAN, id="no-difference"),
        pytest.param([1], NAN, id="one-user"),
        pytest.param([1, INF], NAN, id="infinite"),
    ],
)
def test_effect_is_mean_over_standard_deviation(differences, expected):
    np.testing.assert_allclose(effect_size(column(*differences)), [expected])


def test_statistics_of_a_table_count_users_on_both_sides():
    table = paired_statistics(np.array([[1, NAN], [0, NAN], [-3, NAN], [4, NAN], [NAN, NAN]]))
    first, second = table.rows(named=True)
    assert (first["users"], first["left_out"], first["gain"]) == (4, 1, 0.5)
    assert (first["higher"], first["lower"]) == (0.5, 0.25)
    assert first["p_holm"] == first["p"] == enumerated_p([1, 0, -3, 4])
    assert (second["users"], second["left_out"]) == (0, 5)
    undefined = [second[name] for name in ("gain", "low", "p", "p_holm", "effect", "higher")]
    assert np.isnan(undefined).all()
    assert paired_statistics(np.zeros((3, 0))).is_empty()


def test_losses_are_better_when_lower():
    lower = {"log loss": True, "miscalibration@10": True, "ECE": True, "Gini@5": True}
    higher = dict.fromkeys(["NDCG@10", "recall@5", "novelty@10", "accuracy"], False)
    assert {name: is_lower_better(name) for name in lower | higher} == lower | higher


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (7, 7), (3, 20), (11, 2_000)])
def test_interval_of_a_rate_is_that_of_scipy(hits, trials):
    wanted = stats.binomtest(hits, trials).proportion_ci(0.9, method="exact")
    assert rate_interval(hits, trials, share=0.9) == pytest.approx((wanted.low, wanted.high))


def test_interval_of_a_rate_refuses_counts_that_cannot_be():
    for hits, trials in ((-1, 3), (4, 3), (0, 0)):
        with pytest.raises(ValueError, match=r"hits must be in 0\.\.trials and trials at least 1"):
            rate_interval(hits, trials)
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        rate_interval(1, 2, share=1)
