"""What every metric must do."""

import math
import multiprocessing
import pickle
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed
from skimage import data

from sr3eval import metrics
from sr3eval.errors import UserError
from sr3eval.features.networks import resnet50
from sr3eval.images import area_down, bicubic_down, from_uint8, round_to_8bit
from sr3eval.metrics import Batch

pytestmark = [pytest.mark.parametrize("name", metrics.available()), pytest.mark.usefixtures("quick_networks")]

N = 12
# Of metrics whose `build` has options without a default.
OPTIONS = {
    "pyiqa": {"metric": "gmsd"},
    "python": {
        "python": f"{Path(__file__).parent / 'own_metric.py'}:build",
        "name": "mine",
        "label": "Mine",
        "higher_is_better": False,
    },
}
SIDES = {"top1_error": 224, "top5_error": 224, "top1_agreement_resnet50": 224, "niqe": 192}  # else 48
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def batch(name, contrast=1.0):
    """Twelve crops of photographs as HR, two a block; outputs are the same with noise, and maybe washed out.

    Each has two samples.
    """
    side = SIDES.get(name, 48)
    generator = torch.Generator().manual_seed(3)
    photographs = [from_uint8(torch.from_numpy(getattr(data, p)()).permute(2, 0, 1)) for p in PHOTOGRAPHS]
    crops = [p[:, :300, x : x + 300] for p in photographs for x in (0, 60, 120)]
    hr = torch.stack([round_to_8bit(area_down(crop, (side, side))) for crop in crops])
    sr = round_to_8bit(1 - contrast * (1 - hr) + 0.05 * torch.randn(hr.shape, generator=generator))
    other = round_to_8bit(sr + contrast * 0.2 * torch.rand(hr.shape, generator=generator))
    ids, blocks = [f"image/{i}" for i in range(N)], [str(i % 6) for i in range(N)]
    lr = bicubic_down(hr, (side // 4, side // 4))
    return Batch(ids, sr, hr, lr, list(range(N)), blocks, torch.stack([sr, other]))


def part(whole, start, stop):
    tensors = (tensor[start:stop] for tensor in (whole.sr, whole.hr, whole.lr))
    samples = whole.samples[:, start:stop]
    return Batch(whole.ids[start:stop], *tensors, whole.labels[start:stop], whole.blocks[start:stop], samples)


def load(name, **more):
    return metrics.load(name, **OPTIONS.get(name, {}), **more)


def scored(name, *batches):
    metric = load(name)
    for b in batches:
        metric.update(b)
    return metric


def assert_same(result, expected, rel):
    assert result.n == expected.n
    assert result.value == pytest.approx(expected.value, rel=rel)
    assert result.per_image == pytest.approx(expected.per_image, rel=rel)
    assert result.without.keys() == expected.without.keys()
    for block, estimate in expected.without.items():
        assert result.without[block].n == estimate.n
        assert result.without[block].value == pytest.approx(estimate.value, rel=rel)


# Convolutions of other batch sizes differ in the last bits of float32.
def test_any_batch_size_gives_one_pass(name):
    whole = batch(name)
    expected = scored(name, whole).compute()
    assert_same(scored(name, part(whole, 0, 1), part(whole, 1, N)).compute(), expected, rel=1e-4)


def test_merged_shards_give_one_pass(name):
    """Shards with the features of one pass: whatever the order, the same state. States travel between processes."""
    whole = batch(name)
    parts = [part(whole, 0, 5), part(whole, 5, 9), part(whole, 9, N)]
    expected = scored(name, *parts).compute()
    total = load(name)
    for shard in reversed(parts):
        other = total.fresh()
        other.state = pickle.loads(pickle.dumps(scored(name, shard).state))
        total.merge(other)
    assert_same(total.compute(), expected, rel=1e-9)


def rank_of_two(rank, folder, metric, shard):
    """One of two processes: score a shard, merge, and leave the results for two methods in a file."""
    store = f"file://{folder / 'store'}"
    patience = timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    results = []
    for method in (metric, metric.fresh()):  # which share the reference
        method.update(shard)
        metrics.merge_processes(method)
        results.append(method.compute())
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(results))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the ranks share loaded networks")
def test_two_gloo_processes_give_one(name, tmp_path):
    """Every rank ends with the result of one process, for a first method and a second."""
    whole = batch(name)
    shards = [part(whole, 0, 5), part(whole, 5, N)]
    expected = scored(name, *shards).compute()
    fork = multiprocessing.get_context("fork").Process
    ranks = [fork(target=rank_of_two, args=(i, tmp_path, load(name), shards[i])) for i in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(90)
        rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    for i in range(2):
        for result in pickle.loads((tmp_path / f"{i}.pickle").read_bytes()):
            assert_same(result, expected, rel=1e-9)


def test_fresh_metrics_start_empty(name):
    whole = batch(name)
    first = scored(name, whole)
    second = first.fresh()
    with pytest.raises(UserError, match="no images to score"):
        second.compute()
    second.update(whole)
    assert second.compute() == first.compute()
    assert first.convention == second.convention


def test_perfect_images_score_best(name):
    whole = batch(name)
    if name == "inception_score":  # it compares with nothing: its least value, 1, is that of images all alike
        alike = whole.sr[:1].expand(N, -1, -1, -1)
        same = scored(name, replace(whole, sr=alike, samples=None)).compute()
        assert same.value == pytest.approx(1) and scored(name, whole).compute().value > 1 + 1e-6
        return
    metric = load(name)
    perfect = replace(whole, sr=whole.hr)
    if metric.name.endswith("_error"):  # of a network that knows these classes
        labels = resnet50().logits(whole.hr).argmax(dim=1).tolist()
        perfect, whole = replace(perfect, labels=labels), replace(whole, labels=labels)
    sign = 1 if metric.higher_is_better else -1
    pale = batch(name, contrast=0.1)
    best, worse, worst = (sign * scored(name, b).compute().value for b in (perfect, whole, pale))
    assert best >= worse >= worst or metric.name.endswith("_error")
    assert best > worst or metric.name.startswith("top")  # random networks may see one class in everything


def test_empty_sets_are_refused(name):
    with pytest.raises(UserError, match="no images to score"):
        load(name).compute()


def test_an_image_is_scored_once(name):
    with pytest.raises(UserError, match="image/0 scored twice"):
        scored(name, batch(name), batch(name))


def test_conventions_are_declared(name):
    """Ids of all metrics differ; everything that tables print is there."""
    metric = load(name)
    convention = metric.convention
    assert len(convention.settings) > 10 and convention.version
    assert convention.label[0].isupper() and 0 <= convention.decimals <= 6
    assert (metric.name, metric.higher_is_better) == (convention.name, convention.higher_is_better)
    assert [other for other in metrics.available() if load(other).name == metric.name] == [name]


def test_what_is_missing_is_said_before_work_and_with_the_batch(name):
    """Without HR, LR, labels or samples, metrics that do not need them give the same numbers; the others say so."""
    whole = batch(name)
    convention = load(name).convention
    for part, missing, needed in (
        ("hr", "needs HR images; this run has none", convention.needs_hr),
        ("lr", "needs LR images", convention.needs_lr),
        ("labels", "needs the classes", convention.needs_labels),
        ("samples", "compares several samples of an input", convention.needs_samples),
    ):
        without = replace(whole, **{part: None})
        if not needed:
            assert scored(name, without).compute() == scored(name, whole).compute()
            continue
        with pytest.raises(UserError, match=f"^{convention.name}: {missing}"):
            load(name).update(without)
    run = {"n": N, "labelled": True}
    load(name).check(**run)
    if convention.needs_hr:
        with pytest.raises(UserError, match="choose a no-reference metric such as brisque"):
            load(name).check(**run, hr=False)
    else:
        load(name).check(**run, hr=False)


def test_bad_batches_are_refused(name):
    whole = part(batch(name), 0, 2)
    broken = whole.sr.clone()
    broken[1, 0, 3, 3] = math.nan
    with pytest.raises(UserError, match="image/1: the output has NaN"):
        scored(name, replace(whole, sr=broken))
    for sr in (whole.sr[..., :-1], whole.sr[:1], whole.sr[:, :1], whole.sr[0]):
        with pytest.raises(UserError, match="expected"):
            scored(name, replace(whole, sr=sr))
    with pytest.raises(UserError, match="expected"):
        scored(name, replace(whole, lr=whole.lr[:1]))


def test_nothing_of_a_bad_batch_is_kept(name):
    """A shard with an image that was there before leaves the state as it was."""
    whole = batch(name)
    metric = scored(name, whole)
    before = metric.compute()
    with pytest.raises(UserError, match="image/11 scored twice"):
        metric.merge(scored(name, part(whole, N - 1, N)))
    assert metric.compute() == before


def test_unknown_names_and_options_are_refused(name):
    with pytest.raises(UserError, match=f'unknown metric "{name}x": did you mean "{name}"'):
        metrics.load(f"{name}x")
    with pytest.raises(UserError, match="unknown key"):
        load(name, colour="y")
