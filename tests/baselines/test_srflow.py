"""SRFlow against goldens of its own code (see goldens/srflow.py), its invertibility, its repairs, and its contract."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import baselines
from baselines import srflow
from sr3eval.errors import UserError
from sr3eval.images import bicubic_up
from sr3eval.method import Method
from sr3eval.weights import StateDict, read

FOLDER = Path(__file__).parent / "goldens"
recipe = SimpleNamespace(**runpy.run_path(str(FOLDER / "srflow.py")))
GOLDEN = np.load(FOLDER / "srflow.npz")
SCALES = {"4X": 4, "8X": 8}
PRIOR = "flowUpsamplerNet.layers.5.conv"  # of the reduced networks' only or finest split
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, torch.Tensor]]:
    return {name: recipe.state(name) for name in SCALES}


@pytest.fixture(scope="module")
def files(states, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("srflow")
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in states}


@pytest.fixture
def make(files):
    def built(name: str = "4X", **options) -> srflow.SRFlow:
        return baselines.load("srflow", **{"weights": files[name]} | options)

    return built


def images(count: int = 3, height: int = 4, width: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def golden_lr() -> torch.Tensor:
    return torch.from_numpy(recipe.low_resolution()) / 255


def assert_close(ours: torch.Tensor, golden: np.ndarray, tolerance: float = 1e-4) -> None:
    """Within `tolerance` of the largest value."""
    np.testing.assert_allclose(ours.numpy(), golden, rtol=0, atol=tolerance * np.abs(golden).max())


@pytest.mark.parametrize("name", SCALES)
def test_gives_the_official_images(make, name):
    method = make(name, heat=recipe.HEAT)
    with torch.inference_mode():
        raw = method.sampled(golden_lr(), recipe.SEEDS, recipe.HEAT)
    assert_close(raw, GOLDEN[f"{name}_sr"], 2e-5)
    levels = method.upscale(golden_lr(), recipe.SEEDS).images * 255
    off = np.abs(levels.round().numpy() - GOLDEN[f"{name}_png"].astype(float))
    assert off.max() <= 1 and (off > 0).mean() < 0.002  # numbers near a step may fall to either side


@pytest.mark.parametrize("name", SCALES)
def test_encodes_as_the_official_code_and_decodes_to_the_same_image(make, name):
    network, hr = make(name).network.cpu(), recipe.high_resolution(SCALES[name])
    lr = srflow.even(golden_lr()[:1])
    with torch.inference_mode():
        noise = network.encode(lr, hr)
        decoded = network.decode(lr, noise)
    assert [tuple(part.shape[1:]) for part in noise] == network.noise_shapes(*lr.shape[-2:])
    for i, part in enumerate(noise):
        assert_close(part, GOLDEN[f"{name}_noise_{i}"])
    assert_close(decoded, hr.numpy())


@pytest.mark.parametrize("name", SCALES)
def test_decoding_then_encoding_gives_the_noise_of_a_batch(make, name):
    network, lr = make(name).network.cpu(), images()
    noise = srflow.drawn([3, 1, 2], network.noise_shapes(4, 6), 0.9)
    with torch.inference_mode():
        again = network.encode(lr, network.decode(lr, noise))
    for part, expected in zip(again, noise, strict=True):
        assert_close(part, expected.numpy())


@pytest.mark.parametrize("name", SCALES)
def test_contract(make, name):
    method, lr = make(name), images()
    assert isinstance(method, Method)
    assert (method.name, method.scale) == ("srflow", SCALES[name])
    assert method.facts.lr_kernel == "MATLAB bicubic, antialiased"
    before = lr.clone()
    upscaled = method.upscale(lr, [5, 6, 7])
    sr, notes = upscaled.images, upscaled.notes
    assert torch.equal(lr, before)
    assert sr.shape == (3, 3, 4 * method.scale, 6 * method.scale) and sr.dtype == torch.float32
    assert 0 <= sr.min() < sr.max() <= 1
    assert notes == [{}, {}, {}]
    assert torch.equal(method.upscale(lr, [5, 6, 7]).images, sr)


def test_an_images_noise_is_that_of_its_seed_alone(make):
    method, lr = make(quantize="none"), images(1).expand(4, -1, -1, -1)
    torch.manual_seed(1)
    sr = method.upscale(lr, [0, 1, 0, 12345]).images
    assert torch.equal(sr[0], sr[2])
    assert min((sr[i] - sr[j]).abs().max() for i, j in [(0, 1), (0, 3), (1, 3)]) > 0.1
    alone = torch.cat([method.upscale(lr[:1], [seed]).images for seed in (0, 1, 0, 12345)])
    torch.testing.assert_close(alone, sr, atol=1e-5, rtol=0)


def test_without_heat_there_is_one_image(make):
    method, lr = make(heat=0.0, quantize="none"), images(1).expand(2, -1, -1, -1)
    sr = method.upscale(lr, [1, 2]).images
    assert torch.equal(sr[0], sr[1])
    noise = [torch.zeros(1, *shape) for shape in method.network.noise_shapes(4, 6)]
    with torch.inference_mode():
        decoded = method.network.cpu().decode(lr[:1], noise)
    torch.testing.assert_close(sr[:1], decoded.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 2), (5, 7)])
def test_odd_sides_are_reflected_and_cropped(make, size):
    method, lr = make(quantize="none"), images(2, *size)
    sr = method.upscale(lr, [1, 2]).images
    assert sr.shape == (2, 3, 4 * size[0], 4 * size[1])
    padding = [(0, 0), (0, 0), *((0, side % 2) for side in size)]
    padded = torch.from_numpy(np.pad(lr.numpy(), padding, "reflect"))
    assert torch.equal(method.upscale(padded, [1, 2]).images[..., : 4 * size[0], : 4 * size[1]], sr)


def test_official_outputs_are_truncated_to_8_bit(make):
    exact, official = (make(quantize=rule).upscale(images(), [1, 2, 3]).images for rule in ("none", "official"))
    written = (exact.numpy() * 255).astype(np.uint8)
    assert torch.equal(official, torch.from_numpy(written) / 255)


def hot(state: dict[str, torch.Tensor], gain: float) -> dict[str, torch.Tensor]:
    """Weights whose standard deviations depend so strongly on the noise that some overflow."""
    strong = state | {f"{PRIOR}.{name}": state[f"{PRIOR}.{name}"].clone() for name in ("weight", "bias")}
    for tensor in (strong[f"{PRIOR}.weight"], strong[f"{PRIOR}.bias"]):
        tensor[1::2] *= gain
    return strong


def test_images_that_overflow_are_made_at_a_lower_heat_and_noted(saved, states):
    weights = saved(hot(states["4X"], 165))
    method, lr, seeds = baselines.load("srflow", weights=weights), images(1).expand(8, -1, -1, -1), range(8)
    with torch.inference_mode():
        finite = {h: method.sampled(lr, seeds, h).isfinite().flatten(1).all(1) for h in (0.9, 0.675, 0.45, 0.225, 0.0)}
    first = [next(heat for heat, good in finite.items() if good[i]) for i in seeds]
    assert 0.9 in first and len(set(first)) > 2
    upscaled = method.upscale(lr, seeds)
    sr, notes = upscaled.images, upscaled.notes
    assert [note.get("made_at_heat", 0.9) for note in notes] == pytest.approx(first)
    for seed, note in enumerate(notes):
        if note:
            assert note["not_finite_at_heat"] == 0.9
            cooler = baselines.load("srflow", weights=weights, heat=note["made_at_heat"])
            upscaled = cooler.upscale(lr[:1], [seed])
            again, no_notes = upscaled.images, upscaled.notes
            assert no_notes == [{}]
            assert torch.equal(again[0], sr[seed])
    assert torch.equal(method.upscale(lr, seeds).images, sr)


def test_what_overflows_at_any_heat_is_bicubic(saved, states):
    state = states["4X"] | {"RRDB.conv_first.bias": torch.full((recipe.FEATURES,), 3e38)}
    method, lr = baselines.load("srflow", weights=saved(state), quantize="none"), images(1)
    upscaled = method.upscale(lr, [1])
    sr, notes = upscaled.images, upscaled.notes
    assert notes == [{"not_finite_at_heat": 0.9, "made_by": "bicubic"}]
    assert torch.equal(sr, bicubic_up(lr, (16, 24)).clamp(0, 1))


# Of the released files: upconvs, blocks, last layer of the flow, the squeezes (which have no tensors), the splits.
LAYOUTS = {
    "SRFlow_DF2K_4X": (2, 23, 57, (0, 20, 39), (19,)),
    "SRFlow_DF2K_8X": (3, 23, 77, (0, 20, 40, 59), (19, 39)),
    "SRFlow_CelebA_8X": (3, 8, 77, (0, 20, 40, 59), (19, 39)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_knows_the_released_files(name):
    upconvs, blocks, last, squeezes, splits = LAYOUTS[name]
    keys = [f"RRDB.upconv{i}.weight" for i in range(1, upconvs + 1)] + ["RRDB.conv_first.weight"]
    keys += [f"RRDB.RRDB_trunk.{i}.RDB1.conv1.weight" for i in range(blocks)]
    shapes = {key: (32 if "RDB1" in key else 64,) for key in keys}
    for layer in set(range(last + 1)) - set(squeezes):
        without = any(layer - squeeze in (1, 2) for squeeze in squeezes)
        kind = "conv" if layer in splits else "actnorm" if without else "affine.fAffine.0"
        shapes[f"flowUpsamplerNet.layers.{layer}.{kind}.weight"] = (64,)
    saved = StateDict({key: torch.empty(shape) for key, shape in shapes.items()}, Path(f"{name}.pth"), "")
    assert srflow.RELEASED[srflow.structure(saved)] == name


def test_loading_takes_tensors_and_leaves_none_behind(files):
    saved = read(files["8X"], "srflow")
    first = saved.weights["RRDB.conv_first.weight"]
    network = srflow.network(saved)
    assert network.encoder.conv_first.weight.data_ptr() == first.data_ptr()
    assert not any(key.startswith("flowUpsamplerNet.layers.") for key in saved.weights)
    assert not any(tensor.is_meta for tensor in network.state_dict().values())


def test_names_networks_of_no_release(make):
    assert "of no release" in make().facts.architecture and "features=8" in make().facts.architecture


def without(*keys):
    return lambda state: {key: value for key, value in state.items() if key not in keys}


def kept(pattern, new=""):
    return lambda state: {re.sub(pattern, new, key): value for key, value in state.items() if re.match(pattern, key)}


def replaced(key, value):
    return lambda state: state | {key: value}


STEP = "flowUpsamplerNet.layers.1"
WRONG = {
    "encoder alone": (kept(r"RRDB\.", "RRDB."), "no flow in it"),
    "its pretrained file": (kept(r"RRDB\."), "no flow in it); it looks like esrgan"),
    "flow alone": (kept(r"flowUpsamplerNet\.", "flowUpsamplerNet."), "0 RRDBs for 1x"),
    "16x": (lambda state: state | {f"RRDB.upconv{i}.bias": torch.zeros(8) for i in (3, 4)}, "23 RRDBs for 16x"),
    "few blocks": (kept(r"(?!RRDB\.RRDB_trunk\.22)"), "22 RRDBs for 4x"),
    "no first": (without("RRDB.conv_first.weight"), "no RRDB.conv_first.weight"),
    "a number": (replaced("RRDB.conv_first.weight", torch.zeros(())), "RRDB.conv_first.weight is a number"),
    "missing": (without(f"{STEP}.actnorm.logs"), f"{STEP}.actnorm.logs: None, not (1, 12, 1, 1)"),
    "misshapen": (replaced(f"{STEP}.invconv.weight", torch.eye(6)), f"{STEP}.invconv.weight: (6, 6), not (12, 12)"),
    "unknown": (replaced("flowUpsamplerNet.g.bias", torch.eye(6)), "1 keys differ, first flowUpsamplerNet.g.bias"),
    "encoder's": (without("RRDB.trunk_conv.bias"), "1 keys differ, first encoder.conv_body.bias: None, not (8,)"),
    "singular": (replaced(f"{STEP}.invconv.weight", torch.zeros(12, 12)), f"{STEP}.invconv.weight has no inverse"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refuses_other_weights(saved, states, name):
    change, message = WRONG[name]
    with pytest.raises(UserError, match=re.escape(message)) as error:
        baselines.load("srflow", weights=saved(change(states["4X"])))
    assert "model.pth: not weights of srflow" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("heat", [-0.1, float("nan"), float("inf")])
def test_refuses_heats_that_are_none(make, heat):
    with pytest.raises(UserError, match=re.escape(f"heat = {heat}: must not be negative")):
        make(heat=heat)
