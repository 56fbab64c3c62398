"""The scores of a run: its pictures read back from disk, and everything that tables are made of."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from sr3eval import metrics
from sr3eval.benchmark import environment
from sr3eval.benchmark.config import MethodConfig, Row
from sr3eval.benchmark.layout import DRAW_COLUMNS, HR, LR, PER_IMAGE_COLUMNS, SEED_COLUMNS, SET_COLUMNS, of_sample
from sr3eval.benchmark.plan import Plan, RunImage
from sr3eval.benchmark.processes import rounds
from sr3eval.benchmark.progress import Count, Tell
from sr3eval.benchmark.resume import Known, Rows, Tables
from sr3eval.data import chunks, grouped
from sr3eval.device import default_device, threads
from sr3eval.distributed import job
from sr3eval.errors import UserError
from sr3eval.files import atomic_write, digest_of
from sr3eval.images import load
from sr3eval.method import fingerprint
from sr3eval.metrics import Batch, Estimate, Metric, PerImage, Result, best_of_samples, counting, shard_of
from sr3eval.sources import code_behind, digest, named_in

PARQUET_ONCE = ("task", "method", "metric", "dataset")
READ_AT_ONCE = 16  # images whose pixels a thread adds up
MOST_PIXELS = 2**24  # of HR in a batch: 200 MB of float32, and as much of the outputs


def score(plan: Plan, tell: Tell) -> None:
    """Read the written images back and score them, as far as that was not done before; see `write_scores`."""
    scorers = (Scorer(plan, dataset, images, tell) for dataset, images in plan.datasets().items())
    write_scores(plan, ((scorer, plan.config.rows) for scorer in scorers))


def write_scores(plan: Plan, work: Iterable[tuple["Scorer", Sequence[Row]]]) -> None:
    """Score, then write per_image.csv, set_scores.csv, environment.json; seed_scores.csv where methods have seeds, and
    draw_scores.csv where they have these or samples.

    work: what scores, and which rows of the table.
    """
    known = Known(plan.folder)
    tables: Tables = ([], [], [], [])
    keys: dict[str, dict[str, dict[str, str]]] = {}
    data: dict[str, Any] = {"pixels": {}, "pictures": {}}
    for scorer, rows in work:
        of_set = keys.setdefault(scorer.dataset, {})
        data["pixels"][scorer.dataset] = scorer.pixels(known)
        for row in rows:
            of_set[row.name], due = job().lead(functools.partial(scorer.due, row, known))
            results = scorer.results(row, due)
            if job().leads:
                for table, part in zip(tables, scorer.rows(row, of_set[row.name], results, known), strict=True):
                    table += part
        data["pictures"].setdefault(scorer.dataset, {}).update(scorer.sums)
    job().lead(lambda: _write(plan, tables, keys, data))


def _write(plan: Plan, tables: Tables, keys: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    folder = plan.folder
    _write_csv(folder.per_image, tables[0], PER_IMAGE_COLUMNS)
    _write_parquet(folder.per_image_parquet, tables[0], PER_IMAGE_COLUMNS)
    _write_csv(folder.set_scores, tables[1], SET_COLUMNS)
    if tables[2]:
        _write_csv(folder.seed_scores, tables[2], SEED_COLUMNS)
    if tables[3]:
        _write_csv(folder.draw_scores, tables[3], DRAW_COLUMNS)
    atomic_write(folder.environment, _json({**_environment(plan), **data}))
    atomic_write(folder.scored, _json(keys))


def _write_csv(path: Path, rows: Rows, columns: Sequence[str]) -> None:
    table = pd.DataFrame(rows, columns=list(columns))
    atomic_write(path, table.to_csv(index=False, lineterminator="\n").encode())


def _write_parquet(path: Path, rows: Rows, columns: Sequence[str]) -> None:
    """As `_write_csv`. What repeats, all texts but the images' ids, is stored once."""
    import pyarrow  # noqa: F401 - pandas' own message for its absence is three lines

    table = pd.DataFrame(rows, columns=list(columns)).astype(dict.fromkeys(PARQUET_ONCE, "category"))
    atomic_write(path, table.to_parquet(index=False))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()


