"""Large images in overlapping tiles, so that what a network needs of memory does not grow with them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.method import Progress


@dataclass(frozen=True)
class Tiles:
    """Tiles of `tile` pixels of input, each with `overlap` more on every inner side; tile None takes images whole.

    Neighbours are blended over overlap / 2 pixels about their border, so that no step is left there. The result is that
    of the whole image where the network's receptive field ends within 3/4 of the overlap; elsewhere it comes near.
    """

    tile: int | None
    overlap: int

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UserError(f"tile = {self.tile}: must be at least 1 pixel")
        if self.overlap < 0:
            raise UserError(f"overlap = {self.overlap}: must not be negative")

    def __str__(self) -> str:
        return "None" if self.tile is None else f"({self.tile}, {self.overlap})"

    def upscale(
        self, network: Callable[[Tensor], Tensor], lr: Tensor, scale: int, progress: Progress | None = None
    ) -> Tensor:
        """network(lr), [N, 3, scale * h, scale * w], of lr [N, 3, h, w], made tile by tile."""
        height, width = lr.shape[-2:]
        if self.tile is None or max(height, width) <= self.tile:
            return network(lr)
        tiles = [(row, column) for row in self._spans(height, scale) for column in self._spans(width, scale)]
        out = lr.new_zeros(len(lr), 3, height * scale, width * scale, dtype=torch.float32)
        for done, (row, column) in enumerate(tiles, start=1):
            weights = (row.weights[:, None] * column.weights).to(lr.device)
            out[..., row.output, column.output] += network(lr[..., row.input, column.input]) * weights
            if progress:
                progress(done / len(tiles))
        return out

    def _spans(self, length: int, scale: int) -> Iterator["Span"]:
        """The tiles along an axis. At every pixel of output their weights, differences of ramps, add up to 1."""
        assert self.tile is not None
        for start in range(0, length, self.tile):
            end = min(length, start + self.tile)
            first, last = max(0, start - self.overlap), min(length, end + self.overlap)
            place = (torch.arange(first * scale, last * scale) + 0.5) / scale
            weights = self._ramp(place - start) if start else torch.ones_like(place)
            if end < length:
                weights = weights - self._ramp(place - end)
            yield Span(slice(first, last), slice(first * scale, last * scale), weights)

    def _ramp(self, distance: Tensor) -> Tensor:
        """From 0 to 1 over overlap / 2 pixels about a border, by the distance from it."""
        return (distance / (self.overlap / 2) + 0.5).clamp(0, 1) if self.overlap else (distance > 0).float()


@dataclass(frozen=True)
class Span:
    """A tile along one axis: where its pixels of input and of output lie, and the weights of the latter."""

    input: slice
    output: slice
    weights: Tensor


WHOLE = Tiles(None, 0)
