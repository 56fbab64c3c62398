"""Which subjects and trials count: pre-registered rules, applied once, every exclusion in a log."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.errors import DataError
from analysis.tables import of_tests, require

NEEDED = (
    *("study", "condition", "subject", "kind", "real_side", "choice_side"),
    *("rt_ms", "timing_ok", "finished", "excluded_reason"),
)
LOG = ["study", "subject", "rule", "value", "limit", "n"]
WHO = ["study", "subject"]
NOBODY = ""  # the subject of a row about a rule


@dataclass(frozen=True)
class Rules:
    """The limits; the defaults are those of study_protocol.md §4.9. To change one, use dataclasses.replace.

    min_catch_share: catch trials in which the real picture was chosen, 7 of 8 by default (who guesses has as many 3.5 %
    of the time). min_median_rt_ms: median over the test trials.
    max_flagged_share: of the subject's test trials with timing_ok = 0. max_side_share: of the same side chosen.
    min_answered_share: of the subjects who did not finish, those who answered less of their planned test trials leave.
    planned_trials: test trials of a subject; None takes the most that anyone in the subject's study answered, if anyone
    finished. A rule is not applied to subjects without what it looks at, which the log says.
    drop_flagged_trials: single trials with timing_ok = 0 leave.
    """

    min_catch_share: float = 7 / 8
    min_median_rt_ms: float = 200.0
    max_flagged_share: float = 0.2
    max_side_share: float = 0.95
    min_answered_share: float = 0.9
    planned_trials: int | None = None
    drop_flagged_trials: bool = True

    def __post_init__(self) -> None:
        for name in ("min_catch_share", "max_flagged_share", "max_side_share", "min_answered_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name} = {getattr(self, name)}: must be in [0, 1]")


def exclude(responses: pd.DataFrame, rules: Rules | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(test trials that count, log of what does not), of responses or of choices between models.

    Log: study, subject, rule, value, limit, n; one row for every rule that a subject fails, with n the test trials that
    left by it. Trials leave by the first rule only, so that n adds up to all that left. Practice and catch trials never
    count and are not in the log. A subject with an excluded_reason leaves by that, its rule being "study: REASON". A
    rule that could not be applied has a row a study, without subject and with n = 0: "catch trials: not applied to 12
    of 50 subjects (no catch trials)".
    """
    require(responses, NEEDED, "responses")
    rules = rules or Rules()
    trials = of_tests(responses)
    quality = subject_quality(responses, rules)
    failures = _failures(quality, rules)
    subject = pd.MultiIndex.from_frame(trials[WHO])
    leaves = subject.isin(pd.MultiIndex.from_frame(failures[WHO]))
    flagged = ~leaves & (trials["timing_ok"] == 0).to_numpy() & rules.drop_flagged_trials
    single = _flagged_trials(trials[flagged], quality)
    log = pd.concat([failures, single, _not_applied(quality, rules)], ignore_index=True)
    return trials[~leaves & ~flagged].reset_index(drop=True), log[LOG]


