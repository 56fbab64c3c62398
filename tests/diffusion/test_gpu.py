"""Networks on a GPU beside the CPU, and a training step as a CUDA graph beside the plain one."""

from dataclasses import replace

import pytest
import torch

from sr3eval.config import from_dict
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.schedule import NoiseSchedule
from sr3eval.diffusion.solvers import NoisePerImage, SamplerConfig
from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.diffusion.unet import UNetConfig

pytestmark = pytest.mark.gpu


def randomised(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    return network.eval()


@pytest.mark.parametrize("model", ["sr3", "regression"])
def test_networks(model, tf32, record_property):
    network = randomised(precondition(model, UNetConfig(32, (1, 2, 4), 2, 64, residual_scale=0.07)))
    x, y = torch.randn(2, 2, 3, 64, 64)
    inputs = (x, y, torch.tensor([0.5, 0.999])) if model == "sr3" else (x,)
    with torch.inference_mode():
        on_cpu = network(*inputs)
        on_gpu = network.cuda()(*(tensor.cuda() for tensor in inputs)).cpu()
    difference = float((on_gpu - on_cpu).norm() / on_cpu.norm())
    record_property("difference", f"{difference:.2e}")
    assert difference <= (5e-3 if tf32 else 1e-5)


def test_a_graphed_step_is_the_plain_one(settings, record_property):
    config = from_dict(TrainConfig, settings | {"unet": settings["unet"] | {"dropout": 0.0}})
    hr = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    weights = []
    for graph in (False, True):
        optimiser = replace(config.optimiser, cuda_graph=graph, precision="float32")
        trainer = Trainer(replace(config, optimiser=optimiser), torch.device("cuda"))
        for _ in range(3):
            trainer.train_step(hr)
        weights.append(torch.cat([p.detach().flatten().cpu() for p in trainer.network.parameters()]))
    difference = float((weights[0] - weights[1]).abs().max())
    record_property("difference", f"{difference:.2e}")
    assert difference <= 1e-5


def test_float16_trains_as_float32_does_and_resumes(settings, tmp_path, record_property):
    config = from_dict(TrainConfig, settings | {"unet": settings["unet"] | {"dropout": 0.0}})
    hr = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    losses = {}
    for precision in ("float32", "float16"):
        optimiser = replace(config.optimiser, precision=precision)
        trainer = Trainer(replace(config, optimiser=optimiser), torch.device("cuda"))
        for _ in range(20):
            trainer.train_step(hr)
        trainer.save(tmp_path / precision, "images")
        losses[precision] = trainer.losses()["loss"]
    restored = Trainer(trainer.config, torch.device("cuda"))
    restored.restore(tmp_path / "float16", "images")
    assert restored.scaler.get_scale() == trainer.scaler.get_scale()
    difference = abs(losses["float16"] / losses["float32"] - 1)
    record_property("difference", f"{difference:.2e}")
    assert difference <= 0.02


def test_checkpointed_activations_give_the_same_gradients_from_less_memory(settings):
    config = from_dict(TrainConfig, settings)  # with dropout
    hr = torch.randint(256, (32, 3, 64, 64), dtype=torch.uint8)
    gradients, peaks = [], []
    for levels in ((), "norms", (0, 1)):
        optimiser = replace(config.optimiser, checkpoint_activations=levels, precision="float32", batch_size=32)
        trainer = Trainer(replace(config, optimiser=optimiser), torch.device("cuda"))
        trainer.train_step(hr)
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.network.parameters()]).cpu())
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(hr)
        peaks.append(torch.cuda.max_memory_allocated())
    for other in gradients[1:]:
        assert float((gradients[0] - other).norm() / gradients[0].norm()) <= 1e-4
    assert peaks[1] < 0.8 * peaks[0]  # with dropout every other convolution keeps its input
    assert peaks[2] < 0.7 * peaks[0]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("solver", ["ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde"])
def test_sampling_waits_for_nothing(solver, half):
    """Each step is queued while the one before runs; CUDA's debug mode raises at what would wait."""
    model = randomised(precondition("sr3", UNetConfig(32, (1, 2), 1, 32, attention=(16,), residual_scale=0.07)))
    if half:
        model.unet.convolve_in(torch.bfloat16)
    model = model.cuda().to(memory_format=torch.channels_last)
    x = torch.zeros(2, 3, 32, 32, device="cuda")
    final_gamma = float(NoiseSchedule.linear(1e-6, 1e-2, 2000).gammas[-1])
    with torch.inference_mode():
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps = list(SamplerConfig(4, solver, clip=True).refine(model, x, final_gamma, NoisePerImage([0, 1], x)))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert bool(steps[-1].isfinite().all())
