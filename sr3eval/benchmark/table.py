"""Results tables from per-image scores: CSV, Markdown, LaTeX."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sr3eval.benchmark.intervals import LEVEL, bootstrap_interval, holm, sign_flip_p
from sr3eval.benchmark.layout import RunFolder
from sr3eval.errors import UserError
from sr3eval.files import atomic_write

PER_IMAGE_COLUMNS = ["task", "method", "image_id", "metric", "value", "group"]
FEW_GROUPS = 20
# Name and decimals of the metrics as papers print them; the id's suffix (_y, _b4) is kept.
PRINTED = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 3), "consistency": ("Consistency", 2)}

Conventions = Mapping[str, tuple[bool, str]]


def printed(metric: str) -> tuple[str, int]:
    """(name, decimals) of a metric id in tables."""
    base, _, suffix = metric.partition("_")
    if base not in PRINTED:
        return metric, 3
    name, decimals = PRINTED[base]
    return f"{name} ({suffix.replace('_', ', ')})" if suffix else name, decimals


def summarise(per_image: pd.DataFrame, conventions: Conventions) -> pd.DataFrame:
    """results.csv from per_image.csv: a row for each task, method and metric, in order of appearance.

    value: mean over the images with finite scores. ci: bootstrap over groups. best, delta_to_best and its interval
    compare with the best method on the images that both have; p_value is a sign-flip test, Holm-adjusted over the
    methods of the metric.
    """
    rows: list[dict[str, object]] = []
    for (task, metric), scores in per_image.groupby(["task", "metric"], sort=False):
        if metric not in conventions:
            raise UserError(f'results.csv does not know the metric "{metric}" of per_image.csv')
        higher, settings = conventions[str(metric)]
        by_method = {str(name): part for name, part in scores.groupby("method", sort=False)}
        summaries = {name: _summary(part) for name, part in by_method.items()}
        best = _best({name: summary["value"] for name, summary in summaries.items()}, higher)
        paired = {name: _paired(part, by_method[best]) for name, part in by_method.items() if name != best}
        adjusted = holm([comparison["p_value"] for comparison in paired.values()])
        for comparison, p in zip(paired.values(), adjusted, strict=True):
            comparison["p_value"] = p
        for name, summary in summaries.items():
            is_best = {"best": summary["value"] == summaries[best]["value"]}
            row = {"task": task, "method": name, "metric": metric} | summary
            row |= {"higher_is_better": higher, "settings": settings} | is_best | paired.get(name, {})
            rows.append(row)
    columns = ["task", "method", "metric", "value", "ci_low", "ci_high", "n", "higher_is_better", "settings"]
    extra = ["n_groups", "n_infinite", "best", "delta_to_best", "delta_ci_low", "delta_ci_high", "p_value"]
    return pd.DataFrame(rows, columns=columns + extra)


def _summary(scores: pd.DataFrame) -> dict[str, float]:
    finite = scores[np.isfinite(scores["value"])]
    n_infinite = len(scores) - len(finite)
    if finite.empty:
        return {
            "value": math.inf,
            "ci_low": math.nan,
            "ci_high": math.nan,
            "n": 0,
            "n_groups": 0,
            "n_infinite": n_infinite,
        }
    values, groups = finite["value"].to_numpy(float), finite["group"].to_numpy(object)
    low, high = bootstrap_interval(values, groups)
    value = math.fsum(values) / len(values)
    n_groups = len(set(groups))
    return {
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": len(values),
        "n_groups": n_groups,
        "n_infinite": n_infinite,
    }


def _best(values: Mapping[str, float], higher: bool) -> str:
    return (max if higher else min)(values, key=lambda name: values[name])


def _paired(scores: pd.DataFrame, best: pd.DataFrame) -> dict[str, float]:
    """Mean of (method - best) over the images that are finite in both, its interval, and an unadjusted p."""
    both = scores.merge(best[["image_id", "value"]], on="image_id", suffixes=("", "_best"))
    both = both[np.isfinite(both["value"]) & np.isfinite(both["value_best"])]
    if both.empty:
        return {"delta_to_best": math.nan, "delta_ci_low": math.nan, "delta_ci_high": math.nan, "p_value": 1.0}
    differences = (both["value"] - both["value_best"]).to_numpy(float)
    groups = both["group"].to_numpy(object)
    low, high = bootstrap_interval(differences, groups)
    mean = math.fsum(differences) / len(differences)
    return {
        "delta_to_best": mean,
        "delta_ci_low": low,
        "delta_ci_high": high,
        "p_value": sign_flip_p(differences, groups),
    }


@dataclass(frozen=True)
class Style:
    """How one output format writes a table's parts."""

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    interval: Callable[[str, str], str]
    up: str
    down: str
    similar: str  # mark of values that do not differ from the best one


MARKDOWN = Style(
    lambda text: text.replace("|", "\\|"), lambda text: f"**{text}**", lambda a, b: f" [{a}, {b}]", "↑", "↓", "†"
)
_LATEX_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
LATEX = Style(
    lambda text: "".join(_LATEX_SPECIAL.get(c, c) for c in text),
    lambda text: f"\\textbf{{{text}}}",
    lambda a, b: f" {{\\scriptsize [{a}, {b}]}}",
    r"$\uparrow$",
    r"$\downarrow$",
    r"$^\dagger$",
)


