"""Results tables from per-image scores: CSV, Markdown, LaTeX."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sr3eval.benchmark.intervals import (
    LEVEL,
    bootstrap_interval,
    holm,
    jackknife_error,
    sign_flip_p,
    t_interval,
    t_p,
)
from sr3eval.benchmark.layout import REFERENCE
from sr3eval.benchmark.people import INTERVAL
from sr3eval.benchmark.scores import Conventions, Scores
from sr3eval.errors import UserError, number
from sr3eval.files import atomic_write
from sr3eval.metrics import ceiling

FEW_GROUPS = 20
SMALL_N = 10_000  # below it, set metrics are biased by more than methods usually differ
# Name and decimals of the metrics as papers print them; the id's suffix (_y, _b4) is kept.
PRINTED = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "consistency": ("Consistency", 2),
    "fid": ("FID", 2),
    "is": ("IS", 2),
    "kid": ("KID ×10³", 2),
    "precision": ("Precision", 3),
    "recall": ("Recall", 3),
    "lpips": ("LPIPS", 3),
    "top1_error": ("Top-1 error", 3),
    "top5_error": ("Top-5 error", 3),
    "top1_agreement_resnet50": ("Top-1 agreement, ResNet-50", 3),
    "top1_agreement_efficientnet_lite0": ("Top-1 agreement, EfficientNet-Lite0", 3),
    "fd_efficientnet_lite0": ("FD, EfficientNet-Lite0", 1),
    "fool_rate_task1": ("Fool rate, Task-1, %", 1),
    "fool_rate_task2": ("Fool rate, Task-2, %", 1),
}


def printed(metric: str) -> tuple[str, int]:
    """(name, decimals) of a metric id in tables."""
    base = max((known for known in PRINTED if f"{metric}_".startswith(f"{known}_")), key=len, default=None)
    if base is None:
        return metric, 3
    (name, decimals), suffix = PRINTED[base], metric[len(base) + 1 :]
    return f"{name} ({suffix.replace('_', ', ')})" if suffix else name, decimals


def summarise(scores: Scores, conventions: Conventions) -> pd.DataFrame:
    """results.csv from a run's scores: a row for each task, metric and method, in the order of the conventions.

    value: mean over images (see `_comparable`), or the metric of the whole set. ci: bootstrap over groups, or jackknife
    over blocks. best, delta_to_best and its interval compare with the best method, over the same images; p_value is of
    a sign-flip test, or a t test on the jackknife, Holm-adjusted over the methods of the metric; testable is false
    where so few groups cannot bring it below 5 %, whatever the scores. n_infinite counts images equal to HR, n_left_out
    those without a finite score in some method. seed_sd is the standard deviation over n_seeds seeds, of whose values
    `value` is the mean. The reference (HR itself) takes no part in comparisons.
    """
    known = {*scores.per_image["metric"], *scores.sets["metric"]}
    for metric in sorted(known - set(conventions)):
        raise UserError(f'results.csv does not know the metric "{metric}" of the scores')
    rows: list[dict[str, object]] = []
    for task in dict.fromkeys([*scores.per_image["task"], *scores.sets["task"]]):
        for metric, convention in conventions.items():
            for frame, kind in ((scores.per_image, _MEAN), (scores.sets, _SET)):
                part = frame[(frame["task"] == task) & (frame["metric"] == metric)]
                rows += [{"task": task, "metric": metric} | row for row in _compared(part, kind, convention)]
    columns = ["task", "method", "metric", "value", "ci_low", "ci_high", "n", "higher_is_better", "settings"]
    deltas = ["delta_to_best", "delta_ci_low", "delta_ci_high", "p_value", "testable"]
    counts = ["n_groups", "n_infinite", "n_left_out"]
    results = pd.DataFrame(rows, columns=[*columns, *counts, "best", *deltas, "interval"])
    results = results.merge(_over_seeds(scores.seeds), on=["task", "method", "metric"], how="left")
    return results.merge(scores.methods.drop(columns="images"), on=["task", "method"], how="left")


def _over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """n_seeds and seed_sd by task, method and metric."""
    values = seeds.groupby(["task", "method", "metric"], sort=False)["value"]
    return values.agg(n_seeds="size", seed_sd="std").reset_index()


def _comparable(scores: pd.DataFrame) -> pd.DataFrame:
    """One metric's scores of images as means and tests take them, the same images for every method.

    Scores above the metric's ceiling count as that. Images that then have no finite score in one of the methods are
    left out of all, and counted in the column left_out. Those of the reference stay as they are.
    """
    own = ~scores["method"].map(is_reference)
    capped = scores["value"].where(~own, scores["value"].clip(upper=ceiling(str(scores["metric"].iloc[0]))))
    without = set(scores["image_id"][own & ~np.isfinite(capped)])
    marked = scores.assign(value=capped, infinite=np.isposinf(scores["value"]), left_out=len(without))
    common = marked[~marked["image_id"].isin(without)]
    return marked.assign(value=marked["value"].where(~own)) if common.empty else common


def is_reference(method: str) -> bool:
    """Whether a method's name, with or without the name of its run, is that of the HR images."""
    return method.rsplit("/", 1)[-1] == REFERENCE


