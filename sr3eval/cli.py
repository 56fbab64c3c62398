"""`sr3eval train`, `sample` and `cascade`. torch is imported inside the commands, so that --help is instant."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from sr3eval import console
from sr3eval.errors import number


@click.group(cls=console.Group)
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

    Ctrl-C and SIGTERM save the state after the step in hand; SIGTERM then ends with exit code 0.
    """
    from sr3eval.config import from_dict, read_toml
    from sr3eval.diffusion.train import train as run
    from sr3eval.diffusion.train_config import TrainConfig

    out = out or Path("runs/train") / config.stem
    settings = from_dict(TrainConfig, read_toml(config, overrides))
    ended = f"trained to step {settings.optimiser.steps}"
    with (
        console.progress(f"train {settings.model}", settings.optimiser.steps) as bar,
        terminations() as terminated,
        closing(console.interruptible(run(settings, out))) as events,
    ):
        for event in events:
            bar.update(event.step - bar.n)
            if event.logged:
                bar.set_postfix({k: f"{v:.4g}" for k, v in event.logged.items() if k in ("loss", "psnr")})
            if terminated() and event.step < event.steps:
                ended = f"stopped at step {event.step}; the same command resumes"
                break
    click.echo(f"{out}: {ended}")


@contextmanager
def terminations() -> Iterator[Callable[[], bool]]:
    """Give what says whether a SIGTERM has come, as schedulers send it before they kill."""
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


@main.command()
@click.option("--checkpoint", required=True, help="A model.safetensors of `sr3eval train`, SR3 or Regression.")
@click.option("--steps", default=100, show_default=True, help="Refinement steps (SR3).")
@click.option(
    "--solver",
    type=click.Choice(["ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]),
    default="ancestral",
    show_default=True,
)
@click.option("--eta", type=float, help="How much noise ddim and dpmpp_2m_sde add, from 0 to 1; by default 0 and 1.")
@click.option("--variance", type=click.Choice(["beta", "posterior"]), default="beta", show_default=True)
@click.option("--clip/--no-clip", default=False, show_default=True, help="Clamp the estimate of y_0 at every step.")
@click.option("--spacing", type=click.Choice(["log_snr", "linear"]), default="log_snr", show_default=True)
@click.option("--first-beta", default=1e-4, show_default=True, help="1 - gamma of the last noise level to be removed.")
@click.option("--jump", type=float, help="Log SNR that the first step goes to (SR3).")
@click.option("--samples", default=1, show_default=True, help="Samples an image, each from its own seed (SR3).")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.argument("images", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def sample(images: Path, out: Path, **options: Any) -> None:
    """Upscale every image below the folder IN into OUT; run it again to resume after an interruption."""
    from sr3eval.diffusion.sample_folder import SampleConfig, sample_folder
    from sr3eval.diffusion.solvers import SamplerConfig

    sampler = SamplerConfig(**{field.name: options.pop(field.name) for field in fields(SamplerConfig)})
    settings = SampleConfig(sampler=sampler, **options)
    with console.progress("sample") as bar, console.interrupts() as stop:

        def tell(done: float, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            stop()

        count = sample_folder(settings, images, out, tell)
    click.echo(f"{out}: {count} images")


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the images.")
@click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Make part I of N, say one a GPU.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def cascade(config: Path, out: Path, shard: str, overrides: tuple[str, ...]) -> None:
    """Make the images that CONFIG describes from noise: a generator, and SR3 models behind it.

    Run it again to resume after an interruption. Shards may run at the same time, into the same folder or not.
    """
    from sr3eval.config import from_dict, read_toml
    from sr3eval.diffusion.cascade_folder import CascadeConfig, CascadeFolder, Shard

    part = Shard.parse(shard)
    folder = CascadeFolder(from_dict(CascadeConfig, read_toml(config, overrides)), out)
    for remark in folder.remarks:
        click.echo(remark, err=True)
    with console.progress("cascade") as bar, console.interrupts() as stop:

        def tell(done: float, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            stop()

        count = folder.write(part, tell)
    click.echo(f"{out}: {number(count, 'image')}")


if __name__ == "__main__":
    main()
