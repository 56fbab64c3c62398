"""What must not matter does not, what cannot be estimated says so, and it is fast enough."""

import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.clusters import IMAGE, SUBJECT, numbered
from analysis.comparisons import compare
from analysis.errors import DataError
from analysis.exclusions import exclude
from analysis.fool_rate import equivalence, fool_rates, pooled, subject_rates, subject_summary
from analysis.image_rates import extremes, image_rates
from analysis.pigeonhole import draws, pigeonhole
from analysis.power import spread_of
from analysis.signal_detection import side_bias
from analysis.simulation import simulate
from analysis.viewing_time import viewing_time_slopes

ANALYSES = {
    "fool_rates": fool_rates,
    "pooled": pooled,
    "subject_rates": subject_rates,
    "subject_summary": subject_summary,
    "pigeonhole": lambda responses: pigeonhole(responses, resamples=50),
    "compare": compare,
    "compare exposures": lambda responses: compare(responses, "exposure_ms", ["task", "model"]),
    "viewing_time_slopes": viewing_time_slopes,
    "side_bias": side_bias,
    "image_rates": image_rates,
    "spread_of": spread_of,
    "equivalence": lambda responses: equivalence(fool_rates(responses)),
    "exclude": lambda responses: exclude(responses)[1],
}


@pytest.mark.parametrize("name", ANALYSES)
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_no_digit(study, name, seed):
    shuffled = study.sample(frac=1, random_state=seed)
    result = ANALYSES[name](shuffled)
    pd.testing.assert_frame_equal(result, ANALYSES[name](study), check_exact=True)
    assert len(result)


@pytest.mark.parametrize("name", [name for name in ANALYSES if name not in ("exclude", "image_rates", "subject_rates")])
def test_the_names_of_subjects_and_images_do_not_matter(study, name):
    renamed = study.assign(
        subject=["x" + subject[::-1] for subject in study["subject"]],
        image_id=[image[::-1] for image in study["image_id"]],
    )
    result, expected = ANALYSES[name](renamed), ANALYSES[name](study)
    if name == "pigeonhole":  # other names, other draws
        result, expected = (frame.drop(columns=["sd", "ci_low", "ci_high"]) for frame in (result, expected))
    pd.testing.assert_frame_equal(result, expected, rtol=1e-10)


@pytest.mark.parametrize("name", [name for name in ANALYSES if name != "exclude"])
def test_practice_and_catch_trials_never_count(study, name):
    others = study["kind"] != "test"
    opposite = study.assign(picked_model=study["picked_model"].where(~others, 1), choice_side="left")
    opposite["choice_side"] = study["choice_side"].where(~others, "left")
    expected = ANALYSES[name](study[~others])
    pd.testing.assert_frame_equal(ANALYSES[name](opposite), expected, check_exact=True)


def test_input_is_left_as_it_was(study):
    before = study.copy()
    for analysis in ANALYSES.values():
        analysis(study)
    pd.testing.assert_frame_equal(study, before)


def test_a_group_does_not_depend_on_the_others(study):
    alone = fool_rates(study[study["model"] == "sr3"])
    together = fool_rates(study)
    expected = together[together["model"] == "sr3"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, expected, check_exact=True)
    alone = pigeonhole(study[study["model"] == "sr3"], resamples=50)
    together = pigeonhole(study, resamples=50)
    expected = together[together["model"] == "sr3"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, expected, check_exact=True)


def only(study: pd.DataFrame, **values: object) -> pd.DataFrame:
    for column, value in values.items():
        study = study[study[column] == value]
    return study[study["model"] == "sr3"]


