"""The U-Net and the paper's presets."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sr3eval.diffusion.ema import EMA
from sr3eval.diffusion.loss import sr3_loss
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.presets import PRESETS
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.solvers import NoisePerImage, refine
from sr3eval.diffusion.unet import (
    NoiseLevelEmbedding,
    NormSiLU,
    ResidualBlock,
    SelfAttention,
    UNet,
    UNetConfig,
    groups_of,
)
from sr3eval.errors import UserError

TABLE_1 = {"faces_16_128": 550e6, "faces_64_256": 625e6, "faces_64_512": 625e6, "faces_256_1024": 150e6}


def parameters(config, **plain):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(config, **plain).parameters())


@pytest.mark.parametrize("name", TABLE_1)
def test_presets_have_the_paper_s_size(name):
    assert parameters(PRESETS[name]) == pytest.approx(TABLE_1[name], rel=0.05)
    assert parameters(PRESETS[name], inputs=3, conditional=False) == pytest.approx(TABLE_1[name], rel=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_and_samples(name):
    """All levels and blocks of the preset, at a channel dimension of 8 and the smallest valid image."""
    config = replace(PRESETS[name], channels=8)
    torch.manual_seed(0)
    model = precondition("sr3", config)
    network, side = model.unet, config.factor
    x, y0, noise = torch.randn(3, 2, 3, side, side)
    ema = EMA(network, 0.9999)
    schedule = NoiseSchedule.linear(1e-4, 0.5, 3)
    before = network.conv_out.weight.clone()
    loss = sr3_loss(model, x, y0, schedule.sample_gamma(2).float(), noise).mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    torch.optim.Adam(network.parameters(), 1e-4).step()
    ema.update(network, 1)
    assert not torch.equal(network.conv_out.weight, before)
    assert torch.allclose(ema.shadow["conv_out.weight"], torch.lerp(before, network.conv_out.weight, 0.9))
    with torch.inference_mode():
        steps = list(refine(model.eval(), x, schedule, NoisePerImage([0, 1], x)))
    assert len(steps) == 3
    assert steps[-1].shape == x.shape
    assert bool(steps[-1].isfinite().all())


def test_a_new_network_predicts_zero_and_its_blocks_start_as_shortcuts():
    config = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, image_size=16)
    x = torch.randn(2, 6, 16, 16)
    assert UNet(config)(x, torch.tensor([0.5, 0.1])).abs().max() == 0
    h = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(ResidualBlock(8, 8, None)(h, None), h / math.sqrt(2))
    torch.testing.assert_close(SelfAttention(8)(h), h / math.sqrt(2))


def test_blocks_resample_both_branches():
    h = torch.randn(1, 8, 4, 4)
    down = ResidualBlock(8, 8, None, resample="down")(h, None)
    torch.testing.assert_close(down, torch.nn.functional.avg_pool2d(h, 2) / math.sqrt(2))
    up = ResidualBlock(8, 8, None, resample="up")(h, None)
    torch.testing.assert_close(up, h.repeat_interleave(2, -1).repeat_interleave(2, -2) / math.sqrt(2))


def test_attention_is_softmax_over_all_positions():
    layer = SelfAttention(8)
    torch.nn.init.normal_(layer.project.weight)
    x = torch.randn(2, 8, 3, 5)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)  # [N, C, HW]
    weights = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(8), dim=-1)
    expected = layer.project(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape))
    torch.testing.assert_close(layer(x), (x + expected) / math.sqrt(2), atol=1e-5, rtol=1e-5)


def test_attention_is_placed_by_resolution():
    def sides(config):
        """Sides of the feature maps that self-attention sees."""
        network, seen = UNet(config), []
        for layer in network.modules():
            if isinstance(layer, SelfAttention):
                layer.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[-1]))
        network(torch.randn(1, 6, config.image_size, config.image_size), torch.ones(1))
        return seen

    config = UNetConfig(channels=8, multipliers=(1, 1, 2), blocks=2, image_size=32, attention=(16,))
    assert sides(config) == [16, 16, 8, 16, 16, 16]
    assert sides(replace(config, attention=(), middle_attention=False)) == []


@given(st.integers(1, 4096))
def test_group_norm_is_valid_at_every_width(channels):
    norm = torch.nn.GroupNorm(groups_of(channels), channels)
    assert norm.num_groups <= 32
    assert channels % norm.num_groups == 0


def test_the_noise_level_embedding_tells_late_levels_apart():
    """Sinusoids of sqrt(gamma) without a scale put the last 50 of 2000 levels within 0.005 of each other."""
    gammas = NoiseSchedule.linear(1e-6, 1e-2, 2000).gammas
    seen = []
    embed = NoiseLevelEmbedding(64)
    embed.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    embed(gammas)
    first, fiftieth = seen[0][0], seen[0][49]
    assert (first - fiftieth).norm() > 1
    singular = torch.linalg.svdvals(seen[0])
    assert (singular / singular[0] > 1e-2).sum() > 20


def test_takes_any_size_its_levels_divide_and_refuses_others():
    network = UNet(UNetConfig(channels=8, multipliers=(1, 2), blocks=1, image_size=16), inputs=5, conditional=False)
    assert network(torch.randn(1, 5, 6, 34)).shape == (1, 3, 6, 34)
    with pytest.raises(UserError, match="multiples of 2"):
        network(torch.randn(1, 5, 7, 8))


@pytest.mark.parametrize(
    "wrong", [{"channels": 7}, {"multipliers": ()}, {"blocks": 0}, {"image_size": 15}, {"dropout": 1.0}]
)
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(UserError, match="unet"):
        replace(UNetConfig(channels=8, multipliers=(1, 2), blocks=1, image_size=16), **wrong)


@pytest.mark.parametrize("conditional", [True, False])
def test_norms_by_sums_are_the_same_network(conditional):
    """What GPUs compute, on the CPU: outputs and every gradient, biases that it moves elsewhere included."""
    torch.manual_seed(0)
    config = UNetConfig(16, (1, 3), 1, 16, attention=(8,))
    network = UNet(config, conditional=conditional).to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 6, 16, 16)
    gamma = torch.tensor([0.3, 0.99]) if conditional else None
    found = []
    for by_sums in (False, True):
        for module in network.modules():
            if isinstance(module, NormSiLU):
                module.by_sums = by_sums
        network.zero_grad()
        out = network(x, gamma)
        out.square().mean().backward()
        found.append([out.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    for plain, sums in zip(*found, strict=True):
        assert float((plain - sums).norm() / plain.norm().clamp(min=1e-9)) < 1e-5
