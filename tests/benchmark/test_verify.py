"""`benchmark.py verify`: an honest run matches; one altered pixel, score or number is named, even if covered up."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from sr3eval.benchmark import card, environment, run, summary, table
from sr3eval.benchmark.scores import read_conventions, read_run
from sr3eval.benchmark.verify import verify
from sr3eval.commands import main
from sr3eval.files import digest_of

OWN = """
import torch
class Noisy:
    name, scale, stochastic = "noisy", 4, True
    def upscale(self, lr, seeds):
        sr = torch.nn.functional.interpolate(lr, scale_factor=4)
        noise = torch.stack([torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
        return (sr + 0.05 * noise).clamp(0, 1)
def build(): return Noisy()
"""
SIZES = {"a": (64, 48), "b": (64, 48), "c": (80, 64)}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run of two sizes and all kinds of rows: of seeds, of samples, their mean and best, copied, and HR itself."""
    world = tmp_path_factory.mktemp("verify")
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        for folder in ("hr", "theirs"):
            (world / folder).mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(world / folder / f"{name}.png")
    (world / "mine.py").write_text(OWN)
    mine = {"python": f"{world / 'mine.py'}:build"}
    methods = [
        {"kind": "bicubic"},
        {"name": "seeds", **mine, "seeds": [1, 2]},
        {"name": "samples", **mine, "samples": 2},
        {"name": "theirs", "kind": "precomputed", "folder": str(world / "theirs")},
        {"kind": "reference"},
    ]
    config = {"task": {"scale": 4}, "data": {"images": str(world / "hr")}, "method": methods}
    run(config | {"metrics": ["psnr", "ssim", "diversity"]}, world / "run", world / "cache")
    return world


@pytest.fixture
def copy(honest, tmp_path):
    return shutil.copytree(honest / "run", tmp_path / "run")


def test_an_honest_run_matches(honest):
    result = CliRunner().invoke(main, ["verify", str(honest / "run"), "--sample", "2", "--seed", "5"])
    assert result.exit_code == 0, result.output
    for name in ("bicubic", "seeds", "samples", "theirs", "reference"):
        assert f"Pictures of {name}: 2 of 3 images made again, equal." in result.output
    assert "Not checked" not in result.output and "Everything that was checked matches. --seed 5" in result.output
    count = sum(len(pd.read_csv(honest / f"run/{name}.csv")) for name in ("per_image", "draw_scores"))
    assert f"Scores: {2 * count // 3}, of 2 images, computed again." in result.output


def change_pixel(folder, picture, levels=1):
    """One value of one pixel."""
    path = folder / "images" / picture
    pixels = np.asarray(Image.open(path)).copy()
    pixels[5, 7, 1] = pixels[5, 7, 1] - levels if pixels[5, 7, 1] >= 128 else pixels[5, 7, 1] + levels
    Image.fromarray(pixels).save(path)


def cover_up(folder, picture=None):
    """Write all that follows from what was altered: sums of pictures, the table and the card."""
    if picture is not None:
        slug = picture.split("/")[0]
        known = json.loads((folder / "environment.json").read_bytes())
        ids = {path.stem: path for path in (folder / "images" / slug).glob("*.png")}
        known["pictures"][""][slug] = digest_of(ids)
        (folder / "environment.json").write_text(json.dumps(known))
    results = summary.summarise(read_run(folder), read_conventions(folder))
    table.write(results, folder)
    card.write(results, [folder], folder)


def test_one_altered_pixel_is_named(copy):
    altered = ["bicubic/b.png", "seeds-seed-2/a.png", "samples@2/c.png", "samples@mean/b.png"]
    for picture in altered:
        change_pixel(copy, picture)
    found = verify(copy, sample=3).wrong
    for picture in altered:
        assert f"images/{picture.split('/')[0]}: not what results.json has the checksum of" in found
        cover_up(copy, picture)
    found = verify(copy, sample=3).wrong
    for picture in altered:
        width, height = SIZES[picture[-5]]
        assert (
            f"images/{picture}: {1 / (3 * width * height):.2g} of its values differ, by up to 1 of 255 levels" in found
        )
    assert not any("results" in line for line in found)


def test_one_altered_score_of_a_sample_is_named(copy):
    draws = pd.read_csv(copy / "draw_scores.csv", keep_default_na=False)
    chosen = draws[["method", "metric", "image_id", "sample"]].eq(["samples", "ssim", "a", 2]).all(axis=1)
    assert chosen.sum() == 1
    draws.loc[chosen, "value"] += 1e-5
    draws.to_csv(copy / "draw_scores.csv", index=False)
    cover_up(copy)
    (line,) = verify(copy, sample=3).wrong
    assert line.startswith("ssim of samples, a, seed 0, sample 2: ")


def test_one_altered_score_is_named(copy):
    scores = pd.read_csv(copy / "per_image.csv", keep_default_na=False)
    index = scores.index[(scores["method"] == "theirs") & (scores["metric"] == "psnr") & (scores["image_id"] == "c")][0]
    scores.loc[index, "value"] += 0.001
    scores.to_csv(copy / "per_image.csv", index=False)
    found = verify(copy, sample=1).wrong
    assert "per_image.csv: not what results.json has the checksum of" in found
    assert any(line.startswith("results.csv: value of theirs psnr is ") for line in found)
    cover_up(copy)
    (line,) = verify(copy, sample=3).wrong
    assert line.startswith("psnr of theirs, c: ")
    result = CliRunner().invoke(main, ["verify", str(copy), "--sample", "3"])
    assert result.exit_code == 1 and "1 mismatch." in result.output


def test_one_altered_number_of_the_table_is_named(copy):
    text = (copy / "results.json").read_text()
    value = card.read(copy / "results.json").results["x4"][""]["bicubic"]["psnr"].value
    (copy / "results.json").write_text(text.replace(f'"value": {value!r}', f'"value": {value + 1!r}', 1))
    (line,) = verify(copy, sample=1).wrong
    assert line == f"results.json: value of bicubic psnr is {value + 1!r}; {value!r} follows from the scores"


def test_other_inputs_are_named(copy):
    change_pixel(copy, "_hr/a.png")
    cover_up(copy, "_hr/a.png")
    assert "data: HR and LR have other pixels than results.json names" in verify(copy, sample=1).wrong


def test_what_cannot_be_made_here_is_said_and_its_scores_are_computed(honest, copy, tmp_path):
    for path in (copy / "config.toml", copy / "results.json"):
        path.write_text(path.read_text().replace(str(honest), str(tmp_path / "elsewhere")))
    cover_up(copy)
    verdict = verify(copy, sample=3)
    assert [line.split(":")[0] for line in verdict.unchecked] == [
        f"pictures of {name}" for name in ("seeds", "samples", "theirs")
    ]
    assert not verdict.wrong and any(line.startswith("Scores: ") for line in verdict.right)


def test_on_other_hardware_pictures_may_differ_by_the_named_tolerance(copy, monkeypatch):
    here = environment.describe()
    monkeypatch.setattr(environment, "describe", lambda: here | {"device": "another"})
    for levels, name in ((2, "bicubic/a.png"), (3, "bicubic/b.png")):
        change_pixel(copy, name, levels)
        cover_up(copy, name)
    found = verify(copy, sample=3)
    assert [line for line in found.wrong if "images/" in line] == [
        line for line in found.wrong if line.startswith("images/bicubic/b.png: ") and "by up to 3 of 255" in line
    ]
    assert "Pictures of theirs: 3 of 3 images made again, equal." in found.right
