"""Does EfficientNet-Lite0 see in an output what it sees in its HR image? Needs no download."""

from sr3eval.metrics import PerImage
from sr3eval.metrics._classification import agreement_metric
from sr3eval.metrics._networks import efficientnet_lite0


def build() -> PerImage:
    """Share of outputs, resized to 224x224, with HR's top class."""
    return agreement_metric("top1_agreement_efficientnet_lite0", efficientnet_lite0())
