"""Top-1 error of a ResNet-50 on the outputs: the paper's Table 4."""

from sr3eval.metrics import PerImage
from sr3eval.metrics._classification import error_metric


def build(*, weights: str | None = None) -> PerImage:
    """Top-1 error of timm's resnet50.tv_in1k; needs labels (data.labels) and 224x224 outputs."""
    return error_metric(1, weights)
