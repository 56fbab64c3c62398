"""What outputs depend on besides the text of a config: the code that makes them, and the files that it reads.

Python files are followed through their imports, those inside functions too, as far as that is seen without running
them. Code that is not installed (a user's folder, this project in development) counts by its content, an installed
package by its version. The packages in BASICS do not count: their releases change an output in its last bits, at most
by a level here and there, and environment.json records them.
"""

import ast
import functools
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from sr3eval.config import resolve_path
from sr3eval.files import digest_of

# What sr3eval itself is built on.
# fmt: off
BASICS = frozenset({
    "PIL", "click", "jinja2", "numpy", "pandas", "pydantic", "pydantic_core", "safetensors", "scipy", "tensorboard",
    "tomli_w", "torch", "tqdm",
})
# fmt: on
# Suffixes of the files that a program reads its parameters from; others that it names may be what it writes.
# fmt: off
PARAMETERS = frozenset({
    ".bin", ".ckpt", ".h5", ".json", ".mat", ".npy", ".npz", ".onnx", ".pickle", ".pkl", ".pt", ".pth", ".safetensors",
    ".t7", ".toml", ".yaml", ".yml",
})
# fmt: on
IMPORTERS = ("import_module", "__import__")


@dataclass(frozen=True)
class Code:
    """files: those that are not installed, {path as seen from the first one's folder: path}; packages: the others."""

    files: dict[str, Path]
    packages: frozenset[str]

    @property
    def digest(self) -> str:
        """Of the files' contents and the packages' versions."""
        return " ".join([digest_of(self.files), *(f"{name} {installed(name)}" for name in sorted(self.packages))])


def code_of(file: Path, root: Path) -> Code:
    """The code that `file` is made of. root: the folder in which its own absolute imports are looked up first."""
    found: dict[Path, None] = {}
    packages: set[str] = set()
    waiting = [(file.resolve(), root.resolve())]
    while waiting:
        path, base = waiting.pop()
        if path in found:
            continue
        found[path] = None
        for name, start in _imports(path, base):
            own = _located(start, name)
            if own or start != base:
                waiting += [(module, base) for module in own]
            elif (place := _place(name.partition(".")[0])) is not None:
                waiting += [(module, place) for module in _located(place, name)]
            else:
                packages.add(name.partition(".")[0])
    foreign = packages - BASICS - sys.stdlib_module_names
    return Code({_relative(path, root.resolve()): path for path in found}, frozenset(foreign))


def code_behind(thing: Any) -> Code | None:
    """The code of a class or function of an importable package or module; None where it has no file."""
    try:
        file = inspect.getsourcefile(thing)
    except TypeError:
        return None
    if file is None:
        return None
    root = Path(file).parent
    while (root / "__init__.py").exists():
        root = root.parent
    return code_of(Path(file), root)


def local_modules(file: Path) -> dict[str, Path]:
    """The top-level modules and packages that `file` imports from its own folder: {name: file, or folder of a package
    without __init__.py}.
    """
    folder = file.resolve().parent
    beside = [path for path in code_of(file, folder).files.values() if path.is_relative_to(folder)]
    names = {path.relative_to(folder).parts[0].removesuffix(".py") for path in beside}
    return {name: next(_files(folder / name), folder / name) for name in names - {file.stem}}


def named_in(options: Any, where: str = "") -> dict[str, Path]:
    """The existing files and folders that values of options name, {"option (name)": path}; tables and lists too."""
    if isinstance(options, Mapping):
        pairs: Iterable[tuple[Any, Any]] = options.items()
    elif isinstance(options, list | tuple):
        pairs = enumerate(options)
    else:
        return _named(options, where)
    found = [named_in(value, f"{where}.{key}" if where else str(key)) for key, value in pairs]
    return {name: path for part in found for name, path in part.items()}


def _named(value: Any, where: str) -> dict[str, Path]:
    if not isinstance(value, str | Path) or not str(value):
        return {}
    path = resolve_path(str(value))
    return {f"{where} ({path.name})": path} if _exists(path) else {}


