"""Commands that prepare data, train and sample. torch is imported inside the commands: --help is instant."""

import functools
import os
import signal
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sr3eval import console
from sr3eval.distributed import job
from sr3eval.errors import UserError, number
from sr3eval.files import held

if TYPE_CHECKING:
    from sr3eval.diffusion.solvers import SamplerOptions


@click.group(cls=console.Joining)
def main() -> None:
    """Train SR3, Regression and generators, upscale folders of images, and make images from noise."""


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run; runs/train/NAME of the config by default."
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def train(config: Path, out: Path | None, overrides: tuple[str, ...]) -> None:
    """Train the model that CONFIG describes; run it again to resume after an interruption.

    Ctrl-C and SIGTERM save the state after the step in hand; SIGTERM then ends with exit code 0. Under `torchrun` or
    `accelerate launch`, the processes share every batch.
    """
    from sr3eval.config import from_dict, read_toml
    from sr3eval.diffusion.estimate import training_summary
    from sr3eval.diffusion.train import train as run
    from sr3eval.diffusion.train_config import TrainConfig

    here, out = job(), out or Path("runs/train") / config.stem
    settings = from_dict(TrainConfig, read_toml(config, overrides))
    console.say(here.lead(lambda: training_summary(settings, out)))
    ended = f"trained to step {settings.optimiser.steps}"
    try:
        with (
            # First and last: torchrun sends a SIGTERM to those that another's end stops.
            console.interrupts(signal.SIGINT, signal.SIGTERM, agreed=here.largest) as stop,
            here.lead_in(held(out)),
            console.progress(f"train {settings.model}", settings.optimiser.steps) as bar,
            closing(run(settings, out)) as events,
        ):
            for event in events:
                bar.update(event.step - bar.n)
                if event.logged:
                    bar.set_postfix({k: f"{v:.4g}" for k, v in event.logged.items() if k in ("loss", "psnr")})
                if event.step < event.steps:
                    stop()
    except KeyboardInterrupt as stopped:
        if stopped.args != (signal.SIGTERM,):  # as schedulers send it before they kill
            raise
        ended = f"stopped at step {event.step}; the same command resumes"
    console.say(f"{out}: {ended}")


