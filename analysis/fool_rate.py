"""Fool rates, the share of test trials on which people picked the model's output, and tests of them.

The headline interval is two-way clustered: for new subjects and new images, or groups of images. Intervals for single
subjects, and those that pretend that all responses are independent, stand beside it, to be compared.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.clusters import Cells, caution, count, groups, numbered, variances, why_not_estimable
from analysis.errors import DataError
from analysis.proportions import LEVEL, ClusteredRates, binomial_p, clopper_pearson, jeffreys, wilson
from analysis.tables import judgements, require

CHANCE = 0.5
MARGIN = 0.05
CONDITION = ("task", "model")
ESTIMATES = ["n", "k", "subjects", "images", "fool_rate", "se", "ci_low", "ci_high", "p_50"]
FOOL_RATES = [*ESTIMATES, "groups", "df", "hyper_real", "design_effect", "note"]
NO_VARIATION = "no variation: interval as of independent responses"


def fool_rates(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Fool rates with two-way clustered intervals, one row for each group of test trials, sorted.

    Give it what `exclude` kept; practice and catch trials are never counted. Columns: `by`; n responses, k of which
    picked the model's output; subjects, images; fool_rate = k / n; se; the 95 % interval ci_low to ci_high, within
    [0, 1]; p_50, two-sided p of "the rate is 50 %"; groups of images (the column `group`, if there is one, else every
    image for itself); df, min(subjects, groups) - 1, less where groups are of unequal sizes; hyper_real, whether the
    whole interval is above 50 %; design_effect, the variance as a multiple of that of n independent responses; note,
    why numbers are nan or to be taken with care (say, few photographs), else "".

    The variance is V_s + V_g - V_0 (by subject, by group of images, by both), and at least V_s and V_g
    (study_protocol.md §4.1). Interval and p are by Student's t of the rate from 1/3 to 2/3, and beyond of its logit
    (`proportions.ClusteredRates`). Where all responses are the same, the se is nan and the interval the exact one of
    independent responses. Raises DataError for missing columns. Neither the order of the rows nor that of the columns
    changes any digit.
    """
    trials = numbered(responses, by)
    rows = [key | _estimate(count(part)) for key, part in groups(trials, by)]
    return pd.DataFrame(rows, columns=[*by, *FOOL_RATES])


def t_test(value: float, se: float, df: float, null: float = 0.0) -> dict[str, float]:
    """ci_low, ci_high at 95 % and the two-sided p of "the value is `null`", by Student's t; df = inf is the normal."""
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * se
    p = float(2 * stats.t.sf(abs(value - null) / se, df))
    return {"ci_low": value - half, "ci_high": value + half, "p": p}