def subject_quality(responses: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
    """What the rules look at, one row a subject, by study and subject.

    tested, answered_share (of the planned test trials), finished; catch_trials, catch_share (passed; nan for none);
    median_rt_ms, flagged_share, side_share (of the side chosen more often): of test trials, nan for none;
    excluded_reason as the study gave it.
    """
    require(responses, NEEDED, "responses")
    rules = rules or Rules()
    marked = responses[WHO].assign(
        test=responses["kind"] == "test",
        catch=responses["kind"] == "catch",
        passed=(responses["kind"] == "catch") & (responses["choice_side"] == responses["real_side"]),
        flagged=(responses["kind"] == "test") & (responses["timing_ok"] == 0),
        left=(responses["kind"] == "test") & (responses["choice_side"] == "left"),
        right=(responses["kind"] == "test") & (responses["choice_side"] == "right"),
        rt_ms=responses["rt_ms"].where(responses["kind"] == "test"),
        finished=responses["finished"],
        excluded_reason=responses["excluded_reason"].astype(object).fillna(""),
    )
    sums = marked.groupby(WHO)[["test", "catch", "passed", "flagged", "left", "right"]].sum()
    code, reasons = pd.factorize(marked["excluded_reason"], sort=True)  # numbers have their maximum sooner
    first = marked.assign(excluded_reason=code).groupby(WHO)[["finished", "excluded_reason"]].max()
    trials = sums["test"].astype(float).replace(0, np.nan)
    planned = rules.planned_trials or sums["test"].groupby("study").transform("max")
    quality = pd.DataFrame(
        {
            "tested": sums["test"],
            "answered_share": sums["test"] / planned,
            "finished": first["finished"],
            "catch_trials": sums["catch"],
            "catch_share": sums["passed"] / sums["catch"].astype(float).replace(0, np.nan),
            "median_rt_ms": marked.groupby(WHO)["rt_ms"].median(),
            "flagged_share": sums["flagged"] / trials,
            "side_share": sums[["left", "right"]].max(axis=1) / trials,
            "excluded_reason": np.asarray(reasons, object)[first["excluded_reason"]],
        }
    )
    return quality.reset_index()


def exclusion_counts(log: pd.DataFrame) -> pd.DataFrame:
    """rule, subjects who fail it, n test trials that left by it: the table for a paper's appendix."""
    failed = log.assign(failed=log["subject"] != NOBODY)
    counted = failed.groupby("rule", sort=False).agg(subjects=("failed", "sum"), n=("n", "sum"))
    return counted.reset_index()


def exclusion_note(responses: pd.DataFrame, kept: pd.DataFrame, log: pd.DataFrame) -> str:
    """What stands beside a table: "excluded: 3 of 50 subjects, 162 of 2500 test trials (catch trials 150, …)".

    kept, log: of `exclude`, of these responses or of more than these. In brackets, the test trials that left by each
    rule; then the rules that could not be applied.
    """
    trials = of_tests(responses)
    trial = [*WHO, "condition", "trial_index"]
    stays = pd.MultiIndex.from_frame(trials[trial]).isin(pd.MultiIndex.from_frame(kept[trial]))
    rules = log[log["n"] > 0].drop_duplicates(WHO)[[*WHO, "rule"]]
    left = trials[~stays].merge(rules, on=WHO, how="left")["rule"]
    reasons = ", ".join(f"{rule} {count}" for rule, count in left.value_counts().items())
    subjects, stayed = (len(frame[WHO].drop_duplicates()) for frame in (trials, trials[stays]))
    share = f"{len(left)} of {len(trials)} test trials"
    note = f"excluded: {subjects - stayed} of {subjects} subjects, {share}" + f" ({reasons})" * bool(reasons)
    not_applied = log[(log["subject"] == NOBODY) & log["study"].isin(trials["study"])]
    return "; ".join([note, *not_applied["rule"].unique()])


def _failures(quality: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Log rows of the subjects who leave. nan passes every rule."""
    unfinished = (quality["finished"] == 0) & (quality["answered_share"] < rules.min_answered_share)
    named = quality["excluded_reason"] != ""
    checks: list[tuple[str | pd.Series, pd.Series, str, float]] = [
        ("study: " + quality["excluded_reason"], named, "excluded_reason", np.nan),
        ("catch trials", quality["catch_share"] < rules.min_catch_share, "catch_share", rules.min_catch_share),
        ("fast", quality["median_rt_ms"] < rules.min_median_rt_ms, "median_rt_ms", rules.min_median_rt_ms),
        ("timing", quality["flagged_share"] > rules.max_flagged_share, "flagged_share", rules.max_flagged_share),
        ("one side", quality["side_share"] > rules.max_side_share, "side_share", rules.max_side_share),
        ("incomplete", unfinished, "answered_share", rules.min_answered_share),
    ]
    rows = []
    for rule, failed, column, limit in checks:
        value = np.nan if column == "excluded_reason" else quality[column]
        rows.append(quality.assign(rule=rule, value=value, limit=limit, n=quality["tested"])[failed])
    failures = pd.concat(rows).sort_values(WHO, kind="stable")
    return failures.assign(n=failures["n"].where(~failures.duplicated(WHO), 0))[LOG]


def _flagged_trials(flagged: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Log rows of single trials that leave, one a subject."""
    counts = flagged.groupby(WHO).size().rename("n").reset_index()
    rows = counts.merge(quality[[*WHO, "flagged_share"]], on=WHO)
    return rows.assign(rule="timing of a trial", value=rows["flagged_share"], limit=np.nan)[LOG]


def _not_applied(quality: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Log rows of the rules that could not be applied, one a study."""
    rows = []
    for study, part in quality[quality["tested"] > 0].groupby("study"):
        nobody_finished = rules.planned_trials is None and not (part["finished"] == 1).any()
        checks = [
            ("catch trials", "no catch trials", part["catch_share"].isna(), rules.min_catch_share),
            ("fast", "no response times", part["median_rt_ms"].isna(), rules.min_median_rt_ms),
            (
                "incomplete",
                "no planned number and nobody finished",
                part["tested"] * nobody_finished > 0,
                rules.min_answered_share,
            ),
        ]
        for rule, lacks, missing, limit in checks:
            if missing.any() and limit > 0:
                text = f"{rule}: not applied to {missing.sum()} of {len(part)} subjects ({lacks})"
                rows.append({"study": study, "subject": NOBODY, "rule": text, "value": np.nan, "limit": limit, "n": 0})
    return pd.DataFrame(rows, columns=LOG).astype({"n": "int64", "value": float, "limit": float})
