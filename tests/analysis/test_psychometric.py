"""Thresholds of viewing time: the fit against another optimiser, the interval against simulated studies."""

import numpy as np
import pytest
from known_judges import THRESHOLD_MS, timed, timed_thresholds
from scipy import optimize, stats
from scipy.special import expit

from analysis.errors import DataError
from analysis.psychometric import NOT_BETTER, fit, thresholds
from analysis.simulation import simulate

TIMES = (250, 500, 1000, 2000, 4000)
SIZE = {"subjects": 10, "images": 40, "trials": 20}


def study(seed, times=TIMES, slope=1.0):
    return timed(seed, times, slope, **SIZE)


def test_the_fit_is_that_of_another_optimiser():
    responses = study(1)
    x, right = np.log2(responses["exposure_ms"].to_numpy(float)), 1 - responses["picked_model"].to_numpy()

    def loss(parameters):
        p = 0.5 + 0.5 * expit(parameters[0] + parameters[1] * x)
        return -stats.bernoulli.logpmf(right, p).sum()

    other = optimize.minimize(loss, [-5.0, 0.5], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
    (a, b), _ = fit(right, np.ones_like(x), x)
    np.testing.assert_allclose((a, b), other, rtol=1e-4)
    row = thresholds(responses).iloc[0]
    assert row["threshold"] == pytest.approx(2 ** (-other[0] / other[1]), rel=1e-4) and row["levels"] == 5


def test_the_best_of_several_maxima_is_found():
    """Against all curves of a fine grid, for answers whose likelihood has a maximum of a falling curve, too."""
    x, n = np.log2([0.5, 1, 2, 4]), np.full(4, 240.0)
    right = np.array([134.0, 114.0, 157.0, 161.0])
    a, b = np.meshgrid(np.linspace(-15, 15, 301), np.linspace(-15, 15, 301))
    p = 0.5 + 0.5 * expit(a[..., None] + b[..., None] * x)
    (best_a, best_b), _ = fit(right, n, x)
    best = stats.binom.logpmf(right, n, 0.5 + 0.5 * expit(best_a + best_b * x)).sum()
    assert best_b > 0 and best >= stats.binom.logpmf(right, n, p).sum(axis=-1).max()


def test_influences_are_the_fit_s_own_derivatives():
    """What an answer more of one cell moves, to first order, at what the curve says."""
    x, n = np.repeat([0.0, 1.0, 2.0], 2), np.full(6, 4000.0)
    right = n * (0.5 + 0.5 * expit(x - 1.2))
    (a, b), _ = fit(right, n, x)
    assert (a, b) == pytest.approx((-1.2, 1.0), abs=1e-5)
    right = right + np.eye(6)[4]
    (more_a, more_b), influence = fit(right, n, x)
    residual = right - n * (0.5 + 0.5 * expit(more_a + more_b * x))
    np.testing.assert_allclose([more_a - a, more_b - b], influence[:, 4] / residual[4], rtol=0.01)


def test_the_interval_holds_the_truth():
    rows = timed_thresholds(100, TIMES, **SIZE)
    assert 0.9 <= ((rows["ci_low"] <= THRESHOLD_MS) & (rows["ci_high"] >= THRESHOLD_MS)).mean() <= 0.99
    assert rows["threshold"].median() == pytest.approx(THRESHOLD_MS, rel=0.06)


def test_what_cannot_be_said_is_noted():
    flat = thresholds(study(3, times=(1000, 1200), slope=0.0)).iloc[0]  # of which no threshold is far enough
    assert "no end of the interval" in flat["note"] and (flat["ci_low"], flat["ci_high"]) == (0, np.inf)
    assert thresholds(study(3, times=(1000,))).iloc[0]["note"] == "not estimable: one level"
    fooled = simulate({"sr3": [0.6, 0.7]}, exposures=(500, 1000), subjects=10, images=40, trials=20, seed=0)
    assert thresholds(fooled).iloc[0]["note"] == NOT_BETTER
    with pytest.raises(DataError, match="must be positive for its logarithm"):
        thresholds(study(1).assign(noise=0), x="noise")
    steps = study(1).assign(noise=lambda frame: np.log2(frame["exposure_ms"]))
    by_noise, by_time = thresholds(steps, x="noise", log=False).iloc[0], thresholds(steps).iloc[0]
    assert 2 ** by_noise["ci_low"] == pytest.approx(by_time["ci_low"])
