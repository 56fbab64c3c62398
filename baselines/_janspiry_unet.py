"""The U-Net of Janspiry's SR3: DDPM's, conditioned on the unscaled sqrt(gamma), which each block adds as a bias.

Modules are named so that their keys are those of the released files.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Structure:
    """Sizes of the U-Net.

    channels: of the first convolution and of the noise level. widths: channels of every level, from full resolution
    down. blocks: residual blocks a level (one more on the way up). attention: whether each level's blocks attend; the
    middle always does. groups: of every group norm; must divide all widths.
    """

    channels: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    groups: int

    @property
    def factor(self) -> int:
        """Sides of inputs must be multiples of this."""
        return int(2 ** (len(self.widths) - 1))


def structure(weights: Mapping[str, Tensor], groups: int | None) -> Structure:
    """The structure of a state dict. Raises KeyError, IndexError or ValueError where it has other layers.

    groups leaves no trace in weights. None: those of the release with such multipliers, 16 for (1, 2, 4, 8, 16) of
    64 -> 512, else 32 as in 16 -> 128.
    """
    channels = weights["downs.0.weight"].shape[0]
    levels: list[list[str]] = [[]]
    for layer in sorted({int(key.split(".")[1]) for key in weights if key.startswith("downs.")} - {0}):
        if f"downs.{layer}.conv.weight" in weights:
            levels.append([])
        else:
            levels[-1].append(f"downs.{layer}")
    widths = tuple(weights[f"{blocks[0]}.res_block.block2.block.3.weight"].shape[0] for blocks in levels)
    attention = tuple(f"{blocks[0]}.attn.qkv.weight" in weights for blocks in levels)
    is_512 = widths == tuple(channels * multiplier for multiplier in (1, 2, 4, 8, 16))
    return Structure(channels, widths, len(levels[0]), attention, groups or (16 if is_512 else 32))


def nested(name: str, *layers: nn.Module) -> nn.Sequential:
    """Layers in sequence, with the keys name.0, name.1 and so on."""
    return nn.Sequential(OrderedDict({name: nn.Sequential(*layers)}))


def normalised_conv(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    dropout = nn.Identity()  # takes the place of training's
    return nested("block", nn.GroupNorm(groups, inputs), nn.SiLU(), dropout, nn.Conv2d(inputs, outputs, 3, padding=1))


class ResidualBlock(nn.Module):
    """(norm, SiLU, conv) twice, with the noise level [N, embedding] added between, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.block1 = normalised_conv(inputs, outputs, groups)
        self.noise_func = nested("noise_func", nn.Linear(embedding, outputs))
        self.block2 = normalised_conv(outputs, outputs, groups)
        self.res_conv = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.block1(x) + self.noise_func(level)[:, :, None, None]
        return self.block2(h) + self.res_conv(x)


class SelfAttention(nn.Module):
    """Single-head self-attention over all positions of [N, C, H, W], added to its input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)  # [N, 1, HW, C]
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.squeeze(1).transpose(1, 2).reshape(x.shape))


class Stage(nn.Module):
    """A residual block, and self-attention where the level attends."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.res_block = ResidualBlock(inputs, outputs, embedding, groups)
        self.attn = SelfAttention(outputs, groups) if attends else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.attn(self.res_block(x, level))


class Resample(nn.Module):
    """A level down by a strided convolution, or up by repeated pixels and a convolution."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2) if up else nn.Identity()
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor, _level: Tensor) -> Tensor:
        return self.conv(self.up(x))


class NoiseLevel(nn.Module):
    """sqrt(gamma) [N] in (0, 1] to [N, channels]: sines and cosines at angular frequencies 1 down to about 1e-4.

    WaveGrad multiplies its levels by 5000 here and Janspiry's weights were trained without.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequencies = channels // 2

    def forward(self, level: Tensor) -> Tensor:
        exponents = torch.arange(self.frequencies, dtype=level.dtype, device=level.device) / self.frequencies
        angles = level[:, None] * torch.exp(-math.log(1e4) * exponents)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class UNet(nn.Module):
    """f(x, y, gamma) -> predicted noise: a `Denoiser`.

    x: low-resolution image, already enlarged, [N, 3, H, W] in [-1, 1]; y: noisy image, same shape; gamma: [N] in
    (0, 1]. Returns [N, 3, H, W]. H and W must be multiples of `structure.factor`.
    """

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        channels, groups = structure.channels, structure.groups

        def stage(inputs: int, outputs: int, attends: bool) -> Stage:
            return Stage(inputs, outputs, channels, groups, attends)

        self.noise_level_mlp = nn.Sequential(
            NoiseLevel(channels), nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, channels)
        )
        levels = list(zip(structure.widths, structure.attention, strict=True))
        self.downs = nn.ModuleList([nn.Conv2d(6, channels, 3, padding=1)])
        width, skips = channels, [channels]
        for target, attends in levels:
            if len(skips) > 1:
                self.downs.append(Resample(width, up=False))
                skips.append(width)
            for _ in range(structure.blocks):
                self.downs.append(stage(width, target, attends))
                width = target
                skips.append(width)

        self.mid = nn.ModuleList([stage(width, width, True), stage(width, width, False)])

        self.ups = nn.ModuleList()
        for target, attends in reversed(levels):
            if len(self.ups) > 0:
                self.ups.append(Resample(width, up=True))
            for _ in range(structure.blocks + 1):
                self.ups.append(stage(width + skips.pop(), target, attends))
                width = target
        self.final_conv = normalised_conv(width, 3, groups)

    def forward(self, x: Tensor, y: Tensor, gamma: Tensor) -> Tensor:
        level = self.noise_level_mlp(gamma.sqrt())
        first, *downs = self.downs
        h = first(torch.cat([x, y], dim=1))
        skips = [h]
        for layer in downs:
            h = layer(h, level)
            skips.append(h)
        for layer in self.mid:
            h = layer(h, level)
        for layer in self.ups:
            h = layer(torch.cat([h, skips.pop()], dim=1) if isinstance(layer, Stage) else h, level)
        return self.final_conv(h)
