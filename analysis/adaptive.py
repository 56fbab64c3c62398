"""Which pairs of models to show next: more of those whose order is least certain. And what that saves, by simulation.

Half of the next trials are spread evenly over the pairs, so that none is starved and scores stay estimable; the other
half goes to pairs in proportion to the chance that the order of their scores so far is wrong.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.preference import fit, inverse

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
EVEN = 0.5  # share of the trials that are spread evenly
PRIOR = 0.5  # wins that every pair is given both ways beforehand, so that scores are finite from the first choice on


def shares(wins: Array, pairs: Sequence[tuple[int, int]]) -> Array:
    """The share of the next trials that each of `pairs` should have, adding up to 1.

    wins: [models, models], how often the row's model was chosen over the column's, ties as half for both.
    """
    scores, covariance = _posterior(wins, pairs)
    a, b = np.array(pairs).T
    variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
    wrong = stats.norm.sf(np.abs(scores[a] - scores[b]) / np.sqrt(variance))
    return EVEN / len(pairs) + (1 - EVEN) * wrong / wrong.sum()


def allot(share: Array, trials: int, rng: np.random.Generator) -> Codes:
    """Which pair each of `trials` shows, in random order: as near to the shares as whole trials can be."""
    wanted = share * trials
    counts = np.floor(wanted).astype(np.int64)
    rest = trials - counts.sum()
    chance = wanted - counts
    if rest:
        counts[rng.choice(len(share), rest, replace=False, p=chance / chance.sum())] += 1
    return rng.permutation(np.repeat(np.arange(len(share)), counts))


def simulate_saving(
    scores: Mapping[str, float],
    *,
    subjects: int = 40,
    images: int = 100,
    trials: int = 50,
    subject_sd: float = 0.3,
    image_sd: float = 0.5,
    repetitions: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """How near the ranking comes to the true one with balanced and with adaptive pairs, subject by subject.

    scores: true ones by model; subject_sd, image_sd: of a subject's and an image's own liking of each model. Columns:
    adaptive, votes; means over the repetitions of kendall (tau of estimated and true scores), all_right (the whole
    order is right) and best_right (the best model is found); se, of the mean of kendall.
    """
    truth = np.array(list(scores.values()))
    rows = [
        {"adaptive": adaptive, **row}
        for adaptive, repetition in itertools.product((False, True), range(repetitions))
        for row in _one_study(
            truth,
            adaptive,
            (subjects, images, trials),
            (subject_sd, image_sd),
            np.random.default_rng((seed, repetition)),
        )
    ]
    by = pd.DataFrame(rows).groupby(["adaptive", "votes"])
    means = by[["kendall", "all_right", "best_right"]].mean()
    return means.assign(se=by["kendall"].sem()).reset_index()


def votes_until(saving: pd.DataFrame, reached: float, measure: str = "kendall") -> dict[bool, float]:
    """Votes at which the mean of a measure first reaches a value, between subjects by interpolation; nan for never."""
    found = {}
    for adaptive, part in saving.groupby("adaptive"):
        best = np.maximum.accumulate(part[measure].to_numpy())
        never = best[-1] < reached
        found[bool(adaptive)] = np.nan if never else float(np.interp(reached, best, part["votes"].to_numpy(float)))
    return found


def _posterior(wins: Array, pairs: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    """(scores, covariance) of the Bradley-Terry model, every pair having PRIOR wins both ways."""
    a, b = np.array(pairs).T
    won, lost = wins[a, b] + PRIOR, wins[b, a] + PRIOR
    twice = (np.concatenate([a, a]), np.concatenate([b, b]))
    got, weights = np.repeat([1.0, 0.0], len(pairs)), np.concatenate([won, lost])
    scores, _ = fit(*twice, got, len(wins), weights)
    p = 1 / (1 + np.exp(scores[b] - scores[a]))
    design = np.zeros((len(pairs), len(wins)))
    design[np.arange(len(pairs)), a], design[np.arange(len(pairs)), b] = 1, -1
    information = design.T @ (design * ((won + lost) * p * (1 - p))[:, None])
    return scores, inverse(information)


def _one_study(
    truth: Array, adaptive: bool, sizes: tuple[int, int, int], sds: tuple[float, float], rng: np.random.Generator
) -> list[dict[str, Any]]:
    (subjects, images, trials), (subject_sd, image_sd) = sizes, sds
    pairs = list(itertools.combinations(range(len(truth)), 2))
    a, b = np.array(pairs).T
    order = np.sign(truth[a] - truth[b])
    of_image = truth + rng.normal(0, image_sd, (images, len(truth)))
    wins, rows = np.zeros((len(truth),) * 2), []
    for subject in range(subjects):
        share = shares(wins, pairs) if adaptive and subject else np.full(len(pairs), 1 / len(pairs))
        shown = allot(share, trials, rng)
        liking = of_image[rng.permutation(images)[:trials]] + rng.normal(0, subject_sd, len(truth))
        gap = liking[np.arange(trials), a[shown]] - liking[np.arange(trials), b[shown]]
        won = rng.random(trials) < 1 / (1 + np.exp(-gap))
        np.add.at(wins, (np.where(won, a[shown], b[shown]), np.where(won, b[shown], a[shown])), 1)
        found = _posterior(wins, pairs)[0]
        agree = np.sign(found[a] - found[b]) * order
        row = {"votes": (subject + 1) * trials, "kendall": float(agree.mean()), "all_right": bool((agree == 1).all())}
        rows.append(row | {"best_right": bool(np.argmax(found) == np.argmax(truth))})
    return rows
