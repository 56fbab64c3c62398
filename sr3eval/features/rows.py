"""A bounded sample of feature rows, the same whatever the order they came in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sr3eval.folders import stable_hash

LIMIT = 500  # rows of a block: 10,000 images in 20 blocks


class Rows:
    """The features of a block's images, or of the `LIMIT` of them whose ids have the smallest hashes."""

    def __init__(self) -> None:
        # Kept by the hash of the id: whatever the order of arrival, and whatever shards are merged, the same rows stay.
        self.keys: NDArray[np.int64] = np.empty(0, np.int64)
        self.rows: NDArray[np.float32] = np.empty((0, 0), np.float32)

    @property
    def n(self) -> int:
        return len(self.keys)

    def add(self, ids: Sequence[str], features: Tensor) -> None:
        """Add rows [N, d]."""
        self._keep(np.array([stable_hash("row", i) for i in ids]), features.numpy().astype(np.float32))

    def _keep(self, keys: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        keys = np.concatenate([self.keys, keys])
        rows = np.concatenate([self.rows, rows]) if len(self.rows) else rows
        order = np.argsort(keys, kind="stable")[:LIMIT]
        self.keys, self.rows = keys[order], rows[order]

    def __add__(self, other: "Rows") -> "Rows":
        both = Rows()
        for part in (self, other):
            if part.n:
                both._keep(part.keys, part.rows)
        return both
