"""The images of a folder by their ids, in arrays: a million of them take some 100 MB, once for all forked processes.

A dictionary of a million files is a million objects. Each process that is forked would come to have its own copy, since
Python writes to an object whenever it counts who refers to it.
"""

from array import array
from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.shards import Member

Numbers = NDArray[np.int64]
NONE = -1


@dataclass(frozen=True)
class Strings(Sequence[str]):
    """Strings in one block of UTF-8. begins, ends: bytes of the block, int64 [N] each."""

    block: bytes
    begins: Numbers
    ends: Numbers

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Strings": ...
    def __getitem__(self, index: int | slice) -> "str | Strings":
        if isinstance(index, slice):
            return Strings(self.block, self.begins[index], self.ends[index])
        return self.block[self.begins[index] : self.ends[index]].decode()

    def __len__(self) -> int:
        return len(self.ends)

    def take(self, chosen: NDArray[np.generic]) -> "Strings":
        """Those of these numbers, or of a mask."""
        return Strings(self.block, self.begins[chosen], self.ends[chosen])


class _StringsMade:
    """Strings that are still being collected."""

    def __init__(self) -> None:
        self.block, self.ends = bytearray(), array("q")

    def append(self, text: str) -> None:
        self.block += text.encode()
        self.ends.append(len(self.block))

    def made(self) -> Strings:
        ends = np.array(self.ends, np.int64)
        return Strings(bytes(self.block), np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)], ends)


class _Files(Protocol):
    """Files by number."""

    def __getitem__(self, number: int) -> File: ...

    def take(self, chosen: NDArray[np.generic]) -> "_Files": ...


@dataclass(frozen=True)
class _Paths:
    """Files below a folder. names: relative to it."""

    folder: Path
    names: Strings

    def __getitem__(self, number: int) -> Path:
        return Path(self.folder, self.names[number])

    def take(self, chosen: NDArray[np.generic]) -> "_Paths":
        return replace(self, names=self.names.take(chosen))


@dataclass(frozen=True)
class _Members:
    """Members of shards.

    shards: (tar file, its checksum). labels: names of classes. places: int64 [N, 6]: number of the shard, offset,
    length, number of the label, height and width, where -1 is none.
    """

    shards: Sequence[tuple[Path, str]]
    labels: Sequence[str]
    names: Strings
    places: Numbers

    def __getitem__(self, number: int) -> Member:
        shard, offset, length, label, height, width = self.places[number].tolist()
        path, checksum = self.shards[shard]
        name = None if label == NONE else self.labels[label]
        pixels = None if height == NONE else (height, width)
        return Member(path, self.names[number], offset, length, name, pixels, checksum)

    def take(self, chosen: NDArray[np.generic]) -> "_Members":
        return replace(self, names=self.names.take(chosen), places=self.places[chosen])


class Catalog(Mapping[str, File]):
    """{image id: file} in the order of the ids; a file is made when it is asked for."""

    def __init__(self, ids: Strings, files: _Files) -> None:
        self.ids, self.files = ids, files

    def __getitem__(self, image_id: str) -> File:
        number = bisect_left(self.ids, image_id)
        if number == len(self.ids) or self.ids[number] != image_id:
            raise KeyError(image_id)
        return self.files[number]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def items(self) -> ItemsView[str, File]:
        """In order, without a search for each id."""
        return _Items(self)

    def values(self) -> ValuesView[File]:
        """In order, without a search for each id."""
        return _Values(self)

    def take(self, chosen: NDArray[np.generic]) -> "Catalog":
        """Those of these numbers, which ascend, or of a mask."""
        return Catalog(self.ids.take(chosen), self.files.take(chosen))


class _Items(ItemsView[str, File]):
    _mapping: Catalog

    def __iter__(self) -> Iterator[tuple[str, File]]:
        return zip(self._mapping.ids, self._mapping.values(), strict=True)


class _Values(ValuesView[File]):
    _mapping: Catalog

    def __iter__(self) -> Iterator[File]:
        return (self._mapping.files[number] for number in range(len(self._mapping)))


def of_paths(folder: Path, pairs: Iterable[tuple[str, Path]]) -> Catalog:
    """Of (id, file below `folder`); UserError for two files of one id."""
    ids, names = _StringsMade(), _StringsMade()
    for image_id, path in pairs:
        ids.append(image_id)
        names.append(str(path.relative_to(folder)))
    return _sorted(folder, ids.made(), _Paths(folder, names.made()))


def of_members(folder: Path, pairs: Iterable[tuple[str, Member]]) -> Catalog:
    """Of (id, member); UserError for two images of one id."""
    ids, names, places = _StringsMade(), _StringsMade(), array("q")
    shards: dict[tuple[Path, str], int] = {}
    labels: dict[str, int] = {}
    for image_id, member in pairs:
        ids.append(image_id)
        names.append(member.path)
        shard = shards.setdefault((member.shard, member.checksum), len(shards))
        label = NONE if member.label is None else labels.setdefault(member.label, len(labels))
        places.extend((shard, member.offset, member.length, label, *(member.pixels or (NONE, NONE))))
    files = _Members(list(shards), list(labels), names.made(), np.array(places, np.int64).reshape(-1, 6))
    return _sorted(folder, ids.made(), files)


def _sorted(where: Path, ids: Strings, files: _Files) -> Catalog:
    """In the order of the ids; UTF-8 has that of the characters."""
    known = list(ids)
    order = sorted(range(len(known)), key=known.__getitem__)
    for before, after in pairwise(order):
        if known[before] == known[after]:
            raise same_id(where, known[before], files[before], files[after])
    return Catalog(ids, files).take(np.array(order, np.int64))


def same_id(where: Path, image_id: str, one: File, other: File) -> UserError:
    """What is raised for two files of one id."""
    return UserError(f'{where}: two images share the id "{image_id}" ({one.name}, {other.name})')
