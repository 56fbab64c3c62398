"""Errors and agreement of an image classifier, one 0 or 1 an image."""

import torch
from torch import Tensor

from sr3eval.metrics import Batch, PerImage
from sr3eval.metrics._networks import Network, resnet50


def top_k_error(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """1 where the label [N] is not among the k highest of the class scores [N, classes], else 0: [N] float64."""
    hit = (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1)
    return (~hit).double()


def error_metric(k: int, weights: str | None) -> PerImage:
    """Top-k error of ResNet-50 on the outputs, as a share."""
    network = resnet50(weights)

    def score(batch: Batch) -> Tensor:
        assert batch.labels is not None  # `check` has seen to it
        return top_k_error(network.logits(batch.sr), torch.tensor(list(batch.labels)), k)

    return PerImage(f"top{k}_error", score, False, f"{network.identity}, share of images", needs_labels=True)


def agreement_metric(name: str, network: Network) -> PerImage:
    """Share of outputs that the network gives the class it gives their HR images: it needs no labels."""

    def score(batch: Batch) -> Tensor:
        return 1 - top_k_error(network.logits(batch.sr), network.logits(batch.hr).argmax(dim=1), 1)

    return PerImage(name, score, True, f"share of images whose top class is that of HR; {network.identity}")
