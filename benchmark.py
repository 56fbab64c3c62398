"""Score super-resolution methods: `python benchmark.py run CONFIG --out RUN`. The one file that joins the packages.

Its other commands are in sr3eval/commands.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sr3eval.commands import FOLDER, main

if TYPE_CHECKING:
    from pandas import DataFrame


@main.command("table")
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder for results.{csv,json,md,tex}, and a single run's report.html.")
@click.option("--responses", multiple=True, type=FOLDER, help="responses.csv of a study: adds fool rates.")
@click.option("--against", type=FOLDER, help="CSV of published values: method, metric, value, source, dataset.")
@click.option("--compare", is_flag=True, help="How the second of two runs differs from the first, tested in pairs.")
def table_(
    runs: tuple[Path, ...], out: Path | None, responses: tuple[Path, ...], against: Path | None, compare: bool
) -> None:
    """Make the table of one or several finished RUNS from their files alone; runs of other images are columns."""
    from sr3eval.benchmark import comparison, summary, table
    from sr3eval.benchmark.published import with_published
    from sr3eval.benchmark.scores import read_runs

    if compare:
        if len(runs) != 2 or out or responses or against:
            raise click.UsageError("--compare takes two RUNS and no other option")
        click.echo(comparison.markdown(comparison.compare(*runs), runs))
        return
    scores, conventions = read_runs(runs)
    results = summary.summarise(scores, conventions)
    results = with_fool_rates(results, runs, responses) if responses else results
    results = with_published(results, against) if against else results
    if out is not None:
        write(results, runs, out)
    click.echo(table.markdown(results))


def write(results: "DataFrame", runs: Sequence[Path], out: Path) -> None:
    """The files of a table, as the first run's config wants them; of a single run the report, too."""
    from sr3eval.benchmark import report, table
    from sr3eval.benchmark.scores import read_config, read_run

    config = read_config(runs[0])
    table.write(results, out, config.table)
    if len(runs) == 1:
        report.write(runs[0], config, results, read_run(runs[0]), out)


def with_fool_rates(results: "DataFrame", runs: Sequence[Path], responses: Sequence[Path]) -> "DataFrame":
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


if __name__ == "__main__":
    main()
