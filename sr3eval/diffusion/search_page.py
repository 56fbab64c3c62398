"""search.html and curve.svg: distance against steps, as in the paper's Fig 12, and the samplers behind the curve."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import jinja2

from sr3eval.diffusion.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, limits
from sr3eval.diffusion.schedules import Schedules
from sr3eval.diffusion.search_trial import Trial
from sr3eval.diffusion.solvers import SamplerConfig
from sr3eval.files import atomic_write

FIGURE = "curve.svg"


def write(path: Path, found: Schedules, measured: Sequence[Trial], references: Mapping[str, Trial]) -> None:
    """Write the page, and its curve as a figure beside it.

    Args:
        path: of the page.
        found: what stands beside the checkpoint.
        measured: the winner of each budget, in the order of budgets.
        references: other samplers, by name.
    """
    figure = _template("curve.svg").render(curve(found, measured, references))
    atomic_write(path.with_name(FIGURE), figure.encode())
    rows = [_row(f"{trial.sampler.steps} steps", trial, references) for trial in measured]
    rows += [_row(name, trial, references) for name, trial in references.items()]
    page = _template("search.html").render(
        figure=figure, found=found, rows=rows, references=list(references), names=_names()
    )
    atomic_write(path, page.encode())


def curve(found: Schedules, measured: Sequence[Trial], references: Mapping[str, Trial]) -> dict[str, Any]:
    """What the template of the figure needs."""
    trials = [*measured, *references.values()]
    ends = [end for trial in trials for end in trial.interval()]
    steps = [trial.sampler.steps for trial in trials]
    y = Axis(*limits(ends, log=False), HEIGHT - BOTTOM, TOP)
    x = Axis(*limits(steps, log=True), LEFT, WIDTH - RIGHT, log=True)

    def point(trial: Trial) -> dict[str, float]:
        low, high = trial.interval()
        return {"x": x(trial.sampler.steps), "y": y(trial.distance), "low": y(low), "high": y(high)}

    return {
        "label": found.metric.partition(" (")[0],
        "points": [point(trial) for trial in measured],
        "references": [{"name": name} | point(trial) for name, trial in references.items()],
        "x_ticks": [(x(count), str(count)) for count in sorted(set(steps))],
        "y_ticks": [(y(tick), f"{tick:.4g}") for tick in y.ticks()],
    }


def _row(name: str, trial: Trial, references: Mapping[str, Trial]) -> dict[str, Any]:
    return {
        "name": name,
        "trial": trial,
        "interval": trial.interval(),
        "settings": _settings(trial.sampler),
        "differences": [None if other is trial else trial.worse_than(other) for other in references.values()],
    }


def _names() -> list[str]:
    return [field.name for field in fields(SamplerConfig) if field.name != "steps"]


def _settings(sampler: SamplerConfig) -> list[str]:
    idle = () if sampler.solver == "ancestral" else ("variance",)
    values = [None if name in idle else getattr(sampler, name) for name in _names()]
    return ["" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]


@functools.cache
def _template(name: str) -> jinja2.Template:
    loader = jinja2.PackageLoader("sr3eval.diffusion")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "bottom": BOTTOM}
    return environment.get_template(name)
