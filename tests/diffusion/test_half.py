"""half = true of SR3 and Regression: convolutions in bfloat16, where the hardware has it."""

import pytest
import torch

from sr3eval import device
from sr3eval.diffusion import checkpoint
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.regression import Regression
from sr3eval.diffusion.solvers import SamplerConfig
from sr3eval.diffusion.sr3 import SR3
from sr3eval.diffusion.unet import UNetConfig
from sr3eval.errors import UserError
from sr3eval.images import to_uint8
from sr3eval.methods import load

ASSETS = "sr3eval:assets/{}_photos_16_64.safetensors"
SAMPLER = SamplerConfig(4, "dpmpp_2m_sde", clip=True, jump=0.0)


@pytest.fixture
def bfloat16(monkeypatch):
    """Elsewhere PyTorch emulates it."""
    monkeypatch.setattr(device, "has_bfloat16", lambda _: True)


def build(kind, half):
    weights = checkpoint.load(ASSETS.format(kind))
    return SR3(weights, SAMPLER, half) if kind == "sr3" else Regression(weights, half=half)


@pytest.mark.parametrize("kind", ["sr3", "regression"])
def test_pictures_differ_by_a_level_here_and_there(kind, bfloat16):
    lr = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    lr = torch.nn.functional.interpolate(lr, (16, 16), mode="bilinear")
    single, half = (build(kind, way).upscale(lr, [0, 1]).images for way in (False, True))
    assert half.dtype == torch.float32
    levels = (to_uint8(half).int() - to_uint8(single).int()).abs()
    assert 0 < float(levels.float().mean()) < 0.15
    assert float((levels > 1).float().mean()) < 1e-3


@pytest.mark.parametrize("kind", ["sr3", "regression"])
def test_is_refused_without_the_hardware(kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    with pytest.raises(UserError, match=r"^half = true: this CPU does not compute in bfloat16; leave it out$"):
        load(kind, checkpoint=ASSETS.format(kind), half=True)


@pytest.mark.parametrize("kind", ["sr3", "regression"])
def test_is_part_of_the_fingerprint(kind, bfloat16):
    single, half = build(kind, False), build(kind, True)
    assert single.fingerprint != half.fingerprint
    assert "half = True" in half.facts.settings and "half" not in single.facts.settings


@pytest.mark.parametrize("model", ["sr3", "regression"])
def test_convolutions_alone_are_in_bfloat16(model):
    """Attention and norms by sums included: what GPUs run, which do not mix types in a norm."""
    torch.manual_seed(0)
    network = precondition(model, UNetConfig(16, (1, 2), 1, 16, attention=(8,), residual_scale=0.1)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    x, y = torch.randn(2, 2, 3, 16, 16)
    inputs = (x, y, torch.tensor([0.5, 0.99])) if model == "sr3" else (x,)
    with torch.inference_mode():
        single = network(*inputs)
        network.unet.convolve_in(torch.bfloat16)
        types = {p.dtype for m in network.modules() if isinstance(m, torch.nn.Conv2d) for p in m.parameters()}
        others = {p.dtype for m in network.modules() if isinstance(m, torch.nn.GroupNorm) for p in m.parameters()}
        half = network(*inputs)
        for module in network.modules():
            if hasattr(module, "by_sums"):
                module.by_sums = True
        by_sums = network(*inputs)
    assert (types, others, half.dtype) == ({torch.bfloat16}, {torch.float32}, torch.float32)
    for found in (half, by_sums):
        assert 0 < float((found - single).norm() / single.norm()) < 0.01
