"""Protocols name the field's conventions, and their metrics load with them."""

import inspect

import pyiqa
import pytest
import torch
from scipy import io
from skimage import data

from sr3eval import metrics
from sr3eval.images import bicubic_down, bicubic_up, from_uint8, round_to_8bit
from sr3eval.metrics import niqe, ntire_2025_score
from sr3eval.protocols import PROTOCOLS, resolve


def named(protocol, scale):
    """Ids of what psnr and ssim become."""
    return [metrics.load(n, **o).name for n, o in resolve(PROTOCOLS[protocol].apply(), scale) if n in ("psnr", "ssim")]


def test_fidelity_is_measured_as_the_papers_do():
    assert named("paper", 8) == ["psnr", "ssim"]
    assert named("classic", 4) == ["psnr_y_b4", "ssim_y_b4"] and named("classic", 3) == ["psnr_y_b3", "ssim_y_b3"]
    assert named("ntire", 4) == ["psnr_b4", "ssim_b4"]
    assert named("realsr-2024", 4) == ["psnr_y", "ssim_y8"]


def without_ties(images):
    """With another blue where YIQ luma lies half-way between two levels: float32 rounds it by the processor's sums."""
    thousandths = (images * 255).round().int() * torch.tensor([299, 587, 114], dtype=torch.int).view(3, 1, 1)
    tied = thousandths.sum(1) % 1000 == 500
    assert tied.any()
    images[:, 2][tied] = round_to_8bit((images[:, 2][tied] - 1 / 255).abs())
    return images


def test_realsr_2024_is_what_pyiqa_s_named_calls_give(tmp_path):
    """Those of the scripts that came with AdcSR and its like; of a photograph, enlarged and noisy."""
    hr = from_uint8(torch.from_numpy(data.coffee()[:384, :384])).permute(2, 0, 1)[None]
    noise = 0.02 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    sr = without_ties(round_to_8bit(bicubic_up(bicubic_down(hr, (192, 192)), (384, 384)) + noise))
    mean, covariance = niqe._natural()
    parameters = tmp_path / "niqe.mat"
    io.savemat(parameters, {"mu_prisparam": mean.numpy()[None], "cov_prisparam": covariance.numpy()})
    peers = {
        "psnr": pyiqa.create_metric("psnr", test_y_channel=True, color_space="ycbcr")(sr, hr).item(),
        "ssim": pyiqa.create_metric("ssim", test_y_channel=True, color_space="ycbcr")(sr, hr).item(),
        "niqe": pyiqa.create_metric("niqe", pretrained_model_path=str(parameters))(sr).item(),
    }
    for name, options in PROTOCOLS["realsr-2024"].apply():
        if name in peers:
            metric = metrics.load(name, **options)
            metric.update(metrics.Batch(["a"], sr, hr))
            assert metric.compute().value == pytest.approx(peers[name], abs=1e-4), name
    assert dict(PROTOCOLS["ntire-2025-perceptual"].apply())["niqe"] == {"luma": "yiq"}
    assert dict(ntire_2025_score.PARTS)["niqe"] == {"luma": "yiq"}


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
