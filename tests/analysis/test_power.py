"""Planning: the published numbers, and designs that keep what is promised of them."""

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from analysis.errors import DataError
from analysis.fool_rate import fool_rates
from analysis.power import Spread, main, power, spread_of, standard_error
from analysis.simulation import simulate
from analysis.tables import validate


def test_standard_errors_of_the_specification():
    table = power([50, 100], [100, 200], 50)
    np.testing.assert_allclose(table["se"], [0.0235, 0.0208, 0.0199, 0.0166], atol=5e-5)
    assert power(10**6, 100, 100)["se"][0] == pytest.approx(0.0155, abs=5e-5)  # images alone


def test_detectable_differences_of_the_specification():
    """There by 2.8 standard errors; by t a little more, and between subjects from one example's standard error."""
    expected = {"chance": (0.066, 0.0235), "between": (0.067, 0.0239), "within": (0.037, 0.0133)}
    for comparison, (detectable, se) in expected.items():
        row = power(50, 100, 50, comparison=comparison).iloc[0]
        assert row["detectable"] == pytest.approx(detectable, rel=0.06)
        assert row["se"] == pytest.approx(se, rel=0.04)
        at_that = power(50, 100, 50, effect=row["detectable"], comparison=comparison)
        assert at_that["power"][0] == pytest.approx(0.8, abs=1e-9)


def test_models_that_order_images_otherwise_are_harder_to_compare():
    apart = power(50, 100, 50, comparison="within", spread=Spread(subject_correlation=0, image_correlation=0))
    independent = np.sqrt(2) * power(50, 100, 50)["se"][0]
    assert power(50, 100, 50, comparison="within")["se"][0] < apart["se"][0] < independent


def test_what_subjects_share_cancels_within_them():
    shared, apart = (standard_error(50, 100, 50, "within", Spread(subject_correlation=r)) for r in (1, 0))
    assert apart**2 - shared**2 == pytest.approx(2 * Spread().subject ** 2 / 50, rel=1e-9)


@pytest.mark.parametrize(("subjects", "margin"), [(200, 0.05), (10, 0.08), (5, 0.15)])
def test_power_where_there_is_no_difference(subjects, margin):
    """The test errs in 5 %; TOST finds what it finds in drawn estimates with drawn standard errors."""
    row = power(subjects, 150, 50, effect=0, margin=margin).iloc[0]
    assert row["power"] == pytest.approx(0.05, abs=1e-9)
    rng, df = np.random.default_rng(0), min(subjects, 150) - 1
    estimate, se = rng.normal(0, row["se"], 100_000), row["se"] * np.sqrt(rng.chisquare(df, 100_000) / df)
    shown = np.mean(np.abs(estimate) + stats.t.ppf(0.95, df) * se < margin)
    assert 0.1 < shown < 0.95 and row["power_equivalence"] == pytest.approx(shown, abs=0.005)


def test_spread_comes_from_the_example(between):
    spread = spread_of(between).iloc[0]
    assert spread["subject"] == pytest.approx(0.103, abs=5e-4) and spread["image"] == pytest.approx(0.155, abs=5e-4)
    assert spread["response"] == pytest.approx(0.5, abs=1e-3)


def test_power_is_kept_by_simulated_studies():
    effect, studies = 0.09, 80
    planned = power(30, 60, 30, effect=effect)["power"][0]
    found = [
        fool_rates(simulate({"a": 0.5 - effect}, subjects=30, images=60, trials=30, catch=0, seed=s))
        for s in range(studies)
    ]
    share = np.mean([rates["p_50"][0] < 0.05 for rates in found])
    assert abs(share - planned) < 3 * np.sqrt(planned * (1 - planned) / studies)


