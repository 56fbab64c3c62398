"""Iterative refinement, where the right answer is known in closed form."""

import itertools
import math

import pytest
import torch

from sr3eval.diffusion.preconditioners import SR3Preconditioner
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.solvers import NoisePerImage, SamplerConfig, refine
from sr3eval.diffusion.unet import UNetConfig
from sr3eval.errors import UserError

TRAINING = NoiseSchedule.linear(1e-6, 1e-2, 2000)
MEAN, SD = 0.3, 0.2


def gaussian_denoiser(x, y, gamma):
    """E[eps | y] when y_0 ~ N(MEAN, SD^2)."""
    g = gamma[:, None, None, None]
    return (1 - g).sqrt() * (y - g.sqrt() * MEAN) / (g * SD**2 + 1 - g)


def run(schedule, variance, clip=False, n=8):
    x = torch.zeros(n, 3, 32, 32, dtype=torch.float64)
    noise = lambda: torch.randn(x.shape, dtype=x.dtype, generator=generator)  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    steps = list(refine(gaussian_denoiser, x, schedule, noise, variance, clip))
    return steps


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_the_exact_denoiser_gives_the_data_distribution(variance):
    steps = run(TRAINING, variance)
    assert len(steps) == 2000
    assert steps[-1].mean().item() == pytest.approx(MEAN, abs=0.005)
    assert steps[-1].std().item() == pytest.approx(SD, rel=0.02)


def test_few_steps_start_where_training_ended():
    """Keeping beta_T while cutting steps starts at the wrong noise level, and the mean never gets there."""
    final_gamma = float(TRAINING.gammas[-1])
    for spacing in ("log_snr", "linear"):
        schedule = NoiseSchedule.inference(final_gamma, 10, spacing)
        assert run(schedule, "posterior")[-1].mean().item() == pytest.approx(MEAN, abs=0.01)
    truncated = NoiseSchedule.linear(1e-6, 1e-2, 10)
    assert run(truncated, "posterior")[-1].mean().item() < MEAN - 0.1


def test_log_snr_spacing_loses_less_of_the_distribution_s_width():
    error = {}
    for spacing in ("log_snr", "linear"):
        steps = run(NoiseSchedule.inference(float(TRAINING.gammas[-1]), 25, spacing), "posterior")
        error[spacing] = abs(steps[-1].std().item() - SD) / SD
    assert error["log_snr"] < 0.2 < 0.3 < error["linear"]


@pytest.mark.parametrize("clip", [False, True])
def test_one_step_is_the_paper_s_formula(clip):
    """Against the buffers that DDPM code keeps (q_posterior of the x_0 estimate), written out independently."""
    schedule = NoiseSchedule.linear(0.1, 0.6, 3)
    a, g = schedule.alphas, schedule.gammas
    y = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    z = torch.randn_like(y)
    draws = iter([y, z, z, z])
    eps = torch.randn_like(y)
    first = next(refine(lambda *_: eps, y, schedule, lambda: next(draws), "posterior", clip))
    x0 = (1 / g[2]).sqrt() * y - (1 / g[2] - 1).sqrt() * eps
    x0 = x0.clamp(-1, 1) if clip else x0
    beta = 1 - a[2]
    mean = beta * g[1].sqrt() / (1 - g[2]) * x0 + (1 - g[1]) * a[2].sqrt() / (1 - g[2]) * y
    expected = mean + (beta * (1 - g[1]) / (1 - g[2])).sqrt() * z
    torch.testing.assert_close(first, expected)
    if not clip:
        draws = iter([y, z])
        ours = next(refine(lambda *_: eps, y, schedule, lambda: next(draws), "beta"))
        algorithm_2 = (y - beta / (1 - g[2]).sqrt() * eps) / a[2].sqrt() + beta.sqrt() * z
        torch.testing.assert_close(ours, algorithm_2)


def test_the_last_step_adds_no_noise_and_every_image_of_a_batch_comes_back():
    schedule = NoiseSchedule.linear(0.1, 0.5, 4)
    x = torch.zeros(5, 3, 4, 4)
    calls = []
    noise = NoisePerImage(range(5), x)
    *_, y = refine(lambda x, y, gamma: y * 0.1, x, schedule, lambda: calls.append(1) or noise(), "beta")
    assert len(calls) == 4
    assert y.shape == x.shape
    assert len({tuple(image.flatten().tolist()) for image in y}) == 5


def test_noise_of_an_image_depends_on_its_seed_alone():
    like = torch.zeros(3, 3, 4, 4)
    together, alone = NoisePerImage([7, 8, 9], like), NoisePerImage([8], like[:1])
    for _ in range(3):
        assert torch.equal(together()[1], alone()[0])


def flow_of_the_gaussian(y, gamma):
    """Where the probability-flow ODE takes y at gamma when y_0 ~ N(MEAN, SD^2): deviations keep their rank."""
    return MEAN + SD * (y - math.sqrt(gamma) * MEAN) / math.sqrt(gamma * SD**2 + 1 - gamma)


