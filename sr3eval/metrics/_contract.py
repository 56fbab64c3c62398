"""What a metric is: its convention, the batches it gets, the result it gives; and metrics of single images."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sr3eval.errors import UserError, number
from sr3eval.folders import stable_hash
from sr3eval.images import OVERSHOOT

BLOCKS = 20  # of images, each left out in turn by the jackknife of set metrics


def block_of(group: str) -> str:
    """The jackknife block of a group of images (or of an image on its own), by hash."""
    return f"{stable_hash('block', group) % BLOCKS:02d}"


@dataclass(frozen=True)
class Convention:
    """What a metric's numbers are, and what it needs to give them.

    Attributes:
        name: its id in files and tables; metrics of other options have other ids.
        label: as papers print it.
        higher_is_better: or lower.
        settings: the conventions behind the number, printed beside it.
        variant: what tells it from others of that label, where they stand in one table ("Y, border 4").
        unit: of the values ("dB").
        decimals: in tables.
        version: changes when the numbers change, by our code or by the package behind it.
        ceiling: what a score counts for at most in means and tests.
        needs_hr, needs_lr, needs_labels, needs_samples: what of a batch it cannot do without.
        side: of the only outputs that it takes, in pixels; None for any.
        sample: what a result's n counts.
    """

    name: str
    label: str
    higher_is_better: bool
    settings: str
    variant: str = ""
    unit: str = ""
    decimals: int = 3
    version: str = "1"
    ceiling: float = math.inf
    needs_hr: bool = True
    needs_lr: bool = False
    needs_labels: bool = False
    needs_samples: bool = False
    side: int | None = None
    sample: str = "image"

    def check(self, hr: bool, lr: bool, labels: bool, samples: bool = True) -> None:
        """Raise UserError that says what of a run's or a batch's parts is missing."""
        if self.needs_hr and not hr:
            raise UserError(
                f"{self.name}: needs HR images; this run has none: remove it, or choose a no-reference metric such as "
                'brisque, or fid with reference = "FILE.npz"'
            )
        if self.needs_lr and not lr:
            raise UserError(f"{self.name}: needs LR images; this run has none: remove it")
        if self.needs_labels and not labels:
            raise UserError(
                f'{self.name}: needs the classes of the images: data.labels = "folders" or a CSV file; '
                "without them, top1_agreement_resnet50 compares with the prediction on HR"
            )
        if self.needs_samples and not samples:
            raise UserError(
                f"{self.name}: compares several samples of an input; add samples = 8 to a [[method]] that draws noise"
            )


@dataclass(frozen=True)
class Batch:
    """Images of one size to be scored.

    Attributes:
        ids: one an image.
        sr: outputs, [N, 3, H, W], float in [0, 1].
        hr: their references, of the same shape; None in a run without.
        lr: their inputs, [N, 3, h, w].
        labels: the class of every image, where the run knows it.
        blocks: the jackknife block of every image; by default that of its id.
        samples: of methods that made K >= 2 outputs of each input, all of them, [K, N, 3, H, W]; the first is `sr`.
        scores: of this batch by metrics that composites share, filled in by `PerImage.scores`.

    Raises:
        UserError: shapes and lengths that do not fit, an id that occurs twice, pixels that are not finite or not in
            [0, 1].
    """

    ids: Sequence[str]
    sr: Tensor
    hr: Tensor | None = None
    lr: Tensor | None = None
    labels: Sequence[int] | None = None
    blocks: Sequence[str] = ()
    samples: Tensor | None = None
    scores: dict[Convention, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        n = len(self.ids)
        given = {name: t for name in ("sr", "hr", "lr") if (t := getattr(self, name)) is not None}
        fits = all(t.ndim == 4 and t.shape[:2] == (n, 3) for t in given.values())
        if not fits or (self.hr is not None and self.hr.shape != self.sr.shape):
            shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in given.items())
            raise UserError(f"{number(n, 'image')}: {shapes}; expected sr and hr [N, 3, H, W], and lr [N, 3, h, w]")
        if self.samples is not None and (len(self.samples) < 2 or self.samples.shape[1:] != self.sr.shape):
            raise UserError(
                f"samples {tuple(self.samples.shape)} of sr {tuple(self.sr.shape)}; expected [K, *sr], K >= 2"
            )
        for what, images in (("output", self.sr), ("HR image", self.hr), *(("sample", s) for s in self._all_samples())):
            if images is not None:
                _check_pixels(self.ids, what, images)
        refuse_twice("batch", set(), self.ids)
        if not self.blocks:
            object.__setattr__(self, "blocks", [block_of(image_id) for image_id in self.ids])
        if len(self.blocks) != n or (self.labels is not None and len(self.labels) != n):
            raise UserError(f"{number(n, 'image')}, but {len(self.blocks)} blocks and {len(self.labels or [])} labels")

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """(sr, hr), for metrics that need HR."""
        assert self.hr is not None  # `Convention.check` has seen to it
        return self.sr, self.hr

    def _all_samples(self) -> Sequence[Tensor]:
        return () if self.samples is None else tuple(self.samples)

    @cached_property
    def by_sample(self) -> "tuple[Batch, ...]":
        """A batch for each sample, as if it were the only output."""
        return tuple(replace(self, sr=sample, samples=None) for sample in self._all_samples())

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the outputs."""
        return self.sr.shape[-2], self.sr.shape[-1]


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
    """A number and how many samples (see `Convention.sample`) it is from."""

    value: float
    n: int


