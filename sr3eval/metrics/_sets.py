"""Metrics of a whole set of images: what they add up, block by block, and the jackknife over the blocks."""

import copy
import functools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar

from torch import Tensor

from sr3eval.errors import UserError, number
from sr3eval.metrics._contract import Batch, Convention, Estimate, Metric, Named, Result, refuse_twice


class Summary(Protocol):
    """What a metric keeps of the features of some images; summaries add."""

    @property
    def n(self) -> int:
        """How many images or patches it keeps."""

    def add(self, ids: Sequence[str], features: Any) -> None: ...

    def __add__(self, other: Self) -> Self: ...


S = TypeVar("S", bound=Summary)


class Seen:
    """Features as they are, for a shard: what they are merged into adds them as if it had looked at the images."""

    def __init__(self) -> None:
        self.parts: list[tuple[Sequence[str], Any]] = []

    @property
    def n(self) -> int:
        return sum(len(ids) for ids, _ in self.parts)

    def add(self, ids: Sequence[str], features: Any) -> None:
        self.parts.append((ids, features))

    def __add__(self, other: "Seen") -> "Seen":
        both = Seen()
        both.parts = self.parts + other.parts
        return both


class Counted:
    """How many features there are, which another process adds up."""

    def __init__(self) -> None:
        self.n = 0

    def add(self, ids: Sequence[str], features: Any) -> None:
        self.n += len(ids)

    def __add__(self, other: "Counted") -> "Counted":
        both = Counted()
        both.n = self.n + other.n
        return both


@dataclass
class Pool:
    """A summary for each jackknife block of the images seen so far; their ids, and the (H, W) that occur."""

    ids: set[str] = field(default_factory=set)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    blocks: dict[str, Any] = field(default_factory=dict)

    def add(self, batch: Batch, features: Any, empty: Callable[[], Summary]) -> None:
        """Add a batch whose images were not seen before; features: [N, d], or [N, patches, d]."""
        for block in dict.fromkeys(batch.blocks):
            rows = [row for row, name in enumerate(batch.blocks) if name == block]
            summary = self.blocks.setdefault(block, empty())
            summary.add(*_samples([batch.ids[row] for row in rows], features[rows]))
        self.ids |= set(batch.ids)
        self.sizes.add(batch.size)

    def merge(self, other: "Pool", empty: Callable[[], Summary]) -> None:
        """Add another pool's images."""
        for block, summary in other.blocks.items():
            if isinstance(summary, Seen):
                own = self.blocks.setdefault(block, empty())
                for ids, features in summary.parts:
                    own.add(ids, features)
            else:
                self.blocks[block] = self.blocks[block] + summary if block in self.blocks else summary
        self.ids |= other.ids
        self.sizes |= other.sizes


def _samples(ids: list[str], features: Tensor) -> tuple[list[str], Tensor]:
    """(ids, rows [M, d]): the images themselves, or every patch of each."""
    if features.ndim == 2:
        return ids, features
    return [f"{image_id}#{patch}" for image_id in ids for patch in range(features.shape[1])], features.flatten(0, 1)


@dataclass
class SetState:
    """The outputs' pool and, where the reference is their HR twins, its pool."""

    own: Pool
    reference: Pool


Features = Callable[[Tensor], Tensor]
Value = tuple[float, dict[str, float]]


