"""Metrics. A file of this folder holds one or several: pure functions, and what builds a `Metric` of them.

`build(...)` builds the metric that is named as its file, `build_NAME(...)` the metric NAME; such a file is all that a
new metric takes. An installed package joins in by the entry point group `sr3eval.metrics`, whose values are packages of
such files. Metrics of single images are a `PerImage`, those of whole sets a `SetMetric`.
"""

import functools
import importlib
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sr3eval import discovery
from sr3eval.config import check_call
from sr3eval.errors import UserError, nearest
from sr3eval.metrics._contract import (
    BLOCKS,
    Batch,
    Convention,
    Estimate,
    Metric,
    PerImage,
    Result,
    best_of_samples,
    block_of,
    composite,
    mean_over_seeds,
    merge_processes,
)
from sr3eval.metrics._sets import SetMetric, counting, leave_one_out, shard_of

__all__ = [
    "BLOCKS",
    "Batch",
    "Convention",
    "Estimate",
    "Metric",
    "PerImage",
    "Result",
    "SetMetric",
    "available",
    "best_of_samples",
    "block_of",
    "builder",
    "composite",
    "counting",
    "leave_one_out",
    "load",
    "mean_over_seeds",
    "merge_processes",
    "shard_of",
]


GROUP = "sr3eval.metrics"


def _builders() -> dict[str, tuple[str, str]]:
    """(module, function) by the metric's name, as the files have them; none of ours is imported."""
    others = [importlib.import_module(point.value) for point in entry_points(group=GROUP)]
    places = [(package.__name__, folder) for package in others for folder in package.__path__]
    places += [(__name__, folder) for folder in __path__]
    return {
        name or path.stem: (f"{package}.{path.stem}", f"build_{name}" if name else "build")
        for package, folder in places
        for path in Path(folder).glob("[!_]*.py")
        for name in re.findall(r"^def build(?:_(\w+))?\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def available() -> list[str]:
    """Names of the metrics."""
    return sorted(_builders())


def builder(name: str) -> Callable[..., Metric]:
    """What builds the metric of that name; UserError names the nearest one."""
    builders = _builders()
    if name not in builders:
        raise UserError(f'unknown metric "{name}": {nearest(name, builders)}')
    module, function = builders[name]
    build: Callable[..., Metric] = getattr(importlib.import_module(module), function)
    return build


def described() -> dict[str, str]:
    """What each metric is, in a line."""
    files = _builders()
    return {
        name: discovery.described(functools.partial(builder, name), own=function != "build")
        for name, (_, function) in files.items()
    }


def load(name: str, /, **options: Any) -> Metric:
    """Build a metric, e.g. `load("psnr", channel="y", border=4)`.

    Args:
        name: one of `available()`.
        **options: those of the metric's `build`.

    Raises:
        UserError: an unknown name or option, naming the nearest one, or an option of another type.
    """
    build = builder(name)
    return build(**check_call(build, options, name))
