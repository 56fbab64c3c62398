"""What stands below a table: how many images, what brackets and marks mean, and how the numbers were made."""

import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from sr3eval.benchmark.fool_rates import INTERVAL
from sr3eval.benchmark.layout import GENERATED
from sr3eval.benchmark.summary import MEAN, SET, is_reference
from sr3eval.errors import number
from sr3eval.significance import LEVEL

FEW_GROUPS = 20
NOISE = 1.96  # standard errors, which hold a difference by seeds alone with 95 %
SMALL_N = 10_000  # below it, set metrics are biased by more than methods usually differ


def is_similar(result: Any) -> bool:
    """Whether a row of results gets the mark of no significant difference from the best one."""
    return not result.best and result.testable is True and result.p_value >= 1 - LEVEL


def has_identical(result: Any) -> bool:
    """Whether a row is a mean over images of which some equal HR, and count as the metric's ceiling."""
    return result.n_infinite > 0 and not is_reference(result.method) and math.isfinite(result.ceiling)


def is_generated(results: pd.DataFrame) -> bool:
    """Whether a table is of images made from noise, of which every method has its own."""
    return bool((results["inputs"] == GENERATED).any())


def image_counts(results: pd.DataFrame) -> dict[str, int]:
    """How many images every method has, where these numbers differ because they are generated; else nothing."""
    counts = results[results["source"] == ""].groupby("method", sort=False)["n"].max().astype(int)
    return dict(counts) if is_generated(results) and counts.nunique() > 1 else {}


def legend(results: pd.DataFrame, marks: bool = True) -> list[str]:
    """What a reader must know of one task's table: how many images, and what brackets and marks stand for, if any."""
    own = results[results["source"] == ""]
    means, sets, fool_rates = (own[own["interval"] == interval] for interval in (MEAN.interval, SET.interval, INTERVAL))
    lines = [*_legend_of_means(means, marks), *_legend_of_sets(sets, marks), *_legend_of_generated(own)]
    if (own["n_seeds"] > 1).any():
        lines.append("±: standard deviation over a method's seeds; its value is their mean.")
    if marks:
        lines += _legend_of_marks(own, means, sets, fool_rates)
    if sources := published_sources(results):
        lines.append(f"Italics: values as published, which took no part in comparisons ({sources}).")
    if results["difference"].notna().any():
        lines.append("In parentheses: ours minus the published value.")
    return lines


def published_sources(results: pd.DataFrame, name: Callable[[str], str] = str, cite: Callable[[str], str] = str) -> str:
    """Where published values are from, "A, B: source; C: another", or just the source if it is one; "" without any."""
    published = results[results["source"] != ""]
    methods = {
        cite(str(source)): ", ".join(name(str(method)) for method in dict.fromkeys(part["method"]))
        for source, part in published.groupby("source", sort=False)
    }
    return next(iter(methods)) if len(methods) == 1 else "; ".join(f"{m}: {source}" for source, m in methods.items())


def _legend_of_means(means: pd.DataFrame, marks: bool) -> list[str]:
    if means.empty:
        return []
    counted = f"{_counts(means, 'n', 'image')}{_left_out(means)}"
    if not marks:
        return [f"{counted}; bold: best."]
    grouped, fewest = (means["n"] != means["n_groups"]).any(), int(_of_sets(means, "n_groups").min())
    units = "groups of images" if grouped else "images"
    over = f"{units} ({_counts(means, 'n_groups', 'group')})" if grouped else units
    brackets = f"brackets: 95 % bootstrap intervals over {over}" if fewest > 1 else "no intervals, of one group"
    lines = [f"{counted}; {brackets}; bold: best."]
    if 1 < fewest < FEW_GROUPS:
        lines.append(f"{fewest} {units.split()[0]} are few: the intervals tend to be too narrow.")
    return lines


def _legend_of_sets(sets: pd.DataFrame, marks: bool) -> list[str]:
    if sets.empty:
        return []
    smallest, blocks = int(_of_sets(sets, "n").min()), int(_of_sets(sets, "n_groups").min())
    brackets = f"; brackets: 95 % jackknife intervals over {blocks} blocks of them" if blocks > 1 else "; no intervals"
    counted = f"{_names(sets['label'])}: of {_counts(sets, 'n', 'image')} as a set{_left_out(sets)}"
    lines = [f"{counted}{brackets * marks}."]
    if smallest < SMALL_N and not is_generated(sets):
        lines.append(f"They are biased at small N: compare them at N = {smallest} and with the same images only.")
    return lines


def _legend_of_generated(own: pd.DataFrame) -> list[str]:
    """What holds for images of which none of one method belongs to one of another."""
    if not is_generated(own):
        return []
    sets, counts = own[own["interval"] == SET.interval], image_counts(own)
    lines = ["Every method has images of its own: intervals are of each alone, and none is tested against another."]
    if not sets.empty:
        held = "with other images of the same method, against the same reference, which counts as exact"
        lines.append(f"{_names(sets['label'])}: the jackknife says how far values would vary {held}.")
        bias = "They are biased at small N, and the intervals do not hold that: compare them at equal N only"
        lines.append(f"{bias}; here N differs." if counts else f"{bias}.")
    return lines


def _legend_of_marks(own: pd.DataFrame, means: pd.DataFrame, sets: pd.DataFrame, fool_rates: pd.DataFrame) -> list[str]:
    lines = []
    if not fool_rates.empty:
        lines.append("Fool rates: brackets are 95 % intervals for new subjects and new images.")
    if any(map(is_similar, own.itertuples())):
        tests = _tests(means, sets, fool_rates)
        lines.append(f"†: not significantly different from the best at 5 % ({tests}, Holm-adjusted).")
    if (own["testable"] == False).any():  # noqa: E712 - NaN where nothing was compared
        lines.append("Too few groups for a test at 5 % with so many methods: no † there, whatever the difference.")
    return lines


