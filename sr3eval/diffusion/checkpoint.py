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
from sr3eval.device import half_dtype
from sr3eval.diffusion.preconditioners import Preconditioner, precondition
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import UNet
from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.tasks import Task

METADATA_KEY = "sr3eval"  # one key: safetensors writes several in random order, and equal files should have equal bytes


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself. sha256: see `tensors_digest`; None in older files."""

    config: TrainConfig
    step: int
    sha256: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: the config it was trained with, the step, the weights, the file's sha256."""

    config: TrainConfig
    step: int
    weights: dict[str, Tensor]
    sha256: str

    def model(self) -> Preconditioner:
        """The model with these weights, in eval mode."""
        model = precondition(self.config.model, self.config.network)
        model.unet.load_state_dict(self.weights)
        return model.eval()

    def model_on(self, device: torch.device, half: bool = False) -> Preconditioner:
        """The same on a device, as it runs fastest there; half: convolutions in bfloat16, or UserError."""
        model = self.model()
        model.unet.convolve_in(half_dtype(half, device))
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def save(path: Path, config: dict[str, Any], step: int, weights: dict[str, Tensor]) -> None:
    """Write a checkpoint atomically. `config` is the resolved config as plain values."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    metadata = {"config": config, "step": step, "sha256": tensors_digest(tensors)}
    atomic_write(path, safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(metadata)}), durable=True)


def load(path: str, model: str | None = None, task: Task | None = None) -> Checkpoint:
    """Read a checkpoint, of a `model` ("sr3" or "regression") and of a `task` where these are given.

    Raises UserError for a missing, truncated, damaged or foreign file, another model or task, and weights that do not
    fit or are not finite.
    """
    file = resolve_path(path)
    content, metadata = read(file)
    carried = _parse(metadata, file)
    config = carried.config
    if model is not None and config.model != model:
        raise UserError(f"{file}: a {config.model} checkpoint, not {model}")
    if task is not None and config.task != task.name:
        raise UserError(f"{file}: trained for {config.task}, not {task.name}")
    weights = safetensors.torch.load(content)
    _check_weights(weights, carried, file)
    return Checkpoint(config, carried.step, weights, digest(content))


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


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 of the tensors' bytes, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def check_shapes(weights: dict[str, Tensor], network: UNet, file: Path) -> None:
    """UserError when weights from `file` are not exactly those of `network`, by name and shape."""
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise UserError(f"{file}: {len(wrong)} weights do not fit its network, first {wrong[0]}")


def _parse(metadata: dict[str, str], file: Path) -> Metadata:
    if METADATA_KEY not in metadata:
        raise UserError(f"{file}: not a checkpoint of `sr3eval train`")
    try:
        return from_dict(Metadata, json.loads(metadata[METADATA_KEY]), METADATA_KEY)
    except (ValueError, UserError) as error:
        raise UserError(f"{file}: its metadata is damaged or of a newer version ({error})") from None


def _check_weights(weights: dict[str, Tensor], carried: Metadata, file: Path) -> None:
    found = tensors_digest(weights)
    if carried.sha256 not in (None, found):
        raise UserError(f"{file}: damaged: its tensors have the sha256 {found}, not {carried.sha256}")
    with torch.device("meta"):
        model = precondition(carried.config.model, carried.config.network)
    check_shapes(weights, model.unet, file)
    infinite = sorted(name for name, tensor in weights.items() if not bool(tensor.isfinite().all()))
    if infinite:
        raise UserError(f"{file}: {len(infinite)} weights are not finite, first {infinite[0]}")
