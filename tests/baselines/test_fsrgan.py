"""FSRGAN against goldens of the two ports' own code (see goldens/fsrgan.py), its files, and its contract."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import baselines
from baselines import fsrgan
from baselines._fsrnet import SECTIONS, FSRNet
from sr3eval.errors import UserError
from sr3eval.method import Method
from sr3eval.methods.precomputed import Precomputed
from sr3eval.weights import identify

FOLDER = Path(__file__).parent / "goldens"
recipe = SimpleNamespace(**runpy.run_path(str(FOLDER / "fsrgan.py")))
PORTS = {"a": "cs-giung's", "b": "cydiachen's"}
STATISTICS = ["image", "running"]


@pytest.fixture(scope="module")
def goldens():
    with np.load(FOLDER / "fsrgan.npz") as arrays:
        return dict(arrays)


def state(goldens, port: str) -> dict[str, torch.Tensor]:
    """The state dict that a port saves, with the recipe's weights."""
    shapes = zip(goldens[f"{port}_keys"].tolist(), goldens[f"{port}_shapes"].tolist(), strict=True)
    return {key: torch.from_numpy(recipe.weight(key, tuple(map(int, shape.split())))) for key, shape in shapes}


def checkpoint(weights: dict, name: str = "state_dict") -> dict:
    """What cs-giung's train.py saves; demo.py also reads what an older train_GAN.py saved, as state_dict_G."""
    optimizer = torch.optim.RMSprop([torch.nn.Parameter(torch.zeros(3))]).state_dict()
    return {"epoch": 99, "hmaps_ch": 0, "pmaps_ch": 11, name: weights, "optimizer": optimizer}