class SetMetric(Named):
    """A Metric of the features of all outputs, compared with those of a reference set or with none.

    Args:
        convention: what the numbers are.
        features: images [N, 3, H, W] to [N, d], or to [N, patches, d].
        empty: makes the Summary of no images.
        evaluate: (own, reference), summaries by block, to the value and the values without each block; its reference
            is a mapping for HR twins, where the convention needs HR, else `fixed`.
        fixed: the summary of another reference set.
        minimum: of images.
        patches: the side of what features are of, in place of whole images, which networks resize to one size.
    """

    def __init__(
        self,
        convention: Convention,
        features: Features,
        empty: Callable[[], Summary],
        evaluate: Callable[[Mapping[str, Any], Any], Value],
        *,
        fixed: Any = None,
        minimum: int = 2,
        patches: int | None = None,
    ) -> None:
        self.convention = convention
        self.features, self.empty, self.evaluate = features, empty, evaluate
        self.fixed, self.minimum, self.patches = fixed, minimum, patches
        self.state = SetState(Pool(), Pool())
        self.looked_at: Pool | None = None  # of a shard: HR images that need not be looked at again

    def check(self, n: int, labelled: bool, hr: bool = True, sizes: Collection[tuple[int, int]] = ()) -> None:
        """Refuse a run of too few images, without the HR images that it needs, or of sizes that do not go together."""
        self.convention.check(hr=hr, lr=True, labels=labelled)
        self._check_sizes(set(sizes))
        if n < self.minimum:
            raise UserError(f"{self.name}: {number(n, 'image')}; at least {self.minimum} are needed")

    def _check_sizes(self, sizes: set[tuple[int, int]]) -> None:
        if self.patches is None and len(sizes) > 1:
            raise UserError(
                f"{self.name}: images of {len(sizes)} sizes, which its network would distort to one size: choose "
                "square framing, or fid or kid with patches = 256"
            )
        for height, width in sorted(sizes):
            if self.patches is not None and min(height, width) < self.patches:
                side = f"{self.patches}x{self.patches}"
                raise UserError(f"{self.name}: {width}x{height} images are smaller than its patches of {side}")

    def fresh(self) -> "SetMetric":
        """The same metric for other outputs: the reference's pool is shared, so HR images are looked at once."""
        other = copy.copy(self)
        other.state = SetState(Pool(), self.state.reference)
        return other

    def shard(self) -> "SetMetric":
        """An empty metric for some more of the images, to be merged into this one; its state holds nothing else."""
        other = copy.copy(self)
        other.state, other.empty, other.looked_at = SetState(Pool(), Pool()), Seen, self.state.reference
        return other

    def update(self, batch: Batch) -> None:
        """Add a batch. Raises UserError for an image that was scored before."""
        self.convention.check(hr=batch.hr is not None, lr=batch.lr is not None, labels=batch.labels is not None)
        refuse_twice(self.name, self.state.own.ids, set(batch.ids))
        self._check_sizes(self.state.own.sizes | {batch.size})
        self.state.own.add(batch, self.features(batch.sr), self.empty)
        if self.convention.needs_hr and not self._known(set(batch.ids)):
            self.state.reference.add(batch, self.features(batch.pair[1]), self.empty)

    def merge(self, other: Self) -> None:
        """Add another shard's images."""
        refuse_twice(self.name, self.state.own.ids, other.state.own.ids)
        self._check_sizes(self.state.own.sizes | other.state.own.sizes)
        self.state.own.merge(other.state.own, self.empty)
        if not self._known(other.state.reference.ids):
            self.state.reference.merge(other.state.reference, self.empty)

    def _known(self, ids: set[str]) -> bool:
        """Whether the reference holds these images already; UserError when it holds some of them alone."""
        known = (self.looked_at or self.state.reference).ids & ids
        if known and known != ids:
            raise UserError(f"{self.name}: image {min(known)} is in two shards")
        return known == ids

    def compute(self) -> Result:
        """The value and the values without each block. Raises UserError when there are no or too few images."""
        own = self.state.own.blocks
        if not own:
            raise UserError(f"{self.name}: no images to score")
        n = sum(summary.n for summary in own.values())
        self.check(len(self.state.own.ids), labelled=True)
        value, without = self.evaluate(own, self.state.reference.blocks if self.convention.needs_hr else self.fixed)
        estimates = {block: Estimate(v, n - own[block].n) for block, v in sorted(without.items())}
        return Result(value, n, without=estimates)


def counting(metric: Metric) -> Metric:
    """The metric for a process that only looks: its shards have all, and what they are merged into takes no memory."""
    if not isinstance(metric, SetMetric):
        return metric
    other = metric.fresh()
    other.empty = Counted
    return other


def shard_of(metric: Metric) -> Metric:
    """An empty metric for some of the images, to be merged into `metric`: in order, shards give one pass's bytes."""
    return metric.shard() if isinstance(metric, SetMetric) else metric.fresh()


def of_patches(convention: Convention, patches: int | None) -> Convention:
    """The convention of the same metric on patches of that side; itself for whole images."""
    if patches is None:
        return convention
    if patches < 1:
        raise UserError(f"{convention.name}: patches = {patches} is not a valid patch size")
    name, label = f"{convention.name}_p{patches}", f"{convention.label} (patches {patches})"
    return replace(convention, name=name, label=label, sample="patch")


def cut_as(patches: int | None) -> str:
    """How patches are cut, for settings."""
    where = "from the top left without overlap, the rest left out"
    return "" if patches is None else f"; {patches}x{patches} patches {where}"


def total(blocks: Mapping[str, S], left_out: str | None = None) -> S:
    """The sum of the blocks' summaries, in the order of their names, one left out."""
    return functools.reduce(operator.add, [blocks[name] for name in sorted(blocks) if name != left_out])


def leave_one_out(score: Callable[[Any, Any], float], minimum: int) -> Callable[[Mapping[str, Any], Any], Value]:
    """`evaluate` of a SetMetric from score(own, reference) of summed summaries."""

    def evaluate(own: Mapping[str, Any], reference: Any) -> Value:
        def without(block: str | None) -> float:
            ref = total(reference, block) if isinstance(reference, Mapping) else reference
            return score(total(own, block), ref)

        n = sum(summary.n for summary in own.values())
        enough = len(own) > 1 and all(n - summary.n >= minimum for summary in own.values())
        return without(None), {block: without(block) for block in own} if enough else {}

    return evaluate
