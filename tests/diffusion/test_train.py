"""Training: exact resume, logs, checkpoints, data order."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from PIL import Image

from sr3eval import config as configs
from sr3eval import files
from sr3eval.config import from_dict
from sr3eval.diffusion import checkpoint, stream
from sr3eval.diffusion.presets import PRESETS
from sr3eval.diffusion.train import Trainer, claim
from sr3eval.diffusion.train_config import OptimiserConfig, TrainConfig
from sr3eval.diffusion.validation import Validation
from sr3eval.distributed import ALONE, Job
from sr3eval.errors import UserError
from sr3eval.images import load, save
from sr3eval.tasks import TASKS
from tests.diffusion.small_training import CPU, run, same


def weights(out, name="state.safetensors"):
    return safetensors.torch.load_file(out / name)


@pytest.mark.parametrize("model", ["sr3", "regression"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopped_and_resumed_equals_one_run_bit_for_bit(settings, tmp_path, model, precision):
    settings["model"] = model
    settings["optimiser"] |= {"precision": precision, "accumulate": 2}
    run(settings, tmp_path / "whole")
    run(settings, tmp_path / "parts", stop_after=3)
    run(settings, tmp_path / "parts", stop_after=5)
    run(settings, tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    for name in ("model.safetensors", "metrics.jsonl", "samples/step_0000008.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_command_goes_on_bit_for_bit(settings, tmp_path, signal_number):
    settings["optimiser"]["steps"] = 30
    (tmp_path / "c.toml").write_text(configs.tomli_w.dumps(settings))
    run(settings, tmp_path / "whole")

    out = tmp_path / "killed"
    command = [sys.executable, "-m", "sr3eval.cli", "train", str(tmp_path / "c.toml"), "--out", str(out)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not (out / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    if signal_number == signal.SIGINT:
        assert "Traceback" not in errors
        assert "same command" in errors
    else:
        (out / "samples").mkdir(exist_ok=True)
        (out / "samples" / f"{files.HOST}{process.pid}-left").write_bytes(b"by the kill")
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    assert not list(out.rglob(".tmp-*"))
    assert same(weights(tmp_path / "whole"), weights(out))
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == (out / "metrics.jsonl").read_bytes()


def test_sr3_keeps_the_last_weights_and_regression_the_best(settings, tmp_path, monkeypatch):
    psnrs = iter([20.0, 30.0, 25.0, 20.0, 30.0, 25.0])
    from sr3eval.diffusion import validation

    original = validation.Validation.run

    def scripted(self, network, device):
        scores, sheet = original(self, network, device)
        return scores | {"psnr": next(psnrs)}, sheet

    monkeypatch.setattr(validation.Validation, "run", scripted)
    settings["optimiser"]["steps"] = 12
    for model, step in [("sr3", 12), ("regression", 8)]:
        run(settings | {"model": model}, tmp_path / model)
        loaded = checkpoint.load(str(tmp_path / model / "model.safetensors"), model, TASKS["photos_16_64"])
        assert loaded.step == step


def test_logs_losses_by_noise_level_and_validation(settings, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "validation")
    save(tmp_path / "validation" / "small.png", torch.rand(3, 63, 80))
    settings["data"]["validation"] = str(tmp_path / "validation")
    run(settings, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 8]
    left_out = {"left_out_too_small": 0, "validation_left_out_too_small": 1}
    assert lines[0] == {"step": 0, "training_images": 6, **left_out}
    assert any(name.startswith("loss_sqrt_gamma_") for name in lines[1])
    assert {"psnr", "consistency", "color_error", "validation_loss"} <= lines[2].keys()
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_training_learns(settings, tmp_path):
    """The loss falls well below that of a network that predicts nothing."""
    settings["optimiser"] |= {"steps": 150, "batch_size": 8}
    settings["log"] |= {"every": 10, "validate_every": 150}
    run(settings, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[1]["loss"] > 0.7
    assert lines[-1]["loss"] < 0.5


def test_checkpoint_holds_the_averaged_weights(settings, tmp_path):
    run(settings, tmp_path / "run")
    loaded = checkpoint.load(str(tmp_path / "run" / "model.safetensors"))
    assert loaded.config.unet == from_dict(TrainConfig, settings).network  # written out, whatever presets become
    state = weights(tmp_path / "run")
    averaged = weights(tmp_path / "run", "model.safetensors")
    assert same(averaged, {n.removeprefix("ema."): t for n, t in state.items() if n.startswith("ema.")})
    assert not torch.equal(averaged["conv_out.weight"], state["network.conv_out.weight"])


def test_accumulation_gives_the_gradient_of_the_whole_batch(settings):
    settings["model"] = "regression"
    settings["unet"]["dropout"] = 0.0
    settings["optimiser"]["precision"] = "float32"
    hr = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    gradients = []
    for parts in (1, 4):
        trainer = Trainer(
            from_dict(TrainConfig, settings | {"optimiser": settings["optimiser"] | {"accumulate": parts}}), CPU
        )
        trainer.train_step(hr)
        gradients.append(trainer.network.conv_out.weight.grad.clone())
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-5)


def test_gradients_are_clipped(settings):
    hr = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    norms = []
    for clip in (0.0, 1e-3):
        settings["optimiser"]["gradient_clip"] = clip
        trainer = Trainer(from_dict(TrainConfig, settings), CPU)
        trainer.train_step(hr)
        norms.append(float(torch.cat([p.grad.flatten() for p in trainer.network.parameters()]).norm()))
    assert norms[1] <= 1e-3 * (1 + 1e-5) < norms[0]


def test_validation_is_the_same_whatever_the_random_state(settings, photos):
    trainer = Trainer(from_dict(TrainConfig, settings), CPU)
    trainer.train_step(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8))
    hr = torch.stack([load(path)[:, :64, :64] for path in sorted(photos.iterdir())])
    validation = Validation(trainer.config, trainer.task, hr)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(validation.run(trainer.averaged(), CPU))
    assert results[0] == results[1]


def test_dropout_is_on_in_training_and_off_in_validation(settings):
    assert PRESETS["faces_16_128"].dropout == 0.2  # the paper's
    settings["optimiser"] |= {"learning_rate": 0.1, "warmup_steps": 0}
    trainer = Trainer(from_dict(TrainConfig, settings), CPU)
    for _ in range(3):  # untrained, the last convolutions are zero and hide what comes before
        trainer.train_step(torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8))
    x = torch.rand(1, 3, 16, 16)
    assert not torch.equal(*(trainer.model(x, x, torch.tensor([0.5])) for _ in range(2)))
    averaged = trainer.averaged()
    assert torch.equal(*(averaged(x, x, torch.tensor([0.5])) for _ in range(2)))
    assert trainer.model.training


def test_warm_up_is_linear_then_fixed_then_falls():
    rate = OptimiserConfig(steps=100, batch_size=1, learning_rate=1.0, warmup_steps=10, final_decay=0.5).rate
    assert [rate(1), rate(5), rate(10), rate(50)] == [0.1, 0.5, 1.0, 1.0]
    assert rate(76) == pytest.approx(0.5)
    assert 0 < rate(100) <= 0.02


def test_example_order_is_a_function_of_position(settings):
    data = from_dict(TrainConfig, settings).data
    folder, *_ = stream.open_folders(data, TASKS["photos_16_64"])

    def batches(first, last, workers=0):
        images = stream.TrainingImages(folder, 3, crop=16, zoom_out=2.0, flip=True)
        return list(stream.batches(images, first, last, 4, workers))

    whole = batches(0, 6)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], batches(2, 6), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole, batches(0, 6, workers=1), strict=True))
    assert len({tuple(image.flatten().tolist()) for batch in whole for image in batch}) == 24


def test_each_pass_shows_every_image_once(settings):
    folder, *_ = stream.open_folders(from_dict(TrainConfig, settings).data, TASKS["photos_16_64"])
    images = stream.TrainingImages(folder, 0)
    first, second = images._order(0), images._order(1)
    assert sorted(first) == sorted(second) == list(range(6))


def test_readers_share_the_memory_for_decoded_images(settings, monkeypatch):
    config = from_dict(TrainConfig, settings)
    folder, *_ = stream.open_folders(config.data, TASKS["photos_16_64"])
    loaded: list[object] = []
    monkeypatch.setattr(stream, "load", lambda file: (loaded.append(file), torch.zeros(3, 20, 20))[1])
    monkeypatch.setattr(stream, "CACHE_BYTES", 6 * 3 * 20 * 20)  # for all six

    def decoded_by(here: Job) -> int:
        loaded.clear()
        assert len(list(stream.source(folder, config, torch.device("cpu"), 0, here))) == 8
        return len(loaded)

    assert decoded_by(ALONE) == 6  # of 32 examples
    assert decoded_by(Job(0, 2)) > 6  # of 16, with room for three


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "photos_16_46"}, 'unknown task "photos_16_46": did you mean "photos_16_64"'),
        ({"model": "sr4"}, '"model" is \'sr4\': did you mean "sr3"'),
        ({"data": {"images": "/nowhere"}}, "/nowhere: no such folder"),
        ({"data": {"images": "x", "crop": 18}}, "data.crop: 18 is not a multiple of the scale 4"),
        (
            {"unet": {"channels": 8, "multipliers": [1], "blocks": 1, "image_size": 16, "attention": 8}},
            "must be a list",
        ),
        (
            {"optimiser": {"steps": 1, "batch_size": 3, "learning_rate": 1, "warmup_steps": 0, "accumulate": 2}},
            "multiple",
        ),
        ({"data.validation_images": 0}, "data.validation_images: 0"),
        ({"data.workers": -1}, "data.workers: -1"),
        ({"data.crop": 0}, "data.crop: 0"),
        ({"data.crop": -16}, "data.crop: -16"),
        ({"data.zoom_out": float("inf")}, "data.zoom_out: must be"),
        ({"schedule.start": 2}, "schedule.start: 2.0"),
        ({"schedule.end": 0.0}, "schedule.end: 0.0"),
        ({"schedule.steps": 0}, "schedule.steps: 0"),
        ({"schedule.steps": 1}, "schedule: ends at gamma_T = 0.999999, not between 0 and 0.9999"),
        ({"schedule.start": 1e-20}, "every beta must lie strictly between 0 and 1"),
        ({"optimiser.warmup_steps": -3}, "optimiser.warmup_steps: -3"),
        ({"optimiser.gradient_clip": -1}, "optimiser.gradient_clip: -1.0"),
        ({"optimiser.gradient_clip": float("nan")}, "optimiser.gradient_clip: nan"),
        ({"optimiser.learning_rate": float("nan")}, "optimiser: learning_rate must be positive"),
        ({"unet.noise_level": False}, 'unet.noise_level: follows from model = "sr3"'),
        ({"model": "regression", "unet.noise_level": True}, 'unet.noise_level: follows from model = "regression"'),
        ({"unet.image_size": 0}, "unet: image_size 0"),
        ({"unet.residual_scale": float("nan")}, "unet: residual_scale nan"),
    ],
)
def test_bad_configs_are_refused_before_anything_is_written(settings, tmp_path, change, message):
    for key, value in change.items():
        *tables, name = key.split(".")
        functools.reduce(lambda at, table: at.setdefault(table, {}), tables, settings)[name] = value
    with pytest.raises(UserError, match=message):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_compiling_without_a_compiler_is_refused_before_anything_is_written(settings, tmp_path, monkeypatch, compiler):
    settings["optimiser"]["compile"] = True
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler.*optimiser.compile=false"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def transparent(tmp_path):
    """A folder of one image whose header is sound, so that only reading it whole finds the fault."""
    (tmp_path / "transparent").mkdir()
    Image.new("RGBA", (80, 72)).save(tmp_path / "transparent" / "0.png")
    return tmp_path / "transparent"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line(settings, transparent, tmp_path, workers):
    settings["data"] |= {"images": str(transparent), "workers": workers}
    with pytest.raises(UserError, match=f"^{transparent}/0.png: has transparent pixels[^\n]*\\Z"):
        run(settings, tmp_path / "run")


def test_an_unreadable_validation_image_is_refused_before_anything_is_written(settings, transparent, tmp_path):
    settings["data"]["validation"] = str(transparent)
    with pytest.raises(UserError, match=f"^{transparent}/0.png: has transparent pixels"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("images", "crops", "counts"), [(12, 8, {1}), (5, 5, {1}), (3, 8, {2, 3})])
def test_validation_has_a_crop_of_each_image_before_a_second_of_any(settings, tmp_path, images, crops, counts):
    for index in range(images):
        save(tmp_path / f"{index}.png", torch.full((3, 80, 80), index / 20))
    settings["data"] |= {"validation": str(tmp_path), "validation_images": crops}
    config = from_dict(TrainConfig, settings)
    _, folder, *_ = stream.open_folders(config.data, TASKS[config.task])
    hr = stream.validation_images(folder, config.data)
    seen = [round(20 * float(crop.mean())) for crop in hr]
    assert hr.shape == (crops, 3, 64, 64)
    assert {seen.count(index) for index in seen} == counts and len(set(seen)) == min(images, crops)


def test_a_folder_without_large_enough_validation_images_is_named(settings, tmp_path):
    save(tmp_path / "small" / "0.png", torch.rand(3, 63, 80))
    settings["data"]["validation"] = str(tmp_path / "small")
    with pytest.raises(UserError, match=r"small: no validation image is left \(1 are below 64 pixels\)"):
        run(settings, tmp_path / "run")


def test_a_folder_of_another_run_is_refused(settings, tmp_path):
    run(settings, tmp_path / "run", stop_after=1)
    with pytest.raises(UserError, match="run of another config"):
        run(settings | {"seed": 1}, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("-")
    with pytest.raises(UserError, match="not empty"):
        run(settings, tmp_path / "other")


def test_a_state_of_something_else_is_refused(settings, tmp_path):
    run(settings, tmp_path / "run", stop_after=4)
    run(settings | {"unet": settings["unet"] | {"channels": 16}}, tmp_path / "wider", stop_after=4)
    state = tmp_path / "run" / "state.safetensors"
    cases = [
        (state.read_bytes()[:-100], "not a safetensors file, or truncated"),
        ((tmp_path / "run" / "model.safetensors").read_bytes(), "not a state that `sr3eval train` saved"),
        ((tmp_path / "wider" / "state.safetensors").read_bytes(), "weights do not fit its network"),
    ]
    for content, message in cases:
        state.write_bytes(content)
        with pytest.raises(UserError, match=f"state.safetensors: .*{message}"):
            run(settings, tmp_path / "run")


def test_divergence_stops_with_a_line(settings, tmp_path):
    settings["optimiser"] |= {"learning_rate": 1e20, "warmup_steps": 0, "gradient_clip": 0.0, "precision": "float32"}
    with pytest.raises(UserError, match="^step 2: the (loss|gradient's norm) is .*learning_rate"):
        run(settings, tmp_path / "run")


def test_runs_and_checkpoints_of_older_versions_name_the_noise_level_and_go_on(settings, tmp_path):
    run(settings, tmp_path / "whole")
    run(settings, tmp_path / "older", stop_after=4)
    config = tmp_path / "older" / "config.toml"
    config.write_text(config.read_text().replace("[unet]\n", "[unet]\nnoise_level = true\n"))
    run(settings, tmp_path / "older")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "older"))
    assert config.read_text() == (tmp_path / "whole" / "config.toml").read_text()
    loaded = checkpoint.load(str(tmp_path / "whole" / "model.safetensors"))
    plain = configs.to_dict(loaded.config)
    assert "noise_level" not in plain["unet"]
    plain["unet"]["noise_level"] = True
    checkpoint.save(tmp_path / "older.safetensors", plain, 8, loaded.weights)
    assert checkpoint.load(str(tmp_path / "older.safetensors"), "sr3").config.network == loaded.config.network


def test_presets_are_the_default_network():
    data = {"images": "x"}
    optimiser = {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "warmup_steps": 0}
    for model in ("sr3", "regression"):
        built = from_dict(TrainConfig, {"task": "faces_16_128", "model": model, "data": data, "optimiser": optimiser})
        assert built.network == PRESETS["faces_16_128"]


@pytest.fixture
def in_memory(settings):
    """The recipe of the embedded checkpoints in small."""
    settings["data"] |= {"in_memory": True, "transpose": True, "gains": [0.9, 1.1]}
    settings["unet"] |= {"residual_scale": 0.07}
    return settings | {"training_levels": {"mean": 5.5, "deviation": 2.4}, "weighting": "output", "loss_norm": 2}


def test_crops_in_memory_resume_bit_for_bit(in_memory, tmp_path):
    run(in_memory, tmp_path / "whole")
    run(in_memory, tmp_path / "parts", stop_after=3)
    run(in_memory, tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_training_starts_from_a_checkpoint(in_memory, tmp_path):
    run(in_memory, tmp_path / "first")
    start = str(tmp_path / "first" / "model.safetensors")
    trainer = Trainer(from_dict(TrainConfig, in_memory | {"start": start}), CPU)
    loaded = checkpoint.load(start).weights
    assert same(trainer.network.state_dict(), loaded) and same(trainer.ema.state_dict(), loaded)
    other = in_memory | {"start": start, "unet": in_memory["unet"] | {"channels": 16}}
    with pytest.raises(UserError, match=r"model.safetensors: \d+ weights do not fit its network"):
        Trainer(from_dict(TrainConfig, other), CPU)


def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_good_state(settings, tmp_path, monkeypatch):
    original = Trainer._losses

    def broken(self, hr, *rest):
        loss = original(self, hr, *rest)
        return loss * float("nan") if self.step == 5 else loss

    monkeypatch.setattr(Trainer, "_losses", broken)
    with pytest.raises(UserError, match="^step 5: the loss is nan"):
        run(settings, tmp_path / "run")
    monkeypatch.undo()
    run(settings, tmp_path / "whole")
    run(settings, tmp_path / "run")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.gains": [0.0, 1.0]}, "data.gains: "),
        ({"data.in_memory": False}, "data.transpose and data.gains: need data.in_memory"),
        ({"data.crop": None}, "data.in_memory: needs data.crop|data.zoom_out"),
        ({"training_levels.deviation": 0.0}, "training_levels: deviation must be positive"),
        ({"model": "regression"}, "training_levels and weighting: Regression has no noise levels"),
        ({"unet.residual_scale": 0.0}, 'weighting = "output": needs unet.residual_scale'),
        ({"optimiser.beta2": 1.0}, "optimiser.beta2: 1.0 is not between 0 and 1"),
    ],
)
def test_bad_settings_of_the_recipe_are_one_line(in_memory, changes, message):
    for key, value in changes.items():
        table = in_memory
        *parents, last = key.split(".")
        for parent in parents:
            table = table[parent]
        table[last] = value
        if value is None:
            del table[last]
    with pytest.raises(UserError, match=message):
        from_dict(TrainConfig, in_memory)


def test_a_cuda_graph_needs_a_gpu(settings, tmp_path):
    settings["optimiser"]["cuda_graph"] = True
    with pytest.raises(UserError, match="optimiser.cuda_graph: this machine has no GPU"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["added", "removed", "altered", "of validation"])
def test_changed_images_are_noticed_on_resume(settings, photos, tmp_path, change):
    folders = {name: tmp_path / name for name in ("images", "validation")}
    for name, folder in folders.items():
        shutil.copytree(photos, folder)
        settings["data"][name] = str(folder)
    run(settings, tmp_path / "run", stop_after=3)
    folder = folders["validation" if change == "of validation" else "images"]
    if change == "removed":
        (folder / "0.png").unlink()
    else:
        save(folder / ("6.png" if change == "added" else "0.png"), torch.rand(3, 72, 80))
    with pytest.raises(UserError, match="the training or validation images have changed since step 3"):
        run(settings, tmp_path / "run")


def test_a_damaged_state_is_refused(settings, tmp_path):
    """A flipped byte near the end, which safetensors does not notice."""
    run(settings, tmp_path / "run", stop_after=3)
    state = tmp_path / "run" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-40] ^= 1
    state.write_bytes(content)
    with pytest.raises(UserError, match=r"state.safetensors: damaged: its tensors are not those that were saved"):
        run(settings, tmp_path / "run")


def test_steps_workers_and_log_may_change_and_a_finished_run_be_extended(settings, tmp_path):
    run(settings, tmp_path / "whole")
    settings["optimiser"]["steps"] = 5
    run(settings, tmp_path / "parts")
    settings["optimiser"]["steps"] = 8
    settings["log"] |= {"every": 1}
    settings["data"]["workers"] = 1
    run(settings, tmp_path / "parts")
    whole, parts = (weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole if name != "unlogged")
    assert "every = 1" in (tmp_path / "parts" / "config.toml").read_text()
    graphed = from_dict(TrainConfig, settings | {"optimiser": settings["optimiser"] | {"cuda_graph": True}})
    claim(tmp_path / "parts", graphed.resolved())  # by a machine with a GPU
    settings["optimiser"]["steps"] = 6
    with pytest.raises(UserError, match="is already trained to step 8, beyond optimiser.steps = 6"):
        run(settings, tmp_path / "parts")
    settings["optimiser"] |= {"steps": 8, "learning_rate": 2e-3}
    with pytest.raises(UserError, match="holds a run of another config"):
        run(settings, tmp_path / "parts")
