"""Peak signal-to-noise ratio."""

import math

import torch
from torch import Tensor

from sr3eval.metrics import Convention, PerImage
from sr3eval.metrics._plane import Channel, identity, plane

# That of an error of half a grey level, the least that 8-bit pictures can tell, in dB: identical pictures have it in
# means instead of infinity, and none is better than they are.
CEILING = -20 * math.log10(0.5 / 255)
ROWS = 64  # of a band


def psnr(sr: Tensor, hr: Tensor) -> Tensor:
    """Peak signal-to-noise ratio: -10 log10 of the mean square over channels and pixels.

    Equals scikit-image's with data_range=1 and `tf.image.psnr`.

    Args:
        sr: outputs, [N, C, H, W] in [0, 1].
        hr: references, of the same shape.

    Returns:
        [N] in dB; identical images give inf, which counts as CEILING in means.
    """
    return _decibels(sr, hr).to(sr.dtype)


def _decibels(sr: Tensor, hr: Tensor) -> Tensor:
    """`psnr` in float64."""
    return -10 * torch.stack([_mean_square(*pair) for pair in zip(sr, hr, strict=True)]).log10()


def _mean_square(sr: Tensor, hr: Tensor) -> Tensor:
    """Of the differences of two images [C, H, W], in float64 band by band, which stays in the processor's cache."""
    bands = zip(sr.split(ROWS, dim=1), hr.split(ROWS, dim=1), strict=True)
    return torch.stack([(x.double() - y.double()).square().sum() for x, y in bands]).sum() / sr.numel()


def build(*, channel: Channel = "rgb", border: int = 0) -> PerImage:
    """PSNR by any of the papers' conventions.

    Args:
        channel: "rgb"; "y", BT.601's luma, as BasicSR and pyiqa have it; "y8", rounded to 8 bit, as MATLAB's scripts.
        border: pixels cut on each side.
    """
    name, variant, settings = identity("psnr", channel, border)
    return PerImage(
        Convention(
            name=name,
            label="PSNR",
            variant=variant,
            higher_is_better=True,
            settings=f"{settings}, of at most {CEILING:.2f} dB an image",
            unit="dB",
            decimals=2,
            ceiling=CEILING,
        ),
        lambda batch: _decibels(*(plane(images, channel, border) for images in batch.pair)),
    )
