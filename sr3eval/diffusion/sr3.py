"""SR3 as a Method: a checkpoint, an inference schedule, and one noise generator an image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sr3eval.device import default_device
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion.loss import Denoiser
from sr3eval.diffusion.padding import pad
from sr3eval.diffusion.solvers import NoisePerImage, SamplerConfig
from sr3eval.images import bicubic_up, from_signed, to_signed
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint


def sample(
    model: Denoiser,
    lr: Tensor,
    size: tuple[int, int],
    seeds: Sequence[int],
    sampler: SamplerConfig,
    final_gamma: float,
    progress: Progress | None = None,
) -> Tensor:
    """lr [N, 3, h, w] in [0, 1] to one sample an image, [N, 3, H, W] in [0, 1], from the image's own seed.

    final_gamma: gamma_T of the model's training.
    """
    x = to_signed(bicubic_up(lr, size)).contiguous(memory_format=torch.channels_last)
    for step, refined in enumerate(sampler.refine(model, x, final_gamma, NoisePerImage(seeds, x)), start=1):
        y = refined
        if progress:
            progress(step / sampler.steps)
    return from_signed(y)


class SR3(Method):
    """A trained SR3 checkpoint with its sampler settings."""

    scale: int
    stochastic = True

    def __init__(self, weights: checkpoints.Checkpoint, sampler: SamplerConfig, half: bool = False) -> None:
        self.name = "sr3"
        self.scale = weights.config.target.scale
        self.fingerprint = fingerprint("sr3", weights.sha256, sampler, *(["half"] if half else []))
        self.facts = Facts(
            {"checkpoint": weights.sha256}, settings=sampler.described + (", half = True" if half else "")
        )
        self.sampler, self.device = sampler, default_device()
        self.model = weights.model_on(self.device, half)
        self.final_gamma = float(weights.config.schedule.build().gammas[-1])
        sampler.schedule(self.final_gamma)  # refuses levels that do not fit before any work

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, H, W], float32 in [0, 1]; any size (see `pad`). Same seed, same image."""
        enlarged, size = pad(lr.to(self.device), self.scale, self.model.unet.config.factor)
        sr = sample(self.model, enlarged, size, seeds, self.sampler, self.final_gamma, progress)
        height, width = (self.scale * side for side in lr.shape[-2:])
        return Upscaled(sr[..., :height, :width].cpu())