@pytest.mark.parametrize(
    ("part", "note"),
    [
        (lambda study: only(study, subject="s00000"), "one subject"),
        (lambda study: only(study, image_id="0003"), "one image"),
        (lambda study: only(study).assign(group="photograph"), "one photograph"),
    ],
)
def test_what_cannot_be_estimated_says_so(study, part, note):
    responses = part(study)
    rate = fool_rates(responses).iloc[0]
    tests = responses[responses["kind"] == "test"]
    assert rate["fool_rate"] == tests["picked_model"].mean() and rate["n"] == len(tests) > 0
    assert rate[["se", "ci_low", "ci_high", "p_50"]].isna().all() and not rate["hyper_real"]
    assert rate["note"].startswith("not estimable") and note in rate["note"]
    assert not equivalence(fool_rates(responses))["equivalent"].any()
    pair = compare(pd.concat([responses, responses.assign(model="twin")])).iloc[0]
    assert np.isnan(pair["p"]) and np.isnan(pair["p_holm"]) and pair["note"].startswith("not estimable")


def test_no_responses_at_all(study):
    nothing = study.head(0)
    assert fool_rates(nothing).empty and list(fool_rates(nothing)) == list(fool_rates(study))
    whole = fool_rates(nothing, by=[]).iloc[0]
    assert whole["n"] == 0 and whole["note"] == "not estimable: no responses"
    for name, analysis in ANALYSES.items():
        assert analysis(nothing).empty, name


def test_missing_columns_are_named(study):
    with pytest.raises(DataError, match="responses: has no column kind, planet"):
        fool_rates(study.drop(columns="kind"), by=["planet"])
    with pytest.raises(DataError, match=r'by: must be a list of columns, \["model"\]'):
        fool_rates(study, by="model")
    with pytest.raises(DataError, match="count = 0"):
        extremes(image_rates(study), count=0)
    with pytest.raises(DataError, match="margin = 0.5"):
        equivalence(fool_rates(study), margin=0.5)
    with pytest.raises(DataError, match='reference "F": must be t or z'):
        compare(study, reference="F")
    with pytest.raises(DataError, match="resamples = 0"):
        pigeonhole(study, resamples=0)


def test_better_than_real_is_called_hyper_real():
    rates = fool_rates(simulate({"better": 0.7, "a little": 0.53}, seed=2)).set_index("model")
    assert rates.loc["better", "hyper_real"] and not rates.loc["a little", "hyper_real"]
    assert (rates["fool_rate"] > 0.5).all()


def test_the_variance_is_at_least_that_over_subjects():
    """Every image is at 50 %, so that V_i is 0 and V_s + V_i - V_0 below V_s."""
    picks = [{0}, {1, 2, 3}, {1}, {0, 2, 3}]
    cells = [(str(s), str(i), int(i in picked)) for s, picked in enumerate(picks) for i in range(4)]
    balanced = pd.DataFrame(cells, columns=["subject", "image_id", "picked_model"]).assign(study="one", kind="test")
    assert fool_rates(balanced, by=[])["se"][0] == pytest.approx(subject_summary(balanced, by=[])["se"][0], rel=1e-12)


def test_intervals_stay_between_0_and_1():
    rates = fool_rates(simulate({"never": 0.03, "nearly always": 0.97}, subjects=4, images=30, trials=15, seed=1))
    low, rate, high = (rates[column].to_numpy() for column in ("ci_low", "fool_rate", "ci_high"))
    assert ((low >= 0) & (low < rate) & (rate < high) & (high <= 1)).all()


@pytest.mark.parametrize("picked", [0, 1])
def test_extremes_have_an_interval_and_tests(study, picked):
    """0 of n is as likely as 2.5 % where the rate is at the end of the interval of n independent responses."""
    same = only(study).assign(picked_model=picked)
    rates = fool_rates(same)
    rate = rates.iloc[0]
    ends = [rate["ci_low"], rate["ci_high"]] if picked == 0 else [1 - rate["ci_high"], 1 - rate["ci_low"]]
    assert ends[0] == 0 and stats.binom.pmf(0, rate["n"], ends[1]) == pytest.approx(0.025)
    assert rate["p_50"] < 1e-9 and rate["hyper_real"] == (picked == 1) and np.isnan(rate["se"])
    assert rate["note"].startswith("no variation: interval as of independent responses")
    tested = equivalence(rates, margin=0.1).iloc[0]
    assert tested["p_equivalence"] == pytest.approx(1) and not tested["equivalent"]
    assert compare(pd.concat([same, same.assign(model="twin")]))["note"].eq("not estimable: no variation").all()


