"""Checkpoints: what they carry, and what of them is refused."""

import json

import pytest
import safetensors
import safetensors.torch
import torch

from sr3eval import config as configs
from sr3eval.config import from_dict, resolve_path
from sr3eval.diffusion import checkpoint
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError


@pytest.fixture
def saved(settings, tmp_path):
    config = from_dict(TrainConfig, settings)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, configs.to_dict(config), 7, precondition("sr3", config.network).unet.state_dict())
    return path


def opened(path):
    """(tensors, what the metadata says)"""
    with safetensors.safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["sr3eval"])  # noqa: SIM118


def rewrite(path, tensors, metadata):
    path.write_bytes(safetensors.torch.save(tensors, {"sr3eval": metadata}))


def test_round_trip(saved, settings):
    loaded = checkpoint.load(str(saved), "sr3")
    tensors, _ = opened(saved)
    assert (loaded.config, loaded.step) == (from_dict(TrainConfig, settings), 7)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in loaded.model().unet.state_dict().items())
    before = saved.read_bytes()
    checkpoint.save(saved, configs.to_dict(loaded.config), loaded.step, dict(reversed(loaded.weights.items())))
    assert saved.read_bytes() == before


def test_a_flipped_bit_is_damage_and_both_digests_are_named(saved):
    content = bytearray(saved.read_bytes())
    wanted = opened(saved)[1]["sha256"]
    content[-1] ^= 1
    saved.write_bytes(content)
    found = checkpoint.tensors_digest(opened(saved)[0])
    with pytest.raises(UserError, match=f"^{saved}: damaged.*{found}, not {wanted}$"):
        checkpoint.load(str(saved))


def test_the_digest_is_that_of_the_bytes_in_the_order_of_names():
    tensors = {"b": torch.tensor(1.0), "a": torch.tensor([[1, 2]], dtype=torch.bfloat16), "c": torch.empty(0)}
    assert checkpoint.tensors_digest(tensors) == checkpoint.digest(bytes.fromhex("803f00400000803f"))


def test_older_files_without_a_digest_are_read(saved):
    tensors, metadata = opened(saved)
    del metadata["sha256"]
    rewrite(saved, tensors, json.dumps(metadata))
    assert checkpoint.load(str(saved)).step == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: "{}", 'missing key "sr3eval.config"'),
        (lambda m: "[]", '"sr3eval" must be a table'),
        (lambda m: "{step", "Expecting property name"),
        (lambda m: json.dumps(m | {"step": "7"}), '"sr3eval.step" must be a whole number'),
        (lambda m: json.dumps(m | {"config": 1}), '"sr3eval.config" must be a table'),
        (lambda m: json.dumps(m | {"config": m["config"] | {"task": "new"}}), 'unknown task "new"'),
        (
            lambda m: json.dumps(m | {"config": m["config"] | {"v": 2}}),
            'newer version \\(unknown key "sr3eval.config.v"',
        ),
        (lambda m: json.dumps(m | {"config": m["config"] | {"model": "regression"}}), "weights do not fit its network"),
    ],
)
def test_metadata_that_cannot_be_read_is_one_line_naming_the_file(saved, change, message):
    tensors, metadata = opened(saved)
    rewrite(saved, tensors, change(metadata))
    with pytest.raises(UserError, match=f"^{saved}: .*{message}[^\n]*\\Z"):
        checkpoint.load(str(saved))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(settings, saved, value):
    tensors, metadata = opened(saved)
    tensors["conv_in.weight"][0, 0, 0, 0] = value
    checkpoint.save(saved, metadata["config"], 7, tensors)
    with pytest.raises(UserError, match=f"^{saved}: 1 weights are not finite, first conv_in.weight"):
        checkpoint.load(str(saved))


@pytest.mark.parametrize("model", ["sr3", "regression"])
def test_the_embedded_checkpoints_carry_their_digest(model):
    tensors, metadata = opened(resolve_path(f"sr3eval:assets/{model}_photos_16_64.safetensors"))
    assert metadata["sha256"] == checkpoint.tensors_digest(tensors)
