"""A metric of a run against its methods' numbers of refinement steps, as the paper's Fig. 12 has FID."""

from pathlib import Path

import pandas as pd

from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import RunFolder
from sr3eval.benchmark.table import labelled
from sr3eval.config import read_toml
from sr3eval.errors import UserError, nearest


def against_steps(run: Path, metric: str) -> tuple[pd.DataFrame, str]:
    """(method, steps, value, ci_low, ci_high and n of the methods that have steps; the metric with its direction).

    A line of the figure is what the methods of `each = { steps = [...] }` share of their names. metric: as the table
    prints it ("FID"), or its id in results.csv. Raises UserError for an unknown metric, and where no method has steps.
    """
    folder = RunFolder(run)
    config = RunConfig.parse(read_toml(folder.config))
    steps = {m.name: m.options["steps"] for m in config.method if "steps" in m.options}
    if not folder.results.exists():
        raise UserError(f"{run}: has no results.csv; is the run finished?")
    results = labelled(pd.read_csv(folder.results, keep_default_na=False, na_values={"value": ""}))
    own = results[(results["metric"] == metric) | (results["label"] == metric)]
    if own.empty:
        raise UserError(f'{run} has no metric "{metric}": {nearest(metric, set(results["metric"]))}')
    own = own[own["method"].isin(steps)]
    if own.empty:
        raise UserError(f"{run}: no method says its steps: write each = {{ steps = [4, 8, 16] }} in its [[method]]")
    first = own.iloc[0]
    count = own["method"].map(steps)
    line = [name.removesuffix(f" {n}") for name, n in zip(own["method"], count, strict=True)]
    shown = own.assign(method=line, steps=count)[["method", "steps", "value", "ci_low", "ci_high", "n"]]
    return shown, f"{first['label']} {'↑' if first['higher_is_better'] else '↓'}"
