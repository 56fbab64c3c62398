"""FFHQ as NVIDIA publishes it (github.com/NVlabs/ffhq-dataset, README and `ffhq-dataset-v2.json`).

70,000 PNGs of 1024 pixels, `images1024x1024/00000/00000.png` to `images1024x1024/69000/69999.png`, of which the first
60,000 are for training. The JSON file, where it lies beside the folder, has the split and every file's md5.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sr3eval.errors import UserError
from sr3eval.folders import find_images
from sr3eval.prepare.listing import Item, Listing

IMAGES, METADATA = "images1024x1024", "ffhq-dataset-v2.json"
TRAINING = 60_000
PUBLISHED = {"all": 70_000, "training": TRAINING, "validation": 10_000}
LEFT_OUT = ("metadata", "thumbnail", "in_the_wild", "face_landmarks")  # nine tenths of the JSON file


def find(source: Path, labels: str | None = None) -> Listing:
    """The images of the folder that holds `images1024x1024`, or of this one.

    Raises UserError for labels, which FFHQ has not, and for a file that is not named by its number.
    """
    if labels is not None:
        raise UserError("--labels: FFHQ has none; leave it out")
    root = source if (source / IMAGES).is_dir() else source.parent
    images = root / IMAGES if source == root else source
    known = _metadata(root / METADATA)
    files = find_images(images)
    numbers = {image_id: _number(image_id, images) for image_id in files}
    items = [Item(i, file, md5=known.get(numbers[i], {}).get("file_md5", "")) for i, file in files.items()]
    held = frozenset(i for i, number in numbers.items() if _is_validation(number, known.get(number)))
    return Listing(items, published=PUBLISHED, validation=held)


def _number(image_id: str, images: Path) -> int:
    name = image_id.rpartition("/")[2]
    if not name.isdecimal():
        raise UserError(f"{images}: {image_id} is not named by a number as FFHQ's files are; prepare it as a folder")
    return int(name)


def _is_validation(number: int, known: Mapping[str, Any] | None) -> bool:
    return known["category"] == "validation" if known else number >= TRAINING


def _metadata(path: Path) -> dict[int, dict[str, Any]]:
    """{number: category and file_md5}; nothing where the file is not there."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes(), object_hook=lambda of: {k: v for k, v in of.items() if k not in LEFT_OUT})
        return {
            int(number): {"category": of["category"], "file_md5": of["image"]["file_md5"]}
            for number, of in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not FFHQ's metadata ({error!r})") from None
