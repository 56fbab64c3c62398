"""Anyone's own metric."""

import math

import pytest
import torch

from sr3eval import metrics
from sr3eval.errors import UserError
from sr3eval.metrics import Batch

FUNCTION = """
def build(*, power: float = 1.0):
    return lambda batch: (batch.sr ** power).flatten(1).mean(dim=1)
"""
METRIC = """
from sr3eval.metrics import Convention, PerImage

def build():
    convention = Convention("theirs", "Theirs", True, "the highest pixel", decimals=1, needs_hr=False)
    return PerImage(convention, lambda batch: batch.sr.amax(dim=(1, 2, 3)))
"""
SR = torch.full((2, 3, 4, 4), 0.5) * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)


@pytest.fixture
def own(tmp_path):
    """Write code, and load it as a metric."""

    def load(code, **options):
        (tmp_path / "mine.py").write_text(code)
        return metrics.load("python", python=f"{tmp_path / 'mine.py'}:build", **{"name": "mine"} | options)

    return load


def test_a_function_scores_images_and_the_config_says_what_it_is(own):
    about = {"label": "Brightness", "unit": "%", "decimals": 1, "needs_hr": False}
    metric = own(FUNCTION, power=2.0, higher_is_better=True, **about)
    metric.update(Batch(["a", "b"], SR))
    assert metric.compute().per_image == {"a": 0.25, "b": 0.0625}
    convention = metric.convention
    assert (convention.name, convention.higher_is_better, convention.settings) == (
        "mine",
        True,
        "mine.py:build, power = 2.0",
    )
    assert {name: getattr(convention, name) for name in about} == about


def test_a_metric_declares_itself(own):
    metric = own(METRIC)
    metric.update(Batch(["a", "b"], SR))
    assert metric.compute().per_image == {"a": 0.5, "b": 0.25}
    assert (metric.name, metric.convention.label, metric.convention.decimals) == ("mine", "Theirs", 1)
    with pytest.raises(UserError, match="declares decimals itself: leave it out"):
        own(METRIC, decimals=3)


def test_without_a_name_it_is_called_as_it_declares_or_as_its_file(own):
    assert own(METRIC, name=None).name == "theirs"
    metric = own(FUNCTION, name=None, higher_is_better=True)
    assert (metric.name, metric.convention.label) == ("mine", "mine")


def test_another_code_is_another_version(own):
    versions = [own(code, higher_is_better=True).convention.version for code in (FUNCTION, FUNCTION + "\n# edited\n")]
    assert versions[0] == own(FUNCTION, higher_is_better=True).convention.version != versions[1]
    assert own(METRIC).convention.version != own(METRIC + "\n# edited\n").convention.version


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (FUNCTION, {}, 'missing key "metric "mine".higher_is_better"'),
        (FUNCTION, {"higher_is_better": "yes"}, "must be true or false"),
        (FUNCTION, {"higher_is_better": True, "pover": 2.0}, 'unknown key "mine.pover": did you mean "power"'),
        (FUNCTION.replace("build", "make"), {"higher_is_better": True}, "mine.py: has no function build"),
        ("def build():\n    return 3\n", {"higher_is_better": True}, "returns int; wanted a function of a Batch"),
        ("def build():\n    return 1 / 0\n", {}, "mine.py, line 2 .*ZeroDivisionError"),
    ],
)
def test_mistakes_are_told_before_work(own, code, options, message):
    with pytest.raises(UserError, match=message) as error:
        own(code, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("batch.sr.mean()", r"scores of the shape \(\) for 2 images"),
        ("batch.sr.flatten(1)", r"scores of the shape \(2, 48\) for 2 images"),
        ("batch.missing", "mine.py, line 2 .*AttributeError"),
        ("batch.sr - batch.sr[:, :2]", "mine.py, line 2 .*RuntimeError"),
    ],
)
def test_mistakes_in_the_score_are_told_in_one_line(own, score, message):
    metric = own(f"def build():\n    return lambda batch: {score}\n", higher_is_better=True, needs_hr=False)
    with pytest.raises(UserError, match=message) as error:
        metric.update(Batch(["a", "b"], SR))
    assert "\n" not in str(error.value)


def test_lists_are_scores_too_and_what_is_not_finite_is_left_out_of_the_mean(own):
    code = "def build():\n    return lambda batch: [float('nan'), 2]\n"
    metric = own(code, higher_is_better=False, needs_hr=False)
    metric.update(Batch(["a", "b"], SR))
    result = metric.compute()
    assert (result.value, result.n, math.isnan(result.per_image["a"])) == (2, 1, True)
