"""Janspiry's SR3 against goldens of its own code (see goldens/sr3_janspiry.py), and its contract."""

import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import baselines
from baselines import sr3_janspiry
from baselines._janspiry_unet import structure
from sr3eval.diffusion.solvers import refine
from sr3eval.errors import UserError
from sr3eval.images import pillow_bicubic
from sr3eval.method import Method

FOLDER = Path(__file__).parent / "goldens"
recipe = SimpleNamespace(**runpy.run_path(str(FOLDER / "sr3_janspiry.py")))
GROUPS = {name: unet["norm_groups"] for name, unet in recipe.UNETS.items()}
SHORT = {"steps": 3, "linear_start": 0.05, "linear_end": 0.3}  # the recipe's CHAIN


@pytest.fixture(scope="module")
def goldens():
    with np.load(FOLDER / "sr3_janspiry.npz") as arrays:
        return dict(arrays)


def state(goldens, name: str) -> dict[str, torch.Tensor]:
    """The state dict that the official code saves, with the recipe's weights and an empty schedule."""
    shapes = zip(goldens[f"{name}_keys"].tolist(), goldens[f"{name}_shapes"].tolist(), strict=True)
    return {key: tensor(key, tuple(map(int, shape.split()))) for key, shape in shapes}


def tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    if key.startswith("denoise_fn."):
        return torch.from_numpy(recipe.weight(key, shape))
    return torch.zeros(shape)


@pytest.fixture(scope="module")
def files(goldens, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("janspiry")
    for name in recipe.UNETS:
        torch.save(state(goldens, name), folder / f"{name}_gen.pth")
    return {name: str(folder / f"{name}_gen.pth") for name in recipe.UNETS}


@pytest.fixture
def make(files):
    def built(name: str = "512", **options) -> sr3_janspiry.JanspirySR3:
        return baselines.load("sr3_janspiry", **{"weights": files[name], "norm_groups": GROUPS[name]} | options)

    return built


def images(count: int = 3, height: int = 2, width: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def condition(method) -> torch.Tensor:
    lr = torch.from_numpy(recipe.low_resolution()) / 255
    return sr3_janspiry.to_signed(pillow_bicubic(lr, recipe.HR[2:])).to(method.device)


class Recorded:
    """The recipe's noise, in place of NoisePerImage."""

    def __init__(self, *_unused) -> None:
        self.step = -1

    def __call__(self) -> torch.Tensor:
        self.step += 1
        return torch.from_numpy(recipe.noise(self.step)).to(sr3_janspiry.default_device())


def assert_equal(ours: torch.Tensor, golden: np.ndarray) -> None:
    torch.testing.assert_close(ours.cpu(), torch.from_numpy(golden), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", recipe.UNETS)
@torch.inference_mode()
def test_network(make, goldens, name):
    method = make(name)
    gamma = torch.full((2,), recipe.LEVEL**2, device=method.device)
    assert_equal(method.network(condition(method), Recorded()(), gamma), goldens[f"{name}_noise"])


@pytest.mark.parametrize("name", recipe.UNETS)
@torch.inference_mode()
def test_first_step_of_the_released_schedule(make, goldens, name):
    method = make(name)
    steps = refine(method.network, condition(method), method.schedule, Recorded(), variance="posterior", clip=True)
    assert_equal(next(steps), goldens[f"{name}_step"])


@pytest.mark.parametrize("name", recipe.UNETS)
def test_whole_chain(make, goldens, name, monkeypatch):
    monkeypatch.setattr(sr3_janspiry, "NoisePerImage", Recorded)
    lr = torch.from_numpy(recipe.low_resolution()) / 255
    floats = make(name, quantize="none", **SHORT).upscale(lr, [0, 1]).images
    assert_equal(floats * 2 - 1, goldens[f"{name}_chain"].clip(-1, 1))
    pixels = make(name, **SHORT).upscale(lr, [0, 1]).images * 255
    assert_equal(pixels / 255, pixels.round().numpy() / 255)
    difference = (pixels - torch.from_numpy(goldens[f"{name}_png"]).float()).abs()
    assert difference.max() < 1.01 and (difference > 0.5).float().mean() < 1e-3


def test_structure_is_read_off_the_released_keys(goldens):
    released = {
        name: structure({key.removeprefix("denoise_fn."): value for key, value in state(goldens, name).items()}, None)
        for name in recipe.UNETS
    }
    assert released["128"].widths == (8, 16, 32, 64, 64)
    assert released["128"].attention == (False, False, False, True, False)
    assert (released["128"].blocks, released["128"].groups, released["128"].factor) == (2, 32, 16)
    assert released["512"].widths == (8, 16, 32, 64, 128)
    assert released["512"].attention == (False,) * 5
    assert (released["512"].blocks, released["512"].groups, released["512"].factor) == (1, 16, 16)


def test_enlarges_as_pillow_does():
    lr = images(1, 5, 7)
    pixels = (lr[0] * 255).round().byte().permute(1, 2, 0).numpy()
    official = np.array(Image.fromarray(pixels).resize((56, 40), Image.Resampling.BICUBIC))
    ours = (pillow_bicubic(lr, (40, 56))[0] * 255).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, official, atol=1e-4)


def test_contract(make):
    method, lr = make(**SHORT), images()
    assert isinstance(method, Method)
    assert (method.name, method.scale, method.facts.lr_kernel) == ("sr3_janspiry", 8, "Pillow bicubic")
    assert len(method.facts.checksums["weights"]) == 64
    before = lr.clone()
    sr = method.upscale(lr, [5, 6, 7]).images
    assert torch.equal(lr, before)
    assert sr.shape == (3, 3, 16, 32) and sr.dtype == torch.float32
    assert 0 <= sr.min() <= sr.max() <= 1
    assert torch.equal(method.upscale(lr, [5, 6, 7]).images, sr)
    assert torch.equal(method.upscale(lr.flip(0), [7, 6, 5]).images, sr.flip(0))
    assert not torch.equal(method.upscale(lr, [8, 6, 7]).images[0], sr[0])
    assert (method.upscale(lr[1:2], [6]).images - sr[1:2]).abs().max() <= 1.01 / 255


def test_odd_sizes_and_other_scales(make):
    assert make(**SHORT).upscale(images(1, 3, 5), [0]).images.shape == (1, 3, 24, 40)
    assert make(scale=3, **SHORT).upscale(images(1, 3, 5), [0]).images.shape == (1, 3, 9, 15)


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 4},
        {"linear_start": 0.2},
        {"linear_end": 0.8},
        {"norm_groups": 4},
        {"quantize": "none"},
        {"scale": 4},
    ],
    ids=str,
)
def test_fingerprint_changes_with_settings(make, changed):
    base, other = make(**SHORT), make(**SHORT | changed)
    assert make(**SHORT).fingerprint == base.fingerprint != other.fingerprint
    lr = images(1)
    assert not torch.equal(base.upscale(lr, [1]).images, other.upscale(lr, [1]).images)


