"""Packs from plain folders: the pictures that people have, whole or the same window of each."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study_app.bots import simulate
from study_app.pack import Pack
from tests.study_app.small_study import make_app, open_study, photograph, small_spec
from tests.study_app.test_export import rows_of

SIZES = [(24, 32), (40, 28), (32, 32)]  # width and height, in turn


def write_folders(root: Path, count: int = 14) -> Path:
    """Real pictures as JPEG, low-resolution ones, and outputs of two models, in two folders of photographs each."""
    for i in range(count):
        image_id, (width, height) = f"{'ab'[i % 2]}/{i:02}", SIZES[i % 3]
        real = photograph(image_id, 40).crop((0, 0, width, height))
        lr = real.resize((width // 4, height // 4), Image.Resampling.BOX)
        outputs = {"lr": lr, "My Model": lr.resize(real.size), "other": lr.resize(real.size, Image.Resampling.NEAREST)}
        for folder, picture in outputs.items():
            path = root / folder / f"{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        path = root / "real" / f"{image_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        real.save(path, quality=90)
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture
def command(clock, tmp_path):
    app = make_app(f"sqlite:///{tmp_path / 's.sqlite'}", clock)
    return lambda *line: app.test_cli_runner().invoke(args=["study", "pack", *map(str, line)])


def lines(folders, *options, lr=True):
    models = [folders / "My Model", f"theirs={folders / 'other'}"]
    return [*models, "--real", folders / "real", *(["--lr", folders / "lr"] if lr else []), *options]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_lab_s_own_pictures_make_a_study(folders, command, clock, tmp_path):
    """Of several sizes and without a crop; the groups, here the folders, come out at the end."""
    sizes = ("--practice", 2, "--catch", 4, "--groups", "parent")
    result = command(*lines(folders, *sizes, "--out", tmp_path / "pack"))
    assert result.exit_code == 0, result.output
    manifest = Pack(tmp_path / "pack").manifest
    assert manifest.methods == {"my-model": "My Model", "theirs": "theirs"}
    assert [item.kind for item in manifest.items] == ["practice"] * 2 + ["catch"] * 4 + ["test"] * 8
    for item in manifest.items:
        assert (item.group, item.window) == (item.image_id[0], ())
        for folder, slug in {"real": "hr", "lr": "lr", "My Model": "my-model", "other": "theirs"}.items():
            source = folders / folder / f"{item.image_id}.{'jpg' if folder == 'real' else 'png'}"
            assert np.array_equal(pixels(tmp_path / "pack" / slug / f"{item.image_id}.png"), pixels(source))
    app = make_app(f"sqlite:///{tmp_path / 'study.sqlite'}", clock)
    spec = small_spec(task=1, min_viewport=(400, 300))
    open_study(app, tmp_path / "pack", spec, models=["My Model", "theirs"])
    overview = app.extensions["study_service"].overview("study")
    assert (overview.width, overview.height) == (40, 32)  # what the widest and the highest picture need
    assert simulate(app, "study", {"My Model": 0.5, "theirs": 0.5}, 0, clock, subjects=1) == 1
    rows = rows_of(app)
    assert all(row["group"] == row["image_id"][0] for row in rows) and "group" in rows[0]


def test_a_crop_is_the_same_window_of_every_picture(folders, command, tmp_path):
    options = ("--practice", 1, "--catch", 1, "--crop", 24)
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert command(*lines(folders, *options, "--seed", seed, "--out", tmp_path / out)).exit_code == 0
    windows = {out: {item.image_id: item.window for item in Pack(tmp_path / out).manifest.items} for out in "abc"}
    assert windows["a"] == windows["b"] and windows["a"] != windows["c"]
    assert len({window for image_id, window in windows["a"].items() if pixels_wide(image_id) > 24}) > 3
    for image_id, (left, top, width, height) in windows["a"].items():
        assert left % 4 == top % 4 == 0 and (width, height) == (24, 24)
        for folder, slug, scale in (("real", "hr", 1), ("lr", "lr", 4), ("My Model", "my-model", 1)):
            source = pixels(next((folders / folder).glob(f"{image_id}.*")))
            x, y, w, h = (edge // scale for edge in (left, top, width, height))
            cut = pixels(tmp_path / "a" / slug / f"{image_id}.png")
            assert np.array_equal(cut, source[y : y + h, x : x + w])


def pixels_wide(image_id):
    return SIZES[int(image_id[-2:]) % 3][0]


def test_windows_and_groups_from_tables(folders, command, tmp_path):
    ids = [f"{'ab'[i % 2]}/{i:02}" for i in range(14)]
    (tmp_path / "windows.csv").write_text("image_id,left,top\n" + "".join(f"{i},0,4\n" for i in ids))
    (tmp_path / "per_image.csv").write_text(
        "task,method,image_id,metric,value,group,dataset\n" + "".join(f"t,m,{i},psnr,1,photo {i[-1]},\n" for i in ids)
    )
    tables = ("--windows", tmp_path / "windows.csv", "--groups", tmp_path / "per_image.csv", "--crop", 24)
    result = command(*lines(folders, *tables, "--practice", 0, "--catch", 0, "--out", tmp_path / "pack", lr=False))
    assert result.exit_code == 0, result.output
    for item in Pack(tmp_path / "pack").manifest.items:
        assert item.window == (0, 4, 24, 24) and item.group == f"photo {item.image_id[-1]}"


def lacks(root):
    (root / "other" / "a" / "00.png").unlink()


def resized(root):
    photograph("x", 8).save(root / "My Model" / "a" / "00.png")


def damaged(root):
    (root / "real" / "a" / "00.jpg").write_bytes(b"no picture")


def outside(root):
    (root / "w.csv").write_text("image_id,left,top\n" + "".join(f"{'ab'[i % 2]}/{i:02},12,0\n" for i in range(14)))


def incomplete(root):
    (root / "w.csv").write_text("image_id,left,top\na/00,0,0\n")


def misnamed(root):
    (root / "w.csv").write_text("image,x,y\na/00,0,0\n")


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (lacks, (), 'other: has no "a/00", which'),
        (resized, (), "00.png: is 8x8, the image's other pictures are 24x32"),
        (damaged, (), "00.jpg: not a readable picture"),
        (outside, ("--crop", 20, "--windows", "{root}/w.csv"), "the window at 12,0 of 20x20 is not in 24x32"),
        (incomplete, ("--crop", 20, "--windows", "{root}/w.csv"), "w.csv: has no image"),
        (misnamed, ("--crop", 20, "--windows", "{root}/w.csv"), "w.csv: has no rows with image_id, left, top"),
        (misnamed, ("--groups", "{root}/none.csv"), "none.csv: not a readable table"),
        (incomplete, ("--crop", 22), "--crop 22: must be a multiple of 4"),
        (incomplete, ("--windows", "{root}/w.csv"), "and --crop how large: give both"),
        (incomplete, ("--catch", 14), "14 images would leave none to test"),
        (incomplete, ("--real", "{root}/none"), "none: no such folder"),
    ],
)
def test_folders_that_cannot_be_packed(command, tmp_path, damage, options, message):
    root = write_folders(tmp_path / "folders")
    damage(root)
    few = ("--practice", 1, "--catch", 1, "--test", 14)
    result = command(*lines(root, *few, *(str(o).format(root=root) for o in options), "--out", tmp_path / "pack"))
    assert result.exit_code != 0 and "Error: " in result.output and message in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folders"]


def test_the_first_format_has_no_groups(pack):
    assert json.loads((pack / "manifest.json").read_text())["format"] == 1
    assert {item.group for item in Pack(pack).manifest.items} == {""}
