"""What a run's folder holds already: whether the run may go on there, and which of its scores still stand."""

import functools
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sr3eval.benchmark.config import Row
from sr3eval.benchmark.layout import RunFolder
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, claim_folder

Rows = list[tuple[object, ...]]
Tables = tuple[Rows, Rows, Rows, Rows]  # per_image.csv, set_scores.csv, seed_scores.csv, draw_scores.csv


def config_before(run: RunFolder, config: str) -> str | None:
    """The config that the folder holds, where `config` is the same, adds metrics or methods, or looks otherwise."""
    try:
        before = run.config.read_text(encoding="utf-8")
        extends = before == config or _extends(tomllib.loads(config), tomllib.loads(before))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    return before if extends else None


def _extends(config: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    lists = ("metrics", "method")
    rest, rest_before = ({k: v for k, v in c.items() if k not in (*lists, "table")} for c in (config, before))
    return rest == rest_before and all(entry in config[key] for key in lists for entry in before.get(key, []))


def _difference(run: RunFolder, config: str) -> str:
    """The first key by which the folder's config differs; nothing where it cannot be read."""
    try:
        before, now = tomllib.loads(run.config.read_text(encoding="utf-8")), tomllib.loads(config)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ""
    return next((f'"{key}"' for key in {**before, **now} if before.get(key) != now.get(key)), "")


def claim(run: RunFolder, config: str) -> None:
    """Make the folder that of `config`. A config that this one adds to is kept as history/config_N.toml.

    Raises UserError for a folder that holds a run of any other config, or anything else.
    """
    before = config_before(run, config)
    if before is None and (key := _difference(run, config)):
        raise UserError(f"{run.path}: holds a run of another config ({key} differs); give another folder")
    if before is not None and before != config:
        number = 1 + sum(1 for _ in run.history.glob("config_*.toml"))
        atomic_write(run.history / f"config_{number}.toml", before.encode())
        atomic_write(run.config, config.encode())
    claim_folder(run.path, run.config.name, config)


def changed_methods(run: RunFolder, made_by: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The methods that are not what they were when the run began: {name: what has changed, in words}.

    made_by: {name: {"identity": ..., "sha256": {file: sum}}} of this run.
    """
    before = read_json(run.fingerprints)
    found = {}
    for name, now in made_by.items():
        if name in before and before[name] != now:
            sums = [before[name].get("sha256", {}), now["sha256"]]
            files = sorted(file for file in {*sums[0], *sums[1]} if sums[0].get(file) != sums[1].get(file))
            found[name] = ", ".join(files) or "its settings, its code or the device"
    return found


class Known:
    """The scores of a run as it was finished last, for those that need not be computed again."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    @functools.cached_property
    def keys(self) -> dict[str, Any]:
        return read_json(self.run.scored)

    @functools.cached_property
    def environment(self) -> dict[str, Any]:
        return read_json(self.run.environment)

    def pixels(self, dataset: str, files: Mapping[str, str]) -> str:
        """The sum of a set's pixels, where it is known of these files, sums by folder; nothing where it is not."""
        before = self.environment.get("pictures", {}).get(dataset, {})
        same = all(before.get(folder) == sha256 for folder, sha256 in files.items())
        return str(self.environment.get("pixels", {}).get(dataset, "")) if same else ""

    @functools.cached_property
    def tables(self) -> list[pd.DataFrame]:
        run = self.run
        return [_read_scores(path) for path in (run.per_image, run.set_scores, run.seed_scores, run.draw_scores)]

    def holds(self, dataset: str, method: str, metric: str, key: str) -> bool:
        """Whether there are scores of this method by this metric, of what `key` names."""
        return bool(self.keys.get(dataset, {}).get(method, {}).get(metric) == key)

    def rows(self, dataset: str, row: Row, metric: str) -> Tables:
        """Those of a row by a metric, in their order."""
        wanted = {"dataset": dataset, "method": row.name, "metric": metric}
        per_image, sets, seeds = (_matching(table, wanted) for table in self.tables[:3])
        draws = _matching(self.tables[3], wanted | {"method": row.method.name}) if row.gives_draws else []
        return per_image, sets, seeds, draws


def _matching(table: pd.DataFrame, wanted: Mapping[str, str]) -> Rows:
    for column, value in wanted.items():
        if len(table):
            table = table[table[column] == value]
    return list(table.itertuples(index=False, name=None))


def read_json(path: Path) -> dict[str, Any]:
    """The table in a file; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_scores(path: Path) -> pd.DataFrame:
    """A table of scores, numbers to the last digit; empty where there is none."""
    numbers: dict[str, Callable[[str], float]] = {"value": float, "n": int, "seed": int, "sample": int}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column in numbers.keys() & set(table):
            table[column] = [numbers[column](text or "nan") for text in table[column]]
    except (OSError, ValueError):
        return pd.DataFrame()
    return table


def refuse_changed(run: RunFolder, sha256: str, changed: Mapping[str, str]) -> None:
    """Raise UserError for other images or another method than those that the run began with."""
    if run.inputs.exists() and run.inputs.read_text() != sha256:
        raise UserError(f"{run.path}: the images have changed since this run began; give another folder")
    for name, what in changed.items():
        raise UserError(f'{run.path}: method "{name}" has changed since this run began ({what}); give another folder')
