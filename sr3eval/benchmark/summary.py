"""From scores to results.csv: means over the same images, intervals, and tests against the best method."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sr3eval.benchmark.layout import ORACLE, REFERENCE
from sr3eval.benchmark.scores import WRITTEN, Conventions, Scores
from sr3eval.errors import UserError
from sr3eval.metrics import Convention
from sr3eval.significance import (
    LEVEL,
    bootstrap_interval,
    holm,
    jackknife_error,
    sign_flip_p,
    t_interval,
    t_p,
)

SCORED = ["task", "dataset", "method", "metric"]  # what a row of results.csv is of


def summarise(scores: Scores, conventions: Conventions) -> pd.DataFrame:
    """results.csv from a run's scores: a row for each task, data set, metric (as the conventions order them), method.

    value: mean over images (see `_comparable`), or the metric of the whole set. ci: bootstrap over groups, or jackknife
    over blocks. best, delta_to_best and its interval compare with the best method, over the same images; p_value is of
    a sign-flip test, or a t test on the jackknife, Holm-adjusted over the methods of the metric; testable is false
    where so few groups cannot bring it below 5 %, whatever the scores. n_infinite counts images equal to HR, n_left_out
    those without a finite score in some method. seed_sd is the standard deviation over n_seeds seeds, of whose values
    `value` is the mean. seed_se is the standard error of `value` by its noise alone, for the same images, where there
    are several outputs of each: by seeds or samples. The reference (HR itself) and the best of several samples take no
    part in comparisons.
    """
    known = {*scores.per_image["metric"], *scores.sets["metric"]}
    for metric in sorted(known - set(conventions)):
        raise UserError(f'results.csv does not know the metric "{metric}" of the scores')
    per_image, sets = scores.per_image, scores.sets
    rows: list[dict[str, object]] = []
    for task, dataset in dict.fromkeys([*_sets_of_images(per_image), *_sets_of_images(sets)]):
        for metric, convention in conventions.items():
            key = {"task": task, "dataset": dataset, "metric": metric}
            for frame, kind in ((per_image, MEAN), (sets, SET)):
                part = frame[(frame[list(key)] == list(key.values())).all(axis=1)]
                rows += [key | row for row in _compared(part, kind, convention)]
    columns = ["task", "method", "metric", "value", "ci_low", "ci_high", "n", "higher_is_better", "settings", "dataset"]
    columns += WRITTEN
    deltas = ["delta_to_best", "delta_ci_low", "delta_ci_high", "p_value", "testable"]
    counts = ["n_groups", "n_infinite", "n_left_out"]
    results = pd.DataFrame(rows, columns=[*columns, *counts, "best", *deltas, "interval"])
    results = results.merge(_over_seeds(scores.seeds), on=SCORED, how="left")
    results = results.merge(_over_draws(scores.draws, conventions), on=SCORED, how="left")
    results["seed_se"] = results["seed_se"].astype(float).fillna(results["seed_sd"] / np.sqrt(results["n_seeds"]))
    methods = scores.methods.drop(columns=["images", "made_by"])
    return results.merge(methods, on=["task", "dataset", "method"], how="left")


def _sets_of_images(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(task, dataset) of every row."""
    return list(zip(frame["task"], frame["dataset"], strict=True))


def _over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """n_seeds and seed_sd by task, data set, method and metric."""
    values = seeds.groupby(SCORED, sort=False)["value"]
    return values.agg(n_seeds="size", seed_sd="std").reset_index()


def _over_draws(draws: pd.DataFrame, conventions: Conventions) -> pd.DataFrame:
    """seed_se by task, data set, method and metric: of the mean over images of each seed's first sample.

    Noise of one image has nothing to do with that of another: the variance within images, over these and over seeds.
    """
    rows = []
    for key, part in draws.groupby(SCORED, sort=False):
        values = part.assign(value=part["value"].astype(float).clip(upper=conventions[str(key[-1])].ceiling))
        within = values.groupby("image_id")["value"].var()
        error = math.sqrt(within.mean() / len(within) / part["seed"].nunique())
        rows.append(dict(zip(SCORED, key, strict=True)) | {"seed_se": error})
    return pd.DataFrame(rows, columns=[*SCORED, "seed_se"])


def _comparable(scores: pd.DataFrame, ceiling: float) -> pd.DataFrame:
    """One metric's scores of images as means and tests take them, the same images for every method.

    Scores above the metric's `ceiling` count as that. Images that then have no finite score in one of the methods are
    left out of all, and counted in the column left_out. Those of the reference stay as they are.
    """
    own = ~scores["method"].map(is_reference)
    capped = scores["value"].where(~own, scores["value"].clip(upper=ceiling))
    without = set(scores["image_id"][own & ~np.isfinite(capped)])
    marked = scores.assign(value=capped, infinite=np.isposinf(scores["value"]), left_out=len(without))
    common = marked[~marked["image_id"].isin(without)]
    return marked.assign(value=marked["value"].where(~own)) if common.empty else common


def is_reference(method: str) -> bool:
    """Whether a method's name, with or without the name of its run, is that of the HR images."""
    return method.rsplit("/", 1)[-1] == REFERENCE


def takes_part(method: str) -> bool:
    """Whether a row is compared with others: HR itself is not, nor samples that their own scores chose."""
    return not is_reference(method) and not ORACLE.search(method)


