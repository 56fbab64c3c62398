"""The U-Net of SR3: DDPM's, with BigGAN residual blocks that also resample, and residual sums divided by sqrt 2.

What its inputs and outputs mean is up to the models around it, see `preconditioners`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr3eval.diffusion.gradients import GroupNorm, recomputed_conv
from sr3eval.errors import UserError

# gamma enters as sqrt(gamma) in (0, 1). The factor spreads it over the sinusoids' frequencies, as in the WaveGrad
# paper; without it the levels of the last steps are all but the same vector.
NOISE_LEVEL_SCALE = 5000.0


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net.

    Attributes:
        channels: width of the first level.
        multipliers: widths of all levels, from full resolution down, in multiples of `channels`.
        blocks: residual blocks per level (one more on the way up).
        image_size: side in pixels that the network is meant for; together with `attention` it decides which levels have
            attention, and they keep it at every other size.
        attention: sides at which self-attention follows each block.
        middle_attention: attention at the lowest level; False, with `attention = []`, makes the network convolutional.
        residual_scale: with 0, SR3's network predicts the noise, as in the paper; with s > 0, it corrects the best
            linear guess for details y_0 - x of standard deviation s (see `ResidualSR3Preconditioner`).
        classes: number of labels of a generator; None for no labels.
        noise_level: only in files of older versions; it follows from the model.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    image_size: int
    attention: tuple[int, ...] = (16,)
    middle_attention: bool = True
    dropout: float = 0.0
    residual_scale: float = 0.0
    classes: int | None = None
    noise_level: bool | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if (
            self.channels < 2
            or self.channels % 2
            or self.blocks < 1
            or not self.multipliers
            or min(self.multipliers) < 1
        ):
            raise UserError("unet: channels must be even and positive, blocks and every multiplier at least 1")
        if self.image_size < 1 or self.image_size % self.factor:
            raise UserError(
                f"unet: image_size {self.image_size} is not a positive multiple of {self.factor} (2 ** (levels - 1))"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"unet: dropout {self.dropout} is not in [0, 1)")
        if not 0 <= self.residual_scale < math.inf:
            raise UserError(f"unet: residual_scale {self.residual_scale} is negative or not finite")
        if self.classes is not None and self.classes < 2:
            raise UserError(f"unet: classes {self.classes}; at least 2 are needed, or leave it out")

    @property
    def factor(self) -> int:
        """Sides of inputs must be multiples of this."""
        return int(2 ** (len(self.multipliers) - 1))

    def attends(self, level: int) -> bool:
        return self.image_size // 2**level in self.attention


def groups_of(channels: int) -> int:
    """At most 32 groups of at least 4 channels, for group norms of every width."""
    return next(g for g in range(32, 0, -1) if channels % g == 0 and (channels // g >= 4 or g == 1))


def conv3x3(inputs: int, outputs: int, zero: bool = False) -> nn.Conv2d:
    """3x3 convolution that keeps the size; `zero` starts it at zero, so that its branch starts as nothing."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    if zero:
        nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def channel_sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and Euclidean norm over the positions of x [N, C, H, W], at least in float32: two of [N, C]."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.sum((2, 3), dtype=dtype), torch.linalg.vector_norm(x, dim=(2, 3), dtype=dtype)


