"""Runs that go on: extended by metrics and methods, stopped while images are prepared, over seeds, past bad images."""

import shutil

import pandas as pd
import pytest
import tomli_w
import torch
from click.testing import CliRunner

from benchmark import main
from sr3eval import metrics
from sr3eval.benchmark import finish, plan, resume
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.layout import RunFolder
from sr3eval.benchmark.make import make
from sr3eval.benchmark.progress import silent
from sr3eval.benchmark.score import Scorer
from sr3eval.errors import UserError
from sr3eval.features import networks
from sr3eval.images import load, save
from sr3eval.pairs import Pair

IDS = [f"{group}/{index}" for group in "ab" for index in range(3)]
NOISY = """
import torch
class Noisy:
    name, scale = "noisy", 4
    def upscale(self, lr, seeds):
        open(__file__ + ".log", "a").write("x" * len(seeds))
        sr = lr.repeat_interleave(4, -1).repeat_interleave(4, -2)
        noise = [torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
        return (sr + 0.05 * torch.stack(noise)).clamp(0, 1)
def build(): return Noisy()
"""


@pytest.fixture
def world(tmp_path, one_thread):
    generator = torch.Generator().manual_seed(0)
    for image_id in IDS:
        coarse = torch.rand(1, 3, 9, 9, generator=generator)
        image = torch.nn.functional.interpolate(coarse, (80, 70), mode="bicubic")[0].clamp(0, 1)
        save(tmp_path / "images" / f"{image_id}.png", image)
    (tmp_path / "mine.py").write_text(NOISY)
    return tmp_path


class Halves(torch.nn.Module):
    """A network whose eight features are means of blocks of the image."""

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, (2, 4)).mean(dim=1).flatten(1)


@pytest.fixture
def quick_features(monkeypatch):
    """In place of EfficientNet."""
    network = networks.Network("halves", 8, Halves(), lambda x: x, lambda module, x: (module(x), module(x)))
    monkeypatch.setattr("sr3eval.metrics.fid.efficientnet_lite0", lambda: network)


def config(world, **changes):
    mine = {"name": "mine", "python": f"{world / 'mine.py'}:build", "deterministic": False}  # no batch is made twice
    plain = {"task": "photos_16_64", "batch_size": 2, "metrics": ["psnr"], "data": {"images": str(world / "images")}}
    return plain | {"method": [mine]} | changes


def start(world, out="run", **changes):
    return plan(RunConfig.parse(config(world, **changes)), world / out, world / "cache")


def run(world, out="run", **changes):
    """A run to its end; the results by method and metric."""
    results = finish(start(world, out, **changes))
    return results.set_index(["method", "metric"])


