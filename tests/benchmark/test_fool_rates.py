"""benchmark.py table --responses: people's column beside the machine's, in every format, or one line why not."""

import re
import shutil

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from analysis.comparisons import compare
from analysis.exclusions import exclude
from analysis.fool_rate import fool_rates
from analysis.simulation import simulate
from benchmark import main
from sr3eval.benchmark.fool_rates import add_fool_rates, refuse_other_images, refuse_other_pictures
from sr3eval.errors import UserError
from sr3eval.images import save
from sr3eval.packs import pixels_sha256

RATES = {"bicubic": 0.1, "mine": 0.48, "theirs": 0.4}


@pytest.fixture(scope="module")
def run(finish_run, tmp_path_factory):
    methods = [{"kind": "bicubic", "name": name} for name in (*RATES, "unseen")] + [{"kind": "reference"}]
    return finish_run(tmp_path_factory.mktemp("world"), [f"{index:04d}" for index in range(20)], methods)


@pytest.fixture(scope="module")
def responses():
    """Both tasks, with subjects who must be excluded."""
    parts = [
        simulate(RATES, subjects=12, images=20, trials=10, task=task, seed=task, guessers=0.2, study=f"s{task}")
        for task in (1, 2)
    ]
    return pd.concat(parts, ignore_index=True)


def make_table(run, *arguments):
    return CliRunner().invoke(main, ["table", str(run), *map(str, arguments)])


