"""How do training, sampling and evaluation scale over processes: measured over 1 and 2, worked out for 8 to 512 GPUs.

    python profiling/scaling.py measure       # ten minutes on two quiet cores
    python profiling/scaling.py sheet         # docs/scaling.md says what it assumes, and has what both gave

measure: every process has one thread. Strong: the same work for all processes together; weak: the same for each. The
ways take turns in every round; the median counts. Efficiency is T1 / (2 T2) of strong and T1 / T2 of weak scaling;
`apart` is T1 / T of two jobs of one process each that run at once and share nothing but the machine: what is lost there
is no fault of the processes' talk.
"""

import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from sr3eval.benchmark import run
from sr3eval.config import from_dict, read_toml
from sr3eval.diffusion import stream
from sr3eval.diffusion.costs import parameters
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.presets import PRESETS
from sr3eval.diffusion.solvers import SamplerOptions
from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.distributed import Job, job
from sr3eval.methods import sr3
from sr3eval.quantities import duration, quantity

RECIPE = Path("configs/train/sr3_photos_16_64.toml")
CHECKPOINT = "sr3eval:assets/sr3_photos_16_64.safetensors"
CPU = torch.device("cpu")
STEPS = 3  # timed ones, after a first
Call = Callable[[], object]


@click.group()
def main() -> None:
    """Scaling over processes."""


# Measured


def training(here: Job, batch: int) -> Call:
    """A training step on a batch that the processes share."""
    options = (f"optimiser.batch_size={batch}", "optimiser.steps=1000000", "optimiser.precision=float32")
    config = from_dict(TrainConfig, read_toml(RECIPE, options)).resolved()
    folder, *_ = stream.open_folders(config.data, config.target)
    trainer, batches = Trainer(config, CPU, here), stream.source(folder, config, CPU, 0, here)
    return lambda: trainer.train_step(next(batches))


def sampling(here: Job, batch: int) -> Call:
    """Two evaluations of the embedded SR3 on this process's part of a batch."""
    method, lr = sr3.build(checkpoint=CHECKPOINT, sampler=SamplerOptions(2)), torch.rand(batch, 3, 16, 16)
    return lambda: (method.upscale(here.part(lr), here.part(range(batch))), here.wait())


def making(here: Job, images: int) -> Call:
    """A run of benchmark.py that makes outputs of the embedded SR3."""
    method = {"kind": "sr3", "checkpoint": CHECKPOINT, "steps": 2}
    return benchmark(here, {"metrics": ["psnr"], "method": [method], "data": {"limit": images}, "batch_size": 2})


def scoring(here: Job, images: int) -> Call:
    """A run of benchmark.py that scores outputs by a network's features."""
    metrics = ["psnr", "ssim", "consistency", "fd_efficientnet_lite0", "top1_agreement_efficientnet_lite0"]
    return benchmark(here, {"metrics": metrics, "method": [{"kind": "bicubic"}], "data": {"limit": images}})


def benchmark(here: Job, config: dict[str, Any]) -> Call:
    """A run from nothing to the report."""
    config |= {"task": "photos_16_64", "data": config["data"] | {"images": "sr3eval:assets/photos_16_64"}}

    def from_nothing() -> None:
        folder = here.lead(tempfile.mkdtemp)
        run(config, Path(folder) / "run")
        here.lead(lambda: shutil.rmtree(folder))

    return from_nothing


WORK: Mapping[str, tuple[Callable[[Job, int], Call], int]] = {  # and images of one process
    "training": (training, 8),
    "sampling": (sampling, 8),
    "making": (making, 16),
    "scoring": (scoring, 32),  # of 64 that there are
}


@main.command(hidden=True)
@click.argument("work")
@click.argument("images", type=int)
def worker(work: str, images: int) -> None:
    """Time one kind of work in this process of a job."""
    here = job()
    build, _ = WORK[work]
    step = build(here, images)
    step()
    here.wait()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    here.wait()
    if here.leads:
        click.echo(json.dumps((time.perf_counter() - began) / STEPS))


