"""DISTS, deep image structure and texture similarity (Ding et al. 2020)."""

import functools
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr3eval.device import all_threads, default_device
from sr3eval.metrics import Batch, Convention, PerImage
from sr3eval.metrics.lpips import BACKBONES
from sr3eval.weights import Release, load, load_state

PACKAGE = "DISTS_pytorch"
VGG = BACKBONES["vgg"]
TRAINED = Release(
    "DISTS",
    "weights.pt",
    f"pip install {PACKAGE}",
    "MIT",
    12288,
    "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
    PACKAGE,
)
RELEASES = (VGG, TRAINED)
STAGES = (4, 9, 16, 23, 30)  # ends, in torchvision's `features`, of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
CHANNELS = (3, 64, 128, 256, 512, 512)  # of the image and of those layers
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STABILISER = 1e-6  # c1 and c2 of eq. 7 and 8


class Dists(nn.Module):
    """1 - the weighted similarity of textures and structures of VGG-16's layers, the image itself among them.

    features: torchvision's, whose max pools are replaced by the paper's L2 pools. texture, structure: the weights alpha
    and beta, [1475] each, of the channels of all layers.
    """

    texture: Tensor
    structure: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential, texture: Tensor, structure: Tensor) -> None:
        super().__init__()
        starts = (0, *(end + 1 for end in STAGES[:-1]))  # without the max pools
        self.stages = nn.ModuleList(features[a:b] for a, b in zip(starts, STAGES, strict=True))
        total = texture.sum() + structure.sum()
        self.register_buffer("texture", texture / total)
        self.register_buffer("structure", structure / total)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """[N] of [N, 3, H, W] in [0, 1]: 0 for equal images."""
        texture, structure = self.texture.split(CHANNELS), self.structure.split(CHANNELS)
        similarity = [
            (alpha * _alike(x.mean((2, 3)), y.mean((2, 3))) + beta * _correlated(x, y)).sum(dim=1)
            for x, y, alpha, beta in zip(self.layers(sr), self.layers(hr), texture, structure, strict=True)
        ]
        return 1 - torch.stack(similarity).sum(dim=0)

    def layers(self, images: Tensor) -> Iterator[Tensor]:
        """The images, and what VGG-16 makes of them."""
        yield images
        x = (images - self.mean) / self.std
        for number, stage in enumerate(self.stages):
            x = stage(_l2_pool(x) if number else x)
            yield x


def _alike(x: Tensor, y: Tensor) -> Tensor:
    """Eq. 7, of the means of channels."""
    return (2 * x * y + STABILISER) / (x.square() + y.square() + STABILISER)


def _correlated(x: Tensor, y: Tensor) -> Tensor:
    """Eq. 8, of channels: [N, C, H, W] to [N, C]."""
    x, y = (z - z.mean((2, 3), keepdim=True) for z in (x, y))
    covariance, variances = (x * y).mean((2, 3)), (x.square() + y.square()).mean((2, 3))
    return (2 * covariance + STABILISER) / (variances + STABILISER)


def _l2_pool(x: Tensor) -> Tensor:
    """Half the size: root of the mean square under a Hann window of 3x3 (eq. 4)."""
    hann = torch.from_numpy(np.hanning(5)[1:-1]).to(x)
    window = (hann[:, None] * hann / hann.sum().square()).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


@functools.cache
def network(weights: str | None) -> tuple[Dists, str]:
    """The network, and what VGG-16's weights are. UserError without them or without the package's alpha, beta."""
    import torchvision

    saved = load(VGG, weights)
    with torch.device("meta"):  # whose random weights would take seconds
        features = torchvision.models.vgg16(weights=None).features
    state = {
        key.removeprefix("features."): value for key, value in saved.weights.items() if key.startswith("features.")
    }
    load_state(features, state, saved, VGG.method)
    return Dists(features, *trained()).eval().requires_grad_(False).to(default_device()), saved.described


def trained() -> tuple[Tensor, Tensor]:
    """The authors' alpha and beta, [1475] each, from the package DISTS_pytorch."""
    saved = load(TRAINED)
    if saved.weights.keys() != {"alpha", "beta"} or any(w.numel() != sum(CHANNELS) for w in saved.weights.values()):
        raise saved.wrong(TRAINED.method, f"not an alpha and a beta of {sum(CHANNELS)} numbers each")
    return saved.weights["alpha"].flatten(), saved.weights["beta"].flatten()


def build(*, weights: str | None = None) -> PerImage:
    """DISTS of whole images; weights: VGG-16's file, the same as for lpips with backbone = "vgg"."""
    module, described = network(weights)

    @torch.inference_mode()
    def score(batch: Batch) -> Tensor:
        sr, hr = (images.to(default_device()) for images in batch.pair)
        with all_threads():
            return module(sr, hr).cpu()

    package = f"{PACKAGE} {version(PACKAGE)}"
    settings = (
        f"VGG-16, {described}, alpha and beta of {package} (MIT), images at their size (the authors' "
        "script shrinks the short side to 256), mean over images"
    )
    return PerImage(Convention("dists", "DISTS", False, settings, decimals=4, version=f"1, {package}"), score)
