"""What a config of `benchmark.py run` needs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sr3eval import metrics
from sr3eval.benchmark.config import DatasetConfig, MethodConfig, RunConfig
from sr3eval.benchmark.layout import RunFolder
from sr3eval.benchmark.plan import RunImage, build, card_of, check_scorable, find, resolved
from sr3eval.doctor.findings import Finding, attempt, missing
from sr3eval.doctor.training import disk
from sr3eval.errors import UserError, number
from sr3eval.pairs import Pair

DOWNLOADING = ("pyiqa",)  # metrics whose packages fetch their weights themselves


def check(data: Mapping[str, Any], out: Path) -> Iterator[Finding]:
    """Config, images of every set, methods, metrics and disk."""
    try:
        config = RunConfig.parse(data)
        config = resolved(config)
    except UserError as error:
        yield missing("config", str(error))
        return
    yield Finding("config", f"run of {number(len(config.method), 'method')}, task {config.task.name}")
    found: list[RunImage] = []
    for dataset in config.data:
        remedy = "put the images there, or change data.images"
        yield attempt("images", lambda dataset=dataset: images(config, dataset, out, found), remedy)  # type: ignore[misc]
    for method in config.method:
        remedy = f'mend that, or leave out the method "{method.name}"'
        yield attempt("method", lambda method=method: method_of(config, method), remedy)  # type: ignore[misc]
    for entry in config.metrics:
        remedy = f'mend that, or leave out the metric "{entry[0]}"'
        yield attempt("metric", lambda entry=entry: metric(config, entry, found), remedy)  # type: ignore[misc]
    if found:
        yield disk(picture_bytes(config, found), out)


def images(config: RunConfig, dataset: DatasetConfig, out: Path, found: list[RunImage]) -> str:
    """How many a set has; they are added to those found so far."""
    part = find(config, dataset, RunFolder(out))
    found += part.images
    card = card_of(part.images)
    asides = [
        *([f"the set card {card}'s"] if card else []),
        *([f"{part.left_out.too_small:,} too small and left out"] if part.left_out.too_small else []),
        *([f"{len(part.left_out.unreadable):,} unreadable"] if part.left_out.unreadable else []),
    ]
    return "; ".join([f"{dataset.where}: {number(len(part.images), 'image')}", *asides])


def method_of(config: RunConfig, method: MethodConfig) -> str:
    """Built, with its weights."""
    build(method, config.task)
    return f"{method.name} ({method.kind})"


def metric(config: RunConfig, entry: tuple[str, dict[str, Any]], found: list[RunImage]) -> str:
    """Tried on a grey image, with its weights, unless it would download them."""
    name, options = entry
    loaded = metrics.load(name, **options)
    if name not in DOWNLOADING:
        check_scorable(replace(config, metrics=(entry,)), found or stand_ins(config))
    return loaded.name


def stand_ins(config: RunConfig) -> list[RunImage]:
    """For images that are not there yet: as many as any metric needs, with labels."""
    size = (config.task.side or 256,) * 2
    return [RunImage(f"{i}", "", Pair(None, None), size, f"{i}", f"{i}", 0) for i in range(10_000)]


def picture_bytes(config: RunConfig, found: list[RunImage]) -> int:
    """Of outputs, uncompressed, which the cache shares by hard links, and of HR."""
    outputs = sum(max(1, len(method.seeds)) * method.samples for method in config.method)
    return (1 + outputs) * sum(3 * math.prod(image.size) for image in found)
