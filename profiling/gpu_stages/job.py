"""The frame of the GPU job: its folder, its clock, and what every stage found."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from sr3eval.benchmark.environment import describe
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.files import TEMPORARY, atomic_write

SUMMARY = "summary.json"
SCRIPT = Path(__file__).parents[1] / "gpu_job.py"
LEAST_MEMORY = 20 * 2**30  # bytes of a GPU
PATIENCE = 300.0  # seconds that a stage in a process of its own may take
UNFINISHED = "unfinished"  # what a stage says of itself that a next run of the job goes on with
Found = dict[str, Any]


class Place:
    """Where a stage runs and writes. small: on a CPU, everything is."""

    def __init__(self, out: Path) -> None:
        self.out, self.device = out, default_device()
        self.small = self.device.type == "cpu"


class Job(Place):
    """A job in the folder `out`, `minutes` long from the time `started` of the monotonic clock on.

    Raises UserError where there is no GPU or too little memory, and for a folder that holds something else.
    """

    def __init__(self, out: Path, device: str, minutes: float, started: float) -> None:
        super().__init__(out)
        if device == "cuda":
            check_gpu()
        self.started, self.minutes = started, minutes
        self.found = found_in(out) | {"machine": machine()}
        self._write(self.found)

    def seconds(self) -> float:
        """Time since the start of the process."""
        return time.monotonic() - self.started

    def stage(self, name: str, shares: Mapping[str, float], run: Callable[[float], Found]) -> None:
        """Run a stage that is not there yet, with its share of what is left for it and those after it."""
        if name in self.found:
            return
        ahead = list(shares)[list(shares).index(name) :]
        left = 60 * self.minutes - self.seconds()
        seconds = left * shares[name] / sum(shares[n] for n in ahead if n not in self.found)
        click.echo(f"{self.seconds():6.1f} s: {name}, for {seconds:.0f} s", err=True)
        if seconds > 0 or self.small:
            began = self.seconds()
            found = run(seconds)
            if UNFINISHED in found:
                self.note(name, found)
            else:
                self._note(name, found, self.seconds() - began)
        else:
            click.echo(f"{name}: no time is left", err=True)

    def take(self, start: Path, models: Sequence[str]) -> None:
        """Copy checkpoints that are not trained here from where training would start."""
        for model in models:
            name = f"{model}.safetensors"
            if (start / name).exists() and not (self.out / name).exists():
                atomic_write(self.out / name, (start / name).read_bytes())

    def beside(self, name: str) -> Callable[[], None]:
        """Start a stage in a process of its own, unless it is there.

        Call what is returned to wait for its end, for `PATIENCE` at most, and to take in what it found.
        """
        if name in self.found:
            return lambda: None
        began = self.seconds()
        command = [sys.executable, str(SCRIPT), "beside", name, f"--out={self.out}"]
        environment = os.environ | {"OMP_NUM_THREADS": "2"}  # the stage in front compiles on the others
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)

        def finish() -> None:
            try:
                printed, _ = process.communicate(timeout=max(1.0, began + PATIENCE - self.seconds()))
            except subprocess.TimeoutExpired:
                process.kill()
                click.echo(f"{name}: did not end within {PATIENCE:.0f} s", err=True)
                return
            if process.returncode == 0:
                self._note(name, json.loads(printed.splitlines()[-1]), self.seconds() - began)

        return finish

    def note(self, name: str, found: Found) -> None:
        """Keep what a stage found so far; `stage` and `beside` do so at its end."""
        partial = self.found | {name: found}
        self._write(partial)

    def _note(self, name: str, found: Found, seconds: float) -> None:
        self.found[name] = found | {"took_s": round(seconds, 1)}
        self._write(self.found)

    def _write(self, found: dict[str, Found]) -> None:
        atomic_write(self.out / SUMMARY, json.dumps(found, indent=1).encode())
        atomic_write(self.out / "summary.md", markdown(found).encode())

    def markdown(self) -> str:
        """Everything found, a section a stage."""
        return markdown(self.found)


def check_gpu() -> None:
    if not torch.cuda.is_available():
        raise UserError("no GPU here; --device cpu runs everything in small")
    if (free := torch.cuda.mem_get_info()[0]) < LEAST_MEMORY:
        raise UserError(f"the GPU has {free / 2**30:.0f} GiB free; {LEAST_MEMORY / 2**30:.0f} are needed")


def found_in(out: Path) -> dict[str, Found]:
    """What earlier runs left in a folder; UserError when it holds something else."""
    try:
        names = [path.name for path in out.iterdir() if not path.name.startswith(TEMPORARY)] if out.exists() else []
        found: dict[str, Found] = json.loads((out / SUMMARY).read_text()) if SUMMARY in names else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{out}: cannot be used ({error})") from None
    if names and "machine" not in found:
        raise UserError(f"{out}: not empty, and not a folder of this job; give another folder")
    return found


def markdown(found: Mapping[str, Found]) -> str:
    return "\n".join(line for name, about in found.items() for line in section(name, about))


def section(name: str, found: Found) -> list[str]:
    """A stage as Markdown: its rows as a table, the rest as a list."""
    lines = [f"## {name}", ""]
    lines += [f"- {key}: {value}" for key, value in found.items() if key != "rows"]
    rows = found.get("rows", [])
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if rows:
        lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return [*lines, ""]


def machine() -> Found:
    """Device, versions and what they allow."""
    about = describe() | {"torch": torch.__version__}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        about |= {
            "memory_GiB": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return about


def rounded(value: float, digits: int = 4) -> float:
    """To so many significant digits, for tables."""
    return float(f"{value:.{digits}g}")
