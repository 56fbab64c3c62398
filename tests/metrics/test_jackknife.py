"""Errors of set metrics and tests between them, against textbooks."""

import math

import numpy as np
import pytest
from scipy import stats

from sr3eval.significance import jackknife_error, sign_flip_p, t_interval, t_p

RNG = np.random.default_rng(0)


def left_out(parts, statistic):
    """(value, n, the statistic without each part, how many that was of), as `jackknife_error` takes them."""
    rest = [np.concatenate(parts[:j] + parts[j + 1 :]) for j in range(len(parts))]
    whole = np.concatenate(parts)
    return statistic(whole), len(whole), np.array([statistic(r) for r in rest]), np.array([float(len(r)) for r in rest])


def test_of_a_mean_it_is_the_textbook_s_standard_error():
    values = RNG.gamma(2, size=60)
    single = jackknife_error(*left_out(list(values[:, None]), np.mean))
    assert single == pytest.approx(values.std(ddof=1) / math.sqrt(60), rel=1e-12)
    tens = list(values.reshape(6, 10))
    assert jackknife_error(*left_out(tens, np.mean)) == pytest.approx(stats.sem([np.mean(t) for t in tens]), rel=1e-12)


@pytest.mark.parametrize("statistic", [np.mean, np.median, lambda x: x.var() / x.mean()])
def test_unequal_groups_follow_the_published_formula(statistic):
    """Busing, Meijer and van der Leeden 1999, equations for the delete-m_j estimator and its variance, word by word."""
    parts = [RNG.gamma(2, size=m) for m in (3, 8, 5, 21, 2, 13)]
    value, n, without, counts = left_out(parts, statistic)
    g, m = len(parts), [len(part) for part in parts]
    estimate = g * value - sum((1 - m[j] / n) * without[j] for j in range(g))
    variance = 0.0
    for j in range(g):
        h = n / m[j]
        variance += (h * value - (h - 1) * without[j] - estimate) ** 2 / (h - 1) / g
    assert jackknife_error(value, n, without, counts) == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_a_bias_proportional_to_one_over_n_drops_out():
    parts = [RNG.normal(size=m) for m in (3, 8, 5, 21)]
    plain, biased = (left_out(parts, lambda x, b=b: x.mean() + b / len(x)) for b in (0.0, 7.0))
    assert jackknife_error(*biased) == pytest.approx(jackknife_error(*plain), rel=1e-9)


def test_intervals_and_p_are_student_s():
    values = RNG.normal(0.3, 1, size=20)
    error = stats.sem(values)
    expected = stats.ttest_1samp(values, 0)
    assert t_interval(values.mean(), error, 20) == pytest.approx(tuple(expected.confidence_interval()))
    assert t_p(values.mean(), error, 20) == pytest.approx(expected.pvalue)
    assert t_p(-values.mean(), error, 20) == pytest.approx(expected.pvalue)
    assert (t_p(0.0, 0.0, 20), t_p(0.1, 0.0, 20)) == (1.0, 0.0)


@pytest.mark.parametrize(("only_a", "only_b", "both"), [(0, 0, 5), (1, 0, 3), (3, 9, 40), (12, 12, 1), (40, 61, 200)])
def test_differences_of_errors_get_mcnemar_s_exact_test(only_a, only_b, both):
    """Its p by counting coin flips: twice the tail of Binomial(n, 1/2) at the smaller count, at most 1."""
    differences = RNG.permutation(np.repeat([1.0, -1.0, 0.0], [only_a, only_b, both]))
    n, least = only_a + only_b, min(only_a, only_b)
    exact = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
    found = sign_flip_p(differences, np.arange(len(differences)).astype(object))
    assert found == pytest.approx(exact, rel=1e-9)
