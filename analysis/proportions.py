"""Intervals and tests of a proportion: of independent responses (of a single subject, or to a single image) or not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
LEVEL = 0.95
MIDDLE = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class ClusteredRates:
    """Rates of n clustered responses; arrays of one shape. nan gives nan.

    design_effect: the variance of a rate as a multiple of that of n independent responses; df: degrees of freedom.

    In the middle third of [0, 1], Student's t of the rate. Beyond, where the error changes with the rate, Jeffreys'
    interval of n / design_effect independent responses, times (z / t)^2 for the degrees of freedom: its two tails miss
    equally often, and it is there for 0 of n, too. Source: Korn and Graubard 1998, "Confidence intervals for
    proportions with small expected number of positive counts".
    """

    rate: Array
    n: Array
    design_effect: Array
    df: Array

    def interval(self, level: float = LEVEL) -> tuple[Array, Array]:
        """(low, high) within [0, 1]."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self._se()
        low, high = stats.beta.interval(level, *self._beta(level))
        middle = self._middle()
        low = np.where(middle, self.rate - half, np.where(self.rate == 0, 0.0, low))
        high = np.where(middle, self.rate + half, np.where(self.rate == 1, 1.0, high))
        return np.clip(low, 0, 1), np.clip(high, 0, 1)

    def p_above(self, bound: float, level: float = LEVEL) -> Array:
        """One-sided p that speaks for a rate above `bound`: below (1 - level) / 2 where interval(level) is above it."""
        t = stats.t.sf(self._standardised(bound), self.df)
        return np.where(self._middle(), t, stats.beta.cdf(bound, *self._beta(level)))

    def p_below(self, bound: float, level: float = LEVEL) -> Array:
        """The same for a rate below `bound`."""
        t = stats.t.cdf(self._standardised(bound), self.df)
        return np.where(self._middle(), t, stats.beta.sf(bound, *self._beta(level)))

    def p_two_sided(self, bound: float) -> Array:
        return np.minimum(1.0, 2 * np.minimum(self.p_above(bound), self.p_below(bound)))

    def _middle(self) -> NDArray[np.bool_]:
        return (self.rate >= MIDDLE[0]) & (self.rate <= MIDDLE[1])

    def _se(self) -> Array:
        return np.sqrt(self.design_effect * self.rate * (1 - self.rate) / self.n)

    def _standardised(self, bound: float) -> Array:
        with np.errstate(divide="ignore"):  # 0 of n has no se, nor is it in the middle
            return (self.rate - bound) / self._se()

    def _beta(self, level: float) -> tuple[Array, Array]:
        tail = (1 + level) / 2
        n = self.n / np.maximum(self.design_effect, 1) * (stats.norm.ppf(tail) / stats.t.ppf(tail, self.df)) ** 2
        return self.rate * n + 0.5, (1 - self.rate) * n + 0.5


def wilson(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n by Wilson's score; arrays broadcast."""
    return _of_independent(k, n, level, "wilson")


def clopper_pearson(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n, exact: covers at least `level`, whatever the rate."""
    return _of_independent(k, n, level, "beta")


def jeffreys(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n: quantiles of Beta(k + 1/2, n - k + 1/2), and 0 or 1 where every response is the same.

    Source of the exception: Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".
    """
    return _of_independent(k, n, level, "jeffreys")


def _of_independent(k: ArrayLike, n: ArrayLike, level: float, method: str) -> tuple[Array, Array]:
    # Here, since the fool rates of a running study and of a benchmark's table need no statsmodels.
    from statsmodels.stats.proportion import proportion_confint

    k, n = np.asarray(k, float), np.asarray(n, float)
    low, high = proportion_confint(k, n, alpha=1 - level, method=method)
    # Where all responses are the same, statsmodels' Wilson misses the end by a rounding error.
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


def binomial_p(k: ArrayLike, n: ArrayLike) -> Array:
    """Two-sided exact p of "the rate is 50 %"."""
    k, n = np.asarray(k), np.asarray(n)
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(k, n - k), n, 0.5))
