"""Improved recall (Kynkäänniemi et al. 2019): the share of HR images that look like some output."""

from sr3eval.metrics._manifold import build_share
from sr3eval.metrics._networks import Resize
from sr3eval.metrics._sets import SetMetric


def build(*, resize: Resize = "tf1", weights: str | None = None) -> SetMetric:
    """Improved recall against the HR images of the run; resize, weights: as for FID."""
    return build_share("recall", resize, weights)
