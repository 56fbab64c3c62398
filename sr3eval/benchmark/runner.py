"""A run: images made or found in the cache, written as PNG, read back and scored."""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import tomli_w
import torch

from sr3eval import metrics, tasks
from sr3eval.benchmark import environment, methods, resume
from sr3eval.benchmark.cache import Cache
from sr3eval.benchmark.config import MethodConfig, RunConfig
from sr3eval.benchmark.labels import read_labels
from sr3eval.benchmark.layout import HR, LR, PER_IMAGE_COLUMNS, SEED_COLUMNS, SET_COLUMNS, RunFolder
from sr3eval.benchmark.sources import code_behind, digest, named_in
from sr3eval.config import defaults, resolve_path
from sr3eval.data import Folder, choose, find_images, first, large_enough, parent_of, stable_hash, unreadable
from sr3eval.device import default_device, threads
from sr3eval.errors import UserError, number
from sr3eval.files import atomic_write, digest_of
from sr3eval.images import encode_png, header_size, load, save, to_uint8
from sr3eval.method import Method, Precomputed, Reference, check_outputs, counted, fingerprint, work
from sr3eval.metrics import BLOCKS, Batch, Estimate, Metric, Result, block_of

LR_KERNEL = "antialiased bicubic, a = -0.5"  # of `images.bicubic_down`, which makes every run's inputs
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` images through one stage of the run; parts of an image count where a method tells its steps."""

    stage: str
    done: float
    total: int


class Run:
    """One run in the folder `out`. Constructing it checks everything that can be checked before work begins.

    Raises UserError for a bad config, data, method or metric, and for a folder that holds something else.
    """

    def __init__(self, config: RunConfig, out: Path, cache: Path, kinds: methods.Kinds) -> None:
        self.config = config = resolved(config, kinds)
        self.folder = RunFolder(out)
        self.task = tasks.get(config.task)
        self.metrics = load_metrics(config)
        paths = self._find()
        select = choose if config.data.select == "hash" else first
        self.ids = self._readable(select(list(self.data.paths), config.data.limit))
        self.sha256 = digest_of({image_id: paths[image_id] for image_id in self.ids})
        self.labels = read_labels(config.data.labels, self.ids) if config.data.labels else None
        for metric in self.metrics:
            metric.check(len(self.ids), self.labels is not None)
        self._probe()
        self.blocks = self._blocks()
        self.contenders = {method.name: methods.build(method, self.task, kinds) for method in config.method}
        methods.check_modules(self.contenders.values())
        for contender in self.contenders.values():
            if isinstance(contender, Precomputed):
                contender.check(self.ids, paths, self.task.hr_size)
        self.identities = {name: methods.identity(contender) for name, contender in self.contenders.items()}
        self._claim(cache)

    def _find(self) -> dict[str, Path]:
        """All images of the data's folder by id; notes those that no method gets."""
        paths = find_images(resolve_path(self.config.data.images))
        self.unreadable: dict[str, str] = {}
        if self.config.on_error == "skip":
            self.unreadable = unreadable(paths, lambda image_id: header_size(paths[image_id]))
        readable = {image_id: path for image_id, path in paths.items() if image_id not in self.unreadable}
        kept, self.too_small = large_enough(readable, self.task.smallest)
        if readable and not kept:
            where, count = self.config.data.images, number(len(readable), "image")
            raise UserError(f"{where}: all of {count} are below {self.task.smallest} pixels")
        self.data = Folder(kept, self.task)
        return paths

    def _readable(self, ids: Sequence[str]) -> list[str]:
        """The ids without those that cannot be read, where the config says to skip them."""
        if self.config.on_error == "skip":
            new = [image_id for image_id in ids if not self.folder.image(HR, image_id).exists()]
            self.unreadable |= unreadable(new, self.data.hr)
        left = [image_id for image_id in ids if image_id not in self.unreadable]
        if not left:
            raise UserError(f"{self.config.data.images}: none of its images can be read")
        return left

    def _claim(self, cache: Path) -> None:
        """Take the folders, unless they are another run's or that of other images or methods."""
        config = tomli_w.dumps(self.config.plain())
        made_by = {name: self._made_by(name) for name in self.contenders}
        changed = resume.changed_methods(self.folder, made_by)
        self.remarks = self._remarks(changed)
        if resume.config_before(self.folder, config) is not None:
            copied = {name for name, contender in self.contenders.items() if isinstance(contender, Precomputed)}
            resume.refuse_changed(self.folder, self.sha256, {n: w for n, w in changed.items() if n not in copied})
        self.cache = Cache(cache)
        resume.claim(self.folder, config)
        resume.refuse_changed(self.folder, self.sha256, {})
        if changed:
            self.folder.results.unlink(missing_ok=True)
        atomic_write(self.folder.fingerprints, json.dumps(made_by, indent=2, sort_keys=True).encode())

    def _made_by(self, name: str) -> dict[str, Any]:
        return {"identity": self.identities[name], "sha256": getattr(self.contenders[name], "checksums", {})}

    def _remarks(self, changed: Mapping[str, str]) -> list[str]:
        """What the user must hear before the run begins, a line each."""
        remarks = [f'method "{name}": its outputs have changed; it is scored anew' for name in changed]
        if self.unreadable:
            count = number(len(self.unreadable), "image")
            remarks.append(f"{count} left out as unreadable, first {next(iter(self.unreadable.values()))}")
        return remarks

    def images(self) -> Generator[Progress, None, None]:
        """Write the HR and LR images and every method's outputs, as far as they are not there yet."""
        yield from self._prepare()
        for method in self.config.method:
            contender = self.contenders[method.name]
            for seed, slug in zip(method.seeds or (self.config.seed,), method.slugs, strict=True):
                stage = f"{method.name}, seed {seed}" if method.seeds else method.name
                for done in self._written(contender, method.name, slug, seed):
                    yield Progress(stage, done, len(self.ids))

    def _written(self, contender: methods.Contender, name: str, slug: str, seed: int) -> Iterator[float]:
        """Write one set of outputs; yields how many are there."""
        if isinstance(contender, Precomputed):
            return self._copy(lambda image_id: encode_png(contender.read(image_id)), slug)
        if isinstance(contender, Reference):
            return self._copy(lambda image_id: self.folder.image(HR, image_id).read_bytes(), slug)
        return self._make(contender, name, slug, seed)

    def _prepare(self) -> Iterator[Progress]:
        """Write the HR and LR images that are not there yet."""
        if self.folder.inputs.exists():
            return
        if not self.folder.begun.exists() or self.folder.begun.read_text() != self.sha256:
            for folder in (HR, LR):  # of a run that was stopped before; its images were others
                shutil.rmtree(self.folder.images / folder, ignore_errors=True)
            atomic_write(self.folder.begun, self.sha256.encode())
        for count, image_id in enumerate(self.ids, start=1):
            paths = [self.folder.image(folder, image_id) for folder in (HR, LR)]
            if not all(path.exists() for path in paths):
                with threads(1):
                    hr = self.data.hr(image_id)
                    for path, image in zip(paths, (hr, self.task.degrade(hr)), strict=True):
                        save(path, image)
            yield Progress("prepare", count, len(self.ids))
        self.folder.begun.replace(self.folder.inputs)

    def _probe(self) -> None:
        """Score one grey image, so that a metric that cannot score this task's sizes says so before any work."""
        lr, hr = (torch.full((1, 3, side, side), 0.5) for side in (self.task.lr_size, self.task.hr_size))
        for name, options in self.config.metrics:
            metrics.load(name, **options).update(Batch(["probe"], lr, hr, hr, [0] if self.labels else None))

    def _copy(self, read: Callable[[str], bytes], slug: str) -> Iterator[float]:
        for done, image_id in enumerate(self.ids, start=1):
            with threads(1):
                self._write(slug, image_id, read(image_id), {})
            yield done

    def _make(self, method: Method, name: str, slug: str, seed: int) -> Iterator[float]:
        """Take outputs from the cache, then make the missing ones batch by batch; yields how many are there."""
        keys = {}
        missing, done = [], 0
        for image_id in self.ids:
            keys[image_id] = self._key(name, image_id, seed)
            with threads(1):
                found = self.cache.get(keys[image_id], (self.task.hr_size, self.task.hr_size))
            if found is None:
                missing.append(image_id)
            else:
                self._write(slug, image_id, *found)
                done += 1
                yield done
        yield done
        size = 1 if getattr(method, "one_by_one", False) else self.config.batch_size
        for part in chunks(missing, size):
            steps = self._upscale(method, name, slug, seed, {i: keys[i] for i in part}, size)
            yield from counted(steps, done, len(part))
            done += len(part)
            yield done

    def _upscale(
        self, method: Method, name: str, slug: str, seed: int, keys: dict[str, str], size: int
    ) -> Generator[float, None, None]:
        """Make the images of one batch, by id with their keys in the cache; yields the share that is done."""
        ids = list(keys)
        # Every batch has the full size, so that an image's bytes do not depend on how many are left to be made.
        padded = ids + ids[-1:] * (size - len(ids))
        with threads(1):
            lr = torch.stack([load(self.folder.image(LR, image_id)) for image_id in padded])
        outputs, notes = yield from work(method, lr, [stable_hash(seed, image_id) for image_id in padded])
        side = self.task.hr_size
        with threads(1):
            check_outputs(outputs, (len(padded), 3, side, side), f'method "{name}", batch of {ids[0]}')
            for image_id, output, note in zip(ids, outputs, notes, strict=False):
                png = encode_png(output)
                self.cache.put(keys[image_id], png, note)
                self._write(slug, image_id, png, note)

    def _key(self, name: str, image_id: str, seed: int) -> str:
        content = self._contents[image_id]
        return Cache.key(self.identities[name], self.task.fingerprint, content, stable_hash(seed, image_id))

    @functools.cached_property
    def _contents(self) -> dict[str, str]:
        """sha256 of the pixels of every HR image."""

        def content(image_id: str) -> str:
            pixels = to_uint8(load(self.folder.image(HR, image_id)))
            return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()

        with threads(1):
            return {image_id: content(image_id) for image_id in self.ids}

    def _write(self, slug: str, image_id: str, png: bytes, note: dict[str, Any]) -> None:
        path, said = self.folder.image(slug, image_id), self.folder.note(slug, image_id)
        if not path.exists() or path.read_bytes() != png:
            atomic_write(path, png)
        if note:
            atomic_write(said, json.dumps(note, sort_keys=True).encode())
        else:
            said.unlink(missing_ok=True)

    def scores(self) -> Generator[Progress, None, None]:
        """Read the written images back and score them, as far as that was not done before.

        Then write per_image.csv, set_scores.csv, seed_scores.csv where methods have seeds, and environment.json.
        """
        known = resume.Known(self.folder)
        tables: list[resume.Rows] = [[], [], []]
        inputs = digest_of({f"{folder}/{i}": self.folder.image(folder, i) for folder in (HR, LR) for i in self.ids})
        keys = {}
        for method in self.config.method:
            keys[method.name] = names = self._score_keys(method, inputs)
            wanted = [m for m in self.metrics if not known.holds(method.name, m.name, names[m.name])]
            new = (yield from self._score(method, wanted)) if wanted else {}
            for metric in self.metrics:
                rows = new[metric.name] if metric.name in new else known.rows(method.name, metric.name)
                for table, part in zip(tables, rows, strict=True):
                    table += part
        self._write_csv(self.folder.per_image, tables[0], PER_IMAGE_COLUMNS)
        self._write_csv(self.folder.set_scores, tables[1], SET_COLUMNS)
        if tables[2]:
            self._write_csv(self.folder.seed_scores, tables[2], SEED_COLUMNS)
        atomic_write(self.folder.environment, json.dumps(self._environment(), indent=2, sort_keys=True).encode())
        atomic_write(self.folder.scored, json.dumps(keys, indent=2, sort_keys=True).encode())

    def _score_keys(self, method: MethodConfig, inputs: str) -> dict[str, str]:
        """By metric, a hash of all that its scores of a method depend on: pictures, settings, files, code, device."""
        pictures = {f"{slug}/{i}": self.folder.image(slug, i) for slug in method.slugs for i in self.ids}
        rest = (inputs, digest_of(pictures), sorted((self.labels or {}).items()), sorted(self.blocks.items()))
        keys = {}
        for metric, (name, options) in zip(self.metrics, self.config.metrics, strict=True):
            code = code_behind(metrics.builder(name))
            files = [digest(path) for path in named_in(options).values()]
            made_by = (metric.settings, code.digest if code else "", *files, default_device().type)
            keys[metric.name] = fingerprint(metric.name, *made_by, *rest)
        return keys

    def _score(
        self, method: MethodConfig, wanted: Sequence[Metric]
    ) -> Generator[Progress, None, dict[str, list[resume.Rows]]]:
        """The rows of a method for the three tables, by metric."""
        of_seeds: list[list[Result]] = []
        for slug in method.slugs:
            scored = [metric.fresh() for metric in wanted]
            done = 0
            parts = list(chunks(self.ids, self.config.batch_size))
            for batch in ahead(functools.partial(self._batch, slug), parts):
                with threads(1):
                    for metric in scored:
                        metric.update(batch)
                done += len(batch.ids)
                yield Progress(f"score {slug if method.seeds else method.name}", done, len(self.ids))
            of_seeds.append([metric.compute() for metric in scored])
        results = {metric.name: [results[n] for results in of_seeds] for n, metric in enumerate(wanted)}
        return {name: self._rows(method, name, of) for name, of in results.items()}

    def _rows(self, method: MethodConfig, metric: str, results: Sequence[Result]) -> list[resume.Rows]:
        """Of one metric's results, one a seed: rows of per_image.csv, set_scores.csv and seed_scores.csv."""
        key = (self.task.name, method.name)
        result = metrics.mean_over_seeds(metric, results)
        per_image: resume.Rows = [(*key, i, metric, v, self._group(i)) for i, v in result.per_image.items()]
        everything = {"": Estimate(result.value, result.n)} | result.without
        sets: resume.Rows = [(*key, metric, block, e.value, e.n) for block, e in everything.items()]
        seeds: resume.Rows = [(*key, metric, s, r.value) for s, r in zip(method.seeds, results, strict=False)]
        return [per_image, [] if per_image else sets, seeds]

    def _write_csv(self, path: Path, rows: Sequence[tuple[object, ...]], columns: Sequence[str]) -> None:
        table = pd.DataFrame(rows, columns=list(columns))
        atomic_write(path, table.to_csv(index=False, lineterminator="\n").encode())

    def _batch(self, slug: str, ids: Sequence[str]) -> Batch:
        lr, hr, sr = (torch.stack([load(self.folder.image(f, i)) for i in ids]) for f in (LR, HR, slug))
        labels = [self.labels[image_id] for image_id in ids] if self.labels else None
        return Batch(ids, lr, hr, sr, labels, [self.blocks[image_id] for image_id in ids])

    def _blocks(self) -> dict[str, str]:
        """The jackknife block of every image: its group where these are few, else a hash's share of the groups."""
        groups = {image_id: self._group(image_id) for image_id in self.ids}
        few = len(set(groups.values())) <= BLOCKS
        return {image_id: group if few else block_of(group) for image_id, group in groups.items()}

    def _group(self, image_id: str) -> str:
        return parent_of(image_id) if self.config.data.group == "parent" else image_id

    def _environment(self) -> dict[str, object]:
        checksums = {name: getattr(c, "checksums", {}) for name, c in self.contenders.items()}
        return environment.describe() | {
            "images": len(self.ids),
            "images_sha256": self.sha256,
            "left_out_too_small": len(self.too_small),
            "left_out_unreadable": len(self.unreadable),
            "unreadable": self.unreadable,
            "warnings": {name: text for name, c in self.contenders.items() if (text := getattr(c, "warning", ""))},
            "sha256": {name: sums for name, sums in checksums.items() if sums},
            "methods": {name: facts for name, c in self.contenders.items() if (facts := said_by(c))},
        }

    def conventions(self) -> dict[str, tuple[bool, str]]:
        """By metric id: whether higher is better, and the settings behind the number."""
        return {metric.name: (metric.higher_is_better, metric.settings) for metric in self.metrics}


def said_by(contender: methods.Contender) -> dict[str, str]:
    """What a method says of itself: its architecture, and what made the inputs it was trained on beside these."""
    path = getattr(contender, "path", ("method",))
    while hasattr(contender, "method"):  # of a path, or of a user's file
        contender = contender.method
    facts = {name: getattr(contender, name) for name in ("architecture", "lr_kernel") if hasattr(contender, name)}
    if "lr_kernel" in facts:
        facts["lr_kernel_given"] = ", then ".join([LR_KERNEL, *path[: path.index("method")]])
    return facts


def load_metrics(config: RunConfig) -> list[Metric]:
    """The metrics of a run; UserError for two of one id."""
    loaded = [metrics.load(name, **options) for name, options in config.metrics]
    names = [metric.name for metric in loaded]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'metrics: "{name}" is listed twice')
    return loaded


def resolved(config: RunConfig, kinds: methods.Kinds) -> RunConfig:
    """The config with every default of its methods and metrics written out, lest a run change with them."""
    loaded = tuple((name, defaults(metrics.builder(name)) | options) for name, options in config.metrics)
    return replace(config, metrics=loaded, method=tuple(methods.resolve(method, kinds) for method in config.method))


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def ahead(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """function(item) for every item, in order; the next one is computed in a thread meanwhile."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending = [pool.submit(function, item) for item in items[:1]]
        for item in items[1:]:
            pending.append(pool.submit(function, item))
            yield pending.pop(0).result()
        for last in pending:
            yield last.result()