@pytest.mark.parametrize("within", [False, True])
def test_simulated_studies_are_valid_and_balanced(within):
    rates = {"a": 0.2, "b": 0.6}
    study = validate(simulate(rates, subjects=100, images=90, trials=30, within=within, flagged=0.1, seed=4))
    tests = study[study["kind"] == "test"]
    assert tests["subject"].nunique() == (100 if within else 200)
    assert set(tests.groupby("subject").size()) == {30}
    assert np.ptp(tests.groupby(["subject", "model"]).size() if within else [0]) == 0
    assert np.ptp(tests.groupby(["model", "image_id"]).size()) <= 1 + within
    left = (tests["real_side"] == "left").groupby(tests["subject"]).mean()
    assert set(left) == {0.5}
    for row in fool_rates(study).itertuples():
        assert abs(row.fool_rate - rates[row.model]) < 3 * row.se
    assert 0.08 < (study["timing_ok"] == 0).mean() < 0.12


def test_simulated_groups_share_their_part_of_the_images_variance():
    """Half the logit variance of 0.8² is between 200 groups of 5: of the images' rates, about as much."""
    setting = {"subjects": 1000, "images": 1000, "trials": 250, "groups": 200, "subject_sd": 0.0, "catch": 2}
    shares = []
    for seed in range(4):  # each off by 0.05 or so
        study = simulate({"a": 0.5}, seed=seed, **setting)
        assert set(study.loc[study["kind"] != "test", "group"]) == {""}
        tests = study[study["kind"] == "test"]
        assert tests.groupby("group")["image_id"].nunique().eq(5).all() and tests["group"].nunique() == 200
        rates = tests.groupby(["group", "image_id"])["picked_model"].mean()
        within = rates.groupby("group").var().mean() - 0.22 / 250  # of binomial noise
        between = rates.groupby("group").mean().var() - rates.groupby("group").var().mean() / 5
        shares.append(between / (between + within))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.075)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_simulated_images_differ_between_models_as_much_as_asked_for(correlation):
    setting = {"subjects": 200, "images": 500, "trials": 500, "groups": 250, "subject_sd": 0.0, "catch": 0}
    study = simulate({"a": 0.5, "b": 0.5}, image_correlation=correlation, seed=1, **setting)
    rates = study[study["kind"] == "test"].groupby(["image_id", "model"])["picked_model"].mean().unstack()
    noise = 0.22 / 200
    covariance = rates.cov().to_numpy()
    estimate = covariance[0, 1] / np.sqrt((covariance[0, 0] - noise) * (covariance[1, 1] - noise))
    assert estimate == pytest.approx(correlation, abs=0.1)


def test_simulations_are_seeded():
    first, again, other = (simulate({"a": 0.5}, subjects=3, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)


def test_exposures_have_their_own_rates():
    study = simulate({"a": (0.2, 0.7)}, exposures=(3000, 12000), subjects=60, seed=1)
    rates = fool_rates(study, ["exposure_ms"])
    assert rates["exposure_ms"].tolist() == [3000, 12000]
    assert (abs(rates["fool_rate"] - [0.2, 0.7]) < 3 * rates["se"]).all()


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ((1, 100, 50), "1 subjects, 100 images, 50 trials: needs at least 2, 2 and 1"),
        ((50, 40, 50), "50 trials of 40 images: a subject would see an image twice"),
    ],
)
def test_designs_that_cannot_be(design, message):
    with pytest.raises(DataError, match=message):
        power(*design)
    with pytest.raises(DataError, match='comparison "twice"'):
        power(50, 100, 50, comparison="twice")
    with pytest.raises(DataError, match="effect = nan"):
        power(50, 100, 50, effect=np.nan)
    with pytest.raises(DataError, match="correlations must be"):
        Spread(image_correlation=2)
    with pytest.raises(DataError, match="squares together below"):
        Spread(subject=0.5, image=0.2)


def test_command_line():
    result = CliRunner().invoke(main, ["--subjects", "50", "--subjects", "100", "--images", "100", "--trials", "50"])
    assert result.exit_code == 0 and "0.0235" in result.output and "0.0199" in result.output
    arguments = ["--comparison", "between", "--image-correlation", "0.5"]
    apart = standard_error(50, 100, 50, "between", Spread(image_correlation=0.5))
    assert f"{apart:.4f}" in CliRunner().invoke(main, arguments).output
    refused = CliRunner().invoke(main, ["--trials", "500"])
    assert refused.exit_code == 1 and refused.output.startswith("Error: 500 trials of 100 images")
