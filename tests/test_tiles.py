"""Tiles: weights by hand, borders that leave no step, and what they change of networks that look further."""

import pytest
import torch
import torch.nn.functional as F

from sr3eval.errors import UserError
from sr3eval.images import bicubic_up
from sr3eval.methods.regression import build
from sr3eval.tiles import Tiles

pytestmark = pytest.mark.usefixtures("one_thread")


def images(height, width):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def enlarged(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def test_neighbours_are_blended_by_a_linear_ramp():
    """Of two tiles, each filled with its first pixel: 8 of pixels 0 to 11, then 4 of pixels 4 to 11."""
    lr = torch.arange(12.0).expand(1, 3, 1, 12)
    sr = Tiles(8, 4).upscale(lambda x: x[..., :1].expand_as(x), lr, 1)
    assert sr[0, 0, 0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 3, 4, 4, 4]


@pytest.mark.parametrize(("tile", "overlap"), [(5, 0), (5, 3), (8, 32), (1, 7), (16, 4), (None, 4)])
@pytest.mark.parametrize("size", [(13, 21), (5, 40), (1, 1)])
def test_what_depends_on_no_neighbour_is_left_as_it_is(tile, overlap, size):
    lr = images(*size)
    torch.testing.assert_close(Tiles(tile, overlap).upscale(enlarged, lr, 2), enlarged(lr), atol=1e-6, rtol=0)


def test_tiles_are_no_larger_than_asked_and_progress_is_told():
    seen, told = [], []

    def network(x):
        seen.append(x.shape[2:])
        return enlarged(x)

    Tiles(8, 2).upscale(network, images(16, 20), 2, told.append)
    assert seen == [(10, 10), (10, 12), (10, 6)] * 2
    assert told == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


def test_no_step_is_left_at_a_border_where_a_network_looks_beyond_the_overlap():
    """A mean of 21 pixels, of which the tile on the right lacks 12 at the border: a quarter of that at a time."""

    def mean(x):
        return F.avg_pool2d(F.pad(x, (20, 0)), (1, 21), stride=1)

    lr = torch.ones(1, 3, 1, 48)
    error = mean(lr) - Tiles(24, 8).upscale(mean, lr, 1)
    assert error[..., 24:28].amax() > 0.4
    assert error.diff(dim=-1).abs().amax() < 0.15


REGRESSION = "sr3eval:assets/regression_photos_16_64.safetensors"


def test_regression_in_tiles():
    """Padded sides, and fingerprints; without a residual, tiles are nothing but the enlarged input."""
    whole, tiles = build(checkpoint=REGRESSION), build(checkpoint=REGRESSION, tile=10, overlap=6)
    assert build(checkpoint=REGRESSION, overlap=6).fingerprint == whole.fingerprint != tiles.fingerprint
    lr = images(17, 23)
    assert not torch.equal(tiles.upscale(lr, [0, 0]).images, whole.upscale(lr, [0, 0]).images)
    for parameter in tiles.model.unet.conv_out.parameters():
        parameter.requires_grad_(False).zero_()
    expected = bicubic_up(lr, (68, 92)).clamp(0, 1)
    torch.testing.assert_close(tiles.upscale(lr, [0, 0]).images, expected, atol=1e-5, rtol=0)


def test_out_of_range():
    with pytest.raises(UserError, match="tile = 0: must be at least 1 pixel"):
        Tiles(0, 4)
    with pytest.raises(UserError, match="overlap = -1: must not be negative"):
        Tiles(8, -1)
