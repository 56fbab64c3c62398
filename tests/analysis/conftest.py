"""Data of the worked examples, and a simulated study."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from analysis import exclusions
from analysis.simulation import simulate

# Intercepts of example B, by model.
INTERCEPTS = {"A": -0.10, "B": -0.45, "C": -0.25}


def uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def crossed(model: str, subjects: int = 50, images: int = 100) -> np.ndarray:
    """Rows of subject, image, real_on_left, picked_model: two subjects share a permutation of the images."""
    rows = []
    for s in range(subjects):
        order = sorted(range(images), key=lambda i: uniform(f"perm:{model}:{s // 2}:{i}"))
        for i in order[50 * (s % 2) : 50 * (s % 2) + 50]:
            person, image = 0.5 * norm.ppf((s + 0.5) / subjects), 0.8 * norm.ppf(((i * 37) % images + 0.5) / images)
            real_left = uniform(f"side:{model}:{s}:{i}") < 0.5
            picked = uniform(f"resp:{model}:{s}:{i}") < expit(INTERCEPTS[model] + person + image)
            rows.append((s, i, real_left, picked))
    return np.array(rows, dtype=int)


def as_responses(rows: np.ndarray, model: str, prefix: str = "") -> pd.DataFrame:
    """Rows of `crossed` with the columns of responses.csv that matter; the prefix makes subjects of their own."""
    real = np.where(rows[:, 2] == 1, "left", "right")
    other = np.where(rows[:, 2] == 1, "right", "left")
    return pd.DataFrame(
        {
            "study": "example",
            "task": 1,
            "model": model,
            "subject": [f"{prefix}{s}" for s in rows[:, 0]],
            "image_id": [str(i) for i in rows[:, 1]],
            "kind": "test",
            "real_side": real,
            "choice_side": np.where(rows[:, 3] == 1, other, real),
            "picked_model": rows[:, 3],
        }
    )


@pytest.fixture(scope="session")
def example_rows():
    return {model: crossed(model) for model in INTERCEPTS}


@pytest.fixture(scope="session")
def between(example_rows):
    """Example B with other subjects for each model."""
    return pd.concat([as_responses(rows, model, model) for model, rows in example_rows.items()], ignore_index=True)


@pytest.fixture(scope="session")
def within(example_rows):
    """Example B with the same subjects for all models."""
    return pd.concat([as_responses(rows, model) for model, rows in example_rows.items()], ignore_index=True)


@pytest.fixture(scope="session")
def study():
    """A small study with practice, catch trials, two exposures, flagged trials and guessers."""
    rates = {"sr3": (0.48, 0.45), "pulse": (0.3, 0.3), "fsrgan": (0.1, 0.1)}
    setting = {"exposures": (3000, 6000), "flagged": 0.03, "guessers": 0.1, "seed": 5}
    return simulate(rates, subjects=12, images=40, trials=20, **setting)


@pytest.fixture(scope="session")
def kept(study):
    return exclusions.exclude(study)[0]
