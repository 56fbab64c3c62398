"""Noise schedules in float64: alpha_t, gamma_t = prod alpha_i, and the piecewise uniform p(gamma) of training."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sr3eval.errors import UserError

Spacing = Literal["log_snr", "linear"]
FIRST_BETA = 1e-4  # 1 - gamma_1 of inference: noise of 1.3 levels of 255, the last to be removed


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
    def log_snr(cls, first_gamma: float, final_gamma: float, steps: int) -> "NoiseSchedule":
        """log(gamma / (1 - gamma)) falls in equal steps from that of gamma_1 to that of gamma_T."""
        if steps < 1:
            raise UserError(f"noise schedule: {steps} steps; at least 1 is needed")
        if steps == 1:
            return cls(torch.tensor([final_gamma], dtype=torch.float64))
        first, last = torch.logit(torch.tensor([first_gamma, final_gamma], dtype=torch.float64)).tolist()
        return cls.of_gammas(torch.sigmoid(torch.linspace(first, last, steps, dtype=torch.float64)))

    @classmethod
    def of_gammas(cls, gammas: Tensor) -> "NoiseSchedule":
        """The schedule of these gamma_1 .. gamma_T, [T] float64, decreasing."""
        return cls(gammas / torch.cat([torch.ones(1, dtype=torch.float64), gammas[:-1]]))

    @classmethod
    def cosine(cls, steps: int) -> "NoiseSchedule":
        """gamma_t = f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) * pi / 2), s = 0.008; beta is at most 0.999.

        Nichol & Dhariwal (2021), eq. 17.
        """
        if steps < 1:
            raise UserError(f"noise schedule: {steps} steps; at least 1 is needed")
        s = 0.008
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        f = torch.cos((t + s) / (1 + s) * math.pi / 2).square()
        return cls((f[1:] / f[:-1]).clamp(min=1 - 0.999))

    def respaced(self, steps: int) -> "NoiseSchedule":
        """`steps` of the T levels, evenly spaced from the first to the last; one step takes the last alone.

        Nichol & Dhariwal (2021), section 4: alphas are those between the levels that are left. UserError for more
        steps than levels.
        """
        if not 1 <= steps <= len(self):
            raise UserError(f"{steps} steps: must be from 1 to {len(self)}, the levels of the training")
        last = len(self) - 1
        kept = [round(i * last / (steps - 1)) for i in range(steps)] if steps > 1 else [last]
        return self.of_gammas(self.gammas[kept])

    @classmethod
    def inference(
        cls,
        final_gamma: float,
        steps: int,
        spacing: Spacing = "log_snr",
        first_beta: float = FIRST_BETA,
        jump: float | None = None,
    ) -> "NoiseSchedule":
        """A schedule of `steps` levels from beta_1 = 1 - gamma_1 = `first_beta` to gamma_T = `final_gamma`, training's.

        Cutting steps while keeping beta_T would start sampling from a noise level far from pure noise. "linear": beta
        grows linearly. "log_snr": see `log_snr`; more steps at the low noise levels where details are decided. jump:
        log SNR that the first of the "log_snr" steps goes to, the others being equal; where the condition leaves only
        details open, nothing is decided at lower ones.
        """
        if not 0 < first_beta < 1 - final_gamma:
            raise UserError(f"first_beta: {first_beta} is not between 0 and {1 - final_gamma:.6g}")
        if spacing == "linear" and steps > 1:
            return cls._linear_to(final_gamma, steps, first_beta)
        if jump is None or steps == 1:
            return cls.log_snr(1 - first_beta, final_gamma, steps)
        second = 1 / (1 + math.exp(-jump))
        if not final_gamma < second < 1 - first_beta:
            low, high = (math.log(g / (1 - g)) for g in (final_gamma, 1 - first_beta))
            raise UserError(
                f"jump: {jump} is not between the log SNR of the first and last step, {low:.4g} and {high:.4g}"
            )
        levels = cls.log_snr(1 - first_beta, second, steps - 1).alphas
        return cls(torch.cat([levels, final_gamma / levels.prod().reshape(1)]))

    @classmethod
    def _linear_to(cls, final_gamma: float, steps: int, start: float) -> "NoiseSchedule":
        """The linear schedule with that gamma_T: its end is found by bisection."""
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


def log_variance(v: Tensor, log_posterior: Tensor | float, log_beta: Tensor | float) -> Tensor:
    """Between the posterior's log variance at v = -1 and log beta at v = 1 (Nichol & Dhariwal 2021, eq. 15)."""
    share = (v + 1) / 2
    return share * log_beta + (1 - share) * log_posterior
