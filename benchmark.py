"""Score super-resolution methods: `python benchmark.py run CONFIG --out RUN`. The one file that joins the packages."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sr3eval import console

if TYPE_CHECKING:
    from pandas import DataFrame

    from baselines._releases import Release
    from sr3eval.benchmark.statistics import NetworkName
    from sr3eval.features.networks import Resize


@click.group(cls=console.Group)
def main() -> None:
    """Run super-resolution methods on images, score them, and write tables and a report."""


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the run; a started one is resumed."
)
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder of outputs shared by runs; OUT/../.cache by default."
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a key of the config.")
def run(config: Path, out: Path, cache: Path | None, overrides: tuple[str, ...]) -> None:
    """Make and score the images that CONFIG describes; the same command resumes after an interruption.

    Metrics and methods may be added to the config of a run: only what is missing is computed.
    """
    from sr3eval import benchmark
    from sr3eval.benchmark.config import RunConfig
    from sr3eval.benchmark.table import markdown
    from sr3eval.config import read_toml

    planned = benchmark.plan(RunConfig.parse(read_toml(config, overrides)), out, cache or out.parent / ".cache")
    for remark in planned.remarks:
        click.echo(remark, err=True)
    with console.stages() as tell:
        results = benchmark.finish(planned, tell)
    click.echo(markdown(results))
    click.echo(f"{out / 'report.html'}")


@main.command("table")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for results.{csv,md,tex}, and report.html of a single run; only printed by default.",
)
@click.option(
    "--responses", multiple=True, type=click.Path(path_type=Path), help="responses.csv of a study: adds fool rates."
)
def table_(runs: tuple[Path, ...], out: Path | None, responses: tuple[Path, ...]) -> None:
    """Make the table of one or several finished RUNS from their files alone."""
    from sr3eval.benchmark import report, summary, table
    from sr3eval.benchmark.config import RunConfig
    from sr3eval.benchmark.layout import RunFolder
    from sr3eval.benchmark.scores import read_runs
    from sr3eval.config import read_toml

    scores, conventions = read_runs(runs)
    results = summary.summarise(scores, conventions)
    if responses:
        results = with_people(results, runs, responses)
    if out is not None:
        config = RunConfig.parse(read_toml(RunFolder(runs[0]).config))
        table.write(results, out, config.table)
        if len(runs) == 1:
            report.write(runs[0], config, results, scores, out)
    click.echo(table.markdown(results))


def with_people(results: "DataFrame", runs: Sequence[Path], responses: Sequence[Path]) -> "DataFrame":
    """The results and the fool rates of their methods, by viewing time; what counts is decided by analysis' rules."""
    from analysis.comparisons import compare
    from analysis.errors import DataError
    from analysis.exclusions import exclude
    from analysis.summary import PRIMARY, study_results
    from analysis.tables import judgements, load
    from sr3eval.benchmark.fool_rates import CONDITION, add_fool_rates, left_out, refuse_other_images
    from sr3eval.errors import UserError

    try:
        given = load(responses, models=list(dict.fromkeys(results["method"])))
        refuse_other_images(given, runs)
        rates, log = study_results(given, by=[*CONDITION, "model"])
        counted, _ = exclude(given)
        comparisons = compare(counted, family=CONDITION)
        rates = rates[rates["analysis"] == PRIMARY]
        return add_fool_rates(results, rates, comparisons, left_out(judgements(given), counted, log))
    except DataError as error:
        raise UserError(str(error)) from None


@main.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder of the pack.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="A method to show; all by default.")
@click.option("--test", default=100, show_default=True, type=click.IntRange(1), help="Images to judge, at most.")
@click.option("--practice", default=4, show_default=True, type=click.IntRange(0))
@click.option("--catch", default=8, show_default=True, type=click.IntRange(0))
@click.option("--seed", default=0, show_default=True, help="Chooses the images.")
def stimuli(folder: Path, out: Path, methods: tuple[str, ...], test: int, practice: int, catch: int, seed: int) -> None:
    """Pack pictures of a finished RUN for a human study (`flask --app study_app study create PACK`)."""
    from sr3eval.benchmark.stimuli import stimuli as pack

    with console.stages() as tell:
        pack(folder, out, methods, test, practice, catch, seed, tell)
    click.echo(out)


@main.command()
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--task", required=True, help="Task whose HR preparation the images get.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .npz file to write.")
@click.option("--network", type=click.Choice(["inception", "efficientnet_lite0"]), default="inception")
@click.option("--resize", type=click.Choice(["tf1", "pytorch_fid", "clean"]), default="tf1", help="Of inception.")
@click.option("--weights", help="File of inception's weights; downloaded by default.")
@click.option("--batch-size", default=32, show_default=True)
def statistics(
    images: Path, task: str, out: Path, network: "NetworkName", resize: "Resize", weights: str | None, batch_size: int
) -> None:
    """Write feature statistics of the folder IMAGES, for `fid` with reference = "FILE.npz"; resumes if stopped."""
    from sr3eval.benchmark.statistics import load_network
    from sr3eval.benchmark.statistics import statistics as write

    with console.stages() as tell:
        write(images, task, load_network(network, resize, weights), out, batch_size, tell)
    click.echo(out)


@main.command("list")
@click.argument("what", type=click.Choice(["metrics", "methods", "tasks", "protocols"]))
def list_(what: str) -> None:
    """Print the names that a config may use, each with what it is."""
    from sr3eval import methods, metrics, protocols, tasks
    from sr3eval.discovery import described

    if what == "protocols":
        found = {name: protocol.described for name, protocol in protocols.PROTOCOLS.items()}
    elif what == "tasks":
        found = {name: task.described for name, task in tasks.TASKS.items()}
    elif what == "metrics":
        found = {name: described(functools.partial(metrics.builder, name)) for name in metrics.available()}
    else:
        found = {name: described(functools.partial(methods.builder, name)) for name in methods.available()}
    width = max(map(len, found))
    for name, text in sorted(found.items()):
        click.echo(f"{name:{width}}  {text}")


@main.command()
@click.argument("files", nargs=-1)
@click.option(
    "--extract",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the tensors of one .t7 file to this .safetensors file.",
)
def weights(files: tuple[str, ...], extract: Path | None) -> None:
    """List the weights that authors released, and which of them are here; or say what the given FILES are.

    Nothing is downloaded. Here means: in the folder SR3EVAL_WEIGHTS, in torch.hub's cache or in an installed package.
    """
    from baselines._releases import identify, table
    from baselines._torch7 import as_safetensors
    from sr3eval.features.weights import folders
    from sr3eval.files import atomic_write

    if extract is not None:
        if len(files) != 1:
            raise click.UsageError("--extract takes one FILE")
        atomic_write(extract, as_safetensors(files[0]))
        click.echo(extract)
        return
    for file in files:
        click.echo(identify(file, releases()))
    if not files:
        click.echo(table(releases(), folders()))


def releases() -> "list[Release]":
    """Every known file of weights: of the baselines, and of the metrics' networks."""
    from baselines._releases import RELEASES, Release
    from sr3eval.features.networks import INCEPTION, RESNET50
    from sr3eval.metrics.lpips import BACKBONES

    licences = {"github.com": "Apache-2.0 (torch-fidelity)", "download.pytorch.org": "BSD-3-Clause (torchvision)"}
    needed = [
        Release(w.name, w.filename, w.url, licences[w.url.split("/")[2]], sha256=w.sha256_start)
        for w in (INCEPTION, RESNET50, *BACKBONES.values())
    ]
    return [*RELEASES, *needed]


if __name__ == "__main__":
    main()
