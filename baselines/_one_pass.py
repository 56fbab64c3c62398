"""Networks that upscale in one pass, as Methods."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines._fingerprints import options_text
from baselines._pixels import Quantize, on_official_grid
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.images import round_to_8bit
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.tiles import Tiles


def precision(half: bool, device: torch.device) -> torch.dtype:
    """What a network computes in; UserError for half precision on a CPU, which is slower there than single."""
    if half and device.type == "cpu":
        raise UserError("half = true: half precision needs a GPU, and this machine has none; leave it out")
    return torch.float16 if half else torch.float32


class OnePass(Method):
    """A network from RGB in [0, 1] to RGB that is clamped to it, and rounded to 8 bit where that is official."""

    scale: int

    def __init__(
        self,
        network: nn.Module,
        scale: int,
        facts: Facts,
        quantize: Quantize,
        tiles: Tiles,
        half: bool,
        **settings: object,
    ) -> None:
        self.scale, self.facts, self.quantize, self.tiles = scale, facts, quantize, tiles
        options = options_text(**facts.checksums, quantize=quantize, tiles=tiles, half=half, scale=scale, **settings)
        self.fingerprint = fingerprint(self.name, options)
        self.device = default_device()
        self.dtype = precision(half, self.device)
        network = network.eval().requires_grad_(False)
        self.network = network.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, scale * h, scale * w], both float32 in [0, 1]; any size. Seeds are not used."""
        x = lr.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        sr = self.tiles.upscale(self.network, x, self.scale, progress).float()
        return Upscaled(on_official_grid(sr, self.quantize, round_to_8bit).cpu())
