"""Does a run hold what it says? Its files against its card, its table against its scores, a sample computed again."""

import math
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from sr3eval import metrics
from sr3eval.benchmark import card, environment
from sr3eval.benchmark.config import MethodConfig
from sr3eval.benchmark.layout import HR, LR, RunFolder
from sr3eval.benchmark.plan import RunImage
from sr3eval.benchmark.progress import Tell, silent
from sr3eval.benchmark.recompute import Score, differences, folders_of, images_of, make_again, scores_again
from sr3eval.benchmark.score import pixels_of
from sr3eval.benchmark.scores import Conventions, Scores, read_config, read_conventions, read_environment, read_run
from sr3eval.benchmark.summary import summarise
from sr3eval.errors import UserError, number
from sr3eval.files import TEMPORARY, digest_of
from sr3eval.folders import stable_hash
from sr3eval.metrics import Convention, PerImage

# By which pictures may differ that other hardware or software has made. Other instructions of a CPU change 1 level of
# 0.02 % of the values of the embedded SR3 and of ESRGAN, bfloat16 up to 2 of 5 %.
MOST_LEVELS, MOST_SHARE = 2, 0.1
SAME, OTHER = 0.01, 0.1  # of a metric's last printed digit: by how much scores may differ here, and elsewhere
SUMMED = 1e-9  # relative: of means and intervals, which are summed in double precision everywhere
TESTED = ("value", "ci_low", "ci_high", "n", "delta_to_best", "delta_ci_low", "delta_ci_high", "p_value", "best")


@dataclass
class Verdict:
    """What is as the run says, what could not be checked, and what is not as it says; a line each."""

    seed: int
    right: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [*self.right, *(f"Not checked: {line}." for line in self.unchecked)]
        lines += [f"WRONG: {line}." for line in self.wrong]
        count = len(self.wrong)
        mismatches = "1 mismatch" if count == 1 else f"{count} mismatches"
        end = mismatches if count else "Everything that was checked matches"
        return "\n".join([*lines, f"{end}. --seed {self.seed} takes the same sample."])


def verify(run: Path, sample: int = 8, seed: int | None = None, foreign: bool = False, tell: Tell = silent) -> Verdict:
    """Check a finished run from its folder.

    All files are compared with the checksums of results.json, and all of results.csv with the scores. Of a sample of
    images, pictures are made and scored again: on the same installation they must be equal, elsewhere within
    `MOST_LEVELS` on `MOST_SHARE` of the values; scores within `SAME` or `OTHER` of the last printed digit.

    Args:
        run: its folder.
        sample: how many images; with all of them, metrics of sets are computed again, too.
        seed: chooses the images; drawn by default, so that nobody knows them before.
        foreign: the run is somebody else's: no Python file that its config names is run.
        tell: is told (stage, done, total) after every step.

    Raises:
        UserError: no finished run, or one of a release without checksums.
    """
    verdict = Verdict(secrets.randbelow(10**6) if seed is None else seed)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as scratch:
        check = _Check(RunFolder(run), verdict, sample, foreign, Path(scratch), tell)
        check.files()
        check.table()
        if check.config.generated is not None:
            verdict.unchecked.append("pictures and their scores: generated images lie elsewhere")
        elif not check.images:
            verdict.unchecked.append("pictures and their scores: its inputs are not here")
        else:
            check.inputs()
            check.pictures()
            check.scores()
    return verdict


