"""The images that fool people least and most, with their pictures (the paper's Fig. 11)."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image

from analysis.errors import DataError
from analysis.figures.style import GREY, SINGLE, called, styled
from analysis.tables import require

NARROWEST, LETTER = 0.72, 0.065  # inches: of a picture with its numbers above; of a letter
# What finds a picture: (model, image_id) -> its file, or its pixels [H, W, 3] of uint8 or [0, 1].
Pictures = Callable[[str, str], Path | str | NDArray]


@styled
def per_image_extremes(
    extremes: pd.DataFrame, pictures: Pictures, originals: Pictures | None = None, width: float = SINGLE
) -> Figure:
    """The outputs of one model that fool people least (left) and most, under each its rate, k / n and shrunk rate.

    extremes: rows of analysis.image_rates.extremes of one task and model. pictures: finds the model's output, say
    lambda model, image_id: RUN / "images" / model / f"{image_id}.png". originals: finds the real picture, which is then
    shown below. width: inches. DataError where rows are of several models, and for pictures that cannot be read.
    """
    require(extremes, ("model", "image_id", "n", "k", "fool_rate", "shrunk", "end", "rank"), "extremes")
    if extremes.empty:
        raise DataError("there are no extremes to draw")
    if extremes["model"].nunique() > 1 or ("task" in extremes and extremes["task"].nunique() > 1):
        raise DataError("extremes belong to several models or tasks: choose one")
    low = extremes[extremes["end"] == "lowest"].sort_values("rank")
    high = extremes[extremes["end"] == "highest"].sort_values("rank", ascending=False)
    shown = pd.concat([low, high])
    finders = [pictures] if originals is None else [pictures, originals]
    side = width / (len(shown) + 0.35)
    if side < NARROWEST:
        most = int(width / NARROWEST - 0.35)
        raise DataError(f"{len(shown)} pictures are too many for {width} inches: {most} fit with their numbers")
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.03, wspace=0.03, hspace=0.02)
    figure = Figure(figsize=(width, 0.62 + len(finders) * (side + 0.02)), layout=layout)
    grid = figure.subplots(len(finders), len(shown), squeeze=False)
    for panels, find, name in zip(grid, finders, (called(str(shown["model"].iloc[0])), "real"), strict=False):
        for panel, row in zip(panels, shown.itertuples(), strict=True):
            _show(panel, _pixels(find(str(row.model), str(row.image_id))))
        panels[0].set_ylabel(textwrap.fill(name, int(side / LETTER)))
    for panel, row in zip(grid[0], shown.itertuples(), strict=True):
        panel.set_title(f"{100 * row.fool_rate:.0f} % ({row.k}/{row.n})\nshrunk {100 * row.shrunk:.0f} %", fontsize=7)
    for first, count, end in ((0, len(low), "fool least"), (len(low), len(high), "fool most")):
        if count:
            grid[-1][first].annotate(end, (0, -0.06), xycoords="axes fraction", va="top", color=GREY)
    return figure


def _pixels(picture: Path | str | NDArray) -> NDArray:
    if isinstance(picture, np.ndarray):
        return picture
    try:
        with Image.open(picture) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DataError(f"{picture}: not a readable picture ({error})") from None


def _show(panel: Axes, pixels: NDArray) -> None:
    panel.imshow(pixels, interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
