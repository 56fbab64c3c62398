"""How the fool rate changes with how long people may look."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.clusters import Cells, caution, count, groups, numbered, variances, why_not_estimable
from analysis.fool_rate import CONDITION, t_test
from analysis.tables import require_list

SLOPE = ["n", "subjects", "images", "slope", "se", "df", "ci_low", "ci_high", "p", "note"]
RESULTS = [*SLOPE[:3], "times", *SLOPE[3:]]


def viewing_time_slopes(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """The change of the fool rate for each doubling of exposure_ms, by least squares, two-way clustered.

    Columns: `by`, n, subjects, images, times (the number of different exposures), slope (0.01: a point more for each
    doubling), se, df, 95 % interval, p of "no change", note. For differences between single exposures, there is
    comparisons.compare(responses, factor="exposure_ms", family=["task", "model"]).
    """
    require_list(by, "by")
    trials = numbered(responses, [*by, "exposure_ms"])
    rows = [
        key
        | slope(part, np.log2(part["exposure_ms"].to_numpy(float)), "one exposure")
        | {"times": part["exposure_ms"].nunique()}
        for key, part in groups(trials, by)
    ]
    return pd.DataFrame(rows, columns=[*by, *RESULTS])


def slope(trials: pd.DataFrame, x: np.ndarray, constant: str) -> dict[str, object]:
    """SLOPE of the rate over x, one entry a numbered trial; constant: what the note calls an x that is."""
    values, level = np.unique(x, return_inverse=True)
    cells = count(trials, level)
    row: dict[str, object] = {"n": len(trials), "subjects": cells.subjects, "images": cells.images}
    note = why_not_estimable(cells) or (f"not estimable: {constant}" if len(values) == 1 else "")
    if note:
        return row | {"note": note}
    value, influence = _least_squares(cells, values[cells.level])
    v = variances(cells, influence)
    variance = v.contrast
    if variance < np.finfo(float).eps / len(trials):
        return row | {"slope": value, "note": "not estimable: no variation"}
    se, df = math.sqrt(variance), cells.df
    return row | {"slope": value, "se": se, "df": df} | t_test(value, se, df) | {"note": caution(cells)}


def _least_squares(cells: Cells, x: np.ndarray) -> tuple[float, np.ndarray]:
    """(slope of the rate over x, what each cell adds to the slope's deviation)."""
    n = cells.n.sum()
    centered = x - (cells.n * x).sum() / n
    spread = (cells.n * centered**2).sum()
    slope = float((centered * cells.k).sum() / spread)
    residual = cells.k - cells.n * (cells.k.sum() / n + slope * centered)
    return slope, centered * residual / spread