@dataclass(frozen=True)
class _Kind:
    """How one kind of metric is summarised, and compared with the best method's scores."""

    interval: str
    comparable: Callable[[pd.DataFrame], pd.DataFrame]
    summary: Callable[[pd.DataFrame], dict[str, float]]
    paired: Callable[[pd.DataFrame, pd.DataFrame], dict[str, float]]


def _compared(scores: pd.DataFrame, kind: _Kind, convention: tuple[bool, str]) -> list[dict[str, object]]:
    """The rows of one metric, one a method; none for no scores."""
    if scores.empty:
        return []
    higher, settings = convention
    scores = kind.comparable(scores)
    by_method = {str(name): part for name, part in scores.groupby("method", sort=False)}
    summaries = {name: kind.summary(part) for name, part in by_method.items()}
    values = {n: s["value"] for n, s in summaries.items() if not is_reference(n) and not math.isnan(s["value"])}
    best = (max if higher else min)(values, key=lambda name: values[name]) if values else ""
    compared = {name: kind.paired(by_method[name], by_method[best]) for name in values if name != best}
    paired = {name: comparison for name, comparison in compared.items() if comparison}
    adjusted = holm([comparison["p_value"] for comparison in paired.values()])
    for comparison, p in zip(paired.values(), adjusted, strict=True):
        comparison |= {"p_value": p, "testable": len(paired) * comparison.pop("smallest_p") < 1 - LEVEL}
    shared = {"higher_is_better": higher, "settings": settings, "interval": kind.interval}
    return [
        {"method": name, "best": name in values and values[name] == values[best]}
        | shared
        | summary
        | paired.get(name, {})
        for name, summary in summaries.items()
    ]


def _summary(scores: pd.DataFrame) -> dict[str, float]:
    finite = scores[np.isfinite(scores["value"])]
    alone = math.inf if np.isposinf(scores["value"]).all() else math.nan  # the reference, or no common image
    summary = {"value": alone, "ci_low": math.nan, "ci_high": math.nan, "n": 0, "n_groups": 0}
    if not finite.empty:
        values, groups = finite["value"].to_numpy(float), finite["group"].to_numpy(object)
        low, high = bootstrap_interval(values, groups)
        value = math.fsum(values) / len(values)
        summary = {"value": value, "ci_low": low, "ci_high": high, "n": len(values), "n_groups": len(set(groups))}
    return summary | {"n_infinite": int(scores["infinite"].sum()), "n_left_out": int(scores["left_out"].iloc[0])}


def _paired(scores: pd.DataFrame, best: pd.DataFrame) -> dict[str, float]:
    """Mean of (method - best) over the images, its interval, an unadjusted p, the smallest possible."""
    both = scores.merge(best[["image_id", "value"]], on="image_id", suffixes=("", "_best"))
    if both.empty or both["value"].isna().all():
        return {}
    differences = (both["value"] - both["value_best"]).to_numpy(float)
    groups = both["group"].to_numpy(object)
    low, high = bootstrap_interval(differences, groups)
    mean = math.fsum(differences) / len(differences)
    return {
        "delta_to_best": mean,
        "delta_ci_low": low,
        "delta_ci_high": high,
        "p_value": sign_flip_p(differences, groups),
        "smallest_p": 2.0 ** (1 - len(set(groups))),
    }


