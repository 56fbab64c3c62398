"""FSRNet (Chen et al. 2018, arXiv:1711.10703) as two ports to PyTorch have it: the same layers under other names.

github.com/cs-giung/FSRNet-pytorch (read at 5b67fdf) and github.com/cydiachen/FSRNET_pytorch (read at e792839). FSRGAN
is this network, trained with an adversarial and a perceptual loss as well.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTH = 3  # how often an hourglass halves its input
EPSILON = 1e-5  # of variances
# cs-giung's names: the section in ours, and at which of its layers each part begins.
PARTS = {
    "csr_net": ("coarse", {"conv1": 0, "res_blocks": 4, "conv2": 7}),
    "fsr_enc": ("encoder", {"conv1": 0, "res_blocks": 3, "conv2": 15}),
    "pre_net": ("prior", {"conv1": 0, "res_blocks": 3, "hg_blocks": 6}),
    "fsr_dec": ("decoder", {"conv1": 0, "deconv1": 3, "res_blocks": 6, "conv2": 9}),
}
# cydiachen's names of sections; their layers have our numbers.
SECTIONS = {
    "coarse_SR_Encoder": "coarse",
    "fine_SR_Encoder": "encoder",
    "prior_Estimation_Network": "prior",
    "fine_SR_Decoder": "decoder",
}
# In cs-giung's file the blocks of each of these are one, saved under several names.
ALIASED = re.compile(r"((?:csr_net|fsr_enc|fsr_dec)\.res_blocks)\.\d+\.(.+)")
UNUSED = re.compile(r"prior_conv[12]\..+|.+\.num_batches_tracked")  # heads that the losses alone see, and a counter
Norm = Callable[[int], nn.Module]


def state_dict(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An FSRNet's state dict from either port's; keys of neither stay as they are."""
    return {_renamed(key): value for key, value in weights.items() if not UNUSED.fullmatch(key)}


def _renamed(key: str) -> str:
    inner = re.sub(r"\b(conv_block|convBlock)\b", "layers", key).replace("skipConv", "skip")
    section, _, rest = inner.partition(".")
    if section in SECTIONS:
        return f"{SECTIONS[section]}.{rest}"
    part, _, layer = rest.partition(".")
    ours, starts = PARTS.get(section, ("", {}))
    number, _, name = layer.partition(".")
    return f"{ours}.{starts[part] + int(number)}.{name}" if part in starts and number.isdecimal() else key


def unequal_alias(weights: Mapping[str, Tensor]) -> str | None:
    """A name of cs-giung's port whose tensor is not that of the section's first block."""
    for key, value in weights.items():
        if found := ALIASED.fullmatch(key):
            first = weights.get(f"{found[1]}.0.{found[2]}")
            if first is None or not torch.equal(first, value):
                return key
    return None


class BatchNorm(nn.Module):
    """Batch norm after training: by its running statistics, or by those of each image alone.

    The latter by hand, since torch's norms are slow for images whose channels are last in memory, or lose digits.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, per_image: bool) -> None:
        super().__init__()
        self.per_image = per_image
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.per_image:
            centred = x - x.mean((2, 3), keepdim=True)
            variance = centred.square().mean((2, 3), keepdim=True)
            gain = self.weight[:, None, None] * torch.rsqrt(variance + EPSILON)
            return torch.addcmul(self.bias[:, None, None], centred, gain, out=centred)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON)


def normed(conv: nn.Module, channels: int, norm: Norm) -> list[nn.Module]:
    return [conv, norm(channels), nn.ReLU(inplace=True)]


def reflected(channels: int, out: int) -> list[nn.Module]:
    """A 3x3 convolution to the same size, of the image continued by its reflection."""
    return [nn.ReflectionPad2d(1), nn.Conv2d(channels, out, 3, bias=False)]


def halved(channels: int, kernel: int) -> nn.Module:
    """A convolution of the image to half its size."""
    return nn.Conv2d(3, channels, kernel, stride=2, padding=kernel // 2, bias=False)


def doubled(channels: int) -> nn.Module:
    """A transposed convolution to twice the size."""
    return nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions beside a skip."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        pad, conv = reflected(channels, channels)
        again = reflected(channels, channels)
        self.layers = nn.Sequential(pad, *normed(conv, channels, norm), *again, norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).add_(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each after norm and activation, beside a skip to as many channels."""

    def __init__(self, channels: int, out: int, norm: Norm) -> None:
        super().__init__()
        half = out // 2
        convs = nn.Conv2d(channels, half, 1), nn.Conv2d(half, half, 3, padding=1), nn.Conv2d(half, out, 1)
        layers = ((norm(conv.in_channels), nn.ReLU(inplace=True), conv) for conv in convs)
        self.layers = nn.Sequential(*(layer for three in layers for layer in three))
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).add_(self.skip(x))


class Hourglass(nn.Module):
    """Bottlenecks at DEPTH + 1 scales (Newell et al. 2016)."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        names = [f"res{level}_{i}" for level in range(1, DEPTH + 1) for i in (1, 2, 3)]
        for name in (*names, "res_center"):
            self.add_module(name, Bottleneck(channels, channels, norm))

    def forward(self, x: Tensor, level: int = DEPTH) -> Tensor:
        if level == 0:
            return self.get_submodule("res_center")(x)
        skip, before, after = (self.get_submodule(f"res{level}_{i}") for i in (1, 2, 3))
        low = after(self(before(F.max_pool2d(x, 2)), level - 1))
        return F.interpolate(low, scale_factor=2).add_(skip(x))


class FSRNet(nn.Module):
    """[N, 3, H, W], an image enlarged by other means, to [N, 3, H, W] in [-1, 1]; sides are multiples of 16.

    width: channels, 64 in both ports. per_image: see BatchNorm. shared: a section's blocks are one, as in cs-giung's.
    """

    def __init__(self, width: int, per_image: bool, shared: bool) -> None:
        super().__init__()
        norm, priors = partial(BatchNorm, per_image=per_image), 2 * width

        def blocks(count: int) -> list[nn.Module]:
            if shared:
                return [Block(width, norm)] * count
            return [Block(width, norm) for _ in range(count)]

        pad, conv = reflected(3, width)
        join = nn.Conv2d(width + priors, width, 3, padding=1, bias=False)
        self.coarse = nn.Sequential(pad, *normed(conv, width, norm), *blocks(3), *reflected(width, 3), nn.Tanh())
        self.encoder = nn.Sequential(
            *normed(halved(width, 3), width, norm), *blocks(12), *reflected(width, width), nn.Tanh()
        )
        self.prior = nn.Sequential(
            *normed(halved(width, 7), width, norm),
            Bottleneck(width, priors, norm),
            Block(priors, norm),
            Block(priors, norm),
            Hourglass(priors, norm),
            Hourglass(priors, norm),
        )
        self.decoder = nn.Sequential(
            *normed(join, width, norm),
            *normed(doubled(width), width, norm),
            *blocks(3),
            *reflected(width, 3),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.coarse(x)
        return self.decoder(torch.cat((self.encoder(coarse), self.prior(coarse)), 1))
