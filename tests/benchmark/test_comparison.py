"""What changed between two runs: values by hand, and runs that must not be compared."""

import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmark import main
from sr3eval.benchmark.comparison import compare, markdown
from sr3eval.errors import UserError
from sr3eval.significance import bootstrap_interval

SIZES = {f"{i:02}": (16, 16) for i in range(12)}
OURS = [30.0 + i / 4 for i in range(12)]
CHANGE = [0.5] * 10 + [0.25, -0.25]


@pytest.fixture
def runs(write_run, tmp_path):
    """Two runs of 12 images: Ours changed by CHANGE, the other method not at all; B lacks the last image."""
    after = [value + change for value, change in zip(OURS, CHANGE, strict=True)]
    a = write_run(tmp_path / "a", SIZES, {"psnr": {"Ours": OURS, "R & D": [25.0] * 12}})
    b = write_run(tmp_path / "b", SIZES, {"psnr": {"Ours": after, "R & D": [25.0] * 12}})
    return a, b


def edit(run, name, old, new):
    (run / name).write_text((run / name).read_text().replace(old, new))


def test_changes_are_paired_over_the_images(runs):
    changes = compare(*runs).set_index("method")
    ours = changes.loc["Ours"]
    assert ours["a"] == pytest.approx(np.mean(OURS)) and ours["b"] == pytest.approx(np.mean(OURS) + 5 / 12)
    assert ours["delta"] == pytest.approx(5 / 12) and (ours["n"], ours["n_groups"]) == (12, 12)
    groups = np.array(list(SIZES), object)
    assert (ours["ci_low"], ours["ci_high"]) == pytest.approx(bootstrap_interval(np.array(CHANGE), groups))
    # The sum, 5, is reached in each direction where all ten halves agree and the quarters do not sum to -0.5: 3 ways.
    assert ours["p_value"] == pytest.approx(2 * min(1.0, 2 * 3 / 2**12))  # Holm: two methods
    assert ours["testable"] and changes.loc["R & D", ["delta", "p_value"]].tolist() == [0, 1]
    text = markdown(compare(*runs), runs)
    assert "| 31.38 " in text and "| 31.79 " in text and "| **+0.42** [" in text and "| 0.003 |" in text
    assert re.search(r"\| \+0\.00 \[\+0\.00, \+0\.00\] +\| 1\.000 \|", text)
    assert f"Differences: {runs[1]} - {runs[0]}" in text


def test_only_common_images_and_methods_count(runs):
    a, b = runs
    for slug in ("_lr", "_hr"):
        (b / "images" / slug / "11.png").unlink()
    scores = pd.read_csv(b / "per_image.csv", dtype={"image_id": str})
    scores[(scores["image_id"] != "11") & (scores["method"] == "Ours")].to_csv(b / "per_image.csv", index=False)
    changes = compare(a, b)
    assert changes["method"].tolist() == ["Ours"]
    assert changes.loc[0, ["a", "delta", "n"]].tolist() == pytest.approx([np.mean(OURS[:11]), 5.25 / 11, 11])


def test_metrics_of_sets_are_compared_over_common_blocks(runs):
    lines = [f"photos_16_64,{{0}},fid,{left_out},{{1}},{n}" for left_out, n in (("", 12), ("0", 8), ("1", 8), ("2", 8))]
    for run, values in zip(runs, ([9, 8, 10, 9], [5, 4, 6, 5]), strict=True):
        rows = [line.format("Ours", value) for line, value in zip(lines, values, strict=True)]
        (run / "set_scores.csv").write_text("\n".join(["task,method,metric,left_out,value,n", *rows]) + "\n")
        results = pd.read_csv(run / "results.csv")
        row = results.iloc[:1].assign(metric="fid", higher_is_better=False, settings="HR")
        pd.concat([results, row]).to_csv(run / "results.csv", index=False)
    changes = compare(*runs).set_index("metric").loc["fid"]
    assert changes[["a", "b", "delta", "ci_low", "ci_high", "p_value"]].tolist() == [9, 5, -4, -4, -4, 0]


def test_other_images_settings_and_tasks_are_refused(runs):
    a, b = runs
    edit(b, "results.csv", "RGB, mean", "Y, mean")
    with pytest.raises(
        UserError, match=f'{b}: its "psnr" follows other settings .*: settings "Y, mean", not "RGB, mean"'
    ):
        compare(a, b)
    edit(b, "results.csv", "Y, mean", "RGB, mean")
    Image.new("RGB", (16, 16)).save(b / "images" / "_hr" / "03.png")
    with pytest.raises(UserError, match='have different images: the HR image "03"'):
        compare(a, b)
    for path in (b / "images" / "_lr").iterdir():
        path.rename(path.with_name(f"other{path.name}"))
    with pytest.raises(UserError, match="have no image in common"):
        compare(a, b)
    edit(b, "config.toml", "photos_16_64", "faces_16_128")
    with pytest.raises(UserError, match=f"{a} is of the task photos_16_64, {b} of faces_16_128"):
        compare(a, b)


def test_the_same_pixels_in_another_file_are_the_same_image(runs):
    path = runs[1] / "images" / "_hr" / "03.png"
    before = path.read_bytes()
    with Image.open(path) as image:
        image.save(path, compress_level=0)
    assert path.read_bytes() != before
    assert len(compare(*runs)) == 2


def test_nothing_in_common_is_an_error(runs):
    a, b = runs
    edit(b, "per_image.csv", "Ours", "Others")
    edit(b, "per_image.csv", "R & D", "Else")
    with pytest.raises(UserError, match="have no method with a common metric"):
        compare(a, b)
    with pytest.raises(UserError, match="is this the folder of a finished run"):
        compare(a, a / "images")


def test_the_command(runs, tmp_path):
    """The earlier run is what the later one is compared with, and neither more runs nor files go with that."""
    a, b = map(str, runs)
    given = CliRunner().invoke(main, ["table", b, "--compare", a])
    assert given.exit_code == 0 and given.output.strip() == markdown(compare(*runs), runs).strip()
    for more in ([a], ["--out", str(tmp_path / "out")]):
        assert CliRunner().invoke(main, ["table", b, *more, "--compare", a]).exit_code == 2
