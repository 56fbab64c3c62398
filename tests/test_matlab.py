"""MATLAB's imresize and luma: by hand in fractions, and against BasicSR's."""

import math
import runpy
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sr3eval import matlab
from sr3eval.errors import UserError
from sr3eval.images import bicubic_down
from sr3eval.metrics._plane import plane
from sr3eval.metrics.psnr import psnr
from sr3eval.metrics.ssim import ssim

GOLDENS = Path(__file__).parent / "goldens"


BASICSR = SimpleNamespace(**runpy.run_path(str(GOLDENS / "basicsr.py")))
GOLDEN = np.load(GOLDENS / "basicsr.npz")


def cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)


def by_hand(line: list[int], scale: Fraction, size: int) -> list[Fraction]:
    """imresize of a line in exact fractions, every input pixel and its mirror images tried in turn."""
    mirrored = [*line, *line[::-1]]
    narrow = min(scale, Fraction(1))
    out = []
    for k in range(1, size + 1):  # MATLAB counts from 1
        centre = k / scale + (1 - 1 / scale) / 2
        weights = {j: cubic((centre - j) * narrow) for j in range(-60, 120)}
        values = sum(weight * mirrored[(j - 1) % len(mirrored)] for j, weight in weights.items())
        out.append(values / sum(weights.values()))
    return out


LINES = {"ramp": list(range(0, 240, 20)), "impulse": [0] * 5 + [255] + [0] * 7, "short": [10, 200, 30]}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("scale", ["1/2", "1/3", "1/4", "1/8", "2", "3", "5/4"])
def test_it_is_the_formula(line, scale):
    scale, pixels = Fraction(scale), torch.tensor(LINES[line], dtype=torch.float64)
    expected = by_hand(LINES[line], scale, math.ceil(scale * len(pixels)))
    across = matlab.imresize(pixels.expand(1, 4, -1), float(scale))
    along = matlab.imresize(pixels[:, None].expand(1, -1, 4), float(scale))
    for found in (across[0, 0], along[0, :, 0]):
        assert found.tolist() == pytest.approx([float(value) for value in expected], abs=1e-10)


def test_an_impulse_enlarged_twice_shows_the_kernel():
    """Offsets of a quarter pixel: 1.5/64 - 2.5/16 + 1 = 111/128, and so on."""
    pixels = torch.zeros(1, 1, 9, dtype=torch.float64)
    pixels[0, 0, 4] = 128
    assert matlab.imresize(pixels, 2)[0, 0, 5:13].tolist() == [-3, -9, 29, 111, 111, 29, -9, -3]


@pytest.mark.parametrize(("shape", "scale"), BASICSR.SHRUNK + BASICSR.ENLARGED)
def test_it_equals_basicsr_s(shape, scale):
    """Whose float32 arithmetic is off by up to 3e-7."""
    expected = GOLDEN[f"imresize {'x'.join(map(str, shape))} {scale:.4g}"]
    found = matlab.imresize(torch.from_numpy(BASICSR.image(shape)), scale)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() < 1e-6


def test_it_is_pillow_s_bicubic_but_for_the_border():
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    difference = (matlab.imresize(images, 0.25) - bicubic_down(images, (16, 24))).abs()
    assert difference[..., 2:-2, 2:-2].max() < 1e-12 < 1e-3 < difference.max()


def test_8_bit_images_are_rounded_after_each_pass_with_halves_up():
    """By hand, in NumPy: which dimension goes first shows in the levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16))

    def rounded(lines: np.ndarray, size: int) -> np.ndarray:
        exact = [by_hand(column.tolist(), Fraction(size, len(column)), size) for column in lines.T]
        return np.array([[min(255, max(0, math.floor(v + Fraction(1, 2)))) for v in column] for column in exact]).T

    rows_first = rounded(rounded(pixels, 4).T, 8).T
    columns_first = rounded(rounded(pixels.T, 3).T, 6)
    image = torch.from_numpy(pixels).to(torch.uint8)[None]
    assert matlab.imresize(image, (4, 8))[0].tolist() == rows_first.tolist()
    assert matlab.imresize(image, (6, 3))[0].tolist() == columns_first.tolist()
    once = matlab.to_8bit(matlab.imresize(image.double() / 255, (4, 8)))[0]
    assert 0 < (once.numpy() != rows_first).mean() < 0.5


def test_a_size_is_a_factor_and_every_plane_is_resized_alone():
    images = torch.rand(2, 3, 12, 9)
    assert torch.equal(matlab.imresize(images, (4, 3)), matlab.imresize(images, 1 / 3))
    assert torch.equal(matlab.imresize(images, 2)[1, 2:], matlab.imresize(images[1, 2:], 2))


@pytest.mark.parametrize("scale", [0, -1.0, math.inf, math.nan, (0, 4)])
def test_a_scale_is_positive(scale):
    with pytest.raises(UserError, match="imresize: .* is not positive"):
        matlab.imresize(torch.zeros(3, 8, 8), scale)


def test_luma_is_rounded_of_8_bit_images_alone():
    """Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255: 81.481 of red, 125.5 of 127.5."""
    red = torch.tensor([1.0, 0, 0], dtype=torch.float64).view(3, 1, 1)
    assert (matlab.luma(red) * 255).item() == pytest.approx(81.481)
    assert matlab.luma((red * 255).to(torch.uint8)).item() == 81
    assert matlab.luma(torch.full((2, 3, 4, 5), 255, dtype=torch.uint8)).unique().tolist() == [235]
    assert matlab.to_8bit(torch.tensor([0.5, 1.5, -1, 300]) / 255).tolist() == [1, 2, 0, 255]


@pytest.mark.parametrize("i", range(BASICSR.PAIRS))
@pytest.mark.parametrize(("metric", "column", "tolerance"), [(psnr, 0, 1e-5), (ssim, 1, 1e-6)], ids=["psnr", "ssim"])
def test_psnr_and_ssim_of_y_with_a_border_equal_basicsr_s(i, metric, column, tolerance):
    """calculate_psnr and calculate_ssim of levels of 255, with crop_border=4 and test_y_channel=True."""
    images = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255 for image in BASICSR.pair(i)]
    assert metric(*(plane(image, "y", 4) for image in images)).item() == pytest.approx(
        GOLDEN["scores"][i, column], abs=tolerance
    )
