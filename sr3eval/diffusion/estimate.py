"""`sr3eval estimate`: what a training costs in memory, disk and time, worked out and measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sr3eval.device import default_device, training_dtype
from sr3eval.diffusion import costs, generator_validation, validation
from sr3eval.diffusion.measure import StepTime, device_name, free_memory, images_at_once, step_time
from sr3eval.diffusion.train import NAMES, check_device
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError, number, out_of_memory
from sr3eval.files import room
from sr3eval.quantities import DAY, duration, quantity

FLOAT = 4  # bytes
Row = tuple[str, str]  # what, how much


@dataclass(frozen=True)
class Disk:
    """Bytes that a training writes, tensors and pictures alone.

    weights: of one checkpoint; state: what it resumes from; kept: checkpoints beside the newest; sheets: of samples,
    uncompressed.
    """

    weights: int
    state: int
    kept: int
    sheets: int

    @classmethod
    def of(cls, config: TrainConfig, parameters: int) -> "Disk":
        """The state holds weights, EMA and both of Adam's moments."""
        weights, sheets = FLOAT * parameters, validations(config) * sheet_bytes(config)
        return cls(weights, 4 * weights, min(config.log.keep, validations(config)), sheets)

    @property
    def most(self) -> int:
        """While the state is replaced there are two of it."""
        return self.weights * (1 + self.kept) + 2 * self.state + self.sheets


