"""A folder of images made from noise: a generator, and the cascade of SR3 models behind it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import Tensor

from sr3eval import config as configs
from sr3eval.config import SPREAD, check_call
from sr3eval.diffusion import generator as generators
from sr3eval.diffusion.cascade import Cascade, build_stages
from sr3eval.diffusion.generator import Generator, GeneratorSampler
from sr3eval.distributed import job
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, claim_folder
from sr3eval.folders import stable_hash
from sr3eval.images import round_to_8bit, save
from sr3eval.method import Progress, check_outputs, shares

CONFIG_FILE = "cascade.toml"
LABELS_FILE = "labels.csv"


@dataclass(frozen=True)
class CascadeConfig:
    """What `sr3eval cascade CONFIG` makes.

    Attributes:
        generator: checkpoint, and settings of `GeneratorSampler`.
        stage: the stages in order, each with a checkpoint and, for SR3, settings of `SamplerOptions`; may be empty.
        images: number of images.
        labels: of a class-conditional generator: "balanced" cycles through the classes, "random" draws them; or a list
            of classes, by number or name, to cycle through.
        seed: all noise of an image is drawn from it and the image's number.
        batch_size: images at once, at every stage.
        keep_stages: also write the images of the generator and of the stages before the last.
    """

    generator: dict[str, Any]
    stage: tuple[dict[str, Any], ...] = ()
    images: int = 50_000
    labels: Literal["balanced", "random"] | tuple[int | str, ...] | None = None
    seed: int = 0
    batch_size: int = 16
    keep_stages: bool = False

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("batch_size", self.batch_size)):
            if value < 1:
                raise UserError(f"{name}: {value} is below 1")


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`: every count-th batch."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "2/8"."""
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f'--shard {text}: write it as "2/8", the second of eight parts')
        return cls(int(match[1]), int(match[2]))


def build_generator(*, checkpoint: str, sampler: Annotated[GeneratorSampler, SPREAD]) -> Generator:
    """What the table [generator] of a config describes: a checkpoint, and its sampler's settings."""
    return generators.load(checkpoint, sampler)


def choose_classes(config: CascadeConfig, generator: Generator) -> Sequence[int] | None:
    """The classes that images are of; None for an unconditional generator.

    Raises UserError for labels that are missing, given in vain or not the generator's.
    """
    if generator.classes is None:
        if config.labels is not None:
            raise UserError("labels: this generator is unconditional and takes none; leave them out")
        return None
    if not config.labels:
        several = f"this generator has {generator.classes} classes"
        raise UserError(f'labels: missing; {several}: write "balanced", "random" or a list of classes')
    if isinstance(config.labels, tuple):
        return [generator.label(name) for name in config.labels]
    return range(generator.classes)


class CascadeFolder:
    """The images of a config, in the folder `out`. An image depends on the config and its number alone.

    Batches are planned from all images, and one that lacks an image is made again whole, of which the missing ones are
    written: so a resumed run gives the same bytes, and so do shards.

    remarks: on sizes, what the user should hear before work begins.
    """

    def __init__(self, config: CascadeConfig, out: Path) -> None:
        """Load the models. Raises UserError where one is not what the config takes it for, or two do not fit."""
        self.config, self.out = config, out
        self.generator = build_generator(**check_call(build_generator, config.generator, "generator"))
        self.classes = choose_classes(config, self.generator)
        self.cascade = Cascade(build_stages(config.stage, "stage"))
        self.remarks = self.cascade.check_sides(self.generator.size)

    def write(self, shard: Shard, progress: Callable[[float, int], None]) -> int:
        """Write the missing images of a shard, which the processes of a job share; returns how many it has.

        progress: is told (images done, total) after every step; what it raises ends the work there.
        """
        here = job()
        here.lead(self._begin)
        batches = list(self._batches())[shard.number - 1 :: shard.count]
        total, done, tally = sum(map(len, batches)), 0, here.tally("cascade")
        for batch in here.own(batches):
            missing = [index for index in batch if not all(path.exists() for path in self.paths(index))]
            if missing:
                self._write(batch, missing, shares(lambda images: progress(images, total), done, len(batch)))
            done = tally(len(batch))
            progress(done, total)
        here.wait()
        progress(total, total)
        return total

    def _begin(self) -> None:
        claim_folder(self.out, CONFIG_FILE, configs.to_toml(self._identity()))
        self._write_labels()

    def paths(self, index: int) -> list[Path]:
        """The files of an image: of the stages before the last where they are kept, and its own."""
        before = [f"stage_{number}" for number in range(len(self.config.stage))] if self.config.keep_stages else []
        return [self.out / folder / f"{image_id(index)}.png" for folder in (*before, "images")]

    def _batches(self) -> Iterator[range]:
        for first in range(0, self.config.images, self.config.batch_size):
            yield range(first, min(first + self.config.batch_size, self.config.images))

    def _identity(self) -> CascadeConfig:
        """The config with its models named by their sha256, and with every setting of their samplers."""
        sha256, sampler = self.generator.facts.checksums["checkpoint"], self.generator.sampler
        stages = tuple(stage.identity for stage in self.cascade.stages)
        return replace(self.config, generator={"checkpoint": sha256} | configs.to_dict(sampler), stage=stages)

    def label(self, index: int) -> int | None:
        """The class of image number `index`, however many there are; None for an unconditional generator."""
        if self.classes is None:
            return None
        turn = stable_hash(self.config.seed, "label", index) if self.config.labels == "random" else index
        return self.classes[turn % len(self.classes)]

    def _labels(self, batch: Sequence[int]) -> list[int] | None:
        return [label for index in batch if (label := self.label(index)) is not None] or None

    def _write_labels(self) -> None:
        """labels.csv, as `benchmark.py run` reads it: image_id, label."""
        indices = range(self.config.images)
        labels = self._labels(indices)
        if labels is not None:
            lines = [f"{image_id(index)},{label}\n" for index, label in zip(indices, labels, strict=True)]
            atomic_write(self.out / LABELS_FILE, "".join(["image_id,label\n", *lines]).encode())

    def _write(self, batch: Sequence[int], missing: Sequence[int], progress: Progress) -> None:
        """Make a batch, and write those of its images that are missing."""
        stages = list(self._made(batch, progress))
        kept = stages if self.config.keep_stages else stages[-1:]
        for index in missing:
            for path, images in zip(self.paths(index), kept, strict=True):
                if not path.exists():
                    save(path, images[index - batch[0]])

    def _made(self, batch: Sequence[int], progress: Progress) -> Iterator[Tensor]:
        """What the generator and every stage make of a batch, [N, 3, H, W] in [0, 1]."""
        where, parts = f"batch of image {image_id(batch[0])}", 1 + len(self.cascade.stages)
        seeds, upscale_seeds = (
            [stable_hash(self.config.seed, use, index) for index in batch] for use in ("generate", "upscale")
        )
        images = self.generator.generate(seeds, self._labels(batch), lambda share: progress(share / parts))
        check_outputs(images, tuple(images.shape), f"generator, {where}")
        yield images
        done = 1 / parts
        for stage in self.cascade.each(
            round_to_8bit(images), upscale_seeds, lambda share: progress(done + share * (1 - done))
        ):
            check_outputs(stage, tuple(stage.shape), f"stage, {where}")
            yield stage


def image_id(index: int) -> str:
    """The name of image number `index`, whose order is that of the numbers."""
    return f"{index:06d}"
