"""Responses counted by subject and image, and variances of what is computed from them: two-way clustered.

Source: Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.tables import judgements

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
# Columns that the functions of this file add: who answered and what was seen, as numbers in the order of the names.
SUBJECT, IMAGE = "_subject", "_image"
FEW = 10  # clusters, below which a result carries a caution


@dataclass(frozen=True)
class Cells:
    """How often each subject picked the model's output of each image; one entry a cell that has responses.

    subject, image: codes. level: what else distinguishes cells (which of two models, say), 0 where nothing does.
    n: responses; k: those that picked the model's output. Sorted by subject, image and level, so that sums over cells
    do not depend on the order of the rows.
    """

    subject: Codes
    image: Codes
    level: Codes
    n: Array
    k: Array

    @property
    def subjects(self) -> int:
        return int(np.count_nonzero(np.bincount(self.subject)))

    @property
    def images(self) -> int:
        return int(np.count_nonzero(np.bincount(self.image)))


@dataclass(frozen=True)
class Variances:
    """Of a sum over cells, clustered by subject, by image, and by both at once."""

    subject: float
    image: float
    cell: float

    @property
    def two_way(self) -> float:
        """Not corrected: may be below either of the one-way variances, and below zero."""
        return self.subject + self.image - self.cell


def numbered(responses: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Test trials with SUBJECT and IMAGE; subjects of two studies are two, whatever their names."""
    trials = judgements(responses, by)
    study, subject, image = (pd.factorize(trials[column], sort=True)[0] for column in ("study", "subject", "image_id"))
    person = study * (subject.max(initial=0) + 1) + subject
    return trials.assign(**{SUBJECT: pd.factorize(person, sort=True)[0], IMAGE: image})


def groups(trials: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(the values of `by`, the rows that have them), sorted; all rows as one group where `by` is empty."""
    if not by:
        yield {}, trials
        return
    for values, part in trials.groupby(list(by), sort=True, observed=True):
        yield dict(zip(by, values, strict=True)), part


def count(trials: pd.DataFrame, level: Codes | None = None) -> Cells:
    """The cells of numbered trials; level: a code for every trial."""
    subject, image = trials[SUBJECT].to_numpy(), trials[IMAGE].to_numpy()
    levels = np.zeros(len(trials), np.int64) if level is None else level
    sizes = [int(codes.max(initial=0)) + 1 for codes in (subject, image, levels)]
    cells, index = np.unique(np.ravel_multi_index((subject, image, levels), sizes), return_inverse=True)
    picked = np.bincount(index, weights=trials["picked_model"].to_numpy(float), minlength=len(cells)).astype(float)
    shown = np.bincount(index, minlength=len(cells)).astype(float)
    by_subject, by_image, by_level = (part.astype(np.int64) for part in np.unravel_index(cells, sizes))
    return Cells(by_subject, by_image, by_level, shown, picked)


def variances(cells: Cells, influence: Array, correct_cells: bool = True) -> Variances:
    """Variances of a statistic, from what each cell adds to its deviation (for a mean: residuals / N).

    Each is G/(G-1) * (sum over G clusters of squared sums). correct_cells: whether the one by cell has that factor.
    """
    new = (np.diff(cells.subject) != 0) | (np.diff(cells.image) != 0)
    pair = np.concatenate([[0], np.cumsum(new)])  # of subject and image; cells are sorted
    return Variances(
        _clustered(cells.subject, influence),
        _clustered(cells.image, influence),
        _clustered(pair, influence, correct_cells),
    )


def _clustered(labels: Codes, influence: Array, correct: bool = True) -> float:
    sums = np.bincount(labels, weights=influence)[np.bincount(labels) > 0]
    factor = len(sums) / (len(sums) - 1) if correct else 1.0
    return factor * float(sums @ sums)


def why_not_estimable(subjects: int, images: int) -> str:
    """The note of a result that needs two subjects and two images, or ""."""
    if subjects == 0:
        return "not estimable: no responses"
    if subjects == 1:
        return "not estimable: one subject"
    return "not estimable: one image" if images == 1 else ""


def caution(subjects: int, images: int) -> str:
    """The note of an interval that stands on few clusters, or ""."""
    scarce = [f"{n} {what}" for n, what in ((subjects, "subjects"), (images, "images")) if n < FEW]
    return f"few clusters: {' and '.join(scarce)}" if scarce else ""
