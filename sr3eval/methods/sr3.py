"""SR3: a checkpoint of `sr3eval train`, with its sampler's settings."""

from typing import Annotated

from sr3eval.config import SPREAD
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion import schedules
from sr3eval.diffusion.solvers import SamplerOptions
from sr3eval.diffusion.sr3 import SR3
from sr3eval.tasks import Task

REMARKS = (
    "SR3 gives nearly the same output each time, and skin without its moles, pimples and piercings "
    "(its authors' paper).",
)


def build(
    *, checkpoint: str, task: Task | None = None, half: bool = False, sampler: Annotated[SamplerOptions, SPREAD]
) -> SR3:
    """Load an SR3 checkpoint.

    Args:
        checkpoint: a model.safetensors of `sr3eval train`.
        task: what it must have been trained for, where that is one of the paper's.
        half: convolve in bfloat16, where the GPU or CPU has it.
        sampler: in a config and for `load`, its fields stand among the method's own options. `steps = 8` alone takes
            the best sampler that `sr3eval search-schedule` found for the checkpoint.
    """
    weights = checkpoints.load(checkpoint, "sr3", task)
    return SR3(weights, schedules.choose(checkpoint, weights.sha256, sampler), half)
