"""The Regression baseline of the paper as a Method: SR3's U-Net without noise, one pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sr3eval.device import default_device
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion.padding import pad
from sr3eval.images import bicubic_up, from_signed, to_signed
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.tiles import WHOLE, Tiles


def regress(model: Callable[[Tensor], Tensor], lr: Tensor, size: tuple[int, int]) -> Tensor:
    """lr [N, 3, h, w] in [0, 1] to [N, 3, H, W] in [0, 1]."""
    x = to_signed(bicubic_up(lr, size)).contiguous(memory_format=torch.channels_last)
    return from_signed(model(x))


class Regression(Method):
    """A trained Regression checkpoint."""

    scale: int

    def __init__(self, weights: checkpoints.Checkpoint, tiles: Tiles = WHOLE, half: bool = False) -> None:
        self.name = "regression"
        self.scale = weights.config.target.scale
        self.fingerprint = fingerprint("regression", weights.sha256, tiles, *(["half"] if half else []))
        self.tiles = tiles
        self.facts = Facts({"checkpoint": weights.sha256}, settings="half = True" if half else "")
        self.device = default_device()
        self.model = weights.model_on(self.device, half)

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, H, W], float32 in [0, 1]; any size (see `pad`). Seeds are not used."""
        return Upscaled(self.tiles.upscale(self._whole, lr.to(self.device), self.scale, progress).cpu())

    def _whole(self, lr: Tensor) -> Tensor:
        """An image or a tile of one, on the device."""
        enlarged, size = pad(lr, self.scale, self.model.unet.config.factor)
        height, width = (self.scale * side for side in lr.shape[-2:])
        return regress(self.model, enlarged, size)[..., :height, :width]