def scaled_silu(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """SiLU(factor * x + offset) of x [N, C, H, W] with [N, C] factors and offsets, in the type of x."""
    factor, offset = (t.to(x.dtype)[:, :, None, None] for t in (factor, offset))
    return F.silu(torch.addcmul(offset, x, factor))


class NormSiLU(nn.GroupNorm):
    """SiLU(GroupNorm(x) * (1 + scale) + shift) of x [N, C, H, W]; scale and shift are [N, C], or both None.

    A GPU's GroupNorm copies channels-last tensors to NCHW, and autocast has it compute in float32: most of a training
    step in bfloat16. There the norm is one factor and one offset an image and channel, from sums that read x in its
    own layout and type; `bias` [C], of a convolution before it, is then added to x without touching it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(groups_of(channels), channels, eps=1e-6)
        self.by_sums: bool | None = None  # None: on GPUs
        self.recompute = False  # what `conv` needs for the backward pass, rather than keep it
        self.channel_sums: Callable[..., tuple[Tensor, Tensor]] = channel_sums  # or, like the next, compiled
        self.scaled_silu: Callable[..., Tensor] = scaled_silu

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        if not self.goes_by_sums(x):
            h = self._group_norm(x if bias is None else x + bias[:, None, None])
            if scale is not None and shift is not None:
                scale, shift = (t.to(h.dtype)[:, :, None, None] for t in (scale, shift))
                h = h * (1 + scale) + shift
            return F.silu(h)
        factor, offset = self._factor_and_offset(x, bias)
        if scale is not None and shift is not None:
            factor, offset = factor * (1 + scale), offset * (1 + scale) + shift
        return self.scaled_silu(x, factor, offset)

    def goes_by_sums(self, x: Tensor) -> bool:
        return x.is_cuda if self.by_sums is None else self.by_sums

    def conv(
        self,
        inputs: Sequence[Tensor | None],
        weight: Tensor,
        bias: Tensor | None,
        then: Callable[[Tensor], Tensor],
        drawn: bool = False,
    ) -> Tensor:
        """3x3 convolution of then(self(*inputs)); drawn: `then` draws numbers."""
        if drawn or not self.recompute or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return F.conv2d(then(self(*inputs)), weight, bias, padding=1)

        def activation(weight: Tensor, bias: Tensor, *inputs: Tensor) -> Tensor:
            return then(torch.func.functional_call(self, {"weight": weight, "bias": bias}, inputs))

        return recomputed_conv(activation, (self.weight, self.bias, *inputs), weight, bias)

    def _group_norm(self, x: Tensor) -> Tensor:
        if x.dtype != torch.bfloat16 or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        return GroupNorm.apply(x, self.num_groups, self.weight, self.bias, self.eps)

    def _factor_and_offset(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the norm of x + bias multiplies every channel of x by and then adds: [N, C] both."""
        sums, norms = self.channel_sums(x)
        n, positions, each = len(x), x.shape[-2] * x.shape[-1], self.num_channels // self.num_groups
        means, squares = sums / positions, norms.square() / positions
        if bias is not None:
            means, squares = means + bias, squares + bias * (2 * means + bias)
        mean = means.view(n, -1, each).mean(2)
        variance = squares.view(n, -1, each).mean(2) - mean.square()
        inverse = (variance.clamp(min=0) + self.eps).rsqrt()
        factor = inverse.repeat_interleave(each, 1) * self.weight
        own = mean.repeat_interleave(each, 1)
        return factor, self.bias - (own if bias is None else own - bias) * factor


def residual_sum(x: Tensor, h: Tensor, bias: Tensor) -> Tensor:
    """(x + h + bias) / sqrt 2 of two [N, C, H, W] and a bias [C]."""
    return (x + h + bias.to(h.dtype)[:, None, None]) * math.sqrt(0.5)


class NoiseLevelEmbedding(nn.Module):
    """gamma [N] in (0, 1] to a vector [N, 4 * channels]: sinusoids of scaled sqrt(gamma), then a two-layer MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels))

    def forward(self, gamma: Tensor) -> Tensor:
        half = self.channels // 2
        dtype = torch.promote_types(next(self.mlp.parameters()).dtype, torch.float32)
        exponents = torch.arange(half, dtype=dtype, device=gamma.device) / half
        angles = NOISE_LEVEL_SCALE * gamma.to(dtype).sqrt()[:, None] * torch.exp(-math.log(10000.0) * exponents)
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))


class ResidualBlock(nn.Module):
    """BigGAN residual block: norm, SiLU, (up|down), conv, norm, noise level as scale and shift, SiLU, dropout, conv."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int | None, dropout: float = 0.0, resample: str | None = None
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = NormSiLU(inputs)
        self.conv1 = conv3x3(inputs, outputs)
        self.scale_shift = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.norm2 = NormSiLU(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(outputs, outputs, zero=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.residual_sum: Callable[..., Tensor] = residual_sum  # or a compiled one

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        scale, shift = None, None
        if self.scale_shift is not None and embedding is not None:
            scale, shift = self.scale_shift(F.silu(embedding)).chunk(2, dim=1)
        drawn = self.training and self.dropout.p > 0
        if self.norm1.goes_by_sums(x):
            return self._forward_without_biases(x, scale, shift, drawn)
        h = self.norm1.conv([x], self.conv1.weight, self.conv1.bias, self._resampled)
        h = self.norm2.conv([h, scale, shift], self.conv2.weight, self.conv2.bias, self.dropout, drawn)
        return (self.shortcut(self._resampled(x)) + h) / math.sqrt(2)

    def _forward_without_biases(self, x: Tensor, scale: Tensor | None, shift: Tensor | None, drawn: bool) -> Tensor:
        """The same, with the biases left to what reads the tensors anyway: cuDNN adds them in a pass of their own."""
        h = self.norm1.conv([x], self.conv1.weight, None, self._resampled)
        h = self.norm2.conv([h, scale, shift, self.conv1.bias], self.conv2.weight, None, self.dropout, drawn)
        x, bias = self._resampled(x), self.conv2.bias
        if isinstance(self.shortcut, nn.Conv2d):
            x, bias = F.conv2d(x, self.shortcut.weight), bias + self.shortcut.bias  # type: ignore[operator]
        return self.residual_sum(x, h, bias)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return x


class SelfAttention(nn.Module):
    """Single-head self-attention over all positions of [N, C, H, W], as a residual branch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups_of(channels), channels, eps=1e-6)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, _embedding: Tensor | None = None) -> Tensor:
        n, c, height, width = x.shape
        q, k, v = self.qkv(self._normed(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)  # [N, 1, HW, C]
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(n, c, height, width)
        return (x + self.project(attended)) / math.sqrt(2)

    def _normed(self, x: Tensor) -> Tensor:
        """In the norm's type, then in that of x: GPUs do not mix them."""
        return self.norm(x.to(self.norm.weight.dtype)).to(x.dtype)


class UNet(nn.Module):
    """[N, inputs, H, W] to [N, outputs, H, W], conditioned on a noise level gamma [N] in (0, 1] where `conditional`.

    With `config.classes`, labels [N] of int64 condition it, too. H and W must be multiples of `config.factor`.
    Untrained, it gives zero.
    """

    def __init__(self, config: UNetConfig, inputs: int = 6, conditional: bool = True, outputs: int = 3) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * m for m in config.multipliers]
        embedding = 4 * config.channels if conditional else None
        self.embed = NoiseLevelEmbedding(config.channels) if conditional else None
        self.embed_label = nn.Embedding(config.classes, 4 * config.channels) if config.classes else None
        self.conv_in = conv3x3(inputs, widths[0])

        def block(inputs: int, outputs: int, resample: str | None = None) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, embedding, config.dropout, resample)

        def stage(inputs: int, outputs: int, level: int) -> nn.ModuleList:
            layers: list[nn.Module] = [block(inputs, outputs)]
            if config.attends(level):
                layers.append(SelfAttention(outputs))
            return nn.ModuleList(layers)

        self.down = nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        for level, target in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(stage(width, target, level))
                width = target
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleList([block(width, width, "down")]))
                skips.append(width)

        attention = [SelfAttention(width)] if config.middle_attention else []
        self.middle = nn.ModuleList([block(width, width), *attention, block(width, width)])

        # Each of the way up's stages takes one skip of the way down; a stage that enlarges takes none.
        self.up = nn.ModuleList()
        self.takes_skip: list[bool] = []
        for level, target in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                self.up.append(stage(width + skips.pop(), target, level))
                self.takes_skip.append(True)
                width = target
            if level > 0:
                self.up.append(nn.ModuleList([block(width, width, "up")]))
                self.takes_skip.append(False)

        self.norm_out = NormSiLU(width)
        self.conv_out = conv3x3(width, outputs, zero=True)

    def forward(self, x: Tensor, gamma: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        self._check(x)
        embedding = self.embed(gamma) if self.embed is not None else None
        if self.embed_label is not None:
            embedding = embedding + self.embed_label(labels)
        h = self.conv_in(x.to(self.conv_in.weight.dtype))
        skips = [h]
        for stage in self.down:
            h = run_stage(stage, h, embedding)
            skips.append(h)
        h = run_stage(self.middle, h, embedding)
        for stage, takes_skip in zip(self.up, self.takes_skip, strict=True):
            h = run_stage(stage, torch.cat([h, skips.pop()], dim=1) if takes_skip else h, embedding)
        return self.norm_out.conv([h], self.conv_out.weight, self.conv_out.bias, nn.Identity()).to(x.dtype)

    def convolve_in(self, dtype: torch.dtype) -> None:
        """Convolutions, and what is between them, in another type; norms and the noise level stay as they are."""
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            conv.to(dtype)

    def compile_parts(self, parts: Literal["blocks", "norms"]) -> None:
        """Compile less than the whole network, by torch.compile: it takes less long and brings most of it on GPUs.

        "blocks": every residual block by itself; blocks of one shape share the compiled code. "norms": what norms and
        sums do with whole tensors, for all shapes at once.
        """
        blocks = [module for module in self.modules() if isinstance(module, ResidualBlock)]
        if parts == "norms":
            parts_of: list[Any] = [torch.compile(f, dynamic=True) for f in (channel_sums, scaled_silu, residual_sum)]
            sums, scaled, residual = parts_of
            for norm in (module for module in self.modules() if isinstance(module, NormSiLU)):
                norm.channel_sums, norm.scaled_silu = sums, scaled
            for block in blocks:
                block.residual_sum = residual
            return
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, 4 * len(blocks))
        for block in blocks:
            block.compile(dynamic=False)

    def _check(self, x: Tensor) -> None:
        height, width = x.shape[-2:]
        if height % self.config.factor or width % self.config.factor:
            raise UserError(
                f"{width}x{height} outputs: this network needs sides that are multiples of {self.config.factor}"
            )


def run_stage(stage: nn.Module, h: Tensor, embedding: Tensor | None) -> Tensor:
    for layer in stage:  # type: ignore[attr-defined]
        h = layer(h, embedding)
    return h
