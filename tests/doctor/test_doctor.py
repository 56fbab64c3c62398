"""`sr3eval doctor`: what is missing is told with its remedy, and nothing else is called missing."""

import re
import sqlite3
import sys
from importlib import metadata

import pytest
import tomli_w
import torch
from click.testing import CliRunner

from sr3eval import cli, doctor, files
from sr3eval.doctor import machine
from sr3eval.images import save
from sr3eval.weights import FOLDER, Release, locate, no_downloads

SR3 = "sr3eval:assets/sr3_photos_16_64.safetensors"
GENERATOR = "sr3eval:assets/generator_photos_16.safetensors"
pytestmark = pytest.mark.usefixtures("forgotten_networks")


@pytest.fixture
def photos(tmp_path):
    for index in range(6):
        save(tmp_path / f"photos/{index}.png", torch.rand(3, 64, 64))
    save(tmp_path / "photos/small.png", torch.rand(3, 8, 8))
    return str(tmp_path / "photos")


@pytest.fixture
def configs(photos):
    """A complete config of each kind."""
    unet = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "image_size": 64}
    optimiser = {"steps": 8, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 3}
    return {
        "training": {
            "task": "photos_16_64",
            "model": "sr3",
            "data": {"images": photos, "validation": photos},
            "unet": unet,
            "optimiser": optimiser,
        },
        "search": {
            "checkpoint": SR3,
            "budgets": [2],
            "data": {"images": photos, "number": 2, "coarse": 2},
        },
        "cascade": {"generator": {"checkpoint": GENERATOR}, "stage": [{"checkpoint": SR3}], "images": 10},
        "run": {
            "task": "photos_16_64",
            "metrics": ["psnr"],
            "data": {"images": photos},
            "method": [{"kind": "bicubic"}, {"kind": "sr3", "checkpoint": SR3}],
        },
    }


def found(config, out):
    return {finding.topic: finding for finding in doctor.of_config(config, out)}


def missing(config, out):
    return [f"{f.topic}: {f.text}" for f in doctor.of_config(config, out) if f.state == "missing"]


@pytest.mark.parametrize("kind", ["training", "cascade", "run"])
def test_a_complete_config_misses_nothing(kind, configs, tmp_path):
    assert missing(configs[kind], tmp_path / "out") == []


def test_images_are_counted(configs, tmp_path):
    training = found(configs["training"], tmp_path / "out")["images"].text
    assert training.endswith("photos: 6 images to train on, 6 to validate on; 2 too small and left out")
    assert found(configs["run"], tmp_path / "out")["images"].text.endswith("6 images; 1 too small and left out")


def changed(config, keys, value):
    first, *rest = keys
    if not rest:
        return config | {first: value}
    return config | {first: changed(config[first], rest, value)}


