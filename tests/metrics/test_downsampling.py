"""The table of downsampling conventions: how far other libraries' operators are from ours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data
from skimage.transform import resize

from sr3eval.images import area_down, bicubic_down

PHOTO = data.astronaut()


def float_pillow(filter_name):
    """By channel in mode F."""
    how = Image.Resampling[filter_name]
    return lambda side: np.stack(
        [np.asarray(Image.fromarray(PHOTO[..., c].astype(np.float32)).resize((side, side), how)) for c in range(3)], 2
    )


def uint8_pillow(filter_name):
    how = Image.Resampling[filter_name]
    return lambda side: np.asarray(Image.fromarray(PHOTO).resize((side, side), how)).astype(float)


def torch_without_antialias(side):
    images = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].double()
    return F.interpolate(images, (side, side), mode="bicubic", antialias=False)[0].permute(1, 2, 0).numpy()


def skimage_gaussian(side):
    return resize(PHOTO.astype(float), (side, side, 3), order=3, anti_aliasing=True)


def ours(side, dtype=torch.float64):
    levels = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].to(dtype)
    return bicubic_down(levels / 255, (side, side))[0].permute(1, 2, 0).numpy() * 255


# operator, scale, largest and mean difference in levels of 255, mean square x 1e5 in [0, 1], all as printed; overshoots
# of either side are clipped.
TABLE = [
    (float_pillow("BICUBIC"), 4, "0.0000", "0.0000", "0.000"),
    (float_pillow("BICUBIC"), 8, "0.0000", "0.0000", "0.000"),
    (uint8_pillow("BICUBIC"), 4, "3.6", "0.24", "0.149"),
    (uint8_pillow("BICUBIC"), 8, "6.3", "0.24", "0.167"),
    (lambda side: ours(side).round(), 4, "0.5", "0.22", "0.114"),
    (lambda side: ours(side).round(), 8, "0.5", "0.22", "0.115"),
    (float_pillow("LANCZOS"), 4, "16.7", "1.13", "5.6"),
    (float_pillow("LANCZOS"), 8, "14.9", "1.64", "9.7"),
    (float_pillow("BOX"), 4, "26.3", "1.38", "9.6"),
    (float_pillow("BOX"), 8, "30.1", "2.08", "17.6"),
    (skimage_gaussian, 4, "21.9", "1.52", "10.3"),
    (skimage_gaussian, 8, "28.6", "3.36", "41.1"),
    (float_pillow("BILINEAR"), 4, "31.2", "2.08", "19.2"),
    (float_pillow("BILINEAR"), 8, "23.9", "2.94", "31.5"),
    (torch_without_antialias, 4, "108", "5.43", "185"),
    (torch_without_antialias, 8, "130", "10.1", "508"),
]


@pytest.mark.parametrize(("operator", "scale", "largest", "mean", "floor"), TABLE)
def test_distance_from_ours(operator, scale, largest, mean, floor):
    difference = np.abs(operator(512 // scale).clip(0, 255) - ours(512 // scale).clip(0, 255))
    found = difference.max(), difference.mean(), (difference**2).mean() / 255**2 * 1e5
    for value, printed in zip(found, (largest, mean, floor), strict=True):
        last_digit = 10.0 ** -len(printed.partition(".")[2])
        assert value == pytest.approx(float(printed), abs=0.501 * last_digit)


@pytest.mark.parametrize("scale", [4, 8])
def test_it_is_pillow_s_in_floats_and_float32_is_enough(scale):
    """Overshoots included."""
    assert np.abs(float_pillow("BICUBIC")(512 // scale) - ours(512 // scale)).max() < 1e-4
    assert np.abs(ours(512 // scale, torch.float32) - ours(512 // scale)).max() < 1e-3


@pytest.mark.parametrize("scale", [4, 8])
def test_area_is_the_box(scale):
    """Our area = Pillow's BOX in floats = torch's area, for whole factors."""
    levels = torch.from_numpy(PHOTO).permute(2, 0, 1).double()
    side = 512 // scale
    mean = area_down(levels, (side, side))
    assert np.abs(mean.permute(1, 2, 0).numpy() - float_pillow("BOX")(side)).max() < 1e-4
    assert (mean - F.interpolate(levels[None], (side, side), mode="area")[0]).abs().max() < 1e-9
