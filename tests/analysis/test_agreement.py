"""Metrics against people, on studies in which it is known which metric is right."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.agreement import method_points, over_images, over_methods
from analysis.clusters import IMAGE, SUBJECT, numbered
from analysis.comparisons import holm
from analysis.errors import DataError
from analysis.fool_rate import fool_rates
from analysis.pigeonhole import draws
from analysis.simulation import simulate

RATES = {"bicubic": 0.05, "regression": 0.15, "esrgan": 0.25, "pulse": 0.3, "sr3": 0.45, "sr3_more": 0.5}
# Metrics as functions of the true rate: a good one of each direction, and a bad one.
METRICS = {"good": (lambda rate: rate, True), "lower": (lambda rate: -rate, False), "bad": (lambda rate: -rate, True)}


@pytest.fixture(scope="module")
def responses():
    return simulate(RATES, subjects=30, images=60, trials=30, image_sd=1.5, seed=2)


@pytest.fixture(scope="module")
def scores(responses):
    """`good` and `lower` follow people on every image, `bad` is against them; noise breaks ties."""
    tests = responses[responses["kind"] == "test"]
    picked = tests.groupby(["model", "image_id"])["picked_model"].mean().reset_index()
    noise = np.random.default_rng(0).normal(0, 0.02, len(picked))
    rows = [
        picked.assign(task="faces", metric=name, value=score(picked["picked_model"] + noise), group=picked["image_id"])
        for name, (score, _) in METRICS.items()
    ]
    return pd.concat(rows).rename(columns={"model": "method"}).drop(columns="picked_model")


@pytest.fixture(scope="module")
def results():
    rows = [("faces", m, name, np.nan, higher) for m in RATES for name, (_, higher) in METRICS.items()]
    rows += [("faces", method, "fid", 100 * (1 - rate), False) for method, rate in RATES.items()]
    return pd.DataFrame(rows, columns=["task", "method", "metric", "value", "higher_is_better"])


def test_over_methods(responses, scores, results):
    table = over_methods(responses, scores, results, resamples=200).set_index("metric")
    assert table.index.tolist() == ["fid", "good", "lower", "bad"]
    for metric, sign in (("fid", 1), ("good", 1), ("lower", 1), ("bad", -1)):
        row = table.loc[metric]
        assert row["kendall"] == pytest.approx(sign) and row["spearman"] == pytest.approx(sign)
        assert row["p"] == pytest.approx(2 / 720) and row["note"] == ""
        assert row["kendall_low"] <= row["kendall"] <= row["kendall_high"]
    assert table.loc["fid", "kendall_low"] < 1  # pulse and esrgan could be the other way round
    assert (table["methods"] == 6).all()


def test_intervals_over_methods_are_of_subjects_and_images_drawn_again(responses, scores, results):
    """Drawn in a loop, with the same draws; values of metrics are weighted as the answers are."""
    noisy = scores[scores["metric"] == "good"].copy()
    noisy["value"] += np.random.default_rng(1).normal(0, 0.5, len(noisy))
    row = over_methods(responses, noisy, results[results["metric"] == "good"], resamples=60, seed=3).iloc[0]
    trials = numbered(responses, ["model"])
    taus = []
    for people, pictures in draws(trials[SUBJECT].nunique(), 60, 60, np.random.default_rng(3)):
        for person, picture in zip(people, pictures, strict=True):
            weight = person[trials[SUBJECT]] * picture[trials[IMAGE]]
            rates = [np.average(trials["picked_model"][own], weights=weight[own]) for own in of_models(trials["model"])]
            shown = picture[noisy["image_id"].astype(int)]
            values = [np.average(noisy["value"][own], weights=shown[own]) for own in of_models(noisy["method"])]
            taus.append(stats.kendalltau(values, rates).statistic)
    np.testing.assert_allclose(row[["kendall_low", "kendall_high"]].astype(float), np.quantile(taus, [0.025, 0.975]))
    assert row["kendall_low"] < row["kendall_high"]


def of_models(names: pd.Series) -> list[np.ndarray]:
    return [(names == model).to_numpy() for model in RATES]


def test_over_images(responses, scores, results):
    table = over_images(responses, scores, results, resamples=200)
    wide = table.pivot(index="model", columns="metric", values="kendall")
    assert (wide["good"] > 0.7).all() and (wide["lower"] > 0.7).all() and (wide["bad"] < -0.7).all()
    assert table["kendall"].between(table["kendall_low"], table["kendall_high"]).all()
    row = table[(table["model"] == "sr3") & (table["metric"] == "lower")].iloc[0]
    own = scores[(scores["method"] == "sr3") & (scores["metric"] == "lower")].set_index("image_id")["value"]
    tests = responses[(responses["kind"] == "test") & (responses["model"] == "sr3")]
    rate = tests.groupby("image_id")["picked_model"].mean()[own.index]
    assert row["kendall"] == pytest.approx(-stats.kendalltau(own, rate).statistic)
    assert row["spearman"] == pytest.approx(-stats.spearmanr(own, rate).statistic)


def test_points_are_means_over_the_images_that_people_saw(responses, scores, results):
    unseen, infinite = scores.assign(image_id="unseen", value=1e6), scores.head(1).assign(value=np.inf)
    more = pd.concat([scores.iloc[1:], unseen, infinite])
    points = method_points(responses, more, results)
    one = points[(points["metric"] == "good") & (points["method"] == "sr3")].iloc[0]
    own = scores[(scores["metric"] == "good") & (scores["method"] == "sr3")]
    assert one["value"] == pytest.approx(own["value"].mean()) and one["higher_is_better"]
    assert np.isfinite(points["value"]).all() and set(points["metric"]) == {"fid", *METRICS}


@pytest.fixture(scope="module")
def two_sets(responses, scores, results):
    """The study with half of its images of another data set, whose scores are all higher; and FIDs of each."""
    scores = scores[scores["metric"] == "good"]
    second = {image_id: image_id >= "0030" for image_id in scores["image_id"].unique()}
    names = {image_id: f"{'Set14' if later else 'Set5'}/{image_id}" for image_id, later in second.items()}
    shifted = scores.assign(
        dataset=scores["image_id"].map(names).str.split("/").str[0],
        value=scores["value"] + 100 * scores["image_id"].map(second).astype(float),
        image_id=scores["image_id"].map(names),
    )
    fid = results.loc[results["metric"] == "fid"]
    per_set = pd.concat(
        [
            results[results["metric"].isin(["good", "fid"])].assign(dataset="Set5"),
            fid.assign(dataset="Set14", value=-fid["value"]),
        ]
    )
    judged = responses["image_id"].map(names).fillna(responses["image_id"])
    return responses.assign(image_id=judged), shifted, per_set


def test_metrics_are_compared_within_each_data_set(responses, scores, results, two_sets):
    """As if each were a run of its own: nothing of the other is in it."""
    scores, results = scores[scores["metric"] == "good"], results[results["metric"] == "good"]
    together = [analysis(*two_sets, resamples=4) for analysis in (over_methods, over_images)]
    points = method_points(*two_sets)
    for dataset, part in (("Set5", scores["image_id"] < "0030"), ("Set14", scores["image_id"] >= "0030")):
        images = scores.loc[part, "image_id"]
        alone = [responses[responses["image_id"].isin(images)], scores[part], results]
        for analysis, table in zip((over_methods, over_images), together, strict=True):
            expected = analysis(*alone, resamples=4).drop(columns="dataset")
            found = table[(table["dataset"] == dataset) & (table["metric"] != "fid")].drop(columns="dataset")
            columns = [column for column in expected if column != "p_holm"]
            pd.testing.assert_frame_equal(
                found.reset_index(drop=True)[columns], expected.reset_index(drop=True)[columns]
            )
        rates = fool_rates(alone[0]).set_index("model")["fool_rate"]
        own = points[points["dataset"] == dataset]
        assert own["fool_rate"].tolist() == rates[own["method"]].tolist()
    fid = together[0][together[0]["metric"] == "fid"].set_index("dataset")["kendall"]
    assert fid["Set5"] > 0.5 and fid["Set14"] < -0.5


def test_data_sets_are_not_pooled(two_sets):
    judged, scores, results = two_sets
    for analysis, by in ((method_points, ["task"]), (over_methods, ["task"]), (over_images, ["task", "model"])):
        with pytest.raises(DataError, match=r"several data sets \(Set14, Set5\): choose one, or have dataset in `by`"):
            analysis(judged, scores, results, by=by)
    chosen = method_points(judged, scores[scores["dataset"] == "Set5"], results, by=["task"])
    within = method_points(judged, scores, results).query("dataset == 'Set5'").drop(columns="dataset")
    pd.testing.assert_frame_equal(chosen, within.reset_index(drop=True))


def test_grouped_images_are_drawn_together(responses, scores, results):
    ten = scores.assign(group=scores["image_id"].str[-1])
    apart = over_images(responses, scores, results, resamples=300)
    together = over_images(responses, ten, results, resamples=300)
    np.testing.assert_allclose(together["kendall"], apart["kendall"])
    assert not np.allclose(together["kendall_low"], apart["kendall_low"])


def test_p_is_adjusted_for_the_number_of_metrics(responses, scores, results):
    noise = scores[scores["metric"] == "good"].assign(metric="noise")
    noise["value"] = np.random.default_rng(3).normal(size=len(noise))
    table = over_images(responses, pd.concat([scores, noise]), results, resamples=20)
    for _, part in table.groupby("model"):
        np.testing.assert_allclose(part["p_holm"], holm(part["p"]))
    assert len(part) == 4 and (part["p_holm"] >= part["p"]).all() and (part["p_holm"] > part["p"]).any()
    methods = over_methods(responses, scores, results, resamples=20)
    np.testing.assert_allclose(methods["p_holm"], holm(methods["p"]))


def test_p_of_grouped_images_permutes_groups_and_images_within_them(responses, scores, results):
    """Scores that follow the groups of 12 alone: of 5 of these, an order as good is as likely as 2 of 120."""
    group = (scores["image_id"].astype(int) % 5).astype(str)
    rates = responses[responses["kind"] == "test"].assign(group=lambda f: (f["image_id"].astype(int) % 5).astype(str))
    means = rates.groupby(["model", "group"])["picked_model"].mean()
    by_group = scores.assign(group=group, value=means[list(zip(scores["method"], group, strict=True))].to_numpy())
    table = over_images(responses, by_group[by_group["metric"] == "good"], results, resamples=4000)
    assert table["note"].eq("few photographs: 5 groups of images").all()
    alone = over_images(responses, by_group[by_group["metric"] == "good"].drop(columns="group"), results, resamples=20)
    np.testing.assert_allclose(table["kendall"], alone["kendall"])
    assert (table["p"] < 0.05).all() and (table["p"] > 0.005).all() and (alone["p"] < 0.005).any()


def test_rates_of_methods_draw_groups_together(responses, scores, results):
    halves = scores.assign(group=(scores["image_id"].astype(int) < 30).astype(str))
    few = responses.sample(frac=0.1, random_state=0)  # so few that the order of methods may change
    apart = over_methods(few, scores, results, resamples=200, seed=1).set_index("metric")
    together = over_methods(few, halves, results, resamples=200, seed=1).set_index("metric").loc[apart.index]
    np.testing.assert_allclose(together["kendall"], apart["kendall"])
    ends = ["kendall_low", "kendall_high", "spearman_low", "spearman_high"]
    assert not np.allclose(together[ends], apart[ends])
    grouped = method_points(responses, halves, results).drop_duplicates("method").set_index("method")
    assert (grouped["groups"] == 2).all() and (grouped["images"] == 60).all()


def test_few_methods_say_so(responses, scores, results):
    two = responses[responses["model"].isin(["sr3", "pulse"])]
    assert over_methods(two, scores, results)["note"].eq("not estimable: 2 methods").all()
    four = responses[responses["model"].isin(["sr3", "pulse", "bicubic", "esrgan"])]
    assert over_methods(four, scores, results, resamples=50)["note"].eq("few methods: p cannot be below 0.083").all()


def test_without_results_the_direction_is_not_known(responses, scores):
    table = over_methods(responses, scores, resamples=50).set_index("metric")
    assert table["note"].str.contains("direction unknown").all() and table.loc["lower", "kendall"] == pytest.approx(-1)


def test_values_that_are_all_equal_are_not_estimable(responses, scores, results):
    same = scores.assign(value=1.0)
    assert over_images(responses, same, results)["note"].eq("not estimable: all values are equal").all()
    assert over_methods(responses, same, results).set_index("metric").loc["good", "note"].startswith("not estimable")


def test_what_does_not_fit_is_refused(responses, scores):
    with pytest.raises(DataError, match="no method of the responses is in the scores"):
        over_methods(responses, scores.assign(method="other"))
    with pytest.raises(DataError, match="no image of the responses is in the scores"):
        over_images(responses, scores.assign(image_id="other"))
    with pytest.raises(DataError, match=r"several tasks \(birds, faces\): choose one"):
        method_points(responses, pd.concat([scores, scores.assign(task="birds")]))
    with pytest.raises(
        DataError, match="1 scores are listed twice, first .*: if from two runs of a method, choose one"
    ):
        over_methods(responses, pd.concat([scores, scores.head(1)]))
    for analysis in (over_methods, over_images):
        with pytest.raises(DataError, match="resamples = 0: must be at least 1"):
            analysis(responses, scores, resamples=0)
    with pytest.raises(DataError, match="must have model"):
        over_images(responses, scores, by=["task"])
