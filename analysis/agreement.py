"""Which metric predicts people: rank correlations of metrics with fool rates, over methods and over images."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.clusters import CLUSTER, FEW, SUBJECT, Cells, codes, count, few_photographs, groups, numbered
from analysis.comparisons import holm
from analysis.errors import DataError
from analysis.fool_rate import fool_rates
from analysis.pigeonhole import check_resamples, draws, percentiles, rates_drawn
from analysis.tables import judgements, require, require_list, with_dataset

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

RESAMPLES = 1000
SETTING = ("task", "dataset")  # what metrics are compared within
FEWEST_METHODS, FEWEST_IMAGES = 3, 5
FEW_METHODS = 6
CORRELATIONS = ["kendall", "kendall_low", "kendall_high", "spearman", "spearman_low", "spearman_high", "p", "p_holm"]


def method_points(
    responses: pd.DataFrame, scores: pd.DataFrame, results: pd.DataFrame | None = None, by: Sequence[str] = SETTING
) -> pd.DataFrame:
    """Metrics beside fool rates: `by`, metric, label, higher_is_better, method, value and the rest of fool_rates.

    scores: rows of per_image.csv, of one of its tasks; value is the mean over the images that people judged (finite
    ones). results: rows of results.csv; it adds the metrics that only whole sets have, labels (without, the metrics'
    names) and higher_is_better (None where it is not known). dataset: of the images in the run, "" for its only one.
    Models and images without scores, and methods that nobody judged, are left out. DataError where no image, or no
    method, is in both, and for images of several data sets where `by` does not tell these apart.
    """
    require_list(by, "by")
    trials, scores, known = _matched(responses, scores, results, by)
    rates = fool_rates(trials, [*by, "model"]).rename(columns={"model": "method"})
    finite = scores[np.isfinite(scores["value"])]
    values = finite.groupby(["dataset", "metric", "method"], sort=False)["value"].mean().reset_index()
    if results is not None:
        whole = with_dataset(results)
        whole = whole[~whole["metric"].isin(scores["metric"]) & whole["dataset"].isin(scores["dataset"])]
        values = pd.concat([values, whole[["dataset", "metric", "method", "value"]]], ignore_index=True)
    values["higher_is_better"] = [known.get(metric) for metric in values["metric"]]
    labels = {} if results is None or "label" not in results else dict(results[["metric", "label"]].to_numpy())
    values["label"] = [labels.get(metric) or metric for metric in values["metric"]]
    shared = ["dataset", "method"] if "dataset" in by else ["method"]
    points = values.merge(rates, on=shared).sort_values([*by, "metric", "method"], ignore_index=True)
    first = [*by, "metric", "label", "higher_is_better", "method", "value"]
    return points[[*first, *(column for column in rates if column not in first)]]


def over_methods(
    responses: pd.DataFrame,
    scores: pd.DataFrame,
    results: pd.DataFrame | None = None,
    by: Sequence[str] = SETTING,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of each metric with the fool rate over methods, the best metric first.

    Columns: `by`, metric, higher_is_better, methods, kendall (tau b) and spearman with 95 % intervals, p (Kendall,
    two-sided), p_holm (adjusted for the number of metrics), note. Positive: what the metric calls better fools people
    more; where the metric's direction is not known, the sign is that of the raw values. Intervals are percentiles of a
    bootstrap that draws subjects and images (or groups of images) again, the same for all methods, and so say nothing
    about other methods; p, of methods drawn at random, does.
    Metrics that only whole sets have keep their values in all resamples: their own error is not in the interval.
    Arguments as for `method_points`.
    """
    check_resamples(resamples)
    points = method_points(responses, scores, results, by)
    trials, matched, known = _matched(responses, scores, results, by)
    rows = []
    for key, part in groups(numbered(trials, [*by, "model"]), by):
        here = _having(points, key)
        sample = _resampled_methods(part, matched, here, resamples, seed)
        for metric, group in here.groupby("metric"):
            row = {"metric": metric, "higher_is_better": known.get(str(metric)), "methods": len(group)}
            higher, fewest = known.get(str(metric)), int(part[[SUBJECT, CLUSTER]].nunique().min())
            rows.append(key | row | _over_methods(group, higher, *sample[str(metric)], fewest))
    columns = [*by, "metric", "higher_is_better", "methods", *CORRELATIONS, "note"]
    return _ranked(pd.DataFrame(rows, columns=columns), by)