def validations(config: TrainConfig) -> int:
    """How many there are: every so many steps, and after the last one."""
    return -(-config.optimiser.steps // config.log.validate_every)


def sheet_bytes(config: TrainConfig) -> int:
    """Of a validation's sheet of samples, uncompressed."""
    side = config.data.crop or config.target.hr_size
    if config.generates:
        return 3 * side**2 * generator_validation.COLUMNS * rows_of_sheet(config)
    return 3 * config.target.hr_size**2 * 3 * min(validation.SHEET_IMAGES, config.data.validation_images)


def rows_of_sheet(config: TrainConfig) -> int:
    """Of a generator's sheet: a class each, if there are any."""
    return min(config.network.classes or generator_validation.ROWS, generator_validation.ROWS)


def validation_passes(config: TrainConfig) -> int:
    """Forward passes of single images in one validation: of samples and of losses."""
    images, steps = config.data.validation_images, config.log.sampling_steps
    if config.generates:
        sampled = generator_validation.COLUMNS * rows_of_sheet(config) * min(steps, config.schedule.steps)
        return sampled + generator_validation.DRAWS * images
    return images * (1 if config.model == "regression" else steps + 1)


@dataclass(frozen=True)
class TrainingEstimate:
    """What the training of a config costs. measured: None where no step was measured, for the reason `why_not`."""

    config: TrainConfig
    device: torch.device
    parameters: int
    costs: costs.PassCosts
    measured: StepTime | None = None
    why_not: str = ""

    @property
    def flops(self) -> int:
        """Of a step."""
        return self.config.optimiser.accumulate * (self.costs.forward + self.costs.backward)

    @property
    def memory(self) -> int:
        """Bytes of weights, gradients, Adam's two moments and EMA, and of what a forward pass keeps."""
        return 5 * FLOAT * self.parameters + self.costs.kept

    @property
    def disk(self) -> Disk:
        return Disk.of(self.config, self.parameters)

    @property
    def validation(self) -> float:
        """Seconds of one validation, whose forward passes take their share of the measured time by operations."""
        assert self.measured is not None
        forward = self.costs.forward / (self.costs.forward + self.costs.backward)
        return validation_passes(self.config) * self.measured.gradients / self.measured.images * forward

    @property
    def seconds(self) -> float:
        """Of the whole run on one device."""
        assert self.measured is not None
        steps = self.config.optimiser.steps * self.measured.step(self.config.optimiser.batch_size)
        return steps + validations(self.config) * self.validation

    def rows(self) -> list[Row]:
        """The table."""
        return [
            ("model", f"{NAMES[self.config.model]}, {self.config.target.name}"),
            ("parameters", quantity(self.parameters, "parameters")),
            ("step", _batches(self.config)),
            ("operations a step", f"{quantity(self.flops, 'FLOP')}: convolutions, products, attention"),
            *self._memory_rows(),
            *self._time_rows(),
            *self._disk_rows(),
        ]

    def _memory_rows(self) -> list[Row]:
        weights = FLOAT * self.parameters
        images = number(self.costs.images, "image")
        dtype = str(training_dtype(self.config.optimiser.precision, self.device)).removeprefix("torch.")
        return [
            ("memory", f"{quantity(self.memory, 'B')}, and buffers of single layers"),
            ("  weights, gradients, EMA", f"{quantity(weights, 'B')} each"),
            ("  Adam's moments", quantity(2 * weights, "B")),
            (
                "  activations kept",
                f"{quantity(self.costs.kept, 'B')}: of {images}, {dtype}",
            ),
        ]

    def _time_rows(self) -> list[Row]:
        if self.measured is None:
            return [("time", f"not measured: {self.why_not}")]
        step, validated = self.measured.step(self.config.optimiser.batch_size), self.validation
        on = f"measured on {number(self.measured.images, 'image')} at a time, {device_name(self.device)}"
        peak = [("  peak memory measured", quantity(self.measured.peak, "B"))] if self.measured.peak else []
        count = number(validations(self.config), "validation")
        return [
            *peak,
            ("time a step", f"{duration(step)}: {on}; reading images aside"),
            ("time of validations", f"{count} of about {duration(validated)}, by their operations"),
            ("time of the run", f"{duration(self.seconds)} = {self.seconds / DAY:.3g} device-days"),
        ]

    def _disk_rows(self) -> list[Row]:
        disk = self.disk
        return [
            ("disk", f"{quantity(disk.most, 'B')} at most, while a state is replaced"),
            ("  checkpoints", f"{1 + disk.kept} of {quantity(disk.weights, 'B')}"),
            ("  state", quantity(disk.state, "B")),
            ("  sheets of samples", f"{validations(self.config)}, up to {quantity(disk.sheets, 'B')} together"),
        ]


def _batches(config: TrainConfig) -> str:
    optimiser = config.optimiser
    parts = f", in {optimiser.accumulate} parts" if optimiser.accumulate > 1 else ""
    return f"{number(optimiser.batch_size, 'image')}{parts}; {optimiser.steps:,} steps"


def training(config: TrainConfig, measure: bool = True, device: torch.device | None = None) -> TrainingEstimate:
    """Estimate a training on `device`, by default this machine's; its images are not read.

    Args:
        config: of the training.
        measure: run a few steps on random images; not what takes minutes or does not fit into memory.
        device: where.

    Raises:
        UserError: the device cannot do what the config asks for.
    """
    config, device = config.resolved(), device or default_device()
    found = TrainingEstimate(config, device, costs.untrained_parameters(config), costs.of_training(config, device))
    if not measure:
        return replace(found, why_not="as asked")
    try:
        check_device(config.optimiser, device)
    except UserError as error:
        return replace(found, why_not=str(error))
    images = images_at_once(found.costs.images, found.costs.forward + found.costs.backward, device)
    if not images:
        return replace(found, why_not="a step of one image takes a minute or more on a CPU")
    needed = 5 * FLOAT * found.parameters + found.costs.kept * images // found.costs.images
    if (free := free_memory(device)) < needed:
        why = f"{number(images, 'image')} need {quantity(needed, 'B')} of memory, {quantity(free, 'B')} are free"
        return replace(found, why_not=why)
    try:
        return replace(found, measured=step_time(config, device, images))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return replace(found, why_not=f"a step of {number(images, 'image')} does not fit into memory")


def training_summary(config: TrainConfig, out: Path) -> str:
    """What `sr3eval train` says first: what is known without running anything."""
    config = config.resolved()
    parameters = costs.untrained_parameters(config)
    disk = Disk.of(config, parameters).most
    head = f"{NAMES[config.model]}, {config.target.name}: {quantity(parameters, 'parameters')}"
    steps = f"{number(config.optimiser.steps, 'step')} of {number(config.optimiser.batch_size, 'image')}"
    return f"{head}, {steps}; {fits(disk, out)}"


def sampling_summary(parameters: int, steps: int, sizes: Sequence[tuple[int, int]], out: Path) -> str:
    """What `sr3eval sample` says first. sizes: (H, W) of the outputs."""
    pictures = sum(3 * height * width for height, width in sizes)
    head = f"{quantity(parameters, 'parameters')}, {number(steps, 'step')}, {number(len(sizes), 'image')}"
    return f"{head}; {fits(pictures, out)}"


def fits(needed: int, out: Path) -> str:
    """How much a command writes, and a warning where that exceeds what is free, what is there already counted in."""
    available = room(out)
    if needed > available:
        return f"WARNING: needs up to {quantity(needed, 'B')} of disk, and {quantity(available, 'B')} are free at {out}"
    return f"up to {quantity(needed, 'B')} of disk, {quantity(available, 'B')} free"
