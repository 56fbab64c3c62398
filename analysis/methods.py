"""What a paper says of a study beside its numbers: who answered what, what was left out, how intervals were made."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.clusters import CLUSTER, groups, numbered
from analysis.exclusions import WHO, Rules, exclude, exclusion_note
from analysis.fool_rate import fool_rates
from analysis.tables import of_tests, require

SEPARATE = ("study", "task", "exposure_ms")  # what is never pooled
TASKS = {1: "the low-resolution input stood between the two pictures", 2: "without the low-resolution input"}
INTERVALS = (
    "A fool rate is the share of these answers that took the model's output for the real picture. Intervals are 95 % "
    "confidence intervals from standard errors clustered by subject and by {images} (Cameron, Gelbach and Miller, "
    "2011), with Student's t on {df} degrees of freedom, of the logit where a rate is below 1/3 or above 2/3 (Korn and "
    "Graubard, 1998). Models were compared in pairs by t tests of differences with standard errors clustered in the "
    "same way, p adjusted by Holm's procedure."
)


def methods_text(responses: pd.DataFrame, rules: Rules | None = None) -> str:
    """A paragraph for a methods section for each study, task and viewing time, and one on rules and statistics.

    Everything in it is counted from the responses, to which the rules are applied here. What no response tells has to
    be added: how people were recruited and paid, and whether the rules were registered beforehand.
    """
    rules = rules or Rules()
    kept, log = exclude(responses, rules)
    paragraphs = [
        f"{_condition(key, part)} E{exclusion_note(part, kept, log)[1:]}. {_counted(_having(kept, key))}"
        for key, part in groups(of_tests(responses, SEPARATE), SEPARATE)
    ]
    return "\n\n".join([*paragraphs, " ".join([_rules(rules), *_statistics(kept)])]) + "\n"


def viewing(trials: pd.DataFrame) -> str:
    """How long the pictures were seen: "seen for 3006 ms (median; 95 % of the trials: 2996 to 3016 ms)"."""
    require(trials, ["exposure_actual_ms"], "responses")
    measured = trials["exposure_actual_ms"].dropna()
    if measured.empty:
        return "seen for a time that was not measured"
    low, middle, high = np.quantile(measured, [0.025, 0.5, 0.975])
    return f"seen for {middle:.0f} ms (median; 95 % of the trials: {low:.0f} to {high:.0f} ms)"


def _condition(key: dict[str, object], trials: pd.DataFrame) -> str:
    models = sorted(trials["model"].unique())
    task = TASKS[int(str(key["task"]))]
    each = trials.groupby(WHO)["model"].nunique()
    judged = "each subject judged " + ("one of them" if each.max() == 1 else f"{_range(each)} of them")
    return (
        f'Study "{key["study"]}", Task-{key["task"]} ({task}), viewing time {int(str(key["exposure_ms"])) / 1000:g} s: '
        f"{len(each)} subjects gave {len(trials)} answers to pictures of {trials['image_id'].nunique()} images by "
        f"{', '.join(models)}" + f" ({judged})" * (len(models) > 1) + "."
    )


def _rules(rules: Rules) -> str:
    single = "; of the others, single trials with failed timing were left out" * rules.drop_flagged_trials
    catch, flagged, side, answered = (
        f"{100 * share:g} %"
        for share in (rules.min_catch_share, rules.max_flagged_share, rules.max_side_share, rules.min_answered_share)
    )
    return (
        f"Subjects were excluded who passed less than {catch} of the catch trials, whose median response time was "
        f"below {rules.min_median_rt_ms:g} ms, whose timing had failed in more than {flagged} of the trials, who chose "
        f"the same side in more than {side}, or who did not finish and answered less than {answered} of the "
        f"trials{single}."
    )


def _counted(kept: pd.DataFrame) -> str:
    if kept.empty:
        return "No answers were left."
    by_model = kept.groupby("model").size()
    counts = ", ".join(f"{model} {count}" for model, count in by_model.items())
    subjects, images = len(kept[WHO].drop_duplicates()), kept["image_id"].nunique()
    shown = f"{len(kept)} answers of {subjects} subjects to {images} images count ({counts})"
    return f"{shown}; pictures were {viewing(kept)}."


def _statistics(kept: pd.DataFrame) -> list[str]:
    if kept.empty:
        return []
    by = [*SEPARATE, "model"]
    rates = fool_rates(kept, by)
    clusters = numbered(kept, by).groupby(by)[[CLUSTER, "image_id"]].nunique()
    grouped = clusters[CLUSTER] < clusters["image_id"]
    images = f"group of images ({_range(clusters[CLUSTER])} groups a model)" if grouped.any() else "image"
    return [INTERVALS.format(images=images, df=_range(rates["df"].dropna()))]


def _having(kept: pd.DataFrame, key: dict[str, object]) -> pd.DataFrame:
    return kept[np.logical_and.reduce([kept[column] == value for column, value in key.items()])]


def _range(values: pd.Series | Sequence[float]) -> str:
    low, high = (f"{end:.3g}" for end in (min(values), max(values))) if len(values) else ("no", "no")
    return low if low == high else f"{low} to {high}"
