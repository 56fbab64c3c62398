"""A page of results of several people: a table for each set of images and conventions, sortable, with intervals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from sr3eval.benchmark import card
from sr3eval.benchmark.groups import letters
from sr3eval.benchmark.layout import GENERATED
from sr3eval.benchmark.notes import legend, notes
from sr3eval.benchmark.report import HTML, template
from sr3eval.benchmark.scores import MEANING, Conventions, Scores, joined, read_conventions, read_run, short_names
from sr3eval.benchmark.summary import summarise
from sr3eval.benchmark.table import Column, columns, labelled
from sr3eval.errors import number
from sr3eval.files import atomic_write
from sr3eval.metrics import Convention

SHOWN = 12  # of a digest's characters


@dataclass(frozen=True)
class Entry:
    """One run's scores on one data set, under names that do not depend on what the run calls the set."""

    run: str
    scores: Scores
    conventions: Conventions
    title: str
    digest: str


@dataclass
class Section:
    """What stands in one table: entries of the same images whose metrics of one name mean the same."""

    entries: list[Entry] = field(default_factory=list)

    def takes(self, entry: Entry) -> bool:
        """Whether an entry's numbers compare with those that are here."""
        first = self.entries[0]
        return first.digest == entry.digest and not self.differs(entry)

    def differs(self, entry: Entry) -> str:
        """The first metric that means something else in an entry; nothing where all mean the same."""
        for other in self.entries:
            for name, theirs in other.conventions.items():
                ours = entry.conventions.get(name)
                if ours is not None and any(getattr(ours, key) != getattr(theirs, key) for key in MEANING):
                    return theirs.label
        return ""


@dataclass(frozen=True)
class Cell:
    """A number of the page. order: what it is sorted by; empty for none, and for HR's own PSNR."""

    text: str = "–"
    interval: str = ""
    letters: str = ""
    best: bool = False
    order: str = ""


@dataclass(frozen=True)
class Line:
    """A method's row."""

    method: str
    runs: str
    cells: list[Cell]


def write(runs: Sequence[Path], out: Path) -> None:
    """Write the page `out` of finished runs; it needs no network and no other file."""
    names = short_names(runs)
    sections = _sections([entry for run, name in zip(runs, names, strict=True) for entry in _entries(run, name)])
    page = template("leaderboard.html").render(
        sections=[_shown(section, sections) for section in sections],
        cards=dict(zip(names, map(card.of_run, runs), strict=True)),
        number=number,
    )
    atomic_write(out, page.encode())


def _entries(run: Path, name: str) -> Iterator[Entry]:
    """A run's data sets."""
    scores, conventions = read_run(run), read_conventions(run)
    for (task, dataset), of_set in scores.methods.groupby(["task", "dataset"], sort=False):
        parts = [_of_set(getattr(scores, part.name), str(dataset)) for part in fields(Scores)]
        known = {*parts[0]["metric"], *parts[1]["metric"]}
        meant = {metric: convention for metric, convention in conventions.items() if metric in known}
        title = f"{dataset} ({task})" if dataset else str(task)
        yield Entry(name, Scores(*parts), meant, title, str(of_set["images"].iloc[0]))


def _of_set(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows of one data set, without its name and the task's."""
    part = frame[frame["dataset"] == dataset].assign(dataset="", task="")
    named = [column for column in ("image_id", "group", "left_out") if column in part]
    return part.assign(**{column: part[column].astype(str).str.removeprefix(f"{dataset}/") for column in named})


def _sections(entries: Sequence[Entry]) -> list[Section]:
    """The entries, each in the first table that takes it."""
    sections: list[Section] = []
    for entry in entries:
        section = next((section for section in sections if section.takes(entry)), None)
        if section is None:
            sections.append(Section([entry]))
        else:
            section.entries.append(entry)
    return sections


def _shown(section: Section, sections: Sequence[Section]) -> dict[str, object]:
    """What the page shows of a table."""
    conventions: dict[str, Convention] = {}
    for entry in section.entries:
        conventions |= {name: of for name, of in entry.conventions.items() if name not in conventions}
    both = joined([entry.scores for entry in section.entries], [entry.run for entry in section.entries])
    results = labelled(summarise(both, conventions))
    shown = columns(results)
    groups = {column.metric: _letters(both, column, conventions) for column in shown}
    first = section.entries[0]
    before = next((s for s in sections if s is not section and s.entries[0].digest == first.digest), None)
    apart = before.differs(first) if before is not None else ""
    return {
        "title": first.title,
        "digest": "" if first.digest == GENERATED else first.digest[:SHOWN],
        "apart": apart,
        "settings": next((of.settings for of in first.conventions.values() if of.label == apart), ""),
        "headings": [column.heading(HTML) for column in shown],
        "ascending": [not column.higher_is_better for column in shown],
        "lines": _lines(section, results, shown, groups),
        "remarks": legend(results, marks=False),
        "notes": notes(results),
    }


def _letters(scores: Scores, column: Column, conventions: Conventions) -> dict[str, str]:
    tables = (frame[frame["metric"] == column.metric] for frame in (scores.per_image, scores.sets))
    return next((letters(table, conventions[column.metric]) for table in tables if len(table)), {})


def _lines(
    section: Section, results: pd.DataFrame, shown: Sequence[Column], groups: dict[str, dict[str, str]]
) -> list[Line]:
    """The methods, the best by the first metric first."""
    lines = []
    for method, part in results.groupby("method", sort=False):
        by_metric = {row.metric: row for row in part.itertuples()}
        cells = [_cell(by_metric.get(c.metric), groups[c.metric].get(str(method), "")) for c in shown]
        lines.append(Line(str(method), ", ".join(_runs_of(section, str(method))), cells))
    sign = -1 if shown[0].higher_is_better else 1
    return sorted(lines, key=lambda line: (not line.cells[0].order, sign * float(line.cells[0].order or 0)))


def _runs_of(section: Section, method: str) -> list[str]:
    """The runs that a row is from: by the name that stands before it, or all that have it."""
    having = {entry.run: set(entry.scores.methods["method"]) for entry in section.entries}
    own = [
        run for run, methods in having.items() if method.removeprefix(f"{run}/") in methods and method not in methods
    ]
    return own or [run for run, methods in having.items() if method in methods]


def _cell(row: Any, of: str) -> Cell:
    """A number of results, or none; of: its letters."""
    if row is None or math.isnan(row.value):
        return Cell()
    interval = "" if math.isnan(row.ci_low) else f"[{row.ci_low:.{row.decimals}f}, {row.ci_high:.{row.decimals}f}]"
    order = repr(float(row.value)) if math.isfinite(row.value) else ""
    return Cell(f"{row.value:.{row.decimals}f}", interval, of, bool(row.best), order)
