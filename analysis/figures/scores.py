"""Metrics: FID against the number of inference steps (the paper's Fig. 12), and metrics against people."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.errors import DataError
from analysis.figures.style import (
    DOUBLE,
    SINGLE,
    called,
    chance_line,
    errorbars,
    legend_above,
    looks,
    numbers,
    one_row_each,
    styled,
    wrapped,
)
from analysis.tables import require


@styled
def fid_against_steps(scores: pd.DataFrame, label: str = "FID (lower is better)", width: float = SINGLE) -> Figure:
    """A metric of samples against the number of refinement steps, a line a method; logarithmic in the steps.

    scores: method, steps, value; with ci_low and ci_high, 95 % intervals; with n, of how many images. label: of the
    metric. width: inches.
    """
    require(scores, ("method", "steps", "value"), "scores")
    if scores.empty:
        raise DataError("there are no scores to draw")
    one_row_each(scores, ("method", "steps"), "scores")
    figure = Figure(figsize=(width, 2.1))
    panel = figure.subplots()
    for method, look in looks(sorted(scores["method"].unique())).items():
        part = scores[scores["method"] == method].sort_values("steps")
        x, y, name = part["steps"], part["value"], called(method)
        if "ci_low" in part:
            errorbars(panel, x, y, part["ci_low"], part["ci_high"], look, label=name)
        else:
            panel.errorbar(x, y, label=name, **look)
    if "n" in scores:
        panel.set_title(numbers(scores["n"], "images a point"))
    steps = sorted(scores["steps"].unique())
    panel.set_xscale("log", base=2)
    panel.set_xticks(steps, [f"{step:g}" for step in steps])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set(xlabel="Refinement steps", ylabel=wrapped([label], 1.5)[0])
    panel.set_ylim(bottom=0)
    panel.grid(axis="y", color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)
    if scores["method"].nunique() > 1:
        legend_above(figure)
    return figure


@styled
def metric_against_people(points: pd.DataFrame, names: dict[str, str] | None = None, width: float = DOUBLE) -> Figure:
    """Fool rates with 95 % intervals against each metric, a panel a metric, a point a method; better is to the right.

    points: rows of analysis.agreement.method_points, of one task and data set. names: what to call metrics; without,
    their labels. width: inches. Axes are reversed for metrics of which lower is better.
    """
    require(points, ("metric", "higher_is_better", "method", "value", "fool_rate", "ci_low", "ci_high", "n"), "points")
    if points.empty:
        raise DataError("there are no points to draw")
    for column, what in (("task", "tasks"), ("dataset", "data sets")):
        if column in points and points[column].nunique() > 1:
            raise DataError(f"points belong to several {what}: choose one")
    one_row_each(points, ("metric", "method"), "points")
    metrics = list(dict.fromkeys(points["metric"]))
    wide = width > 0.75 * DOUBLE
    columns = min(3 if wide else 2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(width, 0.35 + 2 * rows))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    look = looks(sorted(points["method"].unique()))
    for panel, metric in zip(grid.flat, metrics, strict=False):
        own = points[points["metric"] == metric]
        _scatter(panel, own, look, wide)
        name = (names or {}).get(metric, own["label"].iloc[0] if "label" in own else metric)
        panel.set_xlabel(wrapped([name + _direction(own)], 0.8 * width / columns)[0])
        panel.set_title(numbers(own["n"], "answers a point"), fontsize=7)
    for panel in grid.flat[len(metrics) :]:
        panel.remove()
    for panel in grid[:, 0]:
        panel.set_ylabel("Fool rate (%)")
    legend_above(figure)
    return figure


def _direction(points: pd.DataFrame) -> str:
    higher = points["higher_is_better"].iloc[0]
    if pd.isna(higher):
        return ""
    return "\N{NO-BREAK SPACE}↑" if higher else "\N{NO-BREAK SPACE}↓ (reversed)"


def _scatter(panel: Axes, points: pd.DataFrame, look: dict[str, dict[str, Any]], wide: bool) -> None:
    for row in points.itertuples():
        rate, low, high = 100 * row.fool_rate, 100 * row.ci_low, 100 * row.ci_high
        errorbars(panel, row.value, rate, low, high, look[row.method], label=called(row.method), linestyle="")
    chance_line(panel)
    panel.set_ylim(0, max(60.0, panel.get_ylim()[1]))
    panel.margins(x=0.12)
    panel.xaxis.set_major_locator(MaxNLocator(4 if wide else 3))
    higher = points["higher_is_better"].iloc[0]
    if not pd.isna(higher) and not np.bool_(higher):
        panel.invert_xaxis()
