"""Metrics against votes between two pictures (the 2AFC score of BAPPS) and against opinion scores of single pictures.

A frame of votes holds one row a pair of pictures, or one a vote: dataset, image_id, model_a, model_b, share_a (of the
people who chose a, ties counting half), n (votes; nan where it is not known) and ties; `subject` where a row is one
person's vote, and `group` where images are grouped. A frame of opinions: dataset, image_id, method, opinion (higher is
better). Scores are rows of per_image.csv: what a model made of an image is method and image_id.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.clusters import CLUSTER, FEW, SUBJECT, Cells, codes, groups, labelled, variances
from analysis.comparisons import holm
from analysis.errors import DataError
from analysis.fool_rate import CHANCE
from analysis.pigeonhole import check_resamples, percentiles
from analysis.proportions import LEVEL
from analysis.tables import of_tests, require, with_dataset

Array = NDArray[np.float64]

VOTES = ("dataset", "image_id", "model_a", "model_b", "share_a", "n", "ties")
OPINIONS = ("dataset", "image_id", "method", "opinion")
GOT = {"left": 1.0, "right": 0.0, "tie": 0.5}
FEWEST = 3  # clusters, below which nothing is said
TWO_AFC = ["pairs", "images", "score", "ci_low", "ci_high", "p_50", "p_holm", "human", "majority", "note"]
CORRELATIONS = ["pictures", "references", "spearman", "spearman_low", "spearman_high", "kendall"]
CORRELATIONS += ["within", "within_low", "within_high", "p", "p_holm", "note"]


def choice_votes(choices: pd.DataFrame) -> pd.DataFrame:
    """The decided choices and ties of a study (what `exclude` kept) as votes, one row each; without skipped pairs."""
    require(choices, ("task", "criterion", "model_left", "model_right", "choice_side"), "choices")
    trials = labelled(of_tests(choices, ("task", "criterion"), "choices"))
    trials = trials[trials["choice_side"] != "skip"]
    share = trials["choice_side"].map(GOT)
    pair = {"model_a": trials["model_left"], "model_b": trials["model_right"], "share_a": share, "n": 1.0}
    kept = trials[["task", "criterion", "image_id", SUBJECT, CLUSTER]].rename(columns={SUBJECT: "subject"})
    return kept.assign(dataset="", **pair, ties=(share == 0.5).astype(float)).rename(columns={CLUSTER: "group"})


def two_afc(
    votes: pd.DataFrame, scores: pd.DataFrame, higher_is_better: Mapping[str, bool], by: Sequence[str] = ("dataset",)
) -> pd.DataFrame:
    """The 2AFC score of each metric, the best first: how many people it agrees with, pair by pair.

    A pair adds share_a where the metric calls a the better, 1 - share_a where it calls b the better, and a half where
    both are equal; the score is the mean over rows of votes. Columns: `by`, metric, pairs (rows), images; score with
    95 % interval (Student's t), clustered by image or group, and by subject where votes have subjects; p_50 of "chooses
    by chance", p_holm over the group's metrics; human, the score of one of the people against the others (2 human - 1
    is Kendall and Babington Smith's coefficient of agreement), nan where the number of votes is not known; majority,
    the score of siding with most people in each pair, which nothing exceeds; note. Pairs without both scores are left
    out.
    Source: Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", 2AFC.

    DataError where no pair has scores of both pictures, for a score given twice, and for a metric that
    `higher_is_better` lacks.
    """
    require(votes, [*VOTES, *by], "votes")
    wide = _wide(scores, votes)
    _check_directions(wide.columns, higher_is_better)
    rows: list[dict[str, Any]] = []
    for key, part in groups(votes, by):
        found = []
        for metric in wide:
            got = _agreed(part, wide[metric], higher_is_better[metric])
            found.append(key | {"metric": metric} | _two_afc(part[~np.isnan(got)], got[~np.isnan(got)]))
        rows += _adjusted(found, "p_50", "score")
    table = pd.DataFrame(rows, columns=[*by, "metric", *TWO_AFC])
    if not table["pairs"].any():
        raise DataError("no pair of the votes has scores of both pictures: method and image_id must be those of votes")
    return table


def opinion_agreement(
    opinions: pd.DataFrame,
    scores: pd.DataFrame,
    higher_is_better: Mapping[str, bool],
    resamples: int = 400,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlations of metrics with opinion scores in each data set, the best metric first.

    Columns: dataset, metric, pictures, references; spearman (SRCC) and kendall (tau b) over all pictures, as PIPAL's
    papers give; within, the mean over reference images of Spearman's rho over their pictures, which no difference
    between references helps; 95 % intervals (spearman: percentiles of a bootstrap of references; within: Student's t),
    p of "within is 0", p_holm over the data set's metrics; note. Positive is agreement.
    """
    check_resamples(resamples)
    require(opinions, OPINIONS, "opinions")
    wide = _wide(scores, opinions)
    _check_directions(wide.columns, higher_is_better)
    rows: list[dict[str, Any]] = []
    for key, part in groups(opinions, ["dataset"]):
        found = []
        for metric in wide:
            sign = 1 if higher_is_better[metric] else -1
            values = sign * _looked_up(wide[metric], part["image_id"], part["method"])
            known = part.assign(value=values).dropna(subset=["value"])
            found.append(key | {"metric": metric} | _correlations(known, resamples, np.random.default_rng(seed)))
        rows += _adjusted(found, "p", "spearman")
    table = pd.DataFrame(rows, columns=["dataset", "metric", *CORRELATIONS])
    if not table["pictures"].any():
        raise DataError("no picture of the opinions has scores: method and image_id must be those of opinions")
    return table


def _wide(scores: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Scores by image_id and method, a column a metric; of the data sets of what was judged, if that has several."""
    require(scores, ("method", "image_id", "metric", "value"), "scores")
    scores = with_dataset(scores)
    names = set(judged["dataset"]) & set(scores["dataset"])
    if names and judged["dataset"].nunique() > 1:
        scores = scores[scores["dataset"].isin(names)]
    twice = scores[scores.duplicated(["method", "image_id", "metric"])]
    if len(twice):
        first = ", ".join(twice.iloc[0][["method", "image_id", "metric"]].astype(str))
        raise DataError(f"{len(twice)} scores are listed twice, first {first}")
    return scores.pivot(index=["image_id", "method"], columns="metric", values="value")


def _check_directions(metrics: pd.Index, higher_is_better: Mapping[str, bool]) -> None:
    unknown = sorted(set(metrics) - set(higher_is_better))
    if unknown:
        raise DataError(f"is higher or lower better? unknown for metric {', '.join(unknown)}")


def _looked_up(values: pd.Series, image: pd.Series, method: pd.Series) -> Array:
    return values.reindex(pd.MultiIndex.from_arrays([image, method])).to_numpy(float)


def _agreed(votes: pd.DataFrame, values: pd.Series, higher: bool) -> Array:
    """The share of people that the metric agrees with, a row of votes each; nan without both scores."""
    a, b = (_looked_up(values, votes["image_id"], votes[model]) for model in ("model_a", "model_b"))
    share = votes["share_a"].to_numpy(float)
    got = np.where(a == b, 0.5, np.where((a > b) == higher, share, 1 - share))
    return np.where(np.isnan(a) | np.isnan(b), np.nan, got)


def _people(votes: pd.DataFrame) -> dict[str, float]:
    """How well people and their majority do, by the pairs of pictures, each counting as often as it has rows."""
    a, b = votes["model_a"].astype(str), votes["model_b"].astype(str)
    swapped = (a > b).to_numpy()
    share = np.where(swapped, 1 - votes["share_a"], votes["share_a"])
    pair = codes(votes["image_id"], a.where(~swapped, b), b.where(~swapped, a))
    n, ties, wins = (np.bincount(pair, weights=w) for w in (votes["n"], votes["ties"], share * votes["n"]))
    rows, of_pair = np.bincount(pair), np.bincount(pair, weights=share) / np.bincount(pair)
    majority = float(np.average(np.maximum(of_pair, 1 - of_pair), weights=rows))
    several = n > 1  # false where n is nan
    if not several.any() or np.isnan(n).any():
        return {"human": np.nan, "majority": majority}
    n, ties, lead = n[several], ties[several], (2 * wins - n)[several]
    # Over ordered pairs of people, votes as 1, 0 (tie) and -1: their products' sum is (sum)^2 - sum of squares.
    agree = 0.5 + 0.5 * (lead**2 - (n - ties)) / (n * (n - 1))
    return {"human": float(np.average(agree, weights=rows[several])), "majority": majority}


def _two_afc(votes: pd.DataFrame, got: Array) -> dict[str, Any]:
    cluster = _clusters(votes)
    size = int(cluster.max(initial=-1)) + 1
    row: dict[str, Any] = {"pairs": len(votes), "images": votes["image_id"].nunique()}
    if size:
        row |= {"score": float(got.mean())} | _people(votes)
    if size < FEWEST:
        return row | {"note": f"not estimable: {size} {'images' if size == row['images'] else 'groups of images'}"}
    variance, df = _variance(votes, cluster, got)
    if np.isnan(variance):
        return row | {"note": "not estimable: one subject"}
    if variance == 0:
        return row | {"note": "no interval: all pairs add the same"}
    error = np.sqrt(variance)
    reach = stats.t.ppf((1 + LEVEL) / 2, df) * error
    row |= {"ci_low": max(0.0, row["score"] - reach), "ci_high": min(1.0, row["score"] + reach)}
    p = 2 * stats.t.sf(abs(row["score"] - CHANCE) / error, df)
    return row | {"p_50": float(p), "note": f"few clusters: {df + 1}" if df + 1 < FEW else ""}


def _clusters(votes: pd.DataFrame) -> NDArray[np.int64]:
    return codes(votes["group"]) if "group" in votes else codes(votes["image_id"])


def _variance(votes: pd.DataFrame, cluster: NDArray[np.int64], got: Array) -> tuple[float, int]:
    """(variance of the mean, degrees of freedom): clustered by image, and by subject where there are subjects."""
    residual, size = (got - got.mean()) / len(got), int(cluster.max()) + 1
    if "subject" not in votes:
        sums = np.bincount(cluster, weights=residual)
        return size / (size - 1) * float(sums @ sums), size - 1
    subject = codes(votes["subject"])
    subjects = int(subject.max()) + 1
    if subjects == 1:
        return np.nan, 0
    order = np.lexsort([cluster, subject])
    cells = Cells(subject[order], cluster[order], cluster * 0, np.ones(len(got)), got[order], size)
    parts = variances(cells, residual[order])
    return max(parts.two_way, parts.subject, parts.group), min(size, subjects) - 1


def _adjusted(rows: list[dict[str, Any]], p: str, best: str) -> list[dict[str, Any]]:
    """With p_holm, the best first."""
    for row, adjusted in zip(rows, holm([row.get(p, np.nan) for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return sorted(rows, key=lambda row: -row.get(best, -np.inf))


def _correlations(known: pd.DataFrame, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    """Of the pictures that have a score."""
    parts = [part[["value", "opinion"]].to_numpy(float) for _, part in known.groupby("image_id")]
    row: dict[str, Any] = {"pictures": len(known), "references": len(parts)}
    if len(known) < FEWEST:
        return row | {"note": f"not estimable: {len(known)} pictures"}
    x, y = known["value"].to_numpy(float), known["opinion"].to_numpy(float)
    if len(set(x)) == 1 or len(set(y)) == 1:
        return row | {"note": "not estimable: all values are equal"}
    ranked = stats.rankdata(x)  # so that scores may be infinite
    row |= {"spearman": _spearman(x, y), "kendall": float(stats.kendalltau(ranked, y).statistic)}
    if len(parts) < FEWEST:
        return row | {"note": f"no intervals: {len(parts)} references"}
    drawn = rng.integers(len(parts), size=(resamples, len(parts)))
    sampled = [_spearman(*np.concatenate([parts[i] for i in draw]).T) for draw in drawn]
    row |= dict(zip(("spearman_low", "spearman_high"), percentiles(np.array(sampled), len(parts)), strict=True))
    return row | _within(np.array([_spearman(*part.T) for part in parts if len(part) > 1]))


def _within(rho: Array) -> dict[str, Any]:
    rho = rho[~np.isnan(rho)]
    if len(rho) < FEWEST:
        return {"note": f"within is not estimable: {len(rho)} references with several pictures"}
    found = stats.ttest_1samp(rho, 0) if np.ptp(rho) > 0 else None
    note = f"few clusters: {len(rho)} references" if len(rho) < FEW else ""
    if found is None:
        return {"within": float(rho.mean()), "note": note}
    low, high = found.confidence_interval(LEVEL)
    return {"within": float(rho.mean()), "within_low": low, "within_high": high, "p": found.pvalue, "note": note}


def _spearman(x: Array, y: Array) -> float:
    """nan where all are equal."""
    ranks = stats.rankdata(x) - (len(x) + 1) / 2, stats.rankdata(y) - (len(y) + 1) / 2
    spread = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / spread) if spread else np.nan
