"""The RRDBNet of ESRGAN (Wang et al. 2018, arXiv:1809.00219), which RealSR, Real-ESRGAN and SRFlow have, too."""

import re
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr3eval.weights import StateDict, load_state, read

SCALE = 4
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


def renamed(key: str) -> str:
    """BasicSR's name of a tensor, whatever layout its name is from."""
    for pattern, name in RENAMES.items():
        key = re.sub(f"^{pattern}", name, key)
    return key


def layers(blocks: int) -> list[str]:
    """Names of the convolutions of an RRDBNet, in the order of computation."""
    body = [f"body.{i}.rdb{j}.conv{k}" for i in range(blocks) for j in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    return ["conv_first", *body, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def released(path: str, method: str) -> StateDict:
    """The weights in a file, by our names."""
    saved = read(path, method)
    return replace(saved, weights={renamed(key): value.float() for key, value in saved.weights.items()})


def sizes(saved: StateDict, method: str) -> tuple[int, int, int]:
    """Features, blocks and growth of the network that has these weights; UserError where that is no RRDBNet."""
    first, second = (saved.weights.get(f"{layer}.weight") for layer in ("conv_first", "body.0.rdb1.conv1"))
    if first is None or second is None or first.ndim != 4 or second.ndim != 4:
        raise saved.wrong(method, "no layers of an RRDBNet")
    if first.shape[1] in FOLDED:
        scale = FOLDED[first.shape[1]]
        raise saved.wrong(method, f"{first.shape[1]} input channels: Real-ESRGAN {scale}x, which kind spandrel reads")
    blocks = {key.split(".")[1] for key in saved.weights if key.startswith("body.")}
    return first.shape[0], len(blocks), second.shape[0]


def network(saved: StateDict, method: str) -> RRDBNet:
    """The network with these weights."""
    rrdb = RRDBNet(*sizes(saved, method))
    load_state(rrdb, saved.weights, saved, method)
    return rrdb
