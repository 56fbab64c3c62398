"""Iterative refinement: the paper's Algorithm 2, with the noise source passed in."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from sr3eval.diffusion.loss import Denoiser
from sr3eval.diffusion.schedule import NoiseSchedule

Variance = Literal["beta", "posterior"]


def refine(
    model: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    noise: Callable[[], Tensor],
    variance: Variance = "beta",
    clip: bool = False,
) -> Iterator[Tensor]:
    """Yield y_{T-1}, ..., y_0 for the condition x, the enlarged LR [N, 3, H, W] in [-1, 1]; the last one is the output.

    noise() returns a fresh eps ~ N(0, I) like x; it is called T times. variance: "beta" is the paper's 1 - alpha_t,
    "posterior" is q(y_{t-1} | y_t, y_0)'s. clip: clamp the implied estimate of y_0 to [-1, 1] at every step.
    """
    gammas = schedule.gammas.tolist()
    previous = [1.0, *gammas[:-1]]  # gamma_{t-1}, with gamma_0 = 1
    y = noise()
    for alpha, gamma, gamma_prev in reversed(list(zip(schedule.alphas.tolist(), gammas, previous, strict=True))):
        eps = model(x, y, torch.full((len(x),), gamma, dtype=x.dtype, device=x.device))
        if clip:
            y0 = ((y - math.sqrt(1 - gamma) * eps) / math.sqrt(gamma)).clamp(-1, 1)
            mean = math.sqrt(gamma_prev) * (1 - alpha) * y0 + math.sqrt(alpha) * (1 - gamma_prev) * y
            mean = mean / (1 - gamma)
        else:
            mean = (y - (1 - alpha) / math.sqrt(1 - gamma) * eps) / math.sqrt(alpha)
        if gamma_prev == 1.0:  # the last step adds no noise
            y = mean
        else:
            scale = 1 - alpha if variance == "beta" else (1 - gamma_prev) / (1 - gamma) * (1 - alpha)
            y = mean + math.sqrt(scale) * noise()
        yield y


class NoisePerImage:
    """A noise source whose images each have their own generator: what an image gets depends on its seed alone.

    Numbers are drawn on the CPU, so that every device sees the same ones.
    """

    def __init__(self, seeds: Sequence[int], like: Tensor) -> None:
        if len(seeds) != len(like):
            raise ValueError(f"{len(seeds)} seeds for {len(like)} images")
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = tuple(like.shape[1:]), like.device

    def __call__(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators]).to(self.device)
