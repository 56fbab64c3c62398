"""`import sr3eval`: what it offers, each on first use."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sr3eval
from sr3eval import methods, metrics
from sr3eval.images import load, save

SOURCE = Path(sr3eval.__file__)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        save(folder / f"{seed}.png", torch.randint(0, 256, (3, 24, 32), generator=random, dtype=torch.uint8))
    return folder


def table(images):
    metrics = ["psnr", "ssim", "consistency"]
    return {"task": {"scale": 4}, "metrics": metrics, "data": {"images": str(images)}, "method": [{"kind": "bicubic"}]}


def test_the_import_is_light():
    heavy = {"numpy", "pandas", "pydantic", "torch"}
    code = f"import sys, sr3eval; sr3eval.UserError; print({heavy} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=SOURCE.parents[1], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_name_is_there_described_and_known_to_type_checkers():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    for node in checked.body:
        for alias in node.names:
            name = alias.asname or alias.name
            assert sr3eval._PLACES[name] == f"{node.module}.{alias.name}".removeprefix("sr3eval.")
    assert sorted(sr3eval.__all__) == sorted(sr3eval._PLACES) == sorted({*sr3eval.__all__} & {*dir(sr3eval)})
    paragraph = sr3eval.__doc__.split("\n\n")[3]
    heads = " ".join(line[:24] for line in paragraph.splitlines())
    for name in sr3eval.__all__:
        assert getattr(sr3eval, name).__class__ is not type(sr3eval), name  # not a module
        assert name in heads.replace("(", " ").replace(",", " ").split(), name


def test_other_names_are_not_there():
    assert not hasattr(sr3eval, "fid")
    with pytest.raises(AttributeError, match="module 'sr3eval' has no attribute 'psnrr'"):
        sr3eval.psnrr  # noqa: B018


@pytest.mark.parametrize("form", ["path", "text", "dict", "RunConfig"])
def test_a_run_by_any_form_of_config(form, images, tmp_path):
    given = table(images)
    toml = tmp_path / "run.toml"
    toml.write_text(
        f"""task = {{ scale = 4 }}
        metrics = ["psnr", "ssim", "consistency"]
        data = {{ images = "{images}" }}
        method = [{{ kind = "bicubic" }}]"""
    )
    forms = {"path": toml, "text": str(toml), "dict": given, "RunConfig": sr3eval.RunConfig.parse(given)}
    out = tmp_path / "run" if form == "path" else str(tmp_path / "run")
    results = sr3eval.run(forms[form], out).set_index("metric")["value"]
    pictures = tmp_path / "run" / "images"
    sr, hr, lr = (torch.stack([load(pictures / f / f"{i}.png") for i in range(3)]) for f in ("bicubic", "_hr", "_lr"))
    assert results["psnr"] == pytest.approx(float(sr3eval.psnr(sr, hr).mean()), abs=1e-4)
    assert results["ssim"] == pytest.approx(float(sr3eval.ssim(sr, hr).mean()), abs=1e-5)
    assert results["consistency"] == pytest.approx(1e5 * float(sr3eval.consistency(sr, lr).mean()), rel=1e-4)


def test_a_mistake_is_a_user_error_with_the_remedy(images, tmp_path):
    with pytest.raises(sr3eval.UserError, match='unknown metric "psnrr": did you mean "psnr"'):
        sr3eval.run(table(images) | {"metrics": ["psnrr"]}, tmp_path / "run")
    with pytest.raises(sr3eval.UserError, match=r"missing.toml: "):
        sr3eval.run("missing.toml", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_methods_and_metrics_by_name():
    """Grey stays grey, whatever the kernel."""
    lr = torch.full((2, 3, 8, 8), 0.5)
    upscaled = sr3eval.load_method("bicubic", scale=4).upscale(lr, seeds=[0, 1])
    assert isinstance(upscaled, sr3eval.Upscaled)
    assert torch.allclose(upscaled.images, torch.full((2, 3, 32, 32), 0.5), atol=1e-6)
    assert sr3eval.load_metric("psnr", channel="y").convention.name == "psnr_y"
    assert sr3eval.TASKS["photos_16_64"] == sr3eval.Task(
        "photos_16_64", 4, "square 64", dataset=sr3eval.TASKS["photos_16_64"].dataset
    )


PUBLIC = ("consistency", "load_method", "load_metric", "psnr", "run", "ssim")
FUNCTIONS = {name: getattr(sr3eval, name) for name in PUBLIC}
FUNCTIONS |= {f"method {kind}": methods.builder(kind) for kind in methods.available()}
FUNCTIONS |= {f"metric {name}": metrics.builder(name) for name in metrics.available()}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_is_described(name):
    """In the form that IDEs and Sphinx read, where there are several."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    first, _, listed = (inspect.getdoc(FUNCTIONS[name]) or "").partition("\nArgs:\n")
    listed = listed.partition("\n\n")[0]
    assert first.strip()
    named = re.findall(r"^    (\**\w+(?:, \w+)*):", listed, re.MULTILINE)
    described = {parameter.lstrip("*") for line in named for parameter in line.split(", ")}
    assert described == set(parameters) or (len(parameters) < 2 and not described)
