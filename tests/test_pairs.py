"""HR and LR by their names: the schemes of published sets, sizes that do not fit, images of one side alone."""

import pytest
import torch

from sr3eval.errors import UserError
from sr3eval.images import load, save
from sr3eval.pairs import Pair, find_pairs
from sr3eval.tasks import Task

FILES = Task("x4", 4, lr="files")


def write(folder, **sizes):
    """Noise of these (height, width) under these names."""
    for seed, (name, size) in enumerate(sizes.items()):
        save(folder / f"{name}.png", torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)))
    return folder


@pytest.mark.parametrize(
    ("hr", "lr", "patterns"),
    [
        ("0801", "0801", (None, None)),
        ("0801", "0801x4", (None, "(?P<id>.+)x4")),  # DIV2K
        ("Canon_001_HR", "Canon_001_LR4", ("(?P<id>.+)_HR", "(?P<id>.+)_LR4")),  # RealSR, in one folder or two
    ],
)
def test_naming_schemes(tmp_path, hr, lr, patterns):
    pairs = find_pairs(write(tmp_path / "HR", **{hr: (32, 40)}), write(tmp_path / "LR", **{lr: (8, 10)}), *patterns)
    assert list(pairs.values()) == [Pair(tmp_path / "HR" / f"{hr}.png", tmp_path / "LR" / f"{lr}.png")]
    assert next(iter(pairs)) in hr


def test_one_folder_for_both(tmp_path):
    write(tmp_path, a_HR=(32, 40), a_LR4=(8, 10), b_HR=(16, 16), b_LR4=(4, 4))
    pairs = find_pairs(tmp_path, tmp_path, "(?P<id>.+)_HR", "(?P<id>.+)_LR4")
    assert {i: pair.size(FILES) for i, pair in pairs.items()} == {"a": (32, 40), "b": (16, 16)}


def test_given_inputs_are_read_and_not_made(tmp_path):
    write(tmp_path / "HR", a=(34, 43))
    write(tmp_path / "LR", a=(8, 10), other=(1, 1)).joinpath("other.png").unlink()
    pair = find_pairs(tmp_path / "HR", tmp_path / "LR", None, None)["a"]
    hr, lr = pair.load(FILES, pair.size(FILES), seed=0)
    assert torch.equal(hr, load(tmp_path / "HR" / "a.png")[:, :32, :40])
    assert torch.equal(lr, load(tmp_path / "LR" / "a.png"))


def test_lr_alone(tmp_path):
    pair = find_pairs(None, write(tmp_path, a=(8, 10)), None, None)["a"]
    assert pair.size(FILES) == (32, 40) and pair.is_large_enough(FILES)
    hr, lr = pair.load(FILES, (32, 40), seed=0)
    assert hr is None and torch.equal(lr, load(tmp_path / "a.png"))


def test_a_pixel_too_many_is_cut_where_the_config_says_so(tmp_path):
    pair = find_pairs(write(tmp_path / "HR", a=(34, 43)), write(tmp_path / "LR", a=(9, 11)), None, None)["a"]
    with pytest.raises(UserError, match=r'a\.png: 11x9 is not 1/4 of 43x34, a\.png; data\.crop = "common" cuts both'):
        pair.size(FILES)
    assert pair.size(FILES, "common") == (32, 40)
    hr, lr = pair.load(FILES, (32, 40), seed=0)
    assert hr is not None and hr.shape[1:] == (32, 40) and lr.shape[1:] == (8, 10)
    assert torch.equal(lr, load(tmp_path / "LR" / "a.png")[:, :8, :10])
    smaller = find_pairs(tmp_path / "HR", write(tmp_path / "small", a=(7, 10)), None, None)["a"]
    assert smaller.size(FILES, "common") == (28, 40)


def test_another_scale_is_refused_whatever_the_config_says(tmp_path):
    pair = find_pairs(write(tmp_path / "HR", a=(32, 40)), write(tmp_path / "LR", a=(16, 20)), None, None)["a"]
    for crop in ("exact", "common"):
        with pytest.raises(UserError, match="20x16 is not 1/4 of 40x32") as caught:
            pair.size(FILES, crop)
        assert "cuts both" not in str(caught.value)


def test_images_of_one_side_are_counted(tmp_path):
    write(tmp_path / "HR", a=(8, 8), b=(8, 8))
    write(tmp_path / "LR", b=(2, 2), cx4=(2, 2), dx4=(2, 2))
    with pytest.raises(UserError) as caught:
        find_pairs(tmp_path / "HR", tmp_path / "LR", None, None)
    assert "1 image without LR in" in str(caught.value) and "2 images without HR in" in str(caught.value)
    assert "(first: a)" in str(caught.value) and '"(?P<id>.+)x4"' in str(caught.value)
    with pytest.raises(UserError, match=r"none of its 3 images matches \(\?P<id>\.\+\)x3"):
        find_pairs(tmp_path / "HR", tmp_path / "LR", None, "(?P<id>.+)x3")
