"""EnhanceNet (Sajjadi et al. 2017, arXiv:1612.07919): ENet-PAT 4x, its one released model.

Reads the file `weights` of github.com/msmsajjadi/EnhanceNet-Code, a TensorFlow V1 checkpoint.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines._fingerprints import options_text
from baselines._pixels import Quantize, half_up, on_official_grid
from baselines._tensorflow_table import MAGIC, read_table
from sr3eval.device import default_device
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.tiles import Tiles
from sr3eval.weights import Format, Release, StateDict, load_state

RELEASES = (
    Release(
        "EnhanceNet",
        "weights",
        "github.com/msmsajjadi/EnhanceNet-Code",
        "CC BY-NC-ND 4.0, non-commercial",
        3418142,
        "4250b3dc5e69c5bd625e90543fd588ce2fff88510f874f9e9394c48c44b96434",
    ),
)
FORMATS = (Format("a TensorFlow V1 table; it looks like EnhanceNet's `weights` (kind enhancenet)", ends=(MAGIC,)),)
SCALE = 4
RGB_MEANS = (0.47614917, 0.45001204, 0.40904046)
VARIABLE = re.compile(r"generator/Conv(?:_([1-9]\d*))?/(weights|biases)")
UNPAIRED = 5  # convolutions outside the residual blocks, which have two each


class Doubling(nn.Conv2d):
    """A 3x3 convolution of [N, C, h, w] enlarged 2x by nearest neighbour, at 4/9 of the work.

    Enlarging repeats pixels, so it and the taps that meet the same pixel make one transposed convolution, of 4x4.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel = 4 * F.avg_pool2d(self.weight.flip(2, 3), 2, stride=1, padding=1)
        return F.conv_transpose2d(x, kernel.transpose(0, 1), self.bias, stride=2, padding=1)


class ToPixels(nn.Conv2d):
    """A 3x3 convolution to few channels as one matrix product to all their taps, which are then added up.

    Convolution libraries waste most of their width on three outputs.
    """

    def forward(self, x: Tensor) -> Tensor:
        taps = self.weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)  # [3 * 9, C]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)  # [N, C, H * W], no copy where channels are last
        assert self.bias is not None
        return F.fold(taps @ pixels, x.shape[-2:], 3, padding=1) + self.bias[:, None, None]


class ENet(nn.Module):
    """RGB [N, 3, h, w], less RGB_MEANS, to [N, 3, 4h, 4w] likewise: a residual on `legacy_bicubic`, not clamped.

    channels, blocks: 64 and 10 in the release.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        kinds = [nn.Conv2d] * (1 + 2 * blocks) + [Doubling] * 2 + [nn.Conv2d, ToPixels]
        widths = [3] + [channels] * (len(kinds) - 1) + [3]
        layers = zip(kinds, pairwise(widths), strict=True)
        self.convs = nn.ModuleList(kind(*sizes, 3, padding=1) for kind, sizes in layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + legacy_bicubic(x)

    def residual(self, x: Tensor) -> Tensor:
        first, *paired, up_2x, up_4x, hidden, last = self.convs
        x = first(x).relu_()
        for one, other in zip(paired[::2], paired[1::2], strict=True):
            x = x + other(one(x).relu_())
        for conv in (up_2x, up_4x, hidden):
            x = conv(x).relu_()
        return last(x)


def legacy_bicubic(images: Tensor) -> Tensor:
    """[N, C, h, w] to [N, C, 4h, 4w] as TensorFlow 1's resize_images: the skip that the network's residual belongs to.

    Keys' cubic with a = -0.75 and edges clamped; output pixel i samples the input at i / 4, where resizes today sample
    it at (i + 0.5) / 4 - 0.5, half a pixel's centre apart.
    """
    phases = torch.tensor([[_cubic(abs(phase / SCALE - tap)) for tap in (-1, 0, 1, 2)] for phase in range(SCALE)])
    kernels = torch.einsum("ai,bj->abij", phases, phases).reshape(SCALE**2, 1, 4, 4).to(images)
    planes = F.pad(images.flatten(0, 1)[:, None], (1, 2, 1, 2), mode="replicate")
    return F.pixel_shuffle(F.conv2d(planes, kernels), SCALE).unflatten(0, images.shape[:2])[:, :, 0]


def _cubic(distance: float) -> float:
    """The weight of a pixel at a distance of up to 2 pixels (Keys 1981, with a = -0.75)."""
    a = -0.75
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance**2 + 1
    return a * (((distance - 5) * distance + 8) * distance - 4)


class EnhanceNet(Method):
    """ENet-PAT as a Method; deterministic."""

    name = "enhancenet"
    scale = SCALE

    def __init__(self, network: ENet, sha256: str, quantize: Quantize, tiles: Tiles) -> None:
        self.facts = Facts({"weights": sha256}, lr_kernel="Pillow Lanczos")
        self.quantize, self.tiles = quantize, tiles
        settings = options_text(weights=sha256, quantize=quantize, tiles=tiles)
        self.fingerprint = fingerprint(self.name, settings)
        self.device = default_device()
        network = network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.means = torch.tensor(RGB_MEANS, device=self.device)[:, None, None]

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, 4h, 4w], both float32 in [0, 1]; any size. Seeds are not used."""
        x = lr.to(self.device).contiguous(memory_format=torch.channels_last) - self.means
        sr = self.tiles.upscale(self.network, x, SCALE, progress) + self.means
        return Upscaled(on_official_grid(sr, self.quantize, half_up).cpu())


def build(*, weights: str, quantize: Quantize = "official", tile: int | None = None, overlap: int = 16) -> EnhanceNet:
    """Load ENet-PAT, or another network of its layout.

    Args:
        weights: the release's file of that name (CC BY-NC-ND 4.0).
        quantize: "official" is 8 bit by `half_up`, "none" keeps floats.
        tile, overlap: pixels of the input, see `Tiles`; without tile, images are taken whole. Tiles give the same from
            an overlap of 31 on, and differ by less than 1e-3 at 16.

    Raises:
        UserError: a file that holds no such network, or an option out of range.
    """
    tiles = Tiles(tile, overlap)
    saved = read_table(weights, "enhancenet")
    state = convolutions(saved)
    network = ENet(state["convs.0.bias"].numel(), (len(state) // 2 - UNPAIRED) // 2)
    load_state(network, state, saved, "enhancenet")
    return EnhanceNet(network, saved.sha256, quantize, tiles)


def convolutions(saved: StateDict) -> dict[str, Tensor]:
    """State dict of an ENet from TensorFlow's variables, whose kernels are [height, width, in, out].

    Variables of other names, such as an optimiser's, are left out, as TensorFlow does. UserError without the first.
    """
    state = {}
    for name, value in saved.weights.items():
        if found := VARIABLE.fullmatch(name):
            kernel = found[2] == "weights"
            key = f"convs.{int(found[1] or 0)}.{'weight' if kernel else 'bias'}"
            state[key] = value.permute(3, 2, 0, 1) if kernel and value.ndim == 4 else value
    if "convs.0.bias" not in state or len(state) < 2 * UNPAIRED:
        raise saved.wrong("enhancenet", "its variables are not generator/Conv/weights and on")
    return state
