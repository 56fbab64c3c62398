"""d' and side bias: how well people tell the model's output from the real picture, apart from which side they like."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.clusters import SUBJECT, groups, numbered
from analysis.fool_rate import CONDITION
from analysis.intervals import binomial_p
from analysis.tables import require

RESULTS = [
    *("n", "hit_rate", "false_alarm_rate", "d_prime", "criterion"),
    *("left_share", "left_p", "subject_left_min", "subject_left_max", "note"),
]


def side_bias(responses: pd.DataFrame, by: Sequence[str] = CONDITION, log_linear: bool = True) -> pd.DataFrame:
    """Signal detection in a choice of left or right, one row a group of test trials.

    Columns: `by`, n; hit_rate H = P(left chosen | real left), false_alarm_rate F = P(left chosen | real right);
    d_prime = (z(H) - z(F)) / sqrt 2; criterion c = -(z(H) + z(F)) / (2 sqrt 2), negative for a liking of left;
    left_share of all choices, left_p of the binomial test of 50 %, the smallest and the largest share of a subject;
    note. log_linear: d' and c are from rates (k + 0.5) / (n + 1), finite even for H or F of 0 or 1 (Hautus 1995).
    """
    require(responses, ("real_side", "choice_side"), "responses")
    trials = numbered(responses, by)
    if trials.empty:
        return pd.DataFrame(columns=[*by, *RESULTS])
    real_left, left = trials["real_side"] == "left", trials["choice_side"] == "left"
    marked = trials.assign(real_left=real_left.astype(int), left=left.astype(int), hit=(left & real_left).astype(int))
    rows = [key | _detection(part, log_linear) for key, part in groups(marked, by)]
    return pd.DataFrame(rows, columns=[*by, *RESULTS])


def unbiased_d_prime(fool_rate: ArrayLike) -> NDArray[np.float64]:
    """d' of people without side bias: sqrt 2 * z(1 - fool rate); 0 at 50 %."""
    return np.sqrt(2) * stats.norm.ppf(1 - np.asarray(fool_rate, float))


def _detection(trials: pd.DataFrame, log_linear: bool) -> dict[str, object]:
    """A row of side_bias without its key."""
    n, real_left, left, hit = len(trials), *(int(trials[column].sum()) for column in ("real_left", "left", "hit"))
    shares = trials.groupby(SUBJECT)["left"].mean()
    row: dict[str, object] = {"n": n, "left_share": left / n, "left_p": float(binomial_p(left, n))}
    row |= {"subject_left_min": shares.min(), "subject_left_max": shares.max()}
    if real_left in (0, n):
        return row | {"note": "not estimable: the real picture was always on one side"}
    row |= {"hit_rate": hit / real_left, "false_alarm_rate": (left - hit) / (n - real_left)}
    add = 0.5 if log_linear else 0.0
    rates = np.array([(hit + add) / (real_left + 2 * add), (left - hit + add) / (n - real_left + 2 * add)])
    if np.any((rates == 0) | (rates == 1)):
        return row | {"note": "not estimable: H or F is 0 or 1; use log_linear"}
    z_hit, z_alarm = stats.norm.ppf(rates)
    d_prime, criterion = (z_hit - z_alarm) / np.sqrt(2), -(z_hit + z_alarm) / (2 * np.sqrt(2))
    return row | {"d_prime": float(d_prime), "criterion": float(criterion), "note": ""}
