"""What intervals and tests promise is kept in seeded studies; profiling/interval_coverage.py has longer ones.

Bounds are those of the promise and 2.5 standard errors of this many studies.
"""

import numpy as np
import pandas as pd
import pytest
from interval_coverage import (
    differences_of,
    many,
    misses,
    promised,
    rate_studies,
    side_studies,
    unrelated,
)
from known_judges import QUIET, images_covered
from scipy import special, stats

from analysis.fool_rate import fool_rates
from analysis.power import spread_of
from analysis.proportions import ClusteredRates
from analysis.simulation import _center, simulate

CROPS = {"subjects": 50, "images": 64, "trials": 32}


def slack(share: float, studies: int) -> float:
    return 2.5 * np.sqrt(share * (1 - share) / studies)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3, 0.98])
def test_both_tails_of_extreme_rates_miss_equally(rate):
    tails = misses(rate_studies(rate, 500, subjects=50, images=100, trials=50), rate)
    assert 0.93 - slack(0.95, 500) < 1 - sum(tails) < 0.97 + slack(0.95, 500)
    assert all(0.015 - slack(0.025, 500) < tail < 0.035 + slack(0.025, 500) for tail in tails)


@pytest.mark.parametrize(("design", "rate"), [((10, 20, 10), 0.02), ((20, 50, 20), 0.05), ((25, 100, 10), 0.98)])
def test_small_studies_err_wide(design, rate):
    """A tail of few picks is a whole number of them: it can be 0, but is never more than was promised."""
    tails = misses(rate_studies(rate, 500, **dict(zip(("subjects", "images", "trials"), design, strict=True))), rate)
    assert 1 - sum(tails) > 0.95 - slack(0.95, 500)
    assert max(tails) < 0.035 + slack(0.025, 500)


@pytest.mark.parametrize("groups", [7, 20])
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.2, 0.3])
def test_few_photographs_at_low_and_high_rates(rate, groups):
    """With many answers to each: 40,000 studies, of which Student's t of the logit alone misses up to 7.6 % above."""
    effects = 0.8 * np.random.default_rng(0).normal(size=(40_000, groups))
    chance = special.expit(_center(rate, 0.8) + effects)
    found, variance = chance.mean(axis=1), chance.var(axis=1, ddof=1) / groups
    n, df = np.full(len(found), 1e5), np.full(len(found), groups - 1.0)
    rates = ClusteredRates(found, n, variance / (found * (1 - found) / n), df)
    low, high = rates.interval()
    assert max((low > rate).mean(), (high < rate).mean()) < 0.035
    assert 0.94 < ((low <= rate) & (rate <= high)).mean() < 0.975
    mirrored = ClusteredRates(1 - found, n, rates.design_effect, df)
    np.testing.assert_allclose(mirrored.interval(), (1 - high, 1 - low), rtol=1e-9)
    p = rates.p_two_sided(rate)
    np.testing.assert_array_equal(p < 0.05, (low > rate) | (high < rate))
    np.testing.assert_allclose(mirrored.p_two_sided(1 - rate), p, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("rate", "share", "groups"), [(0.5, 0.5, 7), (0.5, 0.8, 7), (0.1, 0.8, 7), (0.3, 0.8, 20)])
def test_groups_of_images_are_drawn_together(rate, share, groups):
    """As 64 images, the intervals of 7 photographs cover 6 of 10."""
    rows = rate_studies(rate, 300, share, groups=groups, **CROPS)
    assert 0.93 - slack(0.95, 300) < 1 - sum(misses(rows, rate)) < 0.97 + slack(0.95, 300)
    few = "few photographs: 7 groups of images" if groups == 7 else ""
    assert rows["note"].eq(few).all()


def test_groups_that_are_not_known_make_intervals_too_narrow():
    plan = simulate({"m": 0.5}, groups=7, **CROPS, **QUIET)
    alone = many(lambda t: fool_rates(t.drop(columns="group"), ["replication"]), 100, plan=plan, rates={"m": 0.5})
    assert 1 - sum(misses(alone, 0.5)) < 0.75


