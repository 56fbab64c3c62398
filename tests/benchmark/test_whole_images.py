"""Runs of images of any size: several sets, given inputs, no HR at all, protocols, and what they refuse."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3eval.benchmark import RunConfig, finish, plan, run
from sr3eval.benchmark.make import make, prepare
from sr3eval.benchmark.progress import silent
from sr3eval.benchmark.scores import read_runs
from sr3eval.benchmark.summary import summarise
from sr3eval.errors import UserError
from sr3eval.images import load, save, to_uint8
from sr3eval.methods._resized import Resized
from sr3eval.methods.bicubic import Bicubic
from sr3eval.pairs import Pair
from sr3eval.tasks import Task

SIZES = {"Set5": {"baby": (62, 51), "bird": (48, 48)}, "Set14": {"zebra": (45, 70), "bird": (64, 61)}}


def photograph(height, width, name="coffee", top=100):
    image = getattr(skimage.data, name)()[top : top + height, 120 : 120 + width]
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


@pytest.fixture
def world(tmp_path, one_thread):
    """Two sets of photographs of mixed sizes, below Set5/ and Set14/."""
    for top, (name, images) in enumerate(SIZES.items()):
        for index, (image_id, size) in enumerate(images.items()):
            save(tmp_path / name / f"{image_id}.png", photograph(*size, top=60 + 90 * top + 20 * index))
    return tmp_path


def config(world, *methods, **changes):
    plain = {
        "protocol": "classic",
        "task": {"scale": 4, "lr": "matlab"},
        "data": [{"name": name, "images": str(world / name)} for name in SIZES],
        "method": list(methods) or [{"kind": "bicubic", "kernel": "matlab"}],
    }
    return RunConfig.parse({key: value for key, value in (plain | changes).items() if value is not None})


def written(world, *methods, out="run", **changes):
    return run(config(world, *methods, **changes), world / out, world / "cache")


def luma(picture):
    """BT.601 in 16 to 235, of a picture's file."""
    rgb = np.asarray(Image.open(picture).convert("RGB")).astype(np.float64)
    return 16 + rgb @ np.array([65.481, 128.553, 24.966]) / 255


