"""The conventions by which papers compute PSNR and SSIM of the same pictures, all of them tried at once.

What is searched, most common first: which channels (RGB, Y of BT.601 as MATLAB has it, unrounded or 8 bit, luma of the
full range as JPEG, Pillow and OpenCV have it, scikit-image's grey, Y of channels taken in the wrong order); how many
border pixels are cut; whether images are cut to a multiple of 8; whether PSNR is the mean over images or that of the
mean square error; and the window of SSIM.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sr3eval.matlab import luma
from sr3eval.metrics.ssim import C1, C2, TAPS, bands

UNIFORM = 7  # pixels, side of scikit-image's window
SHRUNK = 256  # pixels, to about which the shorter side is shrunk
MULTIPLE = 8


def _weighted(*weights: float) -> Callable[[Tensor], Tensor]:
    """A luma of [3, H, W]: [1, H, W]."""
    return lambda image: torch.tensor(weights, dtype=image.dtype).view(3, 1, 1).mul(image).sum(0, keepdim=True)


def _rounded(image: Tensor) -> Tensor:
    """To 8 bit; halves, which these lumas rarely have, go up."""
    return image.mul(255).add(0.5).floor().div(255)


_FULL = _weighted(0.299, 0.587, 0.114)
# Of [3, H, W] in [0, 1], float64.
CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "Y (BT.601, 16-235)": luma,
    "RGB": lambda image: image,
    "Y (BT.601, 16-235) rounded to 8 bit": lambda image: _rounded(luma(image)),
    "luma of the full range": _FULL,
    "luma of the full range rounded to 8 bit": lambda image: _rounded(_FULL(image)),
    "grey by scikit-image's rgb2gray": _weighted(0.2125, 0.7154, 0.0721),
    "Y (BT.601, 16-235) of BGR taken for RGB": lambda image: luma(image.flip(0)),
}
POOLINGS = ("mean over images", "of the mean square error over all images", "mean over channels and images")


def borders(scale: int) -> tuple[int, ...]:
    """Pixels that papers cut: the scale, nothing, EDSR's scale + 6 of DIV2K, twice the scale."""
    return tuple(dict.fromkeys((scale, 0, scale + 6, 2 * scale)))


