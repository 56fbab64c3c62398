"""Files of feature statistics: ours say what they are of, pytorch-fid's and clean-fid's are read as well."""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from sr3eval.metrics._moments import Array, Moments


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


def save_statistics(path: Path, moments: Moments, network: str, images: str) -> None:
    """Write mu, sigma, n and a fingerprint: the network's identity and a text that names the images."""
    mu, sigma = moments.statistics()
    fingerprint = json.dumps({"network": network, "images": images, "n": moments.n})
    buffer = io.BytesIO()
    np.savez(buffer, mu=mu, sigma=sigma, n=moments.n, fingerprint=fingerprint)
    atomic_write(path, buffer.getvalue())


def load_statistics(path: Path, network: str, dimensions: int) -> Statistics:
    """Read statistics for use with a network of that identity, whose features have so many dimensions.

    Raises UserError for an unreadable file, and for statistics of another network, weights or resize where the file
    says so; the files of other libraries do not, and are described so.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = file["mu"].astype(np.float64), file["sigma"].astype(np.float64)
            fingerprint = json.loads(str(file["fingerprint"])) if "fingerprint" in file else None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a file of statistics with mu and sigma ({error})") from None
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"{path}: mu {mu.shape} and sigma {sigma.shape} do not fit, or are not finite")
    if len(mu) != dimensions:
        raise UserError(f"{path}: statistics of {len(mu)} features; {network} has {dimensions}")
    if fingerprint is None:
        return Statistics(mu, sigma, f"{path.name} (network and images not stated in it)")
    if fingerprint["network"] != network:
        raise UserError(f"{path}: statistics of another network: {fingerprint['network']}, not {network}")
    return Statistics(mu, sigma, f"{path.name} ({fingerprint['images']}, N = {fingerprint['n']})")
