"""SRFlow's network: RRDB features of the low-resolution image, and a flow between image and noise given these.

The flow is Glow's (Kingma & Dhariwal 2018) with the paper's couplings (section 3.4). Activation norms, log-scales and
the inverses of its matrices are folded into plain convolutions beforehand (see `srflow.folded`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines._rrdb import Block, activate, conv

# Blocks of the encoder whose outputs are part of every condition, by scale: stackRRDB.blocks of the configs.
STACKED = {4: (1, 8, 15, 22), 8: (1, 3, 5, 7)}
LEAST_GAIN = 1e-4  # of the couplings: what is added to the sigmoid
# What the steps of a level see of the low-resolution image: features [N, F, H, W] at the level's size, and the
# stacked ones [N, 4F, H / s, W / s], s being the level's stride.
Condition = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Structure:
    """Sizes of the network, by the names of the release's configs: nf, gc, nb, hidden_channels, L, K.

    scale: 4 or 8. unconditional: steps without a coupling that begin each level (additionalFlowNoAffine).
    """

    scale: int
    features: int
    growth: int
    blocks: int
    hidden: int
    levels: int
    steps: int
    unconditional: int

    @property
    def stacked(self) -> int:
        """Channels of the stacked features."""
        return len(STACKED[self.scale]) * self.features

    def stride(self, level: int) -> int:
        """Pixels of a level (0 the finest, at half the size of HR) a pixel of the stacked features."""
        return max(1, self.scale // 2 ** (level + 1))

    def split(self, level: int) -> bool:
        """Whether half of the channels leave the flow after this level."""
        return level < self.levels - 2

    def channels(self, level: int) -> int:
        """Of the flow within a level."""
        return 12 if level == 0 else (2 if self.split(level - 1) else 4) * self.channels(level - 1)


class Encoder(nn.Module):
    """LR [N, 3, h, w] in [0, 1], h and w even, to the condition of every level, from 4 * h (at 8x) down to h / 2."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        features = structure.features
        self.stacked = STACKED[structure.scale]
        self.conv_first = conv(3, features)
        self.body = nn.ModuleList(Block(features, structure.growth) for _ in range(structure.blocks))
        self.conv_body = conv(features, features)
        doublings = structure.scale.bit_length() - 2  # to half the size of HR
        self.conv_up = nn.ModuleDict({str(i): conv(features, features) for i in range(1, doublings + 1)})

    def forward(self, lr: Tensor) -> list[Condition]:
        x, stacked = self.conv_first(lr), []
        for index, block in enumerate(self.body):
            x = block(x)
            stacked += [x] if index in self.stacked else []
        x, stack = x + self.conv_body(x), torch.cat(stacked, 1)
        conditions = [(F.avg_pool2d(x, 2), stack[..., ::2, ::2]), (x, stack)]
        for up in self.conv_up.values():
            x = activate(up(F.interpolate(x, scale_factor=2, mode="nearest")))
            conditions.append((x, stack))
        return conditions[::-1]


class Affine(nn.Module):
    """(shift, gain) of a coupling, [N, outputs, H, W] each, from `inputs` channels and the condition."""

    def __init__(self, structure: Structure, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        features, hidden = structure.features, structure.hidden
        self.near = conv(inputs + features, hidden)
        # A 3x3 convolution of what is enlarged `stride` times by repetition, without making that.
        self.stacked = nn.ConvTranspose2d(structure.stacked, hidden, stride + 2, stride, padding=1, bias=False)
        self.hidden = nn.Conv2d(hidden, hidden, 1)
        self.out = conv(hidden, 2 * outputs)

    def forward(self, near: Tensor, stacked: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.near(near).add_(self.stacked(stacked)), inplace=True)
        shift, gain = self.out(F.relu(self.hidden(h), inplace=True)).chunk(2, 1)
        return shift, gain.sigmoid() + LEAST_GAIN


class Coupling(nn.Module):
    """Scales and shifts all channels by the condition, then the second half of them by the first and the condition."""

    def __init__(self, structure: Structure, channels: int, stride: int) -> None:
        super().__init__()
        self.kept = channels // 2
        self.by_condition = Affine(structure, 0, channels, stride)
        self.by_half = Affine(structure, self.kept, channels - self.kept, stride)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        near, stacked = condition
        shift, gain = self.by_condition(near, stacked)
        first, second = ((z + shift) * gain).tensor_split((self.kept,), 1)
        shift, gain = self.by_half(torch.cat((first, near), 1), stacked)
        return torch.cat((first, (second + shift) * gain), 1)

    def inverse(self, z: Tensor, condition: Condition) -> Tensor:
        near, stacked = condition
        first, second = z.tensor_split((self.kept,), 1)
        shift, gain = self.by_half(torch.cat((first, near), 1), stacked)
        z = torch.cat((first, second / gain - shift), 1)
        shift, gain = self.by_condition(near, stacked)
        return z / gain - shift


class Step(nn.Module):
    """An invertible mix of channels, then a coupling, or none."""

    def __init__(self, channels: int, coupling: Coupling | None) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)
        self.unmix = nn.Conv2d(channels, channels, 1)
        self.coupling = coupling

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        z = self.mix(z)
        return z if self.coupling is None else self.coupling(z, condition)

    def inverse(self, z: Tensor, condition: Condition) -> Tensor:
        return self.unmix(z if self.coupling is None else self.coupling.inverse(z, condition))


