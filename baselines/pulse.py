"""PULSE (Menon et al. 2020, arXiv:2003.03808): the search of github.com/adamian98/pulse (read at 40cacb9) for a face.

Reads the release's synthesis.pt, gaussian_fit.pt and mapping.pt, or smaller generators of their layout. Inputs must be
aligned as FFHQ's faces are. The authors' model card says that outputs do not show who is on an input, and that the
generator is biased.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines._fingerprints import options_text
from baselines._pixels import Quantize, on_official_grid, truncate_to_8bit
from baselines._pulse_search import (
    Draw,
    Fit,
    Iterate,
    NoiseType,
    Optimiser,
    Returned,
    Schedule,
    Search,
    Settings,
)
from baselines._stylegan import MAPPING, SLOPE, SYNTHESIS, Mapping, Synthesis, mapping_network, synthesis_network
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.weights import Release, read

FIT = "PULSE's gaussian_fit.pt"
SOURCE = "github.com/adamian98/pulse"
LICENCE = "none stated; StyleGAN's own: CC BY-NC 4.0"
RELEASES = (
    Release("PULSE", "synthesis.pt", SOURCE, LICENCE),
    Release("PULSE", "mapping.pt", SOURCE, LICENCE),
    Release(
        "PULSE",
        "gaussian_fit.pt",
        SOURCE,
        "none stated",
        4566,
        "6c638855d24ea56d40512cc6d8e7a6cac4c3db6fec232a0bf58e0f78d6336d16",
    ),
)
KEYS = {SYNTHESIS: r"blocks\.4x4\.const$", MAPPING: r"dense7\.weight$", FIT: r"std$"}
REMARKS = ("PULSE turns many faces, those of people of colour above all, into white ones (its authors' model card).",)
LR_KERNEL = "none to be trained on; its search shrinks by antialiased bicubic, a = -0.5, and reflects at edges"
SAMPLES, AT_ONCE = 1_000_000, 10_000  # vectors that the fit is of; a multiple of 16, which PyTorch draws at once


class PULSE(Method):
    """The search as a Method.

    The images of a batch are searched for one after the other. Networks differ in the last bits between batches of
    different sizes, and the steps enlarge that until it is seen; so an image depends on none beside it. Other machines
    and thread counts can give other images for the same reason.
    """

    name = "pulse"
    one_by_one = True
    stochastic = True

    def __init__(
        self,
        network: Synthesis,
        fit: Fit,
        settings: Settings,
        scale: int,
        returned: Returned,
        quantize: Quantize,
        checksums: dict[str, str],
    ) -> None:
        self.settings, self.scale, self.returned, self.quantize = settings, scale, returned, quantize
        self.lr_size: int = network.side // scale
        self.facts = Facts(checksums, f"StyleGAN, {network.side}x{network.side}", LR_KERNEL)
        options = options_text(**checksums, **asdict(settings), scale=scale, returned=returned, quantize=quantize)
        self.fingerprint = fingerprint(self.name, options)
        self.device = default_device()
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.fit = (fit[0].to(self.device), fit[1].to(self.device))

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, h] to [N, 3, H, H], both float32 in [0, 1], h = lr_size. Same seed, same image.

        Notes say what each search came to. converged: whether the mean squared error of the downscaled image was at
        most eps at any step; without that, the release gives no image. loss, l2: total loss and mean squared error of
        what is returned.
        """
        if tuple(lr.shape[2:]) != (self.lr_size, self.lr_size):
            raise UserError(
                f"pulse enlarges {self.lr_size}x{self.lr_size} pixels (side of the generator, {self.network.side}, by "
                f"scale {self.scale}), not {lr.shape[2]}x{lr.shape[3]}"
            )
        steps, found = self.settings.steps, dict[int, Iterate]()
        for i, (image, seed) in enumerate(zip(lr.to(self.device), seeds, strict=True)):
            search = Search(self.network, self.fit, image, self.settings, drawing(seed, self.device))
            for step, result in enumerate(search.results(self.returned), start=1):
                found[i] = result
                if progress:
                    progress((i * steps + step) / (len(lr) * steps))
        images = torch.cat([result.image for result in found.values()])
        notes = [self._note(result) for result in found.values()]
        return Upscaled(on_official_grid(images, self.quantize, truncate_to_8bit).cpu(), notes)

    def _note(self, result: Iterate) -> dict[str, Any]:
        searched = {"converged": result.converged, "steps": self.settings.steps}
        return searched | {"loss": float(result.loss), "l2": float(result.l2)}


def drawing(seed: int, device: torch.device) -> Draw:
    """A source of standard normal numbers, drawn on the CPU, so that every device sees the same ones."""
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator).to(device)


