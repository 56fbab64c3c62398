"""What `sr3eval search-schedule` searches: a checkpoint, held-out images, a distance, and the samplers to try."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sr3eval.diffusion.schedule import FIRST_BETA, Spacing
from sr3eval.diffusion.solvers import SamplerConfig, Solver, Variance
from sr3eval.errors import UserError

DECADE = 10.0


@dataclass(frozen=True)
class SpaceConfig:
    """What is tried: every valid combination.

    Attributes:
        solver, eta, variance, clip, spacing, first_beta: values of `SamplerConfig`'s fields; eta is for "ddim" and
            "dpmpp_2m_sde", variance for "ancestral".
        jump: log SNRs that the first step may go to; none is tried as well.
    """

    solver: tuple[Solver, ...] = ("ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde")
    eta: tuple[float, ...] = (0.0, 0.5, 1.0)
    variance: tuple[Variance, ...] = ("posterior",)
    clip: tuple[bool, ...] = (True,)
    spacing: tuple[Spacing, ...] = ("log_snr",)
    first_beta: tuple[float, ...] = (FIRST_BETA, 1e-3)
    jump: tuple[float, ...] = (-2.0, 0.0, 2.0)

    def __post_init__(self) -> None:
        for name, values in asdict(self).items():
            if not values and name != "jump":
                raise UserError(f"space.{name}: is empty; name what to try")

    def samplers(self, steps: int, final_gamma: float) -> list[SamplerConfig]:
        """The samplers of a budget, each once, also where two names stand for one."""
        kinds = [
            options
            for solver, clip in itertools.product(self.solver, self.clip)
            for options in self._kinds(solver, clip, steps)
        ]
        levels = [{}] if steps == 1 else list(self._levels())
        found: dict[Any, SamplerConfig] = {}
        for kind, level in itertools.product(kinds, levels):
            sampler = SamplerConfig(steps, **kind, **level)
            if fits(sampler, final_gamma):
                gammas = sampler.schedule(final_gamma).gammas.tolist()
                found.setdefault((*kind.items(), *gammas), sampler)
        return list(found.values())

    def _kinds(self, solver: Solver, clip: bool, steps: int) -> Iterator[dict[str, Any]]:
        if steps == 1:
            yield {"solver": "dpmpp_2m", "clip": clip}
        elif solver == "ancestral":
            yield from ({"solver": solver, "clip": clip, "variance": variance} for variance in self.variance)
        elif solver == "dpmpp_2m":
            yield {"solver": solver, "clip": clip}
        else:
            etas = [eta for eta in self.eta if not self._tried_already(solver, eta)]
            yield from ({"solver": solver, "clip": clip, "eta": eta} for eta in etas)

    def _tried_already(self, solver: Solver, eta: float) -> bool:
        """Whether it is another solver's: of no noise dpmpp_2m, of all of DDIM's the ancestral step."""
        if solver == "ddim":
            return eta == 1 and "ancestral" in self.solver and "posterior" in self.variance
        return eta == 0 and "dpmpp_2m" in self.solver

    def _levels(self) -> Iterator[dict[str, Any]]:
        for spacing, first_beta in itertools.product(self.spacing, self.first_beta):
            jumps = (None, *self.jump) if spacing == "log_snr" else (None,)
            yield from ({"spacing": spacing, "first_beta": first_beta, "jump": jump} for jump in jumps)


@dataclass(frozen=True)
class SearchDataConfig:
    """Held-out images, none of which the checkpoint was trained on.

    Attributes:
        images: folder, searched recursively.
        crop: side in pixels of random crops; None takes every image whole, prepared for the checkpoint's task.
        zoom_out: as in training, see `TrainingDataConfig`.
        number: crops or images to search on; as many others measure the winners.
        coarse: how many of them are used to try every sampler of the space.
    """

    images: str
    number: int = 512
    coarse: int = 64
    crop: int | None = None
    zoom_out: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.coarse <= self.number:
            raise UserError(f"data.coarse: {self.coarse} is not between 2 and data.number, {self.number}")
        if not 1 <= self.zoom_out < math.inf or (self.zoom_out > 1 and self.crop is None):
            raise UserError("data.zoom_out: must be at least 1, and needs data.crop")


@dataclass(frozen=True)
class SearchConfig:
    """One search.

    Attributes:
        checkpoint: an SR3 checkpoint.
        data: see `SearchDataConfig`.
        budgets: numbers of evaluations.
        metric: the distance: a set metric by name, with its options, e.g. {name = "fid"}.
        space: see `SpaceConfig`.
        kept: how many of the coarse trials are repeated on all images.
        thorough: the largest budget that is searched in this way; larger ones only try, on the coarse images, what was
            kept for the largest thorough budget, and its winner. None: all budgets are.
        rounds: rounds of fine trials around the best, each at half the distance of the previous one.
        seeds: number of noise seeds over which the winners are measured.
        reference: samplers that are measured together with the winners, by name.
        half: convolve in bfloat16, if the GPU or CPU supports it.
    """

    checkpoint: str
    data: SearchDataConfig
    budgets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 100)
    metric: dict[str, Any] = field(default_factory=lambda: {"name": "fd_efficientnet_lite0"})
    space: SpaceConfig = SpaceConfig()
    kept: int = 6
    thorough: int | None = None
    rounds: int = 2
    seeds: int = 1
    reference: dict[str, SamplerConfig] = field(default_factory=dict)
    half: bool = False
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budgets or min(self.budgets) < 1 or len(set(self.budgets)) < len(self.budgets):
            raise UserError(f"budgets: {list(self.budgets)} must be different numbers of steps, all at least 1")
        if min(self.kept, self.seeds, self.batch_size) < 1 or self.rounds < 0:
            raise UserError("kept, seeds and batch_size must be at least 1, and rounds at least 0")
        if self.thorough is not None and min(self.budgets) > self.thorough:
            raise UserError(f"thorough: {self.thorough} is below every budget; name the largest to search in full")

    def in_full(self, steps: int) -> bool:
        """Whether a budget is searched in full."""
        return self.thorough is None or steps <= self.thorough


def neighbours(sampler: SamplerConfig, width: float) -> Iterator[SamplerConfig]:
    """Samplers that differ in one number: the jump by `width` in log SNR, first_beta by half a decade, eta by 0.25."""
    if sampler.steps == 1:
        return
    for sign in (-1, 1):
        if sampler.jump is not None:
            yield replace(sampler, jump=sampler.jump + sign * width)
        yield replace(sampler, first_beta=float(f"{sampler.first_beta * DECADE ** (0.5 * sign * width):.3g}"))
        if sampler.eta is not None and 0 <= (eta := sampler.eta + 0.25 * sign * width) <= 1:
            yield replace(sampler, eta=eta)


def fits(sampler: SamplerConfig, final_gamma: float) -> bool:
    """Whether a sampler's noise levels go together with the gamma_T of training."""
    try:
        sampler.schedule(final_gamma)
    except UserError:
        return False
    return True
