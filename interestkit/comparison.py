"""Statistics on values of users: intervals, sign-flip tests on pairs, Holm's correction.

Users are the units throughout: two models are compared on the same users, and what is tested is
the mean of the differences within users. NaN is a user for whom one of the two is undefined.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from jaxtyping import Float
from scipy.special import betaincinv

from interestkit.limits import check_counts, check_within

Differences = Float[np.ndarray, "users series"]
PerSeries = Float[np.ndarray, " series"]

LOWER_IS_BETTER = ("log loss", "miscalibration", "ECE", "Gini")  # names before "@" of metrics
_RESAMPLES = 1_000
_BLOCK_NUMBERS = 2**22  # random numbers held in memory at a time
_NOISE = 1e-6  # of the sum of absolute differences: what float32 can lose


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of a metric of `evaluation` is the better one.

    Example:
        >>> is_lower_better("miscalibration@10"), is_lower_better("NDCG@10")
        (True, False)
    """
    return metric.split("@")[0] in LOWER_IS_BETTER


def bootstrap_interval(
    values: Float[np.ndarray, " users"], *, share: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over users.

    Args:
        values: One number per user; NaN is left out.
        share: Share of resampled means inside the interval, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        The lower and upper end; NaN without values. An infinite value makes the mean of each
        resample that draws it infinite, and so an end of the interval.

    Raises:
        ValueError: If `share` is outside (0, 1).

    Example:
        >>> bootstrap_interval(np.array([1.0, 1.0, np.nan]))
        (1.0, 1.0)

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.
    """
    low, high = bootstrap_intervals(np.asarray(values, float)[:, None], share=share, seed=seed)
    return float(low[0]), float(high[0])


def bootstrap_intervals(
    values: Differences, *, share: float = 0.95, seed: int = 0
) -> tuple[PerSeries, PerSeries]:
    """`bootstrap_interval` of many columns at once: all lower ends, and all upper ends.

    Columns that are defined for the same users share draws. Arguments and errors: as there.

    Example:
        >>> low, high = bootstrap_intervals(np.array([[1.0, np.nan], [1.0, 2.0]]))
        >>> print(low, high)
        [1. 2.] [1. 2.]
    """
    check_within("(0, 1)", share=share)
    tails = ((1 - share) / 2, (1 + share) / 2)
    ends = np.full((2, values.shape[1]), np.nan)
    masks, group = np.unique(~np.isnan(values), axis=1, return_inverse=True)
    for number, is_defined in enumerate(masks.T):
        series = np.flatnonzero(group.ravel() == number)
        if is_defined.any():
            means = _resampled_means(values[np.ix_(is_defined, series)], seed)
            is_finite = np.isfinite(means).all(axis=0)
            ends[:, series[is_finite]] = np.quantile(means[:, is_finite], tails, axis=0)
            for end, tail, method in zip(ends, tails, ("lower", "higher"), strict=True):
                endless = means[:, ~is_finite]  # between a number and infinity lies nothing
                end[series[~is_finite]] = np.quantile(endless, tail, axis=0, method=method)
    return ends[0], ends[1]


def rate_interval(hits: int, trials: int, *, share: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate: both ends are the rates that the count just allows.

    Args:
        hits: How often it happened, 0..trials.
        trials: How often it could have, at least 1.
        share: Share of samples whose interval covers the true rate, at least; in (0, 1).

    Raises:
        ValueError: If an argument is outside its limits.

    Example:
        >>> low, high = rate_interval(0, 100)  # high: (1 - high) ** 100 = 0.025
        >>> low, round(high, 4)
        (0.0, 0.0362)

    Source:
        Clopper and Pearson (1934), Biometrika 26(4), doi:10.1093/biomet/26.4.404.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"hits must be in 0..trials and trials at least 1, got {hits}, {trials}")
    check_within("(0, 1)", share=share)
    tail, misses = (1 - share) / 2, trials - hits
    low = betaincinv(hits, misses + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, misses, 1 - tail) if misses else 1.0
    return float(low), float(high)


def sign_flip_p(differences: Differences, *, flips: int = 9_999, seed: int = 0) -> PerSeries:
    """Two-sided p-value of each mean difference, from random signs.

    Were the two models equal, each user's difference could as well have the other sign. The
    p-value is (1 + number of flips whose mean is as far from 0 as the observed) / (1 + flips);
    where all patterns of signs are not more than that, it is their exact share. All series see
    the same signs, so a user is flipped as a whole.

    Args:
        differences: A column per series; NaN is left out.
        flips: Random patterns of signs, at least 1. The p-value cannot be below
            1 / (1 + flips): many comparisons need many.
        seed: Seed of the signs.

    Returns:
        In (0, 1]; 1 where no user differs; NaN without users or with an infinite difference.

    Raises:
        ValueError: If `flips` is below 1.

    Example:
        >>> print(sign_flip_p(np.array([[1.0], [2.0], [3.0]])))  # +++ and --- of 8 patterns
        [0.25]

    Source:
        Phipson and Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9(1), doi:10.2202/1544-6115.1585;
        for rankings Smucker, Allan and Carterette (2007), CIKM, doi:10.1145/1321440.1321528.
    """
    check_counts(1, flips=flips)
    is_defined = ~np.isnan(differences).all(axis=0) & ~np.isinf(differences).any(axis=0)
    p = np.where(is_defined, 1.0, np.nan)
    values = np.where(np.isfinite(differences), differences, 0.0)
    counts = (values != 0).sum(axis=0)
    is_exact = counts < (flips + 1).bit_length()  # 2**counts <= flips + 1
    for column in np.flatnonzero(is_defined & is_exact & (counts > 0)):
        p[column] = _exact_p(values[values[:, column] != 0, column])
    rest = np.flatnonzero(is_defined & ~is_exact)
    if len(rest):
        values = values[:, rest] / np.abs(values[:, rest]).sum(axis=0, keepdims=True)
        total, small = values.sum(axis=0, keepdims=True), values.astype(np.float32)
        far = np.abs(total) - _NOISE
        extreme = np.zeros(len(rest), int)
        for kept in _random_halves(len(values), flips, seed):
            extreme += (np.abs(2 * (kept @ small) - total) >= far).sum(axis=0)
        p[rest] = (1 + extreme) / (1 + flips)
    return p


def holm(p: PerSeries) -> PerSeries:
    """Holm's adjusted p-values of one table: below a level, they hold together for all of it.

    In rising order the i-th of m (from 0) is multiplied by m - i; none is below one before it,
    none above 1. NaN stays, and does not count as a member of the family.

    Example:
        >>> print(holm(np.array([0.01, 0.04, np.nan, 0.03])))  # 3 x 0.01, 2 x 0.03, then no less
        [0.03 0.06  nan 0.06]

    Source:
        Holm (1979), Scandinavian Journal of Statistics 6(2), pages 65-70.
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: (~np.isnan(p)).sum()]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def effect_size(differences: Differences) -> PerSeries:
    """Cohen's d_z: mean difference over the standard deviation of the differences, without unit.

    NaN in a column is left out. The result is NaN with fewer than two users, where all differ
    alike, or by an infinite amount.

    Example:
        >>> print(effect_size(np.array([[1.0], [2.0], [3.0], [np.nan]])))
        [2.]

    Source:
        Cohen (1988), Statistical Power Analysis for the Behavioral Sciences, 2nd ed., ch. 2;
        Lakens (2013), Frontiers in Psychology 4, doi:10.3389/fpsyg.2013.00863.
    """
    effects = np.full(differences.shape[1], np.nan)
    for column, values in enumerate(differences.T):
        values = values[~np.isnan(values)]
        if len(values) > 1 and np.isfinite(values).all():
            deviation = values.std(ddof=1)
            if deviation > _NOISE * np.abs(values).max():
                effects[column] = values.mean() / deviation
    return effects


