"""The super-resolution tasks: which sizes, and how the low-resolution input is made."""

import hashlib
from dataclasses import dataclass

from torch import Tensor

from sr3eval.errors import UserError, nearest
from sr3eval.images import area_down, bicubic_down, center_square, round_to_8bit


@dataclass(frozen=True)
class Task:
    """`lr_size` x `lr_size` inputs to `hr_size` x `hr_size` outputs (pixels).

    crop_from: side to which the central square is shrunk before the centre of `hr_size` is cut out of it; None shrinks
    it to `hr_size` itself. 256 for 224 is how ImageNet classifiers are evaluated.
    """

    name: str
    dataset: str
    lr_size: int
    hr_size: int
    crop_from: int | None = None

    @property
    def scale(self) -> int:
        return self.hr_size // self.lr_size

    @property
    def described(self) -> str:
        """The task in a line."""
        return f"{self.lr_size}x{self.lr_size} to {self.hr_size}x{self.hr_size} pixels, {self.dataset}"

    @property
    def smallest(self) -> int:
        """Short side, in pixels, below which photographs are left out."""
        return self.crop_from or self.hr_size

    @property
    def fingerprint(self) -> str:
        """Names the task and its way of making inputs, for cache keys."""
        text = f"{self.lr_size}->{self.hr_size} bicubic(a=-0.5,antialias) 8bit"
        return hashlib.sha256(text.encode()).hexdigest()

    def prepare(self, image: Tensor) -> Tensor:
        """Make the HR target of a photograph [3, H, W] in [0, 1]: largest central square, area resize, 8-bit grid."""
        if min(image.shape[-2:]) < self.smallest:
            raise UserError(f"the short side is below {self.smallest} pixels, the target of {self.name}")
        square = center_square(image)
        if square.shape[-1] != self.smallest:
            square = area_down(square, (self.smallest, self.smallest))
        return round_to_8bit(center_square(square, self.hr_size))

    def degrade(self, hr: Tensor) -> Tensor:
        """Make the LR input of HR [N, 3, H, W] or [3, H, W] in [0, 1]: antialiased bicubic, rounded to 8 bit.

        Any size that the scale divides: training degrades small crops, the benchmark whole images.
        """
        height, width = hr.shape[-2:]
        if height % self.scale or width % self.scale:
            raise UserError(f"{width}x{height} is not a multiple of the scale {self.scale} of {self.name}")
        batch = hr if hr.ndim == 4 else hr[None]
        lr = round_to_8bit(bicubic_down(batch, (height // self.scale, width // self.scale)))
        return lr if hr.ndim == 4 else lr[0]


_ALL = (
    Task("faces_16_128", "FFHQ / CelebA-HQ", 16, 128),
    Task("faces_64_256", "FFHQ / CelebA-HQ", 64, 256),
    Task("faces_64_512", "FFHQ / CelebA-HQ", 64, 512),
    Task("faces_256_1024", "FFHQ / CelebA-HQ", 256, 1024),
    Task("imagenet_64_256", "ImageNet", 64, 256),
    Task("imagenet_56_224", "ImageNet", 56, 224, crop_from=256),
    Task("photos_16_64", "free photographs", 16, 64),
)
TASKS = {task.name: task for task in _ALL}


def get(name: str) -> Task:
    """The task of that name; raises UserError naming the nearest one."""
    try:
        return TASKS[name]
    except KeyError:
        raise UserError(f'unknown task "{name}": {nearest(name, TASKS)}') from None
