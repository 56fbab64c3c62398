"""Labels of training images: the folder that an image lies in, what a CSV file says of it, or those of its shard."""

import csv
from collections.abc import Sequence
from pathlib import Path

from sr3eval.config import resolve_path
from sr3eval.data import Folder
from sr3eval.diffusion.train_config import TrainConfig, TrainingDataConfig
from sr3eval.errors import UserError, nearest
from sr3eval.shards import labels_of

FOLDERS, SHARDS = "folders", "shards"


def class_names(folder: Folder, config: TrainConfig) -> tuple[str, ...] | None:
    """The classes of the training images, sorted as torchvision's ImageFolder does; None for a model without labels.

    UserError where they are not as many as `unet.classes`, or other ones than those that the config names.
    """
    classes = config.network.classes
    if classes is None:
        return None
    found = tuple(sorted(set(_names(folder, config.data).values())))
    where = config.data.images if config.data.labels in (FOLDERS, SHARDS) else config.data.labels
    if len(found) < 2:
        raise UserError(f"{where}: all training images are in one class, {found[0]}; labels need at least 2")
    if len(found) != classes:
        raise UserError(f"unet.classes: {classes}, but {where} has {len(found)}: {_listed(found)}")
    if config.classes not in (None, found):
        raise UserError(f"classes: are not those of {where}: {_listed(found)}")
    return found


def labels(folder: Folder, config: TrainConfig) -> list[int] | None:
    """The label of every image of the folder, in its order: the place of its class among `config.classes`.

    None for a model without labels. UserError for an image of no class, or of one that training does not have.
    """
    if config.classes is None:
        return None
    names, numbers = _names(folder, config.data), {name: number for number, name in enumerate(config.classes)}
    for image_id, name in names.items():
        if name not in numbers:
            raise UserError(f'{folder.paths[image_id]}: its class "{name}" is unknown: {nearest(name, config.classes)}')
    return [numbers[names[image_id]] for image_id in folder.paths]


def _names(folder: Folder, data: TrainingDataConfig) -> dict[str, str]:
    """The class of each image."""
    if data.labels == SHARDS:
        return labels_of(folder.paths)
    if data.labels != FOLDERS:
        listed = _read_csv(resolve_path(data.labels))
        for image_id in folder.paths:
            if not listed.get(image_id):
                raise UserError(f"data.labels: {data.labels} has no label for the image {image_id}")
        return {image_id: listed[image_id] for image_id in folder.paths}
    for image_id, path in folder.paths.items():
        if "/" not in image_id:
            raise UserError(f"{path}: is not in a class folder; labels are the names of the folders in data.images")
    return {image_id: image_id.partition("/")[0] for image_id in folder.paths}


def _read_csv(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["image_id"]: row["label"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data.labels: {path}: not a readable table ({error})") from None
    except KeyError as error:
        raise UserError(f"data.labels: {path}: has no column {error}") from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
