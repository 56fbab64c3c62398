"""Runs and statistics of tar shards are those of the folder that they were made of."""

import functools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sr3eval.benchmark import RunConfig, report, run
from sr3eval.benchmark import statistics as stats
from sr3eval.images import save
from sr3eval.prepare.run import Settings, prepare
from tests.benchmark.test_statistics import network, write

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Images of several sizes below two synsets, one of them too small, and the shards of them."""
    root = tmp_path_factory.mktemp("sources")
    generator = torch.Generator().manual_seed(0)
    for index in range(9):
        name = f"{('n01440764', 'n15075141')[index % 2]}/{index}"
        save(root / "folder" / f"{name}.png", torch.rand(3, 60 + 7 * index, 90, generator=generator))
    prepare(Settings("folder", root / "folder", 64, labels="folders", per_shard=3), root / "shards", 1)
    return root


def config(images, **data):
    return RunConfig.parse(
        {
            "task": "photos_16_64",
            "metrics": ["psnr", "consistency"],
            "data": {"images": str(images), "limit": 6, "group": "image"} | data,
            "method": [{"kind": "bicubic"}, {"kind": "reference"}],
        }
    )


def test_a_run_of_shards_has_the_same_pictures_and_scores(sources, tmp_path):
    for name in ("folder", "shards"):
        run(config(sources / name), tmp_path / name, tmp_path / "cache")
    assert (tmp_path / "folder/per_image.csv").read_bytes() == (tmp_path / "shards/per_image.csv").read_bytes()
    pictures = {p.relative_to(tmp_path / "folder"): p for p in (tmp_path / "folder" / "images").rglob("*.png")}
    assert len(pictures) == 4 * 6  # HR, LR, bicubic and the reference
    assert all((tmp_path / "shards" / p).read_bytes() == path.read_bytes() for p, path in pictures.items())


def test_scores_of_images_are_in_parquet_too(sources, tmp_path):
    run(config(sources / "shards"), tmp_path / "run", tmp_path / "cache")
    csv, parquet = pd.read_csv(tmp_path / "run/per_image.csv"), pd.read_parquet(tmp_path / "run/per_image.parquet")
    assert list(parquet) == list(csv) and len(csv) == 2 * 2 * 6
    for column in ("task", "method", "image_id", "metric", "value", "group"):
        assert list(csv[column]) == list(parquet[column])


class Listed:
    """Counts how often each folder is listed, whoever does it."""

    def __init__(self, monkeypatch):
        self.counts = Counter()
        for name in ("scandir", "listdir"):
            monkeypatch.setattr(os, name, functools.partial(self._list, getattr(os, name)))

    def _list(self, how, path="."):
        self.counts[Path(path)] += 1
        return how(path)


def test_no_folder_of_pictures_is_listed_twice(sources, tmp_path, monkeypatch):
    """Even where the report cannot hold all pictures, and in a run that is repeated."""
    monkeypatch.setattr(report, "EMBEDDED", 1000)
    for _ in range(2):
        with monkeypatch.context() as patch:
            listed = Listed(patch)
            run(config(sources / "folder"), tmp_path / "run", tmp_path / "cache")
        inside = {p: n for p, n in listed.counts.items() if p.is_relative_to(tmp_path / "run" / "images")}
        assert inside and max(inside.values()) == 1, inside
        source = {p: n for p, n in listed.counts.items() if p.is_relative_to(sources / "folder")}
        assert len(source) == 3 and max(source.values()) == 1, source


def test_labels_of_shards_are_those_of_their_folders(sources, tmp_path):
    from sr3eval.benchmark.plan import plan

    planned = [
        plan(config(sources / images, labels=labels), tmp_path / images, tmp_path / "cache")
        for images, labels in (("folder", "folders"), ("shards", "shards"))
    ]
    labels = [{image.image_id: image.label for image in p.images} for p in planned]
    assert labels[0] == labels[1] and set(labels[0].values()) == {0, 999}


def test_statistics_of_shards_resume_and_are_the_folders(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(stats, "SAVE_EVERY", 2)
    write(sources / "folder", tmp_path / "folder.npz")
    write(sources / "shards", tmp_path / "shards.npz", stop_after=5, of=network())
    write(sources / "shards", tmp_path / "shards.npz", of=network())
    with np.load(tmp_path / "folder.npz") as folder, np.load(tmp_path / "shards.npz") as shards:
        assert all(np.array_equal(folder[name], shards[name]) for name in ("mu", "sigma", "n"))
