"""What runs wrote of their scores, read back as tables: of one run or of several as one."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sr3eval.benchmark.config import MethodConfig, RunConfig
from sr3eval.benchmark.layout import PER_IMAGE_COLUMNS, SEED_COLUMNS, SET_COLUMNS, RunFolder
from sr3eval.config import read_toml
from sr3eval.errors import UserError

# By metric id: whether higher is better, and the settings behind the number.
Conventions = Mapping[str, tuple[bool, str]]


@dataclass(frozen=True)
class Scores:
    """per_image.csv, set_scores.csv and seed_scores.csv of one or several runs; seeds is empty where no method has any.

    methods: task, method, method_settings, method_notes (what the method said of its images, counted), method_warning,
    n_too_small and n_unreadable (images that the run left out), images (their sha256).
    """

    per_image: pd.DataFrame
    sets: pd.DataFrame
    seeds: pd.DataFrame
    methods: pd.DataFrame


def read_run(folder: Path) -> Scores:
    """per_image.csv and set_scores.csv of a run, with the methods of its config."""
    run = RunFolder(folder)
    per_image, sets = _read_csv(run.per_image, PER_IMAGE_COLUMNS), _read_csv(run.set_scores, SET_COLUMNS)
    several = run.seed_scores.exists()
    seeds = _read_csv(run.seed_scores, SEED_COLUMNS) if several else pd.DataFrame(columns=SEED_COLUMNS)
    config = RunConfig.parse(read_toml(run.config))
    environment = _read_environment(run)
    methods = [_described(run, config.task, method, environment) for method in config.method]
    return Scores(per_image, sets, seeds, pd.DataFrame(methods))


def _described(run: RunFolder, task: str, method: MethodConfig, environment: Mapping[str, Any]) -> dict[str, object]:
    """The row of a method in `Scores.methods`."""
    return {
        "task": task,
        "method": method.name,
        "method_settings": method.settings,
        "method_notes": notes_text([note for slug in method.slugs for note in _read_notes(run, slug)]),
        "method_warning": environment.get("warnings", {}).get(method.name, ""),
        "n_too_small": environment["left_out_too_small"],
        "n_unreadable": environment.get("left_out_unreadable", 0),
        "images": environment["images_sha256"],
    }


def _read_notes(run: RunFolder, slug: str) -> list[dict[str, Any]]:
    """The notes of a method, in the order of the image ids."""
    paths = sorted((run.images / slug).rglob("*.json"))
    try:
        return [json.loads(path.read_bytes()) for path in paths]
    except (OSError, ValueError) as error:
        raise UserError(f"{run.images / slug}: notes cannot be read ({error})") from None


def notes_text(notes: Sequence[Mapping[str, Any]]) -> str:
    """Notes of images in short: how often something is true, the mean of a number, how often a text is there."""
    parts = []
    for name in dict.fromkeys(name for note in notes for name in note):
        values = [note[name] for note in notes if name in note]
        if all(isinstance(value, bool) for value in values):
            parts.append(f"{name} {sum(values)} of {len(values)}")
        elif all(isinstance(value, int | float) for value in values):
            parts.append(f"{name} {math.fsum(values) / len(values):.4g} (mean of {len(values)})")
        else:
            parts += [f"{name} {text} ({count})" for text, count in Counter(map(str, values)).items()]
    return ", ".join(parts)


def _read_environment(run: RunFolder) -> dict[str, Any]:
    """environment.json, with the number of images left out and the sha256 of the others in it."""
    try:
        environment: dict[str, Any] = json.loads(run.environment.read_text(encoding="utf-8"))
        return environment | {key: environment[key] for key in ("left_out_too_small", "images_sha256")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run.environment}: not that of a finished run ({type(error).__name__}: {error})") from None


def read_runs(folders: Sequence[Path]) -> tuple[Scores, dict[str, tuple[bool, str]]]:
    """The scores of several runs as one, and the conventions of their metrics.

    A method name that occurs in two runs of one task is prefixed with its run's folder. Raises UserError for a folder
    without results, for runs of one task with different images, and for metrics of one name with different conventions.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is named twice")
    runs: list[Scores] = []
    conventions: dict[str, tuple[bool, str]] = {}
    for folder in folders:
        runs.append(read_run(folder))
        known = _read_csv(RunFolder(folder).results, ["metric", "higher_is_better", "settings"])
        for row in known.itertuples():
            value = (bool(row.higher_is_better), str(row.settings))
            if conventions.setdefault(str(row.metric), value) != value:
                raise UserError(f'{folder}: its "{row.metric}" follows other settings than the runs before it')
    combined = _labelled(runs, folders)
    for task, images in combined.methods.groupby("task")["images"]:
        if images.nunique() > 1:
            raise UserError(f"these runs of {task} are of different images: their scores cannot be compared")
    return combined, conventions


def _labelled(runs: Sequence[Scores], folders: Sequence[Path]) -> Scores:
    """The runs as one; methods that occur in two runs of a task are prefixed with their run's folder."""
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    methods = pd.concat([run.methods for run in runs])
    twice = set(methods[methods.duplicated(["task", "method"])][["task", "method"]].itertuples(index=False, name=None))

    def label(frame: pd.DataFrame, name: str) -> pd.DataFrame:
        keys = frame[["task", "method"]].itertuples(index=False, name=None)
        return frame.assign(method=[f"{name}/{method}" if (task, method) in twice else method for task, method in keys])

    def joined(part: str) -> pd.DataFrame:
        frames = [label(getattr(run, part), name) for run, name in zip(runs, names, strict=True)]
        return pd.concat(frames, ignore_index=True)

    return Scores(joined("per_image"), joined("sets"), joined("seeds"), joined("methods"))


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        # Names like "NA" or "null" are names; only numbers may be missing.
        frame = pd.read_csv(
            path,
            keep_default_na=False,
            na_values={"value": ["", "nan"]},
            dtype=dict.fromkeys(("task", "method", "image_id", "metric", "group", "left_out"), str),
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is this the folder of a finished run?") from None
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}")
    return frame