def named_by(code: Code, folder: Path) -> dict[str, Path]:
    """The files of parameters that strings in the code name, as seen from its file, `folder` or the working folder."""
    found = {}
    for path in code.files.values():
        for text in _strings(path, path.stat().st_mtime_ns):
            for candidate in (path.parent / text, folder / text, resolve_path(text)):
                if candidate.suffix.lower() in PARAMETERS and _exists(candidate) and candidate.is_file():
                    found[text] = candidate
                    break
    return found


def made_of(file: Path, options: Mapping[str, Any]) -> dict[str, str]:
    """Checksums of somebody's code and of the files that code and options name, and the versions of its packages."""
    code = code_of(file, file.parent)
    named = named_in(options) | named_by(code, file.parent)
    versions = {f"version of {name}": installed(name) for name in sorted(code.packages)}
    return {name: digest(path) for name, path in (code.files | named).items()} | versions


def digest(path: Path) -> str:
    """sha256 of a file's content, or of the names and contents of all files in a folder."""
    if path.is_dir():
        return digest_of({p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()})
    return digest_of({"": path})


def installed(package: str) -> str:
    """The version of the distribution that an importable package comes from, or nothing."""
    return ", ".join(version(name) for name in sorted(set(_distributions().get(package, []))))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, say, or with a zero byte
        return False


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _located(base: Path, name: str) -> list[Path]:
    """The files of a dotted module and of the packages around it, below `base`."""
    parts = name.split(".")
    return [file for n in range(1, len(parts) + 1) for file in _files(base.joinpath(*parts[:n]))]


def _files(module: Path) -> Iterator[Path]:
    """The file of a module, or of a package `module`; extension modules too."""
    beside = (module.with_name(module.name + suffix) for suffix in importlib.machinery.all_suffixes())
    yield from (file for file in (module / "__init__.py", *beside) if file.is_file())


def _place(package: str) -> Path | None:
    """The folder that holds a module or package which is importable, but not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    where = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
    if package in sys.stdlib_module_names or not where or where[0] is None or not Path(where[0]).exists():
        return None
    path = Path(where[0]).resolve()
    return None if {"site-packages", "dist-packages"} & set(path.parts) else path.parent


def _imports(path: Path, root: Path) -> list[tuple[str, Path]]:
    """(dotted name, folder in which it is looked up first) of everything that a file imports."""
    names = _imported(path, path.stat().st_mtime_ns)
    return [(name, root if level == 0 else path.parents[level - 1]) for name, level in names]


@functools.cache
def _imported(path: Path, _changed: int) -> list[tuple[str, int]]:
    """(dotted name, level of a relative import); `from a import b` gives a.b, since b may be a module."""
    found: dict[tuple[str, int], None] = {}
    for node in _executed(_tree(path)):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            found |= dict.fromkeys((prefix + alias.name.replace("*", "__init__"), node.level) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _called(node.func) in IMPORTERS:
            match node.args[0]:
                case ast.Constant(value=str(name)) if name.strip("."):
                    found[name.lstrip("."), len(name) - len(name.lstrip("."))] = None
    return list(found)


@functools.cache
def _strings(path: Path, _changed: int) -> list[str]:
    constants = (node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant))
    return [value for value in constants if isinstance(value, str) and Path(value).suffix.lower() in PARAMETERS]


def _tree(path: Path) -> ast.Module:
    """A file's syntax; empty for an extension module and for what Python itself will refuse."""
    try:
        return ast.parse(path.read_bytes()) if path.suffix == ".py" else ast.Module([], [])
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but for what stands under `if TYPE_CHECKING:`."""
    yield node
    checked_only = isinstance(node, ast.If) and _called(node.test) == "TYPE_CHECKING"
    for child in node.orelse if checked_only else ast.iter_child_nodes(node):  # type: ignore[attr-defined]
        yield from _executed(child)


def _called(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))
