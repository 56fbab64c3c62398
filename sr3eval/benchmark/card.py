"""results.json: a table's numbers with all that identifies them. Its schema is results.schema.json beside this file."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from sr3eval.benchmark import environment
from sr3eval.benchmark.layout import RunFolder
from sr3eval.benchmark.resume import read_json
from sr3eval.benchmark.scores import read_config, read_environment
from sr3eval.benchmark.summary import SCORED
from sr3eval.benchmark.table import labelled
from sr3eval.config import read_toml
from sr3eval.errors import UserError
from sr3eval.files import atomic_write

FORMAT: Literal["sr3eval-results-1"] = "sr3eval-results-1"
SCHEMA = Path(__file__).with_name("results.schema.json")
TABLES = ("config", "per_image", "set_scores", "seed_scores", "draw_scores", "results")  # whose checksums a card has


def _about(text: str) -> Any:
    return Field(description=text)


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Digest = Annotated[str, _about("sha256, or why there is none")]
Optional = Annotated[float | None, _about("null where there is none, or it is infinite")]


@dataclass(frozen=True)
class DataCard:
    """A data set as it was scored."""

    pixels: Annotated[Digest, _about("sha256 of ids and pixels of the prepared HR and LR pictures, equal everywhere")]
    files: Annotated[Digest, _about("sha256 of the ids and files that these were made of")]
    pictures: Annotated[dict[str, Digest], _about("sha256 of the ids and PNG files of each folder below images/")]


@dataclass(frozen=True)
class MethodCard:
    """A contender."""

    settings: Annotated[str, _about("kind and options")]
    weights: Annotated[dict[str, Sha256], _about("checksums of its files, by option")]
    identity: Annotated[str, _about("hash of all that its outputs depend on besides inputs and seeds, device included")]
    facts: Annotated[dict[str, str], _about("architecture, licence, the inputs that it was trained on …, where known")]
    warning: Annotated[str, _about("what its numbers must not be read without")] = ""


@dataclass(frozen=True)
class RunCard:
    """A run: what was compared, on what, with what."""

    config: Annotated[dict[str, Any], _about("config.toml with every default written out, seeds included")]
    inputs: Annotated[str, _about("what made the low-resolution images")]
    data: Annotated[dict[str, DataCard], _about('by name; "" where a run has one set without a name')]
    methods: dict[str, MethodCard]
    software: Annotated[dict[str, str], _about("versions of this toolkit, Python and packages")]
    hardware: Annotated[dict[str, str | int], _about("device, threads and the like")]
    files: Annotated[dict[str, Sha256], _about("checksums of the run's tables")]
    name: Annotated[str, _about("of its folder, in the card of several runs")] = ""


@dataclass(frozen=True)
class Number:
    """One number of the table: a method's value of a metric on a data set."""

    value: Annotated[float | None, _about("null where there is none, or it is infinite, as the PSNR of HR itself")]
    ci_low: Annotated[Optional, _about("of the 95 % interval")]
    ci_high: Annotated[Optional, _about("of the 95 % interval")]
    n: Annotated[int, _about("images (or what `sample` says) that the value is of")]
    higher_is_better: bool
    settings: Annotated[str, _about("the conventions behind the number; numbers of other settings do not compare")]
    version: Annotated[str, _about("changes when the same settings give other numbers")]
    label: Annotated[str, _about("as papers print the metric")]
    decimals: Annotated[int, _about("as tables print it")]
    variant: str = ""
    unit: str = ""
    ceiling: Annotated[Optional, _about("what an image's score counts for at most")] = None
    sample: Annotated[str | None, _about("what n counts")] = None
    n_groups: Annotated[int | None, _about("groups of images that the interval resamples, or jackknife blocks")] = None
    n_infinite: Annotated[int | None, _about("images equal to HR")] = None
    n_left_out: Annotated[int | None, _about("images without a finite score in some method")] = None
    best: Annotated[bool, _about("of its column")] = False
    delta_to_best: Annotated[Optional, _about("over the same images")] = None
    delta_ci_low: Optional = None
    delta_ci_high: Optional = None
    p_value: Annotated[Optional, _about("of the paired test against the best, Holm-adjusted over the methods")] = None
    testable: Annotated[bool | None, _about("false where so few groups can show nothing at 5 %")] = None
    interval: Annotated[str | None, _about("bootstrap or jackknife, or a study's")] = None
    n_seeds: Annotated[int | None, _about("whose mean the value is")] = None
    seed_sd: Annotated[Optional, _about("standard deviation over seeds")] = None
    seed_se: Annotated[Optional, _about("standard error of the value by its noise alone, by seeds or samples")] = None
    method_settings: str | None = None
    method_notes: Annotated[str | None, _about("what the method said of its images, counted")] = None
    method_warning: str | None = None
    n_too_small: Annotated[int | None, _about("images that no method got for their size")] = None
    n_unreadable: Annotated[int | None, _about("images that no method got because they could not be read")] = None
    inputs: str = ""
    source: Annotated[str, _about("where a value stands that was published elsewhere")] = ""
    difference: Annotated[Optional, _about("from the published value, where one is compared with")] = None


