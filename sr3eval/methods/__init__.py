"""Every kind of method that a run may name: each a file of this folder, or of a package that an entry point names.

An installed package joins in by the entry point group `sr3eval.methods`, whose values are packages of such files:
`baselines` does.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from sr3eval import discovery
from sr3eval.config import check_call
from sr3eval.discovery import Builder
from sr3eval.errors import UserError, nearest
from sr3eval.method import Method
from sr3eval.tasks import Task

GROUP = "sr3eval.methods"


def packages() -> Mapping[str, ModuleType]:
    """{kind: the package that has its file}."""
    others = [importlib.import_module(point.value) for point in entry_points(group=GROUP)]
    found = [(name, package) for package in (*others, sys.modules[__name__]) for name in discovery.names(package)]
    return dict(sorted(found))


def available() -> list[str]:
    """The names of all kinds."""
    return list(packages())


def builder(kind: str) -> Builder:
    """The `build(...) -> Method` of a kind; UserError names the nearest one."""
    found = packages()
    if kind not in found:
        raise UserError(f'unknown kind "{kind}": {nearest(kind, found)}')
    return discovery.builder(found[kind], kind, "kind")


def described() -> dict[str, str]:
    """What each kind is, in a line."""
    return {kind: discovery.described(functools.partial(builder, kind)) for kind in available()}


def parameters(build: Builder) -> set[str] | None:
    """Names of a builder's parameters; None where it takes any option."""
    found = inspect.signature(build).parameters
    return None if any(p.kind is p.VAR_KEYWORD for p in found.values()) else set(found)


def of_run(build: Builder, task: Task, with_path: bool) -> dict[str, Any]:
    """What a run gives a builder: its task, and its scale where that has no default.

    with_path: the method stands between resizes, so that a task with a default is not asked for.
    """
    found = inspect.signature(build).parameters
    required = {name for name, parameter in found.items() if parameter.default is parameter.empty}
    given = {"task": task} if "task" in found and ("task" in required or not with_path) else {}
    return given | ({"scale": task.scale} if "scale" in required else {})


def load(kind: str, **options: Any) -> Method:
    """Build a method, e.g. `load("sr3", checkpoint="model.safetensors", steps=100)` or `load("bicubic", scale=4)`.

    Args:
        kind: one of `available()`.
        **options: those of the kind's `build`.

    Raises:
        UserError: an unknown kind or option, or an option of another type.
    """
    build = builder(kind)
    method: Method = build(**check_call(build, options, f'kind "{kind}"'))
    return method
