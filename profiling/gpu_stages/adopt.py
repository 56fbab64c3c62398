"""What a job brought beside what is embedded: each is taken in where it is better."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import training_curve
from embedded_quality import LINES, Row, rows
from gpu_stages.quality import finish, run_config
from gpu_stages.train import RECIPES

from sr3eval import config as configs
from sr3eval.benchmark.config import RunConfig
from sr3eval.config import resolve_path
from sr3eval.diffusion import checkpoint, schedules
from sr3eval.diffusion.train_config import TrainConfig
from sr3eval.errors import UserError

ASSETS = resolve_path("sr3eval:assets")
MODELS = ("regression", "sr3")
GENERATOR = "generator.safetensors"
LARGEST = 16_000_000  # bytes of an embedded checkpoint
QUICKSTART = Path("configs/quickstart.toml")


@dataclass(frozen=True)
class Pair:
    """Regression and SR3 of one origin, with what all 256 crops say of them."""

    folder: Path
    quality: dict[str, Row]

    def met(self, regression: Row) -> int:
        """How many of the lines this SR3 meets beside a Regression."""
        return sum(is_met(self.quality["sr3"], regression) for is_met in LINES.values())


def run(folder: Path, limit: int = 256) -> Iterator[str]:
    """Compare and take in; yields what is to be said. limit: how many of the embedded crops to compare on.

    Regression: the one of higher PSNR. SR3: the one that meets more of `embedded_quality.LINES` beside that
    Regression, and of two that meet as many the one of the lower Fréchet distance. Logs and summary go with them. The
    generator: of lower validation loss. Schedules: those of the SR3 that is embedded then.
    """
    with tempfile.TemporaryDirectory() as scratch:
        brought = with_configs(folder, Path(scratch) / "given")  # which refuses what is none before any work
        embedded = scored(embedded_copies(Path(scratch) / "embedded"), limit)
        given = scored(brought, limit)
        for pair, name in ((embedded, "embedded"), (given, str(folder))):
            for model in MODELS:
                values = ", ".join(f"{key} {value:.3f}" for key, value in pair.quality[model].items())
                yield f"{name}, {model}: {values}"
        best = max(embedded, given, key=lambda pair: pair.quality["regression"]["psnr"])
        taken = [] if best is embedded else ["regression"]
        regression = best.quality["regression"]
        if rank(given, regression) > rank(embedded, regression):
            taken.append("sr3")
        for model in taken:
            take(model, given.folder, folder)
            yield f"{model}: adopted"
        for model in MODELS:
            if model not in taken:
                yield f"{model}: the embedded one stays"
        winner = given if "sr3" in taken else embedded
        for line, is_met in LINES.items():
            yield f"{'met' if is_met(winner.quality['sr3'], regression) else 'missed':8}{line}"
    if taken:
        logs = [path for model in MODELS if (path := log_of(model)).exists() and training_curve.read(path)]
    yield from adopt_generator(folder)
    yield from adopt_schedules(folder)
    if taken and logs:
        training_curve.draw(ASSETS / "training" / "curves.png", logs)


def adopt_generator(folder: Path) -> Iterator[str]:
    """Embed the job's generator, if it brought one."""
    if not (folder / GENERATOR).exists():
        return
    checkpoint.load(str(folder / GENERATOR), "ddpm")
    own, embedded_log = folder / "generator.jsonl", ASSETS / "training" / "generator_photos_16.jsonl"
    if validation_loss(own) >= validation_loss(embedded_log):
        yield "generator: the embedded one stays"
        return
    shutil.copy(folder / GENERATOR, ASSETS / "generator_photos_16.safetensors")
    shutil.copy(own, embedded_log)
    yield "generator: adopted"


def validation_loss(log: Path) -> float:
    """The last one of a training's log; infinite where there is no log."""
    lines = log.read_text().splitlines() if log.exists() else []
    return float(json.loads(lines[-1])["validation_loss"]) if lines else math.inf


def adopt_schedules(folder: Path) -> Iterator[str]:
    """Put the job's schedules beside the embedded SR3, if they were searched for it."""
    path = folder / "sr3.schedules.json"
    if not path.exists():
        return
    try:
        schedules.load(path, checkpoint.load(str(embedded("sr3"))).sha256)
    except UserError:
        yield "schedules: of another checkpoint than the embedded one"
        return
    shutil.copy(path, schedules.beside(embedded("sr3")))
    yield "schedules: adopted"


def rank(pair: Pair, regression: Row) -> tuple[int, float]:
    return pair.met(regression), -pair.quality["sr3"]["fd"]


def embedded_copies(out: Path) -> Path:
    """The embedded checkpoints under a job's names."""
    out.mkdir()
    for model in MODELS:
        shutil.copy(embedded(model), out / f"{model}.safetensors")
    return out


def with_configs(folder: Path, out: Path) -> Path:
    """Copies of a job's checkpoints. Weights alone get the config of the recipe, whose network they must fit."""
    out.mkdir()
    for model in MODELS:
        path = folder / f"{model}.safetensors"
        content, metadata = checkpoint.read(path)
        if len(content) > LARGEST:
            raise UserError(f"{path}: {len(content) / 1e6:.1f} MB; an embedded checkpoint has at most 16")
        target = out / path.name
        if checkpoint.METADATA_KEY in metadata:
            shutil.copy(path, target)
        else:
            recipe = configs.from_dict(TrainConfig, configs.read_toml(RECIPES / f"{model}_photos_16_64.toml"))
            checkpoint.save(target, configs.to_dict(recipe.resolved()), 0, safetensors.torch.load(content))
        checkpoint.load(str(target), model)
    return out


def scored(folder: Path, limit: int) -> Pair:
    """Score the two checkpoints of a folder on the embedded crops."""
    out = folder.with_name(f"{folder.name}_run")
    finish(run_config(folder, {"sr3": quickstart_sampler()}, limit, batch_size=min(limit, 16)), out)
    return Pair(folder, rows(out))


def quickstart_sampler() -> dict[str, Any]:
    """The options of the quickstart's SR3: the sampler that the embedded one is meant for."""
    methods = RunConfig.parse(configs.read_toml(QUICKSTART)).method
    options = next(method.options for method in methods if method.kind == "sr3")
    return {key: value for key, value in options.items() if key != "checkpoint"}


def take(model: str, scored_folder: Path, folder: Path) -> None:
    """Embed a checkpoint, with its log and the job's summary."""
    shutil.copy(scored_folder / f"{model}.safetensors", embedded(model))
    for name, target in ((f"{model}.jsonl", log_of(model)), ("summary.md", ASSETS / "training" / "gpu_job.md")):
        if (folder / name).exists():
            shutil.copy(folder / name, target)


def embedded(model: str) -> Path:
    return ASSETS / f"{model}_photos_16_64.safetensors"


def log_of(model: str) -> Path:
    return ASSETS / "training" / f"{model}_photos_16_64.jsonl"
