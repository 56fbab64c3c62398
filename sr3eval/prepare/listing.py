"""What a source has: its images, without their pixels, and what is known of them."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.images import load
from sr3eval.prepare.arrays import Row


class SourceError(UserError):
    """The source could not be read: a disk, a network or a permission, which no image is left out for."""


@dataclass(frozen=True, slots=True)
class _Content:
    """A file that has been read: what `load` needs of one."""

    file: File
    content: bytes

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def suffix(self) -> str:
        return self.file.suffix

    def open(self, _mode: Literal["rb"] = "rb") -> IO[bytes]:
        """The bytes."""
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return str(self.file)


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source. label: its class; md5: of its file, where the publisher names it."""

    image_id: str
    file: File | Row
    label: str | None = None
    md5: str = ""

    def load(self) -> Tensor:
        """[3, H, W] in [0, 1].

        Raises UserError for what is no readable image and for a file of another checksum, SourceError where the file
        cannot be read.
        """
        if isinstance(self.file, Row):
            return self.file.load()
        content = _read(self.file)
        if self.md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != self.md5:
            raise UserError(f"{self.file}: its md5 is not the published {self.md5}; download it again")
        return load(_Content(self.file, content))


def _read(file: File) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read()
    except OSError as error:
        raise SourceError(f"{file}: cannot be read ({error.strerror}); the same command resumes") from None
    except UserError as error:
        raise SourceError(str(error)) from None


@dataclass(frozen=True)
class Listing:
    """The images of a source, in the order of their ids.

    Attributes:
        items: the images.
        classes: names of the labels, in the order of their numbers.
        published: how many images the whole, the training and the validation set have, where that is known.
        validation: ids of the publisher's own validation set, or None.
        archives: {file: md5}, of archives whose checksums are published.
    """

    items: list[Item]
    classes: tuple[str, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)
    validation: frozenset[str] | None = None
    archives: Mapping[Path, str] = field(default_factory=dict)