@dataclass(frozen=True)
class Kind:
    """How one kind of metric is summarised, and compared with the best method's scores."""

    interval: str
    comparable: Callable[[pd.DataFrame, float], pd.DataFrame]
    summary: Callable[[pd.DataFrame], dict[str, float]]
    paired: Callable[[pd.DataFrame, pd.DataFrame], dict[str, float]]


def _compared(scores: pd.DataFrame, kind: Kind, convention: Convention) -> list[dict[str, object]]:
    """The rows of one metric, one a method; none for no scores."""
    if scores.empty:
        return []
    scores = kind.comparable(scores, convention.ceiling)
    by_method = {str(name): part for name, part in scores.groupby("method", sort=False)}
    summaries = {name: kind.summary(part) for name, part in by_method.items()}
    values = {n: s["value"] for n, s in summaries.items() if takes_part(n) and not math.isnan(s["value"])}
    best = (max if convention.higher_is_better else min)(values, key=lambda name: values[name]) if values else ""
    compared = {name: kind.paired(by_method[name], by_method[best]) for name in values if name != best}
    paired = {name: comparison for name, comparison in compared.items() if comparison}
    adjusted = holm([comparison["p_value"] for comparison in paired.values()])
    for comparison, p in zip(paired.values(), adjusted, strict=True):
        comparison |= {"p_value": p, "testable": len(paired) * comparison.pop("smallest_p") < 1 - LEVEL}
    of_metric = ("higher_is_better", "settings", *WRITTEN)
    shared = {name: getattr(convention, name) for name in of_metric} | {"interval": kind.interval}
    return [
        {"method": name, "best": name in values and values[name] == values[best]}
        | shared
        | summary
        | paired.get(name, {})
        for name, summary in summaries.items()
    ]


def _summary(scores: pd.DataFrame) -> dict[str, float]:
    finite = scores[np.isfinite(scores["value"])]
    alone = math.inf if np.isposinf(scores["value"]).all() else math.nan  # the reference, or no common image
    summary = {"value": alone, "ci_low": math.nan, "ci_high": math.nan, "n": 0, "n_groups": 0}
    if not finite.empty:
        values, groups = finite["value"].to_numpy(float), finite["group"].to_numpy(object)
        low, high = bootstrap_interval(values, groups)
        value = math.fsum(values) / len(values)
        summary = {"value": value, "ci_low": low, "ci_high": high, "n": len(values), "n_groups": len(set(groups))}
    return summary | {"n_infinite": int(scores["infinite"].sum()), "n_left_out": int(scores["left_out"].iloc[0])}


def _paired(scores: pd.DataFrame, best: pd.DataFrame) -> dict[str, float]:
    """Mean of (method - best) over the images, its interval, an unadjusted p, the smallest possible."""
    both = scores.merge(best[["image_id", "value"]], on="image_id", suffixes=("", "_best"))
    if both.empty or both["value"].isna().all():
        return {}
    differences = (both["value"] - both["value_best"]).to_numpy(float)
    groups = both["group"].to_numpy(object)
    low, high = bootstrap_interval(differences, groups)
    mean = math.fsum(differences) / len(differences)
    return {
        "delta_to_best": mean,
        "delta_ci_low": low,
        "delta_ci_high": high,
        "p_value": sign_flip_p(differences, groups),
        "smallest_p": 2.0 ** (1 - len(set(groups))),
    }


def _set_summary(scores: pd.DataFrame) -> dict[str, float]:
    blocks = scores.set_index("left_out")
    value, n = float(blocks.loc["", "value"]), int(blocks.loc["", "n"])
    without = blocks.drop(index="")
    low, high = _jackknife(value, n, without)[1:] if len(without) > 1 else (math.nan, math.nan)
    counts = {"n": n, "n_groups": len(without), "n_infinite": 0, "n_left_out": 0}
    return {"value": value, "ci_low": low, "ci_high": high} | counts


def _jackknife(value: float, n: int, without: pd.DataFrame) -> tuple[float, float, float]:
    error = jackknife_error(value, n, without["value"].to_numpy(float), without["n"].to_numpy(float))
    return error, *t_interval(value, error, len(without))


def _set_paired(scores: pd.DataFrame, best: pd.DataFrame) -> dict[str, float]:
    """As `_paired`, of the difference of two sets' values, from common blocks; nothing for sets that share none."""
    if set(scores["left_out"]).isdisjoint(set(best["left_out"]) - {""}) and len(scores) > 1:
        return {}
    both = scores.merge(best, on=["left_out", "n"], suffixes=("", "_best")).set_index("left_out")
    if len(both) < len(scores) or len(both) < 3:  # other images, or fewer than two blocks
        return dict(_NO_COMPARISON)
    both["value"] -= both["value_best"]
    delta, without = float(both.loc["", "value"]), both.drop(index="")
    error, low, high = _jackknife(delta, int(both.loc["", "n"]), without)
    p = t_p(delta, error, len(without))
    return {"delta_to_best": delta, "delta_ci_low": low, "delta_ci_high": high, "p_value": p, "smallest_p": 0.0}


_NO_COMPARISON = {"delta_to_best": math.nan, "delta_ci_low": math.nan, "delta_ci_high": math.nan} | {
    "p_value": 1.0,
    "smallest_p": 1.0,
}
# Scores of images are resampled, sets are computed again without each block: the two kinds of metrics there are.
MEAN = Kind("bootstrap", _comparable, _summary, _paired)
SET = Kind("jackknife", lambda scores, _: scores, _set_summary, _set_paired)
