"""Any folder of images, or of tar shards, searched recursively."""

import csv
from collections.abc import Mapping
from pathlib import Path

from sr3eval.config import resolve_path
from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.folders import find_images
from sr3eval.prepare.listing import Item, Listing
from sr3eval.shards import Member

FOLDERS = "folders"


def find(source: Path, labels: str | None = None) -> Listing:
    """All images below a folder.

    labels: "folders" (a class a folder directly below `source`) or a CSV file with the columns image_id and label;
    shards bring their own. Raises UserError for an image without a label where others have one.
    """
    files = find_images(source)
    names = _labels(source, files, labels)
    items = [Item(image_id, file, names.get(image_id)) for image_id, file in files.items()]
    missing = next((item.image_id for item in items if item.label is None), None)
    if names and missing is not None:
        raise UserError(f"{source}: {missing} has no label, although others have one")
    return Listing(items, tuple(sorted(set(names.values()))))


def _labels(source: Path, files: Mapping[str, File], labels: str | None) -> dict[str, str]:
    if labels is None:
        return {i: f.label for i, f in files.items() if isinstance(f, Member) and f.label is not None}
    if labels == FOLDERS:
        return {image_id: image_id.partition("/")[0] for image_id in files if "/" in image_id}
    path = resolve_path(labels)
    if not path.is_file():
        raise UserError(f"--labels: {path}: no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["image_id"]: row["label"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise UserError(f"--labels: {labels}: not a table with the columns image_id and label ({error!r})") from None