def test_fool_rates_stand_beside_the_metrics(run, responses, tmp_path):
    responses.to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(run, "--responses", tmp_path / "responses.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    counted, log = exclude(responses)
    assert len(log) > 0
    expected = fool_rates(counted).set_index(["task", "model"])
    for task in (1, 2):
        rows = results[results["metric"] == f"fool_rate_task{task}"].set_index("method")
        assert sorted(rows.index) == sorted(RATES)
        for name, row in rows.iterrows():
            rate = expected.loc[(task, name)]
            ours = row[["value", "ci_low", "ci_high", "n"]].astype(float).tolist()
            assert ours == pytest.approx([100 * rate.fool_rate, 100 * rate.ci_low, 100 * rate.ci_high, rate.n])
        best = expected.loc[task]["fool_rate"].idxmax()
        assert rows.index[rows["best"]].tolist() == [best]
        pairs = compare(counted[counted["task"] == task])
        pair = pairs[(pairs["model_a"] == "bicubic") & (pairs["model_b"] == best)].iloc[0]
        assert rows.loc["bicubic", "delta_to_best"] == pytest.approx(100 * pair["difference"])
        for a, b, low, high in pairs[["model_a", "model_b", "ci_low", "ci_high"]].to_numpy():
            if best in (a, b):
                ends = rows.loc[a if b == best else b, ["delta_ci_low", "delta_ci_high"]].astype(float).tolist()
                assert ends == pytest.approx([100 * low, 100 * high] if b == best else [-100 * high, -100 * low])
        assert rows.loc["bicubic", "p_value"] == pytest.approx(pair["p_holm"])
        assert rows.loc["bicubic", "n_groups"] == expected.loc[(task, "bicubic"), "subjects"]
    text = f"{results[results['metric'] == 'fool_rate_task1'].set_index('method').loc['bicubic', 'value']:.1f} "
    for name in ("results.md", "results.tex", "report.html"):
        made = (tmp_path / "out" / name).read_text()
        assert "Fool rate, Task-1" in made and "Fool rate, Task-2" in made
        assert text in made
        assert "–" in made  # the method that nobody was shown
    assert (tmp_path / "out" / "results.md").read_text() in result.stdout


def test_results_of_several_tasks_are_refused(responses):
    rates = fool_rates(responses)
    results = pd.DataFrame({"task": ["faces", "birds"], "dataset": "", "method": "mine"})
    with pytest.raises(UserError, match="of one task and data set, not of faces, birds"):
        add_fool_rates(results, rates, compare(responses), {})


def test_viewing_times_are_columns_of_their_own(run, tmp_path):
    """Rates of 10 % at 3 s and 60 % at 6 s must not come out as 35 %."""
    parts = [
        simulate(dict.fromkeys(RATES, rate), subjects=20, images=20, trials=12, exposures=[ms], seed=ms, study=f"s{ms}")
        for ms, rate in ((3000, 0.1), (6000, 0.6))
    ]
    responses = pd.concat(parts, ignore_index=True)
    responses.to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(run, "--responses", tmp_path / "responses.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    results = pd.read_csv(tmp_path / "out" / "results.csv").set_index(["metric", "method"])["value"]
    counted, _ = exclude(responses)
    for ms, metric in ((3000, "fool_rate_task1_3s"), (6000, "fool_rate_task1_6s")):
        for model, part in counted[counted["exposure_ms"] == ms].groupby("model"):
            assert results[metric, model] == pytest.approx(100 * part["picked_model"].mean())
    assert "Fool rate, Task-1, 3 s (%)" in result.stdout and "shown for 6 s" in result.stdout


def test_studies_are_not_pooled(run, tmp_path):
    parts = [simulate({"mine": rate}, subjects=8, images=20, trials=12, study=name) for name, rate in RATES.items()]
    pd.concat(parts[:2]).to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(run, "--responses", tmp_path / "responses.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    results = pd.read_csv(tmp_path / "out" / "results.csv").set_index("metric")["value"]
    for part in parts[:2]:
        name = part["study"].iloc[0]
        kept, _ = exclude(part)
        assert results[f"fool_rate_task1_{name}"] == pytest.approx(100 * kept["picked_model"].mean())
    assert "fool_rate_task1" not in results and "Fool rate, Task-1, bicubic (%)" in result.stdout


def test_samples_are_of_their_method(run, tmp_path):
    """Answers to mine@2 are answers to mine, its pictures are the second samples', and mine@x is no sample."""
    other = tmp_path / "sampled"
    shutil.copytree(run, other)
    shutil.copytree(other / "images" / "theirs", other / "images" / "mine@2")
    responses = simulate({"mine": 0.4, "mine@2": 0.6, "bicubic": 0.3}, subjects=12, images=20, trials=10, seed=1)
    responses = responses.assign(natural_w=64, natural_h=64)
    shown = zip(responses["model"], responses["image_id"], responses["kind"], strict=True)
    folder = {"mine@2": "theirs"}  # of the same pixels
    responses["shown_sha256"] = [
        pixels_sha256((run / "images" / folder.get(m, m) / f"{i}.png").read_bytes()) if kind == "test" else ""
        for m, i, kind in shown
    ]
    responses.to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(other, "--responses", tmp_path / "responses.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    results = pd.read_csv(tmp_path / "out" / "results.csv").query("metric == 'fool_rate_task1'").set_index("method")
    counted = exclude(responses)[0].replace({"model": {"mine@2": "mine"}})
    expected = fool_rates(counted).set_index("model")
    for column in ("fool_rate", "ci_low", "ci_high"):
        ours = results["value" if column == "fool_rate" else column]
        assert ours.to_dict() == pytest.approx((100 * expected[column]).to_dict())
    assert "; 2 samples of an image by mine" in results.loc["mine", "settings"]
    responses.replace({"model": {"mine@2": "mine@x"}}).to_csv(tmp_path / "responses.csv", index=False)
    assert 'unknown model "mine@x"' in make_table(other, "--responses", tmp_path / "responses.csv").stderr
    (other / "images" / "mine@2" / "0003.png").write_bytes((run / "images" / "_hr" / "0003.png").read_bytes())
    responses.to_csv(tmp_path / "responses.csv", index=False)
    assert "responses to other pictures" in make_table(other, "--responses", tmp_path / "responses.csv").stderr


def test_what_belongs_beside_the_numbers(run, responses, tmp_path):
    """Counts of subjects, images, trials; exclusions by rule, in a log; viewing times; a text for the paper."""
    given = responses[responses["kind"] != "catch"]
    given.to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(run, "--responses", tmp_path / "responses.csv", "--out", tmp_path / "out")
    log = pd.read_csv(tmp_path / "out" / "exclusions.csv", keep_default_na=False)
    not_applied = "catch trials: not applied to 36 of 36 subjects (no catch trials)"
    assert sorted(log.loc[log["subject"] == "", "study"]) == ["s1", "s2"]
    assert set(log.loc[log["subject"] == "", "rule"]) == {not_applied}
    gone = log.loc[log["study"] == "s1", "n"].sum()
    assert gone > 0
    kept = exclude(given)[0]
    counts = kept[kept["task"] == 1].groupby("model").size()
    tested = given[(given["task"] == 1) & (given["kind"] == "test")]
    seen = f"seen for {tested['exposure_actual_ms'].median():.0f} ms"
    for place in (result.stdout, (tmp_path / "out" / "results.md").read_text()):
        assert f"{counts.min()} to {counts.max()} test trials of" in place
        assert f"of 36 subjects, {gone} of 360 test trials (fast " in place
        assert not_applied in place and seen in place
    text = (tmp_path / "out" / "methods.txt").read_text()
    assert not_applied in text and seen in text and f"{gone} of 360 test trials" in text
    assert ", ".join(f"{model} {n}" for model, n in counts.items()) in text
    assert (
        "36 subjects gave 360 answers to pictures of 20 images by bicubic, mine, theirs (each subject judged one"
        in text
    )


def test_images_are_grouped_as_in_the_run(run, responses, tmp_path):
    """Where the responses don't say of which photographs the images are, the run does."""
    other = tmp_path / "grouped"
    shutil.copytree(run, other)
    scores = pd.read_csv(other / "per_image.csv", dtype=str)
    group = scores["image_id"].astype(int) // 5
    scores.assign(group=[f"photo{g}" for g in group]).to_csv(other / "per_image.csv", index=False)
    responses.to_csv(tmp_path / "responses.csv", index=False)
    texts = [make_table(place, "--responses", tmp_path / "responses.csv").stdout for place in (run, other)]
    assert "clustered by subject and image;" in texts[0] and "few photographs" not in texts[0]
    assert "clustered by subject and group of images (4 groups)" in texts[1]
    assert "few photographs: 4 groups of images (" in texts[1]


BAD = {
    "other images": (
        lambda r: r.assign(image_id=r["image_id"].replace("0003", "elsewhere/3")),
        'does not have, first "elsewhere/3"',
    ),
    "unknown model": (
        lambda r: r.assign(model=r["model"].replace("mine", "mein")),
        'unknown model "mein"; did you mean',
    ),
    "missing column": (lambda r: r.drop(columns="choice_side"), "has no column choice_side"),
    "no responses": (lambda r: r.iloc[:0], "holds no responses"),
    "twice": (lambda r: pd.concat([r, r.iloc[:1]]), "are listed twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_responses_are_one_line(run, responses, tmp_path, case):
    change, message = BAD[case]
    change(responses).to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(run, "--responses", tmp_path / "responses.csv", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_all_excluded_is_marked_and_no_number(run, responses, tmp_path):
    responses.assign(finished=0, excluded_reason="withdrawn").to_csv(tmp_path / "responses.csv", index=False)
    tested = int(((responses["task"] == 1) & (responses["kind"] == "test")).sum())
    result = make_table(run, "--responses", tmp_path / "responses.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    rows = results[results["metric"] == "fool_rate_task1"]
    assert rows["value"].isna().all() and (rows["n"] == 0).all()
    assert f"{tested} of {tested} test trials (study: withdrawn {tested})" in result.stdout
    assert "No answers were left." in (tmp_path / "out" / "methods.txt").read_text()
    assert "nan" not in (tmp_path / "out" / "results.md").read_text()
    assert not re.search(r"\bnan\b", re.sub('"data:[^"]*"', "", (tmp_path / "out" / "report.html").read_text()))


def test_flagged_trials_are_counted_beside_the_table(run, tmp_path):
    responses = simulate(RATES, subjects=6, images=20, trials=10, seed=3)
    responses.assign(timing_ok=0).to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(run, "--responses", tmp_path / "responses.csv")
    assert result.exit_code == 0, result.stderr
    count = int((responses["kind"] == "test").sum())
    assert f"; excluded: 18 of 18 subjects, {count} of {count} test trials (timing {count})" in result.stdout


def test_images_of_a_run_without_hr_are_known_by_their_inputs(tmp_path):
    save(tmp_path / "images" / "_lr" / "a.png", torch.zeros(3, 8, 8))
    judged = pd.DataFrame({"kind": ["test", "catch"], "image_id": ["a", "b"]})
    refuse_other_images(judged, [tmp_path])
    with pytest.raises(UserError, match='responses to 1 image that .* does not have, first "b"'):
        refuse_other_images(judged.assign(kind="test"), [tmp_path])


def test_answers_to_pictures_of_another_run_are_refused(run, responses, tmp_path):
    """By the pixels of what stood beside the real picture; windows, and answers that name no pixels, pass."""
    shown = responses[responses["kind"] == "test"].assign(natural_w=64, natural_h=64)
    pictures = shown[["model", "image_id"]].drop_duplicates().itertuples(index=False)
    sums = {(m, i): pixels_sha256((run / "images" / m / f"{i}.png").read_bytes()) for m, i in pictures}
    shown["shown_sha256"] = [sums[key] for key in zip(shown["model"], shown["image_id"], strict=True)]
    refuse_other_pictures(shown, [run])
    other = shown["shown_sha256"].where(
        (shown["model"] != "mine") | (shown["image_id"] != "0007"), sums["mine", "0006"]
    )
    wrong = shown.assign(shown_sha256=other)
    wrong.to_csv(tmp_path / "responses.csv", index=False)
    result = make_table(run, "--responses", tmp_path / "responses.csv")
    assert result.exit_code == 1 and len(result.stderr.strip().splitlines()) == 1
    assert re.search(
        'responses to other pictures than .*run has, first "0007" of mine: give the run that', result.stderr
    )
    refuse_other_pictures(wrong.assign(kind="practice"), [run])
    refuse_other_pictures(wrong.assign(natural_h=32), [run])
    with pytest.raises(UserError, match="responses to other pictures"):
        refuse_other_pictures(wrong.assign(natural_w=128, natural_h=128), [run])
    refuse_other_pictures(wrong.assign(shown_sha256=""), [run])
    refuse_other_pictures(wrong.drop(columns="natural_w"), [run])
