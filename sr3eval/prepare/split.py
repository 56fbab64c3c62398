"""Which of a source's images are for training and which for validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sr3eval.config import resolve_path
from sr3eval.data import split
from sr3eval.errors import UserError, number
from sr3eval.prepare.listing import Item, Listing

Split = Literal["all", "training", "validation"]


def chosen(listing: Listing, part: Split, validation: str | None) -> list[Item]:
    """The images of one part.

    validation: a file with an image id (or path) a line, or the share that is held out by the hash of the ids, as
    training does; by default the publisher's own. Raises UserError where nothing tells the parts apart.
    """
    if part == "all":
        if validation is not None:
            raise UserError("--validation: needs --split training or validation")
        return listing.items
    held = listing.validation if validation is None else _held(listing.items, validation)
    if held is None:
        raise UserError(f"--split {part}: needs --validation, a file of ids or the share to hold out")
    found = [item for item in listing.items if (item.image_id in held) == (part == "validation")]
    if not found:
        raise UserError(f"--split {part}: no images in this split")
    return found


def _held(items: Sequence[Item], validation: str) -> frozenset[str]:
    ids = [item.image_id for item in items]
    try:
        share = float(validation)
    except ValueError:
        return _listed(resolve_path(validation), frozenset(ids))
    if not 0 < share < 1:
        raise UserError(f"--validation: {share} is not between 0 and 1")
    return frozenset(split(ids, share)[1])


def _listed(path: Path, ids: frozenset[str]) -> frozenset[str]:
    """The ids in a file; an id may have a suffix there."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--validation: {path}: cannot be read ({error})") from None
    found = {line: line if line in ids else line.rpartition(".")[0] for line in lines}
    if unknown := [line for line, name in found.items() if name not in ids]:
        raise UserError(f"--validation: {path}: {number(len(unknown), 'line')} without an image (first: {unknown[0]})")
    return frozenset(found.values())