def over_images(
    responses: pd.DataFrame,
    scores: pd.DataFrame,
    results: pd.DataFrame | None = None,
    by: Sequence[str] = (*SETTING, "model"),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of each metric with the fool rate over the images of a method, the best metric first.

    Columns as of `over_methods`, with images for methods. Where images are grouped, intervals draw all images of a
    group again, and p is that of Spearman's rho under permutations of the groups, and of the images within groups.
    Rates of images are noisy: with n views each, correlations are weaker than those of true rates.
    """
    check_resamples(resamples)
    require_list(by, "by")
    if "model" not in by:
        raise DataError("by: must have model, since a metric is compared over the images of one model")
    trials, scores, known = _matched(responses, scores, results, by)
    rows = []
    for key, part in groups(judgements(trials, by), by):
        rates = part.groupby(["image_id", CLUSTER])["picked_model"].mean().rename("fool_rate").reset_index()
        own = scores[scores["method"] == key["model"]].merge(rates, on="image_id").dropna(subset=["value"])
        for metric, group in own.groupby("metric"):
            row = {"metric": metric, "higher_is_better": known.get(str(metric)), "images": len(group)}
            rows.append(key | row | _over_images(group, known.get(str(metric)), resamples, seed))
    columns = [*by, "metric", "higher_is_better", "images", *CORRELATIONS, "note"]
    return _ranked(pd.DataFrame(rows, columns=columns), by)


def rank_correlations(x: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """(Kendall's tau b, Spearman's rho) of items [..., n] that count `weights` [..., n] times; nan where all are equal.

    Only the order of values matters, so that they may be infinite.
    """
    over_x, over_y = _signs(x), _signs(y)
    w = weights[..., None]

    def paired(signs: Array) -> Array:
        return ((signs @ w) * w).sum(axis=(-2, -1))

    def ranks(signs: Array) -> Array:  # midranks but for a constant: how many are below, ties by half
        below = ((signs + 1) / 2 @ w)[..., 0]
        return below - (below * weights).sum(axis=-1, keepdims=True) / weights.sum(axis=-1, keepdims=True)

    with np.errstate(invalid="ignore", divide="ignore"):
        kendall = paired(over_x * over_y) / np.sqrt(paired(over_x**2) * paired(over_y**2))
        rank_x, rank_y = ranks(over_x), ranks(over_y)
        spread = np.sqrt((weights * rank_x**2).sum(axis=-1) * (weights * rank_y**2).sum(axis=-1))
        spearman = (weights * rank_x * rank_y).sum(axis=-1) / spread
    return kendall, spearman


def _signs(values: Array) -> Array:
    a, b = values[..., :, None], values[..., None, :]
    return (a > b).astype(float) - (a < b)


def _matched(
    responses: pd.DataFrame, scores: pd.DataFrame, results: pd.DataFrame | None, by: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, bool]]:
    """(test trials with dataset and CLUSTER, scores of the judged models and images, higher_is_better by metric)."""
    trials = judgements(responses, ["model"])
    require(scores, ("task", "method", "image_id", "metric", "value"), "scores")
    known = {}
    if results is not None:
        require(results, ("method", "metric", "value", "higher_is_better"), "results")
        known = {str(metric): bool(higher) for metric, higher in results[["metric", "higher_is_better"]].to_numpy()}
    if scores["task"].nunique() > 1:
        raise DataError(f"scores belong to several tasks ({', '.join(sorted(scores['task'].unique()))}): choose one")
    for column, name, what in (("method", "model", "method"), ("image_id", "image_id", "image")):
        scores = scores[scores[column].isin(trials[name])]
        if scores.empty:
            raise DataError(f"no {what} of the responses is in the scores")
    scores = with_dataset(scores)
    if "dataset" not in by and scores["dataset"].nunique() > 1:
        names = ", ".join(sorted(scores["dataset"].unique()))
        raise DataError(f"scores belong to several data sets ({names}): choose one, or have dataset in `by`")
    twice = scores[scores.duplicated(["method", "metric", "image_id"])]
    if len(twice):
        first = ", ".join(twice.iloc[0][["method", "metric", "image_id"]].astype(str))
        raise DataError(
            f"{len(twice)} scores are listed twice, first {first}: if from two runs of a method, choose one"
        )
    return _clustered(trials[trials["image_id"].isin(scores["image_id"])], scores), scores, known


def _clustered(trials: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The trials with the data sets of the scores, their groups, if these have any, and CLUSTER.

    Of one run, equal ids are one image.
    """
    image = scores.drop_duplicates("image_id").set_index("image_id")
    known = [column for column in ("dataset", "group") if column in image]
    trials = trials.assign(**{column: trials["image_id"].map(image[column]).fillna("") for column in known})
    group = trials["group"].fillna("") if "group" in trials else pd.Series("", trials.index)
    image = codes(trials["image_id"])
    return trials.assign(**{CLUSTER: codes(group, np.where(group == "", image, -1))})


def _having(frame: pd.DataFrame, key: dict[str, object]) -> pd.DataFrame:
    for column, value in key.items():
        frame = frame[frame[column] == value]
    return frame


def _resampled_methods(
    trials: pd.DataFrame, scores: pd.DataFrame, points: pd.DataFrame, resamples: int, seed: int
) -> dict[str, tuple[Array, Array]]:
    """By metric: its values and the fool rates of the methods in `points`' order, each [resamples, methods]."""
    clusters = codes(trials[CLUSTER])
    trials = numbered(trials, ["model"]).assign(**{CLUSTER: clusters})
    shown = trials.drop_duplicates("image_id").sort_values("image_id")
    methods = sorted(points["method"].unique())
    cells: list[Cells] = [count(trials[trials["model"] == method]) for method in methods]
    batches = list(draws(trials[SUBJECT].max() + 1, clusters.max() + 1, resamples, np.random.default_rng(seed)))
    rates = np.concatenate([np.column_stack([rates_drawn(of, *weights) for of in cells]) for weights in batches])
    by_image = np.concatenate([weights[1] for weights in batches])[:, shown[CLUSTER]]
    sample = {}
    for metric, group in points.groupby("metric"):
        table = scores[scores["metric"] == metric].pivot(index="image_id", columns="method", values="value")
        columns = [methods.index(method) for method in group["method"]]
        if table.empty:
            values = np.broadcast_to(group["value"].to_numpy(float), (resamples, len(group)))
        else:
            values = _means(table.reindex(index=shown["image_id"], columns=group["method"]).to_numpy(float), by_image)
        sample[str(metric)] = values, rates[:, columns]
    return sample


def _means(values: Array, weights: Array) -> Array:
    """Weighted means [resamples, methods] of values [images, methods], over the finite ones."""
    finite = np.isfinite(values)
    total = weights @ finite
    return np.divide(weights @ np.where(finite, values, 0), total, out=np.full(total.shape, np.nan), where=total > 0)


def _over_methods(
    points: pd.DataFrame, higher: bool | None, values: Array, rates: Array, clusters: int
) -> dict[str, object]:
    methods = len(points)
    if methods < FEWEST_METHODS:
        return {"note": f"not estimable: {methods} methods"}
    x, y = points["value"].to_numpy(float), points["fool_rate"].to_numpy(float)
    row = _correlated(x, y, higher, np.ones(methods), values, rates, clusters)
    smallest = 2 / math.factorial(methods)
    few = f"few methods: p cannot be below {smallest:.2g}" if methods < FEW_METHODS else ""
    return row | {"note": "; ".join(filter(None, [str(row["note"]), few]))}


def _over_images(group: pd.DataFrame, higher: bool | None, resamples: int, seed: int) -> dict[str, object]:
    group = group.sort_values("image_id")
    if len(group) < FEWEST_IMAGES:
        return {"note": f"not estimable: {len(group)} images"}
    cluster = codes(group[CLUSTER])
    rng, size = np.random.default_rng(seed), int(cluster.max()) + 1
    weights = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(float)[:, cluster]
    x, y = group["value"].to_numpy(float), group["fool_rate"].to_numpy(float)
    row = _correlated(x, y, higher, weights, x, y, size)
    if size == len(group) or "p" not in row:
        return row
    few = few_photographs(size) if size < FEW else ""
    return row | {
        "p": _grouped_p(stats.rankdata(x), stats.rankdata(y), cluster, resamples, rng),
        "note": "; ".join(filter(None, [str(row["note"]), few])),
    }


def _grouped_p(x: Array, y: Array, cluster: Codes, resamples: int, rng: np.random.Generator) -> float:
    """Two-sided p of a correlation of two grouped variables that have nothing to do with each other.

    The groups' means of y are permuted among the groups, and what is left among the images of each group: for groups of
    one size, whole groups and then their images, which changes no probability. Source: Winkler et al. 2015,
    "Multi-level block permutation".
    """
    means = np.bincount(cluster, weights=y) / np.bincount(cluster)
    order = np.argsort(cluster, kind="stable")
    within = np.argsort(cluster + rng.random((resamples, len(y))), axis=1)  # by group, at random inside it
    permuted = np.empty((resamples, len(y)))
    permuted[:, order] = (y - means[cluster])[within]
    permuted += rng.permuted(np.tile(means, (resamples, 1)), axis=1)[:, cluster]
    centered = x - x.mean()
    spread = permuted.std(axis=1)
    sampled = np.divide(permuted @ centered, spread, out=np.zeros(resamples), where=spread > 0)
    extreme = np.abs(sampled) >= abs(y @ centered) / y.std() * (1 - 1e-9)
    return float((1 + extreme.sum()) / (1 + resamples))


def _correlated(
    x: Array, y: Array, higher: bool | None, weights: Array, sampled_x: Array, sampled_y: Array, clusters: int
) -> dict[str, object]:
    """CORRELATIONS of x and y [n], with intervals from samples [resamples, n] or weights [resamples, n]; and a note."""
    sign = -1.0 if higher is False else 1.0
    one = np.ones(len(x))
    if len(np.unique(x)) == 1 or len(np.unique(y)) == 1:
        return {"note": "not estimable: all values are equal"}
    row: dict[str, object] = {"p": float(stats.kendalltau(stats.rankdata(x), y).pvalue)}
    point, samples = rank_correlations(x, y, one), rank_correlations(sampled_x, sampled_y, weights)
    for name, value, sample in zip(("kendall", "spearman"), point, samples, strict=True):
        low, high = percentiles(sign * sample, clusters)
        row |= {name: sign * float(value) + 0.0, f"{name}_low": float(low), f"{name}_high": float(high)}
    return row | {"note": "direction unknown: sign of the raw values" if higher is None else ""}


def _ranked(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The best metric first, with p_holm over the metrics of each group."""
    for _, part in groups(table, by):
        table.loc[part.index, "p_holm"] = holm(part["p"].astype(float))
    ordered = table.sort_values([*by, "kendall", "metric"], ascending=[True] * len(by) + [False, True])
    return ordered.reset_index(drop=True)
