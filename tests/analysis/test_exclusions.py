"""Every rule excludes whom it should, and the log adds up."""

import numpy as np
import pandas as pd
import pytest

from analysis.errors import DataError
from analysis.exclusions import Rules, exclude, exclusion_counts, exclusion_note, subject_quality
from analysis.fool_rate import fool_rates
from analysis.simulation import simulate
from analysis.summary import EXCLUDED, all_intervals, study_results


@pytest.fixture
def clean():
    """Ten attentive subjects, 20 trials each, nobody to exclude."""
    responses = simulate({"sr3": 0.4, "pulse": 0.3}, subjects=5, images=40, trials=20, seed=1)
    caught = responses["kind"] == "catch"
    return responses.assign(
        picked_model=responses["picked_model"].where(~caught, 0),
        choice_side=responses["choice_side"].where(~caught, responses["real_side"]),
    )


def change(responses: pd.DataFrame, rows: pd.Series, **values: object) -> pd.DataFrame:
    return responses.assign(**{name: responses[name].mask(rows, value) for name, value in values.items()})


def of(responses: pd.DataFrame, kind: str = "test", first: int = 1000) -> pd.Series:
    """The first trials of this kind of subject s00002."""
    rows = (responses["subject"] == "s00002") & (responses["kind"] == kind)
    return rows & (rows.cumsum() <= first)


# By rule: what just fails it, and what just passes.
FAULTS = {
    "catch trials": (
        lambda r: change(r, of(r, "catch", 2), picked_model=1, choice_side="neither"),
        lambda r: change(r, of(r, "catch", 1), picked_model=1, choice_side="neither"),
    ),
    "fast": (lambda r: change(r, of(r), rt_ms=199.9), lambda r: change(r, of(r), rt_ms=200.0)),
    "timing": (lambda r: change(r, of(r, first=5), timing_ok=0), lambda r: change(r, of(r, first=4), timing_ok=0)),
    "one side": (
        lambda r: change(r, of(r), choice_side="left"),
        lambda r: change(change(r, of(r), choice_side="left"), of(r, first=1), choice_side="right"),
    ),
    "incomplete": (
        lambda r: change(r, r["subject"] == "s00002", finished=0)[~of(r, first=3)],
        lambda r: change(r, r["subject"] == "s00002", finished=0)[~of(r, first=2)],
    ),
    "study: withdrew": (
        lambda r: change(r, r["subject"] == "s00002", excluded_reason="withdrew"),
        lambda r: r,
    ),
}


def test_nobody_is_excluded_without_a_reason(clean):
    kept, log = exclude(clean)
    assert log.empty and len(kept) == 200 and set(kept["kind"]) == {"test"}


@pytest.mark.parametrize("rule", FAULTS)
def test_rule(clean, rule):
    fails, passes = FAULTS[rule]
    kept, log = exclude(fails(clean))
    left = of(fails(clean)).sum()
    assert log[["subject", "rule", "n"]].to_numpy().tolist() == [["s00002", rule, left]]
    assert set(kept["subject"]) == set(clean["subject"]) - {"s00002"} and len(kept) == 180
    kept, log = exclude(passes(clean))
    assert "s00002" in set(kept["subject"]) and rule not in set(log["rule"])


def test_flagged_trials_leave_unless_the_rules_say_otherwise(clean):
    flagged = change(clean, of(clean, first=3), timing_ok=0)
    kept, log = exclude(flagged)
    assert log[["rule", "value", "n"]].to_numpy().tolist() == [["timing of a trial", 0.15, 3]]
    assert len(kept) == 197
    kept, log = exclude(flagged, Rules(drop_flagged_trials=False))
    assert len(kept) == 200 and log.empty


def test_the_log_counts_every_trial_once(study):
    broken = change(study, study["subject"] == "s00002", rt_ms=10.0, excluded_reason="withdrew", timing_ok=0)
    kept, log = exclude(broken)
    assert (log["subject"] == "s00002").sum() == 3 and log["n"].sum() + len(kept) == (study["kind"] == "test").sum()
    counts = exclusion_counts(log)
    assert counts["n"].sum() == log["n"].sum() and counts["subjects"].sum() == len(log)


def test_unfinished_subjects_are_measured_by_what_was_planned(clean):
    unfinished = change(clean, clean["subject"] == "s00002", finished=0)
    assert exclude(unfinished)[1].empty
    _, log = exclude(unfinished, Rules(planned_trials=23))
    assert log[["subject", "rule", "value"]].to_numpy().tolist() == [["s00002", "incomplete", 20 / 23]]


def test_a_reason_that_pandas_read_as_nan_is_none(clean):
    pd.testing.assert_frame_equal(exclude(clean.assign(excluded_reason=np.nan))[1], exclude(clean)[1])


def test_practice_and_flagged_catch_trials_exclude_nobody(clean):
    wild = change(clean, clean["kind"] == "practice", picked_model=1, rt_ms=1.0, timing_ok=0)
    wild = change(wild, clean["kind"] == "catch", rt_ms=1.0, timing_ok=0)
    pd.testing.assert_frame_equal(exclude(wild)[0], exclude(clean)[0])


def test_a_study_without_catch_trials_is_not_judged_by_them(clean):
    kept, log = exclude(clean[clean["kind"] == "test"])
    assert log[["subject", "n"]].to_numpy().tolist() == [["", 0]] and len(kept) == 200
    assert log["rule"][0] == "catch trials: not applied to 10 of 10 subjects (no catch trials)"
    assert subject_quality(clean[clean["kind"] == "test"])["catch_share"].isna().all()


