"""Reading responses.csv and choices.csv of studies, per_image.csv and results.csv of a benchmark, line by line.

A frame that `load` or `validate` returned holds one row a response and these columns, in any order, with others after:
study, condition, model, subject, image_id, excluded_reason (text); task, exposure_ms, trial_index (whole numbers);
kind (test, practice or catch); real_side, choice_side (left or right); picked_model (1: the model's output was chosen),
timing_ok, finished (0 or 1); rt_ms, exposure_actual_ms (ms, nan where not measured); received_at (UTC). A column
`group` is optional: the images that analyses draw together (the photograph a crop is from), "" for an image of its own.

A frame that `load_choices` returned holds one row a choice between two models: those of the columns above that are
facts of a trial, with `criterion` (what was asked; "" for the only question), model_left and model_right ("" in catch
trials), choice_side (left, right, tie or skip), and real_side of catch trials ("" in others).
"""

import difflib
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.codebook import CHOICES, RESPONSES, Column
from analysis.errors import DataError

SIDES = ("left", "right")
NUMBERS = {
    *(name for columns in (RESPONSES, CHOICES) for name, about in columns.items() if about["type"] != "string"),
    *("value", "ci_low", "ci_high"),
}
LISTED = 8  # names in an error
COLUMNS = (
    *("study", "task", "condition", "model", "exposure_ms", "subject", "image_id", "kind", "trial_index"),
    *("real_side", "choice_side", "picked_model", "rt_ms", "exposure_actual_ms", "timing_ok", "finished"),
    *("excluded_reason", "received_at"),
)
# What may occur once: a trial, and a picture of one model before one subject.
TRIAL = ("study", "task", "condition", "subject", "kind", "trial_index")
SHOWN = ("study", "task", "condition", "model", "subject", "image_id")
RESPONSE = ("study", "subject", "image_id")  # who judged what
CHOICE_COLUMNS = (
    *("study", "task", "condition", "exposure_ms", "subject", "image_id", "kind", "trial_index", "criterion"),
    *("model_left", "model_right", "choice_side", "real_side", "rt_ms", "exposure_actual_ms", "timing_ok", "finished"),
    *("excluded_reason", "received_at"),
)
LARGEST = 2**53  # whole number of a float that is exact

Paths = str | Path | Iterable[str | Path]


def load(
    paths: Paths, models: Collection[str] | str | None = None, groups: pd.DataFrame | Paths | None = None
) -> pd.DataFrame:
    """The responses of one file or several, CSV or Parquet, typed and checked, in the order of the files.

    models: the names that may occur; without, any. groups: the per_image.csv of the run whose pictures were judged, as
    a file or as `load_scores` gives it; its images get their column `group`, by which analyses cluster (`with_groups`).
    Files may be as Excel saves them: separated by semicolons or tabs, with decimal commas if they are, TRUE and FALSE
    for 1 and 0. Spaces around names are removed with a UserWarning.

    Raises DataError, naming file and line, for a missing column, a value outside its range, a response given twice, a
    model not in `models`, an image not in `groups`, and files without responses.
    """
    files = _files(paths)
    if not files:
        raise DataError("no file of responses given")
    frames = []
    for path in files:  # no comprehension, whose frame warnings would count as a caller
        frames.append(validate(_read(path, COLUMNS), str(path)))
    responses = pd.concat(frames, ignore_index=True)
    _check_unique(responses, "the files together" if len(files) > 1 else str(files[0]))
    if models is not None:
        known = [models] if isinstance(models, str) else models
        check_names(responses.loc[responses["kind"] == "test", "model"], known, "model")
    if groups is None:
        return responses
    return with_groups(responses, groups if isinstance(groups, pd.DataFrame) else load_scores(groups))


