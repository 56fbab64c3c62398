"""From a [[method]] of a config to something that gives images."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sr3eval.benchmark.config import MethodConfig
from sr3eval.config import check_call, defaults, resolve_path
from sr3eval.errors import UserError, nearest
from sr3eval.files import digest_of
from sr3eval.method import Bicubic, Composed, Method, Precomputed, Reference, Work, fingerprint, finish, work
from sr3eval.tasks import Task

Contender = Method | Precomputed | Reference
Builder = Callable[..., Contender]


def bicubic(*, task: Task) -> Contender:
    return Bicubic(task.scale)


def precomputed(*, folder: str, pattern: str | None = None) -> Contender:
    return Precomputed(resolve_path(folder), pattern)


def reference() -> Contender:
    return Reference()


class Own:
    """Somebody's own method. Its file is part of the fingerprint, so that an edited one is not found in the cache."""

    def __init__(self, method: Method, file: Path) -> None:
        self.method, self.name, self.scale = method, method.name, method.scale
        self.lr_size, self.one_by_one = getattr(method, "lr_size", None), getattr(method, "one_by_one", False)
        self.checksums = {file.name: digest_of({file.name: file})} | getattr(method, "checksums", {})
        self.fingerprint = fingerprint(method.fingerprint, self.checksums[file.name])

    def upscale(self, lr: Tensor, seeds: Sequence[int]) -> Tensor:
        """The method's own."""
        return finish(self.upscale_steps(lr, seeds))[0]

    @torch.inference_mode()
    def upscale_steps(self, lr: Tensor, seeds: Sequence[int]) -> Work:
        """The method's own images and notes."""
        return (yield from work(self.method, lr, seeds))


def import_file(path: Path) -> ModuleType:
    """Import a file as a module; files beside it can be imported by it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look their module up
    sys.path.append(str(path.parent.resolve()))
    spec.loader.exec_module(module)
    return module


def python(*, python: str, **options: Any) -> Contender:
    """Call `build(**options)` of somebody's own file, given as "file.py:build"."""
    file, colon, function = python.rpartition(":")
    path = resolve_path(file)
    if not colon or not path.is_file():
        raise UserError(f'python = "{python}": write it as "file.py:build", with a file that exists')
    build = getattr(import_file(path), function, None)
    if build is None:
        raise UserError(f"{path}: has no function {function}")
    method = build(**check_call(build, options, function))
    if not isinstance(method, Method):
        raise UserError(f"{path}: what {function}() returns needs name, fingerprint, scale and upscale(lr, seeds)")
    return Own(method, path)


def regression() -> Builder:
    from sr3eval.diffusion.regression import build

    return build


def sr3() -> Builder:
    from sr3eval.diffusion.sr3 import build

    return build


# Kinds of method by name, each with what gives its builder: a kind is imported when a run names it, so that a broken
# requirement breaks that one alone.
Kinds = Mapping[str, Callable[[], Builder]]
BUILTIN: Kinds = {
    "bicubic": lambda: bicubic,
    "regression": regression,
    "sr3": sr3,
    "precomputed": lambda: precomputed,
    "reference": lambda: reference,
    "python": lambda: python,
}


def resolve(config: MethodConfig, kinds: Kinds) -> MethodConfig:
    """The config with the defaults of its kind written out. Raises UserError for an unknown kind."""
    return replace(config, options=defaults(_builder(config, kinds)) | config.options)


def _builder(config: MethodConfig, kinds: Kinds) -> Builder:
    if config.kind not in kinds:
        raise UserError(f'method "{config.name}": unknown kind "{config.kind}": {nearest(config.kind, kinds)}')
    return kinds[config.kind]()


def build(config: MethodConfig, task: Task, kinds: Kinds) -> Contender:
    """Build one contender. A builder's parameter `task` is the run's; the others are the config's options.

    With a path, the checkpoint may be of another task. Raises UserError for an unknown kind or option and for a method
    of another scale without a path.
    """
    builder = _builder(config, kinds)
    parameters = inspect.signature(builder).parameters
    takes_task = "task" in parameters and (not config.path or parameters["task"].default is inspect.Parameter.empty)
    given = {"task": task} if takes_task else {}
    if "task" in config.options:
        raise UserError(f'method "{config.name}": unknown key "task"; the run has one task')
    contender = builder(**check_call(builder, config.options | given, f'method "{config.name}"'))
    if config.path:
        if not isinstance(contender, Method):
            raise UserError(f'method "{config.name}": {config.kind} takes no path')
        return Composed(contender, config.path, task)
    scale, lr_size = getattr(contender, "scale", None), getattr(contender, "lr_size", None)
    if lr_size not in (None, task.lr_size):
        raise UserError(f'method "{config.name}": takes {lr_size}x{lr_size} images, but {task.name} has {task.lr_size}')
    if scale not in (None, task.scale):
        raise UserError(
            f'method "{config.name}": enlarges {scale} times, but {task.name} needs {task.scale} times; a path with '
            f'"method" and resizes goes around that, e.g. path = ["method", "bicubic {task.hr_size}"]'
        )
    return contender
