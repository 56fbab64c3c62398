"""The commands of `benchmark.py` for results that others are to trust: verify, bundle, leaderboard, export."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from sr3eval import console

FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("given", metavar="RUN_OR_BUNDLE", type=FOLDER)
@click.option("--sample", default=8, show_default=True, type=click.IntRange(1), help="Images to compute again.")
@click.option("--seed", type=int, help="Chooses them; drawn by default.")
@click.option("--inputs", type=FOLDER, help="Your run of the same images, for a bundle without HR and LR.")
def verify(given: Path, sample: int, seed: int | None, inputs: Path | None) -> None:
    """Say whether a finished RUN holds what it says: files, table, and a sample of pictures and scores, made again.

    Exit code 1 at a mismatch. Of a bundle, no Python file that it names is run.
    """
    from sr3eval.benchmark import bundle
    from sr3eval.benchmark.verify import verify as check

    foreign = bundle.is_bundle(given)
    if inputs is not None and not foreign:
        raise click.UsageError("--inputs is for bundles; a run has its own")
    with bundle.opened(given, pictures=True) as folder, console.stages() as tell:
        if inputs is not None:
            bundle.add_inputs(folder, inputs)
        verdict = check(folder, sample, seed, foreign, tell)
    click.echo(verdict)
    if verdict.wrong:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The .zip to write.")
@click.option("--with-inputs", is_flag=True, help="HR and LR too, where their licence lets you pass them on.")
def bundle(folder: Path, out: Path, with_inputs: bool) -> None:
    """Put outputs, scores, versions and checksums of a finished RUN into one zip file, for others' tables.

    Prints the file's sha256; the same run gives the same bytes.
    """
    from sr3eval.benchmark.bundle import write

    click.echo(f"{write(folder, out, with_inputs)}  {out}")


@click.command()
@click.argument("given", metavar="RUN_OR_BUNDLE...", nargs=-1, required=True, type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="The .html to write.")
def leaderboard(given: tuple[Path, ...], out: Path) -> None:
    """Write one page of results of several people, sortable, with intervals and groups that do not differ.

    Runs of other images, or under other conventions, have tables of their own.
    """
    from sr3eval.benchmark import bundle
    from sr3eval.benchmark.leaderboard import write

    with ExitStack() as stack:
        write([stack.enter_context(bundle.opened(each)) for each in given], out)
    click.echo(out)


@click.command()
@click.argument("given", metavar="RUN_OR_BUNDLE", type=FOLDER)
@click.option("--to", required=True, type=click.Choice(["huggingface", "every-eval-ever"]), help="The format.")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="METHOD=OWNER/MODEL",
    help="A method of the run, and its model's name on the Hub; may be repeated.",
)
@click.option(
    "--benchmark", required=True, help="OWNER/DATASET on the Hub, or the name of Every Eval Ever's collection."
)
@click.option("--organization", help="Who evaluated, for Every Eval Ever.")
@click.option(
    "--relationship",
    type=click.Choice(["first_party", "third_party", "collaborative", "other"]),
    default="third_party",
    show_default=True,
    help="Of who evaluated to the models, for Every Eval Ever.",
)
@click.option("--out", required=True, type=FOLDER, help="The folder to write into.")
def export(given: Path, to: str, models: tuple[str, ...], out: Path, **source: Any) -> None:
    """Write results as YAML for the Hugging Face Hub (.eval_results), or as JSON for Every Eval Ever."""
    from sr3eval.benchmark import bundle, exports

    if to == "every-eval-ever" and source["organization"] is None:
        raise click.UsageError("--to every-eval-ever needs --organization")
    named = dict(model.rpartition("=")[::2] for model in models)
    with bundle.opened(given) as folder:
        found = exports.read(folder)
    if to == "huggingface":
        written = exports.hugging_face(found, named, source["benchmark"], out)
    else:
        written = exports.every_eval_ever(found, named, out=out, **source)
    click.echo("\n".join(map(str, written)))
