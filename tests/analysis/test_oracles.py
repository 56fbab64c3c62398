"""Against scipy and statsmodels, on data that no example has."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from analysis import intervals
from analysis.agreement import rank_correlations
from analysis.comparisons import holm
from analysis.errors import DataError
from analysis.fool_rate import equivalence, fool_rates
from analysis.image_rates import beta_binomial

COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None, max_examples=50)
@given(COUNTS)
def test_intervals_of_one_proportion(counts):
    k, n = counts
    for ours, theirs in ((intervals.wilson, "wilson"), (intervals.clopper_pearson, "beta")):
        np.testing.assert_allclose(ours(k, n), proportion_confint(k, n, method=theirs), atol=1e-12)
    if 0 < k < n:
        np.testing.assert_allclose(intervals.jeffreys(k, n), proportion_confint(k, n, method="jeffreys"), atol=1e-12)
    assert intervals.binomial_p(k, n) == pytest.approx(stats.binomtest(k, n).pvalue, rel=1e-9)


def test_intervals_reach_the_ends():
    for interval in (intervals.wilson, intervals.clopper_pearson, intervals.jeffreys):
        low, high = interval([0, 7], [7, 7])
        assert low[0] == 0 and high[1] == 1 and 0 < high[0] < 1 and 0 < low[1] < 1


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_holm(size):
    p_values = np.random.default_rng(size).beta(0.3, 1, size)
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def test_two_way_variance(study):
    """Unequal clusters, against statsmodels' two-way sandwich of the regression on a constant."""
    model = study[(study["model"] == "sr3") & (study["kind"] == "test")].sample(frac=0.7, random_state=1)
    fit = sm.OLS(model["picked_model"].to_numpy(float), np.ones(len(model))).fit()
    subject, image = (model[column].astype("category").cat.codes.to_numpy() for column in ("subject", "image_id"))
    expected = np.sqrt(cov_cluster_2groups(fit, subject, image, use_correction=True)[0][0, 0])
    rate = fool_rates(model, by=[]).iloc[0]
    assert rate["se"] == pytest.approx(expected, rel=1e-9)
    half = stats.t.ppf(0.975, min(rate["subjects"], rate["images"]) - 1) * expected
    assert rate["ci_high"] == pytest.approx(model["picked_model"].mean() + half, rel=1e-9)


def test_equivalence_is_two_one_sided_tests(between):
    rates = fool_rates(between)
    tested = equivalence(rates, margin=0.08)
    for row in tested.itertuples():
        lower = stats.t.sf((row.fool_rate - 0.42) / row.se, 49)
        upper = stats.t.cdf((row.fool_rate - 0.58) / row.se, 49)
        assert row.p_equivalence == pytest.approx(max(lower, upper), rel=1e-12)
        assert row.equivalent == (row.ci90_low > 0.42 and row.ci90_high < 0.58) == (row.p_equivalence < 0.05)
    assert tested["equivalent"].tolist() == [True, False, False]
    assert not equivalence(rates, margin=0.05)["equivalent"].any()  # nothing rejected is nothing shown


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_beta_binomial_is_the_most_likely(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(5, 40, 60)
    k = rng.binomial(n, rng.beta(2, 3, 60))
    a, b = beta_binomial(k, n)
    best = stats.betabinom.logpmf(k, n, a, b).sum()
    for factor_a, factor_b in ((1.01, 1), (0.99, 1), (1, 1.01), (1, 0.99), (1.02, 1.02), (0.98, 0.98), (1.02, 0.98)):
        assert stats.betabinom.logpmf(k, n, a * factor_a, b * factor_b).sum() < best


def test_beta_binomial_of_equal_images_has_no_spread():
    a, b = beta_binomial([5, 5, 5, 5], [10, 10, 10, 10])
    assert a + b == pytest.approx(1e6) and a / (a + b) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("k", "n", "message"),
    [
        ([1], [2], "two images"),
        ([0, 0], [5, 5], "both kinds"),
        ([5, 5], [5, 5], "both kinds"),
        ([0, 1, 1], [1, 1, 1], "two responses or more"),  # the likelihood does not depend on a + b
        ([3, 0], [2, 2], "from 0 to n"),
    ],
)
def test_beta_binomial_of_too_little(k, n, message):
    with pytest.raises(DataError, match=message):
        beta_binomial(k, n)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_weighted_rank_correlations(seed):
    """Items that count twice are as items that are there twice; ties and infinite values are in order."""
    rng = np.random.default_rng(seed)
    x, y, weights = rng.integers(0, 6, 15).astype(float), rng.integers(0, 6, 15).astype(float), rng.integers(0, 3, 15)
    x[x == 5] = np.inf
    many_x, many_y = stats.rankdata(np.repeat(x, weights)), np.repeat(y, weights)
    if len(set(many_x)) < 2 or len(set(many_y)) < 2:
        return
    kendall, spearman = rank_correlations(x, y, weights.astype(float))
    assert kendall == pytest.approx(stats.kendalltau(many_x, many_y).statistic, abs=1e-9)
    assert spearman == pytest.approx(stats.spearmanr(many_x, many_y).statistic, abs=1e-9)
