"""Samplers that `sr3eval search-schedule` found for a checkpoint, in a file beside it; `steps = N` takes one."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from sr3eval.config import from_dict, resolve_path, to_dict
from sr3eval.diffusion.solvers import DEFAULT, SamplerConfig, SamplerOptions
from sr3eval.errors import UserError
from sr3eval.files import atomic_write

SUFFIX = ".schedules.json"


@dataclass(frozen=True)
class Found:
    """The best sampler of a budget. distance: on crops or images and noise that the search
    did not see; low, high: 95 %, over photographs.
    """

    sampler: SamplerConfig
    distance: float
    low: float
    high: float


@dataclass(frozen=True)
class Schedules:
    """What a search found.

    Attributes:
        checkpoint: sha256 of the checkpoint's file.
        metric: the distance, with its conventions.
        images: what it is of, in words.
        recommended: the budget that is taken where none is asked for.
        found: a sampler for each budget, in the order of budgets.
    """

    checkpoint: str
    metric: str
    images: str
    recommended: int
    found: tuple[Found, ...]

    def sampler(self, steps: int | None = None) -> SamplerConfig:
        """The sampler of a budget. One that was not searched gets the settings of the nearest, by ratio."""
        steps = self.recommended if steps is None else steps
        nearest = min(self.found, key=lambda found: abs(math.log(found.sampler.steps / steps)))
        return replace(nearest.sampler, steps=steps)


def beside(checkpoint: Path) -> Path:
    """The file of a checkpoint's schedules."""
    return checkpoint.with_suffix(SUFFIX)


def save(path: Path, schedules: Schedules) -> None:
    """Write schedules atomically."""
    atomic_write(path, (json.dumps(to_dict(schedules), indent=1) + "\n").encode())


def load(path: Path, checkpoint: str) -> Schedules:
    """Read what `save` wrote.

    Args:
        path: a file `beside` a checkpoint.
        checkpoint: sha256 of that checkpoint.

    Raises:
        UserError: a damaged file, or one of another checkpoint.
    """
    try:
        schedules = from_dict(Schedules, json.loads(path.read_text(encoding="utf-8")), path.name)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it, or name a solver") from None
    if schedules.checkpoint != checkpoint:
        raise UserError(
            f"{path}: was searched for another checkpoint (sha256 {schedules.checkpoint[:8]}, not {checkpoint[:8]}); "
            "run `sr3eval search-schedule` again, delete it, or name a solver"
        )
    return schedules


def choose(checkpoint: str, sha256: str, options: SamplerOptions) -> SamplerConfig:
    """The sampler that options ask for, see `SamplerOptions`.

    Args:
        checkpoint: path of the checkpoint, as a config names it.
        sha256: of its file.
        options: what was asked for.

    Raises:
        UserError: as `load`.
    """
    if set(options.given) - {"steps"}:
        return SamplerConfig(**options.given)
    path = beside(resolve_path(checkpoint))
    if path.exists():
        return load(path, sha256).sampler(options.steps)
    return replace(DEFAULT, **options.given)
