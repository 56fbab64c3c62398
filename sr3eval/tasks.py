"""The super-resolution tasks: by which scale, of which part of an image, and how the low-resolution input is made."""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sr3eval import degradation as degradations
from sr3eval import matlab
from sr3eval.errors import UserError, nearest
from sr3eval.images import (
    area_down,
    bicubic_down,
    center_square,
    from_uint8,
    pillow_bicubic,
    round_to_8bit,
    to_uint8,
)

Inputs = Literal["bicubic", "matlab", "pillow", "files"]
KERNELS = {
    "bicubic": "antialiased bicubic, a = -0.5",
    "matlab": "MATLAB's imresize of 8-bit images (bicubic, antialiased, mirrored border)",
    "pillow": "Pillow's bicubic of 8-bit images",
    "files": "files",
}
FRAMING = re.compile(r"whole|square (?P<side>[1-9]\d*)( of (?P<of>[1-9]\d*))?")


@dataclass(frozen=True)
class Task:
    """From inputs of h x w pixels to outputs of scale * h x scale * w; every image has its own size.

    Attributes:
        name: its name in tables.
        scale: the factor by which sides grow.
        framing: "whole" cuts an image to a multiple of the scale at the right and the bottom, as is usual for Set5 and
            similar sets; "square SIDE" takes the largest central square, shrunk to SIDE pixels by area; "square SIDE
            of FROM" shrinks it to FROM and takes its centre: ImageNet classifiers are evaluated on 224 of 256.
        lr: the kernel that makes the inputs from HR, or "files" if they are given.
        dataset: the paper's data set, in words.
        degradation: steps that make the inputs instead, see `sr3eval.degradation`.

    Raises:
        UserError: a framing of another form, or a side that the scale does not divide or that does not fit.
    """

    name: str
    scale: int
    framing: str = "whole"
    lr: Inputs = "bicubic"
    dataset: str = ""
    degradation: tuple[degradations.Step, ...] = ()

    def __post_init__(self) -> None:
        if not FRAMING.fullmatch(self.framing):
            raise UserError(f'task.framing: "{self.framing}" is neither "whole" nor "square SIDE"')
        if self.scale < 1:
            raise UserError(f"task.scale: {self.scale} is below 1")
        if self.side and self.smallest < self.side:
            raise UserError(f"task.framing: no square of {self.side} pixels fits into one of {self.smallest}")
        if self.side and self.side % self.scale:
            raise UserError(f"task.framing: {self.side} pixels are not a multiple of the scale {self.scale}")
        if self.lr == "files" and self.side:
            raise UserError('task.lr = "files": needs framing = "whole"; the files are as they are')
        if self.degradation and self.lr != "bicubic":
            raise UserError(
                f'task.lr = "{self.lr}" cannot go with task.degradation: the step of kind "resize" names the kernel'
            )

    def _framed(self, group: str) -> int | None:
        match = FRAMING.fullmatch(self.framing)
        return int(match[group]) if match and match[group] else None

    @property
    def side(self) -> int | None:
        """Of the HR squares, in pixels; None where images stay whole."""
        return self._framed("side")

    @property
    def hr_size(self) -> int:
        """Side of the HR squares; UserError where images stay whole."""
        if self.side is None:
            raise UserError(f"task {self.name}: takes whole images, which have no size in common")
        return self.side

    @property
    def lr_size(self) -> int:
        """Side of the LR squares; UserError where images stay whole."""
        return self.hr_size // self.scale

    @property
    def smallest(self) -> int:
        """Short side, in pixels, below which images are left out."""
        return self._framed("of") or self.side or self.scale

    @property
    def described(self) -> str:
        """The task in a line."""
        if self.side is None:
            return f"whole images, {self.scale} times, {self.inputs}"
        return f"{self.lr_size}x{self.lr_size} to {self.side}x{self.side} pixels, {self.dataset or self.inputs}"

    @property
    def inputs(self) -> str:
        """What made the low-resolution images, in words."""
        return degradations.described(self.degradation) if self.degradation else KERNELS[self.lr]

    @property
    def fingerprint(self) -> str:
        """Names the task's way of making HR and LR images."""
        text = f"{self.scale} {self.framing} {self.lr} {self.degradation}"
        return hashlib.sha256(text.encode()).hexdigest()

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the HR image that is made of an image of size (height, width)."""
        if self.side is not None:
            return self.side, self.side
        height, width = size
        return height - height % self.scale, width - width % self.scale

    def prepare(self, image: Tensor) -> Tensor:
        """Make the HR target of an image [3, H, W] in [0, 1], on the 8-bit grid; UserError for a small one."""
        if min(image.shape[-2:]) < self.smallest:
            raise UserError(f"the short side is below {self.smallest} pixels, the target of {self.name}")
        height, width = self.target((image.shape[-2], image.shape[-1]))
        if self.side is None:
            return round_to_8bit(image[..., :height, :width])
        square = center_square(image)
        if square.shape[-1] != self.smallest:
            square = area_down(square, (self.smallest, self.smallest))
        return round_to_8bit(center_square(square, self.side))

    def degrade(self, hr: Tensor, seed: int = 0) -> Tensor:
        """Make the LR input of HR, rounded to 8 bit as a file would be.

        Args:
            hr: [N, 3, H, W] or [3, H, W] in [0, 1], of any size that the scale divides: training degrades small
                crops, the benchmark whole images.
            seed: what random degradations are drawn from.
        """
        height, width = hr.shape[-2:]
        if height % self.scale or width % self.scale:
            raise UserError(f"{width}x{height} is not a multiple of the scale {self.scale} of {self.name}")
        if not self.degradation:
            return self._shrink(hr) if hr.ndim == 4 else self._shrink(hr[None])[0]
        if hr.ndim == 4:
            return torch.stack([self.degrade(image, seed) for image in hr])
        size = height // self.scale, width // self.scale
        return round_to_8bit(degradations.degrade(hr, self.degradation, size, seed))

    def _shrink(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] by the kernel of the task, onto the 8-bit grid."""
        size = images.shape[-2] // self.scale, images.shape[-1] // self.scale
        if self.lr == "matlab":
            return from_uint8(matlab.imresize(to_uint8(images), size))
        return pillow_bicubic(images, size) if self.lr == "pillow" else round_to_8bit(bicubic_down(images, size))


_ALL = (
    Task("faces_16_128", 8, "square 128", dataset="FFHQ / CelebA-HQ"),
    Task("faces_64_256", 4, "square 256", dataset="FFHQ / CelebA-HQ"),
    Task("faces_64_512", 8, "square 512", dataset="FFHQ / CelebA-HQ"),
    Task("faces_256_1024", 4, "square 1024", dataset="FFHQ / CelebA-HQ"),
    Task("imagenet_16_128", 8, "square 128", dataset="ImageNet"),
    Task("imagenet_64_256", 4, "square 256", dataset="ImageNet"),
    Task("imagenet_56_224", 4, "square 224 of 256", dataset="ImageNet"),
    Task("photos_16_64", 4, "square 64", dataset="free photographs"),
)
TASKS = {task.name: task for task in _ALL}


def is_named(task: Task) -> bool:
    """Whether a task is the one that its name alone stands for."""
    return TASKS.get(task.name) == task


def get(name: str) -> Task:
    """The task of that name; raises UserError naming the nearest one."""
    try:
        return TASKS[name]
    except KeyError:
        raise UserError(f'unknown task "{name}": {nearest(name, TASKS)}') from None
