"""Fréchet distance of EfficientNet-Lite0's features: not FID, but it needs no download."""

from sr3eval.metrics._networks import efficientnet_lite0
from sr3eval.metrics._sets import SetMetric
from sr3eval.metrics.fid import frechet_metric


def build(*, reference: str = "hr") -> SetMetric:
    """Like `fid`, on the 1280-d pooled features of EfficientNet-Lite0."""
    return frechet_metric("fd_efficientnet_lite0", efficientnet_lite0(), reference, "not FID: ")
