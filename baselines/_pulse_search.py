"""PULSE's search (Menon et al. 2020, arXiv:2003.03808): an image that StyleGAN can make and that shrinks to the input.

Projected gradient descent over latent vectors and noise maps, which stay on the spheres that they were drawn on.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.backends import cudnn

from baselines._stylegan import SLOPE, Synthesis
from sr3eval.errors import UserError

NoiseType = Literal["zero", "fixed", "trainable"]
Optimiser = Literal["sgd", "adam", "sgdm", "adamax"]
Schedule = Literal["fixed", "linear1cycle", "linear1cycledrop"]
Returned = Literal["last", "best"]
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "sgdm": partial(torch.optim.SGD, momentum=0.9),
    "adamax": torch.optim.Adamax,
}
TERMS = ("L1", "L2", "GEOCROSS")
Fit = tuple[Tensor, Tensor]  # mean and deviation [latent] of the mapping network's outputs before their activation
Draw = Callable[[tuple[int, ...]], Tensor]
LAYERS = 18  # of the released generator
TINY = 1e-9  # within square roots


@dataclass(frozen=True)
class Settings:
    """The options of the release's run.py that change outputs, by its names; UserError for values out of range."""

    loss_str: str
    eps: float
    noise_type: NoiseType
    num_trainable_noise_layers: int
    bad_noise_layers: str
    tile_latent: bool
    opt_name: Optimiser
    learning_rate: float
    steps: int
    lr_schedule: Schedule

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "num_trainable_noise_layers": 0, "eps": 0}.items():
            if not getattr(self, name) >= least:
                raise UserError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if not self.learning_rate > 0:
            raise UserError(f"learning_rate = {self.learning_rate}: must be positive")
        parsed_loss(self.loss_str)
        parsed_layers(self.bad_noise_layers)


def parsed_loss(text: str) -> dict[str, float]:
    """Weights by term, e.g. {"L2": 100.0, "GEOCROSS": 0.05} of "100*L2+0.05*GEOCROSS"; UserError for other texts."""
    weights: dict[str, float] = {}
    try:
        for part in text.split("+"):
            weight, term = part.split("*")
            weights[term.strip()] = weights.get(term.strip(), 0.0) + float(weight)
    except ValueError:
        weights = {}
    if not weights or not weights.keys() <= set(TERMS) or not all(map(math.isfinite, weights.values())):
        raise UserError(f'loss_str = "{text}": write it as "100*L2+0.05*GEOCROSS", of the terms {", ".join(TERMS)}')
    return weights


def parsed_layers(text: str) -> frozenset[int]:
    """E.g. {3, 17} of "3.17", none of ""; UserError for anything but layers of the released generator."""
    parts = text.split(".") if text else []
    if not all(part.isdecimal() and int(part) < LAYERS for part in parts):
        raise UserError(f'bad_noise_layers = "{text}": write it as "3.17", of the layers 0 to {LAYERS - 1}')
    return frozenset(map(int, parts))


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """Factor of the learning rate at `step`, of 0 to steps - 1."""
    if schedule == "fixed":
        return 1.0
    cycle = steps if schedule == "linear1cycle" else 0.9 * steps
    if step < cycle:
        return (9 * (1 - 2 * abs(step / cycle - 0.5)) + 1) / 10
    return 1 / 10 + (step - cycle) / (steps - cycle) * (1 / 1000 - 1 / 10)


def downscaling(side: int, size: int) -> Tensor:
    """The matrix D [size, side] that shrinks an image x by D x D^T, for a `size` that divides `side`.

    Keys' cubic with a = -0.5, antialiased. That is `images.bicubic_down`, except that it reflects images at their
    edges, where the other leaves out what lies beyond.
    """
    factor = side // size
    distances = ((torch.arange(4 * factor) - 2 * factor + 0.5) / factor).abs()
    near = 1.5 * distances**3 - 2.5 * distances**2 + 1
    far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
    taps = torch.where(distances <= 1, near, far)
    before = 3 * factor // 2
    after = 3 * factor - before
    rows = F.pad(torch.eye(side)[:, None], (before, after), mode="reflect")
    return F.conv1d(rows, (taps / taps.sum())[None, None], stride=factor)[:, 0].T.contiguous()


