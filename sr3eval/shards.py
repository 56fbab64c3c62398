"""Tar shards in the layout of webdataset, read at random: a member is opened by its offset, and nothing is unpacked.

The files of a sample share all of their name up to its first dot: `KEY.png` or `KEY.jpg`, and for labels `KEY.cls`.
`sr3eval prepare` writes an index beside the shards: `index.json`, which is also an index of `wids`, and for
`000000.tar` a `000000.json` with the place of every image. Shards of others are known by their tar headers.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from sr3eval.errors import UserError

INDEX = "index.json"
BEGUN = "prepare.json"  # what `sr3eval prepare` writes first, and the index last
FORMAT = "sr3eval shards 1"
LABEL = ".cls"
BUFFER = 1 << 16  # bytes
BLOCK = 512  # bytes: what everything in a tar file is padded to


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar file: what callers use of a Path.

    Attributes:
        shard: the tar file.
        path: the member's name, with its folders.
        offset: of its first byte in the shard.
        length: in bytes.
        label: its class, by name where the index has names, else the number in its .cls file.
        pixels: (height, width) where the index says so.
        checksum: of the shard, where there is an index.
    """

    shard: Path
    path: str
    offset: int
    length: int
    label: str | None = None
    pixels: tuple[int, int] | None = None
    checksum: str = ""

    @property
    def name(self) -> str:
        """Without folders."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """With its dot."""
        return PurePosixPath(self.path).suffix

    def open(self, _mode: Literal["rb"] = "rb") -> IO[bytes]:
        """The member's bytes, seekable; read from the shard as they are asked for."""
        return io.BufferedReader(_Section(self), BUFFER)

    def __str__(self) -> str:
        return f"{self.shard}: {self.path}"


class _Section(io.RawIOBase):
    """The part of a file that is one member. Raises UserError where the file ends before it."""

    def __init__(self, member: Member) -> None:
        self.member, self.at = member, 0
        self.file = member.shard.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.member.length}[whence])
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self.member.length - self.at)]
        self.file.seek(self.member.offset + self.at)
        count = self.file.readinto(view)
        if count == 0 and len(view):
            raise UserError(f"{self.member}: the shard is truncated; make or download it again")
        self.at += count
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def is_indexed(folder: Path) -> bool:
    """Whether `sr3eval prepare` wrote the shards in a folder; UserError where it has not finished them."""
    if (folder / INDEX).is_file() and _read_json(folder / INDEX).get("format") == FORMAT:
        return True
    if (folder / BEGUN).exists():
        raise UserError(f"{folder}: its shards are not finished; run the same `sr3eval prepare` again")
    return False


def read_index(folder: Path) -> dict[str, Any]:
    """What index.json says of a folder's shards: source, size, images, classes, shardlist, left_out and more.

    Raises UserError for an unreadable file, and for one of another format.
    """
    index = _read_json(folder / INDEX)
    if index.get("format") != FORMAT:
        raise UserError(f"{folder / INDEX}: not the index of shards that `sr3eval prepare` writes")
    return index


def members(folder: Path, suffixes: Set[str]) -> Iterator[tuple[str, Member]]:
    """(image id, member) of every image in a folder of shards, or in one tar file.

    suffixes: of images, lower case. Raises UserError for a truncated or compressed shard, for an index that does not
    fit its shards and for a key with two images.
    """
    if folder.is_dir() and is_indexed(folder):
        yield from _indexed(folder)
    else:
        for shard in tar_files(folder):
            yield from scanned(shard, suffixes)


def tar_files(folder: Path) -> list[Path]:
    """The tar files directly in a folder, or the one that `folder` is, in the order of their names."""
    if folder.is_file():
        return [folder] if folder.suffix == ".tar" else []
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))


def _indexed(folder: Path) -> Iterator[tuple[str, Member]]:
    index = read_index(folder)
    try:
        for entry in index["shardlist"]:
            yield from _of_shard(folder / entry["url"], entry, index["classes"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{folder / INDEX}: damaged ({error!r}); run `sr3eval prepare` again") from None


def _of_shard(shard: Path, entry: Mapping[str, Any], classes: Sequence[str]) -> Iterator[tuple[str, Member]]:
    """The images of one shard. entry: what index.json says of it."""
    _check_size(shard, entry["filesize"])
    found = _read_json(shard.with_suffix(".json"))
    if found["sha256"] != entry["sha256"] or len(found["members"]) != entry["nsamples"]:
        raise UserError(f"{shard}: does not fit {shard.with_name(INDEX)}; run `sr3eval prepare` again")
    for key, path, offset, length, label, height, width in found["members"]:
        name = None if label is None else classes[label]
        yield key, Member(shard, path, offset, length, name, (height, width), entry["sha256"])


def _check_size(shard: Path, size: int) -> None:
    found = shard.stat().st_size if shard.exists() else None
    if found is None:
        raise UserError(f"{shard}: missing, although the index lists it; run `sr3eval prepare` again")
    if found != size:
        what = "truncated" if found < size else "longer than its index says"
        raise UserError(f"{shard}: {what} ({found:,} of {size:,} bytes); run `sr3eval prepare` again")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing, although the index needs it; run `sr3eval prepare` again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return found if isinstance(found, dict) else {}


def scanned(shard: Path, suffixes: Set[str]) -> Iterator[tuple[str, Member]]:
    """(key, member) of the images in a tar file, by its headers; see `members`."""
    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    for member in tar_members(shard):
        key, suffix = key_of(member.path)
        if suffix == LABEL:
            labels[key] = _label(member)
        elif suffix in suffixes:
            if key in images:
                raise UserError(f'{shard}: two images share the key "{key}" ({images[key].name}, {member.name})')
            images[key] = member
    for key, image in images.items():
        yield key, Member(shard, image.path, image.offset, image.length, labels.get(key))


def key_of(path: str) -> tuple[str, str]:
    """The key of a member, and its suffix in lower case: what stands before and from the first dot of its name."""
    folder, _, name = path.rpartition("/")
    stem, dot, rest = name.partition(".")
    return f"{folder}/{stem}" if folder else stem, f"{dot}{rest}".lower()


def _label(member: Member) -> str:
    with member.open() as file:
        return file.read(100).decode("utf-8", "replace").strip()


def tar_members(path: Path, start: int = 0) -> Iterator[Member]:
    """The files in a tar file that begins at byte `start` of a file, by its headers; hidden ones are passed over.

    Raises UserError for what is no tar file, is compressed, or ends too early.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # lest it remember all that it has seen
                    if info.isreg() and not any(part.startswith(".") for part in PurePosixPath(info.name).parts):
                        yield Member(path, info.name.removeprefix("./"), info.offset_data, info.size)
                _check_end(archive, path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(f"{path}: {_reason(path, start, error)}") from None


def _check_end(archive: tarfile.TarFile, path: Path) -> None:
    """A tar file ends in blocks of zeros: without them it was cut between two members."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(BLOCK) != bytes(BLOCK):
        raise UserError(f"{path}: truncated; make or download it again")


def _reason(path: Path, start: int, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(6)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "a compressed tar file cannot be read at random; unpack it to a plain .tar"
    return f"not a tar file, or truncated ({error})"


def labels_of(files: Mapping[str, object]) -> dict[str, str]:
    """The labels of images {id: file}; UserError for one that is in no shard, or has none there."""
    found = {}
    for image_id, file in files.items():
        if not isinstance(file, Member) or file.label is None:
            where = "has no label in its shard" if isinstance(file, Member) else "is not in a tar shard"
            raise UserError(f'data.labels = "shards": {image_id} {where}')
        found[image_id] = file.label
    return found
