"""Backward passes of our own: of a convolution, for less memory; of GroupNorm in bfloat16, for less time on CPUs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Callable[..., Tensor]


def recomputed_conv(
    activation: Activation, inputs: Sequence[Tensor | None], weight: Tensor, bias: Tensor | None
) -> Tensor:
    """3x3 convolution, which keeps the size, of activation(*inputs) [N, C, H, W], a function that draws nothing.

    For the backward pass it keeps the inputs alone and runs the activation again; gradients are the same.
    """
    return _RecomputedConv.apply(activation, weight, bias, *inputs)


class _RecomputedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, activation: Activation, weight: Tensor, bias: Tensor | None, *inputs: Tensor | None
    ) -> Tensor:
        device = weight.device.type
        ctx.autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        ctx.activation, ctx.has_bias = activation, bias is not None
        ctx.save_for_backward(weight, *inputs)
        h = activation(*inputs)
        with torch.autocast(device, enabled=False):  # its cache would keep weights that have no gradient
            h, weight, bias = (_cast(t, ctx.autocast) for t in (h, weight, bias))
            return F.conv2d(h, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        weight_needed, bias_needed, *needed = ctx.needs_input_grad[1:]
        inputs = [t if t is None else t.detach().requires_grad_(n) for t, n in zip(saved, needed, strict=True)]
        device = weight.device.type
        with torch.enable_grad(), torch.autocast(device, ctx.autocast, enabled=ctx.autocast is not None):
            activated = ctx.activation(*inputs)
        h, weight = (_cast(t, ctx.autocast) for t in (activated.detach(), weight))
        mask = [any(needed), weight_needed, ctx.has_bias and bias_needed]
        of_h, of_weight, of_bias = _conv_backward(gradient, h, weight, mask)
        if of_h is not None:
            torch.autograd.backward(activated, of_h.to(activated.dtype))
        # Autograd casts them to their tensors' types.
        return None, of_weight, of_bias, *(None if t is None else t.grad for t in inputs)


def _cast(tensor: Tensor | None, dtype: torch.dtype | None) -> Any:
    return tensor if tensor is None or dtype is None else tensor.to(dtype)


def _conv_backward(gradient: Tensor, h: Tensor, weight: Tensor, mask: list[bool]) -> tuple[Tensor | None, ...]:
    """Gradients of h, weight and bias, those of them that `mask` names."""
    one, zero = [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(gradient, h, weight, [len(weight)], one, one, one, False, zero, 1, mask)


class GroupNorm(torch.autograd.Function):
    """F.group_norm of channels-last bfloat16, whose backward pass PyTorch's CPU kernel makes faster in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.sizes = (len(x), x.shape[1], x.shape[2] * x.shape[3], groups)
        out, mean, inverse = torch.ops.aten.native_group_norm(x, weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, mean, inverse, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, weight = (t.float() for t in ctx.saved_tensors)
        gradient = torch.empty_like(x).copy_(gradient)  # in the layout of x
        mask = [ctx.needs_input_grad[i] for i in (0, 2, 3)]
        backward = torch.ops.aten.native_group_norm_backward
        of_x, of_weight, of_bias = backward(gradient, x, mean, inverse, weight, *ctx.sizes, mask)
        return of_x, None, of_weight, of_bias, None  # autograd casts them to their tensors' types
