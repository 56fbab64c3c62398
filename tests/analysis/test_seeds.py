"""Variance of means over several outputs of each image, in parts: exact on small tables, kept in simulated studies."""

import itertools

import numpy as np
import pandas as pd
import pytest
from interval_coverage import misses, sampled_studies
from known_judges import QUIET, scored_studies
from scipy import stats

from analysis.comparisons import compare
from analysis.fool_rate import fool_rates
from analysis.seeds import fool_rate_parts, of_samples, score_parts
from analysis.simulation import simulate

KEY = {"task": "t", "dataset": "", "method": "m", "metric": "psnr"}


def scores(values: np.ndarray) -> pd.DataFrame:
    """Of images [I, K]."""
    image, _ = np.indices(values.shape).reshape(2, -1)
    return pd.DataFrame({"image_id": image.astype(str), "group": "", "value": values.ravel()}).assign(**KEY)


def test_parts_of_a_mean_score_are_those_of_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    values = 30 + rng.normal(size=(12, 1)) + rng.normal(size=(12, 4))
    within = values.var(axis=1, ddof=1).mean()
    between = stats.f_oneway(*values).statistic * within  # mean squares
    row = score_parts(scores(values)).iloc[0]
    assert row["se"] == pytest.approx(np.sqrt(between / 48)) and row["seed_se"] == pytest.approx(np.sqrt(within / 48))
    assert row["seed_sd"] == pytest.approx(np.sqrt(within)) and row["note"] == ""
    assert row["image_sd"] == pytest.approx(np.sqrt((between - within) / 4))
    assert row["image_se"] ** 2 + row["seed_se"] ** 2 == pytest.approx(row["se"] ** 2)
    interval = stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval()
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(interval))
    single = score_parts(scores(values[:, :1])).iloc[0]
    assert single["note"] == "one draw of each image: its noise counts as the image's" and np.isnan(single["seed_se"])
    interval = stats.ttest_1samp(values[:, 0], 0).confidence_interval()
    assert (single["ci_low"], single["ci_high"]) == pytest.approx(tuple(interval))


def test_images_cluster_and_those_without_a_score_are_left_out():
    values = np.arange(24.0).reshape(12, 2) ** 2
    grouped = scores(values).assign(group=lambda t: (t["image_id"].astype(int) % 3).astype(str))
    as_one = np.array([values[g::3].mean() for g in range(3)])
    row = score_parts(grouped).iloc[0]
    assert row["se"] == pytest.approx(as_one.std(ddof=1) / np.sqrt(3)) and row["df"] == pytest.approx(2)
    assert row["note"] == "few photographs: 3 groups of images"
    values[4, 1] = np.inf
    row = score_parts(scores(values)).iloc[0]
    assert row["images"] == 11 and row["note"] == "1 images left out, without a finite score"
    assert row["mean"] == pytest.approx(np.delete(values, 4, axis=0).mean())


@pytest.mark.parametrize(("samples", "share"), [(1, 0.6), (3, 0.6), (5, 0.3)])
def test_intervals_hold_whatever_part_is_noise(samples, share):
    for rows, truth, studies in (
        (scored_studies(samples, share, 200), 0.0, 200),
        (sampled_studies(samples, share, 150), 0.4, 150),
    ):
        slack = 2.5 * np.sqrt(0.05 * 0.95 / studies)
        assert 0.93 - slack < 1 - sum(misses(rows, truth)) < 0.97 + slack
        assert len(rows) == studies
        if samples > 1:
            assert rows["seed_share"].mean() == pytest.approx(share, abs=0.1)


@pytest.fixture(scope="module")
def sampled():
    """Answers to two methods of the same rate, three samples of each image."""
    rng = np.random.default_rng(1)
    plan = simulate({"a": 0.4, "b": 0.4}, subjects=30, images=30, trials=15, image_sd=0, seed=3, **QUIET)
    plan["sample"] = plan.groupby(["model", "image_id"]).cumcount() % 3 + 1
    index = pd.MultiIndex.from_product([["a", "b"], range(30), (1, 2, 3)])
    chance = pd.Series(np.tile(np.repeat(rng.uniform(0, 0.4, 30), 3), 2) + rng.uniform(0, 0.5, 180), index)
    of = pd.MultiIndex.from_arrays([plan["model"], plan["image_id"].astype(int), plan["sample"]])
    return plan.assign(picked_model=(rng.random(len(plan)) < chance.loc[of].to_numpy()).astype(int))


def test_parts_of_a_fool_rate_by_all_pairs_of_answers(sampled):
    part = sampled[sampled["model"] == "a"]
    row = fool_rate_parts(sampled).set_index("model").loc["a"]
    residual = part["picked_model"] - part["picked_model"].mean()
    answers = list(zip(residual, part["subject"], part["image_id"], part["sample"], strict=True))
    same, other = [], []
    for (r, subject, image, sample), (q, subject2, image2, sample2) in itertools.combinations(answers, 2):
        if image == image2 and subject != subject2:
            (same if sample == sample2 else other).append(r * q)
    noise = np.mean(same) - np.mean(other)
    assert row["seed_sd"] == pytest.approx(np.sqrt(noise)) and 0.005 < noise < 0.05  # 0.5² / 12 = 0.02
    shown = part.groupby(["image_id", "sample"]).size()
    assert row["seed_se"] == pytest.approx(np.sqrt(noise * (shown**2).sum()) / len(part))
    parts = row[["subject_se", "image_se", "seed_se", "answer_se"]].astype(float)
    assert (parts**2).sum() == pytest.approx(row["se"] ** 2) and row["samples"] == 3
    headline = ["se", "ci_low", "ci_high", "p_50"]
    assert (fool_rate_parts(sampled)[headline] == fool_rates(sampled)[headline]).all(axis=None)


def test_what_is_less_than_noise_of_seeds_is_noted(sampled):
    """Against the same methods shown as models of their own, which of_samples makes one."""
    noise = np.hypot(*fool_rate_parts(sampled)["seed_se"])
    pair = compare(sampled).iloc[0]
    assert abs(pair["difference"]) < 1.9 * noise and pair["note"] == "less than other seeds may make"
    assert (compare(sampled.drop(columns="sample"))["note"] == "").all()
    apart = sampled.assign(
        picked_model=np.where(sampled["model"] == "a", 1 - sampled["picked_model"], sampled["picked_model"])
    )
    assert abs(compare(apart).iloc[0]["difference"]) > 2 * noise and compare(apart).iloc[0]["note"] == ""
    named = sampled["model"] + sampled["sample"].map({1: "", 2: "@2", 3: "@3"})
    again = of_samples(sampled.assign(model=named).drop(columns="sample"))
    pd.testing.assert_frame_equal(again[sampled.columns], sampled, check_dtype=False)


def test_names_of_models_that_there_are_stay():
    shown = pd.DataFrame({"model": ["a", "a@2", "b@2", "c@2", "a@3"]})
    found = of_samples(shown, ["a", "b@2", "a@3"])
    assert list(zip(found["model"], found["sample"], strict=True)) == [
        *(("a", 1), ("a", 2), ("b@2", 1), ("c@2", 1), ("a@3", 1))
    ]
