"""FSRGAN, the FSRNet (Chen et al. 2018, arXiv:1711.10703) with adversarial training: 16x16 faces to 128x128.

Reads what two ports to PyTorch save of either network, see `_fsrnet`. The authors' own CelebA_GAN_8x.t7 and others
(github.com/tyshiwo/FSRNet) are Torch7's and not run; what they make comes in by kind `precomputed`.

What the ports publish are FSRNets; neither says that it reproduces the paper's numbers, or has an FSRGAN. Of
cydiachen's two networks, whose files look the same, the one that has the coarse network in it (networks.py) is run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines._fingerprints import options_text
from baselines._fsrnet import FSRNet, state_dict, unequal_alias
from baselines._pixels import Quantize, half_up, on_official_grid, truncate_to_8bit
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.images import from_signed, pillow_bicubic, to_signed, to_uint8
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.weights import Format, PickledCodeError, Release, StateDict, load_state, looks_like, read

NAME = "fsrgan"
GIUNG, CYDIACHEN = "FSRNet (cs-giung's port), kind fsrgan", "FSRNet (cydiachen's port), kind fsrgan"
AUTHORS = "github.com/tyshiwo/FSRNet"
LICENCE = "none stated"
RELEASES = (
    Release("FSRNet", "CelebA_8x.t7", AUTHORS, LICENCE),
    Release("FSRGAN", "CelebA_GAN_8x.t7", AUTHORS, LICENCE),
    Release("FSRNet", "Helen_8x.t7", AUTHORS, LICENCE),
    Release("FSRGAN", "Helen_GAN_8x.t7", AUTHORS, LICENCE),
    Release("FSRNet (cs-giung's port)", "e099_psnr22.53.pth", "github.com/cs-giung/FSRNet-pytorch", LICENCE),
    Release("FSRNet (cydiachen's port)", "(a netdisk)", "github.com/cydiachen/FSRNET_pytorch", LICENCE),
)
KEYS = {GIUNG: r"csr_net\.", CYDIACHEN: r"coarse_SR_Encoder\."}
FORMATS = (
    Format(
        "a file of Torch7, e.g. FSRNet's or FSRGAN's, whose networks are not run: make the outputs with its authors' "
        "Lua code and give them to kind precomputed (`pip install torchfile`: torchfile.load reads its tensors)",
        starts=(bytes.fromhex("0400000001000000"), bytes.fromhex("0300000001000000")),  # an object, or a table, first
        suffix=".t7",
    ),
)
SCALE, LR_SIZE = 8, 16
Statistics = Literal["image", "running"]


def opencv_enlarged(lr: Tensor) -> Tensor:
    """[N, 3, h, w] to [N, 3, 8h, 8w], both 8 bit in [0, 1], by OpenCV's INTER_CUBIC: a = -0.75, not antialiased.

    Equals its builds with Intel's IPP; without, its 11-bit weights make 1 level of difference on 2 % of the values.
    """
    levels = F.interpolate(to_uint8(lr).float(), scale_factor=SCALE, mode="bicubic", align_corners=False)
    return levels.round().clamp(0, 255) / 255


def pillow_enlarged(lr: Tensor) -> Tensor:
    """[N, 3, h, w] in [0, 1] to [N, 3, 8h, 8w] in [-1, 1], by Pillow's BICUBIC between images of 8 bit."""
    return to_signed(pillow_bicubic(lr, (SCALE * lr.shape[-2], SCALE * lr.shape[-1])))


@dataclass(frozen=True)
class Port:
    """What a port does around its network.

    lr_kernel: what made its low-resolution images. enlarge: from these, [0, 1], to the network's input. to_image: from
    the network's output to [0, 1]. to_8bit: how it writes images. statistics: of its batch norms, see `build`. shared:
    whether the blocks of a section are one, see `FSRNet`.
    """

    lr_kernel: str
    enlarge: Callable[[Tensor], Tensor]
    to_image: Callable[[Tensor], Tensor]
    to_8bit: Callable[[Tensor], Tensor]
    statistics: Statistics
    shared: bool