class Region(NamedTuple):
    """Which pixels of which channels are compared. kernel: of the inputs; inputs as the run has them: ""."""

    kernel: str
    channel: str
    border: int
    multiple: int = 1  # sides are cut to one of it, at the right and the bottom

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of an image of that size."""
        return tuple(slice(self.border, side - side % self.multiple - self.border) for side in (height, width))  # type: ignore[return-value]

    def of(self, planes: Tensor) -> Tensor:
        """The part of [C, H, W]."""
        rows, columns = self.box(*planes.shape[-2:])
        return planes[..., rows, columns]

    def __str__(self) -> str:
        parts = [self.channel, f"border {self.border} px"]
        parts += [f"sides cut to a multiple of {self.multiple}"] if self.multiple > 1 else []
        return ", ".join([*parts, *([f"inputs by {self.kernel}"] if self.kernel else [])])


def regions(kernels: Sequence[str], scale: int) -> Iterator[Region]:
    """All of them, the most common first."""
    for kernel in kernels:
        for multiple in (1, MULTIPLE):
            for channel in CHANNELS:
                yield from (Region(kernel, channel, border, multiple) for border in borders(scale))


def pooled_psnr(errors: Sequence[Tensor], pooling: str) -> float:
    """dB of the mean square errors of each image [C]."""
    images = torch.stack([error.mean() for error in errors])
    if pooling == POOLINGS[1]:
        return _decibels(images.mean())
    if pooling == POOLINGS[2]:
        return sum(_decibels(channel) for error in errors for channel in error) / sum(map(len, errors))
    return sum(map(_decibels, images)) / len(images)


def _decibels(error: Tensor) -> float:
    return -10 * math.log10(max(float(error), 1e-12))


WINDOWS = (
    "Gaussian 11x11, valid area",
    "uniform 7x7 (scikit-image's default)",
    "Gaussian 11x11, whole area (MATLAB's ssim)",
    "Gaussian 11x11 of images shrunk to about 256 px (Wang's script, piq)",
    "uniform 7x7 of data_range 2 (scikit-image's mistake with floats)",
)


class Pair:
    """Planes of an output and its reference, [C, H, W] in [0, 1], which many regions and windows ask for."""

    def __init__(self, sr: Tensor, hr: Tensor) -> None:
        self.sr, self.hr = sr, hr

    def error(self, region: Region) -> Tensor:
        """Mean square error of each channel, [C]."""
        rows, columns = region.box(*self.hr.shape[-2:])
        sums = self._sums
        total = sums[:, rows.stop, columns.stop] - sums[:, rows.start, columns.stop]
        total = total - sums[:, rows.stop, columns.start] + sums[:, rows.start, columns.start]
        return total / ((rows.stop - rows.start) * (columns.stop - columns.start))

    @functools.cached_property
    def _sums(self) -> Tensor:
        """Of squares above and left of each pixel, [C, H + 1, W + 1]."""
        return F.pad((self.sr - self.hr).double().square().cumsum(-1).cumsum(-2), (1, 0, 1, 0))

    def ssim(self, region: Region, window: str) -> float:
        """The mean over channels, computed in float32."""
        match WINDOWS.index(window):
            case 0:
                return float(_inside(region, self._gaussian, TAPS // 2, self.hr).mean())
            case 1 | 4 as which:
                return float(_inside(region, self._uniform[which // 4], UNIFORM // 2, self.hr).mean())
            case 2:
                return self._whole(region)
            case _:
                factor = max(1, round(min(region.of(self.hr).shape[-2:]) / SHRUNK))
                if factor == 1:
                    return self.ssim(region, WINDOWS[0])
                return float(
                    _gaussian(*(F.avg_pool2d(region.of(image)[None], factor)[0] for image in self._both)).mean()
                )

    def _whole(self, region: Region) -> float:
        """Of the Gaussian window about every pixel, the image continued by its border: its rim and what is within."""
        margin = TAPS // 2
        sr, hr = (F.pad(region.of(image)[None], [margin] * 4, mode="replicate")[0] for image in self._both)
        within = slice(margin, -margin)
        rim = [
            _gaussian(sr[:, rows, columns], hr[:, rows, columns])
            for rows, columns in (
                (slice(3 * margin), slice(None)),
                (slice(-3 * margin, None), slice(None)),
                (within, slice(3 * margin)),
                (within, slice(-3 * margin, None)),
            )
        ]
        total = sum(float(part.sum()) for part in (*rim, _inside(region, self._gaussian, margin, self.hr)))
        return total / region.of(self.hr).numel()

    @functools.cached_property
    def _both(self) -> tuple[Tensor, Tensor]:
        return self.sr.float(), self.hr.float()

    @functools.cached_property
    def _gaussian(self) -> Tensor:
        return _gaussian(*self._both)

    @functools.cached_property
    def _uniform(self) -> tuple[Tensor, Tensor]:
        """With the constants of the data range 1, and those of 2; with the sample's covariance."""
        sr, hr = self._both
        moments = F.avg_pool2d(torch.stack([sr, hr, sr * sr, hr * hr, sr * hr]), (UNIFORM, 1), stride=1)
        x, y, xx, yy, xy = F.avg_pool2d(moments, (1, UNIFORM), stride=1)
        sample = UNIFORM**2 / (UNIFORM**2 - 1)
        covariance, variances = sample * (xy - x * y), sample * (xx - x * x + yy - y * y)

        def ssim(c1: float, c2: float) -> Tensor:
            return (2 * x * y + c1) * (2 * covariance + c2) / ((x * x + y * y + c1) * (variances + c2))

        return ssim(C1, C2), ssim(4 * C1, 4 * C2)


def _inside(region: Region, found: Tensor, margin: int, of: Tensor) -> Tensor:
    """The part of a map [C, H - 2 margin, W - 2 margin] whose windows lie in the region."""
    rows, columns = region.box(*of.shape[-2:])
    return found[..., rows.start : rows.stop - 2 * margin, columns.start : columns.stop - 2 * margin]


def _gaussian(sr: Tensor, hr: Tensor) -> Tensor:
    """The map of [C, H, W] where the window fits."""
    return torch.stack([torch.cat(list(bands(x, y))) for x, y in zip(sr, hr, strict=True)])
