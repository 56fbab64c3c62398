"""Fool rates with their intervals: by model (the paper's Fig. 9 and 10) and by viewing time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.errors import DataError
from analysis.figures.style import (
    BEHIND,
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
    wrapped,
)
from analysis.tables import check_names, require

LABELS, LINE = 0.35, 0.12  # of the width, for names of models; inches, of a line of them
NEEDED = ("task", "model", "fool_rate", "ci_low", "ci_high", "n")


@styled
def fool_rates(rates: pd.DataFrame, models: Sequence[str] | None = None, width: float = SINGLE) -> Figure:
    """Bars of fool rates with 95 % intervals, a panel a task.

    rates: rows of analysis.fool_rate.fool_rates, one for each task and model. models: which, from top to bottom;
    without, from the best. width: inches.
    """
    require(rates, NEEDED, "fool rates")
    one_row_each(rates, ("task", "model"), "fool rates")
    order = _order(rates, models)
    tasks = sorted(rates["task"].unique())
    labels = wrapped(map(called, order), LABELS * width)
    row = max(0.2, *(LINE * (label.count("\n") + 1) + 0.06 for label in labels))
    figure, panels = panels_of_tasks(len(tasks), width, 0.8 + row * len(order), sharex=True, sharey=True)
    top = _top(rates, beyond=8)
    for panel, task in zip(panels, tasks, strict=True):
        own = rates[(rates["task"] == task) & rates["model"].isin(order)]
        _bars(panel, own.set_index("model"), order, labels)
        panel.set_xlim(0, top)
        panel.set_title(f"{question(task)}\n{numbers(own['n'], 'answers a model')}", pad=11)
        panel.label_outer()
    figure.supxlabel("Fool rate (%), with 95 % interval", fontsize="medium")
    return figure


@styled
def by_viewing_time(rates: pd.DataFrame, models: Sequence[str] | None = None, width: float = SINGLE) -> Figure:
    """Fool rates over viewing time with 95 % intervals, a line a model, a panel a task.

    rates: rows of analysis.fool_rate.fool_rates by task, model and exposure_ms. models: which, in the order of colours;
    without, all, from the best. width: inches.
    """
    require(rates, (*NEEDED, "exposure_ms"), "fool rates")
    one_row_each(rates, ("task", "model", "exposure_ms"), "fool rates")
    order = _order(rates, models)
    tasks = sorted(rates["task"].unique())
    figure, panels = panels_of_tasks(len(tasks), width, 1.95, sharex=True, sharey=True)
    for panel, task in zip(panels, tasks, strict=True):
        own = rates[(rates["task"] == task) & rates["model"].isin(order)]
        _lines(panel, own, order)
        panel.set_title(f"{question(task)}\n{numbers(own['n'], 'answers a point')}")
        panel.set(ylabel="Fool rate (%)", xlabel="Viewing time (s)")
        panel.set_ylim(0, _top(rates, beyond=3))
        panel.label_outer()
    legend_above(figure)
    return figure


def _order(rates: pd.DataFrame, models: Sequence[str] | None) -> list[str]:
    """Models as asked for, else by their highest rate."""
    if rates.empty:
        raise DataError("there are no fool rates to draw")
    if models is not None:
        asked = [models] if isinstance(models, str) else list(models)
        check_names(asked, set(rates["model"]), "model")
        return asked
    best = rates.groupby("model")["fool_rate"].max().sort_values(ascending=False, kind="stable")
    return [str(model) for model in best.index]


def _top(rates: pd.DataFrame, beyond: float) -> float:
    """The end of the axis in per cent: beyond the greatest rate or interval, and beyond chance."""
    return max(60.0, 100 * rates[["fool_rate", "ci_high"]].max(axis=None) + beyond)  # max is 60 where that is nan


def _bars(panel: Axes, rates: pd.DataFrame, order: list[str], labels: list[str]) -> None:
    look = looks(sorted(order))
    for row, model in enumerate(order):
        if model not in rates.index or np.isnan(rates.loc[model, "fool_rate"]):
            panel.text(1, row, "not estimable", va="center", color=GREY)
            continue
        rate, low, high = (100 * rates.loc[model, column] for column in ("fool_rate", "ci_low", "ci_high"))
        panel.barh(row, rate, height=0.62, color=(look[model]["color"], 0.55), edgecolor=look[model]["color"])
        if not np.isnan(low):
            panel.errorbar(rate, row, xerr=[[rate - low], [high - rate]], color="black", capsize=2, linewidth=0.9)
        shown = f"{rate:.1f}" if not np.isnan(low) else f"{rate:.1f}, no interval"
        panel.text(np.nanmax([high, rate]) + 1.2, row, shown, va="center", bbox=BEHIND)
    chance_line(panel, vertical=True)
    panel.set_yticks(range(len(order)), labels)
    panel.set_ylim(len(order) - 0.45, -0.55)
    panel.tick_params(axis="y", length=0)


def _lines(panel: Axes, rates: pd.DataFrame, order: list[str]) -> None:
    look = looks(sorted(order))
    for place, model in enumerate(order):
        part = rates[rates["model"] == model].sort_values("exposure_ms")
        nudge = 1.025 ** (place - (len(order) - 1) / 2)  # side by side, so that intervals do not hide each other
        rate, low, high = (100 * part[column] for column in ("fool_rate", "ci_low", "ci_high"))
        errorbars(panel, nudge * part["exposure_ms"] / 1000, rate, low, high, look[model], label=called(model))
    chance_line(panel)
    times = sorted(rates["exposure_ms"].unique() / 1000)
    panel.set_xscale("log")
    panel.set_xticks(times, [f"{time:g}" for time in times])
    panel.xaxis.set_minor_locator(NullLocator())