def test_the_classic_protocol_on_two_sets(world):
    """PSNR and SSIM as scikit-image has them, on Y within a border of 4; a group of columns a set."""
    results = written(world)
    per_image = pd.read_csv(world / "run" / "per_image.csv").set_index(["image_id", "metric"])["value"]
    assert set(per_image.index.get_level_values(0)) == {f"{s}/{i}" for s, images in SIZES.items() for i in images}
    for image_id in set(per_image.index.get_level_values(0)):
        name, inner = image_id.split("/")
        height, width = (side - side % 4 for side in SIZES[name][inner])
        paths = [world / "run" / "images" / folder / f"{image_id}.png" for folder in ("_hr", "bicubic", "_lr")]
        assert [Image.open(path).size for path in paths] == [(width, height)] * 2 + [(width // 4, height // 4)]
        hr, sr = (luma(path)[4:-4, 4:-4] for path in paths[:2])
        assert per_image[image_id, "psnr_y_b4"] == pytest.approx(peak_signal_noise_ratio(hr, sr, data_range=255))
        _, values = structural_similarity(
            hr, sr, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        assert per_image[image_id, "ssim_y_b4"] == pytest.approx(values[5:-5, 5:-5].mean(), abs=1e-6)
    for name, images in SIZES.items():
        row = results[(results["dataset"] == name) & (results["metric"] == "psnr_y_b4")].iloc[0]
        mean = np.mean([per_image[f"{name}/{image_id}", "psnr_y_b4"] for image_id in images])
        assert (row["value"], row["n"], row["label"]) == (pytest.approx(mean), 2, "PSNR")
    markdown = (world / "run" / "results.md").read_text()
    assert re.search(r"\| Method +\| Set5 PSNR ↑ +\| Set5 SSIM ↑ +\| Set14 PSNR ↑", markdown)
    assert r"\multicolumn{2}{c}{Set5} & \multicolumn{2}{c}{Set14}" in (world / "run" / "results.tex").read_text()


NOISY = """
import torch
from sr3eval.method import Method, Upscaled
class Noisy(Method):
    name, scale = "noisy", 4
    def upscale(self, lr, seeds, progress=None):
        print(tuple(lr.shape))
        sr = torch.nn.functional.interpolate(lr, scale_factor=4)
        noise = [torch.randn(sr.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
        return Upscaled((sr + 0.05 * torch.stack(noise)).clamp(0, 1))
build = Noisy
"""


def test_batches_are_of_one_size_and_an_image_depends_on_none_beside_it(world, capsys):
    (world / "noisy.py").write_text(NOISY)
    for index in range(3):  # with Set5/bird four of one size
        save(world / "Set5" / f"like_bird_{index}.png", photograph(48, 48, top=30 + 40 * index))
    noisy = {"name": "noisy", "python": f"{world / 'noisy.py'}:build", "deterministic": False}
    written(world, noisy, batch_size=3)
    shapes = set(capsys.readouterr().out.split("\n")) - {""}
    assert shapes == {"(1, 3, 15, 12)", "(3, 3, 12, 12)", "(1, 3, 11, 17)", "(1, 3, 16, 15)"}
    made = {p.relative_to(world / "run"): p.read_bytes() for p in (world / "run" / "images").rglob("*.png")}
    first = next(path for path in made if "noisy" in path.parts and path.stem == "bird")
    (world / "run" / first).unlink()
    for path in (world / "cache").rglob("*.png"):
        path.unlink()
    written(world, noisy, batch_size=3)
    assert {p.relative_to(world / "run"): p.read_bytes() for p in (world / "run" / "images").rglob("*.png")} == made


def test_the_input_and_not_the_target_names_a_cached_output(world):
    """Outputs for given inputs are found again whatever HR they are compared with."""
    (world / "noisy.py").write_text(NOISY)
    (world / "LR").mkdir()
    for image_id in SIZES["Set5"]:
        image = Image.open(world / "Set5" / f"{image_id}.png")
        image.resize((image.width // 4, image.height // 4)).save(world / "LR" / f"{image_id}x4.png")
        Image.open(world / "Set5" / f"{image_id}.png").transpose(0).save(world / f"other_{image_id}.png")
    noisy = {"name": "noisy", "python": f"{world / 'noisy.py'}:build", "deterministic": False}
    data = {"images": str(world / "Set5"), "lr_images": str(world / "LR"), "lr_pattern": "(?P<id>.+)x4"}
    written(world, noisy, task={"scale": 4}, data=data)
    count = len(list((world / "cache").rglob("*.png")))
    lr_alone = {"lr_images": str(world / "LR"), "pattern": None, "lr_pattern": "(?P<id>.+)x4"}
    lr_alone.pop("pattern")
    written(world, noisy, task={"scale": 4}, data=lr_alone, protocol=None, metrics=["consistency"], out="alone")
    assert len(list((world / "cache").rglob("*.png"))) == count == 2
    assert not (world / "alone" / "images" / "_hr").exists()
    names = [world / out / "images" / "noisy" / "baby.png" for out in ("run", "alone")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_given_inputs_are_the_ones_that_methods_get(world):
    (world / "LR").mkdir()
    grey = {"baby": 50, "bird": 200}
    for image_id, level in grey.items():
        width, height = (side // 4 for side in reversed(SIZES["Set5"][image_id]))
        Image.new("RGB", (width, height), (level,) * 3).save(world / "LR" / f"{image_id}.png")
    data = {"images": str(world / "Set5"), "lr_images": str(world / "LR")}
    written(world, task={"scale": 4}, data=data)
    for image_id, level in grey.items():
        assert (to_uint8(load(world / "run" / "images" / "bicubic" / f"{image_id}.png")) == level).all()
    assert json.loads((world / "run" / "environment.json").read_text())["inputs"] == "files"


SHARPNESS = """
import torch
from sr3eval.metrics import Batch
def build():
    return lambda batch: batch.sr.diff(dim=-1).abs().mean(dim=(1, 2, 3))
"""


def test_without_hr_there_are_scores_without_reference_and_a_report(world):
    (world / "sharpness.py").write_text(SHARPNESS)
    sharpness = {"name": "sharpness", "python": f"{world / 'sharpness.py'}:build", "higher_is_better": True}
    sharpness["needs_hr"] = False
    nothing = {"protocol": None, "task": {"scale": 2}, "data": {"lr_images": str(world / "Set5")}}
    results = written(world, {"kind": "bicubic"}, metrics=["consistency", sharpness], **nothing)
    assert list(results["metric"]) == ["consistency", "sharpness"]
    sr = load(world / "run" / "images" / "bicubic" / "baby.png")
    assert tuple(sr.shape) == (3, 124, 102)
    per_image = pd.read_csv(world / "run" / "per_image.csv").set_index(["image_id", "metric"])["value"]
    assert per_image["baby", "sharpness"] == pytest.approx(float(sr.diff(dim=-1).abs().mean()), rel=1e-6)
    assert (world / "run" / "report.html").exists()
    with pytest.raises(UserError, match="psnr: needs HR images; this run has none"):
        written(world, {"kind": "bicubic"}, metrics=["psnr", sharpness], out="second", **nothing)
    with pytest.raises(UserError, match="reference: is the HR images, and this run has none"):
        written(world, {"kind": "reference"}, metrics=[sharpness], out="third", **nothing)
    assert not (world / "second").exists() and not (world / "third").exists()


def test_an_option_with_several_values_is_a_row_each(world):
    for name, top in (("early", 0), ("late", 40)):
        for image_id, (height, width) in SIZES["Set5"].items():
            picture = photograph(height - height % 4, width - width % 4, top=top)
            save(world / "outputs" / name / f"{image_id}.png", picture)
    data = {"images": str(world / "Set5")}
    theirs = {"kind": "precomputed", "name": "theirs", "each": {"folder": str(world / "outputs" / "*")}}
    results = written(world, theirs, data=data)
    assert list(dict.fromkeys(results["method"])) == ["theirs early", "theirs late"]
    assert results.groupby("metric")["value"].nunique().eq(2).all()
    with pytest.raises(UserError, match="no file matches it"):
        config(world, theirs | {"each": {"folder": str(world / "nothing" / "*")}})
    with pytest.raises(UserError, match="name one option and its values"):
        config(world, theirs | {"each": {}})


def test_a_self_ensemble_is_a_row_of_its_own(world):
    plain, ensemble = {"kind": "bicubic"}, {"kind": "bicubic", "name": "bicubic+", "ensemble": True}
    results = written(world, plain, ensemble, data={"images": str(world / "Set5")})
    assert "self-ensemble x8" in set(results["method_settings"].str.split(", ").str[-1])
    sr, mean = (load(world / "run" / "images" / name / "bird.png") for name in ("bicubic", "bicubic-plus"))
    assert (to_uint8(sr).int() - to_uint8(mean).int()).abs().max() <= 1  # its kernel has these symmetries


def test_degradations_stand_in_the_config_and_the_environment(world):
    steps = [{"kind": "blur", "sigma": [0.5, 2.0]}, {"kind": "resize"}, {"kind": "jpeg", "quality": 40}]
    task = {"scale": 4, "degradation": steps}
    written(world, task=task)
    again = RunConfig.parse(config(world, task=task).plain())
    assert again == config(world, task=task)
    said = json.loads((world / "run" / "environment.json").read_text())["inputs"]
    assert said == "Gaussian blur sigma 0.5 to 2, then bicubic, then JPEG 40"
    lr = load(world / "run" / "images" / "_lr" / "Set5" / "bird.png")
    planned = plan(config(world, task=task, seed=1), world / "other", world / "cache")
    prepare(planned, silent)
    assert not torch.equal(lr, load(world / "other" / "images" / "_lr" / "Set5" / "bird.png"))


def test_borders_of_the_scale_need_no_protocol(world):
    metrics = [{"name": "psnr", "border": "scale"}, "ssim"]
    assert config(world, protocol=None, metrics=metrics).metrics == (("psnr", {"border": 4}), ("ssim", {}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "clasic"}, 'unknown protocol "clasic": did you mean "classic"?'),
        ({"data": [{"images": "Set5"}, {"images": "Set14"}]}, "each of several sets needs a name of its own"),
        ({"data": [{"name": "a/b", "images": "Set5"}]}, 'data.name: "a/b"'),
        ({"data": {"images": "RealSR", "lr_images": "RealSR", "pattern": "(?P<id>.+)_HR"}}, "are one folder: pattern"),
        ({"data": {"images": "Set5", "lr_images": "LR"}, "task": "photos_16_64"}, "makes its inputs of HR images"),
        ({"task": {"scale": 4, "lr": "files"}}, "data.lr_images is missing"),
        ({"task": {"scale": 4, "name": "faces_16_128"}}, "is another task's"),
        ({"task": {"scale": 4, "degradation": [{"kind": "blurr"}]}}, 'did you mean "blur"'),
        ({"task": {"scale": 4, "degradation": {"kind": "blur"}}}, "write [[task.degradation]], in double brackets"),
        ({"data": {"images": "Set5", "lr_pattern": "(?P<id>.+)x4"}}, "names of data.lr_images, which is missing"),
        ({"data": {"lr_images": "Set5", "pattern": "(?P<id>.+)x4"}}, "names of data.images, which is missing"),
        ({"deterministic": False}, 'unknown key "deterministic": valid: batch_size, data'),  # no name is near
        ({"protocol": None, "metrics": None}, "at least one [[method]] and one metric are needed"),
    ],
)
def test_configs_that_cannot_be_run(world, changes, message):
    with pytest.raises(UserError) as caught:
        config(world, **changes)
    assert message in str(caught.value)


def test_what_no_metric_can_score_is_said_before_work(world):
    save(world / "Set5" / "tiny.png", photograph(18, 40))
    with pytest.raises(
        UserError, match="ssim: 32x8 images are smaller than its 11x11 window; .* as Set5/tiny, the small"
    ):
        written(world)
    with pytest.raises(UserError, match='ends in 40x16 and not 10x4 pixels; add a step of kind "resize"'):
        written(world, task={"scale": 4, "degradation": [{"kind": "blur", "sigma": 1.0}]})
    assert not (world / "run").exists()
    with pytest.raises(UserError, match="images of 3 sizes"):
        written(world, protocol=None, metrics=["fd_efficientnet_lite0"], data={"images": str(world / "Set5")})


def test_nor_what_has_long_sides_and_few_pixels(world):
    """NIQE needs two blocks of 96 pixels: the image of the shortest side has them, a square one has not."""
    save(world / "wide" / "long.png", photograph(96, 400))
    save(world / "wide" / "square.png", photograph(152, 152))
    with pytest.raises(UserError, match="niqe: a 152x152 image has fewer than two blocks"):
        written(world, protocol=None, metrics=["niqe"], data={"images": str(world / "wide")})
    assert not (world / "run").exists()


def test_a_method_on_a_path_is_checked_and_made_for_its_scale(world, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "json.py").write_text("")  # Python's own is found in its place
    (tmp_path / "mine" / "mine.py").write_text("import json\n" + NOISY)
    mine = {"name": "mine", "python": f"{tmp_path / 'mine' / 'mine.py'}:build", "path": ["method", "bicubic"]}
    with pytest.raises(UserError, match='"import json" finds'):
        written(world, mine)
    onward = [Resized(Bicubic(4), ["method", "bicubic"], Task(f"x{scale}", scale)).fingerprint for scale in (2, 3)]
    assert onward[0] != onward[1]  # of one input, outputs of two sizes


def test_grey_images_of_8_and_16_bit_are_rgb(world):
    levels = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48)
    Image.fromarray((levels % 256).astype(np.uint8)).save(world / "Set5" / "grey.png")
    Image.fromarray(levels * 28).save(world / "Set5" / "grey16.png")
    written(world, data={"images": str(world / "Set5")})
    hr = to_uint8(load(world / "run" / "images" / "_hr" / "grey16.png"))
    assert (hr[0] == hr[2]).all() and (hr[0].numpy() == np.round(levels * 28 / 257)).all()


def test_runs_of_other_inputs_are_not_rows_of_one_table(world):
    """Equal HR images, shrunk by MATLAB's kernel or by another."""
    data = {"images": str(world / "Set5")}
    written(world, data=data)
    written(world, data=data, task={"scale": 4}, out="other")
    scores, _ = read_runs([world / "run", world / "other"])
    assert set(scores.methods["dataset"]) == {"run", "other"}
    text = (world / "run" / "results.md").read_text()
    assert "- Inputs: MATLAB's imresize of 8-bit images (bicubic, antialiased, mirrored border).\n" in text


def test_runs_that_share_a_method_are_rows_of_one_table(world):
    """Equal scores of an equal method are one row; a method of the same name with other options is two."""
    data = {"images": str(world / "Set5")}
    written(world, data=data)
    written(world, {"kind": "bicubic", "kernel": "matlab"}, {"kind": "bicubic", "name": "other"}, data=data, out="more")
    scores, conventions = read_runs([world / "run", world / "more"])
    results = summarise(scores, conventions)
    assert list(dict.fromkeys(results["method"])) == ["bicubic", "other"] and (results["n"] == 2).all()
    written(world, {"kind": "bicubic"}, data=data, out="third")
    scores, _ = read_runs([world / "run", world / "third"])
    assert set(scores.methods["method"]) == {"run/bicubic", "third/bicubic"}


def test_a_stopped_run_resumes_to_the_same_bytes(world):
    class StoppedError(Exception):
        pass

    def stop(stage, done, total):
        if stage == "prepare" and done == 2:
            raise StoppedError

    planned = plan(config(world), world / "run", world / "cache")
    with pytest.raises(StoppedError):
        make(planned, stop)
    finish(plan(config(world), world / "run", world / "cache"))
    written(world, out="whole")
    contents = [
        {p.relative_to(world / out): p.read_bytes() for p in (world / out).rglob("*") if p.is_file()}
        for out in ("run", "whole")
    ]
    assert contents[0] == contents[1]


def test_want_of_memory_is_one_line_and_comes_first(world, monkeypatch):
    monkeypatch.setattr(Bicubic, "upscale", lambda *_: torch.empty(2**50, dtype=torch.uint8))
    with pytest.raises(UserError) as caught:
        written(world)
    largest = 'method "bicubic", batch of Set14/bird: not enough memory for 1 input of 15x16 pixels: lower batch_size'
    assert str(caught.value).startswith(largest)


def test_images_that_were_read_once_are_not_tried_again(world, monkeypatch):
    """on_error = "skip" decodes an image to see whether it can; not one whose picture the run has, HR or not."""
    kinds = {"images": {"images": str(world / "Set5")}, "lr_images": {"lr_images": str(world / "Set5")}}
    read, decode = [], Pair.load
    monkeypatch.setattr(Pair, "load", lambda pair, *rest: (read.append(pair), decode(pair, *rest))[1])
    for out, data in kinds.items():
        options = {"data": data, "protocol": None, "metrics": ["consistency"], "on_error": "skip", "out": out}
        written(world, task={"scale": 4}, **options)
        assert len(read) == 4  # tried, then prepared
        read.clear()
        written(world, task={"scale": 4}, **options)
        assert not read
