"""Noise ceilings against metrics that are perfect, and Krippendorff's alpha against the package of that name."""

import krippendorff
import numpy as np
import pandas as pd
import pytest
from known_judges import alphas, judged, true_alpha
from scipy import special, stats

from analysis.ceiling import noise_ceiling, rater_agreement
from analysis.errors import DataError
from analysis.simulation import simulate


@pytest.mark.parametrize(("subjects", "spread"), [(20, 1.5), (60, 0.8), (60, 0.3)])
def test_a_perfect_metric_reaches_the_ceiling(subjects, spread):
    """The metric is the images' true logits; over ten studies its rho is what the ceiling promises."""
    ceilings, reached = [], []
    for seed in range(10):
        logits = np.random.default_rng(100 + seed).normal(0, spread, 60)
        responses = judged(logits, subjects, trials=30, seed=seed)
        rates = responses.groupby("image_id")["picked_model"].mean().sort_index()
        reached.append(stats.spearmanr(logits, rates).statistic)
        row = noise_ceiling(responses, splits=20, resamples=20, seed=seed).iloc[0]
        ceilings.append(row["ceiling"])
        assert row["ceiling_low"] <= row["ceiling_high"] and row["views"] == subjects / 2
    error = np.std(np.subtract(ceilings, reached), ddof=1) / np.sqrt(10)
    assert abs(np.mean(ceilings) - np.mean(reached)) < 0.015 + 2.5 * error


def test_halves_by_hand(study):
    """One split, drawn in a loop over the same order of subjects."""
    own = study[(study["kind"] == "test") & (study["model"] == "sr3")]
    row = noise_ceiling(own, by=("model",), splits=1, resamples=1, seed=4).iloc[0]
    rng = np.random.default_rng(4)
    rng.multinomial(40, np.full(40, 1 / 40), size=1)
    people = sorted(own["subject"].unique())
    first = {people[i] for i in np.argsort(rng.random(len(people)))[::2]}
    rates = [
        own[own["subject"].isin(first) == half].groupby("image_id")["picked_model"].mean() for half in (True, False)
    ]
    both = pd.concat(rates, axis=1).dropna()
    rho = stats.spearmanr(*both.to_numpy().T).statistic
    assert row["half"] == pytest.approx(rho)
    assert row["ceiling"] == pytest.approx(np.sqrt(max(0, 2 * rho / (1 + rho))))


def test_ceiling_over_models_and_what_cannot_be_said():
    rates = {f"m{i}": 0.1 + 0.1 * i for i in range(5)}
    responses = simulate(rates, subjects=20, images=20, trials=20, within=True, catch=0, practice=0, seed=1)
    over_models = noise_ceiling(responses, by=("task",), splits=10, resamples=20).iloc[0]
    assert over_models["things"] == 5 and over_models["ceiling"] > 0.9 and over_models["note"] == "few models: 5"
    few = noise_ceiling(responses[responses["model"] < "m3"], by=("task",), splits=2).iloc[0]
    assert few["note"] == "not estimable: 3 models" and np.isnan(few["ceiling"])
    alone = responses[responses["subject"] == responses["subject"].iloc[0]]
    assert set(noise_ceiling(alone, splits=2)["note"]) == {"not estimable: one subject"}
    grouped = responses.assign(group=responses["image_id"].str[-1:])
    one = grouped[grouped["model"] == "m4"]
    more = pd.concat([one.assign(subject=one["subject"] + str(i)) for i in range(4)])
    assert noise_ceiling(more, splits=5, resamples=20)["note"].tolist() == [""]  # ten groups are not few
    fewer = more[more["group"] < "7"]
    assert noise_ceiling(fewer, splits=5, resamples=20)["note"].tolist() == ["few photographs: 7 groups of images"]
    guessed = judged(np.zeros(100), subjects=40, trials=20, seed=3, subject_sd=0)
    assert noise_ceiling(guessed, splits=20, resamples=20)["ceiling"].iloc[0] < 0.45
    guesses = simulate(dict.fromkeys(rates, 0.5), subjects=6, images=20, trials=10, within=True, seed=1)
    drawn = noise_ceiling(guesses, by=("task",), splits=1).iloc[0]  # of one model alone, or where halves oppose
    assert drawn["ceiling_low"] == 0 and drawn["ceiling_high"] <= 1
    with pytest.raises(DataError, match="splits = 0: must be at least 1"):
        noise_ceiling(responses, splits=0)


def test_alpha_is_krippendorffs(study):
    table = rater_agreement(study).set_index("model")
    tests = study[study["kind"] == "test"]
    for model, own in tests.groupby("model"):
        ratings = own.pivot(index="subject", columns="image_id", values="picked_model").to_numpy(float)
        expected = krippendorff.alpha(reliability_data=ratings, level_of_measurement="nominal")
        assert table.loc[model, "alpha"] == pytest.approx(expected, abs=1e-12)
        assert table.loc[model, "alpha_low"] <= expected <= table.loc[model, "alpha_high"]
    again = rater_agreement(study.sample(frac=1, random_state=0)).set_index("model")
    pd.testing.assert_frame_equal(table, again)


def test_agreement_of_people_who_agree_and_of_those_who_guess():
    same = judged(np.array([-50.0] * 10 + [50.0] * 10), subjects=8, trials=20, seed=0)
    row = rater_agreement(same).iloc[0]
    assert (
        row["agreement"] == row["alpha"] == 1
        and row["note"] == "no interval: nobody disagrees"
        and row["by_chance"] == pytest.approx(0.497, abs=1e-3)
    )
    guessed = judged(np.zeros(100), subjects=20, trials=100, seed=1, subject_sd=0)
    assert abs(rater_agreement(guessed)["alpha"].iloc[0]) < 0.02
    notes = {
        "not estimable: no picture has two answers": same[same["subject"] == "s0"],
        "not estimable: all answers are equal": same[same["picked_model"] == 1],
        "not estimable: one image": guessed[guessed["image_id"] == "000"],
        "few clusters: 9 images": guessed[guessed["image_id"] < "009"],
    }
    for note, part in notes.items():
        assert rater_agreement(part)["note"].tolist() == [note]


@pytest.mark.parametrize(("groups", "images"), [(60, 60), (7, 70)])
def test_intervals_of_alpha_cover_it(groups, images):
    """Over more studies, and 100 images: `interval_coverage.py --only alpha`."""
    everywhere = special.expit(np.random.default_rng(9).normal(0, 0.8, 500_000))
    true = everywhere.var() / (everywhere.mean() * (1 - everywhere.mean()))
    assert true_alpha(0.8) == pytest.approx(true, rel=0.01)
    rows = alphas(60, groups, images)
    covered = (rows["alpha_low"] <= true) & (true <= rows["alpha_high"])
    assert covered.mean() > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)
