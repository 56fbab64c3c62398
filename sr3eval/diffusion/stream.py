"""Training images as a function of position: example number p is the same in every process and after every resume."""

import signal
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sr3eval.config import resolve_path
from sr3eval.data import Folder, are_held_out, choose, large_enough, load_hr
from sr3eval.diffusion.crops import Crops, drawn_photographs
from sr3eval.diffusion.labels import labels
from sr3eval.diffusion.train_config import TrainConfig, TrainingDataConfig
from sr3eval.distributed import ALONE, Job
from sr3eval.errors import UserError
from sr3eval.files import listing_digest
from sr3eval.folders import find_images, stable_hash
from sr3eval.images import area_down, from_uint8, load, to_uint8
from sr3eval.tasks import Task

Examples = tuple[
    Tensor, Tensor | None
]  # images, uint8 [N, 3, S, S], and their labels, int64 [N], of a model with classes
CACHE_BYTES = 1 << 30  # decoded images kept in memory, by all reading processes of a job together


class TrainingImages(Dataset[Tensor]):
    """Example p: uint8 [3, S, S]. Each pass over the images is a new permutation; crop and flip come from (seed, p).

    readers: processes that read images at once, which share the memory for decoded ones.
    """

    def __init__(
        self,
        folder: Folder,
        seed: int,
        crop: int | None = None,
        zoom_out: float = 1.0,
        flip: bool = False,
        zoom_least: float = 1.0,
        readers: int = 1,
    ) -> None:
        self.folder, self.seed, self.crop, self.flip = folder, seed, crop, flip
        self.zooms = (zoom_least, zoom_out)
        self._permutation: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))
        self._decoded: dict[int, Tensor] = {}
        self._room = CACHE_BYTES // readers

    def __getitem__(self, position: int) -> Tensor:
        generator = torch.Generator().manual_seed(stable_hash(self.seed, "example", position))
        image = self._image(self.image_at(position))
        if self.crop is not None:
            image = random_crop(image, self.crop, self.zooms, generator)
        if self.flip and torch.rand((), generator=generator) < 0.5:
            image = image.flip(-1)
        return image

    def image_at(self, position: int) -> int:
        """The number of the image that example `position` is of."""
        epoch, index = divmod(position, len(self.folder))
        return int(self._order(epoch)[index])

    def _order(self, epoch: int) -> Tensor:
        if self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(stable_hash(self.seed, "epoch", epoch))
            self._permutation = (epoch, torch.randperm(len(self.folder), generator=generator))
        return self._permutation[1]

    def _image(self, number: int) -> Tensor:
        """The decoded image, whole for crops, else prepared for the task; kept in memory while there is room."""
        if number in self._decoded:
            return self._decoded[number]
        file = self.folder.paths.files[number]
        image = to_uint8(load(file) if self.crop else load_hr(file, self.folder.task))
        if image.numel() <= self._room:
            self._decoded[number] = image
            self._room -= image.numel()
        return image


