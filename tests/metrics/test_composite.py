"""Metrics that combine others."""

import pytest
import torch

from sr3eval import metrics
from sr3eval.errors import UserError
from sr3eval.metrics import Batch, Convention, PerImage, composite, ntire_2025_score

IDS = ["a", "b", "c"]


def toy(name, values, **needs):
    """A metric of given scores, which counts how often it is asked."""
    metric = PerImage(Convention(name, name.upper(), True, f"settings of {name}", version=f"{name} 7", **needs), None)
    metric.asked = 0

    def score(batch):
        metric.asked += 1
        return torch.tensor([values[image_id] for image_id in batch.ids])

    metric.score = score
    return metric


def test_it_combines_its_parts_image_by_image():
    first = toy("first", {"a": 1.0, "b": 2.0, "c": 4.0}, needs_hr=False, needs_lr=True)
    second = toy("second", {"a": 10.0, "b": 20.0, "c": 60.0}, needs_hr=False)
    both = composite(Convention("both", "Both", True, "10 x + y"), [first, second], lambda x, y: 10 * x + y)
    images = torch.rand(3, 3, 8, 8)
    batch = Batch(IDS, images, lr=images)
    for metric in (first, both, second):
        metric.update(batch)
    assert both.compute().per_image == {"a": 20.0, "b": 40.0, "c": 100.0}
    assert both.compute().value == pytest.approx(160 / 3)
    assert (first.asked, second.asked) == (1, 1)  # by itself or by the composite, never by both
    convention = both.convention
    assert (convention.needs_hr, convention.needs_lr, convention.needs_labels) == (False, True, False)
    assert convention.settings == "10 x + y; FIRST: settings of first; SECOND: settings of second"
    assert convention.version == "1, first first 7, second second 7"
    with pytest.raises(UserError, match="both: needs LR images"):
        both.fresh().update(Batch(IDS, images))


def test_scores_of_one_batch_are_not_those_of_the_next():
    part = toy("part", {"a": 1.0, "b": 2.0})
    images = torch.rand(1, 3, 8, 8)
    twice = composite(Convention("twice", "Twice", True, "2 x"), [part], lambda x: 2 * x)
    for image_id in ("a", "b"):
        twice.update(Batch([image_id], images, images))
    assert twice.compute().per_image == {"a": 2.0, "b": 4.0}


def test_ntire_2025_s_score_by_hand():
    """Two images: 0.8 + 0.9 + 0.6 + 0.5 + 0.7 + 0.4 and 0.5 + 0.7 + 0.3 + 0.2 + 0.4 - 0.2."""
    scores = ntire_2025_score.ntire_2025_score(
        *torch.tensor([[0.2, 0.5], [0.1, 0.3], [0.6, 0.3], [0.5, 0.2], [70.0, 40.0], [6.0, 12.0]]).double()
    )
    assert scores.tolist() == pytest.approx([3.9, 1.9])


def test_ntire_2025_s_score_of_images_has_the_challenge_s_as_mean(monkeypatch):
    """The challenge puts means into its formula; the mean NIQE is 9, that of one image 12."""
    values = {
        "lpips": [0.2, 0.5, 0.1],
        "dists": [0.1, 0.3, 0.2],
        "clipiqa": [0.6, 0.3, 0.4],
        "maniqa": [0.5, 0.2, 0.3],
        "musiq": [70.0, 40.0, 55.0],
        "niqe": [6.0, 12.0, 9.0],
    }
    parts = {name: toy(name, dict(zip(IDS, scores, strict=True))) for name, scores in values.items()}
    monkeypatch.setattr(ntire_2025_score, "load", lambda name, metric=None, luma="": parts[metric or name])
    metric = metrics.load("ntire_2025_score")
    images = torch.rand(3, 3, 8, 8)
    metric.update(Batch(IDS, images, images))
    mean = {name: sum(scores) / 3 for name, scores in values.items()}
    challenge = (1 - mean["lpips"]) + (1 - mean["dists"]) + mean["clipiqa"] + mean["maniqa"] + mean["musiq"] / 100
    assert metric.compute().value == pytest.approx(challenge + max(0, (10 - mean["niqe"]) / 10))


def test_a_part_must_score_single_images(monkeypatch, quick_networks):
    monkeypatch.setattr(ntire_2025_score, "PARTS", (("fid", {}),))
    with pytest.raises(UserError, match="fid gives no score for single images"):
        metrics.load("ntire_2025_score")
