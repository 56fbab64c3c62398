"""Python files of the user's: imported so that edits count, and with mistakes told in one line."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import sr3eval
from sr3eval.config import resolve_path
from sr3eval.errors import UserError
from sr3eval.sources import local_modules

FOLDERS: list[str] = []  # of users' files, in the order in which imports look there
OURS = frozenset({"sr3eval", "baselines", "analysis", "study_app", "benchmark"})
LONGEST = 400  # characters of somebody's error message: PyTorch lists every key of a checkpoint


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


def function_of(reference: str) -> tuple[Path, Callable[..., Any]]:
    """The file and the function that "file.py:function" names; UserError where either is missing."""
    file, colon, name = reference.rpartition(":")
    path = resolve_path(file)
    if not colon or not path.is_file():
        raise UserError(f'python = "{reference}": write it as "file.py:build", with a file that exists')
    with one_line(path):
        function: Callable[..., Any] | None = getattr(import_file(path), name, None)
    if function is None:
        raise UserError(f"{path}: has no function {name}")
    return path, function


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
    """Let imports find the files of `folder` behind installed ones, and before those beside other users' files."""
    for known in FOLDERS:
        sys.path.remove(known)
    FOLDERS[:] = [folder, *(known for known in FOLDERS if known != folder)]
    sys.path += FOLDERS
    importlib.invalidate_caches()


def check_modules(file: Path) -> None:
    """UserError where an import in somebody's file finds another module than the one beside it."""
    for name, beside in local_modules(file).items():
        spec = importlib.util.find_spec(name)
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        found = next((Path(place).resolve() for place in places if place), beside)
        if found != beside.resolve():
            raise UserError(f'{file}: "import {name}" finds {found}, not {beside}: rename it')
