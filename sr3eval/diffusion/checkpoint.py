"""Checkpoints: safetensors files that carry the resolved training config in their metadata."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sr3eval.config import from_dict, resolve_path
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import UNet
from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.tasks import Task

METADATA_KEY = "sr3eval"  # one key: safetensors writes several in random order, and equal files should have equal bytes


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: the config it was trained with, the step, the weights, the file's sha256."""

    config: TrainConfig
    step: int
    weights: dict[str, Tensor]
    sha256: str

    def network(self) -> UNet:
        """The U-Net with these weights, in eval mode."""
        network = UNet(self.config.network)
        network.load_state_dict(self.weights)
        return network.eval()


def save(path: Path, config: dict[str, Any], step: int, weights: dict[str, Tensor]) -> None:
    """Write a checkpoint atomically. `config` is the resolved config as plain values."""
    metadata = {METADATA_KEY: json.dumps({"config": config, "step": step})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    atomic_write(path, safetensors.torch.save(tensors, metadata))


def load(path: str, model: str | None = None, task: Task | None = None) -> Checkpoint:
    """Read a checkpoint, of a `model` ("sr3" or "regression") and of a `task` where these are given.

    Raises UserError for a missing, truncated or foreign file, another model or task, and weights that do not fit.
    """
    file = resolve_path(path)
    content, metadata = read(file)
    if METADATA_KEY not in metadata:
        raise UserError(f"{file}: not a checkpoint of `sr3eval train`")
    carried = json.loads(metadata[METADATA_KEY])
    config = from_dict(TrainConfig, carried["config"])
    if model is not None and config.model != model:
        raise UserError(f"{file}: a {config.model} checkpoint, not {model}")
    if task is not None and config.task != task.name:
        raise UserError(f"{file}: trained for {config.task}, not {task.name}")
    checkpoint = Checkpoint(config, carried["step"], safetensors.torch.load(content), digest(content))
    _check_weights(checkpoint, file)
    return checkpoint


def read(file: Path) -> tuple[bytes, dict[str, str]]:
    """The bytes and the metadata of a safetensors file; UserError when it is missing, truncated or something else."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        with safetensors.safe_open(str(file), framework="pt") as opened:
            return content, opened.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{file}: not a safetensors file, or truncated ({error}); sha256 {digest(content)}") from None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_weights(checkpoint: Checkpoint, file: Path) -> None:
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in UNet(checkpoint.config.network).state_dict().items()}
    found = {name: tensor.shape for name, tensor in checkpoint.weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise UserError(f"{file}: {len(wrong)} weights do not fit its config, first {wrong[0]}")