def _set_summary(scores: pd.DataFrame) -> dict[str, float]:
    blocks = scores.set_index("left_out")
    value, n = float(blocks.loc["", "value"]), int(blocks.loc["", "n"])
    without = blocks.drop(index="")
    low, high = _jackknife(value, n, without)[1:] if len(without) > 1 else (math.nan, math.nan)
    counts = {"n": n, "n_groups": len(without), "n_infinite": 0, "n_left_out": 0}
    return {"value": value, "ci_low": low, "ci_high": high} | counts


def _jackknife(value: float, n: int, without: pd.DataFrame) -> tuple[float, float, float]:
    error = jackknife_error(value, n, without["value"].to_numpy(float), without["n"].to_numpy(float))
    return error, *t_interval(value, error, len(without))


def _set_paired(scores: pd.DataFrame, best: pd.DataFrame) -> dict[str, float]:
    """As `_paired`, of the difference of two sets' values, from common blocks."""
    both = scores.merge(best, on=["left_out", "n"], suffixes=("", "_best")).set_index("left_out")
    if len(both) < len(scores) or len(both) < 3:  # other images, or fewer than two blocks
        return dict(_NO_COMPARISON)
    both["value"] -= both["value_best"]
    delta, without = float(both.loc["", "value"]), both.drop(index="")
    error, low, high = _jackknife(delta, int(both.loc["", "n"]), without)
    p = t_p(delta, error, len(without))
    return {"delta_to_best": delta, "delta_ci_low": low, "delta_ci_high": high, "p_value": p, "smallest_p": 0.0}


_NO_COMPARISON = {"delta_to_best": math.nan, "delta_ci_low": math.nan, "delta_ci_high": math.nan} | {
    "p_value": 1.0,
    "smallest_p": 1.0,
}
_MEAN = _Kind("bootstrap", _comparable, _summary, _paired)
_SET = _Kind("jackknife", lambda scores: scores, _set_summary, _set_paired)


@dataclass(frozen=True)
class Style:
    """How one output format writes a table's parts."""

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    interval: Callable[[str, str], str]
    up: str
    down: str
    similar: str  # mark of values that do not differ from the best one
    identical: str  # mark of means over images of which some equal HR
    plus_minus: str


