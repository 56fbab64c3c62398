"""From one TOML to scored images, tables and a report: `run(config, out)` does what `benchmark.py run` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sr3eval.benchmark import card, generated, report, table
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.generated import GeneratedPlan
from sr3eval.benchmark.make import make
from sr3eval.benchmark.plan import Plan
from sr3eval.benchmark.plan import plan as plan_data
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.benchmark.score import score
from sr3eval.benchmark.scores import read_run
from sr3eval.benchmark.summary import summarise
from sr3eval.config import read_toml
from sr3eval.distributed import job
from sr3eval.files import held


def run(
    config: RunConfig | Mapping[str, Any] | str | Path,
    out: str | Path,
    cache: str | Path | None = None,
    tell: Tell = silent,
) -> pd.DataFrame:
    """Make and score the images that `config` describes, in the folder `out`; resumes what was begun there.

    Several processes of one job (`torchrun`, `accelerate launch`) that call it share the work.

    Args:
        config: a RunConfig, a dict of what its TOML would hold, or the path of a TOML.
        out: the run's folder, with everything that belongs to a run when this returns.
        cache: folder of outputs shared by runs; by default OUT/../.cache.
        tell: is told (stage, done, total) after every step, see `progress.Tell`; every process its own.

    Returns:
        The table of results.csv, with a row for each task, data set, metric and method.

    Raises:
        UserError: for what the user can mend, before any work where that can be told.
    """
    if isinstance(config, str | Path):
        config = read_toml(Path(config))
    if isinstance(config, Mapping):
        config = RunConfig.parse(config)
    out = Path(out)
    with job().lead_in(held(out)):
        return finish(plan(config, out, Path(cache or out.parent / ".cache")), tell)


def plan(config: RunConfig, out: Path, cache: Path) -> Plan:
    """Check everything that can be checked, and take the folder `out`; see `plan.plan`."""
    return (plan_data if config.generated is None else generated.plan)(config, out, cache)


def finish(planned: Plan, tell: Tell = silent) -> pd.DataFrame:
    """Do the work that `plan` has checked."""
    if isinstance(planned, GeneratedPlan):
        generated.score(planned, tell)
    else:
        make(planned, tell)
        score(planned, tell)
    return job().lead(lambda: _write_results(planned))


def _write_results(planned: Plan) -> pd.DataFrame:
    """The table, its card and the report."""
    scores = read_run(planned.folder.path)
    results = summarise(scores, {metric.name: metric.convention for metric in planned.metrics()})
    folder = planned.folder.path
    table.write(results, folder, planned.config.table)
    card.write(results, [folder], folder)
    report.write(folder, planned.config, results, scores, folder)
    return results
