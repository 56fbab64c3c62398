"""The commands of `benchmark.py` that need no other package. torch is imported inside them: --help is instant."""

from pathlib import Path
from typing import Any

import click

from sr3eval import console, result_commands
from sr3eval.distributed import job
from sr3eval.files import held

FOLDER = click.Path(path_type=Path)


@click.group(cls=console.Group)
def main() -> None:
    """Run super-resolution methods on images, score them, and write tables and a report."""


for command in (result_commands.verify, result_commands.bundle, result_commands.leaderboard, result_commands.export):
    main.add_command(command)


@main.command()
@click.argument("config", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder of the run; one that has been started is resumed.")
@click.option("--cache", type=FOLDER, help="Folder of outputs that runs share; OUT/../.cache by default.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def run(config: Path, out: Path, cache: Path | None, overrides: tuple[str, ...]) -> None:
    """Make and score the images that CONFIG describes; the same command resumes after an interruption.

    Metrics and methods may be added to the config of a run: only what is missing is computed.
    """
    from sr3eval import benchmark
    from sr3eval.benchmark.table import markdown
    from sr3eval.config import read_toml

    settings = benchmark.RunConfig.parse(read_toml(config, overrides))
    with job().lead_in(held(out)):
        planned = benchmark.plan(settings, out, cache or out.parent / ".cache")
        for remark in planned.remarks:
            console.say(remark, err=True)
        with console.stages() as tell:
            results = benchmark.finish(planned, tell)
    console.say(markdown(results, settings.table))
    console.say(f"{out / 'report.html'}")


@main.command()
@click.argument("folder", type=FOLDER)
@click.option("--keep", multiple=True, type=FOLDER, metavar="RUN", help="A run that is still needed; may be repeated.")
@click.option("--prune", is_flag=True, help="Remove what no run to --keep needs, instead of listing it.")
@click.option("--verify", is_flag=True, help="Remove damaged entries first; they are made again when needed.")
def cache(folder: Path, keep: tuple[Path, ...], prune: bool, verify: bool) -> None:
    """Show what the cache FOLDER holds of each method, check it, and remove what no run needs."""
    from sr3eval.benchmark import cache_folder

    if prune and not keep:
        raise click.UsageError("--prune needs --keep RUN for each run you need; to clear a cache, delete its folder")
    cache = cache_folder.opened(folder)
    with console.stages() as tell:
        if verify:
            click.echo(cache_folder.verified(cache, tell))
        going = cache_folder.unneeded(cache, keep, tell) if keep else None
    click.echo(cache_folder.listing(cache, going))
    if prune:
        cache_folder.prune(cache, going or ())
    if going:
        click.echo("Removed." if prune else "None of the kept runs needs these; --prune removes them.")
    elif keep:
        click.echo("The kept runs need every entry.")


@main.command()
@click.argument("config", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder for networks.{csv,md,tex}.")
def networks(config: Path, out: Path | None) -> None:
    """Say how many parameters the U-Nets of CONFIG's tasks have, and how many the paper's."""
    from sr3eval.benchmark import networks
    from sr3eval.config import read_toml

    found = networks.networks(read_toml(config))
    if out is not None:
        networks.write(found, out)
    click.echo(networks.markdown(found), nl=False)


@main.group()
def figure() -> None:
    """Draw figures for a paper, as .png or .pdf."""


@figure.command()
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--image", required=True, help="Id of the image.")
@click.option("--window", required=True, metavar="X,Y,WIDTH[,HEIGHT]", help="The window, in pixels of HR.")
@click.option("--out", required=True, type=FOLDER, help="The .png or .pdf to write.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="A method to show; all by default.")
@click.option("--columns", type=click.IntRange(1), help="Columns of windows; by default as many as make two rows.")
@click.option("--lr", "enlarge_lr", type=click.Choice(["nearest", "bicubic"]), default="nearest", show_default=True)
@click.option("--samples", is_flag=True, help="Show every sample of the methods that have several.")
def window(folder: Path, image: str, window: str, out: Path, methods: tuple[str, ...], **options: Any) -> None:
    """One image of RUN, and the same window of every method, enlarged."""
    from sr3eval.benchmark.figure import Window
    from sr3eval.benchmark.figure import write as draw

    click.echo(draw(folder, image, Window.parse(window), out, methods, **options))


@figure.command()
@click.argument("folders", metavar="FOLDERS", nargs=-1, required=True, type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The .png or .pdf to write.")
@click.option("--image", "images", multiple=True, metavar="ID", help="An image to show; by default chosen by hash.")
@click.option("--rows", default=4, show_default=True, type=click.IntRange(1), help="Of each folder.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="A method to show; all by default.")
@click.option("--lr", "enlarge_lr", type=click.Choice(["nearest", "bicubic"]), default="bicubic", show_default=True)
@click.option("--samples", is_flag=True, help="Show every sample of the methods that have several.")
@click.option("--hr/--no-hr", default=True, show_default=True, help="Whether HR is the last column.")
@click.option("--zoom", type=click.IntRange(2), metavar="N", help="Below each row, the middle N times larger.")
@click.option("--stages", is_flag=True, help="Of cascades: a column for each stage.")
def grid(folders: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Several images of finished runs, a row each and a column a method, or of folders of `sr3eval cascade`."""
    from sr3eval.benchmark.grid import Shown
    from sr3eval.benchmark.grid import write as draw

    click.echo(draw(folders, out, Shown(**options)))


@main.command()
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The new folder of the pack.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="A method to show; all by default.")
@click.option("--test", default=100, show_default=True, type=click.IntRange(1), help="Images to judge, at most.")
@click.option("--practice", default=4, show_default=True, type=click.IntRange(0))
@click.option("--catch", default=8, show_default=True, type=click.IntRange(0))
@click.option("--seed", default=0, show_default=True, help="Seed by which images are chosen.")
@click.option(
    "--samples",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Of methods that have several: NAME, NAME@2 …",
)
def stimuli(folder: Path, out: Path, methods: tuple[str, ...], samples: int, **choice: int) -> None:
    """Pack pictures of a finished RUN for a human study (`flask --app study_app study create PACK`)."""
    from sr3eval.benchmark.stimuli import stimuli as pack

    with console.stages() as tell:
        pack(folder, out, methods, **choice, tell=tell, samples=samples)
    click.echo(out)


@main.command()
@click.argument("images", type=FOLDER)
@click.option("--task", required=True, help="Task by which the images are prepared as HR.")
@click.option("--out", required=True, type=FOLDER, help="The .npz file to write.")
@click.option("--network", "name", type=click.Choice(["inception", "efficientnet_lite0"]), default="inception")
@click.option("--resize", type=click.Choice(["tf1", "pytorch_fid", "clean"]), default="tf1", help="Inception's resize.")
@click.option("--weights", help="File of inception's weights; downloaded by default.")
@click.option("--batch-size", default=32, show_default=True)
def statistics(images: Path, task: str, out: Path, batch_size: int, **network: Any) -> None:
    """Write feature statistics of the folder IMAGES, for `fid` with reference = "FILE.npz"; resumes if stopped."""
    from sr3eval.benchmark.statistics import load_network
    from sr3eval.benchmark.statistics import statistics as write

    with console.stages() as tell:
        write(images, task, load_network(**network), out, batch_size, tell)
    console.say(str(out))


@main.command()
@click.argument("name", metavar="SET")
@click.argument("folder", type=FOLDER)
@click.option("--lr", "lr_folder", type=FOLDER, help="The set's LR images, to be checked too.")
def check(name: str, folder: Path, lr_folder: Path | None) -> None:
    """Say whether FOLDER has the published images of SET (set5, set14, b100, urban100, manga109).

    Bicubic is scored on them as papers do and compared with what they print, so that a wrong set or installation shows.
    """
    from sr3eval.benchmark.check import check as compare

    click.echo("\n".join(compare(name, folder, lr_folder)))


@main.group()
def card() -> None:
    """Set cards: the images of a test set by their hashes, and what made its LR images."""


@card.command("make")
@click.argument("folder", required=False, type=FOLDER)
@click.option("--lr", "lr_folders", multiple=True, type=FOLDER, help="LR images of one scale; may be repeated.")
@click.option("--out", type=FOLDER, help="The .toml file to write; FOLDER.toml by default.")
@click.option("--name", help="Of the set; that of the folder by default.")
@click.option("--licence", default="unknown", help="What the publisher allows.")
@click.option("--source", default="unknown", help="Where the set is published.")
@click.option(
    "--cut",
    "multiple",
    default=1,
    type=click.IntRange(1),
    help="What the HR images' sides have been cut to multiples of.",
)
def make_card(
    folder: Path | None, lr_folders: tuple[Path, ...], out: Path | None, name: str | None, **options: Any
) -> None:
    """Write the card of the HR images in FOLDER and of their LR images; or, without FOLDER, of LR images alone.

    It has the hashes of files and of pixels, the kernel that made the LR images, and Bicubic's scores.
    """
    from sr3eval.benchmark.set_cards.card import text
    from sr3eval.benchmark.set_cards.make import make
    from sr3eval.files import atomic_write

    if folder is None and len(lr_folders) != 1:
        raise click.UsageError("give the FOLDER of HR images, or one --lr FOLDER")
    where = folder or lr_folders[0]
    out = out or where.with_name(f"{where.resolve().name}.toml")
    if out.exists():
        raise click.UsageError(f"{out} already exists; give another --out")
    with console.stages() as tell:
        made = make(name or where.resolve().name, folder, lr_folders, tell=tell, **options)
    atomic_write(out, text(made).encode())
    click.echo(out)


@card.command("check")
@click.argument("folder", required=False, type=FOLDER)
@click.option("--lr", "lr_folders", multiple=True, type=FOLDER, help="LR images of one scale; may be repeated.")
@click.option("--card", "name", help="Name of a card (`list cards`), or its .toml file; by default what fits.")
def check_card(folder: Path | None, lr_folders: tuple[Path, ...], name: str | None) -> None:
    """Say whether FOLDER has the HR images of a card, and --lr its LR images.

    Every image that is missing, additional, altered, shifted or cut by a pixel, or made by another kernel is named.
    """
    from sr3eval.benchmark.set_cards.check import check, chosen

    if folder is None and not lr_folders:
        raise click.UsageError("give the FOLDER of HR images, or --lr FOLDER")
    with console.stages() as tell:
        lines = check(chosen(name, folder or lr_folders[0]), folder, lr_folders, tell)
    click.echo("\n".join(lines))


@main.command()
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option(
    "--published", required=True, metavar="psnr=25.15,ssim=0.7341", help="Published values, with all printed digits."
)
@click.option("--method", metavar="NAME", help="The method; needed if the run has several.")
@click.option("--dataset", metavar="NAME", help="The data set; needed if the run has several.")
def explain(folder: Path, published: str, method: str | None, dataset: str | None) -> None:
    """Find the conventions by which the pictures of RUN have a published PSNR and SSIM.

    Channels, borders, crops, pooling, windows of SSIM and, of bicubic, kernels of the inputs are tried. Exit code 1 if
    none fits.
    """
    from sr3eval.benchmark import explain as search

    with console.stages() as tell:
        found = search.explain(folder, published, method, dataset, tell)
    click.echo(search.summary(found))
    if not found[0].fits:
        raise click.exceptions.Exit(1)


@main.command("list")
@click.argument("what", type=click.Choice(["metrics", "methods", "tasks", "protocols", "cards"]))
@click.argument("name", required=False)
def list_(what: str, name: str | None) -> None:
    """Print the names that a config may use, each with what it is, and the set cards.

    Of one metric or method NAME: its options. Of a card: what is known of the set.
    """
    from sr3eval import methods, metrics, protocols, tasks
    from sr3eval.benchmark.set_cards import card as cards
    from sr3eval.discovery import options_of

    if name is not None and what == "cards":
        click.echo(cards.text(cards.find(name), listings=False))
        return
    if name is not None:
        builders = {"metrics": metrics.builder, "methods": methods.builder}
        if what not in builders:
            raise click.UsageError(f"{what} have no options")
        click.echo(options_of(builders[what](name)))
        return
    found = {
        "metrics": lambda: metrics.described(),
        "methods": lambda: methods.described(),
        "tasks": lambda: {name: task.described for name, task in tasks.TASKS.items()},
        "protocols": lambda: {name: protocol.described for name, protocol in protocols.PROTOCOLS.items()},
        "cards": lambda: {name: cards.read(path).described for name, path in cards.shipped().items()},
    }[what]()
    width = max(map(len, found))
    for name, text in sorted(found.items()):
        click.echo(f"{name:{width}}  {text}")


@main.command()
@click.argument("files", nargs=-1)
def weights(files: tuple[str, ...]) -> None:
    """List the weights that authors released, and which of them are here; or say what the given FILES are.

    Nothing is downloaded. Here means: in the folder SR3EVAL_WEIGHTS, in torch.hub's cache or in an installed package.
    """
    from sr3eval.weights import identify, table

    for text in map(identify, files) if files else [table()]:
        click.echo(text)
