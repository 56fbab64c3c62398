"""What PULSE's code makes of reduced networks, and those networks.

    python pulse.py golden CHECKOUT       write pulse.npz; CHECKOUT: github.com/adamian98/pulse at 40cacb9
    python pulse.py weights FOLDER        write a synthesis.pt of 64x64 pixels, a mapping.pt and a gaussian_fit.pt

The arrays, beside inputs that `drawn` makes from their names:

    network          the output of G_synthesis at 128x128, every third row and column
    shrunk_SIZE      BicubicDownSample of an image of 32x32
    mean, std        the fit that PULSE makes of a mapping.pt by its recipe, with FIT_SAMPLES vectors
    CASE losses      of each search of CASES: total loss and L2 at every step
    CASE image       the last iterate, every third row and column
    CASE yielded     how many images came out
    clamped png      the image that came out, as run.py writes it

Sizes are constants in the code, so they are replaced in its text (`official`).
"""

import io
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

RELEASED = (512, 512, 512, 512, 256, 128, 64, 32, 16)  # channels at 4x4, 8x8, ..., 1024x1024
SMALL, MEDIUM = (8, 8, 8, 8, 4), (8, 8, 8, 8, 8, 4)  # up to 64x64 and 128x128
LATENT, FIT_SAMPLES, LR_SIZE, STEPS = 512, 1000, 8, 4
DEFAULTS = {
    "loss_str": "100*L2+0.05*GEOCROSS",
    "eps": 2e-3,
    "noise_type": "trainable",
    "num_trainable_noise_layers": 5,
    "tile_latent": False,
    "bad_noise_layers": "17",
    "opt_name": "adam",
    "learning_rate": 0.4,
    "lr_schedule": "linear1cycledrop",
}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "L1": {"loss_str": "3*L1+20*L2+1*GEOCROSS"},
    "clamped": {"eps": 0.05},
    "zero": {"noise_type": "zero"},
    "fixed noise": {"noise_type": "fixed"},
    "bad layers": {"bad_noise_layers": "0.2.9", "num_trainable_noise_layers": 3},
    "tiled": {"tile_latent": True},
    "sgd": {"opt_name": "sgd", "learning_rate": 4.0},
    "sgdm": {"opt_name": "sgdm", "learning_rate": 4.0},
    "adamax": {"opt_name": "adamax"},
    "fixed rate": {"lr_schedule": "fixed"},
    "linear1cycle": {"lr_schedule": "linear1cycle"},
}


def drawn(name: str, shape: Sequence[int]) -> Tensor:
    """N(0, 1) seeded by a name, in float32; RandomState's stream is frozen."""
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32))


def shapes(widths: Sequence[int], latent: int = LATENT) -> dict[str, tuple[int, ...]]:
    """Those of a synthesis.pt with these channels at 4x4, 8x8, ..."""
    found: dict[str, tuple[int, ...]] = {"torgb.weight": (3, widths[-1], 1, 1), "torgb.bias": (3,)}
    for i, (before, width) in enumerate(zip((0, *widths), widths, strict=False)):
        block = f"blocks.{4 << i}x{4 << i}."
        found |= epilogue(f"{block}epi1.", width, latent) | epilogue(f"{block}epi2.", width, latent)
        if i == 0:
            found |= {f"{block}const": (1, width, 4, 4), f"{block}bias": (width,)}
        else:
            found |= convolution(f"{block}conv0_up.", before, width)
            found[f"{block}conv0_up.intermediate.kernel"] = (1, 1, 3, 3)
        found |= convolution(f"{block}conv1." if i else f"{block}conv.", width, width)
    return found


def epilogue(prefix: str, width: int, latent: int) -> dict[str, tuple[int, ...]]:
    style = {f"{prefix}style_mod.lin.weight": (2 * width, latent), f"{prefix}style_mod.lin.bias": (2 * width,)}
    return {f"{prefix}noise.weight": (width,)} | style


def convolution(prefix: str, before: int, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}weight": (width, before, 3, 3), f"{prefix}bias": (width,)}


def synthesis_state(widths: Sequence[int] = SMALL, latent: int = LATENT, name: str = "") -> dict[str, Tensor]:
    """A synthesis.pt whose images lie mostly in [-1, 1]; another one for every name."""
    return {key: value(key, drawn(name + key, shape)) for key, shape in shapes(widths, latent).items()}


def value(key: str, normal: Tensor) -> Tensor:
    if key.endswith("kernel"):
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        return (row[:, None] * row)[None, None]
    if key.startswith("torgb."):
        return normal * 0.3
    return normal if normal.ndim > 1 else normal * 0.3


def mapping_state(latent: int = LATENT) -> dict[str, Tensor]:
    """A mapping.pt, of weights as large as they are before the network multiplies them by 0.01."""
    weights = {f"dense{i}.weight": 100 * drawn(f"dense{i}.weight", (latent, latent)) for i in range(8)}
    return weights | {f"dense{i}.bias": 10 * drawn(f"dense{i}.bias", (latent,)) for i in range(8)}


def fit_state(latent: int = LATENT) -> dict[str, Tensor]:
    """A gaussian_fit.pt with the released one's averages."""
    return {"mean": -0.27 + 0.1 * drawn("mean", (latent,)), "std": 0.48 + 0.05 * drawn("std", (latent,))}


