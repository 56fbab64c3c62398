"""A metric is a file, or a function of one."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sr3eval import metrics
from sr3eval.errors import UserError

BRIGHTNESS = '''
"""How bright an output is."""

from sr3eval.metrics import Convention, PerImage


def build(*, power: float = 1.0) -> PerImage:
    convention = Convention("brightness", "Brightness", True, f"mean of pixels to the power {power}", needs_hr=False)
    return PerImage(convention, lambda batch: (batch.sr ** power).flatten(1).mean(dim=1))


def build_darkness() -> PerImage:
    convention = Convention("darkness", "Darkness", False, "one less the mean of the pixels", needs_hr=False)
    return PerImage(convention, lambda batch: 1 - batch.sr.flatten(1).mean(dim=1))
'''


@pytest.fixture
def dropped_in(tmp_path, monkeypatch, quick_networks):
    """A new file in the package's folder."""
    (tmp_path / "brightness.py").write_text(BRIGHTNESS)
    (tmp_path / "broken.py").write_text("import a_missing_package\n\n\ndef build(*, power=1.0):\n    pass\n")
    (tmp_path / "_shared.py").write_text("def build():\n    pass\n")
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    yield
    sys.modules.pop("sr3eval.metrics.brightness", None)


def contracts():
    """tests/contracts/test_metrics.py as a module."""
    path = Path(__file__).parents[1] / "contracts" / "test_metrics.py"
    spec = importlib.util.spec_from_file_location("contracts_of_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_new_file_is_a_metric_and_keeps_the_contract(dropped_in, monkeypatch):
    assert {"brightness", "darkness", "broken"} <= set(metrics.available()) and "_shared" not in metrics.available()
    assert metrics.load("brightness", power=2.0).convention.settings == "mean of pixels to the power 2.0"
    with pytest.raises(UserError, match='unknown key "brightness.pover": did you mean "power"'):
        metrics.load("brightness", pover=2.0)
    found = contracts()
    assert set(found.pytestmark[0].args[1]) >= {"brightness", "darkness"}
    for name in ("brightness", "darkness"):
        found.test_any_batch_size_gives_one_pass(name)
        found.test_merged_shards_give_one_pass(name)
        found.test_what_is_missing_is_said_before_work_and_with_the_batch(name)


def test_a_broken_file_breaks_its_metric_alone(dropped_in):
    with pytest.raises(ModuleNotFoundError, match="a_missing_package"):
        metrics.load("broken")
    assert metrics.load("psnr").name == "psnr"


def test_ids_are_what_they_were():
    """Configs and runs name these."""
    named = {
        *("consistency", "fd_efficientnet_lite0", "fid", "inception_score", "kid", "lpips", "precision", "psnr"),
        *("recall", "ssim", "top1_agreement_efficientnet_lite0", "top1_agreement_resnet50", "top1_error", "top5_error"),
    }
    assert named <= set(metrics.available())
