"""What a set card keeps of an image: enough to know it again, and to say how another one differs."""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import product
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from sr3eval.benchmark.kernels import cut
from sr3eval.benchmark.progress import Count, Tell, silent
from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.images import area_down, load, to_uint8

T = TypeVar("T")
R = TypeVar("R")
# What ends the names of HR and LR files.
SIGN = re.compile(r"([_-]?(x\d+|srf[_-]?\d+|lr(bi|bd|dn)?|hr|gt))+$", re.IGNORECASE)
GREY = ("1", "L", "I;16")  # Pillow's modes of one channel
CELLS = 4  # of the grid along each side
SLACK = 2  # pixels by which a copy's sides may differ where its inner part is looked for


@dataclass(frozen=True)
class Print:
    """Of one image. On a card it is one string of these words, with spaces between them.

    size: "WIDTHxHEIGHTxCHANNELS" of the file: x1 is grey, x3 everything else. file: sha256 of its bytes, or "-" of an
    image that was cut out of another file. pixels: sha256 of the image as RGB, 8 bit, row by row. inner: the first 16
    digits of that of the image without its outermost pixels, by which a shift or a cut by one pixel is known. grid:
    the mean levels of 4 x 4 parts, row by row, two hexadecimal digits each, by which an altered image is told from
    another one.
    """

    size: str
    file: str
    pixels: str
    inner: str
    grid: str

    @classmethod
    def parse(cls, text: str, where: str) -> "Print":
        """The inverse of `str`. Raises UserError for another form."""
        words = text.split()
        if len(words) != len(fields(cls)) or words[0].count("x") != 2:
            raise UserError(f'{where}: "{text}" is not "SIZE FILE PIXELS INNER GRID"')
        return cls(*words)

    @classmethod
    def of(cls, path: File, multiple: int = 1) -> "Print":
        """Of a file; its pixels with sides cut to a multiple. Raises UserError for what is no image."""
        image = cut(pixels_of(path), multiple)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        height, width = image.shape[-2:]
        size = f"{width}x{height}x{1 if is_grey(path) else 3}"
        return cls(size, digest, digest_of(image), digest_of(image[:, 1:-1, 1:-1])[:16], grid_of(image))

    def __str__(self) -> str:
        return " ".join(getattr(self, field.name) for field in fields(self))

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width)."""
        width, height, _ = map(int, self.size.split("x"))
        return height, width

    @property
    def is_grey(self) -> bool:
        return self.size.endswith("x1")

    def unlike(self, other: "Print") -> int:
        """By how many levels the parts differ, at most."""
        return max(abs(one - two) for one, two in zip(bytes.fromhex(self.grid), bytes.fromhex(other.grid), strict=True))

    def place_in(self, image: Tensor) -> tuple[int, int] | None:
        """(row, column) at which the image without its outermost pixels lies in another of about its size, if it does.

        (1, 1) of one of the same size: only outermost pixels differ.
        """
        height, width = (max(0, side - 2) for side in self.sides)
        spare = (image.shape[-2] - height, image.shape[-1] - width)
        if min(height, width) < 1 or min(spare) < 0 or max(spare) > 2 + SLACK:
            return None
        for top, left in product(*(range(size + 1) for size in spare)):
            if digest_of(image[:, top : top + height, left : left + width]).startswith(self.inner):
                return top, left
        return None


def plain(image_id: str) -> str:
    """An id without what tells HR from LR."""
    return SIGN.sub("", image_id)


def pixels_of(path: File) -> Tensor:
    """[3, H, W], 8 bit, as everything here reads an image."""
    return to_uint8(load(path))


def is_grey(path: File) -> bool:
    """Whether the file has one channel, which is what MATLAB's scripts look at."""
    with path.open("rb") as file, Image.open(file) as image:
        return image.mode in GREY


def digest_of(image: Tensor) -> str:
    """sha256 of [3, H, W], 8 bit, as rows of RGB."""
    return hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy().data).hexdigest()


def grid_of(image: Tensor) -> str:
    """Mean levels, over channels too, of 4 x 4 parts of [3, H, W], 8 bit."""
    means = area_down(image.to(torch.float64).mean(dim=0), (CELLS, CELLS))
    return bytes(means.round().to(torch.uint8).flatten().tolist()).hex()


def prints(files: Mapping[str, File], multiple: int = 1, stage: str = "read", tell: Tell = silent) -> dict[str, Print]:
    """Of every file, by id. tell: is told (stage, done, total) after every image."""
    found = mapped(lambda path: Print.of(path, multiple), files.values(), stage, tell)
    return dict(zip(files, found, strict=True))


def mapped(work: Callable[[T], R], items: Collection[T], stage: str, tell: Tell) -> list[R]:
    """What `work` makes of each item, in order, in as many threads as there are cores.

    Pillow, hashlib and torch let go of the interpreter.
    """
    count, made = Count(stage, len(items), tell), []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one in pool.map(work, items):
            made.append(one)
            count.advance(1)
    return made
