"""Iterative refinement from noise: the paper's Algorithm 2 and faster solvers, with the noise source passed in."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sr3eval.diffusion.loss import Denoiser
from sr3eval.diffusion.schedule import FIRST_BETA, NoiseSchedule, Spacing, log_variance
from sr3eval.errors import UserError

Solver = Literal["ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]
Variance = Literal["beta", "posterior"]
ETA = {"ancestral": 1.0, "ddim": 0.0, "dpmpp_2m": 0.0, "dpmpp_2m_sde": 1.0}  # defaults
Noise = Callable[[], Tensor]


@dataclass(frozen=True)
class SamplerConfig:
    """How images are sampled: noise levels, and the solver that goes from one to the next.

    Attributes:
        steps: evaluations of the network.
        solver: "ancestral" is the paper's Algorithm 2; "ddim" is Song et al.'s (2021); "dpmpp_2m" and "dpmpp_2m_sde"
            are the second-order multistep solvers of Lu et al. (2022), of the ODE and of the SDE.
        eta: how much of the SDE's noise "ddim" and "dpmpp_2m_sde" add, in [0, 1]; by default 0 and 1.
        variance: of the noise that "ancestral" adds: "beta" is the paper's 1 - alpha_t, "posterior" that of
            q(y_{t-1} | y_t, y_0).
        clip: clamp the estimate of y_0 to [-1, 1] at every step.
        spacing, first_beta, jump: the noise levels, see `NoiseSchedule.inference`.
    """

    steps: int = 100
    solver: Solver = "ancestral"
    eta: float | None = None
    variance: Variance = "beta"
    clip: bool = False
    spacing: Spacing = "log_snr"
    first_beta: float = FIRST_BETA
    jump: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampler: {self.steps} steps; at least 1 is needed")
        if self.eta is not None and (self.solver not in ("ddim", "dpmpp_2m_sde") or not 0 <= self.eta <= 1):
            raise UserError('eta: only for solver = "ddim" or "dpmpp_2m_sde", from 0 to 1')
        if self.variance != "beta" and self.solver != "ancestral":
            raise UserError('variance: only for solver = "ancestral"')

    @property
    def described(self) -> str:
        """Every setting that applies, but the number of steps."""
        idle = {"steps"} | ({"variance"} if self.solver != "ancestral" else set())
        settings = {name: value for name, value in asdict(self).items() if name not in idle and value is not None}
        texts = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in settings.items()}
        return ", ".join(f"{name} = {text}" for name, text in texts.items())

    def schedule(self, final_gamma: float) -> NoiseSchedule:
        """The noise levels, down from the gamma_T of training."""
        return NoiseSchedule.inference(final_gamma, self.steps, self.spacing, self.first_beta, self.jump)

    def refine(self, model: Denoiser, x: Tensor, final_gamma: float, noise: Noise) -> Iterator[Tensor]:
        """`refine` by these settings, from the gamma_T of training on."""
        schedule = self.schedule(final_gamma)
        return refine(model, x, schedule, noise, self.variance, self.clip, self.solver, self.eta)


@dataclass(frozen=True)
class SamplerOptions:
    """A sampler as a user asks for it: what is not given is None.

    With `steps` alone, or nothing, it is the sampler that `sr3eval search-schedule` found for the checkpoint, else
    `DEFAULT`. With any other option it is a `SamplerConfig` of just these, whose attributes they are.
    """

    steps: int | None = None
    solver: Solver | None = None
    eta: float | None = None
    variance: Variance | None = None
    clip: bool | None = None
    spacing: Spacing | None = None
    first_beta: float | None = None
    jump: float | None = None

    def __post_init__(self) -> None:
        SamplerConfig(**self.given)  # which refuses what does not go together

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


# Good for models that nothing was searched for: the estimate of y_0 settles within some tens of steps.
DEFAULT = SamplerConfig(32, "dpmpp_2m_sde", clip=True)


def refine(
    model: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    noise: Noise,
    variance: Variance | Literal["learned"] = "beta",
    clip: bool = False,
    solver: Solver = "ancestral",
    eta: float | None = None,
) -> Iterator[Tensor]:
    """Yield y_{T-1}, ..., y_0 for the condition x, the enlarged LR [N, 3, H, W] in [-1, 1]; the last one is the output.

    Args:
        model: (x, y, gamma [N]) to the predicted noise.
        schedule: the T noise levels; every one is evaluated once.
        noise: returns a fresh eps ~ N(0, I) like x; the last step calls it no more, nor do solvers with eta 0.
        variance, clip, solver, eta: see `SamplerConfig`. "learned": the model gives v beside eps, [N, 6, H, W], which
            lies between the log variances of "posterior", at -1, and "beta", at 1 (Improved DDPM).
    """
    gammas = schedule.gammas.tolist()
    previous = [1.0, *gammas[:-1]]  # gamma_{t-1}, with gamma_0 = 1
    eta = ETA[solver] if eta is None else eta
    y = noise()
    older: tuple[Tensor, float] | None = None  # the step before's estimate of y_0, and its half log SNR
    for alpha, gamma, gamma_prev in reversed(list(zip(schedule.alphas.tolist(), gammas, previous, strict=True))):
        output = model(x, y, torch.full((len(x),), gamma, dtype=x.dtype, device=x.device))
        eps, v = output.chunk(2, dim=1) if variance == "learned" else (output, output)
        spread = _ancestral_variance(alpha, gamma, gamma_prev, variance, v) if solver == "ancestral" else 0.0
        if solver == "ancestral" and not clip:
            mean = (y - (1 - alpha) / math.sqrt(1 - gamma) * eps) / math.sqrt(alpha)
            y = _noised(mean, spread, noise)
        else:
            y0 = (y - math.sqrt(1 - gamma) * eps) / math.sqrt(gamma)
            y0 = y0.clamp(-1, 1) if clip else y0
            if solver == "ancestral":
                mean = math.sqrt(gamma_prev) * (1 - alpha) * y0 + math.sqrt(alpha) * (1 - gamma_prev) * y
                y = _noised(mean / (1 - gamma), spread, noise)
            elif gamma_prev == 1.0:
                y = y0
            elif solver == "ddim":
                y = _ddim(y, y0, gamma, gamma_prev, eta, noise)
            else:
                y = _dpmpp_2m(y, y0, older, gamma, gamma_prev, eta, noise)
                older = (y0, _half_log_snr(gamma))
        yield y


def _noised(mean: Tensor, variance: float | Tensor, noise: Noise) -> Tensor:
    if isinstance(variance, Tensor):
        return mean + variance.sqrt() * noise()
    return mean + math.sqrt(variance) * noise() if variance > 0 else mean


def _ancestral_variance(
    alpha: float, gamma: float, gamma_prev: float, variance: Variance | Literal["learned"], v: Tensor
) -> float | Tensor:
    if gamma_prev == 1.0:  # the last step adds no noise
        return 0.0
    posterior = (1 - gamma_prev) / (1 - gamma) * (1 - alpha)
    if variance == "learned":
        return log_variance(v, math.log(posterior), math.log(1 - alpha)).exp()
    return 1 - alpha if variance == "beta" else posterior


def _ddim(y: Tensor, y0: Tensor, gamma: float, gamma_prev: float, eta: float, noise: Noise) -> Tensor:
    """Song et al. 2021, eq. 12 and 16; eta = 1 is the ancestral step with the posterior's variance."""
    variance = eta**2 * (1 - gamma_prev) / (1 - gamma) * (1 - gamma / gamma_prev)
    eps = (y - math.sqrt(gamma) * y0) / math.sqrt(1 - gamma)
    return _noised(math.sqrt(gamma_prev) * y0 + math.sqrt(1 - gamma_prev - variance) * eps, variance, noise)


