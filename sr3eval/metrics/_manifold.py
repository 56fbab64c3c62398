"""Improved precision and recall (Kynkaanniemi et al. 2019): shares of one set that lie in the manifold of the other."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sr3eval.metrics._networks import Resize, inception
from sr3eval.metrics._rows import LIMIT, Rows
from sr3eval.metrics._sets import SetMetric, Value

NEIGHBOURS = 3


def coverage(points: Tensor, manifold: Tensor) -> float:
    """Share of `points` [N, d] within the distance of the third neighbour of at least one row of `manifold` [M, d]."""
    return _share(torch.cdist(points, manifold), torch.cdist(manifold, manifold))


def _share(to_manifold: Tensor, within: Tensor) -> float:
    # The nearest row is the row itself.
    radii = within.kthvalue(NEIGHBOURS + 1, dim=1).values
    return float((to_manifold <= radii).any(dim=1).double().mean())


def evaluate(points: Mapping[str, Rows], manifold: Mapping[str, Rows]) -> Value:
    """The share, and the share without each block (of both sets)."""
    names = sorted(points)
    x, y = (
        torch.from_numpy(np.concatenate([part[name].rows for name in names])).double() for part in (points, manifold)
    )
    blocks = [torch.tensor([i for i, name in enumerate(names) for _ in range(p[name].n)]) for p in (points, manifold)]
    to_manifold, within = torch.cdist(x, y), torch.cdist(y, y)

    def without(block: int) -> float:
        rows, columns = (part != block for part in blocks)
        return _share(to_manifold[rows][:, columns], within[columns][:, columns])

    enough = len(names) > 1 and all(int((blocks[1] != i).sum()) > NEIGHBOURS for i in range(len(names)))
    return _share(to_manifold, within), {name: without(i) for i, name in enumerate(names)} if enough else {}


def build_share(name: Literal["precision", "recall"], resize: Resize, weights: str | None) -> SetMetric:
    """precision: outputs in the manifold of HR; recall: HR in that of the outputs."""
    network = inception(weights, resize)
    what = "outputs within HR's manifold" if name == "precision" else "HR images within the outputs' manifold"
    settings = (
        f"share of {what}, {NEIGHBOURS} neighbours, {network.identity}; at most {LIMIT} images a jackknife block; "
        "reference: HR of the same images"
    )

    def score(own: Mapping[str, Rows], reference: Mapping[str, Rows]) -> Value:
        return evaluate(own, reference) if name == "precision" else evaluate(reference, own)

    return SetMetric(name, True, settings, network.pooled, Rows, score, needs_hr=True, minimum=NEIGHBOURS + 1)
