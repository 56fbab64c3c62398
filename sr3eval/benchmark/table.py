"""Tables of results, typeset: Markdown for reading, LaTeX for papers; and results.csv and results.json for machines."""

import itertools
import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sr3eval.benchmark.fool_rates import INTERVAL
from sr3eval.benchmark.intervals import LEVEL
from sr3eval.benchmark.summary import MEAN, SCORED, SET, is_reference, with_dataset
from sr3eval.errors import number
from sr3eval.files import atomic_write

FEW_GROUPS = 20
SMALL_N = 10_000  # below it, set metrics are biased by more than methods usually differ
FEW_METHODS = 3  # with fewer, the second best is the worst
# Label and decimals of the metrics of runs from before results.csv had them; the id's suffix (_y, _b4) is kept.
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
LATEX_COLUMN, LATEX_LINE = 237, 495  # points: a column and both, of the two-column styles of IEEE and CVPR
LATEX_CHARACTER, LATEX_GAP = 5.0, 4  # points: mean width in 10 pt roman, and \tabcolsep


@dataclass(frozen=True)
class TableConfig:
    """The [table] of a run's config: how results.tex and the report look. It changes no number.

    caption and label: LaTeX; by default what is compared, and tab:TASK. wide: table* over both columns of the page; by
    default where one column is too narrow. intervals: print them, and the marks of tests, in results.tex too. title:
    the heading of the report and of results.md.
    """

    caption: str = ""
    label: str = ""
    wide: bool | None = None
    intervals: bool = False
    title: str = ""


def labelled(results: pd.DataFrame) -> pd.DataFrame:
    """Results with all the columns that typesetting reads, also those of older runs and of the rows of a study.

    Adds dataset and source where they are missing, and label, unit and decimals of metrics that do not bring their own.
    """
    known = {metric: _printed(metric) for metric in dict.fromkeys(results["metric"])}
    defaults = {
        "label": results["metric"].map(lambda metric: known[metric][0]),
        "unit": "",
        "decimals": results["metric"].map(lambda metric: known[metric][1]),
        "dataset": "",
        "source": "",
        "ceiling": math.inf,
    }
    values = {
        column: results[column].where(results[column].notna(), default) if column in results else default
        for column, default in defaults.items()
    }
    return results.assign(**values).astype({"decimals": int})


def _printed(metric: str) -> tuple[str, int]:
    """(label, decimals) of a metric id."""
    base = max((known for known in PRINTED if f"{metric}_".startswith(f"{known}_")), key=len, default=None)
    if base is None:
        return metric, 3
    (label, decimals), suffix = PRINTED[base], metric[len(base) + 1 :]
    return f"{label} ({suffix.replace('_', ', ')})" if suffix else label, decimals


@dataclass(frozen=True)
class Style:
    """How one output format writes a table's parts."""

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    underline: Callable[[str], str]
    published: Callable[[str, str], str]  # a method's name and its source, both escaped
    heading: Callable[[str], str]  # an escaped label
    interval: Callable[[str, str], str]
    up: str
    down: str
    similar: str  # mark of values that do not differ from the best one
    identical: str  # mark of means over images of which some equal HR
    plus_minus: str
    marks: bool = True  # whether there are intervals and the marks of tests


def _as_it_is(text: str) -> str:
    return text


