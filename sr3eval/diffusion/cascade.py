"""Checkpoints one behind the other: what one stage makes, rounded to 8 bit, is the next one's input."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor

from sr3eval.config import SPREAD, check_call, to_dict
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion import schedules
from sr3eval.diffusion.regression import Regression
from sr3eval.diffusion.solvers import SamplerOptions
from sr3eval.diffusion.sr3 import SR3
from sr3eval.errors import UserError
from sr3eval.folders import stable_hash
from sr3eval.images import round_to_8bit
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint


class Stage:
    """One checkpoint of a cascade: SR3 with its sampler's settings, or Regression, which has none.

    half: convolve in bfloat16.
    """

    def __init__(self, checkpoint: str, sampler: SamplerOptions, half: bool = False) -> None:
        weights = checkpoints.load(checkpoint)
        self.checkpoint, self.trained, self.half = checkpoint, weights.config, half
        self.method: SR3 | Regression
        match weights.config.model:
            case "sr3":
                self.method = SR3(weights, schedules.choose(checkpoint, weights.sha256, sampler), half)
            case "regression":
                self.method = Regression(weights, half=half)
            case other:
                raise UserError(f"{checkpoint}: a {other} checkpoint, neither SR3 nor Regression")

    @property
    def identity(self) -> dict[str, Any]:
        """What its images depend on: the checkpoint's sha256, and every setting."""
        sampler = to_dict(self.method.sampler) if isinstance(self.method, SR3) else {}
        return {"checkpoint": self.method.facts.checksums["checkpoint"], "half": self.half} | sampler

    @property
    def trained_side(self) -> int:
        """Of the inputs that it was trained on, in pixels."""
        return (self.trained.data.crop or self.trained.target.hr_size) // self.method.scale

    def check(self, side: int) -> str:
        """What there is to say of inputs of that side, if they are not those of training.

        Raises UserError where its network has attention, which looks at the whole of an image.
        """
        if side == self.trained_side:
            return ""
        sizes = f"{self.checkpoint}: trained on {self.trained_side}x{self.trained_side} inputs, gets {side}x{side}"
        if self.trained.network.attention or self.trained.network.middle_attention:
            raise UserError(f"{sizes}, and its network has attention: the sizes of consecutive stages must match")
        return f"{sizes}; its network is convolutional and takes them, but has not seen details of that scale"


def build_stage(*, checkpoint: str, half: bool = False, sampler: Annotated[SamplerOptions, SPREAD]) -> Stage:
    """What a table of a config's stages describes: a checkpoint of SR3 with its sampler's keys, or of Regression."""
    return Stage(checkpoint, sampler, half)


def build_stages(tables: Sequence[Mapping[str, Any]], where: str) -> list[Stage]:
    """The stages of a config's tables; UserError names the table and what is wrong with it."""
    stages = []
    for index, table in enumerate(tables):
        name = f"{where}[{index}]"
        stage = build_stage(**check_call(build_stage, table, name))
        settings = [key for key in table if key not in ("checkpoint", "half")]
        if settings and isinstance(stage.method, Regression):
            raise UserError(f'{name}: "{settings[0]}" is a setting of samplers, and Regression has none; leave it out')
        stages.append(stage)
    return stages


class Cascade(Method):
    """SR3 and Regression stages as one method, whose scale is their product.

    Stages are trained on 8-bit inputs (`Task.degrade`), so what goes from one to the next is rounded to 8 bit: the same
    as PNG files between two calls of `sr3eval sample`. The paper does not say what it does there. The first stage draws
    from an image's seed, the others from hashes of it, so that no two stages share their noise.
    """

    scale: int

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.name, self.stages = "cascade", list(stages)
        methods = [stage.method for stage in stages]
        self.scale = math.prod(method.scale for method in methods)
        self.stochastic = any(method.stochastic for method in methods)
        self.fingerprint = fingerprint("cascade", *(method.fingerprint for method in methods))
        sums = [sha256 for method in methods for sha256 in method.facts.checksums.values()]
        checksums = {f"checkpoint {number}": sha256 for number, sha256 in enumerate(sums, start=1)}
        self.facts = Facts(checksums, settings="; ".join(filter(None, (method.facts.settings for method in methods))))

    def check_sides(self, side: int | None = None) -> list[str]:
        """Remarks on stages that get other sizes than they were trained on, for inputs of that side; see `Stage.check`.

        side: by default what the first stage was trained on, so that the stages are checked against one another.
        """
        remarks = []
        for stage in self.stages:
            side = side or stage.trained_side
            remarks.append(stage.check(side))
            side *= stage.method.scale
        return list(filter(None, remarks))

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, H, W], float32 in [0, 1]. Same seed, same image."""
        *_, images = lr, *self.each(lr, seeds, progress)
        return Upscaled(images)

    def each(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Iterator[Tensor]:
        """What every stage makes of lr [N, 3, h, w], in order; rounded, it is the next one's input."""
        for number, stage in enumerate(self.stages):
            own = [stable_hash(seed, "stage", number) for seed in seeds] if number else list(seeds)
            images = stage.method.upscale(lr, own, _part(progress, number, len(self.stages))).images
            if progress:
                progress((number + 1) / len(self.stages))  # Regression tells nothing itself
            yield images
            lr = round_to_8bit(images)


def _part(progress: Progress | None, number: int, count: int) -> Callable[[float], None] | None:
    """The progress of one of `count` stages, as a share of all."""
    return progress and (lambda share: progress((number + share) / count))