Results = dict[str, dict[str, dict[str, dict[str, Number]]]]


@dataclass(frozen=True)
class Card:
    """A table of results of sr3eval and what identifies its numbers."""

    format: Literal["sr3eval-results-1"]
    runs: tuple[RunCard, ...]
    results: Annotated[Results, _about("by task, data set, method and metric id")] = field(default_factory=dict)


class _Schema(GenerateJsonSchema):
    """In the dialect that it is written in."""

    def generate(self, schema: Any, mode: Any = "validation") -> dict[str, Any]:
        return {"$schema": self.schema_dialect} | super().generate(schema, mode)


_ADAPTER = TypeAdapter(Card)


def schema() -> str:
    """What results.schema.json holds: the JSON Schema of a card."""
    return json.dumps(_ADAPTER.json_schema(schema_generator=_Schema), indent=1, ensure_ascii=False) + "\n"


def write(results: pd.DataFrame, runs: Sequence[Path], out: Path) -> None:
    """Write results.json of a table of one or several runs into the folder `out`."""
    cards = [replace(of_run(run), name=run.resolve().name if len(runs) > 1 else "") for run in runs]
    card = Card(FORMAT, tuple(cards), nested(results))
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False, allow_nan=False)
    atomic_write(out / "results.json", f"{text}\n".encode())


def read(path: Path) -> Card:
    """A results.json. Raises UserError where it does not follow the schema."""
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: does not follow {SCHEMA.name} ({where}: {first['msg']})") from None


def of_run(folder: Path) -> RunCard:
    """The card of a finished run, from its files alone."""
    run = RunFolder(folder)
    known, config = read_environment(run), read_config(folder)
    made_by = read_json(run.fingerprints)
    methods = {
        method.name: MethodCard(
            method.settings,
            known.get("sha256", {}).get(method.name, {}),
            made_by.get(method.name, {}).get("identity", ""),
            known.get("methods", {}).get(method.name, {}),
            known.get("warnings", {}).get(method.name, ""),
        )
        for method in config.method
    }
    data = {
        name: DataCard(known["pixels"].get(name, files), files, known["pictures"].get(name, {}))
        for name, files in known["datasets"].items()
    }
    tables = [path for name in TABLES if (path := getattr(run, name)).exists()]
    return RunCard(
        config=read_toml(run.config),
        inputs=known.get("inputs", ""),
        data=data,
        methods=methods,
        software={name: known[name] for name in _SOFTWARE if name in known},
        hardware={name: known[name] for name in environment.HARDWARE if name in known},
        files={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tables},
    )


_SOFTWARE = ("sr3eval", "python", *environment.PACKAGES)


def nested(results: pd.DataFrame) -> Results:
    """results.csv by task, data set, method and metric."""
    found: Results = {}
    for row in labelled(results).to_dict("records"):
        task, dataset, method, metric = (str(row[key]) for key in SCORED)
        name = f"{method} ({row['source']})" if row["source"] else method
        found.setdefault(task, {}).setdefault(dataset, {}).setdefault(name, {})[metric] = _number(row)
    return found


def _number(row: Mapping[Any, Any]) -> Number:
    values = {field.name: _plain(row.get(field.name)) for field in dataclasses.fields(Number)}
    return Number(**values | {name: values[name] or "" for name in ("settings", "version")})


def _plain(value: Any) -> Any:
    """A cell of a table as JSON has it: NaN and infinity are null."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
