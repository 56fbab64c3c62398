"""The 2AFC score against BAPPS's own formula, people against people by hand, opinions against scipy."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.comparisons import holm
from analysis.errors import DataError
from analysis.metric_agreement import choice_votes, opinion_agreement, two_afc
from analysis.preference import pair_rates
from analysis.simulated_choices import simulate_choices

HIGHER = {"psnr": True, "lpips": False, "coin": True}


@pytest.fixture(scope="module")
def triplets():
    """Votes of five people and scores of three metrics; some scores are equal."""
    rng = np.random.default_rng(0)
    chance = rng.beta(0.5, 0.5, 300)
    share = rng.binomial(5, chance) / 5
    ids = [f"{i:06d}" for i in range(300)]
    votes = pd.DataFrame({"image_id": ids, "share_a": share}).assign(
        dataset="superres", model_a="p0", model_b="p1", n=5, ties=0
    )
    rows = []
    for image, likely in zip(ids, chance, strict=True):
        a, b = rng.normal([likely, 1 - likely], 0.3).round(1)
        values = {"psnr": (a, b), "lpips": (-a, -b), "coin": rng.normal(size=2)}
        rows += [
            (m, image, metric, v) for metric, pair in values.items() for m, v in zip(("p0", "p1"), pair, strict=True)
        ]
    return votes, pd.DataFrame(rows, columns=["method", "image_id", "metric", "value"])


def test_two_afc_is_that_of_bapps(triplets):
    votes, scores = triplets
    table = two_afc(votes, scores, HIGHER).set_index("metric")
    wide = scores.pivot(index="image_id", columns=["metric", "method"], values="value")
    for metric, sign in (("psnr", -1), ("lpips", 1), ("coin", -1)):
        d0, d1 = sign * wide[metric]["p0"].to_numpy(), sign * wide[metric]["p1"].to_numpy()
        judge = 1 - votes["share_a"].to_numpy()
        expected = (d0 < d1) * (1 - judge) + (d1 < d0) * judge + (d1 == d0) * 0.5  # lpips.score_2afc_dataset
        row = table.loc[metric]
        assert row["score"] == pytest.approx(expected.mean())
        test = stats.ttest_1samp(expected, 0.5)
        low, high = test.confidence_interval(0.95)
        assert (row["ci_low"], row["ci_high"], row["p_50"]) == pytest.approx((low, high, test.pvalue), rel=1e-6)
        assert row["ci_low"] < row["score"] < row["ci_high"]
    assert table.index[-1] == "coin" and table.loc["psnr", "score"] == table.loc["lpips", "score"] > 0.7
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p_50"]))
    # People: every ordered pair of the five, by hand; and the majority.
    agree = []
    for share in votes["share_a"]:
        k = round(5 * share)
        agree += [x == y for x, y in itertools.permutations([1] * k + [0] * (5 - k), 2)]
    assert table["human"].tolist() == pytest.approx([np.mean(agree)] * 3)
    majority = np.maximum(votes["share_a"], 1 - votes["share_a"]).mean()
    assert table["majority"].tolist() == pytest.approx([majority] * 3) and (table["score"] <= majority).all()


def test_studies_of_pairs_with_ties():
    """A metric that orders models as people do, on single votes, clustered by both; ties count half."""
    liked = {"a": -1.0, "b": 0.0, "c": 1.0}
    choices = simulate_choices(liked, subjects=20, images=30, trials=15, tie=0.3, skipped=0.05, seed=1)
    votes = choice_votes(choices)
    images = choices["image_id"].unique()
    rows = [(model, image, "true", score) for model, score in liked.items() for image in images]
    scores = pd.DataFrame(rows, columns=["method", "image_id", "metric", "value"])
    row = two_afc(votes, scores, {"true": True}, by=("task", "criterion")).iloc[0]
    rates = pair_rates(choices)
    expected = ((1 - rates["win_rate"]) * rates["n"]).sum() / rates["n"].sum()  # a < b < c: the second is the better
    assert row["score"] == pytest.approx(expected) and row["pairs"] == rates["n"].sum() and row["images"] == 30
    # One of the people against the others, in a loop over ordered pairs of votes on one pair of pictures.
    sided = votes.assign(vote=np.where(votes["model_a"] < votes["model_b"], votes["share_a"], 1 - votes["share_a"]))
    sided["pair"] = [f"{i}{min(m)}{max(m)}" for i, *m in votes[["image_id", "model_a", "model_b"]].to_numpy()]
    total, weight = 0.0, 0
    for _, own in sided.groupby("pair"):
        both = [0.5 if 0.5 in (x, y) else float(x == y) for x, y in itertools.permutations(own["vote"], 2)]
        if both:
            total, weight = total + np.mean(both) * len(own), weight + len(own)
    assert row["human"] == pytest.approx(total / weight)
    twice = pd.concat([votes, votes])  # the same subjects and images again are no news
    again = two_afc(twice, scores, {"true": True}, by=("task", "criterion")).iloc[0]
    assert again["ci_high"] - again["ci_low"] == pytest.approx(row["ci_high"] - row["ci_low"], rel=0.05)


def test_intervals_of_pairs_of_one_image_are_those_of_the_images():
    """Ten pairs an image: Student's t of the images' means."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(20), 10)
    share = np.clip(0.5 + rng.choice([-0.4, 0.4], 20)[image] + rng.normal(0, 0.05, 200), 0, 1)  # alike within images
    votes = pd.DataFrame({"image_id": image.astype(str), "share_a": share}).assign(
        dataset="", model_a=[f"m{i % 10}" for i in range(200)], model_b="z", n=np.nan, ties=0
    )
    rows = [(m, str(i), "first", float(m != "z")) for m in {*votes["model_a"], "z"} for i in range(20)]
    scores = pd.DataFrame(rows, columns=["method", "image_id", "metric", "value"])
    test = stats.ttest_1samp(votes.groupby("image_id")["share_a"].mean(), 0.5)
    for given in (votes, votes.assign(group=votes["image_id"], image_id=votes["image_id"])):
        row = two_afc(given, scores, {"first": True}).iloc[0]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert row["p_50"] == pytest.approx(test.pvalue)


