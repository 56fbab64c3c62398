"""The U-Nets of tasks, and how many parameters they have beside what the paper says: its Table 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sr3eval import tasks
from sr3eval.benchmark.published import paper_values
from sr3eval.benchmark.table import markdown_lines
from sr3eval.config import from_dict
from sr3eval.diffusion.costs import parameters
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.presets import PRESETS
from sr3eval.errors import UserError, nearest
from sr3eval.files import atomic_write

MILLION = 1e6


@dataclass(frozen=True)
class NetworksConfig:
    """networks: names of tasks that have a network, see `sr3eval.diffusion.presets`."""

    networks: tuple[str, ...]


def networks(config: Mapping[str, Any]) -> pd.DataFrame:
    """A row a network: task, method ("16x16 -> 128x128"), channels, multipliers, blocks, parameters, published and
    difference.

    The last three are in millions; published is NaN where the paper has no such network. config: of `NetworksConfig`.
    """
    published = {line["method"]: float(line["value"]) for line in paper_values("table_1")}
    rows = []
    for name in from_dict(NetworksConfig, config).networks:
        if name not in PRESETS:
            raise UserError(f'networks: "{name}" has no network: {nearest(name, PRESETS)}')
        task, unet = tasks.get(name), PRESETS[name]
        sizes = f"{task.lr_size}x{task.lr_size} -> {task.hr_size}x{task.hr_size}"
        with torch.device("meta"):
            counted = parameters(precondition("sr3", unet)) / MILLION
        rows.append((name, sizes, unet.channels, unet.multipliers, unet.blocks, counted, published.get(sizes)))
    columns = ["task", "method", "channels", "multipliers", "blocks", "parameters", "published"]
    found = pd.DataFrame(rows, columns=columns).astype({"published": float})
    return found.assign(difference=found["parameters"] - found["published"])


def markdown(found: pd.DataFrame) -> str:
    """As a table. found: of `networks`."""
    header = ["Network", "Channels", "Multipliers", "Blocks", "Parameters (M)", "SR3, Table 1", "Difference"]
    body = [
        [
            row.method,
            str(row.channels),
            ", ".join(map(str, row.multipliers)),
            str(row.blocks),
            f"{row.parameters:.1f}",
            "–" if pd.isna(row.published) else f"{row.published:.0f}",
            "–" if pd.isna(row.published) else f"{row.difference:+.1f} ({row.difference / row.published:+.1%})",
        ]
        for row in found.itertuples()
    ]
    return "\n".join(markdown_lines(header, body)) + "\n"


def write(found: pd.DataFrame, folder: Path) -> None:
    """networks.csv, networks.md and networks.tex. found: of `networks`."""
    plain = found.assign(multipliers=found["multipliers"].map(lambda m: ", ".join(map(str, m))))
    printed = plain.drop(columns="task").to_latex(index=False, float_format="%.1f", na_rep="--")
    texts = {"csv": plain.to_csv(index=False, lineterminator="\n"), "md": markdown(found), "tex": printed}
    for suffix, text in texts.items():
        atomic_write(folder / f"networks.{suffix}", text.encode())
