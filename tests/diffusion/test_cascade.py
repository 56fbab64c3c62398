"""Cascades: checkpoints behind one another as a method, and `sr3eval cascade`, which puts a generator before them."""

import hashlib
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch
from click.testing import CliRunner

from sr3eval import cli, device
from sr3eval import config as configs
from sr3eval.benchmark import run
from sr3eval.benchmark.labels import read_labels
from sr3eval.config import check_call, from_dict
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion import generator as generators
from sr3eval.diffusion.cascade import build_stage
from sr3eval.diffusion.cascade_folder import CascadeConfig, CascadeFolder, Shard, build_generator
from sr3eval.diffusion.generator import GeneratorSampler
from sr3eval.diffusion.preconditioners import precondition
from sr3eval.diffusion.sample_folder import SampleConfig, sample_folder
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError
from sr3eval.folders import stable_hash
from sr3eval.images import load, round_to_8bit, to_uint8
from sr3eval.methods import cascade as cascade_method
from sr3eval.methods import load as load_method
from sr3eval.tasks import Task

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


def write_checkpoint(path: Path, model: str, crop: int = 32, attention: bool = False) -> str:
    """A checkpoint of photos_16_64, 4 times, with random weights, the last convolution's included."""
    unet = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": crop, "middle_attention": attention}
    plain = {
        "task": "photos_16_64",
        "model": model,
        "data": {"images": "unused", "crop": crop},
        "unet": unet | {"attention": []},
        "optimiser": {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "warmup_steps": 0},
    }
    config = from_dict(TrainConfig, plain)
    torch.manual_seed(len(path.name))
    network = precondition(model, config.network).unet
    torch.nn.init.normal_(network.conv_out.weight, std=0.02)
    checkpoints.save(path, configs.to_dict(config), 1, network.state_dict())
    return str(path)


def write_generator(path: Path, model: str = "ddpm", classes: int | None = None) -> str:
    """A generator of 8x8 pixels with random weights."""
    unet = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": 8, "attention": []}
    plain = {
        "model": model,
        "data": {"images": "unused"},
        "unet": unet | ({"classes": classes} if classes else {}),
        "optimiser": {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "warmup_steps": 0},
        "schedule": {"start": 1e-4, "end": 0.02, "steps": 1000},
        **({"classes": [f"class {label}" for label in range(classes)]} if classes else {}),
    }
    config = from_dict(TrainConfig, plain)
    torch.manual_seed(1)
    network = precondition(model, config.network).unet
    torch.nn.init.normal_(network.conv_out.weight, std=0.05)
    checkpoints.save(path, configs.to_dict(config), 1, network.state_dict())
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Checkpoints by name."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        "sr3": write_checkpoint(folder / "sr3.safetensors", "sr3"),
        "regression": write_checkpoint(folder / "regression.safetensors", "regression"),
        "generator": write_generator(folder / "generator.safetensors"),
        "classes": write_generator(folder / "classes.safetensors", "improved_ddpm", classes=3),
        "attention": write_checkpoint(folder / "attention.safetensors", "sr3", attention=True),
    }


