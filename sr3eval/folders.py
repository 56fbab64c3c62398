"""Folders and tar shards of images by id, and choices among ids that depend on names alone."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Set
from pathlib import Path, PurePosixPath
from typing import TypeVar

from sr3eval import catalog, shards
from sr3eval.catalog import Catalog
from sr3eval.errors import UserError
from sr3eval.files import File

P = TypeVar("P", bound=File)
# Of JPEG 2000 and AVIF, too: they are refused by name, not passed over.
# fmt: off
SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".webp",
    ".avif", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".qoi",
})
# fmt: on


def find_images(folder: Path) -> Catalog:
    """All images below `folder`, or in its tar shards, as {image id: file} in the order of their ids.

    An id is the path below the folder without suffix, with `/`; in shards it is a sample's key. Raises UserError for a
    missing or empty folder, for two files that would share an id, for a name that is not UTF-8, and for shards that
    are damaged (see `shards.members`). Hidden files and folders are passed over.
    """
    found = None if _is_of_shards(folder) else catalog.of_paths(folder, _pictures(folder, SUFFIXES))
    found = found or catalog.of_members(folder, shards.members(folder, SUFFIXES))
    if not found:
        raise UserError(f"{folder}: no images in it")
    return found


def pictures(folder: Path, suffixes: Set[str] = SUFFIXES) -> Iterator[tuple[str, File]]:
    """(path below `folder` without suffix, with `/`; file) of every file of these suffixes, as `find_images` does.

    A folder is one of shards where it has an index of `sr3eval prepare`, or tar files and no pictures beside them.
    """
    found = () if _is_of_shards(folder) else list(_pictures(folder, suffixes))
    yield from found or shards.members(folder, suffixes)


def _is_of_shards(folder: Path) -> bool:
    is_tar = folder.is_file() and folder.suffix.lower() == ".tar"
    return is_tar or (folder.is_dir() and shards.is_indexed(folder))


def _pictures(folder: Path, suffixes: Set[str]) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    for path in _files(folder, frozenset({folder.resolve()})):
        if path.suffix.lower() in suffixes:
            yield _image_id(path.relative_to(folder), folder), path


def by_id(where: Path, files: Iterable[tuple[str, P]]) -> dict[str, P]:
    """{id: file} in the order of ids; UserError for two files of one id."""
    found: dict[str, P] = {}
    for image_id, file in files:
        if image_id in found:
            raise catalog.same_id(where, image_id, found[image_id], file)
        found[image_id] = file
    return dict(sorted(found.items()))


def _files(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """The files below `folder`, through linked folders too, save links back to the folders `above`."""
    _, folders, files = next(os.walk(folder), ("", [], []))
    yield from (folder / name for name in sorted(files) if not name.startswith("."))
    for inner in (folder / name for name in sorted(folders) if not name.startswith(".")):
        if (real := inner.resolve()) not in above:
            yield from _files(inner, above | {real})


def _image_id(relative: Path, folder: Path) -> str:
    try:
        str(relative).encode()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        remedy = "rename it" if encoding == "utf-8" else f"or this locale's encoding, {encoding}, is: set PYTHONUTF8=1"
        raise UserError(f"{folder}: the name {str(relative)!r} is not valid UTF-8; {remedy}") from None
    return relative.with_suffix("").as_posix()


def stable_hash(*parts: object) -> int:
    """A 63-bit integer that depends on the parts' text alone: the same in every process and release."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def parent_of(image_id: str) -> str:
    """The folder part of an image id: the photograph that a crop was cut from."""
    return str(PurePosixPath(image_id).parent)
