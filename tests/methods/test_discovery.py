"""A method is a file: of this project's packages, or of one that joins by an entry point."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import sr3eval
from benchmark import main
from sr3eval import cli, methods, metrics
from sr3eval.benchmark.config import MethodConfig
from sr3eval.benchmark.plan import build
from sr3eval.images import load, save

BLOCKS = '''
"""Every pixel as a block of its colour.

What follows is not in the list.
"""

from sr3eval.method import Method, Upscaled


class Blocks(Method):
    name = "blocks"

    def __init__(self, scale: int, gain: float) -> None:
        self.scale, self.gain, self.fingerprint = scale, gain, f"blocks {gain}"

    def upscale(self, lr, seeds, progress=None):
        return Upscaled(self.gain * lr.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2))


def build(*, scale: int, gain: float = 1.0) -> Blocks:
    return Blocks(scale, gain)
'''

DARKNESS = '''
"""How far below a level images are."""

from sr3eval.metrics import Convention, PerImage


def build(*, level: float = 0.0) -> PerImage:
    about = Convention("darkness", "Darkness", False, f"mean minus {level}")
    return PerImage(about, lambda batch: batch.sr.mean(dim=(1, 2, 3)) - level)
'''

GREETINGS = """
import click

@click.command()
def greet():
    click.echo("hello")
"""


@pytest.fixture
def joined(tmp_path, monkeypatch):
    """Somebody's installed distribution, with a package of two methods, one of which lacks what it imports."""
    package, metadata = tmp_path / "their_methods", tmp_path / "theirs-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").touch()
    (package / "blocks.py").write_text(BLOCKS)
    (package / "broken.py").write_text("import a_missing_package\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (tmp_path / "their_metrics").mkdir()
    (tmp_path / "their_metrics" / "__init__.py").touch()
    (tmp_path / "their_metrics" / "darkness.py").write_text(DARKNESS)
    (tmp_path / "their_greetings.py").write_text(GREETINGS)
    joins = {"methods": "their_methods", "metrics": "their_metrics", "commands": "their_greetings:greet"}
    text = "\n".join(f"[sr3eval.{group}]\ntheirs = {value}" for group, value in joins.items())
    (metadata / "entry_points.txt").write_text(f"{text}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("their_")]:
        sys.modules.pop(name)


def contracts():
    """tests/contracts/test_methods.py as a module."""
    path = Path(__file__).parents[1] / "contracts" / "test_methods.py"
    spec = importlib.util.spec_from_file_location("contracts_of_methods", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_an_entry_point_brings_methods_into_the_list(joined):
    listed = CliRunner().invoke(main, ["list", "methods"])
    assert listed.exit_code == 0, listed.output
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed.output.splitlines()}
    assert said["blocks"] == "Every pixel as a block of its colour"
    assert "a_missing_package" in said["broken"]
    assert {"bicubic", "sr3", "esrgan"} <= said.keys()


def test_an_entry_point_brings_a_metric_and_a_command(joined):
    metric = metrics.load("darkness", level=0.25)
    image = torch.full((2, 3, 8, 8), 0.5)
    metric.update(metrics.Batch(["a", "b"], image, image))
    assert metric.compute().value == 0.25 and "darkness" in metrics.available()
    asked, called = (CliRunner().invoke(cli.main, arguments) for arguments in (["--help"], ["theirs"]))
    assert "theirs " in asked.output and called.output == "hello\n", called.output


def test_without_the_entry_point_there_is_no_such_method():
    with pytest.raises(sr3eval.UserError, match='unknown kind "blocks"'):
        methods.builder("blocks")


def test_a_method_of_an_entry_point_keeps_the_contract(joined, monkeypatch):
    found = contracts()
    assert {"blocks", "broken"} <= set(found.KINDS)
    lr = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found.test_contract(lambda kind: build(MethodConfig(kind, kind, {}), found.TASK), "blocks", lr)


def test_a_method_of_an_entry_point_runs(joined, tmp_path):
    """Images of 4x4 blocks come out as they were, times the gain."""
    random = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        blocks = torch.randint(0, 128, (3, 16, 16), generator=random, dtype=torch.uint8)
        save(tmp_path / "images" / f"{name}.png", blocks.repeat_interleave(4, -1).repeat_interleave(4, -2))
    config = {
        "task": {"scale": 4, "degradation": [{"kind": "resize", "kernel": "area"}]},
        "metrics": ["psnr"],
        "data": {"images": str(tmp_path / "images")},
        "method": [{"kind": "blocks", "gain": 2.0}],
    }
    sr3eval.run(config, tmp_path / "run")
    for name in ("a", "b"):
        sr = load(tmp_path / "run" / "images" / "blocks" / f"{name}.png")
        assert torch.equal(sr, load(tmp_path / "images" / f"{name}.png") * 2)
