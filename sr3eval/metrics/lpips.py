"""LPIPS, learned perceptual image patch similarity (Zhang et al. 2018)."""

import functools
import warnings
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor

from sr3eval.device import all_threads, default_device
from sr3eval.features.weights import Weights, find, read
from sr3eval.images import to_signed
from sr3eval.metrics import Batch, Convention, PerImage

Backbone = Literal["alex", "vgg"]
BACKBONES = {
    "alex": Weights("AlexNet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    "vgg": Weights("VGG-16", "https://download.pytorch.org/models/vgg16-397923af.pth"),
}


@functools.cache
def network(backbone: Backbone, weights: str | None) -> tuple[Any, str]:
    """The package's module, version 0.1, and the sha256 of its backbone's weights."""
    import lpips

    path, sha256 = find(BACKBONES[backbone], weights)
    state = read(BACKBONES[backbone], path, sha256)
    with warnings.catch_warnings():  # of torchvision, about how the package calls it
        warnings.simplefilter("ignore", UserWarning)
        module = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
    # The package cuts torchvision's `features` into slices and keeps the layers' numbers.
    own = {name: name.split(".", 1)[1] for name in module.net.state_dict()}
    try:
        module.net.load_state_dict({name: state[f"features.{layer}"] for name, layer in own.items()})
    except (KeyError, RuntimeError) as error:
        raise BACKBONES[backbone].misfit(path, sha256, error) from None
    return module.eval().requires_grad_(False).to(default_device()), sha256


def build(*, backbone: Backbone = "alex", weights: str | None = None) -> PerImage:
    """LPIPS v0.1 with AlexNet ("alex", the usual one for evaluation) or VGG-16; weights: the backbone's file."""
    module, sha256 = network(backbone, weights)

    @torch.inference_mode()
    def score(batch: Batch) -> Tensor:
        sr, hr = (to_signed(images.to(default_device())) for images in batch.pair)
        with all_threads():
            return module(sr, hr).flatten().cpu()

    usual = backbone == "alex"
    return PerImage(
        Convention(
            name="lpips" if usual else f"lpips_{backbone}",
            label="LPIPS" if usual else f"LPIPS ({backbone.upper()})",
            higher_is_better=False,
            settings=f"LPIPS v0.1, {backbone}, {BACKBONES[backbone].described(sha256)}, mean over images",
            version=f"lpips {version('lpips')}",
        ),
        score,
    )
