"""Fréchet inception distance (Heusel et al. 2017)."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.linalg
import torch

from sr3eval.errors import UserError
from sr3eval.features.moments import Array, Moments
from sr3eval.features.networks import EFFICIENTNET_LITE0, INCEPTION, Network, Resize, efficientnet_lite0, inception
from sr3eval.features.statistics import Statistics, load_statistics
from sr3eval.metrics import Convention, SetMetric, leave_one_out
from sr3eval.metrics._sets import cut_as, of_patches

RELEASES = (INCEPTION, EFFICIENTNET_LITE0)

ROOT_ERROR = 1e-7  # relative: where rounding may do more to a sum of roots of eigenvalues, singular values are taken


def frechet_distance(mu1: Array, sigma1: Array, mu2: Array, sigma2: Array) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)) of two Gaussians.

    Args:
        mu1, mu2: means, [d], float64.
        sigma1, sigma2: covariances, [d, d]; they may be singular, as those of fewer images than dimensions are.

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """
    d = len(mu1)
    if mu1.shape != (d,) or mu2.shape != (d,) or sigma1.shape != (d, d) or sigma2.shape != (d, d):
        raise ValueError(f"shapes {mu1.shape}, {sigma1.shape}, {mu2.shape}, {sigma2.shape} do not fit")
    if not all(np.isfinite(a).all() for a in (mu1, sigma1, mu2, sigma2)):
        raise ValueError("means and covariances must be finite")
    difference = mu1 - mu2
    root = _trace_of_root(sigma1, sigma2)
    return float(difference @ difference + np.trace(sigma1) + np.trace(sigma2) - 2 * root)


def _trace_of_root(sigma1: Array, sigma2: Array) -> float:
    """tr((sigma1 sigma2)^(1/2)) = the sum of the singular values of L1^T L2, where sigma = L L^T."""
    # The squares of those singular values are the eigenvalues of L1^T sigma2 L1, which are cheaper.
    lower, singular = scipy.linalg.lapack.dpotrf(sigma1, lower=1)
    if not singular:
        symmetric, _ = scipy.linalg.lapack.dsygst(sigma2, lower, itype=2, lower=1)
        squares = torch.linalg.eigvalsh(torch.from_numpy(symmetric)).numpy()
        noise = np.finfo(np.float64).eps * squares[-1]  # of every eigenvalue; its effect on their roots must not matter
        if squares[0] > noise and noise * (squares**-0.5).sum() / 2 < ROOT_ERROR * np.sqrt(squares).sum():
            return float(np.sqrt(squares).sum())
    product = _root(sigma1).T @ _root(sigma2)
    return float(scipy.linalg.svdvals(product, check_finite=False).sum()) if product.size else 0.0


def _root(sigma: Array) -> Array:
    """L [d, rank] with L L^T = sigma, by Cholesky with pivoting."""
    packed, pivots, rank, _ = scipy.linalg.lapack.dpstrf(sigma, lower=1)
    root = np.empty((len(sigma), rank))
    root[pivots - 1] = np.tril(packed[:, :rank])
    return root


def frechet_distance_of_factors(mu1: Array, factor1: Array, mu2: Array, factor2: Array) -> float:
    """The same from factors F [N, d] with sigma = F^T F: exact and faster where N < d."""
    difference = mu1 - mu2
    root = scipy.linalg.svdvals(factor1 @ factor2.T, check_finite=False).sum()
    return float(difference @ difference + np.square(factor1).sum() + np.square(factor2).sum() - 2 * root)


class _Reference(Protocol):
    def factor(self) -> tuple[Array, Array] | None: ...

    def statistics(self) -> tuple[Array, Array]: ...


def distance(own: Moments, reference: _Reference) -> float:
    """Fréchet distance of summarised features."""
    factors = own.factor(), reference.factor()
    if factors[0] is not None and factors[1] is not None:
        return frechet_distance_of_factors(*factors[0], *factors[1])
    return frechet_distance(*own.statistics(), *reference.statistics())


def build(
    *, reference: str = "hr", patches: int | None = None, resize: Resize = "tf1", weights: str | None = None
) -> SetMetric:
    """FID against the HR images of the run ("hr"), or against statistics in an .npz file (say of a training set).

    Args:
        reference: "hr", or the file, of `benchmark.py statistics`, pytorch-fid or clean-fid; its id then is fid_FILE.
        patches: "patch FID", id fid_pSIDE: patches of that many pixels a side in place of whole images (see
            `networks.cut`), with those at the same places of HR as the reference.
        resize, weights: see `networks.inception`.
    """
    base = Convention(name="fid", label="FID", higher_is_better=False, settings="", decimals=2)
    return _metric(base, inception(weights, resize), reference, patches)


def build_fd_efficientnet_lite0(*, reference: str = "hr", patches: int | None = None) -> SetMetric:
    """Fréchet distance of EfficientNet-Lite0's pooled features (1280-d): not FID, but it needs no download.

    Args:
        reference, patches: as for `build`.
    """
    name, label = "fd_efficientnet_lite0", "FD, EfficientNet-Lite0"
    base = Convention(name=name, label=label, higher_is_better=False, settings="not FID: ", decimals=1)
    return _metric(base, efficientnet_lite0(), reference, patches)


def _metric(base: Convention, network: Network, reference: str, patches: int | None) -> SetMetric:
    statistics = None if reference == "hr" else _load_reference(base.name, Path(reference), network, patches)
    against = "HR of the same images" if statistics is None else statistics.description
    convention = replace(
        of_patches(base, patches),
        settings=f"{base.settings}{network.identity}{cut_as(patches)}; reference: {against}; biased upwards at small N",
        needs_hr=statistics is None,
    )
    if statistics is not None:
        stem = Path(reference).stem
        convention = replace(convention, name=f"{base.name}_{stem}", label=f"{base.label} ({stem})")
    features = functools.partial(network.pooled, patches=patches)
    evaluate = leave_one_out(distance, minimum=2)
    return SetMetric(convention, features, Moments, evaluate, fixed=statistics, patches=patches)


def _load_reference(name: str, path: Path, network: Network, patches: int | None) -> Statistics:
    if path.suffix != ".npz":
        raise UserError(
            f'{name}: reference = "{path}": "hr", or an .npz file, which '
            "`python benchmark.py statistics FOLDER --task TASK --out FILE.npz` makes of a folder"
        )
    if patches is not None:
        raise UserError(f"{name}: patches are compared with HR's: leave out either patches or reference")
    return load_statistics(path, network.identity, network.dimensions)
