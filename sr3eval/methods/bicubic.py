"""Bicubic interpolation (Keys, a = -0.5), the baseline of every table."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sr3eval.device import threads
from sr3eval.images import bicubic_up
from sr3eval.method import Method, Progress, Upscaled, fingerprint


class Bicubic(Method):
    """Keys' cubic with a = -0.5, clamped: the baseline of every table, and the example of a Method."""

    name = "bicubic"
    device = torch.device("cpu")

    def __init__(self, scale: int) -> None:
        self.scale: int = scale
        self.fingerprint = fingerprint("bicubic a=-0.5", scale)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, h * scale, w * scale] in [0, 1]; seeds are not used."""
        height, width = lr.shape[-2:]
        with threads(1):
            return Upscaled(bicubic_up(lr, (height * self.scale, width * self.scale)).clamp(0, 1))


def build(*, scale: int) -> Bicubic:
    """scale: the task's, in a run."""
    return Bicubic(scale)
