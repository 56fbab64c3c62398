"""Intervals and paired tests over images that come in groups (crops of one photograph, say)."""

import itertools

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.95
EXACT_UP_TO = 14  # groups: 2 ** 14 sign patterns are all tried, beyond that RESAMPLES random ones
CHUNK = 200  # resamples in memory at a time


def group_sums(values: Array, groups: NDArray[np.object_]) -> tuple[Array, Array]:
    """Sum and count of the values in each group, in the order of the groups' names."""
    _, index = np.unique(groups.astype(str), return_inverse=True)
    counts = np.bincount(index).astype(float)
    return np.bincount(index, weights=values).astype(float), counts


def bootstrap_interval(values: Array, groups: NDArray[np.object_], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling whole groups with replacement; nan for fewer than two groups."""
    sums, counts = group_sums(values, groups)
    n = len(sums)
    if n < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES // CHUNK):
        times = rng.multinomial(n, np.full(n, 1 / n), size=CHUNK)  # how often each group was drawn
        means.append(times @ sums / (times @ counts))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p(differences: Array, groups: NDArray[np.object_], seed: int = 0) -> float:
    """Two-sided p of "the mean difference is zero", flipping the signs of whole groups: exact up to 14 groups."""
    sums, _ = group_sums(differences, groups)
    observed = abs(sums.sum())
    tolerance = 1e-12 * np.abs(sums).sum()
    if len(sums) <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums))))
        return float(np.mean(np.abs(signs @ sums) >= observed - tolerance))
    rng = np.random.default_rng(seed)
    as_extreme = 0
    for _ in range(RESAMPLES // CHUNK):
        signs = rng.choice((-1.0, 1.0), size=(CHUNK, len(sums)))
        as_extreme += int(np.sum(np.abs(signs @ sums) >= observed - tolerance))
    return (as_extreme + 1) / (RESAMPLES + 1)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
