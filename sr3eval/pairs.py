"""The images of a data set as a run sees them: HR alone, HR with given LR, or LR alone."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from sr3eval.data import load_hr, matching
from sr3eval.errors import UserError, number
from sr3eval.files import File
from sr3eval.folders import by_id, pictures
from sr3eval.images import Size, header_size, load, round_to_8bit
from sr3eval.tasks import Task

Crop = Literal["exact", "common"]


@dataclass(frozen=True)
class Pair:
    """The files of one image; one of them may be missing."""

    hr: File | None
    lr: File | None

    @functools.cached_property
    def sizes(self) -> dict[str, Size]:
        """(height, width) of the files when they were first looked at, by "hr" and "lr", from their headers."""
        return self._sizes()

    def _sizes(self) -> dict[str, Size]:
        return {side: header_size(path) for side, path in (("hr", self.hr), ("lr", self.lr)) if path is not None}

    def is_large_enough(self, task: Task) -> bool:
        """Whether HR has what the task takes; LR alone always has."""
        return self.hr is None or min(self.sizes["hr"]) >= task.smallest

    def size(self, task: Task, crop: Crop = "exact") -> Size:
        """(H, W) of the outputs, from the headers of the files.

        Raises UserError for an unreadable file, for an image below the task's smallest size, and for a pair whose LR is
        not HR / scale: one that is off by a pixel is cut to what both have where `crop` is "common".
        """
        if self.lr is None:
            return task.target(self.sizes["hr"])
        height, width = (task.scale * side for side in self.sizes["lr"])
        if self.hr is None:
            return height, width
        full = task.target(self.sizes["hr"])
        if (height, width) == full:
            return full
        self._check(full, (height, width), task.scale, crop)
        return min(height, full[0]), min(width, full[1])

    def _check(self, hr: Size, wanted: Size, scale: int, crop: Crop) -> None:
        """Raise UserError for sizes that do not fit."""
        assert self.hr is not None and self.lr is not None
        off = max(abs(own - other) for own, other in zip(hr, wanted, strict=True))
        if off > scale or crop == "exact":
            sizes = [f"{width}x{height}" for height, width in (self.sizes["lr"], self.sizes["hr"])]
            hint = '; data.crop = "common" cuts both to what they have in common' if off <= scale else ""
            raise UserError(f"{self.lr}: {sizes[0]} is not 1/{scale} of {sizes[1]}, {self.hr.name}{hint}")

    def load(self, task: Task, size: Size, seed: int) -> tuple[Tensor | None, Tensor]:
        """(HR, LR) [3, H, W] and [3, h, w] in [0, 1] on the 8-bit grid; no HR where LR is alone.

        size: what `size` gave. seed: of random degradations. Raises UserError that names an unreadable file, or one of
        another size than `size` was told.
        """
        if self._sizes() != self.sizes:
            where = self.hr or self.lr
            raise UserError(f"{where}: has changed since the images were listed; use a folder that does not change")
        hr = None if self.hr is None else load_hr(self.hr, task)
        if hr is not None:
            hr = hr[..., : size[0], : size[1]]
        if self.lr is None:
            assert hr is not None
            return hr, task.degrade(hr, seed)
        height, width = (side // task.scale for side in size)
        return hr, round_to_8bit(load(self.lr))[..., :height, :width]


def find_pairs(
    images: Path | None, lr_images: Path | None, pattern: str | None, lr_pattern: str | None
) -> dict[str, Pair]:
    """The pairs of a data set by id, in the order of ids.

    pattern, lr_pattern: regular expressions with a group `id` (see `data.matching`), where names of HR or LR are more
    than ids. Raises UserError for missing or empty folders, and for images of one side alone where both are given.
    """
    hr = _found(images, pattern)
    lr = _found(lr_images, lr_pattern)
    if images is None or lr_images is None:
        return {image_id: Pair(hr.get(image_id), lr.get(image_id)) for image_id in sorted(hr | lr)}
    alone = sorted(hr.keys() ^ lr.keys())
    if alone:
        raise UserError(_unpaired(images, lr_images, hr, lr, lr_pattern))
    return {image_id: Pair(hr[image_id], lr[image_id]) for image_id in hr}


def _found(folder: Path | None, pattern: str | None) -> dict[str, File]:
    if folder is None:
        return {}
    files = list(pictures(folder))
    found = by_id(folder, matching(files, pattern) if pattern else files)
    if not found:
        what = f"none of its {number(len(files), 'image')} matches {pattern}" if files else "no images in it"
        raise UserError(f"{folder}: {what}")
    return found


def _unpaired(
    images: Path, lr_images: Path, hr: Mapping[str, File], lr: Mapping[str, File], pattern: str | None
) -> str:
    """What to say of images that have no counterpart."""
    without = [
        (f"{number(len(ids), 'image')} without {what}", ids)
        for ids, what in (
            (sorted(hr.keys() - lr.keys()), f"LR in {lr_images}"),
            (sorted(lr.keys() - hr.keys()), f"HR in {images}"),
        )
    ]
    told = ", ".join(f"{text} (first: {ids[0]})" for text, ids in without if ids)
    hint = "" if pattern else '; data.lr_pattern tells names apart, e.g. "(?P<id>.+)x4"'
    return f"{told}{hint}"
