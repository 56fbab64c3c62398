"""How fast does `sr3eval prepare` decode, crop, resize and encode, beside plain Pillow and torchvision?

    python profiling/prepare.py --rounds 5

Images like FFHQ's (PNG, 1024 pixels) and like ImageNet's (JPEG, 500 x 375) to 256 pixels, one thread each, made of the
embedded photographs. The contenders take turns in every round; the median of their times counts. Ours resizes by exact
area means in float32, as training does; Pillow's BOX filter is of the same kind in 8 bit, torchvision's antialiased
bilinear filter is what its users take. Then the whole command with 1 and 2 processes.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2 import functional as F

from sr3eval.config import resolve_path
from sr3eval.folders import find_images
from sr3eval.prepare.listing import Item
from sr3eval.prepare.run import Settings, prepare
from sr3eval.prepare.writer import LEVEL, encoded

SIDE = 256  # pixels
KINDS = {"FFHQ, PNG 1024": ((1024, 1024), "PNG"), "ImageNet, JPEG 500 x 375": ((500, 375), "JPEG")}


def ours(path: Path) -> None:
    """What a process of `sr3eval prepare` does with an image."""
    encoded(Item("x", path), Settings("folder", path, SIDE).task)


def pillow(path: Path) -> None:
    """The same steps in Pillow, in 8 bit."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.resize((SIDE, SIDE), Image.Resampling.BOX, (left, top, left + side, top + side))
    square.save(io.BytesIO(), "PNG", compress_level=LEVEL)


def vision(path: Path) -> None:
    """The same steps in torchvision."""
    image = torchvision.io.decode_image(str(path), torchvision.io.ImageReadMode.RGB)
    square = F.center_crop(image, [min(image.shape[-2:])] * 2)
    torchvision.io.encode_png(F.resize(square, [SIDE, SIDE], antialias=True), LEVEL)


CONTENDERS: dict[str, Callable[[Path], None]] = {"sr3eval": ours, "Pillow": pillow, "torchvision": vision}


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--images", default=24, show_default=True)
@click.option("--photographs", type=click.Path(path_type=Path), help="Take these in place of the embedded ones.")
def main(rounds: int, images: int, photographs: Path | None) -> None:
    """Print images/s of every contender, and by how much ours is faster."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, kind) in KINDS.items():
            paths = write_images(Path(folder) / kind, size, kind, images, photographs)
            print_rates(name, paths, rounds)
            print_command(Path(folder) / kind, Path(folder) / f"{kind}_shards", images)


def write_images(folder: Path, size: tuple[int, int], kind: str, count: int, photographs: Path | None) -> list[Path]:
    """Photographs of that size in a folder."""
    folder.mkdir()
    sources = list(find_images(photographs or resolve_path("sr3eval:assets/photos_16_64")).values())
    paths = [folder / f"{number:04}.{kind.lower()}" for number in range(count)]
    for number, path in enumerate(paths):
        with Image.open(sources[number % len(sources)].open("rb")) as image:
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path, quality=90)
    return paths


def print_rates(name: str, paths: list[Path], rounds: int) -> None:
    """The median over the rounds."""
    times: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    for _ in range(rounds):
        for contender, work in CONTENDERS.items():
            begun = time.perf_counter()
            for path in paths:
                work(path)
            times[contender].append((time.perf_counter() - begun) / len(paths))
    rates = {contender: 1 / statistics.median(found) for contender, found in times.items()}
    for contender, rate in rates.items():
        print(f"{name:26} {contender:12} {rate:7.1f} images/s  {rates['sr3eval'] / rate:5.2f} x", flush=True)


def print_command(folder: Path, out: Path, images: int) -> None:
    """Of the whole command, processes included: they take seconds to start."""
    for workers in (1, 2):
        begun = time.perf_counter()
        prepare(
            Settings("folder", folder, SIDE, per_shard=max(1, images // 8)),
            out.with_name(f"{out.name}{workers}"),
            workers,
        )
        print(f"{'':26} whole command, {workers} process(es): {time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
