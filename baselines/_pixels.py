"""What the adapters share in the handling of pixels: 8-bit rules and resizes of the releases, and tiles."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.images import from_uint8, to_uint8
from sr3eval.method import Progress

Quantize = Literal["official", "none"]


def check_tiles(tile: int | None, overlap: int) -> None:
    """UserError for sizes that `tiled` cannot work with."""
    if (tile is not None and tile < 1) or overlap < 0:
        raise UserError(f"tile = {tile}, overlap = {overlap}: must be positive, and not negative")


def tiled(
    upscale: Callable[[Tensor], Tensor],
    lr: Tensor,
    scale: int,
    tile: int | None,
    overlap: int,
    progress: Progress | None = None,
) -> Tensor:
    """upscale(lr) of [N, 3, h, w] in tiles of `tile` pixels of input, each with `overlap` more on every inner side.

    None takes the image whole. The result equals that where the network's receptive field ends within the overlap.
    """
    height, width = lr.shape[-2:]
    if tile is None or (height <= tile and width <= tile):
        return upscale(lr)
    check_tiles(tile, overlap)
    out = lr.new_empty(len(lr), 3, height * scale, width * scale)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y0, x0 = max(0, top - overlap), max(0, left - overlap)
            bottom, right = min(height, top + tile), min(width, left + tile)
            part = upscale(lr[..., y0 : bottom + overlap, x0 : right + overlap])
            y, x = (top - y0) * scale, (left - x0) * scale
            inner = part[..., y : y + (bottom - top) * scale, x : x + (right - left) * scale]
            out[..., top * scale : bottom * scale, left * scale : right * scale] = inner
            if progress:
                progress((top * width + (bottom - top) * right) / (height * width))
    return out


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