def error_of(solver, steps):
    """Mean error of an ODE solver's output, all of whose noise is in its start."""
    schedule = NoiseSchedule.log_snr(1 - 1e-9, 1e-3, steps)
    y = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    *_, out = refine(gaussian_denoiser, torch.zeros_like(y), schedule, lambda: y, solver=solver)
    return float((out - flow_of_the_gaussian(y, float(schedule.gammas[-1]))).abs().mean())


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_solvers_converge_with_their_order(solver, order):
    errors = [error_of(solver, steps) for steps in (64, 128, 256)]
    assert errors[-1] < 1e-2
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def steps_of(solver, eta, schedule, variance="beta", clip=False):
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)  # noqa: E731
    return list(refine(gaussian_denoiser, draw(), schedule, draw, variance, clip, solver, eta))


@pytest.mark.parametrize("clip", [False, True])
def test_ddim_with_all_noise_is_the_ancestral_step(clip):
    schedule = NoiseSchedule.linear(0.02, 0.6, 6)
    ours, ancestral = (
        steps_of("ddim", 1.0, schedule, clip=clip),
        steps_of("ancestral", None, schedule, "posterior", clip),
    )
    for a, b in zip(ours, ancestral, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpmpp_2m_is_k_diffusion_s(eta):
    """Against the same solver in its other form: y / sqrt(gamma) over sigma = sqrt((1 - gamma) / gamma)."""
    schedule = NoiseSchedule.inference(1e-3, 5)
    gammas = schedule.gammas.flip(0)
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)  # noqa: E731
    draw()  # the condition
    z = draw() / gammas[0].sqrt()
    sigmas = ((1 - gammas) / gammas).sqrt()
    old, h_last = None, None
    for i, (gamma, sigma) in enumerate(zip(gammas, sigmas, strict=True)):
        eps = gaussian_denoiser(None, z * gamma.sqrt(), gamma.expand(2))
        denoised = z - sigma * eps
        if i == len(sigmas) - 1:
            z = denoised
            break
        h = (sigma / sigmas[i + 1]).log()
        z = sigmas[i + 1] / sigma * (-h * eta).exp() * z - (-h - h * eta).expm1() * denoised
        if old is not None:
            z = z - 0.5 * (-h - h * eta).expm1() * (h / h_last) * (denoised - old)
        if eta:
            z = z + draw() * sigmas[i + 1] * (-2 * h * eta).expm1().neg().sqrt()
        old, h_last = denoised, h
    torch.testing.assert_close(steps_of("dpmpp_2m_sde", eta, schedule)[-1], z)


def test_the_sde_solver_keeps_the_distribution():
    schedule = NoiseSchedule.log_snr(1 - 1e-6, 1e-3, 60)
    x = torch.zeros(8, 3, 32, 32, dtype=torch.float64)
    noise = NoisePerImage(range(8), x)
    *_, y = refine(gaussian_denoiser, x, schedule, lambda: noise().double(), solver="dpmpp_2m_sde")
    assert y.mean().item() == pytest.approx(MEAN, abs=0.005)
    assert y.std().item() == pytest.approx(SD, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "sampler: 0 steps; at least 1 is needed"),
        ({"solver": "dpmpp_2m", "eta": 0.5}, 'eta: only for solver = "ddim" or "dpmpp_2m_sde"'),
        ({"solver": "ddim", "eta": 1.5}, "from 0 to 1"),
        ({"solver": "ddim", "variance": "posterior"}, 'variance: only for solver = "ancestral"'),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        SamplerConfig(**options)


@pytest.mark.parametrize("solver", ["ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("clip", [False, True])
def test_the_loop_reads_no_number_back_from_the_device(solver, clip):
    """Tensors of the meta device have none: reading one raises."""
    with torch.device("meta"):
        model = SR3Preconditioner(UNetConfig(8, (1, 2), 1, 16)).eval()
        x = torch.zeros(2, 3, 16, 16)
    sampler = SamplerConfig(4, solver, clip=clip)
    with torch.inference_mode():
        steps = list(sampler.refine(model, x, float(TRAINING.gammas[-1]), NoisePerImage([0, 1], x)))
    assert [step.device.type for step in steps] == ["meta"] * 4


def test_settings_are_described_as_far_as_they_apply():
    searched = SamplerConfig(8, "dpmpp_2m_sde", eta=0.5, clip=True, first_beta=1.78e-5)
    assert (
        searched.described == "solver = dpmpp_2m_sde, eta = 0.5, clip = True, spacing = log_snr, first_beta = 1.78e-05"
    )
    assert SamplerConfig(100).described == (
        "solver = ancestral, variance = beta, clip = False, spacing = log_snr, first_beta = 0.0001"
    )
