"""NIQE, natural image quality evaluator (Mittal et al. 2013): distance from natural scenes, without a reference."""

import functools
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sr3eval import matlab
from sr3eval.errors import UserError
from sr3eval.features import natural_scenes
from sr3eval.metrics import Batch, Convention, PerImage
from sr3eval.metrics._plane import identity, plane
from sr3eval.weights import Release, locate

NATURAL = Release(
    "NIQE",
    "natural_scenes.npz",
    "github.com/XPixelGroup/BasicSR (niqe_pris_params.npz)",
    "free, with its notice (sr3eval/assets/niqe/NOTICE.md)",
    7249,
    "14b52d86fdfd9d9fde7234fbf29b18d8fac52d2a4d67e53e03e07c424ccd4ad2",
    "sr3eval/assets/niqe",
)
RELEASES = (NATURAL,)
BLOCK = 96  # pixels, side of the blocks whose features are compared


def niqe(y: Tensor) -> Tensor:
    """NIQE, scalar, of a luminance plane [H, W] in levels of 255: lower is more natural.

    Features are computed in the plane's type: float32 as BasicSR does, float64 as pyiqa does.
    Equals BasicSR's `calculate_niqe` of a grey image to 1e-3; of few blocks, where the grid of shapes shows, to 1e-2.
    NaN where fewer than two blocks have texture. Raises UserError for an image of fewer than two blocks.
    """
    rows, columns = (side // BLOCK for side in y.shape)
    if rows * columns < 2:
        raise UserError(
            f"niqe: a {y.shape[1]}x{y.shape[0]} image has fewer than two blocks of {BLOCK}x{BLOCK} pixels, "
            "which it fits a distribution to"
        )
    y = y[: rows * BLOCK, : columns * BLOCK][None, None]
    half = matlab.imresize(y, 0.5)
    features = torch.cat([_features(y, BLOCK), _features(half, BLOCK // 2)], dim=1)
    whole = features[~features.isnan().any(dim=1)]
    if len(whole) < 2:
        return torch.tensor(math.nan, dtype=torch.float64)
    mean, covariance = _natural()
    difference = mean - features.nanmean(dim=0)
    return (difference @ torch.linalg.pinv((covariance + whole.T.cov()) / 2) @ difference).sqrt()


def _features(image: Tensor, block: int) -> Tensor:
    """The 18 features of every block x block part of [1, 1, H, W]: [blocks, 18]."""
    normalised = natural_scenes.normalised(image, 1.0, "replicate")
    blocks = normalised[0, 0].unfold(0, block, block).unfold(1, block, block).reshape(-1, 1, block, block)
    shape, left, right = natural_scenes.asymmetric(blocks.flatten(1))
    features = [shape, (left + right) / 2 * natural_scenes.width(shape)]
    for product in natural_scenes.products(blocks, wrap=True):
        shape, left, right = natural_scenes.asymmetric(product)
        width = natural_scenes.width(shape)
        features += [shape, natural_scenes.mean(shape, left, right), left * width, right * width]
    return torch.stack(features, dim=1)


def _ycbcr(images: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] to whole levels [N, 1, H, W], in BasicSR's types, so that halves round as there."""
    return (matlab.luma(images.double()).float() * 255).round()


def _yiq(images: Tensor) -> Tensor:
    """The same, in pyiqa's luma and types."""
    red, green, blue = images.unbind(dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).mul(255).round().unsqueeze(1).double()


Luma = Literal["ycbcr", "yiq"]
LUMAS = {"ycbcr": (_ycbcr, "BT.601 16-235 Y", "BasicSR"), "yiq": (_yiq, "YIQ 0-255 Y", "pyiqa")}


@functools.cache
def _natural() -> tuple[Tensor, Tensor]:
    """Mean [36] and covariance [36, 36] of the features of the authors' 125 natural images."""
    with np.load(locate(NATURAL), allow_pickle=False) as parameters:
        return torch.from_numpy(parameters["mean"]), torch.from_numpy(parameters["covariance"])


def build(*, luma: Luma = "ycbcr", border: int = 0) -> PerImage:
    """NIQE of the outputs.

    Args:
        luma: "ycbcr" as BasicSR, "yiq" as pyiqa's default, which papers since 2023 report.
        border: pixels cut on each side.
    """
    other = "" if luma == "ycbcr" else luma
    name, variant, _ = identity("_".join(filter(None, ["niqe", other])), "rgb", border)
    variant = ", ".join(filter(None, [other.upper(), variant]))
    levels, described, peer = LUMAS[luma]

    def score(batch: Batch) -> Tensor:
        return torch.stack([niqe(y[0]) for y in levels(plane(batch.sr, "rgb", border))])

    settings = (
        f"{described} rounded to 8 bit, border {border} px cut, blocks of {BLOCK}x{BLOCK}, MATLAB's imresize, "
        f"parameters of the authors' release, as {peer}; JPEG instead of PNG, or another luma, moves it; mean over "
        "images"
    )
    about = Convention(name, "NIQE", higher_is_better=False, settings=settings, needs_hr=False, variant=variant)
    return PerImage(about, score)
