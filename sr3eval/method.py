"""What a super-resolution method is."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

import sr3eval
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.images import OVERSHOOT, Size

Progress = Callable[[float], None]  # is told the share of a batch's work that is done, in (0, 1]


@dataclass(frozen=True)
class Facts:
    """What is known of a method, for readers of its scores; empty where nothing is.

    Attributes:
        checksums: sha256 by file of weights.
        architecture: whose network, of which size.
        lr_kernel: what made the inputs that it was trained on.
        licence: of its weights.
        warning: what its scores must not be read without.
        settings: what it was run with where its options leave that open, e.g. the sampler that a search found.
    """

    checksums: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    lr_kernel: str = ""
    licence: str = ""
    warning: str = ""
    settings: str = ""


@dataclass(frozen=True)
class Upscaled:
    """What `Method.upscale` returns.

    Attributes:
        images: [N, 3, H, W], float32 in [0, 1].
        notes: what there is to say of each image, e.g. {"converged": False}, which JSON holds; one an image, or none.
    """

    images: Tensor
    notes: Sequence[Mapping[str, Any]] = ()


@runtime_checkable
class Method(Protocol):
    """Turns low-resolution images into high-resolution ones. Subclass it: what you do not set keeps its default.

    Attributes:
        name: as messages call it.
        fingerprint: hash of the weights and of every setting that changes outputs. With the code and the device, it
            names the cache entry. A method from somebody's own file may leave it empty: that file, what it imports and
            the files that its options name are hashed anyway.
        scale: factor by which sides grow; None takes the task's own.
        lr_size: side of the only inputs that it takes.
        facts: see `Facts`.
        one_by_one: it makes the images of a batch one after the other, so that none need wait for the others.
        deterministic: the same input and seed give the same image.
        stochastic: other seeds give other images, so that there are several samples of an input.
        copied: its outputs are looked up, not made.
    """

    name: str
    fingerprint: str = ""
    scale: int | None = None
    lr_size: int | None = None
    facts: Facts = Facts()
    one_by_one: bool = False
    deterministic: bool = True
    stochastic: bool = False
    copied: bool = False

    @cached_property
    def device(self) -> torch.device:
        """Where its network runs."""
        return default_device()

    @property
    def inner(self) -> "Method | None":
        """The method that this one wraps, if it does."""
        return None

    def check(self, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        """Called once before work: raise UserError where the images `ids` cannot be had.

        Args:
            ids: the images of the run.
            sizes: of the HR of every image of the data, of which the run may take fewer; (0, 0) where it is unreadable.
        """
        return

    def lookup(self, image_id: str, hr: Path) -> Tensor | None:
        """The output [3, H, W] in [0, 1] where it exists already; None: it has to be made. hr: the file of HR."""
        return None

    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """Enlarge a batch of images of one size; it leaves `lr` as it is.

        Args:
            lr: [N, 3, h, w], float32 in [0, 1], on the CPU.
            seeds: N of them; image i draws all its noise from seeds[i], so that none depends on those beside it.
            progress: is told the share of the batch that is done, where the method knows it.

        Returns:
            images [N, 3, scale * h, scale * w], float32 in [0, 1], on the CPU, and notes.
        """
        ...


def shares(tell: Callable[[float], None], done: int, images: int) -> Progress:
    """The progress of a batch of `images`, told as images done when `done` were before it."""
    return lambda share: tell(round(done + share * images, 2))


def fingerprint(*parts: object) -> str:
    """sha256 of the parts' text and this release's version, so that no release takes another's outputs for its own."""
    return hashlib.sha256("\x1f".join(map(str, (sr3eval.__version__, *parts))).encode()).hexdigest()


def check_outputs(outputs: Tensor, shape: tuple[int, ...], where: str) -> None:
    """Raise UserError unless `outputs` are float32 of `shape`, finite and in [0, 1]."""
    if not isinstance(outputs, Tensor):
        kind = type(outputs)
        what = "a numpy array" if kind.__module__ == "numpy" else f"{kind.__module__}.{kind.__name__}"
        raise UserError(f"{where}: gave {what.removeprefix('builtins.')}, not a tensor")
    if tuple(outputs.shape) != shape or outputs.dtype != torch.float32:
        raise UserError(f"{where}: gave {outputs.dtype} {tuple(outputs.shape)}, not float32 {shape}")
    if not bool(outputs.isfinite().all()):
        raise UserError(f"{where}: gave NaN or infinite pixels")
    low, high = float(outputs.min()), float(outputs.max())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise UserError(f"{where}: gave values in [{low:.3g}, {high:.3g}]; they must be in [0, 1] (clamp overshoots)")
