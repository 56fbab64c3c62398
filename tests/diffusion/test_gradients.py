"""Backward passes of our own: the gradients of the plain ones, from less memory or in less time."""

import pytest
import torch
import torch.nn.functional as F

from sr3eval.diffusion.activations import checkpoint_activations
from sr3eval.diffusion.gradients import GroupNorm
from sr3eval.diffusion.unet import NormSiLU, ResidualBlock, UNet, UNetConfig

CONFIG = UNetConfig(16, (1, 3), 1, 16, attention=(8,))
INPUTS = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(1))


def randomised(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    return network.to(memory_format=torch.channels_last)


def recomputing(network, recompute=True):
    for module in network.modules():
        if isinstance(module, NormSiLU):
            module.recompute = recompute
    return network


def gradients(network, *inputs, dtype=None):
    """Of the network's parameters and first input, for a fixed loss and fixed random numbers."""
    network.zero_grad()
    x = inputs[0].clone().requires_grad_()
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        out = network(x, *inputs[1:])
    out.float().square().mean().backward()
    return [x.grad, *(parameter.grad for parameter in network.parameters())]


def relative(a, b):
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


@pytest.mark.parametrize("resample", [None, "down", "up"])
@pytest.mark.parametrize("by_sums", [False, True])
def test_gradients_of_a_block_are_finite_differences(resample, by_sums):
    block = randomised(recomputing(ResidualBlock(4, 8, 6, resample=resample))).double()
    block.norm1.by_sums = block.norm2.by_sums = by_sums
    x, embedding = torch.randn(2, 4, 4, 4, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    names = [name for name, _ in block.named_parameters()]

    def function(x, embedding, *weights):
        return torch.func.functional_call(block, dict(zip(names, weights, strict=True)), (x, embedding))

    assert torch.autograd.gradcheck(block, (x.requires_grad_(), embedding.requires_grad_()), fast_mode=True)
    weights = [w.detach().requires_grad_() for w in block.parameters()]
    assert torch.autograd.gradcheck(function, (x, embedding, *weights), fast_mode=True)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("by_sums", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputing_gives_the_same_gradients(dtype, by_sums, dropout):
    network = randomised(UNet(UNetConfig(16, (1, 3), 1, 16, attention=(8,), dropout=dropout)))
    for module in network.modules():
        if isinstance(module, NormSiLU):
            module.by_sums = by_sums
    gamma = torch.tensor([0.3, 0.99])
    kept = gradients(network, INPUTS, gamma, dtype=dtype)
    recomputed = gradients(recomputing(network), INPUTS, gamma, dtype=dtype)
    differences = [relative(a, b) for a, b in zip(recomputed, kept, strict=True)]
    # By sums, gradients of what is used several times add up in another order.
    assert max(differences) <= (0 if not by_sums else 1e-6 if dtype is None else 0.01)


def test_a_weight_used_in_both_ways_under_autocast_gets_both_gradients():
    """Autocast's cache would give the second the first's copy, which has no gradient."""

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = ResidualBlock(8, 8, None)

        def forward(self, x):
            x = self.block(x, None)
            return self.block.conv2(self.block.conv1(x)) + self.block(x, None)

    network, x = randomised(Twice()), torch.randn(2, 8, 8, 8)
    exact = gradients(network, x)
    recomputed = gradients(recomputing(network), x, dtype=torch.bfloat16)
    assert max(relative(a, b) for a, b in zip(recomputed, exact, strict=True)) < 0.02


def test_recomputing_inside_checkpointed_levels_and_frozen_weights():
    network = randomised(UNet(CONFIG))
    network.conv_out.requires_grad_(False)
    network.norm_out.requires_grad_(False)
    gamma = torch.tensor([0.3, 0.99])
    kept = gradients(network, INPUTS, gamma)
    checkpoint_activations(network, "norms")
    checkpoint_activations(network, [0])
    for a, b in zip(kept, gradients(network, INPUTS, gamma), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_recomputing_keeps_little():
    network, gamma = randomised(UNet(CONFIG)), torch.tensor([0.3, 0.99])
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def kept_bytes():
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = network(INPUTS, gamma)
        assert out.requires_grad
        return sum(storage.nbytes() for storage in storages.values())

    plain = kept_bytes()
    recomputing(network)
    assert kept_bytes() < 0.45 * plain


def test_compiled_code_takes_no_function_of_ours():
    block, x = randomised(recomputing(ResidualBlock(8, 8, 6))), torch.randn(2, 8, 8, 8)
    embedding = torch.randn(2, 6)
    plain = gradients(block, x, embedding)
    compiled = gradients(torch.compile(block, backend="eager", fullgraph=True), x, embedding)
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b)


def test_group_norm_s_gradients_in_bfloat16_are_those_of_float64():
    torch.manual_seed(0)
    x = (3 + torch.randn(2, 16, 9, 7)).bfloat16().contiguous(memory_format=torch.channels_last)
    weight, bias, upstream = torch.randn(16), torch.randn(16), torch.randn(2, 16, 9, 7).bfloat16()

    def found(function, dtype):
        tensors = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
        function(*tensors).backward(upstream.to(dtype))
        return [t.grad for t in tensors]

    exact = found(lambda x, w, b: F.group_norm(x, 4, w, b, 1e-6), torch.float64)
    mixed = [x.clone().requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    out = GroupNorm.apply(mixed[0], 4, *mixed[1:], 1e-6)
    assert torch.equal(out, F.group_norm(*(mixed[0], 4, *mixed[1:], 1e-6)))
    out.backward(upstream)
    for tensor, expected, bound in zip(mixed, exact, (2**-8, 1e-5, 1e-5), strict=True):
        assert tensor.grad.dtype == tensor.dtype
        assert float((tensor.grad - expected).norm() / expected.norm()) < bound


@pytest.mark.parametrize("way", ["plain", "by sums", "recomputed"])
def test_float32_is_float64_within_its_rounding(way):
    """Outputs and gradients, relative to their norm. Measured: 6.4e-7 and 8.2e-6, the latter of the level's MLP."""
    network = randomised(UNet(CONFIG))
    for module in network.modules():
        if isinstance(module, NormSiLU):
            module.by_sums, module.recompute = way == "by sums", way == "recomputed"
    gamma = torch.tensor([0.25, 0.0625])  # their roots are exact
    single = [network(INPUTS, gamma).detach(), *(g.clone() for g in gradients(network, INPUTS, gamma))]
    network.double()
    double = [network(INPUTS.double(), gamma.double()).detach(), *gradients(network, INPUTS.double(), gamma.double())]
    differences = [relative(a, b) for a, b in zip(single, double, strict=True)]
    assert differences[0] < 2e-6
    assert max(differences) < 2e-5
