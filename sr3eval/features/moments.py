"""Mean and covariance of features, streamed in float64, and mergeable."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


class Moments:
    """Count, sum and sum of outer products of feature rows [N, d].

    As long as there are no more than d rows they are kept as they are: that is less, and the covariance's exact factor.
    Memory is d x d at most (34 MB at d = 2048), whatever N.
    """

    def __init__(self) -> None:
        self.n = 0
        self.rows: list[Array] = []  # not yet in the sums
        self.sum: Array | None = None
        self.outer: Array | None = None

    def add(self, ids: Sequence[str], features: Tensor) -> None:
        """Add rows [N, d]."""
        self._append(features.double().numpy())

    def _append(self, rows: Array) -> None:
        self.n += len(rows)
        self.rows.append(rows)
        if sum(map(len, self.rows)) > rows.shape[1]:
            self._flush()

    def _flush(self) -> None:
        rows = np.concatenate(self.rows)
        total, outer = rows.sum(axis=0), rows.T @ rows
        self.sum = total if self.sum is None else self.sum + total
        self.outer = outer if self.outer is None else self.outer + outer
        self.rows = []

    def __add__(self, other: "Moments") -> "Moments":
        both = Moments()
        for part in (self, other):
            if part.sum is not None and part.outer is not None:
                both.n += part.n - sum(map(len, part.rows))
                both.sum = part.sum if both.sum is None else both.sum + part.sum
                both.outer = part.outer if both.outer is None else both.outer + part.outer
        for rows in self.rows + other.rows:
            both._append(rows)
        return both

    def sums(self) -> tuple[int, Array, Array]:
        """(N, sum [d], sum of outer products [d, d]) of at least one row; rows kept so far go into the sums."""
        if self.rows:
            self._flush()
        assert self.sum is not None and self.outer is not None
        return self.n, self.sum, self.outer

    @classmethod
    def of_sums(cls, n: int, total: Array, outer: Array) -> "Moments":
        """The inverse of `sums`."""
        moments = cls()
        moments.n, moments.sum, moments.outer = n, total, outer
        return moments

    def factor(self) -> tuple[Array, Array] | None:
        """(mean [d], F [N, d]) with covariance F^T F, or None once there are more rows than dimensions."""
        if self.sum is not None or not self.rows:
            return None
        rows = np.concatenate(self.rows)
        mean = rows.mean(axis=0)
        return mean, (rows - mean) / np.sqrt(self.n - 1)

    def statistics(self) -> tuple[Array, Array]:
        """(mean [d], covariance [d, d]), with N - 1 as numpy.cov has it."""
        factor = self.factor()
        if factor is not None:
            return factor[0], factor[1].T @ factor[1]
        n, total, outer = self.sums()
        mean = total / n
        return mean, (outer - n * np.outer(mean, mean)) / (n - 1)