MARKDOWN = Style(
    lambda text: text.replace("|", "\\|"),
    lambda text: f"**{text}**",
    lambda a, b: f" [{a}, {b}]",
    "↑",
    "↓",
    "†",
    "‡",
    " ± ",
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
    r"$^\ddagger$",
    r" $\pm$ ",
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


def is_similar(result: Any) -> bool:
    """Whether a row of results gets the mark of no significant difference from the best one."""
    return not result.best and result.testable is True and result.p_value >= 1 - LEVEL


def _cell(result: Any, decimals: int, style: Style) -> str:
    if math.isnan(result.value):
        return "–"

    def printed_number(value: float) -> str:
        return f"{value:.{decimals}f}"

    text = style.bold(printed_number(result.value)) if result.best else printed_number(result.value)
    if result.n_seeds > 1:
        text += style.plus_minus + printed_number(result.seed_sd)
    if is_similar(result):
        text += style.similar
    if _has_identical(result):
        text += style.identical
    return (
        text
        if math.isnan(result.ci_low)
        else text + style.interval(printed_number(result.ci_low), printed_number(result.ci_high))
    )


def _has_identical(result: Any) -> bool:
    return result.n_infinite > 0 and not is_reference(result.method) and math.isfinite(ceiling(result.metric))


def notes(results: pd.DataFrame) -> list[str]:
    """What a reader must know to use the numbers, a sentence each."""
    means, sets = (results[results["interval"] == kind.interval] for kind in (_MEAN, _SET))
    lines = []
    if not means.empty:
        n, groups = int(means["n"].max()), int(means["n_groups"].max())
        unit = "images" if n == groups else f"groups of images ({groups} groups)"
        brackets = f"brackets: 95 % bootstrap intervals over {unit}" if groups > 1 else "no intervals, of one group"
        lines.append(f"{number(n, 'image')}{_left_out(means)}; {brackets}; bold: best.")
        if 1 < groups < FEW_GROUPS:
            what = "images" if n == groups else "groups"
            lines.append(f"{groups} {what} are few: the intervals tend to be too narrow.")
    if not sets.empty:
        names = ", ".join(dict.fromkeys(printed(str(metric))[0] for metric in sets["metric"]))
        n, blocks = int(sets["n"].max()), int(sets["n_groups"].max())
        brackets = f"brackets: 95 % jackknife intervals over {blocks} blocks of them" if blocks > 1 else "no intervals"
        lines.append(f"{names}: of {number(n, 'image')} as a set{_left_out(sets)}; {brackets}.")
        if n < SMALL_N:
            lines.append(f"They are biased at small N: compare them at N = {n} and with the same images only.")
    if (results["n_seeds"] > 1).any():
        lines.append("±: standard deviation over a method's seeds; its value is their mean.")
    people = results[results["interval"] == INTERVAL]
    if not people.empty:
        lines.append("Fool rates: brackets are 95 % intervals for new subjects and new images.")
    if any(map(is_similar, results.itertuples())):
        tests = _tests(means, sets, people)
        lines.append(f"†: not significantly different from the best at 5 % ({tests}, Holm-adjusted).")
    if (results["testable"] == False).any():  # noqa: E712 - NaN where nothing was compared
        lines.append("Too few groups for a test at 5 % with so many methods: no † there, whatever the difference.")
    for metric, rows in results[[_has_identical(row) for row in results.itertuples()]].groupby("metric", sort=False):
        counts = ", ".join(f"{row.n_infinite} of {row.method}" for row in rows.itertuples())
        least = f"{ceiling(str(metric)):.2f} dB, an error of half a grey level"
        lines.append(f"‡: images equal to HR count as {least}, in {printed(str(metric))[0]}: {counts}.")
    for row in results[results["n_left_out"] > 0].drop_duplicates("metric").itertuples():
        left_out = number(int(row.n_left_out), "image")
        lines.append(
            f"{printed(str(row.metric))[0]}: {left_out} without a finite score in some method, left out of all."
        )
    for metric, settings in dict(zip(results["metric"], results["settings"], strict=True)).items():
        lines.append(f"{printed(metric)[0]}: {settings}.")
    for row in results.drop_duplicates("method").itertuples():
        if row.method_settings != row.method:
            lines.append(f"{row.method}: {row.method_settings}.")
        if row.method_notes:
            lines.append(f"{row.method} says of its images: {row.method_notes}.")
        if row.method_warning:
            lines.append(f"{row.method}: {row.method_warning}.")
    return lines


def _left_out(results: pd.DataFrame) -> str:
    """How many images of the data no method got, and why."""
    counts = {"too small": results["n_too_small"].max(), "unreadable": results["n_unreadable"].max()}
    parts = [f"{int(count)} {why}" for why, count in counts.items() if count > 0]
    return f" ({' and '.join(parts)} and left out)" if parts else ""


def _tests(means: pd.DataFrame, sets: pd.DataFrame, people: pd.DataFrame) -> str:
    paired = "paired sign-flip test over the same units"
    shares = any("error" in str(metric) or "agreement" in str(metric) for metric in means["metric"])
    if shares and (means["n"] == means["n_groups"]).all():
        paired += ", which for error rates is McNemar's exact test"
    names = [paired] if not means.empty else []
    names += ["t test on the jackknifed difference for set metrics"] if not sets.empty else []
    return "; ".join(names + (["two-way clustered t test for fool rates"] if not people.empty else []))


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
    """results.tex: for each task a booktabs table, no wider than the line, with its notes below."""
    parts = []
    for task, part in results.groupby("task", sort=False):
        header, rows = cells(part, LATEX)
        body = [f"    {' & '.join(row)} \\\\" for row in rows]
        marks = {"†": LATEX.similar, "‡": LATEX.identical, "±": r"$\pm$"}
        remarks = ["".join(marks.get(c, c) for c in LATEX.escape(note)) for note in notes(part)]
        lines = [
            "% needs \\usepackage{booktabs,graphicx}",
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{Super-resolution results, {LATEX.escape(str(task))}.}}",
            f"  \\label{{tab:{task}}}",
            "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            "    \\toprule",
            f"    {' & '.join(header)} \\\\",
            "    \\midrule",
            *body,
            "    \\bottomrule",
            "  \\end{tabular}}",
            "",
            "  \\smallskip",
            "  \\parbox{\\linewidth}{\\scriptsize " + " ".join(remarks) + "}",
            "\\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write(results: pd.DataFrame, folder: Path) -> None:
    """Write results.csv, results.md and results.tex."""
    atomic_write(folder / "results.csv", results.to_csv(index=False, lineterminator="\n").encode())
    atomic_write(folder / "results.md", markdown(results).encode())
    atomic_write(folder / "results.tex", latex(results).encode())
