"""Preferences: against choix and statsmodels, on counts that a hand can check, and over many simulated studies."""

import itertools

import choix
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, special
from statsmodels.stats.sandwich_covariance import cov_cluster

from analysis import tables
from analysis.clusters import CLUSTER, SUBJECT
from analysis.errors import DataError
from analysis.exclusions import exclude
from analysis.preference import (
    SCORE,
    _fit,
    _pairs,
    bradley_terry,
    fit,
    pair_rates,
    score_differences,
    win_matrix,
    win_rates,
)
from analysis.simulated_choices import simulate_choices

SCORES = {"sr3": 0.8, "esrgan": 0.3, "pulse": -0.4, "bicubic": -0.7}


@pytest.fixture(scope="module")
def choices():
    return simulate_choices(SCORES, subjects=20, images=40, trials=30, tie=0.3, skipped=0.05, seed=1)


@pytest.fixture(scope="module")
def untied():
    return simulate_choices(SCORES, subjects=20, images=40, trials=30, groups=12, seed=2)


def decided(frame):
    pairs = _pairs(frame, ())
    return pairs[pairs[SCORE].notna()]


def test_scores_are_those_of_choix(untied):
    """Without ties, by two of its ways to the greatest likelihood."""
    pairs = decided(untied)
    models = sorted(SCORES)
    won = [
        (r.model_a, r.model_b) if r.got else (r.model_b, r.model_a) for r in pairs.assign(got=pairs[SCORE]).itertuples()
    ]
    data = [(models.index(winner), models.index(loser)) for winner, loser in won]
    ours = bradley_terry(untied, ()).set_index("model")["score"].loc[models]
    for theirs in (choix.ilsr_pairwise(4, data), choix.opt_pairwise(4, data, tol=1e-10)):
        np.testing.assert_allclose(ours, theirs - theirs.mean(), atol=1e-6)


def test_scores_with_ties_are_davidson_s(choices):
    """By the likelihood itself, from another start."""
    pairs = decided(choices)
    models = sorted(SCORES)
    a, b = (pairs[side].map(models.index).to_numpy() for side in ("model_a", "model_b"))
    got = pairs[SCORE].to_numpy()

    def loss(parameters):
        scores = np.append(parameters[:3], -parameters[:3].sum())
        chance = np.stack([scores[a], scores[b], parameters[3] + np.log(2) + (scores[a] + scores[b]) / 2])
        happened = np.where(got == 1, 0, np.where(got == 0, 1, 2))
        return (special.logsumexp(chance, axis=0) - chance[happened, np.arange(len(got))]).sum()

    best = optimize.minimize(loss, np.full(4, 0.1), method="BFGS", options={"gtol": 1e-8}).x
    scores, tie = fit(a, b, got, 4)
    np.testing.assert_allclose(scores, np.append(best[:3], -best[:3].sum()), atol=1e-5)
    assert tie == pytest.approx(np.exp(best[3]), abs=1e-5)
    # Leaving a choice out moves the scores by about its influence.
    whole, part = _fit(pairs), _fit(pairs.iloc[1:])
    cell = np.unique(pairs[[SUBJECT, CLUSTER]], axis=0, return_inverse=True)[1][0]
    np.testing.assert_allclose(whole.scores - part.scores, whole.influence[cell], atol=1e-3)
    assert np.abs(whole.influence[cell]).max() > 0.005


@pytest.mark.parametrize("unit", ["subject", "group"])
def test_the_sandwich_is_statsmodels(untied, unit):
    """One-way parts, as of a logistic regression on differences of indicators, and their two-way sum."""
    pairs = decided(untied)
    models = sorted(SCORES)
    x = np.stack([(pairs["model_a"] == m).astype(float) - (pairs["model_b"] == m) for m in models[1:]], axis=1)
    model = sm.Logit(pairs[SCORE].to_numpy(), x).fit(disp=0, tol=1e-12)
    labels = pd.factorize(pairs[unit])[0]
    full = np.zeros((4, 4))
    full[1:, 1:] = cov_cluster(model, labels, use_correction=False) * (g := labels.max() + 1) / (g - 1)
    centred = np.eye(4) - 1 / 4
    expected = np.diag(centred @ full @ centred)
    fitted = _fit(pairs)
    sums = np.zeros((g, 4))
    cells = fitted.cells.subject if unit == "subject" else fitted.cells.cluster
    np.add.at(sums, pd.factorize(cells)[0], fitted.influence)
    np.testing.assert_allclose((sums**2).sum(axis=0) * g / (g - 1), expected, rtol=1e-6)


