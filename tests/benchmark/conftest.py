"""A small finished run for the verbs that read one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark import kinds
from sr3eval.benchmark import summary, table
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.runner import Run
from sr3eval.benchmark.scores import read_run
from sr3eval.images import save


@pytest.fixture(scope="session")
def finish_run() -> Callable[[Path, Sequence[str], list[dict[str, Any]]], Path]:
    """A function: random images of these ids, through these methods, scored by PSNR; returns the run's folder."""

    def finished(world: Path, ids: Sequence[str], methods: list[dict[str, Any]]) -> Path:
        generator = torch.Generator().manual_seed(0)
        for image_id in ids:
            save(world / "images" / f"{image_id}.png", torch.rand(3, 64, 64, generator=generator))
        data = {"images": str(world / "images")}
        plain = {"task": "photos_16_64", "metrics": ["psnr"], "data": data, "method": methods}
        run = Run(RunConfig.parse(plain), world / "run", world / "cache", kinds())
        *_, _ = run.images()
        *_, _ = run.scores()
        table.write(summary.summarise(read_run(world / "run"), run.conventions()), world / "run")
        return world / "run"

    return finished
