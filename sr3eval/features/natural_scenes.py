"""Statistics of natural scenes, which NIQE and BRISQUE share: normalised luminance and the distribution of it."""

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS, SIGMA = 7, 7 / 6
SHAPES = torch.arange(200, 10001, dtype=torch.float64) / 1000  # in which the release looks for the exponent
FLAT = 1e-9  # levels of 255
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (down, right): horizontal, vertical, and the two diagonals


def normalised(image: Tensor, constant: float, padding: str) -> Tensor:
    """Mean-subtracted, contrast-normalised [N, 1, H, W] (Mittal et al. 2012, eq. 1-3), beyond the border as F.pad does.

    constant: C, one level of 255 in the unit of the image. Flat areas are zero, not rounding errors of either sign.
    Sums are of float64 and rounded to the image's type, as SciPy's are: on nearly flat areas the type shows.
    """
    mean = _blur(image, padding)
    deviation = (_blur(image.square(), padding) - mean.square()).abs().sqrt()
    return F.hardshrink(image - mean, FLAT * constant) / (deviation + constant)


def _blur(image: Tensor, padding: str) -> Tensor:
    """The Gaussian window, one dimension after the other."""
    blurred = image.double()
    offsets = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
    window = torch.softmax(-offsets.square() / (2 * SIGMA**2), dim=0).tolist()
    for dim in (-2, -1):
        side = image.shape[dim]
        padded = F.pad(blurred, [TAPS // 2 if dim == d else 0 for d in (-1, -1, -2, -2)], mode=padding)
        blurred = sum(weight * padded.narrow(dim, tap, side) for tap, weight in enumerate(window))
    return blurred.to(image)


def products(values: Tensor, wrap: bool) -> list[Tensor]:
    """Products of neighbours of [N, 1, H, W], by direction: [N, n] each. wrap: the border's neighbours are opposite."""
    rolled = [values * values.roll(shift, dims=(-2, -1)) for shift in NEIGHBOURS]
    if wrap:
        return [product.flatten(1) for product in rolled]
    columns = values.shape[-1]
    return [
        product[..., down:, max(right, 0) : columns + min(right, 0)].flatten(1)
        for product, (down, right) in zip(rolled, NEIGHBOURS, strict=True)
    ]


def asymmetric(values: Tensor, interpolate: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The asymmetric generalised Gaussian of [N, n] values by moments: (shape, left, right deviation), [N] each.

    Lasmar et al. 2009, as in Mittal et al. 2012 (eq. 8-14). The shape is the nearest of SHAPES, or interpolated
    between them. Where no value is negative, or none positive, deviations are NaN and the shape is the first.
    """
    values = values.double()
    left, right = (_deviation(values, side) for side in (values < 0, values > 0))
    skew = left / right
    ratio = values.abs().mean(dim=1).square() / values.square().mean(dim=1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    table = moment_ratio(SHAPES)
    if not interpolate:
        return SHAPES[(table - ratio[:, None]).abs().argmin(dim=1)], left, right
    above = torch.searchsorted(table, ratio.contiguous()).clamp(1, len(table) - 1)
    share = (ratio - table[above - 1]) / (table[above] - table[above - 1])
    return SHAPES[above - 1].lerp(SHAPES[above], share.clamp(0, 1)), left, right


def _deviation(values: Tensor, chosen: Tensor) -> Tensor:
    """Root mean square of the chosen ones of [N, n]; NaN where there is none."""
    return ((values.square() * chosen).sum(dim=1) / chosen.sum(dim=1)).sqrt()


def moment_ratio(shape: Tensor) -> Tensor:
    """(E|x|)^2 / E[x^2] of a generalised Gaussian of that shape; it grows with it."""
    return (2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape)).exp()


def width(shape: Tensor) -> Tensor:
    """The scale parameter of a generalised Gaussian of that shape and deviation 1."""
    return ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()


def mean(shape: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Of an asymmetric generalised Gaussian (Mittal et al. 2012, eq. 15)."""
    return (right - left) * width(shape) * (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
