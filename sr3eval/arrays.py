"""Images that were saved as arrays: .npy files of NumPy, .pt files of PyTorch."""

import io

import numpy as np
import torch
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.images import OVERSHOOT, from_uint8

SUFFIXES = frozenset({".npy", ".pt"})


def load(path: File) -> Tensor:
    """Read [3, H, W] or [H, W, 3], uint8 or floats in [0, 1], as [3, H, W] float32 in [0, 1].

    Raises UserError for an unreadable file, and for arrays of another shape, type or range. No pickled code is run.
    """
    array = _read(path)
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[2]):
        raise UserError(f"{path}: has the shape {tuple(array.shape)}, neither [3, H, W] nor [H, W, 3]")
    image = array if array.shape[0] == 3 else array.permute(2, 0, 1).contiguous()
    if image.dtype == torch.uint8:
        return from_uint8(image)
    if not image.is_floating_point():
        raise UserError(f"{path}: holds {image.dtype}, neither uint8 nor floats in [0, 1]")
    low, high = float(image.min()), float(image.max())
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # NaN is in no range
        raise UserError(f"{path}: floats in [{low:.3g}, {high:.3g}]; they must be in [0, 1] (clamp overshoots)")
    return image.float()


def _read(path: File) -> Tensor:
    try:
        with path.open("rb") as file:
            content = io.BytesIO(file.read())
        if path.suffix.lower() == ".npy":
            return torch.from_numpy(np.load(content, allow_pickle=False))
        found = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise nearly anything for what they cannot read
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: not a readable array ({reason})") from None
    if not isinstance(found, Tensor):
        raise UserError(f"{path}: holds a {type(found).__name__}, not a tensor")
    return found.detach()
