"""Outputs by content: what a method made of an input under a seed is looked up, not made again."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.images import load, save
from sr3eval.method import fingerprint


class Cache:
    """PNG files named by the hash of everything that they depend on, each with the method's note beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def key(method: str, task: str, hr_content: str, seed: int) -> str:
        """From the fingerprints of method and task, the hash of the HR pixels, and the image's seed."""
        return fingerprint(method, task, hr_content, seed)

    def get(self, key: str, size: tuple[int, int]) -> tuple[Tensor, dict[str, Any]] | None:
        """The image [3, H, W] of a key and its note, or None when it is not there, damaged, or not (H, W) = `size`."""
        try:
            image, note = load(self._path(key, "png")), json.loads(self._path(key, "json").read_bytes())
        except (UserError, OSError, ValueError):
            return None
        return (image, note) if tuple(image.shape[-2:]) == size else None

    def put(self, key: str, image: Tensor, note: dict[str, Any]) -> None:
        """Store [3, H, W] in [0, 1], rounded to 8 bit, and what the method says of it."""
        atomic_write(self._path(key, "json"), json.dumps(note).encode())
        save(self._path(key, "png"), image)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / key[:2] / f"{key}.{suffix}"
