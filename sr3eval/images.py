"""The one image convention: RGB, [3, H, W], float32 in [0, 1] outside networks, [-1, 1] inside, 8-bit PNG on disk.

Only `to_uint8` goes from floats to 8 bit, and it rounds.
"""

import functools
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, IMAGELENGTH, IMAGEWIDTH, PHOTOMETRIC_INTERPRETATION, TiffImageFile
from torch import Tensor

from sr3eval.errors import UserError, out_of_memory
from sr3eval.files import File, atomic_write
from sr3eval.shards import Member

# Pillow tells whether these have 8 bits a channel; of others it makes 8, whatever they hold.
FORMATS = frozenset({"PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "TGA", "PCX", "QOI"})
GREY_16 = ("I;16", "I;16B", "I;16L")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # twice as many pixels are refused, by name
OVERSHOOT = 1e-3  # how far beyond [0, 1] an output may lie before its range is taken to be another one
Source = str | File
Size = tuple[int, int]  # (height, width) in pixels


def load(path: Source) -> Tensor:
    """Read an image as [3, H, W] float32 in [0, 1], upright (EXIF orientation applied).

    8-bit values lie on the grid k/255. Grey and palette images become RGB; 16-bit grey PNG and TIFF keep their
    precision (k/65535); an alpha channel is dropped where it is fully opaque; CMYK JPEGs (ImageNet has 22) become RGB
    without a colour profile, as in torchvision. Raises UserError for a missing, truncated or unreadable file, several
    frames, real transparency, other bit depths, formats that hide their depth (JPEG 2000, AVIF), CMYK in other formats,
    and other modes whose colours would have to be guessed.
    """
    with _opened(path) as opened:
        _check_frames(opened, path)
        _read_exif(opened)
        image = ImageOps.exif_transpose(opened)
    try:
        return _to_rgb(image, path)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise _too_large(path, image.size) from None


@contextmanager
def _opened(path: Source) -> Iterator[ImageFile.ImageFile]:
    """The file, header read and depth checked; a damaged file makes Pillow's decoders raise nearly anything."""
    try:
        with Image.open(path if isinstance(path, str | Path) else path.open("rb")) as image:
            _check_depth(image, path)
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million"
        raise UserError(f"{path}: has more than {most} pixels; cut it into parts") from None
    except MemoryError:
        raise _too_large(path, image.size) from None
    except Exception as error:
        raise UserError(f"{path}: not a readable image ({str(error) or type(error).__name__})") from None


def _too_large(path: Source, size: tuple[int, int]) -> UserError:
    width, height = size
    return UserError(f"{path}: {width}x{height} pixels, for which memory does not suffice; cut it into parts")


def _check_frames(image: ImageFile.ImageFile, path: Source) -> None:
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":  # a camera's photograph, followed by its previews
        raise UserError(f"{path}: has {count} frames or pages; save the one to use as a separate file")


def _check_depth(image: ImageFile.ImageFile, path: Source) -> None:
    """Refuse what Pillow, without a word, cuts to 8 bit or reads on a scale other than k/255 or k/65535."""
    if image.format not in FORMATS:
        hidden = f"{image.format} is not supported, since its bit depth cannot be told"
        raise UserError(f"{path}: {hidden}; save it as 8-bit PNG")
    if image.mode == "CMYK" and image.format not in ("JPEG", "MPO"):
        raise UserError(f"{path}: colour mode CMYK is only read from JPEG files; save it as RGB")
    if not _is_8_bit_or_grey_16(image):
        raise UserError(f"{path}: neither 8-bit colour nor 8- or 16-bit grey; save it as 8-bit PNG")


def _is_8_bit_or_grey_16(image: ImageFile.ImageFile) -> bool:
    if isinstance(image, TiffImageFile):
        bits, black_is_zero = max(image.tag_v2.get(BITSPERSAMPLE, (1,))), image.tag_v2.get(PHOTOMETRIC_INTERPRETATION)
        return bits <= 8 or (bits == 16 and image.mode in GREY_16 and bool(black_is_zero))
    if image.format == "PPM":
        codec, *_, arguments = image.tile[0]
        return image.mode == "1" or (image.mode in ("L", "RGB") and (codec == "raw" or arguments == (image.mode, 255)))
    return image.format != "PNG" or image.mode in GREY_16 or ";16" not in str(image.tile)


def _read_exif(image: ImageFile.ImageFile) -> Image.Exif:
    """What the file says before its pixels. Pillow keeps it, so that `load` and `header_size` turn an image alike."""
    return Image.Image.getexif(image)  # PngImageFile's own would decode the pixels to look behind them too


def _to_rgb(image: Image.Image, path: Source) -> Tensor:
    if image.mode in GREY_16:
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 65535).expand(3, -1, -1).clone()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema()[0] != 255:
            raise UserError(f"{path}: has transparent pixels; flatten it onto a background first")
        image = rgba
    elif image.mode not in ("RGB", "L", "P", "1", "CMYK"):
        raise UserError(f"{path}: colour mode {image.mode} is not supported; save it as RGB")
    return from_uint8(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def header_size(path: Source) -> Size:
    """(height, width) in pixels as `load` returns it, read from the file's header alone, or from a shard's index."""
    if isinstance(path, Member) and path.pixels is not None:
        return path.pixels
    with _opened(path) as image:
        width, height = image.size
        sideways = _read_exif(image).get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        if isinstance(image, TiffImageFile):  # whose `size` is upright already in some releases of Pillow
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return (width, height) if sideways else (height, width)


def save(path: str | Path, image: Tensor) -> None:
    """Write [3, H, W], uint8 or float in [0, 1], as an 8-bit RGB PNG: whole or not at all."""
    atomic_write(Path(path), encode_png(image))


def encode_png(image: Tensor, level: int = 6) -> bytes:
    """Encode [3, H, W], uint8 or float in [0, 1], as PNG. level: zlib's, from 1 (fast) to 9 (small)."""
    pixels = image if image.dtype == torch.uint8 else to_uint8(image)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def to_uint8(image: Tensor) -> Tensor:
    """[0, 1] floats to 8 bit: clamped, rounded to the nearest level."""
    return image.clamp(0, 1).mul(255).round().to(torch.uint8)


def from_uint8(image: Tensor) -> Tensor:
    """8 bit to float32 in [0, 1]."""
    return image.to(torch.float32, copy=True).div_(255)


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


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink or enlarge [N, 3, H, W] to `size` = (h, w) with the same kernel, antialiased where it shrinks."""
    return _bicubic(images, size)


def _bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == tuple(size):
        return images.clone()
    # antialias=True is what selects a = -0.5 in torch; enlarging needs no low-pass and gets none.
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


def pillow_bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, 3, h, w] in [0, 1] to [N, 3, H, W]: rounded to 8 bit and resized by Pillow, to 8 bit again."""
    height, width = size
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    resized = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in pixels]
    return from_uint8(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous())


def area_down(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink [..., H, W] to `size` = (h, w): each output pixel is the mean over its exact, fractional footprint.

    Equals block averaging for whole factors, and OpenCV's INTER_AREA and TensorFlow's area resize otherwise.
    """
    return _mean_rows(_mean_rows(image, size[0]).mT, size[1]).mT.contiguous()


def _mean_rows(image: Tensor, target: int) -> Tensor:
    """[..., H, W] to [..., target, W]: a weighted sum of the few rows in each footprint."""
    rows, shares = _footprints(image.shape[-2], target)
    rows, shares, image = rows.to(image.device), shares.to(image), image.contiguous()
    total = image.index_select(-2, rows[:, 0]) * shares[:, :1]
    for row, share in zip(rows.T[1:], shares.T[1:], strict=True):
        total.addcmul_(image.index_select(-2, row), share[:, None])
    return total


@functools.lru_cache(maxsize=64)
def _footprints(length: int, target: int) -> tuple[Tensor, Tensor]:
    """The input pixels of each output pixel, [target, K] int64, and their shares, which sum to 1; some may be 0."""
    step = length / target
    start = torch.arange(target, dtype=torch.float64)[:, None] * step
    count = min(length, math.ceil(step) + 1)
    pixels = start.floor().long().clamp(max=length - count) + torch.arange(count)
    overlap = torch.minimum(start + step, pixels + 1) - torch.maximum(start, pixels)
    return pixels, overlap.clamp(min=0) / step


def center_square(image: Tensor, side: int | None = None) -> Tensor:
    """The central square of [3, H, W] with that side, by default the largest one."""
    height, width = image.shape[-2:]
    side = side or min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]
