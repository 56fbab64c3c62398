"""What the U-Net's inputs and outputs mean: the paper's models, around one plain network, as in EDM.

Loss and solvers see the models alone: SR3's f(x, y, gamma) gives the noise in y, Regression's f(x) the image, a
generator's f(y, gamma, labels) the noise again. x is the low-resolution image, already enlarged to the target size,
[N, 3, H, W] in [-1, 1]; y a noisy image of the same shape; gamma [N] in (0, 1]; labels [N] of int64, or None. H and W
are multiples of `UNetConfig.factor`. Files hold the weights of `unet`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from sr3eval.diffusion.unet import UNet, UNetConfig

Model = Literal["sr3", "regression", "ddpm", "improved_ddpm"]


class Preconditioner(nn.Module):
    """A U-Net behind one of the paper's models."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet


class SR3Preconditioner(Preconditioner):
    """eps = F([x, y], gamma), the paper's: the network F predicts the noise."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(UNet(config, inputs=6, conditional=True))

    def forward(self, x: Tensor, y: Tensor, gamma: Tensor) -> Tensor:
        return self.unet(torch.cat([x, y], dim=1), gamma)


class ResidualSR3Preconditioner(SR3Preconditioner):
    """eps as the best linear guess for details r = y_0 - x of standard deviation s, `residual_scale`, corrected by F.

    d = y - sqrt(gamma) x = sqrt(gamma) r + sqrt(1 - gamma) eps is a noisy image of the details, of variance
    v = gamma s^2 + 1 - gamma. With the scaling of EDM (Karras et al. 2022, sigma_data = s)

        eps = sqrt(1 - gamma) / v d + sqrt(gamma / v) s F([x, d / sqrt(v)], gamma).

    Untrained, where F is 0, this is E[eps] for r ~ N(0, s^2), and samples are x plus details that average to zero. A
    small network keeps colours that way, which group norm otherwise makes it learn slowly; objective and sampler are
    the same.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.residual_scale = config.residual_scale

    def forward(self, x: Tensor, y: Tensor, gamma: Tensor) -> Tensor:
        s, g = self.residual_scale, gamma[:, None, None, None]
        variance = g * s**2 + (1 - g)
        details = y - g.sqrt() * x
        correction = super().forward(x, details / variance.sqrt(), gamma)
        return (1 - g).sqrt() / variance * details + (g / variance).sqrt() * s * correction


class RegressionPreconditioner(Preconditioner):
    """y_0 = x + F(x)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(UNet(config, inputs=3, conditional=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.unet(x)


class DDPMPreconditioner(Preconditioner):
    """eps = F(y, gamma, labels): the noise, as Ho et al. (2020) predict it; the level is gamma, as everywhere here."""

    def __init__(self, config: UNetConfig, outputs: int = 3) -> None:
        super().__init__(UNet(config, inputs=3, outputs=outputs))

    def forward(self, y: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.unet(y, gamma, labels)


class ImprovedDDPMPreconditioner(DDPMPreconditioner):
    """[eps, v] = F(y, gamma, labels), [N, 6, H, W]: the noise, and how large the variances of the way back are.

    v is the share, from -1 to 1, of the way from the posterior's log variance to log beta (Nichol & Dhariwal 2021,
    eq. 15, with (v + 1) / 2 as in their code).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, outputs=6)


def precondition(model: Model, config: UNetConfig) -> Preconditioner:
    """An untrained model of these sizes."""
    if model == "regression":
        return RegressionPreconditioner(config)
    if model == "ddpm":
        return DDPMPreconditioner(config)
    if model == "improved_ddpm":
        return ImprovedDDPMPreconditioner(config)
    return ResidualSR3Preconditioner(config) if config.residual_scale else SR3Preconditioner(config)


def output_weight(gamma: Tensor, residual_scale: float) -> Tensor:
    """What the noise's error is multiplied by to be that of F in `ResidualSR3Preconditioner`: [N], at least 1."""
    signal = gamma * residual_scale**2
    return ((signal + 1 - gamma) / signal).sqrt()
