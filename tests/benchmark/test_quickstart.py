"""The quickstart's scores stay what they were in the release whose table the README printed first."""

from pathlib import Path

import pandas as pd
import pytest

from sr3eval.benchmark import RunConfig, run
from sr3eval.config import read_toml

ROOT = Path(__file__).parents[2]
# per_image.csv of four images as the runner of release 0.1.0 wrote it, before sizes belonged to images.
GOLDEN = Path(__file__).parent / "goldens" / "quickstart.csv"


def test_scores_are_what_they_were(tmp_path):
    plain = read_toml(ROOT / "configs" / "quickstart.toml", ["data.limit=4"])
    methods = {method["name"]: method for method in plain["method"]}
    del methods["regression"]  # whose weights are newer
    methods["sr3"] |= {"solver": "dpmpp_2m_sde", "steps": 16, "clip": True, "jump": 0.0}  # that release's
    config = RunConfig.parse(plain | {"method": list(methods.values())})
    run(config, tmp_path / "run", tmp_path / "cache")
    keys = ["method", "image_id", "metric"]
    now = pd.read_csv(tmp_path / "run" / "per_image.csv").set_index(keys)["value"]
    before = pd.read_csv(GOLDEN).set_index(keys)["value"]
    assert set(now.index) == set(before.index)
    for key, value in before.items():
        # Other processors round convolutions otherwise: a level here and there.
        assert now[key] == pytest.approx(value, rel=2e-3, abs=2e-3), key
