"""How the fool rate changes with how long people may look."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.clusters import Cells, caution, count, groups, numbered, variances, why_not_estimable
from analysis.fool_rate import CONDITION, t_test
from analysis.tables import require_list

RESULTS = ["n", "subjects", "images", "times", "slope", "se", "df", "ci_low", "ci_high", "p", "note"]


def viewing_time_slopes(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """The change of the fool rate for each doubling of exposure_ms, by least squares, two-way clustered.

    Columns: `by`, n, subjects, images, times (the number of different exposures), slope (0.01: a point more for each
    doubling), se, df, 95 % interval, p of "no change", note. For differences between single exposures, there is
    comparisons.compare(responses, factor="exposure_ms", family=["task", "model"]).
    """
    require_list(by, "by")
    trials = numbered(responses, [*by, "exposure_ms"])
    rows = [key | _slope(part) for key, part in groups(trials, by)]
    return pd.DataFrame(rows, columns=[*by, *RESULTS])


def _slope(trials: pd.DataFrame) -> dict[str, object]:
    exposures, level = np.unique(trials["exposure_ms"], return_inverse=True)
    cells = count(trials, level)
    row: dict[str, object] = {"n": len(trials), "subjects": cells.subjects, "images": cells.images}
    row["times"] = len(exposures)
    note = why_not_estimable(cells) or ("not estimable: one exposure" if len(exposures) == 1 else "")
    if note:
        return row | {"note": note}
    slope, influence = _least_squares(cells, np.log2(exposures)[cells.level])
    v = variances(cells, influence)
    variance = max(v.two_way, min(v.subject, v.group))
    if variance < np.finfo(float).eps / len(trials):
        return row | {"slope": slope, "note": "not estimable: no variation"}
    se, df = math.sqrt(variance), cells.df
    return row | {"slope": slope, "se": se, "df": df} | t_test(slope, se, df) | {"note": caution(cells)}


def _least_squares(cells: Cells, x: np.ndarray) -> tuple[float, np.ndarray]:
    """(slope of the rate over x, what each cell adds to the slope's deviation)."""
    n = cells.n.sum()
    centered = x - (cells.n * x).sum() / n
    spread = (cells.n * centered**2).sum()
    slope = float((centered * cells.k).sum() / spread)
    residual = cells.k - cells.n * (cells.k.sum() / n + slope * centered)
    return slope, centered * residual / spread
