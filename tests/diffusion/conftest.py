"""A training run small enough for tests, and tiny checkpoints."""

import pytest
import torch

from sr3eval.config import from_dict
from sr3eval.diffusion.train import train
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.images import save


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Six images whose colours and edges differ."""
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for index in range(6):
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        save(folder / f"{index}.png", torch.nn.functional.interpolate(coarse, (72, 80), mode="bilinear")[0])
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory, photos):
    """Paths of tiny checkpoints, after a few steps, by model."""
    paths = {}
    for model in ("sr3", "regression"):
        out = tmp_path_factory.mktemp("trained") / model
        settings = {
            "task": "photos_16_64",
            "model": model,
            "data": {"images": str(photos), "validation": str(photos), "crop": 16, "validation_images": 2},
            "unet": {"channels": 8, "multipliers": [1, 2, 2, 2], "blocks": 1, "image_size": 16, "attention": []},
            "optimiser": {"steps": 3, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 0},
            "log": {"sampling_steps": 2},
        }
        for _ in train(from_dict(TrainConfig, settings), out, torch.device("cpu")):
            pass
        paths[model] = str(out / "model.safetensors")
    return paths


@pytest.fixture
def settings(photos):
    """The plain values of a config: change them, then `from_dict(TrainConfig, settings)`."""
    return {
        "task": "photos_16_64",
        "model": "sr3",
        "data": {"images": str(photos), "validation": str(photos), "crop": 16, "validation_images": 3, "zoom_out": 2.0},
        "unet": {
            "channels": 8,
            "multipliers": [1, 2],
            "blocks": 1,
            "image_size": 16,
            "attention": [8],
            "dropout": 0.2,
        },
        "optimiser": {"steps": 8, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 3},
        "log": {"every": 2, "validate_every": 4, "save_every": 2, "sampling_steps": 2},
    }