def _of_sets(results: pd.DataFrame, column: str) -> "pd.Series[int]":
    """The greatest count by data set."""
    return results.groupby("dataset", sort=False)[column].max().astype(int)


def _counts(results: pd.DataFrame, column: str, noun: str) -> str:
    """A count with its noun, by data set where there are several: "64 images", "Set5: 5 images, Set14: 14 images"."""
    if column == "n" and (own := image_counts(results)):
        return ", ".join(f"{method}: {number(count, noun)}" for method, count in own.items())
    counts = _of_sets(results, column)
    if counts.nunique() == 1:
        return number(int(counts.iloc[0]), noun) + (" a set" if len(counts) > 1 else "")
    return ", ".join(f"{dataset}: {number(count, noun)}" for dataset, count in counts.items())


def _names(labels: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(labels))


def _left_out(results: pd.DataFrame) -> str:
    """How many images of the data no method got, and why."""
    counts = {"too small": results["n_too_small"].max(), "unreadable": results["n_unreadable"].max()}
    parts = [f"{int(count)} {why}" for why, count in counts.items() if count > 0]
    return f" ({' and '.join(parts)} and left out)" if parts else ""


def _tests(means: pd.DataFrame, sets: pd.DataFrame, fool_rates: pd.DataFrame) -> str:
    names = ["paired sign-flip test over the same units"] if not means.empty else []
    names += ["t test on the jackknifed difference for set metrics"] if not sets.empty else []
    return "; ".join(names + (["two-way clustered t test for fool rates"] if not fool_rates.empty else []))


def notes(results: pd.DataFrame) -> list[str]:
    """How one task's numbers were made: what was counted, settings of the metrics, a line for each method."""
    own = results[results["source"] == ""]
    return [
        *_inputs(own),
        *_identical(own),
        *_without_score(own),
        *_within_noise(own),
        *_settings(own),
        *_methods(own),
    ]


def _inputs(results: pd.DataFrame) -> list[str]:
    """What made the low-resolution images, where the run's files say so."""
    made = [str(text) for text in dict.fromkeys(results["inputs"]) if isinstance(text, str) and text]
    return [f"Inputs: {'; '.join(made)}."] if made else []


def _identical(results: pd.DataFrame) -> list[str]:
    lines = []
    marked = results[[has_identical(row) for row in results.itertuples()]]
    for (_, label), part in marked.groupby(["metric", "label"], sort=False):
        counts = ", ".join(f"{row.n_infinite} of {_on(row.method, row.dataset)}" for row in part.itertuples())
        least = f"{part['ceiling'].iloc[0]:.2f} dB, an error of half a grey level"
        lines.append(f"‡: images equal to HR count as {least}, in {label}: {counts}.")
    return lines


def _on(name: str, dataset: str) -> str:
    return f"{name} on {dataset}" if dataset else name


def _without_score(results: pd.DataFrame) -> list[str]:
    first = results[results["n_left_out"] > 0].drop_duplicates(["dataset", "metric"])
    return [
        f"{_on(_names(part['label']), str(dataset))}: {number(int(count), 'image')} without a finite score in some "
        "method, left out of all."
        for (dataset, count), part in first.groupby(["dataset", "n_left_out"], sort=False)
    ]


def _within_noise(results: pd.DataFrame) -> list[str]:
    """The methods that differ from the best by no more than other seeds would make."""
    lines = []
    for (dataset, _), part in results.groupby(["dataset", "metric"], sort=False):
        first = part[part["best"] == True].head(1)  # noqa: E712 - NaN where nothing was compared
        for best, row in itertools.product(first.itertuples(), part[part["delta_to_best"].notna()].itertuples()):
            errors = (row.seed_se, best.seed_se)
            noise = NOISE * math.hypot(*(error for error in errors if not math.isnan(error)))
            if abs(row.delta_to_best) < noise:
                apart, within = (f"{value:.{row.decimals}f}" for value in (abs(row.delta_to_best), noise))
                where, whom = _on(str(row.label), str(dataset)), f"{row.method} differs from {best.method}"
                lines.append(f"{where}: {whom} by {apart}, less than other seeds may make ({within}, with 95 %).")
    return lines


def _settings(results: pd.DataFrame) -> list[str]:
    """The metrics' settings, those that several share said once and first."""
    metrics = results.drop_duplicates("metric")
    having: dict[str, list[str]] = {}  # by part of the settings, the labels of the metrics with it
    for row in metrics.itertuples():
        for part in re.split(r", (?![^\[(]*[\])])", row.settings):
            having.setdefault(part, []).append(row.label)
    lines: dict[str, list[str]] = {}
    for part, labels in sorted(having.items(), key=lambda item: -len(item[1])):
        lines.setdefault(_names(labels), []).append(part)
    units = {row.label: f"in {row.unit}, " for row in metrics.itertuples() if row.unit}
    return [f"{labels}: {units.get(labels, '')}{', '.join(parts)}." for labels, parts in lines.items()]


def _methods(results: pd.DataFrame) -> list[str]:
    """A line for each method that has anything to say: settings, what it says of its images, a warning."""
    lines = []
    for row in results.drop_duplicates(["method", "method_settings"]).itertuples():
        remarks = [row.method_settings] if row.method_settings not in (row.method, "") else []
        remarks += [f"says of its images: {row.method_notes}"] if row.method_notes else []
        remarks += [row.method_warning] if row.method_warning else []
        lines += [f"{row.method}: {'; '.join(remarks)}."] if remarks else []
    return lines
