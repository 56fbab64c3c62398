"""Peak signal-to-noise ratio."""

import torch
from torch import Tensor

from sr3eval.metrics import PerImage, ceiling
from sr3eval.metrics._plane import Channel, identity, plane


def psnr(sr: Tensor, hr: Tensor) -> Tensor:
    """PSNR in dB, [N], of [N, C, H, W] in [0, 1]: -10 log10 of the mean square over channels and pixels.

    Identical images give inf, which counts as `CEILINGS` says in means. Equals scikit-image's with data_range=1 and
    `tf.image.psnr`.
    """
    # Image by image, which stays in the processor's cache.
    return torch.stack([-10 * (x - y).square().mean().log10() for x, y in zip(sr, hr, strict=True)])


def build(*, channel: Channel = "rgb", border: int = 0) -> PerImage:
    """PSNR of RGB or of luma ("y"), with `border` pixels cut on each side. Both are conventions of papers."""
    name, settings = identity("psnr", channel, border)
    settings += f", of at most {ceiling(name):.2f} dB an image"
    return PerImage(
        name,
        lambda b: psnr(plane(b.sr, channel, border).double(), plane(b.hr, channel, border).double()),
        True,
        settings,
    )
