"""Tables of results, typeset: Markdown for reading, LaTeX for papers; and results.csv for machines."""

import itertools
import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from sr3eval.benchmark.config import TableConfig
from sr3eval.benchmark.notes import (
    has_identical,
    image_counts,
    is_generated,
    is_similar,
    legend,
    notes,
    published_sources,
)
from sr3eval.benchmark.styles import COMPACT, LATEX, MARKDOWN, Style, as_it_is, latex_text, name_lines
from sr3eval.benchmark.summary import takes_part
from sr3eval.files import atomic_write

FEW_METHODS = 3  # with fewer, the second best is the worst
LATEX_COLUMN, LATEX_LINE = 237, 495  # points: a column and both, of the two-column styles of IEEE and CVPR
LATEX_CHARACTER, LATEX_GAP = 5.0, 4  # points: mean width in 10 pt roman, and \tabcolsep


def labelled(results: pd.DataFrame) -> pd.DataFrame:
    """Results with all the columns that typesetting reads: dataset and source too, and what older runs do not have.

    Where several metrics of a task have one label, it says which is which.
    """
    defaults: dict[str, Any] = {"label": results["metric"], "decimals": 3, "ceiling": math.inf, "difference": math.nan}
    defaults |= dict.fromkeys(("variant", "unit", "dataset", "source", "inputs"), "")
    values = {
        column: results[column].where(results[column].notna(), default) if column in results else default
        for column, default in defaults.items()
    }
    filled = results.assign(**values).astype({"decimals": int})
    shared = filled.groupby(["task", "label"])["metric"].transform("nunique") > 1  # each task has a table of its own
    told = filled["label"] + " (" + filled["variant"] + ")"
    return filled.assign(label=told.where(shared & (filled["variant"] != ""), filled["label"]))


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
    second, counts = _second_best(results), image_counts(results)
    by_key = {(r.method, r.source, r.dataset, r.metric): (r, r.Index in second) for r in results.itertuples()}
    made = []
    for method, source in dict.fromkeys(zip(results["method"], results["source"], strict=True)):
        shown = f"{method} (N = {counts[method]})" if not source and method in counts else method
        name = style.published(style.name(method), style.escape(source)) if source else style.name(shown)
        found = [by_key.get((method, source, column.dataset, column.metric)) for column in columns]
        made.append(Row(name, ["–" if cell is None else _cell(*cell, style) for cell in found], bool(source)))
    return sorted(made, key=lambda row: row.published)


def has_second_best(results: pd.DataFrame) -> bool:
    """Whether there is a second best anywhere, which HTML and LaTeX underline."""
    return bool(_second_best(results))


def _second_best(results: pd.DataFrame) -> set[Hashable]:
    """The index of the second-best values, where there are enough methods to speak of them."""
    own = results[(results["source"] == "") & results["method"].map(takes_part) & results["value"].notna()]
    found: set[Hashable] = set()
    for _, part in own.groupby(["dataset", "metric"]):
        values = sorted(set(part["value"]), reverse=bool(part["higher_is_better"].iloc[0]))
        if len(part) >= FEW_METHODS and len(values) > 1:
            found |= set(part.index[part["value"] == values[1]])
    return found


def _cell(result: Any, second: bool, style: Style) -> str:
    if math.isnan(result.value):
        return "–"

    def printed(value: float) -> str:
        return f"{value:.{result.decimals}f}"

    text = printed(result.value)
    text = style.bold(text) if result.best else style.underline(text) if second else text
    if result.n_seeds > 1:
        text += style.plus_minus + printed(result.seed_sd)
    if not math.isnan(result.difference):
        text += f" ({style.signed(f'{result.difference:+.{result.decimals}f}')})"
    if not style.marks:
        return text
    text += style.similar * is_similar(result) + style.identical * has_identical(result)
    return text if math.isnan(result.ci_low) else text + style.interval(printed(result.ci_low), printed(result.ci_high))


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
    body = [[row.method, *row.cells] for row in rows(results, shown, MARKDOWN)]
    remarks = [f"- {remark}" for remark in (*legend(results), *notes(results))]
    return "\n".join([f"### {title}", "", *markdown_lines(header, body), "", *remarks])


