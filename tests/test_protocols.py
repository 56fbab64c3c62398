"""Protocols name the field's conventions, and their metrics load with them."""

import inspect

import pytest

from sr3eval import metrics
from sr3eval.protocols import PROTOCOLS, resolve


def named(protocol, scale):
    """Ids of what psnr and ssim become."""
    return [metrics.load(n, **o).name for n, o in resolve(PROTOCOLS[protocol].apply(), scale) if n in ("psnr", "ssim")]


def test_fidelity_is_measured_as_the_papers_do():
    assert named("paper", 8) == ["psnr", "ssim"]
    assert named("classic", 4) == ["psnr_y_b4", "ssim_y_b4"] and named("classic", 3) == ["psnr_y_b3", "ssim_y_b3"]
    assert named("ntire", 4) == ["psnr_b4", "ssim_b4"]
    assert named("realsr-2024", 4) == ["psnr_y", "ssim_y"]


def test_a_config_s_metrics_get_the_protocol_s_options_below_their_own():
    own = [("psnr", {"border": 2}), ("lpips", {"backbone": "vgg"}), ("psnr", {})]
    found = resolve(PROTOCOLS["classic"].apply(own), 4)
    assert found == [
        ("psnr", {"channel": "y", "border": 2}),
        ("lpips", {"backbone": "vgg"}),
        ("psnr", {"channel": "y", "border": 4}),
    ]
    assert PROTOCOLS["classic"].apply() == PROTOCOLS["classic"].apply(PROTOCOLS["classic"].metrics)


def test_scale_is_resolved_without_a_protocol_too():
    assert resolve([("psnr", {"border": "scale"}), ("ssim", {"border": 1}), ("fid", {})], 3) == [
        ("psnr", {"border": 3}),
        ("ssim", {"border": 1}),
        ("fid", {}),
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_metrics_and_options_exist(name):
    protocol = PROTOCOLS[name]
    assert protocol.name == name and len(protocol.described) > 20
    assert {metric for metric, _ in protocol.metrics} >= protocol.options.keys()
    for metric, options in protocol.apply():
        parameters = inspect.signature(metrics.builder(metric)).parameters
        assert options.keys() <= parameters.keys(), metric
