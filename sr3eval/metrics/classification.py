"""Errors of an image classifier on the outputs (the paper's Table 4), and its agreement with HR: 0 or 1 an image.

The benchmark's paired test of such scores is McNemar's exact one (see `significance.sign_flip_p`).
"""

from typing import Literal

import torch
from torch import Tensor

from sr3eval import images
from sr3eval.features.networks import EFFICIENTNET_LITE0, RESNET50, Network, efficientnet_lite0, resnet50
from sr3eval.metrics import Batch, Convention, PerImage

RELEASES = (RESNET50, EFFICIENTNET_LITE0)
RESNET50_SIDE = 224  # pixels, of the only images that it is given
Resize = Literal["bicubic"]


def top_k_error(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """1 where the label [N] is not among the k highest of the class scores [N, classes], else 0: [N] float64."""
    hit = (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)
    return (~hit).double()


def _error(k: int, weights: str | None, resize: Resize | None) -> PerImage:
    network = resnet50(weights)

    def score(batch: Batch) -> Tensor:
        assert batch.labels is not None  # the convention needs them
        return top_k_error(network.logits(_resized(batch.sr, resize)), torch.tensor(list(batch.labels)), k)

    return PerImage(
        Convention(
            name=f"top{k}_error_{resize}" if resize else f"top{k}_error",
            label=f"Top-{k} error",
            higher_is_better=False,
            settings=f"{network.identity}{f', which {resize} makes of outputs' if resize else ''}, share of images",
            variant=f"resized, {resize}" if resize else "",
            needs_hr=False,
            needs_labels=True,
            side=None if resize else RESNET50_SIDE,
        ),
        score,
    )


def _resized(outputs: Tensor, resize: Resize | None) -> Tensor:
    """[N, 3, H, W] in [0, 1] as ResNet-50 takes them."""
    return images.resize(outputs, (RESNET50_SIDE, RESNET50_SIDE)).clamp(0, 1) if resize else outputs


def _agreement(name: str, label: str, network: Network, side: int | None = None) -> PerImage:
    def score(batch: Batch) -> Tensor:
        sr, hr = (network.logits(images) for images in batch.pair)
        return 1 - top_k_error(sr, hr.argmax(dim=1), 1)

    return PerImage(
        Convention(
            name=f"top1_agreement_{name}",
            label=f"Top-1 agreement, {label}",
            higher_is_better=True,
            settings=f"share of images whose top class is that of HR; {network.identity}",
            side=side,
        ),
        score,
    )


def build_top1_error(*, weights: str | None = None, resize: Resize | None = None) -> PerImage:
    """Top-1 error of timm's resnet50.tv_in1k; needs labels, and 224x224 outputs unless it resizes.

    Args:
        weights: torchvision's file; downloaded by default.
        resize: "bicubic" takes outputs of any size to 224x224.
    """
    return _error(1, weights, resize)


def build_top5_error(*, weights: str | None = None, resize: Resize | None = None) -> PerImage:
    """Top-5 error of timm's resnet50.tv_in1k; needs labels, and 224x224 outputs unless it resizes.

    Args:
        weights: torchvision's file; downloaded by default.
        resize: "bicubic" takes outputs of any size to 224x224.
    """
    return _error(5, weights, resize)


def build_top1_agreement_resnet50(*, weights: str | None = None) -> PerImage:
    """Share of 224x224 outputs with HR's top class: what stands in for top1_error where there are no labels."""
    return _agreement("resnet50", "ResNet-50", resnet50(weights), RESNET50_SIDE)


def build_top1_agreement_efficientnet_lite0() -> PerImage:
    """Share of outputs, resized to 224x224, with HR's top class. Needs no download."""
    return _agreement("efficientnet_lite0", "EfficientNet-Lite0", efficientnet_lite0())
