"""A run, checked as far as it can be before work begins."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
import torch

from sr3eval import methods, metrics, tasks
from sr3eval.benchmark import resume
from sr3eval.benchmark.cache import Cache, identity
from sr3eval.benchmark.config import DatasetConfig, MethodConfig, RunConfig
from sr3eval.benchmark.labels import read_labels
from sr3eval.benchmark.layout import LR, REFERENCE, RunFolder
from sr3eval.benchmark.processes import together
from sr3eval.benchmark.set_cards.check import recognised
from sr3eval.config import check_call, defaults, resolve_path
from sr3eval.data import choose, first, unreadable
from sr3eval.discovery import Builder
from sr3eval.distributed import job
from sr3eval.errors import UserError, number
from sr3eval.files import atomic_write, digest_of
from sr3eval.folders import parent_of
from sr3eval.images import Size
from sr3eval.method import Method, fingerprint
from sr3eval.methods._resized import Resized
from sr3eval.methods._self_ensemble import self_ensemble
from sr3eval.metrics import BLOCKS, Batch, Metric, block_of
from sr3eval.pairs import Pair, find_pairs
from sr3eval.tasks import Task

LONGEST_NAME = 250  # bytes of a part of an image's id: file systems take 255, and a note is called ID.json
UNKNOWN: Size = (0, 0)  # of an image that cannot be read


@dataclass(frozen=True)
class RunImage:
    """One image of a run. size: (H, W) of its HR and outputs. block: of the jackknife, within its data set."""

    image_id: str
    dataset: str
    pair: Pair
    size: Size
    group: str
    block: str
    label: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """Images that no method gets: how many are too small, and why others cannot be read."""

    too_small: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A run whose config, images, methods and metrics fit together, and whose folder is its own.

    Attributes:
        images: all of the run, data set by data set.
        left_out: images that no method gets.
        sums: sha256 of the images, by data set.
        methods: by name.
        identities: hashes of all that their outputs depend on, by method.
        remarks: what the user must hear before the run begins, a line each.
        sizes: (H, W) of the HR of every image of the data, of which the run may have fewer.
    """

    config: RunConfig
    folder: RunFolder
    cache: Cache
    images: tuple[RunImage, ...]
    left_out: LeftOut
    sums: Mapping[str, str]
    methods: Mapping[str, Method]
    identities: Mapping[str, str]
    remarks: tuple[str, ...]
    sizes: Mapping[str, Size] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        return self.config.task

    @property
    def has_hr(self) -> bool:
        return self.config.has_hr

    @property
    def inputs(self) -> str:
        """What made the low-resolution images, in words."""
        return self.task.inputs

    @property
    def sha256(self) -> str:
        """Of all images."""
        return _all_sums(self.sums)

    def datasets(self) -> dict[str, list[RunImage]]:
        """The images by data set, in the order of the config."""
        found: dict[str, list[RunImage]] = {data.name or "": [] for data in self.config.data}
        for image in self.images:
            found[image.dataset].append(image)
        return found

    def metrics(self) -> list[Metric]:
        """The run's metrics, without scores."""
        return load_metrics(self.config)


P = TypeVar("P", bound=Plan)


def plan(config: RunConfig, out: Path, cache: Path) -> Plan:
    """Check everything that can be checked, and take the folder `out`. Of several processes, the leading one does.

    Args:
        config: of the run, its defaults not yet written out.
        out: the run's folder.
        cache: folder of outputs shared by runs.

    Raises:
        UserError: a bad config, data, method or metric, or a folder that holds something else.
    """
    return everywhere(lambda: _plan(config, out, cache), _built)


def everywhere(check: Callable[[], P], build: Callable[[P], Mapping[str, Method]]) -> P:
    """The leading process's plan, in every process. The others build its methods themselves, each on its device."""
    plans: list[P] = []

    def without_methods() -> P:
        plans.append(check())
        return replace(plans[0], methods={})

    shared = job().lead(without_methods)

    def complete() -> None:
        if not plans:
            plans.append(replace(shared, methods=build(shared)))

    together(complete)
    return plans[0]


def _built(plan: Plan) -> dict[str, Method]:
    built = {method.name: build(method, plan.task) for method in plan.config.method}
    for method in built.values():
        method.check([image.image_id for image in plan.images], plan.sizes)
    return built


