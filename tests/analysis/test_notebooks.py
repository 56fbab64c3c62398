"""The notebooks: without outputs in git, and on a simulated study they run through and say what direct calls say."""

import json
import math
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from scipy import stats

from analysis.power import standard_error
from sr3eval.benchmark import run as score_run
from sr3eval.benchmark.config import RunConfig
from sr3eval.config import read_toml
from study_app.spec import Spec
from tests.analysis.notebook import NOTEBOOKS, TRUTH, execute, write_config

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    plain = read_toml(write_config(world))
    plain["data"] = [plain["data"] | {"name": name, "limit": limit} for name, limit in (("Few", 24), ("More", 40))]
    score_run(RunConfig.parse(plain), world / "run", world / "cache")
    return world / "run"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.iterdir()), ids=lambda path: path.name)
def test_nothing_but_the_source_is_in_git(path: Path):
    text = path.read_text(encoding="utf-8")
    book = json.loads(text)
    nbformat.validate(book)
    assert book["metadata"] == METADATA
    assert [cell["id"] for cell in book["cells"]] == [f"cell-{i:02}" for i in range(len(book["cells"]))]
    for cell in book["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert text == json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def test_01_results_tables(run, tmp_path):
    shown = execute("01_results_tables", tmp_path, "[finite.mean().to_dict(), groups['mean'].to_dict()]", run=run)
    results = pd.read_csv(run / "results.csv")
    psnr = results[(results["metric"] == "psnr") & (results["dataset"] == "Few")].set_index("method")["value"]
    assert shown[0] == pytest.approx(psnr.to_dict())
    scores = pd.read_csv(run / "per_image.csv").query("metric == 'psnr' and dataset == 'Few'")
    means = scores.pivot_table(index="group", columns="method", values="value")
    first, second = psnr.sort_values(ascending=False).index[:2]
    assert shown[1] == pytest.approx((means[first] - means[second]).to_dict())


def test_02_fool_rates(run, tmp_path):
    ask = "[rates.to_dict('records'), modelled.reset_index().to_dict('records'), ends['image_id'].tolist()]"
    rates, modelled, ends = execute("02_fool_rates", tmp_path, ask, run=run)
    assert len(rates) == len(modelled) == 2 * len(TRUTH)
    for rate in rates:
        assert abs(rate["fool_rate"] - TRUTH[rate["model"]]) < 3.5 * rate["se"]
    for model in modelled:
        assert model["marginal"] == pytest.approx(model["fool_rate"], abs=0.01)
        assert model["gee_low"] < model["fool_rate"] < model["gee_high"]
        # The simulation's SDs are 0.5 and 0.8.
        assert 0.3 < model["subject_sd"] < 0.75 and 0.5 < model["image_sd"] < 1.1
    assert len(ends) == 4 and set(ends) <= set(pd.read_csv(run / "per_image.csv")["image_id"])


def test_03_planning(tmp_path):
    ask = "[chosen.to_dict(), affordable.to_dict('records'), simulated.to_dict('records'), BUDGET, STUDIES]"
    chosen, affordable, simulated, budget, studies = execute("03_planning", tmp_path, ask)
    design = (int(chosen["subjects"]), int(chosen["images"]), int(chosen["trials"]))
    assert chosen["se"] == pytest.approx(standard_error(*design))
    assert chosen["cost"] <= budget
    spec = Spec("Planned", task=1, target=design[0], images=design[1], per_subject=design[2])  # refuses what it cannot
    spec.check_models(["sr3"])
    near_best = [row for row in affordable if row["detectable"] <= 1.03 * min(r["detectable"] for r in affordable)]
    assert chosen["cost"] == min(row["cost"] for row in near_best)
    for row, promised in zip(simulated, (chosen["power"], 0.05), strict=True):
        assert abs(row["found"] - promised) < 3.5 * math.sqrt(promised * (1 - promised) / studies)
        assert abs(row["covered"] - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / studies)


def test_04_agreement(run, tmp_path):
    ask = "[points.to_dict('records'), by_method.to_dict('records'), by_image['p'].tolist()]"
    points, by_method, p_images = execute("04_agreement", tmp_path, ask, run=run)
    means = pd.read_csv(run / "per_image.csv").groupby(["dataset", "metric", "method"])["value"].mean()
    rates = {point["method"]: point["fool_rate"] for point in points}
    assert set(rates) == {*TRUTH, "bicubic"} and {point["dataset"] for point in points} == {"Few"}
    assert {(row["dataset"], row["metric"]) for row in by_method} == set(means.index.droplevel("method"))
    for row in (row for row in by_method if row["dataset"] == "Few"):
        tau = stats.kendalltau(means["Few"][row["metric"]][list(rates)], list(rates.values())).statistic
        assert row["kendall"] == pytest.approx(tau if row["higher_is_better"] else -tau)
    assert len(p_images) == 2 * 3 * len(rates)
    assert min(p_images) > 0.05 / len(p_images)  # answers that have nothing to do with the scores
