"""Options of training: blur, precision, activation checkpointing, kept checkpoints, curves, and how a run ends."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import scipy.ndimage
import torch
import training_speed

from sr3eval import config as configs
from sr3eval.config import from_dict
from sr3eval.device import training_dtype
from sr3eval.diffusion import checkpoint, curves
from sr3eval.diffusion.activations import layers_by_level
from sr3eval.diffusion.blur import draw_sigmas, gaussian_blur
from sr3eval.diffusion.log import Unlogged
from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig, TrainingDataConfig
from sr3eval.diffusion.unet import ResidualBlock, SelfAttention, UNet
from sr3eval.diffusion.validation import Validation
from sr3eval.errors import UserError
from sr3eval.images import bicubic_up, from_uint8, to_signed
from tests.diffusion.small_training import CPU, run, same

CONFIGS = Path(__file__).parents[2] / "configs" / "train"
HR = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def trainer_of(settings, **optimiser):
    return Trainer(from_dict(TrainConfig, settings | {"optimiser": settings["optimiser"] | optimiser}), CPU)


def state(out):
    return safetensors.torch.load_file(out / "state.safetensors")


def lines_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# Blur


def test_blur_is_scipy_s():
    images = torch.rand(4, 3, 9, 12)
    sigmas = [0.0, 0.4, 0.6, 1.3]
    blurred = gaussian_blur(images, torch.tensor(sigmas), 1.3)
    assert torch.equal(blurred[0], images[0])
    for image, sigma, own in zip(images[1:].double(), sigmas[1:], blurred[1:], strict=True):
        expected = scipy.ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), mode="nearest", radius=(0, 6, 6))
        np.testing.assert_allclose(own.numpy(), expected, atol=1e-6)


def test_sigmas_are_even_in_the_range_for_a_share_and_a_function_of_seed_and_step():
    data = TrainingDataConfig("unused", blur=(0.4, 0.6), blur_share=0.3)
    sigmas = draw_sigmas(data, 0, 5, 20_000)
    blurred = sigmas[sigmas > 0]
    assert len(blurred) / 20_000 == pytest.approx(0.3, abs=0.01)
    assert float(blurred.min()) == pytest.approx(0.4, abs=1e-3) and float(blurred.max()) == pytest.approx(0.6, abs=1e-3)
    assert float(blurred.mean()) == pytest.approx(0.5, abs=2e-3)
    assert torch.equal(sigmas, draw_sigmas(data, 0, 5, 20_000))
    assert not torch.equal(sigmas, draw_sigmas(data, 0, 6, 20_000))
    assert not torch.equal(sigmas, draw_sigmas(data, 1, 5, 20_000))
    assert not draw_sigmas(replace(data, blur=None, blur_share=0.5), 0, 5, 100).any()


def test_blur_changes_the_condition_and_nothing_else(settings):
    seen = {}
    for name, blur in (("sharp", {}), ("blurred", {"blur": [0.5, 0.5], "blur_share": 1.0})):
        trainer = trainer_of(settings | {"data": settings["data"] | blur}, precision="float32")

        def note(x, y, gamma, name=name, model=trainer.model):
            seen[name] = (x.clone(), y.clone(), gamma)
            return model(x, y, gamma)

        trainer.forward = note
        trainer.train_step(HR)
    assert all(torch.equal(a, b) for a, b in zip(seen["sharp"][1:], seen["blurred"][1:], strict=True))
    lr = trainer.task.degrade(from_uint8(HR)).numpy()
    lr = torch.from_numpy(scipy.ndimage.gaussian_filter(lr, (0, 0, 0.5, 0.5), mode="nearest", radius=(0, 0, 2, 2)))
    torch.testing.assert_close(seen["blurred"][0], to_signed(bicubic_up(lr, (16, 16))), atol=1e-5, rtol=0)


def test_validation_knows_no_blur(settings):
    sharp = trainer_of(settings)
    sharp.train_step(HR)
    config = replace(sharp.config, data=replace(sharp.config.data, blur=(0.5, 2.0), blur_share=1.0))
    hr = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    scores = [Validation(c, sharp.task, hr).run(sharp.averaged(), CPU)[0] for c in (sharp.config, config)]
    assert scores[0] == scores[1]


def test_training_with_blur_resumes_bit_for_bit(settings, tmp_path):
    settings["data"] |= {"blur": [0.4, 0.6]}
    run(settings, tmp_path / "whole")
    run(settings, tmp_path / "parts", stop_after=3)
    run(settings, tmp_path / "parts")
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))
    whole, parts = ((tmp_path / name / "curves.html").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize("task", ["imagenet_64_256", "photos_16_64"])
def test_the_configs_of_table_6_differ_in_norm_and_blur_alone(task):
    rows = {
        name: configs.read_toml(CONFIGS / "table_6" / f"{task}_{name}.toml") for name in ("l1_blur", "l1", "l2_blur")
    }
    built = {name: from_dict(TrainConfig, row) for name, row in rows.items()}
    assert {name: (c.p, c.data.blur) for name, c in built.items()} == {
        "l1_blur": (1, (0.4, 0.6)),
        "l1": (1, None),
        "l2_blur": (2, (0.4, 0.6)),
    }
    plain = [replace(c, loss_norm=None, data=replace(c.data, blur=None)) for c in built.values()]
    assert plain[0] == plain[1] == plain[2]
    if task == "imagenet_64_256":
        assert plain[0] == from_dict(TrainConfig, configs.read_toml(CONFIGS / "sr3_imagenet_64_256.toml"))


# Gradient norms and curves


def test_the_gradient_norm_is_logged_before_clipping(settings):
    free, clipped = trainer_of(settings, gradient_clip=0.0), trainer_of(settings, gradient_clip=1e-3)
    for trainer in (free, clipped):
        trainer.train_step(HR)
    norm = float(torch.cat([p.grad.flatten() for p in free.network.parameters()]).double().norm())
    for trainer in (free, clipped):
        line = trainer.losses()
        assert line["gradient_norm"] == line["gradient_norm_max"] == pytest.approx(norm, rel=1e-4)


def test_mean_and_largest_norm_are_over_the_steps_since_the_last_line():
    unlogged = Unlogged(2, overflows=False)
    for norm in (1.0, 4.0):
        unlogged.add(torch.tensor([0.01, 0.82]), torch.tensor([2.0, 6.0]), torch.tensor(norm))
    assert unlogged.means(2, by_level=True) == {
        "loss": 4.0,
        "loss_sqrt_gamma_0.1": 2.0,
        "loss_sqrt_gamma_0.9": 6.0,
        "gradient_norm": 2.5,
        "gradient_norm_max": 4.0,
    }
    unlogged.add(torch.zeros(2), torch.ones(2), torch.tensor(7.0))
    assert unlogged.means(3, by_level=False) == {"loss": 1.0, "gradient_norm": 7.0, "gradient_norm_max": 7.0}


def test_a_run_writes_a_page_of_its_curves_that_fetches_nothing(settings, tmp_path):
    run(settings, tmp_path / "run")
    page = (tmp_path / "run" / "curves.html").read_text(encoding="utf-8")
    for text in (
        "SR3 photos_16_64",
        "step 8<",
        "Loss",
        "noise level",
        "PSNR",
        "Gradient norm",
        "Learning rate",
        "dark",
    ):
        assert text in page
    last = lines_of(tmp_path / "run")[-1]
    for name in ("loss", "psnr", "gradient_norm", "loss_sqrt_gamma_0.9", "rate"):
        assert f">{last[name]:.4g}</b>" in page
    assert "http" not in page and "src=" not in page and "url(" not in page


def test_curves_are_drawn_to_scale():
    lines = [{"step": 0}, {"step": 50, "loss": 1.0}, {"step": 100, "loss": 0.01}]
    drawing = curves.draw(curves.LOSS, lines)
    (curve,) = drawing["curves"]
    # 5 % of the two decades are left free above and below: 232 - 222 * 0.1 / 2.2 and 10 + 222 * 0.1 / 2.2
    assert curve["places"] == [(303.0, pytest.approx(20.09, abs=0.01)), (548.0, pytest.approx(221.91, abs=0.01))]
    assert [text for _, text in drawing["y_ticks"]] == ["0.01", "0.1", "1"]
    assert dict(map(reversed, drawing["x_ticks"]))["50"] == 303.0
    assert curves.draw(curves.OTHERS[0], lines) is None


def test_long_curves_are_averaged_and_peaks_kept():
    lines = [{"step": i, "gradient_norm_max": 9.0 if i == 700 else 1.0, "loss": i % 2} for i in range(1, 2001)]
    peaks, loss = (curves._points(curves.Curve(n, n, peaks=n != "loss"), lines) for n in ("gradient_norm_max", "loss"))
    assert len(peaks) == len(loss) == 500 and peaks[-1][0] == 2000
    assert max(value for _, value in peaks) == 9.0 and {value for _, value in loss} == {0.5}


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 10.0, False, [0, 5, 10]),
        (26.3, 26.5, False, [26.3, 26.35, 26.4, 26.45, 26.5]),
        (0.03, 0.9, True, [0.05, 0.1, 0.2, 0.5]),
        (0.003, 20.0, True, [0.01, 0.1, 1, 10]),
        (19.2, 19.8, True, [19.2, 19.4, 19.6, 19.8]),
    ],
)
def test_ticks_are_round_numbers(low, high, log, expected):
    assert curves.Axis(low, high, 0, 1, log).ticks() == pytest.approx(expected)


# Kept checkpoints, and losses that are not finite


def kept(out):
    return sorted(path.name for path in (out / "checkpoints").glob("*"))


def test_the_last_checkpoints_are_kept(settings, tmp_path):
    settings["log"] |= {"validate_every": 2, "keep": 2}
    settings["model"] = "regression"  # model.safetensors holds the best weights, these are the last
    run(settings, tmp_path / "run")
    assert kept(tmp_path / "run") == ["step_0000006.safetensors", "step_0000008.safetensors"]
    loaded = checkpoint.load(str(tmp_path / "run" / "checkpoints" / "step_0000008.safetensors"), "regression")
    ema = {n.removeprefix("ema."): t for n, t in state(tmp_path / "run").items() if n.startswith("ema.")}
    assert loaded.step == 8 and same(loaded.weights, ema)


def test_checkpoints_of_later_steps_that_a_kill_left_do_not_count(settings, tmp_path):
    settings["log"] |= {"validate_every": 2, "keep": 1}
    folder = tmp_path / "run" / "checkpoints"
    run(settings, tmp_path / "run", stop_after=1)
    folder.mkdir()
    (folder / "step_0000006.safetensors").write_bytes(b"by the kill")
    run(settings, tmp_path / "run", stop_after=4)
    assert kept(tmp_path / "run") == ["step_0000004.safetensors", "step_0000006.safetensors"]
    run(settings, tmp_path / "run")
    assert kept(tmp_path / "run") == ["step_0000008.safetensors"]
    settings["log"]["keep"] = 0
    settings["optimiser"]["steps"] = 10
    run(settings, tmp_path / "run")
    assert kept(tmp_path / "run") == []


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_no_bad_weights_are_written_and_the_last_good_checkpoint_is_named(settings, tmp_path, monkeypatch, broken):
    settings["log"] |= {"every": 8, "validate_every": 2, "save_every": 2}
    original = Trainer._gradients

    def gradients(self, *inputs):
        losses = original(self, *inputs)
        if self.step == 5 and broken == "gradient":
            self.network.conv_in.weight.grad[0, 0, 0, 0] = torch.inf
        return losses * torch.nan if self.step == 5 and broken == "loss" else losses

    monkeypatch.setattr(Trainer, "_gradients", gradients)
    good = tmp_path / "run" / "checkpoints" / "step_0000004.safetensors"
    what = {"loss": "loss is nan", "gradient": "gradient's norm is inf"}[broken]
    message = f'^step 5: the {what}. The last good checkpoint is of step 4: start = "{good}" trains on .*learning_rate$'
    with pytest.raises(UserError, match=message):
        run(settings, tmp_path / "run")
    assert checkpoint.load(str(tmp_path / "run" / "model.safetensors")).step == 4
    assert kept(tmp_path / "run")[-1] == good.name and checkpoint.load(str(good)).step == 4
    assert all(bool(tensor.isfinite().all()) for tensor in state(tmp_path / "run").values())
    monkeypatch.undo()
    run(settings | {"start": str(good)}, tmp_path / "again", stop_after=1)


def test_steps_that_are_neither_logged_nor_saved_do_not_wait_for_the_device(settings, tmp_path, monkeypatch):
    steps, original = [], Unlogged.tensor

    def asked(self, step):
        steps.append(step)
        return original(self, step)

    monkeypatch.setattr(Unlogged, "tensor", asked)
    settings["log"] |= {"every": 4, "validate_every": 8, "save_every": 8}
    run(settings, tmp_path / "run")
    assert set(steps) == {4, 8}


# SIGTERM


def test_sigterm_to_all_processes_saves_the_state_and_exits_with_0(settings, tmp_path):
    settings["optimiser"]["steps"] = 400
    settings["data"]["workers"] = 1
    settings["log"] |= {"every": 1000, "validate_every": 1000, "save_every": 1000}
    (tmp_path / "c.toml").write_text(configs.tomli_w.dumps(settings | {"log": settings["log"] | {"every": 1}}))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "sr3eval.cli", "train", str(tmp_path / "c.toml"), "--out", str(out)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, env=environment, start_new_session=True)
    log, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in errors) == (0, False)
    step = lines_of(out)[-1]["step"]
    assert output.splitlines()[-1] == f"{out}: stopped at step {step}; the same command resumes"
    run(settings, tmp_path / "whole", stop_after=step + 1)
    run(settings, out, stop_after=step + 1)
    whole, parts = state(tmp_path / "whole"), state(out)
    assert all(torch.equal(whole[name], parts[name]) for name in whole if name != "unlogged")


# Precision


def test_checkpoints_record_the_precision_that_auto_came_to(settings, tmp_path):
    run(settings, tmp_path / "run")
    carried = checkpoint.load(str(tmp_path / "run" / "model.safetensors")).config.optimiser.precision
    assert f"torch.{carried}" == str(training_dtype("auto", CPU))
    assert 'precision = "auto"' in (tmp_path / "run" / "config.toml").read_text()


def test_float16_needs_a_gpu(settings, tmp_path):
    settings["optimiser"]["precision"] = "float16"
    with pytest.raises(UserError, match='^optimiser.precision = "float16": this machine has no GPU; [^\n]*$'):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_float16_skips_steps_that_overflow_and_keeps_its_scale(settings, tmp_path):
    """On the CPU, whose float16 is slow but the same arithmetic: the trainer alone allows it."""
    trainer = trainer_of(settings, precision="float16", warmup_steps=0)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.train_step(HR)
    assert same(before, trainer.network.state_dict()) and trainer.scaler.get_scale() == 2.0**39
    trainer.check()
    assert trainer.losses()["skipped_steps"] == 1.0
    trainer.save(tmp_path / "state.safetensors", "images")
    restored = trainer_of(settings, precision="float16", warmup_steps=0)
    restored.restore(tmp_path / "state.safetensors", "images")
    assert restored.scaler.get_scale() == 2.0**39
    for each in (trainer, restored):
        each.scaler.load_state_dict(each.scaler.state_dict() | {"scale": 1024.0})
        each.train_step(HR)
    line = trainer.losses()
    assert line["skipped_steps"] == 0.0 and 0 < line["gradient_norm"] < 100
    assert not same(before, trainer.network.state_dict())
    assert same(trainer.network.state_dict(), restored.network.state_dict())


def test_gradients_of_float16_are_those_of_float32_unscaled(settings):
    settings["unet"]["dropout"] = 0.0
    gradients = []
    for precision in ("float32", "float16"):
        trainer = trainer_of(settings, precision=precision, gradient_clip=0.0)
        trainer.train_step(HR)
        gradients.append(trainer.network.conv_out.weight.grad)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 0.01


# Activation checkpointing


def test_layers_know_their_level(settings):
    network = UNet(replace(from_dict(TrainConfig, settings).network, multipliers=(1, 2, 3)))
    found = list(layers_by_level(network))
    layers = [module for module in network.modules() if isinstance(module, ResidualBlock | SelfAttention)]
    assert len(found) == len(layers) and {id(layer) for _, layer in found} == {id(layer) for layer in layers}
    sides, hooks = {}, []
    for _, layer in found:
        hooks.append(
            layer.register_forward_hook(
                lambda layer, inputs, output: sides.update({layer: max(inputs[0].shape[-1], output.shape[-1])})
            )
        )
    network(torch.rand(1, 6, 16, 16), torch.tensor([0.5]))
    assert all(sides[layer] == 16 // 2**level for level, layer in found)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_checkpointed_activations_give_the_same_weights_from_less_memory(settings, precision):
    settings["unet"] |= {"channels": 16, "blocks": 2}
    hr, weights, peaks = torch.cat(4 * [HR.repeat(1, 1, 2, 2)]), [], []
    for what in ([], "norms", [0], [0, 1]):
        trainer = trainer_of(settings, precision=precision, checkpoint_activations=what, batch_size=16)
        for _ in range(3):  # dropout is on
            trainer.train_step(hr)
        weights.append({name: tensor.clone() for name, tensor in trainer.network.state_dict().items()})
        peaks.append(training_speed.Contender(trainer, iter([hr])).peak())
    assert all(same(weights[0], other) for other in weights[1:])
    assert peaks[0] > 1.2 * peaks[1]  # dropout: every other convolution keeps its input
    least = 1.5 if precision == "float32" else 1.4  # norms go backward in float32
    assert peaks[0] > least * peaks[2] > least * peaks[3]


def test_a_run_may_resume_with_other_levels_checkpointed(settings, tmp_path):
    run(settings, tmp_path / "whole")
    run(settings, tmp_path / "parts", stop_after=3)
    settings["optimiser"]["checkpoint_activations"] = [0]
    run(settings, tmp_path / "parts")
    assert same(state(tmp_path / "whole"), state(tmp_path / "parts"))


# Bad input


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("data", {"blur": [0.6, 0.4]}, r"data.blur: \[0.6, 0.4\] must be the lowest and the highest sigma"),
        ("data", {"blur": [0.0, 0.4]}, "data.blur: "),
        ("data", {"blur": [0.5]}, "data.blur: "),
        ("data", {"blur": [0.5, float("inf")]}, "data.blur: "),
        ("data", {"blur_share": 1.5}, "data.blur_share: 1.5"),
        ("data", {"blur_share": 0.3}, "data.blur_share: needs data.blur"),
        ("data", {"labels": "labels.csv"}, 'data.labels: only for model = "ddpm"'),
        ("log", {"keep": -1}, "log.keep: -1 is negative"),
        ("optimiser", {"checkpoint_activations": [2]}, "checkpoint_activations: the network's levels are 0 to 1"),
        ("optimiser", {"checkpoint_activations": "norm"}, "checkpoint_activations"),
        ("optimiser", {"checkpoint_activations": "norms", "cuda_graph": True}, "cuda_graph and checkpoint_activations"),
        ("optimiser", {"checkpoint_activations": [-1]}, "checkpoint_activations: the network's levels are 0 to 1"),
        ("optimiser", {"checkpoint_activations": [0], "cuda_graph": True}, "cuda_graph and checkpoint_activations"),
        ("optimiser", {"precision": "fp16"}, "\"optimiser.precision\" is 'fp16': .*float16"),
    ],
)
def test_bad_options_are_one_line(settings, table, change, message):
    with pytest.raises(UserError, match=message):
        from_dict(TrainConfig, settings | {table: settings[table] | change})


def test_a_start_of_another_architecture_is_refused_before_anything_is_written(settings, tmp_path):
    run(settings | {"unet": settings["unet"] | {"channels": 16}}, tmp_path / "wider", stop_after=4)
    settings["start"] = str(tmp_path / "wider" / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors: \d+ weights do not fit its network"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
