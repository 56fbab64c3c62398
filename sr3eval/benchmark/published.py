"""Values that papers published, as rows beside ours: `benchmark.py table RUN --against papers.csv`."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from sr3eval.benchmark.table import labelled
from sr3eval.errors import UserError, nearest

NEEDED = ("method", "metric", "value", "source")
COLUMNS = (*NEEDED, "dataset")


def with_published(results: pd.DataFrame, path: Path) -> pd.DataFrame:
    """`results` and a row for each line of a CSV file with the columns method, metric, value, source and dataset.

    metric: as the table prints it ("PSNR"), or its id in results.csv ("psnr_y_b4"). dataset: may be left out where the
    results are of one set. source: where the value stands, in words or as LaTeX's citation command. The rows have no
    intervals and take no part in tests; values are printed as precisely as the file has them, at most as ours are.
    Raises UserError, naming the line.
    """
    tasks = list(dict.fromkeys(results["task"]))
    if len(tasks) > 1:
        raise UserError(f"{path}: published values belong to one task, not to {', '.join(tasks)}")
    ours = labelled(results)
    lines = _read(path)
    rows = [_row(ours, line, f"{path}, line {number}") for number, line in lines]
    _refuse_twice([(row["method"], row["source"], row["dataset"], row["metric"]) for row in rows], lines, path)
    return pd.concat([ours, pd.DataFrame(rows)], ignore_index=True)


def _read(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(number of the line, its fields)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    for name in header:
        if name not in COLUMNS:
            raise UserError(f'{path}: unknown column "{name}": {nearest(name, COLUMNS)}')
    missing = [name for name in NEEDED if name not in header]
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
    kept = like.iloc[0][["task", "metric", "dataset", "label", "unit", "higher_is_better"]].to_dict()
    value, decimals = _value(fields["value"], where)
    published = {"method": fields["method"], "source": fields["source"], "value": value, "best": False}
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
    """(number, decimals as written)."""
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
