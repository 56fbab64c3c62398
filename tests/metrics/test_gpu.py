"""The metrics' networks on a GPU, beside the CPU; random weights."""

import pytest
import torch

from sr3eval.features.networks import efficientnet_lite0, inception, resnet50
from sr3eval.metrics import Batch, lpips

pytestmark = pytest.mark.gpu
SIDES = {"inception": 64, "resnet50": 224, "efficientnet_lite0": 64}


def images(side):
    return torch.rand(2, 4, 3, side, side, generator=torch.Generator().manual_seed(0)).unbind()


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("build", [inception, resnet50, efficientnet_lite0], ids=lambda build: build.__name__)
def test_features_and_class_scores(build, tf32, offline, monkeypatch, record_property):
    x, _ = images(SIDES[build.__name__])
    on_gpu = build.__wrapped__()(x)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = build.__wrapped__()(x)
    for name in ("pooled", "logits"):
        difference = relative(getattr(on_gpu, name), getattr(on_cpu, name))
        record_property(name, f"{difference:.2e}")
        assert difference <= (5e-3 if tf32 else 1e-5)


def test_lpips(tf32, offline, monkeypatch, record_property):
    x, y = images(64)
    batch = Batch(list("abcd"), y, x)
    lpips.network.cache_clear()
    on_gpu = lpips.build().score(batch)
    lpips.network.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = lpips.build().score(batch)
    lpips.network.cache_clear()
    difference = relative(on_gpu, on_cpu)
    record_property("lpips", f"{difference:.2e}")
    assert difference <= (5e-3 if tf32 else 1e-5)
