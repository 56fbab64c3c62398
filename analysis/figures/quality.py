"""How people answered and how well the browser kept time: response times, exposures, flagged trials."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from analysis.errors import DataError
from analysis.exclusions import Rules, subject_quality
from analysis.figures.style import DARK, GREY, SINGLE, called, looks, numbers, styled, wrapped
from analysis.tables import judgements, require

TOLERANCE_MS = 50.0  # of timing_ok
SHOWN_MS = 250.0  # what deviates more is drawn in the outermost bin


@styled
def response_times(responses: pd.DataFrame, rules: Rules | None = None, width: float = SINGLE) -> Figure:
    """Response times of test trials by model: median, quartiles and 5 to 95 %, on a logarithmic scale of seconds.

    The dotted line is the median below which a subject is excluded. width: inches.
    """
    trials = judgements(responses, ["model"])
    require(responses, ["rt_ms"], "responses")
    trials = trials.dropna(subset=["rt_ms"])
    trials = trials[trials["rt_ms"] > 0]
    if trials.empty:
        raise DataError("there are no response times to draw")
    models = sorted(trials["model"].unique())
    labels = wrapped(map(called, models), 0.35 * width)
    row = max(0.27, *(0.12 * (label.count("\n") + 1) + 0.06 for label in labels))
    figure = Figure(figsize=(width, 0.85 + row * len(models)))
    panel = figure.subplots()
    for row, model in enumerate(models):
        _box(panel, row, trials.loc[trials["model"] == model, "rt_ms"] / 1000, looks(models)[model]["color"])
    limit = (rules or Rules()).min_median_rt_ms / 1000
    panel.axvline(limit, color=GREY, linewidth=0.8, linestyle=":")
    panel.annotate(f"limit {limit:g} s", (limit, 1), (0, 1), ("data", "axes fraction"), "offset points", ha="center")
    panel.set_title(numbers(trials["model"].value_counts(), "answers a model"), pad=11)
    panel.set_xscale("log")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30) if panel.get_xlim()[0] <= t <= panel.get_xlim()[1]]
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_yticks(range(len(models)), labels)
    panel.set_ylim(len(models) - 0.45, -0.55)
    panel.set_xlabel("Response time (s)")
    return figure


@styled
def timing_quality(responses: pd.DataFrame, rules: Rules | None = None, width: float = SINGLE) -> Figure:
    """Above, by how much exposures of test trials missed what was asked for; below, each subject's share flagged.

    Dotted lines: the tolerance of timing_ok, and the share above which a subject is excluded. width: inches.
    """
    require(responses, ("exposure_ms", "exposure_actual_ms", "timing_ok"), "responses")
    trials = judgements(responses)
    missed = (trials["exposure_actual_ms"] - trials["exposure_ms"]).dropna()
    if missed.empty:
        raise DataError("there are no exposures to draw")
    figure = Figure(figsize=(width, 3.1))
    above, below = figure.subplots(2, 1)
    _deviations(above, missed)
    _flagged(below, subject_quality(responses)["flagged_share"].dropna(), (rules or Rules()).max_flagged_share)
    return figure


def _box(panel: Axes, row: int, seconds: pd.Series, colour: str) -> None:
    low, first, median, third, high = np.quantile(seconds, [0.05, 0.25, 0.5, 0.75, 0.95])
    panel.plot([low, high], [row, row], color="black", linewidth=0.8, zorder=1)
    panel.barh(row, third - first, left=first, height=0.5, color=colour, edgecolor="black", linewidth=0.6, zorder=2)
    panel.plot([median, median], [row - 0.25, row + 0.25], color="white", linewidth=1.6, zorder=3)
    panel.text(high * 1.06, row, f"{median:.2f}", va="center")


def _deviations(panel: Axes, missed: pd.Series) -> None:
    edges = np.arange(-SHOWN_MS, SHOWN_MS + 1, 10)
    panel.hist(missed.clip(edges[0] + 1, edges[-1] - 1), bins=edges.tolist(), color=GREY)
    for limit in (-TOLERANCE_MS, TOLERANCE_MS):
        panel.axvline(limit, color=GREY, linewidth=0.8, linestyle=":")
    inside = float((missed.abs() <= TOLERANCE_MS).mean())
    median, tail = missed.median(), missed.abs().quantile(0.99)
    title = f"{len(missed):,} trials: median {median:+.1f} ms, 99 % within {tail:.0f} ms,\n"
    title += f"{100 * inside:.1f} % within ±{TOLERANCE_MS:.0f} ms"
    panel.set_title(title, fontsize="medium")
    panel.set_yscale("log")
    panel.set_ylim(bottom=0.8)  # so that a single trial is seen
    panel.set_xticks([-SHOWN_MS, -100, -TOLERANCE_MS, 0, TOLERANCE_MS, 100, SHOWN_MS])
    panel.set_xticklabels([f"≤−{SHOWN_MS:.0f}", "−100", "", "0", "", "100", f"≥{SHOWN_MS:.0f}"])
    panel.set(xlabel="Exposure, actual − requested (ms)", ylabel="Trials")
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _flagged(panel: Axes, shares: pd.Series, limit: float) -> None:
    ordered = 100 * np.sort(shares)[::-1]
    over = ordered > 100 * limit
    colours = np.where(over, DARK, GREY)
    panel.bar(np.arange(1, len(ordered) + 1), ordered, width=1.0, color=colours)
    panel.axhline(100 * limit, color=GREY, linewidth=0.8, linestyle=":")
    panel.text(
        0.98,
        0.93,
        f"{over.sum()} of {len(ordered)} subjects above {100 * limit:g} %",
        transform=panel.transAxes,
        ha="right",
        va="top",
    )
    panel.set(xlabel="Subjects, ordered", ylabel="Trials flagged (%)")
    panel.set_ylim(0, max(100 * limit * 1.25, ordered.max() * 1.1))
