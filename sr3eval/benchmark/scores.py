"""What runs wrote of their scores, read back as tables: of one run or of several as one."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from sr3eval.benchmark.config import Row, RunConfig
from sr3eval.benchmark.layout import DRAW_COLUMNS, PER_IMAGE_COLUMNS, SEED_COLUMNS, SET_COLUMNS, RunFolder
from sr3eval.config import read_toml
from sr3eval.errors import UserError
from sr3eval.files import below
from sr3eval.metrics import Convention

Conventions = Mapping[str, Convention]  # by metric id
TEXTS = (
    "task",
    "method",
    "image_id",
    "metric",
    "group",
    "left_out",
    "dataset",
    "version",
    "unit",
    "label",
    "variant",
    "sample",
)
MEANING = ("higher_is_better", "settings", "version")  # of a metric: where these are equal, numbers compare
METHOD = ["task", "dataset", "method"]  # what a method's scores are told apart by
KEYS = {
    "per_image": [*METHOD, "image_id", "metric"],
    "sets": [*METHOD, "metric", "left_out"],
    "seeds": [*METHOD, "metric", "seed"],
    "draws": [*METHOD, "image_id", "metric", "seed", "sample"],
}
WRITTEN = [
    "label",
    "variant",
    "unit",
    "decimals",
    "version",
    "ceiling",
    "sample",
]  # columns of results.csv that are a metric's


@dataclass(frozen=True)
class Scores:
    """per_image.csv, set_scores.csv, seed_scores.csv and draw_scores.csv of one or several runs; seeds and draws are
    empty where no method has any.

    methods: task, dataset, method, method_settings, method_notes (what the method said of its images, counted),
    method_warning, n_too_small and n_unreadable (images that the run left out), inputs (what made LR), images (sha256
    of the pixels of HR and LR),
    made_by (the settings; of outputs made elsewhere, which lie in a folder for each data set, the kind).
    """

    per_image: pd.DataFrame
    sets: pd.DataFrame
    seeds: pd.DataFrame
    draws: pd.DataFrame
    methods: pd.DataFrame


def read_config(folder: Path) -> RunConfig:
    """The resolved config of a run; UserError where the folder is none."""
    if not RunFolder(folder).config.exists():
        raise UserError(f"{folder}: not the folder of a run: it has no config.toml")
    return RunConfig.parse(read_toml(RunFolder(folder).config))


def read_run(folder: Path) -> Scores:
    """per_image.csv and set_scores.csv of a run, with the methods of its config."""
    run = RunFolder(folder)
    per_image, sets = _read_csv(run.per_image, PER_IMAGE_COLUMNS), _read_csv(run.set_scores, SET_COLUMNS)
    seeds, draws = _read_if_any(run.seed_scores, SEED_COLUMNS), _read_if_any(run.draw_scores, DRAW_COLUMNS)
    config = read_config(folder)
    environment = read_environment(run)
    described = [_described(run, row, environment) for row in config.rows]
    methods = [
        {"task": config.task.name, "dataset": dataset}
        | of_method
        | {"images": environment["pixels"].get(dataset, sha256)}
        for dataset, sha256 in environment["datasets"].items()
        for of_method in described
    ]
    return Scores(per_image, sets, seeds, draws, pd.DataFrame(methods))


def _described(run: RunFolder, row: Row, environment: Mapping[str, Any]) -> dict[str, object]:
    """What `Scores.methods` has of a row."""
    method, slugs = row.method, row.slugs if row.is_picture else []
    settings = environment.get("methods", {}).get(method.name, {}).get("settings", "")
    return {
        "method": row.name,
        "method_settings": "; ".join(filter(None, [row.settings, settings])),
        "method_notes": notes_text([note for slug in slugs for note in _read_notes(run, slug)]),
        "method_warning": environment.get("warnings", {}).get(row.name, ""),
        "n_too_small": environment["left_out_too_small"],
        "n_unreadable": environment.get("left_out_unreadable", 0),
        "inputs": environment.get("inputs", ""),
        "made_by": method.kind if method.is_copied else f"{method.settings}, {row.settings}",
    }


def _read_notes(run: RunFolder, slug: str) -> list[dict[str, Any]]:
    """The notes of a method, in the order of the image ids."""
    paths = sorted(below(run.images / slug, lambda name: name.endswith(".json")))
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


def read_environment(run: RunFolder) -> dict[str, Any]:
    """environment.json, with what runs of older releases do not say: the sha256 of each data set and of pictures."""
    try:
        environment: dict[str, Any] = json.loads(run.environment.read_text(encoding="utf-8"))
        return (
            {"datasets": {"": environment["images_sha256"]}, "pixels": {}, "pictures": {}}
            | environment
            | {"left_out_too_small": environment["left_out_too_small"]}
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run.environment}: not that of a finished run ({type(error).__name__}: {error})") from None


def read_runs(folders: Sequence[Path]) -> tuple[Scores, Conventions]:
    """The scores of several runs as one, and the conventions of their metrics.

    Runs of different images that name no data set are data sets by the names of their folders, those of the same images
    by that of the first. A method name that occurs twice for one set, or with other settings for another, is prefixed
    with its run's folder. Raises UserError for a folder without results, for a data set with different images in two
    runs, and for metrics of one name with different conventions.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is named twice")
    runs: list[Scores] = []
    conventions: dict[str, Convention] = {}
    for folder in folders:
        runs.append(read_run(folder))
        for name, convention in read_conventions(folder).items():
            refuse_other(folder, conventions.setdefault(name, convention), convention)
    return joined(_with_datasets(runs, short_names(folders)), short_names(folders)), conventions


