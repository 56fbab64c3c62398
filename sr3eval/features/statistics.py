"""Files of feature statistics: ours say what they are of, pytorch-fid's and clean-fid's are read as well."""

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sr3eval.errors import UserError
from sr3eval.features.moments import Array, Moments
from sr3eval.files import atomic_write

# What numpy and zipfile raise for damaged files, and (TypeError) for a single array under the name of an .npz.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Statistics:
    """Mean [d] and covariance [d, d] of a reference set."""

    mu: Array
    sigma: Array
    description: str

    def factor(self) -> None:
        """There are no rows behind it."""

    def statistics(self) -> tuple[Array, Array]:
        return self.mu, self.sigma


@dataclass(frozen=True)
class Source:
    """What statistics are of: the network's identity (weights, resize), the images in words, N, sha256 of their ids."""

    network: str
    images: str
    n: int
    files: str

    def __str__(self) -> str:
        return f"{self.images}, N = {self.n}, file list sha256 {self.files[:8]}"


def save_statistics(path: Path, moments: Moments, source: Source) -> None:
    """Write mu, sigma and n, as other libraries have them, and the source as `fingerprint`."""
    mu, sigma = moments.statistics()
    _save(path, source, mu=mu, sigma=sigma, n=moments.n)


def save_sums(path: Path, moments: Moments, source: Source) -> None:
    """Write unfinished statistics to go on from."""
    n, total, outer = moments.sums()
    _save(path, source, done=n, sum=total, outer=outer)


def load_sums(path: Path, source: Source) -> Moments:
    """Read what `save_sums` wrote. Raises UserError if that was of another source."""
    arrays, found = _load(path, ("done", "sum", "outer"))
    if found != source:
        raise UserError(f"{path}: was begun with other images or another network ({found}); delete it to start over")
    return Moments.of_sums(int(arrays["done"]), arrays["sum"], arrays["outer"])


def _save(path: Path, source: Source, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, fingerprint=json.dumps(asdict(source)), **arrays)
    atomic_write(path, buffer.getvalue())


def _load(path: Path, names: Sequence[str]) -> tuple[dict[str, Array], Source | None]:
    """Arrays as float64, and the source where the file names one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name].astype(np.float64) for name in names}
            return arrays, Source(**json.loads(str(file["fingerprint"]))) if "fingerprint" in file else None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a file of statistics with {', '.join(names)} ({error})") from None


def load_statistics(path: Path, network: str, dimensions: int) -> Statistics:
    """Read statistics for use with a network of that identity, whose features have so many dimensions.

    Raises UserError for an unreadable file, and for statistics of another network, weights or resize where the file
    says so; the files of other libraries do not, and are described so.
    """
    arrays, source = _load(path, ("mu", "sigma"))
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"{path}: mu {mu.shape} and sigma {sigma.shape} do not fit, or are not finite")
    if len(mu) != dimensions:
        raise UserError(f"{path}: statistics of {len(mu)} features; {network} has {dimensions}")
    if source is None:
        return Statistics(mu, sigma, f"{path.name} (network and images not stated in it)")
    if source.network != network:
        raise UserError(f"{path}: statistics of another network: {source.network}, not {network}")
    return Statistics(mu, sigma, f"{path.name} ({source})")