def test_the_interval_is_two_way(untied):
    fitted, table = _fit(decided(untied)), bradley_terry(untied, ()).set_index("model")
    cells = fitted.cells
    for i, model in enumerate(fitted.models):
        parts = []
        for labels in (cells.subject, cells.cluster, cells.subject * 1000 + cells.cluster):
            sums = pd.Series(fitted.influence[:, i]).groupby(labels).sum()
            parts.append(len(sums) / (len(sums) - 1) * (sums**2).sum())
        variance = max(parts[0] + parts[1] - parts[2], parts[0], parts[1])
        assert table.loc[model, "se"] == pytest.approx(np.sqrt(variance), rel=1e-9)
    assert table["df"].between(10, 11).all()  # of 12 groups of images, a little unequal
    assert table["note"].eq("").all()


def by_hand():
    """a beats b 3 of 4 with a tie among them; c loses to a twice; d and e are a study of their own."""
    rows = [("a", "b", "left"), ("b", "a", "right"), ("a", "b", "tie"), ("a", "b", "right"), ("a", "b", "skip")]
    rows += [("c", "a", "right"), ("a", "c", "left")]
    frame = pd.DataFrame(rows, columns=["model_left", "model_right", "choice_side"])
    subjects, pictures = ["s", "t", "s", "t", "s", "s", "t"], list("1122312")
    return frame.assign(study="x", task=2, criterion="", kind="test", subject=subjects, image_id=pictures)


def test_counts_and_rates_by_hand():
    pairs = pair_rates(by_hand()).set_index(["model_a", "model_b"])
    counts = ["n", "wins_a", "wins_b", "ties", "skipped", "win_rate"]
    assert pairs.loc[("a", "b"), counts].tolist() == [4, 2, 1, 1, 1, 0.625]
    assert pairs.loc[("a", "c"), counts].tolist() == [2, 2, 0, 0, 0, 1]
    # Two-way by hand: y - .625 is .375, .375, -.125, -.625 for s1, t1, s2, t2.
    subject = 2 * ((0.375 - 0.125) ** 2 + (0.375 - 0.625) ** 2) / 16
    image = 2 * (0.75**2 + 0.75**2) / 16
    cell = 4 / 3 * (2 * 0.375**2 + 0.125**2 + 0.625**2) / 16
    assert pairs.loc[("a", "b"), "se"] == pytest.approx(np.sqrt(max(subject + image - cell, subject, image)))
    rates = win_rates(by_hand()).set_index("model")
    assert rates.loc["a", ["n", "wins", "losses", "ties", "opponents", "win_rate"]].tolist() == [6, 4, 1, 1, 2, 0.8125]
    assert rates.loc["b", "win_rate"] == 0.375 and rates.loc["c", "win_rate"] == 0
    matrix = win_matrix(pair_rates(by_hand()))
    assert list(matrix.index) == list(matrix.columns) == ["a", "b", "c"]
    assert matrix.loc["b", "a"] == 0.375 and np.isnan(matrix.loc["b", "c"]) and np.isnan(matrix.loc["a", "a"])


def test_what_has_no_scores_says_why():
    scores = bradley_terry(by_hand())
    assert set(scores["note"]) == {"not estimable: a, b never lost to c"} and scores["score"].isna().all()
    others = by_hand().iloc[:4].replace({"a": "d", "b": "e"}).assign(image_id=list("3344"))
    apart = pd.concat([by_hand().iloc[:4], others])
    assert set(bradley_terry(apart)["note"]) == {"not estimable: a, b was never compared with d, e"}
    assert set(score_differences(apart)["note"]) == {"not estimable: a, b was never compared with d, e"}
    alone = by_hand().assign(subject="s")
    assert set(bradley_terry(alone)["note"]) == {"not estimable: one subject"}
    skipped = by_hand().assign(choice_side="skip")
    assert pair_rates(skipped)["n"].tolist() == [0, 0]
    assert set(pair_rates(skipped)["note"]) == {"not estimable: no responses"}


def test_order_and_sides_change_no_digit(choices):
    mirrored = choices.rename(columns={"model_left": "model_right", "model_right": "model_left"})
    mirrored["choice_side"] = choices["choice_side"].replace({"left": "right", "right": "left"})
    shuffled = mirrored.sample(frac=1, random_state=0)
    for table in (pair_rates, win_rates, bradley_terry, score_differences):
        pd.testing.assert_frame_equal(table(choices), table(shuffled), rtol=1e-9)


def test_ranks_are_sets_that_hold_together(choices):
    table = bradley_terry(choices).set_index("model")
    differences = score_differences(choices)
    assert list(table.index[:2]) == ["sr3", "esrgan"]  # the others are nearly equal
    assert table["rank"].tolist() == [1, 2, 3, 4] and table["score"].sum() == pytest.approx(0, abs=1e-9)
    better = [
        *differences.loc[differences["simultaneous_low"] > 0, "model_b"],
        *differences.loc[differences["simultaneous_high"] < 0, "model_a"],
    ]
    assert table["rank_low"].to_dict() == {model: 1 + better.count(model) for model in table.index}
    assert (table["rank_low"] <= table["rank"]).all() and (table["rank"] <= table["rank_high"]).all()
    assert (differences["simultaneous_low"] < differences["ci_low"]).all()


