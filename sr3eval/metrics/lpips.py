"""LPIPS, learned perceptual image patch similarity (Zhang et al. 2018)."""

import functools
import itertools
import warnings
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor

from sr3eval.device import all_threads, default_device
from sr3eval.images import to_signed
from sr3eval.metrics import Batch, Convention, PerImage
from sr3eval.weights import Release, load, load_state

Backbone = Literal["alex", "vgg"]
TORCHVISION = "BSD-3-Clause (torchvision)"
BACKBONES = {
    "alex": Release.download("AlexNet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", TORCHVISION),
    "vgg": Release.download("VGG-16", "https://download.pytorch.org/models/vgg16-397923af.pth", TORCHVISION),
}
# The weights of their layers, which the package reads itself.
LAYERS = tuple(
    Release(f"LPIPS of {backbone}", file, "pip install lpips", "BSD-2-Clause", size, sha256, "lpips/weights/v0.1")
    for backbone, file, size, sha256 in (
        ("AlexNet", "alex.pth", 6009, "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
        ("VGG-16", "vgg.pth", 7289, "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    )
)
RELEASES = (*BACKBONES.values(), *LAYERS)


@functools.cache
def network(backbone: Backbone, weights: str | None) -> tuple[Any, str]:
    """The package's module, version 0.1, and what its backbone's weights are."""
    import lpips

    saved = load(BACKBONES[backbone], weights)
    with warnings.catch_warnings():  # of torchvision, about how the package calls it
        warnings.simplefilter("ignore", UserWarning)
        module = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
    # The package cuts torchvision's `features` into slices and keeps the layers' numbers.
    own = {name: f"features.{name.split('.', 1)[1]}" for name in module.net.state_dict()}
    state = {name: saved.weights[key] for name, key in own.items() if key in saved.weights}
    load_state(module.net, state, saved, BACKBONES[backbone].method)
    return module.eval().requires_grad_(False).to(default_device()), saved.described


def build(*, backbone: Backbone = "alex", weights: str | None = None) -> PerImage:
    """LPIPS v0.1.

    Args:
        backbone: "alex", AlexNet, the usual one for evaluation, or "vgg", VGG-16.
        weights: the backbone's file; downloaded by default.
    """
    distance, described = network(backbone, weights)
    return PerImage(_convention("lpips", "LPIPS", backbone, described), lambda batch: lpips(distance, *batch.pair))


def build_lpips_diversity(*, backbone: Backbone = "alex", weights: str | None = None) -> PerImage:
    """Mean LPIPS between the samples of an input: how different what is drawn looks.

    Of all pairs, as Zhu et al. 2017 (arXiv:1711.11586) and later papers compare several outputs of one input.

    Args:
        backbone: "alex", AlexNet, the usual one for evaluation, or "vgg", VGG-16.
        weights: the backbone's file; downloaded by default.
    """
    distance, described = network(backbone, weights)

    def score(batch: Batch) -> Tensor:
        assert batch.samples is not None  # the convention needs it
        pairs = list(itertools.combinations(batch.samples, 2))
        return torch.stack([lpips(distance, a, b) for a, b in pairs]).mean(dim=0)

    convention = _convention("lpips_diversity", "LPIPS diversity", backbone, described)
    settings = f"mean over all pairs of samples, {convention.settings}"
    more = replace(convention, higher_is_better=True, settings=settings, needs_hr=False, needs_samples=True)
    return PerImage(more, score)


@torch.inference_mode()
def lpips(distance: Any, images: Tensor, others: Tensor) -> Tensor:
    """[N] by the package's module, of two batches [N, 3, H, W] in [0, 1]."""
    device = default_device()
    with all_threads():
        return distance(to_signed(images.to(device)), to_signed(others.to(device))).flatten().cpu()


def _convention(name: str, label: str, backbone: Backbone, described: str) -> Convention:
    usual = backbone == "alex"
    return Convention(
        name=name if usual else f"{name}_{backbone}",
        label=label if usual else f"{label} ({backbone.upper()})",
        higher_is_better=False,
        settings=f"LPIPS v0.1, {backbone}, {described}, mean over images",
        version=f"lpips {version('lpips')}",
    )
