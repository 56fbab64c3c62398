"""Patch FID and KID, and images of several sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sr3eval import metrics
from sr3eval.errors import UserError
from sr3eval.features.networks import cut, efficientnet_lite0, inception
from sr3eval.metrics import Batch
from sr3eval.metrics.fid import frechet_distance
from sr3eval.metrics.kid import kernel_inception_distance

pytestmark = pytest.mark.usefixtures("quick_networks")

SIDE = 16
SIZES = ((40, 33), (16, 50), (32, 32))  # 2 x 2, 1 x 3 and 2 x 2 patches, with and without a rest


def batches():
    """Two images of each size, in a jackknife block of their own size each."""
    generator = torch.Generator().manual_seed(0)
    for number, (height, width) in enumerate(SIZES):
        hr = torch.rand(2, 3, height, width, generator=generator)
        sr = (hr + 0.2 * torch.rand(hr.shape, generator=generator)).clamp(0, 1)
        yield Batch([f"{number}/a", f"{number}/b"], sr, hr, blocks=[str(number)] * 2)


def rows_by_hand(network, which):
    """Features of every patch of every image, by block: [M, d] float64."""
    found = {}
    for batch in batches():
        images = getattr(batch, which)
        height, width = images.shape[-2:]
        patches = [
            image[:, SIDE * row : SIDE * (row + 1), SIDE * column : SIDE * (column + 1)]
            for image in images
            for row in range(height // SIDE)
            for column in range(width // SIDE)
        ]
        found[batch.blocks[0]] = network.look(torch.stack(patches)).pooled.double().numpy()
    return found


def frechet(x, y):
    return frechet_distance(x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False))


def thousandfold_kid(x, y):
    return 1e3 * kernel_inception_distance(x, y)


@pytest.mark.parametrize(
    ("name", "network", "distance"),
    [
        ("fid", inception, frechet),
        ("fd_efficientnet_lite0", efficientnet_lite0, frechet),
        ("kid", inception, thousandfold_kid),
    ],
)
def test_patches_are_the_samples_and_images_stay_together(name, network, distance):
    """Of images of three sizes: the plain formula on all patches, and without those of each block of images."""
    metric = metrics.load(name, patches=SIDE)
    for batch in batches():
        metric.update(batch)
    result = metric.compute()
    sr, hr = (rows_by_hand(network(), which) for which in ("sr", "hr"))
    assert {block: len(rows) for block, rows in sr.items()} == {"0": 8, "1": 6, "2": 8}
    whole = [np.concatenate(list(part.values())) for part in (sr, hr)]
    assert (metric.name, metric.convention.sample, result.n) == (f"{name}_p16", "patch", 22)
    assert result.value == pytest.approx(distance(*whole), rel=1e-6)
    for block, left in result.without.items():
        rest = [np.concatenate([rows for other, rows in part.items() if other != block]) for part in (sr, hr)]
        assert left.n == len(rest[0])
        assert left.value == pytest.approx(distance(*rest), rel=1e-6)


def test_one_patch_an_image_is_the_image():
    whole, patches = metrics.load("fd_efficientnet_lite0"), metrics.load("fd_efficientnet_lite0", patches=SIDE)
    images = torch.rand(6, 3, SIDE, SIDE)
    for metric in (whole, patches):
        metric.update(Batch(list("abcdef"), images, images.flip(-1)))
    assert patches.compute().value == pytest.approx(whole.compute().value, rel=1e-6)


def test_patches_lie_on_a_grid_from_the_top_left():
    image = torch.arange(3 * 5 * 7).reshape(3, 5, 7)
    corners = [patch[0, 0, 0].item() for patch in cut(image, 2)]
    assert corners == [0, 2, 4, 14, 16, 18]
    assert all(patch.shape == (3, 2, 2) for patch in cut(image, 2))
    with pytest.raises(UserError, match="7x5 images are smaller than patches of 6x6"):
        cut(image, 6)


def test_many_patches_are_looked_at_in_parts(monkeypatch):
    network, seen = efficientnet_lite0(), []
    look = type(network).look
    monkeypatch.setattr(type(network), "look", lambda self, images: (seen.append(len(images)), look(self, images))[1])
    images = torch.rand(2, 3, 80, 80)
    pooled = network.pooled(images, 16)
    assert pooled.shape == (2, 25, network.dimensions) and seen == [32, 18]
    alone = look(network, images[1:, :, 16:32, 32:48]).pooled[0]
    torch.testing.assert_close(pooled[1, 7], alone)
    network.pooled(images), network.pooled(images, 16)
    assert seen == [32, 18, 2]  # both are remembered


@pytest.mark.parametrize("name", ["fid", "kid", "inception_score", "recall"])
def test_several_sizes_need_patches(name):
    """Said before work, with the batch, and when shards meet."""
    first, second, _ = batches()
    metric, other = metrics.load(name), metrics.load(name)
    refused = f"^{metric.name}: images of 2 sizes, .*square framing, or fid or kid with patches = 256"
    with pytest.raises(UserError, match=refused):
        metric.check(10, labelled=False, sizes=SIZES[:2])
    metric.check(10, labelled=False, sizes=SIZES[:1])
    metric.update(first)
    other.update(second)
    with pytest.raises(UserError, match=refused):
        metric.update(second)
    with pytest.raises(UserError, match=refused):
        metric.merge(other)


def test_images_smaller_than_a_patch_are_refused():
    metric = metrics.load("fid", patches=32)
    refused = "fid_p32: 50x16 images are smaller than its patches of 32x32"
    with pytest.raises(UserError, match=refused):
        metric.check(10, labelled=False, sizes=SIZES)
    with pytest.raises(UserError, match=refused):
        metric.update(list(batches())[1])
    for patches in (0, -4):
        with pytest.raises(UserError, match="not a valid patch size"):
            metrics.load("kid", patches=patches)
    with pytest.raises(UserError, match="either patches or reference"):
        metrics.load("fid", patches=32, reference="some.npz")


def test_metrics_of_single_images_take_any_sizes():
    """Each image's score in a run of several sizes is that of a run of its own."""
    for name in ("psnr", "ssim", "lpips", "top1_agreement_efficientnet_lite0"):
        metric, alone = metrics.load(name), {}
        metric.check(6, labelled=False, sizes=[(64, 66), (96, 64), (80, 80)])
        for number, (height, width) in enumerate([(64, 66), (96, 64), (80, 80)]):
            hr = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(number))
            batch = Batch([str(number)], hr.flip(-1), hr)
            metric.update(batch)
            single = metric.fresh()
            single.update(replace(batch))
            alone |= single.compute().per_image
        assert metric.compute().per_image == alone
