"""Noise schedules and the draw of gamma."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.train_config import LevelsConfig, ScheduleConfig
from sr3eval.errors import UserError

TRAINING = NoiseSchedule.linear(1e-6, 1e-2, 2000)


def test_gammas_are_the_product_in_float64():
    betas = np.linspace(1e-6, 1e-2, 2000)
    np.testing.assert_allclose(TRAINING.gammas.numpy(), np.exp(np.cumsum(np.log1p(-betas))), rtol=1e-12)
    assert TRAINING.gammas.dtype == torch.float64
    assert float(TRAINING.gammas[-1]) == pytest.approx(4.4e-5, rel=0.02)


def test_gamma_is_piecewise_uniform():
    """CDF of the paper's p(gamma): interval t has mass 1/T, and gamma is uniform inside it."""
    schedule = NoiseSchedule.linear(0.05, 0.4, 5)
    edges = np.concatenate([schedule.gammas.numpy()[::-1], [1.0]])

    def cdf(gamma):
        return np.interp(gamma, edges, np.linspace(0, 1, 6))

    draws = schedule.sample_gamma(20000, torch.Generator().manual_seed(0)).numpy()
    assert stats.kstest(draws, cdf).pvalue > 0.01


def test_every_example_of_a_batch_has_its_own_level():
    """The usual port draws one t for a whole batch, whose gradient then is that of one level."""
    gamma = TRAINING.sample_gamma(64, torch.Generator().manual_seed(1))
    t = np.digitize(gamma.numpy(), TRAINING.gammas.numpy())
    assert len(set(t)) > 55


@given(
    steps=st.integers(1, 400),
    spacing=st.sampled_from(["log_snr", "linear"]),
    first_beta=st.sampled_from([1e-6, 1e-4, 2e-3]),
)
@settings(max_examples=40, deadline=None)
def test_inference_schedules_end_at_the_level_of_training(steps, spacing, first_beta):
    gammas = NoiseSchedule.inference(float(TRAINING.gammas[-1]), steps, spacing, first_beta).gammas
    assert len(gammas) == steps
    assert float(gammas[-1]) == pytest.approx(float(TRAINING.gammas[-1]), rel=1e-6)
    assert bool((gammas.diff() < 0).all())
    if steps > 1:
        assert float(gammas[0]) == pytest.approx(1 - first_beta)


def test_log_snr_falls_in_equal_steps():
    gammas = NoiseSchedule.inference(1e-4, 30).gammas
    steps = torch.logit(gammas).diff()
    torch.testing.assert_close(steps, steps[:1].expand(29))


def test_training_levels_may_be_even_in_log_snr():
    linear, even = ScheduleConfig(start=3e-4).build(), ScheduleConfig(start=3e-4, spacing="log_snr").build()
    torch.testing.assert_close(even.gammas[[0, -1]], linear.gammas[[0, -1]])
    log_snr = torch.logit(even.gammas)
    torch.testing.assert_close(log_snr[1000], log_snr[[0, -1]].mean(), atol=0.01, rtol=0)


def test_the_first_step_may_jump():
    gammas = NoiseSchedule.inference(1e-4, 9, jump=0.5).gammas
    log_snr = torch.logit(gammas).flip(0)
    expected = [np.log(1e-4 / (1 - 1e-4)), *np.linspace(0.5, np.log((1 - 1e-4) / 1e-4), 8)]
    np.testing.assert_allclose(log_snr.numpy(), expected, atol=1e-9)
    for jump in (-20.0, 12.0):
        with pytest.raises(UserError, match="is not between the log SNR of the first and last step, -9.21 and 9.21"):
            NoiseSchedule.inference(1e-4, 9, jump=jump)
    assert len(NoiseSchedule.inference(1e-4, 1, jump=0.5)) == 1


def test_levels_of_training_may_be_normal_in_log_snr():
    levels = LevelsConfig(mean=5.0, deviation=2.0, normal=0.75, low=-10, high=14)
    log_snr = torch.logit(levels.sample_gamma(20000, torch.Generator().manual_seed(0))).numpy()
    assert log_snr.min() >= -10 - 1e-6 and log_snr.max() <= 14 + 1e-6
    mixture = lambda v: 0.75 * stats.norm.cdf(v, 5, 2) + 0.25 * np.clip((v + 10) / 24, 0, 1)  # noqa: E731
    assert stats.kstest(log_snr, mixture).pvalue > 0.01
