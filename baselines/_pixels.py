"""What the adapters share in the handling of pixels: the releases' 8-bit rules."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

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
