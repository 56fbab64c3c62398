"""Responses counted by subject and image, and variances of what is computed from them: two-way clustered.

Source: Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering". Images cluster by the column
`group` (crops of one photograph, say), each for itself where there is none.
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
# Columns that the functions of this file add, as numbers in the order of the names: who answered, what was seen, and
# the group that it is of.
SUBJECT, IMAGE, CLUSTER = "_subject", "_image", "_cluster"
SAMPLE = "sample"  # a column that responses may have: which of a method's outputs for the image was shown
FEW = 10  # clusters, below which a result carries a caution
NO_RESPONSES = "not estimable: no responses"


@dataclass(frozen=True)
class Cells:
    """How often each subject picked the model's output of each cluster of images; one entry a cell that has responses.

    subject, cluster: codes. level: what else distinguishes cells (which of two models, say), 0 where nothing does.
    n: responses; k: those that picked the model's output. images: how many different ones; as many as clusters where
    they are not grouped. Sorted by subject, cluster and level, so that sums over cells do not depend on the order of
    the rows.
    """

    subject: Codes
    cluster: Codes
    level: Codes
    n: Array
    k: Array
    images: int

    @property
    def subjects(self) -> int:
        return int(np.count_nonzero(np.bincount(self.subject)))

    @property
    def groups(self) -> int:
        return int(np.count_nonzero(np.bincount(self.cluster)))

    @property
    def df(self) -> float:
        """Degrees of freedom of Student's t: of the fewer of subjects and groups, less 1.

        Groups of images count as 1 / (sum of squared shares of the responses), Kish's effective number, since a few
        large ones decide alone; G equal ones count as G.
        """
        if self.groups == self.images:
            return min(self.subjects, self.images) - 1
        shares = np.bincount(self.cluster, weights=self.n) / self.n.sum()
        return min(self.subjects, 1 / float(shares @ shares)) - 1


@dataclass(frozen=True)
class Variances:
    """Of a sum over cells, clustered by subject, by group of images, and by both at once."""

    subject: float
    group: float
    cell: float

    @property
    def two_way(self) -> float:
        """Not corrected: may be below either of the one-way variances, and below zero."""
        return self.subject + self.group - self.cell

    @property
    def contrast(self) -> float:
        """Of a difference or a slope, in which what is shared cancels: at least the smaller of the one-way ones."""
        return max(self.two_way, min(self.subject, self.group))


def numbered(responses: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Test trials with SUBJECT, IMAGE and CLUSTER."""
    return labelled(judgements(responses, by))


def labelled(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials with SUBJECT, IMAGE and CLUSTER; those of two studies are two, whatever their names."""
    image = codes(trials["study"], trials["image_id"])
    return trials.assign(
        **{SUBJECT: codes(trials["study"], trials["subject"]), IMAGE: image, CLUSTER: _clusters(trials, image)}
    )


def _clusters(trials: pd.DataFrame, image: Codes) -> Codes:
    """The group of each trial's image within its study; images without one, or of an empty one, are their own."""
    if "group" not in trials:
        return image
    group = trials["group"].fillna("").astype(str)
    return codes(trials["study"], group, np.where(group == "", image, -1))


def codes(*columns: pd.Series | Codes) -> Codes:
    """A number for each combination of values, in their order."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        part = pd.factorize(column, sort=True)[0]
        codes = pd.factorize(codes * (part.max(initial=0) + 1) + part, sort=True)[0]
    return codes


def groups(trials: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """(the values of `by`, the rows that have them), sorted; all rows as one group where `by` is empty."""
    if not by:
        yield {}, trials
        return
    for values, part in trials.groupby(list(by), sort=True, observed=True):
        yield dict(zip(by, values, strict=True)), part


def count(trials: pd.DataFrame, level: Codes | None = None, cluster: str = CLUSTER) -> Cells:
    """The cells of numbered trials; level: a code for every trial; cluster: the column of what images cluster by."""
    subject, image = trials[SUBJECT].to_numpy(), trials[cluster].to_numpy()
    levels = np.zeros(len(trials), np.int64) if level is None else level
    sizes = [int(codes.max(initial=0)) + 1 for codes in (subject, image, levels)]
    cells, index = np.unique(np.ravel_multi_index((subject, image, levels), sizes), return_inverse=True)
    picked = np.bincount(index, weights=trials["picked_model"].to_numpy(float), minlength=len(cells)).astype(float)
    shown = np.bincount(index, minlength=len(cells)).astype(float)
    by_subject, by_cluster, by_level = (part.astype(np.int64) for part in np.unravel_index(cells, sizes))
    return Cells(by_subject, by_cluster, by_level, shown, picked, trials[IMAGE].nunique())


def variances(cells: Cells, influence: Array, correct_cells: bool = True) -> Variances:
    """Variances of a statistic, from what each cell adds to its deviation (for a mean: residuals / N).

    Each is G/(G-1) * (sum over G clusters of squared sums). correct_cells: whether the one by cell has that factor.
    """
    new = (np.diff(cells.subject) != 0) | (np.diff(cells.cluster) != 0)
    pair = np.concatenate([[0], np.cumsum(new)])  # of subject and cluster; cells are sorted
    return Variances(
        _clustered(cells.subject, influence),
        _clustered(cells.cluster, influence),
        _clustered(pair, influence, correct_cells),
    )


def _clustered(labels: Codes, influence: Array, correct: bool = True) -> float:
    sums = np.bincount(labels, weights=influence)[np.bincount(labels) > 0]
    factor = len(sums) / (len(sums) - 1) if correct else 1.0
    return factor * float(sums @ sums)


def why_not_estimable(*parts: Cells) -> str:
    """The note of a result that needs two subjects and two groups of images in each of its parts, or ""."""
    subjects, groups = min(cells.subjects for cells in parts), min(cells.groups for cells in parts)
    if subjects == 0:
        return NO_RESPONSES
    if subjects == 1:
        return "not estimable: one subject"
    if groups > 1:
        return ""
    return "not estimable: one image" if min(cells.images for cells in parts) == 1 else "not estimable: one photograph"


def caution(*parts: Cells) -> str:
    """The note of an interval that stands on few clusters in any of its parts, or ""."""
    subjects, images, groups = (min(getattr(cells, of) for cells in parts) for of in ("subjects", "images", "groups"))
    grouped = any(cells.groups < cells.images for cells in parts)
    scarce = [f"{subjects} subjects"] * (subjects < FEW) + [f"{images} images"] * (images < FEW and not grouped)
    notes = [f"few clusters: {' and '.join(scarce)}"] * bool(scarce)
    return "; ".join([*notes, *[few_photographs(groups)] * (grouped and groups < FEW)])


def few_photographs(groups: int) -> str:
    return f"few photographs: {groups} groups of images"
