"""Metrics: each a file of this folder with a pure function and `build(...) -> Metric`."""

import importlib
import math
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor

from sr3eval.config import check_call
from sr3eval.errors import UserError, nearest


@dataclass(frozen=True)
class Batch:
    """Images to be scored: lr [N, 3, h, w], hr and sr [N, 3, H, W], float in [0, 1], and one id an image.

    Raises UserError for shapes that do not fit and for outputs that are not finite.
    """

    ids: Sequence[str]
    lr: Tensor
    hr: Tensor
    sr: Tensor
    labels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.sr.shape != self.hr.shape or self.sr.ndim != 4 or self.sr.shape[:2] != (n, 3) or len(self.lr) != n:
            shapes = ", ".join(str(tuple(t.shape)) for t in (self.lr, self.hr, self.sr))
            raise UserError(f"{n} images, but lr, hr and sr are {shapes}: wanted [N, 3, h, w] and twice [N, 3, H, W]")
        finite = self.sr.isfinite().all(dim=3).all(dim=2).all(dim=1)
        if not bool(finite.all()):
            raise UserError(f"{self.ids[int(finite.int().argmin())]}: the output has NaN or infinite pixels")


@dataclass(frozen=True)
class Result:
    """A metric's value over all images and, where it has them, its values by image id."""

    value: float
    per_image: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """Accumulates batches; shards of one run merge into what a single pass would have given."""

    name: str
    higher_is_better: bool
    settings: str  # the conventions behind the number, printed beside it

    def update(self, batch: Batch) -> None: ...

    def merge(self, other: Self) -> None: ...

    def compute(self) -> Result: ...


class PerImage:
    """A Metric from a function that gives one score an image; its value is their mean.

    Infinite scores (PSNR of identical images) stay in `per_image` and out of the mean.
    """

    def __init__(self, name: str, score: Callable[[Batch], Tensor], higher_is_better: bool, settings: str) -> None:
        self.name, self.score, self.higher_is_better, self.settings = name, score, higher_is_better, settings
        self.scores: dict[str, float] = {}

    def update(self, batch: Batch) -> None:
        """Add a batch. Raises UserError for an image that was scored before."""
        values = self.score(batch).tolist()
        self._add(dict(zip(batch.ids, values, strict=True)))

    def merge(self, other: Self) -> None:
        """Add the scores of another shard."""
        self._add(other.scores)

    def _add(self, scores: dict[str, float]) -> None:
        twice = self.scores.keys() & scores.keys()
        if twice:
            raise UserError(f"{self.name}: image {min(twice)} scored twice")
        self.scores |= scores

    def compute(self) -> Result:
        """Mean over images, exact whatever their order. Raises UserError when there are none."""
        if not self.scores:
            raise UserError(f"{self.name}: no images to score")
        finite = [value for value in self.scores.values() if math.isfinite(value)]
        return Result(math.fsum(finite) / len(finite) if finite else math.inf, dict(sorted(self.scores.items())))


def available() -> list[str]:
    """Names of the metrics: the files of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str, **options: Any) -> Metric:
    """Build a metric, e.g. `load("psnr", channel="y", border=4)`. UserError names the nearest name or option."""
    if name not in available():
        raise UserError(f'unknown metric "{name}": {nearest(name, available())}')
    build = importlib.import_module(f"sr3eval.metrics.{name}").build
    metric: Metric = build(**check_call(build, options, name))
    return metric