def paired_statistics(
    differences: Differences, *, flips: int = 9_999, seed: int = 0
) -> pl.DataFrame:
    """All that is said of paired differences, a row per series.

    Args:
        differences: Value of one model minus that of the other, a column per series; NaN where
            the user is undefined for either.
        flips: As in `sign_flip_p`.
        seed: Seed of resampling and of the signs.

    Returns:
        Columns gain (mean difference), low, high, users, left_out, p, p_holm (the family being
        all rows) and effect as `Evaluation.gains` says, higher and lower (share of users whose
        difference is above and below 0; the rest are equal).

    Raises:
        ValueError: If `flips` is below 1.

    Example:
        >>> table = paired_statistics(np.array([[1.0], [2.0], [0.0], [np.nan]]))
        >>> table.select("gain", "users", "left_out", "p", "higher", "lower").row(0)
        (1.0, 3, 1, 0.5, 0.667, 0.0)
    """
    low, high = bootstrap_intervals(differences, seed=seed)
    p, users = sign_flip_p(differences, flips=flips, seed=seed), (~np.isnan(differences)).sum(0)
    divisor = np.where(users > 0, users, np.nan)
    with np.errstate(invalid="ignore"):  # +inf and -inf have no mean
        gain = np.nansum(differences, axis=0) / divisor
    return pl.DataFrame(
        {
            "gain": gain,
            "low": low,
            "high": high,
            "users": users,
            "left_out": len(differences) - users,
            "p": p,
            "p_holm": holm(p),
            "effect": effect_size(differences),
            "higher": (differences > 0).sum(axis=0) / divisor,
            "lower": (differences < 0).sum(axis=0) / divisor,
        }
    )


