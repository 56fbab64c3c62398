"""The objectives."""

import torch

from sr3eval.diffusion.loss import regression_loss, sr3_loss


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
    assert regression_loss(torch.ones_like, x, y0 + 3, p=2).item() == 4
    assert regression_loss(torch.ones_like, x, y0 + 3, p=1).item() == 2
