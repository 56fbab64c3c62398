"""What the adapters share in the handling of pixels: 8-bit rules and resizes of the releases."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sr3eval.images import from_uint8, to_uint8

Quantize = Literal["official", "none"]


def on_official_grid(images: Tensor, quantize: Quantize, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """Outputs as the release writes them ("official", by its rule), or the clamped floats ("none")."""
    return rule(images) if quantize == "official" else torch.clamp(images, 0, 1)


def truncate_to_8bit(images: Tensor) -> Tensor:
    """[0, 1] onto the 8-bit grid by dropping the fraction, as releases do that cast to integers without rounding."""
    return (images.clamp(0, 1) * 255).floor() / 255


def half_up(images: Tensor) -> Tensor:
    """[0, 1] floats, clamped, onto the grid k/255 as SciPy's toimage: + 0.5, fraction dropped.

    Differs from `images.round_to_8bit` at exact halves alone, which go up here and to the even level there.
    """
    return images.clamp(0, 1).mul(255).add(0.5).floor().div(255)


def pillow_bicubic(lr: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, 3, h, w] in [0, 1] to [N, 3, H, W]: rounded to 8 bit and resized by Pillow, to 8 bit again."""
    pixels = to_uint8(lr).permute(0, 2, 3, 1).numpy()
    height, width = size
    images = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in pixels]
    return from_uint8(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous())