def test_p_and_interval_agree_beyond_the_middle():
    """Below 1/3 as within it, the interval excludes 50 % where p < 5 %, and TOST shows what the 90 % interval does."""
    design = {"subjects": 6, "images": 12, "trials": 6, "catch": 0, "practice": 0}
    rates = pd.concat([fool_rates(simulate({"m": 0.2}, seed=seed, **design)) for seed in range(60)])
    excluded = (rates["ci_high"] < 0.5) | (rates["ci_low"] > 0.5)
    assert (excluded == (rates["p_50"] < 0.05)).all() and 10 < excluded.sum() < 50
    tested = equivalence(rates, margin=0.45)
    inside = (tested["ci90_low"] > 0.05) & (tested["ci90_high"] < 0.95)
    assert (inside == tested["equivalent"]).all() and 10 < inside.sum() < 50


def test_images_cluster_by_their_group(study):
    """As if each group was one image seen several times; that these are few is said beside the interval."""
    tests = only(study)[only(study)["kind"] == "test"]
    group = "g" + (tests["image_id"].astype(int) % 11).clip(upper=7).astype(str)  # the last is the largest
    grouped = fool_rates(tests.assign(group=group)).iloc[0]
    merged = fool_rates(tests.assign(image_id=group)).iloc[0]
    assert (grouped["images"], grouped["groups"]) == (tests["image_id"].nunique(), 8) and merged["groups"] == 8
    assert grouped["se"] == pytest.approx(merged["se"], rel=1e-12)
    shares = group.value_counts(normalize=True)
    assert grouped["df"] == pytest.approx(1 / (shares**2).sum() - 1) and grouped["df"] < merged["df"] == 7
    assert grouped["note"] == "few photographs: 8 groups of images"
    alone = fool_rates(tests.assign(group=tests["image_id"]))
    pd.testing.assert_frame_equal(alone, fool_rates(tests), check_exact=True)
    pd.testing.assert_frame_equal(fool_rates(tests.assign(group="")), fool_rates(tests), check_exact=True)


def test_images_of_two_studies_are_two(study):
    both = pd.concat([study, study.assign(study="second")])
    once, twice = image_rates(study, ["model"]), image_rates(both, ["model"])
    assert len(twice) == 2 * len(once) and not twice.duplicated(["model", "study", "image_id"]).any()
    assert twice["n"].sum() == 2 * once["n"].sum() and set(twice["n"]) == set(once["n"])
    assert list(image_rates(both, ["study", "model"]))[:3] == ["study", "model", "image_id"]


def test_columns_named_as_text_are_refused(study):
    calls = {
        "family": lambda: compare(study, family="task"),
        "by": lambda: viewing_time_slopes(study, by="model"),
    }
    for name, call in calls.items():
        with pytest.raises(DataError, match=f"{name}: must be a list of columns"):
            call()
    with pytest.raises(DataError, match="by: must be a list of columns"):
        extremes(image_rates(study), by="model")


def test_groups_of_two_studies_are_two(study):
    tests = study.assign(group="g" + study["image_id"].str[-1:])
    both = fool_rates(pd.concat([tests, tests.assign(study="second")]), ["model"])
    assert (both["groups"] == 2 * fool_rates(tests, ["model"])["groups"]).all()


def test_few_clusters_are_noted():
    few = fool_rates(simulate({"a": 0.5}, subjects=4, images=100, seed=1))
    assert few["note"][0] == "few clusters: 4 subjects"


