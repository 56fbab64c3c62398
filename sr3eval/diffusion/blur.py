"""Gaussian blur of the low-resolution condition: the augmentation of Table 6, in training alone."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sr3eval.diffusion.train_config import TrainingDataConfig
from sr3eval.folders import stable_hash

REACH = 4  # standard deviations from the centre of a kernel to its end
TINY = 1e-3  # pixels: a blur that no neighbour feels


def draw_sigmas(data: TrainingDataConfig, seed: int, step: int, n: int) -> Tensor:
    """Standard deviations [n] in LR pixels of the blur of a step's images, 0 for those that stay sharp.

    They have a generator of their own, so that runs with and without blur share everything else that is random.
    """
    if data.blur is None:
        return torch.zeros(n)
    generator = torch.Generator().manual_seed(stable_hash(seed, "blur", step))
    blurred, u = torch.rand(2, n, generator=generator)
    low, high = data.blur
    return torch.where(blurred < data.blur_share, low + (high - low) * u, 0.0)


def gaussian_blur(images: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Blur images [N, 3, H, W], each by its own sigma [N] of at most `largest` pixels; borders repeat the last pixel.

    A sigma of 0 leaves an image as it is, bit for bit.
    """
    radius = math.ceil(REACH * largest)
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.softmax(-0.5 * (offset / sigma.clamp(min=TINY)[:, None]).square(), dim=1)  # [N, 2 radius + 1]
    rows = F.pad(images, (radius, radius, 0, 0), mode="replicate").unfold(3, len(offset), 1)
    images = torch.einsum("nchwk,nk->nchw", rows, kernel)
    columns = F.pad(images, (0, 0, radius, radius), mode="replicate").unfold(2, len(offset), 1)
    return torch.einsum("nchwk,nk->nchw", columns, kernel)
