"""The Regression model of the paper: SR3's U-Net without noise, one pass."""

from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion.regression import Regression
from sr3eval.tasks import Task
from sr3eval.tiles import Tiles


def build(
    *, checkpoint: str, task: Task | None = None, tile: int | None = None, overlap: int = 32, half: bool = False
) -> Regression:
    """Load a Regression checkpoint.

    Tiles change what it makes, since its norms and its attention look at all that they are given; those of the size of
    the training crops are what it was trained on, and make large images better. (SR3 has no tiles: what it draws would
    differ between them.)

    Args:
        checkpoint: a model.safetensors of `sr3eval train`.
        task: what it must have been trained for, where that is one of the paper's.
        tile, overlap: pixels of the input, see `Tiles`; without tile, images are taken whole.
        half: convolve in bfloat16, where the GPU or CPU has it.
    """
    return Regression(checkpoints.load(checkpoint, "regression", task), Tiles(tile, overlap), half)
