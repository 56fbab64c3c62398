"""What a benchmark run is: the dataclasses behind `benchmark.py run CONFIG`."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from sr3eval import degradation, protocols, tasks
from sr3eval.benchmark.layout import ORACLE, PRECOMPUTED, REFERENCE, of_mean, of_sample
from sr3eval.config import from_dict, resolve_path, to_dict
from sr3eval.errors import UserError
from sr3eval.pairs import Crop
from sr3eval.tasks import Task

T = TypeVar("T")
OnError = Literal["stop", "skip"]
DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")


@dataclass(frozen=True)
class DatasetConfig:
    """One set of images: a folder of HR images, one of LR images, or both.

    Attributes:
        images: folder of HR images.
        name: of the set, if a run has several; the ids of its images begin with it.
        lr_images: folder of LR images.
        pattern, lr_pattern: regular expressions with a group `id`, if file names contain more than the id:
            `(?P<id>.+)x4` pairs 0801x4.png with 0801.png.
        crop: "common" crops a pair whose sizes differ by a pixel; "exact" refuses it.
        limit: number of images; all by default.
        select: which ones: "hash" spreads them over their parent folders by the hash of their ids, "first" takes those
            whose file names come first, as the paper does with ImageNet's validation images.
        group: unit of the intervals: "parent" (the folder of an image, for example the photograph that crops are
            from) or "image" (every image is independent).
        labels: the images' ImageNet classes, for top1_error and top5_error: "folders" (named by synset, as
            ImageNet's are), "shards" (those of the tar shards), or a CSV file with the columns image_id and label
            (index or synset).
    """

    images: str | None = None
    name: str | None = None
    lr_images: str | None = None
    pattern: str | None = None
    lr_pattern: str | None = None
    crop: Crop = "exact"
    limit: int | None = None
    select: Literal["hash", "first"] = "hash"
    group: Literal["parent", "image"] = "image"
    labels: str | None = None

    def __post_init__(self) -> None:
        if self.images is None and self.lr_images is None:
            raise UserError('data: missing key "images" (a folder of HR images) or "lr_images"')
        if self.images == self.lr_images and not (self.pattern and self.lr_pattern):
            hint = 'pattern and lr_pattern tell HR from LR, e.g. "(?P<id>.+)_HR" and "(?P<id>.+)_LR4"'
            raise UserError(f"data: images and lr_images are one folder: {hint}")
        for key, folder in (("pattern", self.images), ("lr_pattern", self.lr_images)):
            if getattr(self, key) is not None and folder is None:
                raise UserError(
                    f"data.{key}: it reads names of data.{key.replace('pattern', 'images')}, which is missing"
                )
        if self.limit is not None and self.limit < 1:
            raise UserError(f"data.limit: {self.limit} leaves no image")
        if self.name is not None and not DATASET_NAME.fullmatch(self.name):
            raise UserError(f'data.name: "{self.name}": letters, digits, ".", "-", "_" and spaces only')

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.images or self.lr_images or ""

    def prefixed(self, image_id: str) -> str:
        """The id in the run of an image of this set."""
        return f"{self.name}/{image_id}" if self.name else image_id


@dataclass(frozen=True)
class GeneratedConfig:
    """The [generated] table of a run on images made from noise: each method has its own images, without HR or LR.

    Attributes:
        limit: number of images scored per method, chosen by hash and evenly over folders; all by default.
    """

    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"generated.limit: {self.limit} leaves no image")


@dataclass(frozen=True)
class MethodConfig:
    """One contender.

    Attributes:
        name: its name in tables.
        kind: kind of method, see `benchmark.py list methods`.
        options: options of that kind.
        path: resizes before and after a method with another scale, see `methods._resized`.
        seeds: each seed makes its own set of pictures, and the table shows their mean; by default the run's seed.
        ensemble: average over flips and turns of the input, as in the rows "+" of papers, see
            `methods._self_ensemble`.
        samples: number of samples of each input, each from its own seed; of several, the table shows the first, their
            mean and the best, see `Row`.
    """

    name: str
    kind: str
    options: dict[str, Any]
    path: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    ensemble: bool = False
    samples: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f'method "{self.name}": samples = {self.samples}; at least 1 is needed')
        if self.samples > 1 and self.is_copied:
            raise UserError(f'method "{self.name}": {self.kind} takes no samples; it draws nothing')
        if ORACLE.search(self.name):
            raise UserError(f'method "{self.name}": the table calls the best of a method\'s samples so; rename it')
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f'method "{self.name}": seeds = {list(self.seeds)} names one twice')
        if self.seeds and self.is_copied:
            raise UserError(f'method "{self.name}": {self.kind} takes no seeds; it draws nothing')

    @property
    def is_copied(self) -> bool:
        """Whether its pictures exist already, wherever they are from."""
        return self.kind in (REFERENCE, PRECOMPUTED)

    @property
    def slugs(self) -> list[str]:
        """Its folders below images/: one, or one a seed."""
        name = re.sub(r"[^a-z0-9._]+", "-", self.name.lower().replace("+", "-plus")).strip("-._") or "method"
        return [f"{name}-seed-{seed}" for seed in self.seeds] or [name]

    @property
    def slug(self) -> str:
        """The folder of the pictures that are shown: those of the first seed."""
        return self.slugs[0]

    def sample_folders(self, slug: str) -> list[str]:
        """Of all samples, of one of its slugs."""
        return [of_sample(slug, number) for number in range(1, self.samples + 1)]

    @property
    def rows(self) -> "tuple[Row, ...]":
        """What the table has of it."""
        return tuple(Row(self, of) for of in (("first", "mean", "best") if self.samples > 1 else ("first",)))

    def plain(self) -> dict[str, Any]:
        """The [[method]] table."""
        ours = {"path": list(self.path), "seeds": list(self.seeds), "ensemble": self.ensemble}
        ours |= {"samples": self.samples if self.samples > 1 else None}
        return {"name": self.name, "kind": self.kind, **self.options} | {key: v for key, v in ours.items() if v}

    @property
    def settings(self) -> str:
        """Kind and options as text, for tables."""
        options = [f"{key} = {value}" for key, value in self.options.items()]
        path = [" > ".join(self.path)] if self.path else []
        seeds = [f"seeds {', '.join(map(str, self.seeds))}"] if self.seeds else []
        return ", ".join([self.kind, *options, *path, *seeds, *(["self-ensemble x8"] if self.ensemble else [])])


@dataclass(frozen=True)
class Row:
    """A row of the table: a method's pictures, or what comes of its samples of each input.

    of: "first" has the first sample alone, as rows without samples do, and the metrics that compare all of them;
        "mean" is their mean, pixel by pixel, a picture of its own; "best" takes by each metric of images the best one.
    """

    method: MethodConfig
    of: Literal["first", "mean", "best"] = "first"

    @property
    def name(self) -> str:
        """In the tables."""
        return self.method.name if self.of == "first" else f"{self.method.name} ({self.of} of {self.method.samples})"

    @property
    def slugs(self) -> list[str]:
        """The folders of its pictures, one a seed; of the best, which has none of its own, those of the method."""
        slugs = self.method.slugs
        return [of_mean(slug) for slug in slugs] if self.of == "mean" else slugs

    @property
    def slug(self) -> str:
        """The folder of the pictures that are shown."""
        return self.slugs[0]

    @property
    def is_picture(self) -> bool:
        """Whether it has a picture of each image: the best sample is another one by each metric."""
        return self.of != "best" and self.method.kind != REFERENCE

    @property
    def gives_draws(self) -> bool:
        """Whether scores of images by this row are of every one of the method's outputs, of which there are several."""
        return self.of == "best" or (self.method.samples == 1 and len(self.method.seeds) > 1)

    @property
    def settings(self) -> str:
        """What it is, for tables."""
        count, name = self.method.samples, self.method.name
        if self.of == "mean":
            return f"pixel mean of {count} samples of {name}, of 8-bit pictures, rounded"
        if self.of == "best":
            chosen = f"of {count} samples of {name} the best by each metric, but for metrics of sets"
            return f"{chosen}: an oracle, since metrics of HR choose by HR; no part of comparisons"
        return self.method.settings + (f", the first of {count} samples of each input" if count > 1 else "")


