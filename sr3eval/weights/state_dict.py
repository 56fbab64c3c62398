"""Checkpoints: read without running code that they may hold, told apart by their keys, and fitted to a network."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sr3eval.errors import UserError
from sr3eval.weights.releases import Release, declared, locate, looks_like

# Names below which training programs save a network's weights, those of its running mean first.
WRAPPERS = ("params_ema", "params", "state_dict_ema", "state_dict", "state_dict_G", "model_state_dict", "model")
# What stands before the keys of a network that was saved inside another: compiled, on several GPUs, in MMEditing's GAN.
PREFIXES = ("_orig_mod.", "module.", "generator_ema.", "generator.", "netG.", "net_g.")


class PickledCodeError(UserError):
    """A checkpoint is a pickle of more than tensors and plain values."""


@dataclass(frozen=True)
class StateDict:
    """A file's tensors, by its own names without `PREFIXES`, its path and its sha256.

    release: the file that it should be, if there is one.
    """

    weights: dict[str, Tensor]
    path: Path
    sha256: str
    release: Release | None = None

    @property
    def described(self) -> str:
        """The file in words, for settings; says so where it is not the published one."""
        published = self.release.sha256 if self.release else ""
        other = "" if self.sha256.startswith(published) else f", not the published {published[:8]}"
        return f"weights sha256 {self.sha256[:8]}{other}"

    def wrong(self, method: str, reason: str | Exception) -> UserError:
        """The error for a file that does not hold what `method` needs; says whose it looks like."""
        reason = next(iter(str(reason).strip().splitlines()), type(reason).__name__)
        other = looks_like(self.weights)
        hint = f"; it looks like {other}" if other and other != method else ""
        told = f"not weights of {method} ({reason}){hint}"
        return UserError(f"{self.path}: {told}; sha256 {self.sha256}{_expected(self.release)}")


def _expected(release: Release | None) -> str:
    return f", expected {release.method}'s {release.sha256[:8]}… from {release.source}" if release else ""


def read_bytes(path: str | Path) -> tuple[Path, bytes, str]:
    """(path, content, sha256) of a file; UserError when it cannot be read."""
    file = Path(path).expanduser()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _missing(file, error) from None
    return file, content, hashlib.sha256(content).hexdigest()


def _missing(file: Path, error: OSError) -> UserError:
    return UserError(f"{file}: weights cannot be read ({error.strerror})")


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _missing(file, error) from None


def read(path: str | Path, method: str) -> StateDict:
    """Read a PyTorch or safetensors file: a state dict, or one below `WRAPPERS`; of a GAN's the generator's part.

    Raises UserError for a missing, truncated or foreign file, and for a pickle that holds code, which is not run.
    """
    return _read(Path(path).expanduser(), method, None)


def load(release: Release, given: str | None = None) -> StateDict:
    """The tensors of a release, `locate`d and read in the same way."""
    return _read(locate(release, given), release.method, release)


def _read(file: Path, method: str, release: Release | None) -> StateDict:
    sha256 = _digest(file)
    try:
        return StateDict(_tensors(file, method), file, sha256, release)
    except UserError as error:
        raise type(error)(f"{file}: {error}; sha256 {sha256}{_expected(release)}") from None


def _tensors(file: Path, method: str) -> dict[str, Tensor]:
    try:
        loaded = _loaded(file)
    except Exception as error:  # the reader of pickles raises nearly anything for a file that is none
        raise _unreadable(file, error) from None
    loaded = _unwrapped(loaded)
    if not isinstance(loaded, dict) or not all(map(_is_entry, loaded.keys(), loaded.values())):
        hint = "; it is an optimiser's, the network is in the *_gen.pth beside it" if _is_optimiser(loaded) else ""
        raise UserError(f"holds no state dict, and so no weights for {method}{hint}")
    return without_prefixes(loaded)


def _loaded(file: Path) -> Any:
    with file.open("rb") as opened:
        length, brace = int.from_bytes(opened.read(8), "little"), opened.read(1)
    if file.suffix == ".safetensors" or (brace == b"{" and length < file.stat().st_size):
        return safetensors.torch.load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _unwrapped(loaded: Any) -> Any:
    """What lies below the names of `WRAPPERS`, in any order of nesting."""
    while isinstance(loaded, dict):
        inner = [loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), dict)]
        if not inner:
            break
        loaded = inner[0]
    return loaded


def without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights below the prefixes, without them: a GAN's discriminator and losses stand beside its generator."""
    for prefix in PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if inner:
            return without_prefixes(inner)
    return weights


def _is_entry(key: Any, value: Any) -> bool:
    """Whether it may be one of a state dict; sparse tensors are none that a network here could use."""
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout is torch.strided


def _is_optimiser(loaded: Any) -> bool:
    """Whether it is an *_opt.pth, without the network."""
    return isinstance(loaded, dict) and {"optimizer", "iter"} <= loaded.keys()


def _unreadable(file: Path, error: Exception) -> UserError:
    for known in declared().formats:
        if known.fits(file):
            return UserError(known.says)
    if isinstance(error, safetensors.SafetensorError):
        return UserError(f"not a safetensors file, or truncated ({error})")
    if _holds_code(file, error):
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        code = f" ({named[1]})" if named else ""
        remedy = "save its state_dict() alone where you trust it"
        return PickledCodeError(f"holds pickled code, which is not run{code}; {remedy}")
    return UserError(f"not a PyTorch checkpoint, or truncated ({type(error).__name__})")


def _holds_code(file: Path, error: Exception) -> bool:
    with file.open("rb") as opened:
        pickled = opened.read(2).startswith((b"\x80", b"PK"))  # alone, or in the zip file that torch.save writes
    return pickled and ("weights_only" in str(error) or "Weights only" in str(error))


def load_state(module: torch.nn.Module, weights: dict[str, Tensor], saved: StateDict, method: str) -> None:
    """Load weights strictly; UserError names the first key that misses, is unknown or has another shape.

    A module on the device "meta", which has no memory, takes the tensors themselves for its own.
    """
    own = module.state_dict()
    expected = {key: tuple(value.shape) for key, value in own.items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        key = wrong[0]
        raise saved.wrong(method, f"{len(wrong)} keys differ, first {key}: {found.get(key)}, not {expected.get(key)}")
    module.load_state_dict(weights, assign=any(value.is_meta for value in own.values()))


def identify(path: str | Path) -> str:
    """Size and sha256 of a file, the method whose weights it looks like, and the release that it is.

    Raises UserError for a file that cannot be read.
    """
    file = Path(path).expanduser()
    sha256, size = _digest(file), file.stat().st_size
    release = next((release for release in declared().releases if release.matches(size, sha256)), None)
    known = f"{release.method}, {release.file} ({release.source}), licence: {release.licence}" if release else "unknown"
    return f"{file}\n  {size:,} bytes, sha256 {sha256}\n  looks like: {_appearance(file)}\n  release: {known}"


def _appearance(file: Path) -> str:
    try:
        keys = _tensors(file, "any method").keys()
    except UserError as error:
        return str(error)
    return looks_like(keys) or f"no method that is known here ({len(keys)} tensors, first {min(keys, default='none')})"
