"""SR3 as a Method: a checkpoint, an inference schedule, and one noise generator an image."""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from sr3eval import tasks
from sr3eval.device import default_device
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion.padding import pad
from sr3eval.diffusion.sampler import NoisePerImage, Variance, refine
from sr3eval.diffusion.schedule import FIRST_BETA, NoiseSchedule, Spacing
from sr3eval.diffusion.unet import UNet
from sr3eval.images import bicubic_up, from_signed, to_signed
from sr3eval.method import Work, fingerprint, finish
from sr3eval.tasks import Task


def sample(
    network: UNet,
    lr: Tensor,
    size: tuple[int, int],
    seeds: Sequence[int],
    schedule: NoiseSchedule,
    variance: Variance = "beta",
    clip: bool = False,
) -> Generator[float, None, Tensor]:
    """lr [N, 3, h, w] in [0, 1] to one sample an image, [N, 3, H, W] in [0, 1], from the image's own seed.

    Yields the share of the steps that are done.
    """
    x = to_signed(bicubic_up(lr, size)).contiguous(memory_format=torch.channels_last)
    total = len(schedule.gammas)
    for step, refined in enumerate(refine(network, x, schedule, NoisePerImage(seeds, x), variance, clip), start=1):
        y = refined
        yield step / total
    return from_signed(y)


class SR3:
    """A trained SR3 checkpoint with its sampler settings."""

    def __init__(
        self,
        weights: checkpoints.Checkpoint,
        steps: int = 100,
        variance: Variance = "beta",
        clip: bool = False,
        spacing: Spacing = "log_snr",
        first_beta: float = FIRST_BETA,
    ) -> None:
        self.name = "sr3"
        self.scale: int | None = tasks.get(weights.config.task).scale
        self.fingerprint = fingerprint("sr3", weights.sha256, steps, variance, clip, spacing, first_beta)
        self.checksums = {"checkpoint": weights.sha256}
        device = default_device()
        self.network = weights.network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.variance, self.clip = device, variance, clip
        training = weights.config.schedule.build()
        self.schedule = NoiseSchedule.inference(float(training.gammas[-1]), steps, spacing, first_beta)

    def upscale(self, lr: Tensor, seeds: Sequence[int]) -> Tensor:
        """[N, 3, h, w] to [N, 3, H, W], float32 in [0, 1]; any size (see `pad`). Same seed, same image."""
        return finish(self.upscale_steps(lr, seeds))[0]

    @torch.inference_mode()
    def upscale_steps(self, lr: Tensor, seeds: Sequence[int]) -> Work:
        """`upscale` step by step; it has no notes."""
        assert self.scale is not None
        enlarged, size = pad(lr.to(self.device), self.scale, self.network.config.factor)
        sr = yield from sample(self.network, enlarged, size, seeds, self.schedule, self.variance, self.clip)
        height, width = (self.scale * side for side in lr.shape[-2:])
        return sr[..., :height, :width].cpu(), [{} for _ in seeds]


def build(
    *,
    checkpoint: str,
    task: Task | None = None,
    steps: int = 100,
    variance: Variance = "beta",
    clip: bool = False,
    spacing: Spacing = "log_snr",
    first_beta: float = FIRST_BETA,
) -> SR3:
    """Load an SR3 checkpoint, one trained for `task` where that is given.

    steps: refinement steps, from the gamma_T of training on. spacing, first_beta: see `NoiseSchedule.inference`.
    variance, clip: see `refine`.
    """
    return SR3(checkpoints.load(checkpoint, "sr3", task), steps, variance, clip, spacing, first_beta)
