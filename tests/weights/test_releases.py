"""What methods and metrics declare of their files of weights, and `benchmark.py weights` from the outside."""

import hashlib
import os
import pickle
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from benchmark import main
from sr3eval import methods
from sr3eval.errors import UserError
from sr3eval.weights import FOLDER, Release, declared, identify, locate, looks_like, read, table


def command(*arguments):
    return CliRunner().invoke(main, ["weights", *map(str, arguments)])


def test_every_release_says_where_and_under_which_licence():
    found = declared()
    releases = found.releases
    assert not found.broken
    assert len({(release.file, release.source) for release in releases}) == len(releases)
    for release in releases:
        assert release.method and release.file and release.source and release.licence
        assert not release.sha256 or (len(release.sha256) in (8, 64) and int(release.sha256, 16))


def test_the_list_names_what_is_here(tmp_path):
    (tmp_path / "RRDB_ESRGAN_x4.pth").write_bytes(b"-")
    environment = {FOLDER: str(tmp_path), "TORCH_HOME": str(tmp_path / "torch")}
    result = CliRunner(env=environment).invoke(main, ["weights"])
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) > 45
    assert next(line for line in lines if " RRDB_ESRGAN_x4.pth" in line).endswith(f"{tmp_path}/RRDB_ESRGAN_x4.pth")
    assert next(line for line in lines if " RRDB_PSNR_x4.pth" in line).endswith("  no")
    downloaded = ("weights-inception-2015-12-05-6726825d.pth", "resnet50-0676ba61.pth", "vgg16-397923af.pth")
    for name in (*downloaded, "musiq_koniq_ckpt-e95806b9.pth"):
        assert f" {name} " in result.stdout
    packaged = ("DISTS_pytorch/weights.pt", "brisque/models/svm.txt", "sr3eval/assets/niqe/natural_scenes.npz")
    for place in packaged:
        assert f"/{place}\n" in result.stdout
    remarks = result.stdout.partition("\n\n")[2]
    for words in ("not evidence of anyone's identity", "PULSE turns many faces", "SR3 gives nearly the same output"):
        assert words in remarks
    assert list(tmp_path.iterdir()) == [tmp_path / "RRDB_ESRGAN_x4.pth"]  # nothing was downloaded


def test_files_are_identified(tmp_path):
    torch.save({"RRDB_trunk.0.RDB1.conv1.weight": torch.zeros(1)}, tmp_path / "esrgan.pth")
    torch.save({"mean": torch.zeros(1)}, tmp_path / "any.pth")
    (tmp_path / "text.txt").write_text("hello")
    result = command(*(tmp_path / name for name in ("esrgan.pth", "any.pth", "text.txt")))
    assert result.exit_code == 0, result.stderr
    esrgan, other, text = (result.stdout.splitlines()[start : start + 4] for start in (0, 4, 8))
    content = (tmp_path / "esrgan.pth").read_bytes()
    assert f"{len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}" in esrgan[1]
    assert esrgan[2:] == ["  looks like: esrgan", "  release: unknown"]
    assert other[2] == "  looks like: no method that is known here (1 tensors, first mean)"
    assert text[2].startswith("  looks like: not a PyTorch checkpoint, or truncated")


def test_an_unreadable_file_is_one_line(tmp_path):
    result = command(tmp_path / "none.pth")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}/none.pth: weights cannot be read (No such file or directory)\n"


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_kinds_of_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes.fromhex("476b3001") + bytes(100))
    assert "looks like: a weight file of ncnn" in identify(path)
    path.write_bytes(safetensors.torch.save({"flowUpsamplerNet.x": torch.zeros(1)}))
    assert "looks like: srflow\n" in identify(path)
    path.write_bytes(pickle.dumps(os.getcwd, protocol=2))
    assert "looks like: holds pickled code, which is not run" in identify(path)
    torch.save({"mean": torch.zeros(512), "std": torch.ones(512)}, path)
    assert "looks like: PULSE's gaussian_fit.pt\n" in identify(path)
    for content in ({0: torch.zeros(1)}, {"conv_first.weight": torch.eye(2).to_sparse_coo()}, [torch.zeros(1)]):
        torch.save(content, path)
        assert "looks like: holds no state dict" in identify(path)
    for nothing in (b"", b"released", b"# A page of text\n", b"\x80\x02", bytes(1000)):
        path.write_bytes(nothing)
        assert "looks like: not a PyTorch checkpoint" in identify(path)


def test_a_release_is_known_by_its_sha256():
    sha256 = hashlib.sha256(b"released").hexdigest()
    assert Release("M", "file.pth", "a.place", "CC0", size=8, sha256=sha256[:8]).matches(8, sha256)
    assert Release("M", "file.pth", "a.place", "CC0", sha256=sha256).matches(8, sha256)
    for other in (Release("M", "renamed.bin", "a.place", "CC0"), Release("M", "f", "p", "CC0", 9, sha256)):
        assert not other.matches(8, sha256)


