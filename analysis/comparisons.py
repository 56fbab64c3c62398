"""Comparisons of models, or of other levels of a column, in pairs: differences of fool rates, adjusted by Holm."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.clusters import SAMPLE, Cells, Variances, caution, count, groups, numbered, variances, why_not_estimable
from analysis.errors import DataError
from analysis.fool_rate import t_test
from analysis.proportions import LEVEL
from analysis.seeds import within_noise
from analysis.tables import require, require_list

Reference = Literal["t", "z"]
FEW_ANSWERS = 5
RESULTS = [
    *("n_a", "n_b", "subjects", "images", "difference", "se", "df", "ci_low", "ci_high", "p"),
    *("p_holm", "simultaneous_low", "simultaneous_high", "design", "note"),
]


def compare(
    responses: pd.DataFrame,
    factor: str = "model",
    family: Sequence[str] = ("task",),
    reference: Reference = "t",
) -> pd.DataFrame:
    """Differences of fool rates between all pairs of levels of `factor`, in each family of comparisons.

    Columns: `family`, FACTOR_a, FACTOR_b, n_a, n_b; subjects and images in either; difference = rate of a - rate of b;
    se, two-way clustered over the subjects and the images, or groups of images, of both; df; the pair's own 95 %
    interval ci_low to ci_high and p; p_holm, adjusted over the estimable pairs of the family; simultaneous_low and
    _high, which cover all of the family's differences at once with 95 % (Bonferroni: a little wider than what Holm's
    test decides by); design: "within" (the same subjects judged both), "between" (nobody did) or "mixed"; note.

    reference: "t" with the smaller of the degrees of freedom that fool_rates gives a and b is the default, since the
    normal "z" is too sure with few subjects. Where less than 5 answers of a model are of one kind, t is not sure either
    (in studies of 10 subjects and 20 images, rates of 5 and 2 %, intervals covered 93 %), and the note says so. Where
    people saw several samples of each image (the column `sample`, see `seeds.of_samples`), it names differences that
    are smaller than what their noise makes with 95 %.

    The variance is V_s + V_g - V_0, and at least the smaller of V_s and V_g. What a and b share cancels in it; the
    larger, the floor of fool_rates, would put the images' part back where the design balanced it out. Between subjects,
    V_0 is the plain sum of squares of study_protocol.md §4; where a subject sees an image of both, it is that of the
    sums, with Cameron, Gelbach and Miller's factor.
    """
    if reference not in ("t", "z"):
        raise DataError(f'reference "{reference}": must be t or z')
    require_list(family, "family")
    require(responses, [factor], "responses")
    trials = numbered(responses, [*family, factor])
    rows: list[dict[str, Any]] = []
    for key, part in groups(trials, family):
        levels = sorted(part[factor].unique())
        pairs = itertools.combinations(levels, 2)
        rows += [key | row for row in _adjusted([_pair(part, factor, a, b, reference) for a, b in pairs], reference)]
    return pd.DataFrame(rows, columns=[*family, f"{factor}_a", f"{factor}_b", *RESULTS])


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment, in the order given; nan stays nan and does not count."""
    # statsmodels' counts nan, and collects the garbage of the whole process, 0.1 s and more, at every call.
    p = np.asarray(p_values, float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def _pair(trials: pd.DataFrame, factor: str, a: Any, b: Any, reference: Reference) -> dict[str, Any]:
    """A row of `compare` without its family's key and adjustments."""
    both = trials[trials[factor].isin([a, b])]
    level = (both[factor] == b).to_numpy(np.int64)
    cells, (first, second) = count(both, level), (count(both[level == arm]) for arm in (0, 1))
    shared = len(np.intersect1d(first.subject, second.subject))
    design = "between" if not shared else "within" if shared == first.subjects == second.subjects else "mixed"
    row = {f"{factor}_a": a, f"{factor}_b": b, "n_a": int(first.n.sum()), "n_b": int(second.n.sum())}
    row |= {"subjects": cells.subjects, "images": cells.images, "design": design}
    row |= {"difference": _rate(first) - _rate(second)}
    note = why_not_estimable(first, second)
    v = variances(cells, _influence(cells, first, second), design != "between") if not note else Variances(0, 0, 0)
    variance = v.contrast
    if note or variance < np.finfo(float).eps / len(both):
        return row | {"p": math.nan, "note": note or "not estimable: no variation"}
    df = math.inf if reference == "z" else min(first.df, second.df)
    test = t_test(row["difference"], math.sqrt(variance), df)
    scarce = "few answers of one kind" if min(_rarer(first), _rarer(second)) < FEW_ANSWERS else ""
    alike = SAMPLE in both and within_noise(row["difference"], both[level == 0], both[level == 1])
    notes = "; ".join(filter(None, [scarce, "less than other seeds may make" * alike, caution(first, second)]))
    return row | {"se": math.sqrt(variance), "df": df} | test | {"note": notes}


def _influence(cells: Cells, first: Cells, second: Cells) -> NDArray[np.float64]:
    """What each cell adds to the deviation of the difference."""
    signed = [(arm.k - _rate(arm) * arm.n) / arm.n.sum() * sign for arm, sign in ((first, 1.0), (second, -1.0))]
    influence = np.zeros(len(cells.n))
    for level, values in enumerate(signed):
        influence[cells.level == level] = values
    return influence


def _rarer(cells: Cells) -> float:
    """How many answers are of the rarer kind."""
    return float(min(cells.k.sum(), cells.n.sum() - cells.k.sum()))


def _rate(cells: Cells) -> float:
    return float(cells.k.sum() / cells.n.sum())


def _adjusted(rows: list[dict[str, Any]], reference: Reference) -> list[dict[str, Any]]:
    """The pairs of one family with p_holm and simultaneous intervals."""
    adjusted = holm([row["p"] for row in rows])
    tested = int(np.sum(~np.isnan(adjusted)))
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p
        if "se" in row:
            half = stats.t.ppf(1 - (1 - LEVEL) / 2 / tested, row["df"]) * row["se"]
            row |= {"simultaneous_low": row["difference"] - half, "simultaneous_high": row["difference"] + half}
    return rows
