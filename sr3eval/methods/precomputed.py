"""Outputs that were made elsewhere: a folder or a zip file, named as the images are or by a pattern."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from sr3eval import arrays
from sr3eval.config import resolve_path
from sr3eval.data import choose, matching, zipped_pictures
from sr3eval.errors import UserError, number
from sr3eval.files import File, digest_of, listing_digest
from sr3eval.folders import SUFFIXES, by_id, pictures
from sr3eval.images import Size, header_size, load
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint


class Precomputed(Method):
    """Outputs that somebody else made: a folder or a zip file whose image ids are those of the data.

    Pictures, and arrays in .npy and .pt files (see `sr3eval.arrays`).
    pattern: a regular expression with a group `id`, for other names: it must match all of a file's path inside,
    without suffix, or where it matches none of the paths, the files' names. Files that it does not match are passed
    over. An id that is none of the data's stands for the image of that file name: `(?P<id>.+)_x4_SR` finds the output
    of "animals/0801" in "0801_x4_SR.png" and in "0801/0801_x4_SR.png".
    From `check` on, `facts` has one sha256 over ids and contents of what is used, and a warning of lossy files.
    """

    name = "precomputed"
    copied = True
    device = torch.device("cpu")

    def __init__(self, folder: Path, pattern: str | None = None, labels: str | None = None) -> None:
        self.folder, self.pattern, self.labels = folder, pattern, labels
        packed = folder.suffix.lower() == ".zip" and not folder.is_dir()
        kinds = SUFFIXES | arrays.SUFFIXES
        files: list[tuple[str, File]] = list(zipped_pictures(folder, kinds) if packed else pictures(folder, kinds))
        named = matching(files, pattern) if pattern is not None else files
        if not named:
            found = f"none of its {number(len(files), 'image')} matches {pattern}" if files else "no images in it"
            raise UserError(f"{folder}: {found}")
        self.paths = by_id(folder, named)

    def check(self, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        """Refuse the folder unless it has every one of `ids` at its size, and nothing that is not in `sizes`.

        Raises one UserError that counts the missing, unknown and wrongly sized files and names the first of each.
        """
        if self.labels is not None:
            raise UserError(f"{self.folder}: labels are of [generated] images; if the run has [data], use data.labels")
        if self.pattern is not None:
            self.paths = by_id(self.folder, self._placed(set(sizes)))
        present = {i: _size(self.paths[i]) for i in ids if i in self.paths}
        wrong = [i for i, size in present.items() if size != sizes[i]]
        wanted = _text(sizes[wrong[0]]) if wrong else ""
        problems = {
            "missing": [i for i in ids if i not in self.paths],
            "unknown": sorted(self.paths.keys() - sizes.keys()),
            f"not {wanted}" if len({sizes[i] for i in wrong}) == 1 else f"not the size of their HR, {wanted}": [
                f"{i}, {_text(present[i])}" for i in wrong
            ],
        }
        found = [f"{len(names)} {what} (first: {names[0]})" for what, names in problems.items() if names]
        if found:
            raise UserError(f"{self.folder}: {', '.join(found)}")
        try:
            sha256 = digest_of({i: self.paths[i] for i in ids})
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{self.folder}: damaged ({error})") from None
        self._know(ids, sha256)

    def take(self, limit: int | None) -> dict[str, Size]:
        """In place of `check`, for images of nobody's data: (H, W) by id of `limit` (see `data.choose`), or of all.

        Files are known by their names, sizes and ends (`files.listing_digest`): there may be 50,000 of them.
        """
        if limit is not None and len(self.paths) < limit:
            raise UserError(f"{self.folder}: {number(len(self.paths), 'image')}, fewer than generated.limit = {limit}")
        self.paths = {image_id: self.paths[image_id] for image_id in choose(list(self.paths), limit)}
        sizes = {image_id: _size(path) for image_id, path in self.paths.items()}
        self._know(list(sizes), listing_digest(self.paths.items()))
        return sizes

    def _know(self, ids: Sequence[str], sha256: str) -> None:
        """Say what is used: these files."""
        lossy = sum(_is_jpeg(self.paths[i]) for i in ids)
        warning = f"{lossy} of its {number(len(ids), 'output')} saved as JPEG, whose losses are scored with it"
        self.facts = Facts({self.folder.name: sha256}, warning=warning if lossy else "")
        self.fingerprint = fingerprint(self.name, sha256)

    def _placed(self, known: set[str]) -> Iterator[tuple[str, File]]:
        """Files by the ids `known`: an id that is none of them stands for the one that has it as its file name."""
        by_name: dict[str, list[str]] = {}
        for image_id in sorted(known):
            by_name.setdefault(PurePosixPath(image_id).name, []).append(image_id)
        for own, file in self.paths.items():
            path = PurePosixPath(own)
            meant = [own] if own in known else by_name.get(path.name, [own])
            if len(meant) > 1:  # its folders may say which
                meant = [i for i in meant if set(PurePosixPath(i).parts) <= set(path.parts)] or meant
            if len(meant) > 1:
                raise UserError(f'{self.folder}: "{own}" may be {" or ".join(meant[:2])}; keep folders in the id')
            yield meant[0], file

    def lookup(self, image_id: str, hr: Path) -> Tensor:
        """The output [3, H, W] in [0, 1]."""
        path = self.paths[image_id]
        return arrays.load(path) if _is_array(path) else load(path)

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """Refused: there are the outputs of `lookup`, and no others."""
        raise UserError(f"{self.folder}: holds outputs, not a method that can upscale other images")


def _text(size: Size) -> str:
    """Width x height, as other messages have it."""
    return f"{size[1]}x{size[0]}"


def _is_array(path: File) -> bool:
    return path.suffix.lower() in arrays.SUFFIXES


def _is_jpeg(path: File) -> bool:
    with path.open("rb") as file:
        return bool(file.read(3) == b"\xff\xd8\xff")


def _size(path: File) -> Size:
    if not _is_array(path):
        return header_size(path)
    _, height, width = arrays.load(path).shape
    return height, width


def build(*, folder: str, pattern: str | None = None, labels: str | None = None) -> Precomputed:
    """Outputs that were made elsewhere.

    Args:
        folder: its path, or that of a zip file.
        pattern: a regular expression with a group `id`, see `Precomputed`.
        labels: of [generated] images, their classes: "folders" (named by synset), or a CSV file with the columns
            image_id and label.
    """
    return Precomputed(resolve_path(folder), pattern, labels)
