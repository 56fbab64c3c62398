"""Seconds that networks take on this machine, by running them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch
from torch import nn

from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import number

STEPS = 3  # that are measured, after a first one that warms up
PATIENCE = 20.0  # seconds after which no further step is measured
CPU_FLOPS = 1e12  # of a pass that is measured on a CPU, at most: larger ones are scaled from fewer images


@dataclass(frozen=True)
class StepTime:
    """Seconds measured on this machine.

    Attributes:
        images: of the pass that was measured.
        gradients: of its forward and backward pass.
        rest: of what is done once a step, whatever the batch: clipping, Adam, EMA.
        peak: bytes of memory that a GPU had in use.
    """

    images: int
    gradients: float
    rest: float
    peak: int | None = None

    def step(self, batch: int) -> float:
        """Of a step of that many images."""
        return self.gradients * batch / self.images + self.rest


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {number(torch.get_num_threads(), 'thread')}"


def images_at_once(images: int, flops: int, device: torch.device) -> int:
    """How many of the images of a pass of `flops` operations are measured: as many as take seconds; 0 for none."""
    return images if device.type == "cuda" else min(images, int(CPU_FLOPS * images / flops))


def free_memory(device: torch.device) -> int:
    """Bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def step_time(config: TrainConfig, device: torch.device, images: int) -> StepTime:
    """Measure steps of that many random images."""
    optimiser = replace(config.optimiser, batch_size=images, accumulate=1)
    trainer = Trainer(replace(config, optimiser=optimiser, start=None), device)
    side = config.data.crop or config.target.hr_size
    hr = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
    labels = torch.arange(images) % config.network.classes if config.network.classes else None

    def rest() -> None:
        nn.utils.clip_grad_norm_(trainer.network.parameters(), 1.0)
        trainer.optimiser.step()
        trainer.ema.update(trainer.network, trainer.step)

    step = median_seconds(lambda: trainer.train_step(hr, labels), device)
    after = median_seconds(rest, device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return StepTime(images, max(step - after, 0.0), after, peak)


def median_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of some calls after a first one; that one, where it took longer than `PATIENCE`."""
    first, begun = _seconds(call, device), time.monotonic()
    if first > PATIENCE:
        return first
    found = [_seconds(call, device)]
    while len(found) < STEPS and time.monotonic() - begun < PATIENCE:
        found.append(_seconds(call, device))
    return statistics.median(found)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
