"""A run: images made or found in the cache, written as PNG, read back and scored."""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import tomli_w
import torch
from torch import Tensor

from sr3eval import metrics, tasks
from sr3eval.benchmark import environment, methods
from sr3eval.benchmark.cache import Cache
from sr3eval.benchmark.config import RunConfig
from sr3eval.benchmark.labels import read_labels
from sr3eval.benchmark.layout import HR, LR, PER_IMAGE_COLUMNS, SET_COLUMNS, RunFolder
from sr3eval.config import defaults, resolve_path
from sr3eval.data import Folder, choose, find_images, first, large_enough, parent_of, stable_hash
from sr3eval.device import threads
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, claim_folder, digest_of
from sr3eval.images import encode_png, load, save, to_uint8
from sr3eval.method import Method, Precomputed, Reference, check_outputs, counted, work
from sr3eval.metrics import BLOCKS, Batch, Estimate, Metric, block_of

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
        self.folder, self.cache = RunFolder(out), Cache(cache)
        self.task = tasks.get(config.task)
        self.metrics = load_metrics(config)
        paths = find_images(resolve_path(config.data.images))
        kept, self.too_small = large_enough(paths, self.task.smallest)
        if not kept:
            raise UserError(f"{config.data.images}: all {len(paths)} images are below {self.task.smallest} pixels")
        select = choose if config.data.select == "hash" else first
        self.ids = select(list(kept), config.data.limit)
        self.sha256 = digest_of({image_id: kept[image_id] for image_id in self.ids})
        self.labels = read_labels(config.data.labels, self.ids) if config.data.labels else None
        for metric in self.metrics:
            metric.check(len(self.ids), self.labels is not None)
        self._probe()
        self.blocks = self._blocks()
        self.data = Folder(kept, self.task)
        self.contenders = {method.name: methods.build(method, self.task, kinds) for method in config.method}
        for contender in self.contenders.values():
            if isinstance(contender, Precomputed):
                contender.check(self.ids, paths, self.task.hr_size)
        claim_folder(out, self.folder.config.name, tomli_w.dumps(config.plain()))
        self._refuse_other_images()

    def images(self) -> Generator[Progress, None, None]:
        """Write the HR and LR images and every method's outputs, as far as they are not there yet."""
        if not self.folder.inputs.exists():
            for folder in (HR, LR):  # of a run that was stopped before; its images may have been others
                shutil.rmtree(self.folder.images / folder, ignore_errors=True)
            for count, image_id in enumerate(self.ids, start=1):
                hr = self.data.hr(image_id)
                save(self.folder.image(HR, image_id), hr)
                save(self.folder.image(LR, image_id), self.task.degrade(hr))
                yield Progress("prepare", count, len(self.ids))
            atomic_write(self.folder.inputs, self.sha256.encode())
        for method in self.config.method:
            contender = self.contenders[method.name]
            progress: Iterator[float]
            if isinstance(contender, Precomputed):
                progress = self._copy(contender.read, method.slug)
            elif isinstance(contender, Reference):
                progress = self._copy(lambda image_id: load(self.folder.image(HR, image_id)), method.slug)
            else:
                progress = self._make(contender, method.name, method.slug)
            for done in progress:
                yield Progress(method.name, done, len(self.ids))

    def _probe(self) -> None:
        """Score one grey image, so that a metric that cannot score this task's sizes says so before any work."""
        lr, hr = (torch.full((1, 3, side, side), 0.5) for side in (self.task.lr_size, self.task.hr_size))
        for name, options in self.config.metrics:
            metrics.load(name, **options).update(Batch(["probe"], lr, hr, hr, [0] if self.labels else None))

    def _refuse_other_images(self) -> None:
        if self.folder.inputs.exists() and self.folder.inputs.read_text() != self.sha256:
            raise UserError(f"{self.folder.path}: the images have changed since this run began; give another folder")

    def _copy(self, read: Callable[[str], Tensor], slug: str) -> Iterator[float]:
        for done, image_id in enumerate(self.ids, start=1):
            self._write(slug, image_id, read(image_id), {})
            yield done

    def _make(self, method: Method, name: str, slug: str) -> Iterator[float]:
        """Take outputs from the cache, then make the missing ones batch by batch; yields how many are there."""
        keys = {}
        missing, done = [], 0
        for image_id in self.ids:
            keys[image_id] = self._key(method, image_id)
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
            yield from counted(self._upscale(method, name, slug, {i: keys[i] for i in part}, size), done, len(part))
            done += len(part)
            yield done

    def _upscale(
        self, method: Method, name: str, slug: str, keys: dict[str, str], size: int
    ) -> Generator[float, None, None]:
        """Make the images of one batch, by id with their keys in the cache; yields the share that is done."""
        ids = list(keys)
        # Every batch has the full size, so that an image's bytes do not depend on how many are left to be made.
        padded = ids + ids[-1:] * (size - len(ids))
        lr = torch.stack([load(self.folder.image(LR, image_id)) for image_id in padded])
        outputs, notes = yield from work(method, lr, [stable_hash(self.config.seed, image_id) for image_id in padded])
        side = self.task.hr_size
        check_outputs(outputs, (len(padded), 3, side, side), f'method "{name}", batch of {ids[0]}')
        for image_id, output, note in zip(ids, outputs, notes, strict=False):
            self.cache.put(keys[image_id], output, note)
            self._write(slug, image_id, output, note)

    def _key(self, method: Method, image_id: str) -> str:
        pixels = to_uint8(load(self.folder.image(HR, image_id)))
        content = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        return Cache.key(method.fingerprint, self.task.fingerprint, content, stable_hash(self.config.seed, image_id))

    def _write(self, slug: str, image_id: str, image: Tensor, note: dict[str, Any]) -> None:
        path, png = self.folder.image(slug, image_id), encode_png(image)
        if not path.exists() or path.read_bytes() != png:
            atomic_write(path, png)
        if note:
            atomic_write(self.folder.note(slug, image_id), json.dumps(note, sort_keys=True).encode())

    def scores(self) -> Generator[Progress, None, None]:
        """Read the written images back and score them; then write per_image.csv, set_scores.csv, environment.json."""
        per_image: list[tuple[object, ...]] = []
        sets: list[tuple[object, ...]] = []
        for method in self.config.method:
            scored = [metric.fresh() for metric in self.metrics]
            done = 0
            parts = list(chunks(self.ids, self.config.batch_size))
            for batch in ahead(functools.partial(self._batch, method.slug), parts):
                with threads(1):
                    for metric in scored:
                        metric.update(batch)
                done += len(batch.ids)
                yield Progress(f"score {method.name}", done, len(self.ids))
            for metric in scored:
                result = metric.compute()
                key = (self.task.name, method.name)
                for image_id, value in result.per_image.items():
                    per_image.append((*key, image_id, metric.name, value, self._group(image_id)))
                if not result.per_image:
                    everything = {"": Estimate(result.value, result.n)}
                    for left_out, estimate in (everything | result.without).items():
                        sets.append((*key, metric.name, left_out, estimate.value, estimate.n))
        self._write_csv(self.folder.per_image, per_image, PER_IMAGE_COLUMNS)
        self._write_csv(self.folder.set_scores, sets, SET_COLUMNS)
        atomic_write(self.folder.environment, json.dumps(self._environment(), indent=2, sort_keys=True).encode())

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
            raise UserError(f'metrics: "{name}" is there twice')
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
