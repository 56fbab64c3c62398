"""The numbers of a study in two calls: its results with and without exclusions, and all intervals side by side."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.clusters import NO_RESPONSES
from analysis.exclusions import Rules, exclude
from analysis.fool_rate import CONDITION, FOOL_RATES, fool_rates, pooled, subject_summary
from analysis.pigeonhole import RESAMPLES, pigeonhole
from analysis.tables import judgements

PRIMARY = "primary"
EXCLUDED = "not estimable: all responses are excluded"


def study_results(
    responses: pd.DataFrame, by: Sequence[str] = CONDITION, rules: Rules | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(fool rates, log of exclusions): one row for each analysis and each group that has test trials.

    Fool rates: analysis, `by` and the columns of `fool_rates`. analysis is "primary", which applies the rules;
    "flagged kept", which keeps trials and subjects with failed timing; "unfinished kept", which keeps subjects who
    stopped early. A group without responses that count has n = 0 and a note. The log is that of the primary analysis.
    """
    rules = rules or Rules()
    variants = {
        PRIMARY: rules,
        "flagged kept": replace(rules, drop_flagged_trials=False, max_flagged_share=1.0),
        "unfinished kept": replace(rules, min_answered_share=0.0),
    }
    tables = [
        _every_group(fool_rates(exclude(responses, variant)[0], by), responses, by).assign(analysis=name)
        for name, variant in variants.items()
    ]
    results = pd.concat(tables, ignore_index=True)[["analysis", *by, *FOOL_RATES]]
    return results, exclude(responses, rules)[1]


def all_intervals(
    responses: pd.DataFrame, by: Sequence[str] = CONDITION, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """95 % intervals of the same fool rates by every method: `by`, interval, fool_rate, ci_low, ci_high, note.

    interval: "two-way" (the headline), "pigeonhole" (bootstrap, conservative), "subjects" (t over subjects' means: no
    new images), "wilson", "exact", "jeffreys" (as if all responses were independent: too narrow).
    """
    naive = pooled(responses, by)
    tables = {
        "two-way": fool_rates(responses, by),
        "pigeonhole": pigeonhole(responses, by, resamples, seed),
        "subjects": subject_summary(responses, by),
    } | {
        name: naive.assign(ci_low=naive[f"{name}_low"], ci_high=naive[f"{name}_high"], note="")
        for name in ("wilson", "exact", "jeffreys")
    }
    columns = [*by, "interval", "fool_rate", "ci_low", "ci_high", "note"]
    return pd.concat([table.assign(interval=name)[columns] for name, table in tables.items()], ignore_index=True)


def _every_group(rates: pd.DataFrame, responses: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The rates with a row for each group of test trials, also for those that left no response."""
    if not by:
        return rates.assign(note=rates["note"].replace(NO_RESPONSES, EXCLUDED))
    everything = judgements(responses, by)[list(by)].drop_duplicates().sort_values(list(by))
    table = everything.merge(rates, on=list(by), how="left")
    gone = table["n"].isna()
    counts = ["n", "k", "subjects", "images", "groups"]
    table[counts] = table[counts].fillna(0).astype("int64")
    table["hyper_real"] = table["hyper_real"].eq(True)
    return table.assign(note=table["note"].where(~gone, EXCLUDED))
