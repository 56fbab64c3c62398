"""Self-ensemble (Timofte et al. 2016, arXiv:1511.02228): the rows with a plus in the literature's tables, as EDSR+."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sr3eval.discovery import Builder
from sr3eval.errors import UserError
from sr3eval.images import Size, round_to_8bit
from sr3eval.method import Method, Progress, Upscaled, fingerprint

SYMMETRIES = 8


class SelfEnsemble(Method):
    """The mean of what a method makes of an image's eight flips and turns, each turned back.

    Give it a method that keeps its floats, and rounded = True for a mean of 8 bit. Of a method that draws noise it is
    the mean of eight samples, smoother than any of them. Raises UserError for outputs that are looked up.
    """

    def __init__(self, method: Method, rounded: bool) -> None:
        if method.copied:
            raise UserError(f"ensemble = true: {method.name} only has finished outputs; give it those of an ensemble")
        self.method, self.rounded = method, rounded
        self.name, self.scale, self.lr_size, self.device = method.name, method.scale, method.lr_size, method.device
        self.facts, self.one_by_one = method.facts, method.one_by_one
        self.deterministic, self.stochastic = method.deterministic, method.stochastic
        self.fingerprint = fingerprint("self-ensemble", method.fingerprint, rounded)

    @property
    def inner(self) -> Method:
        return self.method

    def check(self, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        """The method's own."""
        self.method.check(ids, sizes)

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, H, W] in [0, 1]; seeds are the method's, notes are those on the image as it stands."""
        as_it_stands = self.method.upscale(lr, seeds, _part(progress, 0))
        total = as_it_stands.images.clone()
        for k in range(1, SYMMETRIES):
            total += turned_back(self.method.upscale(turned(lr, k), seeds, _part(progress, k)).images, k)
        mean = total / SYMMETRIES
        return Upscaled(round_to_8bit(mean) if self.rounded else mean, as_it_stands.notes)


def self_ensemble(build: Builder, **options: Any) -> SelfEnsemble:
    """Ensemble what a builder gives for these options. Floats are averaged; its `quantize` is for the mean alone."""
    if "quantize" not in inspect.signature(build).parameters:
        return SelfEnsemble(build(**options), rounded=False)
    official = options.get("quantize", "official") == "official"
    return SelfEnsemble(build(**options | {"quantize": "none"}), rounded=official)


def turned(images: Tensor, k: int) -> Tensor:
    """One of the eight symmetries of a square, of [..., h, w]: k quarter turns, mirrored first from the fifth on."""
    return (images.flip(-1) if k >= SYMMETRIES // 2 else images).rot90(k, (-2, -1)).contiguous()


def turned_back(images: Tensor, k: int) -> Tensor:
    """The inverse of `turned`."""
    upright = images.rot90(-k, (-2, -1))
    return upright.flip(-1) if k >= SYMMETRIES // 2 else upright


def _part(progress: Progress | None, k: int) -> Progress | None:
    """The progress of the k-th of the eight, as a share of all."""
    return progress and (lambda share: progress((k + share) / SYMMETRIES))