def low_resolution(size: int = LR_SIZE, count: int = 1) -> Tensor:
    """[count, 3, size, size] in [0, 1]."""
    return (0.5 + 0.2 * drawn("lr", (count, 3, size, size))).clamp(0, 1)


class Draws:
    """Numbers in place of torch.randn's: the next ones of an image's."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, shape: Sequence[int], requires_grad: bool = False, **_options: object) -> Tensor:
        self.count += 1
        return drawn(f"draw {self.count}", shape).requires_grad_(requires_grad)


def official(checkout: Path, changes: dict[str, dict[str, str]]) -> SimpleNamespace:
    """The modules of the checkout without CUDA, each with replacements {module: {text: other}}."""
    cuda = {".cuda()": "", "device='cuda'": "device='cpu'", 'device="cuda"': "device='cpu'"}
    sys.modules["drive"] = ModuleType("drive")
    sys.modules["drive"].open_url = None  # type: ignore[attr-defined]
    for name in ("bicubic", "stylegan", "SphericalOptimizer", "loss", "PULSE"):  # in the order of their imports
        text = (checkout / f"{name}.py").read_text()
        for old, new in (cuda | {"'.cuda' if cuda": "'' if cuda"} | changes.get(name, {})).items():
            text = text.replace(old, new)
        module = sys.modules[name] = ModuleType(name)
        exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return SimpleNamespace(**{name: sys.modules[name] for name in ("bicubic", "stylegan", "loss", "PULSE")})


def model(modules: SimpleNamespace, files: Iterator[dict[str, Tensor]], fit: dict[str, Tensor] | None) -> nn.Module:
    """PULSE with the state dicts in place of its downloads, and a gaussian_fit.pt where one is given."""

    def saved(*_unused: object, **_options: object) -> io.BytesIO:
        buffer = io.BytesIO()
        torch.save(next(files), buffer)
        buffer.seek(0)
        return buffer

    modules.PULSE.open_url = saved
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if fit is not None:
            torch.save(fit, "gaussian_fit.pt")
        return modules.PULSE.PULSE(cache_dir=folder, verbose=False)


def search(modules: SimpleNamespace, pulse: nn.Module, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Losses of every step, the last iterate and the number of images of one search."""
    seen = []
    forward = modules.loss.LossBuilder.forward

    def recorded(self: nn.Module, latent: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = forward(self, latent, image)
        seen.append((loss.item(), terms["L2"].item(), image.detach()))
        return loss, terms

    patches = mock.patch.object(modules.loss.LossBuilder, "forward", recorded), mock.patch("torch.randn", Draws())
    with patches[0], patches[1]:
        options = DEFAULTS | {"seed": None, "steps": STEPS, "save_intermediate": False} | options
        images = list(pulse(low_resolution(), **options))
    losses, l2, iterates = zip(*seen, strict=True)
    return {
        "losses": np.array([losses, l2]).T,
        "image": iterates[-1][..., ::3, ::3].numpy(),
        "yielded": np.array(len(images)),
    } | ({"png": pixels(images[0][0])} if images else {})


def pixels(image: Tensor) -> np.ndarray:
    """[1, 3, H, W] as run.py writes it."""
    from torchvision.transforms import ToPILImage

    return np.asarray(ToPILImage()(image[0])).transpose(2, 0, 1)


def goldens(checkout: Path) -> dict[str, np.ndarray]:
    small = "G_synthesis(resolution=64, fmap_base=128, fmap_max=8)"
    sizes = {
        "PULSE": {"G_synthesis()": small, "18": "10", "1000000": str(FIT_SAMPLES)},
        "loss": {"1024": "64", "18": "10"},
    }
    modules = official(checkout, sizes)
    network = modules.stylegan.G_synthesis(resolution=128, fmap_base=256, fmap_max=8)
    network.load_state_dict(synthesis_state(MEDIUM))
    latents, noises = network_inputs(MEDIUM)
    with torch.no_grad():
        arrays = {"network": network(latents[None], noises)[..., ::3, ::3].numpy()}
        for size in (2, 4, 16):
            shrunk = modules.bicubic.BicubicDownSample(factor=32 // size)(drawn("image", (1, 3, 32, 32)))
            arrays[f"shrunk_{size}"] = shrunk.numpy()
    fit = model(modules, iter([synthesis_state(), mapping_state()]), None).gaussian_fit
    arrays |= {name: numbers.numpy() for name, numbers in fit.items()}
    pulse = model(modules, iter([synthesis_state()]), fit_state())
    for case, options in CASES.items():
        found = search(modules, pulse, options)
        if case != "clamped":
            found.pop("png", None)
        arrays |= {f"{case} {name}": array for name, array in found.items()}
    return arrays


def network_inputs(widths: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Latent vectors [layers, LATENT] and noise maps [1, 1, side, side]."""
    latents = drawn("latents", (2 * len(widths), LATENT))
    return latents, [drawn(f"noise {i}", (1, 1, 4 << i // 2, 4 << i // 2)) for i in range(len(latents))]


def write(folder: Path) -> None:
    """Files in the layout of the release."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(synthesis_state(), folder / "synthesis.pt")
    torch.save(mapping_state(), folder / "mapping.pt")
    torch.save(fit_state(), folder / "gaussian_fit.pt")


if __name__ == "__main__":
    if sys.argv[1] == "weights":
        write(Path(sys.argv[2]))
    else:
        np.savez_compressed(Path(__file__).with_suffix(".npz"), **goldens(Path(sys.argv[2]).resolve()))
