"""Generators: models that make images from noise alone, or from noise and a class; the first stage of a cascade."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sr3eval.config import resolve_path
from sr3eval.device import default_device
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion import openai
from sr3eval.diffusion.generator_loss import GeneratorModel
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.solvers import NoisePerImage, SamplerConfig, Solver, Variance, refine
from sr3eval.errors import UserError, nearest
from sr3eval.images import from_signed
from sr3eval.method import Facts, Progress, fingerprint


@dataclass(frozen=True)
class GeneratorSampler:
    """How a generator's images are sampled.

    Attributes:
        steps: evaluations of the network, at levels of the training, evenly spaced (`NoiseSchedule.respaced`).
        solver, eta: see `SamplerConfig`.
        variance: of the noise that "ancestral" adds, if the model has not learned it: "posterior" or "beta", DDPM's
            fixed small and fixed large variances.
        clip: clamp the estimate of the image to [-1, 1] at every step.
    """

    steps: int = 250
    solver: Solver = "ancestral"
    eta: float | None = None
    variance: Variance = "posterior"
    clip: bool = True

    def __post_init__(self) -> None:
        SamplerConfig(self.steps, self.solver, self.eta)  # refuses what does not fit
        if self.variance != "posterior" and self.solver != "ancestral":
            raise UserError('variance: only for solver = "ancestral"')


def sample(
    model: GeneratorModel,
    like: Tensor,
    labels: Tensor | None,
    seeds: Sequence[int],
    sampler: GeneratorSampler,
    levels: NoiseSchedule,
    learned: bool,
    progress: Progress | None = None,
) -> Tensor:
    """One image a seed, [N, 3, S, S] in [0, 1], of the shape of `like` and on its device.

    labels: int64 [N], or None. levels: respaced ones. learned: whether the model gives variances beside the noise.
    """
    variance = "learned" if learned else sampler.variance
    noise = NoisePerImage(seeds, like)

    def denoise(_condition: Tensor, y: Tensor, gamma: Tensor) -> Tensor:
        return model(y, gamma, labels)

    refined = refine(denoise, like, levels, noise, variance, sampler.clip, sampler.solver, sampler.eta)
    for step, made in enumerate(refined, start=1):
        y = made
        if progress:
            progress(step / sampler.steps)
    return from_signed(y)


@dataclass(frozen=True)
class Trained:
    """What a generator is made of.

    model: f(y, gamma, labels), see `preconditioners`. schedule: of its training. size: side of its images. learned:
    whether it gives variances. classes: how many labels it takes; names: theirs, in order, where they are known.
    """

    name: str
    model: nn.Module
    schedule: NoiseSchedule
    size: int
    learned: bool
    sha256: str
    classes: int | None = None
    names: tuple[str, ...] = ()
    licence: str = ""


class Generator:
    """A trained model that makes images from noise (DDPM), or from noise and a class (Improved DDPM).

    Attributes:
        name: as messages call it.
        fingerprint: hash of the weights and settings.
        size: side of the images in pixels.
        classes: how many labels it takes, from 0; None: it takes none.
        names: of the classes, in the order of their labels; empty where nobody recorded them.
        facts: checksum and licence of the weights.
    """

    def __init__(self, trained: Trained, sampler: GeneratorSampler) -> None:
        self.name, self.size, self.classes, self.names = trained.name, trained.size, trained.classes, trained.names
        self.fingerprint = fingerprint("generator", trained.name, trained.sha256, sampler)
        self.facts = Facts({"checkpoint": trained.sha256}, licence=trained.licence)
        self.sampler, self.learned = sampler, trained.learned
        self.levels = trained.schedule.respaced(sampler.steps)
        self.device = default_device()
        self.model = trained.model.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def label(self, name: str | int) -> int:
        """The label of a class given by its name or number; UserError where there is no such class."""
        if self.classes is None:
            raise UserError(f"{self.name}: an unconditional generator takes no labels, so no {name!r}")
        if isinstance(name, str) and name not in self.names:
            known = nearest(name, self.names) if self.names else "its checkpoint records no names; give a number"
            raise UserError(f'{self.name}: unknown class "{name}": {known}')
        label = self.names.index(name) if isinstance(name, str) else name
        if not 0 <= label < self.classes:
            raise UserError(f"{self.name}: label {label} is not from 0 to {self.classes - 1}")
        return label

    def check(self, seeds: Sequence[int], labels: Sequence[int] | None) -> None:
        """UserError where labels are missing, not as many as seeds, out of range, or given in vain."""
        if self.classes is None and labels is not None:
            raise UserError(f"{self.name}: an unconditional generator takes no labels")
        if self.classes is not None and labels is None:
            raise UserError(f"{self.name}: a class-conditional generator needs labels, from 0 to {self.classes - 1}")
        if labels is not None and len(labels) != len(seeds):
            raise UserError(f"{self.name}: {len(labels)} labels for {len(seeds)} seeds")
        for label in labels or ():
            self.label(label)

    @torch.inference_mode()
    def generate(
        self, seeds: Sequence[int], labels: Sequence[int] | None = None, progress: Progress | None = None
    ) -> Tensor:
        """Make one image a seed: [N, 3, size, size] float32 in [0, 1] on the CPU, from one batch of the network.

        Image i draws all its noise from seeds[i], so that none depends on those beside it. Raises UserError, see
        `check`.
        """
        self.check(seeds, labels)
        like = torch.empty(len(seeds), 3, self.size, self.size, device=self.device)
        like = like.contiguous(memory_format=torch.channels_last)
        given = None if labels is None else torch.tensor(labels, device=self.device)
        return sample(self.model, like, given, seeds, self.sampler, self.levels, self.learned, progress).cpu()


def load(checkpoint: str, sampler: GeneratorSampler | None = None) -> Generator:
    """Load a generator: a model.safetensors of `sr3eval train`, or one of openai's (`openai.RELEASES`).

    Of a release, the file's name alone will do: it is looked for where weights lie, and else downloaded. Raises
    UserError for other files, and for more steps than the training has levels.
    """
    path = resolve_path(checkpoint)
    ours = path.suffix == ".safetensors"
    return Generator(_ours(path) if ours else _openais(checkpoint, path), sampler or GeneratorSampler())


def _ours(path: Path) -> Trained:
    found = checkpoints.load(str(path))
    config = found.config
    if not config.generates:
        raise UserError(f'{path}: a checkpoint of model = "{config.model}", which cannot generate images from noise')
    return Trained(
        name=config.model,
        model=found.model(),
        schedule=config.schedule.build(),
        size=config.network.image_size,
        learned=config.model == "improved_ddpm",
        sha256=found.sha256,
        classes=config.network.classes,
        names=config.classes or (),
    )


def _openais(checkpoint: str, path: Path) -> Trained:
    saved, model = openai.load(checkpoint, path)
    structure = model.network.structure
    return Trained(
        name=openai.NAME,
        model=model,
        schedule=NoiseSchedule.cosine(structure.steps),
        size=structure.image_size,
        learned=True,
        sha256=saved.sha256,
        classes=structure.classes,
        licence=openai.RELEASES[0].licence,
    )
