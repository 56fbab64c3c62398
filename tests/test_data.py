"""Folders, choices and splits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sr3eval import data, folders
from sr3eval.errors import UserError
from sr3eval.folders import SUFFIXES
from sr3eval.tasks import TASKS, get


def make(folder, *names, size=(8, 8)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(folder / name)


def test_finds_images_recursively_by_id(tmp_path):
    make(tmp_path, "b.png", "a/x.jpg", "a/y.tif", ".hidden/z.png")
    (tmp_path / "notes.txt").write_text("-")
    assert list(folders.find_images(tmp_path)) == ["a/x", "a/y", "b"]


def test_suffixes_are_those_that_pillow_reads(tmp_path):
    Image.init()
    registered = Image.registered_extensions()
    readable = {suffix for suffix, format in registered.items() if format in {*Image.OPEN, "MPO"}}
    assert SUFFIXES - {".avif"} <= readable
    for suffix in (".jfif", ".jpe", ".TGA", ".pcx", ".pbm", ".pnm", ".dib", ".j2k", ".apng"):
        (tmp_path / f"{suffix[1:]}{suffix}").touch()
    assert len(folders.find_images(tmp_path)) == 9


def test_linked_folders_are_followed_once_round(tmp_path):
    make(tmp_path, "set/a.png", "elsewhere/b.png", "elsewhere/more/c.png")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/itself").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere/more/up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/gone").symlink_to("gone")
    assert list(folders.find_images(tmp_path / "set")) == ["a", "linked/b", "linked/more/c"]


def test_folders_named_like_images_are_not_images(tmp_path):
    make(tmp_path, "x.png/a.png")
    assert list(folders.find_images(tmp_path)) == ["x.png/a"]


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/a.png"])
def test_a_name_that_is_not_utf8_is_refused(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    try:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(UserError, match=r"caf\\udce9.*is not valid UTF-8"):
        folders.find_images(tmp_path)


def test_bad_folders_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: not a folder"):
        folders.find_images(tmp_path / "file")
    with pytest.raises(UserError, match="no such folder"):
        folders.find_images(tmp_path / "absent")
    with pytest.raises(UserError, match="no images"):
        folders.find_images(tmp_path)
    make(tmp_path, "a.png", "a.jpg")
    with pytest.raises(UserError, match='two images share the id "a"'):
        folders.find_images(tmp_path)


def test_choice_is_spread_over_the_groups_and_stable():
    ids = [f"{group}/{i}" for group in "abcd" for i in range(20)]
    chosen = data.choose(ids, 10)
    assert chosen == data.choose(ids[::-1], 10)
    counts = [sum(i.startswith(group) for i in chosen) for group in "abcd"]
    assert sorted(counts) == [2, 2, 3, 3]
    assert set(data.choose(ids, 6)) < set(chosen)


def test_an_ascii_locale_is_told_to_set_utf8_mode(tmp_path):
    (tmp_path / "日本 ü").mkdir()
    (tmp_path / "日本 ü" / "0.png").touch()
    code = (
        "import sys; from pathlib import Path; from sr3eval.folders import find_images; find_images(Path(sys.argv[1]))"
    )
    ascii_only = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(Path(data.__file__).parents[1]),
    }
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env=ascii_only)
    assert "UserError" in done.stderr and "set PYTHONUTF8=1" in done.stderr


@given(st.sets(st.text(min_size=1), min_size=1, max_size=60), st.text(min_size=1))
def test_split_does_not_move_when_ids_are_added(ids, new):
    training, held = data.split(sorted(ids), 0.3)
    assert sorted(training + held) == sorted(ids)
    training_after, held_after = data.split(sorted(ids | {new}), 0.3)
    assert set(training) <= set(training_after)
    assert set(held) <= set(held_after)


def test_small_images_are_left_out_and_counted(tmp_path):
    make(tmp_path, "small.png", size=(100, 15))
    make(tmp_path, "large.png", size=(16, 100))
    kept, left_out = data.large_enough(folders.find_images(tmp_path), 16)
    assert (list(kept), left_out) == (["large"], ["small"])


def test_sizes_are_known_without_the_pixels(tmp_path):
    make(tmp_path, "a.png", size=(300, 200))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: whole.index(b"IDAT") + 20])
    assert list(data.large_enough(folders.find_images(tmp_path), 200)[0]) == ["a"]


def test_hr_is_the_central_square_by_area(tmp_path):
    task = TASKS["photos_16_64"]
    wide = torch.zeros(3, 128, 200)
    wide[..., 36:164] = torch.rand(3, 128, 128)
    expected = wide[..., 36:164].reshape(3, 64, 2, 64, 2).mean(dim=(2, 4))
    assert (task.prepare(wide) - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_classifier_task_is_framed_as_classifiers_are_evaluated():
    """Short side to 256, centre of 224: seven eighths of the central square."""
    wide = torch.rand(3, 512, 600, generator=torch.Generator().manual_seed(0))
    expected = wide[..., 44:556].reshape(3, 256, 2, 256, 2).mean(dim=(2, 4))[..., 16:240, 16:240]
    assert (TASKS["imagenet_56_224"].prepare(wide) - expected).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(UserError, match="below 256 pixels"):
        TASKS["imagenet_56_224"].prepare(wide[:, :250])


@pytest.mark.parametrize("name", TASKS)
def test_every_task_makes_8_bit_inputs_of_its_size(name):
    task = get(name)
    lr = task.degrade(torch.rand(2, 3, task.hr_size, task.hr_size))
    assert lr.shape == (2, 3, task.lr_size, task.lr_size)
    assert torch.equal((lr * 255).round() / 255, lr)


def test_unknown_task_names_the_nearest():
    with pytest.raises(UserError, match='did you mean "photos_16_64"'):
        get("photo_16_64")
