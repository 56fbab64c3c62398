"""The GPU job in small on the CPU, and the adoption of what it brings."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sr3eval.diffusion import checkpoint

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "profiling" / "gpu_job.py")
BROUGHT = {
    "summary.json",
    "summary.md",
    "sheet.png",
    "sr3.safetensors",
    "sr3.jsonl",
    "regression.safetensors",
    "regression.jsonl",
    "generator.safetensors",
    "generator.jsonl",
    "sr3.schedules.json",
    "search.html",
    "curve.svg",
    ".search",
}


GENERATOR_LOG = "generator_photos_16.jsonl"


def job(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def brought(tmp_path_factory):
    """The folder of a whole job in small."""
    out = tmp_path_factory.mktemp("job") / "out"
    done = job("--minutes", 0.5, "--device", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_stage_leaves_what_it_found(brought):
    files = list(brought.iterdir())
    assert {path.name for path in files} == BROUGHT
    assert all(path.stat().st_size <= 16e6 for path in files)
    found = json.loads((brought / "summary.json").read_text())
    assert set(found) == {"machine", "truth", "compile", "sr3", "regression", "generator", "quality", "search", "speed"}
    assert found["truth"]["exit_code"] == 0 and "tests collected" in found["truth"]["ended"]
    assert [row["method"] for row in found["quality"]["rows"]][:2] == ["bicubic", "regression"]
    assert found["quality"]["rows"][0]["psnr"] > 25
    assert {row["what"] for row in found["speed"]["rows"]} > {"Inception v3 features", "64 to 256, training step"}
    assert [row["steps"] for row in found["search"]["rows"]] == [1, 2]
    for model in ("sr3", "regression", "generator"):
        loaded = checkpoint.load(str(brought / f"{model}.safetensors"), "ddpm" if model == "generator" else model)
        assert loaded.step == found[model]["steps"] == found[model]["planned"]
        assert all(tensor.dtype == torch.float16 for tensor in loaded.weights.values())
        assert json.loads((brought / f"{model}.jsonl").read_text().splitlines()[-1])["step"] == loaded.step


def test_a_finished_stage_is_not_run_again(brought, tmp_path):
    cut_off = tmp_path / "cut_off"
    shutil.copytree(brought, cut_off)
    summary = cut_off / "summary.json"
    found = json.loads(summary.read_text())
    summary.write_text(json.dumps({name: about for name, about in found.items() if name != "quality"}))
    (cut_off / "sheet.png").unlink()
    done = job("--minutes", 0.5, "--device", "cpu", "--out", cut_off)
    assert done.returncode == 0, done.stderr
    again = json.loads(summary.read_text())
    assert again["sr3"] == found["sr3"] and again["speed"] == found["speed"]
    assert again["quality"]["rows"] == found["quality"]["rows"]
    assert (cut_off / "sheet.png").read_bytes() == (brought / "sheet.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0.4", "--device", "cpu", "--out", "{new}"], "--minutes 0.4: at least 0.5 are needed"),
        (["--minutes", "nan", "--device", "cpu", "--out", "{new}"], "--minutes nan: at least 0.5 are needed"),
        (["--device", "cpu", "--out", "{other}"], "other: not empty, and not a folder of this job"),
        (["--device", "cpu", "--out", "{damaged}"], "damaged: cannot be used"),
        (["--stages", "sr3,rest", "--device", "cpu", "--out", "{new}"], "--stages: 'rest' is none of sr3, regression"),
        (["adopt", "{other}"], "regression.safetensors: cannot be read"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    for name, file in (("other", "something.txt"), ("damaged", "summary.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{")
    places = {name: tmp_path / name for name in ("new", "other", "damaged")}
    done = job(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and message in lines[0], lines
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line(tmp_path):
    done = job("--out", tmp_path / "new")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: no GPU here; --device cpu runs everything in small"


@pytest.fixture
def adopting(monkeypatch, tmp_path):
    """`adopt`, with the embedded files in a folder that may be changed."""
    monkeypatch.chdir(ROOT)
    from gpu_stages import adopt

    assets = tmp_path / "assets"
    (assets / "training").mkdir(parents=True)
    for model in adopt.MODELS:
        shutil.copy(adopt.embedded(model), assets)
    shutil.copy(adopt.ASSETS / "training" / GENERATOR_LOG, assets / "training")
    monkeypatch.setattr(adopt, "ASSETS", assets)
    return adopt


def test_worse_checkpoints_are_not_adopted(adopting, brought):
    before = {model: adopting.embedded(model).read_bytes() for model in adopting.MODELS}
    said = list(adopting.run(brought, limit=8))
    assert "regression: the embedded one stays" in said and "sr3: the embedded one stays" in said
    assert {model: adopting.embedded(model).read_bytes() for model in adopting.MODELS} == before
    assert "generator: the embedded one stays" in said
    assert "schedules: of another checkpoint than the embedded one" in said
    assert [path.name for path in (adopting.ASSETS / "training").iterdir()] == [GENERATOR_LOG]


def test_better_ones_are_adopted_with_their_log_also_as_weights_alone(adopting, brought, tmp_path):
    """The embedded checkpoints, stripped of their configs, beside those of the small job."""
    given = tmp_path / "given"
    given.mkdir()
    for model in adopting.MODELS:
        weights = safetensors.torch.load_file(adopting.embedded(model))
        safetensors.torch.save_file(weights, given / f"{model}.safetensors")
        shutil.copy(brought / f"{model}.jsonl", given)
        shutil.copy(brought / f"{model}.safetensors", adopting.embedded(model))
    shutil.copy(brought / "summary.md", given)
    said = list(adopting.run(given, limit=8))
    assert "regression: adopted" in said and "sr3: adopted" in said
    for model in adopting.MODELS:
        adopted = checkpoint.load(str(adopting.embedded(model)), model)
        expected = safetensors.torch.load_file(given / f"{model}.safetensors")
        assert all(torch.equal(adopted.weights[name], tensor) for name, tensor in expected.items())
    training = {path.name for path in (adopting.ASSETS / "training").iterdir()}
    logs = {f"{model}_photos_16_64.jsonl" for model in adopting.MODELS}
    assert training - {"curves.png"} == {*logs, GENERATOR_LOG, "gpu_job.md"}
