"""Means and tests of a table: over the same images for every method, and the true reason where there is none."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmark import main
from sr3eval import metrics
from sr3eval.benchmark import summary, table
from sr3eval.benchmark.intervals import bootstrap_interval, sign_flip_p
from sr3eval.benchmark.scores import Scores

PSNR = metrics.load("psnr")
CEILING = 20 * math.log10(510)  # of an error of half a level: 54.15 dB


def summarise(metric="psnr", **methods):
    """results.csv of methods by name, each with its scores image by image."""
    rows = [
        ("photos_16_64", name, str(i), metric, value, str(i))
        for name, v in methods.items()
        for i, value in enumerate(v)
    ]
    per_image = pd.DataFrame(rows, columns=["task", "method", "image_id", "metric", "value", "group"])
    described = pd.DataFrame({"task": "photos_16_64", "method": list(methods), "images": "", "method_notes": ""})
    described = described.assign(method_settings="", method_warning="", n_too_small=0, n_unreadable=0)
    sets = pd.DataFrame(columns=["task", "method", "metric", "left_out", "value", "n"])
    seeds = pd.DataFrame(columns=["task", "method", "metric", "seed", "value"])
    conventions = {metric: (True, PSNR.settings)}
    return summary.summarise(Scores(per_image, sets, seeds, described), conventions).set_index("method")


def test_a_method_that_equals_hr_is_not_worse_for_it():
    """12 images: A equals HR in 10 and has 26.5 dB in 2; B has 42 dB in all."""
    inf = math.inf
    results = summarise(A=[inf] * 10 + [26.5] * 2, B=[42.0] * 12)
    assert results.loc["A", "value"] == pytest.approx((10 * CEILING + 2 * 26.5) / 12, rel=1e-12)
    assert results["best"].to_dict() == {"A": True, "B": False}
    assert results["n"].tolist() == [12, 12] and results["n_infinite"].tolist() == [10, 0]
    differences = np.array([42 - CEILING] * 10 + [42 - 26.5] * 2)
    groups = np.arange(12).astype(str).astype(object)
    assert results.loc["B", "delta_to_best"] == pytest.approx(differences.mean(), rel=1e-12)
    assert results.loc["B", "p_value"] == sign_flip_p(differences, groups)
    ends = bootstrap_interval(np.array([CEILING] * 10 + [26.5] * 2), groups)
    assert tuple(results.loc["A", ["ci_low", "ci_high"]]) == pytest.approx(ends, rel=1e-12)
    text = table.markdown(results.reset_index())
    assert text.count("‡") == 2 and "| **49.54**‡ [" in text
    assert "‡: images equal to HR count as 54.15 dB, an error of half a grey level, in PSNR: 10 of A." in text
    assert f"of at most {CEILING:.2f} dB an image" in text


def test_nothing_is_better_than_identical():
    """One pixel that is one level off has 89 dB: in a mean, no more than no error at all."""
    nearly = 10 * math.log10(255**2 * 64 * 64 * 3)
    results = summarise(A=[math.inf] * 4, B=[nearly] * 4, C=[30.0] * 4)
    assert results.loc[["A", "B"], "value"].tolist() == pytest.approx([CEILING] * 2)
    assert results["best"].tolist() == [True, True, False]


def test_an_infinity_is_no_want_of_groups():
    """Four methods, 12 images, one of them HR itself: there is a test, and it finds the difference."""
    rng = np.random.default_rng(0)
    results = summarise(HR=[math.inf] * 12, **{name: rng.normal(30, 1, 12) for name in "BCD"})
    assert results.loc[list("BCD"), "testable"].eq(True).all()
    assert (results.loc[list("BCD"), "p_value"] < 0.05).all()
    assert "Too few groups" not in table.markdown(results.reset_index())


def test_images_without_a_score_in_one_method_are_left_out_of_all():
    results = summarise("sharpness", A=[1.0, 2.0, math.nan, 4.0], B=[5.0, 1.0, 9.0, math.inf])
    assert results["value"].tolist() == [1.5, 3.0]
    assert results["n"].tolist() == [2, 2]
    assert "sharpness: 2 images without a finite score in some method, left out of all." in table.markdown(
        results.reset_index()
    )


def test_no_common_image_is_not_too_few_groups():
    results = summarise("sharpness", A=[1.0, math.nan], B=[math.nan, 2.0])
    text = table.markdown(results.reset_index())
    assert "Too few groups" not in text and "nan" not in text
    assert "2 images without a finite score" in text


def test_the_reference_keeps_its_infinity():
    results = summarise(reference=[math.inf] * 3, A=[30.0, 31.0, 32.0])
    assert results.loc["reference", "value"] == math.inf
    assert not results.loc["reference", "best"] and results.loc["A", "best"]
    assert "‡" not in table.markdown(results.reset_index())


def test_the_metric_itself_has_the_same_mean():
    metric = metrics.PerImage("psnr_y", lambda batch: None, True, "")
    metric.state = {"a": math.inf, "b": 30.0}
    assert metric.compute().value == pytest.approx((CEILING + 30) / 2)
    assert metric.compute().per_image == {"a": math.inf, "b": 30.0}
    assert metrics.ceiling("psnr_y_b4") == metrics.ceiling("psnr") == pytest.approx(CEILING)
    assert metrics.ceiling("ssim") == math.inf


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("metrics", r"^psnr +Peak signal-to-noise ratio$"),
        ("methods", r"^bicubic +Bicubic interpolation .*$"),
        ("methods", r"^esrgan +ESRGAN \(Wang et al. 2018.*$"),
        ("protocols", r"^paper +psnr: RGB, 8-bit outputs, border 0 px cut.*$"),
        ("tasks", r"^photos_16_64 +16x16 to 64x64 pixels, free photographs$"),
    ],
)
def test_what_there_is_can_be_listed(what, expected):

    result = CliRunner().invoke(main, ["list", what])
    assert result.exit_code == 0, result.stderr
    assert re.search(expected, result.stdout, re.MULTILINE)
    assert all(len(line.split(maxsplit=1)) == 2 for line in result.stdout.strip().splitlines())
