"""Cascades: checkpoints behind one another as a method, and `sr3eval cascade`, which puts a generator before them."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from sr3eval import cli, tasks
from sr3eval import config as configs
from sr3eval.benchmark import run
from sr3eval.benchmark.labels import read_labels
from sr3eval.config import from_dict
from sr3eval.data import stable_hash
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion.cascade_folder import CascadeConfig, CascadeFolder, Shard
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.sample_folder import SampleConfig, sample_folder
from sr3eval.diffusion.solvers import SamplerConfig
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError
from sr3eval.images import load, round_to_8bit, save, to_uint8
from sr3eval.methods import load as load_method

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def write_checkpoint(path: Path, model: str, crop: int = 32, attention: bool = False) -> str:
    """A checkpoint of photos_16_64, 4 times, with random weights, the last convolution's included."""
    unet = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": crop, "middle_attention": attention}
    plain = {
        "task": "photos_16_64",
        "model": model,
        "data": {"images": "unused", "crop": crop},
        "unet": unet | {"attention": []},
        "optimiser": {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "warmup_steps": 0},
    }
    config = from_dict(TrainConfig, plain)
    torch.manual_seed(len(path.name))
    network = precondition(model, config.network).unet
    torch.nn.init.normal_(network.conv_out.weight, std=0.02)
    checkpoints.save(path, configs.to_dict(config), 1, network.state_dict())
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Checkpoints by name."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        "sr3": write_checkpoint(folder / "sr3.safetensors", "sr3"),
        "regression": write_checkpoint(folder / "regression.safetensors", "regression"),
        "attention": write_checkpoint(folder / "attention.safetensors", "sr3", attention=True),
    }


@pytest.fixture
def lr():
    return round_to_8bit(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


def test_stages_are_their_methods_with_8_bit_between_them(weights, lr):
    first, second = {"checkpoint": weights["sr3"], "steps": 3}, {"checkpoint": weights["regression"]}
    cascade = load_method("cascade", stages=[first, second])
    assert cascade.scale == 16
    between = load_method("sr3", **first).upscale(lr, [5, 6, 7]).images
    expected = load_method("regression", **second).upscale(round_to_8bit(between), [0, 0, 0]).images
    told = []
    assert torch.equal(cascade.upscale(lr, [5, 6, 7], told.append).images, expected)
    assert not torch.equal(load_method("regression", **second).upscale(between, [0, 0, 0]).images, expected)
    assert told == pytest.approx([1 / 6, 2 / 6, 3 / 6, 3 / 6, 1.0])


def test_stages_draw_noise_of_their_own(weights, lr):
    stage = {"checkpoint": weights["sr3"], "steps": 2}
    method = load_method("sr3", **stage)
    alone = method.upscale(lr, [5, 6, 7]).images
    assert torch.equal(load_method("cascade", stages=[stage]).upscale(lr, [5, 6, 7]).images, alone)
    hashes = [stable_hash(seed, "stage", 1) for seed in (5, 6, 7)]
    expected = method.upscale(round_to_8bit(alone), hashes).images
    assert torch.equal(load_method("cascade", stages=[stage, stage]).upscale(lr, [5, 6, 7]).images, expected)


def test_a_run_scores_a_cascade(weights, tmp_path):
    """64 pixels of HR, 4 of LR: 4 to 16 to 64."""
    config = {
        "task": {"name": "x16", "scale": 16, "framing": "square 64"},
        "metrics": ["psnr"],
        "data": {"images": str(ROOT / "sr3eval/assets/photos_16_64"), "limit": 2},
        "method": [{"kind": "cascade", "stages": [{"checkpoint": weights["sr3"], "steps": 2}] * 2}],
    }
    results = run(config, tmp_path / "run")
    assert results["n"].item() == 2
    warning = "trained on 8x8 inputs, gets 32x32; its network is convolutional"
    assert warning in results["method_warning"].item()
    assert all(load(path).shape == (3, 64, 64) for path in (tmp_path / "run" / "images" / "cascade").rglob("*.png"))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages: at least one is needed"),
        ([{"checkpoint": "absent"}], "absent: cannot be read"),
        ([{"checkpoint": "sr3", "stepps": 3}], r'unknown key "stages\[0\].stepps": did you mean "steps"'),
        ([{"checkpoint": "sr3", "steps": 0}], "sampler: 0 steps; at least 1 is needed"),
        ([{"steps": 3}], r'missing key "stages\[0\].checkpoint"'),
        ([{"checkpoint": "sr3"}, {"checkpoint": "regression", "steps": 3}], r'stages\[1\]: "steps" is of samplers'),
        (
            [{"checkpoint": "sr3"}, {"checkpoint": "attention"}],
            "trained on 8x8 inputs, gets 32x32, and its network has",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(weights, stages, message):
    tables = [
        table | {"checkpoint": weights.get(table["checkpoint"], table["checkpoint"])}
        if "checkpoint" in table
        else table
        for table in stages
    ]
    with pytest.raises(UserError, match=message):
        load_method("cascade", stages=tables)