@dataclass(frozen=True)
class Result:
    """A metric's value over all images.

    Attributes:
        value: mean over images, or that of the whole set.
        n: how many samples (see `Convention.sample`) it is from.
        per_image: its values by image id, for metrics that are a mean.
        without: for metrics of a whole set, the value when a block of images is left out, by block; the jackknife
            makes intervals of them.
        samples: of the best of several samples, the scores of all of them, by image id.
    """

    value: float
    n: int
    per_image: dict[str, float] = field(default_factory=dict)
    without: dict[str, Estimate] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """Accumulates batches; shards of one run merge into what a single pass would have given.

    Attributes:
        convention: what its numbers are.
        state: all that `update` adds up; it can be pickled, so that processes can exchange it.
    """

    convention: Convention
    state: Any

    @property
    def name(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def check(self, n: int, labelled: bool, hr: bool = True, sizes: Collection[tuple[int, int]] = ()) -> None:
        """Called before work: raise UserError if a run cannot be scored.

        Args:
            n: how many images it has.
            labelled, hr: whether there are labels and HR.
            sizes: (H, W) of its outputs.
        """

    def update(self, batch: Batch) -> None:
        """Add a batch; UserError for an image that was scored before."""

    def merge(self, other: Self) -> None:
        """Add the images of another shard of the same run."""

    def compute(self) -> Result:
        """The result of all images so far; UserError for none."""

    def fresh(self) -> Self:
        """An empty metric of the same settings for another method; it shares what does not depend on the method."""


class Named:
    """The names of a metric that its convention holds."""

    convention: Convention

    @property
    def name(self) -> str:
        return self.convention.name

    @property
    def higher_is_better(self) -> bool:
        return self.convention.higher_is_better


class PerImage(Named):
    """A Metric from a function that gives one score an image; its value is their mean.

    Scores above the convention's ceiling (PSNR of identical images is infinite) count as that; `per_image` has them as
    they are. Other scores that are not finite are left out of the mean.

    Args:
        convention: what the numbers are.
        score: of a batch, [N].
    """

    def __init__(self, convention: Convention, score: Callable[[Batch], Tensor]) -> None:
        self.convention, self.score = convention, score
        self.state: dict[str, Any] = {}  # by image id, what `scores` has of it

    def check(self, n: int, labelled: bool, hr: bool = True, sizes: Collection[tuple[int, int]] = ()) -> None:
        """Refuse a run without the HR images or labels that the score needs, and sizes that it does not take."""
        self.convention.check(hr=hr, lr=True, labels=labelled)
        side = self.convention.side
        other = [size for size in sizes if side is not None and size != (side, side)]
        if other:
            raise UserError(
                f"{self.name}: takes outputs of {side}x{side} pixels, not {other[0][1]}x{other[0][0]}: use the task "
                "imagenet_56_224"
            )

    def fresh(self) -> "PerImage":
        """The same metric without scores."""
        return PerImage(self.convention, self.score)

    def scores(self, batch: Batch) -> Tensor:
        """The images' scores, [N]; of one batch they are computed once, however many composites ask for them."""
        if self.convention not in batch.scores:
            given = {name: getattr(batch, name) is not None for name in ("hr", "lr", "labels", "samples")}
            self.convention.check(**given)
            batch.scores[self.convention] = self.score(batch)
        return batch.scores[self.convention]

    def update(self, batch: Batch) -> None:
        """Add a batch. Raises UserError for an image that was scored before."""
        self._add(dict(zip(batch.ids, self.scores(batch).tolist(), strict=True)))

    def merge(self, other: Self) -> None:
        """Add the scores of another shard."""
        self._add(other.state)

    def _add(self, scores: dict[str, Any]) -> None:
        refuse_twice(self.name, self.state.keys(), scores.keys())
        self.state |= scores

    def compute(self) -> Result:
        """Mean over images, exact whatever their order. Raises UserError when there are none."""
        if not self.state:
            raise UserError(f"{self.name}: no images to score")
        capped = [min(value, self.convention.ceiling) for value in self.state.values()]
        finite = [value for value in capped if math.isfinite(value)]
        value = math.fsum(finite) / len(finite) if finite else math.inf
        return Result(value, len(finite), dict(sorted(self.state.items())))


def composite(convention: Convention, parts: Sequence[PerImage], combine: Callable[..., Tensor]) -> PerImage:
    """A metric of other metrics' scores of an image: combine(scores [N] of each part in order) -> [N].

    It needs what any of its parts needs, and its settings and version hold theirs.
    """
    own = [part.convention for part in parts]
    convention = replace(
        convention,
        settings="; ".join([convention.settings, *(f"{c.label}: {c.settings}" for c in own)]),
        version=", ".join([convention.version, *(f"{c.name} {c.version}" for c in own)]),
        needs_hr=any(c.needs_hr for c in own),
        needs_lr=any(c.needs_lr for c in own),
        needs_labels=any(c.needs_labels for c in own),
        needs_samples=any(c.needs_samples for c in own),
    )
    return PerImage(convention, lambda batch: combine(*(part.scores(batch) for part in parts)))


class _BestOfSamples(PerImage):
    """A PerImage whose scores are [N, K], of K samples."""

    def fresh(self) -> "_BestOfSamples":
        return _BestOfSamples(self.convention, self.score)

    def compute(self) -> Result:
        best = torch.amax if self.higher_is_better else torch.amin
        chosen = PerImage(self.convention, self.score)
        chosen.state = {i: float(best(torch.tensor(of, dtype=torch.float64), 0)) for i, of in self.state.items()}
        return replace(chosen.compute(), samples=dict(sorted(self.state.items())))


def best_of_samples(metric: PerImage) -> PerImage:
    """The metric of each image's best sample by that metric's own word: an oracle, where the metric looks at HR."""

    def scores(batch: Batch) -> Tensor:
        return torch.stack([metric.scores(sample) for sample in batch.by_sample], dim=1)

    return _BestOfSamples(replace(metric.convention, needs_samples=True), scores)


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


def mean_over_seeds(convention: Convention, results: Sequence[Result]) -> Result:
    """The mean of several results of one metric, image by image and block by block, all of the same images."""
    if len(results) == 1:
        return results[0]
    per_image = {i: _mean([r.per_image[i] for r in results], convention.ceiling) for i in results[0].per_image}
    blocks = results[0].without
    without = {b: Estimate(_mean([r.without[b].value for r in results]), blocks[b].n) for b in blocks}
    return Result(_mean([r.value for r in results]), results[0].n, per_image, without)


def _mean(values: Sequence[float], most: float = math.inf) -> float:
    """Of values that count for `most` at most; infinite where all are."""
    return math.fsum(values if min(values) == math.inf else (min(v, most) for v in values)) / len(values)
