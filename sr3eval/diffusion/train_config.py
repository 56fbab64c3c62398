"""What a training run is: the dataclasses behind `sr3eval train CONFIG`."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from sr3eval import tasks
from sr3eval.diffusion.presets import PRESETS
from sr3eval.diffusion.schedule import FIRST_BETA, NoiseSchedule, Spacing
from sr3eval.diffusion.unet import UNetConfig
from sr3eval.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Training and validation images.

    images: folder, searched recursively. validation: folder, or None to hold out the share `held_out` of `images` by
    hash. crop: side in pixels of random crops; None takes every image whole (largest central square, area resize to
    the task's size). zoom_out: crops cover up to this many times `crop` pixels a side, log-uniformly, and are area
    resized to `crop`: few photographs then show their textures at many scales. workers: processes that read ahead.
    """

    images: str
    validation: str | None = None
    held_out: float = 0.02
    crop: int | None = None
    zoom_out: float = 1.0
    flip: bool = True
    validation_images: int = 32
    workers: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise UserError(f"data.held_out: {self.held_out} is not between 0 and 1")
        if self.crop is not None and self.crop < 1:
            raise UserError(f"data.crop: {self.crop} is not positive; leave it out to take images whole")
        if not 1 <= self.zoom_out < math.inf or (self.zoom_out > 1 and self.crop is None):
            raise UserError("data.zoom_out: must be at least 1, and needs data.crop")
        if self.validation_images < 1:
            raise UserError(f"data.validation_images: {self.validation_images}; at least 1 is needed")
        if self.workers < 0:
            raise UserError(f"data.workers: {self.workers} is negative")


@dataclass(frozen=True)
class ScheduleConfig:
    """Training schedule beta_1 .. beta_T. The paper gives T alone; the ends are Palette's.

    spacing: "linear" in beta; "log_snr" goes from the same gamma_1 to the same gamma_T in equal steps of log SNR, which
    draws more examples at the low noise levels where textures are decided.
    """

    start: float = 1e-6
    end: float = 1e-2
    steps: int = 2000
    spacing: Spacing = "linear"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"schedule.steps: {self.steps}; at least 1 is needed")
        for name, beta in (("start", self.start), ("end", self.end)):
            if not 0 < beta < 1:
                raise UserError(f"schedule.{name}: {beta} is not between 0 and 1")
        final_gamma = float(self.build().gammas[-1])
        if not 0 < final_gamma < 1 - FIRST_BETA:
            raise UserError(f"schedule: ends at gamma_T = {final_gamma}, not between 0 and {1 - FIRST_BETA}")

    def build(self) -> NoiseSchedule:
        linear = NoiseSchedule.linear(self.start, self.end, self.steps)
        if self.spacing == "linear":
            return linear
        return NoiseSchedule.log_snr(float(linear.gammas[0]), float(linear.gammas[-1]), self.steps)


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam with linear warm-up to a fixed rate, and EMA.

    The paper: 1M steps, batch 256, warm-up 10K steps, rate 1e-4 for SR3 and 1e-5 for Regression.

    accumulate: parts a batch is computed in, to fit memory. final_decay: last share of the steps over which the rate
    falls linearly to zero; the paper keeps it fixed (0). precision: "auto" computes in bfloat16 where the hardware
    has it. compile: through torch.compile (minutes at the start, then faster; needs a C++ compiler on the CPU).
    gradient_clip: largest norm of the gradient, 0 for none.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float = 0.9999
    gradient_clip: float = 1.0
    accumulate: int = 1
    final_decay: float = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.accumulate) < 1 or self.batch_size % self.accumulate:
            raise UserError("optimiser: steps and batch_size must be positive, and batch_size a multiple of accumulate")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.ema_decay < 1 or not 0 <= self.final_decay <= 1:
            raise UserError("optimiser: learning_rate must be positive, ema_decay in [0, 1), final_decay in [0, 1]")
        for name, value in (("warmup_steps", self.warmup_steps), ("gradient_clip", self.gradient_clip)):
            if not 0 <= value < math.inf:
                raise UserError(f"optimiser.{name}: {value} is negative or not finite; 0 is for none")

    def rate(self, step: int) -> float:
        """The learning rate of step number `step` (from 1)."""
        warm = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        falling = self.final_decay * self.steps
        left = min(1.0, (self.steps - step + 1) / falling) if falling else 1.0
        return self.learning_rate * warm * left


@dataclass(frozen=True)
class LogConfig:
    """How often, in steps: a line of losses, validation with its sample sheet, the saved state.

    sampling_steps: refinement steps of SR3's validation.
    """

    every: int = 100
    validate_every: int = 1000
    save_every: int = 1000
    sampling_steps: int = 50

    def __post_init__(self) -> None:
        if min(self.every, self.validate_every, self.save_every, self.sampling_steps) < 1:
            raise UserError("log: every number must be at least 1")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. unet: by default the task's preset. loss_norm: p of the objective, by default the paper's."""

    task: str
    model: Literal["sr3", "regression"]
    data: DataConfig
    optimiser: OptimiserConfig
    unet: UNetConfig | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    log: LogConfig = LogConfig()
    loss_norm: Literal[1, 2] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        task = tasks.get(self.task)
        if self.unet is None and self.task not in PRESETS:
            raise UserError(f"{self.task} has no preset network: give the table [unet]")
        if self.unet is not None and self.unet.noise_level not in (None, self.model == "sr3"):
            raise UserError(f'unet.noise_level: follows from model = "{self.model}"; leave it out')
        side = self.data.crop or task.hr_size
        if side % task.scale or side % self.network.factor:
            raise UserError(
                f"data.crop: {side} is not a multiple of the scale {task.scale} and of {self.network.factor}"
            )

    @property
    def network(self) -> UNetConfig:
        return replace(self.unet or PRESETS[self.task], noise_level=self.model == "sr3")

    def resolved(self) -> "TrainConfig":
        """The same run with its network written out: what checkpoints carry, lest they change with a preset."""
        return replace(self, unet=self.network)

    @property
    def p(self) -> int:
        return self.loss_norm or (1 if self.model == "sr3" else 2)
