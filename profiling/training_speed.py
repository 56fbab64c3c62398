"""How many images a second does the embedded recipe train on a CPU, and what does each measure bring and cost?

    python profiling/training_speed.py --rounds 5     # ten minutes on two quiet cores, most of them compilation

The ways take turns in every round: crops by the loader or from memory, float32 or bfloat16 (where the CPU has it, else
PyTorch emulates it, slowly), eager or compiled; and, in float32, with the activations of the U-Net's first level, first
two, or all levels checkpointed. Columns: median and best images a second, times the second way's, and MiB that a step
allocates at its peak beyond weights and moments, but for compiled ones.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sr3eval.config import from_dict, read_toml
from sr3eval.device import has_bfloat16
from sr3eval.diffusion import stream
from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig

RECIPE = Path("configs/train/sr3_photos_16_64.toml")
CPU = torch.device("cpu")
LOADER = ("data.in_memory=false", "data.transpose=false", "data.gains=[1.0, 1.0]")
WAYS: dict[str, tuple[str, ...]] = {
    "loader, float32": ("optimiser.precision=float32", *LOADER),
    "memory, float32": ("optimiser.precision=float32",),
    **{
        f"memory, float32, checkpointed {levels}": (
            "optimiser.precision=float32",
            f"optimiser.checkpoint_activations={levels}",
        )
        for levels in ("[0]", "[0, 1]", "[0, 1, 2]")
    },
    "memory, bfloat16": ("optimiser.precision=bfloat16",),
    "memory, bfloat16, compiled": ("optimiser.precision=bfloat16", "optimiser.compile=true"),
}


@dataclass
class Contender:
    """One way to train: its trainer, its batches, and the seconds of its steps."""

    trainer: Trainer
    batches: Iterator[Tensor]
    seconds: list[float] = field(default_factory=list)

    def step(self) -> float:
        """Seconds of one step, the batch included."""
        began = time.perf_counter()
        self.trainer.train_step(next(self.batches))
        return time.perf_counter() - began

    def peak(self) -> int:
        """Most bytes that a step holds at once beyond what was allocated before it, on the CPU."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            self.step()
        events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
        events.sort(key=lambda e: e.start_ns())
        return max(accumulate(e.nbytes() for e in events))


def contender(overrides: tuple[str, ...], batch_size: int) -> Contender:
    """Prepare one way, first steps and compilation included."""
    options = (*overrides, f"optimiser.batch_size={batch_size}", "optimiser.steps=1000000")
    config = from_dict(TrainConfig, read_toml(RECIPE, options)).resolved()
    folder, *_ = stream.open_folders(config.data, config.target)
    made = Contender(Trainer(config, CPU), stream.source(folder, config, CPU, 0))
    made.step()
    made.step()
    return made


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=2, show_default=True, help="Steps of each way in a round.")
@click.option("--batch-size", default=16, show_default=True)
def main(rounds: int, steps: int, batch_size: int) -> None:
    """Print the table."""
    ways = {name: contender(overrides, batch_size) for name, overrides in WAYS.items()}
    for _ in range(rounds):
        for way in ways.values():
            way.seconds.append(sum(way.step() for _ in range(steps)) / steps)
    click.echo(f"batches of {batch_size}; bfloat16 in hardware: {'yes' if has_bfloat16(CPU) else 'no'}")
    click.echo(f"{'':40}{'images/s':>10}{'best':>8}{'times':>8}{'MiB':>8}")
    rates = {name: batch_size / statistics.median(way.seconds) for name, way in ways.items()}
    for name, way in ways.items():
        times = rates[name] / rates["memory, float32"]
        memory = "–" if "compiled" in name else f"{way.peak() / 2**20:.0f}"
        click.echo(f"{name:40}{rates[name]:10.2f}{batch_size / min(way.seconds):8.2f}{times:8.2f}{memory:>8}")


if __name__ == "__main__":
    main()
