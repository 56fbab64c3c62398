"""How many examples a second reach training, from files and from tar shards, by the number of `data.workers`?

    python profiling/data_path.py --images 2000 --size 128

Images of SIZE pixels as PNG files and as the shards of `sr3eval prepare`, read in training's order (a new permutation
each pass), batches of 32, flipped; each image once, so that no decoded one is kept from before. The ways take turns in
every round; the median counts.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import click
import torch
from many_images import write_images

from sr3eval.data import Folder
from sr3eval.diffusion.stream import TrainingImages, batches
from sr3eval.folders import find_images
from sr3eval.prepare.run import Settings, prepare
from sr3eval.tasks import Task

BATCH = 32


@click.command()
@click.option("--images", default=2000, show_default=True)
@click.option("--size", default=128, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--workers", multiple=True, type=int, default=(0, 1, 2), show_default=True)
def main(images: int, size: int, rounds: int, workers: tuple[int, ...]) -> None:
    """Print examples/s."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, shards = Path(name) / "files", Path(name) / "shards"
        write_images(folder, images, size)
        prepare(Settings("folder", folder, size), shards, 1)
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(rounds):
            for count in workers:
                for source in (folder, shards):
                    times.setdefault((source.name, count), []).append(seconds(source, size, count))
    for (source_name, count), found in times.items():
        rate = images // BATCH * BATCH / statistics.median(found)
        print(f"{source_name:8} workers = {count}: {rate:8.0f} examples/s", flush=True)


def seconds(source: Path, size: int, workers: int) -> float:
    """Of one pass over the images."""
    examples = TrainingImages(Folder(find_images(source), Task("profiled", 1, f"square {size}")), seed=0, flip=True)
    begun = time.perf_counter()
    for _ in batches(examples, 0, len(examples.folder) // BATCH, BATCH, workers):
        pass
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
