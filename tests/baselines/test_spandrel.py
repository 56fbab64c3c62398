"""Networks of spandrel's own classes with random weights: the same outputs as calling them, and what is refused."""

import pickle
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from baselines.spandrel import build
from sr3eval.errors import UserError
from sr3eval.method import Facts, Method

architectures = pytest.importorskip("spandrel.architectures")
NETWORKS = {
    "RCAN": lambda a: a.RCAN.RCAN(scale=2, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4),
    "SwinIR": lambda a: a.SwinIR.SwinIR(
        img_size=16, window_size=8, embed_dim=12, depths=[2, 2], num_heads=[2, 2], upscale=4, upsampler="pixelshuffle"
    ),
    "ESRGAN": lambda a: a.ESRGAN.ESRGAN(num_filters=8, num_blocks=2, scale=4),
}
SCALES = {"RCAN": 2, "SwinIR": 4, "ESRGAN": 4}
NONE = {"quantize": "none"}


@pytest.fixture(scope="module")
def networks():
    import spandrel.architectures.ESRGAN
    import spandrel.architectures.RCAN
    import spandrel.architectures.SwinIR

    torch.manual_seed(0)
    return {name: network(spandrel.architectures).eval() for name, network in NETWORKS.items()}


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spandrel")
    for name, network in networks.items():
        torch.save({"params": network.state_dict()}, folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in networks}


@pytest.mark.parametrize("prefix", ["", "module.", "generator."])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_checkpoints_of_training_programs(networks, files, tmp_path, prefix, kind):
    state = {f"{prefix}{key}": value for key, value in networks["ESRGAN"].state_dict().items()}
    path = tmp_path / f"net.{kind}"
    if kind == "pth":
        torch.save({"model": state}, path)
    else:
        safetensors.torch.save_file(state, path)
    lr = images(8, 8)
    assert torch.equal(
        build(weights=str(path)).upscale(lr, [0, 0]).images, build(weights=files["ESRGAN"]).upscale(lr, [0, 0]).images
    )


def images(height, width, count=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_parity_with_the_module(name, networks, files):
    lr = images(16, 24)
    before = lr.clone()
    method = build(weights=files[name], **NONE)
    assert isinstance(method, Method)
    assert (method.name, method.facts.architecture, method.scale) == ("spandrel", name, SCALES[name])
    with torch.inference_mode():
        expected = networks[name](lr.clone()).clamp(0, 1)
    assert (method.upscale(lr, [0, 0]).images - expected).abs().max() <= 1e-6
    assert expected.std() > 0
    assert torch.equal(lr, before)  # RCAN multiplies its input by 255 in place


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(17, 23), (1, 5), (3, 3)])
def test_any_size(name, files, size):
    scale = SCALES[name]
    sr = build(weights=files[name]).upscale(images(*size), [0, 0]).images
    assert sr.shape == (2, 3, size[0] * scale, size[1] * scale)
    assert torch.equal(sr, (sr * 255).round() / 255)
    assert 0 <= sr.min() <= sr.max() <= 1


@pytest.mark.parametrize("quantize", ["official", "none"])
def test_tiles_change_nothing_within_the_overlap_of_a_convolutional_network(files, quantize):
    whole = build(weights=files["ESRGAN"], quantize=quantize)
    tiles = build(weights=files["ESRGAN"], quantize=quantize, tile=20, overlap=40)
    lr = images(50, 33, 1)
    difference = (tiles.upscale(lr, [0]).images - whole.upscale(lr, [0]).images).abs().max()
    assert difference <= (1 / 255 if quantize == "official" else 1e-6)
    assert tiles.fingerprint != whole.fingerprint


def test_safetensors(files, networks, tmp_path):
    path = tmp_path / "rcan.safetensors"
    state = {name: value.contiguous() for name, value in networks["RCAN"].state_dict().items()}
    safetensors.torch.save_file(state, path)
    ours, theirs = build(weights=str(path)), build(weights=files["RCAN"])
    assert torch.equal(ours.upscale(images(8, 8), [0, 0]).images, theirs.upscale(images(8, 8), [0, 0]).images)
    assert ours.fingerprint != theirs.fingerprint  # it is another file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="rcan.safetensors: not a safetensors file, or truncated"):
        build(weights=str(path))


