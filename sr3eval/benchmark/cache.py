"""Outputs by content: what a method made of an input under a seed is looked up, not made again."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.images import Size, load
from sr3eval.method import Method, fingerprint
from sr3eval.sources import code_behind

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

    def get(self, key: str, size: Size) -> tuple[bytes, dict[str, Any]] | None:
        """The PNG file of a key and its note, or None when it is not there, damaged, or not of (H, W) = `size`."""
        path = self._path(key, "png")
        try:
            shape, png, note = load(path).shape, path.read_bytes(), json.loads(self._path(key, "json").read_bytes())
        except (UserError, OSError, ValueError):
            return None
        return (png, note) if tuple(shape[-2:]) == size and png.endswith(PNG_END) else None

    def put(self, key: str, png: bytes, note: Mapping[str, Any]) -> None:
        """Store a picture, and what the method says of it."""
        atomic_write(self._path(key, "json"), json.dumps(dict(note)).encode())
        atomic_write(self._path(key, "png"), png)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / key[:2] / f"{key}.{suffix}"


def identity(method: Method) -> str:
    """Names all that a method's images depend on besides the inputs and seeds: settings, files, code, device."""
    parts = [method.fingerprint, computed_on(method.device)]
    wrapped: Method | None = method
    while wrapped is not None:
        code = code_behind(type(wrapped))
        parts.append(code.digest if code else "")
        wrapped = wrapped.inner
    return fingerprint(*parts)


def computed_on(device: torch.device) -> str:
    """The type of a device, and how a GPU rounds there: its images differ from the CPU's."""
    backends = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    override = os.environ.get("NVIDIA_TF32_OVERRIDE", "")
    return device.type if device.type != "cuda" else f"cuda, TF32 {backends} {override}"
