"""How far metrics agree with people over images or models, and how far any metric could."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.errors import DataError
from analysis.figures.style import (
    BEHIND,
    COLOURS,
    DOUBLE,
    GREY,
    called,
    legend_above,
    looks,
    one_row_each,
    styled,
    wrapped,
)
from analysis.tables import require

ROW, CEILING = 0.2, "noise ceiling, with 95 % interval"
NEEDED = ("metric", "spearman", "spearman_low", "spearman_high", "note")


@styled
def correlations(
    found: pd.DataFrame,
    ceilings: pd.DataFrame | None = None,
    names: dict[str, str] | None = None,
    width: float = DOUBLE,
) -> Figure:
    """Spearman's rho of each metric with fool rates, with 95 % intervals, the best first; a panel a model.

    found: rows of analysis.agreement.over_images of one task and data set, or of over_methods, which are one panel.
    ceilings: rows of analysis.ceiling.noise_ceiling of that task, drawn as a band: what a perfect metric would reach.
    names: what to call metrics. width: inches.
    """
    over = "images" if "images" in found else "methods"
    require(found, (*NEEDED, over), "correlations")
    if found.empty:
        raise DataError("there are no correlations to draw")
    of_models = "model" in found
    one_row_each(found, ["model", "metric"] if of_models else ["metric"], "correlations")
    models = list(dict.fromkeys(found["model"])) if of_models else [""]
    metrics = list(found.groupby("metric")["spearman"].mean().sort_values(ascending=False, na_position="last").index)
    columns = min(len(models), 3 if width > 0.75 * DOUBLE else 1)
    rows = -(-len(models) // columns)
    labels = wrapped([(names or {}).get(metric, metric) for metric in metrics], 0.35 * width)
    height = max(ROW, *(0.12 * (label.count("\n") + 1) + 0.06 for label in labels)) * len(metrics)
    figure = Figure(figsize=(width, 0.6 + rows * (height + 0.55)))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    look = looks(sorted(models)) if of_models else {"": {"color": COLOURS[-1], "marker": "o"}}
    for panel, model in zip(grid.flat, models, strict=False):
        own = found[found["model"] == model] if of_models else found
        _draw(panel, own.set_index("metric").reindex(metrics), look[model])
        name = wrapped([called(model)], 0.6 * width / columns)[0]
        panel.set_title(f"{name}\n{int(own[over].max())} {over}".lstrip())
        if ceilings is not None:
            _band(panel, ceilings[ceilings["model"] == model] if of_models else ceilings)
    for panel in grid.flat[max(0, len(models) - columns) : len(models)]:  # with nothing below
        panel.tick_params(labelbottom=True)
    for panel in grid.flat[len(models) :]:
        panel.remove()
    grid[0, 0].set_yticks(range(len(metrics)), labels)
    grid[0, 0].set_ylim(len(metrics) - 0.45, -0.55)
    figure.supxlabel("Spearman's ρ with fool rates, with 95 % interval", fontsize="medium")
    if ceilings is not None:
        legend_above(figure)
    return figure


def _draw(panel: Axes, found: pd.DataFrame, look: dict[str, Any]) -> None:
    panel.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    for row, (rho, low, high) in enumerate(found[["spearman", "spearman_low", "spearman_high"]].to_numpy(float)):
        if np.isnan(rho):
            panel.text(0, row, "not estimable", va="center", ha="center", color=GREY, bbox=BEHIND)
            continue
        panel.errorbar(rho, row, xerr=[[rho - low], [high - rho]], capsize=2, elinewidth=0.9, linestyle="", **look)
    panel.set_xlim(-1.05, 1.05)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.tick_params(axis="y", length=0)


def _band(panel: Axes, ceilings: pd.DataFrame) -> None:
    """Nothing where there is no ceiling."""
    if len(ceilings) > 1:
        raise DataError(f"ceilings: {len(ceilings)} rows for one panel: choose one task")
    for row in ceilings.dropna(subset=["ceiling"]).itertuples():
        panel.axvspan(row.ceiling_low, row.ceiling_high, color=GREY, alpha=0.2, linewidth=0, zorder=0)
        line: Line2D = panel.axvline(row.ceiling, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
        line.set_label(CEILING)
