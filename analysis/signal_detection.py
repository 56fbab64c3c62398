"""d' and side bias: how well people tell the model's output from the real picture, apart from which side they like."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.clusters import SUBJECT, Cells, count, groups, numbered, variances, why_not_estimable
from analysis.fool_rate import CHANCE, CONDITION
from analysis.proportions import ClusteredRates
from analysis.tables import require

Array = NDArray[np.float64]

RESULTS = [
    *("n", "hit_rate", "false_alarm_rate", "d_prime", "d_prime_se", "criterion", "criterion_se"),
    *("left_share", "left_p", "subject_left_min", "subject_left_max", "note"),
]


def side_bias(responses: pd.DataFrame, by: Sequence[str] = CONDITION, log_linear: bool = True) -> pd.DataFrame:
    """Signal detection in a choice of left or right, one row a group of test trials.

    Columns: `by`, n; hit_rate H = P(left chosen | real left), false_alarm_rate F = P(left chosen | real right);
    d_prime = (z(H) - z(F)) / sqrt 2; criterion c = -(z(H) + z(F)) / (2 sqrt 2), negative for a liking of left; their
    standard errors, two-way clustered as fool rates are; left_share of all choices, left_p of "subjects choose left in
    50 % of the trials on average", clustered by subject, so that subjects may like sides of their own; the smallest and
    the largest share of a subject; note. log_linear: d' and c are from rates (k + 0.5) / (n + 1), finite even for H or
    F of 0 or 1 (Hautus 1995).
    """
    require(responses, ("real_side", "choice_side"), "responses")
    trials = numbered(responses, by)
    if trials.empty:
        return pd.DataFrame(columns=[*by, *RESULTS])
    real_left, left = trials["real_side"] == "left", trials["choice_side"] == "left"
    marked = trials.assign(real_left=real_left.astype(int), left=left.astype(int), hit=(left & real_left).astype(int))
    rows = [key | _detection(part, log_linear) for key, part in groups(marked, by)]
    return pd.DataFrame(rows, columns=[*by, *RESULTS])


def unbiased_d_prime(fool_rate: ArrayLike) -> Array:
    """d' of people without side bias: sqrt 2 * z(1 - fool rate); 0 at 50 %."""
    return np.sqrt(2) * stats.norm.ppf(1 - np.asarray(fool_rate, float))


def _detection(trials: pd.DataFrame, log_linear: bool) -> dict[str, object]:
    """A row of side_bias without its key."""
    n, real_left, left, hit = len(trials), *(int(trials[column].sum()) for column in ("real_left", "left", "hit"))
    by_subject = trials.groupby(SUBJECT)["left"].agg(["sum", "size"])
    shares = by_subject["sum"] / by_subject["size"]
    row: dict[str, object] = {"n": n, "left_share": left / n, "left_p": _left_p(by_subject["sum"], by_subject["size"])}
    row |= {"subject_left_min": shares.min(), "subject_left_max": shares.max()}
    if real_left in (0, n):
        return row | {"note": "not estimable: the real picture was always on one side"}
    raw = np.array([hit / real_left, (left - hit) / (n - real_left)])
    row |= {"hit_rate": raw[0], "false_alarm_rate": raw[1]}
    add = 0.5 if log_linear else 0.0
    shown = np.array([real_left, n - real_left])
    rates = (raw * shown + add) / (shown + 2 * add)
    if np.any((rates == 0) | (rates == 1)):
        return row | {"note": "not estimable: H or F is 0 or 1; use log_linear"}
    z_hit, z_alarm = stats.norm.ppf(rates)
    d_prime, criterion = (z_hit - z_alarm) / np.sqrt(2), -(z_hit + z_alarm) / (2 * np.sqrt(2))
    row |= {"d_prime": float(d_prime), "criterion": float(criterion)}
    cells = count(trials.assign(picked_model=trials["left"]), level=1 - trials["real_left"].to_numpy(np.int64))
    note = why_not_estimable(cells)
    return row | ({} if note else _standard_errors(cells, raw, rates)) | {"note": note}


def _left_p(left: pd.Series, n: pd.Series) -> float:
    """Of 50 %, from how often each subject chose left in n trials; nan for one subject, or where all are alike."""
    share, subjects = left.sum() / n.sum(), len(n)
    spread = float(((left - share * n) ** 2).sum())
    if subjects == 1 or (spread == 0 and 0 < share < 1):
        return math.nan
    independent = share * (1 - share) * n.sum()
    effect = subjects / (subjects - 1) * spread / independent if spread else 1.0
    rates = ClusteredRates(*(np.array(value, float) for value in (share, n.sum(), effect, subjects - 1)))
    return float(rates.p_two_sided(CHANCE))


def _standard_errors(cells: Cells, raw: Array, rates: Array) -> dict[str, float]:
    """Of d' and c by the delta method; raw: H and F, whose residuals are summed; rates: where z has its slope."""
    shown = np.bincount(cells.level, weights=cells.n)
    of_z = (cells.k - raw[cells.level] * cells.n) / (shown * stats.norm.pdf(stats.norm.ppf(rates)))[cells.level]
    signed = np.where(cells.level == 0, of_z, -of_z)
    errors = {}
    for name, influence in (("d_prime_se", signed / np.sqrt(2)), ("criterion_se", of_z / (2 * np.sqrt(2)))):
        v = variances(cells, influence)
        errors[name] = math.sqrt(v.contrast)
    return errors
