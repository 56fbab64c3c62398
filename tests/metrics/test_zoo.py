"""NIQE, BRISQUE, DISTS and pyiqa's metrics against the implementations that papers use."""

import math
import pickletools
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pyiqa
import pytest
import torch
import torchvision
from libsvm import svmutil
from pyiqa.archs.cnniqa_arch import CNNIQA
from scipy import io, stats
from skimage import data

from sr3eval import metrics
from sr3eval.errors import UserError
from sr3eval.features import natural_scenes
from sr3eval.images import from_uint8
from sr3eval.metrics import Batch, brisque, dists, niqe
from sr3eval.metrics import pyiqa as pyiqa_metric
from sr3eval.weights import locate
from tests.conftest import randomised

pytestmark = pytest.mark.usefixtures("one_thread")
ASTRONAUT, COFFEE, CHELSEA = data.astronaut(), data.coffee()[100:340, 150:470], data.chelsea()[40:240, 60:360]
FLAT = CHELSEA.copy()
FLAT[:100, :100] = 128  # a whole block, which is left out


def tensor(image):
    return from_uint8(torch.from_numpy(image.copy()).permute(2, 0, 1))[None]


def score(metric, sr, hr=None):
    metric.update(Batch(["image"], sr, hr))
    return metric.compute().value


@pytest.fixture(scope="module")
def pair():
    """An output and its HR image, [1, 3, 96, 112]."""
    hr = tensor(ASTRONAUT[100:196, 100:212])
    noise = 0.08 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    return (hr + noise).clamp(0, 1).mul(255).round() / 255, hr


# NIQE

# By BasicSR 8d56e3a, calculate_niqe(image in BGR, crop_border), run beside this project.
BASICSR = [
    (ASTRONAUT, 0, 3.0649476661847754),
    (ASTRONAUT, 4, 2.9912960484545486),
    (COFFEE, 0, 6.740772251316891),
    (COFFEE, 4, 6.9878344758515585),
    (CHELSEA, 0, 2.7441269906642427),
    (CHELSEA, 4, 2.735858488684118),
    (FLAT, 0, 6.764786740567646),
    (FLAT, 4, 2.993793802319842),
]


@pytest.mark.parametrize(("image", "border", "expected"), BASICSR)
def test_niqe_equals_basicsr(image, border, expected):
    metric = metrics.load("niqe", border=border)
    assert score(metric, tensor(image)) == pytest.approx(expected, abs=1e-3)
    assert metric.name == ("niqe_b4" if border else "niqe") and not metric.higher_is_better


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    """NIQE's parameters as the file that pyiqa downloads."""
    path = tmp_path_factory.mktemp("niqe") / "niqe_modelparameters.mat"
    mean, covariance = niqe._natural()
    io.savemat(path, {"mu_prisparam": mean.numpy()[None], "cov_prisparam": covariance.numpy()})
    return path


@pytest.mark.parametrize(("photograph", "luma", "border"), [("coffee", "ycbcr", 0), ("chelsea", "yiq", 4)])
def test_niqe_equals_pyiqa_in_the_same_colours(parameters, photograph, luma, border):
    """The two lumas differ by more."""
    image = tensor(getattr(data, photograph)())
    peer = pyiqa.create_metric("niqe", color_space=luma, crop_border=border, pretrained_model_path=str(parameters))
    both = {choice: score(metrics.load("niqe", luma=choice, border=border), image) for choice in ("ycbcr", "yiq")}
    assert both[luma] == pytest.approx(peer(image).item(), abs=1e-3)
    assert abs(both["yiq"] - both["ycbcr"]) > 0.01
    assert metrics.load("niqe", luma="yiq", border=4).name == "niqe_yiq_b4"


def test_niqe_needs_two_blocks_with_texture():
    with pytest.raises(UserError, match="niqe: a 191x100 image has fewer than two blocks of 96x96"):
        niqe.niqe(torch.zeros(100, 191))
    assert math.isnan(niqe.niqe(torch.zeros(96, 192)))
    assert niqe.niqe(torch.rand(96, 192, generator=torch.Generator().manual_seed(0)) * 255) > 0


# Statistics of natural scenes