def geocross(w: Tensor) -> Tensor:
    """Mean squared geodesic distance between all pairs of latent vectors [layers, latent], times 64."""
    difference, total = w[:, None] - w, w[:, None] + w
    lengths = [(x.square().sum(-1) + TINY).sqrt() for x in (difference, total)]
    return (2 * torch.atan2(*lengths)).square().mul(512).mean() / 8


def radius(x: Tensor) -> Tensor:
    """Length over all axes but the first: each latent vector's, each noise map's."""
    return (x.square().sum(tuple(range(1, x.ndim)), keepdim=True) + TINY).sqrt()


@dataclass(frozen=True)
class Iterate:
    """An image [1, 3, H, W], not clamped, its loss, and the mean squared error l2 of its downscaled version.

    converged: whether l2 was at most eps here or at a step before.
    """

    image: Tensor
    loss: Tensor
    l2: Tensor
    converged: bool


class Search:
    """The search for one input [3, h, h] in [0, 1].

    draw: gives standard normal numbers of a shape; it is called for the latent vectors, then for each noise map in
    order.
    """

    @torch.inference_mode(False)  # what a caller in that mode would make here could not be differentiated
    def __init__(self, network: Synthesis, fit: Fit, lr: Tensor, settings: Settings, draw: Draw) -> None:
        self.network, self.lr, self.settings = network, lr.clone(), settings
        self.mean, self.std = fit
        self.weights, bad = parsed_loss(settings.loss_str), parsed_layers(settings.bad_noise_layers)
        self.shrink = downscaling(network.side, lr.shape[-1]).to(lr.device)
        self.latent = draw((1 if settings.tile_latent else network.layers, network.latent))
        self.noises = [
            None if settings.noise_type == "zero" or layer in bad else draw((1, side, side))
            for layer, side in enumerate(network.noise_sides)
        ]
        trainable = settings.num_trainable_noise_layers if settings.noise_type == "trainable" else 0
        self.variables = [self.latent, *(noise for noise in self.noises[:trainable] if noise is not None)]
        self.radii = [radius(variable) for variable in self.variables]
        for variable in self.variables:
            variable.requires_grad_()
        self.optimiser = OPTIMISERS[settings.opt_name](self.variables, lr=settings.learning_rate)

    def iterates(self) -> Iterator[Iterate]:
        """The drawn image, then that of each update: as many as steps. The release's last update is seen by nobody."""
        converged = False
        for step in range(self.settings.steps):
            image, loss, l2 = self.evaluate()
            converged = converged or bool(l2 <= self.settings.eps)
            yield Iterate(image.detach(), loss.detach(), l2.detach(), converged)
            if step + 1 < self.settings.steps:
                self.update(loss, step)

    def results(self, returned: Returned) -> Iterator[Iterate]:
        """After each step what is to be returned so far: the last image, or the first of the lowest loss."""
        kept = None
        for now in self.iterates():
            if kept is None or returned == "last" or not now.loss >= kept.loss:  # a loss of NaN is to be seen, too
                kept = now
            kept = replace(kept, converged=now.converged)
            yield kept

    @torch.inference_mode(False)
    @torch.enable_grad()
    @cudnn.flags(enabled=True, deterministic=True)
    def evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """The image of the variables, its loss and its mean squared error."""
        w = F.leaky_relu(self.latent * self.std + self.mean, SLOPE).expand(self.network.layers, -1)
        image = (self.network(w, self.noises) + 1) / 2
        error = self.shrink @ image[0] @ self.shrink.T - self.lr
        l2, eps = error.square().mean(), self.settings.eps
        terms = {
            "L1": lambda: 10 * error.abs().mean().clamp(min=eps),
            "L2": lambda: l2.clamp(min=eps),
            "GEOCROSS": lambda: geocross(w),
        }
        return image, torch.stack([weight * terms[name]() for name, weight in self.weights.items()]).sum(), l2

    @torch.inference_mode(False)
    @cudnn.flags(enabled=True, deterministic=True)
    def update(self, loss: Tensor, step: int) -> None:
        """One step of the optimiser, and back onto the spheres."""
        settings = self.settings
        self.optimiser.param_groups[0]["lr"] = settings.learning_rate * rate(settings.lr_schedule, step, settings.steps)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for variable, length in zip(self.variables, self.radii, strict=True):
                variable.mul_(length / radius(variable))
