"""Does ResNet-50 see in an output what it sees in its HR image?"""

from sr3eval.metrics import PerImage
from sr3eval.metrics._classification import agreement_metric
from sr3eval.metrics._networks import resnet50


def build(*, weights: str | None = None) -> PerImage:
    """Share of 224x224 outputs with HR's top class: what stands in for top1_error where there are no labels."""
    return agreement_metric("top1_agreement_resnet50", resnet50(weights))
