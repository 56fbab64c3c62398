"""How well people agree with one another, and so how well any metric could agree with them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.agreement import FEW_METHODS, FEWEST_IMAGES, rank_correlations
from analysis.clusters import CLUSTER, FEW, IMAGE, SUBJECT, Codes, codes, few_photographs, groups, numbered
from analysis.errors import DataError
from analysis.pigeonhole import check_resamples, percentiles
from analysis.proportions import LEVEL
from analysis.tables import judgements

Array = NDArray[np.float64]

SPLITS, RESAMPLES = 50, 400
FEWEST_SUBJECTS = 4
CEILING = ["subjects", "things", "views", "half", "reliability", "ceiling", "ceiling_low", "ceiling_high", "note"]
RATERS = ["n", "subjects", "images", "agreement", "by_chance", "alpha", "alpha_low", "alpha_high", "note"]


def noise_ceiling(
    responses: pd.DataFrame,
    by: Sequence[str] = ("task", "model"),
    splits: int = SPLITS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Spearman's rho that a perfect metric would reach with these fool rates: over the images of each model, or, where
    `by` has no model, over the models: there it errs low, by .02 to .08 with 8 of them.

    Subjects are halved at random `splits` times. Columns: `by`, subjects; things, the images or models; views, the mean
    number of answers a thing; half, the mean rho of the two halves' rates; reliability of the rates of all subjects,
    2 half / (1 + half); ceiling, its root, with the 95 % percentile interval of a bootstrap that draws the images (or
    groups of them), or the models, again; note. Compare the `spearman` of `over_images` or `over_methods` with it.
    Sources: Spearman 1910; Brown 1910 (the length of a test); Spearman 1904 (attenuation). The formulas are those of
    Pearson's correlation, and close for rho.
    """
    check_resamples(resamples)
    if splits < 1:
        raise DataError(f"splits = {splits}: must be at least 1")
    thing = "image_id" if "model" in by else "model"
    rows = []
    for key, part in groups(judgements(responses, [*by, thing]), by):
        rows.append(key | _ceiling(numbered(part, by), thing, splits, resamples, np.random.default_rng(seed)))
    return pd.DataFrame(rows, columns=[*by, *CEILING])


def rater_agreement(responses: pd.DataFrame, by: Sequence[str] = ("task", "model")) -> pd.DataFrame:
    """How far subjects who judged the same picture agree on whether it is real, one row a group of test trials.

    Columns: `by`, n, subjects, images; agreement, the share of pairs of subjects who said the same of a picture, an
    answer's pairs counting 1 / (answers to the picture - 1); by_chance, that of answers shuffled over all pictures;
    alpha = (agreement - by_chance) / (1 - by_chance), Krippendorff's alpha of nominal values, with a 95 % interval over
    images or groups of them (a bias-corrected jackknife of Fisher's z of an intraclass correlation, Student's t); note.
    Pictures with one answer do not count. People who cannot tell do not agree: of guesses, alpha is 0.
    """
    rows = []
    for key, part in groups(judgements(responses, by), by):
        rows.append(key | _alpha(numbered(part, by), [*by]))
    return pd.DataFrame(rows, columns=[*by, *RATERS])


