"""Worked examples A and B, whose numbers were computed with scipy and statsmodels, apart from this code."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from analysis import signal_detection
from analysis.comparisons import compare
from analysis.fool_rate import fool_rates, pooled, subject_summary
from analysis.image_rates import extremes, image_rates
from analysis.pigeonhole import pigeonhole


def table(frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return frame[columns].to_numpy(float)


@pytest.fixture(scope="module")
def tiny():
    """Example A: 8 subjects, k of 10."""
    rows = [
        {"study": "A", "subject": str(s), "image_id": str(i), "kind": "test", "picked_model": int(i < k)}
        for s, k in enumerate([3, 4, 5, 2, 4, 6, 3, 5])
        for i in range(10)
    ]
    return pd.DataFrame(rows)


def test_example_a(tiny):
    subjects = subject_summary(tiny, by=[])
    columns = ["fool_rate", "sd", "se", "ci_low", "ci_high", "t", "p_50"]
    expected = [0.4, 0.13093073, 0.04629100, 0.29053917, 0.50946083, -2.16024690, 0.06758329]
    np.testing.assert_allclose(table(subjects, columns)[0], expected, atol=5.1e-9)  # as printed: 8 decimals
    assert subjects["se"][0] == pytest.approx(np.sqrt(0.12 / 7 / 8), rel=1e-12)  # 0.12: sum of squared deviations
    together = pooled(tiny, by=[])
    columns = ["wilson_low", "wilson_high", "exact_low", "exact_high", "jeffreys_low", "jeffreys_high", "binomial_p"]
    expected = [0.29961828, 0.50954535, 0.29200936, 0.51562306, 0.29775817, 0.50933257, 0.09291188]
    np.testing.assert_allclose(table(together, columns)[0], expected, atol=5.1e-9)
    assert signal_detection.unbiased_d_prime(0.4) == pytest.approx(0.35828691, abs=5.1e-9)


def test_the_data_of_example_b(example_rows):
    assert hashlib.sha256(example_rows["A"].astype("<i4").tobytes()).hexdigest().startswith("b5276282572cf591")
    for rows in example_rows.values():
        assert set(np.bincount(rows[:, 1])) == {25}


def test_example_b_headline(between):
    rates = fool_rates(between)
    assert rates[["n", "k", "subjects", "images"]].to_numpy().tolist() == [
        [2500, 1187, 50, 100],
        [2500, 1008, 50, 100],
        [2500, 1137, 50, 100],
    ]
    np.testing.assert_allclose(rates["fool_rate"], [0.4748, 0.4032, 0.4548], rtol=1e-15)
    np.testing.assert_allclose(rates["se"], [0.02348605, 0.02396378, 0.02332864], atol=5.1e-9)
    intervals = [[0.42760, 0.52200], [0.35504, 0.45136], [0.40792, 0.50168]]
    np.testing.assert_allclose(table(rates, ["ci_low", "ci_high"]), intervals, atol=5.1e-6)
    np.testing.assert_allclose(rates["design_effect"], [5.53, 5.96, 5.48], atol=0.008)
    assert not rates["hyper_real"].any() and (rates["note"] == "").all()


def test_example_b_beside_the_headline(between):
    subjects = subject_summary(between)
    np.testing.assert_allclose(subjects["sd"], [0.12485485, 0.12317964, 0.11455755], atol=5.1e-9)
    np.testing.assert_allclose(subjects["se"], [0.01765714, 0.01742023, 0.01620088], atol=5.1e-9)
    np.testing.assert_allclose(subjects["t"], [-1.42718, -5.55676, -2.78997], atol=5.1e-6)
    np.testing.assert_allclose(subjects["p_50"], [0.15987, 1.119e-6, 0.0074889], rtol=5e-4)
    wilson = [[0.45528, 0.49440], [0.38413, 0.42256], [0.43536, 0.47437]]
    together = pooled(between)
    np.testing.assert_allclose(table(together, ["wilson_low", "wilson_high"]), wilson, atol=5.1e-6)
    np.testing.assert_allclose(together["binomial_p"], [0.012404, 3.32e-22, 6.70e-6], rtol=1e-3)
    bootstrap = pigeonhole(between)
    np.testing.assert_allclose(bootstrap["sd"], [0.0270, 0.0271, 0.0267], atol=5e-4)


def test_example_b_lesson(between):
    """The pooled test of A "rejects" 50 %; the honest interval contains it."""
    assert pooled(between)["binomial_p"][0] < 0.05
    rate = fool_rates(between).iloc[0]
    assert rate["ci_low"] < 0.5 < rate["ci_high"] and rate["p_50"] > 0.05


def test_example_b_signal_detection(between):
    bias = signal_detection.side_bias(between, log_linear=False)
    expected = [[0.525493, 0.475078, 0.089419], [0.602228, 0.408689, 0.346508], [0.540050, 0.449961, 0.160031]]
    np.testing.assert_allclose(table(bias, ["hit_rate", "false_alarm_rate", "d_prime"]), expected, atol=5.1e-7)
    corrected = signal_detection.side_bias(between)
    assert (corrected["d_prime"] < bias["d_prime"]).all()  # the correction draws rates to 1/2
    np.testing.assert_allclose(corrected["d_prime"], bias["d_prime"], atol=3e-4)


def test_example_b_images(between):
    rates = image_rates(between)
    fits = rates.drop_duplicates("model")
    expected = [[4.3596, 4.8188], [3.1926, 4.6686], [3.5096, 4.2033]]
    np.testing.assert_allclose(table(fits, ["a", "b"]), expected, atol=5.1e-5)
    ends = extremes(rates, count=1)
    np.testing.assert_allclose(ends["fool_rate"], [0.08, 0.92, 0.04, 0.92, 0.08, 0.88], rtol=1e-15)
    np.testing.assert_allclose(ends["shrunk"], [0.186, 0.800, 0.128, 0.797, 0.168, 0.780], atol=5.1e-4)
    assert (ends["n"] == 25).all()


def test_example_b_differences_between_subjects(between):
    pairs = compare(between, reference="z")
    assert pairs[["model_a", "model_b", "design"]].to_numpy().tolist() == [
        ["A", "B", "between"],
        ["A", "C", "between"],
        ["B", "C", "between"],
    ]
    np.testing.assert_allclose(pairs["difference"], [0.0716, 0.0200, -0.0516], atol=1e-15)
    np.testing.assert_allclose(pairs["se"].iloc[[0, 2]], [0.02385882, 0.02293135], atol=5.1e-9)
    np.testing.assert_allclose(pairs["p"], [0.0026911, 0.3773133, 0.0244366], atol=5.1e-8)
    np.testing.assert_allclose(pairs["p_holm"], [0.0080732, 0.3773133, 0.0488732], atol=5.1e-8)


def test_example_b_differences_within_subjects(within):
    pairs = compare(within, reference="z")
    assert (pairs["design"] == "within").all()
    assert pairs["se"][0] == pytest.approx(0.01328129, abs=5.1e-9)
    np.testing.assert_allclose(pairs["p"], [7.005e-8, 0.118843, 6.046e-5], rtol=1e-4)
    np.testing.assert_allclose(pairs["p_holm"], [2.101e-7, 0.118843, 1.209e-4], rtol=3e-4)


def test_example_b_gee(between):
    """GEE speaks of new subjects on these images, and is therefore narrower than the headline."""
    expected = {"A": (-0.100885, 0.070097), "B": (-0.392149, 0.071667), "C": (-0.181295, 0.064681)}
    rates = fool_rates(between).set_index("model")
    for model, part in between.groupby("model"):
        ones = np.ones((len(part), 1))
        clusters = {"groups": part["subject"], "cov_struct": sm.cov_struct.Exchangeable()}
        gee = sm.GEE(part["picked_model"].to_numpy(), ones, family=sm.families.Binomial(), **clusters).fit()
        np.testing.assert_allclose([gee.params[0], gee.bse[0]], expected[model], atol=1e-6)
        rate = rates.loc[model, "fool_rate"]
        assert gee.bse[0] * rate * (1 - rate) < rates.loc[model, "se"]
