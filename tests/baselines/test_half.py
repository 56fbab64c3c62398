"""Half precision: refused without a GPU, and floats in and out around it."""

import pytest
import torch

import baselines
from baselines import _one_pass, spandrel
from baselines._rrdb import RRDBNet
from sr3eval.errors import UserError
from sr3eval.weights import read

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weights(saved):
    torch.manual_seed(0)
    return saved(RRDBNet(8, 2, 32).state_dict() | {"conv_last.bias": torch.full((3,), 0.5)})


@pytest.fixture
def lr():
    return torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def compare(kind, weights, lr, **options):
    """Largest difference from single precision."""
    single, half = (
        baselines.load(kind, weights=weights, quantize="none", half=half, **options).upscale(lr, [0, 0]).images
        for half in (False, True)
    )
    assert half.dtype == torch.float32 and half.shape == single.shape
    return float((half - single).abs().max())


@pytest.mark.parametrize("kind", ["esrgan", "spandrel"])
def test_needs_a_gpu(kind, weights, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="^half = true: half precision needs a GPU, and this machine has none"):
        baselines.load(kind, weights=weights, half=True)


@pytest.mark.parametrize("options", [{}, {"tile": 8, "overlap": 4}])
@pytest.mark.parametrize("kind", ["esrgan", "spandrel"])
def test_outputs_are_near_those_of_single_precision(kind, weights, lr, options, monkeypatch):
    """On the CPU, which computes in half precision, too, if slowly."""
    for module in (_one_pass, spandrel):
        monkeypatch.setattr(module, "precision", lambda half, _: torch.float16 if half else torch.float32)
    assert 0 < compare(kind, weights, lr, **options) < 2e-3


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["esrgan", "spandrel"])
def test_on_a_gpu(kind, weights, lr):
    assert 0 < compare(kind, weights, lr) < 2e-3


def test_is_part_of_the_fingerprint(weights, monkeypatch):
    monkeypatch.setattr(_one_pass, "precision", lambda half, _: torch.float16 if half else torch.float32)
    fingerprints = {baselines.load("esrgan", weights=weights, half=half).fingerprint for half in (False, True)}
    assert len(fingerprints) == 2


def test_networks_that_do_not_work_in_it_are_refused(weights, monkeypatch):
    monkeypatch.setattr(spandrel, "precision", lambda half, _: torch.float16)
    descriptor = spandrel.describe(read(weights, "spandrel"))
    descriptor.supports_half = False
    monkeypatch.setattr(spandrel, "describe", lambda _: descriptor)
    with pytest.raises(UserError, match="half = true: ESRGAN does not work in half precision; leave it out"):
        baselines.load("spandrel", weights=weights, half=True)