@main.command()
@click.option("--checkpoint", required=True, help="A model.safetensors of `sr3eval train`, SR3 or Regression.")
@click.option("--steps", type=int, help="Refinement steps (SR3); by default the number found to be best.")
@click.option("--solver", type=click.Choice(["ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]))
@click.option("--eta", type=float, help="How much noise ddim and dpmpp_2m_sde add, from 0 to 1; by default 0 and 1.")
@click.option("--variance", type=click.Choice(["beta", "posterior"]), help="Variance of ancestral; beta by default.")
@click.option("--clip/--no-clip", default=None, help="Clamp the estimate of y_0 at every step.")
@click.option("--spacing", type=click.Choice(["log_snr", "linear"]), help="Of the noise levels; log_snr by default.")
@click.option("--first-beta", type=float, help="1 - gamma of the last noise level to be removed; 1e-4 by default.")
@click.option("--jump", type=float, help="Log SNR that the first step goes to.")
@click.option("--half", is_flag=True, help="Convolve in bfloat16, if the GPU or CPU supports it.")
@click.option("--samples", default=1, show_default=True, help="Samples per image, each from its own seed (SR3).")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.argument("images", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def sample(images: Path, out: Path, **options: Any) -> None:
    """Upscale every image below the folder IN into OUT; run it again to resume after an interruption.

    SR3 takes the sampler that `sr3eval search-schedule` found for the checkpoint and this number of steps, or a good
    one where nothing was searched; an option from --solver to --jump replaces it by the paper's with these settings.
    Under `torchrun` or `accelerate launch`, the processes share the images.
    """
    from sr3eval.diffusion.sample_folder import SampleConfig, sample_folder

    settings = SampleConfig(sampler=take_sampler(options), **options)
    with job().lead_in(held(out)), console.stages() as tell:
        count = sample_folder(settings, images, out, functools.partial(tell, "sample"), console.say)
    console.say(f"{out}: {count} images")


def take_sampler(options: dict[str, Any]) -> "SamplerOptions":
    """Take the sampler's options out of a command's."""
    from sr3eval.diffusion.solvers import SamplerOptions

    return SamplerOptions(**{field.name: options.pop(field.name) for field in fields(SamplerOptions)})


OF_A_FOLDER = ("samples", "batch_size", "images", "out")  # options of `sample` that `refine` has otherwise, or not


@main.command(params=[option for option in sample.params if option.name not in (*OF_A_FOLDER, "checkpoint")])
@click.option("--checkpoint", required=True, help="A model.safetensors of `sr3eval train`, of SR3.")
@click.option("--samples", default=1, show_default=True, help="Samples on the sheet, each from its own seed.")
@click.option("--columns", default=8, show_default=True, help="Steps shown in the strip.")
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def refine(image: Path, out: Path, **options: Any) -> None:
    """Show how SR3 refines IMAGE, in the folder OUT.

    chain.png is a strip of some steps with their estimates of the result, chain.gif a film of all of them, and
    samples.png, with --samples K, a sheet of K samples and their standard deviation.
    """
    from sr3eval.diffusion.refinement import RefinementConfig, write

    settings = RefinementConfig(sampler=take_sampler(options), **options)
    with console.stages() as tell:
        written = write(settings, image, out, functools.partial(tell, "refine"))
    for path in written:
        click.echo(path)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the search; runs/search/NAME of the config by default."
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def search_schedule(config: Path, out: Path | None, overrides: tuple[str, ...]) -> None:
    """Find the best sampler for each number of steps, and keep them next to the checkpoint that CONFIG names.

    Run it again to resume after an interruption. `steps = N` of a run, or `sr3eval sample --steps N`, then takes what
    was found.
    """
    from sr3eval.config import from_dict, read_toml
    from sr3eval.diffusion.search import PAGE, search
    from sr3eval.diffusion.search_config import SearchConfig

    out = out or Path("runs/search") / config.stem
    settings = from_dict(SearchConfig, read_toml(config, overrides))
    with held(out), console.stages() as tell:
        found = search(settings, out, tell)
    for best in found.found:
        click.echo(f"{best.sampler.steps:5} steps: {best.distance:8.2f} [{best.low:.2f}, {best.high:.2f}]")
    click.echo(f"{out / PAGE}")


@main.command()
@click.argument("kind", type=click.Choice(["ffhq", "celeba_hq", "imagenet", "folder"]))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the shards.")
@click.option("--size", type=click.IntRange(1), help="Side of the squares, in pixels; without it, images stay whole.")
@click.option("--task", help="Task whose squares are made, instead of --size.")
@click.option("--split", type=click.Choice(["all", "training", "validation"]), default="all", show_default=True)
@click.option("--validation", metavar="FILE|SHARE", help="The validation images: a file of ids, or a share by hash.")
@click.option("--labels", metavar="FILE|folders", help="Labels of ImageNet's validation images, or of a folder.")
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Images per shard.")
@click.option("--workers", type=click.IntRange(1), help="Processes; by default one per core.")
@click.option("--incomplete", is_flag=True, help="Accept a number of images other than the published one.")
@click.option("--verify", is_flag=True, help="Compare archives and finished shards with their checksums.")
def prepare(out: Path, task: str | None, workers: int | None, verify: bool, **options: Any) -> None:
    """Make tar shards of the data set SOURCE, for training, statistics and benchmark: the largest central square of
    every image, shrunk by area. Run it again to resume after an interruption.

    KIND is the layout as published: ffhq (images1024x1024), celeba_hq (a folder, LMDB, .npz or .npy files), imagenet
    (ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, or folders of synsets), or any folder.
    """
    from sr3eval.prepare.run import Settings, summary
    from sr3eval.prepare.run import prepare as run

    if task is not None:
        options["size"] = squares(task, options["size"])
    with held(out), console.stages() as tell:
        index = run(
            Settings(**options),
            out,
            workers or os.cpu_count() or 1,
            verify,
            tell,
            functools.partial(click.echo, err=True),
        )
    click.echo(f"{out}: {summary(index)}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def verify_shards(folder: Path) -> None:
    """Compare the shards in FOLDER, which `prepare` has finished, with their checksums."""
    from sr3eval.prepare.verify import verify_shards

    with console.stages() as tell:
        verify_shards(folder, tell)
    click.echo(f"{folder}: all shards match their checksums")


def squares(task: str, size: int | None) -> int:
    """The side of a task's squares before its own crop. Raises UserError for a task of whole images."""
    from sr3eval import tasks

    if size is not None:
        raise click.UsageError("--size and --task: give one")
    return max(tasks.get(task).smallest, tasks.get(task).hr_size)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the images.")
@click.option("--shard", metavar="I/N", help="Make part I of N, for example one per machine; by default everything.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def cascade(config: Path, out: Path, shard: str | None, overrides: tuple[str, ...]) -> None:
    """Make the images that CONFIG describes from noise: with a generator, followed by SR3 models.

    Run it again to resume after an interruption. Shards may run at the same time, into the same folder or not; under
    `torchrun` or `accelerate launch`, the processes share the images.
    """
    from sr3eval.config import from_dict, read_toml
    from sr3eval.diffusion.cascade_estimate import summary
    from sr3eval.diffusion.cascade_folder import CascadeConfig, CascadeFolder, Shard

    part = Shard.parse(shard or "1/1")
    folder = CascadeFolder(from_dict(CascadeConfig, read_toml(config, overrides)), out)
    for remark in folder.remarks:
        console.say(remark, err=True)
    console.say(job().lead(lambda: summary(folder)))
    with console.stages() as tell:
        count = folder.write(part, functools.partial(tell, "cascade"))
    console.say(f"{out}: {number(count, 'image')}")


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--measure/--no-measure", default=True, show_default=True, help="Time a few steps on this machine.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def estimate(config: Path, measure: bool, overrides: tuple[str, ...]) -> None:
    """Say what the training or the cascade that CONFIG describes costs: operations, memory, time and disk.

    Images are not read. A few steps are timed on random ones, if they fit into memory; that takes a minute or so.
    """
    from sr3eval.config import from_dict, kind_of, read_toml
    from sr3eval.diffusion import cascade_estimate, estimate
    from sr3eval.diffusion.cascade_folder import CascadeConfig, CascadeFolder
    from sr3eval.diffusion.train_config import TrainConfig

    data = read_toml(config, overrides)
    match kind_of(data):
        case "training":
            rows = estimate.training(from_dict(TrainConfig, data), measure).rows()
        case "cascade":
            rows = cascade_estimate.rows(CascadeFolder(from_dict(CascadeConfig, data), Path()), measure)
        case kind:
            raise UserError(f"{config}: the config of a {kind}; trainings and cascades can be estimated")
    width = max(len(name) for name, _ in rows)
    click.echo("\n".join(f"{name:{width}}  {text}" for name, text in rows))


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; runs/ by default.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of the benchmark's cache.")
@click.option("--network", is_flag=True, help="Also connect to the study's database server.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def doctor(
    config: Path | None, out: Path | None, cache: Path | None, network: bool, overrides: tuple[str, ...]
) -> None:
    """Say what is installed here and what is missing for CONFIG, with the remedy; exit code 1 if something is.

    CONFIG is of a training, a search, a cascade or a benchmark's run. Nothing is downloaded or written.
    """
    from sr3eval import doctor
    from sr3eval.config import read_toml

    found = doctor.of_machine(network)
    for finding in found:
        click.echo(finding)
    if config is not None:
        needed = doctor.of_config(read_toml(config, overrides), out or Path("runs"), cache)
        for finding in needed:
            click.echo(finding)
        found += needed
    lacking = sum(finding.state == "missing" for finding in found)
    if lacking:
        raise UserError(f"{number(lacking, 'thing')} missing, see above")


if __name__ == "__main__":
    main()
