"""Bicubic interpolation (Keys, a = -0.5), the baseline of every table."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sr3eval import matlab
from sr3eval.device import threads
from sr3eval.images import bicubic_up
from sr3eval.method import Method, Progress, Upscaled, fingerprint

Kernel = Literal["bicubic", "matlab"]


class Bicubic(Method):
    """Keys' cubic with a = -0.5, clamped: the baseline of every table, and the example of a Method.

    kernel: "bicubic" weighs what lies within the border, "matlab" mirrors the image there, as MATLAB's imresize does.
    """

    name = "bicubic"
    device = torch.device("cpu")

    def __init__(self, scale: int, kernel: Kernel = "bicubic") -> None:
        self.scale: int = scale
        self.kernel = kernel
        self.fingerprint = fingerprint("bicubic a=-0.5", kernel, scale)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, h * scale, w * scale] in [0, 1]; seeds are not used."""
        height, width = lr.shape[-2:]
        resize = bicubic_up if self.kernel == "bicubic" else matlab.imresize
        with threads(1):
            return Upscaled(resize(lr, (height * self.scale, width * self.scale)).clamp(0, 1))


def build(*, scale: int, kernel: Kernel = "bicubic") -> Bicubic:
    """Bicubic interpolation.

    Args:
        scale: the task's, in a run.
        kernel: see `Bicubic`; what papers on Set5 and its like call Bicubic is "matlab".
    """
    return Bicubic(scale, kernel)
