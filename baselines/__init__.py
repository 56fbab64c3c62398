"""Published super-resolution models, each loaded from the files that its authors released: one adapter a file."""

import sys
from typing import Any

from sr3eval import discovery
from sr3eval.config import check_call
from sr3eval.method import Method


def available() -> list[str]:
    """Names of the baselines: the files of this folder."""
    return discovery.names(sys.modules[__name__])


def load(name: str, **options: Any) -> Method:
    """Build a baseline, e.g. `load("esrgan", weights="RRDB_ESRGAN_x4.pth")`.

    Args:
        name: one of `available()`.
        **options: those of the baseline's `build`.

    Raises:
        UserError: a name or options that do not exist, or options of another type, as in a config.
    """
    build = discovery.builder(sys.modules[__name__], name, "baseline")
    method: Method = build(**check_call(build, options, f'baseline "{name}"'))
    return method