def test_holm_is_within_each_task(study):
    both = pd.concat([study, study.assign(task=2, study="second")])
    pairs = compare(both)
    expected = compare(study)
    pd.testing.assert_frame_equal(pairs[pairs["task"] == 1].reset_index(drop=True), expected)
    together = compare(both.assign(model=both["model"] + both["task"].astype(str)), family=[])
    assert len(together) == 15 and (together["p_holm"] >= together["p"]).all()
    wide = expected["simultaneous_high"] - expected["simultaneous_low"]
    assert (wide > expected["ci_high"] - expected["ci_low"]).all()


def test_viewing_time_slope_is_the_difference_for_one_doubling(study):
    slopes = viewing_time_slopes(study).set_index("model")
    pairs = compare(study, "exposure_ms", ["task", "model"]).set_index("model")
    np.testing.assert_allclose(slopes["slope"], -pairs["difference"], atol=1e-12)
    np.testing.assert_allclose(slopes["se"], pairs["se"], rtol=1e-3)
    assert viewing_time_slopes(study[study["exposure_ms"] == 3000])["note"].eq("not estimable: one exposure").all()


def test_extremes_are_of_different_images(kept):
    rates = image_rates(kept)
    assert rates["shrunk"].between(rates["shrunk_low"], rates["shrunk_high"]).all()
    ends = extremes(rates, count=3)
    assert len(ends) == 3 * 6 and not ends.duplicated(["model", "image_id"]).any()
    for model, part in ends.groupby("model"):
        all_of = rates.loc[rates["model"] == model, "shrunk"]
        assert part.loc[(part["end"] == "lowest") & (part["rank"] == 1), "shrunk"].item() == all_of.min()
        assert part.loc[(part["end"] == "highest") & (part["rank"] == 1), "shrunk"].item() == all_of.max()
    assert len(extremes(rates[rates["image_id"] == "0001"], count=3)) == 3  # one image of each model, once


def test_the_bootstrap_is_of_subjects_and_images_drawn_again(kept):
    """Drawn in a loop, with the same draws."""
    trials = numbered(kept, [])
    subjects, images = trials[SUBJECT].nunique(), trials[IMAGE].nunique()
    people, pictures = next(draws(subjects, images, 100, np.random.default_rng(4)))
    assert (people.sum(axis=1) == subjects).all() and (pictures.sum(axis=1) == images).all()
    weights = people[:, trials[SUBJECT]] * pictures[:, trials[IMAGE]]
    rates = [np.average(trials["picked_model"], weights=weight) for weight in weights]
    row = pigeonhole(kept, by=[], resamples=100, seed=4).iloc[0]
    expected = [np.std(rates, ddof=1), *np.quantile(rates, [0.025, 0.975])]
    np.testing.assert_allclose(row[["sd", "ci_low", "ci_high"]].astype(float), expected, rtol=1e-9)


def test_the_bootstrap_is_seeded(kept):
    first, again, other = (pigeonhole(kept, resamples=300, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first["sd"] != other["sd"]).all()
    np.testing.assert_allclose(first["sd"], other["sd"], rtol=0.25)


def test_bootstrap_of_a_large_study_is_fast_and_small():
    responses = simulate({"sr3": 0.45}, subjects=2000, images=100, trials=50, catch=0, practice=0)
    assert len(responses) == 100_000
    tracemalloc.start()
    start = time.perf_counter()
    result = pigeonhole(responses, resamples=4000)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 20 and peak < 2**29
    assert result["sd"][0] > fool_rates(responses)["se"][0]  # conservative


def test_live_rates_and_a_benchmarks_table_need_neither_matplotlib_nor_statsmodels():
    code = """
import sys
sys.modules |= {"matplotlib": None, "statsmodels": None}
from analysis import comparisons, simulation, summary
responses = simulation.simulate({"a": 0.4, "b": 0.3}, subjects=4, images=8, trials=8)
assert len(summary.study_results(responses)[0]) == 6 and len(comparisons.compare(responses)) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)
