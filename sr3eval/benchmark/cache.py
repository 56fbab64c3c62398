"""Outputs by content: what a method made of an input under a seed is looked up, not made again."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.folders import stable_hash
from sr3eval.images import Size, load, to_uint8
from sr3eval.method import Method, fingerprint
from sr3eval.sources import code_behind

PNG_END = b"IEND\xaeB`\x82"  # the last chunk, with its checksum; decoders do not miss it

FILE = re.compile(r"[0-9a-f]{64}\.(png|json)")


@dataclass(frozen=True)
class Origin:
    """What an entry was made for: method and task by name, and a run's folder; empty where that was not recorded."""

    method: str = ""
    task: str = ""
    run: str = ""


@dataclass(frozen=True)
class Entry:
    """What stands beside a picture: its sha256 (None of old entries), what the method said of it, and its origin."""

    sha256: str | None
    note: Mapping[str, Any]
    origin: Origin

    @classmethod
    def parse(cls, text: bytes) -> "Entry":
        """Read `text`; old entries are the note alone. ValueError for what is neither."""
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("not a table")
        if found.keys() != {"sha256", "note", "origin"}:
            return cls(None, found, Origin())
        return cls(found["sha256"], found["note"], Origin(**found["origin"]))


class Cache:
    """PNG files named by the hash of everything that they depend on, each with an `Entry` in JSON beside it.

    Files are replaced and never written to: a run's folder has them under other names (hard links).
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder; UserError where that cannot be."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: no cache can be kept there ({error.strerror}); give another --cache") from None

    def get(self, key: str, size: Size) -> tuple[bytes, Mapping[str, Any]] | None:
        """The PNG file of a key and its note, or None when it is not there, damaged, or not of (H, W) = `size`."""
        found = self.read(key)
        return (found[0], found[1].note) if found is not None and png_size(found[0]) == size else None

    def read(self, key: str) -> tuple[bytes, Entry] | None:
        """The PNG file of a key and what stands beside it, or None when either is not there or damaged."""
        try:
            entry, png = Entry.parse(self.path(key, "json").read_bytes()), self.path(key).read_bytes()
            if entry.sha256 is None:
                load(self.path(key))
        except (UserError, OSError, ValueError, TypeError):
            return None
        whole = png.endswith(PNG_END) if entry.sha256 is None else hashlib.sha256(png).hexdigest() == entry.sha256
        return (png, entry) if whole else None

    def put(self, key: str, png: bytes, note: Mapping[str, Any], origin: Origin) -> None:
        """Store a picture, and what the method says of it."""
        entry = {"sha256": hashlib.sha256(png).hexdigest(), "note": dict(note), "origin": asdict(origin)}
        atomic_write(self.path(key, "json"), json.dumps(entry).encode())
        atomic_write(self.path(key), png)

    def keys(self) -> Iterator[str]:
        """Of all entries, and of what is left of some, in no order."""
        files = (path for path in self.folder.glob("[0-9a-f][0-9a-f]/*.*") if FILE.fullmatch(path.name))
        return iter({path.stem: None for path in files if path.name.startswith(path.parent.name)})

    def remove(self, key: str) -> None:
        """Take an entry out; it is made again where it is needed."""
        for suffix in ("png", "json"):
            self.path(key, suffix).unlink(missing_ok=True)

    def path(self, key: str, suffix: str = "png") -> Path:
        """Of the picture of a key, or of what stands beside it."""
        return self.folder / key[:2] / f"{key}.{suffix}"


def png_size(png: bytes) -> Size:
    """(H, W) of a PNG file, of its first chunk."""
    return int.from_bytes(png[20:24], "big"), int.from_bytes(png[16:20], "big")


def key_of(identity: str, content: str, seed: int) -> str:
    """Names an output: by the `identity` of the method, the `content_of` the input, and the seed of the noise."""
    return fingerprint(identity, content, seed)


def content_of(lr: Tensor) -> str:
    """sha256 of the pixels of an input [3, h, w] in [0, 1]."""
    pixels = to_uint8(lr)
    return hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def seed_of(run_seed: int, image_id: str, sample: int) -> int:
    """The seed of a method's `sample`, from 1, of an image."""
    return stable_hash(run_seed, image_id, *([sample] if sample > 1 else []))


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
