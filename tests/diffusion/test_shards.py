"""Training from tar shards is training from the folder that they were made of."""

import os

import pytest
import torch

from sr3eval.diffusion.checkpoint import load
from sr3eval.errors import UserError
from sr3eval.images import save
from sr3eval.prepare.run import Settings, prepare
from tests.diffusion.small_training import run, same

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of three classes, not square, and the shards of it."""
    root = tmp_path_factory.mktemp("sources")
    generator = torch.Generator().manual_seed(0)
    for name in ("10", "9", "red"):
        for index in range(5):
            save(root / "folder" / name / f"{index}.png", torch.rand(3, 11, 13, generator=generator))
    prepare(Settings("folder", root / "folder", 8, labels="folders", per_shard=4), root / "shards", 1)
    return root


def settings(images, **data):
    unet = {"channels": 8, "multipliers": [1], "blocks": 1, "image_size": 8, "attention": []}
    return {
        "model": "improved_ddpm",
        "data": {"images": str(images), "validation": str(images), "validation_images": 4} | data,
        "unet": unet | {"classes": 3},
        "schedule": {"spacing": "cosine", "steps": 50},
        "optimiser": {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0},
        "log": {"every": 2, "validate_every": 6, "save_every": 3, "sampling_steps": 2},
    }


def weights(out):
    return load(str(out / "model.safetensors")).weights


def test_the_same_weights_as_from_the_folder_after_any_interruption(sources, tmp_path):
    """Classes included. Workers read ahead."""
    run(settings(sources / "folder"), tmp_path / "folder")
    run(settings(sources / "shards", labels="shards"), tmp_path / "shards", stop_after=3)
    run(settings(sources / "shards", labels="shards", workers=2), tmp_path / "shards")
    found, expected = load(str(tmp_path / "shards" / "model.safetensors")), weights(tmp_path / "folder")
    assert same(found.weights, expected)
    assert found.config.classes == load(str(tmp_path / "folder" / "model.safetensors")).config.classes


def test_a_shard_that_is_cut_meanwhile_ends_training_in_one_line(sources, tmp_path):
    shards = tmp_path / "set"
    prepare(Settings("folder", sources / "folder", 8, labels="folders", per_shard=4), shards, 1)
    run(settings(shards, labels="shards"), tmp_path / "out", stop_after=3)
    os.truncate(shards / "000001.tar", 600)
    with pytest.raises(UserError, match=r"000001\.tar: truncated \(600 of 10,240 bytes\)"):
        run(settings(shards, labels="shards"), tmp_path / "out")


def test_other_shards_are_other_images(sources, tmp_path):
    shards = tmp_path / "set"
    prepare(Settings("folder", sources / "folder", 8, labels="folders", per_shard=4), shards, 1)
    run(settings(shards, labels="shards"), tmp_path / "out", stop_after=3)
    for path in shards.iterdir():
        path.unlink()
    prepare(Settings("folder", sources / "folder", None, labels="folders", per_shard=4), shards, 1)
    with pytest.raises(UserError, match="holds other images|other images|images have changed"):
        run(settings(shards, labels="shards"), tmp_path / "out")
