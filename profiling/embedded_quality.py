"""Does the embedded SR3 look like photographs? Colour, detail and noise of a run's pictures beside their HR twins.

    python benchmark.py run configs/quickstart.toml --set data.limit=256 --out runs/embedded  # 5 minutes on 2 cores
    python profiling/embedded_quality.py runs/embedded

Prints for every method: PSNR, consistency and the Fréchet distance (FD) from results.csv; the median over images of the
error of the mean colour, in levels of 255; the energy above the Nyquist frequency of the LR image, over HR's; and the
standard deviation in the tenth of the 8x8 patches that are flattest in HR, above HR's, in levels. Then, whether SR3
beside Regression meets each of the lines that the embedded checkpoints are held to.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pandas as pd
import torch
from torch import Tensor

from sr3eval.benchmark.config import RunConfig
from sr3eval.images import load

PATCH = 8
Row = dict[str, float]
# What SR3 is held to beside Regression, the paper's story in small: less PSNR, as faithful to its input, much nearer to
# photographs, with their detail and without grain.
LINES: dict[str, Callable[[Row, Row], bool]] = {
    "FD at most 0.80 of Regression's": lambda sr3, regression: sr3["fd"] <= 0.8 * regression["fd"],
    "consistency at most Regression's": lambda sr3, regression: sr3["consistency"] <= regression["consistency"],
    "PSNR below Regression's": lambda sr3, regression: sr3["psnr"] < regression["psnr"],
    "energy above LR's Nyquist at least half of HR's": lambda sr3, _: sr3["energy"] >= 0.5,
    "flattest tenth at most 0.3 levels above HR's": lambda sr3, _: sr3["flattest"] <= 0.3,
}


def read(folder: Path) -> Tensor:
    """All pictures below a folder in the order of their names, [N, 3, H, W] in [0, 1]."""
    return torch.stack([load(path) for path in sorted(folder.rglob("*.png"))])


def color_error(sr: Tensor, hr: Tensor) -> float:
    """Median over images of |mean colour of SR - of HR|, averaged over channels, in levels."""
    return float((sr - hr).mean(dim=(2, 3)).abs().mean(dim=1).median() * 255)


def high_frequency_energy(images: Tensor, scale: int) -> float:
    """Energy at frequencies that the LR image cannot hold: beyond 1 / (2 scale) cycles a pixel in x or y."""
    side = images.shape[-1]
    window = torch.hann_window(side, periodic=False)
    spectrum = torch.fft.fft2(images * window[:, None] * window[None, :]).abs().square()
    beyond = torch.fft.fftfreq(side).abs() > 0.5 / scale
    return float(spectrum[..., beyond[:, None] | beyond[None, :]].sum())


def patch_deviation(images: Tensor) -> Tensor:
    """Standard deviation inside every 8x8 patch, mean over channels, in levels: [number of patches]."""
    patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    return patches.std(dim=(-2, -1)).mean(dim=1).flatten() * 255


def rows(run: Path) -> dict[str, Row]:
    """The quality of every method of a finished run, by name."""
    results = pd.read_csv(run / "results.csv").pivot(index="method", columns="metric", values="value")
    config = tomllib.loads((run / "config.toml").read_text())
    hr, lr = read(run / "images" / "_hr"), read(run / "images" / "_lr")
    scale = hr.shape[-1] // lr.shape[-1]
    flat = patch_deviation(hr)
    flattest = flat <= flat.quantile(0.1)
    quality = {}
    for method in RunConfig.parse(config).method:
        sr = read(run / "images" / method.slug)
        psnr, consistency, distance = results.loc[method.name, ["psnr", "consistency", "fd_efficientnet_lite0"]]
        quality[method.name] = {
            "psnr": psnr,
            "consistency": consistency,
            "fd": distance,
            "colour": color_error(sr, hr),
            "energy": high_frequency_energy(sr, scale) / high_frequency_energy(hr, scale),
            "flattest": float((patch_deviation(sr) - flat)[flattest].mean()),
        }
    return quality


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
def main(run: Path) -> None:
    """Print the quality table of a finished RUN."""
    click.echo(f"{'method':20}{'PSNR':>8}{'consist.':>10}{'FD':>8}{'colour':>8}{'HF / HR':>9}{'flat sd - HR':>14}")
    quality = rows(run)
    for name, row in quality.items():
        scores = f"{row['psnr']:8.2f}{row['consistency']:10.2f}{row['fd']:8.1f}"
        click.echo(f"{name:20}{scores}{row['colour']:8.2f}{row['energy']:9.2f}{row['flattest']:14.2f}")
    if {"sr3", "regression"} <= quality.keys():
        for line, is_met in LINES.items():
            click.echo(f"{'met' if is_met(quality['sr3'], quality['regression']) else 'missed':8}{line}")


if __name__ == "__main__":
    main()
