"""Intervals and tests against scipy and closed forms."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sr3eval.significance import bootstrap_interval, holm, sign_flip_p

RNG = np.random.default_rng(0)


def test_interval_is_of_groups_drawn_again():
    """Unequal groups, drawn in a loop: a resample's mean is over all images of the groups drawn, with other draws."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 9, size=60)
    groups = np.repeat(np.arange(60), sizes)
    values = rng.gamma(2.0, size=60)[groups] + rng.normal(size=len(groups))
    parts = [values[groups == group] for group in range(60)]
    means = [np.concatenate([parts[i] for i in rng.integers(60, size=60)]).mean() for _ in range(4000)]
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap_interval(values, groups.astype(object)) == pytest.approx(tuple(expected), abs=0.03)


def test_the_interval_of_three_groups_is_exact():
    """Of all 27 draws of three groups, 1 in 27 is three times the lowest: more than 2.5 %."""
    values, groups = np.array([1.0, 5.0, 9.0, 9.0]), np.array(["a", "b", "c", "c"], object)
    assert bootstrap_interval(values, groups) == (1.0, 9.0)


def test_the_interval_of_many_groups_is_small_and_follows_the_normal():
    values = RNG.gamma(2.0, size=10_000)
    tracemalloc.start()
    low, high = bootstrap_interval(values, np.arange(10_000).astype(object))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    half = 1.96 * values.std() / np.sqrt(10_000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert peak < 2**25


def test_grouped_interval_resamples_whole_groups():
    """Images of one group are copies: the interval must be that of the groups, not of the images."""
    level = RNG.normal(size=60)
    groups = np.repeat(np.arange(60), 25).astype(str).astype(object)
    low, high = bootstrap_interval(np.repeat(level, 25), groups)
    alone = bootstrap_interval(level, np.arange(60).astype(object))
    assert (low, high) == pytest.approx(alone, abs=0.03)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Crossed with group effects: the clustered interval covers, one that ignores the groups does not."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(40), 5).astype(object)
    hits = {"clustered": 0, "ignoring groups": 0}
    for trial in range(120):
        values = np.repeat(rng.normal(size=40), 5) + 0.3 * rng.normal(size=200)
        for name, used in (("clustered", groups), ("ignoring groups", np.arange(200).astype(object))):
            low, high = bootstrap_interval(values, used, seed=trial)
            hits[name] += low <= 0 <= high
    assert hits["clustered"] / 120 > 0.88
    assert hits["ignoring groups"] / 120 < 0.75


def test_one_group_has_no_interval():
    assert np.isnan(bootstrap_interval(np.ones(3), np.array(["a"] * 3, object))).all()


def test_sign_flip_is_exact_for_few_groups():
    differences = np.array([1.0, 2.0, 3.0, 4.0])
    assert sign_flip_p(differences, np.arange(4).astype(object)) == 2 / 16
    expected = stats.permutation_test(
        (differences - 2.0,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(differences - 2.0, np.arange(4).astype(object)) == pytest.approx(expected.pvalue)


def test_sign_flip_by_sampling_follows_the_t_test():
    differences = RNG.normal(0.25, 1, size=80)
    p = sign_flip_p(differences, np.arange(80).astype(object))
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_holm_equals_the_textbook():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    p = RNG.beta(0.3, 1, size=12)
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1].tolist(), rel=1e-12)
