"""Draw loss and validation of training runs: python profiling/training_curve.py OUT.png METRICS.jsonl [...]"""

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
    """Write the picture of some logs: what each holds at two steps or more."""
    curves = {log.stem: found for log in logs if (found := read(log))}
    panels = [panel for panel in PANELS if any(panel in found for found in curves.values())]
    if not panels:
        raise click.ClickException("none of the logs holds a curve")
    size = (3.25 * len(panels) + 1, 2.8 * len(curves))
    figure, rows = plt.subplots(len(curves), len(panels), figsize=size, squeeze=False)
    for (name, found), row in zip(curves.items(), rows, strict=True):
        for panel, axes in zip(panels, row, strict=True):
            axes.set_visible(panel in found)
            axes.plot(*found.get(panel, ((), ())), marker="." if panel != "loss" else "", color="#0072B2")
            axes.set(title=panel.replace("_", " "), xlabel="step", yscale="linear" if panel == "psnr" else "log")
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(name)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


def read(log: Path) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    """Steps and values of every panel that has a curve."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    points = {panel: [(line["step"], line[panel]) for line in lines if panel in line] for panel in PANELS}
    return {panel: tuple(zip(*values, strict=True)) for panel, values in points.items() if len(values) > 1}


if __name__ == "__main__":
    main()
