"""results.json: what identifies the numbers of a run is there, follows the published schema, and is the table's."""

import hashlib
import json
import math
import shutil

import jsonschema
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmark import table_
from sr3eval.benchmark import card, environment, run
from sr3eval.errors import UserError

METRICS = ["psnr", "ssim"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two sets, one a checkpoint's method, with a seed of its own."""
    world = tmp_path_factory.mktemp("card")
    rng = np.random.default_rng(0)
    for name in ("A/one", "A/two", "B/one"):
        path = world / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    checkpoint = "sr3eval:assets/sr3_photos_16_64.safetensors"
    config = {"task": "photos_16_64", "metrics": METRICS, "data": [{"name": n, "images": str(world / n)} for n in "AB"]}
    config["method"] = [
        {"kind": "bicubic"},
        {"kind": "sr3", "checkpoint": checkpoint, "steps": 1, "seeds": [3, 4]},
        {"kind": "reference"},
    ]
    run(config, world / "run", world / "cache")
    return world / "run"


def test_the_card_follows_the_published_schema_and_that_is_the_code_s(finished):
    assert card.SCHEMA.read_text(encoding="utf-8") == card.schema()
    schema = json.loads(card.SCHEMA.read_bytes())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    found = json.loads((finished / "results.json").read_bytes(), parse_constant=lambda name: pytest.fail(name))
    validator(schema).validate(found)
    del found["runs"][0]["hardware"]
    with pytest.raises(jsonschema.ValidationError, match="'hardware' is a required property"):
        validator(schema).validate(found)


def test_a_table_with_published_values_has_a_card_too(finished, tmp_path):
    (tmp_path / "papers.csv").write_text("method,dataset,metric,value,source\nTheirs,A,PSNR,9.5,their paper\n")
    runner = CliRunner()
    options = ["--compare", str(tmp_path / "papers.csv"), "--out", str(tmp_path / "out")]
    assert runner.invoke(table_, [str(finished), *options], catch_exceptions=False).exit_code == 0
    jsonschema.validate(json.loads((tmp_path / "out/results.json").read_bytes()), json.loads(card.SCHEMA.read_bytes()))
    theirs = card.read(tmp_path / "out/results.json").results["photos_16_64"]["A"]["Theirs (their paper)"]["psnr"]
    assert (theirs.value, theirs.source, theirs.best) == (9.5, "their paper", False)


def test_the_card_says_what_the_numbers_are_of(finished):
    found = card.read(finished / "results.json").runs[0]
    sr3 = found.methods["sr3"]
    weights = card.SCHEMA.parents[1] / "assets/sr3_photos_16_64.safetensors"
    assert sr3.weights == {"checkpoint": hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert found.config["seed"] == 0 and found.config["method"][1]["seeds"] == [3, 4]
    assert found.software["torch"] == environment.describe()["torch"] and found.hardware["threads"] == 1
    for name, sha256 in found.files.items():
        assert hashlib.sha256((finished / name).read_bytes()).hexdigest() == sha256
    scores = {"per_image.csv", "set_scores.csv", "seed_scores.csv", "draw_scores.csv"}
    assert {"config.toml", *scores, "results.csv"} == set(found.files)
    assert set(found.data["A"].pictures) == {"_hr", "_lr", "bicubic", "sr3-seed-3", "sr3-seed-4", "reference"}


def test_who_has_the_same_pixels_has_the_same_digest(finished, tmp_path):
    """In other files, under another name of the set; and who has one other pixel has not."""
    digests = {}
    for name, changed in (("same", 0), ("other", 1)):
        for path in (finished / "images/_hr/A").glob("*.png"):
            pixels = np.asarray(Image.open(path)).copy()
            pixels[0, 0, 0] ^= changed
            target = tmp_path / name / f"{path.stem}.bmp"
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(target)
        data = {"images": str(tmp_path / name)}
        config = {"task": "photos_16_64", "metrics": ["psnr"], "data": data, "method": [{"kind": "bicubic"}]}
        run(config, tmp_path / f"run_{name}", tmp_path / "cache")
        digests[name] = card.of_run(tmp_path / f"run_{name}").data[""]
    ours = card.of_run(finished).data["A"]
    assert digests["same"].pixels == ours.pixels != digests["other"].pixels
    assert digests["same"].files != ours.files
    lines = []
    for name in ("one", "two"):
        pictures = (np.asarray(Image.open(finished / f"images/{given}/A/{name}.png")) for given in ("_hr", "_lr"))
        lines.append("\x1f".join([name, *(hashlib.sha256(p.tobytes()).hexdigest() for p in pictures)]) + "\x1e")
    assert ours.pixels == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_results_are_the_csv_nested(finished):
    rows, results = pd.read_csv(finished / "results.csv"), card.read(finished / "results.json").results
    assert {(t, d, m) for t, of in results.items() for d, by in of.items() for m in by} == set(
        rows[["task", "dataset", "method"]].itertuples(index=False, name=None)
    )
    for row in rows.to_dict("records"):
        number = results["photos_16_64"][row["dataset"]][row["method"]][row["metric"]]
        for name in set(row) - {"task", "dataset", "method", "metric"}:
            given, value = row[name], getattr(number, name)
            missing = isinstance(given, float) and not math.isfinite(given)
            same = math.isclose(value, given, rel_tol=1e-14) if isinstance(value, float) else str(value) == str(given)
            assert value in (None, "") if missing else same or value == given
    assert results["photos_16_64"]["A"]["reference"]["psnr"].value is None


def test_a_card_that_is_none_is_refused_in_a_line(finished, tmp_path):
    shutil.copy(finished / "results.json", tmp_path)
    text = (tmp_path / "results.json").read_text()
    (tmp_path / "results.json").write_text(text.replace('"sr3eval-results-1"', '"2"'))
    with pytest.raises(UserError, match=r"results.json: does not follow results.schema.json \(format: Input should be"):
        card.read(tmp_path / "results.json")