def test_criteria_are_never_pooled(choices):
    swapped = choices["choice_side"].replace({"left": "right", "right": "left"})
    other = choices.assign(criterion="faithful", choice_side=swapped)
    both = bradley_terry(pd.concat([choices.assign(criterion="sharper"), other]))
    first, second = (part.set_index("model")["score"] for _, part in both.groupby("criterion"))
    pd.testing.assert_series_equal(first, -second.loc[first.index], rtol=1e-6)
    with pytest.raises(DataError, match="belong to several tasks or criteria"):
        win_matrix(pair_rates(pd.concat([choices.assign(criterion="sharper"), other])))


def marginal(scores, tie, spread):
    """Scores that fit the shares of an endless balanced study: likings spread each pair's difference by `spread`."""
    nodes, weights = special.roots_hermitenorm(64)
    weights = weights / weights.sum()
    models = sorted(scores)
    a, b = np.array(list(itertools.combinations(range(len(models)), 2))).T
    gap = np.array([scores[m] for m in models])
    gap = (gap[a] - gap[b])[:, None] + spread * nodes
    bottom = np.exp(gap / 2) + np.exp(-gap / 2) + 2 * tie
    chance = np.stack([(np.exp(gap / 2) / bottom) @ weights, (np.exp(-gap / 2) / bottom) @ weights])
    chance = np.vstack([chance, 1 - chance.sum(axis=0)])

    def loss(parameters):
        s = np.append(parameters[:-1], -parameters[:-1].sum())
        logits = np.stack([s[a], s[b], parameters[-1] + np.log(2) + (s[a] + s[b]) / 2])
        return -(chance * (logits - special.logsumexp(logits, axis=0))).sum()

    found = optimize.minimize(loss, np.zeros(len(models)), method="BFGS").x[:-1]
    return dict(zip(models, np.append(found, -found.sum()), strict=True))


def test_intervals_cover_for_new_subjects_and_images():
    """100 studies: intervals of scores and of differences cover 93 to 97 %, joint rank sets at least 95 %."""
    design = {"subjects": 30, "images": 40, "trials": 30, "subject_sd": 0.4, "image_sd": 0.6, "tie": 0.2}
    truth = marginal(SCORES, 0.2, np.sqrt(2) * np.hypot(0.4, 0.6))
    ranks = {model: 1 + sum(other > value for other in truth.values()) for model, value in truth.items()}
    covered, pairs, sets = [], [], []
    for seed in range(100):
        fitted = _fit(decided(simulate_choices(SCORES, **design, seed=seed)))
        rows = fitted.rows()
        covered += [row["ci_low"] <= truth[row["model"]] <= row["ci_high"] for row in rows]
        sets.append(all(row["rank_low"] <= ranks[row["model"]] <= row["rank_high"] for row in rows))
        for row in fitted.differences():
            pairs.append(row["ci_low"] <= truth[row["model_a"]] - truth[row["model_b"]] <= row["ci_high"])
    assert 0.93 <= np.mean(covered) <= 0.97, np.mean(covered)
    assert 0.93 <= np.mean(pairs) <= 0.97, np.mean(pairs)
    assert np.mean(sets) >= 0.95


def test_a_file_of_choices_is_read_line_by_line(choices, tmp_path):
    path = tmp_path / "choices.csv"
    choices.to_csv(path, index=False)
    pd.testing.assert_frame_equal(bradley_terry(tables.load_choices(path)), bradley_terry(choices))
    for change, message in (
        ({"choice_side": "up"}, r"choices.csv, line 2: choice_side is \"up\", must be left or right or tie or skip"),
        ({"model_left": ""}, 'model_left is "", must not be empty but in a catch trial'),
        ({"model_left": choices["model_right"]}, "must be another model than model_right"),
        ({"kind": "catch"}, 'real_side is "", must be left or right in a catch trial'),
        ({"trial_index": 0}, "choices are listed twice"),
    ):
        choices.assign(**change).to_csv(path, index=False)
        with pytest.raises(DataError, match=message):
            tables.load_choices(path)


def test_exclusions_apply_to_choices(choices):
    catch = choices[choices["trial_index"] < 8].assign(kind="catch", model_left="", model_right="", real_side="left")
    catch["trial_index"] += 100
    catch["choice_side"] = np.where(catch["subject"] == "s00003", "tie", "left")
    kept, log = exclude(tables.validate_choices(pd.concat([choices, catch])))
    assert list(log["rule"]) == ["catch trials"] and list(log["subject"]) == ["s00003"]
    assert len(kept) == len(choices) - 30