@pytest.mark.parametrize(("shape", "left", "right"), [(0.7, 1.0, 1.0), (2.0, 0.5, 1.5), (3.5, 2.0, 0.8)])
def test_asymmetric_gaussians_are_found_again(shape, left, right):
    """From draws of SciPy's generalised normal distribution, stretched on either side; `left`, `right` are widths."""
    draws = stats.gennorm.rvs(shape, size=400_000, random_state=0)
    side = np.random.default_rng(1).random(draws.size) < left / (left + right)
    values = torch.from_numpy(np.where(side, -left, right) * np.abs(draws))[None]
    found, *deviations = natural_scenes.asymmetric(values)
    interpolated, *_ = natural_scenes.asymmetric(values, interpolate=True)
    assert found.item() == pytest.approx(shape, rel=0.02) and interpolated.item() == pytest.approx(shape, rel=0.02)
    assert 0 < abs(found - interpolated) <= 0.0005
    widths = [(deviation / natural_scenes.width(found)).item() ** -1 for deviation in deviations]
    assert [1 / w * natural_scenes.width(found).item() ** 2 for w in widths] == pytest.approx([left, right], rel=0.02)
    assert natural_scenes.mean(found, *deviations).item() == pytest.approx(values.mean().item(), abs=0.01)


def test_flat_areas_are_exactly_zero():
    image = torch.full((1, 1, 20, 20), 0.3, dtype=torch.float64)
    image[..., 15:] = 0.9
    values = natural_scenes.normalised(image, 1 / 255, "replicate")
    assert (values[..., :12] == 0).all() and (values[..., 12:18] != 0).any()


# BRISQUE

# By the package brisque 0.2.0, BRISQUE().score(image), run beside this project. The package counts flat areas, and the
# rounding errors in them, as positive values; the authors' C++ and we count them on neither side.
PACKAGE = [(COFFEE, -1.736090648973942), (COFFEE[:-1, :-3], -1.8721641442407702), (CHELSEA, 7.898328484537473)]


@pytest.mark.parametrize(("image", "expected"), PACKAGE)
def test_brisque_equals_the_package(image, expected):
    metric = metrics.load("brisque")
    assert score(metric, tensor(image)) == pytest.approx(expected, abs=1e-3)
    assert not metric.higher_is_better and f"brisque {version('brisque')} (Apache-2.0)" in metric.convention.settings


def test_the_regression_equals_libsvm_s():
    regression, _ = brisque.trained()
    model = svmutil.svm_load_model(str(locate(brisque.REGRESSION)))
    features = np.random.default_rng(0).uniform(-1, 1, (5, 36))
    expected, _, _ = svmutil.svm_predict([0] * 5, features.tolist(), model, "-q")
    assert regression(torch.from_numpy(features)).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_ranges_are_the_package_s():
    """Read from its pickle without running it."""
    pickle = (locate(brisque.REGRESSION).parent / "normalize.pickle").read_bytes()
    numbers = [argument for opcode, argument, _ in pickletools.genops(pickle) if opcode.name == "BINFLOAT"]
    assert numbers == [*brisque.LEAST, *brisque.GREATEST]


@pytest.mark.parametrize("size", [(16, 20), (17, 21), (18, 23)])
def test_halving_is_opencv_s(size):
    image = np.random.default_rng(0).random(size)
    expected = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    assert np.allclose(brisque._halved(torch.from_numpy(image)[None, None])[0, 0].numpy(), expected, atol=1e-12)


def test_brisque_says_what_is_missing(monkeypatch):
    with pytest.raises(UserError, match="brisque: 15x40 images are smaller than 16x16"):
        score(metrics.load("brisque"), torch.rand(1, 3, 40, 15))
    brisque.trained.cache_clear()
    monkeypatch.setattr(brisque, "REGRESSION", replace(brisque.REGRESSION, package="no_such_package"))
    with pytest.raises(UserError, match="svm.txt is not installed: pip install brisque"):
        metrics.load("brisque")


# DISTS


@pytest.fixture
def vgg(offline, monkeypatch):
    """VGG-16 of random weights for the authors' implementations too."""
    state = torch.load(offline / dists.VGG.file, weights_only=True)

    def vgg16(**_):
        features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
        features.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
        return torch.nn.ModuleDict({"features": features})

    monkeypatch.setattr(torchvision.models, "vgg16", vgg16)


def test_dists_equals_the_authors(offline, pair, request):
    ours = metrics.load("dists")
    value = score(ours, *pair)
    request.getfixturevalue("vgg")  # only now: ours builds its own
    from DISTS_pytorch import DISTS

    module = DISTS(load_weights=False)
    alpha, beta = (weights.view(1, -1, 1, 1) for weights in dists.trained())
    module.alpha.data, module.beta.data = alpha, beta
    assert value == pytest.approx(module(*pair).item(), abs=1e-5)
    assert 0.01 < value < 1
    assert score(ours.fresh(), pair[1], pair[1]) == pytest.approx(0, abs=1e-6)
    assert "DISTS_pytorch 0.1 (MIT)" in ours.convention.settings


def test_dists_says_what_is_missing(offline, monkeypatch):
    with pytest.raises(UserError, match="not weights of VGG-16"):
        metrics.load("dists", weights=str(offline / "alexnet-owt-7be5be79.pth"))
    monkeypatch.setattr(dists, "TRAINED", replace(dists.TRAINED, package="no_such_package"))
    with pytest.raises(UserError, match="weights.pt is not installed: pip install DISTS_pytorch"):
        dists.trained()