@pytest.mark.parametrize("within", [False, True])
def test_differences_of_models_before_7_photographs(within):
    plan = simulate({"a": 0.5, "b": 0.5}, groups=7, within=within, **CROPS, **QUIET)
    rows = differences_of(plan, {"a": 0.45, "b": 0.35}, 250, correlation=0.5, group_share=0.8)
    assert 0.93 - slack(0.95, 250) < 1 - sum(misses(rows, 0.1)) < 0.97 + slack(0.95, 250)
    assert rows["note"].eq("few photographs: 7 groups of images").all()


def test_groups_of_unequal_sizes():
    """Of 64 images, 28 are of one photograph: there are fewer degrees of freedom than photographs."""
    plan = simulate({"m": 0.5}, **CROPS, **QUIET)
    sizes = np.repeat(np.arange(7), [28, 10, 8, 6, 5, 4, 3])
    plan = plan.assign(group=[f"g{sizes[int(image)]}" for image in plan["image_id"]])
    rows = many(lambda table: fool_rates(table, ["replication"]), 400, plan=plan, rates={"m": 0.5})
    assert 1 - sum(misses(rows, 0.5)) > 0.94 - slack(0.95, 400)


def test_subjects_may_like_sides_of_their_own():
    rows = side_studies(250)
    assert (rows["left_p"] < 0.05).mean() < 0.06 + slack(0.05, 250)
    for name in ("d_prime", "criterion"):
        covered = (rows[name].abs() < stats.t.ppf(0.975, 49) * rows[f"{name}_se"]).mean()
        assert 0.93 - slack(0.95, 250) < covered < 0.97 + slack(0.95, 250)


def test_scores_that_have_nothing_to_do_with_the_answers():
    rows = unrelated(7, 60, share=0.8)
    held = (rows["spearman_low"] <= 0) & (rows["spearman_high"] >= 0)
    assert held.mean() > 0.93 - slack(0.95, 60)
    assert 0.04 - slack(0.05, 300) < (rows["p"] < 0.05).mean() < 0.06 + slack(0.05, 300)
    assert (rows.groupby(["chunk", "study"])["p_holm"].min() < 0.05).mean() < 0.06 + slack(0.05, 60)


@pytest.mark.parametrize(
    ("comparison", "correlation"), [("between", 0.0), ("between", 0.5), ("between", 1.0), ("within", 1.0)]
)
def test_power_is_kept(comparison, correlation):
    apart, equal, says = promised(comparison, correlation, 250)
    assert abs((apart["p"] < 0.05).mean() - 0.8) < 0.03 + slack(0.8, 250)
    assert 0.6 < says < 0.995 and abs(equal["equivalent"].mean() - says) < 0.03 + slack(says, 250)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_the_correlation_of_images_is_estimated(correlation):
    """On average: one study gives it roughly."""
    design = {"subjects": 60, "trials": 80, "image_correlation": correlation, **QUIET}
    spreads = pd.concat([spread_of(simulate({"a": 0.5, "b": 0.4}, seed=seed, **design)) for seed in range(15)])
    assert spreads["image_correlation"].mean() == pytest.approx(correlation, abs=0.06)
    assert spreads["subject_correlation"].isna().all()  # nobody judged both


def test_correlations_within_subjects_and_without_others():
    design = {"subjects": 60, "trials": 80, "subject_sd": 1.0, **QUIET}
    both = simulate({"a": 0.5, "b": 0.4}, within=True, **design)
    assert (spread_of(both)["subject_correlation"] > 0.9).all()
    alone = spread_of(both[both["model"] == "a"])
    assert alone[["subject_correlation", "image_correlation"]].isna().all(axis=None)


def test_intervals_of_single_images_carry_what_is_not_known_of_the_others():
    assert 0.93 < images_covered(50, 10, 20, 10, image_sd=0.8) < 0.97
    assert images_covered(10, 10, 20, 10, image_sd=0.0) > 0.93  # with 5 views each, they might differ