def _plan(config: RunConfig, out: Path, cache: Path) -> Plan:
    config, folder = resolved(config), RunFolder(out)
    if not config.has_hr and any(method.kind == REFERENCE for method in config.method):
        raise UserError("reference: is the HR images, and this run has none")
    found = [find(config, data, folder) for data in config.data]
    images = tuple(image for part in found for image in part.images)
    left_out = LeftOut(
        sum(part.left_out.too_small for part in found),
        {image_id: why for part in found for image_id, why in part.left_out.unreadable.items()},
    )
    check_scorable(config, images)
    built = {method.name: build(method, config.task) for method in config.method}
    sizes = {image_id: size for part in found for image_id, size in part.sizes.items()}
    for method in built.values():
        method.check([image.image_id for image in images], sizes)
    identities = {name: identity(method) for name, method in built.items()}
    kept = Cache(cache)
    sums = {data.name or "": sha256_of(part.images, config.task) for data, part in zip(config.data, found, strict=True)}
    remarks = claim(config, folder, _all_sums(sums), built, identities)
    remarks += [remark for data, part in zip(config.data, found, strict=True) for remark in _card(data, part.images)]
    remarks += _sizes(images, config.task)
    if left_out.unreadable:
        count, why = number(len(left_out.unreadable), "image"), next(iter(left_out.unreadable.values()))
        remarks.append(f"{count} left out as unreadable, first {why}")
    return Plan(config, folder, kept, images, left_out, sums, built, identities, tuple(remarks), sizes)


def card_of(images: Sequence[RunImage]) -> str | None:
    """The name of the set card whose HR images these are, if they are all of them and have HR."""
    files = {image.image_id: image.pair.hr for image in images if image.pair.hr is not None}
    return recognised(files) if len(files) == len(images) else None


def _card(data: DatasetConfig, images: Sequence[RunImage]) -> list[str]:
    name = card_of(images)
    return [f"{data.where}: the HR images are those of the set card {name}"] if name else []


def _sizes(images: Sequence[RunImage], task: Task) -> list[str]:
    """What a run of mixed sizes means for memory."""
    sizes = {image.size for image in images}
    if len(sizes) == 1:
        return []
    largest = max(sizes, key=math.prod)
    height, width = (side // task.scale for side in largest)
    megabytes = 3 * 4 * math.prod(largest) / 1e6  # float32 RGB
    return [
        f"outputs of {len(sizes)} sizes; the largest input, {width}x{height} pixels, is made first: its output takes "
        f"{megabytes:,.0f} MB of memory, and a network's own features many times that where it has no tile"
    ]


def sha256_of(images: Sequence[RunImage], task: Task) -> str:
    """Of the ids and files of images, and of what a config's own task makes of them: equal sums, equal pictures."""
    files = {image.image_id: image.pair.hr for image in images}
    files |= {f"lr/{image.image_id}": image.pair.lr for image in images}
    digest = digest_of({name: path for name, path in files.items() if path is not None})
    return digest if tasks.is_named(task) else fingerprint(task.fingerprint, digest)


def _all_sums(sums: Mapping[str, str]) -> str:
    """One sum of several."""
    return next(iter(sums.values())) if len(sums) == 1 else fingerprint(*sums.items())


def resolved(config: RunConfig) -> RunConfig:
    """The config with every default of its methods and metrics written out, lest a run change with them."""
    loaded = tuple((name, defaults(metrics.builder(name)) | options) for name, options in config.metrics)
    chosen = tuple(replace(method, options=defaults(_builder(method)) | method.options) for method in config.method)
    return replace(config, metrics=loaded, method=chosen)


def load_metrics(config: RunConfig) -> list[Metric]:
    """The metrics of a run; UserError for two of one id."""
    loaded = [metrics.load(name, **options) for name, options in config.metrics]
    names = [metric.name for metric in loaded]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'metrics: "{name}" is listed twice')
    return loaded


@dataclass(frozen=True)
class Found:
    """A data set's images in the run, the sizes of all that it could have, and those left out."""

    images: list[RunImage]
    sizes: dict[str, Size]
    left_out: LeftOut


