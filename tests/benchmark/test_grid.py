"""Grids of a run's images and of a cascade's: exact pixels, which pictures are where, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import tomli_w
from PIL import Image

from sr3eval.benchmark.grid import CLOSE, LARGEST, SHEET, SMALLEST, Shown, write
from sr3eval.benchmark.page import LINE
from sr3eval.benchmark.steps import against_steps
from sr3eval.errors import UserError

SIZES = {"Set5/baby": (48, 32), "Set5/bird": (32, 32), "Set5/butterfly": (32, 32)}
SCORES = {"psnr": {"SR3 2": [20.0, 21, 22], "SR3 8": [30.0, 31, 32], "Ours": [25.0, 26, 27]}}
STRIDE = SMALLEST + CLOSE


@pytest.fixture(scope="module")
def run(write_run, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("grid"), SIZES, SCORES)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def cell(grid, column, top, width=SMALLEST, height=SMALLEST):
    """What is in the middle of a column, from a row of pixels down."""
    left = column * STRIDE + (SMALLEST - width) // 2
    return grid[top : top + height, left : left + width]


def test_a_row_an_image_a_column_a_method(run, tmp_path):
    shown = Shown(images=["Set5/baby", "Set5/bird"], methods=["Ours", "SR3 8"])
    grid = pixels(write([run], tmp_path / "grid.png", shown))
    assert grid.shape == (LINE + 128 + CLOSE + SMALLEST, 4 * STRIDE - CLOSE, 3)
    for column, slug in ((1, "ours"), (2, "sr3-8"), (3, "_hr")):
        baby, bird = (pixels(run / "images" / slug / f"{name}.png") for name in shown.images)
        assert (cell(grid, column, LINE, height=128) == baby.repeat(4, 0).repeat(4, 1)).all()
        assert (cell(grid, column, LINE + 128 + CLOSE) == bird.repeat(6, 0).repeat(6, 1)).all()
    with Image.open(run / "images" / "_lr" / "Set5" / "bird.png") as lr:
        bicubic = np.asarray(lr.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))
    assert (cell(grid, 0, LINE + 128 + CLOSE) == bicubic.repeat(6, 0).repeat(6, 1)).all()


def test_the_middle_below_each_row_without_hr(run, tmp_path):
    shown = Shown(images=["Set5/bird"], methods=["Ours"], enlarge_lr="nearest", hr=False, zoom=4)
    grid = pixels(write([run], tmp_path / "grid.png", shown))
    assert grid.shape == (LINE + 2 * SMALLEST + CLOSE, 2 * STRIDE - CLOSE, 3)
    bird = pixels(run / "images" / "ours" / "Set5" / "bird.png")
    assert (cell(grid, 1, LINE + STRIDE) == bird[12:20, 12:20].repeat(24, 0).repeat(24, 1)).all()
    lr = pixels(run / "images" / "_lr" / "Set5" / "bird.png")
    assert (cell(grid, 0, LINE) == lr.repeat(24, 0).repeat(24, 1)).all()


def test_rows_are_chosen_by_hash_and_runs_follow_one_another(run, tmp_path):
    """A column that one run lacks stays empty there."""
    one = pixels(write([run], tmp_path / "one.png", Shown(rows=1, methods=["Ours"], hr=False)))
    two = pixels(write([run, run], tmp_path / "two.png", Shown(rows=1, methods=["Ours"], hr=False)))
    assert (two[: len(one)] == one).all() and (two[len(one) + CLOSE :] == one[LINE:]).all()


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    """Ten images of 600x600, of which 16x16 were made first."""
    folder, rng = tmp_path_factory.mktemp("cascade"), np.random.default_rng(0)
    (folder / "cascade.toml").write_text(tomli_w.dumps({"images": 10}))
    for index in range(10):
        for name, side in (("stage_0", 16), ("images", 600)):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(
                folder / name / f"{index:06d}.png"
            )
    return folder


def test_stages_of_a_cascade(cascade, tmp_path):
    grid = pixels(write([cascade], tmp_path / "grid.png", Shown(images=["000003"], stages=True)))
    assert grid.shape == (LINE + LARGEST, 2 * LARGEST + CLOSE, 3)
    assert (grid[LINE:, :LARGEST] == pixels(cascade / "stage_0" / "000003.png").repeat(32, 0).repeat(32, 1)).all()
    with Image.open(cascade / "images" / "000003.png") as last:
        assert (
            grid[LINE:, LARGEST + CLOSE :] == np.asarray(last.resize((LARGEST,) * 2, Image.Resampling.LANCZOS))
        ).all()


def test_a_sheet_of_a_cascade(cascade, tmp_path):
    """All ten in two rows, in their order, without captions."""
    grid = pixels(write([cascade], tmp_path / "grid.png", Shown(rows=2)))
    assert grid.shape == (2 * LARGEST + CLOSE, SHEET * (LARGEST + CLOSE) - CLOSE, 3)
    with Image.open(cascade / "images" / "000009.png") as last:
        expected = np.asarray(last.resize((LARGEST,) * 2, Image.Resampling.LANCZOS))
    assert (grid[LARGEST + CLOSE :, LARGEST + CLOSE : 2 * LARGEST + CLOSE] == expected).all()
    assert (grid[LARGEST + CLOSE :, 2 * (LARGEST + CLOSE) :] == 255).all()


def test_what_is_refused(run, cascade, tmp_path):
    cases = [
        ([run], Shown(images=["Set5/babi"]), 'has no image "Set5/babi": did you mean "Set5/baby"?'),
        ([run], Shown(methods=["Our"]), 'unknown method "Our": did you mean "Ours"?'),
        ([cascade], Shown(images=["000010"]), 'has no image "000010": did you mean'),
    ]
    for folders, shown, message in cases:
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            write(folders, tmp_path / "grid.png", shown)
    (tmp_path / "images").mkdir()
    (tmp_path / "cascade.toml").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "000000.png")
    with pytest.raises(UserError, match="has no stages: make it with keep_stages = true"):
        write([tmp_path], tmp_path / "grid.png", Shown(stages=True))
    with pytest.raises(UserError, match="a figure is written as .png or .pdf"):
        write([run], tmp_path / "grid.svg", Shown())


def test_a_metric_against_steps(write_run, tmp_path):
    """The methods that say their steps, as one line named by what their names share."""
    run = write_run(tmp_path / "run", SIZES, SCORES)
    with pytest.raises(UserError, match=r"no method says its steps: write each = \{ steps"):
        against_steps(run, "psnr")
    sr3 = [{"name": f"SR3 {n}", "kind": "sr3", "checkpoint": "-", "steps": n} for n in (2, 8)]
    config = {"task": "photos_16_64", "metrics": ["psnr"], "data": {"images": "-"}}
    (run / "config.toml").write_text(tomli_w.dumps(config | {"method": [*sr3, {"name": "Ours", "kind": "bicubic"}]}))
    points, label = against_steps(run, "PSNR")
    assert label == "PSNR ↑"
    expected = pd.DataFrame({"method": ["SR3", "SR3"], "steps": [2, 8], "value": [21.0, 31.0]})
    pd.testing.assert_frame_equal(points[["method", "steps", "value"]].reset_index(drop=True), expected)
    with pytest.raises(UserError, match='has no metric "fid": valid: psnr'):
        against_steps(run, "fid")
