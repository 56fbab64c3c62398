"""Your own method: python = "file.py:build", with the options of your build."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr3eval.config import check_call, defaults
from sr3eval.device import default_device
from sr3eval.errors import UserError
from sr3eval.images import Size, to_uint8
from sr3eval.method import Facts, Method, Progress, Upscaled, fingerprint
from sr3eval.sources import made_of
from sr3eval.user_code import check_modules, function_of, one_line

SHARE_OF_PIXELS = 1e-3  # that may differ by a level between batches: convolutions differ in their last bits


class UserMethod(Method):
    """Somebody's own method, watched: its mistakes are one line, and its fingerprint holds all that it is made of.

    method: a `Method`, or any object with name, scale and upscale(lr, seeds), which may return a tensor alone.
    Its first batch is made twice, the second time beside other images: who drops units at random, normalises by the
    batch or draws noise from elsewhere than the seeds is refused, unless `deterministic` is False.
    """

    def __init__(self, method: Any, file: Path, options: str, made_of: dict[str, str], deterministic: bool) -> None:
        self.method, self.file, self.name, self.scale = method, file, str(method.name), method.scale
        # The one place where members are looked for: an object of the user's need not know our Method.
        self.lr_size = getattr(method, "lr_size", None)
        self.one_by_one = getattr(method, "one_by_one", False)
        self.stochastic = getattr(method, "stochastic", False)
        self.device = torch.device(getattr(method, "device", default_device()))
        facts = getattr(method, "facts", Facts())
        self.facts = replace(facts, checksums=made_of | dict(facts.checksums))
        made_by = (getattr(method, "fingerprint", ""), options, *sorted(self.facts.checksums.items()))
        self.fingerprint = fingerprint(*made_by)
        self.tells = "progress" in inspect.signature(method.upscale).parameters
        self.deterministic = deterministic
        self.unchecked = deterministic

    def check(self, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        """Refuse imports that another file would answer."""
        check_modules(self.file)

    @torch.inference_mode()
    def upscale(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        """The method's own images and notes."""
        with one_line(self.file):
            sr = self._upscaled(lr.clone(), seeds, progress)
            if self.unchecked and isinstance(sr.images, Tensor) and len(sr.images) == len(seeds):
                self.unchecked = False
                self._check_repeats(sr.images, lr, seeds)
        return sr

    def _upscaled(self, lr: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Upscaled:
        sr = self.method.upscale(lr, seeds, **({"progress": progress} if self.tells else {}))
        return sr if isinstance(sr, Upscaled) else Upscaled(sr)

    def _check_repeats(self, images: Tensor, lr: Tensor, seeds: Sequence[int]) -> None:
        """Raise UserError unless the first half of the batch, twice in a batch, gives what it gave in the whole."""
        rows = [row // 2 for row in range(len(seeds))]
        again = self._upscaled(lr[rows], [seeds[row] for row in rows]).images
        levels = (to_uint8(again).int() - to_uint8(images[rows]).int()).abs()
        if levels.max() > 1 or (levels > 0).float().mean() > SHARE_OF_PIXELS:
            raise UserError(
                f"{self.file}: made twice, an image differs by up to {int(levels.max())} of 255 levels: call .eval() "
                "on the network, and draw noise from each image's seed alone; or set deterministic = false"
            )


def build(*, python: str, deterministic: bool | None = None, **options: Any) -> UserMethod:
    """Call somebody's own builder.

    Args:
        python: "file.py:build".
        deterministic: whether a batch made twice must be the same; by default what the method says, or else true.
        **options: of that builder.
    """
    path, builder = function_of(python)
    called = check_call(builder, options, builder.__name__)
    with one_line(path):
        method = builder(**called)
    if not all(hasattr(method, member) for member in ("name", "scale", "upscale")):
        raise UserError(f"{path}: what {builder.__name__}() returns needs name, scale and upscale(lr, seeds)")
    wanted = getattr(method, "deterministic", True) if deterministic is None else deterministic
    everything = defaults(builder) | options
    made_by = f"{builder.__name__} {sorted(everything.items())}"
    return UserMethod(method, path, made_by, made_of(path, everything), bool(wanted))
