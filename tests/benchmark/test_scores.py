"""The scores of several runs as one: which images are one data set, and which methods one row."""

import shutil

import pandas as pd
import pytest
import torch

from sr3eval.benchmark import summary
from sr3eval.benchmark.scores import read_runs
from sr3eval.errors import UserError
from sr3eval.images import save


@pytest.fixture(scope="module")
def runs(finish_run, tmp_path_factory):
    """Bicubic, and outputs that were made elsewhere, on two sets; of the first one another run with another method."""
    found = {}
    for name, images, kernel in (("first", "0", "bicubic"), ("again", "0", "matlab"), ("other", "1", "bicubic")):
        world = tmp_path_factory.mktemp(name)
        ids = [f"{images}{index}" for index in range(3)]
        for image_id in ids:
            save(world / "outputs" / f"{image_id}.png", torch.full((3, 64, 64), 0.5))
        theirs = {"name": "theirs", "kind": "precomputed", "folder": str(world / "outputs")}
        ours = {"name": kernel, "kind": "bicubic", "kernel": kernel}
        found[name] = finish_run(world, ids, [ours, theirs] if name != "again" else [ours]).rename(world / name)
    return found


def test_runs_of_the_same_images_are_one_data_set_beside_others(runs):
    results = summary.summarise(*read_runs([runs[name] for name in ("first", "other", "again")]))
    rows = results[["dataset", "method"]].itertuples(index=False, name=None)
    assert set(rows) == {
        ("first", "bicubic"),
        ("first", "matlab"),
        ("first", "theirs"),
        ("other", "bicubic"),
        ("other", "theirs"),
    }
    assert results["n"].eq(3).all()


def test_how_a_metric_is_printed_does_not_keep_runs_apart(runs, tmp_path):
    """A run of release 0.1.0 says of its metrics what they are, and not what they are called."""
    before = tmp_path / "before"
    shutil.copytree(runs["first"], before)
    results = pd.read_csv(before / "results.csv")
    results.drop(columns=["label", "unit", "decimals", "version", "ceiling"]).to_csv(
        before / "results.csv", index=False
    )
    scores, conventions = read_runs([runs["again"], before])
    assert set(scores.methods["method"]) == {"matlab", "bicubic", "theirs"} and conventions["psnr"].label == "PSNR"
    results.assign(version="2").to_csv(before / "results.csv", index=False)
    with pytest.raises(UserError, match='its "psnr" follows other settings .*: version "2", not "1"'):
        read_runs([runs["again"], before])