MARKDOWN = Style(
    escape=lambda text: text.replace("|", "\\|"),
    bold=lambda text: f"**{text}**",
    underline=_as_it_is,
    published=lambda method, source: f"*{method}* ({source})",
    heading=_as_it_is,
    interval=lambda low, high: f" [{low}, {high}]",
    up="↑",
    down="↓",
    similar="†",
    identical="‡",
    plus_minus=" ± ",
)
_LATEX_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    **{c: f"$^{{{i}}}$" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def _latex(text: str) -> str:
    return "".join(_LATEX_SPECIAL.get(c, c) for c in text)


def _stacked(label: str) -> str:
    """A label in two lines, "FD, EfficientNet-Lite0" or "PSNR (y)", where it has a name and a specification."""
    parts = re.match(r"(.+?),? (\(.+|(?<=, ).+)", label)
    return rf"\shortstack[r]{{{parts[1]}\\{parts[2]}}}" if parts else label


LATEX = Style(
    escape=_latex,
    bold=lambda text: rf"\textbf{{{text}}}",
    underline=lambda text: rf"\underline{{{text}}}",
    published=lambda method, _source: rf"\textit{{{method}}}",
    heading=_stacked,
    interval=lambda low, high: rf" {{\scriptsize [{low}, {high}]}}",
    up=r"$\uparrow$",
    down=r"$\downarrow$",
    similar=r"$^\dagger$",
    identical=r"$^\ddagger$",
    plus_minus=r" $\pm$ ",
)
COMPACT = Style(**(vars(LATEX) | {"marks": False}))


@dataclass(frozen=True)
class Column:
    """A metric on one data set, whose name is empty for a run's only one."""

    dataset: str
    metric: str
    label: str
    unit: str
    higher_is_better: bool

    def heading(self, style: Style) -> str:
        """Label, unit and direction; dB goes without saying, as in papers."""
        unit = f" ({self.unit})" if self.unit not in ("", "dB") else ""
        return style.heading(f"{style.escape(self.label + unit)} {style.up if self.higher_is_better else style.down}")


@dataclass(frozen=True)
class Row:
    """A method's cells, typeset; published: values from elsewhere."""

    method: str
    cells: list[str]
    published: bool


def columns(results: pd.DataFrame) -> list[Column]:
    """The columns of one task's table: data set by data set, each with its metrics. results: of `labelled`."""
    first = results.drop_duplicates(["dataset", "metric"])
    made = [Column(r.dataset, r.metric, r.label, r.unit, bool(r.higher_is_better)) for r in first.itertuples()]
    order = list(dict.fromkeys(results["dataset"]))
    return sorted(made, key=lambda column: order.index(column.dataset))


def groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """(data set, its number of columns), in order."""
    return [(name, len(list(part))) for name, part in itertools.groupby(columns, key=lambda column: column.dataset)]


def rows(results: pd.DataFrame, columns: Sequence[Column], style: Style) -> list[Row]:
    """One task's methods, ours before published ones; the best of a column is bold, the second best underlined."""
    second = _second_best(results)
    by_key = {(r.method, r.source, r.dataset, r.metric): (r, r.Index in second) for r in results.itertuples()}
    made = []
    for method, source in dict.fromkeys(zip(results["method"], results["source"], strict=True)):
        name = style.published(style.escape(method), style.escape(source)) if source else style.escape(method)
        found = [by_key.get((method, source, column.dataset, column.metric)) for column in columns]
        made.append(Row(name, ["–" if cell is None else _cell(*cell, style) for cell in found], bool(source)))
    return sorted(made, key=lambda row: row.published)


def _second_best(results: pd.DataFrame) -> set[Hashable]:
    """The index of the second-best values, where there are enough methods to speak of them."""
    own = results[(results["source"] == "") & ~results["method"].map(is_reference) & results["value"].notna()]
    found: set[Hashable] = set()
    for _, part in own.groupby(["dataset", "metric"]):
        values = sorted(set(part["value"]), reverse=bool(part["higher_is_better"].iloc[0]))
        if len(part) >= FEW_METHODS and len(values) > 1:
            found |= set(part.index[part["value"] == values[1]])
    return found


def is_similar(result: Any) -> bool:
    """Whether a row of results gets the mark of no significant difference from the best one."""
    return not result.best and result.testable is True and result.p_value >= 1 - LEVEL


def _cell(result: Any, second: bool, style: Style) -> str:
    if math.isnan(result.value):
        return "–"

    def printed(value: float) -> str:
        return f"{value:.{result.decimals}f}"

    text = printed(result.value)
    text = style.bold(text) if result.best else style.underline(text) if second else text
    if result.n_seeds > 1:
        text += style.plus_minus + printed(result.seed_sd)
    if not style.marks:
        return text
    text += style.similar * is_similar(result) + style.identical * _has_identical(result)
    return text if math.isnan(result.ci_low) else text + style.interval(printed(result.ci_low), printed(result.ci_high))


def _has_identical(result: Any) -> bool:
    return result.n_infinite > 0 and not is_reference(result.method) and math.isfinite(result.ceiling)


def legend(results: pd.DataFrame) -> list[str]:
    """What a reader must know of one task's table: how many images, and what brackets and marks stand for."""
    own = results[results["source"] == ""]
    means, sets, people = (own[own["interval"] == interval] for interval in (MEAN.interval, SET.interval, INTERVAL))
    lines = [*_legend_of_means(means), *_legend_of_sets(sets)]
    if (own["n_seeds"] > 1).any():
        lines.append("±: standard deviation over a method's seeds; its value is their mean.")
    if not people.empty:
        lines.append("Fool rates: brackets are 95 % intervals for new subjects and new images.")
    if any(map(is_similar, own.itertuples())):
        tests = _tests(means, sets, people)
        lines.append(f"†: not significantly different from the best at 5 % ({tests}, Holm-adjusted).")
    if (own["testable"] == False).any():  # noqa: E712 - NaN where nothing was compared
        lines.append("Too few groups for a test at 5 % with so many methods: no † there, whatever the difference.")
    published = results[results["source"] != ""].drop_duplicates(["method", "source"])
    if not published.empty:
        sources = "; ".join(f"{row.method}: {row.source}" for row in published.itertuples())
        lines.append(f"Italics: values as published, which took no part in comparisons ({sources}).")
    return lines


def _legend_of_means(means: pd.DataFrame) -> list[str]:
    if means.empty:
        return []
    grouped, fewest = (means["n"] != means["n_groups"]).any(), int(_of_sets(means, "n_groups").min())
    units = "groups of images" if grouped else "images"
    over = f"{units} ({_counts(means, 'n_groups', 'group')})" if grouped else units
    brackets = f"brackets: 95 % bootstrap intervals over {over}" if fewest > 1 else "no intervals, of one group"
    lines = [f"{_counts(means, 'n', 'image')}{_left_out(means)}; {brackets}; bold: best."]
    if 1 < fewest < FEW_GROUPS:
        lines.append(f"{fewest} {units.split()[0]} are few: the intervals tend to be too narrow.")
    return lines


def _legend_of_sets(sets: pd.DataFrame) -> list[str]:
    if sets.empty:
        return []
    smallest, blocks = int(_of_sets(sets, "n").min()), int(_of_sets(sets, "n_groups").min())
    brackets = f"brackets: 95 % jackknife intervals over {blocks} blocks of them" if blocks > 1 else "no intervals"
    lines = [f"{_names(sets['label'])}: of {_counts(sets, 'n', 'image')} as a set{_left_out(sets)}; {brackets}."]
    if smallest < SMALL_N:
        lines.append(f"They are biased at small N: compare them at N = {smallest} and with the same images only.")
    return lines


def _of_sets(results: pd.DataFrame, column: str) -> "pd.Series[int]":
    """The greatest count by data set."""
    return results.groupby("dataset", sort=False)[column].max().astype(int)


def _counts(results: pd.DataFrame, column: str, noun: str) -> str:
    """A count with its noun, by data set where there are several: "64 images", "Set5: 5 images, Set14: 14 images"."""
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


def _tests(means: pd.DataFrame, sets: pd.DataFrame, people: pd.DataFrame) -> str:
    paired = "paired sign-flip test over the same units"
    shares = any("error" in str(metric) or "agreement" in str(metric) for metric in means["metric"])
    if shares and (means["n"] == means["n_groups"]).all():
        paired += ", which for error rates is McNemar's exact test"
    names = [paired] if not means.empty else []
    names += ["t test on the jackknifed difference for set metrics"] if not sets.empty else []
    return "; ".join(names + (["two-way clustered t test for fool rates"] if not people.empty else []))


def notes(results: pd.DataFrame) -> list[str]:
    """How one task's numbers were made: what was counted, settings of the metrics, a line for each method."""
    own = results[results["source"] == ""]
    return [*_identical(own), *_without_score(own), *_settings(own), *_methods(own)]


def _identical(results: pd.DataFrame) -> list[str]:
    lines = []
    marked = results[[_has_identical(row) for row in results.itertuples()]]
    for (metric, label), part in marked.groupby(["metric", "label"], sort=False):
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
    for row in results.drop_duplicates("method").itertuples():
        remarks = [row.method_settings] if row.method_settings not in (row.method, "") else []
        remarks += [f"says of its images: {row.method_notes}"] if row.method_notes else []
        remarks += [row.method_warning] if row.method_warning else []
        lines += [f"{row.method}: {'; '.join(remarks)}."] if remarks else []
    return lines


def _by_task(results: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(task), part) for task, part in labelled(results).groupby("task", sort=False)]


