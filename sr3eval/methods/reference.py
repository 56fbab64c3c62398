"""The HR images themselves: the row "Reference" or "Baseline" of papers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.images import load
from sr3eval.method import Method, Progress, Upscaled, fingerprint


class Reference(Method):
    """The HR images themselves, as a row of tables ("Reference", "Baseline") that no method is compared with."""

    name = "reference"
    copied = True
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.fingerprint = fingerprint(self.name)

    def lookup(self, image_id: str, hr: Path) -> Tensor:
        """The HR image itself."""
        return load(hr)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """Refused: HR is there, or it is not."""
        raise UserError("reference is the HR images themselves and cannot upscale others")


def build() -> Reference:
    """It has no options."""
    return Reference()
