"""Fool rates of a human study as rows of a results table, beside the metrics of the same methods."""

import pandas as pd

from sr3eval.errors import UserError

INTERVAL = "two-way"  # how `interval` calls the intervals of these rows
SETTINGS = (
    "share of test trials on which people picked the output, Task-{task} of the paper; 50 is indistinguishable; "
    "two-way clustered by subject and image; of a method, {subjects} subjects and {images} images"
)


def add_fool_rates(results: pd.DataFrame, rates: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """`results` with a row for each fool rate, in per cent: metrics fool_rate_task1 and fool_rate_task2.

    results: of `table.summarise`, of one task. rates: `task` (1 or 2), model (a method's name), n, subjects, images,
    fool_rate, ci_low, ci_high. comparisons: task, model_a, model_b, difference (a - b), ci_low, ci_high, p_holm.
    Raises UserError for results of several tasks.
    """
    tasks = list(dict.fromkeys(results["task"]))
    if len(tasks) > 1:
        raise UserError(f"responses belong to the pictures of one task, not of {', '.join(tasks)}")
    rows = [
        row for task, part in rates.groupby("task") for row in _rows(part, comparisons[comparisons["task"] == task])
    ]
    methods = results.drop_duplicates("method").set_index("method")
    kept = ["method_settings", "method_notes", "method_warning", "n_too_small", "n_unreadable"]
    added = pd.DataFrame(rows).assign(task=tasks[0]).join(methods[kept], on="method")
    return pd.concat([results, added[[column for column in results if column in added]]], ignore_index=True)


def _rows(rates: pd.DataFrame, comparisons: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of the study's Task-1 or Task-2; the best is the highest rate."""
    best = rates.loc[rates["fool_rate"].idxmax(), "model"] if rates["fool_rate"].notna().any() else None
    subjects, images = (_range(rates[column]) for column in ("subjects", "images"))
    task = int(rates["task"].iloc[0])
    return [
        {
            "method": row.model,
            "metric": f"fool_rate_task{task}",
            "value": 100 * row.fool_rate,
            "ci_low": 100 * row.ci_low,
            "ci_high": 100 * row.ci_high,
            "n": row.n,
            "higher_is_better": True,
            "settings": SETTINGS.format(task=task, subjects=subjects, images=images),
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
