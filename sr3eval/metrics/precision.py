"""Improved precision (Kynkäänniemi et al. 2019): the share of outputs that look like some HR image."""

from sr3eval.metrics._manifold import build_share
from sr3eval.metrics._networks import Resize
from sr3eval.metrics._sets import SetMetric


def build(*, resize: Resize = "tf1", weights: str | None = None) -> SetMetric:
    """Improved precision against the HR images of the run; resize, weights: as for FID."""
    return build_share("precision", resize, weights)
