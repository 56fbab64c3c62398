"""Kernel inception distance (Binkowski et al. 2018)."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sr3eval.features.moments import Array
from sr3eval.features.networks import INCEPTION, Resize, inception
from sr3eval.features.rows import LIMIT, Rows
from sr3eval.metrics import Convention, SetMetric
from sr3eval.metrics._sets import Value, cut_as, of_patches

RELEASES = (INCEPTION,)


def kernel_sums(x: Sequence[Array], y: Sequence[Array]) -> Array:
    """Sums of (x_i . y_j / d + 1)^3 over the rows of every pair of blocks [N, d], [M, d]: [x blocks, y blocks]."""
    return np.array([[((a @ b.T / a.shape[1] + 1) ** 3).sum() for b in y] for a in x])


def kernel_inception_distance(x: Array, y: Array) -> float:
    """Unbiased squared MMD of feature rows [N, d] and [M, d] with the cubic kernel, over all pairs; may be negative."""
    return _evaluate_blocks({"": x}, {"": y})[0]


def _evaluate_blocks(own: Mapping[str, Array], reference: Mapping[str, Array]) -> Value:
    """The distance, and the distance without each block (of both sets): every pair of rows is visited once."""
    names = sorted(own)
    x, y = ([blocks[name] for name in names] for blocks in (own, reference))
    counts = np.array([[len(rows) for rows in part] for part in (x, y)], dtype=float)
    xx, yy, xy = kernel_sums(x, x), kernel_sums(y, y), kernel_sums(x, y)
    for sums, part in ((xx, x), (yy, y)):  # unbiased: no row is paired with itself
        np.fill_diagonal(sums, [block - _self_pairs(rows) for block, rows in zip(sums.diagonal(), part, strict=True)])

    def distance(kept: NDArray[np.bool_]) -> float:
        # Gretton et al. 2012, eq. 3: sum_{i != j} k(x_i, x_j) / (m (m - 1)) + the same of y - 2 sum k(x_i, y_j) / (m n)
        m, n = counts[:, kept].sum(axis=1)
        inside = np.ix_(kept, kept)
        return float(
            xx[inside].sum() / (m * (m - 1)) + yy[inside].sum() / (n * (n - 1)) - 2 * xy[inside].sum() / (m * n)
        )

    index = np.arange(len(names))
    enough = len(names) > 1 and min(counts[:, index != i].sum(axis=1).min() for i in index) > 1
    return distance(index >= 0), {name: distance(index != i) for i, name in enumerate(names)} if enough else {}


def _self_pairs(rows: Array) -> float:
    return float((((rows**2).sum(axis=1) / rows.shape[1] + 1) ** 3).sum())


def evaluate(own: Mapping[str, Rows], reference: Mapping[str, Rows]) -> Value:
    """`SetMetric`'s: KID x 1e3 from rows by block."""
    x, y = ({name: rows.rows.astype(np.float64) for name, rows in blocks.items()} for blocks in (own, reference))
    value, without = _evaluate_blocks(x, y)
    return value * 1e3, {name: v * 1e3 for name, v in without.items()}


def build(*, patches: int | None = None, resize: Resize = "tf1", weights: str | None = None) -> SetMetric:
    """KID x 1e3 against the HR images of the run, over all pairs of images.

    Args:
        patches: as for `fid.build`.
        resize, weights: see `networks.inception`.
    """
    network = inception(weights, resize)
    samples = "images" if patches is None else "patches"
    settings = (
        f"x 1e3, {network.identity}{cut_as(patches)}; cubic kernel, unbiased, all pairs of at most {LIMIT} {samples} a "
        "jackknife block; reference: HR of the same images"
    )
    whole = Convention(name="kid", label="KID ×10³", higher_is_better=False, settings=settings, decimals=2)
    features = functools.partial(network.pooled, patches=patches)
    return SetMetric(of_patches(whole, patches), features, Rows, evaluate, patches=patches)
