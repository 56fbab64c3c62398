"""MATLAB's conventions, by which the classic super-resolution literature is measured: `imresize` and the luma.

As in MATLAB, what comes back is of the type that went in. Of 8-bit images `imresize` rounds twice, which shows: where
BasicSR's port, of floats, is rounded once at the end, one value in ten (x4) to seven (x2) differs by a level.
Checked against files that MATLAB wrote: Set5 x2, x3 and x4 of SwinIR's release and the test image of fatheral's
matlab_imresize equal this to the last level, and the float images of xinntao's matlab_functions_verification but for
ties (46 of 3.1 million values).
"""

import math

import torch
from torch import Tensor

from sr3eval.errors import UserError

WIDTH = 4  # of the cubic kernel, in pixels


def imresize(images: Tensor, scale: float | tuple[int, int]) -> Tensor:
    """Resize [..., C, H, W] by a factor, to sides of ceil(scale * side), or to (h, w), as MATLAB's imresize does.

    Keys' cubic with a = -0.5, stretched by 1 / scale where it shrinks; beyond its border the image is mirrored. Floats,
    in [0, 1] by our convention, are computed in float64 and neither rounded nor clamped. 8-bit images are rounded
    (halves up) and clamped after each pass: the dimension that shrinks more goes first, rows where both are alike.
    Raises UserError for a scale or a size that is not positive.
    """
    height, width = images.shape[-2:]
    scales = (scale[0] / height, scale[1] / width) if isinstance(scale, tuple) else (scale, scale)
    if not all(0 < factor < math.inf for factor in scales):
        raise UserError(f"imresize: {scale} is not positive")
    size = scale if isinstance(scale, tuple) else (math.ceil(scale * height), math.ceil(scale * width))
    rows, columns = (_weights(*line).to(images.device) for line in zip(images.shape[-2:], size, scales, strict=True))
    # Plane by plane, which needs little memory and stays in the processor's cache.
    first = _rows_first if scales[0] <= scales[1] else _columns_first
    planes = [first(plane, rows, columns).to(images.dtype) for plane in images.flatten(0, -3)]
    return torch.stack(planes).unflatten(0, images.shape[:-2])


def _rows_first(plane: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _pass(columns, _pass(rows, plane).T).T


def _columns_first(plane: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _pass(rows, _pass(columns, plane.T).T)


def _pass(weights: Tensor, lines: Tensor) -> Tensor:
    """Resize the first dimension: float64, or 8 bit of 8-bit lines."""
    resized = weights @ lines.double().contiguous()
    return _to_8bit(resized) if lines.dtype == torch.uint8 else resized


def _weights(length: int, target: int, scale: float) -> Tensor:
    """[target, length], sparse: each input pixel's weight in each output pixel; rows sum to 1."""
    shrink = min(scale, 1.0)
    # Pixel centres: output pixel x, counted from 0, lies at (x + 0.5) / scale - 0.5 of the input.
    centre = (torch.arange(target, dtype=torch.float64)[:, None] + 0.5) / scale - 0.5
    taps = torch.arange(math.ceil(WIDTH / shrink) + 2)
    position = (centre - WIDTH / shrink / 2).floor().long() + taps
    weights = _cubic(shrink * (centre - position))
    weights /= weights.sum(dim=1, keepdim=True)
    mirrored = position.remainder(2 * length)
    column = torch.minimum(mirrored, 2 * length - 1 - mirrored)
    row = torch.arange(target)[:, None].expand_as(column)
    index = torch.stack([row.flatten(), column.flatten()])
    return torch.sparse_coo_tensor(index, weights.flatten(), (target, length), check_invariants=True).coalesce()


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel (1981, eq. 15), whose a is -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))


def luma(images: Tensor) -> Tensor:
    """BT.601 luma in 16..235 of 255, [..., 1, H, W] of [..., 3, H, W]: the first channel of MATLAB's rgb2ycbcr.

    Of floats, in [0, 1], it is not rounded: so is BasicSR's evaluation. Of 8-bit images it is 8 bit, as in MATLAB.
    """
    if images.dtype == torch.uint8:
        return to_8bit(luma(images.double() / 255))
    r, g, b = images.unbind(dim=-3)
    return ((65.481 * r + 128.553 * g + 24.966 * b + 16) / 255).unsqueeze(-3)


def to_8bit(images: Tensor) -> Tensor:
    """[0, 1] floats to 8 bit as MATLAB rounds: halves go up, where `images.to_uint8` takes the even level."""
    return _to_8bit(images * 255)


def _to_8bit(levels: Tensor) -> Tensor:
    return levels.add(0.5).floor().clamp(0, 255).to(torch.uint8)
