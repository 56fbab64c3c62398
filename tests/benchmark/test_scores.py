"""The scores of several runs as one: which images are one data set, and which methods one row."""

import pytest
import torch

from sr3eval.benchmark import summary
from sr3eval.benchmark.scores import read_runs
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
