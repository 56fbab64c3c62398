"""Published weights: by path, from the folder in SR3EVAL_WEIGHTS, or downloaded on first use."""

import hashlib
import os
import pickle
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sr3eval.errors import UserError

FOLDER = "SR3EVAL_WEIGHTS"


@dataclass(frozen=True)
class Weights:
    """A released file. Its name ends in the first 8 digits of its sha256, as torch.hub's files do."""

    name: str
    url: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def sha256_start(self) -> str:
        return Path(self.filename).stem.rsplit("-", 1)[1]

    def described(self, sha256: str) -> str:
        """The file in words, for settings; says so where it is not the published one."""
        other = "" if sha256.startswith(self.sha256_start) else f", not the published {self.sha256_start}"
        return f"weights sha256 {sha256[:8]}{other}"

    def misfit(self, path: Path, sha256: str, error: Exception) -> UserError:
        """The error for a file that is not what it should be."""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        wanted = f"wanted {self.sha256_start}… from {self.url}"
        return UserError(f"{path}: not the weights of {self.name} ({reason}); sha256 {sha256}, {wanted}")


def find(weights: Weights, given: str | None) -> tuple[Path, str]:
    """(file, sha256) of the weights: the path `given`, else SR3EVAL_WEIGHTS/NAME, else torch.hub's, else a download.

    Raises UserError for a file that does not exist, and for a failed download, with what to do about it.
    """
    path = _path(weights, given)
    try:
        with path.open("rb") as file:
            return path, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {weights.name} weights cannot be read ({error.strerror})") from None


def folders() -> list[Path]:
    """Where weights are looked for: the folder in SR3EVAL_WEIGHTS, if it is set, and torch.hub's."""
    own = os.environ.get(FOLDER)
    return [*([Path(own)] if own else []), Path(torch.hub.get_dir()) / "checkpoints"]


def _path(weights: Weights, given: str | None) -> Path:
    if given is not None:
        return Path(given)
    places = [folder / weights.filename for folder in folders()]
    path = next((place for place in places if place.exists()), places[-1])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=weights.sha256_start)
        except (OSError, urllib.error.URLError, RuntimeError) as error:
            raise UserError(
                f"{weights.name} weights cannot be downloaded ({error}): fetch {weights.url} on another machine and "
                f'set the metric\'s option weights = "PATH", or {FOLDER} to the folder that holds it'
            ) from None
    return path


def read(weights: Weights, path: Path, sha256: str) -> dict[str, Any]:
    """The state dict in a file; UserError with its sha256 for a truncated or foreign one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise weights.misfit(path, sha256, error) from None
    if not isinstance(state, dict):
        raise weights.misfit(path, sha256, TypeError(f"holds a {type(state).__name__}"))
    return state
