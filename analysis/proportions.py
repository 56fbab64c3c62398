"""Intervals and tests of a proportion: of independent responses (of a single subject, or to a single image) or not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Array = NDArray[np.float64]
LEVEL = 0.95
MIDDLE = (1 / 3, 2 / 3)


@dataclass(frozen=True)
class ClusteredRates:
    """Rates of n clustered responses; arrays of one shape. nan gives nan.

    design_effect: the variance of a rate as a multiple of that of n independent responses; df: degrees of freedom.

    In the middle third of [0, 1], Student's t of the rate. Beyond, where the error changes with the rate, Student's t
    of its logit, with a design effect of at least 1. There, effects that are normal on the logit scale make a rate that
    came out too extreme come with too small an error, so the end on the side of 1/2 is `_stretch` t² further out. For
    0 of n and n of n, which have no standard error, the exact interval of independent responses. Source: Korn and
    Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts"; the stretch is
    our own: twice the term of order 1 / clusters of log-normal ones in Edgeworth's expansion, enough for SDs up to 1.
    """

    rate: Array
    n: Array
    design_effect: Array
    df: Array

    def interval(self, level: float = LEVEL) -> tuple[Array, Array]:
        """(low, high) within [0, 1]."""
        t = stats.t.ppf((1 + level) / 2, self.df)
        outwards = t * self._se()
        inwards = outwards + self._stretch() * t**2
        reaches = (-np.where(self.rate > 0.5, inwards, outwards), np.where(self.rate < 0.5, inwards, outwards))
        low, high = (np.where(self._middle(), self.rate + reach, self._from_logit(reach)) for reach in reaches)
        none, all_ = self.rate == 0, self.rate == 1
        width = 1 - ((1 - level) / 2) ** (1 / self.n)
        low = np.where(none, 0.0, np.where(all_, 1 - width, low))
        high = np.where(all_, 1.0, np.where(none, width, high))
        return np.clip(low, 0, 1), np.clip(high, 0, 1)

    def p_above(self, bound: float) -> Array:
        """One-sided p that speaks for a rate above `bound`: below (1 - level) / 2 where interval(level) is above it."""
        p = stats.t.sf(self._standardised(bound), self.df)
        return np.where(self.rate == 1, bound**self.n, np.where(self.rate == 0, 1.0, p))

    def p_below(self, bound: float) -> Array:
        """The same for a rate below `bound`."""
        p = stats.t.cdf(self._standardised(bound), self.df)
        return np.where(self.rate == 0, (1 - bound) ** self.n, np.where(self.rate == 1, 1.0, p))

    def p_two_sided(self, bound: float) -> Array:
        return np.minimum(1.0, 2 * np.minimum(self.p_above(bound), self.p_below(bound)))

    def _middle(self) -> NDArray[np.bool_]:
        return (self.rate >= MIDDLE[0]) & (self.rate <= MIDDLE[1])

    def _se(self) -> Array:
        """Of the rate in the middle, else of its logit."""
        variance = self.rate * (1 - self.rate)
        with np.errstate(divide="ignore"):  # 0 of n has none
            logit = np.sqrt(np.maximum(self.design_effect, 1) / (self.n * variance))
        return np.where(self._middle(), np.sqrt(self.design_effect * variance / self.n), logit)

    def _stretch(self) -> Array:
        """What t² adds on the logit scale towards 1/2: of the variance of the clusters, beyond that of n responses."""
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 of n has none
            between = (np.maximum(self.design_effect, 1) - 1) / (self.n * self.rate * (1 - self.rate))
        return np.where(self._middle(), 0.0, np.abs(1 - 2 * self.rate) * between)

    def _from_logit(self, reach: Array) -> Array:
        with np.errstate(invalid="ignore"):  # 0 of n: of minus infinity
            return special.expit(special.logit(self.rate) + reach)

    def _standardised(self, bound: float) -> Array:
        """The t at which an end of the interval is at `bound`, positive for a rate above it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = np.where(
                self._middle(), self.rate - bound, special.logit(self.rate) - special.logit(np.asarray(bound))
            )
            inwards = (bound - self.rate) * (0.5 - self.rate) > 0
            stretch = np.where(inwards, self._stretch(), 0.0)
            se = self._se()  # distance = t se + t² stretch
            return 2 * distance / (se + np.sqrt(se**2 + 4 * stretch * np.abs(distance)))


def wilson(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n by Wilson's score; arrays broadcast. k may be a sum of halves, of ties. nan of n = nan.

    Source: Wilson 1927; Agresti and Coull 1998, equation 2.
    """
    k, n = np.asarray(k, float), np.asarray(n, float)
    z = float(stats.norm.ppf((1 + level) / 2))
    middle, reach = k + z**2 / 2, z * np.sqrt(k * (1 - k / n) + z**2 / 4)
    # Where all responses are the same, the end is missed by a rounding error.
    low, high = (middle - reach) / (n + z**2), (middle + reach) / (n + z**2)
    return np.where((k == 0) & (n > 0), 0.0, low), np.where(k == n, 1.0, high)


def clopper_pearson(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n, exact: covers at least `level`, whatever the rate."""
    return _of_independent(k, n, level, "beta")


def jeffreys(k: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Array, Array]:
    """(low, high) of k of n: quantiles of Beta(k + 1/2, n - k + 1/2), and 0 or 1 where every response is the same.

    Source of the exception: Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".
    """
    return _of_independent(k, n, level, "jeffreys")


def _of_independent(k: ArrayLike, n: ArrayLike, level: float, method: str) -> tuple[Array, Array]:
    # Here, since the rates of a running study and of a benchmark's table need no statsmodels.
    from statsmodels.stats.proportion import proportion_confint

    k, n = np.asarray(k, float), np.asarray(n, float)
    low, high = proportion_confint(k, n, alpha=1 - level, method=method)
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


def binomial_p(k: ArrayLike, n: ArrayLike) -> Array:
    """Two-sided exact p of "the rate is 50 %"."""
    k, n = np.asarray(k), np.asarray(n)
    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(k, n - k), n, 0.5))
