"""Noise schedules in float64: alpha_t, gamma_t = prod alpha_i, and the piecewise uniform p(gamma) of training."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sr3eval.errors import UserError


@dataclass(frozen=True)
class NoiseSchedule:
    """T noise levels. `alphas` is [T]: alpha_1 .. alpha_T, float64 in (0, 1)."""

    alphas: Tensor

    def __post_init__(self) -> None:
        if self.alphas.dtype != torch.float64 or self.alphas.ndim != 1 or len(self.alphas) == 0:
            raise ValueError("alphas must be a non-empty float64 vector")
        if not bool(((self.alphas > 0) & (self.alphas < 1)).all()):
            raise UserError("noise schedule: every beta must lie strictly between 0 and 1")

    @classmethod
    def linear(cls, start: float, end: float, steps: int) -> "NoiseSchedule":
        """beta_t = 1 - alpha_t grows linearly from `start` to `end`. Training, after Palette: (1e-6, 1e-2, 2000)."""
        if steps < 1:
            raise UserError(f"noise schedule: {steps} steps; at least 1 is needed")
        return cls(1 - torch.linspace(start, end, steps, dtype=torch.float64))

    @classmethod
    def matching(cls, final_gamma: float, steps: int, start: float = 1e-4) -> "NoiseSchedule":
        """The linear schedule of `steps` levels from `start` whose gamma_T is `final_gamma`, found by bisection.

        Cutting steps while keeping beta_T starts sampling from a noise level far from pure noise; matching gamma_T
        is what makes few-step inference work.
        """
        if steps == 1:
            return cls(torch.tensor([final_gamma], dtype=torch.float64))
        low, high = start, 1 - 1e-9
        for _ in range(200):
            end = math.sqrt(low * high)
            if float(cls.linear(start, end, steps).gammas[-1]) > final_gamma:
                low = end
            else:
                high = end
        return cls.linear(start, high, steps)

    def __len__(self) -> int:
        return len(self.alphas)

    @property
    def gammas(self) -> Tensor:
        """[T]: gamma_1 .. gamma_T, decreasing."""
        return torch.cumprod(self.alphas, dim=0)

    def sample_gamma(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw gamma for n examples, [n] float64: t ~ U{1..T}, gamma ~ U(gamma_t, gamma_{t-1}), each per example."""
        edges = torch.cat([torch.ones(1, dtype=torch.float64), self.gammas])  # gamma_0 = 1
        t = torch.randint(1, len(self) + 1, (n,), generator=generator)
        u = torch.rand(n, dtype=torch.float64, generator=generator)
        return edges[t] + u * (edges[t - 1] - edges[t])
