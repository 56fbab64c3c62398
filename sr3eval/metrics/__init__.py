"""Metrics: each a file of this folder with a pure function and `build(...) -> Metric`."""

import importlib
import math
import pkgutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sr3eval.arrays import OVERSHOOT
from sr3eval.config import check_call
from sr3eval.data import stable_hash
from sr3eval.errors import UserError, nearest, number

# By metric, what a score counts for at most in means and tests. PSNR: that of an error of half a grey level, the least
# that 8-bit pictures can tell, in dB; identical pictures have it instead of infinity, and none is better than they are.
CEILINGS = {"psnr": -20 * math.log10(0.5 / 255)}
BLOCKS = 20  # of images, each left out in turn by the jackknife of set metrics


def ceiling(metric: str) -> float:
    """What a score of the metric of that id counts for at most in a mean; infinity for most metrics."""
    return CEILINGS.get(metric.partition("_")[0], math.inf)


def block_of(group: str) -> str:
    """The jackknife block of a group of images (or of an image on its own), by hash."""
    return f"{stable_hash('block', group) % BLOCKS:02d}"


@dataclass(frozen=True)
class Batch:
    """Images to be scored: lr [N, 3, h, w], hr and sr [N, 3, H, W], float in [0, 1], and one id an image.

    labels: the class of every image, where the run knows it. blocks: its jackknife block, by default that of its id.
    Raises UserError for shapes and lengths that do not fit, an id that occurs twice, and pixels that are not finite or
    not in [0, 1].
    """

    ids: Sequence[str]
    lr: Tensor
    hr: Tensor
    sr: Tensor
    labels: Sequence[int] | None = None
    blocks: Sequence[str] = ()

    def __post_init__(self) -> None:
        n = len(self.ids)
        shapes = ", ".join(str(tuple(t.shape)) for t in (self.lr, self.hr, self.sr))
        if self.sr.shape != self.hr.shape or any(t.ndim != 4 or t.shape[:2] != (n, 3) for t in (self.lr, self.sr)):
            raise UserError(
                f"{number(n, 'image')}, but lr, hr and sr are {shapes}: wanted [N, 3, h, w] and twice [N, 3, H, W]"
            )
        for what, images in (("output", self.sr), ("HR image", self.hr)):
            _check_pixels(self.ids, what, images)
        refuse_twice("batch", set(), self.ids)
        if not self.blocks:
            object.__setattr__(self, "blocks", [block_of(image_id) for image_id in self.ids])
        if len(self.blocks) != n or (self.labels is not None and len(self.labels) != n):
            raise UserError(f"{number(n, 'image')}, but {len(self.blocks)} blocks and {len(self.labels or [])} labels")


def _check_pixels(ids: Sequence[str], what: str, images: Tensor) -> None:
    """Raise UserError, naming the first image that is not finite or far outside [0, 1]."""
    low, high = images.amin(dim=(1, 2, 3)), images.amax(dim=(1, 2, 3))
    for image_id, smallest, largest in zip(ids, low.tolist(), high.tolist(), strict=True):
        if not math.isfinite(largest - smallest):
            raise UserError(f"{image_id}: the {what} has NaN or infinite pixels")
        if smallest < -OVERSHOOT or largest > 1 + OVERSHOOT:
            raise UserError(f"{image_id}: the {what} has values in [{smallest:.3g}, {largest:.3g}], not in [0, 1]")


@dataclass(frozen=True)
class Estimate:
    """A number and how many images it is from."""

    value: float
    n: int


@dataclass(frozen=True)
class Result:
    """A metric's value over all images.

    per_image: its values by image id, for metrics that are a mean. without: for metrics of a whole set, the value when
    a block of images is left out, by block; the jackknife makes intervals of them.
    """

    value: float
    n: int
    per_image: dict[str, float] = field(default_factory=dict)
    without: dict[str, Estimate] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """Accumulates batches; shards of one run merge into what a single pass would have given."""

    name: str
    higher_is_better: bool
    settings: str  # the conventions behind the number, printed beside it
    state: Any  # all that `update` adds up; can be pickled, so that processes can exchange it

    def check(self, n: int, labelled: bool) -> None:
        """Raise UserError if a run of `n` images, with or without labels, cannot be scored."""

    def update(self, batch: Batch) -> None: ...

    def merge(self, other: Self) -> None: ...

    def compute(self) -> Result: ...

    def fresh(self) -> Self:
        """An empty metric of the same settings for another method; it shares what does not depend on the method."""


