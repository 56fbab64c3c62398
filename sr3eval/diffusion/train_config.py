"""What a training run is: the dataclasses behind `sr3eval train CONFIG`."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sr3eval import tasks
from sr3eval.diffusion.preconditioners import Model
from sr3eval.diffusion.presets import PRESETS
from sr3eval.diffusion.schedule import FIRST_BETA, NoiseSchedule
from sr3eval.diffusion.unet import UNetConfig
from sr3eval.errors import UserError
from sr3eval.tasks import Task

GENERATORS = ("ddpm", "improved_ddpm")


@dataclass(frozen=True)
class TrainingDataConfig:
    """Training and validation images.

    Attributes:
        images: folder of images, searched recursively, or of tar shards.
        validation: folder; None holds out the share `held_out` of `images` by hash.
        crop: side of random crops in pixels; None takes every image whole (largest central square, area resize to the
            task's size).
        zoom_out: crops cover up to this many times `crop` pixels per side, log-uniformly, and are resized to `crop` by
            area, so that a few photographs show their textures at many scales.
        zoom_least: the smallest such factor, so that crops show objects rather than textures.
        workers: processes that read ahead.
        blur: lowest and highest standard deviation, in LR pixels, of a Gaussian blur of the input during training;
            blur_share: share of the examples that get it. The paper gives neither; CDM (Ho et al. 2021) has 0.4 to 0.6
            and one half.
        labels: of a class-conditional generator's images: "folders" (one class per folder directly below `images`, as
            in ImageNet), "shards" (those of the tar shards), or a CSV file with the columns image_id and label.
    """

    images: str
    validation: str | None = None
    held_out: float = 0.02
    crop: int | None = None
    zoom_out: float = 1.0
    zoom_least: float = 1.0
    flip: bool = True
    validation_images: int = 32
    workers: int = 0
    in_memory: bool = False
    transpose: bool = False
    gains: tuple[float, ...] = (1.0, 1.0)
    blur: tuple[float, ...] | None = None
    blur_share: float = 0.5
    labels: str = "folders"

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise UserError(f"data.held_out: {self.held_out} is not between 0 and 1")
        if self.crop is not None and self.crop < 1:
            raise UserError(f"data.crop: {self.crop} is not positive; leave it out to take images whole")
        if not 1 <= self.zoom_out < math.inf or (self.zoom_out > 1 and self.crop is None):
            raise UserError("data.zoom_out: must be at least 1, and needs data.crop")
        if not 1 <= self.zoom_least <= self.zoom_out:
            raise UserError(f"data.zoom_least: {self.zoom_least} is not between 1 and data.zoom_out, {self.zoom_out}")
        if self.validation_images < 1:
            raise UserError(f"data.validation_images: {self.validation_images}; at least 1 is needed")
        if self.workers < 0:
            raise UserError(f"data.workers: {self.workers} is negative")
        if len(self.gains) != 2 or not 0 < self.gains[0] <= self.gains[1] < math.inf:
            raise UserError(f"data.gains: {list(self.gains)} must be the lowest and the highest factor, both positive")
        if self.blur is not None and (len(self.blur) != 2 or not 0 < self.blur[0] <= self.blur[1] < math.inf):
            raise UserError(f"data.blur: {list(self.blur)} must be the lowest and the highest sigma, both positive")
        if not 0 < self.blur_share <= 1:
            raise UserError(f"data.blur_share: {self.blur_share} is not above 0 and at most 1; leave out blur for none")
        if self.blur is None and self.blur_share != TrainingDataConfig.blur_share:
            raise UserError("data.blur_share: needs data.blur")
        if self.in_memory and self.crop is None:
            raise UserError("data.in_memory: needs data.crop")
        if not self.in_memory and (self.transpose or self.gains != (1.0, 1.0)):
            raise UserError("data.transpose and data.gains: need data.in_memory")


@dataclass(frozen=True)
class ScheduleConfig:
    """Training schedule beta_1 .. beta_T. The paper only gives T; the ends are Palette's.

    spacing: "linear" in beta; "log_snr" goes from the same gamma_1 to the same gamma_T in equal steps of log SNR, which
    draws more examples at the low noise levels where textures are decided; "cosine" is Improved DDPM's, with its
    own ends.
    """

    start: float = 1e-6
    end: float = 1e-2
    steps: int = 2000
    spacing: Literal["linear", "log_snr", "cosine"] = "linear"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"schedule.steps: {self.steps}; at least 1 is needed")
        for name, beta in (("start", self.start), ("end", self.end)):
            if not 0 < beta < 1:
                raise UserError(f"schedule.{name}: {beta} is not between 0 and 1")
        if self.spacing == "cosine" and (self.start, self.end) != (ScheduleConfig.start, ScheduleConfig.end):
            raise UserError('schedule: spacing = "cosine" has its own ends; leave out start and end')
        final_gamma = float(self.build().gammas[-1])
        if not 0 < final_gamma < 1 - FIRST_BETA:
            raise UserError(f"schedule: ends at gamma_T = {final_gamma}, not between 0 and {1 - FIRST_BETA}")

    def build(self) -> NoiseSchedule:
        if self.spacing == "cosine":
            return NoiseSchedule.cosine(self.steps)
        linear = NoiseSchedule.linear(self.start, self.end, self.steps)
        if self.spacing == "linear":
            return linear
        return NoiseSchedule.log_snr(float(linear.gammas[0]), float(linear.gammas[-1]), self.steps)


@dataclass(frozen=True)
class LevelsConfig:
    """Noise levels of training by log SNR = log(gamma / (1 - gamma)), instead of the schedule's piecewise uniform ones.

    The share `normal` of the examples is drawn from N(mean, deviation^2), the others uniformly from [low, high], all
    within [low, high]. Details y_0 - x of standard deviation s (on [-1, 1]) are decided around log SNR = -2 log s,
    where the linear schedule draws few examples.
    """

    mean: float
    deviation: float
    normal: float = 0.8
    low: float = -10.0
    high: float = 13.8

    def __post_init__(self) -> None:
        if not self.deviation > 0 or not 0 <= self.normal <= 1 or not self.low < self.high:
            raise UserError("training_levels: deviation must be positive, normal in [0, 1], and low below high")

    def sample_gamma(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw gamma for n examples, [n] float64."""
        normal = self.mean + self.deviation * torch.randn(n, dtype=torch.float64, generator=generator)
        share, u = torch.rand(2, n, dtype=torch.float64, generator=generator)
        log_snr = torch.where(share < self.normal, normal, self.low + (self.high - self.low) * u)
        return log_snr.clamp(self.low, self.high).sigmoid()


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam with linear warm-up to a fixed rate, and EMA.

    The paper: 1M steps, batch 256, warm-up 10K steps, rate 1e-4 for SR3 and 1e-5 for Regression.

    Attributes:
        batch_size: total over all processes.
        accumulate: pieces in which a process computes its share of a batch, to fit into memory.
        sharding: what each of several processes holds. "none": a whole copy of the network (DDP); "fsdp": a shard of
            its weights, gradients, moments and EMA (FSDP), which saves memory and sends half as much again.
        final_decay: last share of the steps, over which the rate falls linearly to zero; the paper keeps it fixed (0).
        precision: "auto" computes in bfloat16 if the hardware supports it; "float16" needs a GPU, scales the loss and
            skips steps whose gradient overflows.
        compile: use torch.compile (minutes at the start, then faster; needs a C++ compiler on the CPU); "blocks" or
            "norms" compile only these parts, see `UNet.compile_parts`.
        cuda_graph: replay the forward and backward pass as one CUDA graph; of use where launching thousands of kernels
            takes longer than running them.
        gradient_clip: largest norm of the gradient; 0 for none.
        beta2: Adam's decay of the mean squared gradient.
        checkpoint_activations: saves memory, see the function of that name. "norms" computes norms and activations
            twice; a list of levels of the U-Net (0: full resolution) computes their whole blocks twice.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float = 0.9999
    gradient_clip: float = 1.0
    accumulate: int = 1
    final_decay: float = 0.0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool | Literal["blocks", "norms"] = False
    cuda_graph: bool = False
    beta2: float = 0.999
    checkpoint_activations: tuple[int, ...] | Literal["norms"] = ()
    sharding: Literal["none", "fsdp"] = "none"

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.accumulate) < 1 or self.batch_size % self.accumulate:
            raise UserError("optimiser: steps and batch_size must be positive, and batch_size a multiple of accumulate")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.ema_decay < 1 or not 0 <= self.final_decay <= 1:
            raise UserError("optimiser: learning_rate must be positive, ema_decay in [0, 1), final_decay in [0, 1]")
        if self.cuda_graph and self.checkpoint_activations:
            raise UserError(
                "optimiser.cuda_graph and checkpoint_activations: a graph cannot run forward twice; choose one"
            )
        if self.sharding == "fsdp" and self.precision == "float16":
            raise UserError('optimiser.precision = "float16": does not go with sharding = "fsdp"; choose bfloat16')
        if not 0 < self.beta2 < 1:
            raise UserError(f"optimiser.beta2: {self.beta2} is not between 0 and 1")
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

    Attributes:
        sampling_steps: steps for the samples of a validation.
        keep: number of validations whose checkpoints stay in the folder `checkpoints`, next to model.safetensors.
    """

    every: int = 100
    validate_every: int = 1000
    save_every: int = 1000
    sampling_steps: int = 50
    keep: int = 3

    def __post_init__(self) -> None:
        if min(self.every, self.validate_every, self.save_every, self.sampling_steps) < 1:
            raise UserError("log: every number must be at least 1")
        if self.keep < 0:
            raise UserError(f"log.keep: {self.keep} is negative; 0 keeps model.safetensors alone")


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        model: "sr3" and "regression" are trained for a `task`. Generators, which have none, make images with sides of
            `unet.image_size` pixels from noise: "ddpm" (Ho et al. 2020) and "improved_ddpm" (Nichol & Dhariwal 2021,
            which also learns variances), either without labels or, with `unet.classes`, with those of `data.labels`.
        unet: by default the task's preset.
        loss_norm: p of the objective; by default the paper's.
        training_levels: the noise levels of SR3's training; by default the schedule's.
        weighting: "noise", as in the paper, gives the error of the noise at every level the same weight; "output", as
            in EDM, that of the network's own output before preconditioning (see `ResidualSR3Preconditioner`), and
            needs a residual_scale.
        start: a checkpoint of the same network, whose weights training starts from.
        classes: names of the classes in the order of their labels; may be left out, since the data give them.
    """

    model: Model
    data: TrainingDataConfig
    optimiser: OptimiserConfig
    task: str | None = None
    unet: UNetConfig | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    log: LogConfig = LogConfig()
    loss_norm: Literal[1, 2] | None = None
    training_levels: LevelsConfig | None = None
    weighting: Literal["noise", "output"] = "noise"
    start: str | None = None
    classes: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.generates:
            self._check_generator()
        else:
            self._check_task()
        task = self.target
        if self.unet is not None and self.unet.noise_level not in (None, self.model != "regression"):
            raise UserError(f'unet.noise_level: follows from model = "{self.model}"; leave it out')
        if self.weighting == "output" and not self.network.residual_scale:
            raise UserError('weighting = "output": needs unet.residual_scale')
        levels = range(len(self.network.multipliers))
        checkpointed = self.optimiser.checkpoint_activations
        if checkpointed != "norms" and not set(checkpointed) <= set(levels):
            raise UserError(f"optimiser.checkpoint_activations: the network's levels are 0 to {levels[-1]}")
        side = self.data.crop or task.hr_size
        if side % task.scale or side % self.network.factor:
            raise UserError(
                f"data.crop: {side} is not a multiple of the scale {task.scale} and of {self.network.factor}"
            )

    def _check_task(self) -> None:
        if self.task is None:
            raise UserError(f'missing key "task": model = "{self.model}" is trained for one')
        tasks.get(self.task)
        if self.unet is None and self.task not in PRESETS:
            raise UserError(f"{self.task} has no preset network: give the table [unet]")
        if self.model == "regression" and (self.training_levels is not None or self.weighting != "noise"):
            raise UserError("training_levels and weighting: Regression has no noise levels; leave them out")
        if self.network.classes is not None or self.classes is not None:
            raise UserError('classes and unet.classes: go with model = "ddpm" or "improved_ddpm"; leave them out')
        if self.data.labels != TrainingDataConfig.labels:
            raise UserError('data.labels: only for model = "ddpm" or "improved_ddpm"; leave it out')

    def _check_generator(self) -> None:
        if self.unet is None:
            raise UserError(f'missing key "unet": model = "{self.model}" has no preset network')
        others: dict[str, object] = {
            "task": self.task,
            "training_levels": self.training_levels,
            "loss_norm": self.loss_norm,
        }
        others |= {"data.blur": self.data.blur, "weighting": None if self.weighting == "noise" else self.weighting}
        others |= {"unet.residual_scale": self.unet.residual_scale or None}
        if given := [name for name, value in others.items() if value is not None]:
            raise UserError(f'{given[0]}: only for SR3 and Regression, not for model = "{self.model}"; leave it out')
        if self.data.crop not in (None, self.unet.image_size):
            raise UserError(f"data.crop: {self.data.crop} is not unet.image_size, {self.unet.image_size}")
        if self.unet.classes is None and self.data.labels != TrainingDataConfig.labels:
            raise UserError("data.labels: needs unet.classes; an unconditional generator takes no labels")
        if self.classes is not None and len(self.classes) != self.unet.classes:
            raise UserError(f"classes: {len(self.classes)} names, but unet.classes = {self.unet.classes}")

    @property
    def generates(self) -> bool:
        """Whether it makes images from noise alone."""
        return self.model in GENERATORS

    @property
    def target(self) -> Task:
        """The task; a generator's is the squares that it makes."""
        if self.task is None:
            side = self.network.image_size
            return Task(f"{side}x{side} images", 1, f"square {side}")
        return tasks.get(self.task)

    @property
    def network(self) -> UNetConfig:
        unet = self.unet if self.unet is not None or self.task is None else PRESETS[self.task]
        assert unet is not None  # checked at construction
        return replace(unet, noise_level=None)

    def resolved(self) -> "TrainConfig":
        """The same run with its network written out: what checkpoints carry, lest they change with a preset."""
        return replace(self, unet=self.network)

    def fixed(self) -> "TrainConfig":
        """The run without what may change when it resumes: number of steps, workers, what is logged, and what says how
        a batch is computed, which depends on the machines.
        """
        as_a_whole = {"accumulate": 1, "checkpoint_activations": (), "sharding": "none", "cuda_graph": False}
        optimiser = replace(self.optimiser, steps=1, **as_a_whole)  # type: ignore[arg-type]
        return replace(self, data=replace(self.data, workers=0), optimiser=optimiser, log=LogConfig())

    @property
    def p(self) -> int:
        """The objective's norm."""
        return self.loss_norm or (1 if self.model == "sr3" else 2)
