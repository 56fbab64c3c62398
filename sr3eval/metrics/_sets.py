"""Metrics of a whole set of images: what they add up, block by block, and the jackknife over the blocks."""

import copy
import functools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

from torch import Tensor

from sr3eval.errors import UserError, number
from sr3eval.metrics._contract import Batch, Convention, Estimate, Named, Result, refuse_twice


class Summary(Protocol):
    """What a metric keeps of the features of some images; summaries add."""

    @property
    def n(self) -> int:
        """How many images it keeps."""

    def add(self, ids: Sequence[str], features: Any) -> None: ...

    def __add__(self, other: Self) -> Self: ...


S = TypeVar("S", bound=Summary)


@dataclass
class Pool:
    """A summary for each jackknife block of the images seen so far."""

    ids: set[str] = field(default_factory=set)
    blocks: dict[str, Any] = field(default_factory=dict)

    def add(self, batch: Batch, features: Any, empty: Callable[[], Summary]) -> None:
        """Add a batch whose images were not seen before; features: [N, ...] Tensor."""
        for block in dict.fromkeys(batch.blocks):
            rows = [row for row, name in enumerate(batch.blocks) if name == block]
            summary = self.blocks.setdefault(block, empty())
            summary.add([batch.ids[row] for row in rows], features[rows])
        self.ids |= set(batch.ids)

    def merge(self, other: "Pool") -> None:
        """Add another pool's images."""
        for block, summary in other.blocks.items():
            self.blocks[block] = self.blocks[block] + summary if block in self.blocks else summary
        self.ids |= other.ids


@dataclass
class SetState:
    """The outputs' pool and, where the reference is their HR twins, its pool."""

    own: Pool
    reference: Pool


Features = Callable[[Tensor], Tensor]
Value = tuple[float, dict[str, float]]


class SetMetric(Named):
    """A Metric of the features of all outputs, compared with those of a reference set or with none.

    features: images [N, 3, H, W] to [N, d]. empty: makes the Summary of no images. evaluate(own, reference) gets
    summaries by block and returns the value and the value without each block; its reference is a mapping for HR twins,
    where the convention needs HR, else `fixed`. minimum: of images.
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
    ) -> None:
        self.convention = convention
        self.features, self.empty, self.evaluate = features, empty, evaluate
        self.fixed, self.minimum = fixed, minimum
        self.state = SetState(Pool(), Pool())

    def check(self, n: int, labelled: bool, hr: bool = True, sizes: Collection[tuple[int, int]] = ()) -> None:
        """Refuse a run of too few images, or without the HR images that it needs."""
        self.convention.check(hr=hr, lr=True, labels=labelled)
        if n < self.minimum:
            raise UserError(f"{self.name}: {number(n, 'image')}; at least {self.minimum} are needed")

    def fresh(self) -> "SetMetric":
        """The same metric for other outputs: the reference's pool is shared, so HR images are looked at once."""
        other = copy.copy(self)
        other.state = SetState(Pool(), self.state.reference)
        return other

    def update(self, batch: Batch) -> None:
        """Add a batch. Raises UserError for an image that was scored before."""
        self.convention.check(hr=batch.hr is not None, lr=batch.lr is not None, labels=batch.labels is not None)
        refuse_twice(self.name, self.state.own.ids, set(batch.ids))
        self.state.own.add(batch, self.features(batch.sr), self.empty)
        if self.convention.needs_hr and not self._known(set(batch.ids)):
            self.state.reference.add(batch, self.features(batch.pair[1]), self.empty)

    def merge(self, other: Self) -> None:
        """Add another shard's images."""
        refuse_twice(self.name, self.state.own.ids, other.state.own.ids)
        self.state.own.merge(other.state.own)
        if not self._known(other.state.reference.ids):
            self.state.reference.merge(other.state.reference)

    def _known(self, ids: set[str]) -> bool:
        """Whether the reference holds these images already; UserError when it holds some of them alone."""
        known = self.state.reference.ids & ids
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
