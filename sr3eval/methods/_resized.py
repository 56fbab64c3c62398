"""A method of another scale than the task's, between resizes that the config names: the key `path`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.images import Size, resize
from sr3eval.method import Method, Progress, Upscaled, fingerprint
from sr3eval.tasks import Task

STEP = re.compile(r"bicubic(?: ([1-9][0-9]*))?")


class Resized(Method):
    """A method between resizes.

    path: e.g. ["bicubic 64", "method", "bicubic 224"] takes 56x56 inputs through a 64 -> 256 model to 224x224. The last
    step may be "bicubic" alone: to the size that the task asks for, whatever the image's. Values are clamped to [0, 1]
    after each resize and not rounded. Raises UserError for a path that does not end at the task's size.
    """

    def __init__(self, method: Method, path: Sequence[str], task: Task) -> None:
        self.name, self.scale, self.path, self.method = method.name, task.scale, tuple(path), method
        self.fingerprint = fingerprint(method.fingerprint, *path)
        self.facts, self.one_by_one, self.device = method.facts, method.one_by_one, method.device
        self.deterministic, self.stochastic = method.deterministic, method.stochastic
        if path.count("method") != 1:
            raise UserError(f'path: {list(path)} must contain "method" exactly once')
        sides = [_side(step) for step in path if step != "method"]
        if None in sides[:-1] or (None in sides and path[-1] == "method"):
            raise UserError(f'path: {list(path)}: "bicubic" without a side must be the last step')
        if sides[-1:] != [None]:
            self._check_end(task)
        else:  # its outputs are as large as the task asks for
            self.fingerprint = fingerprint(self.fingerprint, task.scale)

    def _check_end(self, task: Task) -> None:
        """Raise UserError unless the path ends at the task's size."""
        if task.side is None:
            raise UserError(
                f'path: {list(self.path)} must end in "bicubic", since {task.name} takes images of any size'
            )
        side = task.lr_size
        for step in self.path:
            if step == "method" and self.method.lr_size not in (None, side):
                raise UserError(
                    f"path: {list(self.path)} gives {side} pixels to a method that takes {self.method.lr_size}"
                )
            side = side * (self.method.scale or task.scale) if step == "method" else _side(step) or task.side
        if side != task.side:
            raise UserError(
                f"path: {list(self.path)} makes {side} pixels of {task.lr_size}; it must end at {task.side}"
            )

    @property
    def inner(self) -> Method:
        return self.method

    def check(self, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        """The method's own."""
        self.method.check(ids, sizes)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """[N, 3, h, w] to the task's [N, 3, H, W] in [0, 1]; seeds, progress and notes are the method's."""
        assert self.scale is not None
        target: Size = (self.scale * lr.shape[-2], self.scale * lr.shape[-1])
        sr = Upscaled(lr)
        for step in self.path:
            if step == "method":
                sr = self.method.upscale(sr.images, seeds, progress)
            else:
                side = _side(step)
                sr = replace(sr, images=resize(sr.images, (side, side) if side else target).clamp(0, 1))
        return sr


def _side(step: str) -> int | None:
    """Of a resize, in pixels; None for the task's size."""
    match = STEP.fullmatch(step)
    if not match:
        raise UserError(f'path: "{step}" is neither "method" nor "bicubic SIDE"')
    return int(match[1]) if match[1] else None
