"""What every metric must do."""

import math

import pytest
import torch

from sr3eval import metrics
from sr3eval.errors import UserError
from sr3eval.images import bicubic_down, bicubic_up, round_to_8bit
from sr3eval.metrics import Batch


def batch(n=6, first=0, noise=0.05):
    generator = torch.Generator().manual_seed(3)
    hr = round_to_8bit(bicubic_up(torch.rand(n + first, 3, 8, 8, generator=generator), (32, 32)))[first:]
    sr = round_to_8bit(hr + noise * torch.randn(hr.shape, generator=generator))
    return Batch([f"image/{first + i}" for i in range(n)], bicubic_down(hr, (8, 8)), hr, sr)


def part(whole, start, stop):
    return Batch(whole.ids[start:stop], whole.lr[start:stop], whole.hr[start:stop], whole.sr[start:stop])


def scored(name, *batches):
    metric = metrics.load(name)
    for b in batches:
        metric.update(b)
    return metric


pytestmark = pytest.mark.parametrize("name", metrics.available())


def test_any_batch_size_and_merged_shards_give_one_pass(name):
    whole = batch()
    expected = scored(name, whole).compute()
    assert scored(name, part(whole, 0, 1), part(whole, 1, 6)).compute().value == pytest.approx(expected.value, rel=1e-9)
    first, second = scored(name, part(whole, 3, 6)), scored(name, part(whole, 0, 3))
    first.merge(second)
    merged = first.compute()
    assert merged.value == pytest.approx(expected.value, rel=1e-9)
    assert merged.per_image.keys() == expected.per_image.keys()


def test_perfect_images_score_best(name):
    whole = batch()
    perfect = Batch(whole.ids, whole.lr, whole.hr, whole.hr)
    metric = metrics.load(name)
    best, worse, worst = (scored(name, b).compute().value for b in (perfect, whole, batch(noise=0.3)))
    assert (best > worse > worst) if metric.higher_is_better else (best < worse < worst)


def test_empty_sets_are_refused(name):
    with pytest.raises(UserError, match="no images to score"):
        metrics.load(name).compute()


def test_an_image_is_scored_once(name):
    with pytest.raises(UserError, match="image/0 scored twice"):
        scored(name, batch(), batch())


def test_settings_are_stated(name):
    assert len(metrics.load(name).settings) > 10


def test_bad_batches_are_refused(name):
    whole = batch(2)
    broken = whole.sr.clone()
    broken[1, 0, 3, 3] = math.nan
    with pytest.raises(UserError, match="image/1: the output has NaN"):
        scored(name, Batch(whole.ids, whole.lr, whole.hr, broken))
    for sr in (whole.sr[..., :-1], whole.sr[:1], whole.sr[:, :1], whole.sr[0]):
        with pytest.raises(UserError, match="wanted"):
            scored(name, Batch(whole.ids, whole.lr, whole.hr, sr))


def test_unknown_names_and_options_are_refused(name):
    with pytest.raises(UserError, match=f'unknown metric "{name}x": did you mean "{name}"'):
        metrics.load(f"{name}x")
    with pytest.raises(UserError, match="unknown key"):
        metrics.load(name, colour="y")
