"""Adaptive pairs: where they go, against statsmodels; and that the figures of what they save can be made again."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from analysis.adaptive import EVEN, PRIOR, allot, shares, simulate_saving, votes_until

PAIRS = [(0, 1), (0, 2), (1, 2)]
WINS = np.array([[0, 14, 18], [12, 0, 17], [2, 3, 0.0]])


def test_shares_follow_the_chance_that_an_order_is_wrong():
    """By a logistic regression on the same counts."""
    a, b = np.array(PAIRS).T
    won, lost = WINS[a, b] + PRIOR, WINS[b, a] + PRIOR
    design = np.array([[-1, 0], [0, -1], [1, -1]])  # of models 1 and 2 beside model 0
    fitted = sm.GLM(np.c_[won, lost], design, family=sm.families.Binomial()).fit(tol=1e-12)
    tests = fitted.t_test(design)
    wrong = stats.norm.sf(np.abs(tests.tvalue))
    np.testing.assert_allclose(shares(WINS, PAIRS), EVEN / 3 + (1 - EVEN) * wrong / wrong.sum(), rtol=1e-6)
    assert shares(WINS, PAIRS).argmax() == 0  # nearly equal
    np.testing.assert_allclose(shares(np.zeros((3, 3)), PAIRS), 1 / 3)


@pytest.mark.parametrize("trials", [1, 10, 51])
def test_whole_trials_are_as_near_as_they_can_be(trials):
    share = np.array([0.5, 0.3, 0.2])
    counts = Counter(allot(share, trials, np.random.default_rng(0)).tolist())
    assert sum(counts.values()) == trials
    assert all(abs(counts[pair] - wanted) < 1 for pair, wanted in enumerate(share * trials))


def test_a_simulation_of_the_saving():
    setting = {"subjects": 6, "trials": 30, "images": 30, "repetitions": 4}
    saving = simulate_saving({"a": 1.0, "b": 0.5, "c": 0.0}, **setting)
    pd.testing.assert_frame_equal(saving, simulate_saving({"a": 1.0, "b": 0.5, "c": 0.0}, **setting))
    assert list(saving["votes"]) == [30, 60, 90, 120, 150, 180] * 2
    first = saving[saving["votes"] == 30]
    assert first["kendall"].nunique() == 1  # nothing to adapt to: the same subjects, images and pairs
    assert saving["kendall"].between(-1, 1).all() and (saving["all_right"] <= saving["best_right"]).all()
    straight = pd.DataFrame({"adaptive": [False, False, True, True], "votes": [100, 200] * 2})
    straight["kendall"] = [0.5, 0.9, 0.7, 0.8]
    found = votes_until(straight, 0.8)
    assert found == {False: pytest.approx(175), True: pytest.approx(200)}
    assert np.isnan(votes_until(straight, 0.85)[True])
