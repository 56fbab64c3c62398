"""What changed from one run to another: `benchmark.py table B --compare A`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sr3eval.benchmark.layout import HR, LR, RunFolder
from sr3eval.benchmark.scores import Scores, read_conventions, read_run, refuse_other
from sr3eval.benchmark.styles import MARKDOWN
from sr3eval.benchmark.summary import MEAN, SET, Kind, is_reference
from sr3eval.benchmark.table import markdown_lines
from sr3eval.errors import UserError
from sr3eval.metrics import Convention
from sr3eval.significance import LEVEL, holm

GIVEN = {HR: "HR image", LR: "input"}


def compare(run_a: Path, run_b: Path) -> pd.DataFrame:
    """The difference B - A of each method and metric that both runs have, over the images that both have.

    Columns: task, dataset, method, metric, label, unit, decimals, higher_is_better, a and b (means over the common
    images, or the metric of the whole set), delta, ci_low, ci_high, p_value, testable, n, n_groups. Intervals and tests
    are those of `summarise`: p_value is Holm-adjusted over the methods of a metric. Metrics of a whole set are compared
    where both runs have them of the same images. Raises UserError for runs of different tasks, for pictures of one name
    with other pixels, for metrics of one name with other settings, and where the runs have nothing in common.
    """
    a, b = read_run(run_a), read_run(run_b)
    task = _common_task(a, b, run_a, run_b)
    metrics = _common_metrics(run_a, run_b)
    ids, equal = _common_images(run_a, run_b)
    kinds = ((MEAN, "per_image"), (SET, "sets")) if equal else ((MEAN, "per_image"),)
    rows = [
        {"task": task, "dataset": dataset} | _columns(metric) | row
        for metric in metrics
        for kind, scores in kinds
        for dataset, parts in _by_dataset(getattr(a, scores), getattr(b, scores), metric.name)
        for row in _changes(kind, metric.ceiling, *(_of(part, ids) for part in parts))
    ]
    if not rows:
        raise UserError(f"{run_a} and {run_b} have no method with a common metric: nothing to compare")
    return pd.DataFrame(rows)


def _common_task(a: Scores, b: Scores, run_a: Path, run_b: Path) -> str:
    tasks = [str(scores.methods["task"].iloc[0]) for scores in (a, b)]
    if tasks[0] != tasks[1]:
        raise UserError(f"{run_a} is of the task {tasks[0]}, {run_b} of {tasks[1]}: they cannot be compared")
    return tasks[0]


def _common_metrics(run_a: Path, run_b: Path) -> list[Convention]:
    """The metrics of both runs. Raises UserError for one whose conventions differ."""
    ours, theirs = read_conventions(run_a), read_conventions(run_b)
    both = [name for name in ours if name in theirs]
    for name in both:
        refuse_other(run_b, ours[name], theirs[name])
    return [ours[name] for name in both]


def _columns(metric: Convention) -> dict[str, object]:
    names = ("label", "unit", "decimals", "higher_is_better")
    return {"metric": metric.name} | {name: getattr(metric, name) for name in names}


def _common_images(run_a: Path, run_b: Path) -> tuple[set[str], bool]:
    """The ids of both runs, and whether these are all. Raises UserError for none, and for one of two pictures."""
    folders = [RunFolder(run).images for run in (run_a, run_b)]
    names = [{path.relative_to(folder / LR) for path in (folder / LR).rglob("*.png")} for folder in folders]
    common = sorted(names[0] & names[1])
    if not common:
        raise UserError(f"{run_a} and {run_b} have no image in common")
    for given in (HR, LR):
        if all((folder / given).is_dir() for folder in folders):
            for name in common:
                if not _same(*(folder / given / name for folder in folders)):
                    image_id = name.with_suffix("").as_posix()
                    raise UserError(f'{run_a} and {run_b} have different images: the {GIVEN[given]} "{image_id}"')
    return {name.with_suffix("").as_posix() for name in common}, names[0] == names[1]


def _same(a: Path, b: Path) -> bool:
    """Whether two pictures have the same pixels."""
    try:
        if a.read_bytes() == b.read_bytes():
            return True
        with Image.open(a) as one, Image.open(b) as other:
            return bool(np.array_equal(np.asarray(one), np.asarray(other)))
    except OSError as error:
        raise UserError(f"{error.filename or a}: cannot be read ({error.strerror or error})") from None


def _by_dataset(a: pd.DataFrame, b: pd.DataFrame, metric: str) -> list[tuple[str, tuple[pd.DataFrame, pd.DataFrame]]]:
    """The metric's scores in both runs, by data set."""
    one, other = (dict(list(scores[scores["metric"] == metric].groupby("dataset"))) for scores in (a, b))
    return [(str(name), (part, other[name])) for name, part in one.items() if name in other]


