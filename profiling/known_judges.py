"""Studies whose agreement, thresholds, images or scores are known, for interval_coverage.py."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from analysis.ceiling import noise_ceiling, rater_agreement
from analysis.image_rates import image_rates
from analysis.psychometric import thresholds
from analysis.seeds import score_parts
from analysis.simulation import _center, simulate

Array = NDArray[np.float64]
SUBJECT_SD = 0.5  # logits
THRESHOLD_MS = 900.0
QUIET = {"catch": 0, "practice": 0}


def judged(logits: Array, subjects: int, trials: int, seed: int, subject_sd: float = SUBJECT_SD) -> pd.DataFrame:
    """Answers to one model's images whose logits are known; each subject's trials are of images drawn at random."""
    rng = np.random.default_rng(seed)
    liking = rng.normal(0, subject_sd, subjects)
    seen = np.stack([rng.permutation(len(logits))[:trials] for _ in range(subjects)])
    picked = rng.random(seen.shape) < special.expit(logits[seen] + liking[:, None])
    subject, image = np.repeat(np.arange(subjects), trials), seen.ravel()
    table = pd.DataFrame({"subject": [f"s{s}" for s in subject], "image_id": [f"{i:03d}" for i in image]})
    table["picked_model"] = picked.ravel().astype(int)
    return table.assign(study="known", task=1, model="sr3", kind="test")


def grouped_logits(images: int, groups: int, sd: float, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
    """(logits of images, the group of each): half of their variance is between the groups, where these are fewer."""
    of = np.arange(images) % groups
    share = 0.5 if groups < images else 0.0
    logits = np.sqrt(share) * rng.normal(size=groups)[of] + np.sqrt(1 - share) * rng.normal(size=images)
    return sd * logits, of


def image_ceilings(studies: int, subjects: int, spread: float, groups: int, images: int = 60) -> pd.DataFrame:
    """Ceilings over images with `reached`, the rho of a metric that knows the images' true logits."""
    rows = []
    for seed in range(studies):
        logits, of = grouped_logits(images, groups, spread, np.random.default_rng(100_000 + seed))
        table = judged(logits, subjects, images // 2, seed)
        table["group"] = of[table["image_id"].astype(int)].astype(str)
        rates = table.groupby("image_id")["picked_model"].mean().sort_index()
        reached = stats.spearmanr(logits[rates.index.astype(int)], rates).statistic
        rows.append(noise_ceiling(table, splits=20, resamples=200, seed=seed).iloc[0].to_dict() | {"reached": reached})
    return pd.DataFrame(rows)


def model_ceilings(studies: int, within: bool, trials: int) -> pd.DataFrame:
    """Ceilings over 8 models with `reached`, the rho of a metric that knows their true rates."""
    rates, rows = dict(zip("abcdefgh", np.linspace(0.3, 0.5, 8), strict=True)), []
    for seed in range(studies):
        table = simulate(rates, subjects=16, images=32, trials=trials, within=within, seed=seed, **QUIET)
        found = table.groupby("model")["picked_model"].mean()[list(rates)]
        row = noise_ceiling(table, by=("task",), splits=20, resamples=200).iloc[0].to_dict()
        rows.append(row | {"reached": stats.spearmanr(list(rates.values()), found).statistic})
    return pd.DataFrame(rows)


def true_alpha(sd: float) -> float:
    """Of independent answers to images whose logits have this SD: the variance of rates over that of answers."""
    nodes, weights = special.roots_hermitenorm(64)
    rates, weights = special.expit(sd * nodes), weights / weights.sum()
    mean = weights @ rates
    return float(weights @ (rates - mean) ** 2 / (mean * (1 - mean)))


def alphas(studies: int, groups: int, images: int, sd: float = 0.8) -> pd.DataFrame:
    """`rater_agreement` of 10 subjects who judge every image, with no effects of their own."""
    rows = []
    for seed in range(studies):
        logits, of = grouped_logits(images, groups, sd, np.random.default_rng(100_000 + seed))
        answers = judged(logits, 10, images, seed, subject_sd=0)
        rows.append(rater_agreement(answers.assign(group=of[answers["image_id"].astype(int)].astype(str))).iloc[0])
    return pd.DataFrame(rows)


def timed(seed: int, times: tuple[int, ...], slope: float = 1.0, **size: int) -> pd.DataFrame:
    """A study in which the real picture is found in 75 % of the trials at THRESHOLD_MS; slope: logits a doubling."""
    right = 0.5 + 0.5 * special.expit(slope * (np.log2(times) - np.log2(THRESHOLD_MS)))
    return simulate({"sr3": list(1 - right)}, exposures=times, seed=seed, **size, **QUIET)


def timed_thresholds(studies: int, times: tuple[int, ...], **size: int) -> pd.DataFrame:
    return pd.concat([thresholds(timed(seed, times, **size)) for seed in range(studies)], ignore_index=True)


def images_covered(studies: int, subjects: int, images: int, trials: int, image_sd: float) -> float:
    """Share of the shrunk intervals that hold an image's rate over all people, whose SD is 0.5."""
    nodes, weights = special.roots_hermitenorm(64)
    center, covered = _center(0.3, float(np.hypot(SUBJECT_SD, image_sd))), []
    for seed in range(studies):
        design = {"subjects": subjects, "images": images, "trials": trials, "image_sd": image_sd}
        rows = image_rates(simulate({"m": 0.3}, seed=seed, **design, **QUIET))
        effect = image_sd * np.random.default_rng(seed).normal(size=images)  # as `simulate` draws it
        truth = special.expit(center + effect[:, None] + SUBJECT_SD * nodes) @ weights / weights.sum()
        truth = truth[rows["image_id"].astype(int)]
        covered.append(((rows["shrunk_low"] <= truth) & (truth <= rows["shrunk_high"])).mean())
    return float(np.mean(covered))


def scored_studies(samples: int, seed_share: float, studies: int, images: int = 40) -> pd.DataFrame:
    """Parts of mean scores, of which the truth is 0, and the variance of a single score 1."""
    rng = np.random.default_rng(0)
    of_images, noise = rng.normal(size=(studies, images, 1)), rng.normal(size=(studies, images, samples))
    values = np.sqrt(1 - seed_share) * of_images + np.sqrt(seed_share) * noise
    method, image, _ = np.indices(values.shape).reshape(3, -1)
    names = {"task": "t", "dataset": "", "metric": "m", "group": ""}
    return score_parts(pd.DataFrame({"method": method, "image_id": image.astype(str), "value": values.ravel()} | names))