def equivalence(rates: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """Whether rates are 50 %, or differences 0, within a pre-registered margin: two one-sided tests (TOST) at 5 %.

    rates: rows of fool_rates or of comparisons.compare. Adds margin, ci90_low and ci90_high (equivalent: inside 50 % ±
    margin, or 0 ± margin), p_equivalence (the larger of the two, of each row alone), equivalent. Not to reject 50 %
    shows no equivalence; this does. Where there is no interval, p is nan and equivalent False.
    """
    if not 0 < margin < CHANCE:
        raise DataError(f"margin = {margin}: must be above 0 and below {CHANCE}")
    low, high, p = (_tost_of_differences if "difference" in rates else _tost_of_rates)(rates, margin)
    return rates.assign(margin=margin, ci90_low=low, ci90_high=high, p_equivalence=p, equivalent=p < 1 - LEVEL)


def _tost_of_rates(rates: pd.DataFrame, margin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    require(rates, ("n", "fool_rate", "design_effect", "df"), "fool rates")
    tested = ClusteredRates(*(rates[c].to_numpy(float) for c in ("fool_rate", "n", "design_effect", "df")))
    p = np.maximum(tested.p_above(CHANCE - margin), tested.p_below(CHANCE + margin))
    return *tested.interval(2 * LEVEL - 1), p


def _tost_of_differences(pairs: pd.DataFrame, margin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    require(pairs, ("difference", "se", "df"), "comparisons")
    difference, se, df = (pairs[column].to_numpy(float) for column in ("difference", "se", "df"))
    half = stats.t.ppf(LEVEL, df) * se
    return difference - half, difference + half, stats.t.sf((margin - np.abs(difference)) / se, df)


def subject_rates(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Of every subject: `by`, study, subject, n, k, fool_rate, its exact 95 % interval and p_50 (binomial)."""
    trials = judgements(responses, by)
    rates = _counted(trials, list(dict.fromkeys([*by, "study", "subject"])))
    low, high = clopper_pearson(rates["k"], rates["n"])
    return rates.assign(ci_low=low, ci_high=high, p_50=binomial_p(rates["k"], rates["n"]))


def subject_summary(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Mean, SD and SE of the subjects' rates, with Student's t: what bar charts "with s.e." show.

    It speaks of new subjects on these images, not of new images. Columns: `by`, subjects, fool_rate (the mean of the
    subjects' rates), sd, se, t, df, ci_low, ci_high, p_50; above, below (subjects above and below 50 %) and sign_p of
    the sign test; note.
    """
    rates = subject_rates(responses, by)
    columns = ["subjects", "fool_rate", "sd", "se", "t", "df", "ci_low", "ci_high", "p_50"]
    rows = [key | _over_subjects(part["fool_rate"].to_numpy()) for key, part in groups(rates, by)]
    return pd.DataFrame(rows, columns=[*by, *columns, "above", "below", "sign_p", "note"])


def pooled(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Intervals as if all responses were independent: for comparison only, they are far too narrow.

    Columns: `by`, n, k, fool_rate; wilson_low and _high, exact_ (Clopper-Pearson), jeffreys_; binomial_p against 50 %.
    """
    rates = _counted(judgements(responses, by), by)
    for name, interval in (("wilson", wilson), ("exact", clopper_pearson), ("jeffreys", jeffreys)):
        rates[f"{name}_low"], rates[f"{name}_high"] = interval(rates["k"], rates["n"])
    return rates.assign(binomial_p=binomial_p(rates["k"], rates["n"]))


def _estimate(cells: Cells) -> dict[str, object]:
    """A row of fool_rates without its key."""
    n, k = int(cells.n.sum()), int(cells.k.sum())
    rate = k / n if n else math.nan
    row: dict[str, object] = {"n": n, "k": k, "subjects": cells.subjects, "images": cells.images, "fool_rate": rate}
    row |= dict.fromkeys(["se", "ci_low", "ci_high", "p_50", "df", "design_effect"], math.nan)
    row |= {"groups": cells.groups, "hyper_real": False, "note": why_not_estimable(cells)}
    if row["note"]:
        return row
    if k in (0, n):
        return row | _tested(rate, n, 1.0, cells.df) | {"note": "; ".join(filter(None, [NO_VARIATION, caution(cells)]))}
    v = variances(cells, (cells.k - rate * cells.n) / n)
    variance = max(v.two_way, v.subject, v.group)
    if variance < np.finfo(float).eps / n:
        return row | {"note": "not estimable: no variation"}
    tested = _tested(rate, n, variance / (rate * (1 - rate) / n), cells.df)
    return row | tested | {"se": math.sqrt(variance), "note": caution(cells)}


def _tested(rate: float, n: int, design_effect: float, df: float) -> dict[str, float]:
    tested = ClusteredRates(np.array(rate), np.array(n), np.array(design_effect), np.array(df))
    low, high = (float(end) for end in tested.interval())
    row = {"ci_low": low, "ci_high": high, "p_50": float(tested.p_two_sided(CHANCE)), "hyper_real": low > CHANCE}
    return row | {"df": df, "design_effect": design_effect}


def _over_subjects(rates: np.ndarray) -> dict[str, object]:
    above, below = int((rates > CHANCE).sum()), int((rates < CHANCE).sum())
    row: dict[str, object] = {"subjects": len(rates), "fool_rate": float(np.mean(rates)), "df": len(rates) - 1}
    row |= {"above": above, "below": below, "sign_p": float(binomial_p(above, above + below)), "note": ""}
    if len(rates) == 1:
        return row | {"note": "not estimable: one subject"}
    sd = float(np.std(rates, ddof=1))
    if sd == 0:
        return row | {"sd": sd, "note": "not estimable: no variation between subjects"}
    se = sd / math.sqrt(len(rates))
    test = t_test(float(np.mean(rates)), se, len(rates) - 1, null=CHANCE)
    t = (float(np.mean(rates)) - CHANCE) / se
    return row | {"sd": sd, "se": se, "t": t, "ci_low": test["ci_low"], "ci_high": test["ci_high"], "p_50": test["p"]}


def _counted(trials: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`by`, n, k, fool_rate; a single row where `by` is empty."""
    if by:
        rates = trials.groupby(list(by), observed=True)["picked_model"].agg(n="size", k="sum").reset_index()
    else:
        rates = pd.DataFrame({"n": [len(trials)], "k": [int(trials["picked_model"].sum())]})
    return rates.assign(fool_rate=rates["k"] / rates["n"])