def _resampled_means(values: Differences, seed: int) -> Float[np.ndarray, "resamples series"]:
    """Mean of each series in each resample; infinite where an infinite value was drawn."""
    is_infinite = np.isinf(values)
    finite = np.where(is_infinite, 0.0, values)
    centre = finite.mean(axis=0, keepdims=True)  # what is left is small, and float32 will do
    small = (finite - centre).astype(np.float32)
    ends = [(values == end).astype(np.float32) for end in (np.inf, -np.inf)]
    means = []
    for counts in _resample_counts(len(values), seed):
        means.append(counts @ small / len(values) + centre)
        if is_infinite.any():
            above, below = (counts @ end > 0 for end in ends)
            means[-1][above], means[-1][below] = np.inf, -np.inf
            means[-1][above & below] = np.nan
    return np.concatenate(means)


def _blocks(rows: int, width: int) -> Iterator[int]:
    """Numbers of rows that together are `rows`, each block of a bounded size."""
    most = max(1, _BLOCK_NUMBERS // max(width, 1))
    for first in range(0, rows, most):
        yield min(most, rows - first)


def _resample_counts(num_users: int, seed: int) -> Iterator[Float[np.ndarray, "block users"]]:
    """How often each user is drawn in each resample; blocks change nothing."""
    rng = np.random.default_rng(seed)
    for rows in _blocks(_RESAMPLES, num_users):
        drawn = rng.integers(0, num_users, (rows, num_users))
        drawn += np.arange(rows)[:, None] * num_users
        counts = np.bincount(drawn.ravel(), minlength=rows * num_users)
        yield counts.reshape(rows, num_users).astype(np.float32)


def _random_halves(
    num_users: int, flips: int, seed: int
) -> Iterator[Float[np.ndarray, "block users"]]:
    """1 where a user keeps the sign, 0 where it is flipped; blocks change nothing."""
    rng = np.random.default_rng(seed)
    words = -(-num_users // 32)  # a row takes whole words of the random stream
    for rows in _blocks(flips, num_users):
        drawn = np.frombuffer(rng.bytes(4 * words * rows), np.uint8).reshape(rows, -1)
        yield np.unpackbits(drawn, axis=1, count=num_users).astype(np.float32)


def _exact_p(differences: Float[np.ndarray, " users"]) -> float:
    """Share of all patterns of signs whose sum is as far from 0 as the observed."""
    users = np.arange(len(differences))
    is_kept = (np.arange(2 ** len(users))[:, None] >> users[None, :]) & 1 == 1
    sums = np.where(is_kept, differences[None, :], -differences[None, :]).sum(axis=1)
    far = abs(differences.sum()) - _NOISE * np.abs(differences).sum()
    return float((np.abs(sums) >= far).mean())
