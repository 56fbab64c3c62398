"""Random crops of photographs that are held in memory, cut on the training device."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sr3eval.data import Folder
from sr3eval.diffusion.train_config import TrainingDataConfig
from sr3eval.distributed import ALONE, Job
from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.folders import stable_hash
from sr3eval.images import area_down, from_uint8, load, to_uint8

OCTAVE = 4  # zoom levels from one size to its half


class Crops:
    """Crops of uint8 photographs at every zoom of `data.zoom_out`, as a function of (seed, step).

    Photographs are drawn uniformly, then a zoom, then a place. The planes of all zooms lie in one tensor [3, P] on
    `device`, so that a batch is one gather.
    """

    def __init__(self, folder: Folder, data: TrainingDataConfig, seed: int, device: torch.device) -> None:
        assert data.crop is not None
        self.data, self.seed, self.side, self.device = data, seed, data.crop, device
        photographs = [self._planes(path) for path in folder.paths.values()]
        planes = [plane for zoomed in photographs for plane in zoomed]
        self.pixels = torch.cat([plane.flatten(1) for plane in planes], dim=1)
        self.sizes = torch.tensor([plane.shape[-2:] for plane in planes])  # [planes, 2]: height, width
        self.starts = first_of_each(self.sizes.prod(1))  # of each plane among the pixels
        self.counts = torch.tensor([len(zoomed) for zoomed in photographs])
        self.firsts = first_of_each(self.counts)  # of each photograph among the planes

    def _planes(self, path: File) -> list[Tensor]:
        found = list(zooms(load(path).to(self.device), self.side, self.data.zoom_out, self.data.zoom_least))
        if not found:
            raise UserError(f"{path}: is smaller than {self.data.zoom_least:g} (data.zoom_least) x {self.side} pixels")
        return found

    def batch(self, step: int, size: int, here: Job = ALONE) -> Tensor:
        """The uint8 crops [size, 3, S, S] of optimiser step `step`, counted from 0; this process's part of them."""
        generator = _generator(self.seed, step)
        photograph = here.part(_draw_photographs(len(self.counts), size, generator))
        u = here.part(torch.rand(5, size, generator=generator, dtype=torch.float64).T).T
        plane = self.firsts[photograph] + (u[0] * self.counts[photograph]).long()
        start, (height, width) = self.starts[plane], self.sizes[plane].unbind(1)
        top = (u[1] * (height - self.side + 1)).long()
        left = (u[2] * (width - self.side + 1)).long()
        first, row, column = start + top * width + left, width, torch.ones_like(width)
        if self.data.flip:  # walk the columns backwards
            back = u[3] < 0.5
            first, column = torch.where(back, first + self.side - 1, first), torch.where(back, -column, column)
        if self.data.transpose:
            swap = u[4] < 0.5
            row, column = torch.where(swap, column, row), torch.where(swap, row, column)
        first, row, column = (t.to(self.device)[:, None, None] for t in (first, row, column))
        steps = torch.arange(self.side, device=self.device)
        index = first + row * steps[None, :, None] + column * steps[None, None, :]
        crops = self.pixels[:, index].transpose(0, 1)
        low, high = self.data.gains
        if (low, high) != (1.0, 1.0):
            gains = low + (high - low) * here.part(torch.rand(size, 3, 1, 1, generator=generator))
            crops = to_uint8(from_uint8(crops) * gains.to(self.device))
        return crops

    def batches(self, first: int, last: int, batch_size: int, here: Job = ALONE) -> Iterator[Tensor]:
        """uint8 batches of steps first .. last - 1; this process's part of them."""
        for step in range(first, last):
            yield self.batch(step, batch_size, here)


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(stable_hash(seed, "crops", step))


def _draw_photographs(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (size,), generator=generator)


def drawn_photographs(count: int, seed: int, step: int, size: int) -> Tensor:
    """Which of `count` photographs the crops of `Crops.batch` are of: int64 [size]."""
    return _draw_photographs(count, size, _generator(seed, step))


def first_of_each(counts: Tensor) -> Tensor:
    """Where each part begins when parts of so many items follow one another."""
    return counts.cumsum(0) - counts


def zooms(photograph: Tensor, side: int, zoom_out: float, zoom_least: float = 1.0) -> Iterator[Tensor]:
    """A photograph [3, H, W] in [0, 1] as uint8, whole and area-resized by 2^(-1/4), 2^(-1/2) ... to 1 / `zoom_out`.

    Sizes whose short side is below `side` are left out, and those above 1 / `zoom_least`.
    """
    height, width = photograph.shape[-2:]
    first, last = OCTAVE * math.log2(zoom_least) - 1e-9, OCTAVE * math.log2(zoom_out) + 1e-9
    for level in range(math.ceil(first), 1 + math.floor(last)):
        factor = 2 ** (-level / OCTAVE)
        size = (round(height * factor), round(width * factor))
        if min(size) >= side:
            yield to_uint8(photograph if level == 0 else area_down(photograph, size))
