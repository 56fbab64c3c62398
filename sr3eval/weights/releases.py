"""Released files: what methods and metrics declare of them, which are on this machine, and how to get the others."""

import importlib
import importlib.util
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Self

import torch

from sr3eval import discovery
from sr3eval.errors import UserError

FOLDER = "SR3EVAL_WEIGHTS"
DOWNLOADS = ContextVar("DOWNLOADS", default=True)  # whether `locate` may
EDGE = 16  # bytes that a Format looks at, at either end
OUTPUTS = "Outputs are guesses, not evidence of anyone's identity: a face is one of many that fit a few pixels."
LICENCES = "Licences are those that a file's publisher states; where none is stated, ask its authors."


@dataclass(frozen=True)
class Release:
    """A released file. What is not known of it is None or empty.

    method: what its weights are of. source: where its publisher has it, or what installs it. licence: as stated there
    for the repository, unless it says otherwise. size: bytes. sha256: all of it, or the first digits where the
    publisher tells no more. package: an importable package, and the file's folder in it ("brisque/models"). url: of the
    file itself, if it is downloaded on first use.
    """

    method: str
    file: str
    source: str
    licence: str
    size: int | None = None
    sha256: str = ""
    package: str = ""
    url: str = ""

    @classmethod
    def download(cls, method: str, url: str, licence: str) -> Self:
        """A file that is downloaded; its name ends in the first digits of its sha256, as torch.hub's do."""
        file = url.rpartition("/")[2]
        return cls(method, file, url, licence, sha256=Path(file).stem.rpartition("-")[2], url=url)

    def found(self) -> Path | None:
        """The file in its package, or else the first of its name in `folders`."""
        places = [folder / self.file for folder in (*self._packaged(), *folders())]
        return next((path for path in places if path.is_file()), None)

    def _packaged(self) -> list[Path]:
        package, _, folder = self.package.partition("/")
        spec = importlib.util.find_spec(package) if package else None
        return [Path(place) / folder for place in (spec.submodule_search_locations or ())] if spec else []

    def matches(self, size: int, sha256: str) -> bool:
        """Whether a file of this size and sha256 is this one, as far as is known."""
        return bool(self.sha256) and sha256.startswith(self.sha256) and self.size in (None, size)


@dataclass(frozen=True)
class Format:
    """Files that are no PyTorch checkpoints, known by their first bytes, last bytes or suffix.

    says: what such a file is, for whoever gives it to a reader of checkpoints.
    """

    says: str
    starts: tuple[bytes, ...] = ()
    ends: tuple[bytes, ...] = ()
    suffix: str | None = None

    def fits(self, path: Path) -> bool:
        with path.open("rb") as file:
            start = file.read(EDGE)
            file.seek(max(0, path.stat().st_size - EDGE))
            end = file.read()
        return start.startswith(self.starts) or end.endswith(self.ends) or path.suffix == self.suffix


@dataclass(frozen=True)
class Declarations:
    """What files of methods and metrics declare (see `sr3eval.weights`). broken: those that cannot be loaded, why."""

    releases: list[Release] = field(default_factory=list)
    keys: dict[str, re.Pattern[str]] = field(default_factory=dict)
    formats: list[Format] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, module: ModuleType) -> None:
        self.keys.update({name: re.compile(pattern) for name, pattern in getattr(module, "KEYS", {}).items()})
        for name, known in (("RELEASES", self.releases), ("FORMATS", self.formats), ("REMARKS", self.remarks)):
            known.extend(new for new in getattr(module, name, ()) if new not in known)  # several may read one file


def declared() -> Declarations:
    """What methods, metrics and generators declare; one that cannot be loaded is `broken`, and the others are there."""
    from sr3eval import diffusion, methods, metrics  # whose files import this one

    packages = [*methods.packages().items(), *((name, metrics) for name in discovery.names(metrics))]
    packages.append(("openai", diffusion))
    found = Declarations()
    for name, package in packages:
        try:
            found.add(importlib.import_module(f"{package.__name__}.{name}"))
        except Exception as error:  # of anybody's file
            found.broken.append(f"{package.__name__}.{name} cannot be loaded: {error}".partition("\n")[0])
    return found


def looks_like(keys: Collection[str], patterns: Mapping[str, str | re.Pattern[str]] | None = None) -> str:
    """Whose weights have such keys, by all that is `declared` or by these patterns alone; "" if nobody's."""
    patterns = declared().keys if patterns is None else patterns
    return next((name for name, pattern in patterns.items() if any(re.match(pattern, key) for key in keys)), "")


def folders() -> list[Path]:
    """Where weights are looked for: the folder in SR3EVAL_WEIGHTS, if it is set, and torch.hub's."""
    own = os.environ.get(FOLDER)
    return [*([Path(own)] if own else []), Path(torch.hub.get_dir()) / "checkpoints"]


@contextmanager
def no_downloads() -> Iterator[None]:
    """Inside, what is not here is missing."""
    token = DOWNLOADS.set(False)
    try:
        yield
    finally:
        DOWNLOADS.reset(token)


def locate(release: Release, given: str | None = None) -> Path:
    """The path `given`, else where the file is `found`, else where it is downloaded to.

    Raises UserError where it is not here and cannot be downloaded, with what to do about it.
    """
    return Path(given).expanduser() if given is not None else release.found() or _downloaded(release)


def _downloaded(release: Release) -> Path:
    if release.package:
        raise UserError(f"{release.file} is not installed: {release.source}")
    if release.url and not DOWNLOADS.get():
        raise UserError(
            f"{release.file} is not on this machine: it is downloaded on first use; or fetch {release.url} "
            f"into the folder that {FOLDER} names"
        )
    if not release.url:
        raise UserError(f"{release.file} is missing: fetch it ({release.source}) into the folder that {FOLDER} names")
    path = folders()[-1] / release.file
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(release.url, str(path), hash_prefix=release.sha256)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{release.method} weights cannot be downloaded ({error}): fetch {release.url} on another machine and "
            f'set the option weights = "PATH", or {FOLDER} to the folder that holds it'
        ) from None
    return path


def table() -> str:
    """What is known of all releases, a line each, which of them are here, and the remarks. Nothing is downloaded."""
    known = declared()
    rows = [("method", "file", "bytes", "sha256", "licence", "source", "here"), *map(_row, known.releases)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    lines = ("  ".join(row).rstrip() for row in padded)
    return "\n".join([*lines, "", OUTPUTS, *known.remarks, LICENCES, *known.broken])


def _row(release: Release) -> tuple[str, ...]:
    size, sha256 = f"{release.size:,}" if release.size else "?", release.sha256[:8] or "?"
    here = str(release.found() or "no")
    return release.method, release.file, size, sha256, release.licence, release.source, here
