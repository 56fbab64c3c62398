"""What a source has: its images, without their pixels, and what is known of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.files import File
from sr3eval.images import load
from sr3eval.prepare.arrays import Row


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source. label: its class; md5: of its file, where the publisher names it."""

    image_id: str
    file: File | Row
    label: str | None = None
    md5: str = ""

    def load(self) -> Tensor:
        """[3, H, W] in [0, 1]. Raises UserError for an unreadable image, and for a file of another checksum."""
        if isinstance(self.file, Row):
            return self.file.load()
        if self.md5 and self._md5() != self.md5:
            raise UserError(f"{self.file}: its md5 is not the published {self.md5}; download it again")
        return load(self.file)

    def _md5(self) -> str:
        assert not isinstance(self.file, Row)
        with self.file.open("rb") as file:
            return hashlib.md5(file.read(), usedforsecurity=False).hexdigest()


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
