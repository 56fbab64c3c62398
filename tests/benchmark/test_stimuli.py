"""benchmark.py stimuli: the pack holds the scored pictures byte for byte, chosen by seed, or is not there."""

import hashlib
import json

import pytest
import torch
from click.testing import CliRunner

from benchmark import main
from sr3eval.benchmark import RunConfig
from sr3eval.benchmark import run as score
from sr3eval.benchmark.stimuli import stimuli
from sr3eval.errors import UserError
from sr3eval.images import save
from study_app.pack import Pack


@pytest.fixture(scope="module")
def run(finish_run, tmp_path_factory):
    """Twelve images and three methods, the reference among them."""
    methods = [{"kind": "bicubic"}, {"kind": "reference"}, {"kind": "bicubic", "name": "My Model"}]
    return finish_run(tmp_path_factory.mktemp("world"), [f"{'ab'[i % 2]}/{i}" for i in range(12)], methods)


def pack(run, out, methods=(), test=100, practice=2, catch=3, seed=0):
    stimuli(run, out, methods, test, practice, catch, seed)
    return json.loads((out / "manifest.json").read_text())


def test_the_scored_pictures_are_packed_byte_for_byte(run, tmp_path):
    line = ["stimuli", str(run), "--out", str(tmp_path / "pack"), "--practice", "2", "--catch", "3"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.stderr
    manifest = json.loads((tmp_path / "pack" / "manifest.json").read_text())
    assert list(manifest) == ["format", "task", "seed", "methods", "items", "noise"]
    assert manifest["methods"] == {"bicubic": "bicubic", "my-model": "My Model"}
    assert [item["kind"] for item in manifest["items"]] == ["practice"] * 2 + ["catch"] * 3 + ["test"] * 7
    for item in manifest["items"]:
        assert item["group"] == item["image_id"]  # as per_image.csv has it
        for name, source in {"hr": "_hr", "lr": "_lr", "bicubic": "bicubic", "my-model": "my-model"}.items():
            packed = (tmp_path / "pack" / name / f"{item['image_id']}.png").read_bytes()
            assert packed == (run / "images" / source / f"{item['image_id']}.png").read_bytes()
            assert item["sha256"][name] == hashlib.sha256(packed).hexdigest()
    assert len(list((tmp_path / "pack").rglob("*.png"))) == 12 * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack"]


def test_the_choice_depends_on_the_seed_alone(run, tmp_path):
    first, again = pack(run, tmp_path / "a"), pack(run, tmp_path / "b", methods=["My Model"])
    assert [i["image_id"] for i in first["items"]] == [i["image_id"] for i in again["items"]]
    assert list(again["methods"]) == ["my-model"]
    other = pack(run, tmp_path / "c", test=4, seed=1)
    assert len(other["items"]) == 9
    assert [i["image_id"] for i in other["items"]] != [i["image_id"] for i in first["items"]][:9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["bicubik"]}, 'method "bicubik": not in this run, which has bicubic, My Model'),
        ({"practice": 4, "catch": 8}, "12 images would leave none to test, after 4 for practice and 8 for catch"),
    ],
)
def test_bad_requests_write_nothing(run, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        pack(run, tmp_path / "pack", **options)
    assert list(tmp_path.iterdir()) == []


def test_runs_that_cannot_be_packed(run, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        pack(tmp_path / "none", tmp_path / "pack")
    with pytest.raises(UserError, match="already exists"):
        pack(run, run)
    broken = tmp_path / "broken"
    broken.mkdir()
    for source in run.rglob("*"):
        if source.is_file() and source.name != "3.png":
            target = broken / source.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    save(broken / "images" / "_hr" / "b" / "3.png", torch.rand(3, 64, 64))
    with pytest.raises(UserError, match=r"_lr/b/3\.png: is missing"):
        pack(broken, tmp_path / "pack")
    save(broken / "images" / "_lr" / "b" / "3.png", torch.rand(3, 16, 16))
    save(broken / "images" / "bicubic" / "b" / "3.png", torch.rand(3, 32, 32))
    with pytest.raises(UserError, match="b/3.png: is not 64x64 pixels"):
        pack(broken, tmp_path / "pack")
    (broken / "results.csv").unlink()
    with pytest.raises(UserError, match="finish this run first"):
        pack(broken, tmp_path / "pack")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_run_without_hr_gives_a_pack_without(run, tmp_path):
    config = {"task": {"scale": 2}, "data": {"lr_images": str(run / "images" / "_lr")}, "metrics": ["consistency"]}
    methods = [{"kind": "bicubic"}, {"kind": "bicubic", "kernel": "matlab", "name": "matlab"}]
    score(RunConfig.parse(config | {"method": methods}), tmp_path / "run", tmp_path / "cache")
    manifest = pack(tmp_path / "run", tmp_path / "pack")
    assert {tuple(item["sha256"]) for item in manifest["items"]} == {("lr", "bicubic", "matlab")}
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == ["bicubic", "lr", "manifest.json", "matlab"]


def test_samples_are_models_of_the_pack(finish_run, tmp_path):
    """Of the method that has them, those that are asked for, from their own folders; and a study finds them."""
    drawing = tmp_path / "draw.py"
    drawing.write_text(DRAWING)
    methods = [{"kind": "bicubic"}, {"python": f"{drawing}:Draws", "name": "Ours", "samples": 3}]
    run = finish_run(tmp_path, ["a", "b"], methods)
    line = ["stimuli", str(run), "--practice", "0", "--catch", "0", "--out", str(tmp_path / "pack"), "--samples"]
    result = CliRunner().invoke(main, [*line, "2"])
    assert result.exit_code == 0, result.stderr
    names = {"bicubic": "bicubic", "ours": "Ours", "ours@2": "Ours@2", "ours@mean": "Ours (mean of 3)"}
    assert json.loads((tmp_path / "pack" / "manifest.json").read_text())["methods"] == names
    first, second = ((tmp_path / "pack" / slug / "a.png").read_bytes() for slug in ("ours", "ours@2"))
    assert second == (run / "images" / "ours@2" / "a.png").read_bytes() != first
    assert Pack(tmp_path / "pack").slugs() == {name: slug for slug, name in names.items()}
    result = CliRunner().invoke(main, [*line, "4"])
    assert result.exit_code == 1 and "--samples 4: these methods have 3 samples at most" in result.stderr


DRAWING = """\
import torch
class Draws:
    name, scale, fingerprint, stochastic = "draws", 4, "draws", True
    def upscale(self, lr, seeds):
        return torch.stack([torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(s)) for s in seeds])
"""
