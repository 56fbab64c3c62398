"""Draw loss and validation of training runs: python benchmarks/training_curve.py OUT.png METRICS.jsonl [...]"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import matplotlib.pyplot as plt

PANELS = ("loss", "psnr", "consistency", "color_error")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("logs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(out: Path, logs: tuple[Path, ...]) -> None:
    """One row of panels for each log."""
    draw(out, logs)


def draw(out: Path, logs: Sequence[Path]) -> None:
    """Write the picture of some logs."""
    figure, rows = plt.subplots(len(logs), len(PANELS), figsize=(13, 2.8 * len(logs)), squeeze=False)
    for log, row in zip(logs, rows, strict=True):
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for panel, axes in zip(PANELS, row, strict=True):
            points = [(line["step"], line[panel]) for line in lines if panel in line]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if panel != "loss" else "", color="#0072B2")
            axes.set(title=panel.replace("_", " "), xlabel="step")
            if panel != "psnr":
                axes.set_yscale("log")
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(log.stem)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
