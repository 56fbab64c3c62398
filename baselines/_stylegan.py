"""StyleGAN's generator (Karras et al. 2019, arXiv:1812.04948), read from the files that PULSE released of it.

The search through its inputs needs no gradient of its weights. So what the release computes from them at every call
(equalised learning rates, enlarging kernels) is computed once, as a file is read, and the layers are ordinary ones.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr3eval.weights import StateDict, load_state, read

SYNTHESIS = "PULSE's StyleGAN (synthesis.pt)"
MAPPING = "PULSE's StyleGAN (mapping.pt)"
SLOPE = 0.2  # of leaky ReLUs, below zero
GAIN = 2**0.5  # of He's initialisation, which scales weights at run time here
MAPPING_RATE = 0.01  # learning rate of the mapping network beside the other's
MIRRORED_FROM = 128  # side in pixels, of outputs, from which on the release enlarges by the unflipped kernel


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU, in place."""
    return F.leaky_relu(x, SLOPE, inplace=True)


class Noise(nn.Module):
    """One map for all channels, each of which has its own amplitude; added in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None else x.addcmul_(self.weight[:, None, None], noise)


class Style(nn.Module):
    """Gives every channel the mean and the deviation that a latent vector says (AdaIN)."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.lin = nn.Linear(latent, 2 * channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = self.lin(w).chunk(2)
        return F.batch_norm(x, None, None, scale + 1, shift, training=True)  # a batch of one is an instance


class Epilogue(nn.Module):
    """What follows each convolution."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.noise = Noise(channels)
        self.style_mod = Style(channels, latent)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        return self.style_mod(activate(self.noise(x, noise)), w)


class Blur(nn.Module):
    """Each channel by the same kernel [1, 1, 3, 3]."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.zeros(1, 1, 3, 3))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.expand(channels, -1, -1, -1), bias, padding=1, groups=channels)


class Enlarging(nn.ConvTranspose2d):
    """[1, C, h, w] to [1, C', 2h, 2w]: a kernel of `enlarging`, then a blur, then the bias."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 4, stride=2, padding=1)
        self.intermediate = Blur()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.intermediate(F.conv_transpose2d(x, self.weight, stride=2, padding=1), self.bias)


class First(nn.Module):
    """The block of 4x4 pixels, which begins with a learned constant."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.zeros(1, channels, 4, 4))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epi1 = Epilogue(channels, latent)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.epi2 = Epilogue(channels, latent)

    def forward(self, latents: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
        x = self.epi1(self.const + self.bias[:, None, None], latents[0], noises[0])
        return self.epi2(self.conv(x), latents[1], noises[1])


class Block(nn.Module):
    """Doubles the side."""

    def __init__(self, channels: int, out: int, latent: int) -> None:
        super().__init__()
        self.conv0_up = Enlarging(channels, out)
        self.epi1 = Epilogue(out, latent)
        self.conv1 = nn.Conv2d(out, out, 3, padding=1)
        self.epi2 = Epilogue(out, latent)

    def forward(self, x: Tensor, latents: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
        x = self.epi1(self.conv0_up(x), latents[0], noises[0])
        return self.epi2(self.conv1(x), latents[1], noises[1])


class Synthesis(nn.Module):
    """Latent vectors and noise maps, one of each a layer, to one image.

    widths: channels at each side 4, 8, 16, ...; latent: size of the latent vectors (512 in the release).
    """

    def __init__(self, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.latent, self.layers, self.side = latent, 2 * len(widths), 2 << len(widths)
        later = itertools.pairwise(widths)
        blocks = [First(widths[0], latent), *(Block(*pair, latent) for pair in later)]
        self.blocks = nn.ModuleDict({f"{4 << i}x{4 << i}": block for i, block in enumerate(blocks)})
        self.torgb = nn.Conv2d(widths[-1], 3, 1)

    def forward(self, latents: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
        """[layers, latent] and maps of `noise_sides`, None for zeros, to [1, 3, side, side], about [-1, 1]."""
        first, *later = self.blocks.values()
        x = first(latents[:2], noises[:2])
        for i, block in enumerate(later, start=1):
            x = block(x, latents[2 * i : 2 * i + 2], noises[2 * i : 2 * i + 2])
        return self.torgb(x)

    @property
    def noise_sides(self) -> list[int]:
        """Side of each layer's noise map in pixels."""
        return [4 << layer // 2 for layer in range(self.layers)]


class Mapping(nn.Sequential):
    """z [N, latent] ~ N(0, I) to latent vectors w [N, latent]."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        for i in range(8):
            self.add_module(f"dense{i}", nn.Linear(latent, latent))

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for dense in self:
            x = activate(dense(x))
        return x


def synthesis_network(path: str) -> tuple[Synthesis, StateDict]:
    """The network of a synthesis.pt, of whatever side and widths; UserError for a file that holds none."""
    saved = read(path, SYNTHESIS)
    sides = (f"{4 << i}x{4 << i}" for i in itertools.count())
    amplitudes = (f"blocks.{side}.epi1.noise.weight" for side in sides)
    widths = [saved.weights[key].numel() for key in itertools.takewhile(saved.weights.__contains__, amplitudes)]
    style = saved.weights.get("blocks.4x4.epi1.style_mod.lin.weight")
    if not widths or style is None or style.ndim != 2:
        raise saved.wrong(SYNTHESIS, "no layers of it")
    network = Synthesis(widths, style.shape[1])
    load_state(network, {key: folded(key, value.float()) for key, value in saved.weights.items()}, saved, SYNTHESIS)
    return network, saved


def folded(key: str, value: Tensor) -> Tensor:
    """A tensor of synthesis.pt as the layers here need it."""
    if not key.endswith(".weight") or value.ndim < 2:
        return value
    gain = 1 if key.startswith("torgb.") or ".style_mod." in key else GAIN
    value = value * gain / value[0].numel() ** 0.5
    if ".conv0_up." in key and value.ndim == 4:
        side = int(key.split(".")[1].split("x")[0])
        return enlarging(value, mirrored=side >= MIRRORED_FROM)
    return value


def enlarging(kernel: Tensor, mirrored: bool) -> Tensor:
    """[out, in, 3, 3] to the [in, out, 4, 4] of a transposed convolution with stride 2.

    That is nearest-neighbour enlargement and convolution in one, at 4/9 of the work; for the mirrored kernel where
    `mirrored`: the release's "fused" layers differ from the others by that.
    """
    kernel = kernel if mirrored else kernel.flip(2, 3)
    return 4 * F.avg_pool2d(kernel, 2, stride=1, padding=1).transpose(0, 1)


def mapping_network(path: str) -> tuple[Mapping, StateDict]:
    """The network of a mapping.pt; UserError for a file that holds none."""
    saved = read(path, MAPPING)
    bias = saved.weights.get("dense0.bias")
    if bias is None:
        raise saved.wrong(MAPPING, "no layers of it")
    network = Mapping(bias.numel())
    scale = {"weight": MAPPING_RATE * GAIN / bias.numel() ** 0.5, "bias": MAPPING_RATE}
    rates = {key: scale.get(key.rpartition(".")[2], 1.0) for key in saved.weights}
    load_state(network, {key: value.float() * rates[key] for key, value in saved.weights.items()}, saved, MAPPING)
    return network, saved
