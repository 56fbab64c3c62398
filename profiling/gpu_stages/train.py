"""Training of the embedded checkpoints: the recipes of configs/train, as many steps as the time allows."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from gpu_stages.job import Found, Place, rounded

from sr3eval import config as configs
from sr3eval.diffusion import checkpoint, stream
from sr3eval.diffusion.crops import Crops
from sr3eval.diffusion.train import Scorer, Trainer, validation_of
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.files import atomic_write

RECIPES = Path("configs/train")
RECIPE = {
    "sr3": "sr3_photos_16_64.toml",
    "regression": "regression_photos_16_64.toml",
    "generator": "generator_photos_16.toml",
}
SMALL_GENERATOR = (
    "optimiser.batch_size=2",
    "unet={channels=8, multipliers=[1, 2], blocks=1, image_size=16, attention=[], middle_attention=false}",
    "data.images=sr3eval:assets/validation_photos",
    "data.validation_images=2",
    "log.sampling_steps=2",
)
SMALL = (
    "optimiser.batch_size=2",
    "unet={channels=8, multipliers=[1, 2], blocks=1, image_size=64, attention=[], middle_attention=false, "
    "residual_scale=0.07}",
    "data.images=sr3eval:assets/validation_photos",
    "data.zoom_out=1.0",
    "data.validation_images=2",
    "log.sampling_steps=2",
)
# Measured on an H200, batches of 256: 156 ms a step eager, 125 with the norms alone compiled (both wait for the CPU to
# launch kernels), 75 of the latter as one CUDA graph, 44 with the whole network compiled, which takes 129 s.
WHOLE = ("optimiser.compile=true", "optimiser.cuda_graph=true")
ON_GPU = {"sr3": WHOLE, "regression": WHOLE, "generator": ("optimiser.compile=norms", "optimiser.cuda_graph=true")}
WARM, TIMED = 8, 24  # steps before the pace is known
PACED = 10  # steps between two looks at the clock
SPARE = 0.03  # share of the time that is kept back for what the pace did not show
CLOSING = 5.0  # seconds for validation and writing
SMALL_STEPS = 20


@dataclass
class Training:
    """A recipe on its way: what trains, on which crops, and what it is validated on."""

    trainer: Trainer
    crops: Crops
    validation: Scorer

    def step(self) -> None:
        size = self.trainer.config.optimiser.batch_size
        self.trainer.train_step(self.crops.batch(self.trainer.step, size))


def prepare(place: Place, model: str, start: Path | None = None) -> Training:
    """The recipe of configs/train, from random weights or those of `start`/MODEL.safetensors."""
    torch.backends.cudnn.benchmark = True
    small = SMALL_GENERATOR if model == "generator" else SMALL
    recipe = configs.read_toml(RECIPES / RECIPE[model], small if place.small else ON_GPU[model])
    config = configs.from_dict(TrainConfig, recipe).resolved()
    if start is not None:
        config = replace(config, start=str(start / f"{model}.safetensors"))
    folder, validation_folder, _, _ = stream.open_folders(config.data, config.target)
    validation = validation_of(config, validation_folder)
    crops = Crops(folder, config.data, config.seed, place.device)
    return Training(Trainer(config, place.device), crops, validation)


def compile_regression(place: Place) -> Found:
    """Take two steps of Regression, so that its compiled network is in the compiler's cache when it is trained."""
    began = time.monotonic()
    training = prepare(place, "regression")
    training.step()
    training.step()
    training.trainer.losses()  # waits for them
    return {"seconds": rounded(time.monotonic() - began, 3)}


def run(
    place: Place, model: str, seconds: float, start: Path | None = None, ready: Callable[[], None] = lambda: None
) -> Found:
    """Train one model for about `seconds`; writes MODEL.safetensors, in half precision, and MODEL.jsonl.

    start: folder of a MODEL.safetensors whose weights to start from. ready: called before the pace is measured; it
    waits for what else uses the GPU.
    """
    end = time.monotonic() + seconds - CLOSING
    training = prepare(place, model, start)
    trainer, began = training.trainer, time.monotonic()
    take(place, training, 1 if place.small else WARM)
    warmed = time.monotonic()
    ready()
    timed = time.monotonic()
    take(place, training, 1 if place.small else TIMED)
    pace = (time.monotonic() - timed) / (1 if place.small else TIMED)
    steps = trainer.step + max(1, int((1 - SPARE) * (end - time.monotonic()) / pace))
    steps = min(steps, SMALL_STEPS) if place.small else steps
    trainer.config = config = replace(trainer.config, optimiser=replace(trainer.config.optimiser, steps=steps))
    lines = list(_steps(place, training, end))
    averaged = trainer.averaged()
    scores, _ = training.validation.run(averaged, place.device)
    weights = {name: tensor.half() for name, tensor in averaged.unet.state_dict().items()}
    checkpoint.save(place.out / f"{model}.safetensors", configs.to_dict(config), trainer.step, weights)
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"step": trainer.step, **scores}])
    atomic_write(place.out / f"{model}.jsonl", text.encode())
    return {
        "started_from": config.start,
        "steps": trainer.step,
        "planned": steps,
        "batch_size": config.optimiser.batch_size,
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "photographs": len(training.crops.counts),
        "seconds_to_the_first_steps": rounded(warmed - began, 3),
        "seconds_of_training": rounded(time.monotonic() - timed, 4),
        "images_per_second": rounded(config.optimiser.batch_size / pace, 4),
        "memory_GiB": None if place.small else rounded(torch.cuda.max_memory_allocated() / 2**30, 3),
        "validation": {name: rounded(value) for name, value in scores.items()},
    }


def take(place: Place, training: Training, steps: int) -> None:
    """Take so many steps, and wait for them."""
    for _ in range(steps):
        training.step()
    if not place.small:
        torch.cuda.synchronize()


def _steps(place: Place, training: Training, end: float) -> Iterator[dict[str, float]]:
    """Train to the planned step, or a little beyond `end`; yields the lines of the log."""
    trainer = training.trainer
    optimiser, every = trainer.config.optimiser, trainer.config.log.every
    late = False
    while trainer.step < optimiser.steps and not late:
        take(place, training, min(PACED, optimiser.steps - trainer.step))  # lest steps be queued beyond the end
        late = time.monotonic() > end + CLOSING / 2
        if trainer.step % every < PACED or trainer.step == optimiser.steps or late:
            yield {"step": trainer.step, "rate": optimiser.rate(trainer.step), **trainer.losses()}
