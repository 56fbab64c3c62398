"""What trainings and cascades cost: against counts by hand, real memory, and the files that a training writes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sr3eval import cli, files
from sr3eval.config import from_dict, read_toml
from sr3eval.diffusion import cascade_estimate, costs, estimate, measure, validation
from sr3eval.diffusion.cascade_folder import CascadeConfig, CascadeFolder
from sr3eval.diffusion.measure import StepTime, images_at_once
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.train import Trainer
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.quantities import duration, quantity
from tests.diffusion.small_training import run

CONFIGS = Path(__file__).parents[2] / "configs/train"
CPU = torch.device("cpu")
PAPER = {  # Table 1: million parameters; the U-Nets' own count is within 5 % of it
    "sr3_faces_16_128": 550,
    "sr3_faces_64_256": 625,
    "sr3_imagenet_64_256": 625,
    "sr3_faces_256_1024": 150,
}


def config_of(settings, **optimiser):
    settings = settings | {"optimiser": settings["optimiser"] | {"precision": "float32"} | optimiser}
    return from_dict(TrainConfig, settings).resolved()


@pytest.mark.parametrize("name", PAPER)
def test_recipes_have_the_paper_s_parameters(name):
    config = from_dict(TrainConfig, read_toml(CONFIGS / f"{name}.toml"))
    assert costs.untrained_parameters(config) == pytest.approx(PAPER[name] * 1e6, rel=0.05)


def products(model, *inputs):
    """Multiplications of a forward pass by what convolutions, linear layers and attention multiply, counted by hand."""
    found = []

    def count(module, given, output):
        if isinstance(module, torch.nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            found.append(output.numel() * module.in_channels * kernel)
        elif isinstance(module, torch.nn.Linear):
            found.append(output.numel() * module.in_features)
        elif type(module).__name__ == "SelfAttention":
            n, channels, height, width = output.shape
            found.append(2 * n * (height * width) ** 2 * channels)  # of q k^T, and of the weights with v

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    model(*inputs)
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.fixture
def without_recomputation(settings):
    """What is plain: convolutions inside functions of autograd are called without their modules."""
    return settings | {"unet": settings["unet"] | {"dropout": 0.0}}


@pytest.mark.parametrize("model", ["sr3", "regression"])
def test_operations_are_those_of_a_count_by_hand(model, without_recomputation, monkeypatch):
    config = config_of(without_recomputation | {"model": model})
    network = precondition(config.model, config.network)
    for module in network.modules():  # as plain convolutions, that their hooks see
        if hasattr(module, "recompute"):
            monkeypatch.setattr(module, "conv", plain_conv(module, network))
    images = torch.zeros(4, 3, 16, 16)
    inputs = (images, images, torch.full((4,), 0.5)) if model == "sr3" else (images,)
    by_hand = 2 * products(network, *inputs)
    found = costs.of_training(config, CPU)
    assert found.images == 4
    assert found.forward == by_hand
    # Backwards each product is two, of both factors' gradients, but for those of the inputs.
    first = 2 * images[:, 0].numel() * 8 * 9 * (6 if model == "sr3" else 3)
    level = 2 * 4 * 8 * 32 if model == "sr3" else 0  # the embedding's first layer, of the noise levels
    assert found.backward == 2 * by_hand - first - level


def plain_conv(norm, network):
    """`NormSiLU.conv` by way of the module that has the weight."""
    owners = {module.weight.data_ptr(): module for module in network.modules() if isinstance(module, torch.nn.Conv2d)}

    def conv(inputs, weight, bias, then, drawn=False):
        return owners[weight.data_ptr()](then(norm(*inputs)))

    return conv


def test_a_batch_in_parts_costs_as_many_operations_and_keeps_less(settings):
    whole, parts = (estimate.training(config_of(settings, accumulate=n), measure=False, device=CPU) for n in (1, 4))
    assert parts.flops == whole.flops
    assert parts.costs.images == 1
    assert parts.costs.kept < 0.3 * whole.costs.kept


def test_convolutions_that_run_again_are_counted(settings):
    plain = costs.of_training(config_of(settings), CPU)
    again = costs.of_training(config_of(settings, checkpoint_activations=(0, 1)), CPU)
    assert again.kept < 0.4 * plain.kept
    assert 0.6 * plain.forward < again.backward - plain.backward < plain.forward  # not the last of each block


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["sr3", "regression"])
@pytest.mark.parametrize("attention", [[], [8]])
def test_what_is_kept_is_what_a_real_pass_keeps(model, precision, attention, settings):
    unet = settings["unet"] | {"attention": attention, "middle_attention": bool(attention)}
    config = config_of(settings | {"model": model, "unet": unet}, precision=precision)
    trainer = Trainer(config, CPU)
    hr = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    storages, weights = {}, {p.untyped_storage().data_ptr() for p in trainer.network.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    _, inputs = trainer._drawn(hr)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = trainer._losses(*inputs)
    assert losses.requires_grad
    real = sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)
    kept = costs.of_training(config, CPU).kept
    if attention:  # whose weights are taken to be kept, as without a fused kernel
        assert real < kept < 1.3 * real
    else:
        assert kept == pytest.approx(real, rel=0.002)


def test_disk_is_what_a_training_writes(settings, tmp_path):
    settings["log"] |= {"validate_every": 2, "keep": 2}
    run(settings, tmp_path / "run")
    disk = estimate.training(from_dict(TrainConfig, settings), measure=False).disk
    state, weights = ((tmp_path / "run" / name).stat().st_size for name in ("state.safetensors", "model.safetensors"))
    header = 40_000  # names and shapes of the tensors, and what was not logged yet
    assert disk.weights < weights < disk.weights + header
    assert disk.state < state < disk.state + 2 * header
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == disk.kept == 2
    sheets = list((tmp_path / "run/samples").iterdir())
    assert len(sheets) == estimate.validations(from_dict(TrainConfig, settings)) == 4
    assert disk.sheets == 4 * 3 * (3 * 64) * (3 * 64)  # 3 rows of 3 pictures of 64 x 64, RGB
    assert sum(sheet.stat().st_size for sheet in sheets) < disk.sheets
    assert disk.most == 3 * disk.weights + 2 * disk.state + disk.sheets


def test_time_is_that_of_all_steps_and_validations(settings):
    config = config_of(settings)
    time = StepTime(images=2, gradients=1.0, rest=0.5)
    found = replace(estimate.training(config, measure=False, device=CPU), measured=time)
    assert time.step(4) == 2.5
    passes = 3 * (2 + 1)  # images, of which each is sampled in 2 steps and has a loss
    share = found.costs.forward / (found.costs.forward + found.costs.backward)
    assert found.validation == pytest.approx(passes * 0.5 * share)
    assert found.seconds == pytest.approx(8 * 2.5 + 2 * found.validation)  # 8 steps, validated at 4 and 8


@pytest.mark.parametrize("model", ["sr3", "ddpm"])
def test_validation_evaluates_the_network_as_often_as_estimated(model, settings, monkeypatch, tmp_path):
    if model == "ddpm":
        settings["model"], settings["task"] = "ddpm", None
        settings = {name: value for name, value in settings.items() if value is not None}
        settings["data"] = {k: v for k, v in settings["data"].items() if k != "zoom_out"}
        settings["schedule"] = {"start": 1e-4, "end": 0.5, "steps": 20}
    settings["log"] |= {"validate_every": 8}
    config, images = from_dict(TrainConfig, settings), []
    original = Trainer.averaged

    def counted(self):
        model = original(self)
        model.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
        return model

    monkeypatch.setattr(Trainer, "averaged", counted)
    run(settings, tmp_path / "run")
    assert sum(images) == estimate.validation_passes(config)
    assert validation.SHEET_IMAGES == 8


def test_steps_are_measured(settings):
    found = estimate.training(config_of(settings), device=CPU)
    assert found.measured.images == 4
    assert 0 < found.measured.step(4) < 10
    assert any(name == "time of the run" for name, _ in found.rows())


def test_what_does_not_fit_is_not_measured(settings, monkeypatch):
    monkeypatch.setattr(estimate, "free_memory", lambda device: 1000)
    found = estimate.training(config_of(settings), device=CPU)
    assert found.measured is None
    assert re.fullmatch(r"4 images need [0-9.]+ MB of memory, 1 kB are free", found.why_not)


def test_large_steps_are_measured_in_part_on_a_cpu():
    assert images_at_once(16, 10**12, CPU) == 16
    assert images_at_once(16, 4 * 10**12, CPU) == 4
    assert images_at_once(16, 32 * 10**12, CPU) == 0


def test_slow_calls_are_measured_once(monkeypatch):
    calls = []
    monkeypatch.setattr(measure, "PATIENCE", -1.0)
    measure.median_seconds(lambda: calls.append(1), CPU)
    assert len(calls) == 1


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_the_command_prints_a_table():
    result = invoke(
        "estimate", CONFIGS / "sr3_imagenet_64_256.toml", "--no-measure", "--set", "optimiser.precision=float32"
    )
    assert result.exit_code == 0
    lines = dict(re.split("  +", line.strip(), maxsplit=1) for line in result.output.splitlines())
    assert lines["parameters"] == "634 M parameters"
    assert lines["operations a step"].startswith("1.35 PFLOP")
    assert lines["weights, gradients, EMA"] == "2.53 GB each"
    assert lines["activations kept"] == "158 GB: of 32 images, float32"
    assert lines["disk"].startswith("30.6 GB")
    assert lines["time"] == "not measured: as asked"


def test_other_configs_are_refused(tmp_path):
    path = tmp_path / "other.toml"
    path.write_text('method = []\nmetrics = ["psnr"]')
    result = invoke("estimate", path)
    assert result.exit_code == 1
    assert result.output == f"Error: {path}: the config of a run; trainings and cascades can be estimated\n"
    path.write_text("a = 1")
    assert "not a config of this toolkit" in invoke("estimate", path).output


def test_a_step_that_does_not_fit_leaves_the_table(monkeypatch, settings):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(estimate, "step_time", too_large)
    rows = dict(estimate.training(from_dict(TrainConfig, settings)).rows())
    assert rows["time"] == "not measured: a step of 4 images does not fit into memory" and "disk" in rows


def test_train_says_first_what_it_costs(tmp_path, monkeypatch, settings):
    config = from_dict(TrainConfig, settings)
    said = estimate.training_summary(config, tmp_path)
    parameters = quantity(costs.untrained_parameters(config), "parameters")
    assert said.startswith(f"SR3, photos_16_64: {parameters}, 8 steps of 4 images; up to ")
    monkeypatch.setattr(files, "free_disk", lambda path: 1000)
    assert "; WARNING: needs up to " in estimate.training_summary(config, tmp_path)
    assert f"and 1 kB are free at {tmp_path}" in estimate.training_summary(config, tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"x" * 10**8)  # which a resumed run replaces
    assert "WARNING" not in estimate.training_summary(config, tmp_path)


def test_sample_says_first_what_it_costs(trained, photos, tmp_path):
    result = invoke("sample", "--checkpoint", trained["sr3"], "--steps", 2, photos, tmp_path / "out")
    assert result.exit_code == 0
    # 6 images of 80 x 72 pixels, enlarged four times: 6 * 3 * 320 * 288 bytes
    assert re.search(r"^[0-9.]+ k parameters, 2 steps, 6 images; up to 1\.66 MB of disk, ", result.stdout)


@pytest.fixture
def cascade(photos, tmp_path):
    settings = {
        "model": "ddpm",
        "data": {"images": str(photos), "validation": str(photos), "crop": 16, "validation_images": 1},
        "unet": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": 16, "attention": []},
        "schedule": {"start": 1e-4, "end": 0.5, "steps": 20},
        "optimiser": {"steps": 1, "batch_size": 1, "learning_rate": 1e-3, "warmup_steps": 0},
        "log": {"sampling_steps": 1},
    }
    run(settings, tmp_path / "generator")
    checkpoint = str(tmp_path / "generator/model.safetensors")
    stage = {"checkpoint": "sr3eval:assets/sr3_photos_16_64.safetensors", "steps": 3}
    config = {"generator": {"checkpoint": checkpoint, "steps": 5}, "stage": [stage], "images": 10, "batch_size": 2}
    return CascadeFolder(from_dict(CascadeConfig, config), tmp_path / "out")


def test_a_cascade_s_operations_are_those_of_all_steps(cascade):
    first, second = cascade_estimate.parts(cascade)
    assert (first.steps, first.side, second.steps, second.side) == (5, 16, 3, 64)
    y, gamma = torch.zeros(1, 3, 16, 16), torch.full((1,), 0.5)
    assert first.flops() == 2 * products(plain(first.model), y, gamma)
    rows = dict(cascade_estimate.rows(cascade, measure=False))
    assert quantity(5 * first.flops(), "FLOP") in rows["ddpm, 16x16"]
    assert rows["disk"].startswith("123 kB")  # 10 * 3 * 64 * 64 bytes
    assert "time of the run" in dict(cascade_estimate.rows(cascade))
    said = cascade_estimate.summary(cascade)
    assert "> sr3 64x64 (" in said and "3 steps); 10 images, up to 123 kB of disk" in said


def plain(model):
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.conv = plain_conv(module, model)
    return model


def test_quantities():
    assert [quantity(n, "B") for n in (0, 999, 1000, 999_999, 2.534e9)] == ["0 B", "999 B", "1 kB", "1 MB", "2.53 GB"]
    assert quantity(633_534_467, "parameters") == "634 M parameters"
    seconds = (0.1234, 59, 60, 3725, 90_000, 2 * 86_400)
    expected = ["0.12 s", "59 s", "1 min 0 s", "1 h 2 min", "1 day 1 h", "2 days 0 h"]
    assert [duration(s) for s in seconds] == expected