def find(config: RunConfig, data: DatasetConfig, folder: RunFolder) -> Found:
    """The images of one data set; UserError where there are none, or what they lack."""
    hr, lr = (resolve_path(path) if path is not None else None for path in (data.images, data.lr_images))
    pairs = find_pairs(hr, lr, data.pattern, data.lr_pattern)
    _check_names(data, pairs)
    skipped: dict[str, str] = {}
    if config.on_error == "skip":
        skipped = unreadable(pairs, lambda image_id: pairs[image_id].size(config.task, data.crop))
    readable = {image_id: pair for image_id, pair in pairs.items() if image_id not in skipped}
    sizes = dict.fromkeys(skipped, UNKNOWN)
    sizes |= {image_id: pair.size(config.task, data.crop) for image_id, pair in readable.items()}
    kept = [image_id for image_id, pair in readable.items() if pair.is_large_enough(config.task)]
    if readable and not kept:
        count = number(len(readable), "image")
        raise UserError(f"{data.where}: no image has {config.task.smallest} pixels or more on its short side ({count})")
    chosen = (choose if data.select == "hash" else first)(kept, data.limit)
    if config.on_error == "skip":
        new = [i for i in chosen if not folder.image(LR, data.prefixed(i)).exists()]  # written last, and in every run
        skipped |= unreadable(new, lambda image_id: pairs[image_id].load(config.task, sizes[image_id], 0))
    ids = [image_id for image_id in chosen if image_id not in skipped]
    if not ids:
        raise UserError(f"{data.where}: none of its images can be read")
    left_out = LeftOut(len(readable) - len(kept), {data.prefixed(i): why for i, why in skipped.items()})
    return Found(_run_images(data, ids, pairs, sizes), {data.prefixed(i): size for i, size in sizes.items()}, left_out)


def _check_names(data: DatasetConfig, ids: Iterable[str]) -> None:
    """UserError for an id whose files in the run's folder would have too long a name."""
    for image_id in ids:
        if longest := [part for part in image_id.split("/") if len(part.encode()) > LONGEST_NAME]:
            size = len(longest[0].encode())
            raise UserError(
                f"{data.where}: a name of {size} bytes, {longest[0][:20]}..., leaves no room for .json in the "
                f"{LONGEST_NAME + 5} that file systems take; shorten it"
            )


def _run_images(
    data: DatasetConfig, ids: Sequence[str], pairs: Mapping[str, Pair], sizes: Mapping[str, Size]
) -> list[RunImage]:
    groups = {i: data.prefixed(parent_of(i) if data.group == "parent" else i) for i in ids}
    few = len(set(groups.values())) <= BLOCKS
    labels = read_labels(data.labels, ids, {i: pairs[i].hr for i in ids}) if data.labels else {}
    return [
        RunImage(
            data.prefixed(i),
            data.name or "",
            pairs[i],
            sizes[i],
            groups[i],
            groups[i] if few else block_of(groups[i]),  # where groups are few, each is a jackknife block
            labels.get(i),
        )
        for i in ids
    ]


def check_scorable(config: RunConfig, images: Sequence[RunImage]) -> None:
    """Raise UserError for a metric that cannot score the run: by its own word, and tried on a grey image.

    That is of the shortest side, and of the fewest pixels, so that a metric whose window or blocks do not fit says so
    before any work; and so does a degradation that ends in another size.
    """
    labelled = all(image.label is not None for image in images)
    loaded = load_metrics(config)
    several = any(method.samples > 1 for method in config.method)
    for metric in loaded:
        metric.convention.check(hr=True, lr=True, labels=True, samples=several)
    for dataset in dict.fromkeys(image.dataset for image in images):
        sizes = [image.size for image in images if image.dataset == dataset]
        for metric in loaded:
            metric.check(len(sizes), labelled, config.has_hr, set(sizes))
    for image in {min(images, key=lambda image: key(image.size)) for key in (min, math.prod)}:
        probe = _probe(config, image.size, labelled)
        for metric in loaded:
            try:
                metric.fresh().update(probe)
            except UserError as error:
                where = f"tried on a grey image as large as {image.image_id}, the smallest"
                raise UserError(f"{error}; {where}") from None