def with_groups(responses: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Responses with the `group` of each image as the scores of a run have it, rows of per_image.csv.

    DataError for images of test trials that are not in the run, and for images of two groups.
    """
    require(scores, ("image_id", "group"), "scores")
    pairs = scores[["image_id", "group"]].fillna("").drop_duplicates()
    twice = pairs.loc[pairs.duplicated("image_id"), "image_id"]
    if len(twice):
        raise DataError(f'scores: image "{twice.iloc[0]}" belongs to two groups')
    check_names(responses.loc[responses["kind"] == "test", "image_id"], set(pairs["image_id"]), "image")
    group = pairs.set_index("image_id")["group"]
    return responses.assign(group=responses["image_id"].map(group).fillna(""))


def validate(frame: pd.DataFrame, name: str = "responses") -> pd.DataFrame:
    """A frame with responses.csv's columns, as text or as values, with their types; `name` is what errors call it."""
    typed = _typed(frame, COLUMNS, RESPONSES, name, "responses")
    _check_meaning(typed, name)
    _check_unique(typed, name)
    return typed


def load_choices(paths: Paths) -> pd.DataFrame:
    """The choices of one file or several between pairs of models, typed and checked, in the order of the files.

    Raises DataError, naming file and line, for a missing column, a value outside its range, a choice given twice, and
    files without choices. As for spreadsheets and groups of images, see `load`.
    """
    files = _files(paths)
    if not files:
        raise DataError("no file of choices given")
    frames = []
    for path in files:  # no comprehension, as in `load`
        frames.append(validate_choices(_read(path, CHOICE_COLUMNS), str(path)))
    return _unique_choices(
        pd.concat(frames, ignore_index=True), "the files together" if len(files) > 1 else str(files[0])
    )


def validate_choices(frame: pd.DataFrame, name: str = "choices") -> pd.DataFrame:
    """A frame with the columns of choices.csv, as text or as values, with their types."""
    typed = _typed(frame, CHOICE_COLUMNS, CHOICES, name, "choices")
    for column in ("study", "subject", "image_id"):
        _refuse(typed[column] == "", typed[column], name, "must not be empty")
    compared, catch = typed["kind"] != "catch", typed["kind"] == "catch"
    for column in ("model_left", "model_right"):
        _refuse(compared & (typed[column] == ""), typed[column], name, "must not be empty but in a catch trial")
    same = compared & (typed["model_left"] == typed["model_right"])
    _refuse(same, typed["model_left"], name, "must be another model than model_right")
    _refuse(catch & ~typed["real_side"].isin(SIDES), typed["real_side"], name, "must be left or right in a catch trial")
    return _unique_choices(typed, name)


def _unique_choices(choices: pd.DataFrame, name: str) -> pd.DataFrame:
    twice = choices[choices.duplicated([*TRIAL, "criterion"])]
    if len(twice):
        where = ", ".join(f"{column} {twice.iloc[0][column]}" for column in TRIAL[1:])
        raise DataError(f"{name}: {len(twice)} choices are listed twice, first {where} (row {twice.index[0] + 2})")
    return choices


def _typed(
    frame: pd.DataFrame, columns: Sequence[str], codebook: Mapping[str, Column], name: str, what: str
) -> pd.DataFrame:
    """A frame that has `columns`, and perhaps a group, with the types and values that the codebook names."""
    require(frame, columns, name)
    if frame.empty:
        raise DataError(f"{name}: holds no {what}")
    typed = frame.reset_index(drop=True)
    for column in (*columns, *(["group"] if "group" in typed else [])):
        typed[column] = _column(typed[column], codebook[column], name)
    return typed


def _column(values: pd.Series, about: Column, name: str) -> pd.Series:
    allowed = about.get("enum")
    if "pattern" in about:
        return _moments(values, name)
    if about["type"] == "number":
        return _measured(values, name)
    if about["type"] == "integer":
        values = _whole(values.map(_as_number) if allowed == [0, 1] else values, name)
    elif allowed is None:
        return _names(values, name)
    elif "" in allowed:
        values = values.fillna("")
    if allowed is not None:
        rule = f"must be {' or '.join(str(value) for value in allowed if value != '')}"
        _refuse(~values.isin(allowed), values, name, rule)
    return values


def load_scores(paths: Paths) -> pd.DataFrame:
    """The per_image.csv of one run or several: task, method, image_id, metric, value (may be inf), group, dataset."""
    return _load_table(paths, ("task", "method", "image_id", "metric", "value", "group"))


def load_results(paths: Paths) -> pd.DataFrame:
    """The results.csv of one run or several: task, method, metric, value, higher_is_better (bool), dataset and more."""
    results = _load_table(paths, ("task", "method", "metric", "value", "higher_is_better"))
    return results.assign(higher_is_better=results["higher_is_better"] == "True")


def with_dataset(table: pd.DataFrame) -> pd.DataFrame:
    """Scores or results with the data set of every row, "" for the only, unnamed one of a run."""
    return table.assign(dataset=table["dataset"].astype(object).fillna("") if "dataset" in table else "")


def judgements(responses: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """The responses to test trials: practice and catch trials are never counted. Needs the columns `by`, too.

    DataError for a missing column, and for values that would be lost without a word: empty ones, and a picked_model
    that is neither 0 nor 1. Frames that `load` or `validate` returned have none.
    """
    require(responses, ["picked_model"], "responses")
    trials = of_tests(responses, by)
    if not trials["picked_model"].isin([0, 1]).all():
        raise DataError("responses: picked_model must be 0 or 1, as a number; analysis.tables.load reads it so")
    return trials


def of_tests(answers: pd.DataFrame, by: Sequence[str] = (), name: str = "responses") -> pd.DataFrame:
    """The rows of test trials, of responses or of choices, with the columns `by`; DataError for empty values."""
    require_list(by, "by")
    require(answers, (*RESPONSE, "kind", *by), name)
    trials = answers[answers["kind"] == "test"]
    for column in dict.fromkeys((*RESPONSE, *by)):
        if trials[column].isna().any():
            raise DataError(f"{name}: {column} is empty in {trials[column].isna().sum()} test trials")
    return trials


def require_list(columns: Sequence[str], name: str) -> None:
    """DataError for one column given as text, whose letters would be taken for columns."""
    if isinstance(columns, str):
        raise DataError(f'{name}: must be a list of columns, ["{columns}"]')


def require(frame: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """DataError that names the columns which a frame lacks."""
    missing = [column for column in dict.fromkeys(columns) if column not in frame]
    if missing:
        raise DataError(f"{name}: has no column {', '.join(missing)}")


def check_names(names: Iterable[str], known: Collection[str], what: str) -> None:
    """DataError for the first name that is not known, with the nearest that is, or some that are."""
    for name in sorted(set(names) - set(known)):
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        some = [*sorted(known)[:LISTED], *["…"] * (len(known) > LISTED)]
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(some)}"
        raise DataError(f'unknown {what} "{name}"; {hint}')


def _files(paths: Paths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def _read(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """The cells of a file as text; CSV separated by semicolons or tabs only where that gives it all of the columns."""
    if path.suffix == ".parquet":
        return _of_parquet(path)
    header = _parsed(path, ",", rows=0).columns
    other = next((separator for separator in "\t;" if len(header) == 1 and separator in header[0]), None)
    if other is None:
        return _parsed(path, ",")
    frame = _parsed(path, other)
    if not set(columns) <= set(frame.columns):
        raise DataError(f"{path}: columns are not separated by commas; save it as CSV with commas")
    return frame.assign(**{column: _decimal_points(frame[column]) for column in NUMBERS if column in frame})


def _of_parquet(path: Path) -> pd.DataFrame:
    """Its cells as a CSV file would have them."""
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install 'sr3eval[analysis]'") from None
    except (OSError, ValueError) as error:  # ValueError: pyarrow's errors
        raise DataError(f"{path}: not a readable table ({str(error).strip().splitlines()[0]})") from None
    return frame.astype(object).map(lambda cell: "" if pd.isna(cell) else str(cell))


def _decimal_points(values: pd.Series) -> pd.Series:
    """Decimal commas as points, unless the column has points, too: then either could separate thousands."""
    return values if values.str.contains(".", regex=False).any() else values.str.replace(",", ".")


def _parsed(path: Path, separator: str, rows: int | None = None) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, sep=separator, nrows=rows, dtype=str, keep_default_na=False)  # "NA" is a name
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: is empty") from None
    except (OSError, ValueError) as error:  # ValueError: pandas' parser errors and undecodable text
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: not a readable table ({reason})") from None
    return frame


def _load_table(paths: Paths, columns: Sequence[str]) -> pd.DataFrame:
    files = _files(paths)
    frames = []
    for path in files:
        frame = _read(path, columns)
        require(frame, columns, str(path))
        numbers = pd.to_numeric(frame["value"].replace("", "nan"), errors="coerce")
        unread = numbers.isna() & ~frame["value"].str.lower().isin(["", "nan"])
        _refuse(unread, frame["value"], str(path), "must be a number")
        frame["value"] = numbers
        if "higher_is_better" in columns:
            higher = frame["higher_is_better"].str.capitalize()  # Excel writes TRUE
            _refuse(~higher.isin(["True", "False"]), frame["higher_is_better"], str(path), "must be True or False")
            frame["higher_is_better"] = higher
        frames.append(with_dataset(frame))
    if not sum(map(len, frames)):
        raise DataError(f"{', '.join(map(str, files)) or 'no file named'}: holds no scores")
    return pd.concat(frames, ignore_index=True)


def _refuse(wrong: pd.Series, values: pd.Series, name: str, rule: str) -> None:
    """DataError for the first value that is wrong; line 1 of a file is its header."""
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f'{name}, line {row + 2}: {values.name} is "{values.iloc[row]}", {rule}')


def _names(values: pd.Series, name: str) -> pd.Series:
    """Text without spaces around it, which would make another name of the same."""
    given = values.fillna("").astype(str)
    stripped = given.str.strip()
    spaced = sorted(set(stripped[stripped != given]))
    if spaced:
        some = ", ".join(f'"{one}"' for one in spaced[:LISTED]) + ", …" * (len(spaced) > LISTED)
        warnings.warn(f"{name}: spaces around {values.name} {some} removed", UserWarning, stacklevel=6)
    return stripped


def _as_number(value: object) -> object:
    """1 and 0 for true and false, however a program wrote them; anything else as it is."""
    return {"true": 1, "false": 0}.get(str(value).strip().lower(), value)


def _whole(values: pd.Series, name: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    _refuse(~numbers.between(0, LARGEST) | (numbers % 1 != 0), values, name, "must be a whole number")
    return numbers.astype("int64")


def _measured(values: pd.Series, name: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    empty = values.isna() | (values.astype(str).str.strip() == "")
    _refuse(~empty & ~(np.isfinite(numbers) & (numbers >= 0)), values, name, "must be ms, at least 0")
    return numbers


def _moments(values: pd.Series, name: str) -> pd.Series:
    moments = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    _refuse(moments.isna(), values, name, "must be a moment like 2026-01-31T12:00:00Z")
    return moments


def _check_meaning(responses: pd.DataFrame, name: str) -> None:
    """What no type says: nothing that identifies a response is empty, and what was picked is what was chosen."""
    tested = responses["kind"] == "test"
    for column in ("study", "subject", "image_id"):
        _refuse(responses[column] == "", responses[column], name, "must not be empty")
    _refuse(tested & (responses["model"] == ""), responses["model"], name, "must not be empty in a test trial")
    _refuse(responses["exposure_ms"] == 0, responses["exposure_ms"], name, "must be ms, more than 0")
    chosen = (responses["choice_side"] != responses["real_side"]).astype(int)
    rule = "but choice_side and real_side say otherwise"
    _refuse(responses["picked_model"] != chosen, responses["picked_model"], name, rule)


def _check_unique(responses: pd.DataFrame, name: str) -> None:
    tested = responses[responses["kind"] == "test"]
    for rows, key in ((responses, TRIAL), (tested, SHOWN)):
        twice = rows[rows.duplicated(list(key))]
        if len(twice):
            first = twice.iloc[0]
            where = ", ".join(f"{column} {first[column]}" for column in key[1:])
            raise DataError(
                f"{name}: {len(twice)} responses are listed twice, first {where} (row {twice.index[0] + 2})"
            )
