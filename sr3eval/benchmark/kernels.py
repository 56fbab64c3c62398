"""What made LR images: the resizers of the field's tools, each as it writes 8-bit files."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sr3eval import matlab
from sr3eval.degradation import gaussian
from sr3eval.images import Size, bicubic_down, from_uint8, to_uint8

Kernel = Callable[[Tensor, tuple[int, int]], Tensor]  # 8-bit [3, H, W] of sides that (h, w) divides, to 8-bit [3, h, w]
WINDOW = 64  # LR pixels: the side of the part, at the top left, by which kernels are told apart
REACH = 8  # LR pixels within which what is cut off does not matter


def _floats(resize: Kernel) -> Kernel:
    """A resizer of floats in [0, 1], of which the file is rounded once."""
    return lambda hr, size: to_uint8(resize(from_uint8(hr), size))


def _pillow(filter: Image.Resampling) -> Kernel:
    def resize(hr: Tensor, size: tuple[int, int]) -> Tensor:
        image = Image.fromarray(hr.permute(1, 2, 0).numpy()).resize(size[::-1], filter)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    return resize


def _replicated(hr: Tensor, size: tuple[int, int]) -> Tensor:
    """The image is continued by its border, where `matlab.imresize` mirrors it: the LR files of SelfExSR."""
    factor, margin = hr.shape[-1] // size[1], 4
    wide = F.pad(hr[None].double(), [margin * factor] * 4, mode="replicate")[0].to(torch.uint8)
    made = matlab.imresize(wide, (size[0] + 2 * margin, size[1] + 2 * margin))
    return made[:, margin:-margin, margin:-margin]


def _opencv(hr: Tensor, size: tuple[int, int]) -> Tensor:
    """Keys' cubic with a = -0.75 of the nearest pixels, in levels; whole factors round nothing on the way."""
    return F.interpolate(hr[None].double(), size, mode="bicubic")[0].round().clamp(0, 255).to(torch.uint8)


def _opencv_area(hr: Tensor, size: tuple[int, int]) -> Tensor:
    """Halves go up where four pixels are averaged, and to the even level otherwise."""
    factor = hr.shape[-1] // size[1]
    means = F.avg_pool2d(hr.double(), factor)
    return (means.add(0.5).floor() if factor == 2 else means.round()).to(torch.uint8)


