"""What a search measured of one sampler, with its interval, and how two of them differ."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sr3eval import significance
from sr3eval.diffusion.solvers import SamplerConfig

Without = Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """What a sampler is worth: the distance, and without each block of images the distance and how many are left."""

    sampler: SamplerConfig
    distance: float
    without: Mapping[str, tuple[float, int]]
    n: int

    def interval(self) -> tuple[float, float]:
        """95 %, by the jackknife over blocks."""
        return significance.t_interval(self.distance, *self._error(self.without_values))

    @property
    def without_values(self) -> dict[str, float]:
        return {block: value for block, (value, _) in self.without.items()}

    def worse_than(self, other: "Trial") -> tuple[float, float, float]:
        """How much larger this distance is than another's on the same images: the difference and its 95 % interval."""
        difference = self.distance - other.distance
        without = {block: value - other.without[block][0] for block, (value, _) in self.without.items()}
        return difference, *significance.t_interval(difference, *self._error(without, difference))

    def _error(self, without: Without, value: float | None = None) -> tuple[float, int]:
        counts = np.array([left for _, left in self.without.values()])
        value = self.distance if value is None else value
        error = significance.jackknife_error(value, self.n, np.array(list(without.values())), counts)
        return error, len(without)
