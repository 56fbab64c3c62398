"""Against scipy and statsmodels, on data that no example has."""

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from analysis import proportions
from analysis.agreement import rank_correlations
from analysis.comparisons import compare, holm
from analysis.errors import DataError
from analysis.fool_rate import equivalence, fool_rates
from analysis.image_rates import beta_binomial
from analysis.signal_detection import side_bias
from analysis.simulation import simulate

COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None, max_examples=50)
@given(COUNTS)
def test_intervals_of_one_proportion(counts):
    k, n = counts
    test = stats.binomtest(k, n)
    for ours, theirs in ((proportions.wilson, "wilson"), (proportions.clopper_pearson, "exact")):
        np.testing.assert_allclose(ours(k, n), test.proportion_ci(method=theirs), atol=1e-12)
    if 0 < k < n:
        posterior = stats.beta(k + 0.5, n - k + 0.5)
        np.testing.assert_allclose(posterior.cdf(proportions.jeffreys(k, n)), [0.025, 0.975], atol=1e-12)
    assert proportions.binomial_p(k, n) == pytest.approx(test.pvalue, rel=1e-9)


def test_intervals_reach_the_ends():
    for interval in (proportions.wilson, proportions.clopper_pearson, proportions.jeffreys):
        low, high = interval([0, 7], [7, 7])
        assert low[0] == 0 and high[1] == 1 and 0 < high[0] < 1 and 0 < low[1] < 1


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_holm_is_the_closure_of_bonferroni(size):
    """The largest of Bonferroni's p over all families that a hypothesis is in (Marcus, Peritz and Gabriel 1976)."""
    p = np.random.default_rng(size).beta(0.3, 1, size)
    families = [f for r in range(1, size + 1) for f in itertools.combinations(range(size), r)]
    of_family = {f: min(1.0, len(f) * p[list(f)].min()) for f in families}
    expected = [max(value for f, value in of_family.items() if i in f) for i in range(size)]
    np.testing.assert_allclose(holm(p), expected, atol=1e-12)


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert np.isnan(holm([np.nan, np.nan])).all() and holm([]).tolist() == []


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


def test_interval_of_a_low_rate(study):
    """The two-way sandwich of a logistic regression on a constant; towards 50 %, further by the excess variance."""
    model = study[(study["model"] == "fsrgan") & (study["kind"] == "test")]
    fit = sm.Logit(model["picked_model"].to_numpy(float), np.ones(len(model))).fit(disp=0)
    subject, image = (model[column].astype("category").cat.codes.to_numpy() for column in ("subject", "image_id"))
    se = np.sqrt(cov_cluster_2groups(fit, subject, image, use_correction=True)[0][0, 0])
    rate = fool_rates(model, by=[]).iloc[0]
    assert rate["fool_rate"] < 1 / 3 and rate["design_effect"] > 1
    t, stretch = stats.t.ppf(0.975, rate["df"]), (1 - 2 * rate["fool_rate"]) * (se**2 - fit.bse[0] ** 2)
    ends = special.expit(fit.params[0] + np.array([-t * se, t * se + t**2 * stretch]))
    np.testing.assert_allclose(rate[["ci_low", "ci_high"]].astype(float), ends, rtol=1e-6)
    reaching_50 = max(np.roots([stretch, se, fit.params[0]]))
    assert rate["p_50"] == pytest.approx(2 * stats.t.sf(reaching_50, rate["df"]), rel=1e-5)


def test_two_way_variance_of_a_difference():
    """Unequal numbers, subjects who judged one model or both, repeated responses: the sandwich of a regression."""
    both = simulate({"a": 0.5, "b": 0.3}, within=True, subjects=20, images=30, trials=20, catch=0, practice=0, seed=3)
    some = both[(both["model"] == "a") | (both["subject"] > "s00005")].sample(frac=0.8, random_state=1)
    some = pd.concat([some, some.sample(30, random_state=2)])
    a = (some["model"] == "a").to_numpy(float)
    fit = sm.OLS(some["picked_model"].to_numpy(float), np.column_stack([np.ones(len(a)), a])).fit()
    subject, image = (some[column].astype("category").cat.codes.to_numpy() for column in ("subject", "image_id"))
    covariance = cov_cluster_2groups(fit, subject, image, use_correction=True)[0] * (len(a) - 2) / (len(a) - 1)
    pair = compare(some).iloc[0]
    assert pair["design"] == "mixed" and pair["difference"] == pytest.approx(fit.params[1], rel=1e-9)
    assert pair["se"] == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-9)
    fewest = some.groupby("model")[["subject", "image_id"]].nunique().min().min()
    assert pair["df"] == fewest - 1 < min(some["subject"].nunique(), some["image_id"].nunique()) - 1