def _pillow_reduce(hr: Tensor, size: tuple[int, int]) -> Tensor:
    image = Image.fromarray(hr.permute(1, 2, 0).numpy()).reduce(hr.shape[-1] // size[1])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _every(hr: Tensor, size: tuple[int, int]) -> Tensor:
    factor = hr.shape[-1] // size[1]
    return hr[:, ::factor, ::factor]


def _blurred(hr: Tensor, size: tuple[int, int]) -> Tensor:
    """fspecial("gaussian", 7, 1.6), imfilter with "replicate", imresize with "nearest": RCAN's BD, after SRMD."""
    wide = F.pad(hr[None].double(), [3] * 4, mode="replicate")[0]
    taps = gaussian(1.6, 1.6, 0.0, 3).sum(dim=0)
    blurred = F.conv2d(F.conv2d(wide[:, None], taps.view(1, 1, 7, 1)), taps.view(1, 1, 1, 7))[:, 0]
    factor = hr.shape[-1] // size[1]
    return matlab.to_8bit(blurred / 255)[:, factor // 2 :: factor, factor // 2 :: factor]


# The usual ones first: of those that make the same image, the first is named.
KERNELS: Mapping[str, Kernel] = {
    "MATLAB's imresize": matlab.imresize,
    "MATLAB's imresize with a replicated border": _replicated,
    "MATLAB's imresize, rounded once": lambda hr, size: matlab.to_8bit(matlab.imresize(from_uint8(hr), size)),
    "Pillow's bicubic": _pillow(Image.Resampling.BICUBIC),
    "torch's and TensorFlow's bicubic with antialiasing": _floats(lambda hr, size: bicubic_down(hr[None], size)[0]),
    "OpenCV's bicubic, torch's without antialiasing": _opencv,
    "OpenCV's area averaging": _opencv_area,
    "Pillow's reduce": _pillow_reduce,
    "Pillow's Lanczos": _pillow(Image.Resampling.LANCZOS),
    "Pillow's bilinear": _pillow(Image.Resampling.BILINEAR),
    "Pillow's box": _pillow(Image.Resampling.BOX),
    "Gaussian blur of 1.6 pixels, then the middle pixel (BD)": _blurred,
    "every n-th pixel": _every,
}
USUAL = next(iter(KERNELS))


def cut(image: Tensor, multiple: int) -> Tensor:
    """[..., H, W] with sides cut to a multiple, at the right and the bottom."""
    height, width = (side - side % multiple for side in image.shape[-2:])
    return image[..., :height, :width]


def scale_of(hr: Size, lr: Size) -> int | None:
    """How many times smaller LR is than HR cut to a multiple of that, of (height, width) each; None where it is not."""
    scale = round(hr[1] / lr[1])
    fits = scale > 1 and tuple(side // scale for side in hr) == lr
    return scale if fits else None


class Made(NamedTuple):
    """A kernel, and how far an LR image is from what it makes: mean absolute difference in levels of 255."""

    kernel: str
    distance: float


def distance(kernel: str, hr: Tensor, lr: Tensor) -> float:
    """Mean absolute difference, in levels of 255, of an LR image from what a kernel makes of HR, both 8 bit."""
    made = KERNELS[kernel](cut(hr, hr.shape[-1] // lr.shape[-1]), (lr.shape[-2], lr.shape[-1]))
    return (made.double() - lr.double()).abs().mean().item()


def _in_window(kernel: str, hr: Tensor, lr: Tensor) -> float:
    """`distance` of the top left part, which has two borders of the image, and takes some milliseconds."""
    factor = hr.shape[-1] // lr.shape[-1]
    height, width = (min(side, WINDOW) for side in lr.shape[-2:])
    made = KERNELS[kernel](hr[:, : factor * height, : factor * width], (height, width))
    rows, columns = (side - REACH * (whole > side) for side, whole in zip((height, width), lr.shape[-2:], strict=True))
    return (made[:, :rows, :columns].double() - lr[:, :rows, :columns].double()).abs().mean().item()


def makes(kernel: str, hr: Tensor, lr: Tensor) -> bool:
    """Whether the LR image is what a kernel makes of HR, both 8 bit, to the last level."""
    return _in_window(kernel, hr, lr) == 0 and distance(kernel, hr, lr) == 0


def makers(hr: Tensor, lr: Tensor) -> list[Made]:
    """The kernels that are nearest to an LR image, given HR, both 8 bit; several only where they make the same."""
    near = {kernel: _in_window(kernel, hr, lr) for kernel in KERNELS}
    least = min(near.values())
    found = [Made(kernel, distance(kernel, hr, lr)) for kernel, value in near.items() if value == least]
    return [made for made in found if made.distance == min(made.distance for made in found)]


class Maker(NamedTuple):
    """Of a set: the kernel, how many images it gives to the last level, and its mean distance from all."""

    kernel: str
    exact: int
    distance: float

    def __str__(self) -> str:
        return f"{self.kernel}, {self.distance:.3f} levels off on average"


def maker(pairs: Iterable[tuple[Tensor, Tensor]]) -> Maker:
    """The kernel that is nearest to most of the LR images, of (HR, LR), 8 bit."""
    found = [makers(hr, lr) for hr, lr in pairs]
    counted = Counter(made.kernel for image in found for made in image)
    kernel = max(KERNELS, key=lambda name: counted[name])  # the first of those that are equal
    distances = [made.distance for image in found for made in image if made.kernel == kernel]
    return Maker(kernel, distances.count(0), sum(distances) / len(distances))
