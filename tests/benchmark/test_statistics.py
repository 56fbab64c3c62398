"""Statistics of folders: exact after an interruption, and usable as a reference."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmark import main
from sr3eval import files, metrics
from sr3eval.benchmark import statistics as stats
from sr3eval.errors import UserError
from sr3eval.features import networks
from sr3eval.features.moments import Moments
from sr3eval.images import load, save
from sr3eval.metrics import Batch


class Halves(torch.nn.Module):
    """A network whose eight features are means of blocks of the image."""

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, (2, 4)).mean(dim=1).flatten(1)


def network(identity="halves"):
    return networks.Network(identity, 8, Halves(), lambda x: x, lambda module, x: (module(x), module(x)))


@pytest.fixture
def images(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for index in range(23):
        save(tmp_path / "images" / f"{index:02d}.png", torch.rand(3, 64, 70, generator=generator))
    save(tmp_path / "images" / "small.png", torch.rand(3, 60, 90, generator=generator))
    return tmp_path / "images"


def write(images, out, stop_after=None, of=None):
    def tell(stage, done, total):
        if stop_after is not None and done >= stop_after:
            raise KeyboardInterrupt

    stopped = nullcontext() if stop_after is None else pytest.raises(KeyboardInterrupt)
    with stopped:
        stats.statistics(images, "photos_16_64", of or network(), out, 2, tell)


def test_are_those_of_the_prepared_images_and_go_on_exactly(images, tmp_path, monkeypatch):
    monkeypatch.setattr(stats, "SAVE_EVERY", 6)
    write(images, tmp_path / "whole.npz")
    write(images, tmp_path / "parts.npz", stop_after=15)
    assert not (tmp_path / "parts.npz").exists()
    with np.load(tmp_path / "parts.npz.partial") as state:
        assert state["done"] == 12
    write(images, tmp_path / "parts.npz")
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "parts.npz").read_bytes()
    assert not (tmp_path / "parts.npz.partial").exists()
    hr = torch.stack([load(path)[..., 3:67] for path in sorted(images.glob("??.png"))])
    features = network().pooled(hr).double().numpy()
    with np.load(tmp_path / "whole.npz") as file:
        np.testing.assert_allclose(file["mu"], features.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(file["sigma"], np.cov(features, rowvar=False), rtol=1e-5, atol=1e-12)
        assert file["n"] == 23


def test_nothing_is_overwritten_or_mixed(images, tmp_path, monkeypatch):
    monkeypatch.setattr(stats, "SAVE_EVERY", 6)
    write(images, tmp_path / "a.npz", stop_after=8)
    with pytest.raises(UserError, match="begun with other images or another network"):
        write(images, tmp_path / "a.npz", of=network("other"))
    save(images / "new.png", torch.rand(3, 64, 64))
    with pytest.raises(UserError, match="begun with other images or another network"):
        write(images, tmp_path / "a.npz")
    (tmp_path / "a.npz.partial").unlink()
    write(images, tmp_path / "a.npz")
    with pytest.raises(UserError, match="exists; give another name"):
        write(images, tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"name it \*\.npz"):
        write(images, tmp_path / "a.txt")


def test_serve_as_a_reference_for_their_own_network_alone(images, tmp_path, monkeypatch):
    write(images, tmp_path / "train.npz")
    fd = "fd_efficientnet_lite0"
    monkeypatch.setattr("sr3eval.metrics.fid.efficientnet_lite0", network)
    metric = metrics.load(fd, reference=str(tmp_path / "train.npz"))
    assert metric.name == f"{fd}_train"
    assert "images as photos_16_64, N = 23, file list sha256" in metric.convention.settings
    hr = torch.stack([load(path)[..., 3:67] for path in sorted(images.glob("??.png"))])
    ids = [f"{i:02d}" for i in range(23)]
    metric.update(Batch(ids, hr, hr))
    assert metric.compute().value == pytest.approx(0, abs=1e-9)
    twin = metrics.load(fd)
    twin.update(Batch(ids, hr.flip(-1), hr))
    features = [network().pooled(x).double() for x in (hr, hr.flip(-1))]
    moments = [Moments(), Moments()]
    for m, f in zip(moments, features, strict=True):
        m.add(ids, f)
    from sr3eval.metrics.fid import frechet_distance

    expected = frechet_distance(*moments[0].statistics(), *moments[1].statistics())
    assert twin.compute().value == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr("sr3eval.metrics.fid.efficientnet_lite0", lambda: network("other"))
    with pytest.raises(UserError, match="statistics of another network: halves, not other"):
        metrics.load(fd, reference=str(tmp_path / "train.npz"))
    with pytest.raises(UserError, match=r"benchmark\.py statistics FOLDER"):
        metrics.load(fd, reference=str(images))


def test_a_second_writer_of_one_file_is_refused_and_leaves_the_first_alone(images, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    refused = []

    def second(stage, done, total):
        if done == 4:
            with pytest.raises(UserError, match=r"both\.npz: another process is working in it") as error:
                write(images, tmp_path / "both.npz")
            refused.append(error)

    stats.statistics(images, "photos_16_64", network(), tmp_path / "both.npz", 2, second)
    write(images, tmp_path / "alone.npz")
    assert len(refused) == 1 and (tmp_path / "both.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()


@pytest.mark.parametrize(
    ("options", "resize"),
    [(["--network", "efficientnet_lite0"], None), (["--resize", "clean", "--weights", "w.pth"], ("w.pth", "clean"))],
)
def test_the_command_takes_the_network_that_it_names(images, tmp_path, monkeypatch, options, resize):
    given = []
    monkeypatch.setattr(stats, "efficientnet_lite0", lambda: given.append(None) or network())
    monkeypatch.setattr(stats, "inception", lambda *how: given.append(how) or network())
    out = tmp_path / "command.npz"
    result = CliRunner().invoke(
        main, ["statistics", str(images), "--task", "photos_16_64", "--out", str(out), *options]
    )
    assert (result.exit_code, given) == (0, [resize]), result.output
    write(images, tmp_path / "called.npz")
    with np.load(out) as found, np.load(tmp_path / "called.npz") as wanted:
        np.testing.assert_allclose(found["mu"], wanted["mu"], rtol=1e-12)
