"""Response times, their outliers, and answers that change in the course of a session."""

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from analysis.response_times import order_effects, response_times, time_outliers
from analysis.simulation import simulate


@pytest.fixture(scope="module")
def responses():
    return simulate({"a": 0.5, "b": 0.3}, subjects=20, images=40, trials=20, catch=4, practice=2, seed=1)


def test_times_are_tabled_by_what_was_chosen(responses):
    slow = responses["picked_model"] == 1
    times = response_times(responses.assign(rt_ms=responses["rt_ms"].where(~slow, responses["rt_ms"] + 5000)))
    tests = responses[(responses["kind"] == "test") & (responses["model"] == "a")]
    row = times.set_index("model").loc["a"]
    assert row["n"] == len(tests) == 400 and row["missing"] == 0
    assert row["median_real"] == pytest.approx(tests.loc[tests["picked_model"] == 0, "rt_ms"].median())
    assert row["median_model"] == pytest.approx(tests.loc[tests["picked_model"] == 1, "rt_ms"].median() + 5000)
    assert row["q25"] < row["median"] < row["q75"]


def test_outliers_are_measured_by_the_subjects_own_pace(responses):
    """In each subject one answer 20 times as slow; who is slow as a whole has none. Lognormal times have 0.3 %."""
    tests = responses[responses["kind"] == "test"]
    planted = tests.groupby("subject").head(1).index
    pace = np.where(responses["subject"] == "s00003", 30.0, 1.0)
    times = (responses["rt_ms"] * pace).where(~responses.index.isin(planted), responses["rt_ms"] * pace * 20)
    found = time_outliers(responses.assign(rt_ms=times))
    assert found[planted].mean() > 0.95
    assert found[tests.index.difference(planted)].mean() < 0.03
    assert not found[responses["kind"] != "test"].any()
    assert not time_outliers(responses.assign(rt_ms=np.nan)).any()
    assert not time_outliers(responses.assign(rt_ms=500.0)).any()
    gone = response_times(responses.assign(rt_ms=np.nan))
    assert (gone["missing"] == gone["n"]).all() and gone["median"].isna().all()


def test_the_course_of_a_session_is_a_regression_with_two_way_errors(responses):
    tests = responses[(responses["kind"] == "test") & (responses["model"] == "a")]
    place = (tests.groupby("subject")["trial_index"].rank() - 1) / 19
    fit = sm.OLS(tests["picked_model"].to_numpy(float), np.column_stack([np.ones(len(tests)), place])).fit()
    subject, image = (tests[column].astype("category").cat.codes.to_numpy() for column in ("subject", "image_id"))
    covariance = cov_cluster_2groups(fit, subject, image, use_correction=True)[0] * (len(tests) - 2) / (len(tests) - 1)
    row = order_effects(responses).set_index("model").loc["a"]
    assert row["slope"] == pytest.approx(fit.params[1], rel=1e-9)
    assert row["se"] == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-9) and row["df"] == 19


def test_who_learns_is_found(responses):
    """Fooled in 80 % of the first half and 20 % of the second: a line falls by 0.9 over the session."""
    place = responses.groupby("subject")["trial_index"].rank(pct=True)
    chance = np.where(place < 0.5, 0.8, 0.2)
    learnt = responses.assign(picked_model=(np.random.default_rng(0).random(len(place)) < chance).astype(int))
    found = order_effects(learnt, by=[]).iloc[0]
    assert found["slope"] == pytest.approx(-0.9, abs=0.15) and found["p"] < 1e-6
    one = responses[responses["kind"] == "test"].groupby("subject").head(1)
    assert order_effects(one, by=[])["note"].tolist() == ["not estimable: one trial a subject"]
