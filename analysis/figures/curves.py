"""Psychometric curves: how often the real picture is found over viewing time, and the thresholds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import special

from analysis.errors import DataError
from analysis.figures.style import FOUND as THRESHOLD
from analysis.figures.style import (
    GREY,
    SINGLE,
    called,
    chance_line,
    errorbars,
    legend_above,
    looks,
    numbers,
    one_row_each,
    panels_of_tasks,
    question,
    styled,
)
from analysis.tables import check_names, require

DASHES = ("-", (0, (6, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (2, 1)))  # of curves, for grey
NUDGE = 1.025  # side by side, so that intervals do not hide each other
ROW = 4.5  # per cent, from one threshold to the next, which are drawn below all points
BEYOND = 1.6  # times the shortest and the longest viewing time: where the axis ends
POINTS = ("task", "model", "exposure_ms", "fool_rate", "ci_low", "ci_high", "n")
FOUND = ("task", "model", "threshold", "ci_low", "ci_high", "slope", "note")


@styled
def psychometric_curves(
    rates: pd.DataFrame, found: pd.DataFrame, models: Sequence[str] | None = None, width: float = SINGLE
) -> Figure:
    """How often the real picture is chosen over viewing time, with 95 % intervals and fitted curves; a panel a task.

    Below a panel's curves are the thresholds with their intervals; an arrow leads to what lies beyond the axis.
    rates: rows of analysis.fool_rate.fool_rates by task, model and exposure_ms. found: rows of
    analysis.psychometric.thresholds by task and model. models: which; without, all. width: inches.
    """
    require(rates, POINTS, "fool rates")
    require(found, FOUND, "thresholds")
    one_row_each(rates, ("task", "model", "exposure_ms"), "fool rates")
    one_row_each(found, ("task", "model"), "thresholds")
    if rates.empty:
        raise DataError("there are no fool rates to draw")
    order = list(models) if models is not None else sorted(rates["model"].unique())
    check_names(order, set(rates["model"]), "model")
    tasks, times = sorted(rates["task"].unique()), np.sort(rates["exposure_ms"].unique()) / 1000
    figure, panels = panels_of_tasks(len(tasks), width, 2.2 + 0.06 * len(order), sharex=True, sharey=True)
    below = min(50.0, 100 * (1 - rates[["fool_rate", "ci_high"]].max(axis=None)))
    for panel, task in zip(panels, tasks, strict=True):
        panel.set_xscale("log")
        panel.set_xlim(times[0] / BEYOND, times[-1] * BEYOND)
        own = rates[(rates["task"] == task) & rates["model"].isin(order)]
        fits = found[found["task"] == task].set_index("model")
        for row, (model, look) in enumerate(looks(order).items()):
            part, nudge = own[own["model"] == model], NUDGE ** (row - (len(order) - 1) / 2)
            right, low, high = (100 * (1 - part[column]) for column in ("fool_rate", "ci_high", "ci_low"))
            x = nudge * part["exposure_ms"] / 1000
            errorbars(panel, x, right, low, high, look, label=called(model), linestyle="")
            if model in fits.index and not np.isnan(fits.loc[model, "threshold"]):
                _curve(panel, fits.loc[model], below - ROW * (row + 1), look, DASHES[row % len(DASHES)])
        chance_line(panel)
        panel.axhline(75, color=GREY, linewidth=0.8, linestyle=":", zorder=0, label=THRESHOLD)
        panel.set_xticks(times, [f"{time:g}" for time in times])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_yticks(range(50, 101, 10))
        panel.set_ylim(below - ROW * (len(order) + 0.8), 100)
        panel.set_title(f"{question(task)}\n{numbers(own['n'], 'answers a point')}")
        panel.set(xlabel="Viewing time (s)", ylabel="Real picture chosen (%)")
        panel.label_outer()
    legend_above(figure)
    return figure


def _curve(panel: Axes, fit: pd.Series, y: float, look: dict[str, Any], dashes: Any) -> None:
    """50 + 50 / (1 + exp(-slope log2(time / threshold))) per cent, and at y the threshold with its interval."""
    ends = panel.get_xlim()
    seconds = np.geomspace(*ends, 200)
    threshold, low, high = (fit[column] / 1000 for column in ("threshold", "ci_low", "ci_high"))
    right = 50 + 50 * special.expit(fit["slope"] * np.log2(seconds / threshold))
    panel.plot(seconds, right, color=look["color"], linestyle=dashes)
    first, last = np.clip([low, high], *ends)
    panel.plot([first, last], [y, y], color=look["color"], linewidth=0.9, solid_capstyle="butt")
    for end, inside, arrow in ((first, low >= ends[0], "<"), (last, high <= ends[1], ">")):
        panel.plot(end, y, color=look["color"], marker="|" if inside else arrow, markersize=4, clip_on=False)
    if ends[0] <= threshold <= ends[1]:
        panel.plot(threshold, y, **look)
