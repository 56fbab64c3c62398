"""Intervals and tests of a proportion of independent responses: those of a single subject, or to a single image."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
LEVEL = 0.95


def wilson(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n by Wilson's score; arrays broadcast."""
    k, n = np.asarray(k, float), np.asarray(n, float)
    z = stats.norm.ppf((1 + level) / 2)
    center = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    # At k = 0 and k = n the bound is 0 or 1 exactly; subtraction would miss it by a rounding error.
    return np.where(k == 0, 0.0, center - half), np.where(k == n, 1.0, center + half)


def clopper_pearson(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n, exact: covers at least `level`, whatever the rate."""
    k, n = np.asarray(k, float), np.asarray(n, float)
    return beta_interval(k, n - k + 1, level)[0], beta_interval(k + 1, n - k, level)[1]


def jeffreys(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n: quantiles of Beta(k + 1/2, n - k + 1/2), and 0 or 1 where every response is the same.

    Source of the exception: Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".
    """
    k, n = np.asarray(k, float), np.asarray(n, float)
    low, high = beta_interval(k + 0.5, n - k + 0.5, level)
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


def beta_interval(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """Equal-tailed (low, high) of Beta(a, b); low is 0 where a = 0, high is 1 where b = 0."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    tail = (1 - level) / 2
    low = np.where(a > 0, stats.beta.ppf(tail, np.where(a > 0, a, 1), b), 0.0)
    high = np.where(b > 0, stats.beta.ppf(1 - tail, a, np.where(b > 0, b, 1)), 1.0)
    return low, high


def binomial_p(k: ArrayLike, n: ArrayLike) -> Array:
    """Two-sided exact p of "the rate is 50 %"."""
    k, n = np.asarray(k), np.asarray(n)
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(k, n - k), n, 0.5))