def _half_log_snr(gamma: float) -> float:
    return 0.5 * math.log(gamma / (1 - gamma))


def _dpmpp_2m(
    y: Tensor,
    y0: Tensor,
    older: tuple[Tensor, float] | None,
    gamma: float,
    gamma_prev: float,
    eta: float,
    noise: Noise,
) -> Tensor:
    """One step of DPM-Solver++(2M), eta 0 (Lu et al. 2022, algorithm 2), or of SDE-DPM-Solver++(2M), eta 1 (eq. 18).

    Between them eta scales the SDE's noise as in k-diffusion. y_0 is extrapolated to the middle of the step in half
    log SNR, along the line through its last two estimates.
    """
    now, then = _half_log_snr(gamma), _half_log_snr(gamma_prev)
    h = then - now
    if older is not None:
        y0 = y0 + 0.5 * h / (now - older[1]) * (y0 - older[0])
    keep = math.sqrt((1 - gamma_prev) / (1 - gamma)) * math.exp(-eta * h)
    toward = -math.sqrt(gamma_prev) * math.expm1(-(1 + eta) * h)
    return _noised(keep * y + toward * y0, -(1 - gamma_prev) * math.expm1(-2 * eta * h), noise)


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
        noise = torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])
        if self.device.type == "cuda":  # a copy from pinned memory waits for nothing
            noise = noise.pin_memory()
        return noise.to(self.device, non_blocking=True)
