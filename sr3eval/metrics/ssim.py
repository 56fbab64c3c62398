"""Structural similarity (Wang et al. 2004)."""

import functools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.metrics import Convention, PerImage
from sr3eval.metrics._plane import Channel, identity, plane

TAPS, SIGMA = 11, 1.5
TILE = 64
C1, C2 = 0.01**2, 0.03**2  # for a data range of 1


def ssim(sr: Tensor, hr: Tensor) -> Tensor:
    """Structural similarity: Gaussian 11x11 window of sigma 1.5, valid area, mean over channels.

    Equals `tf.image.ssim`, and scikit-image's with gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1 over the area where the window fits.

    Args:
        sr: outputs, [N, C, H, W] in [0, 1].
        hr: references, of the same shape.

    Returns:
        [N], at most 1; may be negative.

    Raises:
        UserError: images smaller than the window.
    """
    if min(sr.shape[-2:]) < TAPS:
        raise UserError(f"ssim: {sr.shape[-1]}x{sr.shape[-2]} images are smaller than its {TAPS}x{TAPS} window")
    # Plane by plane, which stays in the processor's cache.
    planes = zip(sr.flatten(0, 1), hr.flatten(0, 1), strict=True)
    return torch.stack([_ssim_plane(*pair) for pair in planes]).view(sr.shape[:2]).mean(dim=1)


def _ssim_plane(sr: Tensor, hr: Tensor) -> Tensor:
    """SSIM of two planes [H, W], band by band: what is in work fits the processor's cache, and memory stays bounded."""
    return torch.stack([part.sum() for part in bands(sr, hr)]).sum() / math.prod(side - TAPS + 1 for side in sr.shape)


def bands(sr: Tensor, hr: Tensor) -> Iterator[Tensor]:
    """SSIM about every pixel of two planes [H, W] whose window fits: [up to TILE, W - 10] after one another."""
    center = hr.mean()
    for pair in zip(_tiles(sr, 0), _tiles(hr, 0), strict=True):
        yield _ssim_map(*pair, center)


def _ssim_map(sr: Tensor, hr: Tensor, center: Tensor) -> Tensor:
    """SSIM about every pixel whose window fits, of a band of planes whose mean is about `center`."""
    # With s = x + y and d = x - y: 2 cov(x, y) = (var s - var d) / 2 and var x + var y = (var s + var d) / 2, and
    # likewise for the means. Where the images agree, float32 rounding of the large s then cancels; so it does on flat
    # areas with s taken about its mean. And there are four maps to blur, not five.
    s, d = sr + hr - 2 * center, sr - hr
    mean_s, mean_d, ss, dd = _blur(torch.stack([s, d, s * s, d * d]))
    var_s, var_d = ss - mean_s**2, dd - mean_d**2
    square_s, square_d = (mean_s + 2 * center) ** 2, mean_d**2
    luminance = (square_s - square_d + 2 * C1) / (square_s + square_d + 2 * C1)
    structure = (var_s - var_d + 2 * C2) / (var_s + var_d + 2 * C2)
    return luminance * structure


def _blur(band: Tensor) -> Tensor:
    """Gaussian window over the last two dimensions, valid area: [N, H, W] to [N, H - 10, W - 10].

    As products with band matrices, tile by tile: on CPUs several times faster than convolutions of one channel.
    """
    rows = _window(band.shape[1]).to(band) @ band
    return torch.cat([tile @ _window(tile.shape[2]).to(tile).T for tile in _tiles(rows, 2)], dim=2)


def _tiles(images: Tensor, dim: int) -> list[Tensor]:
    """Overlapping parts along a dimension, each of which gives up to TILE blurred rows or columns."""
    outputs = images.shape[dim] - TAPS + 1
    return [images.narrow(dim, i, min(TILE, outputs - i) + TAPS - 1) for i in range(0, outputs, TILE)]


@functools.cache
def _window(length: int) -> Tensor:
    """[length - 10, length] float64: row i holds the Gaussian window at columns i to i + 10."""
    offsets = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
    window = torch.softmax(-(offsets**2) / (2 * SIGMA**2), dim=0)
    return torch.stack([F.pad(window, (i, length - TAPS - i)) for i in range(length - TAPS + 1)])


def build(*, channel: Channel = "rgb", border: int = 0) -> PerImage:
    """SSIM by any of the papers' conventions.

    Args:
        channel: "rgb"; "y", BT.601's luma, as BasicSR has it; "y8", rounded to 8 bit, as MATLAB's scripts and pyiqa
            have it: 0.001 less.
        border: pixels cut on each side.
    """
    name, variant, settings = identity("ssim", channel, border)
    settings = settings.replace(", mean", ", Gaussian 11x11 sigma 1.5, valid area, mean")
    return PerImage(
        Convention(name, "SSIM", higher_is_better=True, settings=settings, variant=variant, decimals=4),
        lambda batch: ssim(*(plane(images, channel, border) for images in batch.pair)),
    )