# pyiqa


@pytest.fixture(scope="module")
def folder(random_weights, parameters, tmp_path_factory):
    """Random weights under the names that pyiqa downloads, and NIQE's parameters."""
    folder = tmp_path_factory.mktemp("published")
    (folder / parameters.name).symlink_to(parameters)
    torch.save({"params": randomised(CNNIQA(pretrained=None))}, folder / "CNNIQA_koniq10k-e6f14c91.pth")
    layers = Path(find_spec("lpips").origin).parent / "weights" / "v0.1" / "alex.pth"
    (folder / "LPIPS_v0.1_alex-df73285e.pth").symlink_to(layers)
    backbone = torch.load(random_weights / "alexnet-owt-7be5be79.pth", weights_only=True)
    for layer, shape in {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}.items():  # which torchvision wants too
        backbone[f"classifier.{layer}.weight"] = torch.zeros(1).expand(shape)
        backbone[f"classifier.{layer}.bias"] = torch.zeros(1).expand(shape[:1])
    torch.save(backbone, folder / "alexnet-owt-7be5be79.pth")
    return folder


@pytest.fixture
def published(folder, monkeypatch):
    monkeypatch.setenv("SR3EVAL_WEIGHTS", str(folder))
    return folder


CALLS = [
    ("psnr", {}),
    ("psnry", {"crop_border": 4}),
    ("psnr", {"test_y_channel": True, "color_space": "ycbcr"}),
    ("ssim", {}),
    ("ssimc", {"crop_border": 3}),
    ("ms_ssim", {"color_space": "ycbcr"}),
    ("gmsd", {}),
    ("entropy", {}),
    ("piqe", {}),
]


