"""Values that papers published, beside ours: `benchmark.py table RUN --compare paper`, or a CSV file of any papers."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from sr3eval.benchmark.notes import is_generated
from sr3eval.benchmark.table import labelled
from sr3eval.config import resolve_path
from sr3eval.errors import UserError, nearest

NEEDED = ("method", "metric", "value", "source")
COLUMNS = (*NEEDED, "dataset")
PAPER = "paper"  # the word for the values that SR3's authors printed, those of all items or, "paper:table_2", of one
PAPER_FILE = "sr3eval:assets/paper.csv"
PAPER_COLUMNS = ("item", "task", *NEEDED, "confidence")
GENERATED_ITEMS = ("table_5", "table_6")  # of images made from noise
Line = tuple[int, dict[str, str]]  # its number in the file, and its fields


def with_published(results: pd.DataFrame, published: str) -> pd.DataFrame:
    """`results` and a row for each published value, with ours minus it, `difference`, where the method is one of ours.

    published: "paper", what SR3's authors printed of these images; "paper:table_2", of one of its tables or figures; or
    the path of a CSV file with the columns method, metric, value, source and dataset.
    method: capitals make no difference. metric: as the table prints it ("PSNR"), or its id in results.csv
    ("psnr_y_b4"). value: empty where nobody published it. dataset: may be left out where the results are of one set.
    source: where the value stands, in words or as LaTeX's citation command. The rows have no intervals and take no part
    in tests; values are printed as precisely as the file has them, at most as ours are. Raises UserError, naming the
    line.
    """
    tasks = list(dict.fromkeys(results["task"]))
    if len(tasks) > 1:
        raise UserError(f"{published}: published values belong to one task, not to {', '.join(tasks)}")
    ours, path = labelled(results), Path(published)
    word, _, item = published.partition(":")
    if word == PAPER:
        path, lines = resolve_path(PAPER_FILE), list(_of_paper(ours, item))
    else:
        lines = _read(path, NEEDED, COLUMNS)
    rows = [_row(ours, line, f"{path}, line {number}") for number, line in lines]
    _refuse_twice([(row["method"], row["source"], row["dataset"], row["metric"]) for row in rows], lines, path)
    return pd.concat([ours, pd.DataFrame(rows)], ignore_index=True)


def paper_values(item: str) -> list[dict[str, str]]:
    """The fields of every value of one of the paper's tables or figures, "table_1"."""
    lines = _read(resolve_path(PAPER_FILE), PAPER_COLUMNS, PAPER_COLUMNS)
    return [line for _, line in lines if line["item"] == item]


def _of_paper(ours: pd.DataFrame, item: str) -> Iterator[Line]:
    """The paper's lines of an item, or of our task, as far as they are of our metrics; the source says the rest."""
    task, metrics = str(ours["task"].iloc[0]), set(ours["metric"])
    lines = _read(resolve_path(PAPER_FILE), PAPER_COLUMNS, PAPER_COLUMNS)
    items = {line["item"]: line["task"] for _, line in lines}
    if item and item not in items:
        raise UserError(f'{PAPER}:{item}: the paper has no values of "{item}": {nearest(item, items)}')
    of_task = [n for n, t in items.items() if t == task and (n in GENERATED_ITEMS) == is_generated(ours)]
    if not (item or of_task):
        raise UserError(f"the paper has no values of {task}: name a table or figure of it, e.g. {PAPER}:{min(items)}")
    for number, line in lines:
        if line["item"] in ([item] if item else of_task) and line["metric"] in metrics:
            remarks = [f"{line['confidence']} confidence"] if line["confidence"] not in ("high", "") else []
            remarks += [f"of other images, {line['task']}"] if line["task"] != task else []
            source = "; ".join([line["source"], *remarks])
            yield number, {name: line[name] for name in NEEDED} | {"source": source}


def _read(path: Path, needed: Sequence[str], columns: Sequence[str]) -> list[Line]:
    """The lines of a CSV file that has the needed columns, and none but `columns`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    for name in header:
        if name not in columns:
            raise UserError(f'{path}: unknown column "{name}": {nearest(name, columns)}')
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}")
    return lines


def _row(ours: pd.DataFrame, line: dict[str, str], where: str) -> dict[str, object]:
    if None in line or None in line.values():
        raise UserError(f"{where}: has another number of fields than the header")
    fields = {name: text.strip() for name, text in line.items()}
    empty = [name for name in ("method", "source") if not fields[name]]
    if empty:
        raise UserError(f"{where}: no {empty[0]}")
    by_label = dict(zip(ours["label"], ours["metric"], strict=True))
    metric = _known(by_label.get(fields["metric"], fields["metric"]), ours["metric"], f"{where}: unknown metric")
    dataset = _known(_dataset(fields, ours), ours["dataset"], f"{where}: unknown data set")
    like = ours[(ours["metric"] == metric) & (ours["dataset"] == dataset)]
    if like.empty:
        raise UserError(f'{where}: the results have no "{metric}" of {dataset}')
    same = like[(like["source"] == "") & (like["method"].str.casefold() == fields["method"].casefold())]
    kept = like.iloc[0][["task", "metric", "dataset", "label", "unit", "higher_is_better"]].to_dict()
    value, decimals = _value(fields["value"], where)
    difference = float(same["value"].iloc[0]) - value if len(same) else math.nan
    published = {"method": fields["method"], "source": fields["source"], "value": value, "best": False}
    published |= {"difference": difference}
    counts = dict.fromkeys(("n", "n_groups", "n_infinite", "n_left_out", "n_too_small", "n_unreadable"), 0)
    return kept | published | counts | {"decimals": min(decimals, int(like["decimals"].iloc[0]))}


def _dataset(fields: dict[str, str], ours: pd.DataFrame) -> str:
    """The data set of a line: the results' only one where the line names none."""
    only = ours["dataset"].iloc[0] if ours["dataset"].nunique() == 1 else ""
    return fields.get("dataset", "") or str(only)


def _known(name: str, valid: Iterable[str], refusal: str) -> str:
    if name not in set(valid):
        raise UserError(f'{refusal} "{name}": {nearest(name, set(valid))}')
    return name


def _value(text: str, where: str) -> tuple[float, int]:
    """(number, decimals as written); NaN for an empty field, which says that nobody published it."""
    if not text:
        return math.nan, 0
    try:
        value = float(text)
    except ValueError:
        raise UserError(f'{where}: "{text}" is no number') from None
    if value - value != 0:
        raise UserError(f'{where}: "{text}" is not finite')
    return value, len(text.partition(".")[2])


def _refuse_twice(keys: Sequence[tuple[object, ...]], lines: Sequence[tuple[int, object]], path: Path) -> None:
    seen: dict[tuple[object, ...], int] = {}
    for key, (number, _) in zip(keys, lines, strict=True):
        first = seen.setdefault(key, number)
        if first != number:
            raise UserError(f"{path}, line {number}: the same method, metric and source as line {first}")
