"""How long people took, which single answers were outliers, and whether answers change in the course of a session."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.clusters import groups, numbered
from analysis.exclusions import WHO
from analysis.fool_rate import CONDITION
from analysis.tables import of_tests, require
from analysis.viewing_time import SLOPE, slope

OUTLIER = 3.0  # median absolute deviations, scaled to the normal's standard deviation
SCALE = 1.4826
TIMES = ["n", "missing", "median", "q25", "q75", "median_real", "median_model", "outliers", "outlier_share"]


def response_times(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """Response times in ms, one row a group of test trials.

    Columns: `by`, n, missing (trials without a time), median, q25 and q75 over all trials; median_real and
    median_model, of the trials in which the real picture, or the model's, was chosen; outliers, and their share, as
    `time_outliers` finds them.
    """
    require(responses, ("rt_ms", "picked_model"), "responses")
    trials = of_tests(responses, by)
    marked = trials.assign(_outlier=time_outliers(trials))
    rows = []
    for key, part in groups(marked, by):
        times, model = part["rt_ms"], part["picked_model"] == 1
        quartiles = dict(zip(("q25", "median", "q75"), times.quantile([0.25, 0.5, 0.75]), strict=True))
        row = {"n": len(part), "missing": int(times.isna().sum()), "outliers": int(part["_outlier"].sum())}
        row |= {"median_real": times[~model].median(), "median_model": times[model].median()}
        rows.append(key | row | quartiles | {"outlier_share": part["_outlier"].mean()})
    return pd.DataFrame(rows, columns=[*by, *TIMES])


def time_outliers(responses: pd.DataFrame) -> pd.Series:
    """Whether each row is a test trial whose logarithmic response time is far from the subject's others.

    Far is more than 3 scaled median absolute deviations from the subject's median. Leave them out to see whether a
    result stands without them; whom and what a study excludes is up to its rules. Source: Leys et al. 2013, "Detecting
    outliers".
    """
    require(responses, ("rt_ms",), "responses")
    tested = responses["kind"] == "test"
    logs = np.log(responses["rt_ms"].where(tested & (responses["rt_ms"] > 0)))
    who = [responses[column] for column in WHO]
    distance = (logs - logs.groupby(who).transform("median")).abs()
    spread = SCALE * distance.groupby(who).transform("median")
    return (distance > OUTLIER * spread) & (spread > 0)


def order_effects(responses: pd.DataFrame, by: Sequence[str] = CONDITION) -> pd.DataFrame:
    """The change of the fool rate from a subject's first test trial to the last, by least squares, two-way clustered.

    Columns: `by`, n, subjects, images, slope (-0.05: 5 points less at the end), se, df, 95 % interval, p of "no
    change", note. Below 0 people learn what the model does wrong; above 0 they tire, or get used to it. It needs orders
    that differ between subjects, as the study's do.
    """
    require(responses, ("trial_index",), "responses")
    trials = numbered(responses, by)
    place = trials.groupby(WHO)["trial_index"].rank(method="first") - 1
    last = place.groupby([trials[column] for column in WHO]).transform("max")
    trials = trials.assign(_place=(place / last.where(last > 0)).fillna(0.0))
    rows = [
        key | slope(part, part["_place"].to_numpy(float), "one trial a subject") for key, part in groups(trials, by)
    ]
    return pd.DataFrame(rows, columns=[*by, *SLOPE])