def cells(results: pd.DataFrame, style: Style) -> tuple[list[str], list[list[str]]]:
    """Header and rows (methods) of one task's table; the best value of a column is bold."""
    metrics = list(dict.fromkeys(results["metric"]))
    by_key = {(row.method, row.metric): row for row in results.itertuples()}
    header = ["Method"]
    for metric in metrics:
        higher = bool(results[results["metric"] == metric]["higher_is_better"].iloc[0])
        header.append(f"{style.escape(printed(metric)[0])} {style.up if higher else style.down}")
    rows = []
    for method in dict.fromkeys(results["method"]):
        row = [style.escape(method)]
        for metric in metrics:
            result = by_key.get((method, metric))
            row.append("–" if result is None else _cell(result, printed(metric)[1], style))
        rows.append(row)
    return header, rows


def _cell(result: Any, decimals: int, style: Style) -> str:
    def number(value: float) -> str:
        return f"{value:.{decimals}f}"

    text = style.bold(number(result.value)) if result.best else number(result.value)
    if not result.best and result.p_value >= 1 - LEVEL:
        text += style.similar
    return text if math.isnan(result.ci_low) else text + style.interval(number(result.ci_low), number(result.ci_high))


def notes(results: pd.DataFrame) -> list[str]:
    """What a reader must know to use the numbers, a sentence each."""
    n, groups = int(results["n"].max()), int(results["n_groups"].max())
    unit = "images" if n == groups else f"groups of images ({groups} groups)"
    lines = [f"{n} images; brackets: 95 % bootstrap intervals over {unit}; bold: best."]
    if (~results["best"] & (results["p_value"] >= 1 - LEVEL)).any():
        lines.append(
            "†: does not differ from the best at 5 % (paired sign-flip test over the same units, Holm-adjusted)."
        )
    if groups < FEW_GROUPS:
        lines.append(f"{groups} {'images' if n == groups else 'groups'} are few: the intervals tend to be too narrow.")
    infinite = results[results["n_infinite"] > 0]
    for row in infinite.itertuples():
        what = f"{row.n_infinite} images equal their reference"
        lines.append(f"{row.method}: {what} (infinite {printed(str(row.metric))[0]}, not in the mean).")
    for metric, settings in dict(zip(results["metric"], results["settings"], strict=True)).items():
        lines.append(f"{printed(metric)[0]}: {settings}.")
    return lines


def markdown(results: pd.DataFrame) -> str:
    """results.md: a table for each task and its notes."""
    parts = []
    for task, part in results.groupby("task", sort=False):
        header, rows = cells(part, MARKDOWN)
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in [header, *rows]
        ]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        parts.append("\n".join([f"### {task}", "", *lines, "", *(f"- {note}" for note in notes(part))]))
    return "\n\n".join(parts) + "\n"


def latex(results: pd.DataFrame) -> str:
    """results.tex: a booktabs table for each task."""
    parts = []
    for task, part in results.groupby("task", sort=False):
        header, rows = cells(part, LATEX)
        body = [f"    {' & '.join(row)} \\\\" for row in rows]
        caption = " ".join(LATEX.escape(note).replace("†", LATEX.similar) for note in notes(part))
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{LATEX.escape(str(task))}. {caption}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            "    \\toprule",
            f"    {' & '.join(header)} \\\\",
            "    \\midrule",
            *body,
            "    \\bottomrule",
            "  \\end{tabular}",
            "\\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write(results: pd.DataFrame, folder: Path) -> None:
    """Write results.csv, results.md and results.tex."""
    atomic_write(folder / "results.csv", results.to_csv(index=False, lineterminator="\n").encode())
    atomic_write(folder / "results.md", markdown(results).encode())
    atomic_write(folder / "results.tex", latex(results).encode())


def read_scores(folder: Path) -> pd.DataFrame:
    """per_image.csv of a run."""
    return _read_csv(RunFolder(folder).per_image, PER_IMAGE_COLUMNS)


def read_runs(folders: Sequence[Path]) -> tuple[pd.DataFrame, dict[str, tuple[bool, str]]]:
    """per_image.csv of several runs as one frame, and the conventions of their metrics.

    A method name that occurs in two runs of one task is prefixed with its run's folder. Raises UserError for a folder
    without results and for runs whose metrics of one name follow different conventions.
    """
    frames: list[pd.DataFrame] = []
    conventions: dict[str, tuple[bool, str]] = {}
    for folder in folders:
        frames.append(read_scores(folder).assign(run=folder.name))
        known = _read_csv(RunFolder(folder).results, ["metric", "higher_is_better", "settings"])
        for row in known.itertuples():
            value = (bool(row.higher_is_better), str(row.settings))
            if conventions.setdefault(str(row.metric), value) != value:
                raise UserError(f'{folder}: its "{row.metric}" follows other settings than the runs before it')
    scores = pd.concat(frames, ignore_index=True)
    runs_of = scores.groupby(["task", "method"])["run"].transform("nunique")
    scores["method"] = scores["method"].where(runs_of == 1, scores["run"] + "/" + scores["method"])
    return scores[PER_IMAGE_COLUMNS], conventions


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        # Names like "NA" or "null" are names; only numbers may be missing.
        frame = pd.read_csv(
            path, keep_default_na=False, na_values={"value": ["", "nan"]}, dtype={"image_id": str, "group": str}
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is this the folder of a finished run?") from None
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}")
    return frame
