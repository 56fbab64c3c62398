"""Simulated studies of pairs of models in the format of choices.csv: utilities that differ by subject and image."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import DataError
from analysis.simulation import START

Array = NDArray[np.float64]


def simulate_choices(
    scores: Mapping[str, float],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    subjects: int = 50,
    images: int = 100,
    trials: int = 50,
    subject_sd: float = 0.3,
    image_sd: float = 0.5,
    tie: float = 0.0,
    skipped: float = 0.0,
    groups: int | None = None,
    seed: int = 0,
    study: str = "simulated",
) -> pd.DataFrame:
    """Choices of a study whose utilities are known; every subject sees each pair about equally often.

    scores: by model, the mean utility. A subject's and an image's own liking of each model add normal deviations of
    subject_sd and image_sd; choices then follow Davidson's model with the tie parameter `tie`. pairs: that are shown;
    without, all. skipped: share of the trials. groups: of images (crops of one photograph), which share the whole of
    their deviations. The same arguments give the same frame. DataError for what cannot be.
    """
    models = list(scores)
    shown = list(pairs) if pairs is not None else list(itertools.combinations(models, 2))
    if not shown or not {model for pair in shown for model in pair} <= set(models):
        raise DataError("pairs must be of models that have scores, and at least one")
    if trials > images:
        raise DataError(f"{trials} trials of {images} images: a subject would see an image twice")
    rng = np.random.default_rng(seed)
    liking = np.array([scores[model] for model in models])
    of_subject = rng.normal(0, subject_sd, (subjects, len(models)))
    of_group = rng.normal(0, image_sd, (groups or images, len(models)))
    group = np.arange(images) % (groups or images)
    subject = np.repeat(np.arange(subjects), trials)
    image = np.concatenate([rng.permutation(images)[:trials] for _ in range(subjects)])
    pair = np.concatenate([rng.permutation((np.arange(trials) + s) % len(shown)) for s in range(subjects)])
    index = np.array([[models.index(a), models.index(b)] for a, b in shown])[pair]
    index = np.where(rng.random((len(index), 1)) < 0.5, index, index[:, ::-1])
    utility = liking[index] + np.stack([of_subject[subject, m] + of_group[group[image], m] for m in index.T], axis=1)
    side = _chosen(utility, tie, rng)
    side = np.where(rng.random(len(side)) < skipped, "skip", side)
    return _table(study, subject, image, group[image], np.tile(np.arange(trials), subjects), models, index, side, rng)


def _chosen(utility: Array, tie: float, rng: np.random.Generator) -> NDArray[np.str_]:
    """left, right or tie, by Davidson's model of the utilities [choices, 2]."""
    strength = np.exp(utility - utility.mean(axis=1, keepdims=True))  # of product 1
    strength = np.column_stack([strength, np.full(len(utility), 2 * tie)])
    chance = np.cumsum(strength, axis=1) / strength.sum(axis=1, keepdims=True)
    return np.array(["left", "right", "tie"])[(rng.random((len(utility), 1)) > chance[:, :2]).sum(axis=1)]


def _table(
    study: str,
    subject: NDArray[np.int64],
    image: NDArray[np.int64],
    group: NDArray[np.int64],
    slot: NDArray[np.int64],
    models: Sequence[str],
    index: NDArray[np.int64],
    side: NDArray[np.str_],
    rng: np.random.Generator,
) -> pd.DataFrame:
    named = np.array(models, object)
    columns: dict[str, Any] = {
        "study": study,
        "task": 2,
        "condition": "all",
        "exposure_ms": 3000,
        "subject": [f"s{s:05d}" for s in subject],
        "image_id": [f"{i:04d}" for i in image],
        "kind": "test",
        "trial_index": slot,
        "criterion": "",
        "model_left": named[index[:, 0]],
        "model_right": named[index[:, 1]],
        "choice_side": side,
        "real_side": "",
        "rt_ms": np.round(900 * np.exp(rng.normal(0, 0.45, len(side))), 1),
        "exposure_actual_ms": 3000.0,
        "timing_ok": 1,
        "finished": 1,
        "excluded_reason": "",
        "received_at": START + pd.to_timedelta(np.arange(len(side)), unit="s"),
        "group": [f"g{g:04d}" for g in group],
    }
    return pd.DataFrame(columns)
