"""Things that are found by the names of their files: methods, baselines, metrics."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from sr3eval.errors import UserError, nearest

Builder = Callable[..., Any]


def names(package: ModuleType) -> list[str]:
    """The files of a package that do not begin with an underscore, without suffix."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def builder(package: ModuleType, name: str, noun: str) -> Builder:
    """The function `build` of a package's file; UserError, with the nearest name, for one that is not there."""
    if name not in names(package):
        raise UserError(f'unknown {noun} "{name}": {nearest(name, names(package))}')
    build: Builder = importlib.import_module(f"{package.__name__}.{name}").build
    return build


def options_of(build: Builder) -> str:
    """The options of a builder with their types and defaults, and what it says of them."""
    lines = [str(parameter) for parameter in inspect.signature(build).parameters.values()]
    return "\n".join([*lines, "", inspect.getdoc(build) or ""]).strip()


def described(load: Callable[[], Builder], own: bool = False) -> str:
    """The first line of what a builder's file says of itself; of `own`, what the builder does."""
    try:
        builder = load()
    except ImportError as error:
        return f"cannot be loaded: {error}"
    text = inspect.getdoc(builder if own else sys.modules[builder.__module__]) or ""
    return text.partition("\n")[0].rstrip(".")
