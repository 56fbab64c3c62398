"""The quickstart's table of the new checkpoints, with the sampler they are meant for and with the paper's."""

import tempfile
from pathlib import Path
from typing import Any

import embedded_quality
import torch
from gpu_stages.job import Found, Place, rounded

from sr3eval import benchmark
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import HR, LR
from sr3eval.benchmark.plan import Plan
from sr3eval.files import atomic_write
from sr3eval.images import encode_png, load

SAMPLERS: dict[str, dict[str, Any]] = {
    "sr3, 2M SDE 8": {"solver": "dpmpp_2m_sde", "steps": 8, "clip": True, "jump": 0.0},
    "sr3, 2M SDE 16": {"solver": "dpmpp_2m_sde", "steps": 16, "clip": True, "jump": 0.0},
    "sr3, 2M SDE 32": {"solver": "dpmpp_2m_sde", "steps": 32, "clip": True, "jump": 0.0},
    "sr3, 2M ODE 8": {"solver": "dpmpp_2m", "steps": 8, "clip": True, "jump": 0.0},
    "sr3, ancestral 100": {"solver": "ancestral", "steps": 100, "variance": "beta", "clip": True},
}
SHEET_ROWS = 24


def run(place: Place) -> Found:
    """Score bicubic and what was trained; writes sheet.png: LR, bicubic, every method, HR, a row an image."""
    samplers = dict(list(SAMPLERS.items())[: 1 if place.small else None])
    limit, batch_size = (8, 8) if place.small else (256, 64)
    config = run_config(place.out, samplers, limit, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        finished = finish(config, out)
        rows = [
            {"method": name, **{key: rounded(value) for key, value in row.items()}}
            for name, row in embedded_quality.rows(out).items()
        ]
        atomic_write(place.out / "sheet.png", encode_png(sheet(finished)))
    return {"images": len(finished.images), "rows": rows}


def finish(config: RunConfig, out: Path) -> Plan:
    """A whole run, without a word."""
    planned = benchmark.plan(config, out, out.parent / ".cache")
    benchmark.finish(planned)
    return planned


def run_config(folder: Path, samplers: dict[str, dict[str, Any]], limit: int, batch_size: int) -> RunConfig:
    """Bicubic, and the checkpoints of `folder`, SR3 with each sampler, on so many of the embedded crops."""
    sr3 = str(folder / "sr3.safetensors")
    return RunConfig.parse(
        {
            "task": "photos_16_64",
            "batch_size": batch_size,
            "metrics": ["psnr", "ssim", "consistency", "fd_efficientnet_lite0"],
            "data": {"images": "sr3eval:assets/photos_16_64", "group": "parent", "limit": limit},
            "method": [
                {"kind": "bicubic"},
                {"kind": "regression", "checkpoint": str(folder / "regression.safetensors")},
                *({"name": name, "kind": "sr3", "checkpoint": sr3, **options} for name, options in samplers.items()),
            ],
        }
    )


def sheet(run: Plan) -> torch.Tensor:
    """Rows of LR enlarged by repetition, every method, HR: [3, rows * 64, columns * 64]."""
    rows = []
    for image in run.images[:: max(1, len(run.images) // SHEET_ROWS)][:SHEET_ROWS]:
        lr, hr = (load(run.folder.image(kind, image.image_id)) for kind in (LR, HR))
        nearest = torch.nn.functional.interpolate(lr[None], hr.shape[-2:], mode="nearest")[0]
        made = [load(run.folder.image(method.slug, image.image_id)) for method in run.config.method]
        rows.append(torch.cat([nearest, *made, hr], dim=-1))
    return torch.cat(rows, dim=-2)