def test_a_difference_varies_at_least_as_much_as_over_subjects_or_images():
    """A checkerboard with one field changed: V_s + V_i - V_0 is below 0."""
    field = pd.DataFrame([(str(s), str(i), (s + i) % 2) for s in range(6) for i in range(8)])
    a = field.set_axis(["subject", "image_id", "picked_model"], axis=1).assign(model="a", study="one", kind="test")
    b = a.assign(model="b", picked_model=(1 - a["picked_model"]).where(a.index != 0, 0))
    pair = compare(pd.concat([a, b]), family=[]).iloc[0]
    influence = (a["picked_model"] - a["picked_model"].mean() - b["picked_model"] + b["picked_model"].mean()) / len(a)
    sizes = {"subject": 6, "image_id": 8}
    v = [n / (n - 1) * (influence.groupby(a[column]).sum() ** 2).sum() for column, n in sizes.items()]
    assert pair["se"] == pytest.approx(np.sqrt(min(v)), rel=1e-9)


def test_simultaneous_intervals_are_bonferroni(between):
    pairs = compare(between)
    half = stats.t.ppf(1 - 0.05 / 2 / 3, pairs["df"]) * pairs["se"]
    np.testing.assert_allclose(pairs["simultaneous_low"], pairs["difference"] - half, rtol=1e-12)
    np.testing.assert_allclose(pairs["simultaneous_high"], pairs["difference"] + half, rtol=1e-12)


def test_side_bias_of_who_likes_the_left(between):
    """A fifth of the choices are left, whatever is there."""
    liked = np.arange(len(between)) % 5 == 0
    chosen = between["choice_side"].mask(liked, "left")
    bias = side_bias(between.assign(choice_side=chosen), by=[]).iloc[0]
    assert bias["criterion"] < -0.1 and bias["left_share"] == (chosen == "left").mean()
    shares = (chosen == "left").groupby(between["subject"]).mean()
    assert bias["left_p"] == pytest.approx(stats.ttest_1samp(shares, 0.5).pvalue, rel=1e-9)


def test_standard_errors_of_discrimination(study):
    """The sandwich of a probit of "left" on the real side: intercept z(F), slope z(H) - z(F)."""
    model = study[(study["model"] == "sr3") & (study["kind"] == "test")]
    left, real = ((model[column] == "left").to_numpy(float) for column in ("choice_side", "real_side"))
    fit = sm.Probit(left, np.column_stack([np.ones(len(real)), real])).fit(disp=0)
    subject, image = (model[column].astype("category").cat.codes.to_numpy() for column in ("subject", "image_id"))
    covariance = cov_cluster_2groups(fit, subject, image, use_correction=True)[0] * (len(real) - 2) / (len(real) - 1)
    bias = side_bias(model, by=[], log_linear=False).iloc[0]
    assert bias["d_prime"] == pytest.approx(fit.params[1] / np.sqrt(2), rel=1e-6)
    assert bias["criterion"] == pytest.approx(-(2 * fit.params[0] + fit.params[1]) / np.sqrt(8), rel=1e-6)
    assert bias["d_prime_se"] == pytest.approx(np.sqrt(covariance[1, 1] / 2), rel=1e-3)
    middle = np.array([2, 1]) @ covariance @ np.array([2, 1])
    assert bias["criterion_se"] == pytest.approx(np.sqrt(middle / 8), rel=1e-3)


def test_who_always_chooses_one_side_is_found_and_one_subject_is_not_tested(between):
    assert side_bias(between.assign(choice_side="left"), by=[])["left_p"][0] < 1e-9
    one = side_bias(between[between["subject"] == "A0"], by=[]).iloc[0]
    assert np.isnan(one[["left_p", "d_prime_se", "criterion_se"]].astype(float)).all()
    assert one["note"] == "not estimable: one subject" and np.isfinite(one["d_prime"])


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


@pytest.mark.parametrize("reference", ["t", "z"])
def test_equivalence_of_differences_is_two_one_sided_tests(within, reference):
    pairs = compare(within, reference=reference)
    tested = equivalence(pairs, margin=0.075)
    for row in tested.itertuples():
        lower = stats.t.sf((row.difference + 0.075) / row.se, row.df)
        upper = stats.t.cdf((row.difference - 0.075) / row.se, row.df)
        assert row.p_equivalence == pytest.approx(max(lower, upper), rel=1e-12)
        assert row.equivalent == (row.ci90_low > -0.075 and row.ci90_high < 0.075) == (row.p_equivalence < 0.05)
    assert tested["equivalent"].tolist() == [False, True, True]
    assert tested["difference"].equals(pairs["difference"])


def test_equivalence_of_differences_that_cannot_be_estimated(within):
    one = equivalence(compare(within[within["subject"] == "0"])).iloc[0]
    assert np.isnan(one["p_equivalence"]) and not one["equivalent"]


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
