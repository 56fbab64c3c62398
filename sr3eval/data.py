"""Images of folders, shards and zip files: choose deterministically, prepare the high-resolution targets."""

import re
import zipfile
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sr3eval.catalog import Catalog
from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.folders import SUFFIXES, parent_of, stable_hash
from sr3eval.images import header_size, load
from sr3eval.tasks import Task

K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound=File)
T = TypeVar("T")
LARGEST = 2**28  # bytes of a picture in a zip file, unpacked; more is taken for an attack
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def zipped_pictures(path: Path, suffixes: Set[str] = SUFFIXES) -> Iterator[tuple[str, zipfile.Path]]:
    """(path inside without suffix, with `/`; member) of every image in a zip file, of which nothing is unpacked.

    Hidden files and folders are passed over, and so are absolute paths and those with `..`. Raises UserError for a
    missing, truncated or encrypted file, for other compression than deflate, and for a member that claims to unpack to
    more than 256 MiB.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{path}: not a zip file, or truncated ({error})") from None
    for info in archive.infolist():
        inside = PurePosixPath(info.filename.replace("\\", "/"))
        hidden = inside.is_absolute() or any(part.startswith(".") for part in inside.parts)
        if info.is_dir() or hidden or inside.suffix.lower() not in suffixes:
            continue
        if reason := _unreadable(info):
            raise UserError(f"{path}: {info.filename} {reason}")
        yield inside.with_suffix("").as_posix(), zipfile.Path(archive, info.filename)


def matching(files: Sequence[tuple[str, P]], pattern: str) -> list[tuple[str, P]]:
    """The files whose paths, or where none does, whose names match a regular expression, by its group `id`.

    files: (path without suffix, file). Files that do not match are passed over. Raises UserError for what is no regular
    expression or has no such group.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f'pattern = "{pattern}": not a regular expression ({error})') from None
    if "id" not in expression.groupindex:
        raise UserError(f'pattern = "{pattern}": has no group (?P<id>...)')
    whole = [(expression.fullmatch(path), file) for path, file in files]
    names = [(expression.fullmatch(PurePosixPath(path).name), file) for path, file in files]
    for matches in (whole, names):
        if found := [(match["id"], file) for match, file in matches if match and match["id"]]:
            return found
    return []


def _unreadable(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & 1:
        return "is encrypted; pack it again without a password"
    if member.compress_type not in UNPACKED:
        return "is compressed in another way than deflate; pack it again"
    return f"claims to unpack to {member.file_size:,} bytes" if member.file_size > LARGEST else ""


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items by key(item): keys in the order in which they first occur, items in theirs."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Parts of at most `size` items, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def choose(ids: Sequence[str], limit: int | None) -> list[str]:
    """Choose `limit` ids by their hash, spread evenly over their parent folders; returned in sorted order."""
    if limit is None or limit >= len(ids):
        return sorted(ids)
    groups = grouped(sorted(ids, key=stable_hash), parent_of)
    ranked = [(rank, stable_hash(name), image_id) for name, g in groups.items() for rank, image_id in enumerate(g)]
    return sorted(image_id for _, _, image_id in sorted(ranked)[:limit])


def first(ids: Sequence[str], limit: int | None) -> list[str]:
    """The `limit` ids whose file names come first, whatever their folders: "the first 1,000 validation images"."""
    return sorted(sorted(ids, key=lambda image_id: (PurePosixPath(image_id).name, image_id))[:limit])


def split(ids: Sequence[str], held_out: float) -> tuple[list[str], list[str]]:
    """Split ids into (training, held out), a share `held_out` of all, by hash: no id moves when others are added."""
    held = are_held_out(ids, held_out)
    return list(compress(ids, ~held)), list(compress(ids, held))


def are_held_out(ids: Collection[str], held_out: float) -> NDArray[np.bool_]:
    """Which ids `split` holds out, [N]."""
    return np.fromiter((stable_hash("split", image_id) / 2**63 < held_out for image_id in ids), bool, len(ids))


def load_hr(path: File, task: Task) -> Tensor:
    """The HR target of a file, [3, H, W] in [0, 1] on the 8-bit grid; every UserError begins with the file's name."""
    try:
        return task.prepare(load(path))
    except UserError as error:
        raise error if str(error).startswith(str(path)) else UserError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Folder:
    """The images of a folder or of its shards, prepared for one task on demand."""

    paths: Catalog
    task: Task

    def hr(self, image_id: str) -> Tensor:
        """The HR target of one image; see `load_hr`."""
        return load_hr(self.paths[image_id], self.task)

    def __len__(self) -> int:
        return len(self.paths)


def large_enough(paths: Catalog, side: int) -> tuple[Catalog, list[str]]:
    """Split into the images whose short side is at least `side` pixels and the ids of those left out."""
    kept = np.fromiter((min(header_size(path)) >= side for path in paths.values()), bool, len(paths))
    return paths.take(kept), list(paths.ids.take(~kept))


def unreadable(ids: Iterable[str], read: Callable[[str], object]) -> dict[str, str]:
    """The images that `read` cannot read, with the reason."""
    found = {}
    for image_id in ids:
        try:
            read(image_id)
        except UserError as error:
            found[image_id] = str(error)
    return found