@pytest.mark.parametrize(
    ("kind", "keys", "value", "told"),
    [
        ("training", ("data", "images"), "absent", "images: absent: no such folder; put the images there, or change"),
        ("training", ("optimiser", "steps"), 0, "config: optimiser: steps and batch_size must be positive"),
        ("training", ("start",), "absent.safetensors", "start: absent.safetensors: cannot be read"),
        ("training", ("optimiser", "cuda_graph"), True, "device: optimiser.cuda_graph: this machine has no GPU; --set"),
        ("search", ("checkpoint",), "absent.safetensors", "checkpoint: absent.safetensors: cannot be read"),
        ("search", ("budgets",), [0], "config: budgets: [0] must be different numbers of steps"),
        ("cascade", ("generator",), {"checkpoint": SR3}, "generator: "),
        ("cascade", ("stage",), [{"checkpoint": "absent"}], "stage 1: absent: cannot be read"),
        ("cascade", ("images",), 0, "config: images: 0 is below 1"),
        ("run", ("data", "images"), "absent", "images: absent: no such folder; put the images there"),
        ("run", ("method",), [{"kind": "sr3", "checkpoint": "absent"}], "method: absent: cannot be read"),
        ("run", ("metrics",), ["psnrr"], 'config: unknown metric "psnrr": did you mean "psnr"?'),
        ("run", ("metrics",), ["top1_error"], "metric: resnet50-0676ba61.pth is not on this machine"),
    ],
)
def test_what_is_missing_is_told(kind, keys, value, told, configs, tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    config = changed(configs[kind], keys, value)
    lines = missing(config, tmp_path / "out")
    assert len(lines) == 1, lines
    assert lines[0].startswith(told), lines
    assert "\n" not in lines[0]


def test_everything_that_is_missing_is_told_at_once(configs, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    config = configs["run"] | {
        "data": {"images": "absent"},
        "method": [{"kind": "sr3", "checkpoint": "gone"}, {"kind": "srflow", "weights": "lost.pth"}],
        "metrics": ["psnr", "lpips"],
    }
    lines = missing(config, tmp_path / "out")
    assert [line.partition(":")[0] for line in lines] == ["images", "method", "method", "metric"]
    assert "alexnet-owt-7be5be79.pth is not on this machine: it is downloaded on first use; or fetch http" in lines[-1]


def test_nothing_is_downloaded_inside(monkeypatch):
    release = Release("theirs", "theirs.pth", "here", "MIT", url="https://example.org/theirs.pth")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
    with no_downloads(), pytest.raises(Exception, match=r"theirs.pth is not on this machine"):
        locate(release)


def test_memory_and_disk_that_do_not_suffice(configs, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_disk", lambda path: 1000)
    out = tmp_path / "out"
    assert "1 kB are free; make room" in found(configs["training"], out)["disk"].text
    out.mkdir()
    (out / "state.safetensors").write_bytes(bytes(10**8))  # which the resumed training replaces
    assert found(configs["training"], out)["disk"].state == "ok"
    large = configs["training"] | {"optimiser": configs["training"]["optimiser"] | {"batch_size": 10**6}}
    assert "raise optimiser.accumulate" in found(large, tmp_path)["memory"].text


def test_folders_are_tried(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert machine.folder("out", tmp_path / "file").state == "missing"
    assert machine.folder("out", tmp_path / "new/folder").state == "ok"
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    assert f"{tmp_path}: cannot be written to" in machine.folder("out", tmp_path / "new").text


def test_the_study_s_database(tmp_path, monkeypatch):
    path = tmp_path / "study.sqlite"
    monkeypatch.delenv(machine.DATABASE, raising=False)
    assert machine.database().state == "note"
    monkeypatch.setenv(machine.DATABASE, f"sqlite:///{path}")
    assert "does not exist yet" in machine.database().text
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (n)")
    connection.close()
    assert machine.database().text == f"{path}, 1 table"
    path.write_bytes(b"no database at all" * 100)
    assert "file is not a database; set STUDY_DATABASE_URL" in machine.database().text
    monkeypatch.setenv(machine.DATABASE, "postgresql+psycopg://me:secret@localhost:1/study")
    assert machine.database().state == "note"
    asked = machine.database(network=True)
    assert asked.state == "missing" and "does not answer" in asked.text and "secret" not in asked.text
    monkeypatch.setenv(machine.DATABASE, "what://secret")
    assert machine.database().state == "missing" and "secret" not in machine.database().text


def test_packages_that_are_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    lines = {finding.topic: finding for finding in doctor.of_machine()}
    assert lines["PyTorch"].text == "torch is not installed: pip install 'sr3eval[eval]'"
    assert lines["PyTorch"].state == "missing"
    assert lines["database"].text.endswith("pip install 'sr3eval[study]'")
    monkeypatch.setattr(machine, "_version", lambda name: None if name in ("timm", "lpips") else "1.0")
    extras = {finding.topic: finding.text for finding in machine.extras()}
    assert extras["extra eval"] == "without lpips, timm: pip install 'sr3eval[eval]'"
    everywhere = [text for text in metadata.requires("sr3eval") if re.search("; extra == .study.$", text)]
    assert extras["extra study"] == f"{len(everywhere)} packages"


def test_a_config_without_pytorch(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("sr3eval.doctor.")]:
        if name.rpartition(".")[2] in ("training", "search", "cascade", "benchmark"):
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(doctor, name.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "torch", None)
    (line,) = doctor.of_config({"optimiser": {}}, tmp_path)
    assert line.state == "missing" and line.text == "torch is not installed: pip install 'sr3eval[eval]'"


def test_the_command(configs, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(configs["run"]))
    arguments = ["doctor", str(path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith("ok       Python            ")
    assert not (tmp_path / "out").exists()
    failed = CliRunner().invoke(cli.main, [*arguments, "--set", "data.images=absent"])
    assert failed.exit_code == 1
    assert failed.stderr == "Error: 1 thing missing, see above\n"
    assert "missing  images            absent: no such folder; put" in failed.stdout
    path.write_text("a = 1")
    unknown = CliRunner().invoke(cli.main, arguments)
    assert unknown.exit_code == 1 and "not a config of this toolkit" in unknown.stderr
