"""Degradations, step by step: what makes a low-resolution input of a photograph, as a task's TOML names it.

    [[task.degradation]]
    kind = "blur"
    sigma = [0.2, 3.0] # drawn evenly for every image
    [[task.degradation]]
    kind = "resize"
    kernel = "matlab"
    [[task.degradation]]
    kind = "jpeg"
    quality = 30

The classic "BD" x3 (of RCAN's test data, after SRMD) is a blur of sigma 1.6, size 7 and border "replicate", then a
resize of kernel "nearest".

The usual order, blur, resize, noise, JPEG, is eq. 1 of Real-ESRGAN (Wang et al. 2021), whose second order is the same
steps once more.

A step is called with an image, [3, H, W] float32 in [0, 1] on the CPU, and the generator that all its chance comes
from, and gives back such an image. Its `described` is its text; its repr tells it from every other.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from sr3eval import matlab
from sr3eval.config import from_dict, to_dict
from sr3eval.errors import UserError, nearest
from sr3eval.images import area_down, bicubic_down, from_uint8, to_uint8

Number = float | tuple[float, ...]  # a value, or [low, high]
PADS: dict[str, Literal["symmetric", "edge"]] = {"reflect": "symmetric", "replicate": "edge"}  # NumPy's names


@dataclass(frozen=True)
class Blur:
    """Gaussian blur of `sigma` pixels; with `sigma_y`, of `sigma` and `sigma_y` along axes turned by `angle` degrees,
    clockwise as one sees the image.

    size: side of the square kernel, odd; by default it reaches to 4 sigma. border: "reflect" mirrors the image with its
    outermost pixels (dcba|abcd; SciPy's "reflect", MATLAB's "symmetric"), "replicate" repeats those (aaaa|abcd).
    """

    sigma: Number
    sigma_y: Number | None = None
    angle: Number = 0.0
    size: int | None = None
    border: Literal["reflect", "replicate"] = "reflect"

    def __post_init__(self) -> None:
        _check("blur.sigma", self.sigma, 0)
        _check("blur.sigma_y", self.sigma if self.sigma_y is None else self.sigma_y, 0)
        _check("blur.angle", self.angle, -360, 360)
        if self.size is not None and (self.size < 1 or self.size % 2 == 0):
            raise UserError(f"blur.size: {self.size} is not odd and positive")

    @property
    def described(self) -> str:
        aside = f" by {_text(self.sigma_y)} at {_text(self.angle)} degrees" if self.sigma_y is not None else ""
        size = f", {self.size}x{self.size}" if self.size else ""
        return f"Gaussian blur sigma {_text(self.sigma)}{aside}{size}"

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        sigma = _draw(self.sigma, generator)
        sigma_y = sigma if self.sigma_y is None else _draw(self.sigma_y, generator)
        radius = math.ceil(4 * max(sigma, sigma_y)) if self.size is None else self.size // 2
        kernel = gaussian(sigma, sigma_y, math.radians(_draw(self.angle, generator)), radius)
        padded = np.pad(image.numpy(), ((0, 0), (radius, radius), (radius, radius)), mode=PADS[self.border])
        return F.conv2d(torch.from_numpy(padded)[:, None], kernel.to(image)[None, None])[:, 0]


def gaussian(sigma: float, sigma_y: float, angle: float, radius: int) -> Tensor:
    """[2 radius + 1, 2 radius + 1] float64, of sum 1: a Gaussian at the pixels' centres, turned by `angle` radians.

    A sigma of 0 leaves the image as it is along that axis. Where both are alike it is MATLAB's fspecial("gaussian").
    """
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    tiny = 1e-3  # a blur that no pixel's neighbour feels
    exponent = (along / max(sigma, tiny)) ** 2 + (across / max(sigma_y, tiny)) ** 2
    return torch.softmax(-exponent.flatten() / 2, dim=0).view_as(x)


@dataclass(frozen=True)
class Noise:
    """Either Gaussian noise of `sigma` levels of 255, or Poisson noise of strength `poisson`; clamped afterwards.

    Poisson noise of strength 1 is that of 255 photons at white: its variance at level v is v levels^2; it grows with
    the strength squared. grey: the same in the three channels; Poisson noise then is that of their mean.
    """

    sigma: Number | None = None
    poisson: Number | None = None
    grey: bool = False

    def __post_init__(self) -> None:
        if (self.sigma is None) == (self.poisson is None):
            raise UserError("noise: give either sigma, in levels of 255, or poisson, a strength")
        _check("noise.sigma" if self.poisson is None else "noise.poisson", self._strength, 0)

    @property
    def _strength(self) -> Number:
        return self.sigma if self.sigma is not None else self.poisson or 0.0

    @property
    def described(self) -> str:
        grey = "grey " if self.grey else ""
        kind = "Poisson noise" if self.sigma is None else "Gaussian noise sigma"
        return f"{grey}{kind} {_text(self._strength)}"

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        strength = _draw(self._strength, generator)
        signal = image.mean(dim=0, keepdim=True) if self.grey else image
        if self.sigma is None:  # of mean and variance v levels at level v
            noise = torch.poisson(signal * 255, generator=generator) / 255 - signal
        else:
            noise = torch.randn(signal.shape, generator=generator) / 255
        return (image + strength * noise).clamp(0, 1)


@dataclass(frozen=True)
class Jpeg:
    """A round trip through JPEG as Pillow writes it (libjpeg, chroma halved); quality from 1 to 100."""

    quality: int | tuple[int, ...]

    def __post_init__(self) -> None:
        _check("jpeg.quality", self.quality, 1, 100)

    @property
    def described(self) -> str:
        return f"JPEG {_text(self.quality)}"

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        # libjpeg's quality is a whole number, both ends of the range included.
        low, high = self.quality if isinstance(self.quality, tuple) else (self.quality, self.quality)
        quality = int(torch.randint(low, high + 1, (), generator=generator))
        file = io.BytesIO()
        Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        with Image.open(file) as decoded:
            return from_uint8(torch.from_numpy(np.array(decoded)).permute(2, 0, 1))


Kernel = Literal["bicubic", "matlab", "area", "bilinear", "nearest"]


@dataclass(frozen=True)
class Resize:
    """Resize by `factor`, to `size` = (h, w), or by default to the size of the task's LR image.

    kernel: "bicubic" (a = -0.5) and "bilinear" are antialiased as Pillow's; "matlab" is `matlab.imresize`; "area" is
    the mean over a pixel's footprint; "nearest" is the pixel at its centre. Overshoots are clamped.
    """

    kernel: Kernel = "bicubic"
    factor: Number | None = None
    size: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.factor is not None and self.size is not None:
            raise UserError("resize: give either factor or size")
        _check("resize.factor", 1.0 if self.factor is None else self.factor, 1e-3)
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UserError(f"resize.size: {list(self.size)} is not [height, width] in pixels")

    @property
    def described(self) -> str:
        name = "matlab bicubic" if self.kernel == "matlab" else self.kernel
        by = f" by {_text(self.factor)}" if self.factor is not None else ""
        return name + by + (f" to {self.size[1]}x{self.size[0]}" if self.size is not None else "")

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        if self.size is not None:
            height, width = self.size
        elif self.factor is not None:
            factor = _draw(self.factor, generator)
            height, width = (max(1, round(factor * side)) for side in image.shape[-2:])
        else:
            raise ValueError("the task's size is filled in by `degrade`")
        return _resize(image, (height, width), self.kernel).clamp(0, 1)


def _resize(image: Tensor, size: tuple[int, int], kernel: Kernel) -> Tensor:
    """[3, H, W] to [3, *size]."""
    match kernel:
        case "bicubic":
            return bicubic_down(image[None], size)[0]
        case "matlab":
            return matlab.imresize(image, size)
        case "area":
            return area_down(image, size)
        case "bilinear":
            return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        case "nearest":
            return F.interpolate(image[None], size, mode="nearest-exact")[0]


Step = Blur | Noise | Jpeg | Resize
KINDS: dict[str, type[Step]] = {"blur": Blur, "noise": Noise, "jpeg": Jpeg, "resize": Resize}


def parse(tables: Sequence[Mapping[str, Any]], where: str = "degradation") -> tuple[Step, ...]:
    """Read [[degradation]] tables: `kind` names the step, the other keys are its fields. Raises UserError."""
    if isinstance(tables, Mapping):
        raise UserError(f"[{where}]: write [[{where}]], in double brackets: it is one of a list")
    return tuple(_step(table, f"{where}[{i}]") for i, table in enumerate(tables))


def tables(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The inverse of `parse`."""
    kinds = {step: kind for kind, step in KINDS.items()}
    return [{"kind": kinds[type(step)], **to_dict(step)} for step in steps]


