"""The pigeonhole bootstrap: subjects and images are both drawn again, and a response counts once for each pair drawn.

Of grouped images, whole groups are drawn.

Source: Owen 2007, "The pigeonhole bootstrap". Conservative: it estimates V_s + V_i + V_0, more than the headline's
V_s + V_i - V_0.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, stats

from analysis.clusters import Cells, count, groups, numbered, why_not_estimable
from analysis.errors import DataError
from analysis.proportions import LEVEL
from analysis.tables import judgements

Array = NDArray[np.float64]

RESAMPLES = 4000
BATCH = 250  # resamples in memory at a time


def pigeonhole(
    responses: pd.DataFrame, by: Sequence[str] = ("task", "model"), resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Fool rates with the SD and the 95 % percentile interval of their resamples, one row a group of test trials.

    Columns: `by`, n, subjects, images, fool_rate, sd, ci_low, ci_high, resamples, note. The same seed gives the same
    numbers, whatever the order of the rows and whichever other groups there are.
    """
    check_resamples(resamples)
    rows = []
    for key, part in groups(judgements(responses, by), by):
        rows.append(key | _interval(count(numbered(part, by)), resamples, np.random.default_rng(seed)))
    columns = ["n", "subjects", "images", "fool_rate", "sd", "ci_low", "ci_high", "resamples", "note"]
    return pd.DataFrame(rows, columns=[*by, *columns])


def check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise DataError(f"resamples = {resamples}: must be at least 1")


def percentiles(samples: Array, clusters: int) -> Array:
    """[low, high] of a 95 % interval from resamples of so many clusters; nan is left out.

    Further out than 2.5 and 97.5 % where these are few, as far as Student's t is, since a bootstrap of n of them has
    (n - 1) / n of the variance. Source: Hesterberg 2015, "What teachers should know about the bootstrap", expanded
    percentile intervals.
    """
    if clusters < 2:
        return np.nanquantile(samples, [0, 1])
    reach = stats.t.ppf((1 + LEVEL) / 2, clusters - 1) * math.sqrt(clusters / (clusters - 1))
    return np.nanquantile(samples, [stats.norm.sf(reach), stats.norm.cdf(reach)])


def draws(subjects: int, images: int, resamples: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Batches of how often each subject [batch, subjects] and each image [batch, images] is drawn with replacement."""
    for_subjects, for_images = rng.spawn(2)
    for start in range(0, resamples, BATCH):
        size = min(BATCH, resamples - start)
        yield _times_drawn(subjects, size, for_subjects), _times_drawn(images, size, for_images)


def rates_drawn(cells: Cells, by_subject: Array, by_image: Array) -> Array:
    """The fool rate of each resample [batch]; nan where none of the pairs drawn has a response."""
    shape = (by_image.shape[1], by_subject.shape[1])
    k, n = (
        ((sparse.csr_array((values, (cells.cluster, cells.subject)), shape) @ by_subject.T).T * by_image).sum(axis=1)
        for values in (cells.k, cells.n)
    )
    return np.divide(k, n, out=np.full(len(n), np.nan), where=n > 0)


def _times_drawn(things: int, size: int, rng: np.random.Generator) -> Array:
    return rng.multinomial(things, np.full(things, 1 / things), size=size).astype(float)


def _interval(cells: Cells, resamples: int, rng: np.random.Generator) -> dict[str, object]:
    note = why_not_estimable(cells)
    n = int(cells.n.sum())
    row: dict[str, object] = {"n": n, "subjects": cells.subjects, "images": cells.images, "note": note}
    row |= {"fool_rate": cells.k.sum() / n if n else np.nan, "resamples": 0 if note else resamples}
    if note:
        return row
    batches = draws(cells.subjects, cells.groups, resamples, rng)
    rates = np.concatenate([rates_drawn(cells, *weights) for weights in batches])
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(rates, [tail, 1 - tail])
    return row | {"sd": float(np.nanstd(rates, ddof=1)), "ci_low": float(low), "ci_high": float(high)}