# By whose weights they are, as KEYS has it.
PORTS = {
    GIUNG: Port("Pillow bicubic", pillow_enlarged, from_signed, truncate_to_8bit, "image", shared=True),
    # Trained from and towards [0, 1], though it ends in a tanh; written by SciPy's toimage.
    CYDIACHEN: Port(
        "OpenCV bicubic, not antialiased", opencv_enlarged, lambda y: y.clamp(0, 1), half_up, "running", shared=False
    ),
}


class FSRGAN(Method):
    """An FSRNet as a Method; deterministic."""

    name = NAME
    scale = SCALE
    lr_size = LR_SIZE

    def __init__(
        self, network: FSRNet, architecture: str, statistics: Statistics, sha256: str, quantize: Quantize
    ) -> None:
        self.port, self.quantize = PORTS[architecture], quantize
        norms = f"{architecture.removesuffix(f', kind {NAME}')}, statistics = {statistics}"
        self.facts = Facts({"weights": sha256}, norms, self.port.lr_kernel)
        self.fingerprint = fingerprint(NAME, options_text(weights=sha256, quantize=quantize, statistics=statistics))
        self.device = default_device()
        network = network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, 16, 16] to [N, 3, 128, 128], both float32 in [0, 1]. Seeds are not used.

        The network sees images that are rounded to 8 bit, enlarged, and rounded again, as in training. UserError for
        another size: the network, trained on whole faces, would take any, and make no face of it.
        """
        if lr.shape[-2:] != (LR_SIZE, LR_SIZE):
            height, width = lr.shape[-2:]
            raise UserError(
                f"{NAME}: takes faces of {LR_SIZE}x{LR_SIZE} pixels, not {height}x{width}; "
                f'a path may resize them, e.g. path = ["bicubic {LR_SIZE}", "method"]'
            )
        x = self.port.enlarge(lr.cpu()).to(self.device).contiguous(memory_format=torch.channels_last)
        y = self.network(x)
        return Upscaled(on_official_grid(self.port.to_image(y), self.quantize, self.port.to_8bit).cpu())


def build(*, weights: str, quantize: Quantize = "official", statistics: Statistics | None = None) -> FSRGAN:
    """Load a checkpoint of either port.

    Args:
        weights: the file.
        quantize: "official" is each port's way to 8 bit: cs-giung's truncates, cydiachen's rounds half up. "none"
            keeps floats.
        statistics: what batch norms take mean and variance from, "image" (each image) or "running" (training). None
            is "image" for cs-giung's, whose scripts never leave training mode, not for its published PSNR either; its
            running statistics mix the places at which one block stands. It is "running" for cydiachen's, which has no
            code for tests.

    Raises:
        UserError: a file that holds no such network, with the remedy for a pickled module and a .t7 file.
    """
    saved = released(weights)
    architecture = looks_like(saved.weights, KEYS)
    if architecture not in PORTS:
        raise saved.wrong(NAME, "no layers of an FSRNet")
    if alias := unequal_alias(saved.weights):
        raise saved.wrong(architecture, f"{alias} differs from the first block, with which it should be one")
    statistics = statistics or PORTS[architecture].statistics
    network = loaded(saved, architecture, statistics)
    return FSRGAN(network, architecture, statistics, saved.sha256, quantize)


def released(weights: str) -> StateDict:
    """The tensors in a file; UserError says how to re-save the module that cydiachen's port pickles."""
    try:
        return read(weights, NAME)
    except PickledCodeError as error:
        file = str(Path(weights).expanduser().resolve())
        load = f"torch.load({file!r}, map_location='cpu', weights_only=False)"
        line = f"import torch; torch.save({load}['model'].state_dict(), {file + '.state.pth'!r})"
        raise UserError(f"{error}; for a file of cydiachen's port, in a python run in its repository: {line}") from None


def loaded(saved: StateDict, architecture: str, statistics: Statistics) -> FSRNet:
    """The network with these weights."""
    state = state_dict(saved.weights)
    first = state.get("coarse.1.weight")
    if first is None or first.ndim != 4:
        raise saved.wrong(architecture, "its first layer is missing")
    network = FSRNet(len(first), per_image=statistics == "image", shared=PORTS[architecture].shared)
    load_state(network, state, saved, architecture)
    return network
