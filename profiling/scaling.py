"""How do training and sampling scale over processes: measured on a CPU over 1 and 2, worked out for 8 to 512 GPUs.

    python profiling/scaling.py measure       # three minutes on two quiet cores
    python profiling/scaling.py sheet         # docs/scaling.md says what it assumes, and has what it gave

measure: every process has one thread. Strong: the same work for all processes; weak: the same work for each. They take
turns in every round; columns are median seconds with one and two processes and the efficiency, of which 1 is all that
a second core can bring: T1 / (2 T2) for strong, T1 / T2 for weak scaling.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from sr3eval.config import from_dict, read_toml
from sr3eval.diffusion import stream
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.presets import PRESETS
from sr3eval.diffusion.solvers import SamplerOptions
from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import UNetConfig
from sr3eval.distributed import Job, job
from sr3eval.methods import sr3

RECIPE = Path("configs/train/sr3_photos_16_64.toml")
CHECKPOINT = "sr3eval:assets/sr3_photos_16_64.safetensors"
CPU = torch.device("cpu")
STEPS = 3  # timed ones
BATCH = 8  # images of one process


@click.group()
def main() -> None:
    """Scaling over processes."""


def training(here: Job, batch: int) -> Callable[[], object]:
    """A training step on a batch that the processes share."""
    options = (f"optimiser.batch_size={batch}", "optimiser.steps=1000000", "optimiser.precision=float32")
    config = from_dict(TrainConfig, read_toml(RECIPE, options)).resolved()
    folder, *_ = stream.open_folders(config.data, config.target)
    trainer, batches = Trainer(config, CPU, here), stream.source(folder, config, CPU, 0, here)
    return lambda: trainer.train_step(next(batches))


def sampling(here: Job, batch: int) -> Callable[[], object]:
    """Two evaluations of the embedded SR3 on this process's part of a batch."""
    method, lr = sr3.build(checkpoint=CHECKPOINT, sampler=SamplerOptions(2)), torch.rand(batch, 3, 16, 16)
    return lambda: (method.upscale(here.part(lr), here.part(range(batch))), here.wait())


WORK = {"training": training, "sampling": sampling}


@main.command(hidden=True)
@click.argument("work")
@click.argument("batch", type=int)
def worker(work: str, batch: int) -> None:
    """Time one kind of work in this process of a job."""
    here = job()
    step = WORK[work](here, batch)
    step()
    here.wait()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    here.wait()
    if here.leads:
        click.echo(json.dumps((time.perf_counter() - began) / STEPS))