class PerImage:
    """A Metric from a function that gives one score an image; its value is their mean.

    Scores above the metric's `ceiling` (PSNR of identical images is infinite) count as that; `per_image` has them as
    they are. Other scores that are not finite are left out of the mean.
    """

    def __init__(
        self,
        name: str,
        score: Callable[[Batch], Tensor],
        higher_is_better: bool,
        settings: str,
        needs_labels: bool = False,
    ) -> None:
        self.name, self.score, self.higher_is_better, self.settings = name, score, higher_is_better, settings
        self.needs_labels = needs_labels
        self.state: dict[str, float] = {}

    def check(self, n: int, labelled: bool) -> None:
        """Refuse a run without the labels that the score needs."""
        if self.needs_labels and not labelled:
            raise UserError(
                f'{self.name}: needs the classes of the images: data.labels = "folders" or a CSV file; '
                "without them, top1_agreement_resnet50 compares with the prediction on HR"
            )

    def fresh(self) -> "PerImage":
        """The same metric without scores."""
        return PerImage(self.name, self.score, self.higher_is_better, self.settings, self.needs_labels)

    def update(self, batch: Batch) -> None:
        """Add a batch. Raises UserError for an image that was scored before."""
        self.check(len(batch.ids), batch.labels is not None)
        values = self.score(batch).tolist()
        self._add(dict(zip(batch.ids, values, strict=True)))

    def merge(self, other: Self) -> None:
        """Add the scores of another shard."""
        self._add(other.state)

    def _add(self, scores: dict[str, float]) -> None:
        refuse_twice(self.name, self.state.keys(), scores.keys())
        self.state |= scores

    def compute(self) -> Result:
        """Mean over images, exact whatever their order. Raises UserError when there are none."""
        if not self.state:
            raise UserError(f"{self.name}: no images to score")
        capped = [min(value, ceiling(self.name)) for value in self.state.values()]
        finite = [value for value in capped if math.isfinite(value)]
        value = math.fsum(finite) / len(finite) if finite else math.inf
        return Result(value, len(finite), dict(sorted(self.state.items())))


def refuse_twice(name: str, known: Set[str], new: Collection[str]) -> None:
    """Raise UserError naming an image id that is in both, or twice in `new`."""
    twice = known & set(new) or {image_id for image_id, times in Counter(new).items() if times > 1}
    if twice:
        raise UserError(f"{name}: image {min(twice)} scored twice")


def merge_processes(metric: Metric) -> None:
    """Give `metric` the images of all processes of torch.distributed's group; every process must call it."""
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, metric.state)
    total = metric.fresh()
    for state in states:
        shard = metric.fresh()
        shard.state = state
        total.merge(shard)
    metric.state = total.state


def available() -> list[str]:
    """Names of the metrics: the files of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def builder(name: str) -> Callable[..., Metric]:
    """The `build(...) -> Metric` of a metric; UserError names the nearest one."""
    if name not in available():
        raise UserError(f'unknown metric "{name}": {nearest(name, available())}')
    build: Callable[..., Metric] = importlib.import_module(f"sr3eval.metrics.{name}").build
    return build


def load(name: str, **options: Any) -> Metric:
    """Build a metric, e.g. `load("psnr", channel="y", border=4)`. UserError names the nearest name or option."""
    build = builder(name)
    return build(**check_call(build, options, name))


def mean_over_seeds(metric: str, results: Sequence[Result]) -> Result:
    """The mean of several results of one metric, image by image and block by block, all of the same images."""
    if len(results) == 1:
        return results[0]
    per_image = {i: _mean([r.per_image[i] for r in results], ceiling(metric)) for i in results[0].per_image}
    blocks = results[0].without
    without = {b: Estimate(_mean([r.without[b].value for r in results]), blocks[b].n) for b in blocks}
    return Result(_mean([r.value for r in results]), results[0].n, per_image, without)


def _mean(values: Sequence[float], most: float = math.inf) -> float:
    """Of values that count for `most` at most; infinite where all are."""
    return math.fsum(values if min(values) == math.inf else (min(v, most) for v in values)) / len(values)
