"""The training objectives, as pure functions that return one loss per example."""

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]


def sr3_loss(model: Denoiser, x: Tensor, y0: Tensor, gamma: Tensor, noise: Tensor, p: int = 1) -> Tensor:
    """SR3's objective |f(x, sqrt(gamma) y0 + sqrt(1 - gamma) eps, gamma) - eps|_p^p, averaged over pixels: [N].

    x: enlarged LR, y0: HR, noise: eps ~ N(0, I), all [N, 3, H, W], images in [-1, 1]; gamma: [N]; p: 1 or 2
    (paper eq. 6; its final models use 1).
    """
    g = gamma.to(y0.dtype)[:, None, None, None]
    y = g.sqrt() * y0 + (1 - g).sqrt() * noise
    return _distance(model(x, y, gamma.to(y0.dtype)), noise, p)


def regression_loss(model: Callable[[Tensor], Tensor], x: Tensor, y0: Tensor, p: int = 2) -> Tensor:
    """The Regression model's objective |f(x) - y0|_p^p, averaged over pixels: [N]. The paper uses MSE."""
    return _distance(model(x), y0, p)


def _distance(prediction: Tensor, target: Tensor, p: int) -> Tensor:
    difference = (prediction.float() - target).abs()
    return torch.mean(difference if p == 1 else difference.square(), dim=(1, 2, 3))
