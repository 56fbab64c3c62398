"""Pictures and scores of a finished run, computed again for some of its images from the run's folder alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sr3eval import metrics
from sr3eval.benchmark.cache import Cache
from sr3eval.benchmark.config import MethodConfig, Row, RunConfig
from sr3eval.benchmark.layout import DRAW_COLUMNS, HR, LR, RunFolder, of_mean
from sr3eval.benchmark.make import make
from sr3eval.benchmark.plan import LeftOut, Plan, RunImage, build
from sr3eval.benchmark.progress import Tell
from sr3eval.benchmark.score import Scorer, applies
from sr3eval.errors import UserError
from sr3eval.files import link_or_write
from sr3eval.images import header_size
from sr3eval.metrics import BLOCKS, PerImage, block_of
from sr3eval.pairs import Pair


def images_of(run: RunFolder, config: RunConfig, per_image: pd.DataFrame) -> list[RunImage]:
    """The images of a run, as its pictures and scores have them; without classes."""
    known = dict(zip(per_image["image_id"], per_image["group"], strict=True))
    names = [data.name or "" for data in config.data]
    images = []
    for image_id in run.ids(LR):
        dataset = image_id.partition("/")[0] if len(names) > 1 or names[0] else ""
        height, width = header_size(run.image(LR, image_id))
        size = (height * config.task.scale, width * config.task.scale)
        group = known.get(image_id, image_id)
        images.append(RunImage(image_id, dataset, Pair(None, None), size, group, block_of(group)))
    few = {name for name in names if len({image.group for image in images if image.dataset == name}) <= BLOCKS}
    return [replace(image, block=image.group) if image.dataset in few else image for image in images]


def folders_of(method: MethodConfig) -> list[str]:
    """All folders of a method's pictures below images/."""
    means = [of_mean(slug) for slug in method.slugs] if method.samples > 1 else []
    return [*(folder for slug in method.slugs for folder in method.sample_folders(slug)), *means]


def make_again(
    run: RunFolder,
    config: RunConfig,
    method: MethodConfig,
    checksums: Mapping[str, str],
    images: Sequence[RunImage],
    chosen: Sequence[RunImage],
    to: Path,
    tell: Tell,
) -> RunFolder:
    """Make a method's outputs of the `chosen` of a run's `images` in the folder `to`.

    Raises UserError where the method cannot be had here, or is not the one of these checksums.
    """
    built = build(method, config.task)
    built.check([image.image_id for image in images], {image.image_id: image.size for image in images})
    if dict(built.facts.checksums) != dict(checksums):
        raise UserError("its files are others here")
    if not built.deterministic:
        raise UserError("it draws anew every time (deterministic = false)")
    folder = RunFolder(to)
    for given in (HR, LR) if config.has_hr else (LR,):
        for image in chosen:
            source = run.image(given, image.image_id)
            link_or_write(folder.image(given, image.image_id), source.read_bytes(), source)
    folder.inputs.touch()
    plan = _plan(replace(config, method=(method,)), folder, chosen, to)
    make(replace(plan, methods={method.name: built}, identities={method.name: ""}), tell, among=images)
    return folder


def _plan(config: RunConfig, folder: RunFolder, images: Sequence[RunImage], cache: Path) -> Plan:
    return Plan(config, folder, Cache(cache / ".cache"), tuple(images), LeftOut(), {}, {}, {}, ())


@dataclass(frozen=True)
class Difference:
    """How a picture differs from one made again. share: of the values that differ; most: in levels of 255."""

    picture: str
    share: float
    most: int

    def __str__(self) -> str:
        if self.most < 0:
            return f"{self.picture}: has another size"
        return f"{self.picture}: {self.share:.2g} of its values differ, by up to {self.most} of 255 levels"


def differences(run: RunFolder, again: RunFolder, folder: str, images: Iterable[RunImage]) -> Iterator[Difference]:
    """Of the pictures in one folder of a run from those made again; none for equal ones."""
    for image in images:
        ours, theirs = (_pixels(each.image(folder, image.image_id)) for each in (again, run))
        name = f"images/{folder}/{image.image_id}.png"
        if ours.shape != theirs.shape:
            yield Difference(name, 1, -1)
        elif (differing := ours != theirs).any():
            yield Difference(name, float(differing.mean()), int(np.abs(ours - theirs).max()))


def _pixels(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]]":
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).astype(np.int16)
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


@dataclass(frozen=True)
class Score:
    """A score of an image, or of a whole set (image_id empty). draw: seed and sample of one of several outputs."""

    dataset: str
    method: str
    metric: str
    image_id: str
    value: float
    draw: tuple[int, int] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """All but the value."""
        return self.dataset, self.method, self.metric, self.image_id, self.draw

    def __str__(self) -> str:
        where = self.image_id or self.dataset
        drawn = ", seed {}, sample {}".format(*self.draw) if self.draw else ""
        return f"{self.metric} of {self.method}" + (f", {where}" if where else "") + drawn


def scores_again(
    run: RunFolder,
    config: RunConfig,
    images: Sequence[RunImage],
    whole: bool,
    scratch: Path,
    tell: Tell,
) -> Iterator[Score]:
    """Score the pictures of some images of a run again, by the metrics of `config`.

    whole: these are all images of the run, so that metrics of sets have their value, too. scratch: a folder to use.
    """
    for dataset in dict.fromkeys(image.dataset for image in images):
        of_set = [image for image in images if image.dataset == dataset]
        scorer = Scorer(_plan(config, run, of_set, scratch), dataset, of_set, tell)
        for row in config.rows:
            yield from _of_row(scorer, row, whole)


def _of_row(scorer: Scorer, row: Row, whole: bool) -> Iterator[Score]:
    due = [m for m in scorer.metrics if applies(m, row) and (whole or isinstance(m, PerImage))]
    results = scorer.results(row, [metric.name for metric in due])
    for metric in due:
        result = metrics.mean_over_seeds(metric.convention, results[metric.name])
        values = result.per_image or {"": result.value}
        yield from (Score(scorer.dataset, row.name, metric.name, i, value) for i, value in values.items())
        for drawn in scorer.draws(row, metric, results[metric.name]):
            named: dict[str, Any] = dict(zip(DRAW_COLUMNS, drawn, strict=True))
            draw = (named["seed"], named["sample"])
            yield Score(
                draw=draw, **{name: named[name] for name in ("dataset", "method", "metric", "image_id", "value")}
            )