def _probe(config: RunConfig, size: Size, labelled: bool) -> Batch:
    """A grey image of that size, as a batch."""
    hr, task = torch.full((1, 3, *size), 0.5), config.task
    lr = hr[..., :: task.scale, :: task.scale] if task.lr == "files" else task.degrade(hr)
    return Batch(
        ["probe"], hr, hr if config.has_hr else None, lr, [0] if labelled else None, samples=hr.expand(2, *hr.shape)
    )


def _builder(config: MethodConfig) -> Builder:
    try:
        return methods.builder(config.kind)
    except UserError as error:
        raise UserError(f'method "{config.name}": {error}') from None


def build(config: MethodConfig, task: Task) -> Method:
    """Build one contender. A builder's parameters `task` and `scale` without default are the run's; the others are the
    config's options.

    With a path, the checkpoint may be of another task. Raises UserError for an unknown kind or option and for a method
    of another scale without a path.
    """
    builder = _builder(config)
    of_run = methods.of_run(builder, task, with_path=bool(config.path))
    _refuse_the_runs(config, builder, of_run, task)
    options = check_call(builder, config.options, f'method "{config.name}"', of_run)
    method: Method = self_ensemble(builder, **options) if config.ensemble else builder(**options)
    if config.samples > 1 and not method.stochastic:
        raise UserError(
            f'method "{config.name}": samples = {config.samples}, but it does not say that it draws from its seeds '
            "(`stochastic = True` of your own method): all samples would be equal; leave samples out"
        )
    if config.path:
        if method.copied:
            raise UserError(f'method "{config.name}": {config.kind} takes no path')
        return Resized(method, config.path, task)
    _check_scale(config, method, task)
    return method


def _check_scale(config: MethodConfig, method: Method, task: Task) -> None:
    if method.lr_size is not None and (task.side is None or method.lr_size != task.lr_size):
        given = "images of any size" if task.side is None else task.lr_size
        raise UserError(
            f'method "{config.name}": takes {method.lr_size}x{method.lr_size} images, but {task.name} has {given}'
        )
    if method.scale not in (None, task.scale):
        end = f"bicubic {task.side}" if task.side else "bicubic"
        raise UserError(
            f'method "{config.name}": enlarges {method.scale} times, but {task.name} needs {task.scale} times; a path '
            f'with "method" and resizes goes around that, e.g. path = ["method", "{end}"]'
        )


def _refuse_the_runs(config: MethodConfig, builder: Builder, of_run: Mapping[str, Any], task: Task) -> None:
    """Raise UserError for options that are not the method's but the run's, where its builder does not take them."""
    names = methods.parameters(builder)
    if "task" in config.options:
        raise UserError(f'method "{config.name}": unknown key "task"; the run has one task')
    if "scale" in config.options and (names is None or "scale" in names) and "scale" not in of_run:
        return
    if "scale" in config.options:
        raise UserError(
            f'method "{config.name}": {config.kind} has no option "scale"; the scale is the task\'s, {task.scale} of '
            f"{task.name}"
        )
    if names is not None and not names - {"task", "scale"} and config.options:
        raise UserError(
            f'method "{config.name}": unknown key "{next(iter(config.options))}"; {config.kind} has no options'
        )


def claim(
    config: RunConfig, folder: RunFolder, sha256: str, built: Mapping[str, Method], identities: Mapping[str, str]
) -> list[str]:
    """Take the folder, unless it is another run's or that of other images or methods; what the user must hear."""
    text = tomli_w.dumps(config.plain())
    made_by = {
        name: {"identity": identities[name], "sha256": dict(method.facts.checksums)} for name, method in built.items()
    }
    changed = resume.changed_methods(folder, made_by)
    of_changed = [method for method in config.method if method.name in changed]
    made = {method.name for method in of_changed if folder.has_pictures(method.slugs)}
    made |= {method.name for method in of_changed if folder.sheet(method.slug).exists()}
    if resume.config_before(folder, text) is not None:
        resume.refuse_changed(
            folder, sha256, {n: what for n, what in changed.items() if n in made and not built[n].copied}
        )
    resume.claim(folder, text)
    resume.refuse_changed(folder, sha256, {})
    if changed:
        folder.results.unlink(missing_ok=True)
    atomic_write(folder.fingerprints, json.dumps(made_by, indent=2, sort_keys=True).encode())
    return [f'method "{name}": its outputs have changed; it is scored anew' for name in changed if name in made]