def _step(table: Mapping[str, Any], where: str) -> Step:
    if not isinstance(table, Mapping):
        raise UserError(f'"{where}" must be a table, not {table!r}')
    if "kind" not in table:
        raise UserError(f'missing key "{where}.kind": {", ".join(KINDS)}')
    if table["kind"] not in KINDS:
        raise UserError(f'"{where}.kind" is {table["kind"]!r}: {nearest(str(table["kind"]), KINDS)}')
    return from_dict(KINDS[table["kind"]], {key: value for key, value in table.items() if key != "kind"}, where)


def described(steps: Sequence[Step]) -> str:
    """The steps in words: "Gaussian blur sigma 1.6, then matlab bicubic, then JPEG 30"."""
    return ", then ".join(step.described for step in steps)


def degrade(image: Tensor, steps: Sequence[Step], size: tuple[int, int], seed: int) -> Tensor:
    """The LR image [3, *size] of [3, H, W], float32 in [0, 1], not yet rounded: the same for the same seed.

    Raises UserError for steps that end in another size.
    """
    generator = torch.Generator().manual_seed(seed)
    for step in steps:
        image = _at_task_size(step, size)(image, generator)
    if tuple(image.shape[-2:]) != size:
        found = f"{image.shape[-1]}x{image.shape[-2]}"
        raise UserError(f'degradation: ends in {found} and not {size[1]}x{size[0]} pixels; add a step of kind "resize"')
    return image


def _at_task_size(step: Step, size: tuple[int, int]) -> Step:
    if isinstance(step, Resize) and step.factor is None and step.size is None:
        return replace(step, size=size)
    return step


def _draw(value: Number, generator: Generator) -> float:
    if not isinstance(value, tuple):
        return value
    low, high = value
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def _check(name: str, value: Number, least: float, most: float = math.inf) -> None:
    """UserError unless it is a finite number, or [low, high], within the limits."""
    ends = value if isinstance(value, tuple) else (value, value)
    if len(ends) != 2:
        raise UserError(f"{name}: {list(ends)} is neither a number nor [low, high]")
    if not least <= ends[0] <= ends[1] <= most or math.isinf(ends[1]):
        limits = f"at least {_text(least)}" if most == math.inf else f"from {_text(least)} to {_text(most)}"
        raise UserError(f"{name}: {_text(value)} must be {limits}" + (", lowest first" if value is ends else ""))


def _text(value: Number) -> str:
    return " to ".join(f"{v:g}" for v in (value if isinstance(value, tuple) else (value,)))
