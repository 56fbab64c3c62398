"""responses.csv read and checked: round trip, and everything that users get wrong."""

import re

import numpy as np
import pandas as pd
import pytest

from analysis import fool_rate, tables
from analysis.errors import DataError
from analysis.simulation import simulate


@pytest.fixture
def written(study, tmp_path):
    """Write a study, changed, as a CSV file."""

    def write(change=lambda frame: frame, name: str = "responses.csv"):
        path = tmp_path / name
        change(study.copy()).to_csv(path, index=False)
        return path

    return write


def put(column: str, value: object, row: int = 5):
    """A change of one cell."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.astype({column: object}).assign(**{column: lambda f: f[column].where(f.index != row, value)})

    return change


def test_round_trip(study, written):
    loaded = tables.load(written())
    columns = [column for column in study if column != "received_at"]
    pd.testing.assert_frame_equal(loaded[columns], study[columns], check_dtype=False)
    assert (loaded["received_at"] == study["received_at"]).all()
    again = tables.validate(loaded)
    pd.testing.assert_frame_equal(again, loaded)
    by = ["model", "exposure_ms"]
    pd.testing.assert_frame_equal(fool_rate.fool_rates(loaded, by), fool_rate.fool_rates(study, by), check_exact=True)


def test_several_files_are_one_table_and_their_subjects_and_images_differ(written):
    first = written(name="one.csv")
    second = written(lambda frame: frame.assign(study="other"), name="two.csv")
    together = tables.load([first, second])
    one, two = fool_rate.fool_rates(tables.load(first)), fool_rate.fool_rates(together)
    assert (two["subjects"] == 2 * one["subjects"]).all() and (two["images"] == 2 * one["images"]).all()
    with pytest.raises(DataError, match="the files together: .* responses are listed twice"):
        tables.load([first, first])


def test_names_that_look_like_missing_values_are_names(written):
    loaded = tables.load(written(lambda frame: frame.assign(model="NA", condition="null")))
    assert set(loaded["model"]) == {"NA"} and set(loaded["condition"]) == {"null"}


def test_what_was_not_measured_is_nan(written):
    loaded = tables.load(written(put("rt_ms", "")))
    assert np.isnan(loaded["rt_ms"][5]) and loaded["rt_ms"].notna().sum() == len(loaded) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns=["picked_model", "rt_ms"]), "has no column picked_model, rt_ms"),
        (lambda frame: frame.head(0), "holds no responses"),
        (put("kind", "tset"), 'line 7: kind is "tset", must be test or practice or catch'),
        (put("task", 3), 'line 7: task is "3", must be 1 or 2'),
        (put("real_side", "L"), 'line 7: real_side is "L", must be left or right'),
        (put("picked_model", 0.5), 'line 7: picked_model is "0.5", must be a whole number'),
        (put("picked_model", ""), 'line 7: picked_model is "", must be a whole number'),
        (put("trial_index", "1e300"), 'line 7: trial_index is "1e300", must be a whole number'),
        (put("timing_ok", 2), 'line 7: timing_ok is "2", must be 0 or 1'),
        (put("exposure_ms", 0), 'line 7: exposure_ms is "0", must be ms, more than 0'),
        (put("rt_ms", -1), 'line 7: rt_ms is "-1", must be ms, at least 0'),
        (put("rt_ms", "fast"), 'line 7: rt_ms is "fast", must be ms, at least 0'),
        (put("subject", ""), 'line 7: subject is "", must not be empty'),
        (put("model", "", row=1), 'line 3: model is "", must not be empty in a test trial'),
        (put("received_at", "yesterday"), 'line 7: received_at is "yesterday", must be a moment'),
        (lambda frame: pd.concat([frame, frame.iloc[[3]]]), "1 responses are listed twice, first task 1"),
        (lambda frame: frame.assign(picked_model=1 - frame["picked_model"]), "but choice_side and real_side say"),
    ],
)
def test_bad_files_are_refused_in_one_line(written, change, message):
    path = written(change)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        tables.load(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_picture_shown_twice_is_refused(study):
    change = study["trial_index"].mask(study["trial_index"] == 1, 500)
    twice = study.assign(trial_index=change, image_id=study["image_id"].where(study["kind"] == "catch", "0000"))
    with pytest.raises(DataError, match="responses are listed twice, .*image_id 0000"):
        tables.validate(twice)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00bad", "not a readable table"),
        (b'a,b\n"1,2\n3', "not a readable table"),
        (b"study;task\na;1\n", "not separated by commas"),
        (b"study\ttask\na\t1\n", "not separated by commas"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    path = tmp_path / "responses.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        tables.load(path)
    with pytest.raises(DataError, match="no such file"):
        tables.load(tmp_path / "none.csv")
    with pytest.raises(DataError, match="no file of responses given"):
        tables.load([])


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_files_that_other_programs_saved_are_the_same(written, change):
    path = written()
    expected = tables.load(path)
    path.write_bytes(change(path.read_text(encoding="utf-8")).encode("utf-8"))
    pd.testing.assert_frame_equal(tables.load(path), expected)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("picked_model", np.nan, "picked_model must be 0 or 1"),
        ("picked_model", 2, "picked_model must be 0 or 1"),
        ("picked_model", "1", "picked_model must be 0 or 1"),
        ("subject", None, "subject is empty in 1 test trials"),
        ("image_id", None, "image_id is empty in 1 test trials"),
        ("model", None, "model is empty in 1 test trials"),
    ],
)
def test_frames_that_nobody_validated_lose_nothing_without_a_word(study, column, value, message):
    with pytest.raises(DataError, match=message):
        tables.judgements(put(column, value, row=1)(study), ["model"])


def test_one_model_may_be_named_alone(written):
    path = written(lambda frame: frame[frame["model"] == "sr3"])
    assert set(tables.load(path, models="sr3")["model"]) == {"sr3"}
    with pytest.raises(DataError, match='unknown model "sr3"; did you mean "sr4"?'):
        tables.load(path, models="sr4")


def test_spaces_around_names_are_removed_and_said(study, written):
    path = written(lambda frame: frame.assign(model=frame["model"].where(frame.index % 2 == 0, frame["model"] + " ")))
    with pytest.warns(UserWarning, match='responses.csv: spaces around model "fsrgan", "pulse", "sr3" removed') as said:
        loaded = tables.load(path)
    assert len(said) == 1 and said[0].filename == __file__
    pd.testing.assert_series_equal(loaded["model"], study["model"], check_dtype=False)


def excel(path, separator: str, comma: bool = True) -> str:
    """The file as spreadsheets save it in countries with decimal commas."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column in ("picked_model", "timing_ok", "finished"):
        frame[column] = frame[column].map({"1": "TRUE", "0": "FALSE"})
    if comma:
        frame["rt_ms"] = frame["rt_ms"].str.replace(".", ",")
    return frame.to_csv(sep=separator, index=False)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("comma", [True, False])
