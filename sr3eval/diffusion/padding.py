"""Images of any size through a network that needs multiples of some factor."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def padded(lr: Tensor, scale: int, factor: int, upscale: Callable[[Tensor, tuple[int, int]], Tensor]) -> Tensor:
    """Call upscale(lr, (H, W)) on lr [N, 3, h, w] with its last row and column repeated until `factor` divides H and W.

    Returns the [N, 3, h * scale, w * scale] part that belongs to the image.
    """
    height, width = lr.shape[-2:]
    step = factor // math.gcd(factor, scale)
    bottom, right = -height % step, -width % step
    enlarged = F.pad(lr, (0, right, 0, bottom), mode="replicate") if bottom or right else lr
    size = (scale * (height + bottom), scale * (width + right))
    return upscale(enlarged, size)[..., : height * scale, : width * scale]
