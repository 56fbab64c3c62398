"""From pictures to the report through the real commands and 102 bots: notebook 05, and what it leaves behind.

The bots answer independently, so that the two-way intervals cover each truth in 95 % of the seeds or a little more, all
three in at least 86 %; the seed is fixed.
"""

import base64
import io
import os
import re

import pandas as pd
import pytest
from PIL import Image

from analysis.exclusions import exclude
from analysis.fool_rate import fool_rates
from analysis.tables import load
from tests.analysis.notebook import TRUTH, execute, write_config


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder that notebook 05 wrote, with the run below it, and the fool rates that it showed."""
    world = tmp_path_factory.mktemp("world")
    places = {"config": write_config(world), "run": world / "out" / "run", "out": world / "study"}
    shown = execute("05_whole_study", world, "rates.to_dict('records')", **places)
    return places["out"], places["run"], pd.DataFrame(shown)


@pytest.fixture(scope="module")
def rates(study):
    kept, _ = exclude(load(study[0] / "responses.csv", models=list(TRUTH)))
    return fool_rates(kept)


def test_intervals_cover_the_truth(study, rates):
    pd.testing.assert_frame_equal(study[2][list(rates)], rates)
    assert sorted(rates["model"]) == sorted(TRUTH)
    truth = rates["model"].map(TRUTH)
    assert ((rates["ci_low"] < truth) & (truth < rates["ci_high"])).all()
    assert (rates["ci_high"] - rates["ci_low"] < 0.13).all()  # of 7 photographs, most of it Student's t
    responses = load(study[0] / "responses.csv")
    counted = (responses["finished"] == 1) & (responses["excluded_reason"] == "")  # who failed was replaced
    assert responses.loc[counted, "subject"].nunique() == 102
    assert set(responses["kind"]) == {"practice", "test", "catch"}


def test_the_table_holds_people_beside_metrics(study, rates):
    out, run, _ = study
    results = pd.read_csv(out / "results.csv")
    assert set(results["metric"]) == {*pd.read_csv(run / "results.csv")["metric"], "fool_rate_task2"}
    people = results[results["metric"] == "fool_rate_task2"].set_index("method")
    expected = 100 * rates.set_index("model")[["fool_rate", "ci_low", "ci_high"]]
    for model in TRUTH:
        assert people.loc[model, ["value", "ci_low", "ci_high"]].tolist() == pytest.approx(expected.loc[model].tolist())
    best = rates["fool_rate"].max()
    for name in ("results.md", "results.tex", "report.html"):
        text = (out / name).read_text()
        assert "Fool rate, Task-2" in text and f"{100 * best:.1f}" in text


def test_the_report_opens(study):
    page = (study[0] / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    pictures = re.findall(r'"data:image/png;base64,([^"]+)"', page)
    assert pictures
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture, validate=True))) as image:
            image.load()
    assert (study[0] / "fool_rates.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("name", "table"), [("02_fool_rates", "rates"), ("04_agreement", "points")])
def test_the_other_notebooks_take_the_study(study, rates, tmp_path, name, table):
    out, run, _ = study
    twice = load(out / "responses.csv").assign(study="again", task=1)  # a second study, of the other task
    twice.to_csv(tmp_path / "again.csv", index=False)
    both = os.pathsep.join([str(out / "responses.csv"), str(tmp_path / "again.csv")])
    shown = pd.DataFrame(execute(name, tmp_path, f"{table}.to_dict('records')", run=run, responses=both))
    for row in shown.itertuples():
        model = row.model if table == "rates" else row.method
        assert row.fool_rate == pytest.approx(rates.set_index("model").loc[model, "fool_rate"])
    assert len(shown) == (2 * len(TRUTH) if table == "rates" else 3 * len(TRUTH))
