"""Fool rates, the share of test trials on which people picked the model's output, and tests of them.

The headline interval is two-way clustered: for new subjects and new images. Intervals for single subjects, and those
that pretend that all responses are independent, stand beside it, to be compared.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.clusters import Cells, caution, count, groups, numbered, variances, why_not_estimable
from analysis.errors import DataError
from analysis.intervals import LEVEL, binomial_p, clopper_pearson, jeffreys, wilson
from analysis.tables import judgements, require

CHANCE = 0.5
MARGIN = 0.05
CONDITION = ("task", "model")
ESTIMATES = ["n", "k", "subjects", "images", "fool_rate", "se", "ci_low", "ci_high", "p_50"]
FOOL_RATES = [*ESTIMATES, "hyper_real", "design_effect", "note"]


def fool_rates(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Fool rates with two-way clustered intervals, one row for each group of test trials, sorted.

    Give it what `exclude` kept; practice and catch trials are never counted. Columns: `by`; n responses, k of which
    picked the model's output; subjects, images; fool_rate = k / n; se, and the 95 % interval ci_low to ci_high, within
    [0, 1], from Student's t with min(subjects, images) - 1 degrees of freedom; p_50, two-sided p of "the rate is 50 %"
    by the same t; hyper_real, whether the whole interval is above 50 %; design_effect, the variance as a multiple of
    that of n independent responses; note, why numbers are nan or to be taken with care, else "".

    The variance is V_s + V_i - V_0 (by subject, by image, by response), and at least V_s and V_i (human_study.md §4.1).
    Raises DataError for missing columns. Neither the order of the rows nor that of the columns changes any digit.
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
    """Whether rates are 50 % within a pre-registered margin: two one-sided t tests (TOST) at 5 % for fool_rates' rows.

    Adds margin, ci90_low and ci90_high (equivalent: inside 50 % ± margin), p_equivalence (the larger of the two),
    equivalent. Not to reject 50 % shows no equivalence; this does. Where the se is nan, so is p, and equivalent False.
    """
    require(rates, ("subjects", "images", "fool_rate", "se"), "fool rates")
    if not 0 < margin < CHANCE:
        raise DataError(f"margin = {margin}: must be above 0 and below {CHANCE}")
    df = (rates[["subjects", "images"]].astype(float).min(axis=1) - 1).clip(lower=1)
    distance, se = (rates["fool_rate"].astype(float) - CHANCE).abs(), rates["se"].astype(float)
    half = stats.t.ppf(LEVEL, df) * se
    p = pd.Series(stats.t.sf((margin - distance) / se, df), rates.index)
    return rates.assign(
        margin=margin,
        ci90_low=rates["fool_rate"] - half,
        ci90_high=rates["fool_rate"] + half,
        p_equivalence=p,
        equivalent=p < 1 - LEVEL,
    )


def subject_rates(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Of every subject: `by`, study, subject, n, k, fool_rate, its exact 95 % interval and p_50 (binomial)."""
    trials = judgements(responses, by)
    rates = _counted(trials, [*by, "study", "subject"])
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
    subjects, images = cells.subjects, cells.images
    rate = k / n if n else math.nan
    row: dict[str, object] = {"n": n, "k": k, "subjects": subjects, "images": images, "fool_rate": rate}
    row |= dict.fromkeys(["se", "ci_low", "ci_high", "p_50", "design_effect"], math.nan)
    row |= {"hyper_real": False, "note": why_not_estimable(subjects, images)}
    if row["note"]:
        return row
    v = variances(cells, (cells.k - rate * cells.n) / n)
    variance = max(v.two_way, v.subject, v.image)
    if k in (0, n) or variance < np.finfo(float).eps / n:
        return row | {"note": "not estimable: no variation"}
    se = math.sqrt(variance)
    test = t_test(rate, se, min(subjects, images) - 1, null=CHANCE)
    low, high = max(test["ci_low"], 0.0), min(test["ci_high"], 1.0)
    return row | {
        "se": se,
        "ci_low": low,
        "ci_high": high,
        "p_50": test["p"],
        "hyper_real": low > CHANCE,
        "design_effect": variance / (rate * (1 - rate) / n),
        "note": caution(subjects, images),
    }


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
