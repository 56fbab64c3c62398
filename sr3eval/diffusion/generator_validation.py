"""Validation of a generator during training: the same images and noise at every step, and samples of fixed seeds."""

import torch
from torch import Tensor

from sr3eval.diffusion.generator import GeneratorSampler, sample
from sr3eval.diffusion.generator_loss import Levels, generator_loss
from sr3eval.diffusion.preconditioners import Preconditioner
from sr3eval.diffusion.solvers import NoisePerImage
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.distributed import ALONE, Job
from sr3eval.images import encode_png, from_uint8, to_signed, to_uint8

BATCH = 32
ROWS = COLUMNS = 8  # of the sheet
DRAWS = 4  # levels at which the loss of each image is taken


class GeneratorValidation:
    """Scores a generator on images [N, 3, S, S] in [0, 1], with labels [N] where it has classes.

    The processes of a job share the images and the rows of the sheet.
    """

    def __init__(self, config: TrainConfig, images: Tensor, labels: Tensor | None, here: Job = ALONE) -> None:
        self.config, self.images, self.labels, self.here = config, images, labels, here
        self.schedule = config.schedule.build()
        self.sampler = GeneratorSampler(min(config.log.sampling_steps, len(self.schedule)))

    @torch.inference_mode()
    def run(self, model: Preconditioner, device: torch.device) -> tuple[dict[str, float], bytes]:
        """The loss at fixed levels and noise, and the PNG sheet: a class a row where there are classes."""
        return {"validation_loss": self._loss(model, device)}, encode_png(self._sheet(model, device))

    def _loss(self, model: Preconditioner, device: torch.device) -> float:
        """Over levels that lie evenly among all."""
        images = self.images.repeat(DRAWS, 1, 1, 1)
        count = len(images)
        t = ((torch.arange(count) + 0.5) / count * len(self.schedule)).long()
        t = t.view(len(self.images), DRAWS).T.flatten()  # each image at levels from all over the range
        inputs = [to_signed(images), t, NoisePerImage(range(count), images)()]
        if self.labels is not None:
            inputs.append(self.labels.repeat(DRAWS))
        levels = Levels.of(self.schedule, device)

        def loss(parts: tuple[Tensor, ...]) -> Tensor:
            y0, at, noise, *labels = (part.to(device) for part in parts)
            return generator_loss(model, y0, at, noise, levels, *labels).cpu()

        batches = list(zip(*(part.split(BATCH) for part in inputs), strict=True))
        return float(torch.cat(self.here.map(loss, batches)).mean())

    def _sheet(self, model: Preconditioner, device: torch.device) -> Tensor:
        labels = list(enumerate(self._labels_of_rows()))
        return from_uint8(torch.cat(self.here.map(lambda row: self._row(model, device, *row), labels), dim=-2))

    def _row(self, model: Preconditioner, device: torch.device, row: int, label: int | None) -> Tensor:
        """One row of the sheet, uint8 [3, S, COLUMNS * S]."""
        like = torch.empty(COLUMNS, *self.images.shape[1:], device=device)
        like = like.contiguous(memory_format=torch.channels_last)
        labels = None if label is None else torch.full((COLUMNS,), label, device=device)
        seeds = range(row * COLUMNS, (row + 1) * COLUMNS)
        levels, learned = self.schedule.respaced(self.sampler.steps), self.config.model == "improved_ddpm"
        images = sample(model, like, labels, seeds, self.sampler, levels, learned)
        return torch.cat(list(to_uint8(images).cpu()), dim=-1)

    def _labels_of_rows(self) -> list[int | None]:
        """All classes, or as many as fit, spread evenly."""
        classes = self.config.network.classes
        if classes is None:
            return [None] * ROWS
        return sorted({round(i * (classes - 1) / (ROWS - 1)) for i in range(ROWS)})  # type: ignore[return-value]