def random_crop(image: Tensor, side: int, zooms: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A [3, side, side] crop of uint8 [3, H, W] at a uniformly random place, of `zooms` (from, to) times the side."""
    least, most = zooms
    zoom = least * (most / least) ** float(torch.rand((), generator=generator))
    span = min(round(side * zoom), *image.shape[-2:])
    top = int(torch.randint(image.shape[-2] - span + 1, (), generator=generator))
    left = int(torch.randint(image.shape[-1] - span + 1, (), generator=generator))
    crop = image[..., top : top + span, left : left + span]
    return crop if span == side else to_uint8(area_down(from_uint8(crop), (side, side)))


class Positions(Sampler[list[int]]):
    """Batches of positions from optimiser step `first` (counted from 0) up to `last`; this process's part of them."""

    def __init__(self, first: int, last: int, batch_size: int, here: Job = ALONE) -> None:
        self.first, self.last, self.batch_size, self.here = first, last, batch_size, here

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            yield list(self.here.part(range(step * self.batch_size, (step + 1) * self.batch_size)))

    def __len__(self) -> int:
        return self.last - self.first


class Batches(Dataset[Tensor | UserError]):
    """The examples at a list of positions, [N, 3, S, S], or the error of an unreadable one.

    The error is a value, since DataLoader adds the traceback of its worker to what is raised.
    """

    def __init__(self, images: TrainingImages) -> None:
        self.images = images

    def __getitem__(self, positions: list[int]) -> Tensor | UserError:
        try:
            return torch.stack([self.images[position] for position in positions])
        except UserError as error:
            return error


def _leave_signals(_worker: int) -> None:
    """Have a worker outlive a Ctrl-C or SIGTERM that goes to all processes: the training stops it when it has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def batches(
    images: TrainingImages, first: int, last: int, batch_size: int, workers: int, here: Job = ALONE
) -> Iterator[Tensor]:
    """uint8 batches [N, 3, S, S] of steps first .. last - 1; this process's part of them."""
    sampler = Positions(first, last, batch_size, here)
    loader = DataLoader(
        Batches(images), batch_size=None, sampler=sampler, num_workers=workers, worker_init_fn=_leave_signals
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def source(
    folder: Folder, config: TrainConfig, device: torch.device, first: int, here: Job = ALONE
) -> Iterator[Tensor]:
    """uint8 batches [N, 3, S, S] of the run's steps from number `first` (counted from 0) on; this process's part."""
    data, optimiser = config.data, config.optimiser
    if data.in_memory:
        return Crops(folder, data, config.seed, device).batches(first, optimiser.steps, optimiser.batch_size, here)
    readers = here.count * max(1, data.workers)
    images = TrainingImages(folder, config.seed, data.crop, data.zoom_out, data.flip, data.zoom_least, readers)
    return batches(images, first, optimiser.steps, optimiser.batch_size, data.workers, here)


def examples(
    folder: Folder, config: TrainConfig, device: torch.device, first: int, here: Job = ALONE
) -> Iterator[Examples]:
    """Images and labels of the run's steps from number `first` (counted from 0) on; this process's part of them."""
    return zip(source(folder, config, device, first, here), label_source(folder, config, first, here), strict=True)


def label_source(folder: Folder, config: TrainConfig, first: int, here: Job = ALONE) -> Iterator[Tensor | None]:
    """The labels, int64 [N], of what `source` gives; None where the model has none."""
    found, size, steps = labels(folder, config), config.optimiser.batch_size, range(first, config.optimiser.steps)
    if found is None:
        yield from (None for _ in steps)
    elif config.data.in_memory:
        for step in steps:
            yield torch.tensor(found)[here.part(drawn_photographs(len(found), config.seed, step, size))]
    else:
        images, of_image = TrainingImages(folder, config.seed), torch.tensor(found)
        for positions in Positions(first, config.optimiser.steps, size, here):
            yield of_image[[images.image_at(position) for position in positions]]


def open_folders(config: TrainingDataConfig, task: Task) -> tuple[Folder, Folder, list[str], list[str]]:
    """Training folder, validation folder, and the ids left out of each because their short side is too small."""
    side = config.crop or task.smallest
    paths, too_small = large_enough(find_images(resolve_path(config.images)), side)
    if config.validation is not None:
        validation = find_images(resolve_path(config.validation))
    else:
        held = are_held_out(paths, config.held_out)
        validation, paths = paths.take(held), paths.take(~held)
    validation, validation_too_small = large_enough(validation, task.smallest)
    if not paths:
        raise UserError(f"{config.images}: no training image is left ({len(too_small)} are below {side} pixels)")
    if not validation:
        small = f"{len(validation_too_small)} are below {task.smallest} pixels"
        raise UserError(f"{config.validation or config.images}: no validation image is left ({small})")
    return Folder(paths, task), Folder(validation, task), too_small, validation_too_small


def digest(*folders: Folder) -> str:
    """What a run knows its images by: see `files.listing_digest`."""
    return listing_digest(
        (f"{i}/{image_id}", file) for i, f in enumerate(folders) for image_id, file in f.paths.items()
    )


def validation_images(folder: Folder, config: TrainingDataConfig) -> Tensor:
    """The fixed validation targets, float [N, 3, S, S] in [0, 1] at the task's size.

    Crops are of as many images as there are: one of each before a second of any.
    """
    if config.crop is None:
        return torch.stack([folder.hr(i) for i in choose(list(folder.paths), config.validation_images)])
    crops = _validation_crops(folder, config)
    return from_uint8(torch.stack([crops[p] for p in range(config.validation_images)]))


def validation_labels(folder: Folder, config: TrainConfig) -> Tensor | None:
    """The labels, int64 [N], of the validation targets; None where the model has none."""
    found, data = labels(folder, config), config.data
    if found is None:
        return None
    of_image, ids = torch.tensor(found), list(folder.paths)
    if data.crop is None:
        return of_image[[ids.index(i) for i in choose(ids, data.validation_images)]]
    crops = _validation_crops(folder, data)
    return of_image[[crops.image_at(p) for p in range(data.validation_images)]]


def _validation_crops(folder: Folder, config: TrainingDataConfig) -> TrainingImages:
    return TrainingImages(folder, 0, folder.task.hr_size, config.zoom_out, zoom_least=config.zoom_least)
