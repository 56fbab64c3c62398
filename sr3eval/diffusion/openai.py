"""openai's released class-conditional generators of 64x64 ImageNet pictures: their network, by its own names.

`64x64_diffusion.pt` is guided-diffusion's (Dhariwal & Nichol 2021; read at 22e0df8), `imagenet64_cond_270M_250K.pt`
improved-diffusion's (Nichol & Dhariwal 2021; read at 1bc7bbb), the paper's first stage for ImageNet. Both give the
noise and the v of its variances, as `ImprovedDDPMPreconditioner` does, but know a level by its number.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.weights import Release, StateDict, load_state, locate, read

GROUPS = 32
NAME = "openai's generator"
KEYS = {NAME: r"label_emb\.weight"}


@dataclass(frozen=True)
class Structure:
    """Sizes of the network.

    Attributes:
        channels, multipliers, blocks: as in `UNetConfig`.
        attention: how many times smaller than the image the levels with self-attention are.
        heads: of the attention; head_channels: or else the width of each.
        classes: how many labels there are.
        block_resampling: residual blocks change the resolution (guided-diffusion), not convolutions.
        steps: levels of its training, on the cosine schedule.
    """

    channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (2, 4, 8)
    heads: int | None = None
    head_channels: int = 64
    classes: int = 1000
    block_resampling: bool = True
    steps: int = 1000
    image_size: int = field(default=64, kw_only=True)


GUIDED = Structure()
IMPROVED = Structure(attention=(4, 8), heads=4, block_resampling=False, steps=4000)
HOST = "https://openaipublic.blob.core.windows.net/diffusion"
RELEASES = (
    Release(
        "guided-diffusion 64x64, class-conditional",
        "64x64_diffusion.pt",
        "github.com/openai/guided-diffusion",
        "MIT",
        url=f"{HOST}/jul-2021/64x64_diffusion.pt",
    ),
    Release(
        "improved-diffusion 64x64, class-conditional",
        "imagenet64_cond_270M_250K.pt",
        "github.com/openai/improved-diffusion",
        "MIT",
        url=f"{HOST}/march-2021/imagenet64_cond_270M_250K.pt",
    ),
)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)


class Residual(nn.Module):
    """norm, SiLU, (up|down), conv, norm, time as scale and shift, SiLU, conv; plus its input."""

    def __init__(self, inputs: int, outputs: int, embedding: int, resample: str | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outputs))
        self.out_layers = nn.Sequential(  # the third is their dropout, for the names' numbers
            norm(outputs), nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        normed, activation, conv = self.in_layers
        h = conv(self._resampled(activation(normed(x))))
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        return self.skip_connection(self._resampled(x)) + h

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x


class Attention(nn.Module):
    """Multi-head self-attention over all positions. heads_first: each head has its own q, k, v beside each other."""

    def __init__(self, channels: int, heads: int, heads_first: bool) -> None:
        super().__init__()
        self.heads, self.heads_first = heads, heads_first
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        flat = x.flatten(2)
        each = (self.heads, 3) if self.heads_first else (3, self.heads)
        qkv = self.qkv(self.norm(flat)).unflatten(1, (*each, -1)).transpose(-1, -2)  # [N, *each, HW, C]
        q, k, v = qkv.unbind(2 if self.heads_first else 1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).flatten(1, 2)
        return x + self.proj_out(attended).view_as(x)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Embedded(nn.ModuleList):
    """Layers one after the other, each with the embedding."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            h = layer(h) if isinstance(layer, nn.Conv2d) else layer(h, embedding)
        return h


class Network(nn.Module):
    """(y [N, 3, H, W], t [N], labels [N]) to [N, 6, H, W]: the noise in y and v; t counts levels from 0."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = s = structure
        embedding, widths = 4 * s.channels, [s.channels * m for m in s.multipliers]
        self.time_embed = nn.Sequential(nn.Linear(s.channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label_emb = nn.Embedding(s.classes, embedding)

        def attention(width: int) -> Attention:
            return Attention(width, s.heads or width // s.head_channels, heads_first=s.heads is not None)

        def stage(inputs: int, outputs: int, level: int) -> Embedded:
            layers: list[nn.Module] = [Residual(inputs, outputs, embedding)]
            return Embedded([*layers, attention(outputs)] if 2**level in s.attention else layers)

        def resampling(width: int, way: str) -> nn.Module:
            if s.block_resampling:
                return Residual(width, width, embedding, way)
            return Down(width) if way == "down" else Up(width)

        width, skips = widths[0], [widths[0]]
        self.input_blocks = nn.ModuleList([Embedded([nn.Conv2d(3, width, 3, padding=1)])])
        for level, target in enumerate(widths):
            for _ in range(s.blocks):
                self.input_blocks.append(stage(width, target, level))
                width = target
                skips.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(Embedded([resampling(width, "down")]))
                skips.append(width)
        middle = [Residual(width, width, embedding), attention(width), Residual(width, width, embedding)]
        self.middle_block = Embedded(middle)
        self.output_blocks = nn.ModuleList()
        for level, target in reversed(list(enumerate(widths))):
            for number in range(s.blocks + 1):
                layers = stage(width + skips.pop(), target, level)
                width = target
                if level and number == s.blocks:
                    layers.append(resampling(width, "up"))
                self.output_blocks.append(layers)
        self.out = nn.Sequential(norm(width), nn.SiLU(), nn.Conv2d(width, 6, 3, padding=1))

    def forward(self, y: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        embedding = self.time_embed(sinusoids(t, self.structure.channels)) + self.label_emb(labels)
        h, skips = y, []
        for block in self.input_blocks:
            h = block(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.out(h)


def sinusoids(t: Tensor, channels: int) -> Tensor:
    """[N] to [N, channels]: cosines, then sines, of t by frequencies from 1 down to 1/10000."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ByLevel(nn.Module):
    """f(y, gamma, labels) = F(y, t, labels), t being the level of the training whose gamma is nearest."""

    gammas: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("gammas", NoiseSchedule.cosine(network.structure.steps).gammas.float(), persistent=False)

    def forward(self, y: Tensor, gamma: Tensor, labels: Tensor) -> Tensor:
        t = (self.gammas - gamma.float()[:, None]).abs().argmin(dim=1)
        return self.network(y, t, labels)


def load(checkpoint: str, path: Path) -> tuple[StateDict, ByLevel]:
    """The file at `path`, or the release that `checkpoint` names where there is no such file.

    Raises UserError for a file that holds other weights, or none, and for a release that cannot be downloaded.
    """
    release = next((release for release in RELEASES if release.file == checkpoint), None)
    saved = read(locate(release) if release is not None and not path.exists() else path, NAME)
    return saved, ByLevel(network_of(saved))


def network_of(saved: StateDict, guided: Structure = GUIDED, improved: Structure = IMPROVED) -> Network:
    """The network with these weights: which of the two it is, and how many classes it has, its keys tell."""
    structure = improved if any(key.endswith(".op.weight") for key in saved.weights) else guided
    if "label_emb.weight" not in saved.weights:
        raise saved.wrong(NAME, "no label_emb.weight: not a class-conditional one")
    structure = replace(structure, classes=len(saved.weights["label_emb.weight"]))
    with torch.device("meta"):
        network = Network(structure)
    load_state(network, {name: tensor.float() for name, tensor in saved.weights.items()}, saved, NAME)
    return network.requires_grad_(False)