class Scorer:
    """Scores of one data set of a run."""

    def __init__(self, plan: Plan, dataset: str, images: Sequence[RunImage], tell: Tell) -> None:
        self.plan, self.dataset, self.images, self.tell = plan, dataset, images, tell
        self.groups = {image.image_id: image.group for image in images}
        loaded = plan.metrics()  # empty ones, which share what they know of HR
        self.metrics = loaded if job().leads else list(map(counting, loaded))
        self.sums: dict[str, str] = {}  # sha256 of the pictures by folder, as far as scores have asked for them

    def keys(self, row: Row) -> dict[str, str]:
        """By metric, a hash of all that its scores of a row depend on: pictures, settings, files, code, device."""
        of_images = [(image.image_id, image.group, image.block, image.label) for image in self.images]
        compared = {_compares_samples(metric, row) for metric in self.metrics}
        pictures = {several: self.digest(_folders(row, several)) for several in compared}
        keys = {}
        for metric, (name, options) in zip(self.metrics, self.plan.config.metrics, strict=True):
            if applies(metric, row):
                code = code_behind(metrics.builder(name))
                files = [digest(path) for path in named_in(options).values()]
                made_by = (metric.convention, code.digest if code else "", *files, default_device().type)
                made_by += ("draws",) * row.gives_draws  # which older releases did not keep
                seen = pictures[_compares_samples(metric, row)]
                keys[metric.name] = fingerprint(*made_by, self.inputs, seen, of_images)
        return keys

    def digest(self, folders: Sequence[str]) -> str:
        """A hash of the pictures in folders."""
        for folder in folders:
            if folder not in self.sums:
                self.sums[folder] = self._sum(folder)
        return fingerprint(*(self.sums[folder] for folder in folders))

    def _sum(self, folder: str) -> str:
        return digest_of({image.image_id: self.plan.folder.image(folder, image.image_id) for image in self.images})

    @property
    def inputs(self) -> str:
        """A hash of the HR and LR pictures."""
        return self.digest(self._given)

    @property
    def _given(self) -> tuple[str, ...]:
        return (HR, LR) if self.plan.has_hr else (LR,)

    def pixels(self, known: Known) -> str:
        """sha256 of the HR and LR pictures as pixels, under the ids within the set: who has the same images has it too.

        That of the same files is not computed again.
        """
        before = job().lead(lambda: self.inputs and known.pixels(self.dataset, self.sums))
        if before:
            return before
        own = {image.image_id.removeprefix(f"{self.dataset}/"): image.image_id for image in self.images}
        return pixels_of({i: [self.plan.folder.image(folder, own[i]) for folder in self._given] for i in own})

    def due(self, row: Row, known: Known) -> tuple[dict[str, str], list[str]]:
        """`keys`, and the metrics whose scores of a row are not known yet."""
        keys = self.keys(row)
        return keys, [name for name, key in keys.items() if not known.holds(self.dataset, row.name, name, key)]

    def rows(self, row: Row, scored: Iterable[str], new: Mapping[str, Sequence[Result]], known: Known) -> Tables:
        """Those of a row for per_image.csv, set_scores.csv, seed_scores.csv and draw_scores.csv, metric by metric."""
        tables: Tables = ([], [], [], [])
        by_name = {metric.name: metric for metric in self.metrics}
        for name in scored:
            rows = self._rows(row, by_name[name], new[name]) if name in new else known.rows(self.dataset, row, name)
            for table, part in zip(tables, rows, strict=True):
                table += part
        return tables

    def results(self, row: Row, due: Sequence[str]) -> dict[str, list[Result]]:
        """By metric, one result a seed."""
        wanted = [metric for metric in self.metrics if metric.name in due]
        if not wanted:
            return {}
        results: dict[str, list[Result]] = {metric.name: [] for metric in wanted}
        samples = row.method.samples if any(_compares_samples(metric, row) for metric in wanted) else 1
        for slug in row.slugs:
            scored = [_of_row(metric.fresh(), row) for metric in wanted]
            stage = " ".join(filter(None, ["score", self.dataset, slug if row.method.seeds else row.name]))
            self._score(scored, slug, samples, Count(stage, len(self.images), self.tell))
            for metric, result in zip(scored, job().lead(lambda: [m.compute() for m in scored]), strict=True):  # noqa: B023
                results[metric.name].append(result)
        return results

    def _score(self, scored: Sequence[Metric], slug: str, samples: int, count: Count) -> None:
        """Add all images to metrics: batch by batch in their order, whichever process has looked at them."""
        load_batch, parts = functools.partial(self.batch, slug, samples), self._parts(samples)
        states = rounds(parts, load_batch, functools.partial(_states, scored))
        for part, of_part in zip(parts, states, strict=True):
            for metric, state in zip(scored, of_part, strict=True):
                shard = shard_of(metric)
                shard.state = state
                metric.merge(shard)
            count.advance(len(part))

    def _parts(self, samples: int) -> list[Sequence[RunImage]]:
        """The images in batches of one size, which memory holds whatever the size and the number of samples."""
        return [
            part
            for (height, width), images in grouped(self.images, lambda image: image.size).items()
            for part in chunks(
                images, max(1, min(self.plan.config.batch_size, MOST_PIXELS // (samples * height * width)))
            )
        ]

    def batch(self, slug: str, samples: int, images: Sequence[RunImage]) -> Batch:
        """The pictures of a row, by its slug, as metrics take them."""

        def stacked(folder: str) -> torch.Tensor:
            return torch.stack([load(self.plan.folder.image(folder, image.image_id)) for image in images])

        outputs = [stacked(of_sample(slug, number)) for number in range(1, samples + 1)]
        labels = [image.label for image in images if image.label is not None]
        return Batch(
            [image.image_id for image in images],
            outputs[0],
            stacked(HR) if self.plan.has_hr else None,
            stacked(LR),
            labels or None,
            [image.block for image in images],
            torch.stack(outputs) if samples > 1 else None,
        )

    def _rows(self, row: Row, metric: Metric, results: Sequence[Result]) -> Tables:
        """Of one metric's results, one a seed."""
        key, end = (self.plan.task.name, row.name), (self.dataset,)
        result = metrics.mean_over_seeds(metric.convention, results)
        per_image: Rows = [(*key, i, metric.name, v, self.groups[i], *end) for i, v in result.per_image.items()]
        everything = {"": Estimate(result.value, result.n)} | result.without
        sets: Rows = [(*key, metric.name, block, e.value, e.n, *end) for block, e in everything.items()]
        seeds: Rows = [(*key, metric.name, s, r.value, *end) for s, r in zip(row.method.seeds, results, strict=False)]
        return per_image, [] if per_image else sets, seeds, self.draws(row, metric, results)

    def draws(self, row: Row, metric: Metric, results: Sequence[Result]) -> Rows:
        """Scores of every output of the method, where there are several of each image."""
        if not row.gives_draws:
            return []
        return [
            (self.plan.task.name, row.method.name, i, metric.name, seed, sample, value, self.groups[i], self.dataset)
            for seed, result in zip(row.method.seeds or (self.plan.config.seed,), results, strict=True)
            for i in result.per_image
            for sample, value in enumerate(result.samples.get(i, [result.per_image[i]]), start=1)
        ]


def pixels_of(pictures: Mapping[str, Sequence[Path]]) -> str:
    """sha256 over the ids, in order, and the sha256 of the RGB bytes of each one's pictures, row by row.

    Neither the files' format nor this release is in it. The processes of a job share the reading.
    """

    def lines(ids: Sequence[str]) -> str:
        return "".join("\x1f".join([i, *map(_rgb_digest, pictures[i])]) + "\x1e" for i in ids)

    digest = hashlib.sha256()
    for part in rounds(list(chunks(sorted(pictures), READ_AT_ONCE)), lines, str.encode):
        digest.update(part)
    return digest.hexdigest()


def _rgb_digest(path: Path) -> str:
    """Of a picture that this toolkit has written, 8-bit RGB: in less than half of the time that `load` takes."""
    try:
        with Image.open(path) as image:
            return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


def _states(scored: Sequence[Metric], batch: Batch) -> list[Any]:
    """What metrics see in a batch."""
    shards = [shard_of(metric) for metric in scored]
    with threads(1):
        for shard in shards:
            shard.update(batch)
    return [shard.state for shard in shards]


def applies(metric: Metric, row: Row) -> bool:
    """Whether a metric scores a row: samples are compared once, and the best is chosen by scores of images."""
    if row.of == "best":
        return isinstance(metric, PerImage) and not metric.convention.needs_samples
    return not metric.convention.needs_samples or (row.of == "first" and row.method.samples > 1)


def _compares_samples(metric: Metric, row: Row) -> bool:
    """Whether the scores are of all samples, not of one set of pictures."""
    return row.of == "best" or (row.of == "first" and metric.convention.needs_samples)


def _of_row(metric: Metric, row: Row) -> Metric:
    return best_of_samples(metric) if row.of == "best" and isinstance(metric, PerImage) else metric


def _folders(row: Row, samples: bool) -> tuple[str, ...]:
    """Of the pictures that scores depend on."""
    return tuple(folder for slug in row.slugs for folder in (row.method.sample_folders(slug) if samples else [slug]))


def _environment(plan: Plan) -> dict[str, object]:
    """What the run was made of and with."""
    facts = {name: method.facts for name, method in plan.methods.items()}
    return environment.describe() | {
        "images": len(plan.images),
        "images_sha256": plan.sha256,
        "datasets": dict(plan.sums),
        "inputs": plan.inputs,
        "left_out_too_small": plan.left_out.too_small,
        "left_out_unreadable": len(plan.left_out.unreadable),
        "unreadable": dict(plan.left_out.unreadable),
        "warnings": {name: of.warning for name, of in facts.items() if of.warning},
        "sha256": {name: dict(of.checksums) for name, of in facts.items() if of.checksums},
        "methods": {method.name: known for method in plan.config.method if (known := _known(plan, method))},
    }


def _known(plan: Plan, config: MethodConfig) -> dict[str, str]:
    """What is known of a method, and what made the inputs that it was trained on beside those it was given."""
    facts = plan.methods[config.name].facts
    texts = {"architecture": facts.architecture, "lr_kernel": facts.lr_kernel, "licence": facts.licence}
    texts |= {"settings": facts.settings}
    known = {name: text for name, text in texts.items() if text}
    if facts.lr_kernel:
        before = config.path[: config.path.index("method")] if config.path else ()
        known["lr_kernel_given"] = ", then ".join([plan.task.inputs, *before])
    return known
