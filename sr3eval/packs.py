"""The stimulus pack: pictures of images by several methods, for a human study. One writer, whatever they come from."""

import dataclasses
import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from sr3eval.errors import UserError, number
from sr3eval.files import TEMPORARY, atomic_write
from sr3eval.folders import stable_hash

FORMAT = 2  # of manifest.json; the first had no groups and no windows
MANIFEST = "manifest.json"
HR, LR = "hr", "lr"  # folders that are no method's
Kind = Literal["test", "practice", "catch"]


@dataclass(frozen=True)
class Item:
    """One image of a pack; `sha256` of its files by folder (hr, lr and each method's)."""

    image_id: str
    kind: Kind
    sha256: dict[str, str]
    group: str = ""  # of images that analyses draw together, say the photograph that crops are from
    window: tuple[int, ...] = ()  # left, top, width, height of what was cut out; empty for the whole picture


@dataclass(frozen=True)
class Manifest:
    """What is in a pack; `methods` maps folder names to methods' names.

    `noise`: levels of 255 by which a study may change the pixels that it shows, in each session by others.
    """

    format: int
    task: str
    seed: int
    methods: dict[str, str]
    items: tuple[Item, ...]
    noise: int = 1


@dataclass(frozen=True)
class Entry:
    """An image to be packed: `files` holds a PNG file's bytes by folder. The rest is as in Item."""

    image_id: str
    kind: Kind
    files: Mapping[str, bytes]
    group: str = ""
    window: tuple[int, ...] = ()


def pixels_sha256(picture: bytes) -> str:
    """sha256 of a picture's pixels as 8-bit RGB, row by row, whatever its file."""
    with Image.open(io.BytesIO(picture)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def kinds(ids: Sequence[str], test: int | None, practice: int, catch: int, seed: int) -> dict[str, Kind]:
    """{image id: what it is for} in the order of the seeded choice; all that are left are tested where `test` is None.

    Raises UserError where none would be left to test.
    """
    if len(ids) <= practice + catch:
        raise UserError(
            f"{number(len(ids), 'image')} would leave none to test, after {practice} for practice and {catch} for catch"
            "; lower --practice and --catch"
        )
    order = sorted(ids, key=lambda image_id: stable_hash("stimuli", seed, image_id))
    counts: dict[Kind, int] = {"practice": practice, "catch": catch, "test": len(ids) if test is None else test}
    purposes = [kind for kind, count in counts.items() for _ in range(count)]
    return dict(zip(order, purposes, strict=False))


def write(out: Path, task: str, seed: int, methods: Mapping[str, str], entries: Iterable[Entry]) -> None:
    """Write a pack into the new folder `out`, which appears whole or not at all; UserError for one that is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=out.parent) as temporary:
        pack = Path(temporary) / "pack"
        items = tuple(_item(pack, entry) for entry in entries)
        manifest = Manifest(FORMAT, task, seed, dict(methods), items)
        atomic_write(pack / MANIFEST, json.dumps(dataclasses.asdict(manifest), indent=1).encode())
        pack.replace(out)


def _item(pack: Path, entry: Entry) -> Item:
    for folder, content in entry.files.items():
        path = pack / folder / f"{entry.image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    sums = {folder: hashlib.sha256(content).hexdigest() for folder, content in entry.files.items()}
    return Item(entry.image_id, entry.kind, sums, entry.group, entry.window)
