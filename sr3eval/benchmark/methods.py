"""From a [[method]] of a config to something that gives images."""

import functools
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import sr3eval
from sr3eval.benchmark.config import MethodConfig
from sr3eval.benchmark.sources import code_behind, code_of, digest, installed, local_modules, named_by, named_in
from sr3eval.config import check_call, defaults, resolve_path
from sr3eval.device import default_device
from sr3eval.errors import UserError, nearest
from sr3eval.images import to_uint8
from sr3eval.method import Bicubic, Composed, Method, Precomputed, Reference, Work, fingerprint, finish, work
from sr3eval.tasks import Task

Contender = Method | Precomputed | Reference
Builder = Callable[..., Contender]
FOLDERS: list[str] = []  # of the methods' own files, in the order in which imports look there
OURS = frozenset({"sr3eval", "baselines", "analysis", "study_app", "benchmark"})
SHARE_OF_PIXELS = 1e-3  # that may differ by a level between batches: convolutions differ in their last bits
LONGEST = 400  # characters of somebody's error message: PyTorch lists every key of a checkpoint


def bicubic(*, task: Task) -> Contender:
    """Bicubic interpolation (Keys, a = -0.5), the baseline of every table."""
    return Bicubic(task.scale)


def precomputed(*, folder: str, pattern: str | None = None) -> Contender:
    """Outputs that were made elsewhere: a folder or a zip file, named as the images are or by a pattern."""
    return Precomputed(resolve_path(folder), pattern)


def reference() -> Contender:
    """The HR images themselves: the row "Reference" or "Baseline" of papers."""
    return Reference()


