"""Several samples of an input: how different they are, and the best of them."""

import itertools
import warnings

import numpy as np
import pytest
import torch

from sr3eval import metrics
from sr3eval.errors import UserError
from sr3eval.metrics import Batch, PerImage, best_of_samples
from sr3eval.metrics.diversity import diversity

K, N = 4, 3


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(K, N, 3, 64, 48, generator=generator)
    hr = torch.rand(N, 3, 64, 48, generator=generator)
    return Batch([f"image/{i}" for i in range(N)], samples[0], hr, samples=samples)


def scored(metric, batch):
    metric.update(batch)
    return metric.compute().per_image


def test_diversity_is_numpys_deviation_in_levels(batch):
    expected = (255 * batch.samples.numpy().astype(float)).std(axis=0, ddof=1).mean(axis=(1, 2, 3))
    found = scored(metrics.load("diversity"), batch)
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)
    assert list(found) == list(batch.ids)


def test_diversity_by_hand():
    """Two samples 3 levels apart in one of three channels, equal elsewhere: 3 / sqrt(2) / 3."""
    samples = torch.full((2, 1, 3, 4, 4), 0.5)
    samples[1, :, 0] += 3 / 255
    assert diversity(samples).tolist() == pytest.approx([2**-0.5], rel=1e-5)


@pytest.mark.usefixtures("offline")
def test_lpips_diversity_is_the_packages_mean_over_pairs(batch, random_weights):
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = torch.load(random_weights / "alexnet-owt-7be5be79.pth", weights_only=True)
    slices = [(f"slice{i + 1}", block) for i, block in enumerate([(0,), (3,), (6,), (8,), (10,)])]
    own = {
        f"{s}.{n}.{p}": state[f"features.{n}.{p}"] for s, layers in slices for n in layers for p in ("weight", "bias")
    }
    package.net.load_state_dict(own)
    with torch.inference_mode():
        distances = [
            [
                package(batch.samples[a, i : i + 1], batch.samples[b, i : i + 1], normalize=True).item()
                for a, b in itertools.combinations(range(K), 2)
            ]
            for i in range(N)
        ]
    expected = np.mean(distances, axis=1)
    found = scored(metrics.load("lpips_diversity"), batch)
    assert len(distances[0]) == 6 and expected.min() > 0.01
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-4)
    assert metrics.load("lpips_diversity", backbone="vgg").name == "lpips_diversity_vgg"


@pytest.mark.parametrize(("name", "best"), [("psnr", np.max), ("ssim", np.max), ("consistency", np.min)])
def test_the_best_is_chosen_image_by_image_and_metric_by_metric(batch, name, best):
    """Against every sample scored as if it were the only one."""
    low = torch.nn.functional.avg_pool2d(batch.hr, 4)
    alone = [
        list(scored(metrics.load(name), Batch(batch.ids, sample, batch.hr, low)).values()) for sample in batch.samples
    ]
    metric = metrics.load(name)
    assert isinstance(metric, PerImage)
    found = scored(best_of_samples(metric), Batch(batch.ids, batch.sr, batch.hr, low, samples=batch.samples))
    np.testing.assert_allclose(list(found.values()), best(alone, axis=0), rtol=1e-9)
    assert len(set(np.argmax(alone, axis=0))) > 1  # not always the same sample


def test_your_own_metric_may_compare_samples(batch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def build(): return lambda batch: (batch.samples[0] - batch.samples[1]).flatten(1).max(1)[0]"
    )
    options = {"python": f"{tmp_path / 'mine.py'}:build", "higher_is_better": True, "needs_hr": False}
    metric = metrics.load("python", **options, needs_samples=True)
    expected = (batch.samples[0] - batch.samples[1]).numpy().max(axis=(1, 2, 3))
    np.testing.assert_allclose(list(scored(metric, batch).values()), expected, rtol=1e-6)
    with pytest.raises(UserError, match="mine: compares several samples of an input; add samples = 8"):
        metric.fresh().update(Batch(batch.ids, batch.sr))
