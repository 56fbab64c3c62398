"""What all figures share: sizes, colours that the colour-blind can tell apart, how files are written."""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from analysis.errors import DataError

SINGLE, DOUBLE = 3.3, 6.9  # inches: one column of a two-column paper, and both
LEGEND_ROW, LETTER = 0.16, 0.055  # inches
# Okabe and Ito 2008, "Color universal design", without yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # one more than colours, so that none comes with the same again
GREY, DARK = "#666666", "#000000"  # of what is no model
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # under text that may lie on a line
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "sr3eval",
}
# What would put the time of drawing into a file.
METADATA: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
CHANCE, NO_INTERVAL = "50 %: people cannot tell", "hollow: no interval"
FOUND = "75 %: threshold, its interval below"
QUESTIONS = {1: "Task 1: input shown", 2: "Task 2: input not shown"}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with STYLE and nothing else of the user's settings."""

    @wraps(draw)
    def figure(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as SVG, PDF or PNG, by the path's ending; the same figure gives the same bytes."""
    path = Path(path)
    if path.suffix.lower() not in METADATA:
        raise DataError(f"{path}: figures are saved as {', '.join(METADATA)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(path, metadata=METADATA[path.suffix.lower()])
    return path


_places: dict[str, int] = {}  # by name: which colour and which marker
_labels: dict[str, str] = {}  # by name: what figures call it


def keep_colours(models: Sequence[str] | Mapping[str, str]) -> None:
    """Give models their colours in this order, say that of a run, in all figures that are drawn from now on.

    Of a mapping, {"sr3": "SR3 (ours)"}, the values are what figures call the models.
    """
    _places.clear()
    _labels.clear()
    if isinstance(models, Mapping):
        _labels.update(models)
    looks(models)


def called(model: str) -> str:
    """What figures call a model: its label, if `keep_colours` was given one."""
    return _labels.get(model, model)


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each name: those it had in earlier figures, unless another name here has them.

    New names take what nobody had, while there is such. Up to 7 names have different colours, up to 56 different looks.
    """
    given = list(dict.fromkeys(names))
    kinds = len(COLOURS) if len(given) <= len(COLOURS) else len(COLOURS) * len(MARKERS)
    taken: set[int] = set()
    for name in sorted(given, key=lambda name: name not in _places):
        if name not in _places or _places[name] % kinds in taken:
            free = [place for place in range(kinds) if place not in taken]
            unused = [place for place in free if place not in _places.values()]
            _places[name] = [*unused, *free, 0][0]
        taken.add(_places[name] % kinds)
    return {name: _look(_places[name]) for name in given}


def _look(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def wrapped(names: Iterable[str], width: float) -> list[str]:
    """Names in lines of at most `width` inches, broken at spaces and behind underscores and hyphens."""
    lines = Wrapper(max(8, int(width / LETTER)))
    return [lines.fill(name) for name in names]


class Wrapper(textwrap.TextWrapper):
    wordsep_re = re.compile(r"([ \n]+)|(?<=[_-])")  # not at non-breaking spaces


def one_row_each(frame: pd.DataFrame, key: Sequence[str], name: str) -> None:
    """DataError where several rows would be drawn in one place, with the column in which they differ."""
    twice = frame[frame.duplicated(list(key), keep=False)]
    if twice.empty:
        return
    same = twice[(twice[list(key)] == twice.iloc[0][list(key)]).all(axis=1)]
    where = ", ".join(f"{column} {same.iloc[0][column]}" for column in key)
    told_by = ("analysis", "exposure_ms", "study", "dataset")
    differ = [column for column in told_by if same.get(column, pd.Series()).nunique() > 1]
    several = " (by_viewing_time draws several)" if "exposure_ms" in differ else ""
    of = f" of different {' and '.join(differ)}: choose one{several}" if differ else ": choose one"
    raise DataError(f"{name}: {len(same)} rows for {where}{of}")


def chance_line(axes: Axes, vertical: bool = False) -> None:
    """The 50 % at which people cannot tell, named: above a vertical line, in the legend for a horizontal one."""
    style: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 0}
    if not vertical:
        axes.axhline(50, label=CHANCE, **style)
        return
    axes.axvline(50, **style)
    axes.annotate(CHANCE, (50, 1), (0, 1), ("data", "axes fraction"), "offset points", ha="center", color=GREY)


def errorbars(
    panel: Axes, x: ArrayLike, y: ArrayLike, low: ArrayLike, high: ArrayLike, look: Mapping[str, Any], **style: Any
) -> None:
    """Points with the intervals of y from low to high; hollow where these are nan, which the legend says."""
    x, y, low, high = (np.atleast_1d(np.asarray(values, float)) for values in (x, y, low, high))
    panel.errorbar(x, y, yerr=[y - low, high - y], capsize=2, elinewidth=0.8, clip_on=False, **look, **style)
    without = np.isnan(low) & ~np.isnan(y)
    if without.any():
        hollow(panel, x[without], y[without], look)


def hollow(panel: Axes, x: ArrayLike, y: ArrayLike, look: Mapping[str, Any]) -> None:
    """Points that have no interval."""
    empty: dict[str, Any] = {"linestyle": "", "markerfacecolor": "white"}
    panel.plot(x, y, zorder=3, clip_on=False, **look, **empty)
    if NO_INTERVAL not in panel.get_legend_handles_labels()[1]:
        panel.plot([], [], marker="o", color=GREY, label=NO_INTERVAL, **empty)


def legend_above(figure: Figure) -> None:
    """The legend of all panels' artists over the figure, in as many columns as fit; a row more makes it higher."""
    named: dict[str, Any] = {}
    for panel in figure.axes:
        handles, names = panel.get_legend_handles_labels()
        named = dict(zip(names, handles, strict=True)) | named
    last = [name for name in (CHANCE, FOUND, NO_INTERVAL) if name in named]
    ordered = [*(name for name in named if name not in last), *last]
    handles, labels = [named[name] for name in ordered], wrapped(ordered, figure.get_figwidth() - 0.5)
    for columns in range(len(labels), 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns, columnspacing=1)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            rows = -(-len(labels) // columns) * max(label.count("\n") + 1 for label in labels)
            figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows - 1))
            return
        legend.remove()


def panels_of_tasks(count: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Panels of `height` inches: beside each other where there are two columns of room, else one above the other."""
    beside = width > 0.75 * DOUBLE
    rows, columns = (1, count) if beside else (count, 1)
    figure = Figure(figsize=(width, height * rows + 0.2))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def numbers(n: Iterable[float], what: str) -> str:
    """How many of what, "120 answers a model", or from the fewest to the most."""
    low, high = int(min(n)), int(max(n))
    return f"{low:,} {what}" if low == high else f"{low:,} to {high:,} {what}"


def question(task: int) -> str:
    return QUESTIONS.get(task, f"Task {task}")