def test_files_of_packages_are_found(tmp_path, monkeypatch):
    models = tmp_path / "some_weights" / "models"
    models.mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").touch()
    (models / "net.bin").touch()
    monkeypatch.syspath_prepend(tmp_path)
    release = Release("M", "net.bin", "pip install some-weights", "MIT", package="some_weights/models")
    assert release.found() == locate(release) == models / "net.bin"
    missing = Release("M", "net.bin", "pip install x", "MIT", package="no_such_package")
    assert missing.found() is None
    with pytest.raises(UserError, match=r"^net.bin is not installed: pip install x$"):
        locate(missing)
    monkeypatch.setenv(FOLDER, str(models))
    assert missing.found() == models / "net.bin"
    with pytest.raises(UserError, match=rf"^other.bin is missing: fetch it \(a.place\) .* {FOLDER} names$"):
        locate(Release("M", "other.bin", "a.place", "MIT"))


NEW = """
from sr3eval.weights import Format, Release
RELEASES = (Release("NewSR", "newsr.pth", "github.com/new/sr", "CC0", sha256="{sha256}"),)
KEYS = {{"newsr": r"new_trunk\\."}}
FORMATS = (Format("a file of NewNet", starts=(b"NEWNET",)),)
REMARKS = ("NewSR invents hats.",)
def build(): ...
"""


@pytest.fixture
def joined(tmp_path, monkeypatch):
    """A package of methods that joins in, with a baseline that reads "newsr.pth", and one that cannot be imported."""
    folder = tmp_path / "joined_methods"
    folder.mkdir()
    torch.save({"new_trunk.0.weight": torch.zeros(1)}, tmp_path / "newsr.pth")
    sha256 = hashlib.sha256((tmp_path / "newsr.pth").read_bytes()).hexdigest()
    (folder / "__init__.py").touch()
    (folder / "newsr.py").write_text(NEW.format(sha256=sha256))
    (folder / "broken.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    points = [SimpleNamespace(value="joined_methods"), SimpleNamespace(value="baselines")]
    monkeypatch.setattr(methods, "entry_points", lambda group: points)
    return tmp_path


def test_a_new_baseline_is_one_file(joined, monkeypatch):
    """Its releases, keys, formats and remarks are known by being in it; its neighbour's mistake breaks nothing."""
    monkeypatch.setenv(FOLDER, str(joined))
    listed = table()
    line = next(line for line in listed.splitlines() if line.startswith("NewSR "))
    assert "CC0" in line and line.endswith(f"{joined}/newsr.pth")
    assert "\nNewSR invents hats.\n" in listed
    assert "\njoined_methods.broken cannot be loaded: No module named 'no_such_package'" in listed
    assert " RRDB_ESRGAN_x4.pth " in listed and " vgg16-397923af.pth " in listed
    told = identify(joined / "newsr.pth")
    assert "  looks like: newsr\n  release: NewSR, newsr.pth (github.com/new/sr), licence: CC0" in told
    (joined / "file").write_bytes(b"NEWNET 1.0")
    assert "looks like: a file of NewNet\n" in identify(joined / "file")


def test_its_file_is_named_where_another_method_gets_it(joined):
    with pytest.raises(UserError, match=r"newsr.pth: not weights of esrgan \(.*\); it looks like newsr; sha256"):
        methods.load("esrgan", weights=str(joined / "newsr.pth"))


def test_no_key_looks_like_two_methods():
    samples = {
        "esrgan": ("model.1.sub.0.RDB1.conv1.0.weight", "RRDB_trunk.0.RDB1.conv1.weight", "body.0.rdb1.conv1.weight"),
        "realesrgan": ("body.1.weight",),
        "RCAN (kind spandrel)": ("body.0.body.0.body.3.conv_du.0.weight", "body.0.residual_group.0.weight"),
        "srflow": ("flowUpsamplerNet.layers.1.actnorm.bias",),
        "sr3_janspiry": ("denoise_fn.downs.0.weight",),
        "PULSE's gaussian_fit.pt": ("std",),
        "PULSE's StyleGAN (synthesis.pt)": ("blocks.4x4.const",),
        "PULSE's StyleGAN (mapping.pt)": ("dense7.weight",),
        "FSRNet (cs-giung's port), kind fsrgan": ("csr_net.conv1.0.weight",),
        "FSRNet (cydiachen's port), kind fsrgan": ("coarse_SR_Encoder.1.weight",),
        "openai's generator": ("label_emb.weight",),
    }
    patterns = declared().keys
    assert samples.keys() == patterns.keys()
    for name, keys in samples.items():
        for key in keys:
            assert [other for other in patterns if looks_like([key], {other: patterns[other]})] == [name]


def test_tensors_come_from_safetensors_too(tmp_path):
    """As from PyTorch's files, by content or by name."""
    state = {"module.a": torch.arange(3.0)}
    safetensors.torch.save_file(state, tmp_path / "file")
    saved = read(tmp_path / "file", "M")
    assert saved.weights.keys() == {"a"} and saved.weights["a"].tolist() == [0, 1, 2]
    assert saved.sha256 == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "file").read_bytes()[:-1])
    with pytest.raises(UserError, match="cut.safetensors: not a safetensors file, or truncated .*; sha256"):
        read(tmp_path / "cut.safetensors", "M")