@dataclass(frozen=True)
class TableConfig:
    """The [table] of a run's config: the look of results.tex and of the report. It changes no number.

    Attributes:
        caption: in LaTeX; by default it says what is compared.
        label: LaTeX label; by default tab:TASK.
        wide: table* over both columns of the page; by default if one column is too narrow.
        intervals: print intervals and the marks of tests in results.tex, too.
        title: the heading of the report and of results.md.
    """

    caption: str = ""
    label: str = ""
    wide: bool | None = None
    intervals: bool = False
    title: str = ""


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Attributes:
        task: how the inputs are made from HR.
        data: the data sets.
        method: the contenders, in the order of the table.
        metrics: (name, options), with the options of the `protocol` written out.
        seed: seed of everything that is drawn.
        batch_size: images at once; batches of squares are padded to it, so that an image's bytes do not depend on
            what else is missing.
        on_error: "stop" at an image that cannot be read, or "skip" it for all methods and count it in the results.
        table: look of tables and report.
        protocol: the conventions that metrics follow, see `sr3eval.protocols`.
        generated: set if the methods' images were made from noise, without data.
    """

    task: Task
    data: tuple[DatasetConfig, ...]
    method: tuple[MethodConfig, ...]
    metrics: tuple[tuple[str, dict[str, Any]], ...]
    seed: int = 0
    batch_size: int = 16
    on_error: OnError = "stop"
    table: TableConfig = TableConfig()
    protocol: str | None = None
    generated: GeneratedConfig | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size: {self.batch_size} is below 1")
        if not self.method or not self.metrics:
            raise UserError("at least one [[method]] and one metric are needed; a `protocol` brings metrics")
        for method in self.method:
            if (method.name == REFERENCE) != (method.kind == REFERENCE):
                raise UserError(f'method "{method.name}": kind and name "{REFERENCE}" go together')
        self._check_folders()
        if self.generated is None:
            self._check_data()
        else:
            self._check_generated()

    def _check_folders(self) -> None:
        """Every row has a name, and every method folders of its own."""
        folders = [slug for method in self.method for slug in method.slugs]
        names = [row.name for row in self.rows]
        for method in self.method:
            twice = [slug for slug in method.slugs if folders.count(slug) > 1]
            if twice or names.count(method.name) > 1:
                folder = (twice or [method.slug])[0]
                raise UserError(f'method "{method.name}": another one has this name, or the same folder "{folder}"')

    def _check_generated(self) -> None:
        """Generated images lie in folders, and stand in place of data."""
        if self.data or self.on_error != "stop":
            key = "data" if self.data else "on_error"
            raise UserError(f"{key}: does not go with [generated], whose methods each have images of their own")
        for method in self.method:
            if method.kind != PRECOMPUTED:
                hint = f'write kind = "{PRECOMPUTED}" and the folder of its images'
                raise UserError(f'method "{method.name}": [generated] takes images that exist already: {hint}')

    def _check_data(self) -> None:
        """Several sets have names, all have HR or none has, and LR files are there where the task asks for them."""
        names = [data.name for data in self.data]
        if len(names) > 1 and (None in names or len(set(names)) < len(names)):
            raise UserError("[[data]]: each of several sets needs a name of its own")
        if self.has_hr and any(data.images is None for data in self.data):
            raise UserError("[[data]]: either all sets have images (HR), or none has")
        given = {data.lr_images is not None for data in self.data}
        if given != {self.task.lr == "files"}:
            raise UserError(
                f'task "{self.task.name}" makes its inputs of HR images: write [task], scale = {self.task.scale}, '
                'lr = "files" where every set has lr_images'
                if True in given
                else 'task.lr = "files": data.lr_images is missing'
            )

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of the table, in its order."""
        return tuple(row for method in self.method for row in method.rows)

    @property
    def has_hr(self) -> bool:
        """Whether there are HR images to compare with."""
        return any(data.images is not None for data in self.data)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "RunConfig":
        """Read a run's TOML. Raises UserError that names the unknown, missing or mistyped key."""
        if isinstance(data.get("method"), dict):
            raise UserError("[method]: write [[method]], in double brackets: it is one of a list")
        tables = from_dict(_Tables, data)
        sets = tables.sets
        methods = tuple(_method(row) for table in tables.method for row in _rows(table))
        metrics: protocols.Metrics = [_metric(entry) for entry in tables.metrics]
        task = _task(tables.required_task, sets)
        if tables.protocol is not None:
            metrics = protocols.get(tables.protocol).apply(metrics)
        rest = (tables.seed, tables.batch_size, tables.on_error, tables.table, tables.protocol, tables.generated)
        return cls(task, sets, methods, tuple(protocols.resolve(metrics, task.scale)), *rest)

    def plain(self) -> dict[str, Any]:
        """The resolved config as TOML values; `parse` reads it back."""
        sets = [to_dict(data) for data in self.data]
        return {
            "task": self.task.name if tasks.is_named(self.task) else _task_table(self.task),
            "seed": self.seed,
            "batch_size": self.batch_size,
            **({"protocol": self.protocol} if self.protocol else {}),
            **({"on_error": self.on_error} if self.on_error != "stop" else {}),
            **({"table": to_dict(self.table)} if self.table != TableConfig() else {}),
            "metrics": [{"name": name} | options if options else name for name, options in self.metrics],
            **({"data": sets if len(sets) > 1 else sets[0]} if sets else {}),
            **({"generated": to_dict(self.generated)} if self.generated is not None else {}),
            "method": [method.plain() for method in self.method],
        }


