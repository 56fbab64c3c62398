"""ImageNet classes of images: from folders named by synset, from a CSV file, or from the shards they lie in."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sr3eval.config import resolve_path
from sr3eval.errors import UserError
from sr3eval.shards import labels_of

CLASSES = 1000


@functools.cache
def synsets() -> dict[str, int]:
    """Class index, 0 to 999, by WordNet id."""
    from timm.data import ImageNetInfo

    return {name: index for index, name in enumerate(ImageNetInfo().label_names())}


def read_labels(source: str, ids: Sequence[str], files: Mapping[str, object] | None = None) -> dict[str, int]:
    """The class of each image id. source: "folders", "shards", or a CSV with the columns image_id and label.

    files: of the images, by id.

    Raises UserError that names the first image without a class and the first label that is none.
    """
    if source == "folders":
        found = {image_id: re.search(r"(?:^|/)(n\d{8})/", image_id) for image_id in ids}
        names = {image_id: match[1] for image_id, match in found.items() if match}
        hint = "lies in no folder named by synset (n01440764, ...)"
    elif source == "shards":
        names, hint = labels_of({image_id: (files or {}).get(image_id) for image_id in ids}), ""
    else:
        names, hint = _read_csv(resolve_path(source)), f"is not in {source}"
    for image_id in ids:
        if image_id not in names:
            raise UserError(f"data.labels: {image_id} {hint}")
    return {image_id: _index(names[image_id], image_id) for image_id in ids}


def _read_csv(path: Path) -> dict[str, str]:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        twice = table["image_id"][table["image_id"].duplicated()]
        if len(twice):
            raise UserError(f"data.labels: {path}: {twice.iloc[0]} is listed twice")
        return dict(zip(table["image_id"], table["label"], strict=True))
    except FileNotFoundError:
        raise UserError(f'data.labels: {path}: no such file; write "folders" or the path of a CSV') from None
    except KeyError as error:
        raise UserError(f"data.labels: {path}: has no column {error}") from None
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"data.labels: {path}: not a readable table ({error})") from None


def _index(label: str, image_id: str) -> int:
    index = int(label) if label.isdecimal() else synsets().get(label, -1)
    if not 0 <= index < CLASSES:
        raise UserError(f'data.labels: "{label}" of {image_id} is neither a class from 0 to 999 nor a synset')
    return index