def timed(work: str, processes: int, batch: int) -> float:
    """Seconds of a step of so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, "worker", work, str(batch)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ".", "CUDA_VISIBLE_DEVICES": ""}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)


@main.command()
@click.option("--rounds", default=3, show_default=True)
def measure(rounds: int) -> None:
    """Weak and strong scaling of training and sampling over 1 and 2 processes here."""
    click.echo(f"{'':20}{'batch':>9}{'1 process':>12}{'2 processes':>13}{'efficiency':>12}")
    for work in WORK:
        runs = [(timed(work, 1, BATCH), timed(work, 2, BATCH), timed(work, 2, 2 * BATCH)) for _ in range(rounds)]
        one, strong, weak = (statistics.median(times) for times in zip(*runs, strict=True))
        click.echo(f"{work + ', strong':20}{BATCH:>9}{one:12.3f}{strong:13.3f}{one / (2 * strong):12.2f}")
        batches = f"{BATCH}, {2 * BATCH}"
        click.echo(f"{work + ', weak':20}{batches:>9}{one:12.3f}{weak:13.3f}{one / weak:12.2f}")


@dataclass(frozen=True)
class Cluster:
    """Published speeds, in bytes and seconds a GPU and direction, and what is assumed of them.

    nvlink: H100 SXM, 900 GB/s both ways (NVIDIA H100 data sheet). network: DGX H100, 8 ports of 400 Gb/s for 8 GPUs
    (NVIDIA DGX H100 user guide), all of which the rings of an all-reduce enter a machine through at once. reached: the
    share of that which all-reduces reach. hop: latency. bucket: DDP's, which a latency is paid for each. hidden: share
    of the backward pass that communication can hide behind.
    """

    machine: int = 8
    nvlink: float = 450e9
    network: float = 8 * 50e9
    reached: float = 0.7
    hop: float = 10e-6
    bucket: float = 25 * 2**20
    hidden: float = 0.8

    def all_reduce(self, size: float, gpus: int) -> float:
        """Seconds of the all-reduce of so many bytes: each GPU sends and gets 2 (N - 1) / N of them."""
        speed = self.reached * (self.nvlink if gpus <= self.machine else min(self.nvlink, self.network))
        latency = math.ceil(size / self.bucket) * 2 * math.log2(gpus) * self.hop
        return 2 * (gpus - 1) / gpus * size / speed + latency


@dataclass(frozen=True)
class Preset:
    """What a training step of a network needs: parameters, and GFLOP an image, forward and backward."""

    parameters: int
    gflop: float

    @classmethod
    def of(cls, config: UNetConfig) -> "Preset":
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            model = precondition("sr3", config)
            images = torch.empty(2, 1, 3, config.image_size, config.image_size)
            model(*images, torch.ones(1))
        return cls(sum(p.numel() for p in model.parameters()), 3 * counter.get_total_flops() / 1e9)

    def step(self, gpus: int, images: float, tflops: float, cluster: Cluster) -> tuple[float, float]:
        """Seconds of a step on so many images a GPU: of computing, and of all."""
        computing = images * self.gflop / tflops / 1e3
        hidden = cluster.hidden * computing * 2 / 3
        return computing, computing + max(0.0, cluster.all_reduce(4 * self.parameters, gpus) - hidden)


# Of configs/train/sr3_photos_16_64.toml on an H200, compiled: 9,600 steps of 256 images took 7 minutes.
MEASURED = 9600 * 256 / (7 * 60)  # images a second


@main.command()
@click.option("--tflops", type=float, help="That a GPU trains at; by default what was measured of photos_16_64.")
@click.option("--images", default=4, show_default=True, help="A GPU, of weak scaling.")
@click.option("--batch", default=256, show_default=True, help="Of strong scaling; the paper's.")
def sheet(tflops: float | None, images: int, batch: int) -> None:
    """What 8, 64 and 512 GPUs give for each preset, as a table in Markdown."""
    presets, cluster = {name: Preset.of(config) for name, config in PRESETS.items()}, Cluster()
    tflops = tflops or MEASURED * presets["photos_16_64"].gflop / 1e3
    click.echo(f"{tflops:.0f} TFLOP/s a GPU\n")
    click.echo(
        f"| preset | M parameters | TFLOP an image | GPUs | all-reduce | strong, {batch}: step, efficiency, days of 1M "
        f"steps | weak, {images} a GPU: step, efficiency |\n|---|---|---|---|---|---|---|"
    )
    for name, preset in presets.items():
        for gpus in (8, 64, 512):
            row = [name, f"{preset.parameters / 1e6:.0f}", f"{preset.gflop / 1e3:.2f}", str(gpus)]
            row.append(f"{1e3 * cluster.all_reduce(4 * preset.parameters, gpus):.1f} ms")
            row.append(_cell(preset, gpus, batch / gpus, tflops, cluster, days=True) if gpus <= batch else "–")
            row.append(_cell(preset, gpus, images, tflops, cluster, days=False))
            click.echo(f"| {' | '.join(row)} |")


def _cell(preset: Preset, gpus: int, images: float, tflops: float, cluster: Cluster, days: bool) -> str:
    computing, whole = preset.step(gpus, images, tflops, cluster)
    time_of_all = f", {whole * 1e6 / 86400:.1f}" if days else ""
    return f"{1e3 * whole:.0f} ms, {computing / whole:.2f}{time_of_all}"


if __name__ == "__main__":
    main()