def test_what_a_spreadsheet_saved_is_the_same(written, separator, comma):
    path = written()
    expected = tables.load(path)
    path.write_text("\ufeff" + excel(path, separator, comma), encoding="utf-8")
    pd.testing.assert_frame_equal(tables.load(path), expected)


def test_numbers_that_could_be_read_in_two_ways_are_refused(written):
    path = written(put("rt_ms", "1.234,5"))
    path.write_text(excel(path, ";", comma=False), encoding="utf-8")
    with pytest.raises(DataError, match='line 7: rt_ms is "1.234,5", must be ms'):
        tables.load(path)
    with pytest.raises(DataError, match='line 7: rt_ms is "812,5", must be ms'):  # or 812 500 / 1000?
        tables.load(written(put("rt_ms", "812,5")))


def test_results_that_a_spreadsheet_saved(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("task;method;metric;value;higher_is_better\nt;m;lpips;0,125;FALSE\nt;m;psnr;20;TRUE\n")
    results = tables.load_results(path)
    assert results["value"].tolist() == [0.125, 20.0] and results["higher_is_better"].tolist() == [False, True]


def test_groups_come_from_the_run_that_was_judged(study, written, tmp_path):
    tests = study["kind"] == "test"
    names = sorted(study.loc[tests, "image_id"].unique())
    run = pd.DataFrame({"task": "t", "method": "m", "image_id": names, "metric": "psnr", "value": 1.0})
    run["group"] = [f"photograph {int(name) % 8}" for name in names]
    run.to_csv(tmp_path / "per_image.csv", index=False)
    loaded = tables.load(written(), groups=tmp_path / "per_image.csv")
    assert set(loaded.loc[loaded["kind"] != "test", "group"]) == {""}
    of = loaded.loc[tests, "image_id"].astype(int) % 8
    assert (loaded.loc[tests, "group"] == "photograph " + of.astype(str)).all()
    pd.testing.assert_frame_equal(tables.load(written(), groups=run), loaded)
    with pytest.raises(DataError, match=f'unknown image "{names[3]}"; did you mean'):
        tables.load(written(), groups=run[run["image_id"] != names[3]])
    with pytest.raises(DataError, match=f'scores: image "{names[0]}" belongs to two groups'):
        tables.with_groups(study, pd.concat([run, run.assign(group="all")]))
    path = written(lambda frame: frame.assign(group=loaded["group"]))
    assert (tables.load(path)["group"] == loaded["group"]).all()


def test_unknown_models_are_named(written):
    path = written()
    assert len(tables.load(path, models=["sr3", "pulse", "fsrgan", "bicubic"]))
    with pytest.raises(DataError, match='unknown model "pulse"; did you mean "pulse2"?'):
        tables.load(path, models=["sr3", "pulse2", "fsrgan"])


def test_data_sets_of_runs_with_and_without_a_name(tmp_path):
    header, row = "task,method,image_id,metric,value,group", "t,m,Set5/baby,psnr,1,Set5/baby"
    (tmp_path / "a.csv").write_text(f"{header},dataset\n{row},Set5\n")
    (tmp_path / "b.csv").write_text(f"{header},dataset\n{row},\n")
    (tmp_path / "c.csv").write_text(f"{header}\n{row}\n")
    scores = tables.load_scores([tmp_path / f"{name}.csv" for name in "abc"])
    assert scores["dataset"].tolist() == ["Set5", "", ""]
    for read, expected in ((["Set5", np.nan], ["Set5", ""]), ([np.nan, np.nan], ["", ""])):  # as pandas reads them
        assert tables.with_dataset(pd.DataFrame({"dataset": read}))["dataset"].tolist() == expected


def test_scores(tmp_path):
    path = tmp_path / "per_image.csv"
    path.write_text("task,method,image_id,metric,value,group\nt,NA,0001,psnr,inf,g\nt,NA,0002,psnr,,g\n")
    scores = tables.load_scores(path)
    assert scores["method"].tolist() == ["NA", "NA"] and scores["image_id"].tolist() == ["0001", "0002"]
    assert np.isinf(scores["value"][0]) and np.isnan(scores["value"][1])
    assert scores["dataset"].tolist() == ["", ""]
    path.write_text("task,method,metric,value,higher_is_better\nt,m,lpips,0.1,False\nt,m,psnr,20,True\n")
    assert tables.load_results(path)["higher_is_better"].tolist() == [False, True]
    with pytest.raises(DataError, match="has no column image_id, group"):
        tables.load_scores(path)
    path.write_text("task,method,metric,value,higher_is_better\nt,m,lpips,0.1,\n")
    with pytest.raises(DataError, match='line 2: higher_is_better is "", must be True or False'):
        tables.load_results(path)
    path.write_text("task,method,image_id,metric,value,group\nt,m,1,psnr,good,g\n")
    with pytest.raises(DataError, match='line 2: value is "good", must be a number'):
        tables.load_scores(path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rates": {}}, "needs a model"),
        ({"rates": {"a": 1.0}}, "rate of a = 1.0: must be above 0 and below 1"),
        ({"rates": {"a": (0.1, 0.2)}}, "one for each of 1 exposures"),
        ({"rates": {"a": 0.5}, "trials": 101}, "101 trials of 100 images"),
        ({"rates": {"a": 0.5}, "subjects": 0}, "0 subjects, 50 trials: needs at least 1"),
        ({"rates": {"a": 0.5}, "image_sd": -1}, "image_sd = -1: must be at least 0"),
        ({"rates": {"a": 0.5}, "groups": 101}, "101 groups of 100 images: must be from 1 to 100"),
        ({"rates": {"a": 0.5}, "image_correlation": -0.1}, r"image_correlation = -0.1: must be in \[0, 1\]"),
        ({"rates": {"a": 0.5}, "guessers": 2}, r"guessers = 2: must be in \[0, 1\]"),
    ],
)
def test_simulations_that_cannot_be(setting, message):
    with pytest.raises(DataError, match=message):
        simulate(**setting)
