"""Why is my number different? The conventions by which a run's pictures have the PSNR and SSIM that a paper prints."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from torch import Tensor

from sr3eval.benchmark import conventions
from sr3eval.benchmark.config import MethodConfig, RunConfig
from sr3eval.benchmark.conventions import CHANNELS, POOLINGS, WINDOWS, Pair, Region, pooled_psnr
from sr3eval.benchmark.layout import HR, RunFolder
from sr3eval.benchmark.progress import Count, Tell, silent
from sr3eval.benchmark.scores import read_config
from sr3eval.errors import UserError, nearest
from sr3eval.images import load, round_to_8bit
from sr3eval.methods.bicubic import Bicubic
from sr3eval.tasks import KERNELS, Task

METRICS = ("psnr", "ssim")
SLACK = 0.6  # of the last printed digit: half of it is rounding, the rest is of floats
NEAR = 3  # conventions by PSNR of which SSIM is computed, at least
SHOWN = 5


@dataclass(frozen=True)
class Claim:
    """A printed value. digit: the worth of its last one."""

    value: float
    digit: float

    @classmethod
    def parse(cls, text: str) -> dict[str, "Claim"]:
        """Read "psnr=25.15,ssim=0.7341", digits as printed. Raises UserError for anything else."""
        found = {}
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+\.\d+)\s*", part)
            if not match or match[1].lower() not in METRICS:
                raise UserError(f'--published {text}: write it as "psnr=25.15,ssim=0.7341", with the digits as printed')
            exponent = Decimal(match[2]).as_tuple().exponent
            found[match[1].lower()] = cls(float(match[2]), 10.0 ** int(exponent))
        return found

    def miss(self, value: float) -> float:
        """How far a value is off, in units of the last digit; 0 where it would be printed so."""
        return max(0.0, abs(value - self.value) / self.digit - SLACK)


@dataclass(frozen=True)
class Explanation:
    """A convention, and what it gives. rank: how common it is, from 0."""

    region: Region
    pooling: str
    window: str
    values: Mapping[str, float]
    miss: float
    rank: int

    @property
    def fits(self) -> bool:
        """Whether the printed values are what it gives."""
        return self.miss == 0

    def __str__(self) -> str:
        parts = [f"{self.values['psnr']:.3f} dB, PSNR {self.pooling}"] if "psnr" in self.values else []
        parts += [f"{self.values['ssim']:.5f}, SSIM {self.window}"] if "ssim" in self.values else []
        return f"{self.region}: {'; '.join(parts)}"


def explain(
    run: Path, published: str, method: str | None = None, dataset: str | None = None, tell: Tell = silent
) -> list[Explanation]:
    """Conventions under which the pictures of a finished run have the published values, the likeliest first.

    Channels, borders, crops, pooling and windows are those of `conventions`; of a bicubic method, whose outputs can be
    made anew, also the kernels of the inputs. PSNR and SSIM share channels, border and crop.

    Args:
        run: the folder of a run with HR images.
        published: "psnr=25.15,ssim=0.7341", digits as printed; one of them will do, but many conventions then fit.
        method: whose pictures; of a run with one that is not the reference, that one.
        dataset: of a run with several sets, which one.
        tell: is told (stage, done, total) after every image.

    Raises:
        UserError: another form of `published`, an unknown method or set, a run without HR or pictures.
    """
    claims, config = Claim.parse(published), read_config(run)
    if not config.has_hr:
        raise UserError(f"{run}: has no HR images to compare with")
    chosen = _method(config, method)
    outputs = Outputs(RunFolder(run), config.task, chosen, _ids(run, dataset))
    found: list[Explanation] = []
    for kernels in outputs.kernels:
        regions = list(conventions.regions(kernels, config.task.scale))
        found = _told_apart(sorted(found + _explanations(outputs, claims, regions, tell), key=_likeliest_first))
        if found[0].fits:
            break
    return found


def _likeliest_first(one: Explanation) -> tuple[float, int]:
    return one.miss, one.rank


def _explanations(
    outputs: "Outputs", claims: Mapping[str, Claim], regions: Sequence[Region], tell: Tell
) -> list[Explanation]:
    """Of all regions and poolings, or of those alone that PSNR leaves, where SSIM is claimed, too."""
    rows: list[tuple[Region, str, dict[str, float]]] = [(region, "", {}) for region in regions]
    if "psnr" in claims:
        count = Count("psnr", len(outputs.ids), tell)
        rows = [(*key, {"psnr": value}) for key, value in _psnr(outputs, regions, count).items()]
    if "ssim" in claims:
        rows = _possible(rows, claims)
        kept = list(dict.fromkeys(region for region, _, _ in rows))
        ssim = _ssim(outputs, kept, Count("ssim", len(outputs.ids), tell))
        every = [(r, p, w, values | {"ssim": ssim[r, w]}) for r, p, values in rows for w in WINDOWS]
    else:
        every = [(region, pooling, "", values) for region, pooling, values in rows]
    return [
        Explanation(region, pooling, window, values, sum(claims[name].miss(v) for name, v in values.items()), rank)
        for rank, (region, pooling, window, values) in enumerate(every)
    ]


def _possible(
    rows: Sequence[tuple[Region, str, dict[str, float]]], claims: Mapping[str, Claim]
) -> list[tuple[Region, str, dict[str, float]]]:
    """Those that have the printed PSNR, and a few that come near."""
    if "psnr" not in claims:
        return list(rows)
    misses = [claims["psnr"].miss(values["psnr"]) for _, _, values in rows]
    most = sorted(misses)[min(NEAR, len(misses)) - 1]
    return [row for row, miss in zip(rows, misses, strict=True) if miss <= most]


def summary(explanations: Sequence[Explanation]) -> str:
    """The first ones, or that none fits."""
    fitting = [one for one in explanations if one.fits]
    if not fitting:
        lines = [f"None of the conventions gives these values. The nearest of {len(explanations)}:"]
        return "\n".join([*lines, *(f"  {one}" for one in explanations[:SHOWN])])
    more = f"  … and {len(fitting) - SHOWN} more; other digits, or the other metric, would tell them apart"
    lines = [f"  {number}. {one}" for number, one in enumerate(fitting[:SHOWN], start=1)]
    head = "This convention gives these values:" if len(fitting) == 1 else "These conventions give these values:"
    return "\n".join([head, *lines, *([more] if len(fitting) > SHOWN else [])])


class Outputs:
    """A method's pictures beside HR, as they lie in a run's folder; of bicubic, also those of other inputs."""

    def __init__(self, folder: RunFolder, task: Task, method: MethodConfig, ids: Sequence[str]) -> None:
        self.folder, self.task, self.method, self.ids = folder, task, method, ids
        made = method.kind == "bicubic" and task.lr in KERNELS and task.lr != "files" and not task.degradation
        others = [name for name in KERNELS if made and name not in (task.lr, "files")]
        self.kernels = [[""], *([others] if others else [])]  # those of the run first, then all others

    def hr(self, image_id: str) -> Tensor:
        """[3, H, W] in [0, 1], float64."""
        return load(self.folder.image(HR, image_id)).double()

    def sr(self, image_id: str, kernel: str) -> Tensor:
        """The output, of inputs by another kernel than the run's, or of the run's ("")."""
        if not kernel:
            return load(self.folder.image(self.method.slug, image_id)).double()
        options = {name: value for name, value in self.method.options.items() if name == "kernel"}
        task = Task(self.task.name, self.task.scale, "whole", kernel)  # type: ignore[arg-type]
        lr = task.degrade(load(self.folder.image(HR, image_id))[None])
        return round_to_8bit(Bicubic(self.task.scale, **options).upscale(lr, [0]).images)[0].double()


def _psnr(outputs: Outputs, regions: Sequence[Region], count: Count) -> dict[tuple[Region, str], float]:
    errors: dict[Region, list[Tensor]] = {region: [] for region in regions}
    for image_id in outputs.ids:
        for region, pair in _pairs(outputs, image_id, regions):
            errors[region].append(pair.error(region))
        count.advance(1)
    return {(r, p): pooled_psnr(errors[r], p) for r in regions for p in _poolings(r)}


def _ssim(outputs: Outputs, regions: Sequence[Region], count: Count) -> dict[tuple[Region, str], float]:
    sums: dict[tuple[Region, str], float] = {}
    for image_id in outputs.ids:
        for region, pair in _pairs(outputs, image_id, regions):
            for window in WINDOWS:
                sums[region, window] = sums.get((region, window), 0.0) + pair.ssim(region, window) / len(outputs.ids)
        count.advance(1)
    return sums


def _pairs(outputs: Outputs, image_id: str, regions: Iterable[Region]) -> Iterable[tuple[Region, Pair]]:
    """The planes that each region needs."""
    hr, pictures, pairs = outputs.hr(image_id), {}, {}
    for region in regions:
        kernel, channel = key = region.kernel, region.channel
        if kernel not in pictures:
            pictures[kernel] = outputs.sr(image_id, kernel)
        if key not in pairs:
            pairs[key] = Pair(CHANNELS[channel](pictures[kernel]), CHANNELS[channel](hr))
        yield region, pairs[key]


def _poolings(region: Region) -> tuple[str, ...]:
    """Of a single channel the last one says nothing new."""
    return POOLINGS if region.channel == "RGB" else POOLINGS[:2]


def _told_apart(explanations: Sequence[Explanation]) -> list[Explanation]:
    """Without those that give the same values as a more common one, such as a crop that leaves all images whole."""
    seen: set[tuple[float, ...]] = set()
    kept = []
    for one in explanations:
        values = tuple(round(value, 5) for value in one.values.values())
        if values not in seen:
            seen.add(values)
            kept.append(one)
    return kept


def _method(config: RunConfig, name: str | None) -> MethodConfig:
    known = {method.name: method for method in config.method if method.kind != "reference"}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name is None:
        raise UserError(f"--method: name one of {', '.join(known)}")
    if name not in known:
        raise UserError(f'unknown method "{name}": {nearest(name, known)}')
    return known[name]


def _ids(run: Path, dataset: str | None) -> list[str]:
    """The images of a run, or of one of its sets."""
    names = [data.name for data in read_config(run).data]
    if dataset is None and len(names) > 1:
        raise UserError(f"--dataset: name one of {', '.join(filter(None, names))}")
    if dataset is not None and dataset not in names:
        raise UserError(f'unknown data set "{dataset}": {nearest(dataset, [name or "" for name in names])}')
    found = [i for i in RunFolder(run).ids(HR) if len(names) < 2 or i.startswith(f"{dataset}/")]
    if not found:
        raise UserError(f"{run}: has no pictures yet; finish it first")
    return found
