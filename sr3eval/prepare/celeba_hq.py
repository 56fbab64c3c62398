"""CelebA-HQ: 30,000 images, which are published as differences to CelebA and passed on in other forms.

A folder of PNG or JPEG files (`CelebA-HQ-img/0.jpg` of CelebAMask-HQ); `imgHQ00000.npy` files, [1, 3, 1024, 1024]
(github.com/willylulu/celeba-hq-modified, read by CompVis/taming-transformers); an .npz file with one array
[N, H, W, 3] (github.com/openai/guided-diffusion); LMDB databases with the keys `1024-00000`
(github.com/rosinality/stylegan2-pytorch) or `hr_128_00000` (github.com/Janspiry/Image-Super-Resolution-via-Iterative-
Refinement).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sr3eval.errors import UserError
from sr3eval.folders import find_images, pictures
from sr3eval.prepare import arrays, lmdb_values
from sr3eval.prepare.listing import Item, Listing
from sr3eval.prepare.lmdb_values import DATABASE, Value

PUBLISHED = {"all": 30_000}
IMAGES = "CelebA-HQ-img"
KEY = re.compile(r"(?P<size>\d+)-(?P<id>.+)|hr_(?P<hr_size>\d+)_(?P<hr_id>.+)")
OTHERS = ("lr_", "sr_")  # keys of other pictures of the same images


def find(source: Path, labels: str | None = None) -> Listing:
    """The images of a folder, a database or an array.

    Raises UserError for labels, which the set has not, and for a source without images.
    """
    if labels is not None:
        raise UserError("--labels: CelebA-HQ has none; leave it out")
    items = sorted(_items(source), key=lambda item: item.image_id)
    if not items:
        raise UserError(f"{source}: no images in it")
    return Listing(items, published=PUBLISHED)


def _items(source: Path) -> Iterator[Item]:
    if source.suffix in (".npz", ".npy") and source.is_file():
        yield from (Item(f"{row.index:05}", row) for row in arrays.rows(source))
    elif source.name == DATABASE or (source / DATABASE).exists():
        yield from _of_database(source.parent if source.name == DATABASE else source)
    elif found := _single_arrays(source):
        yield from found
    else:
        inner = source / IMAGES
        yield from (Item(name, file) for name, file in find_images(inner if inner.is_dir() else source).items())


def _single_arrays(source: Path) -> list[Item]:
    """The images of a folder of .npy files."""
    found = pictures(source, frozenset({".npy"})) if source.is_dir() else ()
    return [Item(name, arrays.Row(file, 0)) for name, file in found if isinstance(file, Path)]


def _of_database(source: Path) -> Iterator[Item]:
    """The images of the largest size in a database."""
    by_size: dict[int, list[Item]] = {}
    for value in lmdb_values.values(source):
        match = KEY.fullmatch(value.name)
        size = int(match["size"] or match["hr_size"]) if match else 0
        name = (match["id"] or match["hr_id"]) if match else value.name
        if not value.name.startswith(OTHERS):
            by_size.setdefault(size, []).append(_item(name, value))
    yield from by_size[max(by_size)] if by_size else ()


def _item(name: str, value: Value) -> Item:
    return Item(name.rsplit(".", 1)[0], value)