@pytest.mark.parametrize(("name", "options"), CALLS)
def test_a_named_call_is_pyiqa_s(name, options):
    hr = tensor(ASTRONAUT[100:276, 100:280])
    sr = (hr + 0.05 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    peer = pyiqa.create_metric(name, **options)
    ours = metrics.load("pyiqa", metric=name, **options)
    inputs = (sr, hr) if peer.metric_mode == "FR" else (sr,)
    assert score(ours, *inputs) == pytest.approx(peer(*inputs).item(), abs=1e-4)
    assert ours.convention.needs_hr == (peer.metric_mode == "FR")
    assert ours.higher_is_better != peer.lower_better


@pytest.mark.parametrize("by_path", [False, True])
def test_no_reference_networks_take_their_weights_by_name_and_by_path(published, by_path, pair):
    file = published / "CNNIQA_koniq10k-e6f14c91.pth"
    ours = metrics.load("pyiqa", metric="cnniqa", **({"weights": str(file)} if by_path else {}))
    expected = CNNIQA(pretrained=None).eval()
    expected.load_state_dict(torch.load(file, weights_only=True)["params"])
    with torch.no_grad():
        assert score(ours, pair[0]) == pytest.approx(expected(pair[0]).item(), abs=1e-4)
    assert ("weights sha256 " in ours.convention.settings) == by_path


@pytest.mark.parametrize("by_path", [False, True])
def test_full_reference_networks_too_and_their_backbone_s(published, by_path, pair):
    """Our lpips is of another package, with the same weights of the layers and of the backbone."""
    file = published / "LPIPS_v0.1_alex-df73285e.pth"
    ours = metrics.load("pyiqa", metric="lpips", **({"weights": str(file)} if by_path else {}))
    assert score(ours, *pair) == pytest.approx(score(metrics.load("lpips"), *pair), abs=1e-4)


def test_a_network_is_read_once(published, monkeypatch):
    """However many metrics of a run, or parts of one, have it: one in memory; others by other options and files."""
    made = []
    monkeypatch.setattr(pyiqa, "create_metric", lambda name, **options: made.append(name) or (lambda *_: 0.5))
    pyiqa_metric._network.cache_clear()
    for options in ({}, {}, {"crop_border": 4}, {"crop_border": 4}):
        metrics.load("pyiqa", metric="niqe", **options)
    assert len(made) == 2
    monkeypatch.setenv("SR3EVAL_WEIGHTS", str(published.parent))
    metrics.load("pyiqa", metric="niqe")
    assert len(made) == 3
    pyiqa_metric._network.cache_clear()


def test_niqe_of_pyiqa_finds_its_parameters(published):
    image = tensor(COFFEE)
    theirs = metrics.load("pyiqa", metric="niqe", color_space="ycbcr", crop_border=4)
    peer = pyiqa.create_metric(
        "niqe", color_space="ycbcr", crop_border=4, pretrained_model_path=str(published / "niqe_modelparameters.mat")
    )
    assert score(theirs, image) == pytest.approx(peer(image).item(), abs=1e-4)
    assert theirs.name == "pyiqa_niqe_color_space_ycbcr_crop_border_4"
    assert theirs.convention.label == "NIQE (pyiqa, color_space ycbcr, crop_border 4)"


def test_conventions_are_those_of_pyiqa_s_registry():
    convention = metrics.load("pyiqa", metric="psnry").convention
    assert (convention.name, convention.label, convention.unit) == ("pyiqa_psnry", "PSNRY", "dB")
    assert convention.version == f"pyiqa {version('pyiqa')}"
    for fact in (
        "PolyForm-Noncommercial",
        "test_y_channel True",
        "color_space yiq",
        "crop_border 0",
        "range ~0 to ~60",
    ):
        assert fact in convention.settings
    assert (convention.needs_hr, convention.higher_is_better, convention.decimals) == (True, True, 2)
    piqe = metrics.load("pyiqa", metric="piqe").convention
    assert (piqe.needs_hr, piqe.higher_is_better) == (False, False) and "RGB" in piqe.settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'missing key "pyiqa.metric"'),
        ({"metric": "musik"}, 'unknown metric "musik": did you mean "musiq"'),
        ({"metric": "fid"}, 'fid scores whole sets of images: use the metric "fid"'),
        ({"metric": "sfid"}, 'use the metric "fid"'),
        ({"metric": "inception_score"}, 'use the metric "inception_score"'),
        ({"metric": "ssim", "crop_bordr": 4}, 'unknown key "pyiqa ssim.crop_bordr": did you mean "crop_border"'),
        ({"metric": "lpips", "tset": 4}, "unknown key"),
        ({"metric": "ssim", "crop_border": "4"}, "'4' is not of the type of its default 0"),
        ({"metric": "ssim", "crop_border": True}, "True is not of the type"),
        ({"metric": "ssim", "test_y_channel": 1}, "1 is not of the type of its default True"),
        ({"metric": "ssim", "weights": "x.pth"}, "ssim takes no file of weights"),
        ({"metric": "musiq", "weights": "no/such.pth"}, "no/such.pth: no such file"),
        ({"metric": "musiq", "weights": __file__}, "musiq cannot be built"),
    ],
)
def test_what_pyiqa_cannot_do_is_said_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        metrics.load("pyiqa", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cnniqa", "lpips", "niqe"])
def test_a_failed_download_names_the_file(name, tmp_path, monkeypatch):
    def no_network(url, *_, **__):
        raise OSError("no network")

    monkeypatch.setenv("SR3EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(pyiqa.utils.download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    with pytest.raises(UserError, match=r"needs http\S+, which cannot be downloaded \(no network\): fetch it"):
        metrics.load("pyiqa", metric=name)


def test_downloads_are_pyiqa_s_again_afterwards(published):
    before = pyiqa.utils.download_util.load_file_from_url, torchvision.models._api.load_state_dict_from_url
    metrics.load("pyiqa", metric="lpips")
    assert before == (pyiqa.utils.download_util.load_file_from_url, torchvision.models._api.load_state_dict_from_url)


def test_random_crops_are_the_same_for_every_image_and_leave_the_user_s_numbers(monkeypatch, pair):
    def network(*inputs):
        return torch.rand(1) + np.random.random()

    metric = metrics.load("pyiqa", metric="piqe")
    monkeypatch.setattr("sr3eval.metrics.pyiqa._network", lambda *_: network)
    metric = metrics.load("pyiqa", metric="piqe")
    torch.manual_seed(5)
    np.random.seed(5)
    metric.update(Batch(["a", "b"], pair[0].expand(2, -1, -1, -1)))
    after = torch.rand(1).item(), np.random.random()
    torch.manual_seed(5)
    np.random.seed(5)
    assert after == (torch.rand(1).item(), np.random.random())
    assert len(set(metric.compute().per_image.values())) == 1


def test_an_image_that_a_metric_cannot_take_is_named():
    metric = metrics.load("pyiqa", metric="ms_ssim")
    with pytest.raises(UserError, match="tiny: pyiqa_ms_ssim cannot score this 20x16 image"):
        metric.update(Batch(["tiny"], torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 20)))


def test_without_pyiqa_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa.default_model_configs", None)
    with pytest.raises(UserError, match=r'^pyiqa cannot be used .*: pip install "sr3eval\[pyiqa\]"'):
        metrics.load("pyiqa", metric="musiq")


def test_without_a_requirement_of_one_metric_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa.archs.musiq_arch", None)
    with pytest.raises(UserError, match=r"^pyiqa cannot be used .*musiq_arch"):
        metrics.load("pyiqa", metric="musiq")
