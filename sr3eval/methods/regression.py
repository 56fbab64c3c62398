"""The Regression model of the paper: SR3's U-Net without noise, one pass."""

from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion.regression import Regression
from sr3eval.tasks import Task


def build(*, checkpoint: str, task: Task | None = None) -> Regression:
    """Load a Regression checkpoint, one trained for `task` where that is one of the paper's."""
    return Regression(checkpoints.load(checkpoint, "regression", task))
