"""Outputs by content: what a method made of an input under a seed is looked up, not made again."""

from pathlib import Path

from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.images import load, save
from sr3eval.method import fingerprint


class Cache:
    """PNG files named by the hash of everything that they depend on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def key(method: str, task: str, hr_content: str, seed: int) -> str:
        """From the fingerprints of method and task, the hash of the HR pixels, and the image's seed."""
        return fingerprint(method, task, hr_content, seed)

    def get(self, key: str, size: tuple[int, int]) -> Tensor | None:
        """The image [3, H, W] of a key, or None when it is not there, damaged, or not (H, W) = `size` pixels."""
        try:
            image = load(self._path(key))
        except UserError:
            return None
        return image if tuple(image.shape[-2:]) == size else None

    def put(self, key: str, image: Tensor) -> None:
        """Store [3, H, W] in [0, 1], rounded to 8 bit."""
        save(self._path(key), image)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"