def markdown_lines(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns also line up as plain text."""
    widths = [max(map(len, cells)) for cells in zip(header, *body, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in (header, *body)]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


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
    lines = [
        r"% \usepackage{booktabs}",
        *([f"% About {width:.0f} pt wide: more than most pages are."] if width > LATEX_LINE else []),
        rf"\begin{{{environment}}}[t]",
        r"  \centering",
        rf"  \caption{{{config.caption or _caption(task, results, style)}}}",
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
        *("% " + " ".join(remark.split()) for remark in (*legend(results, style.marks), *notes(results))),
    ]
    return "\n".join(lines)


def _caption(task: str, results: pd.DataFrame, style: Style) -> str:
    names = [name for name in dict.fromkeys(results["dataset"]) if name]
    on = f"{', '.join(names)} ({task})" if names else task
    second = ", second best underlined" if _second_best(results) else ""
    what = (
        f"Generated images ({latex_text(on)})"
        if is_generated(results)
        else f"Super-resolution results on {latex_text(on)}"
    )
    parts = [f"{what}.", f"Best in bold{second}."]
    if style.marks:
        parts.append(r"Brackets: 95\,\% intervals.")
        if any(map(is_similar, results.itertuples())):
            parts.append(rf"{style.similar}: not significantly different from the best at 5\,\%.")
    return " ".join(parts)


def _latex_header(columns: Sequence[Column], style: Style) -> list[str]:
    """The row of metrics, below one of data sets where these have names."""
    metrics = rf"    {' & '.join(['Method', *(column.heading(style) for column in columns)])} \\"
    if not any(column.dataset for column in columns):
        return [metrics]
    names, rules, start = [], [], 2
    for name, count in groups(columns):
        names.append(rf"\multicolumn{{{count}}}{{c}}{{{latex_text(name)}}}")
        rules.append(rf"\cmidrule(l){{{start}-{start + count - 1}}}" if name else "")
        start += count
    return [rf"    & {' & '.join(names)} \\", f"    {' '.join(filter(None, rules))}", metrics]


def _latex_body(rows: Sequence[Row]) -> list[str]:
    lines = [rf"    {' & '.join([row.method, *row.cells])} \\" for row in rows]
    ours = sum(not row.published for row in rows)
    return lines if ours == len(rows) else [*lines[:ours], r"    \midrule", *lines[ours:]]


def _latex_sources(results: pd.DataFrame) -> list[str]:
    """Below the table, whose values the rows in italics are."""
    sources = published_sources(results, latex_text, _cited)
    if not sources:
        return []
    told = "; in parentheses, ours minus them" if results["difference"].notna().any() else ""
    return [rf"  \par\smallskip {{\footnotesize In italics, values as published ({sources}){told}.}}"]


def _cited(source: str) -> str:
    r"""A source in LaTeX; "\cite{key}" stays what it is."""
    return source if re.fullmatch(r"\\cite\w*\{[^{}]+\}", source) else latex_text(source)


def _latex_width(results: pd.DataFrame, columns: Sequence[Column], config: TableConfig) -> float:
    """About how many points wide the table is, by counting characters."""
    style = replace(MARKDOWN, name=lambda name: max(name_lines(name), key=len), bold=as_it_is)
    style = replace(style, published=lambda method, _source: method, marks=config.intervals)
    style = replace(style, interval=lambda low, high: "-" * round(0.7 * len(f" [{low}, {high}]")))  # \scriptsize
    heads = [max(re.split(r",? (?=\()|, ", column.heading(style)), key=len) for column in columns]
    body = rows(results, columns, style)
    cells = [["Method", *(row.method for row in body)], *zip(heads, *(row.cells for row in body), strict=True)]
    return sum(LATEX_CHARACTER * max(map(len, column)) for column in cells) + 2 * LATEX_GAP * len(columns)


def write(results: pd.DataFrame, folder: Path, config: TableConfig | None = None) -> None:
    """Write results.csv, results.md and results.tex."""
    texts = {
        "csv": results.to_csv(index=False, lineterminator="\n"),
        "md": markdown(results, config),
        "tex": latex(results, config),
    }
    for suffix, text in texts.items():
        atomic_write(folder / f"results.{suffix}", text.encode())
