"""Outputs by content: what a method made of an input under a seed is looked up, not made again."""

import json
from pathlib import Path
from typing import Any

from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.images import load
from sr3eval.method import fingerprint

PNG_END = b"IEND\xaeB`\x82"  # the last chunk, with its checksum; decoders do not miss it


class Cache:
    """PNG files named by the hash of everything that they depend on, each with the method's note beside it."""

    def __init__(self, folder: Path) -> None:
        """Make the folder; UserError where that cannot be."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: no cache can be kept there ({error.strerror}); give another --cache") from None

    @staticmethod
    def key(method: str, task: str, hr_content: str, seed: int) -> str:
        """From the fingerprints of method and task, the hash of the HR pixels, and the image's seed."""
        return fingerprint(method, task, hr_content, seed)

    def get(self, key: str, size: tuple[int, int]) -> tuple[bytes, dict[str, Any]] | None:
        """The PNG file of a key and its note, or None when it is not there, damaged, or not of (H, W) = `size`."""
        path = self._path(key, "png")
        try:
            shape, png, note = load(path).shape, path.read_bytes(), json.loads(self._path(key, "json").read_bytes())
        except (UserError, OSError, ValueError):
            return None
        return (png, note) if tuple(shape[-2:]) == size and png.endswith(PNG_END) else None

    def put(self, key: str, png: bytes, note: dict[str, Any]) -> None:
        """Store a picture, and what the method says of it."""
        atomic_write(self._path(key, "json"), json.dumps(note).encode())
        atomic_write(self._path(key, "png"), png)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / key[:2] / f"{key}.{suffix}"
