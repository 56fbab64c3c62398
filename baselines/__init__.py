"""Published super-resolution models, each loaded from the files that its authors released: one adapter a file."""

import importlib
import pkgutil
from typing import Any

from sr3eval.config import check_call
from sr3eval.errors import UserError, nearest
from sr3eval.method import Method


def available() -> list[str]:
    """Names of the baselines: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def builder(name: str) -> Any:
    """The `build(...) -> Method` of the baseline `name`; UserError names the nearest one."""
    if name not in available():
        raise UserError(f'unknown baseline "{name}": {nearest(name, available())}')
    return importlib.import_module(f"baselines.{name}").build


def load(name: str, **options: Any) -> Method:
    """Build the baseline `name`, e.g. `load("esrgan", weights="RRDB_ESRGAN_x4.pth")`.

    Raises UserError for options that it does not have or of another type, as a config would.
    """
    build = builder(name)
    method: Method = build(**check_call(build, options, f'baseline "{name}"'))
    return method
