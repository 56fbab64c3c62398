"""Fool rates of a human study as rows of a results table, beside the metrics of the same methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sr3eval.benchmark.layout import LR, RunFolder, of_sample
from sr3eval.benchmark.scores import read_config
from sr3eval.errors import UserError, number
from sr3eval.folders import find_images
from sr3eval.images import header_size
from sr3eval.packs import pixels_sha256

INTERVAL = "two-way"  # how `interval` calls the intervals of these rows
SETTINGS = (
    "share of test trials on which people picked the output, Task-{task} of the paper, shown for {seconds:g} s; 50 is "
    "indistinguishable; two-way clustered by subject and {clusters}; {n} test trials of {subjects} subjects and "
    "{images} images a method{rest}"
)
SHOWN, SIZE = "shown_sha256", ["natural_h", "natural_w"]  # of the picture that stood beside the real one
CONDITION = ["study", "task", "exposure_ms"]  # what is never pooled
Remarks = Mapping[tuple[str, int, int], str]


def refuse_other_images(responses: pd.DataFrame, runs: Sequence[Path]) -> None:
    """Raise UserError for test trials of images that none of the runs has."""
    known = {image_id for run in runs for image_id in find_images(RunFolder(run).images / LR)}
    judged = responses.loc[responses["kind"] == "test", "image_id"]
    other = sorted(set(judged) - known)
    if other:
        where = " and ".join(map(str, runs))
        raise UserError(f'responses to {number(len(other), "image")} that {where} does not have, first "{other[0]}"')


def refuse_other_pictures(responses: pd.DataFrame, runs: Sequence[Path]) -> None:
    """Raise UserError for test trials of pictures that have other pixels than those of the runs.

    responses: with `shown_sha256`, natural_w and natural_h, as studies export them; others pass, and so do windows cut
    out of pictures, which are smaller. A column `sample` says which of a method's pictures it was, else the first.
    """
    if not {SHOWN, *SIZE} <= set(responses):
        return
    tested = responses[(responses["kind"] == "test") & (responses[SHOWN].fillna("") != "")]
    tested = tested.assign(**{side: pd.to_numeric(tested[side], errors="coerce") for side in SIZE})
    tested = tested.assign(sample=tested.get("sample", 1))
    shown = tested[["model", "sample", "image_id", SHOWN, *SIZE]].drop_duplicates()
    for model, sample, image_id, sha256, *size in shown.to_numpy():
        paths = [path for run in runs for path in _pictures(run, model, sample, image_id)]
        whole = [path for path in paths if not _is_window(size, header_size(path))]
        if whole and all(pixels_sha256(path.read_bytes()) != sha256 for path in whole):
            raise UserError(
                f'responses to other pictures than {" and ".join(map(str, runs))} has, first "{image_id}" of {model}: '
                "give the run that the study's pictures are from"
            )


def samples_remark(responses: pd.DataFrame) -> str:
    """Of which methods people saw several samples, "; 3 samples of an image by sr3"; empty where of none."""
    counts = responses.groupby("model")["sample"].nunique()
    return "".join(f"; {count} samples of an image by {model}" for model, count in counts[counts > 1].items())


def _pictures(run: Path, model: str, sample: int, image_id: str) -> list[Path]:
    """A method's picture in a run, whose name a table may have put before the method's; none where it is not there."""
    rows = [row for row in read_config(run).rows if row.is_picture]
    slugs = [of_sample(row.slug, sample) for row in rows if f"/{model}".endswith(f"/{row.name}")]
    paths = [RunFolder(run).image(slug, image_id) for slug in slugs]
    return [path for path in paths if path.exists()]


def _is_window(shown: Sequence[float], whole: Sequence[int]) -> bool:
    """Whether (height, width) is that of a part."""
    return list(shown) != list(whole) and all(part <= side for part, side in zip(shown, whole, strict=True))


def add_fool_rates(
    results: pd.DataFrame, rates: pd.DataFrame, comparisons: pd.DataFrame, remarks: Remarks
) -> pd.DataFrame:
    """`results` with a row for each fool rate, in per cent: metrics fool_rate_task1 and fool_rate_task2.

    Where a task was judged at several viewing times, each has a metric: fool_rate_task1_3s, fool_rate_task1_6s; so has
    each study of several at the same one. results: of `summary.summarise`, of one task. rates: study, task (1 or 2),
    exposure_ms, model (a method's name), n, subjects, images, groups, fool_rate, ci_low, ci_high, note. comparisons:
    study, task, exposure_ms, model_a, model_b, difference (a - b), ci_low, ci_high, p_holm. remarks: what else to say
    of a condition. Raises UserError for results of several tasks.
    """
    sets = results[["task", "dataset"]].drop_duplicates()
    if len(sets) > 1:
        names = ", ".join(dict.fromkeys(sets["task"])) if sets["task"].nunique() > 1 else ", ".join(sets["dataset"])
        raise UserError(f"responses belong to the pictures of one task and data set, not of {names}")
    rows = []
    for (study, task, exposure), part in rates.groupby(CONDITION):
        pairs = comparisons[(comparisons[CONDITION] == [study, task, exposure]).all(axis=1)]
        of_task = rates[rates["task"] == task]
        times = of_task["exposure_ms"].nunique() > 1
        studies = of_task.loc[of_task["exposure_ms"] == exposure, "study"].nunique() > 1
        metric = f"fool_rate_task{task}" + f"_{exposure / 1000:g}s" * times + f"_{study}" * studies
        label = f"Fool rate, Task-{task}" + f", {exposure / 1000:g} s" * times + f", {study}" * studies
        rows += _rows(metric, label, part, pairs, remarks.get((study, task, exposure), ""))
    methods = results.drop_duplicates("method").set_index("method")
    kept = ["method_settings", "method_notes", "method_warning", "n_too_small", "n_unreadable", "inputs"]
    added = pd.DataFrame(rows).assign(**sets.iloc[0]).join(methods[kept], on="method")
    return pd.concat([results, added[[column for column in results if column in added]]], ignore_index=True)


def _rows(
    metric: str, label: str, rates: pd.DataFrame, comparisons: pd.DataFrame, rest: str
) -> list[dict[str, object]]:
    """Rows of the study's Task-1 or Task-2 at one viewing time; the best is the highest rate."""
    best = rates.loc[rates["fool_rate"].idxmax(), "model"] if rates["fool_rate"].notna().any() else None
    subjects, images = (_range(rates[column]) for column in ("subjects", "images"))
    condition = {"task": int(rates["task"].iloc[0]), "seconds": rates["exposure_ms"].iloc[0] / 1000}
    grouped = (rates["groups"] < rates["images"]).any()
    clusters = f"group of images ({_range(rates['groups'])} groups)" if grouped else "image"
    counts = {"n": _range(rates["n"]), "subjects": subjects, "images": images, "clusters": clusters}
    notes = [f"{note} ({', '.join(part['model'])})" for note, part in rates[rates["note"] != ""].groupby("note")]
    settings = SETTINGS.format(**condition, **counts, rest="".join(f"; {text}" for text in (rest, *notes) if text))
    return [
        {
            "method": row.model,
            "metric": metric,
            "label": label,
            "unit": "%",
            "decimals": 1,
            "version": "1",
            "value": 100 * row.fool_rate,
            "ci_low": 100 * row.ci_low,
            "ci_high": 100 * row.ci_high,
            "n": row.n,
            "higher_is_better": True,
            "settings": settings,
            "n_groups": row.subjects,
            "n_infinite": 0,
            "n_left_out": 0,
            "best": row.model == best,
            "interval": INTERVAL,
        }
        | _against(str(best), str(row.model), comparisons)
        for row in rates.itertuples()
    ]


def _range(counts: pd.Series) -> str:
    """One number where all are equal, else the least and the greatest."""
    return f"{counts.min()}" if counts.nunique() == 1 else f"{counts.min()} to {counts.max()}"


def _against(best: str, model: str, comparisons: pd.DataFrame) -> dict[str, object]:
    """The comparison of a method with the best one, if it was made."""
    for sign, a, b in ((1, "model_a", "model_b"), (-1, "model_b", "model_a")):
        pair = comparisons[(comparisons[a] == model) & (comparisons[b] == best)]
        for row in pair.itertuples():
            ends = sorted((100 * sign * row.ci_low, 100 * sign * row.ci_high))
            delta = {"delta_to_best": 100 * sign * row.difference, "delta_ci_low": ends[0], "delta_ci_high": ends[1]}
            return delta | {"p_value": row.p_holm, "testable": bool(pd.notna(row.p_holm))}
    return {}
