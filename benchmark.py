"""Score super-resolution methods: `python benchmark.py run CONFIG --out RUN`. The one file that joins the packages.

Its other commands are in sr3eval/commands.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sr3eval.commands import FOLDER, figure, main

if TYPE_CHECKING:
    from pandas import DataFrame


@main.command("table")
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder for results.{csv,json,md,tex}, and a single run's report.html.")
@click.option(
    "--responses",
    multiple=True,
    type=FOLDER,
    help="responses.csv of a study: adds fool rates, exclusions.csv and methods.txt.",
)
@click.option(
    "--compare",
    metavar="WHAT",
    help='With "paper", or "paper:table_2": what SR3\'s authors printed; with a CSV of published values (method, '
    "metric, value, source, dataset); or with an earlier RUN: differences, tested in pairs.",
)
def table_(runs: tuple[Path, ...], out: Path | None, responses: tuple[Path, ...], compare: str | None) -> None:
    """Make the table of one or several finished RUNS, or bundles of them, from their files alone.

    Runs of other images are columns.
    """
    from sr3eval.benchmark import bundle, comparison

    if compare is not None and Path(compare).is_dir():
        if len(runs) != 1 or out or responses:
            raise click.UsageError("--compare RUN takes one other RUN and no other option")
        before_after = (Path(compare), runs[0])
        click.echo(comparison.markdown(comparison.compare(*before_after), before_after))
        return
    with ExitStack() as stack:
        folders = [stack.enter_context(bundle.opened(run)) for run in runs]
        click.echo(_table(folders, out, responses, compare, reported=len(runs) == 1 and not bundle.is_bundle(runs[0])))


def _table(
    runs: Sequence[Path], out: Path | None, responses: Sequence[Path], compare: str | None, reported: bool
) -> str:
    """The table in Markdown; its files are written to `out`, with a report if `reported`."""
    from sr3eval.benchmark import summary, table
    from sr3eval.benchmark.published import with_published
    from sr3eval.benchmark.scores import read_runs
    from sr3eval.files import atomic_write

    scores, conventions = read_runs(runs)
    results = summary.summarise(scores, conventions)
    study = {}
    if responses:
        results, study = with_fool_rates(results, runs, responses)
    if compare is not None:
        results = with_published(results, compare)
        if not (results["source"] != "").any():
            click.echo(f"{compare}: has no value of the metrics of {', '.join(map(str, runs))}", err=True)
    if out is not None:
        write(results, runs, out, reported)
        for name, text in study.items():
            atomic_write(out / name, text.encode())
    return table.markdown(results)


def write(results: "DataFrame", runs: Sequence[Path], out: Path, reported: bool) -> None:
    """The files of a table, as the first run's config wants them; the report, too, if `reported`."""
    from sr3eval.benchmark import card, report, table
    from sr3eval.benchmark.scores import read_config, read_run

    config = read_config(runs[0])
    table.write(results, out, config.table)
    card.write(results, runs, out)
    if reported:
        report.write(runs[0], config, results, read_run(runs[0]), out)


def with_fool_rates(
    results: "DataFrame", runs: Sequence[Path], responses: Sequence[Path]
) -> tuple["DataFrame", dict[str, str]]:
    """The results and the fool rates of their methods, by study, task and viewing time, and what belongs beside them.

    Answers to samples that were shown as models, "sr3@2", are answers to the method. What counts is decided by
    analysis' rules. Of the files, by name: the log of exclusions, a methods section's text.
    """
    from analysis.comparisons import compare
    from analysis.exclusions import exclude, exclusion_note
    from analysis.methods import methods_text, viewing
    from analysis.seeds import of_samples
    from analysis.summary import PRIMARY, study_results
    from analysis.tables import check_names, judgements, load, load_scores, with_groups
    from sr3eval.benchmark.fool_rates import (
        CONDITION,
        add_fool_rates,
        refuse_other_images,
        refuse_other_pictures,
        samples_remark,
    )
    from sr3eval.benchmark.layout import RunFolder

    with one_line_errors():
        methods = list(dict.fromkeys(results["method"]))
        given = of_samples(load(responses), methods)
        check_names(given.loc[given["kind"] == "test", "model"], methods, "model")
        refuse_other_images(given, runs)
        refuse_other_pictures(given, runs)
        if "group" not in given:
            given = with_groups(given, load_scores([RunFolder(run).per_image for run in runs]))
        rates, log = study_results(given, by=[*CONDITION, "model"])
        counted, _ = exclude(given)
        comparisons = compare(counted, family=CONDITION)
        rates = rates[rates["analysis"] == PRIMARY]
        remarks = {
            condition: f"all test trials {viewing(part)}; {exclusion_note(part, counted, log)}{samples_remark(part)}"
            for condition, part in judgements(given).groupby(CONDITION)
        }
        files = {"exclusions.csv": log.to_csv(index=False, lineterminator="\n"), "methods.txt": methods_text(given)}
        return add_fool_rates(results, rates, comparisons, remarks), files


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Those of `analysis` as the toolkit's own."""
    from analysis.errors import DataError
    from sr3eval.errors import UserError

    try:
        yield
    except DataError as error:
        raise UserError(str(error)) from None


