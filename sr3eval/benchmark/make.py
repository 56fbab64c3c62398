"""The pictures of a run: inputs prepared, outputs found in the cache or made, all written as PNG."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sr3eval.benchmark.cache import Origin, content_of, key_of, seed_of
from sr3eval.benchmark.config import MethodConfig
from sr3eval.benchmark.layout import HR, LR, of_mean, of_sample
from sr3eval.benchmark.plan import Plan, RunImage
from sr3eval.benchmark.processes import deal, together
from sr3eval.benchmark.progress import Count, Tell
from sr3eval.data import chunks, grouped
from sr3eval.device import threads
from sr3eval.distributed import job
from sr3eval.errors import UserError, number, out_of_memory
from sr3eval.files import atomic_write, link_or_write
from sr3eval.folders import stable_hash
from sr3eval.images import Size, encode_png, load, save, to_uint8
from sr3eval.method import check_outputs, shares

MOST_PIXELS = 2**20  # of input in a batch of whole images: more gain no speed and take gigabytes in a network


def make(plan: Plan, tell: Tell, among: Sequence[RunImage] = ()) -> None:
    """Write the HR and LR images and every method's outputs, as far as they are not there yet.

    among: of a plan that has some of a run's images, all of them: batches are as large as theirs.
    """
    prepare(plan, tell)
    inputs = _Inputs(plan, among or plan.images)
    for method in plan.config.method:
        for seed, slug in zip(method.seeds or (plan.config.seed,), method.slugs, strict=True):
            stage = f"{method.name}, seed {seed}" if method.seeds else method.name
            for sample in range(1, method.samples + 1):
                of = f", sample {sample} of {method.samples}" if method.samples > 1 else ""
                _Outputs(plan, inputs, method, seed, sample, slug, stage + of, tell).write()
            if method.samples > 1:
                average(plan, method.sample_folders(slug), of_mean(slug), f"{stage}, mean of {method.samples}", tell)


def average(plan: Plan, folders: Sequence[str], to: str, stage: str, tell: Tell) -> None:
    """Write the pixel means of several sets of pictures, rounded to 8 bit (halves to even)."""

    def write(image: RunImage) -> int:
        with threads(1):
            pixels = [to_uint8(load(plan.folder.image(folder, image.image_id))) for folder in folders]
            mean = torch.stack(pixels).double().mean(dim=0).round().to(torch.uint8)
            _write_new(plan.folder.image(to, image.image_id), encode_png(mean))
        return 1

    deal(plan.images, write, Count(stage, len(plan.images), tell).advance)


def _write_new(path: Path, content: bytes) -> None:
    """Write a file unless it holds this already."""
    if not _holds(path, content):
        atomic_write(path, content)


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def prepare(plan: Plan, tell: Tell) -> None:
    """Write the HR and LR images that are not there yet."""
    if not job().lead(lambda: _begin(plan)):
        return
    deal(plan.images, lambda image: _prepare(plan, image), Count("prepare", len(plan.images), tell).advance)
    job().lead(lambda: plan.folder.begun.replace(plan.folder.inputs))


def _begin(plan: Plan) -> bool:
    """Whether inputs are missing; those of a run that was stopped before are removed where its images were others."""
    folder = plan.folder
    if folder.inputs.exists():
        return False
    if not folder.begun.exists() or folder.begun.read_text() != plan.sha256:
        for name in (HR, LR):
            shutil.rmtree(folder.images / name, ignore_errors=True)
        atomic_write(folder.begun, plan.sha256.encode())
    return True


def _prepare(plan: Plan, image: RunImage) -> int:
    """Write the HR and LR of an image, unless they are there."""
    paths = {name: plan.folder.image(name, image.image_id) for name in ((HR, LR) if plan.has_hr else (LR,))}
    if not all(path.exists() for path in paths.values()):
        with threads(1):
            hr, lr = image.pair.load(plan.task, image.size, stable_hash("degrade", plan.config.seed, image.image_id))
            for name, path in paths.items():
                picture = lr if name == LR else hr
                assert picture is not None
                save(path, picture)
    return 1


class _Inputs:
    """The LR images of a run by size and content."""

    def __init__(self, plan: Plan, among: Sequence[RunImage]) -> None:
        self.plan = plan
        self.contents: dict[str, str] = {}
        self.counts = Counter(self.size(image) for image in among)

    def size(self, image: RunImage) -> Size:
        """(h, w) of the input."""
        height, width = image.size
        return height // self.plan.task.scale, width // self.plan.task.scale

    def content(self, image: RunImage) -> str:
        """sha256 of the pixels of the input."""
        if image.image_id not in self.contents:
            with threads(1):
                self.contents[image.image_id] = content_of(self.load(image))
        return self.contents[image.image_id]

    def load(self, image: RunImage) -> torch.Tensor:
        """[3, h, w] in [0, 1]."""
        return load(self.plan.folder.image(LR, image.image_id))

    def batch_size(self, size: Size, one_by_one: bool) -> int:
        """How many inputs of a size a batch has, whether or not as many are missing.

        So an image's bytes do not depend on what else is left to be made. Squares fill the batch size of the config;
        of whole images there may be one of a kind, and large ones take memory.
        """
        wanted = 1 if one_by_one else self.plan.config.batch_size
        if self.plan.task.side is not None:
            return wanted
        return max(1, min(wanted, self.counts[size], MOST_PIXELS // (size[0] * size[1])))


class _Outputs:
    """One set of outputs: of a method under a seed, one sample of each input."""

    def __init__(
        self,
        plan: Plan,
        inputs: _Inputs,
        config: MethodConfig,
        seed: int,
        sample: int,
        slug: str,
        stage: str,
        tell: Tell,
    ) -> None:
        self.plan, self.inputs, self.folder = plan, inputs, of_sample(slug, sample)
        self.name, self.method, self.seed, self.sample = config.name, plan.methods[config.name], seed, sample
        self.count = Count(stage, len(plan.images), tell)
        self.origin = Origin(config.name, plan.task.name, str(plan.folder.path.resolve()))
        self.missing: list[str] = []

    def write(self) -> None:
        """Write those that exist, then make the missing ones batch by batch."""
        deal(self.plan.images, self._take, self.count.advance)
        missing = {image_id for part in together(lambda: self.missing) for image_id in part}
        self.count.advance(0)
        by_size = grouped((image for image in self.plan.images if image.image_id in missing), self.inputs.size)
        largest_first = sorted(by_size.items(), key=lambda item: -math.prod(item[0]))  # what fits once fits after
        batches = [batch for size, images in largest_first for batch in self._batches(size, images)]
        deal(batches, self._make, self.count.advance)

    def _batches(self, size: Size, images: Sequence[RunImage]) -> list[tuple[Sequence[RunImage], int]]:
        """Images of one size in batches, each with the number of inputs that it is filled up to."""
        count = self.inputs.batch_size(size, self.method.one_by_one)
        return [(part, count) for part in chunks(images, count)]

    def _take(self, image: RunImage) -> int:
        """Write an output that exists; how many that is."""
        with threads(1):
            found = self._found(image)
        if found is None:
            self.missing.append(image.image_id)
            return 0
        self._write(image, *found)
        return 1

    def _found(self, image: RunImage) -> tuple[bytes, Mapping[str, Any], bool] | None:
        """The PNG file and the note of an output that exists already, and whether the cache has it."""
        picture = self.method.lookup(image.image_id, self.plan.folder.image(HR, image.image_id))
        if picture is not None:
            return encode_png(picture), {}, False
        found = None if self.method.copied else self.plan.cache.get(self._key(image), image.size)
        return None if found is None else (*found, True)

    def _key(self, image: RunImage) -> str:
        """Names the output in the cache: by all that makes it."""
        return key_of(self.plan.identities[self.name], self.inputs.content(image), self._seed(image))

    def _seed(self, image: RunImage) -> int:
        return seed_of(self.seed, image.image_id, self.sample)

    def _make(self, batch: tuple[Sequence[RunImage], int]) -> int:
        """Make one batch of inputs of one size, filled up by repeating the last; how many images it has."""
        images, count = batch
        filled = [*images, *[images[-1]] * (count - len(images))]
        with threads(1):
            lr = torch.stack([self.inputs.load(image) for image in filled])
        where = f'method "{self.name}", batch of {images[0].image_id}'
        with enough_memory(where, lr):
            seeds = [self._seed(image) for image in filled]
            outputs = self.method.upscale(lr, seeds, shares(self.count.at, self.count.done, len(images)))
        with threads(1):
            check_outputs(outputs.images, (len(filled), 3, *images[0].size), where)
            notes = outputs.notes or [{}] * len(filled)
            for image, output, note in zip(images, outputs.images, notes, strict=False):
                png = encode_png(output)
                self.plan.cache.put(self._key(image), png, note, self.origin)
                self._write(image, png, note, cached=True)
        return len(images)

    def _write(self, image: RunImage, png: bytes, note: Mapping[str, Any], cached: bool) -> None:
        path, note_path = (at(self.folder, image.image_id) for at in (self.plan.folder.image, self.plan.folder.note))
        if not cached:
            _write_new(path, png)
        elif not _holds(path, png):
            link_or_write(path, png, self.plan.cache.path(self._key(image)))
        if note:
            atomic_write(note_path, json.dumps(dict(note), sort_keys=True).encode())
        else:
            note_path.unlink(missing_ok=True)


@contextmanager
def enough_memory(where: str, lr: torch.Tensor) -> Iterator[None]:
    """Tell in one line that memory does not suffice, and what to do about it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        count, _, height, width = lr.shape
        raise UserError(
            f"{where}: not enough memory for {number(count, 'input')} of {width}x{height} pixels: lower batch_size, or "
            "set tile on a method that has it"
        ) from None
