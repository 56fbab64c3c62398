"""How long people must look, or how strong the noise must be, before they tell the real picture: the threshold.

    P(real picture chosen) = 1/2 + F(a + b x) / 2,    F(z) = 1 / (1 + exp(-z))

with x = log2 of the viewing time, or the noise as it is: who cannot tell guesses right half of the time (Wichmann and
Hill 2001, without lapses). The threshold is where P = 75 %, F = 1/2: x = -a / b. Its interval is Fieller's (1954):
all x at which a + b x does not differ from 0, the variance of a + b x being clustered by subjects and by images as a
fool rate's is. Where b does not differ from 0 these are all x, or all but some: the interval has no ends. In simulated
studies nominal 95 % intervals held the truth in 95 to 96 % (profiling/interval_coverage.py --only thresholds).
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special, stats

from analysis.clusters import Cells, caution, count, groups, numbered, variances, why_not_estimable
from analysis.errors import DataError
from analysis.fool_rate import CONDITION, t_test
from analysis.proportions import LEVEL
from analysis.tables import require, require_list

Array = NDArray[np.float64]
THRESHOLDS = ["n", "subjects", "images", "levels", "threshold", "ci_low", "ci_high", "slope", "se", "df", "p", "note"]
STEEPEST, FARTHEST = 20.0, 20.0  # logits for each unit of x, and units beyond the levels, at which the search ends
STARTS = (-8.0, -4.0, -2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0)  # of a and b, at standardised x
GRID = 400  # points on either side at which the interval's ends are looked for
UNBOUNDED = "no end of the interval: the slope may be 0, or is nearly so"
NOT_BETTER = "not estimable: the real picture is not chosen more often than by guessing"


def thresholds(
    responses: pd.DataFrame, by: Sequence[str] = CONDITION, x: str = "exposure_ms", log: bool = True
) -> pd.DataFrame:
    """The viewing time, or another column, at which the real picture is chosen in 75 % of test trials; a row a group.

    Columns: `by`, n, subjects, images, levels (different values of x); threshold in units of x, its 95 % interval
    ci_low to ci_high (0 or -inf, and inf, where it has no end); slope in logits for each doubling, or each unit of x
    where not `log`, with se, df and the two-sided p of "no slope"; note. Give it what `exclude` kept. A threshold far
    from all levels is an extrapolation, which the note says. DataError for a column that is missing or, with `log`,
    not positive.
    """
    require_list(by, "by")
    require(responses, [x], "responses")
    trials = numbered(responses, [*by, x])
    values = trials[x].to_numpy(float)
    if log and not (values > 0).all():
        raise DataError(f"{x}: must be positive for its logarithm; log=False takes it as it is")
    trials = trials.assign(_x=np.log2(values) if log else values)
    back: Callable[[float], float] = (lambda value: 2.0**value) if log else float
    rows = [key | _threshold(part, back) for key, part in groups(trials, by)]
    return pd.DataFrame(rows, columns=[*by, *THRESHOLDS])


def _threshold(trials: pd.DataFrame, back: Callable[[float], float]) -> dict[str, object]:
    levels, code = np.unique(trials["_x"].to_numpy(float), return_inverse=True)
    cells = count(trials, code)
    row: dict[str, object] = {"n": len(trials), "subjects": cells.subjects, "images": cells.images}
    row["levels"] = len(levels)
    note = why_not_estimable(cells) or ("not estimable: one level" if len(levels) < 2 else "")
    found = None if note else fit(cells.n - cells.k, cells.n, levels[cells.level])
    if found is None:
        return row | {"note": note or NOT_BETTER}
    (a, b), influence = found

    def se(x: float) -> float:
        """Of a + b x."""
        return math.sqrt(variances(cells, influence[0] + x * influence[1]).contrast)

    slope = math.sqrt(variances(cells, influence[1]).contrast)
    if not slope > 0:
        return row | {"note": "not estimable: no variation"}
    low, high = -math.inf, math.inf
    if abs(b) > _quantile(cells) * slope:
        low, high = _fieller(-a / b, lambda x: abs(a + b * x) - _quantile(cells) * se(x), levels)
    notes = [caution(cells)] + [UNBOUNDED] * (not math.isfinite(low) or not math.isfinite(high))
    notes += ["beyond the levels that were shown"] * (not levels[0] <= -a / b <= levels[-1])
    ends = {"threshold": back(-a / b), "ci_low": back(low), "ci_high": back(high)}
    return (
        row
        | ends
        | {"slope": b, "se": slope, "df": cells.df, "p": t_test(b, slope, cells.df)["p"]}
        | {"note": "; ".join(filter(None, notes))}
    )


def _quantile(cells: Cells) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, cells.df))


def _fieller(threshold: float, beyond: Callable[[float], float], levels: Array) -> tuple[float, float]:
    """The ends of where `beyond` is not positive, about the threshold; infinite where there is none in reach."""
    ends = []
    for side, limit in ((-1, min(levels[0], threshold) - FARTHEST), (1, max(levels[-1], threshold) + FARTHEST)):
        grid = np.linspace(threshold, limit, GRID)
        outside = next((i for i, x in enumerate(grid) if beyond(x) > 0), None)
        ends.append(side * math.inf if outside is None else optimize.brentq(beyond, grid[outside - 1], grid[outside]))
    return ends[0], ends[1]


def fit(right: Array, n: Array, x: Array) -> tuple[tuple[float, float], Array] | None:
    """(a, b) of greatest likelihood, and what each cell adds to their deviations, [2, cells].

    right: of n answers, those that chose the real picture, at x. None where answers are no better than guessing.
    """
    center, spread = x.mean(), x.std()
    z = (x - center) / spread

    levels, level = np.unique(z, return_inverse=True)
    found_there, given = np.bincount(level, weights=right), np.bincount(level, weights=n)

    def loss(parameters: Sequence[float] | Array) -> float:
        p = _p(parameters[0] + parameters[1] * levels)
        return -float((found_there * np.log(p) + (given - found_there) * np.log1p(-p)).sum())

    if right.sum() <= n.sum() / 2:
        return None
    # The likelihood of a curve that ends at 1/2 can have several maxima.
    start = min(itertools.product(STARTS, STARTS), key=loss)
    found = optimize.minimize(
        loss, start, method="L-BFGS-B", bounds=[(-STEEPEST, STEEPEST)] * 2, options={"ftol": 1e-14, "gtol": 1e-9}
    )
    a, b = float(found.x[0] - found.x[1] * center / spread), float(found.x[1] / spread)
    if b == 0:
        return None
    eta = a + b * x
    p, steep = _p(eta), special.expit(eta) * special.expit(-eta) / 2
    design = np.stack([np.ones_like(x), x])
    information = (design * n * steep**2 / (p * (1 - p))) @ design.T
    score = design * (right - n * p) * steep / (p * (1 - p))
    return (a, b), np.linalg.solve(information, score)


def _p(eta: Array) -> Array:
    return np.clip((1 + special.expit(eta)) / 2, 0.5, 1 - 1e-12)
