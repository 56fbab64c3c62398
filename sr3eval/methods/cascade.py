"""A cascade: SR3 and Regression checkpoints one behind the other, say 64x64 to 256x256 to 1024x1024."""

from dataclasses import replace
from typing import Any

from sr3eval.diffusion.cascade import Cascade, build_stages
from sr3eval.errors import UserError
from sr3eval.methods.sr3 import REMARKS as REMARKS
from sr3eval.tasks import Task


def build(*, stages: tuple[dict[str, Any], ...], task: Task | None = None) -> Cascade:
    """Load the checkpoints of a cascade, whose scale is the product of theirs.

    Args:
        stages: in order, tables of `checkpoint`, a model.safetensors of `sr3eval train`, and for SR3 of its sampler's
            settings: [{ checkpoint = "64_256.safetensors", steps = 100 }, { checkpoint = "256_1024.safetensors" }].
        task: whose inputs the first stage gets, where they have one size.
    """
    if not stages:
        raise UserError("stages: at least one is needed")
    cascade = Cascade(build_stages(stages, "stages"))
    cascade.facts = replace(
        cascade.facts, warning="; ".join(cascade.check_sides(task.lr_size if task and task.side else None))
    )
    return cascade