def read_fit(path: str, latent: int) -> tuple[Fit, str]:
    """The fit in a gaussian_fit.pt, and the file's sha256; UserError for a file that holds none of such a generator."""
    saved = read(path, FIT)
    shapes = {key: tuple(value.shape) for key, value in saved.weights.items()}
    if shapes != {"mean": (latent,), "std": (latent,)}:
        raise saved.wrong(FIT, f"not a mean and a std of {latent} numbers each")
    return (saved.weights["mean"].float(), saved.weights["std"].float()), saved.sha256


def made_fit(path: str, latent: int) -> tuple[Fit, str]:
    """The fit of a mapping.pt's network, and the file's sha256; UserError for a file that holds no such network."""
    network, saved = mapping_network(path)
    if network.latent != latent:
        raise saved.wrong(MAPPING, f"latent vectors of {network.latent} numbers, where the generator takes {latent}")
    return fitted(network, default_device()), saved.sha256


@torch.no_grad()
def fitted(network: Mapping, device: torch.device, samples: int = SAMPLES) -> Fit:
    """Mean and deviation [latent] of the mapping network's outputs before their activation.

    The release's recipe: of a million vectors drawn with seed 0, on the GPU there, on the CPU here. Two minutes on two
    cores.
    """
    network = network.to(device)
    draw, latent = drawing(0, device), network.latent
    total, squares = torch.zeros(2, latent, dtype=torch.float64, device=device)
    for start in range(0, samples, AT_ONCE):
        w = network(draw((min(AT_ONCE, samples - start), latent)))
        before = F.leaky_relu(w, 1 / SLOPE).double()
        total += before.sum(0)
        squares += before.square().sum(0)
    mean = total / samples
    deviation = ((squares - samples * mean.square()) / (samples - 1)).sqrt()
    return mean.float(), deviation.float()


def build(
    *,
    synthesis: str,
    gaussian_fit: str | None = None,
    mapping: str | None = None,
    scale: int = 64,
    returned: Returned = "last",
    quantize: Quantize = "official",
    loss_str: str = "100*L2+0.05*GEOCROSS",
    eps: float = 2e-3,
    noise_type: NoiseType = "trainable",
    num_trainable_noise_layers: int = 5,
    bad_noise_layers: str = "17",
    tile_latent: bool = False,
    opt_name: Optimiser = "adam",
    learning_rate: float = 0.4,
    steps: int = 100,
    lr_schedule: Schedule = "linear1cycledrop",
) -> PULSE:
    """Load synthesis.pt and gaussian_fit.pt, or mapping.pt, of which the fit is made as the release does.

    From loss_str on, the options are run.py's, with its defaults.

    Args:
        synthesis: synthesis.pt.
        gaussian_fit, mapping: one of these files.
        scale: side of the generator (1024 in the release) by that of the inputs.
        returned: "last" is the last step's image, which run.py saves; "best" the one of the lowest loss.
        quantize: "official" drops fractions of 8 bit, as run.py does; "none" keeps floats.
        loss_str: weights of L2 (mean squared error), L1 (10 times the mean absolute error) and GEOCROSS (distance
            between the latent vectors).
        eps: least value of L2 and of L1 / 10, at which the search stops caring.
        noise_type: maps are zero, drawn and fixed, or the first num_trainable_noise_layers of them trainable.
        num_trainable_noise_layers: see noise_type.
        bad_noise_layers: layers without noise, e.g. "3.17", of 0 to 17; those that a smaller generator lacks mean
            nothing.
        tile_latent: one latent vector for all layers.
        opt_name: sgd, adam, sgdm (with momentum) or adamax.
        learning_rate: at its highest.
        steps: of the search.
        lr_schedule: fixed, linear1cycle or linear1cycledrop.

    Raises:
        UserError: files that hold something else, neither or both of gaussian_fit and mapping, options out of range.
    """
    settings = Settings(
        loss_str=loss_str,
        eps=eps,
        noise_type=noise_type,
        num_trainable_noise_layers=num_trainable_noise_layers,
        bad_noise_layers=bad_noise_layers,
        tile_latent=tile_latent,
        opt_name=opt_name,
        learning_rate=learning_rate,
        steps=steps,
        lr_schedule=lr_schedule,
    )
    fits = {"gaussian_fit": gaussian_fit, "mapping": mapping}
    origins = [(name, path) for name, path in fits.items() if path is not None]
    if len(origins) != 1:
        raise UserError("pulse needs gaussian_fit (gaussian_fit.pt of the release), or else mapping (mapping.pt)")
    network, saved = synthesis_network(synthesis)
    if scale < 2 or scale & (scale - 1) or scale > network.side // 2:
        raise UserError(f"scale = {scale}: must be a power of 2, of 2 to {network.side // 2} for this generator")
    origin, path = origins[0]
    fit, sha256 = (read_fit if origin == "gaussian_fit" else made_fit)(path, network.latent)
    return PULSE(network, fit, settings, scale, returned, quantize, {"synthesis": saved.sha256, origin: sha256})
