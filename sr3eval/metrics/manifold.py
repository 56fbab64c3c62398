"""Improved precision and recall (Kynkäänniemi et al. 2019): shares of one set that lie in the manifold of the other."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr3eval.features.networks import INCEPTION, Network, Resize, inception
from sr3eval.features.rows import LIMIT, Rows
from sr3eval.metrics import Convention, SetMetric
from sr3eval.metrics._sets import Value

RELEASES = (INCEPTION,)

NEIGHBOURS = 3  # the paper's k


def coverage(points: Tensor, manifold: Tensor) -> float:
    """Share of `points` [N, d] within the distance of the third neighbour of at least one row of `manifold` [M, d].

    Eq. 1 of the paper; precision and recall (eq. 2 and 3) are this with outputs and HR in either role.
    """
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


def build_precision(*, resize: Resize = "tf1", weights: str | None = None) -> SetMetric:
    """Improved precision against the HR images of the run, the share of outputs that look like some HR image.

    Args:
        resize, weights: see `networks.inception`.
    """
    return _metric("precision", "outputs within HR's manifold", evaluate, inception(weights, resize))


def build_recall(*, resize: Resize = "tf1", weights: str | None = None) -> SetMetric:
    """Improved recall against the HR images of the run, the share of HR images that look like some output.

    Args:
        resize, weights: see `networks.inception`.
    """

    def swapped(own: Mapping[str, Rows], reference: Mapping[str, Rows]) -> Value:
        return evaluate(reference, own)

    return _metric("recall", "HR images within the outputs' manifold", swapped, inception(weights, resize))


def _metric(name: str, share: str, score: Callable[[Any, Any], Value], network: Network) -> SetMetric:
    settings = (
        f"share of {share}, {NEIGHBOURS} neighbours, {network.identity}; at most {LIMIT} images a jackknife block; "
        "reference: HR of the same images"
    )
    convention = Convention(name=name, label=name.capitalize(), higher_is_better=True, settings=settings)
    return SetMetric(convention, network.pooled, Rows, score, minimum=NEIGHBOURS + 1)
