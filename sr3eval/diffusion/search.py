"""`sr3eval search-schedule`: the sampler with the best Fréchet distance for each budget of evaluations.

The paper searches the noise schedule of inference in the same way, by FID on held-out data (its §2.3 and Fig 12); its
search space is not published. Here every budget goes from coarse to fine: all samplers of the space on a few images,
the best of them on all, then the neighbours of the best. What the winner is worth is measured on other crops or images
and other noise.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sr3eval import config as configs
from sr3eval import metrics
from sr3eval.config import resolve_path
from sr3eval.data import Folder, choose, chunks, large_enough
from sr3eval.device import default_device, half_dtype
from sr3eval.diffusion import checkpoint as checkpoints
from sr3eval.diffusion import schedules, search_page
from sr3eval.diffusion.search_config import SearchConfig, fits, neighbours
from sr3eval.diffusion.search_trial import Trial
from sr3eval.diffusion.solvers import SamplerConfig
from sr3eval.diffusion.sr3 import sample
from sr3eval.diffusion.stream import TrainingImages
from sr3eval.errors import UserError, number
from sr3eval.files import atomic_write, claim_folder, listing_digest
from sr3eval.folders import find_images, stable_hash
from sr3eval.images import from_uint8, round_to_8bit
from sr3eval.method import Progress, shares
from sr3eval.metrics import BLOCKS, Batch, Result, block_of

CONFIG_FILE = "config.toml"
TRIALS_FILE = "trials.jsonl"
SCHEDULES_FILE = "schedules.json"
PAGE = "search.html"
NEARLY = 1.02  # times the best distance: what the recommended budget may have
Tell = Callable[[str, float, int], None]


@dataclass(frozen=True)
class Images:
    """Targets hr [N, 3, S, S] in [0, 1], their LR, and of each its id and jackknife block."""

    ids: Sequence[str]
    blocks: Sequence[str]
    hr: Tensor
    lr: Tensor

    def first(self, count: int) -> "Images":
        """The first so many of them."""
        return Images(self.ids[:count], self.blocks[:count], self.hr[:count], self.lr[:count])

    def __len__(self) -> int:
        return len(self.ids)


def search(config: SearchConfig, out: Path, tell: Tell) -> schedules.Schedules:
    """Run or resume the search of `config` in the folder `out`; its schedules are written beside the checkpoint.

    Args:
        config: what to search.
        out: gets config.toml, trials.jsonl (all that was tried), schedules.json and search.html with the curve of
            distance against steps.
        tell: is told (stage, evaluations done, evaluations in all).

    Raises:
        UserError: what cannot be searched, before any work; `out` holds something else.
    """
    searcher = Searcher(config)
    refuse_other(schedules.beside(resolve_path(config.checkpoint)), out / SCHEDULES_FILE)
    claim_folder(out, CONFIG_FILE, configs.to_toml(searcher.identity))
    with Trials(out / TRIALS_FILE, searcher, tell) as trials:
        winners = find_winners(searcher, trials)
        references = {name: trials.measured(sampler) for name, sampler in config.reference.items()}
        measured = [trials.measured(winners[steps]) for steps in sorted(winners)]
    found = searcher.schedules(measured)
    schedules.save(out / SCHEDULES_FILE, found)
    search_page.write(out / PAGE, found, measured, references)
    schedules.save(schedules.beside(resolve_path(config.checkpoint)), found)
    return found


def refuse_other(beside: Path, own: Path) -> None:
    """UserError where the schedules beside the checkpoint are not those that this search wrote."""
    if beside.exists() and not (own.exists() and own.read_bytes() == beside.read_bytes()):
        raise UserError(f"{beside}: already exists, from another search; move it, or search a copy of the checkpoint")


def find_winners(searcher: "Searcher", trials: "Trials") -> dict[int, SamplerConfig]:
    """The best sampler of each budget."""
    winners: dict[int, SamplerConfig] = {}
    kept: list[SamplerConfig] = []
    for steps in sorted(searcher.config.budgets):
        before = [replace(sampler, steps=steps) for sampler in list(winners.values())[-1:] if steps > 1]
        if searcher.config.in_full(steps):
            kept = best_of_space(searcher, trials, steps)
            winners[steps] = best_nearby(searcher, trials, [*kept, *before])
        else:
            candidates = [replace(sampler, steps=steps) for sampler in kept] + before
            winners[steps] = trials.best(candidates, searcher.config.data.coarse).sampler
    return winners


def best_of_space(searcher: "Searcher", trials: "Trials", steps: int) -> list[SamplerConfig]:
    """The `kept` best samplers of the space on the coarse images, the best first."""
    space = searcher.config.space.samplers(steps, searcher.final_gamma)
    coarse = sorted((trials.searched(sampler, searcher.config.data.coarse) for sampler in space), key=_distance)
    return [trial.sampler for trial in coarse[: searcher.config.kept]]


def best_nearby(searcher: "Searcher", trials: "Trials", candidates: Sequence[SamplerConfig]) -> SamplerConfig:
    """The best of the candidates on all images, or of what lies near it."""
    best = trials.best(candidates)
    for round_ in range(searcher.config.rounds):
        near = neighbours(best.sampler, 0.5**round_)
        best = trials.best([best.sampler, *near])
    return best.sampler


def _distance(trial: Trial) -> float:
    return trial.distance


class Searcher:
    """A checkpoint, its images and the distance: what gives a sampler its worth."""

    def __init__(self, config: SearchConfig) -> None:
        self.config = config
        self.weights = checkpoints.load(config.checkpoint, "sr3")
        self.task = self.weights.config.target
        self.final_gamma = float(self.weights.config.schedule.build().gammas[-1])
        for name, reference in config.reference.items():
            if not fits(reference, self.final_gamma):
                raise UserError(f"reference.{name}: its noise levels do not fit the checkpoint's; leave out jump")
        self.metric = self._metric()
        self.device = default_device()
        half_dtype(config.half, self.device)  # refuses before any work what the hardware has not
        for steps in config.budgets:
            if not config.space.samplers(steps, self.final_gamma):
                raise UserError(f"space: none of its noise levels fits the checkpoint's, for {steps} steps")
        self.folder = self._folder()
        self.metrics: dict[tuple[str, ...], metrics.Metric] = {}  # by images: HR is looked at once

    @cached_property
    def model(self) -> torch.nn.Module:
        return self.weights.model_on(self.device, self.config.half)

    @cached_property
    def images(self) -> Images:
        """What is searched on."""
        return self._images(0)

    @cached_property
    def others(self) -> Images:
        """What winners are measured on."""
        return self._images(1)

    @property
    def identity(self) -> SearchConfig:
        """The config with what its files hold in place of their names."""
        data = replace(self.config.data, images=listing_digest(self.folder.paths.items()))
        return replace(self.config, checkpoint=self.weights.sha256, data=data)

    def takes(self, sampler: SamplerConfig) -> bool:
        return fits(sampler, self.final_gamma)

    def distance(self, sampler: SamplerConfig, images: Images, seed: int, progress: Callable[[float], None]) -> Result:
        """The distance of one sample an image. progress: is told how many images are made, in parts of one, too."""
        metric = self.metrics.setdefault(tuple(images.ids), self._metric()).fresh()
        rows = range(len(images))
        for part in chunks(rows, self.config.batch_size):
            lr, hr = images.lr[part[0] : part[-1] + 1], images.hr[part[0] : part[-1] + 1]
            ids, blocks = [images.ids[row] for row in part], [images.blocks[row] for row in part]
            seeds = [stable_hash(self.config.seed, seed, image_id) for image_id in ids]
            sr = round_to_8bit(self._sampled(sampler, lr, seeds, shares(progress, part[0], len(part))))
            metric.update(Batch(ids, sr, hr, lr, blocks=blocks))
        return metric.compute()

    @torch.inference_mode()
    def _sampled(self, sampler: SamplerConfig, lr: Tensor, seeds: Sequence[int], progress: Progress) -> Tensor:
        size = (self.task.scale * lr.shape[-2], self.task.scale * lr.shape[-1])
        return sample(self.model, lr.to(self.device), size, seeds, sampler, self.final_gamma, progress).cpu()

    def schedules(self, measured: Iterable[Trial]) -> schedules.Schedules:
        """What winners are worth, as the file beside the checkpoint has it."""
        measured = list(measured)
        least = min(trial.distance for trial in measured)
        recommended = next(trial.sampler.steps for trial in measured if trial.distance <= NEARLY * least)
        found = [schedules.Found(trial.sampler, trial.distance, *trial.interval()) for trial in measured]
        data = self.config.data
        what = f"crops of {data.crop}x{data.crop}" if data.crop else "images"
        words = f"{data.number} {what} of {number(len(self.folder), 'held-out photograph')}"
        convention = self.metric.convention
        about = f"{convention.label} ({convention.settings})"
        return schedules.Schedules(self.weights.sha256, about, words, recommended, tuple(found))

    def _metric(self) -> metrics.Metric:
        options = {key: value for key, value in self.config.metric.items() if key != "name"}
        metric = metrics.load(str(self.config.metric.get("name", "")), **options)
        if not isinstance(metric, metrics.SetMetric) or metric.higher_is_better:
            raise UserError(f"{metric.name}: is a mean over images, not a metric of whole sets, or higher is better")
        return metric

    def _folder(self) -> Folder:
        data, task = self.config.data, self.task
        paths, too_small = large_enough(find_images(resolve_path(data.images)), data.crop or task.smallest)
        wanted = 2 * data.number if data.crop is None else 2  # photographs: intervals are over them
        if len(paths) < wanted:
            small = f"; {len(too_small)} are too small" if too_small else ""
            raise UserError(f"data.images: {number(len(paths), 'image')}, {wanted} are needed{small}")
        if data.crop is not None and (data.crop % task.scale or data.crop % self.weights.config.network.factor):
            raise UserError(f"data.crop: {data.crop} is not a multiple of {task.scale} and of the network's factor")
        return Folder(paths, task)

    def _images(self, part: int) -> Images:
        """The first `data.number` crops or images, or the second."""
        data = self.config.data
        if data.crop is None:
            chosen = choose(list(self.folder.paths), 2 * data.number)[part::2]
            hr, ids, groups = torch.stack([self.folder.hr(i) for i in chosen]), chosen, chosen
        else:
            crops = TrainingImages(self.folder, self.config.seed, data.crop, data.zoom_out)
            positions = range(part * data.number, (part + 1) * data.number)
            hr = from_uint8(torch.stack([crops[position] for position in positions]))
            groups = [self.folder.paths.ids[crops.image_at(position)] for position in positions]
            ids = [f"{group}#{position}" for group, position in zip(groups, positions, strict=True)]
        few = len(set(groups)) <= BLOCKS  # then each photograph is a block, as in the benchmark
        return Images(ids, groups if few else list(map(block_of, groups)), hr, self.task.degrade(hr))


class Trials:
    """All that was tried so far, in a file with a line each; what is there is not tried again."""

    def __init__(self, path: Path, searcher: Searcher, tell: Tell) -> None:
        self.path, self.searcher, self.tell = path, searcher, tell
        self.known = {line["key"]: line for line in _lines(path)}
        self.done = 0.0
        self.total = planned(searcher)

    def __enter__(self) -> "Trials":
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self.known.values()).encode())
        self.file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def searched(self, sampler: SamplerConfig, count: int | None = None) -> Trial:
        """A sampler's worth on the first `count` of the images that are searched on, or all."""
        images = self.searcher.images if count is None else self.searcher.images.first(count)
        return self._trial(sampler, images, "search", (0,))

    def best(self, samplers: Iterable[SamplerConfig], count: int | None = None) -> Trial:
        """The best of those samplers whose noise levels fit the checkpoint's, on so many images."""
        fitting = [sampler for sampler in dict.fromkeys(samplers) if self.searcher.takes(sampler)]
        return min((self.searched(sampler, count) for sampler in fitting), key=_distance)

    def measured(self, sampler: SamplerConfig) -> Trial:
        """A sampler's worth on the other images, over all seeds."""
        return self._trial(sampler, self.searcher.others, "measure", range(1, self.searcher.config.seeds + 1))

    def _trial(self, sampler: SamplerConfig, images: Images, stage: str, seeds: Sequence[int]) -> Trial:
        results = [self._one(sampler, images, stage, seed) for seed in seeds]
        left = {block: estimate.n for block, estimate in results[0].without.items()}
        without = {block: (fmean(r.without[block].value for r in results), n) for block, n in left.items()}
        return Trial(sampler, fmean(result.value for result in results), without, results[0].n)

    def _one(self, sampler: SamplerConfig, images: Images, stage: str, seed: int) -> Result:
        key = json.dumps([configs.to_dict(sampler), stage, len(images), seed])
        if key not in self.known:
            result = self.searcher.distance(sampler, images, seed, lambda made: self._tell(sampler.steps * made))
            self.known[key] = line = {"key": key} | asdict(result)
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        self.done += sampler.steps * len(images)
        self._tell(0)
        line = {name: value for name, value in self.known[key].items() if name != "key"}
        return configs.from_dict(Result, line, TRIALS_FILE)

    def _tell(self, more: float) -> None:
        self.tell("search", min(self.total, self.done + more), self.total)


def planned(searcher: Searcher) -> int:
    """Evaluations of the network, one image each, that a search takes at most."""
    config = searcher.config
    fine = config.kept + 1 + 6 * config.rounds
    total = 0
    for steps in config.budgets:
        full = config.in_full(steps)
        coarse = len(config.space.samplers(steps, searcher.final_gamma)) if full else config.kept + 1
        total += steps * (coarse * config.data.coarse + (fine * full + config.seeds) * config.data.number)
    references = sum(sampler.steps for sampler in config.reference.values())
    return total + references * config.seeds * config.data.number


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of trials; one that a kill cut off is left out."""
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(text)
        except ValueError:
            return
