"""`sr3eval estimate` of a cascade: what its images cost in time and disk, worked out and measured."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sr3eval.diffusion import costs
from sr3eval.diffusion.cascade import Stage
from sr3eval.diffusion.cascade_folder import CascadeFolder
from sr3eval.diffusion.estimate import Row, fits
from sr3eval.diffusion.generator import Generator
from sr3eval.diffusion.measure import device_name, images_at_once, median_seconds
from sr3eval.diffusion.sr3 import SR3
from sr3eval.errors import number
from sr3eval.quantities import DAY, duration, quantity


@dataclass(frozen=True)
class Part:
    """The generator or a stage of a cascade.

    Attributes:
        name: of the model.
        model: its network.
        steps: evaluations an image.
        side: of its images in pixels.
        evaluate: one evaluation of so many images.
    """

    name: str
    model: nn.Module
    steps: int
    side: int
    evaluate: Callable[[int], Tensor]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def flops(self) -> int:
        """Operations of one evaluation of one image."""
        return costs.forward_flops(lambda: self.evaluate(1))

    @torch.inference_mode()
    def seconds(self, batch: int) -> float:
        """Measured, of one evaluation of one image among so many."""
        images = images_at_once(batch, batch * self.flops(), self.device) or 1
        return median_seconds(lambda: self.evaluate(images), self.device) / images


def parts(folder: CascadeFolder) -> list[Part]:
    """The generator and the stages, in order."""
    found = [_generator(folder.generator)]
    for stage in folder.cascade.stages:
        found.append(_stage(stage, found[-1].side * stage.method.scale))
    return found


def _generator(generator: Generator) -> Part:
    model, side = generator.model, generator.size

    def evaluate(images: int) -> Tensor:
        y, gamma = _noise(images, side, generator.device)
        labels = torch.zeros(images, dtype=torch.int64, device=generator.device) if generator.classes else None
        return model(y, gamma, labels)

    return Part(generator.name, model, generator.sampler.steps, side, evaluate)


def _stage(stage: Stage, side: int) -> Part:
    method = stage.method

    def evaluate(images: int) -> Tensor:
        y, gamma = _noise(images, side, method.device)
        return method.model(y, y, gamma) if isinstance(method, SR3) else method.model(y)

    return Part(method.name, method.model, method.sampler.steps if isinstance(method, SR3) else 1, side, evaluate)


def _noise(images: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noisy images [N, 3, S, S], and their levels [N]."""
    y = torch.zeros(images, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    return y, torch.full((images,), 0.5, device=device)


def picture_bytes(folder: CascadeFolder) -> int:
    """Of all pictures, uncompressed; PNG is smaller."""
    sides = [part.side for part in parts(folder)]
    kept = sides if folder.config.keep_stages else sides[-1:]
    return folder.config.images * sum(3 * side**2 for side in kept)


def summary(folder: CascadeFolder) -> str:
    """What `sr3eval cascade` says first."""
    models = " > ".join(
        f"{part.name} {part.side}x{part.side} ({quantity(costs.parameters(part.model), 'parameters')}, "
        f"{number(part.steps, 'step')})"
        for part in parts(folder)
    )
    return f"{models}; {number(folder.config.images, 'image')}, {fits(picture_bytes(folder), folder.out)}"


def rows(folder: CascadeFolder, measure: bool = True) -> list[Row]:
    """The table of a cascade. measure: run each network a few times on images without content."""
    images, found = folder.config.images, parts(folder)
    table: list[Row] = [("images", f"{images:,}, in batches of {folder.config.batch_size}")]
    seconds = 0.0
    for part in found:
        flops = part.steps * part.flops()
        each = f"{quantity(flops, 'FLOP')} an image in {number(part.steps, 'step')}"
        if measure:
            own = part.steps * part.seconds(folder.config.batch_size)
            seconds += images * own
            each += f", {duration(own)} ({device_name(part.device)})"
        about = quantity(costs.parameters(part.model), "parameters")
        table += [(f"{part.name}, {part.side}x{part.side}", f"{about}; {each}")]
    if measure:
        table.append(("time of the run", f"{duration(seconds)} = {seconds / DAY:.3g} device-days"))
    return [*table, ("disk", f"{quantity(picture_bytes(folder), 'B')} at most, uncompressed")]
