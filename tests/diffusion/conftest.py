"""A training run small enough for tests."""

import pytest
import torch

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
