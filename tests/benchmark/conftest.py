"""Small finished runs for the verbs that read one: of the benchmark itself, or written by hand."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch
from PIL import Image

from sr3eval.benchmark import RunConfig, card, run, summary, table
from sr3eval.benchmark.scores import read_run
from sr3eval.images import save
from sr3eval.metrics import Convention

CONVENTIONS = {
    "psnr": Convention("psnr", "PSNR", True, "RGB, mean", unit="dB", decimals=2, ceiling=54.15),
    "ssim": Convention("ssim", "SSIM", True, "RGB, valid area, mean"),
    "niqe": Convention("niqe", "NIQE", False, "Y, mean", needs_hr=False),
}


@pytest.fixture(scope="session")
def conventions() -> dict[str, Convention]:
    """Of the metrics of runs that are written by hand."""
    return CONVENTIONS


@pytest.fixture(scope="session")
def finish_run() -> Callable[[Path, Sequence[str], list[dict[str, Any]]], Path]:
    """A function: random images of these ids, through these methods, scored by PSNR; returns the run's folder."""

    def finished(world: Path, ids: Sequence[str], methods: list[dict[str, Any]]) -> Path:
        generator = torch.Generator().manual_seed(0)
        for image_id in ids:
            save(world / "images" / f"{image_id}.png", torch.rand(3, 64, 64, generator=generator))
        data = {"images": str(world / "images")}
        plain = {"task": "photos_16_64", "metrics": ["psnr"], "data": data, "method": methods}
        run(RunConfig.parse(plain), world / "run", world / "cache")
        return world / "run"

    return finished


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """A function that writes a run's files: noise of these sizes (HR, {image id: (width, height)}) from methods.

    scores: {metric: {method: values in the order of the ids}}.
    """

    def written(
        folder: Path,
        sizes: dict[str, tuple[int, int]],
        scores: dict[str, dict[str, list[float]]],
        hr: bool = True,
        dataset: bool = False,
    ) -> Path:
        rng = np.random.default_rng(0)
        methods = [{"name": name, "kind": "precomputed", "folder": "-"} for name in next(iter(scores.values()))]
        config = {"task": "photos_16_64", "metrics": ["psnr"], "data": {"images": "-"}, "method": methods}
        slugs = [method.slug for method in RunConfig.parse(config).method]
        for image_id, (width, height) in sizes.items():
            outputs = dict.fromkeys([*slugs, "_hr"] if hr else slugs, (height, width))
            for slug, shape in {"_lr": (height // 4, width // 4), **outputs}.items():
                path = folder / "images" / slug / f"{image_id}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
        (folder / "config.toml").write_text(tomli_w.dumps(config))
        environment = {"images": len(sizes), "images_sha256": "", "left_out_too_small": 0, "sha256": {}, "warnings": {}}
        environment["datasets"] = dict.fromkeys([i.partition("/")[0] for i in sizes] if dataset else [""], "")
        (folder / "environment.json").write_text(json.dumps(environment))
        rows = [
            ("photos_16_64", method, image_id, metric, value, image_id, image_id.partition("/")[0] if dataset else "")
            for metric, by_method in scores.items()
            for method, values in by_method.items()
            for image_id, value in zip(sizes, values, strict=True)
        ]
        columns = ["task", "method", "image_id", "metric", "value", "group", "dataset"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "per_image.csv", index=False)
        (folder / "set_scores.csv").write_text("task,method,metric,left_out,value,n\n")
        results = summary.summarise(read_run(folder), CONVENTIONS)
        table.write(results, folder)
        card.write(results, [folder], folder)
        return folder

    return written
