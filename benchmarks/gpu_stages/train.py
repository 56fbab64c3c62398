"""Training of the embedded checkpoints: the recipes of configs/train, as many steps as the time allows."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_stages.job import Found, Place, rounded

from sr3eval import config as configs
from sr3eval import tasks
from sr3eval.diffusion import checkpoint, stream
from sr3eval.diffusion.crops import Crops
from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.validation import Validation
from sr3eval.files import atomic_write

RECIPES = Path("configs/train")
SMALL = (
    "optimiser.batch_size=2",
    "unet={channels=8, multipliers=[1, 2], blocks=1, image_size=64, attention=[], middle_attention=false, "
    "residual_scale=0.07}",
    "data.zoom_out=1.0",
    "data.validation_images=2",
    "log.sampling_steps=2",
)
# SR3's whole network is compiled: two minutes, in which others use the GPU.
ON_GPU = {
    "sr3": ("optimiser.compile=true", "optimiser.cuda_graph=true"),
    "regression": ("optimiser.compile=norms", "optimiser.cuda_graph=true"),
}
WARM, TIMED = 8, 24  # steps before the pace is known
PACED = 10  # steps between two looks at the clock
SPARE = 0.03  # share of the time that is kept back for what the pace did not show
CLOSING = 5.0  # seconds for validation and writing


def run(
    place: Place,
    model: str,
    seconds: float,
    start: Path | None = None,
    beside: Sequence[Callable[[], None]] = (),
) -> Found:
    """Train one model for about `seconds`; writes MODEL.safetensors, in half precision, and MODEL.jsonl.

    start: folder of a MODEL.safetensors whose weights to start from. beside: called before the pace is measured; they
    wait for what else uses the GPU.
    """
    end = time.monotonic() + seconds - CLOSING
    torch.backends.cudnn.benchmark = True
    recipe = RECIPES / f"{model}_photos_16_64.toml"
    config = configs.from_dict(
        TrainConfig, configs.read_toml(recipe, SMALL if place.small else ON_GPU[model])
    ).resolved()
    if start is not None:
        config = replace(config, start=str(start / f"{model}.safetensors"))
    task = tasks.get(config.task)
    folder, validation_folder, _, _ = stream.open_folders(config.data, task)
    crops = Crops(folder, config.data, config.seed, place.device)
    trainer = Trainer(config, place.device)
    began = time.monotonic()
    for _ in range(1 if place.small else WARM):
        trainer.train_step(crops.batch(trainer.step, config.optimiser.batch_size))
    synchronize(place)
    warmed = time.monotonic()
    for wait in beside:
        wait()
    timed = time.monotonic()
    for _ in range(1 if place.small else TIMED):
        trainer.train_step(crops.batch(trainer.step, config.optimiser.batch_size))
    synchronize(place)
    pace = (time.monotonic() - timed) / (1 if place.small else TIMED)
    steps = trainer.step + max(1, int((1 - SPARE) * (end - time.monotonic()) / pace))
    trainer.config = config = replace(config, optimiser=replace(config.optimiser, steps=steps))
    lines = list(_steps(place, trainer, crops, end))
    network = trainer.averaged()
    scores, _ = Validation(config, task, stream.validation_images(validation_folder, config.data)).run(
        network, place.device
    )
    weights = {name: tensor.half() for name, tensor in network.state_dict().items()}
    checkpoint.save(place.out / f"{model}.safetensors", configs.to_dict(config), trainer.step, weights)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    atomic_write(place.out / f"{model}.jsonl", text.encode())
    return {
        "started_from": config.start,
        "steps": trainer.step,
        "planned": steps,
        "batch_size": config.optimiser.batch_size,
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "photographs": len(folder),
        "seconds_to_the_first_steps": rounded(warmed - began, 3),
        "images_per_second": rounded(config.optimiser.batch_size / pace, 4),
        "memory_GiB": rounded(torch.cuda.max_memory_allocated() / 2**30, 3) if not place.small else None,
        "validation": {name: rounded(value) for name, value in scores.items()},
    }


def synchronize(place: Place) -> None:
    if not place.small:
        torch.cuda.synchronize()


def _steps(place: Place, trainer: Trainer, crops: Crops, end: float) -> Any:
    """Train to the planned step, or to `end`; yields the lines of the log."""
    optimiser, every = trainer.config.optimiser, trainer.config.log.every
    while trainer.step < optimiser.steps:
        trainer.train_step(crops.batch(trainer.step, optimiser.batch_size))
        if trainer.step % PACED == 0:
            synchronize(place)  # lest steps be queued beyond the end
        late = time.monotonic() > end + 0.5 * CLOSING
        if trainer.step % every == 0 or trainer.step == optimiser.steps or late:
            yield {"step": trainer.step, "rate": optimiser.rate(trainer.step), **trainer.losses()}
        if late:
            return