@pytest.fixture(scope="module")
def files(goldens, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("fsrgan")
    torch.save(checkpoint(state(goldens, "a")), folder / "a.pth")
    torch.save(state(goldens, "b"), folder / "b.pth")
    return {port: str(folder / f"{port}.pth") for port in PORTS}


@pytest.fixture
def make(files):
    def built(port: str, **options) -> fsrgan.FSRGAN:
        return baselines.load("fsrgan", **{"weights": files[port]} | options)

    return built


def small(seed: int, path: Path, width: int = 4) -> str:
    """A reduced network in cydiachen's layout."""
    torch.manual_seed(seed)
    names = {ours: theirs for theirs, ours in SECTIONS.items()}
    weights = FSRNet(width, per_image=False, shared=False).state_dict()
    torch.save({re.sub(r"^\w+", lambda section: names[section[0]], key): w for key, w in weights.items()}, path)
    return str(path)


@pytest.fixture
def lr():
    return torch.from_numpy(recipe.low_resolution()) / 255


def sampled(images: torch.Tensor) -> np.ndarray:
    return images[..., :: recipe.STEP, :: recipe.STEP].numpy()


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("port", PORTS)
@torch.inference_mode()
def test_network(make, goldens, lr, port, statistics):
    method = make(port, statistics=statistics)
    y = sampled(method.network(method.port.enlarge(lr).to(method.device)).cpu())
    np.testing.assert_allclose(y, goldens[f"{port}_{statistics}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("port", PORTS)
def test_pixels(make, goldens, lr, port):
    pixels = sampled(make(port).upscale(lr, [0, 1]).images * 255)
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-4)
    difference = np.abs(pixels.round() - goldens[f"{port}_png"])
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    floats = sampled(make(port, quantize="none").upscale(lr[:1], [0]).images)
    shown = (goldens["a_image"] + 1) / 2 if port == "a" else goldens["b_running"].clip(0, 1)
    np.testing.assert_allclose(floats, shown[:1], atol=1e-5, rtol=0)


def test_enlarges_as_pillow_and_opencv_do(lr):
    pixels = (lr[0] * 255).byte().permute(1, 2, 0).numpy()
    official = np.array(Image.fromarray(pixels).resize((128, 128), Image.Resampling.BICUBIC))
    ours = (fsrgan.pillow_enlarged(lr)[0] + 1).permute(1, 2, 0).numpy() * 127.5
    np.testing.assert_allclose(ours, official, atol=1e-4)
    np.testing.assert_allclose(fsrgan.opencv_enlarged(lr)[0].numpy() * 255, opencv(pixels), atol=1e-4)


def opencv(pixels: np.ndarray) -> np.ndarray:
    """[h, w, 3] to [3, 8h, 8w] by the formulas of OpenCV's resize: Keys' cubic with a = -0.75, edges repeated."""
    matrix = np.zeros((128, 16))
    for row in range(128):
        centre = (row + 0.5) / 8 - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            x = abs(centre - tap)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            matrix[row, min(max(tap, 0), 15)] += near if x <= 1 else far
    return np.einsum("ai,ijc,bj->cab", matrix, pixels.astype(float), matrix).round().clip(0, 255)


@pytest.mark.parametrize("port", PORTS)
def test_contract(make, lr, port):
    method = make(port)
    assert isinstance(method, Method)
    assert (method.name, method.scale, method.lr_size) == ("fsrgan", 8, 16)
    assert method.facts.architecture == f"FSRNet ({PORTS[port]} port), statistics = {method.port.statistics}"
    assert method.facts.lr_kernel == {"a": "Pillow bicubic", "b": "OpenCV bicubic, not antialiased"}[port]
    assert len(method.facts.checksums["weights"]) == 64
    before = lr.clone()
    sr = method.upscale(lr, [5, 6]).images
    assert torch.equal(lr, before)
    assert sr.shape == (2, 3, 128, 128) and sr.dtype == torch.float32
    assert 0 <= sr.min() < sr.max() <= 1
    assert torch.equal(method.upscale(lr.flip(0), [0, 0]).images, sr.flip(0))
    assert (method.upscale(lr[1:], [6]).images - sr[1:]).abs().max() <= 1.01 / 255


def test_fingerprint_changes_with_weights_and_settings(tmp_path, lr):
    weights = [small(seed, tmp_path / f"{seed}.pth") for seed in (0, 1)]
    base = baselines.load("fsrgan", weights=weights[0])
    assert baselines.load("fsrgan", weights=weights[0], statistics="running").fingerprint == base.fingerprint
    for changed in ({"weights": weights[1]}, {"quantize": "none"}, {"statistics": "image"}):
        other = baselines.load("fsrgan", **{"weights": weights[0]} | changed)
        assert other.fingerprint != base.fingerprint
        assert not torch.equal(other.upscale(lr, [0, 0]).images, base.upscale(lr, [0, 0]).images)


@pytest.mark.parametrize("size", [(16, 17), (8, 8), (32, 32)])
def test_refuses_other_sizes(tmp_path, size):
    method = baselines.load("fsrgan", weights=small(0, tmp_path / "b.pth"))
    with pytest.raises(UserError) as error:
        method.upscale(torch.zeros(1, 3, *size), [0])
    assert f"not {size[0]}x{size[1]}" in str(error.value) and 'path = ["bicubic 16", "method"]' in str(error.value)


def test_checkpoints_of_either_name_and_of_data_parallel(make, goldens, tmp_path, lr):
    weights = {f"module.{key}": value for key, value in state(goldens, "a").items()}
    torch.save(checkpoint(weights, "state_dict_G"), tmp_path / "gan.pth")
    other = make("a", weights=str(tmp_path / "gan.pth"))
    assert torch.equal(other.upscale(lr[:1], [0]).images, make("a").upscale(lr[:1], [0]).images)


def test_cs_giungs_blocks_must_be_one(make, goldens, tmp_path):
    weights = state(goldens, "a")
    assert len(weights) == 718 and len({recipe.SHARED.sub(r"\1.0", key) for key in weights}) == 538
    key = "fsr_enc.res_blocks.7.layers.2.running_mean"
    weights[key] = weights[key] + 1e-6
    torch.save(checkpoint(weights), tmp_path / "a.pth")
    with pytest.raises(UserError, match=re.escape(f"{key} differs from the first block")):
        make("a", weights=str(tmp_path / "a.pth"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module_is_refused_with_the_way_to_save_it_again(tmp_path, zipped):
    """As cydiachen's save_checkpoint writes it; the line in the message is run."""
    weights = torch.load(small(0, tmp_path / "state.pth"))
    file = tmp_path / "a user's model.pth"
    torch.save({"epoch": 3, "model": Tree(weights)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as error:
        baselines.load("fsrgan", weights=str(file))
    message = str(error.value)
    assert "\n" not in message and "pickled code, which is not run" in message and ".Tree)" in message
    exec(message[message.index("import torch; ") :])
    lr = torch.rand(1, 3, 16, 16)
    paths = f"{file}.state.pth", str(tmp_path / "state.pth")
    again, direct = (baselines.load("fsrgan", weights=path).upscale(lr, [0]).images for path in paths)
    assert torch.equal(again, direct)


class Tree(torch.nn.Module):
    """A module that has the tensors of a state dict under their names, and can be pickled."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            head, _, rest = key.partition(".")
            if rest:
                groups.setdefault(head, {})[rest] = value
            else:
                self.register_buffer(head, value)
        for head, group in groups.items():
            self.add_module(head, Tree(group))


def bad_files(weights: dict) -> dict[str, tuple[object, str]]:
    """Contents by what is wrong with a small network's, each with what the error says."""
    first, other = "fine_SR_Decoder.0.weight", "coarse_SR_Encoder.1.weight"
    without = {key: value for key, value in weights.items() if key != first}
    return {
        "esrgan": ({"RRDB_trunk.0.RDB1.conv1.weight": torch.zeros(1)}, "it looks like esrgan"),
        "empty": ({}, "no layers of an FSRNet"),
        "incomplete": (without, "1 keys differ, first decoder.0.weight: None"),
        "other shape": (weights | {first: torch.zeros(4, 12, 1, 1)}, "first decoder.0.weight: (4, 12, 1, 1)"),
        "other layer": (weights | {"csr_net.res_blocks.x.weight": torch.zeros(1)}, "csr_net.res_blocks.x.weight"),
        "no first": (weights | {other: torch.zeros(1)}, "its first layer is missing"),
        "not tensors": ({"epoch": 3, "model": "FSRNet"}, "holds no state dict"),
    }


@pytest.mark.parametrize(
    "wrong", ["esrgan", "empty", "incomplete", "other shape", "other layer", "no first", "not tensors"]
)
def test_refuses_other_files(tmp_path, wrong):
    content, message = bad_files(torch.load(small(0, tmp_path / "b.pth")))[wrong]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError) as error:
        baselines.load("fsrgan", weights=str(tmp_path / "other.pth"))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("CelebA_GAN_8x.t7", bytes.fromhex("040000000100000003000000") + b"V 1"),
        ("renamed.pth", bytes.fromhex("0300000001000000") + bytes(20)),
        ("text.t7", b"4\n1\n3\nV 1\n"),
    ],
)
def test_a_file_of_torch7_is_one_line_that_says_how_to_go_on(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        baselines.load("fsrgan", weights=str(tmp_path / name))
    line = str(error.value)
    for part in (f"{tmp_path / name}: a file of Torch7", "not run", "kind precomputed", "torchfile.load"):
        assert part in line
    assert "\n" not in line
    said = line.removeprefix(f"{tmp_path / name}: ").partition("; sha256 ")[0]
    assert f"\n  looks like: {said}\n" in identify(tmp_path / name)


def test_outputs_of_the_authors_scripts_are_found(tmp_path):
    """test_CelebA_8x.lua writes results/celeba_fsrgan_8x/output_2_NAME."""
    for name in ("000123", "000456"):
        Image.new("RGB", (128, 128), (int(name) % 256, 0, 0)).save(tmp_path / f"output_2_{name}.png")
    outputs = Precomputed(tmp_path, pattern="output_2_(?P<id>.+)")
    outputs.check(["celeba/000456"], dict.fromkeys(["celeba/000123", "celeba/000456"], (128, 128)))
    assert outputs.lookup("celeba/000456", tmp_path)[0, 0, 0] == 456 % 256 / 255


def test_refuses_options_that_are_none(make):
    with pytest.raises(UserError, match=r"""baseline "fsrgan"\.statistics" is 'batch': valid: image, running"""):
        make("a", statistics="batch")
    with pytest.raises(UserError, match=r"""quantize" is 'round'"""):
        make("a", quantize="round")
    with pytest.raises(UserError, match='unknown key "baseline "fsrgan".scale"'):
        make("a", scale=8)
