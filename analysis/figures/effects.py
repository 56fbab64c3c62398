"""Effects with their intervals, a row each: odds ratios of the mixed model, and how answers change in a session."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from analysis.errors import DataError
from analysis.figures.style import (
    DARK,
    GREY,
    SINGLE,
    called,
    looks,
    numbers,
    one_row_each,
    panels_of_tasks,
    question,
    styled,
    wrapped,
)
from analysis.mixed_model import MixedModel
from analysis.tables import check_names, require

LABELS, LINE = 0.35, 0.12  # of the width, for names; inches, of a line of them
SAME, UNCHANGED = "1: no difference", "0: no change"
NEEDED = ("task", "model", "n", "slope", "ci_low", "ci_high")
WIDEST = 1000.0  # of an axis of odds ratios that has ticks at 2 and 5, too


@styled
def odds_ratios(fit: MixedModel, width: float = SINGLE) -> Figure:
    """Odds ratios of all pairs with 95 % intervals, on a logarithmic axis; above 1 the first fools people more often.

    fit: of analysis.mixed_model. width: inches.
    """
    contrasts = fit.contrasts()
    if contrasts.empty:
        raise DataError("there are no odds ratios to draw: the model has one level")
    pairs = contrasts[[f"{fit.factor}_a", f"{fit.factor}_b"]].astype(str).to_numpy()
    labels = wrapped((f"{called(a)}\N{NO-BREAK SPACE}: {called(b)}" for a, b in pairs), LABELS * width)
    ratios = np.exp(contrasts[["log_odds_ratio", "ci_low", "ci_high"]].to_numpy(float))
    figure = Figure(figsize=(width, 0.85 + _height(labels)))
    panel = figure.subplots()
    panel.set_xscale("log")
    for row, ratio in enumerate(ratios):
        _interval(panel, row, ratio, {"color": DARK, "marker": "o"}, f"{ratio[0]:.2f}")
    _rows(panel, labels, 1, SAME)
    low, high = min(0.5, np.nanmin(ratios)) / 1.1, max(2.0, np.nanmax(ratios)) * 1.1
    panel.set_xlim(low, high)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < WIDEST * low else (1,)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_title(numbers(fit.n, f"answers a {'model' if fit.factor == 'model' else 'level'}"), pad=11)
    figure.supxlabel("Odds ratio, with 95 % interval", fontsize="medium")
    return figure


@styled
def order_effects(effects: pd.DataFrame, models: Sequence[str] | None = None, width: float = SINGLE) -> Figure:
    """Changes of the fool rate from a subject's first trial to the last, with 95 % intervals; a panel a task.

    effects: rows of analysis.response_times.order_effects, one for each task and model. models: which, from top to
    bottom; without, all. width: inches.
    """
    require(effects, NEEDED, "order effects")
    one_row_each(effects, ("task", "model"), "order effects")
    if effects.empty:
        raise DataError("there are no order effects to draw")
    order = list(models) if models is not None else sorted(effects["model"].unique())
    check_names(order, set(effects["model"]), "model")
    tasks, look = sorted(effects["task"].unique()), looks(sorted(order))
    labels = wrapped(map(called, order), LABELS * width)
    figure, panels = panels_of_tasks(len(tasks), width, 0.75 + _height(labels), sharex=True, sharey=True)
    for panel, task in zip(panels, tasks, strict=True):
        own = effects[(effects["task"] == task) & effects["model"].isin(order)]
        points = 100 * own.set_index("model").reindex(order)[["slope", "ci_low", "ci_high"]]
        for row, (model, point) in enumerate(zip(order, points.to_numpy(float), strict=True)):
            _interval(panel, row, point, look[model], f"{point[0]:+.1f}".replace("-", "\N{MINUS SIGN}"))
        _rows(panel, labels, 0, UNCHANGED)
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.set_title(f"{question(task)}\n{numbers(own['n'], 'answers a model')}", pad=11)
        panel.label_outer()
    text = "Change of the fool rate from the first trial\nto the last (points), with 95 % interval"
    figure.supxlabel(text if width < 1.5 * SINGLE else text.replace("\n", " "), fontsize="medium")
    return figure


def _height(labels: list[str]) -> float:
    return len(labels) * max(0.2, *(LINE * (label.count("\n") + 1) + 0.06 for label in labels))


def _interval(panel: Axes, row: int, ends: NDArray[np.float64], look: dict[str, Any], text: str) -> None:
    """The first of `ends` from the second to the third, and its text beside the panel."""
    value, low, high = ends
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
    if np.isnan(value):
        panel.annotate("not estimable", (1.02, row), color=GREY, **beside)
        return
    panel.annotate(text if not np.isnan(low) else f"{text}, no interval", (1.02, row), **beside)
    if np.isnan(low):
        panel.plot(value, row, markerfacecolor="white", **look)
        return
    panel.errorbar(value, row, xerr=[[value - low], [high - value]], capsize=2, elinewidth=0.9, **look)


def _rows(panel: Axes, labels: list[str], none: float, name: str) -> None:
    """One row a label, and the named line of no effect."""
    panel.axvline(none, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    panel.annotate(name, (none, 1), (0, 1), ha="center", color=GREY, **where)
    panel.set_yticks(range(len(labels)), labels)
    panel.set_ylim(len(labels) - 0.45, -0.55)
    panel.tick_params(axis="y", length=0)