def read_conventions(folder: Path) -> Conventions:
    """By metric id, what results.csv of a run says of it; runs of older releases say less."""
    known = _read_csv(RunFolder(folder).results, ["metric", "higher_is_better", "settings"])
    columns = ["higher_is_better", "settings", *(column for column in WRITTEN if column in known)]
    found = known.drop_duplicates("metric").set_index("metric")[columns].to_dict("index")
    return {str(name): Convention(**{"name": str(name), "label": str(name)} | of) for name, of in found.items()}


def refuse_other(folder: Path, before: Convention, convention: Convention) -> None:
    """UserError for a metric whose numbers mean something else than those of the runs before."""
    for name in MEANING:
        ours, theirs = getattr(convention, name), getattr(before, name)
        if ours != theirs:
            changed = f'{name} "{ours}", not "{theirs}"'
            raise UserError(
                f'{folder}: its "{convention.name}" follows other settings than the runs before it: {changed}'
            )


def short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of those above as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    names = (["/".join(path[-count:]) for path in parts] for count in range(1, max(map(len, parts)) + 1))
    return next(found for found in names if len(set(found)) == len(found))


def joined(runs: Sequence[Scores], names: Sequence[str]) -> Scores:
    """Runs as one, whose data sets of one name are the same; names: what tells methods of one name apart."""
    methods = pd.concat([run.methods for run in runs])
    made_by = methods.groupby("method")["made_by"].nunique()
    settings = methods.groupby(METHOD)["method_settings"].nunique()  # of outputs for one data set, in two folders
    ambiguous = set(made_by.index[made_by > 1]) | {name for *_, name in settings.index[settings > 1]}
    ambiguous = ambiguous.union(*(_contradicted(runs, part, key) for part, key in KEYS.items()))

    def label(frame: pd.DataFrame, name: str) -> pd.DataFrame:
        return frame.assign(method=[f"{name}/{m}" if m in ambiguous else m for m in frame["method"]])

    def part_of_all(part: str) -> pd.DataFrame:
        frames = [label(getattr(run, part), name) for run, name in zip(runs, names, strict=True)]
        both = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
        return both.drop_duplicates(KEYS.get(part, METHOD), ignore_index=True)

    return Scores(*(part_of_all(field.name) for field in fields(Scores)))


def _contradicted(runs: Sequence[Scores], part: str, key: list[str]) -> set[str]:
    """The methods of which two runs have other scores of the same thing."""
    rows = pd.concat([getattr(run, part) for run in runs]).drop_duplicates()
    return set(rows["method"][rows.duplicated(key, keep=False)])


def _with_datasets(runs: Sequence[Scores], names: Sequence[str]) -> list[Scores]:
    """The runs with data sets of one name made of the same images: named by the first run that has these images."""
    methods = pd.concat([run.methods.assign(run=name) for run, name in zip(runs, names, strict=True)])
    different = methods.groupby(["task", "dataset"])["images"].nunique()
    keys = set(different.index[different > 1])
    for task, dataset in keys:
        if dataset:
            raise UserError(f'the runs of {task} have different images under the name "{dataset}"')
    first = methods.groupby(["task", "dataset", "images"])["run"].first()

    def renamed(frame: pd.DataFrame, run: Scores) -> pd.DataFrame:
        sets = run.methods[["task", "dataset", "images"]].drop_duplicates().itertuples(index=False, name=None)
        new = {key[:2]: first[key] for key in sets if key[:2] in keys}
        pairs = frame[["task", "dataset"]].itertuples(index=False, name=None)
        return frame.assign(dataset=[new.get(pair, pair[1]) for pair in pairs])

    return [Scores(*(renamed(getattr(run, field.name), run) for field in fields(Scores))) for run in runs]


def _read_if_any(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    return _read_csv(path, columns) if path.exists() else pd.DataFrame(columns=list(columns))


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        # Names like "NA" or "null" are names; only numbers may be missing.
        frame = pd.read_csv(
            path,
            keep_default_na=False,
            na_values={"value": ["", "nan"]},
            dtype=dict.fromkeys(TEXTS, str),
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is this the folder of a finished run?") from None
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    frame = frame if "dataset" in frame else frame.assign(dataset="")  # of an older release
    missing = [column for column in columns if column not in frame]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}")
    return frame
