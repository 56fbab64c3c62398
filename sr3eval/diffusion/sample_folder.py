"""A folder of low-resolution images in, a folder of upscaled ones out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from sr3eval import config as configs
from sr3eval.data import chunks, grouped
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion import costs, estimate, schedules
from sr3eval.diffusion.regression import Regression
from sr3eval.diffusion.solvers import SamplerConfig, SamplerOptions
from sr3eval.diffusion.sr3 import SR3
from sr3eval.distributed import job
from sr3eval.errors import UserError
from sr3eval.files import File, claim_folder, digest_of
from sr3eval.folders import find_images, stable_hash
from sr3eval.images import Size, header_size, load, save
from sr3eval.method import Method, Progress, check_outputs, shares

CONFIG_FILE = "sample.toml"


@dataclass(frozen=True)
class SampleConfig:
    """checkpoint: SR3 or Regression; sampler: of SR3, see `SamplerOptions`; half: convolve in bfloat16; samples: how
    many an image.

    inputs: in the file that marks the output folder, the hash of the input images.
    """

    checkpoint: str
    inputs: str = ""
    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    half: bool = False
    samples: int = 1
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        if min(self.samples, self.batch_size) < 1:
            raise UserError("samples and batch size must be at least 1")


@dataclass(frozen=True)
class Output:
    """One image to be made: sample number `number` of the image `image_id`, which has this size."""

    image_id: str
    size: Size
    number: int
    path: Path


def sample_folder(
    config: SampleConfig,
    images: Path,
    out: Path,
    progress: Callable[[float, int], None],
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Upscale all images below `images`, of any sizes, into `out`; returns how many there are to be made.

    progress: is told (images done, total) after every step; what it raises ends the work there. say: is told what the
    work costs before it begins.

    Outputs keep their ids; with several samples an image they lie in sample_1/, sample_2/ ... Batches are planned from
    the whole folder and one that lacks an output is made again whole, so an interrupted run gives the same bytes, and
    so do the processes of a job, which share the batches.
    """
    here = job()
    if out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{out}: is inside the input folder {images}; give another output folder")
    paths = here.lead(lambda: find_images(images))
    checkpoint = checkpoints.load(config.checkpoint)
    sampler = schedules.choose(config.checkpoint, checkpoint.sha256, config.sampler)
    method = _method(config, checkpoint, sampler)
    plan = here.lead(lambda: list(_batches(paths, config, out)))
    chosen = SamplerOptions(**asdict(sampler))

    def begin() -> None:
        identity = replace(config, checkpoint=checkpoint.sha256, inputs=digest_of(paths), sampler=chosen)
        claim_folder(out, CONFIG_FILE, configs.to_toml(identity))
        say(_summary(method, plan, out))

    here.lead(begin)
    total, done, tally = sum(map(len, plan)), 0, here.tally("sample")
    for batch in here.own(plan):
        if not all(output.path.exists() for output in batch):
            _write(batch, paths, method, config, shares(lambda images: progress(images, total), done, len(batch)))
        done = tally(len(batch))
        progress(done, total)
    here.wait()
    progress(total, total)
    return total


def _summary(method: SR3 | Regression, plan: Sequence[Sequence[Output]], out: Path) -> str:
    """What the work costs."""
    sizes = [
        (method.scale * height, method.scale * width) for batch in plan for height, width in (o.size for o in batch)
    ]
    steps = method.sampler.steps if isinstance(method, SR3) else 1
    return estimate.sampling_summary(costs.parameters(method.model), steps, sizes, out)


def _write(
    batch: Sequence[Output], paths: Mapping[str, File], method: Method, config: SampleConfig, progress: Progress
) -> None:
    """Make and write the outputs of one batch."""
    lr = torch.stack([_load(paths[output.image_id], output.size) for output in batch])
    seeds = [stable_hash(config.seed, output.image_id, output.number) for output in batch]
    outputs = method.upscale(lr, seeds, progress).images
    check_outputs(outputs, tuple(outputs.shape), f"{config.checkpoint}, batch of {batch[0].image_id}")
    for output, sr in zip(batch, outputs, strict=True):
        save(output.path, sr)


def _load(path: File, size: Size) -> torch.Tensor:
    """An image [3, h, w]; UserError where it no longer has the size that it had when the batches were planned."""
    image = load(path)
    if image.shape[1:] != size:
        raise UserError(f"{path}: has changed since the images were listed; use a folder that does not change")
    return image


def _method(config: SampleConfig, checkpoint: checkpoints.Checkpoint, sampler: SamplerConfig) -> SR3 | Regression:
    if checkpoint.config.generates:
        raise UserError(f"{config.checkpoint}: a generator, which makes images from noise; it takes no input images")
    if checkpoint.config.model == "sr3":
        return SR3(checkpoint, sampler, config.half)
    if config.sampler.given:
        option = next(iter(config.sampler.given)).replace("_", "-")
        raise UserError(f"--{option}: only for SR3; {config.checkpoint} is a Regression checkpoint")
    if config.samples > 1:
        raise UserError("Regression is deterministic: --samples needs an SR3 checkpoint")
    return Regression(checkpoint, half=config.half)


def _batches(paths: Mapping[str, File], config: SampleConfig, out: Path) -> Iterator[Sequence[Output]]:
    """All outputs, in batches of inputs of one size."""
    folders = [out / f"sample_{number + 1}" if config.samples > 1 else out for number in range(config.samples)]
    for size, ids in grouped(paths, lambda image_id: header_size(paths[image_id])).items():
        outputs = [Output(i, size, number, folder / f"{i}.png") for i in ids for number, folder in enumerate(folders)]
        yield from chunks(outputs, config.batch_size)
