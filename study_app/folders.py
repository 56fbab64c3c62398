"""A pack from plain folders: real pictures, low-resolution ones, and one folder a model, whose files are named alike.

Where pictures are larger than the screen, the same window is cut out of every picture of an image.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from PIL import Image

from sr3eval import packs
from sr3eval.errors import UserError, nearest
from sr3eval.files import File
from sr3eval.folders import find_images, parent_of, stable_hash
from sr3eval.packs import HR, LR
from study_app.pack import by, decode, encode

Size = tuple[int, int]  # width and height in pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom
Tell = Callable[[str, float, int], None]
T = TypeVar("T")
PARENT = "parent"  # the groups of images that lie in one folder


@dataclass(frozen=True)
class Windows:
    """What is cut out of the pictures of an image: at most `side` pixels wide and high; all of it where that is None.

    table: a CSV file with image_id, left, top, in pixels of the real pictures; without, `seed` chooses.
    """

    side: int | None = None
    seed: int = 0
    table: Path | None = None

    def of(self, image_id: str, size: Size, scale: int) -> Box:
        """The window in pictures of `size`, `scale` times as large as the low-resolution one, on whose grid it lies."""
        width, height = (min(self.side or side, side) for side in size)
        if width % scale or height % scale:
            raise UserError(
                f"--crop {self.side}: must be a multiple of {scale}, the scale of {image_id}'s low-resolution picture"
            )
        left, top = self._corner(image_id, (size[0] - width, size[1] - height), scale)
        box = (left, top, left + width, top + height)
        if left % scale or top % scale or min(left, top) < 0 or box[2] > size[0] or box[3] > size[1]:
            grid = f" on a grid of {scale}" if scale > 1 else ""
            raise UserError(
                f"{image_id}: the window at {left},{top} of {by((width, height))} is not in {by(size)}{grid}"
            )
        return box

    @cached_property
    def _corners(self) -> dict[str, tuple[int, int]]:
        rows = _rows(self.table, ("image_id", "left", "top")) if self.table else []
        try:
            return {row["image_id"]: (int(row["left"]), int(row["top"])) for row in rows}
        except (TypeError, ValueError):
            raise UserError(f"{self.table}: left and top must be whole numbers") from None

    def _corner(self, image_id: str, room: Size, scale: int) -> tuple[int, int]:
        if self.table:
            return _looked_up(self._corners, self.table, image_id)
        x, y = (stable_hash("window", self.seed, axis, image_id) for axis in "xy")
        return x % (room[0] // scale + 1) * scale, y % (room[1] // scale + 1) * scale


def pack(
    out: Path,
    models: Mapping[str, Path],
    real: Path | None,
    lr: Path | None,
    counts: tuple[int | None, int, int],
    windows: Windows,
    group_of: Callable[[str], str],
    tell: Tell,
) -> None:
    """Write a pack of the images of `real`, or of the first model's where that is None, into the new folder `out`.

    models: folders by name. counts: images to test (None: all that are left), for practice and for catch trials.
    group_of: the group of an image, see `grouping`. Raises UserError for folders without pictures, names that differ
    between them, pictures that cannot be read or differ in size within an image, and windows outside them.
    """
    if not models:
        raise UserError("name the folder of at least one model")
    names = slugs(models)
    folders = ({HR: real} if real else {}) | ({LR: lr} if lr else {})
    folders |= {slug: models[name] for slug, name in names.items()}
    files = {folder: find_images(path) for folder, path in folders.items()}
    first = HR if real else next(iter(names))
    for folder, found in files.items():
        _check_names(folders[folder], found, folders[first], list(files[first]))
    kinds = packs.kinds(list(files[first]), *counts, windows.seed)
    packs.write(out, "", windows.seed, names, _entries(files, first, kinds, windows, group_of, tell))


def slugs(models: Mapping[str, Path]) -> dict[str, str]:
    """{folder of the pack: model's name}: small letters and digits, told apart by numbers where they must be."""
    found: dict[str, str] = {}
    for name in models:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
        taken = (HR, LR, *found)
        found[next(s for n in range(len(taken) + 1) if (s := f"{slug}-{n + 1}" if n else slug) not in taken)] = name
    return found


def grouping(choice: str | None) -> Callable[[str], str]:
    """What gives an image's group: "parent", the folder that it lies in; a file, a table with image_id and group, such
    as a run's per_image.csv; None, no group.
    """
    if choice is None:
        return lambda image_id: ""
    if choice == PARENT:
        return parent_of
    table = {row["image_id"]: row["group"] for row in _rows(Path(choice), ("image_id", "group"))}
    return partial(_looked_up, table, Path(choice))


def _looked_up(table: Mapping[str, T], path: Path, image_id: str) -> T:
    if image_id not in table:
        raise UserError(f'{path}: has no image "{image_id}": {nearest(image_id, list(table)[:8])}')
    return table[image_id]


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    if missing := [column for column in columns if not rows or column not in rows[0]]:
        raise UserError(f"{path}: has no rows with {', '.join(missing)}")
    return rows


def _check_names(path: Path, found: Mapping[str, File], first: Path, ids: Sequence[str]) -> None:
    if missing := [image_id for image_id in ids if image_id not in found]:
        raise UserError(
            f'{path}: has no "{missing[0]}", which {first} has ({nearest(missing[0], list(found)[:8])}); '
            "the files of an image need the same name in all folders"
        )


def _entries(
    files: Mapping[str, Mapping[str, File]],
    first: str,
    kinds: Mapping[str, packs.Kind],
    windows: Windows,
    group_of: Callable[[str], str],
    tell: Tell,
) -> Iterator[packs.Entry]:
    for done, (image_id, kind) in enumerate(kinds.items(), start=1):
        pictures = {folder: _read(found[image_id]) for folder, found in files.items()}
        size = pictures[first].size
        scale = _scale(image_id, size, pictures[LR].size) if LR in pictures else 1
        for folder in pictures.keys() - {LR, first}:
            if pictures[folder].size != size:
                wrong = by(pictures[folder].size)
                raise UserError(f"{files[folder][image_id]}: is {wrong}, the image's other pictures are {by(size)}")
        box = windows.of(image_id, size, scale)
        cut = {f: encode(image.crop(_smaller(box, scale) if f == LR else box)) for f, image in pictures.items()}
        window = () if box == (0, 0, *size) else (*box[:2], box[2] - box[0], box[3] - box[1])
        yield packs.Entry(image_id, kind, cut, group_of(image_id), window)
        tell("pack", done, len(kinds))


def _read(file: File) -> Image.Image:
    try:
        with file.open("rb") as opened:
            return decode(opened.read(), file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None


def _scale(image_id: str, size: Size, lr: Size) -> int:
    scale = size[0] // lr[0]
    if scale < 1 or (lr[0] * scale, lr[1] * scale) != size:
        raise UserError(f"{image_id}: {by(size)} is not a whole multiple of its low-resolution picture's {by(lr)}")
    return scale


def _smaller(box: Box, scale: int) -> Box:
    left, top, right, bottom = (edge // scale for edge in box)
    return left, top, right, bottom
