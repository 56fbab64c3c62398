"""The paper's models around the U-Net: what goes in, what comes out, and that the embedded ones stay the same."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sr3eval.diffusion import checkpoint
from sr3eval.diffusion.preconditioners import output_weight, precondition
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.solvers import NoisePerImage, refine
from sr3eval.diffusion.unet import UNetConfig

GOLDENS = Path(__file__).parent / "goldens" / "embedded.npz"
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "image_size": 16}


@pytest.fixture
def images():
    """x and y, and gammas from all but pure noise to all but none."""
    x, y = torch.randn(2, 3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x, y, torch.tensor([1e-3, 0.5, 0.999], dtype=torch.float64)


def stubbed(model, **config):
    """A model whose U-Net is a formula, and the inputs that it was given."""
    made, seen = precondition(model, UNetConfig(**SMALL, **config)), []

    def formula(inputs, gamma=None):
        seen.append((inputs, gamma))
        return inputs[:, -3:].sin()

    made.unet.forward = formula
    return made, seen


def test_sr3_is_the_paper_s(images):
    model, seen = stubbed("sr3")
    x, y, gamma = images
    assert torch.equal(model(x, y, gamma), y.sin())
    assert torch.equal(seen[0][0], torch.cat([x, y], dim=1)) and torch.equal(seen[0][1], gamma)


def test_sr3_with_a_residual_scale_is_edm_s_denoiser_of_the_details(images):
    """EDM's Table 1 (Karras et al. 2022), for r_noisy = r + sigma eps; its F has the other sign."""
    s = 0.3
    model, seen = stubbed("sr3", residual_scale=s)
    x, y, gamma = images
    g = gamma[:, None, None, None]
    sigma = ((1 - g) / g).sqrt()
    noisy = y / g.sqrt() - x
    network = -(noisy / (sigma**2 + s**2).sqrt()).sin()
    denoised = s**2 / (sigma**2 + s**2) * noisy + sigma * s / (sigma**2 + s**2).sqrt() * network
    torch.testing.assert_close(model(x, y, gamma), (noisy - denoised) / sigma, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(seen[0][0][:, :3], x)
    assert torch.equal(seen[0][1], gamma)


def test_regression_adds_the_network_to_its_input(images):
    model, seen = stubbed("regression", residual_scale=0.3)
    x, *_ = images
    assert torch.equal(model(x), x + x.sin())
    assert torch.equal(seen[0][0], x) and seen[0][1] is None


@pytest.mark.parametrize("model", ["sr3", "regression"])
def test_the_embedded_models_give_what_they_gave(model):
    golden = {name: torch.from_numpy(array) for name, array in np.load(GOLDENS).items()}
    made = checkpoint.load(f"sr3eval:assets/{model}_photos_16_64.safetensors", model).model()
    inputs = (golden["x"], golden["y"], golden["gamma"]) if model == "sr3" else (golden["x"],)
    with torch.inference_mode():
        torch.testing.assert_close(made(*inputs), golden[model], atol=2e-5, rtol=0)


def test_residual_scale_starts_from_the_linear_estimate():
    """Untrained, it predicts E[eps] for details y_0 - x ~ N(0, s^2): the regression of eps on y - sqrt(g) x."""
    s, g = 0.1, 0.7
    model = precondition("sr3", UNetConfig(channels=8, multipliers=(1,), blocks=1, image_size=16, residual_scale=s))
    x, eps = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    y0 = x + s * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y = math.sqrt(g) * y0 + math.sqrt(1 - g) * eps
    predicted = model(x, y, torch.full((4,), g))
    details = y - math.sqrt(g) * x
    slope = (details * eps).sum() / details.square().sum()
    assert (predicted / details).mean().item() == pytest.approx(slope.item(), rel=0.01)


def test_residual_scale_cannot_shift_colours():
    """What group norm and few steps do to hue in other SR3 code: here even an untrained network keeps it."""
    torch.manual_seed(0)
    config = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, image_size=32, residual_scale=0.1)
    model = precondition("sr3", config).eval()
    x = torch.rand(2, 3, 1, 1).expand(2, 3, 32, 32).contiguous() - 0.5
    schedule = NoiseSchedule.inference(4.4e-5, 25)
    with torch.inference_mode():
        *_, y = refine(model, x, schedule, NoisePerImage([0, 1], x), "posterior", clip=True)
    assert (y - x).mean(dim=(2, 3)).abs().max() < 1.5 * 2 / 255
    assert (y - x).std().item() == pytest.approx(0.1, rel=0.25)


def test_output_weight_makes_the_error_that_of_the_network_s_own_output():
    """A constant added to the last layer: predictions move by it over the weight."""
    s = 0.07
    config = UNetConfig(8, (1,), 1, 8, attention=(), middle_attention=False, residual_scale=s)
    model = precondition("sr3", config).double()
    network = model.unet
    network.embed.float()
    x, y = torch.randn(2, 5, 3, 8, 8, dtype=torch.float64)
    gamma = torch.tensor([1e-4, 0.1, 0.9, 0.999, 0.99999], dtype=torch.float64)
    network.embed.forward = lambda gamma: torch.zeros(len(gamma), 32, dtype=torch.float64)
    before = model(x, y, gamma)
    torch.nn.init.constant_(network.conv_out.bias, 0.3)
    error = (model(x, y, gamma) - before).flatten(1).mean(1)
    torch.testing.assert_close(error * output_weight(gamma, s), torch.full((5,), 0.3, dtype=torch.float64))
