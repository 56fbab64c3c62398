"""Score super-resolution methods: `python benchmark.py run CONFIG --out RUN`. The one file that joins the packages.

Its other commands are in sr3eval/commands.py.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sr3eval.commands import FOLDER, main

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
    results = with_published(results, compare) if compare is not None else results
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

    What counts is decided by analysis' rules. Of the files, by name: the log of exclusions, a methods section's text.
    """
    from analysis.comparisons import compare
    from analysis.errors import DataError
    from analysis.exclusions import exclude, exclusion_note
    from analysis.methods import methods_text, viewing
    from analysis.summary import PRIMARY, study_results
    from analysis.tables import judgements, load, load_scores, with_groups
    from sr3eval.benchmark.fool_rates import CONDITION, add_fool_rates, refuse_other_images
    from sr3eval.benchmark.layout import RunFolder
    from sr3eval.errors import UserError

    try:
        given = load(responses, models=list(dict.fromkeys(results["method"])))
        refuse_other_images(given, runs)
        if "group" not in given:
            given = with_groups(given, load_scores([RunFolder(run).per_image for run in runs]))
        rates, log = study_results(given, by=[*CONDITION, "model"])
        counted, _ = exclude(given)
        comparisons = compare(counted, family=CONDITION)
        rates = rates[rates["analysis"] == PRIMARY]
        remarks = {
            condition: f"all test trials {viewing(part)}; {exclusion_note(part, counted, log)}"
            for condition, part in judgements(given).groupby(CONDITION)
        }
        files = {"exclusions.csv": log.to_csv(index=False, lineterminator="\n"), "methods.txt": methods_text(given)}
        return add_fool_rates(results, rates, comparisons, remarks), files
    except DataError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    main()
