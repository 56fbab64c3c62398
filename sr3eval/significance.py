"""Intervals and paired tests over images that come in groups (crops of one photograph, say)."""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.95
EXACT_UP_TO = 14  # groups: 2 ** 14 sign patterns are all tried, beyond that RESAMPLES random ones
CHUNK = 20  # resamples in memory at a time


def group_sums(values: Array, groups: NDArray[np.object_]) -> tuple[Array, Array]:
    """Sum and count of the values in each group, in the order of the groups' names."""
    _, index = np.unique(groups.astype(str), return_inverse=True)
    counts = np.bincount(index).astype(float)
    return np.bincount(index, weights=values).astype(float), counts


def bootstrap_interval(values: Array, groups: NDArray[np.object_], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling whole groups with replacement; nan for fewer than two groups."""
    sums, counts = group_sums(values, groups)
    if len(sums) < 2:
        return float("nan"), float("nan")
    settings = {"n_resamples": RESAMPLES, "batch": CHUNK, "confidence_level": LEVEL, "method": "percentile"}
    resampled = stats.bootstrap((sums, counts), _mean, paired=True, rng=np.random.default_rng(seed), **settings)
    low, high = resampled.confidence_interval
    return float(low), float(high)


def _mean(sums: Array, counts: Array, axis: int) -> Array:
    """Over all images of the groups, from each group's sum and count."""
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def sign_flip_p(differences: Array, groups: NDArray[np.object_], seed: int = 0) -> float:
    """Two-sided p of "the mean difference is zero", flipping the signs of whole groups: exact up to 14 groups.

    Differences of 0/1 scores of ungrouped images are all -1, 0 or 1: then it is exact, and McNemar's exact test.
    """
    sums, _ = group_sums(differences, groups)
    sums = sums[sums != 0]
    if len(sums) == 0:
        return 1.0
    if np.ptp(np.abs(sums)) == 0:
        return float(stats.binomtest(int((sums > 0).sum()), len(sums)).pvalue)
    observed = abs(sums.sum())
    tolerance = 1e-12 * np.abs(sums).sum()  # equal sums, added in another order, differ by rounding
    if len(sums) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums))))
        return float(np.mean(np.abs(signs @ sums) >= observed - tolerance))
    rng = np.random.default_rng(seed)
    as_extreme = 0
    for _ in range(RESAMPLES // CHUNK):
        signs = rng.choice((-1.0, 1.0), size=(CHUNK, len(sums)))
        as_extreme += int(np.sum(np.abs(signs @ sums) >= observed - tolerance))
    return (as_extreme + 1) / (RESAMPLES + 1)  # with the observed signs among them, so that p is never 0


def sign_flip_p_of_many(differences: Array, groups: NDArray[np.object_]) -> float:
    """`sign_flip_p` where a p of few resamples would not survive the adjustment over many tests, or take too long.

    Beyond 14 groups it is the normal limit: a sum of randomly signed terms has their sum of squares as variance, and
    tails that are no heavier than the normal ones (Hoeffding 1963).
    """
    sums, _ = group_sums(differences, groups)
    sums = sums[sums != 0]
    if len(sums) <= EXACT_UP_TO or np.ptp(np.abs(sums)) == 0:
        return sign_flip_p(differences, groups)
    return float(2 * stats.norm.sf(abs(sums.sum()) / np.sqrt(np.sum(sums**2))))


def jackknife_error(value: float, n: int, without: Array, counts: Array) -> float:
    """Standard error of a statistic of n images by the delete-a-group jackknife, for groups of any sizes.

    without: the statistic when each group is left out; counts: of how many images that was. Source: Busing, Meijer and
    van der Leeden 1999, "Delete-m jackknife for unequal m". A bias that is proportional to 1/n drops out.
    """
    groups = len(without)
    h = n / (n - counts)
    pseudo = h * value - (h - 1) * without
    center = groups * value - float(np.sum(counts / n * without))
    return float(np.sqrt(np.sum((pseudo - center) ** 2 / (h - 1)) / groups))


def t_interval(value: float, error: float, groups: int) -> tuple[float, float]:
    """95 % interval of Student's t with groups - 1 degrees of freedom, centred on the value."""
    half = float(stats.t.ppf((1 + LEVEL) / 2, groups - 1)) * error
    return value - half, value + half


def t_p(value: float, error: float, groups: int) -> float:
    """Two-sided p of "the value is zero"."""
    if error == 0:
        return float(value == 0)
    return float(2 * stats.t.sf(abs(value) / error, groups - 1))


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    # scipy has none; statsmodels' collects the garbage of the whole process, 0.5 s beside torch, at every call.
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