def test_fingerprint_changes_with_weights(make, goldens, tmp_path):
    weights = state(goldens, "512")
    weights["denoise_fn.final_conv.block.3.bias"] += 0.1
    torch.save(weights, tmp_path / "other.pth")
    assert make(weights=str(tmp_path / "other.pth")).fingerprint != make().fingerprint


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def without(weights: dict, *keys: str) -> dict:
    return {key: value for key, value in weights.items() if key not in keys}


def bad_files(weights: dict) -> dict[str, tuple[object, str]]:
    """Contents by what is wrong, each with what the error says."""
    first = "denoise_fn.downs.0.weight"
    generator = weights | {first: weights[first][:, :3]}
    ddpm = {key.replace("noise_level_mlp", "time_mlp"): value for key, value in weights.items()}
    return {
        "esrgan": ({"RRDB_trunk.0.RDB1.conv1.weight": torch.zeros(1)}, "it looks like esrgan"),
        "optimiser": ({"epoch": 1, "iter": 2, "scheduler": None, "optimizer": {"state": {}}}, "*_gen.pth beside it"),
        "unconditional": (generator, "generates images without an input"),
        "ddpm": (ddpm, "which_model_G is ddpm"),
        "incomplete": (without(weights, "denoise_fn.mid.0.attn.out.bias"), "first mid.0.attn.out.bias"),
        "no blocks": ({first: weights[first]}, "no layers of its U-Net"),
        "foreign layer": (weights | {"denoise_fn.downs.x.weight": torch.zeros(1)}, "no layers of its U-Net"),
    }


@pytest.mark.parametrize(
    "wrong", ["esrgan", "optimiser", "unconditional", "ddpm", "incomplete", "no blocks", "foreign layer"]
)
def test_refuses_other_files(make, goldens, tmp_path, wrong):
    content, message = bad_files(state(goldens, "512"))[wrong]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError) as error:
        make(weights=str(tmp_path / "other.pth"))
    assert message in str(error.value)


def test_refuses_unreadable_files(make, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        make(weights="missing_gen.pth")
    content = Path(files["512"]).read_bytes()
    Path("half_gen.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated"):
        make(weights="half_gen.pth")
    Path("code_gen.pth").write_bytes(pickle.dumps({"denoise_fn.downs.0.weight": Code()}, protocol=2))
    with pytest.raises(UserError, match="pickled code, which is not run"):
        make(weights="code_gen.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm_groups": None}, "norm_groups 16 does not divide the widths"),
        ({"norm_groups": 0}, "norm_groups = 0"),
        ({"scale": 0}, "scale = 0"),
        ({"steps": 0}, "0 steps"),
        ({"linear_end": 1.0}, "strictly between 0 and 1"),
    ],
)
def test_refuses_options_out_of_range(make, options, message):
    with pytest.raises(UserError) as error:
        make(**options)
    assert message in str(error.value)