class Level(nn.Module):
    """Steps at half the size of the level before, after which half of the channels may leave as noise of their own."""

    def __init__(self, structure: Structure, level: int) -> None:
        super().__init__()
        channels, stride = structure.channels(level), structure.stride(level)
        self.steps = nn.ModuleList(Step(channels, None) for _ in range(structure.unconditional))
        for _ in range(structure.steps):
            self.steps.append(Step(channels, Coupling(structure, channels, stride)))
        # Mean and log standard deviation of the half that leaves, given the one that stays.
        self.prior = conv(channels // 2, channels) if structure.split(level) else None

    def forward(self, z: Tensor, condition: Condition) -> tuple[Tensor, Tensor | None]:
        """(what goes on, noise that leaves) from [N, C, H, W]."""
        z = F.pixel_unshuffle(z, 2)
        for step in self.steps:
            z = step(z, condition)
        if self.prior is None:
            return z, None
        z, leaves = z.chunk(2, 1)
        mean, log_std = self.prior(z).chunk(2, 1)
        return z, (leaves - mean) / log_std.exp()

    def inverse(self, z: Tensor, noise: Tensor | None, condition: Condition) -> Tensor:
        """[N, C, 2 * H, 2 * W] from what `forward` returns."""
        if self.prior is not None and noise is not None:
            mean, log_std = self.prior(z).chunk(2, 1)
            z = torch.cat((z, mean + log_std.exp() * noise), 1)
        for step in reversed(self.steps):
            z = step.inverse(z, condition)  # type: ignore[operator]
        return F.pixel_shuffle(z, 2)


class SRFlowNet(nn.Module):
    """An invertible map between HR images and noise, given LR images.

    LR is [N, 3, h, w] in [0, 1] with h and w even, HR [N, 3, scale * h, scale * w] in [0, 1] (not clamped), and the
    noise a list of tensors [N, C, H, W], of the shapes and in the order of `noise_shapes`.
    """

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.encoder = Encoder(structure)
        self.levels = nn.ModuleList(Level(structure, level) for level in range(structure.levels))

    def noise_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """[C, H, W] of the noise for an LR image of this size, in the order of the release: from coarse to fine."""
        shapes = []
        for level in reversed(range(self.structure.levels)):
            size = [self.structure.scale * side // 2 ** (level + 1) for side in (height, width)]
            channels = self.structure.channels(level)
            if level == self.structure.levels - 1:
                shapes.append((channels, *size))
            elif self.structure.split(level):
                shapes.append((channels // 2, *size))
        return shapes

    def decode(self, lr: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """HR of this noise; standard normal noise gives samples of p(HR | LR). Same numbers as the release's."""
        z, *others = noise
        for level, condition in reversed(list(zip(self.levels, self.encoder(lr), strict=False))):
            z = level.inverse(z, others.pop(0) if level.prior is not None else None, condition)
        return z

    def encode(self, lr: Tensor, hr: Tensor) -> list[Tensor]:
        """The noise that `decode` makes this HR of; nothing is added to HR before."""
        z, noise = hr, []
        for level, condition in zip(self.levels, self.encoder(lr), strict=False):
            z, leaves = level(z, condition)
            noise += [] if leaves is None else [leaves]
        return [z, *reversed(noise)]
