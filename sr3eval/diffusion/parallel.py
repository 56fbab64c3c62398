"""A network in the processes of a job: all of it in each (DDP), or a shard (FSDP).

Gradients are means over the processes, so that the loss of a process is the mean over its part of the batch. Weights
keep their names; of shards they are DTensors, which `whole` and `fill` turn into tensors and back.
"""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sr3eval.diffusion.activations import layers_by_level
from sr3eval.diffusion.preconditioners import Preconditioner
from sr3eval.diffusion.train_config import OptimiserConfig
from sr3eval.distributed import Job
from sr3eval.errors import UserError


def asks_for_shards() -> bool:
    """Whether `accelerate launch` was told to use FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_job(optimiser: OptimiserConfig, here: Job) -> None:
    """UserError where so many processes cannot share a batch, or an option goes with one alone."""
    parts = here.count * optimiser.accumulate
    if optimiser.batch_size % parts:
        each, lower = "", ""
        if optimiser.accumulate > 1:
            each, lower = f", each in {optimiser.accumulate} parts", "lower optimiser.accumulate, or "
        raise UserError(
            f"optimiser.batch_size: {here.count} processes cannot share {optimiser.batch_size} evenly{each}; "
            f"{lower}make it a multiple of {parts}"
        )
    if here.count > 1 and optimiser.cuda_graph:
        raise UserError("optimiser.cuda_graph: only for one process; --set optimiser.cuda_graph=false")


def spread(model: Preconditioner, sharding: str, here: Job) -> nn.Module:
    """What training calls in place of the model; its weights are the model's."""
    if here.count == 1:
        return model
    return _sharded(model) if sharding == "fsdp" else _copied(model)


def _copied(model: Preconditioner) -> nn.Module:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    options = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    own = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[options])
    return own.prepare_model(model)


def _sharded(model: Preconditioner) -> nn.Module:
    """By PyTorch itself: accelerate shards on GPUs alone. A block or attention is gathered at a time."""
    from torch.distributed.fsdp import fully_shard

    model.to(memory_format=torch.contiguous_format)  # shards are of rows
    for _, layer in layers_by_level(model.unet):
        fully_shard(layer)
    fully_shard(model)
    return model


def unsynced(model: Callable[..., Tensor]) -> AbstractContextManager[Any]:
    """Where backward passes leave the process's own gradients, to be averaged by a later one; shards are averaged."""
    context: Callable[[], AbstractContextManager[Any]] = getattr(model, "no_sync", nullcontext)
    return context()


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, which nothing is before their module is imported (half a second)."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, of which processes may have a shard each; every process calls it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


@torch.no_grad()
def fill(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Copy whole values, which every process has, into tensors or shards of them."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(_like(value, tensor))


def _like(value: Tensor, tensor: Tensor) -> Tensor:
    if not is_sharded(tensor):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(tensor, DTensor)
    return distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