@pytest.mark.parametrize(
    ("change_of", "rule"),
    [
        (lambda r: r[~of(r, "catch")], "catch trials: not applied to 1 of 10 subjects (no catch trials)"),
        (
            lambda r: change(r, r["subject"] < "s00002", rt_ms=np.nan),
            "fast: not applied to 2 of 10 subjects (no response times)",
        ),
        (
            lambda r: r.assign(finished=0),
            "incomplete: not applied to 10 of 10 subjects (no planned number and nobody finished)",
        ),
    ],
)
def test_rules_that_cannot_be_applied_are_in_the_log(clean, change_of, rule):
    kept, log = exclude(change_of(clean))
    assert log[["study", "subject", "rule", "n"]].to_numpy().tolist() == [["simulated", "", rule, 0]]
    assert len(kept) == 200
    assert exclusion_counts(log).to_numpy().tolist() == [[rule, 0, 0]]
    assert exclusion_note(clean, kept, log) == f"excluded: 0 of 10 subjects, 0 of 200 test trials; {rule}"


def test_rules_that_are_off_are_not_missed(clean):
    off = Rules(min_catch_share=0, min_median_rt_ms=0, min_answered_share=0)
    nothing = clean[clean["kind"] == "test"].assign(rt_ms=np.nan, finished=0)
    assert exclude(nothing, off)[1].empty
    assert exclude(clean.assign(finished=0), Rules(planned_trials=20))[1].empty


def test_a_table_says_what_was_excluded(clean):
    flagged = clean.assign(timing_ok=0)
    note = exclusion_note(flagged, *exclude(flagged))
    assert note == "excluded: 10 of 10 subjects, 200 of 200 test trials (timing 200)"
    some = change(change(clean, of(clean, first=3), timing_ok=0), clean["subject"] == "s00001", rt_ms=10.0)
    note = exclusion_note(some, *exclude(some))
    assert note == "excluded: 1 of 10 subjects, 23 of 200 test trials (fast 20, timing of a trial 3)"


def test_guessers_are_found():
    study = simulate({"sr3": 0.4}, subjects=200, guessers=0.5, seed=2)
    kept, log = exclude(study, Rules(min_median_rt_ms=0.0))
    caught = log[log["rule"] == "catch trials"]["subject"].nunique()
    passing = 9 / 256  # 7 or 8 of 8 by guessing
    assert abs((200 - kept["subject"].nunique()) - caught) == 0
    assert 100 * (1 - passing) - 8 < caught < 100 * (1 - passing) + 8


def test_results_with_and_without_exclusions(clean):
    broken = change(clean, of(clean, first=3), timing_ok=0)
    broken = change(broken, (clean["subject"] == "s00001"), finished=0)[
        ~((clean["subject"] == "s00001") & of_last(clean))
    ]
    results, log = study_results(broken)
    n = results[results["model"] == "sr3"].set_index("analysis")["n"]
    assert n.to_dict() == {"primary": 77, "flagged kept": 80, "unfinished kept": 92}
    assert set(log["rule"]) == {"incomplete", "timing of a trial"}
    primary = results[results["analysis"] == "primary"].drop(columns="analysis").reset_index(drop=True)
    pd.testing.assert_frame_equal(primary, fool_rates(exclude(broken)[0]))


def test_flagged_kept_keeps_subjects_with_much_flagged(clean):
    results, _ = study_results(change(clean, of(clean, first=6), timing_ok=0), by=[])
    n = results.set_index("analysis")["n"]
    assert n["primary"] == 180 and n["flagged kept"] == 200


def of_last(responses: pd.DataFrame) -> pd.Series:
    """The last 5 test trials of everyone."""
    return (responses["kind"] == "test") & (responses["trial_index"] >= 15)


@pytest.mark.parametrize("by", [["task", "model"], []])
def test_conditions_that_lost_everyone_stay_in_the_table(clean, by):
    gone = (
        change(clean, clean["model"] == "pulse", excluded_reason="bug") if by else clean.assign(excluded_reason="bug")
    )
    results, _ = study_results(gone, by)
    lost = results[results["n"] == 0]
    assert len(lost) == 3 and (lost["note"] == EXCLUDED).all() and lost["fool_rate"].isna().all()
    assert not lost["hyper_real"].any() and len(results) == 3 * (2 if by else 1)


def test_all_intervals_side_by_side(kept):
    table = all_intervals(kept, ["model"], resamples=200)
    width = (table["ci_high"] - table["ci_low"]).groupby(table["interval"]).mean()
    assert set(width.index) == {"two-way", "pigeonhole", "subjects", "wilson", "exact", "jeffreys"}
    assert width["wilson"] < width["exact"] < width["two-way"]
    assert np.ptp(table.groupby("model")["fool_rate"].agg(np.ptp)) < 0.02
    one = all_intervals(kept[kept["subject"] == kept["subject"][0]], ["model"], resamples=200)
    assert (one["note"].eq("not estimable: one subject") == one["ci_low"].isna()).all() and one["ci_low"].isna().any()


def test_rules_are_checked():
    with pytest.raises(DataError, match=r"min_catch_share = 7: must be in \[0, 1\]"):
        Rules(min_catch_share=7)
    with pytest.raises(DataError, match="has no column rt_ms"):
        exclude(simulate({"a": 0.5}, subjects=2).drop(columns="rt_ms"))
