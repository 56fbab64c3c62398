"""What networks cost before they run: parameters, floating-point operations, memory; worked out without their data.

Tensors are fake: they have shapes and types and no numbers, so that the largest network costs no memory and a second
or two.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sr3eval.device import training_dtype
from sr3eval.diffusion.activations import checkpoint_activations
from sr3eval.diffusion.generator_loss import Levels, generator_loss
from sr3eval.diffusion.loss import regression_loss, sr3_loss
from sr3eval.diffusion.preconditioners import Preconditioner, precondition
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import NormSiLU

CPU = torch.device("cpu")


@contextlib.contextmanager
def fake() -> Iterator[None]:
    """Compute nothing. Attention is products of matrices: the counter does not know all of the fused kernels."""
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        yield


@dataclass(frozen=True)
class PassCosts:
    """Of one forward and backward pass.

    Attributes:
        images: in it.
        forward, backward: floating-point operations of convolutions, matrix products and attention, a multiplication
            and an addition each counting; those of activations that are run forward again are in `backward`.
        kept: bytes that the forward pass keeps for the backward pass, weights aside; of attention, all that it keeps
            without a fused kernel.
    """

    images: int
    forward: int
    backward: int
    kept: int


def parameters(model: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def untrained_parameters(config: TrainConfig) -> int:
    """Those of the network that a config describes."""
    with torch.device("meta"):
        return parameters(precondition(config.model, config.network))


def of_training(config: TrainConfig, device: torch.device) -> PassCosts:
    """Of the forward and backward pass of one part of a batch, in the precision that it has on `device`."""
    optimiser, dtype = config.optimiser, training_dtype(config.optimiser.precision, device)
    images, levels = optimiser.batch_size // optimiser.accumulate, Levels.of(config.schedule.build(), CPU)
    with fake(), CPU:
        model = precondition(config.model, config.network)
        for norm in (module for module in model.modules() if isinstance(module, NormSiLU)):
            norm.by_sums = device.type == "cuda"
        checkpoint_activations(model.unet, optimiser.checkpoint_activations)
        autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
        with FlopCounterMode(display=False) as forward, keeping(model) as kept, autocast:
            loss = _losses(config, model, images, levels).mean()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
        return PassCosts(images, forward.get_total_flops(), backward.get_total_flops(), kept.bytes)


def _losses(config: TrainConfig, model: Preconditioner, images: int, levels: Levels) -> Tensor:
    """The objective [N] on images without content."""
    side = config.data.crop or config.target.hr_size
    y0, noise = (torch.empty(images, 3, side, side, memory_format=torch.channels_last) for _ in range(2))
    if config.generates:
        labels = torch.zeros(images, dtype=torch.int64) if config.network.classes else None
        return generator_loss(model, y0, torch.zeros(images, dtype=torch.int64), noise, levels, labels)
    if config.model == "regression":
        return regression_loss(model, noise, y0, config.p)
    return sr3_loss(model, noise, y0, torch.full((images,), 0.5), noise, config.p)


def forward_flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of a call of networks that have their weights; it computes nothing."""
    with fake(), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@dataclass
class Kept:
    """Storage that autograd keeps, each counted once."""

    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


@contextlib.contextmanager
def keeping(model: nn.Module) -> Iterator[Kept]:
    """Note what the forward passes inside keep for the backward pass, the weights of `model` aside."""
    kept, weights = Kept(), {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # the address of the storage itself: fake ones have no data
            kept.storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