def _ceiling(trials: pd.DataFrame, thing: str, splits: int, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    images = thing == "image_id"
    column = codes(trials["study"], trials[thing]) if images else codes(trials[thing])
    subject, things = trials[SUBJECT].to_numpy(), int(column.max()) + 1
    row = {"subjects": int(subject.max()) + 1, "things": things, "views": len(trials) / things}
    if row["subjects"] < FEWEST_SUBJECTS:
        return row | {
            "note": "not estimable: one subject"
            if row["subjects"] == 1
            else f"not estimable: {row['subjects']} subjects"
        }
    if things < FEWEST_IMAGES:
        return row | {"note": f"not estimable: {things} {'images' if images else 'models'}"}
    cluster = _clusters_of(column, trials[CLUSTER].to_numpy() if images else column)
    drawn = _drawn(cluster, resamples, rng)
    halves = list(_halves(trials, column, splits, rng))
    correlations = [_half_correlations(*half, drawn) for half in halves]
    sampled = np.ma.masked_invalid(correlations).mean(axis=0).filled(np.nan)
    if np.isnan(sampled[0]):
        return row | {"note": "not estimable: all values are equal"}
    half = float(sampled[0])
    positive = np.maximum(sampled, 0.0)
    reliability = 2 * positive / (1 + positive)
    clusters = int(cluster.max()) + 1
    low, high = percentiles(np.sqrt(reliability[1:]), clusters)
    row |= {"half": half, "reliability": reliability[0], "ceiling": float(np.sqrt(reliability[0]))}
    return row | {"ceiling_low": low, "ceiling_high": high, "note": _note(half, clusters, things, images)}


def _note(half: float, clusters: int, things: int, images: bool) -> str:
    notes = ["people do not agree: there is nothing for a metric to predict"] * (half <= 0)
    if not images and things < FEW_METHODS:
        notes.append(f"few models: {things}")
    if images and clusters < FEW:
        notes.append(few_photographs(clusters) if clusters < things else f"few clusters: {things} images")
    return "; ".join(notes)


def _clusters_of(column: Codes, cluster: Codes) -> Codes:
    """The cluster of each thing."""
    first = np.unique(column, return_index=True)[1]
    return codes(cluster[first])


def _drawn(cluster: Codes, resamples: int, rng: np.random.Generator) -> Array:
    """How often each thing counts, [1 + resamples, things]: once, and then as often as its cluster is drawn."""
    size = int(cluster.max()) + 1
    times = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    return np.concatenate([np.ones((1, size)), times])[:, cluster].astype(np.float64)


def _halves(
    trials: pd.DataFrame, column: Codes, splits: int, rng: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """Rates [things] of either half of the subjects, nan where it has no answer; each model's subjects are halved."""
    subject, picked = trials[SUBJECT].to_numpy(), trials["picked_model"].to_numpy(float)
    model = trials.groupby(SUBJECT)["model"].first().to_numpy()
    size = (len(model), int(column.max()) + 1)
    shown, chosen = np.zeros(size), np.zeros(size)
    np.add.at(shown, (subject, column), 1)
    np.add.at(chosen, (subject, column), picked)
    for _ in range(splits):
        first = np.zeros(len(model), bool)
        first[np.lexsort([rng.random(len(model)), model])[::2]] = True
        with np.errstate(invalid="ignore"):
            x, y = (chosen[half].sum(axis=0) / shown[half].sum(axis=0) for half in (first, ~first))
        yield x, y


def _half_correlations(x: Array, y: Array, drawn: Array) -> Array:
    """Spearman's rho [resamples] over the things that both halves have answers to."""
    both = np.isfinite(x) & np.isfinite(y)
    return rank_correlations(x[both], y[both], drawn[:, both])[1]


def _alpha(trials: pd.DataFrame, by: list[str]) -> dict[str, Any]:
    judged = [trials[IMAGE]] if "model" in by else [trials[IMAGE], trials["model"]]
    picture = codes(*judged)
    n = np.bincount(picture).astype(np.float64)
    k = np.bincount(picture, weights=trials["picked_model"].to_numpy(float)).astype(np.float64)
    row = {"n": len(trials), "subjects": trials[SUBJECT].nunique(), "images": trials[IMAGE].nunique()}
    several = n > 1
    if not several.any():
        return row | {"note": "not estimable: no picture has two answers"}
    cluster = codes(_clusters_of(picture, trials[CLUSTER].to_numpy())[several])
    n, k, clusters = n[several], k[several], int(cluster.max()) + 1
    without = np.concatenate([np.ones((1, clusters)), 1 - np.eye(clusters)])[:, cluster]
    with np.errstate(invalid="ignore", divide="ignore"):
        agreement, chance = _agreement(n, k, without)
        alpha = (agreement - chance) / (1 - chance)
    row |= {"agreement": agreement[0], "by_chance": chance[0]}
    if chance[0] == 1:
        return row | {"note": "not estimable: all answers are equal"}
    if clusters == 1:
        return row | {"note": "not estimable: one photograph" if len(n) > 1 else "not estimable: one image"}
    row |= {"alpha": alpha[0]}
    if agreement[0] == 1 or np.isnan(alpha).any():
        return row | {"note": "no interval: nobody disagrees" if agreement[0] == 1 else "no interval: too few pictures"}
    low, high = _jackknifed(alpha, float(n.mean()))
    few = few_photographs(clusters) if clusters < len(n) else f"few clusters: {clusters} images"
    return row | {"alpha_low": low, "alpha_high": high, "note": few if clusters < FEW else ""}


def _jackknifed(alpha: Array, answers: float) -> tuple[float, float]:
    """95 % interval of alpha[0], from those without each of the clusters; answers: to a picture, on average.

    On the scale of Fisher's z of an intraclass correlation r of m answers, log((1 + (m - 1) r) / (1 - r)) / 2, whose
    variance does not depend on r. Source: Fisher 1925, "Statistical methods for research workers", section 39.
    """
    m, clusters = answers, len(alpha) - 1
    r = np.clip(alpha, -0.99 / (m - 1), 0.9999)
    z = np.log((1 + (m - 1) * r) / (1 - r)) / 2
    error = np.sqrt((clusters - 1) ** 2 / clusters * z[1:].var(ddof=1))
    middle, reach = clusters * z[0] - (clusters - 1) * z[1:].mean(), stats.t.ppf((1 + LEVEL) / 2, clusters - 1) * error
    ends = np.exp(2 * np.array([middle - reach, middle + reach]))
    low, high = (ends - 1) / (ends + m - 1)
    return float(low), float(high)


def _agreement(n: Array, k: Array, drawn: Array) -> tuple[Array, Array]:
    """(observed, expected) [resamples] shares of agreeing pairs; n answers to each picture, k of them positive."""
    total, positive = drawn @ n, drawn @ k
    observed = 1 - drawn @ (2 * k * (n - k) / (n - 1)) / total
    expected = 1 - 2 * positive * (total - positive) / (total * (total - 1))
    return observed, expected
