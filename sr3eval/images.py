"""The one image convention: RGB, [3, H, W], float32 in [0, 1] outside networks, [-1, 1] inside, 8-bit PNG on disk.

Only `to_uint8` goes from floats to 8 bit, and it rounds.
"""

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.files import atomic_write

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".avif"}
)


def load(path: str | Path) -> Tensor:
    """Read an image as [3, H, W] float32 in [0, 1], upright (EXIF orientation applied).

    8-bit values lie on the grid k/255. Grey and palette images become RGB; 16-bit grey keeps its precision (k/65535);
    an alpha channel is dropped where it is fully opaque. Raises UserError for a missing, truncated or unreadable file,
    real transparency, CMYK, and other modes whose colours would have to be guessed.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            return _to_rgb(image, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


def _to_rgb(image: Image.Image, path: str | Path) -> Tensor:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        grey = np.asarray(image, dtype=np.float32) / 65535
        if grey.min() < 0 or grey.max() > 1:
            raise UserError(f"{path}: 32-bit values outside 0..65535; save it as 8- or 16-bit")
        return torch.from_numpy(grey).expand(3, -1, -1).clone()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema()[0] != 255:
            raise UserError(f"{path}: has transparent pixels; flatten it onto a background first")
        image = rgba
    elif image.mode not in ("RGB", "L", "P", "1"):
        raise UserError(f"{path}: colour mode {image.mode} is not supported; save it as RGB")
    return from_uint8(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def header_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels as `load` returns it, read from the file's header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from None
    return (width, height) if sideways else (height, width)


def save(path: str | Path, image: Tensor) -> None:
    """Write [3, H, W], uint8 or float in [0, 1], as an 8-bit RGB PNG: whole or not at all."""
    atomic_write(Path(path), encode_png(image))


def encode_png(image: Tensor) -> bytes:
    """Encode [3, H, W], uint8 or float in [0, 1], as PNG."""
    pixels = image if image.dtype == torch.uint8 else to_uint8(image)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def to_uint8(image: Tensor) -> Tensor:
    """[0, 1] floats to 8 bit: clamped, rounded to the nearest level."""
    return image.clamp(0, 1).mul(255).round().to(torch.uint8)


def from_uint8(image: Tensor) -> Tensor:
    """8 bit to float32 in [0, 1]."""
    return image.to(torch.float32).div(255)


def round_to_8bit(image: Tensor) -> Tensor:
    """[0, 1] floats onto the grid k/255, as a written and re-read PNG would be."""
    return from_uint8(to_uint8(image))


def to_signed(image: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], the range networks work in."""
    return image * 2 - 1


def from_signed(image: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], clamped."""
    return image.add(1).div(2).clamp(0, 1)


def bicubic_down(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink [N, 3, H, W] to `size` = (h, w): Keys' cubic with a = -0.5, antialiased, neither rounded nor clamped.

    The same function as Pillow's BICUBIC on float images and `tf.image.resize(antialias=True)`; it is the operator D
    of the consistency metric and makes every low-resolution input.
    """
    return _bicubic(images, size)


def bicubic_up(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge [N, 3, h, w] to `size` = (H, W) with the same kernel: overshoots are kept, clamp before saving."""
    return _bicubic(images, size)


def resize_square(images: Tensor, side: int) -> Tensor:
    """Shrink or enlarge [N, 3, H, W] to `side` x `side` with the same kernel, antialiased where it shrinks."""
    return _bicubic(images, (side, side))


def _bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == tuple(size):
        return images.clone()
    # antialias=True is what selects a = -0.5 in torch; enlarging needs no low-pass and gets none.
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


def area_down(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink [..., H, W] to `size` = (h, w): each output pixel is the mean over its exact, fractional footprint.

    Equals block averaging for whole factors, and OpenCV's INTER_AREA and TensorFlow's area resize otherwise.
    """
    rows = _area_weights(image.shape[-2], size[0]).to(image)
    columns = _area_weights(image.shape[-1], size[1]).to(image)
    return rows @ image @ columns.T


def _area_weights(length: int, target: int) -> Tensor:
    """[target, length] matrix of each input pixel's share in each output pixel; rows sum to 1."""
    step = length / target
    start = torch.arange(target, dtype=torch.float64)[:, None] * step
    pixel = torch.arange(length, dtype=torch.float64)[None, :]
    overlap = torch.minimum(start + step, pixel + 1) - torch.maximum(start, pixel)
    return overlap.clamp(min=0) / step


def center_square(image: Tensor, side: int | None = None) -> Tensor:
    """The central square of [3, H, W] with that side, by default the largest one."""
    height, width = image.shape[-2:]
    side = side or min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]