@pytest.fixture
def lr():
    return round_to_8bit(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


def test_stages_are_their_methods_with_8_bit_between_them(weights, lr):
    first, second = {"checkpoint": weights["sr3"], "steps": 3}, {"checkpoint": weights["regression"]}
    cascade = load_method("cascade", stages=[first, second])
    assert cascade.scale == 16
    between = load_method("sr3", **first).upscale(lr, [5, 6, 7]).images
    expected = load_method("regression", **second).upscale(round_to_8bit(between), [0, 0, 0]).images
    told = []
    assert torch.equal(cascade.upscale(lr, [5, 6, 7], told.append).images, expected)
    assert not torch.equal(load_method("regression", **second).upscale(between, [0, 0, 0]).images, expected)
    assert told == pytest.approx([1 / 6, 2 / 6, 3 / 6, 3 / 6, 1.0])


def test_stages_draw_noise_of_their_own(weights, lr):
    stage = {"checkpoint": weights["sr3"], "steps": 2}
    method = load_method("sr3", **stage)
    alone = method.upscale(lr, [5, 6, 7]).images
    assert torch.equal(load_method("cascade", stages=[stage]).upscale(lr, [5, 6, 7]).images, alone)
    hashes = [stable_hash(seed, "stage", 1) for seed in (5, 6, 7)]
    expected = method.upscale(round_to_8bit(alone), hashes).images
    assert torch.equal(load_method("cascade", stages=[stage, stage]).upscale(lr, [5, 6, 7]).images, expected)


def test_a_run_scores_a_cascade(weights, tmp_path):
    """64 pixels of HR, 4 of LR: 4 to 16 to 64."""
    config = {
        "task": {"name": "x16", "scale": 16, "framing": "square 64"},
        "metrics": ["psnr"],
        "data": {"images": str(ROOT / "sr3eval/assets/photos_16_64"), "limit": 2},
        "method": [{"kind": "cascade", "stages": [{"checkpoint": weights["sr3"], "steps": 2}] * 2}],
    }
    results = run(config, tmp_path / "run")
    assert results["n"].item() == 2
    for side in (4, 16):
        warning = f"trained on 8x8 inputs, gets {side}x{side}; its network is convolutional"
        assert warning in results["method_warning"].item()
    assert all(load(path).shape == (3, 64, 64) for path in (tmp_path / "run" / "images" / "cascade").rglob("*.png"))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages: at least one is needed"),
        ([{"checkpoint": "absent"}], "absent: cannot be read"),
        ([{"checkpoint": "sr3", "stepps": 3}], r'unknown key "stages\[0\].stepps": did you mean "steps"'),
        ([{"checkpoint": "sr3", "steps": 0}], "sampler: 0 steps; at least 1 is needed"),
        ([{"steps": 3}], r'missing key "stages\[0\].checkpoint"'),
        ([{"checkpoint": "sr3"}, {"checkpoint": "regression", "steps": 3}], r'\[1\]: "steps" is a setting of samplers'),
        (
            [{"checkpoint": "sr3"}, {"checkpoint": "attention"}],
            "trained on 8x8 inputs, gets 32x32, and its network has",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(weights, stages, message):
    tables = [
        table | {"checkpoint": weights.get(table["checkpoint"], table["checkpoint"])}
        if "checkpoint" in table
        else table
        for table in stages
    ]
    with pytest.raises(UserError, match=message):
        load_method("cascade", stages=tables)


@pytest.mark.parametrize(
    ("name", "expected"), [("sr3", "trained on 8x8 inputs, gets 4x4; its network is convolutional"), ("attention", "")]
)
def test_the_first_stage_is_held_against_the_tasks_inputs(weights, name, expected):
    stages, task = ({"checkpoint": weights[name]},), Task("x4", 4, "square 16")
    if expected:
        assert expected in cascade_method.build(stages=stages, task=task).facts.warning
    else:
        with pytest.raises(UserError, match="trained on 8x8 inputs, gets 4x4, and its network has attention"):
            cascade_method.build(stages=stages, task=task)
    fitting = cascade_method.build(stages=stages, task=Task("x4", 4, "square 32"))
    whole = cascade_method.build(stages=stages, task=Task("x4", 4, "whole"))
    assert fitting.facts.warning == whole.facts.warning == ""


def test_stages_convolve_in_half(weights, lr, monkeypatch):
    monkeypatch.setattr(device, "has_bfloat16", lambda _: True)
    stages = [{"checkpoint": weights["sr3"], "steps": 2}, {"checkpoint": weights["regression"]}]
    single, half = (load_method("cascade", stages=[stage | {"half": way} for stage in stages]) for way in (False, True))
    assert single.fingerprint != half.fingerprint
    first = load_method("sr3", **stages[0], half=True).upscale(lr, [5, 6, 7]).images
    second = load_method("regression", **stages[1], half=True)
    expected = second.upscale(round_to_8bit(first), [0, 0, 0]).images
    assert torch.equal(half.upscale(lr, [5, 6, 7]).images, expected)
    assert not torch.equal(single.upscale(lr, [5, 6, 7]).images, expected)


@pytest.fixture
def settings(weights):
    """8 pixels from noise, 32 from SR3, 128 from Regression."""
    return {
        "images": 7,
        "batch_size": 3,
        "generator": {"checkpoint": weights["generator"], "steps": 3},
        "stage": [{"checkpoint": weights["sr3"], "steps": 2}, {"checkpoint": weights["regression"]}],
    }


def folder_of(settings, out):
    return CascadeFolder(from_dict(CascadeConfig, settings), out)


def make(settings, out, shard="1/1", progress=lambda _done, _total: None):
    return folder_of(settings, out).write(Shard.parse(shard), progress)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def test_images_are_those_of_the_stages_by_hand(settings, weights, tmp_path):
    """Every stage by its own command or function, with files of 8 bit in between."""
    settings |= {"keep_stages": True, "seed": 4}
    told = []
    assert make(settings, tmp_path / "out", progress=lambda *counts: told.append(counts)) == 7
    assert told[-1] == (7, 7)
    assert sorted({round(done, 6) for done, _ in told}) == [done for done, _ in dict.fromkeys(told)]
    generator = generators.load(weights["generator"], GeneratorSampler(steps=3))
    sr3, regression = (
        load_method("sr3", checkpoint=weights["sr3"], steps=2),
        load_method("regression", checkpoint=weights["regression"]),
    )
    batch = [3, 4, 5]
    made = [generator.generate([stable_hash(4, "generate", index) for index in batch])]
    made.append(sr3.upscale(round_to_8bit(made[0]), [stable_hash(4, "upscale", index) for index in batch]).images)
    made.append(regression.upscale(round_to_8bit(made[1]), [0, 0, 0]).images)
    for folder, images in zip(("stage_0", "stage_1", "images"), made, strict=True):
        for index, image in zip(batch, images, strict=True):
            assert torch.equal(to_uint8(load(tmp_path / "out" / folder / f"00000{index}.png")), to_uint8(image))
    config = SampleConfig(weights["regression"])
    sample_folder(config, tmp_path / "out" / "stage_1", tmp_path / "sampled", lambda _done, _total: None)
    assert contents(tmp_path / "sampled").items() >= contents(tmp_path / "out" / "images").items()


def test_shards_and_resumed_runs_give_the_same_bytes(settings, tmp_path):
    make(settings, tmp_path / "whole")
    assert [make(settings, tmp_path / "parts", shard) for shard in ("2/2", "1/2")] == [3, 4]
    assert make(settings, tmp_path / "alone", "3/3") == 1

    def stop(done, _total):
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(settings, tmp_path / "resumed", progress=stop)
    for name in ("000000", "000002"):
        (tmp_path / "resumed" / "images" / f"{name}.png").unlink()
    kept = tmp_path / "resumed" / "images" / "000001.png"
    kept.write_bytes(b"kept as it is")
    make(settings, tmp_path / "resumed")
    assert kept.read_bytes() == b"kept as it is"
    kept.unlink()
    make(settings, tmp_path / "resumed")
    whole = contents(tmp_path / "whole")
    assert set(whole) == {"cascade.toml", *(f"images/{index:06d}.png" for index in range(7))}
    assert contents(tmp_path / "parts") == contents(tmp_path / "resumed") == whole
    assert contents(tmp_path / "alone").items() <= whole.items()


def test_a_finished_folder_is_left_as_it_is(settings, tmp_path, monkeypatch):
    make(settings, tmp_path / "out")
    monkeypatch.setattr(generators.Generator, "generate", None)
    assert make(settings, tmp_path / "out") == 7


def test_an_image_does_not_depend_on_how_many_there_are(settings, tmp_path):
    make(settings | {"images": 6}, tmp_path / "few")
    make(settings | {"images": 9}, tmp_path / "many")
    few = {name: png for name, png in contents(tmp_path / "few").items() if name.startswith("images/")}
    assert contents(tmp_path / "many").items() >= few.items()
    assert len(set(few.values())) == 6


def test_a_killed_command_goes_on_with_the_same_bytes(settings, tmp_path):
    settings |= {"generator": settings["generator"] | {"steps": 60}, "batch_size": 1}
    (tmp_path / "c.toml").write_text(tomli_w.dumps(settings))

    def line(out):
        return [sys.executable, "-m", "sr3eval.cli", "cascade", str(tmp_path / "c.toml"), "--out", str(out)]

    process = subprocess.Popen(line(tmp_path / "out"), stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").rglob("*.png")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    made = contents(tmp_path / "out" / "images")
    assert 0 < len(made) < 7
    result = CliRunner().invoke(cli.main, line(tmp_path / "out")[3:])
    assert result.output.splitlines()[-1] == f"{tmp_path / 'out'}: 7 images"
    make(settings, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("balanced", [0, 1, 2, 0, 1, 2, 0]),
        ([2, "class 0"], [2, 0, 2, 0, 2, 0, 2]),
        ("random", [stable_hash(0, "label", index) % 3 for index in range(7)]),
    ],
)
def test_labels_are_made_and_kept(settings, weights, tmp_path, labels, expected):
    settings |= {"generator": {"checkpoint": weights["classes"], "steps": 2}, "stage": [], "labels": labels}
    make(settings, tmp_path / "out")
    ids = [f"{index:06d}" for index in range(7)]
    assert read_labels(str(tmp_path / "out" / "labels.csv"), ids) == dict(zip(ids, expected, strict=True))
    generator = generators.load(weights["classes"], GeneratorSampler(steps=2))
    seeds = [stable_hash(0, "generate", index) for index in range(3)]
    for index, image in enumerate(generator.generate(seeds, expected[:3])):
        assert torch.equal(to_uint8(load(tmp_path / "out" / "images" / f"{ids[index]}.png")), to_uint8(image))


CLASSES = {"generator": {"checkpoint": "classes", "steps": 2}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": 0}, "images: 0 is below 1"),
        ({"batch_size": 0}, "batch_size: 0 is below 1"),
        ({"labels": "balanced"}, "labels: this generator is unconditional and takes none"),
        (CLASSES, 'labels: missing; this generator has 3 classes: write "balanced"'),
        (CLASSES | {"labels": []}, "labels: missing"),
        (CLASSES | {"labels": [0, 3]}, "label 3 is not from 0 to 2"),
        (CLASSES | {"labels": ["clas 1"]}, 'unknown class "clas 1": did you mean "class 1"'),
        (CLASSES | {"labels": "all"}, "\"labels\" must be 'balanced' or 'random' or a list, not 'all'"),
        ({"generator": {"checkpoint": "sr3"}}, "sr3.safetensors: .*cannot generate images"),
        ({"generator": {"checkpoint": "generator", "step": 3}}, 'unknown key "generator.step": did you mean "steps"'),
        ({"generator": {}}, 'missing key "generator.checkpoint"'),
        ({"stage": [{"checkpoint": "generator"}]}, "a ddpm checkpoint, neither SR3 nor Regression"),
        ({"stage": [{"checkpoint": "sr3"}, {"checkpoint": "attention"}]}, "gets 32x32, and its network has attention"),
        ({"stages": []}, 'unknown key "stages": did you mean "stage"'),
    ],
)
def test_what_does_not_fit_is_refused_before_work(settings, weights, tmp_path, changed, message):
    def named(table):
        return table | ({"checkpoint": weights[table["checkpoint"]]} if "checkpoint" in table else {})

    changed = {key: named(value) if key == "generator" else value for key, value in changed.items()}
    if "stage" in changed:
        changed["stage"] = [named(table) for table in changed["stage"]]
    with pytest.raises(UserError, match=message):
        make(settings | changed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_says_what_made_it(settings, tmp_path):
    settings["stage"] = [settings["stage"][0] | {"steps": 2, "solver": "ddim"}, settings["stage"][1]]
    make(settings, tmp_path / "out")
    kept = tomllib.loads((tmp_path / "out" / "cascade.toml").read_text())
    sha256 = [
        hashlib.sha256(Path(t["checkpoint"]).read_bytes()).hexdigest()
        for t in (settings["generator"], *settings["stage"])
    ]
    assert kept["generator"] == {
        "checkpoint": sha256[0],
        "steps": 3,
        "solver": "ancestral",
        "variance": "posterior",
        "clip": True,
    }
    first, second = kept["stage"]
    assert (first["checkpoint"], first["steps"], first["solver"], first["half"]) == (sha256[1], 2, "ddim", False)
    assert second == {"checkpoint": sha256[2], "half": False}


def test_folders_of_other_cascades_are_refused(settings, weights, tmp_path):
    make(settings, tmp_path / "out")
    for changed in ({"seed": 1}, {"images": 8}, {"generator": settings["generator"] | {"steps": 4}}):
        with pytest.raises(UserError, match="holds a run of another config"):
            make(settings | changed, tmp_path / "out")
    moved = shutil.copy(weights["sr3"], tmp_path / "moved.safetensors")
    assert make(settings | {"stage": [{"checkpoint": moved, "steps": 2}, settings["stage"][1]]}, tmp_path / "out") == 7


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "a/b", "1/0"])
def test_shards_are_written_one_way(text):
    with pytest.raises(UserError, match=f'--shard {text}: write it as "2/8"'):
        Shard.parse(text)


def test_sizes_that_are_not_those_of_training_are_told(settings, weights, tmp_path):
    (tmp_path / "c.toml").write_text(tomli_w.dumps(settings))
    result = CliRunner().invoke(cli.main, ["cascade", str(tmp_path / "c.toml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert f"{weights['regression']}: trained on 8x8 inputs, gets 32x32; its network is convolutional" in result.stderr
    assert weights["sr3"] not in result.stderr


def test_every_recipe_of_a_cascade_can_be_read():
    for path in (ROOT / "configs" / "cascade").glob("*.toml"):
        config = from_dict(CascadeConfig, configs.read_toml(path))
        assert check_call(build_generator, config.generator, "generator")
        assert all(check_call(build_stage, stage, "stage") for stage in config.stage)