def markdown(results: pd.DataFrame, config: TableConfig | None = None) -> str:
    """results.md: a table for each task, with its legend and notes."""
    title = config.title if config else ""
    parts = [_markdown(f"{title}: {task}" if title else task, part) for task, part in _by_task(results)]
    return "\n\n".join(parts) + "\n"


def _markdown(title: str, results: pd.DataFrame) -> str:
    shown = columns(results)
    header = ["Method", *(f"{MARKDOWN.escape(c.dataset)} {c.heading(MARKDOWN)}".lstrip() for c in shown)]
    body = [header, *([row.method, *row.cells] for row in rows(results, shown, MARKDOWN))]
    widths = [max(map(len, cells)) for cells in zip(*body, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in body]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    remarks = [f"- {remark}" for remark in (*legend(results), *notes(results))]
    return "\n".join([f"### {title}", "", *lines, "", *remarks])


def latex(results: pd.DataFrame, config: TableConfig | None = None) -> str:
    """results.tex: for each task a booktabs table; settings and notes are comments."""
    tasks = _by_task(results)
    parts = [_latex_table(task, part, config or TableConfig(), len(tasks) > 1) for task, part in tasks]
    return "\n\n".join(parts) + "\n"


def _latex_table(task: str, results: pd.DataFrame, config: TableConfig, several: bool) -> str:
    shown = columns(results)
    style = LATEX if config.intervals else COMPACT
    width = _latex_width(results, shown, config)
    wide = width > LATEX_COLUMN if config.wide is None else config.wide
    environment = "table*" if wide else "table"
    label = (f"{config.label}-{task}" if several else config.label) if config.label else f"tab:{task}"
    remarks = (
        [*legend(results), *notes(results)] if config.intervals else _unmarked([*legend(results), *notes(results)])
    )
    lines = [
        r"% \usepackage{booktabs}",
        *([f"% About {width:.0f} pt wide: more than most pages are."] if width > LATEX_LINE else []),
        rf"\begin{{{environment}}}[t]",
        r"  \centering",
        rf"  \caption{{{config.caption or _caption(task, results)}}}",
        rf"  \label{{{label}}}",
        rf"  \setlength{{\tabcolsep}}{{{LATEX_GAP}pt}}",
        rf"  \begin{{tabular}}{{@{{}}l{'r' * len(shown)}@{{}}}}",
        r"    \toprule",
        *_latex_header(shown, style),
        r"    \midrule",
        *_latex_body(rows(results, shown, style)),
        r"    \bottomrule",
        r"  \end{tabular}",
        *_latex_sources(results),
        rf"\end{{{environment}}}",
        *("% " + " ".join(remark.split()) for remark in remarks),
    ]
    return "\n".join(lines)


def _caption(task: str, results: pd.DataFrame) -> str:
    names = [name for name in dict.fromkeys(results["dataset"]) if name]
    on = f"{', '.join(names)} ({task})" if names else task
    second = ", second best underlined" if _second_best(results) else ""
    return f"Super-resolution results on {_latex(on)}. Best in bold{second}."


def _latex_header(columns: Sequence[Column], style: Style) -> list[str]:
    """The row of metrics, below one of data sets where these have names."""
    metrics = rf"    {' & '.join(['Method', *(column.heading(style) for column in columns)])} \\"
    if not any(column.dataset for column in columns):
        return [metrics]
    names, rules, start = [], [], 2
    for name, count in groups(columns):
        names.append(rf"\multicolumn{{{count}}}{{c}}{{{_latex(name)}}}")
        rules.append(rf"\cmidrule(l){{{start}-{start + count - 1}}}" if name else "")
        start += count
    return [rf"    & {' & '.join(names)} \\", f"    {' '.join(filter(None, rules))}", metrics]


def _latex_body(rows: Sequence[Row]) -> list[str]:
    lines = [rf"    {' & '.join([row.method, *row.cells])} \\" for row in rows]
    ours = sum(not row.published for row in rows)
    return lines if ours == len(rows) else [*lines[:ours], r"    \midrule", *lines[ours:]]


def _latex_sources(results: pd.DataFrame) -> list[str]:
    """Below the table, whose values the rows in italics are."""
    published = results[results["source"] != ""].drop_duplicates(["method", "source"])
    if published.empty:
        return []
    sources = "; ".join(f"{_latex(row.method)}: {_cited(row.source)}" for row in published.itertuples())
    return [rf"  \par\smallskip {{\footnotesize In italics, values as published ({sources}).}}"]


def _cited(source: str) -> str:
    r"""A source in LaTeX; "\cite{key}" stays what it is."""
    return source if re.fullmatch(r"\\cite\w*\{[^{}]+\}", source) else _latex(source)


def _unmarked(remarks: Sequence[str]) -> list[str]:
    """Without what explains marks that the compact table does not have."""
    return [remark for remark in remarks if not remark.startswith(("†", "Too few groups"))]


def _latex_width(results: pd.DataFrame, columns: Sequence[Column], config: TableConfig) -> float:
    """About how many points wide the table is, by counting characters."""
    style = Style(**(vars(MARKDOWN) | {"bold": _as_it_is, "published": lambda m, _: m, "marks": config.intervals}))
    heads = [max(re.split(r",? (?=\()|, ", column.heading(style)), key=len) for column in columns]
    body = rows(results, columns, style)
    cells = [["Method", *(row.method for row in body)], *zip(heads, *(row.cells for row in body), strict=True)]
    return sum(LATEX_CHARACTER * max(map(len, column)) for column in cells) + 2 * LATEX_GAP * len(columns)


def as_json(results: pd.DataFrame) -> str:
    """results.json: results.csv nested by task, data set, method and metric; NaN and infinity are null."""
    nested: dict[str, Any] = {}
    for row in labelled(results).to_dict("records"):
        task, dataset, method, metric = (str(row[key]) for key in SCORED)
        name = f"{method} ({row['source']})" if row["source"] else method
        values = {key: _plain(row[key]) for key in results.columns if key not in SCORED}
        nested.setdefault(task, {}).setdefault(dataset, {}).setdefault(name, {})[metric] = values
    return json.dumps(nested, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A cell of a table as JSON has it."""
    value = value.item() if hasattr(value, "item") else value
    return None if (isinstance(value, float) and not math.isfinite(value)) or value is pd.NA else value


def write(results: pd.DataFrame, folder: Path, config: TableConfig | None = None) -> None:
    """Write results.csv, results.json, results.md and results.tex."""
    texts = {
        "csv": with_dataset(results).to_csv(index=False, lineterminator="\n"),
        "json": as_json(results),
        "md": markdown(results, config),
        "tex": latex(results, config),
    }
    for suffix, text in texts.items():
        atomic_write(folder / f"results.{suffix}", text.encode())
