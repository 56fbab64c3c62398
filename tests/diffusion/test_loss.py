"""The objectives."""

import torch

from sr3eval.diffusion.loss import output_weight, regression_loss, sr3_loss
from sr3eval.diffusion.unet import UNet, UNetConfig


def test_is_zero_for_the_true_noise_and_one_number_an_example():
    x, y0, noise = torch.randn(3, 4, 3, 8, 8)
    gamma = torch.tensor([0.9, 0.5, 0.1, 1e-4])

    def oracle(x, y, gamma):
        g = gamma[:, None, None, None]
        return (y - g.sqrt() * y0) / (1 - g).sqrt()

    for p in (1, 2):
        loss = sr3_loss(oracle, x, y0, gamma, noise, p)
        assert loss.shape == (4,)
        assert loss.max() < 1e-4


def test_norms():
    x, y0 = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    noise = torch.full_like(x, 3.0)
    silent = lambda x, y, gamma: torch.zeros_like(y)  # noqa: E731
    assert sr3_loss(silent, x, y0, torch.tensor([0.5]), noise, p=1).item() == 3
    assert sr3_loss(silent, x, y0, torch.tensor([0.5]), noise, p=2).item() == 9
    assert regression_loss(torch.zeros_like, x, y0 + 2, p=2).item() == 4


def test_output_weight_makes_the_error_that_of_the_network_s_own_output():
    """A constant added to the last layer: predictions move by it over the weight."""
    s = 0.07
    network = UNet(UNetConfig(8, (1,), 1, 8, attention=(), middle_attention=False, residual_scale=s)).double()
    network.embed.float()
    x, y = torch.randn(2, 5, 3, 8, 8, dtype=torch.float64)
    gamma = torch.tensor([1e-4, 0.1, 0.9, 0.999, 0.99999], dtype=torch.float64)
    network.embed.forward = lambda gamma: torch.zeros(len(gamma), 32, dtype=torch.float64)
    before = network(x, y, gamma)
    torch.nn.init.constant_(network.conv_out.bias, 0.3)
    error = (network(x, y, gamma) - before).flatten(1).mean(1)
    torch.testing.assert_close(error * output_weight(gamma, s), torch.full((5,), 0.3, dtype=torch.float64))