RESPONSES = click.option(
    "--responses", multiple=True, required=True, type=FOLDER, help="responses.csv of a study; may be repeated."
)
DRAWING = click.option("--out", required=True, type=FOLDER, help="The .pdf, .svg or .png to write.")


@figure.command()
@click.argument("run", type=FOLDER)
@click.option("--metric", required=True, metavar="NAME", help="Of results.csv, or as the table prints it.")
@DRAWING
def steps(run: Path, metric: str, out: Path) -> None:
    """A metric against the number of refinement steps, of the methods of RUN that say theirs."""
    from analysis import figures
    from sr3eval.benchmark.steps import against_steps

    with one_line_errors():
        figures.save(figures.fid_against_steps(*against_steps(run, metric)), out)
    click.echo(out)


@figure.command()
@RESPONSES
@DRAWING
def fool_rates(responses: tuple[Path, ...], out: Path) -> None:
    """Fool rates with intervals, a panel a task, of the answers that the rules leave."""
    from analysis import figures, tables
    from analysis.exclusions import exclude
    from analysis.fool_rate import fool_rates as rates_of

    with one_line_errors():
        counted, _ = exclude(tables.load(responses))
        width = figures.DOUBLE if counted["task"].nunique() > 1 else figures.SINGLE
        figures.save(figures.fool_rates(rates_of(counted), width=width), out)
    click.echo(out)


@figure.command()
@click.argument("run", type=FOLDER)
@RESPONSES
@click.option("--method", required=True, metavar="NAME", help="Whose pictures.")
@click.option("--task", type=click.IntRange(1, 2), default=1, show_default=True)
@click.option("--count", type=click.IntRange(1), default=2, show_default=True, help="Of pictures at each end.")
@DRAWING
def extremes(run: Path, responses: tuple[Path, ...], method: str, task: int, count: int, out: Path) -> None:
    """The pictures of a method of RUN that fooled people least and most, above their originals."""
    from analysis import figures, tables
    from analysis.exclusions import exclude
    from analysis.image_rates import extremes as ends_of
    from analysis.image_rates import image_rates
    from sr3eval.benchmark.config import RunConfig
    from sr3eval.benchmark.figure import folders_of_methods
    from sr3eval.benchmark.layout import HR, RunFolder
    from sr3eval.config import read_toml

    folder = RunFolder(run)
    slug = folders_of_methods(RunConfig.parse(read_toml(folder.config)), [method])[method]
    with one_line_errors():
        counted, _ = exclude(tables.load(responses))
        judged = counted[(counted["model"] == method) & (counted["task"] == task)]
        drawn = figures.per_image_extremes(
            ends_of(image_rates(judged), count),
            pictures=lambda _, image_id: folder.image(slug, image_id),
            originals=lambda _, image_id: folder.image(HR, image_id),
        )
        figures.save(drawn, out)
    click.echo(out)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--smoke", is_flag=True, help="In small, on embedded data; studies with simulated answers.")
def paper(names: tuple[str, ...], smoke: bool) -> None:
    """List the tables and figures of SR3's paper, each with its command and what it needs; or make those of NAMES.

    What was made is kept in runs/paper: the same command resumes.
    """
    from analysis import simulation
    from sr3eval import cli
    from sr3eval import paper as papers

    if smoke and not names:
        raise click.UsageError("--smoke needs the NAMES of tables and figures")
    programs = {"benchmark.py": main, "sr3eval": cli.main, "analysis.simulation": simulation.main}
    for line in papers.make(names, smoke, programs) if names else papers.listing():
        click.echo(line)


if __name__ == "__main__":
    main()