def test_noise_is_drawn_from_the_seeds(files, monkeypatch):
    """As AuraSR draws it: from the global generator."""
    method = build(weights=files["ESRGAN"], **NONE)
    method.facts = Facts(architecture="AuraSR")
    network = method.descriptor
    monkeypatch.setattr(method, "descriptor", lambda x: network(x + 0.1 * torch.randn_like(x)))
    method.descriptor.scale = 4
    lr = images(8, 8, 1).expand(3, -1, -1, -1)
    state = torch.get_rng_state()
    sr = method.upscale(lr, [1, 2, 1]).images
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sr[0], sr[2])
    assert not torch.equal(sr[0], sr[1])


def test_a_file_of_another_method_is_named(tmp_path):
    torch.save({"flowUpsamplerNet.layers.1.actnorm.bias": torch.zeros(1)}, tmp_path / "flow.pth")
    with pytest.raises(UserError, match=r"not weights of spandrel \(no architecture .*\); it looks like srflow"):
        build(weights=str(tmp_path / "flow.pth"))
    torch.save({"any": torch.zeros(1)}, tmp_path / "any.pth")
    with pytest.raises(UserError, match="no architecture that spandrel"):
        build(weights=str(tmp_path / "any.pth"))


def test_a_network_with_a_layer_missing_is_refused(networks, tmp_path):
    state = networks["RCAN"].state_dict()
    del state["body.0.body.1.body.0.weight"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"cannot build the network: .*; it looks like RCAN") as caught:
        build(weights=str(tmp_path / "half.pth"))
    assert "\n" not in str(caught.value)


def test_other_purposes_and_channels_are_named(tmp_path):
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.save(ESRGAN(in_nc=1, out_nc=1, num_filters=8, num_blocks=2, scale=4).state_dict(), tmp_path / "grey.pth")
    with pytest.raises(UserError, match=r"grey.pth: ESRGAN from 1 to 1 channels, not from RGB"):
        build(weights=str(tmp_path / "grey.pth"))
    torch.save(DnCNN(in_nc=3, out_nc=3, nc=8, nb=4).state_dict(), tmp_path / "denoiser.pth")
    with pytest.raises(UserError, match=r"denoiser.pth: DnCNN, a model for Restoration, not for super-resolution"):
        build(weights=str(tmp_path / "denoiser.pth"))


def test_files_that_are_no_checkpoint(files, tmp_path):
    with pytest.raises(UserError, match="none.pth: weights cannot be read"):
        build(weights=str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "cut.pth").write_bytes(Path(files["RCAN"]).read_bytes()[:5000])
    for name in ("text.pth", "cut.pth"):
        with pytest.raises(UserError, match=f"{name}: not a PyTorch checkpoint, or truncated"):
            build(weights=str(tmp_path / name))


def test_pickled_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (type(tmp_path / "x").touch, (tmp_path / "ran",))

    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"params": Trap()}, tmp_path / "nested.pth")
    for name in ("bare.pth", "nested.pth"):
        with pytest.raises(UserError, match=name):
            build(weights=str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


def test_options_are_part_of_the_fingerprint(files):
    base = build(weights=files["ESRGAN"])
    assert base.fingerprint == build(weights=files["ESRGAN"]).fingerprint
    for changed in ({"quantize": "none"}, {"tile": 8}, {"tile": 8, "overlap": 4}, {"weights": files["RCAN"]}):
        assert build(**({"weights": files["ESRGAN"]} | changed)).fingerprint != base.fingerprint
    assert set(base.facts.checksums) == {"weights"}
    with pytest.raises(UserError, match="tile = 0"):
        build(weights=files["ESRGAN"], tile=0)


def test_missing_package_is_one_line(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError, match="pip install spandrel"):
        build(weights=files["RCAN"])
