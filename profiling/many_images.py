"""Is the time linear and the memory constant in the number of images? Of statistics and of a benchmark of 4 methods.

    python profiling/many_images.py --count 50000 --out /tmp/many

Makes COUNT images of 64 pixels as files and as tar shards; statistics of both by a network that costs next to nothing
(means of 16 blocks), so that reading is what is measured; then a benchmark of the shards by four kinds of bicubic
interpolation, scored by PSNR and consistency. At COUNT / 4 and at COUNT images.

    python profiling/many_images.py --listed 1281167 --out /tmp/many

does something else: it writes an index of so many images, without the images, and prints what opening it for a training
takes, and what a forked reader has of its own once it has looked up each.
Prints wall time and peak memory of each command, and by how much both grow from one to the other. A benchmark of
50,000 takes 500,000 files below OUT: its pictures and its cache.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import psutil
import tomli_w
import torch
from PIL import Image

from sr3eval.benchmark.statistics import statistics
from sr3eval.diffusion.stream import TrainingImages, digest, open_folders
from sr3eval.diffusion.train_config import TrainingDataConfig
from sr3eval.features.networks import Network
from sr3eval.shards import FORMAT, INDEX
from sr3eval.tasks import TASKS

SIDE = 64  # pixels
PER_FOLDER = 1000
METHODS = [
    {"name": f"bicubic {kernel}{' x8' * ensemble}", "kind": "bicubic", "kernel": kernel, "ensemble": ensemble}
    for kernel in ("bicubic", "matlab")
    for ensemble in (False, True)
]


@click.command()
@click.option("--count", default=50_000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="many", show_default=True)
@click.option("--listed", type=int, help="Open an index of so many images.")
@click.option("--statistics-of", type=click.Path(path_type=Path), help="Do this alone.")
def main(count: int, out: Path, listed: int | None, statistics_of: Path | None) -> None:
    """Measure, and print the figures."""
    if listed is not None:
        open_index(out / f"index_{listed}", listed)
        return
    if statistics_of is not None:
        write_statistics(statistics_of)
        return
    made: dict[tuple[str, int], tuple[float, float]] = {}
    for images in (count // 4, count):
        folder = out / f"{images}"
        write_images(folder / "files", images)
        sr3eval = ["-m", "sr3eval.cli", "prepare", "folder", folder / "files", "--size", SIDE]
        made["prepare", images] = measured(*sr3eval, "--out", folder / "shards")
        for kind in ("files", "shards"):
            made[f"statistics of {kind}", images] = measured(__file__, "--statistics-of", folder / kind)
        config = folder / "config.toml"
        config.write_text(tomli_w.dumps(benchmark(folder / "shards")))
        for name in ("benchmark", "the same again"):
            made[name, images] = measured("benchmark.py", "run", config, "--out", folder / "run")
        report = folder / "run" / "report.html"
        print(f"{images:,} images: report.html {report.stat().st_size / 1e6:.1f} MB", flush=True)
    print_growth(made, count)


def write_images(folder: Path, count: int, side: int = SIDE) -> None:
    """Smooth images, so that they compress as photographs do."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // PER_FOLDER:03}" / f"{number:06}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (side // 4, side // 4, 3), np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, compress_level=1)


class Blocks(torch.nn.Module):
    """Means of 4 x 4 blocks: [N, 48]."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, (4, 4)).flatten(1)


def write_statistics(images: Path) -> None:
    """As `benchmark.py statistics` does."""
    network = Network("blocks", 48, Blocks(), lambda x: x, lambda module, x: (module(x), module(x)))
    out = images.with_name(f"{images.name}.npz")
    out.unlink(missing_ok=True)
    statistics(images, "photos_16_64", network, out, 32)


def open_index(folder: Path, count: int) -> None:
    """Of `count` images of 1,000 classes; prints seconds and MB."""
    write_index(folder, count)
    begun, before = time.perf_counter(), own_memory()
    data = TrainingDataConfig(str(folder), held_out=0.01)
    training, validation, *_ = open_folders(data, TASKS["photos_16_64"])
    print(f"opened: {time.perf_counter() - begun:.1f} s, {own_memory() - before:.0f} MB more", flush=True)
    begun = time.perf_counter()
    digest(training, validation)
    print(f"digest: {time.perf_counter() - begun:.1f} s, {own_memory() - before:.0f} MB more", flush=True)
    images = TrainingImages(training, 0)
    if (reader := os.fork()) == 0:
        begun, before = time.perf_counter(), private_memory()
        for position in range(len(training)):
            assert training.paths.files[images.image_at(position)].name
        each = 1e6 * (time.perf_counter() - begun) / len(training)
        print(f"a forked reader: {private_memory() - before:.0f} MB of its own, {each:.1f} us an image", flush=True)
        os._exit(0)
    os.waitpid(reader, 0)


def write_index(folder: Path, count: int) -> None:
    """Shards of 1,000 images, of which only the lists are there: the tar files are holes."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for shard, first in enumerate(range(0, count, PER_FOLDER)):
        synset = f"n{shard % 1000:08}"
        names = [f"{synset}/{synset}_{number}" for number in range(first, min(first + PER_FOLDER, count))]
        members = [[name, f"{name}.png", 512 * i, 512, shard % 1000, 256, 256] for i, name in enumerate(names)]
        tar, sha256 = folder / f"{shard:06}.tar", f"{shard:064}"
        tar.with_suffix(".json").write_text(json.dumps({"sha256": sha256, "members": members}))
        tar.touch()
        os.truncate(tar, 512 * len(names))
        entries.append({"url": tar.name, "nsamples": len(names), "filesize": 512 * len(names), "sha256": sha256})
    classes = [f"n{number:08}" for number in range(1000)]
    (folder / INDEX).write_text(json.dumps({"format": FORMAT, "classes": classes, "shardlist": entries}))


def own_memory() -> float:
    """MB that this process has in memory."""
    return psutil.Process().memory_info().rss / 2**20


def private_memory() -> float:
    """MB of it that it shares with no other; of Linux alone."""
    full = psutil.Process().memory_full_info()
    return full.uss / 2**20


def benchmark(images: Path) -> dict[str, object]:
    """The run's config."""
    metrics = ["psnr", "consistency"]
    data = {"images": str(images), "group": "image"}
    return {"task": "photos_16_64", "batch_size": 64, "metrics": metrics, "data": data, "method": METHODS}


def measured(*arguments: object) -> tuple[float, float]:
    """(seconds, peak MB of the process) of a Python command."""
    begun = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed")
    found = time.perf_counter() - begun, usage.ru_maxrss / 1024
    print(json.dumps([str(a) for a in arguments[:3]] + [round(value, 1) for value in found]), flush=True)
    return found


def print_growth(made: dict[tuple[str, int], tuple[float, float]], count: int) -> None:
    """A table: both sizes, and how much time and memory four times the images take."""
    print("| | images | s | ms an image | peak MB | time ratio | KB an image more |")
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in made):
        (few_s, few_mb), (s, mb) = made[name, count // 4], made[name, count]
        each = (mb - few_mb) * 1024 / (count - count // 4)
        print(f"| {name} | {count:,} | {s:.1f} | {1e3 * s / count:.2f} | {mb:.0f} | {s / few_s:.2f} | {each:.2f} |")


if __name__ == "__main__":
    main()
