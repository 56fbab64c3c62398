"""Images of any size through a network that needs multiples of some factor."""

import math

import torch.nn.functional as F
from torch import Tensor


def pad(lr: Tensor, scale: int, factor: int) -> tuple[Tensor, tuple[int, int]]:
    """Repeat the last row and column of lr [N, 3, h, w] until `factor` divides its enlarged sides (H, W).

    Returns it with (H, W); of what comes out, [..., : h * scale, : w * scale] belongs to the image.
    """
    height, width = lr.shape[-2:]
    step = factor // math.gcd(factor, scale)
    bottom, right = -height % step, -width % step
    enlarged = F.pad(lr, (0, right, 0, bottom), mode="replicate") if bottom or right else lr
    return enlarged, (scale * (height + bottom), scale * (width + right))