class Own:
    """Somebody's own method, watched: its mistakes are one line, and its fingerprint holds all that it is made of.

    Its first batch is made twice, the second time beside other images: who drops units at random, normalises by the
    batch or draws noise from elsewhere than the seeds is refused, unless `deterministic` is False.
    """

    def __init__(self, method: Any, file: Path, options: str, made_of: dict[str, str], deterministic: bool) -> None:
        self.method, self.file, self.name, self.scale = method, file, str(method.name), method.scale
        self.lr_size, self.one_by_one = getattr(method, "lr_size", None), getattr(method, "one_by_one", False)
        self.device = getattr(method, "device", default_device())
        self.checksums = made_of | getattr(method, "checksums", {})
        self.fingerprint = fingerprint(getattr(method, "fingerprint", ""), options, *sorted(self.checksums.items()))
        self.unchecked = deterministic

    def upscale(self, lr: Tensor, seeds: Sequence[int]) -> Tensor:
        """The method's own."""
        return finish(self.upscale_steps(lr, seeds))[0]

    @torch.inference_mode()
    def upscale_steps(self, lr: Tensor, seeds: Sequence[int]) -> Work:
        """The method's own images and notes."""
        with one_line(self.file):
            images, notes = yield from work(self.method, lr.clone(), seeds)
            if self.unchecked and isinstance(images, Tensor) and len(images) == len(seeds):
                self.unchecked = False
                self._check_repeats(images, lr, seeds)
        return images, notes

    def _check_repeats(self, images: Tensor, lr: Tensor, seeds: Sequence[int]) -> None:
        """Raise UserError unless the first half of the batch, twice in a batch, gives what it gave in the whole."""
        rows = [row // 2 for row in range(len(seeds))]
        again, _ = finish(work(self.method, lr[rows], [seeds[row] for row in rows]))
        levels = (to_uint8(again).int() - to_uint8(images[rows]).int()).abs()
        if levels.max() > 1 or (levels > 0).float().mean() > SHARE_OF_PIXELS:
            raise UserError(
                f"{self.file}: made twice, an image differs by up to {int(levels.max())} of 255 levels: call .eval() "
                "on the network, and draw noise from each image's seed alone; or set deterministic = false"
            )


@contextmanager
def one_line(file: Path) -> Iterator[None]:
    """Tell an exception of somebody's own code in one line: where in their files, and what."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{_where(error, file)}: {what[:LONGEST]}") from None


def _where(error: Exception, file: Path) -> str:
    """The last line of the traceback that lies beside `file`, with its text."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    ours, theirs = Path(sr3eval.__file__).parent, file.resolve().parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        if path.is_relative_to(theirs) and not path.is_relative_to(ours):
            return f"{path if path != file.resolve() else file}, line {frame.lineno} ({frame.line})"
    return str(file)


def import_file(path: Path) -> ModuleType:
    """Import a file as a module; files beside it can be imported by it, and are read anew."""
    own = local_modules(path).keys() - OURS
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
    _search_first(str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _search_first(folder: str) -> None:
    """Let imports find the files of `folder` behind installed ones, and before those beside other methods."""
    for known in FOLDERS:
        sys.path.remove(known)
    FOLDERS[:] = [folder, *(known for known in FOLDERS if known != folder)]
    sys.path += FOLDERS
    importlib.invalidate_caches()


def check_modules(contenders: Iterable[Contender]) -> None:
    """UserError where an import in somebody's file finds another module than the one beside it."""
    for own in (c for contender in contenders if isinstance(c := innermost(contender), Own)):
        for name, file in local_modules(own.file).items():
            spec = importlib.util.find_spec(name)
            places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
            found = next((Path(place).resolve() for place in places if place), file)
            if found != file.resolve():
                raise UserError(f'{own.file}: "import {name}" finds {found}, not {file}: rename it')


def python(*, python: str, deterministic: bool | None = None, **options: Any) -> Contender:
    """Your own method: python = "file.py:build", with the options of your build."""
    file, colon, function = python.rpartition(":")
    path = resolve_path(file)
    if not colon or not path.is_file():
        raise UserError(f'python = "{python}": write it as "file.py:build", with a file that exists')
    with one_line(path):
        build = getattr(import_file(path), function, None)
    if build is None:
        raise UserError(f"{path}: has no function {function}")
    called = check_call(build, options, function)
    with one_line(path):
        method = build(**called)
    if not all(hasattr(method, member) for member in ("name", "scale", "upscale")):
        raise UserError(f"{path}: what {function}() returns needs name, scale and upscale(lr, seeds)")
    wanted = getattr(method, "deterministic", True) if deterministic is None else deterministic
    everything = defaults(build) | options
    return Own(method, path, f"{function} {sorted(everything.items())}", made_of(path, everything), bool(wanted))


def made_of(file: Path, options: dict[str, Any]) -> dict[str, str]:
    """Checksums of somebody's code and of the files that code and options name, and the versions of its packages."""
    code = code_of(file, file.parent)
    named = named_in(options) | named_by(code, file.parent)
    versions = {f"version of {name}": installed(name) for name in sorted(code.packages)}
    return {name: digest(path) for name, path in (code.files | named).items()} | versions


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
    _refuse_the_tasks(config, parameters, task)
    builder = functools.partial(builder, task=task) if takes_task else builder
    contender = builder(**check_call(builder, config.options, f'method "{config.name}"'))
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


def _refuse_the_tasks(config: MethodConfig, parameters: Mapping[str, inspect.Parameter], task: Task) -> None:
    """Raise UserError for options that are not the method's but the run's, where its builder does not take them."""
    if "task" in config.options:
        raise UserError(f'method "{config.name}": unknown key "task"; the run has one task')
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "scale" in config.options and "scale" not in parameters and not takes_any:
        raise UserError(
            f'method "{config.name}": {config.kind} has no option "scale"; the scale is the task\'s, {task.scale} of '
            f"{task.name}"
        )
    if not takes_any and parameters.keys() <= {"task"} and config.options:
        raise UserError(
            f'method "{config.name}": unknown key "{next(iter(config.options))}"; {config.kind} has no options'
        )


def identity(contender: Contender) -> str:
    """Names all that a contender's images depend on besides the inputs and seeds: settings, files, code, device."""
    if not isinstance(contender, Method):
        return fingerprint(contender.name, *sorted(getattr(contender, "checksums", {}).values()))
    method = innermost(contender)
    code = None if isinstance(method, Own) else code_behind(type(method))
    return fingerprint(contender.fingerprint, code.digest if code else "", computed_on(method))


def innermost(contender: Any) -> Any:
    """The method of a path, or what is none."""
    while isinstance(contender, Composed):
        contender = contender.method
    return contender


def computed_on(method: Method) -> str:
    """The type of device that a method runs on, and how a GPU rounds there: its images differ from the CPU's."""
    kind = torch.device(getattr(method, "device", default_device())).type
    backends = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    override = os.environ.get("NVIDIA_TF32_OVERRIDE", "")
    return kind if kind != "cuda" else f"cuda, TF32 {backends} {override}"
