"""The frame of the GPU job: its folder, its clock, and what every stage found."""

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch

from sr3eval.benchmark.environment import describe
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, claim_folder

SUMMARY = "summary.json"
MARKER = "job.toml"
LEAST_MEMORY = 20 * 2**30  # bytes of a GPU
Found = dict[str, Any]


class Job:
    """A job in the folder `out`. small: everything in small, on a CPU.

    Raises UserError where there is no GPU or too little memory, and for a folder that holds something else.
    """

    def __init__(self, out: Path, device: str, minutes: float, started: float) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("no GPU here: --device cpu runs everything in small")
        self.device = default_device()
        self.small = self.device.type == "cpu"
        if not self.small and (memory := torch.cuda.mem_get_info()[0]) < LEAST_MEMORY:
            raise UserError(f"the GPU has {memory / 2**30:.0f} GiB free, {LEAST_MEMORY / 2**30:.0f} are needed")
        claim_folder(out, MARKER, f'job = "gpu_job"\ndevice = "{device}"\n')
        self.out, self.started, self.minutes = out, started, minutes
        path = out / SUMMARY
        self.found: dict[str, Found] = json.loads(path.read_text()) if path.exists() else {}
        self.found["machine"] = machine()

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
        began = self.seconds()
        click.echo(f"{began:6.1f} s: {name}, for {seconds:.0f} s", err=True)
        if seconds <= 0:
            click.echo(f"{name}: no time is left", err=True)
            return
        found = run(seconds)
        self.found[name] = found | {"took_s": round(self.seconds() - began, 1)}
        self.write()

    def write(self) -> None:
        atomic_write(self.out / SUMMARY, json.dumps(self.found, indent=1).encode())
        atomic_write(self.out / "summary.md", self.markdown().encode())

    def markdown(self) -> str:
        """Everything found, as one table a stage."""
        return "\n".join(line for name, found in self.found.items() for line in section(name, found))


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
    about = describe() | {"torch": torch.__version__, "platform": platform.platform()}
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
