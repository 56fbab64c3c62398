"""Foreign checkpoint files: read without running code that they may hold, and told apart by what is in them."""

import hashlib
import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr3eval.errors import UserError

# By method, a pattern that a key of its checkpoint matches and no other method's does.
KEYS = {
    "sr3_janspiry": r"denoise_fn\.",
    "srflow": r"flowUpsamplerNet\.",
    "esrgan": r"(model\.1\.sub|RRDB_trunk|body\.\d+\.rdb\d)\.",
    "PULSE's StyleGAN (synthesis.pt)": r"blocks\.4x4\.const$",
    "PULSE's StyleGAN (mapping.pt)": r"dense7\.weight$",
    "PULSE's gaussian_fit.pt": r"std$",
    "RCAN (kind spandrel)": r"body\.\d+\.body\.\d+\.body\.3\.conv_du\.|body\.\d+\.residual_group\.",
    "realesrgan": r"body\.1\.weight$",
    "FSRNet (cs-giung's port), kind fsrgan": r"csr_net\.",
    "FSRNet (cydiachen's port), kind fsrgan": r"coarse_SR_Encoder\.",
}
# Names below which training programs save a network's weights, those of its running mean first.
WRAPPERS = ("params_ema", "params", "state_dict_ema", "state_dict", "state_dict_G", "model_state_dict", "model")
# What stands before the keys of a network that was saved inside another: compiled, on several GPUs, in MMEditing's GAN.
PREFIXES = ("_orig_mod.", "module.", "generator_ema.", "generator.", "netG.", "net_g.")
ENHANCENET_MAGIC = bytes.fromhex("57fb808b247547db")  # of a LevelDB table, at the end of the file
NCNN_MAGIC = bytes.fromhex("476b3001")  # fp16 weights of ncnn, at the start
TORCH7_MAGIC = bytes.fromhex("040000000100000003000000") + b"V 1"  # a .t7 file that begins with an object of a class


class PickledCodeError(UserError):
    """A checkpoint is a pickle of more than tensors and plain values."""


@dataclass(frozen=True)
class Foreign:
    """A file's state dict, by its own names without `PREFIXES`, its path and its sha256."""

    weights: dict[str, Tensor]
    path: Path
    sha256: str

    def wrong(self, method: str, reason: str) -> UserError:
        """The error for a file that does not hold what `method` needs; says whose it looks like."""
        other = looks_like(self.weights)
        hint = f"; it looks like {other}" if other and other != method else ""
        return UserError(f"{self.path}: not weights of {method} ({reason}){hint}; sha256 {self.sha256}")


def read_bytes(path: str) -> tuple[Path, bytes, str]:
    """(path, content, sha256) of a file; UserError when it cannot be read."""
    file = Path(path).expanduser()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: weights cannot be read ({error.strerror})") from None
    return file, content, hashlib.sha256(content).hexdigest()


def read(path: str, method: str) -> Foreign:
    """Read a PyTorch checkpoint: a state dict, or one below `WRAPPERS`; of a GAN's the generator's part.

    Raises UserError for a missing, truncated or foreign file, and for a pickle that holds code, which is not run.
    """
    file, content, sha256 = read_bytes(path)
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of pickles raises nearly anything for a file that is none
        problem = PickledCodeError if _holds_code(content, error) else UserError
        raise problem(f"{file}: {_unreadable(content, error)}; sha256 {sha256}") from None
    loaded = _unwrapped(loaded)
    if not isinstance(loaded, dict) or not all(map(_is_entry, loaded.keys(), loaded.values())):
        hint = "; it is an optimiser's, the network is in the *_gen.pth beside it" if _is_optimiser(loaded) else ""
        raise UserError(f"{file}: holds no state dict, so no weights of {method}{hint}; sha256 {sha256}")
    return Foreign(without_prefixes(loaded), file, sha256)


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
    """Whether it is the *_opt.pth that Janspiry's SR3 writes beside each *_gen.pth."""
    return isinstance(loaded, dict) and {"optimizer", "iter"} <= loaded.keys()


def _holds_code(content: bytes, error: Exception) -> bool:
    pickled = content.startswith((b"\x80", b"PK"))  # alone, or in the zip file that torch.save writes
    return pickled and ("weights_only" in str(error) or "Weights only" in str(error))


def _unreadable(content: bytes, error: Exception) -> str:
    if content.endswith(ENHANCENET_MAGIC):
        return "a TensorFlow V1 table; it looks like EnhanceNet's `weights` (kind enhancenet)"
    if content.startswith(NCNN_MAGIC):
        return "a weight file of ncnn, not of PyTorch"
    if content.startswith(TORCH7_MAGIC):
        return "a file of Torch7, whose networks are not run; `python benchmark.py weights FILE` lists what is in it"
    if _holds_code(content, error):
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        code = f" ({named[1]})" if named else ""
        return f"holds pickled code, which is not run{code}; save its state_dict() alone where you trust it"
    return f"not a PyTorch checkpoint, or truncated ({type(error).__name__})"


def looks_like(keys: Collection[str]) -> str:
    """The method whose checkpoints have such keys, or nothing."""
    for method, pattern in KEYS.items():
        if any(re.match(pattern, key) for key in keys):
            return method
    return ""


def load_state(module: torch.nn.Module, weights: dict[str, Tensor], foreign: Foreign, method: str) -> None:
    """Load weights strictly; UserError names the first key that misses, is unknown or has another shape.

    A module on the device "meta", which has no memory, takes the tensors themselves for its own.
    """
    own = module.state_dict()
    expected = {key: tuple(value.shape) for key, value in own.items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        key = wrong[0]
        raise foreign.wrong(method, f"{len(wrong)} keys differ, first {key}: {found.get(key)}, not {expected.get(key)}")
    module.load_state_dict(weights, assign=any(value.is_meta for value in own.values()))


def options_text(**options: Any) -> str:
    """Options that change outputs, for fingerprints."""
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
