"""Any single-image super-resolution network that the package spandrel knows: RCAN, SwinIR, HAT, DAT, Real-ESRGAN …

Architecture, scale and size of the network follow from its file. spandrel is at github.com/chaiNNer-org/spandrel.
"""

from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from baselines._fingerprints import options_text
from baselines._one_pass import precision
from baselines._pixels import Quantize, on_official_grid
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.images import round_to_8bit
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.tiles import Tiles
from sr3eval.weights import Release, StateDict, read

RCAN = "RCAN (kind spandrel)"
RELEASES = (
    *(
        Release(RCAN, f"RCAN_{task}.pt", "github.com/yulunzhang/RCAN", "none stated")
        for task in ("BIX2", "BIX3", "BIX4", "BIX8", "BDX3")
    ),
    Release(RCAN, "RCAN_BIX4-official.pth", "github.com/XPixelGroup/BasicSR", "Apache-2.0"),
)
KEYS = {RCAN: r"body\.\d+\.body\.\d+\.body\.3\.conv_du\.|body\.\d+\.residual_group\."}
DRAW_NOISE = frozenset({"AuraSR"})  # from torch's global generator


class Spandrel(Method):
    """A network that spandrel loaded, as a Method."""

    name = "spandrel"

    def __init__(self, descriptor: Any, saved: StateDict, quantize: Quantize, tiles: Tiles, half: bool) -> None:
        self.scale: int | None = descriptor.scale
        options = options_text(quantize=quantize, tiles=tiles, half=half)
        self.fingerprint = fingerprint(self.name, version("spandrel"), saved.sha256, options)
        self.facts = Facts({"weights": saved.sha256}, architecture=descriptor.architecture.name)
        self.quantize, self.tiles = quantize, tiles
        self.device = default_device()
        self.dtype = precision(half, self.device)
        if half and not descriptor.supports_half:
            raise UserError(f"half = true: {self.facts.architecture} does not work in half precision; leave it out")
        self.descriptor = descriptor.to(self.device, self.dtype).eval()

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, h * scale, w * scale], both float32 in [0, 1]; any size.

        Sizes that the network does not take are padded by reflection and cropped. Deterministic, seeds are not used,
        except by AuraSR, whose noise differs between CPU and GPU.
        """
        x = lr.to(self.device, self.dtype)
        if self.facts.architecture in DRAW_NOISE:
            sr = torch.cat([self._seeded(image[None], seed) for image, seed in zip(x, seeds, strict=True)])
        else:
            sr = self._tiled(x, progress)
        return Upscaled(on_official_grid(sr.float(), self.quantize, round_to_8bit).cpu())

    def _seeded(self, image: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self._tiled(image)

    def _tiled(self, x: Tensor, progress: Progress | None = None) -> Tensor:
        return self.tiles.upscale(self._network, x, self.descriptor.scale, progress)

    def _network(self, x: Tensor) -> Tensor:
        """Pads, crops and clamps. The copy is for spandrel's RCAN, which writes into its input."""
        sr: Tensor = self.descriptor(x.clone())
        return sr


def package() -> ModuleType:
    """The package; UserError says how to install it."""
    try:
        import spandrel  # the package: this file's own name is baselines.spandrel
    except ImportError:
        raise UserError("kind spandrel needs a package that is not installed: pip install spandrel") from None
    return spandrel


def describe(saved: StateDict) -> Any:
    """spandrel's descriptor of the network that has these weights; UserError unless it enlarges RGB images."""
    spandrel = package()
    try:
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(dict(saved.weights))
    except spandrel.UnsupportedModelError:
        known = f"no architecture that spandrel {version('spandrel')} knows"
        raise saved.wrong("spandrel", known) from None
    except Exception as error:  # its loaders raise nearly anything for weights that only resemble theirs
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise saved.wrong("spandrel", f"it cannot build the network: {reason}") from None
    where, architecture = saved.path, descriptor.architecture.name
    if descriptor.purpose != "SR":
        raise UserError(f"{where}: {architecture}, a model for {descriptor.purpose}, not for super-resolution")
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels != (3, 3):
        raise UserError(f"{where}: {architecture} from {channels[0]} to {channels[1]} channels, not from RGB to RGB")
    return descriptor


def build(
    *,
    weights: str,
    quantize: Quantize = "official",
    tile: int | None = None,
    overlap: int = 32,
    half: bool = False,
) -> Spandrel:
    """Load a .pth, .pt, .ckpt or .safetensors file of any super-resolution architecture that spandrel knows.

    Args:
        weights: the file.
        quantize: "official" rounds to 8 bit, as BasicSR and the releases do; "none" keeps floats.
        tile, overlap: pixels of the input, see `Tiles`; without tile, images are taken whole. Tiles change what
            networks make that look at the whole image, as RCAN's attention does.
        half: compute in 16-bit floats, on a GPU.

    Raises:
        UserError: anything else, and networks of grey images, of masks, or of the input's own size.
    """
    tiles = Tiles(tile, overlap)
    saved = read(weights, "spandrel")
    return Spandrel(describe(saved), saved, quantize, tiles, half)
