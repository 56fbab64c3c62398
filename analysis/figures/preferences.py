"""Preferences between models: Bradley-Terry scores with the ranks that they allow, and who was chosen over whom."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.errors import DataError
from analysis.figures.style import (
    GREY,
    SINGLE,
    called,
    looks,
    one_row_each,
    panels_of_tasks,
    question,
    styled,
    wrapped,
)
from analysis.preference import win_matrix as matrix_of
from analysis.tables import check_names, require

LABELS, LINE = 0.35, 0.12  # of the width, for names of models; inches, of a line of them
LIGHT, DARK = "#ffffff", "#08306b"  # never and always chosen: a ramp that keeps its order in grey
NEEDED = ("task", "criterion", "model", "score", "ci_low", "ci_high", "rank_low", "rank_high", "n")


@styled
def preference_scores(scores: pd.DataFrame, models: Sequence[str] | None = None, width: float = SINGLE) -> Figure:
    """Bradley-Terry scores with 95 % intervals, and beside them the ranks that each may have; a panel a criterion.

    scores: rows of analysis.preference.bradley_terry, one for each task, criterion and model. models: which, from top
    to bottom; without, from the best of the first panel. width: inches.
    """
    require(scores, NEEDED, "scores")
    one_row_each(scores, ("task", "criterion", "model"), "scores")
    if scores.empty:
        raise DataError("there are no scores to draw")
    order = list(models) if models is not None else list(dict.fromkeys(scores["model"]))
    check_names(order, set(scores["model"]), "model")
    kinds = [key for key, _ in scores.groupby(["task", "criterion"])]
    labels = wrapped(map(called, order), LABELS * width)
    row = max(0.2, *(LINE * (label.count("\n") + 1) + 0.06 for label in labels))
    figure, panels = panels_of_tasks(len(kinds), width, 0.55 + row * len(order), sharex=True, sharey=True)
    for panel, (task, criterion) in zip(panels, kinds, strict=True):
        own = scores[(scores["task"] == task) & (scores["criterion"] == criterion)].set_index("model")
        _points(panel, own, order)
        panel.set_yticks(range(len(order)), labels)
        panel.set_ylim(len(order) - 0.45, -0.55)
        panel.tick_params(axis="y", length=0)
        panel.set_title(f"{criterion or question(task)}, {int(own['n'].sum()) // 2} choices")
        panel.label_outer()
    figure.supxlabel("Bradley-Terry score, with 95 % interval\n(0: mean of the models); right: rank", fontsize="medium")
    return figure


@styled
def win_matrix(rates: pd.DataFrame, width: float = SINGLE) -> Figure:
    """How often the model of a row was chosen over that of a column, in per cent.

    rates: rows of analysis.preference.pair_rates, of one task and criterion. width: inches.
    """
    square, counts = matrix_of(rates), matrix_of(rates, "n")
    names = wrapped((f"{called(name)} ({place})" for place, name in enumerate(square.index, 1)), LABELS * width)
    row = max(0.24, *(LINE * (name.count("\n") + 1) + 0.06 for name in names))
    figure = Figure(figsize=(width, 0.7 + row * len(names)))
    panel = figure.subplots()
    panel.imshow(_colours(square.to_numpy()), aspect="auto")
    for (place, over), share in np.ndenumerate(square.to_numpy()):
        if not np.isnan(share):
            colour = "white" if share > 0.65 else "black"
            panel.text(over, place, f"{100 * share:.0f}", ha="center", va="center", color=colour)
    panel.set_xticks(range(len(names)), [f"({place})" for place in range(1, len(names) + 1)])
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    low, high = int(np.nanmin(counts)), int(np.nanmax(counts))
    number = low if low == high else f"{low} to {high}"
    panel.set(xlabel="over", title=f"Chosen (%), of {number} choices a pair")
    return figure


def _points(panel: Axes, scores: pd.DataFrame, order: Sequence[str]) -> None:
    look = looks(sorted(order))
    panel.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    for row, model in enumerate(order):
        if model not in scores.index or np.isnan(scores.loc[model, "score"]):
            panel.text(0, row, "not estimable", va="center", ha="center", color=GREY)
            continue
        score, low, high = (scores.loc[model, column] for column in ("score", "ci_low", "ci_high"))
        if np.isnan(low):
            panel.plot(score, row, markerfacecolor="white", **look[model])
            panel.annotate("no interval", (1.02, row), xycoords=("axes fraction", "data"), va="center", color=GREY)
            continue
        panel.errorbar(score, row, xerr=[[score - low], [high - score]], capsize=2, elinewidth=0.9, **look[model])
        ranks = (int(scores.loc[model, end]) for end in ("rank_low", "rank_high"))
        panel.annotate(
            "–".join(dict.fromkeys(map(str, ranks))), (1.02, row), xycoords=("axes fraction", "data"), va="center"
        )
    panel.xaxis.set_major_locator(MaxNLocator(5))


def _colours(share: np.ndarray) -> np.ndarray:
    """[rows, columns, 3] in [0, 1]; pairs that were not shown are grey."""
    low, high = (np.array(to_rgb(colour)) for colour in (LIGHT, DARK))
    image = low + np.nan_to_num(share)[..., None] * (high - low)
    image[np.isnan(share)] = 0.9
    return image