def test_intervals_of_a_study_of_one_pair_are_those_of_its_win_rate():
    choices = simulate_choices({"a": 0.1, "b": 0.0}, subjects=12, images=30, trials=20, seed=3)
    rows = [(m, i, "a", float(m == "a")) for m in "ab" for i in choices["image_id"].unique()]
    scores = pd.DataFrame(rows, columns=["method", "image_id", "metric", "value"])
    row = two_afc(choice_votes(choices), scores, {"a": True}, by=("task", "criterion")).iloc[0]
    rate = pair_rates(choices).iloc[0]
    found, expected = row[["score", "ci_low", "ci_high", "p_50"]], rate[["win_rate", "ci_low", "ci_high", "p_50"]]
    assert found.tolist() == pytest.approx(expected.tolist())


def test_what_votes_cannot_say(triplets):
    votes, scores = triplets
    two = votes.head(2)
    assert two_afc(two, scores, HIGHER)["note"].tolist() == ["not estimable: 2 images"] * 3
    assert two_afc(votes.head(8), scores, HIGHER)["note"].tolist() == ["few clusters: 8"] * 3
    unknown = two_afc(votes.assign(n=np.nan), scores, HIGHER)
    assert unknown["human"].isna().all() and unknown["majority"].notna().all()
    alone = two_afc(votes.assign(subject="s"), scores, HIGHER)
    assert set(alone["note"]) == {"not estimable: one subject"} and alone["score"].notna().all()
    equal = two_afc(votes, scores.assign(value=1.0), HIGHER)
    assert set(equal["note"]) == {"no interval: all pairs add the same"} and (equal["score"] == 0.5).all()
    part = two_afc(votes, scores[scores["image_id"] < "000100"], HIGHER)
    assert part["pairs"].tolist() == [100] * 3
    with pytest.raises(DataError, match="unknown for metric lpips"):
        two_afc(votes, scores, {"psnr": True, "coin": True})
    with pytest.raises(DataError, match="no pair of the votes has scores of both pictures"):
        two_afc(votes, scores.assign(method=scores["method"] + "x"), HIGHER)
    with pytest.raises(DataError, match="1800 scores are listed twice, first p0, 000000, psnr"):
        two_afc(votes, pd.concat([scores, scores]), HIGHER)


@pytest.fixture(scope="module")
def rated():
    """40 references, 12 pictures each; `good` follows opinions within references, `hard` only between them."""
    rng = np.random.default_rng(2)
    rows = []
    for r in range(40):
        level = rng.normal(0, 100)
        for m in range(12):
            own = rng.normal(0, 60)
            values = {"good": -own + rng.normal(0, 30), "hard": level + rng.normal(0, 60)}
            rows += [(f"A{r:04d}", f"00_{m:02d}", 1400 + level + own, metric, v) for metric, v in values.items()]
    table = pd.DataFrame(rows, columns=["image_id", "method", "opinion", "metric", "value"])
    return table[table["metric"] == "good"].assign(dataset="pipal").drop(columns=["metric", "value"]), table


def test_opinions(rated):
    opinions, table = rated
    found = opinion_agreement(opinions, table, {"good": False, "hard": True}, resamples=100).set_index("metric")
    for metric, sign in (("good", -1), ("hard", 1)):
        own = table[table["metric"] == metric]
        row = found.loc[metric]
        assert row["spearman"] == pytest.approx(sign * stats.spearmanr(own["value"], own["opinion"]).statistic)
        assert row["kendall"] == pytest.approx(sign * stats.kendalltau(own["value"], own["opinion"]).statistic)
        each = [sign * stats.spearmanr(part["value"], part["opinion"]).statistic for _, part in own.groupby("image_id")]
        test = stats.ttest_1samp(each, 0)
        assert row["within"] == pytest.approx(np.mean(each)) and row["p"] == pytest.approx(test.pvalue)
        assert (row["within_low"], row["within_high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert row["spearman_low"] < row["spearman"] < row["spearman_high"]
    assert found.loc["hard", "p"] > 0.01 and found.loc["hard", "spearman"] > 0.4 and found.loc["good", "within"] > 0.7
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"]))
    infinite = table.assign(value=table["value"].where(table["value"] < table["value"].max(), np.inf))
    same = opinion_agreement(opinions, infinite, {"good": False, "hard": True}, resamples=100).set_index("metric")
    assert same.loc["hard", "spearman"] == pytest.approx(found.loc["hard", "spearman"], abs=1e-6)


def test_what_opinions_cannot_say(rated):
    opinions, table = rated
    directions = {"good": False, "hard": True}
    notes = {
        "no intervals: 2 references": opinions[opinions["image_id"] < "A0002"],
        "few clusters: 9 references": opinions[opinions["image_id"] < "A0009"],
        "not estimable: 2 pictures": opinions.head(2),
        "not estimable: all values are equal": opinions.assign(opinion=1.0),
        "within is not estimable: 0 references with several pictures": opinions.drop_duplicates("image_id"),
    }
    for note, part in notes.items():
        assert set(opinion_agreement(part, table, directions, resamples=20)["note"]) == {note}
    with pytest.raises(DataError, match="no picture of the opinions has scores"):
        opinion_agreement(opinions, table.assign(image_id="B" + table["image_id"]), directions)