def files(folder):
    """Contents by path; the report's commands name the folder."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes().replace(str(folder).encode(), b"RUN") for p in found}


def made(world):
    """How many images the method has made, once and for all."""
    return len((world / "mine.py.log").read_text())


def test_an_added_metric_is_all_that_is_computed(world, monkeypatch):
    run(world)
    before = (world / "run" / "config.toml").read_bytes()
    scored = []
    update = metrics.PerImage.update
    monkeypatch.setattr(metrics.PerImage, "update", lambda m, b: (scored.append((m.name, *b.ids)), update(m, b))[1])
    run(world, metrics=["psnr", "consistency"])
    assert made(world) == len(IDS)
    assert {name for name, *ids in scored if ids != ["probe"]} == {"consistency"}
    assert (world / "run" / "history" / "config_1.toml").read_bytes() == before
    run(world, "whole", metrics=["psnr", "consistency"])
    extended, whole = files(world / "run"), files(world / "whole")
    assert extended.pop("history/config_1.toml") and extended == whole


def test_another_caption_needs_no_new_run(world):
    run(world)
    log = (world / "mine.py.log").read_text()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Scorer, "_score", None)  # nothing is scored again
        run(world, table={"caption": "Ours.", "label": "tab:ours"})
    assert r"\caption{Ours.}" in (world / "run" / "results.tex").read_text()
    assert (world / "mine.py.log").read_text() == log and (world / "run" / "history" / "config_1.toml").exists()


def test_an_added_method_is_all_that_is_made(world, quick_features):
    run(world, metrics=["psnr", "fd_efficientnet_lite0"])
    both = [config(world)["method"][0], {"kind": "bicubic"}]
    run(world, metrics=["psnr", "fd_efficientnet_lite0"], method=both)
    assert made(world) == len(IDS)
    run(world, "whole", metrics=["psnr", "fd_efficientnet_lite0"], method=both)
    extended = files(world / "run")
    assert extended.pop("history/config_1.toml") and extended == files(world / "whole")
    both[1] = {"kind": "bicubic", "name": "other"}
    with pytest.raises(UserError, match="holds a run of another config"):
        start(world, metrics=["psnr", "fd_efficientnet_lite0"], method=both)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch_size": 3}, {"method": [{"kind": "bicubic"}]}, {"metrics": ["ssim"]}]
)
def test_anything_else_that_differs_is_refused(world, change):
    run(world)
    before = files(world / "run")
    with pytest.raises(UserError, match="holds a run of another config"):
        start(world, **change)
    assert files(world / "run") == before


def scorer(current):
    return Scorer(current, "", current.images, silent)


def test_scores_stand_only_for_the_same_pictures_and_settings(world):
    """Whoever exchanges a picture gets no old score: the cache puts it back, and it is looked at again."""
    run(world)
    known = resume.Known(RunFolder(world / "run"))
    current = start(world)
    (row,) = current.config.rows
    keys = scorer(current).keys(row)
    save(world / "run" / "images" / "mine" / "a" / "0.png", torch.zeros(3, 64, 64))
    assert known.holds("", "mine", "psnr", keys["psnr"])
    assert not known.holds("", "mine", "psnr", scorer(current).keys(row)["psnr"])
    assert len(known.rows("", row, "psnr")[0]) == len(IDS)


class StoppedError(Exception):
    """As a kill would be: nothing catches it."""


def stop_after(images, current):
    def tell(stage, done, total):
        if done == images:
            raise StoppedError

    with pytest.raises(StoppedError):
        make(current, tell)


def test_preparation_resumes_where_it_was_killed(world, monkeypatch):
    stop_after(4, start(world))
    kept = {image_id: (world / "run" / "images" / "_hr" / f"{image_id}.png").stat().st_mtime_ns for image_id in IDS[:4]}
    again = start(world)
    read = []
    decode = Pair.load
    monkeypatch.setattr(Pair, "load", lambda pair, *rest: (read.append(pair.hr), decode(pair, *rest))[1])
    make(again, silent)
    assert [path.relative_to(world / "images").with_suffix("").as_posix() for path in read] == IDS[4:]
    assert kept == {i: (world / "run" / "images" / "_hr" / f"{i}.png").stat().st_mtime_ns for i in kept}
    run(world)
    run(world, "whole")
    assert files(world / "run") == files(world / "whole")


def test_preparation_of_other_images_begins_anew(world):
    stop_after(4, start(world))
    save(world / "images" / "a" / "1.png", torch.zeros(3, 64, 64))
    run(world)
    assert not load(world / "run" / "images" / "_hr" / "a" / "1.png").any()


def test_seeds_are_one_row_with_their_deviation(world, quick_features):
    three = [config(world)["method"][0] | {"seeds": [0, 1, 2]}]
    results = run(world, method=three, metrics=["psnr", "fd_efficientnet_lite0"])
    assert list(results.index) == [("mine", "psnr"), ("mine", "fd_efficientnet_lite0")]
    single = [run(world, f"seed{seed}", seed=seed, metrics=["psnr", "fd_efficientnet_lite0"]) for seed in range(3)]
    for metric in ("psnr", "fd_efficientnet_lite0"):
        values = pd.Series([r.loc[("mine", metric), "value"] for r in single])
        row = results.loc[("mine", metric)]
        assert (row["value"], row["seed_sd"]) == pytest.approx((values.mean(), values.std()), rel=1e-9)
        assert (row["n"], row["n_seeds"]) == (6, 3)
    for seed in range(3):
        ours = files(world / "run" / "images" / f"mine-seed-{seed}")
        assert ours == files(world / f"seed{seed}" / "images" / "mine")
    per_image = pd.read_csv(world / "run" / "per_image.csv")
    assert len(per_image) == len(IDS)
    text = (world / "run" / "results.md").read_text()
    row = results.loc[("mine", "psnr")]
    assert f"**{row['value']:.2f}** ± {row['seed_sd']:.2f} [" in text
    assert "seeds 0, 1, 2" in text and "±: standard deviation over a method's seeds" in text
    assert f"\\textbf{{{row['value']:.2f}}} $\\pm$ {row['seed_sd']:.2f}" in (world / "run" / "results.tex").read_text()


PSNR = metrics.load("psnr").convention


def test_a_mean_over_seeds_counts_identical_pictures_at_the_ceiling():
    results = [metrics.Result(0, 1, {"a": value}) for value in (float("inf"), 30.0)]
    assert metrics.mean_over_seeds(PSNR, results).per_image == {"a": pytest.approx((54.1514 + 30) / 2, abs=1e-4)}
    assert metrics.mean_over_seeds(PSNR, results[:1] * 2).per_image == {"a": float("inf")}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"kind": "bicubic", "seeds": [1, 1]}, r"seeds = \[1, 1\] names one twice"),
        ({"kind": "precomputed", "folder": "x", "seeds": [1]}, "precomputed takes no seeds"),
        ({"kind": "bicubic", "seeds": ["1"]}, "must be a whole number"),
    ],
)
def test_bad_seeds(world, method, message):
    with pytest.raises(UserError, match=message):
        start(world, method=[method])


def test_unreadable_images_are_skipped_where_the_config_says_so(world):
    whole = (world / "images" / "a" / "1.png").read_bytes()
    (world / "images" / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    (world / "images" / "b" / "0.png").write_text("no picture")
    outputs = world / "outputs"
    for image_id in IDS:
        save(outputs / f"{image_id}.png", torch.rand(3, 64, 64))
    methods = [{"kind": "bicubic"}, {"kind": "precomputed", "folder": str(outputs)}]
    with pytest.raises(UserError, match=r"b/0\.png: not a readable image"):
        make(start(world, "stops", method=methods), silent)
    current = start(world, method=methods, on_error="skip")
    assert current.remarks[0].startswith("2 images left out as unreadable, first ")
    results = run(world, method=methods, on_error="skip")
    assert (results["n"] == 4).all() and (results["n_unreadable"] == 2).all()
    ids = pd.read_csv(world / "run" / "per_image.csv").groupby("method")["image_id"].agg(list)
    assert ids["bicubic"] == ids["precomputed"] == ["a/0", "a/2", "b/1", "b/2"]
    assert "4 images (2 unreadable and left out)" in (world / "run" / "results.md").read_text()
    before = files(world / "run")
    assert run(world, method=methods, on_error="skip").equals(results)
    assert files(world / "run") == before
    (world / "images" / "a" / "1.png").write_bytes(whole)
    with pytest.raises(UserError, match="the images have changed since this run began"):
        start(world, method=methods, on_error="skip")


def test_a_set_without_a_readable_image(world):
    shutil.rmtree(world / "images" / "b")
    for index in range(3):
        (world / "images" / "a" / f"{index}.png").write_text("no picture")
    with pytest.raises(UserError, match="none of its images can be read"):
        start(world, on_error="skip")


def command(world, settings, *arguments):
    (world / "config.toml").write_text(settings if isinstance(settings, str) else tomli_w.dumps(settings))
    return CliRunner().invoke(main, ["run", str(world / "config.toml"), "--out", str(world / "run"), *arguments])


def test_changed_outputs_of_others_are_announced(world):
    outputs = world / "outputs"
    for image_id in IDS:
        save(outputs / f"{image_id}.png", torch.rand(3, 64, 64))
    settings = config(world, method=[{"kind": "precomputed", "folder": str(outputs)}])
    assert command(world, settings).stderr == ""
    before = pd.read_csv(world / "run" / "results.csv")["value"].item()
    save(outputs / "a" / "0.png", torch.zeros(3, 64, 64))
    again = command(world, settings)
    assert again.stderr.strip() == 'method "precomputed": its outputs have changed; it is scored anew'
    assert pd.read_csv(world / "run" / "results.csv")["value"].item() != before
    assert command(world, settings).stderr == ""


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("[[method]]", "[method]"), "[method]: write [[method]], in double brackets"),
        (lambda text: text.replace("[data]", "[[data]]") + '[[data]]\nimages = "x"', "[[data]]: each of several sets"),
        (lambda text: 'on_error = "skp"\n' + text, '"on_error" is \'skp\': did you mean "skip"'),
    ],
)
def test_configs_that_say_it_wrongly(world, edit, message):
    result = command(world, edit(tomli_w.dumps(config(world))))
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert message in line


def test_a_cache_that_cannot_be_made_is_one_line(world):
    (world / "file").write_text("-")
    for place in ("/proc/x", str(world / "file"), str(world / "file" / "inside")):
        result = command(world, config(world), "--cache", place)
        assert result.exit_code == 1
        (line,) = result.stderr.strip().splitlines()
        assert f"{place}: no cache can be kept there" in line and "--cache" in line
        assert not (world / "run").exists()


def test_one_image_is_one_image(world):
    data = {"images": str(world / "images"), "limit": 1}
    text = command(world, config(world, data=data)).stdout
    assert "- 1 image; no intervals, of one group; bold: best." in text
    with pytest.raises(UserError, match="1 image; at least 2 are needed"):
        start(world, data=data, metrics=["fd_efficientnet_lite0"])


def test_two_images_of_a_set_have_no_interval(world, quick_features):
    data = {"images": str(world / "images"), "limit": 2}
    result = command(world, config(world, data=data, metrics=["fd_efficientnet_lite0"]))
    assert result.exit_code == 0, result.exc_info
    text = result.stdout
    assert "FD, EfficientNet-Lite0: of 2 images as a set; no intervals." in text
