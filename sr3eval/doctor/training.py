"""What a config of `sr3eval train` needs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from sr3eval.config import from_dict, resolve_path
from sr3eval.device import default_device, has_bfloat16
from sr3eval.diffusion import checkpoint, estimate, stream
from sr3eval.diffusion.labels import class_names, labels
from sr3eval.diffusion.train import check_device
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.doctor.findings import Finding, attempt, missing, note
from sr3eval.errors import UserError, number
from sr3eval.files import room
from sr3eval.quantities import quantity


def check(data: Mapping[str, Any], out: Path) -> Iterator[Finding]:
    """Config, images, labels, start, device, memory and disk."""
    try:
        config = from_dict(TrainConfig, data).resolved()
    except UserError as error:
        yield missing("config", str(error))
        return
    yield Finding("config", f"training of {config.model}, {config.target.name}")
    yield attempt("images", lambda: images(config), "put the images there, or change data.images and data.validation")
    if config.start is not None:
        start = config.start
        yield attempt("start", lambda: f"{start}: step {checkpoint.load(start, config.model).step}")
    yield attempt("device", lambda: device(config))
    if config.optimiser.precision == "bfloat16" and not has_bfloat16(default_device()):
        yield note("precision", 'bfloat16 is emulated here, slowly: --set optimiser.precision="auto"')
    found = estimate.training(config, measure=False)
    yield memory(found)
    yield disk(found.disk.most, out)


def images(config: TrainConfig) -> str:
    """How many there are."""
    training, validation, small, validation_small = stream.open_folders(config.data, config.target)
    labels(training, replace(config, classes=class_names(training, config)))
    left_out = len(small) + len(validation_small)
    too_small = f"; {left_out:,} too small and left out" if left_out else ""
    counts = f"{number(len(training), 'image')} to train on, {len(validation):,} to validate on"
    return f"{resolve_path(config.data.images)}: {counts}{too_small}"


def device(config: TrainConfig) -> str:
    """What the network is trained on."""
    check_device(config.optimiser, default_device())
    dtype = str(estimate.training_dtype(config.optimiser.precision, default_device())).removeprefix("torch.")
    return f"{default_device().type}, {dtype}"


def memory(found: estimate.TrainingEstimate) -> Finding:
    """Whether a step fits, on a machine where nothing else runs."""
    gpu = found.device.type == "cuda"
    total = torch.cuda.mem_get_info(found.device)[1] if gpu else psutil.virtual_memory().total
    text = f"needs about {quantity(found.memory, 'B')} of {quantity(total, 'B')}"
    if found.memory <= total:
        return Finding("memory", text)
    part = found.costs.images
    remedy = "raise optimiser.accumulate, or set optimiser.checkpoint_activations"
    fixed = (
        "train elsewhere: weights and moments alone are too large" if found.memory - found.costs.kept > total else ""
    )
    return missing("memory", f"{text} for {number(part, 'image')} at a time; {fixed or remedy}")


def disk(needed: int, out: Path) -> Finding:
    """Whether what is written fits."""
    free = room(out)
    text = f"needs up to {quantity(needed, 'B')}, {quantity(free, 'B')} are free"
    return Finding("disk", text) if needed <= free else missing("disk", f"{text}; make room, or give another --out")
