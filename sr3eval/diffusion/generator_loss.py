"""The objectives of generators: DDPM's (Ho et al. 2020) and Improved DDPM's (Nichol & Dhariwal 2021)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sr3eval.diffusion.schedule import NoiseSchedule, log_variance

GeneratorModel = Callable[[Tensor, Tensor, Tensor | None], Tensor]
VLB_WEIGHT = 0.001  # lambda of L_hybrid = L_simple + lambda L_vlb


@dataclass(frozen=True)
class Levels:
    """What the loss needs of the levels t, from 0, the least noise, to T - 1: float32, [T], or of the levels `at`.

    Attributes:
        gamma: gamma_t.
        signal, noise: of y_t = signal y_0 + noise eps.
        mean: how far the mean of q(y_{t-1} | y_t, y_0) moves by eps: beta_t / sqrt((1 - gamma_t) alpha_t).
        log_posterior: log of that distribution's variance; at t = 0, where it is 0, that of t = 1.
        log_beta: log beta_t, the largest that the variance may be.
    """

    gamma: Tensor
    signal: Tensor
    noise: Tensor
    mean: Tensor
    log_posterior: Tensor
    log_beta: Tensor

    @classmethod
    def of(cls, schedule: NoiseSchedule, device: torch.device) -> "Levels":
        """All levels of a schedule, from float64."""
        alpha, gamma = schedule.alphas, schedule.gammas
        beta, before = 1 - alpha, torch.cat([torch.ones(1, dtype=torch.float64), gamma[:-1]])
        log_posterior = (beta * (1 - before) / (1 - gamma)).log()
        log_posterior[0] = log_posterior[1] if len(schedule) > 1 else beta[0].log()
        mean = beta / ((1 - gamma) * alpha).sqrt()
        tables = (gamma, gamma.sqrt(), (1 - gamma).sqrt(), mean, log_posterior, beta.log())
        return cls(*(table.float().to(device) for table in tables))

    def at(self, t: Tensor) -> "Levels":
        """Those of t [N], int64: [N, 1, 1, 1]."""
        return Levels(*(getattr(self, field.name)[t][:, None, None, None] for field in fields(self)))


def generator_loss(
    model: GeneratorModel, y0: Tensor, t: Tensor, noise: Tensor, levels: Levels, labels: Tensor | None = None
) -> Tensor:
    """DDPM's L_simple = |eps(y_t, gamma_t) - eps|^2, averaged over pixels: [N]; of a model of variances, L_hybrid.

    y0: images in [-1, 1]; noise: eps ~ N(0, I), both [N, 3, H, W]; t: int64 [N], from 0 to T - 1; levels: all T.
    L_hybrid = L_simple + 0.001 L_vlb, with L_vlb in bits a dimension, estimated as T times the term of the level t. It
    trains the variances alone.
    """
    at = levels.at(t)
    output = model(at.signal * y0 + at.noise * noise, at.gamma.flatten(), labels).float()
    eps = output[:, :3]
    simple = (eps - noise).square().mean(dim=(1, 2, 3))
    if output.shape[1] == 3:
        return simple
    shift = at.mean * (eps.detach() - noise)  # from the model's mean of y_{t-1} to the posterior's
    term = _vlb_term(shift, log_variance(output[:, 3:], at.log_posterior, at.log_beta), y0, t, at.log_posterior)
    return simple + VLB_WEIGHT * len(levels.gamma) * term


def _vlb_term(shift: Tensor, log_var: Tensor, y0: Tensor, t: Tensor, log_posterior: Tensor) -> Tensor:
    """The level's term of the variational bound in bits a dimension: [N].

    KL(q(y_{t-1} | y_t, y_0) || p(y_{t-1} | y_t)), and at t = 0, where the shift is y_0 less the model's estimate of it,
    the negative log likelihood of the 8-bit image.
    """
    divergence = 0.5 * (log_var - log_posterior - 1 + (log_posterior - log_var).exp() + shift**2 * (-log_var).exp())
    decoder = -_log_likelihood(shift, (-0.5 * log_var).exp(), y0)
    nats = torch.where((t == 0)[:, None, None, None], decoder, divergence)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def _log_likelihood(centred: Tensor, inverse_deviation: Tensor, y0: Tensor) -> Tensor:
    """Log of the probability that a Gaussian gives the bin of y_0, of 2/255; the bins of -1 and 1 reach to infinity."""
    above = _cdf(inverse_deviation * (centred + 1 / 255))
    below = _cdf(inverse_deviation * (centred - 1 / 255))
    above = torch.where(y0 > 0.999, 1.0, above)
    below = torch.where(y0 < -0.999, 0.0, below)
    return (above - below).clamp(min=1e-12).log()


def _cdf(x: Tensor) -> Tensor:
    """Of the standard normal, by the tanh approximation that both papers' code takes (GELU's, within 2e-4)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
