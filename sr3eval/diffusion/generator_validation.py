"""Validation of a generator during training: the same images and noise at every step, and samples of fixed seeds."""

import torch
from torch import Tensor

from sr3eval.diffusion.generator import GeneratorSampler, sample
from sr3eval.diffusion.generator_loss import Levels, generator_loss
from sr3eval.diffusion.preconditioners import Preconditioner
from sr3eval.diffusion.solvers import NoisePerImage
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.images import encode_png, round_to_8bit, to_signed

BATCH = 32
ROWS = COLUMNS = 8  # of the sheet
DRAWS = 4  # levels at which the loss of each image is taken


class GeneratorValidation:
    """Scores a generator on images [N, 3, S, S] in [0, 1], with labels [N] where it has classes."""

    def __init__(self, config: TrainConfig, images: Tensor, labels: Tensor | None) -> None:
        self.config, self.images, self.labels = config, images, labels
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
        levels, losses = Levels.of(self.schedule, device), []
        for parts in zip(*(part.split(BATCH) for part in inputs), strict=True):
            y0, at, noise, *labels = (part.to(device) for part in parts)
            losses.append(generator_loss(model, y0, at, noise, levels, *labels))
        return float(torch.cat(losses).mean())

    def _sheet(self, model: Preconditioner, device: torch.device) -> Tensor:
        rows = [self._row(model, device, row, labels) for row, labels in enumerate(self._labels_of_rows())]
        return torch.cat([round_to_8bit(torch.cat(list(row), dim=-1)) for row in rows], dim=-2).cpu()

    def _row(self, model: Preconditioner, device: torch.device, row: int, label: int | None) -> Tensor:
        like = torch.empty(COLUMNS, *self.images.shape[1:], device=device)
        like = like.contiguous(memory_format=torch.channels_last)
        labels = None if label is None else torch.full((COLUMNS,), label, device=device)
        seeds = range(row * COLUMNS, (row + 1) * COLUMNS)
        levels, learned = self.schedule.respaced(self.sampler.steps), self.config.model == "improved_ddpm"
        return sample(model, like, labels, seeds, self.sampler, levels, learned)

    def _labels_of_rows(self) -> list[int | None]:
        """All classes, or as many as fit, spread evenly."""
        classes = self.config.network.classes
        if classes is None:
            return [None] * ROWS
        return sorted({round(i * (classes - 1) / (ROWS - 1)) for i in range(ROWS)})  # type: ignore[return-value]
