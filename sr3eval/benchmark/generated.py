"""Images made from noise: a run whose methods each have a folder of their own, and neither HR nor LR.

They are scored where they lie. No image of one method belongs to one of another: ids and jackknife blocks begin with
the method's folder, so that nothing is paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sr3eval.benchmark.cache import Cache, identity
from sr3eval.benchmark.config import MethodConfig, RunConfig
from sr3eval.benchmark.labels import read_labels
from sr3eval.benchmark.layout import GENERATED, RunFolder
from sr3eval.benchmark.plan import LeftOut, Plan, RunImage, build, claim, everywhere, load_metrics, resolved
from sr3eval.benchmark.progress import Tell
from sr3eval.benchmark.resume import Known
from sr3eval.benchmark.score import Scorer, write_scores
from sr3eval.data import choose
from sr3eval.distributed import job
from sr3eval.errors import UserError
from sr3eval.images import area_down, save
from sr3eval.method import Method, fingerprint
from sr3eval.methods.precomputed import Precomputed
from sr3eval.metrics import BLOCKS, Batch, Metric, block_of
from sr3eval.pairs import Pair
from sr3eval.tasks import Task

COLUMNS, CELL = 8, 128  # of a sheet: pictures in a row and in a column, and pixels of one's side


@dataclass(frozen=True)
class GeneratedPlan(Plan):
    """own: the images of every method; `images` has all of them."""

    own: Mapping[str, Sequence[RunImage]] = field(default_factory=dict)

    @property
    def inputs(self) -> str:
        """There are none."""
        return GENERATED


def plan(config: RunConfig, out: Path, cache: Path) -> GeneratedPlan:
    """`plan.plan` of a run with [generated]."""
    return everywhere(lambda: _plan(config, out, cache), _built)


def _built(plan: GeneratedPlan) -> dict[str, Method]:
    assert plan.config.generated is not None
    built = {method.name: _folder(method, plan.task) for method in plan.config.method}
    for method in built.values():
        method.take(plan.config.generated.limit)
    return dict(built)


def _plan(config: RunConfig, out: Path, cache: Path) -> GeneratedPlan:
    config, folder = resolved(config), RunFolder(out)
    assert config.generated is not None
    built = {method.name: _folder(method, config.task) for method in config.method}
    own = {method.name: _images(method, built[method.name], config) for method in config.method}
    for metric in load_metrics(config):
        for name, part in own.items():
            _check_scorable(metric, name, part)
    identities = {name: identity(method) for name, method in built.items()}
    remarks = claim(config, folder, fingerprint(*identities.values()), built, identities)
    images = tuple(image for part in own.values() for image in part)
    # One sum, whatever the images: runs of other methods are rows of one table.
    return GeneratedPlan(
        config, folder, Cache(cache), images, LeftOut(), {"": GENERATED}, built, identities, tuple(remarks), own=own
    )


def _folder(config: MethodConfig, task: Task) -> Precomputed:
    method = build(config, task)
    assert isinstance(method, Precomputed)  # `RunConfig` has seen to it
    return method


def _images(config: MethodConfig, method: Precomputed, run: RunConfig) -> list[RunImage]:
    """The images of a method. Raises UserError for one of another size than the task's."""
    assert run.generated is not None
    sizes = method.take(run.generated.limit)
    side = run.task.side
    other = next((i for i, size in sizes.items() if side is not None and size != (side, side)), None)
    if other is not None:
        height, width = sizes[other]
        raise UserError(f"{method.folder}: {other} is {width}x{height}; {run.task.name} has {side}x{side}")
    labels = read_labels(method.labels, list(sizes)) if method.labels else {}
    names = {own: f"{config.slug}/{own}" for own in sizes}
    few = len(names) <= BLOCKS
    return [
        RunImage(
            name,
            "",
            Pair(None, None),
            sizes[own],
            name,
            name if few else f"{config.slug}/{block_of(own)}",
            labels.get(own),
        )
        for own, name in names.items()
    ]


def _check_scorable(metric: Metric, name: str, images: Sequence[RunImage]) -> None:
    """Raise UserError for a metric that needs what there is not, or cannot score images of these sizes and number."""
    labelled = all(image.label is not None for image in images)
    if metric.convention.needs_labels and not labelled:
        raise UserError(f'{metric.name}: method "{name}" needs labels = "FILE.csv", the classes of its images')
    metric.convention.check(hr=False, lr=False, labels=labelled, samples=False)
    sizes = {image.size for image in images}
    metric.check(len(images), labelled, hr=False, sizes=sizes)
    for size in {min(sizes, key=min), max(sizes)}:
        metric.fresh().update(Batch(["probe"], torch.full((1, 3, *size), 0.5), labels=[0] if labelled else None))


def score(plan: GeneratedPlan, tell: Tell) -> None:
    """Score what was not scored before (see `score.write_scores`), and write a sheet of pictures of each method."""
    scorers = [_Scorer(plan, method, tell) for method in plan.config.method]
    write_scores(plan, ((scorer, scorer.config.rows) for scorer in scorers))
    job().lead(lambda: _write_sheets(plan.folder, scorers))


def _write_sheets(folder: RunFolder, scorers: Sequence["_Scorer"]) -> None:
    for scorer in scorers:
        save(folder.sheet(scorer.config.slug), scorer.sheet())


class _Scorer(Scorer):
    """Scores of one method's images."""

    inputs = ""

    def __init__(self, plan: GeneratedPlan, config: MethodConfig, tell: Tell) -> None:
        super().__init__(plan, "", plan.own[config.name], tell)
        self.config, self.method = config, plan.methods[config.name]

    def _sum(self, folder: str) -> str:
        """Of the files, as far as `Precomputed.take` looked at them."""
        return self.method.fingerprint

    def pixels(self, known: Known) -> str:
        """There are no inputs that methods share."""
        return GENERATED

    def batch(self, slug: str, samples: int, images: Sequence[RunImage]) -> Batch:
        """Pictures from the method's own folder."""
        ids = [image.image_id for image in images]
        labels = [image.label for image in images if image.label is not None]
        blocks = [image.block for image in images]
        return Batch(ids, torch.stack([self._picture(i) for i in ids]), labels=labels or None, blocks=blocks)

    def _picture(self, image_id: str) -> Tensor:
        picture = self.method.lookup(image_id.removeprefix(f"{self.config.slug}/"), Path())
        assert picture is not None
        return picture

    def sheet(self) -> Tensor:
        """Some of the images, chosen by the hashes of their ids, on one sheet."""
        chosen = choose([image.image_id for image in self.images], COLUMNS**2)
        return _rows([self._picture(image_id) for image_id in chosen])


def _rows(images: Sequence[Tensor]) -> Tensor:
    """Images [3, H, W] of any sizes on one sheet, [3, rows * CELL, COLUMNS * CELL]."""
    cells = torch.stack(list(map(_cell, images)))
    cells = torch.cat([cells, cells.new_ones(-len(cells) % COLUMNS, *cells.shape[1:])])
    return torch.cat([torch.cat(list(row), dim=-1) for row in cells.split(COLUMNS)], dim=-2)


def _cell(image: Tensor) -> Tensor:
    """An image [3, H, W], shrunk into a square or enlarged by a whole factor, on white: [3, CELL, CELL]."""
    side = max(image.shape[-2:])
    if side > CELL:
        height, width = (max(1, round(length * CELL / side)) for length in image.shape[-2:])
        image = area_down(image, (height, width))
    factor = CELL // max(image.shape[-2:])
    image = image.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    bottom, right = (CELL - length for length in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), value=1.0)