@dataclass(frozen=True)
class _Tables:
    """A run's TOML as it is written, before its [[method]]s and metrics are told from their options."""

    task: str | dict[str, Any] | None = None
    data: DatasetConfig | tuple[DatasetConfig, ...] | None = None
    metrics: tuple[str | dict[str, Any], ...] = ()
    protocol: str | None = None
    method: tuple[dict[str, Any], ...] = ()
    seed: int = 0
    batch_size: int = 16
    on_error: OnError = "stop"
    table: TableConfig = TableConfig()
    generated: GeneratedConfig | None = None

    @property
    def sets(self) -> tuple[DatasetConfig, ...]:
        """The data sets; UserError where there are none and images are not generated."""
        if self.data is None and self.generated is None:
            raise UserError('missing key "data"')
        return self.data if isinstance(self.data, tuple) else (self.data,) if self.data is not None else ()

    @property
    def required_task(self) -> str | dict[str, Any]:
        """The task, which generated images need not have: then they are of any size."""
        if self.task is None and self.generated is None:
            raise UserError('missing key "task"')
        return self.task if self.task is not None else {"name": "generated", "scale": 1}


def _task(value: str | dict[str, Any], sets: tuple[DatasetConfig, ...]) -> Task:
    """The task of that name, or the one that a [task] table describes; its inputs are the data's, where it has them."""
    if isinstance(value, str):
        return tasks.get(value)
    given = any(data.lr_images is not None for data in sets)
    table = {"name": f"x{value.get('scale')}", "lr": "files" if given else "bicubic"} | value
    steps = degradation.parse(table.pop("degradation", ()), "task.degradation")
    task = replace(from_dict(Task, table, "task"), degradation=steps)
    if task.name in tasks.TASKS and not tasks.is_named(task):
        raise UserError(f'task.name: "{task.name}" is another task\'s; choose another, or write task = "{task.name}"')
    return task


