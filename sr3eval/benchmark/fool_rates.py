"""Fool rates of a human study as rows of a results table, beside the metrics of the same methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sr3eval.benchmark.layout import LR, RunFolder
from sr3eval.errors import UserError, number
from sr3eval.folders import find_images

INTERVAL = "two-way"  # how `interval` calls the intervals of these rows
SETTINGS = (
    "share of test trials on which people picked the output, Task-{task} of the paper, shown for {seconds:g} s; 50 is "
    "indistinguishable; two-way clustered by subject and image; of a method, {subjects} subjects and {images} images"
    "{rest}"
)
CONDITION = ["task", "exposure_ms"]  # what is never pooled
TRIAL = ["study", "task", "condition", "subject", "trial_index"]
LeftOut = Mapping[tuple[int, int], str]


def refuse_other_images(responses: pd.DataFrame, runs: Sequence[Path]) -> None:
    """Raise UserError for test trials of images that none of the runs has."""
    known = {image_id for run in runs for image_id in find_images(RunFolder(run).images / LR)}
    judged = responses.loc[responses["kind"] == "test", "image_id"]
    other = sorted(set(judged) - known)
    if other:
        where = " and ".join(map(str, runs))
        raise UserError(f'responses to {number(len(other), "image")} that {where} does not have, first "{other[0]}"')


def left_out(tested: pd.DataFrame, counted: pd.DataFrame, log: pd.DataFrame) -> dict[tuple[int, int], str]:
    """By task and viewing time, how many of the test trials do not count, and by which rules of the log."""
    rules = log[log["n"] > 0].drop_duplicates(["study", "subject"])[["study", "subject", "rule"]]
    kept = counted[TRIAL].assign(kept=True)
    trials = tested.merge(kept, on=TRIAL, how="left").merge(rules, on=["study", "subject"], how="left")
    found = {}
    for (task, exposure), part in trials.groupby(CONDITION):
        rule = part["rule"][part["kept"].isna()]
        reasons = ", ".join(f"{name} {count}" for name, count in rule.value_counts().items())
        if len(rule):
            found[task, exposure] = f"; {len(rule)} of {len(part)} test trials left out: {reasons}"
    return found


def add_fool_rates(
    results: pd.DataFrame, rates: pd.DataFrame, comparisons: pd.DataFrame, left_out: LeftOut
) -> pd.DataFrame:
    """`results` with a row for each fool rate, in per cent: metrics fool_rate_task1 and fool_rate_task2.

    Where a task was judged at several viewing times, each has a metric: fool_rate_task1_3s, fool_rate_task1_6s.
    results: of `summary.summarise`, of one task. rates: `task` (1 or 2), exposure_ms, model (a method's name), n,
    subjects, images, fool_rate, ci_low, ci_high. comparisons: task, exposure_ms, model_a, model_b, difference (a - b),
    ci_low, ci_high, p_holm. left_out: what to say of the trials that do not count. Raises UserError for results of
    several tasks.
    """
    sets = results[["task", "dataset"]].drop_duplicates()
    if len(sets) > 1:
        names = ", ".join(dict.fromkeys(sets["task"])) if sets["task"].nunique() > 1 else ", ".join(sets["dataset"])
        raise UserError(f"responses belong to the pictures of one task and data set, not of {names}")
    rows = []
    for (task, exposure), part in rates.groupby(CONDITION):
        pairs = comparisons[(comparisons["task"] == task) & (comparisons["exposure_ms"] == exposure)]
        several = rates.loc[rates["task"] == task, "exposure_ms"].nunique() > 1
        metric = f"fool_rate_task{task}" + (f"_{exposure / 1000:g}s" if several else "")
        label = f"Fool rate, Task-{task}" + (f", {exposure / 1000:g} s" if several else "")
        rows += _rows(metric, label, part, pairs, left_out.get((task, exposure), ""))
    methods = results.drop_duplicates("method").set_index("method")
    kept = ["method_settings", "method_notes", "method_warning", "n_too_small", "n_unreadable", "inputs"]
    added = pd.DataFrame(rows).assign(**sets.iloc[0]).join(methods[kept], on="method")
    return pd.concat([results, added[[column for column in results if column in added]]], ignore_index=True)


def _rows(
    metric: str, label: str, rates: pd.DataFrame, comparisons: pd.DataFrame, rest: str
) -> list[dict[str, object]]:
    """Rows of the study's Task-1 or Task-2 at one viewing time; the best is the highest rate."""
    best = rates.loc[rates["fool_rate"].idxmax(), "model"] if rates["fool_rate"].notna().any() else None
    subjects, images = (_range(rates[column]) for column in ("subjects", "images"))
    condition = {"task": int(rates["task"].iloc[0]), "seconds": rates["exposure_ms"].iloc[0] / 1000}
    settings = SETTINGS.format(**condition, subjects=subjects, images=images, rest=rest)
    return [
        {
            "method": row.model,
            "metric": metric,
            "label": label,
            "unit": "%",
            "decimals": 1,
            "version": "1",
            "value": 100 * row.fool_rate,
            "ci_low": 100 * row.ci_low,
            "ci_high": 100 * row.ci_high,
            "n": row.n,
            "higher_is_better": True,
            "settings": settings,
            "n_groups": row.subjects,
            "n_infinite": 0,
            "n_left_out": 0,
            "best": row.model == best,
            "interval": INTERVAL,
        }
        | _against(str(best), str(row.model), comparisons)
        for row in rates.itertuples()
    ]


def _range(counts: pd.Series) -> str:
    """One number where all are equal, else the least and the greatest."""
    return f"{counts.min()}" if counts.nunique() == 1 else f"{counts.min()} to {counts.max()}"


def _against(best: str, model: str, comparisons: pd.DataFrame) -> dict[str, object]:
    """The comparison of a method with the best one, if it was made."""
    for sign, a, b in ((1, "model_a", "model_b"), (-1, "model_b", "model_a")):
        pair = comparisons[(comparisons[a] == model) & (comparisons[b] == best)]
        for row in pair.itertuples():
            ends = sorted((100 * sign * row.ci_low, 100 * sign * row.ci_high))
            delta = {"delta_to_best": 100 * sign * row.difference, "delta_ci_low": ends[0], "delta_ci_high": ends[1]}
            return delta | {"p_value": row.p_holm, "testable": bool(pd.notna(row.p_holm))}
    return {}