def start(work: str, processes: int, images: int) -> "subprocess.Popen[str]":
    """A job of so many processes that times its steps."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, "worker", work, str(images)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ".", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def seconds(*jobs: "subprocess.Popen[str]") -> float:
    """Of a step; the mean of jobs that run at once."""
    return statistics.mean(json.loads(output) for output, _ in [one.communicate() for one in jobs])


def rounds_of(work: str, images: int, rounds: int) -> list[float]:
    """Median seconds of one process, of two jobs apart, of strong and of weak scaling over two processes."""
    times = []
    for _ in range(rounds):
        one = seconds(start(work, 1, images))
        apart = seconds(start(work, 1, images), start(work, 1, images))
        times.append((one, apart, seconds(start(work, 2, images)), seconds(start(work, 2, 2 * images))))
    return [statistics.median(way) for way in zip(*times, strict=True)]


@main.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--work", multiple=True, type=click.Choice(list(WORK)), default=list(WORK), help="By default, all.")
def measure(rounds: int, work: tuple[str, ...]) -> None:
    """Weak and strong scaling over 1 and 2 processes here, as a table in Markdown."""
    click.echo("| work | images | 1 process | 2, strong | efficiency | 2, weak | efficiency | apart |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name in work:
        images = WORK[name][1]
        one, apart, strong, weak = rounds_of(name, images, rounds)
        row = [name, f"{images}; weak {2 * images}", f"{one:.2f} s", f"{strong:.2f} s", f"{one / strong / 2:.2f}"]
        click.echo(f"| {' | '.join([*row, f'{weak:.2f} s', f'{one / weak:.2f}', f'{one / apart:.2f}'])} |")
    click.echo(f"\nload of the last minute: {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")


# Worked out


@dataclass(frozen=True)
class Cluster:
    """Published speeds, in bytes and seconds a GPU and direction, and what is assumed of them.

    nvlink: of an H100 or H200 SXM, 900 GB/s both ways (NVIDIA's data sheets). network: 8 ports of 400 Gb/s for the 8
    GPUs of a machine (NVIDIA DGX H100 and H200 user guide), all of which an all-reduce enters a machine through at
    once. reached: the share of both that collective operations reach. hop: latency. bucket: DDP's, for each of which
    latencies are paid. hidden: share of the backward pass that communication can hide behind. memory: of an H200, 4.8
    TB/s (its data sheet).
    """

    machine: int = 8
    nvlink: float = 450e9
    network: float = 8 * 50e9
    reached: float = 0.7
    hop: float = 10e-6
    bucket: float = 25 * 2**20
    hidden: float = 0.8
    memory: float = 4.8e12

    def all_reduce(self, size: float, gpus: int) -> float:
        """Seconds of the all-reduce of so many bytes: each GPU sends and gets 2 (N - 1) / N of them, by trees."""
        speed = self.reached * (self.nvlink if gpus <= self.machine else min(self.nvlink, self.network))
        latency = math.ceil(size / self.bucket) * 2 * math.log2(gpus) * self.hop
        return 2 * (gpus - 1) / gpus * size / speed + latency


@dataclass(frozen=True)
class Measured:
    """Of a network in bfloat16 on an H200: images a second of training in steps of `batch`, and of an evaluation."""

    training: float
    batch: int
    sampling: float | None = None


MEASURED = {
    "faces_64_256": Measured(27.5, 8, 111.0),  # sr3eval/assets/training/gpu_job.md
    "faces_64_512": Measured(7.36, 2, 29.0),  # the same
    "photos_16_64": Measured(4409 * 256 / 189, 256),  # sr3eval/assets/training/README.md, second piece; CUDA graphs
}
NEAREST = {  # whose operations a second a network that was not measured is taken to reach
    "faces_16_128": "faces_64_256",
    "imagenet_64_256": "faces_64_256",  # the same network
    "faces_256_1024": "faces_64_512",
}
PASSES = 4.0  # evaluations in the time of a training image, where they were not measured: 4.0 and 3.9 where they were
INCEPTION = 6030.0  # images a second, TF32: gpu_job.md
FRECHET = 0.509  # seconds of a Fréchet distance of 2,048 dimensions on a CPU: gpu_job.md
DECODED = 0.0019  # seconds that one core takes to read a PNG of 256 pixels, 59 kB, from memory
READERS = 8  # cores a GPU that decode
DISTANCES = 21  # of a value with its interval
NUMBER = 4  # bytes
ADAM, STEP = 7, 13  # numbers read and written a parameter: by Adam; with clipping and EMA, too


@dataclass(frozen=True)
class Network:
    """What a preset's network needs.

    gflop: of a forward pass of an image. batch: that speeds were measured with. image, evaluation: seconds of the
    forward and backward pass of an image, and of a forward pass alone. like: whose speed it is.
    """

    parameters: int
    gflop: float
    batch: int
    image: float
    evaluation: float
    like: str

    @classmethod
    def of(cls, name: str, cluster: Cluster) -> "Network":
        like = NEAREST.get(name, name)
        (count, gflop), (other, its_gflop) = counted(name), counted(like)
        found = MEASURED[like]
        image = (1 / found.training - ADAM * NUMBER * other / cluster.memory / found.batch) * gflop / its_gflop
        evaluation = gflop / its_gflop / (found.sampling or PASSES * found.training)
        return cls(count, gflop, found.batch, image, evaluation, like)

    def step(self, images: float, cluster: Cluster, gpus: int = 1) -> float:
        """Seconds of a training step of so many images a GPU."""
        computing = images * self.image + STEP * NUMBER * self.parameters / cluster.memory
        if gpus == 1:
            return computing
        hidden = cluster.hidden * images * self.image * 2 / 3
        return computing + max(0.0, cluster.all_reduce(NUMBER * self.parameters, gpus) - hidden)


@functools.cache
def counted(name: str) -> tuple[int, float]:
    """Parameters of a preset's network, and GFLOP of a forward pass of an image."""
    config = PRESETS[name]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = precondition("sr3", config)
        model(*torch.empty(2, 1, 3, config.image_size, config.image_size), torch.ones(1))
    return parameters(model), counter.get_total_flops() / 1e9


@main.command()
@click.option("--batch", default=256, show_default=True, help="Of strong scaling; the paper's.")
@click.option("--link", default=3200.0, show_default=True, help="Gb/s of a machine of 8 GPUs.")
def sheet(batch: int, link: float) -> None:
    """What 8, 64 and 512 GPUs give for each preset, as tables in Markdown."""
    cluster = Cluster(network=link / 8 * 1e9)
    networks = {names: Network.of(names[0], cluster) for names in alike()}
    for line in [*speeds(networks), "", *scaled(networks, cluster, batch), "", *evaluated()]:
        click.echo(line)


Names = tuple[str, ...]  # of presets with one network


def alike() -> Iterable[Names]:
    """The presets, those with one network together, in order."""
    return dict.fromkeys(tuple(name for name in PRESETS if PRESETS[name] == config) for config in PRESETS.values())


def speeds(networks: Mapping[Names, Network]) -> Iterator[str]:
    """The networks, what they do on one GPU, and how that is known."""
    yield "| preset | parameters | FLOP an image, forward | training, images/s | evaluation, images/s | known |"
    yield "|---|---|---|---|---|---|"
    for names, network in networks.items():
        known = "measured" if network.like in names else f"by operations, from {network.like}"
        rates = (quantity(1 / network.image, ""), quantity(1 / network.evaluation, ""))
        sizes = (quantity(network.parameters, ""), quantity(1e9 * network.gflop, ""))
        yield f"| {' | '.join(cell.strip() for cell in [', '.join(names), *sizes, *rates, known])} |"


def scaled(networks: Mapping[Names, Network], cluster: Cluster, batch: int) -> Iterator[str]:
    """Training and sampling of every preset on each number of GPUs."""
    yield (
        f"| preset | GPUs | all-reduce | batch {batch}: step | efficiency | 1M steps | "
        "batch a GPU | step | efficiency | 50,000 images of 100 evaluations |"
    )
    yield f"{'|---' * 10}|"
    for names, network in networks.items():
        for gpus in (8, 64, 512):
            sent = milliseconds(cluster.all_reduce(NUMBER * network.parameters, gpus))
            cells = [", ".join(names), str(gpus), sent, *strong(network, cluster, gpus, batch)]
            sampled = duration(50_000 / gpus * 100 * network.evaluation)
            yield f"| {' | '.join([*cells, *weak(network, cluster, gpus), sampled])} |"


def strong(network: Network, cluster: Cluster, gpus: int, batch: int) -> list[str]:
    """Step, efficiency, and time of a million steps of a batch that all GPUs share."""
    if gpus > batch:
        return ["–"] * 3
    step = network.step(batch / gpus, cluster, gpus)
    return [milliseconds(step), f"{network.step(batch, cluster) / gpus / step:.2f}", duration(1e6 * step)]


def weak(network: Network, cluster: Cluster, gpus: int) -> list[str]:
    """Images a GPU, step and efficiency, of as many images a GPU as were measured."""
    step = network.step(network.batch, cluster, gpus)
    return [str(network.batch), milliseconds(step), f"{network.step(network.batch, cluster) / step:.2f}"]


def evaluated() -> Iterator[str]:
    """FID of 50,000 outputs of 256 pixels and their references: all is shared but the distances."""
    distances = DISTANCES * FRECHET
    for gpus in (8, 64, 512):
        features, decoding = (2 * 50_000 * cost / gpus for cost in (1 / INCEPTION, DECODED / READERS))
        yield (
            f"FID of 50,000 images on {gpus} GPUs: {features:.2f} s of features beside {decoding:.2f} s of "
            f"decoding by {READERS} cores a GPU, then {distances:.1f} s of distances."
        )


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.{1 if seconds < 0.1 else 0}f} ms"


if __name__ == "__main__":
    main()