def _task_table(task: Task) -> dict[str, Any]:
    """The [task] table that `_task` reads back."""
    steps = degradation.tables(task.degradation)
    return to_dict(replace(task, degradation=())) | ({"degradation": steps} if steps else {})


@dataclass(frozen=True)
class _Metric:
    name: str
    options: dict[str, Any]


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The [[method]] tables that one with `each = { option = [values] }` stands for: a row of the results a value.

    Values may be a pattern of files, such as "checkpoints/*.pth"; each row is named by its file or value.
    """
    if "each" not in table:
        return [table]
    each, shared = table["each"], {key: value for key, value in table.items() if key != "each"}
    if not isinstance(each, dict) or len(each) != 1:
        raise UserError('method.each: name one option and its values, e.g. each = { weights = ["a.pth", "b.pth"] }')
    ((option, values),) = each.items()
    if isinstance(values, str):
        pattern = resolve_path(values)
        values = [str(path) for path in sorted(pattern.parent.glob(pattern.name))]
    if not isinstance(values, list) or not values:
        raise UserError(f"method.each.{option}: {each[option]!r} is no list of values, and no file matches it")
    name = shared.get("name", shared.get("kind", "mine"))
    return [shared | {option: value, "name": f"{name} {_short(value)}"} for value in values]


def _short(value: Any) -> str:
    """A file by its name without suffix; any other value as it is."""
    return PurePath(value).stem if isinstance(value, str) else str(value)


def _method(table: dict[str, Any]) -> MethodConfig:
    """A [[method]]: `kind = "..."`, or `python = "file.py:build"` for anyone's own; the name defaults to the kind."""
    table = dict(table)
    if "python" in table and table.setdefault("kind", "python") != "python":
        raise UserError("method: give either kind or python")
    if "kind" not in table:
        raise UserError('method: missing key "kind"')
    name = table.setdefault("name", str(table["kind"]))
    return _with_options(MethodConfig, table, f'method "{name}"')


def _metric(entry: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if "python" in entry:  # whose file builds a metric of that name
        return "python", dict(entry)
    if "name" not in entry:
        raise UserError('metrics: a table needs the key "name"')
    metric = _with_options(_Metric, entry, "metrics")
    return metric.name, metric.options


def _with_options(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Build `cls` from a table whose keys are its fields, or else go among its `options`."""
    ours = {key: value for key, value in table.items() if key in inspect.signature(cls).parameters}
    options = {key: value for key, value in table.items() if key not in ours}
    return from_dict(cls, ours | {"options": options}, where)