def _of(scores: pd.DataFrame, ids: set[str]) -> pd.DataFrame:
    """Those of the images, where the scores are of images."""
    return scores[scores["image_id"].isin(ids)] if "image_id" in scores else scores


def _changes(kind: Kind, ceiling: float, a: pd.DataFrame, b: pd.DataFrame) -> list[dict[str, object]]:
    """A row for each method of one metric, on one data set."""
    methods = [m for m in dict.fromkeys(a["method"]) if m in set(b["method"]) and not is_reference(m)]
    found = {method: _change(kind, ceiling, a[a["method"] == method], b[b["method"] == method]) for method in methods}
    tested = {method: row for method, row in found.items() if "p_value" in row}
    adjusted = holm([row["p_value"] for row in tested.values()])
    for row, p in zip(tested.values(), adjusted, strict=True):
        row |= {"p_value": p, "testable": len(tested) * row.pop("smallest_p") < 1 - LEVEL}
    return [{"method": method} | row for method, row in found.items()]


def _change(kind: Kind, ceiling: float, a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
    scores = kind.comparable(pd.concat([a.assign(method="a"), b.assign(method="b")]), ceiling)
    one, other = (scores[scores["method"] == run] for run in "ab")
    difference = kind.paired(other, one)
    deltas = {to: difference.pop(of) for of, to in _DELTAS.items() if of in difference}
    counts = {key: value for key, value in kind.summary(other).items() if key in ("n", "n_groups")}
    return {"a": kind.summary(one)["value"], "b": kind.summary(other)["value"]} | deltas | difference | counts


_DELTAS = {"delta_to_best": "delta", "delta_ci_low": "ci_low", "delta_ci_high": "ci_high"}


def markdown(changes: pd.DataFrame, runs: Sequence[Path]) -> str:
    """The comparison as a table and a line on how to read it. changes: of `compare`; runs: A and B."""
    header = ["Metric", "Method", *(MARKDOWN.escape(str(run)) for run in runs), "difference", "p"]
    body = [_cells(row) for row in changes.to_dict("records")]
    bold = "bold: a change for the better or the worse at 5 % (paired tests, Holm-adjusted over the methods)"
    return "\n".join([*markdown_lines(header, body), "", f"- Differences: {runs[1]} - {runs[0]}; {bold}.", ""])


def _cells(row: Mapping[str, Any]) -> list[str]:
    def printed(key: str, sign: str = "") -> str:
        value = row.get(key, math.nan)
        return "–" if math.isnan(value) else f"{value:{sign}.{row['decimals']}f}"

    arrow = MARKDOWN.up if row["higher_is_better"] else MARKDOWN.down
    metric = f"{row['dataset']} {row['label']} {arrow}".lstrip()
    p, testable = row.get("p_value", math.nan), row.get("testable") is True
    change = MARKDOWN.bold(printed("delta", "+")) if testable and p < 1 - LEVEL else printed("delta", "+")
    difference = change + MARKDOWN.interval(printed("ci_low", "+"), printed("ci_high", "+"))
    names = [MARKDOWN.escape(text) for text in (metric, row["method"])]
    return [*names, printed("a"), printed("b"), difference, _printed_p(p, testable)]


def _printed_p(p: float, testable: bool) -> str:
    if math.isnan(p):
        return "–"
    if not testable:
        return "too few groups"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