@dataclass
class _Check:
    run: RunFolder
    verdict: Verdict
    count: int
    foreign: bool
    scratch: Path
    tell: Tell

    def __post_init__(self) -> None:
        self.config, self.known = read_config(self.run.path), read_environment(self.run)
        self.card = card.read(self.run.path / "results.json").runs[0]
        here = environment.describe()
        self.elsewhere = sorted(name for name, value in here.items() if self.known.get(name) != value)

    @cached_property
    def known_scores(self) -> Scores:
        return read_run(self.run.path)

    @cached_property
    def conventions(self) -> Conventions:
        return read_conventions(self.run.path)

    @cached_property
    def images(self) -> list[RunImage]:
        """Of the run, as far as it has their pictures."""
        return images_of(self.run, self.config, self.known_scores.per_image)

    @cached_property
    def chosen(self) -> list[RunImage]:
        """The sample."""
        order = sorted(self.images, key=lambda image: stable_hash("verify", self.verdict.seed, image.image_id))
        return sorted(order[: self.count], key=lambda image: image.image_id)

    def files(self) -> None:
        """The run's files have the checksums of its card."""
        now = card.of_run(self.run.path)
        wrong = [name for name, sha256 in self.card.files.items() if now.files.get(name) != sha256]
        wrong += [f"environment.json ({part})" for part in _PARTS if getattr(now, part) != getattr(self.card, part)]
        count = len(self.card.files)
        for dataset, data in self.card.data.items():
            if self.config.generated is None:
                kept = {f: s for f, s in data.pictures.items() if (self.run.images / f).is_dir()}
                wrong += [f"images/{f}" for f, sha256 in kept.items() if self._digest(f, dataset) != sha256]
                count += len(kept)
        self.verdict.wrong += [f"{name}: not what results.json has the checksum of" for name in wrong]
        if not wrong:
            self.verdict.right.append(f"Files: {count} checksums of tables and folders of pictures match.")

    def _digest(self, folder: str, dataset: str) -> str:
        ids = [i for i in self.run.ids(folder) if len(self.card.data) == 1 or i.startswith(f"{dataset}/")]
        return digest_of({image_id: self.run.image(folder, image_id) for image_id in ids})

    def table(self) -> None:
        """results.csv and results.json follow from the scores."""
        expected = summarise(self.known_scores, self.conventions)
        found = pd.read_csv(self.run.results, keep_default_na=False, na_values={name: [""] for name in TESTED})
        wrong = _unequal(card.nested(found), card.nested(expected), "results.csv")
        shown = card.read(self.run.path / "results.json").results
        wrong += _unequal(shown, card.nested(expected), "results.json")
        self.verdict.wrong += wrong
        if not wrong:
            self.verdict.right.append(f"Table: {number(len(expected), 'row')} follow from the scores.")

    def inputs(self) -> None:
        """HR and LR are the pictures whose pixels the card names."""
        given = [folder for folder in (HR, LR) if folder == LR or self.config.has_hr]
        wrong = []
        for dataset, data in self.card.data.items():
            paths = {
                image.image_id.removeprefix(f"{dataset}/"): [self.run.image(f, image.image_id) for f in given]
                for image in self.images
                if image.dataset == dataset
            }
            wrong += [dataset] if pixels_of(paths) != data.pixels else []
        other = "HR and LR have other pixels than results.json names"
        self.verdict.wrong += [f"{name or 'data'}: {other}" for name in wrong]

    def pictures(self) -> None:
        """The sample's pictures are what the methods make of LR."""
        for entry, method in enumerate(self.config.method):
            try:
                if self.foreign and method.kind == "python":
                    raise UserError("it is Python of somebody else, which is not run")
                sums = self.known.get("sha256", {}).get(method.name, {})
                to = self.scratch / str(entry)
                again = make_again(self.run, self.config, method, sums, self.images, self.chosen, to, self.tell)
            except UserError as error:
                self.verdict.unchecked.append(f"pictures of {method.name}: {error}")
            else:
                self._compare(method, again)

    def _compare(self, method: MethodConfig, again: RunFolder) -> None:
        found = [d for folder in folders_of(method) for d in differences(self.run, again, folder, self.chosen)]
        borne = [d for d in found if self.elsewhere and 0 <= d.most <= MOST_LEVELS and d.share <= MOST_SHARE]
        self.verdict.wrong += [str(d) for d in found if d not in borne]
        if len(borne) == len(found):
            made = f"Pictures of {method.name}: {len(self.chosen)} of {number(len(self.images), 'image')} made again"
            worst = max(borne, key=lambda d: (d.most, d.share), default=None)
            said = f"within {number(worst.most, 'level')} on {worst.share:.2g} of the values" if worst else "equal"
            self.verdict.right.append(f"{made}, {said}{self._told if worst else ''}.")

    @property
    def _told(self) -> str:
        return f" (other {', '.join(self.elsewhere)} here)" if self.elsewhere else ""

    def scores(self) -> None:
        """The sample's pictures have the scores that the run says."""
        usable = [entry for entry in self.config.metrics if self._can_score(*entry)]
        if not usable:
            return
        whole = len(self.chosen) == len(self.images)
        config = replace(self.config, metrics=tuple(usable))
        loaded = {m.name: m for m in (metrics.load(name, **options) for name, options in usable)}
        sets = [name for name, metric in loaded.items() if not isinstance(metric, PerImage)]
        if sets and not whole:
            self.verdict.unchecked.append(f"{', '.join(sets)}, of whole sets; --sample {len(self.images)} does")
        known, compared = self._written(), 0
        for score in scores_again(self.run, config, self.chosen, whole, self.scratch, self.tell):
            written = known.get(score.key)
            compared += 1
            if not self._agree(score, written, loaded[score.metric].convention):
                self.verdict.wrong.append(f"{score}: {score.value:.8g}, and the run says {written}")
        self.verdict.right.append(f"Scores: {compared}, of {number(len(self.chosen), 'image')}, computed again.")

    def _can_score(self, name: str, options: Mapping[str, object]) -> bool:
        """Whether a metric can be had here as the run had it; if not, that is said."""
        try:
            if self.foreign and name == "python":
                raise UserError("it is Python of somebody else, which is not run")
            convention = metrics.load(name, **options).convention
            theirs = self.conventions.get(convention.name)
            if theirs is not None and theirs.version != convention.version:
                raise UserError(f"version {theirs.version} there, {convention.version} here")
            convention.check(hr=bool(self.config.has_hr), lr=True, labels=False)
        except (UserError, ImportError) as error:
            self.verdict.unchecked.append(f"scores of {options.get('name', name)}: {error}")
            return False
        return True

    def _written(self) -> dict[tuple[object, ...], float]:
        """By `Score.key`."""
        scores = self.known_scores
        rows = scores.per_image[["dataset", "method", "metric", "image_id", "value"]]
        sets = scores.sets[scores.sets["left_out"] == ""].assign(image_id="")[list(rows)]
        known = {
            (*key, None): value for part in (rows, sets) for *key, value in part.itertuples(index=False, name=None)
        }
        draws = scores.draws[[*rows, "seed", "sample"]].itertuples(index=False, name=None)
        return known | {(*key, (int(seed), int(sample))): value for *key, value, seed, sample in draws}

    def _agree(self, score: Score, written: float | None, convention: Convention) -> bool:
        if written is None:
            return False
        tolerance = (OTHER if self.elsewhere else SAME) * 10.0**-convention.decimals
        return score.value == written or abs(score.value - written) <= tolerance


