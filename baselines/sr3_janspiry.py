"""SR3 as github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement trains it (read at 01d27a7).

Its weights for faces, 16 -> 128 and 64 -> 512, are the only public ones of an SR3; many repositories share the layout.
The network and its levels are not the paper's (see `_janspiry_unet`), and neither is the sampler: the variance is the
posterior's, and each step's estimate of the image is clamped.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from baselines._fingerprints import options_text
from baselines._janspiry_unet import UNet, structure
from baselines._pixels import Quantize, on_official_grid
from sr3eval.device import default_device
from sr3eval.diffusion.padding import pad
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.solvers import NoisePerImage, refine
from sr3eval.errors import UserError
from sr3eval.images import from_signed, pillow_bicubic, round_to_8bit, to_signed
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.weights import Release, StateDict, load_state, read

NAME = "sr3_janspiry"
PREFIX = "denoise_fn."  # of the network's keys; the others are its training schedule
RELEASES = tuple(
    Release(
        f"Janspiry's SR3 {sizes}",
        file,
        "github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement",
        "Apache-2.0",
    )
    for sizes, file in (("16 to 128", "I640000_E37_gen.pth"), ("64 to 512", "I830000_E32_gen.pth"))
)
KEYS = {NAME: r"denoise_fn\."}


def network(saved: StateDict, groups: int | None) -> UNet:
    """The U-Net of a *_gen.pth, its structure read off the keys; UserError where they are not of its `sr3` kind."""
    weights = {key.removeprefix(PREFIX): value for key, value in saved.weights.items() if key.startswith(PREFIX)}
    if "time_mlp.1.weight" in weights:
        raise saved.wrong(NAME, "its which_model_G is ddpm, not sr3")
    try:
        found = structure(weights, groups)
        inputs = weights["downs.0.weight"].shape[1]
    except (KeyError, IndexError, ValueError):
        raise saved.wrong(NAME, "no layers of its U-Net") from None
    if inputs == 3:
        raise saved.wrong(NAME, "it generates images without an input")
    if any(width % found.groups for width in (found.channels, *found.widths)):
        raise UserError(f"{saved.path}: norm_groups {found.groups} does not divide the widths {found.widths}")
    unet = UNet(found)
    load_state(unet, weights, saved, NAME)
    return unet


class JanspirySR3(Method):
    """Trained weights with the sampler of Janspiry's `val` phase, which takes 2000 steps."""

    name = NAME
    scale: int
    stochastic = True

    def __init__(
        self, unet: UNet, schedule: NoiseSchedule, scale: int, quantize: Quantize, settings: str, sha256: str
    ) -> None:
        self.schedule, self.scale, self.quantize = schedule, scale, quantize
        self.facts = Facts({"weights": sha256}, lr_kernel="Pillow bicubic")
        self.fingerprint = fingerprint(NAME, sha256, settings)
        self.device = default_device()
        self.network = unet.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to [N, 3, H, W], float32 in [0, 1]; any size (see `pad`). Same seed, same image.

        The network is given `pillow_bicubic` of lr, so the low-resolution images are always rounded to 8 bit.
        """
        x = to_signed(pillow_bicubic(*pad(lr.cpu(), self.scale, self.network.structure.factor))).to(self.device)
        for step, y in enumerate(self.refine(x, NoisePerImage(seeds, x)), start=1):
            sr = y
            if progress:
                progress(step / len(self.schedule.gammas))
        height, width = (self.scale * side for side in lr.shape[-2:])
        sr = from_signed(sr)[..., :height, :width].cpu()
        return Upscaled(on_official_grid(sr, self.quantize, round_to_8bit))

    def refine(self, x: Tensor, noise: Callable[[], Tensor]) -> Iterator[Tensor]:
        """The steps to one sample for each condition x [N, 3, H, W] in [-1, 1]; see `solvers.refine`."""
        return refine(self.network, x, self.schedule, noise, variance="posterior", clip=True)


def build(
    *,
    weights: str,
    scale: int = 8,
    steps: int = 2000,
    linear_start: float = 1e-6,
    linear_end: float = 1e-2,
    norm_groups: int | None = None,
    quantize: Quantize = "official",
) -> JanspirySR3:
    """Load a *_gen.pth. The defaults are those of both releases.

    Args:
        weights: the file.
        scale: how many times sides grow.
        steps, linear_start, linear_end: of its config's beta_schedule.val; beta grows linearly over all steps. There
            is no respacing: fewer steps need a larger linear_end, or sampling starts far from pure noise.
        norm_groups: the config's, which the file does not tell; None takes that of the release with the same
            multipliers (16 for 1, 2, 4, 8, 16, else 32).
        quantize: "official" rounds outputs to 8 bit, "none" keeps floats.

    Raises:
        UserError: a file that is not one, or a schedule out of range.
    """
    if scale < 1:
        raise UserError(f"scale = {scale}: must be at least 1")
    if norm_groups is not None and norm_groups < 1:
        raise UserError(f"norm_groups = {norm_groups}: must be at least 1")
    schedule = NoiseSchedule.linear(linear_start, linear_end, steps)
    saved = read(weights, NAME)
    unet = network(saved, norm_groups)
    settings = options_text(
        scale=scale,
        steps=steps,
        linear_start=linear_start,
        linear_end=linear_end,
        norm_groups=unet.structure.groups,
        quantize=quantize,
    )
    return JanspirySR3(unet, schedule, scale, quantize, settings, saved.sha256)