_PARTS = ("config", "inputs", "data", "methods", "software", "hardware")


def _unequal(found: card.Results, expected: card.Results, name: str) -> list[str]:
    """Which numbers of a table are not what follows from the scores, and which are missing or too many."""
    ours, theirs = _flat(expected), _flat(found)
    lines = [f"{name}: {_name(key)} is not in the scores" for key in theirs if key not in ours]
    lines += [f"{name}: {_name(key)} is missing" for key in ours if key not in theirs]
    for key in (key for key in ours if key in theirs):
        for column in TESTED:
            said, follows = getattr(theirs[key], column), getattr(ours[key], column)
            if not _close(said, follows):
                lines.append(f"{name}: {column} of {_name(key)} is {said}; {follows} follows from the scores")
    return lines


def _name(key: tuple[str, ...]) -> str:
    """Data set, method and metric."""
    return " ".join(filter(None, key[1:]))


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a == b
    return math.isclose(a, b, rel_tol=SUMMED, abs_tol=1e-12)


def _flat(results: card.Results) -> dict[tuple[str, ...], card.Number]:
    return {
        (task, dataset, method, metric): value
        for task, by_set in results.items()
        for dataset, by_method in by_set.items()
        for method, by_metric in by_method.items()
        for metric, value in by_metric.items()
    }
